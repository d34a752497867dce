//! 6in4: IPv6 packets inside IPv4 packets of protocol 41 (RFC 4213 3), both directions.
//!
//! Going in: the outer header is made from the tunnel's parameters, the outer packet goes on with the carrier (the object
//! of the underlay's route to the remote end). Coming out: only the configured peer is heard (RFC 4213 3.6), the ECN marks
//! of both headers are combined (RFC 6040), and the inner packet goes round again as received from the tunnel.
//!
//! An IPv4 route may have an IPv6 next hop that lies behind such a tunnel. Protocol 41 cannot say "IPv4 inside", so these
//! packets travel between the same two ends as protocol 4 (RFC 2003), as with a Linux tunnel of `mode any`.

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::Encap;
use crate::packet::Packet;
use crate::routing::EncapFacts;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes that 6in4 adds.
pub const OVERHEAD: u32 = 20;

/// The least MTU that an IPv6 link must offer (RFC 8200 5).
pub const IPV6_MIN_MTU: u32 = 1280;

/// TTL of outer packets unless configured (RFC 4213 3.3 says a fixed value; RFC 1700's 64).
pub const DEFAULT_TTL: u8 = 64;

/// Encapsulation into a tunnel.
#[derive(Debug)]
pub struct SixInFour<'a> {
    /// The tunnel.
    pub encap: &'a Encap,
    /// Identification of the outer packet; matters only when DF is clear (RFC 6864 4).
    pub ident: u16,
}

impl Forwarder for SixInFour<'_> {
    fn name(&self) -> &str {
        "6in4"
    }

    #[inline]
    fn decide(&self, _cx: &Context<'_>, packet: &Packet, _bytes: &[u8]) -> Verdict {
        if packet.wire_len > self.encap.mtu {
            Verdict::TooBig { mtu: self.encap.mtu }
        } else {
            Verdict::Continue(self.encap.carrier)
        }
    }

    #[inline]
    fn apply(&self, _cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        let Some(outer) = &self.encap.outer else { return Err(DropReason::NextHopUnusable) };
        // The pipeline may have changed the hop limit after the parse: read it where it is.
        let inner = Inner::of(packet.family, frame.data()).ok_or(DropReason::TunnelInnerMalformed)?;
        let total_len = u16::try_from(packet.len + OVERHEAD).map_err(|_| DropReason::TooBig)?;
        let room = frame.push_front(OVERHEAD as usize).ok_or(DropReason::NoHeadroom)?;
        if let Some(room) = room.first_chunk_mut() {
            outer.write(room, &inner, total_len, self.ident);
        }
        Ok(())
    }
}

/// What an outer header takes from the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    tclass: u8,
    hop_limit: u8,
    proto: u8,
}

impl Inner {
    /// Of the packet at the start of `packet`, as it is to be inside. None without a whole header.
    #[inline]
    pub fn of(family: Family, packet: &[u8]) -> Option<Inner> {
        let h = packet.first_chunk::<20>()?;
        Some(match family {
            Family::Inet => Inner { tclass: h[1], hop_limit: h[8], proto: protocol::IPV4 },
            Family::Inet6 => Inner { tclass: (h[0] << 4) | (h[1] >> 4), hop_limit: h[7], proto: protocol::IPV6 },
        })
    }
}

/// An outer IPv4 header, ready made but for what differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterV4 {
    /// Both addresses as they stand in the header.
    ends: u64,
    /// Sum of the 16-bit words that never differ.
    sum: u32,
    ttl: Option<u8>,
    tos: Option<u8>,
    df: bool,
}

impl OuterV4 {
    /// From a tunnel's parameters. None unless both ends are IPv4.
    pub fn new(facts: &EncapFacts) -> Option<Self> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (facts.local, facts.remote) else { return None };
        let halves = |a: Ipv4Addr| (a.to_bits() >> 16) + (a.to_bits() & 0xffff);
        let flags = if facts.df { 0x4000 } else { 0 };
        Some(OuterV4 {
            ends: u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()),
            sum: 0x4500 + flags + halves(src) + halves(dst),
            ttl: facts.ttl,
            tos: facts.tos,
            df: facts.df,
        })
    }

    /// Writes the header. `total_len` is the outer packet's, `ident` counts only when the packet may be fragmented
    /// (RFC 6864 4).
    #[inline]
    pub fn write(&self, to: &mut [u8; OVERHEAD as usize], inner: &Inner, total_len: u16, ident: u16) {
        let tos = u32::from(outer_tos(inner.tclass, self.tos));
        let (ident, flags) = if self.df { (0, 0x4000) } else { (u32::from(ident), 0) };
        let ttl_proto = u32::from(self.ttl.unwrap_or(inner.hop_limit)) << 8 | u32::from(inner.proto);
        let sum = self.sum + tos + u32::from(total_len) + ident + ttl_proto;
        let sum = (sum & 0xffff) + (sum >> 16);
        let check = !(sum + (sum >> 16)) as u16;
        let first = (0x4500 | tos) << 16 | u32::from(total_len);
        to[..4].copy_from_slice(&first.to_be_bytes());
        to[4..8].copy_from_slice(&(ident << 16 | flags).to_be_bytes());
        to[8..12].copy_from_slice(&(ttl_proto << 16 | u32::from(check)).to_be_bytes());
        to[12..].copy_from_slice(&self.ends.to_be_bytes());
    }
}

/// The outer traffic class byte: DSCP copied or as configured; the ECN field always from the inner one (RFC 6040 4.1,
/// normal mode), so that congestion marks survive the tunnel.
#[inline]
pub fn outer_tos(inner: u8, configured: Option<u8>) -> u8 {
    match configured {
        Some(tos) => (tos & 0xfc) | (inner & 0x03),
        None => inner,
    }
}

/// The inner ECN field after decapsulation (RFC 6040 4.2, figure 4).
#[inline]
pub fn inner_ecn(inner: u8, outer: u8) -> Result<u8, DropReason> {
    const NOT_ECT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => Err(DropReason::TunnelEcn),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (CE, _) | (_, CE) => Ok(CE),
        (ECT0, ECT1) => Ok(ECT1),
        (i, _) => Ok(i),
    }
}

/// Takes the outer header off a protocol 41 or 4 packet whose peer has been checked and combines the ECN marks. The frame
/// then starts at the inner IP header. On an error the frame is unchanged.
pub fn decapsulate(outer: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
    let inner = outer.transport(frame.data());
    let (family, least) = if outer.proto == protocol::IPV4 { (Family::Inet, 20) } else { (Family::Inet6, 40) };
    if inner.len() < least || Packet::sniff(inner) != Ok(family) {
        return Err(DropReason::TunnelInnerMalformed);
    }
    let word = [inner[0], inner[1]];
    let tclass = if family == Family::Inet { word[1] } else { (word[0] << 4) | (word[1] >> 4) };
    let ecn = inner_ecn(tclass, outer.tclass)?;
    frame.pull_front(usize::from(outer.l4));
    let d = frame.data_mut();
    match family {
        Family::Inet6 => d[1] = (d[1] & 0xcf) | (ecn << 4),
        Family::Inet => {
            d[1] = (d[1] & 0xfc) | ecn;
            let old = u16::from_be_bytes([d[10], d[11]]);
            let sum = checksum::update_u16(old, u16::from_be_bytes(word), u16::from_be_bytes([d[0], d[1]]));
            d[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves rfc6040-4.2-table, rfc6040-4.2-drop.
    #[test]
    fn rfc6040_4_2_figure_4() {
        const DROP: u8 = 9;
        // rows: inner Not-ECT, ECT(1), ECT(0), CE; columns: outer in the same order of code points
        let table = [[0, 0, 0, DROP], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for (inner, row) in table.iter().enumerate() {
            for (outer, want) in row.iter().enumerate() {
                assert_eq!(inner_ecn(inner as u8, outer as u8).unwrap_or(DROP), *want, "inner {inner} outer {outer}");
            }
        }
    }

    /// Proves rfc2983-3-uniform, rfc2983-3-pipe, rfc4213-3.5-header, rfc6040-4.1-normal.
    #[test]
    fn the_ready_made_header_is_the_one_made_from_its_fields() {
        use crate::headers::ipv4;
        use crate::port::TableId;
        use crate::spec::TunnelMode;
        for i in 0..=u16::MAX {
            let (src, dst) =
                (u32::from(i).wrapping_mul(0x9e37_79b9).into(), u32::from(i).wrapping_mul(0x85eb_ca6b).into());
            let (df, hop_limit, tclass) = (i & 1 == 1, (i >> 8) as u8, (i >> 3) as u8);
            let ttl = (i & 2 == 0).then_some((i >> 4) as u8);
            let tos = (i & 4 == 0).then_some((i >> 5) as u8);
            let mode = TunnelMode::SixInFour;
            let (local, remote) = (IpAddr::V4(src), IpAddr::V4(dst));
            let facts = EncapFacts { mode, local, remote, ttl, tos, df, mtu: 0, table: TableId::MAIN, dev: None };
            let (mut one, mut other) = ([0xaa; 20], [0x55; 20]);
            let inner = Inner { tclass, hop_limit, proto: protocol::IPV6 };
            OuterV4::new(&facts).unwrap().write(&mut one, &inner, i.rotate_left(5), !i);
            ipv4::Header {
                tos: outer_tos(tclass, tos),
                total_len: i.rotate_left(5),
                ident: if df { 0 } else { !i },
                df,
                ttl: ttl.unwrap_or(hop_limit),
                proto: protocol::IPV6,
                src,
                dst,
            }
            .write(&mut other);
            assert_eq!(one, other, "{facts:?}");
            assert!(checksum::verify(&one));
        }
    }

    #[test]
    fn rfc6040_4_1_and_fixed_tos() {
        assert_eq!(outer_tos(0xb9, None), 0xb9);
        assert_eq!(outer_tos(0xb9, Some(0x20)), 0x21);
    }
}
