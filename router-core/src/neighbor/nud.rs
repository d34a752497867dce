//! Neighbour unreachability detection: the state machine of one neighbour (RFC 4861 7.3.3 and appendix C), the same for
//! ARP and NDP.
//!
//! ```text
//!                 evidence, solicited            ReachableTime over
//! INCOMPLETE ───────────────────────▶ REACHABLE ───────────────────▶ STALE ◀── evidence, not solicited
//!     │ MAX_MULTICAST_SOLICIT             ▲  ▲                          │ used
//!     ▼                                   │  └───── confirmed ───────┐  ▼ DELAY_FIRST_PROBE_TIME
//!   FAILED                                └───────────────────── PROBE ◀── DELAY
//!     │ failed_hold                                                │ MAX_UNICAST_SOLICIT
//!     ▼                                                            ▼
//!    gone                                                         gone
//! ```

use crate::addr::MacAddr;
use crate::settings::NeighborSettings;
use crate::spec::NudState;
use crate::time::{Duration, Instant};

/// Timers never fire more often than this, whatever the settings say.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a message tells about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It sent something with its link-layer address inside: an ARP request or announcement (RFC 826), a neighbour or
    /// router solicitation (RFC 4861 7.2.3, 6.2.6). That does not prove that it hears us.
    Source {
        /// Its link-layer address.
        mac: MacAddr,
        /// Make an entry if there is none: only for messages addressed to us.
        create: bool,
    },
    /// An ARP reply or a neighbour advertisement (RFC 4861 7.2.5).
    Advert {
        /// Its link-layer address, if it said so.
        mac: Option<MacAddr>,
        /// It answers a question of ours: proof that it hears us.
        solicited: bool,
        /// It may replace a link-layer address known already.
        replace: bool,
        /// It is a router; None when the message cannot say (ARP).
        router: Option<bool>,
    },
}

/// What has to happen when a timer has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing.
    Quiet,
    /// Ask: this neighbour alone when its address is known, else everyone.
    Solicit(Option<MacAddr>),
    /// It did not answer: those who wait are told (RFC 4861 7.2.2).
    Failed,
    /// The entry is over.
    Remove,
}

/// One neighbour's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nud {
    state: NudState,
    mac: Option<MacAddr>,
    router: bool,
    probes: u8,
    deadline: Option<Instant>,
}

impl Nud {
    /// A neighbour that is being asked for; the first question is sent now.
    pub fn incomplete(now: Instant, s: &NeighborSettings) -> Nud {
        let deadline = Some(now + s.retrans_timer.max(SHORTEST));
        Nud { state: NudState::Incomplete, mac: None, router: false, probes: 1, deadline }
    }

    /// A neighbour whose link-layer address is known, but not whether it is there.
    pub fn stale(mac: MacAddr) -> Nud {
        Nud { state: NudState::Stale, mac: Some(mac), router: false, probes: 0, deadline: None }
    }

    /// A neighbour as set by hand: permanent, noarp, reachable, stale, delay or probe. Other states count as stale.
    pub fn set_by_hand(now: Instant, s: &NeighborSettings, reachable: Duration, state: NudState, mac: MacAddr) -> Nud {
        let mut nud = Nud::stale(mac);
        match state {
            NudState::Permanent | NudState::NoArp => nud.state = state,
            NudState::Reachable => nud.enter_reachable(now, reachable),
            NudState::Delay => nud.used(now, s),
            NudState::Probe => {
                (nud.state, nud.probes, nud.deadline) = (NudState::Probe, 0, Some(now + SHORTEST));
            }
            NudState::Stale | NudState::Incomplete | NudState::Failed => {}
        }
        nud
    }

    /// The state.
    pub fn state(&self) -> NudState {
        self.state
    }

    /// The link-layer address; None in INCOMPLETE and FAILED.
    pub fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// Whether it said that it is a router.
    pub fn router(&self) -> bool {
        self.router
    }

    /// Questions sent in this state.
    pub fn probes(&self) -> u8 {
        self.probes
    }

    /// When [`Nud::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it was set by hand for good: messages and timers leave it alone.
    pub fn is_static(&self) -> bool {
        matches!(self.state, NudState::Permanent | NudState::NoArp)
    }

    /// Notes whether it is a router.
    pub fn set_router(&mut self, router: bool) {
        self.router = router;
    }

    fn enter_reachable(&mut self, now: Instant, reachable: Duration) {
        self.state = NudState::Reachable;
        self.deadline = Some(now + reachable.max(SHORTEST));
        self.probes = 0;
    }

    fn enter_stale(&mut self, mac: MacAddr) {
        (self.state, self.mac, self.deadline, self.probes) = (NudState::Stale, Some(mac), None, 0);
    }

    /// A packet was sent to it: a STALE neighbour will be probed soon (RFC 4861 7.3.3).
    pub fn used(&mut self, now: Instant, s: &NeighborSettings) {
        if self.state == NudState::Stale {
            self.state = NudState::Delay;
            self.deadline = Some(now + s.delay_first_probe.max(SHORTEST));
        }
    }

    /// Something above IP made progress: it is reachable (RFC 4861 7.3.1). `reachable` is the randomised ReachableTime.
    pub fn confirm(&mut self, now: Instant, reachable: Duration) {
        if self.mac.is_some() && !self.is_static() {
            self.enter_reachable(now, reachable);
        }
    }

    /// Takes evidence in. `reachable` is the randomised ReachableTime.
    pub fn learn(&mut self, now: Instant, reachable: Duration, evidence: Evidence) {
        if self.is_static() {
            return;
        }
        match evidence {
            // RFC 4861 7.2.3 and appendix C: another address, or a first one, makes it STALE; the same changes nothing.
            Evidence::Source { mac, .. } => {
                if self.mac != Some(mac) {
                    self.enter_stale(mac);
                }
            }
            Evidence::Advert { mac, solicited, replace, router } => {
                let Some(known) = self.mac else {
                    // RFC 4861 7.2.5 on INCOMPLETE; a late answer wakes a FAILED one too.
                    if let Some(mac) = mac {
                        self.enter_stale(mac);
                        if solicited {
                            self.enter_reachable(now, reachable);
                        }
                        self.router = router.unwrap_or(self.router);
                    }
                    return;
                };
                let other = mac.filter(|m| *m != known);
                if other.is_some() && !replace {
                    // Override flag clear: not believed, but doubt about what is known.
                    if self.state == NudState::Reachable {
                        self.enter_stale(known);
                    }
                    return;
                }
                if let Some(mac) = other {
                    self.enter_stale(mac);
                }
                if solicited {
                    self.enter_reachable(now, reachable);
                }
                self.router = router.unwrap_or(self.router);
            }
        }
    }

    /// Its deadline has passed. Sets the next one.
    pub fn expire(&mut self, now: Instant, s: &NeighborSettings) -> Expiry {
        let retrans = Some(now + s.retrans_timer.max(SHORTEST));
        self.deadline = None;
        match self.state {
            NudState::Incomplete if self.probes < s.max_multicast_solicit => {
                (self.probes, self.deadline) = (self.probes + 1, retrans);
                Expiry::Solicit(None)
            }
            NudState::Incomplete => {
                self.state = NudState::Failed;
                self.deadline = Some(now + s.failed_hold.max(SHORTEST));
                Expiry::Failed
            }
            NudState::Reachable => {
                self.state = NudState::Stale;
                Expiry::Quiet
            }
            NudState::Delay => {
                (self.state, self.probes, self.deadline) = (NudState::Probe, 1, retrans);
                Expiry::Solicit(self.mac)
            }
            NudState::Probe if self.probes < s.max_unicast_solicit => {
                (self.probes, self.deadline) = (self.probes + 1, retrans);
                Expiry::Solicit(self.mac)
            }
            // Deleted, so that the next packet asks everyone: it may have a new link-layer address (RFC 4861 7.3.3).
            NudState::Probe | NudState::Failed => Expiry::Remove,
            NudState::Stale | NudState::NoArp | NudState::Permanent => Expiry::Quiet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NudState::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const NOW: Instant = Instant::from_millis(5000);
    const R: Duration = Duration::from_secs(30);

    fn in_state(state: NudState) -> Nud {
        let mac = (!matches!(state, Incomplete | Failed)).then_some(A);
        Nud { state, mac, router: true, probes: 1, deadline: None }
    }

    /// Proves rfc4861-7.2.5-na, rfc4861-7.3.1-unsolicited.
    #[test]
    fn rfc_4861_7_2_5_and_appendix_c_advertisements() {
        // state, address said, solicited, override, then: state, address, router flag taken over
        type Row = (NudState, Option<MacAddr>, bool, bool, NudState, Option<MacAddr>, bool);
        let rows: &[Row] = &[
            (Incomplete, None, true, true, Incomplete, None, false),
            (Incomplete, Some(A), false, false, Stale, Some(A), true),
            (Incomplete, Some(A), false, true, Stale, Some(A), true),
            (Incomplete, Some(A), true, false, Reachable, Some(A), true),
            (Incomplete, Some(A), true, true, Reachable, Some(A), true),
            (Failed, Some(A), true, true, Reachable, Some(A), true),
            // Another address without override.
            (Reachable, Some(B), true, false, Stale, Some(A), false),
            (Reachable, Some(B), false, false, Stale, Some(A), false),
            (Stale, Some(B), true, false, Stale, Some(A), false),
            (Delay, Some(B), false, false, Delay, Some(A), false),
            (Probe, Some(B), true, false, Probe, Some(A), false),
            // Another address with override.
            (Reachable, Some(B), false, true, Stale, Some(B), true),
            (Reachable, Some(B), true, true, Reachable, Some(B), true),
            (Stale, Some(B), false, true, Stale, Some(B), true),
            (Probe, Some(B), true, true, Reachable, Some(B), true),
            (Probe, Some(B), false, true, Stale, Some(B), true),
            // The same address, or none.
            (Reachable, Some(A), false, true, Reachable, Some(A), true),
            (Stale, Some(A), true, false, Reachable, Some(A), true),
            (Stale, Some(A), false, true, Stale, Some(A), true),
            (Probe, None, true, false, Reachable, Some(A), true),
            (Probe, None, false, false, Probe, Some(A), true),
            (Delay, Some(A), true, true, Reachable, Some(A), true),
            (Delay, Some(A), false, true, Delay, Some(A), true),
            // Set by hand.
            (Permanent, Some(B), true, true, Permanent, Some(A), false),
            (NoArp, Some(B), true, true, NoArp, Some(A), false),
        ];
        for (i, (from, mac, solicited, replace, to, want, taken)) in rows.iter().enumerate() {
            let mut n = in_state(*from);
            let router = Some(false);
            n.learn(NOW, R, Evidence::Advert { mac: *mac, solicited: *solicited, replace: *replace, router });
            assert_eq!((n.state(), n.mac(), n.router()), (*to, *want, !*taken), "row {i} {from:?}");
            assert_eq!(n.deadline(), (*to == Reachable && (*solicited)).then_some(NOW + R), "row {i} {from:?}");
        }
    }

    /// Proves rfc4861-7.2.3-ns.
    #[test]
    fn rfc_4861_7_2_3_solicitations_and_arp_requests() {
        for state in [Incomplete, Reachable, Stale, Delay, Probe, Failed] {
            let mut n = in_state(state);
            n.learn(NOW, R, Evidence::Source { mac: B, create: false });
            assert_eq!((n.state(), n.mac()), (Stale, Some(B)), "{state:?}");
            let mut n = in_state(state);
            n.learn(NOW, R, Evidence::Source { mac: A, create: true });
            let want = if matches!(state, Incomplete | Failed) { Stale } else { state };
            assert_eq!((n.state(), n.mac()), (want, Some(A)), "{state:?}");
        }
        for state in [Permanent, NoArp] {
            let mut n = in_state(state);
            n.learn(NOW, R, Evidence::Source { mac: B, create: true });
            assert_eq!(n, in_state(state));
        }
    }

    /// Proves rfc1122-2.3.2.1-flush, rfc4861-7.2.2-interval, rfc4861-7.3.3-rate, rfc4861-7.3.3-probe.
    #[test]
    fn rfc_4861_7_3_3_timers() {
        let s = NeighborSettings::default();
        let mut n = Nud::incomplete(NOW, &s);
        let mut t = NOW;
        for _ in 0..2 {
            t = n.deadline().unwrap();
            assert_eq!(n.expire(t, &s), Expiry::Solicit(None));
        }
        t = n.deadline().unwrap_or(t);
        assert_eq!(t, NOW + Duration::from_secs(3), "MAX_MULTICAST_SOLICIT times RetransTimer");
        assert_eq!((n.expire(t, &s), n.state()), (Expiry::Failed, Failed));
        assert_eq!(n.expire(n.deadline().unwrap(), &s), Expiry::Remove);

        let mut n = Nud::stale(A);
        n.confirm(NOW, R);
        assert_eq!((n.state(), n.deadline()), (Reachable, Some(NOW + R)));
        assert_eq!((n.expire(NOW + R, &s), n.state(), n.deadline()), (Expiry::Quiet, Stale, None));
        n.used(NOW, &s);
        assert_eq!((n.state(), n.deadline()), (Delay, Some(NOW + Duration::from_secs(5))));
        for _ in 0..3 {
            t = n.deadline().unwrap();
            assert_eq!((n.expire(t, &s), n.state()), (Expiry::Solicit(Some(A)), Probe));
        }
        t = n.deadline().unwrap();
        assert_eq!(n.expire(t, &s), Expiry::Remove, "after MAX_UNICAST_SOLICIT");
    }

    #[test]
    fn zero_timers_still_move_forward() {
        let zero = Duration::ZERO;
        let s = NeighborSettings {
            retrans_timer: zero,
            delay_first_probe: zero,
            failed_hold: zero,
            ..NeighborSettings::default()
        };
        let mut n = Nud::incomplete(NOW, &s);
        assert!(n.deadline().unwrap() > NOW);
        n.expire(NOW, &s);
        assert!(n.deadline().unwrap() > NOW);
        n.learn(NOW, zero, Evidence::Advert { mac: Some(A), solicited: true, replace: true, router: None });
        assert!(n.deadline().unwrap() > NOW);
    }
}
