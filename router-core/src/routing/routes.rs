//! Adding, replacing, changing, appending and deleting routes, by Linux's rules.
//!
//! IPv4: table, prefix and metric name a place; `add` wants it free, `append` and `prepend` put another route beside.
//! IPv6: the same, but an appended route with a gateway joins the one that is there as another member.

use super::show::RouteFilter;
use super::{RouteError, Routing};
use crate::addr::{Family, unmap};
use crate::journal::{Happened, Subject};
use crate::next_hop::{Hop, PathId, PathKey};
use crate::port::{PortId, TableId};
use crate::rib::{Candidate, Candidates, EntryId};
use crate::spec::{RouteKind, RouteOp, RouteSpec, proto};
use ipnet::IpNet;

impl Routing {
    /// Carries out one command.
    pub fn route(&mut self, op: RouteOp, spec: &RouteSpec) -> Result<(), RouteError> {
        let named;
        let spec = match &spec.vrf {
            None => spec,
            Some(vrf) => {
                let table = self.facts.port_by_name(vrf).and_then(|p| self.facts.vrf(p.id));
                let table = table.ok_or_else(|| RouteError::NoDevice(vrf.clone()))?;
                if spec.table.is_some_and(|t| t != table) {
                    return Err(RouteError::Invalid("\"vrf\" and \"table\" say two things"));
                }
                named = RouteSpec { table: Some(table), vrf: None, ..spec.clone() };
                &named
            }
        };
        match op {
            RouteOp::Delete => self.delete(spec),
            _ => self.set_route(op, spec),
        }
    }

    /// Deletes every route that the filter selects; says how many.
    pub fn flush(&mut self, filter: &RouteFilter) -> usize {
        let mut count = 0;
        for (entry, candidate) in self.select(filter) {
            let place = self.rib.entries.get(entry).and_then(|e| e.candidates.iter().position(|c| *c == candidate));
            if let Some(i) = place {
                self.remove_candidate(entry, i);
                count += 1;
            }
        }
        count
    }

    fn set_route(&mut self, op: RouteOp, spec: &RouteSpec) -> Result<(), RouteError> {
        let metric = spec.metric_or_default();
        let origin = spec.proto.unwrap_or(proto::BOOT);
        let dst = spec.dst;
        // A path that is there already, or the key of one that may be.
        let path = match self.known_path(spec) {
            Some(path) => Ok(path),
            None => Err(self.path_key(spec)?),
        };
        let table = self.make_place(spec)?;
        self.make_domain(table);
        // What is there may already forbid it, which is cheaper to find out than to resolve.
        let existing = self.find_to_change(table, &dst);
        if op == RouteOp::Add && self.places(existing, table, metric).next().is_some() {
            return Err(RouteError::Exists);
        }
        let looks_up = path.as_ref().map_or_else(|key| key.hops.iter().any(|h| h.dev.is_none()), |_| true);
        let path = path.unwrap_or_else(|key| self.intern_path(key));
        self.hold_path(path);
        // Only where somebody's gateway lies within the prefix can the route lead back to itself.
        let looks_up = looks_up && self.tracked_within(table, &dst);
        let mark = self.journal.mark();
        let result = self.check_resolved(path, spec.family()).and_then(|()| {
            let before = existing.filter(|_| looks_up).and_then(|e| self.rib.entries.get(e));
            let before = before.map(|e| e.candidates.clone()).unwrap_or_default();
            before.iter().for_each(|c| self.hold_path(c.path));
            let new = Candidate { path, metric, table, proto: origin };
            let mut done = match spec.family() {
                Family::Inet => self.set_v4(op, dst, existing, new),
                Family::Inet6 => self.set_v6(op, dst, existing, new),
            };
            if done.is_ok() && looks_up {
                // Only now that the route is there can its gateway lead back to it.
                done = self.check_resolved(path, spec.family());
                if done.is_err() {
                    self.restore(table, &dst, before.clone());
                    self.journal.rewind(mark);
                }
            }
            before.iter().for_each(|c| self.release_path(c.path));
            done
        });
        self.release_path(path);
        result
    }

    /// The entry of a prefix that is about to change. All that the change needs is asked for at once: a full table is in no
    /// cache, and one miss after the other is what an update would cost.
    fn find_to_change(&self, table: TableId, dst: &IpNet) -> Option<EntryId> {
        let id = self.rib.find_to_change(&self.memory, table, dst)?;
        let e = self.rib.entries.get(id)?;
        if let Some(c) = self.chains.get(e.chain) {
            // Where it is listed, and the one that is to take its place.
            let last = c.entries.last().and_then(|l| self.rib.entries.get(*l)).map(|l| l.place);
            std::hint::black_box((c.entries.get(e.place as usize), last));
        }
        Some(id)
    }

    /// Puts the candidates of a prefix back as they were.
    fn restore(&mut self, table: TableId, dst: &IpNet, before: Candidates) {
        let Some(id) = self.rib.find(table, dst) else { return };
        before.iter().for_each(|c| self.hold_path(c.path));
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        let domain = e.domain;
        let tried = std::mem::replace(&mut e.candidates, before);
        self.rechain(id);
        tried.iter().for_each(|c| self.release_path(c.path));
        self.revisit_within(domain, dst, false);
    }

    fn set_v4(&mut self, op: RouteOp, dst: IpNet, entry: Option<EntryId>, new: Candidate) -> Result<(), RouteError> {
        let mut same = self.places(entry, new.table, new.metric);
        let (Some((first, there)), Some(entry)) = (same.next(), entry) else {
            drop(same);
            return self.set_fresh(op, dst, new, RouteError::NotFound);
        };
        let fits = |c: &Candidate| c.proto == new.proto && self.same_path(c.path, new.path);
        let alike = if fits(&there) { Some((first, there)) } else { same.find(|(_, c)| fits(c)) };
        drop(same);
        match (op, alike) {
            (RouteOp::Replace | RouteOp::Change, Some(a)) if a.0 == first => {
                // The very same route: nothing to do, unless it was written in other words.
                if there.path != new.path {
                    self.replace_candidate(entry, first, new);
                }
                Ok(())
            }
            (_, Some(_)) => Err(RouteError::Exists),
            (RouteOp::Replace | RouteOp::Change, None) => {
                self.replace_candidate(entry, first, new);
                Ok(())
            }
            (_, None) => {
                self.insert_candidate(new.table, dst, new, op == RouteOp::Prepend);
                Ok(())
            }
        }
    }

    fn set_v6(&mut self, op: RouteOp, dst: IpNet, entry: Option<EntryId>, new: Candidate) -> Result<(), RouteError> {
        let first = self.places(entry, new.table, new.metric).next();
        let (Some(first), Some(id)) = (first, entry) else {
            return self.set_fresh(op, dst, new, RouteError::NothingToReplace);
        };
        let joins = self.is_multipath_v6(new.path);
        let mut same = self.places(entry, new.table, new.metric);
        let partner = same.find(|(_, c)| self.is_multipath_v6(c.path) == joins);
        drop(same);
        match op {
            RouteOp::Replace | RouteOp::Change => {
                let (place, _) = partner.unwrap_or(first);
                self.replace_candidate(id, place, new);
                Ok(())
            }
            _ => match partner.filter(|_| joins) {
                Some((place, there)) => {
                    let key = self.joined(there.path, new.path)?;
                    let path = self.intern_path(key);
                    self.replace_candidate(id, place, Candidate { path, ..there });
                    Ok(())
                }
                None if self.places(entry, new.table, new.metric).any(|(_, c)| self.same_path(c.path, new.path)) => {
                    Err(RouteError::Exists)
                }
                None => {
                    self.insert_candidate(new.table, dst, new, op == RouteOp::Prepend);
                    Ok(())
                }
            },
        }
    }

    fn set_fresh(&mut self, op: RouteOp, dst: IpNet, new: Candidate, missing: RouteError) -> Result<(), RouteError> {
        if op == RouteOp::Change {
            return Err(missing);
        }
        if self.memory.nearly_full() {
            return Err(RouteError::Full);
        }
        self.insert_candidate(new.table, dst, new, op == RouteOp::Prepend);
        Ok(())
    }

    /// The candidates of one table and metric, with their place in the entry.
    fn places(&self, entry: Option<EntryId>, table: TableId, metric: u32) -> impl Iterator<Item = (usize, Candidate)> {
        let all = entry.and_then(|e| self.rib.entries.get(e)).map(|e| &e.candidates[..]).unwrap_or_default();
        let places = all.iter().copied().enumerate();
        places.filter(move |(_, c)| c.table == table && c.metric == metric)
    }

    /// Whether an IPv6 route takes further members: it has a gateway and no next-hop object.
    fn is_multipath_v6(&self, path: PathId) -> bool {
        self.paths.get(path).is_some_and(|p| {
            p.key.kind == RouteKind::Unicast && p.key.nhid.is_none() && p.key.hops.iter().any(|h| h.via.is_some())
        })
    }

    /// The path of an IPv6 route that got more members.
    fn joined(&self, there: PathId, new: PathId) -> Result<PathKey, RouteError> {
        let (Some(t), Some(n)) = (self.paths.get(there), self.paths.get(new)) else { return Err(RouteError::Exists) };
        let mut key = (*t.key).clone();
        for (i, hop) in n.key.hops.iter().enumerate() {
            let dev = self.dev_of(new, i);
            if (0..t.key.hops.len()).any(|j| t.key.hops[j].via == hop.via && self.dev_of(there, j) == dev) {
                return Err(RouteError::Exists);
            }
            key.hops.push(hop.clone());
        }
        Ok(key)
    }

    /// The port that a hop names or resolves to.
    pub(super) fn dev_of(&self, path: PathId, hop: usize) -> Option<PortId> {
        let p = self.paths.get(path)?;
        let written = p.key.hops.get(hop).and_then(|h| h.dev);
        written.or_else(|| p.outcome.hops.get(hop)?.shares.first().map(|s| s.leaf.port))
    }

    /// Whether two paths say the same, one of them perhaps with and one without `dev`.
    fn same_path(&self, a: PathId, b: PathId) -> bool {
        if a == b {
            return true;
        }
        let (Some(p), Some(q)) = (self.paths.get(a), self.paths.get(b)) else { return false };
        let (p, q) = (&p.key, &q.key);
        (p.kind, p.nhid, p.mtu, p.mss, p.src, &p.forwarder) == (q.kind, q.nhid, q.mtu, q.mss, q.src, &q.forwarder)
            && p.hops.len() == q.hops.len()
            && (0..p.hops.len()).all(|i| {
                let say = |h: &Hop| (h.via, h.weight, h.onlink);
                say(&p.hops[i]) == say(&q.hops[i]) && self.dev_of(a, i) == self.dev_of(b, i)
            })
    }

    /// Puts a candidate behind those that rank equal, or in front of them.
    pub(super) fn insert_candidate(&mut self, table: TableId, dst: IpNet, new: Candidate, in_front: bool) {
        self.make_domain(table);
        self.hold_path(new.path);
        let Some(id) = self.rib.find_or_make(table, dst) else { return };
        self.note_own(id, new.path);
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        let domain = e.domain;
        let rank = new.rank();
        let place = match in_front {
            true => e.candidates.partition_point(|c| c.rank() < rank),
            false => e.candidates.partition_point(|c| c.rank() <= rank),
        };
        e.candidates.insert(place, new);
        self.rechain(id);
        self.revisit_within(domain, &dst, false);
        self.note(Happened::Added, id, &new);
    }

    fn replace_candidate(&mut self, id: EntryId, place: usize, new: Candidate) {
        self.hold_path(new.path);
        self.note_own(id, new.path);
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        let (domain, dst) = (e.domain, e.dst);
        let Some(slot) = e.candidates.get_mut(place) else { return };
        let old = std::mem::replace(slot, new);
        e.candidates.sort_by_key(Candidate::rank);
        self.rechain(id);
        self.release_path(old.path);
        self.revisit_within(domain, &dst, false);
        self.note(Happened::Changed, id, &new);
    }

    /// An address with a candidate of these kinds is no gateway.
    fn note_own(&mut self, id: EntryId, path: PathId) {
        if let Some(p) = self.paths.get(path)
            && matches!(p.key.kind, RouteKind::Local | RouteKind::Broadcast)
            && let Some((domain, dst)) = self.rib.entries.get(id).map(|e| (e.domain, e.dst))
        {
            self.rib.note_own(domain, &dst);
        }
    }

    /// Writes a change of a route down, if anybody follows.
    fn note(&mut self, happened: Happened, id: EntryId, c: &Candidate) {
        if self.journal.is_on() {
            let info = Box::new(self.info(id, c));
            self.journal.write((happened, Subject::Route(info)));
        }
    }

    pub(super) fn remove_candidate(&mut self, id: EntryId, place: usize) {
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        let (domain, dst) = (e.domain, e.dst);
        if let Some(c) = e.candidates.get(place).copied() {
            self.note(Happened::Removed, id, &c);
        }
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        let Some(old) = e.candidates.remove(place) else { return };
        self.rechain(id);
        self.release_path(old.path);
        self.revisit_within(domain, &dst, false);
    }

    /// Removes every route with this path.
    pub(super) fn remove_routes_of(&mut self, path: PathId) {
        let Some(total) = self.paths.get(path).map(|p| p.refs as usize) else { return };
        let has = |c: &Candidate| c.path == path;
        let mut entries = self.entries_of(path);
        let count =
            |e: &EntryId| self.rib.entries.get(*e).map_or(0, |e| e.candidates.iter().filter(|c| has(c)).count());
        if entries.iter().map(count).sum::<usize>() < total {
            // Some are behind the end of their chain, where no list reaches them.
            entries = self.rib.entries.iter().filter(|(_, e)| e.candidates.iter().any(has)).map(|(k, _)| k).collect();
        }
        for id in entries {
            while let Some(i) = self.rib.entries.get(id).and_then(|e| e.candidates.iter().position(has)) {
                self.remove_candidate(id, i);
            }
        }
    }

    fn delete(&mut self, spec: &RouteSpec) -> Result<(), RouteError> {
        let table = self.find_place(spec).ok_or(RouteError::NoSuchRoute)?;
        for h in &spec.hops {
            if let Some(name) = &h.dev
                && self.facts.port_by_name(name).is_none()
            {
                return Err(RouteError::NoDevice(name.clone()));
            }
        }
        let entry = self.find_to_change(table, &spec.dst).ok_or(RouteError::NoSuchRoute)?;
        let candidates = self.rib.entries.get(entry).map(|e| &e.candidates[..]).unwrap_or_default();
        // In the order shown: by metric, as Linux walks them; the first of equal ones.
        let fitting = candidates.iter().enumerate().filter(|(_, c)| c.table == table && self.fits(spec, c));
        let (place, there) =
            fitting.min_by_key(|(_, c)| c.metric).map(|(i, c)| (i, *c)).ok_or(RouteError::NoSuchRoute)?;
        // IPv6: naming a gateway takes one member out of a multipath route.
        let members = self.paths.get(there.path).map_or(0, |p| p.key.hops.len());
        if spec.family() == Family::Inet6
            && let ([hop], true) = (&spec.hops[..], members > 1)
            && hop.via.is_some()
            && let Some(i) = (0..members).find(|i| self.hop_fits(hop, there.path, *i))
            && let Some(mut key) = self.paths.get(there.path).map(|p| (*p.key).clone())
        {
            key.hops.remove(i);
            let path = self.intern_path(key);
            self.replace_candidate(entry, place, Candidate { path, ..there });
            return Ok(());
        }
        self.remove_candidate(entry, place);
        Ok(())
    }

    /// Whether a candidate is what a delete command describes: everything said must fit, what is not said may be
    /// anything (`unicast` counts as not said: it is what iproute2 leaves out).
    fn fits(&self, spec: &RouteSpec, c: &Candidate) -> bool {
        let Some(path) = self.paths.get(c.path) else { return false };
        let key = &path.key;
        let kind = spec.kind == RouteKind::Unicast || spec.kind == key.kind;
        let metric = spec.metric.is_none_or(|m| m == 0 || m == c.metric);
        let origin = spec.proto.is_none_or(|p| p == c.proto);
        let src = spec.src.is_none() || spec.src.map(unmap) == key.src;
        let mtu = spec.mtu.is_none_or(|m| m == key.mtu) && spec.advmss.is_none_or(|m| m == key.mss);
        let forwarder = spec.forwarder.is_none() || spec.forwarder.as_deref() == key.forwarder.as_deref();
        kind && metric && origin && src && mtu && forwarder && self.hops_fit(spec, c.path, key)
    }

    fn hops_fit(&self, spec: &RouteSpec, path: PathId, key: &PathKey) -> bool {
        if spec.nhid.is_some() {
            return spec.nhid == key.nhid;
        }
        match (&spec.hops[..], key.nhid) {
            ([], _) => true,
            // Linux: `via` and `dev` do not describe a route by next-hop object.
            (_, Some(_)) => false,
            ([hop], None) if spec.family() == Family::Inet6 => (0..key.hops.len()).any(|i| self.hop_fits(hop, path, i)),
            (hops, None) => {
                (hops.len() == 1 || hops.len() == key.hops.len())
                    && hops.iter().enumerate().all(|(i, h)| self.hop_fits(h, path, i))
            }
        }
    }

    fn hop_fits(&self, hop: &crate::spec::HopSpec, path: PathId, i: usize) -> bool {
        let Some(there) = self.paths.get(path).and_then(|p| p.key.hops.get(i)) else { return false };
        let dev = hop.dev.as_deref().and_then(|d| self.facts.port_by_name(d)).map(|p| p.id);
        (hop.via.is_none() || hop.via.map(unmap) == there.via) && (dev.is_none() || dev == self.dev_of(path, i))
    }
}
