//! What workers see while things change, and that nothing is left behind.

use super::*;
use crate::next_hop::{MAX_CHAIN, PathId};
use crate::resolve::{Resolver, Root};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Everything that must hold after a commit, checked the slow way.
fn check(r: &Routing) -> Result<(), String> {
    let tables = &r.held.back().ok_or("nothing published")?.1;
    let mut refs: BTreeMap<PathId, u32> = BTreeMap::new();
    // Re-resolving everything from scratch changes nothing: no dependent was missed.
    for (id, p) in r.paths.iter() {
        let now = Resolver::new(&r.rib, &r.paths, &r.facts).path(id, &p.key);
        if now != p.outcome {
            return Err(format!("path {:?}\nwas {:?}\nis {now:?}", p.key, p.outcome));
        }
    }
    for (id, t) in &r.facts.tunnels {
        let now = Resolver::new(&r.rib, &r.paths, &r.facts).carrier(*id, t);
        if now != t.outcome {
            return Err(format!("tunnel {id:?}\nwas {:?}\nis {now:?}", t.outcome));
        }
    }
    for (_, e) in r.rib.entries.iter() {
        if !e.candidates.is_sorted_by_key(|c| c.rank()) || e.candidates.is_empty() || e.dirty {
            return Err(format!("entry {e:?}"));
        }
        e.candidates.iter().for_each(|c| *refs.entry(c.path).or_default() += 1);
        let best = e.candidates.iter().find_map(|c| r.paths.get(c.path).filter(|p| p.outcome.usable()));
        let content = |id| tables.objects.get(id).map(|o| format!("{o:?}"));
        match (best, e.installed()) {
            (None, None) => {}
            (Some(p), Some(id)) if content(p.object) == content(id) && content(id).is_some() => {}
            (best, installed) if e.candidates.len() <= MAX_CHAIN => {
                return Err(format!("{} has {installed:?}, should have {best:?}", e.dst));
            }
            _ => {}
        }
    }
    for (id, p) in r.paths.iter() {
        if p.refs != refs.remove(&id).unwrap_or(0) {
            return Err(format!("references of {p:?}"));
        }
    }
    let mut listed = 0;
    for (id, c) in r.chains.iter() {
        for (place, at) in c.entries.iter().enumerate() {
            if r.rib.entries.get(*at).is_none_or(|e| e.chain != id || e.place as usize != place) {
                return Err(format!("list of chain {c:?}"));
            }
        }
        let lone = r.paths.get(c.paths[0]).filter(|_| c.paths.len() == 1).map(|p| p.lone);
        if c.entries.is_empty() || lone.is_some_and(|l| l != id) {
            return Err(format!("chain {c:?}"));
        }
        listed += c.entries.len();
    }
    if listed != r.rib.entries.iter().filter(|(_, e)| e.chain != slab::NONE).count() {
        return Err("an entry is in no list".to_owned());
    }
    // Whatever an object refers to is in the same snapshot.
    for (id, o) in tables.objects.iter() {
        let inner: Vec<ObjectId> = match o {
            Object::Group(g) => g.buckets.to_vec(),
            Object::Encap(e) => vec![e.carrier],
            Object::Plugin(p) => vec![p.next],
            _ => Vec::new(),
        };
        if inner.iter().any(|i| tables.objects.get(*i).is_none()) {
            return Err(format!("{id:?} refers to nothing: {o:?}"));
        }
    }
    // Each dependency is found again from the other end.
    let roots = r.paths.iter().map(|(id, p)| (Root::Path(id), &p.deps));
    for (root, deps) in roots.chain(r.facts.tunnels.iter().map(|(id, t)| (Root::Tunnel(*id), &t.deps))) {
        for dep in deps {
            let entered = match dep {
                crate::resolve::Dep::Port(p) => r.by_port.get(p).is_some_and(|s| s.contains(&root)),
                crate::resolve::Dep::NextHop(n) => r.by_next_hop.get(n).is_some_and(|s| s.contains(&root)),
                crate::resolve::Dep::Gateway(d, a, end) => {
                    let trackers = r.rib.domains.get(d).map(|d| &d.trackers);
                    trackers.and_then(|t| t.get(a)).and_then(|t| t.roots.get(&root)) == Some(end)
                }
            };
            if !entered {
                return Err(format!("{root:?} {dep:?}"));
            }
        }
    }
    Ok(())
}

/// The longest usable entry the slow way, against the FIB.
fn check_lookup(r: &Routing, table: TableId, dst: &IpAddr) -> Result<(), String> {
    let tables = &r.held.back().ok_or("nothing published")?.1;
    let longest = r
        .rib
        .entries
        .iter()
        .filter(|(_, e)| e.domain == crate::tables::domain_of(table) && e.dst.contains(dst))
        .filter_map(|(_, e)| Some((e.dst.prefix_len(), e.installed()?)))
        .max_by_key(|(len, _)| *len);
    let want = longest.map_or(ObjectId::NO_ROUTE, |(_, id)| id);
    let got = tables.lookup(table, dst);
    if got == want { Ok(()) } else { Err(format!("{dst}: {got:?}, should be {want:?}")) }
}

const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "20.0.0.0/8",
    "20.1.0.0/16",
    "20.1.1.0/24",
    "20.1.1.1/32",
    "21.0.0.0/8",
    "10.0.0.0/24",
    "::/0",
    "2001:db8:7::/48",
    "2001:db8:7:1::/64",
    "2001:db8:7:1::1/128",
    "198.51.100.7/32",
];
const HOPS: [&str; 16] = [
    "via 10.0.0.9",
    "via 10.0.1.9",
    "via 10.0.2.9",
    "via 2001:db8::9",
    "via fe80::9 dev lan1",
    "via 20.1.1.1",
    "via 20.0.0.1",
    "via 21.0.0.1",
    "via 2001:db8:7:1::1",
    "dev lan0",
    "dev tun0",
    "dev he",
    "dev he2",
    "nexthop via 10.0.0.9 nexthop via 20.1.1.1 weight 3",
    "nhid 1",
    "nhid 2",
];
const OPS: [&str; 8] = ["add", "add", "replace", "append", "prepend", "change", "del", "del"];

#[derive(Clone, Debug)]
enum Step {
    Route { op: usize, net: usize, hop: usize, metric: u32, table: usize },
    Kind { net: usize, metric: u32 },
    Link(u16, bool),
    Neighbor(usize, u8),
    Tunnel { second: bool, remote: usize },
    NextHop { id: u32, what: usize },
    Remove(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..OPS.len(), 0..NETS.len(), 0..HOPS.len(), 0u32..3, 0usize..8).prop_map(|(op, net, hop, metric, table)| {
            Step::Route { op, net, hop, metric, table }
        }),
        1 => (0..NETS.len(), 0u32..3).prop_map(|(net, metric)| Step::Kind { net, metric }),
        2 => (1u16..=4, any::<bool>()).prop_map(|(p, up)| Step::Link(p, up)),
        2 => (0usize..4, 0u8..4).prop_map(|(n, what)| Step::Neighbor(n, what)),
        1 => (any::<bool>(), 0usize..4).prop_map(|(second, remote)| Step::Tunnel { second, remote }),
        1 => (1u32..4, 0usize..5).prop_map(|(id, what)| Step::NextHop { id, what }),
        1 => (1u16..=5).prop_map(Step::Remove),
    ]
}

fn ports() -> Vec<PortInfo> {
    let mut he = port(HE, "he", Medium::Ip, &["2001:db8:ffff::2/64"]);
    let mut he2 = port(PortId(5), "he2", Medium::Ip, &[]);
    (he.kind, he2.kind) = (PortKind::Tunnel, PortKind::Tunnel);
    vec![
        port(LAN0, "lan0", Medium::Ethernet, &["10.0.0.1/24", "2001:db8::1/64", "fe80::1/64"]),
        port(LAN1, "lan1", Medium::Ethernet, &["10.0.1.1/24", "fe80::2/64"]),
        port(TUN0, "tun0", Medium::Ip, &["10.0.2.1/24"]),
        he,
        he2,
    ]
}

fn carry_out(r: &mut Routing, step: &Step) {
    match step {
        Step::Route { op, net, hop, metric, table } => {
            let table = if *table == 0 { "table 10" } else { "" };
            let metric = if *metric == 0 { String::new() } else { format!("metric {metric}") };
            let spec = spec(&format!("{} {} {metric} {table}", NETS[*net], HOPS[*hop]));
            let op = match OPS[*op] {
                "add" => RouteOp::Add,
                "replace" => RouteOp::Replace,
                "append" => RouteOp::Append,
                "prepend" => RouteOp::Prepend,
                "change" => RouteOp::Change,
                _ => RouteOp::Delete,
            };
            let _ = r.route(op, &spec);
        }
        Step::Kind { net, metric } => {
            let kind = ["blackhole", "throw", "prohibit"][net % 3];
            let _ = r.route(RouteOp::Add, &spec(&format!("{kind} {} metric {metric}", NETS[*net])));
        }
        Step::Link(p, up) => {
            let old = r.facts.port(PortId((*p).into())).cloned();
            let fresh = ports().into_iter().find(|i| i.id == PortId((*p).into()));
            let info = old.map(|o| PortInfo::clone(&o)).or(fresh);
            if let Some(mut info) = info {
                info.up = *up;
                info.mtu = if *up { 1500 } else { 1400 };
                r.set_port(Arc::new(info));
            }
        }
        Step::Neighbor(n, what) => {
            let (port, addr) = [(LAN0, "10.0.0.9"), (LAN1, "10.0.1.9"), (LAN0, "2001:db8::9"), (LAN1, "fe80::9")][*n];
            let addr = addr.parse().unwrap();
            match what {
                0 => r.set_neighbor(port, addr, None),
                1 => r.set_neighbor(port, addr, Some((MacAddr([2; 6]), Arc::default()))),
                2 => r.neighbor_failed(port, addr, true),
                _ => r.neighbor_failed(port, addr, false),
            }
        }
        Step::Tunnel { second, remote } => {
            let remote = ["198.51.100.7", "20.1.1.1", "10.0.0.77", "21.0.0.9"][*remote];
            r.set_tunnel(if *second { PortId(5) } else { HE }, encap(remote));
        }
        Step::NextHop { id, what } => {
            use crate::spec::{NextHopKind, NextHopSpec};
            let hop = |via: &str, dev: &str| {
                NextHopKind::Hop(HopSpec { via: via.parse().ok(), dev: Some(dev.into()), weight: 1, onlink: false })
            };
            let kind = match what {
                0 | 1 => hop("10.0.0.9", "lan0"),
                2 => hop("fe80::9", "lan1"),
                3 => NextHopKind::Blackhole,
                _ => NextHopKind::Group(vec![(1, 1), (3, 2)]),
            };
            let op = if *what == 1 { RouteOp::Delete } else { RouteOp::Replace };
            let _ = r.next_hop(op, &NextHopSpec::new(*id, kind));
        }
        Step::Remove(p) => r.remove_port(PortId((*p).into())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn stays_consistent_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let mut r = Routing::new(3);
        ports().into_iter().for_each(|p| r.set_port(Arc::new(p)));
        r.set_tunnel(HE, encap("198.51.100.7"));
        settle(&mut r);
        let probes: Vec<IpAddr> = NETS.iter().map(|n| parse_prefix(n).unwrap().addr()).collect();
        // Workers that hold snapshots for a while.
        let mut workers: VecDeque<RoutingTables> = VecDeque::new();
        for (i, step) in steps.iter().enumerate() {
            carry_out(&mut r, step);
            r.commit(|t| workers.push_back(t));
            while workers.len() > i % 5 {
                workers.pop_front();
            }
            check(&r).map_err(|e| TestCaseError::fail(format!("after {step:?}: {e}")))?;
            for (table, dst) in probes.iter().flat_map(|d| [(TableId::MAIN, d), (TableId(10), d)]) {
                check_lookup(&r, table, dst).map_err(TestCaseError::fail)?;
            }
        }
        // Everything goes away again.
        drop(workers);
        (1..=5).for_each(|p| r.remove_port(PortId(p)));
        r.flush(&RouteFilter::default());
        for id in 1..4 {
            r.remove_next_hop(id);
        }
        for _ in 0..3 {
            settle(&mut r);
        }
        let end = r.stats();
        prop_assert_eq!((end.prefixes, end.paths, end.chains, end.objects), (0, 0, 0, 6));
        // A few FIB nodes may wait for the next snapshot, which nobody makes for their sake alone.
        prop_assert_eq!((end.snapshots_held, r.objects.waiting()), (1, 0));
        prop_assert!(end.quarantined < 64, "{end:?}");
        prop_assert!(r.by_port.is_empty() && r.by_next_hop.is_empty());
        prop_assert_eq!(r.rib.domains.len(), 1);
        prop_assert!(r.rib.domains.values().all(|d| d.trackers.is_empty()));
    }
}

#[test]
fn a_commit_publishes_objects_before_entries() {
    let mut r = lab();
    let old = r.held.back().unwrap().1.clone();
    let dst = "20.0.0.1".parse().unwrap();
    r.route(RouteOp::Add, &spec("20.0.0.0/8 via 10.0.0.9")).unwrap();
    assert_eq!(old.lookup(TableId::MAIN, &dst), ObjectId::NO_ROUTE);
    let new = r.prepare().unwrap();
    assert_eq!(old.lookup(TableId::MAIN, &dst), ObjectId::NO_ROUTE);
    // Another change in between: nothing is written until its objects are published too.
    r.route(RouteOp::Add, &spec("21.0.0.0/8 via 10.0.0.10")).unwrap();
    assert!(r.apply());
    assert_eq!(new.lookup(TableId::MAIN, &dst), ObjectId::NO_ROUTE);
    let newer = r.prepare().unwrap();
    assert!(!r.apply());
    // The old snapshot sees the entry but not the object: that worker takes the newest.
    let id = old.lookup(TableId::MAIN, &dst);
    assert!(old.objects.get(id).is_none() && new.objects.get(id).is_some() && newer.objects.get(id).is_some());
    assert!(!r.pending() && r.prepare().is_none());
}

#[test]
fn numbers_are_not_reused_while_an_old_snapshot_is_held() {
    let mut r = lab();
    ip(&mut r, "add 20.0.0.0/8 via 10.0.0.9").unwrap();
    let worker = r.held.back().unwrap().1.clone();
    let id = worker.lookup(TableId::MAIN, &"20.0.0.1".parse().unwrap());
    ip(&mut r, "del 20.0.0.0/8").unwrap();
    for i in 0..20 {
        ip(&mut r, &format!("add 20.{i}.0.0/16 via 10.0.0.{}", i + 2)).unwrap();
        let now = r.held.back().unwrap().1.lookup(TableId::MAIN, &format!("20.{i}.0.1").parse().unwrap());
        assert_ne!(now, id);
    }
    assert!(matches!(worker.objects.get(id), Some(Object::Incomplete(_))));
    assert!(r.stats().snapshots_held >= 2 && r.stats().quarantined > 0);
    drop(worker);
    ip(&mut r, "add 30.0.0.0/8 via 10.0.0.100").unwrap();
    ip(&mut r, "add 31.0.0.0/8 via 10.0.0.101").unwrap();
    assert_eq!(r.stats().quarantined, 0);
    let reused = ["30.0.0.1", "31.0.0.1"].map(|d| r.held.back().unwrap().1.lookup(TableId::MAIN, &d.parse().unwrap()));
    assert!(reused.contains(&id));
}

/// Workers on other threads look up two prefixes whose objects are replaced all the time, so that numbers and nodes go
/// from one to the other. None of them may ever see the other's object, or nothing.
#[test]
fn workers_never_see_a_foreign_object() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let mut r = lab();
    ip(&mut r, "add 20.0.0.0/8 via 10.0.0.2").unwrap();
    ip(&mut r, "add 21.0.0.0/8 via 10.0.1.2").unwrap();
    let newest = Mutex::new(r.held.back().unwrap().1.clone());
    let stop = AtomicBool::new(false);
    let worker = |patience: u32| {
        let (mut lookups, mut reloads) = (0u64, 0u64);
        let mut mine = newest.lock().unwrap().clone();
        while !stop.load(Relaxed) {
            for i in 0..patience {
                let (dst, port) = [([20, 1, 2, 3], LAN0), ([21, 1, 2, 3], LAN1)][i as usize % 2];
                let found = loop {
                    let id = mine.lookup(TableId::MAIN, &IpAddr::from(dst));
                    match mine.objects.get(id) {
                        Some(o) => break o.clone(),
                        None => {
                            reloads += 1;
                            mine = newest.lock().unwrap().clone();
                        }
                    }
                };
                assert!(matches!(found, Object::Incomplete(i) if i.port == port), "{found:?}");
                lookups += 1;
            }
            mine = newest.lock().unwrap().clone();
        }
        drop(mine);
        (lookups, reloads)
    };
    /// Ends the workers also when this thread fails.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let running = StopOnDrop(&stop);
        let workers = [1000, 7].map(|p| scope.spawn(move || worker(p)));
        for i in 0..10_000u32 {
            let (host, more) = (i % 200 + 3, i % 3);
            r.route(RouteOp::Replace, &spec(&format!("20.0.0.0/8 via 10.0.0.{host}"))).unwrap();
            if more == 0 {
                // A longer prefix comes and goes: nodes are made and retired.
                let op = if i % 2 == 0 { RouteOp::Add } else { RouteOp::Delete };
                let _ = r.route(op, &spec("20.1.2.0/24 via 10.0.0.250"));
            }
            r.commit(|t| *newest.lock().unwrap() = t);
            r.route(RouteOp::Replace, &spec(&format!("21.0.0.0/8 via 10.0.1.{host}"))).unwrap();
            r.commit(|t| *newest.lock().unwrap() = t);
            // On a busy machine a worker may not run for a while: wait for it, so that numbers do get reused.
            let start = std::time::Instant::now();
            while i % 64 == 0 && r.stats().quarantined > 300 {
                assert!(start.elapsed().as_secs() < 60, "a worker stands still");
                std::thread::yield_now();
                r.commit(|t| *newest.lock().unwrap() = t);
            }
        }
        drop(running);
        for w in workers {
            let (lookups, _) = w.join().unwrap();
            assert!(lookups > 0);
        }
    });
    // Without reuse there would be 20,000 numbers.
    let highest = r.held.back().unwrap().1.objects.iter().map(|(id, _)| id.0).max().unwrap();
    assert!(highest < 2000, "{highest}");
}

#[test]
fn many_changes_are_written_in_slices() {
    let mut r = lab();
    let n = APPLY_SLICE as u32 + 1000;
    for i in 0..n {
        let dst = ipnet::Ipv4Net::new_assert((0x2000_0000 + (i << 8)).into(), 24);
        let mut s = spec("1.0.0.0/8 via 10.0.1.9");
        s.dst = dst.into();
        r.route(RouteOp::Add, &s).unwrap();
    }
    assert!(r.prepare().is_some());
    assert!(r.apply());
    assert!(r.pending());
    // Nothing new to see, but so many replaced FIB nodes that they are worth a snapshot.
    assert!(!r.objects.changed() && r.memory.waiting() > NODES_WORTH_A_SNAPSHOT);
    assert!(r.prepare().is_some());
    assert!(!r.apply());
    // All on one object: a link that fails is one change at once, and the entries follow in slices.
    assert_eq!(r.stats().paths, lab().stats().paths + 1);
    let last = "32.0.0.1".parse().unwrap();
    set_up(&mut r, LAN1, false);
    let t = r.prepare().unwrap();
    assert_eq!(describe(&r, &t, t.lookup(TableId::MAIN, &last)), "next_hop_unusable");
    assert!(r.apply());
    settle(&mut r);
    assert_eq!(found(&r, "32.0.0.1"), "no_route");
}

/// The full tables through the whole control plane, where they are present.
#[test]
fn holds_the_full_tables() {
    use crate::fib::full_table_tests::full_table;
    let (Some(four), Some(six)) = (full_table("bgp-ipv4.txt.gz"), full_table("bgp-ipv6.txt.gz")) else { return };
    let mut r = lab();
    let base = r.stats();
    let start = std::time::Instant::now();
    for (net, hop) in four.iter().chain(&six) {
        let mut s = RouteSpec::new(*net);
        let via = if hop % 2 == 0 {
            IpAddr::from([10, 0, 0, *hop as u8])
        } else {
            format!("2001:db8::{hop:x}").parse().unwrap()
        };
        s.hops.push(HopSpec { via: Some(via), weight: 1, ..HopSpec::default() });
        match r.route(RouteOp::Add, &s) {
            Ok(()) => {}
            // Our own address is among the gateways.
            Err(RouteError::OwnGateway { .. } | RouteError::InvalidGateway { why: GatewayFault::Own, .. }) => {
                s.hops[0].via = "2001:db8::fff".parse().ok();
                r.route(RouteOp::Add, &s).unwrap();
            }
            Err(e) => panic!("{net}: {e}"),
        }
    }
    let added = start.elapsed();
    settle(&mut r);
    let stats = r.stats();
    eprintln!("{} prefixes: RIB {added:?}, with FIB {:?}; {stats:?}", stats.prefixes, start.elapsed());
    assert_eq!(stats.prefixes, base.prefixes + four.len() + six.len());
    assert_eq!(stats.objects, base.objects + 255);
    let start = std::time::Instant::now();
    learn(&mut r, LAN0, "10.0.0.44", 44);
    eprintln!("a neighbour of some 4,000 routes changes in {:?}", start.elapsed());
    assert!(found(&r, "1.0.4.1").starts_with("forward lan0 10.0.0.44"));
    let start = std::time::Instant::now();
    set_up(&mut r, LAN0, false);
    let t = r.prepare().unwrap();
    eprintln!("the link of all routes fails in {:?}", start.elapsed());
    assert_eq!(describe(&r, &t, t.lookup(TableId::MAIN, &"1.0.4.1".parse().unwrap())), "next_hop_unusable");
    drop(t);
    settle(&mut r);
    eprintln!("and its routes have left the FIB after {:?}", start.elapsed());
    assert_eq!(found(&r, "1.0.4.1"), "no_route");
}

/// A broker's worth of tunnels: work per tunnel must not grow with their number.
#[test]
fn thousands_of_tunnels() {
    let mut r = lab();
    ip(&mut r, "add 100.64.0.0/16 via 10.0.0.9").unwrap();
    let start = std::time::Instant::now();
    let n = 3000u32;
    for i in 0..n {
        let id = PortId(100 + i);
        let mut info =
            port(id, &format!("t{i}"), Medium::Ip, &[&format!("2001:db8:{i:x}:f::1/64"), &format!("fe80::{i:x}:1/64")]);
        info.kind = PortKind::Tunnel;
        r.set_port(Arc::new(info));
        r.set_tunnel(id, encap(&std::net::Ipv4Addr::from(0x6440_0001 + i).to_string()));
    }
    settle(&mut r);
    eprintln!("{n} tunnels in {:?}", start.elapsed());
    assert_eq!(found(&r, "2001:db8:abc:f::9"), "encap t2748 [incomplete lan0 10.0.0.9]");
    let start = std::time::Instant::now();
    learn(&mut r, LAN0, "10.0.0.9", 9);
    eprintln!("their neighbour is found in {:?}", start.elapsed());
    assert!(found(&r, "2001:db8:abc:f::9").starts_with("encap t2748 [forward lan0"));
    let start = std::time::Instant::now();
    ip(&mut r, "replace 100.64.0.0/16 via 10.0.1.9").unwrap();
    eprintln!("their underlay route changes in {:?}", start.elapsed());
    assert_eq!(found(&r, "2001:db8:abc:f::9"), "encap t2748 [incomplete lan1 10.0.1.9]");
}
