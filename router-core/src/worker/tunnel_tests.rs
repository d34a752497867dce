//! The fast path and the general path do the same to packets that enter and leave tunnels.

use super::*;
use crate::addr::parse_interface_addr;
use crate::checksum;
use crate::counters::Totals;
use crate::neighbor::SetMode;
use crate::port::{Medium, PortCaps, PortInfo, PortKind};
use crate::router::Router;
use crate::settings::Settings;
use crate::spec::{HopSpec, NeighSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use crate::tunnel::spec::{GreOptions, UdpKind, UdpOptions};
use crate::tunnel::{TunnelOptions, gre, limit, mode, udp};
use std::cell::OnceCell;
use std::sync::LazyLock;

const IN: PortId = PortId(1);
const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 1];

/// The tunnels: one of each mode, then those with something between. Then some that are the general path's, and one
/// that has the ends of another and a key of its own.
static SPECS: LazyLock<Vec<TunnelSpec>> = LazyLock::new(|| {
    use TunnelMode::*;
    let udp = |kind, csum| {
        move |o: &mut TunnelOptions| {
            o.udp = Some(UdpOptions { kind, sport: 0, dport: 5555, port: 0, rport: 0, learn: false, csum })
        }
    };
    let keyed = |o: &mut TunnelOptions| (o.gre.ikey, o.gre.okey) = (Some(7), Some(8));
    let limited = |o: &mut TunnelOptions| o.encaplimit = Some(3);
    type Change<'c> = &'c dyn Fn(&mut TunnelOptions);
    let more: [(TunnelMode, Change<'_>); MORE + GENERAL] = [
        (Gre, &keyed),
        (GreSix, &keyed),
        (Gre, &|o| (o.gre.icsum, o.gre.ocsum) = (true, true)),
        (SixInFour, &udp(UdpKind::Fou, None)),
        (AnyInFour, &udp(UdpKind::Gue, Some(true))),
        (FourInSix, &udp(UdpKind::Gue, None)),
        (AnyInSix, &udp(UdpKind::Fou, Some(false))),
        (Gre, &udp(UdpKind::Fou, None)),
        (GreSix, &udp(UdpKind::Gue, None)),
        (AnyInSix, &limited),
        (GreSix, &limited),
        (Gre, &|o| (o.gre.iseq, o.gre.oseq) = (true, true)),
        (SixInFour, &|o| o.rate = Some(20)),
    ];
    let plain = mode::ALL.iter().map(|s| s.mode).filter(|m| m.shape().peer == mode::Peer::Configured);
    let all = plain.map(|mode| (mode, None)).chain(more.into_iter().map(|(mode, change)| (mode, Some(change))));
    all.enumerate()
        .map(|(i, (mode, change))| {
            let n = 10 + i;
            let (local, remote) = match mode.shape().outer {
                crate::addr::Family::Inet => ("192.0.2.1".to_owned(), format!("198.51.100.{n}")),
                crate::addr::Family::Inet6 => ("2001:db8::1".to_owned(), format!("2001:db8:1::{n}")),
            };
            let mut spec = TunnelSpec::new(&format!("t{i}"), mode, local.parse().unwrap(), remote.parse().unwrap());
            if i % 2 == 1 {
                spec.options.allowed = ["2001:db8::/32", "203.0.0.0/16"]
                    .map(|n| n.parse::<ipnet::IpNet>().unwrap())
                    .into_iter()
                    .filter(|n| mode.shape().carries.family(crate::addr::Family::of_net(n)))
                    .collect();
            }
            spec.ttl_inherit = i % 3 == 0;
            spec.tos = (i % 4 == 3).then_some(0x50);
            if let Some(change) = change {
                change(&mut spec.options);
            }
            spec
        })
        .chain(std::iter::once_with(|| {
            let mut sibling = TunnelSpec::new("sibling", Gre, ip("192.0.2.1"), ip("198.51.100.18"));
            (sibling.options.gre.ikey, sibling.options.gre.okey) = (Some(77), Some(77));
            sibling
        }))
        .collect()
});

/// Tunnels with something between, and those that the fast path leaves alone.
const MORE: usize = 11;
const GENERAL: usize = 2;

/// Those of both paths.
static COUNT: LazyLock<usize> = LazyLock::new(|| SPECS.len() - GENERAL - 1);

/// A router with these tunnels, each to a peer of its own, `.(10 + i)`. Behind tunnel `i`: 2001:db8:(10+i)::/48 and
/// 203.0.(10+i).0/24. Every other one has more to check.
fn tables() -> Arc<Tables> {
    // Those of one thread: sequence numbers are in them.
    thread_local!(static TABLES: OnceCell<Arc<Tables>> = const { OnceCell::new() });
    let make = || {
        let now = Instant::from_millis(100_000);
        let mut router = Router::new(Settings::default(), 7, Arc::new(WorkerCounters::new(32)));
        let mut out = Outbox::new(32, FramePool::new(16, 2048));
        for (name, mac, addrs) in [
            ("in", MacAddr(MAC), ["192.0.2.1/24", "2001:db8::1/64"]),
            ("out", MacAddr([2, 0, 0, 0, 0xff, 2]), ["198.51.100.1/24", "2001:db8:1::1/64"]),
        ] {
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
                addrs: addrs.iter().map(|a| parse_interface_addr(a).unwrap()).collect(),
            };
            router.add_port(now, info).unwrap();
        }
        let mut end = now;
        for _ in 0..200 {
            end = end + crate::time::Duration::from_millis(500);
            router.poll(end, &mut out);
            out.tx.iter_mut().for_each(Vec::clear);
        }
        let mut neighbor = |router: &mut Router, port: u32, addr: &str| {
            let mac = Some(MacAddr([2, 0, 0, 0, 9, port as u8]));
            let spec =
                NeighSpec { addr: addr.parse().unwrap(), dev: String::new(), lladdr: mac, state: None, router: false };
            router.set_neighbor(end, PortId(port), SetMode::Replace, &spec, &mut out).unwrap();
        };
        for (port, addr) in [(1, "192.0.2.2"), (1, "2001:db8::2"), (2, "198.51.100.2"), (2, "2001:db8:1::2")] {
            neighbor(&mut router, port, addr);
        }
        for (i, spec) in SPECS.iter().enumerate() {
            let n = 10 + i;
            neighbor(&mut router, 2, &spec.remote.to_string());
            router.add_tunnel(end, spec.clone(), Vec::new()).unwrap();
            for dst in [format!("2001:db8:{n}::/48"), format!("203.0.{n}.0/24")] {
                let mut route = RouteSpec::new(dst.parse().unwrap());
                route.hops.push(HopSpec { dev: Some(spec.name.clone()), ..HopSpec::default() });
                router.routing_mut().route(RouteOp::Add, &route).unwrap();
            }
        }
        while router.commit(end, &mut |_| {}) {}
        router.tables()
    };
    TABLES.with(|t| Arc::clone(t.get_or_init(make)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn packet(src: &str, dst: &str, proto: u8, ttl: u8, tclass: u8, payload: &[u8]) -> Vec<u8> {
    match (ip(src), ip(dst)) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let len = ((20 + payload.len()) as u16).to_be_bytes();
            let mut v = vec![0x45, tclass, len[0], len[1], 0, 7, 0x40, 0, ttl, proto, 0, 0];
            v.extend(s.octets());
            v.extend(d.octets());
            checksum::fill_ipv4_header(&mut v);
            v.extend(payload);
            v
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let len = (payload.len() as u16).to_be_bytes();
            let mut v = vec![0x60 | tclass >> 4, tclass << 4, 0, 0, len[0], len[1], proto, ttl];
            v.extend(s.octets());
            v.extend(d.octets());
            v.extend(payload);
            v
        }
        _ => panic!("two families"),
    }
}

type Sent = Vec<(usize, Vec<u8>)>;

fn run(packets: &[Vec<u8>], fast: bool) -> (Sent, Totals, Vec<crate::counters::PortTotals>) {
    let (now, tables) = (Instant::from_millis(900_000), tables());
    (0..48).filter_map(|p| tables.gates.get(PortId(p))).for_each(|g| g.state().forget());
    let counters = Arc::new(WorkerCounters::new(48));
    let mut worker = Worker::new(Arc::clone(&counters), 7);
    let mut out = Outbox::new(32, FramePool::new(16, 2048));
    let mut frames: Vec<Frame> = packets.iter().map(|p| Frame::from_slice(p)).collect();
    let source = &mut Fixed(Arc::clone(&tables));
    if fast {
        worker.process(now, source, IN, &mut frames, &mut out);
    } else {
        for mut frame in frames {
            frame.meta.port = IN;
            worker.count_received(IN, std::slice::from_ref(&frame));
            if let Some(job) = worker.receive(&mut Step { now, tables: &tables, out: &mut out }, IN, frame) {
                worker.run(now, source, &mut Arc::clone(&tables), job, &mut out);
            }
        }
    }
    let mut sent = Vec::new();
    for (port, queue) in out.tx.iter_mut().enumerate() {
        sent.extend(queue.drain(..).map(|f| (port, f.data().to_vec())));
    }
    let totals = Totals::sum([&*counters]);
    totals.check().unwrap();
    let ports = (0..40).map(|p| crate::counters::PortTotals::sum(PortId(p), [&*counters])).collect();
    (sent, totals, ports)
}

/// A packet that goes into tunnel number `tunnel`, or comes out of it.
#[allow(clippy::too_many_arguments)]
fn through(
    tunnel: usize,
    v6: bool,
    out_of: bool,
    dst: usize,
    ttl: u8,
    marks: [u8; 2],
    payload: usize,
    next: u8,
) -> Vec<u8> {
    let payload = vec![4u8; payload];
    let inner_dst = match (dst, v6) {
        (0, true) => "2001:db8::2".to_owned(),
        (0, false) => "192.0.2.2".to_owned(),
        (1, true) => "2001:db8:1::2".to_owned(),
        (1, false) => "198.51.100.2".to_owned(),
        (n, true) => format!("2001:db8:{}::7", 8 + n),
        (n, false) => format!("203.0.{}.7", 8 + n),
    };
    let src = if v6 { "2001:db8:77::7" } else { "203.0.77.7" };
    let inner = packet(src, &inner_dst, next, ttl, marks[0], &payload);
    if out_of { carried(&SPECS[tunnel % *COUNT], v6, marks[1], &inner) } else { inner }
}

/// A packet as the peer of a tunnel sends it.
fn carried(spec: &TunnelSpec, v6: bool, mark: u8, inner: &[u8]) -> Vec<u8> {
    let (shape, options) = (spec.mode.shape(), &spec.options);
    let family = if v6 { crate::addr::Family::Inet6 } else { crate::addr::Family::Inet };
    let mut proto = shape.protocol(family);
    let mut payload = inner.to_vec();
    if shape.between == mode::Between::Gre {
        let peer = GreOptions { okey: options.gre.ikey, ocsum: options.gre.icsum, ..options.gre };
        payload.splice(0..0, vec![0; peer.sent_len() as usize]);
        gre::write(&mut payload, &peer, family, 0).unwrap();
    }
    if options.encaplimit.is_some() {
        payload.splice(0..0, limit::header(proto, 3));
        proto = 60;
    }
    if let Some(u) = &options.udp {
        payload.splice(0..0, vec![0; u.kind.added() as usize]);
        udp::write(&mut payload, u, proto, 77).unwrap();
        proto = 17;
    }
    let mut packet = packet(&spec.remote.to_string(), &spec.local.to_string(), proto, 9, mark, &payload);
    if options.udp.is_some_and(|u| u.csum.unwrap_or(shape.outer == crate::addr::Family::Inet6)) {
        udp::fill_checksum(&mut packet, shape.header() as usize, shape.outer);
    }
    packet
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12_000))]

    #[test]
    fn tunnels_are_the_same_on_both_paths(
        tunnel in 0usize..8 + MORE,
        v6: bool,
        out_of: bool,
        dst in 0usize..2 + 8 + MORE,
        ttl in 0u8..4,
        marks: [u8; 2],
        payload in 0usize..1500,
        next in proptest::prop_oneof![4 => proptest::prelude::Just(17u8), 1 => proptest::prelude::any::<u8>()],
        spoil in proptest::collection::vec((0usize..100, proptest::prelude::any::<u8>()), 0..2),
        fix: bool,
    ) {
        let packet = through(tunnel, v6, out_of, dst, ttl, marks, payload, next);
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let mut bytes = [&MAC[..], &[2, 0, 0, 0, 9, 1], &kind, &packet].concat();
        for (at, value) in spoil {
            if let Some(b) = bytes.get_mut(at) {
                *b = value;
            }
        }
        if fix && bytes[14] >> 4 == 4 {
            checksum::fill_ipv4_header(&mut bytes[14..]);
        }
        let bytes = [bytes];
        proptest::prop_assert_eq!(run(&bytes, true), run(&bytes, false));
    }

    /// Packets of several tunnels in one batch, again and again of the same: those that are known, and those that are not.
    #[test]
    fn batches_out_of_tunnels_are_the_same_on_both_paths(
        packets in proptest::collection::vec(
            (0usize..8 + MORE, proptest::prelude::any::<bool>(), 0u8..8, 0usize..2 + 8 + MORE, proptest::prelude::any::<u8>()), 1..24),
    ) {
        let frames: Vec<Vec<u8>> = packets
            .into_iter()
            .map(|(tunnel, v6, out_of, dst, mark)| {
                let p = through(tunnel, v6, out_of > 0, dst, 2 + (mark & 1), [mark >> 1, mark >> 4], 30, 17);
                let kind: [u8; 2] = if p[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
                [&MAC[..], &[2, 0, 0, 0, 9, 1], &kind, &p].concat()
            })
            .collect();
        proptest::prop_assert_eq!(run(&frames, true), run(&frames, false));
    }
}

#[test]
fn the_fast_path_is_taken() {
    // What leaves untouched by the general path has no job behind it: compare the identifications, which only it draws.
    let worker = |bytes: &[u8]| {
        let tables = tables();
        let mut worker = Worker::new(Arc::new(WorkerCounters::new(32)), 7);
        let mut out = Outbox::new(32, FramePool::new(16, 2048));
        let port = tables.ports.get(IN).cloned().unwrap();
        let mut batch = vec![Frame::from_slice(bytes)];
        worker.pass(Instant::ZERO, &mut batch, &port, &tables, &out);
        out.make_room(IN);
        worker.passes.egress(0)
    };
    let frame = |packet: Vec<u8>| {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        [&MAC[..], &[2, 0, 0, 0, 9, 1], &kind, &packet].concat()
    };
    let inner4 = |dst: &str| packet("203.0.77.7", dst, 17, 64, 0, &[4; 40]);
    let inner6 = |dst: &str| packet("2001:db8:77::7", dst, 17, 64, 0, &[4; 40]);
    for (what, bytes, fast) in [
        ("6in4 in", inner6("2001:db8:10::7"), true),
        ("4in6 in", inner4("203.0.11.7"), true),
        ("6in6 in", inner6("2001:db8:12::7"), true),
        ("gre in", inner4("203.0.16.7"), true),
        ("gre with key out", carried(&SPECS[8], false, 0, &inner4("198.51.100.2")), true),
        ("gre6 with key out", carried(&SPECS[9], true, 0, &inner6("2001:db8:1::2")), true),
        ("gre with checksum out", carried(&SPECS[10], true, 0, &inner6("2001:db8:1::2")), true),
        ("fou in", inner6("2001:db8:21::7"), true),
        ("fou out", carried(&SPECS[11], true, 0, &inner6("2001:db8:1::2")), true),
        ("gue out", carried(&SPECS[12], false, 0, &inner4("198.51.100.2")), true),
        ("gue over IPv6 in", inner4("203.0.23.7"), true),
        ("gue over IPv6 out", carried(&SPECS[13], false, 0, &inner4("198.51.100.2")), true),
        ("gre in fou out", carried(&SPECS[15], false, 0, &inner4("198.51.100.2")), true),
        ("with an encapsulation limit in", inner4("203.0.27.7"), true),
        ("with an encapsulation limit out", carried(&SPECS[17], true, 0, &inner6("2001:db8:1::2")), true),
        ("sequence numbers in", inner4("203.0.29.7"), true),
        ("sequence numbers out", carried(&SPECS[19], true, 0, &inner6("2001:db8:1::2")), false),
        ("a rate, in", inner6("2001:db8:30::7"), true),
        ("a rate, out", carried(&SPECS[20], true, 0, &inner6("2001:db8:1::2")), true),
        ("6in4 out", packet("198.51.100.10", "192.0.2.1", 41, 9, 0, &inner6("2001:db8:1::2")), true),
        ("6in6 out", packet("2001:db8:1::12", "2001:db8::1", 41, 9, 0, &inner6("2001:db8:1::2")), true),
        ("4in4 out", packet("198.51.100.14", "192.0.2.1", 4, 9, 0, &inner4("198.51.100.2")), true),
        ("sources checked", packet("2001:db8:1::11", "2001:db8::1", 4, 9, 0, &inner4("198.51.100.2")), true),
        (
            "a source that is not allowed",
            packet(
                "2001:db8:1::11",
                "2001:db8::1",
                4,
                9,
                0,
                &packet("198.51.77.7", "198.51.100.2", 17, 64, 0, &[4; 40]),
            ),
            false,
        ),
        ("back again", packet("198.51.100.10", "192.0.2.1", 41, 9, 0, &inner6("2001:db8:10::7")), false),
    ] {
        assert_eq!(worker(&frame(bytes)).is_some(), fast, "{what}");
    }
    // RFC 2890 2.1: only the key tells these apart.
    let (one, other) = (&SPECS[8], &SPECS[*COUNT + GENERAL]);
    assert_eq!((one.local, one.remote), (other.local, other.remote));
    let packets = [one, other, one].map(|t| frame(carried(t, false, 0, &inner4("198.51.100.2"))));
    assert!(packets.iter().all(|p| worker(p).is_some()));
    let (fast, slow) = (run(&packets, true), run(&packets, false));
    assert_eq!(fast, slow);
    assert_eq!(fast.2.iter().filter(|p| p.rx_packets > 0).count(), 3, "the port, and both tunnels");
}
