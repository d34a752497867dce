//! DF of IPv4 packets in IPv4 tunnels without path MTU discovery (RFC 2003 3.1 and 5.1), packet by packet.

use crate::rig::{GATEWAY, LAN, OWN, Rig, WAN, frame_of, icmp, packet, read_icmp};
use router_core::checksum::fill_ipv4_header;
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelSpec};
use router_core::tunnel::spec::{TunnelOptions, UdpKind, UdpOptions};

/// A tunnel `far` with an inner MTU of 1500 through `WAN`, whose MTU is 1400; 203.0.113.0/24 lies behind it.
fn rig(mode: TunnelMode, ignore_df: bool, udp: bool) -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, "198.51.100.9", GATEWAY);
    let udp = udp.then(|| UdpOptions::new(UdpKind::Fou, 5555));
    let (local, remote) = (crate::rig::ip("198.51.100.1"), crate::rig::ip("198.51.100.9"));
    let spec = TunnelSpec {
        ttl_inherit: true,
        nopmtudisc: true,
        mtu: Some(1500),
        options: TunnelOptions { ignore_df, udp, ..TunnelOptions::default() },
        ..TunnelSpec::new("far", mode, local, remote)
    };
    let id = rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
    assert_eq!(id, PortId(3));
    rig.route("203.0.113.0/24", "192.0.2.77", "far");
    rig
}

/// An inner packet of `len` bytes.
fn inner(len: usize, df: bool) -> Vec<u8> {
    let mut p = packet("192.0.2.2", "203.0.113.9", 17, 64, &vec![7; len - 20]);
    p[6] = if df { 0x40 } else { 0 };
    fill_ipv4_header(&mut p);
    p
}

/// Every mode that carries IPv4 in IPv4, and what it adds.
const MODES: [(TunnelMode, bool, usize); 5] = [
    (TunnelMode::FourInFour, false, 20),
    (TunnelMode::AnyInFour, false, 20),
    (TunnelMode::Gre, false, 24),
    (TunnelMode::FourInFour, true, 28),
    (TunnelMode::Gre, true, 32),
];

/// Proves rfc2003-3.1-df.
#[test]
fn inner_df_is_repeated_outside() {
    for (mode, udp, added) in MODES {
        for (df, ignore_df, want) in [(true, false, 0x40), (false, false, 0), (true, true, 0), (false, true, 0)] {
            let mut rig = rig(mode, ignore_df, udp);
            for len in [60, 1400 - added] {
                let (port, outer) = rig.send_one(&inner(len, df));
                assert_eq!((port, outer.len()), (WAN, len + added), "{mode:?}");
                assert_eq!(outer[6], want, "{mode:?} df {df} ignore-df {ignore_df}");
                // RFC 6864 4.1: an identification only where it matters.
                assert_eq!(outer[4..6] == [0, 0], want != 0, "{mode:?} df {df} ignore-df {ignore_df}");
                let mut whole = outer[..20].to_vec();
                fill_ipv4_header(&mut whole);
                assert_eq!(whole, outer[..20], "{mode:?}: the checksum covers the flag");
            }
        }
    }
}

/// Proves rfc2003-3.1-fragmentation, rfc2003-5.1-told: what may not be fragmented is answered with what fits, and what may is
/// fragmented outside.
#[test]
fn packets_too_long_for_the_way_with_and_without_df() {
    for (mode, udp, added) in MODES {
        let fits = 1400 - added;
        let whole = inner(fits + 1, true);
        let mut told = rig(mode, false, udp);
        let (port, answer) = told.send_one(&whole);
        let (_, m) = read_icmp(&answer);
        assert_eq!((port, &m[..2], u16::from_be_bytes([m[6], m[7]])), (LAN, &[3, 4][..], fits as u16), "{mode:?}");
        assert_eq!(m[8..][..20], whole[..20], "{mode:?}");
        for (df, ignore_df) in [(false, false), (true, true), (false, true)] {
            let sent = rig(mode, ignore_df, udp).send(&inner(fits + 1, df));
            assert_eq!(sent.len(), 2, "{mode:?} df {df} ignore-df {ignore_df}");
            assert!(sent.iter().all(|(port, p)| *port == WAN && p[6] & 0x40 == 0), "{mode:?}");
        }
    }
}

/// Proves rfc2003-5.1-soft-state: what the network says of packets with DF counts for later ones, and for those without it not.
/// Proves rfc1812-4.2.3.3-pmtu.
#[test]
fn the_path_mtu_is_learned_for_packets_with_df() {
    let mut rig = rig(TunnelMode::FourInFour, false, false);
    let (_, outer) = rig.send_one(&inner(1380, true));
    let message = [&[3, 4, 0, 0, 0, 0, 0x04, 0xb0][..], &outer[..28]].concat();
    let error = icmp("203.0.113.77", "198.51.100.1", 64, &message);
    assert!(rig.frame(WAN, &frame_of(GATEWAY, OWN[2], &error)).is_empty());
    let (_, answer) = rig.send_one(&inner(1181, true));
    let (_, m) = read_icmp(&answer);
    assert_eq!((&m[..2], u16::from_be_bytes([m[6], m[7]])), (&[3, 4][..], 1180));
    assert_eq!(rig.send_one(&inner(1180, true)).1.len(), 1200);
    assert_eq!(rig.send_one(&inner(1380, false)).1.len(), 1400);
}
