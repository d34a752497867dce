//! Echo replies (RFC 792, RFC 1122 3.2.2.6, RFC 4443 4.2).

use super::build::TTL;
use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::ipv4_options::{self, Stamp};
use crate::headers::{ipv4, ipv6, protocol};
use crate::offload::complete_checksum;
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv4Addr};

/// Turns an echo request around in place. `packet` is its parse; the frame's data starts at the IP header. `src` becomes
/// the reply's source: the request's destination, or an own address when that was a multicast group.
///
/// Identifier, sequence number and data stay, and so does the IPv4 identification. Of IPv4 options record route and
/// timestamp stay, with this router's entry, which `millis` is for, and `owns` for entries at addresses that the asker has
/// prescribed (RFC 1122 3.2.2.6, RFC 1812 4.3.3.6); with `follow`, a source route that the request has travelled leads the
/// reply back. IPv6 extension headers are left out. DF is cleared (the way back may have a smaller MTU), the type of service stays (RFC 1349 5.1).
/// Checksums change by the difference only: damage on the way stays visible to the one who asked.
///
/// Errors: [`DropReason::IcmpConsumed`] when it is no whole echo request, [`DropReason::MartianSource`] when `src` is of
/// the other family, [`DropReason::OffloadMalformed`] when a pending checksum does not fit. The frame is then unchanged,
/// except perhaps for that checksum.
pub fn echo_reply(
    frame: &mut Frame,
    packet: &Packet,
    src: IpAddr,
    (millis, follow): (u32, bool),
    owns: impl Fn(Ipv4Addr) -> bool,
) -> Result<(), DropReason> {
    complete_checksum(frame)?;
    let l4 = usize::from(packet.l4);
    let (header, request, reply) = match packet.family {
        Family::Inet => (ipv4::MIN_HEADER, [8, 0], [0, 0]),
        Family::Inet6 => (ipv6::HEADER, [128, 0], [129, 0]),
    };
    let (options, first_hop) = match packet.family {
        Family::Inet if l4 > header => {
            frame.data().get(..l4).map(|h| ipv4_options::for_reply(h, follow)).unwrap_or_default()
        }
        _ => Default::default(),
    };
    let header = header + options.len();
    let icmp = match packet.family {
        Family::Inet => protocol::ICMP,
        Family::Inet6 => protocol::ICMPV6,
    };
    let whole = packet.len as usize == frame.len() && l4 >= header && packet.len as usize >= l4 + 8;
    let kind_and_code = frame.data().get(l4..l4 + 2) == Some(&request[..]);
    if !whole || !kind_and_code || packet.proto != icmp || packet.fragment != Fragment::None {
        return Err(DropReason::IcmpConsumed);
    }
    if Family::of(&src) != packet.family {
        return Err(DropReason::MartianSource);
    }
    let data = frame.data_mut();
    let check = u16::from_be_bytes([data[l4 + 2], data[l4 + 3]]);
    let check = checksum::update_u16(check, u16::from_be_bytes(request), u16::from_be_bytes(reply));
    // Swapping the addresses changes no sum; another source than the one asked for does, in IPv6's pseudo-header.
    let check = match (src, packet.dst) {
        (IpAddr::V6(new), IpAddr::V6(old)) => checksum::update_bytes(check, &old.octets(), &new.octets()),
        _ => check,
    };
    data[l4..l4 + 2].copy_from_slice(&reply);
    data[l4 + 2..l4 + 4].copy_from_slice(&check.to_be_bytes());
    // Leave options and extension headers out: the fixed header moves up to the ICMP message.
    let ident = [data[4], data[5]];
    frame.pull_front(l4 - header);
    let total = frame.len();
    let (ip, message) = frame.data_mut().split_at_mut(header);
    match (src, packet.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ident = match u16::from_be_bytes(ident) {
                // An atomic request may have none (RFC 6864 4.1); the reply may be fragmented and needs one.
                0 => u16::from_be_bytes([message[2], message[3]]),
                id => id,
            };
            ipv4::Header {
                tos: packet.tclass,
                total_len: total as u16,
                ident,
                df: false,
                ttl: TTL,
                proto: protocol::ICMP,
                src,
                dst: first_hop.unwrap_or(dst),
            }
            .write(ip);
            if !options.is_empty() {
                ip[0] = 0x40 | (header / 4) as u8;
                ip[ipv4::MIN_HEADER..].copy_from_slice(&options);
                checksum::fill_ipv4_header(ip);
                let before = options;
                ipv4_options::stamp(ip, Stamp::own(src, millis), owns);
                // A timestamp that is full now and has its overflow count full could not go on from here: RFC 791 3.1.
                if ipv4_options::check(ip).is_err() {
                    ip[ipv4::MIN_HEADER..].copy_from_slice(&before);
                    checksum::fill_ipv4_header(ip);
                }
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ip[..4].copy_from_slice(&[0x60 | packet.tclass >> 4, packet.tclass << 4, 0, 0]);
            ip[4..6].copy_from_slice(&((total - header) as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&[protocol::ICMPV6, TTL]);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
        }
        _ => return Err(DropReason::MartianSource),
    }
    frame.meta.gso = None;
    Ok(())
}
