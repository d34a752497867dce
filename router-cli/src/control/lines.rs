//! Lines over a socket, with limits: how long a line may be, how long a peer may take for it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Longer than the limit.
    #[error("line longer than {0} bytes")]
    TooLong(usize),
    /// Begun, but not finished in time.
    #[error("the line was not finished in {0:?}")]
    Slow(Duration),
    /// Nothing came.
    #[error("nothing came in {0:?}")]
    Idle(Duration),
    /// The user had enough.
    #[error("interrupted")]
    Cancelled,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines.
pub(super) struct LineReader {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Where the unread part begins.
    start: usize,
    /// Where the search for the end of line goes on.
    searched: usize,
    limit: usize,
    cancel: Option<Arc<AtomicBool>>,
}

/// How often a waiting reader looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(100);

impl LineReader {
    pub fn new(stream: UnixStream, limit: usize) -> Self {
        LineReader { stream, buffer: Vec::new(), start: 0, searched: 0, limit, cancel: None }
    }

    /// Ends every wait soon after the flag is set.
    pub fn cancelled_by(&mut self, flag: Arc<AtomicBool>) {
        self.cancel = Some(flag);
    }

    /// The next line without its end; None at the end of the stream (an unfinished last line counts as one).
    pub fn next(&mut self, idle: Duration, whole: Duration) -> Result<Option<&[u8]>, LineError> {
        let began = Instant::now();
        let mut first_byte = (self.buffer.len() > self.start).then_some(began);
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let (from, to) = (self.start, self.searched + at);
                if to - from > self.limit {
                    return Err(LineError::TooLong(self.limit));
                }
                self.start = to + 1;
                self.searched = self.start;
                return Ok(Some(&self.buffer[from..to]));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() - self.start > self.limit {
                return Err(LineError::TooLong(self.limit));
            }
            self.compact();
            let left = match first_byte {
                Some(at) => whole.checked_sub(at.elapsed()).ok_or(LineError::Slow(whole))?,
                None => idle.checked_sub(began.elapsed()).ok_or(LineError::Idle(idle))?,
            };
            let left = match &self.cancel {
                Some(flag) if flag.load(Ordering::Relaxed) => return Err(LineError::Cancelled),
                Some(_) => left.min(LOOK),
                None => left,
            };
            if !wait(&self.stream, PollFlags::IN, left)? {
                continue;
            }
            let old = self.buffer.len();
            let step = 64 * 1024;
            self.buffer.resize(old + step, 0);
            let got = self.stream.read(&mut self.buffer[old..]);
            self.buffer.truncate(old + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) if self.buffer.len() > self.start => {
                    let from = self.start;
                    self.start = self.buffer.len();
                    self.searched = self.start;
                    return Ok(Some(&self.buffer[from..]));
                }
                Ok(0) => return Ok(None),
                Ok(_) => {
                    first_byte.get_or_insert_with(Instant::now);
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        // One long line must not hold its memory for ever.
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
    }
}

/// Waits until the stream is ready; false after `time`.
fn wait(stream: &UnixStream, what: PollFlags, time: Duration) -> io::Result<bool> {
    let time = Timespec { tv_sec: time.as_secs().min(i32::MAX as u64) as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    match poll(&mut [PollFd::new(stream, what)], Some(&time)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Writes all of `bytes` within `time`.
pub(super) fn write_all(stream: &UnixStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    use rustix::net::{SendFlags, send};
    let began = Instant::now();
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::AGAIN) => {
                let left = time.checked_sub(began.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
                wait(stream, PollFlags::OUT, left)?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    (&mut &*stream).flush()
}
