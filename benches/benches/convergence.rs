//! Changes: how soon the data plane uses another next hop, how many single updates per second pass through RIB,
//! resolution and FIB, what a reload costs, and how fast a full table loads.
//!
//! `cargo bench --bench convergence`; `-- --test` runs everything once, shortly. Other words select parts: `failover`,
//! `updates`, `reload`, `load`.

use benches::bed::{Bed, Via, gateway, route};
use benches::measure::Spread;
use benches::pattern::Pattern;
use benches::report::Report;
use benches::table::{self, Random, Table};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_core::addr::MacAddr;
use router_core::fib::Lookup;
use router_core::frame::FramePool;
use router_core::object::{Object, ObjectId};
use router_core::port::{PortId, TableId};
use router_core::spec::{HopSpec, NextHopKind, NextHopSpec, ResilientSpec, RouteOp, RouteSpec};
use router_core::tables::Tables;
use router_core::worker::Outbox;
use router_io::counting_alloc::CountingAlloc;
use router_io::machine::thread_time;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|a| a == "--test");
    let select: Vec<_> = words.into_iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |what: &str| select.is_empty() || select.iter().any(|s| what.contains(s.as_str()));
    let mut report = Report::new("convergence", quick || !select.is_empty());
    let runs = if quick { 1 } else { 5 };
    println!("{:<60} {:>11} {:>11} {:>11}", "", "min", "median", "max");
    if wanted("failover") {
        for n in if quick { [10, 100, 1000] } else { [10, 10_000, 900_000] } {
            for how in [How::Multipath, How::Group, How::Resilient] {
                links(&mut report, n, runs, how);
            }
            tunnels(&mut report, n, runs);
        }
    }
    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!("(no real full table beside this checkout, or --test: synthetic tables of 100,000 routes)");
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    if wanted("updates") {
        updates(&mut report, &v4, &v6, runs, if quick { Duration::from_millis(5) } else { Duration::from_millis(400) });
    }
    if wanted("reload") {
        reload(&mut report, &v4, runs);
    }
    if wanted("load") {
        load(&mut report, "IPv4", &v4, runs);
        load(&mut report, "IPv6", &v6, runs);
    }
}

fn outbox() -> Outbox {
    Outbox::new(8, FramePool::new(16, 2048))
}

/// How routes name their two next hops.
#[derive(Clone, Copy)]
enum How {
    /// Each route has them.
    Multipath,
    /// They are a group of next-hop objects.
    Group,
    /// The same, resilient, with 256 buckets.
    Resilient,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Multipath => "",
            How::Group => ", group",
            How::Resilient => ", resilient group",
        }
    }

    /// Makes the objects, if there are to be any, and says what routes say.
    fn objects(self, bed: &mut Bed, hops: &[HopSpec]) -> Option<u32> {
        let buckets = ResilientSpec { buckets: Some(256), ..ResilientSpec::default() };
        let resilient = match self {
            How::Multipath => return None,
            How::Group => None,
            How::Resilient => Some(buckets),
        };
        let members = (1..=hops.len() as u32).map(|id| (id, 1)).collect();
        let single = hops.iter().zip(1..).map(|(h, id)| NextHopSpec::new(id, NextHopKind::Hop(h.clone())));
        let group = NextHopSpec { resilient, ..NextHopSpec::new(10, NextHopKind::Group(members)) };
        for spec in single.chain([group]) {
            bed.router.routing_mut().next_hop(RouteOp::Add, &spec).expect("a next-hop object");
        }
        Some(10)
    }
}

/// `n` prefixes, each with the same two next hops.
fn group(bed: &mut Bed, v6: bool, n: usize, hops: &[HopSpec], how: How) -> IpAddr {
    let nhid = how.objects(bed, hops);
    let net = |i: usize| -> IpNet {
        match v6 {
            true => IpNet::V6(Ipv6Net::new_assert(((0x2600 << 112) | (i as u128) << 80).into(), 48)),
            false => IpNet::V4(Ipv4Net::new_assert((0x1000_0000 + ((i as u32) << 8)).into(), 24)),
        }
    };
    for i in 0..n {
        let mut spec = RouteSpec::new(net(i));
        match nhid {
            Some(_) => spec.nhid = nhid,
            None => spec.hops = hops.to_vec(),
        }
        bed.route(&spec).expect("route");
    }
    bed.commit();
    net(n / 2).addr()
}

fn hop(via: Option<IpAddr>, dev: &str) -> HopSpec {
    HopSpec { via, dev: Some(dev.to_owned()), weight: 1, onlink: false }
}

/// The ports and tunnels that a destination may leave by.
fn egress(tables: &Tables, dst: IpAddr) -> Vec<PortId> {
    let objects = &tables.routing.objects;
    let of = |id: ObjectId| match objects.get(id) {
        Some(Object::Forward(f)) => Some(f.port),
        Some(Object::Encap(e)) => Some(e.tunnel),
        _ => None,
    };
    let id = tables.lookup(TableId::MAIN, &dst);
    let mut all: Vec<_> = match objects.get(id) {
        Some(Object::Group(g)) => g.buckets.iter().filter_map(|b| of(*b)).collect(),
        _ => of(id).into_iter().collect(),
    };
    all.sort_unstable();
    all.dedup();
    all
}

/// Makes something fail, and says how long it took until a snapshot was out in which `dst` leaves by `left` only, and
/// until everything was written.
fn fail(bed: &mut Bed, dst: IpAddr, left: PortId, event: impl FnOnce(&mut Bed)) -> (f64, f64) {
    let start = Instant::now();
    event(bed);
    let mut seen = Vec::with_capacity(4);
    while bed.router.commit(bed.now, &mut |t| seen.push((start.elapsed(), Arc::clone(t)))) {}
    let all = start.elapsed();
    let first = seen.iter().find(|(_, t)| egress(t, dst) == [left]).expect("a snapshot with the other member");
    (first.0.as_nanos() as f64 / 1e3, all.as_nanos() as f64 / 1e3)
}

/// Prints both times of [`fail`].
fn show(report: &mut Report, what: &str, n: usize, times: Vec<(f64, f64)>) {
    let all = Spread::of(times.iter().map(|t| t.1).collect());
    let used = Spread::of(times.into_iter().map(|t| t.0).collect());
    report.row(&format!("failover, {what}, {n} routes"), used, "us", json!({ "routes": n, "all_written_us": all }));
}

fn links(report: &mut Report, n: usize, runs: usize, how: How) {
    let mut bed = Bed::new().expect("bed");
    let two = bed.port("two", MacAddr([2, 0, 0, 0, 3, 1]), &["100.65.0.1/16"]).expect("port");
    let second: IpAddr = [100, 65, 2, 1].into();
    bed.neighbor(two, "two", second, 1).expect("neighbour");
    let one = bed.router.ports().by_name("out").expect("port").id;
    let first = gateway(false, 1);
    let dst = group(&mut bed, false, n, &[hop(Some(first), "out"), hop(Some(second), "two")], how);
    assert_eq!(egress(&bed.router.tables(), dst), [one, two]);
    let mut times = Vec::new();
    for _ in 0..runs.max(2) {
        times.push(fail(&mut bed, dst, two, |bed| {
            bed.router.set_link(bed.now, one, None, Some(false), &mut outbox()).expect("link");
        }));
        bed.router.set_link(bed.now, one, None, Some(true), &mut outbox()).expect("link");
        bed.neighbor(one, "out", first, 1).expect("neighbour");
        // No packets here: every bucket is idle.
        bed.router.routing_mut().poll_buckets(bed.now);
        bed.commit();
        assert_eq!(egress(&bed.router.tables(), dst), [one, two]);
    }
    show(report, &format!("link down{}", how.name()), n, times);
    let mut times = Vec::new();
    for _ in 0..runs.max(2) {
        times.push(fail(&mut bed, dst, two, |bed| bed.router.routing_mut().neighbor_failed(one, first, true)));
        bed.router.routing_mut().neighbor_failed(one, first, false);
        bed.router.routing_mut().poll_buckets(bed.now);
        bed.commit();
    }
    show(report, &format!("neighbour failed{}", how.name()), n, times);
}

fn tunnels(report: &mut Report, n: usize, runs: usize) {
    let mut bed = Bed::new().expect("bed");
    let remote = Ipv4Addr::new(198, 51, 100, 10);
    bed.route(&route(IpNet::from(IpAddr::from(remote)), 2, Via::Own)).expect("route");
    let two = bed.add_tunnel("t1".to_owned(), remote).expect("tunnel");
    let one = bed.router.ports().by_name("t0").expect("tunnel").id;
    let dst = group(&mut bed, true, n, &[hop(None, "t0"), hop(None, "t1")], How::Multipath);
    assert_eq!(egress(&bed.router.tables(), dst), [one, two]);
    let carrier = route("198.51.100.9/32".parse().expect("prefix"), 1, Via::Own);
    let mut times = Vec::new();
    for _ in 0..runs.max(2) {
        times.push(fail(&mut bed, dst, two, |bed| {
            bed.router.routing_mut().route(RouteOp::Delete, &carrier).expect("delete");
        }));
        bed.route(&carrier).expect("route");
        bed.commit();
        assert_eq!(egress(&bed.router.tables(), dst), [one, two]);
    }
    show(report, "tunnel's carrier withdrawn", n, times);
}

/// Where a lookup thread gets its snapshot.
type Published = Mutex<Arc<Tables>>;

/// Looks up all the time, as a worker does: a batch, then a look whether there is a newer snapshot.
fn lookups(published: &Published, destinations: &[IpAddr], stop: &AtomicBool, count: &AtomicU64) {
    let mut out = [ObjectId::NO_ROUTE; 64];
    for batch in destinations.chunks(64).cycle() {
        if stop.load(Relaxed) {
            return;
        }
        let tables = published.lock().map(|t| Arc::clone(&t)).expect("lock");
        if let Some(fib) = tables.routing.fibs.get(TableId::MAIN) {
            fib.lookup_batch(batch, &mut out);
            std::hint::black_box(&out);
            count.fetch_add(batch.len() as u64, Relaxed);
        }
    }
}

fn updates(report: &mut Report, v4: &Table, v6: &Table, runs: usize, time: Duration) {
    let mut bed = Bed::new().expect("bed");
    bed.load(v4, Via::Own).expect("load");
    bed.load(v6, Via::Own).expect("load");
    let published: Published = Mutex::new(bed.router.tables());
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    for (family, table) in [("IPv4", v4), ("IPv6", v6)] {
        // Present routes for replacing; one more bit of each makes those to add and delete.
        let mut r = Random(9);
        let longest = if family == "IPv4" { 24 } else { 48 };
        let there: Vec<(IpNet, u8)> = std::iter::repeat_with(|| table[r.below(table.len())])
            .filter(|(net, _)| net.prefix_len() <= longest)
            .take(1 << 15)
            .collect();
        let mut fresh: Vec<IpNet> =
            there.iter().filter_map(|(net, _)| IpNet::new(net.addr(), longest + 1).ok().map(|n| n.trunc())).collect();
        fresh.sort_unstable();
        fresh.dedup();
        let next = |h: u8| h % 255 + 1;
        let other: Vec<_> = there.iter().map(|(net, h)| route(*net, next(*h), Via::Own)).collect();
        let back: Vec<_> = there.iter().map(|(net, h)| route(*net, *h, Via::Own)).collect();
        // In random order, but each command beside the next, as they come out of a socket.
        for i in (1..fresh.len()).rev() {
            fresh.swap(i, r.below(i + 1));
        }
        let fresh: Vec<_> = fresh.iter().map(|net| route(*net, 1 + (r.below(255) as u8), Via::Own)).collect();
        let destinations = Pattern::Prefix.destinations(table, 1 << 16);
        for together in [1, 64] {
            stop.store(false, Relaxed);
            count.store(0, Relaxed);
            let started = Instant::now();
            // Add, replace by another, replace back, delete: the table is then as before.
            let mut spent: [Vec<f64>; 4] = Default::default();
            std::thread::scope(|s| {
                s.spawn(|| lookups(&published, &destinations, &stop, &count));
                for _ in 0..runs {
                    let mut sum = [(Duration::ZERO, 0usize); 4];
                    let until = Instant::now() + time;
                    while Instant::now() < until {
                        for (i, (op, specs)) in [
                            (RouteOp::Add, &fresh),
                            (RouteOp::Replace, &other),
                            (RouteOp::Replace, &back),
                            (RouteOp::Delete, &fresh),
                        ]
                        .into_iter()
                        .enumerate()
                        {
                            let start = thread_time();
                            for chunk in specs.chunks(together) {
                                for spec in chunk {
                                    bed.router.routing_mut().route(op, spec).expect("update");
                                }
                                let mut publish = |t: &Arc<Tables>| {
                                    if let Ok(mut p) = published.lock() {
                                        p.clone_from(t);
                                    }
                                };
                                while bed.router.commit(bed.now, &mut publish) {}
                            }
                            sum[i].0 += thread_time() - start;
                            sum[i].1 += specs.len();
                        }
                    }
                    for (all, (time, n)) in spent.iter_mut().zip(sum) {
                        all.push(time.as_nanos() as f64 / n.max(1) as f64);
                    }
                }
                stop.store(true, Relaxed);
            });
            let lookups = count.load(Relaxed) as f64 / started.elapsed().as_secs_f64() / 1e6;
            let rates = |ns: &[f64]| Spread::of(ns.to_vec()).rates();
            let mean = |i: usize| spent.iter().filter_map(|v| v.get(i)).sum::<f64>() / 4.0;
            let mix: Vec<f64> = (0..runs).map(mean).collect();
            let mut row = |what: &str, s: Spread| {
                let name = format!("updates, {family} {what}, commit after {together}");
                report.row(&name, s, "million per second of processor time", json!({ "lookups_beside_mlps": lookups }));
            };
            row("add", rates(&spent[0]));
            row("replace", Spread::of([&spent[1][..], &spent[2]].concat()).rates());
            row("delete", rates(&spent[3]));
            row("mixed", rates(&mix));
            println!("   beside {lookups:.1} million lookups per second in another thread");
        }
    }
}

/// Replaces every route of a table by those of one in which every hundredth has another next hop.
fn reload(report: &mut Report, table: &Table, runs: usize) {
    let mut bed = Bed::new().expect("bed");
    bed.load(table, Via::Own).expect("load");
    let (mut wall, mut cpu, mut writes) = (Vec::new(), Vec::new(), 0);
    for round in 0..runs.max(2) {
        let specs: Vec<_> = table
            .iter()
            .enumerate()
            .map(|(i, (net, h))| if i % 100 == 0 && round % 2 == 0 { (net, h % 255 + 1) } else { (net, *h) })
            .map(|(net, h)| route(*net, h, Via::Own))
            .collect();
        let before = bed.router.routing().stats().fib_writes;
        let (start, used) = (Instant::now(), thread_time());
        for spec in &specs {
            bed.router.routing_mut().route(RouteOp::Replace, spec).expect("replace");
        }
        bed.commit();
        wall.push(start.elapsed().as_secs_f64() * 1e3);
        cpu.push((thread_time() - used).as_secs_f64() * 1e3);
        writes = bed.router.routing().stats().fib_writes - before;
        assert_eq!(writes as usize, table.len().div_ceil(100), "a reload writes the differences only");
    }
    let cpu = Spread::of(cpu);
    let more = json!({ "routes": table.len(), "fib_writes": writes, "processor_ms": cpu });
    report.row(&format!("reload, {} routes, {writes} differ", table.len()), Spread::of(wall), "ms", more);
    println!("   {writes} FIB entries written; {:.0} ms of processor time", cpu.median);
}

fn load(report: &mut Report, family: &str, table: &Table, runs: usize) {
    let specs: Vec<_> = table.iter().map(|(net, h)| route(*net, *h, Via::Own)).collect();
    let (mut rates, mut more) = (Vec::new(), json!({}));
    for _ in 0..runs {
        let mut bed = Bed::new().expect("bed");
        let (start, before) = (thread_time(), ALLOC.bytes_in_use());
        for spec in &specs {
            bed.router.routing_mut().route(RouteOp::Add, spec).expect("add");
        }
        bed.commit();
        rates.push(specs.len() as f64 / (thread_time() - start).as_secs_f64() / 1e6);
        let fib = bed.router.routing().stats().fib_bytes;
        // The FIB's nodes lie in address space that was there before.
        let all = ALLOC.bytes_in_use() - before + fib as u64;
        more = json!({ "routes": specs.len(), "bytes": all, "fib_bytes": fib });
    }
    report.row(
        &format!("load, {family}, {} routes", specs.len()),
        Spread::of(rates),
        "million per second of processor time",
        more.clone(),
    );
    println!("   memory: {more}");
}
