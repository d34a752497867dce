//! Routes for some sources only (`default from 2001:db8:1::/48 via ...`): the longest destination decides, then the longest
//! source (RFC 8678 4, draft-ietf-rtgwg-dst-src-routing 3); a destination whose routes are all for other sources counts as
//! one without a route, and the next shorter one is asked.
//!
//! The routes of a table for one source are kept in a table of their own, under an internal number, so that all that can be
//! done with routes can be done with these. A prefix that has such routes gets an object in the compiled table of its own
//! table: [`Sources`], where the source is compared. So no other prefix pays for it, and no table that has none.
//!
//! A prefix's object names what its routes lead to, and, where no route is for all sources, what the next shorter prefix
//! says: it is made anew when one of those changes. That happens between two halves of commits: an entry that was written
//! queues the prefixes that depend on it, and the next commit publishes their objects before anything points to them.

use super::objects::Def;
use super::{RouteError, Routing};
use crate::addr::Family;
use crate::next_hop::PathId;
use crate::object::{Object, ObjectId, Sources};
use crate::port::TableId;
use crate::rib::{EntryId, host};
use crate::spec::{RouteInfo, RouteSpec};
use crate::tables::domain_of;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Different sources of all tables, at most.
const MAX_SOURCES: u32 = 1 << 16;
/// The first internal number.
const FIRST: u32 = 0xfff0_0000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SourceTables {
    /// The internal table of a table's routes for a source.
    tables: BTreeMap<(TableId, IpNet), TableId>,
    /// Table and source of an internal table.
    of: BTreeMap<TableId, (TableId, IpNet)>,
    /// Prefixes that have an object of their own.
    made: BTreeMap<(TableId, IpNet), Made>,
    /// Prefixes to look at, shortest first.
    queue: BTreeSet<(TableId, u8, IpNet)>,
}

#[derive(Debug)]
struct Made {
    object: ObjectId,
    list: Vec<(IpNet, ObjectId)>,
    otherwise: ObjectId,
    lengths: Vec<u8>,
}

impl SourceTables {
    /// Whether there are none, so that nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.queue.is_empty() && self.made.is_empty()
    }

    /// Whether some prefix is to be looked at.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What the compiled table has at a prefix in place of its own route.
    pub(super) fn instead(&self, domain: TableId, dst: &IpNet) -> Option<ObjectId> {
        self.made.get(&(domain, *dst)).map(|m| m.object)
    }

    /// Whether a prefix is needed although no route is for all sources.
    pub(super) fn holds(&self, domain: TableId, dst: &IpNet) -> bool {
        self.made.contains_key(&(domain, *dst))
    }

    /// Whether a table has such routes.
    pub(super) fn uses(&self, domain: TableId) -> bool {
        self.tables.range((domain, least())..).next().is_some_and(|((t, _), _)| *t == domain)
    }

    /// An internal table is empty.
    pub(super) fn forget(&mut self, table: TableId) {
        if let Some(key) = self.of.remove(&table) {
            self.tables.remove(&key);
        }
    }

    /// Table and source of routes that lie in a table.
    pub(super) fn shown(&self, table: TableId) -> (TableId, Option<IpNet>) {
        self.of.get(&table).map_or((table, None), |(t, s)| (*t, Some(*s)))
    }

    /// The sources of a table with their internal tables.
    fn of_table(&self, domain: TableId) -> impl Iterator<Item = (IpNet, TableId)> {
        let from = self.tables.range((domain, least())..);
        from.take_while(move |((t, _), _)| *t == domain).map(|((_, s), x)| (*s, *x))
    }

    fn ask(&mut self, domain: TableId, dst: IpNet) {
        self.queue.insert((domain, dst.prefix_len(), dst));
    }

    /// A prefix of the compiled tables was written: those that depend on it are looked at again.
    pub(super) fn touched(&mut self, domain: TableId, dst: &IpNet) {
        if let Some((table, _)) = self.of.get(&domain).copied() {
            return self.ask(table, *dst);
        }
        let within: Vec<_> = self.within(domain, dst).collect();
        within.into_iter().for_each(|d| self.ask(domain, d));
    }

    fn within(&self, domain: TableId, dst: &IpNet) -> impl Iterator<Item = IpNet> {
        let all = self.made.range((domain, least())..).take_while(move |((t, _), _)| *t == domain);
        let dst = *dst;
        all.map(|((_, d), _)| *d).filter(move |d| Family::of_net(d) == Family::of_net(&dst) && dst.contains(d))
    }
}

/// The first prefix in order.
fn least() -> IpNet {
    Family::Inet.default_prefix()
}

/// The source that a route is for; None for all.
fn source(spec: &RouteSpec) -> Option<IpNet> {
    spec.from.filter(|s| s.prefix_len() > 0)
}

impl Routing {
    /// The table in which a route is kept: that of its source, which is made if need be.
    pub(super) fn make_place(&mut self, spec: &RouteSpec) -> Result<TableId, RouteError> {
        let table = spec.table_id();
        if table.is_internal() {
            return Err(RouteError::Invalid("tables from 4293918720 up are the router's own"));
        }
        let Some(src) = source(spec) else { return Ok(table) };
        if Family::of_net(&src) != spec.family() {
            return Err(RouteError::Invalid("\"from\" and the destination are of different families"));
        }
        if src.trunc() != src {
            return Err(RouteError::Invalid("\"from\" has bits behind its prefix length"));
        }
        let domain = domain_of(table);
        if let Some(there) = self.sourced.tables.get(&(domain, src)) {
            return Ok(*there);
        }
        let free = (FIRST..FIRST + MAX_SOURCES).map(TableId).find(|t| !self.sourced.of.contains_key(t));
        let id = free.ok_or(RouteError::Invalid("too many different sources"))?;
        self.make_domain(table);
        self.sourced.tables.insert((domain, src), id);
        self.sourced.of.insert(id, (domain, src));
        Ok(id)
    }

    /// The table in which a route would be.
    pub(super) fn find_place(&self, spec: &RouteSpec) -> Option<TableId> {
        match source(spec) {
            None => Some(spec.table_id()),
            Some(src) => self.sourced.tables.get(&(domain_of(spec.table_id()), src)).copied(),
        }
    }

    /// What an entry's usable route leads to.
    fn usable_object(&self, entry: Option<EntryId>) -> Option<ObjectId> {
        let chain = self.chains.get(self.rib.entries.get(entry?)?.chain)?;
        chain.usable.then_some(chain.object)
    }

    /// First thing in a commit: brings the objects of queued prefixes up to date.
    pub(super) fn sync_sources(&mut self) {
        while let Some((domain, _, dst)) = self.sourced.queue.pop_first() {
            let mut list: Vec<(IpNet, ObjectId)> = Vec::new();
            for (src, table) in self.sourced.of_table(domain) {
                if let Some(object) = self.usable_object(self.rib.find(table, &dst)) {
                    list.push((src, object));
                }
            }
            let there = self.sourced.made.contains_key(&(domain, dst));
            if list.is_empty() {
                if let Some(gone) = self.sourced.made.remove(&(domain, dst)) {
                    self.objects.free(gone.object);
                    self.source_changed(domain, &dst, true);
                }
                continue;
            }
            list.sort_by_key(|(src, _)| (std::cmp::Reverse(src.prefix_len()), *src));
            let mut lengths = vec![dst.prefix_len(); list.len() + 1];
            let mut otherwise = self.usable_object(self.rib.find(domain, &dst));
            if otherwise.is_none()
                && let Some((length, cover)) = self.rib.installed_cover(domain, &dst)
            {
                otherwise = match self.objects.get(cover) {
                    Some(Object::Sources(s)) => {
                        list.extend(s.list.iter().copied());
                        lengths.pop();
                        lengths.extend(s.lengths.iter());
                        Some(s.otherwise)
                    }
                    _ => {
                        lengths.pop();
                        lengths.push(length);
                        Some(cover)
                    }
                };
            }
            let otherwise = otherwise.unwrap_or(ObjectId::NO_ROUTE);
            let known = self.sourced.made.get(&(domain, dst));
            if known.is_some_and(|m| m.list == list && m.otherwise == otherwise && m.lengths == lengths) {
                continue;
            }
            let def = Def::Fixed(Object::Sources(Sources {
                list: list.clone().into(),
                otherwise,
                lengths: lengths.clone().into(),
            }));
            let object = match known.map(|m| m.object) {
                Some(object) => {
                    self.objects.set(object, def, &self.facts);
                    object
                }
                None => self.objects.make(def, &self.facts),
            };
            self.sourced.made.insert((domain, dst), Made { object, list, otherwise, lengths });
            self.source_changed(domain, &dst, !there);
        }
    }

    /// A prefix's object has another content, or came or went (`entry`).
    fn source_changed(&mut self, domain: TableId, dst: &IpNet, entry: bool) {
        let below: Vec<_> = self.sourced.within(domain, dst).filter(|d| d != dst).collect();
        below.into_iter().for_each(|d| self.sourced.ask(domain, d));
        if entry {
            self.make_domain(domain);
            if let Some(id) = self.rib.find_or_make(domain, *dst) {
                self.mark_dirty(id);
            }
        }
    }

    /// The entry and path that a packet gets: longest destination first, then longest source. Without a source, routes for
    /// some sources only do not count.
    pub(super) fn best(&self, domain: TableId, dst: &IpAddr, src: Option<&IpAddr>) -> Option<(EntryId, PathId)> {
        let usable = |id: EntryId| {
            let chain = self.chains.get(self.rib.entries.get(id)?.chain)?;
            let path = chain.paths.iter().copied().find(|p| self.paths.get(*p).is_some_and(|p| p.outcome.usable()))?;
            Some((id, path))
        };
        self.rib.covers(domain, &host(dst)).into_iter().find_map(|(_, id)| {
            let net = self.rib.entries.get(id)?.dst;
            let mut tables: Vec<_> =
                self.sourced.of_table(domain).filter(|(s, _)| src.is_some_and(|src| s.contains(src))).collect();
            tables.sort_by_key(|(s, _)| std::cmp::Reverse(s.prefix_len()));
            let for_source = tables.into_iter().find_map(|(_, x)| usable(self.rib.find(x, &net)?));
            for_source.or_else(|| usable(id))
        })
    }

    /// The route that a packet from `src` to `dst` gets in a table.
    pub fn route_of_source(&self, table: TableId, dst: &IpAddr, src: &IpAddr) -> Option<RouteInfo> {
        let (entry, path) = self.best(domain_of(table), dst, Some(src))?;
        let candidate = self.rib.entries.get(entry)?.candidates.iter().find(|c| c.path == path).copied()?;
        Some(self.info(entry, &candidate))
    }
}
