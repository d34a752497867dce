//! Extended ICMP errors: RFC 4884, RFC 5837, node identification.

use crate::rig::{LAN, Rig, ip, packet, read_icmp};
use router_core::addr::Family;
use router_core::settings::{NodeIdentity, Settings};

fn settings(interface: bool, node: Option<(&str, Option<&str>)>) -> Settings {
    let mut s = Settings::default();
    s.icmp.interface_info = interface;
    s.icmp.node = node.map(|(name, addr)| NodeIdentity { name: name.into(), addr: addr.map(ip) });
    s
}

/// An extension structure taken apart: class, C-Type and payload of each object. Its own checksum must be right.
fn objects(mut e: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    assert_eq!(e[0] >> 4, 2, "version");
    assert!(router_core::checksum::verify(e), "checksum of the extension");
    e = &e[4..];
    let mut found = Vec::new();
    while !e.is_empty() {
        let len = usize::from(u16::from_be_bytes([e[0], e[1]]));
        found.push((e[2], e[3], e[4..len].to_vec()));
        e = &e[len..];
    }
    found
}

/// Proves rfc4884-7-structure.
#[test]
fn errors_with_extensions() {
    let node = Some(("diamond", Some("2001:db8::ff")));
    let (v4, v6) = (("192.0.2.2", "203.0.113.9"), ("2001:db8::2", "2001:db8:9::9"));
    // ids, addresses, TTL, payload, ICMP type, whether it carries extensions, bytes quoted and padded
    type Row<'a> = (&'a str, (&'a str, &'a str), u8, usize, u8, bool, usize);
    let rows: &[Row<'_>] = &[
        ("rfc4884-4.2 rfc4884-4-pad", (v4.0, "198.51.100.9"), 1, 30, 11, true, 128),
        ("rfc4884-4.1", v4, 64, 200, 3, true, 220),
        ("rfc4884-4.1 rfc4884-4-limit", v4, 64, 3000, 3, true, 484),
        ("rfc4884-4.5 rfc4884-4-pad", (v6.0, "2001:db8:1::9"), 1, 30, 3, true, 128),
        ("rfc4884-4.4", v6, 64, 203, 1, true, 248),
        ("rfc4884-4.4 rfc4884-4-limit", v6, 64, 3000, 1, true, 1152),
    ];
    for (ids, (src, dst), ttl, payload, kind, extended, padded) in rows {
        let mut rig = Rig::new(settings(true, node));
        let original = packet(src, dst, 17, *ttl, &vec![7; *payload]);
        let (port, answer) = rig.send_one(&original);
        let (p, message) = read_icmp(&answer);
        assert_eq!((port, message[0]), (LAN, *kind), "{ids}");
        let (limit, unit, at) = if p.family == Family::Inet { (576, 4, 5) } else { (1280, 8, 4) };
        assert!(answer.len() <= limit, "{ids}");
        assert_eq!((usize::from(message[at]) * unit, *extended), (*padded, true), "{ids}: length field");
        let quoted = original.len().min(*padded);
        assert_eq!(message[8..8 + quoted], original[..quoted], "{ids}: quoted as it came");
        assert!(message[8 + quoted..8 + padded].iter().all(|b| *b == 0), "{ids}: padded with zeros");
        let found = objects(&message[8 + padded..]);
        assert_eq!(found.len(), 2, "{ids}");
        // The port by which the packet came: role 0, index, address, name, MTU.
        let (class, kind, ref interface) = found[0];
        assert_eq!((class, kind), (2, 0x0f), "{ids}: rfc5837-4.1");
        let ifindex = rig.router.ports().get(LAN).expect("port").ifindex;
        let own = if p.family == Family::Inet { ip("192.0.2.1") } else { ip("2001:db8::1") };
        let (afi, addr) = match own {
            std::net::IpAddr::V4(a) => (1, a.octets().to_vec()),
            std::net::IpAddr::V6(a) => (2, a.octets().to_vec()),
        };
        let want = [&ifindex.to_be_bytes()[..], &[0, afi, 0, 0], &addr, &[8], b"lan0\0\0\0", &1500u32.to_be_bytes()];
        assert_eq!(*interface, want.concat(), "{ids}: rfc5837-4.2 rfc5837-4.3");
        // Who speaks: address, then name.
        let (class, kind, ref node) = found[1];
        assert_eq!((class, kind), (5, 6), "{ids}: draft-nodeid-3.1");
        let std::net::IpAddr::V6(id) = ip("2001:db8::ff") else { panic!() };
        assert_eq!(*node, [&[0, 2, 0, 0], &id.octets()[..], &[8], b"diamond"].concat(), "{ids}: draft-nodeid-3.3");
    }
}

/// rfc4884-4-kinds: packet too big may carry none. rfc5837-5-off, draft-nodeid-4-off: nothing unless asked for.
#[test]
fn errors_without_extensions() {
    let on = || settings(true, Some(("diamond", None)));
    for (what, settings, packet, kind) in [
        ("too big", on(), packet("2001:db8::2", "2001:db8:1::2", 17, 9, &[1; 1400]), 2),
        ("the default", Settings::default(), packet("2001:db8::2", "2001:db8:9::9", 17, 9, &[1; 30]), 1),
        ("the default", Settings::default(), packet("192.0.2.2", "203.0.113.9", 17, 9, &[1; 30]), 3),
    ] {
        let (_, answer) = Rig::new(settings).send_one(&packet);
        let (_, message) = read_icmp(&answer);
        assert_eq!(message[0], kind, "{what}");
        assert_eq!((message[4], message[5]), (0, 0), "{what}: no length");
        let quoted = packet.len().min(message.len() - 8);
        assert_eq!(message[8..], packet[..quoted], "{what}: the quote and nothing else");
    }
}

/// Proves draft-nodeid-3.3, rfc5837-4.3: a name fills at most 64 bytes with its length, is padded with NUL, and stays
/// UTF-8.
#[test]
fn names_are_cut_and_padded() {
    for (name, len) in [("", 0), ("abc", 4), ("abcd", 8), (&"é".repeat(60)[..], 64), (&"x".repeat(200)[..], 64)] {
        let mut rig = Rig::new(settings(false, Some((name, Some("192.0.2.99")))));
        let (_, answer) = rig.send_one(&packet("192.0.2.2", "203.0.113.9", 17, 1, &[1; 30]));
        let (_, message) = read_icmp(&answer);
        let (class, kind, object) = objects(&message[8 + 128..]).remove(0);
        assert_eq!((class, kind), (5, if len == 0 { 4 } else { 6 }), "{name}");
        let sub = &object[8..];
        assert_eq!(sub.len(), len, "{name}");
        if len > 0 {
            assert_eq!(usize::from(sub[0]), len);
            let text = std::str::from_utf8(&sub[1..]).expect("UTF-8").trim_end_matches('\0');
            assert!(name.starts_with(text) && text.len() + 4 > name.len().min(63), "{name}: {text}");
        }
    }
}

/// rfc7600-5.4, draft-v4-via-v6-4-source, draft-nodeid-1: two routers that both answer from 192.0.0.8 are told apart.
/// Proves rfc9229-3-icmp, rfc9229-3-source.
#[test]
fn routers_without_ipv4_addresses_are_told_apart() {
    let mut seen = Vec::new();
    for name in ["alpha", "beta"] {
        let wan = &["2001:db8:1::1/64"];
        let mut rig = Rig::with_addrs(settings(false, Some((name, None))), &["2001:db8::1/64"], wan);
        rig.route("192.0.2.0/24", "2001:db8::2", "lan0");
        let (_, answer) = rig.send_one(&packet("192.0.2.2", "203.0.113.9", 17, 1, &[1; 30]));
        let (p, message) = read_icmp(&answer);
        assert_eq!(p.src, ip("192.0.0.8"));
        let (_, _, object) = objects(&message[8 + 128..]).remove(0);
        seen.push(String::from_utf8(object[1..1 + name.len()].to_vec()).expect("UTF-8"));
    }
    assert_eq!(seen, ["alpha", "beta"]);
}

/// Proves draft-nodeid-4-policy, rfc5837-5-to: who is told which node speaks, and through which port the packet came, may be
/// limited to the operator's own networks.
#[test]
fn extensions_for_the_own_networks_alone() {
    for (to, told) in [
        (&[][..], [true, true]),
        (&["192.0.2.0/24"][..], [true, false]),
        (&["2001:db8::/32"][..], [false, true]),
        (&["10.0.0.0/8", "2001:db8::2/128", "192.0.2.2/32"][..], [true, true]),
        (&["10.0.0.0/8"][..], [false, false]),
    ] {
        let mut s = settings(true, Some(("diamond", None)));
        s.icmp.info_to = to.iter().map(|n| n.parse().expect("prefix")).collect();
        for (i, (src, dst)) in [("192.0.2.2", "203.0.113.9"), ("2001:db8::2", "2001:db8:9::9")].into_iter().enumerate()
        {
            let mut rig = Rig::new(s.clone());
            let (_, answer) = rig.send_one(&packet(src, dst, 17, 64, &[7; 30]));
            let (p, message) = read_icmp(&answer);
            let length = message[if p.family == Family::Inet { 5 } else { 4 }];
            assert_eq!(length > 0, told[i], "{to:?} {src}");
        }
    }
}
