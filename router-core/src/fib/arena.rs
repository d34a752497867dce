//! Memory of the tries: cache lines in chunks that never move, shared by all tables.
//!
//! A node is a run of consecutive lines of one chunk. Readers only hold line numbers, so nothing here needs `unsafe`.
//! Line 0 belongs to nobody and stays zero: it reads as a node without routes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// No room for another node, or an object number beyond what an entry holds (2^31 - 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding table is full")]
pub struct FibFull;

/// One cache line. Every single word is read and written whole.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [AtomicU64; 8]);

/// Bytes of a line.
pub(super) const LINE: usize = std::mem::size_of::<Line>();

/// Lines of a chunk: 1 MiB, so that an empty router stays small and a full table needs few chunks.
const CHUNK_LOG2: u32 = 14;
pub(super) const CHUNK: usize = 1 << CHUNK_LOG2;
/// 8 GiB of lines. Routes are refused at half of it; deletes, which copy nodes too, have the rest.
const CHUNKS: usize = 1 << 13;
const SOFT_LIMIT: usize = CHUNK * CHUNKS / 2;

/// The longest node: 5 words of head and 256 values of 32 bits.
const MAX_NODE: usize = 17;

/// What readers share.
#[derive(Debug)]
pub(super) struct Lines {
    chunks: Box<[OnceLock<Box<[Line; CHUNK]>>; CHUNKS]>,
    /// Bytes of the tables' direct roots, for accounting.
    pub(super) roots: AtomicUsize,
}

impl Lines {
    /// The chunk of a line; None for a line that was never allocated.
    #[inline(always)]
    pub(super) fn chunk(&self, line: u32) -> Option<&[Line; CHUNK]> {
        self.chunks[(line >> CHUNK_LOG2) as usize & (CHUNKS - 1)].get().map(|b| &**b)
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
    /// The first line that was never used.
    next: usize,
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
        let lines = Lines { chunks: boxed(OnceLock::new), roots: AtomicUsize::new(0) };
        FibMemory {
            lines: Arc::new(lines),
            next: 1,
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

    /// Consecutive lines with any content.
    pub(super) fn take(&mut self, lines: usize) -> Result<u32, FibFull> {
        if let Some(first) = self.free.get_mut(lines).and_then(Vec::pop) {
            return Ok(first);
        }
        // A run does not cross the end of a chunk; what is left there becomes a shorter run.
        let room = CHUNK - self.next % CHUNK;
        if room < lines {
            if let Some(free) = self.free.get_mut(room) {
                free.push(self.next as u32);
            }
            self.next += room;
        }
        let cell = self.lines.chunks.get(self.next >> CHUNK_LOG2).ok_or(FibFull)?;
        cell.get_or_init(|| boxed(Line::default));
        let first = self.next as u32;
        self.next += lines;
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

    /// Whether so little room is left that routes must be refused.
    pub fn nearly_full(&self) -> bool {
        let free: usize = self.free.iter().enumerate().map(|(lines, runs)| lines * runs.len()).sum();
        self.next.saturating_sub(free) > SOFT_LIMIT || self.next > CHUNK * CHUNKS / 4 * 3
    }

    /// Nodes that wait for readers.
    pub fn waiting(&self) -> usize {
        self.quarantine.iter().map(|(_, v)| v.len()).sum::<usize>() + self.retired.len()
    }

    /// Bytes of all nodes ever allocated (in use, free or waiting), of the roots, and of the writer's records.
    pub fn bytes(&self) -> usize {
        (self.next - 1) * LINE + self.lines.roots.load(Relaxed) + self.present.len() * size_of::<Present>()
    }

    /// Nodes and lines in use, for tests and benches of the memory.
    pub fn used(&self) -> (usize, usize) {
        let free: usize = self.free.iter().enumerate().map(|(lines, runs)| lines * runs.len()).sum();
        let waiting = self.quarantine.iter().flat_map(|(_, v)| v).chain(&self.retired);
        let waiting: usize = waiting.map(|r| usize::from(r.lines)).sum();
        (self.present.len() - self.free_present.len(), self.next - 1 - free - waiting)
    }
}
