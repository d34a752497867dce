//! 6rd and 6to4: the peer of a packet is part of its inner address (RFC 5969 7, RFC 3056 2).

use super::spec::SixRdOptions;
use crate::drop_reason::DropReason;
use ipnet::Ipv6Net;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The mapping between inner and outer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derived {
    options: SixRdOptions,
    /// 6to4: addresses that are private to a network cannot be anybody's.
    global: bool,
}

impl Derived {
    /// The prefix of 6to4.
    pub const SIX_TO_FOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

    /// From the options.
    pub fn new(options: &SixRdOptions) -> Self {
        Derived { options: *options, global: options.prefix == Self::SIX_TO_FOUR }
    }

    /// Bits of an IPv4 address that are in an IPv6 one.
    fn bits(&self) -> u32 {
        32 - u32::from(self.options.relay_prefix.prefix_len())
    }

    /// The IPv4 address in an IPv6 one of the 6rd prefix.
    pub fn embedded(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        let prefix = &self.options.prefix;
        if !prefix.contains(&addr) {
            return None;
        }
        let n = self.bits();
        let bits = (addr.to_bits() << prefix.prefix_len()).checked_shr(128 - n).unwrap_or(0) as u32;
        Some(Ipv4Addr::from_bits(self.options.relay_prefix.network().to_bits() | bits))
    }

    /// The prefix that belongs to an IPv4 address (RFC 5969 4). None when the address is outside the common part.
    pub fn delegated(&self, addr: Ipv4Addr) -> Option<Ipv6Net> {
        if !self.options.relay_prefix.contains(&addr) {
            return None;
        }
        let (prefix, n) = (&self.options.prefix, self.bits());
        let len = u32::from(prefix.prefix_len()) + n;
        let bits = u128::from(addr.to_bits()).checked_shl(128 - n).unwrap_or(0);
        let bits = prefix.network().to_bits() | bits.checked_shr(u32::from(prefix.prefix_len())).unwrap_or(0);
        Ipv6Net::new(Ipv6Addr::from_bits(bits), u8::try_from(len).ok()?).ok()
    }

    /// To whom a packet for `dst` goes, from a router whose own end is `local`.
    ///
    /// # Errors
    /// [`DropReason::TunnelLoop`] when it is the router itself (RFC 6324 3.3), [`DropReason::TunnelNoPeer`] when it is no
    /// host's address, or outside the prefix without a relay.
    pub fn peer(&self, dst: Ipv6Addr, local: Ipv4Addr) -> Result<Ipv4Addr, DropReason> {
        let peer = self.embedded(dst).or(self.options.br).ok_or(DropReason::TunnelNoPeer)?;
        match peer {
            _ if peer == local => Err(DropReason::TunnelLoop),
            _ if !self.possible(peer) => Err(DropReason::TunnelNoPeer),
            _ => Ok(peer),
        }
    }

    /// Checks that a packet from `outer` may have the inner source `src` (RFC 5969 12, RFC 3964 5.1) and destination
    /// `dst`.
    ///
    /// # Errors
    /// [`DropReason::TunnelInnerSource`]; [`DropReason::TunnelLoop`] for a packet that claims to be from this router.
    pub fn check(&self, outer: Ipv4Addr, local: Ipv4Addr, src: Ipv6Addr) -> Result<(), DropReason> {
        match self.embedded(src) {
            Some(a) if a == local => Err(DropReason::TunnelLoop),
            Some(a) if a == outer && self.possible(a) => Ok(()),
            // All others come through the relay; a relay itself hears nobody but its customers.
            None if self.options.br == Some(outer) => Ok(()),
            _ => Err(DropReason::TunnelInnerSource),
        }
    }

    /// Whether the router is a relay: then a packet may come out of the tunnel and go into it again, to another customer.
    pub fn is_relay(&self) -> bool {
        self.options.br.is_none()
    }

    fn possible(&self, a: Ipv4Addr) -> bool {
        let first = a.octets()[0];
        let host = first != 0 && first != 127 && first < 224;
        let shared = first == 100 && a.octets()[1] & 0xc0 == 64;
        host && !(self.global && (a.is_private() || a.is_link_local() || shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn derived(prefix: &str, relay_prefix: &str, br: Option<&str>) -> Derived {
        let options = SixRdOptions {
            prefix: prefix.parse().unwrap(),
            relay_prefix: relay_prefix.parse().unwrap(),
            br: br.map(|b| b.parse().unwrap()),
        };
        Derived::new(&options)
    }

    /// Proves rfc5969-4-delegated: the examples of the text, and 6to4's.
    #[test]
    fn rfc5969_4_delegated_prefixes() {
        for (prefix, relay, addr, want) in [
            ("2001:db8::/32", "10.0.0.0/8", "10.100.100.1", "2001:db8:6464:100::/56"),
            ("2001:db8::/32", "0.0.0.0/0", "198.51.100.1", "2001:db8:c633:6401::/64"),
            ("2001:d00::/24", "192.0.2.0/24", "192.0.2.77", "2001:d4d::/32"),
            ("2002::/16", "0.0.0.0/0", "192.0.2.4", "2002:c000:204::/48"),
            ("2001:db8::/32", "192.0.2.7/32", "192.0.2.7", "2001:db8::/32"),
        ] {
            let d = derived(prefix, relay, None);
            let addr: Ipv4Addr = addr.parse().unwrap();
            let net = d.delegated(addr).unwrap();
            assert_eq!(net.to_string(), want);
            assert_eq!(d.embedded(net.addr()), Some(addr));
        }
        assert_eq!(derived("2001:db8::/32", "10.0.0.0/8", None).delegated([192, 0, 2, 1].into()), None);
    }

    /// Proves rfc5969-12-spoofing, rfc6324-3.3-loop, and RFC 3964 5.1.
    #[test]
    fn who_may_send_what() {
        use DropReason::*;
        let v4 = |a: &str| a.parse::<Ipv4Addr>().unwrap();
        let v6 = |a: &str| a.parse::<Ipv6Addr>().unwrap();
        let relay = derived("2001:db8::/32", "10.0.0.0/8", None);
        let edge = derived("2001:db8::/32", "10.0.0.0/8", Some("10.0.0.1"));
        let anybody = derived("2002::/16", "0.0.0.0/0", None);
        // mapping, outer source, own address, inner source
        for (d, outer, local, src, want) in [
            (relay, "10.1.2.3", "10.0.0.1", "2001:db8:102:300::1", Ok(())),
            (relay, "10.1.2.4", "10.0.0.1", "2001:db8:102:300::1", Err(TunnelInnerSource)),
            (relay, "10.1.2.3", "10.0.0.1", "2001:db9::1", Err(TunnelInnerSource)),
            (relay, "10.1.2.3", "10.0.0.1", "2001:db8:0:100::1", Err(TunnelLoop)),
            (edge, "10.0.0.1", "10.9.9.9", "2001:db9::1", Ok(())),
            (edge, "10.0.0.2", "10.9.9.9", "2001:db9::1", Err(TunnelInnerSource)),
            (edge, "10.0.0.2", "10.9.9.9", "2001:db8:0:200::1", Ok(())),
            (anybody, "192.168.1.1", "192.0.2.1", "2002:c0a8:101::1", Err(TunnelInnerSource)),
            (anybody, "198.51.100.1", "192.0.2.1", "2002:c633:6401::1", Ok(())),
        ] {
            assert_eq!(d.check(v4(outer), v4(local), v6(src)), want, "{outer} {src}");
        }
        for (d, local, dst, want) in [
            (relay, "10.0.0.1", "2001:db8:102:300::1", Ok("10.1.2.3")),
            (relay, "10.0.0.1", "2001:db8:0:100::1", Err(TunnelLoop)),
            (relay, "10.0.0.1", "2001:db9::1", Err(TunnelNoPeer)),
            (edge, "10.9.9.9", "2001:db9::1", Ok("10.0.0.1")),
            (anybody, "192.0.2.1", "2002:7f00:1::1", Err(TunnelNoPeer)),
            (anybody, "192.0.2.1", "2002:e000:1::1", Err(TunnelNoPeer)),
            (anybody, "192.0.2.1", "2002:a00:1::1", Err(TunnelNoPeer)),
            (anybody, "192.0.2.1", "2002:0:1::1", Err(TunnelNoPeer)),
        ] {
            assert_eq!(d.peer(v6(dst), v4(local)), want.map(v4), "{dst}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_found_again(a: u32, len in 0u8..=32, plen in 0u8..=64) {
            let relay = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(a), len).unwrap().trunc();
            let prefix = Ipv6Net::new("2001:db8:1:2::".parse().unwrap(), plen).unwrap().trunc();
            let d = Derived::new(&SixRdOptions { prefix, relay_prefix: relay, br: None });
            let net = d.delegated(Ipv4Addr::from_bits(a)).unwrap();
            prop_assert_eq!(u32::from(net.prefix_len()), u32::from(plen) + 32 - u32::from(len));
            prop_assert_eq!(d.embedded(net.addr()), Some(Ipv4Addr::from_bits(a)));
            prop_assert_eq!(d.embedded(net.broadcast()), Some(Ipv4Addr::from_bits(a)));
        }
    }
}
