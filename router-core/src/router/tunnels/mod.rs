//! Tunnels: virtual ports whose outer header is ready made and whose carrier follows the underlay's routes.

mod check;
mod icmp;
mod keepalive;
mod mtu;
mod paths;
mod probe;
mod search;
mod siblings;

pub use check::{TunnelError, check_tunnel_spec, tunnel_hears};
pub use keepalive::Life;
pub use mtu::{LearnedMtu, MtuCause};
pub use paths::{PathCause, PathInfo};
pub use probe::ProbeAnswer;
pub use search::SearchPhase;

use crate::addr::Family;
use crate::decap::DecapKey;
use crate::journal::{Happened, Subject};
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::router::Router;
use crate::router::links::check_name;
use crate::routing::EncapFacts;
use crate::spec::TunnelSpec;
use crate::time::{Duration, Instant};
use crate::tunnel::{Gate, TunnelState};
use crate::worker::Outbox;
use arrayvec::ArrayVec;
use ipnet::IpNet;
use keepalive::Keeper;
use mtu::Learned;
use paths::Paths;
use search::Search;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// By what a tunnel's packets are recognised: one outer protocol, or two.
pub(super) type Keys = ArrayVec<DecapKey, 3>;

/// A tunnel as the control side keeps it.
pub(super) struct Tunnel {
    pub spec: TunnelSpec,
    keys: Keys,
    /// Outer path MTU that the network told, and when it is forgotten.
    learned: Option<Learned>,
    /// What the data plane was last told.
    facts: Option<EncapFacts>,
    /// Whether followers were last told that a route carries it.
    told_carried: bool,
    state: Arc<TunnelState>,
    keeper: Option<Keeper>,
    /// Finds out how much fits, where that is asked for.
    search: Option<Search>,
    /// Where it may take one of several ways.
    paths: Option<Paths>,
    /// The UDP port to which it sends, as followers of errors know it.
    sends: Option<u16>,
    probes: Option<probe::Probes>,
    /// Outer ICMP errors that were about its packets and told of a failure, and the last of them.
    errors: u64,
    last_error: Option<(Instant, IpAddr, u8, u8)>,
}

/// All tunnels, and which of them have to be looked at again.
#[derive(Default)]
pub(super) struct Tunnels {
    all: BTreeMap<PortId, Tunnel>,
    /// Their parameters, underlay or path MTU may have changed.
    dirty: BTreeSet<PortId>,
    /// When learned path MTUs are forgotten.
    expiry: BTreeSet<(Instant, PortId)>,
    /// When peers are asked whether they live.
    asking: BTreeSet<(Instant, PortId)>,
    /// When their MTU is searched for.
    searching: BTreeSet<(Instant, PortId)>,
    /// Those bound to a device, by its name.
    by_dev: BTreeMap<String, BTreeSet<PortId>>,
    /// Those whose local end follows a port, by its name.
    followers: BTreeMap<String, BTreeSet<PortId>>,
    /// GRE tunnels by their ends, told apart by the key that they receive.
    siblings: siblings::Siblings,
    /// Ports that are followed and have changed.
    moved_ports: BTreeSet<String>,
    /// Those in UDP by what they send: both ends and the peer's port.
    senders: BTreeSet<(IpAddr, IpAddr, u16, PortId)>,
    /// Those whose peer's port is learned, by what they have in common: table, ends, and our port.
    learners: BTreeSet<((TableId, IpAddr, IpAddr, u16), PortId)>,
    /// When paths are tried.
    trying: BTreeSet<(Instant, PortId)>,
}

impl Tunnels {
    /// Adds a tunnel, or puts another one in its place.
    fn insert(&mut self, id: PortId, tunnel: Tunnel) {
        self.remove(id);
        for dev in [&tunnel.spec.dev, &tunnel.spec.options.encap_dev].into_iter().flatten() {
            self.by_dev.entry(dev.clone()).or_default().insert(id);
        }
        if let Some(port) = &tunnel.spec.options.local_dev {
            self.followers.entry(port.clone()).or_default().insert(id);
            self.moved_ports.insert(port.clone());
        }
        if let Some(l) = &tunnel.learned {
            self.expiry.insert((l.until, id));
        }
        if let Some(k) = &tunnel.keeper {
            self.asking.insert((k.next, id));
        }
        if let Some(s) = &tunnel.search {
            self.searching.insert((s.next, id));
        }
        if let Some(at) = tunnel.paths.as_ref().and_then(|p| p.next) {
            self.trying.insert((at, id));
        }
        self.all.insert(id, tunnel);
        self.reindex_sender(id);
        self.dirty.insert(id);
    }

    fn remove(&mut self, id: PortId) -> Option<Tunnel> {
        let tunnel = self.all.remove(&id)?;
        self.dirty.remove(&id);
        if let Some(l) = &tunnel.learned {
            self.expiry.remove(&(l.until, id));
        }
        if let Some(k) = &tunnel.keeper {
            self.asking.remove(&(k.next, id));
        }
        if let Some(s) = &tunnel.search {
            self.searching.remove(&(s.next, id));
        }
        if let Some(dport) = tunnel.sends {
            self.senders.remove(&(tunnel.spec.local, tunnel.spec.remote, dport, id));
        }
        if let Some(at) = tunnel.paths.as_ref().and_then(|p| p.next) {
            self.trying.remove(&(at, id));
        }
        let options = &tunnel.spec.options;
        for (name, followers) in [(&tunnel.spec.dev, false), (&options.encap_dev, false), (&options.local_dev, true)] {
            let list = if followers { &mut self.followers } else { &mut self.by_dev };
            if let Some(name) = name
                && let Some(ids) = list.get_mut(name)
            {
                ids.remove(&id);
                if ids.is_empty() {
                    list.remove(name);
                }
            }
        }
        Some(tunnel)
    }

    /// Errors about what a tunnel sends now find it.
    fn reindex_sender(&mut self, id: PortId) {
        let Some(t) = self.all.get_mut(&id) else { return };
        let (local, remote) = (t.spec.local, t.spec.remote);
        let sends = t.options(false).udp.map(|u| u.dport);
        if let Some(old) = std::mem::replace(&mut t.sends, sends) {
            self.senders.remove(&(local, remote, old, id));
        }
        if let Some(new) = sends {
            self.senders.insert((local, remote, new, id));
        }
    }

    /// The tunnel that sent a datagram between these ends from the first of these ports to the second.
    fn that_sent(&self, table: TableId, local: IpAddr, remote: IpAddr, (sport, dport): (u16, u16)) -> Option<PortId> {
        let range = (local, remote, dport, PortId(0))..=(local, remote, dport, PortId::NONE);
        let sends = |id: &PortId| {
            let Some(t) = self.all.get(id) else { return false };
            let fixed = t.options(false).udp.map_or(0, |u| u.sport);
            (fixed == 0 || fixed == sport) && t.spec.underlay_table.unwrap_or_default() == table
        };
        self.senders.range(range).map(|(.., id)| *id).find(sends)
    }

    /// A port of this name came, changed or went.
    pub(super) fn device_changed(&mut self, name: &str) {
        if let Some(ids) = self.by_dev.get(name) {
            self.dirty.extend(ids);
        }
        if self.followers.contains_key(name) {
            self.moved_ports.insert(name.to_owned());
        }
    }

    /// Fixes the MTU of a tunnel, if it is one.
    pub(super) fn set_mtu(&mut self, id: PortId, mtu: u32) {
        if let Some(t) = self.all.get_mut(&id) {
            t.spec.mtu = Some(mtu);
            self.dirty.insert(id);
        }
    }
}

/// A tunnel as shown.
#[derive(Clone, Debug)]
pub struct TunnelInfo {
    /// As configured, with the ends that it has now.
    pub spec: TunnelSpec,
    /// Its port.
    pub id: PortId,
    /// Inner MTU in force, in bytes.
    pub mtu: u32,
    /// Outer path MTU learned from the network.
    pub learned_mtu: Option<LearnedMtu>,
    /// Whether a route carries it now.
    pub carried: bool,
    /// What the keepalive says; None without one.
    pub life: Option<Life>,
    /// Which way its packets go, where there are several.
    pub path: Option<PathInfo>,
    /// Outer ICMP errors about its packets, and how long ago the last came, from whom, its type and code.
    pub errors: u64,
    /// See `errors`.
    pub last_error: Option<(Duration, IpAddr, u8, u8)>,
}

impl Router {
    /// Adds a tunnel and its addresses.
    pub fn add_tunnel(&mut self, now: Instant, spec: TunnelSpec, addrs: Vec<IpNet>) -> Result<PortId, TunnelError> {
        check_name(&spec.name)?;
        let keys = self.check_tunnel(&spec, None)?;
        let mut addrs = addrs;
        if !addrs.iter().any(is_link_local) {
            addrs.extend(link_local_of(&spec));
        }
        let shape = spec.mode.shape();
        let info = PortInfo {
            id: PortId::NONE,
            name: spec.name.clone(),
            ifindex: 0,
            kind: PortKind::Tunnel,
            medium: Medium::Ip,
            mac: None,
            mtu: spec.mtu.unwrap_or(shape.least_mtu().max(576)),
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs,
        };
        let id = self.add_port(now, info)?;
        self.set_tunnel(now, id, spec, keys, None);
        self.refresh_tunnels(now);
        self.note_tunnel(now, id, Happened::Added);
        Ok(id)
    }

    /// Changes the parameters of a tunnel, its name and addresses aside. Packets meet the old or the new ones, nothing in
    /// between; what is known about the path stays when the ends stay.
    pub fn change_tunnel(&mut self, now: Instant, spec: TunnelSpec) -> Result<(), TunnelError> {
        let id = self.tunnel_by_name(&spec.name)?;
        let keys = self.check_tunnel(&spec, Some(id))?;
        self.index_paths(id, false);
        let Some(old) = self.tunnels.remove(id) else { return Err(TunnelError::Device(spec.name)) };
        self.deafen(&old);
        // The link-local address carries the outer one (RFC 4213 3.7).
        let (was, is) = (link_local_of(&old.spec), link_local_of(&spec));
        if was != is
            && let Ok(mut info) = self.port(id)
        {
            let before = info.addrs.len();
            info.addrs.retain(|a| Some(*a) != was);
            if info.addrs.len() < before || !info.addrs.iter().any(is_link_local) {
                info.addrs.extend(is);
                self.put(info);
            }
        }
        if spec.options.keepalive.is_none() {
            self.revive(now, id);
        }
        self.set_tunnel(now, id, spec, keys, Some(old));
        self.changed = true;
        self.refresh_tunnels(now);
        self.note_tunnel(now, id, Happened::Changed);
        Ok(())
    }

    /// Puts a checked tunnel into force.
    fn set_tunnel(&mut self, now: Instant, id: PortId, spec: TunnelSpec, keys: Keys, old: Option<Tunnel>) {
        self.listen(id, &spec, &keys);
        let (learned, state, keeper, paths, told_carried, errors, last_error) = match old {
            Some(o) => {
                let same_ends = (o.spec.local, o.spec.remote) == (spec.local, spec.remote);
                let learned = o.learned.clone().filter(|_| same_ends);
                let keeper = o.keeper.filter(|_| o.spec.options.keepalive == spec.options.keepalive);
                let like = |o: &TunnelSpec| (o.options.udp, o.options.auto, o.options.keepalive);
                let paths = o.paths.filter(|_| same_ends && like(&o.spec) == like(&spec));
                (learned, o.state, keeper, paths, o.told_carried, o.errors, o.last_error)
            }
            None => (None, Arc::default(), None, None, false, 0, None),
        };
        let keeper = match (keeper, spec.options.keepalive) {
            (Some(k), Some(_)) => Some(k),
            (None, Some(options)) => Some(Keeper::new(now, options, self.seed, id)),
            (_, None) => None,
        };
        let probes = None;
        let paths = match paths {
            Some(p) => Some(p),
            None => Paths::of(now, &spec, self.seed, id),
        };
        let sends = None;
        let mut tunnel = Tunnel {
            spec,
            keys,
            learned,
            facts: None,
            told_carried,
            state,
            keeper,
            search: None,
            paths,
            sends,
            probes,
            errors,
            last_error,
        };
        self.begin_search(now, id, &mut tunnel);
        self.tunnels.insert(id, tunnel);
        self.index_paths(id, true);
        self.changed = true;
    }

    /// The gate of a tunnel, as its parameters are now.
    fn set_gate(&mut self, id: PortId) {
        let Some(t) = self.tunnels.all.get(&id) else { return };
        let object = self.routing.tunnel_object(id);
        let awaits = t.keeper.is_some() || t.probes.is_some();
        let arrivals = t.paths.as_ref().map(Paths::arrivals);
        let mut gate = Gate::new(&t.spec, Arc::clone(&t.state), object, awaits);
        gate.arrivals = arrivals;
        self.ports.set_checks(id, gate.checks());
        self.gates.set(id, Some(Arc::new(gate)));
        self.changed = true;
    }

    /// Removes a tunnel with its addresses and routes.
    pub fn del_tunnel(&mut self, now: Instant, name: &str, out: &mut Outbox) -> Result<(), TunnelError> {
        let id = self.tunnel_by_name(name)?;
        self.note_tunnel(now, id, Happened::Removed);
        self.index_paths(id, false);
        if let Some(t) = self.tunnels.remove(id) {
            self.deafen(&t);
        }
        self.gates.set(id, None);
        self.routing.remove_tunnel(id);
        self.remove_port(now, id, out)?;
        Ok(())
    }

    /// All tunnels, by index of their port.
    pub fn tunnels(&self, now: Instant) -> impl Iterator<Item = TunnelInfo> {
        self.tunnels.all.iter().map(move |(id, t)| self.tunnel_info(now, *id, t))
    }

    /// One tunnel, by the index of its port.
    pub fn tunnel(&self, now: Instant, id: PortId) -> Option<TunnelInfo> {
        self.tunnels.all.get(&id).map(|t| self.tunnel_info(now, id, t))
    }

    /// One tunnel, by its name.
    pub fn tunnel_named(&self, now: Instant, name: &str) -> Option<TunnelInfo> {
        self.tunnel_by_name(name).ok().and_then(|id| self.tunnel(now, id))
    }

    /// What all tunnels were asked to be, by index of their port. Copies nothing.
    pub fn tunnel_specs(&self) -> impl Iterator<Item = (PortId, &TunnelSpec)> {
        self.tunnels.all.iter().map(|(id, t)| (*id, &t.spec))
    }

    /// The same of one tunnel, by the index of its port.
    pub fn tunnel_spec(&self, id: PortId) -> Option<&TunnelSpec> {
        self.tunnels.all.get(&id).map(|t| &t.spec)
    }

    fn tunnel_info(&self, now: Instant, id: PortId, t: &Tunnel) -> TunnelInfo {
        TunnelInfo {
            spec: t.spec.clone(),
            id,
            mtu: self.ports.get(id).map_or(0, |p| p.mtu),
            learned_mtu: t.learned_mtu(now),
            carried: self.routing.tunnel_carrier(id).is_some(),
            life: t.keeper.as_ref().map(Keeper::life),
            path: t.paths.as_ref().map(|p| p.info(now)),
            errors: t.errors,
            last_error: t.last_error.map(|(when, from, kind, code)| (now.saturating_since(when), from, kind, code)),
        }
    }

    /// Writes a change of a tunnel down, if anybody follows.
    fn note_tunnel(&mut self, now: Instant, id: PortId, happened: Happened) {
        if self.journal.is_on()
            && let Some(t) = self.tunnels.all.get(&id)
        {
            let info = self.tunnel_info(now, id, t);
            self.journal.write((happened, Subject::Tunnel(Box::new(info))));
        }
    }

    fn tunnel_by_name(&self, name: &str) -> Result<PortId, TunnelError> {
        let id = self.port_names.get(name).filter(|id| self.tunnels.all.contains_key(id));
        id.copied().ok_or_else(|| TunnelError::Device(name.to_owned()))
    }

    /// Gives tunnels whose local end follows a port the address that the port has now. A port without one leaves them as
    /// they are.
    pub(super) fn follow_local_ends(&mut self, now: Instant) {
        for name in std::mem::take(&mut self.tunnels.moved_ports) {
            let ids = self.tunnels.followers.get(&name).cloned().unwrap_or_default();
            let Some(port) = self.port_names.get(&name).and_then(|id| self.ports.get(*id)).cloned() else { continue };
            for id in ids {
                let Some(spec) = self.tunnels.all.get(&id).map(|t| t.spec.clone()) else { continue };
                let Some(local) = port.global_addr(Family::of(&spec.local)).filter(|a| *a != spec.local) else {
                    continue;
                };
                // Another tunnel may have the same ends then: this one stays where it was.
                let _ = self.change_tunnel(now, TunnelSpec { local, ..spec });
            }
        }
    }
}

/// RFC 4213 3.7: the link-local address of a tunnel in IPv4 carries the outer address. In IPv6 it has the interface
/// identifier of the outer one (RFC 2473 has none of its own).
fn link_local_of(spec: &TunnelSpec) -> Option<IpNet> {
    let id = match spec.local {
        _ if !spec.mode.shape().carries.family(Family::Inet6) => return None,
        a if a.is_unspecified() => return None,
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits() as u64,
    };
    IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id))), 64).ok()
}

fn is_link_local(net: &IpNet) -> bool {
    Family::of_net(net) == Family::Inet6 && matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local())
}
