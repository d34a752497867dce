//! The same payloads in UDP, for paths that let nothing else through: FOU and GUE in the formats of Linux
//! (draft-herbert-gue-fou, draft-ietf-intarea-gue variants 0 and 1).

use super::spec::{UdpKind, UdpOptions};
use crate::addr::Family;
use crate::checksum::{self, Sum};
use crate::drop_reason::DropReason;
use crate::headers::protocol;

/// Bytes of a UDP header.
pub const HEADER: usize = 8;

/// The range of source ports that stand for flows: the dynamic ones (RFC 6335 6), as RFC 8085 5.1.1 has it.
const FIRST_PORT: u16 = 0xc000;

/// Writes UDP header and, for GUE, what follows it. `to` starts with the room for them and ends with the packet. The
/// checksum is left out: see [`fill_checksum`].
pub fn write(to: &mut [u8], options: &UdpOptions, carried: u8, flow: u32) -> Option<()> {
    let len = u16::try_from(to.len()).ok()?;
    let sport = if options.sport != 0 { options.sport } else { FIRST_PORT | (flow as u16 & 0x3fff) };
    let h = to.first_chunk_mut::<HEADER>()?;
    h[..2].copy_from_slice(&sport.to_be_bytes());
    h[2..4].copy_from_slice(&options.dport.to_be_bytes());
    h[4..6].copy_from_slice(&len.to_be_bytes());
    h[6..].fill(0);
    if options.kind == UdpKind::Gue {
        // Variant 0, no options, data; no flags.
        to.get_mut(HEADER..HEADER + 4)?.copy_from_slice(&[0, carried, 0, 0]);
    }
    Some(())
}

/// Completes the checksum of the UDP header at `at` of an outer packet.
pub fn fill_checksum(packet: &mut [u8], at: usize, outer: Family) {
    let addrs = match outer {
        Family::Inet => 12..20,
        Family::Inet6 => 8..40,
    };
    let (Some(addrs), Some(udp)) = (packet.get(addrs), packet.get(at..)) else { return };
    let sum = Sum::of(addrs).word(u16::from(protocol::UDP)).long(udp.len() as u32).bytes(udp).finish_udp();
    if let Some(field) = packet.get_mut(at + 6..at + 8) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Finds what a datagram carries: `data` starts with its UDP header. The outer protocol number that stands for what
/// follows (4, 41, 47), and where it begins. `fou` is what a FOU port carries by agreement.
pub fn read(data: &[u8], kind: UdpKind, fou: impl Fn(&[u8]) -> Option<u8>) -> Result<(u8, usize), DropReason> {
    let body = data.get(HEADER..).unwrap_or_default();
    match (kind, body.first().map(|b| b >> 6)) {
        (_, None) => Err(DropReason::TunnelHeader),
        (UdpKind::Fou, _) => fou(body).map(|p| (p, HEADER)).ok_or(DropReason::TunnelInnerMalformed),
        (UdpKind::Gue, Some(0)) => {
            let h = body.first_chunk::<4>().ok_or(DropReason::TunnelHeader)?;
            let end = HEADER + 4 + usize::from(h[0] & 0x1f) * 4;
            // A control message, or an option that is not known here: all of them change what follows (security, checksum
            // offload, fragments).
            if h[0] & 0x20 != 0 || h[2..] != [0, 0] || end > data.len() {
                return Err(DropReason::TunnelHeader);
            }
            Ok((h[1], end))
        }
        // Variant 1: the IP packet follows at once.
        (UdpKind::Gue, Some(1)) => match body[0] >> 4 {
            4 => Ok((protocol::IPV4, HEADER)),
            6 => Ok((protocol::IPV6, HEADER)),
            _ => Err(DropReason::TunnelHeader),
        },
        (UdpKind::Gue, _) => Err(DropReason::TunnelHeader),
    }
}

/// Whether a datagram has no checksum; true for what is no datagram.
pub fn has_no_checksum(data: &[u8]) -> bool {
    data.get(6..8).is_none_or(|c| c == [0, 0])
}

/// Whether a checksum that is there is right.
pub fn checksum_ok(pseudo: Option<Sum>, data: &[u8]) -> bool {
    has_no_checksum(data) || pseudo.is_some_and(|sum| checksum::verify_with(sum, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: UdpKind, sport: u16) -> UdpOptions {
        UdpOptions { sport, ..UdpOptions::new(kind, 5555) }
    }

    #[test]
    fn headers_are_those_of_linux() {
        // include/uapi/linux/gue.h: hlen, control, version; protocol; flags.
        let mut v = vec![0xaa; 12];
        v.extend([0x60; 40]);
        write(&mut v, &options(UdpKind::Gue, 0), 41, 0x1234_5678).unwrap();
        assert_eq!(v[..12], [0xd6, 0x78, 0x15, 0xb3, 0, 52, 0, 0, 0, 41, 0, 0]);
        let mut v = vec![0xaa; 8];
        v.extend([0x45; 20]);
        write(&mut v, &options(UdpKind::Fou, 777), 4, 1).unwrap();
        assert_eq!(v[..8], [3, 9, 0x15, 0xb3, 0, 28, 0, 0]);
    }

    #[test]
    fn what_is_inside() {
        use DropReason::*;
        use UdpKind::{Fou, Gue};
        let udp = [0u8; 8];
        type Row<'a> = (UdpKind, &'a [u8], Result<(u8, usize), DropReason>);
        let rows: &[Row<'_>] = &[
            (Gue, &[0, 41, 0, 0, 0x60], Ok((41, 12))),
            (Gue, &[1, 47, 0, 0, 9, 9, 9, 9, 0], Ok((47, 16))),
            (Gue, &[0x45, 0, 0], Ok((4, 8))),
            (Gue, &[0x60, 0, 0], Ok((41, 8))),
            (Gue, &[0x20, 0, 0, 0], Err(TunnelHeader)),
            (Gue, &[0, 41, 0, 1], Err(TunnelHeader)),
            (Gue, &[3, 41, 0, 0], Err(TunnelHeader)),
            (Gue, &[0x80, 41, 0, 0], Err(TunnelHeader)),
            (Gue, &[0x50, 41, 0, 0], Err(TunnelHeader)),
            (Gue, &[0, 41], Err(TunnelHeader)),
            (Gue, &[], Err(TunnelHeader)),
            (Fou, &[0x60], Ok((41, 8))),
            (Fou, &[0x70], Err(TunnelInnerMalformed)),
            (Fou, &[], Err(TunnelHeader)),
        ];
        for (kind, body, want) in rows {
            let data = [&udp[..], body].concat();
            let fou = |b: &[u8]| (b[0] >> 4 == 6).then_some(41);
            assert_eq!(read(&data, *kind, fou), *want, "{kind:?} {body:02x?}");
        }
    }
}
