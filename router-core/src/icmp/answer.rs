//! Which error a drop reason calls for: one table for both families.

use super::{IcmpError, Offender, UnreachableV4, UnreachableV6};
use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::headers::{ipv4_options, ipv6, protocol};

/// One family's answer to a drop reason.
enum Answer {
    Silent,
    /// Destination unreachable with this ICMPv4 code.
    V4(UnreachableV4),
    /// Destination unreachable with this ICMPv6 code.
    V6(UnreachableV6),
    TimeExceeded,
    TooBig,
    /// Parameter problem, code 0, at the byte that the caller found.
    Pointer,
    /// Parameter problem, code 0, at the segments left of a routing header.
    SegmentsLeft,
    /// Parameter problem, code 0, at the encapsulation limit.
    EncapLimit,
    /// What RFC 8200 4.2 says about the offending option.
    Option,
    /// Port unreachable for protocols with ports, else "no such protocol".
    NoService,
}

/// The answers in IPv4 and in IPv6. Reasons that are not listed are never answered.
fn row(reason: DropReason) -> (Answer, Answer) {
    use Answer::{NoService, Option, Pointer, Silent, TimeExceeded, TooBig, V4, V6};
    use DropReason as R;
    use UnreachableV4 as U4;
    use UnreachableV6 as U6;
    match reason {
        // RFC 1812 5.3.1, RFC 4443 3.3.
        R::TtlExpired => (TimeExceeded, TimeExceeded),
        // RFC 1191 3, RFC 8201 3.
        R::TooBig => (TooBig, TooBig),
        // RFC 1812 5.2.7.1 code 0, RFC 4443 3.1 code 0. A route whose next hops are all down is no route for now.
        R::NoRoute | R::NextHopUnusable => (V4(U4::Net), V6(U6::NoRoute)),
        // As Linux does: ip_error() maps EHOSTUNREACH to host unreachable, ip6_pkt_discard() says no route.
        R::Unreachable => (V4(U4::Host), V6(U6::NoRoute)),
        // As Linux does: ICMP_PKT_FILTERED and ICMPV6_ADM_PROHIBITED (RFC 1812 5.2.7.1 code 13, RFC 4443 3.1 code 1).
        R::Prohibited => (V4(U4::Prohibited), V6(U6::Prohibited)),
        // RFC 1812 5.2.7.1 code 1; RFC 4861 7.2.2 and RFC 4443 3.1 code 3.
        R::NeighborFailed => (V4(U4::Host), V6(U6::Address)),
        // RFC 4443 3.1 code 2. IPv4 has no such message.
        R::LinkLocalScope => (Silent, V6(U6::BeyondScope)),
        // RFC 1812 4.3.3.5 and 5.3.13.4.
        R::Ipv4Options => (Pointer, Silent),
        R::Ipv4SourceRoute => (V4(U4::SourceRouteFailed), Silent),
        // RFC 8200 4.2; RFC 4443 3.4 code 0; RFC 5095 3.
        R::Ipv6HopByHop => (Silent, Option),
        R::Ipv6Extension | R::Ipv6RoutingHeader => (Silent, Pointer),
        // RFC 7915 5.1: source not translatable; nothing is said to an IPv4 source that can never be one (4.1).
        R::TranslateSource => (Silent, V6(U6::SourcePolicy)),
        // RFC 7757 3.4, RFC 6146 3.5.1.1: no address, no session to be had.
        R::TranslateDestination => (V4(U4::Host), V6(U6::Address)),
        R::TranslateTableFull | R::TranslatePoolEmpty => (Silent, V6(U6::Address)),
        // RFC 4443 3.1 code 3: it would go back to where it came from, or there is no peer for it.
        R::TunnelReflection | R::TunnelNoPeer => (V4(U4::Host), V6(U6::Address)),
        R::TunnelFamily => (V4(U4::Net), V6(U6::NoRoute)),
        // RFC 2473 4.1.1.
        R::TunnelLimit => (Silent, Answer::EncapLimit),
        // RFC 7915 5.1.
        R::TranslateRouting => (Silent, Answer::SegmentsLeft),
        // RFC 1122 3.2.2.1 codes 2 and 3; RFC 4443 3.1 code 4 and 3.4 code 1.
        R::NoLocalService => (NoService, NoService),
        _ => (Silent, Silent),
    }
}

/// The error that answers `offender` when it is dropped for `reason`, or None when the reason calls for none or the
/// packet must not be answered.
///
/// `param` is the MTU for [`DropReason::TooBig`], the offset of the bad byte for malformed options and headers, and
/// ignored otherwise. When the offset is 0, what the parse of this crate objects to is found in the packet itself.
pub fn error_for(reason: DropReason, param: u32, offender: &Offender<'_>) -> Option<IcmpError> {
    error_wanted(reason, param, offender).filter(|error| offender.may_be_answered_with(error))
}

/// The error that a drop reason calls for, whether the packet may be answered or not.
pub fn error_wanted(reason: DropReason, param: u32, offender: &Offender<'_>) -> Option<IcmpError> {
    let (v4, v6) = row(reason);
    let family = offender.family;
    match if family == Family::Inet { v4 } else { v6 } {
        Answer::Silent => None,
        Answer::V4(code) => Some(IcmpError::unreachable_v4(code)),
        Answer::V6(code) => Some(IcmpError::unreachable_v6(code)),
        Answer::TimeExceeded => Some(IcmpError::time_exceeded(family)),
        Answer::TooBig => Some(IcmpError::too_big(family, param)),
        Answer::Pointer => Some(match family {
            Family::Inet => IcmpError::parameter_problem_v4(match u8::try_from(param) {
                Ok(0) | Err(_) => bad_option(offender.bytes),
                Ok(at) => at,
            }),
            // What the parse refuses unprompted is the length of hop-by-hop options, or of one of them.
            Family::Inet6 => IcmpError::parameter_problem_v6(0, if param == 0 { 41 } else { param }),
        }),
        Answer::Option => match ipv6::offending_option(offender.bytes) {
            // RFC 4443 2.4 e.3 and e.4 make an exception for the action 10 only.
            Some((at, true))
                if !(offender.link_group && offender.bytes.get(at as usize).is_some_and(|o| o >> 6 == 3)) =>
            {
                Some(IcmpError::parameter_problem_v6(2, at))
            }
            _ => None,
        },
        Answer::EncapLimit => {
            crate::tunnel::limit::find(offender.bytes).map(|(_, at)| IcmpError::parameter_problem_v6(0, at as u32))
        }
        Answer::SegmentsLeft => {
            crate::translate::segments_left_pointer(offender.bytes).map(|at| IcmpError::parameter_problem_v6(0, at))
        }
        Answer::NoService => no_service(offender),
    }
}

/// The byte of an IPv4 header that the check of options objects to.
fn bad_option(packet: &[u8]) -> u8 {
    let end = packet.first().map_or(20, |b| usize::from(b & 15) * 4).min(packet.len());
    ipv4_options::check(&packet[..end]).err().map_or(20, |bad| bad.pointer)
}

fn no_service(offender: &Offender<'_>) -> Option<IcmpError> {
    // Transports that the router speaks; all others are protocols that it does not know.
    let has_ports = matches!(offender.proto, protocol::TCP | protocol::UDP);
    match (offender.family, offender.proto) {
        (Family::Inet, protocol::ICMP) | (Family::Inet6, protocol::ICMPV6 | protocol::NO_NEXT) => None,
        (Family::Inet, _) if has_ports => Some(IcmpError::unreachable_v4(UnreachableV4::Port)),
        (Family::Inet, _) => Some(IcmpError::unreachable_v4(UnreachableV4::Protocol)),
        (Family::Inet6, _) if has_ports => Some(IcmpError::unreachable_v6(UnreachableV6::Port)),
        (Family::Inet6, _) => Some(IcmpError::parameter_problem_v6(1, offender.next_header_pointer())),
    }
}
