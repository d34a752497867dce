//! What users say about routes, next hops, neighbours and tunnels: the control plane's nouns, free of any text format.
//!
//! The command line and the configuration build these; the tables answer with the same types, so that what is shown can
//! be typed again. All are plain data and serialise for the control socket.

use crate::addr::{Family, MacAddr};
use crate::port::TableId;
pub use crate::tunnel::spec::{TunnelMode, TunnelOptions, TunnelSpec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a route does with a packet (iproute2's TYPE).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forward to its next hops.
    #[default]
    Unicast,
    /// Deliver to this router.
    Local,
    /// Deliver to this router as a link broadcast (made by the router for IPv4 link prefixes).
    Broadcast,
    /// Deliver to this router as one of the routers of a subnet (RFC 4291 2.6.1; made by the router for IPv6 link prefixes).
    Anycast,
    /// Drop silently.
    Blackhole,
    /// Drop and answer host or no-route unreachable.
    Unreachable,
    /// Drop and answer communication administratively prohibited.
    Prohibit,
    /// End the lookup in this table as if nothing had matched.
    Throw,
}

/// Route origin (iproute2's `proto`), a byte: see [`proto`].
pub type Proto = u8;

/// Well-known values of [`Proto`] (linux/rtnetlink.h).
pub mod proto {
    /// Not said.
    pub const UNSPEC: u8 = 0;
    /// Set by an ICMP redirect.
    pub const REDIRECT: u8 = 1;
    /// Made by the router itself, for its own addresses and link prefixes.
    pub const KERNEL: u8 = 2;
    /// Added by hand; the default of a command.
    pub const BOOT: u8 = 3;
    /// From the configuration file.
    pub const STATIC: u8 = 4;
    /// From router advertisements.
    pub const RA: u8 = 9;
    /// Zebra (FRR).
    pub const ZEBRA: u8 = 11;
    /// BIRD.
    pub const BIRD: u8 = 12;
    /// DHCP client.
    pub const DHCP: u8 = 16;
    /// Babel.
    pub const BABEL: u8 = 42;
    /// BGP.
    pub const BGP: u8 = 186;
    /// IS-IS.
    pub const ISIS: u8 = 187;
    /// OSPF.
    pub const OSPF: u8 = 188;
    /// RIP.
    pub const RIP: u8 = 189;
    /// EIGRP.
    pub const EIGRP: u8 = 192;
}

/// One next hop as written: `[via [inet|inet6] ADDRESS] [dev PORT] [weight N] [onlink]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HopSpec {
    /// The gateway, of either family, whatever the route's; None sends to the destination itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Port or tunnel. Needed for a link-local gateway and for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// 1 to 256; share of flows within a multipath route.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u16,
    /// Take the gateway as directly reachable on `dev` although no link prefix covers it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onlink: bool,
}

impl Default for HopSpec {
    fn default() -> Self {
        HopSpec { via: None, dev: None, weight: 1, onlink: false }
    }
}

fn one() -> u16 {
    1
}

fn is_one(n: &u16) -> bool {
    *n == 1
}

/// One route as written or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Destination.
    pub dst: IpNet,
    /// What it does.
    #[serde(default)]
    pub kind: RouteKind,
    /// Its table; None means `main` (or `local` for kind local and broadcast).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableId>,
    /// Lower wins. None: 0 for IPv4, 1024 for IPv6 (as Linux).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Origin; None means [`proto::BOOT`] on input and "any" in a delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Preferred source address of packets that the router itself sends this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// The VRF whose table it is, by name, in place of `table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Only for packets from this prefix (RFC 8678); None for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// Path MTU of this route, in bytes, at most the port's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The largest segment size that TCP SYNs may tell that take this route, in bytes (`advmss`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u16>,
    /// Next hops: none for the discarding kinds, several for multipath.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<HopSpec>,
    /// A next-hop object instead of `hops` (`nhid N`). Shown routes carry both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nhid: Option<u32>,
    /// The plugged-in forwarder that treats packets of this route, by its name; None picks by next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarder: Option<String>,
}

impl RouteSpec {
    /// A unicast route without next hops, to be filled in.
    pub fn new(dst: IpNet) -> Self {
        RouteSpec {
            dst,
            kind: RouteKind::Unicast,
            table: None,
            metric: None,
            proto: None,
            src: None,
            vrf: None,
            from: None,
            mtu: None,
            advmss: None,
            hops: Vec::new(),
            nhid: None,
            forwarder: None,
        }
    }

    /// The family of the destination.
    pub fn family(&self) -> Family {
        Family::of_net(&self.dst)
    }

    /// The table, defaults applied.
    pub fn table_id(&self) -> TableId {
        self.table.unwrap_or(match self.kind {
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast => TableId::LOCAL,
            _ => TableId::MAIN,
        })
    }

    /// The metric, defaults applied.
    pub fn metric_or_default(&self) -> u32 {
        self.metric.filter(|m| *m != 0 || self.family() == Family::Inet).unwrap_or(match self.family() {
            Family::Inet => 0,
            Family::Inet6 => 1024,
        })
    }
}

/// State of a shown route's next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopState {
    /// In use.
    #[default]
    Active,
    /// Its port has no carrier or is down.
    LinkDown,
    /// No route leads to its gateway, or only one through itself.
    Unresolved,
}

/// A route as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The route, with `table`, `proto`, `metric` and every `dev` filled in.
    pub route: RouteSpec,
    /// One per element of `route.hops`.
    pub states: Vec<HopState>,
    /// Whether the data plane uses it (the best usable candidate of its prefix).
    pub selected: bool,
}

/// What to do with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteOp {
    /// New; fails when prefix, table and metric are taken.
    Add,
    /// Set, whether there or not.
    Replace,
    /// Set; fails when not there.
    Change,
    /// Another candidate beside equal ones (IPv4: behind; IPv6: joins as a multipath member, as Linux does).
    Append,
    /// As append, in front.
    Prepend,
    /// Remove the first route that fits everything said; fails when there is none.
    Delete,
}

/// A next-hop object (`ip nexthop`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopSpec {
    /// Its number, 1 and up.
    pub id: u32,
    /// What it is.
    pub kind: NextHopKind,
    /// Origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Of a group: its buckets outlive changes (`type resilient`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resilient: Option<ResilientSpec>,
}

impl NextHopSpec {
    /// One that is not resilient.
    pub fn new(id: u32, kind: NextHopKind) -> Self {
        NextHopSpec { id, kind, proto: None, resilient: None }
    }
}

/// What is said about a resilient group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResilientSpec {
    /// Number of buckets, which never changes. Needed for a new group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<u16>,
    /// Seconds after which a bucket without packets may go to another member; None: 120, or as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timer: Option<u32>,
    /// Seconds after which a group out of balance is balanced by force, 0 for never; None: 0, or as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbalanced_timer: Option<u32>,
    /// Hundredths of a second for which the group has been out of balance. Only shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbalanced_time: Option<u64>,
}

/// The kinds of next-hop objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NextHopKind {
    /// One gateway or port.
    Hop(HopSpec),
    /// Others, by number and weight.
    Group(Vec<(u32, u16)>),
    /// Drops silently.
    Blackhole,
}

/// Neighbour states in iproute2's words (NUD, RFC 4861 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NudState {
    /// Being resolved.
    Incomplete,
    /// Confirmed recently.
    Reachable,
    /// Confirmed too long ago.
    Stale,
    /// Used while stale; waiting for a hint from above.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by hand, never expires.
    Permanent,
}

/// A neighbour as written or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighSpec {
    /// Its address.
    pub addr: IpAddr,
    /// The port on whose link it is.
    pub dev: String,
    /// Its link-layer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacAddr>,
    /// Its state; None means permanent on input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NudState>,
    /// Whether it said that it is a router (NDP's R flag).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub router: bool,
}
