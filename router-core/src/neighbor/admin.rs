//! The cache as an operator sees and edits it (`ip neigh`).

use super::nud::Nud;
use super::table::{NeighborEvent, NeighborTable};
use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::port::PortId;
use crate::settings::NeighborSettings;
use crate::spec::{NeighSpec, NudState};
use crate::time::Instant;
use std::net::IpAddr;

/// How to treat an entry that is, or is not, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// It must not be there (`ip neigh add`).
    Add,
    /// It must be there (`ip neigh change`).
    Change,
    /// Either (`ip neigh replace`).
    Replace,
}

/// Why an entry could not be set or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeighError {
    /// EEXIST.
    #[error("the neighbour is there already")]
    Exists,
    /// ENOENT.
    #[error("no such neighbour")]
    NotFound,
    /// EINVAL: no link-layer address given, and none known.
    #[error("a link-layer address is needed")]
    NoLladdr,
    /// EINVAL: a group or all-zero address.
    #[error("the link-layer address is not one station's")]
    BadLladdr,
    /// EINVAL: the address can be no neighbour's.
    #[error("the address is not one host's")]
    BadAddress,
    /// EINVAL: incomplete and failed are results, not wishes.
    #[error("this state cannot be set")]
    BadState,
}

/// One entry, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// The link.
    pub port: PortId,
    /// Its address.
    pub addr: IpAddr,
    /// Its link-layer address, if known.
    pub mac: Option<MacAddr>,
    /// Its state.
    pub state: NudState,
    /// Whether it said that it is a router.
    pub router: bool,
    /// When it was last known to be used: exact to a second while STALE, to the ReachableTime while REACHABLE.
    pub used: Instant,
    /// When it was last confirmed (or made).
    pub confirmed: Instant,
    /// When a message or a command last changed it.
    pub updated: Instant,
    /// Frames that wait for it.
    pub pending: usize,
    /// Questions sent in this state.
    pub probes: u8,
}

impl Neighbor {
    /// In the words of the control plane; `dev` is the port's name.
    pub fn spec(&self, dev: &str) -> NeighSpec {
        NeighSpec {
            addr: self.addr,
            dev: dev.to_owned(),
            lladdr: self.mac,
            state: Some(self.state),
            router: self.router,
        }
    }
}

impl NeighborTable {
    /// Sets an entry by hand. `spec.dev` is not looked at: `port` is. Without a state it becomes permanent, without a
    /// link-layer address it keeps the one it has. Static entries do not count against the limit of the cache.
    pub fn set(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        spec: &NeighSpec,
        mode: SetMode,
        out: &mut Vec<NeighborEvent>,
    ) -> Result<(), NeighError> {
        let key = (port, spec.addr);
        let known = self.entries.get(&key);
        match (mode, known.is_some()) {
            (SetMode::Add, true) => return Err(NeighError::Exists),
            (SetMode::Change, false) => return Err(NeighError::NotFound),
            _ => {}
        }
        if spec.addr.is_multicast() || spec.addr.is_unspecified() || spec.addr == IpAddr::from([255; 4]) {
            return Err(NeighError::BadAddress);
        }
        let state = spec.state.unwrap_or(NudState::Permanent);
        if matches!(state, NudState::Incomplete | NudState::Failed) {
            return Err(NeighError::BadState);
        }
        let mac = spec.lladdr.or_else(|| known.and_then(|e| e.nud.mac())).ok_or(NeighError::NoLladdr)?;
        if !mac.is_unicast() {
            return Err(NeighError::BadLladdr);
        }
        let reachable = self.reachable_time(s);
        let mut nud = Nud::set_by_hand(now, s, reachable, state, mac);
        nud.set_router(spec.router);
        match self.entries.get_mut(&key) {
            Some(e) => {
                e.nud = nud;
                (e.updated, e.last_used) = (now, now);
            }
            None => self.insert(now, key, nud),
        }
        self.settle(now, key, out);
        Ok(())
    }

    /// Deletes an entry; frames that waited for it have failed.
    pub fn delete(&mut self, port: PortId, addr: IpAddr, out: &mut Vec<NeighborEvent>) -> Result<(), NeighError> {
        if !self.entries.contains_key(&(port, addr)) {
            return Err(NeighError::NotFound);
        }
        self.remove((port, addr), out);
        Ok(())
    }

    /// Forgets the neighbours of a port that lost its link (`keep_static`) or is gone. Frames that waited are dropped
    /// with `reason`, without an answer.
    pub fn flush_port(&mut self, port: PortId, keep_static: bool, reason: DropReason, out: &mut Vec<NeighborEvent>) {
        let mut keys: Vec<_> = self
            .entries
            .iter()
            .filter(|((p, _), e)| *p == port && !(keep_static && e.nud.is_static()))
            .map(|(k, _)| *k)
            .collect();
        keys.sort_unstable();
        for key in keys {
            let frames = self.take_out(key, out);
            out.extend(frames.into_iter().map(|frame| NeighborEvent::Dropped { reason, frame }));
        }
    }

    /// One entry.
    pub fn get(&self, port: PortId, addr: IpAddr) -> Option<Neighbor> {
        let e = self.entries.get(&(port, addr))?;
        Some(Neighbor {
            port,
            addr,
            mac: e.nud.mac(),
            state: e.nud.state(),
            router: e.nud.router(),
            used: e.last_used,
            confirmed: e.confirmed,
            updated: e.updated,
            pending: e.pending.len(),
            probes: e.nud.probes(),
        })
    }

    /// All entries, by port and address.
    pub fn list(&self) -> Vec<Neighbor> {
        let mut keys: Vec<_> = self.entries.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|(port, addr)| self.get(port, addr)).collect()
    }
}
