//! Random events on a fake clock: frames are accounted for, bounds hold, permanent entries stay, time moves forward, and
//! what was told about link-layer addresses is what the table says.

use super::*;
use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::port::PortId;
use crate::settings::NeighborSettings;
use crate::spec::{NeighSpec, NudState};
use crate::time::{Duration, Instant};
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PERMANENT: MacAddr = MacAddr([2, 9, 9, 9, 9, 9]);

#[derive(Clone, Debug)]
enum Event {
    Packet(u8),
    Source(u8, u8, bool),
    Advert(u8, Option<u8>, bool, bool),
    Confirm(u8),
    Touch(u8),
    Set(u8, u8, NudState),
    Delete(u8),
    Flush(bool),
    Pass(u32),
    /// Poll late, as a busy control thread would.
    Jump(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0u8..12;
    let mac = 1u8..4;
    prop_oneof![
        5 => n.clone().prop_map(Event::Packet),
        2 => (n.clone(), mac.clone(), any::<bool>()).prop_map(|(n, m, c)| Event::Source(n, m, c)),
        3 => (n.clone(), proptest::option::of(mac.clone()), any::<bool>(), any::<bool>())
            .prop_map(|(n, m, s, o)| Event::Advert(n, m, s, o)),
        1 => n.clone().prop_map(Event::Confirm),
        2 => n.clone().prop_map(Event::Touch),
        1 => (n.clone(), mac, prop_oneof![
            Just(NudState::Reachable), Just(NudState::Stale), Just(NudState::Delay), Just(NudState::Probe),
            Just(NudState::Permanent), Just(NudState::NoArp), Just(NudState::Failed),
        ]).prop_map(|(n, m, s)| Event::Set(n, m, s)),
        1 => n.prop_map(Event::Delete),
        1 => any::<bool>().prop_map(Event::Flush),
        4 => (0u32..20_000).prop_map(Event::Pass),
        1 => (0u32..700_000).prop_map(Event::Jump),
    ]
}

fn settings() -> NeighborSettings {
    NeighborSettings {
        max_pending: 3,
        max_pending_total: 8,
        max_entries: 6,
        max_incomplete: 4,
        ..NeighborSettings::default()
    }
}

/// What a listener of the events believes.
#[derive(Default)]
struct Listener {
    macs: HashMap<IpAddr, (MacAddr, Arc<AtomicBool>)>,
    entered: usize,
    left: usize,
    next: u32,
}

impl Listener {
    fn hear(&mut self, events: Vec<NeighborEvent>) -> Result<(), TestCaseError> {
        for e in events {
            match e {
                NeighborEvent::Solicit { target, unicast, .. } => {
                    // Only those whose address was told are asked alone, and only at it.
                    prop_assert!(unicast.is_none() || unicast == self.macs.get(&target).map(|m| m.0));
                }
                NeighborEvent::Changed { addr, mac, used, .. } => match mac {
                    Some(mac) => {
                        let before = self.macs.insert(addr, (mac, Arc::clone(&used)));
                        prop_assert!(before.is_none_or(|b| b.0 != mac && Arc::ptr_eq(&b.1, &used)));
                    }
                    None => prop_assert!(self.macs.remove(&addr).is_some()),
                },
                NeighborEvent::Release { addr, mac, frames, .. } => {
                    prop_assert_eq!(self.macs.get(&addr).map(|m| m.0), Some(mac), "told before");
                    let order: Vec<_> = frames.iter().map(|f| f.data().to_vec()).collect();
                    prop_assert!(order.is_sorted() && !frames.is_empty());
                    self.left += frames.len();
                }
                NeighborEvent::Failed { frames, .. } => self.left += frames.len(),
                NeighborEvent::Dropped { .. } => self.left += 1,
                NeighborEvent::Evicted { addr, .. } => prop_assert!(!self.macs.contains_key(&addr)),
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn random_events(events in proptest::collection::vec(event(), 0..150)) {
        let (s, port) = (settings(), PortId(1));
        let mut t = NeighborTable::new(3);
        let mut l = Listener::default();
        let mut now = Instant::from_millis(1);
        let mut out = Vec::new();
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mac = |m: u8| MacAddr([2, 0, 0, 0, 0, m]);
        // One of them is permanent and must stay so, whatever happens.
        let permanent = ip(200);
        let spec = NeighSpec { addr: permanent, dev: String::new(), lladdr: Some(PERMANENT), state: None, router: false };
        t.set(now, &s, port, &spec, SetMode::Add, &mut out).unwrap();
        for e in events {
            match e {
                Event::Packet(n) => {
                    l.next += 1;
                    l.entered += 1;
                    let known = l.macs.get(&ip(n)).map(|m| m.0);
                    match t.resolve(now, &s, port, ip(n), Some(Frame::from_slice(&l.next.to_be_bytes())), &mut out) {
                        Resolution::Known(m, Some(_)) => { prop_assert_eq!(Some(m), known); l.left += 1; }
                        Resolution::Pending => prop_assert!(known.is_none()),
                        Resolution::Refused(_, Some(_)) => { prop_assert!(known.is_none()); l.left += 1; }
                        other => prop_assert!(false, "lost a frame: {other:?}"),
                    }
                }
                Event::Source(n, m, create) => {
                    t.input(now, &s, port, ip(n), Evidence::Source { mac: mac(m), create }, &mut out);
                    t.input(now, &s, port, permanent, Evidence::Source { mac: mac(m), create }, &mut out);
                }
                Event::Advert(n, m, solicited, replace) => {
                    let e = Evidence::Advert { mac: m.map(mac), solicited, replace, router: None };
                    t.input(now, &s, port, ip(n), e, &mut out);
                    t.input(now, &s, port, permanent, e, &mut out);
                }
                Event::Confirm(n) => t.confirm(now, &s, port, ip(n), &mut out),
                Event::Touch(n) => if let Some((_, used)) = l.macs.get(&ip(n)) { used.store(true, Relaxed) },
                Event::Set(n, m, state) => {
                    let spec = NeighSpec { addr: ip(n), lladdr: Some(mac(m)), state: Some(state), ..spec.clone() };
                    let _ = t.set(now, &s, port, &spec, SetMode::Replace, &mut out);
                }
                Event::Delete(n) => { let _ = t.delete(port, ip(n), &mut out); }
                Event::Flush(all) => {
                    t.flush_port(if all { port } else { PortId(2) }, true, DropReason::PortDown, &mut out);
                }
                Event::Pass(ms) => {
                    let end = now + Duration::from_millis(u64::from(ms));
                    while let Some(at) = t.poll_at().filter(|at| *at <= end) {
                        prop_assert!(at >= now, "no deadline is forgotten");
                        now = at;
                        t.poll(now, &s, &mut out);
                        prop_assert!(t.poll_at().is_none_or(|next| next > now), "deadlines move forward");
                        l.hear(std::mem::take(&mut out))?;
                    }
                    now = end;
                }
                Event::Jump(ms) => {
                    now = now + Duration::from_millis(u64::from(ms));
                    t.poll(now, &s, &mut out);
                    prop_assert!(t.poll_at().is_none_or(|next| next > now));
                }
            }
            l.hear(std::mem::take(&mut out))?;
            prop_assert_eq!(l.entered, l.left + t.held());
            let list = t.list();
            prop_assert_eq!(list.iter().map(|n| n.pending).sum::<usize>(), t.held());
            prop_assert!(t.held() <= s.max_pending_total && list.iter().all(|n| n.pending <= s.max_pending));
            let count = |f: &dyn Fn(NudState) -> bool| list.iter().filter(|n| f(n.state)).count();
            prop_assert!(count(&|st| st == NudState::Incomplete) <= s.max_incomplete);
            for n in &list {
                prop_assert_eq!(l.macs.get(&n.addr).map(|m| m.0), n.mac);
                prop_assert_eq!(n.mac.is_none(), matches!(n.state, NudState::Incomplete | NudState::Failed));
                prop_assert!(n.mac.is_none() || n.pending == 0);
            }
            prop_assert_eq!(l.macs.len(), list.iter().filter(|n| n.mac.is_some()).count());
            let p = t.get(port, permanent);
            prop_assert!(p.is_some_and(|p| p.mac == Some(PERMANENT) && p.state == NudState::Permanent));
        }
    }

    /// Proves rfc6583-7.4-gleaning.
    #[test]
    fn strangers_cannot_fill_it(events in proptest::collection::vec((any::<u16>(), any::<bool>(), 0u32..3000), 0..300)) {
        let (s, port) = (settings(), PortId(1));
        let mut t = NeighborTable::new(3);
        let (mut now, mut out) = (Instant::from_millis(1), Vec::new());
        for (n, packet, ms) in events {
            now = now + Duration::from_millis(u64::from(ms));
            t.poll(now, &s, &mut out);
            let addr = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            if packet {
                t.resolve(now, &s, port, addr, Some(Frame::from_slice(&[1])), &mut out);
            } else {
                t.input(now, &s, port, addr, Evidence::Source { mac: MacAddr([2; 6]), create: true }, &mut out);
            }
            prop_assert!(t.len() <= s.max_entries && t.held() <= s.max_pending_total);
        }
    }
}
