//! Buckets of a weighted group: how members share flows.
//!
//! Deterministic: the same members in the same order give the same buckets on every router and in every run. Resilient:
//! the number of buckets depends on the configured members only, and a member that fails gives away its own buckets
//! while all others stay where they are, so only its flows move; when it comes back it gets the same ones again.

use crate::object::ObjectId;

/// Fewer make the shares of survivors uneven when a member fails.
const AT_LEAST: u64 = 64;
/// More cost memory without making shares visibly finer (weights go to 256).
const AT_MOST: u64 = 4096;

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) object: ObjectId,
    pub(crate) weight: u64,
    pub(crate) usable: bool,
}

/// The buckets of a group. Empty only without members.
pub(crate) fn buckets(members: &[Member]) -> Vec<ObjectId> {
    let counts = shares(&members.iter().map(|m| m.weight.max(1)).collect::<Vec<_>>());
    let alive: Vec<(ObjectId, u64)> =
        members.iter().filter(|m| m.usable).map(|m| (m.object, m.weight.max(1))).collect();
    let mut out = Vec::new();
    let mut orphans = Vec::new();
    for (m, count) in members.iter().zip(counts) {
        if !m.usable && !alive.is_empty() {
            orphans.extend(out.len()..out.len() + count);
        }
        out.extend(std::iter::repeat_n(m.object, count));
    }
    // Orphaned buckets go round by weight: always to the one that is furthest behind its share.
    let mut given = vec![0u64; alive.len()];
    for place in orphans {
        let next = (0..alive.len()).min_by_key(|i| (given[*i] + 1) * 1_000_000 / alive[*i].1);
        if let (Some(i), Some(bucket)) = (next, out.get_mut(place)) {
            given[i] += 1;
            *bucket = alive[i].0;
        }
    }
    out
}

/// How many buckets each weight gets: exactly proportional where that takes no more than [`AT_MOST`].
fn shares(weights: &[u64]) -> Vec<usize> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|w| w / divisor).sum();
    if sum == 0 {
        return Vec::new();
    }
    if sum <= AT_MOST {
        let scale = AT_LEAST.div_ceil(sum).max(1);
        return weights.iter().map(|w| (w / divisor * scale) as usize).collect();
    }
    weights.iter().map(|w| ((w / divisor * AT_MOST / sum).max(1)) as usize).collect()
}

/// Greatest common divisor.
pub(crate) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(weights: &[u64]) -> Vec<Member> {
        let all = weights.iter().enumerate();
        all.map(|(i, w)| Member { object: ObjectId(i as u32 + 10), weight: *w, usable: true }).collect()
    }

    fn count(buckets: &[ObjectId], id: u32) -> usize {
        buckets.iter().filter(|b| b.0 == id).count()
    }

    #[test]
    fn shares_follow_weights() {
        let b = buckets(&members(&[1, 2, 5]));
        assert_eq!((count(&b, 10), count(&b, 11), count(&b, 12)), (8, 16, 40));
        let b = buckets(&members(&[256, 1]));
        assert_eq!((count(&b, 10), count(&b, 11)), (256, 1));
        assert!(buckets(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn only_the_flows_of_the_lost_move(weights in prop::collection::vec(1u64..=256, 2..20), lost in any::<u32>()) {
            let mut m = members(&weights);
            let before = buckets(&m);
            prop_assert!(before.len() <= 2 * AT_MOST as usize);
            let lost = lost as usize % m.len();
            m[lost].usable = false;
            let after = buckets(&m);
            prop_assert_eq!(before.len(), after.len());
            let gone = ObjectId(lost as u32 + 10);
            for (b, a) in before.iter().zip(&after) {
                prop_assert_ne!(*a, gone);
                prop_assert!(*b == gone || a == b);
            }
            // All lost: nothing moves, so that traffic still asks for the neighbours.
            m.iter_mut().for_each(|m| m.usable = false);
            prop_assert_eq!(&buckets(&m), &before);
        }
    }
}
