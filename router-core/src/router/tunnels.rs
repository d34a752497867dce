//! Tunnels: virtual ports whose outer header is ready made and whose carrier follows the underlay's routes.

use crate::addr::Family;
use crate::decap::DecapKey;
use crate::forward::tunnel::{IPV6_MIN_MTU, OVERHEAD};
use crate::headers::protocol;
use crate::journal::{Happened, Subject};
use crate::object::{Encap, Object, ObjectId};
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::router::links::check_name;
use crate::router::{PortError, Router};
use crate::routing::EncapFacts;
use crate::spec::{TunnelMode, TunnelSpec};
use crate::time::{Duration, Instant};
use crate::worker::Outbox;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long a path MTU learned from an ICMP error is believed (RFC 1191 6.3, RFC 8201 4: ten minutes).
const PMTU_LIFETIME: Duration = Duration::from_secs(600);

/// Tunnels that may carry each other, at most: what an object's MTU is followed through.
const MAX_STACK: u8 = 8;

/// A tunnel as the control side keeps it.
pub(super) struct Tunnel {
    pub spec: TunnelSpec,
    key: DecapKey,
    /// Outer path MTU from an ICMP error, and when it is forgotten.
    learned: Option<(u32, Instant)>,
    /// What the data plane was last told.
    facts: Option<EncapFacts>,
    /// Whether followers were last told that a route carries it.
    told_carried: bool,
}

/// All tunnels, and which of them have to be looked at again.
#[derive(Default)]
pub(super) struct Tunnels {
    all: BTreeMap<PortId, Tunnel>,
    /// Their parameters, underlay or path MTU may have changed.
    dirty: BTreeSet<PortId>,
    /// When learned path MTUs are forgotten.
    expiry: BTreeSet<(Instant, PortId)>,
    /// Those bound to a device, by its name.
    by_dev: BTreeMap<String, BTreeSet<PortId>>,
}

impl Tunnels {
    /// Adds a tunnel, or puts another one in its place.
    fn insert(&mut self, id: PortId, tunnel: Tunnel) {
        self.remove(id);
        if let Some(dev) = &tunnel.spec.dev {
            self.by_dev.entry(dev.clone()).or_default().insert(id);
        }
        self.all.insert(id, tunnel);
        self.dirty.insert(id);
    }

    fn remove(&mut self, id: PortId) -> Option<Tunnel> {
        let tunnel = self.all.remove(&id)?;
        self.dirty.remove(&id);
        if let Some((_, until)) = tunnel.learned {
            self.expiry.remove(&(until, id));
        }
        if let Some(dev) = &tunnel.spec.dev
            && let Some(ids) = self.by_dev.get_mut(dev)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_dev.remove(dev);
            }
        }
        Some(tunnel)
    }

    /// A port of this name came, changed or went.
    pub(super) fn device_changed(&mut self, name: &str) {
        if let Some(ids) = self.by_dev.get(name) {
            self.dirty.extend(ids);
        }
    }

    /// Fixes the MTU of a tunnel, if it is one.
    pub(super) fn set_mtu(&mut self, id: PortId, mtu: u32) {
        if let Some(t) = self.all.get_mut(&id) {
            t.spec.mtu = Some(mtu);
            self.dirty.insert(id);
        }
    }

    /// Remembers a path MTU for a while; a larger one than is known is not news.
    fn learn(&mut self, now: Instant, id: PortId, mtu: u32) {
        let Some(t) = self.all.get_mut(&id) else { return };
        if t.learned.is_some_and(|(known, _)| mtu > known) {
            return;
        }
        let until = now + PMTU_LIFETIME;
        if let Some((_, old)) = t.learned.replace((mtu, until)) {
            self.expiry.remove(&(old, id));
        }
        self.expiry.insert((until, id));
        self.dirty.insert(id);
    }

    /// Forgets path MTUs that are too old.
    fn forget(&mut self, now: Instant) {
        while let Some((until, id)) = self.expiry.first().copied().filter(|(until, _)| *until <= now) {
            self.expiry.remove(&(until, id));
            if let Some(t) = self.all.get_mut(&id) {
                t.learned = None;
            }
            self.dirty.insert(id);
        }
    }
}

/// A tunnel as shown.
#[derive(Clone, Debug)]
pub struct TunnelInfo {
    /// As configured.
    pub spec: TunnelSpec,
    /// Its port.
    pub id: PortId,
    /// Inner MTU in force, in bytes.
    pub mtu: u32,
    /// Outer path MTU learned from the network and its remaining lifetime.
    pub learned_mtu: Option<(u32, Duration)>,
    /// Whether a route carries it now.
    pub carried: bool,
}

/// Why a tunnel command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// About its port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Both ends must be of the family of the outer header.
    #[error("a {mode} tunnel needs IPv4 addresses at both ends, not {addr}", mode = "6in4")]
    Family {
        /// The one that does not fit.
        addr: IpAddr,
    },
    /// An end that can never be one.
    #[error("{0} cannot be an end of a tunnel")]
    Endpoint(IpAddr),
    /// Another tunnel has both ends alike: packets could not be told apart (RFC 4213 3.6).
    #[error("tunnel \"{0}\" has the same local and remote address already")]
    SameEnds(String),
    /// The MTU is out of range.
    #[error("tunnel MTU {0} is out of range: 1280 (RFC 8200 5) to 65515 bytes")]
    Mtu(u32),
    /// Neither a port nor a tunnel of that name, or it is the tunnel itself.
    #[error("Cannot find device \"{0}\"")]
    Device(String),
}

impl Router {
    /// Adds a tunnel and its addresses.
    pub fn add_tunnel(&mut self, now: Instant, spec: TunnelSpec, addrs: Vec<IpNet>) -> Result<PortId, TunnelError> {
        check_name(&spec.name)?;
        let key = self.check_tunnel(&spec, None)?;
        let table = TableId::MAIN;
        let mut addrs = addrs;
        // RFC 4213 3.7: the link-local address of a 6in4 interface carries the outer IPv4 address.
        if let (IpAddr::V4(v4), true) = (spec.local, !addrs.iter().any(is_link_local)) {
            let [a, b, c, d] = v4.octets();
            let ll = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            addrs.extend(IpNet::new(IpAddr::V6(ll), 64).ok());
        }
        let info = PortInfo {
            id: PortId::NONE,
            name: spec.name.clone(),
            ifindex: 0,
            kind: PortKind::Tunnel,
            medium: Medium::Ip,
            mac: None,
            mtu: spec.mtu.unwrap_or(IPV6_MIN_MTU),
            vlan: None,
            table,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs,
        };
        let id = self.add_port(now, info)?;
        self.decap.insert(key, id);
        self.tunnels.insert(id, Tunnel { spec, key, learned: None, facts: None, told_carried: false });
        self.refresh_tunnels(now);
        self.note_tunnel(now, id, Happened::Added);
        Ok(id)
    }

    /// Changes the parameters of a tunnel, its name and addresses aside.
    pub fn change_tunnel(&mut self, now: Instant, spec: TunnelSpec) -> Result<(), TunnelError> {
        let id = self.tunnel_by_name(&spec.name)?;
        let key = self.check_tunnel(&spec, Some(id))?;
        let Some(old) = self.tunnels.all.get(&id) else { return Err(TunnelError::Device(spec.name)) };
        self.decap.remove(&old.key);
        self.decap.insert(key, id);
        let told_carried = old.told_carried;
        self.tunnels.insert(id, Tunnel { spec, key, learned: None, facts: None, told_carried });
        self.changed = true;
        self.refresh_tunnels(now);
        self.note_tunnel(now, id, Happened::Changed);
        Ok(())
    }

    /// Removes a tunnel with its addresses and routes.
    pub fn del_tunnel(&mut self, now: Instant, name: &str, out: &mut Outbox) -> Result<(), TunnelError> {
        let id = self.tunnel_by_name(name)?;
        self.note_tunnel(now, id, Happened::Removed);
        if let Some(t) = self.tunnels.remove(id) {
            self.decap.remove(&t.key);
        }
        self.routing.remove_tunnel(id);
        self.remove_port(now, id, out)?;
        Ok(())
    }

    /// All tunnels, by index of their port.
    pub fn tunnels(&self, now: Instant) -> impl Iterator<Item = TunnelInfo> {
        self.tunnels.all.iter().map(move |(id, t)| self.tunnel_info(now, *id, t))
    }

    fn tunnel_info(&self, now: Instant, id: PortId, t: &Tunnel) -> TunnelInfo {
        TunnelInfo {
            spec: t.spec.clone(),
            id,
            mtu: self.ports.get(id).map_or(0, |p| p.mtu),
            learned_mtu: t.learned.map(|(mtu, until)| (mtu, until.saturating_since(now))),
            carried: self.routing.tunnel_carrier(id).is_some(),
        }
    }

    /// Writes a change of a tunnel down, if anybody follows.
    fn note_tunnel(&mut self, now: Instant, id: PortId, happened: Happened) {
        if self.journal.is_on()
            && let Some(t) = self.tunnels.all.get(&id)
        {
            let info = self.tunnel_info(now, id, t);
            self.journal.write((happened, Subject::Tunnel(Box::new(info))));
        }
    }

    fn tunnel_by_name(&self, name: &str) -> Result<PortId, TunnelError> {
        let id = self.port_names.get(name).filter(|id| self.tunnels.all.contains_key(id));
        id.copied().ok_or_else(|| TunnelError::Device(name.to_owned()))
    }

    fn check_tunnel(&self, spec: &TunnelSpec, own: Option<PortId>) -> Result<DecapKey, TunnelError> {
        let TunnelMode::SixInFour = spec.mode;
        for addr in [spec.local, spec.remote] {
            match addr {
                IpAddr::V6(_) => return Err(TunnelError::Family { addr }),
                IpAddr::V4(a) if a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.octets()[0] >= 240 => {
                    return Err(TunnelError::Endpoint(addr));
                }
                IpAddr::V4(_) => {}
            }
        }
        if spec.local == spec.remote {
            return Err(TunnelError::Endpoint(spec.remote));
        }
        if let Some(mtu) = spec.mtu
            && !(IPV6_MIN_MTU..=65_535 - OVERHEAD).contains(&mtu)
        {
            return Err(TunnelError::Mtu(mtu));
        }
        if let Some(dev) = &spec.dev
            && (*dev == spec.name || !self.port_names.contains_key(dev))
        {
            return Err(TunnelError::Device(dev.clone()));
        }
        let table = spec.underlay_table.unwrap_or_default();
        let key = DecapKey { proto: protocol::IPV6, table, local: spec.local, remote: spec.remote };
        match self.decap.get(&key) {
            Some(other) if Some(other) != own => {
                let name = self.ports.get(other).map_or_else(String::new, |p| p.name.clone());
                Err(TunnelError::SameEnds(name))
            }
            _ => Ok(key),
        }
    }

    /// Tells the data plane about each tunnel whose MTU or parameters have changed: because of a command, another
    /// underlay route, a link's MTU, an ICMP error, or because what was learned is too old. Looks only at those that such
    /// a change concerns.
    pub(super) fn refresh_tunnels(&mut self, now: Instant) {
        self.tunnels.forget(now);
        for _ in 0..MAX_STACK {
            // A tunnel's new MTU is news for those that it carries.
            self.tunnels.dirty.append(&mut self.routing.take_moved_tunnels());
            if self.tunnels.dirty.is_empty() {
                return;
            }
            for id in std::mem::take(&mut self.tunnels.dirty) {
                self.refresh_tunnel(now, id);
            }
        }
    }

    fn refresh_tunnel(&mut self, now: Instant, id: PortId) {
        let carrier = self.routing.tunnel_carrier(id);
        let path = carrier.and_then(|o| self.path_mtu(o, 0));
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let carried = std::mem::replace(&mut t.told_carried, carrier.is_some());
        let mut news = carried != carrier.is_some();
        let outer = path.unwrap_or(1500);
        let outer = t.learned.map_or(outer, |(learned, _)| learned.min(outer));
        // RFC 4213 3.2.2: below 1300 the outer packet may be fragmented, so that the tunnel still carries 1280.
        let fits = outer >= IPV6_MIN_MTU + OVERHEAD;
        let dynamic = outer.saturating_sub(OVERHEAD).max(IPV6_MIN_MTU);
        let mtu = match (t.spec.mtu, t.spec.nopmtudisc) {
            (Some(fixed), true) => fixed,
            (Some(fixed), false) => fixed.min(dynamic),
            // RFC 4213 3.2.1: a static tunnel MTU is 1280 unless configured.
            (None, true) => IPV6_MIN_MTU,
            (None, false) => dynamic,
        };
        let spec = &t.spec;
        let ttl = spec.ttl.unwrap_or(crate::forward::tunnel::DEFAULT_TTL);
        let facts = EncapFacts {
            mode: spec.mode,
            local: spec.local,
            remote: spec.remote,
            ttl: (!spec.ttl_inherit).then_some(ttl),
            tos: spec.tos,
            df: fits && !spec.nopmtudisc,
            mtu,
            table: spec.underlay_table.unwrap_or_default(),
            dev: spec.dev.as_ref().and_then(|d| self.port_names.get(d)).copied(),
        };
        if t.facts.as_ref() != Some(&facts) {
            news |= t.facts.is_some();
            t.facts = Some(facts.clone());
            self.routing.set_tunnel(id, facts);
        }
        if let Ok(mut info) = self.port(id)
            && info.mtu != mtu
        {
            info.mtu = mtu;
            self.put(info);
        }
        if news {
            self.note_tunnel(now, id, Happened::Changed);
        }
    }

    /// The MTU of what an object leads to, in bytes; the least of a group's members.
    fn path_mtu(&self, id: ObjectId, depth: u8) -> Option<u32> {
        if depth > MAX_STACK {
            return None;
        }
        match self.routing.object(id)? {
            Object::Forward(f) => Some(f.mtu),
            Object::Incomplete(i) => self.ports.get(i.port).map(|p| p.mtu),
            Object::Glean(g) => self.ports.get(g.port).map(|p| if g.mtu > 0 { g.mtu.min(p.mtu) } else { p.mtu }),
            Object::Encap(Encap { mtu, .. }) => Some(*mtu),
            Object::Group(g) => g.buckets.iter().filter_map(|b| self.path_mtu(*b, depth + 1)).min(),
            Object::Plugin(p) => self.path_mtu(p.next, depth + 1),
            Object::Sources(s) => self.path_mtu(s.otherwise, depth + 1),
            Object::Discard(_) | Object::Local | Object::Broadcast | Object::Table(_) => None,
        }
    }

    /// When the next learned path MTU is forgotten.
    pub(super) fn tunnel_deadline(&self) -> Option<Instant> {
        self.tunnels.expiry.first().map(|(until, _)| *until)
    }

    /// An ICMPv4 "fragmentation needed" came for us about an outer packet of a tunnel (RFC 4213 3.2.2, RFC 1191 4): its
    /// MTU is remembered; the next inner packet that is too long is refused with the right one. `quoted` is what the
    /// error quotes. Says whether it was about a tunnel.
    pub(super) fn learn_path_mtu(&mut self, now: Instant, table: TableId, quoted: &[u8], mtu: u16) -> bool {
        // As short as the header and eight bytes (RFC 792); its checksum and length may have been changed on the way.
        let Some(h) = quoted.get(..20) else { return false };
        if h[0] >> 4 != 4 || h[9] != protocol::IPV6 {
            return false;
        }
        let addr = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
        let key = DecapKey { proto: protocol::IPV6, table, local: addr(12), remote: addr(16) };
        let Some(id) = self.decap.get(&key).filter(|id| self.tunnels.all.contains_key(id)) else { return false };
        let sent = u32::from(u16::from_be_bytes([h[2], h[3]]));
        // RFC 1191 5: an old router says 0; take the next lower plateau.
        let mtu = if mtu == 0 { plateau_below(sent) } else { u32::from(mtu) };
        // RFC 1191 6.3 and common sense: never below what every path carries, never above what was sent.
        self.tunnels.learn(now, id, mtu.clamp(68, sent.max(68)));
        self.refresh_tunnels(now);
        true
    }

    /// The host's own stack, which carries the outer packets of some tunnels, knows that those to `remote` may have
    /// `mtu` bytes at most. Follow with [`Router::commit`].
    pub fn learn_host_path_mtu(&mut self, now: Instant, remote: IpAddr, mtu: u32) {
        let all = self.tunnels.all.iter().filter(|(_, t)| t.spec.remote == remote);
        for id in all.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tunnels.learn(now, id, mtu.max(68));
        }
        self.refresh_tunnels(now);
    }
}

fn is_link_local(net: &IpNet) -> bool {
    Family::of_net(net) == Family::Inet6 && matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local())
}

/// The plateau table of RFC 1191 7.1.
fn plateau_below(sent: u32) -> u32 {
    const PLATEAUS: [u32; 10] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];
    PLATEAUS.into_iter().find(|p| *p < sent).unwrap_or(68)
}
