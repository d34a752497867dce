//! `duet stats` and `duet drops`: the counters, with what they mean.

use super::out::{Out, Paint};
use crate::control::StatsInfo;
use comfy_table::{CellAlignment, Table, presets};
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
                ("rx_multicast", t.rx_multicast),
                ("tx_packets", t.tx_packets),
                ("tx_bytes", t.tx_bytes),
                ("tx_dropped", t.tx_dropped),
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
    }
    Ok(())
}

/// Every reason that dropped something, with its explanation; all reasons with `all`.
pub fn drops(out: &mut Out<'_>, s: &StatsInfo, all: bool) -> io::Result<()> {
    let count = |r: &DropReason| s.dropped.get(r.name()).copied().unwrap_or(0);
    let mut rows: Vec<(String, u64, &str)> =
        DropReason::ALL.iter().map(|r| (r.name().to_owned(), count(r), r.explanation())).collect();
    // A newer router may have reasons that this program does not know.
    for (name, n) in s.dropped.iter().filter(|(name, _)| DropReason::from_name(name).is_none()) {
        rows.push((name.clone(), *n, ""));
    }
    rows.retain(|(_, n, _)| all || *n > 0);
    rows.sort_by_key(|(_, n, _)| std::cmp::Reverse(*n));
    out.begin()?;
    if !out.is_json() {
        if rows.is_empty() {
            out.text("No packet was dropped.\n")?;
        }
        let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, n, why) in &rows {
            out.text(format_args!("{n:>14}  "))?;
            out.painted(format_args!("{name:<width$}"), Paint::Name)?;
            out.text(format_args!("  {why}\n"))?;
        }
        return out.end();
    }
    for (name, n, why) in &rows {
        out.object(None)?;
        out.json_word("reason", name)?;
        out.json_num("packets", *n)?;
        out.json_word("explanation", why)?;
        out.end_object()?;
    }
    out.end()
}
