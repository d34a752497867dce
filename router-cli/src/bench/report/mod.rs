//! The result of a run: what is written as JSON and read again by `duet bench compare`.

mod chart;
pub(crate) mod csv;
pub(crate) mod html;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod text;

use router_io::machine::Machine;
use router_io::traffic::Delays;
use serde::{Deserialize, Serialize};

/// Version of the JSON. It grows when a field changes its meaning.
pub(crate) const SCHEMA: u32 = 1;

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// "wire".
    pub bench: String,
    pub schema: u32,
    /// Of the program.
    pub version: String,
    /// Commit that the program was built from, if known.
    pub commit: String,
    /// When the run began, RFC 3339, UTC.
    pub date: String,
    /// The command line.
    pub command: Vec<String>,
    pub machine: Machine,
    /// Whether the program was built with optimisation.
    pub optimized: bool,
    pub settings: Settings,
    /// What generator and sink can do without a device under test.
    pub roof: Vec<Roof>,
    pub cells: Vec<Cell>,
    pub noise: Noise,
    /// What the kernel's counters say against the figures: then they are not to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// What a reader should know before believing the figures.
    pub warnings: Vec<String>,
}

/// How it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub flows: u32,
    pub table: String,
    pub workers: u16,
    pub seconds: f64,
    pub repeat: u16,
    pub loss_percent: f64,
    pub load_percent: f64,
    pub probes_per_second: u32,
    pub generator_cpu: usize,
    pub dut_cpus: Vec<usize>,
    pub generator: String,
    pub sink: String,
}

/// Generator and sink back to back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roof {
    pub path: String,
    pub size: String,
    pub mpps: f64,
}

/// All figures of one device under test on one path with one frame size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub path: String,
    /// Frame size with check sequence, or "imix".
    pub size: String,
    pub dut: String,
    /// The path that was really measured where the device under test cannot do the other one: the kernel without a
    /// tunnel driver forwards plain IPv6 beside a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    pub routes: usize,
    /// Forwarding rate at the greatest load offered, million frames per second (FRMOL, RFC 2285 3.6.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Series>,
    /// Greatest rate without (more than the allowed) loss, million frames per second (RFC 2544 26.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss: Vec<LossPoint>,
    /// Longest burst without loss, frames (RFC 2544 26.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Series>,
    /// Time without forwarding after a restart, seconds (RFC 2544 26.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Series>,
    /// One TCP stream, Gbit/s of data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// The device under test forwarded all that the generator could offer: it may be able to do more.
    #[serde(default)]
    pub generator_limited: bool,
}

/// Values of repetitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// In the order of the repetitions.
    pub values: Vec<f64>,
}

impl Series {
    /// None without values.
    pub fn of(values: Vec<f64>) -> Option<Series> {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let n = sorted.len();
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Series {
            median: round(median),
            min: round(min),
            max: round(max),
            values: values.into_iter().map(round).collect(),
        })
    }

    /// Repetition by repetition, so that what disturbed both at the same time falls out.
    pub fn over(&self, reference: &Series) -> Option<Series> {
        let pairs = self.values.iter().zip(&reference.values).filter(|(_, r)| **r > 0.0);
        Series::of(pairs.map(|(a, b)| a / b).collect())
    }
}

/// Against another device under test of the same run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// Which.
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Series>,
    /// TCP, against the kernel that forwards inline ("kernel"): the one in a NAPI thread sees no super-frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Series>,
}

/// Latency at a constant load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Million frames per second.
    pub load_mpps: f64,
    /// Medians over the repetitions, microseconds.
    pub p50_us: Series,
    pub p99_us: Series,
    pub p999_us: Series,
    /// Of the repetition with the median p99.
    pub delays: Delays,
}

/// One point of a loss curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossPoint {
    pub offered_mpps: f64,
    pub forwarded_mpps: f64,
    pub loss_percent: f64,
}

/// A load far beyond what can be forwarded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Overload {
    /// For so long.
    pub seconds: f64,
    /// Forwarded at the greatest load in a short trial before, million frames per second.
    pub peak_mpps: f64,
    /// Sent, million frames per second.
    pub offered_mpps: f64,
    /// Arrived in each second, million frames per second.
    pub goodput: Series,
    /// Milliseconds until a command was answered, its process included. Of Duet only, as the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<Series>,
    /// Resident memory before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kib: Option<[u64; 2]>,
    /// Neighbours with a link-layer address before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<[usize; 2]>,
}

impl Overload {
    /// Goodput as a share of the peak: median, and the worst second.
    pub fn shares(&self) -> [f64; 2] {
        let of = |x: f64| if self.peak_mpps > 0.0 { x / self.peak_mpps } else { 0.0 };
        [of(self.goodput.median), of(self.goodput.min)]
    }
}

/// Who else was at work, in percent of one processor, over the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noise {
    pub foreign_percent: f64,
    pub steal_percent: f64,
    /// In the worst repetition.
    pub worst_foreign_percent: f64,
    /// Time in which a thread that only looked at the clock, beside the measurement, was stopped for 50 us and more.
    #[serde(default)]
    pub stalled_percent: f64,
}

/// Four digits behind the point are more than such a measurement knows.
pub(crate) fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

impl Report {
    /// The cell of a device under test beside another.
    pub fn cell(&self, path: &str, size: &str, dut: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.path == path && c.size == size && c.dut == dut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series() {
        let s = Series::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((s.median, s.min, s.max), (2.0, 1.0, 3.0));
        assert_eq!(Series::of(vec![1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Series::of(vec![]), None);
        let ratio = s.over(&Series::of(vec![1.5, 0.5, 0.0]).unwrap()).unwrap();
        assert_eq!(ratio.values, [2.0, 2.0]);
    }
}
