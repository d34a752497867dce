//! Commands behave as on Linux: the transcripts below were checked against iproute2 6.1 on Linux 6.18.

use super::*;
use crate::addr::Family::{Inet, Inet6};

const EXISTS: &str = "RTNETLINK answers: File exists";
const NO_PROCESS: &str = "RTNETLINK answers: No such process";
const NO_FILE: &str = "RTNETLINK answers: No such file or directory";
const BAD_GATEWAY: &str = "Error: Nexthop has invalid gateway.";

#[test]
fn ipv4_commands() {
    let mut r = lab();
    let steps: &[(&str, Result<(), &str>)] = &[
        ("add 1.0.0.0/8 via 9.9.9.9", Err(BAD_GATEWAY)),
        ("add 1.0.0.0/8 via 9.9.9.9 dev lan0", Err(BAD_GATEWAY)),
        ("add 1.0.0.0/8 via 9.9.9.9 dev lan0 onlink metric 77", Ok(())),
        ("add 1.0.0.0/8 dev nope", Err("Cannot find device \"nope\"")),
        ("add 1.0.0.0/8 nhid 7", Err("Error: Nexthop id does not exist.")),
        ("add 1.0.0.0/8 via fe80::1:1", Err("Error: Egress device not specified.")),
        ("add 1.0.0.0/8", Err("RTNETLINK answers: No such device")),
        (
            "add blackhole 1.0.0.0/8 via 10.0.0.2",
            Err("Error: Gateway, device and multipath can not be specified for this route type."),
        ),
        ("add 1.0.0.0/8 via 224.0.0.1", Err(BAD_GATEWAY)),
        ("add 1.0.0.0/8 via 10.0.0.255", Err(BAD_GATEWAY)),
        ("add 1.0.0.0/8 via 10.0.0.1", Err(BAD_GATEWAY)),
        ("add 1.0.0.0/8 via 10.0.0.5", Ok(())),
        ("add 1.0.0.0/8 via 10.0.0.5", Err(EXISTS)),
        ("add 1.0.0.0/8 via fe80::9 dev lan0", Err(EXISTS)),
        ("append 1.0.0.0/8 via fe80::9 dev lan0", Ok(())),
        ("append 1.0.0.0/8 via 10.0.0.2", Ok(())),
        ("append 1.0.0.0/8 via 10.0.0.2 dev lan0", Err(EXISTS)),
        ("append 1.0.0.0/8 via 10.0.0.2 proto 4", Ok(())),
        ("prepend 1.0.0.0/8 via 10.0.0.3", Ok(())),
        ("replace 1.0.0.0/8 via 10.0.0.2", Err(EXISTS)),
        ("replace 1.0.0.0/8 via 10.0.0.9", Ok(())),
        ("change 2.0.0.0/8 via 10.0.0.9", Err(NO_FILE)),
        ("del 2.0.0.0/8", Err(NO_PROCESS)),
        ("del 1.0.0.0/8 via 10.0.0.77", Err(NO_PROCESS)),
        ("add blackhole 1.0.0.0/8 metric 5", Ok(())),
        ("del blackhole 1.0.0.0/8", Ok(())),
        ("del blackhole 1.0.0.0/8", Err(NO_PROCESS)),
        ("add 10.1.0.0/16 dev lan0 src 10.9.9.9", Err("Error: Invalid prefsrc address.")),
        ("add 10.1.0.0/16 dev lan0 src 10.0.1.1", Ok(())),
    ];
    for (command, want) in steps {
        assert_eq!(ip(&mut r, command), want.map_err(str::to_owned), "{command}");
    }
    let want = [
        "1.0.0.0/8 via 10.0.0.9 dev lan0 *",
        "1.0.0.0/8 via 10.0.0.5 dev lan0",
        "1.0.0.0/8 via fe80::9 dev lan0",
        "1.0.0.0/8 via 10.0.0.2 dev lan0",
        "1.0.0.0/8 via 10.0.0.2 dev lan0",
        "1.0.0.0/8 via 9.9.9.9 dev lan0 metric 77",
        "10.1.0.0/16 dev lan0 *",
    ];
    assert_eq!(added(&r, Inet), want);
    // Deleting takes the first that fits.
    for (command, left) in
        [("del 1.0.0.0/8 via 10.0.0.2 proto 4", 6), ("del 1.0.0.0/8", 5), ("del 1.0.0.0/8 metric 77", 4)]
    {
        assert_eq!(ip(&mut r, command), Ok(()), "{command}");
        assert_eq!(added(&r, Inet).len(), left, "{command}");
    }
    assert_eq!(found(&r, "1.2.3.4"), "incomplete lan0 10.0.0.5");
}

#[test]
fn deleting_ipv4_multipath() {
    let mut r = lab();
    let add = "add 1.0.0.0/8 nexthop via 10.0.0.2 nexthop via 10.0.1.2 weight 3";
    let cases = [
        ("del 1.0.0.0/8 via 10.0.1.2", false),
        ("del 1.0.0.0/8 via 10.0.0.2", true),
        ("del 1.0.0.0/8 dev lan1", false),
        ("del 1.0.0.0/8 dev lan0", true),
        ("del 1.0.0.0/8 nexthop via 10.0.1.2 nexthop via 10.0.0.2", false),
        ("del 1.0.0.0/8 nexthop via 10.0.0.2 nexthop via 10.0.1.2", true),
        ("del 1.0.0.0/8 mtu 1500", false),
        ("del 1.0.0.0/8 proto 4", false),
    ];
    for (command, deletes) in cases {
        ip(&mut r, &add.replace("add", "replace")).ok();
        let want = if deletes { Ok(()) } else { Err(NO_PROCESS.to_owned()) };
        assert_eq!(ip(&mut r, command), want, "{command}");
    }
    assert_eq!(ip(&mut r, add), Err(EXISTS.to_owned()));
}

#[test]
fn ipv6_commands() {
    let mut r = lab();
    let steps: &[(&str, Result<(), &str>)] = &[
        ("add 2001:db8:7::/48 via 2001:db8::2", Ok(())),
        ("add 2001:db8:7::/48 via 2001:db8::3", Err(EXISTS)),
        ("append 2001:db8:7::/48 via 2001:db8::3", Ok(())),
        ("append 2001:db8:7::/48 via 2001:db8::3 dev lan0", Err(EXISTS)),
        ("append 2001:db8:7::/48 dev lan0", Ok(())),
        ("prepend 2001:db8:7::/48 via 2001:db8::4", Ok(())),
        ("add 2001:db8:8::/48 via 2001:db9::5", Err("RTNETLINK answers: No route to host")),
        ("add 2001:db8:8::/48 via 2001:db9::5 dev lan0", Err("RTNETLINK answers: No route to host")),
        ("add 2001:db8:8::/48 via fe80::9", Err("Error: Egress device not specified.")),
        ("add 2001:db8:8::/48 via 2001:db8::1", Err("Error: Gateway can not be a local address.")),
        ("change 2001:db8:8::/48 dev lan0", Err("Error: Can not replace route - no match found.")),
        ("del 2001:db8:8::/48", Err(NO_PROCESS)),
        ("add 2001:db8:8::/48 dev lan0 src 2001:db8::77", Err("Error: Invalid source address.")),
    ];
    for (command, want) in steps {
        assert_eq!(ip(&mut r, command), want.map_err(str::to_owned), "{command}");
    }
    let three = "2001:db8:7::/48 nexthop via 2001:db8::2 dev lan0 nexthop via 2001:db8::3 dev lan0 \
                 nexthop via 2001:db8::4 dev lan0 metric 1024 *";
    let direct = "2001:db8:7::/48 dev lan0 metric 1024";
    assert_eq!(added(&r, Inet6), [three, direct]);
    assert_eq!(
        found(&r, "2001:db8:7::1"),
        "group(1*incomplete lan0 2001:db8::2, 1*incomplete lan0 2001:db8::3, 1*incomplete lan0 2001:db8::4)"
    );
    // Naming a gateway takes one member away.
    ip(&mut r, "del 2001:db8:7::/48 via 2001:db8::3").unwrap();
    ip(&mut r, "del 2001:db8:7::/48 via 2001:db8::2").unwrap();
    assert_eq!(found(&r, "2001:db8:7::1"), "incomplete lan0 2001:db8::4");
    ip(&mut r, "replace 2001:db8:7::/48 via 2001:db8::5").unwrap();
    assert_eq!(added(&r, Inet6), ["2001:db8:7::/48 via 2001:db8::5 dev lan0 metric 1024 *", direct]);
    ip(&mut r, "del 2001:db8:7::/48").unwrap();
    assert_eq!(found(&r, "2001:db8:7::1"), "glean lan0");
    ip(&mut r, "del 2001:db8:7::/48").unwrap();
    assert_eq!(found(&r, "2001:db8:7::1"), "no_route");
}

#[test]
fn down_devices_refuse_routes() {
    let mut r = lab();
    let mut info = PortInfo::clone(r.facts.port(LAN1).unwrap());
    (info.up, info.admin_up) = (false, false);
    r.set_port(Arc::new(info));
    for (command, want) in [
        ("add 1.0.0.0/8 dev lan1", "Error: Device for nexthop is not up."),
        ("add 1.0.0.0/8 via 10.0.1.9 dev lan1", "Error: Nexthop device is not up."),
        ("add 2001:db8:8::/48 dev lan1", "Error: Nexthop device is not up."),
    ] {
        assert_eq!(ip(&mut r, command), Err(want.to_owned()), "{command}");
    }
    let e = r.route(RouteOp::Add, &spec("1.0.0.0/8 dev nope")).unwrap_err();
    assert_eq!((e.exit_code(), RouteError::Exists.exit_code()), (1, 2));
}

/// Proves rfc1812-4.2.3.1-broadcast, rfc1812-5.2.1-local, rfc4291-2.6.1-anycast.
#[test]
fn own_addresses_make_routes() {
    let r = lab();
    let table = |t| shown(&r, &RouteFilter { table: Some(t), ..RouteFilter::default() });
    assert_eq!(
        table(TableId::MAIN),
        [
            "10.0.0.0/24 dev lan0 *",
            "10.0.1.0/24 dev lan1 *",
            "10.0.2.0/24 dev tun0 *",
            "2001:db8::/64 dev lan0 metric 256 *",
            "2001:db8:1::/64 dev lan1 metric 256 *",
            "fe80::/64 dev lan0 metric 256 *",
            "fe80::/64 dev lan1 metric 256",
        ]
    );
    assert_eq!(
        table(TableId::LOCAL),
        [
            "local 10.0.0.1/32 dev lan0 *",
            "broadcast 10.0.0.255/32 dev lan0 *",
            "local 10.0.1.1/32 dev lan1 *",
            "broadcast 10.0.1.255/32 dev lan1 *",
            "local 10.0.2.1/32 dev tun0 *",
            "anycast 2001:db8::/128 dev lan0 *",
            "local 2001:db8::1/128 dev lan0 *",
            "anycast 2001:db8:1::/128 dev lan1 *",
            "local 2001:db8:1::1/128 dev lan1 *",
            "local fe80::1/128 dev lan0 *",
            "local fe80::2/128 dev lan1 *",
        ]
    );
    for (dst, want) in [
        ("10.0.0.1", "local"),
        ("10.0.0.255", "broadcast"),
        ("10.0.0.77", "glean lan0"),
        ("10.0.2.77", "forward tun0 mtu 1500"),
        ("2001:db8:1::77", "glean lan1"),
        ("2001:db8:1::", "local"),
        ("192.0.2.1", "no_route"),
    ] {
        assert_eq!(found(&r, dst), want, "{dst}");
    }
}

#[test]
fn secondary_addresses_share_the_routes_of_the_primary() {
    let mut r = lab();
    let mut info = PortInfo::clone(r.facts.port(LAN0).unwrap());
    // As `ip -4 route show table all` has it on Linux 6.1 after the same `addr add`.
    let nets = ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/25", "192.0.2.4/25", "192.0.2.5/32", "2001:db8::2/64"];
    info.addrs = nets.iter().map(|a| a.parse().unwrap()).collect();
    r.set_port(Arc::new(info.clone()));
    settle(&mut r);
    let lines = |r: &Routing| -> Vec<String> {
        let proto = Some(crate::spec::proto::KERNEL);
        let filter = RouteFilter { dev: Some("lan0".into()), family: Some(Inet), proto, ..RouteFilter::default() };
        let (page, _) = r.page(&filter, None, usize::MAX);
        page.iter().map(|i| format!("{} {}", i.route.dst, i.route.src.unwrap())).collect()
    };
    let want = [
        "192.0.2.0/25 192.0.2.3",
        "192.0.2.0/24 192.0.2.1",
        "192.0.2.1/32 192.0.2.1",
        "192.0.2.2/32 192.0.2.1",
        "192.0.2.3/32 192.0.2.3",
        "192.0.2.4/32 192.0.2.3",
        "192.0.2.5/32 192.0.2.5",
        "192.0.2.127/32 192.0.2.3",
        "192.0.2.255/32 192.0.2.1",
    ];
    assert_eq!(lines(&r), want);
    ip(&mut r, "add 20.0.0.0/8 via 192.0.2.200").unwrap();
    // The next one takes over, and whoever resolves through the link does not notice.
    info.addrs.retain(|a| a.to_string() != "192.0.2.1/24");
    r.set_port(Arc::new(info));
    settle(&mut r);
    let all = lines(&r);
    assert!(
        all.contains(&"192.0.2.0/24 192.0.2.2".into()) && all.contains(&"192.0.2.255/32 192.0.2.2".into()),
        "{all:?}"
    );
    assert!(all.contains(&"192.0.2.2/32 192.0.2.2".into()) && !all.iter().any(|l| l.contains("192.0.2.1/")), "{all:?}");
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan0 192.0.2.200");
    assert_eq!((found(&r, "192.0.2.1"), found(&r, "192.0.2.2")), ("glean lan0".into(), "local".into()));
}

#[test]
fn shown_in_the_order_of_ip_route() {
    let mut r = lab();
    for net in ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "1.0.0.0/8", "::/0", "2001:db8::/32", "2::/16"]
    {
        ip(&mut r, &format!("add {net} dev lan1")).unwrap();
    }
    let dst = |f| {
        let filter = RouteFilter { table: Some(TableId::MAIN), family: Some(f), ..RouteFilter::default() };
        let all: Vec<_> = r.page(&filter, None, usize::MAX).0.into_iter().map(|i| i.route.dst.to_string()).collect();
        // Pages of any size add up to the same.
        for size in 1..4 {
            let (mut paged, mut at) = (Vec::new(), None);
            loop {
                let (page, next) = r.page(&filter, at, size);
                paged.extend(page.into_iter().map(|i| i.route.dst.to_string()));
                at = next;
                if at.is_none() {
                    break;
                }
            }
            assert_eq!(paged, all);
        }
        all
    };
    assert_eq!(
        dst(Inet),
        [
            "0.0.0.0/0",
            "1.0.0.0/8",
            "10.0.0.0/24",
            "10.0.0.0/16",
            "10.0.0.0/8",
            "10.0.1.0/24",
            "10.0.2.0/24",
            "10.1.0.0/16"
        ]
    );
    assert_eq!(
        dst(Inet6),
        ["2::/16", "2001:db8::/64", "2001:db8:1::/64", "2001:db8::/32", "fe80::/64", "fe80::/64", "::/0"]
    );
}

#[test]
fn filters_select() {
    let mut r = lab();
    for c in ["add 10.0.0.0/8 dev lan1", "add 1.0.0.0/8 via 10.0.0.5 proto 4", "add blackhole 3.0.0.0/8 metric 9"] {
        ip(&mut r, c).unwrap();
    }
    let base = RouteFilter { table: Some(TableId::MAIN), ..RouteFilter::default() };
    let net = |s: &str| s.parse().unwrap();
    let cases: Vec<(RouteFilter, Vec<&str>)> = vec![
        (RouteFilter { proto: Some(4), ..base.clone() }, vec!["1.0.0.0/8 via 10.0.0.5 dev lan0 *"]),
        (RouteFilter { kind: Some(RouteKind::Blackhole), ..base.clone() }, vec!["blackhole 3.0.0.0/8 metric 9 *"]),
        (RouteFilter { via: "10.0.0.5".parse().ok(), ..base.clone() }, vec!["1.0.0.0/8 via 10.0.0.5 dev lan0 *"]),
        (RouteFilter { dev: Some("tun0".into()), family: Some(Inet), ..base.clone() }, vec!["10.0.2.0/24 dev tun0 *"]),
        (
            RouteFilter { select: Some(PrefixSelect::Exact(net("10.0.0.0/8"))), ..base.clone() },
            vec!["10.0.0.0/8 dev lan1 *"],
        ),
        (
            RouteFilter { select: Some(PrefixSelect::Root(net("10.0.0.0/23"))), ..base.clone() },
            vec!["10.0.0.0/24 dev lan0 *", "10.0.1.0/24 dev lan1 *"],
        ),
        (
            RouteFilter { select: Some(PrefixSelect::Match(net("10.0.0.9/32"))), ..base.clone() },
            vec!["10.0.0.0/24 dev lan0 *", "10.0.0.0/8 dev lan1 *"],
        ),
    ];
    for (filter, want) in cases {
        assert_eq!(shown(&r, &filter), want, "{filter:?}");
    }
    assert_eq!(r.flush(&RouteFilter { dev: Some("lan0".into()), proto: Some(4), ..base }), 1);
    settle(&mut r);
    assert_eq!(found(&r, "1.1.1.1"), "no_route");
}
