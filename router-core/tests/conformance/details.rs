//! Demands on single fields and rare messages, of which one sentence somewhere in an RFC speaks.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp, with_options};
use router_core::addr::MacAddr;
use router_core::checksum::{fill_ipv4_header, verify_ipv4_header};
use router_core::port::PortId;
use router_core::settings::{AdvertSettings, Settings};
use router_core::spec::NudState;
use router_core::time::Duration;

fn rig_with(settings: Settings) -> Rig {
    let mut rig = Rig::new(settings);
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig.route("2001:db8:9::/48", "2001:db8:1::2", "wan0");
    rig
}

fn echo(src: &str, dst: &str, data: usize) -> Vec<u8> {
    let kind = if src.contains(':') { 128 } else { 8 };
    icmp(src, dst, 64, &[&[kind, 0, 0, 0, 0, 1, 0, 1][..], &vec![9; data]].concat())
}

/// Proves rfc1812-4.2.2.3-reserved, rfc1812-5.2.5-pass, rfc1812-5.2.5-fragments: the reserved bits of the flags and of the
/// type of service are nobody's business, and never set in packets of our own.
#[test]
fn reserved_bits_pass_and_follow_into_fragments() {
    let odd = |mut p: Vec<u8>| {
        (p[1], p[6]) = (1, 0x80);
        fill_ipv4_header(&mut p);
        p
    };
    let mut rig = rig_with(Settings::default());
    let p = odd(packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 40]));
    let (port, sent) = rig.send_one(&p);
    assert_eq!((port, sent[1], sent[6], verify_ipv4_header(&sent)), (WAN, 1, 0x80, true));
    let (_, reply) = rig.send_one(&odd(echo("192.0.2.2", "192.0.2.1", 40)));
    assert_eq!((reply[20], reply[6] & 0x80), (0, 0));
    let sent = rig.send(&odd(packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 1470])));
    let fields: Vec<_> = sent.iter().map(|(_, p)| (p[1], u16::from_be_bytes([p[6], p[7]]))).collect();
    assert_eq!(fields, [(1, 0xa000), (1, 0x8000 | 172)]);
    assert!(sent.iter().all(|(_, p)| verify_ipv4_header(p)));
}

/// Proves rfc1122-3.2.1.7-configurable, rfc1812-4.2.2.9-configurable: of errors, echo replies and resets.
#[test]
fn the_ttl_of_answers_is_settable() {
    let mut settings = Settings::default();
    settings.icmp.ttl = 200;
    let mut rig = rig_with(settings);
    let mut tcp = [0; 20];
    tcp[12..14].copy_from_slice(&[0x50, 2]);
    let syn = |src: &str, dst: &str| {
        let mut t = tcp;
        let sum = router_core::checksum::pseudo(ip(src), ip(dst), 6, 20).expect("sum").bytes(&t).finish();
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        packet(src, dst, 6, 64, &t)
    };
    for (what, p) in [
        ("error", packet("192.0.2.2", "203.0.113.9", 17, 1, &[5; 40])),
        ("error", packet("2001:db8::2", "2001:db8:9::9", 17, 1, &[5; 40])),
        ("reply", echo("192.0.2.2", "192.0.2.1", 40)),
        ("reply", echo("2001:db8::2", "2001:db8::1", 40)),
        ("reset", syn("192.0.2.2", "192.0.2.1")),
        ("reset", syn("2001:db8::2", "2001:db8::1")),
    ] {
        let (port, answer) = rig.send_one(&p);
        let v4 = p[0] >> 4 == 4;
        assert_eq!((port, answer[if v4 { 8 } else { 7 }]), (LAN, 200), "{what}");
        assert!(!v4 || verify_ipv4_header(&answer), "{what}");
    }
}

/// Proves rfc1812-5.3.1-predict: what can go one hop further goes.
#[test]
fn nobody_is_spared_the_last_hop() {
    let mut rig = rig_with(Settings::default());
    for (src, dst, at) in [("192.0.2.2", "203.0.113.9", 8), ("2001:db8::2", "2001:db8:9::9", 7)] {
        let (port, sent) = rig.send_one(&packet(src, dst, 17, 2, &[5; 40]));
        assert_eq!((port, sent[at]), (WAN, 1));
    }
}

/// Proves rfc1122-3.2.1.8-stream, rfc1812-4.2.2.1-stream: the stream identifier does no harm and is not sent by us.
/// Proves rfc1812-5.3.13.3-stream.
#[test]
fn stream_identifiers_are_ignored() {
    let request = echo("192.0.2.2", "192.0.2.1", 16);
    let with = with_options("192.0.2.2", "192.0.2.1", 1, 64, &[136, 4, 0, 7], &request[20..]);
    let (port, reply) = rig_with(Settings::default()).send_one(&with);
    assert_eq!((port, reply[0], reply[20]), (LAN, 0x45, 0));
    let through = |ttl| with_options("192.0.2.2", "203.0.113.9", 17, ttl, &[136, 4, 0, 7], &[5; 20]);
    assert_eq!(rig_with(Settings::default()).send_one(&through(64)), (WAN, through(63)), "passed as it is");
}

/// A router solicitation in its frame.
fn solicitation(src: &str, reserved: u8, mac: Option<MacAddr>) -> Vec<u8> {
    let mut message = vec![133, 0, 0, 0, reserved, reserved, reserved, reserved];
    if let Some(mac) = mac {
        message.extend([1, 1]);
        message.extend(mac.0);
    }
    let to = MacAddr::for_ipv6_multicast("ff02::2".parse().expect("group"));
    frame_of(HOST, to, &icmp(src, "ff02::2", 255, &message))
}

/// Proves rfc4861-6.2.6-unspecified, rfc4861-7.2-no-option, rfc4861-6.2.6-update, rfc4861-7.1-reserved.
/// Also proves rfc8504-14.2-solicited.
#[test]
fn what_router_solicitations_teach_and_what_not() {
    let mut rig = Rig::new(Settings::default());
    let known = |rig: &Rig, addr: &str| {
        rig.router.neighbors().into_iter().find(|n| n.addr == ip(addr)).map(|n| (n.mac, n.state))
    };
    let before = rig.router.neighbors().len();
    rig.frame(LAN, &solicitation("::", 0, None));
    rig.frame(LAN, &solicitation("fe80::78", 0, None));
    assert_eq!((rig.router.neighbors().len(), known(&rig, "fe80::78")), (before, None));
    let other = MacAddr([2, 0, 0, 0, 0x10, 0x99]);
    for (mac, reserved) in [(HOST, 0), (other, 0xff)] {
        rig.frame(LAN, &solicitation("fe80::78", reserved, Some(mac)));
        assert_eq!(known(&rig, "fe80::78"), Some((Some(mac), NudState::Stale)));
    }
}

/// Proves rfc4861-6.2.1-off, rfc4861-6.2.2-interface: nothing unless asked for, and on no other port.
#[test]
fn only_chosen_ports_advertise() {
    let adverts = |settings: Settings| {
        let mut rig = Rig::new(settings);
        let mut sent = rig.pass(Duration::from_secs(60));
        for port in [LAN, WAN] {
            sent.extend(rig.frame(port, &solicitation("fe80::78", 0, Some(HOST))));
        }
        sent.extend(rig.pass(Duration::from_secs(60)));
        let advert = |f: &[u8]| f[12..14] == [0x86, 0xdd] && f[20] == 58 && f[54] == 134;
        let mut ports: Vec<PortId> = sent.iter().filter(|(_, f)| advert(f)).map(|(port, _)| *port).collect();
        ports.dedup();
        ports
    };
    assert_eq!(adverts(Settings::default()), []);
    let mut settings = Settings::default();
    settings.adverts.insert("lan0".into(), AdvertSettings::default());
    assert_eq!(adverts(settings), [LAN]);
}

/// Proves rfc8200-4.5-identification, rfc8200-4.5-headers: two long replies differ, and the first fragment has all headers.
/// Also proves rfc7112-5-send, rfc8504-5.1-identification.
#[test]
fn fragments_of_ours_are_told_apart() {
    let mut rig = rig_with(Settings::default());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let request = frame_of(GATEWAY, OWN[2], &echo("2001:db8:9::9", "2001:db8:1::1", 1440));
        let sent = rig.frame(WAN, &request);
        assert_eq!(sent.len(), 2);
        let idents: Vec<_> = sent.iter().map(|(_, f)| f[14 + 44..14 + 48].to_vec()).collect();
        assert_eq!(idents[0], idents[1]);
        assert_eq!((sent[0].1[20], sent[0].1[54], sent[0].1[62]), (44, 58, 129), "fragment header, then the reply's");
        seen.push(idents[0].clone());
    }
    assert_ne!(seen[0], seen[1]);
}

/// Proves rfc4884-4.3: the length stands behind the pointer.
#[test]
fn parameter_problems_with_extensions() {
    let mut settings = Settings::default();
    settings.icmp.interface_info = true;
    let bad = with_options("192.0.2.2", "203.0.113.9", 17, 64, &[7, 7, 3, 0, 0, 0, 0, 0], &[5; 20]);
    let (_, answer) = rig_with(settings).send_one(&bad);
    let (_, m) = read_icmp(&answer);
    assert_eq!((m[0], m[4], m[5]), (12, 22, 32), "128 bytes are quoted");
    assert_eq!(m[8..8 + bad.len()], bad);
    assert!(m[8 + bad.len()..136].iter().all(|b| *b == 0) && m[136] >> 4 == 2);
    assert_eq!(m[136] & 15 | m[137], 0, "rfc4884-7-reserved");
}
