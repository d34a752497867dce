//! The program's allocator: the system's, but what is aligned to cache lines lies together, in huge pages where the kernel has
//! them.
//!
//! The tables that packets touch are made of pieces that begin at a cache line: chunks of forwarding objects, of ports, of the
//! map that finds tunnels. Each change of a snapshot makes new ones, so that a general allocator spreads them between
//! everything else that the control thread has: with 100,000 tunnels over 600 MB, where every packet of another tunnel
//! needs pages of its own. Here they share a few huge pages, and the processor's translation buffer holds all of them.
//!
//! A piece of up to 64 KiB has a size of its own among multiples of a line; freed ones wait in a list by size, for the next of
//! that size. Nothing is given back to the system: the snapshots of a running router are made of the same sizes again and
//! again. Everything else, and whatever is larger, is the system allocator's. `docs/decisions/0014-allocator.md` has the
//! measurements.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The alignment that tells such pieces from others, and the step between their sizes.
const LINE: usize = 64;

/// The largest of them.
const LARGEST: usize = 64 << 10;

const SIZES: usize = LARGEST / LINE + 1;

/// A huge page.
const HUGE: usize = 2 << 20;

/// Address space that is taken at once. It costs memory only when it is written to, a huge page at a time.
const REGION: usize = 8 * HUGE;

/// See the module. One per process, as `#[global_allocator]`.
#[derive(Debug)]
pub struct LineAlloc(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    /// By number of lines: the first free piece, which begins with the address of the next.
    free: [*mut u8; SIZES],
    /// Where the rest of the last region begins, and its bytes.
    next: *mut u8,
    left: usize,
}

// SAFETY: the pointers lead to memory that nobody else has: free pieces, and the rest of a region.
unsafe impl Send for Lines {}

impl Lines {
    /// A piece of this size; null when the system has no memory.
    fn take(&mut self, size: usize) -> *mut u8 {
        let lines = size.div_ceil(LINE);
        let Some(first) = self.free.get_mut(lines) else { return null_mut() };
        if !first.is_null() {
            let piece = *first;
            // SAFETY: a free piece is ours, is aligned, and begins with what `give` has written there.
            *first = unsafe { piece.cast::<*mut u8>().read() };
            return piece;
        }
        let bytes = lines * LINE;
        if self.left < bytes {
            let region = map_region();
            if region.is_null() {
                return null_mut();
            }
            (self.next, self.left) = (region, REGION);
        }
        let piece = self.next;
        // SAFETY: `left` bytes from `next` on belong to the region, and `bytes` is not more.
        self.next = unsafe { piece.add(bytes) };
        self.left -= bytes;
        piece
    }

    /// Takes a piece back.
    ///
    /// # Safety
    /// `piece` must come from [`Lines::take`] with the same number of lines, and be in use by nobody.
    unsafe fn give(&mut self, piece: *mut u8, size: usize) {
        if let Some(first) = self.free.get_mut(size.div_ceil(LINE)) {
            // SAFETY: the piece is nobody's, has at least a line, and is aligned to one.
            unsafe { piece.cast::<*mut u8>().write(*first) };
            *first = piece;
        }
    }
}

/// Address space that begins at a huge page, for huge pages if there are any; null when there is none.
fn map_region() -> *mut u8 {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let all = unsafe { libc::mmap(null_mut(), REGION + HUGE, prot, flags, -1, 0) };
    if all == libc::MAP_FAILED {
        return null_mut();
    }
    let all = all.cast::<u8>();
    let before = all.align_offset(HUGE).min(HUGE);
    // SAFETY: `before` is at most `HUGE`, so that this, and all of the region behind, lies in the mapping.
    let region = unsafe { all.add(before) };
    // SAFETY: as above; what is cut off lies in front of the region and behind it, in the same mapping, and is unused. Advice
    // that is not taken changes nothing.
    unsafe {
        if before > 0 {
            libc::munmap(all.cast(), before);
        }
        if before < HUGE {
            libc::munmap(region.add(REGION).cast(), HUGE - before);
        }
        libc::madvise(region.cast(), REGION, libc::MADV_HUGEPAGE);
    }
    region
}

/// Whether pieces of this alignment belong here, unless they are too large. Two counters of 32 bytes share a line.
#[inline]
fn is_aligned(align: usize) -> bool {
    align == LINE || align == LINE / 2
}

/// Whether a piece belongs here.
#[inline]
fn is_line(layout: &Layout) -> bool {
    is_aligned(layout.align()) && layout.size() <= LARGEST
}

impl LineAlloc {
    /// Nothing taken yet.
    pub const fn new() -> Self {
        LineAlloc(Mutex::new(Lines { free: [null_mut(); SIZES], next: null_mut(), left: 0 }))
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LineAlloc {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: pieces are at least as large and as aligned as asked for, are given to one caller at a time, and go back where they came
// from, which their layout says. The lock neither allocates nor panics.
unsafe impl GlobalAlloc for LineAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_line(&layout) {
            true => self.lines().take(layout.size()),
            // SAFETY: the caller's promises about `layout` are passed on.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_line(&layout) {
            // SAFETY: the caller's promises about `layout` are passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        let piece = self.lines().take(layout.size());
        if !piece.is_null() {
            // SAFETY: the piece is new, and has at least that size.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        match is_line(&layout) {
            // SAFETY: `ptr` came from `alloc` with this layout, so from `take` with this size, and its owner is done with it.
            true => unsafe { self.lines().give(ptr, layout.size()) },
            // SAFETY: by its layout `ptr` came from the system allocator.
            false => unsafe { System.dealloc(ptr, layout) },
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_aligned(layout.align()) || layout.size().min(new_size) > LARGEST {
            // SAFETY: the piece was the system allocator's and stays so; the promises are the caller's.
            return unsafe { System.realloc(ptr, layout, new_size) };
        }
        if new_size.div_ceil(LINE) == layout.size().div_ceil(LINE) && is_line(&layout) {
            return ptr;
        }
        // SAFETY: the caller promises that `new_size` with this alignment is a layout.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: a layout as GlobalAlloc wants it.
        let to = unsafe { self.alloc(new) };
        if !to.is_null() {
            // SAFETY: both are at least that long, and a new piece overlaps no other.
            unsafe { ptr.copy_to_nonoverlapping(to, layout.size().min(new_size)) };
            // SAFETY: `ptr` came from here with this layout, and its owner has `to` now.
            unsafe { self.dealloc(ptr, layout) };
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[repr(align(64))]
    #[derive(Clone)]
    struct Line([u64; 8]);

    /// Pieces of all sizes around the limit, and of another alignment, kept, freed and made longer or shorter in an order that a
    /// generator says, each full of its own byte: nobody else writes there.
    #[test]
    fn pieces_are_aligned_apart_and_keep_what_is_in_them() {
        let alloc = LineAlloc::new();
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut r = 1u64;
        let mut random = |n: u64| {
            r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (r >> 33) % n
        };
        let check = |p: *mut u8, layout: &Layout, size: usize, byte: u8| {
            assert!(!p.is_null() && (p as usize).is_multiple_of(layout.align()));
            // SAFETY: the piece has this size and was written to.
            assert!(unsafe { std::slice::from_raw_parts(p, size) }.iter().all(|b| *b == byte));
        };
        for i in 0..20_000u32 {
            let byte = i as u8;
            match random(4) {
                0 | 1 => {
                    let size = 1 + random(if i % 8 == 0 { 100_000 } else { 600 }) as usize;
                    let layout =
                        Layout::from_size_align(size, [8, 32, LINE, LINE, LINE, 128][random(6) as usize]).unwrap();
                    let zeroed = random(2) == 0;
                    // SAFETY: the layout has a size.
                    let p = unsafe { if zeroed { alloc.alloc_zeroed(layout) } else { alloc.alloc(layout) } };
                    if zeroed {
                        check(p, &layout, size, 0);
                    }
                    // SAFETY: the piece has this size.
                    unsafe { p.write_bytes(byte, size) };
                    held.push((p, layout, byte));
                }
                2 if !held.is_empty() => {
                    let at = random(held.len() as u64) as usize;
                    let (p, layout, byte) = held.swap_remove(at);
                    check(p, &layout, layout.size(), byte);
                    // SAFETY: it came from here, with this layout.
                    unsafe { alloc.dealloc(p, layout) };
                }
                _ if !held.is_empty() => {
                    let at = random(held.len() as u64) as usize;
                    let (p, layout, old) = held[at];
                    let size = 1 + random(90_000) as usize;
                    // SAFETY: it came from here, with this layout, and the new size is one.
                    let p = unsafe { alloc.realloc(p, layout, size) };
                    check(p, &layout, size.min(layout.size()), old);
                    // SAFETY: the piece has this size.
                    unsafe { p.write_bytes(byte, size) };
                    held[at] = (p, Layout::from_size_align(size, layout.align()).unwrap(), byte);
                }
                _ => {}
            }
        }
        assert!(held.len() > 1000);
        for (p, layout, byte) in held {
            check(p, &layout, layout.size(), byte);
            // SAFETY: it came from here, with this layout.
            unsafe { alloc.dealloc(p, layout) };
        }
    }

    /// What is freed is used again, and pieces made one after the other lie side by side.
    #[test]
    fn pieces_lie_together_and_are_used_again() {
        let alloc = LineAlloc::new();
        let layout = Layout::from_size_align(4160, LINE).unwrap();
        // SAFETY: the layout has a size.
        let pieces: Vec<_> = (0..100).map(|_| unsafe { alloc.alloc(layout) } as usize).collect();
        assert!(pieces.windows(2).all(|w| w[1] == w[0] + 4160));
        // SAFETY: they came from here, with this layout.
        pieces.iter().for_each(|p| unsafe { alloc.dealloc(*p as *mut u8, layout) });
        // SAFETY: the layout has a size.
        let mut again: Vec<_> = (0..100).map(|_| unsafe { alloc.alloc(layout) } as usize).collect();
        again.sort_unstable();
        assert_eq!(again, pieces);
    }

    #[test]
    fn threads_share_it() {
        static ALLOC: LineAlloc = LineAlloc::new();
        let layout = Layout::new::<Line>();
        std::thread::scope(|s| {
            for t in 0..4u64 {
                s.spawn(move || {
                    for round in 0..1000 {
                        let all: Vec<*mut Line> = (0..10)
                            .map(|i| {
                                // SAFETY: the layout has a size.
                                let p = unsafe { ALLOC.alloc(layout) }.cast::<Line>();
                                // SAFETY: the piece is aligned and large enough.
                                unsafe { p.write(Line([t << 32 | round << 8 | i; 8])) };
                                p
                            })
                            .collect();
                        for (i, p) in all.into_iter().enumerate() {
                            // SAFETY: written above, freed once.
                            assert!(unsafe { &*p }.0.iter().all(|w| *w == t << 32 | round << 8 | i as u64));
                            // SAFETY: as above.
                            unsafe { ALLOC.dealloc(p.cast(), layout) };
                        }
                    }
                });
            }
        });
        assert_eq!(Arc::new(Line([7; 8])).0[3], 7);
    }
}
