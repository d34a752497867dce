//! Finding an unfinished checksum that nobody told about.

use super::segment::{TCP, UDP, ipv6_transport};
use crate::checksum::Sum;
use crate::frame::PartialChecksum;

/// Tunnels in tunnels that are looked into.
const DEPTH: usize = 4;
const GRE: u8 = 47;

/// Whether the TCP or UDP packet whose IP header lies at byte `at` of `frame` has a checksum that its sender left to the
/// hardware: the field then holds the bare pseudo-header sum (Linux CHECKSUM_PARTIAL). For ports that get the bytes of a
/// frame without its metadata. Looks into 6in4, IP in IP and GRE, where the innermost packet is the unfinished one.
///
/// One finished checksum in 65,536 looks the same. Nothing is lost by finishing that again: it gives the value that is
/// there already, provided that it was right.
pub fn find_partial(frame: &[u8], at: usize) -> Option<PartialChecksum> {
    let mut ip = at;
    for _ in 0..DEPTH {
        let packet = frame.get(ip..)?;
        let (l4, proto, end, addrs) = match packet.first()? >> 4 {
            4 => {
                let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
                // Fragments are finished before they are cut.
                let whole = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff == 0;
                let proto = *packet.get(9).filter(|_| whole)?;
                (usize::from(packet[0] & 15) * 4, proto, total, packet.get(12..20)?)
            }
            6 => {
                let end = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
                let (l4, proto) = ipv6_transport(packet)?;
                (l4, proto, end, packet.get(8..40)?)
            }
            _ => return None,
        };
        let field = match proto {
            TCP => 16,
            UDP => 6,
            4 | 41 => {
                ip += l4;
                continue;
            }
            GRE => {
                ip += l4 + gre_header(packet.get(l4..)?)?;
                continue;
            }
            _ => return None,
        };
        let length = end.checked_sub(l4).filter(|_| end <= packet.len())?;
        let value = packet.get(l4 + field..l4 + field + 2)?;
        let pseudo = Sum::of(addrs).word(u16::from(proto)).long(length as u32).fold();
        return (u16::from_be_bytes([value[0], value[1]]) == pseudo)
            .then_some(PartialChecksum { start: u16::try_from(ip + l4).ok()?, offset: field as u16 });
    }
    None
}

/// Length of a GRE header (RFC 2784, RFC 2890) that has IPv4 or IPv6 in it.
fn gre_header(gre: &[u8]) -> Option<usize> {
    let (flags, proto) = (gre.first()?, u16::from_be_bytes([*gre.get(2)?, *gre.get(3)?]));
    let options = [0x80, 0x20, 0x10].iter().filter(|bit| flags & **bit != 0).count();
    matches!(proto, 0x0800 | 0x86dd).then_some(4 + 4 * options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::offload::{complete_checksum, make_partial};
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn packet(v6: bool, udp: bool, payload: &[u8], source: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ip = match v6 {
            true => PacketBuilder::ipv6([source; 16], [2; 16], 9),
            false => PacketBuilder::ipv4([10, 0, 0, source], [10, 0, 0, 2], 9),
        };
        match udp {
            true => ip.udp(1000, 2000).write(&mut bytes, payload).unwrap(),
            false => ip.tcp(1000, 2000, 1, 500).write(&mut bytes, payload).unwrap(),
        }
        bytes
    }

    /// Outer headers around `inner`, by nesting: 6in4, then GRE with a key in IPv4, then nothing more.
    fn nest(inner: Vec<u8>, v6: bool, levels: u8) -> Vec<u8> {
        let mut bytes = inner;
        let mut v6 = v6;
        for level in 0..levels {
            let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let (proto, extra) = match level {
                0 if v6 => (41, vec![]),
                0 => (4, vec![]),
                _ => (GRE, [&[0x20, 0][..], &ethertype, &[1, 2, 3, 4]].concat()),
            };
            let total = (20 + extra.len() + bytes.len()) as u16;
            let mut outer = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
            outer[2..4].copy_from_slice(&total.to_be_bytes());
            bytes = [outer, extra, bytes].concat();
            v6 = false;
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_was_left_unfinished_is_found_and_finished_ones_survive(
            v6: bool, udp: bool, payload in proptest::collection::vec(any::<u8>(), 0..200), source: u8,
            levels in 0u8..4, padding in 0usize..20, link in 0usize..20,
        ) {
            let finished = packet(v6, udp, &payload, source);
            let mut pending = Frame::from_slice(&finished);
            make_partial(&mut pending).unwrap();
            let wrap = |inner: &[u8]| {
                let mut frame = vec![0x45; link];
                frame.extend(nest(inner.to_vec(), v6, levels));
                frame.extend(vec![0; padding]);
                frame
            };
            let frame = wrap(pending.data());
            let found = find_partial(&frame, link).unwrap();
            let inner_at = frame.len() - padding - finished.len();
            let c = pending.meta.csum.unwrap();
            prop_assert_eq!(found, PartialChecksum { start: c.start + inner_at as u16, offset: c.offset });
            // A finished one is hardly ever taken for unfinished, and then finishing changes nothing.
            let whole = wrap(&finished);
            if let Some(c) = find_partial(&whole, link) {
                let mut f = Frame::from_slice(&whole[..whole.len() - padding]);
                f.meta.csum = Some(c);
                complete_checksum(&mut f).unwrap();
                prop_assert_eq!(f.data(), &whole[..whole.len() - padding]);
            }
        }

        #[test]
        fn nothing_panics(data in proptest::collection::vec(any::<u8>(), 0..120), at in 0usize..130) {
            if let Some(c) = find_partial(&data, at) {
                prop_assert!(usize::from(c.start) + usize::from(c.offset) + 2 <= data.len());
            }
        }
    }

    #[test]
    fn a_finished_checksum_that_looks_unfinished_is_finished_to_itself() {
        // Of all 65,536 payload words, one makes the checksum equal the pseudo-header sum.
        let mut seen = 0;
        for word in 0..=u16::MAX {
            let bytes = packet(false, true, &word.to_be_bytes(), 1);
            if let Some(c) = find_partial(&bytes, 0) {
                let mut f = Frame::from_slice(&bytes);
                f.meta.csum = Some(c);
                complete_checksum(&mut f).unwrap();
                assert_eq!(f.data(), bytes);
                seen += 1;
            }
        }
        assert!((1..=2).contains(&seen), "{seen}");
    }

    #[test]
    fn fragments_are_left_alone() {
        let mut pending = Frame::from_slice(&packet(false, true, &[1, 2, 3], 1));
        make_partial(&mut pending).unwrap();
        assert!(find_partial(pending.data(), 0).is_some());
        pending.data_mut()[6] = 0x20;
        assert_eq!(find_partial(pending.data(), 0), None);
    }
}
