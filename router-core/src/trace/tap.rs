//! The observer of a worker that somebody watches: follows packets step by step, copies packets at chosen points.

use super::{Filter, Subject};
use crate::drop_reason::DropReason;
use crate::filter::Action;
use crate::forward::Verdict;
use crate::forward::local::Local;
use crate::frame::{Frame, Meta};
use crate::object::Object;
use crate::observe::{Cause, Observer, Punted, Stage, Withheld};
use crate::port::{PortId, TableId};
use crate::tables::Tables;
use crate::time::Instant;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Bytes of a followed packet that each record holds: link, outer and inner header, and ports.
pub const HEAD: usize = 96;

/// Where packets are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// As received from a port.
    Rx,
    /// As handed to a port.
    Tx,
    /// Where it was dropped.
    Drop,
    /// What a tunnel packet carries: after leaving its tunnel, before entering one.
    Inner,
    /// The tunnel packet itself, from its outer header on.
    Outer,
}

impl Point {
    /// All points.
    pub const ALL: [Point; 5] = [Point::Rx, Point::Tx, Point::Drop, Point::Inner, Point::Outer];

    /// Its name in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Point::Rx => "rx",
            Point::Tx => "tx",
            Point::Drop => "drop",
            Point::Inner => "inner",
            Point::Outer => "outer",
        }
    }

    /// The point of this name.
    pub fn from_name(name: &str) -> Option<Point> {
        Point::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// A set of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points(u8);

impl Points {
    /// With this point too.
    pub const fn with(self, p: Point) -> Points {
        Points(self.0 | 1 << p as u8)
    }

    /// Whether it holds this point.
    pub const fn has(self, p: Point) -> bool {
        self.0 & 1 << p as u8 != 0
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<I: IntoIterator<Item = Point>>(iter: I) -> Self {
        iter.into_iter().fold(Points::default(), Points::with)
    }
}

/// A captured packet.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// When its batch was received.
    pub at: Instant,
    /// Where.
    pub point: Point,
    /// The port or tunnel; [`PortId::NONE`] for a packet of the router's own that no port has seen yet.
    pub port: PortId,
    /// On its way in; otherwise out.
    pub inbound: bool,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Its bytes, cut to the length wanted.
    pub data: &'a [u8],
    /// Its length.
    pub len: u32,
    /// Whether the bytes start with an Ethernet header.
    pub ethernet: bool,
    /// What is known of it beside the bytes: a VLAN tag that the kernel has taken out, unfinished offloads.
    pub meta: Meta,
}

/// Takes captured packets, or counts them as lost; never waits.
pub trait CaptureSink: Send + Sync {
    /// A packet.
    fn push(&mut self, packet: &Captured<'_>);
}

/// Takes records of followed packets, or counts them as lost; never waits.
pub trait TraceSink: Send + Sync {
    /// A record.
    fn push(&mut self, record: StepRecord);
}

/// What happened to a followed packet.
#[derive(Clone, Copy, Debug)]
pub struct StepRecord {
    /// Which packet: counted by each tap.
    pub packet: u32,
    /// When.
    pub at: Instant,
    /// What.
    pub event: Event,
    /// Length of the packet now.
    pub len: u32,
    /// How many of the bytes count.
    pub kept: u8,
    /// Its first bytes, where they are new.
    pub head: [u8; HEAD],
}

impl StepRecord {
    /// The bytes.
    pub fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.kept)).unwrap_or(&self.head)
    }
}

/// [`Stage`] without borrows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Received, link header in front if `ethernet`.
    Received {
        /// From this port; [`PortId::NONE`]: the control side lets it go on.
        port: PortId,
        /// With an Ethernet header.
        ethernet: bool,
    },
    /// Work begins on a packet, whose bytes are told.
    Job,
    /// Sound.
    Parsed,
    /// Looked up.
    Lookup {
        /// In this table.
        table: TableId,
        /// For this destination.
        dst: IpAddr,
    },
    /// A member of a group.
    Member {
        /// The bucket.
        bucket: u32,
        /// Of how many.
        of: u32,
    },
    /// At an adjacency of this gateway, or of the destination itself.
    NextHop {
        /// Through this port.
        port: PortId,
        /// The gateway.
        gateway: Option<IpAddr>,
        /// Its link-layer address is known.
        known: bool,
    },
    /// A forwarder decided: its name, cut to what fits.
    Decided {
        /// The name's bytes.
        by: [u8; 12],
        /// What it decided.
        verdict: Verdict,
    },
    /// Judged by a filter.
    Filtered {
        /// Of this port.
        port: PortId,
        /// By this rule, from 1; 0: none matched.
        rule: u32,
        /// Whether it goes on.
        allowed: bool,
    },
    /// The segment size of a SYN was lowered.
    Clamped {
        /// Before.
        from: u16,
        /// After.
        to: u16,
    },
    /// TTL or hop limit taken.
    Aged,
    /// Into a tunnel.
    Encapsulated(PortId),
    /// Out of a tunnel.
    Decapsulated(PortId),
    /// For the router.
    Local(Local),
    /// Translated into the other family.
    Translated,
    /// Cut into pieces.
    Cut(u32),
    /// An ICMP error, an echo reply or a reset was made.
    Answered(&'static str),
    /// An ICMP error was withheld.
    Withheld(Withheld),
    /// Handed to a port.
    Transmit(PortId),
    /// Given to the control side.
    Punt(Punted),
    /// Dropped.
    Drop(DropReason),
}

/// What somebody wants of the packets that fit.
pub enum Wanted {
    /// Each step of so many packets.
    Trace {
        /// Packets still wanted, shared by all workers.
        left: Arc<AtomicI64>,
        /// Where records go.
        sink: Box<dyn TraceSink>,
    },
    /// Copies at these points.
    Capture {
        /// Where.
        points: Points,
        /// Bytes of each.
        snap: usize,
        /// Where they go.
        sink: Box<dyn CaptureSink>,
    },
}

/// Somebody's wish.
pub struct Watch {
    /// Told apart by this.
    pub id: u64,
    /// Which packets.
    pub filter: Filter,
    /// What of them.
    pub wanted: Wanted,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("id", &self.id).field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Most watches at a time.
pub const MAX_WATCHES: usize = 32;

/// See the module.
pub struct Tap {
    watches: Vec<Watch>,
    /// Reads a clock for the time of each step.
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    /// Some watch copies inner or outer packets.
    tunnels: bool,
    /// Which watches follow the packet at hand, bit by bit.
    following: u32,
    packet: u32,
    now: Instant,
    ingress: PortId,
    /// Ports without link headers, by index: told by the owner.
    bare: Vec<bool>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("watches", &self.watches).finish_non_exhaustive()
    }
}

impl Tap {
    /// A tap that watches nothing yet. `clock` tells the time of each step.
    pub fn new(clock: Box<dyn Fn() -> Instant + Send + Sync>) -> Self {
        Tap {
            watches: Vec::new(),
            clock,
            tunnels: false,
            following: 0,
            packet: 0,
            now: Instant::ZERO,
            ingress: PortId::NONE,
            bare: Vec::new(),
        }
    }

    /// Adds a watch; false when there are too many.
    pub fn add(&mut self, watch: Watch) -> bool {
        if self.watches.len() >= MAX_WATCHES {
            return false;
        }
        self.watches.push(watch);
        self.refresh();
        true
    }

    /// Removes a watch.
    pub fn remove(&mut self, id: u64) {
        self.watches.retain(|w| w.id != id);
        self.refresh();
    }

    /// Whether nothing is watched, or nothing any more.
    pub fn is_idle(&self) -> bool {
        self.watches.iter().all(|w| match &w.wanted {
            Wanted::Trace { left, .. } => left.load(Relaxed) <= 0,
            Wanted::Capture { .. } => false,
        })
    }

    /// Takes note of which ports have link headers.
    pub fn learn_ports(&mut self, tables: &Tables) {
        self.bare.clear();
        for p in tables.ports.iter() {
            let i = p.id.index();
            if self.bare.len() <= i {
                self.bare.resize(i + 1, true);
            }
            self.bare[i] = p.medium == crate::port::Medium::Ip;
        }
    }

    fn ethernet(&self, port: PortId) -> bool {
        self.bare.get(port.index()).is_some_and(|bare| !bare)
    }

    fn refresh(&mut self) {
        self.tunnels = self.watches.iter().any(|w| match &w.wanted {
            Wanted::Capture { points, .. } => points.has(Point::Inner) || points.has(Point::Outer),
            Wanted::Trace { .. } => false,
        });
    }

    /// Frames are about to be given to a port.
    pub fn sent(&mut self, now: Instant, port: PortId, frames: &[Frame]) {
        self.now = now;
        let ethernet = self.ethernet(port);
        for frame in frames {
            self.capture(Point::Tx, port, false, None, frame.data(), ethernet, frame.meta);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn capture(
        &mut self,
        point: Point,
        port: PortId,
        inbound: bool,
        reason: Option<DropReason>,
        data: &[u8],
        ethernet: bool,
        meta: Meta,
    ) {
        for w in &mut self.watches {
            let Wanted::Capture { points, snap, sink } = &mut w.wanted else { continue };
            if !points.has(point) {
                continue;
            }
            let subject = Subject::new(port, data, ethernet, meta.vlan_tci);
            let subject = if inbound { subject } else { subject.outbound() };
            let subject = reason.map_or(subject, |r| subject.dropped(r));
            if w.filter.matches(&subject) {
                let cut = data.get(..*snap).unwrap_or(data);
                let len = data.len() as u32;
                sink.push(&Captured { at: self.now, point, port, inbound, reason, data: cut, len, ethernet, meta });
            }
        }
    }

    /// Writes a record to everybody who follows the packet at hand.
    fn record(&mut self, event: Event, data: &[u8], bytes: bool) {
        let mut record = StepRecord {
            packet: self.packet,
            at: (self.clock)(),
            event,
            len: data.len() as u32,
            kept: 0,
            head: [0; HEAD],
        };
        if bytes {
            let kept = data.len().min(HEAD);
            record.head[..kept].copy_from_slice(&data[..kept]);
            record.kept = kept as u8;
        }
        for (i, w) in self.watches.iter_mut().enumerate() {
            if self.following & 1 << i != 0
                && let Wanted::Trace { sink, .. } = &mut w.wanted
            {
                sink.push(record);
            }
        }
    }

    /// Captures of a note: drops, and packets at the ends of tunnels.
    fn note_capture(&mut self, stage: &Stage<'_>, frame: &Frame) {
        let data = frame.data();
        let port = frame.meta.port;
        match stage {
            Stage::Drop(reason) => {
                let link = matches!(
                    reason,
                    DropReason::FrameTooShort
                        | DropReason::UnknownEthertype
                        | DropReason::UnknownVlan
                        | DropReason::NotForUs
                );
                let inbound = port != PortId::NONE;
                self.capture(Point::Drop, port, inbound, Some(*reason), data, link, frame.meta);
            }
            Stage::Encapsulated(tunnel) if self.tunnels => {
                self.capture(Point::Outer, *tunnel, false, None, data, false, Meta::default());
                let header = data.first().map_or(0, |b| if b >> 4 == 6 { 40 } else { usize::from(b & 15) * 4 });
                self.capture(
                    Point::Inner,
                    *tunnel,
                    false,
                    None,
                    data.get(header..).unwrap_or(&[]),
                    false,
                    Meta::default(),
                );
            }
            Stage::Local(Local::Tunnel) if self.tunnels => {
                self.capture(Point::Outer, port, true, None, data, false, Meta::default());
            }
            Stage::Decapsulated(tunnel) if self.tunnels => {
                self.capture(Point::Inner, *tunnel, true, None, data, false, Meta::default());
            }
            _ => {}
        }
    }
}

impl Observer for Tap {
    const ON: bool = true;

    fn received(&mut self, now: Instant, port: PortId, batch: &[Frame]) {
        self.now = now;
        if self.watches.iter().any(|w| matches!(&w.wanted, Wanted::Capture { points, .. } if points.has(Point::Rx))) {
            let ethernet = self.ethernet(port);
            for frame in batch {
                self.capture(Point::Rx, port, true, None, frame.data(), ethernet, frame.meta);
            }
        }
    }

    fn follows(&mut self, port: PortId, frame: &Frame) -> bool {
        let ethernet = self.ethernet(port);
        self.watches.iter().any(|w| match &w.wanted {
            Wanted::Trace { left, .. } => {
                left.load(Relaxed) > 0
                    && w.filter.matches(&Subject::new(port, frame.data(), ethernet, frame.meta.vlan_tci))
            }
            Wanted::Capture { .. } => false,
        })
    }

    fn follows_tunnels(&self) -> bool {
        self.tunnels
    }

    fn begin(&mut self, now: Instant, port: PortId, frame: &Frame) {
        self.now = now;
        self.following = 0;
        self.ingress = port;
        if self.watches.is_empty() {
            return;
        }
        // A packet that the control side lets go on has lost its link header; so have those of bare ports.
        let ethernet = self.ethernet(port) && Subject::looks_like_ethernet(frame.data());
        let subject = Subject::new(port, frame.data(), ethernet, frame.meta.vlan_tci);
        for (i, w) in self.watches.iter().enumerate() {
            if let Wanted::Trace { left, .. } = &w.wanted
                && left.load(Relaxed) > 0
                && w.filter.matches(&subject)
                && left.fetch_sub(1, Relaxed) > 0
            {
                self.following |= 1 << i;
            }
        }
        if self.following != 0 {
            self.packet = self.packet.wrapping_add(1);
            self.record(Event::Received { port, ethernet }, frame.data(), true);
        }
    }

    fn note(&mut self, stage: Stage<'_>, frame: &Frame) {
        if self.watches.is_empty() {
            return;
        }
        self.note_capture(&stage, frame);
        if self.following == 0 {
            return;
        }
        let (event, bytes) = match stage {
            Stage::Job => (Event::Job, true),
            Stage::Parsed(_) => (Event::Parsed, false),
            Stage::Link { .. } | Stage::Addresses | Stage::Rule { .. } | Stage::Source(_) => return,
            Stage::Lookup { table, dst, .. } => (Event::Lookup { table, dst }, false),
            Stage::Object(_, object) => match object {
                Object::Forward(f) => (Event::NextHop { port: f.port, gateway: f.gateway, known: true }, false),
                Object::Incomplete(i) => {
                    (Event::NextHop { port: i.port, gateway: Some(i.gateway), known: false }, false)
                }
                _ => return,
            },
            Stage::Member { hash: _, bucket, .. } => (Event::Member { bucket: bucket as u32, of: 0 }, false),
            Stage::OnLink { port, neighbor, known } => (Event::NextHop { port, gateway: Some(neighbor), known }, false),
            Stage::Decided { by, verdict } => {
                let mut name = [0; 12];
                let n = by.len().min(name.len());
                name[..n].copy_from_slice(&by.as_bytes()[..n]);
                (Event::Decided { by: name, verdict }, false)
            }
            Stage::Filtered { port, judged, .. } => {
                let allowed = judged.action == Action::Allow;
                (Event::Filtered { port, rule: judged.rule.map_or(0, |i| i + 1), allowed }, false)
            }
            Stage::SourceChecked { .. } => return,
            Stage::Clamped { from, to } => (Event::Clamped { from, to }, false),
            Stage::Aged => (Event::Aged, false),
            Stage::Encapsulated(t) => (Event::Encapsulated(t), true),
            Stage::Decapsulated(t) => (Event::Decapsulated(t), true),
            Stage::Local(l) => (Event::Local(l), false),
            Stage::Caused { what, .. } => match what {
                Cause::Fragment(n) | Cause::Segment(n) => (Event::Cut(n as u32), false),
                Cause::Error(_) => (Event::Answered("ICMP error"), false),
                Cause::Redirect => (Event::Answered("redirect"), false),
                Cause::EchoReply => (Event::Answered("echo reply"), false),
                Cause::Reset => (Event::Answered("TCP reset"), false),
                Cause::Translated => (Event::Translated, true),
                Cause::Again | Cause::Inner => return,
            },
            Stage::ErrorWithheld { why, .. } => (Event::Withheld(why), false),
            Stage::Transmit(p) => (Event::Transmit(p), true),
            Stage::Punt(p) => (Event::Punt(p), false),
            Stage::Drop(r) => (Event::Drop(r), true),
        };
        self.record(event, frame.data(), bytes);
    }

    fn end(&mut self) {
        self.following = 0;
    }
}
