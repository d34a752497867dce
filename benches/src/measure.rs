//! A small measuring loop: several runs, the median and the spread.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Nanoseconds per item: least, median, largest of the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Least.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; all zero without any.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or_default();
        Spread { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// All three values changed in the same growing way.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Spread { min: f(self.min), median: f(self.median), max: f(self.max) }
    }

    /// What is left of one that holds another: the other's median taken off.
    pub fn less(self, other: Spread) -> Self {
        self.map(|x| (x - other.median).max(0.0))
    }

    /// Nanoseconds per item as million items per second, slowest first.
    pub fn rates(self) -> Self {
        let rate = |ns: f64| if ns > 0.0 { 1e3 / ns } else { 0.0 };
        Spread { min: rate(self.max), median: rate(self.median), max: rate(self.min) }
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Runs, of which the median counts.
    pub runs: usize,
    /// Length of each.
    pub time: Duration,
}

/// Calls `run`, which treats some items and says how many, until `time` has passed, `runs` times over, after one warm-up.
pub fn per_item(runs: usize, time: Duration, mut run: impl FnMut() -> usize) -> Spread {
    timed_per_item(runs, time, || {
        let start = Instant::now();
        let items = run();
        (items, start.elapsed())
    })
}

/// As [`per_item`] for a `run` that measures itself what counts: items, and the time they took.
pub fn timed_per_item(runs: usize, time: Duration, mut run: impl FnMut() -> (usize, Duration)) -> Spread {
    let mut once = |time: Duration| {
        let start = Instant::now();
        let (mut items, mut spent) = (0, Duration::ZERO);
        loop {
            let (n, took) = run();
            items += n;
            spent += took;
            if start.elapsed() >= time {
                break;
            }
        }
        spent.as_nanos() as f64 / items.max(1) as f64
    };
    once(time / 4);
    Spread::of((0..runs.max(1)).map(|_| once(time)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let s = Spread::of(vec![5.0, 1.0, 2.0]);
        assert_eq!(s, Spread { min: 1.0, median: 2.0, max: 5.0 });
        assert_eq!(s.less(s), Spread { min: 0.0, median: 0.0, max: 3.0 });
        assert_eq!(s.rates(), Spread { min: 200.0, median: 500.0, max: 1000.0 });
        assert_eq!(Spread::of(Vec::new()).rates().median, 0.0);
    }
}
