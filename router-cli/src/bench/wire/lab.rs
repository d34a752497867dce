//! One device under test between a generator and a sink, in namespaces of their own or on the machine's devices, and
//! single trials on it.

use super::dut::Dut;
use super::error::WireError;
use super::plan::{Cpus, DutName, GeneratorName, PathName, SizeName};
use super::topology;
use benches::table::Table;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use router_core::addr::MacAddr;
use router_io::lab::{Host, LabError, Net};
use router_io::netlink::Netlink;
use router_io::traffic::counters::{DeviceCounters, Reader};
use router_io::traffic::live::Live;
use router_io::traffic::napi;
use router_io::traffic::packet_tx::PacketTx;
use router_io::traffic::tcp::{self, TcpRate};
use router_io::traffic::tunnel_end::TunnelEnd;
use router_io::traffic::{
    Counts, Delays, Engine, FrameSet, Generator, Layout, Offer, Pace, ProbePlan, Sent, Sink, affinity, pin_thread_of,
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
/// The longest wait for a restarted device under test.
const RESTART: Duration = Duration::from_secs(120);

enum Job {
    Load(FrameSet, ProbePlan, Sender<io::Result<()>>),
    Run(Offer, Sender<io::Result<Sent>>),
}

/// What a lab is made of.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub path: PathName,
    /// None: generator and sink at the two ends of one wire.
    pub dut: Option<DutName>,
    pub table: Arc<Table>,
    pub flows: u32,
    pub workers: u16,
    pub cpus: Cpus,
    pub exec: Option<String>,
    pub generator: GeneratorName,
    /// Devices of this machine instead of a lab.
    pub devices: Option<Devices>,
}

/// Devices of this machine, and who is at the other end of the first.
#[derive(Clone, Debug)]
pub(super) struct Devices {
    pub tx: String,
    pub rx: String,
    pub gateway: MacAddr,
}

/// See the module.
pub(super) struct Lab {
    pub setup: Setup,
    pub dut: Option<Dut>,
    macs: [MacAddr; 2],
    size: Option<SizeName>,
    generator: &'static str,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sink: Option<Sink>,
    generator_dev: Reader,
    sink_dev: Reader,
    /// Ends last: devices live as long as their namespaces. None with the machine's own devices.
    net: Option<Net>,
}

/// What came of one trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    /// Frames of the load per second that were really sent.
    pub offered: f64,
    pub sent: u64,
    pub received: u64,
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
    pub fn new(setup: Setup) -> Result<Self, WireError> {
        if let Some(devices) = setup.devices.clone() {
            return Self::on_devices(setup, &devices);
        }
        let net = wire(&setup)?;
        let generator = Arc::clone(net.host("gen")?);
        let dut = match setup.dut {
            Some(name) => Some(Dut::start(name, &net, &setup)?),
            None => None,
        };
        if setup.dut.is_some() {
            for (host, route) in setup.path.host_routes() {
                net.route(host, &route)?;
            }
        }
        let framed = dut.is_some() && setup.dut != Some(DutName::Tun);
        let first = if framed { ("dut", "left") } else { ("sink", "eth0") };
        let macs = [mac(&net, "gen", "eth0")?, mac(&net, first.0, first.1)?];
        let at = Arc::clone(sink_host(&net, &setup)?);
        let sink = open_sink(&at, &setup)?;
        let reader = |h: &Host| {
            h.run(|| Reader::open("eth0")).map_err(WireError::system(format!("host {}: read counters", h.name())))
        };
        let (generator_dev, sink_dev) = (reader(&generator)?, reader(&at)?);
        let index = generator.netlink().link_index("eth0").map_err(|e| lab_error(&generator, e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, thread, generator) =
            start_generator(index, &setup, Arc::clone(&stop), |f| Ok(generator.thread("generator", f)?))?;
        Ok(Lab {
            setup,
            dut,
            macs,
            size: None,
            generator,
            jobs: Some(jobs),
            thread: Some(thread),
            stop,
            sink: Some(sink),
            generator_dev,
            sink_dev,
            net: Some(net),
        })
    }

    /// Between two devices of this machine, in its own network namespace.
    fn on_devices(setup: Setup, devices: &Devices) -> Result<Self, WireError> {
        let of = |e| WireError::Lab(LabError::Netlink { host: "this machine".to_owned(), source: e });
        let mut netlink = Netlink::open().map_err(of)?;
        let (tx, rx) = (netlink.link(&devices.tx).map_err(of)?, netlink.link(&devices.rx).map_err(of)?);
        let macs = [tx.mac.unwrap_or(MacAddr([0; 6])), devices.gateway];
        let sink = Sink::open(rx.index, &setup.path.layout())?;
        let reader = |dev: &str| Reader::open(dev).map_err(WireError::system(format!("read counters of {dev}")));
        let (generator_dev, sink_dev) = (reader(&devices.tx)?, reader(&devices.rx)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (jobs, thread, generator) = start_generator(tx.index, &setup, Arc::clone(&stop), |f| {
            std::thread::Builder::new()
                .name("generator".to_owned())
                .spawn(f)
                .map_err(WireError::system("start a thread"))
        })?;
        Ok(Lab {
            setup,
            dut: None,
            macs,
            size: None,
            generator,
            jobs: Some(jobs),
            thread: Some(thread),
            stop,
            sink: Some(sink),
            generator_dev,
            sink_dev,
            net: None,
        })
    }

    /// What is measured, for people.
    pub fn name(&self) -> &'static str {
        self.setup.dut.map_or("generator and sink", DutName::name)
    }

    /// Whether nothing but streams goes through: the device under test has no Ethernet devices.
    pub fn streams_only(&self) -> bool {
        self.setup.dut == Some(DutName::Tun)
    }

    /// How the sink counts.
    pub fn sink_name(&self) -> &'static str {
        self.sink.as_ref().map_or("none", Sink::name)
    }

    /// Chooses the frame size of the trials to come and checks that every frame comes through.
    pub fn prepare(&mut self, size: SizeName, probes: u32) -> Result<(), WireError> {
        if self.size == Some(size) {
            return Ok(());
        }
        let s = &self.setup;
        let stream = topology::stream(s.path, size, &s.table, s.flows, self.macs, f64::from(probes));
        let count = stream.frames.len() as u64;
        let (reply, answer) = bounded(1);
        self.ask(Job::Load(stream.frames, stream.probe, reply), &answer)?;
        self.size = Some(size);
        self.active(true);
        let done = self.check(count.min(8192));
        self.active(false);
        done
    }

    /// Sends every flow's frames until all of them come through: neighbours are resolved, tables are warm.
    fn check(&mut self, frames: u64) -> Result<(), WireError> {
        let begin = Instant::now();
        let time = Duration::from_secs_f64(frames as f64 / CHECK_RATE * 2.0) + Duration::from_millis(20);
        let offer = Offer { pace: Pace::Rate(CHECK_RATE), time, frames: Some(frames), probes: false };
        loop {
            let last = self.trial(&offer)?;
            if last.sent > 0 && last.received >= last.sent {
                return Ok(());
            }
            let patience = self.dut.as_mut().map_or(READY, Dut::patience);
            if begin.elapsed() > patience {
                let log = self.dut.as_ref().map(Dut::log).filter(|l| !l.is_empty());
                return Err(WireError::NoPath {
                    dut: self.name(),
                    path: self.setup.path.name(),
                    sent: last.sent,
                    received: last.received,
                    seconds: patience.as_secs(),
                    log: log.map(|l| format!("\n{l}")).unwrap_or_default(),
                });
            }
        }
    }

    /// Lets the device under test run, or stops it while another one is measured: a process that spins would take a
    /// processor from the others.
    pub fn active(&mut self, on: bool) {
        if let Some(dut) = &mut self.dut {
            dut.active(on);
        }
    }

    /// How frames are made.
    pub fn generator_name(&self) -> &'static str {
        self.generator
    }

    pub(super) fn counts(&self) -> Result<Counts, WireError> {
        Ok(self.sink.as_ref().map(Sink::counts).transpose()?.unwrap_or_default())
    }

    /// Starts sending; the answer comes when it is done.
    pub(super) fn start(&self, offer: &Offer) -> Result<Receiver<io::Result<Sent>>, WireError> {
        let (reply, answer) = bounded(1);
        let jobs = self.jobs.as_ref().ok_or(WireError::GeneratorGone)?;
        jobs.send(Job::Run(*offer, reply)).map_err(|_| WireError::GeneratorGone)?;
        Ok(answer)
    }

    /// Sends and counts.
    pub fn trial(&mut self, offer: &Offer) -> Result<Trial, WireError> {
        let before = self.counts()?;
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
            forwarded: window.unwrap_or(if sent.seconds > 0.0 { got.load as f64 / sent.seconds } else { 0.0 }),
            ..Trial::default()
        };
        if let (true, Some(sink)) = (sent.probes > 0, &self.sink) {
            trial.delays = Some(Delays::of(&sink.take_delays(sent.probes)?));
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
            Ok((Instant::now(), self.counts()?.load))
        };
        let (from, to) = (at(0.2)?, at(0.95)?);
        let seconds = (to.0 - from.0).as_secs_f64();
        Ok((seconds > 0.0).then(|| (to.1 - from.1) as f64 / seconds))
    }

    /// Waits until everything has arrived, or nothing more does.
    fn drain(&self, before: Counts, want: u64) -> Result<Counts, WireError> {
        let (start, mut changed) = (Instant::now(), Instant::now());
        let mut last = self.counts()?;
        loop {
            let got = last.since(before);
            if got.load + got.probes >= want || changed.elapsed() > QUIET || start.elapsed() > DRAIN {
                return Ok(got);
            }
            std::thread::sleep(Duration::from_millis(2));
            let now = self.counts()?;
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
        // What finds the queue behind the device full is lost there, and counted.
        Ok(compare("generator", ours, "sent or dropped", generator.tx_packets + generator.tx_dropped)
            .or_else(|| compare("sink", got.frames(), "received", sink.rx_packets)))
    }

    /// The longest time without an arrival while the device under test starts again, under a constant load.
    pub fn restart(&mut self, rate: f64) -> Result<f64, WireError> {
        let (Some(net), Some(dut)) = (&self.net, &mut self.dut) else { return Ok(0.0) };
        let Some(sink) = &self.sink else { return Ok(0.0) };
        let offer = Offer { pace: Pace::Rate(rate), time: RESTART, frames: None, probes: false };
        let (reply, answer) = bounded(1);
        let jobs = self.jobs.as_ref().ok_or(WireError::GeneratorGone)?;
        jobs.send(Job::Run(offer, reply)).map_err(|_| WireError::GeneratorGone)?;
        let done = AtomicBool::new(false);
        let gap = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch_gap(sink, &done));
            std::thread::sleep(Duration::from_millis(300));
            let restarted = dut.restart(net, &self.setup);
            done.store(true, Ordering::Relaxed);
            let gap = watch.join().unwrap_or(Err(WireError::GeneratorGone));
            restarted.and(gap)
        });
        self.stop.store(true, Ordering::Relaxed);
        let ended = answer.recv();
        self.stop.store(false, Ordering::Relaxed);
        ended.map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("send"))?;
        gap
    }

    /// One TCP stream from the generator's host to the sink's; None where none can go.
    pub fn tcp(&mut self, time: Duration) -> Result<Option<TcpRate>, WireError> {
        let (Some(net), Some(addr)) = (&self.net, self.setup.path.tcp()) else { return Ok(None) };
        // A veth with a program takes no super-segments.
        self.sink = None;
        let (generator, sink) = (net.host("gen")?, net.host("sink")?);
        let failed = WireError::system("TCP stream");
        let warm_up = time.mul_f64(0.2);
        let tunnel = self.setup.path == PathName::Encap;
        let rate = (|| {
            // The sink is the tunnel's other end.
            let ends = || TunnelEnd::open("eth0", topology::sink4(0), topology::RIGHT4);
            let _end = tunnel.then(|| sink.run(ends)).transpose()?;
            let receiver = sink.run(|| tcp::Receiver::listen(addr))?;
            let to = receiver.addr()?;
            std::thread::scope(|scope| {
                let sender = scope.spawn(move || generator.run(|| tcp::send(to, time + warm_up)));
                let rate = receiver.receive(warm_up);
                let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
                sent.and(rate)
            })
        })();
        let at = Arc::clone(sink_host(net, &self.setup)?);
        self.sink = Some(open_sink(&at, &self.setup)?);
        rate.map(Some).map_err(failed)
    }

    fn ask<T>(&self, job: Job, answer: &Receiver<io::Result<T>>) -> Result<T, WireError> {
        let jobs = self.jobs.as_ref().ok_or(WireError::GeneratorGone)?;
        jobs.send(job).map_err(|_| WireError::GeneratorGone)?;
        answer.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("load the generator"))
    }
}

/// Looks for the longest time without an arrival, until told to end and frames arrive again.
fn watch_gap(sink: &Sink, done: &AtomicBool) -> Result<f64, WireError> {
    let mut last = (sink.counts()?.load, Instant::now());
    let (begin, mut longest, mut resumed) = (Instant::now(), 0.0f64, None);
    loop {
        std::thread::sleep(Duration::from_micros(500));
        let load = sink.counts()?.load;
        if load != last.0 {
            longest = longest.max(last.1.elapsed().as_secs_f64());
            last = (load, Instant::now());
            if done.load(Ordering::Relaxed) {
                resumed.get_or_insert_with(Instant::now);
            }
        }
        let settled = resumed.is_some_and(|t: Instant| t.elapsed() > Duration::from_millis(300));
        if settled || begin.elapsed() > RESTART {
            return Ok(longest);
        }
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
    WireError::Lab(LabError::Netlink { host: host.name().to_owned(), source })
}

fn mac(net: &Net, host: &str, dev: &str) -> Result<MacAddr, WireError> {
    let host = net.host(host)?;
    let link = host.netlink().link(dev).map_err(|e| lab_error(host, e))?;
    Ok(link.mac.unwrap_or(MacAddr([0; 6])))
}

fn sink_host<'a>(net: &'a Net, setup: &Setup) -> Result<&'a Arc<Host>, WireError> {
    Ok(net.host(if setup.path.returns() && setup.dut.is_some() { "gen" } else { "sink" })?)
}

fn open_sink(at: &Host, setup: &Setup) -> Result<Sink, WireError> {
    let layout: Layout = if setup.dut.is_some() { setup.path.layout() } else { setup.path.sent_layout() };
    let index = at.netlink().link_index("eth0").map_err(|e| lab_error(at, e))?;
    Ok(at.run(|| Sink::open(index, &layout))?)
}

/// Namespaces, links, addresses and routes of the two ends.
fn wire(setup: &Setup) -> Result<Net, WireError> {
    let (path, cpus) = (setup.path, &setup.cpus);
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
    let made = net.hosts(duts);
    pin(&here)?;
    made?;
    net.hosts(&["gen", "sink"])?;
    let [first, middle, last] = path.mtus();
    match duts {
        // TUN devices come with the device under test; generator and sink of frames have a wire of their own.
        _ if setup.dut == Some(DutName::Tun) => net.link_mtu(("gen", "eth0"), ("sink", "eth0"), first)?,
        [] => net.link_mtu(("gen", "eth0"), ("sink", "eth0"), first)?,
        ["dut"] => {
            net.link_mtu(("gen", "eth0"), ("dut", "left"), first)?;
            net.link_mtu(("dut", "right"), ("sink", "eth0"), last)?;
        }
        _ => {
            net.link_mtu(("gen", "eth0"), ("dut", "left"), first)?;
            net.link_mtu(("dut", "right"), ("dut2", "left"), middle)?;
            net.link_mtu(("dut2", "right"), ("sink", "eth0"), last)?;
        }
    }
    if duts.is_empty() || setup.dut == Some(DutName::Tun) {
        net.wait_ready(READY)?;
        return Ok(net);
    }
    topology::end_addresses(&net, ["eth0", "eth0"])?;
    net.wait_ready(READY)?;
    // A veth takes bare frames while its other end has NAPI.
    net.host("dut")?.run(|| napi::set_gro("left", true)).map_err(WireError::system("switch GRO of left on"))?;
    Ok(net)
}

type Task = Box<dyn FnOnce() + Send>;

fn start_generator(
    index: u32,
    setup: &Setup,
    stop: Arc<AtomicBool>,
    spawn: impl FnOnce(Task) -> Result<JoinHandle<()>, WireError>,
) -> Result<(Sender<Job>, JoinHandle<()>, &'static str), WireError> {
    let (jobs, todo) = unbounded();
    let (ready, opened) = bounded(1);
    let (cpu, wanted) = (setup.cpus.generator, setup.generator);
    // A device of somebody's own may not take redirected frames, and drops them without a word.
    let live = wanted == GeneratorName::Live || wanted == GeneratorName::Auto && setup.devices.is_none();
    let thread = spawn(Box::new(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        match pin_thread_of(tid, &[cpu]).and_then(|()| engine(index, live, wanted == GeneratorName::Auto)) {
            Ok(mut engine) => {
                let _ = ready.send(Ok(engine.name()));
                generate(&mut *engine, &todo, &stop);
            }
            Err(e) => drop(ready.send(Err(e))),
        }
    }))?;
    let name = opened.recv().map_err(|_| WireError::GeneratorGone)?.map_err(WireError::system("open the generator"))?;
    Ok((jobs, thread, name))
}

fn engine(index: u32, live: bool, or_packet: bool) -> io::Result<Box<dyn Engine>> {
    match live.then(|| Live::open(index)) {
        Some(Ok(live)) => Ok(Box::new(live)),
        Some(Err(e)) if !or_packet => Err(e),
        _ => Ok(Box::new(Generator::new(Box::new(PacketTx::open(index)?)))),
    }
}

fn generate(engine: &mut dyn Engine, todo: &Receiver<Job>, stop: &AtomicBool) {
    for job in todo {
        match job {
            Job::Load(frames, probe, reply) => drop(reply.send(engine.load(&frames, Some(probe)))),
            Job::Run(offer, reply) => drop(reply.send(engine.run(&offer, stop))),
        }
    }
}
