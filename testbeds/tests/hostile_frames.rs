//! Ten million broken frames, on every kind of port: none panics, every one is accounted for.
//!
//! Seeded, so a failure repeats. Frames start from valid ones of every kind the router understands, and are then cut,
//! spoilt, stretched or replaced; offload metadata is spoilt as well.

use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{FramePool, Gso, GsoKind, PartialChecksum};
use router_core::port::{Medium, PortId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::time::{Duration, Instant};
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;
use testbeds::fuzz::forward::furnish;
use testbeds::sim::packets;

/// Frames in the whole test; `DUET_HOSTILE_FRAMES` sets another number.
const FRAMES: u64 = 10_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Valid packets of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let (h4, h6) = (ip("192.0.2.2"), ip("2001:db8::2"));
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let router = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut v = Vec::new();
    for dst in ["198.51.100.7", "192.0.2.1", "192.0.2.77", "203.0.113.7", "100.64.0.1", "255.255.255.255", "224.0.0.1"]
    {
        v.push(packets::udp(h4, ip(dst), (1000, 53), 64, false, &[7; 300]));
        v.push(packets::udp(h4, ip(dst), (1000, 53), 1, true, &[7; 1490]));
        v.push(packets::echo(h4, ip(dst), 1, 64, false, &[7; 64]));
        let tcp = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0];
        v.push(packets::ip(h4, ip(dst), 6, 64, true, &packets::transport(h4, ip(dst), 6, tcp.to_vec(), 16)));
    }
    for dst in ["2001:db8:1::7", "2001:db8::1", "2001:db8::77", "2001:db8:2::7", "fe80::9", "ff02::1", "2001:dba::1"] {
        v.push(packets::udp(h6, ip(dst), (1000, 53), 64, false, &[7; 300]));
        v.push(packets::echo(h6, ip(dst), 1, 1, false, &[7; 1400]));
        for next in [0u8, 43, 44, 60, 51] {
            let mut ext = vec![17, 0, 1, 4, 0, 0, 0, 0];
            ext.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
            v.push(packets::ip(h6, ip(dst), next, 64, false, &ext));
        }
    }
    // Tunnel packets, from the peer and from others.
    let inner = packets::udp(ip("2001:db8:2::7"), h6, (5, 6), 64, false, b"inner");
    let inner4 = packets::udp(ip("203.0.113.9"), h4, (5, 6), 64, false, b"inner");
    for src in ["198.51.100.9", "198.51.100.10"] {
        v.push(packets::ip(ip(src), ip("192.0.2.1"), 41, 64, false, &inner));
        v.push(packets::ip(ip(src), ip("192.0.2.1"), 4, 64, false, &inner4));
    }
    // The same by keys, by UDP ports, in IPv6; a GRE keepalive; a query about multicast groups.
    let own = ip("192.0.2.1");
    for (flags, key) in [(0x20, 1), (0x20, 2), (0xa0, 2), (0, 0), (0x30, 1)] {
        let head =
            if flags & 0x20 == 0 { vec![flags, 0, 0x86, 0xdd] } else { vec![flags, 0, 0x86, 0xdd, 0, 0, 0, key] };
        v.push(packets::ip(ip("198.51.100.11"), own, 47, 64, false, &[head, inner.clone()].concat()));
    }
    let nothing = packets::ip(ip("198.51.100.11"), ip("198.51.100.11"), 47, 64, false, &[0x20, 0, 0, 0, 0, 0, 0, 2]);
    let question = [&[0x20, 0, 8, 0, 0, 0, 0, 2][..], &nothing].concat();
    v.push(packets::ip(ip("198.51.100.11"), own, 47, 64, false, &question));
    v.push(packets::udp(ip("198.51.100.19"), own, (6090, 6090), 64, false, &inner));
    v.push(packets::udp(ip("198.51.100.21"), own, (6091, 6091), 64, false, &[&[0, 4, 0, 0][..], &inner4].concat()));
    v.push(packets::ip(ip("2001:db8:1::16"), ip("2001:db8::1"), 4, 64, false, &inner4));
    let (querier, all) = (ip("fe80::77"), ip("ff02::1"));
    let query = packets::transport(querier, all, 58, [&[130, 0, 0, 0, 3, 0xe8, 0, 0][..], &[0; 20]].concat(), 2);
    v.push(packets::ip(querier, all, 0, 1, false, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &query].concat()));
    // An ICMP error about a tunnel packet of ours.
    let outer = packets::ip(ip("192.0.2.1"), ip("198.51.100.9"), 41, 64, true, &inner);
    let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0];
    error.extend(&outer[..28]);
    let (hop, own) = (ip("198.51.100.1"), ip("192.0.2.1"));
    v.push(packets::ip(hop, own, 1, 64, false, &packets::transport(hop, own, 1, error, 2)));
    let mut frames: Vec<_> = v.iter().map(|p| packets::ethernet(router, mac, p)).collect();
    frames.push(packets::arp(
        1,
        MacAddr::BROADCAST,
        mac,
        [192, 0, 2, 2].into(),
        MacAddr::default(),
        [192, 0, 2, 1].into(),
    ));
    frames.push(packets::arp(2, router, mac, [192, 0, 2, 77].into(), router, [192, 0, 2, 1].into()));
    let own = "2001:db8::1".parse().expect("address");
    frames.push(packets::solicitation(mac, "2001:db8::2".parse().expect("address"), own));
    frames.push(packets::advertisement(mac, router, "2001:db8::77".parse().expect("address"), own));
    let tagged: Vec<_> = frames.iter().map(|f| [&f[..12], &[0x81, 0, 0, 10], &f[12..]].concat()).collect();
    frames.extend(tagged);
    frames
}

/// Spoils a frame in one to three ways.
fn spoil(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + r.below(3) {
        match r.below(8) {
            0 => bytes.truncate(r.below(bytes.len() + 1)),
            1 if !bytes.is_empty() => {
                let at = r.below(bytes.len());
                bytes[at] = r.next() as u8;
            }
            2 if bytes.len() > 14 => {
                // In the headers it hurts most.
                let at = 12 + r.below(60.min(bytes.len() - 12));
                bytes[at] ^= 1 << r.below(8);
            }
            3 => bytes.extend(std::iter::repeat_n(r.next() as u8, r.below(100))),
            4 if bytes.len() > 40 => {
                let (at, n) = (14 + r.below(bytes.len() - 20), 1 + r.below(6));
                for b in bytes.iter_mut().skip(at).take(n) {
                    *b = [0, 0xff, 0x80, 1][r.below(4)];
                }
            }
            5 => *bytes = (0..r.below(200)).map(|_| r.next() as u8).collect(),
            6 if bytes.len() > 34 && bytes[12..14] == [8, 0] => {
                router_core::checksum::fill_ipv4_header(&mut bytes[14..])
            }
            _ => {}
        }
    }
}

#[test]
fn ten_million_broken_frames_are_all_accounted_for() {
    let frames = std::env::var("DUET_HOSTILE_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(FRAMES);
    let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(16)));
    let mut now = Instant::from_millis(1);
    let mut router = Router::new(Settings::default(), 3, Arc::clone(&counters[0]));
    furnish(&mut router, now);
    while router.commit(now, &mut |_| {}) {}
    let ports: Vec<_> = router.ports().iter().map(|p| (p.id, p.medium)).filter(|p| p.0 != PortId(0)).collect();

    let mut worker = Worker::new(Arc::clone(&counters[1]), 3);
    let mut out = Outbox::new(16, FramePool::new(256, 4096));
    let (mut r, seeds) = (Random(0x5eed), seeds());
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    let mut fed = 0u64;
    while fed < frames {
        let (port, medium) = ports[r.below(ports.len())];
        for _ in 0..64 {
            bytes.clone_from(&seeds[r.below(seeds.len())]);
            spoil(&mut r, &mut bytes);
            if medium == Medium::Ip && bytes.len() >= 14 {
                bytes.drain(..14);
            }
            let Some(mut frame) = out.pool.take() else { break };
            frame.set_data(&bytes);
            if r.below(8) == 0 {
                frame.meta.csum = Some(PartialChecksum { start: r.below(120) as u16, offset: r.below(20) as u16 });
            }
            if r.below(16) == 0 {
                let kind = [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4][r.below(3)];
                frame.meta.gso = Some(Gso { kind, size: [0, 1, 8, 100, 1448][r.below(5)], ecn: r.below(2) == 0 });
            }
            if r.below(32) == 0 {
                frame.meta.vlan_tci = Some(r.next() as u16);
            }
            batch.push(frame);
        }
        fed += batch.len() as u64;
        worker.process(now, &mut Fixed(router.tables()), port, &mut batch, &mut out);
        for punt in std::mem::take(&mut out.punts) {
            router.handle(now, punt, &mut out);
        }
        if r.below(64) == 0 {
            now = now + Duration::from_millis(r.below(1500) as u64);
            router.poll(now, &mut out);
        }
        router.commit(now, &mut |_| {});
        for queue in &mut out.tx {
            for frame in queue.drain(..) {
                out.pool.put(frame);
            }
        }
        out.pool.refill(256);
    }
    let totals = Totals::sum(counters.iter().map(|c| &**c));
    assert_eq!(totals.received, fed);
    totals.check().expect("every frame in exactly one place");
    // What waits is bounded, and ends.
    assert!(totals.held <= 10_000, "{} held", totals.held);
    for _ in 0..200 {
        now = now + Duration::from_secs(1);
        router.poll(now, &mut out);
    }
    let totals = Totals::sum(counters.iter().map(|c| &**c));
    totals.check().expect("every frame in exactly one place");
    assert_eq!(totals.held, 0);
    // The mutations reach deep: most reasons occur.
    assert!(totals.dropped.len() >= 25, "{:?}", totals.dropped.keys());
    assert!(totals.transmitted > fed / 100 && totals.answered > 0 && totals.delivered > 0, "{totals:?}");
    println!("{fed} frames: {totals:#?}");
}
