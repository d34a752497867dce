//! What grows: 1,000 routing tables, millions of routes, 100,000 tunnels, two workers.
//!
//! `cargo bench --bench scale`; `-- --test` runs everything once, shortly. Other words select parts: `tables`, `routes`,
//! `tunnels`, `adding`, `workers`; a number beside `tunnels` says how many of them.

use arc_swap::ArcSwap;
use benches::bed::{Bed, Packets, Via, route};
use benches::forwarding::{self, Path};
use benches::lookups::{self, Compiled};
use benches::measure::{Plan, Spread};
use benches::pattern::Pattern;
use benches::report::Report;
use benches::table::{self, Random, Table};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_core::counters::WorkerCounters;
use router_core::fib::Lookup;
use router_core::object::ObjectId;
use router_core::port::TableId;
use router_core::worker::{MAX_BATCH, Worker};
use router_io::counting_alloc::CountingAlloc;
use router_io::machine::{pin, thread_time};
use router_io::worker::Published;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|a| a == "--test");
    let select: Vec<_> = words.into_iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |what: &str| select.is_empty() || select.iter().any(|s| what.contains(s.as_str()));
    let mut report = Report::new("scale", quick || !select.is_empty());
    let plan = match quick {
        true => Plan { runs: 1, time: Duration::from_millis(5) },
        false => Plan { runs: 5, time: Duration::from_millis(200) },
    };
    println!("{:<60} {:>11} {:>11} {:>11}", "", "min", "median", "max");
    if wanted("tables") {
        tables(&mut report, plan, if quick { 20 } else { 1_000 });
    }
    if wanted("routes") {
        let (n4, n6) = if quick { (20_000, 10_000) } else { (2_000_000, 1_000_000) };
        routes(&mut report, plan, "IPv4", &table::synthetic_v4(n4, 14));
        routes(&mut report, plan, "IPv6", &table::synthetic_v6(n6, 16));
    }
    if wanted("tunnels") {
        let numbers: Vec<u32> = select.iter().filter_map(|s| s.parse().ok()).collect();
        let usual = if quick { [1, 100, 1_000] } else { [1, 10_000, 100_000] };
        for n in if numbers.is_empty() { usual.to_vec() } else { numbers } {
            tunnels(&mut report, plan, n);
        }
    }
    if wanted("adding") {
        adding(&mut report, plan, if quick { 100 } else { 10_000 });
    }
    if wanted("workers") {
        workers(&mut report, plan, quick);
    }
}

fn rates(report: &mut Report, what: &str, ns: Spread, more: serde_json::Value) {
    report.row(what, ns.rates(), "million lookups per second", more);
}

/// Many routing tables (VRFs) with ten routes each: what they cost, and lookups that change the table every time.
fn tables(report: &mut Report, plan: Plan, n: u32) {
    let mut bed = Bed::new().expect("bed");
    let net = |i: u32| IpNet::V4(Ipv4Net::new_assert((0x1400_0000 + i * 0x0001_0100).into(), 24));
    let (before, fib_before) = (ALLOC.bytes_in_use(), bed.router.routing().stats().fib_bytes);
    let start = thread_time();
    for table in 1..=n {
        for i in 0..10 {
            let mut spec = route(net(i), 1 + (i as u8), Via::Own);
            spec.table = Some(TableId(1000 + table));
            spec.hops[0].dev = Some("out".into());
            bed.route(&spec).expect("route");
        }
    }
    bed.commit();
    let seconds = (thread_time() - start).as_secs_f64();
    let fib = (bed.router.routing().stats().fib_bytes - fib_before) / n as usize;
    // The FIB's nodes lie in address space that was there before.
    let each = (ALLOC.bytes_in_use() - before) / u64::from(n) + fib as u64;
    println!(
        "{n} tables with ten routes: {each} bytes each, {fib} of them FIB; made in {seconds:.3} s of processor time"
    );
    let snapshot = bed.router.tables();
    let mut r = Random(21);
    let asked: Vec<_> = (0..1 << 16)
        .map(|_| {
            let dst = benches::traffic::host_in(&net(r.below(10) as u32), &mut r);
            (TableId(1001 + r.below(n as usize) as u32), dst)
        })
        .collect();
    assert!(asked.iter().all(|(t, d)| snapshot.lookup(*t, d) != ObjectId::NO_ROUTE));
    let mut at = 0;
    let ns = benches::measure::per_item(plan.runs, plan.time, || {
        for (table, dst) in &asked[at..at + 256] {
            std::hint::black_box(snapshot.lookup(*table, dst));
        }
        at = (at + 256) % asked.len();
        256
    });
    let more = json!({ "tables": n, "bytes_per_table": each, "fib_bytes_per_table": fib });
    rates(report, &format!("{n} tables with ten routes, one lookup in a random one"), ns, more);
}

/// Many 6in4 tunnels, each with a /48 behind it: what they cost to add and to have, while a route changes and per packet.
fn tunnels(report: &mut Report, plan: Plan, n: u32) {
    let peer = |i: u32| Ipv4Addr::from_bits(0x1400_0000 + i);
    let behind = |i: u32| Ipv6Addr::from_bits((0x2400_0000_0000 + u128::from(i)) << 80);
    let mut bed = Bed::new().expect("bed");
    bed.route(&route("20.0.0.0/8".parse().expect("prefix"), 1, Via::Own)).expect("route");
    bed.commit();
    // Each one is in force before the next is made, as a server adds them.
    let (start, before) = (thread_time(), ALLOC.bytes_in_use());
    for i in 0..n {
        bed.add_tunnel(format!("t{}", i + 1), peer(i)).expect("tunnel");
        let mut to = route(IpNet::V6(Ipv6Net::new_assert(behind(i), 48)), 1, Via::Tunnel);
        to.hops[0].dev = Some(format!("t{}", i + 1));
        bed.route(&to).expect("route");
        bed.commit();
    }
    let seconds = (thread_time() - start).as_secs_f64();
    let each = (ALLOC.bytes_in_use() - before) / u64::from(n);
    let adds = f64::from(n) / seconds;
    println!("{n} tunnels with a route each: {adds:.0} added per second of processor time, {each} bytes each");
    let more = json!({ "tunnels": n, "adds_per_second": adds, "bytes_per_tunnel": each });

    // A route that no tunnel depends on changes.
    let mut hop = 0;
    let commit = benches::measure::per_item(plan.runs, plan.time, || {
        hop = hop % 200 + 1;
        bed.route(&route("198.18.0.0/24".parse().expect("prefix"), hop, Via::Own)).expect("route");
        bed.commit();
        1
    });
    let what = |what: &str| format!("{n} tunnels, {what}");
    report.row(&what("one other route changed and committed"), commit, "nanoseconds", more.clone());

    // As many packets as fit into the second-level cache would hide the tunnels.
    let mut r = Random(33);
    let asked: Vec<u32> = (0..(1 << 18).min(n as usize * 64)).map(|_| r.below(n as usize) as u32).collect();
    let into: Vec<_> = asked.iter().map(|i| IpAddr::V6((behind(*i).to_bits() | 7).into())).collect();
    let out_of = vec![IpAddr::V6("2001:db8:2::7".parse().expect("address")); asked.len()];
    bed.route(&route("2001:db8:2::/48".parse().expect("prefix"), 1, Via::Own)).expect("route");
    bed.commit();
    for (way, packets) in
        [("encapsulate", Packets::udp(&into)), ("decapsulate", Packets::from_peers(&out_of, |i| peer(asked[i])))]
    {
        let packets = packets.compact();
        let done = forwarding::measure(&bed, &packets, MAX_BATCH, plan, || ALLOC.allocations() + ALLOC.frees());
        let done = done.unwrap_or_else(|e| panic!("{way}: {e}"));
        assert_eq!(done.allocations, 0, "{way}: the fast path allocated");
        let clocks = done.packet.map(|ns| report.machine.clocks(ns).unwrap_or_default());
        let mut more = more.clone();
        more["ns_per_packet"] = json!(done.packet);
        report.row(&what(way), clocks, "clocks per packet", more);
    }
}

/// What the control thread does while a worker forwards.
#[derive(Clone, Copy)]
enum Meanwhile {
    /// Nothing: the other processor is idle.
    Nothing,
    /// Arithmetic, on the other processor: what two busy processors cost each other here.
    Arithmetic,
    /// Adds so many tunnels per second, each with a route, in force before the next is made; None: as many as it can.
    Adds(Option<u32>),
}

/// Tunnels that are added while packets go into others: what both come to, one worker and one control thread with a processor
/// each. There are `n` tunnels before.
fn adding(report: &mut Report, plan: Plan, n: u32) {
    let peer = |i: u32| Ipv4Addr::from_bits(0x1400_0000 + i);
    let behind = |i: u32| Ipv6Addr::from_bits((0x2400_0000_0000 + u128::from(i)) << 80);
    let mut bed = Bed::new().expect("bed");
    bed.route(&route("20.0.0.0/8".parse().expect("prefix"), 1, Via::Own)).expect("route");
    let mut made = 0;
    let mut add = |bed: &mut Bed| {
        bed.add_tunnel(format!("t{}", made + 1), peer(made)).expect("tunnel");
        let mut to = route(IpNet::V6(Ipv6Net::new_assert(behind(made), 48)), 1, Via::Tunnel);
        to.hops[0].dev = Some(format!("t{}", made + 1));
        bed.route(&to).expect("route");
        bed.commit();
        made += 1;
    };
    (0..n).for_each(|_| add(&mut bed));
    let mut r = Random(35);
    let into: Vec<_> =
        (0..1 << 16).map(|_| IpAddr::V6((behind(r.below(n as usize) as u32).to_bits() | 7).into())).collect();
    let packets = Packets::udp(&into);
    let now = bed.now;
    let published = Arc::new(ArcSwap::new(bed.router.tables()));
    for (what, meanwhile) in [
        ("the other processor idle", Meanwhile::Nothing),
        ("the other processor busy with arithmetic", Meanwhile::Arithmetic),
        ("1,000 tunnels added per second", Meanwhile::Adds(Some(1_000))),
        ("as many tunnels added as can be", Meanwhile::Adds(None)),
    ] {
        let (done, together) = (AtomicBool::new(false), Barrier::new(2));
        let (forwarded, rate) = std::thread::scope(|s| {
            let worker = s.spawn(|| {
                pin(0);
                // Room for all that may be added meanwhile, as the control side makes it.
                let worker = Worker::new(Arc::new(WorkerCounters::new(1 << 19)), 1);
                let mut source = Published::new(Arc::clone(&published));
                together.wait();
                let forwarded = forwarding::measure_from(
                    worker,
                    &mut source,
                    Published::refresh,
                    now,
                    &packets,
                    MAX_BATCH,
                    plan,
                    || 0,
                );
                done.store(true, Ordering::Relaxed);
                forwarded.expect("forwarded").packet
            });
            pin(1);
            together.wait();
            let start = Instant::now();
            let (mut added, mut sum) = (0u32, 1u64);
            while !done.load(Ordering::Relaxed) {
                match meanwhile {
                    Meanwhile::Nothing => std::thread::sleep(Duration::from_millis(1)),
                    Meanwhile::Arithmetic => {
                        sum = (0..10_000u64).fold(sum, |s, i| std::hint::black_box(s.wrapping_mul(i | 1) ^ i))
                    }
                    Meanwhile::Adds(Some(rate))
                        if start.elapsed().as_secs_f64() * f64::from(rate) < f64::from(added) =>
                    {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    Meanwhile::Adds(_) => {
                        add(&mut bed);
                        published.store(bed.router.tables());
                        added += 1;
                    }
                }
            }
            let rate = f64::from(added) / start.elapsed().as_secs_f64();
            (worker.join().expect("worker"), rate)
        });
        let clocks = forwarded.map(|ns| report.machine.clocks(ns).unwrap_or_default());
        let unit = format!(
            "clocks per packet; {:.1} million per second, {rate:.0} tunnels added per second",
            1e3 / forwarded.median
        );
        let more = json!({ "tunnels_before": n, "added_per_second": rate, "ns_per_packet": forwarded });
        report.row(&format!("{n} tunnels, encapsulate, {what}"), clocks, &unit, more);
    }
    pin(0);
}

/// As many routes as the Internet may have some day.
fn routes(report: &mut Report, plan: Plan, family: &str, table: &Table) {
    let n = table.len();
    let start = thread_time();
    let compiled = Compiled::new(table).expect("room");
    let fib_seconds = (thread_time() - start).as_secs_f64();
    let bytes = compiled.memory.bytes();
    println!(
        "{family}, {n} synthetic routes: FIB alone {} KiB, compiled at {:.2} million per second",
        bytes >> 10,
        n as f64 / fib_seconds / 1e6
    );
    for pattern in Pattern::ALL {
        let destinations = pattern.destinations(table, 1 << 20);
        assert!(destinations.iter().step_by(97).all(|d| compiled.fib.lookup(d) != ObjectId::NO_ROUTE));
        let ns = lookups::measure(&compiled.fib, &destinations, plan);
        rates(report, &format!("{family}, {n} routes, {}", pattern.name()), ns, json!({ "routes": n, "bytes": bytes }));
    }
    drop(compiled);
    let (mut load, mut used) = (Vec::new(), 0);
    for _ in 0..plan.runs.min(3) {
        let start = thread_time();
        let mut bed = Bed::new().expect("bed");
        let before = ALLOC.bytes_in_use();
        bed.load(table, Via::Own).expect("load");
        load.push(n as f64 / (thread_time() - start).as_secs_f64() / 1e6);
        used = ALLOC.bytes_in_use() - before + bed.router.routing().stats().fib_bytes as u64;
    }
    let more = json!({ "routes": n, "bytes": used });
    let unit = format!("million routes per second of processor time; {} MiB in all", used >> 20);
    report.row(&format!("{family}, {n} routes, loaded into the router"), Spread::of(load), &unit, more);
}

/// The same forwarding by one worker, and by two on two processors with one router's tables.
fn workers(report: &mut Report, plan: Plan, quick: bool) {
    let table = match table::full() {
        Some((v4, _)) if !quick => v4,
        _ => table::synthetic_v4(100_000, 4),
    };
    let path = Path::Native4;
    let bed = path.bed(&table).expect("bed");
    for n in [1_000, if quick { 4096 } else { 1 << 20 }] {
        let packets = path.packets(&Pattern::Prefix.destinations(&table, n));
        let (tables, now) = (bed.router.tables(), bed.now);
        let mut one = 0.0;
        for count in [1, 2] {
            let together = Barrier::new(count);
            let each: Vec<Spread> = std::thread::scope(|s| {
                let threads: Vec<_> = (0..count)
                    .map(|cpu| {
                        let (tables, packets, together) = (&tables, &packets, &together);
                        s.spawn(move || {
                            // Where there is only one processor they share it, and the figure shows it.
                            pin(cpu);
                            together.wait();
                            forwarding::measure_on(tables, now, packets, MAX_BATCH, plan, || 0)
                                .expect("forwarded")
                                .packet
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().expect("worker")).collect()
            });
            let sum = |f: fn(&Spread) -> f64| each.iter().map(f).sum::<f64>();
            let rates: Vec<_> = each.iter().map(|s| s.rates()).collect();
            let total = Spread {
                min: rates.iter().map(|r| r.min).sum(),
                median: rates.iter().map(|r| r.median).sum(),
                max: rates.iter().map(|r| r.max).sum(),
            };
            if count == 1 {
                one = total.median;
            }
            let factor = total.median / one.max(f64::MIN_POSITIVE);
            let more = json!({ "workers": count, "factor": factor, "ns_per_packet": sum(|s| s.median) / count as f64 });
            let unit = format!("million packets per second; {factor:.2} times one");
            report.row(&format!("{count} workers, IPv4, {} routes, {n} destinations", table.len()), total, &unit, more);
        }
    }
}
