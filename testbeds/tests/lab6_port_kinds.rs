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
    fn start(host: &Host) -> Tap {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = host.thread("tap", move || {
            let (mut queues, _) = packet::open("tap", "eth0", Default::default(), 1).unwrap();
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
        let Ok(p) = SlicedPacket::from_ethernet(frame) else { return };
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
    let taps = (Tap::start(a), Tap::start(b));
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

sandbox_test! {
    fn tun_to_tun_in_namespaces_of_the_hosts() {
        // The hosts' devices are the TUN devices that the router has made and that were moved to them.
        let mut bed = Bed::new(PROGRAM).unwrap();
        bed.net.hosts(&["a", "r", "b"]).unwrap();
        let r = RouterConfig::new("r")
            .port_of("tun", "left", &["192.0.2.2/25", "2001:db8:a::2/64"], "")
            .port_of("tun", "right", &["192.0.2.130/25", "2001:db8:b::2/64"], "");
        bed.router(Dut::Duet, &r).unwrap();
        for (dev, to) in [("left", "a"), ("right", "b")] {
            let index = bed.host("r").netlink().link_index(dev).unwrap();
            bed.host("r").netlink().move_link(index, bed.host(to).netns_fd()).unwrap();
            bed.net.set_up(to, dev, true).unwrap();
        }
        bed.net.addrs(&[("a", "left", "192.0.2.1/25"), ("a", "left", "2001:db8:a::1/64")]).unwrap();
        bed.net.addrs(&[("b", "right", "192.0.2.129/25"), ("b", "right", "2001:db8:b::1/64")]).unwrap();
        bed.ready().unwrap();
        for (host, v4, v6) in [("a", "192.0.2.2", "2001:db8:a::2"), ("b", "192.0.2.130", "2001:db8:b::2")] {
            bed.net.route(host, &format!("default via {v4}")).unwrap();
            bed.net.route(host, &format!("default via {v6}")).unwrap();
        }
        let (a, b) = (bed.host("a"), bed.host("b"));
        for (src, dst) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            let pair = Pair::new(a, b, src, dst);
            pair.reachable().unwrap();
            pair.udp().unwrap();
            pair.tcp().unwrap();
            pair.every_size().unwrap();
        }
        bed.finish().unwrap();
    }
}
