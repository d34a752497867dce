//! Two workers: frames of a flow stay in order and none is lost, while the flows are spread over both.

use router_core::frame::{Frame, FramePool, MAX_FRAME};
use router_io::lab::{Host, sandbox};
use router_io::port::packet::{self, PacketQueue};
use router_io::port::{Receive, RecvReport, SendReport, Transmit};
use router_io::sandbox_test;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Dut, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const FLOWS: u16 = 64;
const PER_FLOW: u32 = 2000;
const PORT: u16 = 9000;
const LIMIT: Duration = Duration::from_secs(120);
/// Frames under way: a receive ring or a veth's queue holds them all, so that nothing may be lost.
const WINDOW: u32 = 200;

/// Frame `seq` of flow `flow`, UDP over IPv4 without a UDP checksum.
fn frame(to: [u8; 6], flow: u16, seq: u32) -> Frame {
    let mut f = vec![0u8; 14 + 28 + 18];
    f[..6].copy_from_slice(&to);
    f[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
    let ip = &mut f[14..];
    ip[..20].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 129]);
    router_core::checksum::fill_ipv4_header(ip);
    ip[20..22].copy_from_slice(&(10_000 + flow).to_be_bytes());
    ip[22..24].copy_from_slice(&PORT.to_be_bytes());
    ip[24..26].copy_from_slice(&26u16.to_be_bytes());
    ip[28..30].copy_from_slice(&flow.to_be_bytes());
    ip[30..34].copy_from_slice(&seq.to_be_bytes());
    Frame::from_slice(&f)
}

/// Flow and sequence number of a frame of ours.
fn read(f: &[u8]) -> Option<(u16, u32)> {
    let ip = f.get(14..)?;
    let ours = f[12..14] == [8, 0] && ip.get(9) == Some(&17) && ip.get(22..24)? == PORT.to_be_bytes();
    let flow = u16::from_be_bytes(ip.get(28..30)?.try_into().ok()?);
    ours.then_some((flow, u32::from_be_bytes(ip.get(30..34)?.try_into().ok()?)))
}

fn tap(host: &Host) -> PacketQueue {
    host.run(|| packet::open("tap", "eth0", Default::default(), 1)).unwrap().0.remove(0)
}

fn in_order_without_loss(kind: &'static str, spread: bool) {
    let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
    bed.ready().unwrap();
    bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
    bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"]).unwrap();
    let r = RouterConfig::new("r").router("workers = 2").port_of(kind, "left", &["192.0.2.2/25"], "").port_of(
        kind,
        "right",
        &["192.0.2.130/25"],
        "",
    );
    bed.router(Dut::Duet, &r).unwrap();
    // Neighbours are known from here on: no frame waits for one.
    Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129").reachable().unwrap();
    let left = bed.host("r").netlink().links().unwrap().into_iter().find(|l| l.name == "left").unwrap();
    let to = left.mac.unwrap().0;
    let (mut from, mut at) = (tap(bed.host("a")), tap(bed.host("b")));
    let mut pool = FramePool::new(512, MAX_FRAME);
    let mut next: BTreeMap<u16, u32> = BTreeMap::new();
    let (mut sent, mut seen, mut batch) = (0u32, 0u32, Vec::new());
    let total = u32::from(FLOWS) * PER_FLOW;
    let end = Instant::now() + LIMIT;
    while seen < total {
        assert!(Instant::now() < end, "{seen} of {sent} frames arrived; {:?}", bed.stats("r"));
        let mut frames = Vec::new();
        while sent < total && sent - seen < WINDOW {
            frames.push(frame(to, (sent % u32::from(FLOWS)) as u16, sent / u32::from(FLOWS)));
            sent += 1;
        }
        let mut report = SendReport::default();
        from.send_batch(&mut frames, &mut pool, &mut report);
        assert!(report.refused.is_empty(), "{report:?}");
        at.recv_batch(256, &mut pool, &mut batch, &mut RecvReport::default());
        for f in batch.drain(..) {
            if let Some((flow, seq)) = read(f.data()) {
                let expected = next.entry(flow).or_default();
                assert_eq!(seq, *expected, "flow {flow}: lost or out of order");
                *expected += 1;
                seen += 1;
            }
            pool.put(f);
        }
    }
    // Both workers have had their share where the port spreads flows.
    if spread {
        let pid = bed.duet("r").pid();
        let mut busy = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap();
            let status = std::fs::read_to_string(path.join("status")).unwrap();
            let switches = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            // A worker that gets no flow sleeps from the beginning to the end.
            busy += u32::from(name.starts_with("worker") && switches.trim().parse::<u64>().unwrap() > 100);
        }
        assert_eq!(busy, 2, "one worker had no flow");
    }
    bed.finish().unwrap();
}

sandbox_test! {
    fn packet_ports_spread_flows_by_fanout() {
        in_order_without_loss("packet", true);
    }
}

sandbox_test! {
    fn xdp_ports_on_devices_of_one_queue() {
        if sandbox::in_user_namespace() {
            eprintln!("SKIPPED: XDP programs need CAP_BPF of the machine, not of a user namespace");
        } else {
            in_order_without_loss("xdp", false);
        }
    }
}
