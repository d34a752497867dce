//! Memory of the tries: words in segments that never move, handed out in cache lines, shared by all tables.
//!
//! Readers only hold numbers of words, so nothing here needs `unsafe`. The first segment holds any usual table; its
//! bounds check is at the same time what tells a word of it from one of the others.
//!
//! Its beginning is set aside for *constant nodes*: node `v` answers `v` whatever the address, so that a slot of a direct
//! root which holds an answer can be walked through like one that holds a node. Word 0 begins the one that knows no route.

use super::node::HEAD;
use super::record::Records;
use super::runs::Runs;
use super::sync::Ordering::{self, Acquire, Relaxed};
use super::sync::{AtomicU32, AtomicU64, AtomicUsize, CONSTANT_NODES, SEGMENT, SEGMENT_LOG2, SEGMENTS, segment};
use foldhash::fast::FixedState;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// No room for another node, or an object number beyond what an entry holds (2^31 - 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding table is full")]
pub struct FibFull;

/// Words of a line: one cache line of 64 bytes.
pub(super) const LINE_WORDS: usize = 8;
const LINE: usize = LINE_WORDS * 8;

/// Words of the constant nodes.
const CONSTANTS: usize = CONSTANT_NODES as usize * LINE_WORDS;

/// Routes are refused when half of all segments is used; deletes, which copy nodes too, have the rest.
const SOFT_LIMIT: usize = SEGMENT * SEGMENTS / 2;

/// Lines of the longest node: five words of bitmap, 64 of values, 128 of entries.
const MAX_NODE: usize = 25;

/// What readers share.
#[derive(Debug)]
pub(super) struct Lines {
    first: Box<[AtomicU64; SEGMENT]>,
    more: Box<[OnceLock<Box<[AtomicU64; SEGMENT]>>; SEGMENTS]>,
    /// Bytes of the tables' direct roots, for accounting.
    pub(super) roots: AtomicUsize,
    /// Tries made.
    pub(super) tries: AtomicU32,
}

impl Lines {
    /// A word by its number.
    #[inline(always)]
    pub(super) fn word(&self, i: usize) -> &AtomicU64 {
        self.first.get(i).unwrap_or_else(|| self.far(i))
    }

    #[cold]
    #[inline(never)]
    fn far(&self, i: usize) -> &AtomicU64 {
        let segment = self.more.get(i >> SEGMENT_LOG2).and_then(OnceLock::get).unwrap_or(&self.first);
        &segment[i & (SEGMENT - 1)]
    }

    /// For reading.
    #[inline(always)]
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { first: &self.first, lines: self }
    }
}

/// Words for reading, with their address in a register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    first: &'a [AtomicU64; SEGMENT],
    lines: &'a Lines,
}

impl Reader<'_> {
    /// The content of a word.
    #[inline(always)]
    pub(super) fn load(self, i: usize, order: Ordering) -> u64 {
        match self.first.get(i) {
            Some(word) => word.load(order),
            None => self.far(i),
        }
    }

    #[cold]
    #[inline(never)]
    fn far(self, i: usize) -> u64 {
        self.lines.far(i).load(Acquire)
    }
}

/// Lines that no entry leads to any more.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    lines: u32,
}

/// The writer's side of the memory of all tables. Whoever holds it may change them.
#[derive(Debug)]
pub struct FibMemory {
    lines: Arc<Lines>,
    /// The first word that was never used.
    next: usize,
    /// Lines below it, those of constant nodes in use among them.
    lines_made: usize,
    /// Constant nodes made: all up to the largest that was asked for.
    constants: u32,
    /// Free runs by length.
    free: [Vec<u32>; MAX_NODE + 1],
    free_lines: usize,
    /// What waits for readers, oldest first.
    retired: VecDeque<Run>,
    /// How many of them belong to each snapshot. Those above the sum are not sealed yet.
    sealed: VecDeque<(u64, usize)>,
    sealed_runs: usize,
    pub(super) records: Records,
    /// Room to take nodes apart in: two KiB each, taken out and put back, never moved.
    #[allow(clippy::vec_box)]
    scratch: Vec<Box<Runs>>,
    /// The records of nodes that direct roots hide, by table and slot.
    pub(super) hidden: HashMap<u64, u32, FixedState>,
}

impl Default for FibMemory {
    fn default() -> Self {
        FibMemory::new()
    }
}

impl FibMemory {
    /// Empty memory. It reserves address space for 64 MiB, of which only what is used takes memory, and grows to 2 GiB.
    ///
    /// # Panics
    /// When the system refuses the address space.
    pub fn new() -> Self {
        let lines = Lines {
            first: segment().expect("64 MiB of address space"),
            more: Box::new(std::array::from_fn(|_| OnceLock::new())),
            roots: AtomicUsize::new(0),
            tries: AtomicU32::new(0),
        };
        let aligned = aligned(&lines.first);
        FibMemory {
            lines: Arc::new(lines),
            next: CONSTANTS + aligned,
            lines_made: 1,
            constants: 1,
            free: Default::default(),
            free_lines: 0,
            retired: VecDeque::new(),
            sealed: VecDeque::new(),
            sealed_runs: 0,
            records: Records::default(),
            scratch: Vec::new(),
            hidden: HashMap::default(),
        }
    }

    pub(super) fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// Room to take a node apart in; give it back.
    pub(super) fn borrow_runs(&mut self) -> Box<Runs> {
        self.scratch.pop().unwrap_or_default()
    }

    pub(super) fn return_runs(&mut self, runs: Box<Runs>) {
        self.scratch.push(runs);
    }

    /// The node that answers `value` (below [`CONSTANT_NODES`]) to everything.
    pub(super) fn constant(&mut self, value: u32) -> u32 {
        let node = value.min(CONSTANT_NODES - 1) * LINE_WORDS as u32;
        self.lines.word(node as usize + HEAD).store(u64::from(value), Relaxed);
        if value >= self.constants {
            self.lines_made += (value + 1 - self.constants) as usize;
            self.constants = value + 1;
        }
        node
    }

    /// Consecutive lines with any content, by their first word.
    pub(super) fn take(&mut self, lines: usize) -> Result<u32, FibFull> {
        if let Some(first) = self.free.get_mut(lines).and_then(Vec::pop) {
            self.free_lines -= lines;
            return Ok(first);
        }
        // A run does not cross the end of a segment; what is left there becomes shorter runs.
        let room = (SEGMENT - self.next % SEGMENT) / LINE_WORDS;
        if room < lines {
            self.lines_made += room;
            self.free_lines += room;
            if let Some(free) = self.free.get_mut(1) {
                free.extend((0..room).map(|i| (self.next + i * LINE_WORDS) as u32));
            }
            self.next = self.next.next_multiple_of(SEGMENT);
        }
        if self.next.is_multiple_of(SEGMENT) {
            let cell = self.lines.more.get(self.next >> SEGMENT_LOG2).ok_or(FibFull)?;
            if cell.get().is_none() {
                _ = cell.set(segment().ok_or(FibFull)?);
            }
            self.next += cell.get().map_or(0, |s| aligned(s));
        }
        let first = self.next as u32;
        self.next += lines * LINE_WORDS;
        self.lines_made += lines;
        Ok(first)
    }

    /// Lines that no entry leads to any more.
    pub(super) fn retire(&mut self, first: u32, lines: usize) {
        self.retired.push_back(Run { first, lines: lines as u32 });
    }

    /// Nodes retired since the last call become reusable once no snapshot numbered `seq` or lower is held.
    pub fn seal(&mut self, seq: u64) {
        let more = self.retired.len() - self.sealed_runs;
        if more > 0 {
            match self.sealed.back_mut() {
                Some((last, n)) if *last == seq => *n += more,
                _ => self.sealed.push_back((seq, more)),
            }
            self.sealed_runs += more;
        }
    }

    /// Frees what was sealed under numbers below the oldest snapshot still held.
    pub fn release(&mut self, oldest_live: u64) {
        while let Some((_, n)) = self.sealed.front().copied().filter(|(seq, _)| *seq < oldest_live) {
            self.sealed.pop_front();
            self.sealed_runs -= n;
            for run in self.retired.drain(..n) {
                if let Some(free) = self.free.get_mut(run.lines as usize) {
                    free.push(run.first);
                    self.free_lines += run.lines as usize;
                }
            }
        }
    }

    /// Whether so little room is left that routes must be refused.
    pub fn nearly_full(&self) -> bool {
        self.next > SOFT_LIMIT && self.next - self.free_lines * LINE_WORDS > SOFT_LIMIT
    }

    /// Nodes that wait for readers.
    pub fn waiting(&self) -> usize {
        self.retired.len()
    }

    /// Bytes of all nodes ever allocated (in use, free or waiting), of the roots, and of the writer's records.
    pub fn bytes(&self) -> usize {
        self.lines_made * LINE + self.lines.roots.load(Relaxed) + self.records.bytes() + self.hidden.len() * 16
    }

    /// Bytes that lookups use: nodes in use and roots.
    pub fn lookup_bytes(&self) -> usize {
        (self.used().1 + self.constants as usize) * LINE + self.lines.roots.load(Relaxed)
    }

    /// Nodes that prefixes end in, and lines in use, for tests and benches of the memory.
    pub fn used(&self) -> (usize, usize) {
        let waiting: usize = self.retired.iter().map(|r| r.lines as usize).sum();
        (self.records.used(), self.lines_made - self.constants as usize - self.free_lines - waiting)
    }
}

/// Words from the beginning of a segment to the first cache line within.
fn aligned(segment: &[AtomicU64; SEGMENT]) -> usize {
    (LINE - segment.as_ptr() as usize % LINE) % LINE / 8
}
