//! Cryptokey routing: which peer an inner address belongs to.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::net::IpAddr;

/// Prefixes of both families, each with the index of its peer.
#[derive(Default)]
pub(super) struct AllowedIps {
    four: PrefixMap<Ipv4Net, u32>,
    six: PrefixMap<Ipv6Net, u32>,
}

impl AllowedIps {
    /// `net` belongs to `peer`.
    pub fn insert(&mut self, net: IpNet, peer: u32) {
        match net.trunc() {
            IpNet::V4(n) => self.four.insert(n, peer),
            IpNet::V6(n) => self.six.insert(n, peer),
        };
    }

    /// The peer of the longest prefix that holds `addr`.
    pub fn peer_of(&self, addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(a) => self.four.get_lpm(&Ipv4Net::from(a)).map(|(_, p)| *p),
            IpAddr::V6(a) => self.six.get_lpm(&Ipv6Net::from(a)).map(|(_, p)| *p),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_prefix_wins(nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40), addr in any::<u32>()) {
            let mut map = AllowedIps::default();
            let mut list: Vec<(Ipv4Net, u32)> = Vec::new();
            for (i, (bits, len)) in nets.into_iter().enumerate() {
                let net = Ipv4Net::new_assert(bits.into(), len);
                map.insert(net.into(), i as u32);
                list.retain(|(n, _)| *n != net.trunc());
                list.push((net.trunc(), i as u32));
            }
            let addr = std::net::Ipv4Addr::from(addr);
            let want = list.iter().filter(|(n, _)| n.contains(&addr)).max_by_key(|(n, _)| n.prefix_len()).map(|(_, p)| *p);
            prop_assert_eq!(map.peer_of(addr.into()), want);
        }
    }
}
