//! [`Router::flow_way`]: whether all packets of a flow are treated alike, and how, for a fast path outside of the data plane.
//!
//! Nothing is decided here. A packet with the flow's headers runs through the data plane's own code as an example, several times, with
//! everything varied that may differ between packets of one flow: length, TTL, fragmentation bit, identification. Only if each
//! time nothing happened but what plain forwarding consists of, and each time the same was put in front of the same packet with one
//! taken from its TTL, the flow has a way.

use super::Router;
use crate::addr::Family;
use crate::checksum;
use crate::explain::Role;
use crate::explain::record::{Entry, Record, Seen, rehearse};
use crate::forward::Verdict;
use crate::frame::Frame;
use crate::headers::{be16, ipv4, ipv6, protocol};
use crate::object::Object;
use crate::packet::{Fragment, Packet};
use crate::port::{Medium, PortId};
use crate::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes of an Ethernet header.
const LINK: usize = 14;
/// DF in the word of the fragment offset.
const DF: u16 = 0x4000;

/// What is done with every packet of a flow.
#[derive(Clone, Debug)]
pub struct FlowWay {
    /// The port by which it leaves.
    pub port: PortId,
    /// Its link header there.
    pub link: [u8; LINK],
    /// The tunnel that it enters, and the outer header: bare IPv4 or IPv6; its length and checksum are those of an example, and so
    /// is the identification, which has no meaning as DF is set (RFC 6864 4.1).
    pub tunnel: Option<(PortId, Vec<u8>)>,
    /// The longest packet that passes whole, as it comes in.
    pub mtu: u32,
    /// The marks of the adjacencies that it uses.
    used: Vec<Arc<AtomicBool>>,
}

impl FlowWay {
    /// Packets have gone this way: neighbours on it are in use.
    pub fn touch(&self) {
        self.used.iter().filter(|u| !u.load(Relaxed)).for_each(|u| u.store(true, Relaxed));
    }

    /// Whether packets are treated alike on both. The adjacencies may differ in what is not in the packet.
    pub fn is_same(&self, other: &FlowWay) -> bool {
        let outer = |w: &FlowWay| w.tunnel.as_ref().map(|(t, h)| (*t, fixed(h)));
        (self.port, self.link, self.mtu, outer(self)) == (other.port, other.link, other.mtu, outer(other))
    }
}

/// An outer header without what differs between packets.
fn fixed(outer: &[u8]) -> Vec<u8> {
    let mut h = outer.to_vec();
    let differs: &[usize] = if h.len() == ipv4::MIN_HEADER { &[2, 3, 4, 5, 10, 11] } else { &[4, 5] };
    differs.iter().filter_map(|i| h.get_mut(*i).map(|b| *b = 0)).count();
    h
}

/// One example's fate.
struct Outcome {
    way: FlowWay,
}

impl Router {
    /// Whether all packets of the flow that `head` belongs to are forwarded in one plain way, on the tables of the last commit. `head`:
    /// link header, IP header without options or extension headers, TCP or UDP header, as they came in by `port`; what follows
    /// is not looked at. None: they are not, or not certainly.
    ///
    /// The answer holds for packets of this source, destination, protocol, ports, TOS or traffic class, flow label, up to
    /// [`FlowWay::mtu`], with a TTL above one, that are no fragments and no TCP SYN, until the next change of the router.
    pub fn flow_way(&self, now: Instant, port: PortId, head: &[u8]) -> Option<FlowWay> {
        let (link, packet) = (head.get(..LINK)?, head.get(LINK..)?);
        let family = Packet::sniff(packet).ok()?;
        let l4 = if family == Family::Inet { ipv4::MIN_HEADER } else { ipv6::HEADER };
        let proto = *packet.get(if family == Family::Inet { 9 } else { 6 })?;
        let least = l4
            + match proto {
                protocol::TCP => 20,
                protocol::UDP => 8,
                _ => return None,
            };
        let headers = packet.get(..least)?;
        let short = example(link, headers, family, least, 64, false)?;
        let first = self.outcome(now, port, &short)?;
        let mtu = first.way.mtu as usize;
        if mtu < least {
            return None;
        }
        let others = [(mtu, 2, true), (mtu, 255, false), (least + (mtu - least) / 2, 3, true)];
        let alike = others.into_iter().all(|(len, ttl, df)| {
            let again = example(link, headers, family, len, ttl, df).and_then(|e| self.outcome(now, port, &e));
            again.is_some_and(|o| o.way.is_same(&first.way))
        });
        alike.then_some(first.way)
    }

    /// What becomes of one example, if it is plain forwarding.
    fn outcome(&self, now: Instant, port: PortId, example: &[u8]) -> Option<Outcome> {
        let frame = Frame::from_slice(example);
        let records = rehearse(&self.tables, self.worker.flow_seed(), now, Entry::Port(port), frame, |_, _| false);
        let [record] = &records[..] else { return None };
        if record.role != Role::Packet || !record.seen.iter().all(|(seen, _)| is_plain(seen)) {
            return None;
        }
        let (Some((Seen::Transmit(out), bytes)), Some(mtu)) = (record.seen.last(), self.longest(record)) else {
            return None;
        };
        let egress = self.tables.ports.get(*out)?;
        // A packet that turns back makes the router tell its sender of the better way.
        if *out == port || egress.medium != Medium::Ethernet || egress.vlan.is_some() {
            return None;
        }
        let link = *bytes.first_chunk::<LINK>()?;
        let mut packet = example.get(LINK..)?.to_vec();
        checksum::age(Packet::sniff(&packet).ok()?, &mut packet)?;
        let tunnels: Vec<PortId> = record.seen.iter().filter_map(|(s, _)| tunnel_of(s)).collect();
        let outer = bytes.get(LINK..)?.strip_suffix(&packet[..])?;
        let tunnel = match (&tunnels[..], outer) {
            ([], []) => None,
            ([tunnel], outer) if is_bare(outer, packet.len()) => Some((*tunnel, outer.to_vec())),
            _ => return None,
        };
        let used = self.adjacencies(record);
        Some(Outcome { way: FlowWay { port: *out, link, tunnel, mtu, used } })
    }

    /// The longest packet that the objects on the way let pass, if they are right; the caller tries it.
    fn longest(&self, record: &Record) -> Option<u32> {
        let (mut most, mut added, mut last) = (u32::from(u16::MAX), 0, 0);
        for (seen, bytes) in &record.seen {
            let limit = match seen {
                Seen::Parsed(p) => {
                    // The first, and one more behind an outer header.
                    let len = p.len.min(bytes.len() as u32);
                    added += if last == 0 { 0 } else { len.checked_sub(last)? };
                    last = len;
                    None
                }
                Seen::Object(Object::Forward(hop)) => Some(hop.mtu),
                Seen::Object(Object::Encap(encap)) => {
                    Some(encap.facts.path.map_or(encap.mtu, |path| path.min(encap.mtu)))
                }
                Seen::Object(Object::Glean(glean)) => Some(glean.mtu).filter(|m| *m > 0),
                Seen::OnLink { port, neighbor } => Some(self.tables.routing.adjacencies.get(*port, neighbor)?.mtu),
                _ => None,
            };
            if let Some(limit) = limit {
                most = most.min(limit.checked_sub(added)?);
            }
        }
        Some(most)
    }

    fn adjacencies(&self, record: &Record) -> Vec<Arc<AtomicBool>> {
        let used = |(seen, _): &(Seen, Vec<u8>)| match seen {
            Seen::Object(Object::Forward(hop)) => Some(Arc::clone(&hop.used)),
            Seen::OnLink { port, neighbor } => {
                self.tables.routing.adjacencies.get(*port, neighbor).map(|hop| Arc::clone(&hop.used))
            }
            _ => None,
        };
        record.seen.iter().filter_map(used).collect()
    }
}

fn tunnel_of(seen: &Seen) -> Option<PortId> {
    match seen {
        Seen::Encapsulated(tunnel) => Some(*tunnel),
        _ => None,
    }
}

/// What may happen to a packet without making it differ from others of its flow, and without anybody counting it by itself.
fn is_plain(seen: &Seen) -> bool {
    match seen {
        Seen::Link { group, .. } => !group,
        Seen::Object(object) => match object {
            Object::Forward(_) | Object::Glean(_) | Object::Encap(_) | Object::Sources(_) | Object::Table(_) => true,
            // The members of a resilient group change with use.
            Object::Group(group) => group.activity.is_none(),
            _ => false,
        },
        Seen::Decided { verdict, .. } => matches!(verdict, Verdict::Transmit(_) | Verdict::Continue(_)),
        Seen::Parsed(packet) => packet.fragment == Fragment::None,
        Seen::Addresses
        | Seen::Rule { .. }
        | Seen::Lookup { .. }
        | Seen::Source
        | Seen::Member { .. }
        | Seen::OnLink { .. }
        | Seen::Aged
        | Seen::Encapsulated(_)
        | Seen::Transmit(_) => true,
        _ => false,
    }
}

/// Whether these bytes are one IP header without options or extension headers in front of an IP packet of `len` bytes; of IPv4, one
/// whose packets need no identification.
fn is_bare(outer: &[u8], len: usize) -> bool {
    match (outer.len(), outer.first()) {
        (ipv4::MIN_HEADER, Some(0x45)) => {
            be16(outer, 6) == DF && usize::from(be16(outer, 2)) == len + ipv4::MIN_HEADER && is_ip(outer[9])
        }
        (ipv6::HEADER, Some(first)) => first >> 4 == 6 && usize::from(be16(outer, 4)) == len && is_ip(outer[6]),
        _ => false,
    }
}

fn is_ip(proto: u8) -> bool {
    matches!(proto, protocol::IPV4 | protocol::IPV6)
}

/// A packet of the flow: `len` bytes with its link header in front, an acknowledgement if it is TCP's. Payload and transport
/// checksum are no business of a router's.
fn example(link: &[u8], headers: &[u8], family: Family, len: usize, ttl: u8, df: bool) -> Option<Vec<u8>> {
    let mut p = headers.to_vec();
    p.resize(len.max(headers.len()), 0);
    let l4 = match family {
        Family::Inet => {
            p[2..4].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            p[4..6].copy_from_slice(&u16::from(ttl).wrapping_mul(0x0b07).to_be_bytes());
            p[6..8].copy_from_slice(&if df { DF } else { 0 }.to_be_bytes());
            (p[8], p[10], p[11]) = (ttl, 0, 0);
            let sum = checksum::Sum::ZERO.bytes(p.get(..ipv4::MIN_HEADER)?).finish();
            p[10..12].copy_from_slice(&sum.to_be_bytes());
            ipv4::MIN_HEADER
        }
        Family::Inet6 => {
            p[4..6].copy_from_slice(&u16::try_from(len.checked_sub(ipv6::HEADER)?).ok()?.to_be_bytes());
            p[7] = ttl;
            ipv6::HEADER
        }
    };
    let proto = if family == Family::Inet { p[9] } else { p[6] };
    if proto == protocol::TCP {
        // No options, ACK.
        (p[l4 + 12], p[l4 + 13]) = (0x50, 0x10);
    } else {
        let datagram = u16::try_from(len - l4).ok()?;
        p[l4 + 4..l4 + 6].copy_from_slice(&datagram.to_be_bytes());
    }
    Some([link, &p[..]].concat())
}

#[cfg(test)]
mod tests;
