//! Measures the whole way of a packet in memory, on one core: from a received frame to a frame ready for its egress port.

use crate::bed::{Bed, Packets, Refused, Via};
use crate::measure::{Plan, Spread, timed_per_item};
use crate::table::Table;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::observe::Observer;
use router_core::port::PortId;
use router_core::tables::Tables;
use router_core::worker::{Fixed, MAX_BATCH, Outbox, TableSource, Worker};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Buffers in rotation: with the bytes that a packet touches in each they are twice a first-level data cache.
const BUFFERS: usize = 8 * MAX_BATCH;

/// The ways of forwarding that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// IPv4 via IPv4 gateways.
    #[serde(rename = "native4")]
    Native4,
    /// IPv6 via IPv6 gateways.
    #[serde(rename = "native6")]
    Native6,
    /// IPv4 via IPv6 gateways.
    #[serde(rename = "via-inet6")]
    ViaInet6,
    /// IPv6 into a 6in4 tunnel.
    #[serde(rename = "6in4-encap")]
    Encap,
    /// IPv6 out of a 6in4 tunnel.
    #[serde(rename = "6in4-decap")]
    Decap,
}

impl Path {
    /// All of them.
    pub const ALL: [Path; 5] = [Path::Native4, Path::Native6, Path::ViaInet6, Path::Encap, Path::Decap];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Path::Native4 => "native4",
            Path::Native6 => "native6",
            Path::ViaInet6 => "via-inet6",
            Path::Encap => "6in4-encap",
            Path::Decap => "6in4-decap",
        }
    }

    /// Whether its (inner) packets and routes are IPv6.
    pub fn is_v6(self) -> bool {
        !matches!(self, Path::Native4 | Path::ViaInet6)
    }

    /// A router whose routes lead this way.
    ///
    /// # Errors
    /// A route that the router does not take.
    pub fn bed(self, table: &Table) -> Result<Bed, Refused> {
        let mut bed = Bed::new()?;
        bed.load(table, self.via())?;
        Ok(bed)
    }

    /// Where routes lead for this way.
    pub fn via(self) -> Via {
        match self {
            Path::Native4 | Path::Native6 | Path::Decap => Via::Own,
            Path::ViaInet6 => Via::Inet6,
            Path::Encap => Via::Tunnel,
        }
    }

    /// Packets that go this way.
    pub fn packets(self, destinations: &[IpAddr]) -> Packets {
        if self == Path::Decap { Packets::in_tunnel(destinations) } else { Packets::udp(destinations) }
    }
}

/// Why a measurement is void.
#[derive(Debug, thiserror::Error)]
pub enum Void {
    /// Not every packet went out.
    #[error("only {transmitted} of {received} packets went out; dropped: {dropped}")]
    Lost {
        /// Packets that went in.
        received: u64,
        /// Packets that came out.
        transmitted: u64,
        /// How many others for which reason.
        dropped: String,
    },
    /// The account of packets does not add up.
    #[error("the account of packets does not add up: {0}")]
    Account(String),
}

/// What a measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// Nanoseconds per packet, without the copy into the input buffer.
    pub packet: Spread,
    /// What `allocations` counted.
    pub allocations: u64,
}

/// Sends packets through one worker in batches of `batch` and measures. Each packet is copied into the buffer that was
/// used longest ago, one of [`BUFFERS`], as the rings of a port give them out. The clock stands still meanwhile.
///
/// `allocations` counts calls of the allocator, for those who watch; `|| 0` for others.
///
/// # Errors
/// When a packet did not go out: then something else was measured.
pub fn measure(
    bed: &Bed,
    packets: &Packets,
    batch: usize,
    plan: Plan,
    allocations: impl Fn() -> u64,
) -> Result<Forwarded, Void> {
    measure_on(&bed.router.tables(), bed.now, packets, batch, plan, allocations)
}

/// As [`measure`] on a router's snapshot, which other threads may use at the same time.
///
/// # Errors
/// As [`measure`].
pub fn measure_on(
    tables: &Arc<Tables>,
    now: router_core::time::Instant,
    packets: &Packets,
    batch: usize,
    plan: Plan,
    allocations: impl Fn() -> u64,
) -> Result<Forwarded, Void> {
    let ports = tables.ports.places().max(8);
    let counters = Arc::new(WorkerCounters::new(8));
    counters.make_room(ports);
    let worker = Worker::new(counters, 1);
    measure_by(worker, tables, now, packets, batch, plan, allocations)
}

/// As [`measure_on`], by a worker of the caller's, such as one that is watched.
///
/// # Errors
/// As [`measure`].
pub fn measure_by<O: Observer>(
    worker: Worker<O>,
    tables: &Arc<Tables>,
    now: router_core::time::Instant,
    packets: &Packets,
    batch: usize,
    plan: Plan,
    allocations: impl Fn() -> u64,
) -> Result<Forwarded, Void> {
    measure_from(worker, &mut Fixed(Arc::clone(tables)), |_| {}, now, packets, batch, plan, allocations)
}

/// As [`measure_by`] with tables that may change meanwhile: `refresh` is called before each batch, and its time counts.
///
/// # Errors
/// As [`measure`].
#[allow(clippy::too_many_arguments)]
pub fn measure_from<O: Observer, S: TableSource>(
    mut worker: Worker<O>,
    source: &mut S,
    mut refresh: impl FnMut(&mut S),
    now: router_core::time::Instant,
    packets: &Packets,
    batch: usize,
    plan: Plan,
    allocations: impl Fn() -> u64,
) -> Result<Forwarded, Void> {
    let size = batch.clamp(1, MAX_BATCH);
    let counters = Arc::clone(worker.counters());
    let mut out = Outbox::new(8, FramePool::new(BUFFERS, 2048));
    (0..8).for_each(|port| out.make_room(PortId(port)));
    // Each list is a batch, and the queue that it ends in becomes a batch in its place. A pool would give out the frames
    // used last, and moving frames one by one would cost as much as forwarding them.
    let list = |_| {
        let mut list = Vec::with_capacity(size);
        list.extend(std::iter::from_fn(|| out.pool.take()).take(size));
        list
    };
    let mut batches: Vec<Vec<Frame>> = (0..BUFFERS / size).map(list).collect();
    let mut next = 0;
    // Small batches are not copied one by one either: what a port delivers was written a while before.
    let mut fill = |batches: &mut [Vec<Frame>]| {
        for frame in batches.iter_mut().flatten() {
            packets.write(next, frame);
            next += 1;
            if next >= packets.len() {
                next = 0;
            }
        }
        batches.iter().map(Vec::len).sum::<usize>()
    };
    // So many batches are filled, then carried through between two looks at the clock, which is not cheap.
    let (some, count) = (MAX_BATCH / size, batches.len());
    let mut turn = 0;
    let mut allocated = 0;
    let packet = timed_per_item(plan.runs, plan.time, || {
        turn = if turn + 2 * some > count { 0 } else { turn + some };
        let batches = batches.get_mut(turn..turn + some).unwrap_or_default();
        let n = fill(batches);
        let before = allocations();
        let start = Instant::now();
        for batch in batches {
            refresh(source);
            worker.process(now, source, PortId(1), batch, &mut out);
            // All of them go out of one port.
            for queue in out.tx.iter_mut().filter(|q| !q.is_empty()) {
                std::mem::swap(batch, queue);
            }
        }
        let spent = start.elapsed();
        allocated += allocations() - before;
        (n, spent)
    });
    let totals = Totals::sum([&*counters]);
    totals.check().map_err(|e| Void::Account(format!("{e:?}")))?;
    if totals.transmitted != totals.received {
        let (received, transmitted) = (totals.received, totals.transmitted);
        let reasons: Vec<_> = totals.dropped.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let dropped = if reasons.is_empty() { "none, they went elsewhere".into() } else { reasons.join(", ") };
        return Err(Void::Lost { received, transmitted, dropped });
    }
    Ok(Forwarded { packet, allocations: allocated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use crate::table::{synthetic_v4, synthetic_v6};
    use std::time::Duration;

    #[test]
    fn every_way_forwards_every_packet() {
        let plan = Plan { runs: 1, time: Duration::from_millis(1) };
        for path in Path::ALL {
            let table = if path.is_v6() { synthetic_v6(50, 6) } else { synthetic_v4(50, 4) };
            let bed = path.bed(&table).unwrap();
            let packets = path.packets(&Pattern::Prefix.destinations(&table, 100));
            assert_eq!(packets.len(), 100);
            for batch in [1, 7, 256] {
                let done = measure(&bed, &packets, batch, plan, || 0).unwrap();
                assert!(done.packet.max >= done.packet.min && done.packet.min > 0.0, "{path:?}");
            }
        }
    }

    #[test]
    fn a_packet_that_does_not_go_out_voids_the_measurement() {
        let bed = Path::Native4.bed(&Table::new()).unwrap();
        let packets = Packets::udp(&["203.0.113.1".parse().unwrap()]);
        let plan = Plan { runs: 1, time: Duration::from_millis(1) };
        assert!(matches!(measure(&bed, &packets, 4, plan, || 0), Err(Void::Lost { transmitted: 0, .. })));
    }
}
