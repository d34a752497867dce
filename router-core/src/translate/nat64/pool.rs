//! IPv4 transport addresses that a NAT64 hands out: addresses with a range of ports each.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Ports unless said otherwise: all but the well-known ones.
const DEFAULT_PORTS: (u16, u16) = (1024, 65_535);
/// Random picks before the next free port is taken.
const PICKS: usize = 8;

/// Addresses with ports, written `192.0.2.1`, `192.0.2.0/28` or `192.0.2.1-192.0.2.9`, and behind it, if not all ports
/// from 1024, `ports 20000-29999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
    ports: (u16, u16),
}

/// Why a text is no pool range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a range of addresses; write \"192.0.2.1\", \"192.0.2.0/28\" or \"192.0.2.1-192.0.2.9 ports 20000-29999\""
)]
pub struct PoolError(String);

impl PoolRange {
    /// Addresses from `first` to `last` with ports from `ports.0` to `ports.1`, both inclusive. None when either is the
    /// wrong way round or ports hold 0.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr, ports: (u16, u16)) -> Option<Self> {
        (first <= last && ports.0 <= ports.1 && ports.0 > 0).then_some(PoolRange { first, last, ports })
    }

    /// Number of addresses.
    pub fn addresses(&self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }

    /// The addresses.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits)
    }

    /// Whether an address is one of them.
    #[inline]
    pub fn contains(&self, a: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&a)
    }
}

impl fmt::Display for PoolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        if self.ports != DEFAULT_PORTS {
            write!(f, " ports {}-{}", self.ports.0, self.ports.1)?;
        }
        Ok(())
    }
}

impl FromStr for PoolRange {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let parse = || {
            let (addrs, ports) = match text.split_once("ports") {
                Some((a, p)) => {
                    let (from, to) = p.split_once('-').unwrap_or((p, p));
                    (a, (from.trim().parse().ok()?, to.trim().parse().ok()?))
                }
                None => (text, DEFAULT_PORTS),
            };
            let addrs = addrs.trim();
            let (first, last) = if let Some((a, b)) = addrs.split_once('-') {
                (a.trim().parse().ok()?, b.trim().parse().ok()?)
            } else if addrs.contains('/') {
                let net: Ipv4Net = addrs.parse().ok().filter(|n: &Ipv4Net| n.addr() == n.network())?;
                (net.network(), net.broadcast())
            } else {
                let a = addrs.parse().ok()?;
                (a, a)
            };
            PoolRange::new(first, last, ports)
        };
        parse().ok_or_else(|| PoolError(text.to_owned()))
    }
}

impl TryFrom<String> for PoolRange {
    type Error = PoolError;

    fn try_from(text: String) -> Result<Self, PoolError> {
        text.parse()
    }
}

impl From<PoolRange> for String {
    fn from(r: PoolRange) -> String {
        r.to_string()
    }
}

/// Ports in use, a bit each.
type Bits = Box<[u64; 1024]>;

/// One address.
#[derive(Debug)]
struct Address {
    addr: Ipv4Addr,
    ports: (u16, u16),
    /// Of TCP, UDP and ICMP, made when first needed.
    used: [Option<Bits>; 3],
    count: [u32; 3],
}

/// The addresses of a NAT64 with what is in use of them.
#[derive(Debug)]
pub(super) struct Pool {
    addresses: Vec<Address>,
    random: u64,
}

/// Place of a protocol among the three.
fn column(proto: u8) -> usize {
    match proto {
        6 => 0,
        17 => 1,
        _ => 2,
    }
}

impl Pool {
    pub fn new(ranges: &[PoolRange], seed: u64) -> Self {
        let address = |(addr, ports)| Address { addr, ports, used: [None, None, None], count: [0; 3] };
        let all = ranges.iter().flat_map(|r| r.iter().map(|a| (a, r.ports)));
        Pool { addresses: all.map(address).collect(), random: seed | 1 }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): what follows is not told by the ports already seen without the seed.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The index of an address for a host that has none yet.
    pub fn choose(&mut self) -> usize {
        self.random() as usize % self.addresses.len().max(1)
    }

    /// Takes a free port at the address of this index, or where it has none left at another one. A well-known port gets a
    /// well-known one where the range has them (RFC 6146 3.5.1.1). The index, address and port.
    pub fn take(&mut self, at: usize, proto: u8, port: u16) -> Option<(usize, Ipv4Addr, u16)> {
        let n = self.addresses.len();
        (0..n).map(|i| (at + i) % n).find_map(|i| {
            let start = self.random();
            let a = self.addresses.get_mut(i)?;
            let (low, high) = a.ports;
            let well_known = port < 1024 && low < 1024 && proto != 1;
            let range = match well_known {
                true => (low, high.min(1023)),
                false => (low.max(if proto == 1 { 1 } else { 1024.min(high) }), high),
            };
            let port = a.free(range, proto, start).or_else(|| a.free((low, high), proto, start))?;
            a.set(proto, port, true);
            Some((i, a.addr, port))
        })
    }

    /// Gives a port back.
    pub fn give(&mut self, addr: Ipv4Addr, proto: u8, port: u16) {
        if let Some(a) = self.addresses.iter_mut().find(|a| a.addr == addr) {
            a.set(proto, port, false);
        }
    }

    /// Ports in use of TCP, UDP and ICMP.
    pub fn in_use(&self) -> [u32; 3] {
        self.addresses.iter().fold([0; 3], |t, a| [t[0] + a.count[0], t[1] + a.count[1], t[2] + a.count[2]])
    }
}

impl Address {
    fn free(&self, (low, high): (u16, u16), proto: u8, start: u64) -> Option<u16> {
        let size = u64::from(high.checked_sub(low)?) + 1;
        let Some(bits) = &self.used[column(proto)] else { return Some(low + (start % size) as u16) };
        let is_free = |p: u16| bits[usize::from(p) / 64] >> (p % 64) & 1 == 0;
        let mut random = start;
        for _ in 0..PICKS {
            let port = low + (random % size) as u16;
            if is_free(port) {
                return Some(port);
            }
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f).rotate_left(29);
        }
        let begin = start % size;
        (0..size).map(|i| low + ((begin + i) % size) as u16).find(|p| is_free(*p))
    }

    fn set(&mut self, proto: u8, port: u16, used: bool) {
        let c = column(proto);
        let bits = self.used[c].get_or_insert_with(|| Box::new([0; 1024]));
        let (word, bit) = (usize::from(port) / 64, 1u64 << (port % 64));
        let was = bits[word] & bit != 0;
        match used {
            true => bits[word] |= bit,
            false => bits[word] &= !bit,
        }
        self.count[c] = (self.count[c] + u32::from(used && !was)).saturating_sub(u32::from(!used && was));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn texts() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.0/30", "192.0.2.0-192.0.2.3"),
            ("192.0.2.1 - 192.0.2.9 ports 20000-29999", "192.0.2.1-192.0.2.9 ports 20000-29999"),
            ("192.0.2.1 ports 7", "192.0.2.1 ports 7-7"),
        ] {
            assert_eq!(text.parse::<PoolRange>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<PoolRange>().unwrap().to_string(), shown);
        }
        for bad in
            ["", "192.0.2.1/24", "192.0.2.9-192.0.2.1", "192.0.2.1 ports 0-9", "192.0.2.1 ports 9-7", "2001:db8::1"]
        {
            assert!(bad.parse::<PoolRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_port_once_and_again_after_it_came_back() {
        let mut pool = Pool::new(&["192.0.2.1-192.0.2.2 ports 5000-5099".parse().unwrap()], 7);
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let (_, addr, port) = pool.take(0, 17, 4000).unwrap();
            assert!((5000..5100).contains(&port) && seen.insert((addr, port)));
        }
        assert_eq!(pool.take(0, 17, 4000), None);
        assert!(pool.take(0, 6, 4000).is_some(), "each protocol has its own");
        assert_eq!(pool.in_use(), [1, 200, 0]);
        pool.give("192.0.2.2".parse().unwrap(), 17, 5042);
        assert_eq!(pool.take(0, 17, 4000).map(|t| (t.1.to_string(), t.2)), Some(("192.0.2.2".into(), 5042)));
    }

    #[test]
    fn seeds_and_ranges_decide() {
        let ports = |seed| {
            let mut pool = Pool::new(&["192.0.2.1 ports 1-65535".parse().unwrap()], seed);
            (0..20).map(|i| pool.take(0, 6, 30_000 + i).unwrap().2).collect::<Vec<_>>()
        };
        assert_eq!(ports(1), ports(1));
        assert_ne!(ports(1), ports(2));
        assert!(ports(3).iter().all(|p| *p >= 1024), "RFC 6146 3.5.1.1");
        let mut pool = Pool::new(&["192.0.2.1 ports 1-65535".parse().unwrap()], 9);
        assert!((0..100).all(|_| pool.take(0, 6, 80).unwrap().2 < 1024));
    }
}
