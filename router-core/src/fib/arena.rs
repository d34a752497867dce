//! Memory of the tries: index arenas that grow without moving, shared by all tables.
//!
//! A node is a run of `2^BITS` atomic words in a chunk that is allocated once and stays. Readers only hold indexes, so
//! nothing here needs `unsafe`. Index 0 means "none".

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::sync::{Arc, OnceLock};

/// No room for another node: the limit of the index space is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding table is full")]
pub struct FibFull;

/// Words of a chunk: 256 KiB, so that an empty router stays small and a full table needs few chunks.
const CHUNK_WORDS_LOG2: u32 = 15;

/// Nodes of `2^BITS` words each.
#[derive(Debug)]
pub(super) struct Arena<const BITS: u32> {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl<const BITS: u32> Arena<BITS> {
    const NODES_LOG2: u32 = CHUNK_WORDS_LOG2 - BITS;

    fn new(max_chunks: usize) -> Self {
        Arena { chunks: (0..max_chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The number of nodes that the index space holds.
    fn limit(&self) -> usize {
        self.chunks.len() << Self::NODES_LOG2
    }

    /// All words of a node; empty for an index that was never allocated.
    #[inline]
    pub(super) fn node(&self, index: u32) -> &[AtomicU64] {
        let Some(chunk) = self.chunks.get((index >> Self::NODES_LOG2) as usize).and_then(OnceLock::get) else {
            return &[];
        };
        let start = ((index & ((1 << Self::NODES_LOG2) - 1)) as usize) << BITS;
        chunk.get(start..start + (1 << BITS)).unwrap_or(&[])
    }

    /// One word of a node.
    #[inline]
    pub(super) fn load(&self, index: u32, slot: usize) -> u64 {
        self.node(index).get(slot).map_or(0, |w| w.load(Acquire))
    }

    /// Makes sure that the chunk of `index` exists. False beyond the limit.
    fn reserve(&self, index: u32) -> bool {
        match self.chunks.get((index >> Self::NODES_LOG2) as usize) {
            Some(cell) => {
                cell.get_or_init(|| (0..1usize << CHUNK_WORDS_LOG2).map(|_| AtomicU64::new(0)).collect());
                true
            }
            None => false,
        }
    }
}

/// What readers share.
#[derive(Debug)]
pub(super) struct Arenas {
    /// 256 slots each: the first two levels.
    pub(super) pages: Arena<8>,
    /// 16 slots each: all deeper levels.
    pub(super) nodes: Arena<4>,
}

/// The writer's view of one arena: what is free, what waits in quarantine.
#[derive(Debug)]
pub(super) struct Pool {
    next: u32,
    free: Vec<u32>,
    retired: Vec<u32>,
    quarantine: VecDeque<(u64, Vec<u32>)>,
}

impl Pool {
    fn new() -> Self {
        Pool { next: 1, free: Vec::new(), retired: Vec::new(), quarantine: VecDeque::new() }
    }

    /// An all-zero node. Nodes are retired empty, so a reused one needs no clearing.
    pub(super) fn take<const BITS: u32>(&mut self, arena: &Arena<BITS>) -> Result<u32, FibFull> {
        if let Some(i) = self.free.pop() {
            return Ok(i);
        }
        if !arena.reserve(self.next) {
            return Err(FibFull);
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// An all-zero node that was just unlinked.
    pub(super) fn retire(&mut self, index: u32) {
        self.retired.push(index);
    }

    fn seal(&mut self, seq: u64) {
        if !self.retired.is_empty() {
            self.quarantine.push_back((seq, std::mem::take(&mut self.retired)));
        }
    }

    fn release(&mut self, oldest_live: u64) {
        while self.quarantine.front().is_some_and(|(seq, _)| *seq < oldest_live) {
            if let Some((_, mut nodes)) = self.quarantine.pop_front() {
                self.free.append(&mut nodes);
            }
        }
    }

    fn waiting(&self) -> usize {
        self.quarantine.iter().map(|(_, v)| v.len()).sum::<usize>() + self.retired.len()
    }
}

/// The writer's side of the memory of all tables. Whoever holds it may change them.
#[derive(Debug)]
pub struct FibMemory {
    arenas: Arc<Arenas>,
    pub(super) pages: Pool,
    pub(super) nodes: Pool,
}

impl Default for FibMemory {
    fn default() -> Self {
        FibMemory::new()
    }
}

impl FibMemory {
    /// Empty memory: grows in chunks of 256 KiB up to 4 GiB of nodes.
    pub fn new() -> Self {
        let arenas = Arenas { pages: Arena::new(1 << 12), nodes: Arena::new(1 << 14) };
        FibMemory { arenas: Arc::new(arenas), pages: Pool::new(), nodes: Pool::new() }
    }

    pub(super) fn arenas(&self) -> &Arc<Arenas> {
        &self.arenas
    }

    /// Nodes retired since the last call become reusable once no snapshot numbered `seq` or lower is held.
    pub fn seal(&mut self, seq: u64) {
        self.pages.seal(seq);
        self.nodes.seal(seq);
    }

    /// Frees what was sealed under numbers below the oldest snapshot still held.
    pub fn release(&mut self, oldest_live: u64) {
        self.pages.release(oldest_live);
        self.nodes.release(oldest_live);
    }

    /// Whether so little room is left that routes must be refused: one IPv6 prefix may take 28 nodes, and commits lag.
    pub fn nearly_full(&self) -> bool {
        const RESERVE: usize = 1 << 22;
        let free = |pool: &Pool, limit: usize| limit.saturating_sub(pool.next as usize) + pool.free.len();
        free(&self.nodes, self.arenas.nodes.limit()) < RESERVE || free(&self.pages, self.arenas.pages.limit()) < 1 << 12
    }

    /// Nodes that wait for readers.
    pub fn waiting(&self) -> usize {
        self.pages.waiting() + self.nodes.waiting()
    }

    /// Bytes of all nodes ever allocated (in use, free or waiting).
    pub fn bytes(&self) -> usize {
        (self.pages.next as usize - 1) * 256 * 8 + (self.nodes.next as usize - 1) * 16 * 8
    }
}
