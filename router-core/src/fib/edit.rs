//! Making and changing nodes: the writer's half of [`super::node`].

use super::arena::{FibFull, FibMemory, LINE_WORDS, Lines};
use super::node::{
    BEFORE, DENSE, HEAD, INDEX, LEAF, SKIP, SLOTS, SMALL, VALUES, entry_of, half, is_link, otherwise, part_of, place,
    skipped, value,
};
use super::record::NO_RECORD;
use super::runs::Runs;
use super::sync::Ordering::{Relaxed, Release};
use super::sync::PUBLISH;

/// The entries of all slots of a node.
pub(super) type Slots = [u32; 256];

/// Links from which on a node becomes dense, and down to which it stays so.
const DENSE_FROM: usize = 65;
const DENSE_TO: usize = 48;
/// Words of a dense node.
const DENSE_WORDS: usize = 128;

/// In the last word of a bitmap: the node has entries of 32 bits.
const HAS_WIDE: u64 = 1 << 31;
/// Above the lowest byte of the last word of a bitmap: the record's number.
const RECORD_SHIFT: u32 = 8;

/// The most bytes that a node can skip.
pub(super) const MAX_SKIP: usize = 7;

/// What stands before a node that skips bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The bytes, from the highest on, and their number in the lowest.
    pub(super) skipped: u64,
    /// The entry of all other addresses: an answer.
    pub(super) otherwise: u32,
}

impl Header {
    /// None without bytes to skip.
    pub(super) fn of(bytes: &[u8], otherwise: u32) -> Option<Self> {
        let n = bytes.len().min(MAX_SKIP);
        let skipped = bytes.iter().take(n).enumerate().fold(n as u64, |k, (i, b)| k | u64::from(*b) << (56 - 8 * i));
        (n > 0).then_some(Header { skipped, otherwise })
    }

    /// The bytes, and how many of them there are.
    pub(super) fn bytes(&self) -> ([u8; 8], usize) {
        (self.skipped.to_be_bytes(), (self.skipped & 7) as usize)
    }
}

/// Whether an entry does not fit into a value.
fn is_wide(entry: u32) -> bool {
    is_link(entry) || entry & !LEAF >= SMALL
}

/// How the content of a node is laid out.
#[derive(Clone, Copy)]
struct Layout {
    link: u32,
    runs: usize,
    wide: usize,
}

impl Layout {
    fn node(&self) -> u32 {
        self.link & INDEX
    }

    fn before(&self) -> usize {
        if self.link & (SKIP | DENSE) != 0 { BEFORE } else { 0 }
    }

    fn lines(&self) -> usize {
        let words = match self.link & DENSE {
            0 => HEAD + self.runs.div_ceil(VALUES) + self.wide.div_ceil(2),
            _ => DENSE_WORDS,
        };
        (self.before() + words).div_ceil(LINE_WORDS)
    }

    /// The place of the first entry of 32 bits.
    fn first_wide(&self) -> u32 {
        2 * (HEAD + self.runs.div_ceil(VALUES)) as u32
    }
}

/// The bits of slots, without what else is in the words of a bitmap.
pub(super) type Bits = [u64; HEAD];

pub(super) fn bit_of(slot: usize) -> (usize, u64) {
    let part = part_of(slot as u32);
    (part as usize, 1 << (63 - (slot as u32 - SLOTS * part)))
}

/// The mask of the slots in a word of a bitmap.
pub(super) const fn slots_mask(part: usize) -> u64 {
    if part < 4 { !0 << 8 } else { !0 << 32 }
}

fn bits_of(slots: &Slots) -> Bits {
    let mut bits = [0; HEAD];
    for (part, word) in bits.iter_mut().enumerate() {
        let from = part * SLOTS as usize;
        let to = (from + SLOTS as usize).min(256);
        for slot in from.max(1)..to {
            *word |= u64::from(slots[slot] != slots[slot - 1]) << (63 - (slot - from));
        }
    }
    bits
}

pub(super) fn runs_of(bits: &Bits) -> usize {
    1 + bits.iter().map(|w| w.count_ones() as usize).sum::<usize>()
}

/// The first slot of each run.
pub(super) fn starts(bits: Bits) -> impl Iterator<Item = usize> {
    let others = bits.into_iter().enumerate().flat_map(|(part, mut word)| {
        std::iter::from_fn(move || {
            let i = word.leading_zeros() as usize;
            word &= !(1u64 << 63).checked_shr(i as u32).unwrap_or(0);
            (i < 64).then_some(part * SLOTS as usize + i)
        })
    });
    std::iter::once(0).chain(others)
}

impl Lines {
    fn store(&self, i: usize, word: u64) {
        self.word(i).store(word, Release);
    }

    /// Changes the value in a place: a single store.
    fn set_value(&self, place: usize, value: u32) {
        let (i, shift) = (place / VALUES, place * 16 % 64);
        let word = self.word(i).load(Relaxed);
        self.store(i, word & !(0xffff << shift) | u64::from(value) << shift);
    }

    /// Changes a 32-bit entry of a node: a single store.
    fn set_half(&self, node: u32, i: u32, entry: u32) {
        let (at, shift) = ((node + i / 2) as usize, i % 2 * 32);
        let word = self.word(at).load(Relaxed);
        self.word(at).store(word & !(0xffff_ffff << shift) | u64::from(entry) << shift, PUBLISH);
    }

    fn bits(&self, node: u32) -> Bits {
        std::array::from_fn(|part| self.word(node as usize + part).load(Relaxed) & slots_mask(part))
    }

    fn notes(&self, node: u32) -> u64 {
        self.word(node as usize + HEAD - 1).load(Relaxed)
    }

    fn layout(&self, link: u32) -> Layout {
        if link & DENSE != 0 {
            return Layout { link, runs: 0, wide: 0 };
        }
        let node = link & INDEX;
        let runs = runs_of(&self.bits(node));
        let wide = if self.notes(node) & HAS_WIDE == 0 {
            0
        } else {
            let first = (node as usize + HEAD) * VALUES;
            (first..first + runs).filter(|p| value(self.reader(), *p) >= SMALL).count()
        };
        Layout { link, runs, wide }
    }

    /// The entry in a slot of a node, whatever bytes it skips.
    pub(super) fn slot(&self, link: u32, slot: u8) -> u32 {
        let node = link & INDEX;
        if link & DENSE != 0 {
            return half(self.reader(), node, u32::from(slot));
        }
        entry_of(self.reader(), node, value(self.reader(), place(self.reader(), node, u32::from(slot))))
    }

    /// Gives the slots from `start` to before `end` another small answer by a single store, if they are a run of their own
    /// and stay one. That is what a replaced route comes to, most times.
    pub(super) fn set_run(&self, link: u32, start: usize, end: usize, answer: u32) -> bool {
        if link & DENSE != 0 {
            return false;
        }
        let (node, reader) = (link & INDEX, self.reader());
        let begins = |slot: usize| {
            let (part, bit) = bit_of(slot);
            self.word(node as usize + part).load(Relaxed) & bit != 0
        };
        if (start > 0 && !begins(start)) || (end < 256 && !begins(end)) {
            return false;
        }
        let at = place(reader, node, start as u32);
        if end - start > 1 && place(reader, node, end as u32 - 1) != at {
            return false;
        }
        let joins = (start > 0 && value(reader, at - 1) == answer) || (end < 256 && value(reader, at + 1) == answer);
        if joins || value(reader, at) >= SMALL {
            return false;
        }
        self.set_value(at, answer);
        true
    }

    /// What stands before a node that skips bytes.
    pub(super) fn header(&self, link: u32) -> Option<Header> {
        let node = link & INDEX;
        (link & SKIP != 0)
            .then(|| Header { skipped: skipped(self.reader(), node), otherwise: otherwise(self.reader(), node) })
    }

    /// The number of a node's record of prefixes.
    pub(super) fn record(&self, link: u32) -> u32 {
        let node = link & INDEX;
        match link & DENSE {
            0 => (self.notes(node) >> RECORD_SHIFT) as u32 & NO_RECORD,
            _ => (self.word((node as usize).wrapping_sub(1)).load(Relaxed) >> 32) as u32,
        }
    }

    /// The entries of all slots.
    pub(super) fn unpack(&self, link: u32) -> Slots {
        let node = link & INDEX;
        if link & DENSE != 0 {
            return std::array::from_fn(|slot| half(self.reader(), node, slot as u32));
        }
        let at =
            |run: usize| entry_of(self.reader(), node, value(self.reader(), (node as usize + HEAD) * VALUES + run));
        let mut slots = [at(0); 256];
        let (mut last, mut from) = (slots[0], 0);
        for (run, start) in starts(self.bits(node)).enumerate().skip(1) {
            slots[from..start].fill(last);
            (last, from) = (at(run), start);
        }
        slots[from..].fill(last);
        slots
    }

    /// Takes the runs of a node apart. False for a dense one, and for one with large answers.
    pub(super) fn load_runs(&self, link: u32, to: &mut Runs) -> bool {
        if link & DENSE != 0 {
            return false;
        }
        let node = link & INDEX;
        // Word by word to where they stay: wider copies of words just written stall.
        for (part, bits) in to.bits.iter_mut().enumerate() {
            *bits = self.word(node as usize + part).load(Relaxed) & slots_mask(part);
        }
        to.runs = runs_of(&to.bits);
        to.links = 0;
        let words = to.runs.div_ceil(VALUES);
        for (i, values) in to.values.as_chunks_mut::<VALUES>().0.iter_mut().take(words).enumerate() {
            let word = self.word(node as usize + HEAD + i).load(Relaxed);
            *values = [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16];
        }
        if self.notes(node) & HAS_WIDE != 0 {
            for v in &mut to.values[..to.runs] {
                if u32::from(*v) >= SMALL {
                    let entry = half(self.reader(), node, u32::from(*v) & (SMALL - 1));
                    if !is_link(entry) {
                        return false;
                    }
                    to.wide[to.links] = entry;
                    *v = SMALL as u16 | to.links as u16;
                    to.links += 1;
                }
            }
        }
        true
    }

    /// The answer of a node that gives the same small one to everything.
    pub(super) fn uniform(&self, link: u32) -> Option<u32> {
        let node = link & INDEX;
        if link & (SKIP | DENSE) != 0 || self.notes(node) & (HAS_WIDE | !0 << 32) != 0 {
            return None;
        }
        let uniform = self.bits(node) == Bits::default();
        uniform.then(|| value(self.reader(), (node as usize + HEAD) * VALUES))
    }

    /// Puts a node in the place of another one in slot `slot`.
    pub(super) fn relink(&self, link: u32, slot: u8, child: u32) {
        let node = link & INDEX;
        let at = match link & DENSE {
            0 => value(self.reader(), place(self.reader(), node, u32::from(slot))) & (SMALL - 1),
            _ => u32::from(slot),
        };
        self.set_half(node, at, child);
    }
}

impl FibMemory {
    /// Room for a node; gives its link.
    fn place_node(&mut self, header: Option<Header>, dense: bool, runs: usize, wide: usize) -> Result<Layout, FibFull> {
        let kind = if header.is_some() { SKIP } else { 0 } | if dense { DENSE } else { 0 };
        let mut layout = Layout { link: kind, runs, wide };
        layout.link |= self.take(layout.lines())? + layout.before() as u32;
        Ok(layout)
    }

    fn write_before(&self, layout: Layout, header: Option<Header>, record: u32) {
        if layout.before() > 0 {
            let node = layout.node() as usize;
            let (skipped, otherwise) = header.map_or((0, LEAF), |h| (h.skipped, h.otherwise));
            self.lines().store(node - BEFORE, skipped);
            self.lines().store(node - 1, u64::from(record) << 32 | u64::from(otherwise));
        }
    }

    fn write_head(&self, layout: Layout, bits: &Bits, record: u32) {
        let node = layout.node() as usize;
        let mut begun = 0u32;
        for (part, bits) in bits.iter().enumerate() {
            let mut word = bits | u64::from(begun as u8);
            if part == HEAD - 1 {
                word |= u64::from(record & NO_RECORD) << RECORD_SHIFT | if layout.wide > 0 { HAS_WIDE } else { 0 };
            }
            self.lines().word(node + part).store(word, Relaxed);
            begun += bits.count_ones();
        }
    }

    /// A new node. A *plain* one neither skips bytes nor is dense.
    pub(super) fn build(
        &mut self,
        header: Option<Header>,
        slots: &Slots,
        record: u32,
        plain: bool,
    ) -> Result<u32, FibFull> {
        self.pack(header, slots, record, if plain { usize::MAX } else { DENSE_FROM })
    }

    fn pack(&mut self, header: Option<Header>, slots: &Slots, record: u32, dense_from: usize) -> Result<u32, FibFull> {
        let bits = bits_of(slots);
        let wide = starts(bits).filter(|s| is_wide(slots[*s])).count();
        if wide >= dense_from {
            let layout = self.place_node(header, true, 0, 0)?;
            self.write_before(layout, header, record);
            for (i, pair) in slots.chunks_exact(2).enumerate() {
                self.lines().store(layout.node() as usize + i, u64::from(pair[0]) | u64::from(pair[1]) << 32);
            }
            return Ok(layout.link);
        }
        let layout = self.place_node(header, false, runs_of(&bits), wide)?;
        self.write_before(layout, header, record);
        self.write_head(layout, &bits, record);
        let (node, mut next_wide) = (layout.node(), layout.first_wide());
        let first = (node as usize + HEAD) * VALUES;
        for (run, start) in starts(bits).enumerate() {
            let entry = slots[start];
            if is_wide(entry) {
                self.lines().set_value(first + run, SMALL | next_wide);
                self.lines().set_half(node, next_wide, entry);
                next_wide += 1;
            } else {
                self.lines().set_value(first + run, entry & !LEAF);
            }
        }
        Ok(layout.link)
    }

    /// A new node of these runs.
    pub(super) fn build_runs(
        &mut self,
        header: Option<Header>,
        runs: &Runs,
        record: u32,
        plain: bool,
    ) -> Result<u32, FibFull> {
        self.pack_runs(header, runs, record, if plain { usize::MAX } else { DENSE_FROM })
    }

    fn pack_runs(
        &mut self,
        header: Option<Header>,
        runs: &Runs,
        record: u32,
        dense_from: usize,
    ) -> Result<u32, FibFull> {
        let wide = runs.wide_runs();
        if wide >= dense_from {
            return self.pack(header, &runs.slots(), record, dense_from);
        }
        let layout = self.place_node(header, false, runs.runs, wide)?;
        self.write_before(layout, header, record);
        self.write_head(layout, &runs.bits, record);
        let (node, mut next_wide) = (layout.node(), layout.first_wide());
        let at = node as usize + HEAD;
        for i in 0..runs.runs.div_ceil(VALUES) {
            self.lines().store(at + i, runs.word(i));
        }
        if wide > 0 {
            for (run, v) in runs.values[..runs.runs].iter().enumerate().filter(|(_, v)| u32::from(**v) >= SMALL) {
                self.lines().set_value(at * VALUES + run, SMALL | next_wide);
                self.lines().set_half(node, next_wide, runs.link(*v));
                next_wide += 1;
            }
        }
        Ok(layout.link)
    }

    /// As [`FibMemory::rewrite`], from runs.
    pub(super) fn rewrite_runs(
        &mut self,
        link: u32,
        header: Option<Header>,
        runs: &Runs,
        record: u32,
        plain: bool,
    ) -> Result<u32, FibFull> {
        if runs.runs <= 3 && self.records.is_empty(record) {
            let wide = runs.wide_runs();
            if runs.runs == 1 && wide == 0 {
                self.records.give(record);
                self.retire_node(link);
                return Ok(LEAF | u32::from(runs.values[0]));
            }
            if wide == 1
                && !plain
                && let Some(new) = self.fold(header, &runs.slots())?
            {
                self.records.give(record);
                self.retire_node(link);
                return Ok(new);
            }
        }
        if self.rewrite_runs_in_place(link, header, runs) {
            return Ok(link);
        }
        let new = self.pack_runs(header, runs, record, if plain { usize::MAX } else { DENSE_FROM })?;
        self.retire_node(link);
        Ok(new)
    }

    /// False when a copy is needed.
    fn rewrite_runs_in_place(&self, link: u32, header: Option<Header>, runs: &Runs) -> bool {
        let (lines, node) = (self.lines(), link & INDEX);
        if lines.bits(node) != runs.bits {
            return false;
        }
        let first = (node as usize + HEAD) * VALUES;
        let values = &runs.values[..runs.runs];
        let has_wide = lines.notes(node) & HAS_WIDE != 0;
        if has_wide || runs.links > 0 {
            let was_wide = |run: usize| value(lines.reader(), first + run) >= SMALL;
            if values.iter().enumerate().any(|(run, v)| (u32::from(*v) >= SMALL) != was_wide(run)) {
                return false;
            }
        }
        self.set_otherwise(link, header);
        if !has_wide {
            for i in 0..values.len().div_ceil(VALUES) {
                let (at, word) = (node as usize + HEAD + i, runs.word(i));
                if lines.word(at).load(Relaxed) != word {
                    lines.store(at, word);
                }
            }
            return true;
        }
        for (run, v) in values.iter().enumerate() {
            let old = value(lines.reader(), first + run);
            if old < SMALL {
                if old != u32::from(*v) {
                    lines.set_value(first + run, u32::from(*v));
                }
            } else if half(lines.reader(), node, old & (SMALL - 1)) != runs.link(*v) {
                lines.set_half(node, old & (SMALL - 1), runs.link(*v));
            }
        }
        true
    }

    fn set_otherwise(&self, link: u32, header: Option<Header>) {
        if let Some(h) = header.filter(|_| link & SKIP != 0) {
            let node = link & INDEX;
            if otherwise(self.lines().reader(), node) != h.otherwise {
                let at = (node as usize).wrapping_sub(1);
                let record = self.lines().word(at).load(Relaxed) >> 32;
                self.lines().store(at, record << 32 | u64::from(h.otherwise));
            }
        }
    }

    /// Gives a node these entries: in place if only values change, else in a copy, whose link the caller must publish. A
    /// node without prefixes becomes what all its slots hold; if only one of them leads further, the node there takes its
    /// place and skips its byte, unless this one must be plain.
    pub(super) fn rewrite(
        &mut self,
        link: u32,
        header: Option<Header>,
        slots: &Slots,
        record: u32,
        plain: bool,
    ) -> Result<u32, FibFull> {
        if self.records.is_empty(record) {
            if !is_link(slots[0]) && slots.iter().all(|s| *s == slots[0]) {
                self.records.give(record);
                self.retire_node(link);
                return Ok(slots[0]);
            }
            if !plain && let Some(new) = self.fold(header, slots)? {
                self.records.give(record);
                self.retire_node(link);
                return Ok(new);
            }
        }
        if self.rewrite_in_place(link, header, slots) {
            return Ok(link);
        }
        let dense_from = match (plain, link & DENSE != 0) {
            (true, _) => usize::MAX,
            (false, true) => DENSE_TO,
            (false, false) => DENSE_FROM,
        };
        let new = self.pack(header, slots, record, dense_from)?;
        self.retire_node(link);
        Ok(new)
    }

    /// False when a copy is needed.
    fn rewrite_in_place(&self, link: u32, header: Option<Header>, slots: &Slots) -> bool {
        let (lines, node) = (self.lines(), link & INDEX);
        if link & DENSE != 0 {
            let links = slots.iter().filter(|s| is_wide(**s)).count();
            if links < DENSE_TO {
                return false;
            }
            self.set_otherwise(link, header);
            for (i, slot) in (0u32..).zip(slots) {
                if half(lines.reader(), node, i) != *slot {
                    lines.set_half(node, i, *slot);
                }
            }
            return true;
        }
        let bits = bits_of(slots);
        let first = (node as usize + HEAD) * VALUES;
        let wide_as_before =
            |(run, start): (usize, usize)| is_wide(slots[start]) == (value(lines.reader(), first + run) >= SMALL);
        if lines.bits(node) != bits || !starts(bits).enumerate().all(wide_as_before) {
            return false;
        }
        self.set_otherwise(link, header);
        for (run, start) in starts(bits).enumerate() {
            let old = value(lines.reader(), first + run);
            if entry_of(lines.reader(), node, old) == slots[start] {
                continue;
            }
            match old < SMALL {
                true => lines.set_value(first + run, slots[start] & !LEAF),
                false => lines.set_half(node, old & (SMALL - 1), slots[start]),
            }
        }
        true
    }

    /// What replaces a node without prefixes: its only child, if the bytes that it will skip are not too many.
    fn fold(&mut self, header: Option<Header>, slots: &Slots) -> Result<Option<u32>, FibFull> {
        let mut links = slots.iter().enumerate().filter(|(_, s)| is_link(**s));
        let (Some((byte, child)), None) = (links.next(), links.next()) else { return Ok(None) };
        let rest = slots[usize::from(byte == 0)];
        if slots.iter().any(|s| s != child && *s != rest) || header.is_some_and(|h| h.otherwise != rest) {
            return Ok(None);
        }
        let mut bytes = [0; 3 * 8];
        let mut n = 0;
        let below = self.lines().header(*child);
        for part in [header.map(|h| h.bytes()), Some(([byte as u8; 8], 1)), below.map(|h| h.bytes())] {
            let (from, len) = part.unwrap_or_default();
            bytes[n..n + len].copy_from_slice(&from[..len]);
            n += len;
        }
        if n > MAX_SKIP || below.is_some_and(|h| h.otherwise != rest) {
            return Ok(None);
        }
        self.copy_with(*child, Header::of(&bytes[..n], rest)).map(Some)
    }

    /// A copy of a node with another header. The old one is retired.
    pub(super) fn copy_with(&mut self, link: u32, header: Option<Header>) -> Result<u32, FibFull> {
        let old = self.lines().layout(link);
        let record = self.lines().record(link);
        let new = self.place_node(header, link & DENSE != 0, old.runs, old.wide)?;
        self.write_before(new, header, record);
        let words = match link & DENSE {
            0 => HEAD + old.runs.div_ceil(VALUES) + old.wide.div_ceil(2),
            _ => DENSE_WORDS,
        };
        for i in 0..words {
            let word = self.lines().word(old.node() as usize + i).load(Relaxed);
            self.lines().store(new.node() as usize + i, word);
        }
        self.retire_node(link);
        Ok(new.link)
    }

    /// Retires a node that no entry leads to any more.
    pub(super) fn retire_node(&mut self, link: u32) {
        let layout = self.lines().layout(link);
        self.retire(layout.node() - layout.before() as u32, layout.lines());
    }
}
