//! Array maps: values that a program and its loader share.

use super::{Attr, MAP_CREATE, MAP_UPDATE_ELEM};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_TYPE_ARRAY: u32 = 2;

/// An array map: values of `size` bytes.
#[derive(Debug)]
pub struct ArrayMap {
    fd: OwnedFd,
    size: usize,
}

impl ArrayMap {
    /// Makes one of `len` values, all zero. Needs CAP_BPF, or CAP_SYS_ADMIN on older kernels.
    pub fn new(size: usize, len: usize) -> io::Result<Self> {
        let mut attr = Attr::new().word(0, MAP_TYPE_ARRAY).word(4, 4).word(8, size as u32).word(12, len as u32);
        // SAFETY: MAP_CREATE reads plain numbers and makes a descriptor.
        Ok(ArrayMap { fd: unsafe { attr.call_for_fd(MAP_CREATE) }?, size })
    }

    /// Its descriptor, for instructions.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Copies value `i` to `to`, which must have the values' size.
    pub fn get(&self, i: u32, to: &mut [u8]) -> io::Result<()> {
        if to.len() != self.size.next_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .pointer(8, std::ptr::from_ref(&i).cast())
            .pointer(16, to.as_mut_ptr().cast_const());
        // SAFETY: the kernel reads four bytes of key and writes one value, whose size was compared above.
        unsafe { attr.call(MAP_LOOKUP_ELEM) }.map(drop)
    }

    /// Sets value `i`.
    pub fn set(&self, i: u32, value: &[u8]) -> io::Result<()> {
        if value.len() != self.size.next_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr =
            Attr::new().fd(0, self.fd.as_fd()).pointer(8, std::ptr::from_ref(&i).cast()).pointer(16, value.as_ptr());
        // SAFETY: the kernel reads four bytes of key and one value, whose size was compared above.
        unsafe { attr.call(MAP_UPDATE_ELEM) }.map(drop)
    }
}
