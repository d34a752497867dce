//! IPv4 address conflict detection: RFC 5227.

use crate::rig::{GATEWAY, HOST, LAN, LAN_ADDRS, OWN, Rig, WAN, WAN_ADDRS, frame_of, icmp, ip, read_icmp};
use router_core::addr::MacAddr;
use router_core::port::PortId;
use router_core::settings::{NeighborSettings, OnConflict, Settings};
use router_core::time::Duration;

const OURS: [u8; 4] = [192, 0, 2, 1];
const NOBODY: [u8; 4] = [0; 4];

fn settings(acd: bool) -> Settings {
    Settings { neighbor: NeighborSettings { acd, ..NeighborSettings::default() }, ..Settings::default() }
}

fn arp(op: u8, from: MacAddr, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, op];
    let to = if op == 1 { MacAddr::BROADCAST } else { OWN[1] };
    [&to.0[..], &from.0, &[8, 6], &head, &from.0, &sender, &[0; 6], &target].concat()
}

/// The ARP packets that left by `LAN`, whole frames.
fn arps(sent: Vec<(PortId, Vec<u8>)>) -> Vec<Vec<u8>> {
    sent.into_iter().filter(|(p, f)| *p == LAN && f[12..14] == [8, 6]).map(|(_, f)| f).collect()
}

fn owns(rig: &Rig) -> bool {
    rig.router.ports().get(LAN).expect("port").owns(&ip("192.0.2.1"))
}

fn echo() -> Vec<u8> {
    icmp("192.0.2.2", "192.0.2.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1])
}

/// Proves rfc5227-2.1-probe, rfc5227-2.1.1-format, rfc5227-2.3-format, rfc5227-2.5-answer, rfc5227-2.6-unicast: three
/// probes from nobody, to all; no word from the address meanwhile; two announcements; then answers, to probes, too, to
/// the asker alone.
#[test]
fn ipv4_addresses_are_probed_before_they_are_used() {
    let mut rig = Rig::just_started(settings(true), LAN_ADDRS, WAN_ADDRS);
    let lost = icmp("192.0.2.2", "10.99.0.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let mut sent = Vec::new();
    while sent.len() < 3 {
        sent.extend(arps(rig.pass(Duration::from_millis(100))));
        assert!(rig.router.ports().is_tentative(LAN, &ip("192.0.2.1")));
        assert!(arps(rig.frame(LAN, &arp(1, HOST, [192, 0, 2, 2], OURS))).is_empty(), "no answer");
        assert!(rig.send(&echo()).is_empty(), "no answer");
        for (_, error) in rig.send(&lost) {
            assert_ne!(read_icmp(&error).0.src, ip("192.0.2.1"), "no word from it");
        }
    }
    for probe in &sent {
        assert_eq!(probe[..12], [&[0xff; 6][..], &OWN[1].0].concat());
        assert_eq!(probe[14..], [&[0, 1, 8, 0, 6, 4, 0, 1][..], &OWN[1].0, &NOBODY, &[0; 6], &OURS].concat());
    }
    assert!(rig.totals().dropped.get("tentative_address").is_some_and(|n| *n > 0));
    let told = arps(rig.pass(Duration::from_secs(60)));
    assert_eq!(told.len(), 2);
    for announcement in &told {
        assert_eq!(announcement[..12], [&[0xff; 6][..], &OWN[1].0].concat());
        assert_eq!(announcement[14..], [&[0, 1, 8, 0, 6, 4, 0, 1][..], &OWN[1].0, &OURS, &[0; 6], &OURS].concat());
    }
    for sender in [[192, 0, 2, 2], NOBODY] {
        let answer = arps(rig.frame(LAN, &arp(1, HOST, sender, OURS)));
        assert_eq!(answer.len(), 1, "{sender:?}");
        assert_eq!((&answer[0][..6], &answer[0][20..22]), (&HOST.0[..], &[0, 2][..]));
    }
    assert_eq!(rig.send(&echo()).len(), 1);
    assert!(owns(&rig) && rig.router.take_conflicts().is_empty());
    assert!(arps(rig.pass(Duration::from_secs(86_400))).is_empty(), "rfc5227-2.1-periodic");
}

/// Proves rfc5227-2.1.1-in-use, rfc5227-2.1.1-same-probe, rfc5227-2.1.1-own, rfc5227-2.1.1-error: whoever has the address,
/// or probes for it, too, has won, unless it is the router itself; the address is listed as a duplicate and tried again
/// when the link comes back, or the operator says so.
#[test]
fn ipv4_duplicates_are_given_up() {
    let stranger = MacAddr([2, 0, 0, 0, 0x66, 1]);
    for (what, frame, kept) in [
        ("a request", arp(1, stranger, OURS, [192, 0, 2, 2]), false),
        ("an announcement", arp(1, stranger, OURS, OURS), false),
        ("a reply", arp(2, stranger, OURS, NOBODY), false),
        ("a probe", arp(1, stranger, NOBODY, OURS), false),
        ("a question", arp(1, stranger, [192, 0, 2, 9], OURS), true),
        ("a probe for another", arp(1, stranger, NOBODY, [192, 0, 2, 9]), true),
        ("our own probe", arp(1, OWN[1], NOBODY, OURS), true),
        ("the probe of our other port", arp(1, OWN[2], NOBODY, OURS), true),
        ("the announcement of our other port", arp(1, OWN[2], OURS, OURS), true),
    ] {
        // Before the first probe, between them, and before the first announcement.
        for wait in [0, 1500, 4000] {
            let mut rig = Rig::just_started(settings(true), LAN_ADDRS, WAN_ADDRS);
            rig.pass(Duration::from_millis(wait));
            assert!(arps(rig.frame(LAN, &frame)).iter().all(|f| f[28..32] == NOBODY), "{what}, {wait}");
            assert_eq!(owns(&rig), kept, "{what}, {wait}");
            let told = rig.router.take_conflicts();
            assert_eq!(told.is_empty(), kept, "{what}, {wait}");
            if kept {
                continue;
            }
            assert_eq!(told, [(LAN, ip("192.0.2.1"), Some(stranger))], "{what}, {wait}");
            let net = "192.0.2.1/24".parse().expect("address");
            assert_eq!(rig.router.duplicates(LAN), [net], "{what}, {wait}");
            assert!(arps(rig.pass(Duration::from_secs(60))).is_empty(), "{what}, {wait}");
            if wait == 0 {
                rig.with(|r, now, out| r.set_link(now, LAN, None, Some(false), out)).expect("down");
                rig.with(|r, now, out| r.set_link(now, LAN, None, Some(true), out)).expect("up");
            } else {
                rig.with(|r, _, _| r.add_addr(LAN, net)).expect("it is not there");
            }
            assert!(rig.router.duplicates(LAN).is_empty(), "{what}, {wait}");
            assert_eq!(arps(rig.pass(Duration::from_secs(60))).len(), 5, "{what}, {wait}");
            assert!(owns(&rig), "{what}, {wait}");
        }
    }
    // One that is a duplicate can be taken out of the configuration.
    let mut rig = Rig::just_started(settings(true), LAN_ADDRS, WAN_ADDRS);
    rig.frame(LAN, &arp(1, stranger, OURS, OURS));
    let net = "192.0.2.1/24".parse().expect("address");
    rig.with(|r, _, _| r.del_addr(LAN, net)).expect("it is configured");
    assert!(rig.router.duplicates(LAN).is_empty());
    rig.with(|r, _, _| r.del_addr(LAN, net)).expect_err("it is not any more");
}

/// Proves rfc5227-2.4-a, rfc5227-2.4-b, rfc5227-2.4-c, rfc5227-2.4-report: an address in use is kept, or given up, as the
/// operator chose, and told once in ten seconds.
#[test]
fn ipv4_conflicts_in_use_end_as_the_operator_chose() {
    let claim = arp(1, HOST, OURS, OURS);
    for (what, announced, told, kept) in [
        (OnConflict::Defend, [1, 0, 1], [1, 0, 1], true),
        (OnConflict::Yield, [1, 0, 0], [1, 1, 0], false),
        (OnConflict::Release, [0, 0, 0], [1, 0, 0], false),
    ] {
        let mut all = settings(false);
        all.neighbor.acd_conflict = what;
        let mut rig = Rig::new(all);
        let mut seen = ([0; 3], [0; 3]);
        for (i, wait) in [0, 3, 8].into_iter().enumerate() {
            rig.pass(Duration::from_secs(wait));
            seen.0[i] = arps(rig.frame(LAN, &claim)).len();
            seen.1[i] = rig.router.take_conflicts().len();
        }
        assert_eq!((seen, owns(&rig)), ((announced, told), kept), "{what:?}");
    }
}

/// Proves rfc5227-2.1.1-source: nobody is asked from an address that may be somebody else's, and the packet that waits is
/// not lost.
#[test]
fn no_arp_question_from_a_tentative_address() {
    let mut all = settings(true);
    // As long as the probes take.
    all.neighbor.max_multicast_solicit = 10;
    let mut rig = Rig::just_started(all, LAN_ADDRS, WAN_ADDRS);
    rig.pass(Duration::from_millis(10));
    let to_stranger = icmp("198.51.100.2", "192.0.2.77", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let asks = |sent: Vec<(PortId, Vec<u8>)>| {
        arps(sent).into_iter().filter(|f| f[38..42] == [192, 0, 2, 77]).collect::<Vec<_>>()
    };
    let mut asked = asks(rig.frame(WAN, &frame_of(GATEWAY, OWN[2], &to_stranger)));
    while rig.router.ports().is_tentative(LAN, &ip("192.0.2.1")) {
        assert!(asked.is_empty(), "{asked:?}");
        asked = asks(rig.pass(Duration::from_millis(100)));
    }
    while asked.is_empty() {
        asked = asks(rig.pass(Duration::from_millis(100)));
    }
    assert_eq!(asked[0][28..32], OURS);
    let mut reply = arp(2, HOST, [192, 0, 2, 77], OURS);
    reply[32..38].copy_from_slice(&OWN[1].0);
    assert_eq!(rig.frame(LAN, &reply).len(), 1, "the packet that waited");
}

/// Proves rfc5227-2.1-probe: where it is asked for, and only there.
#[test]
fn acd_by_port() {
    let first = |acd: bool, ports: &[(&str, bool)]| {
        let mut all = settings(acd);
        all.neighbor.acd_ports = ports.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect();
        let rig = Rig::just_started(all, LAN_ADDRS, WAN_ADDRS);
        let mut rig = rig;
        rig.pass(Duration::from_millis(1));
        let tentative = |port, addr| rig.router.ports().is_tentative(port, &ip(addr));
        (tentative(LAN, "192.0.2.1"), tentative(WAN, "198.51.100.1"))
    };
    assert_eq!(first(false, &[]), (false, false));
    assert_eq!(first(true, &[]), (true, true));
    assert_eq!(first(false, &[("lan0", true)]), (true, false));
    assert_eq!(first(true, &[("lan0", false)]), (false, true));
}
