//! Array maps in our own memory: what a program counts is read, and what it obeys is written, without a system call.

use super::{Attr, MAP_CREATE};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`, Linux 5.5.
const MMAPABLE: u32 = 1 << 10;

/// An array map whose values are `words` numbers of 64 bits each, mapped here. All are zero at first.
#[derive(Debug)]
pub struct MappedArray {
    fd: OwnedFd,
    words: usize,
    values: NonNull<AtomicU64>,
    len: usize,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping, which lives as long as this and is only reached through atomics.
unsafe impl Send for MappedArray {}
// SAFETY: as above.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// One of `len` values. Needs CAP_BPF.
    pub fn new(words: usize, len: usize) -> io::Result<Self> {
        let mut attr = Attr::new()
            .word(0, MAP_TYPE_ARRAY)
            .word(4, 4)
            .word(8, (words * 8) as u32)
            .word(12, len as u32)
            .word(16, MMAPABLE);
        // SAFETY: MAP_CREATE reads plain numbers and makes a descriptor.
        let fd = unsafe { attr.call_for_fd(MAP_CREATE) }?;
        // SAFETY: a plain question.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let bytes = (words * 8 * len).next_multiple_of(page.max(1) as usize);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the map has so many bytes, in whole pages.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        let values = match NonNull::new(at.cast()) {
            Some(values) if at != libc::MAP_FAILED => values,
            _ => return Err(io::Error::last_os_error()),
        };
        Ok(MappedArray { fd, words, values, len, bytes })
    }

    /// Its descriptor, for instructions.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.len
    }

    /// The numbers of value `i`; none if there is no such value.
    pub fn get(&self, i: usize) -> &[AtomicU64] {
        if i >= self.len {
            return &[];
        }
        // SAFETY: the mapping has `len` values of `words` aligned numbers each, and lives as long as `self`; the kernel's
        // programs write them atomically or not at all while anybody reads.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().add(i * self.words), self.words) }
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made above; nobody borrows from it any more.
        unsafe { libc::munmap(self.values.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn values_are_apart() {
        let map = match MappedArray::new(3, 1000) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                return eprintln!("SKIPPED: bpf(2): {e}");
            }
            other => other.unwrap(),
        };
        for i in 0..map.count() {
            map.get(i)[2].store(i as u64, Relaxed);
        }
        let all = |word: usize| (0..1000).map(|i| map.get(i)[word].load(Relaxed)).collect::<Vec<_>>();
        assert_eq!(all(2), (0..1000).collect::<Vec<u64>>());
        assert_eq!(all(0), vec![0; 1000]);
        assert!(map.get(1000).is_empty());
    }
}
