//! From changes in the router to events for those who follow.

use super::show;
use crate::control::{DropEvent, Event, Hub, Kind, TunnelEvent, TunnelInfo, What, now};
use router_core::journal::{Happened, Subject};
use router_io::runtime::{Control, RouterHandle, Watcher};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often dropped packets are counted for those who want to hear of them.
const LOOK: Duration = Duration::from_secs(1);

/// Hands the control thread's changes to the followers. When nobody follows any more, nothing is written down either.
pub(super) fn watcher(hub: Weak<Hub>) -> Watcher {
    Box::new(move |c, changes, lost| {
        let Some(hub) = hub.upgrade().filter(|h| h.is_followed()) else { return };
        let time = now();
        let events = changes.into_iter().filter_map(|(happened, subject)| {
            let deleted = happened == Happened::Removed;
            what(c, subject).map(|what| Event { time, deleted, what })
        });
        hub.tell(events.collect(), lost);
    })
}

fn what(c: &Control, subject: Subject) -> Option<What> {
    Some(match subject {
        Subject::Route(info) => What::Route(info),
        Subject::NextHop(n) => What::Nexthop(n),
        Subject::Bucket(b) => What::NexthopBucket(b),
        Subject::Neighbor(n) => {
            let port = c.router().ports().get(n.port)?;
            What::Neigh(show::neigh(c, &n, &port.name))
        }
        Subject::Port(p) => What::Link(Box::new(show::link(c, &p))),
        Subject::Address(p, addr) => {
            let mut link = show::link(c, &p);
            link.addrs = vec![addr];
            What::Address(Box::new(link))
        }
        Subject::Tunnel(t) => {
            let (mtu, carried) = (t.mtu, t.carried);
            let info = TunnelInfo { carried: None, mtu: None, ..super::show::tunnel(c, *t) };
            What::Tunnel(Box::new(TunnelEvent { info, mtu, carried }))
        }
    })
}

/// Tells followers once a second which packets were dropped, and ends the watching when the last one has gone. One thread
/// for all of them, only while there are any.
pub(super) fn watch_drops(hub: &Arc<Hub>, handle: &RouterHandle) {
    if !hub.start_looking() {
        return;
    }
    let (hub, handle) = (Arc::downgrade(hub), handle.clone());
    let looker = std::thread::Builder::new().name("control-drops".into());
    let weak = hub.clone();
    let spawned = looker.spawn(move || {
        let mut last: Option<BTreeMap<&'static str, u64>> = None;
        while let Some(hub) = weak.upgrade() {
            if hub.stop_looking_unless_followed() {
                // Whoever joins from here on starts another one.
                let _ = handle.call(move |c| {
                    if !hub.is_followed() {
                        c.watch(None);
                    }
                });
                return;
            }
            if hub.wants(Kind::Drops) {
                let Ok(dropped) = handle.call(|c| c.totals().dropped) else { return };
                let dropped: BTreeMap<&'static str, u64> = dropped.into_iter().collect();
                let since = |r: &str, n: u64| n - last.as_ref().map_or(n, |l| l.get(r).copied().unwrap_or(0)).min(n);
                let new: Vec<DropEvent> = dropped
                    .iter()
                    .map(|(r, n)| DropEvent { reason: (*r).to_owned(), new: since(r, *n), packets: *n })
                    .filter(|d| d.new > 0)
                    .collect();
                if !new.is_empty() {
                    hub.tell(vec![Event { time: now(), deleted: false, what: What::Drops(new) }], 0);
                }
                last = Some(dropped);
            } else {
                last = None;
            }
            drop(hub);
            std::thread::park_timeout(LOOK);
        }
    });
    if spawned.is_err()
        && let Some(hub) = hub.upgrade()
    {
        hub.stopped_looking();
    }
}
