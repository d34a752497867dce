//! The engine against the oracle, after every single operation.

use super::oracle::Oracle;
use super::{Fib, FibMemory, Lookup};
use crate::object::ObjectId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug)]
enum Op {
    Insert(usize, IpNet, u32),
    Remove(usize, IpNet),
    /// Removes the n-th of the prefixes that are there.
    RemoveNth(usize, usize),
}

/// Addresses that differ in few places, so that prefixes nest and share nodes.
fn crowded4() -> impl Strategy<Value = u32> {
    (0u32..4, 0u32..4, 0u32..4, 0u32..256)
        .prop_map(|(a, b, c, d)| (a * 0x55) << 24 | (b * 0x41) << 16 | (c * 0x11) << 8 | d)
}

fn crowded6() -> impl Strategy<Value = u128> {
    (0u128..4, 0u128..4, 0u128..256, 0u128..4)
        .prop_map(|(a, b, c, d)| 0x2001 << 112 | (a * 0x5555) << 96 | (b * 0x1001) << 80 | c << 60 | d)
}

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (crowded4(), 0u8..=32).prop_map(|(a, l)| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(a), l)).trunc()),
        (crowded6(), prop_oneof![0u8..=128, 60u8..=72]).prop_map(|(a, l)| IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::from(a),
            l
        ))
        .trunc()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..3, net(), 0u32..1 << 30).prop_map(|(t, n, v)| Op::Insert(t, n, v)),
        1 => (0usize..3, net()).prop_map(|(t, n)| Op::Remove(t, n)),
        2 => (0usize..3, 0usize..64).prop_map(|(t, n)| Op::RemoveNth(t, n)),
    ]
}

/// The edges of a prefix, just outside it, and its middle.
fn probes(net: &IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(n) => {
            let (first, last) = (u32::from(n.network()), u32::from(n.broadcast()));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1), first + (last - first) / 2];
            all.map(|a| IpAddr::V4(a.into())).to_vec()
        }
        IpNet::V6(n) => {
            let (first, last) = (u128::from(n.network()), u128::from(n.broadcast()));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1), first + (last - first) / 2];
            all.map(|a| IpAddr::V6(a.into())).to_vec()
        }
    }
}

fn remove(fib: &Fib, oracle: &mut Oracle, memory: &mut FibMemory, net: &IpNet) {
    if oracle.0.remove(net).is_some() {
        fib.remove(memory, net, oracle.cover(net));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Proves rfc1812-5.2.4.3-longest.
    /// Proves rfc1812-2.2.5.2-prefix, rfc1812-4.2.3.4-prefixes.
    #[test]
    fn agrees_with_the_oracle_after_every_operation(ops in prop::collection::vec(op(), 1..120)) {
        let mut memory = FibMemory::new();
        let mut tables: Vec<_> = (0..3).map(|_| (Fib::new(&memory), Oracle::default())).collect();
        let mut seen = Vec::new();
        for (i, op) in ops.iter().enumerate() {
            let net = match op {
                Op::Insert(t, net, value) => {
                    let (fib, oracle) = &mut tables[*t];
                    fib.insert(&mut memory, net, ObjectId(*value)).unwrap();
                    oracle.0.insert(*net, ObjectId(*value));
                    *net
                }
                Op::Remove(t, net) => {
                    let (fib, oracle) = &mut tables[*t];
                    remove(fib, oracle, &mut memory, net);
                    *net
                }
                Op::RemoveNth(t, n) => {
                    let (fib, oracle) = &mut tables[*t];
                    let Some(net) = oracle.0.keys().nth(*n % oracle.0.len().max(1)).copied() else { continue };
                    remove(fib, oracle, &mut memory, &net);
                    net
                }
            };
            seen.extend(probes(&net));
            // Nobody reads between operations, so freed nodes come back at once: reuse is tested too.
            memory.seal(i as u64);
            memory.release(i as u64 + 1);
            for (fib, oracle) in &tables {
                for dst in &seen {
                    prop_assert_eq!(fib.lookup(dst), oracle.lookup(dst), "{} after {:?}", dst, op);
                }
            }
        }
        for (fib, oracle) in &mut tables {
            let all: Vec<_> = oracle.0.keys().copied().collect();
            for net in all {
                remove(fib, oracle, &mut memory, &net);
            }
            for dst in &seen {
                prop_assert_eq!(fib.lookup(dst), ObjectId::NO_ROUTE);
            }
        }
        // Nothing is left: no node leaks, no record of prefixes either.
        prop_assert_eq!(memory.used(), (0, 0));
    }
}

/// Every length along one path, both families: the deepest nesting there is.
#[test]
fn nests_to_the_full_depth() {
    for host in ["255.255.255.255/32", "10.170.85.1/32", "2001:db8:aaaa:5555:ffff:0:1:1/128", "ffff::/128"] {
        let host: IpNet = host.parse().unwrap();
        let dst = host.addr();
        let mut memory = FibMemory::new();
        let fib = Fib::new(&memory);
        let max = host.max_prefix_len();
        let at = |l: u8| IpNet::new(dst, l).unwrap().trunc();
        for l in 0..=max {
            fib.insert(&mut memory, &at(l), ObjectId(u32::from(l) + 1)).unwrap();
            assert_eq!(fib.lookup(&dst), ObjectId(u32::from(l) + 1));
        }
        for l in (0..=max).rev() {
            assert_eq!(fib.lookup(&dst), ObjectId(u32::from(l) + 1), "{host} {l}");
            fib.remove(&mut memory, &at(l), l.checked_sub(1).map(|c| (c, ObjectId(u32::from(c) + 1))));
        }
        assert_eq!(fib.lookup(&dst), ObjectId::NO_ROUTE);
    }
}

#[test]
fn explicit_no_route_hides_a_shorter_prefix() {
    let mut memory = FibMemory::new();
    let fib = Fib::new(&memory);
    let (wide, throw): (IpNet, IpNet) = ("10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
    fib.insert(&mut memory, &wide, ObjectId(7)).unwrap();
    fib.insert(&mut memory, &throw, ObjectId::NO_ROUTE).unwrap();
    assert_eq!(fib.lookup4(Ipv4Addr::new(10, 1, 2, 3)), ObjectId::NO_ROUTE);
    fib.remove(&mut memory, &throw, Some((8, ObjectId(7))));
    assert_eq!(fib.lookup4(Ipv4Addr::new(10, 1, 2, 3)), ObjectId(7));
}

/// Make before break: a wide route is added, then the narrow one goes. No reader may ever find nothing, nor the wide
/// route's former value.
#[test]
fn readers_see_old_or_new_during_changes() {
    let mut memory = FibMemory::new();
    let fib = std::sync::Arc::new(Fib::new(&memory));
    let (wide, narrow): (IpNet, IpNet) = ("10.0.0.0/8".parse().unwrap(), "10.1.2.0/24".parse().unwrap());
    let dst = Ipv4Addr::new(10, 1, 2, 3);
    fib.insert(&mut memory, &narrow, ObjectId(1)).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (fib, stop) = (fib.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut bad = 0u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    bad += u32::from(!matches!(fib.lookup4(dst), ObjectId(1) | ObjectId(2)));
                }
                bad
            })
        })
        .collect();
    for _ in 0..20_000 {
        fib.insert(&mut memory, &wide, ObjectId(2)).unwrap();
        fib.remove(&mut memory, &narrow, Some((8, ObjectId(2))));
        fib.insert(&mut memory, &narrow, ObjectId(1)).unwrap();
        fib.remove(&mut memory, &wide, None);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for r in readers {
        assert_eq!(r.join().unwrap(), 0);
    }
}
