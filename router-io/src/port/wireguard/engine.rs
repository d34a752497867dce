//! Sessions with all peers of one port: what becomes of a packet, of a datagram, of time. No socket, no thread.
//!
//! defguard_boringtun's `Tunn` is the protocol of one peer. It keeps time itself (CLOCK_BOOTTIME, as the protocol's timers must
//! not stop while a machine sleeps); deadlines of this module are in the instants that it is given.

use super::allowed::AllowedIps;
use super::flood::Flood;
use super::parcel::Parcel;
use super::queue::Losses;
use super::socket::Outbound;
use super::spec::{Endpoint, Key, PeerStatus, Status};
use defguard_boringtun::noise::errors::WireGuardError;
use defguard_boringtun::noise::handshake::parse_handshake_anon;
use defguard_boringtun::noise::rate_limiter::RateLimiter;
use defguard_boringtun::noise::{Packet, Tunn, TunnResult};
use defguard_boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use router_core::drop_reason::DropReason;
use router_core::time::{Duration, Instant};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes that a data message adds.
const OVERHEAD: usize = 32;
/// The longest message that is no data.
pub(super) const HANDSHAKE: usize = 148;
/// Packets that wait for one peer's handshake, as in the Linux kernel, and for all peers together.
const WAITING: usize = 128;
const ALL_WAITING: usize = 4096;
/// Handshakes per second from which on the port is under load and asks for cookies.
const LOAD: u64 = 100;
/// A peer that does not answer is tried for so long (REKEY_ATTEMPT_TIME of the protocol).
const ATTEMPTS: Duration = Duration::from_secs(90);
/// Between two looks at the timers.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A name is asked for again after this, while its peer does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// Between attempts of a peer that is to be kept alive.
const RETRY: Duration = Duration::from_secs(5);

/// A peer with its secrets.
pub(super) struct LoadedPeer {
    pub key: Key,
    pub preshared: Option<[u8; 32]>,
    pub endpoint: Option<Endpoint>,
    pub allowed: Vec<IpNet>,
    pub keepalive: Option<u16>,
}

/// What the engine did, for the thread to carry out.
pub(super) struct Effects {
    /// Datagrams to send.
    pub outbound: Outbound,
    /// Packets for the workers, one parcel each.
    pub inner: Vec<Parcel>,
    /// What was lost.
    pub losses: Arc<Losses>,
    /// Names whose addresses are wanted.
    pub names: Vec<(Key, Endpoint)>,
}

impl Effects {
    pub fn new(queues: usize, losses: Arc<Losses>) -> Self {
        let inner = (0..queues.max(1)).map(|_| Parcel::default()).collect();
        Effects { outbound: Outbound::default(), inner, losses, names: Vec::new() }
    }
}

struct Peer {
    key: Key,
    tunn: Tunn,
    preshared: Option<[u8; 32]>,
    /// As configured.
    written: Option<Endpoint>,
    /// Where it is.
    endpoint: Option<SocketAddr>,
    allowed: Vec<IpNet>,
    keepalive: Option<u16>,
    /// Packets for which there is no session yet, with their lengths without padding.
    waiting: VecDeque<(Box<[u8]>, usize)>,
    /// Whether there is a session to send by.
    live: bool,
    /// Since when a session is tried for in vain.
    trying: Option<Instant>,
    /// When to try by ourselves, and when to ask for the name.
    next_try: Instant,
    next_name: Instant,
    /// The last packet to or from it.
    traffic: Instant,
    handshake: Option<SystemTime>,
    rx: u64,
    tx: u64,
}

/// See the module.
pub(super) struct Engine {
    private: StaticSecret,
    public: PublicKey,
    /// Counts handshakes of all peers, and wants cookies from too many.
    front: RateLimiter,
    /// Never does: what the front has let through is not counted twice.
    behind: Arc<RateLimiter>,
    handshakes: u64,
    second: Instant,
    flood: Flood,
    /// By the upper 24 bits of their session indexes.
    peers: HashMap<u32, Peer>,
    by_key: HashMap<Key, u32>,
    allowed: AllowedIps,
    waiting: usize,
    scratch: Box<[u8; 2048]>,
}

impl Engine {
    pub fn new(private: &[u8; 32]) -> Self {
        let private = StaticSecret::from(*private);
        let public = PublicKey::from(&private);
        Engine {
            front: RateLimiter::new(&public, LOAD),
            behind: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
            handshakes: 0,
            second: Instant::ZERO,
            flood: Flood::default(),
            peers: HashMap::new(),
            by_key: HashMap::new(),
            allowed: AllowedIps::default(),
            waiting: 0,
            scratch: Box::new([0; 2048]),
        }
    }

    pub fn public_key(&self) -> Key {
        Key(*self.public.as_bytes())
    }

    /// Takes these peers instead of the present ones. Sessions of those whose keys stay go on.
    pub fn set_peers(&mut self, now: Instant, list: Vec<LoadedPeer>, effects: &mut Effects) {
        self.allowed = AllowedIps::default();
        let mut former = std::mem::take(&mut self.by_key);
        for wanted in list {
            let known = former
                .remove(&wanted.key)
                .filter(|i| self.peers.get(i).is_some_and(|p| p.preshared == wanted.preshared));
            let index = known.unwrap_or_else(|| self.free_index());
            let private = &self.private;
            let behind = &self.behind;
            let peer = self.peers.entry(index).or_insert_with(|| Peer {
                key: wanted.key,
                tunn: Tunn::new(
                    private.clone(),
                    PublicKey::from(wanted.key.0),
                    wanted.preshared,
                    None,
                    index,
                    Some(Arc::clone(behind)),
                ),
                preshared: wanted.preshared,
                written: None,
                endpoint: None,
                allowed: Vec::new(),
                keepalive: None,
                waiting: VecDeque::new(),
                live: false,
                trying: None,
                next_try: now,
                next_name: now,
                traffic: now,
                handshake: None,
                rx: 0,
                tx: 0,
            });
            // A peer that has moved stays where it is, unless another place was written.
            if peer.written != wanted.endpoint {
                peer.endpoint = wanted.endpoint.as_ref().and_then(Endpoint::addr).or(peer.endpoint);
                peer.written = wanted.endpoint;
                (peer.next_name, peer.next_try) = (now, now);
            }
            peer.keepalive = wanted.keepalive.filter(|k| *k > 0);
            for net in &wanted.allowed {
                self.allowed.insert(*net, index);
            }
            peer.allowed = wanted.allowed;
            self.by_key.insert(wanted.key, index);
        }
        let kept: std::collections::HashSet<u32> = self.by_key.values().copied().collect();
        let gone: Vec<u32> = self.peers.keys().filter(|i| !kept.contains(i)).copied().collect();
        for index in gone {
            if let Some(mut peer) = self.peers.remove(&index) {
                self.waiting -= peer.forget(effects);
            }
        }
    }

    fn free_index(&self) -> u32 {
        // Unpredictable, so that nobody outside guesses the indexes of sessions.
        let state = RandomState::new();
        let mut n = 0u64;
        loop {
            let mut hasher = state.build_hasher();
            hasher.write_u64(n);
            let index = (hasher.finish() & 0x00ff_ffff) as u32;
            if !self.peers.contains_key(&index) {
                return index;
            }
            n += 1;
        }
    }

    /// A packet that a worker sends: `padded` begins with its `len` bytes.
    pub fn packet(&mut self, now: Instant, padded: &[u8], len: usize, effects: &mut Effects) {
        let lost = |reason| effects.losses.tx(reason, len);
        let Some(dst) = Tunn::dst_address(&padded[..len.min(padded.len())]) else {
            return lost(DropReason::TunnelInnerMalformed);
        };
        let peer = self.allowed.peer_of(dst).and_then(|i| self.peers.get_mut(&i));
        let Some(peer) = peer else { return lost(DropReason::WireguardNoPeer) };
        let Some(to) = peer.endpoint else { return lost(DropReason::WireguardNoEndpoint) };
        if peer.live {
            return peer.seal(now, to, padded, len, effects);
        }
        if peer.waiting.len() >= WAITING || self.waiting >= ALL_WAITING {
            match peer.waiting.pop_front() {
                Some((_, oldest)) => {
                    self.waiting -= 1;
                    lost(DropReason::WireguardNoSession);
                    let _ = oldest;
                }
                None => return lost(DropReason::WireguardNoSession),
            }
        }
        peer.waiting.push_back((padded.into(), len));
        self.waiting += 1;
        peer.initiate(now, false, &mut self.scratch[..], effects);
    }

    /// A datagram that came in.
    pub fn datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8], effects: &mut Effects) {
        let Ok(message) = Tunn::parse_incoming_packet(data) else {
            return effects.losses.rx(DropReason::WireguardMalformed);
        };
        let index = match &message {
            Packet::PacketData(p) => p.receiver_idx >> 8,
            Packet::PacketCookieReply(p) => p.receiver_idx >> 8,
            Packet::HandshakeResponse(p) => {
                if !self.let_in(now, from, data, effects) {
                    return;
                }
                p.receiver_idx >> 8
            }
            Packet::HandshakeInit(p) => {
                if !self.let_in(now, from, data, effects) {
                    return;
                }
                let Ok(half) = parse_handshake_anon(&self.private, &self.public, p) else {
                    return effects.losses.rx(DropReason::WireguardHandshake);
                };
                match self.by_key.get(&Key(half.peer_static_public)) {
                    Some(i) => *i,
                    None => return effects.losses.rx(DropReason::WireguardUnknown),
                }
            }
        };
        if matches!(message, Packet::PacketData(_)) {
            self.data(now, index, from, data, effects);
        } else {
            self.handshake(now, index, from, data, effects);
        }
    }

    /// Whether a handshake message may cost us a multiplication on the curve.
    fn let_in(&mut self, now: Instant, from: SocketAddr, data: &[u8], effects: &mut Effects) -> bool {
        let mut cookie = [0; HANDSHAKE];
        match self.front.verify_packet(Some(from.ip()), data, &mut cookie) {
            Ok(_) => {
                self.handshakes += 1;
                if self.handshakes > LOAD && !self.flood.allow(now, from.ip()) {
                    effects.losses.rx(DropReason::WireguardRate);
                    return false;
                }
                true
            }
            Err(TunnResult::WriteToNetwork(reply)) => {
                effects.outbound.put(from, reply, None);
                effects.losses.rx(DropReason::WireguardCookie);
                false
            }
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => {
                effects.losses.rx(DropReason::WireguardMac);
                false
            }
            Err(_) => {
                effects.losses.rx(DropReason::WireguardHandshake);
                false
            }
        }
    }

    fn data(&mut self, now: Instant, index: u32, from: SocketAddr, data: &[u8], effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return effects.losses.rx(DropReason::WireguardUnknown);
        };
        let queue = index as usize % effects.inner.len();
        let allowed = &self.allowed;
        let mut genuine = true;
        let mut lost = None;
        effects.inner[queue].write(data.len(), |room| {
            let (packet, src) = match peer.tunn.decapsulate(Some(from.ip()), data, room) {
                TunnResult::WriteToTunnelV4(p, src) => (p, IpAddr::V4(src)),
                TunnResult::WriteToTunnelV6(p, src) => (p, IpAddr::V6(src)),
                TunnResult::Done | TunnResult::WriteToNetwork(_) => return 0,
                TunnResult::Err(e) => {
                    // What decrypts is the peer's, whatever it holds.
                    genuine = matches!(e, WireGuardError::InvalidPacket);
                    lost = Some(match e {
                        WireGuardError::InvalidPacket => DropReason::TunnelInnerMalformed,
                        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DropReason::WireguardUnknown,
                        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => {
                            DropReason::WireguardReplay
                        }
                        _ => DropReason::WireguardDecrypt,
                    });
                    return 0;
                }
            };
            // Cryptokey routing: only what would go back to this peer comes from it.
            if allowed.peer_of(src) != Some(index) {
                lost = Some(DropReason::WireguardSource);
                return 0;
            }
            packet.len()
        });
        if let Some(reason) = lost {
            effects.losses.rx(reason);
        }
        if genuine {
            peer.heard(now, from, data.len());
            if !peer.live {
                self.waiting -= peer.settle(now, effects);
            }
        }
    }

    fn handshake(&mut self, now: Instant, index: u32, from: SocketAddr, data: &[u8], effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return effects.losses.rx(DropReason::WireguardUnknown);
        };
        match peer.tunn.decapsulate(Some(from.ip()), data, &mut self.scratch[..]) {
            TunnResult::WriteToNetwork(answer) => {
                peer.heard(now, from, data.len());
                peer.tx += answer.len() as u64;
                effects.outbound.put(from, answer, None);
            }
            // A cookie: nothing to say until the next attempt, and no proof of where the peer is.
            TunnResult::Done => return,
            _ => return effects.losses.rx(DropReason::WireguardHandshake),
        }
        // Keepalives that it wanted to send meanwhile.
        while let TunnResult::WriteToNetwork(more) = peer.tunn.decapsulate(None, &[], &mut self.scratch[..]) {
            peer.tx += more.len() as u64;
            effects.outbound.put(from, more, None);
        }
        self.waiting -= peer.settle(now, effects);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        self.front.reset_count();
        if now.saturating_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.handshakes) = (now, 0);
        }
        for peer in self.peers.values_mut() {
            let mut over = false;
            match peer.tunn.update_timers(&mut self.scratch[..]) {
                TunnResult::WriteToNetwork(message) => {
                    if let Some(to) = peer.endpoint {
                        peer.tx += message.len() as u64;
                        effects.outbound.put(to, message, None);
                    }
                }
                TunnResult::Err(_) => over = true,
                _ => {}
            }
            self.waiting -= peer.settle(now, effects);
            if over && peer.trying.is_some() {
                if peer.trying.is_some_and(|since| now.saturating_since(since) >= ATTEMPTS) {
                    peer.trying = None;
                    self.waiting -= peer.forget(effects);
                } else {
                    peer.initiate(now, true, &mut self.scratch[..], effects);
                }
            }
            peer.keep_alive(now, &mut self.scratch[..], effects);
            if let Some(name) = peer.written.as_ref().filter(|e| e.addr().is_none())
                && now >= peer.next_name
                && (peer.endpoint.is_none() || peer.trying.is_some_and(|t| now.saturating_since(t) >= ASK_AGAIN))
            {
                peer.next_name = now + ASK_AGAIN;
                effects.names.push((peer.key, name.clone()));
            }
        }
    }

    /// The address of a peer's name was found.
    pub fn resolved(&mut self, now: Instant, key: Key, name: &Endpoint, addr: SocketAddr) {
        let peer = self.by_key.get(&key).and_then(|i| self.peers.get_mut(i));
        // The configuration may have changed meanwhile; a peer that is there needs no address.
        if let Some(peer) = peer.filter(|p| p.written.as_ref() == Some(name) && !p.live && p.endpoint != Some(addr)) {
            (peer.endpoint, peer.next_try) = (Some(addr), now);
        }
    }

    /// Makes the next attempt at a handshake at once.
    #[cfg(test)]
    pub fn retry(&mut self, now: Instant, effects: &mut Effects) {
        self.peers.values_mut().for_each(|p| p.initiate(now, true, &mut self.scratch[..], effects));
    }

    /// As it is now.
    pub fn status(&self, listen_port: u16) -> Status {
        let mut peers: Vec<PeerStatus> = self.peers.values().map(Peer::status).collect();
        peers.sort_by_key(|p| p.public_key);
        Status { public_key: self.public_key(), listen_port, peers }
    }
}

impl Peer {
    /// Encrypts and sends; a session is there.
    fn seal(&mut self, now: Instant, to: SocketAddr, padded: &[u8], len: usize, effects: &mut Effects) {
        let room = (padded.len() + OVERHEAD).max(HANDSHAKE);
        let mut done = 0;
        effects.outbound.append(to, room, Some(len), |room| {
            if let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(padded, room) {
                done = message.len();
            }
            done
        });
        match done {
            0 => effects.losses.tx(DropReason::WireguardNoSession, len),
            _ => (self.tx, self.traffic) = (self.tx + done as u64, now),
        }
    }

    /// Begins a handshake, unless one is under way.
    fn initiate(&mut self, now: Instant, again: bool, scratch: &mut [u8], effects: &mut Effects) {
        let Some(to) = self.endpoint else { return };
        if let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(scratch, again) {
            self.tx += message.len() as u64;
            effects.outbound.put(to, message, None);
            self.trying.get_or_insert(now);
        }
    }

    /// Something genuine came from there.
    fn heard(&mut self, now: Instant, from: SocketAddr, len: usize) {
        self.rx += len as u64;
        self.traffic = now;
        // Roaming: the peer is where it last spoke.
        self.endpoint = Some(from);
    }

    /// Looks whether there is a session now, and if so sends what has waited for it: how many packets.
    fn settle(&mut self, now: Instant, effects: &mut Effects) -> usize {
        let age = self.tunn.time_since_last_handshake();
        self.live = age.is_some();
        let Some(age) = age else { return 0 };
        self.trying = None;
        let at = SystemTime::now().checked_sub(age);
        // Computed anew each time: small differences are the two clocks'.
        if let (Some(at), known) = (at, self.handshake)
            && known.is_none_or(|k| at.duration_since(k).is_ok_and(|d| d >= std::time::Duration::from_millis(900)))
        {
            self.handshake = Some(at);
        }
        let mut sent = 0;
        if let Some(to) = self.endpoint {
            while let Some((packet, len)) = self.waiting.pop_front() {
                self.seal(now, to, &packet, len, effects);
                sent += 1;
            }
        }
        sent
    }

    /// Loses everything that waits: how many packets.
    fn forget(&mut self, effects: &mut Effects) -> usize {
        let n = self.waiting.len();
        for (_, len) in self.waiting.drain(..) {
            effects.losses.tx(DropReason::WireguardNoSession, len);
        }
        n
    }

    /// Keeps the way open, and the session with it, where that is wanted.
    fn keep_alive(&mut self, now: Instant, scratch: &mut [u8], effects: &mut Effects) {
        let (Some(every), Some(to)) = (self.keepalive, self.endpoint) else { return };
        let every = Duration::from_secs(u64::from(every));
        if !self.live {
            if now >= self.next_try {
                self.next_try = now + every.max(RETRY);
                self.initiate(now, false, scratch, effects);
            }
        } else if now.saturating_since(self.traffic) >= every
            && let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(&[], scratch)
        {
            (self.tx, self.traffic) = (self.tx + message.len() as u64, now);
            effects.outbound.put(to, message, None);
        }
    }

    fn status(&self) -> PeerStatus {
        PeerStatus {
            public_key: self.key,
            preshared_key: self.preshared.is_some(),
            endpoint: self.endpoint,
            endpoint_name: self.written.as_ref().filter(|e| e.addr().is_none()).map(Endpoint::to_string),
            allowed_ips: self.allowed.clone(),
            latest_handshake: self.handshake.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs()),
            transfer_rx: self.rx,
            transfer_tx: self.tx,
            persistent_keepalive: self.keepalive,
        }
    }
}
