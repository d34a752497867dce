//! `duet bench wire`: a private lab, a device under test in it, a generator and a sink, and the measurements of RFC 2544
//! and RFC 8219, beside the kernel's own forwarding in the same run. See `docs/benchmarking.md` for the method.

mod dut;
mod error;
mod lab;
mod measure;
mod noise;
mod overload;
mod plan;
mod search;
mod topology;

pub(crate) use plan::WireArgs;

use super::Progress;
use super::report::{self, Cell, Ratio, Report, Roof, Series, Settings};
use crate::grammar::{Failure, exit};
use lab::{Devices, Lab, Setup};
use measure::{Figures, Session};
use plan::{Cpus, DutName, Measure, PathName, SizeName};
use router_io::lab::sandbox;
use router_io::machine::Machine;
use router_io::traffic::affinity;
use std::sync::Arc;
use std::time::Duration;

/// Above this share of a processor others disturb the figures.
const FOREIGN: f64 = 0.05;

/// Above this share of a processor's time in which nothing ran on it, its percentiles are the machine's.
const STALLED: f64 = 0.005;
/// How long a processor is looked at for that.
const LOOK: Duration = Duration::from_millis(250);

/// What became of the run.
pub(super) enum Outcome {
    /// Measured, in the process inside the sandbox.
    Done(Box<Report>),
    /// This was the process outside; the other one has said everything and ended with this code.
    Elsewhere(u8),
}

/// Runs the measurement, in a private lab or on devices of this machine. Call it from the main thread before any other
/// exists.
pub(super) fn run(mut args: WireArgs) -> Result<Outcome, Failure> {
    args.complete();
    if args.tx.is_some() {
        return inside(&args).map(|r| Outcome::Done(Box::new(r)));
    }
    match sandbox::enter() {
        Ok(sandbox::Side::Outside(code)) => Ok(Outcome::Elsewhere(u8::try_from(code).unwrap_or(1))),
        Ok(sandbox::Side::Inside) => inside(&args).map(|r| Outcome::Done(Box::new(r))),
        Err(e) => {
            let hint = "a private lab needs CAP_SYS_ADMIN and CAP_NET_ADMIN, or user namespaces; \"duet bench forward\" \
                        measures in memory, without privileges";
            Err(Failure::with_hint(exit::REFUSED, e.to_string(), hint))
        }
    }
}

fn inside(args: &WireArgs) -> Result<Report, Failure> {
    let progress = Progress::new();
    let available = affinity();
    let cpus = Cpus::choose(&available, args)?;
    let devices = devices(args)?;
    let mut duts = args.duts.clone();
    if duts.is_empty() {
        duts = vec![DutName::Kernel, DutName::KernelThreaded, DutName::Packet, DutName::Xdp];
        duts.extend(args.measures.contains(&Measure::Tcp).then_some(DutName::Tun));
    }
    duts.extend(args.dut_exec.iter().map(|_| DutName::Exec));
    let machine = Machine::read();
    // This thread, too, belongs to the generator's side.
    router_io::machine::pin(cpus.generator);
    let mut report = Report {
        bench: "wire".to_owned(),
        schema: report::SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("DUET_COMMIT").unwrap_or("commit unknown").to_owned(),
        date: now(),
        command: std::env::args().collect(),
        machine,
        optimized: !cfg!(debug_assertions),
        settings: settings(args, &cpus),
        ..Report::default()
    };
    let mut session = Session {
        args,
        progress: &progress,
        mismatches: Vec::new(),
        noise: Vec::new(),
        cpus: available.len(),
        threads: Vec::new(),
        stalls: Vec::new(),
    };
    session.progress.say("looking how steady the machine is");
    session.look_for_stalls(&cpus, LOOK);
    for path in &args.paths {
        one_path(&mut session, &mut report, *path, &duts, &cpus, devices.as_ref())?;
    }
    progress.0.finish_and_clear();
    session.look_for_stalls(&cpus, LOOK);
    conclude(&mut report, &session, &cpus);
    if let Some(first) = session.mismatches.first() {
        report.mismatch = Some(format!("counters disagree in {} trials: {first}", session.mismatches.len()));
    }
    Ok(report)
}

/// The devices of --tx and --rx.
fn devices(args: &WireArgs) -> Result<Option<Devices>, Failure> {
    let (Some(tx), Some(rx), Some(gateway)) = (&args.tx, &args.rx, &args.gateway) else { return Ok(None) };
    let wrong = |_| Failure::new(exit::USAGE, format!("--gateway: \"{gateway}\" is not a link-layer address"));
    if let Some(path) = args.paths.iter().find(|p| p.is_error() || p.is_tunnel()) {
        let hint = "the device under test is yours, and one of native4, native6, via-inet6";
        return Err(Failure::with_hint(exit::USAGE, format!("--tx cannot measure {}", path.name()), hint));
    }
    Ok(Some(Devices { tx: tx.clone(), rx: rx.clone(), gateway: gateway.parse().map_err(wrong)? }))
}

fn one_path(
    session: &mut Session<'_>,
    report: &mut Report,
    path: PathName,
    duts: &[DutName],
    cpus: &Cpus,
    devices: Option<&Devices>,
) -> Result<(), Failure> {
    let args = session.args;
    let table = Arc::new(plan::routes(args, path, session.progress)?);
    let setup = |path, dut| Setup {
        path,
        dut,
        table: Arc::clone(&table),
        flows: args.flows,
        workers: args.workers,
        cpus: cpus.clone(),
        exec: args.dut_exec.clone(),
        generator: args.generator,
        devices: devices.cloned(),
    };
    let sizes = if path == PathName::IcmpTooBig { &[SizeName::Bytes(1518)][..] } else { &args.sizes };
    if devices.is_none() {
        session.progress.say("building the lab");
        let mut alone = Lab::new(setup(path, None))?;
        for size in sizes {
            let mpps = report::round(session.roof(&mut alone, *size)? / 1e6);
            report.roof.push(Roof { path: path.name().to_owned(), size: size.to_string(), mpps });
        }
    }
    let (mut labs, mut names) = (Vec::new(), Vec::new());
    for dut in duts {
        session.progress.say(format!("{}: starting {}", path.name(), dut.name()));
        if dut.is_kernel() && path == PathName::IcmpNoRoute {
            let why = "it sends one such error per second and destination (net.ipv4.route.error_cost)";
            report.warnings.push(format!("{} left out of {}: {why}", dut.name(), path.name()));
            continue;
        }
        if *dut == DutName::Tun && (path.tcp().is_none() || path.is_tunnel()) {
            report.warnings.push(format!("tun left out of {}: it is for TCP on paths without a tunnel", path.name()));
            continue;
        }
        // The kernel may lack the tunnel driver; plain IPv6 is what a tunnel is to be compared with anyway.
        let real = if dut.is_kernel() && path.is_tunnel() { PathName::Native6 } else { path };
        let mut lab = match Lab::new(setup(real, Some(*dut))) {
            Ok(lab) => lab,
            // What nobody asked for by name may be missing on this machine.
            Err(e) if args.duts.is_empty() && *dut != DutName::Exec => {
                report.warnings.push(format!("{} left out: {e}", dut.name()));
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        session.threads.extend(lab.dut.iter().flat_map(|d| &d.threads));
        report.settings.sink = lab.sink_name().to_owned();
        report.settings.generator = lab.generator_name().to_owned();
        lab.active(false);
        labs.push(lab);
        names.push(*dut);
    }
    for size in sizes {
        let all = session.measure(&mut labs, path, *size)?;
        let reference = reference(&names, &all);
        let inline = names.iter().position(|d| *d == DutName::Kernel).and_then(|i| all.get(i));
        for ((dut, lab), figures) in names.iter().zip(&labs).zip(&all) {
            let mut cell =
                cell(figures, reference.filter(|(name, _)| name != dut), inline.filter(|_| !dut.is_kernel()));
            let real = lab.setup.path;
            cell.instead = (real != path).then(|| real.name().to_owned());
            cell.path = path.name().to_owned();
            cell.size = size.to_string();
            cell.dut = dut.name().to_owned();
            cell.routes = table.len();
            report.cells.push(cell);
        }
    }
    Ok(())
}

/// What the others are compared with: the kernel on the same split of processors, or else the kernel.
fn reference<'a>(duts: &[DutName], all: &'a [Figures]) -> Option<(DutName, &'a Figures)> {
    let find = |wanted: DutName| duts.iter().position(|d| *d == wanted);
    let at = find(DutName::KernelThreaded).or_else(|| find(DutName::Kernel))?;
    Some((duts[at], all.get(at)?))
}

fn cell(f: &Figures, reference: Option<(DutName, &Figures)>, inline: Option<&Figures>) -> Cell {
    let over = |mine: &[f64], theirs: &[f64]| {
        Series::of(mine.to_vec()).zip(Series::of(theirs.to_vec())).and_then(|(a, b)| a.over(&b))
    };
    let ratio = reference.map(|(name, other)| Ratio {
        to: name.name().to_owned(),
        peak: over(&f.peak, &other.peak),
        throughput: over(&f.throughput, &other.throughput),
        tcp: inline.and_then(|kernel| over(&f.tcp, &kernel.tcp)),
    });
    Cell {
        peak: Series::of(f.peak.clone()),
        throughput: Series::of(f.throughput.clone()),
        ratio,
        latency: f.latency(),
        loss: f.loss.clone(),
        burst: Series::of(f.burst.clone()),
        reset: Series::of(f.reset.clone()),
        tcp: Series::of(f.tcp.clone()),
        overload: f.overload.clone(),
        generator_limited: f.limited,
        ..Cell::default()
    }
}

fn settings(args: &WireArgs, cpus: &Cpus) -> Settings {
    let table = match (&args.table, args.routes) {
        (Some(file), _) => format!("routes of {}", file.display()),
        (None, 1) => "one route".to_owned(),
        (None, n) => format!("{n} synthetic routes"),
    };
    Settings {
        flows: args.flows,
        table,
        workers: args.workers,
        seconds: args.trial_time().as_secs_f64(),
        repeat: args.repetitions(),
        loss_percent: args.loss,
        load_percent: args.load,
        probes_per_second: args.probes,
        generator_cpu: cpus.generator,
        dut_cpus: cpus.dut.clone(),
        generator: String::new(),
        sink: String::new(),
    }
}

/// Noise, and what follows from it and from the machine.
fn conclude(report: &mut Report, session: &Session<'_>, cpus: &Cpus) {
    let n = session.noise.len().max(1) as f64;
    let sum = |f: fn(&noise::Noise) -> f64| session.noise.iter().map(f).sum::<f64>() / n;
    let percent = |x: f64| (x * 1000.0).round() / 10.0;
    let worst = session.noise.iter().map(|x| x.foreign).fold(0.0, f64::max);
    report.noise = report::Noise {
        foreign_percent: percent(sum(|x| x.foreign)),
        steal_percent: percent(sum(|x| x.steal)),
        worst_foreign_percent: percent(worst),
        stalled_percent: percent(session.stalls.iter().sum::<f64>() / session.stalls.len().max(1) as f64),
    };
    let noise = report.noise;
    let mut say = |text: String| report.warnings.push(text);
    if worst > FOREIGN {
        say(format!(
            "other programs used {} % of a processor during the measurement, {} % in the worst repetition",
            noise.foreign_percent, noise.worst_foreign_percent
        ));
    }
    if noise.steal_percent > FOREIGN * 100.0 {
        say(format!("the hypervisor took {} % of a processor's time away", noise.steal_percent));
    }
    if noise.stalled_percent > STALLED * 100.0 {
        say(format!(
            "the machine stops a processor that has work for {} % of the time, in pieces of 50 us and more: rates without loss, \
             and percentiles beyond that share, say more about the machine than about the devices under test",
            noise.stalled_percent
        ));
    }
    if cpus.dut.contains(&cpus.generator) {
        say("generator and device under test share a processor: rates say little".to_owned());
    }
    if cfg!(debug_assertions) {
        say("built without optimisation: the figures say nothing about a release build".to_owned());
    }
}

/// The present time as RFC 3339 has it, UTC, to the second.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, s) = (since / 86_400, since % 86_400);
    let (year, month, day) = civil(days as i64);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that a leap day is the last of its year; 400 years have 146,097 days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_779, (2026, 11, 22))] {
            assert_eq!(civil(days), date);
        }
        assert!(now().ends_with('Z') && now().len() == 20);
    }
}
