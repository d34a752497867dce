//! sendmmsg(2) of datagrams straight from frames, several of one size in one message (UDP_SEGMENT): the kernel takes them
//! through its stack as one packet and cuts them at the device.

use super::mmsg::Name;
use router_core::frame::Frame;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for control messages: source address, TTL, traffic class, segment size; each 16 bytes of header and padded data.
const CONTROL: usize = 128;

/// Datagrams of one message at most (the kernel's UDP_MAX_SEGMENTS, before 6.9: 64).
pub const SEGMENTS: usize = 64;

/// Control messages to be sent.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    bytes: [u8; CONTROL],
    len: usize,
}

impl Default for Control {
    fn default() -> Self {
        Control { bytes: [0; CONTROL], len: 0 }
    }
}

impl Control {
    /// Adds one; nothing when there is no room.
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        const HEADER: usize = std::mem::size_of::<libc::cmsghdr>();
        const WORD: usize = std::mem::size_of::<usize>();
        let (len, end) = (HEADER + data.len(), self.len + (HEADER + data.len()).next_multiple_of(WORD));
        let Some(room) = self.bytes.get_mut(self.len..end) else { return };
        room.fill(0);
        room[..WORD].copy_from_slice(&len.to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..len].copy_from_slice(data);
        self.len = end;
    }

    /// As the kernel reads them.
    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One message: the payloads of frames that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// How many frames.
    pub count: usize,
    /// Bytes in front of each payload.
    pub skip: usize,
    /// The destination and its length.
    pub name: (Name, usize),
    /// What goes with it.
    pub control: Control,
}

/// Memory of a sending socket.
#[derive(Debug)]
pub struct Sender {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are rewritten before each use and never followed between calls.
unsafe impl Send for Sender {}

impl Sender {
    /// Room for `batch` datagrams per call.
    pub fn new(batch: usize) -> Self {
        // SAFETY: C structs of integers and pointers: all zero is a valid value.
        let (header, vector) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Sender { headers: vec![header; batch], vectors: vec![vector; batch] }
    }

    /// Sends messages without waiting: the first takes the first of `frames`, and so on. Returns how many messages the
    /// kernel took; an error concerns the first of them.
    pub fn send(&mut self, fd: BorrowedFd<'_>, frames: &[Frame], messages: &[Message]) -> io::Result<usize> {
        let mut rest = frames;
        let mut vectors = &mut self.vectors[..];
        let mut n = 0;
        for (m, h) in messages.iter().zip(&mut self.headers) {
            if m.count > rest.len() || m.count > vectors.len() {
                break;
            }
            let (mine, others) = rest.split_at(m.count);
            let (to, free) = vectors.split_at_mut(m.count);
            for (frame, vector) in mine.iter().zip(to.iter_mut()) {
                let data = frame.data().get(m.skip..).unwrap_or_default();
                *vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
            }
            let h = &mut h.msg_hdr;
            h.msg_iov = to.as_mut_ptr();
            h.msg_iovlen = m.count as _;
            h.msg_name = m.name.0.0.as_ptr().cast_mut().cast();
            h.msg_namelen = m.name.1.min(m.name.0.0.len()) as libc::socklen_t;
            h.msg_control = m.control.bytes.as_ptr().cast_mut().cast();
            h.msg_controllen = m.control.len as _;
            (rest, vectors) = (others, free);
            n += 1;
        }
        // SAFETY: the first n headers point into self.vectors, into `frames` and into `messages`, all borrowed for this
        // call; sendmmsg only reads what they name.
        let r = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                n as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mmsg::control_messages;

    #[test]
    fn control_messages_are_read_as_they_were_written() {
        let mut c = Control::default();
        c.push(0, 1, &7i32.to_ne_bytes());
        c.push(17, 103, &1200u16.to_ne_bytes());
        c.push(41, 50, &[9; 20]);
        let all: Vec<_> = control_messages(c.bytes()).collect();
        assert_eq!(all, [(0, 1, &[7u8, 0, 0, 0][..]), (17, 103, &1200u16.to_ne_bytes()), (41, 50, &[9; 20])]);
        for _ in 0..9 {
            c.push(0, 2, &[1; 20]);
        }
        assert_eq!(control_messages(c.bytes()).count(), 4, "what does not fit is left out");
    }
}
