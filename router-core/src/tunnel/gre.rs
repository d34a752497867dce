//! GRE (RFC 2784) with key and sequence number (RFC 2890).

use super::gate::TunnelState;
use super::spec::GreOptions;
use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::headers::{be16, protocol};
use crate::packet::Packet;

const CHECKSUM: u8 = 0x80;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;
/// Source routing and recursion control of RFC 1701: such packets are refused (RFC 2784 2.3).
const REFUSED: u8 = 0x4f;

/// EtherTypes that say what is inside.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// How far behind the newest a sequence number may be and still count as old, not as a peer that began anew: all of it
/// (RFC 2890 2.2).
const HALF: u32 = 1 << 31;

/// Writes the header in front of a packet: `to` is the room for it with the packet behind. None when there is no room.
pub fn write(to: &mut [u8], options: &GreOptions, inner: Family, seq: u32) -> Option<()> {
    let len = options.sent_len() as usize;
    let header = to.get_mut(..len)?;
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    header[0] = flag(options.ocsum, CHECKSUM) | flag(options.okey.is_some(), KEY) | flag(options.oseq, SEQUENCE);
    header[1] = 0;
    let kind = if inner == Family::Inet { IPV4 } else { IPV6 };
    header[2..4].copy_from_slice(&kind.to_be_bytes());
    let mut at = 4;
    let mut put = |word: u32| {
        if let Some(to) = header.get_mut(at..at + 4) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        at += 4;
    };
    if options.ocsum {
        put(0);
    }
    if let Some(key) = options.okey {
        put(key);
    }
    if options.oseq {
        put(seq);
    }
    if options.ocsum {
        // RFC 2784 2.1: over the GRE header and the payload.
        let sum = checksum::checksum(to);
        to.get_mut(4..6)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(())
}

/// Checks a header (`data` starts with it) against what the tunnel expects; says what is inside and where it begins.
/// `trusted`: an offload has seen the checksum.
pub fn read(data: &[u8], options: &GreOptions, state: &TunnelState) -> Result<(Family, usize), DropReason> {
    let (flags, version) = match data.first_chunk::<4>() {
        Some(h) => (h[0], h[1]),
        None => return Err(DropReason::TunnelHeader),
    };
    if flags & REFUSED != 0 || version != 0 {
        return Err(DropReason::TunnelHeader);
    }
    let family = match be16(data, 2) {
        IPV4 => Family::Inet,
        IPV6 => Family::Inet6,
        _ => return Err(DropReason::TunnelFamily),
    };
    let mut at = 4;
    let mut take = |bit: u8| -> Result<Option<u32>, DropReason> {
        if flags & bit == 0 {
            return Ok(None);
        }
        let word = data.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(DropReason::TunnelHeader)?;
        at += 4;
        Ok(Some(u32::from_be_bytes(word)))
    };
    let (sum, key, seq) = (take(CHECKSUM)?, take(KEY)?, take(SEQUENCE)?);
    if options.ikey != key {
        return Err(DropReason::TunnelKey);
    }
    if sum.is_none() && options.icsum || sum.is_some() && !checksum::verify(data) {
        return Err(DropReason::TunnelChecksum);
    }
    match seq {
        None if options.iseq => return Err(DropReason::TunnelSequence),
        Some(seq)
            if options.iseq && !state.accept_seq(|newest| seq.wrapping_sub(newest).wrapping_sub(1) < HALF, seq) =>
        {
            return Err(DropReason::TunnelSequence);
        }
        _ => {}
    }
    Ok((family, at))
}

/// The key of a received header.
pub fn key(data: &[u8]) -> Option<u32> {
    let flags = *data.first()?;
    if flags & KEY == 0 {
        return None;
    }
    let at = if flags & CHECKSUM != 0 { 8 } else { 4 };
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// Whether a header has exactly this key; one that is cut has none.
fn has_key(data: &[u8], expected: Option<u32>) -> bool {
    data.first().is_some_and(|flags| (flags & KEY != 0) == expected.is_some()) && key(data) == expected
}

/// What is inside by a header that has the tunnel's key and nothing that is refused, and where; nothing is remembered.
pub(super) fn peek(data: &[u8], options: &GreOptions) -> Option<(Family, usize)> {
    let &[flags, version, ..] = data.first_chunk::<4>()?;
    let family = match be16(data, 2) {
        IPV4 => Family::Inet,
        IPV6 => Family::Inet6,
        _ => return None,
    };
    let fields = [CHECKSUM, KEY, SEQUENCE].into_iter().filter(|bit| flags & bit != 0).count();
    (flags & REFUSED == 0 && version == 0 && has_key(data, options.ikey)).then_some((family, 4 + 4 * fields))
}

/// A header that says that nothing follows: protocol type 0.
pub(super) fn nothing(key: Option<u32>) -> Vec<u8> {
    let mut v = vec![if key.is_some() { KEY } else { 0 }, 0, 0, 0];
    v.extend(key.into_iter().flat_map(u32::to_be_bytes));
    v
}

/// Whether `data` is such a header with this key, and nothing that is refused.
pub(super) fn is_nothing(data: &[u8], expected: Option<u32>) -> bool {
    let Some(&[flags, version, kind @ ..]) = data.first_chunk::<4>() else { return false };
    flags & REFUSED == 0 && version == 0 && kind == [0, 0] && has_key(data, expected)
}

/// Whether a packet is GRE with a checksum.
pub(crate) fn has_checksum(outer: &Packet, data: &[u8]) -> bool {
    outer.proto == protocol::GRE && outer.transport(data).first().is_some_and(|flags| flags & CHECKSUM != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(options: &GreOptions, seq: u32) -> Vec<u8> {
        let mut v = vec![0; options.sent_len() as usize];
        v.extend([0x60, 1, 2, 3, 4, 5, 6]);
        write(&mut v, options, Family::Inet6, seq).unwrap();
        v
    }

    fn all(key: Option<u32>, seq: bool, csum: bool) -> GreOptions {
        GreOptions { ikey: key, okey: key, iseq: seq, oseq: seq, icsum: csum, ocsum: csum, answer: false }
    }

    /// Proves rfc2784-2.3-type, rfc2784-2.4-checksum, rfc2890-2-header.
    #[test]
    fn every_combination_of_fields_is_read_back() {
        for bits in 0..8u8 {
            let o = all((bits & 1 != 0).then_some(0xdead_beef), bits & 2 != 0, bits & 4 != 0);
            let v = packet(&o, 7);
            assert_eq!(v.len() - 7, o.sent_len() as usize);
            assert_eq!(read(&v, &o, &TunnelState::default()), Ok((Family::Inet6, v.len() - 7)), "{o:?}");
        }
    }

    /// Proves rfc2784-2.1-verify, rfc2784-2.2-reserved, rfc2784-2.2.1-version, rfc2784-2.3-unknown, rfc2890-2.1-mismatch, rfc7676-4-other.
    #[test]
    fn what_does_not_fit_is_refused() {
        use DropReason::*;
        let (plain, full) = (all(None, false, false), all(Some(5), true, true));
        let state = TunnelState::default();
        let with = |o: &GreOptions, at: usize, v: u8| {
            let mut p = packet(o, 1);
            p[at] = v;
            p
        };
        assert_eq!(read(&packet(&plain, 0), &full, &state), Err(TunnelKey), "no key");
        assert_eq!(read(&packet(&all(Some(6), true, true), 1), &full, &state), Err(TunnelKey), "another key");
        assert_eq!(
            read(&packet(&all(Some(5), false, false), 0), &plain, &state),
            Err(TunnelKey),
            "a key nobody asked for"
        );
        assert_eq!(read(&with(&full, 18, 9), &full, &state), Err(TunnelChecksum));
        assert_eq!(read(&packet(&all(Some(5), true, false), 1), &full, &state), Err(TunnelChecksum), "none");
        assert_eq!(read(&packet(&all(Some(5), false, true), 1), &full, &state), Err(TunnelSequence), "none");
        assert_eq!(read(&with(&plain, 0, 0x40), &plain, &state), Err(TunnelHeader), "source routing");
        assert_eq!(read(&with(&plain, 1, 1), &plain, &state), Err(TunnelHeader), "PPTP's version");
        assert_eq!(read(&with(&plain, 2, 0x65), &plain, &state), Err(TunnelFamily), "Ethernet inside");
        assert_eq!(read(&[0x10, 0, 8, 0, 0], &plain, &state), Err(TunnelHeader), "cut");
        assert_eq!(read(&[], &plain, &state), Err(TunnelHeader));
    }

    /// Out of order is dropped, also around the end of the number space.
    ///
    /// Proves rfc2890-2.2-order, rfc2890-2.2-wrap.
    #[test]
    fn sequence_numbers_only_grow() {
        let (o, state) = (all(None, true, false), TunnelState::default());
        let mut see = |seq| read(&packet(&o, seq), &o, &state).is_ok();
        assert_eq!([0, 1, 1, 0, 5, 4, 6].map(&mut see), [true, true, false, false, true, false, true]);
        let state = TunnelState::default();
        let mut see = |seq| read(&packet(&o, seq), &o, &state).is_ok();
        assert_eq!([u32::MAX, 0, u32::MAX, 1].map(&mut see), [true, true, false, true]);
    }
}
