//! One device under test between a generator and a sink, in namespaces of their own, and single trials on it.

use super::dut::Dut;
use super::error::WireError;
use super::plan::{Cpus, DutName, PathName, SizeName};
use super::topology::{self, GATEWAYS, GEN4, GEN6, LEFT4};
use benches::table::Table;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use router_core::addr::MacAddr;
use router_io::lab::{Host, Net};
use router_io::traffic::counters::{DeviceCounters, Reader};
use router_io::traffic::packet_tx::PacketTx;
use router_io::traffic::{
    Counts, Delays, FrameSet, Generator, Offer, Pace, ProbePlan, Sent, Sink, affinity, pin_thread_of,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long links may take to come up.
const READY: Duration = Duration::from_secs(10);
/// A queue that has given nothing for so long is empty.
const QUIET: Duration = Duration::from_millis(60);
/// The longest wait for what is still under way after a trial (RFC 2544 23 has 2 s).
const DRAIN: Duration = Duration::from_secs(2);
/// Frames per second of the check that the path works.
const CHECK_RATE: f64 = 20_000.0;

enum Job {
    Load(FrameSet, Sender<io::Result<()>>),
    Run(Offer, Sender<io::Result<Sent>>),
}

/// What a lab is made of.
pub(super) struct Setup<'a> {
    pub path: PathName,
    /// None: generator and sink at the two ends of one wire.
    pub dut: Option<DutName>,
    pub table: &'a Table,
    pub flows: u32,
    pub workers: u16,
    pub cpus: &'a Cpus,
    pub exec: Option<&'a str>,
}

/// See the module.
pub(super) struct Lab {
    pub path: PathName,
    pub dut: Option<Dut>,
    table: Table,
    flows: u32,
    macs: [MacAddr; 2],
    size: Option<SizeName>,
    probe: Option<ProbePlan>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sink: Sink,
    generator_dev: Reader,
    sink_dev: Reader,
    /// Ends last: devices live as long as their namespaces.
    pub net: Net,
}

/// What came of one trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    /// Frames of the load per second that were really sent.
    pub offered: f64,
    pub sent: u64,
    pub received: u64,
    /// Frames that the sender was too late for.
    pub late: u64,
    /// Frames per second that arrived while load was offered, its first fifth left out.
    pub forwarded: f64,
    pub delays: Option<Delays>,
    /// The kernel's counters say something else than generator and sink.
    pub mismatch: Option<String>,
}

impl Trial {
    /// Share of frames that did not arrive.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.sent.saturating_sub(self.received) as f64 / self.sent as f64 }
    }
}

impl Lab {
    /// Builds it and starts the device under test.
    pub fn new(setup: &Setup<'_>) -> Result<Self, WireError> {
        let Setup { path, cpus, .. } = *setup;
        let net = wire(setup)?;
        let (generator, sink_host) = (Arc::clone(net.host("gen")?), net.host("sink")?);
        let dut = match setup.dut {
            Some(name) => Some(Dut::start(name, &net, setup)?),
            None => None,
        };
        let first = if dut.is_some() { ("dut", "left") } else { ("sink", "eth0") };
        let macs = [mac(&net, "gen", "eth0")?, mac(&net, first.0, first.1)?];
        let at = if path.returns() && dut.is_some() { &generator } else { sink_host };
        let layout = if dut.is_some() { path.layout() } else { path.sent_layout() };
        let index = at.netlink().link_index("eth0").map_err(|e| lab_error(at, e))?;
        let sink = at.run(|| Sink::open(index, &layout))?;
        let reader = |h: &Host| {
            h.run(|| Reader::open("eth0")).map_err(WireError::system(format!("host {}: read counters", h.name())))
        };
        let (generator_dev, sink_dev) = (reader(&generator)?, reader(at)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, thread) = start_generator(&generator, cpus.generator, Arc::clone(&stop))?;
        Ok(Lab {
            path,
            dut,
            table: setup.table.clone(),
            flows: setup.flows,
            macs,
            size: None,
            probe: None,
            jobs: Some(jobs),
            thread: Some(thread),
            stop,
            sink,
            generator_dev,
            sink_dev,
            net,
        })
    }

    /// How the sink counts.
    pub fn sink_name(&self) -> &'static str {
        self.sink.name()
    }

    /// Chooses the frame size of the trials to come and checks that every frame comes through.
    pub fn prepare(&mut self, size: SizeName, probes: u32) -> Result<(), WireError> {
        if self.size == Some(size) {
            return Ok(());
        }
        let stream = topology::stream(self.path, size, &self.table, self.flows, self.macs, f64::from(probes));
        let count = stream.frames.len() as u64;
        let (reply, answer) = bounded(1);
        self.ask(Job::Load(stream.frames, reply), &answer)?;
        self.probe = Some(stream.probe);
        self.size = Some(size);
        self.check(count.min(8192))
    }

    /// Sends every flow's frames until all of them come through: neighbours are resolved, tables are warm.
    fn check(&mut self, frames: u64) -> Result<(), WireError> {
        let patience = self.dut.as_ref().map_or(READY, Dut::patience);
        let deadline = Instant::now() + patience;
        let time = Duration::from_secs_f64(frames as f64 / CHECK_RATE * 2.0) + Duration::from_millis(20);
        let offer = Offer { pace: Pace::Rate(CHECK_RATE), time, frames: Some(frames), probes: None };
        self.active(true);
        let mut last;
        loop {
            last = self.trial(&offer)?;
            if last.sent > 0 && last.received >= last.sent {
                break;
            }
            if Instant::now() > deadline {
                let log = self.dut.as_ref().map(Dut::log).filter(|l| !l.is_empty());
                self.active(false);
                return Err(WireError::NoPath {
                    dut: self.dut.as_ref().map_or("wire", |d| d.name.name()),
                    path: self.path.name(),
                    sent: last.sent,
                    received: last.received,
                    seconds: patience.as_secs(),
                    log: log.map(|l| format!("\n{l}")).unwrap_or_default(),
                });
            }
        }
        self.active(false);
        Ok(())
    }

    /// Lets the device under test run, or stops it while another one is measured: a process that spins would take a
    /// processor from the others.
    pub fn active(&mut self, on: bool) {
        if let Some(dut) = &mut self.dut {
            dut.active(on);
        }
    }

    /// The probes of the present frame size.
    pub fn probe(&self) -> Option<ProbePlan> {
        self.probe
    }

    /// Where the sink counts: for measures that look while load is running.
    pub fn counts(&self) -> Result<Counts, WireError> {
        Ok(self.sink.counts()?)
    }

    /// Starts sending; the answer comes when it is done.
    pub fn start(&self, offer: &Offer) -> Result<Receiver<io::Result<Sent>>, WireError> {
        let (reply, answer) = bounded(1);
        let jobs = self.jobs.as_ref().ok_or(WireError::GeneratorGone)?;
        jobs.send(Job::Run(*offer, reply)).map_err(|_| WireError::GeneratorGone)?;
        Ok(answer)
    }

    /// Sends and counts.
    pub fn trial(&mut self, offer: &Offer) -> Result<Trial, WireError> {
        let before = self.sink.counts()?;
        let devices = self.devices()?;
        let begin = Instant::now();
        let answer = self.start(offer)?;
        let window = self.window(offer, begin)?;
        let sent = answer.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("send"))?;
        let want = sent.load + u64::from(sent.probes);
        let got = self.drain(before, want)?;
        let mut trial = Trial {
            offered: sent.rate(),
            sent: sent.load,
            received: got.load,
            late: sent.late,
            forwarded: window.unwrap_or(if sent.seconds > 0.0 { got.load as f64 / sent.seconds } else { 0.0 }),
            ..Trial::default()
        };
        if sent.probes > 0 {
            trial.delays = Some(Delays::of(&self.sink.take_delays(sent.probes)?));
        }
        trial.mismatch = self.audit(devices, sent, got)?;
        Ok(trial)
    }

    /// The rate of arrival between a fifth of the time and its end, where load is offered beyond what can be forwarded:
    /// neither the start nor what queues give back afterwards counts.
    fn window(&self, offer: &Offer, begin: Instant) -> Result<Option<f64>, WireError> {
        if offer.pace != Pace::Max || offer.frames.is_some() {
            return Ok(None);
        }
        let at = |share: f64| -> Result<(Instant, u64), WireError> {
            let until = begin + offer.time.mul_f64(share);
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok((Instant::now(), self.sink.counts()?.load))
        };
        let (from, to) = (at(0.2)?, at(0.95)?);
        let seconds = (to.0 - from.0).as_secs_f64();
        Ok((seconds > 0.0).then(|| (to.1 - from.1) as f64 / seconds))
    }

    /// Waits until everything has arrived, or nothing more does.
    fn drain(&self, before: Counts, want: u64) -> Result<Counts, WireError> {
        let (start, mut changed) = (Instant::now(), Instant::now());
        let mut last = self.sink.counts()?;
        loop {
            let got = last.since(before);
            if got.load + got.probes >= want || changed.elapsed() > QUIET || start.elapsed() > DRAIN {
                return Ok(got);
            }
            std::thread::sleep(Duration::from_millis(2));
            let now = self.sink.counts()?;
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
    }

    fn devices(&mut self) -> Result<[DeviceCounters; 2], WireError> {
        let read = |r: &mut Reader| r.read().map_err(WireError::system("read device counters"));
        Ok([read(&mut self.generator_dev)?, read(&mut self.sink_dev)?])
    }

    /// Compares with what the kernel counted on the two devices.
    fn audit(&mut self, before: [DeviceCounters; 2], sent: Sent, got: Counts) -> Result<Option<String>, WireError> {
        let now = self.devices()?;
        let (generator, sink) = (now[0].since(before[0]), now[1].since(before[1]));
        let ours = sent.load + u64::from(sent.probes);
        Ok(compare("generator", ours - sent.refused, "sent", generator.tx_packets)
            .or_else(|| compare("sink", got.frames(), "received", sink.rx_packets)))
    }

    fn ask<T>(&self, job: Job, answer: &Receiver<io::Result<T>>) -> Result<T, WireError> {
        let jobs = self.jobs.as_ref().ok_or(WireError::GeneratorGone)?;
        jobs.send(job).map_err(|_| WireError::GeneratorGone)?;
        answer.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("load the generator"))
    }
}

/// Counters of a device against our own. The hosts' kernels send a few frames themselves (ARP, neighbour discovery).
fn compare(who: &str, ours: u64, did: &str, kernel: u64) -> Option<String> {
    const STRAY: u64 = 32;
    let differ = ours.abs_diff(kernel) > STRAY;
    differ.then(|| format!("the {who} counts {ours} frames, but the kernel {kernel} {did} on its device"))
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lab_error(host: &Host, source: router_io::netlink::NetlinkError) -> WireError {
    WireError::Lab(router_io::lab::LabError::Netlink { host: host.name().to_owned(), source })
}

fn mac(net: &Net, host: &str, dev: &str) -> Result<MacAddr, WireError> {
    let host = net.host(host)?;
    let link = host.netlink().link(dev).map_err(|e| lab_error(host, e))?;
    Ok(link.mac.unwrap_or(MacAddr([0; 6])))
}

/// Namespaces, links and the addresses of the two ends.
fn wire(setup: &Setup<'_>) -> Result<Net, WireError> {
    let (path, cpus) = (setup.path, setup.cpus);
    let mut net = Net::new();
    let here = affinity();
    let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    let pin = |list: &[usize]| pin_thread_of(own, list).map_err(WireError::system("choose processors"));
    // Programs of a host start on the processors that this thread has while it makes the host.
    let duts: &[&str] = match (setup.dut, path.roles().len()) {
        (None, _) => &[],
        (_, 1) => &["dut"],
        _ => &["dut", "dut2"],
    };
    pin(&cpus.dut)?;
    net.hosts(duts)?;
    pin(&here)?;
    net.hosts(&["gen", "sink"])?;
    let (last, others) = path.mtus();
    match duts {
        [] => net.link_mtu(("gen", "eth0"), ("sink", "eth0"), others)?,
        ["dut"] => {
            net.link_mtu(("gen", "eth0"), ("dut", "left"), others)?;
            net.link_mtu(("dut", "right"), ("sink", "eth0"), last)?;
        }
        _ => {
            net.link_mtu(("gen", "eth0"), ("dut", "left"), others)?;
            net.link_mtu(("dut", "right"), ("dut2", "left"), others)?;
            net.link_mtu(("dut2", "right"), ("sink", "eth0"), last)?;
        }
    }
    if !duts.is_empty() {
        net.addr("gen", "eth0", &format!("{GEN4}/24"))?;
        net.addr("gen", "eth0", &format!("{GEN6}/64"))?;
        for i in 0..GATEWAYS {
            net.addr("sink", "eth0", &format!("{}/24", topology::sink4(i)))?;
            net.addr("sink", "eth0", &format!("{}/64", topology::sink6(i)))?;
        }
    }
    net.wait_ready(READY)?;
    if !duts.is_empty() {
        net.route("gen", &format!("0.0.0.0/0 via {LEFT4}"))?;
    }
    Ok(net)
}

fn start_generator(host: &Host, cpu: usize, stop: Arc<AtomicBool>) -> Result<(Sender<Job>, JoinHandle<()>), WireError> {
    let index = host.netlink().link_index("eth0").map_err(|e| lab_error(host, e))?;
    let (jobs, todo) = unbounded();
    let (ready, opened) = bounded(1);
    let thread = host.thread("generator", move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let made = pin_thread_of(tid, &[cpu]).and_then(|()| PacketTx::open(index));
        match made {
            Ok(tx) => {
                let _ = ready.send(Ok(()));
                generate(&mut Generator::new(Box::new(tx)), &todo, &stop);
            }
            Err(e) => drop(ready.send(Err(e))),
        }
    })?;
    opened.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("open the generator"))?;
    Ok((jobs, thread))
}

fn generate(generator: &mut Generator, todo: &Receiver<Job>, stop: &AtomicBool) {
    for job in todo {
        match job {
            Job::Load(frames, reply) => drop(reply.send(generator.load(&frames))),
            Job::Run(offer, reply) => drop(reply.send(generator.run(&offer, stop))),
        }
    }
}
