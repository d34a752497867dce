//! What a port's router advertisements have come to, of both families (RFC 4861 6.2, RFC 1256), for an operator to read.

use crate::addr::Family;
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// How a router tells the hosts of one link about itself, in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertStatus {
    /// IPv6: router advertisements. IPv4: ICMP router discovery.
    pub family: Family,
    /// To whom they go: a group, or the broadcast address.
    pub to: IpAddr,
    /// Router lifetime told, in seconds; 0 for no default router.
    pub lifetime: u16,
    /// Advertisements sent since the port speaks.
    pub sent: u64,
    /// Questions of hosts heard since then.
    pub solicited: u64,
    /// Milliseconds since the last advertisement; None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Milliseconds until the next one.
    pub next: u64,
    /// IPv4: addresses that the hosts were last told of, with their preference levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<(Ipv4Addr, i32)>,
}

/// What is counted about a port's advertisements.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    sent: u64,
    solicited: u64,
    last: Option<Instant>,
}

impl Tally {
    /// One goes out.
    pub fn sent(&mut self, now: Instant) {
        self.sent += 1;
        self.last = Some(now);
    }

    /// A host has asked.
    pub fn solicited(&mut self) {
        self.solicited += 1;
    }

    /// What it has come to by `now`, with the next one due at `next`; the rest is for the caller to say.
    pub fn status(&self, now: Instant, next: Instant, to: IpAddr, lifetime: u16) -> AdvertStatus {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        AdvertStatus {
            family: Family::of(&to),
            to,
            lifetime,
            sent: self.sent,
            solicited: self.solicited,
            last: self.last.map(|at| millis(now.saturating_since(at))),
            next: millis(next.saturating_since(now)),
            told: Vec::new(),
        }
    }
}
