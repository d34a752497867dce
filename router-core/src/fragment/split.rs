//! IPv4 fragmentation.

use crate::checksum::{fill_ipv4_header, ipv4_header_len};
use crate::drop_reason::DropReason;
use crate::frame::{Frame, FramePool};
use crate::offload::complete_checksum;

/// Every link must carry this much without fragmentation: the longest header and 8 bytes (RFC 791 3.2).
const MIN_MTU: u32 = 68;
/// Nobody's bit: RFC 1812 5.2.5 has it copied into each fragment.
const RESERVED: u16 = 0x8000;
const DF: u16 = 0x4000;
const MF: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Why a packet cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// DF is set: the answer is "fragmentation needed" (RFC 1191).
    #[error("the packet says don't fragment")]
    DontFragment,
    /// The MTU is below 68 bytes.
    #[error("an IPv4 link must carry 68 bytes (RFC 791)")]
    MtuTooSmall,
    /// The frame pool has too few frames.
    #[error("no free packet buffer")]
    NoFrame,
    /// The bytes are not one whole IPv4 packet, or the frame is a super-frame: cut that into segments first.
    #[error("not a whole IPv4 packet")]
    Malformed,
}

impl From<FragmentError> for DropReason {
    fn from(error: FragmentError) -> DropReason {
        match error {
            FragmentError::DontFragment | FragmentError::MtuTooSmall => DropReason::TooBig,
            FragmentError::NoFrame => DropReason::NoFrame,
            FragmentError::Malformed => DropReason::OffloadMalformed,
        }
    }
}

/// Cuts an IPv4 packet, which starts at the first byte of `frame`, into fragments of at most `mtu` bytes, appends them
/// to `out` in order and returns how many there are. The first one is the given frame, the others come from `pool`.
///
/// A packet that fits already is appended unchanged. A pending checksum is finished first. Options without the copied
/// flag stay in the first fragment only. A fragment is fragmented further, its offset and MF kept (RFC 791 3.2).
///
/// On error nothing was appended, and the frame comes back, with nothing but a pending checksum changed.
pub fn fragment_ipv4(
    mut frame: Frame,
    mtu: u32,
    pool: &mut FramePool,
    out: &mut Vec<Frame>,
) -> Result<usize, (Frame, FragmentError)> {
    let before = out.len();
    match split(&mut frame, mtu, pool, out) {
        Ok(n) => {
            out.insert(before, frame);
            Ok(n + 1)
        }
        Err(e) => {
            out.drain(before..).for_each(|f| pool.put(f));
            Err((frame, e))
        }
    }
}

/// Cuts `frame` down to its first fragment and appends the others.
fn split(frame: &mut Frame, mtu: u32, pool: &mut FramePool, out: &mut Vec<Frame>) -> Result<usize, FragmentError> {
    let data = frame.data();
    let header_len = ipv4_header_len(data).ok_or(FragmentError::Malformed)?;
    if data[0] >> 4 != 4 || usize::from(u16::from_be_bytes([data[2], data[3]])) != data.len() {
        return Err(FragmentError::Malformed);
    }
    if data.len() <= mtu as usize {
        return Ok(0);
    }
    let field = u16::from_be_bytes([data[6], data[7]]);
    let base = usize::from(field & OFFSET) * 8;
    if field & DF != 0 {
        return Err(FragmentError::DontFragment);
    }
    if mtu < MIN_MTU {
        return Err(FragmentError::MtuTooSmall);
    }
    let mut later = LaterHeader::of(&data[..header_len]).ok_or(FragmentError::Malformed)?;
    if frame.meta.gso.is_some() || base + data.len() - header_len > 0xffff {
        return Err(FragmentError::Malformed);
    }
    complete_checksum(frame).map_err(|_| FragmentError::Malformed)?;

    let units = |room: usize| room & !7;
    let first = units(mtu as usize - header_len);
    let each = units(mtu as usize - later.len());
    let payload = &frame.data()[header_len..];
    if pool.available() < (payload.len() - first).div_ceil(each) {
        return Err(FragmentError::NoFrame);
    }
    let mut at = first;
    let mut made = 0;
    for piece in payload[first..].chunks(each) {
        let last = at + piece.len() == payload.len();
        let more = field & RESERVED | if last { field & MF } else { MF };
        let header = later.finish(piece.len(), more | ((base + at) / 8) as u16);
        let total = header.len() + piece.len();
        let mut f = pool.take().ok_or(FragmentError::NoFrame)?;
        let Some(room) = f.spare_mut().get_mut(..total) else {
            pool.put(f);
            return Err(FragmentError::NoFrame);
        };
        room[..header.len()].copy_from_slice(header);
        room[header.len()..].copy_from_slice(piece);
        f.set_len(total);
        f.meta = frame.meta;
        out.push(f);
        at += piece.len();
        made += 1;
    }
    frame.truncate(header_len + first);
    let h = frame.data_mut();
    h[2..4].copy_from_slice(&((header_len + first) as u16).to_be_bytes());
    h[6..8].copy_from_slice(&(MF | field & (RESERVED | OFFSET)).to_be_bytes());
    fill_ipv4_header(h);
    Ok(made)
}

/// The header of the second and later fragments: without the options that are not copied.
struct LaterHeader {
    bytes: [u8; 60],
    len: usize,
}

impl LaterHeader {
    /// None when an option's length runs out of the header.
    fn of(header: &[u8]) -> Option<LaterHeader> {
        let mut bytes = [0; 60];
        bytes[..20].copy_from_slice(&header[..20]);
        let mut len = 20;
        let mut options = &header[20..];
        while let Some(&kind) = options.first() {
            let n = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*options.get(1)?),
            };
            let option = options.get(..n).filter(|_| n >= 2 || kind == 1)?;
            // The copied flag is the highest bit (RFC 791 3.1).
            if kind & 0x80 != 0 {
                bytes[len..len + n].copy_from_slice(option);
                len += n;
            }
            options = &options[n..];
        }
        // The padding is zero: end of option list.
        len = len.next_multiple_of(4);
        bytes[0] = 0x40 | (len / 4) as u8;
        Some(LaterHeader { bytes, len })
    }

    fn len(&self) -> usize {
        self.len
    }

    fn finish(&mut self, payload: usize, field: u16) -> &[u8] {
        self.bytes[2..4].copy_from_slice(&((self.len + payload) as u16).to_be_bytes());
        self.bytes[6..8].copy_from_slice(&field.to_be_bytes());
        fill_ipv4_header(&mut self.bytes[..self.len]);
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::{pseudo_v4, verify_ipv4_header, verify_with};
    use crate::frame::PartialChecksum;
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv4Slice, defrag::IpDefragBuf};
    use proptest::prelude::*;

    fn packet(options: &[u8], payload: &[u8], df: bool, more: bool, offset: u16) -> Vec<u8> {
        let mut h = Ipv4Header::new(0, 9, IpNumber(200), [192, 0, 2, 1], [198, 51, 100, 2]).unwrap();
        h.options = Ipv4Options::try_from(options).unwrap();
        h.identification = 0xbeef;
        h.dont_fragment = df;
        h.more_fragments = more;
        h.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        h.set_payload_len(payload.len()).unwrap();
        h.header_checksum = h.calc_header_checksum();
        let mut bytes = Vec::new();
        h.write(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn cut(bytes: &[u8], mtu: u32) -> Result<Vec<Frame>, FragmentError> {
        let mut pool = FramePool::new(300, 3000);
        let mut out = vec![Frame::default()];
        match fragment_ipv4(Frame::from_slice(bytes), mtu, &mut pool, &mut out) {
            Ok(n) => {
                assert_eq!((out.len(), pool.available()), (n + 1, 301 - n));
                Ok(out.split_off(1))
            }
            Err((frame, e)) => {
                assert_eq!((out.len(), pool.available(), frame.data()), (1, 300, bytes));
                Err(e)
            }
        }
    }

    /// Puts the pieces where their offsets say; a byte-wise map, nothing clever.
    fn join(fragments: &[Frame]) -> Vec<u8> {
        let mut whole = Vec::new();
        for f in fragments {
            let s = Ipv4Slice::from_slice(f.data()).unwrap();
            let (h, payload) = (s.header(), s.payload().payload);
            let at = usize::from(h.fragments_offset().value()) * 8;
            assert_eq!(at, whole.len(), "in order, without gaps");
            assert!(payload.len() % 8 == 0 || !h.more_fragments());
            whole.extend_from_slice(payload);
        }
        whole
    }

    /// Proves rfc791-3.2-68.
    #[test]
    fn refusals() {
        let cases = [
            (packet(&[], &[1; 100], true, false, 0), 100, FragmentError::DontFragment),
            (packet(&[], &[1; 100], false, false, 0), 67, FragmentError::MtuTooSmall),
            (packet(&[7, 9, 0, 0], &[1; 100], false, false, 0), 100, FragmentError::Malformed),
            (packet(&[7, 1, 0, 0], &[1; 100], false, false, 0), 100, FragmentError::Malformed),
            (packet(&[], &[1; 100], false, false, 0)[..110].to_vec(), 100, FragmentError::Malformed),
            (vec![], 100, FragmentError::Malformed),
            (vec![0x60; 40], 100, FragmentError::Malformed),
            (packet(&[], &[1; 60_000], false, false, 0), 68, FragmentError::NoFrame),
        ];
        for (bytes, mtu, want) in cases {
            assert_eq!(cut(&bytes, mtu).unwrap_err(), want);
        }
        let mut tiny = FramePool::new(4, 10);
        let mut out = Vec::new();
        let f = Frame::from_slice(&packet(&[], &[1; 2000], false, false, 0));
        assert_eq!(fragment_ipv4(f, 1500, &mut tiny, &mut out).unwrap_err().1, FragmentError::NoFrame);
        assert_eq!((tiny.available(), out.len()), (4, 0));
    }

    /// Proves rfc791-3.1-copied.
    /// Proves rfc791-3.1-recorded-first.
    #[test]
    fn only_copied_options_follow() {
        // Record route (7, not copied), no-op, security (130, copied), padding.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0];
        let out = cut(&packet(&options, &[1; 200], false, false, 0), 100).unwrap();
        let slice = |f: &Frame| Ipv4Slice::from_slice(f.data()).unwrap().header().options().to_vec();
        assert_eq!(slice(&out[0]), options);
        for f in &out[1..] {
            assert_eq!(slice(f), [130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        }
    }

    #[test]
    fn a_pending_checksum_is_finished_before_cutting() {
        let mut bytes = packet(&[], &[3; 64], false, false, 0);
        let (s, d) = ([192, 0, 2, 1].into(), [198, 51, 100, 2].into());
        bytes[26..28].copy_from_slice(&pseudo_v4(s, d, 17, 64).fold().to_be_bytes());
        let mut f = Frame::from_slice(&bytes);
        f.meta.csum = Some(PartialChecksum { start: 20, offset: 6 });
        let mut out = Vec::new();
        assert_eq!(fragment_ipv4(f, 68, &mut FramePool::new(3, 100), &mut out).unwrap(), 2);
        assert!(out.iter().all(|f| f.meta.csum.is_none()));
        assert!(verify_with(pseudo_v4(s, d, 17, 64), &join(&out)));
    }

    proptest! {
        /// Proves rfc1812-4.2.2.7-fragment, rfc6864-4.2-fragments, rfc791-3.2-fragments, rfc791-3.2-again.
        /// Also proves rfc8504-5.1-overlap.
        #[test]
        fn fragments_join_to_the_original(
            payload in proptest::collection::vec(any::<u8>(), 0..6000), mtu in 68u32..3000, second_mtu in 68u32..600,
            rr in any::<bool>(), more in any::<bool>(), offset in 0u16..7000,
        ) {
            let options: &[u8] = if rr { &[7, 7, 4, 0, 0, 0, 0, 0] } else { &[] };
            let whole = packet(options, &payload, false, false, 0);
            let out = cut(&whole, mtu).unwrap();
            let mut second = IpDefragBuf::new(IpNumber(200), Vec::new(), Vec::new());
            for f in &out {
                prop_assert!(f.len() <= mtu as usize);
                prop_assert!(verify_ipv4_header(f.data()));
                let s = Ipv4Slice::from_slice(f.data()).unwrap();
                let h = s.header();
                prop_assert_eq!(h.identification(), 0xbeef);
                second.add(h.fragments_offset(), h.more_fragments(), s.payload().payload).unwrap();
            }
            prop_assert_eq!(&join(&out), &payload);
            prop_assert!(second.is_complete());
            prop_assert_eq!(second.data(), &payload);

            // Cut again, as the next router may: the same datagram results.
            let again: Vec<Frame> = out.iter().flat_map(|f| cut(f.data(), second_mtu).unwrap()).collect();
            prop_assert_eq!(&join(&again), &payload);
            prop_assert!(again.iter().all(|f| f.len() <= second_mtu as usize && verify_ipv4_header(f.data())));

            // A middle fragment keeps its offset, and MF on its last piece.
            let part = packet(&[], &payload, false, more, offset);
            if let Ok(out) = cut(&part, mtu) {
                let field = |f: &Frame| u16::from_be_bytes([f.data()[6], f.data()[7]]);
                prop_assert_eq!(field(&out[0]) & OFFSET, offset);
                prop_assert_eq!(field(&out[out.len() - 1]) & MF != 0, more);
            }
        }

        #[test]
        fn random_bytes_never_panic(mut data in proptest::collection::vec(any::<u8>(), 20..200), mtu in 0u32..200, ihl in 0u8..16) {
            let n = data.len() as u16;
            data[0] = 0x40 | ihl;
            data[2..4].copy_from_slice(&n.to_be_bytes());
            let _ = cut(&data, mtu).map(|v| v.len());
        }
    }
}
