//! Probes: frames among the load that carry a sequence number and the instant of their departure, and the statistics of
//! how long they were under way.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Marks the payload of a probe.
pub const MAGIC: u32 = 0x4475_6574;
/// Bytes of a probe's payload: mark, sequence number, departure in nanoseconds of CLOCK_MONOTONIC.
pub const PAYLOAD: usize = 16;
/// Probes that one measurement can tell apart.
pub const SLOTS: usize = 1 << 16;

/// The payload of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Counted from 0 in each measurement.
    pub sequence: u32,
    /// Departure: nanoseconds of CLOCK_MONOTONIC.
    pub sent: u64,
}

impl Probe {
    /// As bytes, in the machine's own order: the two ends of a measurement are one machine.
    pub fn bytes(self) -> [u8; PAYLOAD] {
        let mut b = [0; PAYLOAD];
        b[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        b[4..8].copy_from_slice(&self.sequence.to_ne_bytes());
        b[8..].copy_from_slice(&self.sent.to_ne_bytes());
        b
    }

    /// Reads a payload; None if it is not a probe's.
    pub fn parse(b: &[u8]) -> Option<Probe> {
        let b: &[u8; PAYLOAD] = b.get(..PAYLOAD)?.try_into().ok()?;
        let word = |r: std::ops::Range<usize>| Some(u32::from_ne_bytes(b.get(r)?.try_into().ok()?));
        let sent = u64::from_ne_bytes(b.get(8..)?.try_into().ok()?);
        (word(0..4)? == MAGIC).then_some(Probe { sequence: word(4..8)?, sent })
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// One-way delays of a measurement, in nanoseconds, with the figures of RFC 8219 sections 7.2 and 7.3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// Probes sent.
    pub sent: u64,
    /// Probes that arrived.
    pub received: u64,
    /// Least.
    pub min: u64,
    /// Median: typical latency (RFC 8219 7.2).
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile: worst-case latency (RFC 8219 7.2).
    pub p999: u64,
    /// Greatest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// Packet delay variation (RFC 8219 7.3.1): 99.9th percentile less the least.
    pub pdv: u64,
    /// Inter-packet delay variation (RFC 8219 7.3.2) of successive probes: least, median, greatest.
    pub ipdv: [i64; 3],
    /// Distribution: upper edge of each step in nanoseconds and the share of probes at most that late.
    pub steps: Vec<(u64, f64)>,
}

/// Quantiles at which the distribution is kept.
const STEPS: &[f64] = &[
    0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99,
    0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0,
];

impl Delays {
    /// Of the probes in order of departure; None for one that did not arrive.
    pub fn of(probes: &[Option<u64>]) -> Delays {
        // Three significant digits are always a valid choice.
        let Ok(mut histogram) = Histogram::<u64>::new(3) else { return Delays::default() };
        histogram.auto(true);
        let mut ipdv = Vec::new();
        let mut last: Option<u64> = None;
        for delay in probes.iter().copied() {
            if let Some(d) = delay {
                // It grows as needed.
                let _ = histogram.record(d);
                ipdv.extend(last.map(|l| d as i64 - l as i64));
            }
            // RFC 3393: a pair with a lost packet has no value.
            last = delay;
        }
        ipdv.sort_unstable();
        let mut d = Delays { sent: probes.len() as u64, received: histogram.len(), ..Delays::default() };
        if histogram.is_empty() {
            return d;
        }
        let q = |x: f64| histogram.value_at_quantile(x);
        d.min = probes.iter().flatten().copied().min().unwrap_or(0);
        d.max = probes.iter().flatten().copied().max().unwrap_or(0);
        (d.p50, d.p90, d.p99, d.p999) = (q(0.5), q(0.9), q(0.99), q(0.999));
        d.mean = histogram.mean();
        d.pdv = d.p999.saturating_sub(d.min);
        if let (Some(least), Some(most)) = (ipdv.first(), ipdv.last()) {
            d.ipdv = [*least, ipdv[ipdv.len() / 2], *most];
        }
        d.steps = STEPS.iter().map(|x| (q(*x), *x)).collect();
        d.steps.dedup();
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_survives_the_wire() {
        let p = Probe { sequence: 7, sent: 1 << 40 };
        assert_eq!(Probe::parse(&p.bytes()), Some(p));
        let mut padded = p.bytes().to_vec();
        padded.extend([0; 9]);
        assert_eq!(Probe::parse(&padded), Some(p));
        assert_eq!(Probe::parse(&[0; PAYLOAD]), None);
        assert_eq!(Probe::parse(&p.bytes()[..15]), None);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        // 1 to 1000 microseconds, once each, in order; the histogram keeps three digits.
        let probes: Vec<_> = (1..=1000u64).map(|us| Some(us * 1000)).collect();
        let d = Delays::of(&probes);
        let near = |got: u64, want: u64| (got as f64 / want as f64 - 1.0).abs() < 0.002;
        for (got, want) in [(d.p50, 500_000), (d.p90, 900_000), (d.p99, 990_000), (d.p999, 999_000)] {
            assert!(near(got, want), "{got} {want}");
        }
        assert_eq!((d.sent, d.received, d.min, d.max), (1000, 1000, 1000, 1_000_000));
        assert!((d.pdv as i64 - 998_000).abs() < 2000);
        assert_eq!(d.ipdv, [1000; 3]);
        assert!(d.steps.is_sorted_by_key(|s| s.0) && d.steps.last().unwrap().1 == 1.0);
    }

    #[test]
    fn lost_probes_are_counted_and_part_pairs() {
        let d = Delays::of(&[Some(10), None, Some(40), Some(30), None]);
        assert_eq!((d.sent, d.received, d.ipdv), (5, 3, [-10; 3]));
        assert_eq!(Delays::of(&[]), Delays::default());
        assert_eq!(Delays::of(&[None, None]), Delays { sent: 2, ..Delays::default() });
    }
}
