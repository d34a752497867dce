//! Bounded queues. A full one loses packets and counts them; buffers go round, so that a worker allocates none once the
//! queue has been filled for the first time.

use crossbeam_channel::{Receiver, Sender, bounded};
use router_core::drop_reason::DropReason;
use router_core::frame::Meta;
use router_core::port::PortId;
use router_core::time::Instant;
use router_core::trace::{CaptureSink, Captured, Point, StepRecord, TraceSink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A captured packet; see [`Captured`].
#[derive(Clone, Debug)]
pub struct CapturedPacket {
    /// When its batch was received.
    pub at: Instant,
    /// Where.
    pub point: Point,
    /// The port or tunnel.
    pub port: PortId,
    /// On its way in.
    pub inbound: bool,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Its length.
    pub len: u32,
    /// Whether the bytes start with an Ethernet header.
    pub ethernet: bool,
    /// What is known beside the bytes.
    pub meta: Meta,
    /// Its bytes, perhaps not all.
    pub data: Vec<u8>,
}

#[derive(Clone)]
struct CaptureQueue {
    out: Sender<CapturedPacket>,
    spare: Receiver<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl CaptureSink for CaptureQueue {
    fn push(&mut self, c: &Captured<'_>) {
        if self.out.is_full() {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        let mut data = self.spare.try_recv().unwrap_or_default();
        data.clear();
        data.extend_from_slice(c.data);
        let packet = CapturedPacket {
            at: c.at,
            point: c.point,
            port: c.port,
            inbound: c.inbound,
            reason: c.reason,
            len: c.len,
            ethernet: c.ethernet,
            meta: c.meta,
            data,
        };
        if self.out.try_send(packet).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// The reading end of a capture.
#[derive(Debug)]
pub struct Feed {
    packets: Receiver<CapturedPacket>,
    spare: Sender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Feed {
    /// The next packet, without waiting: a reader that slept in the queue would cost the workers a system call each time.
    pub fn take(&self) -> Option<CapturedPacket> {
        self.packets.try_recv().ok()
    }

    /// Gives a packet's buffer back.
    pub fn give_back(&self, packet: CapturedPacket) {
        let _ = self.spare.try_send(packet.data);
    }

    /// Packets that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// A queue for `capacity` packets: sinks for as many workers as wanted, and the reading end.
pub fn capture_queue(capacity: usize) -> (impl Fn() -> Box<dyn CaptureSink>, Feed) {
    let (out, packets) = bounded(capacity.max(1));
    let (spare_tx, spare) = bounded(capacity.max(1));
    let lost = Arc::new(AtomicU64::new(0));
    let queue = CaptureQueue { out, spare, lost: Arc::clone(&lost) };
    (move || Box::new(queue.clone()) as Box<dyn CaptureSink>, Feed { packets, spare: spare_tx, lost })
}

struct TraceQueue {
    worker: u16,
    out: Sender<(u16, StepRecord)>,
    lost: Arc<AtomicU64>,
}

impl TraceSink for TraceQueue {
    fn push(&mut self, record: StepRecord) {
        if self.out.try_send((self.worker, record)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// The reading end of a trace.
#[derive(Debug)]
pub struct TraceFeed {
    records: Receiver<(u16, StepRecord)>,
    lost: Arc<AtomicU64>,
}

impl TraceFeed {
    /// The next record and the number of its worker, without waiting.
    pub fn take(&self) -> Option<(u16, StepRecord)> {
        self.records.try_recv().ok()
    }

    /// Records that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// A queue for `capacity` records: sinks by number of worker, and the reading end.
pub fn trace_queue(capacity: usize) -> (impl Fn(u16) -> Box<dyn TraceSink>, TraceFeed) {
    let (out, records) = bounded(capacity.max(1));
    let lost = Arc::new(AtomicU64::new(0));
    let feed = TraceFeed { records, lost: Arc::clone(&lost) };
    (
        move |worker| Box::new(TraceQueue { worker, out: out.clone(), lost: Arc::clone(&lost) }) as Box<dyn TraceSink>,
        feed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_and_counts_and_buffers_go_round() {
        let (sink, feed) = capture_queue(2);
        let mut sink = sink();
        let packet = |data| Captured {
            at: Instant::ZERO,
            point: Point::Rx,
            port: PortId(1),
            inbound: true,
            reason: None,
            data,
            len: 5,
            ethernet: true,
            meta: Meta::default(),
        };
        for _ in 0..5 {
            sink.push(&packet(b"abc"));
        }
        assert_eq!(feed.lost(), 3);
        let first = feed.take().unwrap();
        assert_eq!((first.data.as_slice(), first.len), (&b"abc"[..], 5));
        let memory = first.data.as_ptr();
        feed.give_back(first);
        sink.push(&packet(b"de"));
        feed.take().unwrap();
        let again = feed.take().unwrap();
        assert_eq!((again.data.as_slice(), again.data.as_ptr()), (&b"de"[..], memory));
        assert!(feed.take().is_none());
    }
}
