//! 6in4: IPv6 in IPv4, protocol 41 (RFC 4213 3).
//!
//! An IPv4 route may have an IPv6 next hop that lies behind such a tunnel. Protocol 41 cannot say "IPv4 inside", so these
//! packets travel between the same two ends as protocol 4 (RFC 2003); that is why the mode carries both families.

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::SixInFour,
    name: "6in4",
    words: &["sit", "ipv6/ip", "ip6ip"],
    shown: "ipv6/ip",
    link: "sit",
    outer: Family::Inet,
    carries: Carries::Both,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV6],
};
