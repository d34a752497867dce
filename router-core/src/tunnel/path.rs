//! The ways by which a tunnel's packets travel between its two ends: bare, or in UDP to one port of the peer's. A tunnel
//! with `encap auto`, or whose peer's port is learned, may hear its peer by several and sends by one.

use crate::headers::{be16, protocol};
use crate::packet::Packet;
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// A way between the ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The mode's own protocol: 41, 4 or 47.
    Bare,
    /// UDP, to and from this port of the peer's.
    Udp(u16),
}

impl Path {
    /// By which an outer packet came.
    pub fn of(outer: &Packet, data: &[u8]) -> Path {
        match outer.proto {
            protocol::UDP => Path::Udp(be16(outer.transport(data), 0)),
            _ => Path::Bare,
        }
    }
}

/// Paths that are remembered as the peer's, at most.
pub const MOST: usize = 4;

/// What workers know of a tunnel's paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// By which is sent; None: not known yet.
    pub current: Option<Path>,
    /// By which the configured, or verified, peer is heard.
    pub heard: ArrayVec<Path, MOST>,
}

/// What becomes of a packet that came by some path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Taken.
    Used,
    /// Taken; questions and answers are the control side's, because they are about this path.
    Other,
    /// Nobody knows yet whether this is the peer: the control side asks it.
    Unknown,
}

impl Arrivals {
    /// Judges a path.
    pub fn judge(&self, path: Path) -> Arrival {
        match path {
            p if self.current == Some(p) => Arrival::Used,
            p if self.heard.contains(&p) => Arrival::Other,
            _ => Arrival::Unknown,
        }
    }
}

/// An ICMP echo message, by family of the packet that it stands in: whether it is a request, if it is one at all.
pub fn echo_request(packet: &Packet, data: &[u8]) -> Option<bool> {
    match (packet.proto, packet.transport(data).first()?) {
        (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Some(true),
        (protocol::ICMP, 0) | (protocol::ICMPV6, 129) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_verified_is_heard() {
        let mut a = Arrivals { current: Some(Path::Udp(7)), heard: ArrayVec::new() };
        a.heard.push(Path::Bare);
        for (path, want) in
            [(Path::Udp(7), Arrival::Used), (Path::Bare, Arrival::Other), (Path::Udp(8), Arrival::Unknown)]
        {
            assert_eq!(a.judge(path), want);
        }
        assert_eq!(Arrivals::default().judge(Path::Bare), Arrival::Unknown);
    }
}
