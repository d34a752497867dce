//! The router as the default router of a LAN: a Linux host makes its address and its default route from what the router
//! advertises, and reaches a host behind it. When the router ends, the host knows.

use router_io::lab::Host;
use router_io::lab::probe::{Ping, TcpTransfer};
use router_io::sandbox_test;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::ip;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const FAR: &str = "2001:db8:b::2";

/// Asks again and again until there is an answer.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The address that a host has made in 2001:db8:a::/64.
fn own_address(host: &Host) -> Option<IpAddr> {
    let prefix: ipnet::IpNet = "2001:db8:a::/64".parse().expect("prefix");
    let addrs = host.netlink().addrs(None).expect("addresses");
    addrs.iter().find(|a| prefix.contains(&a.addr.addr()) && !a.tentative).map(|a| a.addr.addr())
}

/// The gateway on a host's way to the far one.
fn gateway(host: &Host) -> Option<IpAddr> {
    host.netlink().lookup(ip(FAR)).ok().and_then(|found| found.gateway)
}

sandbox_test! {
    /// Proves rfc4861-6.2.4-host, rfc4861-6.2.6-host, rfc4861-6.2.5-host, rfc8504-5.6-ra.
    fn a_linux_host_autoconfigures_and_reaches_the_world() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("b", &["2001:db8:b::2/64"], &["default via 2001:db8:b::1"]).unwrap();
        // As a host is by default; labs switch it off.
        for (name, value) in [("accept_ra", "1"), ("autoconf", "1"), ("router_solicitations", "3")] {
            bed.host("a").set_sysctl(&format!("net.ipv6.conf.eth0.{name}"), value).unwrap();
        }
        let advertise = "advertise = { interval = \"1800s\", preference = \"high\", mtu = 1400, hop_limit = 33, \
                         dns = [\"2001:db8::53\"], search = [\"example.net\"], pref64 = \"64:ff9b::/96\" }\n";
        let r = RouterConfig::new("r")
            .port_with("left", &["2001:db8:a::1/64", "fe80::1/64"], advertise)
            .port("right", &["2001:db8:b::1/64"]);
        bed.router(Duet, &r).unwrap();
        let a = bed.host("a");
        let own = wait("an address", || own_address(a));
        let via = wait("a default route", || gateway(a));
        assert_eq!(via, ip("fe80::1"));
        let pinged = a.ping(&Ping::new(ip(FAR)).from(own).timeout(Duration::from_secs(10))).unwrap();
        assert!(pinged.all_answered(), "{pinged:?}");
        let carried = a.tcp_transfer(bed.host("b"), &TcpTransfer::new(ip(FAR), 300_000)).unwrap();
        assert!(carried.all_right(), "{carried:?}");
        assert_eq!(a.sysctl("net.ipv6.conf.eth0.mtu").unwrap(), "1400");
        assert_eq!(a.sysctl("net.ipv6.conf.eth0.hop_limit").unwrap(), "33");
        // A host that comes later asks, and does not wait half an hour for the next one.
        bed.net.set_up("a", "eth0", false).unwrap();
        wait("the address to go", || own_address(bed.host("a")).is_none().then_some(()));
        bed.net.set_up("a", "eth0", true).unwrap();
        wait("the address to come back", || own_address(bed.host("a")));
        wait("the route to come back", || gateway(bed.host("a")));
        // The router ends in order: no default route is left behind.
        bed.take("r").stop().unwrap();
        wait("the default route to go", || gateway(bed.host("a")).is_none().then_some(()));
    }
}
