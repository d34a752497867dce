//! Pending checksums (Linux CHECKSUM_PARTIAL).

use super::segment::Layout;
use crate::checksum::Sum;
use crate::drop_reason::DropReason;
use crate::frame::{Frame, PartialChecksum};

/// Computes a pending checksum, if there is one: the sum from its start to the end of the data, inverted. All ones stand
/// for a zero result, which UDP must not send (RFC 768) and which means the same to the others.
///
/// The data must end where the packet ends: no link-layer padding.
pub fn complete_checksum(frame: &mut Frame) -> Result<(), DropReason> {
    let Some(c) = frame.meta.csum else { return Ok(()) };
    let bytes = frame.data_mut().get_mut(usize::from(c.start)..).ok_or(DropReason::OffloadMalformed)?;
    let sum = Sum::of(bytes).finish_udp();
    let at = usize::from(c.offset);
    let field = bytes.get_mut(at..at + 2).ok_or(DropReason::OffloadMalformed)?;
    field.copy_from_slice(&sum.to_be_bytes());
    frame.meta.csum = None;
    Ok(())
}

/// Makes the checksum of a TCP or UDP packet a pending one again, as a port that takes super-frames expects it; nothing
/// when it is pending already. The data starts at the IP header.
pub fn make_partial(frame: &mut Frame) -> Result<(), DropReason> {
    let layout = Layout::of(frame.data()).ok_or(DropReason::OffloadMalformed)?;
    if frame.meta.csum.is_none() {
        let end = frame.len();
        layout.write_checksum(frame.data_mut(), end, false);
    }
    let fits = |c: PartialChecksum| usize::from(c.start) + usize::from(c.offset) + 2 <= frame.len();
    let c = frame.meta.csum.unwrap_or(layout.partial());
    if !fits(c) {
        return Err(DropReason::OffloadMalformed);
    }
    frame.meta.csum = Some(c);
    Ok(())
}
