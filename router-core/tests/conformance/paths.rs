//! Path MTU discovery by tunnels, and what RFC 4213 and RFC 6864 ask of outer packets: RFC 1191 3, RFC 8201 4.

use crate::rig::{GATEWAY, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp};
use router_core::checksum::fill_ipv4_header;
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Duration;

const T: PortId = PortId(3);

/// A tunnel to the peer on `WAN`, behind which 2001:db8:9::/48 lies. `WAN` carries 1500 bytes.
fn rig(mode: TunnelMode, change: impl FnOnce(&mut TunnelSpec)) -> Rig {
    let (local, remote) = match mode {
        TunnelMode::SixInFour => ("198.51.100.1", "198.51.100.9"),
        _ => ("2001:db8:1::1", "2001:db8:1::9"),
    };
    let mut rig = Rig::new(Settings::default());
    rig.router.set_mtu(WAN, 1500).expect("MTU");
    rig.neighbor(WAN, remote, GATEWAY);
    let mut spec = TunnelSpec::new("t", mode, ip(local), ip(remote));
    change(&mut spec);
    assert_eq!(rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel"), T);
    let mut route = RouteSpec::new("2001:db8:9::/48".parse().expect("prefix"));
    route.hops.push(HopSpec { dev: Some("t".into()), ..HopSpec::default() });
    rig.with(|r, _, _| r.routing_mut().route(RouteOp::Add, &route)).expect("route");
    rig
}

/// An inner packet of `len` bytes on its way into the tunnel.
fn inner(len: usize) -> Vec<u8> {
    packet("2001:db8::2", "2001:db8:9::9", 17, 64, &vec![1; len - 40])
}

fn from_peer(rig: &mut Rig, outer: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], outer)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
}

/// A router of the underlay says that `outer` was too long for `mtu`.
fn narrow(rig: &mut Rig, outer: &[u8], mtu: u16) -> Vec<(PortId, Vec<u8>)> {
    let m = mtu.to_be_bytes();
    let error = match outer[0] >> 4 {
        4 => icmp("203.0.113.77", "198.51.100.1", 64, &[&[3, 4, 0, 0, 0, 0, m[0], m[1]], outer].concat()),
        _ => icmp("2001:db8:77::1", "2001:db8:1::1", 64, &[&[2, 0, 0, 0, 0, 0, m[0], m[1]], outer].concat()),
    };
    from_peer(rig, &error)
}

fn learned(rig: &Rig) -> Option<u32> {
    rig.router.tunnels(rig.now).next().and_then(|t| t.learned_mtu).map(|l| l.mtu)
}

fn mtu(rig: &Rig) -> u32 {
    rig.router.ports().get(T).expect("tunnel").mtu
}

/// Proves rfc4213-3.2-large, rfc4213-3.2-choice, rfc4213-3.2.1-knob, rfc4213-3.2.1-df, rfc4213-3.3-ttl, rfc4213-3.5-source:
/// a static MTU goes with a clear DF bit, the dynamic one with DF set; both, TTL and source are the operator's choice.
#[test]
fn tunnel_mtu_and_outer_headers_are_the_operators_choice() {
    for (fixed, nopmtudisc, want, df) in [
        (None, false, 1480, true),
        (None, true, 1280, false),
        (Some(1400), true, 1400, false),
        (Some(1480), true, 1480, false),
        (Some(1400), false, 1400, true),
    ] {
        let mut rig = rig(TunnelMode::SixInFour, |s| (s.mtu, s.nopmtudisc, s.ttl) = (fixed, nopmtudisc, Some(7)));
        assert_eq!(mtu(&rig), want, "{fixed:?} {nopmtudisc}");
        let (port, outer) = rig.send_one(&inner(want as usize));
        assert_eq!((port, outer[6] & 0x40 != 0, outer[8]), (WAN, df, 7), "{fixed:?} {nopmtudisc}");
        assert_eq!(outer[12..16], [198, 51, 100, 1], "{fixed:?} {nopmtudisc}");
        let (port, error) = rig.send_one(&inner(want as usize + 1));
        assert_eq!(port, LAN, "{fixed:?} {nopmtudisc}");
        assert_eq!(read_icmp(&error).1[..8], [&[2, 0][..], &read_icmp(&error).1[2..4], &want.to_be_bytes()].concat());
    }
}

/// Proves rfc4213-3.2.2-algorithm: below 1300 bytes of path DF is clear, and what is longer than 1280 is told so; above
/// that DF is set, and what is longer than the path less 20 is told so.
#[test]
fn rfc4213_3_2_2_dynamic_tunnel_mtu() {
    for (path, want, df) in [(1200, 1280, false), (1299, 1280, false), (1300, 1280, true), (1400, 1380, true)] {
        let mut rig = rig(TunnelMode::SixInFour, |_| {});
        let (_, outer) = rig.send_one(&inner(1480));
        narrow(&mut rig, &outer, path);
        assert_eq!(mtu(&rig), want, "{path}");
        let (port, outer) = rig.send_one(&inner(want as usize));
        assert_eq!((port, outer[6] & 0x40 != 0, outer.len() as u32), (WAN, df, want + 20), "{path}");
        let (port, error) = rig.send_one(&inner(want as usize + 1));
        assert_eq!((port, &read_icmp(&error).1[4..8]), (LAN, &want.to_be_bytes()[..]), "{path}");
    }
}

/// Proves rfc4213-3.6-length, rfc4213-3.6-mru, rfc4213-3.6-reassembly-size: an inner packet is as long as it says, whatever
/// is behind it; one as long as the widest link's comes in whole and in fragments.
#[test]
fn what_a_decapsulator_must_take() {
    let from = |len: usize| packet("2001:db8:9::9", "2001:db8::2", 17, 64, &vec![5; len - 40]);
    let decremented = |p: &[u8]| [&p[..7], &[p[7] - 1], &p[8..]].concat();
    let outer = |inner: &[u8]| packet("198.51.100.9", "198.51.100.1", 41, 64, inner);
    let mut rig = rig(TunnelMode::SixInFour, |_| {});
    rig.router.set_mtu(LAN, 3900).expect("MTU");
    rig.commit();
    let whole = from(100);
    assert_eq!(from_peer(&mut rig, &outer(&[&whole[..], &[0xee; 33]].concat())), [(LAN, decremented(&whole))]);
    assert!(from_peer(&mut rig, &outer(&whole[..99])).iter().all(|(port, _)| *port != LAN), "cut");
    for len in [1500, 3000] {
        let whole = from(len);
        assert_eq!(from_peer(&mut rig, &outer(&whole)), [(LAN, decremented(&whole))], "{len}");
    }
    for len in [1500, 3900] {
        let whole = from(len);
        let pieces: Vec<_> = whole.chunks(1480).collect();
        let mut sent = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let mut p = packet("198.51.100.9", "198.51.100.1", 41, 64, piece);
            let field = (i * 1480 / 8) as u16 | if i + 1 < pieces.len() { 0x2000 } else { 0 };
            p[6..8].copy_from_slice(&field.to_be_bytes());
            fill_ipv4_header(&mut p);
            assert!(sent.is_empty());
            sent = from_peer(&mut rig, &p);
        }
        assert_eq!(sent, [(LAN, decremented(&whole))], "{len}");
    }
}

/// Proves rfc4213-3.6-rpf: which way an answer would take is not looked at unless the operator asks (`urpf`, `allowed`).
#[test]
fn inner_sources_of_elsewhere_pass_by_default() {
    let mut rig = rig(TunnelMode::SixInFour, |_| {});
    let stray = packet("2001:db8:77::1", "2001:db8::2", 17, 64, &[1; 30]);
    let sent = from_peer(&mut rig, &packet("198.51.100.9", "198.51.100.1", 41, 64, &stray));
    assert!(matches!(&sent[..], [(LAN, _)]), "{sent:02x?}");
}

/// Proves rfc1191-3-reduce, rfc1191-3-floor, rfc1191-3-increase, rfc1191-3-avoid: a smaller MTU is believed at once, a
/// larger one never, nothing goes below 68, and what is longer than the new one is not sent again. Proves rfc1191-6.3-five:
/// for no less than five minutes; rfc1191-6.3-age.
#[test]
fn rfc1191_3_what_the_underlay_says() {
    let mut rig = rig(TunnelMode::SixInFour, |_| {});
    let (_, outer) = rig.send_one(&inner(1480));
    for (told, want) in [(1400, 1400), (1450, 1400), (1500, 1400), (u16::MAX, 1400), (1350, 1350), (1400, 1350)] {
        narrow(&mut rig, &outer, told);
        assert_eq!(learned(&rig), Some(want), "{told}");
    }
    for _ in 0..299 {
        rig.pass(Duration::from_secs(1));
        assert!(rig.send(&inner(1331)).iter().all(|(port, _)| *port == LAN), "no more such errors are asked for");
    }
    narrow(&mut rig, &outer, 20);
    assert_eq!(learned(&rig), Some(68));
    rig.pass(Duration::from_secs(601));
    assert_eq!((learned(&rig), mtu(&rig)), (None, 1480));
}

/// Proves rfc8201-4-reduce, rfc8201-4-increase, rfc8201-4-less, rfc8201-4-validate, rfc8201-4-avoid: the same over IPv6,
/// where an MTU below 1280 is not believed at all, and errors about packets that were not ours neither. Proves
/// rfc8201-4-age.
/// Also proves rfc8504-5.7-pmtu.
#[test]
fn rfc8201_4_what_the_underlay_says() {
    let mut rig = rig(TunnelMode::SixInSix, |_| {});
    let (_, outer) = rig.send_one(&inner(1400));
    let quote = &outer[..1000];
    for (told, want) in
        [(1279, None), (0, None), (68, None), (1440, Some(1440)), (1460, Some(1440)), (1380, Some(1380))]
    {
        narrow(&mut rig, quote, told);
        assert_eq!(learned(&rig), want, "{told}");
    }
    narrow(&mut rig, quote, 1279);
    assert_eq!((learned(&rig), mtu(&rig)), (Some(1380), 1340));
    let mut strange = quote.to_vec();
    strange[39] ^= 1;
    narrow(&mut rig, &strange, 1300);
    let mut other_way = quote.to_vec();
    other_way[8..40].rotate_left(16);
    narrow(&mut rig, &other_way, 1300);
    assert_eq!(learned(&rig), Some(1380), "not about a packet of ours");
    assert!(rig.send(&inner(1341)).iter().all(|(port, _)| *port == LAN));
    rig.pass(Duration::from_secs(299));
    assert_eq!(learned(&rig), Some(1380));
    rig.pass(Duration::from_secs(302));
    assert_eq!(learned(&rig), None);
}

/// Proves rfc6864-4.1-ignore, rfc6864-4.1-other-use, rfc6864-4.3-df: datagrams that cannot be fragments may all have the same
/// identification; with DF set none is ever fragmented, and DF is never cleared.
#[test]
fn identifications_mean_nothing_but_fragments() {
    let mut rig = Rig::new(Settings::default());
    let with = |dst: &str, len: usize, id: u16| {
        let mut p = packet("192.0.2.2", dst, 17, 64, &vec![1; len - 20]);
        p[4..6].copy_from_slice(&id.to_be_bytes());
        p[6] = 0x40;
        fill_ipv4_header(&mut p);
        p
    };
    for id in [0, 7, 7, 7, u16::MAX] {
        let (port, sent) = rig.send_one(&with("198.51.100.2", 1400, id));
        assert_eq!((port, &sent[4..8]), (WAN, &[(id >> 8) as u8, id as u8, 0x40, 0][..]));
        let (port, error) = rig.send_one(&with("198.51.100.2", 1401, id));
        assert_eq!((port, &read_icmp(&error).1[..2]), (LAN, &[3, 4][..]));
        // An echo request twice with one identification is answered twice.
        let mut echo = icmp("192.0.2.2", "192.0.2.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
        (echo[4], echo[5], echo[6]) = (0, 9, 0x40);
        fill_ipv4_header(&mut echo);
        assert_eq!(rig.send(&echo).len(), 1);
    }
}
