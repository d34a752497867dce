//! Rate limits by token bucket (RFC 1812 4.3.2.8, RFC 4443 2.4 f): of fixed size, driven by the instants given.

use super::IcmpError;
use crate::settings::IcmpSettings;
use crate::time::{Duration, Instant};

/// What is limited, each kind by a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Errors other than the next kind.
    Error,
    /// Packet too big and fragmentation needed: path MTU discovery must work during a scan too. As fast as errors.
    TooBig,
    /// Echo replies.
    Echo,
}

impl LimitKind {
    /// The kind that an error belongs to.
    pub fn of(error: &IcmpError) -> LimitKind {
        if error.mtu().is_some() { LimitKind::TooBig } else { LimitKind::Error }
    }
}

/// The token buckets of one worker. New ones are full.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    /// Per kind, when its bucket is (or was) full again: a token bucket told by one instant (GCRA).
    full_at: [Instant; 3],
}

impl Limiter {
    /// Takes a token of this kind at `now`; false when there is none. Settings may change from call to call. A rate of
    /// zero or a burst of zero allows nothing.
    pub fn allow(&mut self, now: Instant, settings: &IcmpSettings, kind: LimitKind) -> bool {
        let (rate, burst) = match kind {
            LimitKind::Error | LimitKind::TooBig => (settings.error_rate, settings.error_burst),
            LimitKind::Echo => (settings.echo_rate, settings.echo_burst),
        };
        if rate == 0 || burst == 0 {
            return false;
        }
        let token = Duration::from_secs(1) / rate;
        let full_at = &mut self.full_at[kind as usize];
        // A bucket that is full at t has all but (t - now) / token of its burst.
        let next = (*full_at).max(now) + token;
        let allowed = next.saturating_since(now) <= token.saturating_mul(burst);
        if allowed {
            *full_at = next;
        }
        allowed
    }
}
