//! Which way a tunnel's packets go: `encap auto` (the bare protocol first, UDP when the path eats it), and peers whose UDP
//! port is learned because a NAT chose it.
//!
//! A path is used, and what comes by it is heard, only once the peer has answered a question by that very path. The question
//! has a number that nobody can guess who does not see it; the other end answers in kind, by the path by which it was
//! asked. So each end finds its way by itself, and both come to ways that work in both directions.

use super::keepalive::Keeper;
use crate::addr::Family;
use crate::checksum;
use crate::decap::{DecapKey, UdpPorts};
use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, local};
use crate::frame::Frame;
use crate::headers::{be16, ipv4, protocol};
use crate::icmp::set_ttl;
use crate::journal::Happened;
use crate::object::{Encap, ObjectId};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::router::Router;
use crate::routing::EncapFacts;
use crate::time::{Duration, Instant};
use crate::tunnel::path::{Arrivals, MOST, Path, echo_request};
use crate::tunnel::spec::{TunnelOptions, TunnelSpec, UdpOptions};
use crate::tunnel::{Encapsulate, Outer, TunnelState, decapsulate};
use crate::worker::{Fixed, Outbox, Start};
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// What questions about a path begin with. Keepalives begin otherwise: they say which path the peer uses.
const MAGIC: &[u8; 8] = b"duet-try";
/// Bytes of a question behind the ICMP header: the magic and a random number.
const DATA: usize = 16;
/// Two questions about one path have at least so much time between them.
const APART: Duration = Duration::from_millis(500);
/// The bare protocol is tried again after at most so many times the configured interval.
const MOST_HOLD: u32 = 12;
/// How long an answer by another path counts, in intervals of the keepalive.
const FRESH: u32 = 3;

/// Why a tunnel took the path it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathCause {
    /// It begins so.
    Start,
    /// No answer came by the one before, and one came by this.
    Unanswered,
    /// The bare protocol passes again.
    PassesAgain,
    /// The peer uses it, and does not answer by the one before.
    PeerMoved,
}

impl PathCause {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            PathCause::Start => "as configured",
            PathCause::Unanswered => "nothing else is answered",
            PathCause::PassesAgain => "it passes again",
            PathCause::PeerMoved => "the peer moved there",
        }
    }
}

/// The path of a tunnel as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// By which is sent; None: the peer's port is not known yet.
    pub path: Option<Path>,
    /// Since how long.
    pub age: Duration,
    /// Why.
    pub cause: PathCause,
    /// How often it changed.
    pub changes: u32,
    /// When the bare protocol is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Duration>,
    /// What became of the last question by each path.
    #[serde(default)]
    pub passes: Vec<PathResult>,
}

/// What became of a question by a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathResult {
    /// By which it was asked.
    pub path: Path,
    /// How long the answer took, in microseconds; None: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
}

/// Why a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The path in use is not answered: does this one work?
    Spare,
    /// The bare protocol is tried again.
    Retry,
    /// Something came by it.
    Heard,
    /// Somebody answered elsewhere: is the peer still here?
    Still,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    path: Path,
    why: Why,
    seq: u16,
    token: u64,
    sent: Instant,
}

/// The paths of one tunnel.
#[derive(Debug)]
pub(super) struct Paths {
    auto: bool,
    /// Our UDP port.
    own: u16,
    /// The peer's, if configured.
    peer: u16,
    current: Option<Path>,
    /// By which the peer is heard.
    heard: ArrayVec<Path, MOST>,
    questions: ArrayVec<Question, 8>,
    asked: u16,
    secret: u64,
    since: Instant,
    cause: PathCause,
    changes: u32,
    /// How long the bare protocol is left alone: as configured, and now.
    retry: Duration,
    hold: Duration,
    /// Between two questions of a retry, and how many have to be answered.
    interval: Duration,
    wanted: u8,
    good: u8,
    /// When something is to be done without being asked.
    pub(super) next: Option<Instant>,
    /// The other path that was answered last, and when.
    spare: Option<(Path, Instant)>,
    /// What became of the last question by each path.
    results: ArrayVec<PathResult, MOST>,
    /// Somebody answered by this path; it is taken unless the peer is still where it was.
    rival: Option<Path>,
}

impl Paths {
    /// Those of a tunnel that needs them.
    pub(super) fn of(now: Instant, spec: &TunnelSpec, seed: u64, id: PortId) -> Option<Paths> {
        let (o, udp) = (&spec.options, spec.options.udp?);
        if o.auto.is_none() && !udp.learn {
            return None;
        }
        let configured = (udp.dport != 0).then_some(Path::Udp(udp.dport));
        let bare = o.auto.map(|_| Path::Bare);
        let keepalive = o.keepalive?;
        let retry = Duration::from_secs(u64::from(o.auto.unwrap_or_default().retry));
        Some(Paths {
            auto: o.auto.is_some(),
            own: udp.listens(),
            peer: if udp.learn { 0 } else { udp.dport },
            current: bare.or(configured),
            heard: bare.into_iter().chain(configured).collect(),
            questions: ArrayVec::new(),
            asked: 0,
            secret: mix(seed ^ u64::from(id.0) << 32),
            since: now,
            cause: PathCause::Start,
            changes: 0,
            retry,
            hold: retry,
            interval: Duration::from_millis(u64::from(keepalive.interval)),
            wanted: keepalive.hold,
            good: 0,
            next: None,
            spare: None,
            results: ArrayVec::new(),
            rival: None,
        })
    }

    pub(super) fn info(&self, now: Instant) -> PathInfo {
        let retry = match self.current {
            Some(Path::Udp(_)) if self.auto => self.next.map(|at| at.saturating_since(now)),
            _ => None,
        };
        let age = now.saturating_since(self.since);
        PathInfo {
            path: self.current,
            age,
            cause: self.cause,
            changes: self.changes,
            retry,
            passes: self.results.to_vec(),
        }
    }

    pub(super) fn arrivals(&self) -> Arrivals {
        Arrivals { current: self.current, heard: self.heard.clone() }
    }

    /// UDP ports of the peer by which it is heard, beside the configured one.
    fn learned(&self) -> impl Iterator<Item = u16> + '_ {
        self.heard.iter().filter_map(|p| match p {
            Path::Udp(port) if *port != self.peer => Some(*port),
            _ => None,
        })
    }

    /// The tunnel's options on a path; `None`: while there is none.
    fn options(&self, options: &TunnelOptions, path: Option<Path>) -> TunnelOptions {
        let udp = options.udp.map(|u| UdpOptions { sport: if u.sport == 0 { self.own } else { u.sport }, ..u });
        let udp = match path {
            Some(Path::Bare) => None,
            Some(Path::Udp(dport)) => udp.map(|u| UdpOptions { dport, ..u }),
            None => udp.map(|u| UdpOptions { dport: 0, ..u }),
        };
        TunnelOptions { udp, ..options.clone() }
    }

    /// A question about a path, unless one has just been asked for the same reason: its number and its secret.
    fn ask(&mut self, now: Instant, path: Path, why: Why) -> Option<(u16, u64)> {
        let lately = |q: &Question| q.path == path && q.why == why && now.saturating_since(q.sent) < APART;
        if self.questions.iter().any(lately) {
            return None;
        }
        self.questions.retain(|q| q.path != path || q.why != why);
        if self.questions.is_full() {
            self.questions.remove(0);
        }
        self.asked = self.asked.wrapping_add(1);
        self.secret = mix(self.secret ^ now.as_nanos());
        let (seq, token) = (self.asked, self.secret);
        self.questions.push(Question { path, why, seq, token, sent: now });
        self.results.retain(|r| r.path != path);
        if self.results.is_full() {
            self.results.remove(0);
        }
        self.results.push(PathResult { path, rtt_us: None });
        Some((seq, token))
    }

    /// The question that this answers.
    fn answered(&mut self, now: Instant, path: Path, seq: u16, token: u64) -> Option<Question> {
        let at = self.questions.iter().position(|q| q.path == path && q.seq == seq && q.token == token)?;
        let question = self.questions.remove(at);
        let rtt = u32::try_from(now.saturating_since(question.sent).as_micros()).unwrap_or(u32::MAX);
        self.results.iter_mut().filter(|r| r.path == path).for_each(|r| r.rtt_us = Some(rtt));
        Some(question)
    }

    /// Other paths that may work, most wanted first.
    fn others(&self) -> ArrayVec<Path, MOST> {
        self.heard.iter().copied().filter(|p| Some(*p) != self.current).collect()
    }

    /// Another path that is answered.
    pub(super) fn spare(&self, now: Instant) -> Option<Path> {
        let fresh = |at: Instant| now.saturating_since(at) <= self.interval * FRESH;
        self.spare.filter(|(_, at)| fresh(*at)).map(|(path, _)| path)
    }

    /// Takes another path.
    fn take(&mut self, now: Instant, path: Path, cause: PathCause) {
        if self.current == Some(Path::Bare) {
            // Hold-down: what fails soon after it was taken is left alone for longer.
            let short = now.saturating_since(self.since) < self.hold && self.changes > 0;
            self.hold = if short { (self.hold * 2).min(self.retry * MOST_HOLD) } else { self.retry };
        }
        (self.current, self.since, self.cause) = (Some(path), now, cause);
        self.changes = self.changes.saturating_add(1);
        (self.good, self.rival, self.spare) = (0, None, None);
        if !self.auto {
            self.heard.clear();
        }
        self.hear(path);
        self.next = (self.auto && path != Path::Bare).then_some(now + self.hold);
    }

    /// The peer is heard by this path from now on. What was learned longest ago gives way.
    fn hear(&mut self, path: Path) {
        if self.heard.contains(&path) {
            return;
        }
        if self.heard.is_full() {
            let keep = |p: &Path| *p == Path::Bare || *p == Path::Udp(self.peer) || Some(*p) == self.current;
            let old = self.heard.iter().position(|p| !keep(p));
            self.heard.remove(old.unwrap_or(0));
        }
        self.heard.push(path);
    }
}

fn mix(v: u64) -> u64 {
    let m = u128::from(v ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (m >> 64) as u64 ^ m as u64
}

impl super::Tunnel {
    /// The options in force: those of the path in use. `socket`: what is in UDP leaves by a socket, which has one port.
    pub(super) fn options(&self, socket: bool) -> TunnelOptions {
        let mut options = match &self.paths {
            Some(p) => p.options(&self.spec.options, p.current),
            None => self.spec.options.clone(),
        };
        if let Some(u) = options.udp.as_mut().filter(|_| socket) {
            u.sport = u.listens_as(self.spec.options.udp);
        }
        options
    }

    /// The key by which datagrams from a learned port are found.
    fn learned_key(&self, remote: u16) -> DecapKey {
        let (table, own) = (self.spec.underlay_table.unwrap_or_default(), self.paths.as_ref().map_or(0, |p| p.own));
        let ports = UdpPorts { remote, local: own };
        DecapKey { proto: protocol::UDP, table, local: self.spec.local, remote: self.spec.remote, ports }
    }
}

impl super::Tunnels {
    /// Tunnels whose peer may come from any port: all that have this in common.
    pub(super) fn learners(&self, key: &DecapKey) -> Vec<PortId> {
        let group = (key.table, key.local, key.remote, key.ports.local);
        self.learners.range((group, PortId(0))..=(group, PortId::NONE)).map(|(_, id)| *id).collect()
    }
}

impl Router {
    /// Puts the keys of a tunnel's paths into force, or takes them out.
    pub(super) fn index_paths(&mut self, id: PortId, on: bool) {
        let Some(t) = self.tunnels.all.get(&id) else { return };
        let Some(paths) = &t.paths else { return };
        let keys: ArrayVec<DecapKey, MOST> = paths.learned().map(|port| t.learned_key(port)).collect();
        let any = t.learned_key(0);
        let ends = !any.local.is_unspecified() && !any.remote.is_unspecified();
        let learns = t.spec.options.udp.is_some_and(|u| u.learn) && ends;
        let group = ((any.table, any.local, any.remote, any.ports.local), id);
        for key in keys.into_iter().filter(|_| ends) {
            match on {
                true if self.decap.get(&key).is_none() => self.decap.insert(key, id),
                false if self.decap.get(&key) == Some(id) => self.decap.remove(&key),
                _ => {}
            }
        }
        if !learns {
            return;
        }
        // One of them stands for all: who it is that comes from another port is found out by asking.
        match on {
            true => self.tunnels.learners.insert(group),
            false => self.tunnels.learners.remove(&group),
        };
        let holder = self.decap.get(&any);
        let another = self.tunnels.learners(&any).first().copied();
        match (holder, another) {
            (None, Some(first)) => self.decap.insert(any, first),
            (Some(h), Some(first)) if h == id && !on => self.decap.insert(any, first),
            (Some(h), None) if h == id => self.decap.remove(&any),
            _ => {}
        }
    }

    /// A packet came by a path that is not the one in use. It is for one of our addresses on the outside, and nothing is
    /// taken off yet.
    pub(in crate::router) fn tunnel_path(&mut self, now: Instant, frame: Frame, outer: &Packet, out: &mut Outbox) {
        let table = self.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        match self.path_message(now, table, outer, frame.data(), out) {
            true => {
                self.worker.counters().delivered.add(1);
                out.pool.put(frame);
            }
            false => self.end(now, frame, DropReason::TunnelUnknownPeer, out),
        }
    }

    /// Says whether it was a question or an answer for us.
    fn path_message(&mut self, now: Instant, table: TableId, outer: &Packet, data: &[u8], out: &mut Outbox) -> bool {
        let path = Path::of(outer, data);
        let Some((id, at, family)) = self.path_owner(now, table, outer, data) else { return false };
        let known = self.tunnels.all.get(&id).and_then(|t| t.paths.as_ref()).is_some_and(|p| p.heard.contains(&path));
        let inner = data.get(at..outer.len as usize).unwrap_or_default();
        let message = Packet::parse(family, inner).ok().filter(|p| {
            let ours = self.ports.owners(p.dst).next().is_some()
                || self.ports.get(id).is_some_and(|port| port.addrs.iter().any(|a| a.addr() == p.dst));
            ours && local::checksum_ok(p, inner)
        });
        let kind = message.as_ref().and_then(|p| echo_request(p, inner));
        let body = message.as_ref().map_or(&[][..], |p| p.transport(inner));
        match (kind, &message) {
            (Some(true), Some(p)) => {
                let keepalive = !body.get(8..).is_some_and(|d| d.starts_with(MAGIC));
                if let Some(answer) = reply(p, body) {
                    self.send_by(now, id, path, &answer, out);
                }
                match known {
                    true if keepalive => self.peer_uses(now, id, path, out),
                    true => {}
                    false => self.ask_path(now, id, path, Why::Heard, out),
                }
                true
            }
            (Some(false), Some(p)) => {
                self.path_reply(now, id, Some(path), p, body, out);
                true
            }
            _ => {
                if !known {
                    self.ask_path(now, id, path, Why::Heard, out);
                }
                false
            }
        }
    }

    /// An echo reply came out of a tunnel by this path; None: by the one in use.
    pub(super) fn path_reply(
        &mut self,
        now: Instant,
        id: PortId,
        path: Option<Path>,
        packet: &Packet,
        body: &[u8],
        out: &mut Outbox,
    ) {
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let (Some(paths), Some(keepalive)) = (&mut t.paths, t.spec.options.keepalive) else { return };
        let token = body.get(16..24).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let path = path.or(paths.current);
        if keepalive.target == packet.src
            && let Some(question) = path.and_then(|path| paths.answered(now, path, be16(body, 6), token))
        {
            self.path_answered(now, id, question, out);
        }
    }

    /// Asks by every path of a tunnel that has several, for [`PathInfo::passes`] to tell what became of it.
    pub fn ask_paths(&mut self, now: Instant, name: &str, out: &mut Outbox) -> Result<(), super::TunnelError> {
        let id = self.tunnel_by_name(name)?;
        let Some(paths) = self.tunnels.all.get_mut(&id).and_then(|t| t.paths.as_mut()) else { return Ok(()) };
        paths.results.clear();
        for path in paths.heard.clone() {
            self.ask_path(now, id, path, Why::Still, out);
        }
        Ok(())
    }

    /// The tunnel that a packet belongs to, and what is inside: of several that a port may belong to, the one that has the
    /// source inside among its own.
    fn path_owner(&self, now: Instant, table: TableId, outer: &Packet, data: &[u8]) -> Option<(PortId, usize, Family)> {
        let own = be16(outer.transport(data), 2);
        let found = decapsulate::find(&self.tables, table, outer, data).ok().map(|(id, _)| id)?;
        let ports = UdpPorts { remote: 0, local: own };
        let key = DecapKey { proto: outer.proto, table, local: outer.dst, remote: outer.src, ports };
        let others = if outer.proto == protocol::UDP { self.tunnels.learners(&key) } else { Vec::new() };
        std::iter::once(found).chain(others).find_map(|id| {
            self.tunnels.all.get(&id)?.paths.as_ref()?;
            let gate = self.gates.get(id)?;
            let opened = decapsulate::open(gate, outer, data, now, &TunnelState::default()).ok()?;
            Some((id, opened.at, opened.family))
        })
    }

    /// Asks the peer by a path.
    fn ask_path(&mut self, now: Instant, id: PortId, path: Path, why: Why, out: &mut Outbox) {
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let (Some(paths), Some(k)) = (&mut t.paths, t.spec.options.keepalive) else { return };
        let Some((seq, token)) = paths.ask(now, path, why) else { return };
        let Some(source) = self.probe_source(id, k.target) else { return };
        let mut body = vec![0; 8];
        body[4..6].copy_from_slice(&((self.seed >> 7) as u16 ^ id.0 as u16).to_be_bytes());
        body[6..8].copy_from_slice(&seq.to_be_bytes());
        body.extend(MAGIC);
        body.extend(token.to_be_bytes());
        debug_assert_eq!(body.len(), 8 + DATA);
        if let Some(question) = echo(source, k.target, true, body) {
            self.send_by(now, id, path, &question, out);
        }
    }

    /// Sends a packet of ours into a tunnel by a path, whichever is in use.
    fn send_by(&mut self, now: Instant, id: PortId, path: Path, packet: &[u8], out: &mut Outbox) {
        let Some(t) = self.tunnels.all.get(&id) else { return };
        let (Some(facts), Some(paths)) = (&t.facts, &t.paths) else { return };
        let options = Arc::new(paths.options(&t.spec.options, Some(path)));
        let facts = EncapFacts { options, mtu: u32::from(u16::MAX), ..facts.clone() };
        // Another way may have another port.
        let elsewhere = match (&t.spec.options.encap_dev, path) {
            (Some(_), Path::Bare) => t.spec.dev.as_ref(),
            (encap_dev, _) => encap_dev.as_ref(),
        };
        let elsewhere = elsewhere.and_then(|d| self.port_names.get(d)).copied().filter(|d| facts.dev != Some(*d));
        let carrier = self.routing.tunnel_carrier(id);
        let (Some(carrier), Some(outer)) = (carrier.or(elsewhere.map(|_| ObjectId::NO_ROUTE)), Outer::of(&facts))
        else {
            return;
        };
        let carries = facts.mode.shape().carries;
        let encap =
            Encap { tunnel: id, mtu: facts.mtu, mss: 0, carries, carrier, outer: Some(outer), facts: Arc::new(facts) };
        let Some(mut frame) = out.pool.take() else { return };
        let start = elsewhere.map_or(Start::Object(carrier), Start::Link);
        let tables = Arc::clone(&self.tables);
        let set = frame.set_data(packet);
        set_ttl(frame.data_mut(), self.settings.icmp.ttl);
        let made = set
            && Packet::sniff(packet).and_then(|family| Packet::parse(family, packet)).is_ok_and(|p| {
                let next = ObjectId::NO_ROUTE;
                let cx = Context { now, tables: &tables, next, rehearsal: false, ident: 0 };
                Encapsulate { encap: &encap, ident: now.as_nanos() as u16 }.apply(&cx, &p, &mut frame).is_ok()
            });
        if !made {
            return out.pool.put(frame);
        }
        frame.meta.port = PortId::NONE;
        let counters = self.worker.counters();
        counters.originated.add(1);
        if let Some(c) = counters.port(id) {
            c.tx_packets.add(1);
            c.tx_bytes.add(packet.len() as u64);
        }
        self.worker.launch(now, &mut Fixed(tables), frame, start, out);
    }

    /// The peer answered by a path.
    fn path_answered(&mut self, now: Instant, id: PortId, q: Question, out: &mut Outbox) {
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let (Some(paths), Some(keeper)) = (&mut t.paths, &t.keeper) else { return };
        let silent = keeper.misses();
        if paths.current == Some(q.path) {
            // It is still where it was: whoever answered elsewhere is somebody else.
            paths.rival = None;
            return;
        }
        match q.why {
            Why::Retry => {
                paths.good = paths.good.saturating_add(1);
                if paths.good >= paths.wanted {
                    self.take_path(now, id, q.path, PathCause::PassesAgain, out);
                }
            }
            // Taken at once by a tunnel that counts as dead or has never been answered, else when all questions have been in
            // vain.
            Why::Spare if !keeper.life().alive || keeper.life().answered == 0 => {
                self.take_path(now, id, q.path, PathCause::Unanswered, out)
            }
            Why::Spare => paths.spare = Some((q.path, now)),
            Why::Still => {}
            // A path that is configured, or the first that is found.
            Why::Heard if paths.current.is_none() => self.take_path(now, id, q.path, PathCause::PeerMoved, out),
            Why::Heard if paths.auto => {
                self.index_paths(id, false);
                if let Some(paths) = self.tunnels.all.get_mut(&id).and_then(|t| t.paths.as_mut()) {
                    paths.hear(q.path);
                }
                self.index_paths(id, true);
                self.set_gate(id);
                if silent {
                    self.take_path(now, id, q.path, PathCause::PeerMoved, out);
                }
            }
            Why::Heard => {
                // Somebody behind the same address has the prefix of this peer: the peer itself, if it is no longer where
                // it was.
                if paths.rival.replace(q.path).is_some() {
                    return;
                }
                let still = paths.current;
                let at = now + APART;
                let old = paths.next.replace(at);
                if let Some(old) = old {
                    self.tunnels.trying.remove(&(old, id));
                }
                self.tunnels.trying.insert((at, id));
                if let Some(still) = still {
                    self.ask_path(now, id, still, Why::Still, out);
                }
            }
        }
    }

    /// A keepalive of the peer's came by a path that is not ours: if it does not answer by ours, that one is gone.
    fn peer_uses(&mut self, now: Instant, id: PortId, path: Path, out: &mut Outbox) {
        let silent = self.tunnels.all.get(&id).and_then(|t| t.keeper.as_ref()).is_some_and(Keeper::misses);
        if silent {
            self.take_path(now, id, path, PathCause::PeerMoved, out);
        }
    }

    pub(super) fn take_path(&mut self, now: Instant, id: PortId, path: Path, cause: PathCause, out: &mut Outbox) {
        self.index_paths(id, false);
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let Some(paths) = &mut t.paths else { return };
        if let Some(old) = paths.next {
            self.tunnels.trying.remove(&(old, id));
        }
        paths.take(now, path, cause);
        if let Some(next) = paths.next {
            self.tunnels.trying.insert((next, id));
        }
        // Another tunnel's peer had this port before: a NAT gives it to one at a time.
        let (key, fixed) = (t.learned_key(if let Path::Udp(p) = path { p } else { 0 }), t.keys.clone());
        let lost = self.decap.get(&key).filter(|other| *other != id && path != Path::Bare && !fixed.contains(&key));
        if let Some(keeper) = &mut t.keeper {
            keeper.moved(now);
            self.tunnels.asking.retain(|(_, other)| *other != id);
            self.tunnels.asking.insert((keeper.next, id));
        }
        if let Some(other) = lost {
            self.lose_path(other, path);
        }
        self.index_paths(id, true);
        self.tunnels.reindex_sender(id);
        self.tunnels.dirty.insert(id);
        self.refresh_tunnels(now);
        self.set_gate(id);
        self.note_tunnel(now, id, Happened::Changed);
        let _ = out;
    }

    fn lose_path(&mut self, id: PortId, path: Path) {
        self.index_paths(id, false);
        if let Some(paths) = self.tunnels.all.get_mut(&id).and_then(|t| t.paths.as_mut()) {
            paths.heard.retain(|p| *p != path);
            paths.current = paths.current.filter(|p| *p != path);
        }
        self.index_paths(id, true);
        self.tunnels.dirty.insert(id);
        self.set_gate(id);
    }

    /// The keepalive is not answered by the path in use: the others are asked.
    pub(super) fn seek_paths(&mut self, now: Instant, id: PortId, out: &mut Outbox) {
        let Some(t) = self.tunnels.all.get(&id) else { return };
        let (Some(paths), Some(keeper)) = (&t.paths, &t.keeper) else { return };
        if !paths.auto || !keeper.misses() {
            return;
        }
        for path in paths.others() {
            self.ask_path(now, id, path, Why::Spare, out);
        }
    }

    /// What is due: the bare protocol is tried again, or a rival has waited long enough.
    pub(super) fn poll_paths(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((at, id)) = self.tunnels.trying.first().copied().filter(|(at, _)| *at <= now) {
            self.tunnels.trying.remove(&(at, id));
            let Some(paths) = self.tunnels.all.get_mut(&id).and_then(|t| t.paths.as_mut()) else { continue };
            paths.next = None;
            if let Some(rival) = paths.rival.take() {
                self.take_path(now, id, rival, PathCause::PeerMoved, out);
                continue;
            }
            if !paths.auto || paths.current == Some(Path::Bare) {
                continue;
            }
            // The last question of this attempt is without an answer: not again for a while.
            let unanswered = paths.questions.iter().any(|q| q.why == Why::Retry);
            paths.questions.retain(|q| q.why != Why::Retry);
            let next = if unanswered {
                paths.good = 0;
                paths.hold = (paths.hold * 2).min(paths.retry * MOST_HOLD);
                now + paths.hold
            } else {
                now + paths.interval.max(APART)
            };
            paths.next = Some(next);
            self.tunnels.trying.insert((next, id));
            if !unanswered {
                self.ask_path(now, id, Path::Bare, Why::Retry, out);
            }
        }
    }
}

/// The answer to an echo request whose ICMP message is `body`.
fn reply(request: &Packet, body: &[u8]) -> Option<Vec<u8>> {
    echo(request.dst, request.src, false, body.to_vec())
}

/// An echo message: `body` from the ICMP header on, type, code and checksum still to be written.
fn echo(src: IpAddr, dst: IpAddr, request: bool, mut body: Vec<u8>) -> Option<Vec<u8>> {
    body.get_mut(..4)?.fill(0);
    let len = u16::try_from(body.len()).ok().filter(|n| *n < u16::MAX - 40)?;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            body[0] = if request { 8 } else { 0 };
            let sum = checksum::checksum(&body);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0; 20];
            let total_len = 20 + len;
            ipv4::Header { tos: 0xc0, total_len, ident: 0, df: true, ttl: 64, proto: protocol::ICMP, src, dst }
                .write(&mut packet);
            packet.extend(body);
            Some(packet)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            body[0] = if request { 128 } else { 129 };
            let sum = checksum::pseudo_v6(src, dst, protocol::ICMPV6, u32::from(len)).bytes(&body).finish();
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            let len = len.to_be_bytes();
            let mut packet = vec![0x6c, 0, 0, 0, len[0], len[1], protocol::ICMPV6, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(body);
            Some(packet)
        }
        _ => None,
    }
}
