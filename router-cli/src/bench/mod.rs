//! `duet bench`: how fast this machine looks up and forwards. In memory, by the very code that routes, without privilege,
//! port or running router; and on wires of a private lab, beside the kernel.

mod compare;
mod forward;
mod lookup;
pub(crate) mod report;
mod show;
#[cfg(test)]
mod tests;
mod wire;

use crate::grammar::{Failure, exit};
use benches::measure::Plan;
use benches::pattern::Pattern;
use benches::table::{self, Table, TableError};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ipnet::IpNet;
use router_io::machine;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs of which the median counts.
const RUNS: usize = 5;
/// Routes of synthetic tables, IPv4 and IPv6: about as many as the Internet has.
const ROUTES: [usize; 2] = [900_000, 170_000];

/// Arguments of `duet bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// "wire" in two minutes: the main table
    #[arg(long)]
    quick: bool,
    /// With --quick: write the figures to FILE as comma-separated values
    #[arg(long, value_name = "FILE", requires = "quick")]
    csv: Option<PathBuf>,
    /// With --quick: write a report with charts to FILE
    #[arg(long, value_name = "FILE", requires = "quick")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(short, long, global = true)]
    json: bool,
    /// Indent JSON
    #[arg(short, long, global = true)]
    pretty: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Longest-prefix match alone: million lookups per second on one core
    Lookup(LookupArgs),
    /// The whole way of a packet, from a received frame to one ready to send: million packets per second on one core
    Forward(ForwardArgs),
    /// Packets on wires, in a private lab, beside the kernel's own forwarding: throughput, loss, latency (RFC 2544, RFC 8219)
    Wire(Box<wire::WireArgs>),
    /// What changed beyond noise between two results of "duet bench wire -j"
    Compare(compare::CompareArgs),
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// Routes to load: lines of PREFIX [NEXT-HOP-NUMBER 1..255], gzipped if the name ends in .gz; without it a synthetic
    /// table
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Routes of the synthetic table [default: 900000 for IPv4, 170000 for IPv6]
    #[arg(long, value_name = "N", conflicts_with = "table", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    routes: Option<u32>,
    /// Number of destinations
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    destinations: u32,
    /// Order of destinations
    #[arg(long, value_enum, value_name = "NAME", default_value = "prefix")]
    pattern: PatternArg,
    /// Time to measure, in seconds, five runs together
    #[arg(long, value_name = "N", default_value = "2.5", value_parser = seconds)]
    seconds: f64,
    /// Keep to this processor, counted from 0
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

#[derive(Args, Clone, Debug)]
struct LookupArgs {
    #[command(flatten)]
    common: Common,
    /// Family to look up [default: that of the table's first route]
    #[arg(long, value_enum, value_name = "NAME")]
    family: Option<FamilyArg>,
}

#[derive(Args, Clone, Debug)]
struct ForwardArgs {
    /// Way of forwarding
    #[arg(long, value_enum, value_name = "NAME")]
    path: PathArg,
    #[command(flatten)]
    common: Common,
    /// Packets per batch
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
}

/// The patterns.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum PatternArg {
    /// Uniformly over the space that the table covers
    Uniform,
    /// A random route, then a random host in it
    Prefix,
    /// Zipf(1.0): few destinations get most packets
    Zipf,
    /// By address
    Sequential,
}

/// The families.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum FamilyArg {
    /// IPv4
    #[value(alias = "4", alias = "ipv4")]
    Inet,
    /// IPv6
    #[value(alias = "6", alias = "ipv6")]
    Inet6,
}

/// The ways of forwarding.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum PathArg {
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
}

/// Runs `duet bench`.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    let progress = Progress::new();
    let report = match &args.what {
        Some(What::Lookup(a)) if !args.quick => lookup::run(a, &progress),
        Some(What::Forward(a)) if !args.quick => forward::run(a, &progress),
        Some(What::Compare(a)) if !args.quick => {
            return compare::run(a, args.json, args.pretty).map(|()| ExitCode::SUCCESS);
        }
        // It starts this program again, so no thread of a progress display may exist.
        Some(What::Wire(a)) => {
            drop(progress);
            return wire(a.as_ref().clone(), args);
        }
        None if args.quick => {
            drop(progress);
            let quick = wire::WireArgs { csv: args.csv.clone(), html: args.html.clone(), ..wire::WireArgs::quick() };
            return wire(quick, args);
        }
        None => {
            let hint = "say lookup, forward, wire or compare, or --quick; \"duet bench --help\" explains them";
            return Err(Failure::with_hint(exit::USAGE, "duet bench: nothing to measure", hint));
        }
        Some(_) => return Err(Failure::new(exit::USAGE, "--quick belongs to \"duet bench\" and \"duet bench wire\"")),
    };
    progress.0.finish_and_clear();
    let mut out = std::io::stdout().lock();
    show::print(&mut out, &report?, args.json, args.pretty)?;
    Ok(ExitCode::SUCCESS)
}

fn wire(wire_args: wire::WireArgs, args: &BenchArgs) -> Result<ExitCode, Failure> {
    // Said before a long measurement, not after it.
    let open = |file: &Option<PathBuf>| match file {
        None => Ok(None),
        Some(f) => File::options().create(true).append(true).open(f).map(Some).map_err(|e| unwritable(f, &e)),
    };
    let mut files = [open(&wire_args.csv)?, open(&wire_args.html)?];
    let names = [wire_args.csv.clone(), wire_args.html.clone()];
    let report = match wire::run(wire_args)? {
        wire::Outcome::Elsewhere(code) => return Ok(ExitCode::from(code)),
        wire::Outcome::Done(report) => report,
    };
    let texts = [report::csv::text as fn(&report::Report) -> String, report::html::page];
    for ((file, name), text) in files.iter_mut().zip(&names).zip(texts) {
        if let (Some(file), Some(name)) = (file, name) {
            let written = file.set_len(0).and_then(|()| file.write_all(text(&report).as_bytes()));
            written.map_err(|e| unwritable(name, &e))?;
        }
    }
    let mut out = std::io::stdout().lock();
    match (args.json, args.pretty) {
        (_, true) => writeln!(out, "{}", serde_json::to_string_pretty(&report).unwrap_or_default())?,
        (true, _) => writeln!(out, "{}", serde_json::to_string(&report).unwrap_or_default())?,
        _ => report::text::print(&mut out, &report)?,
    }
    match &report.mismatch {
        None => Ok(ExitCode::SUCCESS),
        Some(text) => {
            let hint = "the figures are not to be believed; was something else sending on these devices?";
            Err(Failure::with_hint(exit::REFUSED, format!("Error: {text}"), hint))
        }
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::USAGE, format!("{}: {error}", file.display()))
}

/// What is under way, on a terminal only.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(80));
        Progress(bar)
    }

    fn say(&self, what: impl Into<String>) {
        self.0.reset_elapsed();
        self.0.set_message(what.into());
    }

    /// The spinner would compete for the processor while something is measured.
    fn measuring(&self, what: &str, plan: Plan) {
        self.say(format!("{what}: {RUNS} runs of {:.2} s", plan.time.as_secs_f64()));
        self.0.tick();
        self.0.disable_steady_tick();
    }
}

impl Common {
    fn plan(&self) -> Plan {
        Plan { runs: RUNS, time: Duration::from_secs_f64(self.seconds / RUNS as f64) }
    }

    fn pin(&self) -> Result<(), Failure> {
        match self.cpu {
            Some(cpu) if !machine::pin(cpu) => {
                let hint = "--cpu counts from 0; \"nproc\" says how many there are for this process";
                Err(Failure::with_hint(exit::USAGE, format!("Cannot run on processor {cpu}"), hint))
            }
            _ => Ok(()),
        }
    }

    /// The table, routes of one family: that of the first route where none is wanted.
    fn table(&self, wanted: Option<FamilyArg>, progress: &Progress) -> Result<(Table, FamilyArg), Failure> {
        let Some(file) = &self.table else {
            let family = wanted.unwrap_or(FamilyArg::Inet);
            progress.say("making a synthetic table");
            let n = |i: usize| self.routes.map_or(ROUTES[i], |n| n as usize);
            let table = match family {
                FamilyArg::Inet => table::synthetic_v4(n(0), 4),
                FamilyArg::Inet6 => table::synthetic_v6(n(1), 6),
            };
            return Ok((table, family));
        };
        progress.say(format!("reading {}", file.display()));
        let mut table = table::read(file, |_| true).map_err(unreadable)?;
        let family = wanted.or(table.first().map(|(net, _)| FamilyArg::of(net))).unwrap_or(FamilyArg::Inet);
        table.retain(|(net, _)| FamilyArg::of(net) == family);
        if table.is_empty() {
            return Err(unreadable(TableError::Empty { file: file.display().to_string(), family: family.name() }));
        }
        Ok((table, family))
    }

    /// Where the table is from, for people and programs.
    fn origin(&self) -> String {
        self.table.as_ref().map_or_else(|| "synthetic".into(), |f| f.display().to_string())
    }
}

impl FamilyArg {
    fn of(net: &IpNet) -> Self {
        if matches!(net, IpNet::V4(_)) { FamilyArg::Inet } else { FamilyArg::Inet6 }
    }

    fn name(self) -> &'static str {
        if self == FamilyArg::Inet { "IPv4" } else { "IPv6" }
    }

    /// As iproute2 writes it.
    fn word(self) -> &'static str {
        if self == FamilyArg::Inet { "inet" } else { "inet6" }
    }
}

impl From<PatternArg> for Pattern {
    fn from(p: PatternArg) -> Self {
        match p {
            PatternArg::Uniform => Pattern::Uniform,
            PatternArg::Prefix => Pattern::Prefix,
            PatternArg::Zipf => Pattern::Zipf,
            PatternArg::Sequential => Pattern::Sequential,
        }
    }
}

impl From<PathArg> for benches::forwarding::Path {
    fn from(p: PathArg) -> Self {
        use benches::forwarding::Path;
        match p {
            PathArg::Native4 => Path::Native4,
            PathArg::Native6 => Path::Native6,
            PathArg::ViaInet6 => Path::ViaInet6,
            PathArg::Encap => Path::Encap,
            PathArg::Decap => Path::Decap,
        }
    }
}

fn unreadable(error: TableError) -> Failure {
    let line = error.to_string();
    match error {
        TableError::Io { .. } => Failure::new(exit::USAGE, line),
        TableError::Line { .. } => {
            let hint = "each line is PREFIX [NEXT-HOP-NUMBER], for example \"192.0.2.0/24 7\"; # begins a comment line";
            Failure::with_hint(exit::USAGE, line, hint)
        }
        TableError::Empty { .. } => {
            Failure::with_hint(exit::USAGE, line, "choose another table, or another --family or --path")
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let n: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=3600.0).contains(&n) { Ok(n) } else { Err("from 0.001 to 3600".to_owned()) }
}
