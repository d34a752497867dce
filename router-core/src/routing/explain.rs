//! Why a lookup answers as it does: every covering prefix, every candidate, every step of the recursion.

use super::Routing;
use crate::next_hop::PathId;
use crate::object::ObjectId;
use crate::port::{Medium, PortId, TableId};
use crate::rib::{Candidate, Entry, EntryId, Rank, host, preference};
use crate::spec::{HopSpec, RouteInfo, RouteKind};
use crate::tables::domain_of;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Candidates of one prefix that are told one by one.
const MAX_SHOWN: usize = 32;
/// Steps of recursion that are told.
const MAX_STEPS: usize = 16;

/// A prefix that contains the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// The prefix.
    pub dst: IpNet,
    /// Why it won or lost.
    pub verdict: CoverVerdict,
    /// Its candidates, best first.
    pub candidates: Vec<Candidacy>,
    /// Candidates beyond those told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Why a prefix won or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverVerdict {
    /// The longest in the compiled table.
    Wins,
    /// A longer one won.
    Shorter,
    /// None of its candidates can be used, so it is not in the compiled table.
    Unusable,
}

/// A candidate route of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidacy {
    /// The route, with the state of each next hop.
    pub route: RouteInfo,
    /// By origin; lower wins.
    pub preference: u8,
    /// Why it was chosen or not.
    pub choice: Choice,
}

/// Why a candidate was chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The best that can be used.
    Chosen,
    /// None of its next hops can be used now.
    Unusable,
    /// A better one is of an earlier table: local before main before default.
    Table,
    /// A better one is directly connected.
    Preference,
    /// A better one has a lower metric.
    Metric,
    /// A better one was there first, or put in front.
    Order,
}

/// A gateway was looked up to find out where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recursion {
    /// Whose way is sought.
    pub gateway: IpAddr,
    /// In this table.
    pub table: TableId,
    /// The prefix that leads there; None: nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpNet>,
    /// The hop of that route: without a gateway it is the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<HopSpec>,
    /// Hops of that route, of which the first usable is followed here.
    #[serde(default)]
    pub of: usize,
}

impl Routing {
    /// Every prefix of a table that contains `dst`, longest first, with its candidates.
    pub fn covers(&self, table: TableId, dst: &IpAddr) -> Vec<Cover> {
        let domain = domain_of(table);
        let mut won = false;
        let mut out = Vec::new();
        for (_, id) in self.rib.covers(domain, &host(dst)) {
            let Some(entry) = self.rib.entries.get(id).filter(|e| !e.candidates.is_empty()) else { continue };
            let verdict = match entry.installed() {
                None => CoverVerdict::Unusable,
                Some(_) if won => CoverVerdict::Shorter,
                Some(_) => CoverVerdict::Wins,
            };
            won |= verdict == CoverVerdict::Wins;
            let shown = entry.candidates.iter().take(MAX_SHOWN).map(|c| self.candidacy(id, entry, c)).collect();
            let more = entry.candidates.len().saturating_sub(MAX_SHOWN);
            out.push(Cover { dst: entry.dst, verdict, candidates: shown, more });
        }
        out
    }

    fn usable(&self, path: PathId) -> bool {
        self.paths.get(path).is_some_and(|p| p.outcome.usable())
    }

    fn candidacy(&self, id: EntryId, entry: &Entry, c: &Candidate) -> Candidacy {
        let route = self.info(id, c);
        let best = entry.candidates.iter().find(|x| self.usable(x.path));
        let choice = match best {
            _ if route.selected => Choice::Chosen,
            _ if !self.usable(c.path) => Choice::Unusable,
            Some(best) => lost_to(&c.rank(), &best.rank()),
            None => Choice::Unusable,
        };
        Candidacy { preference: preference(c.proto), route, choice }
    }

    /// How the chosen route for `dst` found the way to each of its gateways that names no port: one list per hop.
    pub fn recursions(&self, table: TableId, dst: &IpAddr) -> Vec<Vec<Recursion>> {
        let domain = domain_of(table);
        let covers = self.rib.covers(domain, &host(dst));
        let entry = covers.into_iter().find_map(|(_, id)| self.rib.entries.get(id).filter(|e| e.installed().is_some()));
        let Some(path) = entry.and_then(|e| e.candidates.iter().map(|c| c.path).find(|p| self.usable(*p))) else {
            return Vec::new();
        };
        let Some(p) = self.paths.get(path).filter(|p| p.key.kind == RouteKind::Unicast) else { return Vec::new() };
        let hops = p.outcome.hops.iter().map(|h| (h.hop.dev, h.hop.via));
        hops.map(|(dev, via)| match (dev, via) {
            (None, Some(via)) => self.way_to(p.key.domain, via, Some(path)),
            _ => Vec::new(),
        })
        .collect()
    }

    /// How a tunnel finds the way to its peer; empty when it names its port.
    pub fn carrier_recursion(&self, tunnel: PortId) -> Vec<Recursion> {
        let Some(t) = self.facts.tunnels.get(&tunnel) else { return Vec::new() };
        let direct = t
            .facts
            .dev
            .and_then(|d| self.facts.port(d))
            .is_some_and(|p| p.medium == Medium::Ip || p.on_link(&t.facts.remote));
        if direct { Vec::new() } else { self.way_to(domain_of(t.facts.table), t.facts.remote, None) }
    }

    /// What carries a tunnel's outer packets now, and the limit of their length that it was told.
    pub fn tunnel_carried_by(&self, tunnel: PortId) -> Option<ObjectId> {
        self.facts.tunnels.get(&tunnel).map(|t| t.carrier)
    }

    fn way_to(&self, domain: TableId, gateway: IpAddr, from: Option<PathId>) -> Vec<Recursion> {
        let (mut via, mut domain, mut asking) = (gateway, domain, from);
        let mut steps = Vec::new();
        while steps.len() < MAX_STEPS {
            let found = self.leads_to(domain, via, asking);
            let found = match found {
                None if self.facts.falls_back(domain) => {
                    domain = TableId::MAIN;
                    self.leads_to(domain, via, asking)
                }
                found => found,
            };
            let Some((dst, path)) = found else {
                steps.push(Recursion { gateway: via, table: domain, dst: None, hop: None, of: 0 });
                break;
            };
            let hops = self.paths.get(path).map_or(&[][..], |p| &p.outcome.hops[..]);
            let used = hops.iter().find(|h| h.shares.iter().any(|s| s.usable)).or(hops.first());
            let hop = used.map(|h| HopSpec {
                via: h.hop.via,
                dev: h.hop.dev.or_else(|| h.shares.first().map(|s| s.leaf.port)).map(|d| self.facts.port_name(d)),
                weight: h.hop.weight,
                onlink: h.hop.onlink,
            });
            let next = used.filter(|h| h.hop.dev.is_none()).and_then(|h| h.hop.via);
            steps.push(Recursion { gateway: via, table: domain, dst: Some(dst), hop, of: hops.len() });
            match next {
                Some(next) => (via, asking) = (next, Some(path)),
                None => break,
            }
        }
        steps
    }

    /// The longest prefix whose usable route leads to an address, as the resolution of gateways finds it.
    fn leads_to(&self, domain: TableId, via: IpAddr, asking: Option<PathId>) -> Option<(IpNet, PathId)> {
        self.rib.covers(domain, &host(&via)).into_iter().find_map(|(_, id)| {
            let entry = self.rib.entries.get(id)?;
            let others = entry.candidates.iter().map(|c| c.path).filter(|p| Some(*p) != asking);
            let path = others
                .into_iter()
                .find(|p| self.paths.get(*p).is_some_and(|p| p.key.kind == RouteKind::Unicast && p.outcome.usable()))?;
            Some((entry.dst, path))
        })
    }
}

/// The first field in which a candidate is behind the best.
fn lost_to(rank: &Rank, best: &Rank) -> Choice {
    match () {
        () if rank.table > best.table => Choice::Table,
        () if rank.preference > best.preference => Choice::Preference,
        () if rank.metric > best.metric => Choice::Metric,
        () => Choice::Order,
    }
}
