//! Neighbours in simulated networks: nothing lost while resolving, failure told, life over hours, links that go.

use router_core::addr::Family;
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::NudState;
use router_core::time::Duration;
use std::net::IpAddr;
use testbeds::sim::{Net, packets};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A router between two links with one host each.
fn lan(settings: Settings) -> (Net, usize, usize, usize) {
    let mut net = Net::default();
    let r = net.router(settings);
    let p = net.port(r, "lan0", 1500, &["192.0.2.1/25", "2001:db8:0:1::1/64"]);
    let q = net.port(r, "lan1", 1500, &["192.0.2.129/25", "2001:db8:0:2::1/64"]);
    let a = net.host(&["192.0.2.2/25", "2001:db8:0:1::2/64"], &["192.0.2.1", "2001:db8:0:1::1"]);
    let b = net.host(&["192.0.2.130/25", "2001:db8:0:2::2/64"], &["192.0.2.129", "2001:db8:0:2::1"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    net.link(p, na);
    net.link(q, nb);
    (net, r, a, b)
}

fn probe(net: &mut Net, a: usize, b: usize, family: Family, port: u16) {
    let (src, dst) = (net.h(a).addr(family), net.h(b).addr(family));
    net.send(a, packets::udp(src, dst, (port, 9), 64, false, b"probe"));
}

fn state(net: &mut Net, r: usize, addr: IpAddr) -> Option<NudState> {
    net.r(r).router.neighbors().into_iter().find(|n| n.addr == addr).map(|n| n.state)
}

/// Proves rfc4861-7.2.2-hold.
#[test]
fn rfc4861_7_2_2_a_burst_to_a_new_neighbour_loses_nothing_and_keeps_its_order() {
    for family in [Family::Inet, Family::Inet6] {
        let (mut net, r, a, b) = lan(Settings::default());
        for i in 0..16 {
            probe(&mut net, a, b, family, i);
        }
        net.run(Duration::from_millis(10));
        let got = net.h(b).take();
        let at = if family == Family::Inet { 20 } else { 40 };
        let order: Vec<_> = got.iter().map(|p| u16::from_be_bytes([p[at], p[at + 1]])).collect();
        assert_eq!(order, (0..16).collect::<Vec<_>>());
        assert_eq!(net.h(b).asked, 1, "one question for the whole burst");
        net.check();
        assert_eq!(net.r(r).totals().held, 0);
    }
}

/// Proves rfc1812-4.3.3.1-host, rfc1812-3.3.2-arp, rfc4443-3.1-code-3, rfc4861-7.2.2-fail.
#[test]
fn a_neighbour_that_does_not_answer_is_told_to_every_sender() {
    for (family, code) in [(Family::Inet, (3, 1)), (Family::Inet6, (1, 3))] {
        let (mut net, r, a, b) = lan(Settings::default());
        net.h(b).alive = false;
        for i in 0..5 {
            probe(&mut net, a, b, family, i);
        }
        net.run(Duration::from_secs(1));
        assert!(net.h(a).take().is_empty(), "not before MAX_MULTICAST_SOLICIT questions");
        assert_eq!(net.r(r).totals().held, 5);
        net.run(Duration::from_secs(4));
        let got = net.h(a).take();
        assert_eq!(got.len(), 5);
        for p in &got {
            assert_eq!(packets::icmp(p).map(|(k, c, _)| (k, c)), Some(code));
            assert!(packets::checksums_right(p));
        }
        assert_eq!(net.r(r).totals().dropped, [("neighbor_failed", 5)].into());
        // It comes back; traffic finds out by itself.
        net.h(b).alive = true;
        net.run(Duration::from_secs(10));
        probe(&mut net, a, b, family, 9);
        net.run(Duration::from_millis(10));
        assert_eq!(net.h(b).take().len(), 1);
        net.check();
    }
}

/// Proves rfc4861-7.3.3-probe.
#[test]
fn rfc4861_7_3_a_used_neighbour_is_probed_and_a_silent_one_is_lost() {
    for family in [Family::Inet, Family::Inet6] {
        let (mut net, r, a, b) = lan(Settings::default());
        let dst = net.h(b).addr(family);
        probe(&mut net, a, b, family, 1);
        net.run(Duration::from_secs(1));
        assert_eq!(state(&mut net, r, dst), Some(NudState::Reachable));
        net.run(Duration::from_secs(60));
        assert_eq!(state(&mut net, r, dst), Some(NudState::Stale));
        // An hour of traffic: asked again and again, never lost.
        for i in 0..360 {
            probe(&mut net, a, b, family, i);
            net.run(Duration::from_secs(10));
        }
        assert_eq!(net.h(b).take().len(), 361);
        let asked = net.h(b).asked;
        assert!((10..=400).contains(&asked), "asked {asked} times in an hour");
        // The host dies: a few packets go into the void, then senders are told.
        net.h(b).alive = false;
        net.h(a).take();
        for i in 0..90 {
            probe(&mut net, a, b, family, i);
            net.run(Duration::from_secs(1));
        }
        let told = net.h(a).take().len();
        assert!(told > 30, "told {told} times");
        net.check();
    }
}

#[test]
fn a_link_that_goes_down_drops_what_waits_and_comes_back() {
    // A link that is up again has its groups reported, which is not counted here.
    let mut settings = Settings::default();
    settings.neighbor.mld = false;
    let (mut net, r, a, b) = lan(settings);
    net.h(b).alive = false;
    probe(&mut net, a, b, Family::Inet, 1);
    net.run(Duration::from_millis(100));
    assert_eq!(net.r(r).totals().held, 1);
    let port = net.r(r).router.ports().by_name("lan1").expect("port").id;
    net.with(r, |r, now, out| r.set_link(now, port, None, Some(false), out)).expect("link");
    assert_eq!(net.r(r).totals().dropped, [("port_down", 1)].into());
    probe(&mut net, a, b, Family::Inet, 2);
    net.run(Duration::from_millis(100));
    assert_eq!(net.h(a).take().len(), 1, "net unreachable while the link is down");
    net.with(r, |r, now, out| r.set_link(now, port, None, Some(true), out)).expect("link");
    net.h(b).alive = true;
    probe(&mut net, a, b, Family::Inet, 3);
    net.run(Duration::from_millis(100));
    assert_eq!(net.h(b).take().len(), 1);
    net.check();
}

#[test]
fn a_port_removed_in_the_middle_leaves_nothing_behind() {
    let (mut net, r, a, b) = lan(Settings::default());
    probe(&mut net, a, b, Family::Inet6, 1);
    net.run(Duration::from_millis(100));
    let port = net.r(r).router.ports().by_name("lan1").expect("port").id;
    net.with(r, |r, now, out| r.remove_port(now, port, out)).expect("port");
    assert_eq!(net.r(r).router.ports().get(PortId(port.0)).map(|p| p.name.clone()), None);
    probe(&mut net, a, b, Family::Inet6, 2);
    net.run(Duration::from_millis(100));
    let got = net.h(a).take();
    assert_eq!(packets::icmp(&got[0]).map(|(k, c, _)| (k, c)), Some((1, 0)));
    assert!(net.r(r).router.neighbors().iter().all(|n| n.port != port));
    net.check();
}

/// Proves rfc6583-7.1-priority.
#[test]
fn rfc6583_a_scan_does_not_hurt_known_neighbours() {
    let (mut net, r, a, b) = lan(Settings::default());
    probe(&mut net, a, b, Family::Inet6, 1);
    net.run(Duration::from_secs(1));
    net.h(b).take();
    let src = net.h(a).addr(Family::Inet6);
    for i in 0..5000u32 {
        let dst = ip(&format!("2001:db8:0:2:ffff:0:{:x}:{:x}", i >> 16, i & 0xffff));
        net.send(a, packets::udp(src, dst, (1, 2), 64, false, b"scan"));
        if i % 100 == 0 {
            probe(&mut net, a, b, Family::Inet6, 7);
            net.run(Duration::from_millis(5));
        }
    }
    net.run(Duration::from_secs(10));
    assert_eq!(net.h(b).take().len(), 50, "every packet to the known neighbour arrives");
    let entries = net.r(r).router.neighbors().len();
    assert!(entries <= Settings::default().neighbor.max_entries, "{entries} entries");
    net.check();
    assert_eq!(net.r(r).totals().held, 0);
}

/// Proves rfc6583-7.3-gateways.
#[test]
fn rfc6583_a_gateway_is_found_in_the_middle_of_a_scan() {
    let (mut net, r, a, b) = lan(Settings::default());
    net.route(r, "203.0.113.0/24", Some("192.0.2.130"), None);
    net.route(r, "198.51.100.0/24", Some("2001:db8:0:2::2"), None);
    let src = net.h(a).addr(Family::Inet6);
    // More than the limit of INCOMPLETE, and than what may wait: nobody answers.
    for i in 0..5000u32 {
        let dst = ip(&format!("2001:db8:0:2:ffff:0:{:x}:{:x}", i >> 16, i & 0xffff));
        net.send(a, packets::udp(src, dst, (1, 2), 64, false, b"scan"));
    }
    net.run(Duration::from_millis(10));
    let asked = net.r(r).router.neighbors().iter().filter(|n| n.state == NudState::Incomplete).count();
    assert_eq!(asked, Settings::default().neighbor.max_incomplete);
    net.h(b).take();
    let src = net.h(a).addr(Family::Inet);
    for dst in ["203.0.113.7", "198.51.100.7"] {
        net.send(a, packets::udp(src, ip(dst), (1, 2), 64, false, b"probe"));
    }
    net.run(Duration::from_millis(10));
    assert_eq!(net.h(b).take().len(), 2);
    net.run(Duration::from_secs(10));
    net.check();
    assert_eq!(net.r(r).totals().held, 0);
}

/// The fragment `start..end` of an IPv4 packet's payload.
fn fragment(whole: &[u8], start: usize, end: usize, more: bool, id: u16) -> Vec<u8> {
    let (src, dst) = (packets::source(whole), packets::destination(whole));
    let mut f = packets::ip(src, dst, whole[9], 64, false, &whole[20 + start..20 + end]);
    f[4..6].copy_from_slice(&id.to_be_bytes());
    f[6..8].copy_from_slice(&(((start / 8) as u16) | if more { 0x2000 } else { 0 }).to_be_bytes());
    f[10..12].fill(0);
    let sum = packets::sum16(&[&f[..20]]).to_be_bytes();
    f[10..12].copy_from_slice(&sum);
    f
}

#[test]
fn fragments_that_nothing_follows_do_not_shut_others_out() {
    let (mut net, r, a, _) = lan(Settings::default());
    let echo = |dst: &str| packets::echo(ip("192.0.2.2"), ip(dst), 1, 64, false, &[7; 2000]);
    for id in 0..1000 {
        net.send(a, fragment(&echo("192.0.2.129"), 0, 1480, true, id));
    }
    net.run(Duration::from_millis(10));
    let held = net.r(r).totals().held;
    assert!((1..=256).contains(&held), "{held}");
    let whole = echo("192.0.2.1");
    net.send(a, fragment(&whole, 0, 1480, true, 7777));
    net.send(a, fragment(&whole, 1480, whole.len() - 20, false, 7777));
    net.run(Duration::from_millis(10));
    assert_eq!(net.h(a).take().len(), 2, "an echo reply in two fragments");
    let totals = net.r(r).totals();
    let refused = totals.dropped.iter().find(|(reason, _)| **reason == "held_limit").map(|(_, n)| *n);
    assert_eq!((refused, totals.held), (Some(1001 - held), held - 1));
    net.check();
    net.run(Duration::from_secs(60));
    net.check();
    assert_eq!(net.r(r).totals().held, 0);
}

/// Proves rfc1122-3.3.2-reassembly, rfc1812-4.2.2.8-reassembly, rfc791-3.2-reassembly.
#[test]
fn rfc791_fragments_to_the_router_are_put_together_and_answered() {
    let (mut net, _, a, _) = lan(Settings::default());
    let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let whole = packets::echo(ip("192.0.2.2"), ip("192.0.2.1"), 1, 64, false, &payload);
    for (offset, more) in [(0usize, true), (1480, true), (2960, false)] {
        let end = (offset + 1480).min(whole.len() - 20);
        let mut f = packets::ip(ip("192.0.2.2"), ip("192.0.2.1"), 1, 64, false, &whole[20 + offset..20 + end]);
        f[6] = if more { 0x20 } else { 0 } | ((offset / 8) >> 8) as u8;
        f[7] = (offset / 8) as u8;
        f[10..12].fill(0);
        let sum = packets::sum16(&[&f[..20]]).to_be_bytes();
        f[10..12].copy_from_slice(&sum);
        net.send(a, f);
    }
    net.run(Duration::from_millis(50));
    let got = net.h(a).take();
    assert_eq!(got.len(), 3, "the reply is fragmented too");
    let joined: Vec<u8> = got.iter().flat_map(|p| p[20..].to_vec()).collect();
    assert_eq!(joined[8..], payload);
    net.check();
}

/// Proves rfc4443-4.2-data.
/// Proves rfc8200-4.5-source.
#[test]
fn rfc8200_4_5_a_long_echo_reply_of_ours_is_fragmented_at_its_source() {
    let (mut net, _, a, _) = lan(Settings::default());
    let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let whole = packets::echo(ip("2001:db8:0:1::2"), ip("2001:db8:0:1::1"), 1, 64, false, &payload);
    for (offset, more) in [(0usize, true), (1448, true), (2896, false)] {
        let end = (offset + 1448).min(whole.len() - 40);
        let field = (offset as u16 | u16::from(more)).to_be_bytes();
        let body = [&[58, 0, field[0], field[1], 0, 0, 0, 9], &whole[40 + offset..40 + end]].concat();
        net.send(a, packets::ip(ip("2001:db8:0:1::2"), ip("2001:db8:0:1::1"), 44, 64, false, &body));
    }
    net.run(Duration::from_millis(50));
    let got = net.h(a).take();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|p| p.len() <= 1500 && p[6] == 44));
    let joined: Vec<u8> = got.iter().flat_map(|p| p[48..].to_vec()).collect();
    assert_eq!((joined[0], &joined[8..]), (129, &payload[..]));
    net.check();
}
