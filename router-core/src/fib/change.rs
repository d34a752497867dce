//! A prefix comes, changes or goes: its way down through the nodes, which are rewritten on the way up.

use super::arena::{FibFull, FibMemory};
use super::edit::{Form, Header, MAX_SKIP, MIN_SKIP, Slots};
use super::node::{LEAF, SMALL, is_link};
use super::record::{Present, has};
use super::runs::Runs;

/// What happens to a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Its address, in the first bytes.
    pub(super) net: [u8; 16],
    /// Its bits: at least one.
    pub(super) len: usize,
    /// What the slots that it owns shall hold: an answer.
    pub(super) entry: u32,
    /// Whether it is there afterwards.
    pub(super) stays: bool,
}

impl Change {
    fn byte(&self, depth: usize) -> u8 {
        self.net[depth & 15]
    }

    /// The byte within which it ends.
    fn last(&self) -> usize {
        (self.len - 1) / 8
    }
}

/// Calls `f` for ranges of slots (start, end) that prefix `i` of a node owns: those that no longer prefix covers.
pub(super) fn owned(i: usize, present: &Present, f: &mut impl FnMut(usize, usize)) {
    let level = i.ilog2();
    let (below, width) = (8 - level, 1usize << (8 - level));
    let start = (i << below) - 256;
    if level == 8 || !any_below(i, level, present) {
        return f(start, start + width);
    }
    for child in [2 * i, 2 * i + 1] {
        if !has(present, child) {
            owned(child, present, f);
        }
    }
}

/// Whether a longer prefix lies within prefix `i` of `level` bits.
fn any_below(i: usize, level: u32, present: &Present) -> bool {
    (1..=8 - level).any(|k| {
        let (from, n) = (i << k, 1usize << k);
        match n {
            64.. => present[from >> 6..(from + n) >> 6].iter().any(|w| *w != 0),
            _ => present[from >> 6] >> (from & 63) & ((1 << n) - 1) != 0,
        }
    })
}

/// A change on its way through the nodes.
pub(super) struct Edit<'a> {
    pub(super) memory: &'a mut FibMemory,
    pub(super) change: Change,
    /// The depth of the nodes that a direct root leads to, and their form.
    pub(super) rooted: Option<(usize, Form)>,
    /// The form of all others.
    pub(super) form: Form,
    /// Prefixes that came (1) or went (-1).
    pub(super) added: i32,
}

impl Edit<'_> {
    /// The entry, which covers what the first `depth` bytes of the prefix cover, after the change.
    pub(super) fn entry(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        if !is_link(entry) {
            return if self.change.stays { self.fresh(entry, depth) } else { Ok(entry) };
        }
        let Some(header) = self.memory.lines().header(entry) else { return self.node(entry, depth) };
        let (bytes, n) = header.bytes();
        let last = self.change.last();
        let agree = (0..n).take_while(|i| depth + i < last && self.change.byte(depth + i) == bytes[*i]).count();
        if agree == n {
            return self.node(entry, depth + n);
        }
        if !self.change.stays {
            return Ok(entry);
        }
        let split = self.split(entry, header, agree)?;
        self.entry(split, depth)
    }

    /// The form of a node.
    fn form(&self, depth: usize) -> Form {
        self.rooted.filter(|(rooted, _)| *rooted == depth).map_or(self.form, |(_, form)| form)
    }

    /// Nodes for a prefix where an answer was.
    fn fresh(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        let (last, form) = (self.change.last(), self.form(depth));
        let gap = last - depth;
        let alone = gap > 0 && (!form.skips() || gap < MIN_SKIP);
        if gap > MAX_SKIP || alone {
            let at = if alone { depth } else { depth + MAX_SKIP };
            let child = self.fresh(entry, at + 1)?;
            let header = Header::of(&self.change.net[depth..at], entry);
            return self.memory.lone(header, entry, self.change.byte(at), child, form);
        }
        let header = Header::of(&self.change.net[depth..last], entry);
        let i = self.place(last);
        let record = self.memory.records.take().ok_or(FibFull)?;
        self.memory.records.mark(record, i, true);
        self.added = 1;
        let (old, new) = (entry & !LEAF, self.change.entry & !LEAF);
        if old < SMALL && new < SMALL {
            let mut runs = self.memory.borrow_runs();
            runs.reset(old as u16);
            owned(i, &Present::default(), &mut |start, end| runs.fill(start, end, new as u16));
            let node = self.memory.build_runs(header, &runs, record, form);
            self.memory.return_runs(runs);
            return node;
        }
        let mut slots = [entry; 256];
        owned(i, &Present::default(), &mut |start, end| slots[start..end].fill(self.change.entry));
        self.memory.build(header, &slots, record, form)
    }

    /// A node in place of one that skips more bytes than agree, above it.
    fn split(&mut self, entry: u32, header: Header, agree: usize) -> Result<u32, FibFull> {
        let (bytes, n) = header.bytes();
        let rest = header.otherwise;
        let below = self.memory.behind(&bytes[agree + 1..n], entry, rest)?;
        if agree >= MIN_SKIP || agree == 0 {
            return self.memory.lone(Header::of(&bytes[..agree], rest), rest, bytes[agree], below, self.form);
        }
        let node = self.memory.lone(None, rest, bytes[agree], below, self.form)?;
        self.memory.lone(None, rest, bytes[0], node, self.form)
    }

    /// The number of the prefix in the node in which it ends.
    fn place(&self, depth: usize) -> usize {
        (1 << 8 | usize::from(self.change.byte(depth))) >> (8 * depth + 8 - self.change.len)
    }

    /// As [`Edit::entry`] for a node, the bytes that it skips being those of the prefix.
    fn node(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        if self.change.len > 8 * depth + 8 {
            return self.below(entry, depth);
        }
        let (i, record) = (self.place(depth), self.memory.lines().record(entry));
        let there = self.memory.records.has(record, i);
        if !there && !self.change.stays {
            return Ok(entry);
        }
        let header = self.memory.lines().header(entry);
        let present = self.memory.records.get(record);
        self.added = i32::from(self.change.stays) - i32::from(there);
        let (level, answer) = (i.ilog2(), self.change.entry & !LEAF);
        if self.change.stays && answer < SMALL && (level == 8 || !any_below(i, level, &present)) {
            let (start, width) = ((i << (8 - level)) - 256, 1 << (8 - level));
            if self.memory.lines().set_run(entry, start, start + width, answer) {
                self.mark(record, i, !there);
                return Ok(entry);
            }
        }
        self.own(entry, header, i, &present, depth, there != self.change.stays)
    }

    /// As [`Edit::node`] for a prefix that ends further down.
    fn below(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        let byte = self.change.byte(depth);
        let old = self.memory.lines().slot(entry, byte);
        let new = self.entry(old, depth + 1)?;
        if new == old {
            return Ok(entry);
        }
        if is_link(new) && is_link(old) {
            self.memory.lines().relink(entry, byte, new);
            return Ok(entry);
        }
        let (header, record) = (self.memory.lines().header(entry), self.memory.lines().record(entry));
        let form = self.form(depth);
        let mut runs = self.memory.borrow_runs();
        let small = is_link(new) || new & !LEAF < SMALL;
        let result = if small && self.memory.lines().load_runs(entry, &mut runs) {
            let slot = usize::from(byte);
            if is_link(new) {
                runs.put(slot, new)
            } else {
                runs.fill(slot, slot + 1, new as u16)
            }
            self.memory.rewrite_runs(entry, header, &runs, record, form)
        } else {
            let mut slots = self.memory.lines().unpack(entry);
            slots[usize::from(byte)] = new;
            self.memory.rewrite(entry, header, &slots, record, form)
        };
        self.memory.return_runs(runs);
        result
    }

    /// An entry that a shorter prefix covers, after the change of that one. `depth` is that of the entry.
    pub(super) fn hand_down(&mut self, entry: u32, depth: usize) -> Result<u32, FibFull> {
        if !is_link(entry) {
            return Ok(self.change.entry);
        }
        let header = self.memory.lines().header(entry).map(|h| Header { otherwise: self.change.entry, ..h });
        let depth = depth + header.map_or(0, |h| h.bytes().1);
        let record = self.memory.lines().record(entry);
        let present = self.memory.records.get(record);
        self.own(entry, header, 1, &present, depth, false)
    }

    /// Gives the slots of a node that belong to prefix `i` of it their new entry; notes the change of the prefix itself if
    /// `mark`.
    fn own(
        &mut self,
        entry: u32,
        header: Option<Header>,
        i: usize,
        present: &Present,
        depth: usize,
        mark: bool,
    ) -> Result<u32, FibFull> {
        let (record, form) = (self.memory.lines().record(entry), self.form(depth));
        let mut runs = self.memory.borrow_runs();
        let result = if self.change.entry & !LEAF < SMALL && self.memory.lines().load_runs(entry, &mut runs) {
            self.own_runs(&mut runs, i, present, depth).and_then(|()| {
                self.mark(record, i, mark);
                self.memory.rewrite_runs(entry, header, &runs, record, form)
            })
        } else {
            let mut slots = self.memory.lines().unpack(entry);
            self.own_slots(&mut slots, i, present, depth).and_then(|()| {
                self.mark(record, i, mark);
                self.memory.rewrite(entry, header, &slots, record, form)
            })
        };
        self.memory.return_runs(runs);
        result
    }

    fn mark(&mut self, record: u32, i: usize, mark: bool) {
        if mark {
            self.memory.records.mark(record, i, self.change.stays);
        }
    }

    fn own_runs(&mut self, runs: &mut Runs, i: usize, present: &Present, depth: usize) -> Result<(), FibFull> {
        let value = self.change.entry as u16 & (SMALL as u16 - 1);
        let mut result = Ok(());
        owned(i, present, &mut |start, end| {
            let mut from = start;
            // From link to link: what lies between has one fate.
            while let Some((slot, there)) = runs.next_link(from, end) {
                if from < slot {
                    runs.fill(from, slot, value);
                }
                match self.hand_down(runs.link(there), depth + 1) {
                    Ok(new) if is_link(new) => runs.put_again(there, new),
                    // Nothing is left below but what covers it.
                    Ok(_) => runs.fill(slot, slot + 1, value),
                    Err(e) => result = Err(e),
                }
                from = slot + 1;
            }
            if from < end {
                runs.fill(from, end, value);
            }
        });
        result
    }

    fn own_slots(&mut self, slots: &mut Slots, i: usize, present: &Present, depth: usize) -> Result<(), FibFull> {
        let mut result = Ok(());
        owned(i, present, &mut |start, end| {
            for slot in &mut slots[start..end] {
                match self.hand_down(*slot, depth + 1) {
                    Ok(new) => *slot = new,
                    Err(e) => result = Err(e),
                }
            }
        });
        result
    }
}
