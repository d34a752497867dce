//! The core's worker, with or without somebody who watches it: one branch per batch.

use crate::clock::Clock;
use crate::worker::Published;
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use router_core::port::PortId;
use router_core::time::Instant;
use router_core::trace::{Tap, Watch};
use router_core::worker::{Outbox, Punt, TableSource, Worker};

/// See the module. One of the two is there.
pub(super) struct Core {
    plain: Option<Worker>,
    watched: Option<Box<Worker<Tap>>>,
    /// Of the snapshot that the tap last looked at.
    version: Option<u64>,
}

impl Core {
    pub fn new(worker: Worker) -> Self {
        Core { plain: Some(worker), watched: None, version: None }
    }

    /// Treats a batch of frames.
    #[inline]
    pub fn process(
        &mut self,
        now: Instant,
        source: &mut Published,
        port: PortId,
        batch: &mut Vec<Frame>,
        out: &mut Outbox,
    ) {
        match (&mut self.plain, &mut self.watched) {
            (Some(worker), _) => worker.process(now, source, port, batch, out),
            (None, Some(worker)) => {
                let tables = source.newest();
                if self.version != Some(tables.version) {
                    self.version = Some(tables.version);
                    worker.observer().learn_ports(&tables);
                }
                drop(tables);
                worker.process(now, source, port, batch, out);
                if worker.observer().is_idle() {
                    self.stop_watching();
                }
            }
            (None, None) => {}
        }
    }

    /// Frames are about to be given to a port.
    #[inline]
    pub fn sent(&mut self, clock: &Clock, port: PortId, frames: &[Frame]) {
        if let Some(worker) = &mut self.watched {
            worker.observer().sent(clock.now(), port, frames);
        }
    }

    /// See [`Worker::punt_refused`].
    pub fn punt_refused(&mut self, now: Instant, punt: Punt, reason: DropReason) -> Frame {
        match (&self.plain, &self.watched) {
            (Some(worker), _) => worker.punt_refused(now, punt, reason),
            (None, Some(worker)) => worker.punt_refused(now, punt, reason),
            (None, None) => punt.into_frame(),
        }
    }

    /// Lets somebody watch.
    pub fn watch(&mut self, watch: Watch, clock: &Clock) {
        if let Some(plain) = self.plain.take() {
            let clock = clock.clone();
            let (watched, _) = plain.watch(Tap::new(Box::new(move || clock.now())));
            self.watched = Some(Box::new(watched));
            self.version = None;
        }
        if let Some(worker) = &mut self.watched {
            worker.observer().add(watch);
        }
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, id: u64) {
        if let Some(worker) = &mut self.watched {
            worker.observer().remove(id);
            if worker.observer().is_idle() {
                self.stop_watching();
            }
        }
    }

    fn stop_watching(&mut self) {
        if let Some(worker) = self.watched.take() {
            let (plain, _tap) = worker.watch(router_core::observe::Silent);
            self.plain = Some(plain);
        }
    }
}
