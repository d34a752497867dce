//! Rings shared with the kernel: one side writes entries, the other reads them, each owns one index.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mapped ring of entries `T`.
#[derive(Debug)]
pub(super) struct Ring<T> {
    memory: NonNull<u8>,
    len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Our own index, and the other side's as last seen.
    own: u32,
    other: u32,
    entry: PhantomData<T>,
}

// SAFETY: the pointers lead into a mapping that this value alone owns.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps ring `page` of a socket, made before with `size` entries (a power of two), whose parts lie at `offsets`.
    ///
    /// # Safety
    /// `T` must be the ring's entry (any bit pattern valid), and page, size and offsets must be that ring's.
    pub(super) unsafe fn map(fd: &OwnedFd, page: u64, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let len = offsets.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a fresh mapping, placed by the kernel.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                page as libc::off_t,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel's offsets lie in the mapping, aligned for what is there.
        let at = |offset: u64| unsafe { memory.add(offset as usize) };
        Ok(Ring {
            memory,
            len,
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            flags: at(offsets.flags).cast(),
            entries: at(offsets.desc).cast(),
            size,
            own: 0,
            other: 0,
            entry: PhantomData,
        })
    }

    fn index(&self, which: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: `which` leads into our mapping, which lives as long as self; both sides only do atomic accesses.
        unsafe { which.as_ref() }
    }

    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked by a power of two, so within the `size` entries of the mapping.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }

    /// Entries that it has room for.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// The kernel wants to be woken for this ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.index(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    // The writing side: `own` is the producer index.

    /// How many of `want` entries may be written now.
    pub(super) fn room(&mut self, want: u32) -> u32 {
        if self.size - self.own.wrapping_sub(self.other) < want {
            self.other = self.index(self.consumer).load(Ordering::Acquire);
        }
        self.size.saturating_sub(self.own.wrapping_sub(self.other)).min(want)
    }

    /// Writes the next entry. Only as many as [`Ring::room`] said; visible with [`Ring::publish`].
    pub(super) fn write(&mut self, entry: T) {
        // SAFETY: the slot is ours until it is published, because it is beyond what the other side may read.
        unsafe { self.slot(self.own).write(entry) };
        self.own = self.own.wrapping_add(1);
    }

    /// Hands over what was written.
    pub(super) fn publish(&mut self) {
        self.index(self.producer).store(self.own, Ordering::Release);
    }

    /// Entries that the other side has not taken yet.
    pub(super) fn waiting(&self) -> u32 {
        self.own.wrapping_sub(self.index(self.consumer).load(Ordering::Acquire))
    }

    // The reading side: `own` is the consumer index.

    /// How many of `want` entries may be read now.
    pub(super) fn ready(&mut self, want: u32) -> u32 {
        if self.other.wrapping_sub(self.own) < want {
            self.other = self.index(self.producer).load(Ordering::Acquire);
        }
        self.other.wrapping_sub(self.own).min(self.size).min(want)
    }

    /// Reads the next entry. Only as many as [`Ring::ready`] said; given back with [`Ring::release`].
    pub(super) fn read(&mut self) -> T {
        // SAFETY: the slot was published by the other side, which does not touch it until we release it.
        let entry = unsafe { self.slot(self.own).read() };
        self.own = self.own.wrapping_add(1);
        entry
    }

    /// Gives back what was read.
    pub(super) fn release(&mut self) {
        self.index(self.consumer).store(self.own, Ordering::Release);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing of it is borrowed.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}
