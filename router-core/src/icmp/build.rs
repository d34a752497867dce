//! Writing an ICMP error.

use super::extension::{Extension, length_field, quote_len};
use super::{IcmpError, Offender};
use crate::checksum::{self, Sum};
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{ipv4, ipv6, protocol};
use std::net::IpAddr;

/// TTL and hop limit of what the router itself sends unless the operator wants another (RFC 1122 3.2.1.7).
pub(crate) const TTL: u8 = 64;

/// Gives a packet that was written with [`TTL`] the one that the operator wants. Messages of neighbour discovery keep
/// theirs, which is 255.
pub(crate) fn set_ttl(packet: &mut [u8], ttl: u8) {
    match packet.first().map(|b| b >> 4) {
        Some(4) if packet.get(8) == Some(&TTL) => {
            packet[8] = ttl;
            checksum::fill_ipv4_header(packet);
        }
        Some(6) if packet.get(7) == Some(&TTL) => packet[7] = ttl,
        _ => {}
    }
}
/// Type, code, checksum, and four bytes more.
const ICMP_HEADER: usize = 8;
/// ICMPv4 errors should not be longer than this (RFC 1812 4.3.2.3).
const MAX_V4: usize = 576;
/// ICMPv6 errors must not be longer than this (RFC 4443 2.4 c).
const MAX_V6: usize = 1280;
/// Precedence 6, internetwork control: ICMPv4 errors should carry 6 or 7, and the offender's TOS bits (RFC 1812 4.3.2.5).
const TOS: u8 = 0xc0;
/// The TOS bits of RFC 1349, without what has become the ECN field: errors are not ECN-capable (RFC 3168 5).
const TOS_BITS: u8 = 0x1c;

/// Writes `error` about `offender`, sent from `src`, into `out`, whose data then starts at the IP header; metadata in
/// `out` is reset. As much of the offending packet is quoted, byte for byte, as the family's limit and the frame hold.
///
/// Errors: [`DropReason::NoFrame`] when the frame cannot even hold the headers, [`DropReason::MartianSource`] when `src`
/// is of the other family.
pub fn write_error(out: &mut Frame, error: &IcmpError, src: IpAddr, offender: &Offender<'_>) -> Result<(), DropReason> {
    write_extended_error(out, error, src, offender, &Extension::default())
}

/// As [`write_error`], with an extension behind the quote, which is then padded to 128 bytes (RFC 4884). The extension is
/// left out of kinds of errors that may carry none, and where the frame has no room for it.
pub fn write_extended_error(
    out: &mut Frame,
    error: &IcmpError,
    src: IpAddr,
    offender: &Offender<'_>,
    extension: &Extension,
) -> Result<(), DropReason> {
    out.reset();
    let (header, limit) = match offender.dst {
        IpAddr::V4(_) => (ipv4::MIN_HEADER, MAX_V4),
        IpAddr::V6(_) => (ipv6::HEADER, MAX_V6),
    };
    let room = out.spare_mut();
    let quoted = room.len().min(limit).checked_sub(header + ICMP_HEADER).ok_or(DropReason::NoFrame)?;
    let extended = length_field(error).filter(|_| !extension.is_empty()).and_then(|(at, unit)| {
        let (quote, padded) = quote_len(offender.bytes.len(), quoted.checked_sub(extension.bytes().len())?, unit)?;
        Some((at, unit, quote, padded))
    });
    let (quote, padded) = match extended {
        Some((_, _, quote, padded)) => (quote, padded),
        None => (quoted.min(offender.bytes.len()), quoted.min(offender.bytes.len())),
    };
    let behind = if extended.is_some() { extension.bytes() } else { &[] };
    let total = header + ICMP_HEADER + padded + behind.len();
    let (ip, icmp) = room[..total].split_at_mut(header);
    icmp[..4].copy_from_slice(&[error.kind(), error.code(), 0, 0]);
    icmp[4..8].copy_from_slice(&error.word().to_be_bytes());
    if let Some((at, unit, ..)) = extended {
        // At most 1280 bytes in units of eight: it fits a byte.
        icmp[at] = (padded / unit) as u8;
    }
    let body = &mut icmp[ICMP_HEADER..];
    body[..quote].copy_from_slice(&offender.bytes[..quote]);
    body[quote..padded].fill(0);
    body[padded..].copy_from_slice(behind);
    let pseudo = match (src, offender.src) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Sum::ZERO,
        (IpAddr::V6(s), IpAddr::V6(d)) => checksum::pseudo_v6(s, d, protocol::ICMPV6, icmp.len() as u32),
        _ => return Err(DropReason::MartianSource),
    };
    let sum = pseudo.bytes(icmp).finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    match (src, offender.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4::Header {
            tos: TOS | (offender.bytes.get(1).copied().unwrap_or(0) & TOS_BITS),
            total_len: total as u16,
            // Only matters if the error is fragmented on its way; the checksum differs from error to error.
            ident: sum,
            df: false,
            ttl: TTL,
            proto: protocol::ICMP,
            src,
            dst,
        }
        .write(ip),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            ip[4..6].copy_from_slice(&((total - header) as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&[protocol::ICMPV6, TTL]);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
        }
        _ => return Err(DropReason::MartianSource),
    }
    out.set_len(total);
    Ok(())
}
