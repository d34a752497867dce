//! The atomics that tables are published with, and the sizes of their memory, in one place: the model checker's tests
//! compile the engine a second time, with their own.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Words of a segment of memory, as a power of two: 64 MiB, which hold any table of the Internet.
pub(super) const SEGMENT_LOG2: u32 = 23;
pub(super) const SEGMENT: usize = 1 << SEGMENT_LOG2;

/// Segments: 4 GiB together.
pub(super) const SEGMENTS: usize = 64;

/// Entries below this number fit into a 16-bit value, and have a node of their own for direct roots.
pub(super) const SMALL: u32 = 0x8000;

/// A segment of zeros. The system maps its pages when they are first written, so what is not used costs nothing.
/// None when there is no memory.
pub(super) fn segment() -> Option<Box<[AtomicU64; SEGMENT]>> {
    <[AtomicU64; SEGMENT] as zerocopy::FromZeros>::new_box_zeroed().ok()
}
