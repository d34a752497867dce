//! The flow hash that picks a member of a group: equal for all packets of one flow, so that a flow keeps its member.
//!
//! It covers both addresses, the protocol, the ports where every packet of the flow has them, and the IPv6 flow label
//! (RFC 6438). For a fragmented datagram the ports are left out of all its fragments only, which is what RFC 2992 and
//! Linux do too. For a tunnel packet the inner addresses count as well.

use crate::addr::Family;
use crate::headers::protocol;
use crate::packet::{Fragment, Packet};
use std::net::IpAddr;

/// Hashes the flow of a packet. `seed` differs between routers, so that chains of routers do not all choose alike.
#[inline]
pub fn hash(p: &Packet, data: &[u8], seed: u64) -> u32 {
    let mut h = mix_addrs(seed, p);
    h = mix(h, u64::from(p.proto) << 32 | u64::from(p.flow));
    if p.fragment == Fragment::None {
        let t = p.transport(data);
        match p.proto {
            protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP => {
                if let Some(ports) = t.get(..4) {
                    h = mix(h, u64::from(u32::from_be_bytes([ports[0], ports[1], ports[2], ports[3]])));
                }
            }
            protocol::IPV4 | protocol::IPV6 => {
                let family = if p.proto == protocol::IPV4 { Family::Inet } else { Family::Inet6 };
                if let Ok(inner) = Packet::parse(family, t) {
                    h = mix_addrs(h, &inner);
                }
            }
            _ => {}
        }
    }
    (h ^ (h >> 32)) as u32
}

#[inline]
fn mix_addrs(h: u64, p: &Packet) -> u64 {
    match (p.src, p.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => mix(h, u64::from(s.to_bits()) << 32 | u64::from(d.to_bits())),
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let (s, d) = (s.to_bits(), d.to_bits());
            mix(mix(mix(mix(h, s as u64), (s >> 64) as u64), d as u64), (d >> 64) as u64)
        }
        _ => h,
    }
}

/// One round of folded multiplication.
#[inline]
fn mix(h: u64, v: u64) -> u64 {
    let m = u128::from(h ^ v ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (m >> 64) as u64 ^ m as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(src_port: u16, dst: u8) -> Vec<u8> {
        let mut v = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        v.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, dst]);
        v.extend(src_port.to_be_bytes());
        v.extend([0, 53, 0, 8, 0, 0]);
        v
    }

    #[test]
    fn same_flow_same_hash_and_members_share_evenly() {
        let mut buckets = [0u32; 8];
        for port in 0..8000 {
            let v = udp(port, 1);
            let p = Packet::parse(Family::Inet6, &v).unwrap();
            let mut late = p;
            late.ttl = 3;
            assert_eq!(hash(&p, &v, 7), hash(&late, &v, 7));
            buckets[hash(&p, &v, 7) as usize % 8] += 1;
        }
        assert!(buckets.iter().all(|n| (850..1150).contains(n)), "{buckets:?}");
    }
}
