//! Counted routes and next hops of the running router, in the words of the control protocol.

use super::errors;
use super::execute::port_id;
use crate::control::{Answer, CountInfo, CountTarget, WireError};
use router_core::port::{Medium, PortId, PortKind, TableId};
use router_io::runtime::Control;
use std::net::IpAddr;

type Hop = (PortId, Option<IpAddr>);

const SHOW: &str = "\"duet count\" shows what is counted";

pub(super) fn add(c: &mut Control, target: &CountTarget) -> Result<Answer, WireError> {
    if let CountTarget::Route { dst, table } = target {
        c.router_mut().routing_mut().count_prefix(*table, *dst).map_err(errors::route)?;
        return Ok(Answer::Done);
    }
    let hops = hops(c, target)?;
    let routing = c.router_mut().routing_mut();
    // Members of a group may be counted already.
    let many = hops.len() > 1;
    let (mut new, mut refused) = (0, None);
    for (port, gateway) in hops {
        match routing.count_hop(port, gateway) {
            Ok(()) => new += 1,
            Err(e) => refused = Some(e),
        }
    }
    match refused {
        Some(e) if !(many && new > 0) => Err(errors::route(e)),
        _ => Ok(Answer::Done),
    }
}

pub(super) fn delete(c: &mut Control, target: &CountTarget) -> Result<Answer, WireError> {
    let there = match target {
        CountTarget::Route { dst, table } => c.router_mut().routing_mut().uncount_prefix(*table, *dst),
        _ => {
            let hops = hops(c, target)?;
            let routing = c.router_mut().routing_mut();
            hops.into_iter().fold(false, |any, (port, gateway)| routing.uncount_hop(port, gateway) | any)
        }
    };
    if there { Ok(Answer::Done) } else { Err(WireError::not_found(SHOW)) }
}

pub(super) fn clear(c: &mut Control) -> u64 {
    let routing = c.router_mut().routing_mut();
    let prefixes: Vec<_> = routing.counted_prefixes().map(|(table, dst, _)| (table, dst)).collect();
    let hops: Vec<Hop> = routing.counted_hops().map(|(port, gateway, _)| (port, gateway)).collect();
    prefixes.iter().for_each(|(table, dst)| _ = routing.uncount_prefix(*table, *dst));
    hops.iter().for_each(|(port, gateway)| _ = routing.uncount_hop(*port, *gateway));
    (prefixes.len() + hops.len()) as u64
}

pub(super) fn show(c: &Control) -> Vec<CountInfo> {
    let routing = c.router().routing();
    let info = |of, (packets, bytes)| CountInfo { of, packets, bytes };
    let routes = routing.counted_prefixes().map(|(table, dst, t)| {
        let table = if table == TableId::LOCAL { TableId::MAIN } else { table };
        info(CountTarget::Route { dst, table }, t.get())
    });
    let hops = routing.counted_hops().map(|(port, via, t)| {
        let of = CountTarget::NextHop { via, dev: Some(c.port_name(port)) };
        info(of, t.get())
    });
    routes.chain(hops).collect()
}

/// The next hops that are meant.
fn hops(c: &Control, target: &CountTarget) -> Result<Vec<Hop>, WireError> {
    let ports = c.router().ports();
    let missing = |hint: String| WireError::new("not_found", "Error: there is no such next hop.", hint);
    match target {
        CountTarget::Route { .. } => Ok(Vec::new()),
        CountTarget::Object(id) => match c.router().routing().hops_of(*id) {
            Some(hops) if !hops.is_empty() => Ok(hops),
            Some(_) => Err(missing(format!("next-hop object {id} drops what comes"))),
            None => Err(missing(format!("\"duet nexthop show\" lists the objects; {id} is none of them"))),
        },
        CountTarget::NextHop { via, dev: Some(dev) } => {
            let id = port_id(c, dev)?;
            // A link without neighbours knows no gateways.
            let neighbors = ports.get(id).is_some_and(|p| p.medium == Medium::Ethernet && p.kind != PortKind::Tunnel);
            Ok(vec![(id, via.filter(|_| neighbors))])
        }
        CountTarget::NextHop { via: Some(via), dev: None } => {
            let on: Vec<PortId> = ports.iter().filter(|p| p.on_link(via)).map(|p| p.id).collect();
            match on[..] {
                [one] => hops(c, &CountTarget::NextHop { via: Some(*via), dev: Some(c.port_name(one)) }),
                [] => {
                    Err(missing(format!("{via} is on no port's link; if it is to be found anyway, say \"dev PORT\"")))
                }
                _ => Err(missing(format!("{via} is on the links of several ports: say \"dev PORT\""))),
            }
        }
        CountTarget::NextHop { via: None, dev: None } => Err(missing("say which: an address, a port or both".into())),
    }
}
