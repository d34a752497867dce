//! Memory shared with the kernel.

use super::PACKET_HEADROOM;
use bytes::BytesMut;
use router_core::frame::{Frame, Home};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: usize = 4096;

/// How a umem is made.
#[derive(Clone, Copy, Debug)]
pub struct UmemConfig {
    /// Bytes per chunk: 2048 or 4096. A frame may have [`PACKET_HEADROOM`] less.
    pub chunk: usize,
    /// Number of chunks.
    pub chunks: usize,
    /// What its frames answer to [`Frame::home`]; not 0.
    pub home: Home,
}

/// Memory shared with the kernel, in chunks. Cheap to clone: a reference to the same one. It is pinned as long as a socket
/// uses it, and counts against RLIMIT_MEMLOCK for processes without CAP_IPC_LOCK.
#[derive(Clone, Debug)]
pub struct Umem(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// Address of the first chunk.
    base: usize,
    config: UmemConfig,
    /// Keeps the memory: all frames are parts of the same piece.
    _memory: BytesMut,
    /// Open sockets that are bound with this memory, by any of which the kernel can be told that another one shares it.
    bound: Mutex<Vec<RawFd>>,
}

impl Umem {
    /// Allocates the memory and gives it away as frames. Errors: EINVAL for sizes that the kernel does not take.
    pub fn new(config: UmemConfig) -> io::Result<(Umem, Vec<Frame>)> {
        let UmemConfig { chunk, chunks, home } = config;
        if !matches!(chunk, 2048 | 4096) || home == 0 || chunks == 0 || chunks > (u32::MAX as usize) / chunk {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let len = (chunk * chunks).next_multiple_of(PAGE);
        // A page more to begin at a page's beginning, and one that is kept.
        let mut memory = BytesMut::zeroed(len + 2 * PAGE);
        let base = memory.as_mut_ptr().expose_provenance();
        drop(memory.split_to(base.next_multiple_of(PAGE) - base));
        let frames = (0..chunks).map(|_| Frame::lent(memory.split_to(chunk), home)).collect();
        let inner = Inner { base: base.next_multiple_of(PAGE), config, _memory: memory, bound: Mutex::new(Vec::new()) };
        Ok((Umem(Arc::new(inner)), frames))
    }

    /// What its frames answer to [`Frame::home`].
    pub fn home(&self) -> Home {
        self.0.config.home
    }

    /// The longest frame that one chunk takes at reception.
    pub fn frame_capacity(&self) -> usize {
        self.0.config.chunk - PACKET_HEADROOM
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.0.config.chunks
    }

    /// Which chunk's memory the frame has, if one of ours.
    pub(super) fn chunk_of(&self, frame: &Frame) -> Option<usize> {
        let start = frame.data().as_ptr().addr().wrapping_sub(frame.headroom());
        let offset = start.wrapping_sub(self.0.base);
        let config = &self.0.config;
        let index = offset / config.chunk;
        (frame.home() == config.home && index < config.chunks && offset.is_multiple_of(config.chunk)).then_some(index)
    }

    /// The address that means byte `start` of a chunk to the kernel.
    pub(super) fn address(&self, chunk: usize, start: usize) -> u64 {
        (chunk * self.0.config.chunk + start) as u64
    }

    /// Chunk and byte in it that an address of the kernel's means.
    pub(super) fn split(&self, address: u64) -> (usize, usize) {
        let chunk = self.0.config.chunk;
        (address as usize / chunk, address as usize % chunk)
    }

    /// XDP_UMEM_REG: tells a socket's kernel side about the memory.
    pub(super) fn register(&self, fd: &OwnedFd) -> io::Result<()> {
        // SAFETY: a C struct of integers: all zero is a valid value.
        let mut reg: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        reg.addr = self.0.base as u64;
        reg.len = (self.0.config.chunk * self.0.config.chunks) as u64;
        reg.chunk_size = self.0.config.chunk as u32;
        // SAFETY: pointer and length describe `reg`. The memory that it names stays allocated as long as the socket is
        // open, since each socket holds a reference to us; the kernel writes only to chunks that it was given, and those
        // are frames that were moved into a socket.
        let r = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_UMEM_REG,
                std::ptr::from_ref(&reg).cast(),
                size_of_val(&reg) as libc::socklen_t,
            )
        };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Descriptors of the open sockets that are bound with this memory. None of them is closed while this is held.
    pub(super) fn bound(&self) -> MutexGuard<'_, Vec<RawFd>> {
        self.0.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The descriptor of a socket, known to its umem once it is bound. Nobody else has it: when this is dropped, the kernel
/// lets go of the memory.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) fd: OwnedFd,
    pub(super) umem: Umem,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let raw = self.fd.as_raw_fd();
        self.umem.bound().retain(|fd| *fd != raw);
    }
}
