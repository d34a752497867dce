//! Tunnels in the pipeline: a packet for the router that may be a tunnel's, and the way into one.

use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::forward::local::Local;
use crate::frame::Frame;
use crate::headers::{be16, protocol};
use crate::object::Encap;
use crate::observe::{Cause, Observer, Stage};
use crate::offload::complete_checksum;
use crate::packet::Packet;
use crate::port::{PortCaps, PortId, PortInfo, PortKind};
use crate::tables::{Tables, domain_of};
use crate::tunnel::path::{self, Arrival, Path};
use crate::tunnel::{TunnelState, decapsulate, gre, gre_keepalive, udp};
use crate::worker::route::is_own;
use crate::worker::{Job, PuntReason, Start, Step, Worker};
use std::net::{IpAddr, Ipv4Addr};

impl<O: Observer> Worker<O> {
    /// Whether a packet for the router is a tunnel's matter, although its protocol alone does not say so, or is none
    /// although it does.
    pub(super) fn classify_tunnel(&self, step: &Step<'_>, frame: &Frame, packet: &Packet, verdict: Local) -> Local {
        match verdict {
            Local::Drop(DropReason::NoLocalService)
                if packet.proto == protocol::UDP
                    && (self.is_over_udp(step, frame)
                        || decapsulate::is_tunnel_port(step.tables, packet, frame.data())) =>
            {
                Local::Tunnel
            }
            // Without any tunnel of the kind it is just a protocol that the router does not know.
            Local::Tunnel if packet.family == Family::Inet6 || packet.proto == protocol::GRE => {
                let table = step.tables.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
                match step.tables.decap.peers(packet.proto, table) {
                    Some(_) => Local::Tunnel,
                    None => Local::Drop(DropReason::NoLocalService),
                }
            }
            other => other,
        }
    }

    /// Whether a packet came by a port that carries tunnels in UDP and nothing else.
    fn is_over_udp(&self, step: &Step<'_>, frame: &Frame) -> bool {
        step.tables.ports.get(frame.meta.port).is_some_and(|p| p.kind == PortKind::Udp)
    }

    /// A packet for the router that a tunnel's peer may have sent.
    pub(super) fn leave_tunnel(&mut self, step: &mut Step<'_>, mut frame: Frame, packet: &Packet, depth: u8) {
        if depth >= step.tables.settings.max_tunnel_nesting {
            return self.discard(step, frame, DropReason::TunnelNesting);
        }
        let table = step.tables.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        // RFC 4213 3.6: not from a configured peer; and no ICMP answer that a scan could use.
        let (tunnel, gate) = match decapsulate::find(step.tables, table, packet, frame.data()) {
            Ok(found) => found,
            Err(reason) => return self.discard(step, frame, reason),
        };
        // A tunnel whose peer does not answer counts as down, and must hear when it answers again.
        let open = step.tables.ports.get(tunnel).is_some_and(|t| t.up || t.admin_up && gate.keepalive);
        if !open {
            return self.discard(step, frame, DropReason::PortDown);
        }
        // Datagrams that were merged on the way in are tunnel packets of their own.
        if frame.meta.gso.is_some() && packet.proto == protocol::UDP {
            if let Some(first) = self.prepare(step, frame, &PortCaps::default()) {
                self.requeue_input(first, depth);
            }
            return;
        }
        let arrival = gate.arrivals.as_ref().map_or(Arrival::Used, |a| a.judge(Path::of(packet, frame.data())));
        if arrival == Arrival::Unknown {
            return match O::REHEARSAL || !gate.state().may_ask(step.now) {
                true => self.discard(step, frame, DropReason::TunnelUnknownPeer),
                false => self.punt(step, frame, PuntReason::TunnelPath(*packet)),
            };
        }
        // GRE's checksum is over everything behind it: one that is left to the device, GRE's own (Linux does so) or that of
        // the packet inside, must be there first.
        if frame.meta.csum.is_some()
            && gre::has_checksum(packet, frame.data())
            && let Err(reason) = complete_checksum(&mut frame)
        {
            return self.discard(step, frame, reason);
        }
        let own = TunnelState::default();
        let state = if O::REHEARSAL { &own } else { gate.state() };
        if packet.proto == protocol::GRE {
            if gre_keepalive::is_answer(gate, packet, frame.data()) {
                frame.meta.port = tunnel;
                return self.punt(step, frame, PuntReason::EchoReply(*packet));
            }
            // Goes back as it is, by the underlay's routes: never to anybody but the peer.
            if let Some(found) = gre_keepalive::find_question(gate, packet, frame.data(), step.now, state) {
                let at = match found {
                    Ok(at) => at,
                    Err(reason) => return self.discard(step, frame, reason),
                };
                frame.pull_front(at);
                frame.meta.ttl_taken = false;
                frame.meta.source_route = 0;
                self.note(&frame, || Stage::Caused { what: Cause::Inner, front: true });
                return self.jobs.push_front(Job { depth: depth + 1, ..Job::new(frame, Start::Lookup(table)) });
            }
        }
        let opened = match decapsulate::open(gate, packet, frame.data(), step.now, state) {
            Ok(opened) => opened,
            // A NAT may have given one peer's port to another.
            Err(DropReason::TunnelInnerSource)
                if gate.udp.is_some_and(|u| u.learn) && !O::REHEARSAL && gate.state().may_ask(step.now) =>
            {
                return self.punt(step, frame, PuntReason::TunnelPath(*packet));
            }
            Err(reason) => return self.discard(step, frame, reason),
        };
        if packet.proto == protocol::UDP && frame.meta.csum.is_none() && !udp_sum_ok(packet, &frame) {
            return self.discard(step, frame, DropReason::TunnelChecksum);
        }
        if arrival == Arrival::Other && is_echo(opened.family, frame.data().get(opened.at..).unwrap_or_default()) {
            return self.punt(step, frame, PuntReason::TunnelPath(*packet));
        }
        decapsulate::take_off(&mut frame, &opened);
        frame.meta.port = tunnel;
        frame.meta.ttl_taken = false;
        (frame.meta.passed_in, frame.meta.passed_out) = (false, false);
        if let Some(c) = self.counters.port(tunnel) {
            c.rx_packets.add(1);
            c.rx_bytes.add(frame.len() as u64);
        }
        self.note(&frame, || Stage::Decapsulated(tunnel));
        self.note(&frame, || Stage::Caused { what: Cause::Inner, front: true });
        self.jobs.push_front(Job { depth: depth + 1, ..Job::new(frame, Start::Input { link: None }) });
    }

    /// Whether a packet for the router is an echo reply for which the control side waits.
    pub(super) fn is_awaited(&self, step: &Step<'_>, frame: &Frame, packet: &Packet) -> bool {
        let reply = if packet.family == Family::Inet { 0 } else { 129 };
        let message = packet.transport(frame.data());
        let asked = || message.get(4..6).is_some_and(|ident| step.tables.pings.contains(&be16(ident, 0)));
        message.first() == Some(&reply)
            && (step.tables.gates.get(frame.meta.port).is_some_and(|g| g.keepalive) || asked())
    }

    /// Whether an IPv4 packet of somebody else's says that it comes from this router, or from the far end of the IPv4 tunnel
    /// that it would enter: it goes round (RFC 2003 3.2).
    #[inline]
    pub(super) fn goes_round(&self, step: &Step<'_>, frame: &Frame, packet: &Packet, encap: &Encap) -> bool {
        matches!(packet.src, IpAddr::V4(src) if !is_own(frame) && returns(step.tables, encap, frame.meta.port, src))
    }

    /// Whether a packet came out of the very tunnel that it would enter: there is nobody in there but the one who sent it
    /// (RFC 4443 3.1, last paragraph), unless the tunnel has many peers and the router is their relay.
    #[inline]
    pub(super) fn turns_back(&self, step: &Step<'_>, frame: &Frame, encap: &Encap) -> bool {
        frame.meta.port == encap.tunnel
            && step.tables.gates.get(encap.tunnel).is_none_or(|g| g.derived.is_none_or(|d| !d.is_relay()))
    }
}

/// See [`Worker::goes_round`]. `port`: where the packet came in, whose VRF says whose address it is.
#[inline]
pub(super) fn returns(tables: &Tables, encap: &Encap, port: PortId, src: Ipv4Addr) -> bool {
    if encap.outer.as_ref().is_none_or(|o| o.family() != Family::Inet) {
        return false;
    }
    let domain = |p: &PortInfo| domain_of(p.table);
    encap.facts.remote == src
        || tables.ports.may_be_own(src)
            && tables
                .ports
                .owners(IpAddr::V4(src))
                .any(|own| tables.ports.get(port).is_none_or(|from| domain(from) == domain(own)))
}

fn is_echo(family: Family, inner: &[u8]) -> bool {
    Packet::parse(family, inner).is_ok_and(|p| path::echo_request(&p, inner).is_some())
}

fn udp_sum_ok(packet: &Packet, frame: &Frame) -> bool {
    let datagram = packet.transport(frame.data());
    let pseudo = crate::checksum::pseudo(packet.src, packet.dst, packet.proto, datagram.len() as u32);
    udp::checksum_ok(pseudo, datagram)
}
