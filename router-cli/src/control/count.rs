//! What is counted exactly because somebody asked: routes and next hops.

use ipnet::IpNet;
use router_core::port::TableId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Something to count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum CountTarget {
    /// Packets for which the route to this prefix wins.
    Route {
        /// The prefix.
        dst: IpNet,
        /// Its table.
        #[serde(default = "main_table")]
        table: TableId,
    },
    /// Packets that routes and groups send to this next hop.
    NextHop {
        /// The gateway; None: the hosts on the link, or the tunnel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<IpAddr>,
        /// The port; None: the one whose link the gateway is on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dev: Option<String>,
    },
    /// The next hop of this next-hop object, or each of its group.
    Object(u32),
}

fn main_table() -> TableId {
    TableId::MAIN
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountInfo {
    /// Of what: a route, or a next hop with its port.
    pub of: CountTarget,
    /// Packets; a super-frame is one.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}
