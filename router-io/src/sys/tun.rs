//! /dev/net/tun: TUN and TAP devices.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Length of `struct virtio_net_hdr`, which precedes each packet.
const VNET_LEN: libc::c_int = super::super::port::vnet::LEN as libc::c_int;

/// Offload sets to ask for, best first: kernels before 6.2 refuse USO, very old ones more.
const OFFLOADS: [u32; 4] = [
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN | libc::TUN_F_USO4 | libc::TUN_F_USO6,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
    libc::TUN_F_CSUM,
    0,
];

/// Which step failed.
#[derive(Debug)]
pub enum TunError {
    /// /dev/net/tun could not be opened.
    Open(io::Error),
    /// The device could not be made or attached to.
    Attach(io::Error),
}

/// One queue of a TUN device.
#[derive(Debug)]
pub struct Queue {
    /// Reads and writes packets, each behind a virtio_net_hdr.
    pub fd: OwnedFd,
    /// The device's name, chosen by the kernel when the wish was empty or held `%d`.
    pub name: String,
    /// The offloads that the kernel granted (TUN_F_*).
    pub offloads: u32,
    /// Its frames are Ethernet's.
    pub ethernet: bool,
}

/// Opens one queue of the device `name`, making the device when it does not exist: one of Ethernet frames, or of packets.
pub fn open(name: &str, multi_queue: bool, ethernet: bool) -> Result<Queue, TunError> {
    let fd = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| TunError::Open(e.into()))?;
    let raw = fd.as_raw_fd();
    // SAFETY: ifreq is a C struct of integers, arrays and raw pointers: all zero is a valid value.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= req.ifr_name.len() {
        return Err(TunError::Attach(io::Error::from_raw_os_error(libc::ENAMETOOLONG)));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let queue = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let kind = if ethernet { libc::IFF_TAP } else { libc::IFF_TUN };
    req.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queue) as libc::c_short;
    let last = |r: libc::c_int| if r < 0 { Err(TunError::Attach(io::Error::last_os_error())) } else { Ok(()) };
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    last(unsafe { libc::ioctl(raw, libc::TUNSETIFF, std::ptr::from_mut(&mut req)) })?;
    let len = VNET_LEN;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    last(unsafe { libc::ioctl(raw, libc::TUNSETVNETHDRSZ, std::ptr::from_ref(&len)) })?;
    let mut offloads = 0;
    for wish in OFFLOADS {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(raw, libc::TUNSETOFFLOAD, libc::c_ulong::from(wish)) } == 0 {
            offloads = wish;
            break;
        }
    }
    let name = req.ifr_name.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect();
    Ok(Queue { fd, name, offloads, ethernet })
}
