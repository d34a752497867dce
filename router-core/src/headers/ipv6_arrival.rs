//! What only the destination of an IPv6 packet looks at (RFC 8200 4): destination options, routing headers, a header
//! chain that ends too soon. Routers on the way leave all of it alone.

use crate::drop_reason::DropReason;
use crate::headers::ipv6::HEADER;
use crate::headers::{be16, protocol};

/// Extension headers that a packet for us may have (RFC 8504 5.3 lets a node set a limit).
const MAX_EXTENSIONS: usize = 16;

/// Why a packet for us is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it counts as.
    pub reason: DropReason,
    /// Code and pointer of the ICMPv6 parameter problem that answers it, if any.
    pub answer: Option<(u8, u32)>,
}

fn refuse(reason: DropReason, code: u8, pointer: usize) -> Refusal {
    Refusal { reason, answer: Some((code, pointer as u32)) }
}

/// Checks the extension headers of a packet that has arrived at one of our addresses, in the order in which they stand
/// (RFC 8200 4.1). `data` starts at the IPv6 header, whose length field has been checked; hop-by-hop options have been
/// looked at by the parse.
pub fn check(data: &[u8]) -> Result<(), Refusal> {
    let silent = Refusal { reason: DropReason::Ipv6Extension, answer: None };
    let end = data.len().min(HEADER + usize::from(be16(data, 4)));
    let data = &data[..end];
    let (mut proto, mut at) = (*data.get(6).ok_or(silent)?, HEADER);
    // A first fragment must hold the whole chain (RFC 8200 4.5, RFC 7112 5): code 3, pointing nowhere in particular.
    // Any other packet that ends within a header is told where that is (RFC 4443 3.4): at the field that says how long
    // the header is, or at the header itself when it has none, or not even that is left.
    let mut first_fragment = false;
    for n in 0..MAX_EXTENSIONS {
        let cut = |pointer| match first_fragment {
            true => refuse(DropReason::Ipv6Extension, 3, 0),
            false => refuse(DropReason::Ipv6Extension, 0, pointer),
        };
        // Understood as far as hashing flows goes, but not as their destination (RFC 8200 4: unrecognized), cut or not.
        // Hop-by-hop options only ever stand right behind the fixed header (RFC 8200 4.1); elsewhere they are that, too.
        let strange = matches!(proto, protocol::AH | protocol::MOBILITY | protocol::HIP | protocol::SHIM6);
        if !first_fragment && (strange || proto == protocol::HOP_BY_HOP && n > 0) {
            return Err(refuse(DropReason::Ipv6Extension, 1, named_at(data, at)));
        }
        let size = match (proto, data.get(at + 1)) {
            (
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DEST_OPTIONS
                | protocol::MOBILITY
                | protocol::HIP
                | protocol::SHIM6,
                Some(len),
            ) => (usize::from(*len) + 1) * 8,
            (protocol::AH, Some(len)) => (usize::from(*len) + 2) * 4,
            (protocol::FRAGMENT, _) => 8,
            (protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DEST_OPTIONS | protocol::AH, None) => {
                return Err(cut(at));
            }
            (protocol::NO_NEXT, _) => return Ok(()),
            _ if first_fragment && data.len() < at + least(proto) => return Err(cut(at)),
            _ => return Ok(()),
        };
        let says = if proto == protocol::FRAGMENT { at } else { at + 1 };
        let header = data.get(at..at + size).ok_or_else(|| cut(says))?;
        match proto {
            // What lies behind the fragment header of a first fragment is looked at once the packet is whole.
            _ if first_fragment => {}
            protocol::DEST_OPTIONS => options(header, at, data[24] == 0xff)?,
            // RFC 5095 3 for type 0, RFC 8200 4.4 for all we do not know: harmless when it has been used up.
            protocol::ROUTING if header[3] != 0 => return Err(refuse(DropReason::Ipv6RoutingHeader, 0, at + 2)),
            protocol::FRAGMENT => {
                let field = be16(header, 2);
                if field & 0xfff8 != 0 {
                    return Ok(());
                }
                first_fragment = field & 1 != 0;
            }
            _ => {}
        }
        (proto, at) = (header[0], at + size);
    }
    Err(silent)
}

/// Bytes of an upper-layer header that a first fragment must have.
fn least(proto: u8) -> usize {
    match proto {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 | protocol::UDPLITE => 8,
        protocol::SCTP => 12,
        _ => 1,
    }
}

/// Where the field lies that names the header at `at`.
fn named_at(data: &[u8], at: usize) -> usize {
    let (mut proto, mut here, mut named) = (data[6], HEADER, 6);
    while here < at {
        let len = data.get(here + 1).map_or(0, |l| usize::from(*l));
        let size = match proto {
            protocol::AH => (len + 2) * 4,
            protocol::FRAGMENT => 8,
            _ => (len + 1) * 8,
        };
        (proto, named, here) = (data.get(here).copied().unwrap_or(protocol::NO_NEXT), here, here + size);
    }
    named
}

/// The options of a destination options header that starts at `start`: RFC 8200 4.2. None is known here but padding and
/// the tunnel encapsulation limit (RFC 2473 4.1.1).
fn options(header: &[u8], start: usize, multicast: bool) -> Result<(), Refusal> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    const ENCAP_LIMIT: u8 = 4;
    let mut at = 2;
    while at < header.len() {
        if header[at] == PAD1 {
            at += 1;
            continue;
        }
        // The length is wrong, or not there any more: then the option itself is pointed at.
        let bad = |at| refuse(DropReason::Ipv6Extension, 0, start + at);
        let len = usize::from(*header.get(at + 1).ok_or(bad(at))?);
        if at + 2 + len > header.len() {
            return Err(bad(at + 1));
        }
        match header[at] {
            PADN | ENCAP_LIMIT => {}
            kind => match kind >> 6 {
                0 => {}
                1 => return Err(Refusal { reason: DropReason::Ipv6Extension, answer: None }),
                3 if multicast => return Err(Refusal { reason: DropReason::Ipv6Extension, answer: None }),
                _ => return Err(refuse(DropReason::Ipv6Extension, 2, start + at)),
            },
        }
        at += 2 + len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::ipv6::tests::packet;

    /// Also proves rfc7112-5-pointer, rfc8504-5.2-headers.
    #[test]
    fn what_a_destination_refuses() {
        use DropReason::{Ipv6Extension, Ipv6RoutingHeader};
        let no = |reason, code, pointer| Err(Refusal { reason, answer: Some((code, pointer)) });
        let silent = Err(Refusal { reason: Ipv6Extension, answer: None });
        type Row<'a> = (&'a str, u8, &'a [u8], Result<(), Refusal>);
        let rows: &[Row<'_>] = &[
            ("rfc8200-4.1-order", 17, &[0; 8], Ok(())),
            (
                "rfc8200-4.1-order",
                60,
                &[43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0],
                Ok(()),
            ),
            (
                "rfc8200-4.1-hop-by-hop",
                60,
                &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0],
                no(Ipv6Extension, 1, 40),
            ),
            (
                "rfc8200-4.1-hop-by-hop",
                60,
                &[0, 0, 1, 4, 0, 0, 0, 0, 17, 9, 1, 4, 0, 0, 0, 0],
                no(Ipv6Extension, 1, 40),
            ),
            ("rfc8200-4-next-header", 51, &[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], no(Ipv6Extension, 1, 6)),
            ("rfc8200-4-next-header", 51, &[17, 9, 0, 0, 0, 0, 0, 0], no(Ipv6Extension, 1, 6)),
            ("rfc8200-4-next-header", 51, &[], no(Ipv6Extension, 1, 6)),
            ("rfc8200-4-next-header", 44, &[51, 0, 0, 0, 0, 0, 0, 1], no(Ipv6Extension, 1, 40)),
            ("rfc7112-5", 44, &[51, 0, 0, 1, 0, 0, 0, 1], no(Ipv6Extension, 3, 0)),
            ("rfc8200-4.2-11", 60, &[17, 0, 0xde, 4, 0, 0, 0, 0], no(Ipv6Extension, 2, 42)),
            (
                "rfc8200-4-next-header",
                44,
                &[135, 0, 0, 0, 0, 0, 0, 1, 59, 0, 0, 0, 0, 0, 0, 0],
                no(Ipv6Extension, 1, 40),
            ),
            ("rfc5095-3", 43, &[17, 0, 0, 1, 0, 0, 0, 0], no(Ipv6RoutingHeader, 0, 42)),
            ("rfc5095-3", 43, &[17, 0, 0, 0, 0, 0, 0, 0], Ok(())),
            ("rfc8200-4.4-unrecognized", 43, &[17, 0, 253, 2, 0, 0, 0, 0], no(Ipv6RoutingHeader, 0, 42)),
            ("rfc8200-4.4-unrecognized", 43, &[17, 0, 253, 0, 0, 0, 0, 0], Ok(())),
            ("rfc8200-4.2-00", 60, &[17, 0, 0x1e, 4, 0, 0, 0, 0], Ok(())),
            ("rfc8200-4.2-01", 60, &[17, 0, 0x5e, 4, 0, 0, 0, 0], silent),
            ("rfc8200-4.2-10", 60, &[17, 0, 0x9e, 4, 0, 0, 0, 0], no(Ipv6Extension, 2, 42)),
            ("rfc8200-4.2-11", 60, &[17, 0, 0, 0xde, 3, 0, 0, 0], no(Ipv6Extension, 2, 43)),
            ("rfc4443-3.4-code-0", 60, &[17, 0, 0x1e, 5, 0, 0, 0, 0], no(Ipv6Extension, 0, 43)),
            ("rfc4443-3.4-code-0", 60, &[17, 0, 0, 0, 0, 0, 0, 5], no(Ipv6Extension, 0, 47)),
            ("rfc7112-5", 44, &[17, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4], no(Ipv6Extension, 3, 0)),
            ("rfc7112-5", 44, &[60, 0, 0, 1, 0, 0, 0, 1, 17, 1, 0, 0, 0, 0, 0, 0], no(Ipv6Extension, 3, 0)),
            ("rfc7112-5", 44, &[17, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8], Ok(())),
            ("rfc8200-4.5-whole", 44, &[60, 0, 0, 1, 0, 0, 0, 1, 59, 0, 0x5e, 4, 0, 0, 0, 0], Ok(())),
            ("rfc8200-4.5-later", 44, &[60, 0, 0, 9, 0, 0, 0, 1, 17, 9, 0, 0], Ok(())),
            ("rfc6946-4-atomic", 44, &[17, 0, 0, 0, 0, 0, 0, 1], Ok(())),
            (
                "rfc8200-4.2-order",
                60,
                &[17, 1, 0x9e, 4, 0, 0, 0, 0, 0x5e, 4, 0, 0, 0, 0, 0, 0],
                no(Ipv6Extension, 2, 42),
            ),
            ("rfc8200-4.2-order", 60, &[17, 1, 0x5e, 4, 0, 0, 0, 0, 0x9e, 4, 0, 0, 0, 0, 0, 0], silent),
            ("rfc8200-4.2-padding", 60, &[17, 0, 0, 0, 0, 1, 1, 0], Ok(())),
            ("rfc8200-4-strict", 60, &[43, 0, 0x5e, 4, 0, 0, 0, 0, 17, 0, 99, 1, 0, 0, 0, 0], silent),
            (
                "rfc8200-4-strict",
                60,
                &[43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 99, 1, 0, 0, 0, 0, 17, 0, 0x5e, 4, 0, 0, 0, 0],
                no(Ipv6RoutingHeader, 0, 50),
            ),
            ("rfc8200-4.7", 59, &[1, 2, 3], Ok(())),
            ("rfc8200-4-cut", 60, &[17, 9, 0, 0, 0, 0, 0, 0], no(Ipv6Extension, 0, 41)),
            ("rfc8200-4-cut", 60, &[17], no(Ipv6Extension, 0, 40)),
            ("rfc8200-4-cut", 60, &[], no(Ipv6Extension, 0, 40)),
            ("rfc8200-4-cut", 43, &[17, 1, 0, 0, 0, 0, 0, 0], no(Ipv6Extension, 0, 41)),
            ("rfc8200-4-cut", 60, &[43, 0, 1, 4, 0, 0, 0, 0, 17, 1, 0, 0], no(Ipv6Extension, 0, 49)),
            ("rfc8200-4-cut", 60, &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0], no(Ipv6Extension, 0, 48)),
            ("rfc8200-4-cut", 44, &[17, 0, 0, 1, 0, 0, 0], no(Ipv6Extension, 0, 40)),
            ("rfc8200-4-cut", 44, &[17, 0, 0, 9], no(Ipv6Extension, 0, 40)),
            ("rfc8200-4-cut", 44, &[], no(Ipv6Extension, 0, 40)),
        ];
        for (id, next, rest, want) in rows {
            assert_eq!(check(&packet(*next, rest)), *want, "{id} {rest:?}");
        }
        // To a group: 10 is told, 11 is not.
        for (kind, want) in [(0x9e, no(Ipv6Extension, 2, 42)), (0xde, silent), (0x5e, silent), (0x1e, Ok(()))] {
            let mut p = packet(60, &[17, 0, kind, 4, 0, 0, 0, 0]);
            p[24] = 0xff;
            assert_eq!(check(&p), want, "rfc8200-4.2-group {kind:#x}");
        }
        let long = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert_eq!(check(&packet(60, &long)), silent, "rfc8504-5.3-limit");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(
            next in proptest::sample::select(vec![0u8, 43, 44, 51, 60, 59, 6, 17, 135]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..90), cut in 0usize..140,
        ) {
            let mut v = packet(next, &rest);
            v.truncate(cut);
            let _ = check(&v);
        }
    }
}
