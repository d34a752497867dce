//! 4in6: IPv4 in IPv6, protocol 4 (RFC 2473, RFC 6333).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::FourInSix,
    name: "4in6",
    words: &["ipip6", "ip4ip6", "ip/ipv6", "ipv4/ipv6"],
    shown: "ip/ipv6",
    link: "ip6tnl",
    outer: Family::Inet6,
    carries: Carries::Four,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV4],
};
