//! Receive rings of AF_PACKET sockets (TPACKET_V2): the kernel writes each frame to the next slot of a mapped ring and says
//! so in the slot's status word; no system call per batch.
//!
//! Version 2 and not 3: blocks of version 3 are handed over by a timer when they do not fill, a millisecond late. What does
//! not fit a slot (super-frames) waits in the socket's queue, and its slot says so: see [`Slot::elsewhere`].

use super::opt::{self, Plain};
use crate::port::vnet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

const PACKET_RX_RING: i32 = 5;
const PACKET_COPY_THRESH: i32 = 7;
const PACKET_VERSION: i32 = 10;
const TPACKET_V2: i32 = 1;
const TP_STATUS_KERNEL: u32 = 0;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_COPY: u32 = 1 << 1;

/// Bytes per slot: a header and a frame of 1500 bytes of payload.
const SLOT: usize = 2048;
/// Slots: two milliseconds of a million frames per second.
const SLOTS: usize = 2048;
/// Bytes per block of contiguous memory that the kernel allocates.
const BLOCK: usize = 64 << 10;

/// struct tpacket_req.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Request {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
}

// SAFETY: a C struct of integers.
unsafe impl Plain for Request {}

/// struct tpacket2_hdr.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Header {
    status: u32,
    len: u32,
    captured: u32,
    mac: u16,
    net: u16,
    seconds: u32,
    nanoseconds: u32,
    tci: u16,
    tpid: u16,
    padding: [u8; 4],
}

/// A mapped ring. Dropped before its socket is closed or after: the mapping keeps the kernel's memory.
#[derive(Debug)]
pub struct RxRing {
    memory: NonNull<u8>,
    next: usize,
}

// SAFETY: the pointer leads into a mapping that this value alone owns.
unsafe impl Send for RxRing {}

/// A frame in the ring, the caller's until [`RxRing::release`].
#[derive(Debug)]
pub struct Slot<'a> {
    /// TP_STATUS_ bits.
    pub status: u32,
    /// The offload header in front of the frame.
    pub prefix: &'a [u8; vnet::LEN],
    /// The frame, or its beginning.
    pub data: &'a [u8],
    /// Its whole length.
    pub len: usize,
    /// The VLAN tag that the kernel took out, if `status` says so.
    pub tci: u16,
    /// The tag's protocol, if `status` says so.
    pub tpid: u16,
}

impl Slot<'_> {
    /// The whole frame waits in the socket's queue: receive it there, in turn.
    pub fn elsewhere(&self) -> bool {
        self.status & TP_STATUS_COPY != 0
    }
}

impl RxRing {
    /// Makes the ring of a socket that has offload headers switched on already and is not bound yet.
    pub fn new(fd: &OwnedFd) -> io::Result<Self> {
        opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_VERSION, &TPACKET_V2)?;
        // Whatever does not fit a slot is queued.
        opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_COPY_THRESH, &1i32)?;
        let request = Request {
            block_size: BLOCK as u32,
            block_count: (SLOTS * SLOT / BLOCK) as u32,
            frame_size: SLOT as u32,
            frame_count: SLOTS as u32,
        };
        opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_RX_RING, &request)?;
        // SAFETY: a fresh mapping, placed by the kernel.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SLOTS * SLOT,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(RxRing { memory: NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?, next: 0 })
    }

    fn slot(&self) -> NonNull<u8> {
        // SAFETY: `next` is below SLOTS, so this lies in the mapping.
        unsafe { self.memory.add(self.next * SLOT) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the status word is the first of the slot's header, aligned, and only accessed atomically by us.
        unsafe { self.slot().cast::<AtomicU32>().as_ref() }
    }

    /// The oldest frame, if there is one.
    pub fn peek(&self) -> Option<Slot<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot's status says that the kernel has handed it over; it does not write there until `release`, which
        // needs `&mut self`. The header is at the slot's beginning; any bit pattern is valid.
        let (header, bytes) = unsafe {
            (self.slot().cast::<Header>().read(), std::slice::from_raw_parts(self.slot().as_ptr().cast_const(), SLOT))
        };
        let mac = usize::from(header.mac);
        let data = bytes.get(mac..mac + header.captured as usize).unwrap_or_default();
        let prefix = mac.checked_sub(vnet::LEN).and_then(|at| bytes.get(at..)).and_then(|b| b.first_chunk());
        const NONE: [u8; vnet::LEN] = [0; vnet::LEN];
        Some(Slot {
            status,
            prefix: prefix.unwrap_or(&NONE),
            data,
            len: header.len as usize,
            tci: header.tci,
            tpid: header.tpid,
        })
    }

    /// Gives the oldest slot back to the kernel.
    pub fn release(&mut self) {
        self.status().store(TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing of it is borrowed.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), SLOTS * SLOT) };
    }
}
