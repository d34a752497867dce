use super::*;
use crate::next_hop::activity::tick;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TICK: u64 = 1 << 24;

fn spec(buckets: u16, idle_timer: u32, unbalanced_timer: u32) -> ResilientSpec {
    ResilientSpec {
        buckets: Some(buckets),
        idle_timer: Some(idle_timer),
        unbalanced_timer: Some(unbalanced_timer),
        ..ResilientSpec::default()
    }
}

fn owners(r: &Resilient) -> Vec<u32> {
    r.owners().collect()
}

fn count(r: &Resilient, id: u32) -> usize {
    r.owners().filter(|o| *o == id).count()
}

fn moved(a: &[u32], b: &[u32]) -> Vec<usize> {
    (0..a.len()).filter(|i| a[*i] != b[*i]).collect()
}

#[test]
fn a_loss_moves_its_own_buckets_and_a_return_only_idle_ones() {
    let mut now = Instant::from_millis(1000);
    let mut r = Resilient::new(&spec(64, 10, 0));
    r.set_members(&[(1, 1), (2, 1), (3, 2)]);
    assert!(r.upkeep(now).is_empty());
    assert_eq!([1, 2, 3].map(|id| count(&r, id)), [16, 16, 32]);
    let before = owners(&r);
    // All carry traffic.
    (0..64).for_each(|b| r.activity().touch(0, b, tick(now)));
    assert!(r.set_linked([(2, false)].into_iter()));
    let after = owners(&r);
    assert!(moved(&before, &after).iter().all(|i| before[*i] == 2));
    assert_eq!([1, 2, 3].map(|id| count(&r, id)), [21, 0, 43]);
    assert!(r.upkeep(now).is_empty());
    // It is back, and all but four buckets carry traffic: those four move, and what moved to others and was never used.
    (0..64).for_each(|b| r.activity().touch(3, b, tick(now)));
    assert!(!r.set_linked([(2, true)].into_iter()), "nothing has to move at once");
    assert!(r.upkeep(now).is_empty());
    now = now + Duration::from_secs(9);
    let busy = |r: &Resilient, now| (4..64).for_each(|b| r.activity().touch(0, b, tick(now)));
    busy(&r, now);
    assert!(r.upkeep(now).is_empty(), "nine seconds are not ten");
    assert_eq!(r.unbalanced_time(now), 900);
    now = now + Duration::from_secs(2);
    busy(&r, now);
    assert!(r.is_due(now));
    let list = r.upkeep(now);
    assert!(!list.is_empty() && list.iter().all(|b| *b < 4), "{list:?}");
    assert_eq!(count(&r, 2), list.len());
    // A forced move, once the group was out of balance for too long.
    r.set_timers(&spec(64, 10, 30));
    now = now + Duration::from_secs(18);
    busy(&r, now);
    r.upkeep(now);
    assert_eq!(count(&r, 2), list.len());
    now = now + Duration::from_secs(2);
    busy(&r, now);
    r.upkeep(now);
    assert_eq!([1, 2, 3].map(|id| count(&r, id)), [16, 16, 32]);
    assert_eq!((r.unbalanced_time(now), r.poll_at()), (0, None));
}

#[test]
fn without_anybody_nothing_moves_and_silent_members_are_tried_if_all_are() {
    let now = Instant::from_millis(5);
    let mut r = Resilient::new(&spec(8, 1, 0));
    r.set_members(&[(1, 1), (2, 1)]);
    r.upkeep(now);
    assert!(r.set_answers([(1, false)].into_iter()));
    assert_eq!(count(&r, 2), 8);
    assert!(!r.set_answers([(2, false)].into_iter()), "all are silent: those of the first are given back when idle");
    r.upkeep(now);
    assert_eq!(count(&r, 1), 4);
    let before = owners(&r);
    r.set_linked([(1, false), (2, false)].into_iter());
    r.upkeep(now);
    assert_eq!(owners(&r), before);
    r.set_members(&[]);
    assert_eq!(owners(&r), before);
}

#[test]
fn shares_follow_weights_and_shown_times() {
    let now = Instant::from_millis(60_000);
    let mut r = Resilient::new(&spec(10, 120, 0));
    r.set_members(&[(1, 1), (2, 255), (3, 1)]);
    r.upkeep(now);
    assert_eq!([1, 2, 3].map(|id| count(&r, id)), [0, 10, 0], "shares below half a bucket get none");
    r.activity().touch(0, 3, tick(now));
    let later = now + Duration::from_secs(7);
    let shown: Vec<_> = r.infos(77, later).collect();
    assert_eq!(shown[0], BucketInfo { id: 77, index: 0, idle_time: 700, nhid: 2 });
    assert!((690..700).contains(&shown[3].idle_time), "{:?}", shown[3]);
}

/// The same rules, written down as plainly as possible, with whole ticks for time.
#[derive(Default)]
struct Model {
    members: BTreeMap<u32, (u16, bool)>,
    order: Vec<u32>,
    /// Member, and the tick of the last use since it came there.
    buckets: Vec<(u32, Option<u64>)>,
    unbalanced_since: Option<u64>,
}

impl Model {
    fn wants(&self) -> BTreeMap<u32, i64> {
        let alive: Vec<u32> = self.order.iter().copied().filter(|id| self.members[id].1).collect();
        let weight = |id: &u32| i64::from(self.members[id].0);
        let total: i64 = alive.iter().map(weight).sum();
        let n = self.buckets.len() as i64;
        let bound = |k: usize| (2 * n * alive[..k].iter().map(weight).sum::<i64>() + total) / (2 * total);
        alive.iter().enumerate().map(|(k, id)| (*id, bound(k + 1) - bound(k))).collect()
    }

    fn has(&self, id: u32) -> i64 {
        self.buckets.iter().filter(|b| b.0 == id).count() as i64
    }

    fn balanced(&self) -> bool {
        self.wants().iter().all(|(id, n)| self.has(*id) == *n)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Weight(u32, u16),
    Remove(u32),
    Up(u32, bool),
    Use(Vec<u16>),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let one = prop_oneof![
        (1u32..6, 1u16..20).prop_map(|(id, w)| Op::Weight(id, w)),
        (1u32..6).prop_map(Op::Remove),
        (1u32..6, any::<bool>()).prop_map(|(id, up)| Op::Up(id, up)),
        prop::collection::vec(0u16..40, 0..40).prop_map(Op::Use),
        (0u64..400).prop_map(Op::Wait),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Every step of the table is one that the rules allow, and every move that they ask for is made.
    #[test]
    fn keeps_the_rules(ops in ops(), n in 1u16..40, idle in 1u32..5, unbalanced in prop_oneof![Just(0u32), 1u32..9]) {
        let mut ticks = 1000u64;
        let at = |t: u64| Instant::from_nanos(t * TICK);
        let in_ticks = |s: u32| u64::from(s) * 1_000_000_000;
        let mut real = Resilient::new(&spec(n, idle, unbalanced));
        let mut model = Model { buckets: vec![(0, None); usize::from(n)], ..Model::default() };
        for op in ops {
            match &op {
                Op::Weight(id, w) => {
                    let up = model.members.get(id).is_none_or(|m| m.1);
                    if model.members.insert(*id, (*w, up)).is_none() {
                        model.order.push(*id);
                    }
                }
                Op::Remove(id) => {
                    model.members.remove(id);
                    model.order.retain(|i| i != id);
                }
                Op::Up(id, up) => {
                    if let Some(m) = model.members.get_mut(id) {
                        m.1 = *up;
                    }
                }
                Op::Use(list) => {
                    for b in list.iter().filter(|b| **b < n) {
                        real.activity().touch(usize::from(*b), usize::from(*b), tick(at(ticks)));
                        model.buckets[usize::from(*b)].1 = Some(ticks);
                    }
                }
                Op::Wait(t) => ticks += t,
            }
            let before = owners(&real);
            match &op {
                Op::Weight(..) | Op::Remove(_) => {
                    let list: Vec<_> = model.order.iter().map(|id| (*id, model.members[id].0)).collect();
                    real.set_members(&list);
                }
                Op::Up(id, up) => _ = real.set_linked([(*id, *up)].into_iter()),
                Op::Use(_) | Op::Wait(_) => {}
            }
            let anybody = model.members.values().any(|m| m.1);
            let after = owners(&real);
            for i in 0..before.len() {
                let homeless = !model.members.get(&before[i]).is_some_and(|m| m.1);
                prop_assert_eq!(before[i] != after[i], homeless && anybody, "{}: {:?}", i, op);
                if before[i] != after[i] {
                    model.buckets[i] = (after[i], None);
                }
            }
            if !anybody {
                prop_assert_eq!(owners(&real), after);
                continue;
            }
            if model.balanced() {
                model.unbalanced_since = None;
            } else {
                model.unbalanced_since.get_or_insert(ticks);
            }
            let wants = model.wants();
            let (since, now) = (model.unbalanced_since, ticks);
            let force = unbalanced > 0 && since.is_some_and(|s| (now - s) * TICK > in_ticks(unbalanced));
            if !real.is_due(at(ticks)) {
                prop_assert_eq!(model.balanced(), real.poll_at().is_none());
                continue;
            }
            let list = real.upkeep(at(ticks));
            let end = owners(&real);
            prop_assert_eq!(moved(&after, &end), list.iter().map(|b| usize::from(*b)).collect::<Vec<_>>());
            let may = |b: (u32, Option<u64>)| {
                force || b.1.is_none_or(|u| (now - u).saturating_sub(1) * TICK >= in_ticks(idle))
            };
            for i in list.iter().map(|i| usize::from(*i)) {
                prop_assert!(may(model.buckets[i]), "a bucket in use has moved");
                prop_assert!(model.has(model.buckets[i].0) > wants[&model.buckets[i].0]);
                model.buckets[i] = (end[i], None);
            }
            for (id, want) in &wants {
                // Whoever still has too many has none that may go.
                let stuck = model.buckets.iter().filter(|b| b.0 == *id).all(|b| !may(*b));
                prop_assert!(model.has(*id) <= *want || stuck);
            }
            if model.balanced() {
                model.unbalanced_since = None;
                prop_assert_eq!(real.poll_at(), None);
            } else {
                let most = Duration::from_secs(u64::from(if unbalanced > 0 { unbalanced } else { idle }));
                let most = at(ticks) + most.max(AT_LEAST);
                prop_assert!(real.poll_at().is_some_and(|n| n > at(ticks) && n <= most));
            }
        }
    }
}
