//! A raw ICMP socket of either family, and reading of ICMP errors.

use super::domain;
use router_core::addr::Family;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use socket2::{Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

/// An ICMP error message, as far as the one who caused it wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IcmpError {
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// What type and code mean.
    pub name: &'static str,
    /// The MTU in a "fragmentation needed" or "packet too big" message.
    pub mtu: Option<u32>,
    /// Sequence number of the packet it answers.
    pub seq: u16,
    /// The whole message from its type on, for a look at extensions (RFC 4884).
    #[serde(skip)]
    pub message: MessageBytes,
}

/// The bytes of an ICMP message; debug output says only how many.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MessageBytes(pub Vec<u8>);

impl std::fmt::Debug for MessageBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The meaning of an ICMP error's type and code, in traceroute's and ping's words.
pub fn icmp_name(family: Family, kind: u8, code: u8) -> &'static str {
    match (family, kind, code) {
        (Family::Inet, 3, 0) => "net unreachable",
        (Family::Inet, 3, 1) => "host unreachable",
        (Family::Inet, 3, 2) => "protocol unreachable",
        (Family::Inet, 3, 3) => "port unreachable",
        (Family::Inet, 3, 4) => "fragmentation needed",
        (Family::Inet, 3, 9 | 10 | 13) => "administratively prohibited",
        (Family::Inet, 3, _) => "unreachable",
        (Family::Inet, 11, 1) | (Family::Inet6, 3, 1) => "reassembly time exceeded",
        (Family::Inet, 11, _) | (Family::Inet6, 3, _) => "time exceeded",
        (Family::Inet, 12, _) | (Family::Inet6, 4, _) => "parameter problem",
        (Family::Inet6, 1, 0) => "no route",
        (Family::Inet6, 1, 1) => "administratively prohibited",
        (Family::Inet6, 1, 3) => "address unreachable",
        (Family::Inet6, 1, 4) => "port unreachable",
        (Family::Inet6, 1, 5) => "source address failed policy",
        (Family::Inet6, 1, 6) => "reject route",
        (Family::Inet6, 1, _) => "unreachable",
        (Family::Inet6, 2, _) => "packet too big",
        _ => "other",
    }
}

/// A received ICMP message.
pub(super) struct Message {
    pub from: IpAddr,
    /// TTL or hop limit it arrived with.
    pub hop_limit: Option<u8>,
    /// From its type on.
    pub bytes: Vec<u8>,
}

/// The packet that an ICMP error quotes.
pub(super) struct Quote<'a> {
    pub dst: IpAddr,
    pub protocol: u8,
    /// The quoted transport header and what follows; may be cut.
    pub transport: &'a [u8],
}

impl Message {
    /// The quoted packet, if this is an error.
    pub fn quote(&self) -> Option<Quote<'_>> {
        let kind = *self.bytes.first()?;
        let quoted = self.bytes.get(8..)?;
        match self.from {
            IpAddr::V4(_) if matches!(kind, 3 | 11 | 12) => quote_v4(quoted),
            IpAddr::V6(_) if matches!(kind, 1..=4) => quote_v6(quoted),
            _ => None,
        }
    }

    /// This message as an error about packet `seq`.
    pub fn error(&self, seq: u16) -> IcmpError {
        let at = |i: usize| self.bytes.get(i).copied().unwrap_or(0);
        let (kind, code) = (at(0), at(1));
        let family = Family::of(&self.from);
        let mtu = match (family, kind, code) {
            (Family::Inet, 3, 4) => Some(u32::from(u16::from_be_bytes([at(6), at(7)]))),
            (Family::Inet6, 2, _) => Some(u32::from_be_bytes([at(4), at(5), at(6), at(7)])),
            _ => None,
        };
        let name = icmp_name(family, kind, code);
        IcmpError { from: self.from, kind, code, name, mtu, seq, message: MessageBytes(self.bytes.clone()) }
    }
}

fn quote_v4(b: &[u8]) -> Option<Quote<'_>> {
    let header = usize::from(b.first()? & 15) * 4;
    let dst = <[u8; 4]>::try_from(b.get(16..20)?).ok()?;
    Some(Quote { dst: Ipv4Addr::from(dst).into(), protocol: *b.get(9)?, transport: b.get(header..)? })
}

fn quote_v6(b: &[u8]) -> Option<Quote<'_>> {
    const FRAGMENT: u8 = 44;
    let dst = <[u8; 16]>::try_from(b.get(24..40)?).ok()?;
    let mut protocol = *b.get(6)?;
    let mut transport = b.get(40..)?;
    if protocol == FRAGMENT {
        protocol = *transport.first()?;
        transport = transport.get(8..)?;
    }
    Some(Quote { dst: Ipv6Addr::from(dst).into(), protocol, transport })
}

/// A raw ICMP socket: sees every ICMP message that the host gets.
pub(super) struct IcmpSocket {
    pub socket: Socket,
    pub family: Family,
}

impl IcmpSocket {
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Inet => Protocol::ICMPV4,
            Family::Inet6 => Protocol::ICMPV6,
        };
        let socket = Socket::new(domain(family), Type::RAW, Some(protocol))?;
        if family == Family::Inet6 {
            socket.set_recv_hoplimit_v6(true)?;
        }
        // Replies of 64 KiB must fit whatever the default is.
        socket.set_recv_buffer_size(1 << 20)?;
        Ok(IcmpSocket { socket, family })
    }

    /// The next message; None at the deadline.
    pub fn receive(&self, deadline: Instant) -> io::Result<Option<Message>> {
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
            let fd = self.socket.as_fd();
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            match receive_with_hop_limit(&self.socket, &mut buffer) {
                Ok((len, from, hop_limit)) => {
                    if let Some(message) = self.message(&buffer[..len], from, hop_limit) {
                        return Ok(Some(message));
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn message(&self, bytes: &[u8], from: Option<IpAddr>, hop_limit: Option<u8>) -> Option<Message> {
        let from = from?;
        match self.family {
            // IPv4 raw sockets give the header as well.
            Family::Inet => {
                let header = usize::from(bytes.first()? & 15) * 4;
                let bytes_after = bytes.get(header..)?.to_vec();
                Some(Message { from, hop_limit: bytes.get(8).copied(), bytes: bytes_after })
            }
            Family::Inet6 => Some(Message { from, hop_limit, bytes: bytes.to_vec() }),
        }
    }
}

/// recvmsg(2) with the hop limit of ancillary data (RFC 3542 6.3). Does not wait.
fn receive_with_hop_limit(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<IpAddr>, Option<u8>)> {
    #[repr(C, align(8))]
    struct Control([u8; 128]);
    let mut control = Control([0; 128]);
    let mut from = SockAddrStorage::zeroed();
    let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zero is a valid value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = from.size_of();
    header.msg_iov = &raw mut parts;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: every pointer in `header` is to a live buffer of the length given beside it.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let mut hop_limit = None;
    // SAFETY: `header` was filled in by recvmsg; the CMSG functions stay inside its control buffer, and the value of
    // IPV6_HOPLIMIT is an int, read unaligned.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(c) = next.as_ref() {
            if c.cmsg_level == libc::IPPROTO_IPV6 && c.cmsg_type == libc::IPV6_HOPLIMIT {
                let value = libc::CMSG_DATA(c).cast::<libc::c_int>().read_unaligned();
                hop_limit = u8::try_from(value).ok();
            }
            next = libc::CMSG_NXTHDR(&raw const header, c);
        }
    }
    // SAFETY: the kernel wrote an address of this length into the storage.
    let from = unsafe { SockAddr::new(from, header.msg_namelen) };
    Ok((len, from.as_socket().map(|a| a.ip()), hop_limit))
}

/// The Internet checksum (RFC 1071), for IPv4; the kernel does ICMPv6's.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes.chunks(2).map(|c| u64::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let mut sum = (sum & 0xffff) + (sum >> 16);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_rfc1071() {
        // RFC 1071 section 3: the sum of these bytes is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff; 65535]), !0xff00);
    }

    #[test]
    fn cut_quotes_are_no_panic() {
        for from in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
            for len in 0..80 {
                let m = Message { from, hop_limit: None, bytes: vec![3; len] };
                let _ = m.quote();
                let _ = m.error(0);
            }
        }
    }
}
