//! Flow offload: established flows between `packet` ports are forwarded in the kernel, and as the router would.

use router_core::frame::Frame;
use router_io::lab::Host;
use router_io::lab::probe::TcpTransfer;
use router_io::port::packet::{self, PacketOptions, PacketQueue};
use router_io::port::{Receive, Transmit};
use router_io::sandbox_test;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Dut, Result, RouterConfig};
use testbeds::sim::packets;

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
        (2 * BYTES) >> 20
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

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % n
    }
}

/// A frame of one of the flows, more or less spoilt.
fn spoilt(random: &mut Random, macs: &[u8], flow: &PacketFlow) -> Vec<u8> {
    let payload = vec![7; [0, 1, 2, 5, 100, 1000, 1440, 1452, 1472, 1473][random.below(10)]];
    let ttl = [1, 2, 64, 255][random.below(4)];
    let df = random.below(2) == 0;
    let mut p = flow.packet(ttl, df, &payload);
    let (l4, v6) = if p[0] >> 4 == 6 { (40, true) } else { (20, false) };
    let len = p.len();
    let mut fix = false;
    match random.below(24) {
        0 => p[random.below(len.min(64))] ^= 1 << random.below(8),
        1 => p[random.below(len.min(64))] = random.below(256) as u8,
        2 => p.truncate(random.below(len)),
        3 => p.extend(vec![0; random.below(40)]),
        4 => p.extend(vec![0; 46usize.saturating_sub(len)]),
        // Flags and data offset of TCP; ports of UDP.
        5 => p[l4 + 13.min(len - l4 - 1)] = random.below(256) as u8,
        6 => p[l4 + 12.min(len - l4 - 1)] = (random.below(16) << 4) as u8,
        7 if !v6 => (p[6], fix) = ((random.below(8) << 5) as u8, true),
        8 if !v6 => (p[7], fix) = (random.below(3) as u8, true),
        9 if !v6 => (p[0], fix) = (0x46, true),
        10 if !v6 => (p[8], fix) = (random.below(3) as u8, true),
        11 if !v6 => p[10] ^= 1,
        12 if !v6 => (p[3], fix) = (p[3].wrapping_add(random.below(5) as u8).wrapping_sub(2), true),
        13 if v6 => p[5] = p[5].wrapping_add(random.below(5) as u8).wrapping_sub(2),
        14 if v6 => p[7] = random.below(3) as u8,
        15 if v6 => p[6] = [0, 17, 6, 43, 44, 60][random.below(6)],
        16 => (p[1], fix) = (p[1] ^ (1 << random.below(8)), true),
        _ => {}
    }
    if fix && p.len() >= 20 {
        (p[10], p[11]) = (0, 0);
        let sum: u32 = p[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        p[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = [macs, if v6 { &[0x86, 0xdd] } else { &[8, 0] }, &p].concat();
    if random.below(40) == 0 {
        frame[random.below(14)] ^= 1;
    }
    frame
}

/// A flow whose packets are made by hand.
#[derive(Clone, Copy)]
struct PacketFlow {
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
    proto: u8,
    ports: (u16, u16),
}

impl PacketFlow {
    fn packet(&self, ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
        if self.proto == 17 {
            return packets::udp(self.src, self.dst, self.ports, ttl, df, payload);
        }
        let mut t = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        t.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        t.extend(&payload[..payload.len().min(1440)]);
        packets::ip(self.src, self.dst, 6, ttl, df, &packets::transport(self.src, self.dst, 6, t, 16))
    }
}

/// Sends frames, each followed by a packet that is never offloaded, and gives what comes out behind each.
fn through(ends: &mut [PacketQueue; 2], macs: &[u8], frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
    let [a, b] = ends;
    let (mut frame, mut all) = (Frame::with_capacity(70_000), Vec::new());
    for (i, bytes) in frames.iter().enumerate() {
        let index = (i as u32).to_be_bytes();
        let mark = packets::ip(ip("192.0.2.1"), ip("192.0.2.129"), 253, 64, false, &index);
        for bytes in [bytes.clone(), [macs, &[8, 0], &mark].concat()] {
            // Too short for the device: not sent at all, either time.
            let _ = a.send(&mut Frame::from_slice(&bytes));
        }
        let (mut out, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            assert!(Instant::now() < deadline, "no mark {i}");
            frame.reset();
            if !b.recv(&mut frame).unwrap() {
                std::thread::yield_now();
                continue;
            }
            let data = frame.data();
            if data.len() >= 38 && data[12..14] == [8, 0] && data[23] == 253 && data[34..38] == index {
                break;
            }
            // What the router itself has to say on the link comes when it comes.
            let own = data[12..14] == [8, 6] || data[12..14] == [0x86, 0xdd] && data.get(20) == Some(&58);
            if !own && data.get(23) != Some(&253) {
                out.push(data.to_vec());
            }
        }
        all.push(out);
    }
    all
}

sandbox_test! {
    fn odd_frames_fare_as_without() {
        if !possible() {
            return;
        }
        let bed = fork(ON).unwrap();
        for (from, to) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            Pair::new(bed.host("a"), bed.host("b"), from, to).reachable().unwrap();
        }
        // Frames are sent and seen as they are on the wire.
        for host in ["a", "b"] {
            bed.net.plain_device(host, "eth0").unwrap();
        }
        let open = |host: &str| {
            bed.host(host).run(|| packet::open("raw", "eth0", PacketOptions::default(), 1)).unwrap().0.remove(0)
        };
        let mut ends = [open("a"), open("b")];
        let mac = |host: &str, dev: &str| bed.host(host).netlink().link(dev).unwrap().mac.unwrap().0;
        let macs = [mac("r", "left"), mac("a", "eth0")].concat();
        let flows: Vec<PacketFlow> = [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")]
            .into_iter()
            .flat_map(|(src, dst)| [6, 17].map(|proto| PacketFlow { src: ip(src), dst: ip(dst), proto, ports: (777, 888) }))
            .collect();
        let mut random = Random(0x0ff1_0ad5);
        let frames: Vec<Vec<u8>> = (0..4000).map(|i| spoilt(&mut random, &macs, &flows[i % 4])).collect();
        // Learned.
        for flow in &flows {
            let kind: [u8; 2] = if flow.src.is_ipv6() { [0x86, 0xdd] } else { [8, 0] };
            let frame = [&macs[..], &kind, &flow.packet(64, true, &[1; 9])];
            let frame = frame.concat();
            wait(|| {
                through(&mut ends, &macs, std::slice::from_ref(&frame));
                let info = bed.duet("r").json("flow show -j").unwrap();
                let proto = if flow.proto == 6 { "tcp" } else { "udp" };
                let mine = |f: &serde_json::Value| f["proto"] == proto && f["src"] == flow.src.to_string() && f["sport"] == 777;
                info["flows"].as_array().unwrap().iter().any(|f| mine(f) && f["packets"].as_u64() > Some(0))
            });
        }
        let before = offloaded(&bed, "r").0;
        let with = through(&mut ends, &macs, &frames);
        let by_kernel = offloaded(&bed, "r").0 - before;
        bed.duet("r").duet("trace add dst host 198.51.100.77 count 1").unwrap();
        let before = offloaded(&bed, "r").0;
        let without = through(&mut ends, &macs, &frames);
        assert_eq!(offloaded(&bed, "r").0, before, "suspended");
        let passed = without.iter().filter(|o| !o.is_empty()).count();
        println!("{} frames, {passed} passed, {by_kernel} of them by the kernel", frames.len());
        for ((frame, with), without) in frames.iter().zip(&with).zip(&without) {
            assert_eq!(with, without, "{frame:02x?}");
        }
        assert!(by_kernel > 1000 && (by_kernel as usize) < passed, "{by_kernel} {passed}");
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

sandbox_test! {
    fn into_every_bare_tunnel() {
        if !possible() {
            return;
        }
        for (mode, v6_outside, v6_inside) in [("4in4", false, false), ("4in6", true, false), ("6in6", true, true)] {
            let bed = bare_tunnel(mode, v6_outside).unwrap();
            let (from, to) = if v6_inside { ("2001:db8:a::1", "2001:db8:b::1") } else { ("192.0.2.1", "192.0.2.129") };
            let pair = Pair::new(bed.host("a"), bed.host("b"), from, to);
            // The ends of the tunnel are addresses that duplicate address detection has to confirm first.
            pair.wait_reachable(PATIENCE).unwrap();
            let most = if v6_outside { 1460 } else { 1480 };
            pair.discovers_mtu(most, 1).unwrap();
            pair.swapped().discovers_mtu(most, 1).unwrap();
            big_tcp(&bed, "r1", pair, 40);
            pair.every_size().unwrap();
            pair.udp().unwrap();
            bed.finish().unwrap();
        }
    }
}

/// a - r1 - r2 - b with a tunnel of this mode between the routers.
fn bare_tunnel(mode: &str, v6_outside: bool) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    let ends = if v6_outside { ["2001:db8:f::1", "2001:db8:f::2"] } else { ["198.51.100.1", "198.51.100.2"] };
    let plen = if v6_outside { 64 } else { 24 };
    for (name, own, peer) in [("r1", ends[0], ends[1]), ("r2", ends[1], ends[0])] {
        let (near, far) = if name == "r1" { ("left", "right") } else { ("right", "left") };
        let (inside, nets) = match name {
            "r1" => (["192.0.2.2/25", "2001:db8:a::2/64"], ["192.0.2.128/25", "2001:db8:b::/64"]),
            _ => (["192.0.2.130/25", "2001:db8:b::2/64"], ["192.0.2.0/25", "2001:db8:a::/64"]),
        };
        let net = if mode.starts_with('4') { nets[0] } else { nets[1] };
        let r = RouterConfig::new(name)
            .port(near, &inside)
            .port(far, &[&format!("{own}/{plen}")])
            .extra(ON)
            .extra(&format!("[tunnel.site]\nmode = \"{mode}\"\nlocal = \"{own}\"\nremote = \"{peer}\"\n"))
            .route(&format!("{net} dev site"));
        bed.router(Dut::Duet, &r)?;
    }
    Ok(bed)
}
