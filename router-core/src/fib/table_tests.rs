//! Tables that are hard on the layout, and readers beside a busy writer.

use super::oracle::Oracle;
use super::sync::DIRECT_FROM;
use super::{Fib, FibMemory, Lookup};
use crate::object::ObjectId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A model that is fast enough for large tables: one map, asked from the longest length down.
#[derive(Default)]
struct Model(BTreeMap<IpNet, ObjectId>);

impl Model {
    fn longest(&self, dst: IpAddr, below: u8) -> Option<(u8, ObjectId)> {
        (0..below).rev().find_map(|l| Some((l, *self.0.get(&IpNet::new(dst, l).ok()?.trunc())?)))
    }

    fn lookup(&self, dst: IpAddr) -> ObjectId {
        self.longest(dst, if dst.is_ipv4() { 33 } else { 129 }).map_or(ObjectId::NO_ROUTE, |(_, v)| v)
    }
}

fn v4(a: u32, l: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(a), l).trunc())
}

fn v6(a: u128, l: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(a), l).trunc())
}

fn host_near(net: &IpNet, r: &mut Random) -> IpAddr {
    let x = r.next();
    match net {
        // Most within, some just outside.
        IpNet::V4(n) => {
            Ipv4Addr::from(u32::from(n.network()) ^ (x as u32 & (u32::MAX >> 1 >> (n.prefix_len() % 32)))).into()
        }
        IpNet::V6(n) => {
            let random = u128::from(x) << 64 | u128::from(r.next());
            Ipv6Addr::from(u128::from(n.network()) ^ (random & (u128::MAX >> 1 >> (n.prefix_len() % 128)))).into()
        }
    }
}

/// Loads `nets` in random order into a table with a small and one with a direct root, changes half of them, takes all
/// away again, and compares with the model on the way: single lookups and batches.
fn exercise(nets: &[IpNet], values: u32) {
    let mut memory = FibMemory::new();
    let first: Vec<Fib> = (0..4).map(|_| Fib::new(&memory)).collect();
    // The first tables get direct roots at once: use them up.
    for (i, f) in first.iter().enumerate().skip(1) {
        f.insert(&mut memory, &v4(0x0a00_0000, 8), ObjectId(i as u32)).unwrap();
        f.insert(&mut memory, &v6(0xfd << 120, 8), ObjectId(i as u32)).unwrap();
    }
    let small = Fib::new(&memory);
    let used = memory.used();
    let tables = [&first[0], &small];
    let mut model = Model::default();
    let mut r = Random(0x1234_5678_9abc_def1);
    let mut order: Vec<IpNet> = nets.to_vec();
    for i in (1..order.len()).rev() {
        order.swap(i, (r.next() % (i as u64 + 1)) as usize);
    }
    let mut seq = 0;
    let mut free = |memory: &mut FibMemory| {
        memory.seal(seq);
        seq += 1;
        memory.release(seq);
    };
    let check = |model: &Model, r: &mut Random| {
        let dst: Vec<IpAddr> = order.iter().step_by(1 + order.len() / 2000).map(|n| host_near(n, r)).collect();
        let want: Vec<ObjectId> = dst.iter().map(|d| model.lookup(*d)).collect();
        for t in tables {
            let mut got = vec![ObjectId(99); dst.len()];
            t.lookup_batch(&dst, &mut got);
            assert_eq!(got, want);
            for (d, w) in dst.iter().zip(&want) {
                assert_eq!(t.lookup(d), *w, "{d}");
            }
        }
    };
    for (i, net) in order.iter().enumerate() {
        let value = ObjectId((r.next() % u64::from(values)) as u32);
        model.0.insert(*net, value);
        for t in tables {
            t.insert(&mut memory, net, value).unwrap();
        }
        free(&mut memory);
        if i % (1 + order.len() / 4) == 7 {
            check(&model, &mut r);
        }
    }
    check(&model, &mut r);
    for net in order.iter().step_by(2) {
        let value = ObjectId((r.next() % u64::from(values)) as u32);
        model.0.insert(*net, value);
        for t in tables {
            t.insert(&mut memory, net, value).unwrap();
        }
    }
    check(&model, &mut r);
    for (i, net) in order.iter().enumerate() {
        model.0.remove(net);
        let cover = model.longest(net.addr(), net.prefix_len());
        for t in tables {
            t.remove(&mut memory, net, cover);
        }
        free(&mut memory);
        if i % (1 + order.len() / 4) == 7 {
            check(&model, &mut r);
        }
    }
    assert_eq!((memory.used(), memory.waiting()), (used, 0));
}

#[test]
fn all_hosts_of_a_16() {
    let nets: Vec<_> = (0..1u32 << 16).step_by(3).map(|i| v4(0xc0a8_0000 | i, 32)).collect();
    exercise(&nets, 1 << 8);
}

#[test]
fn storms_of_long_prefixes() {
    let mut r = Random(77);
    let nets: Vec<_> = (0..20_000)
        .map(|_| {
            let x = r.next();
            v4(0x0a01_0000 | (x as u32 & 0xffff), 25 + (x >> 32) as u8 % 8)
        })
        .collect();
    exercise(&nets, 1 << 16);
}

/// Also proves rfc8504-14.4-lengths.
#[test]
fn every_length_at_once() {
    let mut r = Random(78);
    let nets: Vec<_> = (0..10_000u32)
        .flat_map(|i| {
            let x = r.next();
            let a = (u128::from(r.next()) << 64 | u128::from(x)) & !(7 << 125) | 1 << 125;
            [v4(x as u32, 1 + (i % 32) as u8), v6(a, 1 + (i % 128) as u8)]
        })
        .chain([v4(0, 0), v6(0, 0)])
        .collect();
    exercise(&nets, 1 << 20);
}

#[test]
fn sprays_of_64_to_128() {
    let mut r = Random(79);
    let nets: Vec<_> = (0..6_000)
        .map(|_| {
            let (x, y) = (r.next(), r.next());
            let a = 0x2001_0db8 << 96 | u128::from(x & 0xff_ffff) << 64 | u128::from(y);
            v6(a, 64 + (x >> 40) as u8 % 65)
        })
        .collect();
    exercise(&nets, 1 << 10);
}

/// Half a million changes of prefixes that nest and crowd, in a table with a direct root and one without; after each
/// change an address near it is looked up, alone and in a batch of all kinds.
#[test]
fn long_random_walk() {
    let mut memory = FibMemory::new();
    let tables: Vec<Fib> = (0..6).map(|_| Fib::new(&memory)).collect();
    // The first ones take the direct roots that are given away.
    for t in &tables[..5] {
        for net in [v4(0x7f00_0000, 8), v6(0xfd << 120, 8)] {
            t.insert(&mut memory, &net, ObjectId(0)).unwrap();
            t.remove(&mut memory, &net, None);
        }
    }
    let pair = [&tables[0], &tables[5]];
    let mut model = Model::default();
    let mut r = Random(0xdead_beef_1234_5679);
    let mut recent = [IpAddr::V4(Ipv4Addr::LOCALHOST); 8];
    for seq in 0..250_000u64 {
        let x = r.next();
        // Few different bytes at each place, all lengths; one value in eight is too large for 16 bits.
        let net = if x & 1 == 0 {
            let a = (x >> 8) as u32 & 0x0703_0fff | 0x0a00_0000;
            v4(a, 1 + (x >> 40) as u8 % 32)
        } else {
            let y = r.next();
            let a = 0x2001 << 112 | u128::from(x & 0x0300_000f_0000) << 72 | u128::from(y & 0x0f00_0000_0000_0307);
            v6(a, 1 + (x >> 52) as u8 % 128)
        };
        let value = ObjectId(match x >> 61 {
            0 => (1 << 20) + (x >> 30) as u32 % 5,
            _ => (x >> 30) as u32 % 5,
        });
        if model.0.remove(&net).is_some() {
            let cover = model.longest(net.addr(), net.prefix_len());
            pair.iter().for_each(|t| t.remove(&mut memory, &net, cover));
        } else {
            model.0.insert(net, value);
            pair.iter().for_each(|t| t.insert(&mut memory, &net, value).unwrap());
        }
        memory.seal(seq);
        memory.release(seq + 1);
        recent[seq as usize % 8] = host_near(&net, &mut r);
        let want = recent.map(|a| model.lookup(a));
        for t in pair {
            let mut got = [ObjectId(99); 8];
            t.lookup_batch(&recent, &mut got);
            let at = seq as usize % 8;
            assert_eq!(t.lookup(&recent[at]), want[at], "{net} {}", recent[at]);
            assert_eq!(got, want, "{net}");
        }
    }
    let left: Vec<IpNet> = model.0.keys().copied().collect();
    for net in left {
        model.0.remove(&net);
        let cover = model.longest(net.addr(), net.prefix_len());
        pair.iter().for_each(|t| t.remove(&mut memory, &net, cover));
    }
    memory.seal(1 << 40);
    memory.release(1 << 41);
    assert_eq!((memory.used(), memory.waiting()), ((0, 0), 0));
}

/// All slots of the nodes that direct roots lead to come and go, with paths that skip bytes below.
#[test]
fn crowded_nodes_come_and_go() {
    let nets: Vec<_> = (0..256u128)
        .flat_map(|i| {
            let a = 0x2001 << 112 | i << 104;
            [v6(a | 1 << 96, 32), v6(a | 2 << 96, 28), v6(a, 24), v6(a | i << 40, 96)]
        })
        .chain((0..256).flat_map(|i| [v4(0x0a00_0000 | i << 8 | 128, 25), v4(0x0a01_0000 | i << 8, 24)]))
        .collect();
    exercise(&nets, 1 << 17);
}

/// More objects than 16 bits can tell apart, beside few.
#[test]
fn more_objects_than_65535() {
    let mut memory = FibMemory::new();
    let fib = Fib::new(&memory);
    let value = |i: u32| ObjectId(if i.is_multiple_of(7) { i } else { (1 << 30) + i });
    for i in 0..1u32 << 17 {
        fib.insert(&mut memory, &v4(0x0a00_0000 | i << 7, 25), value(i)).unwrap();
    }
    for i in 0..1u32 << 17 {
        assert_eq!(fib.lookup4(Ipv4Addr::from(0x0a00_0000 | i << 7 | i & 127)), value(i));
    }
    assert!(fib.insert(&mut memory, &v4(0, 8), ObjectId(u32::MAX)).is_err());
}

/// A table of ten routes costs kilobytes, when there are many.
#[test]
fn many_small_tables_are_cheap() {
    let mut memory = FibMemory::new();
    let tables: Vec<Fib> = (0..1000).map(|_| Fib::new(&memory)).collect();
    for t in &tables {
        for i in 0..10u32 {
            t.insert(&mut memory, &v4(0x0a00_0000 | i << 16 | i << 8, 24), ObjectId(i)).unwrap();
        }
        memory.seal(0);
        memory.release(1);
    }
    let bytes = memory.bytes() / tables.len();
    assert!(bytes < 4096, "{bytes} bytes per table");
    for t in &tables {
        assert_eq!(t.lookup4(Ipv4Addr::new(10, 9, 9, 1)), ObjectId(9));
    }
}

/// Random changes of nested prefixes, one after the other; readers check every answer against what held at some moment
/// of their lookup. The writer writes down each state of each probe with the number of the change that made it.
#[test]
fn readers_see_only_real_states() {
    const PROBES: usize = 12;
    const STEPS: usize = 30_000;
    let probes: Vec<IpAddr> = (0..PROBES as u32)
        .map(|i| match i % 3 {
            0 => IpAddr::V4((0x0a01_0203 ^ i << 6).into()),
            1 => IpAddr::V4((0x0a01_0203 ^ i << 20).into()),
            _ => IpAddr::V6((0x2001_0db8u128 << 96 | u128::from(i) << 70 | 5).into()),
        })
        .collect();
    // answers[step][probe], filled before the step is made; `begun` counts steps begun, `done` steps finished.
    let answers: Vec<Vec<AtomicU64>> = (0..=STEPS).map(|_| (0..PROBES).map(|_| AtomicU64::new(0)).collect()).collect();
    let (begun, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // As if each were a reader's snapshot: the last step that was done when it began its lookup.
    let epochs = [AtomicU64::new(0), AtomicU64::new(0)];
    // With a direct root, and without: the first tables get one. Then tables that get theirs while they are read.
    let grows = (1..=10).map(|early| (4, DIRECT_FROM - early, 60));
    for (others, loaded, steps) in [(0, 0, STEPS), (4, 0, STEPS)].into_iter().chain(grows) {
        let mut memory = FibMemory::new();
        let tables: Vec<Fib> = (0..=others).map(|_| Fib::new(&memory)).collect();
        let (fib, others) = tables.split_last().unwrap();
        for t in others {
            t.insert(&mut memory, &v4(0x0a00_0000, 8), ObjectId(1)).unwrap();
            t.insert(&mut memory, &v6(0xfd << 120, 8), ObjectId(1)).unwrap();
        }
        for i in 0..loaded {
            fib.insert(&mut memory, &v4(0xac10_0000 | i << 8, 24), ObjectId(1)).unwrap();
            fib.insert(&mut memory, &v6(0xfd << 120 | u128::from(i) << 64, 64), ObjectId(1)).unwrap();
        }
        let mut oracle = Oracle::default();
        let mut r = Random(u64::from(loaded) + others.len() as u64 + 99);
        [&begun, &done, &epochs[0], &epochs[1]].into_iter().for_each(|n| n.store(0, Relaxed));
        stop.store(false, Release);
        let reader = |batch: bool| {
            let (mut out, mut wrong, mut n) = (vec![ObjectId(0); PROBES], 0u32, 0usize);
            while !stop.load(Acquire) {
                let first = done.load(Acquire);
                epochs[usize::from(batch)].store(first, Release);
                n += 1;
                if batch {
                    fib.lookup_batch(&probes, &mut out);
                } else {
                    out[n % PROBES] = fib.lookup(&probes[n % PROBES]);
                }
                let last = begun.load(Acquire);
                for p in if batch { 0..PROBES } else { n % PROBES..n % PROBES + 1 } {
                    let real = (first..=last).any(|s| answers[s as usize][p].load(Relaxed) == u64::from(out[p].0));
                    wrong += u32::from(!real);
                }
            }
            wrong
        };
        std::thread::scope(|s| {
            let readers = [s.spawn(|| reader(true)), s.spawn(|| reader(false))];
            for (p, a) in answers[0].iter().enumerate() {
                a.store(u64::from(oracle.lookup(&probes[p]).0), Relaxed);
            }
            for (step, row) in answers.iter().enumerate().skip(1).take(steps) {
                let x = r.next();
                let probe = probes[(x % PROBES as u64) as usize];
                let max = if probe.is_ipv4() { 33 } else { 129 };
                // The zero-length prefix often: it has a way of its own.
                let len = if x >> 60 < 4 { 0 } else { ((x >> 20) % max) as u8 };
                let net = IpNet::new(probe, len).unwrap().trunc();
                let gone = oracle.0.remove(&net).is_some();
                if !gone {
                    oracle.0.insert(net, ObjectId(step as u32));
                }
                for (p, a) in row.iter().enumerate() {
                    a.store(u64::from(oracle.lookup(&probes[p]).0), Relaxed);
                }
                begun.store(step as u64, Release);
                if gone {
                    fib.remove(&mut memory, &net, oracle.cover(&net));
                } else {
                    fib.insert(&mut memory, &net, ObjectId(step as u32)).unwrap();
                }
                done.store(step as u64, Release);
                memory.seal(step as u64);
                memory.release(epochs.iter().map(|e| e.load(Acquire)).min().unwrap_or(0) + 1);
            }
            stop.store(true, Release);
            for r in readers {
                assert_eq!(r.join().unwrap(), 0, "answers that never held");
            }
        });
        assert!(memory.bytes() < 16 << 20, "nodes were used again");
        assert_eq!(fib.v4.root_bytes() > 0, others.is_empty() || loaded > 0, "{loaded} routes to begin with");
    }
}
