//! 6in6: IPv6 in IPv6, protocol 41 (RFC 2473).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::SixInSix,
    name: "6in6",
    words: &["ip6ip6", "ipv6/ipv6"],
    shown: "ipv6/ipv6",
    link: "ip6tnl",
    outer: Family::Inet6,
    carries: Carries::Six,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV6],
};
