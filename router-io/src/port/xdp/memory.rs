//! Umems: one per worker for several ports, so that frames move between its ports without a copy.

use crate::sys::xsk::{Umem, UmemConfig};
use router_core::frame::{Frame, Home};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Entries of a queue's receive and fill ring, and of its transmit and completion ring.
pub const RING: u32 = 1024;
/// Frames per queue: both rings full, and a batch under way.
pub const PER_QUEUE: usize = 2 * RING as usize + crate::port::BATCH;
/// Queues that share a umem. More take another one; frames between ports of different umems are copied.
const QUEUES: usize = 4;

/// A umem and its frames that no queue has.
#[derive(Debug)]
pub struct Shared {
    /// The memory.
    pub umem: Umem,
    worker: usize,
    chunk: usize,
    spare: Mutex<Vec<Frame>>,
}

impl Shared {
    /// Frames for one queue, if so many are left.
    fn allot(&self) -> Option<Vec<Frame>> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = spare.len().checked_sub(PER_QUEUE)?;
        Some(spare.split_off(rest))
    }

    /// Takes back what was allotted.
    pub fn give_back(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.umem.chunks().saturating_sub(spare.len());
        spare.extend(frames.into_iter().take(room).map(|mut f| {
            f.reset();
            f
        }));
    }
}

/// The umems in use.
#[derive(Debug, Default)]
pub struct Memories(Vec<Weak<Shared>>);

impl Memories {
    /// A umem of `chunk` bytes per frame for `worker`, and the frames of one queue; one that is in use where it has some
    /// left.
    pub fn allot(&mut self, worker: usize, chunk: usize) -> io::Result<(Arc<Shared>, Vec<Frame>)> {
        self.0.retain(|s| s.strong_count() > 0);
        let live: Vec<_> = self.0.iter().filter_map(Weak::upgrade).filter(|s| s.worker == worker).collect();
        for shared in live.iter().filter(|s| s.chunk == chunk) {
            if let Some(frames) = shared.allot() {
                return Ok((Arc::clone(shared), frames));
            }
        }
        let taken = |home: Home| live.iter().any(|s| s.umem.home() == home);
        let home = (1..=Home::MAX).find(|h| !taken(*h)).ok_or(io::ErrorKind::OutOfMemory)?;
        let (umem, mut frames) = Umem::new(UmemConfig { chunk, chunks: QUEUES * PER_QUEUE, home })?;
        let rest = frames.split_off(PER_QUEUE);
        let shared = Arc::new(Shared { umem, worker, chunk, spare: Mutex::new(rest) });
        self.0.push(Arc::downgrade(&shared));
        Ok((shared, frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_until_it_is_used_up_and_give_back() {
        let mut memories = Memories::default();
        let mut held: Vec<_> = (0..QUEUES + 1).map(|_| memories.allot(0, 2048).unwrap()).collect();
        let homes: Vec<_> = held.iter().map(|(s, _)| s.umem.home()).collect();
        assert_eq!(homes, [1, 1, 1, 1, 2]);
        assert_eq!(memories.allot(1, 2048).unwrap().0.umem.home(), 1, "another worker's");
        assert_eq!(memories.allot(0, 4096).unwrap().0.umem.home(), 3, "another size, and then gone");
        let (shared, frames) = held.remove(0);
        shared.give_back(frames);
        drop(shared);
        let again = memories.allot(0, 2048).unwrap();
        assert_eq!((again.0.umem.home(), again.1.len()), (1, PER_QUEUE));
        drop(held);
        drop(again);
        assert_eq!(memories.allot(0, 4096).unwrap().0.umem.home(), 1);
    }
}
