//! Plain forwarding, and plain packets to the router.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet};
use router_core::addr::MacAddr;
use router_core::checksum::fill_ipv4_header;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec};

fn rig() -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig.route("2001:db8:9::/48", "2001:db8:1::2", "wan0");
    rig
}

/// Proves rfc2474-3-default, rfc8200-6-flow, rfc6864-4.1-atomic, rfc1812-4.2.2.4-unknown: every field that is not the
/// router's business leaves as it came, whatever it says.
#[test]
fn forwarding_changes_nothing_else() {
    for n in 0..=255u8 {
        let mut v4 = packet("192.0.2.2", "203.0.113.9", n, 64, &[n; 40]);
        (v4[1], v4[4], v4[5], v4[6]) = (n, n, !n, if n & 1 == 0 { 0x40 } else { 0 });
        fill_ipv4_header(&mut v4);
        let mut want = v4.clone();
        want[8] = 63;
        fill_ipv4_header(&mut want);
        assert_eq!(rig().send_one(&v4), (WAN, want), "IPv4, {n}");
        // The other numbers are extension headers, with tests of their own.
        let proto = if [0, 43, 44, 51, 60, 135, 139, 140].contains(&n) { 17 } else { n };
        let mut v6 = packet("2001:db8::2", "2001:db8:9::9", proto, 64, &[n; 40]);
        v6[..4].copy_from_slice(&[0x60 | n >> 4, n << 4 | n & 15, n, !n]);
        let mut want = v6.clone();
        want[7] = 63;
        assert_eq!(rig().send_one(&v6), (WAN, want), "IPv6, {n}");
    }
}

/// Proves rfc1122-3.2.2-unknown, rfc1122-3.2.2.2-redirect, rfc1812-4.3.2.1-unknown, rfc4443-2.4-b, rfc4861-8.1-ignore.
/// Proves rfc1812-4.3.3.7-information, rfc1122-3.2.2.7, rfc1122-3.2.2.9-agent.
/// Proves rfc1256-4.2-advertisement.
#[test]
fn packets_to_the_router_that_nobody_wants() {
    for kind in [0u8, 1, 2, 4, 5, 6, 9, 13, 14, 15, 16, 17, 18, 30, 42, 77, 255] {
        // As long as an information, a mask and a timestamp request are, and cut; codes 0 and 1.
        for (code, len) in [(0, 8), (0, 12), (0, 20), (1, 12), (0, 4)] {
            let mut rig = rig();
            let message = [&[kind, code, 0, 0, 192, 0, 2, 3, 0x45, 0][..], &[0; 10]].concat();
            let message = &message[..len];
            assert!(rig.send(&icmp("192.0.2.2", "192.0.2.1", 64, message)).is_empty(), "IPv4 type {kind}, {code}");
            let (port, far) = rig.send_one(&icmp("192.0.2.2", "203.0.113.9", 64, message));
            assert_eq!((port, &far[20..]), (WAN, &icmp("192.0.2.2", "203.0.113.9", 64, message)[20..]), "type {kind}");
        }
    }
    for kind in [0u8, 5, 100, 127, 129, 130, 141, 200, 255] {
        let mut rig = rig();
        let message = [kind, 0, 0, 0, 0, 0, 0, 0, 0x60, 0];
        assert!(rig.send(&icmp("2001:db8::2", "2001:db8::1", 64, &message)).is_empty(), "IPv6 type {kind}");
        assert_eq!(rig.send(&icmp("2001:db8::2", "2001:db8:9::9", 64, &message)).len(), 1, "IPv6 type {kind} passes");
    }
    // Redirects, good in every way, change no route.
    let mut rig = rig();
    for code in [0, 1] {
        for (gateway, about) in [([192, 0, 2, 3], "192.0.2.2"), ([198, 51, 100, 2], "192.0.2.1")] {
            let quoted = packet(about, "203.0.113.9", 17, 63, &[1; 8]);
            let message = [&[5, code, 0, 0][..], &gateway, &quoted].concat();
            for from in ["192.0.2.3", "192.0.2.2"] {
                assert!(rig.send(&icmp(from, "192.0.2.1", 64, &message)).is_empty());
                assert_eq!(rig.send_one(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[1; 9])).0, WAN);
            }
        }
    }
    let mut redirect = vec![137, 0, 0, 0, 0, 0, 0, 0];
    for addr in ["fe80::3", "2001:db8:9::9"] {
        let std::net::IpAddr::V6(a) = ip(addr) else { panic!() };
        redirect.extend(a.octets());
    }
    let redirect = icmp("fe80::2", "fe80::1", 255, &redirect);
    assert!(rig.frame(LAN, &frame_of(HOST, OWN[1], &redirect)).is_empty());
    assert_eq!(rig.send_one(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[1; 9])).0, WAN);
}

/// Proves rfc1122-4.1.3.4-checksum, rfc8200-8.1-udp, rfc1812-4.2.1-count: and counted by reason.
#[test]
fn wrong_checksums_to_the_router_are_not_answered() {
    let udp = [0x30, 0x39, 0, 53, 0, 12, 0xab, 0xcd, 1, 2, 3, 4];
    let mut none = udp;
    none[6..8].fill(0);
    let mut tcp = [0; 20];
    tcp[12..14].copy_from_slice(&[0x50, 2]);
    let mut echo4 = icmp("192.0.2.2", "192.0.2.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1, 9]);
    let mut echo6 = icmp("2001:db8::2", "2001:db8::1", 64, &[128, 0, 0, 0, 0, 1, 0, 1, 9]);
    *echo4.last_mut().expect("bytes") ^= 1;
    *echo6.last_mut().expect("bytes") ^= 1;
    let rows = [
        ("UDP", packet("192.0.2.2", "192.0.2.1", 17, 64, &udp), 0),
        ("UDP", packet("2001:db8::2", "2001:db8::1", 17, 64, &udp), 0),
        ("no UDP checksum is fine in IPv4", packet("192.0.2.2", "192.0.2.1", 17, 64, &none), 1),
        ("and void in IPv6", packet("2001:db8::2", "2001:db8::1", 17, 64, &none), 0),
        ("TCP", packet("192.0.2.2", "192.0.2.1", 6, 64, &tcp), 0),
        ("TCP", packet("2001:db8::2", "2001:db8::1", 6, 64, &tcp), 0),
        ("echo", echo4, 0),
        ("echo", echo6, 0),
    ];
    for (what, packet, answers) in rows {
        let mut rig = rig();
        assert_eq!(rig.send(&packet).len(), answers, "{what}");
        let reason = if answers == 0 { "local_checksum" } else { "no_local_service" };
        assert_eq!(rig.totals().dropped, [(reason, 1)].into(), "{what}");
    }
}

/// Proves rfc2644-2-default, rfc1812-5.3.5.2-directed, rfc1812-4.3.3.6-broadcast: neither forwarded nor answered.
#[test]
fn directed_broadcasts_stay_outside() {
    let echo = |dst| icmp("203.0.113.9", dst, 64, &[8, 0, 0, 0, 0, 1, 0, 1, 9]);
    for dst in ["192.0.2.255", "198.51.100.255", "255.255.255.255"] {
        for to in [OWN[2], MacAddr::BROADCAST] {
            for p in [packet("203.0.113.9", dst, 17, 64, &[1; 30]), echo(dst)] {
                let mut rig = rig();
                assert!(rig.frame(WAN, &frame_of(GATEWAY, to, &p)).is_empty(), "{dst}");
                assert_eq!(rig.totals().dropped_total(), 1, "{dst}");
            }
        }
    }
}

/// Proves rfc6438-3-hash: flows between the same two addresses are told apart by their labels, each keeps its way.
#[test]
fn flow_labels_share_a_group() {
    let mut rig = rig();
    rig.neighbor(WAN, "2001:db8:1::3", MacAddr([2, 0, 0, 0, 0x10, 4]));
    let mut spec = RouteSpec::new("2001:db8:a::/48".parse().expect("prefix"));
    spec.hops = ["2001:db8:1::2", "2001:db8:1::3"]
        .map(|g| HopSpec { via: Some(ip(g)), dev: None, weight: 1, onlink: false })
        .into();
    rig.router.routing_mut().route(RouteOp::Add, &spec).expect("route");
    rig.commit();
    let mut way = |label: u8| {
        // An encrypted or unknown payload: nothing but the label tells flows apart.
        let mut p = packet("2001:db8::2", "2001:db8:a::9", 50, 64, &[7; 30]);
        p[3] = label;
        let sent = rig.frame(LAN, &frame_of(HOST, OWN[1], &p));
        sent[0].1[5]
    };
    let ways: Vec<u8> = (0..64).map(&mut way).collect();
    assert_eq!(ways, (0..64).map(&mut way).collect::<Vec<u8>>(), "a flow keeps its way");
    let first = ways.iter().filter(|w| **w == 3).count();
    assert!((16..48).contains(&first), "{first} of 64");
}

/// Proves rfc8200-5-1280, rfc4291-2.1-link-local.
#[test]
fn ports_with_ipv6_carry_1280_bytes() {
    let mut rig = rig();
    assert!(rig.router.set_mtu(LAN, 1279).is_err());
    assert!(rig.router.set_mtu(LAN, 1280).is_ok());
    let mut rig = Rig::with_addrs(Settings::default(), &["192.0.2.1/24"], &["2001:db8:1::1/64"]);
    let made: Vec<_> = rig.router.ports().get(LAN).expect("port").addrs.iter().map(|a| a.addr()).collect();
    // Every Ethernet port has its link-local address: rfc4862-5.3-link-local, rfc4291-a-eui64.
    assert_eq!(made, [ip("192.0.2.1"), ip("fe80::ff:fe00:ff01")]);
    assert!(rig.router.set_mtu(LAN, 1279).is_err());
}
