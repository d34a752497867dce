//! IPv4 in IPv4: what must not enter a tunnel (RFC 2003 3.2), and what comes out of one (6.2), packet by packet.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp};
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelOptions, TunnelSpec};

const FAR: &str = "198.51.100.9";
const NEAR: &str = "198.51.100.1";

/// A tunnel to [`FAR`], behind which 203.0.114.0/24 and 2001:db8:14::/48 lie.
fn rig(mode: TunnelMode, options: TunnelOptions) -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, FAR, GATEWAY);
    let spec = TunnelSpec { options, ..TunnelSpec::new("far", mode, ip(NEAR), ip(FAR)) };
    let addrs = vec!["10.77.0.1/24".parse().expect("address")];
    rig.with(|r, now, _| r.add_tunnel(now, spec, addrs)).expect("tunnel");
    rig.route("203.0.114.0/24", "10.77.0.2", "far");
    rig
}

fn from_wan(rig: &mut Rig, packet: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], packet)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
}

/// Proves rfc2003-3.2-own: a packet that comes in with an address of the router's as its source, of whichever port, or with
/// that of the tunnel's far end, does not enter a tunnel of IPv4 in IPv4, on the fast way or with options; it is counted, and
/// nobody is told. What the router says itself does enter, and so does what comes from anybody else.
#[test]
fn what_comes_from_a_tunnels_ends_does_not_enter_it() {
    for mode in [TunnelMode::FourInFour, TunnelMode::Gre] {
        for (src, enters) in [
            ("192.0.2.2", true),
            ("203.0.113.77", true),
            ("198.51.100.2", true),
            ("192.0.2.1", false),
            (NEAR, false),
            ("10.77.0.1", false),
            (FAR, false),
        ] {
            for options in [&[][..], &[1, 1, 1, 0]] {
                for from in [LAN, WAN] {
                    let mut rig = rig(mode, TunnelOptions::default());
                    let p = crate::rig::with_options(src, "203.0.114.9", 17, 64, options, &[5; 20]);
                    let (mac, own) = if from == LAN { (HOST, OWN[1]) } else { (GATEWAY, OWN[2]) };
                    let sent = rig.frame(from, &frame_of(mac, own, &p));
                    let outer: Vec<_> =
                        sent.iter().filter(|(port, f)| *port == WAN && f[30..34] == [198, 51, 100, 9]).collect();
                    assert_eq!((sent.len(), outer.len()), (usize::from(enters), usize::from(enters)), "{mode:?} {src}");
                    let dropped = if enters { [].into() } else { [("tunnel_loop", 1)].into() };
                    assert_eq!(rig.totals().dropped, dropped, "{mode:?} {src}");
                }
            }
        }
        // What the router itself says goes through all the same: an echo reply, and an error.
        let mut rig = rig(mode, TunnelOptions::default());
        let inner = icmp("203.0.114.9", "10.77.0.1", 64, &[8, 0, 0, 0, 0, 1, 0, 1]);
        let inner = match mode {
            TunnelMode::FourInFour => packet(FAR, NEAR, 4, 64, &inner),
            _ => packet(FAR, NEAR, 47, 64, &[&[0, 0, 8, 0][..], &inner].concat()),
        };
        let sent = from_wan(&mut rig, &inner);
        assert_eq!((sent.len(), sent[0].0, &sent[0].1[16..20]), (1, WAN, &[198, 51, 100, 9][..]), "{mode:?}");
    }
}

/// What is said in the way of IPv4 in IPv4 does not concern IPv6 inside, or outside. Proves rfc2003-3.2-own: no more than it
/// says.
#[test]
fn other_tunnels_take_what_they_took() {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, "2001:db8:1::9", GATEWAY);
    let spec = TunnelSpec::new("far", TunnelMode::FourInSix, ip("2001:db8:1::1"), ip("2001:db8:1::9"));
    rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
    rig.route("203.0.114.0/24", "192.0.2.77", "far");
    let (port, outer) = rig.send_one(&packet("192.0.2.1", "203.0.114.9", 17, 64, &[5; 20]));
    assert_eq!((port, outer[0] >> 4), (WAN, 6));
}

/// Proves rfc2003-6.2-admit: packets in packets are taken from the configured peer alone, and with `allowed` only if the one
/// inside comes from there, too; else they are dropped, counted, and nothing is answered.
#[test]
fn tunnels_admit_whom_the_operator_trusts() {
    let allowed = || TunnelOptions { allowed: vec!["203.0.114.0/24".parse().expect("prefix")], ..Default::default() };
    for (options, outer, inner, want) in [
        (TunnelOptions::default(), FAR, "203.0.114.9", None),
        (TunnelOptions::default(), FAR, "8.8.8.8", None),
        (TunnelOptions::default(), "198.51.100.2", "203.0.114.9", Some("tunnel_unknown_peer")),
        (TunnelOptions::default(), "203.0.114.9", "203.0.114.9", Some("tunnel_unknown_peer")),
        (TunnelOptions::default(), FAR, "127.0.0.1", Some("martian_source")),
        (allowed(), FAR, "203.0.114.9", None),
        (allowed(), FAR, "10.77.0.2", Some("tunnel_inner_source")),
        (allowed(), FAR, "203.0.115.9", Some("tunnel_inner_source")),
        (allowed(), FAR, "192.0.2.2", Some("tunnel_inner_source")),
        (allowed(), "198.51.100.2", "203.0.114.9", Some("tunnel_unknown_peer")),
    ] {
        let mut rig = rig(TunnelMode::FourInFour, options);
        let carried = packet(inner, "192.0.2.2", 17, 64, &[5; 20]);
        let sent = from_wan(&mut rig, &packet(outer, NEAR, 4, 64, &carried));
        let mut aged = carried;
        aged[8] = 63;
        router_core::checksum::fill_ipv4_header(&mut aged);
        let passed: Vec<_> = want.is_none().then_some((LAN, aged)).into_iter().collect();
        assert_eq!(sent, passed, "{outer} {inner}");
        assert_eq!(rig.totals().dropped, want.map(|r| (r, 1)).into_iter().collect(), "{outer} {inner}");
    }
}

/// Proves rfc1122-3.2.1.7-keepalive: questions to a tunnel's peer have the TTL that the operator wants.
#[test]
fn the_ttl_of_questions_to_peers_is_settable() {
    use router_core::tunnel::spec::Keepalive;
    for (target, addr) in [("10.77.0.2", "10.77.0.1/24"), ("2001:db8:77::2", "2001:db8:77::1/64")] {
        let mut settings = Settings::default();
        settings.icmp.ttl = 200;
        let mut rig = Rig::new(settings);
        rig.neighbor(WAN, FAR, GATEWAY);
        let mode = if target.contains(':') { TunnelMode::SixInFour } else { TunnelMode::FourInFour };
        let options = TunnelOptions { keepalive: Some(Keepalive::new(ip(target))), ..Default::default() };
        let spec = TunnelSpec { options, ..TunnelSpec::new("far", mode, ip(NEAR), ip(FAR)) };
        rig.with(|r, now, _| r.add_tunnel(now, spec, vec![addr.parse().expect("address")])).expect("tunnel");
        let ours = |f: &[u8]| f[12..14] == [8, 0] && f[30..34] == [198, 51, 100, 9];
        let sent = rig.pass(router_core::time::Duration::from_secs(1));
        let inside: Vec<_> = sent.iter().filter(|(_, f)| ours(f)).map(|(_, f)| &f[34..]).collect();
        let asked: Vec<_> = inside
            .iter()
            .filter(|p| matches!((p[0] >> 4, p.get(20), p.get(40)), (4, Some(8), _) | (6, _, Some(128))))
            .map(|p| (read_icmp(p).0.ttl, read_icmp(p).0.dst))
            .collect();
        assert!(!asked.is_empty() && asked.iter().all(|a| *a == (200, ip(target))), "{asked:?}");
    }
}
