//! Flow offload: established flows between `packet` ports are forwarded in the kernel, and as the router would.

use router_io::lab::Host;
use router_io::lab::probe::TcpTransfer;
use router_io::sandbox_test;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

const ON: &str = "[offload]\nflows = true\n";
/// How long a flow may take to be offloaded.
const PATIENCE: Duration = Duration::from_secs(20);

/// a - r - b and r - c; b and c both have 203.0.113.9 and 2001:db8:99::9.
fn fork(offload: &str) -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "r", "b", "c"])?;
    for (host, dev) in [("a", "left"), ("b", "right"), ("c", "other")] {
        bed.net.link((host, "eth0"), ("r", dev))?;
    }
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    bed.end("c", &["198.51.100.1/24", "2001:db8:c::1/64"], &["default via 198.51.100.2", "default via 2001:db8:c::2"])?;
    for host in ["b", "c"] {
        bed.net.addr(host, "lo", "203.0.113.9/32")?;
        bed.net.addr(host, "lo", "2001:db8:99::9/128")?;
    }
    let r = RouterConfig::new("r")
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"])
        .port("other", &["198.51.100.2/24", "2001:db8:c::2/64"])
        .extra(offload)
        .extra("[filter.nothing]\nrules = [\"deny udp dport 4242\", \"allow\"]\n")
        .route("203.0.113.0/24 via 192.0.2.129")
        .route("2001:db8:99::/64 via 2001:db8:b::1");
    bed.router(Dut::Duet, &r)?;
    Ok(bed)
}

/// Whether this kernel can; said if not.
fn possible() -> bool {
    match router_io::offload::probe() {
        Ok(()) => true,
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            false
        }
    }
}

/// Frames and bytes that `router` has offloaded.
fn offloaded(bed: &Bed, router: &str) -> (u64, u64) {
    let info = bed.duet(router).json("flow show -j").unwrap();
    let status = &info["status"];
    assert_eq!(status["failed"], 0, "{status}");
    (status["packets"].as_u64().unwrap(), status["bytes"].as_u64().unwrap())
}

/// A UDP flow from host `a`, one datagram at a time.
struct Flow {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Flow {
    fn new(from: &Host, addr: &str, to: &str) -> Flow {
        let bind = SocketAddr::new(ip(addr), 0);
        let socket = from.run(|| UdpSocket::bind(bind)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Flow { socket, to: SocketAddr::new(ip(to), 4242) }
    }

    fn send(&self, payload: &[u8]) -> std::io::Result<usize> {
        self.socket.send_to(payload, self.to)
    }

    /// Sends until the router says that datagrams of the flow go by the kernel.
    fn until_offloaded(&self, bed: &Bed, router: &str) {
        let deadline = Instant::now() + PATIENCE;
        let port = self.socket.local_addr().unwrap().port();
        let packets = |bed: &Bed| {
            let info = bed.duet(router).json("flow show -j").unwrap();
            let flows = info["flows"].as_array().unwrap().clone();
            let mine = flows.iter().find(|f| f["sport"] == port && f["stale"].is_null());
            mine.map_or(0, |f| f["packets"].as_u64().unwrap())
        };
        while packets(bed) == 0 {
            assert!(Instant::now() < deadline, "not offloaded: {}", bed.duet(router).duet("flow").unwrap());
            self.send(b"warming up").unwrap();
        }
    }
}

/// Who gets what is sent to port 4242 of an address.
struct Sink(UdpSocket);

impl Sink {
    fn new(host: &Host, addr: &str) -> Sink {
        let bind = SocketAddr::new(ip(addr), 4242);
        let socket = host.run(|| UdpSocket::bind(bind)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Sink(socket)
    }

    /// Everything that waits.
    fn take(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 65_536];
        let mut got = Vec::new();
        while let Ok(n) = self.0.recv(&mut buffer) {
            got.push(buffer[..n].to_vec());
        }
        got
    }

    /// Waits for this datagram.
    fn expect(&self, want: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.take().iter().any(|d| d == want) {
            assert!(Instant::now() < deadline, "{} did not come", String::from_utf8_lossy(want));
            std::thread::yield_now();
        }
    }
}

/// TCP both ways with every byte compared, nearly all of it offloaded.
fn big_tcp(bed: &Bed, router: &str, pair: Pair<'_>, share: u64) {
    const BYTES: u64 = 400 << 20;
    let before = offloaded(bed, router).1;
    let t = TcpTransfer { limit: Duration::from_secs(200), ..TcpTransfer::new(pair.addr_b, BYTES) };
    let r = pair.a.tcp_transfer(pair.b, &t).unwrap();
    assert!(r.all_right(), "{r:?}");
    let bytes = offloaded(bed, router).1 - before;
    println!(
        "tcp to {}: {:.0} Mbit/s up, {:.0} down, {} of {} MiB offloaded",
        pair.addr_b,
        r.up.mbit_per_s(),
        r.down.mbit_per_s(),
        bytes >> 20,
        2 * BYTES >> 20
    );
    assert!(bytes > 2 * BYTES / 100 * share, "{bytes} bytes offloaded: {}", bed.duet(router).duet("flow").unwrap());
}

sandbox_test! {
    fn tcp_goes_by_the_kernel() {
        if !possible() {
            return;
        }
        let bed = fork(ON).unwrap();
        for (from, to, hops) in [
            ("192.0.2.1", "192.0.2.129", ["192.0.2.2", "192.0.2.129"]),
            ("2001:db8:a::1", "2001:db8:b::1", ["2001:db8:a::2", "2001:db8:b::1"]),
        ] {
            let pair = Pair::new(bed.host("a"), bed.host("b"), from, to);
            pair.reachable().unwrap();
            big_tcp(&bed, "r", pair, 90);
            // All else is as ever.
            pair.all(1500, &hops).unwrap();
        }
        // The ports' counters include it: both directions, both families.
        let stats = bed.stats("r").unwrap();
        let (frames, bytes) = offloaded(&bed, "r");
        for port in ["left", "right"] {
            let p = stats.port(port);
            assert!(p.rx_bytes + p.tx_bytes > bytes && p.rx_packets + p.tx_packets > frames, "{port}: {p:?}");
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn checksums_are_right_on_the_wire() {
        if !possible() {
            return;
        }
        // The router's devices can do nothing: its kernel cuts super-frames and finishes checksums, and the ends check them.
        let bed = fork(ON).unwrap();
        for dev in ["left", "right"] {
            bed.net.plain_device("r", dev).unwrap();
        }
        for (from, to) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            let pair = Pair::new(bed.host("a"), bed.host("b"), from, to);
            pair.reachable().unwrap();
            big_tcp(&bed, "r", pair, 80);
            let b = Sink::new(bed.host("b"), to);
            let flow = Flow::new(bed.host("a"), from, to);
            flow.until_offloaded(&bed, "r");
            // Shorter than a frame may be, odd, and as long as fits.
            for len in [0usize, 1, 2, 3, 17, 18, 100, 1001, 1452] {
                let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
                flow.send(&payload).unwrap();
                b.expect(&payload);
            }
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn what_changes_counts_at_once() {
        if !possible() {
            return;
        }
        let bed = fork(ON).unwrap();
        let r = || bed.duet("r");
        for (from, to, via_b, via_c, net) in [
            ("192.0.2.1", "203.0.113.9", "192.0.2.129", "198.51.100.1", "203.0.113.0/24"),
            ("2001:db8:a::1", "2001:db8:99::9", "2001:db8:b::1", "2001:db8:c::1", "2001:db8:99::/64"),
        ] {
            for host in ["b", "c"] {
                let addr = if host == "b" { via_b } else { via_c };
                Pair::new(bed.host("a"), bed.host(host), from, addr).reachable().unwrap();
            }
            let (b, c) = (Sink::new(bed.host("b"), to), Sink::new(bed.host("c"), to));
            let flow = Flow::new(bed.host("a"), from, to);
            // To and fro: what is sent after the answer of the command takes the new way, and only that.
            for round in 0..5 {
                for (sink, other, via) in [(&c, &b, via_c), (&b, &c, via_b)] {
                    flow.until_offloaded(&bed, "r");
                    r().duet(&format!("route replace {net} via {via}")).unwrap();
                    other.take();
                    for i in 0..50 {
                        flow.send(format!("round {round} {i} by {via}").as_bytes()).unwrap();
                    }
                    sink.expect(format!("round {round} 49 by {via}").as_bytes());
                    let stray: Vec<_> = other.take().into_iter().filter(|d| d != b"warming up").collect();
                    assert!(stray.is_empty(), "went the old way: {stray:?}");
                }
            }
            // No way at all.
            flow.until_offloaded(&bed, "r");
            r().duet(&format!("route replace prohibit {net}")).unwrap();
            b.take();
            flow.send(b"prohibited").unwrap();
            Pair::new(bed.host("a"), bed.host("b"), from, via_b).reachable().unwrap();
            assert!(b.take().iter().all(|d| d == b"warming up"));
            r().duet(&format!("route replace {net} via {via_b}")).unwrap();
            // A filter: of the way in, then of the way out.
            for (port, reason) in [("left in", "filter_in"), ("right out", "filter_out")] {
                flow.until_offloaded(&bed, "r");
                let before = bed.stats("r").unwrap().drops(reason);
                r().duet(&format!("filter set dev {port} nothing")).unwrap();
                b.take();
                for _ in 0..20 {
                    flow.send(b"filtered").unwrap();
                }
                wait(|| bed.stats("r").unwrap().drops(reason) >= before + 20);
                assert!(b.take().iter().all(|d| d == b"warming up"), "{port}");
                r().duet(&format!("filter set dev {port} none")).unwrap();
            }
            // The port goes down, and comes back.
            flow.until_offloaded(&bed, "r");
            r().duet("link set right down").unwrap();
            b.take();
            for _ in 0..20 {
                flow.send(b"down").unwrap();
            }
            Pair::new(bed.host("a"), bed.host("c"), from, via_c).reachable().unwrap();
            assert!(b.take().iter().all(|d| d == b"warming up"));
            r().duet("link set right up").unwrap();
            if to.contains(':') {
                // The kernel's default router is found again once the address is.
                Pair::new(bed.host("a"), bed.host("b"), from, via_b).wait_reachable(PATIENCE).unwrap();
            }
            // The next hop has another link-layer address.
            flow.until_offloaded(&bed, "r");
            r().duet(&format!("neigh replace {via_b} lladdr 02:00:00:00:00:77 dev right")).unwrap();
            b.take();
            for _ in 0..20 {
                flow.send(b"to another station").unwrap();
            }
            Pair::new(bed.host("a"), bed.host("c"), from, via_c).reachable().unwrap();
            assert!(b.take().iter().all(|d| d == b"warming up"));
            r().duet(&format!("neigh del {via_b} dev right")).unwrap();
            Pair::new(bed.host("a"), bed.host("b"), from, via_b).wait_reachable(PATIENCE).unwrap();
            // Whoever captures sees every packet, and offloading goes on when he goes.
            flow.until_offloaded(&bed, "r");
            r().duet(&format!("trace add dst host {to} and udp count 30")).unwrap();
            let suspended = || r().json("flow show -j").unwrap()["status"]["suspended"].is_string();
            wait(suspended);
            for _ in 0..30 {
                flow.send(b"traced").unwrap();
            }
            wait(|| r().json("trace show -j").unwrap()[0]["packets"].as_array().is_some_and(|p| p.len() == 30));
            r().duet("trace clear").unwrap();
            wait(|| !suspended());
            flow.until_offloaded(&bed, "r");
        }
        bed.finish().unwrap();
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::yield_now();
    }
}

sandbox_test! {
    fn errors_are_the_routers() {
        if !possible() {
            return;
        }
        let bed = fork(ON).unwrap();
        for (from, to) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            let pair = Pair::new(bed.host("a"), bed.host("b"), from, to);
            pair.reachable().unwrap();
            let b = Sink::new(bed.host("b"), to);
            let flow = Flow::new(bed.host("a"), from, to);
            flow.until_offloaded(&bed, "r");
            // TTL 1 of the very flow: dropped by the router, with an answer.
            let before = bed.stats("r").unwrap().drops("ttl_expired");
            let set = |ttl: u32| match to.contains(':') {
                true => rustix::net::sockopt::set_ipv6_unicast_hops(&flow.socket, Some(ttl as u8)),
                false => rustix::net::sockopt::set_ip_ttl(&flow.socket, ttl),
            };
            set(1).unwrap();
            b.take();
            flow.send(b"short-lived").unwrap();
            wait(|| bed.stats("r").unwrap().drops("ttl_expired") == before + 1);
            set(64).unwrap();
            flow.send(b"long-lived").unwrap();
            b.expect(b"long-lived");
            // A narrower way out: what was offloaded in full size is refused with the new MTU.
            flow.until_offloaded(&bed, "r");
            bed.duet("r").duet("link set right mtu 1300").unwrap();
            pair.learns_mtu(1300).unwrap();
            flow.until_offloaded(&bed, "r");
            bed.duet("r").duet("link set right mtu 1500").unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn a_killed_router_leaves_nothing() {
        if !possible() {
            return;
        }
        let mut bed = fork(ON).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
        pair.reachable().unwrap();
        Flow::new(bed.host("a"), "192.0.2.1", "192.0.2.129").until_offloaded(&bed, "r");
        let programs = |bed: &Bed| -> Vec<u32> {
            let host = bed.host("r");
            let links = host.netlink().links().unwrap();
            links.iter().map(|l| host.run(|| router_io::offload::programs_on(l.index)).unwrap()).collect()
        };
        assert_eq!(programs(&bed).iter().sum::<u32>(), 3, "one on each port");
        bed.duet_mut("r").process().kill().unwrap();
        drop(bed.take("r"));
        wait(|| programs(&bed).iter().sum::<u32>() == 0);
    }
}

sandbox_test! {
    fn a_flood_of_flows_fills_no_more_than_the_table() {
        if !possible() {
            return;
        }
        let bed = fork("[offload]\nflows = true\nmax = 500\n").unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
        pair.reachable().unwrap();
        let sockets: Vec<UdpSocket> =
            (0..20).map(|_| bed.host("a").run(|| UdpSocket::bind("192.0.2.1:0")).unwrap()).collect();
        let start = Instant::now();
        let mut most = 0;
        for i in 0..200_000u32 {
            let to = SocketAddr::new(ip("203.0.113.7"), 10_000 + (i / 20 % 10_000) as u16);
            // A full socket buffer is no failure of the router.
            let _ = sockets[i as usize % 20].send_to(b"one of many", to);
            if i.is_multiple_of(10_000) {
                let status = bed.duet("r").json("flow show -j").unwrap()["status"].clone();
                most = most.max(status["flows"].as_u64().unwrap());
            }
        }
        println!("200000 flows in {:?}, at most {most} in the table", start.elapsed());
        assert!(most <= 500 && most > 50, "{most}");
        // Room comes back.
        Flow::new(bed.host("a"), "192.0.2.1", "192.0.2.129").until_offloaded(&bed, "r");
        pair.tcp().unwrap();
        bed.finish().unwrap();
    }
}

/// a - r1 - r2 - b with a tunnel between the routers.
fn tunnel(extra: &str) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["2001:db8:a::1/64"], &["default via 2001:db8:a::2"])?;
    bed.end("b", &["2001:db8:b::1/64"], &["default via 2001:db8:b::2"])?;
    for (name, near, far, own, other, inside, outside, net) in [
        (
            "r1",
            "left",
            "right",
            "198.51.100.1",
            "198.51.100.2",
            "2001:db8:a::2/64",
            "2001:db8:ff::1",
            "2001:db8:b::/48",
        ),
        (
            "r2",
            "right",
            "left",
            "198.51.100.2",
            "198.51.100.1",
            "2001:db8:b::2/64",
            "2001:db8:ff::2",
            "2001:db8:a::/48",
        ),
    ] {
        let peer = if name == "r1" { "2001:db8:ff::2" } else { "2001:db8:ff::1" };
        let r = RouterConfig::new(name)
            .port(near, &[inside])
            .port(far, &[&format!("{own}/24")])
            .extra(ON)
            .extra(&format!(
                "[tunnel.site]\nmode = \"6in4\"\nlocal = \"{own}\"\nremote = \"{other}\"\n\
                 address = [\"{outside}/64\"]\n{extra}"
            ))
            .route(&format!("{net} via {peer}"));
        bed.router(Dut::Duet, &r)?;
    }
    Ok(bed)
}

sandbox_test! {
    fn into_a_tunnel() {
        if !possible() {
            return;
        }
        let bed = tunnel("").unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.reachable().unwrap();
        pair.discovers_mtu(1480, 1).unwrap();
        pair.swapped().discovers_mtu(1480, 1).unwrap();
        // Each router offloads what enters the tunnel; what leaves it takes the general way.
        let before = offloaded(&bed, "r1").1;
        big_tcp(&bed, "r1", pair, 40);
        assert!(offloaded(&bed, "r1").1 > before);
        let tunnel = bed.stats("r1").unwrap().port("site");
        assert!(tunnel.tx_bytes > 380 << 20, "{tunnel:?}");
        pair.every_size().unwrap();
        pair.udp().unwrap();
        bed.finish().unwrap();
    }
}
