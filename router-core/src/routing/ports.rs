//! Facts about ports, tunnels and neighbours, and the routes that the router makes for its own addresses.

use super::Routing;
use super::facts::{EncapFacts, Tunnel};
use super::objects::{Def, adjacency};
use crate::addr::{Family, MacAddr};
use crate::next_hop::PathKey;
use crate::object::ObjectId;
use crate::port::{Medium, PortId, PortInfo, PortKind, TableId, subnet_router_anycast};
use crate::resolve::{Leaf, Outcome, Root};
use crate::rib::Candidate;
use crate::spec::{RouteKind, proto};
use crate::tables::domain_of;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Metric of connected IPv6 routes, as Linux has it.
const CONNECTED_METRIC_V6: u32 = 256;

/// A route that the router made for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    table: TableId,
    dst: IpNet,
    metric: u32,
    key: PathKey,
}

impl Routing {
    /// A new port, or new facts about one: makes and removes its connected, local and broadcast routes, and resolves
    /// again whatever goes through it.
    pub fn set_port(&mut self, info: Arc<PortInfo>) {
        let id = info.id;
        let old = self.facts.ports.insert(id, Arc::clone(&info));
        if let Some(old) = &old
            && old.name != info.name
        {
            self.facts.names.remove(&old.name);
        }
        self.facts.names.insert(info.name.clone(), id);
        self.facts.enter(info.table);
        if let Some(o) = &old {
            self.facts.leave(o.table);
            self.maybe_empty.insert(domain_of(o.table));
        }
        self.make_domain(info.table);
        let wanted = routes_of(&info);
        self.set_made(id, wanted);
        if old.as_ref().is_none_or(|o| o.table != info.table) {
            self.members_changed(info.table);
            if let Some(o) = &old {
                self.members_changed(o.table);
            }
        }
        if old.is_none_or(|o| forwards_otherwise(&o, &info)) {
            self.port_changed(id);
        }
    }

    /// Removes a port or tunnel, every route and next-hop object that names it, and its neighbours.
    pub fn remove_port(&mut self, id: PortId) {
        self.set_made(id, Vec::new());
        self.made.remove(&id);
        let named: Vec<u32> = self.facts.next_hops_on(id).collect();
        for nhid in named {
            self.remove_next_hop(nhid);
        }
        for path in self.by_name.get(&id).cloned().unwrap_or_default() {
            self.remove_routes_of(path);
        }
        self.remove_tunnel(id);
        for addr in self.neighbors_on(id) {
            self.set_neighbor(id, addr, None);
            self.facts.neighbors.remove(&(id, addr));
        }
        if let Some(info) = self.facts.ports.remove(&id) {
            self.facts.names.remove(&info.name);
            self.facts.leave(info.table);
            self.maybe_empty.insert(domain_of(info.table));
            self.members_changed(info.table);
        }
        self.port_changed(id);
    }

    /// Sets or changes what it takes to encapsulate into a tunnel. Its port comes by [`Routing::set_port`], before or
    /// after.
    pub fn set_tunnel(&mut self, id: PortId, facts: EncapFacts) {
        let facts = Arc::new(facts);
        self.make_domain(facts.table);
        self.facts.enter_underlay(facts.table);
        match self.facts.tunnels.get_mut(&id) {
            Some(t) => {
                let old = std::mem::replace(&mut t.facts, facts).table;
                self.maybe_empty.insert(domain_of(old));
                self.facts.leave_underlay(old);
            }
            None => {
                let (outcome, carrier) = (Outcome::default(), ObjectId::NO_ROUTE);
                let tunnel = Tunnel { facts, outcome, deps: Vec::new(), carrier, leaf: None, own: None };
                self.facts.tunnels.insert(id, tunnel);
            }
        }
        self.refresh(Root::Tunnel(id));
        self.port_changed(id);
    }

    /// Forgets a tunnel; its port stays, without a way out.
    pub fn remove_tunnel(&mut self, id: PortId) {
        let Some(t) = self.facts.tunnels.remove(&id) else { return };
        self.forget_deps(Root::Tunnel(id), &t.deps);
        self.facts.leave_underlay(t.facts.table);
        self.maybe_empty.insert(domain_of(t.facts.table));
        self.port_changed(id);
        self.objects.drop_carrier(t.carrier, t.leaf, id);
        t.own.into_iter().for_each(|o| self.objects.free(o));
    }

    /// An object that leads into a tunnel whether any route does or not.
    pub fn tunnel_object(&mut self, id: PortId) -> Option<ObjectId> {
        let tunnel = self.facts.tunnels.get(&id)?;
        if tunnel.own.is_some() {
            return tunnel.own;
        }
        let own = self.objects.make(Def::Leaf(Leaf { port: id, gateway: None, mtu: 0, mss: 0 }), &self.facts);
        self.facts.tunnels.get_mut(&id)?.own = Some(own);
        Some(own)
    }

    /// The object that carries a tunnel's outer packets; None while its peer cannot be reached, or only through itself.
    pub fn tunnel_carrier(&self, id: PortId) -> Option<ObjectId> {
        self.facts.tunnels.get(&id).filter(|t| t.outcome.usable()).map(|t| t.carrier)
    }

    /// Tunnels whose carrier has changed since the last call, or may have: another one, or another MTU on its way.
    pub fn take_moved_tunnels(&mut self) -> BTreeSet<PortId> {
        self.objects.take_moved()
    }

    /// Whether a tunnel is unused because its peer is reached through itself.
    pub fn tunnel_looped(&self, id: PortId) -> bool {
        self.facts.tunnels.get(&id).is_some_and(|t| !t.outcome.usable() && t.outcome.looped)
    }

    /// A neighbour's link-layer address became known, changed, or was lost. `used` is the mark that workers set when
    /// they send to it. Exactly the objects on it change.
    pub fn set_neighbor(&mut self, port: PortId, addr: IpAddr, known: Option<(MacAddr, Arc<AtomicBool>)>) {
        let resolved = known.is_some();
        if !resolved && !self.facts.neighbors.contains_key(&(port, addr)) {
            return;
        }
        let n = self.facts.neighbors.entry((port, addr)).or_default();
        n.known = known;
        if resolved {
            n.failed = false;
        }
        let forget = n.known.is_none() && !n.failed;
        if forget {
            self.facts.neighbors.remove(&(port, addr));
        }
        self.refresh_adjacency(port, addr);
        self.objects.refresh_neighbor(port, addr, &self.facts);
    }

    /// A neighbour does not answer (or does again): groups take it out while another member works. A next hop alone
    /// stays as it is, so that traffic goes on asking.
    pub fn neighbor_failed(&mut self, port: PortId, addr: IpAddr, failed: bool) {
        let n = self.facts.neighbors.entry((port, addr)).or_default();
        if n.failed == failed {
            if !failed && n.known.is_none() {
                self.facts.neighbors.remove(&(port, addr));
            }
            return;
        }
        n.failed = failed;
        if !failed && n.known.is_none() {
            self.facts.neighbors.remove(&(port, addr));
        }
        self.objects.refresh_neighbor(port, addr, &self.facts);
    }

    /// Whether some next hop has this neighbour as its gateway.
    pub fn is_gateway(&self, port: PortId, addr: IpAddr) -> bool {
        self.objects.leads_to(port, addr)
    }

    /// A port has joined or left a table. The first and the last one decide where its gateways may be looked up.
    fn members_changed(&mut self, table: TableId) {
        let domain = domain_of(table);
        if domain != TableId::MAIN {
            for family in [Family::Inet, Family::Inet6] {
                self.revisit_within(domain, &family.default_prefix(), true);
            }
        }
    }

    fn port_changed(&mut self, id: PortId) {
        let roots: Vec<_> = self.by_port.get(&id).map(|s| s.iter().copied().collect()).unwrap_or_default();
        self.refresh_all(roots);
        self.objects.refresh_port(id, &self.facts);
        for addr in self.neighbors_on(id) {
            self.refresh_adjacency(id, addr);
        }
    }

    fn neighbors_on(&self, id: PortId) -> Vec<IpAddr> {
        let from = self.facts.neighbors.range((id, IpAddr::from([0, 0, 0, 0]))..);
        from.map(|(k, _)| *k).take_while(|(p, _)| *p == id).map(|(_, a)| a).collect()
    }

    fn refresh_adjacency(&mut self, port: PortId, addr: IpAddr) {
        let adjacency = adjacency(port, addr, &self.facts);
        if adjacency.is_some() || self.adjacencies.get(port, &addr).is_some() {
            self.adjacencies.set(port, addr, adjacency);
            self.adjacencies_changed = true;
        }
    }

    fn set_made(&mut self, id: PortId, wanted: Vec<Made>) {
        let had = self.made.insert(id, wanted.clone()).unwrap_or_default();
        for m in had.iter().filter(|m| !wanted.contains(m)) {
            self.remove_made(m);
        }
        for m in wanted.into_iter().filter(|m| !had.contains(m)) {
            let path = self.intern_path(m.key);
            let candidate = Candidate { path, metric: m.metric, table: m.table, proto: proto::KERNEL };
            self.insert_candidate(m.table, m.dst, candidate, false);
        }
    }

    fn remove_made(&mut self, m: &Made) {
        let Some(entry) = self.rib.find(m.table, &m.dst) else { return };
        let Some(path) = self.path_ids.get(&m.key).copied() else { return };
        let gone = Candidate { path, metric: m.metric, table: m.table, proto: proto::KERNEL };
        let place = self.rib.entries.get(entry).and_then(|e| e.candidates.iter().position(|c| *c == gone));
        if let Some(i) = place {
            self.remove_candidate(entry, i);
        }
    }
}

/// Whether packets through the port fare differently than before.
fn forwards_otherwise(a: &PortInfo, b: &PortInfo) -> bool {
    (a.up, a.mtu, a.mac, a.vlan, a.medium, a.kind) != (b.up, b.mtu, b.mac, b.vlan, b.medium, b.kind)
        || a.addrs != b.addrs
}

/// The first address in the same link prefix. IPv4 calls the others secondary: the link's routes, and what leaves without
/// a source chosen, have the primary one. When it goes, the next one takes its place (Linux with `promote_secondaries`,
/// which systemd sets; without that Linux deletes all secondary addresses too).
fn primary(info: &PortInfo, addr: &IpNet) -> Option<IpAddr> {
    info.addrs.iter().find(|a| a.trunc() == addr.trunc()).map(IpNet::addr)
}

/// The routes of a port's own addresses, as Linux makes them.
fn routes_of(info: &PortInfo) -> Vec<Made> {
    // The main table keeps own addresses apart, in table local; any other table holds them itself.
    let own = if domain_of(info.table) == TableId::MAIN { TableId::LOCAL } else { info.table };
    let mut out: Vec<Made> = Vec::new();
    let mut push = |table, dst, metric, kind, src| {
        let m = Made { table, dst, metric, key: PathKey::on_port(kind, info.id, src) };
        if !out.contains(&m) {
            out.push(m);
        }
    };
    for addr in &info.addrs {
        let src = primary(info, addr).filter(IpAddr::is_ipv4);
        push(own, IpNet::from(addr.addr()), 0, RouteKind::Local, src);
        match addr {
            // All of a loopback's prefix is local, as 127.0.0.0/8 is.
            IpNet::V4(n) if info.kind == PortKind::Loopback => {
                push(own, IpNet::V4(n.trunc()), 0, RouteKind::Local, src);
            }
            IpNet::V4(n) => {
                if n.prefix_len() < 32 {
                    push(info.table, IpNet::V4(n.trunc()), 0, RouteKind::Unicast, src);
                }
                // RFC 3021: a /31 has no broadcast address.
                if n.prefix_len() < 31 && info.medium == Medium::Ethernet {
                    push(own, IpNet::V4(Ipv4Net::from(n.broadcast())), 0, RouteKind::Broadcast, src);
                }
            }
            IpNet::V6(n) if n.prefix_len() < 128 => {
                push(info.table, IpNet::V6(Ipv6Net::trunc(n)), CONNECTED_METRIC_V6, RouteKind::Unicast, None);
                // The link-local one is known by its port, without a route.
                let far = |a: &std::net::Ipv6Addr| !a.is_unicast_link_local() && !info.owns(&IpAddr::V6(*a));
                if let Some(all_routers) = subnet_router_anycast(n).filter(far) {
                    push(own, IpNet::V6(Ipv6Net::from(all_routers)), 0, RouteKind::Anycast, None);
                }
            }
            IpNet::V6(_) => {}
        }
    }
    out
}
