//! SIGTERM, SIGINT and SIGHUP as bytes in a pipe. A handler rather than a blocked mask, so that threads started
//! earlier and programs started later are not affected.

use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int) {
    let fd: RawFd = PIPE.load(Ordering::Acquire);
    if fd >= 0 {
        let byte = signal as u8;
        // SAFETY: __errno_location and write are async-signal-safe; errno is put back for the code we interrupted.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            libc::write(fd, std::ptr::from_ref(&byte).cast(), 1);
            *errno = saved;
        }
    }
}

/// Installs the handler for `signals` and returns the pipe's reading end; each byte read is a signal number.
/// Only once per process: later calls fail with AlreadyExists.
pub fn install(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    if PIPE.compare_exchange(-1, write.as_raw_fd(), Ordering::AcqRel, Ordering::Acquire).is_err() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    // The handler may run until the very end of the process: its end of the pipe is never closed.
    std::mem::forget(write);
    for signal in signals {
        // SAFETY: sigaction is a C struct for which zero is valid; the handler only does async-signal-safe things.
        let r = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(*signal, &action, std::ptr::null_mut())
        };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(read)
}
