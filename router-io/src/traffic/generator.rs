//! Sends frames at a constant rate, or as fast as the back end can, with probes among them.

use super::frames::{Encapsulation, FrameSet, Udp};
use super::probe::{Probe, SLOTS, now};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How late a frame may leave before it is given up: a sender that was away for milliseconds must not make up for it by
/// a burst that the test did not ask for.
pub(super) const LATEST: Duration = Duration::from_micros(300);

/// A generator. Owned by one thread.
pub trait Engine: Send {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// Takes the frames of the load, sent in turn, and the probe.
    fn load(&mut self, frames: &FrameSet, probe: Option<ProbePlan>) -> io::Result<()>;

    /// Sends; `stop` ends it early.
    fn run(&mut self, offer: &Offer, stop: &AtomicBool) -> io::Result<Sent>;
}

/// A way to put frames on a device, for [`Generator`].
pub trait Transmitter: Send {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// Takes the frames that [`Transmitter::send`] sends in turn.
    fn load(&mut self, frames: &FrameSet) -> io::Result<()>;

    /// Sends up to `count` next frames.
    fn send(&mut self, count: usize) -> io::Result<Taken>;

    /// Sends one other frame at once; false if the device did not take it.
    fn send_now(&mut self, frame: &[u8]) -> io::Result<bool>;

    /// Frames per call that cost little each.
    fn batch(&self) -> usize;
}

/// What became of frames that were to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames that the device took.
    pub taken: usize,
    /// Frames that it dropped because its queue was full, or the receiver's: offered and lost.
    pub refused: usize,
}

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as possible.
    Max,
    /// Frames per second, evenly spaced as far as batches allow.
    Rate(f64),
}

/// The probe of a measurement and how often it is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbePlan {
    /// Its packet, to [`super::PROBE_PORT`].
    pub udp: Udp,
    /// Frame length without check sequence; more if the payload needs it.
    pub len: usize,
    /// What is put around it.
    pub outer: Option<Encapsulation>,
    /// Probes per second.
    pub rate: f64,
}

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// How fast.
    pub pace: Pace,
    /// For how long.
    pub time: Duration,
    /// Not more frames than this, if said: for bursts.
    pub frames: Option<u64>,
    /// Whether there are probes among the load.
    pub probes: bool,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// Frames of the load, refused ones included.
    pub load: u64,
    /// Frames of the load that the device dropped because its queue was full.
    pub refused: u64,
    /// Probes sent.
    pub probes: u32,
    /// Frames of the load that were due and not sent, for the sender came too late.
    pub late: u64,
    /// From the first frame to the last.
    pub seconds: f64,
}

impl Sent {
    /// Frames of the load per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.load as f64 / self.seconds } else { 0.0 }
    }
}

/// A loop that keeps the pace and hands batches to a [`Transmitter`].
pub struct Generator {
    tx: Box<dyn Transmitter>,
    probe: Option<ProbePlan>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generator({})", self.tx.name())
    }
}

impl Generator {
    /// On a back end.
    pub fn new(tx: Box<dyn Transmitter>) -> Self {
        Generator { tx, probe: None }
    }
}

impl Engine for Generator {
    fn name(&self) -> &'static str {
        self.tx.name()
    }

    fn load(&mut self, frames: &FrameSet, probe: Option<ProbePlan>) -> io::Result<()> {
        self.probe = probe;
        self.tx.load(frames)
    }

    fn run(&mut self, offer: &Offer, stop: &AtomicBool) -> io::Result<Sent> {
        let mut sent = Sent::default();
        let plan = self.probe.filter(|p| offer.probes && p.rate > 0.0);
        let mut probes = plan.map(|p| Probes { plan: p, next: Duration::ZERO });
        let most = offer.frames.unwrap_or(u64::MAX);
        let whole = self.tx.batch().max(1) as u64;
        let start = Instant::now();
        // Frames that were due so far, sent or given up.
        let mut served = 0u64;
        let mut at = Duration::ZERO;
        while at < offer.time && sent.load < most && !stop.load(Ordering::Relaxed) {
            if let Some(p) = &mut probes
                && at >= p.next
                && sent.probes < SLOTS as u32
            {
                p.send(&mut *self.tx, &mut sent, at)?;
            }
            let count = match offer.pace {
                Pace::Max => whole,
                Pace::Rate(rate) => {
                    let due = (at.as_secs_f64() * rate) as u64;
                    let mut behind = due.saturating_sub(served);
                    let keep = ((LATEST.as_secs_f64() * rate) as u64).max(whole);
                    if behind > keep {
                        sent.late += behind - keep;
                        served += behind - keep;
                        behind = keep;
                    }
                    behind.min(whole)
                }
            };
            let count = count.min(most - sent.load);
            if count > 0 {
                let t = self.tx.send(count as usize)?;
                let done = (t.taken + t.refused) as u64;
                sent.load += done;
                sent.refused += t.refused as u64;
                served += done;
            } else {
                std::hint::spin_loop();
            }
            at = start.elapsed();
        }
        sent.seconds = match offer.pace {
            // The time that the frames stand for, not the one that the last of them was sent at.
            Pace::Rate(rate) if rate > 0.0 && offer.frames.is_some() => sent.load as f64 / rate,
            _ => at.as_secs_f64(),
        };
        Ok(sent)
    }
}

struct Probes {
    plan: ProbePlan,
    next: Duration,
}

impl Probes {
    fn send(&mut self, tx: &mut dyn Transmitter, sent: &mut Sent, at: Duration) -> io::Result<()> {
        self.next = at + Duration::from_secs_f64(1.0 / self.plan.rate);
        let payload = Probe { sequence: sent.probes, sent: 0 };
        let mut frame = self.plan.udp.frame(self.plan.len, &payload.bytes(), self.plan.outer);
        // As late as possible, and the checksum after it.
        stamp(&mut frame, self.plan.udp.payload_at(self.plan.outer.is_some()), Probe { sent: now(), ..payload });
        if tx.send_now(&frame)? {
            sent.probes += 1;
        }
        Ok(())
    }
}

/// Puts the departure into a probe and mends the UDP checksum by the difference (RFC 1624).
fn stamp(frame: &mut [u8], payload_at: usize, probe: Probe) {
    let range = payload_at..payload_at + super::probe::PAYLOAD;
    let Some(old) = frame.get(range.clone()).map(<[u8]>::to_vec) else { return };
    let new = probe.bytes();
    frame[range].copy_from_slice(&new);
    let at = payload_at - 2;
    let check = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut mended = router_core::checksum::update_bytes(check, &old, &new);
    if mended == 0 {
        mended = 0xffff;
    }
    frame[at..at + 2].copy_from_slice(&mended.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_core::addr::MacAddr;
    use router_core::checksum;
    use std::sync::{Arc, Mutex};

    /// Takes everything, or every other batch.
    struct Fake {
        log: Arc<Mutex<Vec<usize>>>,
        stingy: bool,
    }

    impl Transmitter for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn load(&mut self, _: &FrameSet) -> io::Result<()> {
            Ok(())
        }
        fn send(&mut self, count: usize) -> io::Result<Taken> {
            let mut log = self.log.lock().unwrap();
            log.push(count);
            let idle = self.stingy && log.len().is_multiple_of(2);
            Ok(Taken { taken: if idle { 0 } else { count }, refused: 0 })
        }
        fn send_now(&mut self, frame: &[u8]) -> io::Result<bool> {
            assert!(Probe::parse(&frame[42..]).is_some_and(|p| p.sent > 0));
            Ok(true)
        }
        fn batch(&self) -> usize {
            16
        }
    }

    fn udp() -> Udp {
        let ip = |s: &str| s.parse().unwrap();
        Udp {
            dst_mac: MacAddr([2; 6]),
            src_mac: MacAddr([4; 6]),
            src: ip("198.18.0.2"),
            dst: ip("198.19.0.2"),
            sport: 1,
            dport: 7,
            ttl: 9,
        }
    }

    fn offer(pace: Pace) -> Offer {
        Offer { pace, time: Duration::from_millis(20), frames: None, probes: false }
    }

    #[test]
    fn what_was_due_is_sent_or_late() {
        for stingy in [false, true] {
            let log = Arc::new(Mutex::new(Vec::new()));
            let mut g = Generator::new(Box::new(Fake { log: Arc::clone(&log), stingy }));
            let sent = g.run(&offer(Pace::Rate(100_000.0)), &AtomicBool::new(false)).unwrap();
            let due = sent.seconds * 100_000.0;
            assert!(((sent.load + sent.late) as f64) <= due + 1.0, "{sent:?}");
            assert!(sent.load > 0, "{sent:?}");
            assert!(log.lock().unwrap().iter().all(|n| (1..=16).contains(n)));
        }
    }

    #[test]
    fn bursts_and_probes_and_an_early_end() {
        let mut g = Generator::new(Box::new(Fake { log: Arc::default(), stingy: false }));
        let burst = Offer { frames: Some(100), time: Duration::from_secs(10), ..offer(Pace::Max) };
        assert_eq!(g.run(&burst, &AtomicBool::new(false)).unwrap().load, 100);
        g.load(&FrameSet::default(), Some(ProbePlan { udp: udp(), len: 60, outer: None, rate: 1000.0 })).unwrap();
        let sent = g.run(&Offer { probes: true, ..offer(Pace::Rate(1000.0)) }, &AtomicBool::new(false)).unwrap();
        assert!((1..=21).contains(&sent.probes), "{sent:?}");
        let long = Offer { time: Duration::from_secs(1000), ..offer(Pace::Rate(1.0)) };
        assert_eq!(g.run(&long, &AtomicBool::new(true)).unwrap().load, 0);
    }

    #[test]
    fn a_stamped_probe_has_a_right_checksum() {
        let first = Probe { sequence: 3, sent: 0 };
        let mut frame = udp().frame(60, &first.bytes(), None);
        let probe = Probe { sequence: 3, sent: 0x0123_4567_89ab_cdef };
        stamp(&mut frame, 42, probe);
        assert_eq!(Probe::parse(&frame[42..]), Some(probe));
        let pseudo = checksum::pseudo(udp().src, udp().dst, 17, 26).unwrap();
        assert!(checksum::verify_with(pseudo, &frame[34..]));
    }
}
