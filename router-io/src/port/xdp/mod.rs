//! `xdp`: Ethernet frames of a network device by AF_XDP, one socket per receive queue of the device.
//!
//! An XDP program hands every frame of the device to the sockets before the kernel makes anything of it, so the host's own
//! stack sees none. The frames lie in memory shared with the kernel ([`memory`]) and are forwarded where they lie.
//!
//! The rings carry bytes and nothing else. A checksum that the sender left to the hardware is found by its value
//! ([`router_core::offload::find_partial`]), and what goes out is finished before. Super-frames do not exist here: a driver
//! with an XDP program makes none, and a veth peer stops sending them.

pub mod memory;
mod open;

#[cfg(test)]
mod tests;

pub use open::{XdpMode, XdpOptions, can_be_xdp, open};

use super::packet::{self, PacketQueue};
use super::vnet;
use super::{Port, Receive, RecvError, RecvReport, SendError, SendReport, Transmit};
use crate::sys::xsk::{Kick, Socket};
use memory::{PER_QUEUE, RING, Shared};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool, Home};
use router_core::offload;
use router_core::port::{Medium, PortCaps};
use rustix::event::epoll;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A worker's part of an `xdp` port: the sockets of its receive queues.
#[derive(Debug)]
pub struct XdpQueue {
    lanes: Vec<Lane>,
    /// Readable when one of several sockets is.
    poll: Option<OwnedFd>,
    /// The lane that is asked first next time.
    next: usize,
    /// Frames may come with unfinished checksums: the device is not a real one.
    partial: bool,
}

/// One socket, and frames on their way into or out of it.
#[derive(Debug)]
struct Lane {
    socket: Socket,
    shared: Arc<Shared>,
    home: Home,
    /// Allotted frames that were not given to the kernel at opening; empty once the worker has them.
    spare: Vec<Frame>,
    passing: Vec<Frame>,
    lost: u64,
}

impl XdpQueue {
    /// At least one lane.
    fn new(lanes: Vec<Lane>, partial: bool) -> std::io::Result<Self> {
        let mut poll = None;
        if lanes.len() > 1 {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for (i, lane) in lanes.iter().enumerate() {
                epoll::add(&set, &lane.socket, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
            }
            poll = Some(set);
        }
        Ok(XdpQueue { lanes, poll, next: 0, partial })
    }

    /// Reads what the rings do not say from the bytes.
    fn mark(&self, frame: &mut Frame) {
        if self.partial
            && let Some(at) = vnet::ethernet_payload(frame.data())
        {
            frame.meta.csum = offload::find_partial(frame.data(), at);
        }
    }
}

impl Lane {
    /// Takes up to `max` frames and gives the kernel as many empty ones.
    fn receive(&mut self, max: usize, pool: &mut FramePool, into: &mut Vec<Frame>) -> usize {
        let n = self.socket.receive(max, into);
        let want = (RING as usize).saturating_sub(self.socket.filling());
        // In pieces: each look at the kernel's index may cost a cache miss.
        if want >= 64 || self.socket.filling() == 0 {
            let room = self.socket.fill_room(want);
            self.passing.extend(std::iter::from_fn(|| pool.take_lent(self.home)).take(room));
            self.socket.fill(&mut self.passing);
            self.passing.drain(..).for_each(|f| pool.put(f));
            self.socket.wake_receive(false);
        }
        n
    }

    /// Gives sent frames back to the pool.
    fn complete(&mut self, pool: &mut FramePool) {
        self.socket.complete(2 * RING as usize, &mut self.passing);
        self.passing.drain(..).for_each(|f| pool.put(f));
    }

    /// Replaces a frame in other memory by a copy in the socket's.
    fn adopt(&self, frame: &mut Frame, pool: &mut FramePool) -> Result<(), SendError> {
        if self.socket.takes(frame) {
            return Ok(());
        }
        let Some(mut copy) = pool.take_lent(self.home) else { return Err(SendError::new(DropReason::TxFull)) };
        if !copy.set_data(frame.data()) {
            pool.put(copy);
            return Err(SendError::new(DropReason::TxError));
        }
        pool.put(std::mem::replace(frame, copy));
        Ok(())
    }

    /// Sends all of `frames`, and says which it could not.
    fn send(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        self.complete(pool);
        frames.retain_mut(|f| match prepare(f).and_then(|()| self.adopt(f, pool)) {
            Ok(()) => true,
            Err(e) => {
                report.refuse(e, [f.len()]);
                pool.put(std::mem::take(f));
                false
            }
        });
        let mut stuck = false;
        while !frames.is_empty() {
            let put = self.socket.transmit(frames);
            let kick = self.socket.kick();
            self.complete(pool);
            note(kick, report);
            if put == 0 {
                // Once more after completions; then the device is too slow.
                if stuck {
                    break;
                }
                stuck = true;
            }
        }
        if !frames.is_empty() {
            report.refuse(SendError::new(DropReason::TxFull), frames.iter().map(Frame::len));
            frames.drain(..).for_each(|f| pool.put(f));
        }
    }
}

/// What the kernel said to the frames that it should send.
fn note(kick: Kick, report: &mut SendReport) {
    if kick.refused > 0 {
        report.refuse(SendError::new(DropReason::TxFull), std::iter::repeat_n(0, kick.refused));
    }
    match kick.stopped {
        None | Some(libc::EAGAIN) => {}
        // The frames stay in the ring, and will be sent or freed with it: only the state of the link is news.
        Some(errno) => {
            if let Some(event) = SendError::from_errno(errno).event.filter(|e| !report.events.contains(e)) {
                report.events.push(event);
            }
        }
    }
}

/// Puts the VLAN tag back into the bytes.
fn prepare(frame: &mut Frame) -> Result<(), SendError> {
    match frame.meta.vlan_tci.take() {
        Some(tci) if !vnet::insert_vlan_tag(frame, packet::TPID_8021Q, tci) => {
            Err(SendError::new(DropReason::NoHeadroom))
        }
        _ => Ok(()),
    }
}

impl Receive for XdpQueue {
    /// One at a time, without giving the kernel new frames: use [`Receive::recv_batch`].
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        let mut one = Vec::with_capacity(1);
        for lane in &mut self.lanes {
            if lane.socket.receive(1, &mut one) > 0 {
                break;
            }
        }
        let Some(mut got) = one.pop() else { return Ok(false) };
        self.mark(&mut got);
        *frame = got;
        Ok(true)
    }

    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, _: &mut RecvReport) {
        let before = batch.len();
        let count = self.lanes.len();
        for i in 0..count {
            let left = max - (batch.len() - before);
            if left == 0 {
                break;
            }
            let at = (self.next + i) % count;
            self.lanes[at].receive(left, pool, batch);
        }
        // Another one first next time, so that a busy queue cannot starve the others.
        self.next = (self.next + 1) % count.max(1);
        for frame in &mut batch[before..] {
            self.mark(frame);
        }
    }
}

impl Transmit for XdpQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        prepare(frame)?;
        let Some(lane) = self.lanes.first_mut() else { return Err(SendError::new(DropReason::PortGone)) };
        if !lane.socket.takes(frame) {
            return Err(SendError::new(DropReason::TxError));
        }
        let mut one = vec![std::mem::take(frame)];
        if lane.socket.transmit(&mut one) == 0 {
            *frame = one.pop().unwrap_or_default();
            return Err(SendError::new(DropReason::TxFull));
        }
        match lane.socket.kick() {
            Kick { refused: 0, stopped: None | Some(libc::EAGAIN) } => Ok(()),
            Kick { stopped: Some(errno), .. } => Err(SendError::from_errno(errno)),
            Kick { .. } => Err(SendError::new(DropReason::TxFull)),
        }
    }

    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        match self.lanes.first_mut() {
            Some(lane) => lane.send(frames, pool, report),
            None => frames.drain(..).for_each(|f| pool.put(f)),
        }
    }
}

impl Port for XdpQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.poll {
            Some(set) => Some(set.as_fd()),
            None => self.lanes.first().map(|l| l.socket.as_fd()),
        }
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        Medium::Ethernet
    }

    fn take_overruns(&mut self) -> u64 {
        let lost = |lane: &mut Lane| {
            let Ok(s) = lane.socket.statistics() else { return 0 };
            let now = s.rx_dropped + s.rx_ring_full;
            now - std::mem::replace(&mut lane.lost, now)
        };
        self.lanes.iter_mut().map(lost).sum()
    }

    fn polls_cheaply(&self) -> bool {
        true
    }

    fn enter_service(&mut self, pool: &mut FramePool) {
        for lane in &mut self.lanes {
            pool.add_home(lane.home, PER_QUEUE);
            lane.spare.drain(..).for_each(|f| pool.put(f));
        }
    }

    fn leave_service(&mut self, pool: &mut FramePool) {
        for Lane { socket, shared, home, spare, .. } in self.lanes.drain(..) {
            let mut frames = spare;
            frames.extend(socket.into_frames());
            // What other ports have of ours comes back to them; we take what the pool has in its place.
            while frames.len() < PER_QUEUE {
                let Some(frame) = pool.take_lent(home) else { break };
                frames.push(frame);
            }
            pool.shrink_home(home, PER_QUEUE);
            shared.give_back(frames);
        }
    }
}

/// What a worker has of a port: sockets of its own, or, when the device has fewer receive queues than there are workers,
/// a packet socket to send through.
#[derive(Debug)]
pub enum Queue {
    /// Sockets of its own.
    Xdp(XdpQueue),
    /// Only sends.
    Sender(Box<PacketQueue>),
}

impl Queue {
    /// As a port's queue.
    pub fn boxed(self) -> Box<dyn Port> {
        match self {
            Queue::Xdp(q) => Box::new(q),
            Queue::Sender(q) => q,
        }
    }
}
