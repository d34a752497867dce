//! The fast path: plain packets between plain ports and through tunnels, a whole batch at a time.
//!
//! 1. [`survey`] looks at every header and sorts out what is unusual;
//! 2. all IPv4 destinations are looked up, packets for us that come out of a tunnel are found ([`tunnel`]), then all IPv6
//!    destinations, theirs included; tunnels in IPv6 come last, and what was in them is looked up in a third go; where there
//!    are rules ([`rules`]), they say which table counts;
//! 3. [`send`] finds every packet's object, then edits every packet in its frame;
//! 4. frames go to their egress queues in the order of arrival.
//!
//! What is unusual in any way (options, extension headers that routers process, offload metadata, unresolved neighbours,
//! plug-ins, errors, packets to the router) takes the general path unchanged, at its place in the order, so that flows are
//! never reordered. The fast path decides nothing that the general path would decide differently: a property test holds
//! them together.
//!
//! | checked here | else |
//! |---|---|
//! | for our link-layer address, untagged, or a bare IP packet | general path |
//! | IPv4: version, length, no options, checksum (RFC 1812 5.2.2) | general path |
//! | IPv6: version, length, no hop-by-hop options (RFC 8200) | general path |
//! | TTL above one; neither address special (RFC 1812 5.3.7, RFC 6890, RFC 4291) | general path |
//! | the port's filter and its check of sources let it pass or drop it in silence; so does the filter of the way out, which lets it pass | general path |
//! | the object is a resolved adjacency (of a gateway or of the destination), or a tunnel over one; its port up, the packet within its MTU | general path |
//! | out of a tunnel: whole packet, known peer, an inner packet as above | general path |

mod guard;
mod known;
mod outers;
mod rules;
mod send;
mod survey;
mod tunnel;

pub(super) use send::Sent;

use crate::addr::Family;
use crate::fib::{Fib, Lookup};
use crate::filter::PortFlags;
use crate::frame::Frame;
use crate::object::{Object, ObjectId};
use crate::observe::Observer;
use crate::port::{PortId, PortInfo, TableId};
use crate::tables::Tables;
use crate::time::Instant;
use crate::worker::{MAX_BATCH, Outbox, Worker};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the survey found about one frame.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// None: unusual, the general path's.
    family: Option<Family>,
    /// Out of a tunnel: the second byte of the inner header, with the ECN marks of both headers. Without family: why the
    /// packet is dropped, if it is ([`Passes::refusal`]).
    second: u8,
    /// Where in the list of its family the destination is.
    at: u16,
    /// Bytes before the IP header that counts.
    l2: u8,
    /// What is still to be asked of a packet out of a tunnel: [`SYN`], [`RATED`].
    asks: u8,
    /// Out of a tunnel: bytes that the outer packet carries.
    carried: u16,
    /// Of the IP packet, header included.
    len: u32,
    /// Out of which tunnel it came; [`PortId::NONE`]: out of none.
    tunnel: PortId,
}

/// The packet may be a TCP SYN, as far as the kind of what it carries tells.
const SYN: u8 = 1;
/// The tunnel takes so many packets a second: asked last, as it counts those that are taken.
const RATED: u8 = 2;

impl Lane {
    const GENERAL: Lane =
        Lane { family: None, second: 0, at: 0, l2: 0, asks: 0, carried: 0, len: 0, tunnel: PortId::NONE };
}

/// What the passes over a batch leave for each other.
pub(super) struct Passes {
    lanes: Vec<Lane>,
    /// Destinations by family, and what the lookup says. The ids beyond the destinations are of earlier batches.
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    ids4: Vec<ObjectId>,
    ids6: Vec<ObjectId>,
    /// Packets that may come out of a tunnel in IPv4, and in IPv6.
    tunneled4: Vec<u16>,
    tunneled6: Vec<u16>,
    /// Packets to our end of a tunnel in IPv6 that this batch has shown, which come out of another one, or of none. Their lanes
    /// say for now where the outer packet is.
    ours6: Vec<u16>,
    /// Out of which tunnel each of them comes; [`PortId::NONE`]: out of none.
    peers: Vec<PortId>,
    /// The tables of those tunnels, and whether sources are checked; None: the general path knows what to do.
    inner: Vec<Option<(TableId, bool)>>,
    /// Places in `ids4` or `ids6` of packets whose tunnel belongs to another table than the port.
    elsewhere: Vec<(u16, Family, TableId)>,
    /// Where each frame goes; [`PortId::NONE`]: to the general path.
    egress: Vec<PortId>,
    /// The port of all frames together, their number and bytes; [`PortId::NONE`] when they do not have one.
    all: Sent,
}

impl Passes {
    /// Room for a whole batch.
    pub(super) fn new() -> Self {
        Passes {
            lanes: Vec::with_capacity(MAX_BATCH),
            // Packets out of tunnels have two destinations.
            v4: Vec::with_capacity(2 * MAX_BATCH),
            v6: Vec::with_capacity(2 * MAX_BATCH),
            ids4: vec![ObjectId::NO_ROUTE; 2 * MAX_BATCH],
            ids6: vec![ObjectId::NO_ROUTE; 2 * MAX_BATCH],
            tunneled4: Vec::with_capacity(MAX_BATCH),
            tunneled6: Vec::with_capacity(MAX_BATCH),
            ours6: Vec::with_capacity(MAX_BATCH),
            peers: Vec::with_capacity(MAX_BATCH),
            inner: Vec::with_capacity(MAX_BATCH),
            elsewhere: Vec::with_capacity(MAX_BATCH),
            egress: Vec::with_capacity(MAX_BATCH),
            all: Sent::default(),
        }
    }

    /// Where frame number `at` of the batch goes; None: to the general path.
    #[inline]
    pub(super) fn egress(&self, at: usize) -> Option<PortId> {
        self.egress.get(at).copied().filter(|p| *p != PortId::NONE)
    }

    /// What the lookup says about a lane's destination.
    #[inline]
    fn id(&self, lane: &Lane) -> Option<ObjectId> {
        let at = usize::from(lane.at);
        match lane.family? {
            Family::Inet => self.ids4.get(at).copied(),
            Family::Inet6 => self.ids6.get(at).copied(),
        }
    }

    /// Second pass. Ids are valid with the snapshot in hand only.
    fn look_up(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let fib = tables.routing.fibs.get(port.table).map(|f| &**f);
        let outers4 = self.v4.len();
        self.look_up_from(0, None, fib);
        if !self.tunneled4.is_empty() {
            self.leave_in_four(batch, port, tables);
        }
        let outers6 = self.v6.len();
        self.look_up_from(outers4, Some(0), fib);
        if !self.tunneled6.is_empty() {
            let done4 = self.v4.len();
            self.leave_in_six(batch, port, tables);
            self.look_up_from(done4, Some(outers6), fib);
        }
        for (at, family, table) in self.elsewhere.drain(..) {
            let at = usize::from(at);
            let fib = tables.routing.fibs.get(table);
            let (found, id) = match family {
                Family::Inet => (self.v4.get(at).and_then(|d| Some(fib?.lookup4(*d))), self.ids4.get_mut(at)),
                Family::Inet6 => (self.v6.get(at).and_then(|d| Some(fib?.lookup6(*d))), self.ids6.get_mut(at)),
            };
            if let Some(id) = id {
                *id = found.unwrap_or(ObjectId::NO_ROUTE);
            }
        }
        if let Some(policy) = &tables.policy {
            self.ask_rules(policy, batch, port, tables);
        }
    }

    /// Looks up the IPv4 destinations from this place on, and the IPv6 ones if a place is given.
    #[inline]
    fn look_up_from(&mut self, from4: usize, from6: Option<usize>, fib: Option<&Fib>) {
        if self.v4.len() > from4 {
            let ids = room(&mut self.ids4, from4, self.v4.len());
            match fib {
                Some(fib) => fib.lookup4_batch(&self.v4[from4..], ids),
                None => ids.fill(ObjectId::NO_ROUTE),
            }
        }
        if let Some(from6) = from6.filter(|f| self.v6.len() > *f) {
            let ids = room(&mut self.ids6, from6, self.v6.len());
            match fib {
                Some(fib) => fib.lookup6_batch(&self.v6[from6..], ids),
                None => ids.fill(ObjectId::NO_ROUTE),
            }
        }
    }
}

/// The places from `from` to `to` of a list that is hardly ever too short.
fn room(list: &mut Vec<ObjectId>, from: usize, to: usize) -> &mut [ObjectId] {
    if list.len() < to {
        list.resize(to, ObjectId::NO_ROUTE);
    }
    &mut list[from..to]
}

impl<O: Observer> Worker<O> {
    /// The first three passes over a batch received from `port`: afterwards [`Passes::egress`] says where each frame
    /// goes, and those that do not go to the general path are ready to be sent.
    #[inline]
    pub(super) fn pass(&mut self, now: Instant, batch: &mut [Frame], port: &PortInfo, tables: &Tables, out: &Outbox) {
        self.passes.survey(port, batch, tables);
        self.passes.look_up(batch, port, tables);
        if O::ON {
            self.leave_to_the_observer(batch, port, tables);
        }
        let flags = tables.ports.flags(port.id);
        if flags.has(PortFlags::JUDGE_IN) {
            // Whoever watches hears of every drop from the general path.
            self.passes.judge_in(batch, port, tables, self.counters.part(), !O::ON);
        }
        self.edit(now, batch, (port.id, flags), tables, out);
    }

    /// Sends what is watched through the general path, which tells of each step.
    fn leave_to_the_observer(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let tunnels = self.observer.follows_tunnels();
        for at in 0..self.passes.lanes.len() {
            let (Some(lane), Some(frame)) = (self.passes.lanes.get(at).copied(), batch.get(at)) else { continue };
            let object = || self.passes.id(&lane).and_then(|id| tables.routing.objects.get(id));
            let tunnel =
                || lane.tunnel != PortId::NONE || matches!(object(), Some(Object::Encap(_) | Object::Group(_)));
            if self.observer.follows(port.id, frame) || tunnels && tunnel() {
                self.passes.lanes[at] = Lane::GENERAL;
            }
        }
    }
}
