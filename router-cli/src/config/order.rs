//! The order in which routes are added: a route whose gateway lies behind another route comes after it, whatever the
//! order of the file, because the router refuses a gateway that nothing leads to.

use super::plan::Plan;
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::RouteSpec;
use std::collections::HashMap;
use std::net::IpAddr;

/// Deepest chain of gateways behind gateways that is put in order; the router's own limit is lower.
const DEEPEST: usize = 32;

/// The routes of a plan, those first that others lean on.
pub(super) fn by_dependence(plan: &Plan) -> Vec<&RouteSpec> {
    let mut routes: Vec<&RouteSpec> = plan.routes.iter().collect();
    let behind = |r: &RouteSpec| r.hops.iter().any(|h| h.dev.is_none() && h.via.is_some_and(|v| !on_link(plan, &v)));
    if !routes.iter().any(|r| behind(r)) {
        return routes;
    }
    let index: HashMap<(TableId, IpNet), &RouteSpec> = routes.iter().map(|r| ((r.table_id(), r.dst), *r)).collect();
    let mut known = HashMap::new();
    routes.sort_by_cached_key(|r| depth(plan, &index, &mut known, r, 0));
    routes
}

/// How many routes have to be there before this one.
fn depth(
    plan: &Plan,
    index: &HashMap<(TableId, IpNet), &RouteSpec>,
    known: &mut HashMap<(TableId, IpAddr), usize>,
    route: &RouteSpec,
    level: usize,
) -> usize {
    if level >= DEEPEST {
        return 0;
    }
    let mut deepest = 0;
    for via in route.hops.iter().filter(|h| h.dev.is_none()).filter_map(|h| h.via) {
        let key = (route.table_id(), via);
        let d = match known.get(&key) {
            Some(d) => *d,
            None if on_link(plan, &via) => 0,
            None => {
                // What leads back here counts as nothing: the router will refuse it.
                known.insert(key, 0);
                let carrier = carrier(index, route.table_id(), via);
                carrier.map_or(0, |c| 1 + depth(plan, index, known, c, level + 1))
            }
        };
        known.insert(key, d);
        deepest = deepest.max(d);
    }
    deepest
}

/// The longest route to an address, in the same table or in main.
fn carrier<'r>(index: &HashMap<(TableId, IpNet), &'r RouteSpec>, table: TableId, via: IpAddr) -> Option<&'r RouteSpec> {
    let lengths = (0..=Family::of(&via).bits()).rev();
    let nets = lengths.filter_map(|len| IpNet::new(via, len).ok()).map(|n| n.trunc());
    let find = |net: IpNet, table: TableId| index.get(&(table, net)).copied();
    nets.into_iter().find_map(|net| find(net, table).or_else(|| find(net, TableId::MAIN)))
}

fn on_link(plan: &Plan, addr: &IpAddr) -> bool {
    let ports = plan.ports.values().flat_map(|p| &p.address);
    ports.chain(plan.tunnels.values().flat_map(|t| &t.address)).any(|n| n.contains(addr))
}
