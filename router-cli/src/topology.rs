//! What a router consists of and how its routes spread over it: asked once, a page of routes at a time, kept in little
//! memory however long the table is. Behind `duet doctor` and `duet graph`.

use crate::command::{Session, unexpected};
use crate::control::{
    Answer, LinkInfo, LinkSelect, NeighInfo, NeighSelect, Op, RouteGet, RouteSelect, StatsInfo, TableSelect,
    TunnelInfo, VersionInfo,
};
use crate::grammar::Failure;
use router_core::port::TableId;
use router_core::spec::{HopState, RouteInfo, RouteKind, proto};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Next hops told apart; those beyond are counted together.
const MOST_HOPS: usize = 4096;
/// Examples kept of each kind of oddity.
const EXAMPLES: usize = 3;

/// A way that packets leave by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    /// The port or tunnel; None where nothing resolves.
    pub dev: Option<String>,
    /// The gateway; None for what is on the link.
    pub via: Option<IpAddr>,
}

/// Routes over one way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Use {
    /// All of them.
    pub routes: u64,
    /// Those whose hop cannot be used, and why.
    pub unusable: u64,
    pub state: HopState,
    /// One of these.
    pub example: Option<RouteInfo>,
}

/// Oddities with examples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odd {
    pub count: u64,
    pub examples: Vec<RouteInfo>,
}

impl Odd {
    fn add(&mut self, info: &RouteInfo) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(info.clone());
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub version: VersionInfo,
    pub stats: StatsInfo,
    pub links: Vec<LinkInfo>,
    pub tunnels: Vec<TunnelInfo>,
    pub neighs: Vec<NeighInfo>,
    pub ways: BTreeMap<Way, Use>,
    /// Routes that forward or refuse.
    pub routes: u64,
    /// Routes over ways beyond those told apart.
    pub other_ways: u64,
    /// Routes that refuse, by what they do.
    pub refusing: BTreeMap<String, u64>,
    /// Usable routes that another one to the same prefix keeps from being used.
    pub hidden: Odd,
    /// Tables with routes in them.
    pub tables: BTreeSet<TableId>,
    /// Routes whose own MTU is more than their port's.
    pub large_mtu: Odd,
    /// What carries each tunnel's outer packets: the way, or why there is none.
    pub carriers: BTreeMap<String, Result<Way, String>>,
    /// Routes that send IPv4 over an IPv6 next hop.
    pub v4_via_v6: u64,
}

impl Topology {
    /// Asks a router.
    pub fn of(session: &mut Session<'_>) -> Result<Topology, Failure> {
        let Answer::Version(version) = session.call(Op::Version)? else { return Err(unexpected()) };
        let Answer::Stats(stats) = session.call(Op::Stats)? else { return Err(unexpected()) };
        let Answer::Links(links) = session.call(Op::LinkShow(LinkSelect::default()))? else { return Err(unexpected()) };
        let Answer::Tunnels(tunnels) = session.call(Op::TunnelShow(None))? else { return Err(unexpected()) };
        let all = NeighSelect { nud_all: true, ..NeighSelect::default() };
        let Answer::Neighs(neighs) = session.call(Op::NeighShow(all))? else { return Err(unexpected()) };
        let mut t = Topology {
            version,
            stats: *stats,
            links,
            tunnels,
            neighs,
            ways: BTreeMap::new(),
            routes: 0,
            other_ways: 0,
            refusing: BTreeMap::new(),
            hidden: Odd::default(),
            tables: BTreeSet::new(),
            large_mtu: Odd::default(),
            carriers: BTreeMap::new(),
            v4_via_v6: 0,
        };
        let select = RouteSelect { table: TableSelect::All, ..RouteSelect::default() };
        session.each_route(&select, |_, info| {
            t.count(info);
            Ok(())
        })?;
        for tunnel in t.tunnels.clone() {
            let carrier = carrier(session, &tunnel)?;
            t.carriers.insert(tunnel.tunnel.name.clone(), carrier);
        }
        Ok(t)
    }

    fn count(&mut self, info: &RouteInfo) {
        let r = &info.route;
        self.tables.insert(r.table_id());
        if matches!(r.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast) {
            return;
        }
        self.routes += 1;
        if r.kind != RouteKind::Unicast {
            *self.refusing.entry(crate::grammar::kind_name(r.kind).to_owned()).or_default() += 1;
            return;
        }
        let usable = info.states.contains(&HopState::Active);
        // Every link has its fe80::/64.
        if !info.selected && usable && r.proto != Some(proto::KERNEL) {
            self.hidden.add(info);
        }
        for (i, hop) in r.hops.iter().enumerate() {
            let way = Way { dev: hop.dev.clone(), via: hop.via };
            if self.ways.len() >= MOST_HOPS && !self.ways.contains_key(&way) {
                self.other_ways += 1;
                continue;
            }
            let state = info.states.get(i).copied().unwrap_or_default();
            let used = self.ways.entry(way).or_default();
            used.routes += 1;
            // Those of a port or tunnel that is down are told with it.
            if state != HopState::Active && r.proto != Some(proto::KERNEL) {
                used.unusable += 1;
                used.state = state;
                used.example = Some(info.clone());
            }
            used.example.get_or_insert_with(|| info.clone());
            self.v4_via_v6 += u64::from(r.dst.addr().is_ipv4() && hop.via.is_some_and(|v| v.is_ipv6()));
            let port = hop.dev.as_ref().and_then(|d| self.links.iter().find(|l| l.name == *d));
            if r.proto != Some(proto::KERNEL) && port.is_some_and(|p| r.mtu.is_some_and(|m| m > p.mtu)) {
                self.large_mtu.add(info);
            }
        }
    }

    /// A port or tunnel by name.
    pub fn link(&self, name: &str) -> Option<&LinkInfo> {
        self.links.iter().find(|l| l.name == name)
    }
}

fn carrier(session: &mut Session<'_>, t: &TunnelInfo) -> Result<Result<Way, String>, Failure> {
    let get = RouteGet { table: t.tunnel.underlay_table, ..RouteGet::to(t.tunnel.remote) };
    match session.try_call(Op::RouteGet(get)) {
        Ok(Answer::Get(info)) => {
            let way = info.hop.map(|h| Way { dev: h.dev, via: h.via }).unwrap_or(Way { dev: None, via: None });
            match (t.carried, &way.dev) {
                (Some(false), Some(dev)) if *dev == t.tunnel.name => {
                    Ok(Err("its remote is reached through itself".into()))
                }
                (Some(false), dev) => Ok(Err(format!(
                    "the route to its remote leads to {}, which cannot carry it",
                    dev.as_deref().unwrap_or("nothing")
                ))),
                _ => Ok(Ok(way)),
            }
        }
        Ok(_) => Err(unexpected()),
        Err(crate::control::ClientError::Refused(e)) => Ok(Err(e.line)),
        Err(e) => Err(e.into()),
    }
}
