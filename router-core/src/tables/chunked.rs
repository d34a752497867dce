//! A list by index as a persistent vector: copying it is a few reference counts, changing a place copies the chunk that it
//! is in and the lists that lead there, each of 64, and only those that an older copy still shares.

use std::sync::Arc;

const LOG2: usize = 6;
const WIDTH: usize = 1 << LOG2;

/// Places in a part.
const PART: usize = WIDTH * WIDTH;

/// Aligned, as all pieces of the tables that packets touch are: an allocator may keep them together.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Chunk<T>([Option<T>; WIDTH]);

/// See [`Chunk`].
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Part<T>([Arc<Chunk<T>>; WIDTH]);

/// See the module.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    /// The first part lies here: nobody pays for a long list who has none.
    first: Arc<Part<T>>,
    /// All others.
    more: Arc<[Arc<Part<T>>]>,
    /// Above the last place that was ever set.
    places: usize,
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        Chunked { first: Arc::clone(&self.first), more: Arc::clone(&self.more), places: self.places }
    }
}

/// A part with nothing in it: all of its places share one chunk.
fn empty<T>() -> Arc<Part<T>> {
    let chunk: Arc<Chunk<T>> = Arc::new(Chunk(std::array::from_fn(|_| None)));
    Arc::new(Part(std::array::from_fn(|_| Arc::clone(&chunk))))
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked { first: empty(), more: Arc::default(), places: 0 }
    }
}

impl<T: Clone> Chunked<T> {
    /// What is in a place, if anything.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.place(index)?.as_ref()
    }

    /// A place, without a look at what is in it.
    #[inline]
    pub(super) fn place(&self, index: usize) -> Option<&Option<T>> {
        let part = if index < PART { &self.first } else { self.more.get((index >> (2 * LOG2)) - 1)? };
        Some(&part.0[(index >> LOG2) % WIDTH].0[index % WIDTH])
    }

    /// How far apart two places that were set may lie.
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// All that is there, with its index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let parts = std::iter::once(&self.first).chain(self.more.iter());
        let slots = parts.flat_map(|p| p.0.iter()).flat_map(|c| c.0.iter());
        slots.enumerate().filter_map(|(i, o)| Some((i, o.as_ref()?)))
    }

    /// Sets or clears a place.
    pub(super) fn set(&mut self, index: usize, value: Option<T>) {
        if index >= self.places {
            if value.is_none() {
                return;
            }
            self.places = index + 1;
        }
        let part = match index >> (2 * LOG2) {
            0 => &mut self.first,
            at => {
                if at > self.more.len() {
                    // Doubling keeps growth cheap on average: all new places share one empty part.
                    let len = at.next_power_of_two();
                    self.more = self.more.iter().cloned().chain(std::iter::repeat(empty())).take(len).collect();
                }
                let Some(part) = Arc::make_mut(&mut self.more).get_mut(at - 1) else { return };
                part
            }
        };
        let chunk = &mut Arc::make_mut(part).0[(index >> LOG2) % WIDTH];
        Arc::make_mut(chunk).0[index % WIDTH] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn is_a_list_and_copies_keep_what_they_had(
            ops in prop::collection::vec((0usize..6, 0usize..200, any::<Option<u16>>(), any::<bool>()), 0..60),
        ) {
            let (mut list, mut model) = (Chunked::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (part, near, value, copy) in ops {
                // Around the ends of parts.
                let at = (part * PART + near).saturating_sub(100);
                list.set(at, value);
                match value {
                    Some(v) => _ = model.insert(at, v),
                    None => _ = model.remove(&at),
                }
                prop_assert_eq!(list.get(at).copied(), value);
                if copy {
                    copies.push((list.clone(), model.clone()));
                }
            }
            prop_assert!(list.get(PART * 100).is_none());
            copies.push((list, model));
            for (list, model) in copies {
                prop_assert!(list.iter().map(|(i, v)| (i, *v)).eq(model.iter().map(|(i, v)| (*i, *v))));
                prop_assert!(model.keys().all(|i| *i < list.places()));
            }
        }
    }
}
