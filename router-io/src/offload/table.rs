//! The list of offloaded flows, as the control thread keeps it: which flow has which way, what has gone there, who is idle.
//!
//! A number of a way is not given to another flow before [`REST`] has passed: a frame that the filter has taken just before goes the way
//! of its flow. For the same reason a way is never rewritten while an entry names it.

use crate::sys::bpf::flow::{Counts, Entry, FlowMaps, KEY, Sample, Taken, Way};
use router_core::port::PortId;
use router_core::router::FlowWay;
use router_core::time::{Duration, Instant};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How long a way is left alone after its last entry.
pub const REST: Duration = Duration::from_secs(1);
/// A flow without packets for so long is forgotten.
pub const IDLE: Duration = Duration::from_secs(15);
/// The same while the list is full.
pub const IDLE_FULL: Duration = Duration::from_secs(1);
/// A flow that cannot be offloaded is asked about again after so long.
pub const REFUSED: Duration = Duration::from_secs(2);
/// Flows that the programs shall not show again, at most.
const MOST_REFUSED: usize = 4096;

/// One flow.
#[derive(Debug)]
pub struct Flow {
    /// Its key in the kernel.
    pub key: [u8; KEY],
    /// Where it came in.
    pub port: PortId,
    /// What is done with it.
    pub way: FlowWay,
    /// Bytes that are put in front of each packet.
    pub added: u32,
    /// When it was first offloaded.
    pub since: Instant,
    /// When packets were last seen to have gone this way.
    pub used: Instant,
    /// What has gone this way since.
    pub taken: Taken,
    /// What the way's counters had when the flow got it.
    before: Taken,
    /// The generation of its entry.
    generation: u64,
}

/// What has gone a way since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// In by this port.
    pub ingress: PortId,
    /// Out by this one.
    pub egress: PortId,
    /// Through this tunnel.
    pub tunnel: Option<PortId>,
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Bytes of them, from the IP header on, as they came in.
    pub bytes: u64,
    /// Bytes that were put in front of each packet.
    pub added: u32,
}

/// See the module.
#[derive(Debug)]
pub struct FlowTable {
    maps: Arc<FlowMaps>,
    /// By number of the way; 0 is none.
    flows: Vec<Option<Flow>>,
    by_key: HashMap<[u8; KEY], u32>,
    free: Vec<u32>,
    /// Ways that nobody has any more, what they had counted then, and whom it concerns.
    resting: VecDeque<(Instant, u32, Flow)>,
    refused: VecDeque<(Instant, [u8; KEY])>,
    seen: u64,
}

impl FlowTable {
    /// An empty list.
    pub fn new(maps: Arc<FlowMaps>) -> Self {
        let ways = maps.ways();
        FlowTable {
            maps,
            flows: (0..ways).map(|_| None).collect(),
            by_key: HashMap::new(),
            // The lowest first.
            free: (1..ways as u32).rev().collect(),
            resting: VecDeque::new(),
            refused: VecDeque::new(),
            seen: 0,
        }
    }

    /// What the programs share with us.
    pub fn maps(&self) -> &FlowMaps {
        &self.maps
    }

    /// Flows in the list.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Most flows that there may be.
    pub fn capacity(&self) -> usize {
        self.flows.len() - 1
    }

    /// All flows, and whether their entries count.
    pub fn iter(&self) -> impl Iterator<Item = (&Flow, bool)> {
        let now = self.maps.generation();
        self.flows.iter().flatten().map(move |f| (f, f.generation == now))
    }

    /// Offloads a flow from now on. False: there is no room.
    pub fn add(&mut self, now: Instant, sample: &Sample, port: PortId, way: FlowWay, kernel: &Way) -> bool {
        let generation = self.maps.generation();
        let entry = |number| Entry { generation, way: number, mtu: way.mtu, added: kernel.added() };
        if let Some(number) = self.by_key.get(&sample.key).copied() {
            let flow = self.flows.get_mut(number as usize).and_then(Option::as_mut);
            if let Some(flow) = flow.filter(|f| f.port == port && f.way.is_same(&way)) {
                flow.generation = generation;
                // The adjacencies may be new ones.
                flow.way = way;
                let entry = Entry { generation, way: number, mtu: flow.way.mtu, added: kernel.added() };
                return self.maps.set(&sample.key, &entry).is_ok();
            }
            self.retire(now, number);
        }
        let Some(number) = self.free.pop() else { return false };
        self.maps.set_way(number, kernel);
        if self.maps.set(&sample.key, &entry(number)).is_err() {
            self.free.push(number);
            return false;
        }
        let before = self.maps.taken(number);
        let taken = Taken::default();
        let added = kernel.added();
        let flow = Flow { key: sample.key, port, way, added, since: now, used: now, taken, before, generation };
        if let Some(place) = self.flows.get_mut(number as usize) {
            *place = Some(flow);
        }
        self.by_key.insert(sample.key, number);
        true
    }

    /// The flow's packets go to the socket, and are not shown, for a while.
    pub fn refuse(&mut self, now: Instant, sample: &Sample) {
        if let Some(number) = self.by_key.get(&sample.key).copied() {
            self.retire(now, number);
        }
        if self.refused.len() < MOST_REFUSED {
            let entry = Entry { generation: self.maps.generation(), way: 0, mtu: 0, added: 0 };
            if self.maps.set(&sample.key, &entry).is_ok() {
                self.refused.push_back((now, sample.key));
            }
        }
    }

    /// Forgets all flows; says how many there were.
    pub fn flush(&mut self, now: Instant) -> usize {
        self.maps.begin_generation();
        let all: Vec<u32> = self.by_key.values().copied().collect();
        all.iter().for_each(|number| self.retire(now, *number));
        while let Some((_, key)) = self.refused.pop_front() {
            self.maps.remove(&key);
        }
        all.len()
    }

    /// Takes a flow out; its way rests.
    fn retire(&mut self, now: Instant, number: u32) {
        let Some(flow) = self.flows.get_mut(number as usize).and_then(Option::take) else { return };
        self.by_key.remove(&flow.key);
        self.maps.remove(&flow.key);
        self.resting.push_back((now, number, flow));
    }

    /// Tells what has gone since the last call, flow by flow.
    pub fn collect(&mut self, now: Instant, mut tell: impl FnMut(Gone)) {
        let forwarded = self.maps.counts().forwarded;
        if forwarded == self.seen {
            return;
        }
        self.seen = forwarded;
        let maps = &self.maps;
        let mut look = |number: u32, flow: &mut Flow| {
            let total = maps.taken(number);
            let since = Taken {
                packets: total.packets.wrapping_sub(flow.before.packets),
                segments: total.segments.wrapping_sub(flow.before.segments),
                bytes: total.bytes.wrapping_sub(flow.before.bytes),
            };
            let packets = since.packets.wrapping_sub(flow.taken.packets);
            if packets > 0 {
                let (ingress, egress, tunnel) = (flow.port, flow.way.port, flow.way.tunnel.as_ref().map(|t| t.0));
                let bytes = since.bytes.wrapping_sub(flow.taken.bytes);
                flow.used = now;
                flow.way.touch();
                tell(Gone { ingress, egress, tunnel, packets, bytes, added: flow.added });
            }
            flow.taken = since;
        };
        for (number, flow) in self.flows.iter_mut().enumerate() {
            if let Some(flow) = flow {
                look(number as u32, flow);
            }
        }
        for (_, number, flow) in &mut self.resting {
            look(*number, flow);
        }
    }

    /// Forgets who is idle, and gives back what has rested. After [`FlowTable::collect`].
    pub fn sweep(&mut self, now: Instant) {
        while let Some((at, number, _)) = self.resting.front()
            && now.saturating_since(*at) >= REST
        {
            self.free.push(*number);
            self.resting.pop_front();
        }
        while let Some((at, key)) = self.refused.front()
            && now.saturating_since(*at) >= REFUSED
        {
            // It may have got a way since.
            if !self.by_key.contains_key(key) {
                self.maps.remove(key);
            }
            self.refused.pop_front();
        }
        let limit = if self.free.len() * 16 < self.flows.len() { IDLE_FULL } else { IDLE };
        let idle = |(number, flow): (usize, &Option<Flow>)| {
            flow.as_ref().filter(|f| now.saturating_since(f.used) >= limit).map(|_| number as u32)
        };
        let idle: Vec<u32> = self.flows.iter().enumerate().filter_map(idle).collect();
        idle.into_iter().for_each(|number| self.retire(now, number));
    }

    /// What the programs have done.
    pub fn counts(&self) -> Counts {
        self.maps.counts()
    }
}
