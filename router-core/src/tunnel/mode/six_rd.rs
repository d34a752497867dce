//! 6rd: IPv6 in IPv4 whose peer is found in the inner address (RFC 5969), as border relay and as customer edge.

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::SixRd,
    name: "6rd",
    words: &[],
    shown: "ipv6/ip",
    link: "sit",
    outer: Family::Inet,
    carries: Carries::Six,
    between: Between::Nothing,
    peer: Peer::Derived,
    hears: &[protocol::IPV6],
};
