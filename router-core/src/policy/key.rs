//! What of a packet rules look at.

use crate::addr::Family;
use crate::headers::protocol;
use crate::packet::{Fragment, Packet};
use crate::port::{PortId, TableId};
use std::net::IpAddr;

/// See the module. Addresses are numbers: of IPv4 in the lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which list of rules is asked.
    pub family: Family,
    /// Source.
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// Through which port or tunnel it came; [`PortId::NONE`] for the router's own.
    pub iif: PortId,
    /// The table of that port.
    pub table: TableId,
    /// Its mark.
    pub mark: u32,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Upper-layer protocol.
    pub proto: u8,
    /// Source and destination port, of a whole packet of a protocol that has them there.
    pub ports: Option<(u16, u16)>,
}

/// An address as a number.
#[inline]
pub(super) fn bits(addr: &IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl Key {
    /// The key of a parsed packet whose bytes are `data`.
    pub fn of(packet: &Packet, data: &[u8], iif: PortId, table: TableId, mark: u32) -> Key {
        Key {
            family: packet.family,
            src: bits(&packet.src),
            dst: bits(&packet.dst),
            iif,
            table,
            mark,
            dscp: packet.tclass >> 2,
            proto: packet.proto,
            ports: match packet.fragment {
                Fragment::None => ports(packet.proto, packet.transport(data)),
                Fragment::First | Fragment::Later => None,
            },
        }
    }

    /// The key of a plain IPv4 packet without options, from its bytes. None for one cut short.
    #[inline]
    pub(crate) fn of_plain_v4(data: &[u8], iif: PortId, table: TableId, mark: u32) -> Option<Key> {
        let h = data.first_chunk::<20>()?;
        let whole = [h[6] & 0x3f, h[7]] == [0, 0];
        Some(Key {
            family: Family::Inet,
            src: u128::from(u32::from_be_bytes([h[12], h[13], h[14], h[15]])),
            dst: u128::from(u32::from_be_bytes([h[16], h[17], h[18], h[19]])),
            iif,
            table,
            mark,
            dscp: h[1] >> 2,
            proto: h[9],
            ports: if whole { ports(h[9], &data[20..]) } else { None },
        })
    }

    /// The key of an IPv6 packet from its fixed header: good for rules that do not look beyond it.
    #[inline]
    pub(crate) fn of_header_v6(data: &[u8], iif: PortId, table: TableId, mark: u32) -> Option<Key> {
        let h = data.first_chunk::<40>()?;
        let addr = |at: usize| h[at..].first_chunk::<16>().map(|b| u128::from_be_bytes(*b));
        Some(Key {
            family: Family::Inet6,
            src: addr(8)?,
            dst: addr(24)?,
            iif,
            table,
            mark,
            dscp: (h[0] & 0x0f) << 2 | h[1] >> 6,
            proto: h[6],
            ports: None,
        })
    }

    /// With the ports of the upper-layer header at the start of `transport`.
    #[inline]
    pub(crate) fn with_ports(self, transport: &[u8]) -> Key {
        Key { ports: ports(self.proto, transport), ..self }
    }

    /// The source as an address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        address(self.family, self.src)
    }

    /// The destination as an address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        address(self.family, self.dst)
    }
}

#[inline]
fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::Inet => IpAddr::V4((bits as u32).into()),
        Family::Inet6 => IpAddr::V6(bits.into()),
    }
}

#[inline]
fn ports(proto: u8, transport: &[u8]) -> Option<(u16, u16)> {
    let has = matches!(proto, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP);
    let p = transport.first_chunk::<4>().filter(|_| has)?;
    Some((u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]])))
}
