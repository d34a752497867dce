//! Paths and chains: interning, resolution, and carrying a new outcome to objects and prefixes.

use super::objects::Def;
use super::slab::NONE;
use super::{Routing, objects};
use crate::drop_reason::DropReason;
use crate::next_hop::{Chain, ChainId, MAX_CHAIN, Path, PathId, PathKey};
use crate::object::{Object, ObjectId};
use crate::port::{PortId, TableId};
use crate::resolve::{Dep, Outcome, Resolver, Root, fixed_object};
use crate::rib::{Candidate, EntryId};
use crate::tables::domain_of;
use ipnet::IpNet;
use std::sync::Arc;

impl Routing {
    /// The path with this key, made and resolved if need be. Not counted yet: [`Routing::hold_path`].
    pub(super) fn intern_path(&mut self, key: PathKey) -> PathId {
        if let Some(id) = self.path_ids.get(&key) {
            return *id;
        }
        let key = Arc::new(key);
        let unusable = || Def::Fixed(Object::Discard(DropReason::NextHopUnusable));
        let base = match fixed_object(key.kind) {
            Some(id) => id,
            None => self.objects.make(unusable(), &self.facts),
        };
        let plugin = key.forwarder.as_ref().and_then(|name| self.facts.forwarders.get(name)).cloned();
        let (object, inner) = match plugin {
            Some(f) => (self.objects.make(Def::Plugin(f, base), &self.facts), Some(base)),
            None => (base, None),
        };
        let path = Path {
            key: key.clone(),
            refs: 0,
            outcome: Outcome::default(),
            deps: Vec::new(),
            object,
            inner,
            chains: Vec::new(),
            lone: NONE,
        };
        let id = self.paths.insert(path);
        if let Some(gateway) = key.plain_gateway() {
            self.by_gateway.insert((key.domain, gateway), id);
        }
        for port in key.ports() {
            self.by_name.entry(port).or_default().push(id);
        }
        self.path_ids.insert(key, id);
        self.refresh(Root::Path(id));
        id
    }

    pub(super) fn hold_path(&mut self, id: PathId) {
        if let Some(p) = self.paths.get_mut(id) {
            p.refs += 1;
        }
    }

    pub(super) fn release_path(&mut self, id: PathId) {
        if let Some(p) = self.paths.get_mut(id) {
            p.refs = p.refs.saturating_sub(1);
        }
        self.drop_if_unused(id);
    }

    /// Removes a path without candidates.
    pub(super) fn drop_if_unused(&mut self, id: PathId) {
        if self.paths.get(id).is_none_or(|p| p.refs > 0) {
            return;
        }
        let Some(path) = self.paths.remove(id) else { return };
        self.path_ids.remove(&path.key);
        if let Some(gateway) = path.key.plain_gateway() {
            self.by_gateway.remove(&(path.key.domain, gateway));
        }
        for port in path.key.ports() {
            let Some(list) = self.by_name.get_mut(&port) else { continue };
            list.retain(|p| *p != id);
            if list.is_empty() {
                self.by_name.remove(&port);
            }
        }
        self.forget_deps(Root::Path(id), &path.deps);
        self.objects.free(path.object);
        if let Some(inner) = path.inner {
            self.objects.free(inner);
        }
    }

    /// Resolves a path or tunnel again and carries the result on.
    pub(super) fn refresh(&mut self, root: Root) {
        let mut resolver = Resolver::new(&self.rib, &self.paths, &self.facts);
        let outcome = match root {
            Root::Path(id) => match self.paths.get(id) {
                Some(p) => resolver.path(id, &p.key),
                None => return,
            },
            Root::Tunnel(id) => match self.facts.tunnels.get(&id) {
                Some(t) => resolver.carrier(id, t),
                None => return,
            },
        };
        let mut deps = resolver.deps;
        deps.sort_unstable();
        // Of several lookups of one address, the shortest end counts: it sorts first.
        deps.dedup_by(|b, a| match (a, b) {
            (Dep::Gateway(da, ga, _), Dep::Gateway(db, gb, _)) => da == db && ga == gb,
            (a, b) => a == b,
        });
        match root {
            Root::Path(id) => self.set_path(id, outcome, deps),
            Root::Tunnel(id) => self.set_carrier(id, outcome, deps),
        }
    }

    fn set_path(&mut self, id: PathId, outcome: Outcome, deps: Vec<Dep>) {
        let Some(path) = self.paths.get_mut(id) else { return };
        let old_deps = (path.deps != deps).then(|| std::mem::replace(&mut path.deps, deps));
        let same = path.outcome == outcome;
        path.outcome = outcome;
        let (object, inner, chains) = (path.object, path.inner, path.chains.clone());
        let def = definition(&path.outcome);
        if let Some(old) = old_deps {
            self.forget_deps(Root::Path(id), &old);
            self.enter_deps(Root::Path(id));
        }
        if same {
            return;
        }
        // Constant objects stay as they are: `set` leaves them alone.
        self.objects.set(inner.unwrap_or(object), def, &self.facts);
        for chain in chains {
            self.refresh_chain(chain);
        }
    }

    fn set_carrier(&mut self, id: PortId, outcome: Outcome, deps: Vec<Dep>) {
        let Some(t) = self.facts.tunnels.get_mut(&id) else { return };
        let old_deps = (t.deps != deps).then(|| std::mem::replace(&mut t.deps, deps));
        let same = t.outcome == outcome;
        t.outcome = outcome;
        let old_carrier = (t.carrier, t.leaf);
        let def = definition(&t.outcome);
        if let Some(old) = old_deps {
            self.forget_deps(Root::Tunnel(id), &old);
            self.enter_deps(Root::Tunnel(id));
        }
        if !same {
            let (carrier, leaf) = self.objects.carrier(def, id, &self.facts);
            if let Some(t) = self.facts.tunnels.get_mut(&id) {
                (t.carrier, t.leaf) = (carrier, leaf);
            }
            self.objects.refresh_port(id, &self.facts);
            // Only now does nothing lead to the old one.
            self.objects.drop_carrier(old_carrier.0, old_carrier.1, id);
        }
    }

    fn deps_of(&self, root: Root) -> Vec<Dep> {
        match root {
            Root::Path(id) => self.paths.get(id).map(|p| p.deps.clone()),
            Root::Tunnel(id) => self.facts.tunnels.get(&id).map(|t| t.deps.clone()),
        }
        .unwrap_or_default()
    }

    fn enter_deps(&mut self, root: Root) {
        for dep in self.deps_of(root) {
            match dep {
                Dep::Port(p) => _ = self.by_port.entry(p).or_default().insert(root),
                Dep::NextHop(n) => _ = self.by_next_hop.entry(n).or_default().insert(root),
                Dep::Gateway(domain, addr, end) => {
                    let Some(trackers) = self.rib.domains.get_mut(&domain).map(|d| &mut d.trackers) else { continue };
                    trackers.get_or_make(addr).roots.insert(root, end);
                }
            }
        }
    }

    pub(super) fn forget_deps(&mut self, root: Root, deps: &[Dep]) {
        for dep in deps {
            match dep {
                Dep::Port(p) => {
                    if let Some(set) = self.by_port.get_mut(p) {
                        set.remove(&root);
                        if set.is_empty() {
                            self.by_port.remove(p);
                        }
                    }
                }
                Dep::NextHop(n) => {
                    if let Some(set) = self.by_next_hop.get_mut(n) {
                        set.remove(&root);
                        if set.is_empty() {
                            self.by_next_hop.remove(n);
                        }
                    }
                }
                Dep::Gateway(domain, addr, _) => {
                    let Some(trackers) = self.rib.domains.get_mut(domain).map(|d| &mut d.trackers) else { continue };
                    let Some(t) = trackers.get_mut(addr) else { continue };
                    t.roots.remove(&root);
                    if t.roots.is_empty() {
                        trackers.remove(addr);
                    }
                }
            }
        }
    }

    /// The candidates of a prefix have changed: resolves again whoever looked up an address in it and got as far; `all`
    /// also those who did not.
    pub(super) fn revisit_within(&mut self, domain: TableId, dst: &IpNet, all: bool) {
        let Some(d) = self.rib.domains.get(&domain) else { return };
        let mut roots = Vec::new();
        for t in d.trackers.within(dst) {
            roots.extend(t.roots.iter().filter(|(_, end)| all || **end <= dst.prefix_len()).map(|(r, _)| *r));
        }
        if !roots.is_empty() {
            roots.sort_unstable();
            roots.dedup();
            self.refresh_all(roots);
        }
    }

    /// Whether something resolves through an address within a prefix.
    pub(super) fn tracked_within(&self, table: TableId, dst: &IpNet) -> bool {
        let domain = self.rib.domains.get(&domain_of(table));
        domain.is_some_and(|d| d.trackers.within(dst).next().is_some())
    }

    /// Tunnels first: paths show whether their tunnel is carried.
    pub(super) fn refresh_all(&mut self, mut roots: Vec<Root>) {
        roots.sort_by_key(|r| matches!(r, Root::Path(_)));
        roots.into_iter().for_each(|r| self.refresh(r));
    }

    /// Rebuilds the chain of an entry after its candidates have changed, and queues the entry for the FIB.
    pub(super) fn rechain(&mut self, id: EntryId) {
        let Some(e) = self.rib.entries.get(id) else { return };
        if let [only] = e.candidates[..] {
            // Nearly all prefixes: nothing to sort out.
            let (old, path) = (e.chain, only.path);
            let lone = self.paths.get(path).map_or(NONE, |p| p.lone);
            let new = if lone == NONE { self.intern_chain(&[path]) } else { lone };
            return self.move_to(id, old, new);
        }
        let mut paths: Vec<PathId> = Vec::with_capacity(e.candidates.len().min(MAX_CHAIN));
        // Too many for one chain: those that work now come first. Thousands may be: every link has fe80::/64.
        let many = e.candidates.len() > MAX_CHAIN;
        let usable = |c: &&Candidate| self.paths.get(c.path).is_some_and(|p| p.outcome.usable());
        let first = e.candidates.iter().filter(|c| !many || usable(c));
        let others = e.candidates.iter().filter(|c| many && !usable(c));
        for c in first.chain(others) {
            if paths.len() == MAX_CHAIN {
                break;
            }
            if !paths.contains(&c.path) {
                paths.push(c.path);
            }
            // Nothing behind one that is always usable is ever reached.
            if self.paths.get(c.path).is_some_and(|p| p.outcome.fixed) {
                break;
            }
        }
        self.set_chain(id, e.chain, &paths);
    }

    /// Gives an entry the chain of these paths in place of its `old` one, and queues it for the FIB.
    fn set_chain(&mut self, id: EntryId, old: ChainId, paths: &[PathId]) {
        let new = if paths.is_empty() { NONE } else { self.intern_chain(paths) };
        self.move_to(id, old, new);
    }

    fn move_to(&mut self, id: EntryId, old: ChainId, new: ChainId) {
        if old != new {
            self.unlink(id, old);
            self.link(id, new);
            self.follow_counted(id);
            self.drop_chain_if_unused(old);
        }
        self.mark_dirty(id);
    }

    fn intern_chain(&mut self, paths: &[PathId]) -> ChainId {
        if let Some(id) = self.chain_ids.get(paths) {
            return *id;
        }
        let paths: Arc<[PathId]> = paths.into();
        let mut chain = Chain { paths: paths.clone(), object: ObjectId::NO_ROUTE, usable: false, entries: Vec::new() };
        let first = self.paths.get(paths[0]).map_or(ObjectId::NO_ROUTE, |p| p.object);
        chain.object = match chain.owns_object() {
            true => self.objects.make(Def::Copy(first), &self.facts),
            false => first,
        };
        let id = self.chains.insert(chain);
        for p in paths.iter() {
            if let Some(p) = self.paths.get_mut(*p) {
                p.chains.push(id);
                if paths.len() == 1 {
                    p.lone = id;
                }
            }
        }
        self.chain_ids.insert(paths, id);
        self.refresh_chain(id);
        id
    }

    fn drop_chain_if_unused(&mut self, id: ChainId) {
        if self.chains.get(id).is_none_or(|c| !c.entries.is_empty()) {
            return;
        }
        let Some(chain) = self.chains.remove(id) else { return };
        self.chain_ids.remove(&chain.paths);
        for p in chain.paths.iter() {
            if let Some(p) = self.paths.get_mut(*p) {
                p.chains.retain(|c| *c != id);
                if p.lone == id {
                    p.lone = NONE;
                }
            }
        }
        if chain.owns_object() {
            self.objects.free(chain.object);
        }
    }

    /// A path of the chain has another outcome: the object follows, and so do the prefixes if need be.
    fn refresh_chain(&mut self, id: ChainId) {
        let Some(chain) = self.chains.get(id) else { return };
        let active = chain.paths.iter().find_map(|p| self.paths.get(*p).filter(|p| p.outcome.usable()));
        let (usable, from) = (active.is_some(), active.map(|p| p.object));
        let (owned, object, flipped) = (chain.owns_object(), chain.object, chain.usable != usable);
        let full = chain.paths.len() >= MAX_CHAIN;
        if owned {
            let def = match from {
                // What never changes need not be followed, and `Copy` could not enter itself there.
                Some(o) if o <= objects::PROHIBIT => {
                    let content = self.objects.get(o).cloned();
                    Def::Fixed(content.unwrap_or(Object::Discard(DropReason::NextHopUnusable)))
                }
                Some(o) => Def::Copy(o),
                None => Def::Fixed(Object::Discard(DropReason::NextHopUnusable)),
            };
            self.objects.set(object, def, &self.facts);
        }
        let Some(chain) = self.chains.get_mut(id) else { return };
        chain.usable = usable;
        if !flipped {
            return;
        }
        match full {
            // There may be candidates beyond the chain.
            true => self.entries_in(id).into_iter().for_each(|e| self.rechain(e)),
            false => self.flipped.push_back(id),
        }
    }

    /// The entries of a chain.
    pub(super) fn entries_in(&self, chain: ChainId) -> Vec<EntryId> {
        self.chains.get(chain).map(|c| c.entries.clone()).unwrap_or_default()
    }

    fn link(&mut self, entry: EntryId, chain: ChainId) {
        let Some(c) = self.chains.get_mut(chain) else { return };
        if let Some(e) = self.rib.entries.get_mut(entry) {
            (e.chain, e.place) = (chain, c.entries.len() as u32);
            c.entries.push(entry);
        }
    }

    fn unlink(&mut self, entry: EntryId, chain: ChainId) {
        let Some(c) = self.chains.get_mut(chain) else { return };
        let Some(e) = self.rib.entries.get_mut(entry) else { return };
        let place = std::mem::take(&mut e.place);
        e.chain = NONE;
        if c.entries.get(place as usize) != Some(&entry) {
            return;
        }
        c.entries.swap_remove(place as usize);
        // The last one has come in its place.
        if let Some(moved) = c.entries.get(place as usize).and_then(|m| self.rib.entries.get_mut(*m)) {
            moved.place = place;
        }
    }

    /// The entries that have a path among their candidates, as far as chains reach.
    pub(super) fn entries_of(&self, path: PathId) -> Vec<EntryId> {
        let chains = self.paths.get(path).map(|p| &p.chains[..]).unwrap_or_default();
        chains.iter().flat_map(|c| self.entries_in(*c)).collect()
    }
}

/// What an outcome looks like to the data plane.
fn definition(outcome: &Outcome) -> Def {
    if outcome.blackhole {
        return Def::Fixed(Object::Discard(DropReason::Blackhole));
    }
    if !outcome.usable() {
        let reason = if outcome.looped { DropReason::TunnelNesting } else { DropReason::NextHopUnusable };
        return Def::Fixed(Object::Discard(reason));
    }
    if let Some((group, ids)) = &outcome.resilient {
        return resilient(*group, ids, outcome);
    }
    let members = outcome.members();
    match &members[..] {
        [] => Def::Fixed(Object::Discard(DropReason::NextHopUnusable)),
        [one] => Def::Leaf(one.leaf),
        _ => Def::Group(members),
    }
}

/// A resilient group keeps its members apart, also where they lead to the same neighbour.
fn resilient(group: u32, ids: &[u32], outcome: &Outcome) -> Def {
    let shares = outcome.hops.iter().zip(ids).flat_map(|(h, id)| h.shares.iter().map(|s| (*id, *s)));
    Def::Resilient(group, shares.collect())
}
