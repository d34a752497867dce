use super::*;
use crate::addr::{MacAddr, parse_interface_addr};
use crate::counters::WorkerCounters;
use crate::filter::{FilterSpec, GuardSpec, Urpf};
use crate::frame::FramePool;
use crate::neighbor::SetMode;
use crate::port::{PortCaps, PortInfo, PortKind, TableId};
use crate::settings::Settings;
use crate::spec::{HopSpec, NeighSpec, RouteKind, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use crate::worker::{Fixed, Outbox, Worker};
use proptest::prelude::*;
use std::net::IpAddr;

const NOW: Instant = Instant::from_millis(200_000);
const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 1];

fn outbox() -> Outbox {
    Outbox::new(32, FramePool::new(64, 2048))
}

fn route(r: &mut Router, dst: &str, hops: &[(&str, &str)]) {
    let mut spec = RouteSpec::new(dst.parse().unwrap());
    spec.hops = hops
        .iter()
        .map(|(via, dev)| HopSpec {
            via: via.parse().ok(),
            dev: (!dev.is_empty()).then(|| (*dev).to_owned()),
            ..HopSpec::default()
        })
        .collect();
    if hops.is_empty() {
        spec.kind = RouteKind::Blackhole;
    }
    r.routing_mut().route(RouteOp::Replace, &spec).unwrap();
}

fn commit(r: &mut Router) {
    while r.commit(NOW, &mut |_| {}) {}
}

/// Ports in (1), out (2) and narrow (3, MTU 1300); a 6in4 tunnel behind `out`; neighbours that are known.
fn lab() -> Router {
    let mut r = Router::new(Settings::default(), 7, Arc::new(WorkerCounters::new(32)));
    let out = &mut outbox();
    for (n, name, mtu) in [(1u8, "in", 1500), (2, "out", 1500), (3, "narrow", 1300)] {
        let addrs = [format!("10.{n}.0.1/24"), format!("2001:db8:{n}::1/64")];
        let info = PortInfo {
            id: PortId::NONE,
            name: name.into(),
            ifindex: 0,
            kind: PortKind::Memory,
            medium: Medium::Ethernet,
            mac: Some(MacAddr([2, 0, 0, 0, 0xff, n])),
            mtu,
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs: addrs.iter().map(|a| parse_interface_addr(a).unwrap()).collect(),
        };
        let id = r.add_port(Instant::ZERO, info).unwrap();
        for host in [2, 3] {
            for addr in [format!("10.{n}.0.{host}"), format!("2001:db8:{n}::{host}")] {
                let spec = NeighSpec {
                    addr: addr.parse().unwrap(),
                    dev: name.into(),
                    lladdr: Some(MacAddr([2, 0, 0, 0, n, host])),
                    state: None,
                    router: false,
                };
                r.set_neighbor(NOW, id, SetMode::Replace, &spec, out).unwrap();
            }
        }
    }
    // Own addresses are confirmed by then.
    for second in 0..200 {
        r.poll(Instant::from_millis(second * 1000), out);
        out.tx.iter_mut().for_each(Vec::clear);
    }
    let ends = ["10.2.0.1", "10.2.0.2"].map(|a| a.parse().unwrap());
    let tunnel = TunnelSpec::new("site", TunnelMode::SixInFour, ends[0], ends[1]);
    r.add_tunnel(NOW, tunnel, Vec::new()).unwrap();
    route(&mut r, "20.0.0.0/8", &[("10.2.0.2", "")]);
    route(&mut r, "30.0.0.0/8", &[("10.3.0.2", "")]);
    route(&mut r, "40.0.0.0/8", &[("10.2.0.2", ""), ("10.3.0.2", "")]);
    route(&mut r, "50.0.0.0/8", &[("10.1.0.2", "")]);
    route(&mut r, "60.0.0.0/8", &[]);
    route(&mut r, "70.0.0.0/8", &[("10.2.0.99", "")]);
    route(&mut r, "80.0.0.0/8", &[("2001:db8:2::2", "")]);
    route(&mut r, "2001:db8:20::/48", &[("2001:db8:2::2", "")]);
    route(&mut r, "2001:db8:40::/48", &[("2001:db8:2::2", ""), ("2001:db8:3::2", "")]);
    route(&mut r, "2001:db8:70::/48", &[("", "site")]);
    commit(&mut r);
    r
}

/// The headers of a flow's packet.
fn head(src: &str, dst: &str, proto: u8, tos: u8, ports: (u16, u16)) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut v = [&MAC[..], &[2, 0, 0, 0, 9, 9]].concat();
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            v.extend([8, 0, 0x45, tos, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0]);
            v.extend(s.octets());
            v.extend(d.octets());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            v.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0x12, 0x34, 0, 0, proto, 64]);
            v.extend(s.octets());
            v.extend(d.octets());
        }
        _ => panic!("families"),
    }
    v.extend(ports.0.to_be_bytes());
    v.extend(ports.1.to_be_bytes());
    v.extend([0; 16]);
    v
}

fn way(r: &Router, src: &str, dst: &str) -> Option<FlowWay> {
    r.flow_way(NOW, PortId(1), &head(src, dst, 17, 0, (1000, 53)))
}

#[test]
fn plain_flows_have_a_way() {
    let r = lab();
    for (src, dst, port, mtu, mac) in [
        ("10.1.0.2", "20.0.0.1", 2, 1500, [2, 0, 0, 0, 2, 2]),
        ("10.1.0.2", "10.2.0.3", 2, 1500, [2, 0, 0, 0, 2, 3]),
        ("10.1.0.2", "30.0.0.1", 3, 1300, [2, 0, 0, 0, 3, 2]),
        ("10.1.0.2", "80.0.0.1", 2, 1500, [2, 0, 0, 0, 2, 2]),
        ("2001:db8:1::2", "2001:db8:20::1", 2, 1500, [2, 0, 0, 0, 2, 2]),
        ("2001:db8:1::2", "2001:db8:3::3", 3, 1300, [2, 0, 0, 0, 3, 3]),
    ] {
        let w = way(&r, src, dst).unwrap_or_else(|| panic!("{dst}"));
        assert_eq!((w.port, w.mtu, &w.link[..6], w.tunnel.is_none()), (PortId(port), mtu, &mac[..], true), "{dst}");
        assert_eq!(w.used.len(), 1, "{dst}");
        // Some share an adjacency.
        assert!(!w.used[0].load(Relaxed), "an example is no use");
        w.touch();
        assert!(w.used[0].swap(false, Relaxed));
    }
}

#[test]
fn whatever_is_not_plain_has_none() {
    let mut r = lab();
    for (src, dst) in [
        ("10.1.0.2", "50.0.0.1"),
        ("10.1.0.2", "60.0.0.1"),
        ("10.1.0.2", "70.0.0.1"),
        ("10.1.0.2", "90.0.0.1"),
        ("10.1.0.2", "10.2.0.1"),
        ("10.1.0.2", "10.2.0.255"),
        ("10.1.0.2", "224.0.0.9"),
        ("127.0.0.1", "20.0.0.1"),
        ("2001:db8:1::2", "2001:db8:90::1"),
        ("fe80::1", "2001:db8:20::1"),
    ] {
        assert!(way(&r, src, dst).is_none(), "{src} {dst}");
    }
    // What is cut short, or of another protocol.
    let whole = head("10.1.0.2", "20.0.0.1", 17, 0, (1, 2));
    assert!((0..42).all(|n| r.flow_way(NOW, PortId(1), &whole[..n]).is_none()));
    assert!(r.flow_way(NOW, PortId(1), &head("10.1.0.2", "20.0.0.1", 47, 0, (1, 2))).is_none());
    // To another station; by a port that is not there.
    let mut other = whole.clone();
    other[5] = 9;
    assert!(r.flow_way(NOW, PortId(1), &other).is_none());
    assert!(r.flow_way(NOW, PortId(9), &whole).is_none());
    // Whatever counts or judges single packets.
    assert!(way(&r, "10.1.0.2", "20.0.0.1").is_some());
    r.set_filter("f", FilterSpec { rules: vec!["allow".parse().unwrap()] }).unwrap();
    for (port, guard) in [
        ("in", GuardSpec { filter_in: Some("f".into()), ..GuardSpec::default() }),
        ("out", GuardSpec { filter_out: Some("f".into()), ..GuardSpec::default() }),
        ("in", GuardSpec { urpf: Some("strict".parse::<Urpf>().unwrap()), ..GuardSpec::default() }),
    ] {
        r.set_guard(port, guard.clone()).unwrap();
        commit(&mut r);
        assert!(way(&r, "10.1.0.2", "20.0.0.1").is_none(), "{port} {guard:?}");
        r.set_guard(port, GuardSpec::default()).unwrap();
        commit(&mut r);
        assert!(way(&r, "10.1.0.2", "20.0.0.1").is_some());
    }
    r.routing_mut().count_prefix(TableId::MAIN, "20.0.0.0/8".parse().unwrap()).unwrap();
    commit(&mut r);
    assert!(way(&r, "10.1.0.2", "20.0.0.1").is_none(), "counted");
}

/// What the data plane sends for a frame: port and bytes.
fn forwarded(r: &Router, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    let out = &mut outbox();
    let mut worker = Worker::new(Arc::new(WorkerCounters::new(32)), 7);
    worker.process(NOW, &mut Fixed(r.tables()), PortId(1), &mut vec![Frame::from_slice(frame)], out);
    let all = out.tx.iter().enumerate();
    all.flat_map(|(i, list)| list.iter().map(move |f| (PortId(i as u32), f.data().to_vec()))).collect()
}

/// Outer headers apart from what differs between packets.
fn known(w: &FlowWay, packet: &[u8], got: &[u8]) -> bool {
    let outer = w.tunnel.as_ref().map_or(&[][..], |(_, h)| h);
    let mut aged = packet.to_vec();
    checksum::age(Packet::sniff(packet).unwrap(), &mut aged).unwrap();
    let Some(rest) = got.strip_prefix(&w.link[..]).and_then(|g| g.strip_suffix(&aged[..])) else { return false };
    rest.len() == outer.len() && (rest.is_empty() || fixed(rest) == fixed(outer) && is_bare(rest, packet.len()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Every packet of a flow that has a way goes that way through the data plane, and none that is longer.
    #[test]
    fn the_way_is_that_of_all_packets(
        net in 0usize..8, host in 1u8..9, tcp: bool, tos: u8, sport: u16, dport: u16,
        packets in proptest::collection::vec((0u32..1600, 2u8..=255, any::<bool>()), 1..6),
    ) {
        thread_local!(static LAB: Router = lab());
        let (src, dst) = match net {
            0..=4 => ("10.1.0.2", format!("{}.0.0.{host}", [20, 30, 40, 80, 60][net])),
            _ => ("2001:db8:1::2", format!("2001:db8:{}::{host}", [20, 40, 70][net - 5])),
        };
        let proto = if tcp { 6 } else { 17 };
        let head = head(src, &dst, proto, tos, (sport, dport));
        LAB.with(|r| {
            let Some(w) = r.flow_way(NOW, PortId(1), &head) else {
                prop_assert!(net == 4 || net == 7, "{}", dst);
                return Ok(());
            };
            let v6 = net > 4;
            let (family, l4) = if v6 { (Family::Inet6, 40) } else { (Family::Inet, 20) };
            let least = l4 + if tcp { 20 } else { 8 };
            for (len, ttl, df) in packets {
                let len = (len as usize).max(least);
                let frame = example(&head[..LINK], &head[LINK..LINK + least], family, len, ttl, df).unwrap();
                let sent = forwarded(r, &frame);
                if len <= w.mtu as usize {
                    prop_assert_eq!(sent.len(), 1, "{} {}", dst, len);
                    prop_assert!(sent[0].0 == w.port && known(&w, &frame[LINK..], &sent[0].1), "{} {}", dst, len);
                } else {
                    // An error goes back, or fragments go on.
                    prop_assert!(!sent.iter().any(|(p, b)| *p == w.port && known(&w, &frame[LINK..], b)));
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_tunnel_whose_outer_headers_are_all_alike_is_a_way() {
    let r = lab();
    let w = way(&r, "2001:db8:1::2", "2001:db8:70::1");
    println!("{w:?}");
    if let Some(w) = w {
        let (_, outer) = w.tunnel.as_ref().unwrap();
        assert_eq!((w.port, w.mtu, outer.len(), outer[9]), (PortId(2), 1480, 20, 41));
        assert_eq!(&outer[12..], &[10, 2, 0, 1, 10, 2, 0, 2]);
    }
}
