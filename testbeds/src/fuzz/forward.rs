//! The whole data plane: frames with offload metadata into a router with ports of every kind, punts handled, time going by.
//! Every frame must end in exactly one place.

use super::Input;
use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::filter::{FilterSpec, GuardSpec, Limit, LimitSpec, MssClamp, Urpf, UrpfMode};
use router_core::frame::{FramePool, Gso, GsoKind, PartialChecksum};
use router_core::neighbor::SetMode;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::{AdvertSettings, Settings};
use router_core::spec::{HopSpec, NeighSpec, NudState, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::{Duration, Instant};
use router_core::tunnel::spec::{GreOptions, TunnelOptions, UdpKind, UdpOptions};
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;

const PORTS: usize = 16;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn port(
    name: &str,
    kind: PortKind,
    medium: Medium,
    vlan: Option<u16>,
    mtu: u32,
    addrs: &[&str],
) -> PortInfo {
    PortInfo {
        id: PortId::NONE,
        name: name.into(),
        ifindex: 0,
        kind,
        medium,
        mac: (medium == Medium::Ethernet).then_some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu,
        vlan,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| a.parse().expect("an address")).collect(),
    }
}

/// Gives a router ports of every medium, a tunnel, and routes that lead everywhere.
pub fn furnish(r: &mut Router, now: Instant) {
    for info in [
        port("eth", PortKind::Packet, Medium::Ethernet, None, 1500, &["192.0.2.1/24", "2001:db8::1/64"]),
        port("vlan", PortKind::Packet, Medium::Ethernet, Some(10), 1400, &["198.51.100.1/25", "2001:db8:ff::1/64"]),
        port("tun", PortKind::Tun, Medium::Ip, None, 1300, &["10.0.0.1/24", "2001:db8:fe::1/64"]),
        port("raw", PortKind::RawIp, Medium::Ip, None, 1500, &[]),
    ] {
        r.add_port(now, info).expect("a port");
    }
    let tunnel = TunnelSpec::new("t0", TunnelMode::SixInFour, ip("192.0.2.1"), ip("198.51.100.9"));
    r.add_tunnel(now, tunnel, vec!["2001:db8:fd::1/64".parse().expect("a prefix")]).expect("a tunnel");
    more_tunnels(r, now);
    for (dst, via, dev) in [
        ("198.51.100.0/24", Some("192.0.2.77"), None),
        ("2001:db8:1::/48", None, Some("tun")),
        ("203.0.113.0/24", Some("2001:db8:ff::9"), None),
        ("2001:db8:2::/48", None, Some("t0")),
    ] {
        route(r, dst, via, dev);
    }
}

/// Tunnels that are found by their keys or UDP ports, and one in IPv6.
fn more_tunnels(r: &mut Router, now: Instant) {
    let local = ip("192.0.2.1");
    let gre = |key| GreOptions { ikey: Some(key), okey: Some(key), ..GreOptions::default() };
    let udp = |kind, port| Some(UdpOptions::new(kind, port));
    for (name, mode, remote, gre, udp) in [
        ("g1", TunnelMode::Gre, "198.51.100.11", gre(1), None),
        ("g2", TunnelMode::Gre, "198.51.100.11", GreOptions { answer: true, icsum: true, ..gre(2) }, None),
        ("fou", TunnelMode::SixInFour, "198.51.100.19", GreOptions::default(), udp(UdpKind::Fou, 6090)),
        ("gue", TunnelMode::AnyInFour, "198.51.100.21", GreOptions::default(), udp(UdpKind::Gue, 6091)),
    ] {
        let options = TunnelOptions { gre, udp, ..TunnelOptions::default() };
        let spec = TunnelSpec { options, ..TunnelSpec::new(name, mode, local, ip(remote)) };
        r.add_tunnel(now, spec, Vec::new()).expect("a tunnel");
    }
    let spec = TunnelSpec::new("t46", TunnelMode::FourInSix, ip("2001:db8::1"), ip("2001:db8:1::16"));
    r.add_tunnel(now, spec, Vec::new()).expect("a tunnel");
}

fn route(r: &mut Router, dst: &str, via: Option<&str>, dev: Option<&str>) {
    let mut spec = RouteSpec::new(dst.parse().expect("a prefix"));
    spec.hops.push(HopSpec { via: via.map(ip), dev: dev.map(str::to_owned), ..HopSpec::default() });
    r.routing_mut().route(RouteOp::Add, &spec).expect("a route");
}

fn router(now: Instant, counters: &Arc<WorkerCounters>, guarded: bool, out: &mut Outbox) -> Router {
    let mut settings = Settings::default();
    // The default router of a LAN: solicitations are answered.
    settings.adverts.insert("eth".into(), AdvertSettings::default());
    let mut r = Router::new(settings, 3, Arc::clone(counters));
    furnish(&mut r, now);
    route(&mut r, "100.64.0.0/10", None, Some("tun"));
    // One gateway of each family is known, so that packets get through at once.
    for (dev, addr) in [("eth", "192.0.2.77"), ("eth", "2001:db8::77"), ("vlan", "2001:db8:ff::9")] {
        let id = r.ports().by_name(dev).map(|p| p.id).expect("the port");
        let n = NeighSpec {
            addr: ip(addr),
            dev: dev.into(),
            lladdr: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            state: Some(NudState::Permanent),
            router: false,
        };
        r.set_neighbor(now, id, SetMode::Add, &n, out).expect("a neighbour");
    }
    if guarded {
        guard(&mut r);
    }
    while r.commit(now, &mut |_| {}) {}
    r
}

/// Filters on every way, checks of sources, narrow limits.
fn guard(r: &mut Router) {
    for (name, rules) in [
        ("in", &["reject udp dport 1000-2000", "deny tcp established", "allow icmpv6", "deny fragment", "allow"][..]),
        ("out", &["deny tcp dport 81", "reject icmp type echo-request", "allow"][..]),
        ("own", &["allow icmp", "allow icmpv6", "allow proto 41", "allow udp dport 53"][..]),
    ] {
        let rules = rules.iter().map(|t| t.parse().expect("a rule")).collect();
        r.set_filter(name, FilterSpec { rules }).expect("a filter");
    }
    let limits = LimitSpec { neighbor: Limit { rate: 10, burst: 2 }, ..LimitSpec::DEFAULT };
    let strict = Urpf { mode: UrpfMode::Strict, allow_default: false };
    let loose = Urpf { mode: UrpfMode::Loose, allow_default: true };
    let named = |name: &str| Some(name.to_owned());
    for (port, guard) in [
        ("eth", GuardSpec { filter_in: named("in"), mss: Some(MssClamp::ToPmtu), ..GuardSpec::default() }),
        (
            "vlan",
            GuardSpec { filter_out: named("out"), urpf: Some(strict), limits: Some(limits), ..GuardSpec::default() },
        ),
        ("tun", GuardSpec { urpf: Some(loose), mss: Some(MssClamp::Bytes(600)), ..GuardSpec::default() }),
        ("t0", GuardSpec { filter_in: named("in"), filter_out: named("out"), ..GuardSpec::default() }),
        ("lo", GuardSpec { filter_in: named("own"), ..GuardSpec::default() }),
    ] {
        r.set_guard(port, guard).expect("a guard");
    }
}

/// See the module.
pub(super) fn worker(data: &[u8]) {
    let mut input = Input(data);
    let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(PORTS)));
    let mut now = Instant::from_millis(1);
    let mut out = Outbox::new(PORTS, FramePool::new(64, 4096));
    // The first byte says whether ports judge their packets.
    let Some(first) = input.byte() else { return };
    let mut router = router(now, &counters[0], first & 1 == 1, &mut out);
    let ports: Vec<PortId> = router.ports().iter().map(|p| p.id).filter(|p| p.0 != 0).collect();
    let mut worker = Worker::new(Arc::clone(&counters[1]), 3);
    let mut fed = 0;
    let mut batch = Vec::new();
    while let Some(head) = input.byte() {
        if head & 0xf0 == 0xf0 {
            now = now + Duration::from_millis(u64::from(head & 0x0f) * 200);
            router.poll(now, &mut out);
            router.commit(now, &mut |_| {});
        } else {
            let port = ports[usize::from(head & 3) % ports.len()];
            // Some frames at once, so that batches of several take the fast path together.
            for _ in 0..=(head >> 6) {
                let Some(len) = input.word() else { break };
                let bytes = input.piece(usize::from(len) & 0x7ff);
                let Some(mut frame) = out.pool.take() else { break };
                frame.set_data(bytes);
                if head & 4 == 4 {
                    let (start, offset) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
                    frame.meta.csum = Some(PartialChecksum { start: start.into(), offset: offset.into() });
                }
                if head & 8 == 8 {
                    let kind = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4][usize::from(head >> 4 & 3) % 3];
                    frame.meta.gso = Some(Gso { kind, size: input.word().unwrap_or(0), ecn: head & 16 == 16 });
                }
                if head & 0x30 == 0x30 {
                    frame.meta.vlan_tci = input.word();
                }
                batch.push(frame);
            }
            fed += batch.len() as u64;
            worker.process(now, &mut Fixed(router.tables()), port, &mut batch, &mut out);
        }
        for punt in std::mem::take(&mut out.punts) {
            router.handle(now, punt, &mut out);
        }
        router.commit(now, &mut |_| {});
        for queue in &mut out.tx {
            queue.drain(..).for_each(|f| out.pool.put(f));
        }
        out.pool.refill(64);
    }
    let totals = Totals::sum(counters.iter().map(|c| &**c));
    assert_eq!(totals.received, fed);
    totals.check().expect("every frame in exactly one place");
    for _ in 0..100 {
        now = now + Duration::from_secs(1);
        router.poll(now, &mut out);
    }
    let totals = Totals::sum(counters.iter().map(|c| &**c));
    totals.check().expect("every frame in exactly one place");
    assert_eq!(totals.held, 0, "frames wait for ever");
}
