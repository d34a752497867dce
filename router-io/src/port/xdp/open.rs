//! Opening an `xdp` port: memory, sockets for every receive queue of the device, the program.

use super::memory::{Memories, PER_QUEUE, RING};
use super::{Lane, Queue, XdpQueue};
use crate::port::datalink::MergingOff;
use crate::port::error::{NET_ADMIN, NET_RAW, PortError};
use crate::port::open::Guard;
use crate::port::packet;
use crate::sys::bpf::{AttachMode, Program, XskMap};
use crate::sys::device::Device;
use crate::sys::packet as sys_packet;
use crate::sys::xsk::{BindError, BindOptions, BusyPoll, CopyMode, PACKET_HEADROOM, Socket};
use std::io;
use std::os::fd::AsFd;

/// CAP_BPF, as named in messages.
const BPF: &str = "CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW";
/// Link header with two VLAN tags.
const LINK: u32 = 14 + 8;
/// Receive queues that one worker serves.
const QUEUES_PER_WORKER: u32 = 16;
/// Frames per busy polling call.
const BUSY_BUDGET: i32 = 64;

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver; refused where that cannot.
    #[default]
    Native,
    /// In the kernel's generic receive path: any driver, slower, and super-frames of the sender are lost.
    Generic,
}

/// What a configuration may say about an `xdp` port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpOptions {
    /// Where the program runs.
    pub mode: XdpMode,
    /// Frames without a copy by the driver: required, forbidden, or (None) where the driver can.
    pub zero_copy: Option<bool>,
    /// Poll the device from the worker's own calls, for so many microseconds; 0 leaves that to interrupts.
    pub busy_poll: u32,
}

/// The port's queues, one per worker, the device, and what ends with the port.
pub type Opened = (Vec<Queue>, Device, Vec<Guard>);

/// Chunk size for a device's MTU; None when no chunk takes its frames.
fn chunk_for(mtu: u32) -> Option<usize> {
    [2048, 4096].into_iter().find(|c| (mtu + LINK) as usize <= c - PACKET_HEADROOM)
}

/// Whether an `xdp` port may be tried on a device, for the automatic choice.
pub fn can_be_xdp(device: &str) -> Result<(), &'static str> {
    let facts = Device::new(device).map_err(|_| "no such device")?;
    if chunk_for(facts.mtu().map_err(|_| "no such device")?).is_none() {
        return Err("its MTU is too large for AF_XDP frames");
    }
    Ok(())
}

/// Opens `device` for `workers` workers.
pub fn open(
    port: &str,
    device: &str,
    promiscuous: bool,
    workers: usize,
    options: XdpOptions,
    memories: &mut Memories,
) -> Result<Opened, PortError> {
    let no_device = || PortError::NoDevice { port: port.to_owned(), device: device.to_owned() };
    let unsupported = |action: String, remedy| PortError::Unsupported { port: port.to_owned(), action, remedy };
    let facts = Device::new(device).map_err(|_| no_device())?;
    let ifindex = facts.index().map_err(|_| no_device())?;
    let read = |e| PortError::system(port, format!("look at {device}"), NET_ADMIN, e);
    if facts.mac().map_err(read)?.is_none() {
        let reason = format!("{device} is not an Ethernet device; use kind = \"rawip\" or \"tun\" beside it");
        return Err(PortError::Config { port: port.to_owned(), reason });
    }
    let mtu = facts.mtu().map_err(read)?;
    let Some(chunk) = chunk_for(mtu) else {
        let action = format!("take frames of {device}, whose MTU is {mtu}");
        return Err(unsupported(action, "lower the MTU to at most 3818, or use kind = \"packet\""));
    };
    let queues = facts.rx_queues();
    let workers = workers.max(1);
    if queues > QUEUES_PER_WORKER * workers as u32 {
        let action = format!("serve the {queues} receive queues of {device}");
        return Err(unsupported(action, "lower their number to that of the workers: ethtool -L DEVICE combined N"));
    }
    if (queues as usize) < workers {
        tracing::warn!(
            port,
            device,
            queues,
            workers,
            "the device has fewer receive queues than there are workers, the others only send; ethtool -L gives more"
        );
    }
    let bind = BindOptions {
        copy: match options.zero_copy {
            None => CopyMode::Any,
            Some(true) => CopyMode::ZeroCopy,
            Some(false) => CopyMode::Copy,
        },
        rx_ring: RING,
        tx_ring: RING,
        busy_poll: (options.busy_poll > 0)
            .then_some(BusyPoll { microseconds: options.busy_poll.min(1_000_000) as i32, budget: BUSY_BUDGET }),
    };
    let failed = |e| bind_error(port, device, e);
    let map = XskMap::new(queues).map_err(|e| load_error(port, device, e))?;
    let mut lanes: Vec<Vec<Lane>> = (0..workers).map(|_| Vec::new()).collect();
    for queue in 0..queues {
        let worker = queue as usize % workers;
        let lane = open_lane(memories, worker, chunk, ifindex, queue, &bind).map_err(failed)?;
        map.set(queue, lane.socket.as_fd()).map_err(|e| PortError::system(port, "register a socket", BPF, e))?;
        lanes[worker].push(lane);
    }
    let zero_copy = lanes.iter().flatten().all(|l| l.socket.zero_copy());
    let mut guards: Vec<Guard> = Vec::new();
    if options.mode == XdpMode::Generic {
        guards.push(Box::new(MergingOff::new(device)));
    }
    let program = Program::redirect(&map).map_err(|e| load_error(port, device, e.source))?;
    let mode = match options.mode {
        XdpMode::Native => AttachMode::Native,
        XdpMode::Generic => AttachMode::Generic,
    };
    // Sockets have frames to fill by now: what comes from here on is not lost.
    guards.push(Box::new(program.attach(ifindex, mode).map_err(|e| attach_error(port, device, e))?));
    // AF_XDP sees what the device lets through: without all multicast, no neighbour solicitation (RFC 4861 7.2.1).
    let hold = sys_packet::plain_socket();
    let set = hold.and_then(|fd| match promiscuous {
        true => sys_packet::set_promiscuous(&fd, ifindex).map(|()| fd),
        false => sys_packet::set_all_multicast(&fd, ifindex).map(|()| fd),
    });
    let what =
        if promiscuous { format!("set {device} promiscuous") } else { format!("let {device} receive all multicast") };
    guards.push(Box::new(set.map_err(|e| PortError::system(port, what, NET_RAW, e))?));
    tracing::info!(port, device, queues, native = options.mode == XdpMode::Native, zero_copy, "AF_XDP");
    let partial = !facts.is_hardware();
    let mut opened = Vec::with_capacity(workers);
    for lanes in lanes {
        opened.push(if lanes.is_empty() {
            let sender = packet::open_sender(ifindex);
            Queue::Sender(Box::new(sender.map_err(|e| PortError::system(port, "open a packet socket", NET_RAW, e))?))
        } else {
            let queue = XdpQueue::new(lanes, partial);
            Queue::Xdp(queue.map_err(|e| PortError::system(port, "make a set of sockets", NET_RAW, e))?)
        });
    }
    Ok((opened, facts, guards))
}

/// One socket whose fill ring is full.
fn open_lane(
    memories: &mut Memories,
    worker: usize,
    chunk: usize,
    ifindex: u32,
    queue: u32,
    bind: &BindOptions,
) -> Result<Lane, BindError> {
    let (shared, frames) = memories.allot(worker, chunk).map_err(BindError::Memory)?;
    let mut spare = frames;
    let mut socket = match Socket::bind(&shared.umem, ifindex, queue, bind) {
        Ok(socket) => socket,
        Err(e) => {
            shared.give_back(spare);
            return Err(e);
        }
    };
    socket.fill(&mut spare);
    let home = shared.umem.home();
    Ok(Lane { socket, shared, home, spare, passing: Vec::with_capacity(PER_QUEUE), lost: 0 })
}

fn bind_error(port: &str, device: &str, e: BindError) -> PortError {
    let unsupported = |action: String, remedy| PortError::Unsupported { port: port.to_owned(), action, remedy };
    match e {
        BindError::Socket(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => unsupported(
            "open an AF_XDP socket".to_owned(),
            "this kernel is built without CONFIG_XDP_SOCKETS; use kind = \"packet\"",
        ),
        BindError::Socket(e) => PortError::system(port, "open an AF_XDP socket", NET_RAW, e),
        BindError::Memory(e) if e.raw_os_error() == Some(libc::ENOBUFS) => unsupported(
            "pin the memory for frames".to_owned(),
            "the limit of locked memory is too low; give CAP_IPC_LOCK, or raise it: ulimit -l unlimited, or \
             LimitMEMLOCK=infinity in the unit",
        ),
        BindError::Memory(e) => PortError::system(port, "share memory with the kernel", NET_RAW, e),
        BindError::Bind(e) => match e.raw_os_error() {
            // EINVAL: a socket with the same umem has it.
            Some(libc::EBUSY | libc::EINVAL) => unsupported(
                format!("take a receive queue of {device}"),
                "another AF_XDP program or port has it; end that, or use kind = \"packet\"",
            ),
            Some(libc::EOPNOTSUPP) => unsupported(
                format!("bind to {device} without copies"),
                "its driver has no zero-copy AF_XDP; leave out zero_copy = true",
            ),
            _ => PortError::system(port, format!("bind an AF_XDP socket to {device}"), NET_RAW, e),
        },
    }
}

fn load_error(port: &str, device: &str, e: io::Error) -> PortError {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::Permission {
            port: port.to_owned(),
            action: format!("load the XDP program for {device}"),
            capability: BPF,
        },
        _ => PortError::system(port, format!("load the XDP program for {device}"), BPF, e),
    }
}

fn attach_error(port: &str, device: &str, e: io::Error) -> PortError {
    let action = format!("attach the XDP program to {device}");
    let remedy = match e.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached; take it away (ip link set dev DEVICE xdp off), or use kind = \"packet\""
        }
        Some(libc::EOPNOTSUPP) => {
            "its driver has no native XDP; write xdp_mode = \"generic\" (slower), or use kind = \"packet\""
        }
        Some(libc::ERANGE | libc::EINVAL) => {
            "the driver refuses it, most likely for the MTU of the device or of its peer; lower that, or use \
             kind = \"packet\""
        }
        Some(libc::ENOSPC) => {
            "the device has fewer receive queues than its peer has transmit queues; ethtool -L DEVICE rx N, or use \
             kind = \"packet\""
        }
        _ => return PortError::system(port, action, BPF, e),
    };
    PortError::Unsupported { port: port.to_owned(), action, remedy }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn chunks_by_mtu() {
        for (mtu, chunk) in [
            (1280, Some(2048)),
            (1500, Some(2048)),
            (1770, Some(2048)),
            (1771, Some(4096)),
            (3818, Some(4096)),
            (3819, None),
            (9000, None),
        ] {
            assert_eq!(chunk_for(mtu), chunk, "{mtu}");
        }
    }

    #[test]
    fn errors_name_the_remedy() {
        let os = io::Error::from_raw_os_error;
        for (e, words) in [
            (attach_error("p", "eth1", os(libc::EOPNOTSUPP)), "xdp_mode = \"generic\""),
            (attach_error("p", "eth1", os(libc::EBUSY)), "xdp off"),
            (attach_error("p", "eth1", os(libc::ENOSPC)), "ethtool -L"),
            (attach_error("p", "eth1", os(libc::EPERM)), "CAP_BPF"),
            (load_error("p", "eth1", os(libc::EPERM)), "CAP_BPF"),
            (bind_error("p", "eth1", BindError::Bind(os(libc::EBUSY))), "another AF_XDP program or port"),
            (bind_error("p", "eth1", BindError::Bind(os(libc::EOPNOTSUPP))), "zero_copy"),
            (bind_error("p", "eth1", BindError::Memory(os(libc::ENOBUFS))), "ulimit -l"),
            (bind_error("p", "eth1", BindError::Socket(os(libc::EAFNOSUPPORT))), "CONFIG_XDP_SOCKETS"),
        ] {
            assert!(e.to_string().contains(words) && e.to_string().contains("port p:"), "{e}");
        }
    }
}
