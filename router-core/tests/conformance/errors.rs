//! ICMP errors and echo replies of a whole router: limits, sources, groups.

use crate::rig::{HOST, LAN, OWN, Rig, frame_of, icmp, ip, packet, read_icmp};
use router_core::addr::MacAddr;
use router_core::settings::Settings;
use router_core::time::Duration;
use std::net::Ipv6Addr;

/// rfc1812-4.3.2.8, rfc4443-2.4-f: per kind and per destination, so that one sender does not use up what others need.
#[test]
fn errors_are_limited_per_destination_and_kind() {
    let mut rig = Rig::new(Settings::default());
    let (burst, rate) = (rig.router.settings().icmp.peer_burst as usize, rig.router.settings().icmp.peer_rate);
    rig.neighbor(LAN, "192.0.2.66", HOST);
    let noisy = packet("192.0.2.66", "203.0.113.9", 17, 64, &[1; 30]);
    let answers = (0..2 * burst).filter(|_| !rig.send(&noisy).is_empty()).count();
    assert_eq!(answers, burst);
    // Another host is answered, and so is another kind: path MTU discovery goes on.
    assert_eq!(rig.send(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[1; 30])).len(), 1);
    let mut big = packet("192.0.2.66", "198.51.100.2", 17, 64, &[1; 1400]);
    big[6] = 0x40;
    router_core::checksum::fill_ipv4_header(&mut big);
    let (_, message) = read_icmp(&rig.send_one(&big).1);
    assert_eq!(message[..2], [3, 4]);
    // One token comes back after its time.
    rig.pass(Duration::from_secs(1) / rate);
    assert_eq!(rig.send(&noisy).len(), 1);
    assert!(rig.send(&noisy).is_empty());
}

/// rfc4443-2.4-f-v6: one IPv6 link is one party, whatever addresses its hosts choose.
#[test]
fn a_link_full_of_addresses_has_one_bucket() {
    let mut rig = Rig::new(Settings::default());
    let burst = rig.router.settings().icmp.peer_burst as usize;
    let mut answers = 0;
    for n in 0..2 * burst {
        let src = format!("2001:db8:7::{:x}", n + 1);
        rig.route(&format!("{src}/128"), "2001:db8::2", "lan0");
        answers += rig.send(&packet(&src, "2001:db8:9::9", 17, 64, &[1; 30])).len();
    }
    assert_eq!(answers, burst);
}

fn group_mac(group: &str) -> MacAddr {
    let group: Ipv6Addr = group.parse().expect("group");
    MacAddr::for_ipv6_multicast(group)
}

/// rfc4443-4.2-multicast, rfc4443-2.2-multicast: `ping ff02::1` is answered from a unicast address of the asker's scope.
/// Proves rfc4291-2.7-scope, rfc4291-2.7-scope-0, rfc4291-2.7-scope-1, rfc4291-2.8-groups, rfc6724-5-rule-2.
#[test]
fn echo_requests_to_groups() {
    let own_group = "ff02::1:ff00:1";
    let rows = [
        ("fe80::2", "ff02::1", Some("fe80::1")),
        ("fe80::2", "ff02::2", Some("fe80::1")),
        ("2001:db8::2", "ff02::1", Some("2001:db8::1")),
        ("fe80::2", own_group, Some("fe80::1")),
        ("fe80::2", "ff02::1:ff00:77", None),
        ("fe80::2", "ff02::5", None),
        ("fe80::2", "ff00::1", None),
        ("fe80::2", "ff01::1", None),
        ("2001:db8::2", "ff01::2", None),
        ("2001:db8::2", "ff05::2", Some("2001:db8::1")),
        ("2001:db8::2", "ff05::1", None),
        ("2001:db8::2", "ff0e::2", None),
    ];
    for (src, dst, want) in rows {
        let mut rig = Rig::new(Settings::default());
        let request = icmp(src, dst, 64, &[128, 0, 0, 0, 0, 1, 0, 1, 7, 7]);
        let sent = rig.frame(LAN, &frame_of(HOST, group_mac(dst), &request));
        match want {
            Some(own) => {
                assert_eq!(sent.len(), 1, "{src} {dst}");
                let (p, m) = read_icmp(&sent[0].1[14..]);
                assert_eq!((p.src, p.dst, m[0]), (ip(own), ip(src), 129), "{src} {dst}");
            }
            None => assert!(sent.is_empty(), "{src} {dst}"),
        }
        // Damaged ones are not answered.
        let mut bad = request.clone();
        bad[48] ^= 1;
        assert!(rig.frame(LAN, &frame_of(HOST, group_mac(dst), &bad)).is_empty(), "{src} {dst}");
    }
}

/// rfc4291-2.6.1-anycast, rfc4443-2.2-anycast: what is sent to all routers of a subnet is delivered, and answered from an
/// address of this router alone, echo and error.
/// Also proves rfc8504-6.1-addresses.
#[test]
fn anycast_is_delivered_and_answered_from_an_own_address() {
    for (src, dst, own) in [
        ("2001:db8::2", "2001:db8::", "2001:db8::1"),
        ("2001:db8::2", "2001:db8:1::", "2001:db8::1"),
        ("fe80::2", "2001:db8::", "fe80::1"),
        ("fe80::2", "fe80::", "fe80::1"),
    ] {
        let mut rig = Rig::new(Settings::default());
        let (_, answer) = rig.send_one(&icmp(src, dst, 64, &[128, 0, 0, 0, 0, 1, 0, 1, 7, 7]));
        let (p, m) = read_icmp(&answer);
        assert_eq!((p.src, p.dst, &m[..2], &m[4..]), (ip(own), ip(src), &[129, 0][..], &[0, 1, 0, 1, 7, 7][..]));
        let (_, answer) = rig.send_one(&packet(src, dst, 253, 64, &[1; 30]));
        let (p, m) = read_icmp(&answer);
        assert_eq!((p.src, &m[..2]), (ip(own), &[4, 1][..]), "{src} {dst}");
    }
}

/// rfc8200-4.2-group, rfc4443-4.2-multicast: what the headers of a packet to a group say comes first, then it is answered.
#[test]
fn options_in_packets_to_groups() {
    for (kind, group, want) in [
        (0x9e, "ff02::2", Some((4, 2, 42))),
        (0x9e, "ff02::1", Some((4, 2, 42))),
        (0x9e, "ff05::2", Some((4, 2, 42))),
        (0x9e, "ff02::77", None),
        (0xde, "ff02::2", None),
        (0x5e, "ff02::2", None),
        (0x1e, "ff02::2", Some((129, 0, 0x1_0001))),
    ] {
        let mut rig = Rig::new(Settings::default());
        let plain = icmp("2001:db8::2", group, 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
        let mut request = [&plain[..40], &[58, 0, kind, 4, 0, 0, 0, 0], &plain[40..]].concat();
        (request[5], request[6]) = (16, 60);
        let sent = rig.frame(LAN, &frame_of(HOST, group_mac(group), &request));
        let got = sent.first().map(|(_, frame)| {
            let (_, m) = read_icmp(&frame[14..]);
            (m[0], m[1], u32::from_be_bytes([m[4], m[5], m[6], m[7]]))
        });
        assert_eq!(got, want, "{kind:#x} to {group}");
    }
}

/// rfc4443-4.2-any, rfc1812-4.3.3.6: echo to any own address, by whatever port it comes.
/// Proves rfc1122-3.2.1.3-source, rfc1122-3.2.2.6-source.
/// Proves rfc791-3.2-several.
#[test]
fn echo_to_any_own_address() {
    for (src, dst) in [
        ("192.0.2.2", "192.0.2.1"),
        ("192.0.2.2", "198.51.100.1"),
        ("192.0.2.2", "192.0.2.77"),
        ("192.0.2.2", "10.5.5.5"),
        ("2001:db8::2", "2001:db8::1"),
        ("2001:db8::2", "2001:db8:1::1"),
        ("2001:db8::2", "2001:db8:5::5"),
        ("fe80::2", "fe80::1"),
    ] {
        let mut rig = Rig::new(Settings::default());
        // Several on one interface, each as good as the first.
        for more in ["192.0.2.77/24", "10.5.5.5/8", "2001:db8:5::5/64"] {
            rig.with(|r, _, _| r.add_addr(LAN, more.parse().expect("address"))).expect("address");
        }
        rig.pass(Duration::from_secs(5));
        let kind = if src.contains(':') { 128 } else { 8 };
        let request = icmp(src, dst, 64, &[kind, 0, 0, 0, 0, 1, 0, 1, 7, 7]);
        let (port, answer) = rig.send_one(&request);
        let (p, m) = read_icmp(&answer);
        assert_eq!((port, p.src, p.dst), (LAN, ip(dst), ip(src)));
        assert_eq!((m[0], &m[4..]), (if kind == 8 { 0 } else { 129 }, &[0, 1, 0, 1, 7, 7][..]));
    }
}

/// Packets that may never cause an ICMP error, each with a reason to send one (no route, TTL 1).
/// Proves rfc1122-3.2.1.2-checksum, rfc1122-3.2.1.3-addresses, rfc1812-5.3.4-link.
/// Proves rfc1812-5.3.4-silent.
#[test]
fn packets_that_are_never_answered() {
    let error4 = [11, 0, 0, 0, 0, 0, 0, 0, 0x45];
    let error6 = [3, 0, 0, 0, 0, 0, 0, 0, 0x60];
    let far = "203.0.113.9";
    let broadcast = MacAddr::BROADCAST;
    let rows: Vec<(&str, MacAddr, Vec<u8>)> = vec![
        ("rfc1812-4.3.2.7-error", OWN[1], icmp("192.0.2.2", far, 64, &error4)),
        ("rfc1812-4.3.2.7-multicast", OWN[1], packet("192.0.2.2", "239.1.1.1", 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-broadcast", OWN[1], packet("192.0.2.2", "255.255.255.255", 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-broadcast", OWN[1], {
            // A malformed option: found out before it is known where the packet would go.
            let mut p = packet("192.0.2.2", "198.51.100.255", 17, 64, &[1; 30]);
            p.splice(20..20, [7, 9, 4, 0]);
            (p[0], p[3]) = (0x46, p[3] + 4);
            router_core::checksum::fill_ipv4_header(&mut p);
            p
        }),
        ("rfc1812-4.3.2.7-link", broadcast, packet("192.0.2.2", far, 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-source", OWN[1], packet("127.0.0.1", far, 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-source", OWN[1], packet("0.0.0.0", far, 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-source", OWN[1], packet("224.0.0.9", far, 17, 1, &[1; 30])),
        ("rfc1812-4.3.2.7-source", OWN[1], packet("240.0.0.9", far, 17, 1, &[1; 30])),
        ("rfc1812-5.2.2-silent", OWN[1], {
            let mut p = packet("192.0.2.2", far, 17, 1, &[1; 30]);
            p[10] ^= 1;
            p
        }),
        ("rfc4443-2.4-e1", OWN[1], icmp("2001:db8::2", "2001:db8:9::9", 64, &error6)),
        ("rfc4443-2.4-e2", OWN[1], icmp("2001:db8::2", "2001:db8:9::9", 64, &[137, 0, 0, 0, 0, 0, 0, 0, 0x60])),
        ("rfc4443-2.4-e3", group_mac("ff0e::1"), packet("2001:db8::2", "ff0e::1", 17, 1, &[1; 30])),
        ("rfc4443-2.4-e4", group_mac("ff02::1"), packet("2001:db8::2", "2001:db8:9::9", 17, 1, &[1; 30])),
        ("rfc4443-2.4-e4", group_mac("ff02::1"), {
            // An unknown option that says "tell, unless multicast".
            let mut p = packet("2001:db8::2", "2001:db8:9::9", 0, 64, &[17, 0, 0xde, 4, 0, 0, 0, 0, 1, 2, 3, 4]);
            p[7] = 64;
            p
        }),
        ("rfc4443-2.4-e6", OWN[1], packet("::", "2001:db8:9::9", 17, 1, &[1; 30])),
        ("rfc4443-2.4-e6", OWN[1], packet("ff02::9", "2001:db8:9::9", 17, 1, &[1; 30])),
        ("rfc4443-2.4-e6", OWN[1], packet("::1", "2001:db8:9::9", 17, 1, &[1; 30])),
    ];
    for (id, to, original) in rows {
        let mut rig = Rig::new(Settings::default());
        let sent = rig.frame(LAN, &frame_of(HOST, to, &original));
        assert!(sent.is_empty(), "{id}: {sent:02x?}");
        assert_eq!(rig.totals().dropped_total(), 1, "{id}: counted");
    }
}

/// rfc1812-4.3.2.7-fragment: only the first fragment of a datagram is answered.
#[test]
fn later_fragments_are_not_answered() {
    for (field, answers) in [(0x2000u16, 1), (0x2001, 0), (0x0009, 0)] {
        let mut p = packet("192.0.2.2", "203.0.113.9", 17, 64, &[1; 32]);
        p[6..8].copy_from_slice(&field.to_be_bytes());
        router_core::checksum::fill_ipv4_header(&mut p);
        assert_eq!(Rig::new(Settings::default()).send(&p).len(), answers, "{field:x}");
    }
}

/// rfc8201-4-minimum, rfc4443-3.2: a packet too big never tells less than 1280, however small the next link is.
#[test]
fn too_big_tells_the_mtu() {
    for (len, want) in [(1401, Some(1400)), (1400, None)] {
        let mut rig = Rig::new(Settings::default());
        let sent = rig.send(&packet("2001:db8::2", "2001:db8:1::2", 17, 64, &vec![1; len - 40]));
        let answer = sent.iter().find(|(port, _)| *port == LAN).map(|(_, p)| read_icmp(p).1);
        let told = answer.map(|m| (m[0], u32::from_be_bytes([m[4], m[5], m[6], m[7]])));
        assert_eq!(told, want.map(|mtu| (2, mtu)), "{len}");
    }
}
