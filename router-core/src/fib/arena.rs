//! Memory of the tries: cache lines in chunks that never move, shared by all tables.
//!
//! A node is a run of consecutive lines of one chunk. Readers only hold numbers, so nothing here needs `unsafe`.
//! The first line belongs to nobody and stays zero: it reads as a node without routes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, OnceLock};

/// No room for another node, or an object number beyond what an entry holds (2^31 - 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding table is full")]
pub struct FibFull;

/// Words of a line: one cache line of 64 bytes.
const LINE_WORDS: usize = 8;
/// Bytes of a line.
const LINE: usize = LINE_WORDS * 8;

/// Nodes are named by units of 16 bytes, to which any allocation is aligned; the allocator sees to it that they begin at
/// a cache line.
const UNIT_WORDS: usize = 2;
const LINE_UNITS: usize = LINE_WORDS / UNIT_WORDS;

/// Units of a chunk: 1 MiB, so that an empty router stays small and a full table needs few chunks.
const CHUNK_LOG2: u32 = 16;
const CHUNK_UNITS: usize = 1 << CHUNK_LOG2;
const CHUNK_WORDS: usize = CHUNK_UNITS * UNIT_WORDS;
/// 8 GiB. Routes are refused at half of it; deletes, which copy nodes too, have the rest.
const CHUNKS: usize = 1 << 13;
const SOFT_LIMIT: usize = CHUNK_UNITS * CHUNKS / 2;

/// Lines of the longest node: 5 words of head and 256 values of 32 bits.
const MAX_NODE: usize = 17;

/// The place of a node's first word in its chunk.
#[inline(always)]
pub(super) fn first_word(node: u32) -> usize {
    (node as usize & (CHUNK_UNITS - 1)) * UNIT_WORDS
}

/// What readers share.
#[derive(Debug)]
pub(super) struct Lines {
    chunks: Box<[OnceLock<Box<[AtomicU64; CHUNK_WORDS]>>; CHUNKS]>,
    /// How many chunks there are. Stored before any entry that leads to the newest.
    made: AtomicUsize,
    /// Bytes of the tables' direct roots, for accounting.
    pub(super) roots: AtomicUsize,
}

/// Where a node's words are.
pub(super) trait Words {
    /// The chunk of a node; None for one that was never allocated.
    fn chunk(&self, node: u32) -> Option<Chunk<'_>>;
}

impl Words for Lines {
    #[inline(always)]
    fn chunk(&self, node: u32) -> Option<Chunk<'_>> {
        self.chunks[(node >> CHUNK_LOG2) as usize & (CHUNKS - 1)].get().map(|b| Chunk(b))
    }
}

/// The chunks of memory that is not large, looked up once for a batch.
#[derive(Debug)]
pub(super) struct Near<'a> {
    chunks: [Chunk<'a>; NEAR],
    made: usize,
    lines: &'a Lines,
}

/// 16 MiB: several full tables.
const NEAR: usize = 16;

impl Lines {
    /// None when there are no nodes, or too many of them.
    #[inline]
    pub(super) fn near(&self) -> Option<Near<'_>> {
        let made = self.made.load(Acquire);
        let first = self.chunk(0).filter(|_| made <= NEAR)?;
        let mut chunks = [first; NEAR];
        for (i, to) in chunks.iter_mut().enumerate().take(made).skip(1) {
            *to = self.chunk((i as u32) << CHUNK_LOG2)?;
        }
        Some(Near { chunks, made, lines: self })
    }
}

impl Near<'_> {
    /// Whether entries read until now cannot have led elsewhere.
    #[inline]
    pub(super) fn still_all(&self) -> bool {
        self.lines.made.load(Acquire) == self.made
    }
}

impl Words for Near<'_> {
    #[inline(always)]
    fn chunk(&self, node: u32) -> Option<Chunk<'_>> {
        Some(self.chunks[(node >> CHUNK_LOG2) as usize & (NEAR - 1)])
    }
}

/// The words of a chunk. Every single one is read and written whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a>(&'a [AtomicU64; CHUNK_WORDS]);

impl<'a> Chunk<'a> {
    /// A word by its place in the chunk, modulo the size: so no check is left in the compiled code.
    #[inline(always)]
    pub(super) fn word(self, i: usize) -> &'a AtomicU64 {
        &self.0[i & (CHUNK_WORDS - 1)]
    }
}

/// A boxed array made in place, not on the stack.
pub(super) fn boxed<T, const N: usize>(make: impl FnMut() -> T) -> Box<[T; N]> {
    let v: Box<[T]> = std::iter::repeat_with(make).take(N).collect();
    v.try_into().unwrap_or_else(|_| unreachable!("N elements were collected"))
}

/// Which prefixes end in a node: bit `2^l + p` for the prefix of `l` bits (1 to 8) with the value `p`. Only the writer
/// looks at it, to find out who owns a slot.
pub(super) type Present = [u64; 8];

/// A node's lines.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    lines: u8,
}

/// The writer's side of the memory of all tables. Whoever holds it may change them.
#[derive(Debug)]
pub struct FibMemory {
    lines: Arc<Lines>,
    /// The first unit that was never used.
    next: usize,
    /// Lines below it.
    lines_made: usize,
    /// Free runs by length.
    free: [Vec<u32>; MAX_NODE + 1],
    retired: Vec<Run>,
    quarantine: VecDeque<(u64, Vec<Run>)>,
    present: Vec<Present>,
    free_present: Vec<u32>,
}

impl Default for FibMemory {
    fn default() -> Self {
        FibMemory::new()
    }
}

impl FibMemory {
    /// Empty memory: grows in chunks of 1 MiB up to 4 GiB of nodes.
    pub fn new() -> Self {
        let lines = Lines { chunks: boxed(OnceLock::new), made: AtomicUsize::new(0), roots: AtomicUsize::new(0) };
        FibMemory {
            lines: Arc::new(lines),
            next: 0,
            lines_made: 0,
            free: Default::default(),
            retired: Vec::new(),
            quarantine: VecDeque::new(),
            present: Vec::new(),
            free_present: Vec::new(),
        }
    }

    pub(super) fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// Consecutive lines with any content, by their first unit.
    pub(super) fn take(&mut self, lines: usize) -> Result<u32, FibFull> {
        if let Some(first) = self.free.get_mut(lines).and_then(Vec::pop) {
            return Ok(first);
        }
        // A run does not cross the end of a chunk; what is left there becomes a shorter run.
        let room = (CHUNK_UNITS - self.next % CHUNK_UNITS) / LINE_UNITS;
        if room < lines {
            if let Some(free) = self.free.get_mut(room).filter(|_| room > 0) {
                free.push(self.next as u32);
                self.lines_made += room;
            }
            self.next = self.next.next_multiple_of(CHUNK_UNITS);
        }
        let cell = self.lines.chunks.get(self.next >> CHUNK_LOG2).ok_or(FibFull)?;
        let chunk = cell.get_or_init(|| boxed(|| AtomicU64::new(0)));
        self.lines.made.store((self.next >> CHUNK_LOG2) + 1, Release);
        if self.next.is_multiple_of(CHUNK_UNITS) {
            let misaligned = chunk.as_ptr() as usize % LINE;
            self.next += (LINE - misaligned) % LINE / (8 * UNIT_WORDS);
        }
        // The first line of all is the empty node, wherever the allocation begins.
        if self.next < LINE_UNITS {
            self.next += LINE_UNITS;
        }
        let first = self.next as u32;
        self.next += lines * LINE_UNITS;
        self.lines_made += lines;
        Ok(first)
    }

    /// Lines that no entry leads to any more.
    pub(super) fn retire(&mut self, first: u32, lines: usize) {
        self.retired.push(Run { first, lines: lines as u8 });
    }

    /// An empty record of prefixes.
    pub(super) fn take_present(&mut self) -> u32 {
        match self.free_present.pop() {
            Some(i) => i,
            None => {
                self.present.push([0; 8]);
                self.present.len() as u32 - 1
            }
        }
    }

    /// Gives back a record, which must be empty. Readers never look at records: no quarantine.
    pub(super) fn free_present(&mut self, record: u32) {
        self.free_present.push(record);
    }

    pub(super) fn present(&self, record: u32) -> Present {
        self.present.get(record as usize).copied().unwrap_or_default()
    }

    pub(super) fn set_present(&mut self, record: u32, to: Present) {
        if let Some(p) = self.present.get_mut(record as usize) {
            *p = to;
        }
    }

    /// Nodes retired since the last call become reusable once no snapshot numbered `seq` or lower is held.
    pub fn seal(&mut self, seq: u64) {
        if !self.retired.is_empty() {
            self.quarantine.push_back((seq, std::mem::take(&mut self.retired)));
        }
    }

    /// Frees what was sealed under numbers below the oldest snapshot still held.
    pub fn release(&mut self, oldest_live: u64) {
        while self.quarantine.front().is_some_and(|(seq, _)| *seq < oldest_live) {
            for run in self.quarantine.pop_front().into_iter().flat_map(|(_, runs)| runs) {
                if let Some(free) = self.free.get_mut(usize::from(run.lines)) {
                    free.push(run.first);
                }
            }
        }
    }

    fn free_lines(&self) -> usize {
        self.free.iter().enumerate().map(|(lines, runs)| lines * runs.len()).sum()
    }

    /// Whether so little room is left that routes must be refused.
    pub fn nearly_full(&self) -> bool {
        self.next > SOFT_LIMIT && self.next - self.free_lines() * LINE_UNITS > SOFT_LIMIT
    }

    /// Nodes that wait for readers.
    pub fn waiting(&self) -> usize {
        self.quarantine.iter().map(|(_, v)| v.len()).sum::<usize>() + self.retired.len()
    }

    /// Bytes of all nodes ever allocated (in use, free or waiting), of the roots, and of the writer's records.
    pub fn bytes(&self) -> usize {
        self.lines_made * LINE + self.lines.roots.load(Relaxed) + self.present.len() * size_of::<Present>()
    }

    /// Nodes and lines in use, for tests and benches of the memory.
    pub fn used(&self) -> (usize, usize) {
        let waiting = self.quarantine.iter().flat_map(|(_, v)| v).chain(&self.retired);
        let waiting: usize = waiting.map(|r| usize::from(r.lines)).sum();
        (self.present.len() - self.free_present.len(), self.lines_made - self.free_lines() - waiting)
    }
}
