//! Lookups alone: million per second on one core, for several destination patterns; and changes of the table.
//!
//! `cargo bench -p benches --bench lookup`; `-- --test` runs everything once, shortly. Other words select rows whose
//! name (as `IPv4 Zipf, batch of 64`) contains one of them.

use benches::dir24::Dir24;
use benches::measure::per_item;
use benches::table::{self, Table};
use benches::traffic;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use router_core::fib::{Fib, FibMemory, Lookup};
use router_core::object::ObjectId;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

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
    runs: usize,
    time: Duration,
    destinations: usize,
    select: Vec<String>,
}

impl Bench {
    fn row(&self, name: &str, run: impl FnMut() -> usize) {
        if !self.select.is_empty() && !self.select.iter().any(|s| name.contains(s.as_str())) {
            return;
        }
        let s = per_item(self.runs, self.time, run);
        println!("{name:<44} {:>8.1} {:>8.1} {:>8.1}", 1e3 / s.max, 1e3 / s.median, 1e3 / s.min);
    }

    /// Ours: as the data plane asks (addresses of either family), by family, one by one, each waiting for the last.
    fn ours<A: Copy>(
        &self,
        name: &str,
        fib: &Fib,
        dst: &[A],
        batch: impl Fn(&Fib, &[A], &mut [ObjectId]),
        single: impl Fn(&Fib, A, u32) -> ObjectId,
    ) {
        let mut out = [ObjectId::NO_ROUTE; BATCH];
        let mut at = Rotation(0);
        self.row(&format!("{name}, batch of 64"), || {
            for _ in 0..16 {
                batch(fib, &dst[at.next(dst.len(), BATCH)], &mut out);
                black_box(&out);
            }
            16 * BATCH
        });
        self.row(&format!("{name}, one by one"), || {
            let range = at.next(dst.len(), 1024);
            for d in &dst[range] {
                black_box(single(fib, *d, 0));
            }
            1024
        });
        let mut last = 0;
        // Zero, but the compiler does not know, nor may it conclude so from what a lookup can return.
        let mask = black_box(0);
        self.row(&format!("{name}, dependent"), || {
            let range = at.next(dst.len(), 1024);
            for d in &dst[range] {
                last = single(fib, *d, last).0 & mask;
            }
            black_box(last);
            1024
        });
    }

    fn v4(&self, table: &Table) {
        let (memory, fib) = self.load("IPv4", table);
        let patterns = [
            ("uniform", traffic::uniform(table, self.destinations, 5)),
            ("per route", traffic::per_route(table, self.destinations, 3)),
            ("Zipf", traffic::zipf(table, self.destinations, 3)),
            ("sequential", sorted(traffic::per_route(table, self.destinations, 3))),
            ("misses", traffic::misses(self.destinations, 7, false, |a| fib.lookup(&a) != ObjectId::NO_ROUTE)),
        ];
        let flat = Dir24::new(table);
        let mut trie = PrefixMap::new();
        for (net, hop) in table {
            if let IpNet::V4(n) = net {
                trie.insert(*n, *hop);
            }
        }
        for (name, dst) in &patterns {
            let own: Vec<Ipv4Addr> =
                dst.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }).collect();
            let bits: Vec<u32> = own.iter().map(|a| a.to_bits()).collect();
            for (a, d) in own.iter().zip(&bits) {
                assert_eq!(fib.lookup4(*a).0, u32::from(flat.lookup(*d)), "{a}");
            }
            let name = format!("IPv4 {name}");
            self.ours(
                &name,
                &fib,
                &own,
                |f, d, o| f.lookup4_batch(d, o),
                |f, d, x| f.lookup4(Ipv4Addr::from_bits(d.to_bits() ^ x)),
            );
            let mut at = Rotation(0);
            let mut out = [ObjectId::NO_ROUTE; BATCH];
            self.row(&format!("{name}, batch of 64, of either family"), || {
                fib.lookup_batch(&dst[at.next(dst.len(), BATCH)], &mut out);
                black_box(&out);
                BATCH
            });
            let mut out = [0; BATCH];
            self.row(&format!("{name}, flat DIR-24-8, batch of 64"), || {
                for _ in 0..16 {
                    flat.lookup_batch(&bits[at.next(dst.len(), BATCH)], &mut out);
                    black_box(&out);
                }
                16 * BATCH
            });
            self.row(&format!("{name}, prefix-trie"), || {
                let range = at.next(dst.len(), 64);
                for a in &own[range] {
                    black_box(trie.get_lpm(&Ipv4Net::from(*a)));
                }
                64
            });
        }
        self.changes("IPv4", table, memory, fib);
    }

    fn v6(&self, table: &Table) {
        let (memory, fib) = self.load("IPv6", table);
        let patterns = [
            ("uniform", traffic::uniform(table, self.destinations, 5)),
            ("per route", traffic::per_route(table, self.destinations, 3)),
            ("Zipf", traffic::zipf(table, self.destinations, 3)),
            ("sequential", sorted(traffic::per_route(table, self.destinations, 3))),
            ("misses", traffic::misses(self.destinations, 7, true, |a| fib.lookup(&a) != ObjectId::NO_ROUTE)),
        ];
        let mut trie = PrefixMap::new();
        for (net, hop) in table {
            if let IpNet::V6(n) = net {
                trie.insert(*n, *hop);
            }
        }
        for (name, dst) in &patterns {
            let own: Vec<Ipv6Addr> =
                dst.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }).collect();
            for a in own.iter().step_by(16) {
                let want = trie.get_lpm(&Ipv6Net::from(*a)).map_or(0, |(_, v)| u32::from(*v));
                assert_eq!(fib.lookup6(*a).0, want, "{a}");
            }
            let name = format!("IPv6 {name}");
            self.ours(
                &name,
                &fib,
                &own,
                |f, d, o| f.lookup6_batch(d, o),
                |f, d, x| f.lookup6(Ipv6Addr::from_bits(d.to_bits() ^ u128::from(x) << 64)),
            );
            let mut at = Rotation(0);
            let mut out = [ObjectId::NO_ROUTE; BATCH];
            self.row(&format!("{name}, batch of 64, of either family"), || {
                fib.lookup_batch(&dst[at.next(dst.len(), BATCH)], &mut out);
                black_box(&out);
                BATCH
            });
            self.row(&format!("{name}, prefix-trie"), || {
                let range = at.next(dst.len(), 64);
                for a in &own[range] {
                    black_box(trie.get_lpm(&Ipv6Net::from(*a)));
                }
                64
            });
        }
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
    fn changes(&self, family: &str, table: &Table, mut memory: FibMemory, fib: Fib) {
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
        self.row(&format!("{family} change of one value"), || {
            let range = at.next(some.len(), 256);
            round += u32::from(range.start == 0);
            for (net, hop) in &some[range] {
                fib.insert(&mut memory, net, ObjectId(u32::from(*hop) + round % 2)).expect("room");
            }
            free(&mut memory);
            256
        });
        let mut at = Rotation(0);
        self.row(&format!("{family} removal and return, each counted"), || {
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
        self.row(&format!("{family} change of the default route"), || {
            fib.insert(&mut memory, &all, ObjectId(7)).expect("room");
            free(&mut memory);
            1
        });
    }
}

fn sorted(mut v: Vec<IpAddr>) -> Vec<IpAddr> {
    v.sort_unstable();
    v
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|a| a == "--test");
    let select = words.into_iter().filter(|a| !a.starts_with("--")).collect();
    let (runs, time, destinations) =
        if quick { (1, Duration::from_millis(2), 1 << 12) } else { (5, Duration::from_millis(100), 1 << 20) };
    let bench = Bench { runs, time, destinations, select };
    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!(
                "(the real full table is not beside this checkout, or --test: synthetic tables of 100,000 routes)"
            );
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    println!("{:<44} {:>8} {:>8} {:>8}  million per second", "table, pattern", "min", "median", "max");
    bench.v4(&v4);
    bench.v6(&v6);
}
