//! A small synchronous rtnetlink client: links, addresses, routes, neighbours, traffic-control blocks and link events.
//!
//! A [`Netlink`] talks to the network namespace of the thread that opened it, for its whole life, whatever thread uses
//! it later. This module is the only place that names the netlink crates.

mod addr;
pub mod clsact;
mod error;
mod link;
mod monitor;
mod neigh;
mod route;
mod socket;
pub mod sysctl;

pub use addr::LinkAddr;
pub use clsact::KernelBlock;
pub use error::NetlinkError;
pub use link::{LinkInfo, VethEnd};
pub use monitor::{LinkEvent, LinkMonitor};
pub use neigh::{KernelNeighbor, NeighborState};
pub use route::{FibLookup, KernelHop, KernelRoute, KernelRouteKind, RouteParseError};
pub use socket::Netlink;

#[cfg(test)]
mod tests;
