//! Random times and numbers that keep routers and hosts of a link from falling into step, or from speaking all at once.
//! Not for what strangers must not guess.

use crate::time::Duration;

/// A generator (xorshift64) with a seed of its owner's: the same seed, the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// From any seed.
    pub(crate) fn new(seed: u64) -> Self {
        Jitter(seed | 1)
    }

    /// A number below `range`; 0 if that is 0.
    pub(crate) fn below(&mut self, range: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if range == 0 { 0 } else { self.0 % range }
    }

    /// A time of less than `most`; zero if that is zero.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// A time between two.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + self.up_to(most.saturating_sub(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_their_bounds_and_spread() {
        let (least, most) = (Duration::from_secs(3), Duration::from_secs(4));
        for seed in 0..100 {
            let mut j = Jitter::new(seed);
            let times: Vec<_> = (0..100).map(|_| j.between(least, most)).collect();
            assert!(times.iter().all(|t| (least..most).contains(t)), "{times:?}");
            let early = times.iter().filter(|t| **t < Duration::from_millis(3500)).count();
            assert!((20..80).contains(&early), "{early} of 100");
            assert_eq!((j.below(0), j.up_to(Duration::ZERO)), (0, Duration::ZERO));
            assert_eq!(j.between(most, least), most);
        }
    }
}
