//! IPv4 source routes on a router that is told to follow them, and the switches of IPv4 options, packet by packet.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp, with_options};
use router_core::checksum::fill_ipv4_header;
use router_core::drop_reason::DropReason;
use router_core::port::PortId;
use router_core::settings::{OptionAction, Settings};
use router_core::spec::{TunnelMode, TunnelSpec};
use router_core::time::Duration;

/// A rig whose router does this because of these options.
fn rig_with(actions: &[(u8, OptionAction)]) -> Rig {
    let mut settings = Settings::default();
    for (kind, action) in actions {
        assert!(settings.ipv4_options.set(*kind, *action), "{kind} {action:?}");
    }
    let mut rig = Rig::new(settings);
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig.route("10.0.0.0/8", "192.0.2.3", "lan0");
    rig
}

/// A router that follows source routes.
fn rig() -> Rig {
    rig_with(&[(131, OptionAction::Process), (137, OptionAction::Process)])
}

/// A source route with its pointer at this place.
fn route(kind: u8, pointer: u8, hops: &[&str]) -> Vec<u8> {
    let mut o = vec![kind, (3 + 4 * hops.len()) as u8, pointer];
    for hop in hops {
        let std::net::IpAddr::V4(a) = ip(hop) else { panic!("{hop}") };
        o.extend(a.octets());
    }
    o
}

fn from_host(dst: &str, options: &[u8]) -> Vec<u8> {
    with_options("192.0.2.2", dst, 17, 64, options, &[5; 20])
}

/// Proves rfc1812-5.2.4.1-next, rfc1812-5.3.13.4, rfc1812-4.2.2.2-address, rfc791-3.1-source-route, rfc1812-5.2.3-own,
/// rfc7126-4.3-lsrr, rfc7126-4.4-ssrr.
/// Proves rfc1812-5.2.7.2-source-route.
#[test]
fn source_routes_are_followed_and_recorded() {
    const OWN_LAN: &str = "192.0.2.1";
    const OWN_WAN: &str = "198.51.100.1";
    const GW: &str = "198.51.100.2";
    const FAR: &str = "203.0.113.9";
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    // destination, route before; port, destination, route after
    type Row<'a> = (&'a str, Vec<u8>, PortId, &'a str, Vec<u8>);
    let rows: Vec<Row<'_>> = vec![
        (OWN_LAN, route(LOOSE, 4, &[FAR]), WAN, FAR, route(LOOSE, 8, &[OWN_WAN])),
        (OWN_LAN, route(LOOSE, 4, &[GW, FAR]), WAN, GW, route(LOOSE, 8, &[OWN_WAN, FAR])),
        (OWN_LAN, route(STRICT, 4, &[GW, FAR]), WAN, GW, route(STRICT, 8, &[OWN_WAN, FAR])),
        // Asked by the other address, and not the first of the route.
        (OWN_WAN, route(LOOSE, 8, &["10.0.0.1", FAR]), WAN, FAR, route(LOOSE, 12, &["10.0.0.1", OWN_WAN])),
        // Own addresses in a row.
        (OWN_LAN, route(LOOSE, 4, &[OWN_WAN, FAR]), WAN, FAR, route(LOOSE, 12, &[OWN_WAN, OWN_WAN])),
        (OWN_LAN, route(STRICT, 4, &[OWN_WAN, OWN_LAN, GW]), WAN, GW, route(STRICT, 16, &[OWN_WAN, OWN_LAN, OWN_WAN])),
        // Back over the link that it came from, without a word about a better way.
        (OWN_LAN, route(LOOSE, 4, &["192.0.2.3", FAR]), LAN, "192.0.2.3", route(LOOSE, 8, &[OWN_LAN, FAR])),
        (OWN_LAN, route(LOOSE, 4, &["10.0.0.1"]), LAN, "10.0.0.1", route(LOOSE, 8, &[OWN_LAN])),
        // On their way to somebody else loose routes are nobody's business.
        (FAR, route(LOOSE, 4, &["10.0.0.1"]), WAN, FAR, route(LOOSE, 4, &["10.0.0.1"])),
    ];
    for (dst, before, port, next, after) in rows {
        let sent = rig().send(&from_host(dst, &before));
        let want = with_options("192.0.2.2", next, 17, 63, &after, &[5; 20]);
        assert_eq!(sent, [(port, want)], "{dst} {before:?}");
    }
}

/// Proves rfc1812-5.2.2-strict, rfc1812-5.2.4.1-one, rfc1812-5.2.4.3-strict, rfc1812-5.2.4.3-none, rfc1812-4.3.3.5.
/// Proves rfc7126-4.3-several.
#[test]
fn source_routes_that_fail() {
    let two = [route(131, 4, &["203.0.113.9"]), route(137, 4, &["203.0.113.9"])].concat();
    // id, destination, options, answer: type, code, pointer
    type Row<'a> = (&'a str, &'a str, Vec<u8>, (u8, u8, u8));
    let rows: Vec<Row<'_>> = vec![
        ("rfc1812-5.2.2-strict", "203.0.113.9", route(137, 4, &["10.0.0.1"]), (12, 0, 16)),
        ("rfc1812-5.2.2-strict", "203.0.113.9", route(137, 8, &["10.0.0.1"]), (12, 0, 16)),
        ("rfc1812-5.2.4.3-strict", "192.0.2.1", route(137, 4, &["203.0.113.9"]), (3, 5, 0)),
        ("rfc1812-5.2.4.3-none", "192.0.2.1", route(131, 4, &["8.8.8.8"]), (3, 5, 0)),
        ("rfc1812-5.2.4.3-none group", "192.0.2.1", route(131, 4, &["224.1.1.1"]), (3, 5, 0)),
        ("rfc1812-5.2.4.3-none broadcast", "192.0.2.1", route(131, 4, &["198.51.100.255"]), (3, 5, 0)),
        ("rfc1812-5.2.4.3-none martian", "192.0.2.1", route(131, 4, &["127.0.0.1"]), (3, 5, 0)),
        ("rfc1812-5.2.4.1-one", "192.0.2.1", two, (12, 0, 27)),
        ("rfc1812-4.3.3.5 a part of an address", "192.0.2.1", vec![131, 6, 4, 203, 0, 113], (12, 0, 22)),
    ];
    for (id, dst, options, (kind, code, pointer)) in rows {
        let original = from_host(dst, &options);
        let mut rig = rig();
        let (port, answer) = rig.send_one(&original);
        let (p, m) = read_icmp(&answer);
        assert_eq!(rig.totals().dropped_total(), 1, "{id}: counted");
        assert_eq!((port, m[0], m[1], m[4], p.dst), (LAN, kind, code, pointer, ip("192.0.2.2")), "{id}");
        assert_eq!(m[8..], original, "{id}");
    }
}

/// Proves rfc1812-4.3.2.3-undone: what is told about a packet after the step along its route quotes it as it came.
#[test]
fn errors_quote_source_routed_packets_as_they_came() {
    let options = route(131, 4, &["198.51.100.1", "203.0.113.9"]);
    let expired = with_options("192.0.2.2", "192.0.2.1", 17, 1, &options, &[5; 20]);
    let (_, m) = read_icmp(&rig().send_one(&expired).1);
    assert_eq!((m[0], &m[8..]), (11, &expired[..]));
    let mut long = with_options("192.0.2.2", "192.0.2.1", 17, 64, &options, &[5; 1400]);
    long[6] = 0x40;
    fill_ipv4_header(&mut long);
    let (_, m) = read_icmp(&rig().send_one(&long).1);
    assert_eq!((m[0], m[1], &m[8..][..32]), (3, 4, &long[..32]));
    // A neighbour that never answers.
    let silent = from_host("192.0.2.1", &route(131, 4, &["198.51.100.77"]));
    let mut rig = rig();
    let asked = rig.send(&silent);
    assert!(asked.iter().all(|(port, _)| *port == WAN), "{asked:?}");
    let told: Vec<_> = rig.pass(Duration::from_secs(5)).into_iter().filter(|(port, _)| *port == LAN).collect();
    let (_, m) = read_icmp(&told[0].1[14..]);
    assert_eq!((told.len(), m[0], m[1], &m[8..]), (1, 3, 1, &silent[..]));
}

/// A source route survives fragmentation here, and waiting for a neighbour. Proves rfc791-3.1-source-route.
#[test]
fn source_routes_of_fragments_and_of_packets_that_waited() {
    let sent =
        rig().send(&with_options("192.0.2.2", "192.0.2.1", 17, 64, &route(131, 4, &["203.0.113.9"]), &[5; 1400]));
    assert_eq!(sent.len(), 2);
    for (port, p) in sent {
        assert_eq!((port, &p[16..20], &p[20..27]), (WAN, &[203, 0, 113, 9][..], &[131, 7, 8, 198, 51, 100, 1][..]));
    }
    let mut rig = rig();
    rig.send(&from_host("192.0.2.1", &route(137, 4, &["198.51.100.77"])));
    rig.neighbor(WAN, "198.51.100.77", GATEWAY);
    let sent = rig.pass(Duration::ZERO);
    let want = with_options("192.0.2.2", "198.51.100.77", 17, 63, &route(137, 8, &["198.51.100.1"]), &[5; 20]);
    let sent: Vec<_> = sent.into_iter().map(|(port, f)| (port, f[14..].to_vec())).collect();
    assert_eq!(sent, [(WAN, want)]);
}

/// Proves rfc1122-3.2.1.8-source-route, rfc1122-3.2.2.6-source-route, rfc1812-4.2.2.1-source-route, rfc1812-4.3.3.6-source-route.
#[test]
fn echo_replies_go_back_along_the_source_route() {
    let message = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &[9; 16]].concat();
    let whole = icmp("192.0.2.2", "198.51.100.1", 64, &message);
    let request = |options: &[u8]| with_options("192.0.2.2", "198.51.100.1", 1, 64, options, &whole[20..]);
    let with_record = [route(131, 12, &["10.0.0.1", "10.0.0.2"]), vec![7, 7, 4, 0, 0, 0, 0]].concat();
    let reply_record = [route(131, 11 - 7, &["10.0.0.1", "192.0.2.2"]), vec![7, 7, 8, 198, 51, 100, 1]].concat();
    for (options, to, want) in [
        (route(131, 12, &["10.0.0.1", "10.0.0.2"]), "10.0.0.2", route(131, 4, &["10.0.0.1", "192.0.2.2"])),
        (route(137, 8, &["192.0.2.3"]), "192.0.2.3", route(137, 4, &["192.0.2.2"])),
        // Only this router is left to be visited.
        (route(131, 8, &["10.0.0.1", "192.0.2.1"]), "10.0.0.1", route(131, 4, &["192.0.2.2"])),
        (route(131, 4, &["192.0.2.1"]), "192.0.2.2", vec![]),
        (with_record, "10.0.0.2", reply_record),
    ] {
        let (port, answer) = rig().send_one(&request(&options));
        let l4 = usize::from(answer[0] & 15) * 4;
        let mut padded = want.clone();
        padded.resize(want.len().next_multiple_of(4), 0);
        assert_eq!((port, &answer[20..l4], answer[l4]), (LAN, &padded[..], 0), "{options:?}");
        let own = if options[3..7] == [192, 0, 2, 1] || options.get(7..11) == Some(&[192, 0, 2, 1]) {
            [192, 0, 2, 1]
        } else {
            [198, 51, 100, 1]
        };
        assert_eq!(answer[12..16], own, "{options:?}");
        assert_eq!(answer[16..20], with_options("0.0.0.0", to, 1, 1, &[], &[])[16..20], "{options:?}");
        assert_eq!(answer[l4 + 4..], message[4..], "{options:?}");
    }
}

/// Proves rfc1812-4.3.2.6-source-route.
#[test]
fn errors_go_back_along_the_source_route() {
    let options = route(131, 12, &["10.0.0.1", "10.0.0.2", "203.0.113.77"]);
    for payload in [20, 900] {
        let original = with_options("192.0.2.2", "203.0.115.9", 17, 64, &options, &vec![5; payload]);
        let (_, answer) = rig().send_one(&original);
        let (p, m) = read_icmp(&answer);
        assert_eq!((p.dst, m[0], m[1]), (ip("10.0.0.2"), 3, 0));
        assert_eq!(answer[20..32], [&route(131, 4, &["10.0.0.1", "192.0.2.2"])[..], &[0]].concat()[..]);
        assert_eq!((answer.len(), &m[8..]), (576.min(40 + original.len()), &original[..m.len() - 8]));
    }
    // Not about the route itself, and not where routes are not followed.
    let (_, answer) = rig().send_one(&from_host("203.0.113.9", &route(137, 8, &["10.0.0.1"])));
    assert_eq!(answer[0], 0x45);
    let (_, answer) = rig_with(&[(131, OptionAction::Ignore)]).send_one(&from_host("203.0.115.9", &options));
    assert_eq!((answer[0], answer[21]), (0x45, 0));
}

/// As RFC 1122 4.2.3.8 has it for connections.
#[test]
fn resets_go_back_along_the_source_route() {
    let syn = [&[0xc3, 0x50, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff][..], &[0; 4]].concat();
    let options = route(131, 12, &["10.0.0.1", "10.0.0.2"]);
    let mut original = with_options("192.0.2.2", "192.0.2.1", 6, 64, &options, &syn);
    let at = original.len() - 20;
    fill_tcp(&mut original, at);
    let (port, answer) = rig().send_one(&original);
    assert_eq!((port, answer[9], answer.len()), (LAN, 6, 52));
    assert_eq!(answer[16..20], [10, 0, 0, 2]);
    assert_eq!(answer[20..32], [&route(131, 4, &["10.0.0.1", "192.0.2.2"])[..], &[0]].concat()[..]);
    assert_eq!((&answer[32..36], answer[45]), (&[0, 80, 0xc3, 0x50][..], 0x14), "ports, reset and acknowledgement");
    // Whole where it arrives: its destination there is the host.
    let mut arrived = answer.clone();
    arrived[16..20].copy_from_slice(&[192, 0, 2, 2]);
    let sum = [arrived[48], arrived[49]];
    fill_tcp(&mut arrived, 32);
    assert_eq!(sum, arrived[48..50]);
    let (_, answer) = rig_with(&[(131, OptionAction::Ignore)]).send_one(&original);
    assert_eq!((answer[0], answer.len()), (0x45, 40));
}

/// Sets the checksum of the TCP segment that begins at `at` right.
fn fill_tcp(p: &mut [u8], at: usize) {
    p[at + 16..at + 18].fill(0);
    let len = ((p.len() - at) as u16).to_be_bytes();
    let pseudo = [&p[12..20], &[0, 6], &len, &p[at..]].concat();
    p[at + 16..at + 18].copy_from_slice(&router_core::checksum::checksum(&pseudo).to_be_bytes());
}

/// Proves rfc7126-4.3-lsrr, rfc7126-4.4-ssrr, rfc7126-4.6-record-route, rfc7126-4.8-timestamp, rfc7126-4.9-router-alert,
/// rfc7126-4.23-unknown, rfc1812-5.3.13.5-switch, rfc1812-5.3.13.6-switch.
/// Proves rfc7126-4.13-presence, rfc7126-4.21-quick-start.
#[test]
fn every_option_has_its_switch() {
    let far = "203.0.113.9";
    let lsrr = route(131, 4, &["10.0.0.1"]);
    let ssrr = route(137, 4, &["10.0.0.1"]);
    let record = vec![7, 7, 4, 0, 0, 0, 0];
    let clock = vec![68, 8, 5, 0, 0, 0, 0, 0];
    let asked = [&[68, 12, 5, 3][..], &[198, 51, 100, 1], &[0; 4]].concat();
    for (kind, options) in [
        (131, lsrr),
        (137, ssrr),
        (7, record),
        (68, clock),
        (148, vec![148, 4, 0, 0]),
        (99, vec![99, 4, 1, 2]),
        (130, vec![130, 4, 0, 0]),
        (133, vec![133, 4, 0, 0]),
        (134, vec![134, 4, 0, 0]),
        (25, vec![25, 4, 0, 0]),
    ] {
        let ignored = rig_with(&[(kind, OptionAction::Ignore)]).send_one(&from_host(far, &options));
        assert_eq!(ignored, (WAN, with_options("192.0.2.2", far, 17, 63, &options, &[5; 20])), "{kind}");
        let mut rig = rig_with(&[(kind, OptionAction::Drop)]);
        let sent = rig.send(&from_host(far, &options));
        assert_eq!(rig.totals().dropped_total(), 1, "{kind}");
        // Only source routes are told of.
        assert_eq!(sent.len(), usize::from(matches!(kind, 131 | 137)), "{kind}");
        // To the router itself, and broken off by nothing else.
        assert_eq!(rig.send(&from_host("192.0.2.1", &options)).len(), sent.len(), "{kind}");
        assert_eq!(rig.send(&from_host(far, &[1, 1, 1, 1])).len(), 1, "{kind}");
    }
    // Asked by address, the router answers whatever it does with others.
    let (_, sent) = rig_with(&[(68, OptionAction::Ignore)]).send_one(&from_host(far, &asked));
    assert_eq!((sent[22], &sent[24..28]), (13, &[198, 51, 100, 1][..]));
    assert_ne!(sent[28..32], [0; 4]);
    // What is ignored on the way is obeyed by the one who is asked.
    let whole = icmp("192.0.2.2", "192.0.2.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let request = with_options("192.0.2.2", "192.0.2.1", 1, 64, &[7, 7, 4, 0, 0, 0, 0], &whole[20..]);
    let (_, answer) = rig_with(&[(7, OptionAction::Ignore)]).send_one(&request);
    assert_eq!(answer[20..27], [7, 7, 8, 192, 0, 2, 1]);
}

/// Proves rfc7126-4.23-log: each packet that is dropped because of an option is counted under its reason and at its port, and
/// what was dropped, when, and where it came in is kept for the log of drops.
#[test]
fn dropped_options_are_counted_and_kept() {
    for (kind, options, reason) in [
        (131, route(131, 4, &["10.0.0.1"]), DropReason::Ipv4SourceRoute),
        (137, route(137, 4, &["10.0.0.1"]), DropReason::Ipv4SourceRoute),
        (7, vec![7, 7, 4, 0, 0, 0, 0], DropReason::Ipv4OptionDenied),
        (68, vec![68, 8, 5, 0, 0, 0, 0, 0], DropReason::Ipv4OptionDenied),
        (148, vec![148, 4, 0, 0], DropReason::Ipv4OptionDenied),
        (130, vec![130, 4, 0, 0], DropReason::Ipv4OptionDenied),
        (99, vec![99, 4, 1, 2], DropReason::Ipv4OptionDenied),
    ] {
        for from in [LAN, WAN] {
            let mut rig = rig_with(&[(kind, OptionAction::Drop)]);
            let (mac, own) = if from == LAN { (HOST, OWN[1]) } else { (GATEWAY, OWN[2]) };
            let src = if from == LAN { "192.0.2.2" } else { "198.51.100.2" };
            let p = with_options(src, "10.0.0.1", 17, 64, &options, &[5; 20]);
            for n in 1..=3 {
                rig.pass(Duration::from_secs(1));
                let _ = rig.frame(from, &frame_of(mac, own, &p));
                assert_eq!(rig.totals().dropped, [(reason.name(), n)].into(), "{kind}");
                assert_eq!(rig.dropped_at(from), n, "{kind}");
                let kept = rig.last_drops(reason);
                assert_eq!(kept.len() as u64, n, "{kind}");
                let last = kept.iter().max_by_key(|d| d.at).expect("one");
                let ip = if last.link { &last.head[14..] } else { &last.head[..] };
                assert_eq!((last.port, last.at, &ip[..20 + options.len()]), (from, rig.now, &p[..20 + options.len()]));
            }
        }
    }
}

/// Proves rfc7126-4.3-documented: what docs/configuration.md says of each option is what a router does that is not told.
#[test]
fn the_defaults_of_options_are_documented() {
    let text = include_str!("../../../docs/configuration.md");
    let section = text.split("## [ipv4_options]").nth(1).and_then(|s| s.split("\n## ").next()).expect("a section");
    let policy = Settings::default().ipv4_options;
    let mut seen = std::collections::BTreeSet::new();
    let mut unknown = None;
    for row in section.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let default = match cells[2].split('"').nth(1) {
            Some("drop") => OptionAction::Drop,
            Some("ignore") => OptionAction::Ignore,
            Some("process") => OptionAction::Process,
            other => panic!("{row}: {other:?}"),
        };
        let types = cells[1].split(':').next().unwrap_or_default();
        let types: Vec<u8> = types.split([',', ';']).filter_map(|n| n.trim().parse().ok()).collect();
        assert_eq!(types.is_empty(), cells[0] == "`unknown`", "{row}");
        if types.is_empty() {
            unknown = Some(default);
        }
        for kind in types {
            assert_eq!(policy.action(kind), default, "{kind}: {row}");
            assert!(seen.insert(kind), "{kind} is there twice");
        }
    }
    assert!([131, 137, 7, 68, 148, 130, 133, 134, 136, 25].iter().all(|k| seen.contains(k)), "{seen:?}");
    for kind in (2..=255).filter(|k| !seen.contains(k)) {
        assert_eq!(Some(policy.action(kind)), unknown, "{kind}");
    }
}

/// Refused source routes in broadcasts and groups are not answered. Proves rfc1812-4.3.2.7-broadcast.
#[test]
fn refused_options_in_packets_to_many() {
    for (dst, mac) in
        [("198.51.100.255", OWN[1]), ("224.1.1.1", OWN[1]), ("192.0.2.1", router_core::addr::MacAddr([0xff; 6]))]
    {
        for mut rig in [rig(), rig_with(&[])] {
            let p = from_host(dst, &route(137, 4, &["203.0.113.9"]));
            assert!(rig.frame(LAN, &frame_of(HOST, mac, &p)).is_empty(), "{dst}");
        }
    }
}

/// Proves rfc1812-5.3.13.5: packets that go into a tunnel are recorded with its address.
#[test]
fn routes_are_recorded_into_tunnels() {
    let mut rig = rig();
    rig.neighbor(WAN, "198.51.100.9", GATEWAY);
    let spec = TunnelSpec::new("far", TunnelMode::FourInFour, ip("198.51.100.1"), ip("198.51.100.9"));
    let addrs = vec!["10.77.0.1/24".parse().expect("address")];
    rig.with(|r, now, _| r.add_tunnel(now, spec, addrs)).expect("tunnel");
    rig.route("203.0.114.0/24", "10.77.0.2", "far");
    for (dst, before, to, after) in [
        ("203.0.114.9", vec![7, 7, 4, 0, 0, 0, 0], "203.0.114.9", vec![7, 7, 8, 10, 77, 0, 1]),
        ("192.0.2.1", route(131, 4, &["203.0.114.9"]), "203.0.114.9", route(131, 8, &["10.77.0.1"])),
        ("192.0.2.1", route(137, 4, &["10.77.0.2"]), "10.77.0.2", route(137, 8, &["10.77.0.1"])),
    ] {
        let (port, outer) = rig.send_one(&from_host(dst, &before));
        assert_eq!((port, &outer[16..20]), (WAN, &[198, 51, 100, 9][..]));
        assert_eq!(outer[20..], with_options("192.0.2.2", to, 17, 63, &after, &[5; 20]), "{before:?}");
    }
    let strict = from_host("192.0.2.1", &route(137, 4, &["203.0.114.9"]));
    let (_, m) = read_icmp(&rig.send_one(&strict).1);
    assert_eq!((m[0], m[1]), (3, 5));
    // Out of a tunnel a route is followed, too.
    let inner = with_options("10.0.0.9", "192.0.2.1", 17, 64, &route(131, 4, &["203.0.113.9"]), &[5; 20]);
    let outer = packet("198.51.100.9", "198.51.100.1", 4, 64, &inner);
    let sent = rig.frame(WAN, &frame_of(GATEWAY, OWN[2], &outer));
    let want = with_options("10.0.0.9", "203.0.113.9", 17, 63, &route(131, 8, &["198.51.100.1"]), &[5; 20]);
    assert_eq!(sent.iter().map(|(p, f)| (*p, f[14..].to_vec())).collect::<Vec<_>>(), [(WAN, want)]);
}
