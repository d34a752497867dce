//! Signals that ask the program to end or to reload.

use crate::sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A signal of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end.
    Terminate,
    /// SIGINT: end.
    Interrupt,
    /// SIGHUP: reload.
    Hangup,
}

/// SIGTERM, SIGINT and SIGHUP, collected instead of killing the process.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Starts collecting, for the whole process; only once.
    pub fn install() -> io::Result<Self> {
        signal::install(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map(Signals)
    }

    /// The next signal, waiting up to `timeout` (None: without end). None: the time is over.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Signal>> {
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
        loop {
            let mut byte = [0u8];
            match rustix::io::read(&self.0, &mut byte) {
                Ok(1) => match i32::from(byte[0]) {
                    libc::SIGTERM => return Ok(Some(Signal::Terminate)),
                    libc::SIGINT => return Ok(Some(Signal::Interrupt)),
                    libc::SIGHUP => return Ok(Some(Signal::Hangup)),
                    _ => continue,
                },
                Ok(_) => return Ok(None),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
