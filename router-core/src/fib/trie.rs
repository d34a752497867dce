//! One family's trie: a root, then nodes, answers pushed down to where lookups end.
//!
//! Every slot holds the answer itself, so a lookup reads one path of links and one value: a change is seen whole or not
//! at all. A small table is a node like all others; one with many routes, or among the first, has a *direct root*
//! indexed by 16 bits. The zero-length prefix is kept beside: it would have to be pushed into every node.
//!
//! Who owns a slot is told by records of the prefixes that end in each node; what a deleted prefix had hidden comes from
//! the caller's own map.

use super::arena::{FibFull, FibMemory, Lines, Reader};
use super::change::{Change, Edit};
use super::edit::{Form, Header};
use super::lanes::{GROUP, Lanes, mask, object};
use super::node::{Address, INDEX, LEAF, MISS, SMALL, half, is_link, place, value, walk, walk_on};
use super::record::{NO_RECORD, has};
use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::{AtomicU32, AtomicU64, CONSTANT_NODES, DIRECT_FREE, DIRECT_FROM, PUBLISH, READ_AGAIN, ROOT_SLOTS};
use crate::object::ObjectId;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Lookups are repeated while the zero-length prefix changes under them; it never does so this often.
const ROUNDS: usize = 64;

/// Words for the prefixes of up to 16 bits.
const PRESENT_WORDS: usize = ROOT_SLOTS / 32;

/// From the number of a constant node to its answer.
const CONSTANT_SHIFT: u32 = 3;

/// In a slot that holds an answer: there are prefixes below it.
const HIDDEN: u32 = 1 << 30;

/// A root indexed by the first 16 bits, and the prefixes of up to 16 bits: bit `2^l + p`, only for the writer.
///
/// In IPv6 a slot holds an entry; the nodes are dense, so a batch can take this step and the next without a branch.
///
/// In IPv4 a slot that holds an answer is the number of the constant node for it, with [`LEAF`]: so a batch takes every slot for
/// a link, and one lookup alone may stop here. Large answers have a node made for them.
///
/// A slot is [`HIDDEN`] when the prefixes below it all give the same answer, as half of those in a real table do: readers
/// find that answer, and only the writer knows of a node.
#[derive(Debug)]
struct DirectRoot {
    /// Of the nodes that it leads to.
    form: Form,
    slots: Box<[AtomicU32; ROOT_SLOTS]>,
    present: Box<[AtomicU64; PRESENT_WORDS]>,
}

/// A boxed array made in place, not on the stack.
fn boxed<T, const N: usize>(make: impl FnMut() -> T) -> Box<[T; N]> {
    let v: Box<[T]> = std::iter::repeat_with(make).take(N).collect();
    v.try_into().unwrap_or_else(|_| unreachable!("N elements were collected"))
}

impl DirectRoot {
    const BYTES: usize = (4 << 16) + (8 << 11);

    fn new(form: Form) -> Self {
        DirectRoot { form, slots: boxed(|| AtomicU32::new(LEAF)), present: boxed(|| AtomicU64::new(0)) }
    }

    /// What a reader finds for an address.
    #[inline(always)]
    fn slot<A: Address>(&self, dst: A) -> u32 {
        self.slots[dst.top16() & (ROOT_SLOTS - 1)].load(Acquire)
    }

    fn has(&self, i: usize) -> bool {
        self.present.get(i >> 6 & (PRESENT_WORDS - 1)).is_some_and(|w| w.load(Relaxed) >> (i & 63) & 1 != 0)
    }

    fn mark(&self, i: usize, on: bool) {
        if let Some(w) = self.present.get(i >> 6 & (PRESENT_WORDS - 1)) {
            let bit = 1 << (i & 63);
            let old = w.load(Relaxed);
            w.store(if on { old | bit } else { old & !bit }, Relaxed);
        }
    }

    /// Answer of a slot that is no link, in IPv4.
    #[inline(always)]
    fn answer(slot: u32) -> u32 {
        (slot & INDEX) >> CONSTANT_SHIFT
    }

    /// The entry in a slot; for the writer, who must [`DirectRoot::set`] what comes of it.
    fn entry(&self, memory: &mut FibMemory, id: u32, slot: usize) -> Result<u32, FibFull> {
        let there = self.slots[slot & (ROOT_SLOTS - 1)].load(Relaxed);
        if self.form == Form::Dense {
            return Ok(there);
        }
        if is_link(there) {
            let large = memory.lines().record(there) == NO_RECORD;
            return Ok(if large { memory.lines().slot(there, 0) } else { there });
        }
        if there & HIDDEN != 0
            && let Some(record) = memory.hidden.remove(&key(id, slot))
        {
            let mut runs = memory.borrow_runs();
            runs.reset(Self::answer(there) as u16);
            let node = memory.build_runs(None, &runs, record, self.form);
            memory.return_runs(runs);
            return node;
        }
        Ok(LEAF | Self::answer(there))
    }

    /// Changes a slot: a single store.
    fn set(&self, memory: &mut FibMemory, id: u32, slot: usize, entry: u32) -> Result<(), FibFull> {
        let old = self.slots[slot & (ROOT_SLOTS - 1)].load(Relaxed);
        if self.form == Form::Dense {
            if entry != old {
                self.slots[slot & (ROOT_SLOTS - 1)].store(entry, PUBLISH);
            }
            return Ok(());
        }
        let large = is_link(old) && memory.lines().record(old) == NO_RECORD;
        if large && memory.lines().slot(old, 0) == entry {
            return Ok(());
        }
        let new = if is_link(entry) {
            match memory.lines().uniform(entry) {
                Some(answer) => {
                    memory.hidden.insert(key(id, slot), memory.lines().record(entry));
                    memory.retire_node(entry);
                    LEAF | HIDDEN | memory.constant(answer)
                }
                None => entry,
            }
        } else if entry & !LEAF < CONSTANT_NODES {
            LEAF | memory.constant(entry & !LEAF)
        } else {
            memory.build(None, &[entry; 256], NO_RECORD, self.form)?
        };
        if new != old {
            self.slots[slot & (ROOT_SLOTS - 1)].store(new, PUBLISH);
            if large {
                memory.retire_node(old);
            }
        }
        Ok(())
    }

    /// Calls `f` for the slots that prefix `i` owns: those that no longer prefix covers.
    fn owned(&self, i: usize, f: &mut impl FnMut(usize) -> Result<(), FibFull>) -> Result<(), FibFull> {
        if i >= 1 << 16 {
            return f(i - (1 << 16));
        }
        for child in [2 * i, 2 * i + 1] {
            if !self.has(child) {
                self.owned(child, f)?;
            }
        }
        Ok(())
    }
}

/// The key of a slot among those hidden.
fn key(id: u32, slot: usize) -> u64 {
    u64::from(id) << 16 | slot as u64
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trie<A> {
    /// Tells its slots from those of others.
    id: u32,
    /// The zero-length prefix's answer; the upper half counts its changes.
    default: AtomicU64,
    /// The entry of the whole address space, until there is a direct root.
    top: AtomicU32,
    direct: OnceLock<DirectRoot>,
    /// Prefixes, the zero-length one not counted. Only for the writer.
    routes: AtomicU32,
    addresses: PhantomData<A>,
}

impl<A> Trie<A> {
    /// An empty one. `id` must be its own in its memory.
    pub(super) fn new(id: u32) -> Self {
        Trie {
            id,
            default: AtomicU64::new(0),
            top: AtomicU32::new(MISS),
            direct: OnceLock::new(),
            routes: AtomicU32::new(0),
            addresses: PhantomData,
        }
    }
}

impl<A: Address> Trie<A> {
    #[inline]
    pub(super) fn lookup(&self, lines: &Lines, dst: A) -> ObjectId {
        let lines = lines.reader();
        let mut default = self.default.load(Acquire);
        for _ in 0..ROUNDS {
            let answer = self.answer(lines, self.direct.get(), dst);
            if answer != 0 {
                return ObjectId(answer - 1);
            }
            let now = self.default.load(Acquire);
            if now == default || !READ_AGAIN {
                break;
            }
            default = now;
        }
        object(0, default)
    }

    /// See [`super::Fib::expect`].
    #[inline]
    pub(super) fn expect(&self, memory: &FibMemory, dst: A) {
        if let Some(root) = self.direct.get() {
            let slot = root.slots[dst.top16()].load(Relaxed);
            if is_link(slot) {
                std::hint::black_box(memory.records.is_empty(memory.lines().record(slot)));
            }
        }
        std::hint::black_box(self.lookup(memory.lines(), dst));
    }

    /// The object without the zero-length prefix.
    pub(super) fn lookup_specific(&self, lines: &Lines, dst: A) -> ObjectId {
        match self.answer(lines.reader(), self.direct.get(), dst) {
            0 => ObjectId::NO_ROUTE,
            answer => ObjectId(answer - 1),
        }
    }

    /// What an address leads to; 0 if nothing but the zero-length prefix.
    #[inline(always)]
    fn answer(&self, lines: Reader<'_>, root: Option<&DirectRoot>, dst: A) -> u32 {
        let Some(root) = root else {
            let top = self.top.load(Acquire);
            return if is_link(top) { walk(lines, top, dst, 0) } else { top & !LEAF };
        };
        let slot = root.slot(dst);
        if A::FULL {
            if !is_link(slot) {
                return slot & !LEAF;
            }
            // A dense node.
            match half(lines, slot & INDEX, dst.byte(2)) {
                link if is_link(link) => walk(lines, link, dst, 3),
                answer => answer & !LEAF,
            }
        } else if !is_link(slot) {
            DirectRoot::answer(slot)
        } else {
            // A plain one.
            match value(lines, place(lines, slot, dst.byte(2))) {
                value @ ..SMALL => value,
                value => walk_on(lines, slot, value, dst, 3),
            }
        }
    }

    /// Looks up `dst[i]` into `out[i]`, as far as both slices go.
    #[inline]
    pub(super) fn lookup_batch(&self, lines: &Lines, dst: &[A], out: &mut [ObjectId]) {
        let n = dst.len().min(out.len());
        let (dst, out) = (&dst[..n], &mut out[..n]);
        let lines = lines.reader();
        match self.direct.get() {
            Some(root) if A::BYTES == 4 => {
                let ((dst, last_dst), (out, last_out)) = (dst.as_chunks::<GROUP>(), out.as_chunks_mut::<GROUP>());
                for (dst, out) in dst.iter().zip(out) {
                    self.settled(|default| self.group_plain(lines, root, dst, out, default));
                }
                if !last_dst.is_empty() {
                    self.settled(|default| self.group_plain(lines, root, last_dst, last_out, default));
                }
            }
            root => {
                for (dst, out) in dst.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
                    // Without a root, one may have come before the zero-length prefix was read.
                    let root = || root.or_else(|| self.direct.get());
                    self.settled(|default| self.group(lines, root(), dst, out, default));
                }
            }
        }
    }

    /// Calls `look_up` with the answer of the zero-length prefix, again if that changed meanwhile and was needed.
    #[inline(always)]
    fn settled(&self, mut look_up: impl FnMut(u64) -> bool) {
        for _ in 0..ROUNDS {
            let before = self.default.load(Acquire);
            if !look_up(before) || !READ_AGAIN || before == self.default.load(Acquire) {
                break;
            }
        }
    }

    /// All roots, then all bitmaps, then all values, so that cache misses overlap; every root leads to a plain node. Says
    /// whether some needed the zero-length prefix.
    #[inline(always)]
    fn group_plain(&self, lines: Reader<'_>, root: &DirectRoot, dst: &[A], out: &mut [ObjectId], default: u64) -> bool {
        let mut at = [0u32; GROUP];
        for (a, at) in dst.iter().zip(&mut at) {
            *at = root.slot(*a) & INDEX;
        }
        let mut places = [0usize; GROUP];
        for ((a, at), place_of) in dst.iter().zip(&at).zip(&mut places) {
            *place_of = place(lines, *at, a.byte(2));
        }
        let mut all = 0;
        for (place, o) in places.iter().zip(out.iter_mut()) {
            // Zero and the places of entries come out as numbers that need another look.
            let object = value(lines, *place).wrapping_sub(1);
            all |= object;
            *o = ObjectId(object);
        }
        all >= SMALL - 1 && self.group_rest(lines, root, dst, out, default)
    }

    /// The lookups of a batch that did not end in the first node, or that need the zero-length prefix. Says whether there
    /// are some of these.
    #[inline(never)]
    fn group_rest(&self, lines: Reader<'_>, root: &DirectRoot, dst: &[A], out: &mut [ObjectId], default: u64) -> bool {
        let mut least = u32::MAX;
        for (a, o) in dst.iter().zip(out) {
            if o.0 >= SMALL - 1 {
                let answer = if o.0 == u32::MAX { 0 } else { self.answer(lines, Some(root), *a) };
                least = least.min(answer);
                *o = object(answer, default);
            }
        }
        least == 0
    }

    /// As [`Trie::group_plain`], with any root, and with paths of any length.
    #[inline(never)]
    fn group(
        &self,
        lines: Reader<'_>,
        root: Option<&DirectRoot>,
        dst: &[A],
        out: &mut [ObjectId],
        default: u64,
    ) -> bool {
        if !A::FULL {
            let mut least = u32::MAX;
            for (a, o) in dst.iter().zip(out) {
                let answer = self.answer(lines, root, *a);
                least = least.min(answer);
                *o = object(answer, default);
            }
            return least == 0;
        }
        let mut lanes = Lanes::new();
        match root {
            Some(root) => {
                for (a, i) in dst.iter().zip(0..GROUP) {
                    let slot = root.slot(*a);
                    // Its node is dense; without one, word 0 is loaded, which is near.
                    let link = mask(is_link(slot));
                    let there = half(lines, slot & INDEX & link, a.byte(2) & link);
                    lanes.begin(i, there & link | slot & !link, 3);
                }
            }
            None => {
                let top = self.top.load(Acquire);
                dst.iter().zip(0..GROUP).for_each(|(_, i)| lanes.begin(i, top, 0));
            }
        }
        lanes.run(lines, dst);
        lanes.finish(out, default)
    }

    pub(super) fn insert(&self, memory: &mut FibMemory, net: &[u8], len: u8, value: ObjectId) -> Result<(), FibFull> {
        let entry = value.0.checked_add(1).filter(|e| *e < LEAF).map(|e| e | LEAF).ok_or(FibFull)?;
        if len == 0 {
            self.set_default(entry);
            return Ok(());
        }
        if memory.nearly_full() {
            return Err(FibFull);
        }
        self.apply(memory, Change { net: bytes(net), len: usize::from(len), entry, stays: true })
    }

    pub(super) fn remove(&self, memory: &mut FibMemory, net: &[u8], len: u8, cover: Option<(u8, ObjectId)>) {
        if len == 0 {
            return self.set_default(MISS);
        }
        let entry = match cover {
            Some((l, v)) if l > 0 => v.0.saturating_add(1) | LEAF,
            _ => MISS,
        };
        // Cannot fail before twice the memory is used at which inserting is refused.
        _ = self.apply(memory, Change { net: bytes(net), len: usize::from(len), entry, stays: false });
    }

    fn set_default(&self, entry: u32) {
        let changes = (self.default.load(Relaxed) >> 32).wrapping_add(1);
        self.default.store(changes << 32 | u64::from(entry & !LEAF), Release);
    }

    // In the model a table gets its direct root at once or never.
    #[cfg_attr(test, allow(clippy::absurd_extreme_comparisons))]
    fn apply(&self, memory: &mut FibMemory, change: Change) -> Result<(), FibFull> {
        if self.direct.get().is_none()
            && change.stays
            && (self.routes.load(Relaxed) >= DIRECT_FROM
                || memory.lines().roots.load(Relaxed) < DIRECT_FREE * DirectRoot::BYTES)
        {
            self.grow(memory)?;
        }
        let slot = usize::from(u16::from_be_bytes([change.net[0], change.net[1]]));
        let direct = self.direct.get();
        let rooted = direct.map(|root| (2, root.form));
        let form = if A::FULL { Form::Full } else { Form::Any };
        let mut edit = Edit { memory, change, rooted, form, added: 0 };
        match direct {
            None => {
                let old = self.top.load(Relaxed);
                let new = edit.entry(old, 0)?;
                if new != old {
                    self.top.store(new, PUBLISH);
                }
            }
            Some(root) if change.len > 16 => {
                let old = root.entry(edit.memory, self.id, slot)?;
                let new = edit.entry(old, 2)?;
                root.set(edit.memory, self.id, slot, new)?;
            }
            Some(root) => {
                let i = (1 << 16 | slot) >> (16 - change.len);
                if root.has(i) || change.stays {
                    root.owned(i, &mut |slot| {
                        let old = root.entry(edit.memory, self.id, slot)?;
                        let new = edit.hand_down(old, 2)?;
                        root.set(edit.memory, self.id, slot, new)
                    })?;
                    edit.added = i32::from(change.stays) - i32::from(root.has(i));
                    root.mark(i, change.stays);
                }
            }
        }
        let routes = self.routes.load(Relaxed).wrapping_add_signed(edit.added);
        self.routes.store(routes, Relaxed);
        Ok(())
    }

    /// Replaces the uppermost levels by a direct root with the same answers. Readers on the way through the old ones end
    /// in the same nodes below, or in copies of them that stay for a while.
    fn grow(&self, memory: &mut FibMemory) -> Result<(), FibFull> {
        let root = DirectRoot::new(if A::BYTES == 4 { Form::Plain } else { Form::Dense });
        let top = self.top.load(Relaxed);
        // The root's slots know no route to begin with.
        if top != MISS {
            self.spread(memory, &root, top, 0, 0)?;
        }
        if self.direct.set(root).is_ok() {
            memory.lines().roots.fetch_add(DirectRoot::BYTES, Relaxed);
        }
        Ok(())
    }

    /// Puts what lies below an entry into a new root. The entry's slots begin at `base`.
    fn spread(
        &self,
        memory: &mut FibMemory,
        root: &DirectRoot,
        entry: u32,
        depth: usize,
        base: usize,
    ) -> Result<(), FibFull> {
        let width = 1 << (16 - 8 * depth.min(2));
        if !is_link(entry) {
            return (base..base + width).try_for_each(|slot| root.set(memory, self.id, slot, entry));
        }
        if let Some(header) = memory.lines().header(entry) {
            let (bytes, n) = header.bytes();
            if depth == 2 {
                let below = memory.behind(&bytes[1..n], entry, header.otherwise)?;
                let entry = memory.lone(None, header.otherwise, bytes[0], below, root.form)?;
                return root.set(memory, self.id, base, entry);
            }
            (base..base + width).try_for_each(|slot| root.set(memory, self.id, slot, header.otherwise))?;
            let below = memory.copy_with(entry, Header::of(&bytes[1..n], header.otherwise))?;
            return self.spread(memory, root, below, depth + 1, base | usize::from(bytes[0]) << (8 - 8 * depth));
        }
        if depth == 2 {
            let mut entry = entry;
            if root.form == Form::Dense {
                let (slots, record) = (memory.lines().unpack(entry), memory.lines().record(entry));
                memory.retire_node(entry);
                entry = memory.build(None, &slots, record, root.form)?;
            }
            return root.set(memory, self.id, base, entry);
        }
        let (slots, record) = (memory.lines().unpack(entry), memory.lines().record(entry));
        let present = memory.records.get(record);
        for i in (2usize..512).filter(|i| has(&present, *i)) {
            let l = i.ilog2();
            // The node's own number in the root's, then the bits within.
            let node = (1 << 16 | base) >> (16 - 8 * depth);
            root.mark(node << l | (i - (1 << l)), true);
        }
        memory.records.give(record);
        memory.retire_node(entry);
        for (byte, slot) in slots.into_iter().enumerate() {
            self.spread(memory, root, slot, depth + 1, base | byte << (8 - 8 * depth))?;
        }
        Ok(())
    }

    /// Bytes of the root.
    pub(super) fn root_bytes(&self) -> usize {
        self.direct.get().map_or(0, |_| DirectRoot::BYTES)
    }
}

fn bytes(net: &[u8]) -> [u8; 16] {
    let mut all = [0; 16];
    all.iter_mut().zip(net).for_each(|(to, from)| *to = *from);
    all
}
