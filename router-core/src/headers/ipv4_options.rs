//! IPv4 options (RFC 791 3.1, RFC 1812 4.2.2.1 and 5.3.13): the checks every router owes its next hop, and what it writes
//! into those that ask for it.

use crate::checksum::fill_ipv4_header;
use crate::drop_reason::DropReason;
use crate::headers::ipv4::MIN_HEADER;
use crate::headers::source_route;
use arrayvec::ArrayVec;
use std::net::Ipv4Addr;

const END: u8 = 0;
const NOP: u8 = 1;
/// Record route.
pub const RECORD_ROUTE: u8 = 7;
/// Internet timestamp.
pub const TIMESTAMP: u8 = 68;
/// Loose source and record route.
pub const LSRR: u8 = 131;
/// Strict source and record route.
pub const SSRR: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// What is wrong with options, and at which byte of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// [`DropReason::Ipv4Options`].
    pub reason: DropReason,
    /// For the pointer of a parameter problem (RFC 792).
    pub pointer: u8,
}

/// One option: where it starts in the header, and its bytes.
struct Options<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(usize, &'a [u8]), Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.at;
            match *self.header.get(at)? {
                END => return None,
                NOP => self.at += 1,
                _ => {
                    let len = self.header.get(at + 1).map_or(0, |l| usize::from(*l));
                    let Some(option) = self.header.get(at..at + len).filter(|_| len >= 2) else {
                        self.at = self.header.len();
                        return Some(Err(malformed(at + 1)));
                    };
                    self.at += len;
                    return Some(Ok((at, option)));
                }
            }
        }
    }
}

fn malformed(at: usize) -> Bad {
    Bad { reason: DropReason::Ipv4Options, pointer: at as u8 }
}

/// The types of a header's options, padding left out, as far as they are well-formed.
pub fn types(header: &[u8]) -> impl Iterator<Item = u8> {
    Options { header, at: MIN_HEADER }.flatten().map(|(_, o)| o[0])
}

/// The first option whose type is asked for: where it starts, and its bytes, two at least.
pub fn find(header: &[u8], wanted: impl Fn(u8) -> bool) -> Option<(usize, &[u8])> {
    Options { header, at: MIN_HEADER }.flatten().find(|(_, o)| wanted(o[0]))
}

/// Walks the options of a whole header. A malformed option is refused, and a second record route, timestamp or source route,
/// too; unknown options pass unchanged (RFC 1812 4.2.2.1). Says whether a router alert (RFC 2113) is among them. What the
/// operator refuses is not looked at here: [`super::option_policy`].
pub fn check(header: &[u8]) -> Result<bool, Bad> {
    let (mut alert, mut recorded, mut stamped, mut routed) = (false, false, false, false);
    for option in (Options { header, at: MIN_HEADER }) {
        let (at, o) = option?;
        match o[0] {
            // RFC 1812 5.2.4.1: at most one, of either kind.
            LSRR | SSRR => {
                if o.len() < 3 {
                    return Err(malformed(at + 1));
                }
                if o[2] < 4 {
                    return Err(malformed(at + 2));
                }
                if std::mem::replace(&mut routed, true) {
                    return Err(malformed(at));
                }
            }
            // RFC 2113 2.1: a value of two bytes.
            ROUTER_ALERT if o.len() < 4 => return Err(malformed(at + 1)),
            ROUTER_ALERT => alert = true,
            RECORD_ROUTE => {
                if std::mem::replace(&mut recorded, true) {
                    return Err(malformed(at));
                }
                let pointer = usize::from(*o.get(2).ok_or(malformed(at + 1))?);
                // Room for a part of an address is an error, none at all is not (RFC 791).
                if pointer < 4 || (pointer <= o.len() && pointer + 3 > o.len()) {
                    return Err(malformed(at + 2));
                }
            }
            TIMESTAMP => {
                if std::mem::replace(&mut stamped, true) {
                    return Err(malformed(at));
                }
                let &[_, _, pointer, flags, ..] = o else { return Err(malformed(at + 1)) };
                let pointer = usize::from(pointer);
                // Flags without a meaning (yet) pass, and nothing is written; whatever they may mean, a timestamp fits.
                let entry = match flags & 15 {
                    1 | 3 => 8,
                    _ => 4,
                };
                if pointer < 5 || (pointer <= o.len() && pointer + entry - 1 > o.len()) {
                    return Err(malformed(at + 2));
                }
                // Full, and no more routers can be counted that found it full.
                if pointer > o.len() && flags >> 4 == 15 {
                    return Err(malformed(at + 3));
                }
            }
            _ => {}
        }
    }
    Ok(alert)
}

/// What a router writes into options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its address on the link over which the packet leaves (RFC 791).
    pub addr: Ipv4Addr,
    /// Milliseconds of its own clock. The core does not know the time of day: the value is marked as non-standard by its
    /// highest bit, as RFC 791 allows.
    pub millis: u32,
    /// A step along a source route was made here: it has to be recorded, too.
    pub routed: bool,
    /// Whether record route options are obeyed.
    pub records: bool,
    /// Whether timestamp options are obeyed that ask every router.
    pub stamps: bool,
}

impl Stamp {
    /// Of a packet that the router itself has received: what it does with others is of no meaning (RFC 1812 5.3.13.5 and
    /// 5.3.13.6).
    pub fn own(addr: Ipv4Addr, millis: u32) -> Stamp {
        Stamp { addr, millis, routed: false, records: true, stamps: true }
    }
}

/// Writes into the record route, timestamp and source route options of a checked header (RFC 1812 5.3.13.4 to 5.3.13.6) and
/// sets its checksum right. `owns` says which addresses are this router's, for timestamps at prescribed addresses.
pub fn stamp(header: &mut [u8], stamp: Stamp, owns: impl Fn(Ipv4Addr) -> bool) {
    let mut found: ArrayVec<(usize, usize), 2> = ArrayVec::new();
    for (at, o) in (Options { header, at: MIN_HEADER }).flatten() {
        if matches!(o[0], RECORD_ROUTE | TIMESTAMP) && !found.is_full() {
            found.push((at, o.len()));
        }
    }
    if found.is_empty() && !stamp.routed {
        return;
    }
    if stamp.routed {
        source_route::record(header, stamp.addr);
    }
    let time = (stamp.millis | 0x8000_0000).to_be_bytes();
    for (at, len) in found {
        let o = &mut header[at..at + len];
        let slot = usize::from(o[2]).saturating_sub(1);
        match (o[0], o.get(3).map(|f| f & 15)) {
            (RECORD_ROUTE, _) if !stamp.records => {}
            // RFC 1812 5.3.13.6: who is asked by address answers in any case.
            (TIMESTAMP, Some(0 | 1)) if !stamp.stamps => {}
            (RECORD_ROUTE, _) => {
                if let Some(room) = o.get_mut(slot..slot + 4) {
                    room.copy_from_slice(&stamp.addr.octets());
                    o[2] += 4;
                }
            }
            (_, Some(0)) => match o.get_mut(slot..slot + 4) {
                Some(room) => {
                    room.copy_from_slice(&time);
                    o[2] += 4;
                }
                None => o[3] = o[3].saturating_add(16),
            },
            (_, Some(kind @ (1 | 3))) => match o.get_mut(slot..slot + 8) {
                Some(room) => {
                    let wanted = Ipv4Addr::new(room[0], room[1], room[2], room[3]);
                    if kind == 1 {
                        room[..4].copy_from_slice(&stamp.addr.octets());
                    }
                    if kind == 1 || owns(wanted) {
                        room[4..].copy_from_slice(&time);
                        o[2] += 8;
                    }
                }
                // Prescribed addresses that are all done count nobody.
                None if kind == 1 => o[3] = o[3].saturating_add(16),
                None => {}
            },
            (_, _) => {}
        }
    }
    fill_ipv4_header(header);
}

/// The options of a request that belong into its reply (RFC 1122 3.2.2.6), padded: record route and timestamp and, with
/// `follow`, the source route turned round; then also whom to send to first.
pub fn for_reply(header: &[u8], follow: bool) -> (ArrayVec<u8, 40>, Option<Ipv4Addr>) {
    let (mut out, mut first_hop) = (ArrayVec::new(), None);
    if follow && let Some((first, option)) = source_route::way_back(header) {
        (out, first_hop) = (option, Some(first));
    }
    for (_, o) in (Options { header, at: MIN_HEADER }).flatten() {
        if matches!(o[0], RECORD_ROUTE | TIMESTAMP) && out.remaining_capacity() >= o.len() {
            out.extend(o.iter().copied());
        }
    }
    while out.len() % 4 != 0 && !out.is_full() {
        out.push(END);
    }
    (out, first_hop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::verify_ipv4_header;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const NOW: Stamp = Stamp { addr: OWN, millis: 5, routed: false, records: true, stamps: true };

    fn header(options: &[u8]) -> Vec<u8> {
        let mut v = vec![0u8; 20];
        v.extend(options);
        v.resize(v.len().next_multiple_of(4), 0);
        v[0] = 0x40 | (v.len() / 4) as u8;
        v[3] = v.len() as u8;
        v[8] = 64;
        fill_ipv4_header(&mut v);
        v
    }

    #[test]
    fn options_that_are_refused_and_where() {
        use DropReason::Ipv4Options;
        // id, options, expectation: router alert, or reason and byte
        type Row<'a> = (&'a str, &'a [u8], Result<bool, (DropReason, u8)>);
        let rows: &[Row<'_>] = &[
            ("rfc791-3.1-options", &[1, 1, 1, 0, 9, 9], Ok(false)),
            ("rfc2113-2.1", &[148, 4, 0, 0], Ok(true)),
            ("rfc1812-4.2.2.1-unknown", &[0x5e, 4, 1, 2], Ok(false)),
            ("rfc791-3.1-source-route", &[131, 7, 4, 1, 2, 3, 4], Ok(false)),
            ("rfc791-3.1-source-route", &[1, 137, 7, 8, 1, 2, 3, 4], Ok(false)),
            ("rfc791-3.1-source-route", &[131, 2, 1], Err((Ipv4Options, 21))),
            ("rfc791-3.1-source-route", &[137, 7, 3, 1, 2, 3, 4], Err((Ipv4Options, 22))),
            ("rfc1812-5.2.4.1-one", &[131, 3, 4, 131, 3, 4], Err((Ipv4Options, 23))),
            ("rfc1812-5.2.4.1-one", &[137, 3, 4, 1, 131, 3, 4], Err((Ipv4Options, 24))),
            ("rfc791-3.1-options", &[7, 1, 4], Err((Ipv4Options, 21))),
            ("rfc791-3.1-options", &[7, 9, 4], Err((Ipv4Options, 21))),
            ("rfc791-3.1-options", &[1, 1, 1, 7], Err((Ipv4Options, 24))),
            ("rfc791-3.1-record-route", &[7, 7, 4, 0, 0, 0, 0], Ok(false)),
            ("rfc791-3.1-record-route", &[7, 7, 8, 1, 2, 3, 4], Ok(false)),
            ("rfc791-3.1-record-route", &[7, 7, 3, 0, 0, 0, 0], Err((Ipv4Options, 22))),
            ("rfc791-3.1-record-route", &[7, 6, 4, 0, 0, 0], Err((Ipv4Options, 22))),
            ("rfc791-3.1-record-route", &[7, 2], Err((Ipv4Options, 21))),
            ("rfc791-3.1-record-route", &[7, 3, 4, 7, 3, 4], Err((Ipv4Options, 23))),
            ("rfc791-3.1-timestamp", &[68, 8, 5, 0, 0, 0, 0, 0], Ok(false)),
            ("rfc791-3.1-timestamp", &[68, 8, 9, 0xe0, 0, 0, 0, 0], Ok(false)),
            ("rfc791-3.1-timestamp", &[68, 8, 9, 0xf0, 0, 0, 0, 0], Err((Ipv4Options, 23))),
            ("rfc791-3.1-timestamp", &[68, 8, 5, 1, 0, 0, 0, 0], Err((Ipv4Options, 22))),
            ("rfc791-3.1-timestamp", &[68, 8, 5, 2, 0, 0, 0, 0], Ok(false)),
            ("rfc791-3.1-timestamp", &[68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0], Ok(false)),
            ("rfc791-3.1-timestamp", &[68, 6, 5, 2, 0, 0], Err((Ipv4Options, 22))),
            ("rfc2113-2.1", &[148, 3, 0], Err((Ipv4Options, 21))),
            ("rfc791-3.1-timestamp", &[68, 8, 4, 0, 0, 0, 0, 0], Err((Ipv4Options, 22))),
            ("rfc791-3.1-timestamp", &[68, 3, 5], Err((Ipv4Options, 21))),
        ];
        for (id, options, want) in rows {
            let got = check(&header(options)).map_err(|b| (b.reason, b.pointer));
            assert_eq!(got, *want, "{id} {options:?}");
        }
    }

    /// Proves rfc1812-4.2.2.1-timestamp, rfc791-3.1-recompute.
    #[test]
    fn routers_write_their_address_and_time() {
        let t = [0x80, 0, 0, 5];
        let own = OWN.octets();
        let with = |before: &[u8], middle: &[&[u8]]| [before, &middle.concat()].concat();
        // id, options before, after
        let rows: &[(&str, Vec<u8>, Vec<u8>)] = &[
            ("rfc1812-5.3.13.5", vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0], with(&[7, 11, 8], &[&own, &[0; 4]])),
            ("rfc1812-5.3.13.5", vec![7, 11, 8, 1, 2, 3, 4, 0, 0, 0, 0], with(&[7, 11, 12, 1, 2, 3, 4], &[&own])),
            ("rfc791-3.1-record-route", vec![7, 7, 8, 1, 2, 3, 4], vec![7, 7, 8, 1, 2, 3, 4]),
            ("rfc1812-5.3.13.6", vec![68, 8, 5, 0, 0, 0, 0, 0], with(&[68, 8, 9, 0], &[&t])),
            ("rfc791-3.1-timestamp", vec![68, 8, 9, 0, 1, 2, 3, 4], vec![68, 8, 9, 16, 1, 2, 3, 4]),
            ("rfc1812-5.3.13.6", with(&[68, 12, 5, 1], &[&[0; 8]]), with(&[68, 12, 13, 1], &[&own, &t])),
            ("rfc791-3.1-timestamp", with(&[68, 12, 13, 1], &[&[9; 8]]), with(&[68, 12, 13, 0x11], &[&[9; 8]])),
            ("rfc1812-5.3.13.6", with(&[68, 12, 5, 3], &[&own, &[0; 4]]), with(&[68, 12, 13, 3], &[&own, &t])),
            ("rfc1812-5.3.13.6", with(&[68, 12, 5, 3], &[&[10; 8]]), with(&[68, 12, 5, 3], &[&[10; 8]])),
            ("rfc1812-5.3.13.6", with(&[68, 12, 13, 3], &[&[10; 8]]), with(&[68, 12, 13, 3], &[&[10; 8]])),
            ("rfc1812-4.2.2.1-unknown", vec![0x5e, 6, 4, 0, 0, 0], vec![0x5e, 6, 4, 0, 0, 0]),
            ("rfc791-3.1-timestamp", vec![68, 8, 5, 2, 0, 0, 0, 0], vec![68, 8, 5, 2, 0, 0, 0, 0]),
            ("rfc791-3.1-timestamp", vec![68, 8, 9, 2, 0, 0, 0, 0], vec![68, 8, 9, 2, 0, 0, 0, 0]),
        ];
        for (id, before, after) in rows {
            let mut h = header(before);
            assert_eq!(check(&h), Ok(false), "{id} {before:?}");
            stamp(&mut h, NOW, |a| a == OWN);
            assert_eq!(h[20..20 + after.len()], after[..], "{id} {before:?}");
            assert!(verify_ipv4_header(&h), "{id}");
            assert!(check(&h).is_ok(), "{id}: the next router takes it");
        }
    }

    /// Proves rfc1122-3.2.2.6-options.
    #[test]
    fn replies_carry_the_options_that_record() {
        let h = header(&[1, 148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0]);
        let want = [&[7, 7, 4, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0][..], &[0]].concat();
        assert_eq!(for_reply(&h, true).0[..], want[..]);
        assert!(for_reply(&header(&[148, 4, 0, 0]), true).0.is_empty());
    }
}
