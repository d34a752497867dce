//! A stand-in for the router: tables in memory, no packets. Tests of the grammar, the output and the protocol run on it.

use crate::control::*;
use router_core::addr::Family;
use router_core::policy::Rules;
use router_core::port::{Medium, PortKind, TableId};
use router_core::spec::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// See the module.
#[derive(Debug, Default)]
pub struct FakeBackend {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<LinkInfo>,
    routes: BTreeMap<(TableId, IpNet), Vec<RouteInfo>>,
    neighs: BTreeMap<(IpAddr, String), NeighSpec>,
    tunnels: BTreeMap<String, TunnelSpec>,
    nexthops: BTreeMap<u32, NextHopSpec>,
    rules: Rules,
}

impl FakeBackend {
    /// With a loopback and Ethernet ports of these names, up, with link-layer addresses 02:00:00:00:00:01 and on.
    pub fn with_ports(names: &[&str]) -> Self {
        let fake = FakeBackend::default();
        let mut s = fake.lock();
        s.add_link("lo", PortKind::Loopback, 65536);
        for name in names {
            s.add_link(name, PortKind::Packet, 1500);
        }
        drop(s);
        fake
    }

    /// Sets the carrier of a port.
    pub fn set_carrier(&self, name: &str, up: bool) {
        let mut s = self.lock();
        if let Some(l) = s.links.iter_mut().find(|l| l.name == name) {
            l.up = up && l.admin_up;
        }
        for info in s.routes.values_mut().flatten() {
            for (hop, state) in info.route.hops.iter().zip(&mut info.states) {
                if hop.dev.as_deref() == Some(name) && info.route.kind != RouteKind::Local {
                    *state = if up { HopState::Active } else { HopState::LinkDown };
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for FakeBackend {
    fn call(&self, op: Op) -> Result<Answer, WireError> {
        let mut s = self.lock();
        match op {
            Op::Batch { ops, force, .. } => Ok(Answer::Batch(run_batch(ops, force, |op| s.call(op)))),
            op => s.call(op),
        }
    }

    fn routes(
        &self,
        select: &RouteSelect,
        after: Option<&RoutePlace>,
        limit: usize,
    ) -> Result<(Vec<RouteInfo>, Option<RoutePlace>), WireError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let s = self.lock();
        let from = after.map_or(Unbounded, |p| Excluded((p.table, p.dst)));
        let mut page = Vec::new();
        for (seen, ((table, dst), routes)) in s.routes.range((from, Unbounded)).enumerate() {
            page.extend(routes.iter().filter(|r| select.matches(r)).cloned());
            if page.len() >= limit || seen + 1 >= limit * 4 {
                return Ok((page, Some(RoutePlace { table: *table, dst: *dst })));
            }
        }
        Ok((page, None))
    }
}

impl State {
    fn add_link(&mut self, name: &str, kind: PortKind, mtu: u32) {
        let n = self.links.len() as u32;
        let ethernet = kind == PortKind::Packet;
        self.links.push(LinkInfo {
            ifindex: n + 1,
            name: name.into(),
            kind,
            medium: if ethernet { Medium::Ethernet } else { Medium::Ip },
            mac: ethernet.then_some(router_core::addr::MacAddr([2, 0, 0, 0, 0, n as u8])),
            mtu,
            device: None,
            vlan: None,
            table: TableId::MAIN,
            master: None,
            admin_up: true,
            up: true,
            addrs: Vec::new(),
            tentative: Vec::new(),
            duplicates: Vec::new(),
            outer: None,
            wireguard: None,
            advertises: Vec::new(),
            totals: Default::default(),
        });
    }

    fn link(&mut self, name: &str) -> Result<&mut LinkInfo, WireError> {
        self.links.iter_mut().find(|l| l.name == name).ok_or_else(|| WireError::no_device(name))
    }

    fn call(&mut self, op: Op) -> Result<Answer, WireError> {
        match op {
            Op::RouteAdd(r) => self.route(RouteOp::Add, *r),
            Op::RouteReplace(r) => self.route(RouteOp::Replace, *r),
            Op::RouteChange(r) => self.route(RouteOp::Change, *r),
            Op::RouteAppend(r) => self.route(RouteOp::Append, *r),
            Op::RoutePrepend(r) => self.route(RouteOp::Prepend, *r),
            Op::RouteDelete(r) => self.delete_route(&r),
            Op::RouteFlush(select) => {
                let before: usize = self.routes.values().map(Vec::len).sum();
                self.routes.values_mut().for_each(|v| v.retain(|r| !select.matches(r)));
                self.routes.retain(|_, v| !v.is_empty());
                let after: usize = self.routes.values().map(Vec::len).sum();
                Ok(Answer::Count((before - after) as u64))
            }
            Op::RouteGet(g) => self.get(&g),
            Op::NeighAdd(n) => self.neigh(n, Some(false)),
            Op::NeighChange(n) => self.neigh(n, Some(true)),
            Op::NeighReplace(n) => self.neigh(n, None),
            Op::NeighDelete(n) => match self.neighs.remove(&(n.addr, n.dev)) {
                Some(_) => Ok(Answer::Done),
                None => Err(WireError::not_found("")),
            },
            Op::NeighShow(select) => Ok(Answer::Neighs(
                self.neighs
                    .values()
                    .filter(|n| select.matches(&n.addr, &n.dev, n.state.unwrap_or(NudState::Permanent)))
                    .map(|n| NeighInfo { neigh: n.clone(), used: 0, confirmed: 0, updated: 0, probes: 0, pending: 0 })
                    .collect(),
            )),
            Op::NeighFlush(select) => {
                let before = self.neighs.len();
                self.neighs.retain(|_, n| {
                    let state = n.state.unwrap_or(NudState::Permanent);
                    state == NudState::Permanent || !select.matches(&n.addr, &n.dev, state)
                });
                Ok(Answer::Count((before - self.neighs.len()) as u64))
            }
            Op::LinkShow(select) => {
                if let Some(dev) = &select.dev {
                    self.link(dev)?;
                }
                let fits = |l: &&LinkInfo| {
                    select.dev.as_ref().is_none_or(|d| *d == l.name)
                        && (!select.up || l.admin_up)
                        && select.kind.as_ref().is_none_or(|k| *k == l.kind.to_string())
                };
                Ok(Answer::Links(self.links.iter().filter(fits).cloned().collect()))
            }
            Op::LinkSet(set) => {
                let l = self.link(&set.dev)?;
                if let Some(up) = set.up {
                    (l.admin_up, l.up) = (up, up);
                }
                l.mtu = set.mtu.unwrap_or(l.mtu);
                l.mac = set.address.or(l.mac);
                Ok(Answer::Done)
            }
            Op::AddrAdd(a) => self.add_addr(a, true),
            Op::AddrReplace(a) => self.add_addr(a, false),
            Op::AddrChange(a) => match self.link(&a.dev)?.addrs.contains(&a.addr) {
                true => Ok(Answer::Done),
                false => Err(WireError::not_found("")),
            },
            Op::AddrDelete(a) => self.delete_addr(&a),
            Op::AddrFlush(select) => {
                let all: Vec<AddrSpec> = self
                    .links
                    .iter()
                    .filter(|l| select.dev.as_ref().is_none_or(|d| *d == l.name))
                    .flat_map(|l| l.addrs.iter().map(|a| AddrSpec { dev: l.name.clone(), addr: *a }))
                    .filter(|a| select.matches(&a.addr))
                    .collect();
                for a in &all {
                    self.delete_addr(a)?;
                }
                Ok(Answer::Count(all.len() as u64))
            }
            Op::TunnelAdd(t) => {
                if self.links.iter().any(|l| l.name == t.name) {
                    return Err(WireError::exists(""));
                }
                self.add_link(&t.name, PortKind::Tunnel, t.mtu.unwrap_or(1480));
                let (local, remote) = (t.local, t.remote);
                self.link(&t.name)?.outer = Some((local, remote));
                self.tunnels.insert(t.name.clone(), *t);
                Ok(Answer::Done)
            }
            Op::TunnelChange(c) => {
                let t = self.tunnels.get_mut(&c.name).ok_or_else(|| WireError::no_device(&c.name))?;
                t.remote = c.remote.unwrap_or(t.remote);
                t.local = c.local.unwrap_or(t.local);
                t.ttl = c.ttl.or(t.ttl);
                t.options.merge(&c.options);
                Ok(Answer::Done)
            }
            Op::TunnelDelete(name) => {
                self.tunnels.remove(&name).ok_or_else(|| WireError::no_device(&name))?;
                self.links.retain(|l| l.name != name);
                Ok(Answer::Done)
            }
            // The stand-in has none.
            Op::FilterAdd(_) | Op::FilterReplace(_) | Op::FilterDelete(_) | Op::FilterSet(_) => Ok(Answer::Done),
            Op::FilterShow(_) => Ok(Answer::Filters(crate::control::FiltersInfo::default())),
            Op::TranslateShow(_) => Ok(Answer::Translators(Vec::new())),
            Op::TunnelEnds => Ok(Answer::Tunnels(Vec::new())),
            Op::TunnelProbe(p) => Err(WireError::no_device(&p.name)),
            Op::PingOpen => Ok(Answer::PingSession(7)),
            Op::Ping(p) => Ok(Answer::Pinged(p.ping.target, 1)),
            Op::PingAnswers(_) => Ok(Answer::PingAnswers(Vec::new())),
            Op::TunnelAnswers(_) => Ok(Answer::Answers(Vec::new())),
            Op::TunnelShow(name) => Ok(Answer::Tunnels(
                self.tunnels
                    .values()
                    .filter(|t| name.as_ref().is_none_or(|n| *n == t.name))
                    .map(|t| TunnelInfo::of(t.clone()))
                    .collect(),
            )),
            Op::NextHopAdd(n) if self.nexthops.contains_key(&n.id) => Err(WireError::exists("")),
            Op::NextHopAdd(n) | Op::NextHopReplace(n) => {
                self.nexthops.insert(n.id, n);
                Ok(Answer::Done)
            }
            Op::NextHopDelete(id) => match self.nexthops.remove(&id) {
                Some(_) => Ok(Answer::Done),
                None => Err(WireError::not_found("")),
            },
            Op::NextHopShow(select) => {
                Ok(Answer::Nexthops(self.nexthops.values().filter(|n| select.matches(n)).cloned().collect()))
            }
            Op::NextHopBuckets(_) => Ok(Answer::Buckets(Vec::new())),
            Op::NextHopFlush(select) => {
                let before = self.nexthops.len();
                self.nexthops.retain(|_, n| !select.matches(n));
                Ok(Answer::Count((before - self.nexthops.len()) as u64))
            }
            Op::RuleAdd(rule) => {
                self.rules.add(&rule).map_err(|e| WireError::exists(e.to_string()))?;
                Ok(Answer::Done)
            }
            Op::RuleDelete(d) => {
                self.rules.delete(&d.rule, d.any_action).map_err(|_| WireError::not_found(""))?;
                Ok(Answer::Done)
            }
            Op::RuleFlush(family) => Ok(Answer::Count(self.rules.flush(family) as u64)),
            Op::RuleShow => Ok(Answer::Rules([self.rules.list(Family::Inet), self.rules.list(Family::Inet6)].concat())),
            Op::VrfAdd(v) => {
                self.add_link(&v.name, PortKind::Vrf, 65_536);
                self.link(&v.name)?.table = v.table;
                self.rules.need_l3mdev();
                Ok(Answer::Done)
            }
            Op::VrfDelete(name) => {
                self.link(&name)?;
                self.links.retain(|l| l.name != name);
                Ok(Answer::Done)
            }
            Op::Explain(_)
            | Op::Capture(_)
            | Op::TraceAdd(_)
            | Op::TraceShow
            | Op::TraceDelete(_)
            | Op::TraceClear
            | Op::CountAdd(_)
            | Op::CountShow
            | Op::CountDelete(_)
            | Op::CountClear
            | Op::FlowShow { .. }
            | Op::FlowFlush
            | Op::Drops => Err(WireError::new("failed", "Error: no packets here.", "")),
            Op::Stats => Ok(Answer::Stats(Box::default())),
            Op::Version => Ok(Answer::Version(VersionInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                name: "fake".into(),
                pid: std::process::id(),
                protocol: VERSION,
            })),
            Op::Broker(_) => Err(WireError::new("invalid", "Error: this router is no tunnel broker.", "")),
            Op::Reload => Ok(Answer::Text("nothing to reload".into())),
            Op::RouteShow(_) | Op::RoutePage(_) | Op::Monitor(_) | Op::Batch { .. } => {
                Err(WireError::protocol("not here"))
            }
        }
    }

    fn on_link(&self, addr: &IpAddr) -> Option<String> {
        self.links.iter().find(|l| l.addrs.iter().any(|n| n.contains(addr))).map(|l| l.name.clone())
    }

    fn route(&mut self, op: RouteOp, mut r: RouteSpec) -> Result<Answer, WireError> {
        for hop in &mut r.hops {
            if let Some(dev) = &hop.dev {
                self.link(&dev.clone())?;
            } else if let Some(via) = hop.via {
                hop.dev = self.on_link(&via);
            }
        }
        if let Some(id) = r.nhid {
            let n = self.nexthops.get(&id).ok_or_else(|| {
                WireError::new("not_found", "Error: Nexthop id does not exist.", "\"duet nexthop\" lists them")
            })?;
            match &n.kind {
                NextHopKind::Hop(h) => r.hops = vec![h.clone()],
                NextHopKind::Blackhole => r.kind = RouteKind::Blackhole,
                NextHopKind::Group(members) => {
                    for (id, weight) in members {
                        if let Some(NextHopKind::Hop(h)) = self.nexthops.get(id).map(|n| &n.kind) {
                            r.hops.push(HopSpec { weight: *weight, ..h.clone() });
                        }
                    }
                }
            }
        }
        r.table = Some(r.table_id());
        r.metric = Some(r.metric_or_default());
        r.proto = Some(r.proto.unwrap_or(proto::BOOT));
        let states =
            r.hops.iter().map(|h| if h.dev.is_some() { HopState::Active } else { HopState::Unresolved }).collect();
        let list = self.routes.entry((r.table_id(), r.dst)).or_default();
        let same = list.iter().position(|i| i.route.metric == r.metric);
        let info = RouteInfo { route: r, states, selected: true };
        match (op, same) {
            (RouteOp::Add, Some(_)) => return Err(WireError::exists("")),
            (RouteOp::Change, None) => {
                self.routes.retain(|_, v| !v.is_empty());
                return Err(WireError::not_found(""));
            }
            (RouteOp::Replace | RouteOp::Change, Some(i)) => list[i] = info,
            (RouteOp::Prepend, _) => list.insert(0, info),
            _ => list.push(info),
        }
        Ok(Answer::Done)
    }

    fn delete_route(&mut self, r: &RouteSpec) -> Result<Answer, WireError> {
        let missing = || WireError::no_route("");
        let list = self.routes.get_mut(&(r.table_id(), r.dst)).ok_or_else(missing)?;
        let fits = |i: &RouteInfo| {
            (r.kind == RouteKind::Unicast || r.kind == i.route.kind)
                && r.metric.is_none_or(|m| i.route.metric == Some(m))
                && r.proto.is_none_or(|p| i.route.proto == Some(p))
                && r.hops.iter().all(|h| {
                    i.route
                        .hops
                        .iter()
                        .any(|o| h.via.is_none_or(|v| o.via == Some(v)) && (h.dev.is_none() || h.dev == o.dev))
                })
        };
        let at = list.iter().position(fits).ok_or_else(missing)?;
        list.remove(at);
        self.routes.retain(|_, v| !v.is_empty());
        Ok(Answer::Done)
    }

    fn neigh(&mut self, n: NeighSpec, must_exist: Option<bool>) -> Result<Answer, WireError> {
        self.link(&n.dev.clone())?;
        let key = (n.addr, n.dev.clone());
        match (must_exist, self.neighs.contains_key(&key)) {
            (Some(false), true) => return Err(WireError::exists("")),
            (Some(true), false) => return Err(WireError::not_found("")),
            _ => {}
        }
        self.neighs.insert(key, n);
        Ok(Answer::Done)
    }

    /// What Linux makes of an address: local, link and broadcast routes.
    fn add_addr(&mut self, a: AddrSpec, new: bool) -> Result<Answer, WireError> {
        let l = self.link(&a.dev)?;
        if l.addrs.contains(&a.addr) {
            return if new { Err(WireError::addr_exists(Family::of_net(&a.addr))) } else { Ok(Answer::Done) };
        }
        let primary = l.addrs.iter().find(|n| n.trunc() == a.addr.trunc()).map_or(a.addr.addr(), IpNet::addr);
        l.addrs.push(a.addr);
        let family = Family::of_net(&a.addr);
        let v4 = family == Family::Inet;
        let mut put = |kind: RouteKind, dst: IpNet, table: TableId, metric: u32| {
            let route = RouteSpec {
                kind,
                table: Some(table),
                metric: Some(metric),
                proto: Some(proto::KERNEL),
                src: v4.then_some(primary),
                hops: vec![HopSpec { dev: Some(a.dev.clone()), weight: 1, ..HopSpec::default() }],
                ..RouteSpec::new(dst)
            };
            let info = RouteInfo { route, states: vec![HopState::Active], selected: true };
            let list = self.routes.entry((table, dst)).or_default();
            // Of two addresses in one link prefix, the first makes its routes.
            if list.iter().all(|i| i.route.hops != info.route.hops) {
                list.push(info);
            }
        };
        put(RouteKind::Local, IpNet::from(a.addr.addr()), TableId::LOCAL, 0);
        if a.addr.prefix_len() < family.bits() {
            put(RouteKind::Unicast, a.addr.trunc(), TableId::MAIN, if v4 { 0 } else { 256 });
            if let IpNet::V4(n) = a.addr {
                put(RouteKind::Broadcast, IpNet::from(IpAddr::V4(n.broadcast())), TableId::LOCAL, 0);
            }
        }
        Ok(Answer::Done)
    }

    fn delete_addr(&mut self, a: &AddrSpec) -> Result<Answer, WireError> {
        let l = self.link(&a.dev)?;
        let at = l
            .addrs
            .iter()
            .position(|n| *n == a.addr)
            .ok_or_else(|| WireError::addr_missing(Family::of_net(&a.addr)))?;
        l.addrs.remove(at);
        let src = a.addr.addr();
        self.routes.values_mut().for_each(|v| v.retain(|r| r.route.src != Some(src)));
        self.routes.retain(|_, v| !v.is_empty());
        Ok(Answer::Done)
    }

    fn get(&self, g: &RouteGet) -> Result<Answer, WireError> {
        let best = [TableId::LOCAL, TableId::MAIN, TableId::DEFAULT].iter().find_map(|t| {
            self.routes
                .iter()
                .filter(|((table, dst), _)| table == t && dst.contains(&g.dst))
                .max_by_key(|((_, dst), _)| dst.prefix_len())
                .and_then(|(_, v)| v.first())
        });
        let refuse = |line: &str| Err(WireError::new("unreachable", format!("RTNETLINK answers: {line}"), ""));
        let Some(info) = best else { return refuse("Network is unreachable") };
        match info.route.kind {
            RouteKind::Unreachable => return refuse("No route to host"),
            RouteKind::Blackhole => return refuse("Invalid argument"),
            RouteKind::Prohibit => return refuse("Permission denied"),
            _ if g.fibmatch => return Ok(Answer::Routes(vec![info.clone()])),
            _ => {}
        }
        let hop = info.route.hops.first().cloned();
        let src = hop.as_ref().and_then(|h| h.dev.as_ref()).and_then(|d| {
            let l = self.links.iter().find(|l| l.name == *d)?;
            l.addrs.iter().map(IpNet::addr).find(|a| Family::of(a) == Family::of(&g.dst))
        });
        Ok(Answer::Get(Box::new(GetInfo {
            dst: g.dst,
            kind: info.route.kind,
            hop,
            table: info.route.table_id(),
            src: info.route.src.or(src),
            from: g.from,
            iif: g.iif.clone(),
            mtu: info.route.mtu,
            metric: info.route.metric_or_default(),
            proto: info.route.proto.unwrap_or(proto::BOOT),
        })))
    }
}
