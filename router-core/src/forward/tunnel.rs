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
use crate::headers::{ipv4, protocol};
use crate::object::Encap;
use crate::packet::Packet;
use std::net::IpAddr;

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
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.encap.local, self.encap.remote) else {
            return Err(DropReason::NextHopUnusable);
        };
        // The pipeline may have changed the hop limit after the parse: read it where it is.
        let (ttl_at, proto) = match packet.family {
            Family::Inet => (8, protocol::IPV4),
            Family::Inet6 => (7, protocol::IPV6),
        };
        let hop_limit = frame.data().get(ttl_at).copied().unwrap_or(packet.ttl);
        let total_len = u16::try_from(packet.len + OVERHEAD).map_err(|_| DropReason::TooBig)?;
        let room = frame.push_front(OVERHEAD as usize).ok_or(DropReason::NoHeadroom)?;
        ipv4::Header {
            tos: outer_tos(packet.tclass, self.encap.tos),
            total_len,
            ident: if self.encap.df { 0 } else { self.ident },
            df: self.encap.df,
            ttl: self.encap.ttl.unwrap_or(hop_limit),
            proto,
            src,
            dst,
        }
        .write(room);
        Ok(())
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
    fn rfc6040_4_1_and_fixed_tos() {
        assert_eq!(outer_tos(0xb9, None), 0xb9);
        assert_eq!(outer_tos(0xb9, Some(0x20)), 0x21);
    }
}
