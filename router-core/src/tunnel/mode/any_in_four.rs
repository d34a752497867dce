//! any-in-4: IPv4 and IPv6 in IPv4, protocols 4 and 41, as a Linux sit tunnel of mode any.

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::AnyInFour,
    name: "any-in-4",
    words: &["any/ip"],
    shown: "any/ip",
    link: "sit",
    outer: Family::Inet,
    carries: Carries::Both,
    between: Between::Nothing,
    peer: Peer::Configured,
    hears: &[protocol::IPV6, protocol::IPV4],
};
