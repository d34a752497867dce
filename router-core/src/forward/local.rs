//! Packets to the router itself: what becomes of each kind. Echo requests are answered, traceroute's probes are told
//! that nobody listens, connections are reset, tunnel packets are unwrapped.

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{be16, ipv4, protocol};
use crate::icmp::TTL;
use crate::packet::{Fragment, Packet};
use std::net::IpAddr;

/// What to do with a packet for the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// An echo request (RFC 1122 3.2.2.6, RFC 4443 4.2): turn it around.
    Echo,
    /// A packet in a packet, or GRE: find the tunnel.
    Tunnel,
    /// A TCP segment to a port where nobody listens: reset (RFC 9293 3.10.7.1).
    TcpReset,
    /// Neighbour discovery that came to a unicast address: control thread.
    Ndp,
    /// A fragment: control thread.
    Reassemble,
    /// An ICMP error about a packet of ours, perhaps of a tunnel: control thread.
    IcmpError,
    /// Wanted by nobody here.
    Drop(DropReason),
}

/// ICMPv6 neighbour discovery types: router solicitation to redirect (RFC 4861 4).
pub fn is_ndp(icmp_type: u8) -> bool {
    (133..=137).contains(&icmp_type)
}

/// Whether an ICMPv6 type to a group of the link is for the control thread: neighbour discovery, and queries for multicast
/// listeners (RFC 3810 5.1).
pub fn is_link_message(icmp_type: u8) -> bool {
    is_ndp(icmp_type) || icmp_type == crate::neighbor::mld::QUERY
}

/// Sorts a packet whose destination is one of the router's unicast addresses.
pub fn classify(p: &Packet, data: &[u8]) -> Local {
    if p.fragment != Fragment::None {
        return Local::Reassemble;
    }
    let t = p.transport(data);
    let kind = t.first().copied();
    match (p.family, p.proto) {
        (Family::Inet, protocol::ICMP) => match kind {
            Some(8) => Local::Echo,
            Some(3 | 4 | 11 | 12) => Local::IcmpError,
            _ => Local::Drop(DropReason::IcmpConsumed),
        },
        (Family::Inet6, protocol::ICMPV6) => match kind {
            Some(128) => Local::Echo,
            Some(1..=4) => Local::IcmpError,
            Some(k) if is_ndp(k) => Local::Ndp,
            _ => Local::Drop(DropReason::IcmpConsumed),
        },
        (_, protocol::IPV6 | protocol::IPV4 | protocol::GRE) => Local::Tunnel,
        (_, protocol::TCP) => Local::TcpReset,
        _ => Local::Drop(DropReason::NoLocalService),
    }
}

/// Writes the reset that answers TCP segment `p` into `out` (RFC 9293 3.10.7.1). False when the segment is itself a
/// reset, cut short, or its checksum wrong; `trusted` skips the checksum (not yet computed by a local sender).
pub fn tcp_reset(p: &Packet, data: &[u8], trusted: bool, out: &mut Frame) -> bool {
    let t = p.transport(data);
    if t.len() < 20 {
        return false;
    }
    let flags = t[13];
    if flags & 0x04 != 0 || (!trusted && !checksum_ok(p, data)) {
        return false;
    }
    let seq = u32::from_be_bytes([t[4], t[5], t[6], t[7]]);
    let header = usize::from(t[12] >> 4) * 4;
    let payload = t.len().saturating_sub(header) as u32;
    let (rst_seq, rst_ack, rst_flags) = if flags & 0x10 != 0 {
        (u32::from_be_bytes([t[8], t[9], t[10], t[11]]), 0, 0x04)
    } else {
        let syn_fin = u32::from(flags & 0x02 != 0) + u32::from(flags & 0x01 != 0);
        (0, seq.wrapping_add(payload).wrapping_add(syn_fin), 0x14)
    };
    let mut tcp = [0u8; 20];
    tcp[..2].copy_from_slice(&t[2..4]);
    tcp[2..4].copy_from_slice(&t[..2]);
    tcp[4..8].copy_from_slice(&rst_seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&rst_ack.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = rst_flags;
    let Some(pseudo) = checksum::pseudo(p.dst, p.src, protocol::TCP, 20) else { return false };
    let sum = pseudo.bytes(&tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    match (p.dst, p.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = [0u8; 40];
            ipv4::Header { tos: 0, total_len: 40, ident: 0, df: true, ttl: TTL, proto: protocol::TCP, src, dst }
                .write(&mut ip);
            ip[20..].copy_from_slice(&tcp);
            out.set_data(&ip)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut ip = [0u8; 60];
            ip[0] = 0x60;
            ip[5] = 20;
            ip[6] = protocol::TCP;
            ip[7] = TTL;
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
            ip[40..].copy_from_slice(&tcp);
            out.set_data(&ip)
        }
        _ => false,
    }
}

/// Checks the transport checksum, and the length of UDP, of a packet to the router, so that nobody is answered by mistake. UDP over IPv4 may have
/// none (RFC 768).
pub fn checksum_ok(p: &Packet, data: &[u8]) -> bool {
    let mut t = p.transport(data);
    if p.proto == protocol::UDP {
        // RFC 768: it has a length of its own, which the packet must hold. What lies behind it is not part of it.
        match t.get(4..6).and_then(|len| t.get(..usize::from(be16(len, 0)))) {
            Some(datagram) if datagram.len() >= 8 => t = datagram,
            _ => return false,
        }
    }
    match (p.family, p.proto) {
        (Family::Inet, protocol::ICMP) => checksum::verify(t),
        (Family::Inet, protocol::UDP) if be16(t, 6) == 0 => true,
        // In IPv4, number 58 is nobody's.
        (Family::Inet6, protocol::ICMPV6) | (_, protocol::UDP | protocol::TCP) => {
            checksum::pseudo(p.src, p.dst, p.proto, t.len() as u32).is_some_and(|sum| checksum::verify_with(sum, t))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Vec<u8> {
        let mut v = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        v.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend([0x30, 0x39, 0, 22, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let p = Packet::parse(Family::Inet6, &v).unwrap();
        let t = p.transport(&v);
        let sum = checksum::pseudo(p.src, p.dst, 6, 20).unwrap().bytes(t).finish();
        v[56..58].copy_from_slice(&sum.to_be_bytes());
        v
    }

    /// Nothing is known of what ICMPv6's number means in IPv4: protocol unreachable, not a wrong checksum.
    #[test]
    fn icmpv6_in_ipv4_is_an_unknown_protocol() {
        let mut v = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 58, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
        v.extend([0x30, 0x39, 0x8d, 0x9a, 0, 8, 0x60, 0xd3]);
        checksum::fill_ipv4_header(&mut v);
        let p = Packet::parse(Family::Inet, &v).unwrap();
        assert!(checksum_ok(&p, &v));
        assert!(matches!(classify(&p, &v), Local::Drop(DropReason::NoLocalService)));
    }

    /// Proves rfc1122-4.1.3.4-length.
    #[test]
    fn udp_lengths() {
        // length field, bytes that are there, checksum sent, whether it may be answered
        for (len, there, sum, want) in [
            (8, 8, 0, true),
            (12, 12, 0, true),
            (12, 20, 0, true),
            (12, 11, 0, false),
            (7, 12, 0, false),
            (0, 12, 0, false),
            (8, 7, 0, false),
            (12, 20, 1, true),
            (12, 20, 2, false),
        ] {
            let mut v = vec![0x45, 0, 0, 20 + there, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
            v.extend([0x30, 0x39, 0x82, 0x9a, 0, len, 0, 0]);
            v.resize(20 + usize::from(there), 7);
            let (src, dst) = ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
            if sum > 0 {
                let pseudo = checksum::pseudo(src, dst, 17, u32::from(len)).unwrap();
                let right = pseudo.bytes(&v[20..20 + usize::from(len)]).finish();
                v[26..28].copy_from_slice(&(right + sum - 1).to_be_bytes());
            }
            checksum::fill_ipv4_header(&mut v);
            let p = Packet::parse(Family::Inet, &v).unwrap();
            assert_eq!(checksum_ok(&p, &v), want, "{len} {there} {sum}");
        }
    }

    #[test]
    fn rfc9293_3_10_7_1_reset_of_a_syn() {
        let v = syn();
        let p = Packet::parse(Family::Inet6, &v).unwrap();
        assert_eq!(classify(&p, &v), Local::TcpReset);
        let mut out = Frame::with_capacity(100);
        assert!(tcp_reset(&p, &v, false, &mut out));
        let r = Packet::parse(Family::Inet6, out.data()).unwrap();
        assert_eq!((r.src, r.dst), (p.dst, p.src));
        assert!(checksum_ok(&r, out.data()));
        let t = r.transport(out.data());
        assert_eq!(t[..4], [0, 22, 0x30, 0x39]);
        assert_eq!((be16(t, 10), t[13]), (8, 0x14), "acknowledges sequence 7 plus the SYN");
        assert!(!tcp_reset(&r, out.data(), false, &mut Frame::with_capacity(100)), "a reset is never answered");
        let mut bad = v.clone();
        bad[56] ^= 1;
        assert!(!tcp_reset(&p, &bad, false, &mut out));
    }
}
