//! The neighbour cache: bounded, driven by messages, packets and time; it tells what is to be done as events.

use super::Neighbor;
use super::nud::{Evidence, Expiry, Nud};
use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::jitter::Jitter;
use crate::journal::{Happened, Journal};
use crate::port::PortId;
use crate::settings::NeighborSettings;
use crate::spec::NudState;
use crate::time::{Duration, Instant};
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How often STALE neighbours are asked whether traffic used them.
const USE_POLL: Duration = Duration::from_secs(1);

/// Gateways get this many places more than the limits say: a scan of addresses on some link must not keep the router from
/// finding the few neighbours that everything else depends on. Who is a gateway, the operator and routing protocols say.
pub(super) const GATEWAY_RESERVE: usize = 256;

/// Held frames with much more memory than this and than data are copied into small ones.
const SMALL: usize = 2048;

/// What the owner of the table has to do, in this order.
#[derive(Debug)]
pub enum NeighborEvent {
    /// Send an ARP request or neighbour solicitation ([`super::write_solicit`]).
    Solicit {
        /// The link.
        port: PortId,
        /// Whom to ask for.
        target: IpAddr,
        /// Its address if only it is asked; None asks everyone (broadcast, or the solicited-node group).
        unicast: Option<MacAddr>,
    },
    /// The link-layer address is new, another, or (None) lost: the adjacency must follow.
    Changed {
        /// The link.
        port: PortId,
        /// The neighbour.
        addr: IpAddr,
        /// Its link-layer address now.
        mac: Option<MacAddr>,
        /// For [`crate::object::Forward::used`]; the same for all versions of one entry.
        used: Arc<AtomicBool>,
    },
    /// Frames that waited can be sent now, in this order.
    Release {
        /// The link.
        port: PortId,
        /// The neighbour.
        addr: IpAddr,
        /// Its link-layer address.
        mac: MacAddr,
        /// Packets, from the IP header on.
        frames: Vec<Frame>,
    },
    /// It does not answer: drop these as [`DropReason::NeighborFailed`], each with its ICMP error.
    Failed {
        /// The link.
        port: PortId,
        /// The neighbour.
        addr: IpAddr,
        /// Packets, from the IP header on; may be none.
        frames: Vec<Frame>,
    },
    /// A held frame is given up without an answer.
    Dropped {
        /// Why.
        reason: DropReason,
        /// The packet, from the IP header on.
        frame: Frame,
    },
    /// The entry is gone (timeout, eviction, by hand, its port gone).
    Evicted {
        /// The link.
        port: PortId,
        /// The neighbour.
        addr: IpAddr,
    },
}

/// What [`NeighborTable::resolve`] found.
#[derive(Debug)]
pub enum Resolution {
    /// The address is known: send. The frame comes back.
    Known(MacAddr, Option<Frame>),
    /// It is being asked for; the frame is held.
    Pending,
    /// Drop the frame for this reason.
    Refused(DropReason, Option<Frame>),
}

pub(super) type Key = (PortId, IpAddr);

pub(super) struct Entry {
    pub(super) nud: Nud,
    pub(super) pending: VecDeque<Frame>,
    pub(super) used: Arc<AtomicBool>,
    pub(super) last_used: Instant,
    pub(super) confirmed: Instant,
    pub(super) updated: Instant,
    /// What the table's books say about it: deadline, link-layer address told, whether it counts as INCOMPLETE, STALE.
    armed: Option<Instant>,
    told: Option<MacAddr>,
    counted: NudState,
}

/// The cache. See the module; time and settings come with each call.
pub struct NeighborTable {
    pub(super) entries: HashMap<Key, Entry, FixedState>,
    timers: BTreeSet<(Instant, Key)>,
    /// When STALE entries are looked at next; None while there are none.
    scan_at: Option<Instant>,
    held: usize,
    incomplete: usize,
    stale: usize,
    statics: usize,
    jitter: Jitter,
    pub(super) journal: Journal<(Happened, Neighbor)>,
}

impl NeighborTable {
    /// An empty cache. `seed` feeds the hash, which strangers could attack, and the randomised ReachableTime.
    pub fn new(seed: u64) -> Self {
        NeighborTable {
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            timers: BTreeSet::new(),
            scan_at: None,
            held: 0,
            incomplete: 0,
            stale: 0,
            statics: 0,
            jitter: Jitter::new(seed),
            journal: Journal::default(),
        }
    }

    /// Changes of neighbours, to follow and to take.
    pub fn journal(&mut self) -> &mut Journal<(Happened, Neighbor)> {
        &mut self.journal
    }

    fn note(&mut self, happened: Happened, (port, addr): Key) {
        if self.journal.is_on()
            && let Some(n) = self.get(port, addr)
        {
            self.journal.write((happened, n));
        }
    }

    /// Frames that wait: part of the conservation law's `held`.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The link-layer address of a neighbour, if known.
    pub fn lookup(&self, port: PortId, addr: IpAddr) -> Option<MacAddr> {
        self.entries.get(&(port, addr))?.nud.mac()
    }

    /// Finds the link-layer address of a neighbour for a packet (from the IP header on), or starts to ask for it and
    /// holds the packet.
    pub fn resolve(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        addr: IpAddr,
        frame: Option<Frame>,
        out: &mut Vec<NeighborEvent>,
    ) -> Resolution {
        self.ask(now, s, (port, addr), 0, frame, out)
    }

    /// As [`NeighborTable::resolve`] for a neighbour that is the gateway of routes: asked for even while a scan of
    /// addresses fills the cache (RFC 6583 7.1), and if no more packets can be held, without holding this one.
    pub fn resolve_gateway(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        addr: IpAddr,
        frame: Option<Frame>,
        out: &mut Vec<NeighborEvent>,
    ) -> Resolution {
        self.ask(now, s, (port, addr), GATEWAY_RESERVE, frame, out)
    }

    fn ask(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        key: Key,
        reserve: usize,
        frame: Option<Frame>,
        out: &mut Vec<NeighborEvent>,
    ) -> Resolution {
        let (port, addr) = key;
        if let Some(e) = self.entries.get_mut(&key) {
            if let Some(mac) = e.nud.mac() {
                e.last_used = now;
                e.nud.used(now, s);
                self.settle(now, key, out);
                return Resolution::Known(mac, frame);
            }
            match (e.nud.state(), e.nud.deadline()) {
                (NudState::Failed, Some(until)) if until > now => {
                    return Resolution::Refused(DropReason::NeighborFailed, frame);
                }
                (NudState::Failed, _) => self.remove(key, out),
                _ => return self.hold(s, key, reserve, frame, out),
            }
        }
        if self.incomplete >= s.max_incomplete.saturating_add(reserve) || !self.make_room(s, reserve, out) {
            return Resolution::Refused(DropReason::NeighborTableFull, frame);
        }
        self.insert(now, key, Nud::incomplete(now, s));
        let held = self.hold(s, key, reserve, frame, out);
        if matches!(held, Resolution::Pending) || reserve > 0 {
            out.push(NeighborEvent::Solicit { port, target: addr, unicast: None });
            self.settle(now, key, out);
        } else {
            self.entries.remove(&key);
        }
        held
    }

    /// Takes evidence about a neighbour in.
    pub fn input(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        addr: IpAddr,
        evidence: Evidence,
        out: &mut Vec<NeighborEvent>,
    ) {
        let key = (port, addr);
        let reachable = self.reachable_time(s);
        if let Some(e) = self.entries.get_mut(&key) {
            let before = e.nud.clone();
            e.nud.learn(now, reachable, evidence);
            if e.nud.state() == NudState::Reachable && e.nud.deadline() != before.deadline() {
                e.confirmed = now;
            }
            if e.nud != before {
                e.updated = now;
            }
        } else if let Evidence::Source { mac, create: true } = evidence {
            if !self.make_room(s, 0, out) {
                return;
            }
            self.insert(now, key, Nud::stale(mac));
        } else {
            return;
        }
        // Packets that waited are sent now: that is use (RFC 4861 7.3.3).
        if let Some(e) = self.entries.get_mut(&key)
            && !e.pending.is_empty()
        {
            e.nud.used(now, s);
        }
        self.settle(now, key, out);
    }

    /// Traffic used a neighbour: a STALE one will be probed.
    pub fn used(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        addr: IpAddr,
        out: &mut Vec<NeighborEvent>,
    ) {
        if let Some(e) = self.entries.get_mut(&(port, addr)) {
            e.last_used = now;
            e.nud.used(now, s);
            self.settle(now, (port, addr), out);
        }
    }

    /// Something above IP made progress through a neighbour: it is reachable (RFC 4861 7.3.1).
    pub fn confirm(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: PortId,
        addr: IpAddr,
        out: &mut Vec<NeighborEvent>,
    ) {
        let reachable = self.reachable_time(s);
        if let Some(e) = self.entries.get_mut(&(port, addr)) {
            e.nud.confirm(now, reachable);
            e.confirmed = now;
            self.settle(now, (port, addr), out);
        }
    }

    /// When [`NeighborTable::poll`] has something to do next.
    pub fn poll_at(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.scan_at).min()
    }

    /// Fires the timers that are due, each once, and finds out which STALE neighbours were used.
    pub fn poll(&mut self, now: Instant, s: &NeighborSettings, out: &mut Vec<NeighborEvent>) {
        let mut due = Vec::new();
        while let Some((at, key)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            due.push(key);
        }
        for key in due {
            self.expire(now, s, key, out);
        }
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan(now, s, out);
        }
    }

    fn expire(&mut self, now: Instant, s: &NeighborSettings, key: Key, out: &mut Vec<NeighborEvent>) {
        let Some(e) = self.entries.get_mut(&key) else { return };
        e.armed = None;
        let (port, target) = key;
        if e.nud.state() == NudState::Reachable && e.used.swap(false, Relaxed) {
            e.last_used = now;
        }
        match e.nud.expire(now, s) {
            Expiry::Quiet => {}
            Expiry::Solicit(unicast) => out.push(NeighborEvent::Solicit { port, target, unicast }),
            Expiry::Failed => {
                let frames: Vec<Frame> = e.pending.drain(..).collect();
                e.updated = now;
                self.held -= frames.len();
                out.push(NeighborEvent::Failed { port, addr: target, frames });
            }
            Expiry::Remove => return self.remove(key, out),
        }
        self.settle(now, key, out);
    }

    /// Asks the flags of STALE entries whether workers used them, and removes those unused for long.
    fn scan(&mut self, now: Instant, s: &NeighborSettings, out: &mut Vec<NeighborEvent>) {
        let mut touched = Vec::new();
        for (key, e) in &mut self.entries {
            if e.nud.state() != NudState::Stale {
                continue;
            }
            if e.used.swap(false, Relaxed) {
                e.last_used = now;
                e.nud.used(now, s);
                touched.push((*key, false));
            } else if now.saturating_since(e.last_used) >= s.stale_lifetime {
                touched.push((*key, true));
            }
        }
        for (key, over) in touched {
            if over {
                self.remove(key, out);
            } else {
                self.settle(now, key, out);
            }
        }
        self.scan_at = (self.stale > 0).then_some(now + USE_POLL);
    }

    /// Puts a frame into the queue of an entry that has no address yet.
    fn hold(
        &mut self,
        s: &NeighborSettings,
        key: Key,
        reserve: usize,
        frame: Option<Frame>,
        out: &mut Vec<NeighborEvent>,
    ) -> Resolution {
        let (Some(frame), Some(e)) = (frame, self.entries.get_mut(&key)) else { return Resolution::Pending };
        if s.max_pending == 0 {
            return Resolution::Refused(DropReason::NeighborQueueFull, Some(frame));
        }
        let total = s.max_pending_total.saturating_add(reserve);
        // RFC 4861 7.2.2: the oldest goes first.
        while e.pending.len() >= s.max_pending || self.held >= total {
            let Some(frame) = e.pending.pop_front() else { break };
            self.held -= 1;
            out.push(NeighborEvent::Dropped { reason: DropReason::NeighborQueueFull, frame });
        }
        if self.held >= total {
            return Resolution::Refused(DropReason::HeldLimit, Some(frame));
        }
        e.pending.push_back(compact(frame));
        self.held += 1;
        Resolution::Pending
    }

    pub(super) fn insert(&mut self, now: Instant, key: Key, nud: Nud) {
        let entry = Entry {
            nud,
            pending: VecDeque::new(),
            used: Arc::default(),
            last_used: now,
            confirmed: now,
            updated: now,
            armed: None,
            told: None,
            // A state that no book counts.
            counted: NudState::Failed,
        };
        self.entries.insert(key, entry);
    }

    /// Brings the books in line with an entry that may have changed: deadlines, counts, what was told about its
    /// link-layer address; and lets frames go that waited for one.
    pub(super) fn settle(&mut self, now: Instant, key: Key, out: &mut Vec<NeighborEvent>) {
        let Some(e) = self.entries.get_mut(&key) else { return };
        let (port, addr) = key;
        let deadline = e.nud.deadline();
        if e.armed != deadline {
            if let Some(at) = e.armed {
                self.timers.remove(&(at, key));
            }
            if let Some(at) = deadline {
                self.timers.insert((at, key));
            }
            e.armed = deadline;
        }
        let (was, is) = (e.counted, e.nud.state());
        e.counted = is;
        let mac = e.nud.mac();
        let new = e.nud.state() != was || mac != e.told;
        if mac != e.told {
            e.told = mac;
            out.push(NeighborEvent::Changed { port, addr, mac, used: Arc::clone(&e.used) });
        }
        if let Some(mac) = mac
            && !e.pending.is_empty()
        {
            let frames: Vec<Frame> = e.pending.drain(..).collect();
            self.held -= frames.len();
            out.push(NeighborEvent::Release { port, addr, mac, frames });
        }
        self.count(was, is);
        if new {
            self.note(Happened::Changed, key);
        }
        if self.stale > 0 && self.scan_at.is_none() {
            self.scan_at = Some(now + USE_POLL);
        }
    }

    fn count(&mut self, was: NudState, is: NudState) {
        for (state, plus) in [(was, false), (is, true)] {
            let book = match state {
                NudState::Incomplete => &mut self.incomplete,
                NudState::Stale => &mut self.stale,
                NudState::Permanent | NudState::NoArp => &mut self.statics,
                _ => continue,
            };
            *book = if plus { *book + 1 } else { book.saturating_sub(1) };
        }
    }

    /// Takes an entry out; whoever waited for it is told that it failed.
    pub(super) fn remove(&mut self, key: Key, out: &mut Vec<NeighborEvent>) {
        let (port, addr) = key;
        let frames = self.take_out(key, out);
        if !frames.is_empty() {
            out.push(NeighborEvent::Failed { port, addr, frames });
        }
    }

    /// Takes an entry out and returns the frames that waited.
    pub(super) fn take_out(&mut self, key: Key, out: &mut Vec<NeighborEvent>) -> Vec<Frame> {
        self.note(Happened::Removed, key);
        let Some(e) = self.entries.remove(&key) else { return Vec::new() };
        let (port, addr) = key;
        if let Some(at) = e.armed {
            self.timers.remove(&(at, key));
        }
        self.count(e.counted, NudState::Failed);
        if self.stale == 0 {
            self.scan_at = None;
        }
        if e.told.is_some() {
            out.push(NeighborEvent::Changed { port, addr, mac: None, used: e.used });
        }
        out.push(NeighborEvent::Evicted { port, addr });
        self.held -= e.pending.len();
        e.pending.into()
    }

    /// Makes sure that one more dynamic entry fits, if need be by giving up the FAILED or STALE one unused for longest.
    /// Others are not hurt by a scan of addresses (RFC 6583 7). Where nobody can go, the `reserve` is used.
    fn make_room(&mut self, s: &NeighborSettings, reserve: usize, out: &mut Vec<NeighborEvent>) -> bool {
        let dynamic = self.entries.len() - self.statics.min(self.entries.len());
        if dynamic < s.max_entries {
            return true;
        }
        let rank = |e: &Entry| match e.nud.state() {
            NudState::Failed => Some((false, false, e.last_used)),
            NudState::Stale => Some((true, e.used.load(Relaxed), e.last_used)),
            _ => None,
        };
        let victim = self.entries.iter().filter_map(|(k, e)| Some((rank(e)?, *k))).min().map(|(_, k)| k);
        let Some(key) = victim else { return dynamic < s.max_entries.saturating_add(reserve) };
        self.remove(key, out);
        true
    }

    /// ReachableTime: uniform between 0.5 and 1.5 times the base (RFC 4861 6.3.2 and 10).
    pub(super) fn reachable_time(&mut self, s: &NeighborSettings) -> Duration {
        let base = u64::try_from(s.reachable_time.as_nanos()).unwrap_or(u64::MAX / 2);
        let spread = self.jitter.below(base);
        Duration::from_nanos((base / 2).saturating_add(spread))
    }
}

/// A frame that does not occupy a receive buffer of 64 KiB while it waits.
fn compact(frame: Frame) -> Frame {
    if frame.capacity() <= SMALL.max(frame.len() * 2) {
        return frame;
    }
    let mut small = Frame::from_slice(frame.data());
    small.meta = frame.meta;
    small
}
