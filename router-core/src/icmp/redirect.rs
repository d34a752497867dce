//! Redirects: telling a host of a better first hop on its own link (RFC 792, RFC 1812 5.2.7.2, RFC 4861 8.2).

use super::Offender;
use crate::addr::{Family, MacAddr};
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{ipv6, protocol};
use crate::object::Forward;
use crate::packet::{Fragment, Packet};
use crate::port::{Medium, PortInfo};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A redirect to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// An ICMPv4 redirect for the host.
    V4 {
        /// The address by which the host knows this router: others are not believed (RFC 1122 3.2.2.2).
        from: Ipv4Addr,
        /// The better first hop.
        to: Ipv4Addr,
    },
    /// A neighbour discovery redirect.
    V6 {
        /// This router's link-local address on the link.
        from: Ipv6Addr,
        /// The better first hop: a router's link-local address, or the destination itself when it is on the link.
        to: Ipv6Addr,
        /// Its link-layer address.
        mac: MacAddr,
    },
}

/// Whether a packet that came through `port` and leaves through the same port by `hop` calls for a redirect.
///
/// RFC 1812 5.2.7.2: the packet leaves by the port it came in, its source is on the same (sub)net as the next hop, and it
/// is not source-routed (those are refused). RFC 4861 8.2: the source is a neighbour, the next hop is on the link, the
/// destination is no multicast address; the target is a link-local address, or the destination.
pub fn redirect(port: &PortInfo, packet: &Packet, hop: &Forward) -> Option<Redirect> {
    let plain = !packet.link_group && packet.fragment != Fragment::Later && port.medium == Medium::Ethernet;
    if !plain || hop.port != port.id {
        return None;
    }
    let next = hop.gateway.unwrap_or(packet.dst);
    match (packet.src, packet.dst, next) {
        (IpAddr::V4(_), IpAddr::V4(_), IpAddr::V4(to)) => {
            let shared = port.addrs.iter().find(|n| n.contains(&packet.src) && n.contains(&next))?;
            match shared.addr() {
                IpAddr::V4(from) if from != to => Some(Redirect::V4 { from, to }),
                _ => None,
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst), IpAddr::V6(to)) => {
            let neighbor = src.is_unicast_link_local() || port.on_link(&packet.src);
            if !neighbor || dst.is_multicast() || !(to.is_unicast_link_local() || to == dst) {
                return None;
            }
            let mac = hop.rewrite.dst()?;
            Some(Redirect::V6 { from: port.link_local()?, to, mac })
        }
        _ => None,
    }
}

/// Writes a neighbour discovery redirect as an IPv6 packet into `out`: target, destination, the target's link-layer
/// address, and as much of the packet as 1280 bytes hold (RFC 4861 4.5).
///
/// Errors: [`DropReason::NoFrame`] when it does not fit, [`DropReason::MartianSource`] when the packet is not IPv6.
pub fn write_redirect_v6(
    out: &mut Frame,
    about: &Offender<'_>,
    (from, to, mac): (Ipv6Addr, Ipv6Addr, MacAddr),
) -> Result<(), DropReason> {
    const FIXED: usize = ipv6::HEADER + 40 + 8 + 8;
    const LIMIT: usize = 1280;
    let (IpAddr::V6(src), IpAddr::V6(dst), Family::Inet6) = (about.src, about.dst, about.family) else {
        return Err(DropReason::MartianSource);
    };
    out.reset();
    let room = out.spare_mut();
    let most = room.len().min(LIMIT).checked_sub(FIXED).ok_or(DropReason::NoFrame)? & !7;
    let quote = &about.bytes[..most.min(about.bytes.len())];
    let padded = quote.len().next_multiple_of(8);
    let total = FIXED + padded;
    let (ip, message) = room[..total].split_at_mut(ipv6::HEADER);
    ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ip[4..6].copy_from_slice(&((total - ipv6::HEADER) as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&[protocol::ICMPV6, 255]);
    ip[8..24].copy_from_slice(&from.octets());
    ip[24..40].copy_from_slice(&src.octets());
    message.fill(0);
    message[0] = 137;
    message[8..24].copy_from_slice(&to.octets());
    message[24..40].copy_from_slice(&dst.octets());
    message[40..42].copy_from_slice(&[2, 1]);
    message[42..48].copy_from_slice(&mac.0);
    message[48..50].copy_from_slice(&[4, (1 + padded / 8) as u8]);
    message[56..56 + quote.len()].copy_from_slice(quote);
    let sum = checksum::pseudo_v6(from, src, protocol::ICMPV6, message.len() as u32).bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out.set_len(total);
    Ok(())
}
