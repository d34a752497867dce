//! First pass: which packets of a batch are plain, and where to.

use super::outers::Outers;
use super::{Lane, Passes};
use crate::addr::Family;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::port::{Medium, PortId, PortInfo};
use crate::tables::Tables;
use std::net::{Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;

impl Passes {
    /// Sorts a batch into lanes and lists destinations.
    pub(super) fn survey(&mut self, port: &PortInfo, batch: &[Frame], tables: &Tables) {
        let known = &mut Outers::new(port, tables);
        self.lanes.clear();
        self.v4.clear();
        self.v6.clear();
        self.tunneled4.clear();
        self.tunneled6.clear();
        self.ours6.clear();
        // A tagged port's frames are unusual: the tag sits beside or inside the bytes. So are those of raw IP sockets,
        // which are for us whatever their destination.
        let plain = port.up && port.vlan.is_none() && !port.kind.over_host();
        match (plain, port.medium, port.mac) {
            (true, Medium::Ethernet, Some(mac)) => {
                let [a, b, c, d, e, f] = mac.0;
                let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
                known.expect(batch, ETHERNET);
                for (i, frame) in batch.iter().enumerate() {
                    match frame.data().split_first_chunk::<ETHERNET>() {
                        Some((link, packet)) if !frame.meta.is_special() && u64_le(link) << 16 == mac << 16 => {
                            match [link[12], link[13]] {
                                [0x08, 0x00] => self.lane_v4(i, ETHERNET, packet, known),
                                [0x86, 0xdd] => self.lane_v6(i, ETHERNET, packet, known),
                                _ => self.lanes.push(Lane::GENERAL),
                            }
                        }
                        _ => self.lanes.push(Lane::GENERAL),
                    }
                }
            }
            (true, Medium::Ip, _) => {
                known.expect(batch, 0);
                for (i, frame) in batch.iter().enumerate() {
                    let data = frame.data();
                    match data.first().map(|b| b >> 4) {
                        _ if frame.meta.is_special() => self.lanes.push(Lane::GENERAL),
                        Some(4) => self.lane_v4(i, 0, data, known),
                        Some(6) => self.lane_v6(i, 0, data, known),
                        _ => self.lanes.push(Lane::GENERAL),
                    }
                }
            }
            _ => self.lanes.resize(batch.len(), Lane::GENERAL),
        }
        if !self.ours6.is_empty() {
            self.leave_ours(batch, known);
        }
    }

    // Each lane is written where it belongs at once: handed back, it would go over the stack field by field, and be waited
    // for when it is read from there in wider pieces.
    #[inline(always)]
    fn lane_v4(&mut self, i: usize, l2: usize, data: &[u8], known: &mut Outers<'_>) {
        let Some(h) = plain_v4(data) else { return self.lanes.push(Lane::GENERAL) };
        if known.may_hold(h[9]) && self.leave_four(i, l2, h, data, known) {
            return;
        }
        let at = self.v4.len() as u16;
        self.v4.push(Ipv4Addr::new(h[16], h[17], h[18], h[19]));
        let len = u32::from(u16::from_be_bytes([h[2], h[3]]));
        let family = Some(Family::Inet);
        self.lanes.push(Lane { family, second: 0, at, l2: l2 as u8, asks: 0, carried: 0, len, tunnel: PortId::NONE });
    }

    #[inline(always)]
    fn lane_v6(&mut self, i: usize, l2: usize, data: &[u8], known: &mut Outers<'_>) {
        let Some((len, dst)) = plain_v6(data) else { return self.lanes.push(Lane::GENERAL) };
        if data.get(6).is_some_and(|next| known.may_hold(*next)) && self.leave_six(i, l2, len, data, known) {
            return;
        }
        let at = self.v6.len() as u16;
        self.v6.push(dst);
        let family = Some(Family::Inet6);
        self.lanes.push(Lane { family, second: 0, at, l2: l2 as u8, asks: 0, carried: 0, len, tunnel: PortId::NONE });
    }
}

#[inline(always)]
fn u64_le(link: &[u8; ETHERNET]) -> u64 {
    u64::from_le_bytes([link[0], link[1], link[2], link[3], link[4], link[5], link[6], link[7]])
}

/// The header of a plain IPv4 packet, `data` from its header on. It may be a fragment.
#[inline(always)]
pub(super) fn plain_v4(data: &[u8]) -> Option<&[u8; 20]> {
    let h = data.first_chunk::<20>()?;
    let len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    let ordinary = (NOT_ORDINARY_4[usize::from(h[12])] | NOT_ORDINARY_4[usize::from(h[16])]) == 0
        || (ordinary([h[12], h[13]]) && ordinary([h[16], h[17]]));
    (h[0] == 0x45 && len <= data.len() && len >= 20 && h[8] > 1 && sums_to_ones(h) && ordinary).then_some(h)
}

/// Whether a header without options has the right checksum. Words may be summed in any order of bytes (RFC 1071 2 B), and
/// 64 bits at a time as long as carries come round.
#[inline(always)]
fn sums_to_ones(h: &[u8; 20]) -> bool {
    let word =
        |i: usize| u64::from_ne_bytes([h[i], h[i + 1], h[i + 2], h[i + 3], h[i + 4], h[i + 5], h[i + 6], h[i + 7]]);
    let last = u64::from(u32::from_ne_bytes([h[16], h[17], h[18], h[19]]));
    let (sum, carry) = word(0).overflowing_add(word(8));
    let (sum, again) = sum.overflowing_add(last + u64::from(carry));
    let sum = sum + u64::from(again);
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + u32::from(carry);
    // Both halves added: the upper one gets the carry of the lower.
    sum.wrapping_add(sum.rotate_left(16)) >= 0xffff_0000
}

/// By the first byte: 1 unless every address is ordinary. 169 is: see [`ordinary`].
static NOT_ORDINARY_4: [u8; 256] = {
    let mut t = [0; 256];
    let mut i = 0;
    while i < 256 {
        t[i] = (i == 0 || i == 127 || i == 169 || i >= 224) as u8;
        i += 1;
    }
    t
};

/// Neither "this network", loopback, link-local, multicast nor reserved, by the two upper bytes.
#[inline]
fn ordinary(addr: [u8; 2]) -> bool {
    match addr {
        [169, b] => b != 254,
        [a, _] => NOT_ORDINARY_4[usize::from(a)] == 0,
    }
}

/// Length and destination of a plain IPv6 packet.
#[inline(always)]
pub(super) fn plain_v6(data: &[u8]) -> Option<(u32, Ipv6Addr)> {
    let h = data.first_chunk::<40>()?;
    let head = u64::from_be_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]]);
    let (len, next, hop_limit) = (40 + (head >> 16) as u16 as u32, (head >> 8) as u8, head as u8);
    let mut dst = [0u8; 16];
    dst.copy_from_slice(&h[24..40]);
    let plain = head >> 60 == 6 && len as usize <= data.len() && next != protocol::HOP_BY_HOP && hop_limit > 1;
    (plain && ordinary_v6(h[8]) & ordinary_v6(h[24])).then(|| (len, Ipv6Addr::from(dst)))
}

/// Inside 2000::/3 or fc00::/7 by the first byte: none of the special ones, which all lie elsewhere (RFC 4291 2.4).
#[inline(always)]
fn ordinary_v6(first: u8) -> bool {
    (first >> 5 == 1) | (first >> 1 == 0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    #[test]
    fn addresses_that_are_ordinary() {
        let rows = [
            ("192.0.2.1", true),
            ("1.0.0.0", true),
            ("223.255.255.255", true),
            ("169.253.1.1", true),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ];
        for (addr, want) in rows {
            let a: Ipv4Addr = addr.parse().unwrap();
            assert_eq!(ordinary([a.octets()[0], a.octets()[1]]), want, "{addr}");
        }
        let rows = [
            ("2001:db8::1", true),
            ("3fff::1", true),
            ("fd00::1", true),
            ("::1", false),
            ("::", false),
            ("::ffff:192.0.2.1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("64:ff9b::1", false),
        ];
        for (addr, want) in rows {
            let a: Ipv6Addr = addr.parse().unwrap();
            assert_eq!(ordinary_v6(a.octets()[0]), want, "{addr}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Bytes of all ones and all zeros among them: that is where carries come from.
        #[test]
        fn the_sum_by_words_is_the_sum(
            mut h: [u8; 20],
            ones in proptest::collection::vec(0usize..20, 0..20),
            zeros in proptest::collection::vec(0usize..20, 0..20),
            fill: bool,
        ) {
            ones.into_iter().for_each(|i| h[i] = 0xff);
            zeros.into_iter().for_each(|i| h[i] = 0);
            h[0] = 0x45;
            if fill {
                checksum::fill_ipv4_header(&mut h);
            }
            prop_assert_eq!(sums_to_ones(&h), checksum::verify(&h));
        }
    }
}
