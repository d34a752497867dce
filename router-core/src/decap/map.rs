//! A persistent hash map from a tunnel's outer addresses to its port, in shards of lines. A copy is one reference count; a
//! change copies one shard and the list of shards, and only if an older copy still shares them.
//!
//! A key belongs into a *line*, which for IPv4 is a cache line, and all keys of a line are compared without a branch. Where
//! a search ends is random: as a branch it would be mispredicted for one packet in four, and with it would go all searches
//! of later packets that the processor had begun, each of which waits for memory.

use crate::port::PortId;
use std::sync::Arc;

/// Entries per shard, on average, at which there are to be more shards, and how many there are at most.
const CROWDED: usize = 64;
const MAX_SHARDS: usize = 1024;
const GROWTH: usize = 4;

/// Entries of a line.
const WAYS: usize = 5;

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

/// Entries that are compared together.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<K> {
    keys: [K; WAYS],
    /// [`PortId::NONE`]: free.
    ports: [PortId; WAYS],
    /// Entries that belong here, or before, and are in a line behind, as this one was full.
    passed: u32,
}

const _: () = assert!(size_of::<Line<u64>>() == 64);

impl<K: Key> Line<K> {
    fn empty() -> Self {
        Line { keys: [K::default(); WAYS], ports: [PortId::NONE; WAYS], passed: 0 }
    }

    /// The port of a key; [`PortId::NONE`] where it is not here.
    #[inline(always)]
    fn find(&self, key: &K) -> PortId {
        let mut found = u32::MAX;
        for (k, port) in self.keys.iter().zip(&self.ports) {
            // Of a key that is also what free places have, a free one behind says nothing.
            found = if k == key { port.0.min(found) } else { found };
        }
        PortId(found)
    }

    /// Where a key is.
    fn way(&self, key: &K) -> Option<usize> {
        (0..WAYS).find(|i| self.keys[*i] == *key && self.ports[*i] != PortId::NONE)
    }

    /// A free place.
    fn free(&self) -> Option<usize> {
        self.ports.iter().position(|p| *p == PortId::NONE)
    }
}

#[derive(Clone, Debug)]
struct Shard<K> {
    /// None, or a power of two.
    lines: Arc<[Line<K>]>,
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

    /// Shards are chosen by the lower half, lines by the upper one.
    #[inline]
    fn hash(&self, key: &K) -> u64 {
        mix(key.word() ^ self.seed)
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<PortId> {
        let hash = self.hash(key);
        self.shards.get(hash as usize & (self.shards.len() - 1))?.get(hash >> 32, key)
    }

    /// Reads something of the line where a search for a key begins: asked of many keys before the first search, all of them
    /// come from memory at once. What is read does not matter.
    #[inline(always)]
    pub(super) fn touch(&self, key: &K) -> u32 {
        let hash = self.hash(key);
        let Some(shard) = self.shards.get(hash as usize & (self.shards.len() - 1)) else { return 0 };
        let home = (hash >> 32) as usize & shard.lines.len().wrapping_sub(1);
        shard.lines.get(home).map_or(0, |line| line.passed)
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
            PortId::NONE => shard.remove(hash >> 32, &key),
            port => shard.insert(hash >> 32, key, port, |k| mix(k.word() ^ seed) >> 32),
        }
        self.len = self.len + shard.used - before;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.len);
        let count = (self.shards.len() * GROWTH).min(MAX_SHARDS);
        let shards = std::mem::replace(&mut self.shards, std::iter::repeat_n(Shard::empty(), count).collect());
        for (key, port) in shards.iter().flat_map(Shard::entries) {
            self.set(key, port);
        }
        debug_assert_eq!(self.len, old);
    }
}

impl<K: Key> Shard<K> {
    fn empty() -> Self {
        Shard { lines: Arc::default(), used: 0 }
    }

    fn entries(&self) -> impl Iterator<Item = (K, PortId)> {
        let all = self.lines.iter().flat_map(|l| l.keys.into_iter().zip(l.ports));
        all.filter(|(_, port)| *port != PortId::NONE)
    }

    #[inline]
    fn get(&self, hash: u64, key: &K) -> Option<PortId> {
        let mask = self.lines.len().wrapping_sub(1);
        for step in 0..self.lines.len() {
            let line = self.lines.get((hash as usize).wrapping_add(step) & mask)?;
            let found = line.find(key);
            if found != PortId::NONE {
                return Some(found);
            }
            if line.passed == 0 {
                break;
            }
        }
        None
    }

    /// How many lines behind its own a key is.
    fn distance(&self, hash: u64, key: &K) -> Option<usize> {
        let mask = self.lines.len().wrapping_sub(1);
        let line = |step: usize| self.lines.get((hash as usize).wrapping_add(step) & mask);
        (0..self.lines.len()).find(|step| line(*step).is_some_and(|l| l.find(key) != PortId::NONE))
    }

    fn insert(&mut self, hash: u64, key: K, port: PortId, hash_of: impl Fn(&K) -> u64 + Copy) {
        if let Some(step) = self.distance(hash, &key) {
            let lines = Arc::make_mut(&mut self.lines);
            let mask = lines.len() - 1;
            let line = &mut lines[(hash as usize).wrapping_add(step) & mask];
            if let Some(way) = line.way(&key) {
                line.ports[way] = port;
            }
            return;
        }
        // At most two thirds full: one entry in twenty is not in its own line.
        if (self.used + 1) * 3 > self.lines.len() * WAYS * 2 {
            let room = (self.lines.len() * 2).max(1);
            let lines = std::iter::repeat_n(Line::empty(), room).collect();
            let old = std::mem::replace(self, Shard { lines, used: 0 });
            for (k, p) in old.entries() {
                self.insert(hash_of(&k), k, p, hash_of);
            }
        }
        let lines = Arc::make_mut(&mut self.lines);
        let mask = lines.len() - 1;
        for step in 0..lines.len() {
            let line = &mut lines[(hash as usize).wrapping_add(step) & mask];
            if let Some(way) = line.free() {
                (line.keys[way], line.ports[way]) = (key, port);
                self.used += 1;
                return;
            }
            line.passed += 1;
        }
    }

    fn remove(&mut self, hash: u64, key: &K) {
        let Some(distance) = self.distance(hash, key) else { return };
        let lines = Arc::make_mut(&mut self.lines);
        let mask = lines.len() - 1;
        for step in 0..distance {
            lines[(hash as usize).wrapping_add(step) & mask].passed -= 1;
        }
        let line = &mut lines[(hash as usize).wrapping_add(distance) & mask];
        if let Some(way) = line.way(key) {
            (line.keys[way], line.ports[way]) = (K::default(), PortId::NONE);
            self.used -= 1;
        }
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
        // Most searches end in the first line.
        let passed: u32 = map.shards.iter().flat_map(|s| s.lines.iter()).map(|l| l.passed).sum();
        assert!(passed < 8_000, "{passed}");
        let bytes = map.shards.iter().map(|s| size_of_val(&*s.lines)).sum::<usize>();
        assert!(bytes < 3 << 20, "{bytes}");
        assert!((0..100_000).all(|i| map.get(&key(i)).is_some()));
        (0..100_000).for_each(|i| map.set(key(i), PortId::NONE));
        assert_eq!(map.len(), 0);
        assert!(map.shards.iter().flat_map(|s| s.lines.iter()).all(|l| l.passed == 0));
    }
}
