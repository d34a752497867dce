//! What `explain` tells is what the data plane does: random packets over random tables with all forwarders.

use ipnet::IpNet;
use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::drop_reason::DropReason;
use router_core::explain::{Bytes, End, Explanation, Pass, Question, Role, Step};
use router_core::forward::{Context, Forwarder, Verdict};
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::object::ObjectId;
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

const TABLES: u64 = 100;
const PACKETS: usize = 1000;
const MAX_PORTS: usize = 16;
const SEED: u64 = 0x5eed;

/// Splitmix64: the same packets in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A forwarder with state: it must not change when a packet is only an example.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

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

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn port(name: &str, kind: PortKind, medium: Medium, mtu: u32, n: u8, addrs: &[&str]) -> PortInfo {
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

struct Bench {
    router: Router,
    control: Arc<WorkerCounters>,
    out: Outbox,
    now: Instant,
    plugin: Arc<Counting>,
}

/// Where the packets go: on links, behind gateways, to the router, to nowhere.
const DESTINATIONS: &[&str] = &[
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
const SOURCES: &[&str] = &[
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
const PREFIXES: &[&str] = &[
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
const GATEWAYS: &[&str] = &[
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
const SESSION_PORT: u16 = 4000;

/// One of each kind, with random habits.
fn translators(rng: &mut Rng) -> Vec<TranslatorSpec> {
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
    fn new(rng: &mut Rng) -> Bench {
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
        list[2].caps = PortCaps { partial_checksum: rng.one_in(2), tso: rng.one_in(2), uso: rng.one_in(2) };
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
    fn open_sessions(&mut self, rng: &mut Rng) {
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
    fn sessions(&self) -> String {
        format!("{:?}", self.router.nat64_sessions(self.now, "nat64", 1000).expect("a NAT64"))
    }

    fn random_routes(&mut self, rng: &mut Rng) {
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
    fn ask(&mut self, dev: &str, dst: &str) {
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

    fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    fn empty(&mut self) -> Vec<(String, Bytes)> {
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
    fn really(&mut self, port: PortId, frame: Frame, refusals: bool) -> Outcome {
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

#[derive(Debug, PartialEq)]
struct Outcome {
    sent: Vec<(String, Bytes)>,
    drops: Vec<(String, u64)>,
    /// Given to the control side; not compared where that refused some.
    kept: Option<usize>,
    answered: u64,
}

impl Outcome {
    fn told(e: &Explanation) -> Outcome {
        let mut o = Outcome { sent: Vec::new(), drops: Vec::new(), kept: Some(0), answered: 0 };
        for (i, p) in e.passes.iter().enumerate() {
            let later = e.children(i).any(|(_, c)| c.role == Role::Later);
            match &p.end {
                End::Transmit { dev, frame, .. } => o.sent.push((dev.clone(), frame.clone())),
                End::Drop { reason, .. } => match o.drops.iter_mut().find(|(r, _)| r == reason) {
                    Some((_, n)) => *n += 1,
                    None => o.drops.push((reason.clone(), 1)),
                },
                End::Held { .. } | End::Consumed { .. } if !later => o.kept = o.kept.map(|n| n + 1),
                End::Answered { .. } => o.answered += 1,
                End::Held { .. } | End::Consumed { .. } | End::GoesOn => {}
            }
        }
        if refusals(e) {
            o.kept = None;
            o.sent.retain(|(_, f)| !is_question(&f.0));
            o.sent.iter_mut().for_each(|(_, f)| forget_numbers(&mut f.0));
        }
        o.sent.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
        o.drops.sort();
        o
    }
}

/// Whether a neighbour was silent.
fn refusals(e: &Explanation) -> bool {
    e.passes.iter().any(|p| p.role == Role::Later)
}

/// Clears identifications, of outer headers and fragments, and the header checksums over them.
fn forget_numbers(f: &mut [u8]) {
    let mut at = if f.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    if f.first().is_some_and(|b| b >> 4 == 4 || b >> 4 == 6)
        && Packet::sniff(f).is_ok_and(|x| Packet::parse(x, f).is_ok())
    {
        at = 0;
    }
    while let Some(first) = f.get(at) {
        match (first >> 4, f.len() - at) {
            (4, 20..) => {
                f[at + 4..at + 6].fill(0);
                f[at + 10..at + 12].fill(0);
                if !matches!(f[at + 9], 4 | 41) {
                    return;
                }
                at += 20;
            }
            (6, 48..) if f[at + 6] == 44 => return f[at + 44..at + 48].fill(0),
            _ => return,
        }
    }
}

/// ARP requests and neighbour solicitations, in their frames.
fn is_question(f: &[u8]) -> bool {
    let at = if f.get(12..14) == Some(&[0x81, 0]) { 16 } else { 12 };
    match f.get(at..at + 2) {
        Some([8, 6]) => true,
        Some([0x86, 0xdd]) => f.get(at + 8) == Some(&58) && matches!(f.get(at + 42), Some(135 | 136)),
        _ => false,
    }
}

/// An IP packet as it comes from a port.
fn framed(router: &Router, id: PortId, packet: &[u8]) -> Vec<u8> {
    let port = router.ports().get(id).expect("port");
    match port.mac {
        Some(mac) if port.vlan.is_some() => {
            let mut f = packets::ethernet(mac, MacAddr([2, 0, 0, 0, 9, 9]), packet);
            f.splice(12..12, [0x81, 0x00, 0, 7]);
            f
        }
        Some(mac) => packets::ethernet(mac, MacAddr([2, 0, 0, 0, 9, 9]), packet),
        None => packet.to_vec(),
    }
}

/// A packet between addresses of one family.
fn random_packet(rng: &mut Rng, depth: u8) -> Vec<u8> {
    let dst = ip(rng.pick(DESTINATIONS));
    let mut src = ip(rng.pick(SOURCES));
    while src.is_ipv4() != dst.is_ipv4() {
        src = ip(rng.pick(SOURCES));
    }
    let ttl = rng.pick(&[0, 1, 2, 64, 64, 64, 255]);
    let df = rng.one_in(2);
    let size =
        rng.pick(&[0, 1, 2, 3, 30, 500, 900, 1200, 1252, 1253, 1270, 1372, 1373, 1400, 1452, 1453, 1472, 1473, 2500]);
    let payload = vec![0x5a; size];
    let mut p = match rng.below(9) {
        0 | 1 => {
            let sport = if rng.one_in(2) { SESSION_PORT } else { rng.next() as u16 };
            let ports = if rng.one_in(4) { (53, sport) } else { (sport, 53) };
            packets::udp(src, dst, ports, ttl, df, &payload)
        }
        2 | 3 => packets::echo(src, dst, 1, ttl, df, &payload),
        4 => {
            let mut s = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, rng.pick(&[2, 16, 4]), 1, 0, 0, 0, 0, 0];
            s.extend(&payload);
            packets::ip(src, dst, 6, ttl, df, &packets::transport(src, dst, 6, s, 16))
        }
        5 => {
            let (proto, kind) = if dst.is_ipv4() {
                (1, rng.pick(&[0, 3, 5, 8, 11, 13]))
            } else {
                (58, rng.pick(&[1, 2, 3, 128, 129, 135, 137]))
            };
            let s = packets::transport(src, dst, proto, [vec![kind, 0, 0, 0, 0, 0, 0, 0], payload].concat(), 2);
            packets::ip(src, dst, proto, ttl, df, &s)
        }
        6 if depth < 3 && dst.is_ipv4() => {
            // Out of a tunnel, or so it says.
            let (src, dst) = (ip(rng.pick(&["203.0.113.5", "203.0.113.6"])), ip("198.51.100.7"));
            let inner = random_packet(rng, depth + 1);
            let proto = if rng.one_in(8) {
                4
            } else if inner[0] >> 4 == 6 {
                41
            } else {
                4
            };
            packets::ip(src, dst, proto, ttl, df, &inner)
        }
        7 if !dst.is_ipv4() => {
            // Extension headers: destination options, hop-by-hop, routing, a fragment.
            let (next, header): (u8, Vec<u8>) = match rng.below(4) {
                0 => (60, vec![17, 0, 1, 4, 0, 0, 0, 0]),
                1 => (0, vec![17, 0, rng.pick(&[1, 5, 0x45, 0x85, 0xc5]), 4, 0, 0, 0, 0]),
                2 => (43, vec![17, 0, rng.below(2) as u8, rng.below(2) as u8, 0, 0, 0, 0]),
                _ => (44, vec![17, 0, 0, rng.pick(&[0, 1, 8, 9]), 0, 0, 0, 7]),
            };
            packets::ip(src, dst, next, ttl, df, &[header, vec![0, 1, 0, 2, 0, 8, 0, 0], payload].concat())
        }
        _ => packets::ip(src, dst, rng.pick(&[17, 47, 50, 59, 132, 200]), ttl, df, &payload),
    };
    if dst.is_ipv4() && rng.one_in(12) {
        // A fragment.
        let word: u16 = rng.pick(&[0x2000, 0x2001, 0x0001, 0x6000]);
        p[6..8].copy_from_slice(&word.to_be_bytes());
        repair(&mut p);
    }
    if dst.is_ipv4() && rng.one_in(20) {
        // An option: no operation, record route, source route, router alert, or broken.
        let option: &[u8] =
            rng.pick::<&[u8]>(&[&[1, 1, 1, 0], &[7, 3, 4, 0], &[131, 3, 4, 0], &[148, 4, 0, 0], &[7, 9, 4, 0]]);
        p.splice(20..20, option.to_vec());
        p[0] = 0x46;
        let len = (p.len() as u16).to_be_bytes();
        p[2..4].copy_from_slice(&len);
        repair(&mut p);
    }
    match rng.below(25) {
        0 => {
            let at = rng.below(p.len());
            p[at] ^= 1 << rng.below(8);
        }
        1 => p.truncate(1 + rng.below(p.len())),
        2 => p.extend([0; 9]),
        _ => {}
    }
    p
}

/// Writes the checksum of an IPv4 header.
fn repair(p: &mut [u8]) {
    let n = usize::from(p[0] & 15) * 4;
    p[10..12].fill(0);
    let sum = packets::sum16(&[&p[..n]]).to_be_bytes();
    p[10..12].copy_from_slice(&sum);
}

#[test]
fn a_hundred_thousand_packets_end_as_explained() {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for table in 0..TABLES {
        let rng = &mut Rng(table);
        let mut bench = Bench::new(rng);
        let ids: Vec<PortId> = bench.router.ports().iter().map(|p| p.id).collect();
        for number in 0..PACKETS {
            let id = rng.pick(&ids);
            let packet = random_packet(rng, 0);
            let mut frame = framed(&bench.router, id, &packet);
            let port = bench.router.ports().get(id).expect("port").clone();
            if port.mac.is_some() && rng.one_in(15) {
                // For others, for all, too short, ARP, another VLAN.
                match rng.below(6) {
                    0 => frame[..6].fill(0xff),
                    1 => frame[5] ^= 0x55,
                    2 => frame.truncate(rng.below(16)),
                    3 => frame[12..14].copy_from_slice(&[8, 6]),
                    4 => frame[12..14].copy_from_slice(&[0x86, 0xdd]),
                    _ => drop(frame.splice(12..12, [0x81, 0, 0, rng.below(9) as u8])),
                }
            }
            let gso = rng.one_in(20).then(|| rng.pick(&[100u16, 500, 1400]));
            let question = Question {
                iif: Some(port.name.clone()),
                bytes: Some(Bytes(frame.clone())),
                ethernet: Some(port.medium == Medium::Ethernet),
                gso,
                ..Question::default()
            };
            let neighbors = bench.router.neighbors();
            let (control, used) = (Totals::sum([&*bench.control]), marks(&bench));
            let plugin = bench.plugin.0.load(Ordering::Relaxed);
            let sessions = bench.sessions();
            let told = match bench.router.explain(bench.now, &question) {
                Ok(told) => told,
                // Only segmentable packets can be super-frames.
                Err(router_core::explain::ExplainError::SuperFrame) => continue,
                Err(e) => {
                    assert!(
                        packet.len() < 20 || packet[0] >> 4 != 4 && packet[0] >> 4 != 6 || frame.len() < 14,
                        "{e}: {question:?}"
                    );
                    continue;
                }
            };
            // Nothing has changed.
            assert_eq!(bench.router.neighbors(), neighbors);
            assert_eq!((Totals::sum([&*bench.control]), marks(&bench)), (control, used));
            assert_eq!(bench.plugin.0.load(Ordering::Relaxed), plugin);
            assert_eq!(bench.sessions(), sessions);

            let mut real = Frame::from_slice(&frame);
            real.meta.gso = gso_meta(&frame, port.medium, gso);
            let really = bench.really(id, real, refusals(&told));
            for (i, p) in told.passes.iter().enumerate() {
                if let End::Held { neighbor, dev } = &p.end {
                    let dev = bench.router.ports().by_name(dev).expect("port").id;
                    let silent =
                        neighbors.iter().any(|n| n.port == dev && n.addr == *neighbor && n.state == NudState::Failed);
                    let refused = told.children(i).any(|(_, c)| c.role == Role::Later);
                    assert_eq!(refused, silent, "{told:#?}");
                }
            }
            let told_outcome = Outcome::told(&told);
            let story = || {
                let text = format!("{told:?}");
                text.get(..6000).unwrap_or(&text).to_owned()
            };
            let start = &frame[..frame.len().min(64)];
            assert_eq!(
                told_outcome,
                really,
                "table {table} packet {number} on {}: {start:02x?}\n{}",
                port.name,
                story()
            );
            for (what, n) in &really.drops {
                *seen.entry(what.clone()).or_default() += *n as usize;
            }
            *seen.entry("sent".into()).or_default() += really.sent.len();
            for p in &told.passes {
                if let End::Transmit { forwarder, .. } = &p.end {
                    *seen.entry(format!("by {forwarder}")).or_default() += 1;
                }
                let translator = |p: &Pass| {
                    p.steps.iter().rev().find_map(|s| match s {
                        Step::Forwarder { name, .. } if ["siit", "nat64", "clat"].contains(&name.as_str()) => {
                            Some(name.clone())
                        }
                        _ => None,
                    })
                };
                if let (End::Transmit { .. }, Some(from)) = (&p.end, p.parent.and_then(|i| told.passes.get(i)))
                    && let Some(name) = translator(from)
                {
                    *seen.entry(format!("sent translated by {name}")).or_default() += 1;
                }
                if matches!(&p.end, End::Consumed { what } if what.contains("translator")) {
                    *seen.entry("consulted".into()).or_default() += 1;
                }
                for s in &p.steps {
                    if let Step::Forwarder { name, .. } = s {
                        *seen.entry(format!("step Forwarder {name}")).or_default() += 1;
                    }
                    let name = format!("{s:?}");
                    let name = name.split([' ', '{']).next().unwrap_or_default();
                    *seen.entry(format!("step {name}")).or_default() += 1;
                }
            }
        }
    }
    println!("{seen:#?}");
    // The test is worth something only if all ways were taken.
    for what in [
        "sent",
        "by native",
        "by via-inet6",
        "step Encap",
        "step Decap",
        "step Group",
        "step Cut",
        "step Reply",
        "step Forwarder",
        "ttl_expired",
        "no_route",
        "blackhole",
        "unreachable",
        "prohibited",
        "too_big",
        "neighbor_failed",
        "plugin_drop",
        "next_hop_unusable",
        "tunnel_unknown_peer",
        "martian_source",
        "ipv4_checksum",
        "step Forwarder siit",
        "step Forwarder nat64",
        "step Forwarder clat",
        "sent translated by siit",
        "sent translated by nat64",
        "sent translated by clat",
        "consulted",
    ] {
        assert!(seen.get(what).is_some_and(|n| *n >= 20), "{what} hardly ever happened");
    }
}

/// The marks by which the neighbour cache learns that an adjacency is used.
fn marks(bench: &Bench) -> Vec<bool> {
    let tables = bench.router.tables();
    let objects = (0..200).filter_map(|i| match tables.routing.objects.get(ObjectId(i)) {
        Some(router_core::object::Object::Forward(f)) => Some(f.used.load(Ordering::Relaxed)),
        _ => None,
    });
    objects.collect()
}

fn gso_meta(frame: &[u8], medium: Medium, size: Option<u16>) -> Option<router_core::frame::Gso> {
    use router_core::frame::{Gso, GsoKind};
    let size = size?;
    let ip = if medium == Medium::Ethernet { &frame[14..] } else { frame };
    let (v4, proto) = if ip[0] >> 4 == 4 {
        (true, ip[9])
    } else {
        (false, Packet::parse(router_core::addr::Family::Inet6, ip).ok()?.proto)
    };
    let kind = match (proto, v4) {
        (6, true) => GsoKind::TcpV4,
        (6, false) => GsoKind::TcpV6,
        _ => GsoKind::UdpL4,
    };
    Some(Gso { kind, size, ecn: false })
}

/// The transcripts of docs/inspect.md: every `$ duet ...` line of a `console` block is run in docs/, and what it prints
/// must be what is written below it. With `DUET_WRITE_TRANSCRIPTS=1` it is written instead of compared.
#[test]
fn transcripts_in_the_documentation_are_true() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("inspect.md");
    let text = std::fs::read_to_string(&page).expect("docs/inspect.md");
    let mut made = String::new();
    let (mut inside, mut commands) = (false, 0);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        if inside && !line.starts_with("```") {
            let Some(words) = line.strip_prefix("$ duet ") else { continue };
            commands += 1;
            let out = std::process::Command::new(env!("CARGO_BIN_EXE_duet-under-test"))
                .args(words.split_whitespace())
                .current_dir(&docs)
                .env_remove("DUET_SOCKET")
                .output()
                .expect("the program");
            made.push_str(line);
            made.push('\n');
            made.push_str(&String::from_utf8_lossy(&out.stdout));
            made.push_str(&String::from_utf8_lossy(&out.stderr));
        } else {
            made.push_str(line);
            made.push('\n');
        }
    }
    assert!(commands >= 5, "{commands} transcripts in {}", page.display());
    if std::env::var_os("DUET_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&page, made).expect("docs/inspect.md");
        return;
    }
    for (n, (is, should)) in text.lines().zip(made.lines()).enumerate() {
        assert_eq!(is, should, "docs/inspect.md:{}; DUET_WRITE_TRANSCRIPTS=1 writes it anew", n + 1);
    }
    assert_eq!(text.lines().count(), made.lines().count());
}
