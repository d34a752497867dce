//! Packets of simulated hosts: built and read byte by byte, on purpose without the product's own code.

use router_core::addr::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The plain, slow Internet checksum.
pub fn sum16(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame around an IP packet or ARP body; the type follows the body.
pub fn ethernet(dst: MacAddr, src: MacAddr, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&dst.0[..], &src.0, &kind, packet].concat()
}

/// An ARP packet in its frame.
pub fn arp(op: u8, dst: MacAddr, mac: MacAddr, sender: Ipv4Addr, target_mac: MacAddr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, op];
    [&dst.0[..], &mac.0, &[8, 6], &head, &mac.0, &sender.octets(), &target_mac.0, &target.octets()].concat()
}

/// What an ARP body says.
pub struct Arp {
    /// 1 request, 2 reply.
    pub op: u8,
    /// Sender's link-layer address.
    pub sender_mac: MacAddr,
    /// Sender's address.
    pub sender: Ipv4Addr,
    /// Address asked for.
    pub target: Ipv4Addr,
}

/// Reads an ARP body.
pub fn read_arp(b: &[u8]) -> Option<Arp> {
    let b: &[u8; 28] = b.get(..28)?.try_into().ok()?;
    Some(Arp {
        op: b[7],
        sender_mac: MacAddr([b[8], b[9], b[10], b[11], b[12], b[13]]),
        sender: Ipv4Addr::new(b[14], b[15], b[16], b[17]),
        target: Ipv4Addr::new(b[24], b[25], b[26], b[27]),
    })
}

/// An IP packet around a transport segment whose checksum is already right (see [`transport`]).
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, ttl: u8, df: bool, segment: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let len = ((20 + segment.len()) as u16).to_be_bytes();
            let flags = if df { 0x40 } else { 0 };
            let mut h = vec![0x45, 0, len[0], len[1], 0x12, 0x34, flags, 0, ttl, proto, 0, 0];
            h.extend(s.octets());
            h.extend(d.octets());
            let sum = sum16(&[&h]).to_be_bytes();
            h[10..12].copy_from_slice(&sum);
            h.extend(segment);
            h
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let len = (segment.len() as u16).to_be_bytes();
            let mut h = vec![0x60, 0, 0, 0, len[0], len[1], proto, ttl];
            h.extend(s.octets());
            h.extend(d.octets());
            h.extend(segment);
            h
        }
        _ => panic!("addresses of two families"),
    }
}

/// Fills in a transport checksum at `at`.
pub fn transport(src: IpAddr, dst: IpAddr, proto: u8, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
    segment[at..at + 2].fill(0);
    let len = (segment.len() as u32).to_be_bytes();
    let sum = match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) if proto == 1 => sum16(&[&segment]),
        (IpAddr::V4(s), IpAddr::V4(d)) => sum16(&[&s.octets(), &d.octets(), &[0, proto], &len[2..], &segment]),
        (IpAddr::V6(s), IpAddr::V6(d)) => sum16(&[&s.octets(), &d.octets(), &len, &[0, 0, 0, proto], &segment]),
        _ => panic!("addresses of two families"),
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// A UDP packet.
pub fn udp(src: IpAddr, dst: IpAddr, ports: (u16, u16), ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
    let len = ((8 + payload.len()) as u16).to_be_bytes();
    let mut s = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), len, [0, 0]].concat();
    s.extend(payload);
    ip(src, dst, 17, ttl, df, &transport(src, dst, 17, s, 6))
}

/// An echo request.
pub fn echo(src: IpAddr, dst: IpAddr, seq: u16, ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
    let (proto, kind) = if src.is_ipv4() { (1, 8) } else { (58, 128) };
    let mut s = vec![kind, 0, 0, 0, 0xbe, 0xef];
    s.extend(seq.to_be_bytes());
    s.extend(payload);
    ip(src, dst, proto, ttl, df, &transport(src, dst, proto, s, 2))
}

/// A neighbour solicitation in its frame (RFC 4861 4.3).
pub fn solicitation(mac: MacAddr, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]]);
    let mut s = vec![135, 0, 0, 0, 0, 0, 0, 0];
    s.extend(t);
    s.extend([1, 1]);
    s.extend(mac.0);
    let (src, dst) = (IpAddr::V6(src), IpAddr::V6(group));
    let packet = ip(src, dst, 58, 255, false, &transport(src, dst, 58, s, 2));
    ethernet(MacAddr([0x33, 0x33, 0xff, t[13], t[14], t[15]]), mac, &packet)
}

/// A solicited neighbour advertisement in its frame (RFC 4861 4.4).
pub fn advertisement(mac: MacAddr, to_mac: MacAddr, target: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut s = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    s.extend(target.octets());
    s.extend([2, 1]);
    s.extend(mac.0);
    let (src, dst) = (IpAddr::V6(target), IpAddr::V6(to));
    ethernet(to_mac, mac, &ip(src, dst, 58, 255, false, &transport(src, dst, 58, s, 2)))
}

/// Type, target and link-layer option of a neighbour solicitation or advertisement; None for anything else.
pub fn read_ndp(packet: &[u8]) -> Option<(u8, Ipv6Addr, Option<MacAddr>)> {
    if packet.first()? >> 4 != 6 || *packet.get(6)? != 58 {
        return None;
    }
    let s = packet.get(40..)?;
    let kind = *s.first()?;
    if kind != 135 && kind != 136 {
        return None;
    }
    let target: [u8; 16] = s.get(8..24)?.try_into().ok()?;
    let mac = s.get(26..32).map(|m| MacAddr([m[0], m[1], m[2], m[3], m[4], m[5]]));
    Some((kind, target.into(), mac))
}

/// The source of an IP packet.
pub fn source(packet: &[u8]) -> IpAddr {
    address(packet, 12, 8)
}

/// The destination of an IP packet.
pub fn destination(packet: &[u8]) -> IpAddr {
    address(packet, 16, 24)
}

fn address(packet: &[u8], v4: usize, v6: usize) -> IpAddr {
    if packet[0] >> 4 == 4 {
        IpAddr::V4(Ipv4Addr::new(packet[v4], packet[v4 + 1], packet[v4 + 2], packet[v4 + 3]))
    } else {
        let o: [u8; 16] = packet[v6..v6 + 16].try_into().expect("an IPv6 header");
        IpAddr::V6(o.into())
    }
}

/// ICMP type, code and body (from the fifth byte on) of an ICMP packet of either family.
pub fn icmp(packet: &[u8]) -> Option<(u8, u8, &[u8])> {
    let s = match (packet[0] >> 4, packet[9], packet[6]) {
        (4, 1, _) => &packet[usize::from(packet[0] & 15) * 4..],
        (6, _, 58) => &packet[40..],
        _ => return None,
    };
    Some((*s.first()?, *s.get(1)?, s.get(4..)?))
}

/// TTL or hop limit.
pub fn ttl(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[8] } else { packet[7] }
}

/// The reply to an unfragmented echo request; None for anything else.
pub fn echo_reply(packet: &[u8]) -> Option<Vec<u8>> {
    if packet[0] >> 4 == 4 && (packet[6] & 0x3f != 0 || packet[7] != 0) {
        return None;
    }
    let (kind, _, body) = icmp(packet)?;
    let (proto, reply) = match kind {
        8 => (1, 0),
        128 => (58, 129),
        _ => return None,
    };
    let mut s = vec![reply, 0, 0, 0];
    s.extend(body);
    let (src, dst) = (destination(packet), source(packet));
    Some(ip(src, dst, proto, 64, false, &transport(src, dst, proto, s, 2)))
}

/// Checks every checksum of a packet; for tests of what the router sends.
pub fn checksums_right(packet: &[u8]) -> bool {
    let (src, dst) = (source(packet), destination(packet));
    let (proto, segment) = if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        if sum16(&[&packet[..header]]) != 0 {
            return false;
        }
        if packet[6] & 0x3f != 0 || packet[7] != 0 {
            return true; // a fragment
        }
        (packet[9], &packet[header..])
    } else {
        (packet[6], &packet[40..])
    };
    let at = match proto {
        1 | 58 => 2,
        6 => 16,
        17 => 6,
        _ => return true,
    };
    transport(src, dst, proto, segment.to_vec(), at)[at..at + 2] == segment[at..at + 2]
}
