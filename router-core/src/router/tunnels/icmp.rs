//! ICMP errors about outer packets: matched to their tunnel, remembered, and told to the sender of the packet inside as far
//! as the quote tells who that is (RFC 4213 3.2 and 3.4, RFC 2473 7 and 8, RFC 1191).

use super::mtu::MtuCause;
use crate::addr::Family;
use crate::decap::{DecapKey, UdpPorts};
use crate::headers::{be16, protocol};
use crate::icmp::{IcmpError, Offender, UnreachableV4, UnreachableV6};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::router::Router;
use crate::time::Instant;
use crate::tunnel::gre;
use crate::tunnel::mode::Between;
use crate::worker::Outbox;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What an outer error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Outer packets may have so many bytes; 0: not said.
    TooBig(u32),
    /// The peer cannot be reached, or does not know the tunnel.
    Unreachable,
    /// The same, and a whole network with it (RFC 2003 4.1 codes 0 and 2).
    NetUnreachable,
    /// Nothing that concerns the sender inside: a bare tunnel asks for no port, and has no source route (RFC 2003 4.1 codes 3
    /// and 5).
    OursAlone,
    /// The outer TTL did not suffice: a loop, or too low a TTL.
    TimeExceeded,
    /// Something about the header, such as an encapsulation limit of zero.
    Parameter,
}

/// An outer packet as quoted: at least its IP header.
struct Quoted<'q> {
    outer: Family,
    local: IpAddr,
    remote: IpAddr,
    proto: u8,
    len: u32,
    /// What follows the IP header and any destination options.
    rest: &'q [u8],
}

impl<'q> Quoted<'q> {
    /// As short as an IPv4 header and eight bytes (RFC 792); its checksum and length may have been changed on the way.
    fn read(quote: &'q [u8]) -> Option<Quoted<'q>> {
        match quote.first()? >> 4 {
            4 => {
                let h = quote.get(..20)?;
                let v4 = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
                // A later fragment does not show what is inside, but its ends tell the tunnel.
                let first = be16(h, 6) & 0x1fff == 0;
                let rest = quote.get(usize::from(h[0] & 15) * 4..).filter(|_| first).unwrap_or(&[]);
                let len = u32::from(be16(h, 2));
                Some(Quoted { outer: Family::Inet, local: v4(12), remote: v4(16), proto: h[9], len, rest })
            }
            6 => {
                let h = quote.get(..40)?;
                let v6 = |at: usize| h.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(Ipv6Addr::from);
                let (mut proto, mut at) = (h[6], 40);
                while matches!(proto, protocol::DEST_OPTIONS | protocol::FRAGMENT) {
                    let x = quote.get(at..at + 8)?;
                    at += if proto == protocol::FRAGMENT { 8 } else { (usize::from(x[1]) + 1) * 8 };
                    proto = x[0];
                }
                let (local, remote) = (IpAddr::V6(v6(8)?), IpAddr::V6(v6(24)?));
                let rest = quote.get(at..).unwrap_or(&[]);
                Some(Quoted { outer: Family::Inet6, local, remote, proto, len: 40 + u32::from(be16(h, 4)), rest })
            }
            _ => None,
        }
    }
}

impl Router {
    /// An ICMP error came for us through a port of `table`. Says whether it was about a tunnel.
    pub(in crate::router) fn tunnel_error(
        &mut self,
        now: Instant,
        table: TableId,
        error: &Packet,
        body: &[u8],
        out: &mut Outbox,
    ) -> bool {
        let (Some(meaning), Some(quoted)) = (meaning(error.family, body), body.get(8..).and_then(Quoted::read)) else {
            return false;
        };
        let Some(id) = self.quoted_tunnel(table, &quoted) else { return false };
        let inner = self.quoted_inner(id, &quoted).to_vec();
        if let Some(t) = self.tunnels.all.get_mut(&id) {
            t.errors += 1;
            t.last_error = Some((now, error.src, body[0], body[1]));
        }
        let meaning = match (meaning, body[1]) {
            (Meaning::Unreachable, 0 | 2) if error.family == Family::Inet => Meaning::NetUnreachable,
            (Meaning::Unreachable, 3) if error.family == Family::Inet && quoted.proto != protocol::UDP => {
                Meaning::OursAlone
            }
            (Meaning::Unreachable, 5) if error.family == Family::Inet => Meaning::OursAlone,
            (meaning, _) => meaning,
        };
        let answer: Option<fn(Family, u32) -> IcmpError> = match meaning {
            // RFC 8201 4: no IPv6 link is as narrow as that; it is not believed.
            Meaning::TooBig(mtu) if quoted.outer == Family::Inet6 && mtu < crate::tunnel::IPV6_MIN_MTU => None,
            Meaning::TooBig(mtu) => {
                // RFC 1191 5: an old router says 0; take the next lower plateau. RFC 1191 6.3 and common sense: never
                // below what every path carries, never above what was sent.
                let mtu = if mtu == 0 { plateau_below(quoted.len) } else { mtu };
                let least = if quoted.outer == Family::Inet { 68 } else { crate::tunnel::IPV6_MIN_MTU };
                let outer = mtu.clamp(least, quoted.len.max(least));
                let inside = self.learn_outer_mtu(now, id, outer, MtuCause::Icmp(error.src)).unwrap_or(0);
                // RFC 4213 3.2.2 and RFC 2473 7.1: what may be fragmented outside, or is short enough, is not refused.
                let long = inner.first().is_some_and(|_| inner_len(&inner) > inside);
                if long {
                    self.tell(now, id, &inner, IcmpError::too_big(family_of(&inner), inside), out)
                }
                None
            }
            Meaning::OursAlone => None,
            Meaning::NetUnreachable => Some(|family, _| match family {
                Family::Inet => IcmpError::unreachable_v4(UnreachableV4::Net),
                Family::Inet6 => IcmpError::unreachable_v6(UnreachableV6::Address),
            }),
            // RFC 4213 3.4, RFC 2473 8.2 and 8.3: whatever went wrong between the ends, the tunnel as a link has failed.
            Meaning::Unreachable | Meaning::TimeExceeded | Meaning::Parameter => Some(|family, _| match family {
                Family::Inet => IcmpError::unreachable_v4(UnreachableV4::Host),
                Family::Inet6 => IcmpError::unreachable_v6(UnreachableV6::Address),
            }),
        };
        if let (Some(answer), false) = (answer, inner.is_empty()) {
            self.tell(now, id, &inner, answer(family_of(&inner), 0), out);
        }
        true
    }

    /// The tunnel that sent a quoted packet.
    fn quoted_tunnel(&self, table: TableId, q: &Quoted<'_>) -> Option<PortId> {
        if q.proto == protocol::UDP {
            return self.tunnels.that_sent(table, q.local, q.remote, (be16(q.rest, 0), be16(q.rest, 2)));
        }
        let key = |proto, remote| DecapKey { proto, table, local: q.local, remote, ports: UdpPorts::default() };
        if q.proto == protocol::GRE {
            // The key stands in the first eight bytes unless a checksum comes before it.
            let found = q.rest.first().map(|flags| (flags & 0x20 != 0, gre::key(q.rest)));
            let sent = found.filter(|(there, key)| !there || key.is_some()).map(|(_, key)| key);
            let id = self.sender_by_key(&key(protocol::GRE, q.remote), sent);
            return id.filter(|id| self.tunnels.all.contains_key(id));
        }
        let get = |proto, remote| self.decap.get(&key(proto, remote));
        let found = get(q.proto, q.remote).or_else(|| match q.proto {
            // A 6in4 tunnel sends protocol 4, too; a 6rd tunnel sends to anybody.
            protocol::IPV4 if q.outer == Family::Inet => get(protocol::IPV6, q.remote),
            protocol::IPV6 if q.outer == Family::Inet => get(protocol::IPV6, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            _ => None,
        });
        found.filter(|id| self.tunnels.all.contains_key(id))
    }

    /// The packet inside a quoted one, as far as it is there: empty unless its whole IP header is.
    fn quoted_inner<'q>(&self, id: PortId, q: &Quoted<'q>) -> &'q [u8] {
        let Some(t) = self.tunnels.all.get(&id) else { return &[] };
        let (shape, o) = (t.spec.mode.shape(), &t.spec.options);
        let udp = o.udp.filter(|_| q.proto == protocol::UDP).map_or(0, |u| u.kind.added() as usize);
        let gre = if shape.between == Between::Gre { o.gre.sent_len() as usize } else { 0 };
        let inner = q.rest.get(udp + gre..).unwrap_or(&[]);
        let whole = match inner.first().map(|b| b >> 4) {
            Some(4) => inner.len() >= 20,
            Some(6) => inner.len() >= 40,
            _ => false,
        };
        if whole { inner } else { &[] }
    }

    /// Sends an error about a packet that went into a tunnel to the one who sent it. Not to those behind the tunnel
    /// itself, and not about an error (the rules of [`Offender`]).
    fn tell(&mut self, now: Instant, tunnel: PortId, inner: &[u8], error: IcmpError, out: &mut Outbox) {
        let Some(about) = Offender::refused(inner, false) else { return };
        if !about.may_be_answered_with(&error) {
            return;
        }
        let tables = Arc::clone(&self.tables);
        // As if it had been refused when it came: by the port behind which its sender is.
        let ingress = self.towards(about.src()).map_or(tunnel, |(p, _)| p.id);
        self.worker.launch_error(now, &tables, &error, &about, ingress, out);
    }
}

fn meaning(family: Family, body: &[u8]) -> Option<Meaning> {
    let (kind, code) = (*body.first()?, *body.get(1)?);
    Some(match (family, kind, code) {
        (Family::Inet, 3, 4) => Meaning::TooBig(u32::from(be16(body, 6))),
        (Family::Inet, 3, _) => Meaning::Unreachable,
        (Family::Inet, 11, 0) => Meaning::TimeExceeded,
        (Family::Inet, 12, _) => Meaning::Parameter,
        (Family::Inet6, 2, _) => Meaning::TooBig(u32::from_be_bytes(body.get(4..8)?.try_into().ok()?)),
        (Family::Inet6, 1, _) => Meaning::Unreachable,
        (Family::Inet6, 3, 0) => Meaning::TimeExceeded,
        (Family::Inet6, 4, _) => Meaning::Parameter,
        _ => return None,
    })
}

fn family_of(packet: &[u8]) -> Family {
    if packet.first().is_some_and(|b| b >> 4 == 4) { Family::Inet } else { Family::Inet6 }
}

fn inner_len(packet: &[u8]) -> u32 {
    match family_of(packet) {
        Family::Inet => u32::from(be16(packet, 2)),
        Family::Inet6 => 40 + u32::from(be16(packet, 4)),
    }
}

/// The plateau table of RFC 1191 7.1.
fn plateau_below(sent: u32) -> u32 {
    const PLATEAUS: [u32; 10] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];
    PLATEAUS.into_iter().find(|p| *p < sent).unwrap_or(68)
}
