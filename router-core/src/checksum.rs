//! The Internet checksum (RFC 1071): sums over bytes, pseudo-headers, and changes by the difference alone (RFC 1624).
//!
//! A [`Sum`] is the one's complement sum in the making. It is what a pending checksum field holds folded, and what a
//! finished field holds folded and inverted.

use crate::addr::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A one's complement sum in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `data`; a last odd byte counts as the high half of a word (RFC 1071 1).
    #[inline]
    pub fn of(data: &[u8]) -> Sum {
        Sum(u64::from(sum_bytes(data)))
    }

    /// Adds `data`, which must start at an even offset of what is summed.
    #[inline]
    pub fn bytes(self, data: &[u8]) -> Sum {
        Sum(self.0 + u64::from(sum_bytes(data)))
    }

    /// Adds one 16-bit word.
    #[inline]
    pub fn word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word))
    }

    /// Adds two words.
    #[inline]
    pub fn long(self, long: u32) -> Sum {
        Sum(self.0 + u64::from(long))
    }

    /// Adds another sum.
    #[inline]
    pub fn plus(self, other: Sum) -> Sum {
        Sum(u64::from(self.fold()) + u64::from(other.fold()))
    }

    /// The sum in 16 bits, not inverted: what a [`crate::frame::PartialChecksum`] field holds.
    #[inline]
    pub fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the folded sum, inverted.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum of a UDP datagram, where 0 means "none" and is sent as all ones (RFC 768, RFC 8200 8.1).
    #[inline]
    #[must_use]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            c => c,
        }
    }
}

#[inline]
fn fold(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + ((s >> 16) & 0xffff) + (s >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

/// Sums in the machine's byte order, 32 bits at a time into 64-bit lanes (compilers turn this into vector code), and
/// swaps once at the end: the sum does not depend on the byte order (RFC 1071 1 B).
#[inline]
fn sum_bytes(data: &[u8]) -> u16 {
    let mut lanes = [0u64; 4];
    let mut blocks = data.chunks_exact(16);
    for b in &mut blocks {
        for (lane, w) in lanes.iter_mut().zip(b.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
        }
    }
    let mut acc = lanes.iter().fold(0u64, |a, l| a + u64::from(fold(*l)));
    let mut words = blocks.remainder().chunks_exact(2);
    for w in &mut words {
        acc += u64::from(u16::from_ne_bytes([w[0], w[1]]));
    }
    if let [last] = words.remainder() {
        acc += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(acc))
}

/// The checksum of `data` alone: IPv4 headers, ICMPv4.
#[inline]
#[must_use]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::of(data).finish()
}

/// Whether `data`, its checksum field included, sums to all ones.
#[inline]
#[must_use]
pub fn verify(data: &[u8]) -> bool {
    verify_with(Sum::ZERO, data)
}

/// Whether `data` behind a pseudo-header sums to all ones.
#[inline]
#[must_use]
pub fn verify_with(pseudo: Sum, data: &[u8]) -> bool {
    pseudo.bytes(data).fold() == 0xffff
}

/// The IPv4 pseudo-header (RFC 768, RFC 9293 3.1). `len` counts transport header and payload.
#[inline]
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: u32) -> Sum {
    Sum::ZERO.long(src.to_bits()).long(dst.to_bits()).word(u16::from(proto)).long(len)
}

/// The IPv6 pseudo-header (RFC 8200 8.1). `len` counts transport header and payload.
#[inline]
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, len: u32) -> Sum {
    Sum::of(&src.octets()).bytes(&dst.octets()).word(u16::from(proto)).long(len)
}

/// The pseudo-header of either family. None when the families differ.
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: u32) -> Option<Sum> {
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Some(pseudo_v4(s, d, proto, len)),
        (IpAddr::V6(s), IpAddr::V6(d)) => Some(pseudo_v6(s, d, proto, len)),
        _ => None,
    }
}

/// The checksum after a word of the summed bytes changed from `old` to `new`: RFC 1624 3, equation 3.
#[inline]
#[must_use]
pub fn update_u16(check: u16, old: u16, new: u16) -> u16 {
    Sum(u64::from(!check) + u64::from(!old) + u64::from(new)).finish()
}

/// As [`update_u16`] for four aligned bytes: an IPv4 address, a sequence number.
#[inline]
#[must_use]
pub fn update_u32(check: u16, old: u32, new: u32) -> u16 {
    Sum(u64::from(!check) + u64::from(!old) + u64::from(new)).finish()
}

/// As [`update_u16`] for any bytes at an even offset: an IPv6 address. Both must have the same, even length.
#[must_use]
pub fn update_bytes(check: u16, old: &[u8], new: &[u8]) -> u16 {
    Sum::ZERO.word(!check).word(!Sum::of(old).fold()).bytes(new).finish()
}

/// Lowers the TTL of the IPv4 header at the start of `packet` by one and corrects its checksum (RFC 1812 5.3.1).
/// None, and nothing changed, when there is no header or the TTL is 0 already.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Option<u8> {
    let h = packet.first_chunk_mut::<20>()?;
    let ttl = h[8].checked_sub(1)?;
    // RFC 1624 3, equation 3, for a word that is 0x0100 less: the checksum is that much more, in one's complement.
    let check = u32::from(u16::from_be_bytes([h[10], h[11]])) + 0x0100;
    let check = (check + u32::from(check >= 0xffff)) as u16;
    h[8] = ttl;
    [h[10], h[11]] = check.to_be_bytes();
    Some(ttl)
}

/// Lowers the hop limit of the IPv6 header at the start of `packet` by one (RFC 8200 3).
/// None, and nothing changed, when there is no header or the hop limit is 0 already.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) -> Option<u8> {
    let h = packet.first_chunk_mut::<40>()?;
    h[7] = h[7].checked_sub(1)?;
    Some(h[7])
}

/// Takes this router's one from the TTL or hop limit of the packet at the start of `packet`: [`decrement_ttl`] or
/// [`decrement_hop_limit`].
#[inline]
pub fn age(family: Family, packet: &mut [u8]) -> Option<u8> {
    match family {
        Family::Inet => decrement_ttl(packet),
        Family::Inet6 => decrement_hop_limit(packet),
    }
}

/// Length of the IPv4 header at the start of `packet` in bytes, when it is all there.
#[inline]
pub fn ipv4_header_len(packet: &[u8]) -> Option<usize> {
    let n = usize::from(*packet.first()? & 0x0f) * 4;
    (n >= 20 && packet.len() >= n).then_some(n)
}

/// Whether the IPv4 header at the start of `packet` is whole and its checksum right (RFC 1812 5.2.2).
#[inline]
#[must_use]
pub fn verify_ipv4_header(packet: &[u8]) -> bool {
    ipv4_header_len(packet).is_some_and(|n| verify(&packet[..n]))
}

/// Computes the checksum of the IPv4 header at the start of `packet` anew. Does nothing when it is not whole.
#[inline]
pub fn fill_ipv4_header(packet: &mut [u8]) {
    if let Some(n) = ipv4_header_len(packet) {
        packet[10..12].fill(0);
        let c = checksum(&packet[..n]);
        packet[10..12].copy_from_slice(&c.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The text of RFC 1071 1, word by word.
    fn slow(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    /// Proves rfc1071-3-example.
    #[test]
    fn rfc_1071_section_3_example() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    /// Proves rfc1624-3-equation, rfc1624-4-zero.
    #[test]
    fn rfc_1624_section_4_example() {
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_64_kib_packet_of_ones_does_not_overflow() {
        assert_eq!(Sum::of(&vec![0xff; 65_536]).fold(), 0xffff);
        assert_eq!(Sum::of(&vec![0xff; 65_537]).fold(), slow(&vec![0xff; 65_537]));
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    /// Proves rfc791-3.1-ttl.
    #[test]
    fn ttl_stops_at_zero() {
        let mut h = [0x45, 0, 0, 20, 0, 0, 0, 0, 0, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let before = h;
        assert_eq!(decrement_ttl(&mut h), None);
        assert_eq!(decrement_ttl(&mut h[..19]), None);
        assert_eq!(h, before);
        assert_eq!(decrement_hop_limit(&mut [0; 40]), None);
    }

    proptest! {
        /// Proves rfc1071-1-sum.
        #[test]
        fn fast_sum_equals_slow_sum(data in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
            prop_assert_eq!(Sum::of(&data).fold(), slow(&data));
            let cut = (cut * 2).min(data.len() & !1);
            let (a, b) = data.split_at(cut);
            prop_assert_eq!(Sum::of(a).bytes(b).fold(), slow(&data));
            prop_assert_eq!(Sum::of(a).plus(Sum::of(b)).fold(), slow(&data));
        }

        /// Proves rfc1624-3-equation.
        #[test]
        fn updates_keep_a_right_checksum_right(
            mut data in proptest::collection::vec(any::<u8>(), 40..80), at in 1usize..9, new in any::<[u8; 16]>(),
        ) {
            data.truncate(data.len() & !1);
            data[..2].fill(0);
            data[38] = 1; // a packet of zeros only has two right checksums
            let c = checksum(&data);
            let at = at * 2;
            let (word, long) = (u16::from_be_bytes([data[at], data[at + 1]]),
                u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]));
            let with = |n: usize| { let mut d = data.clone(); d[at..at + n].copy_from_slice(&new[..n]); checksum(&d) };
            prop_assert_eq!(update_u16(c, word, u16::from_be_bytes([new[0], new[1]])), with(2));
            prop_assert_eq!(update_u32(c, long, u32::from_be_bytes([new[0], new[1], new[2], new[3]])), with(4));
            prop_assert_eq!(update_bytes(c, &data[at..at + 16], &new), with(16));
        }

        /// Proves rfc1624-4-zero, rfc1812-4.2.2.5-incremental, rfc791-3.1-checksum.
        /// Proves rfc791-3.1-recompute.
        #[test]
        fn ttl_decrement_keeps_the_header_valid(mut h in any::<[u8; 20]>(), ttl in 1u8..) {
            h[0] = 0x45;
            h[8] = ttl;
            fill_ipv4_header(&mut h);
            prop_assert!(verify_ipv4_header(&h));
            let old = u16::from_be_bytes([h[10], h[11]]);
            let general = update_u16(old, u16::from_be_bytes([ttl, h[9]]), u16::from_be_bytes([ttl - 1, h[9]]));
            prop_assert_eq!(decrement_ttl(&mut h), Some(ttl - 1));
            prop_assert!(verify_ipv4_header(&h));
            prop_assert_eq!(u16::from_be_bytes([h[10], h[11]]), general);
        }

        #[test]
        fn pseudo_headers_equal_the_written_out_form(
            s in any::<[u8; 16]>(), d in any::<[u8; 16]>(), proto in any::<u8>(), len in 0u32..70_000,
        ) {
            let mut v6 = Vec::new();
            v6.extend_from_slice(&s);
            v6.extend_from_slice(&d);
            v6.extend_from_slice(&len.to_be_bytes());
            v6.extend_from_slice(&[0, 0, 0, proto]);
            prop_assert_eq!(pseudo_v6(s.into(), d.into(), proto, len).fold(), slow(&v6));
            let (s4, d4) = ([s[0], s[1], s[2], s[3]], [d[0], d[1], d[2], d[3]]);
            let mut v4 = Vec::new();
            v4.extend_from_slice(&s4);
            v4.extend_from_slice(&d4);
            v4.extend_from_slice(&[0, proto]);
            v4.extend_from_slice(&len.to_be_bytes());
            prop_assert_eq!(pseudo_v4(s4.into(), d4.into(), proto, len).fold(), slow(&v4));
        }
    }
}
