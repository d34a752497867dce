//! The UDP socket: datagrams of one size to one peer go out, and come in, as one (UDP_SEGMENT, UDP_GRO).

use super::engine::Effects;
use crate::port::PortError;
use crate::sys::mmsg::{self, control_messages};
use crate::sys::opt;
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use socket2::{Domain, MsgHdr, SockAddr, Socket, Type};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Linux's names, which libc does not have on every platform.
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;
/// Most datagrams in one call of either direction: the kernel's limit, and what fits one UDP length.
const SEGMENTS: usize = 64;
const LARGEST: usize = 65_000;
/// Receive calls' worth of buffers.
const BUFFERS: usize = 16;
/// Socket buffers, as far as the host allows.
const SPACE: usize = 4 << 20;

/// Datagrams to one peer, all of one size but for the last, which may be shorter.
#[derive(Debug)]
struct Run {
    to: SocketAddr,
    start: usize,
    end: usize,
    segment: usize,
    count: usize,
    closed: bool,
    /// Packets of the workers in it, and their bytes; None: the protocol's own messages.
    inner: Option<usize>,
}

/// Datagrams that wait to be sent together.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

impl Outbound {
    /// Adds a datagram to `to`, which `write` puts into `room` bytes: it returns how many it took, 0 for none. `inner` is the
    /// length of the worker's packet in it, if there is one.
    pub fn append(
        &mut self,
        to: SocketAddr,
        room: usize,
        inner: Option<usize>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let len = write(&mut self.bytes[start..]).min(room);
        self.bytes.truncate(start + len);
        if len == 0 {
            return;
        }
        if let Some(run) = self.runs.last_mut()
            && !run.closed
            && run.to == to
            && run.inner.is_some() == inner.is_some()
            && len <= run.segment
            && run.count < SEGMENTS
            && run.end + len - run.start <= LARGEST
        {
            run.end += len;
            run.count += 1;
            run.closed = len < run.segment;
            run.inner = run.inner.zip(inner).map(|(a, b)| a + b);
            return;
        }
        self.runs.push(Run { to, start, end: start + len, segment: len, count: 1, closed: false, inner });
    }

    /// Adds a datagram that is ready.
    pub fn put(&mut self, to: SocketAddr, message: &[u8], inner: Option<usize>) {
        self.append(to, message.len(), inner, |room| {
            room.copy_from_slice(message);
            message.len()
        });
    }

    /// Whether so much waits that it should be sent before anything is added.
    pub fn is_much(&self) -> bool {
        self.bytes.len() >= 4 * LARGEST
    }

    /// What waits, for tests: datagram by datagram.
    pub fn take(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut list = Vec::new();
        for run in self.runs.drain(..) {
            list.extend(self.bytes[run.start..run.end].chunks(run.segment).map(|d| (run.to, d.to_vec())));
        }
        self.bytes.clear();
        list
    }
}

/// The UDP socket of a port.
#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: Socket,
    /// Takes both families, IPv4 in mapped addresses.
    six: bool,
    segment: bool,
    rx: mmsg::Receiver,
    buffers: Vec<Frame>,
}

impl UdpSocket {
    /// Opens it in the calling thread's network namespace: for both families where the host has both.
    pub fn open(port: &str, local: Option<IpAddr>, listen: u16) -> Result<Self, PortError> {
        let bound = match local {
            Some(addr) => bind(SocketAddr::new(addr, listen)),
            // A host without IPv6 has IPv4.
            None => bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen)).or_else(|e| match e.raw_os_error() {
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                    bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen))
                }
                _ => Err(e),
            }),
        };
        let socket = bound.map_err(|e| match (e.raw_os_error(), local) {
            (Some(libc::EADDRINUSE), _) => PortError::Config {
                port: port.to_owned(),
                reason: format!("UDP port {listen} is in use on this host; choose another listen_port"),
            },
            (Some(libc::EADDRNOTAVAIL), Some(addr)) => PortError::Config {
                port: port.to_owned(),
                reason: format!("{addr} is no address of this host; `ip address` lists them"),
            },
            _ => PortError::system(port, format!("listen on UDP port {listen}"), "CAP_NET_BIND_SERVICE", e),
        })?;
        let six = socket.domain().is_ok_and(|d| d == Domain::IPV6);
        // Older kernels lack both; then every datagram is one call.
        let segment = opt::get::<i32>(socket.as_fd(), libc::SOL_UDP, UDP_SEGMENT).is_ok();
        let _ = opt::set(socket.as_fd(), libc::SOL_UDP, UDP_GRO, &1i32);
        Ok(UdpSocket {
            socket,
            six,
            segment,
            rx: mmsg::Receiver::new(BUFFERS),
            buffers: (0..BUFFERS).map(|_| Frame::with_capacity(1 << 16)).collect(),
        })
    }

    /// The UDP port in use.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().ok().and_then(|a| a.as_socket()).map_or(0, |a| a.port())
    }

    /// Receives what is there, at most one call's worth, and hands it over datagram by datagram. True: there may be more.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, &[u8])) -> io::Result<bool> {
        self.buffers.iter_mut().for_each(Frame::reset);
        let n = match self.rx.receive(self.socket.as_fd(), &mut self.buffers, 0, 0) {
            Ok(n) => n,
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL)) => return Err(e),
            Err(_) => return Ok(false),
        };
        for i in 0..n {
            let came = self.rx.get(i);
            let Some(from) = sender(came.name) else { continue };
            let size = control_messages(came.control)
                .find(|(level, kind, _)| (*level, *kind) == (libc::SOL_UDP, UDP_GRO))
                .and_then(|(_, _, data)| Some(i32::from_ne_bytes(data.get(..4)?.try_into().ok()?)));
            let len = came.len;
            self.buffers[i].set_len(len);
            let data = self.buffers[i].data();
            let size = size.and_then(|s| usize::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(len.max(1));
            if data.is_empty() {
                each(from, data);
            }
            data.chunks(size).for_each(|d| each(from, d));
        }
        Ok(n == BUFFERS)
    }

    /// Sends all that waits; what the kernel does not take is lost and counted.
    pub fn flush(&mut self, effects: &mut Effects) {
        let Effects { outbound, losses, .. } = effects;
        for run in outbound.runs.drain(..) {
            let data = &outbound.bytes[run.start..run.end];
            let to = SockAddr::from(self.reachable(run.to));
            let mut result = Ok(());
            if run.count > 1 && self.segment {
                result = self.send(&to, data, Some(run.segment as u16));
            }
            // One by one: not more than one, no segmentation here, or the path's MTU does not allow it.
            if run.count == 1 || !self.segment || result.as_ref().is_err_and(cannot_segment) {
                let mut failed = None;
                let mut lost = 0;
                for datagram in data.chunks(run.segment) {
                    if let Err(e) = self.send(&to, datagram, None) {
                        failed = Some(e);
                        lost += 1;
                    }
                }
                if let (Some(e), Some(bytes)) = (&failed, run.inner) {
                    (0..lost).for_each(|_| losses.tx(reason(e), bytes / run.count));
                }
            } else if let (Err(e), Some(bytes)) = (&result, run.inner) {
                (0..run.count).for_each(|_| losses.tx(reason(e), bytes / run.count));
            }
        }
        outbound.bytes.clear();
    }

    fn send(&self, to: &SockAddr, data: &[u8], segment: Option<u16>) -> io::Result<()> {
        let slices = [IoSlice::new(data)];
        let control = segment.map(segment_message);
        let mut message = MsgHdr::new().with_addr(to).with_buffers(&slices);
        if let Some(control) = &control {
            message = message.with_control(control);
        }
        loop {
            match self.socket.sendmsg(&message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                other => return other.map(|_| ()),
            }
        }
    }

    /// An address in the socket's family.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(a) if self.six => SocketAddr::new(a.ip().to_ipv6_mapped().into(), a.port()),
            a => a,
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    let _ = socket.set_recv_buffer_size(SPACE);
    let _ = opt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(SPACE as i32));
    let _ = socket.set_send_buffer_size(SPACE);
    let _ = opt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(SPACE as i32));
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket)
}

/// One control message: UDP_SEGMENT with a size.
fn segment_message(size: u16) -> [u8; 24] {
    let mut m = [0; 24];
    m[..8].copy_from_slice(&18usize.to_ne_bytes());
    m[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    m[12..16].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
    m[16..18].copy_from_slice(&size.to_ne_bytes());
    m
}

/// The kernel cannot do it in one piece, but perhaps one by one.
fn cannot_segment(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

fn reason(e: &io::Error) -> DropReason {
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::TxFull,
        Some(libc::EMSGSIZE) => DropReason::TooBig,
        _ => DropReason::TxError,
    }
}

/// A sockaddr_in or sockaddr_in6 as the kernel wrote it; mapped addresses are those of IPv4.
fn sender(name: &[u8; 28]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([name[2], name[3]]);
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    match family {
        libc::AF_INET => Some(SocketAddr::new(Ipv4Addr::new(name[4], name[5], name[6], name[7]).into(), port)),
        libc::AF_INET6 => {
            let addr: [u8; 16] = name[8..24].try_into().ok()?;
            let addr = Ipv6Addr::from(addr);
            if let Some(four) = addr.to_ipv4_mapped() {
                return Some(SocketAddr::new(four.into(), port));
            }
            let scope = u32::from_ne_bytes(name[24..28].try_into().ok()?);
            Some(SocketAddr::V6(std::net::SocketAddrV6::new(addr, port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_one_size_to_one_peer_are_one_run() {
        let mut o = Outbound::default();
        let (a, b): (SocketAddr, SocketAddr) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        for (to, len, inner) in [
            (a, 100, Some(60)),
            (a, 100, Some(60)),
            (a, 40, Some(20)),
            (a, 40, Some(20)),
            (b, 40, Some(20)),
            (b, 40, None),
            (b, 50, None),
        ] {
            o.put(to, &vec![7; len], inner);
        }
        let runs: Vec<_> = o.runs.iter().map(|r| (r.to, r.count, r.segment, r.end - r.start, r.inner)).collect();
        assert_eq!(
            runs,
            [
                (a, 3, 100, 240, Some(140)),
                (a, 1, 40, 40, Some(20)),
                (b, 1, 40, 40, Some(20)),
                (b, 1, 40, 40, None),
                (b, 1, 50, 50, None)
            ]
        );
        assert_eq!(o.take().len(), 7);
    }

    #[test]
    fn runs_are_bounded() {
        let mut o = Outbound::default();
        let a: SocketAddr = "192.0.2.1:1".parse().unwrap();
        (0..200).for_each(|_| o.put(a, &[0; 1452], Some(1420)));
        assert!(o.runs.iter().all(|r| r.count <= SEGMENTS && r.end - r.start <= LARGEST));
        assert_eq!(o.runs.iter().map(|r| r.count).sum::<usize>(), 200);
    }
}
