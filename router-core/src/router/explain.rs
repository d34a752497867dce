//! [`Router::explain`]: runs the packet, then tells what was recorded with what only the control side knows.

use super::Router;
use super::explain_words as words;
use crate::addr::{Family, MacAddr};
use crate::drop_reason::DropReason;
use crate::explain::record::{Entry, Record, Seen, rehearse};
use crate::explain::{
    Bytes, End, ExplainError, Explanation, Limit, Member, Mtu, PacketView, Pass, Question, Role, Step, make_packet,
};
use crate::frame::{Frame, Gso, GsoKind};
use crate::headers::protocol;
use crate::icmp::{self, Offender};
use crate::object::{Group, Object, ObjectId};
use crate::observe::{Direction, Punted, Withheld};
use crate::packet::Packet;
use crate::port::{Medium, PortId, PortInfo, TableId};
use crate::spec::NudState;
use crate::tables::Tables;
use crate::time::Instant;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Where the example comes from.
struct Scene {
    entry: Entry,
    frame: Frame,
    iif: Option<Arc<PortInfo>>,
    assumed: Vec<String>,
}

impl Router {
    /// What becomes of a packet and why, on the tables of the last commit. Nothing is sent, counted, learned or marked.
    pub fn explain(&self, now: Instant, question: &Question) -> Result<Explanation, ExplainError> {
        let mut scene = self.scene(question)?;
        if let Some(mark) = question.mark {
            scene.frame.meta.mark = mark;
            if !self.rules.look_at_marks() {
                scene.assumed.push(format!("mark {mark:#x} changes nothing: no rule looks at marks"));
            }
        }
        if let Some(size) = question.gso {
            scene.frame.meta.gso = Some(super_frame(&scene, size).ok_or(ExplainError::SuperFrame)?);
        }
        let tables = &self.tables;
        let silent =
            |port, addr| self.neighbors.get(port, addr).is_some_and(|n| n.state == NudState::Failed && n.mac.is_none());
        let records = rehearse(tables, self.worker.flow_seed(), now, scene.entry, scene.frame, silent);
        let teller = Teller { router: self, tables, now };
        let passes = records.iter().map(|r| teller.pass(r)).collect();
        Ok(Explanation { iif: scene.iif.map(|p| p.name.clone()), assumed: scene.assumed, passes })
    }

    fn scene(&self, q: &Question) -> Result<Scene, ExplainError> {
        let mut assumed = Vec::new();
        let named = match &q.iif {
            Some(name) => Some(self.ports.by_name(name).cloned().ok_or_else(|| ExplainError::NoPort(name.clone()))?),
            None => None,
        };
        if let Some(bytes) = &q.bytes {
            return self.scene_of_bytes(&bytes.0, q.ethernet, named, assumed);
        }
        let to = q.to.ok_or(ExplainError::NoDestination)?;
        let own = q.from.is_some_and(|a| self.ports.iter().any(|p| p.owns(&a)));
        if named.is_none() && (q.from.is_none() || own) {
            let table = TableId::MAIN;
            let from = match q.from {
                Some(a) => a,
                None => {
                    let src = self.routing.get(table, &to, 0).and_then(|a| a.src);
                    let family = Family::of(&to);
                    let any = || self.ports.iter().find_map(|p| p.global_addr(family));
                    let a = src.or_else(any).ok_or_else(|| ExplainError::NoSource("lo".into()))?;
                    assumed.push(format!("made by the router itself, from {a}: no \"from\" and no \"iif\" was given"));
                    a
                }
            };
            let frame = Frame::from_slice(&make_packet(q, from, to)?);
            return Ok(Scene { entry: Entry::Own(table), frame, iif: None, assumed });
        }
        let (port, from) = match (named, q.from) {
            (Some(port), Some(from)) => (port, from),
            (Some(port), None) => {
                let from =
                    host_on_link(&port, Family::of(&to)).ok_or_else(|| ExplainError::NoSource(port.name.clone()))?;
                assumed.push(format!("from {from}, a host on the link of {}: no \"from\" was given", port.name));
                (port, from)
            }
            (None, Some(from)) => {
                let (port, why) = self.towards(from).ok_or(ExplainError::NoIngress(from))?;
                assumed.push(format!("through {}, {why}: no \"iif\" was given", port.name));
                (port, from)
            }
            (None, None) => return Err(ExplainError::NoDestination),
        };
        let packet = make_packet(q, from, to)?;
        let frame = framed(&port, &packet);
        Ok(Scene { entry: Entry::Port(port.id), frame, iif: Some(port), assumed })
    }

    fn scene_of_bytes(
        &self,
        bytes: &[u8],
        ethernet: Option<bool>,
        named: Option<Arc<PortInfo>>,
        mut assumed: Vec<String>,
    ) -> Result<Scene, ExplainError> {
        // An IP packet says its own length; an Ethernet frame's first byte is part of an address.
        let ip = PacketView::read(bytes);
        let inner = bytes.get(14..).and_then(PacketView::read);
        let has_link = ethernet.unwrap_or(ip.is_none() && bytes.len() >= 14);
        if !has_link && Packet::sniff(bytes).is_err() {
            return Err(ExplainError::NoPacket);
        }
        let port = match named {
            Some(port) => port,
            None => {
                let by_mac = || {
                    let dst = bytes.first_chunk::<6>().filter(|_| has_link)?;
                    let port = self.ports.iter().find(|p| p.mac == Some(MacAddr(*dst)))?;
                    Some((port.clone(), "whose link-layer address it is sent to"))
                };
                let src = if has_link { inner.as_ref() } else { ip.as_ref() }.map(|v| v.src);
                let by_source = || self.towards(src?);
                let unknown = src.map_or(ExplainError::NoPacket, ExplainError::NoIngress);
                let (port, why) = by_mac().or_else(by_source).ok_or(unknown)?;
                assumed.push(format!("through {}, {why}: no \"iif\" was given", port.name));
                port
            }
        };
        let frame = match (has_link, port.medium) {
            (true, Medium::Ethernet) => Frame::from_slice(bytes),
            (true, Medium::Ip) => Frame::from_slice(bytes.get(14..).unwrap_or(&[])),
            (false, _) => framed(&port, bytes),
        };
        Ok(Scene { entry: Entry::Port(port.id), frame, iif: Some(port), assumed })
    }

    /// The port through which packets from a host come, if routes are symmetric.
    pub(super) fn towards(&self, from: IpAddr) -> Option<(Arc<PortInfo>, &'static str)> {
        if let Some(port) = self.ports.iter().find(|p| p.on_link(&from) && !p.owns(&from)) {
            return Some((port.clone(), "on whose link the source is"));
        }
        let port = self.routing.get(TableId::MAIN, &from, 0)?.port?;
        Some((self.ports.get(port)?.clone(), "by which the source would be reached"))
    }
}

/// The offload metadata of a super-frame.
fn super_frame(scene: &Scene, size: u16) -> Option<Gso> {
    let data = scene.frame.data();
    let medium = scene.iif.as_ref().map_or(Medium::Ip, |p| p.medium);
    let view = PacketView::read(data.get(if medium == Medium::Ethernet { 14 } else { 0 }..)?)?;
    let kind = match (view.proto, view.family) {
        (protocol::TCP, Family::Inet) => GsoKind::TcpV4,
        (protocol::TCP, Family::Inet6) => GsoKind::TcpV6,
        (protocol::UDP, _) => GsoKind::UdpL4,
        _ => return None,
    };
    (size > 0).then_some(Gso { kind, size, ecn: false })
}

/// A host that might be on the link: not the router, not the network's or broadcast address.
fn host_on_link(port: &PortInfo, family: Family) -> Option<IpAddr> {
    let nets = port.addrs.iter().filter(|n| Family::of_net(n) == family);
    nets.filter(|n| !matches!(n.addr(), IpAddr::V6(a) if a.is_unicast_link_local())).find_map(|n| match n.trunc() {
        IpNet::V4(t) => t.hosts().map(IpAddr::V4).take(3).find(|a| !port.owns(a)),
        IpNet::V6(t) => {
            (1..4u128).map(|i| IpAddr::V6((t.network().to_bits() + i).into())).find(|a| !port.owns(a) && n.contains(a))
        }
    })
}

/// An IP packet as it would come from the port.
fn framed(port: &PortInfo, packet: &[u8]) -> Frame {
    if port.medium == Medium::Ip {
        return Frame::from_slice(packet);
    }
    // A station that nobody has: locally administered.
    let sender = MacAddr([2, 0, 0, 0, 0, 0]);
    let mut frame = port.mac.unwrap_or_default().0.to_vec();
    frame.extend(sender.0);
    if let Some(vid) = port.vlan {
        frame.extend([0x81, 0x00]);
        frame.extend(vid.to_be_bytes());
    }
    frame.extend(if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    Frame::from_slice(&frame)
}

/// Tells a record.
struct Teller<'a> {
    router: &'a Router,
    tables: &'a Arc<Tables>,
    now: Instant,
}

/// What is gathered while one pass is told.
#[derive(Default)]
struct Story {
    steps: Vec<Step>,
    limits: Vec<Limit>,
    /// Bytes added in front so far.
    added: u32,
    packet: Option<Packet>,
    /// What was parsed before it.
    before: Option<Packet>,
    /// The last object.
    object: Option<Object>,
    table: Option<TableId>,
    /// What says so.
    rule: Option<String>,
    via: Option<IpAddr>,
    forwarder: String,
    ttl: u8,
    end: Option<End>,
    answered: Option<&'static str>,
    replied: bool,
}

impl Teller<'_> {
    fn pass(&self, record: &Record) -> Pass {
        let mut s = Story::default();
        for (seen, bytes) in &record.seen {
            self.step(&mut s, record, seen, bytes);
        }
        let first = record.seen.iter().find(|(seen, _)| matches!(seen, Seen::Parsed(_)));
        let packet = match first {
            Some((Seen::Parsed(p), bytes)) => Some(PacketView::of(p, bytes)),
            _ => None,
        };
        let least = s.limits.iter().min_by_key(|l| l.packet);
        let mtu = least.map(|l| Mtu { mtu: l.packet, by: l.by.clone(), limits: s.limits.clone() });
        let end = s.end.unwrap_or(match s.answered {
            Some(what) => End::Answered { what: what.to_owned() },
            None => End::GoesOn,
        });
        Pass { role: record.role, parent: record.parent, packet, steps: s.steps, mtu, end }
    }

    fn step(&self, s: &mut Story, record: &Record, seen: &Seen, bytes: &[u8]) {
        match seen {
            Seen::Link { src, group } => s.steps.push(Step::Link { src: *src, group: *group }),
            Seen::Parsed(p) => {
                if s.packet.is_none() {
                    s.ttl = p.ttl;
                    if !matches!(record.role, Role::Again | Role::Later) {
                        s.steps.push(Step::Checks { passed: vec![words::header_check(p.family).to_owned()] });
                    }
                }
                (s.before, s.packet) = (s.packet, Some(*p));
            }
            Seen::Addresses => {
                if let Some(Step::Checks { passed }) = s.steps.last_mut() {
                    passed.push(words::ADDRESS_CHECK.to_owned());
                }
            }
            Seen::Rule { family, index } => {
                if let Some(rule) = self.router.rules.list(*family).get(*index) {
                    let priority = rule.priority.unwrap_or(0);
                    s.rule = Some(format!("rule {priority}"));
                    s.steps.push(Step::Rule { priority, rule: rule.to_string() });
                }
            }
            Seen::Source => self.source(s),
            Seen::Lookup { table, dst } => {
                s.table = Some(*table);
                let rule = match (&s.object, s.rule.take()) {
                    (Some(Object::Table(_)), _) => words::leak(self.router.vrf_of(*table)),
                    (_, Some(rule)) => rule,
                    (_, None) => words::rule(self.tables.ports.get(record.ingress), *table),
                };
                s.steps.push(Step::Lookup {
                    table: *table,
                    rule,
                    dst: *dst,
                    covers: self.router.routing.covers(*table, dst),
                    recursion: self.router.routing.recursions(*table, dst),
                });
            }
            Seen::Object(object) => self.object(s, object),
            Seen::Member { hash, bucket } => {
                if let (Some(Object::Group(g)), Some(p)) = (&s.object, &s.packet) {
                    s.steps.push(Step::Group {
                        hash: *hash,
                        covers: words::hash_covers(p).to_owned(),
                        bucket: *bucket,
                        buckets: g.buckets.len(),
                        resilient: g.activity.is_some(),
                        idle: g
                            .activity
                            .as_ref()
                            .and_then(|a| a.idle(*bucket, self.now))
                            .map(|d| u64::try_from(d.as_millis() / 10).unwrap_or(u64::MAX)),
                        members: self.members(g, *bucket),
                    });
                }
            }
            Seen::OnLink { port, neighbor } => {
                s.via = None;
                s.steps.push(self.neighbor(*port, *neighbor));
            }
            Seen::Decided { by, verdict } => {
                s.forwarder.clone_from(by);
                // What the router's own forwarders decide shows in what follows.
                if !matches!(by.as_str(), "native" | "via-inet6" | "6in4") {
                    let verdict = words::verdict(verdict, self.tables);
                    s.steps.push(Step::Forwarder { name: by.clone(), verdict });
                }
            }
            Seen::Filtered { port, direction, filter, rule, judged } => s.steps.push(Step::Filter {
                place: match direction {
                    Direction::In => format!("in by {}", self.name(*port)),
                    Direction::Out => format!("out by {}", self.name(*port)),
                    Direction::Local => "to the router".to_owned(),
                },
                filter: filter.clone(),
                number: judged.rule.map(|i| i + 1),
                rule: match rule {
                    Some(rule) => rule.clone(),
                    None if judged.hidden => "its transport header is cut or hidden by fragments".to_owned(),
                    None => "no rule matches".to_owned(),
                },
                action: judged.action,
            }),
            Seen::SourceChecked { port, check, allowed } => {
                s.steps.push(Step::SourceCheck { dev: self.name(*port), check: check.to_string(), allowed: *allowed });
            }
            Seen::Clamped { from, to } => s.steps.push(Step::Mss { from: *from, to: *to }),
            Seen::Aged => {
                let to = s.ttl.saturating_sub(1);
                s.steps.push(Step::Ttl { from: s.ttl, to });
                s.ttl = to;
            }
            Seen::Encapsulated(tunnel) => self.encapsulated(s, *tunnel, bytes),
            Seen::Decapsulated(tunnel) => {
                if let Some(p) = &s.packet {
                    let removed = u32::from(p.l4);
                    let tunnel = self.name(*tunnel);
                    s.steps.push(Step::Decap { tunnel, local: p.dst, remote: p.src, removed });
                }
                s.end = Some(End::GoesOn);
            }
            Seen::Local(l) => s.steps.push(Step::Local { what: words::local(l).to_owned() }),
            Seen::Error(error) => {
                s.replied = true;
                // The frame at hand is the error: what it quotes is the packet as it came.
                let quote = if error.family() == Family::Inet { 28 } else { 48 };
                let about = bytes.get(quote..).and_then(|q| Offender::refused(q, false));
                let ingress = record.ingress;
                let found = about
                    .and_then(|o| icmp::error_source_because(&o, ingress, &self.tables.ports, &self.tables.settings));
                if let (Some((source, rule)), Some(view)) = (found, PacketView::read(bytes)) {
                    // The address in the packet is what counts, should both ever differ.
                    let why = if source == view.src { words::source_rule(rule, self.tables) } else { String::new() };
                    s.steps.push(Step::Reply { what: words::error(error), source: view.src, why });
                }
            }
            Seen::ErrorWithheld(error, why) => {
                s.replied = true;
                let why = match why {
                    Withheld::RateLimit => format!("{error}: the rate limit allows none"),
                    Withheld::NoSource => format!("{error}: the router has no address to send it from"),
                    Withheld::NoFrame => format!("{error}: no free buffer"),
                };
                s.steps.push(Step::NoReply { why });
            }
            Seen::Cut(role) => match role {
                Role::Fragment { of, .. } => cut(s, "fragments", *of),
                Role::Segment { of, .. } => cut(s, "segments", *of),
                Role::EchoReply => s.answered = Some("echo reply"),
                Role::TcpReset => s.replied = true,
                _ => {}
            },
            Seen::Transmit(port) => {
                let link_header = match self.tables.ports.get(*port) {
                    Some(p) if p.medium == Medium::Ethernet => 14 + if p.vlan.is_some() { 4 } else { 0 },
                    _ => 0,
                };
                s.end = Some(End::Transmit {
                    dev: self.name(*port),
                    via: s.via,
                    forwarder: s.forwarder.clone(),
                    frame: Bytes(bytes.to_vec()),
                    link_header,
                });
            }
            Seen::Punt(punted) => self.punted(s, punted),
            Seen::Drop(reason) => self.dropped(s, record, *reason, bytes),
        }
    }

    fn object(&self, s: &mut Story, object: &Object) {
        match object {
            Object::Forward(hop) => {
                s.via = hop.gateway;
                self.limit(s, hop.mtu, hop.port);
                if let (Some(gateway), Some(_)) = (hop.gateway, hop.rewrite.dst()) {
                    s.steps.push(self.neighbor(hop.port, gateway));
                }
            }
            Object::Incomplete(i) => {
                s.via = Some(i.gateway);
                let mtu = self.tables.ports.get(i.port).map_or(0, |p| p.mtu);
                self.limit(s, mtu, i.port);
                s.steps.push(self.neighbor(i.port, i.gateway));
            }
            Object::Glean(g) => {
                let port = self.tables.ports.get(g.port).map_or(0, |p| p.mtu);
                self.limit(s, if g.mtu > 0 { g.mtu.min(port) } else { port }, g.port);
            }
            Object::Encap(e) => self.limit(s, e.mtu, e.tunnel),
            // What it stands for comes next.
            Object::Counted(_) => return,
            Object::Plugin(_) | Object::Group(_) | Object::Discard(_) | Object::Local | Object::Broadcast => {}
            Object::Sources(_) | Object::Table(_) => {}
        }
        s.object = Some(object.clone());
    }

    fn source(&self, s: &mut Story) {
        let (Some(Object::Sources(sources)), Some(p)) = (&s.object, &s.packet) else { return };
        let chosen = sources.list.iter().map(|(net, _)| *net).find(|net| net.contains(&p.src));
        let route = self.router.routing.route_of_source(s.table.unwrap_or_default(), &p.dst, &p.src);
        let list = sources.list.iter().map(|(net, _)| *net).collect();
        s.steps.push(Step::Source { src: p.src, sources: list, chosen, route: route.map(Box::new) });
    }

    fn limit(&self, s: &mut Story, mtu: u32, port: PortId) {
        let by = self.router.whose_mtu(self.tables, port, mtu, self.now);
        s.limits.push(Limit { by, mtu, packet: mtu.saturating_sub(s.added) });
    }

    fn encapsulated(&self, s: &mut Story, tunnel: PortId, bytes: &[u8]) {
        let Some(Object::Encap(e)) = s.object.clone() else { return };
        let outer = PacketView::read(bytes);
        // The outer packet has been parsed already.
        let inner = s.before.map_or(0, |p| p.len);
        let added = outer.as_ref().map_or(0, |o| o.len.saturating_sub(inner));
        s.added += added;
        s.ttl = outer.as_ref().map_or(s.ttl, |o| o.ttl);
        s.steps.push(Step::Encap {
            tunnel: self.name(tunnel),
            mode: words::encap(
                words::mode(e.facts.mode, s.before.map(|p| p.family)),
                &e.facts.options,
                self.router.tunnel(self.now, tunnel).and_then(|t| t.path),
            ),
            local: e.facts.local,
            remote: outer.as_ref().map_or(e.facts.remote, |o| o.dst),
            added,
            outer,
            recursion: self.router.routing.carrier_recursion(tunnel),
        });
    }

    fn neighbor(&self, port: PortId, addr: IpAddr) -> Step {
        let known = self.router.neighbors.get(port, addr);
        Step::Neighbor {
            addr,
            dev: self.name(port),
            protocol: if addr.is_ipv4() { "arp" } else { "ndp" }.to_owned(),
            lladdr: known.as_ref().and_then(|n| n.mac),
            state: known.as_ref().map(|n| n.state),
            waiting: known.map_or(0, |n| n.pending),
        }
    }

    fn members(&self, group: &Group, bucket: usize) -> Vec<Member> {
        let chosen = group.buckets.get(bucket).copied();
        let mut ids: Vec<(ObjectId, usize)> = Vec::new();
        for id in group.buckets.iter() {
            match ids.iter_mut().find(|(i, _)| i == id) {
                Some((_, n)) => *n += 1,
                None => ids.push((*id, 1)),
            }
        }
        let member = |(id, buckets): (ObjectId, usize)| {
            let object = match self.tables.routing.objects.get(id) {
                Some(Object::Counted(c)) => self.tables.routing.objects.get(c.next),
                object => object,
            };
            let (via, dev, what) = match object {
                Some(Object::Forward(f)) => (f.gateway, Some(f.port), None),
                Some(Object::Incomplete(i)) => (Some(i.gateway), Some(i.port), None),
                Some(Object::Glean(g)) => (None, Some(g.port), None),
                Some(Object::Encap(e)) => (None, Some(e.tunnel), None),
                Some(Object::Discard(r)) => (None, None, Some(r.name().to_owned())),
                Some(Object::Plugin(p)) => (None, None, Some(p.forwarder.name().to_owned())),
                Some(Object::Table(t)) => (None, self.router.vrf_of(*t).map(|v| v.id), None),
                Some(
                    Object::Group(_) | Object::Counted(_) | Object::Local | Object::Broadcast | Object::Sources(_),
                )
                | None => (None, None, None),
            };
            Member { via, dev: dev.map(|d| self.name(d)), what, buckets, chosen: Some(id) == chosen }
        };
        ids.into_iter().map(member).collect()
    }

    fn punted(&self, s: &mut Story, punted: &Punted) {
        s.end = Some(match punted {
            Punted::Arp => End::Consumed { what: "ARP".into() },
            Punted::Ndp => End::Consumed { what: "neighbour discovery".into() },
            Punted::RouterSolicit => End::Consumed { what: "router discovery".into() },
            Punted::Reassemble => End::Consumed { what: "reassembly".into() },
            Punted::Translate(_) => End::Consumed { what: "a session of the translator, then translation".into() },
            Punted::EchoReply => End::Consumed { what: "an answer to a question of the router's own".into() },
            Punted::IcmpError => End::Consumed { what: "an ICMP error, read for path MTUs of tunnels".into() },
            Punted::Resolve { port, neighbor } => {
                // A host on the link was told of by its own step already.
                let told = s.steps.iter().any(|x| matches!(x, Step::Neighbor { addr, .. } if addr == neighbor));
                if !told {
                    s.steps.push(self.neighbor(*port, *neighbor));
                }
                End::Held { neighbor: *neighbor, dev: self.name(*port) }
            }
        });
    }

    fn dropped(&self, s: &mut Story, record: &Record, reason: DropReason, bytes: &[u8]) {
        s.end = Some(End::Drop { reason: reason.name().to_owned(), explanation: reason.explanation().to_owned() });
        if s.replied {
            return;
        }
        let own = record.ingress == PortId::NONE;
        let offender = match &s.packet {
            Some(p) => Some(Offender::of(p, bytes)),
            None => Offender::refused(bytes, false).filter(|_| !matches!(reason, DropReason::NotForUs)),
        };
        let wanted = offender.as_ref().and_then(|o| icmp::error_wanted(reason, 0, o));
        let why = match (wanted, offender) {
            _ if own => "it is a packet of the router's own: there is nobody to tell".to_owned(),
            (Some(error), Some(o)) => o.unanswerable_with(&error).unwrap_or_default().to_owned(),
            _ => format!("{} is never answered", reason.name()),
        };
        s.steps.push(Step::NoReply { why });
    }

    fn name(&self, port: PortId) -> String {
        self.tables.ports.get(port).map_or_else(String::new, |p| p.name.clone())
    }
}

fn cut(s: &mut Story, into: &str, count: usize) {
    if !matches!(s.steps.last(), Some(Step::Cut { .. })) {
        s.steps.push(Step::Cut { into: into.to_owned(), count });
    }
}
