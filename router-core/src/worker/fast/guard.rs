//! What ports' guards do to packets on the fast path: filters and checks of sources on the way in, filters on the way out, and
//! the segment size of TCP SYNs. See [`crate::filter`].
//!
//! Every rule is counted once: a packet that has passed here is marked as such, should the general path have to go on with
//! it. What is to be answered, and neighbour discovery, which no filter judges, are the general path's.

#[cfg(doc)]
use super::SYN;
use super::{Lane, Passes};
use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::filter::{Action, Guard, Judged, PortFlags, RuleTable, mss, urpf};
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::Encap;
use crate::packet::Packet;
use crate::port::{Medium, PortId, PortInfo};
use crate::tables::Tables;
use crate::worker::guard::{most_mss, tells_mss};

/// By IPv6's next header or IPv4's protocol: 1 for TCP, 2 for an extension header behind which TCP may be.
static MAY_BE_TCP: [u8; 256] = {
    let mut t = [0; 256];
    t[protocol::TCP as usize] = 1;
    let extensions = [
        protocol::HOP_BY_HOP,
        protocol::ROUTING,
        protocol::FRAGMENT,
        protocol::AH,
        protocol::DEST_OPTIONS,
        protocol::MOBILITY,
        protocol::HIP,
        protocol::SHIM6,
    ];
    let mut i = 0;
    while i < extensions.len() {
        t[extensions[i] as usize] = 2;
        i += 1;
    }
    t
};

/// Whether a plain packet, `data` from its IP header on, may be a TCP SYN.
#[inline(always)]
fn maybe_syn(family: Family, data: &[u8]) -> bool {
    let (kind, flags) = match family {
        Family::Inet => (data.get(9), 33),
        Family::Inet6 => (data.get(6), 53),
    };
    match kind.map(|k| MAY_BE_TCP[usize::from(*k)]) {
        Some(0) | None => false,
        Some(1) => data.get(flags).is_none_or(|f| f & 2 != 0),
        Some(_) => family == Family::Inet6,
    }
}

/// [`SYN`] where a packet that carries this protocol, or has this next header, may be one; else 0.
#[inline(always)]
pub(super) fn syn(kind: u8) -> u8 {
    u8::from(MAY_BE_TCP[usize::from(kind)] != 0)
}

/// What the first byte about what a packet carries tells of a lane's packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// Nothing that matters here: most of all.
    Other,
    /// TCP, whose flags say whether it is a SYN.
    Tcp,
    /// An extension header: a limit of tunnels, or TCP, may be behind it.
    Extended,
}

/// See [`Carried`].
#[inline(always)]
pub(super) fn carried(family: Family, lane: &Lane, frame: &Frame) -> Carried {
    let kind = usize::from(lane.l2) + if family == Family::Inet { 9 } else { 6 };
    match frame.data().get(kind).map(|k| MAY_BE_TCP[usize::from(*k)]) {
        Some(0) => Carried::Other,
        Some(1) => Carried::Tcp,
        Some(_) if family == Family::Inet => Carried::Other,
        _ => Carried::Extended,
    }
}

/// Whether a lane's packet may be a TCP SYN.
#[inline(never)]
pub(super) fn may_be_syn(lane: &Lane, frame: &Frame) -> bool {
    lane.family.is_some_and(|family| maybe_syn(family, packet(lane, frame)))
}

/// The packet of a lane, from its IP header on.
#[inline(always)]
fn packet<'f>(lane: &Lane, frame: &'f Frame) -> &'f [u8] {
    let l2 = usize::from(lane.l2);
    frame.data().get(l2..l2 + lane.len as usize).unwrap_or(&[])
}

/// The largest segment size that the packet of a lane may tell, if it tells one and somebody clamps. `port` is the way out
/// (of an inner packet, the tunnel), `limits` the longest packet there, and what the route says.
#[inline(always)]
pub(super) fn clamps(
    tables: &Tables,
    ingress: PortId,
    port: PortId,
    limits: (u32, u16),
    lane: &Lane,
    frame: &Frame,
) -> u16 {
    match may_be_syn(lane, frame) {
        true => most(tables, ingress, port, limits, lane, frame).unwrap_or(UNCLAMPED),
        false => UNCLAMPED,
    }
}

/// No clamp.
pub(super) const UNCLAMPED: u16 = u16::MAX;

#[cold]
fn most(tables: &Tables, ingress: PortId, port: PortId, limits: (u32, u16), lane: &Lane, frame: &Frame) -> Option<u16> {
    let data = packet(lane, frame);
    let packet = Packet::parse(lane.family?, data).ok().filter(|p| tells_mss(p, data))?;
    let ingress = if lane.tunnel == PortId::NONE { ingress } else { lane.tunnel };
    most_mss(tables, ingress, &packet, port, limits)
}

/// Lowers the segment size of a SYN.
#[cold]
pub(super) fn clamp(frame: &mut Frame, lane: &Lane, most: u16) {
    let l2 = usize::from(lane.l2);
    let Some(data) = frame.data_mut().get_mut(l2..l2 + lane.len as usize) else { return };
    if let Some(packet) = lane.family.and_then(|f| Packet::parse(f, data).ok()) {
        mss::clamp(&packet, data, most, false);
    }
}

/// Whether the filter of the way out lets a packet pass; counts if so. If not, the general path finds the same and acts.
#[cold]
pub(super) fn passes_out(tables: &Tables, port: PortId, part: usize, lane: &Lane, frame: &Frame) -> bool {
    let Some(table) = tables.guards.get(port).and_then(|g| g.filter_out.as_ref()) else { return true };
    let data = packet(lane, frame);
    let Some(packet) = lane.family.and_then(|f| Packet::parse(f, data).ok()) else { return false };
    let judged = table.judge(&packet, data);
    let passes = judged.action == Action::Allow;
    if passes {
        table.count(part, &judged, packet.len);
    }
    passes
}

/// Whether a tunnel lets a packet in. Most have no filter.
#[inline(always)]
pub(super) fn enters(tables: &Tables, encap: &Encap, part: usize, lane: &Lane, frame: &Frame) -> bool {
    !tables.guards.tunnels
        || !tables.ports.flags(encap.tunnel).has(PortFlags::JUDGE_OUT)
        || passes_out(tables, encap.tunnel, part, lane, frame)
}

/// Counts of rules, added up while the same rule matches packet after packet.
struct Counting<'t> {
    table: &'t RuleTable,
    part: usize,
    last: Judged,
    packets: u64,
    bytes: u64,
}

impl Counting<'_> {
    #[inline]
    fn count(&mut self, judged: Judged, bytes: u32) {
        if judged != self.last {
            self.flush();
            self.last = judged;
        }
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    fn flush(&mut self) {
        if self.packets > 0 {
            self.table.count_many(self.part, &self.last, self.packets, self.bytes);
            (self.packets, self.bytes) = (0, 0);
        }
    }
}

impl Passes {
    /// Asks the guard of the port where the batch came in. `drops`: what is denied in silence may be dropped here.
    #[cold]
    pub(super) fn judge_in(&mut self, batch: &mut [Frame], port: &PortInfo, tables: &Tables, part: usize, drops: bool) {
        let Some(guard) = tables.guards.get(port.id) else { return };
        let Guard { filter_in, urpf, .. } = &**guard;
        let start = if port.medium == Medium::Ethernet { 14 } else { 0 };
        let none = Judged { action: Action::Deny, rule: None, hidden: false };
        let mut counting = filter_in.as_deref().map(|table| Counting { table, part, last: none, packets: 0, bytes: 0 });
        for (lane, frame) in self.lanes.iter_mut().zip(batch) {
            if lane.family.is_none() {
                continue;
            }
            // The packet as it came, whatever is inside.
            let found = frame.data().get(start..).and_then(|data| {
                let packet = Packet::parse(Packet::sniff(data).ok()?, data).ok()?;
                Some((packet, data.get(..packet.len as usize)?))
            });
            // Neighbour discovery, perhaps.
            let Some((packet, data)) = found.filter(|(p, _)| p.proto != protocol::ICMPV6 || p.ttl != 255) else {
                *lane = Lane::GENERAL;
                continue;
            };
            if urpf.is_some_and(|check| !urpf::allows(check, tables, port.table, port.id, packet.src)) {
                *lane = Lane::refused(if drops { Lane::URPF } else { 0 }, start, &packet);
                continue;
            }
            if let Some(counting) = &mut counting {
                let judged = counting.table.judge(&packet, data);
                match judged.action {
                    Action::Allow => counting.count(judged, packet.len),
                    Action::Deny if drops => {
                        counting.count(judged, packet.len);
                        *lane = Lane::refused(Lane::FILTER_IN, start, &packet);
                        continue;
                    }
                    Action::Deny | Action::Reject => {
                        *lane = Lane::GENERAL;
                        continue;
                    }
                }
            }
            frame.meta.passed_in = true;
        }
        if let Some(mut counting) = counting {
            counting.flush();
        }
    }

    /// Why frame number `at` of the batch is to be dropped, its guard having denied it; and where in the frame its packet is.
    #[inline]
    pub(in crate::worker) fn refusal(&self, at: usize) -> Option<(DropReason, usize, usize)> {
        let lane = self.lanes.get(at).filter(|l| l.family.is_none())?;
        let reason = match lane.second {
            Lane::URPF => DropReason::Urpf,
            Lane::FILTER_IN => DropReason::FilterIn,
            _ => return None,
        };
        Some((reason, usize::from(lane.l2), lane.len as usize))
    }
}

impl Lane {
    const URPF: u8 = 1;
    const FILTER_IN: u8 = 2;

    /// Of a packet that its guard denies.
    fn refused(second: u8, start: usize, packet: &Packet) -> Lane {
        Lane { second, l2: start as u8, len: packet.len, ..Lane::GENERAL }
    }
}
