//! Addresses of links.

use super::{Netlink, NetlinkError};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkAddr {
    /// The link's index.
    pub index: u32,
    /// The address with the length of its prefix.
    pub addr: IpNet,
    /// Duplicate address detection (RFC 4862 5.4) has not ended: the address cannot be used yet.
    pub tentative: bool,
    /// Duplicate address detection found the address taken.
    pub dad_failed: bool,
}

impl Netlink {
    /// Adds an address. IPv6 addresses are usable at once: no duplicate address detection (IFA_F_NODAD).
    pub fn add_addr(&mut self, index: u32, addr: IpNet) -> Result<(), NetlinkError> {
        let mut m = message(index, addr);
        match addr {
            IpNet::V4(net) if net.prefix_len() < 31 => m.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
            IpNet::V4(_) => {}
            IpNet::V6(_) => m.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        self.acked(Rtnl::NewAddress(m), NLM_F_CREATE | NLM_F_EXCL, || format!("add address {addr} to link {index}"))
    }

    /// Removes an address.
    pub fn del_addr(&mut self, index: u32, addr: IpNet) -> Result<(), NetlinkError> {
        self.acked(Rtnl::DelAddress(message(index, addr)), 0, || format!("delete address {addr} of link {index}"))
    }

    /// The addresses of one link or of all.
    pub fn addrs(&mut self, index: Option<u32>) -> Result<Vec<LinkAddr>, NetlinkError> {
        let entries = self.dump(Rtnl::GetAddress(AddressMessage::default()), || "list addresses".to_owned())?;
        Ok(entries
            .into_iter()
            .filter_map(|e| match e {
                Rtnl::NewAddress(m) => decode(&m),
                _ => None,
            })
            .filter(|a| index.is_none_or(|i| i == a.index))
            .collect())
    }
}

fn message(index: u32, addr: IpNet) -> AddressMessage {
    let mut m = AddressMessage::default();
    m.header.index = index;
    m.header.prefix_len = addr.prefix_len();
    m.header.family = match addr {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    m.header.scope = match addr.addr() {
        IpAddr::V4(a) if a.is_loopback() => AddressScope::Host,
        IpAddr::V4(a) if a.is_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    m.attributes.push(AddressAttribute::Local(addr.addr()));
    m.attributes.push(AddressAttribute::Address(addr.addr()));
    m
}

fn decode(m: &AddressMessage) -> Option<LinkAddr> {
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(m.header.flags.bits()));
    for attribute in &m.attributes {
        match attribute {
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    // On a point-to-point link ADDRESS is the peer's, LOCAL is ours; IPv6 usually says ADDRESS only.
    let addr = local.or(address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Some(LinkAddr {
        index: m.header.index,
        addr: IpNet::new(addr, m.header.prefix_len).ok()?,
        tentative: flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
    })
}
