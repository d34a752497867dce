//! GRE over IPv6: either family, told by the GRE header (RFC 7676).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::GreSix,
    name: "gre6",
    words: &["ip6gre", "gre/ipv6"],
    shown: "gre/ipv6",
    link: "ip6gre",
    outer: Family::Inet6,
    carries: Carries::Both,
    between: Between::Gre,
    peer: Peer::Configured,
    hears: &[protocol::GRE],
};
