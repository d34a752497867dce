//! `datalink`: Ethernet frames through libpnet's portable datalink channel. The fallback where AF_PACKET of our own
//! ([`super::packet`]) is not wanted; it costs two to three times as much per frame.
//!
//! The channel knows neither direction nor offloads nor VLAN tags. So frames with the device's own source address are
//! dropped (they are copies of what this host sends), receive merging (GRO, LRO) is switched off on the device while
//! the port is open, and a VLAN tag that the kernel took out is lost: use it on devices without VLANs. A sender on the
//! same host whose device leaves checksums to the hardware (veth) must have that switched off at its own end.

use super::error::{NET_ADMIN, NET_RAW, PortError};
use super::{Port, PortEvent, Receive, RecvError, SendError, Transmit};
use crate::sys::device::{Device, FLAG_LRO, Feature};
use crate::sys::wake::Wake;
use crate::sys::{opt, packet};
use crossbeam_channel::{Receiver, TryRecvError, TrySendError, bounded};
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use router_core::addr::MacAddr;
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use router_core::port::{Medium, PortCaps};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames waiting between the reader thread and the worker.
const QUEUE: usize = 1024;
/// How long the reader thread waits before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(100);
/// The kernel may still hand over a merged frame that was under way when merging was switched off.
const BUFFER: usize = router_core::frame::MAX_FRAME;

/// The only queue of a datalink port; further workers get sending halves.
pub struct DatalinkQueue {
    tx: Box<dyn DataLinkSender>,
    reader: Option<Reader>,
}

struct Reader {
    frames: Receiver<Result<Frame, PortEvent>>,
    wake: Wake,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    overruns: Arc<AtomicU64>,
}

/// Opens the datalink channel of `device`: the first of `queues` receives, all send.
pub fn open(
    port: &str,
    device: &str,
    promiscuous: bool,
    queues: usize,
) -> Result<(Vec<DatalinkQueue>, Device), PortError> {
    let no_device = || PortError::NoDevice { port: port.to_owned(), device: device.to_owned() };
    let facts = Device::new(device).map_err(|_| no_device())?;
    let interface = datalink::interfaces().into_iter().find(|i| i.name == device).ok_or_else(no_device)?;
    let Ok(Some(mac)) = facts.mac() else {
        let reason = format!("{device} is not an Ethernet device");
        return Err(PortError::Config { port: port.to_owned(), reason });
    };
    let mut opened = Vec::new();
    for i in 0..queues.max(1) {
        let failed = |e| PortError::system(port, format!("open a datalink channel on {device}"), NET_RAW, e);
        // Our own socket below the channel, because the channel waits for frames only and never collects errors.
        let socket = packet::plain_socket().map_err(failed)?;
        let lent = socket.try_clone().map_err(failed)?;
        let config = Config {
            socket_fd: Some(lent.into_raw_fd()),
            read_timeout: Some(PATIENCE),
            write_timeout: Some(Duration::ZERO),
            read_buffer_size: BUFFER,
            promiscuous: promiscuous && i == 0,
            ..Config::default()
        };
        let (tx, rx) = match datalink::channel(&interface, config).map_err(failed)? {
            Channel::Ethernet(tx, rx) => (tx, rx),
            _ => {
                let action = format!("open a datalink channel on {device}");
                let remedy = "the system offers no Ethernet channel; use kind = \"packet\"";
                return Err(PortError::Unsupported { port: port.to_owned(), action, remedy });
            }
        };
        let reader = if i == 0 {
            let merging = MergingOff::new(device);
            let start = || Reader::start(rx, socket, mac, merging);
            Some(start().map_err(|e| PortError::system(port, "start the reader thread", NET_ADMIN, e))?)
        } else {
            // Only sends: nothing may pile up in it.
            packet::bind(&socket, interface.index, false).map_err(failed)?;
            None
        };
        opened.push(DatalinkQueue { tx, reader });
    }
    Ok((opened, facts))
}

impl Reader {
    fn start(
        mut rx: Box<dyn DataLinkReceiver>,
        socket: OwnedFd,
        mac: MacAddr,
        merging: MergingOff,
    ) -> io::Result<Self> {
        let (to, frames) = bounded(QUEUE);
        let (wake, stop, overruns) = (Wake::new()?, Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ring, ended, missed) = (wake.clone(), stop.clone(), overruns.clone());
        let thread = std::thread::Builder::new().name("datalink".to_owned()).spawn(move || {
            // Undone by this thread: it is started by one that may change devices, unlike the worker that closes it.
            let _merging = merging;
            while !ended.load(Ordering::Acquire) {
                let message = match rx.next() {
                    Ok(bytes) if is_own(bytes, mac) => continue,
                    Ok(bytes) => Ok(Frame::from_slice(bytes)),
                    Err(e) => match recv_event(&e, &socket) {
                        None => continue,
                        Some(event) => Err(event),
                    },
                };
                let last = message.as_ref().is_err_and(PortEvent::ends_queue);
                match to.try_send(message) {
                    Ok(()) => ring.ring(),
                    Err(TrySendError::Full(_)) => {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(TrySendError::Disconnected(_)) => return,
                }
                if last {
                    return;
                }
            }
        })?;
        Ok(Reader { frames, wake, stop, thread: Some(thread), overruns })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the frame is a copy of one that this host sent.
fn is_own(frame: &[u8], mac: MacAddr) -> bool {
    frame.get(6..12) == Some(&mac.0[..])
}

/// What a failed read means; None for a mere timeout. When the socket only holds an error, the channel says that it got
/// an unexpected event, without an errno, and leaves the error where it is.
fn recv_event(e: &io::Error, socket: &OwnedFd) -> Option<PortEvent> {
    let errno = match e.raw_os_error() {
        Some(errno) => errno,
        None if e.kind() == io::ErrorKind::TimedOut => return None,
        None => opt::get::<i32>(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).ok()?,
    };
    match errno {
        0 | libc::EAGAIN | libc::EINTR => None,
        libc::ENETDOWN => Some(PortEvent::LinkDown),
        libc::ENODEV | libc::ENXIO => Some(PortEvent::Vanished),
        errno => Some(PortEvent::Broken(errno)),
    }
}

impl Receive for DatalinkQueue {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        let Some(reader) = &self.reader else { return Ok(false) };
        let next = reader.frames.try_recv().or_else(|_| {
            reader.wake.listen();
            reader.frames.try_recv()
        });
        match next {
            Ok(Ok(next)) if frame.set_data(next.data()) => Ok(true),
            Ok(Ok(_)) => Err(RecvError::Malformed),
            Ok(Err(event)) => Err(RecvError::Event(event)),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(RecvError::Event(PortEvent::Broken(libc::EPIPE))),
        }
    }
}

impl Transmit for DatalinkQueue {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        if frame.meta.csum.is_some() || frame.meta.gso.is_some() {
            return Err(SendError::new(DropReason::OffloadMalformed));
        }
        if let Some(tci) = frame.meta.vlan_tci.take()
            && !super::vnet::insert_vlan_tag(frame, 0x8100, tci)
        {
            return Err(SendError::new(DropReason::NoHeadroom));
        }
        match self.tx.send_to(frame.data(), None) {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) if e.kind() == io::ErrorKind::TimedOut => Err(SendError::new(DropReason::TxFull)),
            Some(Err(e)) => Err(SendError::from_errno(e.raw_os_error().unwrap_or(libc::EIO))),
            None => Err(SendError::new(DropReason::TxError)),
        }
    }
}

impl Port for DatalinkQueue {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(|r| r.wake.as_fd())
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        Medium::Ethernet
    }

    fn take_overruns(&mut self) -> u64 {
        self.reader.as_ref().map_or(0, |r| r.overruns.swap(0, Ordering::Relaxed))
    }
}

/// GRO and LRO of a device, switched off where they can be and were on; switched on again at the end.
pub(super) struct MergingOff {
    device: Option<Device>,
    gro: bool,
    lro: bool,
}

impl MergingOff {
    pub(super) fn new(name: &str) -> Self {
        let Ok(device) = Device::new(name) else { return MergingOff { device: None, gro: false, lro: false } };
        let gro = device.feature(Feature::GRO).is_ok_and(|v| v != 0) && device.set_feature(Feature::GRO, 0).is_ok();
        let flags = device.feature(Feature::FLAGS).unwrap_or(0);
        let lro = flags & FLAG_LRO != 0 && device.set_feature(Feature::FLAGS, flags & !FLAG_LRO).is_ok();
        MergingOff { device: Some(device), gro, lro }
    }
}

impl Drop for MergingOff {
    fn drop(&mut self) {
        let Some(device) = &self.device else { return };
        if self.gro {
            let _ = device.set_feature(Feature::GRO, 1);
        }
        if self.lro
            && let Ok(flags) = device.feature(Feature::FLAGS)
        {
            let _ = device.set_feature(Feature::FLAGS, flags | FLAG_LRO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_copies_are_recognised() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut f = [0u8; 14];
        assert!(!is_own(&f, mac));
        f[6..12].copy_from_slice(&mac.0);
        assert!(is_own(&f, mac));
        assert!(!is_own(&f[..11], mac));
    }
}
