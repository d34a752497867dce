//! Resilient groups (`ip nexthop ... type resilient`): a table of buckets that outlives changes of the group.
//!
//! A flow's hash picks a bucket, the bucket's member carries it. When members come, go, fail, return or change their weight,
//! as few buckets as possible move, and never one that carries traffic, as Linux does it (net/ipv4/nexthop.c):
//!
//! - each usable member *wants* a share of the buckets by its weight;
//! - buckets of members that are gone or unusable move at once, and no others with them;
//! - from members with more buckets than they want, those move that no packet has used for `idle_timer`; with
//!   `unbalanced_timer`, all that are too many, once the group has been out of balance for so long.
//!
//! So the loss of a member moves its flows only, and its return moves none that are alive. (A hash threshold, RFC 2992 3.1,
//! moves a quarter to a half of all flows on either.)

use super::activity::Activity;
use crate::spec::ResilientSpec;
use crate::time::{Duration, Instant};
use std::sync::Arc;

/// Unless said otherwise, as on Linux: in seconds.
pub(crate) const IDLE_TIMER: u32 = 120;
/// How long at least until buckets are looked through again.
const AT_LEAST: Duration = Duration::from_millis(500);

/// A member as the table sees it.
#[derive(Clone, Debug)]
struct Member {
    id: u32,
    weight: u16,
    /// A link leads there.
    linked: bool,
    /// Its neighbour answers, or was never asked.
    answers: bool,
    wants: u32,
    has: u32,
}

/// A bucket: whose, and since when.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    member: u32,
    /// None: since the next [`Resilient::upkeep`].
    since: Option<Instant>,
}

/// A bucket as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BucketInfo {
    /// The group.
    pub id: u32,
    /// Its place.
    pub index: u16,
    /// For how long no packet has taken it, in hundredths of a second.
    pub idle_time: u64,
    /// The next-hop object that has it.
    pub nhid: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Resilient {
    idle: Duration,
    unbalanced: Duration,
    members: Vec<Member>,
    buckets: Vec<Bucket>,
    activity: Arc<Activity>,
    /// Out of balance since then; None while it is not, or since the next upkeep.
    unbalanced_since: Option<Instant>,
    /// When to look again; None: when something changes.
    next: Option<Instant>,
    /// Something has changed since the last upkeep.
    due: bool,
}

fn seconds(n: u32) -> Duration {
    Duration::from_secs(u64::from(n))
}

impl Resilient {
    /// A table without members.
    pub(crate) fn new(spec: &ResilientSpec) -> Self {
        let n = usize::from(spec.buckets.unwrap_or(0));
        Resilient {
            idle: seconds(spec.idle_timer.unwrap_or(IDLE_TIMER)),
            unbalanced: seconds(spec.unbalanced_timer.unwrap_or(0)),
            members: Vec::new(),
            buckets: vec![Bucket { member: 0, since: None }; n],
            activity: Arc::new(Activity::new(n)),
            unbalanced_since: None,
            next: None,
            due: true,
        }
    }

    /// Changes the timers.
    pub(crate) fn set_timers(&mut self, spec: &ResilientSpec) {
        self.idle = seconds(spec.idle_timer.unwrap_or(IDLE_TIMER));
        self.unbalanced = seconds(spec.unbalanced_timer.unwrap_or(0));
        self.due = true;
    }

    /// Where workers note what they use.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whose each bucket is; 0: nobody's.
    pub(crate) fn owners(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().map(|b| b.member)
    }

    /// Sets who is in the group. What is known of members that stay, stays.
    pub(crate) fn set_members(&mut self, list: &[(u32, u16)]) {
        let old = std::mem::take(&mut self.members);
        self.members = list
            .iter()
            .map(|(id, weight)| {
                let was = old.iter().find(|m| m.id == *id);
                let (linked, answers) = was.map_or((true, true), |m| (m.linked, m.answers));
                Member { id: *id, weight: *weight, linked, answers, wants: 0, has: 0 }
            })
            .collect();
        self.rebalance();
    }

    /// Says of members whether a link leads there. True when buckets have moved.
    pub(crate) fn set_linked(&mut self, list: impl Iterator<Item = (u32, bool)>) -> bool {
        self.set_states(list, |m| &mut m.linked)
    }

    /// Says of members whether they answer. True when buckets have moved.
    pub(crate) fn set_answers(&mut self, list: impl Iterator<Item = (u32, bool)>) -> bool {
        self.set_states(list, |m| &mut m.answers)
    }

    fn set_states(&mut self, list: impl Iterator<Item = (u32, bool)>, state: fn(&mut Member) -> &mut bool) -> bool {
        let mut news = false;
        for (id, on) in list {
            if let Some(s) = self.members.iter_mut().find(|m| m.id == id).map(state) {
                news |= *s != on;
                *s = on;
            }
        }
        news && self.rebalance()
    }

    /// Shares out anew, and moves what has to move at once. True when something has.
    fn rebalance(&mut self) -> bool {
        self.due = true;
        // Silent members give way while another one works; if all are silent, all are tried.
        let both = |m: &Member| m.linked && m.answers;
        let linked = |m: &Member| m.linked;
        let alive: fn(&Member) -> bool = match self.members.iter().any(both) {
            true => both,
            false => linked,
        };
        let total: u64 = self.members.iter().filter(|m| alive(m)).map(|m| u64::from(m.weight)).sum();
        if total == 0 {
            // Nowhere to go: all stay, so that whoever returns first finds its flows.
            return false;
        }
        let n = self.buckets.len() as u64;
        let (mut sum, mut given) = (0, 0);
        for m in &mut self.members {
            sum += if alive(m) { u64::from(m.weight) } else { 0 };
            // Rounded to the closest, so that the shares add up.
            let bound = (n * sum + total / 2) / total;
            (m.wants, m.has) = ((bound - given) as u32, 0);
            given = bound;
        }
        let mut orphans = Vec::new();
        for (i, b) in self.buckets.iter().enumerate() {
            match self.members.iter_mut().find(|m| m.id == b.member && alive(m)) {
                Some(m) => m.has += 1,
                None => orphans.push(i),
            }
        }
        let moved = !orphans.is_empty();
        orphans.into_iter().for_each(|i| self.give_away(i));
        if self.is_balanced() {
            self.unbalanced_since = None;
        }
        moved
    }

    fn is_balanced(&self) -> bool {
        self.members.iter().all(|m| m.has == m.wants)
    }

    /// Gives a bucket that nobody counts as its own to the member furthest behind its share.
    fn give_away(&mut self, index: usize) {
        let behind = |m: &&mut Member| u64::from(m.wants.saturating_sub(m.has)) * 1_000_000 / u64::from(m.wants.max(1));
        // The first of equals, for the same result everywhere.
        let to = self.members.iter_mut().rev().max_by_key(behind).filter(|m| m.has < m.wants);
        if let (Some(to), Some(bucket)) = (to, self.buckets.get_mut(index)) {
            to.has += 1;
            *bucket = Bucket { member: to.id, since: None };
            self.activity.forget(index);
        }
    }

    /// Whether [`Resilient::upkeep`] has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due || self.next.is_some_and(|n| n <= now)
    }

    /// When it next may have.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        if self.due { Some(Instant::ZERO) } else { self.next }
    }

    /// Moves buckets whose time has come, and says which.
    pub(crate) fn upkeep(&mut self, now: Instant) -> Vec<u16> {
        self.due = false;
        self.next = None;
        self.buckets.iter_mut().for_each(|b| _ = b.since.get_or_insert(now));
        let mut moved = Vec::new();
        if self.is_balanced() {
            return moved;
        }
        let force_at = *self.unbalanced_since.get_or_insert(now) + self.unbalanced;
        let force = !self.unbalanced.is_zero() && now > force_at;
        let mut deadline = now + if self.unbalanced.is_zero() { self.idle } else { self.unbalanced };
        for i in 0..self.buckets.len() {
            let owner = self.buckets[i].member;
            let Some(m) = self.members.iter_mut().find(|m| m.id == owner && m.has > m.wants) else { continue };
            // Not used since it came here: idle, whatever the timer says.
            let left = self.activity.idle(i, now).map_or(Duration::ZERO, |d| self.idle.saturating_sub(d));
            if left.is_zero() || force {
                m.has -= 1;
                self.give_away(i);
                self.buckets[i].since = Some(now);
                moved.push(i as u16);
                continue;
            }
            deadline = deadline.min(now + left);
            if !self.unbalanced.is_zero() {
                deadline = deadline.min(force_at + Duration::from_nanos(1));
            }
        }
        match self.is_balanced() {
            true => self.unbalanced_since = None,
            false => self.next = Some(deadline.max(now + AT_LEAST)),
        }
        moved
    }

    /// For how long the group has been out of balance, in hundredths of a second.
    pub(crate) fn unbalanced_time(&self, now: Instant) -> u64 {
        self.unbalanced_since.map_or(0, |s| hundredths(now.saturating_since(s)))
    }

    /// A bucket as shown.
    pub(crate) fn info(&self, id: u32, index: u16, now: Instant) -> Option<BucketInfo> {
        let b = self.buckets.get(usize::from(index))?;
        let moved = now.saturating_since(b.since.unwrap_or(now));
        let idle = self.activity.idle(usize::from(index), now).map_or(moved, |d| d.min(moved));
        Some(BucketInfo { id, index, idle_time: hundredths(idle), nhid: b.member })
    }

    /// All buckets as shown.
    pub(crate) fn infos(&self, id: u32, now: Instant) -> impl Iterator<Item = BucketInfo> {
        (0..self.buckets.len()).filter_map(move |i| self.info(id, i as u16, now))
    }
}

fn hundredths(d: Duration) -> u64 {
    (d.as_millis() / 10) as u64
}

#[cfg(test)]
#[path = "resilient_tests.rs"]
mod tests;
