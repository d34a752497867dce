//! What a scan of a link's /64 does to those who are known on it (RFC 6583): 200 hosts that are sent to all the time, and beside
//! them packets to addresses where nobody is, each another. Half a million packets per second on the router's clock, for 50 seconds:
//! long enough that every host is asked again whether it lives.
//!
//! `cargo bench --bench scan`; `-- --test` is a short run. It fails if one packet to a known host does not arrive.

use benches::bed::{Bed, HOST_MAC, IN_MAC};
use benches::measure::Spread;
use benches::report::Report;
use router_core::addr::MacAddr;
use router_core::checksum;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::port::PortId;
use router_core::time::Duration as Span;
use router_core::worker::{Fixed, Outbox, Worker};
use serde_json::json;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets of a batch, and how long one takes to come in.
const BATCH: usize = 256;
const ARRIVAL: Span = Span::from_micros(2 * BATCH as u64);
/// Known hosts on the link.
const HOSTS: u16 = 200;
const LAN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 3, 1]);

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 1, n)
}

/// A frame with an IPv6 packet in it; the checksum of ICMPv6 is right.
fn frame(macs: (MacAddr, MacAddr), (src, dst): (Ipv6Addr, Ipv6Addr), next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let mut f = [&macs.0.0[..], &macs.1.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, body.len() as u8, next, hops]].concat();
    f.extend(src.octets());
    f.extend(dst.octets());
    f.extend(body);
    if next == 58 {
        let sum = checksum::pseudo_v6(src, dst, 58, body.len() as u32).bytes(body).finish();
        f[56..58].copy_from_slice(&sum.to_be_bytes());
    }
    f
}

/// A UDP packet to somewhere on the link.
fn udp(dst: Ipv6Addr) -> Vec<u8> {
    let src = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    // The checksum is no router's business.
    frame((IN_MAC, HOST_MAC), (src, dst), 17, 64, &[0x30, 0x39, 0, 9, 0, 18, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// What a host answers to a solicitation about it.
fn advertisement(solicitation: &[u8]) -> Option<Vec<u8>> {
    let p = solicitation.get(14..)?;
    let (src, m) = (Ipv6Addr::from(*p.get(8..)?.first_chunk::<16>()?), p.get(40..)?);
    let target = Ipv6Addr::from(*m.get(8..)?.first_chunk::<16>()?);
    let [.., known, n] = target.segments();
    if (p[6], m[0], known) != (58, 135, 1) || n >= HOSTS || target != host(n) {
        return None;
    }
    let mac = MacAddr([2, 0, 0, 1, (n >> 8) as u8, n as u8]);
    let body = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets(), &[2, 1], &mac.0].concat();
    Some(frame((LAN_MAC, mac), (target, src), 58, 255, &body))
}

struct Scan {
    bed: Bed,
    worker: Worker,
    counters: Arc<WorkerCounters>,
    out: Outbox,
    lan: PortId,
    /// Packets to known hosts that arrived there.
    arrived: u64,
    /// Time of the worker, and of the control side.
    spent: [Duration; 2],
}

impl Scan {
    fn new() -> Result<Scan, benches::bed::Refused> {
        let mut bed = Bed::new()?;
        let lan = bed.port("lan", LAN_MAC, &["2001:db8:3::1/64"])?;
        bed.commit();
        let counters = Arc::new(WorkerCounters::new(8));
        let worker = Worker::new(Arc::clone(&counters), 1);
        let out = Outbox::new(8, FramePool::new(4 * BATCH, 2048));
        let mut scan = Scan { bed, worker, counters, out, lan, arrived: 0, spent: Default::default() };
        for n in 0..HOSTS {
            scan.batch(PortId(1), &[udp(host(n))]);
        }
        Ok(scan)
    }

    /// These frames come in, and hosts answer what they are asked.
    fn batch(&mut self, port: PortId, frames: &[Vec<u8>]) {
        self.bed.now = self.bed.now + ARRIVAL;
        let mut answers = Vec::new();
        self.carry(port, frames, &mut answers);
        while !answers.is_empty() {
            let frames = std::mem::take(&mut answers);
            self.carry(self.lan, &frames, &mut answers);
        }
    }

    fn carry(&mut self, port: PortId, frames: &[Vec<u8>], answers: &mut Vec<Vec<u8>>) {
        let mut batch: Vec<Frame> = Vec::with_capacity(frames.len());
        for bytes in frames {
            let Some(mut f) = self.out.pool.take() else { break };
            f.set_data(bytes);
            batch.push(f);
        }
        let source = &mut Fixed(self.bed.router.tables());
        let start = Instant::now();
        self.worker.process(self.bed.now, source, port, &mut batch, &mut self.out);
        let between = Instant::now();
        for punt in std::mem::take(&mut self.out.punts) {
            self.bed.router.handle(self.bed.now, punt, &mut self.out);
        }
        self.bed.router.poll(self.bed.now, &mut self.out);
        self.bed.commit();
        self.spent[0] += between - start;
        self.spent[1] += between.elapsed();
        for (port, queue) in self.out.tx.iter_mut().enumerate() {
            for f in queue.drain(..) {
                if port == self.lan.0 as usize {
                    // To a known host, by UDP.
                    self.arrived += u64::from(f.data().get(20) == Some(&17) && f.data().get(50..52) == Some(&[0, 1]));
                    answers.extend(advertisement(f.data()));
                }
                self.out.pool.put(f);
            }
        }
        self.out.pool.refill(2 * BATCH);
    }
}

/// So many of 256 packets go where nobody is.
fn run(report: &mut Report, scanned: usize, batches: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut scan = Scan::new()?;
    let known: Vec<Vec<u8>> = (0..HOSTS).map(|n| udp(host(n))).collect();
    let (mut sent, mut next, mut parts) = (scan.arrived, 0u64, [Vec::new(), Vec::new()]);
    let mut frames = Vec::new();
    for _ in 0..5 {
        scan.spent = Default::default();
        for _ in 0..batches {
            frames.clear();
            for i in 0..BATCH {
                if i * scanned / BATCH != (i + 1) * scanned / BATCH {
                    next += 1;
                    let n = next.to_be_bytes();
                    let word = |i: usize| u16::from_be_bytes([n[i], n[i + 1]]);
                    frames.push(udp(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0xffff, word(2), word(4), word(6))));
                } else {
                    sent += 1;
                    frames.push(known[sent as usize % known.len()].clone());
                }
            }
            scan.batch(PortId(1), &frames);
        }
        let packets = (batches * BATCH) as f64;
        parts.iter_mut().zip(scan.spent).for_each(|(part, time)| part.push(time.as_nanos() as f64 / packets));
    }
    if scan.arrived != sent {
        return Err(format!("{} of {sent} packets to known hosts arrived", scan.arrived).into());
    }
    let entries = scan.bed.router.neighbors().len();
    let dropped: Vec<_> = Totals::sum([&*scan.counters, &**scan.bed.router.counters()]).dropped.into_iter().collect();
    let share = scanned * 100 / BATCH;
    let more = json!({ "known": sent, "arrived": scan.arrived, "scanned": next, "entries": entries });
    let [worker, control] = parts.map(Spread::of);
    report.row(&format!("{share} % scan: worker"), worker, "ns per packet", more.clone());
    report.row(&format!("{share} % scan: control thread"), control, "ns per packet", more);
    println!(
        "    {sent} packets to known hosts, all arrived; {next} scanned; {entries} neighbours; dropped: {dropped:?}"
    );
    Ok(())
}

fn main() -> ExitCode {
    let quick = std::env::args().any(|a| a == "--test");
    let mut report = Report::new("scan", quick);
    // 5 parts of 10 seconds.
    let batches = if quick { 100 } else { 5_000_000 / BATCH };
    println!("{:<60} {:>11} {:>11} {:>11}", "", "min", "median", "max");
    for scanned in [0, BATCH / 2, BATCH * 9 / 10] {
        if let Err(e) = run(&mut report, scanned, batches) {
            eprintln!("{scanned} of {BATCH} packets scan: {e}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
