//! The kernel's neighbour tables (ARP and NDP).

use super::{Netlink, NetlinkError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as WireState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use router_core::addr::MacAddr;
use serde::Serialize;
use std::net::IpAddr;

/// The state of a kernel neighbour (RFC 4861 7.3.2 and Linux's additions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighborState {
    /// Being resolved.
    Incomplete,
    /// Known to answer.
    Reachable,
    /// Known once.
    Stale,
    /// Used while stale, about to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution.
    Noarp,
    /// Entered by hand.
    Permanent,
    /// Anything else.
    None,
}

/// An entry of the kernel's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelNeighbor {
    /// The link.
    pub index: u32,
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Its link-layer address, if known.
    pub mac: Option<MacAddr>,
    /// Its state.
    pub state: NeighborState,
}

impl Netlink {
    /// Adds or replaces a permanent neighbour.
    pub fn add_neighbor(&mut self, index: u32, addr: IpAddr, mac: MacAddr) -> Result<(), NetlinkError> {
        let mut m = message(index, addr);
        m.header.state = WireState::Permanent;
        m.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.acked(Rtnl::NewNeighbour(m), NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("add neighbour {addr} lladdr {mac} on link {index}")
        })
    }

    /// Deletes a neighbour.
    pub fn del_neighbor(&mut self, index: u32, addr: IpAddr) -> Result<(), NetlinkError> {
        let m = message(index, addr);
        self.acked(Rtnl::DelNeighbour(m), 0, || format!("delete neighbour {addr} on link {index}"))
    }

    /// The neighbours of one link or of all, both families.
    pub fn neighbors(&mut self, index: Option<u32>) -> Result<Vec<KernelNeighbor>, NetlinkError> {
        let entries = self.dump(Rtnl::GetNeighbour(NeighbourMessage::default()), || "list neighbours".to_owned())?;
        Ok(entries
            .into_iter()
            .filter_map(|e| match e {
                Rtnl::NewNeighbour(m) => decode(&m),
                _ => None,
            })
            .filter(|n| index.is_none_or(|i| i == n.index))
            .collect())
    }

    /// Deletes all neighbours of a link except permanent ones and those that need no resolution (multicast).
    pub fn flush_neighbors(&mut self, index: u32) -> Result<(), NetlinkError> {
        let keep = [NeighborState::Permanent, NeighborState::Noarp];
        let doomed: Vec<_> =
            self.neighbors(Some(index))?.into_iter().filter(|n| !keep.contains(&n.state)).map(|n| n.addr).collect();
        for addr in doomed {
            match self.del_neighbor(index, addr) {
                Err(e) if !e.is_missing() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn message(index: u32, addr: IpAddr) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.ifindex = index;
    let (family, dst) = match addr {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    m.header.family = family;
    m.attributes.push(NeighbourAttribute::Destination(dst));
    m
}

fn decode(m: &NeighbourMessage) -> Option<KernelNeighbor> {
    let mut addr = None;
    let mut mac = None;
    for attribute in &m.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some(IpAddr::V6(*a)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
            _ => {}
        }
    }
    let state = match m.header.state {
        WireState::Incomplete => NeighborState::Incomplete,
        WireState::Reachable => NeighborState::Reachable,
        WireState::Stale => NeighborState::Stale,
        WireState::Delay => NeighborState::Delay,
        WireState::Probe => NeighborState::Probe,
        WireState::Failed => NeighborState::Failed,
        WireState::Noarp => NeighborState::Noarp,
        WireState::Permanent => NeighborState::Permanent,
        _ => NeighborState::None,
    };
    Some(KernelNeighbor { index: m.header.ifindex, addr: addr?, mac, state })
}
