//! The atomics that tables are published with, and the sizes of their memory, in one place: the tests under the model
//! checker ([`super::model`]) compile the engine again with others.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Words of a segment of memory, as a power of two: 64 MiB, which hold any table of the Internet.
pub(super) const SEGMENT_LOG2: u32 = 23;
pub(super) const SEGMENT: usize = 1 << SEGMENT_LOG2;

/// Segments: 2 GiB together.
pub(super) const SEGMENTS: usize = 32;

/// Slots of a direct root: one for each value of the first 16 bits. (The model has a few for all of them.)
pub(super) const ROOT_SLOTS: usize = 1 << 16;

/// Answers below this number have a constant node, for direct roots: those that fit into a value of 16 bits.
pub(super) const CONSTANT_NODES: u32 = 0x8000;

/// Routes from which on a table gets a direct root.
pub(super) const DIRECT_FROM: u32 = 2048;
/// Direct roots that are given away to tables without asking for their size: the main one should have its own.
pub(super) const DIRECT_FREE: usize = 4;

/// How links to new nodes are stored: all that was written into them must be seen with them.
pub(super) const PUBLISH: Ordering = Ordering::Release;
/// Whether a lookup that needs the zero-length prefix reads it a second time.
pub(super) const READ_AGAIN: bool = true;

/// A segment of zeros. The system maps its pages when they are first written, so what is not used costs nothing.
/// None when there is no memory.
pub(super) fn segment() -> Option<Box<[AtomicU64; SEGMENT]>> {
    <[AtomicU64; SEGMENT] as zerocopy::FromZeros>::new_box_zeroed().ok()
}
