//! Random routers with all forwarders: tables, tunnels, translators, neighbours, and where packets go to.

use crate::{Outcome, SEED, forget_numbers, framed, is_question};
use ipnet::IpNet;
use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::drop_reason::DropReason;
use router_core::explain::Bytes;
use router_core::forward::{Context, Forwarder, Verdict};
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::packet::Packet;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, NudState, RouteKind, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::{Duration, Instant};
use router_core::translate::{TranslateMode, TranslatorSpec, UdpZero};
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testbeds::sim::packets;

pub const MAX_PORTS: usize = 16;

/// Splitmix64: the same packets in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A forwarder with state: it must not change when a packet is only an example.
#[derive(Debug, Default)]
pub struct Counting(pub AtomicU64);

impl Forwarder for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn decide(&self, cx: &Context<'_>, packet: &Packet, _bytes: &[u8]) -> Verdict {
        if !cx.rehearsal {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        match packet.len % 3 {
            0 => Verdict::Drop(DropReason::PluginDrop),
            1 if packet.len > 1000 => Verdict::TooBig { mtu: 1000 },
            _ => Verdict::Continue(cx.next),
        }
    }

    fn apply(&self, _cx: &Context<'_>, _packet: &Packet, _frame: &mut Frame) -> Result<(), DropReason> {
        Ok(())
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub fn port(name: &str, kind: PortKind, medium: Medium, mtu: u32, n: u8, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id: PortId::NONE,
        name: name.into(),
        ifindex: 0,
        kind,
        medium,
        mac: (medium == Medium::Ethernet).then_some(MacAddr([2, 0, 0, 0, 0xff, n])),
        mtu,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| router_core::addr::parse_interface_addr(a).expect("address")).collect(),
    }
}

pub struct Bench {
    pub router: Router,
    pub control: Arc<WorkerCounters>,
    pub out: Outbox,
    pub now: Instant,
    pub plugin: Arc<Counting>,
}

/// Where the packets go: on links, behind gateways, to the router, to nowhere.
pub const DESTINATIONS: &[&str] = &[
    "192.0.2.1",
    "192.0.2.9",
    "192.0.2.10",
    "192.0.2.11",
    "192.0.2.255",
    "198.51.100.7",
    "198.51.100.1",
    "203.0.113.5",
    "10.0.0.1",
    "10.1.2.3",
    "10.2.3.4",
    "10.3.4.5",
    "10.4.5.6",
    "10.5.6.7",
    "10.6.7.8",
    "10.7.8.9",
    "172.16.0.1",
    "255.255.255.255",
    "224.0.0.5",
    "239.1.1.1",
    "127.0.0.1",
    "0.0.0.1",
    "169.254.3.4",
    "192.88.99.1",
    "2001:db8:1::1",
    "2001:db8:1::9",
    "2001:db8:1::a",
    "2001:db8:2::22",
    "2001:db8:a::1",
    "2001:db8:b::2",
    "2001:db8:c::3",
    "2001:db8:d::4",
    "2001:db8:e::5",
    "2001:db8:f::6",
    "2001:db8:ffff::1",
    "2001:db8:ffff::2",
    "ff02::1",
    "ff05::1",
    "fe80::1",
    "::1",
    "::",
    "::ffff:192.0.2.1",
    "2600::1",
    // Behind translators: of either family, mapped and embedded, with sessions and without.
    "10.64.0.5",
    "10.64.0.6",
    "100.64.0.9",
    "203.0.114.1",
    "203.0.114.2",
    "2001:db8:46::c000:209",
    "2001:db8:46::a01:203",
    "2001:db8:64::c000:209",
    "2001:db8:64::c633:6401",
    "2001:db8:64::a01:203",
    "2001:db8:c::464",
];
pub const SOURCES: &[&str] = &[
    "192.0.2.9",
    "192.0.2.10",
    "198.51.100.1",
    "203.0.113.5",
    "203.0.113.6",
    "10.9.9.9",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "169.254.1.1",
    "192.0.2.1",
    "2001:db8:1::9",
    "2001:db8:1::a",
    "2001:db8:77::7",
    "fe80::9",
    "::",
    "::1",
    "ff02::1",
    "2001:db8:1::1",
    "::ffff:10.0.0.1",
    "10.64.0.5",
    "192.0.0.2",
    "2001:db8:46::a01:203",
    "2001:db8:5::5",
    "2001:db8:65::c000:209",
];
pub const PREFIXES: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.2.0.0/16",
    "10.3.0.0/16",
    "10.4.0.0/16",
    "10.5.0.0/16",
    "10.6.0.0/16",
    "10.7.8.0/24",
    "172.16.0.0/12",
    "203.0.113.0/24",
    "192.88.99.0/24",
    "::/0",
    "2001:db8:a::/48",
    "2001:db8:b::/48",
    "2001:db8:c::/48",
    "2001:db8:d::/48",
    "2001:db8:e::/48",
    "2001:db8:f::/48",
    "2001:db8:a::/64",
];
/// Gateways: resolved, unknown, silent, recursive, behind the tunnel.
pub const GATEWAYS: &[&str] = &[
    "192.0.2.9",
    "192.0.2.10",
    "198.51.100.1",
    "2001:db8:2::22",
    "2001:db8:2::23",
    "2001:db8:1::9",
    "2001:db8:1::a",
    "10.1.2.3",
    "10.2.0.1",
    "2001:db8:a::1",
    "2001:db8:ffff::1",
];

/// The source port of packets that have a session.
pub const SESSION_PORT: u16 = 4000;

/// One of each kind, with random habits.
pub fn translators(rng: &mut Rng) -> Vec<TranslatorSpec> {
    let mut spec = |name: &str, mode, prefix: &str| {
        let mut s = TranslatorSpec::new(name, mode);
        s.prefix = Some(prefix.parse().expect("prefix"));
        s.ipv6_mtu = rng.pick(&[1280, 1500]);
        s.ignore_tos = rng.one_in(3);
        s.udp_zero_checksum = rng.pick(&[UdpZero::Compute, UdpZero::Drop]);
        if rng.one_in(2) {
            s.error_source = vec![ip("203.0.114.77"), ip("2001:db8:e0::1")];
        }
        s
    };
    let mut siit = spec("siit", TranslateMode::Siit, "2001:db8:46::/96");
    siit.map =
        vec!["10.64.0.5 = 2001:db8:a::1".parse().expect("map"), "10.64.0.6 = 2001:db8:1::9".parse().expect("map")];
    let mut nat64 = spec("nat64", TranslateMode::Nat64, "2001:db8:64::/96");
    nat64.pool = vec!["203.0.114.1-203.0.114.2".parse().expect("pool")];
    nat64.max_sessions = 24;
    let mut clat = spec("clat", TranslateMode::Clat, "2001:db8:65::/96");
    clat.map = vec!["192.0.0.2 = 2001:db8:c::464".parse().expect("map")];
    vec![siit, nat64, clat]
}

impl Bench {
    /// A router with ports of all kinds and random routes.
    pub fn new(rng: &mut Rng) -> Bench {
        let control = Arc::new(WorkerCounters::new(MAX_PORTS));
        let settings = Settings { max_tunnel_nesting: rng.below(4) as u8, ..Settings::default() };
        let mut router = Router::new(settings, SEED, control.clone());
        let mut now = Instant::from_millis(1000);
        let mut out = Outbox::new(MAX_PORTS, FramePool::new(256, 4096));
        let ethernet =
            |n: u8, name: &str, mtu, addrs: &[&str]| port(name, PortKind::Memory, Medium::Ethernet, mtu, n, addrs);
        let mut list = vec![
            ethernet(1, "lan0", 1500, &["192.0.2.1/24", "2001:db8:1::1/64"]),
            ethernet(2, "core0", rng.pick(&[1500, 1400, 1280]), &["2001:db8:2::1/64"]),
            ethernet(3, "wan0", rng.pick(&[1500, 576]), &["198.51.100.7/24"]),
            port("tun0", PortKind::Tun, Medium::Ip, 1400, 4, &["10.255.0.1/30"]),
            port("raw0", PortKind::RawIp, Medium::Ip, 1500, 5, &["198.51.100.77/32"]),
            ethernet(6, "vrf0", 1500, &["192.0.2.1/24"]),
        ];
        list[1].vlan = rng.one_in(3).then_some(7);
        list[2].caps = PortCaps {
            partial_checksum: rng.one_in(2),
            tso: rng.one_in(2),
            uso: rng.one_in(2),
            tunnels: rng.one_in(2),
        };
        list[5].table = TableId(100);
        for info in list {
            router.add_port(now, info).expect("port");
        }
        let tunnel = |name: &str, remote: &str, rng: &mut Rng| TunnelSpec {
            name: name.into(),
            mode: TunnelMode::SixInFour,
            local: ip("198.51.100.7"),
            remote: ip(remote),
            ttl: rng.one_in(2).then_some(33),
            ttl_inherit: rng.one_in(3),
            tos: rng.one_in(3).then_some(0x20),
            nopmtudisc: rng.one_in(3),
            mtu: rng.one_in(3).then_some(1300),
            dev: None,
            underlay_table: None,
            options: Default::default(),
        };
        for (name, remote, addr) in
            [("he", "203.0.113.5", "2001:db8:ffff::2/64"), ("far", "10.1.2.99", "2001:db8:fffe::2/64")]
        {
            let spec = tunnel(name, remote, rng);
            let addr: IpNet = router_core::addr::parse_interface_addr(addr).expect("address");
            router.add_tunnel(now, spec, vec![addr]).expect("tunnel");
        }
        for spec in translators(rng) {
            router.add_translator(now, spec).expect("translator");
        }
        for (dst, dev) in [
            ("2001:db8:46::/96", "siit"),
            ("10.64.0.0/24", "siit"),
            ("2001:db8:64::/96", "nat64"),
            ("203.0.114.0/30", "nat64"),
            ("100.64.0.0/16", "clat"),
            ("2001:db8:c::464/128", "clat"),
            // The other end of the CLAT's way.
            ("2001:db8:65::/96", "core0"),
        ] {
            let mut spec = RouteSpec::new(dst.parse().expect("prefix"));
            spec.hops.push(HopSpec { via: None, dev: Some(dev.into()), weight: 1, onlink: false });
            router.routing_mut().route(RouteOp::Add, &spec).expect("route");
        }
        let plugin = Arc::new(Counting::default());
        router.routing_mut().register_forwarder(plugin.clone());
        // Some neighbours are known, some have been asked in vain.
        for (dev, addr) in [
            ("lan0", "192.0.2.9"),
            ("lan0", "2001:db8:1::9"),
            ("core0", "2001:db8:2::22"),
            ("wan0", "198.51.100.1"),
            ("vrf0", "192.0.2.9"),
        ] {
            let id = router.ports().by_name(dev).expect("port").id;
            let spec = NeighSpec {
                addr: ip(addr),
                dev: dev.into(),
                lladdr: Some(MacAddr([2, 0, 0, 0, 1, addr.len() as u8])),
                state: None,
                router: false,
            };
            router.set_neighbor(now, id, SetMode::Replace, &spec, &mut out).expect("neighbour");
        }
        let mut bench = Bench { router, control, out, now, plugin };
        bench.random_routes(rng);
        bench.commit();
        for (dev, dst) in [("lan0", "192.0.2.10"), ("lan0", "2001:db8:1::a")] {
            bench.ask(dev, dst);
        }
        // Gateways may be asked for again and again: it is these two that must have failed.
        let asked = [ip("192.0.2.10"), ip("2001:db8:1::a")];
        let failed = |b: &Bench| {
            let all = b.router.neighbors();
            asked.iter().all(|a| all.iter().any(|n| n.addr == *a && n.state == NudState::Failed))
        };
        while !failed(&bench) {
            assert!(now < Instant::from_millis(60_000), "{:?}", bench.router.neighbors());
            now = now + Duration::from_millis(500);
            bench.now = now;
            bench.router.poll(now, &mut bench.out);
        }
        if rng.one_in(4) {
            let id = bench.router.ports().by_name("core0").expect("port").id;
            bench.router.set_link(now, id, None, Some(false), &mut bench.out).expect("link");
        }
        bench.router.poll(now, &mut bench.out);
        bench.commit();
        bench.open_sessions(rng);
        bench.empty();
        bench
    }

    /// Packets through the NAT64 whose sessions the control side makes.
    pub fn open_sessions(&mut self, rng: &mut Rng) {
        let id = self.router.ports().by_name("lan0").expect("port").id;
        let mut worker = Worker::new(Arc::new(WorkerCounters::new(MAX_PORTS)), SEED);
        for src in ["2001:db8:1::9", "2001:db8:1::a", "2001:db8:5::5"] {
            for dst in ["2001:db8:64::c000:209", "2001:db8:64::c633:6401", "2001:db8:64::a01:203"] {
                let packet = match rng.below(3) {
                    0 => packets::echo(ip(src), ip(dst), 1, 64, false, b"first"),
                    _ => packets::udp(ip(src), ip(dst), (SESSION_PORT, 53), 64, false, b"first"),
                };
                let frame = Frame::from_slice(&framed(&self.router, id, &packet));
                let tables = self.router.tables();
                worker.process(self.now, &mut Fixed(tables), id, &mut vec![frame], &mut self.out);
                for punt in std::mem::take(&mut self.out.punts) {
                    self.router.handle(self.now, punt, &mut self.out);
                }
                self.commit();
            }
        }
    }

    /// Sessions of the NAT64, with their deadlines.
    pub fn sessions(&self) -> String {
        format!("{:?}", self.router.nat64_sessions(self.now, "nat64", 1000).expect("a NAT64"))
    }

    pub fn random_routes(&mut self, rng: &mut Rng) {
        for _ in 0..30 {
            let dst: IpNet = rng.pick(PREFIXES).parse().expect("prefix");
            let mut spec = RouteSpec::new(dst);
            spec.metric = rng.one_in(2).then(|| rng.below(4) as u32 * 10 + 1);
            spec.mtu = rng.one_in(8).then(|| rng.pick(&[1300, 1000, 576]));
            spec.table = rng.one_in(4).then_some(TableId(100));
            match rng.below(12) {
                0 => spec.kind = RouteKind::Blackhole,
                1 => spec.kind = RouteKind::Unreachable,
                2 => spec.kind = RouteKind::Prohibit,
                3 => spec.kind = RouteKind::Throw,
                _ => {
                    if rng.one_in(6) {
                        spec.forwarder = Some("counting".into());
                    }
                    for _ in 0..1 + rng.below(3) * rng.below(2) {
                        let (mut via, mut dev) = (None, None);
                        match rng.below(6) {
                            0 => dev = Some(rng.pick(&["lan0", "tun0", "he", "far"])),
                            _ => via = Some(ip(rng.pick(GATEWAYS))),
                        }
                        if via.is_none() && dev.is_none() {
                            dev = Some("lan0");
                        }
                        let weight = 1 + rng.below(3) as u16;
                        let dev = dev.take().map(str::to_owned);
                        spec.hops.push(HopSpec { via: via.take(), dev, weight, onlink: false });
                    }
                }
            }
            // Some cannot be: gateways that nothing leads to yet.
            let _ = self.router.routing_mut().route(RouteOp::Append, &spec);
        }
    }

    /// Lets the control side ask for a neighbour, by a packet that waits for it.
    pub fn ask(&mut self, dev: &str, dst: &str) {
        let (src, dst) = if dst.contains(':') { (ip("2001:db8:77::7"), ip(dst)) } else { (ip("10.9.9.9"), ip(dst)) };
        let id = self.router.ports().by_name(dev).expect("port").id;
        let frame = framed(&self.router, id, &packets::udp(src, dst, (1, 2), 64, false, b"wait"));
        let mut worker = Worker::new(Arc::new(WorkerCounters::new(MAX_PORTS)), SEED);
        worker.process(
            self.now,
            &mut Fixed(self.router.tables()),
            id,
            &mut vec![Frame::from_slice(&frame)],
            &mut self.out,
        );
        for punt in std::mem::take(&mut self.out.punts) {
            self.router.handle(self.now, punt, &mut self.out);
        }
    }

    pub fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    pub fn empty(&mut self) -> Vec<(String, Bytes)> {
        let mut sent = Vec::new();
        for (i, list) in self.out.tx.iter_mut().enumerate() {
            for frame in list.drain(..) {
                let name = self.router.ports().get(PortId(i as u32)).map_or_else(String::new, |p| p.name.clone());
                sent.push((name, Bytes(frame.data().to_vec())));
                self.out.pool.put(frame);
            }
        }
        sent
    }

    /// What the data plane does with a frame: what it sends, drops and keeps. `refusals`: the control side, too, which
    /// refuses at once what would wait for a silent neighbour.
    pub fn really(&mut self, port: PortId, frame: Frame, refusals: bool) -> Outcome {
        let counters = Arc::new(WorkerCounters::new(MAX_PORTS));
        let mut worker = Worker::new(counters.clone(), SEED);
        // Frames that wait for neighbours are not there any more.
        self.out.pool.refill(256);
        worker.process(self.now, &mut Fixed(self.router.tables()), port, &mut vec![frame], &mut self.out);
        let punts = std::mem::take(&mut self.out.punts);
        let kept = Some(punts.len()).filter(|_| !refusals);
        // What its own answers run into counts too, but not that many packets wait already.
        let full = [DropReason::NeighborQueueFull, DropReason::NeighborTableFull, DropReason::HeldLimit];
        let control = self.control.clone();
        let refused = |r: &DropReason| if full.contains(r) { 0 } else { control.dropped(*r) };
        let before: Vec<u64> = DropReason::ALL.iter().map(refused).collect();
        for punt in punts.into_iter().filter(|_| refusals) {
            self.router.handle(self.now, punt, &mut self.out);
        }
        let count = |r: &DropReason| counters.dropped(*r) + refused(r) - before[r.index()];
        let counts = DropReason::ALL.iter().map(|r| (r.name().to_owned(), count(r)));
        let mut drops: Vec<_> = counts.filter(|(_, n)| *n > 0).collect();
        let mut sent = self.empty();
        // Questions for neighbours are the control side's own.
        sent.retain(|(_, f)| !refusals || !is_question(&f.0));
        if refusals {
            // The control side has numbered other packets before.
            sent.iter_mut().for_each(|(_, f)| forget_numbers(&mut f.0));
        }
        sent.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
        drops.sort();
        let answered = Totals::sum([&*counters]).answered;
        Outcome { sent, drops, kept, answered }
    }
}
