//! The routing information base: every candidate route of every table, best first.
//!
//! Tables `local`, `main` and `default` share one prefix map and one compiled table (a *domain*): their candidates for
//! a prefix compete directly, `local` first and `default` last. Every other table is a domain of its own.

mod candidates;
mod net_map;
pub(crate) mod order;

pub(crate) use candidates::Candidates;
pub(crate) use net_map::{NetMap, host};

use crate::fib::Fib;
use crate::next_hop::{ChainId, PathId};
use crate::object::ObjectId;
use crate::port::TableId;
use crate::resolve::Tracker;
use crate::routing::slab::{Key, NONE, Slab};
use crate::spec::{Proto, proto};
use crate::tables::domain_of;
use ipnet::IpNet;
use std::collections::BTreeMap;
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

/// All candidates for one prefix of a domain.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dst: IpNet,
    pub(crate) domain: TableId,
    /// Best first.
    pub(crate) candidates: Candidates,
    /// Their paths in order, shared by all entries with the same.
    pub(crate) chain: ChainId,
    /// Neighbours in the list of the chain's entries.
    pub(crate) prev: EntryId,
    pub(crate) next: EntryId,
    /// What the FIB holds.
    pub(crate) installed: Option<ObjectId>,
    /// Already queued for the FIB.
    pub(crate) dirty: bool,
}

/// One compiled table and what it is compiled from.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) routes: NetMap<EntryId>,
    /// Addresses that something resolves through this domain.
    pub(crate) trackers: BTreeMap<IpAddr, Tracker>,
    pub(crate) fib: Arc<Fib>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    pub(crate) domains: BTreeMap<TableId, Domain>,
    pub(crate) entries: Slab<Entry>,
}

impl Rib {
    /// The entry of a prefix.
    pub(crate) fn find(&self, table: TableId, dst: &IpNet) -> Option<EntryId> {
        self.domains.get(&domain_of(table))?.routes.get(dst).copied()
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
                prev: NONE,
                next: NONE,
                installed: None,
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
        let mut best = None;
        self.domains.get(&domain)?.routes.for_each_cover(net, |len, id| {
            if len < net.prefix_len()
                && let Some(object) = self.entries.get(*id).and_then(|e| e.installed)
            {
                best = Some((len, object));
            }
        });
        best
    }
}
