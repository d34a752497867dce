//! The lookups of a batch on their way through nodes of any kind, each somewhere else, all one node further in each round.
//!
//! Neighbours in a batch have nothing in common, so whatever is a branch here is one mispredicted. Each round sorts the
//! lookups by the kind of their next node, and each kind has a loop of its own.

use super::arena::Reader;
use super::node::{Address, DENSE, INDEX, LEAF, SMALL, agrees, half, is_link, otherwise, place, skipped, value};
use crate::object::ObjectId;

/// Lookups of a batch that go through the stages together: enough to overlap all misses, few enough to stay in the
/// first-level cache.
pub(super) const GROUP: usize = 32;

/// Kinds of nodes that have a list: plain, dense, skipping bytes.
const KINDS: usize = 3;

/// See the module.
pub(super) struct Lanes {
    /// Where each lookup is.
    entry: [u32; GROUP],
    /// The eight bytes of its address that it is in.
    part: [u64; GROUP],
    /// Bytes of its address that led there.
    used: [u8; GROUP],
    /// Lookups that are not at an answer yet, by kind.
    lists: [[u8; GROUP]; KINDS],
    active: [usize; KINDS],
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
        Lanes {
            entry: [LEAF; GROUP],
            part: [0; GROUP],
            used: [0; GROUP],
            lists: [[0; GROUP]; KINDS],
            active: [0; KINDS],
        }
    }

    /// Begins a lookup at an entry.
    #[inline(always)]
    pub(super) fn begin<A: Address>(&mut self, i: usize, address: A, entry: u32, used: u8) {
        self.part[i] = address.high();
        self.set(i, entry, used);
    }

    /// A lookup is at another entry.
    #[inline(always)]
    fn set(&mut self, i: usize, entry: u32, used: u8) {
        self.entry[i] = entry;
        self.used[i] = used;
        // LEAF, SKIP and DENSE are the highest bits.
        let kind = entry >> 29;
        for (k, is) in [kind == 0, kind == 1, kind >> 1 == 1].into_iter().enumerate() {
            let n = &mut self.active[k];
            self.lists[k][*n & (GROUP - 1)] = i as u8;
            *n += usize::from(is);
        }
    }

    /// One round after the other, until all are at an answer.
    #[inline(always)]
    pub(super) fn run<A: Address>(&mut self, lines: Reader<'_>, dst: &[A]) {
        loop {
            let (lists, [plain, dense, skip]) = (self.lists, std::mem::take(&mut self.active));
            if plain + dense + skip == 0 {
                return;
            }
            for i in list(&lists[0], plain) {
                let (node, used) = (self.entry[i] & INDEX, self.used[i]);
                let value = value(lines, place(lines, node, self.byte(i)));
                // All ones for the place of an entry; otherwise word 0 is loaded, which is near.
                let wide = ((value << 16) as i32 >> 31) as u32;
                let entry = half(lines, node, value & wide & (SMALL - 1));
                self.go_on(i, entry & wide | (LEAF | value) & !wide, used + 1, dst);
            }
            for i in list(&lists[1], dense) {
                let (node, used) = (self.entry[i] & INDEX, self.used[i]);
                let entry = half(lines, node, self.byte(i));
                self.go_on(i, entry, used + 1, dst);
            }
            for i in list(&lists[2], skip) {
                let (node, used) = (self.entry[i] & INDEX, self.used[i]);
                let kind = self.entry[i] & DENSE;
                let skipped = skipped(lines, node);
                let Some(address) = dst.get(i) else { return };
                // The same node without the bytes it skips, in the next round.
                let same = agrees(address.window(u32::from(used)), skipped);
                let entry = if same { node | kind } else { otherwise(lines, node) };
                self.go_on(i, entry, used + (skipped as u8 & 7), dst);
            }
        }
    }

    /// The byte of its address that a lookup is at.
    #[inline(always)]
    fn byte(&self, i: usize) -> u32 {
        u32::from((self.part[i] >> ((!self.used[i] << 3) & 63)) as u8)
    }

    #[inline(always)]
    fn go_on<A: Address>(&mut self, i: usize, entry: u32, used: u8, dst: &[A]) {
        if A::BYTES > 8 && used >= 8 && is_link(entry) {
            self.part[i] = dst.get(i).map_or(0, |a| a.low());
        }
        self.set(i, entry, used);
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

/// The first `n` of a list.
#[inline(always)]
fn list(list: &[u8; GROUP], n: usize) -> impl Iterator<Item = usize> {
    list.iter().take(n).map(|i| usize::from(*i) & (GROUP - 1))
}
