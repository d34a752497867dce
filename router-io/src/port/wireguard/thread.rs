//! The thread of a WireGuard port: takes what is there from both sides, a bounded piece of each at a time, and sleeps.

use super::engine::{Effects, Engine, LoadedPeer, TICK};
use super::parcel::{Load, Parcel};
use super::socket::UdpSocket;
use super::spec::{Endpoint, Key, Status};
use crate::clock::Clock;
use crate::sys::wake::Wake;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use router_core::drop_reason::DropReason;
use router_core::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// Parcels of each worker, and calls of the socket, before the other side has its turn.
const PARCELS: usize = 64;
const CALLS: usize = 4;

/// What the control thread asks.
pub(super) enum Command {
    /// Take these peers.
    Peers(Vec<LoadedPeer>),
    /// How are you?
    Status(Sender<Status>),
}

/// One worker, as the thread sees it.
pub(super) struct Lane {
    pub from_worker: Receiver<Parcel>,
    pub spare: Sender<Parcel>,
    pub to_worker: Sender<Parcel>,
    pub emptied: Receiver<Parcel>,
    pub wake: Wake,
    pub outward: Load,
    pub inward: Load,
}

/// Everything that the thread owns.
pub(super) struct Tunneler {
    pub engine: Engine,
    pub effects: Effects,
    pub socket: UdpSocket,
    pub lanes: Vec<Lane>,
    pub commands: Receiver<Command>,
    pub wake: Wake,
    pub questions: Sender<(Key, Endpoint)>,
    pub answers: Receiver<(Key, Endpoint, SocketAddr)>,
    pub clock: Clock,
}

impl Tunneler {
    /// Runs until the handle is gone.
    pub fn run(mut self) {
        let mut due = Instant::ZERO;
        loop {
            let now = self.clock.now();
            if !self.obey(now) {
                return;
            }
            if now >= due {
                self.engine.tick(now, &mut self.effects);
                due = now + TICK;
            }
            let more = self.encrypt(now);
            let more = match self.decrypt(now) {
                Ok(left) => more | left,
                Err(error) => return tracing::error!(%error, "the UDP socket of a WireGuard port failed"),
            };
            for question in self.effects.names.drain(..) {
                // A resolver that is behind is asked again later.
                let _ = self.questions.try_send(question);
            }
            self.socket.flush(&mut self.effects);
            self.deliver();
            if !more {
                self.sleep(due);
            }
        }
    }

    /// False: nobody commands any more.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Peers(list)) => self.engine.set_peers(now, list, &mut self.effects),
                Ok(Command::Status(asker)) => drop(asker.try_send(self.engine.status(self.socket.port()))),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        while let Ok((key, name, addr)) = self.answers.try_recv() {
            self.engine.resolved(now, key, &name, addr);
        }
        true
    }

    /// True: some worker may have more.
    fn encrypt(&mut self, now: Instant) -> bool {
        let mut more = false;
        for lane in &self.lanes {
            for _ in 0..PARCELS {
                let Ok(mut parcel) = lane.from_worker.try_recv() else { break };
                lane.outward.release(&parcel);
                while let Some((padded, len)) = parcel.next() {
                    self.engine.packet(now, padded, len, &mut self.effects);
                }
                let _ = lane.spare.try_send(parcel);
                if self.effects.outbound.is_much() {
                    self.socket.flush(&mut self.effects);
                }
            }
            more |= !lane.from_worker.is_empty();
        }
        more
    }

    /// True: the socket may have more.
    fn decrypt(&mut self, now: Instant) -> std::io::Result<bool> {
        for _ in 0..CALLS {
            let (engine, effects) = (&mut self.engine, &mut self.effects);
            let more = self.socket.receive(|from, data| engine.datagram(now, from, data, effects))?;
            self.deliver();
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands decrypted packets to the workers, and tells of losses.
    fn deliver(&mut self) {
        for (lane, parcel) in self.lanes.iter().zip(&mut self.effects.inner) {
            if parcel.left() == 0 {
                continue;
            }
            let mut fresh = lane.emptied.try_recv().unwrap_or_default();
            fresh.clear();
            let full = std::mem::replace(parcel, fresh);
            if !lane.inward.admit(&full) {
                (0..full.left()).for_each(|_| self.effects.losses.rx(DropReason::WireguardBacklog));
                continue;
            }
            match lane.to_worker.try_send(full) {
                Ok(()) => lane.wake.ring(),
                Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) => {
                    lane.inward.release(&lost);
                    (0..lost.left()).for_each(|_| self.effects.losses.rx(DropReason::WireguardBacklog));
                }
            }
        }
        if let Some(first) = self.lanes.first().filter(|_| self.effects.losses.any()) {
            first.wake.ring();
        }
    }

    fn sleep(&mut self, due: Instant) {
        self.wake.listen();
        if !self.commands.is_empty() || !self.answers.is_empty() || self.lanes.iter().any(|l| !l.from_worker.is_empty())
        {
            return;
        }
        let span = due.saturating_since(self.clock.now());
        let timeout = Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) };
        let mut fds = [
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        // Whatever it says, the next turn looks at everything.
        let _ = poll(&mut fds, Some(&timeout));
    }
}
