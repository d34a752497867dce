//! The agent of flow offload, on the control thread: looks at packets that the programs show, asks the router what becomes of their
//! flows, keeps the list, and makes all of it void when anything changes.

use super::Control;
use crate::offload::table::{Flow, FlowTable, Gone};
use crate::offload::{self, OffloadError};
use crate::sys::bpf::flow::{Counts, Outer, Sample, Way};
use router_core::port::PortId;
use router_core::router::FlowWay;
use router_core::time::{Duration, Instant};

/// Flows that are looked at in one go: some milliseconds of work at most.
const PER_TICK: u32 = 48;
/// Between two goes while there are new flows, and while there are none: what a flow waits for the kernel's way.
const BUSY: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_millis(20);
/// The pause after a go is so many times as long as the work was: a flood of flows leaves the control thread to others.
const REST: u32 = 6;
/// Between two looks for idle flows.
const SWEEP: Duration = Duration::from_millis(500);
/// More frames than are between the filter and the forwarder at any one moment: one per processor.
const IN_FLIGHT: u64 = 1024;
/// So many flows are looked at whenever somebody asks; more of them no more often than the second says.
const FEW: usize = 4096;
const SELDOM: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Agent {
    table: FlowTable,
    tick_at: Instant,
    sweep_at: Instant,
    collected: Instant,
    /// Somebody watches packets, or the programs do not do as they should.
    suspended: bool,
    /// The mark does not arrive: never again.
    broken: bool,
    /// FIB entries written when the generation began.
    fib_writes: u64,
    /// All that has gone, for [`Control::offload_status`].
    gone: (u64, u64),
}

/// What offloading has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadStatus {
    /// Flows in the list.
    pub flows: usize,
    /// Most that there may be.
    pub capacity: usize,
    /// Nothing is offloaded for now, because somebody captures or traces packets.
    pub suspended: bool,
    /// Nothing is offloaded any more, because this kernel loses the programs' mark.
    pub broken: bool,
    /// Changes that made all entries void.
    pub generation: u64,
    /// Frames and bytes that were offloaded.
    pub packets: u64,
    /// Of their IP packets, as they came in.
    pub bytes: u64,
    /// What the programs have done.
    pub counts: Counts,
}

/// An offloaded flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffloadedFlow {
    /// The port where it comes in.
    pub ingress: PortId,
    /// The port where it goes out.
    pub egress: PortId,
    /// The tunnel that it enters.
    pub tunnel: Option<PortId>,
    /// The flow's first bytes as the programs have them.
    pub key: crate::offload::FlowKey,
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Packets on the wire.
    pub segments: u64,
    /// Of the IP packets, as they came in.
    pub bytes: u64,
    /// For how long it has been offloaded.
    pub age: Duration,
    /// For how long no packet has come.
    pub idle: Duration,
    /// Its entry counts; false: something has changed, and no packet has come since.
    pub current: bool,
}

impl Agent {
    fn new(table: FlowTable, now: Instant) -> Self {
        let (tick_at, sweep_at) = (now, now + SWEEP);
        Agent { table, tick_at, sweep_at, collected: now, suspended: false, broken: false, fib_writes: 0, gone: (0, 0) }
    }

    /// All entries are void from here on.
    pub fn void(&self) {
        self.table.maps().begin_generation();
    }

    /// The same if FIB entries were written since the last look.
    pub fn void_if_written(&mut self, fib_writes: u64) {
        if fib_writes != self.fib_writes {
            self.fib_writes = fib_writes;
            self.void();
        }
    }

    /// When it wants to be called.
    pub fn deadline(&self) -> Instant {
        self.tick_at
    }
}

impl Control {
    /// Offloads flows between `packet` ports that are opened from now on, so many at most ([`offload::DEFAULT_FLOWS`]). Errors leave
    /// everything as it was.
    pub fn offload_flows(&mut self, most: u32) -> Result<(), OffloadError> {
        let maps = offload::maps(most)?;
        self.opener.offload = Some(std::sync::Arc::clone(&maps));
        self.flows = Some(Agent::new(FlowTable::new(maps), self.clock.now()));
        Ok(())
    }

    /// What offloading has come to; None while it is off.
    pub fn offload_status(&mut self) -> Option<OffloadStatus> {
        self.collect_flows();
        let agent = self.flows.as_ref()?;
        let table = &agent.table;
        Some(OffloadStatus {
            flows: table.len(),
            capacity: table.capacity(),
            suspended: agent.suspended,
            broken: agent.broken,
            generation: table.maps().generation(),
            packets: agent.gone.0,
            bytes: agent.gone.1,
            counts: table.counts(),
        })
    }

    /// All offloaded flows.
    pub fn offloaded_flows(&mut self) -> Vec<OffloadedFlow> {
        self.collect_flows();
        let now = self.clock.now();
        let show = |(f, current): (&Flow, bool)| OffloadedFlow {
            ingress: f.port,
            egress: f.way.port,
            tunnel: f.way.tunnel.as_ref().map(|t| t.0),
            key: offload::FlowKey::read(&f.key),
            packets: f.taken.packets,
            segments: f.taken.segments,
            bytes: f.taken.bytes,
            age: now.saturating_since(f.since),
            idle: now.saturating_since(f.used),
            current,
        };
        self.flows.iter().flat_map(|a| a.table.iter()).map(show).collect()
    }

    /// Forgets all offloaded flows, which are learned again; says how many there were.
    pub fn flush_flows(&mut self) -> usize {
        let now = self.clock.now();
        self.collect_flows();
        self.flows.as_mut().map_or(0, |a| a.table.flush(now))
    }

    /// Nothing is offloaded from here on, until the next turn in which nobody watches.
    pub(super) fn suspend_flows(&mut self) {
        if let Some(agent) = &mut self.flows {
            agent.suspended = true;
            agent.void();
        }
    }

    /// Accounts for what was offloaded since the last call: as if the control side had received and sent it.
    pub(super) fn collect_flows(&mut self) {
        let now = self.clock.now();
        let Some(agent) = &mut self.flows else { return };
        if agent.table.len() > FEW && now.saturating_since(agent.collected) < SELDOM {
            return;
        }
        agent.collected = now;
        let (counters, gone) = (&self.counters, &mut agent.gone);
        agent.table.collect(now, |g: Gone| {
            counters.received.add(g.packets);
            counters.transmitted.add(g.packets);
            // As a worker counts: with the link header.
            let link = 14 * g.packets;
            if let Some(p) = counters.port(g.ingress) {
                p.rx_packets.add(g.packets);
                p.rx_bytes.add(g.bytes + link);
            }
            if let Some(p) = counters.port(g.egress) {
                p.tx_packets.add(g.packets);
                p.tx_bytes.add(g.bytes + link + u64::from(g.added) * g.packets);
            }
            if let Some(p) = g.tunnel.and_then(|t| counters.port(t)) {
                p.tx_packets.add(g.packets);
                p.tx_bytes.add(g.bytes);
            }
            *gone = (gone.0 + g.packets, gone.1 + g.bytes);
        });
    }

    /// Does what is due. After the commit of a turn: the router's tables are those of the data plane.
    pub(super) fn offload_turn(&mut self) {
        let now = self.clock.now();
        if self.flows.as_ref().is_none_or(|a| now < a.tick_at && a.suspended == self.watches.is_active()) {
            return;
        }
        if self.flows.as_ref().is_some_and(|a| now >= a.sweep_at) {
            self.collect_flows();
        }
        let watched = self.watches.is_active();
        let Some(mut agent) = self.flows.take() else { return };
        agent.supervise(watched);
        let mut learned = 0;
        if !agent.suspended {
            while learned < PER_TICK
                && let Some(sample) = agent.table.maps().take_sample()
            {
                learned += 1;
                self.learn(now, &mut agent.table, &sample);
            }
        }
        agent.table.maps().want_samples(if agent.suspended { 0 } else { PER_TICK });
        if now >= agent.sweep_at {
            agent.table.sweep(now);
            agent.sweep_at = now + SWEEP;
        }
        let worked = self.clock.now().saturating_since(now);
        agent.tick_at = now + (worked * (REST + 1)).max(if learned > 0 { BUSY } else { QUIET });
        self.flows = Some(agent);
    }

    fn learn(&self, now: Instant, table: &mut FlowTable, sample: &Sample) {
        let port = self.port_of_device(offload::FlowKey::read(&sample.key).ifindex);
        let way = port.and_then(|port| Some((port, self.router.flow_way(now, port, &sample.head)?)));
        match way.and_then(|(port, way)| Some((port, self.kernel_way(&way, sample)?, way))) {
            Some((port, kernel, way)) => _ = table.add(now, sample, port, way, &kernel),
            None => table.refuse(now, sample),
        }
    }

    /// The port whose device has the programs.
    fn port_of_device(&self, ifindex: u32) -> Option<PortId> {
        self.ports.iter().find(|(_, p)| p.offloads && p.device_index == Some(ifindex)).map(|(id, _)| *id)
    }

    /// The way as the kernel needs it; None where it cannot go.
    fn kernel_way(&self, way: &FlowWay, sample: &Sample) -> Option<Way> {
        let egress = self.ports.get(&way.port).filter(|p| p.offloads)?;
        let outer = match way.tunnel.as_ref().map(|(_, header)| &header[..]) {
            None => None,
            Some(header) => Some(match header.len() {
                20 => Outer::V4(*header.first_chunk()?),
                40 => Outer::V6(*header.first_chunk()?),
                _ => return None,
            }),
        };
        let v6 = offload::FlowKey::read(&sample.key).v6;
        Some(Way { out: egress.device_index?, v6, link: way.link, outer })
    }
}

impl Agent {
    /// Suspends and resumes; ends for good when the forwarders do not see what the filters have marked.
    fn supervise(&mut self, watched: bool) {
        let counts = self.table.counts();
        let lost = counts.taken.saturating_sub(counts.forwarded + counts.failed);
        if lost > IN_FLIGHT && !self.broken {
            self.broken = true;
            tracing::error!(lost, "this kernel loses the mark of offloaded packets: flows are not offloaded any more");
        }
        let suspended = watched || self.broken;
        if suspended && !self.suspended {
            self.void();
        }
        self.suspended = suspended;
    }
}
