//! Packets that answer packets: ICMP errors, echo replies, TCP resets. All are originated here, limited in rate, and
//! sent like any other packet of ours.

use crate::drop_reason::DropReason;
use crate::forward::local;
use crate::frame::{Frame, Meta};
use crate::headers::{ipv6_arrival, source_route};
use crate::icmp::{self, Extension, IcmpError, LimitKind, Offender, Redirect};
use crate::object::Forward;
use crate::observe::{Cause, Observer, Stage, Withheld};
use crate::packet::Packet;
use crate::port::PortId;
use crate::worker::options::has_options;
use crate::worker::route::{is_own, millis};
use crate::worker::{Job, Start, Step, Worker};
use std::net::IpAddr;

impl<O: Observer> Worker<O> {
    /// Ends a packet as dropped and tells its sender where the reason and the rules ask for it. `param` is the MTU for
    /// [`DropReason::TooBig`].
    pub(crate) fn refuse(
        &mut self,
        step: &mut Step<'_>,
        mut frame: Frame,
        packet: &Packet,
        reason: DropReason,
        param: u32,
    ) {
        // What is told quotes the packet as it came.
        let pointer = std::mem::take(&mut frame.meta.source_route);
        if pointer != 0
            && let Some(header) = frame.data_mut().get_mut(..usize::from(packet.l4))
        {
            source_route::undo(header, pointer);
        }
        if !is_own(&frame) {
            let offender = Offender::of(packet, frame.data());
            if let Some(error) = icmp::error_for(reason, param, &offender) {
                self.send_error(step, &error, &offender, frame.meta.port);
            }
        }
        self.discard(step, frame, reason);
    }

    /// The same for a packet that did not parse, as far as its header can be trusted.
    /// `link_group`: it came to a link-layer group.
    pub(super) fn refuse_unparsed(&mut self, step: &mut Step<'_>, frame: Frame, reason: DropReason, link_group: bool) {
        if !is_own(&frame)
            && let Some(offender) = Offender::refused(frame.data(), link_group)
            && let Some(error) = icmp::error_for(reason, 0, &offender)
            && !is_directed_broadcast(step, offender.dst())
        {
            self.send_error(step, &error, &offender, frame.meta.port);
        }
        self.discard(step, frame, reason);
    }

    /// Writes an ICMP error and puts it on the job list.
    pub(crate) fn send_error(&mut self, step: &mut Step<'_>, error: &IcmpError, about: &Offender<'_>, ingress: PortId) {
        let settings = &step.tables.settings;
        if !self.limiter.allow(step.now, &settings.icmp, LimitKind::of(error), about.src()) {
            return self.withhold(error, Withheld::RateLimit);
        }
        let Some(src) = icmp::error_source(about, ingress, &step.tables.ports, settings) else {
            return self.withhold(error, Withheld::NoSource);
        };
        let Some(mut out) = step.out.pool.take() else { return self.withhold(error, Withheld::NoFrame) };
        let port = step.tables.ports.get(ingress).map(|p| &**p);
        let extension = Extension::new(&settings.icmp, port, error.family(), about.src());
        if icmp::write_extended_error(&mut out, error, src, about, &extension).is_err() {
            self.withhold(error, Withheld::NoFrame);
            return step.out.pool.put(out);
        }
        // RFC 1812 4.3.2.6: back the way it came, unless that is the trouble.
        if settings.ipv4_options.follows_routes() && !error.is_parameter_problem() {
            icmp::send_back_along(&mut out, about);
        }
        self.note(&out, || Stage::Caused { what: Cause::Error(error), front: false });
        self.originate(step, out, about.src(), ingress);
    }

    /// An error that does not go out.
    #[inline(always)]
    fn withhold(&mut self, error: &IcmpError, why: Withheld) {
        if O::ON {
            self.observer.note(Stage::ErrorWithheld { error, why }, &Frame::default());
        }
    }

    /// Ends a packet for one of our addresses as dropped, with the ICMPv6 parameter problem that the check of its
    /// extension headers asks for.
    pub(super) fn refuse_arrival(
        &mut self,
        step: &mut Step<'_>,
        frame: Frame,
        packet: &Packet,
        why: ipv6_arrival::Refusal,
    ) {
        if let Some((code, pointer)) = why.answer.filter(|_| !is_own(&frame)) {
            let offender = Offender::of(packet, frame.data());
            let error = IcmpError::parameter_problem_v6(code, pointer);
            if offender.may_be_answered_with(&error) {
                self.send_error(step, &error, &offender, frame.meta.port);
            }
        }
        self.discard(step, frame, why.reason);
    }

    /// Tells the sender of a packet that leaves by the port it came in of a better first hop (RFC 1812 5.2.7.2, RFC 4861
    /// 8.2). The packet itself goes on.
    pub(super) fn redirect(&mut self, step: &mut Step<'_>, frame: &Frame, packet: &Packet, hop: &Forward) {
        let settings = &step.tables.settings.icmp;
        let port = step
            .tables
            .ports
            .get(hop.port)
            .filter(|_| settings.redirects && !frame.meta.ttl_taken && !frame.meta.redirected)
            // RFC 1812 5.2.7.2: who wants a packet to go this way knows why.
            .filter(|_| !has_options(packet) || source_route::SourceRoute::of(frame.data()).is_none());
        let Some(redirect) = port.and_then(|port| icmp::redirect(port, packet, hop)) else { return };
        let from = match redirect {
            Redirect::V4 { from, .. } => IpAddr::V4(from),
            Redirect::V6 { from, .. } => IpAddr::V6(from),
        };
        if step.tables.ports.is_tentative(hop.port, &from) {
            return;
        }
        let offender = Offender::of(packet, frame.data());
        let error = match redirect {
            Redirect::V4 { to, .. } => IcmpError::redirect_v4(to),
            // For the rules on when to answer, it is like any other message about a packet.
            Redirect::V6 { .. } => IcmpError::unreachable_v6(icmp::UnreachableV6::NoRoute),
        };
        if !offender.may_be_answered_with(&error)
            || !self.limiter.allow(step.now, settings, LimitKind::Redirect, packet.src)
        {
            return;
        }
        let Some(mut out) = step.out.pool.take() else { return };
        let written = match redirect {
            Redirect::V4 { from, .. } => icmp::write_error(&mut out, &error, IpAddr::V4(from), &offender),
            Redirect::V6 { from, to, mac } => icmp::write_redirect_v6(&mut out, &offender, (from, to, mac)),
        };
        match written {
            Ok(()) => {
                self.note(&out, || Stage::Caused { what: Cause::Redirect, front: false });
                self.originate(step, out, packet.src, hop.port);
            }
            Err(_) => step.out.pool.put(out),
        }
    }

    /// Answers an echo request in place, from `src`: the address that was asked, or an own one for a group.
    pub(super) fn echo(&mut self, step: &mut Step<'_>, mut frame: Frame, packet: &Packet, src: IpAddr) {
        if !self.limiter.allow(step.now, &step.tables.settings.icmp, LimitKind::Echo, packet.src) {
            return self.discard(step, frame, DropReason::RateLimited);
        }
        let ingress = frame.meta.port;
        let owns = |a| step.tables.ports.owners(IpAddr::V4(a)).next().is_some();
        let follow = step.tables.settings.ipv4_options.follows_routes();
        if let Err(reason) = icmp::echo_reply(&mut frame, packet, src, (millis(step.now), follow), owns) {
            return self.discard(step, frame, reason);
        }
        self.note(&frame, || Stage::Caused { what: Cause::EchoReply, front: false });
        self.counters.answered.add(1);
        self.originate(step, frame, packet.src, ingress);
    }

    /// Resets a connection attempt.
    pub(super) fn tcp_reset(&mut self, step: &mut Step<'_>, frame: Frame, packet: &Packet) {
        let ingress = frame.meta.port;
        let trusted = frame.meta.csum.is_some();
        let allowed = self.limiter.allow(step.now, &step.tables.settings.icmp, LimitKind::Error, packet.src);
        if allowed && let Some(mut out) = step.out.pool.take() {
            if local::tcp_reset(packet, frame.data(), trusted, &mut out) {
                if step.tables.settings.ipv4_options.follows_routes() {
                    icmp::send_back_along(&mut out, &Offender::of(packet, frame.data()));
                }
                self.note(&out, || Stage::Caused { what: Cause::Reset, front: false });
                self.originate(step, out, packet.src, ingress);
            } else {
                step.out.pool.put(out);
            }
        }
        self.discard(step, frame, DropReason::NoLocalService);
    }

    /// Sends a packet that we made for somebody who reached us through `ingress`: back over that link if the address is
    /// link-local, else by the ingress port's table.
    fn originate(&mut self, step: &mut Step<'_>, mut frame: Frame, to: IpAddr, ingress: PortId) {
        self.counters.originated.add(1);
        frame.meta = Meta::default();
        let ttl = step.tables.settings.icmp.ttl;
        if ttl != icmp::TTL {
            icmp::set_ttl(frame.data_mut(), ttl);
        }
        let link_local = match to {
            IpAddr::V4(a) => a.is_link_local(),
            IpAddr::V6(a) => a.is_unicast_link_local(),
        };
        // A tunnel whose peer was silent has no routes: answers to the peer, who is back, take the tunnel itself.
        let silent = step.tables.gates.get(ingress).is_some_and(|g| g.keepalive)
            && step.tables.ports.get(ingress).is_some_and(|p| !p.up);
        let start = if link_local || silent {
            Start::Link(ingress)
        } else {
            Start::Lookup(step.tables.ports.get(ingress).map(|p| p.table).unwrap_or_default())
        };
        self.jobs.push_back(Job::new(frame, start));
    }
}

/// Whether an address is the broadcast address of a link of ours: a packet that did not parse was not looked up.
fn is_directed_broadcast(step: &Step<'_>, dst: IpAddr) -> bool {
    dst.is_ipv4() && step.tables.ports.is_broadcast(dst)
}
