//! any-in-6: IPv4 and IPv6 in IPv6, protocols 4 and 41 (RFC 2473).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::AnyInSix,
    name: "any-in-6",
    words: &["ip6tnl", "any/ipv6"],
    shown: "any/ipv6",
    link: "ip6tnl",
    outer: Family::Inet6,
    carries: Carries::Both,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV6, protocol::IPV4],
};
