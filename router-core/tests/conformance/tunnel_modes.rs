//! Tunnels of every mode, packet by packet: what they put in front, what they take off, who gets in. Attacks end as a drop
//! with its name.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp};
use router_core::checksum::{self, fill_ipv4_header};
use router_core::packet::Packet;
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Duration;
use router_core::tunnel::spec::{Keepalive, SixRdOptions, UdpKind, UdpOptions};

const T: PortId = PortId(3);
const LOCAL4: &str = "198.51.100.1";
const PEER4: &str = "198.51.100.9";
const LOCAL6: &str = "2001:db8:1::1";
const PEER6: &str = "2001:db8:1::9";

/// Every mode with one peer, in UDP too.
fn modes() -> Vec<TunnelSpec> {
    use TunnelMode::*;
    let plain = |mode: TunnelMode| match mode.shape().outer {
        router_core::addr::Family::Inet => TunnelSpec::new("t", mode, ip(LOCAL4), ip(PEER4)),
        router_core::addr::Family::Inet6 => TunnelSpec::new("t", mode, ip(LOCAL6), ip(PEER6)),
    };
    let udp = |mode, kind| {
        let mut spec = plain(mode);
        spec.options.udp = Some(UdpOptions::new(kind, 5555));
        spec
    };
    let mut keyed = plain(Gre);
    keyed.options.gre =
        serde_json::from_str(r#"{"ikey":5,"okey":5,"icsum":true,"ocsum":true,"oseq":true}"#).expect("options");
    let mut limited = plain(AnyInSix);
    limited.options.encaplimit = Some(4);
    let mut list: Vec<_> =
        [SixInFour, FourInSix, SixInSix, AnyInSix, FourInFour, AnyInFour, Gre, GreSix].map(plain).into();
    list.extend([keyed, limited, udp(SixInFour, UdpKind::Fou), udp(Gre, UdpKind::Gue), udp(AnyInSix, UdpKind::Gue)]);
    list.push(udp(FourInSix, UdpKind::Fou));
    list
}

fn name(spec: &TunnelSpec) -> String {
    format!("{}{}", spec.mode.shape().name, spec.options.udp.map_or("", |u| u.kind.name()))
}

fn carries_v4(spec: &TunnelSpec) -> bool {
    spec.mode.shape().carries.family(router_core::addr::Family::Inet)
}

fn carries_v6(spec: &TunnelSpec) -> bool {
    spec.mode.shape().carries.family(router_core::addr::Family::Inet6)
}

/// A router with this tunnel; 2001:db8:9::/48 and 203.0.113.0/24 lie behind it.
fn rig(spec: &TunnelSpec) -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, PEER4, GATEWAY);
    rig.neighbor(WAN, PEER6, GATEWAY);
    let spec = spec.clone();
    let id = rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
    assert_eq!(id, T);
    for dst in ["2001:db8:9::/48", "203.0.113.0/24"] {
        behind(&mut rig, dst);
    }
    rig
}

/// A route into the tunnel.
fn behind(rig: &mut Rig, dst: &str) {
    let mut route = RouteSpec::new(dst.parse().expect("prefix"));
    route.hops.push(HopSpec { dev: Some("t".into()), ..HopSpec::default() });
    rig.with(|r, _, _| r.routing_mut().route(RouteOp::Add, &route)).expect("route");
}

/// The packets inside that this mode is tried with: towards the tunnel, and out of it.
fn inside(spec: &TunnelSpec) -> Vec<(Vec<u8>, Vec<u8>)> {
    let six = || {
        (
            packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[1; 60]),
            packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[2; 60]),
        )
    };
    let four =
        || (packet("192.0.2.2", "203.0.113.9", 17, 64, &[1; 60]), packet("203.0.113.9", "192.0.2.2", 17, 64, &[2; 60]));
    let mut list = Vec::new();
    if carries_v6(spec) {
        list.push(six());
    }
    if carries_v4(spec) {
        list.push(four());
    }
    list
}

/// An outer packet as the peer sends it, made from one that we sent: ends and ports exchanged, `inner` inside.
fn from_peer(sent: &[u8], spec: &TunnelSpec, inner: &[u8]) -> Vec<u8> {
    let added = spec.overhead() as usize;
    let mut v = [&sent[..added], inner].concat();
    let six = v[0] >> 4 == 6;
    let (l4, len) = if six { (40, v.len() - 40) } else { (20, v.len()) };
    if six {
        v[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        let (src, dst) = (ip(PEER6), ip(LOCAL6));
        let octets = |a: std::net::IpAddr| match a {
            std::net::IpAddr::V6(a) => a.octets(),
            std::net::IpAddr::V4(_) => panic!("IPv6 outside"),
        };
        v[8..24].copy_from_slice(&octets(src));
        v[24..40].copy_from_slice(&octets(dst));
    } else {
        v[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        v[12..16].copy_from_slice(&[198, 51, 100, 9]);
        v[16..20].copy_from_slice(&[198, 51, 100, 1]);
        fill_ipv4_header(&mut v);
    }
    let kind = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let gre = spec.mode.shape().between == router_core::tunnel::mode::Between::Gre;
    let l4 = l4 + if spec.options.has_limit(spec.mode.shape().outer) { 8 } else { 0 };
    let mut body = l4;
    if let Some(u) = &spec.options.udp {
        let len = (v.len() - l4) as u16;
        v[l4 + 4..l4 + 6].copy_from_slice(&len.to_be_bytes());
        v[l4 + 6..l4 + 8].fill(0);
        if u.kind == UdpKind::Gue {
            v[l4 + 9] = if gre { 47 } else { kind };
        }
        body += u.kind.added() as usize;
    } else if !gre {
        let at = if l4 != 20 && l4 != 40 {
            40
        } else if six {
            6
        } else {
            9
        };
        v[at] = kind;
    }
    if gre {
        v[body + 2..body + 4].copy_from_slice(if kind == 4 { &[8, 0] } else { &[0x86, 0xdd] });
        if spec.options.gre.ocsum {
            v[body + 4..body + 6].fill(0);
            let sum = checksum::checksum(&v[body..]).to_be_bytes();
            v[body + 4..body + 6].copy_from_slice(&sum);
        }
    }
    if v[0] >> 4 == 4 {
        fill_ipv4_header(&mut v);
    }
    v
}

/// Sets the traffic class of a packet.
fn mark(packet: &mut [u8], tclass: u8) {
    if packet[0] >> 4 == 4 {
        packet[1] = tclass;
        fill_ipv4_header(packet);
    } else {
        packet[0] = 0x60 | tclass >> 4;
        packet[1] = (packet[1] & 15) | tclass << 4;
    }
}

fn tclass(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

fn wan(rig: &mut Rig, outer: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], outer)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
}

fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.totals().dropped.get(reason).copied().unwrap_or(0)
}

fn parse(p: &[u8]) -> Packet {
    Packet::parse(Packet::sniff(p).expect("family"), p).expect("a packet")
}

/// Proves rfc2473-3.1-encapsulation, rfc2003-3.1-header; RFC 7676 3: every mode there and back, bytes compared.
///
/// Proves rfc2784-3.1-forward, rfc2784-4-protocol, rfc7676-3-type, rfc7676-5-next-header.
#[test]
fn every_mode_carries_packets_there_and_back() {
    for spec in modes() {
        for (to, back) in inside(&spec) {
            let mut rig = rig(&spec);
            let (port, outer) = rig.send_one(&to);
            let p = parse(&outer);
            assert_eq!((port, p.len as usize), (WAN, to.len() + spec.overhead() as usize), "{}", name(&spec));
            assert_eq!((p.src, p.dst, p.ttl), (spec.local, spec.remote, 64), "{}", name(&spec));
            let carried = &outer[spec.overhead() as usize..];
            let mut aged = to.clone();
            checksum::age(parse(&to).family, &mut aged).expect("a TTL");
            assert_eq!(carried, aged, "{}", name(&spec));
            let sent = wan(&mut rig, &from_peer(&outer, &spec, &back));
            let mut want = back.clone();
            checksum::age(parse(&back).family, &mut want).expect("a TTL");
            assert_eq!(sent, [(LAN, want)], "{} {:?}", name(&spec), rig.totals());
        }
    }
}

/// RFC 768, RFC 8200 8.1: an outer UDP checksum is there over IPv6, right, and looked at when it comes.
#[test]
fn outer_udp_checksums() {
    for spec in modes().into_iter().filter(|s| s.options.udp.is_some()) {
        let (to, back) = inside(&spec).remove(0);
        let mut rig = rig(&spec);
        let (_, outer) = rig.send_one(&to);
        let p = parse(&outer);
        let sum = [outer[usize::from(p.l4) + 6], outer[usize::from(p.l4) + 7]];
        assert_eq!(sum == [0, 0], p.src.is_ipv4(), "{}", name(&spec));
        assert!(router_core::forward::local::checksum_ok(&p, &outer), "{}", name(&spec));
        let mut wrong = from_peer(&outer, &spec, &back);
        wrong[usize::from(p.l4) + 7] = 1;
        assert_eq!(wan(&mut rig, &wrong), []);
        assert_eq!(dropped(&rig, "tunnel_checksum"), 1, "{}", name(&spec));
    }
}

/// Proves rfc6438-3-tunnel; RFC 8085 5.1.1: flows differ in their source port or flow label, packets of one flow do not.
/// Also proves rfc8504-5.1-flow-label.
#[test]
fn outer_headers_tell_flows_apart() {
    for spec in modes() {
        let six = spec.mode.shape().outer == router_core::addr::Family::Inet6;
        if spec.options.udp.is_none() && !six {
            continue;
        }
        let mut rig = rig(&spec);
        let mut seen = std::collections::BTreeSet::new();
        for flow in 0..64u8 {
            for _ in 0..2 {
                let mut to = inside(&spec).remove(0).0;
                let l4 = usize::from(parse(&to).l4);
                to[l4] = flow;
                let (_, outer) = rig.send_one(&to);
                let p = parse(&outer);
                let port = spec
                    .options
                    .udp
                    .map(|_| u16::from_be_bytes([outer[usize::from(p.l4)], outer[usize::from(p.l4) + 1]]));
                assert!(port.is_none_or(|p| p >= 0xc000));
                seen.insert((port, p.flow));
            }
        }
        assert!((60..=64).contains(&seen.len()), "{}: {}", name(&spec), seen.len());
    }
}

/// RFC 6040, RFC 2983 in every mode: DSCP and ECN go out as they are inside; marks come back in, DSCP does not.
/// Also proves rfc8504-5.12-ecn.
#[test]
fn congestion_marks_and_dscp() {
    for spec in modes() {
        for (mut to, mut back) in inside(&spec) {
            let mut rig = rig(&spec);
            mark(&mut to, 0xba);
            let (_, outer) = rig.send_one(&to);
            assert_eq!(tclass(&outer), 0xba, "{}", name(&spec));
            mark(&mut back, 0x02);
            let mut came = from_peer(&outer, &spec, &back);
            mark(&mut came, 0x2f);
            let sent = wan(&mut rig, &came);
            assert_eq!(sent.iter().map(|(p, b)| (*p, tclass(b))).collect::<Vec<_>>(), [(LAN, 3)], "{}", name(&spec));
            assert!(sent[0].1[0] >> 4 != 4 || checksum::verify_ipv4_header(&sent[0].1));
            // A mark on what cannot carry one.
            mark(&mut back, 0);
            let mut came = from_peer(&outer, &spec, &back);
            mark(&mut came, 3);
            assert_eq!(wan(&mut rig, &came), []);
            assert_eq!(dropped(&rig, "tunnel_ecn"), 1, "{}", name(&spec));
        }
    }
}

/// CVE-2025-23019 (6in4), CVE-2025-23018 (4in6, 6in6), CVE-2024-7595 (GRE, GRE over IPv6), CVE-2024-7596 (GUE): hosts that
/// unwrap packets from anybody. Here nobody but the configured peer gets in, and nothing goes back to whoever tried.
#[test]
fn cve_2024_7595_2024_7596_2025_23018_2025_23019_strangers_are_not_heard() {
    for spec in modes() {
        for (to, back) in inside(&spec) {
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            let good = from_peer(&outer, &spec, &back);
            let mut from_stranger = good.clone();
            let mut to_another = good.clone();
            if good[0] >> 4 == 4 {
                from_stranger[15] = 77;
                to_another[12..16].copy_from_slice(&[192, 0, 2, 2]);
            } else {
                from_stranger[23] = 0x77;
                to_another[22] = 0x77;
            }
            for bad in [&mut from_stranger, &mut to_another] {
                if bad[0] >> 4 == 4 {
                    fill_ipv4_header(bad);
                }
                let before = dropped(&rig, "tunnel_unknown_peer");
                assert_eq!(wan(&mut rig, bad), [], "{}", name(&spec));
                assert_eq!(dropped(&rig, "tunnel_unknown_peer"), before + 1, "{} {:?}", name(&spec), rig.totals());
            }
            assert_eq!(wan(&mut rig, &good).len(), 1, "{}: the peer itself", name(&spec));
        }
    }
}

/// Proves rfc2827-3-tunnel; RFC 4213 3.6, BCP 38: only delegated prefixes come out of a tunnel that says so.
#[test]
fn inner_sources_are_checked() {
    for mut spec in modes() {
        let all = ["2001:db8:9::/64", "203.0.113.0/28"].map(|n| n.parse::<ipnet::IpNet>().expect("prefix"));
        let v4 = carries_v4(&spec);
        let v6 = carries_v6(&spec);
        spec.options.allowed = all.into_iter().filter(|n| if n.addr().is_ipv4() { v4 } else { v6 }).collect();
        for (to, back) in inside(&spec) {
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            assert_eq!(wan(&mut rig, &from_peer(&outer, &spec, &back)).len(), 1, "{}", name(&spec));
            let forged = match back[0] >> 4 {
                4 => packet("203.0.113.77", "192.0.2.2", 17, 64, &[2; 60]),
                _ => packet("2001:db8:9:7::9", "2001:db8::2", 17, 64, &[2; 60]),
            };
            let outer = from_peer(&outer, &spec, &forged);
            assert_eq!(wan(&mut rig, &outer), [], "{}", name(&spec));
            assert_eq!(dropped(&rig, "tunnel_inner_source"), 1, "{}", name(&spec));
        }
    }
}

/// Martian, mapped and compatible addresses inside are dropped like anywhere else.
#[test]
fn impossible_inner_addresses() {
    for spec in modes() {
        let rows: &[(&str, &str, &str)] = &[
            ("127.0.0.1", "192.0.2.2", "martian_source"),
            ("224.0.0.9", "192.0.2.2", "martian_source"),
            ("203.0.113.9", "127.0.0.1", "martian_destination"),
            ("::1", "2001:db8::2", "martian_source"),
            ("ff02::1", "2001:db8::2", "martian_source"),
            ("::192.0.2.1", "2001:db8::2", "tunnel_inner_source"),
        ];
        let (to, _) = inside(&spec).remove(0);
        for (src, dst, reason) in rows {
            if if src.contains(':') { !carries_v6(&spec) } else { !carries_v4(&spec) } {
                continue;
            }
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            let bad = packet(src, dst, 17, 64, &[0; 60]);
            assert_eq!(wan(&mut rig, &from_peer(&outer, &spec, &bad)), [], "{} {src}", name(&spec));
            assert_eq!(dropped(&rig, reason), 1, "{} {src} {dst} {:?}", name(&spec), rig.totals());
        }
        if carries_v6(&spec) {
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            let mut mapped = packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[0; 60]);
            mapped[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
            assert_eq!(wan(&mut rig, &from_peer(&outer, &spec, &mapped)), []);
            assert_eq!(dropped(&rig, "mapped_address"), 1, "{}", name(&spec));
        }
    }
}

/// Proves rfc4443-3.1-point-to-point: what came out of a tunnel does not go back into it; its sender is told, the peer gets nothing it has not
/// sent itself.
#[test]
fn nothing_is_reflected() {
    for spec in modes() {
        for (to, _) in inside(&spec) {
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            let loops = match to[0] >> 4 {
                4 => packet("203.0.113.9", "203.0.113.77", 17, 64, &[2; 60]),
                _ => packet("2001:db8:9::9", "2001:db8:9::77", 17, 64, &[2; 60]),
            };
            let sent = wan(&mut rig, &from_peer(&outer, &spec, &loops));
            assert_eq!(dropped(&rig, "tunnel_reflection"), 1, "{} {:?}", name(&spec), rig.totals());
            for (_, p) in &sent {
                let (icmp, body) = read_icmp(&p[spec.overhead() as usize..]);
                assert!(icmp.dst.to_string().starts_with(if to[0] >> 4 == 4 {
                    "203.0.113.9"
                } else {
                    "2001:db8:9::9"
                }));
                assert!(matches!((body[0], body[1]), (3, 1) | (1, 3)));
            }
            assert_eq!(sent.len(), 1, "{}", name(&spec));
        }
    }
}

/// Proves rfc2473-4.1.3-limit.
#[test]
fn tunnels_inside_each_other_have_a_limit() {
    let spec = TunnelSpec::new("t", TunnelMode::FourInFour, ip(LOCAL4), ip(PEER4));
    let innermost = packet("203.0.113.9", "192.0.2.2", 17, 64, &[2; 60]);
    let nest = |n: usize| (0..n).fold(innermost.clone(), |inner, _| packet(PEER4, LOCAL4, 4, 64, &inner));
    // max_tunnel_nesting is 4.
    assert_eq!(wan(&mut rig(&spec), &nest(4)).len(), 1);
    let mut rig = rig(&spec);
    assert_eq!(wan(&mut rig, &nest(5)), []);
    assert_eq!(dropped(&rig, "tunnel_nesting"), 1);
}

/// Proves rfc2473-4.1.2-loop.
#[test]
fn no_tunnel_goes_through_itself() {
    for spec in modes() {
        for (to, _) in inside(&spec) {
            let mut rig = rig(&spec);
            // The way to the peer leads into the tunnel.
            let host = if spec.remote.is_ipv4() { "198.51.100.9/32" } else { "2001:db8:1::9/128" };
            behind(&mut rig, host);
            let sent = rig.send(&to);
            assert!(sent.iter().all(|(port, _)| *port == LAN), "{}: {sent:02x?}", name(&spec));
            let totals = rig.totals();
            let lost = dropped(&rig, "tunnel_nesting") + dropped(&rig, "next_hop_unusable") + dropped(&rig, "no_route");
            assert_eq!(lost, 1, "{} {totals:?}", name(&spec));
        }
    }
}

#[test]
fn a_peer_has_its_rate() {
    for mut spec in modes() {
        spec.options.rate = Some(10);
        let mut rig = rig(&spec);
        let (to, back) = inside(&spec).remove(0);
        let (_, outer) = rig.send_one(&to);
        let mut passed = 0;
        for _ in 0..100 {
            passed += wan(&mut rig, &from_peer(&outer, &spec, &back)).len();
            rig.pass(Duration::from_millis(20));
        }
        assert!((19..=23).contains(&passed), "{}: {passed} in two seconds", name(&spec));
        assert_eq!(dropped(&rig, "tunnel_rate"), 100 - passed as u64);
    }
}

/// Proves rfc6324-3.3-loop, rfc5969-12-spoofing, and RFC 3964 5: loops between derived addresses, and forged ones.
#[test]
fn six_rd_and_six_to_four_attacks() {
    let mut spec = TunnelSpec::new("t", TunnelMode::SixRd, ip(LOCAL4), ip("0.0.0.0"));
    spec.options.sixrd = Some(SixRdOptions {
        prefix: "2001:db8:9::/48".parse().expect("prefix"),
        relay_prefix: "198.51.0.0/16".parse().expect("prefix"),
        br: None,
    });
    let from = |outer: &str, src: &str, dst: &str| packet(outer, LOCAL4, 41, 64, &packet(src, dst, 17, 64, &[0; 60]));
    // 198.51.100.9 is 2001:db8:9:6409::/64; we are 2001:db8:9:6401::/64.
    let edge = "2001:db8:9:6409::9";
    for (outer, src, dst, reason) in [
        (PEER4, edge, "2001:db8::2", None),
        ("198.51.100.77", edge, "2001:db8::2", Some("tunnel_inner_source")),
        (PEER4, "2001:db8:77::1", "2001:db8::2", Some("tunnel_inner_source")),
        (PEER4, "2001:db8:9:6401::1", "2001:db8::2", Some("tunnel_loop")),
        (PEER4, edge, "2001:db8:9:6401::1", Some("tunnel_loop")),
        (PEER4, edge, "2001:db8:9:e001::1", None),
    ] {
        let mut rig = rig(&spec);
        rig.route("198.51.0.0/16", "198.51.100.2", "wan0");
        let sent = wan(&mut rig, &from(outer, src, dst));
        match reason {
            Some(reason) => {
                assert_eq!((sent.len(), dropped(&rig, reason)), (0, 1), "{outer} {src} {dst} {:?}", rig.totals());
            }
            None => assert_eq!(sent.len(), 1, "{outer} {src} {dst} {:?}", rig.totals()),
        }
    }
    // Towards the edges: each by its own address; ourselves and nobody are refused.
    let mut rig = rig(&spec);
    let (_, outer) = rig.send_one(&packet("2001:db8::2", edge, 17, 64, &[0; 60]));
    assert_eq!((parse(&outer).dst, parse(&outer).proto), (ip(PEER4), 41));
    rig.send(&packet("2001:db8::2", "2001:db8:9:6401::1", 17, 64, &[0; 60]));
    assert_eq!(dropped(&rig, "tunnel_loop"), 1, "{:?}", rig.totals());
}

/// Proves rfc7526-4-off: 6to4 needs its word; without it nothing becomes of it, under whatever name.
#[test]
fn six_to_four_needs_its_word() {
    let mut rig = Rig::new(Settings::default());
    let mut spec = TunnelSpec::new("t", TunnelMode::SixToFour, ip(LOCAL4), ip("0.0.0.0"));
    let prefix = "2002::/16".parse().expect("prefix");
    spec.options.sixrd = Some(SixRdOptions { prefix, relay_prefix: Default::default(), br: None });
    let mut disguised = spec.clone();
    disguised.mode = TunnelMode::SixRd;
    for refused in [spec.clone(), disguised] {
        let e = rig.with(|r, now, _| r.add_tunnel(now, refused, Vec::new())).expect_err("refused");
        assert!(e.to_string().contains("RFC 7526"), "{e}");
    }
    spec.options.allow_6to4 = true;
    rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("with the word");
}

/// Proves rfc2473-4.1.1-limit: zero is refused with a parameter problem at the limit, more is one less outside.
#[test]
fn rfc2473_4_1_1_encapsulation_limits() {
    let spec = TunnelSpec::new("t", TunnelMode::SixInSix, ip(LOCAL6), ip(PEER6));
    let limited = |limit: u8| {
        let rest = [&[17, 0, 4, 1, limit, 1, 1, 0][..], &[1; 40]].concat();
        packet("2001:db8::2", "2001:db8:9::9", 60, 64, &rest)
    };
    let mut rig = rig(&spec);
    let (_, outer) = rig.send_one(&limited(3));
    assert_eq!((outer[6], &outer[40..48]), (60, &[41, 0, 4, 1, 2, 1, 1, 0][..]));
    assert_eq!(outer[7], 64, "rfc2473-6.3-hop-limit: not the inner one");
    let (port, answer) = rig.send_one(&limited(0));
    let (_, body) = read_icmp(&answer);
    assert_eq!((port, body[0], body[1], &body[4..8]), (LAN, 4, 0, &[0, 0, 0, 44][..]));
    assert_eq!(dropped(&rig, "tunnel_limit"), 1);
}

/// Proves rfc2473-7.1-mtu; RFC 4213 3.2 and 3.4: an error about an outer packet reaches the sender of the inner one at once when
/// the quote tells who that is, and with the next packet when it does not. Quotes as short as IP header and eight bytes.
///
/// Proves rfc7676-5.2-mtu, rfc8899-4.6.1-validation.
#[test]
fn outer_errors_are_told_inside() {
    for spec in modes() {
        let six = spec.mode.shape().outer == router_core::addr::Family::Inet6;
        for v4_inside in [true, false] {
            if if v4_inside { !carries_v4(&spec) } else { !carries_v6(&spec) } {
                continue;
            }
            let fill = vec![1u8; 1300];
            let long = match v4_inside {
                true => {
                    let mut p = packet("192.0.2.2", "203.0.113.9", 17, 64, &fill);
                    p[6] = 0x40;
                    fill_ipv4_header(&mut p);
                    p
                }
                false => packet("2001:db8::2", "2001:db8:9::9", 17, 64, &fill[..1290]),
            };
            let short = if six { 48 } else { 28 };
            for quote in [short, 1000] {
                let mut rig = rig(&spec);
                let sent = rig.send(&long);
                let Some((WAN, outer)) = sent.first().filter(|(p, _)| *p == WAN) else {
                    // The overhead alone is too much for the link: refused at once, with the true MTU.
                    assert_eq!(sent.len(), 1, "{}", name(&spec));
                    continue;
                };
                let told = 1330u16;
                let mtu = told.to_be_bytes();
                let quote = &outer[..quote.min(outer.len())];
                let error = match six {
                    true => icmp("2001:db8:77::1", LOCAL6, 64, &[&[2, 0, 0, 0, 0, 0, mtu[0], mtu[1]], quote].concat()),
                    false => icmp("203.0.113.77", LOCAL4, 64, &[&[3, 4, 0, 0, 0, 0, mtu[0], mtu[1]], quote].concat()),
                };
                let mut answers = wan(&mut rig, &error);
                let least = if v4_inside && !carries_v6(&spec) { 68 } else { 1280 };
                let inner = (u32::from(told) - spec.overhead()).max(least);
                let now = rig.now;
                let info = rig.router.tunnels(now).next().expect("the tunnel");
                let learned = info.learned_mtu.expect("learned");
                assert_eq!((info.mtu, learned.mtu), (inner, u32::from(told)), "{}", name(&spec));
                assert!(
                    matches!(learned.cause, router_core::router::MtuCause::Icmp(a) if a.to_string().contains("77"))
                );
                if answers.is_empty() {
                    answers = rig.send(&long);
                }
                let [(LAN, answer)] = &answers[..] else { panic!("{}: {answers:02x?}", name(&spec)) };
                let (p, body) = read_icmp(answer);
                let got = u32::from_be_bytes([0, 0, body[6], body[7]]);
                assert_eq!((p.dst, got), (parse(&long).src, inner), "{} quote {}", name(&spec), quote.len());
            }
        }
    }
}

/// Proves rfc2473-7-source, rfc2473-7-reassembly: what every IPv6 link must carry passes in fragments where the next link
/// is too small for the outer packet, and what comes in fragments is opened once it is whole.
#[test]
fn rfc2473_7_small_packets_pass_in_fragments() {
    let spec = TunnelSpec::new("t", TunnelMode::SixInSix, ip(LOCAL6), ip(PEER6));
    let mut rig = rig(&spec);
    rig.router.set_mtu(WAN, 1280).expect("MTU");
    rig.commit();
    let inner = packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[3; 1240]);
    let sent = rig.send(&inner);
    assert_eq!(sent.len(), 2, "{:?}", rig.totals());
    assert!(sent.iter().all(|(port, p)| *port == WAN && p.len() <= 1280 && p[6] == 44));
    let back = packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[4; 1240]);
    let whole = packet(PEER6, LOCAL6, 41, 64, &back);
    let piece = |offset: usize, end: usize, more: u8| {
        let field = ((offset as u16) | u16::from(more)).to_be_bytes();
        let rest = [&[41, 0, field[0], field[1], 0, 0, 0, 9][..], &whole[40 + offset..40 + end]].concat();
        packet(PEER6, LOCAL6, 44, 64, &rest)
    };
    assert_eq!(wan(&mut rig, &piece(1000, 1280, 0)).len(), 0);
    let sent = wan(&mut rig, &piece(0, 1000, 1));
    let mut want = back.clone();
    want[7] = 63;
    assert_eq!(sent, [(LAN, want)]);
}

/// Proves rfc2473-7.1-fragments: the same where a link further on is too small, which nobody there may mend.
#[test]
fn fragments_are_as_long_as_the_path_carries() {
    for spec in modes().into_iter().filter(|s| s.remote.is_ipv6() && carries_v6(s)) {
        let mut rig = rig(&spec);
        let (_, outer) = rig.send_one(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[3; 1270]));
        let narrow = icmp("2001:db8:77::1", LOCAL6, 64, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &outer[..1000]].concat());
        let told = wan(&mut rig, &narrow);
        assert!(told.iter().all(|(port, p)| *port == LAN && read_icmp(p).1[..2] == [2, 0]), "{}", name(&spec));
        let sent = rig.send(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[3; 1240]));
        assert_eq!(sent.len(), 2, "{}: {:?}", name(&spec), rig.totals());
        assert!(sent.iter().all(|(port, p)| *port == WAN && p.len() <= 1280 && p[6] == 44), "{}", name(&spec));
        // What fits goes in one piece.
        let short = rig.send(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[3; 1000]));
        assert!(matches!(&short[..], [(WAN, p)] if p[6] != 44), "{}", name(&spec));
    }
}

/// Proves rfc4213-3.4-errors, rfc2473-8-errors: the peer cannot be reached; the tunnel as a link has failed.
#[test]
fn an_unreachable_peer_is_told_inside() {
    for spec in modes() {
        for (to, _) in inside(&spec) {
            let mut rig = rig(&spec);
            let (_, outer) = rig.send_one(&to);
            let error = match spec.remote.is_ipv6() {
                true => icmp("2001:db8:77::1", LOCAL6, 64, &[&[1, 3, 0, 0, 0, 0, 0, 0], &outer[..]].concat()),
                false => icmp("203.0.113.77", LOCAL4, 64, &[&[3, 1, 0, 0, 0, 0, 0, 0], &outer[..]].concat()),
            };
            let answers = wan(&mut rig, &error);
            let [(LAN, answer)] = &answers[..] else { panic!("{}: {answers:02x?}", name(&spec)) };
            let (p, body) = read_icmp(answer);
            assert_eq!(p.dst, parse(&to).src);
            assert_eq!((body[0], body[1]), if to[0] >> 4 == 4 { (3, 1) } else { (1, 3) }, "{}", name(&spec));
            let now = rig.now;
            assert_eq!(rig.router.tunnels(now).next().map(|t| t.errors), Some(1));
            // A forged error about nobody's packet is nothing.
            let mut forged = error.clone();
            let at = if spec.remote.is_ipv6() { 40 + 8 + 39 } else { 20 + 8 + 19 };
            forged[at] ^= 0x40;
            let l4 = if spec.remote.is_ipv6() { 40 } else { 20 };
            forged[l4 + 2..l4 + 4].fill(0);
            let q = parse(&forged);
            let sum = match spec.remote.is_ipv6() {
                true => checksum::pseudo(q.src, q.dst, 58, forged.len() as u32 - 40)
                    .expect("sum")
                    .bytes(&forged[40..])
                    .finish(),
                false => checksum::checksum(&forged[20..]),
            };
            forged[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(wan(&mut rig, &forged), []);
            assert_eq!(rig.router.tunnels(now).next().map(|t| t.errors), Some(1), "{}", name(&spec));
        }
    }
}

/// A peer that falls silent takes its routes out, and brings them back; what takes over meanwhile is the next metric.
#[test]
fn a_dead_tunnel_gives_way() {
    for mut spec in modes() {
        let v4 = carries_v4(&spec) && !carries_v6(&spec);
        let (own, target) = if v4 { ("10.9.9.1/30", "10.9.9.2") } else { ("2001:db8:ff::1/64", "2001:db8:ff::2") };
        spec.options.keepalive = Some(Keepalive { hold: 2, ..Keepalive::new(ip(target)) });
        let mut rig = Rig::new(Settings::default());
        rig.neighbor(WAN, PEER4, GATEWAY);
        rig.neighbor(WAN, PEER6, GATEWAY);
        let (dst, far, lan) = match v4 {
            true => ("203.0.113.0/24", "203.0.113.9", "192.0.2.2"),
            false => ("2001:db8:9::/48", "2001:db8:9::9", "2001:db8::2"),
        };
        let tunnel = spec.clone();
        rig.with(|r, now, _| r.add_tunnel(now, tunnel, vec![own.parse().expect("address")])).expect("tunnel");
        behind(&mut rig, dst);
        rig.route("::/0", "2001:db8:1::2", "wan0");
        rig.route("0.0.0.0/0", "198.51.100.2", "wan0");
        let to = packet(lan, far, 17, 64, &[1; 60]);
        let added = spec.overhead() as usize;
        let answer = |rig: &mut Rig, asked: &[(PortId, Vec<u8>)]| {
            for (_, frame) in asked {
                let outer = frame[14..].to_vec();
                let q = &outer[added..];
                let p = parse(q);
                let mut body = p.transport(q).to_vec();
                body[0] = if v4 { 0 } else { 129 };
                let reply = icmp(&p.dst.to_string(), &p.src.to_string(), 64, &body);
                let back = from_peer(&outer, &spec, &reply);
                assert_eq!(wan(rig, &back), []);
            }
        };
        for _ in 0..5 {
            let asked = rig.pass(Duration::from_millis(1000));
            answer(&mut rig, &asked);
        }
        let through_tunnel = |rig: &mut Rig| {
            let (port, sent) = rig.send_one(&to);
            assert_eq!(port, WAN);
            sent.len() == to.len() + added
        };
        let life = |rig: &Rig| rig.router.tunnels(rig.now).next().and_then(|t| t.life).expect("life");
        assert!(through_tunnel(&mut rig) && life(&rig).alive, "{} {:?}", name(&spec), life(&rig));
        // Silence: the default route by the gateway takes over.
        rig.pass(Duration::from_millis(4500));
        assert!(!life(&rig).alive && !through_tunnel(&mut rig), "{} {:?}", name(&spec), life(&rig));
        // One answer is not enough.
        let asked = rig.pass(Duration::from_millis(1000));
        assert!(!asked.is_empty(), "a dead peer is asked, too");
        answer(&mut rig, &asked);
        assert!(!through_tunnel(&mut rig));
        for _ in 0..3 {
            let asked = rig.pass(Duration::from_millis(1000));
            answer(&mut rig, &asked);
        }
        assert!(through_tunnel(&mut rig), "{} {:?}", name(&spec), life(&rig));
        assert_eq!(life(&rig).deaths, 1);
    }
}

/// A tunnel whose local end follows a port moves with it, in one step, and hears at its new address only.
#[test]
fn a_local_end_follows_its_port() {
    let mut spec = TunnelSpec::new("t", TunnelMode::SixInFour, ip("0.0.0.0"), ip(PEER4));
    spec.options.local_dev = Some("wan0".into());
    let mut rig = rig(&spec);
    let to = packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[1; 60]);
    assert_eq!(parse(&rig.send_one(&to).1).src, ip(LOCAL4));
    rig.with(|r, _, _| {
        r.add_addr(WAN, "198.51.100.200/24".parse().expect("address")).expect("added");
        r.del_addr(WAN, "198.51.100.1/24".parse().expect("address")).expect("removed");
    });
    rig.pass(Duration::from_secs(10));
    let sent = rig.send(&to);
    let (_, outer) = sent.iter().find(|(p, _)| *p == WAN).expect("sent");
    assert_eq!(parse(outer).src, ip("198.51.100.200"));
    let back = packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[2; 60]);
    assert_eq!(wan(&mut rig, &packet(PEER4, "198.51.100.200", 41, 64, &back)).len(), 1);
    let ll = rig.router.ports().get(T).and_then(|p| p.link_local());
    assert_eq!(ll.map(|a| a.to_string()), Some("fe80::c633:64c8".into()));
    // A host of the LAN that pretends to be the peer is still another one than a stranger, but the old end is gone.
    assert_eq!(
        rig.frame(LAN, &frame_of(HOST, OWN[1], &packet(PEER4, LOCAL4, 41, 64, &back)))
            .iter()
            .filter(|(p, _)| *p == LAN)
            .count(),
        0
    );
}
