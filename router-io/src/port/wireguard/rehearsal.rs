//! Two ends of WireGuard in memory, and whoever else sends them datagrams: for fuzz targets.

use super::engine::{Effects, Engine, LoadedPeer};
use super::queue::Losses;
use router_core::time::{Duration, Instant};
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Datagrams that are remembered, so that they can come again.
const REMEMBERED: usize = 32;

struct End {
    engine: Engine,
    effects: Effects,
    at: SocketAddr,
    /// Packets given to it, padding included.
    given: HashSet<Vec<u8>>,
}

/// Two ends that know each other: number 0 has 10.0.0.0/24 and 2001:db8::/64 behind it, number 1 10.0.1.0/24 and
/// 2001:db8:0:1::/64.
pub struct Rehearsal {
    now: Instant,
    ends: [End; 2],
    /// On the way to each end.
    wire: [VecDeque<Vec<u8>>; 2],
    /// What has been on the way, in either direction.
    past: VecDeque<Vec<u8>>,
}

impl Default for Rehearsal {
    fn default() -> Self {
        let mut ends = [1u8, 2].map(|n| End {
            engine: Engine::new(&[n; 32]),
            effects: Effects::new(1, Arc::new(Losses::new())),
            at: SocketAddr::from(([192, 0, 2, n], 51820)),
            given: HashSet::new(),
        });
        let now = Instant::from_millis(1);
        let peers = [0usize, 1].map(|n| LoadedPeer {
            key: ends[n].engine.public_key(),
            preshared: None,
            endpoint: ends[n].at.to_string().parse().ok(),
            allowed: [format!("10.0.{n}.0/24"), format!("2001:db8:0:{n}::/64")]
                .map(|p| p.parse().ok())
                .into_iter()
                .flatten()
                .collect(),
            keepalive: None,
        });
        let [first, second] = peers;
        for (end, peer) in ends.iter_mut().zip([second, first]) {
            end.engine.set_peers(now, vec![peer], &mut end.effects);
        }
        Rehearsal { now, ends, wire: Default::default(), past: VecDeque::new() }
    }
}

impl Rehearsal {
    /// A packet of a worker of this end.
    pub fn packet(&mut self, end: usize, packet: &[u8]) {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(16), 0);
        let e = &mut self.ends[end & 1];
        e.engine.packet(self.now, &padded, packet.len(), &mut e.effects);
        e.given.insert(packet.to_vec());
        self.collect();
    }

    /// A datagram to this end, from the other one's address or a stranger's.
    pub fn datagram(&mut self, end: usize, stranger: bool, data: &[u8]) {
        let from = if stranger { SocketAddr::from(([198, 51, 100, 7], 1024)) } else { self.ends[(end & 1) ^ 1].at };
        let e = &mut self.ends[end & 1];
        e.engine.datagram(self.now, from, data, &mut e.effects);
        self.collect();
    }

    /// The next datagram on the way to this end arrives.
    pub fn deliver(&mut self, end: usize) {
        if let Some(d) = self.wire[end & 1].pop_front() {
            self.datagram(end, false, &d);
        }
    }

    /// One that was on the way before comes to this end, spoilt at a place (or not, where `with` is zero).
    pub fn again(&mut self, end: usize, which: usize, at: usize, with: u8) {
        let Some(mut d) = self.past.get(which % self.past.len().max(1)).cloned() else { return };
        let at = at % d.len().max(1);
        if let Some(b) = d.get_mut(at) {
            *b ^= with;
        }
        self.datagram(end, which & 1 == 1, &d);
    }

    /// Time passes on the port's clock.
    pub fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        for e in &mut self.ends {
            e.engine.tick(self.now, &mut e.effects);
        }
        self.collect();
    }

    /// Takes what both ends did.
    ///
    /// # Panics
    /// When an end gets a packet that the other was not given.
    fn collect(&mut self) {
        for n in [0, 1] {
            let sent = self.ends[n].effects.outbound.take();
            for (to, datagram) in sent {
                if self.past.len() == REMEMBERED {
                    self.past.pop_front();
                }
                self.past.push_back(datagram.clone());
                if to == self.ends[n ^ 1].at && self.wire[n ^ 1].len() < REMEMBERED {
                    self.wire[n ^ 1].push_back(datagram);
                }
            }
            let parcel = &mut self.ends[n].effects.inner[0];
            let got: Vec<Vec<u8>> = std::iter::from_fn(|| parcel.next().map(|(p, _)| p.to_vec())).collect();
            parcel.clear();
            for packet in got {
                let genuine = |given: &Vec<u8>| given.starts_with(&packet);
                assert!(self.ends[n ^ 1].given.iter().any(genuine), "end {n} got {packet:02x?}");
            }
            self.ends[n].effects.names.clear();
        }
    }
}
