//! What a raw socket leaves out of a received packet, put back: the IPv6 header, and offload metadata.

use crate::port::RecvError;
use crate::sys::mmsg::{self, Received};
use router_core::frame::{Frame, Gso, GsoKind, PartialChecksum};

/// Length of the IPv6 header.
pub(super) const IPV6_HEADER: usize = 40;

/// Puts the IPv6 header back in front of a received payload.
pub(super) fn rebuild_ipv6(frame: &mut Frame, came: &Received<'_>, proto: u8) -> Result<(), RecvError> {
    // sockaddr_in6: family 2, port 2, flow 4, address 16, scope 4.
    let src = &came.name[8..24];
    let (mut dst, mut hop_limit, mut tclass) = (None, 64u8, 0u8);
    for (level, kind, data) in mmsg::control_messages(came.control) {
        match (level, kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => dst = data.get(..16),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => hop_limit = int(data).unwrap_or(hop_limit),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => tclass = int(data).unwrap_or(tclass),
            _ => {}
        }
    }
    let (Some(dst), Ok(len)) = (dst, u16::try_from(came.len)) else { return Err(RecvError::Malformed) };
    let mut header = [0u8; IPV6_HEADER];
    header[0] = 0x60 | tclass >> 4;
    header[1] = tclass << 4;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    (header[6], header[7]) = (proto, hop_limit);
    header[8..24].copy_from_slice(src);
    header[24..40].copy_from_slice(dst);
    frame.set_len(IPV6_HEADER + came.len);
    frame.data_mut().get_mut(..IPV6_HEADER).ok_or(RecvError::Malformed)?.copy_from_slice(&header);
    Ok(())
}

fn int(data: &[u8]) -> Option<u8> {
    u8::try_from(i32::from_ne_bytes(data.get(..4)?.try_into().ok()?)).ok()
}

/// Restores the offload metadata that a raw socket cannot carry.
///
/// Where the sender's checksum is unfinished (its device would have computed it: veth, virtio) or the kernel merged
/// segments (GRO), the transport checksum field holds just the pseudo-header sum. That is what is looked for. A finished
/// checksum that has this value by chance is not harmed: finishing it gives the same value again.
///
/// A merged packet is longer than the device's MTU. Its segment size is lost; the largest that fits stands in for it.
pub(super) fn restore_offloads(frame: &mut Frame, mtu: u32) {
    let Some(inner) = Transport::find(frame.data()) else { return };
    let data = frame.data();
    let at = inner.start + usize::from(inner.field);
    if data.get(at..at + 2) != Some(&inner.pseudo.to_be_bytes()) {
        return;
    }
    let Ok(start) = u16::try_from(inner.start) else { return };
    let ecn = data.get(inner.start + 13).is_some_and(|flags| flags & 0x80 != 0);
    let header = data.get(inner.start + 12).map_or(0, |b| usize::from(b >> 4) * 4);
    let merged = data.len() > mtu as usize;
    frame.meta.csum = Some(PartialChecksum { start, offset: inner.field });
    if let (true, Some(kind)) = (merged, inner.tcp) {
        let size = (mtu as usize).saturating_sub(inner.start + header).clamp(1, usize::from(u16::MAX)) as u16;
        frame.meta.gso = Some(Gso { kind, size, ecn });
    }
}

/// TCP or UDP inside a tunnel packet.
struct Transport {
    /// Where it starts.
    start: usize,
    /// Offset of its checksum field.
    field: u16,
    /// The folded sum of its pseudo-header.
    pseudo: u16,
    /// Which kind of super-frame it would be, if it is TCP.
    tcp: Option<GsoKind>,
}

impl Transport {
    fn find(packet: &[u8]) -> Option<Self> {
        let (outer, proto) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, *packet.get(9)?),
            6 => (IPV6_HEADER, *packet.get(6)?),
            _ => return None,
        };
        let inner = packet.get(outer..)?;
        let word = |at: usize| Some(u16::from_be_bytes([*inner.get(at)?, *inner.get(at + 1)?]));
        let (header, proto, addresses, len, kind) = match (proto, inner.first()? >> 4) {
            // A fragment's checksum covers more than is here.
            (4, 4) if word(6)? & 0x3fff == 0 => {
                let header = usize::from(inner[0] & 15) * 4;
                (header, *inner.get(9)?, inner.get(12..20)?, word(2)?.checked_sub(header as u16)?, GsoKind::TcpV4)
            }
            (41, 6) => (IPV6_HEADER, *inner.get(6)?, inner.get(8..40)?, word(4)?, GsoKind::TcpV6),
            _ => return None,
        };
        let (field, tcp) = match proto {
            6 => (16, Some(kind)),
            17 => (6, None),
            _ => return None,
        };
        let words = addresses.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let mut sum = words.sum::<u32>() + u32::from(proto) + u32::from(len);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Some(Transport { start: outer + header, field, pseudo: sum as u16, tcp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn cmsg(kind: i32, data: &[u8]) -> Vec<u8> {
        let mut b = (16 + data.len()).to_ne_bytes().to_vec();
        b.extend(libc::IPPROTO_IPV6.to_ne_bytes());
        b.extend(kind.to_ne_bytes());
        b.extend(data);
        b.resize(b.len().next_multiple_of(8), 0);
        b
    }

    fn received<'a>(len: usize, name: &'a [u8; 28], control: &'a [u8]) -> Received<'a> {
        Received { len, prefix: &[0; mmsg::PREFIX], name, control, truncated: false }
    }

    #[test]
    fn an_ipv6_header_is_rebuilt() {
        let mut name = [0u8; 28];
        name[8..24].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let mut control = cmsg(libc::IPV6_PKTINFO, &{
            let mut info = "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets().to_vec();
            info.extend([0; 4]);
            info
        });
        control.extend(cmsg(libc::IPV6_HOPLIMIT, &61i32.to_ne_bytes()));
        control.extend(cmsg(libc::IPV6_TCLASS, &0xb8i32.to_ne_bytes()));
        let mut f = Frame::with_capacity(100);
        f.spare_mut()[40..43].copy_from_slice(b"abc");
        rebuild_ipv6(&mut f, &received(3, &name, &control), 4).unwrap();
        assert_eq!(f.data()[..8], [0x6b, 0x80, 0, 0, 0, 3, 4, 61]);
        assert_eq!(f.data()[8..24], name[8..24]);
        assert_eq!(f.data()[39], 2);
        assert_eq!(&f.data()[40..], b"abc");
        // Without a destination nothing can be rebuilt.
        assert_eq!(rebuild_ipv6(&mut f, &received(3, &name, &[]), 4), Err(RecvError::Malformed));
    }

    /// 6in4 with TCP, the checksum field set to the pseudo-header sum.
    fn unfinished(payload: usize) -> Vec<u8> {
        let tcp = 32 + payload;
        let mut p = vec![0u8; 20 + 40 + tcp];
        (p[0], p[9]) = (0x45, 41);
        (p[20], p[26]) = (0x60, 6);
        p[24..26].copy_from_slice(&(tcp as u16).to_be_bytes());
        p[28] = 0x20;
        p[60 + 12] = 0x80;
        let sum = 0x2000 + 6 + tcp as u32;
        p[76..78].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
        p
    }

    #[test]
    fn unfinished_checksums_and_merged_segments_are_recognised() {
        let csum = Some(PartialChecksum { start: 60, offset: 16 });
        let mut f = Frame::from_slice(&unfinished(5000));
        restore_offloads(&mut f, 1500);
        assert_eq!(f.meta.csum, csum);
        assert_eq!(f.meta.gso, Some(Gso { kind: GsoKind::TcpV6, size: 1500 - 60 - 32, ecn: false }));
        let mut f = Frame::from_slice(&unfinished(100));
        restore_offloads(&mut f, 1500);
        assert_eq!((f.meta.csum, f.meta.gso), (csum, None));
        // A jumbo packet with another checksum is just a jumbo packet.
        let mut p = unfinished(5000);
        p[76] ^= 1;
        let mut f = Frame::from_slice(&p);
        restore_offloads(&mut f, 1500);
        assert_eq!((f.meta.csum, f.meta.gso), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn anything_received_is_a_packet_or_an_error(
            mut data in proptest::collection::vec(any::<u8>(), 0..120), control in proptest::collection::vec(any::<u8>(), 0..64),
            name: [u8; 28], len in 0usize..200, proto: u8, mtu in 0u32..200, version in 0u8..16,
        ) {
            if let Some(b) = data.first_mut() {
                *b = version << 4 | *b & 15;
            }
            let mut f = Frame::from_slice(&data);
            restore_offloads(&mut f, mtu);
            let _ = rebuild_ipv6(&mut f, &received(len, &name, &control), proto);
            restore_offloads(&mut f, mtu);
        }
    }
}
