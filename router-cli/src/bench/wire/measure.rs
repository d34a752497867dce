//! The measures: throughput, loss, latency, bursts, recovery, TCP, each on all devices under test in turn.

use super::super::Progress;
use super::super::report::{Latency, LossPoint, Overload, Series};
use super::error::WireError;
use super::lab::{Lab, Trial};
use super::noise::{self, Ticks};
use super::plan::{Cpus, DutName, Measure, PathName, SizeName, WireArgs};
use super::search::Search;
use router_io::traffic::{Delays, Offer, Pace};
use std::time::Duration;

/// Trials from which the peak comes that an overload is compared with.
const PEAK_TRIALS: usize = 5;
/// Share of the answer within which searches end; the second one where time is short.
const RESOLUTION: [f64; 2] = [0.01, 0.02];
/// The loss curve's points, as shares of the greatest rate that any device under test forwards.
const CURVE: &[f64] = &[0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0];
/// The longest burst that is tried: two seconds of a million frames per second (RFC 2544 26.4 wants trials of 2 s).
const LONGEST_BURST: f64 = 2e6;

/// Figures of one device under test, before they are a report's.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub peak: Vec<f64>,
    pub throughput: Vec<f64>,
    pub delays: Vec<Delays>,
    pub load: f64,
    pub loss: Vec<LossPoint>,
    pub burst: Vec<f64>,
    pub reset: Vec<f64>,
    pub tcp: Vec<f64>,
    pub overload: Option<Overload>,
    pub limited: bool,
}

impl Figures {
    pub fn latency(&self) -> Option<Latency> {
        let us = |f: fn(&Delays) -> u64| Series::of(self.delays.iter().map(|d| f(d) as f64 / 1e3).collect());
        let mut sorted: Vec<&Delays> = self.delays.iter().collect();
        sorted.sort_by_key(|d| d.p99);
        Some(Latency {
            load_mpps: super::super::report::round(self.load / 1e6),
            p50_us: us(|d| d.p50)?,
            p99_us: us(|d| d.p99)?,
            p999_us: us(|d| d.p999)?,
            delays: (*sorted.get(sorted.len() / 2)?).clone(),
        })
    }
}

/// What the runs have in common.
pub(super) struct Session<'a> {
    pub args: &'a WireArgs,
    pub progress: &'a Progress,
    /// Counters that disagree; each is an error of the run.
    pub mismatches: Vec<String>,
    pub noise: Vec<noise::Noise>,
    pub cpus: usize,
    /// Kernel threads that forward for us.
    pub threads: Vec<u32>,
    /// Shares of time in which the machine gave us no processor, see [`router_io::machine::stalls`].
    pub stalls: Vec<f64>,
}

impl Session<'_> {
    /// Runs every measure on every lab for one frame size.
    pub fn measure(&mut self, labs: &mut [Lab], path: PathName, size: SizeName) -> Result<Vec<Figures>, WireError> {
        let mut figures = vec![Figures::default(); labs.len()];
        for lab in labs.iter_mut().filter(|lab| !lab.streams_only()) {
            self.progress.say(format!("{} {size}: {} forwards", path.name(), lab.name()));
            lab.prepare(size, self.args.probes)?;
        }
        for measure in &self.args.measures {
            match measure {
                Measure::Throughput => self.throughput(labs, &mut figures, path, size)?,
                Measure::Latency => self.latency(labs, &mut figures, path, size)?,
                Measure::Loss => self.loss(labs, &mut figures, path, size)?,
                Measure::Burst => self.burst(labs, &mut figures, path, size)?,
                Measure::Reset => self.reset(labs, &mut figures, path, size)?,
                // A stream chooses its own sizes: once is enough.
                Measure::Tcp if self.args.sizes.first() == Some(&size) => self.tcp(labs, &mut figures, path)?,
                Measure::Tcp => {}
                Measure::Overload => self.overload(labs, &mut figures, path, size)?,
            }
        }
        Ok(figures)
    }

    /// Runs `f` on every lab that takes frames `repeat` times, interleaved, beginning with another one each time.
    fn rounds(
        &mut self,
        labs: &mut [Lab],
        what: &str,
        repeat: u16,
        mut f: impl FnMut(&mut Self, &mut Lab, usize) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.rounds_of_all(labs, what, repeat, |s, lab, i| if lab.streams_only() { Ok(()) } else { f(s, lab, i) })
    }

    /// As [`Session::rounds`], on really every lab.
    fn rounds_of_all(
        &mut self,
        labs: &mut [Lab],
        what: &str,
        repeat: u16,
        mut f: impl FnMut(&mut Self, &mut Lab, usize) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        for round in 0..usize::from(repeat) {
            let before = self.ticks();
            for k in 0..labs.len() {
                let i = (round + k) % labs.len();
                self.progress.say(format!("{what}: {}, {} of {repeat}", labs[i].name(), round + 1));
                labs[i].active(true);
                let done = f(self, &mut labs[i], i);
                labs[i].active(false);
                done?;
            }
            let noise = self.ticks().since(before, self.cpus);
            self.noise.push(noise);
        }
        Ok(())
    }

    fn resolution(&self) -> f64 {
        RESOLUTION[usize::from(self.args.quick)]
    }

    fn ticks(&self) -> Ticks {
        let mut own = noise::family(std::process::id());
        own.extend(&self.threads);
        Ticks::read(&own)
    }

    /// Looks how steady the processors are while nothing is measured.
    pub fn look_for_stalls(&mut self, cpus: &Cpus, time: Duration) {
        for cpu in cpus.dut.iter().copied().chain([cpus.generator]) {
            self.stalls.extend(router_io::machine::stalls(cpu, time));
        }
    }

    /// One trial; what the kernel's counters say against it is kept.
    fn trial(&mut self, lab: &mut Lab, offer: &Offer) -> Result<Trial, WireError> {
        let t = lab.trial(offer)?;
        if let Some(text) = &t.mismatch {
            self.mismatches.push(format!("{} {}: {text}", lab.name(), lab.setup.path.name()));
        }
        Ok(t)
    }

    fn offer(&self, pace: Pace) -> Offer {
        Offer { pace, time: self.args.trial_time(), frames: None, probes: false }
    }

    /// Generator and sink back to back.
    pub fn roof(&mut self, lab: &mut Lab, size: SizeName) -> Result<f64, WireError> {
        self.progress.say(format!("generator and sink back to back, {size}"));
        lab.prepare(size, self.args.probes)?;
        let time = self.args.trial_time().min(Duration::from_millis(500));
        Ok(self.trial(lab, &Offer { time, ..self.offer(Pace::Max) })?.forwarded)
    }

    fn throughput(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        let what = format!("{} {size}: throughput", path.name());
        let allowed = self.args.loss / 100.0;
        self.rounds(labs, &what, self.args.repetitions(), |s, lab, i| {
            let greatest = s.trial(lab, &s.offer(Pace::Max))?;
            figures[i].peak.push(greatest.forwarded / 1e6);
            // A sender that is slowed down by the device under test itself is no bottleneck.
            let inline = lab.setup.dut == Some(DutName::Kernel);
            figures[i].limited |= !inline && greatest.loss() < 0.005;
            // No more than that can get through; the search ends within its resolution of the answer all the same.
            let upper = greatest.forwarded.min(greatest.offered) * 1.02;
            let mut search = match figures[i].throughput.last() {
                Some(last) => Search::around(last * 1e6, upper, s.resolution()),
                None => Search::new(upper, s.resolution()),
            };
            while let Some(rate) = search.next() {
                let t = s.trial(lab, &s.offer(Pace::Rate(rate)))?;
                search.record(rate, t.offered, t.loss() <= allowed);
            }
            figures[i].throughput.push(search.answer() / 1e6);
            Ok(())
        })
    }

    fn latency(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        for (lab, f) in labs.iter_mut().zip(figures.iter_mut()).filter(|(lab, _)| !lab.streams_only()) {
            let rate = match Series::of(f.throughput.clone()) {
                Some(s) if s.median > 0.0 => s.median * 1e6,
                _ => self.greatest(lab)?,
            };
            f.load = rate * self.args.load / 100.0;
        }
        let what = format!("{} {size}: latency", path.name());
        self.rounds(labs, &what, self.args.repetitions(), |s, lab, i| {
            let offer = Offer { probes: true, ..s.offer(Pace::Rate(figures[i].load)) };
            figures[i].delays.extend(s.trial(lab, &offer)?.delays);
            Ok(())
        })
    }

    /// Forwarding rate at the greatest load, where the throughput is not measured.
    fn greatest(&mut self, lab: &mut Lab) -> Result<f64, WireError> {
        lab.active(true);
        let t = self.trial(lab, &self.offer(Pace::Max));
        lab.active(false);
        Ok(t?.forwarded)
    }

    fn loss(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        let mut top = figures.iter().flat_map(|f| &f.peak).fold(0.0f64, |a, b| a.max(*b)) * 1e6;
        if top <= 0.0 {
            for lab in labs.iter_mut().filter(|lab| !lab.streams_only()) {
                top = self.greatest(lab)?.max(top);
            }
        }
        for share in CURVE {
            let what = format!("{} {size}: loss at {:.0} %", path.name(), share * 100.0);
            self.rounds(labs, &what, 1, |s, lab, i| {
                let t = s.trial(lab, &s.offer(Pace::Rate(top * share)))?;
                let seconds = s.args.trial_time().as_secs_f64();
                figures[i].loss.push(LossPoint {
                    offered_mpps: super::super::report::round(t.offered / 1e6),
                    forwarded_mpps: super::super::report::round(t.received as f64 / seconds / 1e6),
                    loss_percent: super::super::report::round(t.loss() * 100.0),
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    fn burst(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        let what = format!("{} {size}: bursts", path.name());
        self.rounds(labs, &what, self.args.repetitions(), |s, lab, i| {
            let mut search = Search::new(LONGEST_BURST, s.resolution());
            while let Some(frames) = search.next() {
                let offer = Offer { frames: Some(frames as u64), time: Duration::from_secs(10), ..s.offer(Pace::Max) };
                let t = s.trial(lab, &offer)?;
                search.record(frames, frames, t.received >= t.sent);
            }
            figures[i].burst.push(search.answer().floor());
            Ok(())
        })
    }

    fn reset(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        let mut rates = Vec::new();
        for (lab, f) in labs.iter_mut().zip(figures.iter()) {
            if lab.streams_only() {
                rates.push(0.0);
                continue;
            }
            let known = Series::of(f.throughput.clone()).map(|s| s.median * 1e6).filter(|r| *r > 0.0);
            rates.push(0.5 * if let Some(rate) = known { rate } else { self.greatest(lab)? });
        }
        let what = format!("{} {size}: restart", path.name());
        self.rounds(labs, &what, self.args.repetitions(), |_, lab, i| {
            if lab.setup.dut != Some(DutName::Devices) {
                figures[i].reset.push(lab.restart(rates[i])?);
            }
            Ok(())
        })
    }

    fn overload(
        &mut self,
        labs: &mut [Lab],
        figures: &mut [Figures],
        path: PathName,
        size: SizeName,
    ) -> Result<(), WireError> {
        let what = format!("{} {size}: overload for {} s", path.name(), self.args.overload.as_secs_f64());
        self.rounds(labs, &what, 1, |s, lab, i| {
            let peak = match Series::of(figures[i].peak.clone()) {
                Some(s) => s.median * 1e6,
                // A single trial on a machine that swings says little.
                None => {
                    let trials = (0..PEAK_TRIALS).map(|_| Ok(s.trial(lab, &s.offer(Pace::Max))?.forwarded));
                    let rates = trials.collect::<Result<Vec<f64>, WireError>>()?;
                    Series::of(rates).map_or(0.0, |r| r.median)
                }
            };
            figures[i].overload = Some(lab.overload(peak, s.args.overload)?);
            Ok(())
        })
    }

    fn tcp(&mut self, labs: &mut [Lab], figures: &mut [Figures], path: PathName) -> Result<(), WireError> {
        let what = format!("{}: TCP", path.name());
        self.rounds_of_all(labs, &what, self.args.repetitions(), |s, lab, i| {
            // Its NAPI thread sees no super-segments: the sender's TSO is off for it.
            if lab.setup.dut != Some(DutName::KernelThreaded) {
                let time = s.args.trial_time().max(Duration::from_millis(500));
                figures[i].tcp.extend(lab.tcp(time)?.map(|r| r.bits() / 1e9));
            }
            Ok(())
        })
    }
}
