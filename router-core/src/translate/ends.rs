//! The two ends of a packet, as far as translation looks at them: addresses, and ports or an ICMP query's identifier.

use super::Refusal;
use crate::drop_reason::DropReason;
use crate::headers::{be16, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What translation may change at the ends of a packet: addresses of one family and, with NAT64, ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port; an ICMP query's identifier; 0 for other protocols.
    pub sport: u16,
    /// Destination port; an ICMP query's identifier again; 0 for other protocols.
    pub dport: u16,
    /// TCP, UDP, or ICMP under its IPv4 number whatever the family; others as they are.
    pub proto: u8,
}

/// The ends of an IPv4 packet.
pub type Ends4 = Ends<Ipv4Addr>;
/// The ends of an IPv6 packet.
pub type Ends6 = Ends<Ipv6Addr>;

impl<A> Ends<A> {
    /// The ends of a packet in the other direction.
    pub fn reversed(self) -> Ends<A> {
        Ends { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto }
    }
}

/// What stands behind the IP header, as far as translation cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP or UDP with both ports.
    Ports(u16, u16),
    /// Echo request or reply with its identifier.
    Query(u16),
    /// An ICMP error: translated with the packet that it quotes.
    Error,
    /// Nothing that translation looks into.
    Opaque,
}

/// Classifies what follows an IP header. `proto` is the number in that header, `l4` the bytes behind it, `v6` the family.
pub(super) fn classify(v6: bool, proto: u8, l4: &[u8]) -> Result<Payload, Refusal> {
    let no_type = Refusal::Drop(DropReason::TranslateIcmp);
    match proto {
        protocol::TCP | protocol::UDP => match l4.len() {
            4.. => Ok(Payload::Ports(be16(l4, 0), be16(l4, 2))),
            _ => Err(Refusal::Drop(DropReason::TranslateMalformed)),
        },
        protocol::ICMP if !v6 => match l4.first() {
            _ if l4.len() < 8 => Err(Refusal::Drop(DropReason::TranslateMalformed)),
            Some(0 | 8) => Ok(Payload::Query(be16(l4, 4))),
            Some(3 | 11 | 12) => Ok(Payload::Error),
            _ => Err(no_type),
        },
        protocol::ICMPV6 if v6 => match l4.first() {
            _ if l4.len() < 8 => Err(Refusal::Drop(DropReason::TranslateMalformed)),
            Some(128 | 129) => Ok(Payload::Query(be16(l4, 4))),
            Some(1..=4) => Ok(Payload::Error),
            _ => Err(no_type),
        },
        // Numbers that mean an extension header, or the other family's ICMP, would change their meaning on the way.
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::FRAGMENT
        | protocol::NO_NEXT
        | protocol::DEST_OPTIONS
        | protocol::ICMP
        | protocol::ICMPV6 => Err(Refusal::Drop(DropReason::TranslateProtocol)),
        _ => Ok(Payload::Opaque),
    }
}

impl Payload {
    /// Ports as [`Ends`] has them.
    pub(super) fn ports(self) -> (u16, u16) {
        match self {
            Payload::Ports(s, d) => (s, d),
            Payload::Query(id) => (id, id),
            Payload::Error | Payload::Opaque => (0, 0),
        }
    }
}

/// The protocol number that both families' [`Ends`] share.
pub(super) fn common_proto(proto: u8) -> u8 {
    if proto == protocol::ICMPV6 { protocol::ICMP } else { proto }
}
