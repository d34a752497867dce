//! Making and changing nodes: the writer's half of [`super::node`].

use super::arena::{FibFull, FibMemory, LINE_WORDS, Lines};
use super::node::{
    BEFORE, DENSE, FULL, HEAD, INDEX, LEAF, SKIP, SLOTS, SMALL, VALUES, entry_of, full, full_place, half, is_link,
    otherwise, part_of, place, skipped, value,
};
use super::record::NO_RECORD;
use super::runs::Runs;
use super::sync::Ordering::{Relaxed, Release};
use super::sync::PUBLISH;

/// The entries of all slots of a node.
pub(super) type Slots = [u32; 256];

/// What a node must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It may skip bytes.
    Any,
    /// It skips none.
    Plain,
    /// It may skip bytes, and has 32-bit entries.
    Full,
    /// It skips none, and is dense.
    Dense,
}

impl Form {
    /// Whether it may skip bytes.
    pub(super) fn skips(self) -> bool {
        matches!(self, Form::Any | Form::Full)
    }

    /// That of a node that need not be plain or dense, beside another such one.
    pub(super) fn beside(link: u32) -> Self {
        if link & FULL != 0 { Form::Full } else { Form::Any }
    }

    fn kind(self) -> u32 {
        match self {
            Form::Any | Form::Plain => 0,
            Form::Full => FULL,
            Form::Dense => DENSE,
        }
    }
}

/// Words of a dense node.
const DENSE_WORDS: usize = 128;

/// In the last word of a bitmap: the node has entries of 32 bits.
const HAS_WIDE: u64 = 1 << 31;
/// Above the lowest byte of the last word of a bitmap: the record's number.
const RECORD_SHIFT: u32 = 8;

/// The most bytes that a node can skip.
pub(super) const MAX_SKIP: usize = 7;
/// The least: for a single one, a node of its own is looked up as fast, and is no other kind of node.
pub(super) const MIN_SKIP: usize = 2;

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

/// The only link among slots that are otherwise the same: its byte, itself, and the others.
fn only_link(slots: &Slots) -> Option<(u8, u32, u32)> {
    let mut links = slots.iter().enumerate().filter(|(_, s)| is_link(**s));
    let (Some((byte, child)), None) = (links.next(), links.next()) else { return None };
    let rest = slots[usize::from(byte == 0)];
    slots.iter().all(|s| s == child || *s == rest).then_some((byte as u8, *child, rest))
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

    fn words(&self) -> usize {
        match self.link & (DENSE | FULL) {
            0 => HEAD + self.runs.div_ceil(VALUES) + self.wide.div_ceil(2),
            FULL => HEAD + self.runs.div_ceil(2),
            _ => DENSE_WORDS,
        }
    }

    fn lines(&self) -> usize {
        (self.before() + self.words()).div_ceil(LINE_WORDS)
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

/// How many of a word's values, of which `left` count, are places of entries.
fn wide_in(word: u64, left: usize) -> usize {
    const HIGH: u64 = 0x8000_8000_8000_8000;
    let counted = if left < VALUES { !(!0 << (16 * left)) } else { !0 };
    (word & counted & HIGH).count_ones() as usize
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
        let wide = if link & FULL != 0 || self.notes(node) & HAS_WIDE == 0 {
            0
        } else {
            let first = node as usize + HEAD;
            (0..runs.div_ceil(VALUES)).map(|i| wide_in(self.word(first + i).load(Relaxed), runs - i * VALUES)).sum()
        };
        Layout { link, runs, wide }
    }

    /// The entry in a slot of a node, whatever bytes it skips.
    pub(super) fn slot(&self, link: u32, slot: u8) -> u32 {
        let node = link & INDEX;
        if link & DENSE != 0 {
            return half(self.reader(), node, u32::from(slot));
        }
        if link & FULL != 0 {
            return full(self.reader(), full_place(self.reader(), node, u32::from(slot)));
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
        // Where the run's value is, how values read, and what the new one is: as answers, or as entries of 32 bits.
        let find = |slot: usize| match link & FULL {
            0 => place(reader, node, slot as u32),
            _ => full_place(reader, node, slot as u32),
        };
        let read = |at: usize| if link & FULL == 0 { value(reader, at) } else { full(reader, at) };
        let new = if link & FULL == 0 { answer } else { LEAF | answer };
        let at = find(start);
        if end - start > 1 && find(end - 1) != at {
            return false;
        }
        let joins = (start > 0 && read(at - 1) == new) || (end < 256 && read(at + 1) == new);
        let old = read(at);
        let leads_on = if link & FULL == 0 { old >= SMALL } else { is_link(old) };
        if joins || leads_on {
            return false;
        }
        match link & FULL {
            0 => self.set_value(at, answer),
            _ => self.set_half(node, at as u32 - 2 * node, new),
        }
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
        let at = |run: usize| match link & FULL {
            0 => entry_of(self.reader(), node, value(self.reader(), (node as usize + HEAD) * VALUES + run)),
            _ => full(self.reader(), (node as usize + HEAD) * 2 + run),
        };
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
        if link & FULL != 0 {
            for run in 0..to.runs {
                let entry = full(self.reader(), (node as usize + HEAD) * 2 + run);
                to.values[run] = if is_link(entry) {
                    to.add_link(entry)
                } else if entry & !LEAF < SMALL {
                    entry as u16
                } else {
                    return false;
                };
            }
            return true;
        }
        let (runs, has_wide) = (to.runs, self.notes(node) & HAS_WIDE != 0);
        for i in 0..runs.div_ceil(VALUES) {
            let word = self.word(node as usize + HEAD + i).load(Relaxed);
            let values = &mut to.values.as_chunks_mut::<VALUES>().0[i];
            *values = [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16];
            if !has_wide || wide_in(word, runs - i * VALUES) == 0 {
                continue;
            }
            for v in values.iter_mut().take(runs - i * VALUES).filter(|v| u32::from(**v) >= SMALL) {
                let entry = half(self.reader(), node, u32::from(*v) & (SMALL - 1));
                if !is_link(entry) {
                    return false;
                }
                to.wide[to.links] = entry;
                *v = SMALL as u16 | to.links as u16;
                to.links += 1;
            }
        }
        true
    }

    /// The answer of a node that gives the same small one to everything.
    pub(super) fn uniform(&self, link: u32) -> Option<u32> {
        let node = link & INDEX;
        if link & (SKIP | DENSE | FULL) != 0 || self.notes(node) & (HAS_WIDE | !0 << 32) != 0 {
            return None;
        }
        let uniform = self.bits(node) == Bits::default();
        uniform.then(|| value(self.reader(), (node as usize + HEAD) * VALUES))
    }

    /// Puts a node in the place of another one in slot `slot`.
    pub(super) fn relink(&self, link: u32, slot: u8, child: u32) {
        let node = link & INDEX;
        let at = match link & (DENSE | FULL) {
            0 => value(self.reader(), place(self.reader(), node, u32::from(slot))) & (SMALL - 1),
            FULL => full_place(self.reader(), node, u32::from(slot)) as u32 - 2 * node,
            _ => u32::from(slot),
        };
        self.set_half(node, at, child);
    }
}

impl FibMemory {
    /// Room for a node; gives its link.
    fn place_node(&mut self, header: Option<Header>, kind: u32, runs: usize, wide: usize) -> Result<Layout, FibFull> {
        let kind = if header.is_some() { SKIP } else { 0 } | kind;
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

    /// A new node. Only one of form [`Form::Any`] may have a header.
    pub(super) fn build(
        &mut self,
        header: Option<Header>,
        slots: &Slots,
        record: u32,
        form: Form,
    ) -> Result<u32, FibFull> {
        if form == Form::Dense {
            let layout = self.place_node(header, DENSE, 0, 0)?;
            self.write_before(layout, header, record);
            for (i, pair) in slots.chunks_exact(2).enumerate() {
                self.lines().store(layout.node() as usize + i, u64::from(pair[0]) | u64::from(pair[1]) << 32);
            }
            return Ok(layout.link);
        }
        let bits = bits_of(slots);
        let is_full = form == Form::Full;
        let wide = if is_full { 0 } else { starts(bits).filter(|s| is_wide(slots[*s])).count() };
        let layout = self.place_node(header, form.kind(), runs_of(&bits), wide)?;
        self.write_before(layout, header, record);
        self.write_head(layout, &bits, record);
        if is_full {
            for (run, start) in (0..).zip(starts(bits)) {
                self.lines().set_half(layout.node(), 2 * HEAD as u32 + run, slots[start]);
            }
            return Ok(layout.link);
        }
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
        form: Form,
    ) -> Result<u32, FibFull> {
        if form == Form::Dense {
            return self.build(header, &runs.slots(), record, form);
        }
        let is_full = form == Form::Full;
        let wide = if is_full { 0 } else { runs.wide_runs() };
        let layout = self.place_node(header, form.kind(), runs.runs, wide)?;
        self.write_before(layout, header, record);
        self.write_head(layout, &runs.bits, record);
        if is_full {
            for (i, two) in runs.values[..runs.runs].chunks(2).enumerate() {
                let word = two.iter().rev().fold(0, |w, v| w << 32 | u64::from(runs.entry(*v)));
                self.lines().store(layout.node() as usize + HEAD + i, word);
            }
            return Ok(layout.link);
        }
        let (node, mut next_wide) = (layout.node(), layout.first_wide());
        let at = node as usize + HEAD;
        for i in 0..runs.runs.div_ceil(VALUES) {
            let mut word = runs.word(i);
            if wide > 0 && wide_in(word, runs.runs - i * VALUES) > 0 {
                let values = &runs.values[i * VALUES..runs.runs.min((i + 1) * VALUES)];
                for (j, v) in values.iter().enumerate().filter(|(_, v)| u32::from(**v) >= SMALL) {
                    word = word & !(0xffff << (16 * j)) | u64::from(SMALL | next_wide) << (16 * j);
                    self.lines().set_half(node, next_wide, runs.link(*v));
                    next_wide += 1;
                }
            }
            self.lines().store(at + i, word);
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
        form: Form,
    ) -> Result<u32, FibFull> {
        if runs.runs <= 3 && self.records.is_empty(record) {
            let wide = runs.wide_runs();
            if runs.runs == 1 && wide == 0 {
                self.records.give(record);
                self.retire_node(link);
                return Ok(LEAF | u32::from(runs.values[0]));
            }
            if wide == 1
                && form.skips()
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
        let new = self.build_runs(header, runs, record, form)?;
        self.retire_node(link);
        Ok(new)
    }

    /// False when a copy is needed.
    fn rewrite_runs_in_place(&self, link: u32, header: Option<Header>, runs: &Runs) -> bool {
        let (lines, node) = (self.lines(), link & INDEX);
        // Word by word: a comparison of whole arrays calls for one in memory.
        if lines.bits(node).iter().zip(&runs.bits).any(|(a, b)| a != b) {
            return false;
        }
        let values = &runs.values[..runs.runs];
        if link & FULL != 0 {
            self.set_otherwise(link, header);
            for (i, v) in (2 * HEAD as u32..).zip(values) {
                if half(lines.reader(), node, i) != runs.entry(*v) {
                    lines.set_half(node, i, runs.entry(*v));
                }
            }
            return true;
        }
        let first = (node as usize + HEAD) * VALUES;
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
        form: Form,
    ) -> Result<u32, FibFull> {
        if self.records.is_empty(record) {
            if !is_link(slots[0]) && slots.iter().all(|s| *s == slots[0]) {
                self.records.give(record);
                self.retire_node(link);
                return Ok(slots[0]);
            }
            if form.skips()
                && let Some(new) = self.fold(header, slots)?
            {
                self.records.give(record);
                self.retire_node(link);
                return Ok(new);
            }
        }
        if self.rewrite_in_place(link, header, slots) {
            return Ok(link);
        }
        let new = self.build(header, slots, record, form)?;
        self.retire_node(link);
        Ok(new)
    }

    /// False when a copy is needed.
    fn rewrite_in_place(&self, link: u32, header: Option<Header>, slots: &Slots) -> bool {
        let (lines, node) = (self.lines(), link & INDEX);
        if link & DENSE != 0 {
            for (i, slot) in (0u32..).zip(slots) {
                if half(lines.reader(), node, i) != *slot {
                    lines.set_half(node, i, *slot);
                }
            }
            return true;
        }
        let bits = bits_of(slots);
        if link & FULL != 0 {
            if lines.bits(node) != bits {
                return false;
            }
            self.set_otherwise(link, header);
            for (i, start) in (2 * HEAD as u32..).zip(starts(bits)) {
                if half(lines.reader(), node, i) != slots[start] {
                    lines.set_half(node, i, slots[start]);
                }
            }
            return true;
        }
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

    /// What replaces a node without prefixes: its only child, if the bytes that it will skip are neither too many nor a
    /// single one. For a child that has an only child itself, that one.
    fn fold(&mut self, header: Option<Header>, slots: &Slots) -> Result<Option<u32>, FibFull> {
        let Some((byte, mut child, rest)) = only_link(slots) else { return Ok(None) };
        if header.is_some_and(|h| h.otherwise != rest) {
            return Ok(None);
        }
        let mut bytes = [0; 3 * 8];
        let mut n = 0;
        let mut push = |from: &[u8]| {
            bytes[n..n + from.len()].copy_from_slice(from);
            n += from.len();
        };
        if let Some((from, len)) = header.map(|h| h.bytes()) {
            push(&from[..len]);
        }
        push(&[byte]);
        let mut between = None;
        if header.is_none() && self.lines().header(child).is_none() && child & DENSE == 0 {
            let record = self.lines().record(child);
            if self.records.is_empty(record)
                && let Some((byte, below, same)) = only_link(&self.lines().unpack(child))
                && same == rest
            {
                push(&[byte]);
                between = Some((child, record));
                child = below;
            }
        }
        let below = self.lines().header(child);
        if let Some((from, len)) = below.map(|h| h.bytes()) {
            push(&from[..len]);
        }
        if !(MIN_SKIP..=MAX_SKIP).contains(&n) || below.is_some_and(|h| h.otherwise != rest) {
            return Ok(None);
        }
        let new = self.copy_with(child, Header::of(&bytes[..n], rest))?;
        if let Some((link, record)) = between {
            self.records.give(record);
            self.retire_node(link);
        }
        Ok(Some(new))
    }

    /// A node that leads only to `child`, by `byte`; all else has the answer `rest`.
    pub(super) fn lone(
        &mut self,
        header: Option<Header>,
        rest: u32,
        byte: u8,
        child: u32,
        form: Form,
    ) -> Result<u32, FibFull> {
        let record = self.records.take().ok_or(FibFull)?;
        if rest & !LEAF < SMALL {
            let mut runs = self.borrow_runs();
            runs.reset(rest as u16);
            runs.put(usize::from(byte), child);
            let node = self.build_runs(header, &runs, record, form);
            self.return_runs(runs);
            return node;
        }
        let mut slots = [rest; 256];
        slots[usize::from(byte)] = child;
        self.build(header, &slots, record, form)
    }

    /// What leads by `bytes` to a copy of a node (without those that it skipped); all else has the answer `rest`.
    pub(super) fn behind(&mut self, bytes: &[u8], link: u32, rest: u32) -> Result<u32, FibFull> {
        match bytes {
            [byte] => {
                let below = self.copy_with(link, None)?;
                self.lone(None, rest, *byte, below, Form::beside(link))
            }
            _ => self.copy_with(link, Header::of(bytes, rest)),
        }
    }

    /// A copy of a node with another header. The old one is retired.
    pub(super) fn copy_with(&mut self, link: u32, header: Option<Header>) -> Result<u32, FibFull> {
        let old = self.lines().layout(link);
        let record = self.lines().record(link);
        let new = self.place_node(header, link & (DENSE | FULL), old.runs, old.wide)?;
        self.write_before(new, header, record);
        for i in 0..old.words() {
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
