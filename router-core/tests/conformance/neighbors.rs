//! Own addresses on a link, and answers for others: RFC 4861, RFC 4862, RFC 5227, RFC 1027.

use crate::rig::{GATEWAY, HOST, LAN, LAN_ADDRS, OWN, Rig, WAN, WAN_ADDRS, icmp, ip, packet, read_icmp};
use router_core::addr::MacAddr;
use router_core::headers::ethernet::ETHERTYPE_ARP;
use router_core::port::PortId;
use router_core::settings::{NeighborSettings, Proxy, Settings};
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Duration;
use std::net::{IpAddr, Ipv6Addr};

/// A neighbour discovery message in its frame. `option` is the link-layer address option's type.
fn ndp(kind: u8, flags: u8, src: &str, dst: &str, target: &str, option: Option<u8>) -> Vec<u8> {
    let v6 = |t: &str| t.parse::<Ipv6Addr>().expect("address");
    let mut m = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    m.extend(v6(target).octets());
    if let Some(option) = option {
        m.extend([option, 1]);
        m.extend(HOST.0);
    }
    let to = if v6(dst).is_multicast() { MacAddr::for_ipv6_multicast(v6(dst)) } else { OWN[1] };
    crate::rig::frame_of(HOST, to, &crate::rig::icmp(src, dst, 255, &m))
}

fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &HOST.0, &[8, 6], &head, &HOST.0, &sender, &[0; 6], &target].concat()
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == ETHERTYPE_ARP.to_be_bytes()
}

/// Whether it is a report of groups: hop limit 1, hop-by-hop options.
fn is_report(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd] && (frame[20], frame[21]) == (0, 1)
}

/// The records of the reports on `LAN`: type and group; with the source.
fn reports(sent: &[(PortId, Vec<u8>)]) -> Vec<(u8, IpAddr, IpAddr)> {
    let mut all = Vec::new();
    for (_, f) in sent.iter().filter(|(port, f)| *port == LAN && is_report(f)) {
        let (p, m) = read_icmp(&f[14..]);
        assert_eq!((p.dst, m[0]), (ip("ff02::16"), 143));
        all.extend(
            m[8..].chunks(20).map(|r| (r[0], IpAddr::from(<[u8; 16]>::try_from(&r[4..]).expect("group")), p.src)),
        );
    }
    all
}

/// Proves rfc8504-5.10-mld, rfc4861-6.2.2-routers, rfc4861-7.2.1-groups, rfc4862-5.4.2-join, rfc3810-6.1-join, rfc3810-5.2.13-source, rfc3810-6.2-general: a switch that looks into MLD knows
/// of every group before it is used, and learns it again when it asks.
/// Also proves rfc8504-14.1-alert.
#[test]
fn groups_are_reported_and_told_to_who_asks() {
    let mut rig = Rig::just_started(Settings::default(), LAN_ADDRS, WAN_ADDRS);
    let first = rig.pass(Duration::from_millis(10));
    let groups = ["ff02::2", "ff02::1:ff00:0", "ff02::1:ff00:1", "ff05::2"].map(ip);
    let joined: Vec<_> = groups.iter().map(|g| (4, *g, ip("::"))).collect();
    assert_eq!(reports(&first), joined);
    assert!(
        is_report(&first.iter().find(|(p, f)| *p == LAN && !is_arp(f)).expect("a report").1),
        "before the first probe"
    );
    let again = reports(&rig.pass(Duration::from_secs(60)));
    assert_eq!(again.len(), groups.len());
    // A general query, to be answered within a second.
    let body = [&[130, 0, 0, 0, 3, 0xe8, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat();
    let query = |src: &str, hop_limit: u8| {
        let plain = icmp(src, "ff02::1", hop_limit, &body);
        let mut q = [&plain[..40], &[58, 0, 5, 2, 0, 0, 1, 0], &plain[40..]].concat();
        (q[5], q[6]) = (q[5] + 8, 0);
        crate::rig::frame_of(HOST, MacAddr::for_ipv6_multicast("ff02::1".parse().expect("group")), &q)
    };
    assert!(rig.frame(LAN, &query("fe80::9", 1)).is_empty(), "not at once");
    let own = ip("fe80::1");
    let is: Vec<_> = groups.iter().map(|g| (2, *g, own)).collect();
    assert_eq!(reports(&rig.pass(Duration::from_secs(1))), is);
    for (src, hop_limit) in [("2001:db8::9", 1), ("fe80::9", 255)] {
        rig.frame(LAN, &query(src, hop_limit));
        assert!(reports(&rig.pass(Duration::from_secs(2))).is_empty(), "{src} {hop_limit}");
    }
    let off = Settings { neighbor: NeighborSettings { mld: false, ..Default::default() }, ..Settings::default() };
    assert!(reports(&Rig::just_started(off, LAN_ADDRS, WAN_ADDRS).pass(Duration::from_secs(60))).is_empty());
}

/// Type and target of neighbour discovery messages on `LAN`, with the packet's source.
fn discovery(sent: &[(PortId, Vec<u8>)]) -> Vec<(u8, IpAddr, IpAddr)> {
    let on_lan = sent.iter().filter(|(port, f)| *port == LAN && !is_arp(f) && !is_report(f));
    on_lan
        .map(|(_, f)| {
            let (p, m) = read_icmp(&f[14..]);
            assert_eq!(p.ttl, 255);
            (m[0], IpAddr::from(<[u8; 16]>::try_from(&m[8..24]).expect("target")), p.src)
        })
        .collect()
}

/// Proves rfc4862-5.4.2-probe, rfc4861-7.2.6: a probe from the unspecified address for each, then advertisements to all.
/// Proves rfc8504-5.4-nd, rfc4862-5.4-anycast.
#[test]
fn own_addresses_are_probed_and_announced() {
    let mut rig = Rig::just_started(Settings::default(), LAN_ADDRS, WAN_ADDRS);
    let first = rig.pass(Duration::from_millis(10));
    let (link_local, global) = (ip("fe80::1"), ip("2001:db8::1"));
    let none = ip("::");
    assert_eq!(discovery(&first), [(135, global, none), (135, link_local, none)]);
    let solicited_node = first.iter().find(|(_, f)| !is_arp(f) && !is_report(f)).map(|(_, f)| f[..6].to_vec());
    assert_eq!(solicited_node.as_deref(), Some(&[0x33, 0x33, 0xff, 0, 0, 1][..]));
    let gratuitous: Vec<_> = first.iter().filter(|(p, f)| *p == LAN && is_arp(f)).collect();
    assert_eq!(gratuitous.len(), 1, "rfc5227-2.3");
    let body = &gratuitous[0].1[14..];
    assert_eq!((&body[8..18], &body[24..28]), (&[&OWN[1].0[..], &[192, 0, 2, 1]].concat()[..], &[192, 0, 2, 1][..]));
    let later = rig.pass(Duration::from_secs(60));
    let told = discovery(&later);
    assert_eq!(told.iter().filter(|t| **t == (136, global, global)).count(), 2);
    assert_eq!(told.iter().filter(|t| **t == (136, link_local, link_local)).count(), 2);
    assert_eq!(told.len(), 4);
}

/// Proves rfc4862-5.4-tentative, rfc4862-5.4.3, rfc4862-5.4.4, rfc4862-5.4.5-duplicate.
/// Also proves rfc8504-6.3-dad.
#[test]
fn tentative_addresses_do_not_answer_and_duplicates_are_given_up() {
    let group = "ff02::1:ff00:1";
    let question = ndp(135, 0, "2001:db8::2", group, "2001:db8::1", Some(1));
    let probe = ndp(135, 0, "::", group, "2001:db8::1", None);
    let claim = ndp(136, 0x20, "2001:db8::1", "ff02::1", "2001:db8::1", Some(2));
    let owns = |rig: &Rig| rig.router.ports().get(LAN).expect("port").owns(&ip("2001:db8::1"));
    for (what, frame, kept) in [("a question", &question, true), ("a probe", &probe, false), ("a claim", &claim, false)]
    {
        let mut rig = Rig::just_started(Settings::default(), LAN_ADDRS, WAN_ADDRS);
        rig.pass(Duration::from_millis(10));
        assert!(rig.frame(LAN, frame).is_empty(), "{what} gets no answer");
        assert_eq!(owns(&rig), kept, "{what}");
        assert_eq!(rig.router.take_conflicts().is_empty(), kept, "{what}");
        // It is tried again when the link comes back.
        rig.with(|r, now, out| r.set_link(now, LAN, None, Some(false), out)).expect("down");
        rig.with(|r, now, out| r.set_link(now, LAN, None, Some(true), out)).expect("up");
        assert!(owns(&rig), "{what}");
        assert_eq!(
            rig.pass(Duration::from_millis(1)).iter().filter(|(p, f)| *p == LAN && !is_report(f)).count(),
            3,
            "{what}"
        );
        // Once it is its own, questions and probes are answered, and claims are told, but nothing is given up.
        rig.pass(Duration::from_secs(30));
        let answer = discovery(&rig.frame(LAN, frame));
        assert_eq!(answer.len(), usize::from(what != "a claim"), "{what}");
        assert!(owns(&rig), "{what}");
        assert_eq!(rig.router.take_conflicts().len(), usize::from(what == "a claim"), "{what}");
    }
}

/// Proves rfc4862-5.4-use: no echo, no error from it, until the probe has had its time.
#[test]
fn tentative_addresses_are_not_used() {
    let mut rig = Rig::just_started(Settings::default(), LAN_ADDRS, WAN_ADDRS);
    rig.pass(Duration::from_millis(10));
    let echo = icmp("2001:db8::2", "2001:db8::1", 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let lost = icmp("2001:db8::2", "2001:db8:99::1", 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
    assert!(rig.send(&echo).is_empty() && rig.send(&lost).is_empty());
    let totals = rig.totals();
    assert_eq!(totals.dropped.get("tentative_address"), Some(&1));
    assert_eq!(totals.dropped.get("no_route"), Some(&1));
    assert!(rig.router.ports().is_tentative(LAN, &ip("2001:db8::1")));
    rig.pass(Duration::from_secs(2));
    assert!(!rig.router.ports().is_tentative(LAN, &ip("2001:db8::1")));
    assert_eq!(read_icmp(&rig.send_one(&echo).1).1[0], 129);
    assert_eq!(read_icmp(&rig.send_one(&lost).1).0.src, ip("2001:db8::1"));
}

/// Proves rfc4862-5.4-use: who is asked for meanwhile is asked once the address is sure, and nothing is lost.
#[test]
fn no_question_from_a_tentative_address() {
    let mut rig = Rig::just_started(Settings::default(), LAN_ADDRS, WAN_ADDRS);
    rig.pass(Duration::from_millis(10));
    let to_stranger = icmp("2001:db8:1::2", "2001:db8::77", 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let asks = |sent: &[(PortId, Vec<u8>)]| discovery(sent).iter().filter(|q| q.1 == ip("2001:db8::77")).count();
    let sent = rig.frame(WAN, &crate::rig::frame_of(GATEWAY, OWN[2], &to_stranger));
    assert_eq!(asks(&sent) + asks(&rig.pass(Duration::from_millis(900))), 0);
    let sent = rig.pass(Duration::from_millis(1000));
    assert_eq!(asks(&sent), 1);
    assert!(discovery(&sent).contains(&(135, ip("2001:db8::77"), ip("fe80::1"))));
    let answer = ndp(136, 0x60, "2001:db8::77", "fe80::1", "2001:db8::77", Some(2));
    assert_eq!(rig.frame(LAN, &answer).len(), 1, "the packet that waited");
}

/// Proves rfc4862-5.4-use: nothing is sent from a tunnel's local end until it is sure, nor once another station has it.
#[test]
fn no_tunnel_packet_from_a_tentative_address() {
    let mut settings = Settings::default();
    settings.neighbor.acd = true;
    let inner = packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[1; 60]);
    for (mode, local, remote, probe) in [
        (TunnelMode::SixInFour, "198.51.100.1", "198.51.100.9", arp_request([0; 4], [198, 51, 100, 1])),
        (
            TunnelMode::SixInSix,
            "2001:db8:1::1",
            "2001:db8:1::9",
            ndp(135, 0, "::", "ff02::1:ff00:1", "2001:db8:1::1", None),
        ),
    ] {
        for conflict in [false, true] {
            // A second address of the link keeps the way to the peer.
            let wan = [WAN_ADDRS, &["198.51.100.3/24", "2001:db8:1::3/64"]].concat();
            let mut rig = Rig::just_started(settings.clone(), LAN_ADDRS, &wan);
            rig.neighbor(WAN, remote, GATEWAY);
            let spec = TunnelSpec::new("t", mode, ip(local), ip(remote));
            rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
            let mut route = RouteSpec::new("2001:db8:9::/48".parse().expect("prefix"));
            route.hops.push(HopSpec { dev: Some("t".into()), ..HopSpec::default() });
            rig.with(|r, _, _| r.routing_mut().route(RouteOp::Add, &route)).expect("route");
            rig.pass(Duration::from_millis(10));
            assert!(rig.router.ports().is_tentative(WAN, &ip(local)), "{local}");
            assert!(rig.send(&inner).is_empty(), "{local}");
            assert_eq!(rig.totals().dropped.get("tentative_address"), Some(&1), "{local}");
            if conflict {
                rig.frame(WAN, &probe);
            }
            rig.pass(Duration::from_secs(10));
            assert_eq!(rig.router.duplicates(WAN).len(), usize::from(conflict), "{local}");
            let sent = rig.send(&inner);
            assert_eq!(sent.len(), usize::from(!conflict), "{local}: {sent:?}");
            assert_eq!(rig.totals().dropped.get("tentative_address"), Some(&(1 + u64::from(conflict))), "{local}");
        }
    }
}

/// Proves rfc5227-2.4-c: the address stays, and is announced again, once in ten seconds.
#[test]
fn ipv4_addresses_are_defended() {
    let mut rig = Rig::new(Settings::default());
    rig.pass(Duration::from_secs(30));
    let claim = arp_request([192, 0, 2, 1], [192, 0, 2, 1]);
    let announced = |rig: &mut Rig| rig.frame(LAN, &claim).iter().filter(|(_, f)| is_arp(f)).count();
    assert_eq!([announced(&mut rig), announced(&mut rig)], [1, 0]);
    rig.pass(Duration::from_secs(10));
    assert_eq!(announced(&mut rig), 1);
    assert_eq!(rig.router.take_conflicts().len(), 1);
    assert!(rig.router.ports().get(LAN).expect("port").owns(&ip("192.0.2.1")));
}

/// Proves rfc1027-2-proxy, rfc4861-7.2.8: only on the port that was named, only for the addresses that were named, never
/// against the one whom we stand in for.
#[test]
fn answers_for_others_where_configured() {
    let mut settings = Settings::default();
    let proxy = |port: &str, net: &str| Proxy { port: port.into(), net: net.parse().expect("prefix") };
    settings.neighbor.proxy =
        vec![proxy("lan0", "192.0.2.128/25"), proxy("lan0", "2001:db8::8000/113"), proxy("wan0", "192.0.2.64/26")];
    let mut rig = Rig::new(settings);
    rig.pass(Duration::from_secs(30));
    for (sender, target, answered) in [
        ([192, 0, 2, 2], [192, 0, 2, 129], true),
        ([192, 0, 2, 2], [192, 0, 2, 65], false),
        ([192, 0, 2, 129], [192, 0, 2, 129], false),
        ([0, 0, 0, 0], [192, 0, 2, 129], false),
    ] {
        let sent = rig.frame(LAN, &arp_request(sender, target));
        assert_eq!(sent.len(), usize::from(answered), "{sender:?} {target:?}");
        if let [(_, f)] = &sent[..] {
            assert_eq!(f[20..22], [0, 2]);
            assert_eq!(f[22..32], [&OWN[1].0[..], &target].concat());
        }
    }
    for (src, target, answered) in [
        ("2001:db8::2", "2001:db8::8001", true),
        ("2001:db8::2", "2001:db8::7001", false),
        ("::", "2001:db8::8001", false),
    ] {
        let tail = target.rsplit(':').next().expect("tail");
        let option = (src != "::").then_some(1);
        let sent = rig.frame(LAN, &ndp(135, 0, src, &format!("ff02::1:ff00:{tail}"), target, option));
        assert_eq!(sent.len(), usize::from(answered), "{src} {target}");
        if let [(_, f)] = &sent[..] {
            let (p, m) = read_icmp(&f[14..]);
            assert_eq!((p.src, p.dst, m[0]), (ip("fe80::1"), ip(src), 136));
            assert_eq!(m[4], 0xc0, "router, solicited, not override");
            assert_eq!(m[24..32], [&[2, 1][..], &OWN[1].0].concat());
        }
    }
}

/// Proves rfc4861-6.2.6-learn: a host that looks for routers is known from then on, but not known to be there.
#[test]
fn router_solicitations_teach() {
    let mut rig = Rig::new(Settings::default());
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    message.extend(HOST.0);
    let solicitation = crate::rig::icmp("fe80::77", "ff02::2", 255, &message);
    let to = MacAddr::for_ipv6_multicast("ff02::2".parse().expect("group"));
    rig.frame(LAN, &crate::rig::frame_of(HOST, to, &solicitation));
    let known: Vec<_> = rig.router.neighbors().into_iter().filter(|n| n.addr == ip("fe80::77")).collect();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].mac, known[0].state), (Some(HOST), router_core::spec::NudState::Stale));
}

/// Proves rfc6980-5-ignore: neighbour discovery in one fragment or in several is ignored in silence, to a group and to the
/// address itself, and teaches nothing; the same in one piece is answered.
#[test]
fn discovery_in_fragments_is_ignored() {
    let group = "ff02::1:ff00:1";
    for (to, mac) in [("2001:db8::1", OWN[1]), (group, MacAddr([0x33, 0x33, 0xff, 0, 0, 1]))] {
        let framed = |p: &[u8]| crate::rig::frame_of(HOST, mac, p);
        let target: std::net::Ipv6Addr = "2001:db8::1".parse().expect("address");
        let ask = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &HOST.0].concat();
        let whole = icmp("fe80::77", to, 255, &ask);
        let known = |rig: &Rig| rig.router.neighbors().iter().any(|n| n.addr == ip("fe80::77"));
        let mut rig = Rig::new(Settings::default());
        assert_eq!((rig.frame(LAN, &framed(&whole)).len(), known(&rig)), (1, true), "in one piece, {to}");
        let advert = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &ip6("fe80::77"), &[2, 1], &HOST.0].concat();
        let solicit = [&[133, 0, 0, 0, 0, 0, 0, 0][..], &[1, 1], &HOST.0].concat();
        for message in [ask, advert, solicit] {
            let whole = icmp("fe80::77", to, 255, &message);
            let piece = |at: usize, end: usize, more: u8| {
                let field = (at as u16 | u16::from(more)).to_be_bytes();
                let payload = [&[58, 0, field[0], field[1], 0, 0, 0, 9], &whole[40 + at..40 + end]].concat();
                framed(&crate::rig::packet("fe80::77", to, 44, 255, &payload))
            };
            let len = message.len();
            for pieces in [vec![piece(0, len, 0)], vec![piece(0, 8, 1), piece(8, len, 0)]] {
                let mut rig = Rig::new(Settings::default());
                for p in &pieces {
                    let sent = rig.frame(LAN, p);
                    assert!(sent.is_empty(), "{to}, type {}: {sent:02x?}", message[0]);
                }
                assert!(rig.pass(Duration::from_secs(5)).is_empty(), "{to}, type {}", message[0]);
                assert!(!known(&rig), "{to}, type {}", message[0]);
            }
        }
    }
}

fn ip6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().expect("address").octets()
}
