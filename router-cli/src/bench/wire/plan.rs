//! What is to be measured: paths, frame sizes, devices under test, measures, from the command line.

use super::super::{FamilyArg, Progress};
use crate::grammar::{Failure, exit};
use benches::table::{self, Table};
use clap::{Args, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `duet bench wire`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WireArgs {
    /// Ways of forwarding [default: native4]
    #[arg(long = "path", value_enum, value_name = "NAME", value_delimiter = ',')]
    pub paths: Vec<PathName>,
    /// Frame sizes in bytes with check sequence, 64 to 1518, or "imix"; RFC 2544 9.1 has 64,128,256,512,1024,1280,1518
    /// [default: 64]
    #[arg(long = "size", value_name = "BYTES", value_delimiter = ',')]
    pub sizes: Vec<SizeName>,
    /// Devices under test [default: kernel,kernel-threaded,packet,xdp, and tun for TCP]
    #[arg(long = "dut", value_enum, value_name = "NAME", value_delimiter = ',')]
    pub duts: Vec<DutName>,
    /// A command to measure, too, run by sh in the namespace between the devices "left" and "right"; see
    /// docs/benchmarking.md for its environment
    #[arg(long, value_name = "CMD")]
    pub dut_exec: Option<String>,
    /// What to measure [default: throughput,latency]
    #[arg(long = "measure", value_enum, value_name = "NAME", value_delimiter = ',')]
    pub measures: Vec<Measure>,
    /// Routes to load: lines of PREFIX [NEXT-HOP-NUMBER 1..255], gzipped if the name ends in .gz
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Routes of a synthetic table, if there is no file
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "table", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub routes: u32,
    /// Flows: as many destinations within the routes, and source ports
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub flows: u32,
    /// Forwarding threads of Duet
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Time of one trial in seconds; RFC 2544 24 wants 60 [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub time: Option<Duration>,
    /// Repetitions, interleaved between the devices under test [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeat: Option<u16>,
    /// Frames that may be lost in a trial of the throughput search, in percent; RFC 2544 26.1 wants 0
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub loss: f64,
    /// Load of the latency measurement, in percent of the throughput
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = percent)]
    pub load: f64,
    /// Probes per second beside the load
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub probes: u32,
    /// Seconds of the overload measurement
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub overload: Duration,
    /// How frames are made
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    pub generator: GeneratorName,
    /// Processor of generator and sink
    #[arg(long, value_name = "N")]
    pub generator_cpu: Option<usize>,
    /// Processors of the device under test
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub dut_cpu: Vec<usize>,
    /// Send on this device of the machine instead of in a private lab
    #[arg(long, value_name = "DEV", requires = "rx", requires = "gateway")]
    pub tx: Option<String>,
    /// Receive on this device of the machine
    #[arg(long, value_name = "DEV", requires = "tx")]
    pub rx: Option<String>,
    /// With --tx: link-layer address of the device under test on the side of --tx
    #[arg(long, value_name = "MAC", requires = "tx")]
    pub gateway: Option<String>,
    /// The main table in two minutes
    #[arg(long)]
    pub quick: bool,
    /// Write the figures to FILE as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a report with charts to FILE, one self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl WireArgs {
    /// All defaults.
    pub fn quick() -> WireArgs {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            wire: WireArgs,
        }
        <Alone as clap::Parser>::parse_from(["duet", "--quick"]).wire
    }

    /// Fills in what was not said.
    pub fn complete(&mut self) {
        fn or<T: Clone>(list: &mut Vec<T>, default: &[T]) {
            if list.is_empty() {
                list.extend_from_slice(default);
            }
        }
        use PathName::{Encap, Native4, Native6, ViaInet6};
        let (paths, time): (&[PathName], f64) =
            if self.quick { (&[Native4, Native6, ViaInet6, Encap], 0.15) } else { (&[Native4], 1.0) };
        if self.tx.is_some() {
            self.duts = vec![DutName::Devices];
        }
        or(&mut self.paths, paths);
        or(&mut self.sizes, &[SizeName::Bytes(64)]);
        or(&mut self.measures, &[Measure::Throughput, Measure::Latency]);
        self.time.get_or_insert(Duration::from_secs_f64(time));
        self.repeat.get_or_insert(if self.quick { 3 } else { 5 });
    }

    /// Time of one trial.
    pub fn trial_time(&self) -> Duration {
        self.time.unwrap_or(Duration::from_secs(1))
    }

    /// Repetitions.
    pub fn repetitions(&self) -> u16 {
        self.repeat.unwrap_or(5)
    }
}

/// The ways of forwarding.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathName {
    /// IPv4 via IPv4 gateways
    #[value(name = "native4")]
    Native4,
    /// IPv6 via IPv6 gateways
    #[value(name = "native6")]
    Native6,
    /// IPv4 via IPv6 gateways
    #[value(name = "via-inet6")]
    ViaInet6,
    /// IPv6 into a 6in4 tunnel
    #[value(name = "6in4-encap")]
    Encap,
    /// IPv6 out of a 6in4 tunnel
    #[value(name = "6in4-decap")]
    Decap,
    /// IPv6 into a 6in4 tunnel and out of it again: two devices under test in a row
    #[value(name = "6in4-dual")]
    Dual,
    /// IPv4 packets whose TTL runs out: Time Exceeded goes back
    #[value(name = "icmp-ttl")]
    IcmpTtl,
    /// IPv4 packets without a route: Destination Unreachable goes back
    #[value(name = "icmp-noroute")]
    IcmpNoRoute,
    /// IPv4 packets with DF that are longer than the next link's MTU: Fragmentation Needed goes back
    #[value(name = "icmp-toobig")]
    IcmpTooBig,
}

impl PathName {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PathName::Native4 => "native4",
            PathName::Native6 => "native6",
            PathName::ViaInet6 => "via-inet6",
            PathName::Encap => "6in4-encap",
            PathName::Decap => "6in4-decap",
            PathName::Dual => "6in4-dual",
            PathName::IcmpTtl => "icmp-ttl",
            PathName::IcmpNoRoute => "icmp-noroute",
            PathName::IcmpTooBig => "icmp-toobig",
        }
    }

    /// Whether the test packets are IPv6.
    pub fn is_v6(self) -> bool {
        matches!(self, PathName::Native6 | PathName::Encap | PathName::Decap | PathName::Dual)
    }

    /// Whether a tunnel is on the way.
    pub fn is_tunnel(self) -> bool {
        matches!(self, PathName::Encap | PathName::Decap | PathName::Dual)
    }

    /// Whether an ICMP error comes back instead of the packet going on.
    pub fn is_error(self) -> bool {
        matches!(self, PathName::IcmpTtl | PathName::IcmpNoRoute | PathName::IcmpTooBig)
    }
}

/// The devices under test.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DutName {
    /// The kernel's own forwarding, done on the sender's processor as each frame arrives
    #[value(name = "kernel")]
    Kernel,
    /// The kernel's own forwarding in its NAPI thread, on the processor of the device under test
    #[value(name = "kernel-threaded")]
    KernelThreaded,
    /// Duet with ports of kind "packet"
    #[value(name = "packet")]
    Packet,
    /// The same with flows offloaded to the kernel ([offload] flows = true)
    #[value(name = "packet-offload")]
    PacketOffload,
    /// Duet with ports of kind "xdp"
    #[value(name = "xdp")]
    Xdp,
    /// Duet with a TUN device at either end, offloads on: only for --measure tcp
    #[value(name = "tun")]
    Tun,
    /// The command of --dut-exec
    #[value(skip)]
    Exec,
    /// Whatever is between --tx and --rx
    #[value(skip)]
    Devices,
}

impl DutName {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            DutName::Kernel => "kernel",
            DutName::KernelThreaded => "kernel-threaded",
            DutName::Packet => "packet",
            DutName::PacketOffload => "packet-offload",
            DutName::Xdp => "xdp",
            DutName::Tun => "tun",
            DutName::Exec => "exec",
            DutName::Devices => "devices",
        }
    }

    pub fn is_kernel(self) -> bool {
        matches!(self, DutName::Kernel | DutName::KernelThreaded)
    }

    /// The kind of Duet's ports, if it is Duet.
    pub fn port_kind(self) -> Option<&'static str> {
        match self {
            DutName::Packet | DutName::PacketOffload => Some("packet"),
            DutName::Xdp => Some("xdp"),
            DutName::Tun => Some("tun"),
            _ => None,
        }
    }
}

/// What to measure.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Forwarding rate at the greatest load offered, and the greatest rate without loss (RFC 2544 26.1)
    Throughput,
    /// Loss at rising loads (RFC 2544 26.3)
    Loss,
    /// Latency and delay variation at a constant load (RFC 8219 7.2, 7.3)
    Latency,
    /// The longest burst without loss (RFC 2544 26.4)
    Burst,
    /// Time without forwarding after a restart (RFC 2544 26.6)
    Reset,
    /// One TCP stream through the router
    Tcp,
    /// Ten times what can be forwarded, for the time of --overload
    Overload,
}

/// The generators.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GeneratorName {
    /// "live" in a private lab where the kernel can, else "packet"
    Auto,
    /// XDP on live frames: many times as fast as a router, needs Linux 5.18
    Live,
    /// An AF_PACKET socket
    Packet,
}

/// A frame size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeName {
    /// Bytes, check sequence included.
    Bytes(u16),
    /// The simple Internet mix: of twelve frames seven of 64, four of 594, one of 1518 bytes.
    Imix,
}

impl SizeName {
    /// Sizes of successive frames.
    pub fn sizes(self) -> Vec<usize> {
        match self {
            SizeName::Bytes(n) => vec![usize::from(n)],
            SizeName::Imix => vec![64, 594, 64, 64, 594, 64, 594, 64, 1518, 64, 594, 64],
        }
    }
}

impl fmt::Display for SizeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeName::Bytes(n) => write!(f, "{n}"),
            SizeName::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for SizeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(SizeName::Imix);
        }
        match text.parse() {
            Ok(n) if (64..=1518).contains(&n) => Ok(SizeName::Bytes(n)),
            _ => Err("a frame has 64 to 1518 bytes; or \"imix\"".to_owned()),
        }
    }
}

/// Processors: those of generator and sink, those of the device under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpus {
    pub generator: usize,
    pub dut: Vec<usize>,
}

impl Cpus {
    /// From what this process may use: the first for the generator, the last for the device under test, and those before
    /// it if there are more workers.
    pub fn choose(available: &[usize], args: &WireArgs) -> Result<Cpus, Failure> {
        let wrong = |cpu: usize| {
            let hint = format!("this process may use {available:?}");
            Failure::with_hint(exit::USAGE, format!("Cannot run on processor {cpu}"), hint)
        };
        let asked = args.generator_cpu.iter().chain(&args.dut_cpu);
        if let Some(cpu) = asked.copied().find(|cpu| !available.contains(cpu)) {
            return Err(wrong(cpu));
        }
        let generator = args.generator_cpu.or(available.first().copied()).unwrap_or(0);
        let mut dut = args.dut_cpu.clone();
        if dut.is_empty() {
            let others = available.iter().rev().copied().filter(|cpu| *cpu != generator);
            dut = others.take(usize::from(args.workers)).collect();
        }
        if dut.is_empty() {
            dut.push(generator);
        }
        Ok(Cpus { generator, dut })
    }
}

/// The routes of a path, and how many of which kind they are.
pub(crate) fn routes(args: &WireArgs, path: PathName, progress: &Progress) -> Result<Table, Failure> {
    let family = if path.is_v6() { FamilyArg::Inet6 } else { FamilyArg::Inet };
    if let Some(file) = &args.table {
        progress.say(format!("reading {}", file.display()));
        let mut table = table::read(file, |_| true).map_err(super::super::unreadable)?;
        table.retain(|(net, _)| FamilyArg::of(net) == family && net.prefix_len() > 0);
        if table.is_empty() {
            let error = table::TableError::Empty { file: file.display().to_string(), family: family.name() };
            return Err(super::super::unreadable(error));
        }
        return Ok(table);
    }
    let n = args.routes as usize;
    Ok(match (n, path.is_v6()) {
        (1, false) => vec![(super::topology::ONE_ROUTE.0, 1)],
        (1, true) => vec![(super::topology::ONE_ROUTE.1, 1)],
        (_, false) => table::synthetic_v4(n, 4),
        (_, true) => table::synthetic_v6(n, 6),
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let n: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=3600.0).contains(&n) { Ok(Duration::from_secs_f64(n)) } else { Err("from 0.01 to 3600".to_owned()) }
}

fn percent(text: &str) -> Result<f64, String> {
    let n: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&n) { Ok(n) } else { Err("from 0 to 100".to_owned()) }
}
