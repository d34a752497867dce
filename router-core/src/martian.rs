//! Addresses that can never be a sender or a destination of a forwarded packet (RFC 1812 5.3.7, RFC 6890, RFC 4291).

use crate::drop_reason::DropReason;
use crate::packet::Packet;
use crate::settings::MartianSettings;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Checks both addresses of a packet that came from outside, before any lookup.
///
/// Multicast and broadcast destinations and the unspecified IPv6 source (of duplicate address detection) pass here: where
/// they may go is decided later.
#[inline]
pub fn check(p: &Packet) -> Result<(), DropReason> {
    check_with(p, MartianSettings::default())
}

/// As [`check`], with what the operator lets pass.
#[inline]
pub fn check_with(p: &Packet, allowed: MartianSettings) -> Result<(), DropReason> {
    match (p.src, p.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            if never_v4(s, allowed) || s.is_multicast() || s == Ipv4Addr::BROADCAST {
                return Err(DropReason::MartianSource);
            }
            if never_v4(d, allowed) {
                return Err(DropReason::MartianDestination);
            }
            Ok(())
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            if s.is_multicast() || s == Ipv6Addr::LOCALHOST {
                return Err(DropReason::MartianSource);
            }
            if d == Ipv6Addr::LOCALHOST || d == Ipv6Addr::UNSPECIFIED {
                return Err(DropReason::MartianDestination);
            }
            if is_mapped(s) || is_mapped(d) {
                return Err(DropReason::MappedAddress);
            }
            Ok(())
        }
        // A packet has one family: the parse makes both addresses of it.
        _ => Err(DropReason::MartianSource),
    }
}

/// RFC 1122 3.2.1.3: "this network", loopback and reserved addresses are nobody's.
#[inline]
fn never_v4(a: Ipv4Addr, allowed: MartianSettings) -> bool {
    match a.octets()[0] {
        0 => !allowed.allow_net_zero || a.is_unspecified(),
        127 => true,
        240.. => !allowed.allow_class_e && a != Ipv4Addr::BROADCAST,
        _ => false,
    }
}

#[inline]
fn is_mapped(a: Ipv6Addr) -> bool {
    a.to_ipv4_mapped().is_some()
}

/// Whether a packet carries an IPv4-mapped address, which leaves through the ports of a closed network only.
#[inline]
pub fn is_mapped_packet(p: &Packet) -> bool {
    match (p.src, p.dst) {
        (IpAddr::V6(s), IpAddr::V6(d)) => is_mapped(s) || is_mapped(d),
        _ => false,
    }
}

/// Checks what only matters when the packet is to leave its link: scope and source.
#[inline]
pub fn check_forward(p: &Packet) -> Result<(), DropReason> {
    match (p.src, p.dst) {
        // RFC 3927 2.7: IPv4 link-local is never forwarded.
        (IpAddr::V4(s), IpAddr::V4(d)) if s.is_link_local() || d.is_link_local() => Err(DropReason::LinkLocalScope),
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            if s.is_unspecified() {
                return Err(DropReason::MartianSource);
            }
            // RFC 4291 2.5.6: routers must not forward packets with link-local addresses.
            if s.is_unicast_link_local() || d.is_unicast_link_local() {
                return Err(DropReason::LinkLocalScope);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::packet::Fragment;

    fn packet(src: &str, dst: &str) -> Packet {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        Packet {
            family: Family::of(&src),
            src,
            dst,
            len: 40,
            wire_len: 40,
            l4: 20,
            proto: 17,
            ttl: 64,
            tclass: 0,
            flow: 0,
            fragment: Fragment::None,
            df: false,
            link_group: false,
            router_alert: false,
        }
    }

    /// Proves rfc1122-3.2.1.3-addresses, rfc1812-5.3.7-source, rfc1812-5.3.7-destination, rfc3927-2.7-forward,
    /// rfc4291-2.5.2-unspecified, rfc4291-2.5.3-loopback, rfc4291-2.5.5.2-mapped, rfc4291-2.5.6-link-local,
    /// rfc4291-2.7-multicast-source, rfc6890-2.2.2-v4, rfc6890-2.2.2-private, rfc6890-2.2.3-v6.
    #[test]
    fn martians_of_both_families() {
        use DropReason::*;
        let rows = [
            // RFC, source, destination, on receipt, on forwarding
            ("", "192.0.2.1", "198.51.100.1", Ok(()), Ok(())),
            ("RFC 7600 5.4: the dummy source of routers without IPv4", "192.0.0.8", "198.51.100.1", Ok(()), Ok(())),
            ("RFC 6890 2.2.2: private, but somebody's", "10.0.0.1", "192.168.1.1", Ok(()), Ok(())),
            ("RFC 6890 2.2.2: shared, documentation", "100.64.0.1", "203.0.113.1", Ok(()), Ok(())),
            ("RFC 1122 3.2.1.3 a", "0.0.0.0", "198.51.100.1", Err(MartianSource), Ok(())),
            ("RFC 1122 3.2.1.3 g", "127.0.0.1", "198.51.100.1", Err(MartianSource), Ok(())),
            ("RFC 1122 3.2.1.3 c", "255.255.255.255", "198.51.100.1", Err(MartianSource), Ok(())),
            ("RFC 1112 4", "224.0.0.1", "198.51.100.1", Err(MartianSource), Ok(())),
            ("RFC 1812 5.3.7", "192.0.2.1", "127.0.0.1", Err(MartianDestination), Ok(())),
            ("RFC 1812 5.3.7", "192.0.2.1", "0.0.0.1", Err(MartianDestination), Ok(())),
            ("RFC 6890", "192.0.2.1", "240.0.0.1", Err(MartianDestination), Ok(())),
            ("RFC 919 7", "192.0.2.1", "255.255.255.255", Ok(()), Ok(())),
            ("RFC 3927 2.7", "169.254.1.1", "198.51.100.1", Ok(()), Err(LinkLocalScope)),
            ("RFC 6890", "240.0.0.1", "198.51.100.1", Err(MartianSource), Ok(())),
            ("", "2001:db8::1", "2001:db8::2", Ok(()), Ok(())),
            ("RFC 4291 2.5.3", "::1", "2001:db8::2", Err(MartianSource), Ok(())),
            ("RFC 4291 2.7", "ff02::1", "2001:db8::2", Err(MartianSource), Ok(())),
            ("RFC 4291 2.5.2", "::", "2001:db8::2", Ok(()), Err(MartianSource)),
            ("RFC 4291 2.5.2", "2001:db8::1", "::", Err(MartianDestination), Ok(())),
            ("RFC 4291 2.5.5.2", "::ffff:192.0.2.1", "2001:db8::2", Err(MappedAddress), Ok(())),
            ("RFC 4291 2.5.5.2", "2001:db8::1", "::ffff:192.0.2.1", Err(MappedAddress), Ok(())),
            ("RFC 4291 2.5.6", "fe80::1", "2001:db8::2", Ok(()), Err(LinkLocalScope)),
            ("RFC 4291 2.5.6", "2001:db8::1", "fe80::2", Ok(()), Err(LinkLocalScope)),
        ];
        for (rfc, src, dst, receipt, forward) in rows {
            let p = packet(src, dst);
            assert_eq!(check(&p), receipt, "{rfc}: {src} > {dst}");
            if receipt.is_ok() {
                assert_eq!(check_forward(&p), forward, "{rfc}: {src} > {dst}");
            }
        }
    }

    /// Proves rfc1812-5.3.7-switch.
    #[test]
    fn reserved_blocks_can_be_let_through() {
        let all = MartianSettings { allow_net_zero: true, allow_class_e: true };
        for (src, dst, want) in [
            ("0.0.0.1", "240.0.0.1", Ok(())),
            ("240.0.0.1", "0.1.2.3", Ok(())),
            ("0.0.0.0", "198.51.100.1", Err(DropReason::MartianSource)),
            ("192.0.2.1", "0.0.0.0", Err(DropReason::MartianDestination)),
            ("255.255.255.255", "198.51.100.1", Err(DropReason::MartianSource)),
            ("127.0.0.1", "198.51.100.1", Err(DropReason::MartianSource)),
        ] {
            assert_eq!(check_with(&packet(src, dst), all), want, "{src} > {dst}");
            assert!(check(&packet(src, dst)).is_err(), "not by default: {src} > {dst}");
        }
    }
}
