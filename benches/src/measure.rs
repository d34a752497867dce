//! A small measuring loop: several runs, the median and the spread.

use std::time::{Duration, Instant};

/// Nanoseconds per item: least, median, largest of the runs.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Least.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

/// Calls `run`, which treats some items and says how many, until `time` has passed, `runs` times over, after one warm-up.
pub fn per_item(runs: usize, time: Duration, mut run: impl FnMut() -> usize) -> Spread {
    let mut once = |time: Duration| {
        let start = Instant::now();
        let mut items = 0;
        while start.elapsed() < time {
            items += run();
        }
        start.elapsed().as_nanos() as f64 / items.max(1) as f64
    };
    once(time / 4);
    let mut v: Vec<f64> = (0..runs.max(1)).map(|_| once(time)).collect();
    v.sort_by(f64::total_cmp);
    Spread { min: v[0], median: v[v.len() / 2], max: v[v.len() - 1] }
}
