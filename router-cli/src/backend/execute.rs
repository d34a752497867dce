//! One operation on the control side.

use super::{count, errors, filter, flow, inspect, show};
use crate::control::{
    AddrSelect, AddrSpec, Answer, BucketSelect, GetInfo, LinkSet, NextHopSelect, Op, RouteGet, RouteSelect,
    TunnelChange, WireError,
};
use router_core::addr::Family;
use router_core::neighbor::SetMode;
use router_core::policy::{Key, RuleAction, Rules};
use router_core::port::{PortId, PortKind, TableId};
use router_core::routing::{BucketInfo, Cursor};
use router_core::spec::{HopSpec, NeighSpec, NextHopKind, NextHopSpec, NudState, RouteKind, RouteOp, TunnelSpec};
use router_io::runtime::Control;
use std::net::IpAddr;

type Result<T = Answer> = std::result::Result<T, WireError>;

/// Executes an operation. What it changed is in force after the next commit.
pub(crate) fn execute(c: &mut Control, op: Op) -> Result {
    match op {
        Op::RouteAdd(r) => route(c, RouteOp::Add, &r),
        Op::RouteReplace(r) => route(c, RouteOp::Replace, &r),
        Op::RouteChange(r) => route(c, RouteOp::Change, &r),
        Op::RouteAppend(r) => route(c, RouteOp::Append, &r),
        Op::RoutePrepend(r) => route(c, RouteOp::Prepend, &r),
        Op::RouteDelete(r) => route(c, RouteOp::Delete, &r),
        Op::RouteFlush(select) => flush_routes(c, &select),
        Op::RouteGet(get) => route_get(c, &get),
        Op::NeighAdd(n) => set_neigh(c, SetMode::Add, &n),
        Op::NeighChange(n) => set_neigh(c, SetMode::Change, &n),
        Op::NeighReplace(n) => set_neigh(c, SetMode::Replace, &n),
        Op::NeighDelete(n) => delete_neigh(c, &n.dev, n.addr),
        Op::NeighShow(select) => Ok(Answer::Neighs(show::neighs(c, &select))),
        Op::NeighFlush(select) => {
            let gone: Vec<NeighSpec> = show::neighs(c, &select).into_iter().map(|n| n.neigh).collect();
            let mut count = 0;
            for n in gone.iter().filter(|n| !matches!(n.state, Some(NudState::Permanent | NudState::NoArp))) {
                count += u64::from(delete_neigh(c, &n.dev, n.addr).is_ok());
            }
            Ok(Answer::Count(count))
        }
        Op::LinkShow(select) => {
            if let Some(dev) = &select.dev {
                port_id(c, dev)?;
            }
            Ok(Answer::Links(show::links(c, &select)))
        }
        Op::LinkSet(set) => set_link(c, &set),
        Op::AddrAdd(a) => add_addr(c, &a),
        Op::AddrReplace(a) | Op::AddrChange(a) if owns(c, &a)? => Ok(Answer::Done),
        Op::AddrReplace(a) => add_addr(c, &a),
        Op::AddrChange(a) => Err(WireError::addr_missing(Family::of_net(&a.addr))),
        Op::AddrDelete(a) => delete_addr(c, &a),
        Op::AddrFlush(select) => flush_addrs(c, &select),
        Op::TunnelAdd(t) => {
            let (router, now, _) = c.router_parts();
            router.add_tunnel(now, *t, Vec::new()).map_err(errors::tunnel)?;
            Ok(Answer::Done)
        }
        Op::TunnelChange(change) => change_tunnel(c, &change),
        Op::TunnelDelete(name) => {
            let (router, now, out) = c.router_parts();
            router.del_tunnel(now, &name, out).map_err(errors::tunnel)?;
            Ok(Answer::Done)
        }
        Op::TunnelProbe(p) => {
            let target = match p.target {
                Some(t) => t,
                None => c.router().probe_target(&p.name).map_err(errors::tunnel)?.ok_or_else(|| {
                    WireError::new(
                        "invalid",
                        "Error: nobody to ask is known.",
                        "say whom: duet tunnel check NAME ADDRESS",
                    )
                })?,
            };
            c.router_mut().await_probes(&p.name).map_err(errors::tunnel)?;
            if p.count == 0 {
                let (router, now, out) = c.router_parts();
                router.ask_paths(now, &p.name, out).map_err(errors::tunnel)?;
            }
            let mut asked = Vec::new();
            for _ in 0..p.count.min(100) {
                let (router, now, out) = c.router_parts();
                let seq = router.probe_tunnel(now, &p.name, target, (p.size, p.tclass), out).map_err(errors::tunnel)?;
                asked.push(seq);
            }
            Ok(Answer::Asked(target, asked))
        }
        Op::TunnelAnswers(name) => Ok(Answer::Answers(c.router_mut().probe_answers(&name).map_err(errors::tunnel)?)),
        Op::PingOpen => {
            let (router, now, _) = c.router_parts();
            Ok(Answer::PingSession(router.open_ping(now)))
        }
        Op::Ping(p) => {
            let (router, now, out) = c.router_parts();
            let (from, seq) = router.ping(now, p.session, &p.ping, out).map_err(errors::ping)?;
            Ok(Answer::Pinged(from, seq))
        }
        Op::PingAnswers(session) => {
            let (router, now, _) = c.router_parts();
            Ok(Answer::PingAnswers(router.ping_answers(now, session).map_err(errors::ping)?))
        }
        Op::TunnelEnds => Ok(Answer::Tunnels(show::tunnel_ends(c))),
        Op::TunnelShow(name) => Ok(Answer::Tunnels(show::tunnels(c, name.as_deref()))),
        Op::FilterShow(select) => filter::show(c, &select),
        Op::FilterAdd(f) => filter::add(c, f),
        Op::FilterReplace(f) => filter::replace(c, f),
        Op::FilterDelete(d) => filter::delete(c, *d),
        Op::FilterSet(change) => filter::set(c, &change),
        Op::TranslateShow(select) => show::translators(c, &select),
        Op::NextHopAdd(n) => next_hop(c, RouteOp::Add, &n),
        Op::NextHopReplace(n) => next_hop(c, RouteOp::Replace, &n),
        Op::NextHopDelete(id) => delete_next_hop(c, id),
        Op::NextHopShow(select) => {
            let (routing, now) = (c.router().routing(), c.now());
            let list = routing.next_hops().filter(|n| select.matches(n)).map(|n| routing.next_hop_shown(n, now));
            Ok(Answer::Nexthops(list.collect()))
        }
        Op::NextHopBuckets(select) => buckets(c, &select),
        Op::NextHopFlush(select) => flush_next_hops(c, &select),
        Op::RuleAdd(rule) => {
            c.router_mut().add_rule(&rule).map_err(errors::rule)?;
            Ok(Answer::Done)
        }
        Op::RuleDelete(d) => {
            c.router_mut().change_rules(|r| r.delete(&d.rule, d.any_action)).map_err(errors::rule)?;
            Ok(Answer::Done)
        }
        Op::RuleFlush(family) => {
            let gone = c.router_mut().change_rules(|r| Ok(r.flush(family))).map_err(errors::rule)?;
            Ok(Answer::Count(gone as u64))
        }
        Op::RuleShow => {
            let rules = c.router().rules();
            Ok(Answer::Rules([rules.list(Family::Inet), rules.list(Family::Inet6)].concat()))
        }
        Op::VrfAdd(v) => {
            let now = c.now();
            c.router_mut().add_vrf(now, &v.name, v.table).map_err(errors::vrf)?;
            Ok(Answer::Done)
        }
        Op::VrfDelete(name) => {
            port_id(c, &name)?;
            let (router, now, out) = c.router_parts();
            router.del_vrf(now, &name, out).map_err(errors::vrf)?;
            Ok(Answer::Done)
        }
        Op::Explain(q) => {
            let answer = c.router().explain(c.now(), &q).map_err(errors::explain)?;
            Ok(Answer::Explain(Box::new(answer)))
        }
        Op::TraceAdd(select) => inspect::trace_add(c, &select),
        Op::TraceShow => Ok(Answer::Traces(inspect::traces(c))),
        Op::TraceDelete(id) => match c.clear_trace(id) {
            true => Ok(Answer::Done),
            false => Err(WireError::not_found("\"duet trace show\" lists the traces")),
        },
        Op::TraceClear => Ok(Answer::Count(c.clear_traces() as u64)),
        Op::CountAdd(target) => count::add(c, &target),
        Op::CountShow => Ok(Answer::Counts(count::show(c))),
        Op::CountDelete(target) => count::delete(c, &target),
        Op::CountClear => Ok(Answer::Count(count::clear(c))),
        Op::FlowShow { limit } => Ok(Answer::Flows(flow::show(c, limit as usize))),
        Op::FlowFlush => Ok(Answer::Count(c.flush_flows() as u64)),
        Op::Drops => Ok(Answer::Drops(inspect::drops(c))),
        Op::Stats => Ok(Answer::Stats(Box::new(show::stats(c)))),
        Op::RouteShow(_)
        | Op::RoutePage(_)
        | Op::Capture(_)
        | Op::Monitor(_)
        | Op::Reload
        | Op::Broker(_)
        | Op::Version
        | Op::Batch { .. } => Err(WireError::protocol("Error: this operation is not for the control thread.")),
    }
}

pub(super) fn port_id(c: &Control, name: &str) -> Result<PortId> {
    c.router().ports().by_name(name).map(|p| p.id).ok_or_else(|| WireError::no_device(name))
}

fn route(c: &mut Control, op: RouteOp, spec: &router_core::spec::RouteSpec) -> Result {
    c.router_mut().routing_mut().route(op, spec).map_err(errors::route)?;
    Ok(Answer::Done)
}

/// Removes what the same selector shows.
fn flush_routes(c: &mut Control, select: &RouteSelect) -> Result {
    let (mut count, mut after) = (0, None);
    loop {
        let (n, next) = flush_page(c, select, after);
        count += n;
        match next {
            Some(_) => after = next,
            None => return Ok(Answer::Count(count)),
        }
    }
}

/// Removes the selected ones among the next thousand routes, so that a long flush can leave the control thread between.
pub(super) fn flush_page(c: &mut Control, select: &RouteSelect, after: Option<Cursor>) -> (u64, Option<Cursor>) {
    let (page, next) = c.router().routing().page(&super::coarse(select), after, 1000);
    let mut count = 0;
    for info in page.iter().filter(|i| select.matches(i)) {
        let removed = c.router_mut().routing_mut().route(RouteOp::Delete, &info.route);
        count += u64::from(removed.is_ok());
    }
    (count, next)
}

fn route_get(c: &Control, get: &RouteGet) -> Result {
    let refuse =
        |line: &str, hint: String| Err(WireError::new("unreachable", format!("RTNETLINK answers: {line}"), hint));
    for dev in [&get.iif, &get.oif].into_iter().flatten() {
        port_id(c, dev)?;
    }
    let entered = get.iif.as_ref().and_then(|dev| c.router().ports().by_name(dev)).map(|p| p.table);
    let vrf = match &get.vrf {
        Some(name) => {
            let port = port_id(c, name)?;
            let vrf = c.router().ports().get(port).filter(|p| p.kind == PortKind::Vrf).map(|p| p.table);
            Some(vrf.ok_or_else(|| errors::vrf(router_core::router::VrfError::NotVrf(name.clone())))?)
        }
        None => None,
    };
    let home = get.table.or(vrf).or(entered).unwrap_or(TableId::MAIN);
    let table = if get.table.is_some() { Some(home) } else { by_rules(c, get, home)? };
    let Some(table) = table else {
        return refuse("Network is unreachable", format!("no rule leads to a table with a route to {}", get.dst));
    };
    let oif = |name: Option<&str>| get.oif.is_none() || get.oif.as_deref() == name;
    let Some(answer) = c.router().routing().get_from(table, &get.dst, get.from.as_ref(), 0) else {
        return refuse("Network is unreachable", format!("no route to {} and no default route", get.dst));
    };
    let route = &answer.route.route;
    let text = || format!("by {}", crate::output::route_line(route));
    match route.kind {
        RouteKind::Unreachable => return refuse("No route to host", text()),
        RouteKind::Blackhole => return refuse("Invalid argument", text()),
        RouteKind::Prohibit => return refuse("Permission denied", text()),
        RouteKind::Throw => return refuse("Network is unreachable", text()),
        RouteKind::Unicast | RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast => {}
    }
    if get.fibmatch {
        return Ok(Answer::Routes(vec![answer.route.clone()]));
    }
    let port = answer.port.and_then(|id| c.router().ports().get(id));
    let dev = port.map(|p| p.name.clone()).or_else(|| route.hops.iter().find_map(|h| h.dev.clone()));
    if route.kind == RouteKind::Unicast && answer.port.is_none() {
        return refuse("Network is unreachable", format!("no next hop is usable {}", text()));
    }
    if !oif(dev.as_deref()) {
        return refuse("Network is unreachable", format!("the route leaves by {}", dev.unwrap_or_default()));
    }
    // Inside a tunnel there is no neighbour: the gateway is only the route's own word.
    let tunnel = port.is_some_and(|p| p.kind == PortKind::Tunnel);
    let said = if tunnel && route.hops.len() == 1 { route.hops[0].via } else { None };
    Ok(Answer::Get(Box::new(GetInfo {
        dst: get.dst,
        kind: route.kind,
        hop: Some(HopSpec { via: answer.gateway.or(said), dev, weight: 1, onlink: false }),
        table: route.table_id(),
        src: get.from.or(answer.src),
        from: get.from,
        iif: get.iif.clone(),
        mtu: route.mtu,
        metric: route.metric_or_default(),
        proto: route.proto.unwrap_or(router_core::spec::proto::BOOT),
    })))
}

/// The table that the rules lead to; None: they lead nowhere.
fn by_rules(c: &Control, get: &RouteGet, home: TableId) -> Result<Option<TableId>> {
    let tables = c.router().tables();
    let family = Family::of(&get.dst);
    let Some(policy) = tables.policy.as_ref().filter(|p| p.rules(family)) else { return Ok(Some(home)) };
    let bits = |a: &IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let iif = get.iif.as_ref().and_then(|dev| c.router().ports().by_name(dev)).map_or(PortId::NONE, |p| p.id);
    let key = Key {
        family,
        src: get.from.as_ref().map_or(0, bits),
        dst: bits(&get.dst),
        iif,
        table: home,
        mark: policy.mark(get.mark.unwrap_or(0), iif),
        dscp: get.tos.unwrap_or(0) >> 2,
        proto: get.ipproto.unwrap_or(0),
        ports: (get.sport.is_some() || get.dport.is_some()).then(|| (get.sport.unwrap_or(0), get.dport.unwrap_or(0))),
    };
    let found = policy.decide(&tables.routing, &key, tables.lookup(home, &get.dst));
    let rule = found.rule.and_then(|i| c.router().rules().list(family).get(i));
    let line = match rule.map(|r| r.action) {
        Some(RuleAction::Prohibit) => "Permission denied",
        Some(RuleAction::Blackhole) => "Invalid argument",
        Some(RuleAction::Unreachable) => "No route to host",
        _ => return Ok(found.table),
    };
    let text = rule.map_or_else(String::new, |r| format!("by rule {}: {r}", r.priority.unwrap_or(0)));
    Err(WireError::new("unreachable", format!("RTNETLINK answers: {line}"), text))
}

fn set_neigh(c: &mut Control, mode: SetMode, n: &NeighSpec) -> Result {
    let port = port_id(c, &n.dev)?;
    let (router, now, out) = c.router_parts();
    router.set_neighbor(now, port, mode, n, out).map_err(errors::neigh)?;
    Ok(Answer::Done)
}

fn delete_neigh(c: &mut Control, dev: &str, addr: IpAddr) -> Result {
    let port = port_id(c, dev)?;
    let (router, now, out) = c.router_parts();
    router.del_neighbor(now, port, addr, out).map_err(errors::neigh)?;
    Ok(Answer::Done)
}

fn set_link(c: &mut Control, set: &LinkSet) -> Result {
    let port = port_id(c, &set.dev)?;
    if set.address.is_some() {
        return Err(errors::unsupported("write mac = \"...\" in the port's section and run \"duet reload\""));
    }
    let (router, now, out) = c.router_parts();
    if let Some(vrf) = &set.master {
        router.set_vrf(port, Some(vrf.as_str()).filter(|v| !v.is_empty())).map_err(errors::vrf)?;
    }
    if let Some(mark) = set.mark {
        let change = |rules: &mut Rules| {
            rules.set_mark(port, mark);
            Ok(())
        };
        router.change_rules(change).map_err(errors::rule)?;
    }
    if let Some(mtu) = set.mtu {
        router.set_mtu(port, mtu).map_err(errors::port)?;
    }
    if set.up.is_some() {
        router.set_link(now, port, set.up, None, out).map_err(errors::port)?;
    }
    Ok(Answer::Done)
}

fn owns(c: &Control, a: &AddrSpec) -> Result<bool> {
    let port = port_id(c, &a.dev)?;
    Ok(c.router().ports().get(port).is_some_and(|p| p.addrs.contains(&a.addr)))
}

fn add_addr(c: &mut Control, a: &AddrSpec) -> Result {
    let port = port_id(c, &a.dev)?;
    c.router_mut().add_addr(port, a.addr).map_err(errors::port)?;
    Ok(Answer::Done)
}

fn delete_addr(c: &mut Control, a: &AddrSpec) -> Result {
    let port = port_id(c, &a.dev)?;
    c.router_mut().del_addr(port, a.addr).map_err(errors::port)?;
    Ok(Answer::Done)
}

fn flush_addrs(c: &mut Control, select: &AddrSelect) -> Result {
    if let Some(dev) = &select.dev {
        port_id(c, dev)?;
    }
    let ports = c.router().ports().iter().filter(|p| select.dev.as_ref().is_none_or(|d| *d == p.name));
    let gone: Vec<(PortId, ipnet::IpNet)> = ports
        .filter(|p| !select.up || p.admin_up)
        .flat_map(|p| p.addrs.iter().map(|a| (p.id, *a)))
        .filter(|(_, a)| select.matches(a))
        .collect();
    let mut count = 0;
    for (port, addr) in gone {
        count += u64::from(c.router_mut().del_addr(port, addr).is_ok());
    }
    Ok(Answer::Count(count))
}

pub(super) fn tunnel_spec(c: &Control, name: &str) -> Result<TunnelSpec> {
    let found = c.router().tunnel_named(c.now(), name).map(|t| t.spec);
    found.ok_or_else(|| WireError::no_device(name))
}

fn change_tunnel(c: &mut Control, change: &TunnelChange) -> Result {
    let mut spec = tunnel_spec(c, &change.name)?;
    spec.local = change.local.unwrap_or(spec.local);
    spec.remote = change.remote.unwrap_or(spec.remote);
    if let Some(ttl) = change.ttl {
        spec.ttl = Some(ttl).filter(|t| *t != 0);
        spec.ttl_inherit = ttl == 0;
    }
    if let Some(tos) = change.tos {
        spec.tos = Some(tos).filter(|t| *t != 1);
    }
    spec.nopmtudisc = change.nopmtudisc.unwrap_or(spec.nopmtudisc);
    spec.dev = change.dev.clone().or(spec.dev);
    spec.options.merge(&change.options);
    spec.options.ignore_df = change.ignore_df.unwrap_or(spec.options.ignore_df);
    let now = c.now();
    c.router_mut().change_tunnel(now, spec).map_err(errors::tunnel)?;
    Ok(Answer::Done)
}

fn next_hop(c: &mut Control, op: RouteOp, n: &NextHopSpec) -> Result {
    c.router_mut().routing_mut().next_hop(op, n).map_err(errors::route)?;
    Ok(Answer::Done)
}

fn delete_next_hop(c: &mut Control, id: u32) -> Result {
    next_hop(c, RouteOp::Delete, &NextHopSpec::new(id, NextHopKind::Blackhole))
}

fn buckets(c: &Control, select: &BucketSelect) -> Result {
    let (routing, now) = (c.router().routing(), c.now());
    let leaves_by = |nhid: u32| {
        select.dev.as_ref().is_none_or(|dev| match routing.next_hop_by_id(nhid).map(|n| &n.kind) {
            Some(NextHopKind::Hop(h)) => h.dev.as_ref() == Some(dev),
            _ => false,
        })
    };
    let fits = |b: &BucketInfo| {
        select.index.is_none_or(|i| i == b.index) && select.nhid.is_none_or(|n| n == b.nhid) && leaves_by(b.nhid)
    };
    let found: Vec<BucketInfo> = routing.buckets(select.id, now).filter(fits).collect();
    // `get` asks for one bucket, and wants to know why it is not there.
    if let (true, Some(id), Some(_)) = (found.is_empty(), select.id, select.index) {
        let refuse = |line: &str, hint: String| Err(WireError::new("not_found", line, hint));
        match routing.next_hop_by_id(id) {
            None => {}
            Some(NextHopSpec { resilient: Some(_), .. }) => {
                let last = routing.buckets(Some(id), now).count().saturating_sub(1);
                return refuse("Error: Bucket index out of bounds.", format!("group {id} has buckets 0 to {last}"));
            }
            Some(NextHopSpec { kind: NextHopKind::Group(_), .. }) => {
                let hint = "only groups of `type resilient` have buckets that can be shown".to_owned();
                return refuse("Error: Nexthop group not of type resilient.", hint);
            }
            Some(_) => return refuse("Error: Not a nexthop group.", "\"nexthop show groups\" lists them".into()),
        }
    }
    Ok(Answer::Buckets(found))
}

fn flush_next_hops(c: &mut Control, select: &NextHopSelect) -> Result {
    let mut gone: Vec<(bool, u32)> = c
        .router()
        .routing()
        .next_hops()
        .filter(|n| select.matches(n))
        .map(|n| (!matches!(n.kind, NextHopKind::Group(_)), n.id))
        .collect();
    // Groups first, so that their members are free.
    gone.sort_unstable();
    let mut count = 0;
    for (_, id) in gone {
        count += u64::from(delete_next_hop(c, id).is_ok());
    }
    Ok(Answer::Count(count))
}
