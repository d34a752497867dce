//! Ports, addresses, neighbours and tunnels.

use crate::control::*;
use ipnet::IpNet;
use router_core::neighbor::SetMode;
use router_core::port::PortId;
use router_core::spec::{NeighSpec, TunnelSpec};
use router_core::time::Instant;
use router_io::runtime::Control;

fn port(control: &Control, name: &str) -> Result<PortId, WireError> {
    control.router().ports().by_name(name).map(|p| p.id).ok_or_else(|| WireError::no_device(name))
}

pub(super) fn set_neighbor(control: &mut Control, mode: SetMode, spec: NeighSpec) -> Result<Answer, WireError> {
    let id = port(control, &spec.dev)?;
    let (router, now, out) = control.router_parts();
    router.set_neighbor(now, id, mode, &spec, out)?;
    Ok(Answer::Done)
}

pub(super) fn del_neighbor(control: &mut Control, spec: &NeighSpec) -> Result<Answer, WireError> {
    let id = port(control, &spec.dev)?;
    let (router, now, out) = control.router_parts();
    router.del_neighbor(now, id, spec.addr, out)?;
    Ok(Answer::Done)
}

pub(super) fn neighbors(control: &mut Control, select: &NeighSelect) -> Vec<NeighInfo> {
    let now = control.now();
    let age = |then: Instant| now.saturating_since(then).as_secs();
    let router = control.router();
    let info = |n: router_core::neighbor::Neighbor| {
        let dev = router.ports().get(n.port).map_or_else(String::new, |p| p.name.clone());
        select.matches(&n.addr, &dev, n.state).then(|| NeighInfo {
            neigh: n.spec(&dev),
            used: age(n.used),
            confirmed: age(n.confirmed),
            updated: age(n.updated),
            probes: u32::from(n.probes),
            pending: n.pending as u32,
        })
    };
    router.neighbors().into_iter().filter_map(info).collect()
}

pub(super) fn links(control: &mut Control, select: &LinkSelect) -> Result<Answer, WireError> {
    if let Some(dev) = &select.dev {
        port(control, dev)?;
    }
    let now = control.now();
    let router = control.router();
    let ends: std::collections::BTreeMap<_, _> =
        router.tunnels(now).map(|t| (t.id, (t.spec.local, t.spec.remote))).collect();
    let mut links: Vec<_> = router
        .ports()
        .iter()
        .filter(|p| {
            select.dev.as_ref().is_none_or(|d| *d == p.name)
                && (!select.up || p.admin_up)
                && select.kind.as_ref().is_none_or(|k| *k == p.kind.to_string())
        })
        .map(|p| LinkInfo {
            ifindex: p.ifindex,
            name: p.name.clone(),
            kind: p.kind,
            medium: p.medium,
            mac: p.mac,
            mtu: p.mtu,
            vlan: p.vlan,
            table: p.table,
            admin_up: p.admin_up,
            up: p.up,
            addrs: p.addrs.clone(),
            outer: ends.get(&p.id).copied(),
            totals: control.port_totals(p.id),
        })
        .collect();
    links.sort_by_key(|l| l.ifindex);
    Ok(Answer::Links(links))
}

pub(super) fn set_link(control: &mut Control, set: &LinkSet) -> Result<Answer, WireError> {
    let id = port(control, &set.dev)?;
    if set.address.is_some() {
        return Err(WireError::new(
            "invalid",
            "RTNETLINK answers: Operation not supported",
            "the link-layer address of a port is its device's; set the key \"mac\" of the port and start again",
        ));
    }
    let (router, now, out) = control.router_parts();
    // First what can be refused, so that a refusal changes nothing.
    if let Some(mtu) = set.mtu {
        router.set_mtu(id, mtu)?;
    }
    if let Some(up) = set.up {
        router.set_link(now, id, Some(up), None, out)?;
    }
    Ok(Answer::Done)
}

pub(super) fn add_addr(control: &mut Control, a: &AddrSpec, new: bool) -> Result<Answer, WireError> {
    let id = port(control, &a.dev)?;
    let has = control.router().ports().get(id).is_some_and(|p| p.addrs.contains(&a.addr));
    if has && !new {
        return Ok(Answer::Done);
    }
    control.router_mut().add_addr(id, a.addr)?;
    Ok(Answer::Done)
}

pub(super) fn change_addr(control: &mut Control, a: &AddrSpec) -> Result<Answer, WireError> {
    let id = port(control, &a.dev)?;
    match control.router().ports().get(id).is_some_and(|p| p.addrs.contains(&a.addr)) {
        true => Ok(Answer::Done),
        false => Err(WireError::not_found(format!("{} has no address {}", a.dev, a.addr))),
    }
}

pub(super) fn del_addr(control: &mut Control, a: &AddrSpec) -> Result<Answer, WireError> {
    let id = port(control, &a.dev)?;
    control.router_mut().del_addr(id, a.addr)?;
    Ok(Answer::Done)
}

pub(super) fn flush_addrs(control: &mut Control, select: &AddrSelect) -> Result<Answer, WireError> {
    if let Some(dev) = &select.dev {
        port(control, dev)?;
    }
    let fits = |name: &str, up: bool| select.dev.as_ref().is_none_or(|d| d == name) && (!select.up || up);
    let all: Vec<(PortId, IpNet)> = control
        .router()
        .ports()
        .iter()
        .filter(|p| fits(&p.name, p.admin_up))
        .flat_map(|p| p.addrs.iter().filter(|a| select.matches(a)).map(|a| (p.id, *a)))
        .collect();
    for (id, addr) in &all {
        control.router_mut().del_addr(*id, *addr)?;
    }
    Ok(Answer::Count(all.len() as u64))
}

pub(super) fn add_tunnel(control: &mut Control, spec: TunnelSpec) -> Result<Answer, WireError> {
    let now = control.now();
    control.router_mut().add_tunnel(now, spec, Vec::new())?;
    Ok(Answer::Done)
}

pub(super) fn change_tunnel(control: &mut Control, change: &TunnelChange) -> Result<Answer, WireError> {
    let now = control.now();
    let known = control.router().tunnels(now).find(|t| t.spec.name == change.name);
    let mut spec = known.map(|t| t.spec).ok_or_else(|| WireError::no_device(&change.name))?;
    spec.local = change.local.unwrap_or(spec.local);
    spec.remote = change.remote.unwrap_or(spec.remote);
    match change.ttl {
        Some(0) => (spec.ttl, spec.ttl_inherit) = (None, true),
        Some(ttl) => (spec.ttl, spec.ttl_inherit) = (Some(ttl), false),
        None => {}
    }
    match change.tos {
        Some(1) => spec.tos = None,
        Some(tos) => spec.tos = Some(tos),
        None => {}
    }
    spec.nopmtudisc = change.nopmtudisc.unwrap_or(spec.nopmtudisc);
    spec.dev = change.dev.clone().or(spec.dev);
    control.router_mut().change_tunnel(now, spec)?;
    Ok(Answer::Done)
}

pub(super) fn del_tunnel(control: &mut Control, name: &str) -> Result<Answer, WireError> {
    let (router, now, out) = control.router_parts();
    router.del_tunnel(now, name, out)?;
    Ok(Answer::Done)
}

pub(super) fn tunnels(control: &mut Control, name: Option<&str>) -> Result<Answer, WireError> {
    let now = control.now();
    let all: Vec<_> = control
        .router()
        .tunnels(now)
        .filter(|t| name.is_none_or(|n| n == t.spec.name))
        .map(|t| TunnelInfo { totals: control.port_totals(t.id), tunnel: t.spec })
        .collect();
    match name {
        Some(n) if all.is_empty() => Err(WireError::no_device(n)),
        _ => Ok(Answer::Tunnels(all)),
    }
}
