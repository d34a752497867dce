//! Handshakes per source while under load: whoever has shown by a cookie that it is where it says still gets a bounded share.

use router_core::time::{Duration, Instant};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Handshakes per second and source, and how many at once: those of the Linux kernel's WireGuard.
const RATE: u32 = 20;
const BURST: u32 = 5;
/// Sources remembered.
const MOST: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Flood {
    /// Tokens in milliseconds of waiting, and when they were counted.
    sources: HashMap<IpAddr, (u32, Instant)>,
}

impl Flood {
    /// Whether a handshake from `source` is looked at.
    pub fn allow(&mut self, now: Instant, source: IpAddr) -> bool {
        const EACH: u32 = 1000 / RATE;
        const FULL: u32 = EACH * BURST;
        // A host of IPv6 has a whole /64.
        let source = match source {
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() >> 64 << 64)),
            a => a,
        };
        if self.sources.len() >= MOST && !self.sources.contains_key(&source) {
            self.sources.retain(|_, (_, at)| now.saturating_since(*at) < Duration::from_secs(1));
            if self.sources.len() >= MOST {
                return false;
            }
        }
        let (tokens, at) = self.sources.entry(source).or_insert((FULL, now));
        let gained = now.saturating_since(*at).as_millis().min(u128::from(FULL)) as u32;
        if gained > 0 {
            *tokens = (*tokens + gained).min(FULL);
            *at = now;
        }
        match tokens.checked_sub(EACH) {
            Some(left) => {
                *tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_memory_is_bounded() {
        let mut f = Flood::default();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbor: IpAddr = "2001:db8::2".parse().unwrap();
        let mut now = Instant::from_millis(1000);
        assert_eq!((0..20).filter(|_| f.allow(now, one)).count(), 5);
        assert!(!f.allow(now, neighbor), "the same /64");
        let mut allowed = 0;
        for _ in 0..1000 {
            now = now + Duration::from_millis(10);
            allowed += u32::from(f.allow(now, one));
        }
        assert!((200..=205).contains(&allowed), "{allowed} in ten seconds");
        for i in 0..10_000u32 {
            f.allow(now, IpAddr::V4(i.into()));
        }
        assert!(f.sources.len() <= MOST);
        now = now + Duration::from_secs(2);
        assert!(f.allow(now, IpAddr::V4(77_777.into())), "those that are quiet make room");
    }
}
