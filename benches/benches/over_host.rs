//! Ports over the host's own stack: tunnel packets from one to another over loopback, `rawip` (bare 6in4) beside `udp` (FOU, with
//! UDP_SEGMENT and UDP_GRO).
//!
//! `cargo bench --bench over_host`; `-- --test` runs everything once, shortly. One thread sends a batch and receives it, so
//! that a figure holds both sides' work and the kernel's between them; nothing is routed. `rawip` needs CAP_NET_RAW and is
//! left out without it.

use benches::measure::{Plan, timed_per_item};
use benches::report::Report;
use router_core::checksum::fill_ipv4_header;
use router_core::frame::{Frame, FramePool};
use router_io::port::rawip::{self, RawIpConfig};
use router_io::port::udp::{self, UdpConfig};
use router_io::port::{BATCH, PortError, Receive, RecvReport, SendReport, Transmit};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];

/// Where both listen. Not one that the system gives out by itself.
const PORT: u16 = 5_599;

/// How long packets may take from one socket to the other.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() {
    let quick = std::env::args().any(|a| a == "--test");
    let plan = match quick {
        true => Plan { runs: 1, time: Duration::from_millis(5) },
        false => Plan { runs: 5, time: Duration::from_millis(400) },
    };
    let mut report = Report::new("over_host", quick);
    println!("{:<60} {:>11} {:>11} {:>11}", "", "min", "median", "max");
    for inner in [64, 576, 1_400] {
        match raw_pair() {
            Ok((a, b)) => row(&mut report, plan, "rawip", &outer(41, &packet(inner)), inner, a, b),
            Err(e) => println!("SKIPPED: rawip: {e}"),
        }
        let (a, b) = udp_pair().unwrap_or_else(|e| panic!("udp: {e}"));
        row(&mut report, plan, "udp", &outer(17, &datagram(&packet(inner))), inner, a, b);
    }
}

fn raw_pair() -> Result<(rawip::RawIpQueue, rawip::RawIpQueue), PortError> {
    let open = |i: usize| {
        rawip::open("bench", &RawIpConfig { local: Some(ENDS[i].into()), device: None }, 1).map(|mut q| q.remove(0))
    };
    Ok((open(0)?, open(1)?))
}

fn udp_pair() -> Result<(udp::UdpQueue, udp::UdpQueue), PortError> {
    let open = |i: usize| {
        let local: IpAddr = ENDS[i].into();
        udp::open("bench", &UdpConfig { local: Some(local), device: None, listen: vec![PORT] }, 1)
            .map(|mut q| q.remove(0))
    };
    Ok((open(0)?, open(1)?))
}

/// An IPv6 packet of this length with UDP inside.
fn packet(len: usize) -> Vec<u8> {
    let mut p = vec![0; len];
    p[0] = 0x60;
    p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    (p[6], p[7]) = (17, 64);
    for (at, last) in [(8, 1), (24, 2)] {
        p[at..at + 4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        p[at + 15] = last;
    }
    p[44..46].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    p
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let [high, low] = PORT.to_be_bytes();
    let len = ((payload.len() + 8) as u16).to_be_bytes();
    [&[high, low, high, low, len[0], len[1], 0, 0], payload].concat()
}

fn outer(proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0];
    ENDS.iter().for_each(|a| p.extend(a.octets()));
    p.extend(payload);
    let len = p.len() as u16;
    p[2..4].copy_from_slice(&len.to_be_bytes());
    fill_ipv4_header(&mut p);
    p
}

/// Sends batches of one packet from `a` to `b`, and counts on every one of them.
fn row(
    report: &mut Report,
    plan: Plan,
    kind: &str,
    packet: &[u8],
    inner: usize,
    mut a: impl Transmit,
    mut b: impl Receive,
) {
    // Receiving, the kernel's largest messages must fit.
    let (mut small, mut large) = (FramePool::new(2 * BATCH, 2_048), FramePool::new(3 * BATCH, 65_600));
    let (mut out, mut came): (Vec<Frame>, Vec<Frame>) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let (mut sent, mut received) = (SendReport::default(), RecvReport::default());
    let mut sending = Duration::ZERO;
    let (mut packets, mut whole) = (0u64, Duration::ZERO);
    let ns = timed_per_item(plan.runs, plan.time, || {
        while out.len() < BATCH {
            let mut frame = small.take().expect("as many frames as are in use");
            frame.reset();
            assert!(frame.set_data(packet));
            out.push(frame);
        }
        let start = Instant::now();
        a.send_batch(&mut out, &mut small, &mut sent);
        let half = start.elapsed();
        let mut n = 0;
        while n < BATCH {
            b.recv_batch(BATCH, &mut large, &mut came, &mut received);
            assert!(came.iter().all(|f| f.len() == packet.len()), "{kind}: not the packet that was sent");
            n += came.len();
            came.drain(..).for_each(|f| large.put(f));
            assert!(start.elapsed() < PATIENCE, "{kind}: {n} of {BATCH} packets came: {sent:?} {received:?}");
        }
        let spent = start.elapsed();
        (sending, whole, packets) = (sending + half, whole + spent, packets + BATCH as u64);
        (BATCH, spent)
    });
    assert!(sent.refused.is_empty() && received.malformed == 0, "{kind}: {sent:?} {received:?}");
    let rates = ns.rates();
    let gbits = rates.median * inner as f64 * 8.0 / 1e3;
    let share = sending.as_secs_f64() / whole.as_secs_f64();
    let unit = format!(
        "million packets per second; {gbits:.2} Gbit/s inside, {:.0} ns to send and {:.0} to receive",
        ns.median * share,
        ns.median * (1.0 - share)
    );
    let more =
        json!({ "inner_bytes": inner, "gbit_per_second": gbits, "ns_per_packet": ns, "share_of_sending": share });
    report.row(&format!("{kind}, {inner} bytes inside"), rates, &unit, more);
}
