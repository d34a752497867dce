//! Lab 6: kinds of ports against each other. Hosts keep all their offloads on: super-frames, unfinished checksums. TCP is
//! compared byte for byte, and every TCP and UDP packet that reaches a host's wire must carry a right checksum.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use router_core::frame::FramePool;
use router_io::lab::{Host, sandbox};
use router_io::port::packet;
use router_io::port::{Receive, RecvReport};
use router_io::sandbox_test;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// Where XDP programs may not be loaded, says so.
fn may_load() -> bool {
    let may = !sandbox::in_user_namespace();
    if !may {
        eprintln!("SKIPPED: XDP programs need CAP_BPF of the machine, not of a user namespace");
    }
    may
}

/// What a tap at a host's device saw arriving.
#[derive(Debug, Default)]
struct Seen {
    checked: u64,
    /// Left to the hardware: not a packet as on a wire.
    unfinished: u64,
    wrong: Vec<Vec<u8>>,
}

/// Looks at what arrives at a host until told to stop.
struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Tap {
    fn start(host: &Host, device: &'static str) -> Tap {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = host.thread("tap", move || {
            let (mut queues, _) = packet::open("tap", device, Default::default(), 1).unwrap();
            let mut pool = FramePool::new(512, router_core::frame::MAX_FRAME);
            let (mut seen, mut batch) = (Seen::default(), Vec::new());
            while !ended.load(Ordering::Acquire) {
                queues[0].recv_batch(256, &mut pool, &mut batch, &mut RecvReport::default());
                if batch.is_empty() {
                    std::thread::yield_now();
                }
                for frame in batch.drain(..) {
                    if frame.meta.csum.is_some() || frame.meta.gso.is_some() {
                        seen.unfinished += 1;
                    } else {
                        seen.look(frame.data());
                    }
                    pool.put(frame);
                }
            }
            seen
        });
        Tap { stop, thread: thread.unwrap() }
    }

    fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn look(&mut self, frame: &[u8]) {
        // Within 6in4 the checksum of interest is the inner packet's.
        let inner =
            (frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&41)).then(|| frame.get(34..)).flatten();
        let sliced = inner.map_or_else(|| SlicedPacket::from_ethernet(frame), SlicedPacket::from_ip);
        let Ok(p) = sliced else { return };
        let (Some(net), Some(transport)) = (p.net, p.transport) else { return };
        // All ones and zero are the same number in one's complement; UDP means "none" by zero, so that one is not sent.
        let same = |checksum: u16| checksum % 0xffff;
        let right = match (&net, &transport) {
            (NetSlice::Ipv4(ip), TransportSlice::Tcp(t)) => {
                t.to_header().calc_checksum_ipv4(&ip.header().to_header(), t.payload()).ok().map(same)
                    == Some(same(t.checksum()))
            }
            (NetSlice::Ipv6(ip), TransportSlice::Tcp(t)) => {
                t.to_header().calc_checksum_ipv6(&ip.header().to_header(), t.payload()).ok().map(same)
                    == Some(same(t.checksum()))
            }
            (NetSlice::Ipv4(ip), TransportSlice::Udp(u)) => {
                u.to_header().calc_checksum_ipv4(&ip.header().to_header(), u.payload()).ok().map(same)
                    == Some(same(u.checksum()))
            }
            (NetSlice::Ipv6(ip), TransportSlice::Udp(u)) => {
                u.to_header().calc_checksum_ipv6(&ip.header().to_header(), u.payload()).ok().map(same)
                    == Some(same(u.checksum()))
            }
            _ => return,
        };
        self.checked += 1;
        if !right && self.wrong.len() < 5 {
            self.wrong.push(frame.to_vec());
        }
    }
}

/// a - r - b with ports of these kinds; returns what arrived at a and b beside the checks of the lab.
fn between(left: &'static str, right: &'static str, workers: usize, more: &str) -> Result<(Seen, Seen)> {
    let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    let of = |kind: &str| if kind == "xdp" { more.to_owned() } else { String::new() };
    let r = RouterConfig::new("r")
        .router(&format!("workers = {workers}"))
        .port_of(left, "left", &["192.0.2.2/25", "2001:db8:a::2/64"], &of(left))
        .port_of(right, "right", &["192.0.2.130/25", "2001:db8:b::2/64"], &of(right));
    bed.router(Dut::Duet, &r)?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    let v4 = Pair::new(a, b, "192.0.2.1", "192.0.2.129");
    let v6 = Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1");
    let taps = (Tap::start(a, "eth0"), Tap::start(b, "eth0"));
    for pair in [v4, v6] {
        pair.reachable()?;
        pair.udp()?;
        pair.tcp()?;
    }
    let seen = (taps.0.finish(), taps.1.finish());
    v4.every_size()?;
    v6.every_size()?;
    v4.traceroute(&["192.0.2.2", "192.0.2.129"])?;
    bed.finish()?;
    Ok(seen)
}

/// Between ports that finish everything themselves.
fn wire_is_right(seen: &(Seen, Seen)) {
    for s in [&seen.0, &seen.1] {
        assert!(s.checked > 1000 && s.wrong.is_empty() && s.unfinished == 0, "{s:?}");
    }
}

sandbox_test! {
    fn xdp_to_xdp() {
        if may_load() {
            wire_is_right(&between("xdp", "xdp", 1, "").unwrap());
        }
    }
}

sandbox_test! {
    fn xdp_to_xdp_two_workers_one_queue() {
        if may_load() {
            wire_is_right(&between("xdp", "xdp", 2, "").unwrap());
        }
    }
}

sandbox_test! {
    fn xdp_to_packet_and_back() {
        if may_load() {
            let seen = between("xdp", "packet", 1, "").unwrap();
            // What goes to a is finished; to b the packet port may leave it to the device, as the sender did.
            assert!(seen.0.checked > 1000 && seen.0.wrong.is_empty() && seen.0.unfinished == 0, "{:?}", seen.0);
            assert!(seen.1.wrong.is_empty() && seen.1.unfinished > 0, "{:?}", seen.1);
        }
    }
}

sandbox_test! {
    fn busy_polling() {
        if may_load() {
            wire_is_right(&between("xdp", "xdp", 1, "busy_poll = 20\n").unwrap());
        }
    }
}

sandbox_test! {
    fn the_automatic_choice_is_xdp_here() {
        if may_load() {
            wire_is_right(&between("auto", "auto", 1, "").unwrap());
        }
    }
}

sandbox_test! {
    fn packet_to_packet_passes_super_frames() {
        let seen = between("packet", "packet", 1, "").unwrap();
        assert!(seen.0.wrong.is_empty() && seen.1.wrong.is_empty(), "{seen:?}");
        assert!(seen.1.unfinished > 0, "{seen:?}");
    }
}

/// Packets that a host's kernel threw away for a wrong checksum.
fn checksum_errors(host: &Host) -> u64 {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let (columns, pairs) = host.run(|| (read("snmp"), read("snmp6")));
    let lines: Vec<&str> = columns.lines().collect();
    let mut found = Vec::new();
    for pair in lines.chunks(2) {
        found.extend(pair[0].split_whitespace().zip(pair[1].split_whitespace()));
    }
    found.extend(pairs.lines().filter_map(|l| l.split_once(char::is_whitespace)));
    let errors: Vec<_> = found.iter().filter(|(name, _)| name.contains("InCsumErrors")).collect();
    assert!(errors.len() >= 4, "TCP and UDP of both families: {errors:?}");
    errors.iter().map(|(_, n)| n.trim().parse::<u64>().unwrap()).sum()
}

/// A way between the hosts a and b, who keep all their offloads.
#[derive(Clone, Copy)]
struct Way {
    /// The port towards a, and the one towards b.
    ends: [&'static str; 2],
    /// Two routers with 6in4 between these ports.
    tunnel: Option<[&'static str; 2]>,
}

impl Way {
    /// Whether the host's device is one that the router makes.
    fn made(kind: &str) -> bool {
        matches!(kind, "tun" | "tap")
    }

    fn build(self) -> Result<Bed> {
        let mut bed = Bed::new(PROGRAM)?;
        let (first, last) = if self.tunnel.is_some() { ("r1", "r2") } else { ("r", "r") };
        bed.net.hosts(if self.tunnel.is_some() { &["a", "r1", "r2", "b"] } else { &["a", "r", "b"] })?;
        let places = [("a", first, "left"), ("b", last, "right")];
        for (kind, (host, router, dev)) in self.ends.iter().zip(places) {
            if !Self::made(kind) {
                bed.net.link_mtu((host, "eth0"), (router, dev), 1500)?;
            }
        }
        let left = |r: RouterConfig| r.port_of(self.ends[0], "left", &["192.0.2.2/25", "2001:db8:a::2/64"], "");
        let right = |r: RouterConfig| r.port_of(self.ends[1], "right", &["192.0.2.130/25", "2001:db8:b::2/64"], "");
        if let Some([out, back]) = self.tunnel {
            bed.net.link_mtu(("r1", "right"), ("r2", "left"), 1500)?;
            bed.ready()?;
            let tunnel = |own: u8, peer: u8| {
                format!(
                    "[tunnel.site]\nmode = \"6in4\"\nlocal = \"198.51.100.{own}\"\nremote = \"198.51.100.{peer}\"\n\
                     address = [\"2001:db8:ff::{own}/64\"]\n"
                )
            };
            let r1 = left(RouterConfig::new("r1")).port_of(out, "right", &["198.51.100.1/24"], "").extra(&tunnel(1, 2));
            let r2 =
                right(RouterConfig::new("r2")).port_of(back, "left", &["198.51.100.2/24"], "").extra(&tunnel(2, 1));
            bed.router(Dut::Duet, &r1.route("2001:db8:b::/64 via 2001:db8:ff::2"))?;
            bed.router(Dut::Duet, &r2.route("2001:db8:a::/64 via 2001:db8:ff::1"))?;
        } else {
            bed.ready()?;
            bed.router(Dut::Duet, &right(left(RouterConfig::new("r"))))?;
        }
        let nets = [(["192.0.2.1/25", "2001:db8:a::1/64"], "a"), (["192.0.2.129/25", "2001:db8:b::1/64"], "b")];
        for ((kind, (host, router, dev)), (addrs, _)) in self.ends.iter().zip(places).zip(nets) {
            if Self::made(kind) {
                let index = bed.host(router).netlink().link_index(dev)?;
                bed.host(router).netlink().move_link(index, bed.host(host).netns_fd())?;
                bed.net.set_up(host, dev, true)?;
            }
            for addr in addrs {
                bed.net.addr(host, self.device(host), addr)?;
            }
        }
        bed.ready()?;
        for (host, via) in [("a", ["192.0.2.2", "2001:db8:a::2"]), ("b", ["192.0.2.130", "2001:db8:b::2"])] {
            for gateway in via {
                bed.net.route(host, &format!("default via {gateway}"))?;
            }
        }
        Ok(bed)
    }

    /// The name of a host's device.
    fn device(self, host: &str) -> &'static str {
        let (kind, made) = if host == "a" { (self.ends[0], "left") } else { (self.ends[1], "right") };
        if Self::made(kind) { made } else { "eth0" }
    }

    /// TCP byte for byte, UDP, every size of ping; no packet with a wrong checksum anywhere. What was seen at a and b (not at
    /// TUN devices: they have no Ethernet) and, with a tunnel, where r2 receives.
    fn check(self) -> Result<[Option<Seen>; 3]> {
        let bed = self.build()?;
        let (a, b) = (bed.host("a"), bed.host("b"));
        let mut pairs = vec![Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1")];
        if self.tunnel.is_none() {
            pairs.push(Pair::new(a, b, "192.0.2.1", "192.0.2.129"));
        }
        let tap = |kind: &str, host: &str, dev| (kind != "tun").then(|| Tap::start(bed.host(host), dev));
        let taps = [
            tap(self.ends[0], "a", self.device("a")),
            tap(self.ends[1], "b", self.device("b")),
            // A packet socket sees nothing that goes to an XDP program.
            self.tunnel.filter(|[_, back]| *back == "packet").map(|_| Tap::start(bed.host("r2"), "left")),
        ];
        for pair in &pairs {
            pair.reachable()?;
            pair.udp()?;
            pair.tcp()?;
            pair.swapped().tcp()?;
        }
        let seen = taps.map(|t| t.map(Tap::finish));
        for pair in &pairs {
            match self.tunnel {
                None => pair.every_size()?,
                Some(_) => pair.every_size_after_learning(1480)?,
            }
        }
        for host in [a, b] {
            assert_eq!(checksum_errors(host), 0, "{}", host.name());
        }
        for s in seen.iter().flatten() {
            assert!(s.wrong.is_empty() && s.checked + s.unfinished > 100, "{s:?}");
        }
        bed.finish()?;
        Ok(seen)
    }
}

/// Where one of these kinds may not be opened, says so.
fn possible(kinds: &[&str]) -> bool {
    !kinds.contains(&"xdp") || may_load()
}

/// Each kind at one end, one kind at the other.
fn with_each(right: &'static str, kinds: &[&'static str]) {
    for left in kinds.iter().filter(|left| possible(&[left, right])) {
        println!("{left} - {right}");
        Way { ends: [left, right], tunnel: None }.check().unwrap();
    }
}

sandbox_test! {
    fn tun_with_every_kind() {
        with_each("tun", &["tun", "tap", "packet", "xdp"]);
    }
}

sandbox_test! {
    fn tap_with_every_kind() {
        with_each("tap", &["tap", "packet", "xdp"]);
    }
}

sandbox_test! {
    fn every_kind_into_a_tunnel_and_out_of_it() {
        for (left, right) in [("tun", "tap"), ("packet", "packet"), ("xdp", "tun"), ("tap", "xdp")] {
            if possible(&[left, right]) {
                println!("{left} - 6in4 - {right}");
                Way { ends: [left, right], tunnel: Some(["packet", "packet"]) }.check().unwrap();
            }
        }
    }
}

sandbox_test! {
    fn super_frames_stay_whole_in_a_tunnel_where_the_port_can() {
        let way = Way { ends: ["packet", "packet"], tunnel: Some(["packet", "packet"]) };
        let [_, b, wire] = way.check().unwrap();
        let (b, wire) = (b.unwrap(), wire.unwrap());
        if sandbox::in_user_namespace() {
            return eprintln!("SKIPPED: programs need CAP_BPF of the machine, not of a user namespace");
        }
        assert!(wire.unfinished > 0 && b.unfinished > 0, "{wire:?} {b:?}");
    }
}

sandbox_test! {
    fn carriers_of_every_kind() {
        for (out, back) in [("xdp", "xdp"), ("xdp", "packet"), ("packet", "xdp")] {
            if possible(&[out, back]) {
                println!("6in4 over {out} - {back}");
                let way = Way { ends: ["packet", "packet"], tunnel: Some([out, back]) };
                let [.., wire] = way.check().unwrap();
                // What an xdp port sends is finished.
                if let Some(wire) = wire.filter(|_| out == "xdp") {
                    assert!(wire.unfinished == 0 && wire.checked > 1000, "{wire:?}");
                }
            }
        }
    }
}
