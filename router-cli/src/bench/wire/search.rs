//! The searches of RFC 2544 26.1 and 26.4, apart from what they search in.

/// Binary search for the greatest value at which a trial passes.
///
/// Trials that pass above one that failed count for nothing: the answer is below every failure.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// Greatest value that passed.
    passed: f64,
    /// Least value that failed, or the upper bound.
    failed: f64,
    first: Option<f64>,
    /// Ends when the two are within this share of the upper one.
    resolution: f64,
    found: Option<f64>,
}

impl Search {
    /// Between 0 and `upper`, which is tried first. `resolution`: share of the value within which the answer is to lie.
    pub fn new(upper: f64, resolution: f64) -> Self {
        Search { passed: 0.0, failed: upper, first: Some(upper), resolution, found: None }
    }

    /// The next value to try; None when the answer is known.
    pub fn next(&self) -> Option<f64> {
        if self.found.is_some() || self.failed <= 0.0 {
            return None;
        }
        if let Some(first) = self.first {
            return Some(first);
        }
        let gap = self.failed - self.passed;
        (gap > self.failed * self.resolution && gap > 1.0).then_some(self.passed + gap / 2.0)
    }

    /// What a trial at the value of [`Search::next`] showed. `achieved` is the value that was really reached: where a
    /// device under test holds the sender back and still loses nothing, that is the answer.
    pub fn record(&mut self, tried: f64, achieved: f64, passes: bool) {
        let first = self.first.take().is_some();
        if !passes {
            self.failed = self.failed.min(tried);
            return;
        }
        let held_back = achieved < tried * 0.98;
        if first || held_back {
            self.found = Some(achieved.min(tried));
            return;
        }
        self.passed = self.passed.max(tried);
    }

    /// The answer so far.
    pub fn answer(&self) -> f64 {
        self.found.unwrap_or(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search against a device; gives the answer and the number of trials.
    fn search(upper: f64, device: impl Fn(f64) -> (f64, bool)) -> (f64, usize) {
        let mut s = Search::new(upper, 0.01);
        let mut trials = 0;
        while let Some(value) = s.next() {
            let (achieved, passes) = device(value);
            s.record(value, achieved, passes);
            trials += 1;
            assert!(trials < 100);
        }
        (s.answer(), trials)
    }

    proptest! {
        #[test]
        fn finds_the_threshold_of_a_lossy_device(limit in 1000.0..3e6f64, upper in 1000.0..3e6f64) {
            let (answer, trials) = search(upper, |rate| (rate, rate <= limit));
            prop_assert!(trials <= 16);
            if limit >= upper {
                prop_assert_eq!((answer, trials), (upper, 1));
            } else {
                prop_assert!(answer <= limit && answer >= limit - upper * 0.011 - 1.0, "{} {}", answer, limit);
            }
        }

        #[test]
        fn a_device_that_holds_the_sender_back_is_found_at_once(limit in 1000.0..3e6f64) {
            let (answer, trials) = search(1e7, |rate| (rate.min(limit), true));
            prop_assert_eq!((answer, trials), (limit, 1));
        }
    }

    #[test]
    fn a_dead_device_has_no_throughput() {
        let (answer, trials) = search(1e6, |_| (0.0, false));
        assert!(answer == 0.0 && trials < 40, "{answer} {trials}");
        assert_eq!(search(0.0, |_| (0.0, false)), (0.0, 0));
    }
}
