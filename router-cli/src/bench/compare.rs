//! `duet bench compare A.json B.json`: what changed beyond noise between two runs.
//!
//! The rule: a figure has changed if its two ranges, least to greatest over the repetitions, do not meet, and the medians
//! differ by more than two percent. If nothing has changed, five repetitions on each side come out that way once in 126
//! runs; with fewer than three on a side nothing is said.

use super::report::{Cell, Report, SCHEMA, Series};
use crate::grammar::{Failure, exit};
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Medians closer than this are equal for every purpose.
const LEAST: f64 = 0.02;
/// Fewer repetitions say nothing about noise.
const ENOUGH: usize = 3;

/// Arguments of `duet bench compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// JSON of an earlier "duet bench wire -j"
    before: PathBuf,
    /// JSON of a later one
    after: PathBuf,
}

/// What is said of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Better,
    Worse,
    /// Within noise.
    Same,
    /// Too few repetitions.
    Unknown,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    pub path: String,
    pub size: String,
    pub dut: String,
    pub figure: String,
    pub before: f64,
    pub after: f64,
    /// Of the medians, in percent.
    pub change_percent: f64,
    pub verdict: Verdict,
}

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub changes: Vec<Change>,
    /// What makes the two runs hard to compare.
    pub differences: Vec<String>,
}

/// Runs `duet bench compare`.
pub(crate) fn run(args: &CompareArgs, json: bool, pretty: bool) -> Result<(), Failure> {
    let (a, b) = (read(&args.before)?, read(&args.after)?);
    let comparison = compare(&a, &b);
    if comparison.changes.is_empty() {
        let line = format!("{} and {} have no figure in common", args.before.display(), args.after.display());
        return Err(Failure::with_hint(exit::USAGE, line, "they measured other paths, sizes or devices under test"));
    }
    let mut out = io::stdout().lock();
    match (json, pretty) {
        (_, true) => writeln!(out, "{}", serde_json::to_string_pretty(&comparison).unwrap_or_default())?,
        (true, _) => writeln!(out, "{}", serde_json::to_string(&comparison).unwrap_or_default())?,
        _ => text(&mut out, &comparison)?,
    }
    Ok(())
}

fn read(file: &Path) -> Result<Report, Failure> {
    let wrong = |why: String| {
        let hint = "write one with \"duet bench wire -j > FILE\"";
        Failure::with_hint(exit::USAGE, format!("{}: {why}", file.display()), hint)
    };
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let report: Report =
        serde_json::from_str(&text).map_err(|e| wrong(format!("not a result of duet bench wire: {e}")))?;
    match (report.bench.as_str(), report.schema) {
        ("wire", SCHEMA) => Ok(report),
        ("wire", n) => Err(wrong(format!("made by another version of duet (format {n}, here {SCHEMA})"))),
        (other, _) => Err(wrong(format!("a result of duet bench {other}"))),
    }
}

type Get = fn(&Cell) -> Option<&Series>;

/// Figures, whether more is better, and where they are.
const FIGURES: &[(&str, bool, Get)] = &[
    ("greatest load", true, |c| c.peak.as_ref()),
    ("greatest load, ratio", true, |c| c.ratio.as_ref()?.peak.as_ref()),
    ("without loss", true, |c| c.throughput.as_ref()),
    ("without loss, ratio", true, |c| c.ratio.as_ref()?.throughput.as_ref()),
    ("latency p50", false, |c| c.latency.as_ref().map(|l| &l.p50_us)),
    ("latency p99", false, |c| c.latency.as_ref().map(|l| &l.p99_us)),
    ("latency p99.9", false, |c| c.latency.as_ref().map(|l| &l.p999_us)),
    ("longest burst", true, |c| c.burst.as_ref()),
    ("restart", false, |c| c.reset.as_ref()),
    ("TCP", true, |c| c.tcp.as_ref()),
    ("TCP, ratio", true, |c| c.ratio.as_ref()?.tcp.as_ref()),
];

/// Compares two runs.
pub(crate) fn compare(a: &Report, b: &Report) -> Comparison {
    let mut changes = Vec::new();
    for before in &a.cells {
        let Some(after) = b.cell(&before.path, &before.size, &before.dut) else { continue };
        for (figure, more, get) in FIGURES {
            let (Some(x), Some(y)) = (get(before), get(after)) else { continue };
            let ratio = before.ratio.as_ref().filter(|_| figure.ends_with("ratio"));
            changes.push(Change {
                path: before.path.clone(),
                size: before.size.clone(),
                dut: before.dut.clone(),
                figure: ratio
                    .map_or_else(|| (*figure).to_owned(), |r| figure.replace("ratio", &format!("times {}", r.to))),
                before: x.median,
                after: y.median,
                change_percent: super::report::round((y.median / x.median - 1.0) * 100.0),
                verdict: verdict(x, y, *more),
            });
        }
    }
    Comparison { changes, differences: differences(a, b) }
}

/// The rule of the module.
pub(crate) fn verdict(before: &Series, after: &Series, more_is_better: bool) -> Verdict {
    if before.values.len() < ENOUGH || after.values.len() < ENOUGH {
        return Verdict::Unknown;
    }
    let apart = before.max < after.min || after.max < before.min;
    let near = (after.median - before.median).abs() <= LEAST * before.median.abs();
    match (apart && !near, (after.median > before.median) == more_is_better) {
        (false, _) => Verdict::Same,
        (true, true) => Verdict::Better,
        (true, false) => Verdict::Worse,
    }
}

fn differences(a: &Report, b: &Report) -> Vec<String> {
    let (m, n) = (&a.machine, &b.machine);
    let (s, t) = (&a.settings, &b.settings);
    let pairs = [
        ("processor", m.cpu.clone(), n.cpu.clone()),
        ("processors", m.cpus.to_string(), n.cpus.to_string()),
        ("kernel", m.kernel.clone(), n.kernel.clone()),
        ("routes", s.table.clone(), t.table.clone()),
        ("flows", s.flows.to_string(), t.flows.to_string()),
        ("workers", s.workers.to_string(), t.workers.to_string()),
        ("seconds per trial", s.seconds.to_string(), t.seconds.to_string()),
        ("percent of loss allowed", s.loss_percent.to_string(), t.loss_percent.to_string()),
        ("percent of load for latency", s.load_percent.to_string(), t.load_percent.to_string()),
        ("generator", s.generator.clone(), t.generator.clone()),
    ];
    let differ = pairs.into_iter().filter(|(_, x, y)| x != y);
    differ.map(|(what, x, y)| format!("{what}: {x} before, {y} after")).collect()
}

fn text(out: &mut impl Write, c: &Comparison) -> io::Result<()> {
    let beyond: Vec<&Change> =
        c.changes.iter().filter(|x| matches!(x.verdict, Verdict::Better | Verdict::Worse)).collect();
    for d in &c.differences {
        writeln!(out, "Not measured alike: {d}")?;
    }
    if !beyond.is_empty() {
        writeln!(
            out,
            "{:<10} {:<5} {:<16} {:<36} {:>10} {:>10} {:>9}",
            "path", "size", "dut", "figure", "before", "after", "change"
        )?;
    }
    for x in &beyond {
        writeln!(
            out,
            "{:<10} {:<5} {:<16} {:<36} {:>10.3} {:>10.3} {:>+8.1}% {}",
            x.path,
            x.size,
            x.dut,
            x.figure,
            x.before,
            x.after,
            x.change_percent,
            if x.verdict == Verdict::Better { "better" } else { "worse" }
        )?;
    }
    let count = |v: Verdict| c.changes.iter().filter(|x| x.verdict == v).count();
    let [better, worse, same, unknown] = [Verdict::Better, Verdict::Worse, Verdict::Same, Verdict::Unknown].map(count);
    write!(out, "{better} better, {worse} worse, {same} within noise")?;
    if unknown > 0 {
        write!(out, ", {unknown} with too few repetitions to say (--repeat {ENOUGH} or more)")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::super::report::sample;
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series::of(values.to_vec()).unwrap()
    }

    #[test]
    fn the_rule() {
        let base = series(&[1.0, 1.02, 0.98, 1.01, 0.99]);
        for (after, more, want) in [
            (&[1.0, 1.02, 0.98][..], true, Verdict::Same),
            // Ranges meet.
            (&[1.02, 1.2, 1.3], true, Verdict::Same),
            (&[1.1, 1.2, 1.3], true, Verdict::Better),
            (&[1.1, 1.2, 1.3], false, Verdict::Worse),
            (&[0.8, 0.9, 0.7], true, Verdict::Worse),
            (&[2.0, 2.0], true, Verdict::Unknown),
        ] {
            assert_eq!(verdict(&base, &series(after), more), want, "{after:?}");
        }
        // Apart, but by less than counts.
        let tight = series(&[1.0, 1.0001, 1.0002]);
        assert_eq!(verdict(&tight, &series(&[1.01, 1.0101, 1.0102]), true), Verdict::Same);
    }

    #[test]
    fn equal_runs_have_no_changes_and_others_do() {
        let a = sample::report();
        let same = compare(&a, &a);
        assert!(!same.changes.is_empty() && same.differences.is_empty());
        assert!(same.changes.iter().all(|c| c.verdict == Verdict::Same && c.change_percent == 0.0));
        let mut b = a.clone();
        b.machine.kernel = "6.2".into();
        for cell in b.cells.iter_mut().filter(|c| c.dut == "xdp") {
            cell.peak = cell.peak.as_ref().map(|s| series(&s.values.iter().map(|v| v * 1.5).collect::<Vec<_>>()));
        }
        let c = compare(&a, &b);
        let better: Vec<_> = c.changes.iter().filter(|x| x.verdict == Verdict::Better).collect();
        assert_eq!(better.len(), 2);
        assert!(better.iter().all(|x| x.figure == "greatest load" && (x.change_percent - 50.0).abs() < 0.1));
        assert_eq!(c.differences, ["kernel: 6.1 before, 6.2 after"]);
        let mut out = Vec::new();
        text(&mut out, &c).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("better") && out.contains("2 better, 0 worse"), "{out}");
    }

    #[test]
    fn the_sample_survives_json() {
        let a = sample::report();
        let text = serde_json::to_string(&a).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), a);
    }
}
