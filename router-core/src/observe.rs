//! Watching the pipeline at work: what a worker tells about each packet that somebody follows.
//!
//! A [`crate::worker::Worker`] has an observer as its type parameter. The usual one is [`Silent`]: every call to it is
//! compiled away. [`crate::explain`] records everything about one packet, [`crate::trace`] some of it about chosen ones.

use crate::addr::{Family, MacAddr};
use crate::drop_reason::DropReason;
use crate::filter::{Judged, RuleTable, Urpf};
use crate::forward::Verdict;
use crate::forward::local::Local;
use crate::frame::Frame;
use crate::icmp::IcmpError;
use crate::object::{Object, ObjectId};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::time::Instant;
use std::net::IpAddr;

/// Who watches a worker.
///
/// Work that a packet causes is done right after it, so everything between [`Observer::begin`] and [`Observer::end`] is
/// about one received frame and what came of it. Watched packets take the general path, at their place in the order.
pub trait Observer {
    /// False: nothing is ever told, and all calls vanish.
    const ON: bool;
    /// The packet is only an example: nothing may change that outlives it, such as the marks of used adjacencies.
    const REHEARSAL: bool = false;

    /// A batch has come in, link headers in front.
    fn received(&mut self, _now: Instant, _port: PortId, _batch: &[Frame]) {}

    /// Whether every step of this frame is to be told. Others may go by without any further call.
    fn follows(&mut self, _port: PortId, _frame: &Frame) -> bool {
        false
    }

    /// Whether packets that enter or leave tunnels are to be told, whoever they are.
    fn follows_tunnels(&self) -> bool {
        false
    }

    /// The general path takes up a frame.
    fn begin(&mut self, _now: Instant, _port: PortId, _frame: &Frame) {}

    /// Something happened to the frame at hand, whose bytes are `frame` now.
    fn note(&mut self, _stage: Stage<'_>, _frame: &Frame) {}

    /// The general path is done with the frame and all that it caused.
    fn end(&mut self) {}
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    const ON: bool = false;
}

/// Something that happened to a packet.
#[derive(Clone, Copy, Debug)]
pub enum Stage<'a> {
    /// Work begins on a packet: the received one, or one that an earlier [`Stage::Caused`] announced, in the order of
    /// the list that those put it on.
    Job,
    /// The link header was read and taken off.
    Link {
        /// The sender.
        src: MacAddr,
        /// It was sent to a group.
        group: bool,
    },
    /// The IP header was parsed and is sound.
    Parsed(&'a Packet),
    /// Both addresses may be on a wire, and the destination is one to look up.
    Addresses,
    /// A rule said where to look ([`crate::policy`]).
    Rule {
        /// Of this family's rules.
        family: Family,
        /// The rule, by its place in the list.
        index: usize,
    },
    /// Longest prefix match.
    Lookup {
        /// In this table.
        table: TableId,
        /// For this destination.
        dst: IpAddr,
        /// The answer.
        object: ObjectId,
    },
    /// The packet is at a forwarding object.
    Object(ObjectId, &'a Object),
    /// A group's member was picked.
    Member {
        /// The flow hash.
        hash: u32,
        /// The picked bucket.
        bucket: usize,
        /// Its object.
        member: ObjectId,
    },
    /// The source was looked at: it gets this object.
    Source(ObjectId),
    /// The destination is a host on this link.
    OnLink {
        /// The link.
        port: PortId,
        /// Whose link-layer address is needed.
        neighbor: IpAddr,
        /// Whether it is known.
        known: bool,
    },
    /// A forwarder made up its mind.
    Decided {
        /// Its name.
        by: &'a str,
        /// What it decided.
        verdict: Verdict,
    },
    /// A filter has judged it.
    Filtered {
        /// The port, of ingress or egress.
        port: PortId,
        /// On which way.
        direction: Direction,
        /// The filter.
        table: &'a RuleTable,
        /// What it said.
        judged: Judged,
    },
    /// The way back to its source was looked at.
    SourceChecked {
        /// The port where it came in.
        port: PortId,
        /// How.
        check: Urpf,
        /// Whether it may come from there.
        allowed: bool,
    },
    /// The segment size that a TCP SYN tells was lowered.
    Clamped {
        /// What it told.
        from: u16,
        /// What it tells now.
        to: u16,
    },
    /// One was taken from the TTL or hop limit.
    Aged,
    /// An outer header was put in front.
    Encapsulated(PortId),
    /// An outer header was taken off: as received from this tunnel.
    Decapsulated(PortId),
    /// For the router itself.
    Local(Local),
    /// More work was put on the list.
    Caused {
        /// What it is.
        what: Cause<'a>,
        /// At the head of the list, not at its end.
        front: bool,
    },
    /// An ICMP error that the rules ask for does not go out.
    ErrorWithheld {
        /// Which.
        error: &'a IcmpError,
        /// Why not.
        why: Withheld,
    },
    /// Handed to its egress port, complete.
    Transmit(PortId),
    /// Given to the control thread.
    Punt(Punted),
    /// Dropped.
    Drop(DropReason),
}

/// Which way a filtered packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// In by the port.
    In,
    /// Out by the port.
    Out,
    /// To the router itself.
    Local,
}

/// Work that a packet causes.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// The same packet once more: after its checksum was completed, or by the route of a link.
    Again,
    /// What was inside of it.
    Inner,
    /// The same packet in the other family.
    Translated,
    /// One of this many fragments.
    Fragment(usize),
    /// One of this many segments of a super-frame.
    Segment(usize),
    /// An ICMP error about it.
    Error(&'a IcmpError),
    /// A redirect that tells its sender of a better first hop; the packet itself goes on.
    Redirect,
    /// The echo reply to it.
    EchoReply,
    /// The TCP reset that answers it.
    Reset,
}

/// Why an ICMP error does not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The rate limit is reached.
    RateLimit,
    /// No address to send it from.
    NoSource,
    /// No free frame, or one too small.
    NoFrame,
}

/// Why the control thread gets a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punted {
    /// ARP.
    Arp,
    /// Neighbour discovery.
    Ndp,
    /// A host that asks for IPv4 routers.
    RouterSolicit,
    /// It waits for the link-layer address of a neighbour.
    Resolve {
        /// The link.
        port: PortId,
        /// Whom to ask for.
        neighbor: IpAddr,
    },
    /// A fragment for the router.
    Reassemble,
    /// An ICMP error for the router.
    IcmpError,
    /// An echo reply out of a tunnel whose peer is asked whether it lives.
    EchoReply,
    /// The translator behind this port makes or changes a session first, or waits for the rest of a fragment.
    Translate(PortId),
}
