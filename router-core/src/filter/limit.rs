//! Limits for what a port sends to the control thread: one token bucket per kind, worker and port. A flood at one port costs
//! the others nothing, and what goes beyond is dropped under a reason of its own.

use crate::drop_reason::DropReason;
use crate::port::PortId;
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// What is limited, each by a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// ARP and neighbour discovery.
    Neighbor,
    /// ICMP errors about packets of the router's own.
    Icmp,
    /// Packets that wait for a neighbour, fragments to the router, sessions of translators.
    Other,
}

impl LimitKind {
    /// All kinds with their names.
    pub const ALL: [(LimitKind, &'static str); 3] =
        [(LimitKind::Neighbor, "neighbor"), (LimitKind::Icmp, "icmp"), (LimitKind::Other, "other")];

    /// Why a packet beyond the limit is dropped.
    pub fn reason(self) -> DropReason {
        match self {
            LimitKind::Neighbor => DropReason::LimitNeighbor,
            LimitKind::Icmp => DropReason::LimitIcmp,
            LimitKind::Other => DropReason::LimitOther,
        }
    }
}

/// A rate and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Packets per second and worker; 0 for no limit.
    pub rate: u32,
    /// Packets in one burst, at least 1.
    pub burst: u32,
}

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit { rate: 0, burst: 1 };
}

/// The limits of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSpec {
    /// See [`LimitKind::Neighbor`].
    pub neighbor: Limit,
    /// See [`LimitKind::Icmp`].
    pub icmp: Limit,
    /// See [`LimitKind::Other`].
    pub other: Limit,
}

impl LimitSpec {
    /// What a port has that says nothing: far above what hosts need, far below what would keep the control thread busy.
    pub const DEFAULT: LimitSpec = LimitSpec {
        neighbor: Limit { rate: 20_000, burst: 4_000 },
        icmp: Limit { rate: 10_000, burst: 2_000 },
        other: Limit::NONE,
    };

    /// The limit of a kind.
    pub fn of(&self, kind: LimitKind) -> Limit {
        match kind {
            LimitKind::Neighbor => self.neighbor,
            LimitKind::Icmp => self.icmp,
            LimitKind::Other => self.other,
        }
    }

    /// The limit of a kind, to change.
    pub fn of_mut(&mut self, kind: LimitKind) -> &mut Limit {
        match kind {
            LimitKind::Neighbor => &mut self.neighbor,
            LimitKind::Icmp => &mut self.icmp,
            LimitKind::Other => &mut self.other,
        }
    }
}

impl Default for LimitSpec {
    fn default() -> Self {
        LimitSpec::DEFAULT
    }
}

/// One worker's buckets, of fixed number. New ones are full.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// By port and kind, when the bucket is (or was) full again: a token bucket told by one instant (GCRA).
    full_at: Box<[[Instant; 3]]>,
}

impl Buckets {
    /// Buckets for this many ports; ports beyond share the last.
    pub fn new(ports: usize) -> Self {
        Buckets { full_at: vec![[Instant::ZERO; 3]; ports.max(1)].into() }
    }

    /// Takes a token; false when there is none.
    pub fn allow(&mut self, now: Instant, port: PortId, kind: LimitKind, limit: Limit) -> bool {
        if limit.rate == 0 {
            return true;
        }
        let last = self.full_at.len() - 1;
        let bucket = &mut self.full_at[port.index().min(last)][kind as usize];
        let token = Duration::from_secs(1) / limit.rate;
        let next = (*bucket).max(now) + token;
        let fits = next.saturating_since(now) <= token.saturating_mul(limit.burst.max(1));
        if fits {
            *bucket = next;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut b = Buckets::new(2);
        let limit = Limit { rate: 100, burst: 10 };
        let mut now = Instant::from_millis(5);
        let mut take = |now, port| (0..1000).filter(|_| b.allow(now, PortId(port), LimitKind::Neighbor, limit)).count();
        assert_eq!(take(now, 0), 10);
        now = now + Duration::from_millis(50);
        assert_eq!(take(now, 0), 5);
        assert_eq!(take(now, 1), 10, "another port has its own");
        now = now + Duration::from_secs(60);
        assert_eq!(take(now, 0), 10);
        assert_eq!(take(now, 77), 10, "a port beyond shares, but does not fail");
        assert!((0..1000).all(|_| b.allow(now, PortId(0), LimitKind::Other, Limit::NONE)));
    }
}
