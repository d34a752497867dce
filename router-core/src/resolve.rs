//! Resolution: from what a route says to the links and neighbours that carry it.
//!
//! Resolving is a pure function of the RIB and of facts about ports and tunnels. It never reads what was resolved
//! earlier, so the result does not depend on the order of events, and loops cannot swing back and forth. The price is a
//! short recursion per path (not per route); what was looked at on the way is recorded, so that only dependents are
//! resolved again when something changes.
//!
//! A gateway without `dev` is looked up in the route's own table; the answer may be any route but itself, the default
//! route included. The longest covering prefix with a usable candidate decides, as it does in the FIB; only where a
//! gateway's own link is down no other way is looked for. A path or tunnel that would resolve through itself by way of
//! others is not used at all.
//!
//! Where a table has no way to a gateway (or says `throw`), `main` is asked, as Linux asks its rules: that is what makes
//! `route add P via GW table 100` work, with the links in `main`. Not so for a table that some port or tunnel has as its
//! own: that is a VRF, whose traffic leaves by another one only where a route names the `dev`. (Linux asks its rules
//! there too, and leaks.) A gateway behind the device of a VRF (`via GW dev VRF`) is looked up in that VRF's table. The peer of a tunnel is looked up in the table it was given and nowhere else.

use crate::next_hop::buckets::gcd;
use crate::next_hop::{Hop, Path, PathId, PathKey};
use crate::object::ObjectId;
use crate::port::{Medium, PortId, PortKind, TableId};
use crate::rib::{Rib, host};
use crate::routing::facts::{Facts, Tunnel};
use crate::routing::slab::Slab;
use crate::spec::{HopSpec, HopState, NextHopKind, RouteKind};
use crate::tables::domain_of;
use std::net::IpAddr;

/// Deepest recursion of gateways and tunnels.
const MAX_DEPTH: usize = 16;
/// Most paths and tunnels looked at in one resolution: multipath routes through multipath routes multiply.
const MAX_STEPS: usize = 2048;
/// VRFs through which a gateway is looked for.
const MAX_LEAKS: usize = 8;
/// Candidates of one prefix that are tried.
const MAX_CANDIDATES: usize = 16;

/// Something that is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Root {
    Path(PathId),
    Tunnel(PortId),
}

/// What a resolution looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dep {
    /// An address in a domain; changes to prefixes shorter than the length at which the lookup ended do not matter.
    Gateway(TableId, IpAddr, u8),
    Port(PortId),
    NextHop(u32),
}

/// Who resolves through an address.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// With the length at which each one's lookup ended.
    pub(crate) roots: std::collections::BTreeMap<Root, u8>,
}

/// The end of resolution: a link, and a neighbour on it where the link has neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Leaf {
    pub(crate) port: PortId,
    /// None: the packet's own destination, or no link layer.
    pub(crate) gateway: Option<IpAddr>,
    /// Limit of routes on the way, in bytes; 0 for none.
    pub(crate) mtu: u32,
    /// The same for TCP's segment size.
    pub(crate) mss: u16,
}

/// What a path limits, 0 for nothing.
#[derive(Clone, Copy)]
struct Limits {
    mtu: u32,
    mss: u16,
}

/// The narrower of two limits, 0 being none.
fn narrower<T: Ord + Default>(a: T, b: T) -> T {
    if a == T::default() || b == T::default() { a.max(b) } else { a.min(b) }
}

/// A leaf with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) leaf: Leaf,
    pub(crate) weight: u64,
    pub(crate) usable: bool,
}

/// What became of one hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HopOutcome {
    /// As written; for a next-hop object, as it says.
    pub(crate) hop: Hop,
    pub(crate) state: HopState,
    pub(crate) shares: Vec<Share>,
}

/// What became of a path or a tunnel's carrier.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) hops: Vec<HopOutcome>,
    /// The next-hop object is a blackhole.
    pub(crate) blackhole: bool,
    /// A hop leads back to where it came from.
    pub(crate) looped: bool,
    /// Nothing to resolve: the kind says it all.
    pub(crate) fixed: bool,
    /// The next-hop object is a resilient group: its number, and that of the object of each hop.
    pub(crate) resilient: Option<(u32, Vec<u32>)>,
}

impl Outcome {
    /// Whether packets can go this way now.
    pub(crate) fn usable(&self) -> bool {
        self.fixed || self.blackhole || self.shares().any(|s| s.usable)
    }

    pub(crate) fn shares(&self) -> impl Iterator<Item = &Share> {
        self.hops.iter().flat_map(|h| &h.shares)
    }

    /// All leaves with weights that respect those of hops and of what the hops resolved to; equal leaves added up.
    pub(crate) fn members(&self) -> Vec<Share> {
        let totals = self.hops.iter().map(|h| h.shares.iter().map(|s| s.weight).sum::<u64>().max(1));
        let scale = totals.clone().fold(1u64, |l, t| (l / gcd(l, t)).saturating_mul(t)).min(1 << 32);
        let mut out: Vec<Share> = Vec::new();
        for (h, total) in self.hops.iter().zip(totals) {
            for s in &h.shares {
                let weight = (u64::from(h.hop.weight).saturating_mul(s.weight).saturating_mul(scale) / total).max(1);
                match out.iter_mut().find(|o| o.leaf == s.leaf) {
                    Some(o) => {
                        o.weight = o.weight.saturating_add(weight);
                        o.usable |= s.usable;
                    }
                    None => out.push(Share { weight, ..*s }),
                }
            }
        }
        let divisor = out.iter().fold(0, |d, s| gcd(d, s.weight)).max(1);
        // Small enough that later arithmetic cannot overflow.
        let shrink = out.iter().map(|s| s.weight / divisor).max().unwrap_or(0) / (1 << 24) + 1;
        out.iter_mut().for_each(|s| s.weight = (s.weight / divisor / shrink).max(1));
        out
    }
}

/// One resolution. See the module.
pub(crate) struct Resolver<'a> {
    rib: &'a Rib,
    paths: &'a Slab<Path>,
    facts: &'a Facts,
    stack: Vec<Root>,
    steps: usize,
    /// VRFs that the gateway at hand was looked for in, from one to the next.
    leaks: usize,
    /// What was looked at.
    pub(crate) deps: Vec<Dep>,
}

/// Where a gateway leads.
struct Found {
    state: HopState,
    shares: Vec<Share>,
    looped: bool,
}

impl Found {
    fn nowhere(state: HopState, looped: bool) -> Self {
        Found { state, shares: Vec::new(), looped }
    }
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(rib: &'a Rib, paths: &'a Slab<Path>, facts: &'a Facts) -> Self {
        Resolver { rib, paths, facts, stack: Vec::new(), steps: 0, leaks: 0, deps: Vec::new() }
    }

    /// Resolves a path.
    pub(crate) fn path(&mut self, id: PathId, key: &PathKey) -> Outcome {
        if key.kind != RouteKind::Unicast {
            return Outcome { fixed: true, ..Outcome::default() };
        }
        self.steps += 1;
        if self.stack.len() >= MAX_DEPTH || self.steps > MAX_STEPS {
            return Outcome { looped: true, ..Outcome::default() };
        }
        self.stack.push(Root::Path(id));
        let mut out = Outcome::default();
        let limits = Limits { mtu: key.mtu, mss: key.mss };
        match key.nhid {
            None => {
                for hop in &key.hops {
                    self.hop(hop, key.domain, limits, &mut out);
                }
            }
            Some(nhid) => self.next_hop_object(nhid, None, key.domain, limits, &mut out),
        }
        self.stack.pop();
        out
    }

    /// Resolves what carries a tunnel.
    pub(crate) fn carrier(&mut self, id: PortId, tunnel: &Tunnel) -> Outcome {
        self.steps += 1;
        if self.stack.len() >= MAX_DEPTH || self.steps > MAX_STEPS {
            return Outcome { looped: true, ..Outcome::default() };
        }
        self.stack.push(Root::Tunnel(id));
        let (dev, remote) = (tunnel.facts.dev, tunnel.facts.remote);
        let domain = domain_of(tunnel.facts.table);
        let mut out = Outcome::default();
        // On a link with neighbours the peer itself is one, or a route says which gateway of that link leads there.
        let direct = dev.and_then(|d| self.facts.port(d)).filter(|p| p.medium == Medium::Ip || p.on_link(&remote));
        match (dev, direct) {
            (Some(dev), Some(_)) => {
                let hop = Hop { via: Some(remote), dev: Some(dev), weight: 1, onlink: true };
                self.hop(&hop, domain, Limits { mtu: 0, mss: 0 }, &mut out);
            }
            // Each packet names its own peer, and is looked up when it is sent.
            _ if remote.is_unspecified() => out.fixed = dev.is_none(),
            _ => {
                self.deps.extend(dev.map(Dep::Port));
                let mut found = self.gateway(domain, remote).unwrap_or_else(|s| Found::nowhere(s, false));
                if let Some(dev) = dev {
                    found.shares.retain(|s| s.leaf.port == dev);
                    if found.shares.is_empty() && found.state == HopState::Active {
                        found.state = HopState::Unresolved;
                    }
                }
                let hop = Hop { via: Some(remote), dev, weight: 1, onlink: false };
                out.looped = found.looped;
                out.hops.push(HopOutcome { hop, state: found.state, shares: found.shares });
            }
        }
        self.stack.pop();
        out
    }

    /// `weight` is that of a group's member. Groups do not nest.
    fn next_hop_object(&mut self, nhid: u32, weight: Option<u16>, domain: TableId, limits: Limits, out: &mut Outcome) {
        self.deps.push(Dep::NextHop(nhid));
        let facts = self.facts;
        match facts.next_hops.get(&nhid).map(|n| &n.kind) {
            Some(NextHopKind::Hop(spec)) => {
                let hop = Hop { weight: weight.unwrap_or(1), ..facts.hop(spec) };
                self.hop(&hop, domain, limits, out);
            }
            // In a group it is the only member.
            Some(NextHopKind::Blackhole) => out.blackhole = true,
            Some(NextHopKind::Group(members)) if weight.is_none() => {
                let resilient = facts.next_hops.get(&nhid).is_some_and(|n| n.resilient.is_some());
                let mut ids = Vec::new();
                for (id, w) in members {
                    self.next_hop_object(*id, Some(*w), domain, limits, out);
                    ids.resize(out.hops.len(), *id);
                }
                out.resilient = resilient.then_some((nhid, ids));
            }
            Some(NextHopKind::Group(_)) | None => {}
        }
    }

    fn hop(&mut self, hop: &Hop, domain: TableId, limits: Limits, out: &mut Outcome) {
        let mut found = match (hop.dev, hop.via) {
            (Some(dev), Some(via)) if self.facts.vrf(dev).is_some() => self.behind(dev, via),
            (Some(dev), via) => self.device(dev, via),
            (None, Some(via)) => self.gateway_or_main(domain, via),
            (None, None) => Found::nowhere(HopState::Unresolved, false),
        };
        for s in &mut found.shares {
            s.leaf.mtu = narrower(s.leaf.mtu, limits.mtu);
            s.leaf.mss = narrower(s.leaf.mss, limits.mss);
        }
        out.looped |= found.looped;
        out.hops.push(HopOutcome { hop: hop.clone(), state: found.state, shares: found.shares });
    }

    /// A hop that names its port.
    fn device(&mut self, dev: PortId, via: Option<IpAddr>) -> Found {
        self.deps.push(Dep::Port(dev));
        let facts = self.facts;
        let Some(info) = facts.port(dev) else { return Found::nowhere(HopState::Unresolved, false) };
        let gateway = via.filter(|_| info.medium == Medium::Ethernet);
        let (mut state, mut looped) = (HopState::Active, false);
        if !info.up {
            state = HopState::LinkDown;
        } else if info.kind == PortKind::Tunnel {
            looped = self.stack.contains(&Root::Tunnel(dev));
            let carried = !looped
                && facts.tunnels.get(&dev).is_some_and(|t| {
                    let carrier = self.carrier(dev, t);
                    looped = carrier.looped && !carrier.usable();
                    carrier.usable()
                });
            if !carried {
                state = HopState::Unresolved;
            }
        }
        let leaf = Leaf { port: dev, gateway, mtu: 0, mss: 0 };
        Found { state, shares: vec![Share { leaf, weight: 1, usable: state == HopState::Active }], looped }
    }

    /// A gateway behind the device of a VRF: it is looked up in the VRF's table.
    fn behind(&mut self, vrf: PortId, via: IpAddr) -> Found {
        self.deps.push(Dep::Port(vrf));
        let Some(domain) = self.facts.vrf(vrf) else { return Found::nowhere(HopState::Unresolved, false) };
        if self.leaks >= MAX_LEAKS {
            return Found::nowhere(HopState::Unresolved, true);
        }
        self.leaks += 1;
        let found = self.gateway(domain, via).unwrap_or_else(|state| Found::nowhere(state, false));
        self.leaks -= 1;
        found
    }

    /// Where shares end at the device of a VRF, the gateway is looked up there.
    fn follow_leaks(&mut self, via: IpAddr, shares: Vec<Share>) -> Vec<Share> {
        let mut out = Vec::with_capacity(shares.len());
        for s in shares {
            match self.facts.vrf(s.leaf.port) {
                None => out.push(s),
                Some(_) => {
                    let found = self.behind(s.leaf.port, via).shares.into_iter();
                    out.extend(found.map(|f| Share { weight: f.weight.saturating_mul(s.weight), ..f }));
                }
            }
        }
        out
    }

    /// A gateway that is to be looked up, also in `main` where the route's own table leaves that open.
    fn gateway_or_main(&mut self, domain: TableId, via: IpAddr) -> Found {
        let found = match self.gateway(domain, via) {
            Err(_) if self.facts.falls_back(domain) => self.gateway(TableId::MAIN, via),
            found => found,
        };
        found.unwrap_or_else(|state| Found::nowhere(state, false))
    }

    /// A gateway looked up in one table. An error is the state of the hop where that table has no way to it.
    fn gateway(&mut self, domain: TableId, via: IpAddr) -> Result<Found, HopState> {
        let (rib, paths, facts) = (self.rib, self.paths, self.facts);
        let me = self.stack.last().copied();
        let mut state = HopState::Unresolved;
        for (len, entry) in rib.covers(domain, &host(&via)) {
            let Some(entry) = rib.entries.get(entry) else { continue };
            let mut link_down: Option<Outcome> = None;
            for candidate in entry.candidates.iter().take(MAX_CANDIDATES) {
                let this = Root::Path(candidate.path);
                let Some(path) = paths.get(candidate.path) else { continue };
                if Some(this) == me {
                    continue;
                }
                let end = Dep::Gateway(domain, via, len);
                if path.key.kind == RouteKind::Throw {
                    self.deps.push(end);
                    return Err(HopState::Unresolved);
                }
                if path.key.kind != RouteKind::Unicast {
                    self.deps.push(end);
                    return Ok(Found::nowhere(HopState::Unresolved, false));
                }
                if self.stack.contains(&this) {
                    self.deps.push(end);
                    return Ok(Found::nowhere(HopState::Unresolved, true));
                }
                let below = self.path(candidate.path, &path.key);
                if below.blackhole || (below.looped && !below.usable()) {
                    self.deps.push(end);
                    return Ok(Found::nowhere(HopState::Unresolved, below.looped));
                }
                if below.usable() {
                    self.deps.push(end);
                    let members = self.follow_leaks(via, below.members());
                    let usable = members.iter().any(|s| s.usable);
                    let shares = neighbors(facts, via, members);
                    let state = if usable { HopState::Active } else { HopState::Unresolved };
                    return Ok(Found { state, shares, looped: false });
                }
                if below.hops.iter().any(|h| h.state == HopState::LinkDown) {
                    state = HopState::LinkDown;
                    if path.key.hops.iter().any(|h| h.via.is_none()) {
                        link_down.get_or_insert(below);
                    }
                }
            }
            if let Some(below) = link_down {
                // The gateway's own link is down. Another way round would reach somebody else: it is dead, as on Linux.
                self.deps.push(Dep::Gateway(domain, via, len));
                return Ok(Found { state, shares: neighbors(facts, via, below.members()), looped: false });
            }
        }
        self.deps.push(Dep::Gateway(domain, via, 0));
        Err(state)
    }
}

/// Where a route ends at a link with neighbours, the gateway is the one to send to.
fn neighbors(facts: &Facts, via: IpAddr, mut shares: Vec<Share>) -> Vec<Share> {
    for s in &mut shares {
        let link = facts.port(s.leaf.port).is_some_and(|p| p.medium == Medium::Ethernet);
        if link && s.leaf.gateway.is_none() {
            s.leaf.gateway = Some(via);
        }
    }
    shares
}

/// A hop's object number, where several kinds of route need none of their own.
pub(crate) fn fixed_object(kind: RouteKind) -> Option<ObjectId> {
    use crate::routing::objects as o;
    match kind {
        RouteKind::Unicast => None,
        RouteKind::Local | RouteKind::Anycast => Some(o::LOCAL),
        RouteKind::Broadcast => Some(o::BROADCAST),
        RouteKind::Blackhole => Some(o::BLACKHOLE),
        RouteKind::Unreachable => Some(o::UNREACHABLE),
        RouteKind::Prohibit => Some(o::PROHIBIT),
        RouteKind::Throw => Some(ObjectId::NO_ROUTE),
    }
}

impl Facts {
    /// A hop with its port's number; an unknown port leaves it without a usable one.
    pub(crate) fn hop(&self, spec: &HopSpec) -> Hop {
        let dev = spec.dev.as_deref().map(|d| self.port_by_name(d).map_or(PortId::NONE, |p| p.id));
        Hop { via: spec.via, dev, weight: spec.weight, onlink: spec.onlink }
    }
}
