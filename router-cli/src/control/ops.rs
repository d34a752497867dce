//! Operations and answers.

use super::count::{CountInfo, CountTarget};
use super::filter::*;
use super::flow::FlowsInfo;
use super::inspect::*;
use super::select::*;
use crate::grammar::Verb;
use ipnet::IpNet;
use router_core::addr::{Family, MacAddr};
use router_core::advert::AdvertStatus;
use router_core::counters::PortTotals;
use router_core::explain::{Explanation, Question};
use router_core::policy::RuleSpec;
use router_core::port::{Medium, PortKind, TableId};
use router_core::router::{LearnedMtu, Life, PathInfo, Ping, PingAnswer, ProbeAnswer};
use router_core::routing::BucketInfo;
use router_core::spec::{
    HopSpec, NeighSpec, NextHopSpec, RouteInfo, RouteKind, RouteOp, RouteSpec, TunnelOptions, TunnelSpec,
};
use router_core::translate::TranslatorSpec;
use router_core::translate::nat64::{Nat64Stats, SessionInfo};
use router_core::tunnel::Path;
use router_io::port::wireguard::spec::Status;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// One operation. In JSON an object with one key, the operation's name: `{"route.add":{"dst":"192.0.2.0/24",...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// New route.
    #[serde(rename = "route.add")]
    RouteAdd(Box<RouteSpec>),
    /// Set a route.
    #[serde(rename = "route.replace")]
    RouteReplace(Box<RouteSpec>),
    /// Set a route that is there.
    #[serde(rename = "route.change")]
    RouteChange(Box<RouteSpec>),
    /// Another candidate, behind.
    #[serde(rename = "route.append")]
    RouteAppend(Box<RouteSpec>),
    /// Another candidate, in front.
    #[serde(rename = "route.prepend")]
    RoutePrepend(Box<RouteSpec>),
    /// Remove a route.
    #[serde(rename = "route.del")]
    RouteDelete(Box<RouteSpec>),
    /// List routes, in pages.
    #[serde(rename = "route.show")]
    RouteShow(RouteSelect),
    /// Some of the routes, from a place on: for clients that want the next ones when they are ready for them.
    #[serde(rename = "route.page")]
    RoutePage(RoutePageSelect),
    /// Remove all that fit; answers with their number.
    #[serde(rename = "route.flush")]
    RouteFlush(RouteSelect),
    /// Look up a destination as the data plane does.
    #[serde(rename = "route.get")]
    RouteGet(RouteGet),
    /// New neighbour.
    #[serde(rename = "neigh.add")]
    NeighAdd(NeighSpec),
    /// Set a neighbour that is there.
    #[serde(rename = "neigh.change")]
    NeighChange(NeighSpec),
    /// Set a neighbour.
    #[serde(rename = "neigh.replace")]
    NeighReplace(NeighSpec),
    /// Remove a neighbour.
    #[serde(rename = "neigh.del")]
    NeighDelete(NeighSpec),
    /// List neighbours.
    #[serde(rename = "neigh.show")]
    NeighShow(NeighSelect),
    /// Remove all that fit and are not permanent; answers with their number.
    #[serde(rename = "neigh.flush")]
    NeighFlush(NeighSelect),
    /// List ports and tunnels with their addresses and counters.
    #[serde(rename = "link.show")]
    LinkShow(LinkSelect),
    /// Change a port.
    #[serde(rename = "link.set")]
    LinkSet(LinkSet),
    /// New address.
    #[serde(rename = "addr.add")]
    AddrAdd(AddrSpec),
    /// Set an address that is there.
    #[serde(rename = "addr.change")]
    AddrChange(AddrSpec),
    /// Set an address.
    #[serde(rename = "addr.replace")]
    AddrReplace(AddrSpec),
    /// Remove an address.
    #[serde(rename = "addr.del")]
    AddrDelete(AddrSpec),
    /// Remove all that fit; answers with their number.
    #[serde(rename = "addr.flush")]
    AddrFlush(AddrSelect),
    /// New tunnel.
    #[serde(rename = "tunnel.add")]
    TunnelAdd(Box<TunnelSpec>),
    /// Change a tunnel.
    #[serde(rename = "tunnel.change")]
    TunnelChange(Box<TunnelChange>),
    /// Remove a tunnel.
    #[serde(rename = "tunnel.del")]
    TunnelDelete(String),
    /// Ask somebody behind a tunnel.
    #[serde(rename = "tunnel.probe")]
    TunnelProbe(TunnelProbe),
    /// What was answered since the last call.
    #[serde(rename = "tunnel.answers")]
    TunnelAnswers(String),
    /// Begin to send echo requests; what they have in common is the number that is answered.
    #[serde(rename = "ping.open")]
    PingOpen,
    /// Send one.
    #[serde(rename = "ping")]
    Ping(Box<PingOp>),
    /// What came back since the last call.
    #[serde(rename = "ping.answers")]
    PingAnswers(u16),
    /// List tunnels one of whose ends is a name or follows a device of the host.
    #[serde(rename = "tunnel.ends")]
    TunnelEnds,
    /// List tunnels: one or all.
    #[serde(rename = "tunnel.show")]
    TunnelShow(Option<String>),
    /// List translators, one or all, and sessions of NAT64 if asked for.
    #[serde(rename = "translate.show")]
    TranslateShow(TranslateSelect),
    /// List filters with their counters, and what ports ask of their packets.
    #[serde(rename = "filter.show")]
    FilterShow(FilterSelect),
    /// Add rules to a filter, which is made if it is not there.
    #[serde(rename = "filter.add")]
    FilterAdd(FilterRules),
    /// Give a filter these rules, all at once.
    #[serde(rename = "filter.replace")]
    FilterReplace(FilterRules),
    /// Remove a rule or a filter.
    #[serde(rename = "filter.del")]
    FilterDelete(Box<FilterDelete>),
    /// Change what a port asks of its packets.
    #[serde(rename = "filter.set")]
    FilterSet(Box<GuardChange>),
    /// New next-hop object.
    #[serde(rename = "nexthop.add")]
    NextHopAdd(NextHopSpec),
    /// Set a next-hop object.
    #[serde(rename = "nexthop.replace")]
    NextHopReplace(NextHopSpec),
    /// Remove a next-hop object and the routes that use it.
    #[serde(rename = "nexthop.del")]
    NextHopDelete(u32),
    /// List next-hop objects.
    #[serde(rename = "nexthop.show")]
    NextHopShow(NextHopSelect),
    /// List buckets of resilient groups.
    #[serde(rename = "nexthop.buckets")]
    NextHopBuckets(BucketSelect),
    /// Remove all that fit; answers with their number.
    #[serde(rename = "nexthop.flush")]
    NextHopFlush(NextHopSelect),
    /// New rule.
    #[serde(rename = "rule.add")]
    RuleAdd(Box<RuleSpec>),
    /// Remove the first rule that fits.
    #[serde(rename = "rule.del")]
    RuleDelete(Box<RuleDelete>),
    /// List the rules of both families.
    #[serde(rename = "rule.show")]
    RuleShow,
    /// Remove all rules of a family but those of priority 0; answers with their number.
    #[serde(rename = "rule.flush")]
    RuleFlush(Family),
    /// New VRF.
    #[serde(rename = "vrf.add")]
    VrfAdd(VrfSpec),
    /// Remove a VRF; its ports go back to main.
    #[serde(rename = "vrf.del")]
    VrfDelete(String),
    /// What becomes of a packet and why.
    #[serde(rename = "explain")]
    Explain(Box<Question>),
    /// Packets as they pass, in pages, until the client sends anything more or goes.
    #[serde(rename = "capture")]
    Capture(CaptureSelect),
    /// Follow the next packets that fit.
    #[serde(rename = "trace.add")]
    TraceAdd(TraceSelect),
    /// What was followed.
    #[serde(rename = "trace.show")]
    TraceShow,
    /// End and forget one trace.
    #[serde(rename = "trace.del")]
    TraceDelete(u64),
    /// End and forget all traces; answers with their number.
    #[serde(rename = "trace.clear")]
    TraceClear,
    /// Count a route or next hop from now on.
    #[serde(rename = "count.add")]
    CountAdd(CountTarget),
    /// What was counted.
    #[serde(rename = "count.show")]
    CountShow,
    /// Count something no more.
    #[serde(rename = "count.del")]
    CountDelete(CountTarget),
    /// Count nothing any more; answers with how many there were.
    #[serde(rename = "count.clear")]
    CountClear,
    /// Flows that are offloaded, those with the most bytes first.
    #[serde(rename = "flow.show")]
    FlowShow {
        /// As many as are wanted.
        limit: u64,
    },
    /// Forget them; answers with how many there were.
    #[serde(rename = "flow.flush")]
    FlowFlush,
    /// Why packets were dropped, with the last of them.
    #[serde(rename = "drops")]
    Drops,
    /// What happens from now on, in pages, until the client sends anything more or goes.
    #[serde(rename = "monitor")]
    Monitor(super::MonitorSelect),
    /// Counters.
    #[serde(rename = "stats")]
    Stats,
    /// Read the configuration file again and apply the difference.
    #[serde(rename = "reload")]
    Reload,
    /// The tunnel broker, or the client of one.
    #[serde(rename = "broker")]
    Broker(Box<super::BrokerOp>),
    /// Who answers.
    #[serde(rename = "version")]
    Version,
    /// Several changing operations in order, up to the first failure, or all of them with `force`.
    #[serde(rename = "batch")]
    Batch {
        /// The operations: none that lists, none that is itself a batch.
        ops: Vec<Op>,
        /// Go on after failures.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
        /// Do nothing if an earlier chained batch of this connection failed: lets a client send ahead.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        chain: bool,
    },
}

/// Which rule goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleDelete {
    /// What it says; what this leaves open may be anything.
    pub rule: RuleSpec,
    /// What it does may be anything, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_action: bool,
}

/// A VRF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VrfSpec {
    /// Its name: a port name.
    pub name: String,
    /// Its table.
    pub table: TableId,
}

/// An address on a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddrSpec {
    /// The port.
    pub dev: String,
    /// Address and length of its link prefix.
    pub addr: IpNet,
}

impl Op {
    /// A route operation.
    pub fn route(op: RouteOp, route: RouteSpec) -> Op {
        let r = Box::new(route);
        match op {
            RouteOp::Add => Op::RouteAdd(r),
            RouteOp::Replace => Op::RouteReplace(r),
            RouteOp::Change => Op::RouteChange(r),
            RouteOp::Append => Op::RouteAppend(r),
            RouteOp::Prepend => Op::RoutePrepend(r),
            RouteOp::Delete => Op::RouteDelete(r),
        }
    }

    /// A neighbour operation.
    pub fn neigh(verb: Verb, n: NeighSpec) -> Op {
        match verb {
            Verb::Add => Op::NeighAdd(n),
            Verb::Change => Op::NeighChange(n),
            Verb::Replace => Op::NeighReplace(n),
            Verb::Delete => Op::NeighDelete(n),
        }
    }

    /// An address operation.
    pub fn addr(verb: Verb, dev: String, addr: IpNet) -> Op {
        let a = AddrSpec { dev, addr };
        match verb {
            Verb::Add => Op::AddrAdd(a),
            Verb::Change => Op::AddrChange(a),
            Verb::Replace => Op::AddrReplace(a),
            Verb::Delete => Op::AddrDelete(a),
        }
    }

    /// Whether it changes something, and so needs a peer with the right to.
    pub fn is_write(&self) -> bool {
        !matches!(
            self,
            Op::RouteShow(_)
                | Op::RoutePage(_)
                | Op::RouteGet(_)
                | Op::NeighShow(_)
                | Op::LinkShow(_)
                | Op::TunnelShow(_)
                | Op::TunnelEnds
                | Op::TranslateShow(_)
                | Op::FilterShow(_)
                | Op::NextHopShow(_)
                | Op::NextHopBuckets(_)
                | Op::RuleShow
                | Op::Explain(_)
                | Op::CountShow
                | Op::FlowShow { .. }
                | Op::Drops
                | Op::Monitor(_)
                | Op::Stats
                | Op::Version
        )
    }
}

impl Op {
    /// Whether it needs the right to change the router although it changes nothing that a batch could hold: it shows the
    /// contents of other people's packets, or makes the router do more work.
    pub fn is_inspection(&self) -> bool {
        matches!(self, Op::Capture(_) | Op::TraceAdd(_) | Op::TraceShow | Op::TraceDelete(_) | Op::TraceClear)
            || matches!(self, Op::CountAdd(_) | Op::CountDelete(_) | Op::CountClear | Op::FlowFlush)
    }
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Done; nothing to say.
    Done,
    /// So many were removed.
    Count(u64),
    /// A page of routes.
    Routes(Vec<RouteInfo>),
    /// The answer of `route.page`.
    Page(RoutePage),
    /// The answer of `route.get`.
    Get(Box<GetInfo>),
    /// Neighbours.
    Neighs(Vec<NeighInfo>),
    /// Ports and tunnels.
    Links(Vec<LinkInfo>),
    /// Tunnels.
    Tunnels(Vec<TunnelInfo>),
    /// Questions that were asked through a tunnel: whom, and the number of each.
    Asked(IpAddr, Vec<u16>),
    /// Answers to them.
    Answers(Vec<ProbeAnswer>),
    /// Who asks has this number.
    PingSession(u16),
    /// An echo request was sent: from where, and its number.
    Pinged(IpAddr, u16),
    /// Answers to echo requests.
    PingAnswers(Vec<PingAnswer>),
    /// Translators.
    Translators(Vec<TranslatorInfo>),
    /// Filters.
    Filters(FiltersInfo),
    /// Next-hop objects.
    Nexthops(Vec<NextHopSpec>),
    /// Buckets of resilient groups.
    Buckets(Vec<BucketInfo>),
    /// Rules, IPv4 before IPv6, each family in order.
    Rules(Vec<RuleSpec>),
    /// What becomes of a packet.
    Explain(Box<Explanation>),
    /// Captured packets.
    Capture(CapturePage),
    /// Traces.
    Traces(Vec<TraceInfo>),
    /// Counted routes and next hops.
    Counts(Vec<CountInfo>),
    /// Offloaded flows.
    Flows(FlowsInfo),
    /// Drop reasons that occurred.
    Drops(Vec<DropInfo>),
    /// Counters.
    Stats(Box<StatsInfo>),
    /// What happened.
    Events(Vec<super::Event>),
    /// The tunnel broker.
    Broker(Box<super::BrokerAnswer>),
    /// Who answers.
    Version(VersionInfo),
    /// How a batch went.
    Batch(BatchResult),
    /// Lines for the user, such as what a reload changed.
    Text(String),
}

/// Arguments of `route.page`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutePageSelect {
    /// Which routes.
    pub select: RouteSelect,
    /// Behind this place; None: from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<super::RoutePlace>,
    /// At most about so many; 0 and what is beyond the server's own limit mean that limit.
    pub limit: usize,
}

/// Some routes, and where to go on. There may be more although there are none in this page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutePage {
    /// The routes.
    pub routes: Vec<RouteInfo>,
    /// Where the next page begins; None: this was the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<super::RoutePlace>,
}

/// See [`Answer::Get`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetInfo {
    /// The destination asked for.
    pub dst: IpAddr,
    /// What the route does.
    pub kind: RouteKind,
    /// The chosen next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<HopSpec>,
    /// The table that matched.
    pub table: TableId,
    /// The source address that the router itself would use, or the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// The source asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The incoming port asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// The route's MTU, if it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Metric and origin of the route (IPv6 shows them).
    pub metric: u32,
    /// Origin.
    pub proto: u8,
}

/// A neighbour with its ages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighInfo {
    /// The neighbour, with its state.
    #[serde(flatten)]
    pub neigh: NeighSpec,
    /// Seconds since last used.
    #[serde(default)]
    pub used: u64,
    /// Seconds since last confirmed.
    #[serde(default)]
    pub confirmed: u64,
    /// Seconds since last changed.
    #[serde(default)]
    pub updated: u64,
    /// Solicitations sent and not answered.
    #[serde(default)]
    pub probes: u32,
    /// Packets waiting.
    #[serde(default)]
    pub pending: u32,
}

/// A port or tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Index shown.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// How it moves packets.
    pub kind: PortKind,
    /// What its frames look like.
    pub medium: Medium,
    /// Link-layer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Largest IP packet.
    pub mtu: u32,
    /// The host's device behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Table of packets that enter here.
    pub table: TableId,
    /// The VRF that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Administratively up.
    pub admin_up: bool,
    /// Administratively up and carrier present.
    pub up: bool,
    /// Addresses.
    #[serde(default)]
    pub addrs: Vec<IpNet>,
    /// Those of the addresses that duplicate address detection has not confirmed yet (RFC 4862 5.4).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tentative: Vec<IpAddr>,
    /// Addresses that are not used, because somebody else on the link has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<IpNet>,
    /// Outer addresses, if it is a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<(IpAddr, IpAddr)>,
    /// What a WireGuard port knows of its peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<Box<Status>>,
    /// How the router tells the hosts of its link about itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertises: Vec<AdvertStatus>,
    /// Counters.
    #[serde(default)]
    pub totals: PortTotals,
}

/// Which translators, and how much of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslateSelect {
    /// This one; None for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Up to so many sessions of each.
    #[serde(default)]
    pub sessions: u32,
}

/// A translator with its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TranslatorInfo {
    /// The translator.
    pub translator: TranslatorSpec,
    /// Counters of its port: what went in and what came out.
    #[serde(default)]
    pub totals: PortTotals,
    /// Counts of a NAT64's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat64: Option<Nat64Stats>,
    /// Sessions, as many as asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionInfo>,
}

/// Questions to be asked through a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelProbe {
    /// The tunnel.
    pub name: String,
    /// Whom to ask; None: its keepalive's target, or the peer's link-local address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<IpAddr>,
    /// Bytes of each question, IP header included.
    pub size: u32,
    /// Traffic class.
    #[serde(default)]
    pub tclass: u8,
    /// How many; 0 only makes ready, which must come first.
    pub count: u16,
}

/// An echo request of one who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingOp {
    /// The number of the one who asks.
    pub session: u16,
    /// What to send.
    pub ping: Ping,
}

/// A tunnel with its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelInfo {
    /// The tunnel.
    pub tunnel: TunnelSpec,
    /// Counters.
    #[serde(default)]
    pub totals: PortTotals,
    /// Whether a route carries it; None: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<bool>,
    /// Inner MTU in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Outer path MTU that the network told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_mtu: Option<LearnedMtu>,
    /// What its keepalive says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// Which way its packets go, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathInfo>,
    /// Outer ICMP errors about its packets.
    #[serde(default)]
    pub errors: u64,
    /// How long ago the last of them came, from whom, its type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<(Duration, IpAddr, u8, u8)>,
}

impl TunnelInfo {
    /// Bytes that it adds to a packet by the path in use.
    pub fn overhead(&self) -> u32 {
        match self.path.as_ref().and_then(|p| p.path) {
            Some(Path::Bare) => {
                let options = TunnelOptions { udp: None, ..self.tunnel.options.clone() };
                TunnelSpec { options, ..self.tunnel.clone() }.overhead()
            }
            _ => self.tunnel.overhead(),
        }
    }

    /// A tunnel with nothing known but what was written.
    pub fn of(tunnel: TunnelSpec) -> Self {
        TunnelInfo {
            tunnel,
            totals: PortTotals::default(),
            carried: None,
            mtu: None,
            learned_mtu: None,
            life: None,
            path: None,
            errors: 0,
            last_error: None,
        }
    }
}

/// Counters of the whole router; see router-core's `counters` for the law that binds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsInfo {
    /// Frames taken from ports.
    pub received: u64,
    /// Frames made here.
    pub originated: u64,
    /// Frames handed to ports.
    pub transmitted: u64,
    /// Frames used inside.
    pub delivered: u64,
    /// Requests answered.
    pub answered: u64,
    /// Frames waiting.
    pub held: u64,
    /// Frames dropped, by reason; zero counts left out.
    pub dropped: BTreeMap<String, u64>,
    /// By port or tunnel, in the order of their indices.
    pub ports: Vec<(String, PortTotals)>,
    /// Routes per table and family, such as `main inet`.
    #[serde(default)]
    pub routes: BTreeMap<String, u64>,
    /// Seconds since start.
    #[serde(default)]
    pub uptime: u64,
    /// By worker; the control side is the last.
    #[serde(default)]
    pub workers: Vec<WorkerStats>,
}

impl StatsInfo {
    /// Frames dropped for all reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The program's version.
    pub version: String,
    /// The router's name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Protocol version.
    pub protocol: u32,
}

/// How a batch went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchResult {
    /// Operations that succeeded.
    pub done: u64,
    /// Operations that failed, by their place in the batch.
    pub failed: Vec<BatchFailure>,
    /// Operations not tried, because something before them failed.
    pub skipped: u64,
}

/// A failed operation of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchFailure {
    /// Its place, from 0.
    pub index: u64,
    /// Why.
    pub error: super::WireError,
}
