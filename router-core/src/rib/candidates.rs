//! The candidates of a prefix: nearly always one, which then lies in the entry itself.

use super::Candidate;
use std::ops::{Deref, DerefMut};

/// A list, best first, that takes memory of its own only from two candidates on.
#[derive(Clone, Debug, Default)]
pub(crate) enum Candidates {
    #[default]
    None,
    One(Candidate),
    Many(Vec<Candidate>),
}

impl Candidates {
    /// Inserts a candidate before the one at `place`, or at the end.
    pub(crate) fn insert(&mut self, place: usize, new: Candidate) {
        *self = match std::mem::take(self) {
            Candidates::None => Candidates::One(new),
            Candidates::One(one) => Candidates::Many(if place == 0 { vec![new, one] } else { vec![one, new] }),
            Candidates::Many(mut list) => {
                list.insert(place.min(list.len()), new);
                Candidates::Many(list)
            }
        };
    }

    /// Takes out the candidate at `place`.
    pub(crate) fn remove(&mut self, place: usize) -> Option<Candidate> {
        let old = self.get(place).copied()?;
        *self = match std::mem::take(self) {
            Candidates::Many(mut list) => {
                list.remove(place);
                match list[..] {
                    [one] => Candidates::One(one),
                    _ => Candidates::Many(list),
                }
            }
            _ => Candidates::None,
        };
        Some(old)
    }
}

impl Deref for Candidates {
    type Target = [Candidate];

    fn deref(&self) -> &[Candidate] {
        match self {
            Candidates::None => &[],
            Candidates::One(one) => std::slice::from_ref(one),
            Candidates::Many(list) => list,
        }
    }
}

impl DerefMut for Candidates {
    fn deref_mut(&mut self) -> &mut [Candidate] {
        match self {
            Candidates::None => &mut [],
            Candidates::One(one) => std::slice::from_mut(one),
            Candidates::Many(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::TableId;
    use crate::spec::proto;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_list(ops in prop::collection::vec((any::<bool>(), 0usize..4), 0..40)) {
            let (mut list, mut model) = (Candidates::default(), Vec::new());
            for (n, (insert, place)) in (0..).zip(ops) {
                let new = Candidate { path: n, metric: 0, table: TableId::MAIN, proto: proto::BOOT };
                if insert {
                    model.insert(place.min(model.len()), new);
                    list.insert(place.min(list.len()), new);
                } else {
                    let want = (place < model.len()).then(|| model.remove(place));
                    prop_assert_eq!(list.remove(place), want);
                }
                prop_assert_eq!(&list[..], &model[..]);
                if let Some(first) = list.first_mut() {
                    first.metric += 1;
                    model[0].metric += 1;
                }
            }
        }
    }
}
