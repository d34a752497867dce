//! Source routes of IPv4 (RFC 791 3.1, RFC 1122 3.2.1.8, RFC 1812 5.2.3 and 5.2.4): reading one, going a step along it, and
//! turning it round.

use super::ipv4_options::{LSRR, SSRR, find};
use crate::checksum::fill_ipv4_header;
use arrayvec::ArrayVec;
use std::net::Ipv4Addr;

/// The source route option of a checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRoute {
    /// Where the option starts in the header.
    pub at: usize,
    /// Its length.
    len: usize,
    /// Where, in the header, the address stands that is to be visited next; behind the option when all have been.
    next: usize,
    /// No router may be between two addresses of it.
    pub strict: bool,
}

/// What is at a place of a source route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(Ipv4Addr),
    /// The end: all have been visited.
    End,
    /// A part of an address.
    Cut,
}

impl SourceRoute {
    /// Of a header that [`super::ipv4_options::check`] has accepted: it has one such option at most.
    pub fn of(header: &[u8]) -> Option<SourceRoute> {
        let (at, o) = find(header, |kind| matches!(kind, LSRR | SSRR))?;
        let next = at + usize::from(*o.get(2)?).max(4) - 1;
        Some(SourceRoute { at, len: o.len(), next, strict: o[0] == SSRR })
    }

    /// Whether there are addresses still to be visited.
    pub fn is_unexpired(&self) -> bool {
        self.next < self.at + self.len
    }

    /// What is `n` places behind the pointer.
    pub fn place(&self, header: &[u8], n: usize) -> Place {
        let (at, end) = (self.next + 4 * n, self.at + self.len);
        match header.get(at..at + 4).filter(|_| at + 4 <= end) {
            _ if at >= end => Place::End,
            Some(a) => Place::Address(Ipv4Addr::new(a[0], a[1], a[2], a[3])),
            None => Place::Cut,
        }
    }

    /// Goes on to the address `n` places behind the pointer: it becomes the destination, and the destination takes its place
    /// until it is known by which address this router is to be recorded ([`record`]). Returns what the pointer was, for
    /// [`undo`].
    pub fn advance(&self, header: &mut [u8], n: usize) -> Option<u8> {
        let slot = self.next + 4 * n;
        swap(header, slot)?;
        let pointer = header.get_mut(self.at + 2)?;
        let old = std::mem::replace(pointer, (slot + 5 - self.at) as u8);
        fill_ipv4_header(header);
        Some(old)
    }
}

/// Exchanges the destination with the address at `slot`.
fn swap(header: &mut [u8], slot: usize) -> Option<()> {
    let (head, options) = header.split_at_mut_checked(20)?;
    options.get_mut(slot.checked_sub(20)?..)?.get_mut(..4)?.swap_with_slice(head.get_mut(16..20)?);
    Some(())
}

/// The place of the address that was visited last.
fn last_visited(header: &[u8]) -> Option<(SourceRoute, usize)> {
    let route = SourceRoute::of(header)?;
    let slot = route.next.checked_sub(4).filter(|slot| *slot >= route.at + 3)?;
    Some((route, slot))
}

/// Writes the address by which this router is recorded where [`SourceRoute::advance`] went on from (RFC 791 3.1, RFC 1812
/// 4.2.2.2). The checksum is left to the caller.
pub fn record(header: &mut [u8], addr: Ipv4Addr) {
    if let Some((_, slot)) = last_visited(header)
        && let Some(room) = header.get_mut(slot..slot + 4)
    {
        room.copy_from_slice(&addr.octets());
    }
}

/// Takes [`SourceRoute::advance`] back, as long as nothing was recorded: what is told about a packet quotes it as it came.
pub fn undo(header: &mut [u8], pointer: u8) {
    if let Some((route, slot)) = last_visited(header)
        && swap(header, slot).is_some()
        && let Some(p) = header.get_mut(route.at + 2)
    {
        *p = pointer;
        fill_ipv4_header(header);
    }
}

/// The way back along the part of a source route that was travelled (RFC 1122 3.2.1.8 c, RFC 1812 4.3.2.6): whom to send to
/// first, and the option to send. None where there is no source route, or none of it was travelled.
pub fn way_back(header: &[u8]) -> Option<(Ipv4Addr, ArrayVec<u8, 40>)> {
    let route = SourceRoute::of(header)?;
    let src: [u8; 4] = header.get(12..16)?.try_into().ok()?;
    let end = route.next.min(route.at + route.len);
    let mut travelled = header.get(route.at + 3..end)?.as_chunks::<4>().0;
    // RFC 1812 4.2.2.1 c: some senders wrongly put themselves first.
    if let Some((first, rest)) = travelled.split_first()
        && *first == src
    {
        travelled = rest;
    }
    let (last, between) = travelled.split_last()?;
    let mut option: ArrayVec<u8, 40> = ArrayVec::new();
    option.extend([header[route.at], (7 + 4 * between.len()) as u8, 4]);
    for hop in between.iter().rev().chain([&src]) {
        option.try_extend_from_slice(hop).ok()?;
    }
    Some(((*last).into(), option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::verify_ipv4_header;
    use crate::headers::ipv4_options::check;

    const SRC: [u8; 4] = [192, 0, 2, 2];
    const DST: [u8; 4] = [192, 0, 2, 1];

    fn header(options: &[u8]) -> Vec<u8> {
        let mut v = vec![0u8; 20];
        v[12..16].copy_from_slice(&SRC);
        v[16..20].copy_from_slice(&DST);
        v.extend(options);
        v.resize(v.len().next_multiple_of(4), 0);
        v[0] = 0x40 | (v.len() / 4) as u8;
        v[3] = v.len() as u8;
        v[8] = 64;
        fill_ipv4_header(&mut v);
        v
    }

    /// An option with the addresses 10.0.0.n, behind a byte of padding.
    fn option(kind: u8, pointer: u8, hops: &[u8]) -> Vec<u8> {
        let mut o = vec![1, kind, (3 + 4 * hops.len()) as u8, pointer];
        hops.iter().for_each(|n| o.extend([10, 0, 0, *n]));
        o
    }

    #[test]
    fn a_step_along_and_back() {
        for kind in [LSRR, SSRR] {
            for pointer in [4u8, 8, 12] {
                for n in 0..usize::from((12 - pointer) / 4 + 1) {
                    let before = header(&option(kind, pointer, &[1, 2, 3]));
                    let route = SourceRoute::of(&before).unwrap();
                    assert_eq!((route.at, route.strict, route.is_unexpired()), (21, kind == SSRR, true));
                    let k = (pointer / 4 - 1) as usize + n;
                    assert_eq!(route.place(&before, n), Place::Address(Ipv4Addr::new(10, 0, 0, k as u8 + 1)));
                    let mut h = before.clone();
                    assert_eq!(route.advance(&mut h, n), Some(pointer));
                    assert_eq!((h[16..20].to_vec(), h[23]), (vec![10, 0, 0, k as u8 + 1], 8 + 4 * k as u8));
                    assert_eq!(h[24 + 4 * k..][..4], DST);
                    assert!(verify_ipv4_header(&h) && check(&h).is_ok());
                    let mut back = h.clone();
                    undo(&mut back, pointer);
                    assert_eq!(back, before, "pointer {pointer}, {n} places on");
                    record(&mut h, [198, 51, 100, 1].into());
                    assert_eq!(h[24 + 4 * k..][..4], [198, 51, 100, 1]);
                }
            }
        }
    }

    #[test]
    fn ends_and_parts() {
        for (options, n, want) in [
            (option(LSRR, 16, &[1, 2, 3]), 0, Place::End),
            (option(LSRR, 255, &[1, 2, 3]), 0, Place::End),
            (option(LSRR, 12, &[1, 2, 3]), 1, Place::End),
            (vec![LSRR, 9, 4, 10, 0, 0, 1, 10, 0], 1, Place::Cut),
            (vec![LSRR, 7, 6, 10, 0, 0, 1, 1], 0, Place::Cut),
        ] {
            let h = header(&options);
            assert_eq!(SourceRoute::of(&h).unwrap().place(&h, n), want, "{options:?}");
        }
        assert_eq!(SourceRoute::of(&header(&[7, 7, 4, 0, 0, 0, 0])), None);
        // Nothing was visited: nothing is recorded, and nothing taken back.
        let mut h = header(&option(LSRR, 4, &[1]));
        let before = h.clone();
        record(&mut h, [9; 4].into());
        undo(&mut h, 4);
        assert_eq!(h, before);
    }

    /// Proves rfc1122-3.2.1.8-reverse, rfc1812-4.2.2.1-formed.
    #[test]
    fn the_way_back() {
        let to = |n: u8| Ipv4Addr::new(10, 0, 0, n);
        let with_src = |kind: u8, between: &[u8]| {
            let mut o = vec![kind, (7 + 4 * between.len()) as u8, 4];
            between.iter().for_each(|n| o.extend([10, 0, 0, *n]));
            o.extend(SRC);
            o
        };
        let wrong = [&[LSRR, 11, 12][..], &SRC, &[10, 0, 0, 1]].concat();
        let only_itself = [&[LSRR, 7, 8][..], &SRC].concat();
        for (options, want) in [
            (option(LSRR, 16, &[1, 2, 3]), Some((to(3), with_src(LSRR, &[2, 1])))),
            (option(SSRR, 8, &[1]), Some((to(1), with_src(SSRR, &[])))),
            // What lies behind the pointer was not travelled.
            (option(LSRR, 8, &[1, 2, 3]), Some((to(1), with_src(LSRR, &[])))),
            (option(LSRR, 4, &[1, 2, 3]), None),
            (option(LSRR, 255, &[1, 2]), Some((to(2), with_src(LSRR, &[1])))),
            (wrong, Some((to(1), with_src(LSRR, &[])))),
            (only_itself, None),
            (vec![7, 7, 8, 10, 0, 0, 1], None),
        ] {
            let got = way_back(&header(&options)).map(|(first, o)| (first, o.to_vec()));
            assert_eq!(got, want, "{options:?}");
        }
    }
}
