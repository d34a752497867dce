//! Entries and nodes: how a slot's content is packed, read and rewritten.
//!
//! An *entry* is 32 bits: an object number plus one, 0 for "no route here", or (highest bit) a node. A *node* has 256
//! slots, one per value of the next address byte, and stores each run of equal slots once:
//!
//! ```text
//! word 0..4   bitmap: slot i begins a new run (slot 0 always does: its bit stays 0)
//! word 4      four bytes: runs begun before each word of the bitmap; upper half: the writer's record of prefixes
//! word 5..    the runs' entries, 16 bits each, or 32 when one of them does not fit ("wide", told by the link to it)
//! ```
//!
//! So twelve runs fit in one cache line, and a step is: two loads from the first line, a count of bits, one load.
//!
//! A published node's bitmap never changes. Its values may, one word at a time; everything else is done in a copy.

use super::arena::{Chunk, FibFull, FibMemory, Lines, Present, Words, first_word};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// "No route here": the zero-length prefix decides.
pub(super) const MISS: u32 = 0;
const NODE: u32 = 1 << 31;
const WIDE: u32 = 1 << 30;
const INDEX: u32 = WIDE - 1;
/// The largest entry that is not a node.
pub(super) const MAX_LEAF: u32 = NODE - 1;

const HEAD_WORDS: usize = 5;

/// All slots of a node.
pub(super) type Slots = [u32; 256];

#[inline(always)]
pub(super) fn is_node(entry: u32) -> bool {
    entry & NODE != 0
}

/// All ones for a node, else zero.
#[inline(always)]
fn node_mask(entry: u32) -> u32 {
    ((entry as i32) >> 31) as u32
}

/// Bits of a value, as a power of two: 4 or, in a wide node, 5.
#[inline(always)]
fn value_log2(node: u32) -> u32 {
    2 + (node >> 30)
}

/// The entry in slot `byte` of a node.
#[inline(always)]
pub(super) fn step(words: &impl Words, node: u32, byte: u8) -> u32 {
    words.chunk(node & INDEX).map_or(MISS, |chunk| step_with(chunk, node, byte, head(chunk, node)))
}

#[inline(always)]
fn head(chunk: Chunk, node: u32) -> u64 {
    chunk.word(first_word(node) + 4).load(Relaxed)
}

#[inline(always)]
fn step_with(chunk: Chunk, node: u32, byte: u8, head: u64) -> u32 {
    /// By the two kind bits; the first is for the empty node 0.
    const MASK: [u32; 4] = [0xffff, 0xffff, 0xffff, u32::MAX];
    let at = first_word(node);
    let part = usize::from(byte >> 6);
    let before = (head >> (8 * part)) as u8;
    let here = chunk.word(at + part).load(Relaxed) << (!byte & 63);
    let run = usize::from(before) + here.count_ones() as usize;
    let bit = HEAD_WORDS * 64 + (run << 2 << (node >> 30));
    let value = chunk.word(at + bit / 64).load(Acquire) >> (bit % 64);
    value as u32 & MASK[(node >> 30) as usize]
}

/// Loads the part of a node that [`step_or_stay`] needs first; of the empty node for an entry that is none.
#[inline(always)]
pub(super) fn look_ahead(words: &impl Words, entry: u32) -> u64 {
    let node = entry & node_mask(entry);
    words.chunk(node & INDEX).map_or(0, |chunk| head(chunk, node))
}

/// The entry in slot `byte` if `entry` is a node, else `entry` itself; without a branch. `head` is what
/// [`look_ahead`] gave.
#[inline(always)]
pub(super) fn step_or_stay(words: &impl Words, entry: u32, byte: u8, head: u64) -> u32 {
    let mask = node_mask(entry);
    let node = entry & mask;
    let below = words.chunk(node & INDEX).map_or(MISS, |chunk| step_with(chunk, node, byte, head));
    (below & mask) | (entry & !mask)
}

/// A node's words, for the writer.
struct View<'a> {
    words: Chunk<'a>,
    at: usize,
    log: u32,
}

impl<'a> View<'a> {
    fn of(lines: &'a Lines, node: u32) -> Option<Self> {
        Some(View { words: lines.chunk(node & INDEX)?, at: first_word(node), log: value_log2(node) })
    }

    fn word(&self, i: usize) -> &AtomicU64 {
        self.words.word(self.at + i)
    }

    fn bitmap(&self) -> [u64; 4] {
        std::array::from_fn(|i| self.word(i).load(Relaxed))
    }

    fn value(&self, run: usize) -> u32 {
        let bit = run << self.log;
        let value = self.word(HEAD_WORDS + bit / 64).load(Relaxed) >> (bit % 64);
        value as u32 & (u32::MAX >> (32 - (1u32 << self.log)))
    }

    /// Changes the value of one run: a single store.
    fn set_value(&self, run: usize, to: u32) {
        let bit = run << self.log;
        let word = self.word(HEAD_WORDS + bit / 64);
        let mask = u64::from(u32::MAX >> (32 - (1u32 << self.log))) << (bit % 64);
        word.store(word.load(Relaxed) & !mask | u64::from(to) << (bit % 64), Release);
    }

    fn record(&self) -> u32 {
        (self.word(4).load(Relaxed) >> 32) as u32
    }
}

/// Which slots begin a run.
fn bitmap_of(slots: &Slots) -> [u64; 4] {
    let mut bits = [0; 4];
    let mut last = slots[0];
    for (word, part) in bits.iter_mut().zip(slots.chunks_exact(64)) {
        for (i, slot) in part.iter().enumerate() {
            *word |= u64::from(*slot != last) << i;
            last = *slot;
        }
    }
    bits
}

/// The first slot of each run.
fn starts(bitmap: [u64; 4]) -> impl Iterator<Item = usize> {
    let others = bitmap.into_iter().enumerate().flat_map(|(w, mut bits)| {
        std::iter::from_fn(move || {
            let i = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            (i < 64).then_some(w * 64 + i)
        })
    });
    std::iter::once(0).chain(others)
}

fn runs_of(bitmap: [u64; 4]) -> usize {
    1 + bitmap.iter().map(|w| w.count_ones() as usize).sum::<usize>()
}

fn lines_for(runs: usize, log: u32) -> usize {
    (HEAD_WORDS * 64 + (runs << log)).div_ceil(512)
}

impl FibMemory {
    /// A node's slots and its record of prefixes.
    pub(super) fn unpack(&self, node: u32) -> (Slots, u32) {
        let Some(view) = View::of(self.lines(), node) else { return ([MISS; 256], 0) };
        let mut slots = [view.value(0); 256];
        let mut last: Option<(usize, usize)> = None;
        for (run, start) in starts(view.bitmap()).enumerate() {
            if let Some((run, from)) = last {
                slots[from..start].fill(view.value(run));
            }
            last = Some((run, start));
        }
        if let Some((run, from)) = last {
            slots[from..].fill(view.value(run));
        }
        (slots, view.record())
    }

    /// A new node.
    pub(super) fn build(&mut self, slots: &Slots, record: u32) -> Result<u32, FibFull> {
        self.pack(slots, bitmap_of(slots), record)
    }

    fn pack(&mut self, slots: &Slots, bitmap: [u64; 4], record: u32) -> Result<u32, FibFull> {
        let wide = slots.iter().fold(0, |a, b| a | b) > 0xffff;
        let kind = if wide { NODE | WIDE } else { NODE };
        let log = value_log2(kind);
        let node = kind | self.take(lines_for(runs_of(bitmap), log))?;
        let view = View::of(self.lines(), node).ok_or(FibFull)?;
        let (mut head, mut runs) = (u64::from(record) << 32, 0u64);
        for (i, word) in bitmap.into_iter().enumerate() {
            view.word(i).store(word, Relaxed);
            head |= runs << (8 * i);
            runs += u64::from(word.count_ones());
        }
        view.word(4).store(head, Relaxed);
        let (mut word, mut bit, mut at) = (0u64, 0, HEAD_WORDS);
        for start in starts(bitmap) {
            word |= u64::from(slots[start]) << bit;
            bit += 1 << log;
            if bit == 64 {
                view.word(at).store(word, Relaxed);
                (word, bit, at) = (0, 0, at + 1);
            }
        }
        if bit > 0 {
            view.word(at).store(word, Relaxed);
        }
        Ok(node)
    }

    /// Gives a node these slots: in place if only values change, else in a copy, whose number the caller must publish.
    /// A node without prefixes and children becomes what all its slots hold.
    pub(super) fn rewrite(&mut self, node: u32, slots: &Slots, record: u32) -> Result<u32, FibFull> {
        let bitmap = bitmap_of(slots);
        if bitmap == [0; 4] && !is_node(slots[0]) && self.present(record) == Present::default() {
            self.free_present(record);
            self.retire_node(node);
            return Ok(slots[0]);
        }
        if let Some(view) = View::of(self.lines(), node) {
            let wide = slots.iter().fold(0, |a, b| a | b) > 0xffff;
            if wide == (node & WIDE != 0) && bitmap == view.bitmap() {
                for (run, start) in starts(bitmap).enumerate() {
                    if view.value(run) != slots[start] {
                        view.set_value(run, slots[start]);
                    }
                }
                return Ok(node);
            }
        }
        let new = self.pack(slots, bitmap, record)?;
        self.retire_node(node);
        Ok(new)
    }

    /// Puts a node in the place of another one in slot `byte`: a run of one slot, in a wide node, before and after.
    pub(super) fn relink(&self, node: u32, byte: u8, child: u32) {
        if let Some(view) = View::of(self.lines(), node) {
            let run = starts(view.bitmap()).take_while(|s| *s <= usize::from(byte)).count() - 1;
            view.set_value(run, child);
        }
    }

    /// Retires a node that no entry leads to any more.
    pub(super) fn retire_node(&mut self, node: u32) {
        if let Some(view) = View::of(self.lines(), node) {
            let lines = lines_for(runs_of(view.bitmap()), view.log);
            self.retire(node & INDEX, lines);
        }
    }
}
