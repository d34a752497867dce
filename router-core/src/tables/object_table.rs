//! Forwarding objects by index, as a persistent vector: copying the table is one reference count, changing an object
//! copies one chunk and the spine, and only if a snapshot still shares them.

use crate::object::{Object, ObjectId};
use std::sync::Arc;

const CHUNK_LOG2: u32 = 6;
const CHUNK: usize = 1 << CHUNK_LOG2;

type Chunk = [Option<Object>; CHUNK];

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct ObjectTable {
    spine: Arc<[Arc<Chunk>]>,
}

impl ObjectTable {
    /// The object with this index; None when this snapshot is older than the object: take the newest one then.
    #[inline]
    pub fn get(&self, id: ObjectId) -> Option<&Object> {
        self.spine.get((id.0 >> CHUNK_LOG2) as usize)?.get(id.0 as usize % CHUNK)?.as_ref()
    }

    /// All objects with their index.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        let slots = self.spine.iter().flat_map(|c| c.iter());
        slots.enumerate().filter_map(|(i, o)| Some((ObjectId(i as u32), o.as_ref()?)))
    }

    /// Sets or clears an object.
    pub fn set(&mut self, id: ObjectId, object: Option<Object>) {
        let index = (id.0 >> CHUNK_LOG2) as usize;
        if index >= self.spine.len() {
            if object.is_none() {
                return;
            }
            // Doubling keeps growth cheap on average: all new places share one empty chunk.
            let empty: Arc<Chunk> = Arc::new(std::array::from_fn(|_| None));
            let len = (index + 1).next_power_of_two();
            self.spine = self.spine.iter().cloned().chain(std::iter::repeat(empty)).take(len).collect();
        }
        if let Some(chunk) = Arc::make_mut(&mut self.spine).get_mut(index)
            && let Some(slot) = Arc::make_mut(chunk).get_mut(id.0 as usize % CHUNK)
        {
            *slot = object;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drop_reason::DropReason;

    #[test]
    fn old_copies_keep_what_they_had() {
        let mut t = ObjectTable::default();
        assert!(t.get(ObjectId::NO_ROUTE).is_none());
        t.set(ObjectId(0), Some(Object::Local));
        t.set(ObjectId(1000), Some(Object::Broadcast));
        let old = t.clone();
        t.set(ObjectId(0), Some(Object::Discard(DropReason::Blackhole)));
        t.set(ObjectId(1000), None);
        t.set(ObjectId(100_000), None);
        assert!(matches!(old.get(ObjectId(0)), Some(Object::Local)));
        assert!(matches!(old.get(ObjectId(1000)), Some(Object::Broadcast)));
        assert!(matches!(t.get(ObjectId(0)), Some(Object::Discard(DropReason::Blackhole))));
        assert!(t.get(ObjectId(1000)).is_none());
        assert_eq!(old.iter().count(), 2);
    }
}
