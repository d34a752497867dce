//! Socket options of any plain C type.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Types that are plain old data for the kernel: no padding that matters, every bit pattern valid.
///
/// # Safety
/// Implement it only for `repr(C)` types without references or niches.
pub unsafe trait Plain: Copy {}

// SAFETY: integers are plain.
unsafe impl Plain for libc::c_int {}
// SAFETY: integers are plain.
unsafe impl Plain for u32 {}
// SAFETY: an array of integers.
unsafe impl Plain for [u32; 8] {}
// SAFETY: a C struct of integers.
unsafe impl Plain for libc::packet_mreq {}
// SAFETY: a C struct of integers.
unsafe impl Plain for super::packet::Stats {}

/// setsockopt(2).
pub fn set<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let r = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size_of::<T>() as u32)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// getsockopt(2); an answer of another length than `T`'s is an error.
pub fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`.
    let r = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    if len as usize != size_of::<T>() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    // SAFETY: zeroed at first and then filled by the kernel; `T` is Plain, so any content is valid.
    Ok(unsafe { value.assume_init() })
}
