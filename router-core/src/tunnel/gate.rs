//! What is checked of everything that comes out of a tunnel, and what a tunnel remembers from packet to packet.

use super::derived::Derived;
use super::mode::{Between, Shape};
use super::path::{Arrivals, Path};
use super::spec::{GreOptions, TunnelSpec, UdpOptions};
use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::object::ObjectId;
use crate::tables::Checks;
use crate::time::Instant;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What a tunnel remembers from packet to packet, shared by all workers.
#[derive(Debug, Default)]
pub struct TunnelState {
    /// The last sequence number sent.
    sent: AtomicU32,
    /// The newest sequence number seen, and above it one when any was.
    seen: AtomicU64,
    /// When the next packet may come without being early, in nanoseconds (a virtual scheduling instant).
    due: AtomicU64,
    /// The same for packets from nobody knows whom, about which the control side is asked.
    strangers: AtomicU64,
}

impl PartialEq for TunnelState {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for TunnelState {}

impl TunnelState {
    /// As if no packet had come yet.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.sent.store(0, Relaxed);
        [&self.seen, &self.due, &self.strangers].into_iter().for_each(|a| a.store(0, Relaxed));
    }

    /// The next sequence number to send; 0 for a tunnel without.
    pub(super) fn next_seq(&self, on: bool) -> u32 {
        if on { self.sent.fetch_add(1, Relaxed) } else { 0 }
    }

    /// Takes `seq` as the newest if `newer` says so of the one before. The first one always is.
    pub(super) fn accept_seq(&self, newer: impl Fn(u32) -> bool, seq: u32) -> bool {
        const SEEN: u64 = 1 << 32;
        let next = |old: u64| (old & SEEN == 0 || newer(old as u32)).then_some(SEEN | u64::from(seq));
        self.seen.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Whether the control side may be asked about another packet that came by an unknown path: 20 of them a second.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        within(&self.strangers, now, 20)
    }

    /// Whether another packet is within `rate` packets per second, with bursts of a tenth of a second.
    pub(super) fn within(&self, now: Instant, rate: u32) -> bool {
        within(&self.due, now, rate)
    }
}

fn within(due: &AtomicU64, now: Instant, rate: u32) -> bool {
    const BURST: u64 = 100_000_000;
    let each = 1_000_000_000 / u64::from(rate.max(1));
    let now = now.as_nanos();
    let next = |due: u64| (due <= now + BURST.max(each)).then_some(due.max(now) + each);
    due.fetch_update(Relaxed, Relaxed, next).is_ok()
}

/// See the module. One for each tunnel, read by workers.
#[derive(Debug)]
pub struct Gate {
    /// What the mode is.
    pub shape: &'static Shape,
    /// Our own end.
    pub local: IpAddr,
    /// Our port, if the tunnel's packets come in UDP.
    pub udp: Option<UdpOptions>,
    pub(super) gre: Option<GreOptions>,
    /// Where the peer is part of the inner address.
    pub derived: Option<Derived>,
    allowed: Vec<IpNet>,
    rate: Option<u32>,
    /// The control side waits for echo replies out of it, also when it counts as dead.
    pub keepalive: bool,
    /// Answers to GRE keepalives are awaited, too.
    pub(super) gre_asks: bool,
    /// Where its packets may come several ways: by which they are taken.
    pub arrivals: Option<Arrivals>,
    /// Its own forwarding object, whatever the routes say: for keepalives, and for what is said on its link.
    pub object: Option<ObjectId>,
    state: Arc<TunnelState>,
}

impl Gate {
    /// What the tunnel remembers.
    pub fn state(&self) -> &TunnelState {
        &self.state
    }

    /// Of a tunnel. `awaits`: the control side waits for echo replies out of it.
    pub fn new(spec: &TunnelSpec, state: Arc<TunnelState>, object: Option<ObjectId>, awaits: bool) -> Self {
        let (shape, o) = (spec.mode.shape(), &spec.options);
        Gate {
            shape,
            local: spec.local,
            udp: o.udp,
            gre: (shape.between == Between::Gre).then_some(o.gre),
            derived: o.sixrd.as_ref().map(Derived::new),
            allowed: o.allowed.clone(),
            rate: o.rate,
            keepalive: awaits,
            gre_asks: o.keepalive.is_some_and(|k| k.gre),
            arrivals: None,
            object,
            state,
        }
    }

    /// What there is to check beside peer and family.
    pub fn checks(&self) -> Checks {
        // While another path is in use, questions about the bare one are the control side's.
        let looked_at = self.arrivals.as_ref().is_some_and(|a| a.current != Some(Path::Bare));
        let ordered = self.gre.is_some_and(|g| g.iseq);
        match (looked_at || ordered, self.rate, self.allowed.is_empty()) {
            (true, _, _) => Checks::More,
            (false, Some(_), _) => Checks::Rate,
            (false, None, false) => Checks::Sources,
            (false, None, true) => Checks::Nothing,
        }
    }

    /// Whether this may be the source of a packet inside.
    #[inline]
    pub fn admits(&self, source: &IpAddr) -> bool {
        // What is said on the link itself never goes further (RFC 4291 2.5.6).
        let on_link = || matches!(source, IpAddr::V6(a) if a.is_unicast_link_local());
        self.allowed.is_empty() || self.allowed.iter().any(|n| n.contains(source)) || on_link()
    }

    /// Checks the packet inside, which starts at `inner` and whose family is known to be right. `outer` is the peer.
    pub fn check(
        &self,
        outer: IpAddr,
        family: Family,
        inner: &[u8],
        now: Instant,
        state: &TunnelState,
    ) -> Result<(), DropReason> {
        let source = source(family, inner).ok_or(DropReason::TunnelInnerMalformed)?;
        if let (Some(derived), IpAddr::V4(outer), IpAddr::V4(local), IpAddr::V6(src)) =
            (&self.derived, outer, self.local, source)
        {
            derived.check(outer, local, src)?;
        }
        if !self.admits(&source) {
            return Err(DropReason::TunnelInnerSource);
        }
        match self.is_within_rate(now, state) {
            true => Ok(()),
            false => Err(DropReason::TunnelRate),
        }
    }

    /// Whether the peer's packets are limited in number.
    #[inline]
    pub(crate) fn is_rated(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether the peer's rate allows another packet, which is counted then.
    pub(crate) fn is_within_rate(&self, now: Instant, state: &TunnelState) -> bool {
        self.rate.is_none_or(|rate| state.within(now, rate))
    }
}

fn source(family: Family, packet: &[u8]) -> Option<IpAddr> {
    Some(match family {
        Family::Inet => IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?),
        Family::Inet6 => IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_rate_holds_over_a_second() {
        for rate in [1, 10, 1000, 50_000] {
            let state = TunnelState::default();
            let start = Instant::from_millis(5000);
            let passed =
                (0..400_000u64).filter(|i| state.within(start + Duration::from_nanos(i * 5_000), rate)).count() as u32;
            // Two seconds, and a burst at their beginning.
            let (least, most) = (2 * rate, 2 * rate + rate.div_ceil(10) + 2);
            assert!((least..=most).contains(&passed), "{rate}: {passed}");
        }
    }
}
