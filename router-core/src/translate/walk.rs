//! IPv6 header chains as a translator must read them (RFC 7915 5.1): which headers go, which make a packet untranslatable.

use crate::drop_reason::DropReason;
use crate::headers::{be16, protocol};

/// Extension headers looked at per packet.
const MAX_HEADERS: usize = 16;

/// A fragment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FragmentHeader {
    /// In bytes.
    pub offset: u16,
    pub more: bool,
    pub ident: u32,
}

/// What a header chain leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The protocol behind the chain.
    pub proto: u8,
    /// Where it starts.
    pub l4: usize,
    pub fragment: Option<FragmentHeader>,
}

/// Walks the chain of the IPv6 packet in `data` (its fixed header is whole; the packet may be cut, as in a quote).
///
/// Hop-by-hop options, destination options and a routing header without segments left are passed over; a routing header
/// with segments left and anything but a transport header behind a fragment header make the packet untranslatable.
pub(super) fn chain(data: &[u8]) -> Result<Chain, DropReason> {
    let mut c = Chain { proto: data.get(6).copied().unwrap_or(protocol::NO_NEXT), l4: 40, fragment: None };
    for _ in 0..MAX_HEADERS {
        match c.proto {
            protocol::HOP_BY_HOP | protocol::DEST_OPTIONS | protocol::ROUTING => {
                // RFC 7915 5.1.1: an extension header behind the fragment header.
                if c.fragment.is_some_and(|f| f.offset != 0 || f.more) {
                    return Err(DropReason::TranslateExtension);
                }
                let Some(h) = data.get(c.l4..c.l4 + 8) else { return Err(DropReason::TranslateMalformed) };
                if c.proto == protocol::ROUTING && h[3] != 0 {
                    return Err(DropReason::TranslateRouting);
                }
                c.proto = h[0];
                c.l4 += (usize::from(h[1]) + 1) * 8;
            }
            protocol::FRAGMENT => {
                let Some(h) = data.get(c.l4..c.l4 + 8).filter(|_| c.fragment.is_none()) else {
                    return Err(DropReason::TranslateMalformed);
                };
                let field = be16(h, 2);
                let ident = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
                c.fragment = Some(FragmentHeader { offset: field & 0xfff8, more: field & 1 != 0, ident });
                c.proto = h[0];
                c.l4 += 8;
                if field & 0xfff8 != 0 {
                    // What follows is the middle of something.
                    return match c.proto {
                        protocol::HOP_BY_HOP
                        | protocol::DEST_OPTIONS
                        | protocol::ROUTING
                        | protocol::FRAGMENT
                        | protocol::AH => Err(DropReason::TranslateExtension),
                        _ => Ok(c),
                    };
                }
            }
            protocol::AH if c.fragment.is_some_and(|f| f.more) => return Err(DropReason::TranslateExtension),
            _ => return Ok(c),
        }
    }
    Err(DropReason::TranslateExtension)
}

/// Where the "segments left" field lies that made [`chain`] say [`DropReason::TranslateRouting`]: the parameter problem
/// of RFC 7915 5.1 points there.
pub fn segments_left_pointer(data: &[u8]) -> Option<u32> {
    let (mut proto, mut at) = (*data.get(6)?, 40);
    for _ in 0..MAX_HEADERS {
        match proto {
            protocol::ROUTING if *data.get(at + 3)? != 0 => return Some(at as u32 + 3),
            protocol::HOP_BY_HOP | protocol::DEST_OPTIONS | protocol::ROUTING => {
                (proto, at) = (*data.get(at)?, at + (usize::from(*data.get(at + 1)?) + 1) * 8);
            }
            protocol::FRAGMENT => (proto, at) = (*data.get(at)?, at + 8),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut v = vec![0u8; 40];
        v[0] = 0x60;
        v[6] = next;
        v.extend(rest);
        v
    }

    /// Proves rfc7915-5.1-extensions.
    #[test]
    fn rfc7915_5_1_extension_headers() {
        use DropReason as R;
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let routing = |next, left| [next, 0, 4, left, 0, 0, 0, 0];
        let fragment = |next, field: u16| [next, 0, (field >> 8) as u8, field as u8, 0, 0, 0, 9];
        let two = |a: [u8; 8], b: [u8; 8]| [a, b].concat();
        type Row = (&'static str, u8, Vec<u8>, Result<(u8, usize), R>);
        let rows: Vec<Row> = vec![
            ("none", 17, vec![], Ok((17, 40))),
            ("hop-by-hop", 0, options(6).to_vec(), Ok((6, 48))),
            ("destination options twice", 60, two(options(60), options(6)), Ok((6, 56))),
            ("routing, used up", 43, routing(17, 0).to_vec(), Ok((17, 48))),
            ("routing, segments left", 43, routing(17, 1).to_vec(), Err(R::TranslateRouting)),
            ("atomic fragment", 44, fragment(17, 0).to_vec(), Ok((17, 48))),
            ("first fragment", 44, fragment(17, 1).to_vec(), Ok((17, 48))),
            ("later fragment", 44, fragment(17, 16).to_vec(), Ok((17, 48))),
            ("options in a later fragment", 44, fragment(60, 16).to_vec(), Err(R::TranslateExtension)),
            ("options in a first fragment", 44, two(fragment(60, 1), options(17)), Err(R::TranslateExtension)),
            ("AH in a fragment", 44, two(fragment(51, 1), options(17)), Err(R::TranslateExtension)),
            ("ESP in a fragment", 44, fragment(50, 1).to_vec(), Ok((50, 48))),
            ("fragment twice", 44, two(fragment(44, 0), fragment(17, 0)), Err(R::TranslateMalformed)),
            ("cut", 0, vec![17, 0, 0], Err(R::TranslateMalformed)),
            ("ESP", 50, vec![], Ok((50, 40))),
        ];
        for (what, next, rest, want) in rows {
            assert_eq!(chain(&packet(next, &rest)).map(|c| (c.proto, c.l4)), want, "{what}");
        }
        assert_eq!(segments_left_pointer(&packet(0, &two(options(43), routing(6, 3)))), Some(51));
        assert_eq!(segments_left_pointer(&packet(43, &routing(6, 0))), None);
    }
}
