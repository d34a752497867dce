//! `tun` and `tap`: packets, or Ethernet frames, to and from the host's own stack through /dev/net/tun, one queue per worker.
//!
//! The kernel hands over TCP and UDP super-frames with unfinished checksums (virtio_net_hdr) and takes such back.

use super::error::{NET_ADMIN, PortError};
use super::packet;
use super::vnet;
use super::{Port, PortEvent, Receive, RecvError, SendError, Transmit};
use crate::sys::device::Device;
use crate::sys::tun::{self, TunError};
use router_core::addr::MacAddr;
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use router_core::port::{Medium, PortCaps};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One queue of a TUN device.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    caps: PortCaps,
    medium: Medium,
}

/// The link-layer address of the router's end of a TAP device whose other end, the host's, has `host`: administered locally,
/// and another one.
pub fn near_mac(host: MacAddr) -> MacAddr {
    let mut near = host.0;
    (near[0], near[5]) = (near[0] & 0xfc | 0x02, near[5] ^ 0x01);
    MacAddr(near)
}

/// Opens `queues` queues of the TUN device (or, with `medium` Ethernet, TAP device) `device`, making it if needed. The device
/// vanishes with the last queue.
///
/// `mtu` None leaves the kernel's default (1500) or what the existing device has. The device is set up; host addresses
/// are left to the caller.
pub fn open(
    port: &str,
    device: &str,
    medium: Medium,
    mtu: Option<u32>,
    queues: usize,
) -> Result<(Vec<TunQueue>, Device), PortError> {
    let what = if medium == Medium::Ethernet { "TAP" } else { "TUN" };
    let open_one = |name: &str| {
        tun::open(name, true, medium == Medium::Ethernet).map_err(|e| match e {
            TunError::Open(e) if e.raw_os_error() == Some(libc::ENOENT) => PortError::Unsupported {
                port: port.to_owned(),
                action: "open /dev/net/tun".to_owned(),
                remedy: "no such file; load the kernel module tun or pass the device into the container",
            },
            TunError::Open(e) => PortError::system(port, "open /dev/net/tun", NET_ADMIN, e),
            TunError::Attach(e) => match e.raw_os_error() {
                Some(libc::EBUSY) => PortError::Unsupported {
                    port: port.to_owned(),
                    action: format!("attach to {what} device {name}"),
                    remedy: "another program has it open; choose another device name",
                },
                Some(libc::EINVAL) => PortError::Unsupported {
                    port: port.to_owned(),
                    action: format!("attach to {name}"),
                    remedy: "a device of this name exists and is not a multi-queue device of this kind; choose another name",
                },
                _ => PortError::system(port, format!("make {what} device {name}"), NET_ADMIN, e),
            },
        })
    };
    let first = open_one(device)?;
    let name = first.name.clone();
    let act = |step: &str, r: std::io::Result<()>| {
        r.map_err(|e| PortError::system(port, format!("{step} of {what} device {name}"), NET_ADMIN, e))
    };
    let facts = Device::new(&name).map_err(|e| PortError::system(port, "open a control socket", NET_ADMIN, e))?;
    let mut opened = vec![first];
    for _ in 1..queues {
        opened.push(open_one(&name)?);
    }
    if let Some(mtu) = mtu {
        act("set the MTU", facts.set_mtu(mtu))?;
    }
    act("bring up the link", facts.set_up())?;
    Ok((opened.into_iter().map(TunQueue::new).collect(), facts))
}

impl TunQueue {
    fn new(queue: tun::Queue) -> Self {
        let has = |bits: u32| queue.offloads & bits == bits;
        // What the kernel may send us is also what it takes: writes are checked against the header, not the offloads.
        let uso = has(libc::TUN_F_USO4 | libc::TUN_F_USO6);
        let caps = PortCaps { partial_checksum: true, tso: true, uso, tunnels: false };
        let medium = if queue.ethernet { Medium::Ethernet } else { Medium::Ip };
        TunQueue { fd: queue.fd, caps, medium }
    }
}

impl Receive for TunQueue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        let mut header = [0u8; vnet::LEN];
        let room = frame.capacity() + vnet::LEN;
        let mut into = [IoSliceMut::new(&mut header), IoSliceMut::new(frame.spare_mut())];
        match rustix::io::readv(&self.fd, &mut into) {
            // TUN cuts what does not fit and says nothing: a full buffer is a cut packet.
            Ok(n) if n <= vnet::LEN || n == room => Err(RecvError::Malformed),
            Ok(n) => {
                frame.set_len(n - vnet::LEN);
                vnet::to_meta(&header, frame, self.medium).map_err(|_| RecvError::Malformed)?;
                Ok(true)
            }
            Err(e) => match e.raw_os_error() {
                libc::EAGAIN | libc::EINTR => Ok(false),
                libc::EBADFD | libc::ENODEV => Err(RecvError::Event(PortEvent::Vanished)),
                libc::EFAULT | libc::EIO | libc::ENETDOWN => Err(RecvError::Event(PortEvent::LinkDown)),
                errno => Err(RecvError::Event(PortEvent::Broken(errno))),
            },
        }
    }
}

impl Transmit for TunQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        packet::prepare(frame)?;
        let header = vnet::from_meta(frame);
        match rustix::io::writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(frame.data())]) {
            Ok(_) => Ok(()),
            Err(e) => Err(match e.raw_os_error() {
                // What a TUN device that is down says.
                libc::EIO => SendError { reason: DropReason::PortDown, event: Some(PortEvent::LinkDown) },
                errno => SendError::from_errno(errno),
            }),
        }
    }
}

impl Port for TunQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn medium(&self) -> Medium {
        self.medium
    }
}
