//! A multibit trie without push-down between levels.
//!
//! A slot packs `child node | value | length`: the value of the longest prefix that ends inside this node and covers the
//! slot, with its length counted from the node's first bit (0: none). Lookup walks down and remembers the last value; a
//! change touches the slots of one node only, and what a deleted prefix had hidden comes from the caller's own map.

use super::arena::{Arenas, FibFull, FibMemory};
use crate::object::ObjectId;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Release};

/// An address as bits.
pub(super) trait Bits: Copy {
    /// Number of bits.
    const WIDTH: u32;
    /// `bits` bits from bit `offset` on (0 is the most significant).
    fn stride(self, offset: u32, bits: u32) -> usize;
}

impl Bits for u32 {
    const WIDTH: u32 = 32;
    #[inline]
    fn stride(self, offset: u32, bits: u32) -> usize {
        ((self << offset) >> (32 - bits)) as usize
    }
}

impl Bits for u128 {
    const WIDTH: u32 = 128;
    #[inline]
    fn stride(self, offset: u32, bits: u32) -> usize {
        ((self << offset) >> (128 - bits)) as usize
    }
}

const LEN_BITS: u32 = 4;
const VALUE_BITS: u32 = 30;
const INDEX_MASK: u64 = (1 << VALUE_BITS) - 1;

#[inline]
fn child(slot: u64) -> u32 {
    (slot >> (LEN_BITS + VALUE_BITS)) as u32
}

#[inline]
fn len(slot: u64) -> u32 {
    (slot & ((1 << LEN_BITS) - 1)) as u32
}

#[inline]
fn value(slot: u64) -> ObjectId {
    ObjectId(((slot >> LEN_BITS) & INDEX_MASK) as u32)
}

/// The slot with another value and length; the child stays.
fn with_value(slot: u64, len: u32, value: ObjectId) -> u64 {
    (slot & !((1 << (LEN_BITS + VALUE_BITS)) - 1)) | ((u64::from(value.0) & INDEX_MASK) << LEN_BITS) | u64::from(len)
}

/// The slot with another child; the value stays.
fn with_child(slot: u64, child: u32) -> u64 {
    (slot & ((1 << (LEN_BITS + VALUE_BITS)) - 1)) | (u64::from(child) << (LEN_BITS + VALUE_BITS))
}

/// A node's place: how many bits precede it, how many it consumes.
#[derive(Clone, Copy)]
struct Level {
    offset: u32,
    bits: u32,
}

impl Level {
    const TOP: Level = Level { offset: 0, bits: 8 };

    fn next(self) -> Level {
        let offset = self.offset + self.bits;
        Level { offset, bits: if offset < 16 { 8 } else { 4 } }
    }

    fn is_page(self) -> bool {
        self.bits == 8
    }

    fn slots(self, arenas: &Arenas, node: u32) -> &[AtomicU64] {
        if self.is_page() { arenas.pages.node(node) } else { arenas.nodes.node(node) }
    }

    fn take(self, memory: &mut FibMemory) -> Result<u32, FibFull> {
        let arenas = memory.arenas().clone();
        if self.is_page() { memory.pages.take(&arenas.pages) } else { memory.nodes.take(&arenas.nodes) }
    }

    fn retire(self, memory: &mut FibMemory, node: u32) {
        if self.is_page() { memory.pages.retire(node) } else { memory.nodes.retire(node) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trie<A> {
    /// The value of the zero-length prefix, packed as a slot.
    default: AtomicU64,
    /// The first page; 0 while there is no longer prefix.
    top: AtomicU32,
    addr: PhantomData<A>,
}

impl<A> Default for Trie<A> {
    fn default() -> Self {
        Trie { default: AtomicU64::new(0), top: AtomicU32::new(0), addr: PhantomData }
    }
}

impl<A: Bits> Trie<A> {
    #[inline]
    pub(super) fn lookup(&self, arenas: &Arenas, dst: A) -> ObjectId {
        self.walk(arenas, dst, |_| {})
    }

    /// Walks until two walks in a row meet the same slots: then all of them held at one instant in between. A path is
    /// seldom changed twice within the time of a walk; the number of tries is bounded all the same.
    #[cold]
    pub(super) fn lookup_twice(&self, arenas: &Arenas, dst: A) -> ObjectId {
        const DEPTH: usize = 32;
        let mut last = [0u64; DEPTH];
        let mut found = ObjectId::NO_ROUTE;
        for round in 0..64 {
            let mut seen = [0u64; DEPTH];
            let mut n = 0;
            found = self.walk(arenas, dst, |slot| {
                if let Some(s) = seen.get_mut(n) {
                    *s = slot;
                }
                n += 1;
            });
            if round > 0 && seen == last {
                break;
            }
            last = seen;
        }
        found
    }

    #[inline(always)]
    fn walk(&self, arenas: &Arenas, dst: A, mut see: impl FnMut(u64)) -> ObjectId {
        let mut best = self.default.load(Acquire);
        see(best);
        let mut at = self.top.load(Acquire);
        let mut offset = 0;
        while at != 0 && offset < 16 {
            let slot = arenas.pages.load(at, dst.stride(offset, 8));
            see(slot);
            if len(slot) != 0 {
                best = slot;
            }
            at = child(slot);
            offset += 8;
        }
        while at != 0 && offset < A::WIDTH {
            let slot = arenas.nodes.load(at, dst.stride(offset, 4));
            see(slot);
            if len(slot) != 0 {
                best = slot;
            }
            at = child(slot);
            offset += 4;
        }
        value(best)
    }

    pub(super) fn insert(&self, memory: &mut FibMemory, net: A, plen: u8, value: ObjectId) -> Result<(), FibFull> {
        let plen = u32::from(plen).min(A::WIDTH);
        if plen == 0 {
            self.default.store(with_value(0, 1, value), Release);
            return Ok(());
        }
        let arenas = memory.arenas().clone();
        let mut level = Level::TOP;
        let mut node = self.top.load(Acquire);
        if node == 0 {
            node = level.take(memory)?;
            self.top.store(node, Release);
        }
        // An empty node answers as no node does, so linking on the way down is invisible.
        while plen > level.offset + level.bits {
            let Some(slot) = level.slots(&arenas, node).get(net.stride(level.offset, level.bits)) else {
                return Err(FibFull);
            };
            let word = slot.load(Acquire);
            let below = level.next();
            node = child(word);
            if node == 0 {
                node = below.take(memory)?;
                slot.store(with_child(word, node), Release);
            }
            level = below;
        }
        let own = plen - level.offset;
        for slot in Self::range(level, level.slots(&arenas, node), net, own) {
            let word = slot.load(Acquire);
            if len(word) <= own {
                slot.store(with_value(word, own, value), Release);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, memory: &mut FibMemory, net: A, plen: u8, cover: Option<(u8, ObjectId)>) {
        let plen = u32::from(plen).min(A::WIDTH);
        if plen == 0 {
            self.default.store(0, Release);
            return;
        }
        let arenas = memory.arenas().clone();
        let mut path = arrayvec::ArrayVec::<(Level, u32), 32>::new();
        let mut level = Level::TOP;
        let mut node = self.top.load(Acquire);
        loop {
            if node == 0 || path.try_push((level, node)).is_err() {
                return;
            }
            if plen <= level.offset + level.bits {
                break;
            }
            let slot = level.slots(&arenas, node).get(net.stride(level.offset, level.bits));
            node = slot.map_or(0, |s| child(s.load(Acquire)));
            level = level.next();
        }
        let own = plen - level.offset;
        // Only a cover that ends in the same node shows in its slots; a shorter one is met on the way down.
        let (len_below, value_below) = match cover {
            Some((l, v)) if u32::from(l) > level.offset => (u32::from(l) - level.offset, v),
            _ => (0, ObjectId::NO_ROUTE),
        };
        for slot in Self::range(level, level.slots(&arenas, node), net, own) {
            let word = slot.load(Acquire);
            if len(word) == own {
                slot.store(with_value(word, len_below, value_below), Release);
            }
        }
        while let Some((level, node)) = path.pop() {
            if level.slots(&arenas, node).iter().any(|s| s.load(Acquire) != 0) {
                break;
            }
            match path.last() {
                None => self.top.store(0, Release),
                Some((above, parent)) => {
                    if let Some(slot) = above.slots(&arenas, *parent).get(net.stride(above.offset, above.bits)) {
                        slot.store(with_child(slot.load(Acquire), 0), Release);
                    }
                }
            }
            level.retire(memory, node);
        }
    }

    /// The slots that a prefix of `own` bits within the node covers.
    fn range(level: Level, slots: &[AtomicU64], net: A, own: u32) -> &[AtomicU64] {
        let count = 1usize << (level.bits - own);
        let start = net.stride(level.offset, level.bits) & !(count - 1);
        slots.get(start..start + count).unwrap_or(&[])
    }
}
