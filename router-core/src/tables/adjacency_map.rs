//! Resolved neighbours by port and address, for destinations on a link ([`crate::object::Object::Glean`]).
//!
//! A persistent hash map in shards: copying is one reference count, a change copies one shard and the spine. Packets
//! choose what is in here, so the hash is seeded and the neighbour cache bounds the number of entries.

use crate::object::Forward;
use crate::port::PortId;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

const SHARDS: usize = 256;

type Shard = HashMap<(PortId, IpAddr), Arc<Forward>, FixedState>;

/// See the module.
#[derive(Clone, Debug)]
pub struct AdjacencyMap {
    hasher: FixedState,
    shards: Arc<[Arc<Shard>]>,
}

impl AdjacencyMap {
    /// An empty map; `seed` should differ from run to run.
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        let empty = Arc::new(Shard::with_hasher(FixedState::with_seed(!seed)));
        AdjacencyMap { hasher, shards: std::iter::repeat_n(empty, SHARDS).collect() }
    }

    fn shard(&self, port: PortId, addr: &IpAddr) -> usize {
        self.hasher.hash_one((port, addr)) as usize % SHARDS
    }

    /// The adjacency of a neighbour, if its link-layer address is known.
    #[inline]
    pub fn get(&self, port: PortId, addr: &IpAddr) -> Option<&Forward> {
        self.shards.get(self.shard(port, addr))?.get(&(port, *addr)).map(|f| &**f)
    }

    /// Sets or removes an adjacency.
    pub fn set(&mut self, port: PortId, addr: IpAddr, adjacency: Option<Forward>) {
        let index = self.shard(port, &addr);
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(index) else { return };
        match adjacency {
            Some(f) => _ = Arc::make_mut(shard).insert((port, addr), Arc::new(f)),
            None => _ = Arc::make_mut(shard).remove(&(port, addr)),
        }
    }

    /// Number of adjacencies.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Rewrite;

    #[test]
    fn old_copies_keep_what_they_had() {
        let mut map = AdjacencyMap::new(1);
        let forward =
            |mtu| Forward { port: PortId(1), mtu, mss: 0, gateway: None, rewrite: Rewrite::NONE, used: Arc::default() };
        let addr = |i: u32| IpAddr::from(i.to_be_bytes());
        for i in 0..1000 {
            map.set(PortId(1), addr(i), Some(forward(i)));
        }
        let old = map.clone();
        for i in 0..500 {
            map.set(PortId(1), addr(i), None);
        }
        assert_eq!((old.len(), map.len()), (1000, 500));
        assert_eq!(old.get(PortId(1), &addr(3)).map(|f| f.mtu), Some(3));
        assert!(map.get(PortId(1), &addr(3)).is_none());
        assert!(map.get(PortId(2), &addr(700)).is_none());
    }
}
