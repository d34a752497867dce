//! The forwarding information base: the routes in use, compiled for lookup. Prefix to [`ObjectId`], both families.
//!
//! [`Lookup`] is all that the data plane knows; [`Fib`] is the engine behind it. One writer (the control plane, holding
//! the [`FibMemory`]) changes entries by atomic stores while any number of readers look up. For every single change a
//! reader gets the old answer or the new one, never a third:
//!
//! - the answer is pushed down to the slot in which a lookup ends, so a change reaches each address by one store: of the
//!   value itself, or of the link to a new version of a node that was made aside;
//! - the zero-length prefix is kept apart. A lookup that needs it reads it before and after, with the number of its
//!   changes, and begins again when they differ;
//! - a replaced node is reused only after every snapshot taken before is gone (see [`crate::routing`], quarantine), so
//!   nobody walks into a foreign subtree.
//!
//! `docs/decisions/0005-fib-engine.md` has the measurements behind the layout.

mod arena;
mod change;
mod edit;
#[cfg(test)]
pub(crate) mod full_table_tests;
mod lanes;
#[cfg(test)]
mod model;
mod node;
#[cfg(test)]
pub(crate) mod oracle;
mod record;
mod runs;
mod sync;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
mod trie;

pub use arena::{FibFull, FibMemory};

use crate::object::ObjectId;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use sync::Ordering::Relaxed;
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

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go.
    fn lookup4_batch(&self, dst: &[Ipv4Addr], out: &mut [ObjectId]) {
        for (d, o) in dst.iter().zip(out) {
            *o = self.lookup4(*d);
        }
    }

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go.
    fn lookup6_batch(&self, dst: &[Ipv6Addr], out: &mut [ObjectId]) {
        for (d, o) in dst.iter().zip(out) {
            *o = self.lookup6(*d);
        }
    }

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go. An engine that can overlap lookups overrides this.
    fn lookup_batch(&self, dst: &[IpAddr], out: &mut [ObjectId]) {
        for (d, o) in dst.iter().zip(out) {
            *o = self.lookup(d);
        }
    }
}

/// One table's compiled routes. An empty one takes some 100 bytes.
#[derive(Debug)]
pub struct Fib {
    v4: Trie<Ipv4Addr>,
    v6: Trie<Ipv6Addr>,
    lines: Arc<arena::Lines>,
}

impl Fib {
    /// An empty table in `memory`.
    pub fn new(memory: &FibMemory) -> Self {
        let lines = memory.lines().clone();
        let id = lines.tries.fetch_add(2, Relaxed);
        Fib { v4: Trie::new(id), v6: Trie::new(id + 1), lines }
    }

    /// Sets the value of a prefix, whether there or not. `memory` must be the one that the table was made in.
    pub fn insert(&self, memory: &mut FibMemory, net: &IpNet, value: ObjectId) -> Result<(), FibFull> {
        match net {
            IpNet::V4(n) => self.v4.insert(memory, &n.network().octets(), n.prefix_len(), value),
            IpNet::V6(n) => self.v6.insert(memory, &n.network().octets(), n.prefix_len(), value),
        }
    }

    /// Reads what a change of this prefix will need, so that it comes from memory while the caller is still busy with maps of
    /// its own. Changes nothing.
    #[inline]
    pub fn expect(&self, memory: &FibMemory, net: &IpNet) {
        match net {
            IpNet::V4(n) => self.v4.expect(memory, n.network()),
            IpNet::V6(n) => self.v6.expect(memory, n.network()),
        }
    }

    /// Removes a prefix. `cover` is the longest remaining prefix (and value) that contains it, if any: the caller knows
    /// it from its own map, so that the trie need not store what is hidden.
    pub fn remove(&self, memory: &mut FibMemory, net: &IpNet, cover: Option<(u8, ObjectId)>) {
        match net {
            IpNet::V4(p) => self.v4.remove(memory, &p.network().octets(), p.prefix_len(), cover),
            IpNet::V6(p) => self.v6.remove(memory, &p.network().octets(), p.prefix_len(), cover),
        }
    }

    /// The object for a destination, leaving the zero-length prefix out of account; [`ObjectId::NO_ROUTE`] where only that
    /// fits.
    pub fn lookup_specific(&self, dst: &IpAddr) -> ObjectId {
        match dst {
            IpAddr::V4(a) => self.v4.lookup_specific(&self.lines, *a),
            IpAddr::V6(a) => self.v6.lookup_specific(&self.lines, *a),
        }
    }
}

impl Drop for Fib {
    fn drop(&mut self) {
        self.lines.roots.fetch_sub(self.v4.root_bytes() + self.v6.root_bytes(), Relaxed);
    }
}

impl Lookup for Fib {
    #[inline]
    fn lookup4(&self, dst: Ipv4Addr) -> ObjectId {
        self.v4.lookup(&self.lines, dst)
    }

    #[inline]
    fn lookup6(&self, dst: Ipv6Addr) -> ObjectId {
        self.v6.lookup(&self.lines, dst)
    }

    fn lookup4_batch(&self, dst: &[Ipv4Addr], out: &mut [ObjectId]) {
        self.v4.lookup_batch(&self.lines, dst, out);
    }

    fn lookup6_batch(&self, dst: &[Ipv6Addr], out: &mut [ObjectId]) {
        self.v6.lookup_batch(&self.lines, dst, out);
    }

    /// Runs of one family go through the batch of that family.
    fn lookup_batch(&self, dst: &[IpAddr], out: &mut [ObjectId]) {
        const GROUP: usize = 64;
        for (dst, out) in dst.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let mut rest = (dst, out);
            while let [first, ..] = rest.0 {
                let n = rest.0.iter().take_while(|d| d.is_ipv4() == first.is_ipv4()).count().min(rest.1.len());
                if n == 0 {
                    break;
                }
                let (dst, out) = (rest.0.split_at(n), rest.1.split_at_mut(n));
                match first {
                    IpAddr::V4(_) => {
                        let mut same = [Ipv4Addr::UNSPECIFIED; GROUP];
                        for (to, from) in same.iter_mut().zip(dst.0) {
                            if let IpAddr::V4(a) = from {
                                *to = *a;
                            }
                        }
                        self.lookup4_batch(&same[..n], out.0);
                    }
                    IpAddr::V6(_) => {
                        let mut same = [Ipv6Addr::UNSPECIFIED; GROUP];
                        for (to, from) in same.iter_mut().zip(dst.0) {
                            if let IpAddr::V6(a) = from {
                                *to = *a;
                            }
                        }
                        self.lookup6_batch(&same[..n], out.0);
                    }
                }
                rest = (dst.1, out.1);
            }
        }
    }
}
