//! The state of a NAT64, kept by the control side: bindings, sessions, lifetimes (RFC 6146 3.1, 3.5, 4).

use super::pool::Pool;
use super::table::{Row, SessionTable};
use super::tcp::{Side, TcpState, Timer};
use super::{Ends6Out, Nat64Map};
use crate::drop_reason::DropReason;
use crate::headers::protocol;
use crate::time::{Duration, Instant};
use crate::translate::Refusal;
use crate::translate::ends::{Ends4, Ends6};
use crate::translate::spec::{Filtering, Timeouts, TranslatorSpec};
use foldhash::fast::FixedState;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Sessions looked at in one [`Nat64::poll`]: some milliseconds.
const POLL_SLICE: usize = 4096;

const SYN: u8 = 0x02;

/// A transport address under a protocol.
type Bind6 = (u8, Ipv6Addr, u16);
type Bind4 = (u8, Ipv4Addr, u16);

/// A binding of an IPv6 transport address to an IPv4 one (BIB entry).
#[derive(Debug)]
struct Binding {
    mapped: (Ipv4Addr, u16),
    sessions: u32,
}

/// What an IPv6 host has.
#[derive(Debug)]
struct HostState {
    /// Index of its address in the pool: all its bindings share it where they can (RFC 4787 REQ-2).
    pool_index: usize,
    sessions: u32,
}

#[derive(Debug)]
struct Session {
    row: Row,
    tcp: Option<TcpState>,
    /// What the control side has set; packets that workers translated come on top.
    until: Instant,
    /// Where it stands in the queue.
    queued: Instant,
}

/// A session as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Protocol number: 6, 17 or 1.
    pub proto: u8,
    /// The IPv6 host.
    pub host: Ipv6Addr,
    /// Its port or identifier.
    pub host_port: u16,
    /// The mapped IPv4 address.
    pub mapped: Ipv4Addr,
    /// The mapped port or identifier.
    pub mapped_port: u16,
    /// The IPv4 peer.
    pub peer: Ipv4Addr,
    /// The peer's port; 0 for ICMP.
    pub peer_port: u16,
    /// State of a TCP session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<TcpState>,
    /// Seconds until it is forgotten.
    pub expires: u64,
}

/// Counts of a NAT64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nat64Stats {
    /// Sessions now.
    pub sessions: u64,
    /// Bindings now.
    pub bindings: u64,
    /// IPv6 hosts that have sessions now.
    pub hosts: u64,
    /// Sessions made since the start.
    pub created: u64,
    /// Sessions forgotten since the start.
    pub expired: u64,
    /// Sessions refused because a limit was reached.
    pub refused_limit: u64,
    /// Sessions refused because no port was free.
    pub refused_pool: u64,
    /// Packets from the IPv4 side that the filter kept out.
    pub filtered: u64,
    /// Ports in use of TCP, UDP and ICMP.
    pub ports_in_use: [u32; 3],
}

/// A TCP session has been silent for as long as an open connection may be: its IPv6 host is to be asked whether it still
/// has it (RFC 6146 3.5.2.2, ESTABLISHED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// From the peer to the host.
    pub ends: Ends6,
}

/// See the module.
#[derive(Debug)]
pub struct Nat64 {
    map: Nat64Map,
    table: Arc<SessionTable>,
    pool: Pool,
    timeouts: Timeouts,
    filtering: Filtering,
    per_host: u32,
    sessions: Vec<Option<Session>>,
    free: Vec<u32>,
    by_host: HashMap<Bind6, Binding, FixedState>,
    by_mapped: HashMap<Bind4, (Ipv6Addr, u16), FixedState>,
    hosts: HashMap<Ipv6Addr, HostState, FixedState>,
    /// Sessions per binding and peer, for address-dependent filtering.
    peers: HashMap<(Bind4, Ipv4Addr), u32, FixedState>,
    queue: BTreeSet<(Instant, u32)>,
    stats: Nat64Stats,
}

impl Nat64 {
    /// A NAT64 without sessions. `spec` must have been checked; None when it has no prefix. `seed` decides ports and
    /// hashes: a new one each start.
    pub fn new(spec: &TranslatorSpec, seed: u64) -> Option<Self> {
        let table = Arc::new(SessionTable::new(spec.max_sessions, seed));
        let map = Nat64Map {
            prefix: spec.prefix?,
            allow_non_global: spec.allow_non_global,
            table: Arc::clone(&table),
            pool: spec.pool.clone().into(),
        };
        Some(Nat64 {
            map,
            table,
            pool: Pool::new(&spec.pool, seed.rotate_left(17)),
            timeouts: spec.timeouts,
            filtering: spec.filtering,
            per_host: spec.max_sessions_per_host,
            sessions: Vec::new(),
            free: Vec::new(),
            by_host: HashMap::with_hasher(FixedState::with_seed(seed ^ 1)),
            by_mapped: HashMap::with_hasher(FixedState::with_seed(seed ^ 2)),
            hosts: HashMap::with_hasher(FixedState::with_seed(seed ^ 3)),
            peers: HashMap::with_hasher(FixedState::with_seed(seed ^ 4)),
            queue: BTreeSet::new(),
            stats: Nat64Stats::default(),
        })
    }

    /// What workers translate by.
    pub fn map(&self) -> &Nat64Map {
        &self.map
    }

    /// A packet from the IPv6 side that a worker asks about (RFC 6146 3.5): its session is made or moves on. Ok: it may be
    /// translated now.
    pub fn outbound(&mut self, now: Instant, e: &Ends6, tcp_flags: u8) -> Result<(), DropReason> {
        let out = self.map.outbound(e).map_err(reason)?;
        if let Some(found) = self.table.find6(&out) {
            return self.advance(now, found.id, Side::V6, tcp_flags);
        }
        let key = out.key();
        let bind = (key.proto, key.host, key.port);
        let tcp = match key.proto {
            protocol::TCP if tcp_flags & SYN != 0 => Some(TcpState::V6Init),
            // Of a connection that was forgotten; only a host that has other sessions there may go on with it.
            protocol::TCP if self.by_host.contains_key(&bind) => Some(TcpState::Trans),
            protocol::TCP => return Err(DropReason::TranslateNoSession),
            _ => None,
        };
        self.check_limits(key.host)?;
        let mapped = self.bind(bind)?;
        self.create(now, key, mapped, tcp)
    }

    /// A packet from the IPv4 side that a worker asks about.
    pub fn inbound(&mut self, now: Instant, e: &Ends4, tcp_flags: u8) -> Result<(), DropReason> {
        self.map.inbound(e).map_err(reason)?;
        if let Some(found) = self.table.find4(e) {
            return self.advance(now, found.id, Side::V4, tcp_flags);
        }
        let bind = (e.proto, e.dst, e.dport);
        let Some(host) = self.by_mapped.get(&bind).copied() else { return Err(DropReason::TranslateNoSession) };
        if self.filtering == Filtering::AddressDependent && !self.peers.contains_key(&(bind, e.src)) {
            self.stats.filtered += 1;
            return Err(DropReason::TranslateFiltered);
        }
        let tcp = match e.proto {
            protocol::TCP if tcp_flags & SYN != 0 => Some(TcpState::V4Init),
            protocol::TCP => Some(TcpState::Trans),
            _ => None,
        };
        self.check_limits(host.0)?;
        let out = Ends6Out { host: host.0, port: host.1, peer: e.src, peer_port: e.sport, proto: e.proto }.key();
        self.create(now, out, (e.dst, e.dport), tcp)
    }

    fn check_limits(&mut self, host: Ipv6Addr) -> Result<(), DropReason> {
        let full = self.live() >= self.table.capacity();
        if full || self.hosts.get(&host).is_some_and(|h| h.sessions >= self.per_host) {
            self.stats.refused_limit += 1;
            return Err(DropReason::TranslateTableFull);
        }
        Ok(())
    }

    fn live(&self) -> usize {
        self.sessions.len() - self.free.len()
    }

    /// The IPv4 transport address of an IPv6 one, chosen if it has none.
    fn bind(&mut self, bind: Bind6) -> Result<(Ipv4Addr, u16), DropReason> {
        if let Some(b) = self.by_host.get(&bind) {
            return Ok(b.mapped);
        }
        let (proto, host, port) = bind;
        let at = match self.hosts.get(&host) {
            Some(h) => h.pool_index,
            None => self.pool.choose(),
        };
        let Some((pool_index, addr, mapped_port)) = self.pool.take(at, proto, port) else {
            self.stats.refused_pool += 1;
            return Err(DropReason::TranslatePoolEmpty);
        };
        self.by_host.insert(bind, Binding { mapped: (addr, mapped_port), sessions: 0 });
        self.by_mapped.insert((proto, addr, mapped_port), (host, port));
        self.hosts.entry(host).or_insert(HostState { pool_index, sessions: 0 });
        Ok((addr, mapped_port))
    }

    fn create(
        &mut self,
        now: Instant,
        out: Ends6Out,
        (addr, port): (Ipv4Addr, u16),
        tcp: Option<TcpState>,
    ) -> Result<(), DropReason> {
        let row = Row {
            out,
            addr,
            port,
            open: tcp.is_none_or(TcpState::is_open),
            kept_by_traffic: tcp.is_none_or(TcpState::kept_by_traffic),
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.sessions.push(None);
                (self.sessions.len() - 1) as u32
            }
        };
        let bind = (out.proto, out.host, out.port);
        if !self.table.insert(id, &row, now) {
            self.free.push(id);
            self.unbind_if_unused(bind);
            self.stats.refused_limit += 1;
            return Err(DropReason::TranslateTableFull);
        }
        let until = now + self.lifetime(out.proto, tcp);
        self.queue.insert((until, id));
        if let Some(place) = self.sessions.get_mut(id as usize) {
            *place = Some(Session { row, tcp, until, queued: until });
        }
        if let Some(b) = self.by_host.get_mut(&bind) {
            b.sessions += 1;
        }
        if let Some(h) = self.hosts.get_mut(&out.host) {
            h.sessions += 1;
        }
        if self.filtering == Filtering::AddressDependent {
            *self.peers.entry(((out.proto, addr, port), out.peer)).or_default() += 1;
        }
        self.stats.created += 1;
        Ok(())
    }

    fn lifetime(&self, proto: u8, tcp: Option<TcpState>) -> Duration {
        let t = &self.timeouts;
        let seconds = match (proto, tcp) {
            (_, Some(TcpState::V4Init)) => t.tcp_incoming_syn,
            (_, Some(TcpState::Established | TcpState::V4Fin | TcpState::V6Fin)) => t.tcp_established,
            (_, Some(TcpState::V6Init | TcpState::BothFin | TcpState::Trans)) => t.tcp_transitory,
            (protocol::UDP, None) => t.udp,
            (_, None) => t.icmp,
        };
        Duration::from_secs(u64::from(seconds))
    }

    /// A packet of a session that is there.
    fn advance(&mut self, now: Instant, id: u32, from: Side, flags: u8) -> Result<(), DropReason> {
        let (tcp_established, tcp_transitory) = (self.timeouts.tcp_established, self.timeouts.tcp_transitory);
        let Some(Some(s)) = self.sessions.get(id as usize) else { return Err(DropReason::TranslateNoSession) };
        let plain = self.lifetime(s.row.out.proto, None);
        let Some(Some(s)) = self.sessions.get_mut(id as usize) else { return Err(DropReason::TranslateNoSession) };
        match s.tcp {
            None => s.until = now + plain,
            Some(state) => {
                let (next, timer) = state.after(from, flags);
                let secs = |n: u32| Duration::from_secs(u64::from(n));
                match timer {
                    Timer::Keep => {}
                    Timer::Transitory => s.until = now + secs(tcp_transitory),
                    Timer::Established => s.until = now + secs(tcp_established),
                }
                s.tcp = Some(next);
                let row = Row { open: next.is_open(), kept_by_traffic: next.kept_by_traffic(), ..s.row };
                if row != s.row {
                    s.row = row;
                    self.table.update(id, &row);
                }
                // A shorter lifetime must not wait for the longer one to end.
                if s.until < s.queued {
                    self.queue.remove(&(s.queued, id));
                    s.queued = s.until;
                    self.queue.insert((s.until, id));
                }
            }
        }
        Ok(())
    }

    /// When a session ends, packets that workers translated included.
    fn ends(&self, id: u32, s: &Session) -> Instant {
        if !s.row.kept_by_traffic {
            return s.until;
        }
        // The mark has whole seconds: round up.
        let used = Instant::from_millis((u64::from(self.table.last_used(id)) + 1) * 1000);
        s.until.max(used + self.lifetime(s.row.out.proto, s.tcp))
    }

    /// Forgets what is overdue. Connections that end that way after being open leave a probe. Bounded work: call again at
    /// [`Nat64::poll_at`], which may be now.
    pub fn poll(&mut self, now: Instant, probes: &mut Vec<Probe>) {
        for _ in 0..POLL_SLICE {
            let Some(&(at, id)) = self.queue.first().filter(|(at, _)| *at <= now) else { break };
            self.queue.remove(&(at, id));
            let Some(Some(s)) = self.sessions.get(id as usize) else { continue };
            let ends = self.ends(id, s);
            let open = matches!(s.tcp, Some(TcpState::Established | TcpState::V4Fin | TcpState::V6Fin));
            let later = if ends > now {
                Some(ends)
            } else if open && s.tcp == Some(TcpState::Established) {
                let out = s.row.out;
                probes.push(Probe {
                    ends: Ends6 {
                        src: self.map.prefix.embed(out.peer),
                        dst: out.host,
                        sport: out.peer_port,
                        dport: out.port,
                        proto: protocol::TCP,
                    },
                });
                Some(now + Duration::from_secs(u64::from(self.timeouts.tcp_transitory)))
            } else {
                None
            };
            let Some(Some(s)) = self.sessions.get_mut(id as usize) else { continue };
            match later {
                Some(at) => {
                    if ends <= now {
                        s.tcp = Some(TcpState::Trans);
                        s.until = at;
                        s.row = Row { open: false, kept_by_traffic: false, ..s.row };
                        self.table.update(id, &s.row);
                    }
                    s.queued = at;
                    self.queue.insert((at, id));
                }
                None => {
                    self.stats.expired += 1;
                    self.remove(id);
                }
            }
        }
    }

    /// When [`Nat64::poll`] has something to do.
    pub fn poll_at(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, id: u32) {
        let Some(s) = self.sessions.get_mut(id as usize).and_then(Option::take) else { return };
        self.table.remove(id, &s.row);
        self.free.push(id);
        let out = s.row.out;
        let bind = (out.proto, out.host, out.port);
        if let Some(b) = self.by_host.get_mut(&bind) {
            b.sessions = b.sessions.saturating_sub(1);
        }
        if let Some(h) = self.hosts.get_mut(&out.host) {
            h.sessions = h.sessions.saturating_sub(1);
        }
        let peer = ((out.proto, s.row.addr, s.row.port), out.peer);
        if let Some(n) = self.peers.get_mut(&peer) {
            *n -= 1;
            if *n == 0 {
                self.peers.remove(&peer);
            }
        }
        self.unbind_if_unused(bind);
    }

    /// A binding lives as long as it has a session (RFC 6146 3.5.1), a host as long as it has any.
    fn unbind_if_unused(&mut self, bind: Bind6) {
        if self.by_host.get(&bind).is_some_and(|b| b.sessions == 0)
            && let Some(b) = self.by_host.remove(&bind)
        {
            let (addr, port) = b.mapped;
            self.by_mapped.remove(&(bind.0, addr, port));
            self.pool.give(addr, bind.0, port);
        }
        if self.hosts.get(&bind.1).is_some_and(|h| h.sessions == 0) {
            self.hosts.remove(&bind.1);
        }
    }

    /// Counts now.
    pub fn stats(&self) -> Nat64Stats {
        Nat64Stats {
            sessions: self.live() as u64,
            bindings: self.by_host.len() as u64,
            hosts: self.hosts.len() as u64,
            ports_in_use: self.pool.in_use(),
            ..self.stats
        }
    }

    /// Up to `most` sessions, by number.
    pub fn sessions(&self, now: Instant, most: usize) -> Vec<SessionInfo> {
        let all = self.sessions.iter().enumerate();
        all.filter_map(|(id, s)| {
            let s = s.as_ref()?;
            let out = s.row.out;
            Some(SessionInfo {
                proto: out.proto,
                host: out.host,
                host_port: out.port,
                mapped: s.row.addr,
                mapped_port: s.row.port,
                peer: out.peer,
                peer_port: out.peer_port,
                state: s.tcp,
                expires: self.ends(id as u32, s).saturating_since(now).as_secs(),
            })
        })
        .take(most)
        .collect()
    }
}

/// The reason for a packet that may not even ask.
fn reason(why: Refusal) -> DropReason {
    match why {
        Refusal::Drop(reason) => reason,
        Refusal::Consult => DropReason::TranslateNoSession,
    }
}
