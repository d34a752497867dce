//! From one plan to another, and back when a step fails.

use super::check::key;
use super::order::by_dependence;
use super::plan::{Plan, PortPlan, VrfPlan};
use crate::control::{AddrSpec, LinkSet, Op, RuleDelete, VrfSpec, WireError};
use crate::output::route_line;
use ipnet::IpNet;
use router_core::filter::{FilterSpec, GuardSpec};
use router_core::policy::RuleSpec;
use router_core::port::TableId;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, NextHopKind, NextHopSpec, RouteSpec, TunnelSpec};
use router_core::translate::TranslatorSpec;
use router_io::port::wireguard::spec::WireguardConfig;
use std::collections::{BTreeMap, BTreeSet};

/// A change of the running router.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// What a client could ask for too.
    Op(Op),
    /// Open a port.
    PortAdd(Box<PortPlan>),
    /// Close a port.
    PortRemove(String),
    /// Give a WireGuard port other peers.
    WireguardPeers(String, Box<WireguardConfig>),
    /// Give an existing tunnel these parameters.
    TunnelSet(Box<TunnelSpec>),
    /// Add a translator.
    TranslatorAdd(Box<TranslatorSpec>),
    /// Remove a translator with its sessions.
    TranslatorRemove(String),
    /// Make a filter, or give it other rules.
    FilterSet(String, FilterSpec),
    /// Remove a filter.
    FilterRemove(String),
    /// What a port or tunnel asks of its packets.
    GuardSet(String, GuardSpec),
    /// Timers and limits.
    Settings(Box<Settings>),
}

/// A change, how to take it back, and a line about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub change: Change,
    /// What undoes it.
    pub undo: Vec<Change>,
    /// As shown to the user.
    pub text: String,
}

/// What carries out changes.
pub trait Target {
    /// Carries out one.
    fn change(&self, change: Change) -> Result<(), WireError>;

    /// Carries out several operations in order, up to the first failure: its index and reason.
    fn changes(&self, ops: Vec<Op>) -> Result<(), (usize, WireError)> {
        for (i, op) in ops.into_iter().enumerate() {
            self.change(Change::Op(op)).map_err(|e| (i, e))?;
        }
        Ok(())
    }
}

/// Operations given to [`Target::changes`] at once.
const CHUNK: usize = 1000;

/// Carries out all steps or none: what was done is undone when one fails. The error names the step.
pub fn apply(target: &dyn Target, steps: &[Step]) -> Result<(), WireError> {
    let mut done = 0;
    while done < steps.len() {
        let ops: Vec<Op> = steps[done..]
            .iter()
            .take(CHUNK)
            .map_while(|s| match &s.change {
                Change::Op(op) => Some(op.clone()),
                _ => None,
            })
            .collect();
        let failed = if ops.is_empty() {
            let result = target.change(steps[done].change.clone());
            done += usize::from(result.is_ok());
            result.err()
        } else {
            let count = ops.len();
            match target.changes(ops) {
                Ok(()) => {
                    done += count;
                    None
                }
                Err((i, e)) => {
                    done += i;
                    Some(e)
                }
            }
        };
        if let Some(error) = failed {
            // What is not there any more need not be removed.
            if error.code == "not_found" && steps.get(done).is_some_and(is_removal) {
                done += 1;
                continue;
            }
            let undone = undo(target, &steps[..done]);
            let step = steps.get(done).map_or("", |s| s.text.as_str());
            // Failures to open a port name it themselves.
            let line = if error.line.starts_with("port ") { error.line } else { format!("{step}: {}", error.line) };
            return Err(WireError { line, hint: undone.or(error.hint), code: error.code });
        }
    }
    Ok(())
}

fn is_removal(step: &Step) -> bool {
    matches!(
        step.change,
        Change::Op(
            Op::RuleDelete(_)
                | Op::VrfDelete(_)
                | Op::RouteDelete(_)
                | Op::NeighDelete(_)
                | Op::NextHopDelete(_)
                | Op::AddrDelete(_)
                | Op::TunnelDelete(_)
        )
    )
}

/// Takes steps back, the last one first. Some: a line about what could not be taken back.
fn undo(target: &dyn Target, steps: &[Step]) -> Option<String> {
    let mut left = Vec::new();
    for step in steps.iter().rev() {
        for change in &step.undo {
            if let Err(e) = target.change(change.clone()) {
                left.push(format!("{} ({})", step.text, e.line));
            }
        }
    }
    (!left.is_empty()).then(|| format!("and these changes could not be taken back: {}", left.join(", ")))
}

/// The steps from `old` to `new`. Ports, tunnels and addresses that go, go first, so that what they used is free; routes
/// and next hops that go, go last, so that what replaces them is there before.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Step> {
    let mut d = Diff { old, new, steps: Vec::new(), renewed: BTreeSet::new() };
    if old.settings != new.settings {
        let undo = Change::Settings(Box::new(old.settings.clone()));
        d.step(Change::Settings(Box::new(new.settings.clone())), vec![undo], "settings".into());
    }
    d.new_vrfs();
    d.filters();
    d.ports();
    d.tunnels();
    d.memberships();
    d.translators();
    d.addresses();
    d.nexthops();
    d.neighs();
    d.routes();
    d.rules();
    d.leftovers();
    d.former_filters();
    d.steps
}

struct Diff<'p> {
    old: &'p Plan,
    new: &'p Plan,
    steps: Vec<Step>,
    /// Ports and tunnels that were closed and opened again: whatever used them must be set again.
    renewed: BTreeSet<&'p str>,
}

impl<'p> Diff<'p> {
    fn step(&mut self, change: Change, undo: Vec<Change>, text: String) {
        self.steps.push(Step { change, undo, text });
    }

    /// Before any port opens: none is without its filter for a moment.
    fn filters(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, is) in new.filters.iter().filter(|(n, is)| old.filters.get(*n) != Some(*is)) {
            let undo = match old.filters.get(name) {
                Some(was) => Change::FilterSet(name.clone(), was.clone()),
                None => Change::FilterRemove(name.clone()),
            };
            self.step(Change::FilterSet(name.clone(), is.clone()), vec![undo], format!("filter {name}"));
        }
        let names: BTreeSet<&String> = old.guards.keys().chain(new.guards.keys()).collect();
        for name in names {
            let of = |plan: &Plan| plan.guards.get(name).cloned().unwrap_or_default();
            let (was, is) = (of(old), of(new));
            if was != is {
                let undo = vec![Change::GuardSet(name.clone(), was)];
                self.step(Change::GuardSet(name.clone(), is), undo, format!("filters and limits of {name}"));
            }
        }
    }

    /// Nobody uses them any more.
    fn former_filters(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, was) in old.filters.iter().filter(|(n, _)| !new.filters.contains_key(*n)) {
            let undo = vec![Change::FilterSet(name.clone(), was.clone())];
            self.step(Change::FilterRemove(name.clone()), undo, format!("filter {name} removed"));
        }
    }

    fn ports(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut opened: Vec<&PortPlan> = Vec::new();
        for (name, was) in &old.ports {
            match new.ports.get(name) {
                Some(is) if is == was => {}
                Some(is) if same_but_for_addresses_and_link(was, is) => {
                    let set = |from: &PortPlan, to: &PortPlan| LinkSet {
                        dev: name.clone(),
                        up: (from.up != to.up).then_some(to.up),
                        mtu: if from.mtu != to.mtu { to.mtu } else { None },
                        address: None,
                        master: (from.vrf != to.vrf).then(|| to.vrf.clone().unwrap_or_default()),
                        mark: (from.mark != to.mark).then_some(to.mark),
                    };
                    if was.up != is.up || was.mtu != is.mtu || was.vrf != is.vrf || was.mark != is.mark {
                        let undo = vec![Change::Op(Op::LinkSet(set(is, was)))];
                        self.step(Change::Op(Op::LinkSet(set(was, is))), undo, format!("port {name}: link"));
                    }
                    if was.wireguard != is.wireguard {
                        let peers = |p: &PortPlan| Change::WireguardPeers(name.clone(), Box::new(p.wireguard.clone()));
                        self.step(peers(is), vec![peers(was)], format!("port {name}: peers"));
                    }
                }
                other => {
                    let mut undo = vec![Change::PortAdd(Box::new(was.clone()))];
                    undo.extend(users(old, name).into_iter().map(Change::Op));
                    self.step(Change::PortRemove(name.clone()), undo, format!("port {name} removed"));
                    if let Some(is) = other {
                        self.renewed.insert(name);
                        opened.push(is);
                    }
                }
            }
        }
        opened.extend(new.ports.values().filter(|p| !old.ports.contains_key(&p.name)));
        opened.sort_by_key(|p| place(new, &p.name));
        for p in opened {
            let undo = vec![Change::PortRemove(p.name.clone())];
            self.step(Change::PortAdd(Box::new(p.clone())), undo, format!("port {} added", p.name));
        }
    }

    fn tunnels(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, was) in &old.tunnels {
            match new.tunnels.get(name) {
                None => {
                    let mut undo = vec![Change::Op(Op::TunnelAdd(Box::new(was.spec.clone())))];
                    undo.extend(was.address.iter().map(|a| Change::Op(addr_add(name, a))));
                    undo.extend(users(old, name).into_iter().map(Change::Op));
                    self.step(Change::Op(Op::TunnelDelete(name.clone())), undo, format!("tunnel {name} removed"));
                }
                Some(is) if is.spec != was.spec => {
                    let undo = vec![Change::TunnelSet(Box::new(was.spec.clone()))];
                    self.step(Change::TunnelSet(Box::new(is.spec.clone())), undo, format!("tunnel {name} changed"));
                }
                Some(_) => {}
            }
        }
        let mut fresh: Vec<_> = new.tunnels.iter().filter(|(n, _)| !old.tunnels.contains_key(*n)).collect();
        fresh.sort_by_key(|(n, _)| place(new, n));
        for (name, is) in fresh {
            let undo = vec![Change::Op(Op::TunnelDelete(name.clone()))];
            self.step(Change::Op(Op::TunnelAdd(Box::new(is.spec.clone()))), undo, format!("tunnel {name} added"));
        }
    }

    /// A translator that changes is another one: its sessions end, its routes are set again.
    fn translators(&mut self) {
        let (old, new) = (self.old, self.new);
        let add = |t: &TranslatorSpec| Change::TranslatorAdd(Box::new(t.clone()));
        for (name, was) in &old.translators {
            let is = new.translators.get(name);
            if is == Some(was) {
                continue;
            }
            let mut undo = vec![add(was)];
            undo.extend(users(old, name).into_iter().map(Change::Op));
            self.step(Change::TranslatorRemove(name.clone()), undo, format!("translator {name} removed"));
            if is.is_some() {
                self.renewed.insert(name);
            }
        }
        for (name, is) in new.translators.iter().filter(|(n, is)| old.translators.get(*n) != Some(*is)) {
            let undo = vec![Change::TranslatorRemove(name.clone())];
            self.step(add(is), undo, format!("translator {name} added"));
        }
    }

    /// Addresses of ports that stay, and of tunnels. A new port brings its own.
    fn addresses(&mut self) {
        let (old, new) = (self.old, self.new);
        let of = |plan: &'p Plan| -> BTreeMap<&'p str, &'p [IpNet]> {
            let ports = plan.ports.iter().map(|(n, p)| (n.as_str(), p.address.as_slice()));
            let vrfs = plan.vrfs.iter().map(|(n, v)| (n.as_str(), v.address.as_slice()));
            ports.chain(plan.tunnels.iter().map(|(n, t)| (n.as_str(), t.address.as_slice()))).chain(vrfs).collect()
        };
        let (before, after) = (of(old), of(new));
        let renewed = self.renewed.clone();
        let stays = |name: &str| before.contains_key(name) && after.contains_key(name) && !renewed.contains(name);
        for (name, list) in before.iter().filter(|(n, _)| stays(n)) {
            for a in list.iter().filter(|a| !after[name].contains(a)) {
                let undo = vec![Change::Op(addr_add(name, a))];
                self.step(Change::Op(addr_del(name, a)), undo, format!("address {a} of {name} removed"));
            }
        }
        for (name, list) in &after {
            let virtual_port = new.tunnels.contains_key(*name) || new.vrfs.contains_key(*name);
            let fresh = virtual_port && (!before.contains_key(name) || renewed.contains(name));
            for a in list.iter().filter(|a| fresh || (stays(name) && !before[name].contains(a))) {
                let undo = vec![Change::Op(addr_del(name, a))];
                self.step(Change::Op(addr_add(name, a)), undo, format!("address {a} of {name} added"));
            }
        }
    }

    fn touches_renewed<'h>(&self, mut hops: impl Iterator<Item = &'h HopSpec>) -> bool {
        hops.any(|h| h.dev.as_deref().is_some_and(|d| self.renewed.contains(d)))
    }

    fn nexthops(&mut self) {
        let (old, new) = (self.old, self.new);
        let is_group = |n: &NextHopSpec| matches!(n.kind, NextHopKind::Group(_));
        let mut all: Vec<&NextHopSpec> = new.nexthops.values().collect();
        all.sort_by_key(|n| is_group(n));
        for n in all {
            let hop = match &n.kind {
                NextHopKind::Hop(h) => Some(h),
                _ => None,
            };
            match old.nexthops.get(&n.id) {
                Some(was) if was == n && !self.touches_renewed(hop.into_iter()) => {}
                Some(was) => {
                    let undo = vec![Change::Op(Op::NextHopReplace(was.clone()))];
                    self.step(Change::Op(Op::NextHopReplace(n.clone())), undo, format!("nexthop {} changed", n.id));
                }
                None => {
                    let undo = vec![Change::Op(Op::NextHopDelete(n.id))];
                    self.step(Change::Op(Op::NextHopAdd(n.clone())), undo, format!("nexthop {} added", n.id));
                }
            }
        }
    }

    fn neighs(&mut self) {
        let (old, new) = (self.old, self.new);
        let find = |list: &'p [NeighSpec], n: &NeighSpec| list.iter().find(|o| o.addr == n.addr && o.dev == n.dev);
        for n in &new.neighs {
            let was = find(&old.neighs, n);
            if was == Some(n) && !self.renewed.contains(n.dev.as_str()) {
                continue;
            }
            let undo = match was {
                Some(was) => Op::NeighReplace(was.clone()),
                None => Op::NeighDelete(n.clone()),
            };
            let text = format!("neighbour {} on {}", n.addr, n.dev);
            self.step(Change::Op(Op::NeighReplace(n.clone())), vec![Change::Op(undo)], text);
        }
    }

    fn routes(&mut self) {
        let (old, new) = (self.old, self.new);
        let before: BTreeMap<_, &RouteSpec> = old.routes.iter().map(|r| (key(r), r)).collect();
        for r in by_dependence(new) {
            let text = format!("route {}", route_line(r));
            match before.get(&key(r)) {
                Some(was) if *was == r && !self.touches_renewed(r.hops.iter()) => {}
                Some(was) => {
                    let undo = vec![Change::Op(Op::RouteReplace(Box::new((*was).clone())))];
                    self.step(Change::Op(Op::RouteReplace(Box::new(r.clone()))), undo, text);
                }
                None => {
                    let undo = vec![Change::Op(Op::RouteDelete(Box::new(r.clone())))];
                    self.step(Change::Op(Op::RouteAdd(Box::new(r.clone()))), undo, text);
                }
            }
        }
    }

    /// VRFs come before the ports that are in them. One with another table is another VRF.
    fn new_vrfs(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, was) in &old.vrfs {
            if new.vrfs.get(name).is_none_or(|is| is.table == was.table) {
                continue;
            }
            let mut undo = vec![Change::Op(vrf_add(name, was))];
            undo.extend(was.address.iter().map(|a| Change::Op(addr_add(name, a))));
            self.step(Change::Op(Op::VrfDelete(name.clone())), undo, format!("VRF {name} removed"));
            self.renewed.insert(name);
        }
        for (name, is) in &new.vrfs {
            if old.vrfs.get(name).is_none_or(|was| was.table != is.table) {
                let undo = vec![Change::Op(Op::VrfDelete(name.clone()))];
                self.step(Change::Op(vrf_add(name, is)), undo, format!("VRF {name} added"));
            }
        }
    }

    /// Tunnels in VRFs, ports whose VRF is another one now, and marks of new ports.
    fn memberships(&mut self) {
        let (old, new) = (self.old, self.new);
        for (name, is) in &new.tunnels {
            let was = old.tunnels.get(name).and_then(|t| t.vrf.as_ref());
            let again = is.vrf.as_ref().is_some_and(|v| self.renewed.contains(v.as_str()));
            if was != is.vrf.as_ref() || again {
                self.member(name, was, is.vrf.as_ref());
            }
        }
        for (name, is) in &new.ports {
            let opened = !old.ports.contains_key(name) || self.renewed.contains(name.as_str());
            if opened && is.mark != 0 {
                let set = LinkSet { dev: name.clone(), mark: Some(is.mark), ..LinkSet::default() };
                self.step(Change::Op(Op::LinkSet(set)), Vec::new(), format!("port {name}: mark"));
            }
            if !opened && is.vrf.as_ref().is_some_and(|v| self.renewed.contains(v.as_str())) {
                self.member(name, is.vrf.as_ref(), is.vrf.as_ref());
            }
        }
    }

    fn member(&mut self, name: &str, was: Option<&String>, is: Option<&String>) {
        let set = |vrf: Option<&String>| {
            let master = Some(vrf.cloned().unwrap_or_default());
            Change::Op(Op::LinkSet(LinkSet { dev: name.to_owned(), master, ..LinkSet::default() }))
        };
        let there = was.is_none_or(|v| self.new.vrfs.contains_key(v));
        let undo = if there { vec![set(was)] } else { vec![set(None)] };
        self.step(set(is), undo, format!("{name}: VRF"));
    }

    /// Rules that go, go first: one may come back with another priority.
    fn rules(&mut self) {
        let (old, new) = (self.old, self.new);
        let delete = |r: &RuleSpec| Op::RuleDelete(Box::new(RuleDelete { rule: r.clone(), any_action: false }));
        for r in old.rules.iter().filter(|r| !new.rules.contains(r)) {
            let undo = vec![Change::Op(Op::RuleAdd(Box::new(r.clone())))];
            self.step(Change::Op(delete(r)), undo, format!("rule {r} removed"));
        }
        for r in new.rules.iter().filter(|r| !old.rules.contains(r)) {
            let undo = vec![Change::Op(delete(r))];
            self.step(Change::Op(Op::RuleAdd(Box::new(r.clone()))), undo, format!("rule {r}"));
        }
    }

    /// Routes, neighbours, next hops and VRFs that go.
    fn leftovers(&mut self) {
        let (old, new) = (self.old, self.new);
        let after: BTreeSet<_> = new.routes.iter().map(key).collect();
        for r in old.routes.iter().filter(|r| !after.contains(&key(r))) {
            let undo = vec![Change::Op(Op::RouteReplace(Box::new(r.clone())))];
            let text = format!("route {} removed", route_line(r));
            self.step(Change::Op(Op::RouteDelete(Box::new(r.clone()))), undo, text);
        }
        for n in old.neighs.iter().filter(|n| !new.neighs.iter().any(|o| o.addr == n.addr && o.dev == n.dev)) {
            let undo = vec![Change::Op(Op::NeighReplace(n.clone()))];
            self.step(
                Change::Op(Op::NeighDelete(n.clone())),
                undo,
                format!("neighbour {} on {} removed", n.addr, n.dev),
            );
        }
        let mut gone: Vec<&NextHopSpec> = old.nexthops.values().filter(|n| !new.nexthops.contains_key(&n.id)).collect();
        for (name, was) in old.vrfs.iter().filter(|(n, _)| !new.vrfs.contains_key(*n)) {
            let mut undo = vec![Change::Op(vrf_add(name, was))];
            undo.extend(was.address.iter().map(|a| Change::Op(addr_add(name, a))));
            self.step(Change::Op(Op::VrfDelete(name.clone())), undo, format!("VRF {name} removed"));
        }
        gone.sort_by_key(|n| !matches!(n.kind, NextHopKind::Group(_)));
        for n in gone {
            let undo = vec![Change::Op(Op::NextHopReplace(n.clone()))];
            self.step(Change::Op(Op::NextHopDelete(n.id)), undo, format!("nexthop {} removed", n.id));
        }
    }
}

fn vrf_add(name: &str, vrf: &VrfPlan) -> Op {
    Op::VrfAdd(VrfSpec { name: name.to_owned(), table: vrf.table })
}

/// Where a port or tunnel stands in the file.
fn place(plan: &Plan, name: &str) -> usize {
    plan.order.iter().position(|n| n == name).unwrap_or(usize::MAX)
}

fn addr_add(dev: &str, addr: &IpNet) -> Op {
    Op::AddrReplace(AddrSpec { dev: dev.to_owned(), addr: *addr })
}

fn addr_del(dev: &str, addr: &IpNet) -> Op {
    Op::AddrDelete(AddrSpec { dev: dev.to_owned(), addr: *addr })
}

/// What a plan has on a port or tunnel, as operations that set it again after the port came back.
fn users(plan: &Plan, dev: &str) -> Vec<Op> {
    let on = |h: &HopSpec| h.dev.as_deref() == Some(dev);
    let hops = plan.nexthops.values().filter(|n| matches!(&n.kind, NextHopKind::Hop(h) if on(h)));
    let hops = hops.map(|n| Op::NextHopReplace(n.clone()));
    let neighs = plan.neighs.iter().filter(|n| n.dev == dev).map(|n| Op::NeighReplace(n.clone()));
    let routes = plan.routes.iter().filter(|r| r.hops.iter().any(on));
    hops.chain(neighs).chain(routes.map(|r| Op::RouteReplace(Box::new(r.clone())))).collect()
}

/// Whether a port can stay open.
fn same_but_for_addresses_and_link(a: &PortPlan, b: &PortPlan) -> bool {
    // A link-local address or an MTU taken from the device can only be had by opening it again.
    let normal = |p: &PortPlan| {
        let table = if p.vrf.is_some() { TableId::MAIN } else { p.table };
        let wireguard = WireguardConfig { peers: Vec::new(), ..p.wireguard.clone() };
        PortPlan { address: Vec::new(), mtu: None, up: true, vrf: None, mark: 0, table, wireguard, ..p.clone() }
    };
    normal(a) == normal(b) && a.mtu.is_some() == b.mtu.is_some()
}
