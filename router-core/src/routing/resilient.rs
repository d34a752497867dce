//! Resilient groups among the forwarding objects: one table of buckets per group, whatever number of routes (with MTUs or
//! sources of their own) go through it.

use super::facts::Facts;
use super::objects::{Def, Objects, is_failed};
use super::{RouteError, Routing};
use crate::drop_reason::DropReason;
use crate::journal::{Happened, Subject};
use crate::next_hop::PathKey;
use crate::next_hop::resilient::{BucketInfo, IDLE_TIMER, Resilient};
use crate::object::{Group, Object, ObjectId};
use crate::port::TableId;
use crate::resolve::Share;
use crate::spec::{NextHopKind, NextHopSpec, ResilientSpec, RouteKind};
use crate::time::Instant;
use std::collections::BTreeMap;

/// Tables by the group's number, with the objects that show them.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<u32, (Resilient, Vec<ObjectId>)>);

impl Groups {
    /// Enters an object as one of a group, or takes it out.
    pub(super) fn index(&mut self, group: u32, id: ObjectId, enter: bool) {
        let Some((_, users)) = self.0.get_mut(&group) else { return };
        match (enter, users.iter().position(|u| *u == id)) {
            (true, _) => users.push(id),
            (false, Some(at)) => _ = users.swap_remove(at),
            (false, None) => {}
        }
    }

    /// What the data plane sees of a group: `shares` and their objects are those of one route's path.
    pub(super) fn content(&self, group: u32, shares: &[(u32, Share)], members: &[ObjectId]) -> Object {
        let unusable = Object::Discard(DropReason::NextHopUnusable);
        let Some((table, _)) = self.0.get(&group) else { return unusable };
        let object = |(place, owner): (usize, u32)| {
            let of = |usable: bool| {
                let all = shares.iter().zip(members).filter(move |((id, s), _)| *id == owner && (s.usable || !usable));
                // Nearly always one; a gateway behind a VRF may have several.
                let total: u64 = all.clone().map(|((_, s), _)| s.weight).sum();
                let mut left = (place as u64).checked_rem(total)?;
                all.clone().find(|((_, s), _)| {
                    let here = left < s.weight;
                    left = left.saturating_sub(s.weight);
                    here
                })
            };
            of(true).or_else(|| of(false)).map_or(ObjectId::NO_ROUTE, |(_, id)| *id)
        };
        let buckets: Vec<ObjectId> = table.owners().enumerate().map(object).collect();
        match buckets.is_empty() {
            true => unusable,
            false => Object::Group(Group { buckets: buckets.into(), activity: Some(table.activity().clone()) }),
        }
    }
}

/// By member, whether something is so of one of its shares.
fn by_member<'s>(
    shares: &'s [(u32, Share)],
    is: impl Fn(&Share) -> bool + 's,
) -> impl Iterator<Item = (u32, bool)> + 's {
    let first = |i: usize| shares[..i].iter().all(|(id, _)| *id != shares[i].0);
    (0..shares.len()).filter(move |i| first(*i)).map(move |i| {
        let id = shares[i].0;
        (id, shares.iter().any(|(other, s)| *other == id && is(s)))
    })
}

impl Objects {
    /// An object's definition is fresh from resolution: where links lead now decides.
    pub(super) fn note_links(&mut self, id: ObjectId, facts: &Facts) {
        self.note(id, facts, |shares, table, _| table.set_linked(by_member(shares, |s| s.usable)));
    }

    /// A link or a neighbour may have changed since.
    pub(super) fn note_answers(&mut self, id: ObjectId, facts: &Facts) {
        self.note(id, facts, |shares, table, facts| {
            table.set_answers(by_member(shares, |s| facts.carries(s.leaf.port) && !is_failed(&s.leaf, facts)))
        });
    }

    fn note(&mut self, id: ObjectId, facts: &Facts, change: impl Fn(&[(u32, Share)], &mut Resilient, &Facts) -> bool) {
        let Some(Def::Resilient(group, shares)) = self.def(id) else { return };
        let (group, shares) = (*group, shares.clone());
        let Some((table, _)) = self.resilient.0.get_mut(&group) else { return };
        if change(&shares, table, facts) {
            self.render_group(group, facts);
        }
    }

    /// Renders all objects of a group.
    fn render_group(&mut self, group: u32, facts: &Facts) {
        let users = self.resilient.0.get(&group).map(|(_, users)| users.clone()).unwrap_or_default();
        users.into_iter().for_each(|id| self.render_content(id, facts));
    }
}

impl Routing {
    /// Whether a group may be set as said.
    pub(super) fn check_resilient(&self, spec: &NextHopSpec) -> Result<(), RouteError> {
        let there = self.facts.next_hops.get(&spec.id).filter(|n| matches!(n.kind, NextHopKind::Group(_)));
        match (&spec.resilient, there.map(|n| &n.resilient)) {
            (Some(_), _) if !matches!(spec.kind, NextHopKind::Group(_)) => {
                Err(RouteError::Invalid("only groups are resilient"))
            }
            (Some(new), _) if new.buckets == Some(0) => Err(RouteError::Group("Number of buckets needs to be non-0")),
            (Some(new), None) if new.buckets.is_none() => Err(RouteError::BucketsNeeded),
            (Some(new), Some(Some(old))) if new.buckets.is_some_and(|n| Some(n) != old.buckets) => {
                Err(RouteError::Group("Can not change number of buckets of a resilient nexthop group"))
            }
            (Some(_), Some(None)) | (None, Some(Some(_))) => {
                Err(RouteError::Group("Can not replace a nexthop group with one of a different type"))
            }
            _ => Ok(()),
        }
    }

    /// Fills in what was not said: as before, or the defaults.
    pub(super) fn complete_resilient(&self, spec: &mut NextHopSpec) {
        let Some(new) = &mut spec.resilient else { return };
        let old = self.facts.next_hops.get(&spec.id).and_then(|n| n.resilient.clone()).unwrap_or_default();
        *new = ResilientSpec {
            buckets: new.buckets.or(old.buckets),
            idle_timer: new.idle_timer.or(old.idle_timer).or(Some(IDLE_TIMER)),
            unbalanced_timer: new.unbalanced_timer.or(old.unbalanced_timer).or(Some(0)),
            unbalanced_time: None,
        };
    }

    /// A next-hop object was added, changed or removed: its table of buckets follows. Before the objects do.
    pub(super) fn sync_resilient(&mut self, id: u32) {
        let wanted = self.facts.next_hops.get(&id).and_then(|n| match (&n.kind, &n.resilient) {
            (NextHopKind::Group(members), Some(spec)) => Some((members.clone(), spec.clone())),
            _ => None,
        });
        let Some((members, spec)) = wanted else { return };
        let new = !self.objects.resilient.0.contains_key(&id);
        let (table, _) = self.objects.resilient.0.entry(id).or_insert_with(|| (Resilient::new(&spec), Vec::new()));
        table.set_timers(&spec);
        table.set_members(&members);
        if new {
            // A path of its own keeps it up to date while no route goes through it.
            let path = self.intern_path(bare(id));
            self.hold_path(path);
        }
    }

    /// A resilient group is gone, after its routes.
    pub(super) fn drop_resilient(&mut self, id: u32) {
        if !self.objects.resilient.0.contains_key(&id) {
            return;
        }
        if let Some(path) = self.path_ids.get(&bare(id)).copied() {
            self.release_path(path);
        }
        self.objects.resilient.0.remove(&id);
    }

    /// Moves buckets of resilient groups whose time has come. Says when the next may have: call again then, and after each
    /// change. Follow with a commit.
    pub fn poll_buckets(&mut self, now: Instant) -> Option<Instant> {
        let Routing { objects, facts, journal, .. } = self;
        let due: Vec<u32> = objects.resilient.0.iter().filter(|(_, (t, _))| t.is_due(now)).map(|(id, _)| *id).collect();
        for id in due {
            let Some((table, _)) = objects.resilient.0.get_mut(&id) else { continue };
            let moved = table.upkeep(now);
            for index in &moved {
                if let Some(info) = table.info(id, *index, now) {
                    journal.write((Happened::Changed, Subject::Bucket(info)));
                }
            }
            if !moved.is_empty() {
                objects.render_group(id, facts);
            }
        }
        self.objects.resilient.0.values().filter_map(|(t, _)| t.poll_at()).min()
    }

    /// The buckets of all resilient groups, or of one.
    pub fn buckets(&self, group: Option<u32>, now: Instant) -> impl Iterator<Item = BucketInfo> + '_ {
        let groups = self.objects.resilient.0.iter().filter(move |(id, _)| group.is_none_or(|g| g == **id));
        groups.flat_map(move |(id, (table, _))| table.infos(*id, now))
    }

    /// A next-hop object as shown at this moment.
    pub fn next_hop_shown(&self, spec: &NextHopSpec, now: Instant) -> NextHopSpec {
        let mut spec = spec.clone();
        if let (Some(r), Some((table, _))) = (&mut spec.resilient, self.objects.resilient.0.get(&spec.id)) {
            r.unbalanced_time = Some(table.unbalanced_time(now));
        }
        spec
    }
}

/// The path of a route that says nothing but the group.
fn bare(id: u32) -> PathKey {
    PathKey {
        kind: RouteKind::Unicast,
        domain: TableId::MAIN,
        hops: Vec::new(),
        nhid: Some(id),
        mtu: 0,
        mss: 0,
        src: None,
        forwarder: None,
    }
}
