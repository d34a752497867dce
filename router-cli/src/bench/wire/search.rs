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
    upper: f64,
    first: bool,
    /// Where an earlier search ended, and the factor by which the next step goes away from there.
    guess: Option<(f64, f64)>,
    /// Ends when the two are within this share of the upper one.
    resolution: f64,
    found: Option<f64>,
}

impl Search {
    /// Between 0 and `upper`, which is tried first. `resolution`: share of the value within which the answer is to lie.
    pub fn new(upper: f64, resolution: f64) -> Self {
        Search { passed: 0.0, failed: upper, upper, first: true, guess: None, resolution, found: None }
    }

    /// As [`Search::new`], but beginning at an earlier answer and going away from it in growing steps until the new one
    /// lies between two trials.
    pub fn around(guess: f64, upper: f64, resolution: f64) -> Self {
        let guess = (guess > 0.0 && guess < upper * 0.95).then_some((guess, 1.0 + 4.0 * resolution));
        Search { guess, ..Search::new(upper, resolution) }
    }

    /// The next value to try; None when the answer is known.
    pub fn next(&self) -> Option<f64> {
        if self.found.is_some() || self.failed <= 0.0 {
            return None;
        }
        let gap = self.failed - self.passed;
        if let Some((guess, step)) = self.guess {
            return Some(match (self.passed > 0.0, self.failed < self.upper) {
                (false, false) => guess,
                (true, _) => (self.passed * step).min(self.upper),
                (false, true) => self.failed / step,
            });
        }
        if self.first {
            return Some(self.upper);
        }
        (gap > self.failed * self.resolution && gap > 1.0).then_some(self.passed + gap / 2.0)
    }

    /// What a trial at the value of [`Search::next`] showed. `achieved` is the value that was really reached: where a
    /// device under test holds the sender back and still loses nothing, that is the answer.
    pub fn record(&mut self, tried: f64, achieved: f64, passes: bool) {
        let at_top = tried >= self.upper;
        self.first = false;
        if passes {
            if at_top || achieved < tried * 0.98 {
                self.found = Some(achieved.min(tried));
                return;
            }
            self.passed = self.passed.max(tried);
        } else {
            self.failed = self.failed.min(tried);
        }
        let between = self.passed > 0.0 && self.failed <= self.upper && (at_top || self.failed < self.upper);
        match &mut self.guess {
            // Steps that go nowhere: the plain search goes on from what is known.
            Some((guess, _)) if between || self.failed < *guess / 16.0 => self.guess = None,
            Some((_, step)) => *step = 1.0 + (*step - 1.0) * 2.0,
            None => {}
        }
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
        run(Search::new(upper, 0.01), device)
    }

    fn run(mut s: Search, device: impl Fn(f64) -> (f64, bool)) -> (f64, usize) {
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
            // A threshold far below the bound takes a halving for each power of two, and seven more.
            prop_assert!(trials <= 24);
            if limit >= upper {
                prop_assert_eq!((answer, trials), (upper, 1));
            } else {
                prop_assert!(answer <= limit && answer >= limit - upper * 0.011 - 1.0, "{} {}", answer, limit);
            }
        }

        #[test]
        fn an_earlier_answer_saves_trials_and_changes_nothing(
            limit in 2000.0..3e6f64, upper in 1000.0..3e6f64, guess in 0.0..3e6f64
        ) {
            let (answer, trials) = run(Search::around(guess, upper, 0.01), |rate| (rate, rate <= limit));
            if limit >= upper {
                prop_assert_eq!(answer, upper);
            } else {
                prop_assert!(answer <= limit && answer >= limit - upper * 0.011 - 1.0, "{} {}", answer, limit);
            }
            prop_assert!(trials <= 24, "{}", trials);
            if guess < upper * 0.9 && (guess / limit - 1.0).abs() < 0.03 {
                prop_assert!(trials <= 5, "{} trials", trials);
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
