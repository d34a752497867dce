//! Routes: changing, listing in pages, asking.

use crate::control::*;
use crate::grammar::table_name;
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::routing::{Cursor, PrefixSelect as CorePrefixSelect, RouteFilter};
use router_core::spec::{HopSpec, RouteInfo, RouteKind, RouteOp, RouteSpec};
use router_io::runtime::Control;
use std::collections::BTreeMap;

/// Routes looked at in one step of a flush.
const PAGE: usize = 4096;

pub(super) fn change(control: &mut Control, op: RouteOp, spec: &RouteSpec) -> Result<Answer, WireError> {
    control.router_mut().routing_mut().route(op, spec)?;
    Ok(Answer::Done)
}

/// What the core can filter by itself; the rest is looked at route by route.
fn filter(select: &RouteSelect) -> RouteFilter {
    RouteFilter {
        family: select.family,
        table: match select.table {
            TableSelect::Main => Some(TableId::MAIN),
            TableSelect::All => None,
            TableSelect::One(t) => Some(t),
        },
        proto: select.proto,
        kind: select.kind,
        dev: select.dev.clone(),
        via: select.via,
        src: select.src,
        metric: select.metric,
        nhid: select.nhid,
        select: select.dst.map(|d| match d {
            PrefixSelect::Root(p) => CorePrefixSelect::Root(p),
            PrefixSelect::Match(p) => CorePrefixSelect::Match(p),
            PrefixSelect::Exact(p) => CorePrefixSelect::Exact(p),
        }),
    }
}

pub(super) fn page(
    control: &mut Control,
    select: &RouteSelect,
    after: Option<RoutePlace>,
    limit: usize,
) -> (Vec<RouteInfo>, Option<RoutePlace>) {
    let cursor = after.map(|p| Cursor { family: Family::of_net(&p.dst), table: p.table, dst: p.dst });
    let (mut routes, end) = control.router().routing().page(&filter(select), cursor, limit);
    routes.retain(|r| select.matches(r));
    (routes, end.map(|c| RoutePlace { table: c.table, dst: c.dst }))
}

pub(super) fn flush(control: &mut Control, select: &RouteSelect) -> Result<Answer, WireError> {
    let mut count = 0;
    let mut after = None;
    loop {
        let (routes, next) = page(control, select, after, PAGE);
        for info in routes {
            count += u64::from(control.router_mut().routing_mut().route(RouteOp::Delete, &info.route).is_ok());
        }
        match next {
            Some(place) => after = Some(place),
            None => return Ok(Answer::Count(count)),
        }
    }
}

/// Routes per table and family, for `duet stats`.
pub(super) fn counts(control: &Control) -> BTreeMap<String, u64> {
    let routing = control.router().routing();
    let tables = routing.table_ids().into_iter().filter(|t| *t != TableId::LOCAL && *t != TableId::DEFAULT);
    tables.map(|t| (table_name(t).into_owned(), routing.prefix_count(t) as u64)).collect()
}

pub(super) fn get(control: &mut Control, get: &RouteGet) -> Result<Answer, WireError> {
    // The FIB answers: what was changed in this turn must be in it.
    control.commit();
    let router = control.router();
    let port = |name: &str| router.ports().by_name(name).ok_or_else(|| WireError::no_device(name));
    let table = match (&get.table, &get.iif) {
        (Some(t), _) => *t,
        (None, Some(iif)) => port(iif)?.table,
        (None, None) => TableId::MAIN,
    };
    let refuse = |line: &str, why: &str| Err(WireError::new("unreachable", format!("RTNETLINK answers: {line}"), why));
    let Some(answer) = router.routing().get(table, &get.dst, 0) else {
        return refuse("Network is unreachable", "no route of this table leads there");
    };
    let info = answer.route;
    match info.route.kind {
        RouteKind::Unreachable => return refuse("No route to host", "the route says unreachable"),
        RouteKind::Blackhole => return refuse("Invalid argument", "the route is a blackhole"),
        RouteKind::Prohibit => return refuse("Permission denied", "the route says prohibit"),
        _ if get.fibmatch => return Ok(Answer::Routes(vec![info])),
        _ => {}
    }
    let dev = answer.port.and_then(|p| router.ports().get(p)).map(|p| p.name.clone());
    if let Some(oif) = &get.oif
        && port(oif).map(|p| Some(&p.name) != dev.as_ref())?
    {
        return refuse("Network is unreachable", &format!("the route there does not leave by {oif}"));
    }
    let dev = match info.route.kind {
        RouteKind::Local | RouteKind::Broadcast => {
            if info.route.kind == RouteKind::Local {
                Some("lo".to_owned())
            } else {
                dev
            }
        }
        _ => dev,
    };
    Ok(Answer::Get(Box::new(GetInfo {
        dst: get.dst,
        kind: info.route.kind,
        hop: Some(HopSpec { via: answer.gateway, dev, weight: 1, onlink: false }),
        table: info.route.table_id(),
        src: get.from.or(answer.src),
        from: get.from,
        iif: get.iif.clone(),
        mtu: info.route.mtu,
        metric: info.route.metric_or_default(),
        proto: info.route.proto.unwrap_or_default(),
    })))
}
