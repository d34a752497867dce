//! Prefix maps of both families behind one type.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::net::IpAddr;

/// A map from prefix to value, ordered, with longest match.
#[derive(Debug)]
pub(crate) struct NetMap<T> {
    pub(crate) v4: PrefixMap<Ipv4Net, T>,
    pub(crate) v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for NetMap<T> {
    fn default() -> Self {
        NetMap { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> NetMap<T> {
    pub(crate) fn get(&self, net: &IpNet) -> Option<&T> {
        match net {
            IpNet::V4(n) => self.v4.get(n),
            IpNet::V6(n) => self.v6.get(n),
        }
    }

    #[cfg(test)]
    pub(crate) fn insert(&mut self, net: IpNet, value: T) {
        match net {
            IpNet::V4(n) => _ = self.v4.insert(n, value),
            IpNet::V6(n) => _ = self.v6.insert(n, value),
        }
    }

    /// The value of a prefix, made if need be: one walk.
    pub(crate) fn get_or_insert_with(&mut self, net: IpNet, make: impl FnOnce() -> T) -> &mut T {
        match net {
            IpNet::V4(n) => self.v4.entry(n).or_insert_with(make),
            IpNet::V6(n) => self.v6.entry(n).or_insert_with(make),
        }
    }

    pub(crate) fn remove(&mut self, net: &IpNet) {
        match net {
            IpNet::V4(n) => _ = self.v4.remove(n),
            IpNet::V6(n) => _ = self.v6.remove(n),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Every prefix that contains `net`, itself included, shortest first.
    pub(crate) fn for_each_cover(&self, net: &IpNet, mut f: impl FnMut(u8, &T)) {
        match net {
            IpNet::V4(n) => self.v4.cover(n).for_each(|(p, v)| f(p.prefix_len(), v)),
            IpNet::V6(n) => self.v6.cover(n).for_each(|(p, v)| f(p.prefix_len(), v)),
        }
    }
}

/// The prefix that holds just this address.
pub(crate) fn host(addr: &IpAddr) -> IpNet {
    IpNet::from(*addr)
}
