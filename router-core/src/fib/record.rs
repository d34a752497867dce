//! Which prefixes end in a node: the writer's own notes, that no reader looks at.
//!
//! They tell who owns a slot, so that a more specific prefix is not overwritten. A few prefixes are listed in one word;
//! many take a bitmap.

/// Bit `2^l + p` stands for the prefix of `l` bits (1 to 8) with the value `p`.
pub(super) type Present = [u64; 8];

/// No record: a node that no prefix ends in, made to hold one large object number.
pub(super) const NO_RECORD: u32 = (1 << 23) - 1;

/// In the uppermost 16 bits of a record: the rest is the number of a bitmap. Listed prefixes are below 512.
const BITMAP: u64 = 0xffff << 48;

/// Whether bit `i` is set.
#[inline]
pub(super) fn has(present: &Present, i: usize) -> bool {
    present.get(i >> 6).is_some_and(|w| w >> (i & 63) & 1 != 0)
}

/// All records of a [`super::FibMemory`].
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Four numbers of 16 bits, zero for none; or [`BITMAP`].
    lists: Vec<u64>,
    free: Vec<u32>,
    bitmaps: Vec<Present>,
    free_bitmaps: Vec<u32>,
}

impl Records {
    /// An empty record. None when there are too many.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(i) = self.free.pop() {
            return Some(i);
        }
        let i = u32::try_from(self.lists.len()).ok().filter(|i| *i < NO_RECORD)?;
        self.lists.push(0);
        Some(i)
    }

    /// Gives a record back.
    pub(super) fn give(&mut self, record: u32) {
        if let Some(list) = self.lists.get_mut(record as usize) {
            if *list >= BITMAP {
                self.free_bitmaps.push(*list as u32);
            }
            *list = 0;
            self.free.push(record);
        }
    }

    /// As a bitmap, however it is stored.
    pub(super) fn get(&self, record: u32) -> Present {
        let list = self.lists.get(record as usize).copied().unwrap_or(0);
        if list >= BITMAP {
            return self.bitmaps.get(list as u32 as usize).copied().unwrap_or_default();
        }
        let mut present = [0; 8];
        for i in listed(list) {
            if let Some(w) = present.get_mut(i >> 6) {
                *w |= 1 << (i & 63);
            }
        }
        present
    }

    /// Whether a prefix is there.
    pub(super) fn has(&self, record: u32, i: usize) -> bool {
        match self.lists.get(record as usize) {
            Some(list) if *list >= BITMAP => self.bitmaps.get(*list as u32 as usize).is_some_and(|p| has(p, i)),
            Some(list) => listed(*list).any(|there| there == i),
            None => false,
        }
    }

    pub(super) fn is_empty(&self, record: u32) -> bool {
        match self.lists.get(record as usize) {
            Some(list) if *list >= BITMAP => {
                self.bitmaps.get(*list as u32 as usize).is_none_or(|p| *p == Present::default())
            }
            Some(list) => *list == 0,
            None => true,
        }
    }

    /// Notes that a prefix came or went.
    pub(super) fn mark(&mut self, record: u32, i: usize, on: bool) {
        let Some(list) = self.lists.get_mut(record as usize) else { return };
        if *list < BITMAP {
            let mut places: [u16; 4] = std::array::from_fn(|p| (*list >> (16 * p)) as u16);
            let there = places.iter().position(|p| usize::from(*p) == i);
            match (there, on) {
                (Some(p), false) => places[p] = 0,
                (None, true) => match places.iter().position(|p| *p == 0) {
                    Some(p) => places[p] = i as u16,
                    None => {
                        let mut present = [0; 8];
                        for i in places.into_iter().map(usize::from).chain([i]) {
                            present[i >> 6 & 7] |= 1 << (i & 63);
                        }
                        let at = self.free_bitmaps.pop().unwrap_or_else(|| {
                            self.bitmaps.push([0; 8]);
                            self.bitmaps.len() as u32 - 1
                        });
                        if let Some(b) = self.bitmaps.get_mut(at as usize) {
                            *b = present;
                        }
                        *list = BITMAP | u64::from(at);
                        return;
                    }
                },
                _ => return,
            }
            *list = (0..4).fold(0, |all, p| all | u64::from(places[p]) << (16 * p));
        } else if let Some(w) = self.bitmaps.get_mut(*list as u32 as usize).and_then(|b| b.get_mut(i >> 6)) {
            *w = *w & !(1 << (i & 63)) | u64::from(on) << (i & 63);
        }
    }

    /// Records in use.
    pub(super) fn used(&self) -> usize {
        self.lists.len() - self.free.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.lists.len() * 8 + self.bitmaps.len() * size_of::<Present>()
    }
}

fn listed(list: u64) -> impl Iterator<Item = usize> {
    (0..4).map(move |p| usize::from((list >> (16 * p)) as u16)).filter(|i| *i != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn keeps_what_is_marked(ops in prop::collection::vec((0u32..3, 2usize..512, any::<bool>()), 0..200)) {
            let mut records = Records::default();
            let mut models: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); 3];
            prop_assert_eq!((records.take(), records.take(), records.take()), (Some(0), Some(1), Some(2)));
            for (r, i, on) in ops {
                let model = &mut models[r as usize];
                if on { model.insert(i) } else { model.remove(&i) };
                records.mark(r, i, on);
                prop_assert_eq!(records.has(r, i), on);
                prop_assert_eq!(records.is_empty(r), model.is_empty());
                let present = records.get(r);
                prop_assert!((0..512).all(|i| has(&present, i) == model.contains(&i)));
            }
            (0..3).for_each(|r| records.give(r));
            prop_assert_eq!(records.used(), 0);
            let again = records.take().unwrap();
            prop_assert!(records.is_empty(again));
        }
    }
}
