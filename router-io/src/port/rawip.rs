//! `rawip`: tunnel packets (protocols 41, 4 and 47) over the host's own IPv4 and IPv6 stacks, by raw sockets.
//!
//! The host routes the outer packets; an open raw socket also keeps it from answering "protocol unreachable". The core
//! sees and makes whole outer packets. IPv4: the kernel gives and takes the header (IP_HDRINCL; it completes the
//! checksum, and the ID where that is zero). IPv6: it takes whole packets, but keeps the header of received ones, which
//! is rebuilt here from the ancillary data; extension headers are lost. Outer fragments arrive reassembled.
//!
//! A raw socket has no field to say that a checksum is unfinished or that GRO merged segments; both are recognised by the
//! packet itself, see [`restore_offloads`].

use super::error::{NET_RAW, PortError};
use super::{BATCH, Port, PortEvent, Receive, RecvError, RecvReport, SendError, SendReport, Transmit, take_frame};
use crate::sys::device::Device;
use crate::sys::mmsg::{self, Name, Outgoing, Received};
use crate::sys::opt;
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool, Gso, GsoKind, PartialChecksum};
use router_core::port::{Medium, PortCaps};
use rustix::event::epoll;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// IPv6 inside, IPv4 inside, GRE.
const PROTOCOLS: [u8; 3] = [41, 4, 47];
const BUFFER: usize = 8 << 20;
const IPV6_HEADER: usize = 40;

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
    /// Unconnected UDP sockets that are asked for path MTUs: made at opening, in the right network namespace.
    probe4: Option<Socket>,
    probe6: Option<Socket>,
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
                    for proto in PROTOCOLS {
                        let s = receiver(domain, proto, config).map_err(|e| failed("open a raw IP socket", e))?;
                        let data = epoll::EventData::new_u64(receivers.len() as u64);
                        epoll::add(&epoll, &s, data, epoll::EventFlags::IN)
                            .map_err(|e| failed("watch a raw IP socket", e.into()))?;
                        receivers.push((s, proto));
                    }
                }
                ready = Some(epoll);
            }
            let probe = |domain| probe(domain, config).map_err(|e| failed("open a UDP socket", e));
            let send = |domain| sender(domain, config).map_err(|e| failed("open a raw IP socket", e));
            Ok(RawIpQueue {
                receivers,
                ready,
                send4: v4.then(|| send(Domain::IPV4)).transpose()?,
                send6: v6.then(|| send(Domain::IPV6)).transpose()?,
                rx: mmsg::Receiver::new(BATCH),
                tx: mmsg::Sender::new(BATCH),
                lent: Vec::new(),
                probe4: v4.then(|| probe(Domain::IPV4)).transpose()?,
                probe6: v6.then(|| probe(Domain::IPV6)).transpose()?,
                mtu,
            })
        })
        .collect()
}

fn local_text(config: &RawIpConfig) -> String {
    config.local.map_or_else(|| "the local address".to_owned(), |a| a.to_string())
}

fn ipv6_present() -> bool {
    Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok()
}

fn socket(domain: Domain, proto: i32, config: &RawIpConfig) -> io::Result<Socket> {
    let s = Socket::new(domain, Type::RAW, Some(Protocol::from(proto)))?;
    s.set_nonblocking(true)?;
    let _ = s.set_recv_buffer_size(BUFFER);
    let _ = opt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(BUFFER as i32));
    let _ = s.set_send_buffer_size(BUFFER);
    let _ = opt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(BUFFER as i32));
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
    if let Some(local) = config.local {
        s.bind(&SockAddr::from(SocketAddr::new(local, 0)))?;
    }
    Ok(s)
}

/// IPPROTO_RAW: sends whole packets of any protocol, receives none.
fn sender(domain: Domain, config: &RawIpConfig) -> io::Result<Socket> {
    socket(domain, libc::IPPROTO_RAW, config)
}

/// A UDP socket that never sends: connecting it makes the kernel look up the path.
fn probe(domain: Domain, config: &RawIpConfig) -> io::Result<Socket> {
    let s = Socket::new(domain, Type::DGRAM, None)?;
    if let Some(device) = &config.device {
        s.bind_device(Some(device.as_bytes()))?;
    }
    Ok(s)
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

    /// The path MTU that the host's stack has for `dst`.
    fn path_mtu(&self, dst: IpAddr) -> Option<u32> {
        let probe = if dst.is_ipv4() { &self.probe4 } else { &self.probe6 }.as_ref()?;
        probe.connect(&SockAddr::from(SocketAddr::new(dst, 9))).ok()?;
        let (level, option) =
            if dst.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
        opt::get::<i32>(probe.as_fd(), level, option).ok().and_then(|m| u32::try_from(m).ok())
    }

    fn send_error(&self, e: &io::Error, dst: IpAddr) -> SendError {
        match e.raw_os_error().unwrap_or(libc::EIO) {
            libc::EMSGSIZE => SendError {
                reason: DropReason::TooBig,
                event: self.path_mtu(dst).map(|mtu| PortEvent::PathMtu { dst, mtu }),
            },
            // The host's routing, not a device of ours: the queue stays.
            libc::ENETDOWN | libc::ENODEV | libc::ENXIO => SendError::new(DropReason::TxError),
            errno => SendError::from_errno(errno),
        }
    }
}

fn socket_is_v6(socket: &Socket) -> bool {
    // Asked per batch, not per packet.
    socket.domain().is_ok_and(|d| d == Domain::IPV6)
}

/// Puts the IPv6 header back in front of a received payload.
fn rebuild_ipv6(frame: &mut Frame, came: &Received<'_>, proto: u8) -> Result<(), RecvError> {
    // sockaddr_in6: family 2, port 2, flow 4, address 16, scope 4.
    let src = &came.name[8..24];
    let (mut dst, mut hop_limit, mut tclass) = (None, 64u8, 0u8);
    for (level, kind, data) in mmsg::control_messages(came.control) {
        match (level, kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => dst = data.get(..16),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => hop_limit = int(data).unwrap_or(hop_limit),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => tclass = int(data).unwrap_or(tclass),
            _ => {}
        }
    }
    let (Some(dst), Ok(len)) = (dst, u16::try_from(came.len)) else { return Err(RecvError::Malformed) };
    let mut header = [0u8; IPV6_HEADER];
    header[0] = 0x60 | tclass >> 4;
    header[1] = tclass << 4;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    (header[6], header[7]) = (proto, hop_limit);
    header[8..24].copy_from_slice(src);
    header[24..40].copy_from_slice(dst);
    frame.set_len(IPV6_HEADER + came.len);
    frame.data_mut().get_mut(..IPV6_HEADER).ok_or(RecvError::Malformed)?.copy_from_slice(&header);
    Ok(())
}

fn int(data: &[u8]) -> Option<u8> {
    u8::try_from(i32::from_ne_bytes(data.get(..4)?.try_into().ok()?)).ok()
}

/// Restores the offload metadata that a raw socket cannot carry.
///
/// Where the sender's checksum is unfinished (its device would have computed it: veth, virtio) or the kernel merged
/// segments (GRO), the transport checksum field holds just the pseudo-header sum. That is what is looked for. A finished
/// checksum that has this value by chance is not harmed: finishing it gives the same value again.
///
/// A merged packet is longer than the device's MTU. Its segment size is lost; the largest that fits stands in for it.
fn restore_offloads(frame: &mut Frame, mtu: u32) {
    let Some(inner) = Transport::find(frame.data()) else { return };
    let data = frame.data();
    let at = inner.start + usize::from(inner.field);
    if data.get(at..at + 2) != Some(&inner.pseudo.to_be_bytes()) {
        return;
    }
    let Ok(start) = u16::try_from(inner.start) else { return };
    let ecn = data.get(inner.start + 13).is_some_and(|flags| flags & 0x80 != 0);
    let header = data.get(inner.start + 12).map_or(0, |b| usize::from(b >> 4) * 4);
    let merged = data.len() > mtu as usize;
    frame.meta.csum = Some(PartialChecksum { start, offset: inner.field });
    if let (true, Some(kind)) = (merged, inner.tcp) {
        let size = (mtu as usize).saturating_sub(inner.start + header).clamp(1, usize::from(u16::MAX)) as u16;
        frame.meta.gso = Some(Gso { kind, size, ecn });
    }
}

/// TCP or UDP inside a tunnel packet.
struct Transport {
    /// Where it starts.
    start: usize,
    /// Offset of its checksum field.
    field: u16,
    /// The folded sum of its pseudo-header.
    pseudo: u16,
    /// Which kind of super-frame it would be, if it is TCP.
    tcp: Option<GsoKind>,
}

impl Transport {
    fn find(packet: &[u8]) -> Option<Self> {
        let (outer, proto) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, *packet.get(9)?),
            6 => (IPV6_HEADER, *packet.get(6)?),
            _ => return None,
        };
        let inner = packet.get(outer..)?;
        let word = |at: usize| Some(u16::from_be_bytes([*inner.get(at)?, *inner.get(at + 1)?]));
        let (header, proto, addresses, len, kind) = match (proto, inner.first()? >> 4) {
            // A fragment's checksum covers more than is here.
            (4, 4) if word(6)? & 0x3fff == 0 => {
                let header = usize::from(inner[0] & 15) * 4;
                (header, *inner.get(9)?, inner.get(12..20)?, word(2)?.checked_sub(header as u16)?, GsoKind::TcpV4)
            }
            (41, 6) => (IPV6_HEADER, *inner.get(6)?, inner.get(8..40)?, word(4)?, GsoKind::TcpV6),
            _ => return None,
        };
        let (field, tcp) = match proto {
            6 => (16, Some(kind)),
            17 => (6, None),
            _ => return None,
        };
        let words = addresses.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let mut sum = words.sum::<u32>() + u32::from(proto) + u32::from(len);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Some(Transport { start: outer + header, field, pseudo: sum as u16, tcp })
    }
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
            Err(e) => Err(self.send_error(&e, dst)),
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
                    report.refuse(self.send_error(&e, dst), [rest[0].len()]);
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
    use std::net::Ipv6Addr;

    fn cmsg(kind: i32, data: &[u8]) -> Vec<u8> {
        let mut b = (16 + data.len()).to_ne_bytes().to_vec();
        b.extend(libc::IPPROTO_IPV6.to_ne_bytes());
        b.extend(kind.to_ne_bytes());
        b.extend(data);
        b.resize(b.len().next_multiple_of(8), 0);
        b
    }

    fn received<'a>(len: usize, name: &'a [u8; 28], control: &'a [u8]) -> Received<'a> {
        Received { len, prefix: &[0; mmsg::PREFIX], name, control, truncated: false }
    }

    #[test]
    fn an_ipv6_header_is_rebuilt() {
        let mut name = [0u8; 28];
        name[8..24].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let mut control = cmsg(libc::IPV6_PKTINFO, &{
            let mut info = "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets().to_vec();
            info.extend([0; 4]);
            info
        });
        control.extend(cmsg(libc::IPV6_HOPLIMIT, &61i32.to_ne_bytes()));
        control.extend(cmsg(libc::IPV6_TCLASS, &0xb8i32.to_ne_bytes()));
        let mut f = Frame::with_capacity(100);
        f.spare_mut()[40..43].copy_from_slice(b"abc");
        rebuild_ipv6(&mut f, &received(3, &name, &control), 4).unwrap();
        assert_eq!(f.data()[..8], [0x6b, 0x80, 0, 0, 0, 3, 4, 61]);
        assert_eq!(f.data()[8..24], name[8..24]);
        assert_eq!(f.data()[39], 2);
        assert_eq!(&f.data()[40..], b"abc");
        // Without a destination nothing can be rebuilt.
        assert_eq!(rebuild_ipv6(&mut f, &received(3, &name, &[]), 4), Err(RecvError::Malformed));
    }

    /// 6in4 with TCP, the checksum field set to the pseudo-header sum.
    fn unfinished(payload: usize) -> Vec<u8> {
        let tcp = 32 + payload;
        let mut p = vec![0u8; 20 + 40 + tcp];
        (p[0], p[9]) = (0x45, 41);
        (p[20], p[26]) = (0x60, 6);
        p[24..26].copy_from_slice(&(tcp as u16).to_be_bytes());
        p[28] = 0x20;
        p[60 + 12] = 0x80;
        let sum = 0x2000 + 6 + tcp as u32;
        p[76..78].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
        p
    }

    #[test]
    fn unfinished_checksums_and_merged_segments_are_recognised() {
        let csum = Some(PartialChecksum { start: 60, offset: 16 });
        let mut f = Frame::from_slice(&unfinished(5000));
        restore_offloads(&mut f, 1500);
        assert_eq!(f.meta.csum, csum);
        assert_eq!(f.meta.gso, Some(Gso { kind: GsoKind::TcpV6, size: 1500 - 60 - 32, ecn: false }));
        let mut f = Frame::from_slice(&unfinished(100));
        restore_offloads(&mut f, 1500);
        assert_eq!((f.meta.csum, f.meta.gso), (csum, None));
        // A jumbo packet with another checksum is just a jumbo packet.
        let mut p = unfinished(5000);
        p[76] ^= 1;
        let mut f = Frame::from_slice(&p);
        restore_offloads(&mut f, 1500);
        assert_eq!((f.meta.csum, f.meta.gso), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn anything_received_is_a_packet_or_an_error(
            mut data in proptest::collection::vec(any::<u8>(), 0..120), control in proptest::collection::vec(any::<u8>(), 0..64),
            name: [u8; 28], len in 0usize..200, proto: u8, mtu in 0u32..200, version in 0u8..16,
        ) {
            if let Some(b) = data.first_mut() {
                *b = version << 4 | *b & 15;
            }
            let mut f = Frame::from_slice(&data);
            restore_offloads(&mut f, mtu);
            let _ = destination(f.data());
            let _ = rebuild_ipv6(&mut f, &received(len, &name, &control), proto);
            restore_offloads(&mut f, mtu);
        }
    }
}
