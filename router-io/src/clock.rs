//! The one clock of a running router: monotonic in production, set by hand when capture files are replayed.

use router_core::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where instants come from. Clones show the same time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's monotonic clock, counted from the clock's making.
    Monotonic(std::time::Instant),
    /// A clock that somebody sets.
    Virtual(VirtualClock),
}

impl Clock {
    /// A monotonic clock that starts at one second, so that subtracting small spans never hits zero.
    pub fn monotonic() -> Self {
        Clock::Monotonic(std::time::Instant::now())
    }

    /// The present instant.
    pub fn now(&self) -> Instant {
        match self {
            Clock::Monotonic(start) => {
                Instant::from_millis(1000) + std::time::Instant::now().saturating_duration_since(*start)
            }
            Clock::Virtual(c) => c.now(),
        }
    }
}

/// A clock that only moves when told to, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// The present instant.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Acquire))
    }

    /// Moves forward to `to`; never backward.
    pub fn advance_to(&self, to: Instant) {
        self.0.fetch_max(to.as_nanos(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_never_goes_back() {
        let c = VirtualClock::default();
        let same = c.clone();
        c.advance_to(Instant::from_millis(5));
        c.advance_to(Instant::from_millis(3));
        assert_eq!(same.now(), Instant::from_millis(5));
        let m = Clock::monotonic();
        assert!(m.now() >= Instant::from_millis(1000) && m.now() <= m.now());
    }
}
