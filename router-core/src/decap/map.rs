//! A persistent hash map from a tunnel's outer addresses to its port: open addressing in shards. A copy is one reference
//! count; a change copies one shard and the list of shards, and only if an older copy still shares them.

use crate::port::PortId;
use std::sync::Arc;

/// Entries per shard, on average, at which there are to be more shards, and how many there are at most.
const CROWDED: usize = 64;
const MAX_SHARDS: usize = 1024;
const GROWTH: usize = 4;

/// Slots of a shard with entries, at least.
const MIN_SLOTS: usize = 8;

/// What the map can be asked for.
pub(super) trait Key: Copy + Eq + Default {
    /// All bits of the key in one word.
    fn word(&self) -> u64;
}

impl Key for u64 {
    #[inline]
    fn word(&self) -> u64 {
        *self
    }
}

impl Key for [u128; 2] {
    #[inline]
    fn word(&self) -> u64 {
        let [a, b] = *self;
        mix(mix(mix(a as u64) ^ (a >> 64) as u64) ^ b as u64) ^ (b >> 64) as u64
    }
}

impl Key for [u128; 3] {
    #[inline]
    fn word(&self) -> u64 {
        let [a, b, c] = *self;
        mix(mix([a, b].word()) ^ c as u64) ^ (c >> 64) as u64
    }
}

/// A folded multiplication by an odd constant.
#[inline]
fn mix(v: u64) -> u64 {
    let m = u128::from(v) * 0xd6e8_feb8_6659_fd93_u128;
    (m >> 64) as u64 ^ m as u64
}

/// Four of them lie in one cache line for IPv4.
#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    /// [`PortId::NONE`]: free.
    port: PortId,
}

#[derive(Clone, Debug)]
struct Shard<K> {
    /// None, or a power of two; at least half of them free.
    slots: Arc<[Slot<K>]>,
    used: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Map<K> {
    /// A power of two.
    shards: Arc<[Shard<K>]>,
    seed: u64,
    len: usize,
}

impl<K: Key> Map<K> {
    pub(super) fn new(seed: u64) -> Self {
        Map { shards: Arc::new([Shard::empty()]), seed, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Shards are chosen by the lower half, slots by the upper one.
    #[inline]
    fn hash(&self, key: &K) -> u64 {
        mix(key.word() ^ self.seed)
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<PortId> {
        let hash = self.hash(key);
        self.shards.get(hash as usize & (self.shards.len() - 1))?.get(hash >> 32, key)
    }

    /// Sets an entry, or removes it with [`PortId::NONE`].
    pub(super) fn set(&mut self, key: K, port: PortId) {
        if self.len > self.shards.len() * CROWDED && self.shards.len() < MAX_SHARDS {
            self.grow();
        }
        let (hash, seed) = (self.hash(&key), self.seed);
        let place = hash as usize & (self.shards.len() - 1);
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(place) else { return };
        let before = shard.used;
        match port {
            PortId::NONE => shard.remove(hash >> 32, &key, |k| mix(k.word() ^ seed) >> 32),
            port => shard.insert(hash >> 32, key, port, |k| mix(k.word() ^ seed) >> 32),
        }
        self.len = self.len + shard.used - before;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.len);
        let count = (self.shards.len() * GROWTH).min(MAX_SHARDS);
        let shards = std::mem::replace(&mut self.shards, std::iter::repeat_n(Shard::empty(), count).collect());
        for slot in shards.iter().flat_map(|s| s.slots.iter()).filter(|s| s.port != PortId::NONE) {
            self.set(slot.key, slot.port);
        }
        debug_assert_eq!(self.len, old);
    }
}

impl<K: Key> Shard<K> {
    fn empty() -> Self {
        Shard { slots: Arc::default(), used: 0 }
    }

    #[inline]
    fn get(&self, hash: u64, key: &K) -> Option<PortId> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize;
        loop {
            // There is always a free slot, or none at all.
            let slot = self.slots.get(at & mask)?;
            if slot.port == PortId::NONE {
                return None;
            }
            if slot.key == *key {
                return Some(slot.port);
            }
            at = at.wrapping_add(1);
        }
    }

    fn insert(&mut self, hash: u64, key: K, port: PortId, hash_of: impl Fn(&K) -> u64 + Copy) {
        if (self.used + 1) * 2 > self.slots.len() {
            let room = (self.slots.len() * 2).max(MIN_SLOTS);
            let free = Slot { key: K::default(), port: PortId::NONE };
            let old = std::mem::replace(&mut self.slots, std::iter::repeat_n(free, room).collect());
            self.used = 0;
            for s in old.iter().filter(|s| s.port != PortId::NONE) {
                self.insert(hash_of(&s.key), s.key, s.port, hash_of);
            }
        }
        let slots = Arc::make_mut(&mut self.slots);
        let mask = slots.len() - 1;
        let mut at = hash as usize;
        while let Some(slot) = slots.get_mut(at & mask) {
            if slot.port == PortId::NONE {
                self.used += 1;
                *slot = Slot { key, port };
                return;
            }
            if slot.key == key {
                slot.port = port;
                return;
            }
            at = at.wrapping_add(1);
        }
    }

    /// Takes an entry out and moves those behind it up, so that no search stops too early (Knuth 6.4, algorithm R).
    fn remove(&mut self, hash: u64, key: &K, hash_of: impl Fn(&K) -> u64) {
        if self.get(hash, key).is_none() {
            return;
        }
        let slots = Arc::make_mut(&mut self.slots);
        let mask = slots.len() - 1;
        let mut hole = hash as usize & mask;
        while slots[hole].key != *key || slots[hole].port == PortId::NONE {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = slots[at];
            if slot.port == PortId::NONE {
                break;
            }
            // It may move into the hole unless its own place lies behind the hole.
            let home = hash_of(&slot.key) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                slots[hole] = slot;
                hole = at;
            }
        }
        slots[hole] = Slot { key: K::default(), port: PortId::NONE };
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Few keys, so that they meet in shards and slots; copies made on the way stay as they were.
        #[test]
        fn a_map_and_its_copies_answer_like_a_hash_map(
            seed: u64,
            ops in proptest::collection::vec((0u64..600, 0u32..3), 1..3000),
            copy_at in 0usize..3000,
        ) {
            let (mut map, mut model) = (Map::<u64>::new(seed), HashMap::new());
            let mut copy = None;
            for (i, (key, port)) in ops.into_iter().enumerate() {
                if i == copy_at {
                    copy = Some((map.clone(), model.clone()));
                }
                let key = key << 32 | 7;
                if port == 0 {
                    map.set(key, PortId::NONE);
                    model.remove(&key);
                } else {
                    map.set(key, PortId(port));
                    model.insert(key, PortId(port));
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for (map, model) in copy.into_iter().chain([(map, model)]) {
                for key in (0..600).map(|k| k << 32 | 7) {
                    prop_assert_eq!(map.get(&key), model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn a_hundred_thousand_tunnels_stay_short_searches() {
        let mut map = Map::<u64>::new(99);
        // As one server's tunnels are: one local address, peers one behind the other.
        let key = |i: u64| (0x6440_0000 + i) << 32 | 0xc000_0201;
        (0..100_000).for_each(|i| map.set(key(i), PortId(1 + i as u32)));
        assert_eq!((map.len(), map.shards.len()), (100_000, MAX_SHARDS));
        let fullest = map.shards.iter().map(|s| s.used).max();
        assert!(fullest < Some(200), "{fullest:?}");
        // The number of slots that a search looks at.
        let mut longest = 0;
        for s in map.shards.iter() {
            let run = s.slots.iter().chain(s.slots.iter()).fold((0, 0), |(most, now), s| match s.port {
                PortId::NONE => (most, 0),
                _ => (most.max(now + 1), now + 1),
            });
            longest = longest.max(run.0);
        }
        assert!(longest < 60, "{longest}");
        assert!((0..100_000).all(|i| map.get(&key(i)).is_some()));
        (0..100_000).for_each(|i| map.set(key(i), PortId::NONE));
        assert_eq!(map.len(), 0);
    }
}
