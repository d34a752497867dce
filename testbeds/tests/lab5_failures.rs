//! Lab 5: multipath over next hops of both families, and things that fail: neighbours, links, devices, the process.

use router_core::addr::MacAddr;
use router_io::lab::Host;
use router_io::lab::probe::{Ping, PingReport, UdpExchange};
use router_io::netlink::KernelBlock;
use router_io::sandbox_test;
use std::time::{Duration, Instant};
use testbeds::lab::Dut::{self, Duet, Kernel};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
/// For everything that timers of RFC 4861 drive.
const PATIENCE: Duration = Duration::from_secs(30);

/// a - r = (s1 | s2) = b: r reaches s1 by an IPv4 next hop, s2 by an IPv6 one; the two take IPv4 further by IPv6. What b
/// answers goes straight to r.
fn diamond(dut: Dut) -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "r", "s1", "s2", "b"])?;
    bed.net.link(("a", "eth0"), ("r", "left"))?;
    bed.net.link(("r", "up"), ("s1", "left"))?;
    bed.net.link(("r", "down"), ("s2", "left"))?;
    bed.net.link(("s1", "right"), ("b", "eth0"))?;
    bed.net.link(("s2", "right"), ("b", "eth1"))?;
    bed.net.link(("r", "back"), ("b", "eth2"))?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"])?;
    bed.net.addrs(&[
        ("b", "eth0", "192.0.2.129/32"),
        ("b", "eth0", "2001:db8:3::2/64"),
        ("b", "eth1", "2001:db8:4::2/64"),
        ("b", "eth2", "2001:db8:5::2/64"),
    ])?;
    bed.net.route("b", "192.0.2.0/25 via inet6 2001:db8:5::1")?;
    // s1 has an IPv4 address on r's link, s2 none at all.
    let s1 = RouterConfig::new("s1")
        .port("left", &["10.0.1.2/24"])
        .port("right", &["2001:db8:3::1/64"])
        .route("192.0.2.129/32 via inet6 2001:db8:3::2");
    let s2 = RouterConfig::new("s2")
        .port("left", &["2001:db8:2::2/64"])
        .port("right", &["2001:db8:4::1/64"])
        .route("192.0.2.129/32 via inet6 2001:db8:4::2");
    bed.router(Kernel, &s1)?;
    bed.router(Kernel, &s2)?;
    let r = RouterConfig::new("r")
        .port("left", &["192.0.2.2/25"])
        .port("up", &["10.0.1.1/24"])
        .port("down", &["2001:db8:2::1/64"])
        .port("back", &["2001:db8:5::1/64"])
        .route("192.0.2.129/32 nexthop via 10.0.1.2 weight 1 nexthop via inet6 2001:db8:2::2 weight 1");
    bed.router(dut, &r)?;
    Ok(bed)
}

/// Packets that a device has received.
fn received(host: &Host, dev: &str) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(dev)?.strip_prefix(':')).expect("the device");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One UDP flow of 20 datagrams; gives how many frames came to s1 and to s2.
fn one_flow(bed: &Bed) -> (u64, u64) {
    let counts = || (received(bed.host("s1"), "left"), received(bed.host("s2"), "left"));
    let before = counts();
    let x = UdpExchange::new(ip("192.0.2.129"), 100, 20);
    let r = bed.host("a").udp_exchange(bed.host("b"), &x).unwrap();
    assert!(r.all_right(&x), "{r:?}");
    let after = counts();
    (after.0 - before.0, after.1 - before.1)
}

fn multipath(dut: Dut) {
    let bed = diamond(dut).unwrap();
    if dut == Kernel {
        // By default the kernel's hash leaves the ports out.
        bed.host("r").set_sysctl("net.ipv4.fib_multipath_hash_policy", "1").unwrap();
    }
    let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
    pair.reachable().unwrap();
    // Both next hops are resolved, so that what is counted is the flows.
    for _ in 0..8 {
        one_flow(&bed);
    }
    let (mut by_s1, mut by_s2) = (0, 0);
    for flow in 0..40 {
        match one_flow(&bed) {
            (up, down) if up >= 20 && down < 10 => by_s1 += 1,
            (up, down) if down >= 20 && up < 10 => by_s2 += 1,
            split => panic!("flow {flow} was split: {split:?}"),
        }
    }
    println!("40 flows: {by_s1} by the IPv4 next hop, {by_s2} by the IPv6 one");
    assert!(by_s1 >= 6 && by_s2 >= 6, "{by_s1} {by_s2}");
    pair.every_size().unwrap();
    pair.tcp().unwrap();
    bed.finish().unwrap();
}

sandbox_test! {
    fn multipath_kernel() {
        multipath(Kernel);
    }
}

sandbox_test! {
    fn multipath_duet() {
        multipath(Duet);
    }
}

sandbox_test! {
    fn multipath_survives_one_next_hop() {
        let bed = diamond(Duet).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
        pair.reachable().unwrap();
        for (dead, alive) in [("up", "down"), ("down", "up")] {
            // No carrier at r.
            let other = if dead == "up" { "s1" } else { "s2" };
            bed.net.set_up(other, "left", false).unwrap();
            pair.wait_reachable(PATIENCE).unwrap();
            let x = UdpExchange::new(ip("192.0.2.129"), 100, 5);
            // One flow may have been on the living side all the time: until as many in a row get through, the router may
            // not have heard of it yet.
            let deadline = std::time::Instant::now() + PATIENCE;
            let through = || pair.a.udp_exchange(pair.b, &x).unwrap().all_right(&x);
            while !(0..12).all(|_| through()) {
                assert!(std::time::Instant::now() < deadline, "{dead} is dead, {alive} is alive");
            }
            for _ in 0..12 {
                let r = pair.a.udp_exchange(pair.b, &x).unwrap();
                assert!(r.all_right(&x), "{dead} is dead, {alive} is alive: {r:?}");
            }
            bed.net.set_up(other, "left", true).unwrap();
            // The kernel drops IPv6 addresses of a device that goes down, unless told to keep them.
            let _ = bed.net.addr("s2", "left", "2001:db8:2::2/64");
            bed.ready().unwrap();
        }
        bed.finish().unwrap();
    }
}

/// a - r - b.
fn bed(dut: Dut) -> Result<Bed> {
    bed_with(dut, "")
}

/// As [`bed`], with further sections of r's configuration.
fn bed_with(dut: Dut, extra: &str) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    end_b(&bed)?;
    let r = RouterConfig::new("r")
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"])
        .route("203.0.113.0/24 via inet6 2001:db8:b::1")
        .extra(extra);
    bed.router(dut, &r)?;
    Ok(bed)
}

fn end_b(bed: &Bed) -> Result {
    bed.end(
        "b",
        &["192.0.2.129/25", "203.0.113.1/32", "2001:db8:b::1/64"],
        &["default via 192.0.2.130", "default via 2001:db8:b::2"],
    )
}

/// Both families, and IPv4 by an IPv6 next hop.
fn pairs(bed: &Bed) -> [Pair<'_>; 3] {
    [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1"), ("192.0.2.1", "203.0.113.1")]
        .map(|(a, b)| Pair::new(bed.host("a"), bed.host("b"), a, b))
}

/// Pings until an ICMP error comes back.
fn error_of(host: &Host, dst: &str) -> PingReport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let r = host.ping(&Ping::new(ip(dst)).timeout(Duration::from_secs(5))).unwrap();
        if !r.errors.is_empty() {
            return r;
        }
        assert!(Instant::now() < deadline, "no error: {r:?}");
    }
}

sandbox_test! {
    fn neighbor_fails_and_recovers() {
        let bed = bed(Duet).unwrap();
        let a = bed.host("a");
        for (dst, name, from) in [
            ("192.0.2.200", "host unreachable", "192.0.2.2"),
            ("2001:db8:b::99", "address unreachable", "2001:db8:a::2"),
        ] {
            let r = error_of(a, dst);
            assert_eq!((r.errors[0].name, r.errors[0].from), (name, ip(from)), "{r:?}");
            let shown = bed.duet("r").duet("neigh show").unwrap();
            assert!(shown.lines().any(|l| l.starts_with(dst) && l.contains("FAILED")), "{shown}");
        }
        // Now they appear.
        bed.net.addr("b", "eth0", "192.0.2.200/25").unwrap();
        bed.net.addr("b", "eth0", "2001:db8:b::99/64").unwrap();
        for (from, to) in [("192.0.2.1", "192.0.2.200"), ("2001:db8:a::1", "2001:db8:b::99")] {
            Pair::new(a, bed.host("b"), from, to).wait_reachable(PATIENCE).unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn neighbor_changes_its_link_layer_address() {
        // Faster than RFC 4861 10 says, for a test's sake.
        let fast = "[neighbor]\nreachable_time = \"1s\"\ndelay_first_probe = \"200ms\"\nretrans_timer = \"200ms\"\n";
        let bed = bed_with(Duet, fast).unwrap();
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
        }
        let index = bed.host("b").netlink().link_index("eth0").unwrap();
        bed.host("b").netlink().set_mac(index, MacAddr([2, 0xff, 0, 0, 0, 1])).unwrap();
        // Unreachability detection finds out (RFC 4861 7.3); or b's own traffic tells.
        for pair in pairs(&bed) {
            pair.wait_reachable(PATIENCE).unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn link_down_and_up() {
        let bed = bed(Duet).unwrap();
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
        }
        for round in 0..3 {
            // At the router itself, or at the other end, so that only the carrier goes.
            let (host, dev) = if round % 2 == 0 { ("b", "eth0") } else { ("r", "right") };
            bed.net.set_up(host, dev, false).unwrap();
            for dst in ["192.0.2.129", "2001:db8:b::1", "203.0.113.1"] {
                let r = error_of(bed.host("a"), dst);
                assert!(r.errors[0].name.contains("unreachable") || r.errors[0].name == "no route", "{r:?}");
            }
            // The other side of the router does not care.
            let near = Ping::new(ip("192.0.2.2"));
            assert!(bed.host("a").ping(&near).unwrap().all_answered());
            bed.net.set_up(host, dev, true).unwrap();
            let _ = end_b(&bed);
            for (addr, route) in [("2001:db8:b::1/64", "default via 2001:db8:b::2"), ("192.0.2.129/25", "default via 192.0.2.130")] {
                let _ = bed.net.addr("b", "eth0", addr);
                let _ = bed.net.route("b", route);
            }
            bed.ready().unwrap();
            for pair in pairs(&bed) {
                pair.wait_reachable(PATIENCE).unwrap();
            }
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn device_vanishes_and_comes_back() {
        let mut bed = bed(Duet).unwrap();
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
        }
        let index = bed.host("r").netlink().link_index("right").unwrap();
        bed.host("r").netlink().del_link(index).unwrap();
        for dst in ["192.0.2.129", "2001:db8:b::1", "203.0.113.1"] {
            let r = error_of(bed.host("a"), dst);
            assert!(r.errors[0].name.contains("unreachable") || r.errors[0].name == "no route", "{r:?}");
        }
        // The router lives: it answers pings and commands.
        assert!(bed.host("a").ping(&Ping::new(ip("192.0.2.2"))).unwrap().all_answered());
        let shown = bed.duet("r").duet("link show").unwrap();
        assert!(shown.contains("right"), "{shown}");
        // A device of the same name is the same port.
        bed.net.link(("r", "right"), ("b", "eth0")).unwrap();
        bed.ready().unwrap();
        end_b(&bed).unwrap();
        for pair in pairs(&bed) {
            pair.wait_reachable(PATIENCE).unwrap();
            pair.tcp().unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn killed_and_started_again() {
        let mut bed = bed(Duet).unwrap();
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
        }
        let toml = std::fs::read_to_string(bed.duet("r").config()).unwrap();
        let mut killed = bed.take("r");
        killed.process().kill().unwrap();
        // What the dead process could not undo: its socket file, and its hold on the devices.
        assert!(killed.socket().exists());
        let index = bed.host("r").netlink().link_index("left").unwrap();
        assert!(bed.host("r").run(|| KernelBlock::is_installed(index)).unwrap());
        bed.restart("r", &toml).unwrap();
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
            pair.tcp().unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn second_router_on_the_same_socket_is_refused() {
        let bed = bed(Duet).unwrap();
        let r = bed.duet("r");
        let (config, socket) = (r.config().to_str().unwrap(), r.socket().to_str().unwrap());
        let outcome = r.ask(&["run", config, "--socket", socket], b"").unwrap();
        assert_ne!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stderr.contains("another duet is running"), "{outcome:?}");
        for pair in pairs(&bed) {
            pair.reachable().unwrap();
        }
        bed.finish().unwrap();
    }
}
