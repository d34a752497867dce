//! A packet in the other family (RFC 7915 4 and 5): first a plan that touches nothing, then the new header in its place.

use super::ends::{Ends, Ends4, Ends6, Payload, classify, common_proto};
use super::quote::{self, LONGEST, write_fragment_header, write_v6_header};
use super::spec::UdpZero;
use super::transport::{self, Surroundings};
use super::walk::{self, Chain, FragmentHeader};
use super::{Looking, Refusal};
use crate::drop_reason::DropReason;
use crate::frame::{Frame, GsoKind};
use crate::headers::source_route::SourceRoute;
use crate::headers::{be16, ipv4, protocol};
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 packets up to this length leave without DF (RFC 7915 5.1): they fit every IPv6 link with their IPv6 header.
pub(super) const NO_DF_UP_TO: u32 = 1260;

/// What the operator leaves open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub ipv6_mtu: u32,
    pub ignore_tos: bool,
    pub udp_zero: UdpZero,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<Old, New> {
    pub old: Ends<Old>,
    pub new: Ends<New>,
    pub payload: Payload,
    /// Ends of the packet that an ICMP error quotes.
    pub quoted: Option<Ends<New>>,
}

/// A packet on its way to IPv6.
pub(super) type Plan6 = Plan<Ipv4Addr, Ipv6Addr>;
/// A packet on its way to IPv4, and the headers that it has.
pub(super) type Plan4 = (Plan<Ipv6Addr, Ipv4Addr>, Chain);

/// Plans the way to IPv6.
pub(super) fn plan_v6(map: &Looking<'_>, p: &Packet, data: &[u8]) -> Result<Plan6, Refusal> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (p.src, p.dst) else {
        return Err(Refusal::Drop(DropReason::TranslateMalformed));
    };
    // RFC 7915 4.1: a source route that has not been travelled to its end.
    if usize::from(p.l4) > 20
        && SourceRoute::of(data.get(..usize::from(p.l4)).unwrap_or_default()).is_some_and(|r| r.is_unexpired())
    {
        return Err(Refusal::Drop(DropReason::Ipv4SourceRoute));
    }
    let l4 = p.transport(data);
    let payload = match p.fragment {
        // RFC 7915 1.2: the checksum of a fragmented ICMPv6 message cannot be had without the rest.
        Fragment::First | Fragment::Later if p.proto == protocol::ICMP => {
            return Err(Refusal::Drop(DropReason::TranslateFragment));
        }
        Fragment::Later => match classify(false, p.proto, &[0; 8]) {
            Err(why) => return Err(why),
            Ok(_) => Payload::Opaque,
        },
        _ => classify(false, p.proto, l4)?,
    };
    let (sport, dport) = payload.ports();
    let old = Ends4 { src, dst, sport, dport, proto: p.proto };
    if payload == Payload::Error {
        let quote = quote::parse_v4(l4)?;
        let (new, inner) = map.error_to_v6(&old, &quote.ends)?;
        return Ok(Plan { old, new, payload, quoted: Some(inner) });
    }
    Ok(Plan { old, new: map.to_v6(&old)?, payload, quoted: None })
}

/// Plans the way to IPv4.
pub(super) fn plan_v4(map: &Looking<'_>, p: &Packet, data: &[u8]) -> Result<Plan4, Refusal> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (p.src, p.dst) else {
        return Err(Refusal::Drop(DropReason::TranslateMalformed));
    };
    let data = data.get(..p.len as usize).unwrap_or(data);
    let chain = walk::chain(data).map_err(Refusal::Drop)?;
    let fragment = chain.fragment.filter(|f| f.offset != 0 || f.more);
    let l4 = data.get(chain.l4..).ok_or(Refusal::Drop(DropReason::TranslateMalformed))?;
    let payload = match fragment {
        Some(_) if chain.proto == protocol::ICMPV6 => return Err(Refusal::Drop(DropReason::TranslateFragment)),
        Some(f) if f.offset != 0 => match classify(true, chain.proto, &[0; 8]) {
            Err(why) => return Err(why),
            Ok(_) => Payload::Opaque,
        },
        _ => classify(true, chain.proto, l4)?,
    };
    let (sport, dport) = payload.ports();
    let old = Ends6 { src, dst, sport, dport, proto: common_proto(chain.proto) };
    if payload == Payload::Error {
        let quote = quote::parse_v6(l4)?;
        let (new, inner) = map.error_to_v4(&old, &quote.ends)?;
        return Ok((Plan { old, new, payload, quoted: Some(inner) }, chain));
    }
    Ok((Plan { old, new: map.to_v4(&old)?, payload, quoted: None }, chain))
}

/// Turns the IPv4 packet in `frame` into an IPv6 packet. On an error the frame may be spoilt.
pub(super) fn write_v6(frame: &mut Frame, p: &Packet, plan: &Plan6, how: Manner) -> Result<(), DropReason> {
    let malformed = DropReason::TranslateMalformed;
    let header = usize::from(p.l4);
    let h = frame.data().get(..20).ok_or(malformed)?;
    let (ttl, ident, field) = (h[8], be16(h, 4), be16(h, 6));
    let tclass = if how.ignore_tos { 0 } else { h[1] };
    if let Some(inner) = &plan.quoted {
        let mut out = [0u8; LONGEST];
        let icmp = frame.data().get(header..).ok_or(malformed)?;
        verify_icmp(icmp, None)?;
        let quote = quote::parse_v4(icmp).map_err(|_| malformed)?;
        let len = quote::error_v6(icmp, &quote, inner, &plan.new, &mut out)?;
        write_v6_header(&mut out, tclass, len as u16, 0, ttl, &plan.new);
        out[6] = protocol::ICMPV6;
        return replace(frame, &out[..40 + len]);
    }
    let fragment = (p.fragment != Fragment::None).then(|| FragmentHeader {
        offset: (field & 0x1fff) * 8,
        more: field & 0x2000 != 0,
        // RFC 7915 4.1: the low half; the high half is zero.
        ident: u32::from(ident),
    });
    let around = Surroundings {
        partial: frame.meta.csum.is_some(),
        whole: fragment.is_none(),
        quoted: false,
        udp_zero: how.udp_zero,
    };
    let l4 = frame.data_mut().get_mut(header..).ok_or(malformed)?;
    let l4_len = l4.len() as u32;
    match plan.payload {
        Payload::Query(_) => transport::echo_to_v6(l4, &plan.new, plan.new.sport, l4_len),
        Payload::Opaque if p.fragment == Fragment::Later => {}
        payload => transport::rewrite(l4, &plan.old, &plan.new, payload, true, around)?,
    }
    let next = if p.proto == protocol::ICMP { protocol::ICMPV6 } else { p.proto };
    let new_header = if fragment.is_some() { 48 } else { 40 };
    let payload_len = u16::try_from(l4_len as usize + new_header - 40).map_err(|_| malformed)?;
    frame.pull_front(header);
    let to = frame.push_front(new_header).ok_or(DropReason::NoHeadroom)?;
    write_v6_header(to, tclass, payload_len, 0, ttl, &plan.new);
    match fragment {
        Some(f) => {
            to[6] = protocol::FRAGMENT;
            write_fragment_header(&mut to[40..48], next, f);
        }
        None => to[6] = next,
    }
    if let Some(gso) = &mut frame.meta.gso
        && gso.kind == GsoKind::TcpV4
    {
        gso.kind = GsoKind::TcpV6;
    }
    Ok(())
}

/// Turns the IPv6 packet in `frame` into an IPv4 packet. `ident` is for one without fragment header.
pub(super) fn write_v4(
    frame: &mut Frame,
    p: &Packet,
    (plan, chain): &Plan4,
    how: Manner,
    ident: u16,
) -> Result<(), DropReason> {
    let malformed = DropReason::TranslateMalformed;
    let h = frame.data().get(..40).ok_or(malformed)?;
    let ttl = h[7];
    let tos = if how.ignore_tos { 0 } else { (h[0] << 4) | (h[1] >> 4) };
    let header = |len: u32, df, proto| {
        let total_len = u16::try_from(len).map_err(|_| malformed)?;
        let (src, dst) = (plan.new.src, plan.new.dst);
        Ok::<_, DropReason>(ipv4::Header { tos, total_len, ident, df, ttl, proto, src, dst })
    };
    if let Some(inner) = &plan.quoted {
        let mut out = [0u8; LONGEST];
        let icmp = frame.data().get(chain.l4..).ok_or(malformed)?;
        verify_icmp(icmp, Some(&plan.old))?;
        let quote = quote::parse_v6(icmp).map_err(|_| malformed)?;
        let len = quote::error_v4(icmp, &quote, inner, &mut out)?;
        header(20 + len as u32, len as u32 + 20 > NO_DF_UP_TO, protocol::ICMP)?.write(&mut out);
        return replace(frame, &out[..20 + len]);
    }
    let fragment = chain.fragment;
    let whole = fragment.is_none_or(|f| f.offset == 0 && !f.more);
    let around = Surroundings { partial: frame.meta.csum.is_some(), whole, quoted: false, udp_zero: how.udp_zero };
    let l4 = frame.data_mut().get_mut(chain.l4..).ok_or(malformed)?;
    let l4_len = l4.len() as u32;
    match plan.payload {
        Payload::Query(_) => transport::echo_to_v4(l4, &plan.old, plan.new.sport, l4_len),
        Payload::Opaque if fragment.is_some_and(|f| f.offset != 0) => {}
        payload => transport::rewrite(l4, &plan.old, &plan.new, payload, false, around)?,
    }
    // RFC 7915 5.1: by the length of the translated packet; of its segments, where it still has to be cut.
    let longest = p.wire_len.saturating_sub(chain.l4 as u32) + 20;
    let df = fragment.is_none() && longest > NO_DF_UP_TO && !frame.meta.joined;
    let mut new = header(20 + l4_len, df, plan.old.proto)?;
    if let Some(f) = fragment {
        new.ident = f.ident as u16;
    }
    frame.pull_front(chain.l4);
    let to = frame.push_front(20).ok_or(DropReason::NoHeadroom)?;
    new.write(to);
    if let Some(f) = fragment.filter(|_| !whole) {
        let field = (f.offset / 8) | if f.more { 0x2000 } else { 0 };
        to[6..8].copy_from_slice(&field.to_be_bytes());
        crate::checksum::fill_ipv4_header(to);
    }
    if let Some(gso) = &mut frame.meta.gso
        && gso.kind == GsoKind::TcpV6
    {
        gso.kind = GsoKind::TcpV4;
    }
    Ok(())
}

/// ICMP errors get a new checksum, which must not make a damaged message look whole.
fn verify_icmp(icmp: &[u8], v6: Option<&Ends6>) -> Result<(), DropReason> {
    let good = match v6 {
        None => crate::checksum::verify(icmp),
        Some(e) => {
            let pseudo = crate::checksum::pseudo_v6(e.src, e.dst, protocol::ICMPV6, icmp.len() as u32);
            crate::checksum::verify_with(pseudo, icmp)
        }
    };
    if good { Ok(()) } else { Err(DropReason::TranslateMalformed) }
}

/// Puts an ICMP error in the place of the packet that it was.
fn replace(frame: &mut Frame, bytes: &[u8]) -> Result<(), DropReason> {
    frame.meta.csum = None;
    frame.meta.gso = None;
    // It grows into the headroom: a frame may end where its packet ends.
    frame.pull_front(frame.len());
    let room = frame.push_front(bytes.len()).ok_or(DropReason::NoHeadroom)?;
    room.copy_from_slice(bytes);
    Ok(())
}

/// The ends of a whole IPv4 packet that has some.
pub(super) fn ends_v4(p: &Packet, data: &[u8]) -> Option<Ends4> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (p.src, p.dst) else { return None };
    let payload = classify(false, p.proto, p.transport(data)).ok().filter(|k| has_ends(*k))?;
    let (sport, dport) = payload.ports();
    Some(Ends4 { src, dst, sport, dport, proto: p.proto })
}

/// The ends of a whole IPv6 packet that has some.
pub(super) fn ends_v6(p: &Packet, data: &[u8]) -> Option<Ends6> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (p.src, p.dst) else { return None };
    let data = data.get(..p.len as usize)?;
    let chain = walk::chain(data).ok()?;
    let payload = classify(true, chain.proto, data.get(chain.l4..)?).ok().filter(|k| has_ends(*k))?;
    let (sport, dport) = payload.ports();
    Some(Ends6 { src, dst, sport, dport, proto: common_proto(chain.proto) })
}

fn has_ends(payload: Payload) -> bool {
    matches!(payload, Payload::Ports(..) | Payload::Query(_))
}
