//! What the router knows, in the words of the control protocol.

use crate::control::{
    Answer, LinkInfo, LinkSelect, NeighInfo, NeighSelect, StatsInfo, TranslateSelect, TranslatorInfo, TunnelInfo,
    WireError,
};
use router_core::neighbor::Neighbor;
use router_core::port::{PortInfo, PortKind, TableId};
use router_core::time::Instant;
use router_io::runtime::Control;

pub(super) fn neighs(c: &Control, select: &NeighSelect) -> Vec<NeighInfo> {
    c.router()
        .neighbors()
        .into_iter()
        .filter_map(|n| {
            let port = c.router().ports().get(n.port)?;
            select.matches(&n.addr, &port.name, n.state).then(|| neigh(c, &n, &port.name))
        })
        .collect()
}

/// A neighbour on the port of this name.
pub(super) fn neigh(c: &Control, n: &Neighbor, dev: &str) -> NeighInfo {
    let now = c.now();
    let age = |t: Instant| now.saturating_since(t).as_secs();
    NeighInfo {
        neigh: n.spec(dev),
        used: age(n.used),
        confirmed: age(n.confirmed),
        updated: age(n.updated),
        probes: u32::from(n.probes),
        pending: u32::try_from(n.pending).unwrap_or(u32::MAX),
    }
}

pub(super) fn links(c: &Control, select: &LinkSelect) -> Vec<LinkInfo> {
    let mut list: Vec<LinkInfo> = c
        .router()
        .ports()
        .iter()
        .filter(|p| select.dev.as_ref().is_none_or(|d| *d == p.name))
        .filter(|p| !select.up || p.admin_up)
        .filter(|p| select.kind.as_ref().is_none_or(|k| *k == p.kind.to_string()))
        .map(|p| {
            let outer = c.router().tunnel_spec(p.id).map(|spec| (spec.local, spec.remote));
            let open = c.open_ports().find(|(id, _)| p.kind == PortKind::Wireguard && *id == p.id);
            let wireguard = open.and_then(|(_, o)| Some(Box::new(o.wireguard.as_ref()?.status())));
            LinkInfo { outer, wireguard, ..link(c, p) }
        })
        .filter(|l| select.master.is_none() || l.master == select.master)
        .collect();
    list.sort_by_key(|l| l.ifindex);
    list
}

/// A port, but for the ends of a tunnel.
pub(super) fn link(c: &Control, p: &PortInfo) -> LinkInfo {
    LinkInfo {
        ifindex: p.ifindex,
        name: p.name.clone(),
        kind: p.kind,
        medium: p.medium,
        mac: p.mac,
        mtu: p.mtu,
        device: c.open_ports().find(|(id, _)| *id == p.id).map(|(_, o)| o.config.device_name().to_owned()),
        vlan: p.vlan,
        table: p.table,
        master: c.router().vrf_of(p.table).filter(|v| v.id != p.id).map(|v| v.name.clone()),
        admin_up: p.admin_up,
        up: p.up,
        addrs: p.addrs.clone(),
        tentative: p.addrs.iter().map(|n| n.addr()).filter(|a| c.router().ports().is_tentative(p.id, a)).collect(),
        duplicates: c.router().duplicates(p.id).to_vec(),
        outer: None,
        wireguard: None,
        advertises: c.router().advertisements(c.now(), p.id),
        totals: c.port_totals(p.id),
    }
}

pub(super) fn tunnels(c: &Control, name: Option<&str>) -> Vec<TunnelInfo> {
    match name {
        Some(name) => c.router().tunnel_named(c.now(), name).map(|t| tunnel(c, t)).into_iter().collect(),
        None => c.router().tunnels(c.now()).map(|t| tunnel(c, t)).collect(),
    }
}

/// Tunnels one of whose ends is not for the router itself to find.
pub(super) fn tunnel_ends(c: &Control) -> Vec<TunnelInfo> {
    let ports = c.router().ports();
    let is_port = |name: &String| ports.by_name(name).is_some();
    c.router()
        .tunnel_specs()
        .filter(|(_, spec)| {
            let o = &spec.options;
            o.remote_name.is_some() || o.local_dev.as_ref().is_some_and(|d| !is_port(d))
        })
        .filter_map(|(id, _)| c.router().tunnel(c.now(), id))
        .map(|t| tunnel(c, t))
        .collect()
}

pub(super) fn tunnel(c: &Control, t: router_core::router::TunnelInfo) -> TunnelInfo {
    TunnelInfo {
        totals: c.port_totals(t.id),
        carried: Some(t.carried),
        mtu: Some(t.mtu),
        learned_mtu: t.learned_mtu,
        life: t.life,
        path: t.path,
        errors: t.errors,
        last_error: t.last_error,
        tunnel: t.spec,
    }
}

pub(super) fn translators(c: &Control, select: &TranslateSelect) -> Result<Answer, WireError> {
    let name = select.name.as_deref();
    let mut list = Vec::new();
    for t in c.router().translators().filter(|t| name.is_none_or(|n| n == t.spec.name)) {
        let most = usize::try_from(select.sessions).unwrap_or(0);
        let sessions = match most {
            0 => Vec::new(),
            _ => c.router().nat64_sessions(c.now(), &t.spec.name, most).unwrap_or_default(),
        };
        list.push(TranslatorInfo { totals: c.port_totals(t.id), translator: t.spec, nat64: t.nat64, sessions });
    }
    match name {
        Some(name) if list.is_empty() => Err(WireError::no_device(name)),
        _ => Ok(Answer::Translators(list)),
    }
}

pub(super) fn stats(c: &Control) -> StatsInfo {
    let totals = c.totals();
    let mut ports: Vec<_> = c.router().ports().iter().collect();
    ports.sort_by_key(|p| p.ifindex);
    let routing = c.router().routing();
    // Local and default are looked up together with main and counted there.
    let tables = routing.table_ids().into_iter().filter(|t| ![TableId::LOCAL, TableId::DEFAULT].contains(t));
    StatsInfo {
        received: totals.received,
        originated: totals.originated,
        transmitted: totals.transmitted,
        delivered: totals.delivered,
        answered: totals.answered,
        held: totals.held,
        dropped: totals.dropped.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        ports: ports.into_iter().map(|p| (p.name.clone(), c.port_totals(p.id))).collect(),
        routes: tables.map(|t| (crate::grammar::table_name(t).into_owned(), routing.prefix_count(t) as u64)).collect(),
        uptime: 0,
        workers: super::inspect::workers(c),
    }
}
