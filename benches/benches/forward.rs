//! Forwarding in memory: nanoseconds per packet from a received frame to a frame ready for its egress port, one core, and
//! the proof that the fast path does not allocate: the bench fails at the first allocation.
//!
//! `cargo bench --bench forward`; `-- --test` runs everything once, shortly.

use benches::measure::per_item;
use benches::table::{self, Table};
use benches::traffic;
use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Instant;
use router_core::worker::{Fixed, MAX_BATCH, Outbox, Worker};
use router_io::counting_alloc::CountingAlloc;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

const IN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn addr(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A router with port `in`, port `out` with 255 resolved gateways of each family, and a tunnel.
struct Bed {
    router: Router,
    out: Outbox,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        let now = Instant::from_millis(1);
        let counters = Arc::new(WorkerCounters::new(8));
        let mut bed = Bed {
            router: Router::new(Settings::default(), 1, counters),
            out: Outbox::new(8, FramePool::new(16, 2048)),
            now,
        };
        bed.port("in", IN_MAC, &["192.0.2.1/24", "2001:db8::1/64"]);
        bed.port("out", MacAddr([2, 0, 0, 0, 1, 1]), &["100.64.0.1/16", "fd00::1/64"]);
        let out = bed.router.ports().by_name("out").expect("port").id;
        for hop in 1..=255u8 {
            let lladdr = Some(MacAddr([2, 0, 0, 0, 2, hop]));
            for addr in [gateway(false, hop), gateway(true, hop)] {
                let spec = NeighSpec { addr, dev: "out".into(), lladdr, state: None, router: true };
                let set = bed.router.set_neighbor(now, out, SetMode::Replace, &spec, &mut bed.out);
                assert!(set.is_ok(), "{set:?}");
            }
        }
        bed.commit();
        bed
    }

    fn port(&mut self, name: &str, mac: MacAddr, addrs: &[&str]) {
        let info = PortInfo {
            id: PortId::NONE,
            name: name.into(),
            ifindex: 0,
            kind: PortKind::Memory,
            medium: Medium::Ethernet,
            mac: Some(mac),
            mtu: 1500,
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs: addrs.iter().map(|a| a.parse().expect("address")).collect(),
        };
        self.router.add_port(self.now, info).expect("port");
    }

    fn route(&mut self, dst: ipnet::IpNet, via: Option<IpAddr>, dev: Option<&str>) {
        let mut spec = RouteSpec::new(dst);
        spec.hops.push(HopSpec { via, dev: dev.map(str::to_owned), weight: 1, onlink: false });
        let done = self.router.routing_mut().route(RouteOp::Replace, &spec);
        assert!(done.is_ok(), "{dst}: {done:?}");
    }

    fn load(&mut self, table: &Table) {
        for (dst, hop) in table {
            self.route(*dst, Some(gateway(matches!(dst, ipnet::IpNet::V6(_)), *hop)), None);
        }
        self.commit();
    }

    fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    fn tunnel(&mut self) {
        self.route("198.51.100.9/32".parse().expect("prefix"), Some(gateway(false, 1)), None);
        let spec = TunnelSpec {
            name: "t0".into(),
            mode: TunnelMode::SixInFour,
            local: addr("192.0.2.1"),
            remote: addr("198.51.100.9"),
            ttl: None,
            ttl_inherit: false,
            tos: None,
            nopmtudisc: false,
            mtu: None,
            dev: None,
            underlay_table: None,
        };
        self.router.add_tunnel(self.now, spec, vec![]).expect("tunnel");
        self.route("2001:db8:1::/48".parse().expect("prefix"), None, Some("t0"));
        self.commit();
    }
}

fn gateway(v6: bool, hop: u8) -> IpAddr {
    if v6 { addr(&format!("fd00::2:{hop:x}")) } else { addr(&format!("100.64.2.{hop}")) }
}

/// Measures one path and prints its row.
fn row(what: &str, bed: &Bed, packets: &[Vec<u8>], runs: usize, time: Duration) {
    let counters = Arc::new(WorkerCounters::new(8));
    let mut worker = Worker::new(Arc::clone(&counters), 1);
    let mut source = Fixed(bed.router.tables());
    // More frames than a batch in rotation, so that buffers are as cold as a port's.
    let mut out = Outbox::new(8, FramePool::new(8 * MAX_BATCH, 2048));
    (0..8).for_each(|port| out.make_room(PortId(port)));
    let mut batch: Vec<Frame> = Vec::with_capacity(MAX_BATCH);
    let mut next = 0;
    let mut fill = |out: &mut Outbox, batch: &mut Vec<Frame>| {
        while batch.len() < MAX_BATCH {
            let Some(mut frame) = out.pool.take() else { break };
            frame.set_data(&packets[next]);
            next = (next + 1) % packets.len();
            batch.push(frame);
        }
    };
    let drain = |out: &mut Outbox| {
        for queue in &mut out.tx {
            while let Some(f) = queue.pop() {
                out.pool.put(f);
            }
        }
    };
    let copy = per_item(runs, time, || {
        fill(&mut out, &mut batch);
        let n = batch.len();
        while let Some(f) = batch.pop() {
            out.pool.put(f);
        }
        n
    });
    let mut allocations = 0;
    let all = per_item(runs, time, || {
        fill(&mut out, &mut batch);
        let n = batch.len();
        let before = ALLOC.allocations() + ALLOC.frees();
        worker.process(bed.now, &mut source, PortId(1), &mut batch, &mut out);
        allocations += ALLOC.allocations() + ALLOC.frees() - before;
        drain(&mut out);
        n
    });
    let totals = Totals::sum([&*counters]);
    totals.check().expect("conservation law");
    assert_eq!(totals.transmitted, totals.received, "{what}: {totals:?}");
    assert_eq!(allocations, 0, "{what}: the fast path allocated");
    let net = |x: f64| x - copy.median;
    println!(
        "{what:<44} {:>7.1} {:>7.1} {:>7.1}   {:>6.2} Mpps",
        net(all.min),
        net(all.median),
        net(all.max),
        1e3 / net(all.median)
    );
}

fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let (runs, time) = if quick { (1, Duration::from_millis(5)) } else { (5, Duration::from_millis(300)) };
    println!("{:<44} {:>7} {:>7} {:>7}   ns per packet, input copy not counted", "path", "min", "median", "max");
    let small = {
        let mut bed = Bed::new();
        bed.route("203.0.113.0/24".parse().expect("prefix"), Some(gateway(false, 1)), None);
        bed.route("203.0.114.0/24".parse().expect("prefix"), Some(gateway(true, 1)), None);
        bed.route("2001:db8:2::/48".parse().expect("prefix"), Some(gateway(true, 1)), None);
        bed.tunnel();
        bed
    };
    let one = |dst: &str| vec![traffic::udp(addr(dst), HOST_MAC.0, IN_MAC.0)];
    row("IPv4, one route", &small, &one("203.0.113.7"), runs, time);
    row("IPv4 via IPv6 next hop, one route", &small, &one("203.0.114.7"), runs, time);
    row("IPv6, one route", &small, &one("2001:db8:2::7"), runs, time);
    row("6in4 encapsulate", &small, &one("2001:db8:1::7"), runs, time);
    let inner = traffic::udp(addr("2001:db8:2::7"), HOST_MAC.0, IN_MAC.0);
    let mut outer = traffic::udp(addr("192.0.2.1"), HOST_MAC.0, IN_MAC.0);
    outer.truncate(34);
    outer.extend(&inner[14..]);
    let len = (outer.len() - 14) as u16;
    outer[16..18].copy_from_slice(&len.to_be_bytes());
    outer[23] = 41;
    outer[26..30].copy_from_slice(&[198, 51, 100, 9]);
    router_core::checksum::fill_ipv4_header(&mut outer[14..]);
    row("6in4 decapsulate", &small, &[outer], runs, time);

    let (v4, v6) = match table::full() {
        Some(tables) if !quick => tables,
        _ => {
            println!(
                "(the real full table is not beside this checkout, or --test: synthetic tables of 100,000 routes)"
            );
            (table::synthetic_v4(100_000, 4), table::synthetic_v6(100_000, 6))
        }
    };
    let mut bed = Bed::new();
    for table in [&v4, &v6] {
        let (start, before) = (std::time::Instant::now(), ALLOC.bytes_in_use());
        bed.load(table);
        let seconds = start.elapsed().as_secs_f64();
        let stats = bed.router.routing().stats();
        println!(
            "loaded {} routes in {seconds:.2} s ({:.0} per second), {} MiB more in use, FIBs together {} MiB",
            table.len(),
            table.len() as f64 / seconds,
            (ALLOC.bytes_in_use() - before) >> 20,
            stats.fib_bytes >> 20
        );
    }
    for (family, table) in [("IPv4", &v4), ("IPv6", &v6)] {
        for n in [1_000, 1 << 20] {
            let n = if quick { n.min(4096) } else { n };
            let packets: Vec<_> =
                traffic::per_route(table, n, 7).into_iter().map(|d| traffic::udp(d, HOST_MAC.0, IN_MAC.0)).collect();
            row(&format!("{family}, {} routes, {n} destinations", table.len()), &bed, &packets, runs, time);
        }
    }
}
