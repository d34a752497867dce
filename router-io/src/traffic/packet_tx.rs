//! Frames over an AF_PACKET socket: sendmmsg(2) past the queueing discipline. Works on every device, with CAP_NET_RAW.

use super::frames::FrameSet;
use super::generator::{Taken, Transmitter};
use crate::sys::mmsg::{Outgoing, Sender};
use crate::sys::{opt, packet};
use router_core::frame::Frame;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

const PACKET_QDISC_BYPASS: i32 = 20;
const SEND_BUFFER: libc::c_int = 4 << 20;
/// Frames per system call: at a megaframe per second 16 microseconds apart.
const BATCH: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct PacketTx {
    fd: OwnedFd,
    sender: Sender,
    frames: Vec<Frame>,
    next: usize,
}

impl PacketTx {
    /// On the device `ifindex` of the calling thread's network namespace.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let fd = packet::plain_socket()?;
        // Old kernels lack it; then the queueing discipline drops what the device cannot take.
        let _ = opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1i32);
        if opt::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER).is_err() {
            let _ = opt::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER);
        }
        packet::bind(&fd, ifindex, false)?;
        Ok(PacketTx { fd, sender: Sender::new(BATCH), frames: Vec::new(), next: 0 })
    }

    fn call(&mut self, frames: &[Frame]) -> io::Result<Taken> {
        match self.sender.send(self.fd.as_fd(), frames, |_| Outgoing { prefix: None, name: None }) {
            Ok(taken) => Ok(Taken { taken, refused: 0 }),
            Err(e) => match e.raw_os_error() {
                // The queue of the device is full, and the kernel has dropped the frame.
                Some(libc::ENOBUFS) => Ok(Taken { taken: 0, refused: 1 }),
                // The socket's own buffer is full: nothing has happened.
                Some(libc::EAGAIN | libc::EINTR) => Ok(Taken::default()),
                _ => Err(e),
            },
        }
    }
}

impl Transmitter for PacketTx {
    fn name(&self) -> &'static str {
        "packet"
    }

    fn load(&mut self, frames: &FrameSet) -> io::Result<()> {
        self.frames = frames.iter().map(Frame::from_slice).collect();
        self.next = 0;
        Ok(())
    }

    fn send(&mut self, count: usize) -> io::Result<Taken> {
        let frames = std::mem::take(&mut self.frames);
        let end = (self.next + count.min(BATCH)).min(frames.len());
        let done = self.call(&frames[self.next..end]);
        self.next += done.as_ref().map_or(0, |t| t.taken + t.refused);
        if self.next >= frames.len() {
            self.next = 0;
        }
        self.frames = frames;
        done
    }

    fn send_now(&mut self, frame: &[u8]) -> io::Result<bool> {
        Ok(self.call(&[Frame::from_slice(frame)])?.taken == 1)
    }

    fn batch(&self) -> usize {
        BATCH
    }
}
