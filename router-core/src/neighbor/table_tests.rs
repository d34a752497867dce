//! The cache: what is held, told, limited and shown.

use super::table::GATEWAY_RESERVE;
use super::*;
use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::port::PortId;
use crate::settings::NeighborSettings;
use crate::spec::{NeighSpec, NudState};
use crate::time::{Duration, Instant};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const P: PortId = PortId(3);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn ip(n: u16) -> IpAddr {
    IpAddr::from([192, 0, (n >> 8) as u8, n as u8])
}

fn frame(n: u8) -> Option<Frame> {
    Some(Frame::from_slice(&[n]))
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    frames.iter().map(|f| f.data()[0]).collect()
}

fn reply() -> Evidence {
    Evidence::Advert { mac: Some(MAC), solicited: true, replace: true, router: Some(true) }
}

/// A table, its settings, a clock, and what it told.
struct Bed {
    t: NeighborTable,
    s: NeighborSettings,
    now: Instant,
    out: Vec<NeighborEvent>,
}

impl Bed {
    fn new(s: NeighborSettings) -> Bed {
        Bed { t: NeighborTable::new(7), s, now: Instant::from_millis(1_000), out: Vec::new() }
    }

    fn resolve(&mut self, n: u16, f: Option<Frame>) -> Resolution {
        self.t.resolve(self.now, &self.s, P, ip(n), f, &mut self.out)
    }

    fn input(&mut self, n: u16, e: Evidence) {
        self.t.input(self.now, &self.s, P, ip(n), e, &mut self.out);
    }

    /// Lets time pass, stopping at each deadline.
    fn pass(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(at) = self.t.poll_at().filter(|at| *at <= end) {
            self.now = at;
            self.t.poll(at, &self.s, &mut self.out);
        }
        self.now = end;
    }

    fn take(&mut self) -> Vec<NeighborEvent> {
        std::mem::take(&mut self.out)
    }

    fn state(&self, n: u16) -> Option<NudState> {
        self.t.get(P, ip(n)).map(|e| e.state)
    }
}

fn used_flag(events: &[NeighborEvent]) -> Arc<AtomicBool> {
    events
        .iter()
        .find_map(|e| match e {
            NeighborEvent::Changed { used, .. } => Some(Arc::clone(used)),
            _ => None,
        })
        .unwrap()
}

/// Proves rfc1122-2.3.2.2-queue, rfc1812-3.3.2-arp, rfc4861-7.2.2-hold.
#[test]
fn packets_wait_and_go_in_order() {
    // RFC 1122 2.3.2.2 and RFC 4861 7.2.2.
    let mut b = Bed::new(NeighborSettings { max_pending: 3, ..NeighborSettings::default() });
    for n in 1..=5 {
        assert!(matches!(b.resolve(9, frame(n)), Resolution::Pending));
    }
    assert_eq!(b.t.held(), 3);
    let events = b.take();
    assert!(matches!(events[0], NeighborEvent::Solicit { port: P, unicast: None, target } if target == ip(9)));
    let dropped = events.iter().filter_map(|e| match e {
        NeighborEvent::Dropped { reason: DropReason::NeighborQueueFull, frame } => Some(frame.data()[0]),
        _ => None,
    });
    assert_eq!(dropped.collect::<Vec<_>>(), [1, 2], "the oldest go first");
    assert_eq!(events.len(), 3, "asked once");
    b.input(9, reply());
    let events = b.take();
    assert!(matches!(events[0], NeighborEvent::Changed { mac: Some(MAC), .. }), "the adjacency first");
    let NeighborEvent::Release { mac: MAC, frames, .. } = &events[1] else { panic!("{events:?}") };
    assert_eq!((bytes(frames), b.t.held()), (vec![3, 4, 5], 0));
    assert!(b.t.get(P, ip(9)).unwrap().router);
    match b.resolve(9, frame(6)) {
        Resolution::Known(MAC, Some(f)) => assert_eq!(f.data(), [6]),
        other => panic!("{other:?}"),
    }
}

/// Proves rfc1122-2.3.2.1-flood, rfc4861-7.2.2-fail.
#[test]
fn silence_fails_all_who_wait_and_then_at_once() {
    let mut b = Bed::new(NeighborSettings::default());
    b.resolve(9, frame(1));
    b.pass(Duration::from_millis(1500));
    b.resolve(9, frame(2));
    b.pass(Duration::from_millis(1500));
    let events = b.take();
    let asked = events.iter().filter(|e| matches!(e, NeighborEvent::Solicit { unicast: None, .. })).count();
    assert_eq!(asked, 3, "MAX_MULTICAST_SOLICIT");
    let Some(NeighborEvent::Failed { frames, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((bytes(frames), b.t.held(), b.state(9)), (vec![1, 2], 0, Some(NudState::Failed)));
    b.pass(Duration::from_millis(2900));
    assert!(matches!(b.resolve(9, frame(3)), Resolution::Refused(DropReason::NeighborFailed, Some(_))));
    b.pass(Duration::from_millis(100));
    assert_eq!(b.state(9), None);
    assert!(matches!(b.resolve(9, frame(4)), Resolution::Pending), "tried again after failed_hold");
    // A late answer wakes it.
    b.pass(Duration::from_secs(3));
    assert_eq!(b.state(9), Some(NudState::Failed));
    b.input(9, reply());
    assert_eq!(b.state(9), Some(NudState::Reachable));
}

/// Proves rfc4861-7.3.3-probe.
#[test]
fn use_by_workers_leads_to_probes() {
    let mut b = Bed::new(NeighborSettings::default());
    b.resolve(9, None);
    b.input(9, reply());
    let used = used_flag(&b.take());
    used.store(true, Relaxed);
    b.pass(Duration::from_secs(46));
    assert_eq!(b.state(9), Some(NudState::Stale), "use while REACHABLE does not count afterwards");
    assert!(!used.load(Relaxed));
    b.pass(Duration::from_secs(60));
    assert_eq!(b.state(9), Some(NudState::Stale));
    used.store(true, Relaxed);
    b.pass(Duration::from_secs(1));
    assert_eq!(b.state(9), Some(NudState::Delay));
    b.pass(Duration::from_secs(5));
    assert_eq!(b.state(9), Some(NudState::Probe));
    assert!(matches!(b.take()[..], [NeighborEvent::Solicit { unicast: Some(MAC), .. }]));
    b.pass(Duration::from_millis(500));
    b.input(9, reply());
    assert_eq!(b.state(9), Some(NudState::Reachable));
    assert!(b.take().is_empty(), "the adjacency was right all the time");

    // Now it is gone.
    b.pass(Duration::from_secs(46));
    b.t.used(b.now, &b.s, P, ip(9), &mut b.out);
    b.pass(Duration::from_secs(9));
    let events = b.take();
    let asked = events.iter().filter(|e| matches!(e, NeighborEvent::Solicit { unicast: Some(MAC), .. })).count();
    assert_eq!((asked, b.state(9)), (3, None), "MAX_UNICAST_SOLICIT, then deleted");
    let lost = |e: &NeighborEvent| matches!(e, NeighborEvent::Changed { mac: None, .. });
    assert!(lost(&events[3]) && matches!(events[4], NeighborEvent::Evicted { .. }));
}

/// Proves rfc4861-6.3.2-random: each table draws its own ReachableTime, evenly, between half and one and a half of the base.
#[test]
fn reachable_time_is_drawn_at_random() {
    let base = NeighborSettings::default().reachable_time;
    let mut drawn: Vec<Duration> = (0..300)
        .map(|seed| {
            let mut b = Bed::new(NeighborSettings::default());
            b.t = NeighborTable::new(seed);
            b.resolve(9, None);
            b.input(9, reply());
            assert_eq!(b.state(9), Some(NudState::Reachable));
            b.t.poll_at().unwrap().saturating_since(b.now)
        })
        .collect();
    drawn.sort_unstable();
    assert!(drawn[0] >= base / 2 && drawn[299] <= base * 3 / 2, "{drawn:?}");
    // Evenly: each third of the range has its share.
    assert!(drawn[60] < base * 5 / 6 && drawn[150] > base * 5 / 6 && drawn[150] < base * 7 / 6, "{drawn:?}");
    assert!(drawn[240] > base * 7 / 6, "{drawn:?}");
}

/// Proves rfc1122-2.3.2.1-flush. Proves rfc4861-7.2.5-unknown: an advertisement about somebody for whom nobody asked.
#[test]
fn unused_stale_entries_go() {
    let mut b = Bed::new(NeighborSettings::default());
    b.input(9, Evidence::Source { mac: MAC, create: true });
    assert_eq!(b.state(9), Some(NudState::Stale));
    b.pass(Duration::from_secs(599));
    assert_eq!(b.state(9), Some(NudState::Stale));
    b.pass(Duration::from_secs(2));
    assert_eq!((b.state(9), b.t.poll_at()), (None, None));
    b.input(9, Evidence::Source { mac: MAC, create: false });
    b.input(9, reply());
    assert!(b.t.is_empty(), "nobody asked");
}

/// Proves rfc6583-7.1-priority, rfc6583-7.2-queue.
#[test]
fn a_scan_does_not_hurt_those_who_are_known() {
    // RFC 6583: a limit on INCOMPLETE, a limit on all, and who has to go.
    let s = NeighborSettings { max_entries: 8, max_incomplete: 4, max_pending_total: 6, ..NeighborSettings::default() };
    let mut b = Bed::new(s);
    for n in 0..2 {
        b.resolve(n, None);
        b.input(n, reply());
    }
    b.input(2, Evidence::Source { mac: MAC, create: true });
    b.pass(Duration::from_secs(1));
    b.input(3, Evidence::Source { mac: MAC, create: true });
    let mut refused = 0;
    for n in 100..200 {
        refused +=
            usize::from(matches!(b.resolve(n, frame(1)), Resolution::Refused(DropReason::NeighborTableFull, Some(_))));
    }
    assert_eq!((refused, b.t.len(), b.t.held()), (96, 8, 4));
    // Full: the next ones take the places of FAILED entries, then of the longest unused STALE one.
    b.pass(Duration::from_secs(3));
    for n in 200..204 {
        assert!(matches!(b.resolve(n, None), Resolution::Pending));
    }
    assert_eq!((b.t.len(), b.state(2), b.state(3)), (8, Some(NudState::Stale), Some(NudState::Stale)));
    b.input(300, Evidence::Source { mac: MAC, create: true });
    assert_eq!((b.t.len(), b.state(2), b.state(3)), (8, None, Some(NudState::Stale)));
    for n in 0..2 {
        assert!(matches!(b.resolve(n, None), Resolution::Known(MAC, _)), "REACHABLE ones stay");
    }
}

/// Proves rfc6583-7.3-gateways.
#[test]
fn gateways_are_found_during_a_scan() {
    // All limits reached, by addresses that never answer: INCOMPLETE, frames that wait, entries.
    for max_entries in [4, 8] {
        let s =
            NeighborSettings { max_entries, max_incomplete: 4, max_pending_total: 4, ..NeighborSettings::default() };
        let mut b = Bed::new(s);
        for n in 100..200 {
            b.resolve(n, frame(1));
        }
        assert_eq!((b.t.len(), b.t.held()), (4, 4));
        assert!(matches!(b.resolve(9, frame(1)), Resolution::Refused(DropReason::NeighborTableFull, _)));
        b.take();
        let found = b.t.resolve_gateway(b.now, &b.s, P, ip(9), frame(7), &mut b.out);
        assert!(matches!(found, Resolution::Pending));
        assert!(matches!(b.take()[..], [NeighborEvent::Solicit { unicast: None, .. }]));
        b.input(9, reply());
        let released = b.take().into_iter().find_map(|e| match e {
            NeighborEvent::Release { frames, .. } => Some(bytes(&frames)),
            _ => None,
        });
        assert_eq!(released, Some(vec![7]));
    }
    // Gateways have limits, too; where only frames are too many, they are asked for without one.
    let mut b = Bed::new(NeighborSettings { max_incomplete: 0, max_pending_total: 0, ..NeighborSettings::default() });
    let all: Vec<_> = (0..1000).map(|n| b.t.resolve_gateway(b.now, &b.s, P, ip(n), frame(1), &mut b.out)).collect();
    assert!(all[..GATEWAY_RESERVE].iter().all(|r| matches!(r, Resolution::Pending)));
    assert!(all[GATEWAY_RESERVE..].iter().all(|r| matches!(r, Resolution::Refused(..))));
    assert_eq!((b.t.len(), b.t.held()), (GATEWAY_RESERVE, GATEWAY_RESERVE));
    let mut b = Bed::new(NeighborSettings { max_pending: 0, ..NeighborSettings::default() });
    let found = b.t.resolve_gateway(b.now, &b.s, P, ip(9), frame(7), &mut b.out);
    assert!(matches!(found, Resolution::Refused(DropReason::NeighborQueueFull, Some(_))));
    assert!(matches!(b.take()[..], [NeighborEvent::Solicit { .. }]));
    b.input(9, reply());
    assert_eq!(b.state(9), Some(NudState::Reachable));
}

/// Proves rfc6583-7.2-queue.
#[test]
fn the_limit_of_all_waiting_frames() {
    let s = NeighborSettings { max_pending_total: 2, ..NeighborSettings::default() };
    let mut b = Bed::new(s);
    b.resolve(1, frame(1));
    b.resolve(1, frame(2));
    assert!(matches!(b.resolve(1, frame(3)), Resolution::Pending), "its own oldest makes room");
    assert!(matches!(b.resolve(2, frame(4)), Resolution::Refused(DropReason::HeldLimit, Some(_))));
    assert_eq!((b.t.held(), b.t.len()), (2, 1));
}

#[test]
fn large_buffers_do_not_wait() {
    let mut b = Bed::new(NeighborSettings::default());
    let mut f = Frame::with_capacity(65_536);
    f.set_data(&[1, 2, 3]);
    f.meta.port = PortId(4);
    b.resolve(1, Some(f));
    b.input(1, reply());
    let Some(NeighborEvent::Release { frames, .. }) = b.out.last() else { panic!("{:?}", b.out) };
    assert!(frames[0].capacity() < 100);
    assert_eq!((frames[0].data(), frames[0].meta.port), (&[1u8, 2, 3][..], PortId(4)));
}

fn spec(n: u16, mac: Option<MacAddr>, state: Option<NudState>) -> NeighSpec {
    NeighSpec { addr: ip(n), dev: "ignored".into(), lladdr: mac, state, router: false }
}

#[test]
fn edits_by_hand() {
    use SetMode::*;
    let mut b = Bed::new(NeighborSettings { max_entries: 0, ..NeighborSettings::default() });
    let other = MacAddr([2, 0, 0, 0, 0, 9]);
    let mut set = |s: &NeighSpec, mode| b.t.set(b.now, &b.s, P, s, mode, &mut b.out);
    assert_eq!(set(&spec(1, Some(MAC), None), Change), Err(NeighError::NotFound));
    assert_eq!(set(&spec(1, Some(MAC), None), Add), Ok(()));
    assert_eq!(set(&spec(1, Some(MAC), None), Add), Err(NeighError::Exists));
    assert_eq!(set(&spec(2, None, None), Replace), Err(NeighError::NoLladdr));
    assert_eq!(set(&spec(2, Some(MacAddr::BROADCAST), None), Replace), Err(NeighError::BadLladdr));
    assert_eq!(set(&spec(2, Some(MAC), Some(NudState::Failed)), Replace), Err(NeighError::BadState));
    let group = NeighSpec { addr: "ff02::1".parse().unwrap(), ..spec(2, Some(MAC), None) };
    assert_eq!(set(&group, Replace), Err(NeighError::BadAddress));
    // Permanent entries take no notice of messages and time.
    let changed = |e: &NeighborEvent| matches!(e, NeighborEvent::Changed { mac: Some(MAC), .. });
    assert!(matches!(&b.take()[..], [e] if changed(e)));
    b.input(1, Evidence::Source { mac: other, create: true });
    b.input(1, Evidence::Advert { mac: Some(other), solicited: true, replace: true, router: None });
    b.pass(Duration::from_secs(10_000));
    assert!(b.take().is_empty() && b.t.poll_at().is_none());
    // Another state keeps the address.
    b.t.set(b.now, &b.s, P, &spec(1, None, Some(NudState::Reachable)), Change, &mut b.out).unwrap();
    let shown = b.t.list();
    assert_eq!((shown.len(), shown[0].mac, shown[0].state), (1, Some(MAC), NudState::Reachable));
    let want = NeighSpec { dev: "lan0".into(), ..spec(1, Some(MAC), Some(NudState::Reachable)) };
    assert_eq!(shown[0].spec("lan0"), want);
    b.t.set(b.now, &b.s, P, &spec(1, Some(other), Some(NudState::Probe)), Replace, &mut b.out).unwrap();
    b.pass(Duration::from_millis(10));
    let events = b.take();
    assert!(matches!(events[0], NeighborEvent::Changed { mac: Some(m), .. } if m == other));
    assert!(matches!(events[1], NeighborEvent::Solicit { unicast: Some(m), .. } if m == other));
    assert_eq!(b.t.delete(P, ip(1), &mut b.out), Ok(()));
    assert_eq!(b.t.delete(P, ip(1), &mut b.out), Err(NeighError::NotFound));
    assert!(matches!(b.take()[..], [NeighborEvent::Changed { mac: None, .. }, NeighborEvent::Evicted { .. }]));
}

#[test]
fn a_static_entry_sends_those_who_wait() {
    let mut b = Bed::new(NeighborSettings::default());
    b.resolve(1, frame(7));
    b.take();
    b.t.set(b.now, &b.s, P, &spec(1, Some(MAC), None), SetMode::Replace, &mut b.out).unwrap();
    let events = b.take();
    assert!(matches!(&events[1], NeighborEvent::Release { frames, .. } if bytes(frames) == [7]));
    assert_eq!((b.t.held(), b.t.poll_at()), (0, None));
}

#[test]
fn flushing_a_port() {
    let mut b = Bed::new(NeighborSettings::default());
    b.t.set(b.now, &b.s, P, &spec(1, Some(MAC), None), SetMode::Add, &mut b.out).unwrap();
    b.resolve(2, frame(7));
    b.input(3, Evidence::Source { mac: MAC, create: true });
    b.t.resolve(b.now, &b.s, PortId(8), ip(2), frame(8), &mut b.out);
    b.take();
    b.t.flush_port(P, true, DropReason::PortDown, &mut b.out);
    assert_eq!((b.t.len(), b.t.held(), b.state(1)), (2, 1, Some(NudState::Permanent)));
    let dropped = b.take().into_iter().find_map(|e| match e {
        NeighborEvent::Dropped { reason, frame } => Some((reason, frame.data()[0])),
        _ => None,
    });
    assert_eq!(dropped, Some((DropReason::PortDown, 7)));
    b.t.flush_port(P, false, DropReason::PortGone, &mut b.out);
    assert_eq!(b.t.len(), 1);
}
