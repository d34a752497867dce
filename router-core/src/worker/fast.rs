//! The fast path: plain packets between plain ports, a whole batch at a time.
//!
//! Three passes over a batch: survey every header and sort out what is unusual; look all destinations up; edit and queue,
//! in the order of arrival. What is unusual in any way (options, extension headers that routers process, offload metadata,
//! unresolved neighbours, plug-ins, errors, packets to the router) takes the general path unchanged, at its place in the order, so that
//! flows are never reordered. The fast path decides nothing that the general path would decide differently: a property
//! test holds them together.
//!
//! | checked here | else |
//! |---|---|
//! | for our link-layer address, untagged, or a bare IP packet | general path |
//! | IPv4: version, length, no options, checksum (RFC 1812 5.2.2) | general path |
//! | IPv6: version, length, no hop-by-hop options (RFC 8200) | general path |
//! | TTL above one; neither address special (RFC 1812 5.3.7, RFC 6890, RFC 4291) | general path |
//! | the object is a resolved adjacency (of a gateway or of the destination), or a tunnel over one; its port up, the packet within its MTU | general path |
//! | out of a tunnel: whole packet, known peer, an inner packet as above | general path |

use crate::addr::Family;
use crate::checksum::age;
use crate::fib::{Fib, Lookup};
use crate::flow;
use crate::forward::tunnel::{OVERHEAD, inner_ecn, outer_tos};
use crate::frame::Frame;
use crate::headers::{be16, ipv4, protocol};
use crate::object::{Encap, Forward, Group, Object, ObjectId};
use crate::packet::Packet;
use crate::port::{Medium, PortId, PortInfo, PortKind};
use crate::tables::Tables;
use crate::worker::{MAX_BATCH, Outbox, Worker};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the survey found about one frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Unusual: the general path's.
    General,
    /// A plain IPv4 packet of this length; it may be a fragment.
    V4 { len: u16 },
    /// A plain IPv6 packet of this length, header included.
    V6 { len: u32 },
}

/// Where the third pass is: its place in the lists of results, and the frames of one port that are counted together.
#[derive(Default)]
pub(super) struct Sent {
    at4: usize,
    at6: usize,
    port: PortId,
    packets: u64,
    bytes: u64,
}

/// Destinations of the plain packets of a batch by family, and what the lookup says.
#[derive(Default)]
pub(super) struct Destinations {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    ids4: Vec<ObjectId>,
    ids6: Vec<ObjectId>,
}

impl Destinations {
    /// Room for a whole batch of either family.
    pub(super) fn new() -> Self {
        Destinations {
            v4: Vec::with_capacity(MAX_BATCH),
            v6: Vec::with_capacity(MAX_BATCH),
            ids4: Vec::with_capacity(MAX_BATCH),
            ids6: Vec::with_capacity(MAX_BATCH),
        }
    }
}

impl Worker {
    /// First pass: sorts the batch into `lanes`.
    pub(super) fn survey(&mut self, port: &PortInfo, batch: &[Frame]) {
        self.lanes.clear();
        let Destinations { v4, v6, .. } = &mut self.destinations;
        v4.clear();
        v6.clear();
        let l3 = match port.medium {
            Medium::Ethernet => 14,
            Medium::Ip => 0,
        };
        // A tagged port's frames are unusual: the tag sits beside or inside the bytes. So are those of raw IP sockets,
        // which are for us whatever their destination.
        if !port.up || port.vlan.is_some() || port.kind == PortKind::RawIp {
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
                    Some(0x45) => survey_v4(data, v4),
                    Some(b) if b >> 4 == 6 => survey_v6(data, v6),
                    _ => Lane::General,
                },
                _ => match (data.first_chunk::<14>(), mac) {
                    (Some([a, b, c, d, e, f, .., 0x08, 0x00]), Some(mac)) if [*a, *b, *c, *d, *e, *f] == mac => {
                        survey_v4(&data[14..], v4)
                    }
                    (Some([a, b, c, d, e, f, .., 0x86, 0xdd]), Some(mac)) if [*a, *b, *c, *d, *e, *f] == mac => {
                        survey_v6(&data[14..], v6)
                    }
                    _ => Lane::General,
                },
            }
        }));
    }

    /// Second pass: looks up every plain packet, one family after the other, so that many lookups are under way at once.
    /// Ids are valid with the snapshot in hand only.
    pub(super) fn look_up_lanes(&mut self, fib: Option<&Fib>) {
        let Destinations { v4, v6, ids4, ids6 } = &mut self.destinations;
        ids4.clear();
        ids4.resize(v4.len(), ObjectId::NO_ROUTE);
        ids6.clear();
        ids6.resize(v6.len(), ObjectId::NO_ROUTE);
        if let Some(fib) = fib {
            if !v4.is_empty() {
                fib.lookup4_batch(v4, ids4);
            }
            if !v6.is_empty() {
                fib.lookup6_batch(v6, ids6);
            }
        }
    }

    /// Third pass, for one frame: edits and queues it, or gives it back for the general path.
    #[inline]
    pub(super) fn send_lane(
        &mut self,
        at: usize,
        frame: Frame,
        medium: Medium,
        tables: &Tables,
        sent: &mut Sent,
        out: &mut Outbox,
    ) -> Option<Frame> {
        let (family, len, id) = match self.lanes.get(at) {
            Some(Lane::V4 { len }) => {
                sent.at4 += 1;
                (Family::Inet, u32::from(*len), self.destinations.ids4.get(sent.at4 - 1))
            }
            Some(Lane::V6 { len }) => {
                sent.at6 += 1;
                (Family::Inet6, *len, self.destinations.ids6.get(sent.at6 - 1))
            }
            Some(Lane::General) | None => return Some(frame),
        };
        let Some(id) = id else { return Some(frame) };
        let plain = Plain { family, len, l2: if medium == Medium::Ethernet { 14 } else { 0 } };
        let Some(object) = tables.routing.objects.get(*id) else { return Some(frame) };
        match object {
            Object::Local => self.leave_tunnel(frame, plain, tables, sent, out),
            _ => self.send_plain(frame, plain, object, tables, sent, out),
        }
    }

    /// Sends a plain packet by its object: straight, to a host on the link, or into a tunnel.
    #[inline]
    fn send_plain(
        &mut self,
        mut frame: Frame,
        plain: Plain,
        object: &Object,
        tables: &Tables,
        sent: &mut Sent,
        out: &mut Outbox,
    ) -> Option<Frame> {
        let member = match object {
            Object::Group(group) => self.member(&frame, plain, group),
            _ => None,
        };
        let object = match member {
            Some(id) => match tables.routing.objects.get(id) {
                Some(object) => object,
                None => return Some(frame),
            },
            None => object,
        };
        let (hop, encap) = match object {
            Object::Forward(hop) => (hop, None),
            Object::Glean(glean) => {
                let dst = plain.dst(&frame);
                match tables.routing.adjacencies.get(glean.port, &dst) {
                    Some(hop) if glean.mtu == 0 || plain.len <= glean.mtu => (hop, None),
                    _ => return Some(frame),
                }
            }
            Object::Encap(encap) => match tables.routing.objects.get(encap.carrier) {
                Some(Object::Forward(hop)) if plain.len <= encap.mtu && tables.settings.max_tunnel_nesting > 0 => {
                    (hop, Some(encap))
                }
                _ => return Some(frame),
            },
            _ => return Some(frame),
        };
        let overhead = if encap.is_some() { OVERHEAD } else { 0 };
        let up = tables.ports.get(hop.port).is_some_and(|p| p.up);
        let room = plain.l2 + frame.headroom() >= hop.rewrite.len() + overhead as usize;
        if plain.len + overhead > hop.mtu || !up || !room {
            return Some(frame);
        }
        // Back by the port it came in: the sender may have to be told of a better way.
        if hop.port == frame.meta.port && tables.settings.icmp.redirects {
            return Some(frame);
        }
        let Some(queue) = out.tx.get_mut(usize::from(hop.port.0)) else { return Some(frame) };
        if let Some(encap) = encap {
            self.ident = self.ident.wrapping_add(1);
            if !wrap(&mut frame, plain, encap, self.ident) {
                return Some(frame);
            }
            if let Some(c) = self.counters.port(encap.tunnel) {
                c.tx_packets.add(1);
                c.tx_bytes.add(u64::from(plain.len));
            }
            let _ = frame.push_front(hop.rewrite.len());
            hop.touch();
            hop.rewrite.write(Family::Inet, frame.data_mut());
        } else {
            rewrite(&mut frame, plain, hop);
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

    /// The member of a group that the packet's flow has.
    fn member(&self, frame: &Frame, plain: Plain, group: &Group) -> Option<ObjectId> {
        let data = frame.data().get(plain.l2..plain.l2 + plain.len as usize)?;
        let packet = Packet::parse(plain.family, data).ok()?;
        let hash = flow::hash(&packet, data, self.flow_seed);
        group.buckets.get(hash as usize % group.buckets.len().max(1)).copied()
    }

    /// A plain packet for one of our addresses: out of its tunnel and on, if it is a tunnel packet and the inner one is
    /// plain too.
    fn leave_tunnel(
        &mut self,
        mut frame: Frame,
        outer: Plain,
        tables: &Tables,
        sent: &mut Sent,
        out: &mut Outbox,
    ) -> Option<Frame> {
        let data = frame.data();
        let Some(h) = data.get(outer.l2..).and_then(|d| d.first_chunk::<20>()) else { return Some(frame) };
        let whole = u16::from_be_bytes([h[6], h[7]]) & 0x3fff == 0;
        if outer.family != Family::Inet || h[9] != protocol::IPV6 || !whole || tables.settings.max_tunnel_nesting == 0 {
            return Some(frame);
        }
        let ends = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
        let (start, end) = (outer.l2 + 20, outer.l2 + outer.len as usize);
        let table = tables.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        let inner = data.get(start..end).unwrap_or(&[]);
        let Some((len, dst)) = plain_v6(inner) else { return Some(frame) };
        let Some(tunnel) = tables.decap.find(protocol::IPV6, table, ends(16), ends(12)) else { return Some(frame) };
        let Some(info) = tables.ports.get(tunnel).filter(|t| t.up) else { return Some(frame) };
        let tclass = (data[start] << 4) | (data[start + 1] >> 4);
        let Ok(ecn) = inner_ecn(tclass, h[1]) else { return Some(frame) };
        let Some(fib) = tables.routing.fibs.get(info.table) else { return Some(frame) };
        let Some(object) = tables.routing.objects.get(fib.lookup6(dst)) else { return Some(frame) };
        if !matches!(object, Object::Forward(_) | Object::Glean(_)) {
            return Some(frame);
        }
        // Kept, in case the last checks give the packet back to the general path.
        let (port, before) = (frame.meta.port, data[start + 1]);
        let inner_bytes = (end - start) as u64;
        frame.data_mut()[start + 1] = (before & 0xcf) | (ecn << 4);
        frame.meta.port = tunnel;
        let inner = Plain { family: Family::Inet6, len, l2: start };
        let back = self.send_plain(frame, inner, object, tables, sent, out);
        match back {
            None => {
                if let Some(c) = self.counters.port(tunnel) {
                    c.rx_packets.add(1);
                    c.rx_bytes.add(inner_bytes);
                }
                None
            }
            Some(mut frame) => {
                frame.data_mut()[start + 1] = before;
                frame.meta.port = port;
                Some(frame)
            }
        }
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

/// A packet that the survey let through, as it lies in its frame.
#[derive(Clone, Copy)]
struct Plain {
    family: Family,
    /// Of the IP packet.
    len: u32,
    /// Bytes before the IP header.
    l2: usize,
}

impl Plain {
    fn dst(&self, frame: &Frame) -> IpAddr {
        let d = frame.data().get(self.l2..).unwrap_or(&[]);
        match self.family {
            Family::Inet => match d.get(16..20) {
                Some(&[a, b, c, e]) => IpAddr::V4(Ipv4Addr::new(a, b, c, e)),
                _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            },
            Family::Inet6 => {
                let mut o = [0u8; 16];
                if let Some(b) = d.get(24..40) {
                    o.copy_from_slice(b);
                }
                IpAddr::V6(o.into())
            }
        }
    }
}

/// Takes one from the TTL, which the survey has seen to be above one, and exchanges the link header. The caller has seen
/// that there is room.
#[inline]
fn rewrite(frame: &mut Frame, plain: Plain, hop: &Forward) {
    let new = hop.rewrite.len();
    frame.truncate(plain.l2 + plain.len as usize);
    if new != plain.l2 {
        frame.pull_front(plain.l2);
        let _ = frame.push_front(new);
    }
    hop.touch();
    let data = frame.data_mut();
    hop.rewrite.write(plain.family, data);
    if let Some(packet) = data.get_mut(new..) {
        let _ = age(plain.family, packet);
    }
}

/// Takes one from the TTL and puts a tunnel's outer header in place of the link header. False, and the frame unchanged,
/// for a tunnel that is not over IPv4.
fn wrap(frame: &mut Frame, plain: Plain, encap: &Encap, ident: u16) -> bool {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (encap.local, encap.remote) else { return false };
    let Ok(total_len) = u16::try_from(plain.len + OVERHEAD) else { return false };
    frame.truncate(plain.l2 + plain.len as usize);
    frame.pull_front(plain.l2);
    let _ = age(plain.family, frame.data_mut());
    let inner = frame.data();
    let (tclass, hop_limit, proto) = match plain.family {
        Family::Inet => (inner[1], inner[8], protocol::IPV4),
        Family::Inet6 => ((inner[0] << 4) | (inner[1] >> 4), inner[7], protocol::IPV6),
    };
    let Some(room) = frame.push_front(OVERHEAD as usize) else { return false };
    ipv4::Header {
        tos: outer_tos(tclass, encap.tos),
        total_len,
        ident: if encap.df { 0 } else { ident },
        df: encap.df,
        ttl: encap.ttl.unwrap_or(hop_limit),
        proto,
        src,
        dst,
    }
    .write(room);
    true
}

/// A plain IPv4 packet, `data` from its header on.
#[inline]
fn survey_v4(data: &[u8], list: &mut Vec<Ipv4Addr>) -> Lane {
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
        list.push(Ipv4Addr::from_bits(dst));
        Lane::V4 { len }
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
fn survey_v6(data: &[u8], list: &mut Vec<Ipv6Addr>) -> Lane {
    match plain_v6(data) {
        Some((len, dst)) => {
            list.push(dst);
            Lane::V6 { len }
        }
        None => Lane::General,
    }
}

/// Length and destination of a plain IPv6 packet.
#[inline]
fn plain_v6(data: &[u8]) -> Option<(u32, Ipv6Addr)> {
    let h = data.first_chunk::<40>()?;
    let len = 40 + u32::from(be16(h, 4));
    let mut dst = [0u8; 16];
    dst.copy_from_slice(&h[24..40]);
    let plain = h[0] >> 4 == 6 && len as usize <= data.len() && h[6] != 0 && h[7] > 1;
    (plain && ordinary_v6(&h[8..24]) && ordinary_v6(&h[24..40])).then(|| (len, Ipv6Addr::from(dst)))
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
