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
