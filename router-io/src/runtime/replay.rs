//! Capture files through the router in virtual time: the same input gives the same output bytes.
//!
//! One worker and the control side take turns on the calling thread. The clock jumps from one event to the next: a
//! frame's timestamp, or a deadline of the router.

use super::control::{Control, Settled};
use super::{RuntimeConfig, assemble};
use crate::clock::{Clock, VirtualClock};
use crate::port::PortError;
use crate::worker::Worker;
use router_core::counters::Totals;
use router_core::time::{Duration, Instant};
use std::io;

/// How long timers go on after the last frame: enough for neighbour resolution to give up.
const GRACE: Duration = Duration::from_secs(10);
/// The seed when the configuration names none: replays are repeatable.
const SEED: u64 = 1;

/// A router that replays capture files.
pub struct Replay {
    control: Control,
    worker: Worker,
    clock: VirtualClock,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture file is broken or could not be written.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl Replay {
    /// A router without ports; add them, and routes, through [`Replay::control`].
    pub fn new(mut config: RuntimeConfig) -> io::Result<Self> {
        config.workers = 1;
        config.seed.get_or_insert(SEED);
        let clock = VirtualClock::default();
        let (control, mut workers, _) = assemble(config, Clock::Virtual(clock.clone()))?;
        match workers.pop() {
            Some(worker) => Ok(Replay { control, worker, clock }),
            None => Err(io::Error::other("a router without workers")),
        }
    }

    /// The control side, for commands before the run.
    pub fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// Replays all input to its end and writes out all output. Returns the counters of the whole run.
    pub fn run(mut self) -> Result<Totals, ReplayError> {
        self.control.commit();
        let mut last_frame = None;
        loop {
            let frame = self.next_frame();
            last_frame = frame.or(last_frame);
            let timer = self.control.deadline();
            let next = match (frame, timer) {
                (Some(f), Some(t)) => f.min(t),
                (Some(f), None) => f,
                (None, Some(t)) if last_frame.is_some_and(|f: Instant| t <= f + GRACE) => t,
                (None, _) => break,
            };
            self.clock.advance_to(next);
            self.settle();
        }
        let totals = self.control.totals();
        let timelines: Vec<_> =
            self.control.open_ports().filter_map(|(_, p)| Some((p.config.clone(), p.timeline.clone()?))).collect();
        // Closes the files.
        drop(self.worker);
        for (config, timeline) in timelines {
            if let Some(source) = timeline.take_error() {
                let path = config.input.or(config.output).unwrap_or_default();
                return Err(PortError::Capture { port: config.name, path, source }.into());
            }
        }
        Ok(totals)
    }

    /// Lets worker and control side work until nothing is left to do at this instant.
    fn settle(&mut self) {
        loop {
            self.worker.take_news();
            let busy = self.worker.serve_all();
            let settled = self.control.turn();
            self.worker.take_news();
            let due = self.control.deadline().is_some_and(|t| t <= self.clock.now());
            if !busy && settled == Settled::Yes && !due {
                return;
            }
        }
    }

    fn next_frame(&self) -> Option<Instant> {
        self.control.open_ports().filter_map(|(_, p)| p.timeline.as_ref()?.next()).min()
    }
}
