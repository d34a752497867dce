//! 6to4: 6rd with the prefix 2002::/16 and relays anywhere (RFC 3056). Its relays are deprecated (RFC 7526), and anybody may be
//! the other end: only for those who say so.

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::SixToFour,
    name: "6to4",
    words: &[],
    shown: "ipv6/ip",
    link: "sit",
    outer: Family::Inet,
    carries: Carries::Six,
    between: Between::Nothing,
    peer: Peer::Derived,
    hears: &[protocol::IPV6],
};
