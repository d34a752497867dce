//! An eventfd that wakes a thread out of epoll.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes one sleeping thread. Cloning shares it.
///
/// Rings that arrive before the sleeper has listened cost one atomic exchange instead of a system call each.
#[derive(Clone, Debug)]
pub struct Wake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Wake {
    /// A new one, not rung.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Wake(Arc::new(Inner { fd, rung: AtomicBool::new(false) })))
    }

    /// Makes the fd readable. Publish the news first.
    pub fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // Can only fail when the counter is full, and then the fd is readable already.
            let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
        }
    }

    /// Makes the fd unreadable again. Look at the news afterwards.
    pub fn listen(&self) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.0.fd, &mut count);
        // An exchange, not a store: it sees what those published whose rings it makes void.
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
