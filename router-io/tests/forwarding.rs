//! Real hosts at both ends, the running router between them, in network namespaces of the test's own. Offloads of the
//! virtual Ethernet stay as the kernel sets them: on.

use ipnet::IpNet;
use router_core::addr::parse_interface_addr;
use router_core::port::{Medium, PortKind};
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Instant as RouterInstant;
use router_io::lab::probe::{Ping, TcpTransfer, Traceroute, UdpExchange};
use router_io::lab::{Host, Net};
use router_io::port::open::PortConfig;
use router_io::port::pcap_file::{Reader, Writer};
use router_io::runtime::replay::Replay;
use router_io::runtime::{Control, Runtime, RuntimeConfig};
use router_io::sandbox_test;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(kind: PortKind, name: &str, addrs: &[&str]) -> PortConfig {
    PortConfig {
        addrs: addrs.iter().map(|a| parse_interface_addr(a).unwrap()).collect(),
        ..PortConfig::new(name, kind)
    }
}

fn start(host: &Host, workers: usize, ports: Vec<PortConfig>) -> Runtime {
    let runtime = host.run(|| Runtime::start(RuntimeConfig { workers, ..Default::default() })).unwrap();
    runtime.handle().call(move |c| ports.into_iter().try_for_each(|p| c.add_port(p).map(drop))).unwrap().unwrap();
    runtime
}

/// `dst via gateway` or `dst dev port`.
fn add_route(c: &mut Control, dst: &str, hop: &str) {
    let mut spec = RouteSpec::new(dst.parse::<IpNet>().unwrap());
    spec.hops = vec![match hop.parse() {
        Ok(via) => HopSpec { via: Some(via), weight: 1, ..HopSpec::default() },
        Err(_) => HopSpec { dev: Some(hop.to_owned()), weight: 1, ..HopSpec::default() },
    }];
    c.router_mut().routing_mut().route(RouteOp::Add, &spec).unwrap();
}

/// Ping of many sizes, UDP and TCP with their bytes compared.
fn exercise(a: &Host, b: &Host, dst: IpAddr, ping_to: usize) {
    // The first long ones may only teach both ends the path MTU.
    let _ = (0..2).any(|_| a.ping(&Ping::new(dst).size(ping_to)).unwrap().all_answered());
    for size in [1, 56, 100, 1000, 1400, ping_to] {
        let report = a.ping(&Ping::new(dst).size(size)).unwrap();
        assert!(report.all_answered(), "ping {dst} size {size}: {report:?}");
    }
    let exchange = UdpExchange::new(dst, 1200, 500);
    let report = a.udp_exchange(b, &exchange).unwrap();
    assert!(report.all_right(&exchange), "UDP to {dst}: {report:?}");
    let report = a.tcp_transfer(b, &TcpTransfer::new(dst, 8 << 20)).unwrap();
    assert!(report.all_right(), "TCP to {dst}: {report:?}");
    println!("TCP to {dst}: {:.0} and {:.0} Mbit/s", report.up.mbit_per_s(), report.down.mbit_per_s());
}

/// No frame was lost or counted twice; waits until nothing is under way.
fn assert_conserved(runtime: &Runtime) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let totals = runtime.handle().call(|c| c.totals()).unwrap();
        match totals.check() {
            Ok(()) => return println!("{totals:?}"),
            Err(e) if Instant::now() >= deadline => panic!("{e}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// a - r - b with addresses and routes at the ends.
fn three_hosts() -> Net {
    let mut net = Net::new();
    net.hosts(&["a", "r", "b"]).unwrap();
    net.link(("a", "eth0"), ("r", "lan")).unwrap();
    net.link(("r", "wan"), ("b", "eth0")).unwrap();
    net.addrs(&[("a", "eth0", "192.0.2.10/25"), ("b", "eth0", "192.0.2.200/25")]).unwrap();
    net.addrs(&[("a", "eth0", "2001:db8:1::10/64"), ("b", "eth0", "2001:db8:2::10/64")]).unwrap();
    net.wait_ready(LIMIT).unwrap();
    net.route("a", "default via 192.0.2.1").unwrap();
    net.route("b", "default via 192.0.2.129").unwrap();
    net.route("a", "::/0 via 2001:db8:1::1").unwrap();
    net.route("b", "::/0 via 2001:db8:2::1").unwrap();
    net
}

fn native(workers: usize) {
    let net = three_hosts();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let lan = port(PortKind::Packet, "lan", &["192.0.2.1/25", "2001:db8:1::1/64"]);
    let wan = port(PortKind::Packet, "wan", &["192.0.2.129/25", "2001:db8:2::1/64"]);
    let runtime = start(net.host("r").unwrap(), workers, vec![lan, wan]);
    exercise(a, b, ip("192.0.2.200"), 4000);
    exercise(a, b, ip("2001:db8:2::10"), 4000);
    for (dst, hop) in [("192.0.2.200", "192.0.2.1"), ("2001:db8:2::10", "2001:db8:1::1")] {
        let trace = a.traceroute(&Traceroute::new(ip(dst))).unwrap();
        assert_eq!(trace.path(), [Some(ip(hop)), Some(ip(dst))]);
    }
    assert_conserved(&runtime);
    runtime.stop().unwrap();
}

sandbox_test! {
    fn native_one_worker() {
        native(1);
    }
}

sandbox_test! {
    fn native_three_workers() {
        native(3);
    }
}

sandbox_test! {
    fn native_with_datalink_ports() {
        let net = three_hosts();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let lan = port(PortKind::Datalink, "lan", &["192.0.2.1/25", "2001:db8:1::1/64"]);
        let wan = port(PortKind::Datalink, "wan", &["192.0.2.129/25", "2001:db8:2::1/64"]);
        let runtime = start(net.host("r").unwrap(), 2, vec![lan, wan]);
        // Only ICMP: the ends leave TCP and UDP checksums to a device that does not exist.
        for dst in ["192.0.2.200", "2001:db8:2::10"] {
            for size in [1, 56, 1400, 4000] {
                let report = a.ping(&Ping::new(ip(dst)).size(size)).unwrap();
                assert!(report.all_answered(), "ping {dst} size {size}: {report:?}");
            }
        }
        let _ = b;
        assert_conserved(&runtime);
        runtime.stop().unwrap();
    }
}

// Two sites, each a host whose own stack has a TUN device and carries the tunnel by raw sockets, over a kernel router
// that knows only IPv4.
sandbox_test! {
    fn six_in_four_over_the_hosts_own_stack() {
        let mut net = Net::new();
        net.hosts(&["s1", "core", "s2"]).unwrap();
        net.link(("s1", "eth0"), ("core", "c1")).unwrap();
        net.link(("core", "c2"), ("s2", "eth0")).unwrap();
        net.addrs(&[("s1", "eth0", "198.51.100.1/25"), ("core", "c1", "198.51.100.2/25")]).unwrap();
        net.addrs(&[("s2", "eth0", "198.51.100.201/25"), ("core", "c2", "198.51.100.202/25")]).unwrap();
        net.kernel_router("core").unwrap();
        net.wait_ready(LIMIT).unwrap();
        net.route("s1", "default via 198.51.100.2").unwrap();
        net.route("s2", "default via 198.51.100.202").unwrap();
        let site = |name: &str, own: u16, local: &str, remote: &str| {
            let mut tun = port(PortKind::Tun, "tun0", &[&format!("2001:db8:{own}::1/64")]);
            tun.host_addrs = vec![parse_interface_addr(&format!("2001:db8:{own}::2/64")).unwrap()];
            let raw = PortConfig { local: Some(ip(local)), ..PortConfig::new("raw0", PortKind::RawIp) };
            let runtime = start(net.host(name).unwrap(), 1, vec![tun, raw]);
            let spec = TunnelSpec {
                name: "t0".into(),
                mode: TunnelMode::SixInFour,
                local: ip(local),
                remote: ip(remote),
                ttl: None,
                ttl_inherit: false,
                tos: None,
                nopmtudisc: false,
                mtu: None,
                dev: Some("raw0".into()),
                underlay_table: None,
                options: Default::default(),
            };
            runtime
                .handle()
                .call(move |c| {
                    let (router, now, _) = c.router_parts();
                    router.add_tunnel(now, spec, Vec::new()).unwrap();
                    add_route(c, &format!("2001:db8:{}::/64", 3 - own), "t0");
                })
                .unwrap();
            net.route(name, &format!("2001:db8:{}::/64 via 2001:db8:{own}::1", 3 - own)).unwrap();
            runtime
        };
        let r1 = site("s1", 1, "198.51.100.1", "198.51.100.201");
        let r2 = site("s2", 2, "198.51.100.201", "198.51.100.1");
        net.wait_ready(LIMIT).unwrap();
        let (s1, s2) = (net.host("s1").unwrap(), net.host("s2").unwrap());
        exercise(s1, s2, ip("2001:db8:2::2"), 4000);
        exercise(s2, s1, ip("2001:db8:1::2"), 4000);
        assert_conserved(&r1);
        assert_conserved(&r2);
        // A link on the way with a smaller MTU: the host's stack learns it, and so does the tunnel.
        net.set_mtu("core", "c2", 1400).unwrap();
        net.set_mtu("s2", "eth0", 1400).unwrap();
        let report = s1.tcp_transfer(s2, &TcpTransfer::new(ip("2001:db8:2::2"), 1 << 20)).unwrap();
        assert!(report.all_right(), "TCP over the smaller MTU: {report:?}");
        r1.stop().unwrap();
        r2.stop().unwrap();
    }
}

/// UDP from one capture to another network, and a packet whose hop limit runs out: twice the same bytes.
#[test]
fn a_replay_gives_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pcap");
    let mut w = Writer::new(std::fs::File::create(&input).unwrap(), Medium::Ip).unwrap();
    for i in 0..300u64 {
        let mut p = vec![0x60, 0, 0, 0, 0, 8, 17, if i % 10 == 0 { 1 } else { 64 }];
        p.extend("2001:db8:1::5".parse::<Ipv6Addr>().unwrap().octets());
        p.extend("2001:db8:2::5".parse::<Ipv6Addr>().unwrap().octets());
        p.extend([0, 1, 0, 2, 0, 8, 0, i as u8]);
        w.write(RouterInstant::from_nanos(1_700_000_000_000_000_000 + i * 1000), &p).unwrap();
    }
    drop(w);
    let run = |name: &str| {
        let (back, out) = (dir.path().join(format!("{name}-back.pcap")), dir.path().join(format!("{name}-out.pcap")));
        let mut replay = Replay::new(RuntimeConfig::default()).unwrap();
        let mut p0 = port(PortKind::Pcap, "p0", &["2001:db8:1::1/64"]);
        (p0.input, p0.output) = (Some(input.clone()), Some(back.clone()));
        let mut p1 = port(PortKind::Pcap, "p1", &["2001:db8:2::1/64"]);
        (p1.output, p1.medium) = (Some(out.clone()), Medium::Ip);
        replay.control().add_port(p0).unwrap();
        replay.control().add_port(p1).unwrap();
        let totals = replay.run().unwrap();
        totals.check().unwrap();
        assert_eq!(totals.received, 300);
        (std::fs::read(back).unwrap(), std::fs::read(out).unwrap(), totals)
    };
    let (first, second) = (run("1"), run("2"));
    assert_eq!(first, second);
    let (mut r, mut data, mut n) = (Reader::new(&first.1[..]).unwrap(), Vec::new(), 0u64);
    while let Some(at) = r.next(&mut data).unwrap() {
        n += 1;
        assert_eq!(data[7], 63);
        assert_eq!((at.as_nanos() - 1_700_000_000_000_000_000) / 1000 % 256, u64::from(data[47]));
    }
    assert_eq!(n, 270);
    // Time exceeded goes back, as far as the rate limit allows.
    assert!(first.0.len() > 24 + 16 + 40 && first.2.dropped.get("ttl_expired") == Some(&30), "{:?}", first.2);
}
