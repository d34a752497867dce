//! The routing control plane: candidate routes in, forwarding objects and FIB entries out. One writer.
//!
//! ```text
//! routes ──> RIB entry (prefix) ──> chain ──> paths ──> resolution ──> leaves (link, neighbour)
//!                 │                   │          │                        │
//!                 └──────> FIB entry: prefix -> object number          object content
//! ```
//!
//! - [`crate::rib`] keeps every candidate per prefix, best first. `next_hop` shares what routes have in common,
//!   `resolve` finds out where it leads, `objects` renders the result for the data plane.
//! - **Who is visited when something changes.** A neighbour: the objects on it. A link: the paths and objects on it. A
//!   route: its prefix, and the paths whose recursive gateway (and the tunnels whose peer) lies within that prefix. Only
//!   when a chain of paths becomes usable or unusable as a whole are its prefixes visited, in slices (see below).
//!
//! # Publication
//!
//! Workers hold a snapshot ([`RoutingTables`]). FIB entries in it are changed in place, objects are not; so every entry's
//! object must be published first. One commit is therefore:
//!
//! 1. [`Routing::prepare`] gives a snapshot with all new objects, if there are any; the caller publishes it;
//! 2. [`Routing::apply`] writes the FIB entries. It stops after a bounded number of them and says so: commit again
//!    after a look at other work.
//!
//! A worker that meets an object number which its snapshot lacks takes the newest snapshot and looks up again.
//!
//! # Reuse of memory
//!
//! A freed object number or FIB node may still be read by whoever holds an older snapshot. Each snapshot carries a token;
//! `Routing` keeps every snapshot until its own is the only token left, which also means that the last reference, and
//! with it the work of freeing, is always here and never with a worker. Freed things are stamped with the number of the
//! snapshot that was newest when the last FIB entry had let go of them, and are used again when that one and all before
//! it are gone.

mod alternatives;
mod counting;
mod error;
mod explain;
pub(crate) mod facts;
mod next_hops;
pub(crate) mod objects;
mod paths;
mod ports;
mod resilient;
mod routes;
mod show;
pub(crate) mod slab;
mod sources;
#[cfg(test)]
mod tests;
mod validate;
mod views;

pub use crate::next_hop::resilient::BucketInfo;
pub use counting::MAX_COUNTED;
pub use error::{GatewayFault, RouteError};
pub use explain::{Candidacy, Choice, Cover, CoverVerdict, Recursion};
pub use facts::EncapFacts;
pub use show::{Cursor, PrefixSelect, RouteAnswer, RouteFilter};

use crate::fib::{Fib, FibMemory};
use crate::forward::Forwarder;
use crate::journal::{Happened, Journal, Subject};
use crate::next_hop::{Chain, ChainId, Path, PathId, PathKey};
use crate::object::{Object, ObjectId};
use crate::port::{PortId, TableId};
use crate::resolve::Root;
use crate::rib::{Domain, EntryId, NetMap, Rib, Trackers};
use crate::tables::{AdjacencyMap, FibSet, RoutingTables, domain_of};
use facts::Facts;
use foldhash::fast::FixedState;
use objects::Objects;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// FIB entries written by one [`Routing::apply`]: some milliseconds. Nodes that they replace wait for the next snapshot, so
/// this also bounds the memory that a load leaves behind.
const APPLY_SLICE: usize = 1 << 12;
/// Retired FIB nodes that are worth a snapshot of their own.
const NODES_WORTH_A_SNAPSHOT: usize = 2048;

/// See the module.
#[derive(Debug)]
pub struct Routing {
    facts: Facts,
    rib: Rib,
    paths: Slab<Path>,
    path_ids: HashMap<Arc<PathKey>, PathId, FixedState>,
    /// Paths that say no more than a gateway, by domain and that.
    by_gateway: HashMap<(TableId, IpAddr), PathId, FixedState>,
    /// Paths that name a port.
    by_name: BTreeMap<PortId, Vec<PathId>>,
    chains: Slab<Chain>,
    chain_ids: HashMap<Arc<[PathId]>, ChainId, FixedState>,
    /// Who depends on a port, who on a next-hop object.
    by_port: BTreeMap<PortId, BTreeSet<Root>>,
    by_next_hop: BTreeMap<u32, BTreeSet<Root>>,
    /// Routes that the router made for its ports.
    made: BTreeMap<PortId, Vec<ports::Made>>,

    objects: Objects,
    adjacencies: AdjacencyMap,
    memory: FibMemory,
    fibs: FibSet,
    fibs_changed: bool,
    /// Tables that may have become empty.
    maybe_empty: BTreeSet<TableId>,
    views: views::Views,
    sourced: sources::SourceTables,
    adjacencies_changed: bool,
    /// Entries whose FIB entry may have to change, in order.
    dirty: VecDeque<EntryId>,
    /// Chains that became usable or unusable: their entries are queued once the objects are published, so that a failing
    /// link is dealt with before anybody walks its routes.
    flipped: VecDeque<ChainId>,
    /// Number of the newest snapshot; all that may still be held, oldest first, with their numbers.
    seq: u64,
    held: VecDeque<(u64, RoutingTables)>,
    /// FIB entries written so far.
    fib_writes: u64,
    /// FIB entries written since replaced nodes were last counted.
    written: usize,
    /// Routes and next-hop objects that changed.
    journal: Journal<(Happened, Subject)>,
    /// Prefixes whose traffic is counted.
    counted: counting::Prefixes,
}

impl Routing {
    /// Empty tables: `main` exists and has no route. `seed` feeds all hashes.
    pub fn new(seed: u64) -> Self {
        let mut r = Routing {
            facts: Facts::default(),
            rib: Rib::default(),
            paths: Slab::default(),
            path_ids: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_gateway: HashMap::with_hasher(FixedState::with_seed(seed ^ 6)),
            by_name: BTreeMap::new(),
            chains: Slab::default(),
            chain_ids: HashMap::with_hasher(FixedState::with_seed(seed ^ 1)),
            by_port: BTreeMap::new(),
            by_next_hop: BTreeMap::new(),
            made: BTreeMap::new(),
            objects: Objects::new(seed ^ 2),
            adjacencies: AdjacencyMap::new(seed ^ 3),
            memory: FibMemory::new(),
            fibs: FibSet::default(),
            fibs_changed: true,
            maybe_empty: BTreeSet::new(),
            views: views::Views::default(),
            sourced: sources::SourceTables::default(),
            adjacencies_changed: false,
            dirty: VecDeque::new(),
            flipped: VecDeque::new(),
            seq: 0,
            held: VecDeque::new(),
            fib_writes: 0,
            written: 0,
            journal: Journal::default(),
            counted: counting::Prefixes::default(),
        };
        r.make_domain(TableId::MAIN);
        r
    }

    /// Plugs in a forwarder; routes name it by [`Forwarder::name`]. Another one of the same name takes its place for
    /// routes added from now on.
    pub fn register_forwarder(&mut self, forwarder: Arc<dyn Forwarder>) {
        self.facts.forwarders.insert(Arc::from(forwarder.name()), forwarder);
    }

    /// Sets what stands behind the port of a translator, or takes it away.
    pub fn set_translator(&mut self, port: PortId, forwarder: Option<Arc<dyn Forwarder>>) {
        match forwarder {
            Some(f) => _ = self.facts.translators.insert(port, f),
            None => _ = self.facts.translators.remove(&port),
        }
        self.objects.refresh_port(port, &self.facts);
    }

    /// Names of the plugged-in forwarders.
    pub fn forwarders(&self) -> impl Iterator<Item = &str> {
        self.facts.forwarders.keys().map(|k| &**k)
    }

    /// The newest snapshot, publishing what changed without writing the FIB: for the first one of a router.
    pub fn tables(&mut self) -> RoutingTables {
        if let Some(new) = self.prepare() {
            return new;
        }
        match self.held.back() {
            Some((_, t)) => t.clone(),
            None => self.snapshot(),
        }
    }

    /// Changes of routes and next-hop objects, to follow and to take.
    pub fn journal(&mut self) -> &mut Journal<(Happened, Subject)> {
        &mut self.journal
    }

    /// An object as it will be in the next snapshot.
    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(id)
    }

    /// Whether a commit would change anything that the data plane sees.
    pub fn pending(&self) -> bool {
        self.unwritten() || self.objects.changed() || self.fibs_changed || self.adjacencies_changed
    }

    /// First half of a commit: a snapshot to publish, or None when the last one is still good. Call [`Routing::apply`]
    /// after publishing it, also after None.
    pub fn prepare(&mut self) -> Option<RoutingTables> {
        self.reclaim();
        self.sync_sources();
        // Counting takes a while, and nothing is lost by waiting for some more entries.
        let look = self.written >= APPLY_SLICE;
        if look {
            self.written = 0;
        }
        let worth_it = look && self.memory.waiting() > NODES_WORTH_A_SNAPSHOT;
        let objects = self.objects.publish();
        let changed = objects.is_some() || self.fibs_changed || self.adjacencies_changed || worth_it;
        changed.then(|| self.snapshot())
    }

    /// Second half of a commit: writes FIB entries. True when some are left: commit again soon. Changes made since
    /// [`Routing::prepare`] wait for the next commit, and all entries with them.
    pub fn apply(&mut self) -> bool {
        if self.objects.changed() || self.fibs_changed {
            return true;
        }
        while let Some(chain) = self.flipped.pop_front() {
            for e in self.chains.get(chain).map(|c| &c.entries[..]).unwrap_or_default() {
                queue(&mut self.rib, &mut self.dirty, *e);
            }
        }
        for _ in 0..APPLY_SLICE {
            let Some(id) = self.dirty.pop_front() else { break };
            self.write_entry(id);
            self.written += 1;
        }
        self.memory.seal(self.seq);
        if !self.unwritten() {
            self.objects.seal(self.seq);
            self.drop_empty_domains();
        }
        self.unwritten()
    }

    /// Whether FIB entries may be behind the RIB.
    fn unwritten(&self) -> bool {
        !self.dirty.is_empty() || !self.flipped.is_empty() || self.sourced.is_waiting()
    }

    /// Commits until nothing is left, handing each snapshot to `publish`: for tests and tools without other work.
    pub fn commit(&mut self, mut publish: impl FnMut(RoutingTables)) {
        loop {
            if let Some(t) = self.prepare() {
                publish(t);
            }
            if !self.apply() {
                return;
            }
        }
    }

    /// FIB entries set or removed since the start.
    pub fn fib_writes(&self) -> u64 {
        self.fib_writes
    }

    /// Sizes of the tables, for display.
    pub fn stats(&self) -> RoutingStats {
        RoutingStats {
            prefixes: self.rib.entries.len(),
            paths: self.paths.len(),
            chains: self.chains.len(),
            objects: self.objects.len(),
            adjacencies: self.adjacencies.len(),
            fib_bytes: self.memory.bytes(),
            fib_writes: self.fib_writes,
            snapshots_held: self.held.len(),
            quarantined: self.objects.waiting() + self.memory.waiting(),
        }
    }

    fn snapshot(&mut self) -> RoutingTables {
        if std::mem::take(&mut self.fibs_changed) {
            self.fibs = self.rib.domains.iter().map(|(id, d)| (*id, d.fib.clone())).collect();
        }
        self.adjacencies_changed = false;
        self.seq += 1;
        let tables = RoutingTables {
            fibs: self.fibs.clone(),
            views: self.views.set(),
            objects: self.objects.table().clone(),
            adjacencies: self.adjacencies.clone(),
            token: Arc::new(()),
        };
        self.held.push_back((self.seq, tables.clone()));
        tables
    }

    /// Drops snapshots that nobody else holds, and frees what waited for them.
    fn reclaim(&mut self) {
        let newest = self.seq;
        self.held.retain_mut(|(seq, t)| *seq == newest || Arc::get_mut(&mut t.token).is_none());
        let oldest = self.held.front().map_or(newest, |(seq, _)| *seq);
        self.objects.release(oldest);
        self.memory.release(oldest);
    }

    /// Makes the domain of a table if it is not there.
    fn make_domain(&mut self, table: TableId) {
        let id = domain_of(table);
        if !self.rib.domains.contains_key(&id) {
            let fib = Arc::new(Fib::new(&self.memory));
            self.rib.domains.insert(id, Domain { routes: NetMap::default(), trackers: Trackers::default(), fib });
            self.fibs_changed = true;
            // Unless something comes in before the next commit.
            self.maybe_empty.insert(id);
        }
    }

    /// Drops tables without routes that no port or tunnel uses. The compiled table goes with the last snapshot.
    fn drop_empty_domains(&mut self) {
        for id in std::mem::take(&mut self.maybe_empty) {
            let empty = self.rib.domains.get(&id).is_some_and(|d| d.routes.len() == 0 && d.trackers.is_empty());
            if empty && id != TableId::MAIN && !self.facts.is_used(id) && !self.sourced.uses(id) {
                self.rib.domains.remove(&id);
                self.sourced.forget(id);
                self.fibs_changed = true;
            }
        }
    }

    /// Brings one prefix of the FIB up to date.
    fn write_entry(&mut self, id: EntryId) {
        let Some(e) = self.rib.entries.get_mut(id) else { return };
        e.dirty = false;
        let chain = self.chains.get(e.chain);
        let mut wanted = chain.filter(|c| c.usable).map(|c| self.counted.before(e.domain, &e.dst, c.object));
        let (dst, domain, had, mut empty) = (e.dst, e.domain, e.installed(), e.candidates.is_empty());
        if !self.sourced.is_empty() {
            wanted = self.sourced.instead(domain, &dst).or(wanted);
            empty &= !self.sourced.holds(domain, &dst);
            self.sourced.touched(domain, &dst);
        }
        if wanted != had {
            // No reference is counted here: the count lies beside what workers read.
            let Some(fib) = self.rib.domains.get(&domain).map(|d| &d.fib) else { return };
            self.fib_writes += 1;
            let written = match wanted {
                Some(object) => fib.insert(&mut self.memory, &dst, object).is_ok(),
                None => {
                    let cover = self.rib.installed_cover(domain, &dst);
                    fib.remove(&mut self.memory, &dst, cover);
                    true
                }
            };
            if written && !self.views.is_empty() {
                self.write_views(domain, &dst, wanted);
            }
            if let (true, Some(e)) = (written, self.rib.entries.get_mut(id)) {
                e.set_installed(wanted);
            }
        }
        if empty {
            self.rib.forget(id);
            self.maybe_empty.insert(domain);
        }
    }

    fn mark_dirty(&mut self, id: EntryId) {
        queue(&mut self.rib, &mut self.dirty, id);
    }
}

/// Queues an entry for the FIB, once.
fn queue(rib: &mut Rib, dirty: &mut VecDeque<EntryId>, id: EntryId) {
    if let Some(e) = rib.entries.get_mut(id)
        && !e.dirty
    {
        e.dirty = true;
        dirty.push_back(id);
    }
}

/// See [`Routing::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RoutingStats {
    /// Prefixes with candidates, all tables and families.
    pub prefixes: usize,
    /// Distinct sets of next hops.
    pub paths: usize,
    /// Distinct orders of candidates.
    pub chains: usize,
    /// Forwarding objects.
    pub objects: usize,
    /// Resolved neighbours.
    pub adjacencies: usize,
    /// Bytes of all FIB nodes.
    pub fib_bytes: usize,
    /// FIB entries set or removed since the start.
    pub fib_writes: u64,
    /// Snapshots that some worker may still hold, the newest included.
    pub snapshots_held: usize,
    /// Object numbers and FIB nodes that wait for workers.
    pub quarantined: usize,
}
