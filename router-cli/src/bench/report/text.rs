//! The result as tables for people.

use super::{Cell, Report, Series};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::io::{self, Write};

/// Writes everything.
pub(crate) fn print(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let s = &r.settings;
    let has = |f: fn(&Cell) -> bool| r.cells.iter().any(f);
    if has(|c| c.peak.is_some()) {
        writeln!(out, "Throughput, million frames per second: at the greatest load, and without loss\n")?;
        rates(out, r)?;
    }
    if has(|c| c.latency.is_some()) {
        writeln!(out, "\nLatency, microseconds, at a constant load\n")?;
        latency(out, r)?;
    }
    if has(|c| !c.loss.is_empty()) {
        writeln!(out, "\nFrames lost, percent\n")?;
        loss(out, r)?;
    }
    let others: [(&str, Get, Option<Get>); 3] = [
        ("Longest burst without loss, frames", |c| c.burst.as_ref(), None),
        ("Time without forwarding after a restart, seconds", |c| c.reset.as_ref(), None),
        ("One TCP stream, Gbit/s", |c| c.tcp.as_ref(), Some(|c| c.ratio.as_ref()?.tcp.as_ref())),
    ];
    for (title, get, ratio) in others {
        if r.cells.iter().any(|c| get(c).is_some()) {
            writeln!(out, "\n{title}\n")?;
            series(out, r, get, ratio)?;
        }
    }
    if has(|c| c.overload.is_some()) {
        writeln!(out, "\nOverload: goodput second by second, and the router's own state\n")?;
        overload(out, r)?;
    }
    writeln!(out)?;
    let cpus: Vec<String> = s.dut_cpus.iter().map(usize::to_string).collect();
    writeln!(
        out,
        "{} flows, {}; {} repetitions of {} s, interleaved; {} worker{}",
        s.flows,
        s.table,
        s.repeat,
        s.seconds,
        s.workers,
        if s.workers == 1 { "" } else { "s" }
    )?;
    writeln!(
        out,
        "generator ({}) on processor {}, device under test on {}; sink: {}",
        s.generator,
        s.generator_cpu,
        cpus.join(","),
        s.sink
    )?;
    let m = &r.machine;
    writeln!(out, "{}, {} processors, {:.2} GHz, Linux {}", m.cpu, m.cpus, m.ghz, m.kernel)?;
    writeln!(out, "duet {} ({}), {}", r.version, r.commit, r.date)?;
    for w in &r.warnings {
        writeln!(out, "Note: {w}")?;
    }
    Ok(())
}

fn table(header: &[&str], left: usize) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for (i, column) in t.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if i >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    t
}

fn put(out: &mut impl Write, t: &Table) -> io::Result<()> {
    t.lines().try_for_each(|l| writeln!(out, "{}", l.trim_end()))
}

fn spread(s: Option<&Series>, digits: usize) -> [String; 2] {
    match s {
        None => ["-".to_owned(), String::new()],
        Some(s) => [format!("{:.digits$}", s.median), format!("{:.digits$}-{:.digits$}", s.min, s.max)],
    }
}

fn name(c: &Cell) -> String {
    match &c.instead {
        Some(path) => format!("{} ({path})", c.dut),
        None => c.dut.clone(),
    }
}

fn rates(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let reference = r.cells.iter().find_map(|c| c.ratio.as_ref()).map_or("", |x| x.to.as_str());
    let to = if reference.is_empty() { String::new() } else { format!("times {reference}") };
    let mut t =
        table(&["path", "size", "dut", "greatest load", "min-max", "without loss", "min-max", &to, "min-max"], 3);
    for c in r.cells.iter().filter(|c| c.peak.is_some()) {
        let [peak, peak_spread] = spread(c.peak.as_ref(), 3);
        let [none, none_spread] = spread(c.throughput.as_ref(), 3);
        let [ratio, ratio_spread] = match &c.ratio {
            Some(x) => spread(x.peak.as_ref(), 2),
            None => [String::new(), String::new()],
        };
        let peak = format!("{}{peak}", if c.generator_limited { ">" } else { "" });
        t.add_row([c.path.clone(), c.size.clone(), name(c), peak, peak_spread, none, none_spread, ratio, ratio_spread]);
    }
    put(out, &t)?;
    for roof in &r.roof {
        writeln!(out, "generator and sink alone, {} {}: {:.3}", roof.path, roof.size, roof.mpps)?;
    }
    if r.cells.iter().any(|c| c.generator_limited) {
        writeln!(out, "> the generator was the bottleneck: nothing was lost at the greatest load that it could offer")?;
    }
    Ok(())
}

fn latency(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let header = [
        "path",
        "size",
        "dut",
        "load Mpps",
        "min",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "PDV",
        "IPDV min/p50/max",
        "lost",
    ];
    let mut t = table(&header, 3);
    for c in &r.cells {
        let Some(l) = &c.latency else { continue };
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let d = &l.delays;
        let ipdv: Vec<String> = d.ipdv.iter().map(|ns| format!("{:.1}", *ns as f64 / 1e3)).collect();
        t.add_row([
            c.path.clone(),
            c.size.clone(),
            name(c),
            format!("{:.3}", l.load_mpps),
            us(d.min),
            format!("{:.1}", l.p50_us.median),
            us(d.p90),
            format!("{:.1}", l.p99_us.median),
            format!("{:.1}", l.p999_us.median),
            us(d.max),
            us(d.pdv),
            ipdv.join("/"),
            (d.sent - d.received.min(d.sent)).to_string(),
        ]);
    }
    put(out, &t)
}

fn loss(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let mut t = table(&["path", "size", "dut", "offered Mpps", "forwarded Mpps", "lost %"], 3);
    for c in &r.cells {
        for p in &c.loss {
            t.add_row([
                c.path.clone(),
                c.size.clone(),
                name(c),
                format!("{:.3}", p.offered_mpps),
                format!("{:.3}", p.forwarded_mpps),
                format!("{:.3}", p.loss_percent),
            ]);
        }
    }
    put(out, &t)
}

/// Words for before and after.
pub(crate) fn change(pair: Option<[u64; 2]>) -> String {
    pair.map_or_else(|| "-".to_owned(), |[a, b]| if a == b { a.to_string() } else { format!("{a} to {b}") })
}

fn overload(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let header = [
        "path",
        "size",
        "dut",
        "seconds",
        "offered Mpps",
        "peak",
        "goodput",
        "min-max",
        "of peak",
        "worst",
        "answer ms",
        "min-max",
        "memory KiB",
        "neighbours",
    ];
    let mut t = table(&header, 3);
    for c in &r.cells {
        let Some(o) = &c.overload else { continue };
        let [goodput, range] = spread(Some(&o.goodput), 3);
        let [answer, answer_range] = spread(o.answer_ms.as_ref(), 1);
        let [share, worst] = o.shares().map(|x| format!("{:.0} %", x * 100.0));
        t.add_row([
            c.path.clone(),
            c.size.clone(),
            name(c),
            format!("{}", o.seconds),
            format!("{:.3}", o.offered_mpps),
            format!("{:.3}", o.peak_mpps),
            goodput,
            range,
            share,
            worst,
            answer,
            answer_range,
            change(o.memory_kib),
            change(o.neighbors.map(|n| n.map(|x| x as u64))),
        ]);
    }
    put(out, &t)
}

/// A figure of a cell.
type Get = fn(&Cell) -> Option<&Series>;

fn series(out: &mut impl Write, r: &Report, get: Get, ratio: Option<Get>) -> io::Result<()> {
    let times = ratio.filter(|ratio| r.cells.iter().any(|c| ratio(c).is_some()));
    let header = ["path", "size", "dut", "median", "min-max", "times kernel", "min-max"];
    let mut t = table(&header[..if times.is_some() { 7 } else { 5 }], 3);
    for c in &r.cells {
        let Some(s) = get(c) else { continue };
        let digits = if s.median >= 1000.0 { 0 } else { 3 };
        let [median, range] = spread(Some(s), digits);
        let mut row = vec![c.path.clone(), c.size.clone(), name(c), median, range];
        match times.map(|ratio| ratio(c)) {
            Some(Some(s)) => row.extend(spread(Some(s), 2)),
            Some(None) => row.extend([String::new(), String::new()]),
            None => {}
        }
        t.add_row(row);
    }
    put(out, &t)
}
