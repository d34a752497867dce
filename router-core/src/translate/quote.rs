//! ICMP errors: the packet that they quote is translated with them (RFC 7915 4.2, 4.3, 5.2, 5.3), as far as it goes:
//! quotes are cut, and may be followed by extensions (RFC 4884).

use super::Refusal;
use super::ends::{Ends, Ends4, Ends6, Payload, classify, common_proto};
use super::icmp::{Head, Quoted, error_to_v4, error_to_v6};
use super::spec::UdpZero;
use super::transport::{self, Surroundings};
use super::walk::{self, FragmentHeader};
use crate::checksum::{self, Sum};
use crate::drop_reason::DropReason;
use crate::headers::{be16, ipv4, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// ICMP errors end here: the least MTU of IPv6 (RFC 4443 2.4 c). IPv4 has no stricter rule for those that pass through.
pub(super) const LONGEST: usize = 1280;
/// Type, code, checksum, four bytes more.
const ICMP_HEADER: usize = 8;
/// RFC 4884 5.1: the quote in front of an extension has this many bytes at least, padded with zeros.
const LEAST_EXTENDED: usize = 128;

/// A quoted packet, parsed as far as it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote<'a, A> {
    pub ends: Ends<A>,
    payload: Payload,
    /// The protocol number in its header.
    proto: u8,
    tclass: u8,
    ttl: u8,
    /// Bytes behind the header (and the headers that go), as its length field says.
    l4_len: u32,
    l4: &'a [u8],
    fragment: Option<FragmentHeader>,
    ident: u16,
    df: bool,
    total_len: u32,
}

/// What comes first in an ICMP message: the quote, then perhaps an extension structure.
fn split_extension(icmp: &[u8], length_at: usize, unit: usize) -> (&[u8], &[u8]) {
    let body = icmp.get(ICMP_HEADER..).unwrap_or(&[]);
    let len = usize::from(icmp.get(length_at).copied().unwrap_or(0)) * unit;
    if len == 0 || len > body.len() { (body, &[]) } else { body.split_at(len) }
}

/// Parses an IPv4 packet that an ICMPv4 error quotes.
pub(super) fn parse_v4(icmp: &[u8]) -> Result<Quote<'_, Ipv4Addr>, Refusal> {
    let malformed = Refusal::Drop(DropReason::TranslateMalformed);
    let (q, _) = split_extension(icmp, 5, 4);
    let header = checksum::ipv4_header_len(q).filter(|_| q[0] >> 4 == 4).ok_or(malformed)?;
    let total_len = u32::from(be16(q, 2));
    let l4_len = total_len.checked_sub(header as u32).ok_or(malformed)?;
    let l4 = &q[header..q.len().min(header + l4_len as usize)];
    let field = be16(q, 6);
    let (offset, more) = ((field & 0x1fff) * 8, field & 0x2000 != 0);
    let ident = be16(q, 4);
    let fragment = (offset != 0 || more).then_some(FragmentHeader { offset, more, ident: u32::from(ident) });
    let payload = if offset == 0 { classify(false, q[9], l4)? } else { Payload::Opaque };
    let (sport, dport) = payload.ports();
    let v4 = |at: usize| Ipv4Addr::new(q[at], q[at + 1], q[at + 2], q[at + 3]);
    let ends = Ends4 { src: v4(12), dst: v4(16), sport, dport, proto: q[9] };
    let (tclass, ttl, df) = (q[1], q[8], field & 0x4000 != 0);
    check(payload)?;
    Ok(Quote { ends, payload, proto: q[9], tclass, ttl, l4_len, l4, fragment, ident, df, total_len })
}

/// Parses an IPv6 packet that an ICMPv6 error quotes.
pub(super) fn parse_v6(icmp: &[u8]) -> Result<Quote<'_, Ipv6Addr>, Refusal> {
    let malformed = Refusal::Drop(DropReason::TranslateMalformed);
    let (q, _) = match icmp.first() {
        Some(1 | 3) => split_extension(icmp, 4, 8),
        _ => (icmp.get(ICMP_HEADER..).unwrap_or(&[]), &[][..]),
    };
    if q.len() < 40 || q[0] >> 4 != 6 {
        return Err(malformed);
    }
    let total_len = 40 + u32::from(be16(q, 4));
    let chain = walk::chain(q).map_err(Refusal::Drop)?;
    let l4_len = total_len.checked_sub(chain.l4 as u32).ok_or(malformed)?;
    let l4 = q.get(chain.l4..q.len().min(total_len as usize)).ok_or(malformed)?;
    let later = chain.fragment.is_some_and(|f| f.offset != 0);
    let payload = if later { Payload::Opaque } else { classify(true, chain.proto, l4)? };
    let (sport, dport) = payload.ports();
    let v6 = |at: usize| {
        let mut o = [0u8; 16];
        o.copy_from_slice(&q[at..at + 16]);
        Ipv6Addr::from(o)
    };
    check(payload)?;
    Ok(Quote {
        ends: Ends6 { src: v6(8), dst: v6(24), sport, dport, proto: common_proto(chain.proto) },
        payload,
        proto: chain.proto,
        tclass: (q[0] << 4) | (q[1] >> 4),
        ttl: q[7],
        l4_len,
        l4,
        fragment: chain.fragment,
        ident: chain.fragment.map_or(0, |f| f.ident as u16),
        df: chain.fragment.is_none(),
        total_len,
    })
}

/// RFC 7915 4.3: translation stops at the first quoted packet; an error about an error is dropped.
fn check(payload: Payload) -> Result<(), Refusal> {
    match payload {
        Payload::Error => Err(Refusal::Drop(DropReason::TranslateIcmp)),
        _ => Ok(()),
    }
}

/// How quoted transport headers are rewritten.
const AROUND: Surroundings = Surroundings { partial: false, whole: false, quoted: true, udp_zero: UdpZero::Compute };

/// Writes the ICMPv6 form of an ICMPv4 error, from its ICMP header on, into `out`. Returns its length.
pub(super) fn error_v6(
    icmp: &[u8],
    quote: &Quote<'_, Ipv4Addr>,
    inner: &Ends6,
    outer: &Ends6,
    out: &mut [u8; LONGEST],
) -> Result<usize, DropReason> {
    let word = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    let quoted = Quoted { total_len: quote.total_len, fragment: quote.fragment.is_some() };
    let head = error_to_v6(icmp[0], icmp[1], word, quoted)?;
    let fragment_header = if quote.fragment.is_some() { 8 } else { 0 };
    let room = &mut out[40 + ICMP_HEADER..];
    let header = 40 + fragment_header;
    let payload_len =
        u16::try_from(quote.l4_len + fragment_header as u32).map_err(|_| DropReason::TranslateMalformed)?;
    write_v6_header(room, quote.tclass, payload_len, 0, quote.ttl, inner);
    let next = if quote.proto == protocol::ICMP { protocol::ICMPV6 } else { quote.proto };
    match quote.fragment {
        Some(f) => {
            room[6] = protocol::FRAGMENT;
            write_fragment_header(&mut room[40..48], next, f);
        }
        None => room[6] = next,
    }
    let n = quote.l4.len().min(room.len() - header);
    let l4 = &mut room[header..header + n];
    l4.copy_from_slice(&quote.l4[..n]);
    if n >= 4 {
        match quote.payload {
            Payload::Query(_) if n >= ICMP_HEADER => transport::echo_to_v6(l4, inner, inner.sport, quote.l4_len),
            Payload::Opaque if quote.fragment.is_some_and(|f| f.offset != 0) => {}
            payload => transport::rewrite(l4, &quote.ends, inner, payload, true, AROUND)?,
        }
    }
    let (_, extension) = split_extension(icmp, 5, 4);
    let len = finish(&mut out[40..], &head, header + n, extension, 4, 8);
    let pseudo = checksum::pseudo_v6(outer.src, outer.dst, protocol::ICMPV6, len as u32);
    let sum = pseudo.bytes(&out[40..40 + len]).finish();
    out[42..44].copy_from_slice(&sum.to_be_bytes());
    Ok(len)
}

/// Writes the ICMPv4 form of an ICMPv6 error, from its ICMP header on, into `out` behind 20 bytes. Returns its length.
pub(super) fn error_v4(
    icmp: &[u8],
    quote: &Quote<'_, Ipv6Addr>,
    inner: &Ends4,
    out: &mut [u8; LONGEST],
) -> Result<usize, DropReason> {
    let word = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
    let quoted = Quoted { total_len: quote.total_len, fragment: quote.fragment.is_some() };
    let head = error_to_v4(icmp[0], icmp[1], word, quoted)?;
    let room = &mut out[20 + ICMP_HEADER..];
    let total_len = u16::try_from(quote.l4_len + 20).map_err(|_| DropReason::TranslateMalformed)?;
    let proto = common_proto(quote.proto);
    ipv4::Header {
        tos: quote.tclass,
        total_len,
        ident: quote.ident,
        df: quote.df,
        ttl: quote.ttl,
        proto,
        src: inner.src,
        dst: inner.dst,
    }
    .write(room);
    if let Some(f) = quote.fragment {
        let field = (f.offset / 8) | if f.more { 0x2000 } else { 0 };
        room[6..8].copy_from_slice(&field.to_be_bytes());
        checksum::fill_ipv4_header(&mut room[..20]);
    }
    let n = quote.l4.len().min(room.len() - 20);
    let l4 = &mut room[20..20 + n];
    l4.copy_from_slice(&quote.l4[..n]);
    if n >= 4 {
        match quote.payload {
            Payload::Query(_) if n >= ICMP_HEADER => transport::echo_to_v4(l4, &quote.ends, inner.sport, quote.l4_len),
            Payload::Opaque if quote.fragment.is_some_and(|f| f.offset != 0) => {}
            payload => transport::rewrite(l4, &quote.ends, inner, payload, false, AROUND)?,
        }
    }
    let (_, extension) = match icmp[0] {
        1 | 3 => split_extension(icmp, 4, 8),
        _ => (&[][..], &[][..]),
    };
    let len = finish(&mut out[20..], &head, 20 + n, extension, 5, 4);
    let sum = Sum::of(&out[20..20 + len]).finish();
    out[22..24].copy_from_slice(&sum.to_be_bytes());
    Ok(len)
}

/// Completes an ICMP error at the start of `icmp`, whose quote of `quote` bytes is in place: head, and the extension where
/// the type can carry one and there is room. The RFC 4884 length counts in `unit` bytes. Returns the message's length;
/// its checksum is zero.
fn finish(icmp: &mut [u8], head: &Head, quote: usize, extension: &[u8], length_at: usize, unit: usize) -> usize {
    icmp[0] = head.kind;
    icmp[1] = head.code;
    icmp[2..4].fill(0);
    icmp[4..8].copy_from_slice(&head.word.to_be_bytes());
    let room = icmp.len() - ICMP_HEADER;
    if extension.is_empty() || !head.extensible || extension.len() > room - LEAST_EXTENDED {
        return ICMP_HEADER + quote;
    }
    let padded = quote.next_multiple_of(unit).max(LEAST_EXTENDED);
    let most = ((room - extension.len()) / unit * unit).min(255 * unit);
    let padded = padded.min(most);
    let (from, to) = (ICMP_HEADER + quote, ICMP_HEADER + padded);
    if from < to {
        icmp[from..to].fill(0);
    }
    icmp[to..to + extension.len()].copy_from_slice(extension);
    icmp[length_at] = (padded / unit) as u8;
    to + extension.len()
}

/// Writes an IPv6 header; its next header is left zero.
pub(super) fn write_v6_header(to: &mut [u8], tclass: u8, payload_len: u16, flow: u32, hop_limit: u8, e: &Ends6) {
    let word = 0x6000_0000 | (u32::from(tclass) << 20) | (flow & 0xf_ffff);
    to[..4].copy_from_slice(&word.to_be_bytes());
    to[4..6].copy_from_slice(&payload_len.to_be_bytes());
    to[6..8].copy_from_slice(&[0, hop_limit]);
    to[8..24].copy_from_slice(&e.src.octets());
    to[24..40].copy_from_slice(&e.dst.octets());
}

/// Writes a fragment header (RFC 8200 4.5).
pub(super) fn write_fragment_header(to: &mut [u8], next: u8, f: FragmentHeader) {
    to[..2].copy_from_slice(&[next, 0]);
    to[2..4].copy_from_slice(&(f.offset | u16::from(f.more)).to_be_bytes());
    to[4..8].copy_from_slice(&f.ident.to_be_bytes());
}
