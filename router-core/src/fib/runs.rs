//! A node's runs taken apart, to be changed: what nearly all changes happen to. No list of 256 slots is made.

use super::edit::{Bits, Slots, bit_of, starts};
use super::node::{HEAD, LEAF, SLOTS, SMALL, VALUES, part_of, rank};

/// See the module. Links lie beside the values, in the order in which they came; a value from [`SMALL`] on is the place
/// of one, and always a run of its own. Large answers do not occur.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) bits: Bits,
    pub(super) runs: usize,
    pub(super) values: [u16; 260],
    pub(super) wide: [u32; 513],
    pub(super) links: usize,
}

impl Default for Runs {
    fn default() -> Self {
        Runs { bits: [0; HEAD], runs: 1, values: [0; 260], wide: [0; 513], links: 0 }
    }
}

impl Runs {
    /// Gives all slots the same answer.
    pub(super) fn reset(&mut self, value: u16) {
        (self.bits, self.runs, self.values[0], self.links) = ([0; HEAD], 1, value, 0);
    }

    /// The link that a value stands for.
    pub(super) fn link(&self, value: u16) -> u32 {
        self.wide[usize::from(value) & (SMALL as usize - 1)]
    }

    /// The entry that a value stands for.
    pub(super) fn entry(&self, value: u16) -> u32 {
        if u32::from(value) < SMALL { LEAF | u32::from(value) } else { self.link(value) }
    }

    /// Notes a link; gives the value that stands for it.
    pub(super) fn add_link(&mut self, link: u32) -> u16 {
        self.wide[self.links] = link;
        self.links += 1;
        SMALL as u16 | (self.links - 1) as u16
    }

    /// Values that stand for links.
    pub(super) fn wide_runs(&self) -> usize {
        if self.links == 0 {
            return 0;
        }
        self.values[..self.runs].iter().map(|v| usize::from(*v >> 15)).sum()
    }

    /// The first slot from `from` to before `end` that leads to a node, and its value.
    pub(super) fn next_link(&self, from: usize, end: usize) -> Option<(usize, u16)> {
        if self.links == 0 || from >= end {
            return None;
        }
        let (mut run, mut slot) = (self.run(from), from);
        loop {
            let value = self.values[run];
            if u32::from(value) >= SMALL {
                return Some((slot, value));
            }
            slot = self.next_start(slot + 1)?;
            if slot >= end {
                return None;
            }
            run += 1;
        }
    }

    /// The first slot from `from` on in which a run begins.
    fn next_start(&self, from: usize) -> Option<usize> {
        if from > 255 {
            return None;
        }
        let first = part_of(from as u32) as usize;
        let base = first * SLOTS as usize;
        let word = self.bits[first] & !0 >> (from - base);
        if word != 0 {
            return Some(base + word.leading_zeros() as usize);
        }
        let part = (first + 1..HEAD).find(|part| self.bits[*part] != 0)?;
        Some(part * SLOTS as usize + self.bits[part].leading_zeros() as usize)
    }

    fn run(&self, slot: usize) -> usize {
        let part = part_of(slot as u32) as usize;
        let before: u32 = self.bits[..part].iter().map(|w| w.count_ones()).sum();
        before as usize + rank(self.bits[part], slot as u32, part as u32)
    }

    fn set(&mut self, slot: usize, on: bool) {
        let (part, bit) = bit_of(slot);
        self.bits[part] = if on { self.bits[part] | bit } else { self.bits[part] & !bit };
    }

    /// No run begins in the slots from `start` to before `end`.
    fn clear(&mut self, start: usize, end: usize) {
        for (part, bits) in self.bits.iter_mut().enumerate() {
            let base = part * SLOTS as usize;
            let (from, to) = (start.max(base), end.min(base + SLOTS as usize));
            if from < to {
                // The highest bit is the first slot's.
                *bits &= !(!0u64 >> (from - base)) | !0u64 >> (to - base);
            }
        }
    }

    /// Gives the slots from `start` to before `end` a value.
    pub(super) fn fill(&mut self, start: usize, end: usize, value: u16) {
        let keep = if start == 0 { 0 } else { self.run(start - 1) + 1 };
        let joins_left = keep > 0 && self.values[keep - 1] == value;
        let mut from = self.runs;
        let mut joins_right = false;
        if end < 256 {
            from = self.run(end);
            joins_right = self.values[from] == value;
            from += usize::from(joins_right);
        }
        let to = keep + usize::from(!joins_left);
        if from != to {
            self.values.copy_within(from..self.runs, to);
        }
        if !joins_left {
            self.values[keep] = value;
        }
        self.runs = self.runs + to - from;
        self.clear(start.max(1), end);
        if start > 0 {
            self.set(start, !joins_left);
        }
        if end < 256 {
            self.set(end, !joins_right);
        }
    }

    /// Puts a link into a slot.
    pub(super) fn put(&mut self, slot: usize, link: u32) {
        let value = self.add_link(link);
        self.fill(slot, slot + 1, value);
    }

    /// Puts another link in the place of one.
    pub(super) fn put_again(&mut self, value: u16, link: u32) {
        self.wide[usize::from(value) & (SMALL as usize - 1)] = link;
    }

    /// Four values from the i-th word on.
    pub(super) fn word(&self, i: usize) -> u64 {
        let [a, b, c, d] = self.values.as_chunks::<VALUES>().0[i];
        u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
    }

    /// All slots.
    pub(super) fn slots(&self) -> Slots {
        let mut slots = [self.entry(self.values[0]); 256];
        for (start, v) in starts(self.bits).zip(&self.values).skip(1) {
            slots[start..].fill(self.entry(*v));
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::is_link;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against 256 slots one by one.
        #[test]
        fn are_slots(ops in prop::collection::vec((0usize..256, 0usize..256, 0u16..4, any::<bool>()), 0..60)) {
            let mut runs = Runs::default();
            runs.reset(0);
            let mut model = [LEAF; 256];
            for (link, (a, b, value, link_here)) in (1u32..).zip(ops) {
                if link_here {
                    runs.put(a, link);
                    model[a] = link;
                } else {
                    // As changes do it: links are looked at one by one, what lies between is filled.
                    let (start, end) = (a.min(b), a.max(b) + 1);
                    let mut from = start;
                    while let Some((slot, there)) = runs.next_link(from, end) {
                        if from < slot {
                            runs.fill(from, slot, value);
                        }
                        prop_assert_eq!(runs.link(there), model[slot]);
                        from = slot + 1;
                    }
                    if from < end {
                        runs.fill(from, end, value);
                    }
                    model[start..end].iter_mut().filter(|s| !is_link(**s)).for_each(|s| *s = LEAF | u32::from(value));
                }
                prop_assert_eq!(runs.slots(), model);
                prop_assert_eq!(runs.wide_runs(), model.iter().filter(|s| is_link(**s)).count());
                prop_assert_eq!(runs.runs, 1 + model.windows(2).filter(|w| w[0] != w[1]).count());
            }
        }
    }
}
