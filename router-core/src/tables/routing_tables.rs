//! What the routing control plane publishes to the data plane.

use super::{AdjacencyMap, ObjectTable};
use crate::fib::{Fib, Lookup};
use crate::object::ObjectId;
use crate::port::TableId;
use std::net::IpAddr;
use std::sync::Arc;

/// The compiled tables by number. Tables `local` and `default` are compiled into `main`.
#[derive(Clone, Debug, Default)]
pub struct FibSet(Arc<[(TableId, Arc<Fib>)]>);

impl FibSet {
    /// The table with this number. A worker keeps the result for a batch.
    #[inline]
    pub fn get(&self, table: TableId) -> Option<&Arc<Fib>> {
        let table = domain_of(table);
        self.0.binary_search_by_key(&table, |(t, _)| *t).ok().and_then(|i| self.0.get(i)).map(|(_, f)| f)
    }

    /// All tables, by number.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, &Arc<Fib>)> {
        self.0.iter().map(|(t, f)| (*t, f))
    }
}

impl FromIterator<(TableId, Arc<Fib>)> for FibSet {
    fn from_iter<I: IntoIterator<Item = (TableId, Arc<Fib>)>>(iter: I) -> Self {
        let mut v: Vec<_> = iter.into_iter().collect();
        v.sort_by_key(|(t, _)| *t);
        FibSet(v.into())
    }
}

/// Compiled tables that hold only prefixes longer than a length, with the table and that length.
pub type ViewSet = Arc<[((TableId, u8), Arc<Fib>)]>;

/// The compiled table that a routing table is part of: `main` for `local`, `main` and `default`; all others alone.
pub fn domain_of(table: TableId) -> TableId {
    match table {
        TableId::LOCAL | TableId::DEFAULT => TableId::MAIN,
        other => other,
    }
}

/// A snapshot of the routing state. FIB entries inside are updated in place; objects and adjacencies change only with a
/// new snapshot.
///
/// **For workers:** look up an id, then [`ObjectTable::get`] it in the same snapshot. None means that the FIB is newer
/// than the snapshot: load the newest snapshot and look up *again* (the id is only good with the snapshot held while it
/// was looked up). Do not keep a snapshot while idle: memory of the tables is reused only when all older snapshots are
/// gone.
#[derive(Clone, Debug)]
pub struct RoutingTables {
    /// Compiled tables.
    pub fibs: FibSet,
    /// Compiled tables without their shorter prefixes ([`RoutingTables::lookup_longer`]), by table and length.
    pub views: ViewSet,
    /// What FIB entries point to.
    pub objects: ObjectTable,
    /// Resolved neighbours.
    pub adjacencies: AdjacencyMap,
    /// Counts the holders. The last field: it is dropped after all others, so a lone token means lone tables.
    pub(crate) token: Arc<()>,
}

impl RoutingTables {
    /// Longest-prefix match in a table; [`ObjectId::NO_ROUTE`] without a match or without such a table.
    #[inline]
    pub fn lookup(&self, table: TableId, dst: &IpAddr) -> ObjectId {
        self.fibs.get(table).map_or(ObjectId::NO_ROUTE, |f| f.lookup(dst))
    }

    /// As [`RoutingTables::lookup`], a match no longer than `suppress` counting as none. Only for what
    /// [`crate::routing::Routing::set_views`] was told.
    pub fn lookup_longer(&self, table: TableId, suppress: u8, dst: &IpAddr) -> ObjectId {
        let view = self.views.iter().find(|(key, _)| *key == (domain_of(table), suppress));
        view.map_or(ObjectId::NO_ROUTE, |(_, f)| f.lookup(dst))
    }
}
