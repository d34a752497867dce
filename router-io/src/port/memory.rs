//! `memory`: two ports joined by bounded channels inside the process. Frames move, with their metadata; a full channel
//! refuses.

use super::{Port, PortEvent, Receive, RecvError, SendError, Transmit};
use crate::sys::wake::Wake;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use router_core::port::{Medium, PortCaps};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// One end of a pair. What one end sends the other receives.
#[derive(Debug)]
pub struct MemoryPort {
    out: Sender<Frame>,
    wake_peer: Wake,
    input: Receiver<Frame>,
    wake: Wake,
    medium: Medium,
    caps: PortCaps,
}

/// Two joined ports, at most `capacity` frames under way in each direction. `caps` says what the receiving ends bear;
/// metadata travels in any case.
pub fn pair(medium: Medium, caps: PortCaps, capacity: usize) -> io::Result<(MemoryPort, MemoryPort)> {
    let ((to_b, from_a), (to_a, from_b)) = (bounded(capacity), bounded(capacity));
    let (wake_a, wake_b) = (Wake::new()?, Wake::new()?);
    let a = MemoryPort { out: to_b, wake_peer: wake_b.clone(), input: from_b, wake: wake_a.clone(), medium, caps };
    let b = MemoryPort { out: to_a, wake_peer: wake_a, input: from_a, wake: wake_b, medium, caps };
    Ok((a, b))
}

impl MemoryPort {
    /// Takes the next frame as it is, without copying. None: none is there, or the other end is gone.
    pub fn take(&mut self) -> Option<Frame> {
        self.input.try_recv().ok()
    }

    /// Waits up to `timeout` for the next frame.
    pub fn take_timeout(&mut self, timeout: std::time::Duration) -> Option<Frame> {
        self.input.recv_timeout(timeout).ok()
    }
}

impl Receive for MemoryPort {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        // Silence first, look again afterwards: a frame sent in between rings anew.
        let next = self.input.try_recv().or_else(|_| {
            self.wake.listen();
            self.input.try_recv()
        });
        match next {
            Ok(next) => {
                // Copied when it fits, so that frames stay in the pools of their workers.
                let meta = next.meta;
                if !frame.set_data(next.data()) {
                    *frame = next;
                }
                frame.meta = meta;
                Ok(true)
            }
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(RecvError::Event(PortEvent::Vanished)),
        }
    }
}

impl Transmit for MemoryPort {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        // A copy that fits: a batch of 64 KiB buffers under way would be a lot of memory.
        let mut copy = Frame::from_slice(frame.data());
        copy.meta = frame.meta;
        match self.out.try_send(copy) {
            Ok(()) => {
                self.wake_peer.ring();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(SendError::new(DropReason::TxFull)),
            Err(TrySendError::Disconnected(_)) => {
                Err(SendError { reason: DropReason::PortGone, event: Some(PortEvent::Vanished) })
            }
        }
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        // The peer learns that we are gone.
        self.wake_peer.ring();
    }
}

impl Port for MemoryPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn medium(&self) -> Medium {
        self.medium
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{RecvReport, Refused, SendReport};
    use router_core::frame::{FramePool, PartialChecksum};

    #[test]
    fn frames_cross_with_their_metadata_and_a_full_channel_refuses() {
        let (mut a, mut b) = pair(Medium::Ip, PortCaps::default(), 2).unwrap();
        let mut pool = FramePool::new(8, 100);
        let mut frames: Vec<_> = (0..3u8).map(|i| Frame::from_slice(&[i; 20])).collect();
        frames[0].meta.csum = Some(PartialChecksum { start: 2, offset: 6 });
        let mut sent = SendReport::default();
        a.send_batch(&mut frames, &mut pool, &mut sent);
        assert!(frames.is_empty());
        assert_eq!(sent.refused, [Refused { reason: DropReason::TxFull, bytes: 20 }]);
        let (mut batch, mut got) = (Vec::new(), RecvReport::default());
        b.recv_batch(256, &mut pool, &mut batch, &mut got);
        assert_eq!(batch.iter().map(|f| f.data()[0]).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(batch[0].meta.csum, Some(PartialChecksum { start: 2, offset: 6 }));
        assert_eq!(got, RecvReport::default());
        drop(a);
        b.recv_batch(256, &mut pool, &mut batch, &mut got);
        assert_eq!(got.event, Some(PortEvent::Vanished));
        assert_eq!(b.send(&mut Frame::from_slice(&[1])).unwrap_err().reason, DropReason::PortGone);
    }
}
