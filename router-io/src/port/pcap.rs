//! `pcap`: frames from a capture file in, frames to a capture file out, in virtual time.
//!
//! A frame is received when the virtual clock has reached its timestamp; a frame sent is stamped with the present. So
//! the same input gives the same output bytes. [`crate::runtime::replay`] moves the clock.

use super::error::PortError;
use super::pcap_file::{CaptureError, Reader, Writer};
use super::{Port, PortEvent, Receive, RecvError, SendError, Transmit};
use crate::clock::VirtualClock;
use router_core::drop_reason::DropReason;
use router_core::frame::Frame;
use router_core::port::{Medium, PortCaps};
use router_core::time::Instant;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A port on two capture files.
#[derive(Debug)]
pub struct PcapPort {
    reader: Option<Reader<BufReader<File>>>,
    /// The packet read ahead, if the timeline names a time.
    next: Vec<u8>,
    writer: Option<Writer<BufWriter<File>>>,
    medium: Medium,
    clock: VirtualClock,
    timeline: Timeline,
}

/// When a capture port's next frame is due, as seen from outside the worker, and what went wrong.
#[derive(Clone, Debug)]
pub struct Timeline(Arc<TimelineInner>);

#[derive(Debug)]
struct TimelineInner {
    next: AtomicU64,
    error: Mutex<Option<CaptureError>>,
}

/// No more frames.
const ENDED: u64 = u64::MAX;

impl Timeline {
    /// The time of the next frame; None at the end of the file.
    pub fn next(&self) -> Option<Instant> {
        Some(self.0.next.load(Ordering::Acquire)).filter(|t| *t != ENDED).map(Instant::from_nanos)
    }

    /// What ended the reading or writing early, once.
    pub fn take_error(&self) -> Option<CaptureError> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: CaptureError) {
        self.0.next.store(ENDED, Ordering::Release);
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl PcapPort {
    /// Opens `input` and `output`; either may be missing. Without input the medium is `medium`.
    pub fn open(
        port: &str,
        input: Option<&Path>,
        output: Option<&Path>,
        medium: Medium,
        clock: VirtualClock,
    ) -> Result<(Self, Timeline), PortError> {
        let failed = |path: &Path, source: CaptureError| PortError::Capture {
            port: port.to_owned(),
            path: path.to_owned(),
            source,
        };
        let reader = match input {
            Some(path) => {
                let file = File::open(path).map_err(|e| failed(path, e.into()))?;
                Some(Reader::new(BufReader::new(file)).map_err(|e| failed(path, e))?)
            }
            None => None,
        };
        let medium = reader.as_ref().map_or(medium, Reader::medium);
        let writer = match output {
            Some(path) => {
                let file = File::create(path).map_err(|e| failed(path, e.into()))?;
                Some(Writer::new(BufWriter::new(file), medium).map_err(|e| failed(path, e.into()))?)
            }
            None => None,
        };
        let timeline = Timeline(Arc::new(TimelineInner { next: AtomicU64::new(ENDED), error: Mutex::new(None) }));
        let mut pcap = PcapPort { reader, next: Vec::new(), writer, medium, clock, timeline: timeline.clone() };
        pcap.read_ahead(Instant::ZERO);
        match (timeline.take_error(), input) {
            (Some(e), Some(path)) => Err(failed(path, e)),
            _ => Ok((pcap, timeline)),
        }
    }

    /// Reads the next packet. Times never go back: a capture that does is replayed in file order.
    fn read_ahead(&mut self, not_before: Instant) {
        let Some(reader) = &mut self.reader else { return };
        match reader.next(&mut self.next) {
            Ok(Some(at)) => self.timeline.0.next.store(at.max(not_before).as_nanos(), Ordering::Release),
            Ok(None) => self.timeline.0.next.store(ENDED, Ordering::Release),
            Err(e) => self.timeline.fail(e),
        }
    }
}

impl Receive for PcapPort {
    fn recv(&mut self, frame: &mut Frame) -> Result<bool, RecvError> {
        match self.timeline.next() {
            Some(at) if at <= self.clock.now() => {
                let fits = frame.set_data(&self.next);
                self.read_ahead(at);
                if fits { Ok(true) } else { Err(RecvError::Malformed) }
            }
            _ => Ok(false),
        }
    }
}

impl Transmit for PcapPort {
    fn send(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        if let Some(tci) = frame.meta.vlan_tci.take()
            && !super::vnet::insert_vlan_tag(frame, 0x8100, tci)
        {
            return Err(SendError::new(DropReason::NoHeadroom));
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(self.clock.now(), frame.data()).map_err(|e| {
            let errno = e.raw_os_error().unwrap_or(libc::EIO);
            self.timeline.fail(e.into());
            SendError { reason: DropReason::TxError, event: Some(PortEvent::Broken(errno)) }
        })
    }
}

impl Drop for PcapPort {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.writer.as_mut().map(Writer::flush) {
            self.timeline.fail(e.into());
        }
    }
}

impl Port for PcapPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn caps(&self) -> PortCaps {
        PortCaps::default()
    }

    fn medium(&self) -> Medium {
        self.medium
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_when_their_time_has_come_and_leave_stamped() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        let mut w = Writer::new(File::create(&input).unwrap(), Medium::Ip).unwrap();
        w.write(Instant::from_millis(5), b"first").unwrap();
        w.write(Instant::from_millis(2), b"back in time").unwrap();
        drop(w);
        let clock = VirtualClock::default();
        let (mut p, timeline) =
            PcapPort::open("p", Some(&input), Some(&output), Medium::Ethernet, clock.clone()).unwrap();
        assert_eq!((p.medium(), timeline.next()), (Medium::Ip, Some(Instant::from_millis(5))));
        let mut f = Frame::with_capacity(100);
        assert_eq!(p.recv(&mut f), Ok(false));
        clock.advance_to(Instant::from_millis(5));
        assert_eq!(p.recv(&mut f), Ok(true));
        assert_eq!(f.data(), b"first");
        assert_eq!(timeline.next(), Some(Instant::from_millis(5)));
        clock.advance_to(Instant::from_millis(9));
        p.send(&mut f).unwrap();
        assert_eq!(p.recv(&mut f), Ok(true));
        assert_eq!((p.recv(&mut f), timeline.next()), (Ok(false), None));
        drop(p);
        let (mut r, mut data) = (Reader::new(File::open(&output).unwrap()).unwrap(), Vec::new());
        assert_eq!(r.next(&mut data).unwrap(), Some(Instant::from_millis(9)));
        assert_eq!(data, b"first");
    }

    #[test]
    fn a_broken_first_packet_is_an_error_at_opening() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("cut.pcap");
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Medium::Ip).unwrap().write(Instant::ZERO, b"abcdef").unwrap();
        std::fs::write(&input, &bytes[..bytes.len() - 1]).unwrap();
        let e = PcapPort::open("p", Some(&input), None, Medium::Ip, VirtualClock::default()).unwrap_err();
        assert!(e.to_string().ends_with("cut.pcap: the file ends in the middle of a packet at byte 24"), "{e}");
        let e = PcapPort::open("p", Some(Path::new("/nonexistent.pcap")), None, Medium::Ip, VirtualClock::default());
        assert!(e.unwrap_err().to_string().starts_with("port p: /nonexistent.pcap: No such file"));
    }
}
