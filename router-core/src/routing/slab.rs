//! A vector with reused places: control-plane structures refer to each other by index.
//!
//! It grows by chunks, so that nothing ever moves and no insertion costs more than another.

/// An index into a [`Slab`].
pub(crate) type Key = u32;

/// No index.
pub(crate) const NONE: Key = u32::MAX;

const CHUNK_LOG2: usize = 9;
const CHUNK: usize = 1 << CHUNK_LOG2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// All but the last are full.
    chunks: Vec<Vec<Option<T>>>,
    places: usize,
    free: Vec<Key>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), places: 0, free: Vec::new() }
    }
}

impl<T> Slab<T> {
    #[inline]
    fn place(&self, key: Key) -> Option<&Option<T>> {
        self.chunks.get(key as usize >> CHUNK_LOG2)?.get(key as usize % CHUNK)
    }

    #[inline]
    fn place_mut(&mut self, key: Key) -> Option<&mut Option<T>> {
        self.chunks.get_mut(key as usize >> CHUNK_LOG2)?.get_mut(key as usize % CHUNK)
    }

    pub(crate) fn insert(&mut self, item: T) -> Key {
        match self.free.pop() {
            Some(key) => {
                if let Some(place) = self.place_mut(key) {
                    *place = Some(item);
                }
                key
            }
            None => {
                if self.places.is_multiple_of(CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                if let Some(last) = self.chunks.last_mut() {
                    last.push(Some(item));
                }
                self.places += 1;
                (self.places - 1) as Key
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.place(key)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.place_mut(key)?.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let item = self.place_mut(key)?.take();
        if item.is_some() {
            self.free.push(key);
        }
        item
    }

    pub(crate) fn len(&self) -> usize {
        self.places - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().flatten().enumerate().filter_map(|(i, t)| Some((i as Key, t.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_reused_and_keys_stay() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..3 * CHUNK).map(|i| slab.insert(i)).collect();
        assert!(keys.iter().enumerate().all(|(i, k)| slab.get(*k) == Some(&i)));
        assert_eq!((slab.remove(keys[700]), slab.remove(keys[700]), slab.len()), (Some(700), None, 3 * CHUNK - 1));
        assert_eq!((slab.insert(7), slab.get(keys[700]), slab.len()), (keys[700], Some(&7), 3 * CHUNK));
        assert!(slab.get(NONE).is_none() && slab.get_mut(3 * CHUNK as Key).is_none());
        assert!(slab.iter().map(|(k, _)| k).eq(keys));
    }
}
