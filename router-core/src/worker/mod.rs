//! The data plane of one thread: takes batches of frames, decides and edits, and leaves them sorted by egress port.
//!
//! A worker owns nothing shared but its counters. It reads the tables of a snapshot; when a FIB entry names an object
//! that is newer than the snapshot, it takes the newest snapshot and looks again.
//!
//! Work that a packet causes (fragments, segments, ICMP errors, a decapsulated packet's second round) is put on a list
//! and done right after it, so there is no recursion and the amount of work per packet is bounded.

mod answer;
mod fast;
mod guard;
mod input;
mod options;
mod route;
#[cfg(test)]
mod tests;
mod tunnel;
#[cfg(test)]
mod tunnel_tests;

use crate::addr::MacAddr;
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::filter::limit::Buckets;
use crate::frame::{Frame, FramePool};
use crate::icmp::{IcmpError, Limiter, Offender};
use crate::object::{Forward, ObjectId};
use crate::observe::{Observer, Punted, Silent, Stage};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::tables::Tables;
use crate::time::Instant;
use fast::{Passes, Sent};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Frames of one receive call at most.
pub const MAX_BATCH: usize = 256;

/// Snapshots that one packet may outlive.
const MAX_RELOADS: u32 = 16;

/// Where a worker gets its snapshot from.
pub trait TableSource {
    /// The snapshot for a batch. It is lent, not cloned: counting references would write to a line that all workers share.
    fn lend(&mut self) -> Arc<Tables>;
    /// Ends a loan.
    fn give_back(&mut self, tables: Arc<Tables>);
    /// The newest published snapshot, for a packet whose object the lent one lacks.
    fn newest(&mut self) -> Arc<Tables>;
}

/// A snapshot that never changes, for tests and one-off work.
#[derive(Clone)]
pub struct Fixed(pub Arc<Tables>);

impl TableSource for Fixed {
    fn lend(&mut self) -> Arc<Tables> {
        Arc::clone(&self.0)
    }
    fn give_back(&mut self, _tables: Arc<Tables>) {}
    fn newest(&mut self) -> Arc<Tables> {
        Arc::clone(&self.0)
    }
}

/// Where a worker leaves its results.
pub struct Outbox {
    /// Frames to send, by index of the egress port, complete for its medium. The runtime drains these.
    pub tx: Vec<Vec<Frame>>,
    /// Frames for the control thread.
    pub punts: Vec<Punt>,
    /// Empty frames: finished ones return here, new ones are taken from here.
    pub pool: FramePool,
}

impl Outbox {
    /// An outbox for up to `ports` ports and tunnels.
    pub fn new(ports: usize, pool: FramePool) -> Self {
        Outbox { tx: (0..ports).map(|_| Vec::new()).collect(), punts: Vec::with_capacity(MAX_BATCH), pool }
    }

    /// Makes room for a batch to a port, so that the fast path finds it: most of the indexes are never used.
    pub fn make_room(&mut self, port: PortId) {
        if let Some(list) = self.tx.get_mut(port.index()) {
            list.reserve(MAX_BATCH.saturating_sub(list.len()));
        }
    }
}

/// A frame on its way to the control thread.
#[derive(Debug)]
pub struct Punt {
    pub(crate) frame: Frame,
    pub(crate) why: PuntReason,
}

impl Punt {
    /// A frame that starts at an ARP header, as a worker hands it over: for those who carry punts, and their tests.
    pub fn arp(frame: Frame) -> Self {
        Punt { frame, why: PuntReason::Arp }
    }

    /// The frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Its frame goes back to the pool if it is one of those, and a copy goes on ([`FramePool::keep`]).
    pub fn leave_buffer(&mut self, pool: &mut FramePool) {
        pool.keep(&mut self.frame);
    }

    /// Gives the frame back, for a runtime that cannot deliver the punt (see [`Worker::punt_refused`]).
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// Why the control thread gets a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PuntReason {
    /// ARP; the frame starts at the ARP header.
    Arp,
    /// Neighbour discovery, and who sent it on the link.
    Ndp { packet: Packet, from: Option<MacAddr> },
    /// A host asks for IPv4 routers (RFC 1256).
    RouterSolicit(Packet),
    /// The neighbour must be resolved first.
    Resolve { port: PortId, neighbor: IpAddr },
    /// A fragment for the router.
    Reassemble(Packet),
    /// An ICMP error addressed to the router.
    IcmpError(Packet),
    /// An echo reply out of a tunnel whose peer is asked whether it lives.
    EchoReply(Packet),
    /// An outer packet by a path of its tunnel that is not the one in use.
    TunnelPath(Packet),
    /// A packet about which the translator behind `port` must be asked first; `depth` as in [`Job`].
    Translate { port: PortId, packet: Packet, depth: u8 },
}

/// Something to be done with a frame.
pub(crate) struct Job {
    pub frame: Frame,
    pub start: Start,
    /// How many tunnels it has entered or left here.
    pub depth: u8,
}

impl Job {
    /// A job on a packet that has gone through nothing yet.
    pub fn new(frame: Frame, start: Start) -> Self {
        Job { frame, start, depth: 0 }
    }
}

/// Where a job enters the pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// An IP packet that came in (from a port or out of a tunnel: `frame.meta.port`).
    /// `link`: from whom on the link, and whether to a group.
    Input { link: Option<(MacAddr, bool)> },
    /// An IP packet to be looked up in this table and sent.
    Lookup(TableId),
    /// An IP packet whose forwarding object is known.
    Object(ObjectId),
    /// An IP packet to a host on the link of this port.
    Link(PortId),
    /// A packet for one of our addresses whose pieces have been put together.
    Reassembled,
}

/// One worker's part of the data plane.
///
/// `O` watches its packets ([`crate::observe`]); by default nobody does.
pub struct Worker<O = Silent> {
    counters: Arc<WorkerCounters>,
    flow_seed: u64,
    ident: u16,
    limiter: Limiter,
    buckets: Buckets,
    jobs: VecDeque<Job>,
    pieces: Vec<Frame>,
    passes: Passes,
    observer: O,
}

/// What every step of the pipeline needs beside the packet.
pub(crate) struct Step<'a> {
    pub now: Instant,
    pub tables: &'a Tables,
    pub out: &'a mut Outbox,
}

/// The snapshot lacks an object that the FIB already names: try the job again with a newer one.
pub(crate) struct Stale(Job);

impl Worker {
    /// A worker that counts into `counters`. `seed` decides which member a flow takes in groups.
    pub fn new(counters: Arc<WorkerCounters>, seed: u64) -> Self {
        Worker::observed(counters, seed, Silent)
    }
}

impl<O: Observer> Worker<O> {
    /// A worker whose packets are watched.
    pub fn observed(counters: Arc<WorkerCounters>, seed: u64, observer: O) -> Self {
        let buckets = Buckets::new(counters.ports());
        Worker {
            counters,
            flow_seed: seed,
            ident: (seed >> 17) as u16,
            limiter: Limiter::new(seed),
            buckets,
            jobs: VecDeque::with_capacity(2 * MAX_BATCH),
            pieces: Vec::with_capacity(64),
            passes: Passes::new(),
            observer,
        }
    }

    /// The same worker, with all its state, under another observer; and the one it had.
    pub fn watch<P: Observer>(self, observer: P) -> (Worker<P>, O) {
        let Worker { counters, flow_seed, ident, limiter, buckets, jobs, pieces, passes, observer: before } = self;
        (Worker { counters, flow_seed, ident, limiter, buckets, jobs, pieces, passes, observer }, before)
    }

    /// Its observer.
    pub fn observer(&mut self) -> &mut O {
        &mut self.observer
    }

    /// What decides which member a flow takes.
    pub(crate) fn flow_seed(&self) -> u64 {
        self.flow_seed
    }

    /// Tells the observer; nothing at all without one.
    #[inline(always)]
    fn note<'s>(&mut self, frame: &Frame, stage: impl FnOnce() -> Stage<'s>) {
        if O::ON {
            self.observer.note(stage(), frame);
        }
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Treats a batch of frames received from `port`; drains it.
    pub fn process(
        &mut self,
        now: Instant,
        source: &mut impl TableSource,
        port: PortId,
        batch: &mut Vec<Frame>,
        out: &mut Outbox,
    ) {
        let first = source.lend();
        self.batch(now, source, &first, port, batch, out);
        source.give_back(first);
    }

    fn batch(
        &mut self,
        now: Instant,
        source: &mut impl TableSource,
        first: &Arc<Tables>,
        port: PortId,
        batch: &mut Vec<Frame>,
        out: &mut Outbox,
    ) {
        self.count_received(port, batch);
        if O::ON {
            self.observer.received(now, port, batch);
        }
        let Some(info) = first.ports.get(port) else {
            for mut frame in batch.drain(..) {
                frame.meta.port = port;
                self.discard(&mut Step { now, tables: first, out }, frame, DropReason::PortGone);
            }
            return;
        };
        self.pass(now, batch, info, first, out);
        if self.queue_all(batch, out) {
            return;
        }
        // The general path may move on to a newer snapshot; ids of the lanes stay with the one they were looked up in.
        let mut tables = None;
        let mut sent = Sent::default();
        for (at, frame) in batch.iter_mut().enumerate() {
            // Taken in one piece: what moves field by field is waited for when it is read again.
            let mut frame = std::mem::take(frame);
            if let Some(egress) = self.passes.egress(at) {
                self.queue(frame, egress, &mut sent, out);
                continue;
            }
            frame.meta.port = port;
            let tables = tables.get_or_insert_with(|| Arc::clone(first));
            if let Some((reason, start, len)) = self.passes.refusal(at) {
                frame.pull_front(start);
                frame.truncate(len);
                self.discard(&mut Step { now, tables, out }, frame, reason);
                continue;
            }
            if O::ON {
                self.observer.begin(now, port, &frame);
            }
            let step = &mut Step { now, tables, out };
            if let Some(job) = self.receive(step, port, frame) {
                self.run(now, source, tables, job, out);
            }
            if O::ON {
                self.observer.end();
            }
        }
        self.count_sent(&mut sent);
        batch.clear();
    }

    /// Counts a batch that came in.
    fn count_received(&self, port: PortId, batch: &[Frame]) {
        self.counters.received.add(batch.len() as u64);
        if let Some(c) = self.counters.port(port) {
            c.rx_packets.add(batch.len() as u64);
            c.rx_bytes.add(batch.iter().map(|f| f.len() as u64).sum());
        }
    }

    /// Does one job and everything that it causes.
    pub(crate) fn run(
        &mut self,
        now: Instant,
        source: &mut impl TableSource,
        tables: &mut Arc<Tables>,
        job: Job,
        out: &mut Outbox,
    ) {
        let mut next = Some(job);
        while let Some(mut job) = next {
            self.note(&job.frame, || Stage::Job);
            // Another commit may land between the newer snapshot and the second look; many in a row would be a bug.
            let mut tries = 0;
            while let Err(Stale(again)) = self.step(&mut Step { now, tables, out }, job) {
                tries += 1;
                if tries > MAX_RELOADS {
                    self.discard(&mut Step { now, tables, out }, again.frame, DropReason::NextHopUnusable);
                    break;
                }
                *tables = source.newest();
                job = again;
            }
            next = self.jobs.pop_front();
        }
    }

    /// Sends a packet that the router itself made, or lets a held one go on. Counts nothing on entry.
    pub(crate) fn launch(
        &mut self,
        now: Instant,
        source: &mut impl TableSource,
        frame: Frame,
        start: Start,
        out: &mut Outbox,
    ) {
        let mut tables = source.lend();
        self.begin(now, &frame);
        self.run(now, source, &mut tables, Job::new(frame, start), out);
        self.end();
    }

    /// Lets a packet that the control side has looked at go on where it was, not as a new one.
    pub(crate) fn relaunch(&mut self, now: Instant, tables: &Arc<Tables>, job: Job, out: &mut Outbox) {
        self.run(now, &mut Fixed(Arc::clone(tables)), &mut Arc::clone(tables), job, out);
    }

    /// Sends an IP packet through an adjacency that has just been resolved.
    pub(crate) fn launch_via(
        &mut self,
        now: Instant,
        tables: &Arc<Tables>,
        frame: Frame,
        hop: &Forward,
        out: &mut Outbox,
    ) {
        // Pieces of the packet come back with this mark and take the same way; errors about it go their own.
        let mark = Start::Object(ObjectId::NO_ROUTE);
        self.begin(now, &frame);
        let mut next = Some(Job::new(frame, mark));
        while let Some(job) = next {
            let Start::Object(ObjectId::NO_ROUTE) = job.start else {
                self.run(now, &mut Fixed(Arc::clone(tables)), &mut Arc::clone(tables), job, out);
                break;
            };
            self.note(&job.frame, || Stage::Job);
            let step = &mut Step { now, tables, out };
            if let Some((frame, packet)) = self.parse_again(step, job.frame) {
                self.forward_to(step, Job { frame, ..job }, packet, mark, hop);
            }
            next = self.jobs.pop_front();
        }
        self.end();
    }

    /// Drops a packet that waited and tells its sender where the rules ask for it.
    pub(crate) fn launch_refusal(
        &mut self,
        now: Instant,
        tables: &Arc<Tables>,
        frame: Frame,
        reason: DropReason,
        out: &mut Outbox,
    ) {
        let step = &mut Step { now, tables, out };
        self.begin(now, &frame);
        self.note(&frame, || Stage::Job);
        if let Some((frame, packet)) = self.parse_again(step, frame) {
            self.refuse(step, frame, &packet, reason, 0);
        }
        self.run_rest(now, tables, out);
        self.end();
    }

    /// Sends an ICMP error about a packet.
    pub(crate) fn launch_error(
        &mut self,
        now: Instant,
        tables: &Arc<Tables>,
        error: &IcmpError,
        about: &Offender<'_>,
        ingress: PortId,
        out: &mut Outbox,
    ) {
        self.send_error(&mut Step { now, tables, out }, error, about, ingress);
        self.run_rest(now, tables, out);
    }

    /// Tells the observer of a packet that comes from no port's queue.
    #[inline(always)]
    fn begin(&mut self, now: Instant, frame: &Frame) {
        if O::ON {
            self.observer.begin(now, frame.meta.port, frame);
        }
    }

    #[inline(always)]
    fn end(&mut self) {
        if O::ON {
            self.observer.end();
        }
    }

    /// Does the jobs that are on the list.
    fn run_rest(&mut self, now: Instant, tables: &Arc<Tables>, out: &mut Outbox) {
        if let Some(job) = self.jobs.pop_front() {
            self.run(now, &mut Fixed(Arc::clone(tables)), &mut Arc::clone(tables), job, out);
        }
    }

    /// Accounts for a punt that the runtime could not deliver to the control thread.
    pub fn punt_refused(&self, now: Instant, punt: Punt, reason: DropReason) -> Frame {
        self.counters.held.sub(1);
        self.counters.count_drop(reason);
        self.counters.last_drops.note(now, reason, punt.frame.meta.port, punt.frame.data());
        if let Some(p) = self.counters.rare(punt.frame.meta.port) {
            p.rx_dropped.add(1);
        }
        punt.frame
    }

    /// Ends a frame as dropped.
    pub(crate) fn discard(&mut self, step: &mut Step<'_>, frame: Frame, reason: DropReason) {
        self.note(&frame, || Stage::Drop(reason));
        self.counters.count_drop(reason);
        self.counters.last_drops.note(step.now, reason, frame.meta.port, frame.data());
        if let Some(p) = self.counters.rare(frame.meta.port) {
            p.rx_dropped.add(1);
        }
        step.out.pool.put(frame);
    }

    /// Hands a frame to the control thread.
    fn punt(&mut self, step: &mut Step<'_>, frame: Frame, why: PuntReason) {
        if let Err(reason) = self.within_limits(step, &frame, &why) {
            return self.discard(step, frame, reason);
        }
        self.note(&frame, || {
            Stage::Punt(match why {
                PuntReason::Arp => Punted::Arp,
                PuntReason::Ndp { .. } => Punted::Ndp,
                PuntReason::RouterSolicit(_) => Punted::RouterSolicit,
                PuntReason::Resolve { port, neighbor } => Punted::Resolve { port, neighbor },
                PuntReason::Reassemble(_) => Punted::Reassemble,
                PuntReason::IcmpError(_) => Punted::IcmpError,
                PuntReason::EchoReply(_) | PuntReason::TunnelPath(_) => Punted::EchoReply,
                PuntReason::Translate { port, .. } => Punted::Translate(port),
            })
        });
        self.counters.held.add(1);
        step.out.punts.push(Punt { frame, why });
    }
}
