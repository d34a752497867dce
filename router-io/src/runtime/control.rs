//! The control thread: the only writer. It owns the router's control side, the devices, and the snapshots that workers
//! may still be reading.

use super::Never;
use super::flows::Agent;
use super::ports::OpenPort;
use super::watch::Watches;
use crate::clock::{Clock, VirtualClock};
use crate::netlink::LinkMonitor;
use crate::port::open::Opener;
use crate::sys::wake::Wake;
use crate::worker::reports::ReportReceiver;
use crate::worker::{News, POOL, Report};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use router_core::counters::{PortTotals, Totals, WorkerCounters};
use router_core::drop_reason::DropReason;
use router_core::frame::{FramePool, MAX_FRAME};
use router_core::journal::{Happened, Subject};
use router_core::port::PortId;
use router_core::router::Router;
use router_core::tables::Tables;
use router_core::time::{Duration, Instant};
use router_core::trace::Tap;
use router_core::worker::Outbox;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A command from outside.
pub(super) type Command = Box<dyn FnOnce(&mut Control) + Send>;

/// Commands, and reports of workers, taken in one turn: neither keeps the other waiting, nor the timers.
const COMMANDS_PER_TURN: usize = 32;
const REPORTS_PER_TURN: usize = 256;
/// Idle workers hold on to an old snapshot; after this time they are asked to look at the new one.
const RECLAIM: Duration = Duration::from_millis(100);
/// The same, at once, when so many snapshots wait: memory of the tables is only reused when they are gone.
const MANY_RETIRED: usize = 8;
/// Empty frames that the control side keeps at hand.
const SPARE_FRAMES: usize = 64;

/// One worker as seen from here.
pub(super) struct WorkerLink {
    pub news: Sender<News>,
    pub wake: Wake,
    pub counters: Arc<WorkerCounters>,
}

/// What a control side is made of.
pub(super) struct ControlParts {
    pub router: Router,
    pub clock: Clock,
    pub virtual_clock: VirtualClock,
    pub tables: Arc<ArcSwap<Tables>>,
    pub counters: Arc<WorkerCounters>,
    pub workers: Vec<WorkerLink>,
    pub commands: Receiver<Command>,
    pub reports: ReportReceiver,
    pub wake: Wake,
    pub max_ports: usize,
    pub alive: Sender<Never>,
}

/// Whether a turn left work behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Everything that waited was done.
    Yes,
    /// More waits: take another turn.
    No,
}

/// Is told what changed, in order, and how many changes were too many to be kept.
pub type Watcher = Box<dyn FnMut(&Control, Vec<(Happened, Subject)>, u64) + Send>;

/// The control side of a running router, lent to commands (see [`super::RouterHandle::call`]).
pub struct Control {
    pub(super) router: Router,
    pub(super) clock: Clock,
    pub(super) out: Outbox,
    pub(super) workers: Vec<WorkerLink>,
    pub(super) ports: BTreeMap<PortId, OpenPort>,
    pub(super) opener: Opener,
    pub(super) links: Option<LinkMonitor>,
    pub(super) watches: Watches,
    /// None: nothing is offloaded.
    pub(super) flows: Option<Agent>,
    tables: Arc<ArcSwap<Tables>>,
    /// Former snapshots: freed here, once no worker holds them any more.
    retired: Vec<Arc<Tables>>,
    reclaim_at: Option<Instant>,
    deadline: Option<Instant>,
    pub(super) counters: Arc<WorkerCounters>,
    commands: Receiver<Command>,
    reports: ReportReceiver,
    wake: Wake,
    stopping: bool,
    watcher: Option<Watcher>,
    /// Dropped last: [`super::RouterHandle::is_alive`] looks at the other end.
    _alive: Sender<Never>,
}

impl Control {
    pub(super) fn new(parts: ControlParts) -> Self {
        let (mut router, clock) = (parts.router, parts.clock.clone());
        *router.tap() = Tap::new(Box::new(move || clock.now()));
        Control {
            router,
            out: Outbox::new(parts.max_ports, FramePool::new(POOL, MAX_FRAME)),
            workers: parts.workers,
            ports: BTreeMap::new(),
            opener: Opener::new(parts.virtual_clock),
            links: None,
            watches: Watches::default(),
            flows: None,
            clock: parts.clock,
            tables: parts.tables,
            retired: Vec::new(),
            reclaim_at: None,
            deadline: None,
            counters: parts.counters,
            commands: parts.commands,
            reports: parts.reports,
            wake: parts.wake,
            stopping: false,
            watcher: None,
            _alive: parts.alive,
        }
    }

    /// Calls `watcher` at the end of each turn in which something changed, on the control thread: it must not wait. None
    /// ends that.
    pub fn watch(&mut self, watcher: Option<Watcher>) {
        self.router.follow(watcher.is_some());
        self.watcher = watcher;
    }

    fn tell_watcher(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        let (changes, lost) = self.router.take_changes();
        if !(changes.is_empty() && lost == 0)
            && let Some(mut watcher) = self.watcher.take()
        {
            watcher(self, changes, lost);
            self.watcher = Some(watcher);
        }
    }

    /// Tells the operator who else uses an address of the router (RFC 5227 2.4, RFC 4862 5.4.5).
    fn tell_conflicts(&mut self) {
        for (id, addr, mac) in self.router.take_conflicts() {
            let port = self.router.ports().get(id).map(|p| p.name.as_str()).unwrap_or_default();
            let station = mac.map(|m| m.to_string()).unwrap_or_default();
            let given_up = self.router.duplicates(id).iter().any(|n| n.addr() == addr);
            let what = if given_up {
                "another station has this address: it is not used"
            } else {
                "another station uses an address of this router"
            };
            tracing::warn!(port, address = %addr, station, "{what}");
        }
    }

    /// The router's tables and state, to read.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The router, to change. Changes come into force with [`Control::commit`], at the latest after the command.
    pub fn router_mut(&mut self) -> &mut Router {
        &mut self.router
    }

    /// The router together with what its commands ask for: the present time, and where to leave frames.
    pub fn router_parts(&mut self) -> (&mut Router, Instant, &mut Outbox) {
        (&mut self.router, self.clock.now(), &mut self.out)
    }

    /// The present time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Makes all changes visible to the workers. A long list takes several slices; between them punts are served, so
    /// that loading a full table does not keep neighbours waiting.
    pub fn commit(&mut self) {
        while self.commit_slice() {
            self.take_reports();
            self.deliver();
        }
    }

    /// One slice; true when some is left.
    fn commit_slice(&mut self) -> bool {
        let (tables, retired, workers, counters) = (&self.tables, &mut self.retired, &self.workers, &self.counters);
        let flows = &self.flows;
        let more = self.router.commit(self.clock.now(), &mut |new| {
            // What was offloaded was decided on other tables.
            flows.iter().for_each(Agent::void);
            let ports = new.ports.places();
            workers.iter().map(|w| &w.counters).chain([counters]).for_each(|c| c.make_room(ports));
            retired.push(tables.swap(Arc::clone(new)));
        });
        if let Some(agent) = &mut self.flows {
            agent.void_if_written(self.router.routing().fib_writes());
        }
        more
    }

    /// Asks the control thread to end after this turn.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The counters of every worker and of the control side itself.
    pub fn all_counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.workers.iter().map(|w| &*w.counters).chain(std::iter::once(&*self.counters))
    }

    /// Number of workers, the control side not counted.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// Former snapshots that some worker may still be reading. Their memory goes when the last one has moved on.
    pub fn retired_snapshots(&self) -> usize {
        self.retired.len()
    }

    /// Counters of the whole router. While traffic flows, the values are from slightly different moments.
    pub fn totals(&self) -> Totals {
        Totals::sum(self.all_counters())
    }

    /// Counters of one port or tunnel.
    pub fn port_totals(&self, id: PortId) -> PortTotals {
        let rx_missed = self.ports.get(&id).map_or(0, |p| p.missed);
        PortTotals { rx_missed, ..PortTotals::sum(id, self.all_counters()) }
    }

    /// Runs until told to stop; dropping `self` closes everything.
    pub(super) fn run(mut self) {
        while !self.stopping {
            if self.turn() == Settled::Yes && !self.stopping {
                self.sleep();
            }
        }
        // In order, not after a panic: hosts look for another default router at once.
        self.router.farewell(self.clock.now(), &mut self.out);
        self.deliver();
    }

    /// Does everything that waits, once: commands, reports of workers, link changes, timers; then publishes and sends.
    pub(super) fn turn(&mut self) -> Settled {
        self.wake.listen();
        if !self.commands.is_empty() {
            self.collect_flows();
        }
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            command(self);
        }
        self.take_reports();
        self.follow_links();
        let now = self.clock.now();
        self.deadline = self.router.poll(now, &mut self.out);
        self.commit();
        self.offload_turn();
        self.tell_conflicts();
        self.tell_watcher();
        self.deliver();
        self.reclaim(now);
        self.out.pool.refill(SPARE_FRAMES);
        if self.commands.is_empty() && self.reports.is_empty() { Settled::Yes } else { Settled::No }
    }

    /// Takes a bounded number of the workers' reports.
    fn take_reports(&mut self) {
        let now = self.clock.now();
        for _ in 0..REPORTS_PER_TURN {
            match self.reports.take() {
                Ok(Report::Punt(punt)) => self.router.handle(now, punt, &mut self.out),
                Ok(Report::Event(id, event)) => self.port_event(id, event),
                Err(_) => break,
            }
        }
    }

    /// When the router next has something to do by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Hands frames that the control side made to the workers. A port's frames always take the same worker, so they
    /// stay in order.
    fn deliver(&mut self) {
        for (i, frames) in self.out.tx.iter_mut().enumerate().filter(|(_, frames)| !frames.is_empty()) {
            let id = PortId(i as u32);
            let worker = &self.workers[i % self.workers.len()];
            // The worker frees them.
            frames.iter_mut().for_each(|f| self.out.pool.keep(f));
            match worker.news.try_send(News::Send(id, std::mem::take(frames))) {
                Ok(()) => worker.wake.ring(),
                Err(TrySendError::Full(news) | TrySendError::Disconnected(news)) => {
                    let News::Send(_, lost) = news else { continue };
                    for frame in lost {
                        self.counters.tx_failed(id, frame.len(), DropReason::TxFull);
                        self.out.pool.put(frame);
                    }
                }
            }
        }
        // Work that the control side does itself never punts to itself.
        debug_assert!(self.out.punts.is_empty());
    }

    /// Frees former snapshots that nobody reads any more.
    fn reclaim(&mut self, now: Instant) {
        self.retired.retain(|t| Arc::strong_count(t) > 1);
        if self.retired.is_empty() {
            self.reclaim_at = None;
            return;
        }
        let due = self.reclaim_at.is_some_and(|at| now >= at);
        if due || self.retired.len() >= MANY_RETIRED {
            self.workers.iter().for_each(|w| w.wake.ring());
        }
        if due || self.reclaim_at.is_none() {
            self.reclaim_at = Some(now + RECLAIM);
        }
    }

    /// Waits for something to do.
    fn sleep(&mut self) {
        let next =
            [self.deadline, self.reclaim_at, self.flows.as_ref().map(Agent::deadline)].into_iter().flatten().min();
        let timeout = next.map(|at| {
            let span = at.saturating_since(self.clock.now());
            Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) }
        });
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        if let Some(links) = &self.links {
            fds.push(PollFd::from_borrowed_fd(links.as_fd(), PollFlags::IN));
        }
        // Whatever it says, the next turn looks at everything.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

impl Drop for Control {
    /// Ends the workers, then lets go of devices and undoes what was changed on them; after a panic of this thread too.
    fn drop(&mut self) {
        for worker in &self.workers {
            // Blocks only while the worker catches up; an ended worker's channel is disconnected.
            let _ = worker.news.send(News::Stop);
            worker.wake.ring();
        }
        self.ports.clear();
    }
}
