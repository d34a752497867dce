//! A worker's end of a WireGuard port: bounded channels of parcels, and what the port's thread has lost.

use super::parcel::{Load, Parcel};
use crate::port::{
    Port, PortEvent, Receive, RecvError, RecvReport, Refused, SendError, SendReport, Transmit, take_frame,
};
use crate::sys::wake::Wake;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What was lost between workers and wire, until a worker has it in its counters.
#[derive(Debug)]
pub(super) struct Losses {
    any: AtomicBool,
    received: Vec<AtomicU64>,
    /// Packets, and their bytes.
    sent: Vec<(AtomicU64, AtomicU64)>,
}

impl Losses {
    pub fn new() -> Self {
        Losses {
            any: AtomicBool::new(false),
            received: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            sent: DropReason::ALL.iter().map(|_| Default::default()).collect(),
        }
    }

    /// A datagram that came in is lost.
    pub fn rx(&self, reason: DropReason) {
        self.received[reason.index()].fetch_add(1, Relaxed);
        self.any.store(true, std::sync::atomic::Ordering::Release);
    }

    /// A worker's packet of `len` bytes is lost.
    pub fn tx(&self, reason: DropReason, len: usize) {
        let (packets, bytes) = &self.sent[reason.index()];
        packets.fetch_add(1, Relaxed);
        bytes.fetch_add(len as u64, Relaxed);
        self.any.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Whether there is something to take.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Moves everything into the report of a queue.
    pub fn take(&self, report: &mut RecvReport) {
        if !self.any.swap(false, std::sync::atomic::Ordering::AcqRel) {
            return;
        }
        for reason in DropReason::ALL.iter().copied() {
            let n = self.received[reason.index()].swap(0, Relaxed);
            if n > 0 {
                report.dropped.push((reason, n));
            }
            let (packets, bytes) = &self.sent[reason.index()];
            let (n, bytes) = (packets.swap(0, Relaxed), bytes.swap(0, Relaxed));
            // Only the sum of the bytes is known.
            let all = |i| if i == 0 { bytes as usize } else { 0 };
            report.undone.extend((0..n).map(|i| Refused { reason, bytes: all(i) }));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    pub to_thread: Sender<Parcel>,
    /// Emptied parcels that come back from the thread.
    pub spare: Receiver<Parcel>,
    pub wake_thread: Wake,
    /// What is under way to the thread, and from it.
    pub outward: Load,
    pub inward: Load,
    pub from_thread: Receiver<Parcel>,
    /// Emptied parcels that go back to it.
    pub emptied: Sender<Parcel>,
    pub wake: Wake,
    pub current: Parcel,
    /// The first queue accounts for losses.
    pub losses: Option<Arc<Losses>>,
    pub mtu: usize,
    pub gone: bool,
}

impl Queue {
    /// Makes a packet the current one's. False: none is there.
    fn next(&mut self) -> Result<bool, RecvError> {
        if self.current.left() > 0 {
            return Ok(true);
        }
        // Silence first, look again afterwards: a parcel sent in between rings anew.
        let next = self.from_thread.try_recv().or_else(|_| {
            self.wake.listen();
            self.from_thread.try_recv()
        });
        match next {
            Ok(next) => {
                self.inward.release(&next);
                let old = std::mem::replace(&mut self.current, next);
                let _ = self.emptied.try_send(old);
                Ok(self.current.left() > 0)
            }
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) if self.gone => Ok(false),
            Err(TryRecvError::Disconnected) => {
                self.gone = true;
                Err(RecvError::Event(PortEvent::Broken(libc::EPIPE)))
            }
        }
    }
}

impl Receive for Queue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        while self.next()? {
            if let Some((packet, _)) = self.current.next() {
                return if frame.set_data(packet) { Ok(true) } else { Err(RecvError::Malformed) };
            }
        }
        Ok(false)
    }

    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        if let Some(losses) = &self.losses {
            losses.take(report);
        }
        for _ in 0..max {
            let Some(mut frame) = take_frame(pool) else { break };
            match self.recv(&mut frame) {
                Ok(true) => {
                    batch.push(frame);
                    continue;
                }
                Ok(false) => {}
                Err(RecvError::Malformed) => {
                    report.malformed += 1;
                    pool.put(frame);
                    continue;
                }
                Err(RecvError::Event(e)) => report.event = Some(e),
            }
            return pool.put(frame);
        }
        // More is there than fits one batch: come back.
        if self.current.left() > 0 || !self.from_thread.is_empty() {
            self.wake.ring();
        }
    }
}

impl Transmit for Queue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        let mut parcel = self.spare.try_recv().unwrap_or_default();
        parcel.clear();
        parcel.push_padded(frame.data(), self.mtu);
        self.hand_over(parcel)
    }

    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let mut parcel = self.spare.try_recv().unwrap_or_default();
            parcel.clear();
            let mut n = 0;
            while let Some(frame) = rest.get(n).filter(|_| !parcel.is_full()) {
                parcel.push_padded(frame.data(), self.mtu);
                n += 1;
            }
            if let Err(e) = self.hand_over(parcel) {
                report.refuse(e, rest[..n].iter().map(Frame::len));
            }
            rest = &rest[n..];
        }
        frames.drain(..).for_each(|f| pool.put(f));
    }
}

impl Queue {
    fn hand_over(&mut self, parcel: Parcel) -> Result<(), SendError> {
        if !self.outward.admit(&parcel) {
            return Err(SendError::new(DropReason::TxFull));
        }
        match self.to_thread.try_send(parcel) {
            Ok(()) => {
                self.wake_thread.ring();
                Ok(())
            }
            Err(TrySendError::Full(parcel)) => {
                self.outward.release(&parcel);
                Err(SendError::new(DropReason::TxFull))
            }
            Err(TrySendError::Disconnected(_)) => Err(SendError::new(DropReason::PortGone)),
        }
    }
}

impl Port for Queue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        Medium::Ip
    }
}
