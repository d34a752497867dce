//! Next-hop objects.

use super::*;
use crate::addr::Family::Inet;
use crate::spec::{NextHopKind, NextHopSpec};

fn hop(via: &str, dev: &str) -> NextHopKind {
    NextHopKind::Hop(HopSpec { via: via.parse().ok(), dev: Some(dev.into()), weight: 1, onlink: false })
}

fn nexthop(r: &mut Routing, op: RouteOp, id: u32, kind: NextHopKind) -> Result<(), String> {
    let done = r.next_hop(op, &NextHopSpec::new(id, kind)).map_err(|e| e.to_string());
    settle(r);
    done
}

#[test]
fn objects_groups_and_their_routes() {
    use RouteOp::{Add, Change, Delete, Replace};
    let mut r = lab();
    nexthop(&mut r, Add, 1, hop("10.0.0.9", "lan0")).unwrap();
    nexthop(&mut r, Add, 2, hop("2001:db8:1::9", "lan1")).unwrap();
    nexthop(&mut r, Add, 3, NextHopKind::Blackhole).unwrap();
    nexthop(&mut r, Add, 9, NextHopKind::Group(vec![(1, 1), (2, 3)])).unwrap();
    let err = |e: &str| Err(e.to_owned());
    assert_eq!(nexthop(&mut r, Add, 1, NextHopKind::Blackhole), err("RTNETLINK answers: File exists"));
    assert_eq!(nexthop(&mut r, Change, 7, NextHopKind::Blackhole), err("RTNETLINK answers: No such file or directory"));
    assert_eq!(nexthop(&mut r, Delete, 7, NextHopKind::Blackhole), err("RTNETLINK answers: No such file or directory"));
    assert_eq!(nexthop(&mut r, Add, 10, NextHopKind::Group(vec![(1, 1), (77, 1)])), err("Error: Invalid nexthop id."));
    assert_eq!(
        nexthop(&mut r, Add, 10, NextHopKind::Hop(HopSpec { via: "10.0.0.2".parse().ok(), ..HopSpec::default() })),
        err("Error: Device attribute required for non-blackhole and non-fdb nexthops.")
    );
    assert_eq!(nexthop(&mut r, Add, 10, hop("99.0.0.2", "lan0")), err("Error: Nexthop has invalid gateway."));

    for (dst, id) in [("20.0.0.0/8", 1), ("21.0.0.0/8", 9), ("22.0.0.0/8", 3)] {
        ip(&mut r, &format!("add {dst} nhid {id}")).unwrap();
    }
    let group = "group(1*incomplete lan0 10.0.0.9, 3*incomplete lan1 2001:db8:1::9)";
    assert_eq!((found(&r, "20.0.0.1"), found(&r, "21.0.0.1")), ("incomplete lan0 10.0.0.9".into(), group.into()));
    assert_eq!(found(&r, "22.0.0.1"), "blackhole");
    assert_eq!(added(&r, Inet)[0], "20.0.0.0/8 via 10.0.0.9 dev lan0 *");
    // Linux: a gateway does not describe a route by object.
    assert_eq!(ip(&mut r, "del 20.0.0.0/8 via 10.0.0.9"), err("RTNETLINK answers: No such process"));

    let more = [
        (
            Replace,
            1,
            NextHopKind::Blackhole,
            "Error: Blackhole nexthop can not be used in a group with more than 1 path.",
        ),
        (Add, 10, NextHopKind::Group(vec![(9, 1)]), "Error: Hash-threshold group can not be a nexthop within a group."),
        (Add, 10, NextHopKind::Group(vec![(1, 1), (1, 1)]), "Error: Nexthop id can not be used twice in a group."),
        (Replace, 1, NextHopKind::Group(vec![(2, 1)]), "Error: Can not replace a nexthop with a nexthop group."),
        (Replace, 9, NextHopKind::Blackhole, "Error: Can not replace a nexthop group with a nexthop."),
    ];
    for (op, id, kind, line) in more {
        assert_eq!(nexthop(&mut r, op, id, kind), err(line));
    }

    // Replacing moves all routes and groups at once, without a FIB write.
    nexthop(&mut r, Replace, 1, hop("10.0.1.7", "lan1")).unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan1 10.0.1.7");
    assert_eq!(found(&r, "21.0.0.1"), "group(1*incomplete lan1 10.0.1.7, 3*incomplete lan1 2001:db8:1::9)");

    // Deleting takes its routes along, and the member out of the group.
    nexthop(&mut r, Delete, 1, NextHopKind::Blackhole).unwrap();
    assert_eq!(
        (found(&r, "20.0.0.1"), found(&r, "21.0.0.1")),
        ("no_route".into(), "incomplete lan1 2001:db8:1::9".into())
    );
    nexthop(&mut r, Delete, 2, NextHopKind::Blackhole).unwrap();
    assert_eq!(r.next_hops().map(|n| n.id).collect::<Vec<_>>(), [3]);
    assert_eq!(added(&r, Inet), ["blackhole 22.0.0.0/8 *"]);
}

#[test]
fn port_removal_takes_its_objects_along() {
    let mut r = lab();
    nexthop(&mut r, RouteOp::Add, 1, hop("10.0.1.9", "lan1")).unwrap();
    ip(&mut r, "add 20.0.0.0/8 nhid 1").unwrap();
    set_up(&mut r, LAN1, false);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "no_route");
    set_up(&mut r, LAN1, true);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan1 10.0.1.9");
    r.remove_port(LAN1);
    settle(&mut r);
    assert_eq!((r.next_hops().count(), added(&r, Inet).len()), (0, 0));
}

mod resilient {
    use super::*;
    use crate::spec::ResilientSpec;
    use crate::time::{Duration, Instant};
    use RouteOp::{Add, Delete, Replace};

    const GATEWAYS: [(&str, &str); 3] = [("10.0.0.9", "lan0"), ("2001:db8:1::9", "lan1"), ("10.0.0.10", "lan0")];

    fn resilient(r: &mut Routing, op: RouteOp, members: &[(u32, u16)], spec: ResilientSpec) -> Result<(), String> {
        let spec = NextHopSpec { resilient: Some(spec), ..NextHopSpec::new(10, NextHopKind::Group(members.to_vec())) };
        let done = r.next_hop(op, &spec).map_err(|e| e.to_string());
        settle(r);
        done
    }

    fn buckets(n: u16) -> ResilientSpec {
        ResilientSpec { buckets: Some(n), ..ResilientSpec::default() }
    }

    /// A route through a group of three.
    fn bed() -> Routing {
        let mut r = lab();
        for (i, (via, dev)) in GATEWAYS.iter().enumerate() {
            nexthop(&mut r, Add, i as u32 + 1, hop(via, dev)).unwrap();
        }
        resilient(&mut r, Add, &[(1, 1), (2, 1), (3, 2)], buckets(16)).unwrap();
        ip(&mut r, "add 20.0.0.0/8 nhid 10").unwrap();
        ip(&mut r, "add 21.0.0.0/8 nhid 10 mtu 1400").unwrap();
        r
    }

    fn owners(r: &Routing) -> Vec<u32> {
        r.buckets(Some(10), Instant::ZERO).map(|b| b.nhid).collect()
    }

    /// The next hop of each bucket, as the data plane sees it.
    fn ways(r: &Routing, dst: &str) -> Vec<IpAddr> {
        let tables = &r.held.back().unwrap().1;
        let Some(Object::Group(g)) = tables.objects.get(tables.lookup(TableId::MAIN, &dst.parse().unwrap())) else {
            panic!("no group");
        };
        assert!(g.activity.is_some());
        let gateway = |id: &ObjectId| match tables.objects.get(*id) {
            Some(Object::Incomplete(i)) => i.gateway,
            Some(Object::Forward(f)) => f.gateway.unwrap(),
            other => panic!("{other:?}"),
        };
        g.buckets.iter().map(gateway).collect()
    }

    /// Both routes see the table as it is.
    fn check(r: &Routing) {
        let want: Vec<IpAddr> = owners(r).iter().map(|id| GATEWAYS[*id as usize - 1].0.parse().unwrap()).collect();
        assert_eq!(ways(r, "20.0.0.1"), want);
        assert_eq!(ways(r, "21.0.0.1"), want);
    }

    fn count(list: &[u32]) -> [usize; 3] {
        [1, 2, 3].map(|id| list.iter().filter(|o| **o == id).count())
    }

    /// Every bucket that moved was one of these members'.
    fn only(before: &[u32], after: &[u32], of: &[u32]) {
        for (b, a) in before.iter().zip(after) {
            assert!(a == b || of.contains(b), "{before:?} {after:?}");
        }
    }

    #[test]
    fn links_neighbours_and_members_come_and_go() {
        let mut r = bed();
        let mut now = Instant::from_millis(1000);
        assert_eq!(r.poll_buckets(now), None);
        check(&r);
        let all = owners(&r);
        assert_eq!(count(&all), [4, 4, 8]);
        // A link, by which one member leaves.
        set_up(&mut r, LAN1, false);
        settle(&mut r);
        check(&r);
        let after = owners(&r);
        only(&all, &after, &[2]);
        assert_eq!(count(&after), [5, 0, 11]);
        // Back: nothing moves at once; what was never used since follows at the next look.
        set_up(&mut r, LAN1, true);
        settle(&mut r);
        assert_eq!(owners(&r), after);
        r.poll_buckets(now);
        settle(&mut r);
        check(&r);
        assert_eq!(count(&owners(&r)), [4, 4, 8]);
        // A neighbour fails. Its buckets alone move; it returns, and those that are in use stay.
        let before = owners(&r);
        r.neighbor_failed(LAN0, "10.0.0.10".parse().unwrap(), true);
        settle(&mut r);
        check(&r);
        only(&before, &owners(&r), &[3]);
        assert_eq!(count(&owners(&r)), [8, 8, 0]);
        let before = owners(&r);
        let tables = r.held.back().unwrap().1.clone();
        let Some(Object::Group(g)) = tables.objects.get(tables.lookup(TableId::MAIN, &"20.0.0.1".parse().unwrap()))
        else {
            panic!("no group");
        };
        let used = g.activity.clone().unwrap();
        let tick = crate::next_hop::activity::tick;
        (0..15).for_each(|b| used.touch(1, b, tick(now)));
        drop(tables);
        r.neighbor_failed(LAN0, "10.0.0.10".parse().unwrap(), false);
        assert!(r.poll_buckets(now).is_some());
        settle(&mut r);
        check(&r);
        let after = owners(&r);
        assert_eq!(before.iter().zip(&after).filter(|(b, a)| b != a).count(), 1, "the one that nobody used");
        assert_eq!((before[15] == after[15], after[15]), (false, 3));
        // Two minutes later, without packets.
        now = now + Duration::from_secs(119);
        r.poll_buckets(now);
        assert_eq!(owners(&r), after);
        now = now + Duration::from_secs(2);
        assert_eq!(r.poll_buckets(now), None);
        settle(&mut r);
        check(&r);
        assert_eq!(count(&owners(&r)), [4, 4, 8]);
        // All links gone, one after the other: with the last nothing moves, and the routes are not usable.
        for link in [LAN0, LAN1] {
            set_up(&mut r, link, false);
        }
        settle(&mut r);
        assert_eq!((count(&owners(&r)), found(&r, "20.0.0.1")), ([0, 16, 0], "no_route".into()));
        for link in [LAN0, LAN1] {
            set_up(&mut r, link, true);
        }
        settle(&mut r);
        r.poll_buckets(now);
        settle(&mut r);
        check(&r);
        assert_eq!(count(&owners(&r)), [4, 4, 8]);
        // A member is deleted, and weights change.
        let before = owners(&r);
        nexthop(&mut r, Delete, 1, NextHopKind::Blackhole).unwrap();
        check(&r);
        only(&before, &owners(&r), &[1]);
        assert_eq!(r.next_hop_by_id(10).unwrap().kind, NextHopKind::Group(vec![(2, 1), (3, 2)]));
        resilient(&mut r, Replace, &[(2, 1), (3, 1)], ResilientSpec::default()).unwrap();
        r.poll_buckets(now);
        settle(&mut r);
        check(&r);
        assert_eq!(count(&owners(&r)), [0, 8, 8]);
        assert_eq!(r.next_hop_by_id(10).unwrap().resilient.as_ref().unwrap().idle_timer, Some(120));
        // The group goes, with its routes and its table.
        nexthop(&mut r, Delete, 10, NextHopKind::Blackhole).unwrap();
        assert_eq!((r.buckets(None, now).count(), added(&r, Inet).len(), r.poll_buckets(now)), (0, 0, None));
    }

    #[test]
    fn members_that_lead_to_one_neighbour_stay_apart_and_unused_groups_follow_links() {
        let mut r = lab();
        nexthop(&mut r, Add, 1, hop("10.0.0.9", "lan0")).unwrap();
        nexthop(&mut r, Add, 2, hop("10.0.0.9", "lan0")).unwrap();
        nexthop(&mut r, Add, 3, hop("10.0.1.9", "lan1")).unwrap();
        resilient(&mut r, Add, &[(1, 1), (2, 1), (3, 2)], buckets(8)).unwrap();
        assert_eq!(count(&owners(&r)), [2, 2, 4]);
        set_up(&mut r, LAN0, false);
        settle(&mut r);
        assert_eq!(count(&owners(&r)), [0, 0, 8], "without any route through it");
        ip(&mut r, "add 20.0.0.0/8 nhid 10").unwrap();
        assert_eq!(ways(&r, "20.0.0.1"), vec!["10.0.1.9".parse::<IpAddr>().unwrap(); 8]);
    }

    #[test]
    fn what_linux_refuses() {
        let mut r = bed();
        let err = |e: &str| Err(e.to_owned());
        let new = |r: &mut Routing, kind, resilient| {
            r.next_hop(Add, &NextHopSpec { resilient, ..NextHopSpec::new(11, kind) }).map_err(|e| e.to_string())
        };
        let group = || NextHopKind::Group(vec![(1, 1)]);
        assert_eq!(
            new(&mut r, group(), Some(ResilientSpec::default())),
            err("Error: Number of buckets not specified for nexthop group insertion.")
        );
        assert_eq!(new(&mut r, group(), Some(buckets(0))), err("Error: Number of buckets needs to be non-0."));
        assert_eq!(
            new(&mut r, NextHopKind::Group(vec![(10, 1)]), None),
            err("Error: Resilient nexthop group can not be a nexthop within a group.")
        );
        assert!(new(&mut r, NextHopKind::Blackhole, Some(buckets(4))).is_err());
        assert_eq!(
            resilient(&mut r, Replace, &[(1, 1)], buckets(32)),
            err("Error: Can not change number of buckets of a resilient nexthop group.")
        );
        assert_eq!(
            nexthop(&mut r, Replace, 10, group()),
            err("Error: Can not replace a nexthop group with one of a different type.")
        );
        resilient(&mut r, Replace, &[(1, 1)], buckets(16)).unwrap();
    }
}
