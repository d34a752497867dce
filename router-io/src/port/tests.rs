//! Every kind of port on real devices, in network namespaces of the test's own.

use super::open::{OpenedPort, Opener, PortConfig};
use super::*;
use crate::lab::{Host, Net};
use crate::sandbox_test;
use router_core::frame::{Gso, GsoKind, Meta, PartialChecksum};
use router_core::port::PortKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::UdpSocket;
use std::slice::from_ref;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);

/// A queue with a pool, receiving with a deadline.
struct Tap {
    queue: Box<dyn Port>,
    pool: FramePool,
    report: RecvReport,
}

impl Tap {
    fn new(queue: Box<dyn Port>) -> Self {
        Tap { queue, pool: FramePool::new(BATCH, router_core::frame::MAX_FRAME), report: RecvReport::default() }
    }

    /// The next frame that `wanted` likes; others are thrown away.
    fn find(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        self.until(|tap| {
            let mut batch = Vec::new();
            tap.queue.recv_batch(1, &mut tap.pool, &mut batch, &mut tap.report);
            batch.into_iter().find(|f| wanted(f))
        })
    }

    /// The next event.
    fn event(&mut self) -> PortEvent {
        self.until(|tap| {
            let mut batch = Vec::new();
            tap.queue.recv_batch(BATCH, &mut tap.pool, &mut batch, &mut tap.report);
            tap.report.event.take()
        })
    }

    fn until<T>(&mut self, mut step: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(t) = step(self) {
                return t;
            }
            if let Some(fd) = self.queue.fd() {
                let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)).unwrap();
            }
        }
        panic!("nothing within {LIMIT:?}; report {:?}", self.report);
    }

    fn send(&mut self, frames: &[Frame]) -> SendReport {
        let mut report = SendReport::default();
        self.queue.send_batch(&mut frames.to_vec(), &mut self.pool, &mut report);
        report
    }
}

fn reasons(report: &SendReport) -> Vec<DropReason> {
    report.refused.iter().map(|r| r.reason).collect()
}

fn open_on(host: &Host, config: &PortConfig, workers: usize) -> OpenedPort {
    host.run(|| Opener::default().open(config, workers)).unwrap()
}

fn config(kind: PortKind, device: &str) -> PortConfig {
    PortConfig { device: Some(device.to_owned()), ..PortConfig::new("p", kind) }
}

/// a:eth0 - b:eth0, 192.0.2.1 and .2.
fn wire() -> Net {
    let mut net = Net::new();
    net.hosts(&["a", "b"]).unwrap();
    net.link(("a", "eth0"), ("b", "eth0")).unwrap();
    net.addrs(&[("a", "eth0", "192.0.2.1/24"), ("b", "eth0", "192.0.2.2/24")]).unwrap();
    net.addrs(&[("a", "eth0", "2001:db8::1/64"), ("b", "eth0", "2001:db8::2/64")]).unwrap();
    net.wait_ready(LIMIT).unwrap();
    net
}

/// An Ethernet frame of experimental type 0x88b5 with `len` bytes, marked by its first payload byte.
fn marked(mark: u8, len: usize) -> Frame {
    let mut b = vec![2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8, 0x88, 0xb5, mark];
    b.resize(len, mark);
    Frame::from_slice(&b)
}

fn is_marked(f: &Frame) -> bool {
    f.data().get(12..14) == Some(&[0x88, 0xb5])
}

/// An Ethernet frame with IPv4 and TCP or UDP, the checksum pending (field: pseudo-header sum left zero; nobody checks).
fn transport(proto: u8, payload: usize) -> Frame {
    let l4 = if proto == 6 { 20 } else { 8 };
    let mut b = vec![2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8, 8, 0];
    let total = (20 + l4 + payload) as u16;
    b.extend([0x45, 0]);
    b.extend(total.to_be_bytes());
    b.extend([0, 0, 0x40, 0, 64, proto, 0, 0, 192, 0, 2, 7, 192, 0, 2, 8]);
    let mut t = vec![0u8; l4 + payload];
    if proto == 6 {
        t[12] = 0x50;
    } else {
        t[4..6].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
    }
    b.extend(t);
    let mut f = Frame::from_slice(&b);
    f.meta.csum = Some(PartialChecksum { start: 34, offset: if proto == 6 { 16 } else { 6 } });
    f
}

sandbox_test! {
    fn packet_port_carries_frames_and_their_metadata() {
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let opened_a = open_on(a, &config(PortKind::Packet, "eth0"), 1);
        assert_eq!((opened_a.mtu, opened_a.carrier, opened_a.medium), (1500, true, Medium::Ethernet));
        assert!(opened_a.mac.is_some());
        let opened_b = open_on(b, &config(PortKind::Packet, "eth0"), 1);
        let mut tap_a = Tap::new(opened_a.queues.into_iter().next().unwrap());
        let mut tap_b = Tap::new(opened_b.queues.into_iter().next().unwrap());

        // Bare frames; own copies do not come back; one too long is refused alone.
        let sent = tap_a.send(&[marked(1, 60), marked(2, 3000), marked(3, 1514)]);
        assert_eq!(reasons(&sent), [DropReason::TxError; 1]);
        assert_eq!(tap_b.find(is_marked).data()[14], 1);
        let last = tap_b.find(is_marked);
        assert_eq!((last.data()[14], last.len()), (3, 1514));
        let mut batch = Vec::new();
        tap_a.queue.recv_batch(BATCH, &mut tap_a.pool, &mut batch, &mut tap_a.report);
        assert!(!batch.iter().any(is_marked), "own outgoing copy received");

        // A tag given beside the bytes arrives beside the bytes; an 802.1ad tag in them arrives in them.
        let mut tagged = marked(4, 100);
        tagged.meta.vlan_tci = Some(0x2064);
        let mut outer = marked(5, 100);
        assert!(vnet::insert_vlan_tag(&mut outer, 0x88a8, 7));
        assert_eq!(tap_a.send(&[tagged, outer]), SendReport::default());
        let got = tap_b.find(|f| f.len() >= 100 && f.data()[6] == 2 && f.data()[7] == 8);
        assert_eq!((got.meta.vlan_tci, got.data()[14], got.len()), (Some(0x2064), 4, 100));
        let got = tap_b.find(|f| f.data().get(6..8) == Some(&[2, 8]));
        assert_eq!((got.meta.vlan_tci, &got.data()[12..16], got.len()), (None, &[0x88, 0xa8, 0, 7][..], 104));

        // Super-frames and pending checksums.
        let is_ours = |f: &Frame| f.data().get(6..12) == Some(&[2, 8, 8, 8, 8, 8]);
        for (proto, kind) in [(6, GsoKind::TcpV4), (17, GsoKind::UdpL4)] {
            let mut big = transport(proto, 20_000);
            big.meta.gso = Some(Gso { kind, size: 1000, ecn: false });
            assert_eq!(tap_a.send(&[big.clone(), transport(proto, 50)]), SendReport::default());
            let got = tap_b.find(is_ours);
            assert_eq!((got.data(), got.meta.gso, got.meta.csum), (big.data(), big.meta.gso, big.meta.csum));
            let got = tap_b.find(is_ours);
            assert_eq!((got.meta.gso, got.meta.csum.map(|c| c.start), got.len()), (None, Some(34), transport(proto, 50).len()));
        }
        // With a tag as well.
        let mut big = transport(6, 20_000);
        big.meta.gso = Some(Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false });
        big.meta.vlan_tci = Some(5);
        assert_eq!(tap_a.send(&[big.clone()]), SendReport::default());
        let got = tap_b.find(is_ours);
        assert_eq!((got.meta, got.data()), (Meta { port: got.meta.port, ..big.meta }, big.data()));
        // A super-frame without a pending checksum would make the kernel warn.
        big.meta.csum = None;
        assert_eq!(reasons(&tap_a.send(&[big])), [DropReason::OffloadMalformed]);

        // The kernel's own UDP: unfinished checksum.
        b.run(|| {
            let s = UdpSocket::bind("192.0.2.2:0").unwrap();
            s.set_broadcast(true).unwrap();
            s.send_to(b"hello from the kernel", "192.0.2.255:9").unwrap();
        });
        let got = tap_a.find(|f| f.data().ends_with(b"hello from the kernel"));
        assert_eq!(got.meta.csum, Some(PartialChecksum { start: 34, offset: 6 }));
        assert_eq!(tap_a.report, RecvReport::default());
    }
}

sandbox_test! {
    fn packet_port_survives_link_down_and_tells_when_the_device_vanishes() {
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let mut tap_a = Tap::new(open_on(a, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        let mut tap_b = Tap::new(open_on(b, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        net.set_up("a", "eth0", false).unwrap();
        assert_eq!(tap_a.event(), PortEvent::LinkDown);
        let sent = tap_a.send(&[marked(1, 60), marked(2, 60)]);
        assert_eq!(reasons(&sent), [DropReason::PortDown; 2]);
        assert_eq!(sent.events, [PortEvent::LinkDown]);
        net.set_up("a", "eth0", true).unwrap();
        net.wait_ready(LIMIT).unwrap();
        assert_eq!(tap_b.send(&[marked(3, 60)]), SendReport::default());
        assert_eq!(tap_a.find(is_marked).data()[14], 3);
        let index = a.netlink().link_index("eth0").unwrap();
        a.netlink().del_link(index).unwrap();
        assert_eq!(tap_a.event(), PortEvent::Vanished);
        assert_eq!(tap_a.send(&[marked(4, 60)]).events, [PortEvent::Vanished]);
        let e = a.run(|| Opener::default().open(&config(PortKind::Packet, "eth0"), 1)).unwrap_err();
        assert!(matches!(e, PortError::NoDevice { .. }), "{e}");
    }
}

sandbox_test! {
    fn packet_port_spreads_flows_over_queues_without_copies() {
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let mut taps: Vec<_> = open_on(a, &config(PortKind::Packet, "eth0"), 3).queues.into_iter().map(Tap::new).collect();
        let mut tap_b = Tap::new(open_on(b, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        let frames: Vec<_> = (0..200u16)
            .map(|i| {
                let mut f = transport(17, 10);
                f.data_mut()[34..36].copy_from_slice(&(1000 + i).to_be_bytes());
                f
            })
            .collect();
        assert_eq!(tap_b.send(&frames), SendReport::default());
        let mut counts = vec![0; taps.len()];
        let deadline = Instant::now() + LIMIT;
        while counts.iter().sum::<usize>() < 200 && Instant::now() < deadline {
            for (tap, count) in taps.iter_mut().zip(&mut counts) {
                let mut batch = Vec::new();
                tap.queue.recv_batch(BATCH, &mut tap.pool, &mut batch, &mut tap.report);
                *count += batch.iter().filter(|f| f.data().get(6..8) == Some(&[2, 8])).count();
            }
        }
        assert_eq!(counts.iter().sum::<usize>(), 200, "{counts:?}");
        assert!(counts.iter().all(|c| *c > 0), "{counts:?}");
        // Nothing sent through a queue comes back through another.
        assert_eq!(taps[1].send(&[marked(1, 60)]), SendReport::default());
        assert_eq!(tap_b.find(is_marked).data()[14], 1);
        for tap in &mut taps {
            let mut batch = Vec::new();
            tap.queue.recv_batch(BATCH, &mut tap.pool, &mut batch, &mut tap.report);
            assert!(!batch.iter().any(is_marked));
        }
    }
}

sandbox_test! {
    fn packet_port_counts_what_the_kernel_dropped_before() {
        const FRAMES: usize = 40_000;
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let mut tap_a = Tap::new(open_on(a, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        let mut tap_b = Tap::new(open_on(b, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        let burst = vec![marked(1, 1500); 100];
        for _ in 0..FRAMES / burst.len() {
            assert_eq!(tap_b.send(&burst), SendReport::default());
        }
        let (mut received, mut lost) = (0, 0);
        tap_a.until(|tap| {
            let mut batch = Vec::new();
            tap.queue.recv_batch(BATCH, &mut tap.pool, &mut batch, &mut tap.report);
            received += batch.iter().filter(|f| is_marked(f)).count();
            batch.into_iter().for_each(|f| tap.pool.put(f));
            lost += tap.queue.take_overruns() as usize;
            (received + lost >= FRAMES).then_some(())
        });
        // The kernel's own chatter may have been lost as well.
        assert!(lost > 0 && (FRAMES..FRAMES + 10).contains(&(received + lost)), "{received} received, {lost} lost");
    }
}

sandbox_test! {
    fn datalink_port_carries_frames() {
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let mac = open_on(a, &config(PortKind::Datalink, "eth0"), 1).mac.unwrap();
        let mut tap_a = Tap::new(open_on(a, &config(PortKind::Datalink, "eth0"), 2).queues.remove(0));
        let mut tap_b = Tap::new(open_on(b, &config(PortKind::Packet, "eth0"), 1).queues.remove(0));
        let mut own = marked(1, 60);
        own.data_mut()[6..12].copy_from_slice(&mac.0);
        assert_eq!(reasons(&tap_a.send(&[own, marked(2, 2000)])), [DropReason::TxError]);
        assert_eq!(tap_b.find(is_marked).data()[14], 1);
        assert_eq!(tap_b.send(&[marked(3, 1514)]), SendReport::default());
        let got = tap_a.find(is_marked);
        assert_eq!((got.data()[14], got.len()), (3, 1514));
        net.set_up("a", "eth0", false).unwrap();
        assert_eq!(tap_a.event(), PortEvent::LinkDown);
    }
}

sandbox_test! {
    fn tun_port_talks_to_the_hosts_own_stack() {
        let host = Host::new("h").unwrap();
        let mut config = config(PortKind::Tun, "tun7");
        config.host_addrs = vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()];
        config.mtu = Some(1400);
        let opened = open_on(&host, &config, 1);
        assert_eq!((opened.mtu, opened.mac, opened.medium, opened.carrier), (1400, None, Medium::Ip, true));
        assert!(opened.caps.partial_checksum && opened.caps.tso);
        let mut tap = Tap::new(opened.queues.into_iter().next().unwrap());
        let socket = host.run(|| UdpSocket::bind("192.0.2.1:7000").unwrap());
        socket.send_to(b"out", "192.0.2.9:7").unwrap();
        let got = tap.find(|f| f.data().ends_with(b"out"));
        assert_eq!((got.data()[0], got.meta.csum), (0x45, Some(PartialChecksum { start: 20, offset: 6 })));
        // Sent back with swapped addresses and ports; the kernel completes nothing but accepts the pending checksum.
        let mut back = got.clone();
        let d = back.data_mut();
        let (src, dst) = (got.data()[12..16].to_vec(), got.data()[16..20].to_vec());
        d[12..16].copy_from_slice(&dst);
        d[16..20].copy_from_slice(&src);
        d[20..22].copy_from_slice(&got.data()[22..24]);
        d[22..24].copy_from_slice(&got.data()[20..22]);
        assert_eq!(tap.send(&[back]), SendReport::default());
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buf = [0u8; 10];
        let (n, from) = socket.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..n], from.to_string().as_str()), (&b"out"[..], "192.0.2.9:7"));
        // Down, up, gone.
        let index = host.netlink().link_index("tun7").unwrap();
        host.netlink().set_up(index, false).unwrap();
        let sent = tap.send(from_ref(&got));
        assert_eq!((reasons(&sent), sent.events), (vec![DropReason::PortDown], vec![PortEvent::LinkDown]));
        host.netlink().set_up(index, true).unwrap();
        assert_eq!(tap.send(from_ref(&got)), SendReport::default());
        host.netlink().del_link(index).unwrap();
        assert_eq!(tap.event(), PortEvent::Vanished);
        assert_eq!(tap.send(&[got]).events, [PortEvent::Vanished]);
    }
}

sandbox_test! {
    fn tun_port_has_one_queue_per_worker() {
        let host = Host::new("h").unwrap();
        let mut config = config(PortKind::Tun, "tun7");
        config.host_addrs = vec!["192.0.2.1/24".parse().unwrap()];
        let mut taps: Vec<_> = open_on(&host, &config, 2).queues.into_iter().map(Tap::new).collect();
        host.run(|| {
            for i in 0..50 {
                UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"out", ("192.0.2.9", 7 + i)).unwrap();
            }
        });
        let mut got = 0;
        let deadline = Instant::now() + LIMIT;
        while got < 50 && Instant::now() < deadline {
            for tap in &mut taps {
                let mut batch = Vec::new();
                tap.queue.recv_batch(BATCH, &mut tap.pool, &mut batch, &mut tap.report);
                got += batch.iter().filter(|f| f.data().ends_with(b"out")).count();
            }
        }
        assert_eq!(got, 50);
        // A second opener of the same device is a clear error only when the kernel says no; ours attaches further queues.
        let e = host.run(|| Opener::default().open(&self::config(PortKind::Tun, "lo"), 1)).unwrap_err();
        assert!(e.to_string().contains("lo"), "{e}");
    }
}

/// An IPv4 or IPv6 packet of protocol `proto` with `len` bytes of payload.
fn outer(v6: bool, proto: u8, len: usize) -> Frame {
    let mut b = Vec::new();
    if v6 {
        b.extend([0x60, 0, 0, 0]);
        b.extend((len as u16).to_be_bytes());
        b.extend([proto, 61]);
        b.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        b.extend("2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    } else {
        b.extend([0x45, 0xb8]);
        b.extend(((20 + len) as u16).to_be_bytes());
        b.extend([0, 7, 0x40, 0, 61, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    }
    b.extend((0..len).map(|i| i as u8));
    Frame::from_slice(&b)
}

sandbox_test! {
    fn rawip_port_carries_tunnel_packets_over_the_hosts_stack() {
        let net = wire();
        let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
        let any = PortConfig::new("p", PortKind::RawIp);
        let mut tap_a = Tap::new(open_on(a, &any, 1).queues.remove(0));
        let mut tap_b = Tap::new(open_on(b, &any, 2).queues.remove(0));
        for (v6, proto) in [(false, 41), (false, 4), (false, 47), (true, 41), (true, 4), (true, 47)] {
            let packet = outer(v6, proto, 100);
            assert_eq!(tap_a.send(from_ref(&packet)), SendReport::default());
            let got = tap_b.find(|_| true);
            let mut expected = packet.data().to_vec();
            if !v6 {
                // The kernel computed the header checksum; total length is in network order.
                expected[10..12].copy_from_slice(&got.data()[10..12]);
                assert_eq!(got.data()[2..4], [0, 120]);
            }
            assert_eq!(got.data(), expected, "v6 {v6} protocol {proto}");
        }
        // Too long with DF: the MTU is reported, packets around it go out.
        for v6 in [false, true] {
            let sent = tap_a.send(&[outer(v6, 41, 10), outer(v6, 41, 2000), outer(v6, 41, 20)]);
            let dst = if v6 { "2001:db8::2" } else { "192.0.2.2" }.parse().unwrap();
            assert_eq!(reasons(&sent), [DropReason::TooBig; 1]);
            assert_eq!(sent.events, [PortEvent::PathMtu { dst, mtu: 1500 }]);
            assert_eq!(tap_b.find(|_| true).len(), outer(v6, 41, 10).len());
            assert_eq!(tap_b.find(|_| true).len(), outer(v6, 41, 20).len());
        }
        // A checksum that the sender left to its device: 6in4 with UDP, field = pseudo-header sum.
        let mut inner = vec![0x60, 0, 0, 0, 0, 9, 17, 64];
        inner.extend([[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat());
        let sum = 2 * (0x2001 + 0xdb8 + 1) + 17 + 9u16;
        inner.extend([0, 7, 0, 7, 0, 9, (sum >> 8) as u8, sum as u8, b'x']);
        let mut unfinished = outer(false, 41, 0).data().to_vec();
        unfinished[2..4].copy_from_slice(&(20 + inner.len() as u16).to_be_bytes());
        unfinished.extend(inner);
        assert_eq!(tap_a.send(&[Frame::from_slice(&unfinished)]), SendReport::default());
        assert_eq!(tap_b.find(|_| true).meta.csum, Some(PartialChecksum { start: 60, offset: 6 }));
        // Bound to an address that is not the host's.
        let elsewhere = PortConfig { local: Some("198.51.100.1".parse().unwrap()), ..PortConfig::new("p", PortKind::RawIp) };
        let e = a.run(|| Opener::default().open(&elsewhere, 1)).unwrap_err();
        assert_eq!(e.to_string(), "port p: 198.51.100.1 is no address of this host; `ip address` lists them");
        let here = PortConfig { local: Some("192.0.2.1".parse().unwrap()), ..config(PortKind::RawIp, "eth0") };
        let opened = open_on(a, &here, 1);
        assert_eq!(opened.mtu, 1500);
        let nonsense = tap_a.send(&[Frame::from_slice(&[]), Frame::from_slice(&[0x45; 10]), Frame::from_slice(&[0x70; 60])]);
        assert_eq!(reasons(&nonsense), [DropReason::TxError; 3]);
    }
}
