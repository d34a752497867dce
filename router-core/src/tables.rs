//! A snapshot of everything that the data plane reads. The control thread makes it, workers borrow it per batch.
//!
//! A snapshot is cheap to make (structure is shared with the one before) and immutable, except that FIB entries inside
//! it are updated in place by atomic stores.

mod address_index;
mod adjacency_map;
mod chunked;
mod gate_table;
mod object_table;
mod routing_tables;

pub use adjacency_map::AdjacencyMap;
pub use gate_table::GateTable;
pub use object_table::ObjectTable;
pub use routing_tables::{FibSet, RoutingTables, ViewSet, domain_of};

use crate::addr::Family;
use crate::decap::DecapTable;
use crate::filter::{Guards, PortFlags};
use crate::object::ObjectId;
use crate::packet::Packet;
use crate::policy::{Decision, Key, Policy};
use crate::port::{PortId, PortInfo, TableId};
use crate::settings::Settings;
use address_index::AddressIndex;
use chunked::Chunked;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// See the module. Field by field, each cheap to clone.
#[derive(Clone)]
pub struct Tables {
    /// Grows by one with each published snapshot.
    pub version: u64,
    /// Ports and tunnels by index.
    pub ports: PortTable,
    /// Routes, objects, adjacencies.
    pub routing: RoutingTables,
    /// Tunnels by what their packets look like.
    pub decap: DecapTable,
    /// What is checked of packets out of each tunnel.
    pub gates: GateTable,
    /// Settings in force.
    pub settings: Arc<Settings>,
    /// Filters, source checks and limits of ports.
    pub guards: Arc<Guards>,
    /// Ports of a closed network in which IPv4-mapped addresses may be on the wire.
    pub mapped_ports: Arc<[PortId]>,
    /// Identifiers of the echo requests that the operator has the router send: replies to them are the control side's.
    pub pings: Arc<[u16]>,
    /// Rules that send packets to other tables than that of their port; None while there are none.
    pub policy: Option<Arc<Policy>>,
}

impl Tables {
    /// Whether a port belongs to a closed network ([`Settings::mapped_ports`]).
    #[inline]
    pub fn closed(&self, port: PortId) -> bool {
        self.mapped_ports.contains(&port)
    }

    /// The forwarding object for a destination in a table; [`ObjectId::NO_ROUTE`] when the table has no match or does
    /// not exist.
    #[inline]
    pub fn lookup(&self, table: TableId, dst: &IpAddr) -> ObjectId {
        self.routing.lookup(table, dst)
    }

    /// The forwarding object for a packet of a port in `table`, by the rules if there are any. `data` is from its IP header
    /// on, `port` where it came from ([`PortId::NONE`] for the router's own), `mark` its own mark.
    #[inline]
    pub fn route(&self, table: TableId, packet: &Packet, data: &[u8], port: PortId, mark: u32) -> Decision {
        let own = self.lookup(table, &packet.dst);
        match &self.policy {
            Some(policy) if policy.rules(packet.family) => {
                let key = Key::of(packet, data, port, table, policy.mark(mark, port));
                policy.decide(&self.routing, &key, own)
            }
            _ => Decision { object: own, rule: None, table: Some(table) },
        }
    }
}

/// Ports and tunnels by index. A copy is cheap, and so is a change.
#[derive(Clone, Default, Debug)]
pub struct PortTable {
    slots: Chunked<Slot>,
    /// What most packets out of a tunnel need of its slot, in a byte each: of a hundred thousand tunnels these stay in the
    /// second-level cache.
    briefs: Chunked<Brief>,
    addresses: AddressIndex,
    /// Own addresses that duplicate address detection has not confirmed yet. Empty, but for a second after a start.
    tentative: Option<Arc<[(PortId, IpAddr)]>>,
    /// Addresses that were given up because another station has them.
    given_up: Option<Arc<[IpAddr]>>,
}

/// What is checked of packets out of a tunnel, beside their peer and family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Nothing.
    #[default]
    Nothing,
    /// The source of the packet inside.
    Sources,
    /// How many come, last of all; sources, perhaps.
    Rate,
    /// More than that.
    More,
}

/// A port, and beside the reference what every packet asks for.
#[derive(Clone, Debug)]
struct Slot {
    info: Arc<PortInfo>,
    table: TableId,
    up: bool,
    checks: Checks,
    flags: PortFlags,
}

/// A port in short, as far as [`PortTable::plain_tunnel`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brief {
    /// Up, in table `main`, and of what comes out of it nothing is checked.
    Plain,
    /// The same, but its gate is asked.
    Sources,
    /// Its slot says more.
    Other,
}

const _: () = assert!(size_of::<Option<Brief>>() == 1);

impl Slot {
    /// See [`PortTable::plain_tunnel`].
    #[inline]
    fn plain(&self) -> Option<(TableId, bool)> {
        let plain = self.up && self.checks != Checks::More && !self.flags.has(PortFlags::JUDGE_IN);
        plain.then_some((self.table, self.checks != Checks::Nothing))
    }

    fn brief(&self) -> Brief {
        match self.plain() {
            Some((TableId::MAIN, false)) => Brief::Plain,
            Some((TableId::MAIN, true)) => Brief::Sources,
            _ => Brief::Other,
        }
    }
}

impl PortTable {
    /// Sets or clears a place, in both lists.
    fn put(&mut self, index: usize, slot: Option<Slot>) {
        let brief = slot.as_ref().map(Slot::brief);
        if self.briefs.get(index).copied() != brief {
            self.briefs.set(index, brief);
        }
        self.slots.set(index, slot);
    }

    /// The port with this index.
    #[inline]
    pub fn get(&self, id: PortId) -> Option<&Arc<PortInfo>> {
        self.slots.get(id.index()).map(|s| &s.info)
    }

    /// The table of a port that is up; None for any other.
    #[inline]
    pub fn table_if_up(&self, id: PortId) -> Option<TableId> {
        self.slots.get(id.index()).filter(|s| s.up).map(|s| s.table)
    }

    /// What a port's guard means to the fast path.
    #[inline]
    pub fn flags(&self, id: PortId) -> PortFlags {
        self.slots.get(id.index()).map_or(PortFlags::default(), |s| s.flags)
    }

    /// The same for a port that is up; None for any other.
    #[inline]
    pub fn flags_if_up(&self, id: PortId) -> Option<PortFlags> {
        self.slots.get(id.index()).filter(|s| s.up).map(|s| s.flags)
    }

    /// Sets those flags.
    pub(crate) fn set_flags(&mut self, id: PortId, flags: PortFlags) {
        if let Some(slot) = self.slots.get(id.index()).filter(|s| s.flags != flags).cloned() {
            self.put(id.index(), Some(Slot { flags, ..slot }));
        }
    }

    /// Above every index in use.
    pub fn places(&self) -> usize {
        self.slots.places()
    }

    /// The port with this name. Looks at all of them.
    pub fn by_name(&self, name: &str) -> Option<&Arc<PortInfo>> {
        self.iter().find(|p| p.name == name)
    }

    /// All ports, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PortInfo>> {
        self.slots.iter().map(|(_, s)| &s.info)
    }

    /// Sets a port, at `info.id`.
    pub fn set(&mut self, info: Arc<PortInfo>) {
        let checks = self.slots.get(info.id.index()).map(|s| s.checks).unwrap_or_default();
        let flags = self.flags(info.id);
        let (old, new) = (self.get(info.id).cloned(), Arc::clone(&info));
        self.put(info.id.index(), Some(Slot { table: info.table, up: info.up, checks, flags, info }));
        self.index(old, Some(new));
    }

    /// The index follows a change of a port that has been made.
    fn index(&mut self, old: Option<Arc<PortInfo>>, new: Option<Arc<PortInfo>>) {
        let PortTable { slots, addresses, .. } = self;
        addresses.change(old.as_deref(), new.as_deref(), || Box::new(slots.iter().map(|(_, s)| &s.info)));
    }

    /// False: no port has this address as one of its own. True: ask [`PortTable::owners`].
    #[inline]
    pub fn may_be_own(&self, addr: Ipv4Addr) -> bool {
        self.addresses.may_be_own(addr)
    }

    /// Ports that have this address as one of their own.
    #[inline]
    pub fn owners(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<PortInfo>> {
        self.addresses.owners(addr).filter_map(|id| self.get(id))
    }

    /// Whether it is the broadcast address of a link of some port.
    #[inline]
    pub fn is_broadcast(&self, addr: IpAddr) -> bool {
        self.addresses.is_broadcast(addr)
    }

    /// Whether it is the subnet-router anycast address of a link of some port (RFC 4291 2.6.1), link-local ones apart, and
    /// no port's own.
    #[inline]
    pub fn is_anycast(&self, addr: IpAddr) -> bool {
        self.addresses.is_anycast(addr)
    }

    /// The first port of a VRF with an address of this family that is not link-local; `domain` as [`domain_of`] has it.
    pub fn first_with(&self, domain: TableId, family: Family) -> Option<&Arc<PortInfo>> {
        self.addresses.first(domain, family).and_then(|id| self.get(id))
    }

    /// The table of a tunnel that is up, and whether its gate is to be asked about sources or rate. None: a packet out of
    /// it needs more checks than that, peer and family.
    #[inline]
    pub fn plain_tunnel(&self, id: PortId) -> Option<(TableId, bool)> {
        match self.briefs.get(id.index())? {
            Brief::Plain => Some((TableId::MAIN, false)),
            Brief::Sources => Some((TableId::MAIN, true)),
            Brief::Other => self.slots.get(id.index())?.plain(),
        }
    }

    /// Says what is to be checked of a tunnel's packets beside peer and family.
    pub fn set_checks(&mut self, id: PortId, checks: Checks) {
        if let Some(slot) = self.slots.get(id.index()).filter(|s| s.checks != checks).cloned() {
            self.put(id.index(), Some(Slot { checks, ..slot }));
        }
    }

    /// Takes a port out.
    pub fn clear(&mut self, id: PortId) {
        let old = self.get(id).cloned();
        self.put(id.index(), None);
        self.index(old, None);
    }

    /// A table with this port set (at `info.id`).
    pub fn with(&self, info: Arc<PortInfo>) -> PortTable {
        let mut table = self.clone();
        table.set(info);
        table
    }

    /// Whether any own address is tentative.
    #[inline]
    pub fn any_tentative(&self) -> bool {
        self.tentative.is_some()
    }

    /// Whether an own address is tentative on a port (RFC 4862 5.4).
    #[inline]
    pub fn is_tentative(&self, port: PortId, addr: &IpAddr) -> bool {
        self.tentative.as_deref().is_some_and(|list| list.contains(&(port, *addr)))
    }

    /// Whether an own address must not be used yet: every port that has it still asks who else does (RFC 4862 5.4).
    #[inline]
    pub fn is_unconfirmed(&self, addr: &IpAddr) -> bool {
        let Some(list) = self.tentative.as_deref() else { return false };
        list.iter().any(|(_, a)| a == addr) && !self.owners(*addr).any(|p| !self.is_tentative(p.id, addr))
    }

    /// Whether there are addresses from which nothing may be sent.
    #[inline]
    pub fn any_barred(&self) -> bool {
        self.tentative.is_some() || self.given_up.is_some()
    }

    /// Whether nothing may be sent from an address: it is not confirmed yet, or another station has it (RFC 4862 5.4, 5.4.5;
    /// RFC 5227 2.1.1). Addresses that are nobody's here are not barred: the host's own stack may have them.
    #[inline]
    pub fn is_barred(&self, addr: &IpAddr) -> bool {
        self.is_unconfirmed(addr)
            || self.given_up.as_deref().is_some_and(|l| l.contains(addr) && self.owners(*addr).next().is_none())
    }

    /// Says which own addresses were given up. True when that is news.
    pub fn set_given_up(&mut self, list: Vec<IpAddr>) -> bool {
        if self.given_up.as_deref().unwrap_or_default() == list {
            return false;
        }
        self.given_up = (!list.is_empty()).then(|| list.into());
        true
    }

    /// Says which own addresses are tentative. True when that is news.
    pub fn set_tentative(&mut self, list: Vec<(PortId, IpAddr)>) -> bool {
        if self.tentative.as_deref().unwrap_or_default() == list {
            return false;
        }
        self.tentative = (!list.is_empty()).then(|| list.into());
        true
    }

    /// Every table that some port looks packets up in, without duplicates.
    pub fn tables(&self) -> Vec<TableId> {
        let mut v: Vec<_> = self.iter().map(|p| p.table).collect();
        v.sort_unstable();
        v.dedup();
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Medium, PortCaps, PortKind};

    fn tunnel(table: TableId, up: bool) -> Arc<PortInfo> {
        Arc::new(PortInfo {
            id: PortId(70),
            name: "t".into(),
            ifindex: 0,
            kind: PortKind::Memory,
            medium: Medium::Ip,
            mac: None,
            mtu: 1480,
            vlan: None,
            table,
            up,
            admin_up: up,
            caps: PortCaps::default(),
            addrs: Vec::new(),
        })
    }

    /// In whatever order its table, state, checks and flags are set.
    #[test]
    fn what_is_said_of_a_tunnel_in_short_follows_it() {
        let judged = PortFlags::JUDGE_IN;
        let mut ports = PortTable::default();
        assert_eq!(ports.plain_tunnel(PortId(70)), None);
        for table in [TableId::MAIN, TableId(7)] {
            for up in [true, false] {
                for checks in [Checks::Nothing, Checks::Sources, Checks::Rate, Checks::More] {
                    for flags in [PortFlags::default(), judged, PortFlags::CLAMP] {
                        let old = ports.clone();
                        let said = old.plain_tunnel(PortId(70));
                        ports.set(tunnel(table, up));
                        ports.set_checks(PortId(70), checks);
                        ports.set_flags(PortId(70), flags);
                        let plain = up && checks != Checks::More && flags != judged;
                        let want = plain.then_some((table, checks != Checks::Nothing));
                        assert_eq!(ports.plain_tunnel(PortId(70)), want, "{table:?} {up} {checks:?} {flags:?}");
                        assert_eq!(old.plain_tunnel(PortId(70)), said);
                    }
                }
            }
        }
        ports.set(tunnel(TableId::MAIN, true));
        ports.clear(PortId(70));
        assert_eq!((ports.plain_tunnel(PortId(70)), ports.plain_tunnel(PortId(71))), (None, None));
    }
}
