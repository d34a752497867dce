//! Destination patterns and packets.

use crate::table::{Random, Table};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A random host inside a prefix.
pub fn host_in(net: &IpNet, r: &mut Random) -> IpAddr {
    match net {
        IpNet::V4(n) => {
            let host = if n.prefix_len() == 32 { 0 } else { r.next_u64() as u32 & (u32::MAX >> n.prefix_len()) };
            IpAddr::V4(Ipv4Addr::from_bits(n.network().to_bits() | host))
        }
        IpNet::V6(n) => {
            let random = u128::from(r.next_u64()) << 64 | u128::from(r.next_u64());
            let host = if n.prefix_len() == 128 { 0 } else { random & (u128::MAX >> n.prefix_len()) };
            IpAddr::V6(Ipv6Addr::from_bits(n.network().to_bits() | host))
        }
    }
}

/// "Per route": a random route, then a random host in it.
pub fn per_route(table: &Table, n: usize, seed: u64) -> Vec<IpAddr> {
    let mut r = Random(seed | 1);
    (0..n)
        .map(|_| {
            let i = r.below(table.len());
            host_in(&table[i].0, &mut r)
        })
        .collect()
}

/// "Uniform": addresses uniformly over the space that the table covers.
pub fn uniform(table: &Table, n: usize, seed: u64) -> Vec<IpAddr> {
    // Only prefixes that no other one contains, each with the end of its share of the space (in units of a /64).
    let mut outer: Vec<(IpNet, u64)> = Vec::new();
    let mut sorted: Vec<IpNet> = table.iter().map(|(net, _)| *net).collect();
    sorted.sort_unstable();
    let mut end = 0;
    for net in sorted {
        if outer.last().is_none_or(|(o, _)| !o.contains(&net)) {
            let bits = if net.addr().is_ipv4() { 32 } else { 64 };
            end += 1u64 << bits.max(net.prefix_len()).saturating_sub(net.prefix_len());
            outer.push((net, end));
        }
    }
    let mut r = Random(seed | 1);
    (0..n)
        .map(|_| {
            let x = ((u128::from(r.next_u64()) * u128::from(end)) >> 64) as u64;
            let i = outer.partition_point(|(_, end)| *end <= x);
            host_in(&outer[i].0, &mut r)
        })
        .collect()
}

/// "Zipf": ranks by inversion of the harmonic sum, exponent 1, over `n` destinations of "per route".
pub fn zipf(table: &Table, n: usize, seed: u64) -> Vec<IpAddr> {
    let all = per_route(table, n, seed);
    let mut r = Random(11);
    let total = (n as f64).ln();
    (0..n)
        .map(|_| {
            let u = (r.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            all[((u * total).exp() as usize).min(n) - 1]
        })
        .collect()
}

/// "Misses": addresses that no route of the table covers. Only for tables that leave much space free.
pub fn misses(n: usize, seed: u64, family6: bool, covered: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut r = Random(seed | 1);
    let any = |r: &mut Random| match family6 {
        false => IpAddr::V4(Ipv4Addr::from_bits(r.next_u64() as u32)),
        true => {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(r.next_u64() >> 3 | 1 << 61) << 64 | u128::from(r.next_u64())))
        }
    };
    std::iter::repeat_with(|| any(&mut r)).filter(|a| !covered(*a)).take(n).collect()
}

/// A UDP packet of 64 bytes on Ethernet (50 bytes of IPv4, or the 48 that IPv6 needs), from a fixed source.
pub fn udp(dst: IpAddr, src_mac: [u8; 6], dst_mac: [u8; 6]) -> Vec<u8> {
    let mut v = [dst_mac, src_mac].concat();
    match dst {
        IpAddr::V4(d) => {
            v.extend([8, 0]);
            let at = v.len();
            v.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2]);
            v.extend(d.octets());
            let sum = router_core::checksum::checksum(&v[at..]);
            v[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
            v.extend([0x30, 0x39, 0, 9, 0, 26, 0, 0]);
            v.resize(60, 0);
        }
        IpAddr::V6(d) => {
            v.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            v.extend("2001:db8::2".parse::<Ipv6Addr>().map(|a| a.octets()).unwrap_or_default());
            v.extend(d.octets());
            v.extend([0x30, 0x39, 0, 9, 0, 8, 0, 0]);
        }
    }
    v
}
