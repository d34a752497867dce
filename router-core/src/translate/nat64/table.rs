//! The sessions of a NAT64 as workers read them: a table of fixed size in which one writer changes entries in place.
//!
//! Each entry carries a sequence number that is odd while the writer is at it: a reader that sees it odd or changed has
//! found nothing. Finding nothing is always safe, because the control side, which knows better, is asked then.

use super::Ends6Out;
use crate::headers::protocol;
use crate::time::Instant;
use crate::translate::ends::Ends4;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Places per bucket: a cache line.
const WAYS: usize = 8;

/// Flags of an entry.
const OPEN: u64 = 1;
const KEPT_BY_TRAFFIC: u64 = 2;

#[derive(Debug, Default)]
struct Entry {
    seq: AtomicU32,
    /// Seconds of the clock at the last packet.
    last: AtomicU32,
    /// Host address (two words); peer and both ports; mapped address, port, protocol and flags.
    words: [AtomicU64; 4],
}

/// A session as written into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The session as its IPv6 host sees it.
    pub out: Ends6Out,
    /// The mapped IPv4 address.
    pub addr: Ipv4Addr,
    /// The mapped port or identifier.
    pub port: u16,
    /// Workers translate without asking.
    pub open: bool,
    /// Packets keep it alive.
    pub kept_by_traffic: bool,
}

impl Row {
    fn words(&self) -> [u64; 4] {
        let host = self.out.host.to_bits();
        let flags = if self.open { OPEN } else { 0 } | if self.kept_by_traffic { KEPT_BY_TRAFFIC } else { 0 };
        [
            (host >> 64) as u64,
            host as u64,
            u64::from(self.out.peer.to_bits()) << 32 | u64::from(self.out.port) << 16 | u64::from(self.out.peer_port),
            u64::from(self.addr.to_bits()) << 32 | u64::from(self.port) << 16 | u64::from(self.out.proto) << 8 | flags,
        ]
    }

    fn from_words(w: [u64; 4]) -> Row {
        Row {
            out: Ends6Out {
                host: Ipv6Addr::from_bits(u128::from(w[0]) << 64 | u128::from(w[1])),
                port: (w[2] >> 16) as u16,
                peer: Ipv4Addr::from_bits((w[2] >> 32) as u32),
                peer_port: w[2] as u16,
                proto: (w[3] >> 8) as u8,
            },
            addr: Ipv4Addr::from_bits((w[3] >> 32) as u32),
            port: (w[3] >> 16) as u16,
            open: w[3] & OPEN != 0,
            kept_by_traffic: w[3] & KEPT_BY_TRAFFIC != 0,
        }
    }

    /// As the IPv4 side sees it.
    fn inside(&self) -> (Ipv4Addr, u16, Ipv4Addr, u16, u8) {
        (self.addr, self.port, self.out.peer, self.out.peer_port, self.out.proto)
    }
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Number of the entry.
    pub id: u32,
    /// The IPv6 host's end.
    pub host: (Ipv6Addr, u16),
    /// The mapped IPv4 end.
    pub mapped: (Ipv4Addr, u16),
    /// See [`Row::open`].
    pub open: bool,
    kept_by_traffic: bool,
}

/// From a hash to entries: two buckets each may hold it.
#[derive(Debug)]
struct Index {
    slots: Box<[AtomicU64]>,
    mask: usize,
}

impl Index {
    fn new(entries: usize) -> Self {
        // Half full at most, so that one of two buckets has room.
        let buckets = (entries * 2).div_ceil(WAYS).next_power_of_two();
        Index { slots: (0..buckets * WAYS).map(|_| AtomicU64::new(0)).collect(), mask: buckets - 1 }
    }

    fn buckets(&self, hash: u64) -> [&[AtomicU64]; 2] {
        let bucket = |n: u64| {
            let at = (n as usize & self.mask) * WAYS;
            self.slots.get(at..at + WAYS).unwrap_or(&[])
        };
        [bucket(hash), bucket(hash >> 24)]
    }

    fn value(hash: u64, id: u32) -> u64 {
        (hash >> 32) << 32 | u64::from(id + 1)
    }

    /// Entries whose hash may be this one.
    #[inline]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let [a, b] = self.buckets(hash);
        a.iter().chain(b).filter_map(move |slot| {
            let v = slot.load(Acquire);
            (v >> 32 == hash >> 32).then(|| (v as u32).checked_sub(1)).flatten()
        })
    }

    fn insert(&self, hash: u64, id: u32) -> bool {
        let free = |b: &[AtomicU64]| b.iter().filter(|s| s.load(Relaxed) == 0).count();
        let [a, b] = self.buckets(hash);
        let bucket = if free(a) >= free(b) { a } else { b };
        match bucket.iter().find(|s| s.load(Relaxed) == 0) {
            Some(slot) => {
                slot.store(Self::value(hash, id), Release);
                true
            }
            None => false,
        }
    }

    fn remove(&self, hash: u64, id: u32) {
        let value = Self::value(hash, id);
        let [a, b] = self.buckets(hash);
        if let Some(slot) = a.iter().chain(b).find(|s| s.load(Relaxed) == value) {
            slot.store(0, Release);
        }
    }
}

/// See the module. Any number of readers; writing is for the one owner of the NAT64's state.
#[derive(Debug)]
pub struct SessionTable {
    entries: Box<[Entry]>,
    by_host: Index,
    by_mapped: Index,
    hasher: FixedState,
}

impl SessionTable {
    /// An empty table for up to `entries` sessions. Packets choose what is in it: `seed` should differ from run to run.
    pub fn new(entries: u32, seed: u64) -> Self {
        let n = entries as usize;
        SessionTable {
            entries: (0..n).map(|_| Entry::default()).collect(),
            by_host: Index::new(n),
            by_mapped: Index::new(n),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Sessions that fit.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// The session of a packet from the IPv6 side.
    #[inline]
    pub fn find6(&self, out: &Ends6Out) -> Option<Found> {
        let key = out.key();
        let hash = self.hasher.hash_one(key);
        self.by_host.candidates(hash).find_map(|id| {
            let row = self.read(id)?;
            (row.out == key).then(|| found(id, &row))
        })
    }

    /// The session of a packet from the IPv4 side.
    #[inline]
    pub fn find4(&self, e: &Ends4) -> Option<Found> {
        let peer_port = if e.proto == protocol::ICMP { 0 } else { e.sport };
        let key = (e.dst, e.dport, e.src, peer_port, e.proto);
        let hash = self.hasher.hash_one(key);
        self.by_mapped.candidates(hash).find_map(|id| {
            let row = self.read(id)?;
            (row.inside() == key).then(|| found(id, &row))
        })
    }

    /// Marks a session as used, unless its packets do not keep it.
    #[inline]
    pub fn touch(&self, found: &Found, now: Instant) {
        if let Some(e) = self.entries.get(found.id as usize).filter(|_| found.kept_by_traffic) {
            let seconds = seconds(now);
            // Only when it changes, so that the line stays shared between workers.
            if e.last.load(Relaxed) != seconds {
                e.last.store(seconds, Relaxed);
            }
        }
    }

    /// Seconds of the clock at the last packet of a session.
    pub(super) fn last_used(&self, id: u32) -> u32 {
        self.entries.get(id as usize).map_or(0, |e| e.last.load(Relaxed))
    }

    #[inline]
    fn read(&self, id: u32) -> Option<Row> {
        let e = self.entries.get(id as usize)?;
        let before = e.seq.load(Acquire);
        let words = [0, 1, 2, 3].map(|i: usize| e.words[i].load(Relaxed));
        fence(Acquire);
        (before % 2 == 0 && before != 0 && e.seq.load(Relaxed) == before).then(|| Row::from_words(words))
    }

    fn write(&self, id: u32, words: [u64; 4]) {
        let Some(e) = self.entries.get(id as usize) else { return };
        let seq = e.seq.load(Relaxed);
        e.seq.store(seq.wrapping_add(1), Relaxed);
        fence(Release);
        for (to, word) in e.words.iter().zip(words) {
            to.store(word, Relaxed);
        }
        // Zero stays the mark of an entry never written.
        let next = seq.wrapping_add(2);
        e.seq.store(if next == 0 { 2 } else { next }, Release);
    }

    /// Enters a session under a free number. False when there is no room for it.
    pub(super) fn insert(&self, id: u32, row: &Row, now: Instant) -> bool {
        let row = &Row { out: row.out.key(), ..*row };
        self.write(id, row.words());
        if let Some(e) = self.entries.get(id as usize) {
            e.last.store(seconds(now), Relaxed);
        }
        let (h, m) = (self.hasher.hash_one(row.out), self.hasher.hash_one(row.inside()));
        if !self.by_host.insert(h, id) {
            return false;
        }
        if !self.by_mapped.insert(m, id) {
            self.by_host.remove(h, id);
            return false;
        }
        true
    }

    /// Gives an entered session other flags.
    pub(super) fn update(&self, id: u32, row: &Row) {
        let row = Row { out: row.out.key(), ..*row };
        self.write(id, row.words());
    }

    /// Takes a session out.
    pub(super) fn remove(&self, id: u32, row: &Row) {
        let row = Row { out: row.out.key(), ..*row };
        self.by_host.remove(self.hasher.hash_one(row.out), id);
        self.by_mapped.remove(self.hasher.hash_one(row.inside()), id);
        self.write(id, [0; 4]);
    }
}

/// The clock in seconds.
pub(super) fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32
}

fn found(id: u32, row: &Row) -> Found {
    Found {
        id,
        host: (row.out.host, row.out.port),
        mapped: (row.addr, row.port),
        open: row.open,
        kept_by_traffic: row.kept_by_traffic,
    }
}
