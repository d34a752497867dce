//! Forwarding between simulated hosts: native, via IPv6 next hops, through tunnels, by groups and plug-ins.

use router_core::addr::Family;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;
use testbeds::sim::{Net, packets};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn settle(net: &mut Net) {
    net.run(Duration::from_millis(20));
}

/// Sends an echo request and asserts that the reply comes back whole, having lost `hops` from its TTL.
fn ping(net: &mut Net, from: usize, to: usize, family: Family, hops: u8) {
    let (src, dst) = (net.h(from).addr(family), net.h(to).addr(family));
    let payload: Vec<u8> = (0..100).collect();
    net.send(from, packets::echo(src, dst, 1, 64, false, &payload));
    settle(net);
    let got = net.h(from).take();
    let reply = got.iter().find(|p| packets::source(p) == dst).unwrap_or_else(|| panic!("no reply: {got:02x?}"));
    let (_, _, body) = packets::icmp(reply).expect("ICMP");
    assert_eq!(&body[4..], payload);
    assert!(packets::checksums_right(reply));
    assert_eq!(packets::ttl(reply), 64 - hops);
    net.h(to).take();
}

/// The sources of the ICMP errors that a traceroute of `hops` hops gets.
fn trace(net: &mut Net, from: usize, to: usize, family: Family, hops: u8) -> Vec<IpAddr> {
    let (src, dst) = (net.h(from).addr(family), net.h(to).addr(family));
    let mut path = Vec::new();
    for ttl in 1..=hops {
        net.send(from, packets::udp(src, dst, (40_000, 33_434 + u16::from(ttl)), ttl, false, b"probe"));
        settle(net);
        for p in net.h(from).take() {
            let (kind, code, body) = packets::icmp(&p).expect("ICMP");
            let expected = if family == Family::Inet { (11, 0) } else { (3, 0) };
            assert_eq!((kind, code), expected);
            assert_eq!(packets::destination(&body[4..]), dst, "the error quotes the probe");
            assert!(packets::checksums_right(&p));
            path.push(packets::source(&p));
        }
    }
    path
}

#[test]
fn native_both_families() {
    let mut net = Net::default();
    let r = net.router(Settings::default());
    let p = net.port(r, "lan0", 1500, &["192.0.2.1/25", "2001:db8:0:1::1/64"]);
    let q = net.port(r, "lan1", 1500, &["192.0.2.129/25", "2001:db8:0:2::1/64"]);
    let a = net.host(&["192.0.2.2/25", "2001:db8:0:1::2/64"], &["192.0.2.1", "2001:db8:0:1::1"]);
    let b = net.host(&["192.0.2.130/25", "2001:db8:0:2::2/64"], &["192.0.2.129", "2001:db8:0:2::1"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    net.link(p, na);
    net.link(q, nb);
    for family in [Family::Inet, Family::Inet6] {
        ping(&mut net, a, b, family, 1);
        ping(&mut net, b, a, family, 1);
        let own = if family == Family::Inet { "192.0.2.1" } else { "2001:db8:0:1::1" };
        assert_eq!(trace(&mut net, a, b, family, 1), [ip(own)]);
    }
    net.check();
    assert_eq!(net.r(r).totals().held, 0);
}

/// Three routers in a row; the transit links have IPv6 addresses only.
fn chain(net: &mut Net, mtus: [u32; 2], link_local: bool) -> (usize, usize, Vec<usize>) {
    let routers: Vec<_> = (0..3).map(|_| net.router(Settings::default())).collect();
    let a = net.host(&["198.51.100.2/24"], &["198.51.100.1"]);
    let b = net.host(&["203.0.113.2/24"], &["203.0.113.1"]);
    let left = net.port(routers[0], "lan0", 1500, &["198.51.100.1/24"]);
    let right = net.port(routers[2], "lan0", 1500, &["203.0.113.1/24"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    net.link(left, na);
    net.link(right, nb);
    for (i, mtu) in mtus.into_iter().enumerate() {
        let (x, y) = (format!("2001:db8:{i}::1"), format!("2001:db8:{i}::2"));
        let p = net.port(routers[i], &format!("right{i}"), mtu, &[&format!("{x}/64")]);
        let q = net.port(routers[i + 1], &format!("left{i}"), mtu, &[&format!("{y}/64")]);
        net.link(p, q);
        let gateway = |net: &mut Net, node: usize, name: &str, global: &str| {
            if !link_local {
                return (global.to_owned(), None);
            }
            let port = net.r(node).router.ports().by_name(name).expect("port").link_local().expect("link-local");
            (port.to_string(), Some(()))
        };
        let (to_right, ll) = gateway(net, routers[i + 1], &format!("left{i}"), &y);
        let dev = format!("right{i}");
        net.route(routers[i], "203.0.113.0/24", Some(&to_right), ll.map(|()| dev.as_str()));
        let (to_left, ll) = gateway(net, routers[i], &format!("right{i}"), &x);
        let dev = format!("left{i}");
        net.route(routers[i + 1], "198.51.100.0/24", Some(&to_left), ll.map(|()| dev.as_str()));
    }
    (a, b, routers)
}

/// Proves rfc9229-1-forward, draft-v4-via-v6-3-resolve.
#[test]
fn rfc9229_ipv4_across_routers_without_ipv4() {
    for link_local in [false, true] {
        let mut net = Net::default();
        let (a, b, routers) = chain(&mut net, [1500, 1500], link_local);
        ping(&mut net, a, b, Family::Inet, 3);
        ping(&mut net, b, a, Family::Inet, 3);
        // The router in the middle has no IPv4 address and answers from the dummy one (RFC 7600 5.4).
        let path = trace(&mut net, a, b, Family::Inet, 3);
        assert_eq!(path, [ip("198.51.100.1"), ip("192.0.0.8"), ip("203.0.113.1")]);
        net.check();
        for r in routers {
            assert_eq!(net.r(r).totals().held, 0);
        }
    }
}

/// Proves rfc1191-4-size, rfc8201-4-true, rfc9229-3-icmp.
#[test]
fn rfc1191_the_true_mtu_comes_back_across_the_chain() {
    let mut net = Net::default();
    let (a, b, _) = chain(&mut net, [1500, 1400], false);
    let (src, dst) = (net.h(a).addr(Family::Inet), net.h(b).addr(Family::Inet));
    net.send(a, packets::udp(src, dst, (1, 2), 64, true, &[0; 1400]));
    settle(&mut net);
    let got = net.h(a).take();
    let (kind, code, body) = packets::icmp(&got[0]).expect("ICMP");
    assert_eq!((kind, code, u16::from_be_bytes([body[2], body[3]])), (3, 4, 1400));
    assert_eq!(packets::source(&got[0]), ip("192.0.0.8"));
    // Without DF it arrives in fragments.
    net.send(a, packets::udp(src, dst, (1, 2), 64, false, &[0; 1400]));
    settle(&mut net);
    let got = net.h(b).take();
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|p| p.len() <= 1400 && packets::checksums_right(p)));
    net.check();
}

fn tunnel(local: &str, remote: &str) -> TunnelSpec {
    TunnelSpec::new("t0", TunnelMode::SixInFour, ip(local), ip(remote))
}

/// Two IPv6 sites, their routers, and an IPv4-only router between them whose right link has `mtu`.
fn sites(net: &mut Net, mtu: u32) -> (usize, usize, [usize; 3]) {
    let [left, middle, right] = [(); 3].map(|()| net.router(Settings::default()));
    let a = net.host(&["2001:db8:a::2/64"], &["2001:db8:a::1"]);
    let b = net.host(&["2001:db8:b::2/64"], &["2001:db8:b::1"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    for (r, site, own, peer, mtu, nic) in
        [(left, "a", "198.51.100.1", "198.51.100.2", 1500, na), (right, "b", "203.0.113.1", "203.0.113.2", mtu, nb)]
    {
        let lan = net.port(r, "lan", 1500, &[&format!("2001:db8:{site}::1/64")]);
        net.link(lan, nic);
        let wan = net.port(r, "wan", 1500, &[&format!("{own}/24")]);
        let up = net.port(middle, &format!("to_{site}"), mtu, &[&format!("{peer}/24")]);
        net.link(wan, up);
        net.route(r, "0.0.0.0/0", Some(peer), None);
        let remote = if site == "a" { "203.0.113.1" } else { "198.51.100.1" };
        net.with(r, |r, now, _| r.add_tunnel(now, tunnel(own, remote), vec![]).map(|_| ())).expect("tunnel");
        let other = if site == "a" { "2001:db8:b::/48" } else { "2001:db8:a::/48" };
        net.route(r, other, None, Some("t0"));
    }
    (a, b, [left, middle, right])
}

/// Proves rfc4213-3.5-header.
#[test]
fn rfc4213_6in4_between_two_sites() {
    let mut net = Net::default();
    let (a, b, routers) = sites(&mut net, 1500);
    ping(&mut net, a, b, Family::Inet6, 2);
    ping(&mut net, b, a, Family::Inet6, 2);
    // Tunnel MTU 1480: one byte more is refused with it.
    let (src, dst) = (net.h(a).addr(Family::Inet6), net.h(b).addr(Family::Inet6));
    net.send(a, packets::udp(src, dst, (1, 2), 64, true, &[0; 1480 - 48]));
    net.send(a, packets::udp(src, dst, (1, 2), 64, true, &[0; 1481 - 48]));
    settle(&mut net);
    assert_eq!(net.h(b).take().len(), 1);
    let got = net.h(a).take();
    let (kind, _, body) = packets::icmp(&got[0]).expect("ICMP");
    assert_eq!((kind, u32::from_be_bytes([body[0], body[1], body[2], body[3]])), (2, 1480));
    net.check();
    for r in routers {
        assert_eq!(net.r(r).totals().held, 0);
    }
}

/// Proves rfc1191-6.3-age, rfc2003-4-icmp, rfc2003-5.1-mtu, rfc4213-3.2.2-dynamic.
#[test]
fn rfc4213_3_2_2_path_mtu_of_the_underlay_comes_inward() {
    let mut net = Net::default();
    let (a, b, [left, ..]) = sites(&mut net, 1400);
    ping(&mut net, a, b, Family::Inet6, 2);
    let (src, dst) = (net.h(a).addr(Family::Inet6), net.h(b).addr(Family::Inet6));
    let big = packets::udp(src, dst, (1, 2), 64, true, &[0; 1450 - 48]);
    // The first one teaches the tunnel, and its sender by what the outer error quotes; the second one is refused at once.
    for _ in 0..2 {
        net.send(a, big.clone());
        settle(&mut net);
        let got = net.h(a).take();
        let (kind, _, body) = packets::icmp(&got[0]).expect("ICMP");
        assert_eq!((kind, u32::from_be_bytes([body[0], body[1], body[2], body[3]])), (2, 1380));
    }
    // Ten minutes later the path may have grown (RFC 1191 6.3).
    net.run(Duration::from_secs(601));
    let now = net.now();
    let t: Vec<_> = net.r(left).router.tunnels(now).map(|t| t.mtu).collect();
    assert_eq!(t, [1480]);
    net.check();
}

/// Proves rfc2003-3.1-header.
#[test]
fn ipv4_via_an_ipv6_next_hop_behind_a_tunnel() {
    let mut net = Net::default();
    let (_, _, [left, _, right]) = sites(&mut net, 1500);
    let c = net.host(&["192.0.2.2/24"], &["192.0.2.1"]);
    let d = net.host(&["203.0.114.2/24"], &["203.0.114.1"]);
    for (r, own, nic) in [(left, "192.0.2.1/24", net.nic(c)), (right, "203.0.114.1/24", net.nic(d))] {
        let lan = net.port(r, "lan4", 1500, &[own]);
        net.link(lan, nic);
    }
    // The gateways are the far routers' addresses on their sites: recursive, through the tunnel.
    net.route(left, "203.0.114.0/24", Some("2001:db8:b::1"), None);
    net.route(right, "192.0.2.0/24", Some("2001:db8:a::1"), None);
    ping(&mut net, c, d, Family::Inet, 2);
    ping(&mut net, d, c, Family::Inet, 2);
    net.check();
}

#[test]
fn groups_of_both_families_share_flows_and_keep_them() {
    let mut net = Net::default();
    let r = net.router(Settings::default());
    let lan = net.port(r, "lan", 1500, &["192.0.2.1/24"]);
    let a = net.host(&["192.0.2.2/24"], &["192.0.2.1"]);
    let na = net.nic(a);
    net.link(lan, na);
    let one = net.port(r, "one", 1500, &["198.51.100.1/24"]);
    let two = net.port(r, "two", 1500, &["2001:db8::1/64"]);
    let g1 = net.host(&["198.51.100.2/24"], &["198.51.100.1"]);
    let g2 = net.host(&["2001:db8::2/64"], &["2001:db8::1"]);
    let (n1, n2) = (net.nic(g1), net.nic(g2));
    net.link(one, n1);
    net.link(two, n2);
    let mut spec = RouteSpec::new("203.0.113.0/24".parse().expect("prefix"));
    spec.hops = ["198.51.100.2", "2001:db8::2"]
        .map(|g| HopSpec { via: Some(ip(g)), dev: None, weight: 1, onlink: false })
        .into();
    net.with(r, |r, _, _| r.routing_mut().route(RouteOp::Add, &spec)).expect("route");
    for round in 0..3 {
        for flow in 0..100u16 {
            net.send(a, packets::udp(ip("192.0.2.2"), ip("203.0.113.9"), (1000 + flow, 53), 64, false, b"flow"));
            // In bursts that the queues of unresolved neighbours can hold.
            if flow % 16 == 15 {
                settle(&mut net);
            }
        }
        settle(&mut net);
        let flows = |packets: Vec<Vec<u8>>| {
            let mut v: Vec<_> = packets.iter().map(|p| u16::from_be_bytes([p[20], p[21]])).collect();
            v.sort_unstable();
            v
        };
        let (x, y) = (flows(net.h(g1).take()), flows(net.h(g2).take()));
        assert_eq!(x.len() + y.len(), 100, "round {round}: none lost, not even while resolving");
        assert!(x.len() > 25 && y.len() > 25, "{} and {}", x.len(), y.len());
        assert!(x.iter().all(|p| !y.contains(p)));
        if round == 2 {
            // The gateway of the second member goes: all flows take the first.
            let id = net.r(r).router.ports().by_name("two").expect("port").id;
            net.with(r, |r, now, out| r.set_link(now, id, None, Some(false), out)).expect("link");
            for flow in 0..100u16 {
                net.send(a, packets::udp(ip("192.0.2.2"), ip("203.0.113.9"), (1000 + flow, 53), 64, false, b"flow"));
            }
            settle(&mut net);
            assert_eq!(net.h(g1).take().len(), 100);
        }
    }
    net.check();
}

#[test]
fn a_group_leaves_a_silent_gateway_out_and_takes_it_back() {
    let mut net = Net::default();
    let r = net.router(Settings::default());
    let lan = net.port(r, "lan", 1500, &["192.0.2.1/24"]);
    let a = net.host(&["192.0.2.2/24"], &["192.0.2.1"]);
    let na = net.nic(a);
    net.link(lan, na);
    let mut gateways = Vec::new();
    for (name, own, peer) in
        [("one", "198.51.100.1/24", "198.51.100.2/24"), ("two", "2001:db8::1/64", "2001:db8::2/64")]
    {
        let port = net.port(r, name, 1500, &[own]);
        let g = net.host(&[peer], &[own.split('/').next().expect("address")]);
        let nic = net.nic(g);
        net.link(port, nic);
        gateways.push(g);
    }
    let mut spec = RouteSpec::new("203.0.113.0/24".parse().expect("prefix"));
    spec.hops = ["198.51.100.2", "2001:db8::2"]
        .map(|g| HopSpec { via: Some(ip(g)), dev: None, weight: 1, onlink: false })
        .into();
    net.with(r, |r, _, _| r.routing_mut().route(RouteOp::Add, &spec)).expect("route");
    // Two flows each of which may have either member; sixteen make sure that both are used.
    let burst = |net: &mut Net| {
        for flow in 0..16u16 {
            net.send(a, packets::udp(ip("192.0.2.2"), ip("203.0.113.9"), (2000 + flow, 53), 64, false, b"flow"));
        }
        settle(net);
    };
    burst(&mut net);
    let both = [net.h(gateways[0]).take().len(), net.h(gateways[1]).take().len()];
    assert_eq!(both[0] + both[1], 16);
    assert!(both[0] > 0 && both[1] > 0, "{both:?}");
    // The second one dies silently; within the probing time of RFC 4861 all flows use the first.
    net.h(gateways[1]).alive = false;
    for _ in 0..80 {
        burst(&mut net);
        net.run(Duration::from_secs(1));
    }
    net.h(gateways[0]).take();
    for _ in 0..20 {
        burst(&mut net);
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.h(gateways[0]).take().len(), 20 * 16, "none is lost to the dead member, nor waits for it");
    // It comes back and gets its flows again, although nobody sent anything its way.
    net.h(gateways[1]).alive = true;
    net.run(Duration::from_secs(15));
    burst(&mut net);
    assert_eq!([net.h(gateways[0]).take().len(), net.h(gateways[1]).take().len()], both);
    net.check();
}

#[test]
fn a_forwarder_from_outside_the_core_plugs_in() {
    let mut net = Net::default();
    let r = net.router(Settings::default());
    let p = net.port(r, "lan0", 1500, &["192.0.2.1/25"]);
    let q = net.port(r, "lan1", 1500, &["192.0.2.129/25"]);
    let a = net.host(&["192.0.2.2/25"], &["192.0.2.1"]);
    let b = net.host(&["192.0.2.130/25", "203.0.113.1/32"], &["192.0.2.129"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    net.link(p, na);
    net.link(q, nb);
    net.with(r, |r, _, _| r.routing_mut().register_forwarder(Arc::new(testbeds::remark::Remark { dscp: 46 })));
    let mut spec = RouteSpec::new("203.0.113.1/32".parse().expect("prefix"));
    spec.hops.push(HopSpec { via: Some(ip("192.0.2.130")), dev: None, weight: 1, onlink: false });
    spec.forwarder = Some("remark".into());
    net.with(r, |r, _, _| r.routing_mut().route(RouteOp::Add, &spec)).expect("route");
    net.send(a, packets::udp(ip("192.0.2.2"), ip("203.0.113.1"), (1, 2), 64, false, b"x"));
    settle(&mut net);
    let got = net.h(b).take();
    assert_eq!((got[0][1], packets::ttl(&got[0])), (46 << 2, 63));
    assert!(packets::checksums_right(&got[0]));
    net.check();
}
