//! The IPv6 lookups of a batch on their way through the nodes, each somewhere else, all one node further in each round.
//!
//! Neighbours in a batch have nothing in common, so whatever is a branch here is often mispredicted, and with it goes all
//! that the processor had begun beyond: whether an entry is an answer or leads on is no branch.

use super::arena::Reader;
use super::node::{Address, INDEX, LEAF, SKIP, agrees, full, full_place, is_link, otherwise_place, skipped};
use crate::object::ObjectId;

/// Lookups of a batch that go through the stages together: enough to overlap all misses, few enough to stay in the
/// first-level cache.
pub(super) const GROUP: usize = 32;

/// See the module.
pub(super) struct Lanes {
    /// Where each lookup is.
    entry: [u32; GROUP],
    /// Bytes of its address that led there.
    used: [u8; GROUP],
}

/// The object of an answer, where the zero-length prefix has the answer `default`.
#[inline(always)]
pub(super) fn object(answer: u32, default: u64) -> ObjectId {
    let answer = if answer == 0 { default as u32 } else { answer };
    ObjectId(answer.saturating_sub(1))
}

impl Lanes {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Lanes { entry: [LEAF; GROUP], used: [0; GROUP] }
    }

    /// Begins a lookup at an entry.
    #[inline(always)]
    pub(super) fn begin(&mut self, i: usize, entry: u32, used: u8) {
        self.entry[i] = entry;
        self.used[i] = used;
    }

    /// One round after the other over those that are not at an answer yet. First all bitmaps, then all entries, so that
    /// cache misses overlap.
    #[inline(always)]
    pub(super) fn run<A: Address>(&mut self, lines: Reader<'_>, dst: &[A]) {
        let dst = &dst[..dst.len().min(GROUP)];
        let mut list = [0u8; GROUP];
        let mut places = [0; GROUP];
        let mut n = 0;
        for (i, entry) in self.entry.iter().enumerate() {
            list[n % GROUP] = i as u8;
            n += usize::from(is_link(*entry));
        }
        while n > 0 {
            for (at, i) in places.iter_mut().zip(&list[..n.min(GROUP)]) {
                let i = usize::from(*i) % GROUP;
                let Some(address) = dst.get(i) else { break };
                let (link, used) = (self.entry[i], self.used[i]);
                if link & SKIP != 0 {
                    *at = self.skip(lines, i, address);
                    continue;
                }
                self.used[i] = used.wrapping_add(1);
                *at = full_place(lines, link & INDEX, address.nth(used));
            }
            let mut left = 0;
            for k in 0..n.min(GROUP) {
                let i = list[k];
                let entry = full(lines, places[k]);
                self.entry[usize::from(i) % GROUP] = entry;
                list[left % GROUP] = i;
                left += usize::from(is_link(entry));
            }
            n = left;
        }
    }

    /// The place of the entry that a lookup finds in a node that skips bytes. Few nodes do.
    #[inline(never)]
    fn skip<A: Address>(&mut self, lines: Reader<'_>, i: usize, address: &A) -> usize {
        let (node, used) = (self.entry[i] & INDEX, self.used[i]);
        let skipped = skipped(lines, node);
        if !agrees(address.window(u32::from(used)), skipped) {
            return otherwise_place(node);
        }
        let used = used + (skipped as u8 & 7);
        self.used[i] = used + 1;
        full_place(lines, node, address.nth(used))
    }

    /// The objects found. Says whether some needed the zero-length prefix, whose answer is `default`.
    #[inline(always)]
    pub(super) fn finish(&self, out: &mut [ObjectId], default: u64) -> bool {
        let mut least = u32::MAX;
        for (entry, o) in self.entry.iter().zip(out.iter_mut()) {
            let answer = entry & !LEAF;
            least = least.min(answer);
            *o = object(answer, default);
        }
        least == 0
    }
}

/// All ones if so.
#[inline(always)]
pub(super) fn mask(so: bool) -> u32 {
    u32::from(so).wrapping_neg()
}
