//! An allocator that counts, for the benches that prove that the fast path does not allocate.
//!
//! ```
//! use router_io::counting_alloc::CountingAlloc;
//!
//! #[global_allocator]
//! static ALLOC: CountingAlloc = CountingAlloc::new();
//!
//! let before = ALLOC.allocations();
//! let boxed = std::hint::black_box(Box::new(1));
//! assert!(ALLOC.allocations() > before);
//! # drop(boxed);
//! ```

use crate::line_alloc::LineAlloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The program's allocator ([`LineAlloc`]) with a count of calls and of bytes in use.
#[derive(Debug, Default)]
pub struct CountingAlloc {
    inner: LineAlloc,
    allocations: AtomicU64,
    frees: AtomicU64,
    in_use: AtomicU64,
}

impl CountingAlloc {
    /// All counts zero.
    pub const fn new() -> Self {
        CountingAlloc {
            inner: LineAlloc::new(),
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            in_use: AtomicU64::new(0),
        }
    }

    /// Allocations and reallocations so far.
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Relaxed)
    }

    /// Frees so far.
    pub fn frees(&self) -> u64 {
        self.frees.load(Relaxed)
    }

    /// Bytes allocated and not freed.
    pub fn bytes_in_use(&self) -> u64 {
        self.in_use.load(Relaxed)
    }
}

// SAFETY: every call is handed on unchanged to the inner allocator, which fulfils the contract; counting touches
// nothing but atomics and never allocates.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Relaxed);
        self.in_use.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { self.inner.alloc(layout) }
    }

    // Not the default, which would write the zeros: the system has pages that are zero already.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Relaxed);
        self.in_use.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        self.frees.fetch_add(1, Relaxed);
        self.in_use.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: `ptr` came from `alloc` above, that is from the inner allocator, with this layout.
        unsafe { self.inner.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.allocations.fetch_add(1, Relaxed);
        self.in_use.fetch_add(new_size as u64, Relaxed);
        self.in_use.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: as for `dealloc`; `new_size` is the caller's promise.
        unsafe { self.inner.realloc(ptr, layout, new_size) }
    }
}
