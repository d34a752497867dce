//! `struct virtio_net_hdr` (VIRTIO 1.2, 5.1.6) to and from frame metadata. Pure functions, shared by TUN and AF_PACKET.
//!
//! The kernel speaks its own byte order on both. Offsets in the header count from the first byte that follows it: the
//! link header on AF_PACKET, the IP header on TUN; so do ours.

use router_core::frame::{Frame, Gso, GsoKind, PartialChecksum};
use router_core::port::Medium;

/// Length of the header (without `num_buffers`).
pub const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Offset of the checksum field in a TCP header.
const TCP_CHECKSUM: u16 = 16;
/// Offset of the checksum field in a UDP header.
const UDP_CHECKSUM: u16 = 6;

/// What a header says does not fit the frame, or cannot be expressed in [`router_core::frame::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offload metadata does not fit the frame")]
pub struct Malformed;

/// Reads the header that came with `frame` into its metadata.
///
/// A super-frame always gets its checksum marked as pending: where the kernel says nothing (it already verified the
/// segments' checksums), the field is set to the pseudo-header sum, as segmentation needs it.
pub fn to_meta(header: &[u8; LEN], frame: &mut Frame, medium: Medium) -> Result<(), Malformed> {
    let word = |i: usize| u16::from_ne_bytes([header[i], header[i + 1]]);
    let (flags, gso_type, gso_size) = (header[0], header[1], word(4));
    if flags & F_NEEDS_CSUM != 0 {
        let csum = PartialChecksum { start: word(6), offset: word(8) };
        if usize::from(csum.start) + usize::from(csum.offset) + 2 > frame.len() {
            return Err(Malformed);
        }
        frame.meta.csum = Some(csum);
    }
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE => return Ok(()),
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        GSO_UDP_L4 => GsoKind::UdpL4,
        _ => return Err(Malformed),
    };
    if gso_size == 0 {
        return Err(Malformed);
    }
    frame.meta.gso = Some(Gso { kind, size: gso_size, ecn: gso_type & GSO_ECN != 0 });
    let field = if kind == GsoKind::UdpL4 { UDP_CHECKSUM } else { TCP_CHECKSUM };
    match frame.meta.csum {
        // The kernel refuses super-frames whose checksum field is not the transport's; so do we.
        Some(c) if c.offset != field => Err(Malformed),
        Some(_) => Ok(()),
        None => prime_checksum(frame, medium, field),
    }
}

/// Writes the header for `frame`'s metadata.
pub fn from_meta(frame: &Frame) -> [u8; LEN] {
    let mut h = [0u8; LEN];
    let mut put = |i: usize, v: u16| h[i..i + 2].copy_from_slice(&v.to_ne_bytes());
    let (mut flags, mut gso_type) = (0, GSO_NONE);
    if let Some(c) = frame.meta.csum {
        flags = F_NEEDS_CSUM;
        put(6, c.start);
        put(8, c.offset);
    }
    if let Some(gso) = frame.meta.gso {
        gso_type = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::UdpL4 => GSO_UDP_L4,
        } | if gso.ecn { GSO_ECN } else { 0 };
        put(2, header_len(frame, gso.kind));
        put(4, gso.size);
    }
    (h[0], h[1]) = (flags, gso_type);
    h
}

/// Bytes up to the end of the transport header: what each segment repeats.
fn header_len(frame: &Frame, kind: GsoKind) -> u16 {
    let Some(c) = frame.meta.csum else { return 0 };
    let transport = match kind {
        GsoKind::UdpL4 => 8,
        _ => {
            let byte = frame.data().get(usize::from(c.start) + 12).copied().unwrap_or(0x50);
            u16::from(byte >> 4) * 4
        }
    };
    c.start.saturating_add(transport)
}

/// Finds the transport header, writes the pseudo-header sum into its checksum field and marks it pending.
fn prime_checksum(frame: &mut Frame, medium: Medium, field: u16) -> Result<(), Malformed> {
    let ip = match medium {
        Medium::Ip => 0,
        Medium::Ethernet => ethernet_payload(frame.data()).ok_or(Malformed)?,
    };
    let packet = &frame.data()[ip..];
    let proto = if field == UDP_CHECKSUM { 17u8 } else { 6 };
    let (l4, addresses) = match packet.first().map(|b| b >> 4) {
        Some(4) => (usize::from(packet[0] & 15) * 4, packet.get(12..20)),
        // Segments with extension headers are not merged by GRO, except for the jumbo option, which Meta cannot say.
        Some(6) if packet.get(6) == Some(&proto) => (40, packet.get(8..40)),
        _ => return Err(Malformed),
    };
    let addresses = addresses.ok_or(Malformed)?;
    let at = l4 + usize::from(field);
    let length = packet.len().checked_sub(l4).filter(|_| packet.len() >= at + 2).ok_or(Malformed)?;
    let mut sum = u64::from(proto) + length as u64;
    sum += addresses.chunks_exact(2).map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame.data_mut()[ip + at..ip + at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    let start = u16::try_from(ip + l4).map_err(|_| Malformed)?;
    frame.meta.csum = Some(PartialChecksum { start, offset: field });
    Ok(())
}

/// Where the network header starts in an Ethernet frame, behind any VLAN tags.
pub(super) fn ethernet_payload(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let ethertype = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
        at += 2;
        match ethertype {
            0x8100 | 0x88a8 => at += 2,
            _ => return Some(at),
        }
        if at > 64 {
            return None;
        }
    }
}

/// Puts an 802.1Q (or other `tpid`) tag behind the MAC addresses. False when the frame is no Ethernet frame or lacks
/// headroom.
pub fn insert_vlan_tag(frame: &mut Frame, tpid: u16, tci: u16) -> bool {
    if frame.len() < 14 {
        return false;
    }
    let Some(data) = frame.push_front(4) else { return false };
    data.copy_within(4..16, 0);
    data[12..14].copy_from_slice(&tpid.to_be_bytes());
    data[14..16].copy_from_slice(&tci.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(flags: u8, gso: u8, hdr_len: u16, size: u16, start: u16, offset: u16) -> [u8; LEN] {
        let mut h = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
        for (i, v) in [hdr_len, size, start, offset].into_iter().enumerate() {
            h[2 + 2 * i..4 + 2 * i].copy_from_slice(&v.to_ne_bytes());
        }
        h
    }

    /// IPv4 TCP packet 192.0.2.1 -> 192.0.2.2 with `payload` bytes.
    fn tcp4(payload: usize) -> Vec<u8> {
        let mut p = vec![0u8; 40 + payload];
        p[0] = 0x45;
        p[2..4].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
        p[9] = 6;
        p[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        p[32] = 0x50;
        p
    }

    #[test]
    fn headers_and_metadata_agree_both_ways() {
        let csum = |start, offset| Some(PartialChecksum { start, offset });
        let gso = |kind, size, ecn| Some(Gso { kind, size, ecn });
        let table = [
            (header(0, 0, 0, 0, 0, 0), None, None),
            (header(1, 0, 0, 0, 20, 16), csum(20, 16), None),
            (header(1, 1, 40, 1448, 20, 16), csum(20, 16), gso(GsoKind::TcpV4, 1448, false)),
            (header(1, 0x81, 40, 1448, 20, 16), csum(20, 16), gso(GsoKind::TcpV4, 1448, true)),
            (header(1, 4, 40, 1428, 20, 16), csum(20, 16), gso(GsoKind::TcpV6, 1428, false)),
            (header(1, 5, 28, 1200, 20, 6), csum(20, 6), gso(GsoKind::UdpL4, 1200, false)),
        ];
        for (h, csum, gso) in table {
            let mut f = Frame::from_slice(&tcp4(5000));
            to_meta(&h, &mut f, Medium::Ip).unwrap();
            assert_eq!((f.meta.csum, f.meta.gso), (csum, gso), "{h:?}");
            assert_eq!(from_meta(&f), h);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for h in [
            header(1, 0, 0, 0, 39, 0), // checksum beyond the end
            header(1, 0, 0, 0, 0xffff, 0xffff),
            header(1, 1, 40, 0, 20, 16),   // no segment size
            header(1, 1, 40, 1000, 20, 6), // UDP's field in a TCP super-frame
            header(0, 3, 28, 1000, 0, 0),  // UFO
            header(0, 9, 0, 1000, 0, 0),
        ] {
            assert_eq!(to_meta(&h, &mut Frame::from_slice(&tcp4(0)), Medium::Ip), Err(Malformed), "{h:?}");
        }
        // DATA_VALID says nothing that we need.
        to_meta(&header(2, 0, 0, 0, 99, 99), &mut Frame::from_slice(&tcp4(0)), Medium::Ip).unwrap();
    }

    #[test]
    fn super_frame_without_pending_checksum_is_primed() {
        let mut eth = vec![0u8; 12];
        eth.extend([0x81, 0x00, 0, 5, 0x08, 0x00]);
        eth.extend(tcp4(3000));
        let mut f = Frame::from_slice(&eth);
        to_meta(&header(2, 1, 58, 1400, 0, 0), &mut f, Medium::Ethernet).unwrap();
        assert_eq!(f.meta.csum, Some(PartialChecksum { start: 18 + 20, offset: 16 }));
        // 192.0.2.1 + 192.0.2.2 + protocol 6 + length 3020, folded.
        let sum = 2 * (0xc000u32 + 0x0200) + 3 + 6 + 3020;
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!(f.data()[18 + 36..18 + 38], (folded as u16).to_be_bytes());
    }

    #[test]
    fn vlan_tag_goes_behind_the_addresses() {
        let mut f = Frame::from_slice(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0, 9]);
        f.meta.csum = Some(PartialChecksum { start: 14, offset: 0 });
        assert!(insert_vlan_tag(&mut f, 0x8100, 0x2005));
        assert_eq!(f.data(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x81, 0, 0x20, 5, 8, 0, 9]);
        assert_eq!(f.meta.csum.map(|c| c.start), Some(18));
        assert!(!insert_vlan_tag(&mut Frame::from_slice(&[0; 13]), 0x8100, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn nothing_panics(h in any::<[u8; LEN]>(), data in proptest::collection::vec(any::<u8>(), 0..100), ip: bool) {
            let medium = if ip { Medium::Ip } else { Medium::Ethernet };
            let mut f = Frame::from_slice(&data);
            if to_meta(&h, &mut f, medium).is_ok() {
                let _ = from_meta(&f);
                if let Some(c) = f.meta.csum {
                    prop_assert!(usize::from(c.start) + usize::from(c.offset) + 2 <= f.len());
                }
            }
            let _ = insert_vlan_tag(&mut f, 0x8100, 1);
        }
    }
}
