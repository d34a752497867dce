//! The report as one self-contained page: no script, no font, no picture from elsewhere.

use super::chart::{Bar, Bars, Lines, Scale, escape, number};
use super::text::change;
use super::{Cell, Report, Series};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// The page.
pub(crate) fn page(r: &Report) -> String {
    let mut t = String::with_capacity(64 << 10);
    let m = &r.machine;
    let title = format!("Forwarding on {}", m.cpu);
    let _ = write!(
        t,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>{0}</h1>\n",
        escape(&title)
    );
    let _ = writeln!(
        t,
        "<p class=\"facts\">duet {} ({}), {}. {} processors, {} GHz, Linux {}.</p>",
        escape(&r.version),
        escape(&r.commit),
        escape(&r.date),
        m.cpus,
        number(m.ghz),
        escape(&m.kernel)
    );
    for w in r.mismatch.iter().chain(&r.warnings) {
        let _ = writeln!(t, "<p class=\"warning\">{}</p>", escape(w));
    }
    throughput(&mut t, r);
    latency(&mut t, r);
    loss(&mut t, r);
    overload(&mut t, r);
    others(&mut t, r);
    method(&mut t, r);
    t.push_str("</body>\n</html>\n");
    t
}

/// Values in the order of their first appearance.
fn distinct<'a>(r: &'a Report, of: impl Fn(&'a Cell) -> &'a str) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for c in &r.cells {
        if !all.contains(&of(c)) {
            all.push(of(c));
        }
    }
    all
}

fn name(c: &Cell) -> String {
    match &c.instead {
        Some(path) => format!("{} ({path})", c.dut),
        None => c.dut.clone(),
    }
}

/// One chart of bars for a path.
fn bars(r: &Report, path: &str, unit: &str, title: &str, of: impl Fn(&Cell) -> Option<Bar>) -> Option<String> {
    let sizes = distinct(r, |c| &c.size);
    let duts: Vec<&str> = distinct(r, |c| &c.dut)
        .into_iter()
        .filter(|d| r.cells.iter().any(|c| c.path == path && c.dut == *d && of(c).is_some()))
        .collect();
    let bars: Vec<Vec<Option<Bar>>> =
        sizes.iter().map(|s| duts.iter().map(|d| r.cell(path, s, d).and_then(&of)).collect()).collect();
    if !bars.iter().flatten().any(Option::is_some) {
        return None;
    }
    let series =
        duts.iter().map(|d| sizes.iter().find_map(|s| r.cell(path, s, d)).map_or_else(String::new, name)).collect();
    let groups = sizes.iter().map(|s| (*s).to_owned()).collect();
    Some(Bars { title: format!("{path}: {title}"), unit: unit.to_owned(), groups, series, bars }.draw())
}

fn bar(s: Option<&Series>) -> Option<Bar> {
    s.map(|s| Bar { median: s.median, min: s.min, max: s.max, behind: None })
}

/// A frame size in words.
fn bytes(size: &str) -> String {
    if size == "imix" { size.to_owned() } else { format!("{size} bytes") }
}

fn figure(t: &mut String, caption: &str, drawing: &str) {
    let _ = writeln!(t, "<figure><figcaption>{}</figcaption>\n{drawing}</figure>", escape(caption));
}

fn throughput(t: &mut String, r: &Report) {
    if !r.cells.iter().any(|c| c.peak.is_some()) {
        return;
    }
    t.push_str("<h2>Throughput</h2>\n<p>Full bars: the greatest rate without loss (RFC 2544 26.1), median of the repetitions, with \
                their spread. Outlines and figures: what is forwarded at the greatest load (FRMOL, RFC 2285).</p>\n");
    for path in distinct(r, |c| &c.path) {
        let of = |c: &Cell| {
            let full = c.throughput.as_ref().or(c.peak.as_ref())?;
            Some(Bar { behind: c.peak.as_ref().map(|p| p.median), ..bar(Some(full))? })
        };
        if let Some(drawing) = bars(r, path, "million frames per second", "throughput", of) {
            figure(t, path, &drawing);
        }
    }
    rates(t, r);
}

fn cells_of(s: Option<&Series>, digits: usize) -> String {
    match s {
        None => "<td>-<td>".to_owned(),
        Some(s) => format!("<td>{:.digits$}<td class=\"range\">{:.digits$}-{:.digits$}", s.median, s.min, s.max),
    }
}

fn rates(t: &mut String, r: &Report) {
    let to = r.cells.iter().find_map(|c| c.ratio.as_ref()).map_or("", |x| x.to.as_str());
    let _ = write!(
        t,
        "<table>\n<thead><tr><th>path<th>size<th>device under test<th>greatest load<th>min-max<th>without loss<th>min-max\
         <th>times {}<th>min-max</thead>\n<tbody>\n",
        escape(to)
    );
    for c in r.cells.iter().filter(|c| c.peak.is_some()) {
        let limited = if c.generator_limited { "&gt; " } else { "" };
        let peak = cells_of(c.peak.as_ref(), 3).replacen("<td>", &format!("<td>{limited}"), 1);
        let ratio = cells_of(c.ratio.as_ref().and_then(|x| x.peak.as_ref()), 2);
        let _ = writeln!(
            t,
            "<tr><td>{}<td>{}<td>{}{peak}{}{ratio}",
            escape(&c.path),
            escape(&c.size),
            escape(&name(c)),
            cells_of(c.throughput.as_ref(), 3)
        );
    }
    t.push_str("</tbody></table>\n<p class=\"note\">Million frames per second.");
    for roof in &r.roof {
        let _ = write!(
            t,
            " Generator and sink alone, {} {}: {}.",
            escape(&roof.path),
            escape(&roof.size),
            number(roof.mpps)
        );
    }
    if r.cells.iter().any(|c| c.generator_limited) {
        t.push_str(
            " &gt;: the generator was the bottleneck, nothing was lost at the greatest load that it could offer.",
        );
    }
    t.push_str("</p>\n");
}

fn latency(t: &mut String, r: &Report) {
    if !r.cells.iter().any(|c| c.latency.is_some()) {
        return;
    }
    let _ = writeln!(
        t,
        "<h2>Latency</h2>\n<p>One way, of {} probes per second among a constant load of {} % of each device's own throughput \
         (RFC 8219 7.2).</p>",
        r.settings.probes_per_second,
        number(r.settings.load_percent)
    );
    for path in distinct(r, |c| &c.path) {
        for size in distinct(r, |c| &c.size) {
            let here: Vec<&Cell> =
                r.cells.iter().filter(|c| c.path == path && c.size == size && c.latency.is_some()).collect();
            let series: Vec<(String, Vec<(f64, f64)>)> = here
                .iter()
                .filter_map(|c| {
                    let steps = &c.latency.as_ref()?.delays.steps;
                    // The last probe of all stands at the end of the axis.
                    let point = |(ns, share): &(u64, f64)| (1.0 / (1.0 - share).max(1e-4), *ns as f64 / 1e3);
                    Some((name(c), steps.iter().map(point).collect()))
                })
                .collect();
            let all = || series.iter().flat_map(|(_, p)| p.iter().map(|(_, y)| *y));
            if all().next().is_none() {
                continue;
            }
            let y = Scale::log(all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
            let ticks = [(1.0, "0"), (2.0, "50"), (10.0, "90"), (100.0, "99"), (1e3, "99.9"), (1e4, "99.99")];
            let lines = Lines {
                title: format!("{path} {size}: latency distribution"),
                x_label: "percent of probes that were at most so late".to_owned(),
                y_label: "microseconds".to_owned(),
                x: Scale::Log(1.0, 1e4),
                y,
                x_ticks: ticks.iter().map(|(x, s)| (*x, (*s).to_owned())).collect(),
                series,
                dots: false,
            };
            figure(t, &format!("{path}, {}", bytes(size)), &lines.draw());
        }
    }
    delays(t, r);
}

fn delays(t: &mut String, r: &Report) {
    t.push_str(
        "<table>\n<thead><tr><th>path<th>size<th>device under test<th>load<th>min<th>p50<th>p90<th>p99<th>p99.9<th>max<th>PDV\
         <th>IPDV min / median / max<th>lost</thead>\n<tbody>\n",
    );
    for c in &r.cells {
        let Some(l) = &c.latency else { continue };
        let d = &l.delays;
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let ipdv = d.ipdv.map(|ns| format!("{:.1}", ns as f64 / 1e3)).join(" / ");
        let _ = writeln!(
            t,
            "<tr><td>{}<td>{}<td>{}<td>{:.3}<td>{}<td>{:.1}<td>{}<td>{:.1}<td>{:.1}<td>{}<td>{}<td>{ipdv}<td>{}",
            escape(&c.path),
            escape(&c.size),
            escape(&name(c)),
            l.load_mpps,
            us(d.min),
            l.p50_us.median,
            us(d.p90),
            l.p99_us.median,
            l.p999_us.median,
            us(d.max),
            us(d.pdv),
            d.sent.saturating_sub(d.received)
        );
    }
    t.push_str(
        "</tbody></table>\n<p class=\"note\">Microseconds; load in million frames per second. p50, p99 and p99.9 are medians over \
         the repetitions; the rest and the curve are of the repetition with the median p99. PDV and IPDV: RFC 8219 7.3.</p>\n",
    );
}

/// In the order of the load that was really offered: a busy sender may have offered less than the step before.
fn loss_points(c: &Cell) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = c.loss.iter().map(|p| (p.offered_mpps, p.loss_percent)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn loss(t: &mut String, r: &Report) {
    if !r.cells.iter().any(|c| !c.loss.is_empty()) {
        return;
    }
    t.push_str("<h2>Loss</h2>\n<p>Share of frames lost at rising load (RFC 2544 26.3).</p>\n");
    for path in distinct(r, |c| &c.path) {
        for size in distinct(r, |c| &c.size) {
            let here = r.cells.iter().filter(|c| c.path == path && c.size == size && !c.loss.is_empty());
            let series: Vec<(String, Vec<(f64, f64)>)> = here.map(|c| (name(c), loss_points(c))).collect();
            let points = || series.iter().flat_map(|(_, p)| p.iter());
            if points().next().is_none() {
                continue;
            }
            let lines = Lines {
                title: format!("{path} {size}: loss"),
                x_label: "million frames per second offered".to_owned(),
                y_label: "percent lost".to_owned(),
                x: Scale::from_zero(points().map(|p| p.0).fold(0.0, f64::max)),
                y: Scale::from_zero(points().map(|p| p.1).fold(0.1, f64::max)),
                x_ticks: Vec::new(),
                series,
                dots: true,
            };
            figure(t, &format!("{path}, {}", bytes(size)), &lines.draw());
        }
    }
}

fn overload(t: &mut String, r: &Report) {
    if !r.cells.iter().any(|c| c.overload.is_some()) {
        return;
    }
    t.push_str(
        "<h2>Overload</h2>\n<table><thead><tr><th>path<th>size<th>device under test<th>seconds<th>offered<th>peak<th>goodput\
         <th>of peak<th>worst second<th>answer, ms<th>longest<th>memory, KiB<th>neighbours</thead><tbody>\n",
    );
    for c in &r.cells {
        let Some(o) = &c.overload else { continue };
        let [share, worst] = o.shares().map(|x| format!("{:.0} %", x * 100.0));
        let ms = |f: fn(&Series) -> f64| o.answer_ms.as_ref().map_or("-".to_owned(), |s| format!("{:.1}", f(s)));
        let _ = writeln!(
            t,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.3}<td>{:.3}<td>{:.3}<td>{share}<td>{worst}<td>{}<td>{}<td>{}<td>{}",
            escape(&c.path),
            escape(&c.size),
            escape(&name(c)),
            number(o.seconds),
            o.offered_mpps,
            o.peak_mpps,
            o.goodput.median,
            ms(|s| s.median),
            ms(|s| s.max),
            change(o.memory_kib),
            change(o.neighbors.map(|n| n.map(|x| x as u64)))
        );
    }
    t.push_str(
        "</tbody></table>\n<p class=\"note\">Rates in million frames per second; goodput: median over the seconds. Peak: the \
         greatest load in a short trial before. Answer: until a command was answered, its process included.</p>\n",
    );
}

fn others(t: &mut String, r: &Report) {
    type Get = fn(&Cell) -> Option<&Series>;
    let all: [(&str, &str, Get); 3] = [
        ("TCP, one stream", "Gbit/s", |c| c.tcp.as_ref()),
        ("Longest burst without loss (RFC 2544 26.4)", "frames", |c| c.burst.as_ref()),
        ("Time without forwarding after a restart (RFC 2544 26.6)", "seconds", |c| c.reset.as_ref()),
    ];
    for (title, unit, get) in all {
        if !r.cells.iter().any(|c| get(c).is_some()) {
            continue;
        }
        let _ = writeln!(t, "<h2>{title}</h2>");
        for path in distinct(r, |c| &c.path) {
            if let Some(drawing) = bars(r, path, unit, title, |c| bar(get(c))) {
                figure(t, path, &drawing);
            }
        }
    }
}

fn method(t: &mut String, r: &Report) {
    let s = &r.settings;
    let cpus: Vec<String> = s.dut_cpus.iter().map(usize::to_string).collect();
    let noise = &r.noise;
    let rows = [
        ("command", r.command.join(" ")),
        ("processor", format!("{}, {} for this program, {} GHz", r.machine.cpu, r.machine.cpus, number(r.machine.ghz))),
        ("kernel", format!("Linux {}", r.machine.kernel)),
        ("program", format!("duet {}, {}{}", r.version, r.commit, if r.optimized { "" } else { ", not optimised" })),
        ("routes", s.table.clone()),
        ("flows", s.flows.to_string()),
        ("workers", s.workers.to_string()),
        (
            "trials",
            format!(
                "{} s each, {} repetitions, interleaved between the devices under test",
                number(s.seconds),
                s.repeat
            ),
        ),
        ("loss allowed", format!("{} %", number(s.loss_percent))),
        ("generator", format!("{}, on processor {}", s.generator, s.generator_cpu)),
        ("device under test", format!("on processor {}", cpus.join(", "))),
        ("sink", s.sink.clone()),
        (
            "others at work",
            format!(
                "{} % of a processor on average, {} % in the worst repetition; taken by the hypervisor {} %; stalls of 50 us and \
                 more {} %",
                noise.foreign_percent, noise.worst_foreign_percent, noise.steal_percent, noise.stalled_percent
            ),
        ),
    ];
    t.push_str("<h2>How it was measured</h2>\n<table class=\"method\"><tbody>\n");
    for (key, value) in rows {
        let _ = writeln!(t, "<tr><th>{key}<td>{}", escape(&value));
    }
    t.push_str("</tbody></table>\n");
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_page_stands_alone_and_shows_everything() {
        let t = page(&sample::report());
        for forbidden in ["http://", "https://", "<script", "<link", "@import", "url(", "src=", "NaN", "inf\""] {
            assert!(!t.contains(forbidden), "{forbidden}");
        }
        for wanted in [
            "Some CPU",
            "Linux 6.1",
            "0123abc",
            "duet bench wire &lt;&amp;&quot;&gt;",
            "a warning &lt;of&gt; sorts",
            "native4: throughput",
            "native4 imix: latency distribution",
            "native4 64: loss",
            "TCP, one stream",
            "<td>97 %<td>92 %<td>8.0<td>8.4<td>20000 to 20100<td>9",
            "kernel-threaded",
        ] {
            assert!(t.contains(wanted), "{wanted}");
        }
        assert_eq!(t.matches("<svg viewBox").count(), t.matches("<figure>").count());
    }

    #[test]
    fn nothing_measured_is_still_a_page() {
        let t = page(&Report::default());
        assert!(t.contains("</html>") && !t.contains("<figure>"));
    }
}
