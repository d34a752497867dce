//! The router's own addresses, and the broadcast addresses of its links, by address: what a packet asks for must not cost a
//! look at every port.
//!
//! A hash table in a persistent vector: a copy is cheap, and a change copies one small list.

use super::chunked::Chunked;
use super::domain_of;
use crate::addr::Family;
use crate::port::{PortId, PortInfo, TableId};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Lists, as a power of two.
const LOG2: u32 = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    addr: IpAddr,
    port: PortId,
    /// The broadcast address of a link of this port, not one of its own.
    broadcast: bool,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct AddressIndex {
    lists: Chunked<Arc<[Entry]>>,
    /// The first port with an address that means something beyond its link, by VRF and family.
    first: Arc<BTreeMap<(TableId, Family), PortId>>,
}

fn list_of(addr: &IpAddr) -> usize {
    let bits = match addr {
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ (a.to_bits() as u64).rotate_left(32),
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - LOG2)) as usize
}

fn entries(info: &PortInfo) -> impl Iterator<Item = Entry> + '_ {
    let port = info.id;
    info.addrs
        .iter()
        .flat_map(move |n| {
            let own = Entry { addr: n.addr(), port, broadcast: false };
            let link = matches!(n, IpNet::V4(_)) && n.prefix_len() < 31;
            [Some(own), link.then(|| Entry { addr: n.broadcast(), broadcast: true, ..own })]
        })
        .flatten()
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
        for e in old.into_iter().flat_map(entries) {
            let mut list = self.list(&e.addr).to_vec();
            if let Some(at) = list.iter().position(|x| *x == e) {
                list.remove(at);
            }
            self.lists.set(list_of(&e.addr), (!list.is_empty()).then(|| list.into()));
        }
        for e in new.into_iter().flat_map(entries) {
            let list = self.list(&e.addr).iter().copied().chain([e]).collect();
            self.lists.set(list_of(&e.addr), Some(list));
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

    /// Ports that have this address as one of their own.
    pub(super) fn owners(&self, addr: IpAddr) -> impl Iterator<Item = PortId> + '_ {
        self.list(&addr).iter().filter(move |e| e.addr == addr && !e.broadcast).map(|e| e.port)
    }

    /// Whether it is the broadcast address of some link.
    pub(super) fn is_broadcast(&self, addr: IpAddr) -> bool {
        self.list(&addr).iter().any(|e| e.addr == addr && e.broadcast)
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
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners, t.iter().filter(|p| p.owns(&addr)).map(|p| p.id).collect::<Vec<_>>(), "{addr}");
        let broadcast = |n: &ipnet::IpNet| n.prefix_len() < 31 && addr.is_ipv4() && n.broadcast() == addr;
        assert_eq!(t.is_broadcast(addr), t.iter().any(|p| p.addrs.iter().any(broadcast)), "{addr}");
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
                    }
                    (0..3).for_each(|table| check_first(t, table));
                }
            }
        }
    }
}
