//! A worker: one thread that owns one queue of every port and runs each batch to completion.
//!
//! The rhythm of a turn: take news from the control thread; for each port with frames, read the clock once, receive a
//! batch, let the core process it, send what it left for each port, hand what it punted to the control thread. Every
//! port gets at most one batch per turn, so a busy port cannot starve a quiet one. With nothing to do the thread looks
//! again for a moment where that has paid before ([`patience`]), then sleeps in epoll. It never locks, never waits for
//! another thread, and a full channel is a counted drop.

mod patience;
pub mod reports;
mod watched;

use crate::clock::Clock;
use crate::port::{BATCH, Port, PortEvent, RecvReport, SendReport};
use crate::sys::wake::Wake;
use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, TryRecvError};
use patience::{Patience, Wait};
use reports::ReportSender;
use router_core::counters::WorkerCounters;
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool, MAX_FRAME};
use router_core::offload;
use router_core::port::{Medium, PortId};
use router_core::tables::Tables;
use router_core::time::Instant;
use router_core::trace::Watch;
use router_core::worker::{Outbox, Punt, TableSource};
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Buffers of one worker. Their memory is touched only as far as packets fill it.
pub const POOL: usize = 2048;
/// Key of the wake-up fd in the epoll set; ports use their index.
const WAKE: u64 = u64::MAX;

/// Turns without a look at the epoll set while ports that can be looked at for free keep a worker busy: what the control
/// thread says, and other ports, wait no longer than these take.
const TURNS: u32 = 8;

/// Length of an Ethernet header. Frames with a VLAN tag in their bytes are none of those that are joined.
const LINK: usize = 14;

/// Every so many batches all egress lists are looked through.
const FULL_SWEEP: u64 = 1024;

/// What the control thread tells a worker.
pub enum News {
    /// A port was added; this is the worker's queue of it.
    AddQueue(PortId, Box<dyn Port>),
    /// A port was removed; the worker closes its queue.
    RemoveQueue(PortId),
    /// Frames to send that the control side made, complete for the port and counted there.
    Send(PortId, Vec<Frame>),
    /// Somebody wants to see packets.
    Watch(Box<Watch>),
    /// No longer.
    Unwatch(u64),
    /// End.
    Stop,
}

/// What a worker tells the control thread.
pub enum Report {
    /// A frame that needs the control side.
    Punt(Punt),
    /// Something happened to a port.
    Event(PortId, PortEvent),
}

/// The published snapshot as seen by one reader.
pub struct Published {
    cache: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    /// None while it is lent.
    current: Option<Arc<Tables>>,
}

impl Published {
    /// Follows `tables`.
    pub fn new(tables: Arc<ArcSwap<Tables>>) -> Self {
        Published { cache: Cache::new(tables), current: None }
    }

    /// Makes the newest published snapshot the one in use, and lets go of the former.
    pub fn refresh(&mut self) {
        let newest = self.cache.load();
        if self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(newest, current)) {
            self.current = Some(Arc::clone(newest));
        }
    }
}

impl TableSource for Published {
    fn lend(&mut self) -> Arc<Tables> {
        self.current.take().unwrap_or_else(|| self.newest())
    }

    fn give_back(&mut self, tables: Arc<Tables>) {
        self.current = Some(tables);
    }

    fn newest(&mut self) -> Arc<Tables> {
        Arc::clone(self.cache.load())
    }
}

/// Everything a worker is made of; see the module.
pub struct WorkerParts {
    /// The clock of the router.
    pub clock: Clock,
    /// The published snapshot.
    pub tables: Arc<ArcSwap<Tables>>,
    /// This worker's own counters.
    pub counters: Arc<WorkerCounters>,
    /// Decides which member of a group a flow takes; the same in all workers.
    pub seed: u64,
    /// Room for ports and tunnels.
    pub max_ports: usize,
    /// From the control thread.
    pub news: Receiver<News>,
    /// Rung after news was sent.
    pub wake: Wake,
    /// To the control thread.
    pub reports: ReportSender,
    /// Rung after reports were sent.
    pub wake_control: Wake,
}

/// A worker that is not yet running, or is driven by hand.
pub struct Worker {
    clock: Clock,
    core: watched::Core,
    tables: Published,
    counters: Arc<WorkerCounters>,
    news: Receiver<News>,
    wake: Wake,
    reports: ReportSender,
    wake_control: Wake,
    /// By port index.
    queues: Vec<Option<Box<dyn Port>>>,
    epoll: OwnedFd,
    out: Outbox,
    batch: Vec<Frame>,
    /// Ports that are looked at without a system call.
    cheap: Vec<PortId>,
    sent: SendReport,
    flushes: u64,
    stopping: bool,
}

impl Worker {
    /// Puts a worker together.
    pub fn new(parts: WorkerParts) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &parts.wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Worker {
            clock: parts.clock,
            core: watched::Core::new(router_core::worker::Worker::new(Arc::clone(&parts.counters), parts.seed)),
            tables: Published::new(parts.tables),
            counters: parts.counters,
            news: parts.news,
            wake: parts.wake,
            reports: parts.reports,
            wake_control: parts.wake_control,
            queues: Vec::new(),
            epoll,
            out: Outbox::new(parts.max_ports, FramePool::new(POOL, MAX_FRAME)),
            batch: Vec::with_capacity(BATCH),
            cheap: Vec::with_capacity(parts.max_ports),
            sent: SendReport::default(),
            flushes: 0,
            stopping: false,
        })
    }

    /// Runs until told to stop.
    pub fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let mut patience = Patience::default();
        while !self.stopping {
            // A look at what costs nothing to look at.
            let mut any = true;
            for _ in 0..TURNS {
                any = self.serve_cheap();
                if !any {
                    break;
                }
            }
            // A look at everything; a wait if there was nothing for long enough.
            let wait = if any { Wait::No } else { patience.next(self.clock.now()) };
            events.clear();
            let limit = (wait == Wait::No).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if wait == Wait::Yes {
                patience.woken(self.clock.now());
            }
            // News first: a port that was just removed must not get another batch.
            if events.iter().any(|e| e.data.u64() == WAKE) {
                self.take_news();
            }
            for event in &events {
                if let Ok(id) = u32::try_from(event.data.u64()) {
                    any |= self.serve(PortId(id));
                }
            }
            if any {
                patience.busy();
            }
        }
        Ok(())
    }

    /// Serves once every port that is looked at without a system call. True: some had frames.
    fn serve_cheap(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.cheap.len() {
            any |= self.serve(self.cheap[i]);
        }
        any
    }

    /// Takes everything that the control thread has sent, and the newest snapshot.
    pub fn take_news(&mut self) {
        self.wake.listen();
        self.tables.refresh();
        loop {
            let news = match self.news.try_recv() {
                Ok(news) => news,
                Err(TryRecvError::Empty) => return,
                // Nobody is left to tell us anything.
                Err(TryRecvError::Disconnected) => News::Stop,
            };
            match news {
                News::AddQueue(id, queue) => self.add_queue(id, queue),
                News::RemoveQueue(id) => self.close_queue(id),
                News::Send(id, mut frames) => {
                    self.send(id, &mut frames);
                    self.report_sent(id);
                }
                News::Watch(watch) => self.core.watch(*watch, &self.clock),
                News::Unwatch(id) => self.core.unwatch(id),
                News::Stop => return self.stopping = true,
            }
        }
    }

    /// Serves every port once, for a worker that is driven by hand. True: some port had frames.
    pub fn serve_all(&mut self) -> bool {
        // Not a fold that stops at the first: each port gets its batch.
        let mut any = false;
        for i in 0..self.queues.len() {
            any |= self.serve(PortId(i as u32));
        }
        any
    }

    /// Receives one batch from a port and carries it through to the end. True: there were frames.
    fn serve(&mut self, id: PortId) -> bool {
        let Some(Some(queue)) = self.queues.get_mut(id.index()) else { return false };
        self.tables.refresh();
        let now = self.clock.now();
        let mut report = RecvReport::default();
        queue.recv_batch(BATCH, &mut self.out.pool, &mut self.batch, &mut report);
        // After losses the queue is full, and so is the batch: no need to ask otherwise.
        if self.batch.len() >= BATCH || report.heavy {
            let lost = queue.take_overruns();
            if lost > 0 {
                tell(&self.reports, &self.wake_control, id, PortEvent::Overrun(lost));
            }
        }
        let any = !self.batch.is_empty();
        if any {
            self.core.process(now, &mut self.tables, id, &mut self.batch, &mut self.out);
            self.flush(now);
        }
        self.account(id, report);
        any
    }

    /// Sends what the core has left, and hands over its punts.
    fn flush(&mut self, now: Instant) {
        // Frames are for ports with a queue here, hardly ever for one that was just removed: the long rest of the lists
        // (tunnels, free indexes) is only looked at now and then.
        self.flushes += 1;
        let all = self.flushes.is_multiple_of(FULL_SWEEP);
        for i in 0..if all { self.out.tx.len() } else { self.queues.len().min(self.out.tx.len()) } {
            if self.out.tx[i].is_empty() {
                continue;
            }
            let id = PortId(i as u32);
            let mut frames = std::mem::take(&mut self.out.tx[i]);
            self.send(id, &mut frames);
            // The emptied list goes back, with its memory.
            self.out.tx[i] = frames;
            self.report_sent(id);
        }
        if self.out.punts.is_empty() {
            return;
        }
        for mut punt in self.out.punts.drain(..) {
            // The control thread may keep it for long, or for good: the buffer stays here.
            if self.reports.refusal(punt.frame().meta.port).is_none() {
                punt.leave_buffer(&mut self.out.pool);
            }
            if let Err((punt, reason)) = self.reports.punt(punt) {
                let frame = self.core.punt_refused(now, punt, reason);
                self.out.pool.put(frame);
            }
        }
        self.wake_control.ring();
    }

    /// Sends frames through a port's queue and empties the list.
    fn send(&mut self, id: PortId, frames: &mut Vec<Frame>) {
        match self.queues.get_mut(id.index()) {
            Some(Some(queue)) => {
                self.core.sent(&self.clock, id, frames);
                if frames.len() > 1 && queue.caps().tso {
                    let link = if queue.medium() == Medium::Ethernet { LINK } else { 0 };
                    offload::merge(frames, link, &mut self.out.pool);
                }
                queue.send_batch(frames, &mut self.out.pool, &mut self.sent);
            }
            _ => {
                for frame in frames.drain(..) {
                    self.counters.tx_failed(id, frame.len(), DropReason::PortGone);
                    self.out.pool.put(frame);
                }
            }
        }
    }

    /// Accounts for what a port did not take.
    fn report_sent(&mut self, id: PortId) {
        for refused in self.sent.refused.drain(..) {
            self.counters.tx_failed(id, refused.bytes, refused.reason);
        }
        let mut ended = false;
        for event in self.sent.events.drain(..) {
            ended |= event.ends_queue();
            tell(&self.reports, &self.wake_control, id, event);
        }
        if ended {
            self.mute(id);
        }
    }

    /// Accounts for what a port could not receive.
    fn account(&mut self, id: PortId, report: RecvReport) {
        if report.malformed > 0 {
            self.counters.received.add(report.malformed);
            for _ in 0..report.malformed {
                self.counters.count_drop(DropReason::OffloadMalformed);
            }
            if let Some(p) = self.counters.port(id) {
                p.rx_packets.add(report.malformed);
            }
            if let Some(p) = self.counters.rare(id) {
                p.rx_dropped.add(report.malformed);
            }
        }
        for (reason, n) in report.dropped {
            self.counters.received.add(n);
            (0..n).for_each(|_| self.counters.count_drop(reason));
            if let Some(p) = self.counters.port(id) {
                p.rx_packets.add(n);
            }
            if let Some(p) = self.counters.rare(id) {
                p.rx_dropped.add(n);
            }
        }
        for lost in report.undone {
            self.counters.tx_failed(id, lost.bytes, lost.reason);
        }
        if let Some(event) = report.event {
            if event.ends_queue() {
                self.mute(id);
            }
            tell(&self.reports, &self.wake_control, id, event);
        }
    }

    fn add_queue(&mut self, id: PortId, mut queue: Box<dyn Port>) {
        self.close_queue(id);
        let index = id.index();
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, || None);
        }
        if let Some(fd) = queue.fd() {
            let data = epoll::EventData::new_u64(u64::from(id.0));
            if let Err(e) = epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN) {
                tell(&self.reports, &self.wake_control, id, PortEvent::Broken(e.raw_os_error()));
            }
        }
        queue.enter_service(&mut self.out.pool);
        if queue.polls_cheaply() && queue.fd().is_some() {
            self.cheap.push(id);
        }
        self.queues[index] = Some(queue);
        self.out.make_room(id);
    }

    fn close_queue(&mut self, id: PortId) {
        self.mute(id);
        if let Some(mut queue) = self.queues.get_mut(id.index()).and_then(Option::take) {
            queue.leave_service(&mut self.out.pool);
        }
    }

    /// Stops polling a queue: it is closed or useless, and its fd may stay readable for ever.
    fn mute(&mut self, id: PortId) {
        self.cheap.retain(|cheap| *cheap != id);
        if let Some(Some(queue)) = self.queues.get(id.index())
            && let Some(fd) = queue.fd()
        {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }
}

/// Tells the control thread about an event. When its queue is full the event is lost: link changes are also seen by
/// the control thread itself, and the others repeat.
fn tell(reports: &ReportSender, wake: &Wake, id: PortId, event: PortEvent) {
    if reports.tell(id, event) {
        wake.ring();
    }
}
