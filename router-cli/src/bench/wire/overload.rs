//! Overload: ten times what a device under test forwards, for long enough that neighbour entries grow old. What still gets
//! through, second by second; and, of Duet, whether it answers its operator, keeps its neighbours and its memory.

use super::super::report::{self, Overload, Series};
use super::dut::Dut;
use super::error::WireError;
use super::lab::Lab;
use crate::control::{Client, LinkSelect, Op};
use crate::demo::instance::Instance;
use router_io::traffic::{Offer, Pace, pin_thread_of};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many times the rate that the device under test forwards is offered.
pub(super) const TIMES: f64 = 10.0;
/// Between two questions to the router.
const EVERY: Duration = Duration::from_millis(250);
/// The first of these does not count for the goodput: queues fill.
const SLICE: Duration = Duration::from_secs(1);

/// What was seen of the router meanwhile.
#[derive(Debug, Default)]
struct Watched {
    answers_ms: Vec<f64>,
    memory_kib: Option<[u64; 2]>,
    neighbors: Option<[usize; 2]>,
}

impl Lab {
    /// Offers `rate` for `time` to a device under test that forwards `peak`, both frames per second.
    pub fn overload(&mut self, peak: f64, time: Duration) -> Result<Overload, WireError> {
        let offer = Offer { pace: Pace::Rate(peak * TIMES), time, frames: None, probes: false };
        let done = AtomicBool::new(false);
        let everywhere: Vec<usize> = self.setup.cpus.dut.iter().copied().chain([self.setup.cpus.generator]).collect();
        let dut = self.dut.as_ref();
        let (sent, goodput, watched) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                // An operator's shell runs wherever there is room, not on the generator's processor alone.
                let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
                let _ = pin_thread_of(tid, &everywhere);
                dut.map(|dut| watch(dut, &done)).unwrap_or_default()
            });
            let measured = self.seconds(&offer);
            done.store(true, Ordering::Relaxed);
            let watched = watch.join().unwrap_or_default();
            measured.map(|(sent, goodput)| (sent, goodput, watched))
        })?;
        let mpps = |x: f64| report::round(x / 1e6);
        Ok(Overload {
            seconds: time.as_secs_f64(),
            peak_mpps: mpps(peak),
            offered_mpps: mpps(sent),
            goodput: Series::of(goodput.iter().map(|g| g / 1e6).collect()).unwrap_or_default(),
            answer_ms: Series::of(watched.answers_ms),
            memory_kib: watched.memory_kib,
            neighbors: watched.neighbors,
        })
    }

    /// Frames per second that were sent, and that arrived in each second but the first.
    fn seconds(&self, offer: &Offer) -> Result<(f64, Vec<f64>), WireError> {
        let answer = self.start(offer)?;
        let begin = Instant::now();
        let mut goodput = Vec::new();
        let mut last = None;
        loop {
            std::thread::sleep(SLICE.min(offer.time));
            if begin.elapsed() > offer.time {
                break;
            }
            let now = (Instant::now(), self.counts()?.load);
            if let Some((then, before)) = last.replace(now) {
                goodput.push((now.1 - before) as f64 / (now.0 - then).as_secs_f64());
            }
        }
        let sent = answer.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("send"))?;
        Ok((sent.rate(), goodput))
    }
}

/// Time until the router has answered one request over its control socket on a connection of its own, in milliseconds. Not the
/// command of a process: starting one on a busy machine takes longer than the answer.
fn ask(router: &Instance) -> Option<f64> {
    let asked = Instant::now();
    let mut client = Client::connect(router.socket()).ok()?;
    client.call(Op::LinkShow(LinkSelect::default())).ok()?;
    Some(asked.elapsed().as_secs_f64() * 1e3)
}

/// Asks the router now and then, as its operator would, until told to end.
fn watch(dut: &Dut, done: &AtomicBool) -> Watched {
    let mut seen = Watched::default();
    let Some(router) = dut.first() else { return seen };
    let known = || router.json("-j neigh show").ok().map(|v| with_address(&v));
    let memory = || memory(router.pid());
    let begin = (known(), memory());
    while !done.load(Ordering::Relaxed) {
        seen.answers_ms.extend(ask(router));
        std::thread::sleep(EVERY);
    }
    seen.neighbors = begin.0.zip(known()).map(|(a, b)| [a, b]);
    seen.memory_kib = begin.1.zip(memory()).map(|(a, b)| [a, b]);
    seen
}

/// Neighbours whose link-layer address is known, in the answer of `neigh show`.
fn with_address(answer: &serde_json::Value) -> usize {
    answer.as_array().map_or(0, |list| list.iter().filter(|n| n.get("lladdr").is_some()).count())
}

/// Resident memory of a process in KiB.
fn memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_an_address_and_memory() {
        let answer = serde_json::json!([
            { "dst": "198.19.0.2", "dev": "right", "lladdr": "02:00:00:00:00:0c", "state": ["REACHABLE"] },
            { "dst": "198.19.0.3", "dev": "right", "state": ["FAILED"] },
        ]);
        assert_eq!(with_address(&answer), 1);
        assert_eq!(with_address(&serde_json::Value::Null), 0);
        assert!(memory(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(memory(u32::MAX), None);
    }
}
