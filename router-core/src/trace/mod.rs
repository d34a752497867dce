//! Watching live packets: which ones ([`Filter`]), and what of them ([`Tap`]).
//!
//! A worker that nobody watches has no tap. A watched one keeps forwarding what no filter wants on its fast path; a
//! packet that somebody follows takes the general path, at its place in the order, and each step becomes a record in a
//! bounded queue that the caller has handed in. Nothing here waits or allocates per packet; a full queue is counted.

mod filter;
mod last;
mod tap;

pub use filter::{Filter, FilterError, MAX_PRIMITIVES, Subject};
pub use last::{LastDrop, LastDrops};
pub use tap::{CaptureSink, Captured, Event, MAX_WATCHES, Point, Points, StepRecord, Tap, TraceSink, Wanted, Watch};
