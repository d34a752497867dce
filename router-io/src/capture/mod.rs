//! Packets on their way from workers to whoever watches: bounded queues that never make a worker wait, and the pcapng
//! files that end up on disk.

pub mod pcapng;
mod queue;
pub mod rotate;

pub use queue::{CapturedPacket, Feed, TraceFeed, capture_queue, trace_queue};
