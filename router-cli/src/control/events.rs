//! What happens in a router, as its followers hear it: events, their selection, and the bounded queue in front of each
//! follower, so that a slow one loses events instead of holding up the router.

use super::{LinkInfo, NeighInfo, TunnelInfo};
use router_core::routing::BucketInfo;
use router_core::spec::{NextHopSpec, RouteInfo};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Events that wait for a follower; further ones are only counted.
const QUEUE: usize = 8192;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub time: u64,
    /// The thing is gone; it is shown as it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// What it is about.
    #[serde(flatten)]
    pub what: What,
}

/// What an event is about: the thing as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A route.
    Route(Box<RouteInfo>),
    /// A next-hop object.
    Nexthop(NextHopSpec),
    /// A bucket of a resilient group has another member.
    NexthopBucket(BucketInfo),
    /// A neighbour.
    Neigh(NeighInfo),
    /// A port or tunnel.
    Link(Box<LinkInfo>),
    /// An address: its port, with this address alone.
    Address(Box<LinkInfo>),
    /// A tunnel: its parameters, whether a route carries it, its MTU.
    Tunnel(Box<TunnelEvent>),
    /// Packets were dropped since the last look.
    Drops(Vec<DropEvent>),
    /// So many events were lost here, because the follower was too slow or too much happened at once.
    Lost(u64),
}

/// See [`What::Tunnel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelEvent {
    /// The tunnel.
    #[serde(flatten)]
    pub info: TunnelInfo,
    /// Inner MTU in force, in bytes.
    pub mtu: u32,
    /// A route carries it.
    pub carried: bool,
}

/// See [`What::Drops`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// The reason.
    pub reason: String,
    /// Packets since the last look.
    pub new: u64,
    /// Packets since the start.
    pub packets: u64,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Routes.
    Route,
    /// Next-hop objects.
    Nexthop,
    /// Neighbours.
    Neigh,
    /// Ports and tunnels as ports.
    Link,
    /// Addresses.
    Address,
    /// Tunnels.
    Tunnel,
    /// Dropped packets.
    Drops,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Route, Kind::Nexthop, Kind::Neigh, Kind::Link, Kind::Address, Kind::Tunnel, Kind::Drops];
}

impl What {
    /// Its kind; None: an event that everybody hears.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            What::Route(_) => Kind::Route,
            What::Nexthop(_) | What::NexthopBucket(_) => Kind::Nexthop,
            What::Neigh(_) => Kind::Neigh,
            What::Link(_) => Kind::Link,
            What::Address(_) => Kind::Address,
            What::Tunnel(_) => Kind::Tunnel,
            What::Drops(_) => Kind::Drops,
            What::Lost(_) => return None,
        })
    }
}

/// What a follower wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSelect {
    /// These kinds; none means all.
    pub kinds: Vec<Kind>,
}

impl MonitorSelect {
    /// Whether an event of this kind is wanted.
    pub fn wants(&self, kind: Option<Kind>) -> bool {
        self.kinds.is_empty() || kind.is_none_or(|k| self.kinds.contains(&k))
    }
}

/// A follower's end: events wait here until it takes them.
#[derive(Debug)]
pub struct Follower {
    select: MonitorSelect,
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    lost: u64,
    closed: bool,
}

impl Follower {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it wants to hear.
    pub fn select(&self) -> &MonitorSelect {
        &self.select
    }

    /// Puts an event into the queue, or counts it as lost. Never waits for the follower.
    pub fn offer(&self, event: &Arc<Event>) {
        if !self.select.wants(event.what.kind()) {
            return;
        }
        let mut q = self.lock();
        if q.events.len() < QUEUE {
            q.events.push_back(Arc::clone(event));
        } else {
            q.lost += 1;
        }
        drop(q);
        self.news.notify_one();
    }

    /// Counts events as lost that never came here.
    pub fn lose(&self, n: u64) {
        self.lock().lost += n;
        self.news.notify_one();
    }

    /// Up to `most` events, waiting up to `time` for the first one; then what was lost, as an event of its own behind those
    /// that came before. None: nothing will ever come again.
    pub fn take(&self, most: usize, time: Duration) -> Option<Vec<Arc<Event>>> {
        let until = Instant::now() + time;
        let mut q = self.lock();
        while q.events.is_empty() && q.lost == 0 {
            let left = until.saturating_duration_since(Instant::now());
            if q.closed {
                return None;
            }
            if left.is_zero() {
                return Some(Vec::new());
            }
            q = self.news.wait_timeout(q, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let n = q.events.len().min(most);
        let mut out: Vec<Arc<Event>> = q.events.drain(..n).collect();
        if q.events.is_empty() && q.lost > 0 {
            let lost = std::mem::take(&mut q.lost);
            out.push(Arc::new(Event { time: now(), deleted: false, what: What::Lost(lost) }));
        }
        Some(out)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }
}

/// Now, in microseconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// All followers of a router.
#[derive(Debug, Default)]
pub struct Hub {
    followers: Mutex<Vec<Weak<Follower>>>,
    /// A thread looks at counters for them.
    looking: AtomicBool,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Follower>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new follower; it leaves by being dropped. The second value: it is the first one.
    pub fn join(&self, select: MonitorSelect) -> (Arc<Follower>, bool) {
        let follower = Arc::new(Follower { select, queue: Mutex::default(), news: Condvar::new() });
        let mut list = self.lock();
        list.retain(|f| f.strong_count() > 0);
        let first = list.is_empty();
        list.push(Arc::downgrade(&follower));
        (follower, first)
    }

    /// Whether somebody follows.
    pub fn is_followed(&self) -> bool {
        let mut list = self.lock();
        list.retain(|f| f.strong_count() > 0);
        !list.is_empty()
    }

    /// Says that a thread is to look at counters; false: one does already.
    pub(crate) fn start_looking(&self) -> bool {
        let _list = self.lock();
        !self.looking.swap(true, Ordering::AcqRel)
    }

    /// If nobody follows any more, says that the thread ends.
    pub(crate) fn stop_looking_unless_followed(&self) -> bool {
        let mut list = self.lock();
        list.retain(|f| f.strong_count() > 0);
        if list.is_empty() {
            self.looking.store(false, Ordering::Release);
        }
        list.is_empty()
    }

    /// The thread could not be started.
    pub(crate) fn stopped_looking(&self) {
        self.looking.store(false, Ordering::Release);
    }

    /// Whether somebody wants events of this kind.
    pub fn wants(&self, kind: Kind) -> bool {
        self.all().iter().any(|f| f.select.wants(Some(kind)))
    }

    /// Everybody who follows now.
    pub fn all(&self) -> Vec<Arc<Follower>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Offers events to all.
    pub fn tell(&self, events: Vec<Event>, lost: u64) {
        let all = self.all();
        for event in events {
            let event = Arc::new(event);
            all.iter().for_each(|f| f.offer(&event));
        }
        if lost > 0 {
            all.iter().for_each(|f| f.lose(lost));
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.all().iter().for_each(|f| f.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        let drops = DropEvent { reason: "x".into(), new: n, packets: n };
        Event { time: n, deleted: false, what: What::Drops(vec![drops]) }
    }

    #[test]
    fn a_follower_that_does_not_take_loses_and_hears_how_many() {
        let hub = Hub::default();
        let (slow, first) = hub.join(MonitorSelect::default());
        assert!(first);
        let (deaf, first) = hub.join(MonitorSelect { kinds: vec![Kind::Route] });
        assert!(!first);
        hub.tell((0..QUEUE as u64 + 10).map(event).collect(), 3);
        let mut got = Vec::new();
        loop {
            let some = slow.take(1000, Duration::ZERO).unwrap();
            if some.is_empty() {
                break;
            }
            got.extend(some);
        }
        assert_eq!(got.len(), QUEUE + 1);
        assert!(got[..QUEUE].iter().enumerate().all(|(i, e)| e.time == i as u64));
        assert_eq!(got[QUEUE].what, What::Lost(13));
        // What it does not want to hear is not lost for it; what nobody could keep is.
        assert_eq!(deaf.take(10, Duration::ZERO).unwrap()[0].what, What::Lost(3));
        drop(slow);
        assert!(hub.is_followed());
        drop(deaf);
        assert!(!hub.is_followed());
    }

    #[test]
    fn it_ends_with_the_router() {
        let hub = Hub::default();
        let (follower, _) = hub.join(MonitorSelect::default());
        hub.tell(vec![event(1)], 0);
        drop(hub);
        assert_eq!(follower.take(10, Duration::ZERO).map(|e| e.len()), Some(1));
        assert_eq!(follower.take(10, Duration::from_secs(60)), None);
    }

    #[test]
    fn as_json() {
        let text = serde_json::to_string(&event(5)).unwrap();
        assert_eq!(text, r#"{"time":5,"drops":[{"reason":"x","new":5,"packets":5}]}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event(5));
    }
}
