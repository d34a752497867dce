//! Translation between simulated hosts: SIIT with explicit maps, NAT64 with its sessions and timers, 464XLAT, the closed
//! network of ::ffff:0:0/96, and ICMP errors across.

use router_core::addr::Family;
use router_core::settings::Settings;
use router_core::time::Duration;
use router_core::translate::{TranslateMode, TranslatorSpec};
use std::net::IpAddr;
use testbeds::sim::{Net, packets};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn settle(net: &mut Net) {
    net.run(Duration::from_millis(20));
}

fn add(net: &mut Net, router: usize, spec: TranslatorSpec) {
    net.with(router, |r, now, _| r.add_translator(now, spec)).expect("translator");
}

fn spec(name: &str, mode: TranslateMode, prefix: &str) -> TranslatorSpec {
    let mut s = TranslatorSpec::new(name, mode);
    s.prefix = Some(prefix.parse().expect("prefix"));
    s
}

/// Sends an echo request to `to`, which is how `from` sees the other host, and asserts that the reply comes back whole.
fn ping(net: &mut Net, from: usize, to: IpAddr, seq: u16, hops: u8) {
    let src = net.h(from).addr(Family::of(&to));
    let payload: Vec<u8> = (0..100).collect();
    net.send(from, packets::echo(src, to, seq, 64, false, &payload));
    settle(net);
    let got = net.h(from).take();
    let reply = got.iter().find(|p| packets::source(p) == to).unwrap_or_else(|| panic!("no reply: {got:02x?}"));
    let (kind, _, body) = packets::icmp(reply).expect("ICMP");
    assert_eq!(kind, if to.is_ipv4() { 0 } else { 129 });
    assert_eq!(&body[4..], payload);
    assert_eq!(body[2..4], seq.to_be_bytes());
    assert!(packets::checksums_right(reply));
    assert_eq!(packets::ttl(reply), 64 - hops);
}

/// six - router - four.
fn bed() -> (Net, usize, usize, usize) {
    let mut net = Net::default();
    let r = net.router(Settings::default());
    let p = net.port(r, "six0", 1500, &["2001:db8:6::1/64"]);
    let q = net.port(r, "four0", 1500, &["203.0.113.1/24"]);
    let six = net.host(&["2001:db8:6::2/64"], &["2001:db8:6::1"]);
    let four = net.host(&["203.0.113.9/24"], &["203.0.113.1"]);
    let (a, b) = (net.nic(six), net.nic(four));
    net.link(p, a);
    net.link(q, b);
    (net, r, six, four)
}

fn nat64(net: &mut Net, r: usize) {
    let mut s = spec("nat64", TranslateMode::Nat64, "2001:db8:64::/96");
    s.pool = vec!["198.51.100.1-198.51.100.2".parse().expect("pool")];
    add(net, r, s);
    net.route(r, "2001:db8:64::/96", None, Some("nat64"));
    net.route(r, "198.51.100.0/30", None, Some("nat64"));
}

fn sessions(net: &mut Net, r: usize) -> u64 {
    net.r(r).router.translators().filter_map(|t| t.nat64).map(|n| n.sessions).sum()
}

/// Proves rfc6146-1.2-reach.
#[test]
fn rfc6146_an_ipv6_host_reaches_an_ipv4_host() {
    let (mut net, r, six, four) = bed();
    nat64(&mut net, r);
    for seq in [7, 8, 9] {
        ping(&mut net, six, ip("2001:db8:64::203.0.113.9"), seq, 1);
        // What the IPv4 host saw came from the pool, with its own identifier.
        for seen in net.h(four).take() {
            assert!(["198.51.100.1", "198.51.100.2"].contains(&packets::source(&seen).to_string().as_str()));
            assert!(packets::checksums_right(&seen));
        }
    }
    assert_eq!(sessions(&mut net, r), 1);
    // ICMP_DEFAULT: a minute after the last packet it is forgotten, on the clock of the simulation.
    net.run(Duration::from_secs(59));
    assert_eq!(sessions(&mut net, r), 1);
    net.run(Duration::from_secs(3));
    assert_eq!(sessions(&mut net, r), 0);
    net.check();
    assert_eq!(net.r(r).totals().held, 0);
}

/// Proves rfc6146-3.5.1-udp.
#[test]
fn rfc6146_udp_mapping_is_one_for_all_peers_and_open_for_answers() {
    let (mut net, r, six, four) = bed();
    nat64(&mut net, r);
    let src = net.h(six).addr(Family::Inet6);
    let mut mapped = Vec::new();
    for port in [53, 54, 55] {
        net.send(six, packets::udp(src, ip("2001:db8:64::203.0.113.9"), (4000, port), 64, false, b"query"));
        settle(&mut net);
        let seen = net.h(four).take().pop().expect("a packet");
        assert!(packets::checksums_right(&seen));
        assert_eq!(seen[20 + 8..], *b"query");
        mapped.push((packets::source(&seen), [seen[20], seen[21]]));
    }
    assert!(mapped.iter().all(|m| *m == mapped[0]), "{mapped:?}");
    // An answer, and a packet from a port that nobody asked: both come in (endpoint-independent filtering).
    let (dst, port) = mapped[0];
    for from in [53, 999] {
        let answer = packets::udp(ip("203.0.113.9"), dst, (from, u16::from_be_bytes(port)), 64, false, b"answer");
        net.send(four, answer);
        settle(&mut net);
        let seen = net.h(six).take().pop().expect("a packet");
        assert_eq!(packets::source(&seen), ip("2001:db8:64::203.0.113.9"));
        assert_eq!(seen[42..44], 4000u16.to_be_bytes());
        assert!(packets::checksums_right(&seen));
    }
    // To a port without binding: dropped with its reason.
    net.send(four, packets::udp(ip("203.0.113.9"), dst, (53, u16::from_be_bytes(port) ^ 1), 64, false, b"scan"));
    settle(&mut net);
    assert!(net.h(six).take().is_empty());
    assert_eq!(net.r(r).totals().dropped.get("translate_no_session"), Some(&1));
    net.check();
}

#[test]
fn rfc6146_3_8_hairpin() {
    let (mut net, r, six, _) = bed();
    nat64(&mut net, r);
    let p = net.port(r, "six1", 1500, &["2001:db8:7::1/64"]);
    let other = net.host(&["2001:db8:7::2/64"], &["2001:db8:7::1"]);
    let b = net.nic(other);
    net.link(p, b);
    let (x, y) = (net.h(six).addr(Family::Inet6), net.h(other).addr(Family::Inet6));
    // The other host opens a mapping; its end is found where the router lists it.
    net.send(other, packets::udp(y, ip("2001:db8:64::203.0.113.9"), (53, 53), 64, false, b"open"));
    settle(&mut net);
    let now = net.now();
    let list = net.r(r).router.nat64_sessions(now, "nat64", 10).expect("sessions");
    let to: IpAddr = format!("2001:db8:64::{}", list[0].mapped).parse().expect("address");
    net.send(six, packets::udp(x, to, (4000, list[0].mapped_port), 64, false, b"hairpin"));
    settle(&mut net);
    let seen = net.h(other).take().pop().expect("through the hairpin");
    assert_eq!((&seen[48..], &seen[42..44]), (&b"hairpin"[..], &53u16.to_be_bytes()[..]));
    assert!(packets::source(&seen).to_string().starts_with("2001:db8:64::"));
    assert!(packets::checksums_right(&seen));
    assert_eq!(packets::ttl(&seen), 63, "one router, one hop");
    let answer =
        packets::udp(y, packets::source(&seen), (53, u16::from_be_bytes([seen[40], seen[41]])), 64, false, b"yes");
    net.send(other, answer);
    settle(&mut net);
    let back = net.h(six).take().pop().expect("the answer");
    assert_eq!((packets::source(&back), &back[48..]), (to, &b"yes"[..]));
    net.check();
}

/// Proves rfc7757-3.2-both.
#[test]
fn rfc7757_explicit_map_both_ways() {
    let (mut net, r, six, four) = bed();
    let mut s = spec("siit", TranslateMode::Siit, "2001:db8:64::/96");
    s.map = vec!["192.0.2.2 = 2001:db8:6::2".parse().expect("map")];
    add(&mut net, r, s);
    net.route(r, "2001:db8:64::/96", None, Some("siit"));
    net.route(r, "192.0.2.0/24", None, Some("siit"));
    ping(&mut net, six, ip("2001:db8:64::203.0.113.9"), 1, 1);
    net.h(four).take();
    ping(&mut net, four, ip("192.0.2.2"), 2, 1);
    net.h(six).take();
    // Nobody is behind the next address of the map's network: the prefix cannot stand for it here, ICMP says so.
    net.send(four, packets::udp(ip("203.0.113.9"), ip("192.0.2.2"), (1, 2), 1, false, b"short"));
    settle(&mut net);
    let e = net.h(four).take().pop().expect("time exceeded");
    assert_eq!(packets::icmp(&e).map(|(k, c, _)| (k, c)), Some((11, 0)));
    net.check();
}

/// Proves rfc7915-4.2-path-mtu.
#[test]
fn rfc7915_errors_and_path_mtu_across() {
    let (mut net, r, six, four) = bed();
    nat64(&mut net, r);
    let src = net.h(six).addr(Family::Inet6);
    let dst = ip("2001:db8:64::203.0.113.9");
    // Port unreachable from the IPv4 host, about what the IPv6 host has sent.
    let sent = packets::udp(src, dst, (4000, 33_434), 64, false, b"anybody?");
    net.send(six, sent.clone());
    settle(&mut net);
    let seen = net.h(four).take().pop().expect("a packet");
    let quote = &seen[..28];
    let mut icmp = [&[3u8, 3, 0, 0, 0, 0, 0, 0][..], quote].concat();
    let sum = packets::sum16(&[&icmp]).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    net.send(four, packets::ip(ip("203.0.113.9"), packets::source(&seen), 1, 64, false, &icmp));
    settle(&mut net);
    let e = net.h(six).take().pop().expect("the error");
    let (kind, code, body) = packets::icmp(&e).expect("ICMPv6");
    assert_eq!((kind, code, packets::source(&e)), (1, 4, dst));
    // The quote is what was sent, but for the hop.
    assert_eq!(body[4 + 8..][..40], sent[8..48]);
    assert!(packets::checksums_right(&e));

    // The link to the IPv4 side is narrow: too big for it, told in terms of the IPv6 packet.
    net.with(r, |r, _, _| {
        let id = r.ports().by_name("four0").expect("port").id;
        r.set_mtu(id, 1400)
    })
    .expect("mtu");
    net.send(six, packets::udp(src, dst, (4000, 33_434), 64, false, &[7; 1440]));
    settle(&mut net);
    let e = net.h(six).take().pop().expect("packet too big");
    let (kind, code, body) = packets::icmp(&e).expect("ICMPv6");
    assert_eq!((kind, code, u32::from_be_bytes([body[0], body[1], body[2], body[3]])), (2, 0, 1420));
    assert!(packets::checksums_right(&e));
    net.check();
}

/// Proves rfc7915-4-least.
#[test]
fn rfc7915_4_long_packets_without_df_arrive_in_fragments_of_the_least_mtu() {
    let (mut net, r, six, four) = bed();
    nat64(&mut net, r);
    let src = net.h(six).addr(Family::Inet6);
    net.send(six, packets::udp(src, ip("2001:db8:64::203.0.113.9"), (4000, 53), 64, false, b"open"));
    settle(&mut net);
    let seen = net.h(four).take().pop().expect("a packet");
    let (to, port) = (packets::source(&seen), u16::from_be_bytes([seen[20], seen[21]]));
    net.send(four, packets::udp(ip("203.0.113.9"), to, (53, port), 64, false, &[9; 1472]));
    settle(&mut net);
    let got = net.h(six).take();
    assert_eq!(got.len(), 2, "{got:02x?}");
    assert!(got.iter().all(|p| p.len() <= 1280 && p[6] == 44));
    let payload: usize = got.iter().map(|p| p.len() - 48).sum();
    assert_eq!(payload, 8 + 1472);
    net.check();
    // With DF it passes whole.
    net.send(four, packets::udp(ip("203.0.113.9"), to, (53, port), 64, true, &[9; 1452]));
    settle(&mut net);
    assert_eq!(net.h(six).take().pop().map(|p| p.len()), Some(1500));
}

/// four - clat router - plat router - server: the middle has IPv6 alone.
/// Proves rfc6877-6-464xlat.
#[test]
fn rfc6877_464xlat() {
    let mut net = Net::default();
    let (c, p) = (net.router(Settings::default()), net.router(Settings::default()));
    let lan = net.port(c, "lan0", 1500, &["192.0.0.1/29"]);
    let up = net.port(c, "up0", 1500, &["2001:db8:c::1/64"]);
    let down = net.port(p, "down0", 1500, &["2001:db8:c::2/64"]);
    let net4 = net.port(p, "net0", 1500, &["203.0.113.1/24"]);
    let host = net.host(&["192.0.0.2/29"], &["192.0.0.1"]);
    let server = net.host(&["203.0.113.9/24"], &["203.0.113.1"]);
    let (a, b) = (net.nic(host), net.nic(server));
    net.link(lan, a);
    net.link(up, down);
    net.link(net4, b);
    let mut clat = spec("clat", TranslateMode::Clat, "2001:db8:64::/96");
    clat.map = vec!["192.0.0.2 = 2001:db8:c::464:2".parse().expect("map")];
    add(&mut net, c, clat);
    net.route(c, "0.0.0.0/0", None, Some("clat"));
    net.route(c, "2001:db8:c::464:2/128", None, Some("clat"));
    net.route(c, "2001:db8:64::/96", Some("2001:db8:c::2"), None);
    nat64(&mut net, p);
    net.route(p, "2001:db8:c::464:2/128", Some("2001:db8:c::1"), None);
    ping(&mut net, host, ip("203.0.113.9"), 5, 2);
    net.h(server).take();
    // A traceroute's first hop beyond the CLAT is an IPv6 router without IPv4 address: RFC 6791, RFC 7600.
    net.send(host, packets::udp(ip("192.0.0.2"), ip("203.0.113.9"), (1000, 33_435), 2, false, b"probe"));
    settle(&mut net);
    let e = net.h(host).take().pop().expect("time exceeded");
    assert_eq!(packets::icmp(&e).map(|(k, c, _)| (k, c)), Some((11, 0)));
    assert_eq!(packets::source(&e), ip("192.0.0.8"));
    assert!(packets::checksums_right(&e));
    net.check();
}

/// Proves rfc2765-2.1-mapped.
#[test]
fn rfc2765_mapped_space_only_in_a_closed_network() {
    let mut s = spec("map", TranslateMode::Siit, "::ffff:0:0/96");
    s.map = vec!["192.0.2.2 = 2001:db8:6::2".parse().expect("map")];
    let (mut net, r, ..) = bed();
    let refused = net.with(r, |r, now, _| r.add_translator(now, s.clone())).expect_err("without the word");
    assert!(refused.to_string().contains("closed network"), "{refused}");

    let mut net = Net::default();
    let settings = Settings { mapped_ports: vec!["six0".into()], ..Settings::default() };
    let r = net.router(settings);
    let p = net.port(r, "six0", 1500, &["2001:db8:6::1/64"]);
    let q = net.port(r, "four0", 1500, &["203.0.113.1/24"]);
    let out = net.port(r, "out0", 1500, &["2001:db8:7::1/64"]);
    let six = net.host(&["2001:db8:6::2/64"], &["2001:db8:6::1"]);
    let four = net.host(&["203.0.113.9/24"], &["203.0.113.1"]);
    let outside = net.host(&["2001:db8:7::2/64"], &["2001:db8:7::1"]);
    for (end, host) in [(p, six), (q, four), (out, outside)] {
        let nic = net.nic(host);
        net.link(end, nic);
    }
    add(&mut net, r, s);
    net.route(r, "192.0.2.2/32", None, Some("map"));
    // Inside the closed network it works, both ways.
    ping(&mut net, four, ip("192.0.2.2"), 3, 1);
    let seen = net.h(six).take();
    let mapped: IpAddr = "::ffff:203.0.113.9".parse().expect("address");
    assert!(seen.iter().any(|p| packets::source(p) == mapped), "{seen:02x?}");
    // From outside such addresses do not come in, and to the outside they do not leave.
    net.send(outside, packets::udp(ip("2001:db8:7::2"), mapped, (1, 2), 64, false, b"in"));
    net.send(six, packets::udp(mapped, ip("2001:db8:7::2"), (1, 2), 64, false, b"leak"));
    settle(&mut net);
    assert!(net.h(outside).take().is_empty());
    assert!(net.h(four).take().iter().all(|p| packets::icmp(p).is_some()));
    assert_eq!(net.r(r).totals().dropped.get("mapped_address"), Some(&2));
    net.check();
}
