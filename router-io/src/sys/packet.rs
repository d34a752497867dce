//! AF_PACKET sockets: making, binding, options. Numbers from `linux/if_packet.h`, which libc lacks for Linux.

use super::opt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Control message and option that carry `tpacket_auxdata`.
pub const PACKET_AUXDATA: i32 = 8;
const PACKET_STATISTICS: i32 = 6;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_FANOUT: i32 = 18;
const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_MR_PROMISC: u16 = 1;
const PACKET_MR_ALLMULTI: u16 = 2;
const FANOUT_HASH: u32 = 0;
const FANOUT_FLAG_UNIQUEID: u32 = 0x2000;
const FANOUT_FLAG_IGNORE_OUTGOING: u32 = 0x4000;
/// Socket buffers: room for a burst of super-frames while a worker is busy elsewhere.
const BUFFER: libc::c_int = 8 << 20;

/// struct tpacket_stats.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Frames that matched, dropped ones included.
    pub packets: u32,
    /// Frames dropped because the socket buffer was full.
    pub drops: u32,
}

/// A raw packet socket that receives nothing before it is bound, so that no frame of another device can slip in.
pub fn plain_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A raw packet socket with offload headers and auxiliary data, not yet bound to a device.
pub fn socket() -> io::Result<OwnedFd> {
    let fd = plain_socket()?;
    opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
    opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_AUXDATA, &1i32)?;
    // Since Linux 4.20; before, the receive path looks at the packet type.
    let _ = opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32);
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if opt::set(fd.as_fd(), libc::SOL_SOCKET, force, &BUFFER).is_err() {
            let _ = opt::set(fd.as_fd(), libc::SOL_SOCKET, plain, &BUFFER);
        }
    }
    Ok(fd)
}

/// Sends past the device's queueing discipline and classifiers.
pub fn bypass_qdisc(fd: &OwnedFd) -> io::Result<()> {
    opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1i32)
}

/// What is sent carries this mark in the kernel (SO_MARK). Needs CAP_NET_RAW or CAP_NET_ADMIN.
pub fn set_mark(fd: &OwnedFd, mark: u32) -> io::Result<()> {
    opt::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, &mark)
}

/// Binds to a device. `receive` false: the socket only sends.
pub fn bind(fd: &OwnedFd, ifindex: u32, receive: bool) -> io::Result<()> {
    // SAFETY: a C struct of integers: all zero is a valid value.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_ifindex = ifindex as i32;
    addr.sll_protocol = if receive { (libc::ETH_P_ALL as u16).to_be() } else { 0 };
    // SAFETY: pointer and length describe `addr`.
    let r = unsafe {
        libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&addr).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks the device for all frames, whatever their destination, until the socket is closed.
pub fn set_promiscuous(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    add_membership(fd, ifindex, PACKET_MR_PROMISC)
}

/// Asks the device for frames to all link-layer groups until the socket is closed. A device lets through the groups that
/// the host's own stack has joined; a router's solicited-node groups are not among them.
pub fn set_all_multicast(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    add_membership(fd, ifindex, PACKET_MR_ALLMULTI)
}

fn add_membership(fd: &OwnedFd, ifindex: u32, kind: u16) -> io::Result<()> {
    let req = libc::packet_mreq { mr_ifindex: ifindex as i32, mr_type: kind, mr_alen: 0, mr_address: [0; 8] };
    opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &req)
}

/// Opens a new fanout group (spread by flow hash) and returns its number. Fails while the device is down.
pub fn new_fanout(fd: &OwnedFd) -> io::Result<u16> {
    let flags = FANOUT_HASH | FANOUT_FLAG_UNIQUEID | FANOUT_FLAG_IGNORE_OUTGOING;
    if opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT, &(flags << 16)).is_err() {
        // Kernels that do not know IGNORE_OUTGOING; the receive path filters.
        opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT, &((FANOUT_HASH | FANOUT_FLAG_UNIQUEID) << 16))?;
    }
    Ok(opt::get::<u32>(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT)? as u16)
}

/// Joins a group made by [`new_fanout`].
pub fn join_fanout(fd: &OwnedFd, group: u16) -> io::Result<()> {
    let arg = |flags: u32| u32::from(group) | (flags << 16);
    opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT, &arg(FANOUT_HASH | FANOUT_FLAG_IGNORE_OUTGOING))
        .or_else(|_| opt::set(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT, &arg(FANOUT_HASH)))
}

/// Frames dropped for want of socket buffer since the last call.
pub fn take_drops(fd: &OwnedFd) -> u32 {
    opt::get::<Stats>(fd.as_fd(), libc::SOL_PACKET, PACKET_STATISTICS).map_or(0, |s| s.drops)
}

/// Whether the socket is still bound to `ifindex`: the kernel unbinds it when the device is unregistered.
pub fn is_bound(fd: &OwnedFd, ifindex: u32) -> bool {
    // SAFETY: a C struct of integers: all zero is a valid value.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `addr`.
    let r = unsafe { libc::getsockname(fd.as_raw_fd(), std::ptr::from_mut(&mut addr).cast(), &mut len) };
    r == 0 && addr.sll_ifindex == ifindex as i32
}
