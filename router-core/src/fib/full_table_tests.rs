//! A real Internet table, where it is present.

use super::{Fib, FibMemory, Lookup};
use crate::object::ObjectId;
use ipnet::IpNet;
use prefix_trie::PrefixMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Reads `prefix next-hop-id` lines; None when the file is not there.
pub(crate) fn full_table(name: &str) -> Option<Vec<(IpNet, u32)>> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2);
    let found = above.map(|dir| dir.join("shared/data").join(name)).find(|p| p.exists());
    let Some(Ok(file)) = found.map(std::fs::File::open) else {
        eprintln!("SKIPPED: {name} is not there");
        return None;
    };
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    let table = lines.map_while(Result::ok).filter_map(|line| {
        let (net, hop) = line.split_once(' ')?;
        Some((net.parse().ok()?, hop.parse().ok()?))
    });
    Some(table.collect())
}

#[test]
fn holds_the_full_tables() {
    let (Some(mut all), Some(six)) = (full_table("bgp-ipv4.txt.gz"), full_table("bgp-ipv6.txt.gz")) else { return };
    all.extend(six);
    let mut memory = FibMemory::new();
    let fib = Fib::new(&memory);
    let (mut ref4, mut ref6) = (PrefixMap::new(), PrefixMap::new());
    let start = std::time::Instant::now();
    for (net, hop) in &all {
        fib.insert(&mut memory, net, ObjectId(*hop)).unwrap();
    }
    eprintln!("{} routes in {:?}, {} MiB", all.len(), start.elapsed(), memory.bytes() >> 20);
    for (net, hop) in &all {
        match net {
            IpNet::V4(n) => _ = ref4.insert(*n, *hop),
            IpNet::V6(n) => _ = ref6.insert(*n, *hop),
        }
    }
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for (i, (net, _)) in all.iter().enumerate() {
        // xorshift: half the probes lie near a route, half anywhere.
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let (got, want) = match net {
            IpNet::V4(n) => {
                let a = if i % 2 == 0 { u32::from(n.network()) ^ (x as u32 & 0x1ff) } else { x as u32 };
                let p = ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(a));
                (fib.lookup4(a.into()), ref4.get_lpm(&p).map(|(_, v)| *v))
            }
            IpNet::V6(n) => {
                let a = u128::from(n.network()) ^ (u128::from(x & 0xff) << (i % 100));
                let p = ipnet::Ipv6Net::from(std::net::Ipv6Addr::from(a));
                (fib.lookup6(a.into()), ref6.get_lpm(&p).map(|(_, v)| *v))
            }
        };
        assert_eq!(got, want.map_or(ObjectId::NO_ROUTE, ObjectId), "near {net}");
    }
}
