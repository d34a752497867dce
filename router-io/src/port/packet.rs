//! `packet`: Ethernet frames of a network device by AF_PACKET, one socket per worker.
//!
//! Super-frames and unfinished checksums pass in both directions (PACKET_VNET_HDR), VLAN tags that the kernel took out
//! come back from the auxiliary data, copies of what this host sends are ignored. Frames come through a mapped ring; those too
//! long for a slot by recvmmsg, in turn. They leave by sendmmsg; super-frames in a tunnel by a socket of their own, whose
//! packets a program of ours makes known to the kernel as what they are ([`crate::sys::bpf::tunnel`]). The socket sees frames beside the
//! host's own stack, not instead of it; [`crate::netlink::KernelBlock`] keeps that from acting on them.

use super::error::{NET_RAW, PortError};
use super::vnet;
use super::{
    BATCH, BATCH_BYTES, Port, PortEvent, Receive, RecvError, RecvReport, SendError, SendReport, Transmit, take_frame,
};
use crate::sys::bpf::tunnel::MARK;
use crate::sys::bpf::{Link, Program, Way};
use crate::sys::device::Device;
use crate::sys::mmsg::{self, Outgoing, Received};
use crate::sys::opt;
use crate::sys::packet as sys;
use crate::sys::packet_ring::{RxRing, Slot};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
pub(super) const TPID_8021Q: u16 = 0x8100;

/// The socket is asked for an error after so many looks into an empty ring.
const EMPTY_LOOKS: u32 = 32;

/// The fewest frames that a call for frames of the usual size asks for.
const LEAST: usize = 32;
/// The fewest in any case.
const FEW: usize = 4;

/// One socket on a device.
#[derive(Debug)]
pub struct PacketQueue {
    fd: OwnedFd,
    ifindex: u32,
    receives: bool,
    /// None: frames come by recvmmsg.
    ring: Option<RxRing>,
    /// Sends super-frames that lie in a tunnel, where the kernel can be told what they are.
    tunnels: Option<OwnedFd>,
    rx: mmsg::Receiver,
    tx: mmsg::Sender,
    /// Frames lent to the next receive call.
    lent: Vec<Frame>,
    /// How many frames the next call asks for: follows the load, so that a quiet port does not borrow a whole batch.
    want: usize,
    /// Looks into an empty ring.
    empty: u32,
}

/// What a configuration may say about a `packet` port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketOptions {
    /// Receive frames for all stations.
    pub promiscuous: bool,
    /// Send past the queueing discipline of the device.
    pub qdisc_bypass: bool,
}

/// Opens `queues` sockets on `device`. With more than one, the kernel spreads flows over them (PACKET_FANOUT); where it
/// cannot (the device is down), the first receives everything.
pub fn open(
    port: &str,
    device: &str,
    options: PacketOptions,
    queues: usize,
) -> Result<(Vec<PacketQueue>, Device), PortError> {
    let failed = |action: String, e: io::Error| match e.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => PortError::NoDevice { port: port.to_owned(), device: device.to_owned() },
        _ => PortError::system(port, action, NET_RAW, e),
    };
    let facts = Device::new(device).map_err(|e| failed(format!("look at {device}"), e))?;
    let ifindex = facts.index().map_err(|e| failed(format!("look at {device}"), e))?;
    if facts.mac().map_err(|e| failed(format!("read the address of {device}"), e))?.is_none() {
        let reason = format!("{device} is not an Ethernet device; use kind = \"rawip\" or \"tun\" beside it");
        return Err(PortError::Config { port: port.to_owned(), reason });
    }
    let mut sockets = Vec::with_capacity(queues.max(1));
    let mut group = None;
    for i in 0..queues.max(1) {
        let fd = sys::socket().map_err(|e| failed(format!("open a packet socket on {device}"), e))?;
        if options.qdisc_bypass {
            sys::bypass_qdisc(&fd).map_err(|e| failed("bypass the queueing discipline".to_owned(), e))?;
        }
        // Made before the socket hears anything, so that nothing waits in its queue that is not in the ring.
        let ring = match i == 0 || group.is_some() {
            true => RxRing::new(&fd).inspect_err(|e| tracing::debug!(port, error = %e, "no receive ring")).ok(),
            false => None,
        };
        let mut receives = i == 0;
        sys::bind(&fd, ifindex, i == 0).map_err(|e| failed(format!("bind a packet socket to {device}"), e))?;
        if i == 0 && queues > 1 {
            group = sys::new_fanout(&fd).ok();
        } else if let Some(group) = group {
            // Fanout wants a receiving socket; one that then cannot join would see every frame twice.
            receives = sys::bind(&fd, ifindex, true).and_then(|()| sys::join_fanout(&fd, group)).is_ok();
            if !receives {
                sys::bind(&fd, ifindex, false).map_err(|e| failed(format!("bind a packet socket to {device}"), e))?;
            }
        }
        sockets.push((fd, receives, ring));
    }
    // Without it a device that filters groups hears no neighbour solicitation for the router (RFC 4861 7.2.1).
    let what = || format!("let {device} receive all multicast");
    sys::set_all_multicast(&sockets[0].0, ifindex).map_err(|e| failed(what(), e))?;
    if options.promiscuous {
        let what = || format!("set {device} promiscuous");
        sys::set_promiscuous(&sockets[0].0, ifindex).map_err(|e| failed(what(), e))?;
    }
    let queues =
        sockets.into_iter().map(|(fd, receives, ring)| PacketQueue::new(fd, ifindex, receives, ring)).collect();
    Ok((queues, facts))
}

/// Gives each queue a socket for super-frames in a tunnel, and the device the program that they need, for as long as the
/// result lives. Not for frames that get a VLAN tag, and not past the queueing discipline: both escape the program.
pub fn send_tunnels(queues: &mut [PacketQueue], ifindex: u32) -> io::Result<Link> {
    let program = Program::encapsulate().map_err(crate::sys::bpf::LoadError::into_io)?;
    let link = program.attach_traffic(ifindex, Way::Out)?;
    let mut sockets = Vec::with_capacity(queues.len());
    for _ in 0..queues.len() {
        let fd = sys::socket()?;
        sys::set_mark(&fd, MARK)?;
        sys::bind(&fd, ifindex, false)?;
        sockets.push(fd);
    }
    for (queue, fd) in queues.iter_mut().zip(sockets) {
        queue.tunnels = Some(fd);
    }
    Ok(link)
}

/// A socket that only sends on the device `ifindex`.
pub(super) fn open_sender(ifindex: u32) -> io::Result<PacketQueue> {
    let fd = sys::socket()?;
    sys::bind(&fd, ifindex, false)?;
    Ok(PacketQueue::new(fd, ifindex, false, None))
}

impl PacketQueue {
    /// The socket that receives.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn new(fd: OwnedFd, ifindex: u32, receives: bool, ring: Option<RxRing>) -> Self {
        let (rx, tx) = (mmsg::Receiver::new(BATCH), mmsg::Sender::new(BATCH));
        let lent = Vec::with_capacity(BATCH);
        PacketQueue { fd, ifindex, receives, ring, tunnels: None, rx, tx, lent, want: LEAST, empty: 0 }
    }

    /// One recvmmsg into `frames`: how many datagrams came.
    fn receive(&mut self, frames: &mut [Frame]) -> Result<usize, RecvError> {
        match self.rx.receive(self.fd.as_fd(), frames, vnet::LEN, 0) {
            Ok(n) => Ok(n),
            Err(e) => match e.raw_os_error().unwrap_or(libc::EIO) {
                libc::EAGAIN | libc::EINTR => Ok(0),
                // A frame whose offloads virtio_net_hdr cannot express (a tunnel's super-frame): the kernel dropped it.
                libc::EINVAL | libc::ENOBUFS => Err(RecvError::Malformed),
                libc::ENETDOWN => Err(RecvError::Event(self.down_or_gone())),
                libc::ENODEV | libc::ENXIO => Err(RecvError::Event(PortEvent::Vanished)),
                errno => Err(RecvError::Event(PortEvent::Broken(errno))),
            },
        }
    }

    /// After ENETDOWN: the kernel unbinds the socket when the device is unregistered.
    fn down_or_gone(&self) -> PortEvent {
        if sys::is_bound(&self.fd, self.ifindex) { PortEvent::LinkDown } else { PortEvent::Vanished }
    }
}

/// Completes a received frame. False: not for us (an own outgoing copy).
fn finish(frame: &mut Frame, came: &Received<'_>) -> Result<bool, RecvError> {
    // sockaddr_ll: family 2, protocol 2, ifindex 4, hatype 2, pkttype 1.
    if came.name[10] == libc::PACKET_OUTGOING {
        return Ok(false);
    }
    if came.truncated || came.len < vnet::LEN {
        return Err(RecvError::Malformed);
    }
    frame.set_len(came.len - vnet::LEN);
    vnet::to_meta(came.prefix, frame, Medium::Ethernet).map_err(|_| RecvError::Malformed)?;
    match stripped_tag(came.control) {
        None => Ok(true),
        Some((TPID_8021Q, tci)) => {
            frame.meta.vlan_tci = Some(tci);
            Ok(true)
        }
        Some((tpid, tci)) if vnet::insert_vlan_tag(frame, tpid, tci) => Ok(true),
        Some(_) => Err(RecvError::Malformed),
    }
}

/// The VLAN tag that the kernel took out: TPID and TCI, from struct tpacket_auxdata.
fn stripped_tag(control: &[u8]) -> Option<(u16, u16)> {
    let (_, _, aux) = mmsg::control_messages(control)
        .find(|(level, kind, data)| *level == libc::SOL_PACKET && *kind == sys::PACKET_AUXDATA && data.len() >= 20)?;
    let status = u32::from_ne_bytes([aux[0], aux[1], aux[2], aux[3]]);
    tag(status, u16::from_ne_bytes([aux[16], aux[17]]), u16::from_ne_bytes([aux[18], aux[19]]))
}

/// TPID and TCI of a tag that the kernel took out, if the status bits say that there was one.
fn tag(status: u32, tci: u16, tpid: u16) -> Option<(u16, u16)> {
    let tpid = if status & TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { TPID_8021Q };
    (status & TP_STATUS_VLAN_VALID != 0).then_some((tpid, tci))
}

/// Completes a frame whose bytes have been copied from a slot.
fn finish_slot(frame: &mut Frame, slot: &Slot<'_>) -> Result<(), RecvError> {
    if slot.data.len() < slot.len || !frame.set_data(slot.data) {
        return Err(RecvError::Malformed);
    }
    vnet::to_meta(slot.prefix, frame, Medium::Ethernet).map_err(|_| RecvError::Malformed)?;
    match tag(slot.status, slot.tci, slot.tpid) {
        None => Ok(()),
        Some((TPID_8021Q, tci)) => {
            frame.meta.vlan_tci = Some(tci);
            Ok(())
        }
        Some((tpid, tci)) if vnet::insert_vlan_tag(frame, tpid, tci) => Ok(()),
        Some(_) => Err(RecvError::Malformed),
    }
}

impl PacketQueue {
    /// One frame from the ring or, where a slot says so, from the socket's queue.
    fn recv_slot(&mut self, frame: &mut Frame) -> Option<Result<bool, RecvError>> {
        let ring = self.ring.as_mut()?;
        let Some(slot) = ring.peek() else { return Some(self.ring_error()) };
        let elsewhere = slot.elsewhere();
        let done = if elsewhere { Ok(()) } else { finish_slot(frame, &slot) };
        ring.release();
        Some(match done {
            Ok(()) if elsewhere => match self.receive(std::slice::from_mut(frame)) {
                Ok(0) => Err(RecvError::Malformed),
                Ok(_) => finish(frame, &self.rx.get(0)),
                Err(e) => Err(e),
            },
            Ok(()) => Ok(true),
            Err(e) => Err(e),
        })
    }

    /// What stands behind an empty ring: nothing, as a rule, and the answer costs a system call, so not every time.
    fn ring_error(&mut self) -> Result<bool, RecvError> {
        self.empty = self.empty.wrapping_add(1);
        if !self.empty.is_multiple_of(EMPTY_LOOKS) {
            return Ok(false);
        }
        match opt::get::<i32>(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or(0) {
            libc::ENETDOWN => Err(RecvError::Event(self.down_or_gone())),
            libc::ENODEV | libc::ENXIO => Err(RecvError::Event(PortEvent::Vanished)),
            _ => Ok(false),
        }
    }

    fn recv_ring(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        let (before, mut bytes) = (batch.len(), 0);
        while batch.len() - before < max && !report.heavy {
            let Some(mut frame) = take_frame(pool) else { break };
            match self.recv_slot(&mut frame) {
                Some(Ok(true)) => {
                    bytes += frame.len();
                    report.heavy = bytes >= BATCH_BYTES;
                    batch.push(frame);
                    continue;
                }
                None | Some(Ok(false)) => {
                    pool.put(frame);
                    break;
                }
                Some(Err(RecvError::Malformed)) => {
                    report.malformed += 1;
                    pool.put(frame);
                }
                Some(Err(RecvError::Event(e))) => {
                    pool.put(frame);
                    report.event = Some(e);
                    break;
                }
            }
        }
    }
}

impl Receive for PacketQueue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        if let Some(outcome) = self.recv_slot(frame) {
            return outcome;
        }
        loop {
            if self.receive(std::slice::from_mut(frame))? == 0 {
                return Ok(false);
            }
            if finish(frame, &self.rx.get(0))? {
                return Ok(true);
            }
            frame.reset();
        }
    }

    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        if self.ring.is_some() {
            return self.recv_ring(max, pool, batch, report);
        }
        let (end, mut bytes) = (batch.len() + max, 0);
        while batch.len() < end && !report.heavy {
            let want = self.want.min(end - batch.len()).min(BATCH);
            while self.lent.len() < want {
                let Some(frame) = take_frame(pool) else { break };
                self.lent.push(frame);
            }
            let mut lent = std::mem::take(&mut self.lent);
            let asked = lent.len().min(want);
            let outcome = self.receive(&mut lent[..asked]);
            let got = *outcome.as_ref().unwrap_or(&0);
            let before = bytes;
            for (i, mut frame) in lent.drain(..got).enumerate() {
                bytes += frame.len();
                match finish(&mut frame, &self.rx.get(i)) {
                    Ok(true) => batch.push(frame),
                    Ok(false) => pool.put(frame),
                    Err(_) => {
                        report.malformed += 1;
                        pool.put(frame);
                    }
                }
            }
            self.lent = lent;
            match outcome {
                Ok(n) => {
                    let all = n == asked && n > 0;
                    let fit = BATCH_BYTES * n.max(1) / (bytes - before).max(1);
                    let more = if all { self.want * 2 } else { (n * 2).max(LEAST) };
                    // Few super-frames are as many bytes as they shall be; a call cannot be told, so it is asked for fewer.
                    self.want = more.min(BATCH).min(fit.max(FEW));
                    report.heavy = bytes >= BATCH_BYTES;
                    if !all {
                        break;
                    }
                }
                Err(RecvError::Malformed) => {
                    report.malformed += 1;
                    // A refused frame is rare; leave the rest to the next turn rather than loop on an error.
                    break;
                }
                Err(RecvError::Event(e)) => {
                    report.event = Some(e);
                    break;
                }
            }
        }
        // What is left over goes back, so that ports do not starve each other.
        self.lent.drain(..).for_each(|f| pool.put(f));
    }
}

impl Transmit for PacketQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        prepare(frame)?;
        let (fd, _) = exit(&self.fd, self.tunnels.as_ref(), std::slice::from_ref(frame));
        match self.tx.send(fd.as_fd(), std::slice::from_ref(frame), describe) {
            Ok(_) => Ok(()),
            Err(e) => Err(self.send_error(&e)),
        }
    }

    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        frames.retain_mut(|f| match prepare(f) {
            Ok(()) => true,
            Err(e) => {
                report.refuse(e, [f.len()]);
                pool.put(std::mem::take(f));
                false
            }
        });
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let (fd, count) = exit(&self.fd, self.tunnels.as_ref(), rest);
            match self.tx.send(fd.as_fd(), &rest[..count], describe) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) => {
                    // ENOBUFS concerns this one frame (the queueing discipline dropped it); EAGAIN (socket buffer full)
                    // and a dead link concern all that follow.
                    let all =
                        matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ENETDOWN | libc::ENXIO | libc::ENODEV));
                    let n = if all { rest.len() } else { 1 };
                    report.refuse(self.send_error(&e), rest[..n].iter().map(Frame::len));
                    rest = &rest[n..];
                }
            }
        }
        frames.drain(..).for_each(|f| pool.put(f));
    }
}

impl PacketQueue {
    fn send_error(&self, e: &io::Error) -> SendError {
        match e.raw_os_error().unwrap_or(libc::EIO) {
            libc::ENETDOWN => SendError { reason: DropReason::PortDown, event: Some(self.down_or_gone()) },
            errno => SendError::from_errno(errno),
        }
    }
}

/// What goes with each frame.
fn describe(frame: &Frame) -> Outgoing {
    Outgoing { prefix: Some(vnet::from_meta(frame)), name: None }
}

/// The socket by which the first of these frames goes, and how many of them go by the same one.
fn exit<'a>(plain: &'a OwnedFd, tunnels: Option<&'a OwnedFd>, frames: &[Frame]) -> (&'a OwnedFd, usize) {
    let Some(tunnels) = tunnels else { return (plain, frames.len()) };
    let first = frames.first().is_some_and(in_tunnel);
    let count = frames.iter().position(|f| in_tunnel(f) != first).unwrap_or(frames.len());
    (if first { tunnels } else { plain }, count)
}

/// Whether a frame is a super-frame in a tunnel. There are no others with another IP header behind the first: the core cuts
/// what the port does not take.
fn in_tunnel(frame: &Frame) -> bool {
    const PROTOCOL_V4: usize = 14 + 9;
    const PROTOCOL_V6: usize = 14 + 6;
    frame.meta.gso.is_some()
        && match frame.data() {
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, ..] => {
                matches!(frame.data().get(PROTOCOL_V4), Some(4 | 41))
            }
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..] => {
                matches!(frame.data().get(PROTOCOL_V6), Some(4 | 41))
            }
            _ => false,
        }
}

/// Puts the VLAN tag back into the bytes; super-frames need a pending checksum, or the kernel refuses or warns.
pub(super) fn prepare(frame: &mut Frame) -> Result<(), SendError> {
    if frame.meta.gso.is_some() && frame.meta.csum.is_none() {
        return Err(SendError::new(DropReason::OffloadMalformed));
    }
    match frame.meta.vlan_tci.take() {
        Some(tci) if !vnet::insert_vlan_tag(frame, TPID_8021Q, tci) => Err(SendError::new(DropReason::NoHeadroom)),
        _ => Ok(()),
    }
}

impl Port for PacketQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.receives.then(|| self.fd.as_fd())
    }

    fn caps(&self) -> PortCaps {
        PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: self.tunnels.is_some() }
    }

    fn medium(&self) -> Medium {
        Medium::Ethernet
    }

    fn polls_cheaply(&self) -> bool {
        self.ring.is_some()
    }

    fn take_overruns(&mut self) -> u64 {
        u64::from(sys::take_drops(&self.fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn auxdata(status: u32, tci: u16, tpid: u16) -> Vec<u8> {
        let mut b = 36usize.to_ne_bytes().to_vec();
        b.extend(libc::SOL_PACKET.to_ne_bytes());
        b.extend(sys::PACKET_AUXDATA.to_ne_bytes());
        b.extend(status.to_ne_bytes());
        b.extend([0; 12]);
        b.extend(tci.to_ne_bytes());
        b.extend(tpid.to_ne_bytes());
        b
    }

    #[test]
    fn tags_come_back_from_auxiliary_data() {
        let table = [
            (auxdata(0, 5, 0x8100), None),
            (auxdata(TP_STATUS_VLAN_VALID, 5, 0), Some((0x8100, 5))),
            (auxdata(TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, 0x2005, 0x88a8), Some((0x88a8, 0x2005))),
            (vec![], None),
        ];
        for (control, tag) in table {
            assert_eq!(stripped_tag(&control), tag);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn any_reception_is_a_frame_or_an_error(
            prefix: [u8; vnet::LEN], data in proptest::collection::vec(any::<u8>(), 0..80),
            control in proptest::collection::vec(any::<u8>(), 0..64), status: u32, tag: bool,
            name: [u8; 28], truncated: bool, lie in 0usize..200,
        ) {
            let mut frame = Frame::from_slice(&data);
            let control = if tag { auxdata(status, 1, 0x88a8) } else { control };
            let len = if lie < 100 { data.len() + vnet::LEN } else { lie };
            let came = Received { len, prefix: &prefix, name: &name, control: &control, truncated };
            if finish(&mut frame, &came) == Ok(true) {
                let _ = prepare(&mut frame);
                let _ = vnet::from_meta(&frame);
            }
        }
    }
}
