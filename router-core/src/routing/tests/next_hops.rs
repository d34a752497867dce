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
