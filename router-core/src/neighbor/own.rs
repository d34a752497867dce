//! The router's own addresses on a link: finding out that nobody else has them, telling everybody that they are here, and
//! keeping them.
//!
//! IPv6: duplicate address detection (RFC 4862 5.4) before an address answers for itself, then unsolicited advertisements
//! (RFC 4861 7.2.6). IPv4: announcements (gratuitous ARP, RFC 5227 2.3) at once; a router's addresses are configured, and
//! it defends them without giving up (RFC 5227 2.4 c).

use crate::port::{Medium, PortId};
use crate::settings::NeighborSettings;
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// RFC 5227 1.1: ANNOUNCE_INTERVAL.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227 1.1: DEFEND_INTERVAL.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// A message to send about an own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnEvent {
    /// Ask whether somebody else has it: a neighbour solicitation from the unspecified address.
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
}

/// The own addresses of all Ethernet ports that are up. See the module.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: BTreeMap<(PortId, IpAddr), Own>,
}

impl OwnAddresses {
    /// Follows the ports: addresses that are new, or whose link has come up, are probed and announced.
    pub fn follow(&mut self, now: Instant, s: &NeighborSettings, ports: &PortTable) {
        let live = |p: PortId| ports.get(p).filter(|p| p.up && p.medium == Medium::Ethernet && p.mac.is_some());
        self.known.retain(|(port, addr), _| live(*port).is_some_and(|p| p.owns(addr)));
        for port in ports.iter().filter_map(|p| live(p.id)) {
            for addr in port.addrs.iter().map(|n| n.addr()) {
                self.known.entry((port.id, addr)).or_insert_with(|| Own {
                    tentative: (addr.is_ipv6() && s.dad_transmits > 0).then_some(s.dad_transmits),
                    announcements: s.announcements,
                    next: Some(now),
                    defended: None,
                });
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
            match own.tentative {
                Some(left) if left > 0 => {
                    own.tentative = Some(left - 1);
                    own.next = Some(now + retrans);
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

    /// Whether an address is still being asked for (RFC 4862 5.4): it does not answer for itself.
    pub fn is_tentative(&self, port: PortId, addr: &IpAddr) -> bool {
        self.known.get(&(port, *addr)).is_some_and(|o| o.tentative.is_some())
    }

    /// All addresses that are still being asked for, in order.
    pub fn tentative(&self) -> Vec<(PortId, IpAddr)> {
        self.known.iter().filter(|(_, o)| o.tentative.is_some()).map(|(key, _)| *key).collect()
    }

    /// Somebody else uses an own address. True when it was tentative: it is a duplicate and must not be used. Else it is
    /// defended, if that was not done a short while ago.
    pub fn conflict(&mut self, now: Instant, port: PortId, addr: IpAddr) -> bool {
        let Some(own) = self.known.get_mut(&(port, addr)) else { return false };
        if own.tentative.is_some() {
            return true;
        }
        if addr.is_ipv4() && own.defended.is_none_or(|at| at + DEFEND_INTERVAL <= now) {
            own.defended = Some(now);
            own.announcements = own.announcements.max(1);
            own.next = Some(now);
        }
        false
    }
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
        let mut own = OwnAddresses::default();
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
        let mut own = OwnAddresses::default();
        own.follow(Instant::ZERO, &s, &table(true));
        assert!(own.conflict(Instant::ZERO, PortId(3), v6), "tentative");
        run(&mut own, &s, 10_000);
        assert!(!own.conflict(Instant::from_millis(10_000), PortId(3), v6));
        let mut defence = |at: u64| {
            assert!(!own.conflict(Instant::from_millis(at), PortId(3), v4));
            run(&mut own, &s, at).len()
        };
        assert_eq!([20_000, 20_001, 29_999, 30_000].map(&mut defence), [1, 0, 0, 1], "once in ten seconds");
        assert!(!own.conflict(Instant::ZERO, PortId(9), v4));
    }
}
