//! One AF_XDP socket: a receive queue of a device, and a way to send on it.

use super::ring::Ring;
use super::umem::{Descriptor, Umem};
use crate::sys::fetch::fetch;
use crate::sys::opt::{self, Plain};
use router_core::frame::{Frame, Meta};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
/// Frames that one system call may send in copy mode (Linux 6.18; 32 before).
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// Copies under way count against the socket's buffer.
const SEND_BUFFER: libc::c_int = 16 << 20;

/// How much of a frame is looked at first, in bytes: link and IP header.
const HEADERS: usize = 64;

/// How long a busy queue may be one that is just being freed.
const QUEUE_FREED: Duration = Duration::from_millis(300);

/// Whether frames are copied between the umem and the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy where the driver can, copy otherwise.
    #[default]
    Any,
    /// Copy.
    Copy,
    /// Zero-copy or failure (EOPNOTSUPP).
    ZeroCopy,
}

/// Polling the device from the worker's own system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// SO_BUSY_POLL: how long a call may poll, in microseconds.
    pub microseconds: i32,
    /// SO_BUSY_POLL_BUDGET: frames per call. More than 64 needs CAP_NET_ADMIN.
    pub budget: i32,
}

/// How a socket is bound.
#[derive(Clone, Copy, Debug)]
pub struct BindOptions {
    /// Copying or not.
    pub copy: CopyMode,
    /// Entries of the receive and the fill ring: a power of two.
    pub rx_ring: u32,
    /// Entries of the transmit and the completion ring: a power of two.
    pub tx_ring: u32,
    /// Poll the device from our own calls.
    pub busy_poll: Option<BusyPoll>,
}

impl Default for BindOptions {
    fn default() -> Self {
        BindOptions { copy: CopyMode::Any, rx_ring: 1024, tx_ring: 1024, busy_poll: None }
    }
}

/// Which step of opening a socket failed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// socket(2): EPERM without CAP_NET_RAW, EAFNOSUPPORT when the kernel is built without AF_XDP.
    #[error("open an AF_XDP socket: {0}")]
    Socket(io::Error),
    /// Registering the memory or making the rings: ENOBUFS when RLIMIT_MEMLOCK is too low.
    #[error("share memory with the kernel: {0}")]
    Memory(io::Error),
    /// bind(2): EBUSY when the queue has another socket, EINVAL when the device has no such queue, EOPNOTSUPP without
    /// zero-copy, ENODEV.
    #[error("bind to the device's queue: {0}")]
    Bind(io::Error),
}

/// What the kernel counts for a socket (XDP_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames lost for other reasons than the next two: too long for a chunk, for one.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that made no sense.
    pub rx_invalid: u64,
    /// Descriptors in the transmit ring that made no sense.
    pub tx_invalid: u64,
    /// Frames lost because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times when the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Times when the transmit ring was empty.
    pub tx_ring_empty: u64,
}

/// What became of a call that makes the kernel send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kick {
    /// Frames that the device refused (its queue is full): they complete all the same, but were not sent.
    pub refused: usize,
    /// The errno that stopped it: EAGAIN when the kernel takes no more at present, ENETDOWN when the device is down,
    /// ENXIO when it is gone. What is in the ring stays there.
    pub stopped: Option<i32>,
}

/// A bound socket. Frames that the kernel has are in it; they are freed with it.
#[derive(Debug)]
pub struct Socket {
    // The order of dropping: mappings, then the descriptor (after which the kernel touches nothing), then the frames.
    fill: Ring<u64>,
    completion: Ring<u64>,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    fd: Descriptor,
    lent: Lent,
    zero_copy: bool,
    /// Frames in the fill ring or being filled, and frames not yet completed.
    filling: usize,
    sending: usize,
}

/// Frames that the kernel has, by chunk.
#[derive(Debug)]
struct Lent {
    frames: Box<[Frame]>,
    /// A driver that reads and writes the memory itself is told to stop only some time after close(2) has returned: these
    /// frames are never used again.
    abandon: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.abandon {
            std::mem::forget(std::mem::take(&mut self.frames));
        }
    }
}

// SAFETY: C structs of integers.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: C structs of integers.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: C structs of integers.
unsafe impl Plain for libc::xdp_options {}

impl Socket {
    /// Binds a socket to receive queue `queue` of device `ifindex` in the calling thread's network namespace. Nothing is
    /// received before an XDP program redirects to it ([`crate::sys::bpf::XskMap::set`]).
    ///
    /// A umem that is in use by a socket already keeps that one's way of copying, whatever `options.copy` says.
    pub fn bind(umem: &Umem, ifindex: u32, queue: u32, options: &BindOptions) -> Result<Self, BindError> {
        // SAFETY: plain system call; the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(BindError::Socket(io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let descriptor = Descriptor { fd, umem: umem.clone() };
        let fd = &descriptor.fd;
        let mut bound = umem.bound();
        let sharing = bound.first().copied();
        if sharing.is_none() {
            umem.register(fd).map_err(BindError::Memory)?;
        }
        let memory = BindError::Memory;
        let ring = |name, size: u32| opt::set(fd.as_fd(), libc::SOL_XDP, name, &size).map_err(memory);
        ring(libc::XDP_UMEM_FILL_RING, options.rx_ring)?;
        ring(libc::XDP_UMEM_COMPLETION_RING, options.tx_ring)?;
        ring(libc::XDP_RX_RING, options.rx_ring)?;
        ring(libc::XDP_TX_RING, options.tx_ring)?;
        let offsets: libc::xdp_mmap_offsets =
            opt::get(fd.as_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS).map_err(memory)?;
        // SAFETY: each ring's own page, offsets and size, as made above; fill and completion rings hold addresses, the
        // other two descriptors.
        let (fill, completion, rx, tx) = unsafe {
            (
                Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, options.rx_ring).map_err(memory)?,
                Ring::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, options.tx_ring).map_err(memory)?,
                Ring::map(fd, libc::XDP_PGOFF_RX_RING as u64, &offsets.rx, options.rx_ring).map_err(memory)?,
                Ring::map(fd, libc::XDP_PGOFF_TX_RING as u64, &offsets.tx, options.tx_ring).map_err(memory)?,
            )
        };
        tune(fd.as_fd(), options);
        bind_patiently(fd, ifindex, queue, sharing, options.copy).map_err(BindError::Bind)?;
        bound.push(fd.as_raw_fd());
        drop(bound);
        let granted: libc::xdp_options = opt::get(fd.as_fd(), libc::SOL_XDP, libc::XDP_OPTIONS).map_err(memory)?;
        let zero_copy = granted.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(Socket {
            fill,
            completion,
            rx,
            tx,
            lent: Lent { frames: (0..umem.chunks()).map(|_| Frame::default()).collect(), abandon: zero_copy },
            zero_copy,
            fd: descriptor,
            filling: 0,
            sending: 0,
        })
    }

    /// Whether the driver reads and writes the umem itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether the frame's memory is of this socket's umem: only such frames can be given to it.
    pub fn takes(&self, frame: &Frame) -> bool {
        self.fd.umem.chunk_of(frame).is_some()
    }

    /// Frames that wait in the kernel to be filled, received ones that were not taken yet included.
    pub fn filling(&self) -> usize {
        self.filling
    }

    /// Frames that were given for sending and did not come back yet.
    #[cfg(test)]
    pub fn sending(&self) -> usize {
        self.sending
    }

    /// How many of `want` frames [`Socket::fill`] can take now.
    pub fn fill_room(&mut self, want: usize) -> usize {
        self.fill.room(ring_count(want)) as usize
    }

    /// Gives empty frames to the kernel, taken from the end of `frames`, as many as there is room for; returns how many.
    /// Frames of other memory are thrown away.
    pub fn fill(&mut self, frames: &mut Vec<Frame>) -> usize {
        let n = self.fill.room(ring_count(frames.len()));
        let mut given = 0;
        for _ in 0..n {
            let Some(frame) = frames.pop() else { break };
            if let Some(chunk) = self.fd.umem.chunk_of(&frame) {
                self.fill.write(self.fd.umem.address(chunk, 0));
                self.lent.frames[chunk] = frame;
                given += 1;
            }
        }
        self.fill.publish();
        self.filling += given;
        given
    }

    /// Takes up to `max` received frames and appends them to `into`; returns how many.
    pub fn receive(&mut self, max: usize, into: &mut Vec<Frame>) -> usize {
        let n = self.rx.ready(ring_count(max));
        if n == 0 {
            return 0;
        }
        let before = into.len();
        for _ in 0..n {
            let desc = self.rx.read();
            let (chunk, start) = self.fd.umem.split(desc.addr);
            let Some(slot) = self.lent.frames.get_mut(chunk) else { continue };
            let mut frame = std::mem::take(slot);
            if frame.has_memory() && frame.place(start, desc.len as usize) {
                frame.meta = Meta::default();
                // Another processor has written it. By the time that the batch is complete it is here.
                fetch(frame.data().as_ptr(), HEADERS);
                into.push(frame);
            }
        }
        self.rx.release();
        self.filling = self.filling.saturating_sub(n as usize);
        into.len() - before
    }

    /// Puts frames into the transmit ring, in order, from the front of `frames`, until it is full or a frame has other
    /// memory than this socket's; those are removed from `frames`. Then call [`Socket::kick`]. Returns how many.
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        // The completion ring has as many entries: it must never be asked for more.
        let free = (self.lent.frames.len().min(self.tx_size()) - self.sending.min(self.tx_size())).min(frames.len());
        let n = self.tx.room(ring_count(free)) as usize;
        let fit = frames[..n].iter().position(|f| !self.takes(f)).unwrap_or(n);
        for frame in frames.drain(..fit) {
            let Some(chunk) = self.fd.umem.chunk_of(&frame) else { continue };
            let addr = self.fd.umem.address(chunk, frame.headroom());
            self.tx.write(libc::xdp_desc { addr, len: frame.len() as u32, options: 0 });
            self.lent.frames[chunk] = frame;
        }
        self.tx.publish();
        self.sending += fit;
        fit
    }

    fn tx_size(&self) -> usize {
        self.tx.size() as usize
    }

    /// Makes the kernel send what is in the transmit ring, without waiting, until the ring is empty or it takes no more.
    pub fn kick(&self) -> Kick {
        let mut outcome = Kick::default();
        // In copy mode each call sends a bounded number of frames.
        let mut patience = 3;
        loop {
            let before = self.tx.waiting();
            if before == 0 || (self.zero_copy && !self.tx.needs_wakeup()) {
                return outcome;
            }
            // SAFETY: no buffer and no address are given.
            let r = unsafe {
                libc::sendto(self.fd.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            let errno = if r < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { 0 };
            match errno {
                0 if self.zero_copy => return outcome,
                0 | libc::EINTR => {}
                libc::EBUSY => {
                    outcome.refused += 1;
                    continue;
                }
                libc::EAGAIN if self.tx.waiting() < before => {}
                // The device's lock was held, or our copies under way fill the socket's buffer.
                libc::EAGAIN => {}
                errno => {
                    outcome.stopped = Some(errno);
                    return outcome;
                }
            }
            if self.tx.waiting() == before {
                patience -= 1;
                if patience == 0 {
                    outcome.stopped = Some(if errno == 0 { libc::EAGAIN } else { errno });
                    return outcome;
                }
            }
        }
    }

    /// Takes frames that were sent and appends them to `into`, data as it was sent; returns how many.
    pub fn complete(&mut self, max: usize, into: &mut Vec<Frame>) -> usize {
        let n = self.completion.ready(ring_count(max));
        if n == 0 {
            return 0;
        }
        for _ in 0..n {
            let (chunk, _) = self.fd.umem.split(self.completion.read());
            let Some(slot) = self.lent.frames.get_mut(chunk) else { continue };
            let frame = std::mem::take(slot);
            if frame.has_memory() {
                into.push(frame);
            }
        }
        self.completion.release();
        self.sending = self.sending.saturating_sub(n as usize);
        n as usize
    }

    /// Closes the socket and gives out the frames that the kernel had; none after zero-copy, which may go on for a while.
    pub fn into_frames(self) -> Vec<Frame> {
        let Socket { fill, completion, rx, tx, fd, mut lent, .. } = self;
        drop((fill, completion, rx, tx));
        drop(fd);
        if lent.abandon {
            return Vec::new();
        }
        std::mem::take(&mut lent.frames).into_iter().filter(Frame::has_memory).collect()
    }

    /// Wakes the driver if it waits for frames in the fill ring, and lets it poll the device where busy polling is on.
    pub fn wake_receive(&self, always: bool) {
        if always || self.fill.needs_wakeup() {
            // SAFETY: no buffer and no address are given; nothing is received this way.
            unsafe {
                libc::recvfrom(
                    self.fd.fd.as_raw_fd(),
                    std::ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                )
            };
        }
    }

    /// What the kernel has counted since the socket was opened.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let s: libc::xdp_statistics = opt::get(self.fd.fd.as_fd(), libc::SOL_XDP, libc::XDP_STATISTICS)?;
        Ok(Statistics {
            rx_dropped: s.rx_dropped,
            rx_invalid: s.rx_invalid_descs,
            tx_invalid: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            fill_ring_empty: s.rx_fill_ring_empty_descs,
            tx_ring_empty: s.tx_ring_empty_descs,
        })
    }
}

impl AsFd for Socket {
    /// Readable when received frames wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.fd.as_fd()
    }
}

fn ring_count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What makes it faster where the kernel knows it and allows it.
fn tune(fd: BorrowedFd<'_>, options: &BindOptions) {
    if opt::set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER).is_err() {
        let _ = opt::set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER);
    }
    let _ = opt::set(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &options.tx_ring.min(256));
    if let Some(poll) = options.busy_poll {
        let _ = opt::set(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1i32);
        let _ = opt::set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &poll.microseconds);
        let _ = opt::set(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &poll.budget);
    }
}

/// The kernel frees the queue of a closed socket some time after close(2) has returned: a port that is opened again would
/// find it busy.
fn bind_patiently(fd: &OwnedFd, ifindex: u32, queue: u32, sharing: Option<RawFd>, copy: CopyMode) -> io::Result<()> {
    let end = Instant::now() + QUEUE_FREED;
    loop {
        match bind(fd, ifindex, queue, sharing, copy) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn bind(fd: &OwnedFd, ifindex: u32, queue: u32, sharing: Option<RawFd>, copy: CopyMode) -> io::Result<()> {
    let mut addr = MaybeUninit::<libc::sockaddr_xdp>::zeroed();
    // SAFETY: a C struct of integers: all zero is a valid value.
    let addr = unsafe { addr.assume_init_mut() };
    addr.sxdp_family = libc::AF_XDP as u16;
    addr.sxdp_ifindex = ifindex;
    addr.sxdp_queue_id = queue;
    match sharing {
        // A shared umem brings its flags along; others are refused.
        Some(first) => {
            addr.sxdp_flags = libc::XDP_SHARED_UMEM;
            addr.sxdp_shared_umem_fd = first as u32;
        }
        None => {
            addr.sxdp_flags = libc::XDP_USE_NEED_WAKEUP
                | match copy {
                    CopyMode::Any => 0,
                    CopyMode::Copy => libc::XDP_COPY,
                    CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
                };
        }
    }
    // SAFETY: pointer and length describe `addr`.
    let r = unsafe {
        libc::bind(fd.as_raw_fd(), std::ptr::from_ref(addr).cast(), size_of::<libc::sockaddr_xdp>() as libc::socklen_t)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
