//! Forwarding: decide, then apply.
//!
//! A forwarder is one way of forwarding. It decides without touching the packet, so that an ICMP error can still quote
//! the original bytes; the pipeline then lets it carry out what it decided.

pub mod discard;
pub mod local;
pub mod native;
pub mod translate;
pub mod via_inet6;

use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::object::ObjectId;
use crate::packet::Packet;
use crate::port::PortId;
use crate::tables::Tables;
use crate::time::Instant;
use std::fmt;

/// What a forwarder decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply, then hand to this port.
    Transmit(PortId),
    /// Apply, then go on with this object: a tunnel's carrier, what stands behind a plug-in.
    Continue(ObjectId),
    /// Apply, then the packet goes round again as received from this port: a translated one, by the routes of its new
    /// family. One round counts like a tunnel.
    Again {
        /// The port that it comes from now.
        port: PortId,
        /// Cut the resulting IPv6 packet into fragments of at most so many bytes.
        mtu: Option<u32>,
    },
    /// As [`Verdict::Again`], once the control side has agreed (a session has to be made, or fragments put together).
    Consult {
        /// The port that it comes from then.
        port: PortId,
        /// As in [`Verdict::Again`].
        mtu: Option<u32>,
    },
    /// Too long for what comes next: fragment or answer, by family and DF. In bytes, as seen by this packet.
    TooBig {
        /// The largest packet that would have passed.
        mtu: u32,
    },
    /// Needs the neighbour's link-layer address first: to the control thread.
    Resolve {
        /// The link.
        port: PortId,
        /// The neighbour.
        neighbor: std::net::IpAddr,
    },
    /// For the router itself.
    Deliver,
    /// Drop, and answer as the reason demands.
    Drop(DropReason),
}

/// What a forwarder may look at while deciding.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The present time.
    pub now: Instant,
    /// The tables in force for this batch.
    pub tables: &'a Tables,
    /// For a plugged-in forwarder: what the route's next hops resolved to, to go on with ([`Verdict::Continue`]).
    pub next: ObjectId,
    /// The packet is only an example ([`crate::explain`]): decide and apply as ever, but leave all state as it is.
    pub rehearsal: bool,
    /// Identification for an IPv4 packet that is made here; another one for each packet of a worker.
    pub ident: u16,
}

/// One way of forwarding.
///
/// `decide` must not depend on anything but its arguments and its own state; `apply` is called at most once, right after
/// a `decide` that said [`Verdict::Transmit`], [`Verdict::Continue`] or, perhaps after a while, [`Verdict::Again`]. Neither
/// may change its state in a [`Context::rehearsal`].
pub trait Forwarder: Send + Sync + fmt::Debug {
    /// Its name, as in a route's `forwarder NAME`.
    fn name(&self) -> &str;

    /// Decides what becomes of `packet`, whose bytes are `bytes`.
    fn decide(&self, cx: &Context<'_>, packet: &Packet, bytes: &[u8]) -> Verdict;

    /// Edits the frame as decided. The frame's data starts at the IP header before, and at the first byte for the port
    /// (or the outer IP header) after. Metadata about offloads must be kept true.
    fn apply(&self, cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason>;
}
