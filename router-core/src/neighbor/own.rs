//! The router's own addresses on a link: finding out that nobody else has them, telling everybody that they are here, and
//! keeping them, or not.
//!
//! IPv6: duplicate address detection (RFC 4862 5.4) before an address answers for itself, then unsolicited advertisements
//! (RFC 4861 7.2.6). IPv4: announcements (gratuitous ARP, RFC 5227 2.3), where asked for after probes (RFC 5227 2.1); and
//! what [`OnConflict`] says when somebody else uses the address, too (RFC 5227 2.4).

use crate::jitter::Jitter;
use crate::port::{Medium, PortId};
use crate::settings::{NeighborSettings, OnConflict};
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// RFC 5227 1.1: PROBE_WAIT, the longest time before the first probe.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// RFC 5227 1.1: PROBE_NUM.
const PROBE_NUM: u8 = 3;
/// RFC 5227 1.1: PROBE_MIN, the shortest time between two probes.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// RFC 5227 1.1: PROBE_MAX less PROBE_MIN.
const PROBE_SPREAD: Duration = Duration::from_secs(1);
/// RFC 5227 1.1: ANNOUNCE_WAIT, from the last probe to the first announcement.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// RFC 5227 1.1: ANNOUNCE_INTERVAL.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227 1.1: MAX_CONFLICTS, after which a port probes but one new address in a RATE_LIMIT_INTERVAL.
const MAX_CONFLICTS: u32 = 10;
/// RFC 5227 1.1: RATE_LIMIT_INTERVAL.
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
/// RFC 5227 1.1: DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// A message to send about an own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnEvent {
    /// Ask whether somebody else has it: a neighbour solicitation from the unspecified address, an ARP probe.
    Probe(PortId, IpAddr),
    /// Tell everybody: gratuitous ARP, or an unsolicited neighbour advertisement.
    Announce(PortId, IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Own {
    /// Probes left; the address is tentative until the last one has had its time.
    tentative: Option<u8>,
    announcements: u8,
    next: Option<Instant>,
    defended: Option<Instant>,
    /// When a conflict was last told.
    told: Option<Instant>,
}

/// What a conflict means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address must not be used any more.
    pub lost: bool,
    /// The operator should be told; else that was done a short while ago.
    pub news: bool,
}

/// What a port has seen of IPv4 conflicts.
#[derive(Clone, Copy, Debug, Default)]
struct Conflicts {
    /// Addresses that turned out to be somebody else's.
    lost: u32,
    /// When an address was last probed for the first time.
    probed: Option<Instant>,
}

/// The own addresses of all Ethernet ports that are up. See the module.
#[derive(Debug)]
pub struct OwnAddresses {
    known: BTreeMap<(PortId, IpAddr), Own>,
    conflicts: BTreeMap<PortId, Conflicts>,
    jitter: Jitter,
}

impl OwnAddresses {
    /// None yet. `seed` spreads the probes of IPv4 addresses.
    pub fn new(seed: u64) -> Self {
        OwnAddresses {
            known: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            jitter: Jitter::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
    }

    /// Follows the ports: addresses that are new, or whose link has come up, are probed and announced.
    pub fn follow(&mut self, now: Instant, s: &NeighborSettings, ports: &PortTable) {
        let live = |p: PortId| ports.get(p).filter(|p| p.up && p.medium == Medium::Ethernet && p.mac.is_some());
        self.known.retain(|(port, addr), _| live(*port).is_some_and(|p| p.owns(addr)));
        self.conflicts.retain(|port, _| ports.get(*port).is_some());
        for port in ports.iter().filter_map(|p| live(p.id)) {
            for addr in port.addrs.iter().map(|n| n.addr()) {
                if self.known.contains_key(&(port.id, addr)) {
                    continue;
                }
                let probes = match addr {
                    IpAddr::V4(_) if s.probes_ipv4(&port.name) => PROBE_NUM,
                    IpAddr::V4(_) => 0,
                    IpAddr::V6(_) => s.dad_transmits,
                };
                let wait = if addr.is_ipv4() && probes > 0 { self.jitter.up_to(PROBE_WAIT) } else { Duration::ZERO };
                let own = Own {
                    tentative: (probes > 0).then_some(probes),
                    announcements: s.announcements,
                    next: Some(now + wait),
                    defended: None,
                    told: None,
                };
                self.known.insert((port.id, addr), own);
            }
        }
    }

    /// A link went down: what was known of it has to be found out anew, however soon it comes back.
    pub fn forget(&mut self, port: PortId) {
        self.known.retain(|(p, _), _| *p != port);
    }

    /// When [`OwnAddresses::poll`] has something to say next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.known.values().filter_map(|o| o.next).min()
    }

    /// Messages that are due.
    pub fn poll(&mut self, now: Instant, s: &NeighborSettings, out: &mut Vec<OwnEvent>) {
        let retrans = s.retrans_timer.max(Duration::from_millis(1));
        for ((port, addr), own) in &mut self.known {
            if own.next.is_none_or(|at| at > now) {
                continue;
            }
            let first = addr.is_ipv4() && own.tentative == Some(PROBE_NUM);
            if first && wait_for_turn(&mut self.conflicts, *port, now, own) {
                continue;
            }
            match own.tentative {
                Some(left) if left > 0 => {
                    own.tentative = Some(left - 1);
                    own.next = Some(now + probe_interval(addr, left - 1, retrans, &mut self.jitter));
                    out.push(OwnEvent::Probe(*port, *addr));
                    continue;
                }
                _ => own.tentative = None,
            }
            own.next = None;
            if own.announcements > 0 {
                own.announcements -= 1;
                out.push(OwnEvent::Announce(*port, *addr));
                let interval = if addr.is_ipv4() { ANNOUNCE_INTERVAL } else { retrans };
                own.next = (own.announcements > 0).then_some(now + interval);
            }
        }
    }

    /// Whether an address is still being asked for (RFC 4862 5.4, RFC 5227 2.1): it does not answer for itself.
    pub fn is_tentative(&self, port: PortId, addr: &IpAddr) -> bool {
        self.known.get(&(port, *addr)).is_some_and(|o| o.tentative.is_some())
    }

    /// All addresses that are still being asked for, in order.
    pub fn tentative(&self) -> Vec<(PortId, IpAddr)> {
        self.known.iter().filter(|(_, o)| o.tentative.is_some()).map(|(key, _)| *key).collect()
    }

    /// Somebody else uses an own address. It is lost when it was tentative, and so is a duplicate, or when the settings want
    /// it given up (RFC 5227 2.4 a, b). Else it is defended, if that was not done a short while ago.
    pub fn conflict(&mut self, now: Instant, s: &NeighborSettings, port: PortId, addr: IpAddr) -> Conflict {
        let Some(own) = self.known.get_mut(&(port, addr)) else { return Conflict { lost: false, news: false } };
        let recent = |at: Option<Instant>| at.is_some_and(|at| now < at + DEFEND_INTERVAL);
        let news = !recent(own.told);
        if news {
            own.told = Some(now);
        }
        if addr.is_ipv6() {
            return Conflict { lost: own.tentative.is_some(), news };
        }
        let recent = recent(own.defended);
        let lost = own.tentative.is_some()
            || match s.acd_conflict {
                OnConflict::Defend => false,
                OnConflict::Yield => recent,
                OnConflict::Release => true,
            };
        if lost {
            let seen = self.conflicts.entry(port).or_default();
            seen.lost = seen.lost.saturating_add(1);
        } else if !recent {
            own.defended = Some(now);
            own.announcements = own.announcements.max(1);
            own.next = Some(now);
        }
        // What happens once is told.
        Conflict { lost, news: news || lost }
    }
}

/// RFC 5227 2.1.1: from a probe to what comes next; `left` probes are to follow.
fn probe_interval(addr: &IpAddr, left: u8, retrans: Duration, jitter: &mut Jitter) -> Duration {
    match (addr, left) {
        (IpAddr::V6(_), _) => retrans,
        (IpAddr::V4(_), 0) => ANNOUNCE_WAIT,
        (IpAddr::V4(_), _) => PROBE_MIN + jitter.up_to(PROBE_SPREAD),
    }
}

/// Whether the first probe for an address has to wait: a port with many conflicts takes its time (RFC 5227 2.1.1).
fn wait_for_turn(all: &mut BTreeMap<PortId, Conflicts>, port: PortId, now: Instant, own: &mut Own) -> bool {
    let seen = all.entry(port).or_default();
    let turn = seen.probed.map(|at| at + RATE_LIMIT_INTERVAL);
    if let Some(turn) = turn.filter(|turn| seen.lost >= MAX_CONFLICTS && *turn > now) {
        own.next = Some(turn);
        return true;
    }
    seen.probed = Some(now);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::port;
    use std::sync::Arc;

    const V4: &str = "192.0.2.1";
    const V6: &str = "2001:db8::1";

    fn table(up: bool) -> PortTable {
        let mut p = port(3, "lan0", &["192.0.2.1/24", "2001:db8::1/64"]);
        p.up = up;
        PortTable::default().with(Arc::new(p))
    }

    fn run(own: &mut OwnAddresses, s: &NeighborSettings, until: u64) -> Vec<(u64, OwnEvent)> {
        let mut all = Vec::new();
        while let Some(at) = own.poll_at().filter(|at| *at <= Instant::from_millis(until)) {
            let mut out = Vec::new();
            own.poll(at, s, &mut out);
            all.extend(out.into_iter().map(|e| (at.as_nanos() / 1_000_000, e)));
        }
        all
    }

    /// Proves rfc4862-5.4.2-probe, rfc4861-7.2.6, rfc5227-2.3.
    #[test]
    fn probes_come_first_then_announcements() {
        let (v4, v6): (IpAddr, IpAddr) = (V4.parse().unwrap(), V6.parse().unwrap());
        let s = NeighborSettings { dad_transmits: 2, announcements: 2, ..NeighborSettings::default() };
        let mut own = OwnAddresses::new(7);
        own.follow(Instant::ZERO, &s, &table(true));
        let (probe, tell) = (|a| OwnEvent::Probe(PortId(3), a), |a| OwnEvent::Announce(PortId(3), a));
        assert!(own.is_tentative(PortId(3), &v6) && !own.is_tentative(PortId(3), &v4));
        let want =
            [(0, tell(v4)), (0, probe(v6)), (1000, probe(v6)), (2000, tell(v4)), (2000, tell(v6)), (3000, tell(v6))];
        assert_eq!(run(&mut own, &s, 60_000), want);
        assert!(!own.is_tentative(PortId(3), &v6) && own.poll_at().is_none());
        // The same again when the link comes back, and only then.
        own.follow(Instant::from_millis(60_000), &s, &table(true));
        assert_eq!(own.poll_at(), None);
        own.follow(Instant::from_millis(61_000), &s, &table(false));
        own.follow(Instant::from_millis(62_000), &s, &table(true));
        assert_eq!(run(&mut own, &s, 90_000).len(), 6);
    }

    /// Proves rfc4862-5.4.5-duplicate, rfc5227-2.4-c.
    #[test]
    fn duplicates_are_told_and_used_addresses_defended() {
        let (v4, v6): (IpAddr, IpAddr) = (V4.parse().unwrap(), V6.parse().unwrap());
        let s = NeighborSettings::default();
        let mut own = OwnAddresses::new(7);
        own.follow(Instant::ZERO, &s, &table(true));
        assert!(own.conflict(Instant::ZERO, &s, PortId(3), v6).lost, "tentative");
        run(&mut own, &s, 10_000);
        assert!(!own.conflict(Instant::from_millis(10_000), &s, PortId(3), v6).lost);
        let mut defence = |at: u64| {
            assert!(!own.conflict(Instant::from_millis(at), &s, PortId(3), v4).lost);
            run(&mut own, &s, at).len()
        };
        assert_eq!([20_000, 20_001, 29_999, 30_000].map(&mut defence), [1, 0, 0, 1], "once in ten seconds");
        assert!(!own.conflict(Instant::ZERO, &s, PortId(9), v4).lost);
    }

    fn probing() -> NeighborSettings {
        NeighborSettings { acd: true, ..NeighborSettings::default() }
    }

    fn only_v4(addr: &str) -> PortTable {
        PortTable::default().with(Arc::new(port(3, "lan0", &[addr])))
    }

    /// Proves rfc5227-2.1-probe, rfc5227-2.1.1-timing, rfc5227-2.1.1-free, rfc5227-2.3: a random wait of up to a second,
    /// three probes one to two seconds apart, two seconds of silence, two announcements two seconds apart. Proves
    /// rfc5227-2.1-periodic: and never again.
    #[test]
    fn ipv4_probes_have_the_times_of_the_rfc() {
        let v4: IpAddr = V4.parse().unwrap();
        let s = probing();
        let mut first = Vec::new();
        for seed in 0..200 {
            let mut own = OwnAddresses::new(seed);
            own.follow(Instant::ZERO, &s, &only_v4("192.0.2.1/24"));
            let sent = run(&mut own, &s, 3_600_000);
            let kinds: Vec<_> = sent.iter().map(|(_, e)| *e).collect();
            let (probe, tell) = (OwnEvent::Probe(PortId(3), v4), OwnEvent::Announce(PortId(3), v4));
            assert_eq!(kinds, [probe, probe, probe, tell, tell]);
            let at: Vec<_> = sent.iter().map(|(at, _)| *at).collect();
            let gaps: Vec<_> = at.windows(2).map(|w| w[1] - w[0]).collect();
            assert!(at[0] <= 1000 && gaps[..2].iter().all(|g| (1000..=2000).contains(g)), "{at:?}");
            // Whole milliseconds of what is exact to the nanosecond.
            assert!(gaps[2..].iter().all(|g| (1999..=2001).contains(g)), "{at:?}");
            assert!(own.poll_at().is_none() && own.tentative().is_empty());
            first.push(at[0]);
        }
        first.sort_unstable();
        assert!(first[20] < 300 && first[180] > 700, "spread over the second: {first:?}");
    }

    /// Proves rfc5227-2.1.1-in-use: until two seconds after the last probe, and not later.
    #[test]
    fn an_ipv4_address_in_use_is_lost_while_it_is_probed() {
        let v4: IpAddr = V4.parse().unwrap();
        let s = probing();
        let mut own = OwnAddresses::new(7);
        own.follow(Instant::ZERO, &s, &only_v4("192.0.2.1/24"));
        let mut now = Instant::ZERO;
        while own.is_tentative(PortId(3), &v4) {
            let mut twin =
                OwnAddresses { known: own.known.clone(), conflicts: BTreeMap::new(), jitter: Jitter::new(1) };
            assert!(twin.conflict(now, &s, PortId(3), v4).lost, "{now:?}");
            now = own.poll_at().expect("more to do");
            own.poll(now, &s, &mut Vec::new());
        }
        assert!(now >= Instant::from_millis(4000), "{now:?}");
        assert!(!own.conflict(now, &s, PortId(3), v4).lost, "defended from now on");
    }

    /// Proves rfc5227-2.1.1-rate: after ten conflicts, one new address a minute on that port.
    #[test]
    fn many_conflicts_slow_new_ipv4_addresses_down() {
        let s = probing();
        let mut own = OwnAddresses::new(7);
        let mut started: Vec<u64> = Vec::new();
        let mut now = Instant::ZERO;
        for n in 1..=13 {
            let addr: IpAddr = format!("192.0.2.{n}").parse().unwrap();
            let table = only_v4(&format!("192.0.2.{n}/24"));
            own.follow(now, &s, &table);
            let mut out = Vec::new();
            while out.is_empty() {
                now = own.poll_at().expect("a probe to come");
                own.poll(now, &s, &mut out);
            }
            assert_eq!(out, [OwnEvent::Probe(PortId(3), addr)]);
            started.push(now.as_nanos() / 1_000_000);
            assert!(own.conflict(now, &s, PortId(3), addr).lost);
        }
        let gaps: Vec<_> = started.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps[..9].iter().all(|g| *g <= 1000), "{gaps:?}");
        assert!(gaps[9..].iter().all(|g| *g >= 59_999), "{gaps:?}");
    }

    /// Proves rfc5227-2.4-a, rfc5227-2.4-b, rfc5227-2.4-c: what the operator chose is done.
    #[test]
    fn conflicts_end_as_the_settings_say() {
        let v4: IpAddr = V4.parse().unwrap();
        for (what, given_up, defended) in [
            (OnConflict::Defend, [false, false, false], 2),
            (OnConflict::Yield, [false, true, false], 2),
            (OnConflict::Release, [true, true, true], 0),
        ] {
            let s = NeighborSettings { acd_conflict: what, ..NeighborSettings::default() };
            let mut own = OwnAddresses::new(7);
            own.follow(Instant::ZERO, &s, &only_v4("192.0.2.1/24"));
            run(&mut own, &s, 10_000);
            let mut sent = 0;
            let lost = [20_000, 29_999, 30_000].map(|at| {
                let lost = own.conflict(Instant::from_millis(at), &s, PortId(3), v4).lost;
                sent += run(&mut own, &s, at).len();
                lost
            });
            assert_eq!((lost, sent), (given_up, defended), "{what:?}");
        }
    }
}
