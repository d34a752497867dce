//! The router's own addresses, the broadcast addresses of its links and the anycast addresses of its subnets, by address: what a
//! packet asks for must not cost a look at every port.
//!
//! A hash table in a persistent vector: a copy is cheap, and a change copies one small list.

use super::chunked::Chunked;
use super::domain_of;
use crate::addr::Family;
use crate::port::{PortId, PortInfo, TableId, subnet_router_anycast};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Lists, as a power of two.
const LOG2: u32 = 14;

/// What an address is to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    /// The broadcast address of its link.
    Broadcast,
    /// That of all routers of its subnet (RFC 4291 2.6.1).
    Anycast,
}

type Key = (IpAddr, Kind);

#[derive(Clone, Debug)]
struct Entry {
    addr: IpAddr,
    kind: Kind,
    ports: Ports,
}

/// Ports with the same address. All tunnels with one local end have one link-local address (RFC 4213 3.7).
#[derive(Clone, Debug)]
enum Ports {
    One(PortId),
    /// Several, by index, and how many.
    Many(Chunked<()>, usize),
}

impl Ports {
    fn add(&mut self, port: PortId) {
        if let Ports::One(first) = *self {
            if first == port {
                return;
            }
            let mut set = Chunked::default();
            set.set(first.index(), Some(()));
            *self = Ports::Many(set, 1);
        }
        if let Ports::Many(set, n) = self
            && set.get(port.index()).is_none()
        {
            set.set(port.index(), Some(()));
            *n += 1;
        }
    }

    /// True when none is left.
    fn remove(&mut self, port: PortId) -> bool {
        match self {
            Ports::One(only) => *only == port,
            Ports::Many(set, n) => {
                if set.get(port.index()).is_some() {
                    set.set(port.index(), None);
                    *n -= 1;
                }
                *n == 0
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = PortId> + '_ {
        let (one, many) = match self {
            Ports::One(port) => (Some(*port), None),
            Ports::Many(set, _) => (None, Some(set.iter().map(|(i, ())| PortId(i as u32)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct AddressIndex {
    lists: Chunked<Arc<[Entry]>>,
    /// The first port with an address that means something beyond its link, by VRF and family.
    first: Arc<BTreeMap<(TableId, Family), PortId>>,
    /// A bit for each IPv4 address that is a port's own, or was; several have the same.
    own4: [u64; 8],
}

/// Word and bit of [`AddressIndex::own4`].
#[inline(always)]
fn bit_of(addr: Ipv4Addr) -> (usize, u64) {
    let hash = addr.to_bits().wrapping_mul(0x9e37_79b9) >> 23;
    (hash as usize >> 6 & 7, 1 << (hash & 63))
}

fn list_of(addr: &IpAddr) -> usize {
    let bits = match addr {
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ (a.to_bits() as u64).rotate_left(32),
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - LOG2)) as usize
}

fn keys(info: &PortInfo) -> impl Iterator<Item = Key> + '_ {
    let of_all = |n: &IpNet| match n {
        IpNet::V4(_) if n.prefix_len() < 31 => Some((n.broadcast(), Kind::Broadcast)),
        IpNet::V6(n) => {
            subnet_router_anycast(n).filter(|a| !a.is_unicast_link_local()).map(|a| (IpAddr::V6(a), Kind::Anycast))
        }
        IpNet::V4(_) => None,
    };
    info.addrs.iter().flat_map(move |n| [Some((n.addr(), Kind::Own)), of_all(n)]).flatten()
}

impl AddressIndex {
    /// A port has other facts now; `all` are those of all ports, with this one as it is to be.
    pub(super) fn change<'p>(
        &mut self,
        old: Option<&PortInfo>,
        new: Option<&PortInfo>,
        all: impl Fn() -> Box<dyn Iterator<Item = &'p Arc<PortInfo>> + 'p>,
    ) {
        if let (Some(old), Some(new)) = (old, new)
            && (&old.addrs, old.table) == (&new.addrs, new.table)
        {
            return;
        }
        for (port, key) in old.into_iter().flat_map(|p| keys(p).map(|k| (p.id, k))) {
            let mut list = self.list(&key.0).to_vec();
            list.retain_mut(|e| (e.addr, e.kind) != key || !e.ports.remove(port));
            self.lists.set(list_of(&key.0), (!list.is_empty()).then(|| list.into()));
        }
        for (port, key) in new.into_iter().flat_map(|p| keys(p).map(|k| (p.id, k))) {
            if let (IpAddr::V4(addr), Kind::Own) = key {
                let (word, bit) = bit_of(addr);
                self.own4[word] |= bit;
            }
            let mut list = self.list(&key.0).to_vec();
            match list.iter_mut().find(|e| (e.addr, e.kind) == key) {
                Some(there) => there.ports.add(port),
                None => list.push(Entry { addr: key.0, kind: key.1, ports: Ports::One(port) }),
            }
            self.lists.set(list_of(&key.0), Some(list.into()));
        }
        for family in [Family::Inet, Family::Inet6] {
            let key = |p: &PortInfo| (domain_of(p.table), family);
            let has = |p: &PortInfo| p.global_addr(family).is_some();
            if let Some(old) = old.filter(|o| self.first.get(&key(o)) == Some(&o.id)) {
                // Seldom: the next one has to be looked for.
                let key = key(old);
                let next = all().find(|p| (domain_of(p.table), family) == key && has(p)).map(|p| p.id);
                self.set_first(key, next);
            }
            if let Some(new) = new.filter(|n| has(n))
                && self.first.get(&key(new)).is_none_or(|f| *f > new.id)
            {
                self.set_first(key(new), Some(new.id));
            }
        }
    }

    fn set_first(&mut self, key: (TableId, Family), port: Option<PortId>) {
        let first = Arc::make_mut(&mut self.first);
        match port {
            Some(p) => _ = first.insert(key, p),
            None => _ = first.remove(&key),
        }
    }

    fn list(&self, addr: &IpAddr) -> &[Entry] {
        self.lists.get(list_of(addr)).map_or(&[], |l| l)
    }

    /// False: no port has this address as one of its own. True: [`AddressIndex::owners`] knows. For packets that pass.
    #[inline(always)]
    pub(super) fn may_be_own(&self, addr: Ipv4Addr) -> bool {
        let (word, bit) = bit_of(addr);
        self.own4[word] & bit != 0
    }

    /// Ports that have this address as one of their own.
    pub(super) fn owners(&self, addr: IpAddr) -> impl Iterator<Item = PortId> + '_ {
        self.list(&addr).iter().filter(move |e| e.addr == addr && e.kind == Kind::Own).flat_map(|e| e.ports.iter())
    }

    /// Whether it is the broadcast address of some link.
    pub(super) fn is_broadcast(&self, addr: IpAddr) -> bool {
        self.list(&addr).iter().any(|e| e.addr == addr && e.kind == Kind::Broadcast)
    }

    /// Whether it is the subnet-router anycast address of some link, and nothing more. Link-local ones are not here: they
    /// mean something on one port only.
    pub(super) fn is_anycast(&self, addr: IpAddr) -> bool {
        let list = || self.list(&addr).iter().filter(|e| e.addr == addr);
        list().any(|e| e.kind == Kind::Anycast) && !list().any(|e| e.kind == Kind::Own)
    }

    /// See [`AddressIndex::first`].
    pub(super) fn first(&self, domain: TableId, family: Family) -> Option<PortId> {
        self.first.get(&(domain, family)).copied()
    }
}

#[cfg(test)]
mod tests {
    use crate::addr::Family;
    use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
    use crate::tables::{PortTable, domain_of};
    use proptest::prelude::*;
    use std::net::IpAddr;
    use std::sync::Arc;

    fn port(id: u32, table: u32, addrs: &[String]) -> Arc<PortInfo> {
        Arc::new(PortInfo {
            id: PortId(id),
            name: format!("p{id}"),
            ifindex: id + 1,
            kind: PortKind::Memory,
            medium: Medium::Ip,
            mac: None,
            mtu: 1500,
            vlan: None,
            table: TableId(table),
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
        })
    }

    /// What the index says must be what a look at all ports says.
    fn check(t: &PortTable, addr: IpAddr) {
        let mut owners: Vec<PortId> = t.owners(addr).map(|p| p.id).collect();
        assert!(owners.is_empty() || !matches!(addr, IpAddr::V4(a) if !t.may_be_own(a)), "{addr}");
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners, t.iter().filter(|p| p.owns(&addr)).map(|p| p.id).collect::<Vec<_>>(), "{addr}");
        let broadcast = |n: &ipnet::IpNet| n.prefix_len() < 31 && addr.is_ipv4() && n.broadcast() == addr;
        assert_eq!(t.is_broadcast(addr), t.iter().any(|p| p.addrs.iter().any(broadcast)), "{addr}");
        let far = !matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local());
        let anycast = far && owners.is_empty() && t.iter().any(|p| p.is_anycast(&addr));
        assert_eq!(t.is_anycast(addr), anycast, "{addr}");
    }

    fn check_first(t: &PortTable, table: u32) {
        for family in [Family::Inet, Family::Inet6] {
            let domain = domain_of(TableId(table));
            let scan = t.iter().find(|p| domain_of(p.table) == domain && p.global_addr(family).is_some());
            assert_eq!(t.first_with(domain, family).map(|p| p.id), scan.map(|p| p.id), "{family} in {table}");
        }
    }

    /// Lists stay short with a thousand ports and their addresses of both families.
    #[test]
    fn a_thousand_ports() {
        let mut t = PortTable::default();
        for i in 0..1000u32 {
            let (a, b) = (i / 250, i % 250);
            t.set(port(
                i,
                0,
                &[format!("10.{a}.{b}.1/24"), format!("2001:db8:{a}:{b}::1/64"), format!("fe80::{i:x}/64")],
            ));
        }
        let longest = t.addresses.lists.iter().map(|(_, l)| l.len()).max().unwrap();
        assert!(longest <= 8, "{longest} in one list");
        for i in (0..1000u32).step_by(37) {
            let (a, b) = (i / 250, i % 250);
            for addr in
                [format!("10.{a}.{b}.1"), format!("10.{a}.{b}.255"), format!("10.{a}.{b}.7"), format!("fe80::{i:x}")]
            {
                check(&t, addr.parse().unwrap());
            }
        }
        check_first(&t, 0);
    }

    /// One address on all ports, as tunnels have it, costs no more with each.
    #[test]
    fn a_shared_address() {
        let mut t = PortTable::default();
        let shared = ["fe80::c633:6407/64".to_owned()];
        (0..500).for_each(|i| t.set(port(i, 0, &shared)));
        (0..500).step_by(3).for_each(|i| t.clear(PortId(i)));
        check(&t, "fe80::c633:6407".parse().unwrap());
        let longest = t.addresses.lists.iter().map(|(_, l)| l.len()).max();
        assert_eq!(longest, Some(1));
        (0..500).for_each(|i| t.clear(PortId(i)));
        check(&t, "fe80::c633:6407".parse().unwrap());
        assert_eq!(t.addresses.lists.iter().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn is_what_a_look_at_all_ports_says(
            ops in prop::collection::vec((0u32..8, 0u32..3, prop::option::of(prop::collection::vec(0u8..12, 0..4))), 1..30),
        ) {
            let addr = |n: u8| match n {
                0..=3 => format!("10.0.{n}.1/24"),
                4 => "10.0.0.2/24".to_owned(),
                5 => "10.0.0.255/32".to_owned(),
                6 => "169.254.0.1/16".to_owned(),
                7..=9 => format!("2001:db8::{n}/64"),
                10 => "fe80::1/64".to_owned(),
                _ => "192.0.2.1/31".to_owned(),
            };
            let mut t = PortTable::default();
            for (id, table, addrs) in ops {
                let before = t.clone();
                match addrs {
                    Some(list) => t.set(port(id, table, &list.into_iter().map(addr).collect::<Vec<_>>())),
                    None => t.clear(PortId(id)),
                }
                for t in [&before, &t] {
                    for n in 0..12 {
                        let net: ipnet::IpNet = addr(n).parse().unwrap();
                        check(t, net.addr());
                        check(t, net.broadcast());
                        check(t, net.network());
                    }
                    (0..3).for_each(|table| check_first(t, table));
                }
            }
        }
    }
}
