//! The client against the kernel, in namespaces of its own.

use super::*;
use crate::lab::Host;
use crate::sandbox_test;
use ipnet::IpNet;
use router_core::addr::{Family, MacAddr, parse_interface_addr, parse_prefix};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    parse_interface_addr(text).unwrap()
}

/// Two hosts with a veth pair `eth0` (11) - `eth0` (12), up.
fn pair() -> (Host, Host) {
    let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
    let mut end_a = VethEnd::new("eth0", Some(a.netns_fd()));
    let mut end_b = VethEnd::new("eth0", Some(b.netns_fd()));
    (end_a.index, end_b.index) = (Some(11), Some(12));
    end_a.mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
    end_b.mtu = Some(1400);
    a.netlink().add_veth(&end_a, &end_b).unwrap();
    a.netlink().set_up(11, true).unwrap();
    b.netlink().set_up(12, true).unwrap();
    (a, b)
}

sandbox_test! {
    fn links() {
        let (a, b) = pair();
        let mut nl = a.netlink();
        let l = nl.link("eth0").unwrap();
        assert_eq!((l.index, l.mac, l.mtu, l.kind.as_str()), (11, Some(MacAddr([2, 0, 0, 0, 0, 1])), 1500, "veth"));
        assert!(l.admin_up && l.lower_up);
        assert_eq!(b.netlink().link("eth0").unwrap().mtu, 1400);
        nl.set_mtu(11, 1300).unwrap();
        nl.set_mac(11, MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
        let l = nl.link_by_index(11).unwrap();
        assert_eq!((l.mtu, l.mac), (1300, Some(MacAddr([2, 0, 0, 0, 0, 9]))));
        assert!(nl.link("lo").unwrap().admin_up);
        let again = nl.add_veth(&VethEnd::new("eth0", None), &VethEnd::new("x", None)).unwrap_err();
        assert!(again.is_exists(), "{again}");
        assert!(matches!(nl.link("nope"), Err(NetlinkError::NoSuchLink(_))));
        // Moving a link to another namespace, and deleting one end.
        nl.set_up(11, false).unwrap();
        let c = Host::new("c").unwrap();
        nl.set_name(11, "moved").unwrap();
        nl.move_link(11, c.netns_fd()).unwrap();
        assert!(nl.link("moved").is_err());
        let index = c.netlink().link_index("moved").unwrap();
        c.netlink().del_link(index).unwrap();
        assert!(b.netlink().link("eth0").is_err());
    }
}

sandbox_test! {
    fn addresses_routes_and_lookups() {
        let (a, _b) = pair();
        let mut nl = a.netlink();
        nl.add_addr(11, net("192.0.2.1/24")).unwrap();
        nl.add_addr(11, net("2001:db8::1/64")).unwrap();
        let addrs = nl.addrs(Some(11)).unwrap();
        assert!(addrs.iter().any(|x| x.addr == net("192.0.2.1/24")));
        assert!(addrs.iter().any(|x| x.addr == net("2001:db8::1/64") && !x.tentative));
        assert!(nl.add_addr(11, net("192.0.2.1/24")).unwrap_err().is_exists());

        let add = |nl: &mut Netlink, text: &str| {
            let r = KernelRoute::parse(text, |d| nl.link_index(d)).unwrap();
            nl.add_route(&r).unwrap();
            r
        };
        let mixed = add(&mut nl, "203.0.113.0/24 via inet6 2001:db8::2 mtu 1400");
        let deep = add(&mut nl, "203.0.113.128/25 via inet6 fe80::2 dev eth0 metric 7");
        add(&mut nl, "198.51.100.0/24 via 192.0.2.2");
        add(&mut nl, "2001:db8:1::/48 via 2001:db8::2");
        add(&mut nl, "blackhole 198.18.0.0/15");
        let found = nl.lookup(ip("203.0.113.5")).unwrap();
        assert_eq!((found.oif, found.gateway, found.mtu), (Some(11), Some(ip("2001:db8::2")), Some(1400)));
        assert_eq!(nl.lookup(ip("203.0.113.200")).unwrap().gateway, Some(ip("fe80::2")));
        let found = nl.lookup(ip("198.51.100.1")).unwrap();
        assert_eq!((found.gateway, found.prefsrc), (Some(ip("192.0.2.2")), Some(ip("192.0.2.1"))));
        assert_eq!(nl.lookup(ip("2001:db8:1::5")).unwrap().gateway, Some(ip("2001:db8::2")));
        assert_eq!(nl.lookup(ip("192.0.2.1")).unwrap().kind, KernelRouteKind::Local);
        assert_eq!(nl.lookup(ip("192.0.2.9")).unwrap().gateway, None);
        assert_eq!(nl.lookup(ip("198.18.0.1")).unwrap_err().errno(), Some(libc::EINVAL));
        assert_eq!(nl.lookup(ip("8.8.8.8")).unwrap_err().errno(), Some(libc::ENETUNREACH));

        let all = nl.routes(Family::Inet, 254).unwrap();
        let seen = all.iter().find(|r| r.prefix == deep.prefix).unwrap();
        assert_eq!((seen.metric, &seen.hops[0].via), (Some(7), &Some(ip("fe80::2"))));
        nl.del_route(&deep).unwrap();
        assert_eq!(nl.lookup(ip("203.0.113.200")).unwrap().gateway, Some(ip("2001:db8::2")));
        let other = KernelRoute { hops: vec![KernelHop { via: Some(ip("192.0.2.7")), ..Default::default() }], ..mixed };
        nl.replace_route(&other).unwrap();
        assert_eq!(nl.lookup(ip("203.0.113.5")).unwrap().gateway, Some(ip("192.0.2.7")));

        // Multipath with next hops of both families.
        let mut multi = KernelRoute::via(parse_prefix("100.64.0.0/10").unwrap(), ip("192.0.2.2"));
        multi.hops[0].oif = Some(11);
        multi.hops.push(KernelHop { via: Some(ip("2001:db8::2")), oif: Some(11), onlink: false, weight: 3 });
        nl.add_route(&multi).unwrap();
        let all = nl.routes(Family::Inet, 254).unwrap();
        let seen = all.iter().find(|r| r.prefix == multi.prefix).unwrap();
        assert_eq!(seen.hops.iter().map(|h| h.weight).collect::<Vec<_>>(), [1, 3]);
        nl.del_addr(11, net("192.0.2.1/24")).unwrap();
        assert!(nl.addrs(Some(11)).unwrap().iter().all(|x| x.addr != net("192.0.2.1/24")));
    }
}

sandbox_test! {
    fn many_routes_at_once() {
        let (a, _b) = pair();
        let mut nl = a.netlink();
        nl.add_addr(11, net("192.0.2.1/24")).unwrap();
        let prefix = |i: u32| IpNet::new(IpAddr::V4((0x0a00_0000 + (i << 8)).into()), 24).unwrap();
        let routes: Vec<_> = (0..1000).map(|i| KernelRoute::via(prefix(i), ip("192.0.2.2"))).collect();
        let start = Instant::now();
        nl.add_routes(&routes).unwrap();
        println!("1000 routes in {:?}", start.elapsed());
        assert_eq!(nl.routes(Family::Inet, 254).unwrap().len(), 1001);
        let e = nl.add_routes(&routes[7..9]).unwrap_err();
        assert!(e.is_exists() && e.to_string().contains("10.0.7.0/24"), "{e}");
    }
}

sandbox_test! {
    fn neighbors() {
        let (a, _b) = pair();
        let mut nl = a.netlink();
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        for addr in ["192.0.2.7", "2001:db8::7"] {
            nl.add_neighbor(11, ip(addr), mac).unwrap();
            let all = nl.neighbors(Some(11)).unwrap();
            let n = all.iter().find(|n| n.addr == ip(addr)).unwrap();
            assert_eq!((n.mac, n.state), (Some(mac), NeighborState::Permanent));
        }
        nl.flush_neighbors(11).unwrap();
        assert!(nl.neighbors(Some(11)).unwrap().iter().any(|n| n.addr == ip("192.0.2.7")));
        nl.del_neighbor(11, ip("192.0.2.7")).unwrap();
        assert!(nl.neighbors(Some(11)).unwrap().iter().all(|n| n.addr != ip("192.0.2.7")));
    }
}

/// Waits until the monitor has told something for which `want` holds.
fn await_event(monitor: &mut LinkMonitor, want: impl Fn(&LinkEvent) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if monitor.events().unwrap().iter().any(&want) {
            return;
        }
        let left = deadline.checked_duration_since(Instant::now()).expect("event in time");
        let fd = monitor.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::try_from(left).unwrap())).unwrap();
    }
}

sandbox_test! {
    fn monitor_tells_changes() {
        let (a, b) = pair();
        let mut monitor = a.run(LinkMonitor::open).unwrap();
        assert!(monitor.links().any(|l| l.name == "eth0"));
        b.netlink().set_up(12, false).unwrap();
        await_event(&mut monitor, |e| matches!(e, LinkEvent::Changed(l) if l.index == 11 && !l.lower_up && l.admin_up));
        b.netlink().set_up(12, true).unwrap();
        await_event(&mut monitor, |e| matches!(e, LinkEvent::Changed(l) if l.index == 11 && l.lower_up));
        // Far more events than any receive buffer holds: the final state is known all the same.
        for i in 0..3000 {
            a.netlink().set_mtu(11, 1280 + i % 200).unwrap();
        }
        a.netlink().set_mtu(11, 1499).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !monitor.links().any(|l| l.index == 11 && l.mtu == 1499) {
            monitor.events().unwrap();
            assert!(Instant::now() < deadline);
        }
        b.netlink().del_link(12).unwrap();
        await_event(&mut monitor, |e| matches!(e, LinkEvent::Removed(l) if l.name == "eth0"));
    }
}

sandbox_test! {
    fn settings_belong_to_the_namespace() {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        a.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        assert_eq!(a.sysctl("net.ipv4.ip_forward").unwrap(), "1");
        assert_eq!(b.sysctl("net.ipv4.ip_forward").unwrap(), "0");
        assert!(a.sysctl("net.ipv4.nope").is_err());
    }
}
