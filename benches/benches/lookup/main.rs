//! Lookups alone: million per second on one core, for several destination patterns, beside other structures; and changes
//! of the table.
//!
//! `cargo bench -p benches --bench lookup`; `-- --test` runs everything once, shortly. Other words select rows whose
//! name (as `IPv4 Zipf, batch of 64`) contains one of them; the word `ours` leaves the other structures out.

mod yardstick;

use benches::dir24::Dir24;
use benches::measure::{Spread, per_item};
use benches::report::Report;
use benches::table::{self, Table};
use benches::traffic;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use router_core::fib::{Fib, FibMemory, Lookup};
use router_core::object::ObjectId;
use router_io::counting_alloc::CountingAlloc;
use serde_json::json;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use yardstick::{Address, Yardstick};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

const BATCH: usize = 64;

/// Counts up through a list in steps.
struct Rotation(usize);

impl Rotation {
    fn next(&mut self, n: usize, step: usize) -> std::ops::Range<usize> {
        let start = if self.0 + step > n { 0 } else { self.0 };
        self.0 = start + step;
        start..start + step
    }
}

struct Bench {
    report: Report,
    runs: usize,
    time: Duration,
    destinations: usize,
    select: Vec<String>,
    /// Leave the other structures out.
    only_ours: bool,
}

/// What a row is about besides its name.
#[derive(Clone, Copy)]
struct About {
    routes: usize,
    bytes: usize,
}

impl Bench {
    fn selected(&self, name: &str) -> bool {
        self.select.is_empty() || self.select.iter().any(|s| name.contains(s.as_str()))
    }

    /// Whether rows of a family may be selected.
    fn wants(&self, family: &str) -> bool {
        self.select.is_empty() || self.select.iter().any(|s| s.starts_with(family) || !s.starts_with("IPv"))
    }

    fn row(&mut self, name: &str, about: About, unit: &str, run: impl FnMut() -> usize) {
        if !self.selected(name) {
            return;
        }
        let ns: Spread = per_item(self.runs, self.time, run);
        let more = json!({ "mlps": ns.rates(), "ns": ns, "routes": about.routes, "bytes": about.bytes });
        self.report.row(name, ns.rates(), unit, more);
    }

    fn lookups(&mut self, name: &str, about: About, run: impl FnMut() -> usize) {
        self.row(name, about, "million lookups per second", run);
    }

    /// One by one, and each waiting for the one before.
    fn singly<A: Address>(&mut self, name: &str, about: About, dst: &[A], get: impl Fn(A) -> u32) {
        let mut at = Rotation(0);
        self.lookups(&format!("{name}, one by one"), about, || {
            let range = at.next(dst.len(), 1024);
            for d in &dst[range] {
                black_box(get(*d));
            }
            1024
        });
        let (mut last, mask) = (0, black_box(yardstick::NO_BITS));
        self.lookups(&format!("{name}, dependent"), about, || {
            let range = at.next(dst.len(), 1024);
            for d in &dst[range] {
                last = get(d.xor(last)) & mask;
            }
            black_box(last);
            1024
        });
    }

    /// Ours: in batches, as the data plane asks, by family and of either family; one by one; each waiting for the last.
    fn ours<A: Address>(
        &mut self,
        name: &str,
        (fib, about): (&Fib, About),
        (dst, either): (&[A], &[IpAddr]),
        batch: impl Fn(&Fib, &[A], &mut [ObjectId]),
        single: impl Fn(&Fib, A) -> ObjectId,
    ) {
        let mut out = [ObjectId::NO_ROUTE; BATCH];
        let mut at = Rotation(0);
        self.lookups(&format!("{name}, batch of 64"), about, || {
            for _ in 0..16 {
                batch(fib, &dst[at.next(dst.len(), BATCH)], &mut out);
                black_box(&out);
            }
            16 * BATCH
        });
        self.singly(name, about, dst, |d| single(fib, d).0);
        self.lookups(&format!("{name}, batch of 64, of either family"), about, || {
            for _ in 0..16 {
                fib.lookup_batch(&either[at.next(either.len(), BATCH)], &mut out);
                black_box(&out);
            }
            16 * BATCH
        });
    }

    fn yardsticks<A: Address>(&mut self, name: &str, routes: usize, all: &[Box<dyn Yardstick<A>>], dst: &[A]) {
        for y in all {
            let about = About { routes, bytes: y.bytes() };
            let mut at = Rotation(0);
            // The loop is the structure's own: a call through the trait for each lookup would be measured with it.
            self.lookups(&format!("{name}, {}, one by one", y.name()), about, || {
                black_box(y.independent(&dst[at.next(dst.len(), 1024)]));
                1024
            });
            let mut last = 0;
            self.lookups(&format!("{name}, {}, dependent", y.name()), about, || {
                last = y.dependent(&dst[at.next(dst.len(), 1024)], last);
                1024
            });
        }
    }

    fn patterns(&self, table: &Table, v6: bool, fib: &Fib) -> [(&'static str, Vec<IpAddr>); 5] {
        let n = self.destinations;
        let mut sequential = traffic::per_route(table, n, 3);
        sequential.sort_unstable();
        [
            ("uniform", traffic::uniform(table, n, 5)),
            ("per route", traffic::per_route(table, n, 3)),
            ("Zipf", traffic::zipf(table, n, 3)),
            ("sequential", sequential),
            ("misses", traffic::misses(n, 7, v6, |a| fib.lookup(&a) != ObjectId::NO_ROUTE)),
        ]
    }

    fn v4(&mut self, table: &Table) {
        let (memory, fib) = self.load("IPv4", table);
        let routes = table.len();
        let about = About { routes, bytes: memory.bytes() };
        let before = ALLOC.bytes_in_use();
        let flat = (!self.only_ours).then(|| Dir24::new(table));
        let flat_about = About { routes, bytes: (ALLOC.bytes_in_use() - before) as usize };
        let own: Vec<(Ipv4Addr, u8, u8)> = table
            .iter()
            .filter_map(|(net, hop)| match net {
                IpNet::V4(n) => Some((n.network(), n.prefix_len(), *hop)),
                IpNet::V6(_) => None,
            })
            .collect();
        let others = if self.only_ours { Vec::new() } else { yardstick::v4(&own, || ALLOC.bytes_in_use()) };
        for (pattern, either) in &self.patterns(table, false, &fib) {
            let dst: Vec<Ipv4Addr> =
                either.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }).collect();
            let name = format!("IPv4 {pattern}");
            agree(&others, &dst, |a| fib.lookup4(a).0);
            self.ours(&name, (&fib, about), (&dst, either), |f, d, o| f.lookup4_batch(d, o), |f, d| f.lookup4(d));
            if let Some(flat) = &flat {
                self.flat(&name, flat, flat_about, &dst, &fib);
            }
            self.yardsticks(&name, routes, &others, &dst);
        }
        drop(others);
        self.changes("IPv4", table, memory, fib);
    }

    /// The flat DIR-24-8, which must answer as ours does.
    fn flat(&mut self, name: &str, flat: &Dir24, about: About, dst: &[Ipv4Addr], fib: &Fib) {
        let bits: Vec<u32> = dst.iter().map(|a| a.to_bits()).collect();
        for (a, d) in dst.iter().zip(&bits) {
            assert_eq!(fib.lookup4(*a).0, u32::from(flat.lookup(*d)), "{a}");
        }
        let mut at = Rotation(0);
        let mut out = [0; BATCH];
        self.lookups(&format!("{name}, flat DIR-24-8, batch of 64"), about, || {
            for _ in 0..16 {
                flat.lookup_batch(&bits[at.next(bits.len(), BATCH)], &mut out);
                black_box(&out);
            }
            16 * BATCH
        });
        self.singly(&format!("{name}, flat DIR-24-8"), about, dst, |a| flat.lookup(a.to_bits()).into());
    }

    fn v6(&mut self, table: &Table) {
        let (memory, fib) = self.load("IPv6", table);
        let routes = table.len();
        let about = About { routes, bytes: memory.bytes() };
        let own: Vec<(Ipv6Addr, u8, u8)> = table
            .iter()
            .filter_map(|(net, hop)| match net {
                IpNet::V6(n) => Some((n.network(), n.prefix_len(), *hop)),
                IpNet::V4(_) => None,
            })
            .collect();
        let others = if self.only_ours { Vec::new() } else { yardstick::v6(&own, || ALLOC.bytes_in_use()) };
        for (pattern, either) in &self.patterns(table, true, &fib) {
            let dst: Vec<Ipv6Addr> =
                either.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }).collect();
            agree(&others, &dst, |a| fib.lookup6(a).0);
            let name = format!("IPv6 {pattern}");
            self.ours(&name, (&fib, about), (&dst, either), |f, d, o| f.lookup6_batch(d, o), |f, d| f.lookup6(d));
            self.yardsticks(&name, routes, &others, &dst);
        }
        drop(others);
        self.changes("IPv6", table, memory, fib);
    }

    /// Loads a table as the control plane does: replaced nodes are free again after some thousand routes.
    fn load(&self, family: &str, table: &Table) -> (FibMemory, Fib) {
        let mut memory = FibMemory::new();
        let fib = Fib::new(&memory);
        let start = Instant::now();
        for (seq, routes) in table.chunks(4096).enumerate() {
            for (net, hop) in routes {
                fib.insert(&mut memory, net, ObjectId(u32::from(*hop))).expect("room");
            }
            memory.seal(seq as u64);
            memory.release(seq as u64 + 1);
        }
        let time = start.elapsed();
        let (nodes, lines) = memory.used();
        println!(
            "{family}: {} routes, {} KiB in all ({} KiB for lookups: {nodes} nodes, {} KiB; roots, constants), loaded in {time:.0?}: {:.0} ns per route",
            table.len(),
            memory.bytes() >> 10,
            memory.lookup_bytes() >> 10,
            lines >> 4,
            time.as_nanos() as f64 / table.len() as f64
        );
        (memory, fib)
    }

    /// Millions of single changes per second: another value, and away and back again, of random routes.
    fn changes(&mut self, family: &str, table: &Table, mut memory: FibMemory, fib: Fib) {
        let about = About { routes: table.len(), bytes: memory.bytes() };
        let unit = "million changes per second";
        let mut map4 = PrefixMap::<Ipv4Net, u8>::new();
        let mut map6 = PrefixMap::<Ipv6Net, u8>::new();
        for (net, hop) in table {
            match net {
                IpNet::V4(n) => _ = map4.insert(*n, *hop),
                IpNet::V6(n) => _ = map6.insert(*n, *hop),
            }
        }
        let cover = |net: &IpNet| match net {
            IpNet::V4(n) => map4.cover(n).filter(|(c, _)| c != n).last().map(|(c, v)| (c.prefix_len(), *v)),
            IpNet::V6(n) => map6.cover(n).filter(|(c, _)| c != n).last().map(|(c, v)| (c.prefix_len(), *v)),
        };
        let mut r = table::Random(9);
        let some: Vec<_> = (0..1 << 16).map(|_| table[r.below(table.len())]).collect();
        let covers: Vec<_> = some.iter().map(|(net, _)| cover(net).map(|(l, v)| (l, ObjectId(u32::from(v))))).collect();
        let mut seq = 1 << 32;
        let mut free = |memory: &mut FibMemory| {
            memory.seal(seq);
            seq += 1;
            memory.release(seq);
        };
        let (mut at, mut round) = (Rotation(0), 0);
        self.row(&format!("{family} change of one value"), about, unit, || {
            let range = at.next(some.len(), 256);
            round += u32::from(range.start == 0);
            for (net, hop) in &some[range] {
                fib.insert(&mut memory, net, ObjectId(u32::from(*hop) + round % 2)).expect("room");
            }
            free(&mut memory);
            256
        });
        let mut at = Rotation(0);
        self.row(&format!("{family} removal and return, each counted"), about, unit, || {
            let range = at.next(some.len(), 256);
            for ((net, hop), cover) in some[range.clone()].iter().zip(&covers[range]) {
                fib.remove(&mut memory, net, *cover);
                fib.insert(&mut memory, net, ObjectId(u32::from(*hop))).expect("room");
            }
            free(&mut memory);
            512
        });
        let all = if family == "IPv4" { "0.0.0.0/0" } else { "::/0" };
        let all: IpNet = all.parse().expect("a prefix");
        self.row(&format!("{family} change of the default route"), about, unit, || {
            fib.insert(&mut memory, &all, ObjectId(7)).expect("room");
            free(&mut memory);
            1
        });
    }
}

/// Fails unless the others answer as ours does: else they did other work.
fn agree<A: Address>(others: &[Box<dyn Yardstick<A>>], dst: &[A], ours: impl Fn(A) -> u32) {
    for y in others {
        for a in dst.iter().step_by(16) {
            assert_eq!(y.get(*a), ours(*a), "{} on {a:?}", y.name());
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|a| a == "--test");
    let only_ours = words.iter().any(|a| a == "ours");
    let select: Vec<String> = words.into_iter().filter(|a| !a.starts_with("--") && a != "ours").collect();
    let (runs, time, destinations) =
        if quick { (1, Duration::from_millis(2), 1 << 12) } else { (5, Duration::from_millis(100), 1 << 20) };
    let report = Report::new("lookup", quick || only_ours || !select.is_empty());
    let mut bench = Bench { report, runs, time, destinations, select, only_ours };
    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!(
                "(the real full table is not beside this checkout, or --test: synthetic tables of 100,000 routes)"
            );
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    println!("{:<60} {:>11} {:>11} {:>11}", "table, pattern", "min", "median", "max");
    if bench.wants("IPv4") {
        bench.v4(&v4);
    }
    if bench.wants("IPv6") {
        bench.v6(&v6);
    }
}
