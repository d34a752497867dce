//! The way in: from a port's frame to a destination looked up, or to one of the router's own functions.

use crate::addr::{Family, MacAddr};
use crate::drop_reason::DropReason;
use crate::forward::local;
use crate::frame::Frame;
use crate::headers::ethernet::{self, Payload};
use crate::headers::{ipv6, ipv6_arrival, protocol};
use crate::icmp;
use crate::irdp;
use crate::martian;
use crate::neighbor::ndp;
use crate::observe::{Observer, Stage};
use crate::packet::{Fragment, Packet};
use crate::port::{Medium, PortId, PortInfo, PortKind, subnet_router_anycast};
use crate::tables::PortTable;
use crate::worker::options::has_options;
use crate::worker::{Job, PuntReason, Stale, Start, Step, Worker};
use std::net::{IpAddr, Ipv4Addr};

impl<O: Observer> Worker<O> {
    /// Takes the link header off a received frame. Returns the job to do with the IP packet inside.
    pub(super) fn receive(&mut self, step: &mut Step<'_>, port: PortId, mut frame: Frame) -> Option<Job> {
        let Some(info) = step.tables.ports.get(port) else {
            self.discard(step, frame, DropReason::PortGone);
            return None;
        };
        if !info.up {
            self.discard(step, frame, DropReason::PortDown);
            return None;
        }
        let mut from = None;
        if info.medium == Medium::Ethernet {
            match ethernet::receive(&mut frame, info) {
                Err(reason) => {
                    self.discard(step, frame, reason);
                    return None;
                }
                Ok(link) => {
                    self.note(&frame, || Stage::Link { src: link.src, group: link.group });
                    from = Some((link.src, link.group));
                    if let (true, Some(c)) = (link.group, self.counters.rare(port)) {
                        c.rx_multicast.add(1);
                    }
                    match link.payload {
                        Payload::Arp => {
                            self.punt(step, frame, PuntReason::Arp);
                            return None;
                        }
                        // The version field is checked against the EtherType by the parse.
                        Payload::Ip(family) if Packet::sniff(frame.data()) != Ok(family) => {
                            let reason = match family {
                                _ if frame.is_empty() => DropReason::FrameTooShort,
                                Family::Inet => DropReason::Ipv4Version,
                                Family::Inet6 => DropReason::Ipv6Version,
                            };
                            self.discard(step, frame, reason);
                            return None;
                        }
                        Payload::Ip(_) => {}
                    }
                }
            }
        }
        Some(Job::new(frame, Start::Input { link: from }))
    }

    /// Does one step: parse, check, look up, forward.
    pub(super) fn step(&mut self, step: &mut Step<'_>, job: Job) -> Result<(), Stale> {
        let Job { frame, start, depth } = job;
        let link_group = matches!(start, Start::Input { link: Some((_, true)) });
        let Some((frame, mut packet)) = self.parse_from(step, frame, link_group) else { return Ok(()) };
        let job = Job { frame, start, depth };
        match start {
            Start::Input { .. } => {
                packet.link_group = link_group;
                self.input(step, job, packet)
            }
            Start::Lookup(table) => self.look_up(step, job, packet, table),
            Start::Object(id) => self.forward(step, job, packet, id),
            Start::Link(port) => {
                self.send_on_link(step, job.frame, &packet, port);
                Ok(())
            }
            Start::Reassembled => {
                self.deliver(step, job, packet);
                Ok(())
            }
        }
    }

    /// Parses a frame's IP packet and cuts link padding off. A frame that does not parse is dropped here.
    pub(super) fn parse_again(&mut self, step: &mut Step<'_>, frame: Frame) -> Option<(Frame, Packet)> {
        self.parse_from(step, frame, false)
    }

    /// The same for a frame that has just come, perhaps to a link-layer group.
    fn parse_from(&mut self, step: &mut Step<'_>, mut frame: Frame, link_group: bool) -> Option<(Frame, Packet)> {
        let parsed = Packet::sniff(frame.data()).and_then(|family| Packet::parse(family, frame.data()));
        match parsed {
            Ok(mut packet) => {
                frame.truncate(packet.len as usize);
                if frame.meta.gso.is_some() {
                    packet.wire_len = crate::offload::largest_segment(&frame, &packet);
                }
                self.note(&frame, || Stage::Parsed(&packet));
                Some((frame, packet))
            }
            Err(reason) => {
                self.refuse_unparsed(step, frame, reason, link_group);
                None
            }
        }
    }

    /// An IP packet came in from a port or out of a tunnel.
    fn input(&mut self, step: &mut Step<'_>, job: Job, packet: Packet) -> Result<(), Stale> {
        let Some(info) = step.tables.ports.get(job.frame.meta.port) else {
            self.discard(step, job.frame, DropReason::PortGone);
            return Ok(());
        };
        // A host that has no address yet may ask for routers, whatever else is true of its packets (RFC 1256 4.2).
        if asks_for_routers(step, &packet, job.frame.data(), info) {
            self.punt(step, job.frame, PuntReason::RouterSolicit(packet));
            return Ok(());
        }
        match martian::check_with(&packet, step.tables.settings.martians) {
            Ok(()) => {}
            // A closed network that the operator has named: see `Settings::mapped_ports`.
            Err(DropReason::MappedAddress) if step.tables.closed(job.frame.meta.port) => {}
            Err(reason) => {
                self.discard(step, job.frame, reason);
                return Ok(());
            }
        }
        if info.kind == PortKind::Tunnel && is_compatible(packet.src) {
            self.discard(step, job.frame, DropReason::TunnelInnerSource);
            return Ok(());
        }
        let (job, packet) = if has_options(&packet) {
            let Some(admitted) = self.admit_options(step, job, packet, info) else { return Ok(()) };
            admitted
        } else {
            (job, packet)
        };
        let job = if step.tables.guards.get(info.id).is_some() {
            let Some(job) = self.admit(step, job, &packet, info) else { return Ok(()) };
            job
        } else {
            job
        };
        if let Some(verdict) = special_destination(&packet, job.frame.data(), info, &step.tables.ports) {
            // What the headers say comes before all that is behind them, in packets to our groups, too (RFC 8200 4.2).
            if !matches!(verdict, Special::Local)
                && has_extensions(&packet, job.frame.data())
                && let IpAddr::V6(group) = packet.dst
                && group.is_multicast()
                && is_member(info, group)
                && let Err(why) = ipv6_arrival::check(job.frame.data())
            {
                self.refuse_arrival(step, job.frame, &packet, why);
                return Ok(());
            }
            match verdict {
                Special::Ndp => {
                    let from = link_source(&job);
                    self.punt(step, job.frame, PuntReason::Ndp { packet, from });
                }
                Special::Local => self.deliver(step, job, packet),
                Special::Echo(src) => {
                    if job.frame.meta.csum.is_none() && !local::checksum_ok(&packet, job.frame.data()) {
                        self.discard(step, job.frame, DropReason::LocalChecksum);
                    } else if let Some(frame) = self.admit_local(step, job.frame, &packet) {
                        self.echo(step, frame, &packet, src);
                    }
                }
                Special::Drop(reason) => self.discard(step, job.frame, reason),
            }
            return Ok(());
        }
        self.note(&job.frame, || Stage::Addresses);
        if info.kind.over_host() {
            // The host's stack took it for one of its own addresses, which need not be ours.
            self.deliver(step, job, packet);
            return Ok(());
        }
        let table = info.table;
        self.look_up(step, job, packet, table)
    }

    fn look_up(
        &mut self,
        step: &mut Step<'_>,
        job: Job,
        packet: Packet,
        table: crate::port::TableId,
    ) -> Result<(), Stale> {
        let meta = job.frame.meta;
        let found = step.tables.route(table, &packet, job.frame.data(), meta.port, meta.mark);
        if let Some(rule) = found.rule {
            self.note(&job.frame, || Stage::Rule { family: packet.family, index: rule });
        }
        if let Some(table) = found.table {
            self.note(&job.frame, || Stage::Lookup { table, dst: packet.dst, object: found.object });
        }
        self.forward(step, job, packet, found.object)
    }

    /// A packet for one of the router's own addresses.
    pub(super) fn deliver(&mut self, step: &mut Step<'_>, job: Job, packet: Packet) {
        let from = link_source(&job);
        let joined = matches!(job.start, Start::Reassembled);
        let Job { mut frame, depth, .. } = job;
        // Before all else of a destination's duties (RFC 8200 4): what the headers say decides what is behind them.
        if packet.family == Family::Inet6
            && has_extensions(&packet, frame.data())
            && let Err(why) = ipv6_arrival::check(frame.data())
        {
            return self.refuse_arrival(step, frame, &packet, why);
        }
        let verdict = local::classify(&packet, frame.data());
        let verdict = self.classify_tunnel(step, &frame, &packet, verdict);
        self.note(&frame, || Stage::Local(verdict));
        // Neighbour discovery does not come in fragments (RFC 6980 5).
        if joined && verdict == local::Local::Ndp {
            return self.discard(step, frame, DropReason::NdpMalformed);
        }
        if verdict != local::Local::Ndp && step.tables.ports.is_unconfirmed(&packet.dst) {
            return self.discard(step, frame, DropReason::TentativeAddress);
        }
        // A checksum that a local sender has not computed yet is as good as right; all others are looked at.
        let trusted = frame.meta.csum.is_some() || verdict == local::Local::Tunnel;
        if !trusted && packet.fragment == Fragment::None && !local::checksum_ok(&packet, frame.data()) {
            return self.discard(step, frame, DropReason::LocalChecksum);
        }
        // Packets of tunnels are judged once they are out of it, fragments once they are put together.
        if !matches!(verdict, local::Local::Tunnel | local::Local::Reassemble) {
            let Some(passed) = self.admit_local(step, frame, &packet) else { return };
            frame = passed;
        }
        match verdict {
            local::Local::Echo => {
                let src = echo_source(step, &packet, frame.meta.port);
                self.echo(step, frame, &packet, src)
            }
            local::Local::TcpReset => self.tcp_reset(step, frame, &packet),
            local::Local::Ndp => self.punt(step, frame, PuntReason::Ndp { packet, from }),
            local::Local::Reassemble => self.punt(step, frame, PuntReason::Reassemble(packet)),
            local::Local::IcmpError => self.punt(step, frame, PuntReason::IcmpError(packet)),
            local::Local::Drop(reason @ DropReason::NoLocalService) => self.refuse(step, frame, &packet, reason, 0),
            local::Local::Drop(DropReason::IcmpConsumed) if self.is_awaited(step, &frame, &packet) => {
                self.punt(step, frame, PuntReason::EchoReply(packet));
            }
            local::Local::Drop(reason) => self.discard(step, frame, reason),
            local::Local::Tunnel => self.leave_tunnel(step, frame, &packet, depth),
        }
    }
}

/// Whether an IPv4 host asks for routers on a port on which this one advertises itself.
#[inline]
fn asks_for_routers(step: &Step<'_>, p: &Packet, data: &[u8], port: &PortInfo) -> bool {
    let irdp = &step.tables.settings.irdp;
    !irdp.is_empty()
        && p.family == Family::Inet
        && port.medium == Medium::Ethernet
        && irdp::is_solicitation(p, data, port)
        && irdp.contains_key(&port.name)
}

/// An IPv4-compatible source (`::192.0.2.1`) must not come out of a tunnel (RFC 4213 3.6).
fn is_compatible(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.segments()[..6] == [0; 6] && !a.is_unspecified())
}

/// Whether anything stands between an IPv6 header and what it carries, be it cut short.
fn has_extensions(p: &Packet, data: &[u8]) -> bool {
    usize::from(p.l4) > ipv6::HEADER || data.get(6) != Some(&p.proto)
}

/// Who sent the frame on its link, as far as known.
fn link_source(job: &Job) -> Option<MacAddr> {
    match job.start {
        Start::Input { link } => link.map(|(mac, _)| mac),
        _ => None,
    }
}

/// Destinations that never reach the FIB.
enum Special {
    Ndp,
    Local,
    /// An echo request to a group of which we are: answered from this address.
    Echo(IpAddr),
    Drop(DropReason),
}

/// Multicast, broadcast and link-local destinations; neighbour discovery to a group.
fn special_destination(p: &Packet, data: &[u8], port: &PortInfo, ports: &PortTable) -> Option<Special> {
    match p.dst {
        IpAddr::V4(d) if d.is_multicast() => {
            // RFC 5771 4: 224.0.0/24 never leaves its link.
            let local = d.octets()[..3] == [224, 0, 0];
            Some(Special::Drop(if local { DropReason::LocalIgnored } else { DropReason::MulticastNotForwarded }))
        }
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Special::Drop(DropReason::LocalIgnored)),
        // RFC 1812 5.3.4: what came as a link broadcast to a unicast address is not forwarded.
        IpAddr::V4(_) if p.link_group => Some(Special::Drop(DropReason::BroadcastNotForwarded)),
        IpAddr::V6(d) if d.is_multicast() => {
            let ndp = p.proto == protocol::ICMPV6
                && p.fragment == Fragment::None
                && p.transport(data).first().is_some_and(|t| local::is_link_message(*t));
            Some(match d.octets()[1] & 0x0f {
                // RFC 4291 2.7: reserved, or never outside of a node.
                0 | 1 => Special::Drop(DropReason::LocalIgnored),
                2 if ndp => Special::Ndp,
                2 if is_group_echo(p, data) && is_member(port, d) => match group_source(p, port, ports) {
                    Some(src) => Special::Echo(src),
                    None => Special::Drop(DropReason::LocalIgnored),
                },
                // Site scope has one group of which a router is a member: all routers (RFC 4291 2.8).
                5 if is_group_echo(p, data) && is_member(port, d) => match group_source(p, port, ports) {
                    Some(src) => Special::Echo(src),
                    None => Special::Drop(DropReason::MulticastNotForwarded),
                },
                2 => Special::Drop(DropReason::LocalIgnored),
                _ => Special::Drop(DropReason::MulticastNotForwarded),
            })
        }
        IpAddr::V6(_) if p.link_group => Some(Special::Drop(DropReason::BroadcastNotForwarded)),
        IpAddr::V6(d) if d.is_unicast_link_local() => {
            // The same link-local address may exist on every port: only the ingress port's own counts.
            Some(if port.owns(&p.dst) || port.is_anycast(&p.dst) {
                Special::Local
            } else {
                Special::Drop(DropReason::LinkLocalScope)
            })
        }
        _ => None,
    }
}

/// An echo request that a group's members should answer (RFC 4443 4.2).
fn is_group_echo(p: &Packet, data: &[u8]) -> bool {
    let whole = p.proto == protocol::ICMPV6 && p.fragment == Fragment::None;
    whole && p.transport(data).first() == Some(&128)
}

/// From where a request to one of our addresses is answered: from that address, or, when it is that of all routers of a
/// subnet, from one of this router alone (RFC 4443 2.2 b).
fn echo_source(step: &Step<'_>, p: &Packet, ingress: PortId) -> IpAddr {
    let ports = &step.tables.ports;
    let here = || ports.get(ingress).filter(|port| ports.is_anycast(p.dst) || port.is_anycast(&p.dst));
    match p.family {
        Family::Inet => p.dst,
        Family::Inet6 => here().and_then(|port| group_source(p, port, ports)).unwrap_or(p.dst),
    }
}

/// The groups that every router is in (RFC 4291 2.8): all nodes, all routers, and those of its own addresses.
fn is_member(port: &PortInfo, group: std::net::Ipv6Addr) -> bool {
    let [.., last] = group.segments();
    let site = group.octets()[1] & 0x0f == 5;
    let well_known = group.segments()[1..7] == [0; 6] && (last == 2 || (last == 1 && !site));
    let of_own = |a: IpAddr| matches!(a, IpAddr::V6(a) if ndp::solicited_node(a) == group);
    // Anycast addresses have such groups, too (RFC 4291 2.7.1).
    let of_all = |n: &ipnet::IpNet| matches!(n, ipnet::IpNet::V6(n) if subnet_router_anycast(n).is_some_and(|a| of_own(IpAddr::V6(a))));
    well_known || port.addrs.iter().any(|n| of_own(n.addr()) || of_all(n))
}

/// From where a group's echo request is answered: in the scope of the one who asked (RFC 4443 4.2, RFC 6724 5 rule 2).
fn group_source(p: &Packet, port: &PortInfo, ports: &PortTable) -> Option<IpAddr> {
    let near = matches!(p.src, IpAddr::V6(a) if a.is_unicast_link_local());
    let link_local = || port.link_local().map(IpAddr::V6).filter(|a| !ports.is_tentative(port.id, a));
    (!near).then(|| icmp::answer_source(port, ports, p.src)).flatten().or_else(link_local)
}
