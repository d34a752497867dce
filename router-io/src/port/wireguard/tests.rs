//! Two engines talk in memory; hostile datagrams; a whole port on loopback.

use super::engine::{Effects, Engine, LoadedPeer};
use super::queue::Losses;
use super::spec::{Endpoint, Key, PeerConfig, WireguardConfig};
use crate::port::{Port, RecvReport, SendReport};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// A deadline of real time that nothing here should come near.
const LONG: std::time::Duration = std::time::Duration::from_secs(20);

/// One end with its address.
struct End {
    engine: Engine,
    effects: Effects,
    at: SocketAddr,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn end(seed: u8, at: &str) -> End {
    let engine = Engine::new(&[seed; 32]);
    End { engine, effects: Effects::new(1, Arc::new(Losses::new())), at: addr(at) }
}

fn peer(of: &End, endpoint: Option<&str>, allowed: &[&str], preshared: Option<[u8; 32]>) -> LoadedPeer {
    LoadedPeer {
        key: of.engine.public_key(),
        preshared,
        endpoint: endpoint.map(|e| e.parse().unwrap()),
        allowed: allowed.iter().map(|n| n.parse().unwrap()).collect(),
        keepalive: None,
    }
}

/// An IPv4 packet with `len` bytes in all.
fn packet(src: &str, dst: &str, len: usize) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut p = vec![0xa5; len];
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            p[0] = 0x45;
            p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            p[12..16].copy_from_slice(&s.octets());
            p[16..20].copy_from_slice(&d.octets());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            p[0] = 0x60;
            p[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
            p[8..24].copy_from_slice(&s.octets());
            p[24..40].copy_from_slice(&d.octets());
        }
        _ => panic!("two families"),
    }
    p
}

impl End {
    fn send(&mut self, now: Instant, packet: &[u8]) {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(16), 0);
        self.engine.packet(now, &padded, packet.len(), &mut self.effects);
    }

    /// Packets that came out.
    fn got(&mut self) -> Vec<Vec<u8>> {
        let parcel = &mut self.effects.inner[0];
        let list = std::iter::from_fn(|| parcel.next().map(|(p, _)| p.to_vec())).collect();
        parcel.clear();
        list
    }

    /// What was lost since the last call: received, then sent.
    fn lost(&mut self) -> (Vec<(DropReason, u64)>, Vec<DropReason>) {
        let mut report = RecvReport::default();
        self.effects.losses.take(&mut report);
        (report.dropped, report.undone.into_iter().map(|r| r.reason).collect())
    }
}

/// Carries datagrams between two ends until none is left; what is addressed to nobody is lost.
fn carry(now: Instant, a: &mut End, b: &mut End) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    loop {
        let (from_a, from_b) = (a.effects.outbound.take(), b.effects.outbound.take());
        if from_a.is_empty() && from_b.is_empty() {
            return seen;
        }
        for (to, data) in from_a {
            seen.push(data.clone());
            if to == b.at {
                b.engine.datagram(now, a.at, &data, &mut b.effects);
            }
        }
        for (to, data) in from_b {
            seen.push(data.clone());
            if to == a.at {
                a.engine.datagram(now, b.at, &data, &mut a.effects);
            }
        }
    }
}

/// Two that know each other; `a` knows where `b` is.
fn pair() -> (End, End, Instant) {
    let (mut a, mut b) = (end(1, "192.0.2.1:1000"), end(2, "192.0.2.2:2000"));
    let now = Instant::from_millis(1000);
    let (pa, pb) = (
        peer(&a, None, &["10.1.0.0/16", "fd01::/64"], None),
        peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16", "fd02::/64"], None),
    );
    a.engine.set_peers(now, vec![pb], &mut a.effects);
    b.engine.set_peers(now, vec![pa], &mut b.effects);
    (a, b, now)
}

#[test]
fn packets_of_all_sizes_cross_both_ways_and_the_first_ones_wait() {
    let (mut a, mut b, now) = pair();
    let there: Vec<_> = (20..=1420).step_by(50).map(|n| packet("10.1.0.1", "10.2.0.1", n)).collect();
    there.iter().for_each(|p| a.send(now, p));
    assert!(b.got().is_empty());
    carry(now, &mut a, &mut b);
    assert_eq!(b.got(), there, "in order, and without the padding");
    let back: Vec<_> = (40..=1420).step_by(70).map(|n| packet("fd02::1", "fd01::1", n)).collect();
    back.iter().for_each(|p| b.send(now, p));
    carry(now, &mut a, &mut b);
    assert_eq!(a.got(), back);
    assert_eq!((a.lost(), b.lost()), ((vec![], vec![]), (vec![], vec![])));
    let status = a.engine.status(1000);
    let p = &status.peers[0];
    assert_eq!((p.public_key, p.endpoint), (b.engine.public_key(), Some(b.at)));
    assert!(p.latest_handshake.is_some() && p.transfer_rx > 0 && p.transfer_tx > 0);
    let text = format!("{status:?}{}", serde_json::to_string(&status).unwrap());
    assert!(!text.contains(&Key([1; 32]).to_string()), "the private key stays inside");
}

#[test]
fn an_address_belongs_to_one_peer_in_both_directions() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    b.got();
    a.send(now, &packet("10.9.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.lost().0, [(DropReason::WireguardSource, 1)]);
    assert!(b.got().is_empty());
    a.send(now, &packet("10.1.0.1", "10.3.0.1", 100));
    assert_eq!(a.lost().1, [DropReason::WireguardNoPeer]);
    let (mut c, now) = (end(3, "192.0.2.3:1"), now);
    let nowhere = peer(&a, None, &["10.1.0.0/16"], None);
    c.engine.set_peers(now, vec![nowhere], &mut c.effects);
    c.send(now, &packet("10.2.0.1", "10.1.0.1", 100));
    assert_eq!(c.lost().1, [DropReason::WireguardNoEndpoint]);
    c.send(now, &[0x45; 4]);
    assert_eq!(c.lost().1, [DropReason::TunnelInnerMalformed]);
}

#[test]
fn wrong_keys_do_not_get_in() {
    let (mut a, mut b, now) = pair();
    // A stranger who knows b's public key.
    let mut stranger = end(9, "192.0.2.9:9");
    let to_b = peer(&b, Some("192.0.2.2:2000"), &["0.0.0.0/0"], None);
    stranger.engine.set_peers(now, vec![to_b], &mut stranger.effects);
    stranger.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut stranger, &mut b);
    assert_eq!(b.lost().0, [(DropReason::WireguardUnknown, 1)]);
    // Somebody who takes b for another.
    let to_wrong = LoadedPeer { key: Key([7; 32]), ..peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16"], None) };
    a.engine.set_peers(now, vec![to_wrong], &mut a.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.lost().0, [(DropReason::WireguardMac, 1)]);
    // The preshared keys differ: the response does not decrypt.
    let (mut a, mut b, now) = pair();
    let with = peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16"], Some([5; 32]));
    a.engine.set_peers(now, vec![with], &mut a.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(a.lost().0, [(DropReason::WireguardHandshake, 1)]);
    assert!(b.got().is_empty());
    assert_eq!(a.engine.status(0).peers[0].latest_handshake, None);
    // Once they agree it works.
    let with = peer(&a, None, &["10.1.0.0/16"], Some([5; 32]));
    b.engine.set_peers(now, vec![with], &mut b.effects);
    let with = peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16"], Some([5; 32]));
    let again = LoadedPeer { preshared: None, ..peer(&b, None, &[], None) };
    a.engine.set_peers(now, vec![again], &mut a.effects);
    assert_eq!(a.lost().1, [DropReason::WireguardNoSession], "what waited for the peer that is gone");
    a.engine.set_peers(now, vec![with], &mut a.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.got().len(), 1);
}

#[test]
fn what_was_received_once_is_not_received_again() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    let handshake = carry(now, &mut a, &mut b);
    assert_eq!(b.got().len(), 1);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 60));
    let data = a.effects.outbound.take();
    for _ in 0..3 {
        b.engine.datagram(now, a.at, &data[0].1, &mut b.effects);
    }
    assert_eq!(b.got().len(), 1);
    assert_eq!(b.lost().0, [(DropReason::WireguardReplay, 2)]);
    // The handshake: its timestamp is not newer than the last.
    b.engine.datagram(now, addr("198.51.100.6:666"), &handshake[0], &mut b.effects);
    assert_eq!(b.lost().0, [(DropReason::WireguardHandshake, 1)]);
    assert_eq!(b.engine.status(0).peers[0].endpoint, Some(a.at), "nobody moves a peer by repeating what it said");
    // One bit of it wrong.
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 60));
    let (_, mut bent) = a.effects.outbound.take().pop().unwrap();
    bent[20] ^= 1;
    b.engine.datagram(now, a.at, &bent, &mut b.effects);
    assert_eq!(b.lost().0, [(DropReason::WireguardDecrypt, 1)]);
}

#[test]
fn a_peer_is_answered_where_it_last_spoke() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    a.at = addr("[2001:db8::77]:1111");
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    b.send(now, &packet("10.2.0.1", "10.1.0.1", 100));
    let to: Vec<_> = b.effects.outbound.take().into_iter().map(|(to, _)| to).collect();
    assert_eq!(to, [a.at]);
}

#[test]
fn other_peers_leave_a_session_alone() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    b.got();
    let before = b.engine.status(0).peers[0].latest_handshake;
    let stays = LoadedPeer { keepalive: Some(25), ..peer(&a, None, &["10.1.0.0/24"], None) };
    let other = peer(&end(5, "192.0.2.5:5"), None, &["10.5.0.0/16"], None);
    b.engine.set_peers(now, vec![other, stays], &mut b.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    a.send(now, &packet("10.1.7.1", "10.2.0.1", 100));
    let messages = carry(now, &mut a, &mut b);
    assert_eq!(messages.len(), 2, "no new handshake");
    assert_eq!(b.got().len(), 1);
    assert_eq!(b.lost().0, [(DropReason::WireguardSource, 1)], "what it may send has changed");
    let status = b.engine.status(0);
    let p = status.peers.iter().find(|p| p.public_key == a.engine.public_key()).unwrap();
    assert_eq!((p.latest_handshake, p.persistent_keepalive, p.endpoint), (before, Some(25), Some(a.at)));
    // And without it, it is a stranger.
    b.engine.set_peers(now, vec![], &mut b.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.lost().0, [(DropReason::WireguardUnknown, 1)]);
}

#[test]
fn packets_wait_in_bounded_number() {
    let (mut a, _, now) = pair();
    (0..300).for_each(|_| a.send(now, &packet("10.1.0.1", "10.2.0.1", 100)));
    let (_, undone) = a.lost();
    assert_eq!(undone.len(), 300 - 128);
    assert!(undone.iter().all(|r| *r == DropReason::WireguardNoSession));
    assert_eq!(a.effects.outbound.take().len(), 1, "one handshake for all of them");
}

#[test]
fn a_peer_to_be_kept_alive_is_spoken_to_first_and_often() {
    let (mut a, mut b, now) = pair();
    let kept = LoadedPeer { keepalive: Some(10), ..peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16"], None) };
    a.engine.set_peers(now, vec![kept], &mut a.effects);
    a.engine.tick(now, &mut a.effects);
    carry(now, &mut a, &mut b);
    assert!(a.engine.status(0).peers[0].latest_handshake.is_some(), "without any packet");
    let rx = |b: &End| b.engine.status(0).peers[0].transfer_rx;
    let before = rx(&b);
    a.engine.tick(now + Duration::from_secs(9), &mut a.effects);
    carry(now, &mut a, &mut b);
    assert_eq!(rx(&b), before);
    a.engine.tick(now + Duration::from_secs(10), &mut a.effects);
    carry(now, &mut a, &mut b);
    assert_eq!(rx(&b), before + 32, "an empty data message");
}

#[test]
fn names_are_asked_for_until_the_peer_is_there() {
    let (mut a, mut b, now) = pair();
    let named = peer(&b, Some("b.example:2000"), &["10.2.0.0/16"], None);
    a.engine.set_peers(now, vec![peer(&end(8, "192.0.2.8:1"), None, &[], None)], &mut a.effects);
    a.engine.set_peers(now, vec![named], &mut a.effects);
    a.engine.tick(now, &mut a.effects);
    a.engine.tick(now + Duration::from_secs(1), &mut a.effects);
    let asked = std::mem::take(&mut a.effects.names);
    assert_eq!(asked.len(), 1);
    let (key, name) = &asked[0];
    a.engine.resolved(now, Key([3; 32]), name, b.at);
    let other: Endpoint = "c.example:2000".parse().unwrap();
    a.engine.resolved(now, *key, &other, b.at);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    assert_eq!(a.lost().1, [DropReason::WireguardNoEndpoint]);
    a.engine.resolved(now, *key, name, b.at);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.got().len(), 1);
    assert_eq!(a.engine.status(0).peers[0].endpoint_name.as_deref(), Some("b.example:2000"));
}

#[test]
fn under_load_handshakes_need_a_cookie_and_have_a_rate() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    let init = a.effects.outbound.take().pop().unwrap().1;
    // Replayed from many places: the front sees a good MAC each time.
    let from = |i: u32| SocketAddr::new(IpAddr::V4((0xc633_6400 + i).into()), 5);
    for i in 0..250 {
        b.engine.datagram(now, from(i), &init, &mut b.effects);
    }
    let count = |list: &[(DropReason, u64)], r| list.iter().find(|(x, _)| *x == r).map_or(0, |(_, n)| *n);
    let (dropped, _) = b.lost();
    assert_eq!(count(&dropped, DropReason::WireguardHandshake), 99, "all but the first are replays");
    assert_eq!(count(&dropped, DropReason::WireguardCookie), 150);
    let answers = b.effects.outbound.take();
    assert_eq!(answers.iter().filter(|(_, d)| d.len() == 64).count(), 150);
    // The real one, still under load, gets a cookie and comes back with it.
    a.engine.set_peers(now, vec![], &mut a.effects);
    a.lost();
    let to_b = peer(&b, Some("192.0.2.2:2000"), &["10.2.0.0/16"], None);
    a.engine.set_peers(now, vec![to_b], &mut a.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    let messages = carry(now, &mut a, &mut b);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [148, 64]);
    assert_eq!(b.lost().0, [(DropReason::WireguardCookie, 1)]);
    a.engine.retry(now, &mut a.effects);
    carry(now, &mut a, &mut b);
    assert_eq!(b.got().len(), 1);
    // With a good cookie, too, a source has its rate.
    for _ in 0..10 {
        a.engine.retry(now, &mut a.effects);
        carry(now, &mut a, &mut b);
    }
    assert!(count(&b.lost().0, DropReason::WireguardRate) >= 5);
}

#[test]
fn random_datagrams_break_nothing() {
    let (mut a, mut b, now) = pair();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    let mut real = carry(now, &mut a, &mut b);
    b.got();
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 1400));
    real.extend(a.effects.outbound.take().into_iter().map(|(_, d)| d));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let noise = (proptest::collection::vec(any::<u8>(), 0..200), any::<u32>(), 0..6usize);
    for i in 0..100_000u32 {
        let (mut data, n, how) = noise.new_tree(&mut runner).unwrap().current();
        match how {
            // Real messages with a byte changed, cut, or longer; else noise with a message type.
            0..3 => {
                let base = &real[n as usize % real.len()];
                data = base.clone();
                let at = (n >> 8) as usize % data.len();
                match how {
                    0 => data[at] ^= (n >> 16) as u8 | 1,
                    1 => data.truncate(at),
                    _ => data.push(0),
                }
            }
            3 if data.len() >= 4 => data[..4].copy_from_slice(&(1 + n % 4).to_le_bytes()),
            4 => data.resize(148, n as u8),
            _ => {}
        }
        let from = SocketAddr::new(IpAddr::V4(n.into()), 1 + (i % 60_000) as u16);
        b.engine.datagram(now, from, &data, &mut b.effects);
        if i % 1000 == 0 {
            b.engine.tick(now + Duration::from_millis(u64::from(i)), &mut b.effects);
            assert!(b.effects.outbound.take().len() <= 1001);
        }
        assert!(b.got().is_empty(), "{data:02x?}");
    }
    let (dropped, undone) = b.lost();
    assert_eq!((dropped.iter().map(|(_, n)| n).sum::<u64>(), undone.len()), (100_000, 0), "{dropped:?}");
    // And the session is still there.
    a.engine.tick(now, &mut a.effects);
    a.send(now, &packet("10.1.0.1", "10.2.0.1", 100));
    carry(now, &mut a, &mut b);
    assert_eq!(b.got().len(), 1);
}

/// A whole port with its thread on loopback, and what its worker would do.
struct Whole {
    port: Box<dyn Port>,
    handle: super::Handle,
    pool: FramePool,
    frames: Vec<Vec<u8>>,
    report: RecvReport,
}

fn whole(dir: &std::path::Path, seed: u8, peers: Vec<PeerConfig>) -> Whole {
    let file = dir.join(format!("key{seed}"));
    std::fs::write(&file, Key([seed; 32]).to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = WireguardConfig { private_key_file: file, listen_port: 0, local: Some([127, 0, 0, 1].into()), peers };
    let (mut queues, handle) = super::open("wg0", &config, 1420, 1).unwrap();
    let pool = FramePool::new(64, 2048);
    Whole { port: queues.remove(0), handle, pool, frames: Vec::new(), report: RecvReport::default() }
}

impl Whole {
    /// Serves the port until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Whole) -> bool) {
        let deadline = std::time::Instant::now() + LONG;
        while !done(self) {
            assert!(std::time::Instant::now() < deadline, "{what}: {:?}", self.report);
            let mut batch = Vec::new();
            self.port.recv_batch(256, &mut self.pool, &mut batch, &mut self.report);
            for f in batch.drain(..) {
                self.frames.push(f.data().to_vec());
                self.pool.put(f);
            }
            std::thread::yield_now();
        }
    }

    fn dropped(&self) -> u64 {
        self.report.dropped.iter().map(|(_, n)| n).sum()
    }

    fn send(&mut self, packets: &[Vec<u8>]) {
        let mut frames: Vec<_> = packets.iter().map(|p| Frame::from_slice(p)).collect();
        let mut report = SendReport::default();
        self.port.send_batch(&mut frames, &mut self.pool, &mut report);
        assert_eq!(report, SendReport::default());
    }
}

#[test]
fn a_whole_port_carries_bursts_and_survives_a_hundred_thousand_datagrams() {
    let dir = tempfile::tempdir().unwrap();
    let config = |public_key, endpoint: Option<u16>, net: &str| PeerConfig {
        public_key,
        preshared_key_file: None,
        endpoint: endpoint.map(|port| Endpoint { host: "127.0.0.1".into(), port }),
        allowed_ips: vec![net.parse().unwrap()],
        persistent_keepalive: None,
    };
    let key = |seed: u8| Engine::new(&[seed; 32]).public_key();
    let mut b = whole(dir.path(), 2, vec![config(key(1), None, "10.1.0.0/16")]);
    let port = b.handle.status().listen_port;
    let mut a = whole(dir.path(), 1, vec![config(key(2), Some(port), "10.2.0.0/16")]);
    // Noise at the socket, in pieces that its buffer holds.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 1..=1000u64 {
        for _ in 0..100 {
            let len = 4 + next() as usize % 196;
            let mut data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            if next() % 2 == 0 {
                data[..4].copy_from_slice(&(1 + next() as u32 % 4).to_le_bytes());
            }
            socket.send_to(&data, ("127.0.0.1", port)).unwrap();
        }
        b.until("noise is counted", |b| b.dropped() >= round * 100);
    }
    assert_eq!(b.dropped(), 100_000);
    // Real traffic still gets through: the first packets wait for the handshake, then bursts.
    let burst: Vec<_> = (0..100).map(|i| packet("10.1.0.1", "10.2.0.1", 1420 - i)).collect();
    for round in 1..=20 {
        a.send(&burst);
        b.until("a burst", |b| b.frames.len() >= round * 100);
    }
    assert!(b.frames.chunks(100).all(|c| c == burst));
    b.send(&[packet("10.2.0.1", "10.1.0.1", 100)]);
    a.until("an answer", |a| !a.frames.is_empty());
    // What has no peer comes back as a loss.
    a.send(&[packet("10.1.0.1", "10.3.0.1", 777)]);
    a.until("a loss", |a| !a.report.undone.is_empty());
    assert_eq!((a.report.undone[0].reason, a.report.undone[0].bytes), (DropReason::WireguardNoPeer, 777));
    let status = a.handle.status();
    assert_eq!(status.peers[0].endpoint, Some(addr(&format!("127.0.0.1:{port}"))));
    // The thread ends with its handle, and the queue says so.
    drop(b.handle.clone());
    let Whole { port, handle, pool, .. } = b;
    drop(handle);
    let mut left = (port, pool);
    let deadline = std::time::Instant::now() + LONG;
    loop {
        let mut report = RecvReport::default();
        left.0.recv_batch(1, &mut left.1, &mut Vec::new(), &mut report);
        if report.event.is_some() {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}
