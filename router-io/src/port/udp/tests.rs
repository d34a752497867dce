//! UDP ports of two hosts that talk, and what headers become.

use super::*;
use crate::lab::Net;
use crate::port::open::{Opener, PortConfig};
use crate::sandbox_test;
use proptest::prelude::*;
use router_core::port::PortKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const PORT: u16 = 6080;

fn config() -> PortConfig {
    PortConfig { listen: vec![PORT, PORT + 1], ..PortConfig::new("u", PortKind::Udp) }
}

/// An outer packet from a (.1) to b (.2), with this many bytes of payload.
fn outer(v6: bool, sport: u16, payload: usize, df: bool) -> Frame {
    let mut p = Vec::new();
    let udp_len = (8 + payload) as u16;
    if v6 {
        p.extend([0x6b, 0x80, 0, 0]);
        p.extend(udp_len.to_be_bytes());
        p.extend([17, 61]);
        p.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        p.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    } else {
        p.extend([0x45, 0xb8]);
        p.extend((20 + udp_len).to_be_bytes());
        p.extend([0, 0, if df { 0x40 } else { 0 }, 0, 61, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    }
    p.extend(sport.to_be_bytes());
    p.extend(PORT.to_be_bytes());
    p.extend(udp_len.to_be_bytes());
    p.extend([0, 0]);
    p.extend((0..payload).map(|i| (i * 7 + payload) as u8));
    Frame::from_slice(&p)
}

struct End {
    queues: Vec<Box<dyn Port>>,
    pool: FramePool,
}

impl End {
    fn send(&mut self, frames: Vec<Frame>) -> SendReport {
        let (mut frames, mut report) = (frames, SendReport::default());
        self.queues[0].send_batch(&mut frames, &mut self.pool, &mut report);
        assert!(frames.is_empty());
        report
    }

    /// All that comes until there are `n`.
    fn collect(&mut self, n: usize, max: usize) -> Vec<Frame> {
        let (mut got, mut report) = (Vec::new(), RecvReport::default());
        let deadline = Instant::now() + Duration::from_secs(5);
        while got.len() < n {
            for q in &mut self.queues {
                let mut batch = Vec::new();
                q.recv_batch(max, &mut self.pool, &mut batch, &mut report);
                assert!(batch.len() <= max, "never more than was asked for");
                got.extend(batch);
            }
            assert!(Instant::now() < deadline, "{} of {n} came, {report:?}", got.len());
        }
        assert_eq!(report, RecvReport::default());
        got
    }
}

fn wire() -> (Net, End, End) {
    let mut net = Net::new();
    net.hosts(&["a", "b"]).unwrap();
    net.link(("a", "eth0"), ("b", "eth0")).unwrap();
    for (host, n) in [("a", 1), ("b", 2)] {
        net.addr(host, "eth0", &format!("192.0.2.{n}/24")).unwrap();
        net.addr(host, "eth0", &format!("2001:db8::{n}/64")).unwrap();
    }
    net.wait_ready(Duration::from_secs(10)).unwrap();
    let end = |host: &str, queues| {
        let opened = net.host(host).unwrap().run(|| Opener::default().open(&config(), queues)).unwrap();
        assert_eq!((opened.mtu, opened.medium), (1500, Medium::Ip));
        End { queues: opened.queues, pool: FramePool::new(BATCH, router_core::frame::MAX_FRAME) }
    };
    let (a, b) = (end("a", 1), end("b", 2));
    (net, a, b)
}

/// What arrives: the checksums of the headers are the receiver's.
fn as_received(sent: &Frame) -> Vec<u8> {
    let mut p = sent.data().to_vec();
    if p[0] >> 4 == 4 {
        p[6] = 0x40;
        router_core::checksum::fill_ipv4_header(&mut p);
    }
    p
}

sandbox_test! {
    fn datagrams_come_as_they_were_sent() {
        let (_net, mut a, mut b) = wire();
        for v6 in [false, true] {
            for sizes in [vec![100], vec![1400; 200], vec![1400, 1400, 300, 300, 1400, 9], vec![1; 100], (1..250).collect()] {
                for max in [256, 7, 1] {
                    let sent: Vec<Frame> = sizes.iter().map(|n| outer(v6, PORT, *n, true)).collect();
                    let want: Vec<Vec<u8>> = sent.iter().map(as_received).collect();
                    assert_eq!(a.send(sent), SendReport::default());
                    let got: Vec<Vec<u8>> = b.collect(want.len(), max).iter().map(|f| f.data().to_vec()).collect();
                    assert!(got == want, "v6 {v6}, {} datagrams, at most {max} at once", sizes.len());
                }
            }
        }
    }
}

sandbox_test! {
    fn what_cannot_be_sent_is_counted() {
        let (_net, mut a, mut b) = wire();
        // From a port that is not ours, no datagram, a fragment, nothing at all.
        let mut tcp = outer(false, PORT, 10, true).data().to_vec();
        tcp[9] = 6;
        let mut fragment = outer(false, PORT, 10, true).data().to_vec();
        fragment[6] = 0x20;
        let bad = [outer(false, 77, 10, true), Frame::from_slice(&tcp), Frame::from_slice(&fragment), Frame::from_slice(&[0x45]), Frame::from_slice(&[])];
        let mut list: Vec<Frame> = bad.into_iter().collect();
        list.insert(2, outer(false, PORT, 5, true));
        let report = a.send(list);
        let reasons: Vec<_> = report.refused.iter().map(|r| r.reason).collect();
        assert_eq!(reasons, [DropReason::TxError; 5]);
        assert_eq!(b.collect(1, 256).len(), 1);
        // Too long: the MTU is told, those around it go out, alone or in company.
        for v6 in [false, true] {
            let dst: IpAddr = if v6 { "2001:db8::2".parse().unwrap() } else { "192.0.2.2".parse().unwrap() };
            for sizes in [[10, 2000, 20], [2000, 2000, 20]] {
                let report = a.send(sizes.iter().map(|n| outer(v6, PORT, *n, true)).collect());
                let long = sizes.iter().filter(|n| **n > 1500).count();
                assert_eq!(report.refused.iter().map(|r| r.reason).collect::<Vec<_>>(), vec![DropReason::TooBig; long]);
                assert_eq!(report.events, [PortEvent::PathMtu { dst, mtu: 1500 }]);
                b.collect(3 - long, 256);
            }
        }
        // With DF clear the host fragments, and the other puts together.
        let report = a.send(vec![outer(false, PORT, 3000, false)]);
        assert_eq!(report.refused, []);
        assert_eq!(b.collect(1, 256)[0].len(), 3028);
    }
}

sandbox_test! {
    fn signals_are_handed_over_and_answered_by_the_same_socket() {
        let (net, a, mut b) = wire();
        drop(a);
        let (to, from_port) = std::sync::mpsc::channel();
        let at: SocketAddr = "192.0.2.2:6081".parse().unwrap();
        assert!(signals::has_port(at) && !signals::has_port("192.0.2.2:6082".parse().unwrap()));
        let claimed = signals::claim(at, move |s| to.send(s).unwrap());
        let client = net.host("a").unwrap().run(|| UdpSocket::bind("192.0.2.1:5000")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(b"\xf0hello", at).unwrap();
        client.send_to(b"\x60 is a packet", at).unwrap();
        // On the other port nobody claims anything.
        client.send_to(b"\xf0other", ("192.0.2.2", PORT)).unwrap();
        let got = b.collect(2, 256);
        let mut payloads: Vec<_> = got.iter().map(|f| f.data()[28..].to_vec()).collect();
        payloads.sort();
        assert_eq!(payloads, [b"\x60 is a packet".to_vec(), b"\xf0other".to_vec()]);
        let signal = from_port.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!((signal.from, &signal.bytes[..]), ("192.0.2.1:5000".parse().unwrap(), &b"\xf0hello"[..]));
        signal.answer(b"welcome").unwrap();
        let mut buffer = [0; 100];
        let (n, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from), (&b"welcome"[..], at));
        // Who begins a conversation speaks by the same socket, and hears its peer before anybody else does.
        let name = signals::speakers().into_iter().find(|s| s.listen.contains(&6081)).unwrap().name;
        let (to, of_peer) = std::sync::mpsc::channel();
        let own = signals::claim_from(at, "192.0.2.1:5000".parse().unwrap(), move |s| to.send(s.bytes).unwrap());
        signals::send(&name, 6081, "192.0.2.1:5000".parse().unwrap(), b"\xf0first").unwrap();
        let (n, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from), (&b"\xf0first"[..], at));
        client.send_to(b"\xf0mine", at).unwrap();
        client.send_to(b"\x60 is a packet", at).unwrap();
        b.collect(1, 256);
        assert_eq!(of_peer.recv_timeout(Duration::from_secs(5)).unwrap(), b"\xf0mine");
        let elsewhere = net.host("a").unwrap().run(|| UdpSocket::bind("192.0.2.1:5001")).unwrap();
        elsewhere.send_to(b"\xf0his", at).unwrap();
        elsewhere.send_to(b"\x60 is a packet", at).unwrap();
        b.collect(1, 256);
        assert_eq!(from_port.recv_timeout(Duration::from_secs(5)).unwrap().bytes, b"\xf0his");
        for (name, port) in [("none", 6081), (&*name, 6082)] {
            assert!(signals::send(name, port, "192.0.2.1:5000".parse().unwrap(), b"x").is_err());
        }
        drop(own);
        drop(claimed);
        client.send_to(b"\xf0again", at).unwrap();
        assert_eq!(b.collect(1, 256)[0].data()[28..], b"\xf0again"[..]);
        drop(b);
        assert!(signal.answer(b"too late").is_err() && !signals::has_port(at));
    }
}

sandbox_test! {
    fn ports_that_cannot_be_had() {
        let (net, _a, _b) = wire();
        let open = |c: PortConfig| net.host("a").unwrap().run(|| Opener::default().open(&c, 1)).unwrap_err().to_string();
        assert!(open(config()).contains("another program has one of the UDP ports [6080, 6081]"));
        let elsewhere = PortConfig { local: Some("198.51.100.1".parse().unwrap()), listen: vec![7000], ..config() };
        assert!(open(elsewhere).contains("198.51.100.1 is no address of this host"));
        assert!(open(PortConfig { listen: vec![], ..config() }).contains("no UDP port is named"));
        assert!(open(PortConfig { device: Some("none".into()), listen: vec![7000], ..config() }).contains("none"));
    }
}

proptest! {
    /// Whatever the core hands over is either sent with the right words or refused; nothing panics.
    #[test]
    fn any_bytes_to_send(p in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Some(out) = Outgoing::of(&p) {
            let m = out.message();
            prop_assert_eq!(m.skip + out.payload, p.len());
            prop_assert!(out.payload > 0);
            prop_assert_eq!(mmsg::control_messages(m.control.bytes()).count(), 3);
        }
    }

    /// Whatever the kernel says, the headers written are those of a datagram, or none are.
    #[test]
    fn any_word_of_the_kernel(
        v6: bool,
        control in proptest::collection::vec(any::<u8>(), 0..100),
        name: [u8; 28],
        payload in 0usize..70_000,
    ) {
        let came = mmsg::Received { len: payload, prefix: &[0; mmsg::PREFIX], name: &name, control: &control, truncated: false };
        if let Some(r) = Rebuilt::of(&came, v6, 7) {
            let mut p = vec![0xaa; header::len(v6) + payload.min(2000)];
            if r.write(&mut p, payload.min(2000)) && payload > 0 {
                let back = Outgoing::of(&p).filter(|_| r.from.port() != 0);
                prop_assert!(back.is_some_and(|b| b.payload == payload.min(2000)) || r.from.port() == 0);
            }
        }
    }
}
