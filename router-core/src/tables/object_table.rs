//! Forwarding objects by index.

use super::chunked::Chunked;
use crate::object::{Object, ObjectId};

/// See the module. A copy is cheap, and so is a change.
#[derive(Clone, Debug, Default)]
pub struct ObjectTable(Chunked<Object>);

impl ObjectTable {
    /// The object with this index; None when this snapshot is older than the object: take the newest one then.
    #[inline]
    pub fn get(&self, id: ObjectId) -> Option<&Object> {
        self.0.get(id.0 as usize)
    }

    /// The place of an object, without a look at the object: of many of them, the looks that follow do not wait for each other.
    #[inline]
    pub(crate) fn place(&self, id: ObjectId) -> Option<&Option<Object>> {
        self.0.place(id.0 as usize)
    }

    /// How far apart objects may lie.
    #[inline]
    pub fn places(&self) -> usize {
        self.0.places()
    }

    /// All objects with their index.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.0.iter().map(|(i, o)| (ObjectId(i as u32), o))
    }

    /// Sets or clears an object.
    pub fn set(&mut self, id: ObjectId, object: Option<Object>) {
        self.0.set(id.0 as usize, object);
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
