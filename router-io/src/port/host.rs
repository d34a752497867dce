//! What ports over the host's own stack share (`rawip`, `udp`): their sockets' buffers, and what the stack knows of the path to a
//! destination.

use super::{PortEvent, SendError};
use crate::sys::opt;
use router_core::drop_reason::DropReason;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// Bytes asked for as the buffer of a socket.
const BUFFER: usize = 8 << 20;

/// Whether the host has IPv6 at all.
pub(super) fn ipv6_present() -> bool {
    Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok()
}

/// Large buffers; larger than an ordinary program may have, where the privilege is there.
pub(super) fn widen(s: &Socket) {
    let _ = s.set_recv_buffer_size(BUFFER);
    let _ = s.set_send_buffer_size(BUFFER);
    let _ = opt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(BUFFER as i32));
    let _ = opt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(BUFFER as i32));
}

/// UDP sockets that never send and are asked for path MTUs: made at opening, in the right network namespace.
#[derive(Debug)]
pub(super) struct Paths {
    four: Option<Socket>,
    six: Option<Socket>,
}

impl Paths {
    /// For the families that the port has, through this device if there is one.
    pub(super) fn open(v4: bool, v6: bool, device: Option<&str>) -> io::Result<Self> {
        let open = |domain| {
            let s = Socket::new(domain, Type::DGRAM, None)?;
            if let Some(device) = device {
                s.bind_device(Some(device.as_bytes()))?;
            }
            Ok::<_, io::Error>(s)
        };
        Ok(Paths {
            four: v4.then(|| open(Domain::IPV4)).transpose()?,
            six: v6.then(|| open(Domain::IPV6)).transpose()?,
        })
    }

    /// The path MTU that the host's stack has for `dst`: connecting makes it look up the path.
    pub(super) fn mtu(&self, dst: IpAddr) -> Option<u32> {
        let probe = if dst.is_ipv4() { &self.four } else { &self.six }.as_ref()?;
        probe.connect(&SockAddr::from(SocketAddr::new(dst, 9))).ok()?;
        let (level, option) =
            if dst.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
        opt::get::<i32>(probe.as_fd(), level, option).ok().and_then(|m| u32::try_from(m).ok())
    }

    /// What an error from sending to `dst` means.
    pub(super) fn send_error(&self, e: &io::Error, dst: IpAddr) -> SendError {
        match e.raw_os_error().unwrap_or(libc::EIO) {
            libc::EMSGSIZE => SendError {
                reason: DropReason::TooBig,
                event: self.mtu(dst).map(|mtu| PortEvent::PathMtu { dst, mtu }),
            },
            // The host's routing, not a device of ours: the queue stays.
            libc::ENETDOWN | libc::ENODEV | libc::ENXIO => SendError::new(DropReason::TxError),
            errno => SendError::from_errno(errno),
        }
    }
}
