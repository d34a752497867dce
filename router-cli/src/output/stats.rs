//! `duet stats` and `duet drops`: the counters, with what they mean.

use super::out::{Out, Paint};
use super::remedy::remedy;
use crate::control::{DropInfo, StatsInfo};
use comfy_table::{CellAlignment, Table, presets};
use router_core::counters::PortTotals;
use router_core::drop_reason::DropReason;
use std::io;

fn table(headers: &[&str]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_header(headers.iter().copied());
    t
}

fn align(t: &mut Table, columns: std::ops::Range<usize>) {
    for i in columns {
        if let Some(c) = t.column_mut(i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// comfy-table pads the last column; nobody wants white space at the end of a line.
fn print(out: &mut Out<'_>, t: &Table) -> io::Result<()> {
    for line in t.lines() {
        out.text(line.trim_end())?;
        out.text("\n")?;
    }
    Ok(())
}

/// Totals, the conservation law, and each port.
pub fn stats(out: &mut Out<'_>, s: &StatsInfo) -> io::Result<()> {
    let dropped = s.dropped_total();
    if out.is_json() {
        out.object_alone()?;
        for (key, value) in [
            ("received", s.received),
            ("originated", s.originated),
            ("transmitted", s.transmitted),
            ("delivered", s.delivered),
            ("answered", s.answered),
            ("held", s.held),
            ("dropped", dropped),
            ("uptime", s.uptime),
        ] {
            out.json_num(key, value)?;
        }
        out.object(Some("drops"))?;
        for (reason, n) in &s.dropped {
            out.json_num(reason, *n)?;
        }
        out.end_object()?;
        out.object(Some("routes"))?;
        for (table, n) in &s.routes {
            out.json_num(table, *n)?;
        }
        out.end_object()?;
        out.array("ports")?;
        for (name, t) in &s.ports {
            out.object(None)?;
            out.json_word("ifname", name)?;
            for (key, value) in [
                ("rx_packets", t.rx_packets),
                ("rx_bytes", t.rx_bytes),
                ("rx_dropped", t.rx_dropped),
                ("rx_missed", t.rx_missed),
                ("rx_multicast", t.rx_multicast),
                ("tx_packets", t.tx_packets),
                ("tx_bytes", t.tx_bytes),
                ("tx_dropped", t.tx_dropped),
                ("limit_neighbor", t.limit_neighbor),
                ("limit_icmp", t.limit_icmp),
                ("limit_other", t.limit_other),
            ] {
                out.json_num(key, value)?;
            }
            out.end_object()?;
        }
        out.end_array()?;
        out.array("workers")?;
        for w in &s.workers {
            out.object(None)?;
            out.json_word("worker", &w.name)?;
            for (key, value) in [
                ("received", w.received),
                ("originated", w.originated),
                ("transmitted", w.transmitted),
                ("dropped", w.dropped),
            ] {
                out.json_num(key, value)?;
            }
            out.end_object()?;
        }
        out.end_array()?;
        out.end_object()?;
        return out.finish_line();
    }
    for (name, value, meaning) in [
        ("received", s.received, "frames from ports"),
        ("originated", s.originated, "frames made here: ICMP, ARP, NDP, further fragments"),
        ("transmitted", s.transmitted, "frames handed to ports"),
        ("delivered", s.delivered, "frames used by the router itself"),
        ("answered", s.answered, "requests that ended in a reply"),
        ("dropped", dropped, "for the reasons that \"duet drops\" lists"),
        ("held", s.held, "frames waiting for a neighbour"),
    ] {
        out.text(format_args!("{name:<12} {value:>14}  {meaning}\n"))?;
    }
    for (table, n) in &s.routes {
        out.text(format_args!("{:<12} {n:>14}  routes in {table}\n", "routes"))?;
    }
    if !s.ports.is_empty() {
        let mut t = table(&["port", "rx packets", "rx bytes", "rx dropped", "tx packets", "tx bytes", "tx dropped"]);
        for (name, c) in &s.ports {
            let numbers = [c.rx_packets, c.rx_bytes, c.rx_dropped, c.tx_packets, c.tx_bytes, c.tx_dropped];
            t.add_row(std::iter::once(name.clone()).chain(numbers.iter().map(u64::to_string)));
        }
        align(&mut t, 1..7);
        out.text("\n")?;
        print(out, &t)?;
        // Hardly ever: ports whose limits have cut something, or for which no worker had time.
        let mut limited = table(&["port", "limit_neighbor", "limit_icmp", "limit_other", "rx missed"]);
        let cut = |t: &PortTotals| [t.limit_neighbor, t.limit_icmp, t.limit_other, t.rx_missed];
        for (name, numbers) in s.ports.iter().map(|(n, t)| (n, cut(t))).filter(|(_, c)| *c != [0; 4]) {
            limited.add_row(std::iter::once(name.clone()).chain(numbers.iter().map(u64::to_string)));
        }
        if limited.row_count() > 0 {
            align(&mut limited, 1..5);
            out.text("\n")?;
            print(out, &limited)?;
        }
    }
    if !s.workers.is_empty() {
        let mut t = table(&["worker", "received", "originated", "transmitted", "dropped"]);
        for w in &s.workers {
            let numbers = [w.received, w.originated, w.transmitted, w.dropped];
            t.add_row(std::iter::once(w.name.clone()).chain(numbers.iter().map(u64::to_string)));
        }
        align(&mut t, 1..5);
        out.text("\n")?;
        print(out, &t)?;
    }
    Ok(())
}

/// A drop reason with its present rate.
#[derive(Clone, Debug)]
pub struct DropRow {
    /// Count and last packets.
    pub info: DropInfo,
    /// Packets per second.
    pub rate: f64,
}

/// Every reason that dropped something: count, rate, what it means, what to do, the last packets. All reasons, those that
/// never occurred as well, with `all`.
pub fn drops(out: &mut Out<'_>, rows: &[DropRow], all: bool) -> io::Result<()> {
    let mut rows = rows.to_vec();
    if all {
        for r in DropReason::ALL {
            if rows.iter().all(|x| x.info.reason != r.name()) {
                let info = DropInfo { reason: r.name().to_owned(), packets: 0, last: Vec::new() };
                rows.push(DropRow { info, rate: 0.0 });
            }
        }
    }
    let explanation = |r: &DropRow| DropReason::from_name(&r.info.reason).map_or("", DropReason::explanation);
    out.begin()?;
    if out.is_json() {
        for r in &rows {
            out.object(None)?;
            out.json_word("reason", &r.info.reason)?;
            out.json_num("packets", r.info.packets)?;
            out.json_word("rate", format_args!("{:.1}", r.rate))?;
            out.json_word("explanation", explanation(r))?;
            out.json_word("remedy", remedy(&r.info.reason).unwrap_or_default())?;
            out.array("last")?;
            for d in &r.info.last {
                out.object(None)?;
                out.json_num("ago_ms", d.ago)?;
                out.json_word("iif", &d.iif)?;
                out.json_num("len", u64::from(d.len))?;
                if let Some(p) = &d.packet {
                    out.json_word("packet", p)?;
                }
                out.end_object()?;
            }
            out.end_array()?;
            out.end_object()?;
        }
        return out.end();
    }
    if rows.is_empty() {
        out.text("No packet was dropped.\n")?;
        return out.end();
    }
    let width = rows.iter().map(|r| r.info.reason.len()).max().unwrap_or(0).max(6);
    out.text(format_args!("{:<width$}  {:>14}  {:>10}\n", "reason", "packets", "per second"))?;
    for r in &rows {
        out.painted(format_args!("{:<width$}", r.info.reason), Paint::Name)?;
        out.text(format_args!("  {:>14}  {:>10}  {}\n", r.info.packets, rate(r.rate), explanation(r)))?;
        if r.info.packets == 0 {
            continue;
        }
        if let Some(todo) = remedy(&r.info.reason) {
            out.text(format_args!("  do     {todo}\n"))?;
        }
        for d in &r.info.last {
            let what = d.packet.as_ref().map_or_else(|| format!("{} bytes", d.len), ToString::to_string);
            out.text(format_args!("  last   {:>9} ago  {:<8}  {what}\n", ago(d.ago), d.iif))?;
        }
    }
    out.end()
}

/// Traffic of one route or next hop.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which.
    pub what: String,
    /// Packets followed.
    pub packets: u64,
    /// Packets per second.
    pub rate: f64,
    /// Bits per second.
    pub bits: f64,
}

/// Traffic by route or next hop, from a sample of `all` packets in so many seconds.
pub fn samples(out: &mut Out<'_>, head: &str, list: &[Sample], all: u64, seconds: f64) -> io::Result<()> {
    out.begin()?;
    if out.is_json() {
        for s in list {
            out.object(None)?;
            out.json_word(head, &s.what)?;
            out.json_num("packets", s.packets)?;
            out.json_word("rate", format_args!("{:.1}", s.rate))?;
            out.json_word("bits", format_args!("{:.1}", s.bits))?;
            out.end_object()?;
        }
        return out.end();
    }
    out.text(format_args!("{all} packets in {seconds:.1} s\n"))?;
    if !list.is_empty() {
        let mut t = table(&["packets", "share", "pps", "bit/s", head]);
        for s in list {
            let share = format!("{:.1}%", 100.0 * s.packets as f64 / all.max(1) as f64);
            t.add_row([s.packets.to_string(), share, rate(s.rate), rate(s.bits), s.what.clone()]);
        }
        align(&mut t, 0..4);
        print(out, &t)?;
    }
    out.end()
}

/// Milliseconds as people say it.
fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{:.1} s", ms as f64 / 1000.0),
        10_000..600_000 => format!("{} s", ms / 1000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// A rate in at most six characters.
fn rate(r: f64) -> String {
    match r {
        r if r <= 0.0 => "0".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r if r < 100_000.0 => format!("{r:.0}"),
        r if r < 1e8 => format!("{:.0}k", r / 1e3),
        r if r < 1e11 => format!("{:.0}M", r / 1e6),
        r => format!("{:.0}G", r / 1e9),
    }
}

/// Rates between two readings: in all, by port or tunnel, by worker, by drop reason.
pub fn rates(out: &mut Out<'_>, before: &StatsInfo, now: &StatsInfo, seconds: f64) -> io::Result<()> {
    let per = |new: u64, old: u64| new.wrapping_sub(old) as f64 / seconds;
    if out.is_json() {
        out.object_alone()?;
        for (key, new, old) in [
            ("received", now.received, before.received),
            ("transmitted", now.transmitted, before.transmitted),
            ("dropped", now.dropped_total(), before.dropped_total()),
        ] {
            out.json_word(key, format_args!("{:.1}", per(new, old)))?;
        }
        out.array("ports")?;
        for (name, c) in &now.ports {
            let old = before.ports.iter().find(|(n, _)| n == name).map(|(_, c)| *c).unwrap_or_default();
            out.object(None)?;
            out.json_word("ifname", name)?;
            for (key, new, old) in [
                ("rx_packets", c.rx_packets, old.rx_packets),
                ("rx_bytes", c.rx_bytes, old.rx_bytes),
                ("tx_packets", c.tx_packets, old.tx_packets),
                ("tx_bytes", c.tx_bytes, old.tx_bytes),
            ] {
                out.json_word(key, format_args!("{:.1}", per(new, old)))?;
            }
            out.end_object()?;
        }
        out.end_array()?;
        out.end_object()?;
        return out.finish_line();
    }
    out.text(format_args!(
        "packets per second: {} received, {} sent, {} dropped\n\n",
        rate(per(now.received, before.received)),
        rate(per(now.transmitted, before.transmitted)),
        rate(per(now.dropped_total(), before.dropped_total()))
    ))?;
    let mut t = table(&["port", "rx pps", "rx bit/s", "tx pps", "tx bit/s", "dropped/s"]);
    for (name, c) in &now.ports {
        let old = before.ports.iter().find(|(n, _)| n == name).map(|(_, c)| *c).unwrap_or_default();
        t.add_row([
            name.clone(),
            rate(per(c.rx_packets, old.rx_packets)),
            rate(8.0 * per(c.rx_bytes, old.rx_bytes)),
            rate(per(c.tx_packets, old.tx_packets)),
            rate(8.0 * per(c.tx_bytes, old.tx_bytes)),
            rate(per(c.rx_dropped + c.tx_dropped, old.rx_dropped + old.tx_dropped)),
        ]);
    }
    align(&mut t, 1..6);
    print(out, &t)?;
    let mut t = table(&["worker", "rx pps", "tx pps", "dropped/s"]);
    for w in &now.workers {
        let old = before.workers.iter().find(|o| o.name == w.name).cloned().unwrap_or_default();
        t.add_row([
            w.name.clone(),
            rate(per(w.received, old.received)),
            rate(per(w.transmitted, old.transmitted)),
            rate(per(w.dropped, old.dropped)),
        ]);
    }
    align(&mut t, 1..4);
    out.text("\n")?;
    print(out, &t)
}
