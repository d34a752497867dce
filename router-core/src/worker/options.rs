//! IPv4 options of packets that come in: what the operator lets pass (RFC 7126), and source routes where they are followed
//! (RFC 1812 5.2.3 and 5.2.4). On the general path only: the fast way leaves packets with options alone.

use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::headers::ipv4;
use crate::headers::ipv4_options::{LSRR, SSRR};
use crate::headers::option_policy::OptionAction;
use crate::headers::source_route::{Place, SourceRoute};
use crate::martian;
use crate::object::{Object, ObjectId};
use crate::observe::Observer;
use crate::packet::Packet;
use crate::port::{PortId, PortInfo, TableId};
use crate::tables::Tables;
use crate::worker::{Job, Step, Worker};
use std::net::IpAddr;

/// Objects that a look ahead passes at most.
const MAX_STACK: usize = 16;

/// Whether an IPv4 packet has options.
#[inline(always)]
pub(super) fn has_options(packet: &Packet) -> bool {
    packet.family == Family::Inet && usize::from(packet.l4) > ipv4::MIN_HEADER
}

/// Where a destination lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is this router.
    Here,
    /// On a link of this router.
    Adjacent,
    /// Behind another router.
    Beyond,
    /// Nowhere.
    None,
}

impl<O: Observer> Worker<O> {
    /// What becomes of a packet with IPv4 options that came in; None: it has ended. Where its source route is followed, it
    /// goes on with another destination.
    #[cold]
    pub(super) fn admit_options(
        &mut self,
        step: &mut Step<'_>,
        mut job: Job,
        mut packet: Packet,
        info: &PortInfo,
    ) -> Option<(Job, Packet)> {
        // Back because its object was newer than the snapshot: the step along its route is done.
        if job.frame.meta.source_route != 0 {
            return Some((job, packet));
        }
        let policy = &step.tables.settings.ipv4_options;
        let header = job.frame.data().get(..usize::from(packet.l4)).unwrap_or_default();
        if let Err(reason) = policy.judge(header) {
            match step.tables.ports.is_broadcast(packet.dst) {
                // Not looked up, and never answered (RFC 1812 4.3.2.7).
                true => self.discard(step, job.frame, reason),
                false => self.refuse(step, job.frame, &packet, reason, 0),
            }
            return None;
        }
        let Some(route) = SourceRoute::of(header) else { return Some((job, packet)) };
        if policy.action(if route.strict { SSRR } else { LSRR }) != OptionAction::Process {
            return Some((job, packet));
        }
        // Of groups and broadcasts, only their members know what to do with them; what came to many is not for one.
        let IpAddr::V4(dst) = packet.dst else { return Some((job, packet)) };
        if packet.link_group || dst.is_multicast() || dst.is_broadcast() || info.kind.over_host() {
            return Some((job, packet));
        }
        let from = (info.table, job.frame.meta.port, job.frame.meta.mark);
        let data = job.frame.data();
        if way(step.tables, &packet, data, from) != Way::Here {
            // RFC 1812 5.2.2: the router before this one has not kept to a strict route.
            if route.strict && !step.tables.ports.is_broadcast(packet.dst) {
                self.refuse(step, job.frame, &packet, DropReason::Ipv4Options, 16);
                return None;
            }
            return Some((job, packet));
        }
        // RFC 1812 5.2.3: own addresses in a row are visited at once.
        let mut n = 0;
        let failed = loop {
            let next = match route.place(header, n) {
                Place::Address(next) => next,
                // All that is left is this router.
                Place::End => return Some((job, packet)),
                Place::Cut => break (DropReason::Ipv4Options, route.at as u32 + 2),
            };
            let ahead = Packet { dst: IpAddr::V4(next), ..packet };
            let valid = martian::check_with(&ahead, step.tables.settings.martians).is_ok();
            let valid = valid && !next.is_multicast() && !next.is_broadcast();
            match if valid { way(step.tables, &ahead, data, from) } else { Way::None } {
                Way::Here => {
                    n += 1;
                    packet.dst = IpAddr::V4(next);
                }
                // RFC 1812 5.2.4.3 and 5.2.7.1 code 5.
                Way::None => break (DropReason::Ipv4SourceRoute, 0),
                Way::Beyond if route.strict => break (DropReason::Ipv4SourceRoute, 0),
                Way::Adjacent | Way::Beyond => {
                    let header = job.frame.data_mut().get_mut(..usize::from(packet.l4))?;
                    let pointer = route.advance(header, n)?;
                    job.frame.meta.source_route = pointer;
                    return Some((job, ahead));
                }
            }
        };
        self.refuse(step, job.frame, &packet, failed.0, failed.1);
        None
    }
}

/// Where the destination of `packet` lies, for packets of a port in a table, with a mark.
fn way(tables: &Tables, packet: &Packet, data: &[u8], (table, port, mark): (TableId, PortId, u32)) -> Way {
    let id = tables.route(table, packet, data, port, mark).object;
    follow(tables, packet, id, 0)
}

fn follow(tables: &Tables, packet: &Packet, id: ObjectId, depth: usize) -> Way {
    let next = |id| follow(tables, packet, id, depth + 1);
    let by_gateway = |gateway: Option<IpAddr>| match gateway {
        Some(g) if g != packet.dst => Way::Beyond,
        _ => Way::Adjacent,
    };
    if depth > MAX_STACK {
        return Way::None;
    }
    match tables.routing.objects.get(id) {
        Some(Object::Local) => Way::Here,
        Some(Object::Glean(_)) => Way::Adjacent,
        Some(Object::Forward(hop)) => by_gateway(hop.gateway),
        Some(Object::Incomplete(i)) => by_gateway(Some(i.gateway)),
        // The other end of a tunnel has an address of the tunnel's own link, if any.
        Some(Object::Encap(encap)) => match tables.ports.get(encap.tunnel) {
            Some(port) if port.addrs.iter().any(|n| n.contains(&packet.dst)) => Way::Adjacent,
            _ => Way::Beyond,
        },
        // Strict routes need every member to lead there directly.
        Some(Object::Group(g)) => match g.buckets.iter().map(|b| next(*b)).collect::<Vec<_>>() {
            ways if ways.iter().all(|w| *w == Way::Adjacent) => Way::Adjacent,
            ways if ways.iter().all(|w| *w == Way::None) => Way::None,
            _ => Way::Beyond,
        },
        Some(Object::Sources(s)) => next(s.pick(&packet.src)),
        Some(Object::Table(table)) => next(tables.lookup(*table, &packet.dst)),
        Some(Object::Counted(c)) => next(c.next),
        Some(Object::Plugin(_)) => Way::Beyond,
        Some(Object::Discard(_) | Object::Broadcast) | None => Way::None,
    }
}
