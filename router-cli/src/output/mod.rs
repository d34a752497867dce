//! iproute2's output, text and JSON, byte for byte. What only duet knows appears with `-d` alone.

mod addr;
mod advert;
mod explain;
mod filter;
mod link;
mod neigh;
mod nexthop;
mod out;
mod remedy;
mod route;
mod rule;
mod stats;
mod translate;
mod tree;
mod tunnel;
mod wireguard;

pub use addr::addrs;
pub use explain::explain;
pub use filter::filters;
pub use link::links;
pub use neigh::neighs;
pub use nexthop::{buckets, nexthops};
pub use out::{Out, OutState, Paint};
pub use remedy::remedy;
pub use route::{NextHops, get, route, route_line};
pub use rule::{rules, vrfs};
pub use stats::{DropRow, Sample, drops, rates, samples, stats};
pub use translate::translators;
pub use tree::Node;
pub use tunnel::tunnels;

#[cfg(test)]
mod tests;
