//! Ports: where packets enter and leave.
//!
//! A port is opened once ([`open::Opener`]) and yields one queue object per worker; each queue implements [`Port`]. Queues
//! never decide or edit: they move frames and their offload metadata between the kernel (or a channel, or a file) and
//! the core, and say what became of each.

pub mod datalink;
pub mod error;
mod host;
pub mod memory;
pub mod open;
pub mod packet;
pub mod pcap;
pub mod pcap_file;
pub mod rawip;
pub mod tun;
pub mod udp;
pub mod vnet;
pub mod wireguard;
pub mod xdp;

#[cfg(test)]
mod tests;

pub use error::PortError;

use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Most frames in one batch.
pub const BATCH: usize = 256;

/// Bytes at which a batch ends: as many as 256 frames of the usual size have. TCP super-frames are up to 64 KiB each; a batch
/// of 256 of them would be in no cache any more when it is sent, and its sender would wait for the last one.
pub const BATCH_BYTES: usize = 384 << 10;

/// Something that happened to a port beside frames. None of them is fatal to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// The device is down; it may come back, and the queue stays usable.
    LinkDown,
    /// The device is gone for good; the queue is useless.
    Vanished,
    /// The queue failed with this errno and is useless.
    Broken(i32),
    /// The kernel dropped this many frames before they were received: the worker does not keep up.
    Overrun(u64),
    /// The host's stack knows that packets to `dst` may have `mtu` bytes at most (outer packets of a tunnel).
    PathMtu {
        /// Destination of the packet that was too long.
        dst: IpAddr,
        /// Largest packet in bytes.
        mtu: u32,
    },
}

impl PortEvent {
    /// Whether the queue must not be polled again.
    pub fn ends_queue(&self) -> bool {
        matches!(self, PortEvent::Vanished | PortEvent::Broken(_))
    }
}

/// Why a receive call gave no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// A frame was taken, but what came with it cannot be right or cannot be expressed; it is lost.
    Malformed,
    /// Something happened to the port.
    Event(PortEvent),
}

/// Why a frame was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Under which it is counted.
    pub reason: DropReason,
    /// What the control thread should know.
    pub event: Option<PortEvent>,
}

impl SendError {
    /// An error that needs no attention beyond the count.
    pub fn new(reason: DropReason) -> Self {
        SendError { reason, event: None }
    }

    /// The usual meaning of an errno from a send call.
    pub fn from_errno(errno: i32) -> Self {
        let (reason, event) = match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => (DropReason::TxFull, None),
            libc::ENETDOWN => (DropReason::PortDown, Some(PortEvent::LinkDown)),
            libc::ENXIO | libc::ENODEV | libc::EBADFD => (DropReason::PortGone, Some(PortEvent::Vanished)),
            _ => (DropReason::TxError, None),
        };
        SendError { reason, event }
    }
}

/// Outcome of a receive batch beside its frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecvReport {
    /// Frames taken and lost ([`RecvError::Malformed`]): received, and dropped as offload_malformed.
    pub malformed: u64,
    /// The batch ended at [`BATCH_BYTES`]: more may wait.
    pub heavy: bool,
    /// What happened to the port; nothing more was received after it.
    pub event: Option<PortEvent>,
    /// Frames taken and lost for other reasons, and how many: by ports that look into what they receive.
    pub dropped: Vec<(DropReason, u64)>,
    /// Frames that were taken for sending earlier, and then could not be sent.
    pub undone: Vec<Refused>,
}

/// A frame that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Under which it is counted.
    pub reason: DropReason,
    /// Its length.
    pub bytes: usize,
}

/// Outcome of a send batch. Frames not listed were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Frames that were not sent.
    pub refused: Vec<Refused>,
    /// What happened to the port, without repetitions.
    pub events: Vec<PortEvent>,
}

impl SendReport {
    /// Notes that the frames of these lengths were not sent.
    pub fn refuse(&mut self, error: SendError, lengths: impl IntoIterator<Item = usize>) {
        let reason = error.reason;
        self.refused.extend(lengths.into_iter().map(|bytes| Refused { reason, bytes }));
        if let Some(e) = error.event.filter(|e| !self.events.contains(e)) {
            self.events.push(e);
        }
    }

    /// Forgets everything; the memory stays.
    pub fn clear(&mut self) {
        self.refused.clear();
        self.events.clear();
    }
}

/// The ability to receive.
pub trait Receive {
    /// Receives one frame into `frame` (empty, headroom in front), without waiting. False: none is there.
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError>;

    /// Receives up to `max` frames from `pool`, or [`BATCH_BYTES`], and appends them to `batch`, without waiting.
    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        let mut bytes = 0;
        for _ in 0..max {
            let Some(mut frame) = take_frame(pool) else { return };
            match self.recv(&mut frame) {
                Ok(true) => {
                    bytes += frame.len();
                    batch.push(frame);
                    if bytes >= BATCH_BYTES {
                        report.heavy = true;
                        return;
                    }
                }
                Ok(false) => return pool.put(frame),
                Err(e) => {
                    pool.put(frame);
                    match e {
                        RecvError::Malformed => report.malformed += 1,
                        RecvError::Event(e) => {
                            report.event = Some(e);
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// The ability to send.
pub trait Transmit {
    /// Sends one frame, without waiting. The frame may be edited, or taken (leaving [`Frame::default`]).
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError>;

    /// Sends all of `frames`, without waiting, and empties it; memory that is not needed any more goes to `pool`.
    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        for mut frame in frames.drain(..) {
            let len = frame.len();
            if let Err(e) = self.send(&mut frame) {
                report.refuse(e, [len]);
            }
            pool.put(frame);
        }
    }
}

/// One queue of a port, owned by one worker.
pub trait Port: Receive + Transmit + Send {
    /// Readable when frames wait. None: this queue never receives by itself (it only sends, or is driven by hand).
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// What it takes at egress.
    fn caps(&self) -> PortCaps;

    /// What its frames look like.
    fn medium(&self) -> Medium;

    /// Frames that were lost before [`Receive`] since the last call, because this queue was not served fast enough.
    fn take_overruns(&mut self) -> u64 {
        0
    }

    /// Looking for frames costs no system call: a worker under load asks again and again before it sleeps.
    fn polls_cheaply(&self) -> bool {
        false
    }

    /// A worker takes the queue into service; its buffers come from `pool` from now on.
    fn enter_service(&mut self, _pool: &mut FramePool) {}

    /// The worker is about to close the queue.
    fn leave_service(&mut self, _pool: &mut FramePool) {}
}

/// A frame from the pool. When frames have left for good (to the control thread, through a memory port), the pool makes
/// a few new ones: a port must never leave frames in the kernel and spin because of that.
pub(crate) fn take_frame(pool: &mut FramePool) -> Option<Frame> {
    pool.take().or_else(|| {
        pool.refill(32);
        pool.take()
    })
}
