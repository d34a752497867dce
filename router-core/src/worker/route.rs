//! From a forwarding object to an egress queue: decide, then apply.

use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::flow;
use crate::forward::native::Native;
use crate::forward::via_inet6::ViaInet6;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::headers::ipv4_options::{self, Stamp};
use crate::headers::option_policy::OptionAction;
use crate::headers::{ipv4, protocol};
use crate::martian;
use crate::next_hop::activity;
use crate::object::{Encap, Forward, Object, ObjectId, Rewrite};
use crate::observe::{Cause, Observer, Stage as Seen};
use crate::packet::Packet;
use crate::port::{Medium, PortCaps, PortId, PortInfo, TableId};
use crate::tables::domain_of;
use crate::time::Instant;
use crate::tunnel::encapsulate::takes_super_frames;
use crate::tunnel::{Encapsulate, Outer};
use crate::worker::options::has_options;
use crate::worker::{Job, PuntReason, Stale, Start, Step, Worker};
use crate::{checksum, fragment, offload};
use std::net::IpAddr;
use std::sync::Arc;

/// Objects that one packet may pass in one go: groups, gleans, plug-ins and tunnels stacked on each other.
const MAX_STACK: usize = 16;

/// The longest IPv6 packet that is an IPv4 packet, too, once it has lost 20 bytes.
const LONGEST_V4: u32 = 65_535 + 20;

/// How a forwarder is embedded in the pipeline.
#[derive(Clone, Copy)]
struct Stage {
    /// Where fragments and segments of the packet start.
    again: Start,
    /// What the next port can take.
    caps: PortCaps,
    /// See [`Context::next`].
    next: ObjectId,
    /// The largest segment size that a TCP SYN may tell from here on.
    mss: Option<u16>,
    /// The tunnel that is entered.
    tunnel: PortId,
}

impl Stage {
    /// A stage behind which there is no port: all offloads are done before it.
    fn at(id: ObjectId, next: ObjectId) -> Self {
        Stage { again: Start::Object(id), caps: PortCaps::default(), next, mss: None, tunnel: PortId::NONE }
    }

    /// A tunnel. A super-frame goes in whole where it may, and is cut behind it, outer headers and all, in one go: what is
    /// decided here is the same for all segments.
    fn tunnel(id: ObjectId, encap: &Encap, frame: &Frame) -> Self {
        const WHOLE: PortCaps = PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false };
        let added = encap.outer.as_ref().map_or(0, Outer::added);
        let whole = takes_super_frames(encap.outer.as_ref()) && frame.len() + added <= usize::from(u16::MAX);
        let caps = if frame.meta.gso.is_some() && whole { WHOLE } else { PortCaps::default() };
        Stage { caps, tunnel: encap.tunnel, ..Stage::at(id, encap.carrier) }
    }
}

/// Where the pieces of a packet go on.
#[derive(Clone, Copy)]
struct Pieces {
    start: Start,
    depth: u8,
}

/// What became of a packet at one object.
enum Next {
    /// It has ended, or goes on as jobs of its own.
    Done,
    /// It goes on with this object.
    Object(Job, Packet, ObjectId),
}

impl<O: Observer> Worker<O> {
    /// Follows forwarding objects until the packet has ended.
    pub(super) fn forward(&mut self, step: &mut Step<'_>, job: Job, packet: Packet, id: ObjectId) -> Result<(), Stale> {
        let tables = step.tables;
        let (mut job, mut packet, mut id) = (job, packet, id);
        // Nothing was edited, and the id comes from a lookup.
        let mut fresh = true;
        for _ in 0..MAX_STACK {
            let Some(object) = tables.routing.objects.get(id) else {
                // What comes from the FIB may be newer than the snapshot; all other objects are of it.
                if fresh {
                    return Err(Stale(job));
                }
                self.discard(step, job.frame, DropReason::NextHopUnusable);
                return Ok(());
            };
            self.note(&job.frame, || Seen::Object(id, object));
            match object {
                Object::Sources(sources) => {
                    id = sources.pick(&packet.src);
                    self.note(&job.frame, || Seen::Source(id));
                }
                Object::Table(table) => {
                    id = tables.lookup(*table, &packet.dst);
                    self.note(&job.frame, || Seen::Lookup { table: *table, dst: packet.dst, object: id });
                    continue;
                }
                Object::Group(group) => {
                    let hash = flow::hash(&packet, job.frame.data(), self.flow_seed);
                    let bucket = group.bucket(hash);
                    if let Some(activity) = group.activity.as_ref().filter(|_| !O::REHEARSAL) {
                        activity.touch(self.part(), bucket, activity::tick(step.now));
                    }
                    id = group.member(bucket).unwrap_or(ObjectId::NO_ROUTE);
                    self.note(&job.frame, || Seen::Member { hash, bucket, member: id });
                }
                Object::Glean(glean) => {
                    let known = tables.routing.adjacencies.get(glean.port, &packet.dst);
                    let (port, neighbor, known_now) = (glean.port, packet.dst, known.is_some());
                    self.note(&job.frame, || Seen::OnLink { port, neighbor, known: known_now });
                    match known {
                        _ if glean.mtu > 0 && packet.wire_len > glean.mtu => {
                            self.too_big(step, job, &packet, Start::Object(id), glean.mtu);
                        }
                        Some(hop) if glean.mss > 0 => {
                            let hop = Forward { mss: glean.mss, ..hop.clone() };
                            self.forward_to(step, job, packet, Start::Object(id), &hop);
                        }
                        Some(hop) => self.forward_to(step, job, packet, Start::Object(id), hop),
                        None => self.resolve(step, job, packet, glean.port, packet.dst, glean.mss),
                    }
                    return Ok(());
                }
                Object::Incomplete(i) => {
                    self.resolve(step, job, packet, i.port, i.gateway, i.mss);
                    return Ok(());
                }
                Object::Discard(reason) => {
                    self.refuse(step, job.frame, &packet, *reason, 0);
                    return Ok(());
                }
                Object::Local if is_own(&job.frame) => {
                    self.discard(step, job.frame, DropReason::LocalIgnored);
                    return Ok(());
                }
                Object::Local => {
                    self.deliver(step, job, packet);
                    return Ok(());
                }
                Object::Broadcast => {
                    self.discard(step, job.frame, DropReason::LocalIgnored);
                    return Ok(());
                }
                Object::Forward(hop) => {
                    self.forward_to(step, job, packet, Start::Object(id), hop);
                    return Ok(());
                }
                Object::Encap(encap) => {
                    if job.depth >= tables.settings.max_tunnel_nesting {
                        self.discard(step, job.frame, DropReason::TunnelNesting);
                        return Ok(());
                    }
                    if martian::is_mapped_packet(&packet) && !tables.closed(encap.tunnel) {
                        self.discard(step, job.frame, DropReason::MappedAddress);
                        return Ok(());
                    }
                    if tables.ports.is_barred(&encap.facts.local) {
                        self.discard(step, job.frame, DropReason::TentativeAddress);
                        return Ok(());
                    }
                    if self.turns_back(step, &job.frame, encap) {
                        self.refuse(step, job.frame, &packet, DropReason::TunnelReflection, 0);
                        return Ok(());
                    }
                    if self.goes_round(step, &job.frame, &packet, encap) {
                        self.discard(step, job.frame, DropReason::TunnelLoop);
                        return Ok(());
                    }
                    self.ident = self.ident.wrapping_add(1);
                    let forwarder = Encapsulate { encap, ident: self.ident };
                    // Each segment of a super-frame gets an identification of its own, whoever cuts it (RFC 6864 4.3).
                    self.ident = self.ident.wrapping_add(offload::further_segments(&job.frame));
                    let Some(judged) = self.admit_out(step, job, &packet, encap.tunnel) else { return Ok(()) };
                    job = judged;
                    let mss = self.mss(step, &job.frame, &packet, encap.tunnel, (encap.mtu, encap.mss));
                    let stage = Stage { mss, ..Stage::tunnel(id, encap, &job.frame) };
                    fresh = false;
                    match self.carry_out(step, &forwarder, job, packet, stage) {
                        Next::Done => return Ok(()),
                        Next::Object(mut j, p, next) => {
                            if let Some(c) = self.counters.port(encap.tunnel) {
                                c.tx_packets.add(1);
                                c.tx_bytes.add(u64::from(packet.len));
                            }
                            self.note(&j.frame, || Seen::Encapsulated(encap.tunnel));
                            // From here on it is a packet of ours: nobody outside is told about its fate.
                            j.frame.meta.port = PortId::NONE;
                            j.frame.meta.passed_out = false;
                            j.frame.meta.beyond_mtu = false;
                            j.frame.meta.source_route = 0;
                            j.depth += 1;
                            (job, packet, id) = (j, p, next);
                        }
                    }
                    // Nobody on an IPv6 way may fragment the outer packet: its source does (RFC 2473 7.1).
                    if let Some(most) = encap.facts.path.filter(|most| packet.wire_len > *most) {
                        self.too_big(step, job, &packet, Start::Object(id), most);
                        return Ok(());
                    }
                }
                Object::Counted(counted) => {
                    if !O::REHEARSAL {
                        counted.traffic.count(packet.len);
                    }
                    id = counted.next;
                }
                Object::Plugin(plugin) => {
                    match self.carry_out(step, &*plugin.forwarder, job, packet, Stage::at(id, plugin.next)) {
                        Next::Done => return Ok(()),
                        Next::Object(j, p, next) => (job, packet, id) = (j, p, next),
                    }
                }
            }
        }
        self.discard(step, job.frame, DropReason::TunnelNesting);
        Ok(())
    }

    /// Sends through a resolved adjacency.
    pub(super) fn forward_to(
        &mut self,
        step: &mut Step<'_>,
        mut job: Job,
        packet: Packet,
        again: Start,
        hop: &Forward,
    ) {
        let Some(port) = step.tables.ports.get(hop.port) else {
            return self.discard(step, job.frame, DropReason::PortGone);
        };
        if !port.up {
            return self.refuse(step, job.frame, &packet, DropReason::NextHopUnusable, 0);
        }
        if martian::is_mapped_packet(&packet) && !step.tables.closed(hop.port) {
            return self.discard(step, job.frame, DropReason::MappedAddress);
        }
        if hop.port == job.frame.meta.port && leaving(&packet).is_ok() {
            self.redirect(step, &job.frame, &packet, hop);
            job.frame.meta.redirected = true;
        }
        let Some(job) = self.admit_out(step, job, &packet, hop.port) else { return };
        let mss = self.mss(step, &job.frame, &packet, hop.port, (hop.mtu, hop.mss));
        let stage = Stage { again, caps: port.caps, next: ObjectId::NO_ROUTE, mss, tunnel: PortId::NONE };
        let same_family = hop.gateway.is_none_or(|g| Family::of(&g) == packet.family);
        let next = if same_family {
            self.carry_out(step, &Native(hop), job, packet, stage)
        } else {
            self.carry_out(step, &ViaInet6(hop), job, packet, stage)
        };
        if let Next::Object(job, ..) = next {
            // Neither forwarder ever says Continue.
            self.discard(step, job.frame, DropReason::NextHopUnusable);
        }
    }

    /// Lets a forwarder decide, does what every forwarded packet needs (TTL, offloads that `caps` lacks), and lets it
    /// apply. `stage` says what surrounds it.
    fn carry_out(
        &mut self,
        step: &mut Step<'_>,
        forwarder: &(impl Forwarder + ?Sized),
        job: Job,
        packet: Packet,
        stage: Stage,
    ) -> Next {
        let Stage { again, caps, next, mss, tunnel } = stage;
        let takes_ttl = !is_own(&job.frame) && !job.frame.meta.ttl_taken;
        if takes_ttl && let Err(reason) = leaving(&packet) {
            self.refuse(step, job.frame, &packet, reason, 0);
            return Next::Done;
        }
        self.ident = self.ident.wrapping_add(1);
        let cx = Context { now: step.now, tables: step.tables, next, rehearsal: O::REHEARSAL, ident: self.ident };
        let verdict = match forwarder.decide(&cx, &packet, job.frame.data()) {
            Verdict::Consult { port, mtu } if job.frame.meta.admitted => Verdict::Again { port, mtu },
            // A question to find out what fits into a tunnel; what carries the tunnel decides for itself.
            Verdict::TooBig { .. } if job.frame.meta.beyond_mtu && next != ObjectId::NO_ROUTE => {
                Verdict::Continue(next)
            }
            other => other,
        };
        self.note(&job.frame, || Seen::Decided { by: forwarder.name(), verdict });
        let mut caps = caps;
        match verdict {
            Verdict::Transmit(_) | Verdict::Continue(_) => {}
            Verdict::Again { .. } | Verdict::Consult { .. } if job.depth >= step.tables.settings.max_tunnel_nesting => {
                self.discard(step, job.frame, DropReason::TunnelNesting);
                return Next::Done;
            }
            // Checksums and super-frames pass: their metadata is translated, too.
            Verdict::Again { mtu: None, .. } if matches!(packet.proto, protocol::TCP | protocol::UDP) => {
                caps = PortCaps {
                    partial_checksum: true,
                    tso: packet.len <= LONGEST_V4,
                    uso: packet.len <= LONGEST_V4,
                    tunnels: false,
                };
            }
            Verdict::Again { .. } => {}
            Verdict::Consult { port, .. } => {
                self.punt(step, job.frame, PuntReason::Translate { port, packet, depth: job.depth });
                return Next::Done;
            }
            Verdict::TooBig { mtu } => {
                self.too_big(step, job, &packet, again, mtu);
                return Next::Done;
            }
            Verdict::Resolve { port, neighbor } => {
                self.resolve(step, job, packet, port, neighbor, 0);
                return Next::Done;
            }
            Verdict::Deliver => {
                self.deliver(step, job, packet);
                return Next::Done;
            }
            Verdict::Drop(reason) => {
                self.refuse(step, job.frame, &packet, reason, 0);
                return Next::Done;
            }
        }
        // Checksums and segments that the next port cannot do are done now, on the still unedited packet.
        let Job { mut frame, depth, .. } = job;
        if let Some(most) = mss {
            self.clamp(&mut frame, &packet, most);
        }
        if frame.meta.csum.is_some() || frame.meta.gso.is_some() {
            let cut = Pieces { start: again, depth };
            match self.prepare(step, frame, &caps) {
                None => return Next::Done,
                Some(f) => frame = f,
            }
            if !self.pieces.is_empty() {
                // What an explanation shows, and what records its way, is each segment's own.
                let plain = packet.family == Family::Inet6 || usize::from(packet.l4) == ipv4::MIN_HEADER;
                let Verdict::Transmit(port) = verdict else {
                    self.requeue(frame, cut);
                    return Next::Done;
                };
                if O::REHEARSAL || !plain {
                    self.requeue(frame, cut);
                    return Next::Done;
                }
                self.transmit_pieces(step, forwarder, &cx, (frame, packet), takes_ttl, port);
                return Next::Done;
            }
        }
        if takes_ttl {
            frame.meta.ttl_taken = true;
            // The parse has seen a whole header and `leaving` a TTL above one: neither can fail.
            let _ = checksum::age(packet.family, frame.data_mut());
            self.note(&frame, || Seen::Aged);
            // A translated packet has no options; it is another router's that leaves.
            if has_options(&packet)
                && let Some(egress) = match verdict {
                    Verdict::Transmit(port) => Some(port),
                    Verdict::Continue(_) => Some(tunnel),
                    _ => None,
                }
            {
                record(step, &packet, &mut frame, egress);
            }
        }
        if let Err(reason) = forwarder.apply(&cx, &packet, &mut frame) {
            self.discard(step, frame, reason);
            return Next::Done;
        }
        match verdict {
            Verdict::Continue(next) => match self.parse_again(step, frame) {
                Some((frame, packet)) => Next::Object(Job { frame, start: Start::Object(next), depth }, packet, next),
                None => Next::Done,
            },
            Verdict::Transmit(port) => {
                self.transmit(step, port, frame);
                Next::Done
            }
            Verdict::Again { port, mtu } => {
                self.go_round(step, frame, &packet, port, mtu, depth + 1);
                Next::Done
            }
            _ => Next::Done,
        }
    }

    /// A packet that has become another one, which goes round again as received from `port`. `was` is what it was.
    fn go_round(
        &mut self,
        step: &mut Step<'_>,
        mut frame: Frame,
        was: &Packet,
        port: PortId,
        mtu: Option<u32>,
        depth: u8,
    ) {
        frame.meta.port = port;
        (frame.meta.admitted, frame.meta.joined) = (false, false);
        frame.meta.source_route = 0;
        (frame.meta.passed_in, frame.meta.passed_out) = (false, false);
        if let Some(c) = self.counters.port(port) {
            c.tx_packets.add(1);
            c.tx_bytes.add(u64::from(was.len));
            c.rx_packets.add(1);
            c.rx_bytes.add(frame.len() as u64);
        }
        let start = Start::Input { link: None };
        match mtu.filter(|mtu| frame.len() > *mtu as usize) {
            None => {
                self.note(&frame, || Seen::Caused { what: Cause::Translated, front: true });
                self.jobs.push_front(Job { frame, start, depth });
            }
            Some(mtu) => {
                let mut pieces = std::mem::take(&mut self.pieces);
                let ident = u32::from(self.ident);
                match fragment::fragment_ipv6(frame, mtu, ident, &mut step.out.pool, &mut pieces) {
                    Ok(n) => {
                        self.counters.originated.add(n as u64 - 1);
                        self.enqueue(&mut pieces, Pieces { start, depth }, Cause::Fragment);
                    }
                    Err((frame, error)) => self.discard(step, frame, error.into()),
                }
                self.pieces = pieces;
            }
        }
    }

    /// Completes checksums and cuts super-frames that `caps` cannot take. Returns the first piece, and leaves any others in
    /// `self.pieces`, in order.
    pub(super) fn prepare(&mut self, step: &mut Step<'_>, frame: Frame, caps: &PortCaps) -> Option<Frame> {
        debug_assert!(self.pieces.is_empty());
        match offload::prepare(frame, caps, &mut step.out.pool, &mut self.pieces) {
            Err((frame, reason)) => {
                self.discard(step, frame, reason);
                None
            }
            Ok(n) => {
                self.counters.originated.add(n as u64 - 1);
                Some(self.pieces.remove(0))
            }
        }
    }

    /// The same for a packet that came in.
    pub(super) fn requeue_input(&mut self, first: Frame, depth: u8) {
        self.requeue(first, Pieces { start: Start::Input { link: None }, depth });
    }

    /// Puts the first piece of a packet, and the others, at the head of the job list.
    fn requeue(&mut self, first: Frame, cut: Pieces) {
        if self.pieces.is_empty() {
            self.note(&first, || Seen::Caused { what: Cause::Again, front: true });
            self.jobs.push_front(Job { frame: first, start: cut.start, depth: cut.depth });
            return;
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.insert(0, first);
        self.enqueue(&mut pieces, cut, Cause::Segment);
        self.pieces = pieces;
    }

    /// Applies what was decided for a super-frame to each of its segments. Nothing in the decision depends on which one it
    /// is: its MTU was that of the largest.
    fn transmit_pieces(
        &mut self,
        step: &mut Step<'_>,
        forwarder: &(impl Forwarder + ?Sized),
        cx: &Context<'_>,
        (first, packet): (Frame, Packet),
        takes_ttl: bool,
        port: PortId,
    ) {
        let mut pieces = std::mem::take(&mut self.pieces);
        self.note(&first, || Seen::Caused { what: Cause::Segment(pieces.len() + 1), front: true });
        for mut frame in std::iter::once(first).chain(pieces.drain(..)) {
            let len = frame.len() as u32;
            let packet = Packet { len, wire_len: len, ..packet };
            if takes_ttl {
                frame.meta.ttl_taken = true;
                let _ = checksum::age(packet.family, frame.data_mut());
            }
            match forwarder.apply(cx, &packet, &mut frame) {
                Ok(()) => self.transmit(step, port, frame),
                Err(reason) => self.discard(step, frame, reason),
            }
        }
        self.pieces = pieces;
    }

    /// Puts pieces of a packet at the head of the job list, in order.
    fn enqueue(&mut self, pieces: &mut Vec<Frame>, cut: Pieces, cause: fn(usize) -> Cause<'static>) {
        let Pieces { start, depth } = cut;
        let all = pieces.len();
        while let Some(frame) = pieces.pop() {
            self.note(&frame, || Seen::Caused { what: cause(all), front: true });
            self.jobs.push_front(Job { frame, start, depth });
        }
    }

    /// A packet longer than the next MTU: fragment it (IPv4 without DF), or refuse it with the true MTU.
    fn too_big(&mut self, step: &mut Step<'_>, job: Job, packet: &Packet, again: Start, mtu: u32) {
        // As its source we may fragment an IPv6 packet (RFC 8200 5); an outer packet with DF set is final.
        let source_v6 = packet.family == Family::Inet6 && is_own(&job.frame);
        if packet.df && !source_v6 {
            return self.refuse(step, job.frame, packet, DropReason::TooBig, mtu);
        }
        let Job { frame, depth, .. } = job;
        let cut = Pieces { start: again, depth };
        if frame.meta.gso.is_some() || frame.meta.csum.is_some() {
            // The checksum covers the whole datagram: it must be right before the datagram is cut.
            let Some(frame) = self.prepare(step, frame, &PortCaps::default()) else { return };
            return self.requeue(frame, cut);
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let pool = &mut step.out.pool;
        let done = if source_v6 {
            self.ident = self.ident.wrapping_add(1);
            let ident = (self.flow_seed as u32) ^ (u32::from(self.ident) << 8);
            fragment::fragment_ipv6(frame, mtu, ident, pool, &mut pieces)
        } else {
            fragment::fragment_ipv4(frame, mtu, pool, &mut pieces)
        };
        match done {
            Ok(n) => {
                self.counters.originated.add(n as u64 - 1);
                self.enqueue(&mut pieces, cut, Cause::Fragment);
            }
            Err((frame, error)) => self.discard(step, frame, error.into()),
        }
        self.pieces = pieces;
    }

    /// The neighbour's link-layer address is not known: the control thread asks for it and holds the packet meanwhile.
    fn resolve(&mut self, step: &mut Step<'_>, job: Job, packet: Packet, port: PortId, neighbor: IpAddr, mss: u16) {
        let frame = job.frame;
        let own = is_own(&frame);
        if !own
            && !frame.meta.ttl_taken
            && let Err(reason) = leaving(&packet)
        {
            return self.refuse(step, frame, &packet, reason, 0);
        }
        let mtu = step.tables.ports.get(port).map_or(0, |p| p.mtu);
        if packet.wire_len > mtu && packet.df && !own {
            return self.refuse(step, frame, &packet, DropReason::TooBig, mtu);
        }
        let Some(Job { mut frame, .. }) = self.admit_out(step, Job::new(frame, job.start), &packet, port) else {
            return;
        };
        // Once the neighbour is known, nobody asks for the route again.
        if mss > 0 {
            self.clamp(&mut frame, &packet, mss);
        }
        // Super-frames wait as they are; only a pending checksum of our own making cannot occur here.
        frame.meta.vlan_tci = None;
        self.punt(step, frame, PuntReason::Resolve { port, neighbor });
    }

    /// A packet of ours to a host on a given link.
    pub(super) fn send_on_link(&mut self, step: &mut Step<'_>, frame: Frame, packet: &Packet, port: PortId) {
        let job = Job::new(frame, Start::Link(port));
        let Some(info) = step.tables.ports.get(port) else {
            return self.discard(step, job.frame, DropReason::PortGone);
        };
        if info.medium == Medium::Ip {
            if info.kind == crate::port::PortKind::Tunnel {
                // Through the tunnel's own object. A lookup would not do: every link has the same link-local prefix.
                match step.tables.gates.get(port).and_then(|g| g.object) {
                    Some(id) => {
                        self.note(&job.frame, || Seen::Caused { what: Cause::Again, front: true });
                        self.jobs.push_front(Job { start: Start::Object(id), ..job });
                    }
                    None => self.discard(step, job.frame, DropReason::NextHopUnusable),
                }
                return;
            }
            let hop = Forward {
                port,
                mtu: info.mtu,
                mss: 0,
                gateway: None,
                rewrite: Rewrite::NONE,
                used: Default::default(),
            };
            return self.forward_to(step, job, *packet, Start::Link(port), &hop);
        }
        let known = step.tables.routing.adjacencies.get(port, &packet.dst);
        self.note(&job.frame, || Seen::OnLink { port, neighbor: packet.dst, known: known.is_some() });
        match known {
            Some(hop) => self.forward_to(step, job, *packet, Start::Link(port), hop),
            None => self.punt(step, job.frame, PuntReason::Resolve { port, neighbor: packet.dst }),
        }
    }

    /// Hands a finished frame to its egress port.
    pub(crate) fn transmit(&mut self, step: &mut Step<'_>, port: PortId, frame: Frame) {
        let Some(queue) = step.out.tx.get_mut(port.index()) else {
            return self.discard(step, frame, DropReason::PortGone);
        };
        self.note(&frame, || Seen::Transmit(port));
        self.counters.transmitted.add(1);
        if let Some(c) = self.counters.port(port) {
            c.tx_packets.add(1);
            c.tx_bytes.add(frame.len() as u64);
        }
        queue.push(frame);
    }
}

/// Whether the router made this packet itself: no TTL is taken from it and no ICMP error tells about it.
pub(super) fn is_own(frame: &Frame) -> bool {
    frame.meta.port == PortId::NONE
}

/// Milliseconds of the router's own clock.
pub(super) fn millis(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

/// Writes into IPv4 options that record the way (RFC 1812 5.3.13.5 and 5.3.13.6): the address of the egress port, else
/// another of ours in that VRF, else the one that stands for all routers without.
#[cold]
fn record(step: &Step<'_>, packet: &Packet, frame: &mut Frame, egress: PortId) {
    let ports = &step.tables.ports;
    let v4 = |p: &Arc<PortInfo>| match p.global_addr(Family::Inet) {
        Some(IpAddr::V4(a)) => Some(a),
        _ => None,
    };
    let settings = &step.tables.settings;
    let port = ports.get(egress);
    let other = || ports.first_with(port.map_or(TableId::MAIN, |p| domain_of(p.table)), Family::Inet).and_then(v4);
    let own = port.and_then(v4).or(settings.router_id).or_else(other);
    let dummy = match settings.icmp.dummy_source {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => return,
    };
    let owns = |a| ports.owners(IpAddr::V4(a)).next().is_some();
    let routed = std::mem::take(&mut frame.meta.source_route) != 0;
    let obeyed = |kind| settings.ipv4_options.action(kind) == OptionAction::Process;
    let (records, stamps) = (obeyed(ipv4_options::RECORD_ROUTE), obeyed(ipv4_options::TIMESTAMP));
    if let Some(header) = frame.data_mut().get_mut(..usize::from(packet.l4)) {
        let (addr, millis) = (own.unwrap_or(dummy), millis(step.now));
        ipv4_options::stamp(header, Stamp { addr, millis, routed, records, stamps }, owns);
    }
}

/// What every packet that leaves its link must pass: scope and TTL (RFC 1812 5.3.1, RFC 8200 3).
#[inline]
fn leaving(packet: &Packet) -> Result<(), DropReason> {
    martian::check_forward(packet)?;
    if packet.ttl <= 1 { Err(DropReason::TtlExpired) } else { Ok(()) }
}
