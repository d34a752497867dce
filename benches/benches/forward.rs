//! Forwarding in memory: nanoseconds per packet from a received frame to a frame ready for its egress port, one core, and
//! the proof that the fast path does not allocate: the bench fails at the first allocation.
//!
//! `cargo bench --bench forward`; `-- --test` runs everything once, shortly. Other words select rows whose name contains
//! one of them.

use benches::bed::{Bed, Packets, Via, route};
use benches::forwarding::{self, Path};
use benches::measure::{Plan, Spread};
use benches::pattern::Pattern;
use benches::report::Report;
use benches::table::{self, Table};
use router_core::counters::WorkerCounters;
use router_core::observe::Silent;
use router_core::time::Instant;
use router_core::trace::{CaptureSink, Captured, Filter, Point, StepRecord, Tap, TraceSink, Wanted, Watch};
use router_core::worker::{MAX_BATCH, Worker};
use router_io::counting_alloc::CountingAlloc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

struct Bench {
    report: Report,
    plan: Plan,
    select: Vec<String>,
}

impl Bench {
    fn wanted(&self, what: &str) -> bool {
        self.select.is_empty() || self.select.iter().any(|s| what.contains(s.as_str()))
    }

    /// Measures one path and prints its row.
    fn row(&mut self, what: &str, bed: &Bed, packets: &Packets, batch: usize) {
        if !self.wanted(what) {
            return;
        }
        let done = forwarding::measure(bed, packets, batch, self.plan, || ALLOC.allocations() + ALLOC.frees());
        let done = done.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(done.allocations, 0, "{what}: the fast path allocated");
        let ns = done.packet;
        let clocks = ns.map(|ns| self.machine_clocks(ns));
        let more = serde_json::json!({
            "ns_per_packet": ns, "clocks_per_packet": clocks, "mpps": ns.rates(), "batch": batch,
        });
        let unit = format!("clocks per packet; {:.1} ns, {:.2} Mpps", ns.median, ns.rates().median);
        self.report.row(what, clocks, &unit, more);
    }

    fn say(&mut self, what: &str, ns: Spread) {
        let unit = format!("clocks per packet; {:.1} ns, {:.2} Mpps", ns.median, ns.rates().median);
        let clocks = ns.map(|ns| self.machine_clocks(ns));
        self.report.row(what, clocks, &unit, serde_json::json!({ "ns_per_packet": ns }));
    }

    fn machine_clocks(&self, ns: f64) -> f64 {
        self.report.machine.clocks(ns).unwrap_or_default()
    }
}

fn one_route(path: Path) -> (Bed, Packets) {
    let (net, dst) =
        if path.is_v6() { ("2001:db8:2::/48", "2001:db8:2::7") } else { ("203.0.113.0/24", "203.0.113.7") };
    let mut bed = Bed::new().expect("bed");
    bed.route(&route(net.parse().expect("prefix"), 1, path.via())).expect("route");
    bed.commit();
    (bed, path.packets(&[dst.parse().expect("address")]))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|a| a == "--test");
    let select: Vec<String> = words.into_iter().filter(|a| !a.starts_with("--")).collect();
    let plan = match quick {
        true => Plan { runs: 1, time: Duration::from_millis(5) },
        false => Plan { runs: 5, time: Duration::from_millis(300) },
    };
    let report = Report::new("forward", quick || !select.is_empty());
    let mut bench = Bench { report, plan, select };
    println!("{:<60} {:>11} {:>11} {:>11}  input copy not counted", "path", "min", "median", "max");
    for (what, path) in [
        ("IPv4, one route", Path::Native4),
        ("IPv4 via IPv6 next hop, one route", Path::ViaInet6),
        ("IPv6, one route", Path::Native6),
        ("6in4 encapsulate", Path::Encap),
        ("6in4 decapsulate", Path::Decap),
    ] {
        let (bed, packets) = one_route(path);
        bench.row(what, &bed, &packets, MAX_BATCH);
    }
    for case in benches::tunnels::cases() {
        let (bed, packets) = case.encapsulate().expect("bed");
        bench.row(&format!("{}, into the tunnel", case.name), &bed, &packets, MAX_BATCH);
        let (bed, packets) = case.decapsulate().expect("bed");
        bench.row(&format!("{}, out of the tunnel", case.name), &bed, &packets, MAX_BATCH);
    }
    for case in benches::translation::cases().expect("beds") {
        bench.row(case.name, &case.bed, &case.packets, MAX_BATCH);
    }
    for case in benches::guarded::cases().expect("beds") {
        bench.row(case.name, &case.bed, &case.packets, MAX_BATCH);
    }
    let (bed, packets) = one_route(Path::Native4);
    for batch in [1, 4, 8, 32] {
        bench.row(&format!("IPv4, one route, batches of {batch}"), &bed, &packets, batch);
    }
    watched(&mut bench, &bed, &packets);
    counted(&mut bench);
    full_tables(&mut bench, quick);
}

/// What the packets of a counted route cost; those of other routes cost what they always do.
fn counted(bench: &mut Bench) {
    let (mut bed, packets) = one_route(Path::Native4);
    let dst = "203.0.113.0/24".parse().expect("prefix");
    bed.router.routing_mut().count_prefix(router_core::port::TableId::MAIN, dst).expect("counts");
    bed.commit();
    bench.row("IPv4, one route, counted", &bed, &packets, MAX_BATCH);
    let packets: u64 = bed.router.routing().counted_prefixes().map(|(_, _, t)| t.get().0).sum();
    assert!(packets > 0 || !bench.wanted("IPv4, one route, counted"), "nothing was counted");
}

/// What it costs to be watched: by a capture and by a trace that want nothing of this traffic.
fn watched(bench: &mut Bench, bed: &Bed, packets: &Packets) {
    struct Nowhere;
    impl CaptureSink for Nowhere {
        fn push(&mut self, _packet: &Captured<'_>) {}
    }
    impl TraceSink for Nowhere {
        fn push(&mut self, _record: StepRecord) {}
    }
    // The same again by a worker that was watched until just now: with tracing and capturing off, nothing of them is left.
    let what = "IPv4, one route, nobody watches any more";
    if bench.wanted(what) {
        let plain = Worker::new(Arc::new(WorkerCounters::new(8)), 1);
        let (watched, _) = plain.watch(Tap::new(Box::new(|| Instant::ZERO)));
        let (plain, _) = watched.watch(Silent);
        let done = forwarding::measure_by(plain, &bed.router.tables(), bed.now, packets, MAX_BATCH, bench.plan, || 0);
        bench.say(what, done.unwrap_or_else(|e| panic!("{what}: {e}")).packet);
    }
    let filter = || Filter::parse("udp port 9 and host 192.0.2.77", &|_| None).expect("filter");
    let points = [Point::Rx].into_iter().collect();
    for (what, wanted) in [
        ("drops", Wanted::Capture { points: [Point::Drop].into_iter().collect(), snap: 96, sink: Box::new(Nowhere) }),
        ("other packets", Wanted::Capture { points, snap: 96, sink: Box::new(Nowhere) }),
        ("others by a trace", Wanted::Trace { left: Arc::new(AtomicI64::new(1)), sink: Box::new(Nowhere) }),
    ] {
        let what = format!("IPv4, one route, while somebody watches {what}");
        if !bench.wanted(&what) {
            continue;
        }
        let mut tap = Tap::new(Box::new(|| Instant::ZERO));
        tap.learn_ports(&bed.router.tables());
        tap.add(Watch { id: 1, filter: filter(), wanted });
        let worker = Worker::observed(Arc::new(WorkerCounters::new(8)), 1, tap);
        let done = forwarding::measure_by(worker, &bed.router.tables(), bed.now, packets, MAX_BATCH, bench.plan, || 0);
        bench.say(&what, done.unwrap_or_else(|e| panic!("{what}: {e}")).packet);
    }
}

/// The rows with both full tables loaded. They take a while to load: not for rows that nobody asked for.
fn full_tables(bench: &mut Bench, quick: bool) {
    let rows = [
        ("1,000 destinations", Pattern::Prefix, 1_000),
        ("1,048,576 destinations", Pattern::Prefix, if quick { 4096 } else { 1 << 20 }),
        ("Zipf(1.0)", Pattern::Zipf, if quick { 4096 } else { 1 << 20 }),
    ];
    let default_only = "only the default route matches";
    if !["IPv4", "IPv6"].iter().any(|f| rows.iter().any(|r| bench.wanted(&name(f, 0, r.0))))
        && !bench.wanted(&name("IPv6", 0, default_only))
    {
        return;
    }
    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!(
                "(the real full table is not beside this checkout, or --test: synthetic tables of 100,000 routes)"
            );
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    let mut bed = Bed::new().expect("bed");
    for table in [&v4, &v6] {
        load(&mut bed, table);
    }
    for (family, table) in [("IPv4", &v4), ("IPv6", &v6)] {
        for (how, pattern, n) in rows {
            let what = name(family, table.len(), how);
            if bench.wanted(&what) {
                let packets = Packets::udp(&pattern.destinations(table, n));
                bench.row(&what, &bed, &packets, MAX_BATCH);
            }
        }
    }
    // Packets that only the default route takes.
    let what = name("IPv6", v6.len(), default_only);
    if bench.wanted(&what) {
        let tables = bed.router.tables();
        let covered =
            |a| tables.lookup(router_core::port::TableId::MAIN, &a) != router_core::object::ObjectId::NO_ROUTE;
        let misses = benches::traffic::misses(if quick { 4096 } else { 1 << 20 }, 7, true, covered);
        drop(tables);
        bed.route(&route("::/0".parse().expect("prefix"), 9, Via::Own)).expect("route");
        bed.commit();
        bench.row(&what, &bed, &Packets::udp(&misses), MAX_BATCH);
    }
}

fn name(family: &str, routes: usize, how: &str) -> String {
    format!("{family}, {routes} routes, {how}")
}

fn load(bed: &mut Bed, table: &Table) {
    let (start, before) = (router_io::machine::thread_time(), ALLOC.bytes_in_use());
    bed.load(table, Via::Own).expect("load");
    let seconds = (router_io::machine::thread_time() - start).as_secs_f64();
    println!(
        "loaded {} routes in {seconds:.2} s of processor time ({:.0} per second), {} MiB more in use beside the FIBs, they together {} KiB",
        table.len(),
        table.len() as f64 / seconds,
        (ALLOC.bytes_in_use() - before) >> 20,
        bed.router.routing().stats().fib_bytes >> 10
    );
}
