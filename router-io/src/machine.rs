//! What a measurement says about the machine that it ran on: processor, kernel, clock frequency; and pinning to a core.

use crate::sys::cycles;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, as the kernel names it.
    pub cpu: String,
    /// Number of processors that this process may use.
    pub cpus: usize,
    /// Frequency of the clock that "clocks per packet" counts, in GHz: the time stamp counter's, which does not change
    /// with turbo or saving power; else what the kernel says; 0 where nothing is known.
    pub ghz: f64,
    /// Release of the kernel.
    pub kernel: String,
}

/// Receive offloads that merge segments before a router sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOffloads {
    /// Generic receive offload, in the kernel.
    pub gro: bool,
    /// Large receive offload, in hardware.
    pub lro: bool,
}

/// The receive offloads of a device of this host, as ethtool(8) shows them.
pub fn receive_offloads(device: &str) -> std::io::Result<ReceiveOffloads> {
    use crate::sys::device::{Device, FLAG_LRO, Feature};
    let device = Device::new(device)?;
    let flags = device.feature(Feature::FLAGS)?;
    Ok(ReceiveOffloads { gro: device.feature(Feature::GRO)? != 0, lro: flags & FLAG_LRO != 0 })
}

impl Machine {
    /// Looks at the machine; takes a few milliseconds.
    pub fn read() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of_kernel = || field(&info, "cpu MHz").and_then(|s| s.parse::<f64>().ok()).map(|mhz| mhz / 1e3);
        Machine {
            cpu: field(&info, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            ghz: counter_ghz().or_else(of_kernel).unwrap_or(0.0),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }

    /// Nanoseconds as clocks of this machine; None where the frequency is not known.
    pub fn clocks(&self, nanos: f64) -> Option<f64> {
        (self.ghz > 0.0).then_some(nanos * self.ghz)
    }
}

/// The value of the first line `key : value`.
fn field(info: &str, key: &str) -> Option<String> {
    let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The time stamp counter's frequency, measured against the system's clock: the median of some short spans, because the
/// scheduler may step in between two readings.
fn counter_ghz() -> Option<f64> {
    let mut spans: Vec<f64> = Vec::with_capacity(9);
    for _ in 0..9 {
        let (start, from) = (Instant::now(), cycles::now()?);
        while start.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        let (nanos, to) = (start.elapsed().as_nanos(), cycles::now()?);
        spans.push(to.wrapping_sub(from) as f64 / nanos as f64);
    }
    spans.sort_by(f64::total_cmp);
    // Three digits are what such a measurement is good for.
    spans.get(4).map(|ghz| (ghz * 1e3).round() / 1e3).filter(|ghz| *ghz > 0.0)
}

/// Keeps the calling thread on one processor, counted from 0. False where that is not permitted or there is none.
pub fn pin(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return false;
    }
    set.set(cpu);
    sched_setaffinity(None, &set).is_ok()
}

/// Gaps in a thread's time from which on somebody else had its processor.
const GAP: Duration = Duration::from_micros(50);

/// The share of its time for which a thread on processor `cpu` that does nothing but look at the clock does not get it, in
/// pieces of 50 microseconds and more. On a quiet machine of one's own it is next to nothing; on a virtual machine the
/// hypervisor takes the processor away, mostly without a word in /proc/stat. None where the processor cannot be chosen.
pub fn stalls(cpu: usize, time: Duration) -> Option<f64> {
    let spin = move || {
        if !pin(cpu) {
            return None;
        }
        let (begin, mut lost) = (Instant::now(), Duration::ZERO);
        let mut last = begin;
        while last - begin < time {
            let now = Instant::now();
            if now - last > GAP {
                lost += now - last;
            }
            last = now;
        }
        Some(lost.as_secs_f64() / (last - begin).as_secs_f64())
    };
    std::thread::Builder::new().name("stalls".to_owned()).spawn(spin).ok()?.join().ok()?
}

/// The processor time that the calling thread has used: what a busy machine does not stretch.
pub fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.try_into().unwrap_or(0), t.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let m = Machine::read();
        assert!(!m.cpu.is_empty() && !m.kernel.is_empty() && m.cpus > 0);
        if cfg!(target_arch = "x86_64") {
            assert!((0.2..20.0).contains(&m.ghz), "{m:?}");
            assert!(m.clocks(10.0).is_some_and(|c| (c - 10.0 * m.ghz).abs() < 1e-9));
        }
        assert_eq!(Machine::default().clocks(10.0), None);
    }

    #[test]
    fn fields_of_cpuinfo() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.50GHz\ncpu MHz\t\t: 2499.998\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2.50GHz"));
        assert_eq!(field(text, "cpu MHz").as_deref(), Some("2499.998"));
        assert_eq!(field(text, "flags"), None);
    }

    #[test]
    fn time_of_a_thread_grows_with_its_work() {
        let before = thread_time();
        let until = Instant::now() + Duration::from_secs(20);
        while thread_time() == before && Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(thread_time() > before);
        std::thread::spawn(|| assert!(!pin(usize::MAX))).join().unwrap();
    }
}
