//! What a command selects: the filters behind `show` and `flush`, and the arguments of `get` and `set`.

use crate::grammar::{scope_name, table_name};
use ipnet::IpNet;
use router_core::addr::{Family, MacAddr};
use router_core::port::TableId;
use router_core::spec::{NextHopKind, NextHopSpec, NudState, RouteInfo, RouteKind, RouteSpec, TunnelOptions};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableSelect {
    /// Table main.
    #[default]
    Main,
    /// All.
    All,
    /// This one.
    One(TableId),
}

impl TableSelect {
    /// Whether `table` is selected.
    pub fn contains(self, table: TableId) -> bool {
        match self {
            TableSelect::Main => table == TableId::MAIN,
            TableSelect::All => true,
            TableSelect::One(t) => table == t,
        }
    }
}

/// Which destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixSelect {
    /// Not shorter than this and inside it (`root P`).
    Root(IpNet),
    /// Covering this (`match P`).
    Match(IpNet),
    /// This one (`exact P`, or `P` alone).
    Exact(IpNet),
}

impl PrefixSelect {
    /// Whether `dst` is selected.
    pub fn contains(&self, dst: &IpNet) -> bool {
        match self {
            PrefixSelect::Root(p) => p.contains(dst),
            PrefixSelect::Match(p) => dst.contains(p),
            PrefixSelect::Exact(p) => p == dst,
        }
    }

    fn net(&self) -> &IpNet {
        match self {
            PrefixSelect::Root(p) | PrefixSelect::Match(p) | PrefixSelect::Exact(p) => p,
        }
    }
}

/// Selector of `route show` and `route flush`. Everything said must fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSelect {
    /// Family of the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Table.
    pub table: TableSelect,
    /// Destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<PrefixSelect>,
    /// Origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RouteKind>,
    /// Its only next hop leaves by this port (as iproute2, which passes over multipath routes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Its only next hop has this gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Scope, as [`route_scope`] counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// Preferred source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Next-hop object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nhid: Option<u32>,
    /// The VRF whose table is meant: the client puts the table in its place.
    #[serde(skip)]
    pub vrf: Option<String>,
}

impl RouteSelect {
    /// Whether a prefix can have selected routes at all: lets a dump skip what does not fit.
    pub fn may_contain(&self, table: TableId, dst: &IpNet) -> bool {
        self.table.contains(table)
            && self.family.is_none_or(|f| f == Family::of_net(dst))
            && self.dst.as_ref().is_none_or(|p| p.contains(dst))
    }

    /// Whether a route is selected.
    pub fn matches(&self, info: &RouteInfo) -> bool {
        let r = &info.route;
        let single = if r.hops.len() == 1 { r.hops.first() } else { None };
        self.may_contain(r.table_id(), &r.dst)
            && self.proto.is_none_or(|p| r.proto == Some(p))
            && self.kind.is_none_or(|k| k == r.kind)
            && self.dev.as_ref().is_none_or(|d| single.is_some_and(|h| h.dev.as_ref() == Some(d)))
            && self.via.is_none_or(|v| single.is_some_and(|h| h.via == Some(v)))
            && self.scope.is_none_or(|s| s == route_scope(r))
            && self.src.is_none_or(|s| r.src == Some(s))
            && self.metric.is_none_or(|m| m == r.metric_or_default())
            && self.nhid.is_none_or(|n| r.nhid == Some(n))
    }

    /// The selector's prefix, if it has one.
    pub fn prefix(&self) -> Option<&IpNet> {
        self.dst.as_ref().map(PrefixSelect::net)
    }

    /// A line for messages.
    pub fn describe(&self) -> String {
        let mut text = match self.table {
            TableSelect::Main => "table main".to_owned(),
            TableSelect::All => "all tables".to_owned(),
            TableSelect::One(t) => format!("table {}", table_name(t)),
        };
        if let Some(scope) = self.scope {
            text.push_str(&format!(" scope {}", scope_name(scope)));
        }
        text
    }
}

/// A route's scope as Linux derives it: `host` for own addresses, `link` without a gateway, else `global`; IPv6 has none.
pub fn route_scope(route: &RouteSpec) -> u8 {
    use crate::grammar::names_scope as scope;
    if route.family() == Family::Inet6 {
        return scope::GLOBAL;
    }
    match route.kind {
        RouteKind::Local => scope::HOST,
        RouteKind::Broadcast => scope::LINK,
        RouteKind::Unicast if route.nhid.is_none() && route.hops.len() == 1 && route.hops[0].via.is_none() => {
            scope::LINK
        }
        _ => scope::GLOBAL,
    }
}

/// Arguments of `route get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteGet {
    /// Destination.
    pub dst: IpAddr,
    /// Source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// As if it came in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Only routes that leave there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// Look up in this table instead of by the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableId>,
    /// Answer with the matching route itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fibmatch: bool,
    /// As if it came in through a port of this VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Its mark, for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// TOS or traffic class, for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Upper-layer protocol, for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipproto: Option<u8>,
    /// Source port, for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port, for rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
}

impl RouteGet {
    /// The question for a destination, nothing else said.
    pub fn to(dst: IpAddr) -> Self {
        RouteGet {
            dst,
            from: None,
            iif: None,
            oif: None,
            table: None,
            fibmatch: false,
            vrf: None,
            mark: None,
            tos: None,
            ipproto: None,
            sport: None,
            dport: None,
        }
    }
}

/// Selector of `neigh show` and `neigh flush`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeighSelect {
    /// Family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Inside this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
    /// In one of these states; empty: all but NOARP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nud: Vec<NudState>,
    /// Whatever the state.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nud_all: bool,
}

impl NeighSelect {
    /// Whether a neighbour is selected.
    pub fn matches(&self, addr: &IpAddr, dev: &str, state: NudState) -> bool {
        let by_state = if self.nud.is_empty() { state != NudState::NoArp } else { self.nud.contains(&state) };
        self.family.is_none_or(|f| f == Family::of(addr))
            && self.dev.as_ref().is_none_or(|d| d == dev)
            && self.to.is_none_or(|p| p.contains(addr))
            && (self.nud_all || by_state)
    }
}

/// Selector of `link show`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSelect {
    /// One port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Only those administratively up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// Only of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those in this VRF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
}

/// Arguments of `link set`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSet {
    /// The port.
    pub dev: String,
    /// Administrative state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Link-layer address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<MacAddr>,
    /// The VRF to be in; empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The mark that packets get which come in here; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
}

/// Selector of `addr show` and `addr flush`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddrSelect {
    /// Family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Inside this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
    /// Scope: host, link or global.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// Only ports that are up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
}

impl AddrSelect {
    /// Whether this address is selected (the port aside).
    pub fn matches(&self, net: &IpNet) -> bool {
        self.family.is_none_or(|f| f == Family::of_net(net))
            && self.to.is_none_or(|p| p.contains(&net.addr()))
            && self.scope.is_none_or(|s| s == addr_scope(&net.addr()))
    }

    /// Whether it selects among addresses, so that ports without any are left out.
    pub fn is_narrow(&self) -> bool {
        self.family.is_some() || self.to.is_some() || self.scope.is_some()
    }
}

/// The scope of an own address: `host` for loopback, `link` for link-local, else `global`.
pub(crate) fn addr_scope(addr: &IpAddr) -> u8 {
    use crate::grammar::names_scope as scope;
    match addr {
        a if a.is_loopback() => scope::HOST,
        IpAddr::V6(a) if a.is_unicast_link_local() => scope::LINK,
        _ => scope::GLOBAL,
    }
}

/// Arguments of `tunnel change`: what is None stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelChange {
    /// The tunnel.
    pub name: String,
    /// Outer source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Outer destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// Outer TTL; 0 means inherit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Outer traffic class; 1 means inherit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Leave DF clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nopmtudisc: Option<bool>,
    /// Leave DF clear although the packet inside has it set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_df: Option<bool>,
    /// Carrying port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// What only some tunnels have, as far as it is said.
    pub options: Box<TunnelOptions>,
}

/// Selector of `nexthop bucket show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketSelect {
    /// Of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// At this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// Of this member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nhid: Option<u32>,
    /// Of members that leave by this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

/// Selector of `nexthop show` and `nexthop flush`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NextHopSelect {
    /// One object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Leaving by this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Groups only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub groups: bool,
    /// Origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Family of the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

impl NextHopSelect {
    /// Whether an object is selected.
    pub fn matches(&self, n: &NextHopSpec) -> bool {
        let hop = match &n.kind {
            NextHopKind::Hop(h) => Some(h),
            NextHopKind::Group(_) | NextHopKind::Blackhole => None,
        };
        self.id.is_none_or(|i| i == n.id)
            && self.proto.is_none_or(|p| n.proto == Some(p))
            && (!self.groups || matches!(n.kind, NextHopKind::Group(_)))
            && self.dev.as_ref().is_none_or(|d| hop.is_some_and(|h| h.dev.as_ref() == Some(d)))
            && self.family.is_none_or(|f| hop.and_then(|h| h.via).is_none_or(|v| Family::of(&v) == f))
    }
}
