//! The slow and obvious table that tests compare the engine with.

use super::Lookup;
use crate::object::ObjectId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every prefix in one map; a lookup looks at all of them.
#[derive(Debug, Default)]
pub(crate) struct Oracle(pub(crate) BTreeMap<IpNet, ObjectId>);

impl Oracle {
    /// The longest prefix that contains `dst`.
    pub(crate) fn longest(&self, dst: &IpAddr) -> Option<(IpNet, ObjectId)> {
        self.0.iter().filter(|(n, _)| n.contains(dst)).max_by_key(|(n, _)| n.prefix_len()).map(|(n, v)| (*n, *v))
    }

    /// The longest prefix that properly contains `net`.
    pub(crate) fn cover(&self, net: &IpNet) -> Option<(u8, ObjectId)> {
        let wider = self.0.iter().filter(|(n, _)| n.contains(net) && *n != net);
        wider.max_by_key(|(n, _)| n.prefix_len()).map(|(n, v)| (n.prefix_len(), *v))
    }
}

impl Lookup for Oracle {
    fn lookup4(&self, dst: Ipv4Addr) -> ObjectId {
        self.longest(&IpAddr::V4(dst)).map_or(ObjectId::NO_ROUTE, |(_, v)| v)
    }

    fn lookup6(&self, dst: Ipv6Addr) -> ObjectId {
        self.longest(&IpAddr::V6(dst)).map_or(ObjectId::NO_ROUTE, |(_, v)| v)
    }
}
