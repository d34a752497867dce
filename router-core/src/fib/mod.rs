//! The forwarding information base: the routes in use, compiled for lookup. Prefix to [`ObjectId`], both families.
//!
//! [`Lookup`] is all that the data plane knows; [`Fib`] is the engine behind it. One writer (the control plane, holding
//! the [`FibMemory`]) changes entries in place by atomic stores while any number of readers look up. For every single
//! change a reader gets the old answer or the new one, never a third:
//!
//! - inserting or replacing is one store per slot, and new nodes are filled before they are linked;
//! - deleting makes lookups fall back to a shorter prefix that the reader has already passed, so a reader could combine
//!   an old short prefix with a deleted long one. Deletes are therefore counted before and after; a lookup that overlaps
//!   one repeats its walk until it sees the same slots twice;
//! - a node leaves the trie empty and is reused only after every snapshot taken before is gone
//!   (see [`crate::routing`], quarantine), so nobody walks into a foreign subtree.

mod arena;
#[cfg(test)]
pub(crate) mod full_table_tests;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;
mod trie;

pub use arena::{FibFull, FibMemory};

use crate::object::ObjectId;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use trie::Trie;

/// Longest-prefix match. A table without a match answers [`ObjectId::NO_ROUTE`].
pub trait Lookup {
    /// The object for an IPv4 destination.
    fn lookup4(&self, dst: Ipv4Addr) -> ObjectId;

    /// The object for an IPv6 destination.
    fn lookup6(&self, dst: Ipv6Addr) -> ObjectId;

    /// The object for a destination of either family.
    #[inline]
    fn lookup(&self, dst: &IpAddr) -> ObjectId {
        match dst {
            IpAddr::V4(a) => self.lookup4(*a),
            IpAddr::V6(a) => self.lookup6(*a),
        }
    }

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go. An engine that can overlap lookups overrides this.
    fn lookup_batch(&self, dst: &[IpAddr], out: &mut [ObjectId]) {
        for (d, o) in dst.iter().zip(out) {
            *o = self.lookup(d);
        }
    }
}

/// One table's compiled routes: a multibit trie per family with strides 8, 8, 4, 4, ... An empty one takes some 100 bytes.
#[derive(Debug)]
pub struct Fib {
    v4: Trie<u32>,
    v6: Trie<u128>,
    /// Deletes begun and ended; equal at rest.
    started: AtomicU64,
    done: AtomicU64,
    arenas: Arc<arena::Arenas>,
}

impl Fib {
    /// An empty table in `memory`.
    pub fn new(memory: &FibMemory) -> Self {
        Fib {
            v4: Trie::default(),
            v6: Trie::default(),
            started: AtomicU64::new(0),
            done: AtomicU64::new(0),
            arenas: memory.arenas().clone(),
        }
    }

    /// Sets the value of a prefix, whether there or not. `memory` must be the one that the table was made in.
    pub fn insert(&self, memory: &mut FibMemory, net: &IpNet, value: ObjectId) -> Result<(), FibFull> {
        match net {
            IpNet::V4(n) => self.v4.insert(memory, n.network().into(), n.prefix_len(), value),
            IpNet::V6(n) => self.v6.insert(memory, n.network().into(), n.prefix_len(), value),
        }
    }

    /// Removes a prefix. `cover` is the longest remaining prefix (and value) that contains it, if any: the caller knows
    /// it from its own map, so that the trie need not store what is hidden.
    pub fn remove(&self, memory: &mut FibMemory, net: &IpNet, cover: Option<(u8, ObjectId)>) {
        let n = self.started.load(Acquire).wrapping_add(1);
        self.started.store(n, Release);
        match net {
            IpNet::V4(p) => self.v4.remove(memory, p.network().into(), p.prefix_len(), cover),
            IpNet::V6(p) => self.v6.remove(memory, p.network().into(), p.prefix_len(), cover),
        }
        self.done.store(n, Release);
    }

    /// A lookup that no delete overlapped, or one whose walk was the same twice in a row.
    #[inline]
    fn stable<A: trie::Bits>(&self, trie: &Trie<A>, dst: A) -> ObjectId {
        let before = self.done.load(Acquire);
        let found = trie.lookup(&self.arenas, dst);
        if self.started.load(Acquire) == before { found } else { trie.lookup_twice(&self.arenas, dst) }
    }
}

impl Lookup for Fib {
    #[inline]
    fn lookup4(&self, dst: Ipv4Addr) -> ObjectId {
        self.stable(&self.v4, u32::from(dst))
    }

    #[inline]
    fn lookup6(&self, dst: Ipv6Addr) -> ObjectId {
        self.stable(&self.v6, u128::from(dst))
    }
}
