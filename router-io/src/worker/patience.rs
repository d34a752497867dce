//! How long a worker without frames keeps looking before it sleeps.
//!
//! Falling asleep and being woken costs some microseconds, on both sides. Under load the next frame comes sooner than that,
//! so looking again is cheaper; on an idle router it is a waste. What has just happened decides, as in the kernel's polling
//! of halted guests: a short sleep means that looking a little longer would have caught the frame, so patience grows; a long
//! one means that there is nothing to wait for, and ends it.

use router_core::time::{Duration, Instant};

/// The longest look. A load with longer gaps between frames, below some ten thousand frames per second, is served by sleeping.
const LONGEST: Duration = Duration::from_micros(50);
/// The first look.
const FIRST: Duration = Duration::from_micros(6);

/// Whether to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Look again at once.
    No,
    /// Sleep until something happens.
    Yes,
}

/// The state of one worker.
#[derive(Debug, Default)]
pub(super) struct Patience {
    budget: Duration,
    /// Since when there has been nothing.
    idle_since: Option<Instant>,
}

impl Patience {
    /// There were frames, or news.
    pub(super) fn busy(&mut self) {
        self.idle_since = None;
    }

    /// There was nothing: what now?
    pub(super) fn next(&mut self, now: Instant) -> Wait {
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_since(since) < self.budget { Wait::No } else { Wait::Yes }
    }

    /// A sleep that [`Patience::next`] asked for is over.
    pub(super) fn woken(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else { return };
        self.budget = if now.saturating_since(since) <= LONGEST {
            (self.budget + self.budget).clamp(FIRST, LONGEST)
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    #[test]
    fn short_gaps_make_it_look_longer_and_a_long_one_ends_that() {
        let mut p = Patience::default();
        assert_eq!(p.next(at(0)), Wait::Yes, "an idle worker sleeps at once");
        // A frame after 20 us of sleep: twice, until the look is as long as the gap.
        let mut now = 0;
        let mut sleeps = 0;
        for _ in 0..10 {
            p.busy();
            let frame = now + 20;
            while now < frame {
                if p.next(at(now)) == Wait::Yes {
                    now = frame;
                    p.woken(at(now));
                    sleeps += 1;
                } else {
                    now += 1;
                }
            }
        }
        assert_eq!(sleeps, 3, "6, 12, 24 us");
        // Nothing for a second: one sleep, and then no look any more.
        p.busy();
        while p.next(at(now)) == Wait::No {
            now += 1;
        }
        assert!(now <= 200 + 25, "{now}");
        p.woken(at(now + 1_000_000));
        assert_eq!(p.next(at(now + 1_000_000)), Wait::Yes);
    }
}
