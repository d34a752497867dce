//! Echo requests that the operator has the router send, and what comes back (RFC 1812 4.3.3.6): the replies, and the errors
//! about those that found nobody. An IPv4 one may be sent along a source route (RFC 1122 3.2.1.8).

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::headers::{be16, ipv4, ipv4_options, ipv6, protocol};
use crate::icmp::answer_source;
use crate::object::{Object, ObjectId};
use crate::packet::Packet;
use crate::port::{PortId, PortKind, TableId};
use crate::router::Router;
use crate::tables::domain_of;
use crate::time::{Duration, Instant};
use crate::worker::{Fixed, Outbox, Start};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Operators who ask at once.
const SESSIONS: usize = 16;
/// Questions of one that are remembered, and answers that wait to be taken.
const MOST: usize = 1024;
/// Who has not asked for so long asks no more.
const IDLE: Duration = Duration::from_secs(60);
/// The option of the longest header, without its first three bytes, holds so many addresses.
const MOST_HOPS: usize = 9;
const MAX_OPTIONS: usize = 40;

/// One echo request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Who is to answer.
    pub target: IpAddr,
    /// From which of the router's addresses; None: the one that fits the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// To the link of this port, or into this tunnel, whatever the routes say; a VRF: by its routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Bytes behind the ICMP header.
    pub data: u32,
    /// TTL or hop limit; None: that of all that the router sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Type of service or traffic class.
    #[serde(default)]
    pub tclass: u8,
    /// IPv4: set DF.
    #[serde(default)]
    pub df: bool,
    /// IPv4: routers to be visited on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<Ipv4Addr>,
    /// And no others between them.
    #[serde(default)]
    pub strict: bool,
    /// IPv4: ask routers to record their addresses.
    #[serde(default)]
    pub record: bool,
}

impl Ping {
    /// A plain one with 56 bytes of data.
    pub fn new(target: IpAddr) -> Ping {
        Ping {
            target,
            source: None,
            dev: None,
            data: 56,
            ttl: None,
            tclass: 0,
            df: false,
            route: Vec::new(),
            strict: false,
            record: false,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PingReply {
    /// The reply.
    Echo {
        /// Its TTL or hop limit when it came here.
        ttl: u8,
        /// Its bytes behind the ICMP header.
        data: u32,
        /// Addresses that routers have recorded.
        recorded: Vec<Ipv4Addr>,
    },
    /// An ICMP error about the request.
    Error {
        /// ICMP or ICMPv6 type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Of a packet that was too big: what fits.
        mtu: Option<u32>,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// To which question.
    pub seq: u16,
    /// Who sent it.
    pub from: IpAddr,
    /// How long it took.
    pub rtt: Duration,
    /// What it says.
    pub reply: PingReply,
}

/// Why nothing was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// Nobody who asks has this number (any more).
    #[error("nobody who asks has this number (any more)")]
    NoSession,
    /// It can be no host.
    #[error("{0} is the address of no single host")]
    Target(IpAddr),
    /// Nobody else is asked.
    #[error("{0} is this router's own address")]
    Own(IpAddr),
    /// A source that is not the router's.
    #[error("{0} is no address of this router")]
    NotOwn(IpAddr),
    /// No address to ask from.
    #[error("the router has no {0} address to ask from")]
    NoSource(&'static str),
    /// No way, or none that is allowed.
    #[error("Network is unreachable: {0}")]
    NoRoute(DropReason),
    /// No such port.
    #[error("Cannot find device \"{0}\"")]
    NoDevice(String),
    /// Too long for a packet, or for a buffer.
    #[error("such a long packet fits no buffer")]
    Size,
    /// For IPv4 alone, of both families, or too many addresses.
    #[error("{0}")]
    Options(&'static str),
}

/// Who asks.
#[derive(Debug)]
struct Session {
    next: u16,
    used: Instant,
    /// By number: when it was sent, to whom.
    sent: BTreeMap<u16, (Instant, IpAddr)>,
    answers: Vec<PingAnswer>,
}

/// All who ask, by the identifier of their questions.
#[derive(Debug, Default)]
pub(super) struct Pings(BTreeMap<u16, Session>);

impl Pings {
    /// See [`crate::tables::Tables::pings`].
    pub(super) fn identifiers(&self) -> Arc<[u16]> {
        self.0.keys().copied().collect()
    }

    /// A question is answered: by whom it was asked, how long ago, of whom. Each is once.
    fn take(&mut self, now: Instant, ident: u16, seq: u16) -> Option<(&mut Session, Duration, IpAddr)> {
        let session = self.0.get_mut(&ident)?;
        let (at, target) = session.sent.remove(&seq)?;
        Some((session, now.saturating_since(at), target))
    }
}

impl Session {
    fn note(&mut self, answer: PingAnswer) {
        if self.answers.len() < MOST {
            self.answers.push(answer);
        }
    }
}

impl Router {
    /// Begins to ask. The number that is returned is the identifier of all its requests. Follow with [`Router::commit`]:
    /// workers must know which replies are awaited.
    pub fn open_ping(&mut self, now: Instant) -> u16 {
        let all = &mut self.pings.0;
        all.retain(|_, s| now.saturating_since(s.used) < IDLE);
        while all.len() >= SESSIONS
            && let Some(oldest) = all.iter().min_by_key(|(_, s)| s.used).map(|(ident, _)| *ident)
        {
            all.remove(&oldest);
        }
        let mut ident = (self.seed >> 13) as u16 ^ (now.as_nanos() >> 10) as u16;
        while all.contains_key(&ident) {
            ident = ident.wrapping_add(1);
        }
        all.insert(ident, Session { next: 0, used: now, sent: BTreeMap::new(), answers: Vec::new() });
        self.changed = true;
        ident
    }

    /// Sends an echo request. Says from which address, and which number it has; the first has 1.
    pub fn ping(
        &mut self,
        now: Instant,
        session: u16,
        ping: &Ping,
        out: &mut Outbox,
    ) -> Result<(IpAddr, u16), PingError> {
        let Some(seq) = self.pings.0.get(&session).map(|s| s.next.wrapping_add(1)) else {
            return Err(PingError::NoSession);
        };
        let (source, start) = self.ping_way(ping)?;
        let ttl = ping.ttl.unwrap_or(self.settings.icmp.ttl);
        let request = request(ping, source, (session, seq), ttl)?;
        let Some(mut frame) = out.pool.take() else { return Err(PingError::Size) };
        if !frame.set_data(&request) {
            out.pool.put(frame);
            return Err(PingError::Size);
        }
        if let Some(s) = self.pings.0.get_mut(&session) {
            (s.next, s.used) = (seq, now);
            if s.sent.len() >= MOST {
                s.sent.pop_first();
            }
            s.sent.insert(seq, (now, ping.target));
        }
        self.worker.counters().originated.add(1);
        let tables = Arc::clone(&self.tables);
        self.worker.launch(now, &mut Fixed(tables), frame, start, out);
        Ok((source, seq))
    }

    /// Answers since the last call.
    pub fn ping_answers(&mut self, now: Instant, session: u16) -> Result<Vec<PingAnswer>, PingError> {
        let s = self.pings.0.get_mut(&session).ok_or(PingError::NoSession)?;
        s.used = now;
        Ok(std::mem::take(&mut s.answers))
    }

    /// From which address, and which way.
    fn ping_way(&self, ping: &Ping) -> Result<(IpAddr, Start), PingError> {
        let target = ping.target;
        let single = match target {
            IpAddr::V4(a) => !(a.is_unspecified() || a.is_broadcast() || a.is_multicast()),
            IpAddr::V6(a) => !(a.is_unspecified() || a.is_multicast()),
        };
        if !single {
            return Err(PingError::Target(target));
        }
        // A source route begins with the first router to be visited.
        let first = ping.route.first().map_or(target, |hop| IpAddr::V4(*hop));
        if Family::of(&first) != Family::of(&target) {
            return Err(PingError::Options("a source route is for IPv4 alone"));
        }
        let dev = match &ping.dev {
            Some(name) => {
                let port = self
                    .port_names
                    .get(name)
                    .and_then(|id| self.ports.get(*id))
                    .ok_or_else(|| PingError::NoDevice(name.clone()))?;
                Some((port.id, port.kind, port.table))
            }
            None => None,
        };
        let table = dev.map_or(TableId::MAIN, |(.., table)| domain_of(table));
        let here = |addr: IpAddr| self.ports.owners(addr).any(|p| domain_of(p.table) == table);
        if here(target) && ping.route.is_empty() {
            return Err(PingError::Own(target));
        }
        let (port, start) = match dev.filter(|(_, kind, _)| *kind != PortKind::Vrf) {
            Some((id, ..)) => (Some(id), Start::Link(id)),
            None => (self.egress(table, first)?, Start::Lookup(table)),
        };
        let source = match ping.source {
            Some(source) if Family::of(&source) == Family::of(&target) && here(source) => source,
            Some(source) => return Err(PingError::NotOwn(source)),
            None => self.ping_source(port, table, first).ok_or(PingError::NoSource(match target {
                IpAddr::V4(_) => "IPv4",
                IpAddr::V6(_) => "IPv6",
            }))?,
        };
        Ok((source, start))
    }

    /// The address that fits best: one of the link by which it goes (RFC 1812 4.3.2.4), else another of that VRF.
    fn ping_source(&self, port: Option<PortId>, table: TableId, to: IpAddr) -> Option<IpAddr> {
        let port = port.and_then(|id| self.ports.get(id));
        let link_local = matches!(to, IpAddr::V6(a) if a.is_unicast_link_local());
        let usable = |p: &PortId, a: &IpAddr| !self.own.is_tentative(*p, a);
        if link_local {
            return port
                .and_then(|p| Some((p.id, IpAddr::V6(p.link_local()?))))
                .filter(|(p, a)| usable(p, a))
                .map(|(_, a)| a);
        }
        let on_link = port.and_then(|p| {
            let near = p.addrs.iter().find(|n| n.contains(&to) && usable(&p.id, &n.addr()));
            near.map(|n| n.addr()).or_else(|| answer_source(p, &self.ports, to))
        });
        let other = || self.ports.first_with(table, Family::of(&to)).and_then(|p| answer_source(p, &self.ports, to));
        on_link.or_else(other)
    }

    /// The port by which a packet of ours leaves; None where that is not told by the route alone.
    fn egress(&self, table: TableId, dst: IpAddr) -> Result<Option<PortId>, PingError> {
        let tables = &self.tables;
        let mut id = tables.lookup(table, &dst);
        for _ in 0..8 {
            id = match tables.routing.objects.get(id) {
                Some(Object::Glean(g)) => return Ok(Some(g.port)),
                Some(Object::Incomplete(i)) => return Ok(Some(i.port)),
                Some(Object::Forward(f)) => return Ok(Some(f.port)),
                Some(Object::Encap(e)) => return Ok(Some(e.tunnel)),
                Some(Object::Group(g)) => g.member(0).unwrap_or(ObjectId::NO_ROUTE),
                Some(Object::Counted(c)) => c.next,
                Some(Object::Sources(_) | Object::Plugin(_)) => return Ok(None),
                Some(Object::Table(t)) => tables.lookup(*t, &dst),
                // The rules may know better; the worker asks them.
                Some(Object::Discard(_)) if tables.policy.is_some() => return Ok(None),
                Some(Object::Discard(reason)) => return Err(PingError::NoRoute(*reason)),
                Some(Object::Local) => return Err(PingError::Own(dst)),
                Some(Object::Broadcast) => return Err(PingError::Target(dst)),
                None => return Err(PingError::NoRoute(DropReason::NextHopUnusable)),
            };
        }
        Ok(None)
    }

    /// An echo reply came. True when the operator had asked for it. `packet` is whole and its checksum right.
    pub(super) fn ping_answered(&mut self, now: Instant, packet: &Packet, data: &[u8]) -> bool {
        let body = packet.transport(data);
        let (ident, seq) = (be16(body, 4), be16(body, 6));
        // The reply's source is who was asked (RFC 1122 3.2.2.6).
        let asked = self.pings.0.get(&ident).and_then(|s| s.sent.get(&seq)).is_some_and(|(_, t)| *t == packet.src);
        if !asked {
            return false;
        }
        let Some((session, rtt, _)) = self.pings.take(now, ident, seq) else { return false };
        let header = data.get(..usize::from(packet.l4)).filter(|_| packet.family == Family::Inet).unwrap_or_default();
        let recorded = ipv4_options::find(header, |kind| kind == ipv4_options::RECORD_ROUTE)
            .map(|(_, option)| recorded(option))
            .unwrap_or_default();
        let reply = PingReply::Echo { ttl: packet.ttl, data: body.len().saturating_sub(8) as u32, recorded };
        session.note(PingAnswer { seq, from: packet.src, rtt, reply });
        true
    }

    /// An ICMP error came, perhaps about a question. `body` is from the ICMP header on.
    pub(super) fn ping_failed(&mut self, now: Instant, from: IpAddr, body: &[u8]) {
        let (Some([kind, code]), Some(quoted)) = (body.first_chunk::<2>(), body.get(8..)) else { return };
        let request = match quoted.first().map(|b| b >> 4) {
            Some(4) if quoted.get(9) == Some(&protocol::ICMP) => {
                quoted.get(usize::from(quoted[0] & 15) * 4..).filter(|m| m.first() == Some(&8))
            }
            Some(6) if quoted.get(6) == Some(&protocol::ICMPV6) => {
                quoted.get(ipv6::HEADER..).filter(|m| m.first() == Some(&128))
            }
            _ => None,
        };
        let Some(request) = request.filter(|m| m.len() >= 8) else { return };
        let (ident, seq) = (be16(request, 4), be16(request, 6));
        let Some((session, rtt, _)) = self.pings.take(now, ident, seq) else { return };
        let mtu = match (from, kind, code) {
            (IpAddr::V4(_), 3, 4) => Some(u32::from(be16(body, 6))),
            (IpAddr::V6(_), 2, _) => Some(u32::from(be16(body, 4)) << 16 | u32::from(be16(body, 6))),
            _ => None,
        };
        session.note(PingAnswer { seq, from, rtt, reply: PingReply::Error { kind: *kind, code: *code, mtu } });
    }
}

/// Addresses of a record route option as far as its pointer says that they were written.
fn recorded(option: &[u8]) -> Vec<Ipv4Addr> {
    let end = usize::from(option.get(2).copied().unwrap_or_default()).saturating_sub(1).min(option.len());
    let list = option.get(3..end).unwrap_or_default().chunks_exact(4);
    list.filter_map(|c| Some(Ipv4Addr::from(*c.first_chunk::<4>()?))).collect()
}

/// The options of a request, padded; its destination then is the first router of the route (RFC 791 3.1).
fn options(ping: &Ping, target: Ipv4Addr) -> Result<Vec<u8>, PingError> {
    let mut o = Vec::new();
    if !ping.route.is_empty() {
        if ping.route.len() > MOST_HOPS {
            return Err(PingError::Options("a source route has room for nine routers"));
        }
        let kind = if ping.strict { ipv4_options::SSRR } else { ipv4_options::LSRR };
        o.extend([kind, 3 + 4 * ping.route.len() as u8, 4]);
        ping.route.iter().skip(1).chain([&target]).for_each(|hop| o.extend(hop.octets()));
    }
    if ping.record {
        let room = MAX_OPTIONS.saturating_sub(o.len() + 3) / 4;
        if room == 0 {
            return Err(PingError::Options("beside such a long source route there is no room to record"));
        }
        o.extend([ipv4_options::RECORD_ROUTE, 3 + 4 * room as u8, 4]);
        o.resize(o.len() + 4 * room, 0);
    }
    o.resize(o.len().next_multiple_of(4), 0);
    Ok(o)
}

/// The whole packet.
fn request(ping: &Ping, source: IpAddr, (ident, seq): (u16, u16), ttl: u8) -> Result<Vec<u8>, PingError> {
    let mut message = vec![0; 8];
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    message[6..8].copy_from_slice(&seq.to_be_bytes());
    message.extend((0..ping.data.min(u32::from(u16::MAX))).map(|n| n as u8));
    let whole =
        |header: usize, counted: usize| u16::try_from(counted).map(|n| (header, n)).map_err(|_| PingError::Size);
    match (source, ping.target) {
        (IpAddr::V4(src), IpAddr::V4(target)) => {
            message[0] = 8;
            let sum = checksum::checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let options = options(ping, target)?;
            let header = ipv4::MIN_HEADER + options.len();
            let (header, total_len) = whole(header, header + message.len())?;
            let dst = ping.route.first().copied().unwrap_or(target);
            let mut packet = vec![0; ipv4::MIN_HEADER];
            // RFC 6864 4.3: another one for each, as it may be fragmented.
            let ident = ident.wrapping_mul(31).wrapping_add(seq);
            ipv4::Header { tos: ping.tclass, total_len, ident, df: ping.df, ttl, proto: protocol::ICMP, src, dst }
                .write(&mut packet);
            packet.extend(options);
            packet[0] = 0x40 | (header / 4) as u8;
            checksum::fill_ipv4_header(&mut packet);
            packet.extend(message);
            Ok(packet)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            if ping.record {
                return Err(PingError::Options("routes are recorded by IPv4 routers alone"));
            }
            message[0] = 128;
            let (_, len) = whole(0, message.len())?;
            let sum = checksum::pseudo_v6(src, dst, protocol::ICMPV6, u32::from(len)).bytes(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let bytes = len.to_be_bytes();
            let tclass = ping.tclass;
            let mut packet = vec![0x60 | tclass >> 4, tclass << 4, 0, 0, bytes[0], bytes[1], protocol::ICMPV6, ttl];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(message);
            Ok(packet)
        }
        _ => Err(PingError::NotOwn(source)),
    }
}
