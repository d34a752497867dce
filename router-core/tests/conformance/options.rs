//! IPv4 options and IPv6 extension headers on their way through, and to, a router.

use crate::rig::{LAN, Rig, WAN, icmp, ip, read_icmp, with_options};
use router_core::settings::Settings;

fn rig() -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig.route("2001:db8:9::/48", "2001:db8:1::2", "wan0");
    rig
}

/// Proves rfc1812-5.3.13.1-unknown.
/// Proves rfc7126-4.13-security.
#[test]
fn forwarded_ipv4_options() {
    let mut rig = rig();
    let time = {
        let ms = (rig.now.as_nanos() / 1_000_000) as u32 | 0x8000_0000;
        ms.to_be_bytes()
    };
    // id, options before and after
    let rows: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("rfc1812-5.3.13.5", vec![7, 7, 4, 0, 0, 0, 0, 0], vec![7, 7, 8, 198, 51, 100, 1, 0]),
        ("rfc1812-5.3.13.6", vec![68, 8, 5, 0, 0, 0, 0, 0], [&[68, 8, 9, 0][..], &time].concat()),
        ("rfc1812-4.2.2.1-unknown", vec![0x9e, 4, 1, 2], vec![0x9e, 4, 1, 2]),
        ("rfc2113-2.1", vec![148, 4, 0, 0], vec![148, 4, 0, 0]),
        ("rfc7126-4.13-security", vec![130, 4, 1, 2], vec![130, 4, 1, 2]),
        ("rfc7126-4.13-security", vec![133, 4, 1, 2], vec![133, 4, 1, 2]),
        ("rfc7126-4.13-security", vec![134, 4, 1, 2], vec![134, 4, 1, 2]),
        ("rfc7126-4.21-quick-start", vec![25, 8, 1, 2, 3, 4, 5, 6], vec![25, 8, 1, 2, 3, 4, 5, 6]),
        ("rfc7126-4.1-end", vec![0, 9, 9, 9], vec![0, 9, 9, 9]),
        ("rfc7126-4.2-nop", vec![1, 1, 1, 1], vec![1, 1, 1, 1]),
    ];
    for (id, before, after) in rows {
        let sent = rig.send_one(&with_options("192.0.2.2", "203.0.113.9", 17, 64, &before, &[5; 20]));
        assert_eq!(sent, (WAN, with_options("192.0.2.2", "203.0.113.9", 17, 63, &after, &[5; 20])), "{id}");
    }
}

/// Proves rfc792-parameter.
#[test]
fn refused_ipv4_options() {
    // id, options, ICMP type and code, pointer
    for (id, options, kind, pointer) in [
        ("rfc1812-5.3.13.4", vec![131, 7, 4, 192, 0, 2, 9], [3, 5], 0),
        ("rfc1812-5.3.13.4", vec![137, 7, 4, 192, 0, 2, 9], [3, 5], 0),
        ("rfc1812-4.3.3.5", vec![7, 1, 4, 0], [12, 0], 21),
        ("rfc791-3.1-record-route", vec![7, 7, 3, 0, 0, 0, 0], [12, 0], 22),
    ] {
        for dst in ["203.0.113.9", "192.0.2.1"] {
            let mut rig = rig();
            let original = with_options("192.0.2.2", dst, 17, 64, &options, &[5; 20]);
            let (port, answer) = rig.send_one(&original);
            let (_, message) = read_icmp(&answer);
            assert_eq!((port, &message[..2], message[4]), (LAN, &kind[..], pointer), "{id} to {dst}");
            assert_eq!(message[8..], original, "{id} to {dst}");
        }
    }
}

/// Proves rfc1812-4.2.2.1-timestamp.
/// rfc1122-3.2.2.6-options, rfc1812-4.3.3.6-options: `ping -R` gets its way recorded there and back.
#[test]
fn echo_replies_keep_recorded_routes() {
    let mut message = vec![8, 0, 0, 0, 0, 1, 0, 1];
    message.extend([9; 16]);
    let whole = icmp("192.0.2.2", "198.51.100.1", 64, &message);
    let options = [1, 7, 15, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = with_options("192.0.2.2", "198.51.100.1", 1, 64, &options, &whole[20..]);
    let (_, answer) = rig().send_one(&request);
    let (p, reply) = read_icmp(&answer);
    assert_eq!((p.src, reply[0], &reply[4..]), (ip("198.51.100.1"), 0, &message[4..]));
    let recorded = &answer[20..usize::from(p.l4)];
    assert_eq!(recorded, [7, 15, 12, 10, 0, 0, 1, 198, 51, 100, 1, 0, 0, 0, 0, 0]);
    // The same for timestamps, of each kind; and a full option counts who could not write.
    let mut rig = rig();
    let now = ((rig.now.as_nanos() / 1_000_000) as u32 | 0x8000_0000).to_be_bytes();
    let own = [198, 51, 100, 1];
    for (before, after) in [
        ([&[68, 8, 5, 0][..], &[0; 4]].concat(), [&[68, 8, 9, 0][..], &now].concat()),
        ([&[68, 12, 5, 1][..], &[0; 8]].concat(), [&[68, 12, 13, 1][..], &own, &now].concat()),
        ([&[68, 12, 5, 3][..], &own, &[0; 4]].concat(), [&[68, 12, 13, 3][..], &own, &now].concat()),
        ([&[68, 8, 9, 0][..], &[9; 4]].concat(), [&[68, 8, 9, 0x10][..], &[9; 4]].concat()),
    ] {
        let request = with_options("192.0.2.2", "198.51.100.1", 1, 64, &before, &whole[20..]);
        let (_, answer) = rig.send_one(&request);
        let (p, reply) = read_icmp(&answer);
        assert_eq!((reply[0], &answer[20..usize::from(p.l4)]), (0, &after[..]), "{before:?}");
    }
}

/// IPv6 extension headers in any legal order pass a router unread; only hop-by-hop options are looked at.
/// Proves rfc5095-4.2-forward.
#[test]
fn forwarded_ipv6_extension_headers() {
    let opt = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = |next: u8, left: u8| [next, 0, 0, left, 0, 0, 0, 0];
    let fragment = |next: u8| [next, 0, 0, 1, 0, 0, 0, 9];
    let ah = |next: u8| [next, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rows: Vec<(&str, u8, Vec<u8>)> = vec![
        ("rfc8200-4.1-order", 0, [&opt(60)[..], &opt(43), &routing(44, 1), &fragment(51), &ah(60), &opt(17)].concat()),
        ("rfc8200-4.1-order", 60, [&opt(43)[..], &routing(60, 0), &opt(17)].concat()),
        ("rfc8200-4-unprocessed", 60, vec![17, 0, 0xde, 4, 0, 0, 0, 0]),
        ("rfc8200-4-unprocessed", 43, routing(17, 3).to_vec()),
        ("rfc8200-4-unprocessed", 253, vec![1, 2, 3, 4, 5, 6, 7, 8]),
        ("rfc8200-4-unprocessed", 60, vec![17, 200, 0, 0, 0, 0, 0, 0]),
        ("rfc6946-4-forward", 44, vec![17, 0, 0, 0, 0, 0, 0, 9]),
        ("rfc2711-2.1", 0, vec![17, 0, 5, 2, 0, 0, 1, 0]),
        ("rfc9673-5.1", 0, [&[17, 2][..], &[0; 22]].concat()),
    ];
    let mut rig = rig();
    for (id, next, headers) in rows {
        let sent = rig.send_one(&with_options("2001:db8::2", "2001:db8:9::9", next, 64, &headers, &[5; 24]));
        assert_eq!(sent, (WAN, with_options("2001:db8::2", "2001:db8:9::9", next, 63, &headers, &[5; 24])), "{id}");
    }
}

#[test]
fn refused_ipv6_extension_headers() {
    let (far, own, tail) = ("2001:db8:9::9", "2001:db8::1", [5u8; 16]);
    let own_far = "2001:db8:1::1";
    // id, destination, next header, headers, answer: type, code, pointer
    type Row<'a> = (&'a str, &'a str, u8, &'a [u8], Option<(u8, u8, u32)>);
    let rows: &[Row<'_>] = &[
        ("rfc8200-4.2-hbh-01", far, 0, &[17, 0, 0x5e, 4, 0, 0, 0, 0], None),
        ("rfc8200-4.2-hbh-10", far, 0, &[17, 0, 0x9e, 4, 0, 0, 0, 0], Some((4, 2, 42))),
        ("rfc8200-4.2-hbh-11", far, 0, &[17, 0, 0xde, 4, 0, 0, 0, 0], Some((4, 2, 42))),
        ("rfc2675-3-unknown jumbo payload", far, 0, &[17, 0, 0xc2, 4, 0, 1, 0, 0], Some((4, 2, 42))),
        ("rfc8200-4.3-length", far, 0, &[17, 99, 1, 4, 0, 0, 0, 0], Some((4, 0, 41))),
        ("rfc5095-3", own, 43, &[17, 0, 0, 1, 0, 0, 0, 0], Some((4, 0, 42))),
        ("rfc5095-3", own_far, 43, &[17, 2, 0, 1, 0, 0, 0, 0], Some((4, 0, 42))),
        ("rfc8200-4.4-unrecognized", own, 43, &[17, 0, 99, 1, 0, 0, 0, 0], Some((4, 0, 42))),
        ("rfc8200-4.2-10", own, 60, &[17, 0, 0x9e, 4, 0, 0, 0, 0], Some((4, 2, 42))),
        ("rfc8200-4.2-01", own, 60, &[17, 0, 0x5e, 4, 0, 0, 0, 0], None),
        ("rfc8200-4.1-hop-by-hop", own, 60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], Some((4, 1, 40))),
        ("rfc8200-4-next-header", own, 253, &[0; 8], Some((4, 1, 6))),
        ("rfc7112-5", own, 44, &[6, 0, 0, 1, 0, 0, 0, 9], Some((4, 3, 0))),
        ("rfc8200-4-cut", own, 44, &[6, 0, 0, 1, 0, 0, 0], Some((4, 0, 40))),
        ("rfc8200-4-cut", own, 44, &[], Some((4, 0, 40))),
        ("rfc8200-4-cut", own, 60, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 8], Some((4, 0, 48))),
        ("rfc8200-4-cut", own, 60, &[17, 9, 1, 4, 0, 0, 0, 0], Some((4, 0, 41))),
        ("rfc8200-4-cut", own_far, 43, &[17, 9, 0, 0, 0, 0, 0, 0], Some((4, 0, 41))),
        ("rfc8200-4-cut to a group", "ff02::2", 60, &[17, 9, 1, 4, 0, 0, 0, 0], None),
    ];
    for (id, dst, next, headers, want) in rows {
        let mut rig = rig();
        let tail = match *id {
            "rfc7112-5" => &tail[..8],
            "rfc8200-4-cut" => &[],
            _ => &tail[..],
        };
        let original = with_options("2001:db8::2", dst, *next, 64, headers, tail);
        let sent = rig.send(&original);
        match want {
            None => assert!(sent.is_empty(), "{id}: {sent:02x?}"),
            Some((kind, code, pointer)) => {
                assert_eq!(sent.len(), 1, "{id}: {:?}", rig.totals());
                let (_, m) = read_icmp(&sent[0].1);
                let got = (m[0], m[1], u32::from_be_bytes([m[4], m[5], m[6], m[7]]));
                assert_eq!(got, (*kind, *code, *pointer), "{id}");
                assert_eq!(m[8..], original, "{id}");
            }
        }
        assert_eq!(rig.totals().dropped_total(), 1, "{id}");
    }
}

/// rfc5095-3-used-up, rfc8200-8.4-reply: a routing header that has done its work does not keep an echo request from its answer.
#[test]
fn an_exhausted_routing_header_is_skipped() {
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 1];
    message.extend([9; 8]);
    let whole = icmp("2001:db8::2", "2001:db8::1", 64, &message);
    let routing = [58, 0, 0, 0, 0, 0, 0, 0];
    let (_, answer) = rig().send_one(&with_options("2001:db8::2", "2001:db8::1", 43, 64, &routing, &whole[40..]));
    let (p, reply) = read_icmp(&answer);
    assert_eq!((p.l4, reply[0]), (40, 129));
}
