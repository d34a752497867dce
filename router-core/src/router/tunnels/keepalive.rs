//! Whether a tunnel's peer lives: echo requests through the tunnel, whatever the routes say. A tunnel whose peer does not
//! answer loses its carrier like a cable that is pulled: its routes give way to those with the next metric.

use super::paths::PathCause;
use super::search::Search;
use super::{Tunnel, Tunnels};
use crate::checksum;
use crate::headers::{be16, ipv4, protocol};
use crate::icmp::set_ttl;
use crate::journal::Happened;
use crate::packet::Packet;
use crate::port::PortId;
use crate::router::Router;
use crate::time::{Duration, Instant};
use crate::tunnel::gre_keepalive;
use crate::tunnel::spec::Keepalive;
use crate::worker::{Fixed, Outbox, Start};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// What the keepalive of a tunnel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Whether the tunnel is used.
    pub alive: bool,
    /// Questions asked.
    pub asked: u64,
    /// Questions answered in time.
    pub answered: u64,
    /// Times that it was found dead.
    pub deaths: u32,
    /// Round trip of the last answer, in microseconds.
    pub rtt_us: Option<u32>,
}

/// Asks one peer.
#[derive(Debug)]
pub(super) struct Keeper {
    options: Keepalive,
    pub(super) next: Instant,
    ident: u16,
    seq: u16,
    sent_at: Instant,
    /// The last question has been answered.
    answered: bool,
    missed: u8,
    /// Answers in a row.
    good: u8,
    life: Life,
}

/// See [`Keeper::ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Goes,
    Dies,
    Turns,
}

impl Keeper {
    pub(super) fn new(now: Instant, options: Keepalive, seed: u64, id: PortId) -> Self {
        let ident = (seed >> 23) as u16 ^ id.0 as u16;
        let life = Life { alive: true, asked: 0, answered: 0, deaths: 0, rtt_us: None };
        Keeper { options, next: now, ident, seq: 0, sent_at: now, answered: true, missed: 0, good: 0, life }
    }

    pub(super) fn life(&self) -> Life {
        self.life
    }

    /// Whether the last question was in vain.
    pub(super) fn misses(&self) -> bool {
        self.missed > 0
    }

    /// The tunnel takes another path: what went before says nothing about it.
    pub(super) fn moved(&mut self, now: Instant) {
        (self.answered, self.missed, self.next) = (true, 0, now);
    }

    /// A question is due: judges the last one. Says whether the tunnel has just died, or would have without another path
    /// that is answered.
    fn ask(&mut self, now: Instant, spare: bool) -> Verdict {
        if !self.answered {
            self.missed = self.missed.saturating_add(1);
            self.good = 0;
        }
        self.seq = self.seq.wrapping_add(1);
        (self.answered, self.sent_at) = (false, now);
        self.life.asked += 1;
        self.next = now + Duration::from_millis(u64::from(self.options.interval));
        match self.life.alive && self.missed >= self.options.retries {
            true if spare => Verdict::Turns,
            true => {
                self.life.alive = false;
                self.life.deaths += 1;
                Verdict::Dies
            }
            false => Verdict::Goes,
        }
    }

    /// An answer came. Says whether the tunnel has just come back to life.
    fn hear(&mut self, now: Instant, ident: u16, seq: u16) -> bool {
        if ident != self.ident || seq != self.seq || self.answered {
            return false;
        }
        self.answered = true;
        self.missed = 0;
        self.good = self.good.saturating_add(1);
        self.life.answered += 1;
        self.life.rtt_us = u32::try_from(now.saturating_since(self.sent_at).as_micros()).ok();
        let revives = !self.life.alive && self.good >= self.options.hold;
        self.life.alive |= revives;
        revives
    }
}

impl Tunnels {
    /// The tunnel whose peer is to be asked now.
    fn due(&mut self, now: Instant) -> Option<PortId> {
        let (at, id) = self.asking.first().copied().filter(|(at, _)| *at <= now)?;
        self.asking.remove(&(at, id));
        Some(id)
    }
}

impl Router {
    /// Asks all peers whose time has come.
    pub(in crate::router) fn poll_tunnels(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(id) = self.tunnels.due(now) {
            let Some(t) = self.tunnels.all.get_mut(&id) else { continue };
            let spare = t.paths.as_ref().and_then(|p| p.spare(now));
            let Some(keeper) = &mut t.keeper else { continue };
            let verdict = keeper.ask(now, spare.is_some());
            let (ident, seq, options) = (keeper.ident, keeper.seq, keeper.options);
            self.tunnels.asking.insert((keeper.next, id));
            if let (Verdict::Turns, Some(spare)) = (verdict, spare) {
                self.take_path(now, id, spare, PathCause::Unanswered, out);
                continue;
            }
            if verdict == Verdict::Dies {
                // The port is there: the tunnel is.
                let _ = self.set_link(now, id, None, Some(false), out);
                self.note_tunnel(now, id, Happened::Changed);
            }
            let question = match options.gre {
                true => {
                    self.tunnel_spec(id).and_then(|s| gre_keepalive::question(s.local, s.remote, &s.options.gre, seq))
                }
                false => {
                    let target = options.target;
                    self.probe_source(id, target).map(|source| echo_request(source, target, ident, seq, (0, 0xc0)))
                }
            };
            if let Some(question) = question {
                self.send_into(now, id, &question, false, out);
            }
            self.seek_paths(now, id, out);
        }
        self.poll_paths(now, out);
        self.poll_searches(now, out);
    }

    /// A tunnel's search begins, if its keepalive asks for one.
    pub(super) fn begin_search(&self, now: Instant, id: PortId, tunnel: &mut Tunnel) {
        if tunnel.spec.options.keepalive.is_some_and(|k| k.probe_mtu) {
            let (least, overhead) = (tunnel.spec.mode.shape().least_mtu(), tunnel.spec.overhead());
            // Not the keepalive's own number, so that answers are told apart.
            let ident = (self.seed >> 31) as u16 ^ (id.0 as u16).rotate_left(5) ^ 0x5a5a;
            tunnel.search = Some(Search::new(now, ident, (least, least, overhead)));
        }
    }

    /// Asks all questions of growing size whose time has come. A peer that is dead is not asked.
    fn poll_searches(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((at, id)) = self.tunnels.searching.first().copied().filter(|(at, _)| *at <= now) {
            self.tunnels.searching.remove(&(at, id));
            let Some(t) = self.tunnels.all.get_mut(&id) else { continue };
            let (Some(search), Some(keeper)) = (&mut t.search, &t.keeper) else { continue };
            let (target, ident, size) = (keeper.options.target, search.ident, search.size());
            let question = if keeper.life.alive {
                search.poll(now)
            } else {
                search.restart(now);
                search.next = now + Duration::from_millis(u64::from(keeper.options.interval));
                None
            };
            if search.size() != size {
                self.tunnels.dirty.insert(id);
            }
            self.tunnels.searching.insert((search.next, id));
            if let Some((seq, size)) = question
                && let Some(source) = self.probe_source(id, target)
            {
                self.send_into(now, id, &echo_request(source, target, ident, seq, (size, 0xc0)), true, out);
            }
        }
    }

    /// Sends a packet of our own into a tunnel, whatever the routes say, with the TTL that the operator wants (RFC 1122
    /// 3.2.1.7). `beyond`: also if it is longer than the tunnel's MTU.
    pub(super) fn send_into(&mut self, now: Instant, id: PortId, packet: &[u8], beyond: bool, out: &mut Outbox) {
        if !self.ports.get(id).is_some_and(|p| p.admin_up) {
            return;
        }
        let Some(mut frame) = out.pool.take() else { return };
        if !frame.set_data(packet) {
            return out.pool.put(frame);
        }
        set_ttl(frame.data_mut(), self.settings.icmp.ttl);
        frame.meta.beyond_mtu = beyond;
        self.worker.counters().originated.add(1);
        let tables = Arc::clone(&self.tables);
        self.worker.launch(now, &mut Fixed(tables), frame, Start::Link(id), out);
    }

    /// An echo reply came out of a tunnel whose peer is asked. `packet` is whole and its checksum right.
    pub(in crate::router) fn tunnel_answered(
        &mut self,
        now: Instant,
        id: PortId,
        packet: &Packet,
        data: &[u8],
        out: &mut Outbox,
    ) {
        if packet.proto != protocol::GRE {
            // An answer about the path in use itself.
            self.path_reply(now, id, None, packet, packet.transport(data), out);
        }
        let Some(tunnel) = self.tunnels.all.get_mut(&id) else { return };
        if packet.proto == protocol::GRE {
            let seq = gre_keepalive::number(packet, data);
            let keeper = tunnel.keeper.as_mut().filter(|k| k.options.gre);
            if keeper.is_some_and(|k| k.hear(now, k.ident, seq)) {
                let _ = self.set_link(now, id, None, Some(true), out);
                self.note_tunnel(now, id, Happened::Changed);
            }
            return;
        }
        let body = packet.transport(data);
        let (ident, seq) = (be16(body, 4), be16(body, 6));
        if let Some(search) = tunnel.search.as_mut().filter(|s| s.ident == ident) {
            let due = search.next;
            if search.hear(now, seq) {
                self.tunnels.dirty.insert(id);
            }
            self.tunnels.searching.remove(&(due, id));
            self.tunnels.searching.insert((search.next, id));
            return;
        }
        if let Some(probes) = &mut tunnel.probes {
            probes.hear(now, packet.src, ident, seq, packet);
        }
        let Some(keeper) = tunnel.keeper.as_mut().filter(|k| !k.options.gre) else { return };
        if keeper.options.target == packet.src && keeper.hear(now, ident, seq) {
            let _ = self.set_link(now, id, None, Some(true), out);
            self.note_tunnel(now, id, Happened::Changed);
        }
    }

    /// A tunnel is not asked any more: whatever was found, it counts as alive.
    pub(super) fn revive(&mut self, _now: Instant, id: PortId) {
        if self.no_carrier.remove(&id)
            && let Ok(mut info) = self.port(id)
        {
            info.up = info.admin_up;
            self.put(info);
        }
    }
}

/// An ICMP or ICMPv6 echo request of at least `size` bytes, header included, with this traffic class; DF is set. Both
/// addresses are of one family.
pub(super) fn echo_request(src: IpAddr, dst: IpAddr, ident: u16, seq: u16, (size, tclass): (u32, u8)) -> Vec<u8> {
    const DATA: &[u8] = b"duet-ask";
    let header = if src.is_ipv4() { 20 } else { 40 };
    let len = (size.min(65_535) as usize).saturating_sub(header).max(8 + DATA.len());
    let mut message = vec![0x2a; len];
    message[..4].fill(0);
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    message[6..8].copy_from_slice(&seq.to_be_bytes());
    message[8..16].copy_from_slice(DATA);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            message[0] = 8;
            let sum = checksum::checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0; header];
            let total_len = (header + len) as u16;
            ipv4::Header { tos: tclass, total_len, ident: seq, df: true, ttl: 64, proto: protocol::ICMP, src, dst }
                .write(&mut packet);
            packet.extend(message);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            message[0] = 128;
            let sum = checksum::pseudo_v6(src, dst, protocol::ICMPV6, len as u32).bytes(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let payload = (len as u16).to_be_bytes();
            let mut packet = vec![0x60 | tclass >> 4, tclass << 4, 0, 0, payload[0], payload[1], protocol::ICMPV6, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(message);
            packet
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_and_revival() {
        let options = Keepalive { retries: 2, hold: 2, ..Keepalive::new("192.0.2.1".parse().unwrap()) };
        let mut now = Instant::from_millis(0);
        let mut k = Keeper::new(now, options, 77, PortId(3));
        let (mut deaths, mut revivals) = (Vec::new(), Vec::new());
        // Answered: a while, then not, once by a stranger, then again.
        for (i, answered) in [true, true, false, false, false, true, false, true, true, true].into_iter().enumerate() {
            now = k.next;
            if k.ask(now, false) == Verdict::Dies {
                deaths.push(i);
            }
            assert!(!k.hear(now, k.ident ^ 1, k.seq) && !k.hear(now, k.ident, k.seq.wrapping_add(1)));
            if answered && k.hear(now + Duration::from_millis(7), k.ident, k.seq) {
                revivals.push(i);
            }
            assert!(!answered || !k.hear(now, k.ident, k.seq), "a second answer is none");
        }
        assert_eq!((deaths, revivals), (vec![4], vec![8]));
        assert_eq!(k.life(), Life { alive: true, asked: 10, answered: 6, deaths: 1, rtt_us: Some(7000) });
    }

    #[test]
    fn requests_are_whole() {
        for (a, b) in [("192.0.2.1", "192.0.2.2"), ("fe80::1", "fe80::2")] {
            for (size, want) in [(0, None), (1280, Some(1280)), (65_535, Some(65_535))] {
                let v = echo_request(a.parse().unwrap(), b.parse().unwrap(), 7, 9, (size, 0xba));
                let p = Packet::parse(Packet::sniff(&v).unwrap(), &v).unwrap();
                assert!(crate::forward::local::checksum_ok(&p, &v));
                assert_eq!((p.len as usize, p.tclass), (want.unwrap_or(v.len()), 0xba));
            }
        }
    }
}
