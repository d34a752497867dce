//! Which tunnel an encapsulated packet belongs to: constant time, whatever the number of tunnels.
//!
//! Packets are told apart by mode, table and both outer addresses. All tunnels of one mode and table are one [`Peers`],
//! which a worker finds once per batch; within it a lookup by the outer addresses is one multiplication and, as a rule,
//! one cache line. Copying the table is one reference count and a change copies a small part, however many tunnels
//! there are.
//!
//! Tunnels in UDP are told apart by their ports, too: a NAT gives all that are behind it one address.

mod keyed;
mod map;

use crate::headers::protocol;
use crate::port::{PortId, TableId};
use keyed::Keyed;
use map::Map;
use std::net::IpAddr;
use std::sync::Arc;

/// What a tunnel packet is recognised by. Only the configured peer's packets match (RFC 4213 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecapKey {
    /// Outer protocol that names the mode: 41 for 6in4 (whose tunnels also hear protocol 4).
    pub proto: u8,
    /// Table of the port through which outer packets come.
    pub table: TableId,
    /// Outer destination: our end.
    pub local: IpAddr,
    /// Outer source: the peer.
    pub remote: IpAddr,
    /// UDP only; zeros for all others.
    pub ports: UdpPorts,
}

/// The ports of a tunnel's datagrams as they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpPorts {
    /// The peer's, from which they come; 0: any.
    pub remote: u16,
    /// Ours.
    pub local: u16,
}

/// The tunnels of a router by what their packets look like. Cheap to clone, also to change.
#[derive(Clone, Debug)]
pub struct DecapTable {
    /// Sorted by table and mode.
    parts: Arc<[((TableId, u8), Peers)]>,
    /// GRE tunnels with a key.
    keyed: Keyed,
    /// Those in UDP.
    udp: Map<[u128; 3]>,
    seed: u64,
}

impl Default for DecapTable {
    /// An empty table with a fixed seed, for tests.
    fn default() -> Self {
        DecapTable::new(0)
    }
}

impl DecapTable {
    /// An empty table. Outer addresses come from outside: `seed` should differ from run to run.
    pub fn new(seed: u64) -> Self {
        DecapTable { parts: Arc::default(), keyed: Keyed::new(seed), udp: Map::new(seed), seed }
    }

    /// The tunnels of one mode whose outer packets come through ports of one table.
    #[inline]
    pub fn peers(&self, proto: u8, table: TableId) -> Option<&Peers> {
        self.place(proto, table).ok().and_then(|i| self.parts.get(i)).map(|(_, p)| p)
    }

    /// The tunnel whose peer sent this. Not for UDP.
    #[inline]
    pub fn find(&self, proto: u8, table: TableId, local: IpAddr, remote: IpAddr) -> Option<PortId> {
        self.peers(proto, table)?.find(local, remote)
    }

    /// The GRE tunnel with this key whose peer sent this.
    #[inline]
    pub fn find_keyed(&self, table: TableId, local: IpAddr, remote: IpAddr, key: u32) -> Option<PortId> {
        self.keyed.find(table, local, remote, key)
    }

    /// Sets the GRE tunnel that has this key between these ends, or removes it with [`PortId::NONE`].
    pub fn set_keyed(&mut self, ends: &DecapKey, key: u32, tunnel: PortId) {
        self.keyed.set(ends.table, ends.local, ends.remote, key, tunnel);
    }

    /// The tunnel whose peer sent this datagram: first the one that is agreed to come from this very port.
    pub fn find_udp(&self, table: TableId, local: IpAddr, remote: IpAddr, ports: UdpPorts) -> Option<PortId> {
        let get =
            |remote_port| self.udp.get(&udp_word(table, local, remote, UdpPorts { remote: remote_port, ..ports })?);
        if self.udp.len() == 0 { None } else { get(ports.remote).or_else(|| get(0)) }
    }

    /// Whether any tunnel is in UDP.
    pub fn has_udp(&self) -> bool {
        self.udp.len() > 0
    }

    /// The tunnel with exactly this key.
    pub fn get(&self, key: &DecapKey) -> Option<PortId> {
        if key.proto == protocol::UDP {
            return self.udp.get(&key.udp_word()?);
        }
        self.find(key.proto, key.table, key.local, key.remote)
    }

    /// Adds or moves a tunnel.
    pub fn insert(&mut self, key: DecapKey, tunnel: PortId) {
        if key.proto == protocol::UDP {
            return key.udp_word().into_iter().for_each(|word| self.udp.set(word, tunnel));
        }
        let place = self.place(key.proto, key.table).unwrap_or_else(|i| {
            let mut parts = self.parts.to_vec();
            parts.insert(i, ((key.table, key.proto), Peers::new(self.seed)));
            self.parts = parts.into();
            i
        });
        if let Some((_, peers)) = Arc::make_mut(&mut self.parts).get_mut(place) {
            peers.set(key.local, key.remote, tunnel);
        }
    }

    /// Removes a tunnel.
    pub fn remove(&mut self, key: &DecapKey) {
        if key.proto == protocol::UDP {
            return key.udp_word().into_iter().for_each(|word| self.udp.set(word, PortId::NONE));
        }
        let Ok(place) = self.place(key.proto, key.table) else { return };
        let Some((_, peers)) = Arc::make_mut(&mut self.parts).get_mut(place) else { return };
        peers.set(key.local, key.remote, PortId::NONE);
        if peers.is_empty() {
            let mut parts = self.parts.to_vec();
            parts.remove(place);
            self.parts = parts.into();
        }
    }

    /// Number of tunnels.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(_, p)| p.len()).sum::<usize>() + self.udp.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, proto: u8, table: TableId) -> Result<usize, usize> {
        self.parts.binary_search_by_key(&(table, proto), |(k, _)| *k)
    }
}

impl DecapKey {
    fn udp_word(&self) -> Option<[u128; 3]> {
        udp_word(self.table, self.local, self.remote, self.ports)
    }
}

/// None for addresses of two families, which no packet has.
fn udp_word(table: TableId, local: IpAddr, remote: IpAddr, ports: UdpPorts) -> Option<[u128; 3]> {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    };
    let ports = u128::from(ports.remote) << 16 | u128::from(ports.local);
    (local.is_ipv4() == remote.is_ipv4()).then(|| [bits(local), bits(remote), u128::from(table.0) << 32 | ports])
}

/// The tunnels of one mode and table by their outer addresses.
#[derive(Clone, Debug)]
pub struct Peers {
    v4: Map<u64>,
    v6: Map<[u128; 2]>,
}

impl Peers {
    fn new(seed: u64) -> Self {
        Peers { v4: Map::new(seed), v6: Map::new(seed) }
    }

    /// The tunnel between these outer addresses.
    #[inline]
    pub fn find(&self, local: IpAddr, remote: IpAddr) -> Option<PortId> {
        match (local, remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => self.find_v4(ends(r.to_bits(), l.to_bits())),
            (IpAddr::V6(l), IpAddr::V6(r)) => self.v6.get(&[l.to_bits(), r.to_bits()]),
            _ => None,
        }
    }

    /// The tunnel between these outer IPv4 addresses: the source in the upper half, the destination in the lower, as
    /// they stand in the header.
    #[inline]
    pub fn find_v4(&self, ends: u64) -> Option<PortId> {
        self.v4.get(&ends)
    }

    /// Reads something of where such a search begins: of all packets of a batch first, so that all of it comes from memory at
    /// once. What is read does not matter.
    #[inline(always)]
    pub fn touch_v4(&self, ends: u64) -> u32 {
        self.v4.touch(&ends)
    }

    /// Sets a tunnel, or removes it with [`PortId::NONE`].
    fn set(&mut self, local: IpAddr, remote: IpAddr, tunnel: PortId) {
        match (local, remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => self.v4.set(ends(r.to_bits(), l.to_bits()), tunnel),
            (IpAddr::V6(l), IpAddr::V6(r)) => self.v6.set([l.to_bits(), r.to_bits()], tunnel),
            // No packet has two families of addresses.
            _ => {}
        }
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn ends(src: u32, dst: u32) -> u64 {
    u64::from(src) << 32 | u64::from(dst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_tables_and_families_are_apart() {
        let key = |proto, table, local: &str, remote: &str| DecapKey {
            proto,
            table: TableId(table),
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            ports: UdpPorts::default(),
        };
        let keys = [
            key(41, 254, "192.0.2.1", "198.51.100.9"),
            key(41, 254, "198.51.100.9", "192.0.2.1"),
            key(47, 254, "192.0.2.1", "198.51.100.9"),
            key(41, 100, "192.0.2.1", "198.51.100.9"),
            key(41, 254, "2001:db8::1", "2001:db8::2"),
            key(41, 254, "2001:db8::2", "2001:db8::1"),
        ];
        let mut t = DecapTable::new(7);
        for (i, k) in keys.iter().enumerate() {
            assert_eq!(t.get(k), None);
            t.insert(*k, PortId(i as _));
        }
        assert_eq!(t.len(), keys.len());
        for (i, k) in keys.iter().enumerate() {
            assert_eq!(t.get(k), Some(PortId(i as _)));
        }
        let old = t.clone();
        t.insert(keys[0], PortId(9));
        keys[1..].iter().for_each(|k| t.remove(k));
        t.remove(&keys[1]);
        assert_eq!((t.len(), t.get(&keys[0]), t.get(&keys[3])), (1, Some(PortId(9)), None));
        assert_eq!((old.len(), old.get(&keys[0]), old.get(&keys[3])), (6, Some(PortId(0)), Some(PortId(3))));
        t.remove(&keys[0]);
        assert!(t.is_empty() && t.peers(41, TableId::MAIN).is_none());
        let mixed = key(41, 254, "192.0.2.1", "2001:db8::1");
        t.insert(mixed, PortId(1));
        assert_eq!(t.get(&mixed), None);
    }

    /// Two peers behind one NAT, one that comes from anywhere, and another port of ours.
    #[test]
    fn datagrams_are_told_apart_by_their_ports() {
        let (local, nat) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 9]));
        let key = |remote, own, table| DecapKey {
            proto: protocol::UDP,
            table: TableId(table),
            local,
            remote: nat,
            ports: UdpPorts { remote, local: own },
        };
        let find = |t: &DecapTable, remote, own| t.find_udp(TableId::MAIN, local, nat, UdpPorts { remote, local: own });
        let mut t = DecapTable::new(3);
        for (i, k) in
            [key(40_001, 3653, 254), key(40_002, 3653, 254), key(0, 3653, 254), key(0, 6080, 254)].iter().enumerate()
        {
            assert_eq!(t.get(k), None);
            t.insert(*k, PortId(i as u32));
        }
        t.insert(key(40_003, 3653, 7), PortId(9));
        assert_eq!(t.len(), 5);
        for (remote, own, want) in [
            (40_001, 3653, Some(0)),
            (40_002, 3653, Some(1)),
            (40_003, 3653, Some(2)),
            (40_001, 6080, Some(3)),
            (40_001, 6081, None),
        ] {
            assert_eq!(find(&t, remote, own), want.map(PortId), "{remote} to {own}");
        }
        assert_eq!(t.find(protocol::UDP, TableId::MAIN, local, nat), None);
        t.remove(&key(0, 3653, 254));
        assert_eq!((find(&t, 40_003, 3653), find(&t, 40_002, 3653)), (None, Some(PortId(1))));
        let other = IpAddr::from([198, 51, 100, 10]);
        assert_eq!(t.find_udp(TableId::MAIN, local, other, UdpPorts { remote: 40_001, local: 3653 }), None);
    }
}
