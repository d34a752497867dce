//! Counted routes and next hops: who counts, and that counting changes nothing else.

use super::*;
use ipnet::IpNet;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    parse_prefix(text).unwrap()
}

#[test]
fn a_counted_prefix_counts_whatever_route_it_has() {
    let mut r = lab();
    r.count_prefix(TableId::MAIN, net("192.0.2.0/24")).unwrap();
    assert_eq!(r.count_prefix(TableId::MAIN, net("192.0.2.0/24")), Err(RouteError::Exists));
    // Not there yet, and the covering route is another one.
    ip(&mut r, "add 192.0.0.0/16 via 10.0.0.2").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "incomplete lan0 10.0.0.2");
    ip(&mut r, "add 192.0.2.0/24 via 10.0.0.2").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "counted incomplete lan0 10.0.0.2");
    assert_eq!(found(&r, "192.0.3.1"), "incomplete lan0 10.0.0.2");
    ip(&mut r, "replace 192.0.2.0/24 via 10.0.1.2").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "counted incomplete lan1 10.0.1.2");
    ip(&mut r, "add 192.0.2.0/24 via 10.0.0.9 metric 5").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "counted incomplete lan1 10.0.1.2");
    set_up(&mut r, LAN1, false);
    settle(&mut r);
    assert_eq!(found(&r, "192.0.2.1"), "counted incomplete lan0 10.0.0.9");
    set_up(&mut r, LAN1, true);
    ip(&mut r, "del 192.0.2.0/24 metric 0").unwrap();
    ip(&mut r, "del 192.0.2.0/24").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "incomplete lan0 10.0.0.2");
    ip(&mut r, "add blackhole 192.0.2.0/24").unwrap();
    assert_eq!(found(&r, "192.0.2.1"), "counted blackhole");
    assert!(r.uncount_prefix(TableId::MAIN, net("192.0.2.0/24")));
    assert!(!r.uncount_prefix(TableId::MAIN, net("192.0.2.0/24")));
    settle(&mut r);
    assert_eq!(found(&r, "192.0.2.1"), "blackhole");
    // What is for the router itself stays so.
    r.count_prefix(TableId::MAIN, net("10.0.0.1/32")).unwrap();
    settle(&mut r);
    assert_eq!(found(&r, "10.0.0.1"), "local");
}

#[test]
fn a_counted_next_hop_counts_for_routes_and_groups() {
    let mut r = lab();
    ip(&mut r, "add 192.0.2.0/24 via 10.0.0.2").unwrap();
    ip(&mut r, "add 198.51.100.0/24 nexthop via 10.0.0.2 nexthop via 10.0.1.2").unwrap();
    let gateway = Some("10.0.0.2".parse().unwrap());
    r.count_hop(LAN0, gateway).unwrap();
    assert_eq!(r.count_hop(LAN0, gateway), Err(RouteError::Exists));
    settle(&mut r);
    assert_eq!(found(&r, "192.0.2.1"), "counted incomplete lan0 10.0.0.2");
    assert_eq!(found(&r, "198.51.100.1"), "group(1*counted incomplete lan0 10.0.0.2, 1*incomplete lan1 10.0.1.2)");
    ip(&mut r, "add 203.0.113.0/24 via 10.0.0.2 mtu 1400").unwrap();
    assert_eq!(found(&r, "203.0.113.1"), "counted incomplete lan0 10.0.0.2");
    // Both at once.
    r.count_prefix(TableId::MAIN, net("203.0.113.0/24")).unwrap();
    settle(&mut r);
    assert_eq!(found(&r, "203.0.113.1"), "counted counted incomplete lan0 10.0.0.2");
    set_up(&mut r, LAN0, false);
    settle(&mut r);
    assert_eq!(found(&r, "198.51.100.1"), "group(1*incomplete lan1 10.0.1.2)");
    set_up(&mut r, LAN0, true);
    settle(&mut r);
    assert!(r.uncount_hop(LAN0, gateway) && !r.uncount_hop(LAN0, gateway));
    assert!(r.uncount_prefix(TableId::MAIN, net("203.0.113.0/24")));
    settle(&mut r);
    assert_eq!(found(&r, "192.0.2.1"), "incomplete lan0 10.0.0.2");
    assert_eq!(found(&r, "203.0.113.1"), "incomplete lan0 10.0.0.2");
    assert_eq!(r.counted_hops().count() + r.counted_prefixes().count(), 0);
}

#[test]
fn so_many_and_no_more() {
    let mut r = lab();
    for i in 0..MAX_COUNTED as u32 {
        let dst = IpNet::from(IpAddr::from(i.to_be_bytes()));
        r.count_prefix(TableId::MAIN, dst).unwrap();
    }
    assert!(matches!(r.count_hop(LAN0, None), Err(RouteError::Invalid(_))));
    assert!(matches!(r.count_prefix(TableId::MAIN, net("::/0")), Err(RouteError::Invalid(_))));
}

const PREFIXES: [&str; 5] = ["192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24", "0.0.0.0/0", "192.0.2.129/32"];
const HOPS: [&str; 5] =
    ["via 10.0.0.2", "via 10.0.1.2", "dev tun0", "nexthop via 10.0.0.2 nexthop via 10.0.1.3", "via 192.0.2.1"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same changes with and without counting: lookups say the same but for the counting, and nothing is left behind.
    #[test]
    fn counting_changes_nothing_else(
        steps in prop::collection::vec((0u8..7, 0usize..PREFIXES.len(), 0usize..HOPS.len()), 1..40)
    ) {
        let (mut plain, mut counted) = (lab(), lab());
        let before = counted.stats();
        for (what, p, h) in steps {
            let (prefix, hop) = (PREFIXES[p], HOPS[h]);
            for r in [&mut plain, &mut counted] {
                match what {
                    0 | 1 => _ = ip(r, &format!("replace {prefix} {hop}")),
                    2 => _ = ip(r, &format!("append {prefix} {hop} metric {h}")),
                    3 => _ = ip(r, &format!("del {prefix}")),
                    4 => { set_up(r, LAN0, h % 2 == 0); settle(r); }
                    _ => {}
                }
            }
            let key = (LAN0, Some(IpAddr::from([10, 0, 0, 2])));
            match what {
                5 if !counted.uncount_prefix(TableId::MAIN, net(prefix)) => {
                    counted.count_prefix(TableId::MAIN, net(prefix)).unwrap();
                }
                6 if !counted.uncount_hop(key.0, key.1) => counted.count_hop(key.0, key.1).unwrap(),
                _ => {}
            }
            settle(&mut counted);
            for dst in ["192.0.2.1", "192.0.2.129", "192.0.2.200", "198.51.100.1", "8.8.8.8", "10.0.0.7", "10.0.0.1"] {
                prop_assert_eq!(found(&counted, dst).replace("counted ", ""), found(&plain, dst), "{}", dst);
            }
        }
        for p in PREFIXES {
            counted.uncount_prefix(TableId::MAIN, net(p));
            while ip(&mut counted, &format!("del {p}")).is_ok() {}
        }
        counted.uncount_hop(LAN0, Some(IpAddr::from([10, 0, 0, 2])));
        set_up(&mut counted, LAN0, true);
        settle(&mut counted);
        prop_assert_eq!(counted.stats().objects, before.objects);
    }
}
