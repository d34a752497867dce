//! The messages: RFC 1256 3 and 4.2.

use super::Due;
use crate::addr::MacAddr;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::ethernet::ETHERTYPE_IPV4;
use crate::headers::{ipv4, protocol};
use crate::neighbor::ndp::push_link_header;
use crate::packet::{Fragment, Packet};
use crate::port::PortInfo;
use std::net::{IpAddr, Ipv4Addr};

/// All systems of a link.
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All routers of a link.
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Type of an advertisement.
const ADVERTISEMENT: u8 = 9;
/// Type of a solicitation.
const SOLICITATION: u8 = 10;
/// Type, code, checksum; number and size of addresses, lifetime.
const HEADER: usize = 8;
/// Bytes per address.
const ENTRY: usize = 8;
/// Precedence 6, internetwork control (RFC 1812 5.3.3).
const TOS: u8 = 0xc0;

/// How many addresses one advertisement of a port holds.
pub(crate) fn most(port: &PortInfo) -> usize {
    ((port.mtu as usize).saturating_sub(ipv4::MIN_HEADER + HEADER) / ENTRY).clamp(1, 255)
}

/// Writes an advertisement of some of `due`'s addresses as an Ethernet frame, ready to be sent.
///
/// Errors: [`DropReason::PortGone`] when the port has no link layer, [`DropReason::NoFrame`] when it does not fit.
pub fn write_advert(out: &mut Frame, port: &PortInfo, due: &Due, addrs: &[(Ipv4Addr, i32)]) -> Result<(), DropReason> {
    // An address of the interface, even when those that it tells of are so no longer.
    let own = |a: &Ipv4Addr| port.addrs.iter().any(|n| n.addr() == IpAddr::V4(*a));
    let first = addrs.iter().map(|(a, _)| *a).find(own);
    let src = first.or_else(|| match port.global_addr(crate::addr::Family::Inet) {
        Some(IpAddr::V4(a)) => Some(a),
        _ => None,
    });
    let (src, _) = src.zip(port.mac).ok_or(DropReason::PortGone)?;
    let count = u8::try_from(addrs.len()).map_err(|_| DropReason::NoFrame)?;
    out.reset();
    let total = ipv4::MIN_HEADER + HEADER + ENTRY * addrs.len();
    let room = out.spare_mut().get_mut(..total).ok_or(DropReason::NoFrame)?;
    let (ip, icmp) = room.split_at_mut(ipv4::MIN_HEADER);
    icmp[..4].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0]);
    icmp[4..6].copy_from_slice(&[count, (ENTRY / 4) as u8]);
    icmp[6..8].copy_from_slice(&due.lifetime.to_be_bytes());
    for (to, (addr, preference)) in icmp[HEADER..].chunks_exact_mut(ENTRY).zip(addrs) {
        to[..4].copy_from_slice(&addr.octets());
        to[4..].copy_from_slice(&preference.to_be_bytes());
    }
    let sum = checksum::checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let (dst, mac) = match due.broadcast {
        true => (Ipv4Addr::BROADCAST, MacAddr([0xff; 6])),
        false => (ALL_SYSTEMS, MacAddr::for_ipv4_multicast(ALL_SYSTEMS)),
    };
    ipv4::Header { tos: TOS, total_len: total as u16, ident: 0, df: true, ttl: 1, proto: protocol::ICMP, src, dst }
        .write(ip);
    out.set_len(total);
    push_link_header(out, port, mac, ETHERTYPE_IPV4)
}

/// Whether a packet that came in by `port` asks for routers, right or wrong.
#[inline]
pub fn is_solicitation(packet: &Packet, data: &[u8], port: &PortInfo) -> bool {
    let IpAddr::V4(dst) = packet.dst else { return false };
    packet.proto == protocol::ICMP
        && packet.fragment == Fragment::None
        && packet.transport(data).first() == Some(&SOLICITATION)
        && (dst == ALL_ROUTERS || dst.is_broadcast() || port.addrs.iter().any(|n| n.broadcast() == IpAddr::V4(dst)))
}

/// The checks of RFC 1256 4.2: from a neighbour or from nowhere, the checksum, the code, the length.
pub fn is_valid_solicitation(packet: &Packet, data: &[u8], port: &PortInfo) -> bool {
    let message = packet.transport(data);
    let IpAddr::V4(src) = packet.src else { return false };
    let near = |n: &ipnet::IpNet| n.contains(&packet.src) && n.broadcast() != packet.src;
    let neighbor = src.is_unspecified() || (!src.is_broadcast() && port.addrs.iter().any(near));
    neighbor && message.len() >= 8 && message[1] == 0 && checksum::verify(message)
}
