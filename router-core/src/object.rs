//! Forwarding objects: what the FIB's answer points to. An object already says everything that the data plane must do.
//!
//! Objects are shared: all routes through one next hop point to one object, so a neighbour or link event changes one
//! object, not its routes (prefix-independent convergence).

use crate::addr::{Family, MacAddr};
use crate::counters::Traffic;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::next_hop::activity::Activity;
use crate::port::{PortId, TableId};
use crate::routing::EncapFacts;
use crate::tunnel::{Carries, Outer};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Index of a forwarding object in an [`crate::tables::ObjectTable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

impl ObjectId {
    /// The object that a table without a match answers with: discard as [`DropReason::NoRoute`].
    pub const NO_ROUTE: ObjectId = ObjectId(0);
}

/// A forwarding object. Each lies in one cache line, wherever it is in a list: with many tunnels or next hops, most packets find
/// theirs in no cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub enum Object {
    /// Drop for this reason (no route, blackhole, unreachable, prohibit, unusable next hop).
    Discard(DropReason),
    /// One of the router's own addresses.
    Local,
    /// A link's broadcast address: for the router, never forwarded.
    Broadcast,
    /// The destination is a host on this link: find its own adjacency in the neighbour map, else ask for it.
    Glean(Glean),
    /// A resolved adjacency, or a port without link layer: rewrite and send.
    Forward(Forward),
    /// A gateway whose link-layer address is not known (yet): give to the control thread.
    Incomplete(Incomplete),
    /// Wrap into an outer header and go on with the carrier.
    Encap(Encap),
    /// Pick a member by flow.
    Group(Group),
    /// A forwarder from outside the core, which may go on with `next`.
    Plugin(Plugin),
    /// Somebody wants to know how much goes this way: count, and go on.
    Counted(Counted),
    /// The source decides: the prefix has routes for some sources only.
    Sources(Sources),
    /// Look the destination up in another table: a route through the device of a VRF.
    Table(TableId),
}

const _: () = assert!(size_of::<Option<Object>>() == 64);

/// See [`Object::Sources`]: what the source of a packet decides, after its destination did (longest destination first, then
/// longest source).
#[derive(Clone, Debug)]
pub struct Sources {
    /// Sources and their objects, the first that contains the packet's counts: longest first for the longest destination
    /// prefix, then those of shorter ones.
    pub list: Arc<[(IpNet, ObjectId)]>,
    /// What all other sources get: the first of those prefixes that has a route for any; [`ObjectId::NO_ROUTE`] without one.
    pub otherwise: ObjectId,
    /// Lengths of the destination prefixes that the list's elements are of, and at the end that of `otherwise`.
    pub lengths: Arc<[u8]>,
}

impl Sources {
    /// The object for a source. It is never of this kind itself.
    #[inline]
    pub fn pick(&self, src: &IpAddr) -> ObjectId {
        self.list.iter().find(|(net, _)| net.contains(src)).map_or(self.otherwise, |(_, id)| *id)
    }

    /// The same, where destination prefixes no longer than `suppress` count as none.
    pub fn pick_longer(&self, src: &IpAddr, suppress: u8) -> ObjectId {
        let place = self.list.iter().position(|(net, _)| net.contains(src));
        let length = self.lengths.get(place.unwrap_or(self.list.len()));
        match length.is_some_and(|l| *l > suppress) {
            true => self.pick(src),
            false => ObjectId::NO_ROUTE,
        }
    }
}

/// See [`Object::Glean`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glean {
    /// The link.
    pub port: PortId,
    /// The route's own MTU limit; 0 for none.
    pub mtu: u32,
    /// The largest segment size that the route lets SYNs tell; 0 for any.
    pub mss: u16,
}

/// See [`Object::Incomplete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// The link.
    pub port: PortId,
    /// Whom to ask for, of either family.
    pub gateway: IpAddr,
    /// The largest segment size that the route lets SYNs tell; 0 for any.
    pub mss: u16,
}

/// See [`Object::Forward`].
#[derive(Clone, Debug)]
pub struct Forward {
    /// Egress port.
    pub port: PortId,
    /// Largest IP packet, in bytes: the port's MTU, or a route's smaller one.
    pub mtu: u32,
    /// The largest segment size that the route lets SYNs tell; 0 for any.
    pub mss: u16,
    /// The gateway; None where the packet's destination itself is the neighbour, or there is no link layer.
    /// A packet of the other family is what [`crate::forward::via_inet6`] is about.
    pub gateway: Option<IpAddr>,
    /// Ready-made link header.
    pub rewrite: Rewrite,
    /// Set by workers when they use it; neighbour unreachability detection reads and clears it. Shared by all versions
    /// of the adjacency.
    pub used: Arc<AtomicBool>,
}

impl Forward {
    /// Marks the adjacency as used: a store only when it is not marked yet, so the line stays shared between workers.
    #[inline]
    pub fn touch(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }
}

/// A ready-made link header. The last two bytes are the EtherType, set per packet family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rewrite {
    bytes: [u8; 18],
    len: u8,
}

impl Rewrite {
    /// No link header.
    pub const NONE: Rewrite = Rewrite { bytes: [0; 18], len: 0 };

    /// An Ethernet II header, with a VLAN tag (IEEE 802.1Q) if wanted.
    pub fn ethernet(dst: MacAddr, src: MacAddr, vlan: Option<u16>) -> Self {
        let mut bytes = [0; 18];
        bytes[..6].copy_from_slice(&dst.0);
        bytes[6..12].copy_from_slice(&src.0);
        let mut len = 14;
        if let Some(vid) = vlan {
            bytes[12..14].copy_from_slice(&[0x81, 0x00]);
            bytes[14..16].copy_from_slice(&(vid & 0x0fff).to_be_bytes());
            len = 18;
        }
        Rewrite { bytes, len }
    }

    /// Number of bytes: 0, 14 or 18.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no link header.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The header for a packet of `family`.
    #[inline]
    pub fn write(&self, family: Family, to: &mut [u8]) {
        let kind: [u8; 2] = match family {
            Family::Inet => [0x08, 0x00],
            Family::Inet6 => [0x86, 0xdd],
        };
        // Lengths known to the compiler make a few stores of this.
        match self.len {
            14 => {
                if let (Some(to), Some(from)) = (to.first_chunk_mut::<14>(), self.bytes.first_chunk::<14>()) {
                    *to = *from;
                    [to[12], to[13]] = kind;
                }
            }
            18 => {
                if let Some(to) = to.first_chunk_mut::<18>() {
                    *to = self.bytes;
                    [to[16], to[17]] = kind;
                }
            }
            _ => {}
        }
    }

    /// The destination, for display.
    pub fn dst(&self) -> Option<MacAddr> {
        (self.len > 0).then(|| {
            MacAddr([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3], self.bytes[4], self.bytes[5]])
        })
    }
}

/// See [`Object::Encap`]: a tunnel's ready-made outer header, stacked on the object that carries it.
#[derive(Clone, Debug)]
pub struct Encap {
    /// The tunnel, as a port.
    pub tunnel: PortId,
    /// Largest inner packet, in bytes.
    pub mtu: u32,
    /// The largest segment size that the route lets SYNs tell; 0 for any.
    pub mss: u16,
    /// Which packets may enter.
    pub carries: Carries,
    /// What carries the outer packet: the object that the underlay's route to the peer has.
    pub carrier: ObjectId,
    /// The outer header; None when the ends do not fit the mode.
    pub outer: Option<Outer>,
    /// The tunnel's parameters.
    pub facts: Arc<EncapFacts>,
}

/// See [`Object::Group`].
#[derive(Clone, Debug)]
pub struct Group {
    /// Members, each as often as its weight says; a flow's hash picks one. Never empty.
    pub buckets: Arc<[ObjectId]>,
    /// Of a resilient group: when each bucket was last used.
    pub activity: Option<Arc<Activity>>,
}

impl Group {
    /// The bucket of a flow with this hash.
    #[inline]
    pub fn bucket(&self, hash: u32) -> usize {
        hash as usize % self.buckets.len().max(1)
    }

    /// The member that has a bucket.
    #[inline]
    pub fn member(&self, bucket: usize) -> Option<ObjectId> {
        self.buckets.get(bucket).copied()
    }
}

/// See [`Object::Plugin`].
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The forwarder.
    pub forwarder: Arc<dyn Forwarder>,
    /// What the route's next hops resolved to; [`ObjectId::NO_ROUTE`] when it has none.
    pub next: ObjectId,
}

/// See [`Object::Counted`]: stands before another object while a route or next hop is counted. Whatever is not counted has
/// nothing of the kind in its way, so that counting costs nothing where nobody asks for it.
#[derive(Clone, Debug)]
pub struct Counted {
    /// What has come by.
    pub traffic: Arc<Traffic>,
    /// The object that says what to do.
    pub next: ObjectId,
}
