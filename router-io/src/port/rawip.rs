//! `rawip`: tunnel packets (protocols 41, 4 and 47) over the host's own IPv4 and IPv6 stacks, by raw sockets.
//!
//! The host routes the outer packets; an open raw socket also keeps it from answering "protocol unreachable". The core
//! sees and makes whole outer packets. IPv4: the kernel gives and takes the header (IP_HDRINCL; it completes the
//! checksum, and the ID where that is zero). IPv6: it takes whole packets, but keeps the header of received ones, which
//! is rebuilt here from the ancillary data; extension headers are lost. Outer fragments arrive reassembled.
//!
//! A raw socket has no field to say that a checksum is unfinished or that GRO merged segments; both are recognised by the
//! packet itself (module `restore`).

mod restore;

use super::error::{NET_RAW, PortError};
use super::host::{Paths, ipv6_present, widen};
use super::{BATCH, Port, PortEvent, Receive, RecvError, RecvReport, SendError, SendReport, Transmit, take_frame};
use crate::sys::device::Device;
use crate::sys::mmsg::{self, Name, Outgoing};
use crate::sys::opt;
use restore::{IPV6_HEADER, rebuild_ipv6, restore_offloads};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps};
use rustix::event::epoll;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// IPv6 inside, IPv4 inside, GRE.
const PROTOCOLS: [u8; 3] = [41, 4, 47];
/// Errors about what was sent. The host's stack refuses IPv4 packets that are too long for their path by itself; of whole
/// IPv6 packets it looks at the device's MTU only, so the router must hear "packet too big" with its own ears.
const ICMPV6: u8 = 58;
/// ICMP6_FILTER (RFC 3542 3.2).
const ICMP6_FILTER: i32 = 1;

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct RawIpConfig {
    /// Only packets to this address; also selects the family. None: both families, any address.
    pub local: Option<IpAddr>,
    /// Only through this device.
    pub device: Option<String>,
}

/// One queue: the first also receives, because each raw socket would get its own copy.
#[derive(Debug)]
pub struct RawIpQueue {
    receivers: Vec<(Socket, u8)>,
    ready: Option<OwnedFd>,
    send4: Option<Socket>,
    send6: Option<Socket>,
    rx: mmsg::Receiver,
    tx: mmsg::Sender,
    lent: Vec<Frame>,
    paths: Paths,
    mtu: u32,
}

/// Opens `queues` queues. The host needs no tunnel module.
pub fn open(port: &str, config: &RawIpConfig, queues: usize) -> Result<Vec<RawIpQueue>, PortError> {
    let failed = |action: &str, e: io::Error| match e.raw_os_error() {
        Some(libc::ENODEV) => {
            PortError::NoDevice { port: port.to_owned(), device: config.device.clone().unwrap_or_default() }
        }
        Some(libc::EADDRNOTAVAIL) => PortError::Config {
            port: port.to_owned(),
            reason: format!("{} is no address of this host; `ip address` lists them", local_text(config)),
        },
        _ => PortError::system(port, action, NET_RAW, e),
    };
    let mtu = match &config.device {
        Some(name) => Device::new(name).and_then(|d| d.mtu()).map_err(|e| failed("read the device's MTU", e))?,
        None => 1500,
    };
    let v4 = config.local.is_none_or(|a| a.is_ipv4());
    // A host without IPv6 still carries tunnels over IPv4.
    let v6 = config.local.is_none_or(|a| a.is_ipv6()) && (config.local.is_some() || ipv6_present());
    (0..queues.max(1))
        .map(|i| {
            let mut receivers = Vec::new();
            let mut ready = None;
            if i == 0 {
                let epoll =
                    epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed("make an epoll", e.into()))?;
                for domain in [v4.then_some(Domain::IPV4), v6.then_some(Domain::IPV6)].into_iter().flatten() {
                    let errors = (domain == Domain::IPV6).then_some(ICMPV6);
                    for proto in PROTOCOLS.into_iter().chain(errors) {
                        let s = receiver(domain, proto, config).map_err(|e| failed("open a raw IP socket", e))?;
                        let data = epoll::EventData::new_u64(receivers.len() as u64);
                        epoll::add(&epoll, &s, data, epoll::EventFlags::IN)
                            .map_err(|e| failed("watch a raw IP socket", e.into()))?;
                        receivers.push((s, proto));
                    }
                }
                ready = Some(epoll);
            }
            let paths = Paths::open(v4, v6, config.device.as_deref()).map_err(|e| failed("open a UDP socket", e))?;
            let send = |domain| sender(domain, config).map_err(|e| failed("open a raw IP socket", e));
            Ok(RawIpQueue {
                receivers,
                ready,
                send4: v4.then(|| send(Domain::IPV4)).transpose()?,
                send6: v6.then(|| send(Domain::IPV6)).transpose()?,
                rx: mmsg::Receiver::new(BATCH),
                tx: mmsg::Sender::new(BATCH),
                lent: Vec::new(),
                paths,
                mtu,
            })
        })
        .collect()
}

fn local_text(config: &RawIpConfig) -> String {
    config.local.map_or_else(|| "the local address".to_owned(), |a| a.to_string())
}

fn socket(domain: Domain, proto: i32, config: &RawIpConfig) -> io::Result<Socket> {
    let s = Socket::new(domain, Type::RAW, Some(Protocol::from(proto)))?;
    s.set_nonblocking(true)?;
    widen(&s);
    if let Some(device) = &config.device {
        s.bind_device(Some(device.as_bytes()))?;
    }
    Ok(s)
}

fn receiver(domain: Domain, proto: u8, config: &RawIpConfig) -> io::Result<Socket> {
    let s = socket(domain, i32::from(proto), config)?;
    if domain == Domain::IPV6 {
        for option in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
            opt::set(s.as_fd(), libc::IPPROTO_IPV6, option, &1i32)?;
        }
    }
    if proto == ICMPV6 {
        // Errors only: a bit that is set blocks its type. Unreachable, too big, time exceeded, parameter problem.
        let mut blocked = [u32::MAX; 8];
        blocked[0] &= !0b1_1110;
        opt::set(s.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)?;
    }
    if let Some(local) = config.local {
        s.bind(&SockAddr::from(SocketAddr::new(local, 0)))?;
    }
    Ok(s)
}

/// IPPROTO_RAW: sends whole packets of any protocol, receives none.
fn sender(domain: Domain, config: &RawIpConfig) -> io::Result<Socket> {
    socket(domain, libc::IPPROTO_RAW, config)
}

impl RawIpQueue {
    /// The MTU of the device it is bound to, 1500 without one.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    fn receive(&mut self, from: usize, frames: &mut [Frame]) -> Result<usize, RecvError> {
        let Some((socket, _)) = self.receivers.get(from) else { return Ok(0) };
        let skip = if socket_is_v6(socket) { IPV6_HEADER } else { 0 };
        match self.rx.receive(socket.as_fd(), frames, 0, skip) {
            Ok(n) => Ok(n),
            Err(e) => match e.raw_os_error().unwrap_or(libc::EIO) {
                libc::EBADF | libc::ENOTSOCK | libc::EINVAL => {
                    Err(RecvError::Event(PortEvent::Broken(e.raw_os_error().unwrap_or(libc::EIO))))
                }
                // EAGAIN, or an ICMP error that the host's stack notes on the socket: it concerns an earlier packet.
                _ => Ok(0),
            },
        }
    }

    /// Turns datagram `i` from receiver `from` into a whole packet.
    fn finish(&self, from: usize, i: usize, frame: &mut Frame) -> Result<(), RecvError> {
        let Some((socket, proto)) = self.receivers.get(from) else { return Err(RecvError::Malformed) };
        let came = self.rx.get(i);
        if came.truncated {
            return Err(RecvError::Malformed);
        }
        if socket_is_v6(socket) {
            rebuild_ipv6(frame, &came, *proto)?
        } else {
            frame.set_len(came.len)
        }
        restore_offloads(frame, self.mtu);
        Ok(())
    }

    /// Receivers with something to read.
    fn ready(&self) -> Vec<usize> {
        let mut events = Vec::with_capacity(8);
        if let Some(ready) = &self.ready {
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = epoll::wait(ready, rustix::buffer::spare_capacity(&mut events), Some(&zero));
        }
        events.iter().map(|e: &epoll::Event| e.data.u64() as usize).collect()
    }
}

fn socket_is_v6(socket: &Socket) -> bool {
    // Asked per batch, not per packet.
    socket.domain().is_ok_and(|d| d == Domain::IPV6)
}

/// Destination of a whole packet, as a socket address.
fn destination(packet: &[u8]) -> Option<(IpAddr, Name, usize)> {
    let mut name = [0u8; 28];
    match packet.first()? >> 4 {
        4 => {
            let dst: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&dst);
            Some((dst.into(), Name(name), 16))
        }
        6 => {
            let dst: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[8..24].copy_from_slice(&dst);
            Some((dst.into(), Name(name), 28))
        }
        _ => None,
    }
}

impl Receive for RawIpQueue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        for from in self.ready() {
            if self.receive(from, std::slice::from_mut(frame))? == 1 {
                return self.finish(from, 0, frame).map(|()| true);
            }
        }
        Ok(false)
    }

    fn recv_batch(&mut self, max: usize, pool: &mut FramePool, batch: &mut Vec<Frame>, report: &mut RecvReport) {
        let end = batch.len() + max;
        let ready = self.ready();
        let mut lent = std::mem::take(&mut self.lent);
        for from in ready {
            // Bounded per socket; what is left keeps the fd readable.
            let want = (end - batch.len()).min(64);
            while lent.len() < want {
                let Some(frame) = take_frame(pool) else { break };
                lent.push(frame);
            }
            let asked = want.min(lent.len());
            match self.receive(from, &mut lent[..asked]) {
                Ok(n) => {
                    for (i, mut frame) in lent.drain(..n).enumerate() {
                        match self.finish(from, i, &mut frame) {
                            Ok(()) => batch.push(frame),
                            Err(_) => {
                                report.malformed += 1;
                                pool.put(frame);
                            }
                        }
                    }
                }
                Err(RecvError::Event(e)) => report.event = Some(e),
                Err(RecvError::Malformed) => report.malformed += 1,
            }
        }
        lent.drain(..).for_each(|f| pool.put(f));
        self.lent = lent;
    }
}

impl Transmit for RawIpQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        let Some((dst, name, len)) = destination(frame.data()) else { return Err(SendError::new(DropReason::TxError)) };
        let socket = if dst.is_ipv4() { &self.send4 } else { &self.send6 };
        let Some(socket) = socket else { return Err(SendError::new(DropReason::TxError)) };
        let describe = |_: &Frame| Outgoing { prefix: None, name: Some((name, len)) };
        match self.tx.send(socket.as_fd(), std::slice::from_ref(frame), describe) {
            Ok(_) => Ok(()),
            Err(e) => Err(self.paths.send_error(&e, dst)),
        }
    }

    fn send_batch(&mut self, frames: &mut Vec<Frame>, pool: &mut FramePool, report: &mut SendReport) {
        let mut rest = &mut frames[..];
        while let Some(first) = rest.first_mut() {
            // Runs of one family go out together.
            let version = first.data().first().map(|b| b >> 4);
            let run = rest.iter().take_while(|f| f.data().first().map(|b| b >> 4) == version).count();
            let socket = match version {
                Some(4) => &self.send4,
                Some(6) => &self.send6,
                _ => &None,
            };
            let sent = match socket {
                Some(socket) if destination(rest[0].data()).is_some() => {
                    let describe = |f: &Frame| Outgoing {
                        prefix: None,
                        name: destination(f.data()).map(|(_, name, len)| (name, len)),
                    };
                    self.tx.send(socket.as_fd(), &rest[..run], describe)
                }
                _ => Err(io::Error::from_raw_os_error(libc::EDESTADDRREQ)),
            };
            let done = match sent {
                Ok(n) => n.max(1),
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => 0,
                Err(e) => {
                    let dst = destination(rest[0].data()).map_or(Ipv4Addr::UNSPECIFIED.into(), |d| d.0);
                    report.refuse(self.paths.send_error(&e, dst), [rest[0].len()]);
                    1
                }
            };
            rest = &mut rest[done..];
        }
        frames.drain(..).for_each(|f| pool.put(f));
    }
}

impl Port for RawIpQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_ref().map(AsFd::as_fd)
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        Medium::Ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn destinations_become_socket_addresses() {
        let mut p = vec![0x45; 20];
        p[16..20].copy_from_slice(&[192, 0, 2, 9]);
        let (dst, name, len) = destination(&p).unwrap();
        assert_eq!((dst.to_string().as_str(), len, &name.0[4..8]), ("192.0.2.9", 16, &[192, 0, 2, 9][..]));
        let (dst, _, len) = destination(&[0x60; 40]).unwrap();
        assert_eq!((dst.is_ipv6(), len), (true, 28));
        assert!(destination(&p[..19]).is_none() && destination(&[]).is_none() && destination(&[0x70; 60]).is_none());
    }

    proptest! {
        #[test]
        fn nothing_panics(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = destination(&data);
        }
    }
}
