//! 4in4: IPv4 in IPv4, protocol 4 (RFC 2003).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::FourInFour,
    name: "4in4",
    words: &["ipip", "ip/ip", "ipv4/ipv4"],
    shown: "ip/ip",
    link: "ipip",
    outer: Family::Inet,
    carries: Carries::Four,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV4],
};
