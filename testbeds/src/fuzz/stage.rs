//! A router with one worker, as stateful targets use it: frames in, punts handled, time going by, what left kept so that peers
//! can answer it.

use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::headers::protocol;
use router_core::neighbor::SetMode;
use router_core::packet::Packet;
use router_core::port::PortId;
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{NeighSpec, NudState};
use router_core::time::{Duration, Instant};
use router_core::worker::{Fixed, Outbox, Worker};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::sim::packets;

const PORTS: usize = 32;
/// The router's link-layer address on all ports of `forward`.
pub(super) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// That of all neighbours.
pub(super) const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// See the module.
pub(super) struct Stage {
    pub router: Router,
    pub out: Outbox,
    pub now: Instant,
    worker: Worker,
    counters: [Arc<WorkerCounters>; 2],
    fed: u64,
    /// The last IP packets that left.
    pub sent: VecDeque<Vec<u8>>,
}

impl Stage {
    pub fn new(settings: Settings) -> Stage {
        let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(PORTS)));
        Stage {
            router: Router::new(settings, 3, Arc::clone(&counters[0])),
            out: Outbox::new(PORTS, FramePool::new(64, 4096)),
            now: Instant::from_millis(1),
            worker: Worker::new(Arc::clone(&counters[1]), 3),
            counters,
            fed: 0,
            sent: VecDeque::new(),
        }
    }

    /// A neighbour that is always there.
    pub fn neighbor(&mut self, dev: &str, addr: IpAddr) {
        let id = self.port(dev);
        let state = Some(NudState::Permanent);
        let n = NeighSpec { addr, dev: dev.into(), lladdr: Some(PEER), state, router: false };
        self.router.set_neighbor(self.now, id, SetMode::Add, &n, &mut self.out).expect("a neighbour");
    }

    pub fn port(&self, name: &str) -> PortId {
        self.router.ports().by_name(name).map(|p| p.id).expect("the port")
    }

    /// These frames arrive at a port, as one batch.
    pub fn receive(&mut self, port: PortId, frames: &[Vec<u8>]) {
        let mut batch = Vec::new();
        for bytes in frames {
            let Some(mut frame) = self.out.pool.take() else { break };
            frame.set_data(bytes);
            batch.push(frame);
        }
        self.fed += batch.len() as u64;
        self.worker.process(self.now, &mut Fixed(self.router.tables()), port, &mut batch, &mut self.out);
        self.settle();
    }

    /// Time goes by.
    pub fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.router.poll(self.now, &mut self.out);
        self.settle();
    }

    /// What the worker left for the control side is done, and what is to be sent leaves.
    pub fn settle(&mut self) {
        for _ in 0..4 {
            for punt in std::mem::take(&mut self.out.punts) {
                self.router.handle(self.now, punt, &mut self.out);
            }
            self.router.commit(self.now, &mut |_| {});
            let sent = &mut self.sent;
            for queue in &mut self.out.tx {
                for frame in queue.drain(..) {
                    keep(sent, &frame);
                    self.out.pool.put(frame);
                }
            }
            if self.out.punts.is_empty() {
                break;
            }
        }
        self.out.pool.refill(64);
    }

    /// Every frame has ended in exactly one place, and nothing waits for ever.
    pub fn finish(mut self) {
        let totals = self.totals();
        assert_eq!(totals.received, self.fed);
        totals.check().expect("every frame in exactly one place");
        for _ in 0..15 {
            self.pass(5000);
        }
        let totals = self.totals();
        totals.check().expect("every frame in exactly one place");
        assert_eq!(totals.held, 0, "frames wait for ever");
    }

    fn totals(&self) -> Totals {
        Totals::sum(self.counters.iter().map(|c| &**c))
    }
}

/// Keeps the IP packet of a frame that leaves an Ethernet port, or an IP port.
fn keep(sent: &mut VecDeque<Vec<u8>>, frame: &Frame) {
    let d = frame.data();
    let packet = match d.get(12..14) {
        Some([8, 0] | [0x86, 0xdd]) if d[..6] == PEER.0 => &d[14..],
        Some([0x81, 0]) if d[..6] == PEER.0 => d.get(18..).unwrap_or(&[]),
        _ => d,
    };
    if !matches!(packet.first(), Some(0x45..=0x4f | 0x60..=0x6f)) {
        return;
    }
    if sent.len() == 8 {
        sent.pop_front();
    }
    sent.push_back(packet.to_vec());
}

/// An IP packet of either family in its frame, to the router.
pub(super) fn framed(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&ROUTER.0[..], &PEER.0, &kind, packet].concat()
}

/// A packet between two addresses of one family around any payload, with the checksum of UDP and ICMPv6 right.
pub(super) fn packet(src: IpAddr, dst: IpAddr, proto: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let at = match (proto, dst) {
        (protocol::UDP, _) => 6,
        (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => 2,
        (protocol::TCP, _) => 16,
        _ => usize::MAX,
    };
    let segment = match payload.len() >= at.saturating_add(2) {
        true => packets::transport(src, dst, proto, payload.to_vec(), at),
        false => payload.to_vec(),
    };
    packets::ip(src, dst, proto, ttl, false, &segment)
}

/// What the peer answers to a tunnel packet of the router: an echo reply in a tunnel packet of its own, or, where the inner
/// packet goes back to the router (a GRE keepalive), that packet.
pub(super) fn answer_in_tunnel(sent: &[u8]) -> Option<Vec<u8>> {
    let outer = Packet::sniff(sent).and_then(|f| Packet::parse(f, sent)).ok()?;
    let at = usize::from(outer.l4);
    let inner_at = match outer.proto {
        protocol::IPV4 | protocol::IPV6 => at,
        protocol::GRE => at + 4 + 4 * (*sent.get(at)? & 0xb0).count_ones() as usize,
        protocol::UDP if matches!(sent.get(at + 8)? >> 4, 4 | 6) => at + 8,
        protocol::UDP => at + 12,
        _ => return None,
    };
    let inner = sent.get(inner_at..).filter(|i| i.len() >= 20)?;
    let parsed = Packet::sniff(inner).and_then(|f| Packet::parse(f, inner)).ok()?;
    if parsed.dst == outer.src {
        return Some(inner.to_vec());
    }
    let reply = packets::echo_reply(&inner[..parsed.len as usize])?;
    let between = match outer.proto {
        // From the port to which it went to the one from which it came.
        protocol::UDP => [&sent[at + 2..at + 4], &sent[at..at + 2], &[0; 4], &sent[at + 8..inner_at]].concat(),
        _ => sent[at..inner_at].to_vec(),
    };
    let mut payload = [between, reply].concat();
    match outer.proto {
        protocol::UDP => {
            let n = payload.len() as u16;
            payload[4..6].copy_from_slice(&n.to_be_bytes());
        }
        protocol::GRE if payload[0] & 0x80 != 0 => {
            payload[4..6].fill(0);
            let sum = packets::sum16(&[&payload]);
            payload[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
    Some(packet(outer.dst, outer.src, outer.proto, 60, &payload))
}

/// An ICMP error of a router on the way about a packet that was sent: `what` says which.
pub(super) fn error_about(sent: &[u8], what: u8, word: u16, quoted: usize) -> Option<Vec<u8>> {
    let p = Packet::sniff(sent).and_then(|f| Packet::parse(f, sent)).ok()?;
    let quote = &sent[..quoted.min(sent.len())];
    let (from, proto, kind, code): (IpAddr, _, _, _) = match p.src {
        IpAddr::V4(_) => {
            let (kind, code) = [(3, 4), (3, 1), (11, 0), (12, 0), (3, 2), (11, 1)][usize::from(what) % 6];
            ([198, 51, 100, 250].into(), protocol::ICMP, kind, code)
        }
        IpAddr::V6(_) => {
            let (kind, code) = [(2, 0), (1, 0), (3, 0), (4, 0), (1, 4), (4, 2)][usize::from(what) % 6];
            let from = std::net::Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xfe);
            (from.into(), protocol::ICMPV6, kind, code)
        }
    };
    let w = word.to_be_bytes();
    let message = [&[kind, code, 0, 0, 0, 0, w[0], w[1]], quote].concat();
    Some(packet(from, p.src, proto, 60, &message))
}
