//! Filters, source checks, limits and the MSS clamp in a whole router: verdicts, answers, counters, and that the fast path
//! does what the general path does.

use proptest::prelude::*;
use router_core::addr::MacAddr;
use router_core::counters::{PortTotals, Totals, WorkerCounters};
use router_core::explain::{Question, Step};
use router_core::filter::{Action, FilterSpec, GuardSpec, Limit, LimitSpec, MssClamp, Urpf};
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::observe::{Observer, Silent};
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, NudState, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Instant;
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;
use testbeds::sim::packets;

const NEIGHBOR: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac(port: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port])
}

fn ethernet(name: &str, number: u8, mtu: u32, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id: PortId::NONE,
        name: name.into(),
        ifindex: 0,
        kind: PortKind::Packet,
        medium: Medium::Ethernet,
        mac: Some(mac(number)),
        mtu,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| a.parse().expect("an address")).collect(),
    }
}

/// Watches everything, so that every packet takes the general path.
struct Everything;

impl Observer for Everything {
    const ON: bool = true;

    fn follows(&mut self, _port: PortId, _frame: &Frame) -> bool {
        true
    }
}

/// Three ports: lan, wan (default route), side (another way to 10.9/16 and 2001:db8:9::/48), a 6in4 tunnel over wan.
struct Bed<O = Silent> {
    router: Router,
    worker: Worker<O>,
    counters: [Arc<WorkerCounters>; 2],
    out: Outbox,
    now: Instant,
}

impl Bed {
    fn new() -> Bed {
        Bed::watched(Silent)
    }
}

impl<O: Observer> Bed<O> {
    fn watched(observer: O) -> Bed<O> {
        let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(16)));
        let now = Instant::from_millis(1);
        let settings = Settings {
            icmp: router_core::settings::IcmpSettings { redirects: false, ..Default::default() },
            // Its addresses are its own from the first packet on.
            neighbor: router_core::settings::NeighborSettings { dad_transmits: 0, ..Default::default() },
            ..Settings::default()
        };
        let mut router = Router::new(settings, 3, Arc::clone(&counters[0]));
        let out = Outbox::new(16, FramePool::new(512, 2048));
        for info in [
            ethernet("lan", 1, 1500, &["192.0.2.1/24", "2001:db8::1/64"]),
            ethernet("wan", 2, 1500, &["198.51.100.1/24", "2001:db8:ff::1/64"]),
            ethernet("side", 3, 1400, &["203.0.113.1/24", "2001:db8:fe::1/64"]),
        ] {
            router.add_port(now, info).expect("a port");
        }
        let tunnel = TunnelSpec::new("t0", TunnelMode::SixInFour, ip("198.51.100.1"), ip("198.51.100.9"));
        router.add_tunnel(now, tunnel, vec!["2001:db8:fd::1/64".parse().expect("a prefix")]).expect("a tunnel");
        let mut bed =
            Bed { router, worker: Worker::observed(Arc::clone(&counters[1]), 3, observer), counters, out, now };
        for (dst, via, metric) in [
            ("0.0.0.0/0", "198.51.100.9", 0),
            ("::/0", "2001:db8:ff::9", 0),
            ("10.9.0.0/16", "203.0.113.9", 0),
            ("10.9.0.0/16", "198.51.100.9", 50),
            ("2001:db8:9::/48", "2001:db8:fe::9", 10),
            ("2001:db8:9::/48", "2001:db8:ff::9", 50),
            ("10.7.0.0/16", "192.0.2.9", 0),
            ("2001:db8:7::/48", "2001:db8::9", 0),
        ] {
            let mut spec = RouteSpec::new(dst.parse().expect("a prefix"));
            spec.metric = Some(metric);
            spec.hops.push(HopSpec { via: Some(ip(via)), ..HopSpec::default() });
            bed.router.routing_mut().route(RouteOp::Append, &spec).expect("a route");
        }
        let mut spec = RouteSpec::new("2001:db8:d::/48".parse().expect("a prefix"));
        spec.hops.push(HopSpec { dev: Some("t0".into()), ..HopSpec::default() });
        bed.router.routing_mut().route(RouteOp::Add, &spec).expect("a route");
        for (dev, addr) in [
            ("lan", "192.0.2.9"),
            ("lan", "2001:db8::9"),
            ("lan", "192.0.2.2"),
            ("lan", "2001:db8::2"),
            ("wan", "198.51.100.9"),
            ("wan", "2001:db8:ff::9"),
            ("side", "203.0.113.9"),
            ("side", "2001:db8:fe::9"),
        ] {
            let (addr, dev) = (ip(addr), dev.to_owned());
            let n = NeighSpec { addr, lladdr: Some(NEIGHBOR), state: Some(NudState::Permanent), router: false, dev };
            let port = bed.port(&n.dev);
            bed.router.set_neighbor(now, port, SetMode::Add, &n, &mut bed.out).expect("a neighbour");
        }
        bed.commit();
        bed
    }

    fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    fn port(&self, name: &str) -> PortId {
        self.router.ports().by_name(name).expect("a port").id
    }

    fn filter(&mut self, name: &str, rules: &[&str]) {
        let rules = rules.iter().map(|r| r.parse().expect("a rule")).collect();
        self.router.set_filter(name, FilterSpec { rules }).expect("a filter");
    }

    fn guard(&mut self, port: &str, guard: GuardSpec) {
        self.router.set_guard(port, guard).expect("a guard");
        self.commit();
    }

    /// Sends IP packets in by a port as one batch: what went out, by name of the port, from the IP header on.
    fn send(&mut self, port: &str, list: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
        let id = self.port(port);
        let to = self.router.ports().get(id).and_then(|p| p.mac).expect("a link-layer address");
        let mut batch: Vec<Frame> =
            list.iter().map(|p| Frame::from_slice(&packets::ethernet(to, NEIGHBOR, p))).collect();
        let tables = self.router.tables();
        self.worker.process(self.now, &mut Fixed(tables), id, &mut batch, &mut self.out);
        for punt in std::mem::take(&mut self.out.punts) {
            self.router.handle(self.now, punt, &mut self.out);
        }
        let names: Vec<(usize, String)> = self.router.ports().iter().map(|p| (p.id.index(), p.name.clone())).collect();
        let mut sent = Vec::new();
        for (i, name) in names {
            for f in self.out.tx[i].drain(..) {
                sent.push((name.clone(), f.data()[14..].to_vec()));
                self.out.pool.put(f);
            }
        }
        self.totals().check().expect("every frame in exactly one place");
        sent
    }

    fn totals(&self) -> Totals {
        Totals::sum(self.counters.iter().map(|c| &**c))
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.totals().dropped.get(reason).copied().unwrap_or(0)
    }
}

fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn udp(src: &str, dst: &str, dport: u16) -> Vec<u8> {
    packets::udp(ip(src), ip(dst), (4000, dport), 64, false, b"payload")
}

/// A SYN that tells this segment size.
fn syn(src: &str, dst: &str, mss: u16) -> Vec<u8> {
    let mut t = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 0, 0, 0, 0, 0, 2, 4];
    t.extend(mss.to_be_bytes());
    let (src, dst) = (ip(src), ip(dst));
    packets::ip(src, dst, 6, 64, true, &packets::transport(src, dst, 6, t, 16))
}

/// The segment size that a packet tells, whose inner packet starts at `at`.
fn told(packet: &[u8], at: usize) -> u16 {
    let l4 = at + if packet[at] >> 4 == 4 { 20 } else { 40 };
    u16::from_be_bytes([packet[l4 + 22], packet[l4 + 23]])
}

/// Proves rfc1812-5.3.9-filter.
/// Proves rfc1812-4.3.3.6-switch, rfc1812-5.3.11-control, rfc1812-5.3.9-silent.
#[test]
fn filters_on_the_way_in_out_and_to_the_router() {
    let mut bed = Bed::new();
    bed.filter("f", &["deny udp dport 53", "reject udp dport 99", "allow"]);
    let pass = [udp("192.0.2.2", "10.9.0.1", 80), udp("2001:db8::2", "2001:db8:9::1", 80)];
    let deny = [udp("192.0.2.2", "10.9.0.1", 53), udp("2001:db8::2", "2001:db8:9::1", 53)];
    let reject = [udp("192.0.2.2", "10.9.0.1", 99), udp("2001:db8::2", "2001:db8:9::1", 99)];
    assert_eq!(bed.send("lan", &[&pass[..], &deny, &reject].concat()).len(), 6, "nothing is filtered yet");
    for (port, guard, reason) in [
        ("lan", GuardSpec { filter_in: named("f"), ..GuardSpec::default() }, "filter_in"),
        ("side", GuardSpec { filter_out: named("f"), ..GuardSpec::default() }, "filter_out"),
    ] {
        bed.guard(port, guard);
        let sent = bed.send("lan", &[&pass[..], &deny, &reject].concat());
        let (there, back): (Vec<_>, Vec<_>) = sent.iter().partition(|(name, _)| name == "side");
        assert_eq!(there.len(), 2, "{reason}");
        assert_eq!(bed.dropped(reason), 4);
        // RFC 1812 5.2.7.1 code 13, RFC 4443 3.1 code 1, and the packet as it came inside.
        assert_eq!(back.len(), 2, "{reason}");
        for (name, answer) in back {
            assert_eq!(name, "lan");
            let (kind, code, quoted) = packets::icmp(answer).expect("an ICMP error");
            let (v4, about) = (answer[0] >> 4 == 4, if answer[0] >> 4 == 4 { &reject[0] } else { &reject[1] });
            assert_eq!((kind, code), if v4 { (3, 13) } else { (1, 1) });
            assert_eq!(quoted[quoted.len() - about.len()..], about[..]);
        }
        bed.guard(port, GuardSpec::default());
        assert_eq!(bed.send("lan", &deny).len(), 2, "off again");
    }
    // To the router itself: neighbour discovery always passes, tunnel packets are not judged here.
    bed.filter("own", &["allow icmp type echo-request", "reject udp"]);
    bed.guard("lo", GuardSpec { filter_in: named("own"), ..GuardSpec::default() });
    let echo = packets::echo(ip("192.0.2.2"), ip("192.0.2.1"), 1, 64, false, b"data");
    let echo6 = packets::echo(ip("2001:db8::2"), ip("2001:db8::1"), 1, 64, false, b"data");
    let answered = bed.send("lan", &[echo, echo6, udp("192.0.2.2", "192.0.2.1", 161)]);
    assert_eq!(answered.len(), 2, "the echo reply and the rejection: {answered:?}");
    assert_eq!(bed.dropped("filter_local"), 2);
    assert!(answered.iter().any(|(_, p)| packets::icmp(p).is_some_and(|(t, c, _)| (t, c) == (3, 13))));
    let solicit = packets::solicitation(NEIGHBOR, "2001:db8::2".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert_eq!(bed.send("lan", &[solicit[14..].to_vec()]).len(), 1, "an advertisement");
    let inner = udp("2001:db8:d::7", "2001:db8:7::1", 80);
    let outer = packets::ip(ip("198.51.100.9"), ip("198.51.100.1"), 41, 64, false, &inner);
    assert_eq!(bed.send("wan", &[outer]).len(), 1, "out of the tunnel and on");
    assert_eq!(bed.send("lan", &pass).len(), 2, "the router's own filter does not concern what passes by");
}

#[test]
fn neighbour_discovery_passes_a_filter_that_denies_all() {
    let mut bed = Bed::new();
    bed.filter("nothing", &["deny"]);
    bed.guard("lan", GuardSpec { filter_in: named("nothing"), ..GuardSpec::default() });
    let own = "2001:db8::1".parse().unwrap();
    let solicit = packets::solicitation(NEIGHBOR, "2001:db8::2".parse().unwrap(), own)[14..].to_vec();
    let mut forwarded = solicit.clone();
    forwarded[24..40].copy_from_slice(&"2001:db8:9::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let mut far = solicit.clone();
    far[7] = 254;
    assert_eq!(bed.send("lan", &[solicit]).len(), 1);
    assert_eq!(bed.send("lan", &[forwarded, far, udp("192.0.2.2", "10.9.0.1", 1)]).len(), 0);
    assert_eq!(bed.dropped("filter_in"), 3);
}

#[test]
fn inner_packets_meet_the_tunnels_filter_and_outer_ones_the_ports() {
    let mut bed = Bed::new();
    bed.filter("inner", &["deny udp dport 53", "allow"]);
    bed.guard("t0", GuardSpec { filter_in: named("inner"), filter_out: named("inner"), ..GuardSpec::default() });
    let into = |port| udp("2001:db8::2", "2001:db8:d::7", port);
    let from = |port| {
        let inner = udp("2001:db8:d::7", "2001:db8:7::1", port);
        packets::ip(ip("198.51.100.9"), ip("198.51.100.1"), 41, 64, false, &inner)
    };
    assert_eq!(bed.send("lan", &[into(80), into(53)]).len(), 1);
    assert_eq!(bed.send("wan", &[from(80), from(53)]).len(), 1);
    assert_eq!((bed.dropped("filter_out"), bed.dropped("filter_in")), (1, 1));
    // The outer packet is one of ours and meets the filter of the port that carries it.
    bed.filter("outer", &["deny proto 41", "allow"]);
    bed.guard("t0", GuardSpec::default());
    bed.guard("wan", GuardSpec { filter_out: named("outer"), filter_in: named("outer"), ..GuardSpec::default() });
    assert_eq!(bed.send("lan", &[into(80), udp("192.0.2.2", "8.8.8.8", 53)]).len(), 1);
    assert_eq!(bed.send("wan", &[from(80)]).len(), 0);
    assert_eq!((bed.dropped("filter_out"), bed.dropped("filter_in")), (2, 2));
}

/// Proves rfc2827-3-filter, rfc3704-2.2-strict, rfc3704-2.3-feasible, rfc3704-2.4-loose, rfc1812-5.3.8-validation. What the router has as routes is in [`Bed::watched`].
#[test]
fn rfc3704_sources_by_mode() {
    // mode; source; by lan, wan, side
    let rows: &[(&str, &str, [bool; 3])] = &[
        ("strict", "192.0.2.2", [true, false, false]),
        ("strict", "10.7.1.1", [true, false, false]),
        ("strict", "10.9.1.1", [false, false, true]),
        ("strict", "8.8.8.8", [false, false, false]),
        ("strict allow-default", "8.8.8.8", [false, true, false]),
        ("feasible", "10.9.1.1", [false, true, true]),
        ("feasible", "10.7.1.1", [true, false, false]),
        ("feasible allow-default", "8.8.8.8", [false, true, false]),
        ("loose", "10.9.1.1", [true, true, true]),
        ("loose", "8.8.8.8", [false, false, false]),
        ("loose allow-default", "8.8.8.8", [true, true, true]),
        ("loose allow-default", "198.51.100.1", [false, false, false]),
        ("strict", "2001:db8::2", [true, false, false]),
        ("strict", "2001:db8:9::1", [false, false, true]),
        ("strict", "2001:db8:d::1", [false, false, false]),
        ("feasible", "2001:db8:9::1", [false, true, true]),
        ("loose", "2001:db8:d::1", [true, true, true]),
        ("loose", "2600::1", [false, false, false]),
        ("strict allow-default", "2600::1", [false, true, false]),
    ];
    for (mode, src, want) in rows {
        let mut bed = Bed::new();
        let urpf: Urpf = mode.parse().expect("a mode");
        for (port, want) in ["lan", "wan", "side"].into_iter().zip(want) {
            bed.guard(port, GuardSpec { urpf: Some(urpf), ..GuardSpec::default() });
            let dst = if src.contains(':') { "2001:db8:7::5" } else { "10.7.0.5" };
            let before = bed.dropped("urpf");
            let sent = bed.send(port, &[udp(src, dst, 80)]).len() == 1;
            assert_eq!((sent, bed.dropped("urpf") == before), (*want, *want), "{mode}: {src} by {port}");
            bed.guard(port, GuardSpec::default());
        }
    }
}

/// Proves rfc2827-3-tunnel.
#[test]
fn sources_out_of_a_tunnel_are_checked_by_the_tunnel() {
    let mut bed = Bed::new();
    bed.guard("t0", GuardSpec { urpf: Some("strict".parse().unwrap()), ..GuardSpec::default() });
    let from = |src: &str| {
        let inner = udp(src, "2001:db8:7::1", 80);
        packets::ip(ip("198.51.100.9"), ip("198.51.100.1"), 41, 64, false, &inner)
    };
    assert_eq!(bed.send("wan", &[from("2001:db8:d::7"), from("2001:db8:9::7")]).len(), 1);
    assert_eq!(bed.dropped("urpf"), 1);
}

/// Link-local and unspecified sources have no route by nature (RFC 4291 2.5.6, RFC 4862 5.4.2).
#[test]
fn sources_without_a_route_by_nature_are_left_alone() {
    let mut bed = Bed::new();
    bed.guard("lan", GuardSpec { urpf: Some("strict".parse().unwrap()), ..GuardSpec::default() });
    let near = packets::echo(ip("fe80::2"), ip("2001:db8::1"), 1, 64, false, b"x");
    let dad = packets::solicitation(NEIGHBOR, "::".parse().unwrap(), "2001:db8::77".parse().unwrap());
    bed.send("lan", &[near, dad[14..].to_vec()]);
    assert_eq!(bed.dropped("urpf"), 0);
    assert_eq!(bed.totals().answered, 1, "the echo request");
}

#[test]
fn a_flood_of_arp_is_cut_at_its_port_alone() {
    let mut bed = Bed::new();
    let limits = LimitSpec { neighbor: Limit { rate: 100, burst: 20 }, ..LimitSpec::DEFAULT };
    bed.guard("lan", GuardSpec { limits: Some(limits), ..GuardSpec::default() });
    let ask = |bed: &mut Bed, port: &str, own: [u8; 4], sender: [u8; 4]| {
        let id = bed.port(port);
        let arp = packets::arp(1, MacAddr::BROADCAST, NEIGHBOR, sender.into(), MacAddr::default(), own.into());
        let mut batch: Vec<Frame> = (0..200).map(|_| Frame::from_slice(&arp)).collect();
        let tables = bed.router.tables();
        bed.worker.process(bed.now, &mut Fixed(tables), id, &mut batch, &mut bed.out);
        let punts = bed.out.punts.len();
        for punt in std::mem::take(&mut bed.out.punts) {
            bed.router.handle(bed.now, punt, &mut bed.out);
        }
        bed.out.tx[id.index()].clear();
        punts
    };
    assert_eq!(ask(&mut bed, "lan", [192, 0, 2, 1], [192, 0, 2, 2]), 20);
    assert_eq!(ask(&mut bed, "side", [203, 0, 113, 1], [203, 0, 113, 9]), 200, "another port");
    assert_eq!(bed.dropped("limit_neighbor"), 180);
    // By port.
    let cut = |bed: &Bed, port: &str| {
        let t = PortTotals::sum(bed.port(port), bed.counters.iter().map(|c| &**c));
        (t.limit_neighbor, t.limit_icmp, t.limit_other)
    };
    assert_eq!((cut(&bed, "lan"), cut(&bed, "side")), ((180, 0, 0), (0, 0, 0)));
    assert_eq!(bed.send("lan", &[udp("192.0.2.2", "10.9.0.1", 80)]).len(), 1, "forwarding goes on");
}

#[test]
fn the_segment_size_fits_tunnels_by_default_and_ports_by_wish() {
    let mut bed = Bed::new();
    // 6in4 over 1500 bytes: 1480 inside, 1420 of TCP over IPv6. In both directions.
    let sent = bed.send("lan", &[syn("2001:db8::2", "2001:db8:d::7", 1440)]);
    assert_eq!(told(&sent[0].1, 20), 1420);
    assert!(packets::checksums_right(&sent[0].1[20..]));
    let answer = packets::ip(
        ip("198.51.100.9"),
        ip("198.51.100.1"),
        41,
        64,
        false,
        &syn("2001:db8:d::7", "2001:db8:7::1", 1440),
    );
    let sent = bed.send("wan", &[answer]);
    assert_eq!(told(&sent[0].1, 0), 1420);
    // Never raised; not on ports unless asked.
    assert_eq!(told(&bed.send("lan", &[syn("2001:db8::2", "2001:db8:d::7", 1000)])[0].1, 20), 1000);
    assert_eq!(told(&bed.send("lan", &[syn("192.0.2.2", "10.9.0.1", 1460)])[0].1, 0), 1460);
    // side has an MTU of 1400: 1360 for IPv4, whichever of the two ports asks.
    for port in ["lan", "side"] {
        bed.guard(port, GuardSpec { mss: Some(MssClamp::ToPmtu), ..GuardSpec::default() });
        let sent = bed.send("lan", &[syn("192.0.2.2", "10.9.0.1", 1460), udp("192.0.2.2", "10.9.0.1", 80)]);
        assert_eq!(sent.len(), 2);
        assert_eq!(told(&sent[0].1, 0), 1360, "{port}");
        assert!(packets::checksums_right(&sent[0].1));
        bed.guard(port, GuardSpec::default());
    }
    bed.guard("wan", GuardSpec { mss: Some(MssClamp::Bytes(1200)), ..GuardSpec::default() });
    assert_eq!(told(&bed.send("lan", &[syn("192.0.2.2", "8.8.8.8", 1460)])[0].1, 0), 1200);
    bed.guard("t0", GuardSpec { mss: Some(MssClamp::Off), ..GuardSpec::default() });
    bed.guard("wan", GuardSpec::default());
    assert_eq!(told(&bed.send("lan", &[syn("2001:db8::2", "2001:db8:d::7", 1440)])[0].1, 20), 1440);
}

/// Proves rfc6583-6.1-filter: whoever scans a link whose addresses are known in advance makes the router ask for nobody.
#[test]
fn unused_space_of_a_link_is_filtered() {
    for (guarded, port) in [(None, "side"), (Some("lan"), "side"), (Some("side"), "side")] {
        let mut bed = Bed::new();
        bed.filter("used", &["allow to 2001:db8:fe::/120", "deny to 2001:db8:fe::/64", "allow"]);
        match guarded {
            Some("lan") => bed.guard("lan", GuardSpec { filter_in: named("used"), ..GuardSpec::default() }),
            Some(dev) => bed.guard(dev, GuardSpec { filter_out: named("used"), ..GuardSpec::default() }),
            None => {}
        }
        let scan: Vec<Vec<u8>> = (0..50).map(|i| udp("2001:db8::2", &format!("2001:db8:fe::1:{i:x}"), 80)).collect();
        let asked = bed.send("lan", &scan).iter().filter(|(dev, _)| dev == port).count();
        assert_eq!(asked, if guarded.is_some() { 0 } else { 50 }, "solicitations, filter at {guarded:?}");
        assert_eq!(bed.send("lan", &[udp("2001:db8::2", "2001:db8:fe::9", 80)]).len(), 1, "a host that is there");
    }
}

/// By the route, on each kind of object that it may have: a gateway, a link, a tunnel, a group, a neighbour to be asked for.
#[test]
fn the_segment_size_that_a_route_says() {
    for advmss in [1000u16, 536] {
        let mut bed = Bed::new();
        let rows: [(&str, &str, Option<&str>, Option<&str>); 5] = [
            ("10.5.0.0/16", "10.5.0.1", Some("203.0.113.9"), None),
            ("198.51.100.9/32", "198.51.100.9", None, Some("wan")),
            ("2001:db8:d::/48", "2001:db8:d::7", None, Some("t0")),
            ("10.6.0.0/16", "10.6.0.1", Some("2001:db8:fe::9"), None),
            ("2001:db8:5::/48", "2001:db8:5::1", Some("2001:db8:ff::9"), None),
        ];
        for (dst, to, via, dev) in rows {
            let mut spec = RouteSpec::new(dst.parse().expect("a prefix"));
            spec.hops.push(HopSpec { via: via.map(ip), dev: dev.map(str::to_owned), ..HopSpec::default() });
            if to == "10.5.0.1" {
                // A group; both members are bound by it.
                spec.hops.push(HopSpec { via: Some(ip("198.51.100.9")), ..HopSpec::default() });
            }
            spec.advmss = Some(advmss);
            bed.router.routing_mut().route(RouteOp::Replace, &spec).expect("a route");
            bed.commit();
            let src = if to.contains(':') { "2001:db8::2" } else { "192.0.2.2" };
            let sent = bed.send("lan", &[syn(src, to, 1400), udp(src, to, 80)]);
            assert_eq!(sent.len(), 2, "{dst}");
            let at = if dev == Some("t0") { 20 } else { 0 };
            let (name, first) = &sent[0];
            assert_eq!(told(first, at), advmss, "{dst} by {name}");
            assert!(packets::checksums_right(&first[at..]), "{dst}");
            assert_eq!(told(&bed.send("lan", &[syn(src, to, 500)])[0].1, at), 500, "never raised");
        }
        // A port's clamp and the route's: the least counts.
        bed.guard("lan", GuardSpec { mss: Some(MssClamp::Bytes(700)), ..GuardSpec::default() });
        assert_eq!(told(&bed.send("lan", &[syn("2001:db8::2", "2001:db8:5::1", 1400)])[0].1, 0), advmss.min(700));
        // The first packet, which waits for its neighbour.
        let mut spec = RouteSpec::new("10.4.0.0/16".parse().expect("a prefix"));
        spec.hops.push(HopSpec { via: Some(ip("203.0.113.77")), ..HopSpec::default() });
        spec.advmss = Some(advmss);
        bed.router.routing_mut().route(RouteOp::Add, &spec).expect("a route");
        bed.guard("lan", GuardSpec::default());
        bed.send("lan", &[syn("192.0.2.2", "10.4.0.1", 1400)]);
        let dev = "side".to_owned();
        let n = NeighSpec {
            addr: ip("203.0.113.77"),
            lladdr: Some(NEIGHBOR),
            state: Some(NudState::Permanent),
            router: false,
            dev,
        };
        let port = bed.port("side");
        bed.router.set_neighbor(bed.now, port, SetMode::Replace, &n, &mut bed.out).expect("a neighbour");
        let waited: Vec<Vec<u8>> = bed.out.tx[port.index()].drain(..).map(|f| f.data()[14..].to_vec()).collect();
        assert!(waited.iter().any(|p| p[0] >> 4 == 4 && p[9] == 6 && told(p, 0) == advmss), "{waited:?}");
    }
}

#[test]
fn counters_tell_what_each_rule_matched_and_explain_counts_nothing() {
    let mut bed = Bed::new();
    bed.filter("f", &["deny udp dport 53", "allow udp"]);
    bed.guard("lan", GuardSpec { filter_in: named("f"), ..GuardSpec::default() });
    let q = Question {
        from: Some(ip("192.0.2.2")),
        to: Some(ip("10.9.0.1")),
        proto: Some(17),
        dport: Some(53),
        ..Question::default()
    };
    let told = bed.router.explain(bed.now, &q).expect("an answer");
    let step = told.passes[0].steps.iter().find_map(|s| match s {
        Step::Filter { place, filter, number, action, .. } => Some((place.clone(), filter.clone(), *number, *action)),
        _ => None,
    });
    assert_eq!(step, Some(("in by lan".into(), "f".into(), Some(1), Action::Deny)));
    let list = [
        udp("192.0.2.2", "10.9.0.1", 53),
        udp("192.0.2.2", "10.9.0.1", 80),
        udp("192.0.2.2", "10.9.0.1", 80),
        packets::ip(ip("192.0.2.2"), ip("10.9.0.1"), 47, 64, false, &[0; 20]),
        packets::ip(ip("192.0.2.2"), ip("10.9.0.1"), 17, 64, false, &[0; 3]),
    ];
    bed.send("lan", &list);
    let info = bed.router.filters().next().expect("the filter");
    let counts: Vec<u64> = info.table.rules().map(|(_, (packets, _))| packets).collect();
    let (rest, hidden) = info.table.rest();
    assert_eq!((counts, rest.0, hidden.0), (vec![1, 2], 1, 1));
    assert_eq!(info.used, [("lan".to_owned(), false)]);
}

#[test]
fn refusals_of_the_control_side() {
    let mut bed = Bed::new();
    let guard = GuardSpec { filter_in: named("f"), ..GuardSpec::default() };
    assert!(bed.router.set_guard("lan", guard.clone()).is_err(), "no such filter");
    bed.filter("f", &["allow"]);
    bed.guard("lan", guard);
    assert!(bed.router.del_filter("f").is_err(), "in use");
    bed.guard("lan", GuardSpec::default());
    bed.router.del_filter("f").expect("free now");
    assert!(bed.router.del_filter("f").is_err(), "gone");
    assert!(bed.router.set_filter("a b", FilterSpec::default()).is_err());
    let urpf = GuardSpec { urpf: Some("loose".parse().unwrap()), ..GuardSpec::default() };
    assert!(bed.router.set_guard("lo", urpf).is_err(), "nothing comes in by the loopback");
}

/// A packet of some kind between hosts that some rule or check may concern.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let v4 = prop_oneof![Just("192.0.2.2"), Just("10.7.0.5"), Just("10.9.0.1"), Just("8.8.8.8"), Just("192.0.2.1")];
    let v6 = prop_oneof![
        Just("2001:db8::2"),
        Just("2001:db8:7::5"),
        Just("2001:db8:9::1"),
        Just("2001:db8:d::7"),
        Just("2600::1"),
        Just("2001:db8::1"),
    ];
    let ends = prop_oneof![(v4.clone(), v4), (v6.clone(), v6)];
    let kind = 0u8..10;
    (ends, kind, 0u16..4, 536u16..1500).prop_map(|((src, dst), kind, port, mss)| {
        let (s, d) = (ip(src), ip(dst));
        match kind {
            0 => syn(src, dst, mss),
            1 => packets::echo(s, d, 1, 64, false, b"data"),
            2 => packets::ip(s, d, 47, 64, false, &[0; 20]),
            3 => udp(src, dst, 53 + port),
            4 => packets::ip(s, d, 17, 64, false, &[0; 3]),
            5 if s.is_ipv6() => {
                let inner = &syn(src, dst, mss)[40..];
                packets::ip(s, d, 60, 64, false, &[&[6, 0, 1, 4, 0, 0, 0, 0], inner].concat())
            }
            6 if s.is_ipv6() => {
                let inner = if port == 0 { syn(src, dst, mss) } else { udp(src, dst, 53 + port) };
                packets::ip(ip("198.51.100.9"), ip("198.51.100.1"), 41, 64, false, &inner)
            }
            // Neighbour discovery by its looks, from far and near.
            7 if s.is_ipv6() => {
                let hops = if port == 0 { 255 } else { 254 };
                packets::ip(s, d, 58, hops, false, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat())
            }
            // Fragments: first, later, and one that would hide a header.
            8 => {
                let offset = [0u16, 100, 1, 0][usize::from(port)];
                let mut v = udp(src, dst, 53 + port);
                if s.is_ipv4() {
                    v[6..8].copy_from_slice(&(offset | if port < 3 { 0x2000 } else { 0 }).to_be_bytes());
                    v[9] = if port == 2 { 6 } else { 17 };
                    router_core::checksum::fill_ipv4_header(&mut v);
                    v
                } else {
                    let next = if port == 2 { 6 } else { 17 };
                    let [a, b] = (offset << 3 | u16::from(port < 3)).to_be_bytes();
                    packets::ip(s, d, 44, 64, false, &[&[next, 0, a, b, 0, 0, 0, 7], &v[40..]].concat())
                }
            }
            9 => {
                let mut v = udp(src, dst, 53 + port);
                // EF; the checksum of IPv4 follows.
                match s.is_ipv4() {
                    true => {
                        v[1] = 46 << 2;
                        router_core::checksum::fill_ipv4_header(&mut v);
                    }
                    false => v[..2].copy_from_slice(&[0x6b, 0x80]),
                }
                v
            }
            _ => udp(src, dst, 53),
        }
    })
}

fn any_guard() -> impl Strategy<Value = GuardSpec> {
    let filter = || prop_oneof![3 => Just(None), 1 => Just(named("f"))];
    let urpf = prop_oneof![
        3 => Just(None),
        1 => prop_oneof![Just("strict"), Just("feasible allow-default"), Just("loose")].prop_map(|t| t.parse().ok()),
    ];
    let mss = prop_oneof![
        3 => Just(None),
        1 => prop_oneof![Just(MssClamp::Off), Just(MssClamp::ToPmtu), Just(MssClamp::Bytes(600))].prop_map(Some),
    ];
    let few =
        LimitSpec { other: Limit { rate: 100, burst: 2 }, icmp: Limit { rate: 100, burst: 1 }, ..LimitSpec::DEFAULT };
    let limits = prop_oneof![2 => Just(None), 1 => Just(Some(few))];
    (filter(), filter(), urpf, mss, limits).prop_map(|(filter_in, filter_out, urpf, mss, limits)| GuardSpec {
        filter_in,
        filter_out,
        urpf,
        mss,
        limits,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever ports ask for: the same frames leave, the same is counted, rule by rule.
    #[test]
    fn the_fast_path_does_what_the_general_path_does(
        guards in proptest::collection::vec(any_guard(), 4),
        batches in proptest::collection::vec((0usize..3, proptest::collection::vec(any_packet(), 1..12)), 1..6),
    ) {
        let (mut fast, mut slow) = (Bed::new(), Bed::watched(Everything));
        let rules = ["deny udp dport 53", "reject udp dport 54", "deny proto 47", "deny dscp ef to 10.9.0.0/16", "allow tcp", "allow udp", "allow proto 41", "allow inet6"];
        fast.filter("f", &rules);
        slow.filter("f", &rules);
        for (port, guard) in ["lan", "wan", "side", "t0"].into_iter().zip(guards) {
            fast.guard(port, guard.clone());
            slow.guard(port, guard);
        }
        for (port, list) in batches {
            let port = ["lan", "wan", "side"][port];
            let (mut a, mut b) = (fast.send(port, &list), slow.send(port, &list));
            // The identification of packets made here is a worker's own.
            let blank = |sent: &mut Vec<(String, Vec<u8>)>| {
                for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && p[9] == 1) {
                    p[4..6].fill(0);
                    p[10..12].fill(0);
                }
                sent.sort();
            };
            blank(&mut a);
            blank(&mut b);
            prop_assert_eq!(a, b);
        }
        prop_assert_eq!(fast.totals(), slow.totals());
        let counts = |bed: &Router| bed.filters().flat_map(|f| {
            let rules: Vec<_> = f.table.rules().map(|(_, n)| n).collect();
            rules.into_iter().chain([f.table.rest().0, f.table.rest().1])
        }).collect::<Vec<_>>();
        prop_assert_eq!(counts(&fast.router), counts(&slow.router));
    }
}
