//! Runs one packet through the data plane's own code and writes down everything that happens.

use super::Role;
use crate::addr::Family;
use crate::counters::WorkerCounters;
use crate::drop_reason::DropReason;
use crate::filter::{Judged, Urpf};
use crate::forward::Verdict;
use crate::forward::local::Local;
use crate::frame::{Frame, FramePool};
use crate::icmp::IcmpError;
use crate::object::Object;
use crate::observe::{Cause, Direction, Observer, Punted, Stage, Withheld};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::tables::Tables;
use crate::time::Instant;
use crate::worker::{Fixed, Outbox, PuntReason, Start, Worker};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Most frames for pieces, as many as a worker has.
const FRAMES: usize = 2048;
/// Room of each: an ICMP error fits, and every piece is shorter than its packet.
const ROOM: usize = 2048;

/// [`Stage`], to keep.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Link { src: crate::addr::MacAddr, group: bool },
    Parsed(Packet),
    Addresses,
    Rule { family: Family, index: usize },
    Lookup { table: TableId, dst: IpAddr },
    Source,
    Object(Object),
    Member { hash: u32, bucket: usize },
    OnLink { port: PortId, neighbor: IpAddr },
    Decided { by: String, verdict: Verdict },
    Filtered { port: PortId, direction: Direction, filter: String, rule: Option<String>, judged: Judged },
    SourceChecked { port: PortId, check: Urpf, allowed: bool },
    Clamped { from: u16, to: u16 },
    Aged,
    Encapsulated(PortId),
    Decapsulated(PortId),
    Local(Local),
    Error(IcmpError),
    ErrorWithheld(IcmpError, Withheld),
    Cut(Role),
    Transmit(PortId),
    Punt(Punted),
    Drop(DropReason),
}

/// One pass of a packet through the pipeline.
#[derive(Debug)]
pub(crate) struct Record {
    pub role: Role,
    pub parent: Option<usize>,
    /// Port through which it came; none for a packet of our own.
    pub ingress: PortId,
    /// What happened, and the frame's bytes at that moment.
    pub seen: Vec<(Seen, Vec<u8>)>,
}

/// The observer.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub records: Vec<Record>,
    /// As the worker's own list of jobs.
    waiting: VecDeque<(Role, usize)>,
    current: usize,
    /// The root's job has begun.
    begun: bool,
}

impl Recorder {
    fn open(&mut self, role: Role, parent: Option<usize>, ingress: PortId) {
        self.current = self.records.len();
        self.records.push(Record { role, parent, ingress, seen: Vec::new() });
    }
}

impl Observer for Recorder {
    const ON: bool = true;
    const REHEARSAL: bool = true;

    fn follows(&mut self, _port: PortId, _frame: &Frame) -> bool {
        true
    }

    fn begin(&mut self, _now: Instant, port: PortId, _frame: &Frame) {
        // The control side goes on with what waited for it.
        let parent = (!self.records.is_empty()).then_some(self.current);
        let role = if parent.is_some() { Role::Later } else { Role::Packet };
        self.begun = false;
        self.open(role, parent, port);
    }

    fn note(&mut self, stage: Stage<'_>, frame: &Frame) {
        let seen = match stage {
            Stage::Job => {
                match self.waiting.pop_front() {
                    Some((role, parent)) => self.open(role, Some(parent), frame.meta.port),
                    None if self.begun => self.open(Role::Again, Some(self.current), frame.meta.port),
                    None => {}
                }
                self.begun = true;
                return;
            }
            Stage::Caused { what, front } => {
                let role = match what {
                    Cause::Again => Role::Again,
                    Cause::Inner => Role::Inner,
                    Cause::Translated => Role::Translated,
                    Cause::Fragment(of) => Role::Fragment { index: 0, of },
                    Cause::Segment(of) => Role::Segment { index: 0, of },
                    Cause::Error(_) => Role::IcmpError,
                    Cause::Redirect => Role::Redirect,
                    Cause::EchoReply => Role::EchoReply,
                    Cause::Reset => Role::TcpReset,
                };
                let entry = (role, self.current);
                if front {
                    self.waiting.push_front(entry)
                } else {
                    self.waiting.push_back(entry)
                }
                match what {
                    Cause::Error(error) => Seen::Error(*error),
                    _ => Seen::Cut(role),
                }
            }
            Stage::Link { src, group } => Seen::Link { src, group },
            Stage::Parsed(p) => Seen::Parsed(*p),
            Stage::Addresses => Seen::Addresses,
            Stage::Rule { family, index } => Seen::Rule { family, index },
            Stage::Source(_) => Seen::Source,
            Stage::Lookup { table, dst, .. } => Seen::Lookup { table, dst },
            Stage::Object(_, object) => Seen::Object(object.clone()),
            Stage::Member { hash, bucket, .. } => Seen::Member { hash, bucket },
            Stage::OnLink { port, neighbor, .. } => Seen::OnLink { port, neighbor },
            Stage::Decided { by, verdict } => Seen::Decided { by: by.to_owned(), verdict },
            Stage::Filtered { port, direction, table, judged } => {
                let rule = judged.rule.and_then(|i| table.rules().nth(i as usize)).map(|(r, _)| r.to_string());
                Seen::Filtered { port, direction, filter: table.name().to_owned(), rule, judged }
            }
            Stage::SourceChecked { port, check, allowed } => Seen::SourceChecked { port, check, allowed },
            Stage::Clamped { from, to } => Seen::Clamped { from, to },
            Stage::Aged => Seen::Aged,
            Stage::Encapsulated(t) => Seen::Encapsulated(t),
            Stage::Decapsulated(t) => Seen::Decapsulated(t),
            Stage::Local(l) => Seen::Local(l),
            Stage::ErrorWithheld { error, why } => Seen::ErrorWithheld(*error, why),
            Stage::Transmit(p) => Seen::Transmit(p),
            Stage::Punt(p) => Seen::Punt(p),
            Stage::Drop(r) => Seen::Drop(r),
        };
        // Bytes are kept where they are told.
        let told = matches!(
            seen,
            Seen::Parsed(_) | Seen::Encapsulated(_) | Seen::Error(_) | Seen::Transmit(_) | Seen::Drop(_)
        );
        let bytes = if told { frame.data().to_vec() } else { Vec::new() };
        if let Some(record) = self.records.get_mut(self.current) {
            record.seen.push((seen, bytes));
        }
    }
}

/// How the packet starts.
pub(crate) enum Entry {
    /// As received from this port, link header in front.
    Port(PortId),
    /// Made by the router, to be looked up in this table.
    Own(TableId),
}

/// The packet's whole story by the worker's own code, on tables that may be in use: nothing is sent, counted or
/// remembered. `fails` says whether a neighbour that the packet would wait for is known to be silent.
pub(crate) fn rehearse(
    tables: &Arc<Tables>,
    seed: u64,
    now: Instant,
    entry: Entry,
    frame: Frame,
    fails: impl Fn(PortId, IpAddr) -> bool,
) -> Vec<Record> {
    let ports = tables.ports.iter().map(|p| p.id.index() + 1).max().unwrap_or(0);
    // The smallest pieces that any port asks for, and some answers.
    let least = tables.ports.iter().map(|p| p.mtu as usize).min().unwrap_or(1280).clamp(68, 1280) - 60;
    let segment = frame.meta.gso.map_or(least, |g| usize::from(g.size).clamp(1, least));
    let frames = (frame.len() / segment + 16).min(FRAMES);
    let mut out = Outbox::new(ports, FramePool::new(frames, frame.len().max(ROOM)));
    let mut worker = Worker::observed(Arc::new(WorkerCounters::new(0)), seed, Recorder::default());
    let mut source = Fixed(Arc::clone(tables));
    match entry {
        Entry::Port(port) => worker.process(now, &mut source, port, &mut vec![frame], &mut out),
        Entry::Own(table) => worker.launch(now, &mut source, frame, Start::Lookup(table), &mut out),
    }
    // What the control side does at once with a packet whose neighbour is known not to answer.
    while let Some(punt) = out.punts.pop() {
        if let PuntReason::Resolve { port, neighbor } = punt.why
            && fails(port, neighbor)
        {
            worker.observer().attend(Punted::Resolve { port, neighbor });
            worker.launch_refusal(now, tables, punt.frame, DropReason::NeighborFailed, &mut out);
        }
    }
    let mut records = std::mem::take(&mut worker.observer().records);
    number(&mut records);
    records
}

impl Recorder {
    /// Goes back to the pass that ended with this punt.
    fn attend(&mut self, punted: Punted) {
        let ended = |r: &Record| matches!(r.seen.last(), Some((Seen::Punt(p), _)) if *p == punted);
        let taken: Vec<usize> =
            self.records.iter().filter(|r| r.role == Role::Later).filter_map(|r| r.parent).collect();
        let open = |(i, r): &(usize, &Record)| ended(r) && !taken.contains(i);
        if let Some((i, _)) = self.records.iter().enumerate().find(open) {
            self.current = i;
        }
    }
}

/// Fragments and segments run in order: gives each its number.
fn number(records: &mut [Record]) {
    let mut seen: Vec<(Option<usize>, usize)> = Vec::new();
    for r in records {
        if let Role::Fragment { index, .. } | Role::Segment { index, .. } = &mut r.role {
            let place = match seen.iter().position(|(p, _)| *p == r.parent) {
                Some(place) => place,
                None => {
                    seen.push((r.parent, 0));
                    seen.len() - 1
                }
            };
            seen[place].1 += 1;
            *index = seen[place].1;
        }
    }
}
