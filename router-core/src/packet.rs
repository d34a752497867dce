//! One validating parse; afterwards accessors cannot fail.
//!
//! A frame's data starts at the IP header here: the link header is taken off at the door (see [`crate::headers`]).

use crate::addr::Family;
use crate::drop_reason::DropReason;
use std::net::IpAddr;

/// Where a packet stands among the fragments of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment (an atomic IPv6 fragment, RFC 6946, counts as none).
    None,
    /// The first fragment: transport header present.
    First,
    /// A later one: no transport header.
    Later,
}

/// What the parse of an IP packet found. Offsets count from the first byte of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Whole IP packet in bytes, as its header says (the frame is cut to it).
    pub len: u32,
    /// The longest packet that it becomes on a wire: `len`, or for a super-frame the headers and one segment.
    pub wire_len: u32,
    /// Where the transport header starts (behind IPv4 options or IPv6 extension headers).
    pub l4: u16,
    /// The upper-layer protocol there: 6, 17, 1, 58, 41 ...
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class byte.
    pub tclass: u8,
    /// IPv6 flow label; 0 for IPv4.
    pub flow: u32,
    /// Fragment or not.
    pub fragment: Fragment,
    /// IPv4: DF is set. IPv6: true (routers never fragment, RFC 8200 5).
    pub df: bool,
    /// It was sent to a link-layer group: never answer it with an ICMP error (RFC 1122 3.2.2, RFC 4443 2.4 e).
    pub link_group: bool,
    /// A hop-by-hop or IPv4 router alert option asks routers to look closer.
    pub router_alert: bool,
}

impl Packet {
    /// Parses the IP packet at the start of `data`, whose family a link header or the port has told; bytes behind the
    /// packet's own length (link padding) are ignored.
    pub fn parse(family: Family, data: &[u8]) -> Result<Packet, DropReason> {
        match family {
            Family::Inet => crate::headers::ipv4::parse(data),
            Family::Inet6 => crate::headers::ipv6::parse(data),
        }
    }

    /// The family that the version field of a bare packet tells, or the reason to drop it.
    pub fn sniff(data: &[u8]) -> Result<Family, DropReason> {
        match data.first().map(|b| b >> 4) {
            Some(4) => Ok(Family::Inet),
            Some(6) => Ok(Family::Inet6),
            Some(_) => Err(DropReason::Ipv4Version),
            None => Err(DropReason::FrameTooShort),
        }
    }

    /// The transport header and what follows it; empty for a packet cut short.
    pub fn transport<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(usize::from(self.l4)..self.len as usize).unwrap_or(&[])
    }
}
