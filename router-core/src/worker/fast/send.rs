//! Third pass: what every packet's object says, and the edits.

use super::guard::{Carried, UNCLAMPED, carried, clamp, clamps, enters, may_be_syn, passes_out};
use super::tunnel::{limited, mark, overhead, wrap};
use super::{Lane, Passes, RATED, SYN};
use crate::addr::Family;
use crate::checksum::age;
use crate::counters::WorkerCounters;
use crate::filter::PortFlags;
use crate::flow;
use crate::frame::Frame;
use crate::next_hop::activity;
use crate::object::{Encap, Forward, Group, Object, ObjectId};
use crate::observe::Observer;
use crate::packet::Packet;
use crate::port::PortId;
use crate::tables::Tables;
use crate::time::Instant;
use crate::tunnel::Outer;
use crate::worker::tunnel::returns;
use crate::worker::{MAX_BATCH, Outbox, Worker};
use arrayvec::ArrayVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Packets whose objects are fetched before the first of them is edited, so that cache misses overlap.
const GROUP: usize = 64;

/// Objects that fit into the second-level cache, with their tunnels' counters.
const NEAR: usize = 1024;

/// Frames of one egress port that are counted together.
#[derive(Clone, Copy, Default)]
pub(in crate::worker) struct Sent {
    port: PortId,
    packets: u64,
    bytes: u64,
}

/// What picks members of groups.
struct Flows<'t> {
    seed: u64,
    /// This worker's, of what several write in parts of their own: a resilient group's stamps, counters of rules.
    part: usize,
    /// What to stamp with.
    tick: u32,
    /// Packets of the port may have their segment size lowered.
    clamps: bool,
    /// The largest segment size that the packet just looked at may tell; [`UNCLAMPED`] for all but some SYNs.
    mss: u16,
    /// Some tunnel judges or clamps by its own wish.
    tunnels: bool,
    /// How many tunnels one packet may go through.
    nesting: u8,
    now: Instant,
    /// Nothing of the batch has gone to the general path so far, which would ask and number what it sends later.
    straight: bool,
    /// What carries the last tunnel, and with it mostly the next ones.
    carrier: Option<Carrier<'t>>,
}

impl Flows<'_> {
    /// A packet goes to the general path. Out of line: nearly none does.
    #[cold]
    #[inline(never)]
    fn bend(&mut self) {
        self.straight = false;
    }
}

/// An adjacency that carries tunnels.
#[derive(Clone, Copy)]
struct Carrier<'t> {
    id: ObjectId,
    hop: &'t Forward,
    /// Of its port, which is up.
    flags: PortFlags,
    /// There are local ends from which nothing may be sent.
    barred: bool,
}

/// Where a packet goes.
#[derive(Clone, Copy)]
struct Target<'t> {
    hop: &'t Forward,
    /// Through this tunnel.
    encap: Option<&'t Encap>,
}

impl<O: Observer> Worker<O> {
    /// Edits every packet that the general path need not see. With the port that they came in by, and what its guard means.
    pub(super) fn edit(
        &mut self,
        now: Instant,
        batch: &mut [Frame],
        (ingress, flags): (PortId, PortFlags),
        tables: &Tables,
        out: &Outbox,
    ) {
        let clamps = flags.has(PortFlags::CLAMP);
        let (part, tick) = (self.part(), activity::tick(now));
        let (tunnels, nesting) = (tables.guards.tunnels, tables.settings.max_tunnel_nesting);
        let seed = self.flow_seed;
        let mut flows =
            Flows { seed, part, tick, clamps, mss: UNCLAMPED, tunnels, nesting, now, straight: true, carrier: None };
        let Worker { passes, counters, ident, .. } = self;
        passes.egress.clear();
        let (mut first, mut bytes, mut together) = (0, 0, PortId::NONE);
        let far = tables.routing.objects.places() > NEAR;
        let (mut into, mut out_of) = (Through::new(true, far), Through::new(false, far));
        // In a register: read back from memory it would be waited for, packet by packet.
        let mut last_ident = *ident;
        for group in batch.chunks_mut(GROUP) {
            let lanes = passes.lanes.get(first..first + group.len()).unwrap_or_default();
            let mut places = ArrayVec::new();
            if far {
                fetch(passes, lanes, tables, &mut places);
            }
            let mut targets: ArrayVec<Option<Target<'_>>, GROUP> = ArrayVec::new();
            for (i, (lane, frame)) in lanes.iter().zip(group.iter_mut()).enumerate() {
                let object = match far {
                    true => places.get(i).and_then(|place: &&Option<Object>| place.as_ref()),
                    false => passes.id(lane).and_then(|id| tables.routing.objects.get(id)),
                };
                let found = object
                    .and_then(|object| target(passes, lane, frame, object, ingress, tables, &mut flows, out.tx.len()));
                if flows.mss != UNCLAMPED {
                    clamp(frame, lane, std::mem::replace(&mut flows.mss, UNCLAMPED));
                }
                if found.is_none() {
                    flows.bend();
                }
                targets.push(found);
            }
            for ((lane, frame), target) in lanes.iter().zip(group).zip(targets.iter().copied()) {
                let (port, len) = match (target, lane.family) {
                    (Some(Target { hop, encap: None }), Some(family)) => {
                        if lane.tunnel != PortId::NONE {
                            out_of.count(counters, lane.tunnel, u32::from(lane.carried));
                            frame.meta.port = lane.tunnel;
                        }
                        (hop.port, rewrite(frame, lane, family, hop))
                    }
                    (Some(Target { hop, encap: Some(encap) }), Some(family)) => {
                        if lane.tunnel != PortId::NONE {
                            out_of.count(counters, lane.tunnel, u32::from(lane.carried));
                            leave_tunnel(frame, lane);
                        }
                        last_ident = last_ident.wrapping_add(1);
                        hop.touch();
                        into.count(counters, encap.tunnel, lane.len);
                        (hop.port, wrap(frame, lane, family, encap, hop, last_ident))
                    }
                    _ => (PortId::NONE, 0),
                };
                bytes += len as u64;
                if passes.egress.is_empty() {
                    together = port;
                }
                if together != port {
                    together = PortId::NONE;
                }
                passes.egress.push(port);
            }
            first += GROUP;
        }
        into.flush(counters);
        out_of.flush(counters);
        *ident = last_ident;
        passes.all = Sent { port: together, packets: passes.egress.len() as u64, bytes };
    }

    /// Fourth pass where all frames go out of one port, as they mostly do: the list becomes its queue, or is added to it.
    /// False: they do not, and nothing was done.
    #[inline]
    pub(in crate::worker) fn queue_all(&self, batch: &mut Vec<Frame>, out: &mut Outbox) -> bool {
        let mut all = self.passes.all;
        let Some(queue) = out.tx.get_mut(all.port.index()).filter(|_| all.port != PortId::NONE) else {
            return false;
        };
        // Neither list is to lose the room for a whole batch.
        match queue.is_empty() && queue.capacity() >= batch.capacity().min(MAX_BATCH) {
            true => std::mem::swap(queue, batch),
            false => queue.append(batch),
        }
        self.count_sent(&mut all);
        true
    }

    /// Adds what was sent since the last call to the counters.
    pub(in crate::worker) fn count_sent(&self, sent: &mut Sent) {
        if sent.packets > 0 {
            self.counters.transmitted.add(sent.packets);
            if let Some(c) = self.counters.port(sent.port) {
                c.tx_packets.add(sent.packets);
                c.tx_bytes.add(sent.bytes);
            }
            (sent.packets, sent.bytes) = (0, 0);
        }
    }

    /// Fourth pass, for one frame: into the queue of its port, which [`target`] has seen to be there.
    #[inline]
    pub(in crate::worker) fn queue(&self, frame: Frame, port: PortId, sent: &mut Sent, out: &mut Outbox) {
        if sent.port != port {
            self.count_sent(sent);
            sent.port = port;
        }
        sent.packets += 1;
        sent.bytes += frame.len() as u64;
        if let Some(queue) = out.tx.get_mut(port.index()) {
            queue.push(frame);
        }
    }
}

/// Finds the objects of many packets, and fetches what [`target`] and the edits need of them, in short passes, so that many
/// cache misses are under way at once. Counters have a pass of their own ([`Through`]).
fn fetch<'t>(passes: &Passes, lanes: &[Lane], tables: &'t Tables, places: &mut ArrayVec<&'t Option<Object>, GROUP>) {
    let objects = &tables.routing.objects;
    // What comes from far is read by loops of a few instructions, as no more loads are under way than there are in as many
    // instructions as the processor looks ahead.
    places
        .extend(lanes.iter().take(GROUP).map(|lane| passes.id(lane).and_then(|id| objects.place(id)).unwrap_or(&None)));
    let mut sum = places.iter().map(|place| u64::from(place.is_some())).sum::<u64>();
    let mut carrier = ObjectId::NO_ROUTE;
    for place in places.iter() {
        let Some(Object::Encap(encap)) = place else { continue };
        // What is not in the same line.
        if let Some(Outer::V6(outer)) = &encap.outer {
            sum += outer.added() as u64;
        }
        if carrier != encap.carrier {
            carrier = encap.carrier;
            if let Some(Object::Forward(hop)) = objects.get(carrier) {
                sum += u64::from(hop.mtu);
            }
        }
    }
    // The values do not matter; that they were loaded does.
    std::hint::black_box(sum);
}

/// Where a packet goes: straight, to a host on the link, or into a tunnel. None: to the general path. Nothing that is
/// checked here can fail later.
#[inline]
#[allow(clippy::too_many_arguments)]
fn target<'t>(
    passes: &Passes,
    lane: &Lane,
    frame: &Frame,
    object: &'t Object,
    ingress: PortId,
    tables: &'t Tables,
    flows: &mut Flows<'t>,
    queues: usize,
) -> Option<Target<'t>> {
    let mut object = object;
    if matches!(object, Object::Sources(_) | Object::Table(_)) {
        object = steer(lane, frame, object, tables)?;
    }
    if let Object::Group(group) = object {
        object = tables.routing.objects.get(member(frame, lane, group, flows)?)?;
    }
    let (hop, mss) = match object {
        Object::Forward(hop) => (hop, hop.mss),
        Object::Glean(glean) if glean.mtu == 0 || lane.len <= glean.mtu => {
            (tables.routing.adjacencies.get(glean.port, &destination(passes, lane)?)?, glean.mss)
        }
        Object::Encap(encap) => return into(encap, lane, frame, ingress, tables, flows, queues),
        _ => return None,
    };
    // Back by the port it came in: the sender may have to be told of a better way.
    if hop.port == ingress && lane.tunnel == PortId::NONE && tables.settings.icmp.redirects {
        return None;
    }
    let flags = tables.ports.flags_if_up(hop.port)?;
    let room = usize::from(lane.l2) + frame.headroom() >= hop.rewrite.len();
    // A port's MTU may be one more than the longest packet (Linux's loopback).
    if !(room && lane.len <= hop.mtu && hop.port.index() < queues) {
        return None;
    }
    // Last, because it counts. Of what comes out of tunnels, most wish for nothing but a look at SYNs.
    let plain = flags.is_empty() && !flows.clamps && mss == 0;
    if (!plain || lane.asks != 0) && !asked(plain, lane, frame, (hop, None, mss), ingress, tables, flows, flags) {
        return None;
    }
    Some(Target { hop, encap: None })
}

/// The same for a packet that enters a tunnel.
#[inline(always)]
fn into<'t>(
    encap: &'t Encap,
    lane: &Lane,
    frame: &Frame,
    ingress: PortId,
    tables: &'t Tables,
    flows: &mut Flows<'t>,
    queues: usize,
) -> Option<Target<'t>> {
    let family = lane.family?;
    // Back into the tunnel that it came out of: that is refused. So is one tunnel more than a packet may go through.
    if encap.tunnel == ingress || lane.tunnel != PortId::NONE && (lane.tunnel == encap.tunnel || flows.nesting < 2) {
        return None;
    }
    let carrier = match flows.carrier {
        Some(carrier) if carrier.id == encap.carrier => carrier,
        _ => {
            let Object::Forward(hop) = tables.routing.objects.get(encap.carrier)? else { return None };
            let flags =
                tables.ports.flags_if_up(hop.port).filter(|_| hop.port.index() < queues && flows.nesting > 0)?;
            let barred = tables.ports.any_barred();
            *flows.carrier.insert(Carrier { id: encap.carrier, hop, flags, barred })
        }
    };
    if carrier.barred && tables.ports.is_barred(&encap.facts.local) {
        return None;
    }
    let (hop, overhead) = (carrier.hop, overhead(encap, family)?);
    if !flows.straight && matches!(&encap.outer, Some(Outer::Long(long)) if long.is_numbered()) {
        return None;
    }
    let len = lane.len + overhead;
    let room = usize::from(lane.l2) + frame.headroom() >= hop.rewrite.len() + overhead as usize;
    if !(room && lane.len <= encap.mtu && len <= hop.mtu.min(u32::from(u16::MAX))) {
        return None;
    }
    let what = carried(family, lane, frame);
    // It may bring a limit of its own.
    if what == Carried::Extended && limited(lane, frame) {
        return None;
    }
    // Refused there, where it is so: IPv4 in IPv4 that goes round.
    if family == Family::Inet && goes_round(encap, lane, frame, ingress, tables) {
        return None;
    }
    // Last, because it counts.
    let plain = carrier.flags.is_empty() && !flows.clamps && encap.mss == 0 && !flows.tunnels;
    if lane.asks & RATED != 0 {
        let plain = plain && !may_be_syn(lane, frame);
        return (plain && within_rate(lane, tables, flows)).then_some(Target { hop, encap: Some(encap) });
    }
    if (!plain || what != Carried::Other && may_be_syn(lane, frame))
        && !guarded(lane, frame, (hop, Some(encap), encap.mss), ingress, tables, flows, carrier.flags)
    {
        return None;
    }
    Some(Target { hop, encap: Some(encap) })
}

/// See [`returns`]; also true where that cannot be told here.
#[inline]
fn goes_round(encap: &Encap, lane: &Lane, frame: &Frame, ingress: PortId, tables: &Tables) -> bool {
    let port = if lane.tunnel == PortId::NONE { ingress } else { lane.tunnel };
    let header = frame.data().get(usize::from(lane.l2)..).and_then(|d| d.first_chunk::<20>());
    header.is_none_or(|h| returns(tables, encap, port, Ipv4Addr::new(h[12], h[13], h[14], h[15])))
}

/// Whether a packet that [`target`] would send may go, of those about which more is to be asked. `plain`: only for what its lane
/// says.
#[inline(never)]
#[allow(clippy::too_many_arguments)]
fn asked(
    plain: bool,
    lane: &Lane,
    frame: &Frame,
    way: (&Forward, Option<&Encap>, u16),
    ingress: PortId,
    tables: &Tables,
    flows: &mut Flows<'_>,
    flags: PortFlags,
) -> bool {
    let plain = plain && !(lane.asks & SYN != 0 && may_be_syn(lane, frame));
    match lane.asks & RATED != 0 {
        // What counts is asked once: of two such things, the general path asks both.
        true => plain && within_rate(lane, tables, flows),
        false => plain || guarded(lane, frame, way, ingress, tables, flows, flags),
    }
}

/// Whether the tunnel that a packet came out of may take it, which is counted then. Where not, the general path is told the same and
/// drops it.
#[inline(never)]
fn within_rate(lane: &Lane, tables: &Tables, flows: &Flows<'_>) -> bool {
    let gate = tables.gates.get(lane.tunnel);
    flows.straight && gate.is_some_and(|gate| gate.is_within_rate(flows.now, gate.state()))
}

/// What guards of the ways out say to a packet that [`target`] would send: whether it may go, and in `flows` the segment
/// size that it may tell.
#[inline(never)]
fn guarded(
    lane: &Lane,
    frame: &Frame,
    (hop, encap, mss): (&Forward, Option<&Encap>, u16),
    ingress: PortId,
    tables: &Tables,
    flows: &mut Flows<'_>,
    flags: PortFlags,
) -> bool {
    let (passes, port, mtu) = match encap {
        None => (
            !flags.has(PortFlags::JUDGE_OUT) || passes_out(tables, hop.port, flows.part, lane, frame),
            hop.port,
            hop.mtu,
        ),
        // The outer packet is not there yet.
        Some(_) if flags.has(PortFlags::JUDGE_OUT) => return false,
        Some(encap) => (enters(tables, encap, flows.part, lane, frame), encap.tunnel, encap.mtu),
    };
    if passes {
        flows.mss = clamps(tables, ingress, port, (mtu, mss), lane, frame);
    }
    passes
}

/// The object that a packet gets whose first one is of its source, or of another table. None: to the general path.
#[cold]
fn steer<'t>(lane: &Lane, frame: &Frame, first: &'t Object, tables: &'t Tables) -> Option<&'t Object> {
    /// Tables that one packet is sent through here.
    const MOST: usize = 4;
    let l2 = usize::from(lane.l2);
    let packet = Packet::parse(lane.family?, frame.data().get(l2..l2 + lane.len as usize)?).ok()?;
    let mut object = first;
    for _ in 0..MOST {
        let id = match object {
            Object::Sources(sources) => sources.pick(&packet.src),
            Object::Table(table) => tables.lookup(*table, &packet.dst),
            found => return Some(found),
        };
        object = tables.routing.objects.get(id)?;
    }
    None
}

/// The member of a group that the packet's flow has.
fn member(frame: &Frame, lane: &Lane, group: &Group, flows: &Flows<'_>) -> Option<ObjectId> {
    let l2 = usize::from(lane.l2);
    let data = frame.data().get(l2..l2 + lane.len as usize)?;
    let packet = Packet::parse(lane.family?, data).ok()?;
    let bucket = group.bucket(flow::hash(&packet, data, flows.seed));
    if let Some(activity) = &group.activity {
        activity.touch(flows.part, bucket, flows.tick);
    }
    group.member(bucket)
}

fn destination(passes: &Passes, lane: &Lane) -> Option<IpAddr> {
    let at = usize::from(lane.at);
    match lane.family? {
        Family::Inet => passes.v4.get(at).copied().map(|a: Ipv4Addr| IpAddr::V4(a)),
        Family::Inet6 => passes.v6.get(at).copied().map(|a: Ipv6Addr| IpAddr::V6(a)),
    }
}

/// Packets that went through a tunnel one behind the other, which are counted together.
#[derive(Clone, Copy)]
struct Run {
    tunnel: PortId,
    packets: u32,
    bytes: u64,
}

impl Run {
    const NONE: Run = Run { tunnel: PortId::NONE, packets: 0, bytes: 0 };

    #[inline(always)]
    fn add(self, counters: &WorkerCounters, into: bool) {
        if let Some(c) = counters.port(self.tunnel) {
            let (packets, bytes) = if into { (&c.tx_packets, &c.tx_bytes) } else { (&c.rx_packets, &c.rx_bytes) };
            packets.add(u64::from(self.packets));
            bytes.add(self.bytes);
        }
    }
}

/// What went through tunnels one way. Where there are so many that most counters are in no near cache, runs that are over wait in a
/// list, and are added in a short pass.
struct Through {
    run: Run,
    over: ArrayVec<Run, GROUP>,
    far: bool,
    /// Into them.
    into: bool,
}

impl Through {
    #[inline(always)]
    fn new(into: bool, far: bool) -> Self {
        Through { run: Run::NONE, over: ArrayVec::new(), far, into }
    }

    #[inline(always)]
    fn count(&mut self, counters: &WorkerCounters, tunnel: PortId, bytes: u32) {
        if self.run.tunnel != tunnel {
            self.next(counters, tunnel);
        }
        self.run.packets += 1;
        self.run.bytes += u64::from(bytes);
    }

    #[inline]
    fn next(&mut self, counters: &WorkerCounters, tunnel: PortId) {
        let run = std::mem::replace(&mut self.run, Run { tunnel, ..Run::NONE });
        if !self.far {
            return run.add(counters, self.into);
        }
        if self.over.is_full() {
            self.add(counters);
        }
        self.over.push(run);
    }

    #[inline(never)]
    fn add(&mut self, counters: &WorkerCounters) {
        for run in self.over.drain(..) {
            run.add(counters, self.into);
        }
    }

    /// Adds all that there is.
    #[inline]
    fn flush(&mut self, counters: &WorkerCounters) {
        if self.run.packets > 0 {
            self.next(counters, PortId::NONE);
            self.add(counters);
        }
    }
}

/// For a packet out of a tunnel that goes into another one: combines the ECN marks. The outer header goes with the link
/// header.
#[inline(never)]
fn leave_tunnel(frame: &mut Frame, lane: &Lane) {
    if let (Some(family), Some(packet)) = (lane.family, frame.data_mut().get_mut(usize::from(lane.l2)..)) {
        mark(family, packet, lane);
    }
    frame.meta.port = lane.tunnel;
}

/// Takes one from the TTL, which the survey has seen to be above one, and exchanges what is in front for the link header.
/// Says how many bytes the frame has then.
#[inline]
fn rewrite(frame: &mut Frame, lane: &Lane, family: Family, hop: &Forward) -> usize {
    let link = hop.rewrite.len();
    let Some(data) = frame.exchange_front(usize::from(lane.l2), link, lane.len as usize) else { return 0 };
    hop.touch();
    let len = data.len();
    if let Some((head, packet)) = data.split_at_mut_checked(link) {
        hop.rewrite.write(family, head);
        if lane.tunnel != PortId::NONE {
            mark(family, packet, lane);
        }
        let _ = age(family, packet);
    }
    len
}
