//! ICMP types, codes, pointers and MTUs in the other family (RFC 7915 4.2 and 5.2).

use crate::drop_reason::DropReason;

/// The difference between the headers of both families, in bytes.
pub(super) const HEADER_DIFFERENCE: u32 = 20;

/// Head of a translated ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: u8,
    pub code: u8,
    /// The four bytes behind the checksum, without an RFC 4884 length.
    pub word: u32,
    /// Whether this type may carry extensions (RFC 4884 4).
    pub extensible: bool,
}

/// What to know of the packet that an error quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    /// IPv4: its total length; IPv6: does not matter.
    pub total_len: u32,
    /// It is a fragment: its IPv6 form has a fragment header.
    pub fragment: bool,
}

/// Figure 3 of RFC 7915: where an ICMPv4 parameter problem points to in the IPv6 header.
fn pointer_to_v6(p: u8) -> Option<u32> {
    Some(match p {
        0 => 0,
        1 => 1,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// Figure 6 of RFC 7915: where an ICMPv6 parameter problem points to in the IPv4 header.
fn pointer_to_v4(p: u32) -> Option<u8> {
    Some(match p {
        0 => 0,
        1 => 1,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

/// The head of an ICMPv4 error in ICMPv6 (RFC 7915 4.2). `word` is the four bytes behind its checksum.
pub(super) fn error_to_v6(kind: u8, code: u8, word: u32, quoted: Quoted) -> Result<Head, DropReason> {
    let none = Err(DropReason::TranslateIcmp);
    let head = |kind, code, word, extensible| Ok(Head { kind, code, word, extensible });
    match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => head(1, 0, 0, true),
        // No such protocol: next header unknown, pointing to the field that names it.
        (3, 2) => head(4, 1, 6, false),
        (3, 3) => head(1, 4, 0, true),
        (3, 4) => {
            let told = match word & 0xffff {
                0 => plateau_below(quoted.total_len),
                mtu => mtu,
            };
            let more = HEADER_DIFFERENCE + if quoted.fragment { 8 } else { 0 };
            head(2, 0, (told + more).max(1280), false)
        }
        (3, 9 | 10 | 13 | 15) => head(1, 1, 0, true),
        (11, 0 | 1) => head(3, code, 0, true),
        (12, 0 | 2) => match pointer_to_v6((word >> 24) as u8) {
            Some(p) => head(4, 0, p, false),
            None => none,
        },
        _ => none,
    }
}

/// The head of an ICMPv6 error in ICMPv4 (RFC 7915 5.2).
pub(super) fn error_to_v4(kind: u8, code: u8, word: u32, quoted: Quoted) -> Result<Head, DropReason> {
    let none = Err(DropReason::TranslateIcmp);
    let head = |kind, code, word| Ok(Head { kind, code, word, extensible: !(kind == 3 && code == 4) });
    match (kind, code) {
        (1, 0 | 2 | 3) => head(3, 1, 0),
        (1, 1) => head(3, 10, 0),
        (1, 4) => head(3, 3, 0),
        (2, _) => {
            let less = HEADER_DIFFERENCE + if quoted.fragment { 8 } else { 0 };
            // RFC 791 3.2: no IPv4 link carries less than 68 bytes.
            head(3, 4, word.saturating_sub(less).clamp(68, 0xffff))
        }
        (3, 0 | 1) => head(11, code, 0),
        (4, 0) => match pointer_to_v4(word) {
            Some(p) => head(12, 0, u32::from(p) << 24),
            None => none,
        },
        (4, 1) => head(3, 2, 0),
        _ => none,
    }
}

/// The plateau table of RFC 1191 7.1, for routers that do not tell the MTU.
fn plateau_below(sent: u32) -> u32 {
    const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|p| *p < sent).unwrap_or(68)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTED: Quoted = Quoted { total_len: 1500, fragment: false };

    #[test]
    fn rfc7915_4_2_icmpv4_errors() {
        let rows = [
            // kind, code, word, expected kind, code, word
            (3, 0, 0, Some((1, 0, 0))),
            (3, 1, 0, Some((1, 0, 0))),
            (3, 2, 0, Some((4, 1, 6))),
            (3, 3, 0, Some((1, 4, 0))),
            (3, 4, 1400, Some((2, 0, 1420))),
            (3, 4, 576, Some((2, 0, 1280))),
            (3, 4, 0, Some((2, 0, 1512))),
            (3, 5, 0, Some((1, 0, 0))),
            (3, 6, 0, Some((1, 0, 0))),
            (3, 7, 0, Some((1, 0, 0))),
            (3, 8, 0, Some((1, 0, 0))),
            (3, 9, 0, Some((1, 1, 0))),
            (3, 10, 0, Some((1, 1, 0))),
            (3, 11, 0, Some((1, 0, 0))),
            (3, 12, 0, Some((1, 0, 0))),
            (3, 13, 0, Some((1, 1, 0))),
            (3, 14, 0, None),
            (3, 15, 0, Some((1, 1, 0))),
            (3, 16, 0, None),
            (4, 0, 0, None),
            (5, 0, 0, None),
            (11, 0, 0, Some((3, 0, 0))),
            (11, 1, 0, Some((3, 1, 0))),
            (12, 0, 9 << 24, Some((4, 0, 6))),
            (12, 2, 16 << 24, Some((4, 0, 24))),
            (12, 0, 10 << 24, None),
            (12, 1, 0, None),
        ];
        for (kind, code, word, want) in rows {
            let got = error_to_v6(kind, code, word, QUOTED).map(|h| (h.kind, h.code, h.word));
            assert_eq!(got.ok(), want, "type {kind} code {code}");
        }
    }

    #[test]
    fn rfc7915_5_2_icmpv6_errors() {
        let rows = [
            (1, 0, 0, Some((3, 1, 0))),
            (1, 1, 0, Some((3, 10, 0))),
            (1, 2, 0, Some((3, 1, 0))),
            (1, 3, 0, Some((3, 1, 0))),
            (1, 4, 0, Some((3, 3, 0))),
            (1, 5, 0, None),
            (2, 0, 1280, Some((3, 4, 1260))),
            (2, 0, 100_000, Some((3, 4, 65_535))),
            (3, 0, 0, Some((11, 0, 0))),
            (3, 1, 0, Some((11, 1, 0))),
            (4, 0, 7, Some((12, 0, 8 << 24))),
            (4, 0, 41, None),
            (4, 0, 2, None),
            (4, 1, 6, Some((3, 2, 0))),
            (4, 2, 48, None),
            (100, 0, 0, None),
        ];
        for (kind, code, word, want) in rows {
            let got = error_to_v4(kind, code, word, QUOTED).map(|h| (h.kind, h.code, h.word));
            assert_eq!(got.ok(), want, "type {kind} code {code}");
        }
    }

    #[test]
    fn rfc7915_figures_3_and_6() {
        let to_v6: Vec<_> = (0..20).map(|p| pointer_to_v6(p).map_or(-1, |p| p as i64)).collect();
        assert_eq!(to_v6, [0, 1, 4, 4, -1, -1, -1, -1, 7, 6, -1, -1, 8, 8, 8, 8, 24, 24, 24, 24]);
        let to_v4: Vec<_> = (0..41).map(|p| pointer_to_v4(p).map_or(-1, i64::from)).collect();
        let mut want = vec![0, 1, -1, -1, 2, 2, 9, 8];
        want.extend([12; 16]);
        want.extend([16; 16]);
        want.push(-1);
        assert_eq!(to_v4, want);
    }
}
