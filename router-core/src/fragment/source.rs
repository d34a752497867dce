//! Fragmentation of IPv6 packets of our own (RFC 8200 4.5): only a source may do it, and our echo replies may be long.

use super::FragmentError;
use crate::frame::{Frame, FramePool};
use crate::headers::ipv6::HEADER;
use crate::headers::{be16, protocol};
use crate::offload::complete_checksum;

/// Length of the fragment header.
const FRAGMENT_HEADER: usize = 8;

/// Cuts an IPv6 packet without extension headers, which starts at the first byte of `frame`, into fragments of at most
/// `mtu` bytes with identification `ident`, appends them to `out` in order and returns how many there are. The first one
/// is the given frame, the others come from `pool`.
///
/// On error nothing was appended and the frame comes back with nothing but a pending checksum changed.
pub fn fragment_ipv6(
    mut frame: Frame,
    mtu: u32,
    ident: u32,
    pool: &mut FramePool,
    out: &mut Vec<Frame>,
) -> Result<usize, (Frame, FragmentError)> {
    let data = frame.data();
    let whole = data.len() > HEADER && usize::from(be16(data, 4)) == data.len() - HEADER;
    let plain = whole && matches!(data[6], protocol::ICMPV6 | protocol::TCP | protocol::UDP) || is_tunnel(data[6]);
    if !plain || frame.meta.gso.is_some() || complete_checksum(&mut frame).is_err() {
        return Err((frame, FragmentError::Malformed));
    }
    let Some(each) = (mtu as usize).checked_sub(HEADER + FRAGMENT_HEADER).map(|n| n & !7).filter(|n| *n > 0) else {
        return Err((frame, FragmentError::MtuTooSmall));
    };
    let payload_len = frame.len() - HEADER;
    let later = payload_len.saturating_sub(1) / each;
    if pool.available() < later || frame.headroom() < FRAGMENT_HEADER {
        return Err((frame, FragmentError::NoFrame));
    }
    let mut header = [0u8; HEADER + FRAGMENT_HEADER];
    header[..HEADER].copy_from_slice(&frame.data()[..HEADER]);
    header[HEADER] = header[6];
    header[6] = protocol::FRAGMENT;
    header[HEADER + 4..].copy_from_slice(&ident.to_be_bytes());
    let before = out.len();
    for (i, piece) in frame.data()[HEADER..].chunks(each).enumerate().skip(1) {
        let total = header.len() + piece.len();
        let made = pool.take().and_then(|mut f| {
            let room = f.spare_mut().get_mut(..total)?;
            finish(&mut header, i * each, piece.len(), i < later);
            room[..header.len()].copy_from_slice(&header);
            room[header.len()..].copy_from_slice(piece);
            f.set_len(total);
            f.meta = frame.meta;
            Some(f)
        });
        match made {
            Some(f) => out.push(f),
            None => {
                out.drain(before..).for_each(|f| pool.put(f));
                return Err((frame, FragmentError::NoFrame));
            }
        }
    }
    let first = each.min(payload_len);
    frame.truncate(HEADER + first);
    finish(&mut header, 0, first, later > 0);
    if let Some(room) = frame.push_front(FRAGMENT_HEADER) {
        room[..header.len()].copy_from_slice(&header);
    }
    out.insert(before, frame);
    Ok(later + 1)
}

/// Outer packets of tunnels (RFC 2473 7.1), an encapsulation limit included.
fn is_tunnel(next: u8) -> bool {
    matches!(next, protocol::IPV4 | protocol::IPV6 | protocol::GRE | protocol::DEST_OPTIONS)
}

/// Fills in what differs between fragments: payload length, offset in bytes, more fragments.
fn finish(header: &mut [u8; HEADER + FRAGMENT_HEADER], offset: usize, len: usize, more: bool) {
    header[4..6].copy_from_slice(&((FRAGMENT_HEADER + len) as u16).to_be_bytes());
    let field = offset as u16 | u16::from(more);
    header[HEADER + 2..HEADER + 4].copy_from_slice(&field.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::fragment::{Limits, Pushed, Reassembler};
    use crate::packet::Packet;
    use crate::time::Instant;

    /// Proves rfc8200-4.5-source, rfc8200-5-1500, rfc5722-4-send.
    #[test]
    fn rfc8200_4_5_fragments_join_to_the_original() {
        for len in [1281usize, 1500, 2464, 2465, 4000, 65_000] {
            let mut v = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            v.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            v.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            v.extend((0..len - 40).map(|i| i as u8));
            v[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            let mut pool = FramePool::new(64, 2048);
            let mut out = Vec::new();
            let n = fragment_ipv6(Frame::from_slice(&v), 1280, 77, &mut pool, &mut out).expect("fragments");
            assert_eq!(n, out.len());
            let mut r = Reassembler::new(Limits::default(), 1);
            let mut joined = None;
            for f in &out {
                assert!(f.len() <= 1280);
                Packet::parse(Family::Inet6, f.data()).expect("a packet");
                if let Pushed::Complete { frame, .. } = r.push(Instant::ZERO, f) {
                    joined = Some(frame.data().to_vec());
                }
            }
            assert_eq!(joined.as_ref(), Some(&v), "{len}");
        }
    }
}
