//! The lookups of a batch on their way through nodes of any kind, each somewhere else, all one node further in each round.
//!
//! Neighbours in a batch have nothing in common, so whatever is a branch here is often mispredicted: whether a value is an
//! answer or leads on is none, nor whether a lookup is done.

use super::arena::Reader;
use super::node::{Address, DENSE, INDEX, LEAF, SKIP, SMALL, agrees, half, is_link, otherwise, place, skipped, value};
use crate::object::ObjectId;

/// Lookups of a batch that go through the stages together: enough to overlap all misses, few enough to stay in the
/// first-level cache.
pub(super) const GROUP: usize = 32;

/// See the module.
pub(super) struct Lanes {
    /// Where each lookup is.
    entry: [u32; GROUP],
    /// The eight bytes of its address that it is in.
    part: [u64; GROUP],
    /// Bytes of its address that led there.
    used: [u8; GROUP],
    /// How many are not at an answer yet.
    active: usize,
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
        Lanes { entry: [LEAF; GROUP], part: [0; GROUP], used: [0; GROUP], active: 0 }
    }

    /// Begins a lookup at an entry.
    #[inline(always)]
    pub(super) fn begin<A: Address>(&mut self, i: usize, address: A, entry: u32, used: u8) {
        self.part[i] = address.high();
        self.entry[i] = entry;
        self.used[i] = used;
        self.active += usize::from(is_link(entry));
    }

    /// One round after the other, until all are at an answer. Those that are done make a dry step in the node that knows no
    /// route: a list of the others would make each step wait for the one before, as its places depend on what was found.
    #[inline(always)]
    pub(super) fn run<A: Address>(&mut self, lines: Reader<'_>, dst: &[A]) {
        let n = dst.len().min(GROUP);
        let mut active = self.active;
        while active > 0 {
            active = 0;
            for (i, address) in dst[..n].iter().enumerate() {
                let (link, used) = (self.entry[i], self.used[i]);
                // Neither an answer nor a plain node.
                let entry = if link as i32 >= DENSE as i32 {
                    self.rare(lines, i, *address)
                } else {
                    // All ones for an answer.
                    let done = ((link as i32) >> 31) as u32;
                    let node = link & !done;
                    let byte = u32::from((self.part[i] >> ((!used << 3) & 63)) as u8);
                    let value = value(lines, place(lines, node, byte));
                    // All ones for the place of an entry; otherwise word 0 is loaded, which is near.
                    let wide = ((value << 16) as i32 >> 31) as u32;
                    let entry = half(lines, node, value & wide & (SMALL - 1));
                    self.used[i] = used.wrapping_add(1);
                    if A::BYTES > 8 && used == 7 {
                        self.part[i] = address.low();
                    }
                    let entry = entry & wide | (LEAF | value) & !wide;
                    entry & !done | link & done
                };
                self.entry[i] = entry;
                active += usize::from(is_link(entry));
            }
        }
    }

    /// The entry that a node leads to that skips bytes (then it is the node without them) or is dense.
    #[inline(never)]
    fn rare<A: Address>(&mut self, lines: Reader<'_>, i: usize, address: A) -> u32 {
        let (link, used) = (self.entry[i], self.used[i]);
        let node = link & INDEX;
        let (entry, used) = if link & SKIP != 0 {
            let skipped = skipped(lines, node);
            let same = agrees(address.window(u32::from(used)), skipped);
            let entry = if same { link & !SKIP } else { otherwise(lines, node) };
            (entry, used + (skipped as u8 & 7))
        } else {
            (half(lines, node, address.byte(u32::from(used))), used + 1)
        };
        self.used[i] = used;
        self.part[i] = if A::BYTES > 8 && used >= 8 { address.low() } else { address.high() };
        entry
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
