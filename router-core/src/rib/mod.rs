//! The routing information base: every candidate route of every table, best first.
//!
//! Tables `local`, `main` and `default` share one prefix map and one compiled table (a *domain*): their candidates for
//! a prefix compete directly, `local` first and `default` last. Every other table is a domain of its own.

mod candidates;
mod net_map;
pub(crate) mod order;
mod trackers;

pub(crate) use candidates::Candidates;
pub(crate) use net_map::{NetMap, host};
pub(crate) use trackers::Trackers;

use crate::fib::{Fib, FibMemory};
use crate::next_hop::{ChainId, PathId};
use crate::object::ObjectId;
use crate::port::TableId;
use crate::routing::slab::{Key, NONE, Slab};
use crate::spec::{Proto, proto};
use crate::tables::domain_of;
use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A prefix with candidates.
pub(crate) type EntryId = Key;

/// One route as the RIB keeps it: what all its next hops are is in its path, shared with all routes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: PathId,
    pub(crate) metric: u32,
    pub(crate) table: TableId,
    pub(crate) proto: Proto,
}

impl Candidate {
    /// The order of candidates for a prefix, lowest first. Equal ones keep the order in which commands put them.
    pub(crate) fn rank(&self) -> Rank {
        Rank {
            table: match self.table {
                TableId::LOCAL => 0,
                TableId::DEFAULT => 2,
                _ => 1,
            },
            preference: preference(self.proto),
            metric: self.metric,
        }
    }
}

/// See [`Candidate::rank`]. Compared field by field, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// `local` before `main` before `default`, in the order of Linux's rules.
    pub(crate) table: u8,
    /// By origin: see [`preference`].
    pub(crate) preference: u8,
    /// What the operator or the routing protocol said; lower wins.
    pub(crate) metric: u32,
}

/// Preference by origin; lower wins. What is directly connected beats everything said about it from elsewhere (in the
/// family of routers: administrative distance 0). All other origins compete by metric, as they do in Linux: a routing
/// daemon has already compared its protocols among each other and says so in the metric.
pub fn preference(origin: Proto) -> u8 {
    match origin {
        proto::KERNEL => 0,
        _ => 1,
    }
}

/// All candidates for one prefix of a domain. As a rule all of it is one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) dst: IpNet,
    pub(crate) domain: TableId,
    /// Best first.
    pub(crate) candidates: Candidates,
    /// Their paths in order, shared by all entries with the same.
    pub(crate) chain: ChainId,
    /// Where in the list of the chain's entries this one is.
    pub(crate) place: u32,
    /// The number of what the FIB holds; [`NONE`] for nothing.
    fib: u32,
    /// Already queued for the FIB.
    pub(crate) dirty: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

impl Entry {
    /// What the FIB holds.
    pub(crate) fn installed(&self) -> Option<ObjectId> {
        (self.fib != NONE).then_some(ObjectId(self.fib))
    }

    /// Notes what the FIB holds.
    pub(crate) fn set_installed(&mut self, object: Option<ObjectId>) {
        self.fib = object.map_or(NONE, |o| o.0);
    }
}

/// One compiled table and what it is compiled from.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) routes: NetMap<EntryId>,
    /// Addresses that something resolves through this domain.
    pub(crate) trackers: Trackers,
    pub(crate) fib: Arc<Fib>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    pub(crate) domains: BTreeMap<TableId, Domain>,
    pub(crate) entries: Slab<Entry>,
    /// Addresses that may be the router's own or a broadcast address, by domain: all that are, perhaps some that were.
    own: HashSet<(TableId, IpAddr), FixedState>,
}

impl Rib {
    /// Notes that a prefix has a candidate of kind `local` or `broadcast`.
    pub(crate) fn note_own(&mut self, domain: TableId, dst: &IpNet) {
        if dst.prefix_len() == dst.max_prefix_len() {
            self.own.insert((domain, dst.addr()));
        }
    }

    /// Whether an address may be the router's own or a broadcast address; the candidates of its prefix say for certain.
    pub(crate) fn may_be_own(&self, domain: TableId, addr: &IpAddr) -> bool {
        self.own.contains(&(domain, *addr))
    }

    /// The entry of a prefix.
    pub(crate) fn find(&self, table: TableId, dst: &IpNet) -> Option<EntryId> {
        self.domains.get(&domain_of(table))?.routes.get(dst).copied()
    }

    /// As [`Rib::find`] before a change of the prefix: what the change will need of the FIB comes from memory meanwhile.
    pub(crate) fn find_to_change(&self, memory: &FibMemory, table: TableId, dst: &IpNet) -> Option<EntryId> {
        let domain = self.domains.get(&domain_of(table))?;
        domain.fib.expect(memory, dst);
        domain.routes.get(dst).copied()
    }

    /// The entry of a prefix, made if need be. None only without the domain.
    pub(crate) fn find_or_make(&mut self, table: TableId, dst: IpNet) -> Option<EntryId> {
        let domain = domain_of(table);
        let entries = &mut self.entries;
        let id = *self.domains.get_mut(&domain)?.routes.get_or_insert_with(dst, || {
            entries.insert(Entry {
                dst,
                domain,
                candidates: Candidates::None,
                chain: NONE,
                place: 0,
                fib: NONE,
                dirty: false,
            })
        });
        Some(id)
    }

    /// Removes an entry.
    pub(crate) fn forget(&mut self, id: EntryId) {
        if let Some(e) = self.entries.remove(id)
            && let Some(d) = self.domains.get_mut(&e.domain)
        {
            d.routes.remove(&e.dst);
            if e.dst.prefix_len() == e.dst.max_prefix_len() {
                self.own.remove(&(e.domain, e.dst.addr()));
            }
        }
    }

    /// The entries that contain `net`, longest first.
    pub(crate) fn covers(&self, domain: TableId, net: &IpNet) -> Vec<(u8, EntryId)> {
        let mut out = Vec::new();
        if let Some(d) = self.domains.get(&domain) {
            d.routes.for_each_cover(net, |len, id| out.push((len, *id)));
        }
        out.reverse();
        out
    }

    /// The longest installed prefix that properly contains `net`, as the FIB needs it when `net` goes.
    pub(crate) fn installed_cover(&self, domain: TableId, net: &IpNet) -> Option<(u8, ObjectId)> {
        // The longest first: entries are not in the cache.
        let mut covers: ArrayVec<(u8, EntryId), 129> = ArrayVec::new();
        self.domains.get(&domain)?.routes.for_each_cover(net, |len, id| _ = covers.try_push((len, *id)));
        let mut covers = covers.into_iter().rev().filter(|(len, _)| *len < net.prefix_len());
        covers.find_map(|(len, id)| Some((len, self.entries.get(id)?.installed()?)))
    }
}
