//! GRE over IPv4: either family, told by the GRE header (RFC 2784, RFC 2890).

use super::{Between, Carries, Peer, Shape};
use crate::addr::Family;
use crate::headers::protocol;
use crate::tunnel::spec::TunnelMode;

/// The mode.
pub static SHAPE: Shape = Shape {
    mode: TunnelMode::Gre,
    name: "gre",
    words: &["gre/ip"],
    shown: "gre/ip",
    link: "gre",
    outer: Family::Inet,
    carries: Carries::Both,
    between: Between::Gre,
    peer: Peer::Configured,
    hears: &[protocol::GRE],
};
