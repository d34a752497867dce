//! IPv6 as a router must read it (RFC 8200): the fixed header, hop-by-hop options, and the rest of the extension headers
//! as far as needed to find the transport header for flow hashing and ICMP.

use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::headers::{be16, protocol};
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv6Addr};

/// Length of the fixed header.
pub const HEADER: usize = 40;

/// Extension headers looked at per packet; beyond it the transport header counts as unknown (RFC 8504 5.3).
const MAX_EXTENSIONS: usize = 8;

/// Hop-by-hop options looked at per packet (RFC 9673 leaves the limit to the router).
const MAX_OPTIONS: usize = 16;

/// Checks an IPv6 packet and finds its parts.
///
/// Only what a router on the way must process can make it drop: the fixed header and hop-by-hop options (RFC 8200 4).
/// Damage further in is the receiver's business; the transport header is then reported as [`protocol::NO_NEXT`].
pub fn parse(data: &[u8]) -> Result<Packet, DropReason> {
    if data.len() < HEADER {
        return Err(DropReason::Ipv6Truncated);
    }
    if data[0] >> 4 != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let total = HEADER + usize::from(be16(data, 4));
    if total > data.len() {
        return Err(DropReason::Ipv6Truncated);
    }
    let data = &data[..total];
    let mut p = Packet {
        family: Family::Inet6,
        src: addr(data, 8),
        dst: addr(data, 24),
        len: total as u32,
        wire_len: total as u32,
        l4: HEADER as u16,
        proto: data[6],
        ttl: data[7],
        tclass: (data[0] << 4) | (data[1] >> 4),
        flow: u32::from_be_bytes([0, data[1] & 0x0f, data[2], data[3]]),
        fragment: Fragment::None,
        df: true,
        link_group: false,
        router_alert: false,
    };
    if p.proto == protocol::HOP_BY_HOP {
        let end = extension_end(data, HEADER).ok_or(DropReason::Ipv6Extension)?;
        p.router_alert = check_hop_by_hop(&data[HEADER + 2..end])?;
        (p.proto, p.l4) = (data[HEADER], end as u16);
    }
    walk(data, &mut p);
    Ok(p)
}

fn addr(data: &[u8], at: usize) -> IpAddr {
    let mut o = [0u8; 16];
    o.copy_from_slice(&data[at..at + 16]);
    IpAddr::V6(Ipv6Addr::from(o))
}

/// Where the extension header at `at` ends, if it lies inside the packet (RFC 8200 4.3: length in 8-byte units less one).
fn extension_end(data: &[u8], at: usize) -> Option<usize> {
    let end = at + (usize::from(*data.get(at + 1)?) + 1) * 8;
    (end <= data.len()).then_some(end)
}

/// Walks the options of a hop-by-hop header. The two highest bits of an unknown option's type say what to do
/// (RFC 8200 4.2): 00 skip, 01 drop, 10 and 11 drop and answer. A jumbo payload (RFC 2675) is unknown here.
/// Says whether a router alert (RFC 2711) is among them.
fn check_hop_by_hop(mut opts: &[u8]) -> Result<bool, DropReason> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    const ROUTER_ALERT: u8 = 5;
    let mut alert = false;
    for _ in 0..MAX_OPTIONS {
        let Some((&kind, rest)) = opts.split_first() else { break };
        if kind == PAD1 {
            opts = rest;
            continue;
        }
        let len = 2 + usize::from(*rest.first().ok_or(DropReason::Ipv6Extension)?);
        opts = opts.get(len..).ok_or(DropReason::Ipv6Extension)?;
        match kind {
            PADN => {}
            ROUTER_ALERT => alert = true,
            _ if kind & 0xc0 == 0 => {}
            _ => return Err(DropReason::Ipv6HopByHop),
        }
    }
    Ok(alert)
}

/// Where the hop-by-hop option that made [`parse`] say [`DropReason::Ipv6HopByHop`] lies, and whether its sender wants
/// an answer (RFC 8200 4.2: 10 always, 11 unless the destination is multicast).
pub fn offending_option(data: &[u8]) -> Option<(u32, bool)> {
    let end = extension_end(data, HEADER)?;
    let multicast = data.get(24) == Some(&0xff);
    let mut at = HEADER + 2;
    while at < end {
        match (data[at], data.get(at + 1)) {
            (0, _) => at += 1,
            (kind, _) if kind & 0xc0 != 0 => {
                let answer = match kind >> 6 {
                    2 => true,
                    3 => !multicast,
                    _ => false,
                };
                return Some((at as u32, answer));
            }
            (_, Some(len)) => at += 2 + usize::from(*len),
            (_, None) => return None,
        }
    }
    None
}

/// Walks the extension headers behind hop-by-hop to the transport header.
fn walk(data: &[u8], p: &mut Packet) {
    let mut at = usize::from(p.l4);
    for _ in 0..MAX_EXTENSIONS {
        match p.proto {
            protocol::ROUTING | protocol::DEST_OPTIONS | protocol::MOBILITY | protocol::HIP | protocol::SHIM6 => {
                match extension_end(data, at) {
                    Some(end) => (p.proto, at) = (data[at], end),
                    None => p.proto = protocol::NO_NEXT,
                }
            }
            // RFC 4302 2.2: in 4-byte units less two.
            protocol::AH => match data.get(at + 1).map(|l| at + (usize::from(*l) + 2) * 4) {
                Some(end) if end <= data.len() => (p.proto, at) = (data[at], end),
                _ => p.proto = protocol::NO_NEXT,
            },
            protocol::FRAGMENT => {
                if at + 8 > data.len() {
                    p.proto = protocol::NO_NEXT;
                    break;
                }
                let field = be16(data, at + 2);
                p.proto = data[at];
                at += 8;
                // RFC 6946: offset zero and no more fragments is an atomic fragment, a whole packet.
                match (field & 0xfff8, field & 1) {
                    (0, 0) => {}
                    (0, _) => p.fragment = Fragment::First,
                    _ => {
                        p.fragment = Fragment::Later;
                        break;
                    }
                }
            }
            _ => break,
        }
    }
    p.l4 = at as u16;
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet whose payload is `rest` and whose first next header is `next`.
    pub(in crate::headers) fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut v = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        v.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend(rest);
        v
    }

    /// Proves rfc8200-3-version.
    #[test]
    fn rfc8200_3_fixed_header() {
        use DropReason::*;
        type Row = (&'static str, fn(&mut Vec<u8>), Result<(), DropReason>);
        let rows: &[Row] = &[
            ("untouched", |_| {}, Ok(())),
            ("padded by the link", |v| v.resize(60, 0), Ok(())),
            ("cut payload", |v| v.truncate(47), Err(Ipv6Truncated)),
            ("cut header", |v| v.truncate(39), Err(Ipv6Truncated)),
            ("empty", |v| v.clear(), Err(Ipv6Truncated)),
            ("version", |v| v[0] = 0x45, Err(Ipv6Version)),
        ];
        for (what, spoil, want) in rows {
            let mut v = packet(17, &[0; 8]);
            spoil(&mut v);
            assert_eq!(parse(&v).map(|_| ()), *want, "{what}");
        }
        let mut v = packet(17, &[0; 8]);
        v[..4].copy_from_slice(&[0x6a, 0xb1, 0x23, 0x45]);
        let p = parse(&v).unwrap();
        assert_eq!((p.tclass, p.flow), (0xab, 0x12345));
    }

    /// Proves rfc6946-4-forward, rfc8504-5.3-forward.
    /// Proves rfc8200-4.1-order.
    #[test]
    fn rfc8200_4_extension_chains() {
        use Fragment::*;
        // first next header, bytes, expectation: transport protocol, its offset behind the fixed header, fragment
        type Row<'a> = (&'a str, u8, &'a [u8], (u8, u16, Fragment));
        let rows: &[Row<'_>] = &[
            ("plain", 6, &[0; 20], (6, 0, None)),
            ("routing", 43, &[17, 0, 4, 0, 0, 0, 0, 0, 9], (17, 8, None)),
            ("options then routing", 60, &[43, 0, 1, 4, 0, 0, 0, 0, 6, 0, 4, 0, 0, 0, 0, 0], (6, 16, None)),
            ("AH counts in words", 51, &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], (6, 12, None)),
            ("first fragment", 44, &[17, 0, 0, 1, 0, 0, 0, 1], (17, 8, First)),
            ("later fragment", 44, &[17, 0, 0, 9, 0, 0, 0, 1], (17, 8, Later)),
            ("last fragment", 44, &[17, 0, 0, 8, 0, 0, 0, 1], (17, 8, Later)),
            ("atomic fragment (RFC 6946)", 44, &[17, 0, 0, 0, 0, 0, 0, 1], (17, 8, None)),
            ("options run out", 60, &[6, 9, 0, 0, 0, 0, 0, 0], (59, 0, None)),
            ("fragment header cut", 44, &[6, 0, 0], (59, 0, None)),
            ("no next header", 59, &[], (59, 0, None)),
        ];
        for (what, next, rest, (proto, at, fragment)) in rows {
            let p = parse(&packet(*next, rest)).unwrap();
            assert_eq!((p.proto, p.l4 - 40, p.fragment), (*proto, *at, *fragment), "{what}");
        }
        // A chain longer than the budget is forwarded all the same.
        let mut long = Vec::new();
        for _ in 0..12 {
            long.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        }
        assert_eq!(parse(&packet(60, &long)).unwrap().proto, 60);
    }

    /// Proves rfc8200-4.2-hbh-00, rfc8200-4.2-hbh-01.
    #[test]
    fn rfc8200_4_2_hop_by_hop_options() {
        use DropReason::*;
        // options, expectation, where dropped: whether the sender wants an answer
        type Row<'a> = (&'a [u8], Result<bool, DropReason>, Option<bool>);
        let rows: &[Row<'_>] = &[
            (&[1, 4, 0, 0, 0, 0], Ok(false), None),
            (&[5, 2, 0, 0, 1, 0], Ok(true), None),
            (&[0x1e, 4, 0, 0, 0, 0], Ok(false), None),
            (&[0x5e, 4, 0, 0, 0, 0], Err(Ipv6HopByHop), Some(false)),
            (&[0x9e, 4, 0, 0, 0, 0], Err(Ipv6HopByHop), Some(true)),
            (&[0xc2, 4, 0, 1, 0, 0], Err(Ipv6HopByHop), Some(true)),
            (&[1, 5, 0, 0, 0, 0], Err(Ipv6Extension), None),
            (&[0, 0, 0, 0, 0, 1], Err(Ipv6Extension), None),
        ];
        for (opts, want, answer) in rows {
            let mut rest = vec![17, 0];
            rest.extend(*opts);
            rest.extend([0; 8]);
            let v = packet(0, &rest);
            assert_eq!(parse(&v).map(|p| p.router_alert), *want, "{opts:?}");
            if answer.is_some() {
                assert_eq!(offending_option(&v), answer.map(|a| (42, a)), "{opts:?}");
            }
        }
        assert_eq!(parse(&packet(0, &[17, 3, 1, 4, 0, 0, 0, 0])), Err(Ipv6Extension));
        assert_eq!(parse(&packet(0, &[])), Err(Ipv6Extension));
    }
}
