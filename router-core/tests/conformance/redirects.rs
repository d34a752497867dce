//! Redirects: RFC 792, RFC 1812 5.2.7.2, RFC 4861 8.2.

use crate::rig::{HOST, LAN, OTHER, OWN, Rig, frame_of, ip, packet, read_icmp};
use router_core::addr::MacAddr;
use router_core::settings::Settings;

fn rig(settings: Settings) -> Rig {
    let mut rig = Rig::new(settings);
    rig.route("203.0.113.0/24", "192.0.2.3", "lan0");
    rig.route("203.0.114.0/24", "2001:db8::3", "lan0");
    rig.route("2001:db8:9::/48", "fe80::3", "lan0");
    rig.route("2001:db8:a::/48", "2001:db8::3", "lan0");
    rig.route("203.0.115.0/24", "198.51.100.2", "wan0");
    rig
}

/// rfc792-redirect, rfc1812-5.2.7.2-host, rfc1812-5.2.7.2-forward: the packet goes on all the same.
/// Proves rfc1812-4.3.3.2-redirect.
#[test]
fn hosts_are_told_of_a_better_ipv4_router() {
    let original = packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 100]);
    let sent = rig(Settings::default()).send(&original);
    let (forwarded, told): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, p)| p[9] == 17);
    assert_eq!((forwarded.len(), forwarded[0].0, forwarded[0].1[8]), (1, LAN, 63));
    let (p, message) = read_icmp(&told[0].1);
    assert_eq!((told.len(), told[0].0, p.src, p.dst), (1, LAN, ip("192.0.2.1"), ip("192.0.2.2")));
    assert_eq!(message[..2], [5, 1], "redirect for the host, never for the network");
    assert_eq!(message[4..8], [192, 0, 2, 3]);
    assert_eq!(message[8..], original, "quoted as it came");
}

/// rfc4861-8.2-send, rfc4861-4.5: to the sender, from the link-local address, with hop limit 255.
#[test]
fn hosts_are_told_of_a_better_ipv6_router_or_that_the_destination_is_near() {
    for (dst, target) in [("2001:db8:9::9", "fe80::3"), ("2001:db8::3", "2001:db8::3")] {
        let original = packet("2001:db8::2", dst, 17, 64, &[5; 99]);
        let sent = rig(Settings::default()).send(&original);
        let (forwarded, told): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, p)| p[6] == 17);
        assert_eq!((forwarded.len(), told.len()), (1, 1), "{dst}");
        let (p, m) = read_icmp(&told[0].1);
        assert_eq!((p.src, p.dst, p.ttl), (ip("fe80::1"), ip("2001:db8::2"), 255), "{dst}");
        assert_eq!(m[..2], [137, 0], "{dst}");
        let addr = |at: usize| std::net::IpAddr::from(<[u8; 16]>::try_from(&m[at..at + 16]).expect("address"));
        assert_eq!((addr(8), addr(24)), (ip(target), ip(dst)));
        assert_eq!(m[40..48], [&[2, 1][..], &OTHER.0].concat(), "{dst}: target link-layer address");
        assert_eq!((m[48], usize::from(m[49]) * 8), (4, m.len() - 48), "{dst}: redirected header");
        assert_eq!(m[56..56 + original.len()], original, "{dst}");
        assert!(told[0].1.len() <= 1280);
        let long = packet("2001:db8::2", dst, 17, 64, &[5; 1400]);
        let sent = rig(Settings::default()).send(&long);
        let told = sent.iter().find(|(_, p)| p[6] == 58).expect("a redirect");
        assert!((1200..=1280).contains(&told.1.len()), "{dst}: {}", told.1.len());
        let (_, m) = read_icmp(&told.1);
        assert_eq!((&m[56..], usize::from(m[49]) * 8), (&long[..m.len() - 56], m.len() - 48), "{dst}");
    }
}

/// What must not be redirected.
#[test]
fn no_redirects() {
    let off = || {
        let mut s = Settings::default();
        s.icmp.redirects = false;
        s
    };
    let later_fragment = |mut p: Vec<u8>| {
        p[7] = 9;
        router_core::checksum::fill_ipv4_header(&mut p);
        p
    };
    let rows: Vec<(&str, Settings, Vec<u8>, MacAddr)> = vec![
        ("switched off", off(), packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20]), OWN[1]),
        (
            "rfc1812-5.2.7.2-link sender elsewhere",
            Settings::default(),
            packet("10.9.9.9", "203.0.113.9", 17, 64, &[5; 20]),
            OWN[1],
        ),
        ("out by another port", Settings::default(), packet("192.0.2.2", "203.0.115.9", 17, 64, &[5; 20]), OWN[1]),
        (
            "draft-v4-via-v6-3-redirect next hop of the other family",
            Settings::default(),
            packet("192.0.2.2", "203.0.114.9", 17, 64, &[5; 20]),
            OWN[1],
        ),
        (
            "rfc4861-8.2-target a gateway by its global address",
            Settings::default(),
            packet("2001:db8::2", "2001:db8:a::9", 17, 64, &[5; 20]),
            OWN[1],
        ),
        (
            "rfc4861-8.2-neighbor sender elsewhere",
            Settings::default(),
            packet("2001:db8:7::7", "2001:db8:9::9", 17, 64, &[5; 20]),
            OWN[1],
        ),
        (
            "rfc1812-4.3.2.7 later fragment",
            Settings::default(),
            later_fragment(packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20])),
            OWN[1],
        ),
        (
            "about an error",
            Settings::default(),
            packet("192.0.2.2", "203.0.113.9", 1, 64, &[3, 1, 0, 0, 0, 0, 0, 0, 9]),
            OWN[1],
        ),
    ];
    for (what, settings, original, to) in rows {
        let sent = rig(settings).frame(LAN, &frame_of(HOST, to, &original));
        assert_eq!(sent.len(), 1, "{what}: {sent:02x?}");
        assert!(sent[0].1[14..].ends_with(&[5; 8]) || sent[0].1.ends_with(&[9]), "{what}: forwarded");
    }
}

/// rfc1812-4.3.2.8-redirect, rfc4861-8.2-rate: redirects are limited per destination.
#[test]
fn redirects_are_rate_limited() {
    let mut rig = rig(Settings::default());
    let burst = rig.router.settings().icmp.peer_burst as usize;
    let mut told = 0;
    for _ in 0..burst + 50 {
        told += rig.send(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20])).len() - 1;
    }
    assert_eq!(told, burst);
}
