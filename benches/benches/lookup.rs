//! Lookups alone: million per second on one core, for several destination patterns.
//!
//! `cargo bench --bench lookup`; `-- --test` runs everything once, shortly.

use benches::measure::per_item;
use benches::table::{self, Random, Table};
use benches::traffic;
use router_core::fib::{Fib, FibMemory, Lookup};
use router_core::object::ObjectId;
use std::net::IpAddr;
use std::time::Duration;

fn pattern(name: &str, table: &Table, n: usize) -> Vec<IpAddr> {
    match name {
        "per route" => traffic::per_route(table, n, 3),
        "sequential" => {
            let mut v = traffic::per_route(table, n, 3);
            v.sort_unstable();
            v
        }
        // Zipf(1.0) over n destinations by inversion of the harmonic sum.
        _ => {
            let all = traffic::per_route(table, n, 3);
            let mut r = Random(11);
            let total = (n as f64).ln();
            (0..n)
                .map(|_| {
                    let u = (r.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                    all[((u * total).exp() as usize).min(n) - 1]
                })
                .collect()
        }
    }
}

fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let (runs, time, n) =
        if quick { (1, Duration::from_millis(2), 1 << 12) } else { (5, Duration::from_millis(300), 1 << 20) };
    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!(
                "(the real full table is not beside this checkout, or --test: synthetic tables of 100,000 routes)"
            );
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    println!("{:<28} {:>8} {:>8} {:>8}  million lookups per second", "table, pattern", "min", "median", "max");
    for (family, table) in [("IPv4", &v4), ("IPv6", &v6)] {
        let mut memory = FibMemory::new();
        let fib = Fib::new(&memory);
        for (net, hop) in table {
            fib.insert(&mut memory, net, ObjectId(u32::from(*hop))).expect("room");
        }
        println!("{family}: {} routes, {} KiB", table.len(), memory.bytes() >> 10);
        for name in ["per route", "Zipf", "sequential"] {
            let dst = pattern(name, table, n);
            let mut out = [ObjectId::NO_ROUTE; 64];
            let mut at = 0;
            let s = per_item(runs, time, || {
                let end = (at + 64).min(dst.len());
                fib.lookup_batch(&dst[at..end], &mut out);
                std::hint::black_box(&out);
                let done = end - at;
                at = if end == dst.len() { 0 } else { end };
                done
            });
            println!("{:<28} {:>8.1} {:>8.1} {:>8.1}", format!("  {name}"), 1e3 / s.max, 1e3 / s.median, 1e3 / s.min);
        }
    }
}
