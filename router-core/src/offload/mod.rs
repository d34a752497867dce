//! Offloads that a frame brought along and the next port does not take: unfinished checksums and super-frames.
//!
//! Linux leaves both to the last hop before a wire (`virtio_net_hdr`). They pass through untouched where the egress port
//! takes them, and are finished here, and only here, where it does not. The other way round, segments are joined
//! ([`merge`]) for a port that takes super-frames.

mod detect;
mod merge;
mod partial;
mod segment;

pub use detect::find_partial;
pub use merge::merge;
pub use partial::{complete_checksum, make_partial};

use crate::drop_reason::DropReason;
use crate::frame::{Frame, FramePool, GsoKind};
use crate::packet::Packet;
use crate::port::PortCaps;

/// Makes `frame`, whose data starts at the IP header, fit for a port with `caps`, appends the result to `out`, and
/// returns how many frames that are. A super-frame may lie in IP tunnels: then each segment gets their headers, too.
///
/// Frames that the port takes as they are pass untouched. A super-frame becomes as many frames as it has segments: the
/// frame itself and others from `pool`, all with its metadata.
///
/// Errors: [`DropReason::OffloadMalformed`] when the metadata does not fit the bytes, [`DropReason::NoFrame`] when the
/// pool has too few frames. Then nothing was appended and the frame comes back.
pub fn prepare(
    mut frame: Frame,
    caps: &PortCaps,
    pool: &mut FramePool,
    out: &mut Vec<Frame>,
) -> Result<usize, (Frame, DropReason)> {
    let done = match frame.meta.gso {
        None => match frame.meta.csum {
            Some(_) if !caps.partial_checksum => complete_checksum(&mut frame).map(|()| 1),
            _ => Ok(1),
        },
        Some(gso) => {
            let takes = match gso.kind {
                GsoKind::TcpV4 | GsoKind::TcpV6 => caps.tso,
                GsoKind::UdpL4 => caps.uso,
            };
            // Few ports take a super-frame in a tunnel: virtio_net_hdr cannot say that there is one.
            let layout = segment::Layout::of(frame.data());
            let whole =
                layout.is_none_or(|l| !l.in_tunnel() || caps.tunnels && l.in_plain_tunnel() && l.is(segment::TCP));
            if takes && caps.partial_checksum && whole {
                make_partial(&mut frame).map(|()| 1)
            } else {
                segment::segment(&mut frame, gso, caps.partial_checksum, pool, out).map(|n| n + 1)
            }
        }
    };
    match done {
        Ok(n) => {
            // The first segment goes before those already appended.
            let at = out.len() + 1 - n;
            out.insert(at, frame);
            Ok(n)
        }
        Err(reason) => Err((frame, reason)),
    }
}

/// Length in bytes of the largest IP packet that will leave because of this frame: the packet itself, or the largest
/// segment of a super-frame. MTU checks look at this. The frame's data starts at the IP header; a super-frame in a tunnel has
/// a pending checksum, which says where its transport header is.
#[inline]
pub fn largest_segment(frame: &Frame, packet: &Packet) -> u32 {
    let Some(gso) = frame.meta.gso else { return packet.len };
    let l4 = frame.meta.csum.map_or(usize::from(packet.l4), |c| usize::from(c.start));
    let header = match gso.kind {
        GsoKind::TcpV4 | GsoKind::TcpV6 => frame.data().get(l4 + 12).map_or(20, |b| usize::from(b >> 4) * 4),
        GsoKind::UdpL4 => 8,
    };
    packet.len.min((l4 + header) as u32 + u32::from(gso.size))
}

#[cfg(test)]
mod tests;
