//! `udp`: tunnels in UDP over the host's own IPv4 and IPv6 stacks, by ordinary sockets. Nothing of the host is owned, and no
//! privilege is needed.
//!
//! The core sees and makes whole outer packets; the socket keeps their IP and UDP headers. So received ones are written anew
//! from what the kernel says beside the payload, and of sent ones the kernel is told destination, TTL and traffic class. The
//! source port is that of a socket: a tunnel sends from the port on which it listens.
//!
//! Datagrams of one size to one destination go out as one message (UDP_SEGMENT); what the kernel has merged of one sender
//! comes in as one (UDP_GRO) and is cut here. Outer fragments arrive reassembled; packets that are to be fragmented are
//! fragmented by the host.

mod header;
pub mod signals;

use super::error::{NET_RAW, PortError};
use super::host::{Paths, ipv6_present, widen};
use super::{BATCH, Port, PortEvent, Receive, RecvError, RecvReport, SendError, SendReport, Transmit, take_frame};
use crate::sys::device::Device;
use crate::sys::gso::{self, Message, SEGMENTS};
use crate::sys::{mmsg, opt};
#[doc(hidden)]
pub use header::rehearse;
use header::{Outgoing, Rebuilt};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps};
use rustix::event::{EventfdFlags, epoll, eventfd};
use signals::Signals;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Sockets that are looked at in one go.
const SOCKETS: usize = 40;
/// Messages per receive call: each may be 64 datagrams.
const MESSAGES: usize = 64;
/// Outer IPv6 packets up to this length may be fragmented: a packet inside of 1280 bytes, and what is around it.
const LEAST_V6: usize = 1280 + 40 + 8 + 4 + 16;
/// Payload bytes of one message, at most.
const LONGEST: usize = 65_000;

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct UdpConfig {
    /// Only at this address of the host; also selects the family. None: both families, any address.
    pub local: Option<IpAddr>,
    /// Only through this device.
    pub device: Option<String>,
    /// The ports.
    pub listen: Vec<u16>,
}

#[derive(Debug)]
struct Sock {
    socket: Arc<Socket>,
    v6: bool,
    port: u16,
    /// The kernel, or a device, refuses several datagrams in one message.
    single: bool,
}

/// Datagrams that came as one and are still to be cut.
#[derive(Debug)]
struct Bundle {
    frame: Frame,
    header: usize,
    size: usize,
    at: usize,
}

/// One queue. With several, the kernel spreads senders over them.
#[derive(Debug)]
pub struct UdpQueue {
    sockets: Vec<Sock>,
    ready: OwnedFd,
    /// Sockets with something to read, of the last look.
    events: Vec<usize>,
    /// Readable while bundles wait.
    more: OwnedFd,
    bundles: VecDeque<Bundle>,
    rx: mmsg::Receiver,
    tx: gso::Sender,
    messages: Vec<Message>,
    lent: Vec<Frame>,
    paths: Paths,
    signals: Arc<Signals>,
    mtu: u32,
}

/// Opens `queues` queues.
pub fn open(port: &str, config: &UdpConfig, queues: usize) -> Result<Vec<UdpQueue>, PortError> {
    let failed = |action: &str, e: io::Error| match e.raw_os_error() {
        Some(libc::ENODEV) => {
            PortError::NoDevice { port: port.to_owned(), device: config.device.clone().unwrap_or_default() }
        }
        Some(libc::EADDRNOTAVAIL) => PortError::Config {
            port: port.to_owned(),
            reason: format!(
                "{} is no address of this host; `ip address` lists them",
                config.local.map_or_else(String::new, |a| a.to_string())
            ),
        },
        Some(libc::EADDRINUSE) => PortError::Config {
            port: port.to_owned(),
            reason: format!("another program has one of the UDP ports {:?}; `ss -ulnp` shows which", config.listen),
        },
        _ => PortError::system(port, action, NET_RAW, e),
    };
    if config.listen.is_empty() {
        return Err(PortError::Config { port: port.to_owned(), reason: "no UDP port is named in `listen`".into() });
    }
    let mtu = match &config.device {
        Some(name) => Device::new(name).and_then(|d| d.mtu()).map_err(|e| failed("read the device's MTU", e))?,
        None => 1500,
    };
    let v4 = config.local.is_none_or(|a| a.is_ipv4());
    // A host without IPv6 still carries tunnels over IPv4.
    let v6 = config.local.is_none_or(|a| a.is_ipv6()) && (config.local.is_some() || ipv6_present());
    let domains = || [v4.then_some(Domain::IPV4), v6.then_some(Domain::IPV6)].into_iter().flatten();
    let signals = Signals::of(port, config.local, &config.listen);
    (0..queues.max(1))
        .map(|_| {
            let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed("make an epoll", e.into()))?;
            let more = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| failed("make an eventfd", e.into()))?;
            let watch = |fd: BorrowedFd<'_>, data: u64| {
                epoll::add(&ready, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
                    .map_err(|e| failed("watch a UDP socket", e.into()))
            };
            let mut sockets: Vec<Sock> = Vec::new();
            for domain in domains() {
                for number in &config.listen {
                    let socket =
                        socket(domain, *number, config, queues > 1).map_err(|e| failed("open a UDP socket", e))?;
                    watch(socket.as_fd(), sockets.len() as u64)?;
                    let v6 = domain == Domain::IPV6;
                    let socket = Arc::new(socket);
                    signals.add(v6, *number, &socket);
                    sockets.push(Sock { socket, v6, port: *number, single: false });
                }
            }
            watch(more.as_fd(), u64::MAX)?;
            let paths = Paths::open(v4, v6, config.device.as_deref()).map_err(|e| failed("open a UDP socket", e))?;
            Ok(UdpQueue {
                events: Vec::with_capacity(SOCKETS),
                sockets,
                ready,
                more,
                bundles: VecDeque::with_capacity(MESSAGES),
                rx: mmsg::Receiver::new(MESSAGES),
                tx: gso::Sender::new(BATCH),
                messages: Vec::with_capacity(BATCH),
                lent: Vec::with_capacity(MESSAGES),
                paths,
                signals: Arc::clone(&signals),
                mtu,
            })
        })
        .collect()
}

fn socket(domain: Domain, port: u16, config: &UdpConfig, shared: bool) -> io::Result<Socket> {
    let s = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    s.set_nonblocking(true)?;
    widen(&s);
    s.set_reuse_port(shared)?;
    if let Some(device) = &config.device {
        s.bind_device(Some(device.as_bytes()))?;
    }
    let on = |level, name| opt::set(s.as_fd(), level, name, &1i32);
    let any: IpAddr = if domain == Domain::IPV6 {
        s.set_only_v6(true)?;
        on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        on(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)?;
        on(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        on(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        on(libc::IPPROTO_IP, libc::IP_RECVTTL)?;
        on(libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    set_discover(&s, domain == Domain::IPV6, true)?;
    // Merged datagrams come with their size; without the option none are merged.
    let _ = on(libc::SOL_UDP, libc::UDP_GRO);
    s.bind(&SockAddr::from(SocketAddr::new(config.local.unwrap_or(any), port)))?;
    Ok(s)
}

/// Whether what does not fit is refused, so that the tunnel learns of it, or fragmented by the host.
fn set_discover(s: &Socket, v6: bool, on: bool) -> io::Result<()> {
    let (level, name) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    };
    opt::set(s.as_fd(), level, name, &(if on { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT }))
}

impl UdpQueue {
    /// The MTU of the device it is bound to, 1500 without one.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    fn ready(&mut self) {
        self.events.clear();
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; SOCKETS];
        if let Ok((events, _)) = epoll::wait(&self.ready, &mut room[..], Some(&zero)) {
            self.events.extend(events.iter().map(|e| e.data.u64() as usize));
        }
    }

    /// Cuts what waits, as long as there is room for it.
    fn cut(&mut self, end: usize, pool: &mut FramePool, batch: &mut Vec<Frame>) {
        while batch.len() < end
            && let Some(bundle) = self.bundles.front_mut()
        {
            let Some(mut frame) = take_frame(pool) else { return };
            if bundle.next(&mut frame) {
                batch.push(frame);
            } else {
                pool.put(frame);
            }
            if bundle.is_done()
                && let Some(done) = self.bundles.pop_front()
            {
                pool.put(done.frame);
            }
        }
    }

    /// One message of socket `from`, number `i` of the last call.
    fn take(
        &mut self,
        from: usize,
        i: usize,
        mut frame: Frame,
        report: &mut RecvReport,
    ) -> Result<Frame, Option<Frame>> {
        let Some(sock) = self.sockets.get(from) else { return Err(Some(frame)) };
        let came = self.rx.get(i);
        let header = header::len(sock.v6);
        let payload = frame.spare_mut().get(header..header + came.len).unwrap_or_default();
        let Some(rebuilt) = Rebuilt::of(&came, sock.v6, sock.port).filter(|_| !came.truncated) else {
            report.malformed += 1;
            return Err(Some(frame));
        };
        if self.signals.wants(payload) && self.signals.deliver(&sock.socket, &rebuilt, payload) {
            return Err(Some(frame));
        }
        let size = rebuilt.size.filter(|size| *size > 0 && *size < came.len);
        let total = came.len;
        frame.set_len(header + total);
        if !rebuilt.write(frame.data_mut(), size.unwrap_or(total)) {
            report.malformed += 1;
            return Err(Some(frame));
        }
        match size {
            None => Ok(frame),
            Some(size) => {
                self.bundles.push_back(Bundle { frame, header, size, at: 0 });
                Err(None)
            }
        }
    }

    fn socket_for(&self, out: &Outgoing) -> Option<usize> {
        self.sockets.iter().position(|s| s.v6 == out.v6() && s.port == out.sport)
    }

    /// Describes the first frames: those of one socket, as few messages as possible. The socket, and how many frames.
    fn describe(&mut self, frames: &[Frame]) -> Option<(usize, usize)> {
        self.messages.clear();
        let mut socket = None;
        let mut used = 0;
        let mut open: Option<(Outgoing, usize)> = None;
        for frame in frames.iter().take(BATCH) {
            let Some(out) = Outgoing::of(frame.data()) else { break };
            let at = self.socket_for(&out);
            if at.is_none() || socket.is_some() && socket != at {
                break;
            }
            socket = at;
            let single = at.and_then(|i| self.sockets.get(i)).is_none_or(|s| s.single);
            let last = self.messages.last_mut();
            match (&mut open, last) {
                // Only the last of a message may be shorter.
                (Some((first, bytes)), Some(message))
                    if !single
                        && message.count < SEGMENTS
                        && first.joins(&out)
                        && *bytes == first.payload * message.count
                        && *bytes + out.payload <= LONGEST =>
                {
                    message.count += 1;
                    *bytes += out.payload;
                }
                _ => {
                    self.messages.push(out.message());
                    open = Some((out, out.payload));
                }
            }
            used += 1;
        }
        let mut rest = frames;
        for message in &mut self.messages {
            let (mine, others) = rest.split_at(message.count);
            if let Some(first) = mine.first().filter(|_| message.count > 1) {
                let size = (first.len() - message.skip) as u16;
                message.control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
            }
            rest = others;
        }
        socket.map(|s| (s, used))
    }

    /// Sends the first frames; says how many are done with.
    fn send_some(&mut self, frames: &[Frame], report: &mut SendReport) -> usize {
        let Some(first) = frames.first() else { return 0 };
        let Some((at, _)) = self.describe(frames) else {
            // Not UDP, or from a port that is not ours.
            report.refuse(SendError::new(DropReason::TxError), [first.len()]);
            return 1;
        };
        let Some(socket) = self.sockets.get(at).map(|s| Arc::clone(&s.socket)) else { return 1 };
        match self.tx.send(socket.as_fd(), frames, &self.messages) {
            Ok(n) => self.messages.iter().take(n.max(1)).map(|m| m.count).sum(),
            Err(e) => match (e.raw_os_error().unwrap_or(libc::EIO), self.messages.first().map_or(1, |m| m.count)) {
                (libc::EINTR, _) => 0,
                // The kernel refuses several at once, or one of them is too long: one by one, then.
                (libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP, count) if count > 1 => {
                    let was = self.sockets.get_mut(at).map(|s| std::mem::replace(&mut s.single, true));
                    for frame in &frames[..count] {
                        self.send_one(at, frame, report);
                    }
                    let forever = matches!(e.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP));
                    if let (false, Some(was), Some(s)) = (forever, was, self.sockets.get_mut(at)) {
                        s.single = was;
                    }
                    count
                }
                (libc::EMSGSIZE, _) => {
                    self.send_one(at, first, report);
                    1
                }
                _ => {
                    let dst = Outgoing::of(first.data()).map_or(Ipv4Addr::UNSPECIFIED.into(), |o| o.dst);
                    report.refuse(self.paths.send_error(&e, dst), [first.len()]);
                    1
                }
            },
        }
    }

    /// Sends one frame by itself; in fragments if it does not fit and may be.
    fn send_one(&mut self, at: usize, frame: &Frame, report: &mut SendReport) {
        let Some(out) = Outgoing::of(frame.data()) else {
            return report.refuse(SendError::new(DropReason::TxError), [frame.len()]);
        };
        let Some((socket, v6)) = self.sockets.get(at).map(|s| (Arc::clone(&s.socket), s.v6)) else { return };
        let message = [out.message()];
        let mut sent = self.tx.send(socket.as_fd(), std::slice::from_ref(frame), &message);
        let may = if v6 { frame.len() <= LEAST_V6 } else { !out.df };
        if may && matches!(&sent, Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE)) {
            // Rare: below the least MTU that a tunnel offers.
            let told = self.paths.mtu(out.dst);
            if set_discover(&socket, v6, false).is_ok() {
                sent = self.tx.send(socket.as_fd(), std::slice::from_ref(frame), &message);
                let _ = set_discover(&socket, v6, true);
            }
            if let (Ok(_), Some(mtu)) = (&sent, told) {
                let event = PortEvent::PathMtu { dst: out.dst, mtu };
                if !report.events.contains(&event) {
                    report.events.push(event);
                }
            }
        }
        if let Err(e) = sent {
            report.refuse(self.paths.send_error(&e, out.dst), [frame.len()]);
        }
    }
}

impl Bundle {
    /// Writes the next datagram into an empty frame. False when it does not fit.
    fn next(&mut self, frame: &mut Frame) -> bool {
        let data = self.frame.data();
        let from = self.header + self.at;
        let payload = data.get(from..(from + self.size).min(data.len())).unwrap_or_default();
        self.at += self.size;
        let spare = frame.spare_mut();
        let (Some(header), Some(to)) =
            (data.get(..self.header), spare.get_mut(..self.header + payload.len()).filter(|_| !payload.is_empty()))
        else {
            return false;
        };
        to[..self.header].copy_from_slice(header);
        to[self.header..].copy_from_slice(payload);
        header::set_lengths(to);
        frame.set_len(self.header + payload.len());
        true
    }

    fn is_done(&self) -> bool {
        self.header + self.at >= self.frame.len()
    }
}

impl Receive for UdpQueue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        let mut pool = FramePool::new(2, router_core::frame::MAX_FRAME);
        let (mut batch, mut report) = (Vec::new(), RecvReport::default());
        self.recv_batch(1, &mut pool, &mut batch, &mut report);
        match (batch.pop(), report.event) {
            (Some(got), _) => {
                *frame = got;
                Ok(true)
            }
            (None, Some(e)) => Err(RecvError::Event(e)),
            (None, None) if report.malformed > 0 => Err(RecvError::Malformed),
            (None, None) => Ok(false),
        }
    }

    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        let end = batch.len() + max;
        let waited = !self.bundles.is_empty();
        self.cut(end, pool, batch);
        self.ready();
        let mut lent = std::mem::take(&mut self.lent);
        for e in 0..self.events.len() {
            let Some(from) = self.events.get(e).copied() else { break };
            let Some(socket) = self.sockets.get(from).map(|s| (Arc::clone(&s.socket), s.v6)) else { continue };
            // Bounded per socket; what is left keeps the fd readable.
            let want = end.saturating_sub(batch.len()).min(MESSAGES);
            if want == 0 || !self.bundles.is_empty() {
                break;
            }
            while lent.len() < want {
                let Some(frame) = take_frame(pool) else { break };
                lent.push(frame);
            }
            let asked = want.min(lent.len());
            match self.rx.receive(socket.0.as_fd(), &mut lent[..asked], 0, header::len(socket.1)) {
                Ok(n) => {
                    for (i, frame) in lent.drain(..n).enumerate() {
                        match self.take(from, i, frame, report) {
                            Ok(frame) if self.bundles.is_empty() && batch.len() < end => batch.push(frame),
                            // Behind what waits, so that no flow is reordered.
                            Ok(frame) => {
                                let (header, size) = (header::len(socket.1), frame.len());
                                self.bundles.push_back(Bundle { frame, header, size, at: 0 });
                            }
                            Err(Some(frame)) => pool.put(frame),
                            Err(None) => self.cut(end, pool, batch),
                        }
                    }
                    self.cut(end, pool, batch);
                }
                // Not EAGAIN, or an ICMP error that the host's stack notes on the socket: that concerns an earlier packet.
                Err(e) => {
                    let errno = e.raw_os_error().unwrap_or(libc::EIO);
                    if matches!(errno, libc::EBADF | libc::ENOTSOCK | libc::EINVAL) {
                        report.event = Some(PortEvent::Broken(errno));
                    }
                }
            }
        }
        lent.drain(..).for_each(|f| pool.put(f));
        self.lent = lent;
        match (waited, !self.bundles.is_empty()) {
            (false, true) => {
                let _ = rustix::io::write(&self.more, &1u64.to_ne_bytes());
            }
            (true, false) => {
                let _ = rustix::io::read(&self.more, &mut [0u8; 8]);
            }
            _ => {}
        }
    }
}

impl Transmit for UdpQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        let mut report = SendReport::default();
        while self.send_some(std::slice::from_ref(frame), &mut report) == 0 {}
        match report.refused.first() {
            None => Ok(()),
            Some(r) => Err(SendError { reason: r.reason, event: report.events.into_iter().next() }),
        }
    }

    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        let mut done = 0;
        while done < frames.len() {
            done += self.send_some(&frames[done..], report);
        }
        frames.drain(..).for_each(|f| pool.put(f));
    }
}

impl Port for UdpQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ready.as_fd())
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        Medium::Ip
    }
}

#[cfg(test)]
mod tests;
