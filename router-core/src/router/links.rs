//! Ports and their addresses: adding, removing, up and down.

use crate::addr::Family;
use crate::journal::{Happened, Subject};
use crate::port::{MAX_QUEUES, Medium, PortId, PortInfo, PortKind};
use crate::router::Router;
use crate::time::Instant;
use crate::worker::Outbox;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest port name in bytes, as Linux's IFNAMSIZ less the final zero.
pub const MAX_NAME: usize = 15;

/// Ports and tunnels at most: what a worker's lists by index can sensibly hold.
const MAX_PORTS: u32 = 1 << 20;

/// Tunnels take indexes below this, then those that no port with queues can have.
const TUNNELS_BELOW: u32 = MAX_QUEUES - 1024;

/// Why a port or address command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The name is taken.
    #[error("a port named \"{0}\" exists already")]
    Exists(String),
    /// No such port.
    #[error("Cannot find device \"{0}\"")]
    Unknown(String),
    /// Not usable as a name.
    #[error("\"{0}\" is not a port name: 1 to {MAX_NAME} bytes, no blanks, no slash, not . or ..")]
    Name(String),
    /// Too many ports.
    #[error("the limit of ports and tunnels is reached")]
    Full,
    /// The MTU is out of range.
    #[error("MTU {mtu} is out of range: {min} to 65535 bytes{}", if *.min > 68 { " (IPv6 needs 1280, RFC 8200 5)" } else { "" })]
    Mtu {
        /// As asked for.
        mtu: u32,
        /// Least possible.
        min: u32,
    },
    /// The address is there already.
    #[error("{0} is already an address of this port")]
    AddressExists(IpNet),
    /// The address is not there.
    #[error("{0} is not an address of this port")]
    NoAddress(IpNet),
    /// Can never be the address of an interface.
    #[error("{0} cannot be the address of a port: it is {1}")]
    NotAssignable(IpNet, &'static str),
}

impl Router {
    /// Adds a port; `id` and `ifindex` of `info` are chosen here. An Ethernet port without a link-local IPv6 address gets
    /// the one made from its MAC (RFC 4291 2.5.6), because neighbour discovery needs one.
    pub fn add_port(&mut self, _now: Instant, mut info: PortInfo) -> Result<PortId, PortError> {
        check_name(&info.name)?;
        if self.port_names.contains_key(&info.name) {
            return Err(PortError::Exists(info.name));
        }
        let id = self.free_index(info.kind == PortKind::Tunnel).ok_or(PortError::Full)?;
        for a in &info.addrs {
            check_assignable(a)?;
        }
        let needs_link_local = info.medium == Medium::Ethernet && info.mtu >= 1280 && info.link_local().is_none();
        if let (true, Some(mac)) = (needs_link_local, info.mac) {
            info.addrs.extend(IpNet::new(IpAddr::V6(mac.link_local()), 64).ok());
        }
        check_mtu(info.mtu, &info.addrs)?;
        if !self.free_ports.remove(&id) {
            self.next_port.0 += 1;
        }
        self.port_names.insert(info.name.clone(), id);
        info.id = id;
        info.ifindex = self.next_ifindex;
        self.next_ifindex += 1;
        self.put(info);
        Ok(id)
    }

    /// The lowest index that is free. Tunnels, which may be many and have no queues, leave some of those of ports with queues
    /// to others.
    fn free_index(&mut self, tunnel: bool) -> Option<PortId> {
        if !tunnel {
            let id = self.free_ports.first().copied().unwrap_or(self.next_port);
            return (id.0 < MAX_QUEUES).then_some(id);
        }
        let next = self.next_port.0;
        if (TUNNELS_BELOW..MAX_QUEUES).contains(&next) {
            self.free_ports.extend((next..MAX_QUEUES).map(PortId));
            self.next_port = PortId(MAX_QUEUES);
        }
        let mut free =
            self.free_ports.range(..PortId(TUNNELS_BELOW)).chain(self.free_ports.range(PortId(MAX_QUEUES)..));
        let id = free.next().copied().unwrap_or(self.next_port);
        (id.0 < MAX_PORTS).then_some(id)
    }

    /// Removes a port with its routes and neighbours. Frames that waited for its neighbours are dropped.
    pub fn remove_port(&mut self, now: Instant, id: PortId, out: &mut Outbox) -> Result<(), PortError> {
        let Some(info) = self.ports.get(id).cloned() else {
            return Err(PortError::Unknown(format!("#{}", id.0)));
        };
        let ethernet = info.medium == Medium::Ethernet;
        self.flush_neighbors(now, id, true, out);
        self.routing.remove_port(id);
        self.note_addresses(Some(&info), None);
        self.ports.clear(id);
        self.port_names.remove(&info.name);
        self.free_ports.insert(id);
        self.tunnels.device_changed(&info.name);
        self.journal.write((Happened::Removed, Subject::Port(info)));
        self.no_carrier.remove(&id);
        self.duplicates.remove(&id);
        self.changed = true;
        self.own_stale |= ethernet;
        Ok(())
    }

    /// Sets a port's administrative state, its carrier, or both.
    pub fn set_link(
        &mut self,
        now: Instant,
        id: PortId,
        admin_up: Option<bool>,
        carrier: Option<bool>,
        out: &mut Outbox,
    ) -> Result<(), PortError> {
        let mut info = self.port(id)?;
        match carrier {
            Some(true) => self.no_carrier.remove(&id),
            Some(false) => self.no_carrier.insert(id),
            None => false,
        };
        info.admin_up = admin_up.unwrap_or(info.admin_up);
        let was_up = info.up;
        info.up = info.admin_up && !self.no_carrier.contains(&id);
        if was_up && !info.up {
            self.flush_neighbors(now, id, false, out);
            self.own.forget(id);
            self.listener.forget(id);
        }
        if !was_up && info.up {
            info.addrs.extend(self.duplicates.remove(&id).unwrap_or_default());
        }
        self.put(info);
        Ok(())
    }

    /// Whether the device behind a port has carrier.
    pub fn carrier(&self, id: PortId) -> bool {
        !self.no_carrier.contains(&id)
    }

    /// Sets a port's MTU in bytes.
    pub fn set_mtu(&mut self, id: PortId, mtu: u32) -> Result<(), PortError> {
        let mut info = self.port(id)?;
        check_mtu(mtu, &info.addrs)?;
        info.mtu = mtu;
        self.tunnels.set_mtu(id, mtu);
        self.put(info);
        Ok(())
    }

    /// Adds an address, with its link's prefix length, to a port.
    pub fn add_addr(&mut self, id: PortId, addr: IpNet) -> Result<(), PortError> {
        check_assignable(&addr)?;
        let mut info = self.port(id)?;
        if info.owns(&addr.addr()) {
            return Err(PortError::AddressExists(addr));
        }
        info.addrs.push(addr);
        check_mtu(info.mtu, &info.addrs)?;
        // One that was somebody else's is tried again.
        self.forget_duplicate(id, addr);
        self.put(info);
        Ok(())
    }

    /// Removes an address from a port.
    pub fn del_addr(&mut self, id: PortId, addr: IpNet) -> Result<(), PortError> {
        let mut info = self.port(id)?;
        let before = info.addrs.len();
        info.addrs.retain(|a| *a != addr);
        if info.addrs.len() == before {
            // One that was found to be somebody else's is configured still.
            return if self.forget_duplicate(id, addr) { Ok(()) } else { Err(PortError::NoAddress(addr)) };
        }
        self.put(info);
        Ok(())
    }

    /// A copy of a port's facts, to change.
    pub(super) fn port(&self, id: PortId) -> Result<PortInfo, PortError> {
        self.ports.get(id).map(|p| PortInfo::clone(p)).ok_or_else(|| PortError::Unknown(format!("#{}", id.0)))
    }

    /// Puts new or changed facts into force.
    pub(super) fn put(&mut self, info: PortInfo) {
        let info = Arc::new(info);
        self.note_port(&info);
        self.tunnels.device_changed(&info.name);
        self.ports.set(Arc::clone(&info));
        // Nobody else has neighbours that could have the same address, or that are told of routers.
        self.own_stale |= info.medium == Medium::Ethernet;
        self.routing.set_port(info);
        self.changed = true;
    }
}

impl Router {
    /// Writes down what is new about a port, if anybody follows.
    fn note_port(&mut self, info: &Arc<PortInfo>) {
        if !self.journal.is_on() {
            return;
        }
        let old = self.ports.get(info.id).map(Arc::clone);
        let without_addrs = |p: &PortInfo| PortInfo { addrs: Vec::new(), ..p.clone() };
        match &old {
            None => self.journal.write((Happened::Added, Subject::Port(Arc::clone(info)))),
            Some(o) if without_addrs(o) != without_addrs(info) => {
                self.journal.write((Happened::Changed, Subject::Port(Arc::clone(info))));
            }
            Some(_) => {}
        }
        self.note_addresses(old.as_ref(), Some(info));
    }

    fn note_addresses(&mut self, old: Option<&Arc<PortInfo>>, new: Option<&Arc<PortInfo>>) {
        let has = |p: Option<&Arc<PortInfo>>, a: &IpNet| p.is_some_and(|p| p.addrs.contains(a));
        let each = |of: Option<&Arc<PortInfo>>, other: Option<&Arc<PortInfo>>, happened| {
            let addrs = of.map(|p| p.addrs.clone()).unwrap_or_default();
            let only = addrs.into_iter().filter(|a| !has(other, a));
            let change = |a| of.map(|p| (happened, Subject::Address(Arc::clone(p), a)));
            only.filter_map(change).collect::<Vec<_>>()
        };
        let changes = [each(old, new, Happened::Removed), each(new, old, Happened::Added)].concat();
        changes.into_iter().for_each(|c| self.journal.write(c));
    }
}

/// Checks a port's name by Linux's rules, so that every tool can show it.
pub(super) fn check_name(name: &str) -> Result<(), PortError> {
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if good { Ok(()) } else { Err(PortError::Name(name.to_owned())) }
}

fn check_mtu(mtu: u32, addrs: &[IpNet]) -> Result<(), PortError> {
    let v6 = addrs.iter().any(|a| Family::of_net(a) == Family::Inet6);
    // RFC 791 3.2: every IPv4 link carries 68 bytes; RFC 8200 5: every IPv6 link 1280.
    let min = if v6 { 1280 } else { 68 };
    if (min..=65_536).contains(&mtu) { Ok(()) } else { Err(PortError::Mtu { mtu, min }) }
}

fn check_assignable(addr: &IpNet) -> Result<(), PortError> {
    let why = match addr.addr() {
        IpAddr::V4(a) if a.is_unspecified() => "unspecified",
        IpAddr::V4(a) if a.is_multicast() => "multicast",
        IpAddr::V4(a) if a.is_broadcast() || a.octets()[0] >= 240 => "reserved",
        IpAddr::V6(a) if a.is_unspecified() => "unspecified",
        IpAddr::V6(a) if a.is_multicast() => "multicast",
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => "IPv4-mapped, which is only a notation",
        _ => return Ok(()),
    };
    Err(PortError::NotAssignable(*addr, why))
}
