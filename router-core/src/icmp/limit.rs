//! Rate limits by token bucket (RFC 1812 4.3.2.8, RFC 4443 2.4 f), per kind and per destination: of fixed size, driven by
//! the instants given.

use super::IcmpError;
use crate::settings::IcmpSettings;
use crate::time::{Duration, Instant};
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::net::IpAddr;

/// Buckets of destinations. Two that share one share its rate: a limit is never exceeded, and memory never grows.
const PEERS: usize = 1024;

/// What is limited, each kind by a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Errors other than the next two kinds.
    Error,
    /// Packet too big and fragmentation needed: path MTU discovery must work during a scan too. As fast as errors.
    TooBig,
    /// Redirects. As fast as errors.
    Redirect,
    /// Echo replies. Not limited by destination: who asks often pays for it.
    Echo,
}

impl LimitKind {
    /// The kind that an error belongs to.
    pub fn of(error: &IcmpError) -> LimitKind {
        if error.mtu().is_some() {
            LimitKind::TooBig
        } else if error.is_redirect() {
            LimitKind::Redirect
        } else {
            LimitKind::Error
        }
    }
}

/// The token buckets of one worker. New ones are full.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Per kind, when its bucket is (or was) full again: a token bucket told by one instant (GCRA).
    full_at: [Instant; 4],
    /// The same per destination.
    peers: Box<[Instant]>,
    hash: FixedState,
}

impl Default for Limiter {
    fn default() -> Self {
        Limiter::new(0)
    }
}

impl Limiter {
    /// Full buckets. `seed` decides which destinations share one: strangers must not know.
    pub fn new(seed: u64) -> Self {
        Limiter {
            full_at: Default::default(),
            peers: vec![Instant::default(); PEERS].into(),
            hash: FixedState::with_seed(seed),
        }
    }

    /// Takes a token of this kind for a message to `to` at `now`; false when there is none, of the kind or of the
    /// destination. Settings may change from call to call. A rate of zero or a burst of zero allows nothing.
    pub fn allow(&mut self, now: Instant, settings: &IcmpSettings, kind: LimitKind, to: IpAddr) -> bool {
        let (rate, burst) = match kind {
            LimitKind::Error | LimitKind::TooBig | LimitKind::Redirect => (settings.error_rate, settings.error_burst),
            LimitKind::Echo => (settings.echo_rate, settings.echo_burst),
        };
        let Some(all) = next(self.full_at[kind as usize], now, rate, burst) else { return false };
        if kind != LimitKind::Echo {
            let key = match to {
                IpAddr::V4(a) => u64::from(a.to_bits()),
                // One link's hosts are one party: addresses cost nothing there.
                IpAddr::V6(a) => (a.to_bits() >> 64) as u64,
            };
            let at = self.hash.hash_one((key, kind as u8)) as usize % PEERS;
            match next(self.peers[at], now, settings.peer_rate, settings.peer_burst) {
                Some(one) => self.peers[at] = one,
                None => return false,
            }
        }
        self.full_at[kind as usize] = all;
        true
    }
}

/// When the bucket is full again if a token is taken now; None when it has none.
fn next(full_at: Instant, now: Instant, rate: u32, burst: u32) -> Option<Instant> {
    if rate == 0 || burst == 0 {
        return None;
    }
    let token = Duration::from_secs(1) / rate;
    // A bucket that is full at t has all but (t - now) / token of its burst.
    let next = full_at.max(now) + token;
    (next.saturating_since(now) <= token.saturating_mul(burst)).then_some(next)
}
