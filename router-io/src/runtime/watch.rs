//! Watching packets of a running router: captures and traces, over all workers and the control side.

use super::Control;
use crate::capture::{Feed, TraceFeed, capture_queue, trace_queue};
use crate::worker::News;
use router_core::port::PortId;
use router_core::trace::{Filter, MAX_WATCHES, Points, StepRecord, Wanted, Watch};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Most packets of one trace.
pub const MAX_TRACED: u64 = 10_000;
/// Records that a packet is expected to need, for the size of the queue.
const RECORDS_PER_PACKET: usize = 24;

/// Captures and traces that are going on.
#[derive(Default)]
pub(super) struct Watches {
    next: u64,
    active: Vec<u64>,
    traces: Vec<Trace>,
}

/// A trace: what was asked for, and what came.
pub struct Trace {
    /// Its number.
    pub id: u64,
    /// The filter's text.
    pub filter: String,
    /// Packets asked for.
    pub count: u64,
    left: Arc<AtomicI64>,
    feed: TraceFeed,
    index: HashMap<(u16, u32), usize>,
    /// Packets seen so far, in order.
    pub packets: Vec<Traced>,
}

impl Trace {
    /// Packets still wanted.
    pub fn left(&self) -> u64 {
        u64::try_from(self.left.load(Relaxed)).unwrap_or(0)
    }

    /// Records that were lost because nobody read them in time.
    pub fn lost(&self) -> u64 {
        self.feed.lost()
    }

    fn drain(&mut self) {
        while let Some((worker, record)) = self.feed.take() {
            let at = *self.index.entry((worker, record.packet)).or_insert_with(|| {
                self.packets.push(Traced { worker, steps: Vec::new() });
                self.packets.len() - 1
            });
            if let Some(p) = self.packets.get_mut(at) {
                p.steps.push(record);
            }
        }
    }
}

/// A packet that was followed.
#[derive(Clone, Debug)]
pub struct Traced {
    /// By which worker; one beyond the last is the control side.
    pub worker: u16,
    /// What happened to it.
    pub steps: Vec<StepRecord>,
}

/// Why packets cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Too many do already.
    #[error("{MAX_WATCHES} captures and traces are going on already")]
    TooMany,
}

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    /// Its number: hand it to [`Control::unwatch`].
    pub id: u64,
    /// Where its packets come out.
    pub feed: Feed,
}

impl Watches {
    /// Whether somebody watches.
    pub(super) fn is_active(&self) -> bool {
        !self.active.is_empty()
    }
}

impl Control {
    /// Starts to copy packets.
    pub fn capture(
        &mut self,
        filter: Filter,
        points: Points,
        snap: usize,
        capacity: usize,
    ) -> Result<Capture, WatchError> {
        let (sink, feed) = capture_queue(capacity);
        let id = self.watch_all(|id, _| Watch {
            id,
            filter: filter.clone(),
            wanted: Wanted::Capture { points, snap, sink: sink() },
        })?;
        Ok(Capture { id, feed })
    }

    /// Starts to follow `count` packets.
    pub fn trace(&mut self, filter: Filter, text: &str, count: u64) -> Result<u64, WatchError> {
        let count = count.clamp(1, MAX_TRACED);
        let left = Arc::new(AtomicI64::new(count as i64));
        let (sink, feed) = trace_queue(count as usize * RECORDS_PER_PACKET);
        let id = self.watch_all(|id, worker| Watch {
            id,
            filter: filter.clone(),
            wanted: Wanted::Trace { left: Arc::clone(&left), sink: sink(worker) },
        })?;
        let index = HashMap::new();
        self.watches.traces.push(Trace { id, filter: text.to_owned(), count, left, feed, index, packets: Vec::new() });
        Ok(id)
    }

    /// All traces, with what has come until now.
    pub fn traces(&mut self) -> &[Trace] {
        self.watches.traces.iter_mut().for_each(Trace::drain);
        let done: Vec<u64> = self.watches.traces.iter().filter(|t| t.left() == 0).map(|t| t.id).collect();
        for id in done {
            self.unwatch(id);
        }
        &self.watches.traces
    }

    /// Ends and forgets one trace; false if there is none of this number.
    pub fn clear_trace(&mut self, id: u64) -> bool {
        let before = self.watches.traces.len();
        self.watches.traces.retain(|t| t.id != id);
        self.unwatch(id);
        self.watches.traces.len() < before
    }

    /// Ends and forgets all traces; says how many there were.
    pub fn clear_traces(&mut self) -> usize {
        let traces = std::mem::take(&mut self.watches.traces);
        traces.iter().for_each(|t| self.unwatch(t.id));
        traces.len()
    }

    /// Ends a capture or trace.
    pub fn unwatch(&mut self, id: u64) {
        let before = self.watches.active.len();
        self.watches.active.retain(|a| *a != id);
        if self.watches.active.len() == before {
            return;
        }
        self.router.tap().remove(id);
        for worker in &self.workers {
            let _ = worker.news.send(News::Unwatch(id));
            worker.wake.ring();
        }
    }

    /// Gives every worker, and the control side, its watch.
    fn watch_all(&mut self, make: impl Fn(u64, u16) -> Watch) -> Result<u64, WatchError> {
        if self.watches.active.len() >= MAX_WATCHES {
            return Err(WatchError::TooMany);
        }
        self.watches.next += 1;
        let id = self.watches.next;
        self.watches.active.push(id);
        // Whoever watches sees every packet from here on.
        self.suspend_flows();
        for (i, worker) in self.workers.iter().enumerate() {
            let _ = worker.news.send(News::Watch(Box::new(make(id, i as u16))));
            worker.wake.ring();
        }
        let tables = self.router.tables();
        let tap = self.router.tap();
        tap.learn_ports(&tables);
        tap.add(make(id, self.workers.len() as u16));
        Ok(id)
    }

    /// The name of a port or tunnel, as captures show it.
    pub fn port_name(&self, id: PortId) -> String {
        self.router.ports().get(id).map_or_else(|| "router".to_owned(), |p| p.name.clone())
    }
}
