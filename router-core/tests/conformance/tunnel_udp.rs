//! Tunnels in UDP: peers behind one NAT are told apart by their ports, and nobody else gets in.

use crate::rig::{GATEWAY, LAN, OWN, Rig, WAN, frame_of, ip, packet};
use router_core::checksum::{fill_ipv4_header, update_u16};
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::tunnel::spec::{UdpKind, UdpOptions};

pub const LOCAL: &str = "198.51.100.1";
pub const NAT: &str = "198.51.100.9";

/// A datagram from the NAT's address to a port of ours.
pub fn datagram(from: (&str, u16), to: u16, inner: &[u8]) -> Vec<u8> {
    let len = (8 + inner.len()) as u16;
    let udp = [&from.1.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], inner].concat();
    let mut v = packet(from.0, LOCAL, 17, 64, &udp);
    fill_ipv4_header(&mut v);
    v
}

pub fn wan(rig: &mut Rig, outer: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], outer)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
}

pub fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.totals().dropped.get(reason).copied().unwrap_or(0)
}

/// The ports of an outer datagram over IPv4.
pub fn ports(outer: &[u8]) -> (u16, u16) {
    assert_eq!((outer[0], outer[9]), (0x45, 17), "{outer:02x?}");
    (u16::from_be_bytes([outer[20], outer[21]]), u16::from_be_bytes([outer[22], outer[23]]))
}

/// Routes into tunnels.
pub fn behind(rig: &mut Rig, dst: &str, dev: &str) {
    let mut route = RouteSpec::new(dst.parse().expect("prefix"));
    route.hops.push(HopSpec { dev: Some(dev.into()), ..HopSpec::default() });
    rig.with(|r, _, _| r.routing_mut().route(RouteOp::Add, &route)).expect("route");
}

fn spec(name: &str, udp: UdpOptions, site: &str) -> TunnelSpec {
    let mut spec = TunnelSpec::new(name, TunnelMode::SixInFour, ip(LOCAL), ip(NAT));
    spec.options.udp = Some(udp);
    spec.options.allowed = vec![site.parse().expect("prefix")];
    spec
}

/// Two clients behind one NAT, which gave them the ports 40001 and 40002: both work at once, to the same port of ours.
fn two() -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, NAT, GATEWAY);
    for (name, port, site) in [("t1", 40_001, "2001:db8:a::/48"), ("t2", 40_002, "2001:db8:b::/48")] {
        let udp = UdpOptions { rport: port, port: 6080, sport: 6080, ..UdpOptions::new(UdpKind::Fou, port) };
        rig.with(|r, now, _| r.add_tunnel(now, spec(name, udp, site), Vec::new())).expect("tunnel");
        behind(&mut rig, site, name);
    }
    rig
}

#[test]
fn two_peers_behind_one_nat() {
    let mut rig = two();
    for (port, site) in [(40_001, "a"), (40_002, "b")] {
        let inside = packet(&format!("2001:db8:{site}::7"), "2001:db8::2", 17, 64, &[1; 60]);
        let sent = wan(&mut rig, &datagram((NAT, port), 6080, &inside));
        assert_eq!(sent.iter().map(|(p, b)| (*p, b.len())).collect::<Vec<_>>(), [(LAN, inside.len())], "{port}");
        let (_, outer) = rig.send_one(&packet("2001:db8::2", &format!("2001:db8:{site}::7"), 17, 64, &[1; 60]));
        assert_eq!(ports(&outer), (6080, port));
    }
    // From the right port to another one of ours, and from a port that nobody has.
    let inside = packet("2001:db8:a::7", "2001:db8::2", 17, 64, &[1; 60]);
    for (from, to, reason) in
        [((NAT, 40_003), 6080, "tunnel_unknown_peer"), (("198.51.100.10", 40_001), 6080, "tunnel_unknown_peer")]
    {
        let before = dropped(&rig, reason);
        assert_eq!(wan(&mut rig, &datagram(from, to, &inside)), []);
        assert_eq!(dropped(&rig, reason), before + 1, "{from:?} to {to}: {:?}", rig.totals());
    }
    // One of them with what belongs to the other.
    assert_eq!(wan(&mut rig, &datagram((NAT, 40_002), 6080, &inside)), []);
    assert_eq!(dropped(&rig, "tunnel_inner_source"), 1);
}

#[test]
fn who_cannot_be_told_apart_is_refused() {
    let mut rig = two();
    let mut refused = |name: &str, udp: UdpOptions| {
        let spec = spec(name, udp, "2001:db8:c::/48");
        rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).err().map(|e| e.to_string())
    };
    let same = UdpOptions { rport: 40_001, port: 6080, ..UdpOptions::new(UdpKind::Gue, 7) };
    assert!(refused("t3", same).is_some_and(|e| e.contains("\"t1\" has the same ends and UDP ports")));
    assert_eq!(
        refused("t4", UdpOptions { port: 6080, ..UdpOptions::new(UdpKind::Fou, 7) }),
        None,
        "from any other port"
    );
    assert!(refused("t5", UdpOptions { port: 6080, ..UdpOptions::new(UdpKind::Fou, 8) }).is_some());
    assert_eq!(refused("t6", UdpOptions::new(UdpKind::Fou, 8)), None, "to another port of ours");
}

/// An ICMP error finds the tunnel by what it quotes: both ends and the ports.
#[test]
fn errors_find_their_tunnel() {
    let mut rig = two();
    let (_, outer) = rig.send_one(&packet("2001:db8::2", "2001:db8:b::7", 17, 64, &[1; 1300]));
    let mut body = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
    body.extend(&outer[..28]);
    let sum = update_u16(router_core::checksum::checksum(&body), 0, 0).to_be_bytes();
    body[2..4].copy_from_slice(&sum);
    wan(&mut rig, &packet("198.51.100.2", LOCAL, 1, 64, &body));
    let now = rig.now;
    let learned = |rig: &Rig, name: &str| rig.router.tunnel_named(now, name).and_then(|t| t.learned_mtu).map(|l| l.mtu);
    assert_eq!((learned(&rig, "t1"), learned(&rig, "t2")), (None, Some(1300)));
}
