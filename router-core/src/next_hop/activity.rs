//! When the buckets of a resilient group were last used: written by workers, read by the control side.
//!
//! Each worker writes to a part of its own, and to a bucket's stamp only when the clock has ticked since: no line is shared
//! between writers, and most packets write nothing at all.

use crate::time::{Duration, Instant};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Parts, for as many workers; more of them share.
const PARTS: usize = 8;
/// Nanoseconds of a tick, as a power of two: 16.8 ms.
const TICK: u32 = 24;
/// Stamps in a cache line.
const LINE: usize = 16;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU32; LINE]);

/// See the module.
#[derive(Debug)]
pub struct Activity {
    parts: [Box<[Line]>; PARTS],
}

/// The present tick, never 0. Comes round after two years.
#[inline]
pub fn tick(now: Instant) -> u32 {
    ((now.as_nanos() >> TICK) as u32).max(1)
}

impl Activity {
    /// For so many buckets, none of which was ever used.
    pub(crate) fn new(buckets: usize) -> Self {
        let part = || (0..buckets.div_ceil(LINE)).map(|_| Line::default()).collect();
        Activity { parts: std::array::from_fn(|_| part()) }
    }

    #[inline]
    fn stamp(&self, part: usize, bucket: usize) -> Option<&AtomicU32> {
        self.parts[part % PARTS].get(bucket / LINE).map(|l| &l.0[bucket % LINE])
    }

    /// Notes that a packet takes a bucket. `part` should differ between workers, `tick` is [`tick`] of the present time.
    #[inline]
    pub fn touch(&self, part: usize, bucket: usize, tick: u32) {
        if let Some(stamp) = self.stamp(part, bucket).filter(|s| s.load(Relaxed) != tick) {
            stamp.store(tick, Relaxed);
        }
    }

    /// For how long no packet has taken a bucket, at least; None: none has since [`Activity::forget`].
    pub(crate) fn idle(&self, bucket: usize, now: Instant) -> Option<Duration> {
        let now = tick(now);
        let stamps = (0..PARTS).filter_map(|p| self.stamp(p, bucket)).map(|s| s.load(Relaxed)).filter(|s| *s != 0);
        // A worker may have read its clock later than we did ours.
        let age = |s: u32| if now.wrapping_sub(s) > u32::MAX / 2 { 0 } else { now.wrapping_sub(s) };
        // It may have been used until that tick's end.
        stamps.map(age).min().map(|a| Duration::from_nanos(u64::from(a.saturating_sub(1)) << TICK))
    }

    /// The bucket has another member now, and nobody has used it since.
    pub(crate) fn forget(&self, bucket: usize) {
        (0..PARTS).filter_map(|p| self.stamp(p, bucket)).for_each(|s| s.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_use_by_anybody_counts() {
        let a = Activity::new(20);
        let at = |ticks: u64| Instant::from_nanos(ticks << TICK);
        assert_eq!(a.idle(19, at(50)), None);
        a.touch(0, 19, tick(at(10)));
        a.touch(9, 19, tick(at(20)));
        a.touch(0, 99, tick(at(20)));
        assert_eq!(a.idle(19, at(20)), Some(Duration::ZERO));
        assert_eq!(a.idle(19, at(19)), Some(Duration::ZERO), "a clock ahead of ours");
        assert_eq!(a.idle(19, at(24)), Some(Duration::from_nanos(3 << TICK)));
        assert_eq!(a.idle(18, at(24)), None);
        a.forget(19);
        assert_eq!(a.idle(19, at(24)), None);
        // Across the end of the number.
        let end = u64::from(u32::MAX);
        a.touch(1, 0, tick(at(end - 1)));
        assert_eq!(a.idle(0, at(end + 4)), Some(Duration::from_nanos(4 << TICK)));
    }
}
