//! 6in4 tunnels, packet by packet: RFC 4213, RFC 1191, RFC 6864.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, with_options};
use router_core::checksum::fill_ipv4_header;
use router_core::port::PortId;
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelSpec};

const HE: PortId = PortId(3);

/// A tunnel `he` from 198.51.100.1 to 198.51.100.9, behind which 2001:db8:9::/48 lies.
fn rig(nopmtudisc: bool) -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.neighbor(WAN, "198.51.100.9", GATEWAY);
    let spec = TunnelSpec {
        name: "he".into(),
        mode: TunnelMode::SixInFour,
        local: ip("198.51.100.1"),
        remote: ip("198.51.100.9"),
        ttl: None,
        ttl_inherit: false,
        tos: None,
        nopmtudisc,
        mtu: None,
        dev: None,
        underlay_table: None,
        options: Default::default(),
    };
    let id = rig.with(|r, now, _| r.add_tunnel(now, spec, Vec::new())).expect("tunnel");
    assert_eq!(id, HE);
    rig.route("2001:db8:9::/48", "fe80::c633:6409", "he");
    rig
}

fn from_peer(rig: &mut Rig, outer: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    rig.frame(WAN, &frame_of(GATEWAY, OWN[2], outer)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
}

/// rfc4213-3.8-nd: who probes this end of a tunnel is answered through the tunnel, without a link-layer address.
#[test]
fn probes_out_of_a_tunnel_are_answered() {
    let own = "fe80::c633:6401";
    for (src, dst, target, hop_limit, want) in [
        ("fe80::c633:6409", own, own, 255, true),
        ("fe80::c633:6409", "ff02::1:ff33:6401", own, 255, true),
        ("fe80::c633:6409", own, own, 64, false),
        ("fe80::c633:6409", own, "fe80::77", 255, false),
        ("fe80::c633:6409", own, "2001:db8::1", 255, false),
    ] {
        let target: std::net::Ipv6Addr = target.parse().expect("address");
        // A link-layer address that should not be there does no harm.
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        let inner = icmp(src, dst, hop_limit, &message);
        let sent = from_peer(&mut rig(false), &packet("198.51.100.9", "198.51.100.1", 41, 64, &inner));
        let answers: Vec<_> = sent.iter().filter(|(port, p)| *port == WAN && p[9] == 41).collect();
        assert_eq!(answers.len(), usize::from(want), "{src} {dst} {target} {hop_limit}: {sent:02x?}");
        if let [(_, outer)] = answers[..] {
            let (p, m) = crate::rig::read_icmp(&outer[20..]);
            assert_eq!((p.src, p.dst, p.ttl), (ip(own), ip(src), 255));
            assert_eq!((m[0], m[4], m.len()), (136, 0xe0, 24));
            assert_eq!(m[8..24], target.octets());
        }
    }
}

/// Proves rfc4213-3.6-inner: what may be no source elsewhere is none out of a tunnel either.
/// Also proves rfc4213-5-links.
#[test]
fn inner_packets_are_checked_like_others() {
    for (src, passes) in [
        ("2001:db8:9::9", true),
        ("ff02::1", false),
        ("::1", false),
        ("::", false),
        ("::192.0.2.1", false),
        ("::ffff:192.0.2.1", false),
        ("fe80::9", false),
    ] {
        let src: std::net::Ipv6Addr = src.parse().expect("address");
        let mut inner = packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[1; 30]);
        inner[8..24].copy_from_slice(&src.octets());
        let sent = from_peer(&mut rig(false), &packet("198.51.100.9", "198.51.100.1", 41, 64, &inner));
        let forwarded = sent.iter().filter(|(port, _)| *port == LAN).count();
        assert_eq!(forwarded, usize::from(passes), "{src}: {sent:02x?}");
        // What is said about it stays within the tunnel: another link's fe80::9 is somebody else.
        assert!(sent.iter().all(|(port, p)| passes || (*port == WAN && p[9] == 41)), "{src}: {sent:02x?}");
    }
}

/// Proves rfc4213-3.6-reassembly: an outer packet that came in pieces is opened like any other.
#[test]
fn fragmented_tunnel_packets_are_put_together() {
    let inner = packet("2001:db8:9::9", "2001:db8::2", 17, 64, &[1; 160]);
    let (head, tail) = inner.split_at(104);
    let mut rig = rig(false);
    let mut pieces =
        [packet("198.51.100.9", "198.51.100.1", 41, 64, head), packet("198.51.100.9", "198.51.100.1", 41, 64, tail)];
    pieces[0][6] = 0x20;
    pieces[1][7] = 13;
    pieces.iter_mut().for_each(|p| fill_ipv4_header(p));
    assert!(from_peer(&mut rig, &pieces[1]).is_empty());
    let sent = from_peer(&mut rig, &pieces[0]);
    let mut want = inner.clone();
    want[7] = 63;
    assert_eq!(sent, [(LAN, want)]);
}

/// Proves rfc6864-4.3-outer: where the outer packet may be fragmented, identifications differ from packet to packet.
#[test]
fn outer_identifications_differ_where_they_matter() {
    let mut rig = rig(true);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..100u8 {
        let (port, outer) = rig.send_one(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[n; 40]));
        assert_eq!((port, outer[6] & 0x40), (WAN, 0), "DF is clear");
        seen.insert([outer[4], outer[5]]);
    }
    assert_eq!(seen.len(), 100);
}

/// Proves rfc4213-3.2.1-static, rfc4213-3.2.2-dynamic, rfc4213-3.7-link-local.
#[test]
fn tunnel_mtu_and_link_local_address() {
    for (nopmtudisc, mtu) in [(true, 1280), (false, 1380)] {
        let rig = rig(nopmtudisc);
        let he = rig.router.ports().get(HE).expect("tunnel");
        assert_eq!((he.mtu, he.link_local().map(|a| a.to_string())), (mtu, Some("fe80::c633:6401".into())));
    }
}

/// Proves rfc1191-5-plateau: an error of the underlay that tells no MTU.
#[test]
fn an_error_without_mtu_means_the_next_plateau() {
    for (told, learned) in [(0u16, 1006), (1320, 1320), (20, 68)] {
        let mut rig = rig(false);
        let (_, outer) = rig.send_one(&packet("2001:db8::2", "2001:db8:9::9", 17, 64, &[1; 1300]));
        let mtu = told.to_be_bytes();
        let message = [&[3, 4, 0, 0, 0, 0, mtu[0], mtu[1]], &outer[..28]].concat();
        assert!(from_peer(&mut rig, &icmp("203.0.113.77", "198.51.100.1", 64, &message)).is_empty());
        let now = rig.now;
        let found = rig.router.tunnels(now).next().and_then(|t| t.learned_mtu).map(|l| l.mtu);
        assert_eq!(found, Some(learned), "{told}");
    }
}

/// Proves rfc2473-4.1.1-limit as far as it is understood: harmless in a packet for the router.
#[test]
fn an_encapsulation_limit_is_no_error() {
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 1];
    message.extend([9; 8]);
    let whole = icmp("2001:db8::2", "2001:db8::1", 64, &message);
    let options = [58, 0, 4, 1, 3, 1, 1, 0];
    let request = with_options("2001:db8::2", "2001:db8::1", 60, 64, &options, &whole[40..]);
    assert_eq!(rig(false).frame(LAN, &frame_of(HOST, OWN[1], &request)).len(), 1);
}
