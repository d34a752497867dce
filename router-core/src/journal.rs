//! What changed, for whoever follows it: written only while somebody does, and never more than a bound.

use crate::neighbor::Neighbor;
use crate::next_hop::resilient::BucketInfo;
use crate::port::PortInfo;
use crate::router::TunnelInfo;
use crate::spec::{NextHopSpec, RouteInfo};
use std::sync::Arc;

/// Changes kept until they are taken. One command may change every route of a table; what is beyond this is only counted.
const BOUND: usize = 1 << 14;

/// Changes of one kind of thing, in order. Writing costs nothing but a look while nobody follows.
#[derive(Debug)]
pub struct Journal<T> {
    changes: Option<Vec<T>>,
    lost: u64,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Journal { changes: None, lost: 0 }
    }
}

impl<T> Journal<T> {
    /// Starts or stops writing.
    pub fn follow(&mut self, on: bool) {
        match (on, &self.changes) {
            (true, None) => self.changes = Some(Vec::new()),
            (true, Some(_)) => {}
            (false, _) => *self = Journal::default(),
        }
    }

    /// Whether anybody follows.
    pub fn is_on(&self) -> bool {
        self.changes.is_some()
    }

    /// Writes a change, if anybody follows.
    pub fn write(&mut self, change: T) {
        match &mut self.changes {
            Some(list) if list.len() < BOUND => list.push(change),
            Some(_) => self.lost += 1,
            None => {}
        }
    }

    /// A place to go back to.
    pub fn mark(&self) -> (usize, u64) {
        (self.changes.as_ref().map_or(0, Vec::len), self.lost)
    }

    /// Forgets what was written since the mark: it was taken back.
    pub fn rewind(&mut self, (len, lost): (usize, u64)) {
        if let Some(list) = &mut self.changes {
            list.truncate(len);
            self.lost = lost;
        }
    }

    /// Takes what was written, and how many changes found no room.
    pub fn take(&mut self) -> (Vec<T>, u64) {
        let list = self.changes.as_mut().map(std::mem::take).unwrap_or_default();
        (list, std::mem::take(&mut self.lost))
    }
}

/// What happened to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is new.
    Added,
    /// It was there and is different now.
    Changed,
    /// It is gone; it is shown as it was.
    Removed,
}

/// A thing that changed.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A port or tunnel, addresses aside.
    Port(Arc<PortInfo>),
    /// An address of this port.
    Address(Arc<PortInfo>, ipnet::IpNet),
    /// A neighbour: its state, its link-layer address.
    Neighbor(Neighbor),
    /// A next-hop object.
    NextHop(NextHopSpec),
    /// A bucket of a resilient group has another member.
    Bucket(BucketInfo),
    /// A route.
    Route(Box<RouteInfo>),
    /// A tunnel: whether a route carries it, its MTU, its parameters.
    Tunnel(Box<TunnelInfo>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_silent_unless_followed() {
        let mut j = Journal::default();
        j.write(1);
        assert_eq!(j.take(), (vec![], 0));
        j.follow(true);
        j.write(1);
        let mark = j.mark();
        j.write(2);
        j.rewind(mark);
        j.follow(true);
        assert_eq!(j.take(), (vec![1], 0));
        (0..BOUND as i32 + 5).for_each(|i| j.write(i));
        let (list, lost) = j.take();
        assert_eq!((list.len(), lost), (BOUND, 5));
        j.follow(false);
        j.write(1);
        assert_eq!(j.take(), (vec![], 0));
    }
}
