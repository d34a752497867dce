//! The packet that an error is about, and whether it may be answered at all.

use super::IcmpError;
use crate::addr::Family;
use crate::headers::protocol;
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv4Addr};

/// A packet that an ICMP error is about: its bytes as they came, from the IP header on.
#[derive(Clone, Copy, Debug)]
pub struct Offender<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) family: Family,
    /// Its source, to which the error goes.
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: u8,
    l4: usize,
    later_fragment: bool,
    pub(super) link_group: bool,
}

impl<'a> Offender<'a> {
    /// A packet that the parse accepted.
    pub fn of(packet: &Packet, bytes: &'a [u8]) -> Self {
        let bytes = bytes.get(..packet.len as usize).unwrap_or(bytes);
        // Past headers that end the parse of a router on the way, too: an error may lie behind them.
        let hidden = match (packet.family, packet.proto) {
            (Family::Inet6, protocol::NO_NEXT | protocol::HOP_BY_HOP) => {
                Some(Chain::of(bytes)).filter(|chain| chain.proto == protocol::ICMPV6)
            }
            _ => None,
        };
        let (proto, l4, later_fragment) = match hidden {
            Some(chain) => (chain.proto, chain.l4, chain.later_fragment),
            None => (packet.proto, usize::from(packet.l4), packet.fragment == Fragment::Later),
        };
        let Packet { family, src, dst, link_group, .. } = *packet;
        Offender { bytes, family, src, dst, proto, l4, later_fragment, link_group }
    }

    /// A packet that the parse refused, read as far as an answer needs. None when not even its fixed header is there.
    /// `link_group` says whether it came to a link-layer group.
    pub fn refused(bytes: &'a [u8], link_group: bool) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let h = bytes.get(..20)?;
                let bytes = without_link_padding(bytes, usize::from(u16::from_be_bytes([h[2], h[3]])));
                let v4 = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
                let later = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
                Some(Offender {
                    bytes,
                    family: Family::Inet,
                    src: v4(12),
                    dst: v4(16),
                    proto: h[9],
                    l4: usize::from(h[0] & 15) * 4,
                    later_fragment: later,
                    link_group,
                })
            }
            6 => {
                let h = bytes.get(..40)?;
                let bytes = without_link_padding(bytes, 40 + usize::from(u16::from_be_bytes([h[4], h[5]])));
                let v6 = |at: usize| {
                    let mut o = [0; 16];
                    o.copy_from_slice(&h[at..at + 16]);
                    IpAddr::V6(o.into())
                };
                let chain = Chain::of(bytes);
                let Chain { proto, l4, later_fragment, .. } = chain;
                let (src, dst) = (v6(8), v6(24));
                Some(Offender { bytes, family: Family::Inet6, src, dst, proto, l4, later_fragment, link_group })
            }
            _ => None,
        }
    }

    /// The source: where an answer goes.
    pub fn src(&self) -> IpAddr {
        self.src
    }

    /// The destination.
    pub fn dst(&self) -> IpAddr {
        self.dst
    }

    /// Where the IPv6 field lies that names the upper-layer protocol.
    pub(super) fn next_header_pointer(&self) -> u32 {
        Chain::of(self.bytes).named_at as u32
    }

    /// The rules on when never to send an error: RFC 1122 3.2.2 and RFC 1812 4.3.2.7, RFC 4443 2.4 e.
    pub fn may_be_answered_with(&self, error: &IcmpError) -> bool {
        self.unanswerable_with(error).is_none()
    }

    /// Which of those rules forbids this error, if one does.
    pub fn unanswerable_with(&self, error: &IcmpError) -> Option<&'static str> {
        let group = |group: bool| (self.link_group || group) && !error.answers_multicast();
        match self.dst {
            _ if error.family() != self.family => Some("the error is of the other family"),
            _ if self.is_error() => Some("it is an ICMP error itself (RFC 1122 3.2.2, RFC 4443 2.4 e)"),
            _ if !single_host(self.src) => {
                Some("its source is not one host's address (RFC 1122 3.2.2, RFC 4443 2.4 e)")
            }
            dst if nobody(dst) => Some("its destination is nobody's address (RFC 1122 3.2.1.3, RFC 4291 2.5)"),
            IpAddr::V4(_) if self.later_fragment => Some("it is not the first fragment (RFC 1122 3.2.2)"),
            IpAddr::V4(d) if self.link_group || d.is_multicast() || d == Ipv4Addr::BROADCAST => {
                Some("it was sent to a group (RFC 1122 3.2.2)")
            }
            IpAddr::V6(d) if group(d.is_multicast()) => Some("it was sent to a group (RFC 4443 2.4 e)"),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// Whether it is an ICMP error or redirect itself. One cut before its type counts as an error, as does an ICMPv4 type
    /// that is not known to be a query.
    fn is_error(&self) -> bool {
        match (self.family, self.proto) {
            (Family::Inet, protocol::ICMP) => {
                // Echo, router discovery, timestamp, information, address mask, extended echo (RFC 792, 950, 1256, 8335).
                !self.later_fragment
                    && !matches!(self.bytes.get(self.l4), Some(0 | 8 | 9 | 10 | 13 | 14 | 15 | 16 | 17 | 18 | 42 | 43))
            }
            // RFC 4443 2.1: errors are below 128; 137 is redirect (2.4 e.2).
            (Family::Inet6, protocol::ICMPV6) => {
                !self.later_fragment && self.bytes.get(self.l4).is_none_or(|t| *t < 128 || *t == 137)
            }
            _ => false,
        }
    }
}

/// The packet without what its link put behind it: that is nobody's to quote.
fn without_link_padding(bytes: &[u8], total: usize) -> &[u8] {
    bytes.get(..total).filter(|packet| packet.len() >= 20).unwrap_or(bytes)
}

/// Whether an address identifies one host: RFC 1122 3.2.2, RFC 4443 2.4 e.6. Class E and `0.0.0.0/8` never do.
fn single_host(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && a.to_ipv4_mapped().is_none(),
    }
}

/// Whether an address can be no node's on a wire, so that a packet to it is not worth an answer.
fn nobody(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback(),
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.to_ipv4_mapped().is_some(),
    }
}

/// An IPv6 header chain, walked as far as it is whole.
struct Chain {
    proto: u8,
    /// Where `proto` is written.
    named_at: usize,
    l4: usize,
    later_fragment: bool,
}

impl Chain {
    /// `bytes` should hold a fixed header; anything goes.
    fn of(bytes: &[u8]) -> Chain {
        let mut c = Chain { proto: bytes.get(6).copied().unwrap_or(59), named_at: 6, l4: 40, later_fragment: false };
        // More headers than this are nobody's honest packet (RFC 8504 5.3).
        for _ in 0..16 {
            let Some(len) = bytes.get(c.l4 + 1).map(|l| usize::from(*l)) else { break };
            let size = match c.proto {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DEST_OPTIONS => (len + 1) * 8,
                protocol::MOBILITY | protocol::HIP | protocol::SHIM6 => (len + 1) * 8,
                protocol::AH => (len + 2) * 4,
                protocol::FRAGMENT => 8,
                _ => break,
            };
            let Some(header) = bytes.get(c.l4..c.l4 + size) else {
                // Cut, but it says what would come.
                if bytes.get(c.l4) == Some(&protocol::ICMPV6) {
                    (c.proto, c.named_at, c.l4) = (protocol::ICMPV6, c.l4, c.l4 + size);
                }
                break;
            };
            let offset =
                if c.proto == protocol::FRAGMENT { u16::from_be_bytes([header[2], header[3]]) & !7 } else { 0 };
            (c.proto, c.named_at, c.l4) = (header[0], c.l4, c.l4 + size);
            if offset != 0 {
                c.later_fragment = true;
                break;
            }
        }
        c
    }
}
