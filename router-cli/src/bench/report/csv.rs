//! The figures as comma-separated values (RFC 4180): one line per figure.

use super::{Cell, Report, Series};
use std::fmt::Write;

/// Everything measured.
pub(crate) fn text(r: &Report) -> String {
    let mut t = String::from("path,size,dut,routes,figure,unit,median,min,max,repetitions\r\n");
    for c in &r.cells {
        let mut series = |figure: &str, unit: &str, s: Option<&Series>| {
            if let Some(s) = s {
                line(&mut t, c, figure, unit, [s.median, s.min, s.max], s.values.len());
            }
        };
        series("greatest load", "Mpps", c.peak.as_ref());
        series("without loss", "Mpps", c.throughput.as_ref());
        if let Some(ratio) = &c.ratio {
            series(&format!("greatest load / {}", ratio.to), "", ratio.peak.as_ref());
            series(&format!("without loss / {}", ratio.to), "", ratio.throughput.as_ref());
            series("TCP / kernel", "", ratio.tcp.as_ref());
        }
        if let Some(l) = &c.latency {
            series("latency p50", "us", Some(&l.p50_us));
            series("latency p99", "us", Some(&l.p99_us));
            series("latency p99.9", "us", Some(&l.p999_us));
        }
        series("longest burst", "frames", c.burst.as_ref());
        series("restart", "s", c.reset.as_ref());
        series("TCP", "Gbit/s", c.tcp.as_ref());
        if let Some(o) = &c.overload {
            series("overload: goodput", "Mpps", Some(&o.goodput));
            series("overload: answer to a command", "ms", o.answer_ms.as_ref());
        }
        if let Some(l) = &c.latency {
            let us = |ns: u64| [ns as f64 / 1e3; 3];
            line(&mut t, c, "latency load", "Mpps", [l.load_mpps; 3], 1);
            line(&mut t, c, "PDV", "us", us(l.delays.pdv), 1);
            let [least, median, most] = l.delays.ipdv.map(|ns| ns as f64 / 1e3);
            line(&mut t, c, "IPDV", "us", [median, least, most], 1);
        }
        for p in &c.loss {
            line(&mut t, c, &format!("lost at {} Mpps", p.offered_mpps), "%", [p.loss_percent; 3], 1);
        }
    }
    t
}

fn line(t: &mut String, c: &Cell, figure: &str, unit: &str, [median, min, max]: [f64; 3], n: usize) {
    let fields = [&c.path, &c.size, &c.dut].map(|f| field(f));
    let _ = write!(
        t,
        "{},{},{unit},{median},{min},{max},{n}\r\n",
        fields.join(","),
        c.routes.to_string() + "," + &field(figure)
    );
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn one_line_per_figure_with_all_fields() {
        let t = text(&sample::report());
        let lines: Vec<&str> = t.lines().collect();
        assert!(lines.iter().all(|l| l.split(',').count() == 10), "{t}");
        assert!(t.contains("native4,64,xdp,1,greatest load,Mpps,2,1.9,2.1,3\r\n"), "{t}");
        assert!(t.contains("lost at 1.5 Mpps,%,12.5"), "{t}");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
