//! One family's trie: a root, then one node per address byte, values pushed down to where lookups end.
//!
//! Every slot holds the answer itself, so a lookup reads one path of links and one value: a change is seen whole or not
//! at all. A small table is a node like all others; one with many routes, or among the first, has a *direct root*
//! indexed by 16 bits. The zero-length prefix is kept beside: it would have to be pushed into every node.
//!
//! Who owns a slot is told by records of the prefixes that end in each node ([`Present`]); what a deleted prefix had
//! hidden comes from the caller's own map.

use super::arena::{FibFull, FibMemory, Lines, Present, Words, boxed};
use super::node::{MAX_LEAF, MISS, Slots, is_node, look_ahead, step, step_or_stay};
use crate::object::ObjectId;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Lookups of a batch that go through the stages together: enough to overlap all misses, few enough to stay in the
/// first-level cache.
const GROUP: usize = 32;

/// Lookups in a batch from which on it pays to find the chunks first.
const NEAR_FROM: usize = 16;

/// Routes from which on a table gets a direct root.
const DIRECT_FROM: u32 = 2048;
/// Direct roots that are given away to tables without asking for their size: the main one should have its own.
const DIRECT_FREE: usize = 4 * DirectRoot::BYTES;

/// A root indexed by the first 16 bits, and the prefixes of up to 16 bits: bit `2^l + p`, only for the writer.
#[derive(Debug)]
struct DirectRoot {
    slots: Box<[AtomicU32; 1 << 16]>,
    present: Box<[AtomicU64; 1 << 11]>,
}

impl DirectRoot {
    const BYTES: usize = (4 << 16) + (8 << 11);

    fn has(&self, i: usize) -> bool {
        self.present.get(i >> 6).is_some_and(|w| w.load(Relaxed) >> (i & 63) & 1 != 0)
    }

    fn mark(&self, i: usize, on: bool) {
        if let Some(w) = self.present.get(i >> 6) {
            let bit = 1 << (i & 63);
            let old = w.load(Relaxed);
            w.store(if on { old | bit } else { old & !bit }, Relaxed);
        }
    }
}

/// What happens to a prefix.
#[derive(Clone, Copy)]
struct Change<const N: usize> {
    net: [u8; N],
    len: usize,
    /// What the slots that it owns shall hold.
    entry: u32,
    /// Whether it is there afterwards.
    stays: bool,
}

/// See the module. `N` is the number of bytes of an address.
#[derive(Debug)]
pub(super) struct Trie<const N: usize> {
    /// The zero-length prefix's entry; the upper half counts its changes.
    default: AtomicU64,
    /// The entry of the whole address space, until there is a direct root.
    top: AtomicU32,
    direct: OnceLock<DirectRoot>,
    /// Prefixes, the zero-length one not counted. Only for the writer.
    routes: AtomicU32,
}

impl<const N: usize> Default for Trie<N> {
    fn default() -> Self {
        Trie {
            default: AtomicU64::new(0),
            top: AtomicU32::new(MISS),
            direct: OnceLock::new(),
            routes: AtomicU32::new(0),
        }
    }
}

/// What the word of the zero-length prefix answers.
#[inline(always)]
fn answer(entry: u32, default: u64) -> ObjectId {
    let entry = if entry == MISS { default as u32 } else { entry };
    ObjectId(entry.saturating_sub(1))
}

/// Byte `i` of an address that is in registers: the compiler would store it to index it.
#[inline(always)]
fn byte_of<const N: usize>(a: [u8; N], i: usize) -> u8 {
    match a.first_chunk::<16>() {
        Some(a) => (u128::from_be_bytes(*a) >> (120 - 8 * i)) as u8,
        None => a.first_chunk::<4>().map_or(0, |a| (u32::from_be_bytes(*a) >> (24 - 8 * i)) as u8),
    }
}

impl<const N: usize> Trie<N> {
    #[inline]
    pub(super) fn lookup(&self, lines: &Lines, dst: [u8; N]) -> ObjectId {
        let mut default = self.default.load(Acquire);
        for _ in 0..ROUNDS {
            let (mut entry, rest) = match self.direct.get() {
                Some(d) => (d.slots[usize::from(u16::from_be_bytes([dst[0], dst[1]]))].load(Acquire), &dst[2..]),
                None => (self.top.load(Acquire), &dst[..]),
            };
            for byte in rest {
                if !is_node(entry) {
                    break;
                }
                entry = step(lines, entry, *byte);
            }
            if entry != MISS {
                return ObjectId(entry - 1);
            }
            let before = std::mem::replace(&mut default, self.default.load(Acquire));
            if before == default {
                break;
            }
        }
        answer(MISS, default)
    }

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go.
    #[inline]
    pub(super) fn lookup_batch<A: Copy>(
        &self,
        lines: &Lines,
        dst: &[A],
        out: &mut [ObjectId],
        bytes: impl Fn(A) -> [u8; N] + Copy,
    ) {
        let near = if dst.len() >= NEAR_FROM { lines.near() } else { None };
        for (dst, out) in dst.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            if let Some(near) = &near {
                self.lookup_group(near, dst, out, bytes);
                if near.still_all() {
                    continue;
                }
            }
            self.lookup_group(lines, dst, out, bytes);
        }
    }

    /// All roots, then all nodes of one depth after the other, then the results: so cache misses overlap.
    #[inline]
    fn lookup_group<A: Copy>(&self, lines: &impl Words, dst: &[A], out: &mut [ObjectId], bytes: impl Fn(A) -> [u8; N]) {
        let n = dst.len().min(out.len()).min(GROUP);
        let (dst, out) = (&dst[..n], &mut out[..n]);
        let mut default = self.default.load(Acquire);
        for _ in 0..ROUNDS {
            let mut entries = [MISS; GROUP];
            let entries = &mut entries[..n];
            let mut heads = [0; GROUP];
            let mut nodes = 0;
            let first = match self.direct.get() {
                Some(d) => {
                    for (a, e) in dst.iter().zip(entries.iter_mut()) {
                        let a = bytes(*a);
                        *e = d.slots[usize::from(u16::from_be_bytes([a[0], a[1]]))].load(Acquire);
                        nodes += *e >> 31;
                    }
                    2
                }
                None => {
                    let top = self.top.load(Acquire);
                    entries.fill(top);
                    nodes = (top >> 31) * n as u32;
                    0
                }
            };
            for depth in first..N {
                if nodes == 0 {
                    break;
                }
                let dense = nodes as usize * 4 >= n;
                nodes = 0;
                let byte = |a: A| byte_of(bytes(a), depth);
                if dense {
                    for (h, e) in heads.iter_mut().zip(entries.iter()) {
                        *h = look_ahead(lines, *e);
                    }
                    for ((a, e), h) in dst.iter().zip(entries.iter_mut()).zip(&heads) {
                        *e = step_or_stay(lines, *e, byte(*a), *h);
                        nodes += *e >> 31;
                    }
                } else {
                    for (a, e) in dst.iter().zip(entries.iter_mut()) {
                        if is_node(*e) {
                            *e = step(lines, *e, byte(*a));
                            nodes += *e >> 31;
                        }
                    }
                }
            }
            let mut missed = false;
            for (e, o) in entries.iter().zip(out.iter_mut()) {
                missed |= *e == MISS;
                *o = answer(*e, default);
            }
            let before = std::mem::replace(&mut default, self.default.load(Acquire));
            if !missed || before == default {
                break;
            }
        }
    }

    pub(super) fn insert(&self, memory: &mut FibMemory, net: [u8; N], len: u8, value: ObjectId) -> Result<(), FibFull> {
        let entry = value.0.checked_add(1).filter(|e| *e <= MAX_LEAF).ok_or(FibFull)?;
        if len == 0 {
            self.set_default(entry);
            return Ok(());
        }
        if memory.nearly_full() {
            return Err(FibFull);
        }
        self.apply(memory, Change { net, len: usize::from(len), entry, stays: true })
    }

    pub(super) fn remove(&self, memory: &mut FibMemory, net: [u8; N], len: u8, cover: Option<(u8, ObjectId)>) {
        if len == 0 {
            return self.set_default(MISS);
        }
        let entry = match cover {
            Some((l, v)) if l > 0 => v.0.saturating_add(1).min(MAX_LEAF),
            _ => MISS,
        };
        // Cannot fail before twice the memory is used at which inserting is refused.
        _ = self.apply(memory, Change { net, len: usize::from(len), entry, stays: false });
    }

    fn set_default(&self, entry: u32) {
        let changes = (self.default.load(Relaxed) >> 32).wrapping_add(1);
        self.default.store(changes << 32 | u64::from(entry), Release);
    }

    fn apply(&self, memory: &mut FibMemory, change: Change<N>) -> Result<(), FibFull> {
        if self.direct.get().is_none()
            && change.stays
            && (self.routes.load(Relaxed) >= DIRECT_FROM || memory.lines().roots.load(Relaxed) < DIRECT_FREE)
        {
            self.grow(memory);
        }
        let mut edit = Edit { memory, added: 0, change };
        match self.direct.get() {
            None => {
                let old = self.top.load(Relaxed);
                let new = edit.entry(old, 0)?;
                if new != old {
                    self.top.store(new, Release);
                }
            }
            Some(d) if change.len > 16 => {
                let slot = &d.slots[usize::from(u16::from_be_bytes([change.net[0], change.net[1]]))];
                let old = slot.load(Relaxed);
                let new = edit.entry(old, 2)?;
                if new != old {
                    slot.store(new, Release);
                }
            }
            Some(d) => {
                let i =
                    (1 << 16 | usize::from(u16::from_be_bytes([change.net[0], change.net[1]]))) >> (16 - change.len);
                if d.has(i) || change.stays {
                    owned(i, 1 << 16, &|i| d.has(i), &mut |slot| {
                        let old = d.slots[slot].load(Relaxed);
                        let new = edit.hand_down(old)?;
                        if new != old {
                            d.slots[slot].store(new, Release);
                        }
                        Ok(())
                    })?;
                    edit.added = i32::from(change.stays) - i32::from(d.has(i));
                    d.mark(i, change.stays);
                }
            }
        }
        let routes = self.routes.load(Relaxed).wrapping_add_signed(edit.added);
        self.routes.store(routes, Relaxed);
        Ok(())
    }

    /// Replaces the two uppermost levels by a direct root with the same answers. Readers on the way through the old ones
    /// end in the same nodes below.
    fn grow(&self, memory: &mut FibMemory) {
        let root = DirectRoot { slots: boxed(|| AtomicU32::new(MISS)), present: boxed(|| AtomicU64::new(0)) };
        let top = self.top.load(Relaxed);
        let mut old = Vec::new();
        let (slots, record) = if is_node(top) { memory.unpack(top) } else { ([top; 256], 0) };
        if is_node(top) {
            let present = memory.present(record);
            (2..512).filter(|i| has(&present, *i)).for_each(|i| root.mark(i, true));
            old.push((top, record));
        }
        for (b, entry) in slots.into_iter().enumerate() {
            let below = if is_node(entry) {
                let (below, record) = memory.unpack(entry);
                let present = memory.present(record);
                for i in (2usize..512).filter(|i| has(&present, *i)) {
                    let l = i.ilog2();
                    root.mark((1 << 8 | b) << l | (i - (1 << l)), true);
                }
                old.push((entry, record));
                below
            } else {
                [entry; 256]
            };
            for (to, from) in root.slots[b << 8..].iter().zip(below) {
                to.store(from, Relaxed);
            }
        }
        if self.direct.set(root).is_ok() {
            memory.lines().roots.fetch_add(DirectRoot::BYTES, Relaxed);
            for (node, record) in old {
                memory.set_present(record, Present::default());
                memory.free_present(record);
                memory.retire_node(node);
            }
        }
    }

    /// Bytes of the root.
    pub(super) fn root_bytes(&self) -> usize {
        self.direct.get().map_or(0, |_| DirectRoot::BYTES)
    }
}

/// Lookups are repeated while the zero-length prefix changes under them; it never does so this often.
const ROUNDS: usize = 64;

fn has(present: &Present, i: usize) -> bool {
    present.get(i >> 6).is_some_and(|w| w >> (i & 63) & 1 != 0)
}

/// Calls `f` for each slot below `i` (of a tree whose slots are its lowest level, from `first` on) that no longer prefix
/// covers.
fn owned(
    i: usize,
    first: usize,
    has: &impl Fn(usize) -> bool,
    f: &mut impl FnMut(usize) -> Result<(), FibFull>,
) -> Result<(), FibFull> {
    if i >= first {
        return f(i - first);
    }
    for child in [2 * i, 2 * i + 1] {
        if !has(child) {
            owned(child, first, has, f)?;
        }
    }
    Ok(())
}

/// A change on its way through the nodes.
struct Edit<'a, const N: usize> {
    memory: &'a mut FibMemory,
    change: Change<N>,
    /// Prefixes that came (1) or went (-1).
    added: i32,
}

impl<const N: usize> Edit<'_, N> {
    /// The entry, which covers what the first `depth` bytes of the prefix cover, after the change.
    fn entry(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        let byte = self.change.net[depth];
        if self.change.len > 8 * depth + 8 {
            return self.below(entry, depth, byte);
        }
        let i = (1 << 8 | usize::from(byte)) >> (8 * depth + 8 - self.change.len);
        if !is_node(entry) {
            if !self.change.stays {
                return Ok(entry);
            }
            let mut slots = [entry; 256];
            owned(i, 256, &|_| false, &mut |slot| {
                slots[slot] = self.change.entry;
                Ok(())
            })?;
            let record = self.memory.take_present();
            let node = self.memory.build(&slots, record)?;
            self.mark(record, i);
            return Ok(node);
        }
        let (mut slots, record) = self.memory.unpack(entry);
        let present = self.memory.present(record);
        if !self.change.stays && !has(&present, i) {
            return Ok(entry);
        }
        self.own(i, &present, &mut slots)?;
        self.mark(record, i);
        self.memory.rewrite(entry, &slots, record)
    }

    /// As [`Edit::entry`] for a prefix that ends further down.
    fn below(&mut self, entry: u32, depth: usize, byte: u8) -> Result<u32, FibFull> {
        if !is_node(entry) {
            let child = self.entry(entry, depth + 1)?;
            if child == entry {
                return Ok(entry);
            }
            let mut slots = [entry; 256];
            slots[usize::from(byte)] = child;
            let record = self.memory.take_present();
            return self.memory.build(&slots, record);
        }
        let old = step(&**self.memory.lines(), entry, byte);
        let new = self.entry(old, depth + 1)?;
        if new == old {
            return Ok(entry);
        }
        if is_node(new) && is_node(old) {
            self.memory.relink(entry, byte, new);
            return Ok(entry);
        }
        let (mut slots, record) = self.memory.unpack(entry);
        slots[usize::from(byte)] = new;
        self.memory.rewrite(entry, &slots, record)
    }

    /// An entry that a shorter prefix covers, after the change of that one.
    fn hand_down(&mut self, entry: u32) -> Result<u32, FibFull> {
        if !is_node(entry) {
            return Ok(self.change.entry);
        }
        let (mut slots, record) = self.memory.unpack(entry);
        let before = slots;
        let present = self.memory.present(record);
        self.own(1, &present, &mut slots)?;
        if slots == before { Ok(entry) } else { self.memory.rewrite(entry, &slots, record) }
    }

    /// Gives the slots that belong to prefix `i` of a node their new entry.
    fn own(&mut self, i: usize, present: &Present, slots: &mut Slots) -> Result<(), FibFull> {
        owned(i, 256, &|i| has(present, i), &mut |slot| {
            slots[slot] = self.hand_down(slots[slot])?;
            Ok(())
        })
    }

    fn mark(&mut self, record: u32, i: usize) {
        let mut present = self.memory.present(record);
        self.added = i32::from(self.change.stays) - i32::from(has(&present, i));
        if let Some(w) = present.get_mut(i >> 6) {
            *w = *w & !(1 << (i & 63)) | u64::from(self.change.stays) << (i & 63);
        }
        self.memory.set_present(record, present);
    }
}
