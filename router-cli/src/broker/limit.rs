//! Limits on strangers: requests per address, failures per address and account, changes per tunnel. All tables are bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Entries of one table.
const ENTRIES: usize = 16_384;

/// A peer as the limits see it: an IPv4 address, or an IPv6 /64, which one host has all of.
pub fn peer(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(a) => IpAddr::V6(std::net::Ipv6Addr::from_bits(a.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Token buckets by key.
pub struct Buckets<K> {
    rate: f64,
    burst: f64,
    table: Mutex<HashMap<K, Bucket>>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// So many per second, so many at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        Buckets { rate, burst, table: Mutex::default() }
    }

    /// Takes a token, if there is one.
    pub fn take(&self, key: K, now: Instant) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |b: &Bucket| b.tokens + now.saturating_duration_since(b.at).as_secs_f64() * self.rate >= self.burst;
        if table.len() >= ENTRIES && !table.contains_key(&key) {
            table.retain(|_, b| !full(b));
            // All of them busy: a flood from everywhere. Who is not known yet waits.
            if table.len() >= ENTRIES {
                return false;
            }
        }
        let b = table.entry(key).or_insert(Bucket { tokens: self.burst, at: now });
        let grown = b.tokens + now.saturating_duration_since(b.at).as_secs_f64() * self.rate;
        (b.tokens, b.at) = (grown.min(self.burst), now);
        let ok = b.tokens >= 1.0;
        if ok {
            b.tokens -= 1.0;
        }
        ok
    }
}

/// Failures until the first lock.
const PATIENCE: u32 = 5;
/// The first lock; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(30);
/// The longest lock.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    until: Option<Instant>,
}

/// Who failed to log in too often, by address and account: so nobody locks somebody else's account.
#[derive(Default)]
pub struct Lockout {
    table: Mutex<HashMap<(IpAddr, String), Failures>>,
}

impl Lockout {
    /// How long this peer still has to wait for this account.
    pub fn locked(&self, addr: IpAddr, account: &str, now: Instant) -> Option<Duration> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let until = table.get(&(peer(addr), account.to_owned()))?.until?;
        until.checked_duration_since(now).filter(|d| !d.is_zero())
    }

    /// A wrong password; gives how long the peer is locked out because of it.
    pub fn failed(&self, addr: IpAddr, account: &str, now: Instant) -> Option<Duration> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= ENTRIES {
            table.retain(|_, f| now.saturating_duration_since(f.last) < LONGEST);
            if table.len() >= ENTRIES {
                table.clear();
            }
        }
        let f = table.entry((peer(addr), account.to_owned())).or_insert(Failures { count: 0, last: now, until: None });
        f.count += 1;
        f.last = now;
        let over = f.count.checked_sub(PATIENCE)?;
        let time = FIRST.saturating_mul(1 << over.min(10)).min(LONGEST);
        f.until = Some(now + time);
        Some(time)
    }

    /// The right password.
    pub fn succeeded(&self, addr: IpAddr, account: &str) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&(peer(addr), account.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_refill_and_are_bounded() {
        let b = Buckets::new(2.0, 3.0);
        let t = Instant::now();
        assert_eq!((0..5).filter(|_| b.take(1, t)).count(), 3);
        assert_eq!((0..5).filter(|_| b.take(2, t)).count(), 3);
        assert_eq!((0..5).filter(|_| b.take(1, t + Duration::from_secs(1))).count(), 2);
        for i in 0..ENTRIES as u32 {
            b.take(i + 10, t);
        }
        assert!(b.table.lock().unwrap().len() <= ENTRIES);
        // When they have refilled, there is room again.
        assert!(b.take(9, t + Duration::from_secs(10)));
    }

    #[test]
    fn lockout_doubles_and_is_per_peer() {
        let l = Lockout::default();
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let t = Instant::now();
        for _ in 1..PATIENCE {
            assert_eq!(l.failed(a, "joe", t), None);
        }
        assert_eq!(l.failed(a, "joe", t), Some(FIRST));
        assert_eq!(l.failed(a, "joe", t), Some(FIRST * 2));
        assert!(l.locked(a, "joe", t).is_some() && l.locked(b, "joe", t).is_none() && l.locked(a, "ann", t).is_none());
        assert!(l.locked(a, "joe", t + FIRST * 2).is_none());
        l.succeeded(a, "joe");
        assert_eq!(l.failed(a, "joe", t), None);
        for _ in 0..100 {
            l.failed(a, "joe", t);
        }
        assert_eq!(l.failed(a, "joe", t), Some(LONGEST));
        assert_eq!(peer("2001:db8::1".parse().unwrap()), peer("2001:db8::2".parse().unwrap()));
        assert_eq!(peer("::ffff:192.0.2.1".parse().unwrap()), a);
    }
}
