//! Who resolves through which addresses of a domain.
//!
//! Every change of a route asks whether somebody does within its prefix, and the answer is nearly always no: a coarse
//! set of the addresses' upper bits says so without a search.

use crate::resolve::Tracker;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Upper bits of an address that the coarse set knows.
const COARSE_V4: u8 = 16;
const COARSE_V6: u8 = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trackers {
    by_addr: BTreeMap<IpAddr, Tracker>,
    /// Addresses by their upper bits.
    coarse: HashMap<u64, u32, FixedState>,
}

impl Trackers {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_addr.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn get(&self, addr: &IpAddr) -> Option<&Tracker> {
        self.by_addr.get(addr)
    }

    /// The tracker of an address, made if need be.
    pub(crate) fn get_or_make(&mut self, addr: IpAddr) -> &mut Tracker {
        let coarse = &mut self.coarse;
        self.by_addr.entry(addr).or_insert_with(|| {
            *coarse.entry(upper(&addr)).or_default() += 1;
            Tracker::default()
        })
    }

    pub(crate) fn get_mut(&mut self, addr: &IpAddr) -> Option<&mut Tracker> {
        self.by_addr.get_mut(addr)
    }

    pub(crate) fn remove(&mut self, addr: &IpAddr) {
        if self.by_addr.remove(addr).is_none() {
            return;
        }
        let upper = upper(addr);
        if let Some(n) = self.coarse.get_mut(&upper) {
            *n -= 1;
            if *n == 0 {
                self.coarse.remove(&upper);
            }
        }
    }

    /// Those of addresses within a prefix.
    pub(crate) fn within(&self, net: &IpNet) -> impl Iterator<Item = &Tracker> {
        let known = match net {
            IpNet::V4(n) => n.prefix_len() < COARSE_V4,
            IpNet::V6(n) => n.prefix_len() < COARSE_V6,
        };
        let some = known || self.coarse.contains_key(&upper(&net.network()));
        let range = some.then(|| self.by_addr.range(net.network()..=net.broadcast()));
        range.into_iter().flatten().map(|(_, t)| t)
    }
}

fn upper(addr: &IpAddr) -> u64 {
    match addr {
        IpAddr::V4(a) => u64::from(a.to_bits() >> (32 - COARSE_V4)),
        IpAddr::V6(a) => 1 << 32 | (a.to_bits() >> (128 - COARSE_V6)) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_lies_within(
            addrs in prop::collection::btree_set(0u32..64, 0..20),
            gone in prop::collection::btree_set(0u32..64, 0..20),
            net in 0u32..64,
            len in 0u8..=32,
        ) {
            let mut trackers = Trackers::default();
            let spread = |a: u32| (a & 7) << 29 | (a >> 3 & 1) << 16 | a >> 4;
            let v4 = |a: u32| IpAddr::from(spread(a).to_be_bytes());
            let v6 = |a: u32| IpAddr::from((u128::from(spread(a)) << 88 | 5).to_be_bytes());
            for a in &addrs {
                trackers.get_or_make(v4(*a));
                trackers.get_or_make(v6(*a));
            }
            for a in &gone {
                trackers.remove(&v4(*a));
                trackers.remove(&v6(*a));
            }
            let four = IpNet::V4(Ipv4Net::new_assert(spread(net).into(), len).trunc());
            let six = IpNet::V6(Ipv6Net::new_assert((u128::from(spread(net)) << 88).into(), len + 8).trunc());
            let left: Vec<u32> = addrs.difference(&gone).copied().collect();
            prop_assert_eq!(trackers.is_empty(), left.is_empty());
            prop_assert_eq!(trackers.coarse.is_empty(), left.is_empty());
            prop_assert_eq!(trackers.within(&four).count(), left.iter().filter(|a| four.contains(&v4(**a))).count());
            prop_assert_eq!(trackers.within(&six).count(), left.iter().filter(|a| six.contains(&v6(**a))).count());
        }
    }
}
