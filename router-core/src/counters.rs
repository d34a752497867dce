//! Counters: written by one worker each, read by anyone, summed on reading.
//!
//! The conservation law, asserted in all tests:
//! `received + originated = transmitted + delivered + answered + dropped(all reasons) + held`.
//! *Received* frames came from a port. *Originated* frames were made here: ICMP errors, echo replies, ARP and NDP, every
//! fragment or segment beyond the first of its packet. *Answered* frames are requests that ended in a reply (an
//! originated frame). A packet that made us send an ICMP error ends under its drop reason. *Held* frames wait for a
//! neighbour, or are on the way from a worker to the control thread.

use crate::drop_reason::DropReason;
use crate::trace::LastDrops;
use crossbeam_utils::CachePadded;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A counter with a single writer: increments are a plain load and store, never a locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`. Only the owning worker may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Packets and bytes of something that is counted because somebody asked. All workers write to it.
#[derive(Debug, Default)]
pub struct Traffic {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// Counts one packet of so many bytes.
    pub fn count(&self, bytes: u32) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(u64::from(bytes), Relaxed);
    }

    /// Packets and bytes so far.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// Traffic of one port as seen by one worker: those of iproute2's `link -s` columns that change with every packet. Half a cache
/// line, as with many tunnels most packets find theirs in no cache; one worker writes all of a list.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: Counter,
    /// Bytes received, link header included.
    pub rx_bytes: Counter,
    /// Frames given to the port for sending.
    pub tx_packets: Counter,
    /// Bytes given to the port for sending.
    pub tx_bytes: Counter,
}

/// The other columns.
#[derive(Debug, Default)]
pub struct RareCounters {
    /// Frames from here that were dropped at or after reception.
    pub rx_dropped: Counter,
    /// Multicast frames received.
    pub rx_multicast: Counter,
    /// Frames that the port could not take.
    pub tx_dropped: Counter,
    /// What the port's limits have cut.
    pub limited: LimitCounters,
}

/// One worker's counters. The owner writes; everyone else reads.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Frames taken from ports.
    pub received: CachePadded<Counter>,
    /// Frames made here.
    pub originated: Counter,
    /// Frames handed to ports.
    pub transmitted: Counter,
    /// Frames given to a consumer inside the router (ARP, NDP, ICMP messages that were used).
    pub delivered: Counter,
    /// Requests that were answered.
    pub answered: Counter,
    /// Frames waiting. May wrap below zero in one worker when another one took them over: only the sum has a meaning.
    pub held: Counter,
    dropped: [Counter; DropReason::COUNT],
    /// The last packets that ended for each reason.
    pub last_drops: LastDrops,
    /// See [`WorkerCounters::part`].
    part: usize,
    /// See [`WorkerCounters::ports`].
    expected: usize,
    /// By port, in segments that are made when there are such ports.
    ports: Box<[OnceLock<Segment<PortCounters>>]>,
    /// What happens seldom, by port.
    rare: Box<[OnceLock<Segment<RareCounters>>]>,
}

/// Packets of one port that were beyond its limits towards the control thread, by [`crate::filter::LimitKind`].
pub type LimitCounters = [Counter; 3];

/// See [`WorkerCounters::part`].
static NEXT_PART: AtomicUsize = AtomicUsize::new(0);

/// Counters of some ports together.
type Segment<T> = Box<[T; SEGMENT]>;

/// Ports of a segment, and segments: as many as a router can have.
const SEGMENT: usize = 1024;
const SEGMENTS: usize = 1024;

fn segments<T>() -> Box<[OnceLock<Segment<T>>]> {
    (0..SEGMENTS).map(|_| OnceLock::new()).collect()
}

fn make_segments<T: Default>(list: &[OnceLock<Segment<T>>], ports: usize) {
    for s in list.iter().take(ports.div_ceil(SEGMENT)).rev().take_while(|s| s.get().is_none()) {
        s.get_or_init(|| {
            // Made where it stays, not on the stack.
            let all: Box<[T]> = (0..SEGMENT).map(|_| T::default()).collect();
            all.try_into().unwrap_or_else(|_| unreachable!("that many were collected"))
        });
    }
}

#[inline]
fn in_segments<T>(list: &[OnceLock<Segment<T>>], index: usize) -> Option<&T> {
    Some(&list.get(index / SEGMENT)?.get()?[index % SEGMENT])
}

impl WorkerCounters {
    /// All zero, with room for `ports` ports and tunnels.
    pub fn new(ports: usize) -> Self {
        let counters = WorkerCounters {
            received: CachePadded::default(),
            originated: Counter::default(),
            transmitted: Counter::default(),
            delivered: Counter::default(),
            answered: Counter::default(),
            held: Counter::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
            last_drops: LastDrops::default(),
            part: NEXT_PART.fetch_add(1, Relaxed),
            expected: ports,
            ports: segments(),
            rare: segments(),
        };
        counters.make_room(ports);
        counters
    }

    /// Makes room for `ports` ports and tunnels. Whoever adds them calls this before workers may meet them.
    pub fn make_room(&self, ports: usize) {
        make_segments(&self.ports, ports);
        make_segments(&self.rare, ports);
    }

    /// A number that differs between workers: which part each writes of what several write in parts of their own.
    #[inline]
    pub fn part(&self) -> usize {
        self.part
    }

    /// Counts one dropped frame.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.dropped[reason.index()].add(1);
    }

    /// How many ports there was to be room for at first.
    pub fn ports(&self) -> usize {
        self.expected
    }

    /// Corrects the account of a frame that was counted as transmitted and that its port then could not take.
    pub fn tx_failed(&self, port: crate::port::PortId, bytes: usize, reason: DropReason) {
        self.transmitted.sub(1);
        self.count_drop(reason);
        if let Some(p) = self.port(port) {
            p.tx_packets.sub(1);
            p.tx_bytes.sub(bytes as u64);
        }
        if let Some(p) = self.rare(port) {
            p.tx_dropped.add(1);
        }
    }

    /// Frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason.index()].get()
    }

    /// What happens seldom at one port, if there is room for it.
    pub fn rare(&self, id: crate::port::PortId) -> Option<&RareCounters> {
        in_segments(&self.rare, id.index())
    }

    /// The counters of one port, if there is room for it.
    #[inline]
    pub fn port(&self, id: crate::port::PortId) -> Option<&PortCounters> {
        in_segments(&self.ports, id.index())
    }
}

/// Counter values summed over workers. Comparable, so that tests can demand the complete set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// See [`WorkerCounters`].
    pub received: u64,
    /// See [`WorkerCounters`].
    pub originated: u64,
    /// See [`WorkerCounters`].
    pub transmitted: u64,
    /// See [`WorkerCounters`].
    pub delivered: u64,
    /// See [`WorkerCounters`].
    pub answered: u64,
    /// See [`WorkerCounters`].
    pub held: u64,
    /// By name of the reason; zero counts left out.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Sums the counters of all workers.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Self {
        let mut t = Totals::default();
        for w in workers {
            let WorkerCounters {
                received,
                originated,
                transmitted,
                delivered,
                answered,
                held,
                dropped: _,
                last_drops: _,
                part: _,
                expected: _,
                ports: _,
                rare: _,
            } = w;
            t.received = t.received.wrapping_add(received.get());
            t.originated = t.originated.wrapping_add(originated.get());
            t.transmitted = t.transmitted.wrapping_add(transmitted.get());
            t.delivered = t.delivered.wrapping_add(delivered.get());
            t.answered = t.answered.wrapping_add(answered.get());
            t.held = t.held.wrapping_add(held.get());
            for r in DropReason::ALL {
                let n = w.dropped(*r);
                if n > 0 {
                    *t.dropped.entry(r.name()).or_default() += n;
                }
            }
        }
        t
    }

    /// Dropped frames of all reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// The conservation law: `Err` with both sides when a frame was lost or counted twice.
    pub fn check(&self) -> Result<(), String> {
        let entered = self.received.wrapping_add(self.originated);
        let ended = self.transmitted + self.delivered + self.answered + self.dropped_total();
        let ended = ended.wrapping_add(self.held);
        if entered == ended { Ok(()) } else { Err(format!("{entered} frames entered, {ended} ended: {self:?}")) }
    }
}

/// Sum of one port's counters over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PortTotals {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received frames dropped.
    pub rx_dropped: u64,
    /// Frames that came and were never received: a worker came too late, and the port's queue was full. None of the others.
    #[serde(default)]
    pub rx_missed: u64,
    /// Multicast frames received.
    pub rx_multicast: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_dropped: u64,
    /// Of the dropped ones: ARP and neighbour discovery beyond the port's limit.
    #[serde(default)]
    pub limit_neighbor: u64,
    /// ICMP errors to the router beyond it.
    #[serde(default)]
    pub limit_icmp: u64,
    /// Everything else for the control thread beyond it.
    #[serde(default)]
    pub limit_other: u64,
}

impl PortTotals {
    /// Sums one port over all workers.
    pub fn sum<'a>(id: crate::port::PortId, workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Self {
        let mut t = PortTotals::default();
        let workers: Vec<&WorkerCounters> = workers.into_iter().collect();
        for rare in workers.iter().filter_map(|w| w.rare(id)) {
            t.rx_dropped = t.rx_dropped.wrapping_add(rare.rx_dropped.get());
            t.rx_multicast = t.rx_multicast.wrapping_add(rare.rx_multicast.get());
            t.tx_dropped = t.tx_dropped.wrapping_add(rare.tx_dropped.get());
            let [neighbor, icmp, other] = &rare.limited;
            t.limit_neighbor = t.limit_neighbor.wrapping_add(neighbor.get());
            t.limit_icmp = t.limit_icmp.wrapping_add(icmp.get());
            t.limit_other = t.limit_other.wrapping_add(other.get());
        }
        for p in workers.into_iter().filter_map(|w| w.port(id)) {
            // One that takes back what another counted may be below zero: only the sum has a meaning.
            t.rx_packets = t.rx_packets.wrapping_add(p.rx_packets.get());
            t.rx_bytes = t.rx_bytes.wrapping_add(p.rx_bytes.get());
            t.tx_packets = t.tx_packets.wrapping_add(p.tx_packets.get());
            t.tx_bytes = t.tx_bytes.wrapping_add(p.tx_bytes.get());
        }
        t
    }
}
