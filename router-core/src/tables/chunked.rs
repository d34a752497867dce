//! A list by index as a persistent vector: copying it is one reference count, changing a place copies one chunk and the
//! list of chunks, and only if an older copy still shares them.

use std::sync::Arc;

const CHUNK_LOG2: usize = 6;
const CHUNK: usize = 1 << CHUNK_LOG2;

type Chunk<T> = [Option<T>; CHUNK];

/// See the module.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    spine: Arc<[Arc<Chunk<T>>]>,
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        Chunked { spine: Arc::clone(&self.spine) }
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked { spine: Arc::default() }
    }
}

impl<T: Clone> Chunked<T> {
    /// What is in a place, if anything.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.spine.get(index >> CHUNK_LOG2)?.get(index % CHUNK)?.as_ref()
    }

    /// Places that there is memory for.
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.spine.len() << CHUNK_LOG2
    }

    /// All that is there, with its index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.spine.iter().flat_map(|c| c.iter());
        slots.enumerate().filter_map(|(i, o)| Some((i, o.as_ref()?)))
    }

    /// Sets or clears a place.
    pub(super) fn set(&mut self, index: usize, value: Option<T>) {
        let chunk = index >> CHUNK_LOG2;
        if chunk >= self.spine.len() {
            if value.is_none() {
                return;
            }
            // Doubling keeps growth cheap on average: all new places share one empty chunk.
            let empty: Arc<Chunk<T>> = Arc::new(std::array::from_fn(|_| None));
            let len = (chunk + 1).next_power_of_two();
            self.spine = self.spine.iter().cloned().chain(std::iter::repeat(empty)).take(len).collect();
        }
        if let Some(chunk) = Arc::make_mut(&mut self.spine).get_mut(chunk)
            && let Some(slot) = Arc::make_mut(chunk).get_mut(index % CHUNK)
        {
            *slot = value;
        }
    }
}
