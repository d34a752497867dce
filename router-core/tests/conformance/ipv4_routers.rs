//! Smaller demands of RFC 1812, RFC 2003 and RFC 6633 on routers and tunnels of IPv4, packet by packet.

use crate::rig::{GATEWAY, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp, with_options};
use router_core::checksum::fill_ipv4_header;
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelSpec};

fn rig() -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig
}

/// A packet of the host's with another second byte and flags.
fn marked(p: &[u8], tos: u8, flags: [u8; 2]) -> Vec<u8> {
    let mut p = p.to_vec();
    p[1] = tos;
    p[6..8].copy_from_slice(&flags);
    fill_ipv4_header(&mut p);
    p
}

/// Proves rfc1812-5.3.3.3-accept, rfc1812-5.3.3.3-change: every type of service and precedence passes as it is.
#[test]
fn precedence_is_not_touched() {
    let mut rig = rig();
    for tos in 0..=255 {
        let (port, sent) = rig.send_one(&marked(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20]), tos, [0, 0]));
        assert_eq!((port, sent[1]), (WAN, tos));
    }
}

/// Proves rfc1812-4.3.2.5-reply: the reply's type of service and precedence are the request's.
#[test]
fn replies_have_the_class_of_their_requests() {
    for tos in [0, 0x10, 0xb8, 0xe0] {
        let request = icmp("192.0.2.2", "198.51.100.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1, 9, 9]);
        let (port, reply) = rig().send_one(&marked(&request, tos, [0, 0]));
        assert_eq!((port, reply[1], reply[20]), (LAN, tos, 0));
    }
}

/// Proves rfc1812-5.2.6-reassembly, rfc1812-4.2.2.7-order: fragments are forwarded one by one, as they come.
#[test]
fn fragments_are_not_put_together_on_their_way() {
    let mut rig = rig();
    for flags in [[0x20, 0], [0, 6], [0x20, 3]] {
        let p = marked(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 24]), 0, flags);
        let (port, sent) = rig.send_one(&p);
        assert_eq!((port, &sent[6..8], sent.len()), (WAN, &flags[..], p.len()));
    }
    // Those that are made here leave in order.
    let sent = rig.send(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 1480]));
    let offsets: Vec<u16> = sent.iter().map(|(_, p)| u16::from_be_bytes([p[6] & 0x1f, p[7]])).collect();
    assert_eq!(offsets, [0, 172]);
}

/// Proves rfc1812-3.3.4-larger: what is longer than the MTU of the port where it comes in is taken all the same.
#[test]
fn packets_longer_than_the_mtu_are_received() {
    let p = packet("203.0.113.9", "192.0.2.2", 17, 64, &[5; 1480]);
    let sent = rig().frame(WAN, &frame_of(GATEWAY, OWN[2], &p));
    assert_eq!(sent.iter().map(|(port, f)| (*port, f.len())).collect::<Vec<_>>(), [(LAN, 1514)]);
}

/// Proves rfc1812-4.3.3.6-size, rfc1812-4.2.2.8-reassembly: an echo request longer than every link, in pieces.
/// Proves rfc791-3.1-length.
#[test]
fn long_echo_requests_in_pieces() {
    let message: Vec<u8> = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &[9; 2992]].concat();
    let whole = icmp("192.0.2.2", "192.0.2.1", 64, &message);
    let mut rig = rig();
    let mut sent = Vec::new();
    for (at, more) in [(0, true), (1480, true), (2960, false)] {
        let end = if more { at + 1480 } else { 3000 };
        let piece = packet("192.0.2.2", "192.0.2.1", 1, 64, &whole[20..][at..end]);
        let offset = (at as u16 / 8) | if more { 0x2000 } else { 0 };
        sent = rig.send(&marked(&piece, 0, offset.to_be_bytes()));
    }
    sent.sort_by_key(|(_, p)| u16::from_be_bytes([p[6] & 0x1f, p[7]]));
    let data: Vec<u8> = sent.iter().flat_map(|(_, p)| p[20..].to_vec()).collect();
    assert_eq!((data.len(), data[0], &data[8..]), (3000, 0, &message[8..]));
}

/// Proves rfc1812-4.2.2.11-source, rfc6633-4-ignore, rfc6633-3-tcp: nothing comes of these, not even an answer.
/// Proves rfc1812-4.3.3.3-quench.
#[test]
fn invalid_sources_and_source_quench_are_ignored() {
    let echo = icmp("192.0.2.2", "192.0.2.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
    for src in ["0.0.0.0", "0.0.0.7", "255.255.255.255", "127.0.0.1", "224.0.0.1"] {
        let mut rig = rig();
        assert!(rig.send(&packet(src, "192.0.2.1", 1, 64, &echo[20..])).is_empty(), "{src}");
        assert_eq!(rig.totals().dropped, [("martian_source", 1)].into(), "{src}");
    }
    let quoted = packet("192.0.2.1", "192.0.2.2", 6, 64, &[0; 20]);
    let mut rig = rig();
    let quench = icmp("192.0.2.2", "192.0.2.1", 64, &[&[4, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
    assert!(rig.send(&quench).is_empty());
    assert_eq!(rig.send(&echo).len(), 1, "it goes on as before");
}

const FAR: &str = "198.51.100.9";

/// A 4in4 tunnel to [`FAR`], behind which 203.0.114.0/24 lies.
fn tunnel() -> Rig {
    let mut rig = rig();
    rig.neighbor(WAN, FAR, GATEWAY);
    let spec = TunnelSpec::new("far", TunnelMode::FourInFour, ip("198.51.100.1"), ip(FAR));
    rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
    rig.route("203.0.114.0/24", "192.0.2.77", "far");
    rig
}

fn from_far(rig: &mut Rig, packet: &[u8]) -> Vec<Vec<u8>> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], packet)).into_iter().map(|(_, f)| f[14..].to_vec()).collect()
}

/// Proves rfc2003-3.1-fields, rfc2003-3.1-options, rfc2003-3.1-ttl, rfc2003-3.1-ttl-out.
#[test]
fn fields_of_ip_in_ip() {
    let mut rig = tunnel();
    for (tos, options) in [(0u8, &[][..]), (0xb8, &[148, 4, 0, 0]), (0x20, &[1, 1, 1, 0])] {
        let inner = marked(&with_options("192.0.2.2", "203.0.114.9", 17, 9, options, &[5; 33]), tos, [0, 0]);
        let (port, outer) = rig.send_one(&inner);
        let total = outer.len() as u16;
        assert_eq!((port, outer[0], outer[1], outer[8], outer[9]), (WAN, 0x45, tos, 64, 4));
        assert_eq!(outer[2..4], total.to_be_bytes());
        assert_eq!(outer[12..20], [198, 51, 100, 1, 198, 51, 100, 9]);
        let mut want = inner;
        want[8] = 8;
        fill_ipv4_header(&mut want);
        assert_eq!(outer[20..], want, "unchanged but for the TTL");
    }
    // A TTL that runs out is told, and nothing enters the tunnel.
    let (port, answer) = rig.send_one(&packet("192.0.2.2", "203.0.114.9", 17, 1, &[5; 20]));
    assert_eq!((port, read_icmp(&answer).1[0]), (LAN, 11));
    // Out of the tunnel the TTL is what it was; at zero the packet ends.
    for (ttl, want) in [(0u8, None), (1, None), (2, Some(1)), (64, Some(63))] {
        let inner = packet("203.0.114.9", "192.0.2.2", 17, ttl, &[5; 20]);
        let sent = from_far(&mut tunnel(), &packet(FAR, "198.51.100.1", 4, 64, &inner));
        let forwarded = sent.iter().find(|p| p[9] == 17).map(|p| p[8]);
        assert_eq!(forwarded, want, "TTL {ttl}");
    }
}

/// Proves rfc2003-4.1-network, rfc2003-4.1-host, rfc2003-4.1-protocol, rfc2003-4.1-port, rfc2003-4.1-source-route,
/// rfc2003-4.2-quench, rfc2003-4.3-redirect, rfc2003-4.4-time, rfc2003-4.5-parameter.
#[test]
fn errors_from_inside_the_tunnel() {
    // type and code from inside, type and code of what the sender hears
    for (kind, code, want) in [
        (3u8, 0u8, Some([3u8, 0u8])),
        (3, 1, Some([3, 1])),
        (3, 2, Some([3, 0])),
        (3, 3, None),
        (3, 5, None),
        (4, 0, None),
        (5, 1, None),
        (11, 0, Some([3, 1])),
        // Nothing that it could point at is the sender's: the tunnel as a link has failed.
        (12, 0, Some([3, 1])),
    ] {
        let mut rig = tunnel();
        let (_, outer) = rig.send_one(&packet("192.0.2.2", "203.0.114.9", 17, 64, &[5; 40]));
        let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &outer].concat();
        let told = from_far(&mut rig, &icmp("198.51.100.2", "198.51.100.1", 64, &message));
        let told: Vec<_> = told.iter().map(|p| read_icmp(p)).map(|(p, m)| (p.dst, [m[0], m[1]])).collect();
        let want: Vec<_> = want.into_iter().map(|kind| (ip("192.0.2.2"), kind)).collect();
        assert_eq!(told, want, "{kind} {code}");
    }
}
