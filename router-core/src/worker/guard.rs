//! What a port's guard does to packets on the general path: filters, checks of sources, limits towards the control thread,
//! TCP's segment size. See [`crate::filter`].

use crate::drop_reason::DropReason;
use crate::filter::{Action, Guard, LimitKind, MssClamp, RuleTable, mss, urpf};
use crate::forward::local;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::icmp::{self, Offender};
use crate::observe::{Direction, Observer, Stage};
use crate::packet::{Fragment, Packet};
use crate::port::{PortId, PortInfo};
use crate::tables::Tables;
use crate::worker::route::is_own;
use crate::worker::{Job, PuntReason, Step, Worker};

impl<O: Observer> Worker<O> {
    /// Whether a port lets a packet in; None: it has ended.
    #[cold]
    pub(super) fn admit(&mut self, step: &mut Step<'_>, mut job: Job, packet: &Packet, info: &PortInfo) -> Option<Job> {
        let tables = step.tables;
        let Some(guard) = tables.guards.get(info.id).filter(|_| !job.frame.meta.passed_in) else { return Some(job) };
        if is_link_control(packet, job.frame.data(), info) {
            return Some(job);
        }
        let Guard { filter_in, urpf: check, .. } = &**guard;
        if let Some(check) = check {
            let allowed = urpf::allows(*check, tables, info.table, info.id, packet.src);
            self.note(&job.frame, || Stage::SourceChecked { port: info.id, check: *check, allowed });
            if !allowed {
                self.discard(step, job.frame, DropReason::Urpf);
                return None;
            }
        }
        if let Some(table) = filter_in
            && let Some(answer) = self.judge(table, &job.frame, packet, Direction::In, info.id)
        {
            self.turn_away(step, job.frame, packet, DropReason::FilterIn, answer);
            return None;
        }
        job.frame.meta.passed_in = true;
        Some(job)
    }

    /// Whether a port lets a packet out; None: it has ended.
    pub(super) fn admit_out(
        &mut self,
        step: &mut Step<'_>,
        mut job: Job,
        packet: &Packet,
        port: PortId,
    ) -> Option<Job> {
        let Some(guard) = step.tables.guards.get(port) else { return Some(job) };
        let Some(table) = guard.filter_out.as_ref().filter(|_| !job.frame.meta.passed_out) else { return Some(job) };
        match self.judge(table, &job.frame, packet, Direction::Out, port) {
            Some(answer) => {
                self.turn_away(step, job.frame, packet, DropReason::FilterOut, answer);
                None
            }
            None => {
                job.frame.meta.passed_out = true;
                Some(job)
            }
        }
    }

    /// Whether the router itself takes a packet that is addressed to it; None: it has ended.
    pub(super) fn admit_local(&mut self, step: &mut Step<'_>, frame: Frame, packet: &Packet) -> Option<Frame> {
        let Some(table) = &step.tables.guards.local else { return Some(frame) };
        let info = step.tables.ports.get(frame.meta.port);
        if info.is_some_and(|info| is_link_control(packet, frame.data(), info)) {
            return Some(frame);
        }
        match self.judge(table, &frame, packet, Direction::Local, frame.meta.port) {
            Some(answer) => {
                self.turn_away(step, frame, packet, DropReason::FilterLocal, answer);
                None
            }
            None => Some(frame),
        }
    }

    /// Asks a filter and counts. None: the packet passes; Some: it does not, and whether its sender is told.
    fn judge(
        &mut self,
        table: &RuleTable,
        frame: &Frame,
        packet: &Packet,
        direction: Direction,
        port: PortId,
    ) -> Option<bool> {
        let judged = table.judge(packet, frame.data());
        if !O::REHEARSAL {
            table.count(self.part(), &judged, packet.len);
        }
        self.note(frame, || Stage::Filtered { port, direction, table, judged });
        match judged.action {
            Action::Allow => None,
            Action::Deny => Some(false),
            Action::Reject => Some(true),
        }
    }

    /// Which part of shared counters this worker writes.
    pub(super) fn part(&self) -> usize {
        self.counters.part()
    }

    /// Ends a packet that a filter does not let pass, with an ICMP error if the rule says so.
    fn turn_away(&mut self, step: &mut Step<'_>, frame: Frame, packet: &Packet, reason: DropReason, answer: bool) {
        if answer && !is_own(&frame) {
            let offender = Offender::of(packet, frame.data());
            if let Some(error) = icmp::error_for(DropReason::Prohibited, 0, &offender) {
                self.send_error(step, &error, &offender, frame.meta.port);
            }
        }
        self.discard(step, frame, reason);
    }

    /// The largest segment size that a SYN may tell on its way out of `port`; None where nothing clamps, or it is no SYN.
    /// `limits`: the longest packet there, and what its route says; 0 for nothing.
    pub(super) fn mss(
        &self,
        step: &Step<'_>,
        frame: &Frame,
        packet: &Packet,
        port: PortId,
        limits: (u32, u16),
    ) -> Option<u16> {
        match tells_mss(packet, frame.data()) {
            true => most_mss(step.tables, frame.meta.port, packet, port, limits),
            false => None,
        }
    }

    /// Lowers the segment size of a SYN.
    pub(super) fn clamp(&mut self, frame: &mut Frame, packet: &Packet, most: u16) {
        let unfinished = frame.meta.csum.is_some();
        if let Some((from, to)) = mss::clamp(packet, frame.data_mut(), most, unfinished) {
            self.note(frame, || Stage::Clamped { from, to });
        }
    }

    /// Whether the limits of its port let a packet through to the control thread.
    pub(super) fn within_limits(&mut self, step: &Step<'_>, frame: &Frame, why: &PuntReason) -> Result<(), DropReason> {
        // What the router made itself waits for neighbours like any other, but is not a flood from outside.
        if O::REHEARSAL || is_own(frame) {
            return Ok(());
        }
        let kind = match why {
            PuntReason::Arp | PuntReason::Ndp { .. } | PuntReason::RouterSolicit(_) => LimitKind::Neighbor,
            PuntReason::EchoReply(_) | PuntReason::TunnelPath(_) | PuntReason::IcmpError(_) => LimitKind::Icmp,
            PuntReason::Resolve { .. } | PuntReason::Reassemble(_) | PuntReason::Translate { .. } => LimitKind::Other,
        };
        let port = frame.meta.port;
        let limit = step.tables.guards.limits(port).of(kind);
        if self.buckets.allow(step.now, port, kind, limit) {
            return Ok(());
        }
        if let Some(limited) = self.counters.rare(port).map(|r| &r.limited) {
            limited[kind as usize].add(1);
        }
        Err(kind.reason())
    }
}

/// Whether a packet may tell a segment size.
#[inline]
pub(super) fn tells_mss(packet: &Packet, data: &[u8]) -> bool {
    packet.proto == protocol::TCP && mss::is_syn(packet, data)
}

/// The largest segment size that a SYN from `ingress` may tell on its way out of `port`, whose packets have at most `mtu`
/// bytes and whose route lets it tell so much (0 for anything); None where nothing clamps.
pub(super) fn most_mss(
    tables: &Tables,
    ingress: PortId,
    packet: &Packet,
    port: PortId,
    (mtu, route): (u32, u16),
) -> Option<u16> {
    let ingress = tables.ports.get(ingress);
    let narrowest = ingress.map_or(mtu, |i| mtu.min(i.mtu));
    let size = |info: &PortInfo| match tables.guards.mss(info.id, info.kind) {
        MssClamp::Off => None,
        MssClamp::ToPmtu => Some(mss::for_mtu(packet.family, narrowest)),
        MssClamp::Bytes(n) => Some(n),
    };
    let of_ingress = ingress.and_then(|i| size(i));
    let of_egress = tables.ports.get(port).and_then(|e| size(e));
    [of_ingress, of_egress, Some(route).filter(|m| *m > 0)].into_iter().flatten().min()
}

/// Neighbour discovery on the link itself: without it no packet could be sent at all (RFC 4890 4.4.1). Hop limit 255 says
/// that no router has passed it on (RFC 4861 6.1, 7.1).
fn is_link_control(p: &Packet, data: &[u8], port: &PortInfo) -> bool {
    let to_link = match p.dst {
        std::net::IpAddr::V6(d) if d.is_multicast() => d.octets()[1] & 0x0f <= 2,
        std::net::IpAddr::V6(_) => port.owns(&p.dst),
        std::net::IpAddr::V4(_) => false,
    };
    to_link
        && p.proto == protocol::ICMPV6
        && p.ttl == 255
        && p.fragment == Fragment::None
        && p.transport(data).first().is_some_and(|t| local::is_ndp(*t))
}
