//! recvmmsg(2) and sendmmsg(2) straight from and into frames.
//!
//! The kernel's arrays are built for each call from borrowed frames, so no pointer outlives the borrow; only their
//! memory is kept between calls.

use router_core::frame::Frame;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes that a datagram may carry in front of the frame: virtio_net_hdr.
pub const PREFIX: usize = crate::port::vnet::LEN;
/// Room for a socket address: sockaddr_ll (20), sockaddr_in6 (28).
const NAME: usize = 28;
/// Room for control messages: auxdata (16 + 20, padded), or IPv6 packet info, hop limit and traffic class.
const CONTROL: usize = 128;

/// A socket address as the kernel wrote it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Name(pub [u8; NAME]);

#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
struct Control([u8; CONTROL]);

/// What came with one received datagram.
#[derive(Debug)]
pub struct Received<'a> {
    /// Length of prefix and data as received.
    pub len: usize,
    /// The bytes in front of the frame.
    pub prefix: &'a [u8; PREFIX],
    /// The sender's address.
    pub name: &'a [u8; NAME],
    /// Control messages; walk them with [`control_messages`].
    pub control: &'a [u8],
    /// The datagram was longer than the frame.
    pub truncated: bool,
}

/// Memory of a receiving socket.
#[derive(Debug)]
pub struct Receiver {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<[libc::iovec; 2]>,
    names: Vec<Name>,
    controls: Vec<Control>,
    prefixes: Vec<[u8; PREFIX]>,
}

// SAFETY: the raw pointers in `headers` and `vectors` are rewritten before each use and never followed between calls.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Room for `batch` datagrams per call.
    pub fn new(batch: usize) -> Self {
        // SAFETY: C structs of integers and pointers: all zero is a valid value.
        let (header, vector) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Receiver {
            headers: vec![header; batch],
            vectors: vec![vector; batch],
            names: vec![Name([0; NAME]); batch],
            controls: vec![Control([0; CONTROL]); batch],
            prefixes: vec![[0; PREFIX]; batch],
        }
    }

    /// Receives up to `frames.len()` datagrams without waiting; datagram i goes to `frames[i]` behind `skip` bytes of its
    /// free room, after `prefix` bytes (0 or [`PREFIX`]) that are kept here. Finish each frame with `set_len`.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &mut [Frame],
        prefix: usize,
        skip: usize,
    ) -> io::Result<usize> {
        let n = frames.len().min(self.headers.len());
        let prefix = prefix.min(PREFIX);
        for (i, frame) in frames[..n].iter_mut().enumerate() {
            let spare = frame.spare_mut();
            let room = &mut spare[skip..];
            let vectors = &mut self.vectors[i];
            vectors[0] = libc::iovec { iov_base: self.prefixes[i].as_mut_ptr().cast(), iov_len: prefix };
            vectors[1] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let (first, count) = if prefix == 0 { (1, 1) } else { (0, 2) };
            let h = &mut self.headers[i];
            h.msg_len = 0;
            h.msg_hdr.msg_name = self.names[i].0.as_mut_ptr().cast();
            h.msg_hdr.msg_namelen = NAME as libc::socklen_t;
            h.msg_hdr.msg_iov = vectors[first..].as_mut_ptr();
            h.msg_hdr.msg_iovlen = count;
            h.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
            h.msg_hdr.msg_controllen = CONTROL as _;
            h.msg_hdr.msg_flags = 0;
        }
        // SAFETY: the first n headers point into self and into `frames`, both borrowed mutably for this call.
        let r = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as usize) }
    }

    /// What came with datagram `i` of the last successful [`Receiver::receive`].
    pub fn get(&self, i: usize) -> Received<'_> {
        let h = &self.headers[i];
        Received {
            len: h.msg_len as usize,
            prefix: &self.prefixes[i],
            name: &self.names[i].0,
            control: &self.controls[i].0[..h.msg_hdr.msg_controllen.min(CONTROL)],
            truncated: h.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}

/// Memory of a sending socket.
#[derive(Debug)]
pub struct Sender {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<[libc::iovec; 2]>,
    names: Vec<Name>,
    prefixes: Vec<[u8; PREFIX]>,
}

// SAFETY: as for Receiver.
unsafe impl Send for Sender {}

/// What goes with one frame to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Bytes in front of the frame, if the socket wants them.
    pub prefix: Option<[u8; PREFIX]>,
    /// The destination, if the socket is not bound to one, and the address's length.
    pub name: Option<(Name, usize)>,
}

impl Sender {
    /// Room for `batch` datagrams per call.
    pub fn new(batch: usize) -> Self {
        // SAFETY: C structs of integers and pointers: all zero is a valid value.
        let (header, vector) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Sender {
            headers: vec![header; batch],
            vectors: vec![vector; batch],
            names: vec![Name([0; NAME]); batch],
            prefixes: vec![[0; PREFIX]; batch],
        }
    }

    /// Sends the first frames of `frames` without waiting; `describe` says what goes with each. Returns how many the
    /// kernel took; an error concerns the first of them.
    pub fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &[Frame],
        mut describe: impl FnMut(&Frame) -> Outgoing,
    ) -> io::Result<usize> {
        let n = frames.len().min(self.headers.len());
        for (i, frame) in frames[..n].iter().enumerate() {
            let what = describe(frame);
            let vectors = &mut self.vectors[i];
            let data = frame.data();
            vectors[1] = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
            let h = &mut self.headers[i].msg_hdr;
            h.msg_iov = vectors[1..].as_mut_ptr();
            h.msg_iovlen = 1;
            if let Some(prefix) = what.prefix {
                self.prefixes[i] = prefix;
                vectors[0] = libc::iovec { iov_base: self.prefixes[i].as_mut_ptr().cast(), iov_len: PREFIX };
                h.msg_iov = vectors.as_mut_ptr();
                h.msg_iovlen = 2;
            }
            (h.msg_name, h.msg_namelen) = (std::ptr::null_mut(), 0);
            if let Some((name, len)) = what.name {
                self.names[i] = name;
                h.msg_name = self.names[i].0.as_mut_ptr().cast();
                h.msg_namelen = len.min(NAME) as libc::socklen_t;
            }
        }
        // SAFETY: the first n headers point into self and into `frames`, borrowed for this call; sendmmsg only reads
        // what the vectors name.
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

/// Walks control messages: level, type, data. Ends at the first that does not fit.
pub fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    const HEADER: usize = std::mem::size_of::<libc::cmsghdr>();
    const WORD: usize = std::mem::size_of::<usize>();
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(bytes.get(..WORD)?.try_into().ok()?);
        let level = i32::from_ne_bytes(bytes.get(WORD..WORD + 4)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(bytes.get(WORD + 4..WORD + 8)?.try_into().ok()?);
        let data = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_messages_stop_at_a_cut_one() {
        let mut b = Vec::new();
        for (len, data) in [(20usize, [1u8, 2, 3, 4, 0, 0, 0, 0]), (99, [0; 8])] {
            b.extend(len.to_ne_bytes());
            b.extend(263i32.to_ne_bytes());
            b.extend(8i32.to_ne_bytes());
            b.extend(data);
        }
        let all: Vec<_> = control_messages(&b).collect();
        assert_eq!(all, [(263, 8, &[1u8, 2, 3, 4][..])]);
    }

    proptest! {
        #[test]
        fn control_messages_survive_anything(b in proptest::collection::vec(any::<u8>(), 0..128)) {
            assert!(control_messages(&b).count() < 64);
        }
    }
}
