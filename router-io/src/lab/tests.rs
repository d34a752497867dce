//! Probes between hosts and a router that are all the kernel's: what the lab itself says must be right first.

use super::probe::{Ping, PingSweep, PmtuDisc, TcpTransfer, Traceroute, UdpExchange};
use super::*;
use crate::sandbox_test;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const READY: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// a - r - s - b: two kernel routers; the middle link has MTU 1300. IPv4 crosses the middle by IPv6 next hops.
fn chain() -> Net {
    let mut net = Net::new();
    net.hosts(&["a", "r", "s", "b"]).unwrap();
    net.link(("a", "eth0"), ("r", "lan")).unwrap();
    net.link_mtu(("r", "mid"), ("s", "mid"), 1300).unwrap();
    net.link(("s", "lan"), ("b", "eth0")).unwrap();
    net.kernel_router("r").unwrap();
    net.kernel_router("s").unwrap();
    net.addrs(&[
        ("a", "eth0", "192.0.2.1/25"),
        ("a", "eth0", "2001:db8:a::1/64"),
        ("r", "lan", "192.0.2.2/25"),
        ("r", "lan", "2001:db8:a::2/64"),
        ("r", "mid", "2001:db8:f::1/64"),
        ("s", "mid", "2001:db8:f::2/64"),
        ("s", "lan", "192.0.2.129/25"),
        ("s", "lan", "2001:db8:b::2/64"),
        ("b", "eth0", "192.0.2.130/25"),
        ("b", "eth0", "2001:db8:b::1/64"),
    ])
    .unwrap();
    net.wait_ready(READY).unwrap();
    for (host, route) in [
        ("a", "default via 192.0.2.2"),
        ("a", "default via 2001:db8:a::2"),
        ("r", "192.0.2.128/25 via inet6 2001:db8:f::2"),
        ("r", "2001:db8:b::/64 via 2001:db8:f::2"),
        ("s", "192.0.2.0/25 via inet6 2001:db8:f::1"),
        ("s", "2001:db8:a::/64 via 2001:db8:f::1"),
        ("b", "default via 192.0.2.129"),
        ("b", "default via 2001:db8:b::2"),
    ] {
        net.route(host, route).unwrap();
    }
    net
}

sandbox_test! {
    fn ping_both_families() {
        let net = chain();
        let a = net.host("a").unwrap();
        for dst in [ip("192.0.2.130"), ip("2001:db8:b::1")] {
            let r = a.ping(&Ping::new(dst).count(3)).unwrap();
            assert!(r.all_answered(), "{r:?}");
            assert_eq!((r.reply_ttl, r.reply_from), (Some(62), Some(dst)));
            for size in [0, 1, 7, 1000] {
                assert!(a.ping(&Ping::new(dst).size(size)).unwrap().all_answered(), "{size}");
            }
            // DF clear; IPv6 ends fragment themselves, once each of them has learned the path MTU.
            let big = a.ping(&Ping::new(dst).size(5000).count(3).pmtu_disc(PmtuDisc::Dont)).unwrap();
            assert!(big.received > 0, "{big:?}");
            let dead = a.ping(&Ping::new(dst).ttl(1)).unwrap();
            assert_eq!(dead.errors[0].name, "time exceeded");
            assert_eq!((dead.sent, dead.received), (1, 0));
        }
        let lo = a.ping(&Ping::new(ip("127.0.0.1"))).unwrap();
        assert!(lo.all_answered());
        // No such host behind s: its error comes from the router that looked for it.
        let none = a.ping(&Ping::new(ip("2001:db8:b::99")).timeout(Duration::from_secs(5))).unwrap();
        assert_eq!((none.errors[0].name, none.errors[0].from), ("address unreachable", ip("2001:db8:f::2")));
        let refused = net.host("r").unwrap().ping(&Ping::new(ip("203.0.113.1"))).unwrap();
        assert_eq!((refused.sent, refused.refused.len()), (0, 1));
    }
}

sandbox_test! {
    fn ping_of_every_size() {
        let net = chain();
        let a = net.host("a").unwrap();
        for dst in [ip("192.0.2.130"), ip("2001:db8:b::1")] {
            // The ends learn the path MTU first.
            for _ in 0..3 {
                let _ = a.ping(&Ping::new(dst).size(1450).timeout(Duration::from_millis(200))).unwrap();
            }
            let r = a.ping_sweep(&PingSweep::new(dst, 0..=1600)).unwrap();
            assert!(r.all_answered() && r.received == 1601, "{r:?}");
        }
    }
}

sandbox_test! {
    fn path_mtu_is_learned() {
        let net = chain();
        let a = net.host("a").unwrap();
        for (dst, overhead) in [(ip("192.0.2.130"), 28), (ip("2001:db8:b::1"), 48)] {
            assert_eq!(a.path_mtu(dst).unwrap(), 1500);
            assert_eq!(a.netlink().lookup(dst).unwrap().mtu, None);
            let ping = Ping::new(dst).pmtu_disc(PmtuDisc::Do);
            let r = a.ping(&ping.clone().size(1500 - overhead)).unwrap();
            assert_eq!((r.received, r.errors[0].mtu), (0, Some(1300)), "{r:?}");
            assert_eq!(a.path_mtu(dst).unwrap(), 1300);
            assert_eq!(a.netlink().lookup(dst).unwrap().mtu, Some(1300));
            assert_eq!(a.ping(&ping.clone().size(1301 - overhead)).unwrap().too_long, 1);
            assert!(a.ping(&ping.size(1300 - overhead)).unwrap().all_answered());
        }
    }
}

sandbox_test! {
    fn traceroute_shows_each_router() {
        let net = chain();
        let a = net.host("a").unwrap();
        let r = a.traceroute(&Traceroute::new(ip("2001:db8:b::1"))).unwrap();
        let want = ["2001:db8:a::2", "2001:db8:f::2", "2001:db8:b::1"].map(|t| Some(ip(t)));
        assert!(r.reached && r.path() == want, "{r:?}");
        // The second router answers with the only IPv4 address that it has.
        let r = a.traceroute(&Traceroute::new(ip("192.0.2.130"))).unwrap();
        let want = ["192.0.2.2", "192.0.2.129", "192.0.2.130"].map(|t| Some(ip(t)));
        assert!(r.reached && r.path() == want, "{r:?}");
        assert_eq!(r.hops[2].name, Some("port unreachable"));
        net.set_up("s", "mid", false).unwrap();
        let trace = Traceroute::new(ip("192.0.2.130")).max_hops(3).timeout(Duration::from_millis(50));
        let r = a.traceroute(&trace).unwrap();
        assert!(!r.reached, "{r:?}");
    }
}

sandbox_test! {
    fn bytes_arrive_as_they_were() {
        let net = chain();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        for (to_b, to_a) in [("192.0.2.130", "192.0.2.1"), ("2001:db8:b::1", "2001:db8:a::1")] {
            let t = a.tcp_transfer(b, &TcpTransfer::new(ip(to_b), 3_000_001)).unwrap();
            assert!(t.all_right(), "{t:?}");
            println!("{:.0} Mbit/s up, {:.0} down", t.up.mbit_per_s(), t.down.mbit_per_s());
            for size in [5, 100, 1200, 4000] {
                for (from, to, addr) in [(a, b, to_b), (b, a, to_a)] {
                    // Packets beyond the MTU of the middle link are lost until the kernel has learned it.
                    let first = UdpExchange::new(ip(addr), size, 3);
                    let _ = from.udp_exchange(to, &UdpExchange { timeout: Duration::from_millis(200), ..first });
                    let x = UdpExchange::new(ip(addr), size, 50);
                    let r = from.udp_exchange(to, &x).unwrap();
                    assert!(r.all_right(&x), "{size}: {r:?}");
                }
            }
        }
        let t = TcpTransfer { limit: Duration::from_millis(300), ..TcpTransfer::new(ip("192.0.2.130"), 10) };
        net.set_up("s", "mid", false).unwrap();
        let broken = a.tcp_transfer(b, &t).unwrap();
        assert!(!broken.all_right() && broken.error.is_some(), "{broken:?}");
    }
}

sandbox_test! {
    fn programs_die_with_their_host() {
        let host = Host::new("a").unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.args(["lab::tests::helper_waits", "--exact", "--ignored"]).env("DUET_TEST_WAIT", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = host.spawn(command).unwrap();
        let ns = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let own = host.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        assert_eq!(ns(child.id()), own);
        assert_ne!(ns(std::process::id()), own);
        assert!(child.try_wait().unwrap().is_none());
        let hint = host.enter_hint();
        let path = hint.split_once("--net=").unwrap().1;
        assert_eq!(std::fs::read_link(path).unwrap(), own);
        drop(host);
        let status = child.wait(READY).unwrap().expect("killed");
        assert!(!status.success());
    }
}

#[test]
#[ignore = "helper of other tests: waits until it is killed"]
fn helper_waits() {
    if std::env::var_os("DUET_TEST_WAIT").is_some() {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    }
}

sandbox_test! {
    fn threads_live_in_the_host() {
        let host = Host::new("a").unwrap();
        let ns = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let own = host.run(ns);
        assert_eq!(host.thread("server", ns).unwrap().join().unwrap(), own);
        assert_ne!(ns(), own);
        assert!(sandbox::is_inside());
        let dir = sandbox::private_dir().unwrap();
        std::fs::write(dir.join("x"), "y").unwrap();
    }
}

#[test]
fn killing_the_outer_process_ends_the_sandbox() {
    let mut command = Command::new("/proc/self/exe");
    command.args(["lab::tests::helper_enters", "--exact", "--ignored", "--nocapture"]).env("DUET_TEST_ENTER", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut outer = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(outer.stdout.take().unwrap()));
    let said = lines.map_while(Result::ok).find_map(|l| Some(l.split_once("helper: ")?.1.to_owned()));
    outer.kill().unwrap();
    outer.wait().unwrap();
    let said = said.expect("the helper says how it went");
    let Some(pid) = said.strip_prefix("pid ") else {
        // Namespaces are not permitted here; the other tests say so on standard error.
        return;
    };
    let gone = || {
        // Gone, or waiting for init to collect it.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    let deadline = std::time::Instant::now() + READY;
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "process {pid} is still there");
    }
}

#[test]
#[ignore = "helper of another test: enters a sandbox and waits until it is killed"]
fn helper_enters() {
    if std::env::var_os("DUET_TEST_ENTER").is_none() {
        return;
    }
    match sandbox::enter() {
        Ok(sandbox::Side::Inside) => println!("helper: pid {}", std::process::id()),
        Ok(sandbox::Side::Outside(_)) => return,
        Err(sandbox::SandboxError::NotPermitted(_)) => println!("helper: not permitted"),
        Err(e) => panic!("{e}"),
    }
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}
