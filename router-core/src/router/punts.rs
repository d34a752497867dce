//! Frames that the data plane could not finish: ARP, NDP, packets that wait for a neighbour, fragments to the router,
//! ICMP errors about packets of ours.

use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::fragment::Pushed;
use crate::frame::Frame;
use crate::icmp::{IcmpError, Offender};
use crate::neighbor::arp;
use crate::neighbor::mld::{self, Query};
use crate::neighbor::ndp::question_source;
use crate::neighbor::{
    ArpReceived, NdpReceived, NeighError, Neighbor, NeighborEvent, Outcome, Resolution, SetMode, answer_without_link,
    write_solicit,
};
use crate::object::{Forward, Rewrite};
use crate::packet::Packet;
use crate::port::{Medium, PortId};
use crate::router::Router;
use crate::spec::NeighSpec;
use crate::time::Instant;
use crate::worker::{Fixed, Outbox, Punt, PuntReason, Start, Step};
use std::net::IpAddr;
use std::sync::Arc;

impl Router {
    /// Treats a frame that a worker could not finish, and those of our own answers that have to wait themselves.
    pub fn handle(&mut self, now: Instant, punt: Punt, out: &mut Outbox) {
        self.handle_one(now, punt, out);
        self.handle_own(now, out);
    }

    /// Treats what the control side's own packets need: an ICMP error may wait for a neighbour, too.
    pub(super) fn handle_own(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(punt) = out.punts.pop() {
            self.handle_one(now, punt, out);
        }
    }

    fn handle_one(&mut self, now: Instant, punt: Punt, out: &mut Outbox) {
        let Punt { frame, why } = punt;
        self.worker.counters().held.sub(1);
        match why {
            PuntReason::Arp => self.neighbor_message(now, frame, None, out),
            PuntReason::Ndp { packet, from } => self.neighbor_message(now, frame, Some((packet, from)), out),
            PuntReason::RouterSolicit(packet) => self.router_solicit(now, frame, &packet, out),
            PuntReason::Resolve { port, neighbor } => self.wait_for(now, frame, port, neighbor, out),
            PuntReason::Reassemble(packet) => self.reassemble(now, frame, &packet, out),
            PuntReason::IcmpError(packet) => self.icmp_error(now, frame, &packet, out),
            PuntReason::EchoReply(packet) => {
                if !self.ping_answered(now, &packet, frame.data()) {
                    self.tunnel_answered(now, frame.meta.port, &packet, frame.data(), out);
                }
                self.worker.counters().delivered.add(1);
                out.pool.put(frame);
            }
            PuntReason::TunnelPath(packet) => self.tunnel_path(now, frame, &packet, out),
            PuntReason::Translate { port, packet, depth } => {
                self.translate_punt(now, frame, &packet, port, depth, out);
            }
        }
        self.settle_neighbors(now, out);
    }

    /// A packet waits until its neighbour is known.
    fn wait_for(&mut self, now: Instant, frame: Frame, port: PortId, neighbor: IpAddr, out: &mut Outbox) {
        if self.ports.get(port).is_none_or(|p| !p.up) {
            return self.end(now, frame, DropReason::PortDown, out);
        }
        let mut events = std::mem::take(&mut self.events);
        let (table, settings) = (&mut self.neighbors, &self.settings.neighbor);
        let result = match self.routing.is_gateway(port, neighbor) {
            true => table.resolve_gateway(now, settings, port, neighbor, Some(frame), &mut events),
            false => table.resolve(now, settings, port, neighbor, Some(frame), &mut events),
        };
        self.events = events;
        match result {
            Resolution::Pending => self.worker.counters().held.add(1),
            Resolution::Known(mac, Some(frame)) => self.send_via(now, port, neighbor, mac, frame, out),
            Resolution::Refused(reason, Some(frame)) => self.refuse(now, frame, reason, out),
            Resolution::Known(_, None) | Resolution::Refused(_, None) => {}
        }
    }

    /// Does what the neighbour table asked for, until it asks for nothing more.
    pub(super) fn settle_neighbors(&mut self, now: Instant, out: &mut Outbox) {
        while !self.events.is_empty() {
            for event in std::mem::take(&mut self.events) {
                match event {
                    NeighborEvent::Solicit { port, target, unicast } => self.solicit(now, port, target, unicast, out),
                    NeighborEvent::Changed { port, addr, mac, used } => {
                        if mac.is_some() {
                            self.lost_gateways.remove(&(port, addr));
                        }
                        self.routing.set_neighbor(port, addr, mac.map(|m| (m, used)));
                    }
                    NeighborEvent::Release { port, addr, mac, frames } => {
                        self.routing.neighbor_failed(port, addr, false);
                        for frame in frames {
                            self.worker.counters().held.sub(1);
                            self.send_via(now, port, addr, mac, frame, out);
                        }
                    }
                    NeighborEvent::Failed { port, addr, frames } => {
                        self.routing.neighbor_failed(port, addr, true);
                        if self.routing.is_gateway(port, addr) {
                            self.lost_gateways.insert((port, addr), now + self.settings.neighbor.failed_hold);
                        }
                        for frame in frames {
                            self.worker.counters().held.sub(1);
                            self.refuse(now, frame, DropReason::NeighborFailed, out);
                        }
                    }
                    NeighborEvent::Dropped { reason, frame } => {
                        self.worker.counters().held.sub(1);
                        self.end(now, frame, reason, out);
                    }
                    NeighborEvent::Evicted { port, addr } => {
                        self.routing.set_neighbor(port, addr, None);
                        let gateway = self.routing.is_gateway(port, addr);
                        self.routing.neighbor_failed(port, addr, gateway);
                        if gateway {
                            self.lost_gateways.insert((port, addr), now);
                        }
                    }
                }
            }
        }
    }

    /// Asks again for gateways that were lost: groups that left them out must learn that they are back, although no
    /// traffic asks for them.
    pub(super) fn seek_gateways(&mut self, now: Instant, out: &mut Outbox) {
        let due: Vec<_> = self.lost_gateways.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
        for (port, addr) in due {
            self.lost_gateways.remove(&(port, addr));
            if !self.routing.is_gateway(port, addr) || self.ports.get(port).is_none_or(|p| !p.up) {
                self.routing.neighbor_failed(port, addr, false);
                continue;
            }
            let mut events = std::mem::take(&mut self.events);
            let found = self.neighbors.resolve_gateway(now, &self.settings.neighbor, port, addr, None, &mut events);
            self.events = events;
            match found {
                Resolution::Known(..) => self.routing.neighbor_failed(port, addr, false),
                // Its answer, or its silence, brings the next event.
                Resolution::Pending => {}
                Resolution::Refused(..) => {
                    self.lost_gateways.insert((port, addr), now + self.settings.neighbor.failed_hold);
                }
            }
        }
        self.settle_neighbors(now, out);
    }

    /// Asks for a neighbour's link-layer address.
    fn solicit(&mut self, now: Instant, port: PortId, target: IpAddr, unicast: Option<MacAddr>, out: &mut Outbox) {
        let Some(info) = self.ports.get(port).filter(|p| p.up) else { return };
        // Nothing is asked from an address that may be somebody else's (RFC 4862 5.4, RFC 5227 2.1); it is asked again in a second.
        let source = match target {
            IpAddr::V4(target) => arp::sender_for(info, target).map(IpAddr::V4),
            IpAddr::V6(_) => question_source(info).map(IpAddr::V6),
        };
        if source.is_some_and(|a| self.own.is_tentative(port, &a)) {
            return;
        }
        let Some(mut frame) = out.pool.take() else { return };
        if write_solicit(&mut frame, info, target, unicast).is_err() {
            return out.pool.put(frame);
        }
        self.worker.counters().originated.add(1);
        let tables = Arc::clone(&self.tables);
        self.worker.transmit(&mut Step { now, tables: &tables, out }, port, frame);
    }

    /// Sends a packet to a neighbour whose link-layer address is known, without waiting for the next snapshot.
    fn send_via(&mut self, now: Instant, port: PortId, addr: IpAddr, mac: MacAddr, frame: Frame, out: &mut Outbox) {
        let Some(info) = self.ports.get(port) else { return self.end(now, frame, DropReason::PortGone, out) };
        let hop = Forward {
            port,
            mtu: info.mtu,
            // That of its route has been seen to when the packet began to wait.
            mss: 0,
            gateway: Some(addr),
            rewrite: Rewrite::ethernet(mac, info.mac.unwrap_or_default(), info.vlan),
            used: Default::default(),
        };
        let tables = Arc::clone(&self.tables);
        self.worker.launch_via(now, &tables, frame, &hop, out);
    }

    /// Drops a frame and tells its sender where the rules ask for it.
    pub(super) fn refuse(&mut self, now: Instant, frame: Frame, reason: DropReason, out: &mut Outbox) {
        let tables = Arc::clone(&self.tables);
        self.worker.launch_refusal(now, &tables, frame, reason, out);
    }

    /// Drops a frame.
    pub(super) fn end(&mut self, now: Instant, frame: Frame, reason: DropReason, out: &mut Outbox) {
        let tables = Arc::clone(&self.tables);
        self.worker.discard(&mut Step { now, tables: &tables, out }, frame, reason);
    }

    /// A fragment for one of our addresses.
    fn reassemble(&mut self, now: Instant, frame: Frame, packet: &Packet, out: &mut Outbox) {
        let port = frame.meta.port;
        if let Some(mut whole) = self.join(now, frame, packet, out) {
            whole.meta.port = port;
            let source = &mut Fixed(Arc::clone(&self.tables));
            self.worker.launch(now, source, whole, Start::Reassembled, out);
        }
    }

    /// Accounts for a fragment: it is kept, or dropped, or the last that a packet was missing, which is returned.
    pub(super) fn join(&mut self, now: Instant, frame: Frame, packet: &Packet, out: &mut Outbox) -> Option<Frame> {
        let table = self.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        let pushed = self.reassembler.push_in(now, table, &frame);
        let evicted = self.reassembler.take_evicted();
        self.unhold(evicted, DropReason::HeldLimit);
        match pushed {
            Pushed::Whole => self.end(now, frame, DropReason::LocalFragment, out),
            Pushed::Held => {
                self.worker.counters().held.add(1);
                out.pool.put(frame);
            }
            Pushed::Complete { frame: whole, merged } => {
                self.worker.counters().held.sub(merged as u64);
                self.worker.counters().delivered.add(merged as u64);
                out.pool.put(frame);
                return Some(whole);
            }
            Pushed::Dropped { reason, also, pointer } => {
                self.unhold(also, reason);
                if let Some(pointer) = pointer {
                    let error = IcmpError::parameter_problem_v6(0, pointer);
                    self.report(now, &frame, packet, &error, out);
                }
                self.end(now, frame, reason, out);
            }
        }
        None
    }

    /// Held fragments are dropped.
    pub(super) fn unhold(&self, fragments: usize, reason: DropReason) {
        let counters = self.worker.counters();
        counters.held.sub(fragments as u64);
        for _ in 0..fragments {
            counters.count_drop(reason);
        }
    }

    /// Gives up datagrams whose missing pieces did not come in time.
    pub(super) fn poll_reassembly(&mut self, now: Instant, out: &mut Outbox) {
        let mut expired = Vec::new();
        self.reassembler.poll(now, &mut expired);
        for e in expired {
            self.unhold(e.fragments, DropReason::LocalFragment);
            if let Some(first) = e.first
                && let Ok(packet) = Packet::sniff(first.data()).and_then(|f| Packet::parse(f, first.data()))
            {
                let error = IcmpError::reassembly_time_exceeded(packet.family);
                self.report(now, &first, &packet, &error, out);
            }
        }
    }

    /// Sends an ICMP error that is not the answer to a drop reason.
    pub(super) fn report(&mut self, now: Instant, frame: &Frame, packet: &Packet, error: &IcmpError, out: &mut Outbox) {
        let offender = Offender::of(packet, frame.data());
        if offender.may_be_answered_with(error) {
            let tables = Arc::clone(&self.tables);
            self.worker.launch_error(now, &tables, error, &offender, frame.meta.port, out);
        }
    }

    /// An ICMP error about a packet of ours: those about tunnels matter, and about what the operator has asked.
    fn icmp_error(&mut self, now: Instant, frame: Frame, packet: &Packet, out: &mut Outbox) {
        let table = self.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        let body = packet.transport(frame.data());
        let body = body.to_vec();
        self.ping_failed(now, packet.src, &body);
        self.tunnel_error(now, table, packet, &body, out);
        self.worker.counters().delivered.add(1);
        out.pool.put(frame);
    }

    /// Forgets the neighbours of a port that is going away or down.
    pub(super) fn flush_neighbors(&mut self, now: Instant, port: PortId, gone: bool, out: &mut Outbox) {
        let (keep_static, reason) = (!gone, if gone { DropReason::PortGone } else { DropReason::PortDown });
        let mut events = std::mem::take(&mut self.events);
        self.neighbors.flush_port(port, keep_static, reason, &mut events);
        self.events = events;
        self.settle_neighbors(now, out);
    }

    /// ARP, or neighbour discovery (`ndp`: its parse and the sender on the link).
    fn neighbor_message(
        &mut self,
        now: Instant,
        frame: Frame,
        ndp: Option<(Packet, Option<MacAddr>)>,
        out: &mut Outbox,
    ) {
        let Some(port) = self.ports.get(frame.meta.port).map(Arc::clone) else {
            return self.end(now, frame, DropReason::PortGone, out);
        };
        if let Some((packet, _)) = ndp.as_ref().filter(|(p, _)| p.transport(frame.data()).first() == Some(&mld::QUERY))
        {
            let query = Query::parse(packet, frame.data());
            return match query.is_some_and(|q| self.listener.query(now, port.id, &q)) {
                true => {
                    self.worker.counters().delivered.add(1);
                    out.pool.put(frame);
                }
                false => self.end(now, frame, DropReason::LocalIgnored, out),
            };
        }
        let Some(mut answer) = out.pool.take() else { return self.end(now, frame, DropReason::NoFrame, out) };
        let settings = &self.settings.neighbor;
        let events = &mut self.events;
        let outcome = match ndp {
            None => {
                let received = ArpReceived { data: frame.data(), tentative: Some(&self.own) };
                self.neighbors.arp_input(now, settings, &port, received, &mut answer, events)
            }
            Some((packet, from)) => {
                let tentative = Some(&self.own);
                let received = NdpReceived { packet: &packet, data: frame.data(), from, tentative };
                if port.medium == Medium::Ip {
                    let outcome = answer_without_link(&port, &received, &mut answer);
                    return self.answered_without_link(now, port.id, outcome, frame, answer, out);
                }
                self.neighbors.ndp_input(now, settings, &port, &received, &mut answer, events)
            }
        };
        // A good solicitation, used or not: hosts that look for a router get one (RFC 4861 6.2.6).
        let outcome = match outcome {
            Ok(Outcome::Used | Outcome::Ignored(DropReason::LocalIgnored))
                if self.adverts.is_active(port.id) && asks_for_routers(ndp.as_ref(), frame.data()) =>
            {
                self.adverts.solicited(now, port.id);
                Ok(Outcome::Used)
            }
            other => other,
        };
        let counters = self.worker.counters();
        match outcome {
            Ok(Outcome::Answer) => {
                counters.answered.add(1);
                counters.originated.add(1);
                out.pool.put(frame);
                let tables = Arc::clone(&self.tables);
                self.worker.transmit(&mut Step { now, tables: &tables, out }, port.id, answer);
                return;
            }
            Ok(Outcome::Used) => counters.delivered.add(1),
            Ok(Outcome::Conflict { addr, mac }) => {
                counters.delivered.add(1);
                // Another port of ours on the same link is nobody else (RFC 5227 2.1.1).
                if addr.is_ipv6() || mac.is_none() || self.ports.iter().all(|p| p.mac != mac) {
                    let conflict = self.own.conflict(now, settings, port.id, addr);
                    if conflict.news {
                        // Bounded: one per address of ours.
                        self.conflicts.insert((port.id, addr), mac);
                    }
                    if conflict.lost {
                        self.give_up(port.id, addr);
                    }
                }
            }
            Ok(Outcome::Ignored(reason)) | Err(reason) => {
                out.pool.put(answer);
                return self.end(now, frame, reason, out);
            }
        }
        out.pool.put(answer);
        out.pool.put(frame);
    }

    /// What became of a message from a port without link-layer addresses.
    fn answered_without_link(
        &mut self,
        now: Instant,
        port: PortId,
        outcome: Result<Outcome, DropReason>,
        frame: Frame,
        answer: Frame,
        out: &mut Outbox,
    ) {
        match outcome {
            Ok(Outcome::Answer) => {
                let counters = self.worker.counters();
                counters.answered.add(1);
                counters.originated.add(1);
                out.pool.put(frame);
                let source = &mut Fixed(Arc::clone(&self.tables));
                self.worker.launch(now, source, answer, Start::Link(port), out);
            }
            Ok(Outcome::Ignored(reason)) | Err(reason) => {
                out.pool.put(answer);
                self.end(now, frame, reason, out);
            }
            Ok(Outcome::Used | Outcome::Conflict { .. }) => {
                out.pool.put(answer);
                self.worker.counters().delivered.add(1);
                out.pool.put(frame);
            }
        }
    }

    /// The neighbours of all ports, by port and address.
    pub fn neighbors(&self) -> Vec<Neighbor> {
        self.neighbors.list()
    }

    /// Sets a neighbour by hand.
    pub fn set_neighbor(
        &mut self,
        now: Instant,
        port: PortId,
        mode: SetMode,
        spec: &NeighSpec,
        out: &mut Outbox,
    ) -> Result<(), NeighError> {
        let mut events = std::mem::take(&mut self.events);
        let result = self.neighbors.set(now, &self.settings.neighbor, port, spec, mode, &mut events);
        self.events = events;
        self.settle_neighbors(now, out);
        result
    }

    /// Deletes a neighbour; packets that waited for it are refused.
    pub fn del_neighbor(
        &mut self,
        now: Instant,
        port: PortId,
        addr: IpAddr,
        out: &mut Outbox,
    ) -> Result<(), NeighError> {
        let mut events = std::mem::take(&mut self.events);
        let result = self.neighbors.delete(port, addr, &mut events);
        self.events = events;
        self.settle_neighbors(now, out);
        result
    }
}

/// Whether a neighbour discovery message is a router solicitation.
fn asks_for_routers(ndp: Option<&(Packet, Option<MacAddr>)>, data: &[u8]) -> bool {
    ndp.is_some_and(|(packet, _)| packet.transport(data).first() == Some(&133))
}
