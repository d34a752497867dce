//! A vector with reused places: control-plane structures refer to each other by index.

/// An index into a [`Slab`].
pub(crate) type Key = u32;

/// No index.
pub(crate) const NONE: Key = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<Key>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, item: T) -> Key {
        match self.free.pop() {
            Some(key) => {
                if let Some(place) = self.items.get_mut(key as usize) {
                    *place = Some(item);
                }
                key
            }
            None => {
                self.items.push(Some(item));
                (self.items.len() - 1) as Key
            }
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.items.get(key as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.items.get_mut(key as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let item = self.items.get_mut(key as usize)?.take();
        if item.is_some() {
            self.free.push(key);
        }
        item
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.items.iter().enumerate().filter_map(|(i, t)| Some((i as Key, t.as_ref()?)))
    }
}
