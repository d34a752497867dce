//! Pools: one prefix, cut into prefixes of one length, which are numbered.

use super::model::unmapped;
use ipnet::{IpNet, Ipv6Net};
use std::net::Ipv6Addr;

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The tunnels themselves.
    Links,
    /// Tunnels with IPv4 inside, in mapped notation.
    Links4,
    /// Delegation of /48s.
    Prefixes,
    /// Delegation of /64s.
    Subnets,
}

impl Use {
    /// Its key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Use::Links => "links",
            Use::Links4 => "links4",
            Use::Prefixes => "prefixes",
            Use::Subnets => "subnets",
        }
    }
}

/// A pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What for.
    pub of: Use,
    /// All of it.
    pub net: Ipv6Net,
    /// Length of its parts; at most 32 more than that of the whole.
    pub length: u8,
}

impl Pool {
    /// How many parts it has.
    pub fn size(&self) -> u64 {
        1 << self.length.saturating_sub(self.net.prefix_len()).min(32)
    }

    /// A part.
    pub fn part(&self, index: u64) -> Option<Ipv6Net> {
        let shift = 128 - u32::from(self.length);
        let bits = self.net.network().to_bits() | u128::from(index) << shift;
        (index < self.size()).then(|| Ipv6Net::new(Ipv6Addr::from_bits(bits), self.length).ok()).flatten()
    }

    /// The number of a part; None if it is none of this pool.
    #[cfg(test)]
    pub fn index(&self, part: &IpNet) -> Option<u64> {
        let IpNet::V6(part) = part else { return None };
        let mine = part.prefix_len() == self.length && self.net.contains(part);
        let shift = 128 - u32::from(self.length);
        let below = part.network().to_bits() ^ self.net.network().to_bits();
        mine.then(|| u64::try_from(below >> shift).ok()).flatten()
    }

    /// All of it, and the length of its parts, as people write it.
    pub fn shown(&self) -> (IpNet, u8) {
        let net = unmapped(self.net);
        (net, if net.addr().is_ipv4() { self.length - 96 } else { self.length })
    }

    /// The number after `index`, beginning again at the end.
    pub fn next(&self, index: u64) -> u64 {
        (index + 1) % self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        let pool = Pool { of: Use::Prefixes, net: "2001:db8:4000::/36".parse().unwrap(), length: 48 };
        assert_eq!(pool.size(), 4096);
        assert_eq!(pool.part(0).unwrap().to_string(), "2001:db8:4000::/48");
        assert_eq!(pool.part(4095).unwrap().to_string(), "2001:db8:4fff::/48");
        assert_eq!(pool.part(4096), None);
        assert_eq!(pool.index(&"2001:db8:5000::/48".parse().unwrap()), None);
        assert_eq!(pool.index(&"2001:db8:4000::/64".parse().unwrap()), None);
        assert_eq!(pool.next(4095), 0);
        let four =
            Pool { of: Use::Links4, net: super::super::model::mapped("10.64.0.0/16".parse().unwrap()), length: 126 };
        assert_eq!((four.size(), four.shown()), (16_384, ("10.64.0.0/16".parse().unwrap(), 30)));
        assert_eq!(unmapped(four.part(1).unwrap()).to_string(), "10.64.0.4/30");
        let one = Pool { of: Use::Subnets, net: "2001:db8::/64".parse().unwrap(), length: 64 };
        assert_eq!((one.size(), one.next(0)), (1, 0));
    }

    proptest! {
        #[test]
        fn parts_do_not_overlap_and_have_numbers(len in 16u8..=64, more in 0u8..=32, a in any::<u32>(), b in any::<u32>()) {
            let length = (len + more).min(64);
            let net = Ipv6Net::new("2001:db8:1234:5678::".parse().unwrap(), len).unwrap().trunc();
            let pool = Pool { of: Use::Links, net, length };
            let (a, b) = (u64::from(a) % pool.size(), u64::from(b) % pool.size());
            let (pa, pb) = (pool.part(a).unwrap(), pool.part(b).unwrap());
            prop_assert!(net.contains(&pa));
            prop_assert_eq!(pool.index(&IpNet::V6(pa)), Some(a));
            prop_assert_eq!(pa.contains(&pb), a == b);
        }
    }
}
