//! Generators and sink against each other over a wire of their own.

use super::generator::{Engine, Offer, Pace, ProbePlan};
use super::live::Live;
use super::packet_tx::PacketTx;
use super::*;
use crate::lab::Net;
use crate::sandbox_test;
use router_core::addr::MacAddr;
use std::io;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(5);

fn wire() -> Net {
    let mut net = Net::new();
    net.hosts(&["gen", "sink"]).unwrap();
    net.link(("gen", "eth0"), ("sink", "eth0")).unwrap();
    net.wait_ready(READY).unwrap();
    net.host("sink").unwrap().run(|| napi::set_gro("eth0", true)).unwrap();
    net
}

fn udp(dport: u16, flow: u16) -> Udp {
    Udp {
        dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: [198, 18, 0, 2].into(),
        dst: [198, 19, 0, 2].into(),
        sport: 1024 + flow,
        dport,
        ttl: 64,
    }
}

fn frames(lens: &[usize]) -> FrameSet {
    let mut set = FrameSet::default();
    for flow in 0..250u16 {
        set.push(&udp(LOAD_PORT, flow).frame(lens[usize::from(flow) % lens.len()], &[], None));
    }
    set
}

fn settled(sink: &Sink, want: u64) -> Counts {
    let deadline = Instant::now() + READY;
    loop {
        let counts = sink.counts().unwrap();
        if counts.load + counts.probes >= want || Instant::now() > deadline {
            return counts;
        }
    }
}

type Open = fn(u32) -> io::Result<Box<dyn Engine>>;

fn back_ends() -> [(&'static str, Open); 2] {
    [
        ("packet", |i| Ok(Box::new(Generator::new(Box::new(PacketTx::open(i)?))))),
        ("live", |i| Ok(Box::new(Live::open(i)?))),
    ]
}

sandbox_test! {
    fn every_frame_is_counted_and_every_probe_timed() {
        let net = wire();
        let (a, b) = (net.host("gen").unwrap(), net.host("sink").unwrap());
        let [to, from] = [b, a].map(|h| h.netlink().link_index("eth0").unwrap());
        let sink = match b.run(|| Sink::open(to, &Layout::udp4())) {
            Ok(sink) => sink,
            Err(e) => return eprintln!("SKIPPED: every_frame_is_counted_and_every_probe_timed: {e}"),
        };
        let mut device = b.run(|| counters::Reader::open("eth0")).unwrap();
        for (name, open) in back_ends() {
            for lens in [&[60][..], &[60, 566, 1514]] {
                let (before, device_before) = (sink.counts().unwrap(), device.read().unwrap());
                let set = frames(lens);
                let sent = a.run(|| {
                    let mut g = open(from).unwrap();
                    g.load(&set, Some(ProbePlan { udp: udp(PROBE_PORT, 0), len: 60, outer: None, rate: 500.0 })).unwrap();
                    let pace = Pace::Rate(50_000.0);
                    let offer = Offer { pace, time: Duration::from_millis(100), frames: None, probes: true };
                    g.run(&offer, &AtomicBool::new(false)).unwrap()
                });
                let all = sent.load + u64::from(sent.probes);
                settled(&sink, before.load + before.probes + all);
                let got = sink.counts().unwrap().since(before);
                assert_eq!((got.load, got.probes), (sent.load, u64::from(sent.probes)), "{name} {lens:?} {sent:?}");
                assert_eq!(device.read().unwrap().since(device_before).rx_packets, got.frames(), "{name}");
                let longest = *lens.iter().max().unwrap() as u64;
                assert!(got.bytes >= got.load * 60 && got.bytes <= got.load * longest);
                assert!(lens.len() == 1 || got.bytes > got.load * 600, "{name}: {got:?}");
                let delays = Delays::of(&sink.take_delays(sent.probes).unwrap());
                assert_eq!((delays.sent, delays.received), (delays.sent, u64::from(sent.probes)), "{name}");
                let due = sent.seconds * 50_000.0;
                assert!(sent.load > 0 && (sent.load + sent.late) as f64 <= due + 2.0, "{name} {sent:?}");
                assert!((2..=51).contains(&sent.probes), "{name} {sent:?}");
                assert!(delays.p50 > 0 && delays.p50 < 1_000_000_000, "{delays:?}");
                assert_eq!(Delays::of(&sink.take_delays(sent.probes).unwrap()).received, 0);
            }
        }
    }
}

sandbox_test! {
    fn bursts_end_by_count_and_runs_by_request() {
        let net = wire();
        let (a, b) = (net.host("gen").unwrap(), net.host("sink").unwrap());
        let [to, from] = [b, a].map(|h| h.netlink().link_index("eth0").unwrap());
        let sink = match b.run(|| Sink::open(to, &Layout::udp4())) {
            Ok(sink) => sink,
            Err(e) => return eprintln!("SKIPPED: bursts_end_by_count_and_runs_by_request: {e}"),
        };
        for (name, open) in back_ends() {
            let before = sink.counts().unwrap();
            let (burst, stopped) = a.run(|| {
                let mut g = open(from).unwrap();
                g.load(&frames(&[60]), None).unwrap();
                let long = Duration::from_secs(100);
                let offer = Offer { pace: Pace::Max, time: long, frames: Some(1000), probes: false };
                let burst = g.run(&offer, &AtomicBool::new(false)).unwrap();
                let offer = Offer { pace: Pace::Rate(1000.0), frames: None, ..offer };
                (burst, g.run(&offer, &AtomicBool::new(true)).unwrap())
            });
            assert_eq!(burst.load, 1000, "{name}");
            assert!(stopped.load < 1000 && stopped.seconds < 50.0, "{name} {stopped:?}");
            settled(&sink, before.load + burst.load + stopped.load);
            assert_eq!(sink.counts().unwrap().since(before).load, burst.load + stopped.load, "{name}");
        }
    }
}
