//! Reading the tables: pages of routes in `ip route`'s order, and the answer of `ip route get`.

use super::Routing;
use crate::addr::Family;
use crate::fib::Lookup;
use crate::next_hop::PathId;
use crate::object::{Object, ObjectId};
use crate::port::{PortId, TableId};
use crate::rib::order::{walk4, walk6};
use crate::rib::{Candidate, EntryId};
use crate::spec::{HopSpec, HopState, Proto, RouteInfo, RouteKind, RouteSpec};
use crate::tables::domain_of;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which prefixes of a table (iproute2's SELECTOR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixSelect {
    /// This prefix only.
    Exact(IpNet),
    /// This prefix and all that lie within it.
    Root(IpNet),
    /// This prefix and all that contain it.
    Match(IpNet),
}

/// Which routes. Everything said must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteFilter {
    /// Of this family.
    pub family: Option<Family>,
    /// In this table; None for all.
    pub table: Option<TableId>,
    /// Of this origin.
    pub proto: Option<Proto>,
    /// Of this kind.
    pub kind: Option<RouteKind>,
    /// With a hop through this port.
    pub dev: Option<String>,
    /// With a hop over this gateway.
    pub via: Option<IpAddr>,
    /// With this preferred source.
    pub src: Option<IpAddr>,
    /// With this metric.
    pub metric: Option<u32>,
    /// By this next-hop object.
    pub nhid: Option<u32>,
    /// For these prefixes.
    pub select: Option<PrefixSelect>,
}

/// Where a page ended: hand it back for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The family.
    pub family: Family,
    /// The table.
    pub table: TableId,
    /// The last prefix shown.
    pub dst: IpNet,
}

/// The answer to "where would a packet go".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAnswer {
    /// The destination asked for.
    pub dst: IpAddr,
    /// The route that the FIB uses for it.
    pub route: RouteInfo,
    /// The forwarding object.
    pub object: ObjectId,
    /// The port that the packet would leave by; a tunnel counts. None for kinds that forward nothing.
    pub port: Option<PortId>,
    /// The neighbour that would get it on that port's link, after recursion; None for the destination itself.
    pub gateway: Option<IpAddr>,
    /// The source address that the router itself would use.
    pub src: Option<IpAddr>,
}

impl Routing {
    /// Up to `limit` routes behind `after` (a prefix is never split, so it may be a few more), and where to go on.
    /// IPv4 comes before IPv6, tables by number; within a table the order is that of `ip route show`.
    pub fn page(&self, filter: &RouteFilter, after: Option<Cursor>, limit: usize) -> (Vec<RouteInfo>, Option<Cursor>) {
        let mut out = Vec::new();
        let end = self.visit(filter, after, &mut |entry, candidate| {
            out.push(self.info(entry, candidate));
            out.len() < limit.max(1)
        });
        (out, end)
    }

    /// All that a filter selects.
    pub(super) fn select(&self, filter: &RouteFilter) -> Vec<(EntryId, Candidate)> {
        let mut out = Vec::new();
        self.visit(filter, None, &mut |entry, candidate| {
            out.push((entry, *candidate));
            true
        });
        out
    }

    /// Calls `f` for each selected route until it says that a page is full; then says where.
    fn visit(
        &self,
        filter: &RouteFilter,
        after: Option<Cursor>,
        f: &mut dyn FnMut(EntryId, &Candidate) -> bool,
    ) -> Option<Cursor> {
        for family in [Family::Inet, Family::Inet6] {
            if filter.family.is_some_and(|x| x != family) || after.is_some_and(|a| a.family > family) {
                continue;
            }
            for table in self.all_table_ids() {
                let resume = after.filter(|a| a.family == family);
                let shown = self.sourced.shown(table).0;
                if filter.table.is_some_and(|t| t != shown) || resume.is_some_and(|a| a.table > table) {
                    continue;
                }
                let start = resume.filter(|a| a.table == table).map(|a| a.dst);
                if let Some(dst) = self.visit_table(filter, family, table, start, f) {
                    return Some(Cursor { family, table, dst });
                }
            }
        }
        None
    }

    /// The tables that have or had routes, by number.
    pub fn table_ids(&self) -> Vec<TableId> {
        let mut ids = self.all_table_ids();
        ids.retain(|t| !t.is_internal());
        ids
    }

    fn all_table_ids(&self) -> Vec<TableId> {
        let mut ids: Vec<_> = self.rib.domains.keys().copied().collect();
        ids.extend([TableId::DEFAULT, TableId::LOCAL]);
        ids.sort_unstable();
        ids
    }

    fn visit_table(
        &self,
        filter: &RouteFilter,
        family: Family,
        table: TableId,
        start: Option<IpNet>,
        f: &mut dyn FnMut(EntryId, &Candidate) -> bool,
    ) -> Option<IpNet> {
        let routes = &self.rib.domains.get(&domain_of(table))?.routes;
        let mut end = None;
        let mut each = |dst: IpNet, id: EntryId| {
            let Some(e) = self.rib.entries.get(id) else { return true };
            let mut more = true;
            let mut list: Vec<_> = e.candidates.iter().filter(|c| c.table == table).collect();
            list.sort_by_key(|c| c.metric);
            for c in list {
                if self.selects(filter, c) {
                    more &= f(id, c);
                }
            }
            if !more {
                end = Some(dst);
            }
            more
        };
        let root = match filter.select {
            Some(PrefixSelect::Exact(net)) => {
                if Family::of_net(&net) == family
                    && start.is_none()
                    && let Some(id) = routes.get(&net)
                {
                    each(net, *id);
                }
                return end;
            }
            Some(PrefixSelect::Match(net)) => {
                if Family::of_net(&net) != family {
                    return None;
                }
                // Shortest first for IPv4 (address order decides among different addresses), longest first for IPv6.
                let mut found = self.rib.covers(domain_of(table), &net);
                if family == Family::Inet {
                    let key =
                        |id: &EntryId| self.rib.entries.get(*id).map(|e| (e.dst.network(), 255 - e.dst.prefix_len()));
                    found.sort_by_key(|(_, id)| key(id));
                }
                let dst = |id: EntryId| self.rib.entries.get(id).map(|e| e.dst);
                let skip =
                    start.and_then(|s| found.iter().position(|(_, id)| dst(*id) == Some(s))).map_or(0, |i| i + 1);
                for (_, id) in found.into_iter().skip(skip) {
                    if let Some(d) = dst(id)
                        && !each(d, id)
                    {
                        break;
                    }
                }
                return end;
            }
            Some(PrefixSelect::Root(net)) => net,
            None => family.default_prefix(),
        };
        match (root, start) {
            (IpNet::V4(root), start) if family == Family::Inet => {
                let after = start.and_then(|s| if let IpNet::V4(n) = s { Some(n) } else { None });
                walk4(routes, &root, after.as_ref().filter(|a| root.contains(*a)), &mut each);
            }
            (IpNet::V6(root), start) if family == Family::Inet6 => {
                let after = start.and_then(|s| if let IpNet::V6(n) = s { Some(n) } else { None });
                walk6(routes, &root, after.as_ref().filter(|a| root.contains(*a)), &mut each);
            }
            _ => {}
        }
        end
    }

    fn selects(&self, filter: &RouteFilter, c: &Candidate) -> bool {
        let Some(path) = self.paths.get(c.path) else { return false };
        let hops = || path.outcome.hops.iter().map(|h| &h.hop).chain(&path.key.hops);
        let dev = |name: &String| {
            self.facts.port_by_name(name).is_some_and(|p| {
                hops().any(|h| h.dev == Some(p.id)) || path.outcome.shares().any(|s| s.leaf.port == p.id)
            })
        };
        filter.proto.is_none_or(|p| p == c.proto)
            && filter.kind.is_none_or(|k| k == path.key.kind)
            && filter.metric.is_none_or(|m| m == c.metric)
            && filter.nhid.is_none_or(|n| path.key.nhid == Some(n))
            && filter.src.is_none_or(|s| path.key.src == Some(s))
            && filter.via.is_none_or(|v| hops().any(|h| h.via == Some(v)))
            && filter.dev.as_ref().is_none_or(dev)
    }

    /// A route as shown: with every `dev` filled in.
    pub(super) fn info(&self, entry: EntryId, c: &Candidate) -> RouteInfo {
        let e = self.rib.entries.get(entry);
        let mut route = RouteSpec::new(e.map_or_else(|| Family::Inet.default_prefix(), |e| e.dst));
        let (table, from) = self.sourced.shown(c.table);
        (route.table, route.metric, route.proto) = (Some(table), Some(c.metric), Some(c.proto));
        route.from = from;
        let mut states = Vec::new();
        if let Some(p) = self.paths.get(c.path) {
            route.kind = if p.outcome.blackhole { RouteKind::Blackhole } else { p.key.kind };
            route.src = p.key.src;
            route.mtu = Some(p.key.mtu).filter(|m| *m > 0);
            route.advmss = Some(p.key.mss).filter(|m| *m > 0);
            route.nhid = p.key.nhid;
            route.forwarder = p.key.forwarder.as_deref().map(str::to_owned);
            (route.hops, states) = self.shown_hops(c.path);
        }
        let active = e.and_then(|e| self.chains.get(e.chain)).and_then(|chain| {
            let usable = |p: &&PathId| self.paths.get(**p).is_some_and(|p| p.outcome.usable());
            chain.paths.iter().find(usable).copied()
        });
        // Two candidates may share a path; the better one is in use.
        let first = e.and_then(|e| e.candidates.iter().find(|x| Some(x.path) == active));
        RouteInfo { route, states, selected: first == Some(c) }
    }

    fn shown_hops(&self, path: PathId) -> (Vec<HopSpec>, Vec<HopState>) {
        let Some(p) = self.paths.get(path) else { return Default::default() };
        let shown = |h: &crate::next_hop::Hop, dev: Option<PortId>| HopSpec {
            via: h.via,
            dev: dev.map(|d| self.facts.port_name(d)).filter(|n| !n.is_empty()),
            weight: h.weight,
            onlink: h.onlink,
        };
        if p.key.kind != RouteKind::Unicast {
            return p.key.hops.iter().map(|h| (shown(h, h.dev), HopState::Active)).unzip();
        }
        let hops = p.outcome.hops.iter();
        hops.map(|h| (shown(&h.hop, h.hop.dev.or_else(|| h.shares.first().map(|s| s.leaf.port))), h.state)).unzip()
    }

    /// Where a packet to `dst` would go by a table (`ip route get`), `flow` standing for its flow hash. None without a
    /// route. This reads the FIB, so it shows what was committed.
    pub fn get(&self, table: TableId, dst: &IpAddr, flow: u32) -> Option<RouteAnswer> {
        self.get_from(table, dst, None, flow)
    }

    /// The same for a packet from `src`.
    pub fn get_from(&self, table: TableId, dst: &IpAddr, src: Option<&IpAddr>, flow: u32) -> Option<RouteAnswer> {
        let domain = domain_of(table);
        let mut object = self.rib.domains.get(&domain)?.fib.lookup(dst);
        if let Some(Object::Sources(s)) = self.objects.get(object) {
            object = src.map_or(s.otherwise, |src| s.pick(src));
        }
        let (entry, path) = self.best(domain, dst, src)?;
        let e = self.rib.entries.get(entry)?;
        let candidate = e.candidates.iter().find(|c| c.path == path)?;
        let route = self.info(entry, candidate);
        if route.route.kind == RouteKind::Throw {
            return None;
        }
        let (port, gateway) = self.way_out(object, dst, flow);
        let port = port.or_else(|| {
            self.dev_of(path, 0).filter(|_| matches!(route.route.kind, RouteKind::Local | RouteKind::Anycast))
        });
        let src = route.route.src.or_else(|| self.source_for(dst, gateway, port?));
        Some(RouteAnswer { dst: *dst, route, object, port, gateway, src })
    }

    fn way_out(&self, object: ObjectId, dst: &IpAddr, flow: u32) -> (Option<PortId>, Option<IpAddr>) {
        let mut id = object;
        for _ in 0..8 {
            match self.objects.get(id) {
                Some(Object::Forward(f)) => return (Some(f.port), f.gateway),
                Some(Object::Incomplete(i)) => return (Some(i.port), Some(i.gateway)),
                Some(Object::Glean(g)) => return (Some(g.port), None),
                Some(Object::Encap(t)) => return (Some(t.tunnel), None),
                Some(Object::Group(g)) => match g.buckets.get(flow as usize % g.buckets.len().max(1)) {
                    Some(member) => id = *member,
                    None => break,
                },
                Some(Object::Plugin(p)) => id = p.next,
                Some(Object::Counted(c)) => id = c.next,
                Some(Object::Sources(s)) => id = s.otherwise,
                Some(Object::Table(table)) => {
                    let Some(d) = self.rib.domains.get(&domain_of(*table)) else { break };
                    id = d.fib.lookup(dst);
                }
                Some(Object::Discard(_) | Object::Local | Object::Broadcast) | None => break,
            }
        }
        (None, None)
    }

    /// The source address for packets of the router itself: on the link of the next hop if there is one, else of the
    /// same scope on the port, else any other of that family.
    fn source_for(&self, dst: &IpAddr, gateway: Option<IpAddr>, port: PortId) -> Option<IpAddr> {
        let family = Family::of(dst);
        let info = self.facts.port(port)?;
        let next = gateway.unwrap_or(*dst);
        let near = info.addrs.iter().find(|n| Family::of_net(n) == family && n.contains(&next));
        let near = near.map(|n| n.addr()).filter(|a| scope_fits(a, dst));
        let link_local = || match dst {
            IpAddr::V6(d) if d.is_unicast_link_local() => info.link_local().map(IpAddr::V6),
            _ => None,
        };
        let others = || {
            let table = self.facts.table_of(port);
            self.facts.ports.values().filter(|p| p.table == table).find_map(|p| p.global_addr(family))
        };
        near.or_else(link_local).or_else(|| info.global_addr(family)).or_else(others)
    }

    /// Number of prefixes in a table's domain, both families.
    pub fn prefix_count(&self, table: TableId) -> usize {
        self.rib.domains.get(&domain_of(table)).map_or(0, |d| d.routes.len())
    }
}

fn scope_fits(src: &IpAddr, dst: &IpAddr) -> bool {
    match (src, dst) {
        (IpAddr::V6(s), IpAddr::V6(d)) => s.is_unicast_link_local() == d.is_unicast_link_local(),
        _ => true,
    }
}
