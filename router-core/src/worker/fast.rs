//! The fast path: plain packets between plain ports, a whole batch at a time.
//!
//! Three passes over a batch: survey every header and sort out what is unusual; look all destinations up; edit and queue,
//! in the order of arrival. What is unusual in any way (options, extension headers that routers process, offload metadata,
//! tunnels, groups, errors, packets to the router) takes the general path unchanged, at its place in the order, so that
//! flows are never reordered. The fast path decides nothing that the general path would decide differently: a property
//! test holds them together.
//!
//! | checked here | else |
//! |---|---|
//! | for our link-layer address, untagged, or a bare IP packet | general path |
//! | IPv4: version, length, no options, checksum (RFC 1812 5.2.2) | general path |
//! | IPv6: version, length, no hop-by-hop options (RFC 8200) | general path |
//! | TTL above one; neither address special (RFC 1812 5.3.7, RFC 6890, RFC 4291) | general path |
//! | the object is a resolved adjacency, its port up, the packet within its MTU | general path |

use crate::addr::Family;
use crate::fib::{Fib, Lookup};
use crate::frame::Frame;
use crate::headers::be16;
use crate::object::{Forward, Object, ObjectId};
use crate::port::{Medium, PortId, PortInfo};
use crate::tables::Tables;
use crate::worker::{Outbox, Worker};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the survey found about one frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Unusual: the general path's.
    General,
    /// A plain IPv4 packet of this length.
    V4 { len: u16, dst: Ipv4Addr },
    /// A plain IPv6 packet of this length, header included.
    V6 { len: u32, dst: Ipv6Addr },
}

/// Transmitted frames of one port, counted together.
#[derive(Default)]
pub(super) struct Sent {
    port: PortId,
    packets: u64,
    bytes: u64,
}

impl Worker {
    /// First pass: sorts the batch into `lanes`.
    pub(super) fn survey(&mut self, port: &PortInfo, batch: &[Frame]) {
        self.lanes.clear();
        let l3 = match port.medium {
            Medium::Ethernet => 14,
            Medium::Ip => 0,
        };
        // A tagged port's frames are unusual: the tag sits beside or inside the bytes.
        if !port.up || port.vlan.is_some() {
            self.lanes.resize(batch.len(), Lane::General);
            return;
        }
        let mac = port.mac.map(|m| m.0);
        self.lanes.extend(batch.iter().map(|frame| {
            let meta = &frame.meta;
            if meta.csum.is_some() || meta.gso.is_some() || meta.vlan_tci.is_some() {
                return Lane::General;
            }
            let data = frame.data();
            match l3 {
                0 => match data.first() {
                    Some(0x45) => survey_v4(data),
                    Some(b) if b >> 4 == 6 => survey_v6(data),
                    _ => Lane::General,
                },
                _ => match (data.first_chunk::<14>(), mac) {
                    (Some([a, b, c, d, e, f, .., 0x08, 0x00]), Some(mac)) if [*a, *b, *c, *d, *e, *f] == mac => {
                        survey_v4(&data[14..])
                    }
                    (Some([a, b, c, d, e, f, .., 0x86, 0xdd]), Some(mac)) if [*a, *b, *c, *d, *e, *f] == mac => {
                        survey_v6(&data[14..])
                    }
                    _ => Lane::General,
                },
            }
        }));
    }

    /// Second pass: looks up every plain packet. Ids are valid with the snapshot in hand only.
    pub(super) fn look_up_lanes(&mut self, fib: Option<&Fib>) {
        self.ids.clear();
        let Some(fib) = fib else {
            self.ids.resize(self.lanes.len(), ObjectId::NO_ROUTE);
            return;
        };
        self.ids.extend(self.lanes.iter().map(|lane| match lane {
            Lane::General => ObjectId::NO_ROUTE,
            Lane::V4 { dst, .. } => fib.lookup4(*dst),
            Lane::V6 { dst, .. } => fib.lookup6(*dst),
        }));
    }

    /// Third pass, for one frame: edits and queues it, or gives it back for the general path.
    #[inline]
    pub(super) fn send_lane(
        &mut self,
        at: usize,
        mut frame: Frame,
        medium: Medium,
        tables: &Tables,
        sent: &mut Sent,
        out: &mut Outbox,
    ) -> Option<Frame> {
        let (Some(lane), Some(id)) = (self.lanes.get(at), self.ids.get(at)) else { return Some(frame) };
        let (family, len) = match *lane {
            Lane::General => return Some(frame),
            Lane::V4 { len, .. } => (Family::Inet, u32::from(len)),
            Lane::V6 { len, .. } => (Family::Inet6, len),
        };
        let Some(Object::Forward(hop)) = tables.routing.objects.get(*id) else { return Some(frame) };
        let up = tables.ports.get(hop.port).is_some_and(|p| p.up);
        if len > hop.mtu || !up {
            return Some(frame);
        }
        let Some(queue) = out.tx.get_mut(usize::from(hop.port.0)) else { return Some(frame) };
        let l2 = if medium == Medium::Ethernet { 14 } else { 0 };
        if !rewrite(&mut frame, l2, len, family, hop) {
            return Some(frame);
        }
        if sent.port != hop.port {
            self.count_sent(sent);
            sent.port = hop.port;
        }
        sent.packets += 1;
        sent.bytes += frame.len() as u64;
        queue.push(frame);
        None
    }

    /// Adds what was sent since the last call to the counters.
    pub(super) fn count_sent(&self, sent: &mut Sent) {
        if sent.packets > 0 {
            self.counters.transmitted.add(sent.packets);
            if let Some(c) = self.counters.port(sent.port) {
                c.tx_packets.add(sent.packets);
                c.tx_bytes.add(sent.bytes);
            }
            (sent.packets, sent.bytes) = (0, 0);
        }
    }
}

/// Takes one from the TTL and exchanges the link header. False, and the frame unchanged, when there is no room.
#[inline]
fn rewrite(frame: &mut Frame, l2: usize, len: u32, family: Family, hop: &Forward) -> bool {
    let new = hop.rewrite.len();
    if new > l2 + frame.headroom() {
        return false;
    }
    frame.truncate(l2 + len as usize);
    if new != l2 {
        frame.pull_front(l2);
        // There is room: looked at above.
        let _ = frame.push_front(new);
    }
    hop.touch();
    let data = frame.data_mut();
    hop.rewrite.write(family, data);
    match family {
        Family::Inet => {
            if let Some(h) = data.get_mut(new + 8..new + 12) {
                h[0] = h[0].wrapping_sub(1);
                // RFC 1624: the TTL is the high byte of its word, so the sum grows by 0x0100, carry folded in.
                let sum = u32::from(u16::from_be_bytes([h[2], h[3]])) + 0x0100;
                h[2..4].copy_from_slice(&((sum + (sum >> 16)) as u16).to_be_bytes());
            }
        }
        Family::Inet6 => {
            if let Some(h) = data.get_mut(new + 7) {
                *h = h.wrapping_sub(1);
            }
        }
    }
    true
}

/// A plain IPv4 packet, `data` from its header on.
#[inline]
fn survey_v4(data: &[u8]) -> Lane {
    let Some(h) = data.first_chunk::<20>() else { return Lane::General };
    let len = u16::from_be_bytes([h[2], h[3]]);
    let word = |at: usize| u64::from(u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]));
    // All five words; folded to 16 bits a right header sums to all ones.
    let sum = word(0) + word(4) + word(8) + word(12) + word(16);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let (src, dst) = (word(12) as u32, word(16) as u32);
    let fits = usize::from(len) <= data.len() && len >= 20;
    if h[0] == 0x45 && fits && (sum & 0xffff) + (sum >> 16) == 0xffff && h[8] > 1 && ordinary(src) && ordinary(dst) {
        Lane::V4 { len, dst: Ipv4Addr::from_bits(dst) }
    } else {
        Lane::General
    }
}

/// Neither "this network", loopback, link-local, multicast nor reserved.
#[inline]
fn ordinary(addr: u32) -> bool {
    let first = addr >> 24;
    first.wrapping_sub(1) < 223 && first != 127 && addr >> 16 != 0xa9fe
}

/// A plain IPv6 packet, `data` from its header on.
#[inline]
fn survey_v6(data: &[u8]) -> Lane {
    let Some(h) = data.first_chunk::<40>() else { return Lane::General };
    let len = 40 + u32::from(be16(h, 4));
    let mut dst = [0u8; 16];
    dst.copy_from_slice(&h[24..40]);
    let plain = h[0] >> 4 == 6 && len as usize <= data.len() && h[6] != 0 && h[7] > 1;
    if plain && ordinary_v6(&h[8..24]) && ordinary_v6(&h[24..40]) {
        Lane::V6 { len, dst: Ipv6Addr::from(dst) }
    } else {
        Lane::General
    }
}

/// Inside 2000::/3 or fc00::/7: none of the special ones, which all lie elsewhere (RFC 4291 2.4).
#[inline]
fn ordinary_v6(addr: &[u8]) -> bool {
    matches!(addr.first(), Some(b) if b >> 5 == 1 || b >> 1 == 0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_ordinary() {
        let rows = [
            ("192.0.2.1", true),
            ("1.0.0.0", true),
            ("223.255.255.255", true),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ];
        for (addr, want) in rows {
            let a: Ipv4Addr = addr.parse().unwrap();
            assert_eq!(ordinary(a.to_bits()), want, "{addr}");
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
            assert_eq!(ordinary_v6(&a.octets()), want, "{addr}");
        }
    }
}
