//! The result as a table for people and as JSON for programs.

use crate::grammar::Failure;
use benches::measure::{Plan, Spread};
use router_io::machine::Machine;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// What was measured, and how.
pub(super) struct Report {
    pub bench: &'static str,
    pub title: String,
    pub path: Option<&'static str>,
    pub family: &'static str,
    pub pattern: &'static str,
    pub table: String,
    pub routes: usize,
    /// Of the compiled table.
    pub bytes: usize,
    /// Processor time of loading.
    pub load: Duration,
    pub destinations: usize,
    pub batch: usize,
    /// Nanoseconds per packet or lookup.
    pub item: Spread,
    pub plan: Plan,
}

impl Report {
    /// The name of the rate: lookups or packets.
    fn rate(&self) -> &'static str {
        if self.path.is_some() { "mpps" } else { "mlps" }
    }

    fn load_rate(&self) -> f64 {
        let seconds = self.load.as_secs_f64();
        if seconds > 0.0 { self.routes as f64 / seconds } else { 0.0 }
    }

    pub(super) fn json(&self, machine: &Machine) -> Value {
        let (rates, clocks) = (self.item.rates(), clocks(self.item, machine));
        let spread = |s: Spread| json!({ "min": round(s.min), "median": round(s.median), "max": round(s.max) });
        let mut v = json!({
            "bench": self.bench,
            "family": self.family,
            "pattern": self.pattern,
            "table": self.table,
            "routes": self.routes,
            "bytes": self.bytes,
            "destinations": self.destinations,
            "batch": self.batch,
            "ns_per_packet": round(self.item.median),
            "clocks_per_packet": clocks.map(|c| round(c.median)),
            "load_routes_per_second": self.load_rate().round(),
            "runs": self.plan.runs,
            "seconds_per_run": self.plan.time.as_secs_f64(),
            "spread": { "ns_per_packet": spread(self.item), "clocks_per_packet": clocks.map(spread) },
            "optimized": !cfg!(debug_assertions),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine,
        });
        v[self.rate()] = json!(round(rates.median));
        v["spread"][self.rate()] = spread(rates);
        if let Some(path) = self.path {
            v["path"] = path.into();
        }
        v
    }

    fn text(&self, out: &mut impl Write, machine: &Machine) -> std::io::Result<()> {
        writeln!(out, "{}", self.title)?;
        let of = if self.table == "synthetic" { "a synthetic table (no --table)" } else { self.table.as_str() };
        writeln!(out, "{} routes of {of}, {:.1} MiB compiled", self.routes, self.bytes as f64 / f64::from(1 << 20))?;
        let per_second = self.load_rate() / 1e6;
        writeln!(
            out,
            "loaded in {:.2} s of processor time, {per_second:.2} million per second",
            self.load.as_secs_f64()
        )?;
        let (n, pattern, batch) = (self.destinations, self.pattern, self.batch);
        writeln!(out, "{n} destinations, pattern {pattern}, batches of {batch}\n")?;
        let item = if self.path.is_some() { "packet" } else { "lookup" };
        writeln!(out, "{:<22} {:>10} {:>10} {:>10}", "", "min", "median", "max")?;
        let mut row =
            |what: String, s: Spread| writeln!(out, "{what:<22} {:>10.2} {:>10.2} {:>10.2}", s.min, s.median, s.max);
        row(format!("million {item}s/s"), self.item.rates())?;
        row(format!("ns per {item}"), self.item)?;
        if let Some(c) = clocks(self.item, machine) {
            row(format!("clocks per {item}"), c)?;
        }
        let (runs, each) = (self.plan.runs, self.plan.time.as_secs_f64());
        writeln!(
            out,
            "\n{}, {:.2} GHz, Linux {}; one core, {runs} runs of {each:.2} s",
            machine.cpu, machine.ghz, machine.kernel
        )?;
        if self.item.max > self.item.min * 1.2 {
            writeln!(out, "The runs differ by more than a fifth: something else is at work on this machine.")?;
        }
        if cfg!(debug_assertions) {
            writeln!(
                out,
                "This program was built without optimisation: the figures say nothing about a release build."
            )?;
        }
        Ok(())
    }
}

/// Prints a result.
pub(super) fn print(out: &mut impl Write, report: &Report, json: bool, pretty: bool) -> Result<(), Failure> {
    let machine = Machine::read();
    if !json && !pretty {
        return Ok(report.text(out, &machine)?);
    }
    let value = report.json(&machine);
    match pretty {
        true => writeln!(out, "{value:#}")?,
        false => writeln!(out, "{value}")?,
    }
    Ok(())
}

fn clocks(nanos: Spread, machine: &Machine) -> Option<Spread> {
    machine.clocks(1.0).map(|per_nano| nanos.map(|ns| ns * per_nano))
}

/// Three digits behind the point are more than such a measurement knows.
fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

#[cfg(test)]
pub(super) fn text(report: &Report, machine: &Machine) -> String {
    let mut out = Vec::new();
    report.text(&mut out, machine).expect("memory");
    String::from_utf8_lossy(&out).into_owned()
}
