//! What the panes hold: rows of cells, sorted, with rates from two snapshots.

use super::collect::Snapshot;
use crate::grammar::nud_name;
use router_core::drop_reason::DropReason;
use router_core::spec::{NextHopKind, NudState};
use std::cmp::Ordering;

/// The panes, in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Ports,
    Tunnels,
    Routes,
    NextHops,
    Drops,
    Workers,
    Neighbors,
}

impl Pane {
    pub const ALL: [Pane; 7] =
        [Pane::Ports, Pane::Tunnels, Pane::Routes, Pane::NextHops, Pane::Drops, Pane::Workers, Pane::Neighbors];

    pub fn title(self) -> &'static str {
        match self {
            Pane::Ports => "Ports",
            Pane::Tunnels => "Tunnels",
            Pane::Routes => "Routes",
            Pane::NextHops => "Next hops",
            Pane::Drops => "Drops",
            Pane::Workers => "Workers",
            Pane::Neighbors => "Neighbours",
        }
    }

    /// Its columns; the first `usize` of them are text, the others numbers.
    pub fn columns(self) -> (&'static [&'static str], usize) {
        match self {
            Pane::Ports => (&["port", "kind", "state", "rx pkt/s", "rx bit/s", "tx pkt/s", "tx bit/s", "drop/s"], 3),
            Pane::Tunnels => (&["tunnel", "local", "remote", "state", "mtu", "rx bit/s", "tx bit/s"], 4),
            Pane::Routes => (&["route", "next hop", "pkt/s", "bit/s", "share %"], 2),
            Pane::NextHops => (&["next hop", "port", "neighbour", "id", "routes"], 4),
            Pane::Drops => (&["reason", "packets/s", "packets"], 1),
            Pane::Workers => (&["thread", "load %"], 1),
            Pane::Neighbors => (&["address", "port", "link-layer", "state", "waiting"], 4),
        }
    }
}

/// A cell: as shown, and as sorted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64, Unit),
}

/// How a number is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// As it is.
    Plain,
    /// With k, M, G behind.
    Short,
}

impl Cell {
    pub fn show(&self) -> String {
        match self {
            Cell::Text(t) => t.clone(),
            Cell::Number(n, Unit::Plain) => format!("{n:.0}"),
            Cell::Number(n, Unit::Short) => short(*n),
        }
    }

    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Number(a, _), Cell::Number(b, _)) => b.total_cmp(a),
            (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
            (Cell::Text(_), Cell::Number(..)) => Ordering::Less,
            (Cell::Number(..), Cell::Text(_)) => Ordering::Greater,
        }
    }
}

/// Three significant digits with a unit.
fn short(n: f64) -> String {
    let (mut n, mut unit) = (n, "");
    for next in ["k", "M", "G", "T"] {
        if n < 1000.0 {
            break;
        }
        n /= 1000.0;
        unit = next;
    }
    if unit.is_empty() || n >= 100.0 { format!("{n:.0}{unit}") } else { format!("{n:.1}{unit}") }
}

/// A row: its cells, whether all is well, and what `explain` can be asked about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub cells: Vec<Cell>,
    pub good: bool,
    pub ask: Ask,
}

/// What Enter does on a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Explain a packet to this address.
    To(String),
    /// Show this text.
    Text(String),
    /// Nothing to tell.
    Nothing,
}

fn text(t: impl ToString) -> Cell {
    Cell::Text(t.to_string())
}

/// The rows of a pane, not yet sorted. `old` is the snapshot before.
pub(super) fn rows(pane: Pane, new: &Snapshot, old: Option<&Snapshot>) -> Vec<Row> {
    let seconds = old.map_or(0.0, |o| new.at.saturating_duration_since(o.at).as_secs_f64());
    let rate = move |now: u64, then: Option<u64>| match then {
        // A counter that went back belongs to a router that was started again.
        Some(then) if seconds > 0.0 && now >= then => (now - then) as f64 / seconds,
        _ => 0.0,
    };
    let per_second = |n: f64| Cell::Number(n, Unit::Short);
    match pane {
        Pane::Ports => new
            .links
            .iter()
            .map(|l| {
                let then = old.and_then(|o| o.links.iter().find(|x| x.name == l.name)).map(|l| l.totals);
                let t = l.totals;
                let state = if l.up {
                    "up"
                } else if l.admin_up {
                    "no carrier"
                } else {
                    "down"
                };
                let drops = rate(t.rx_dropped + t.tx_dropped, then.map(|o| o.rx_dropped + o.tx_dropped));
                Row {
                    cells: vec![
                        text(&l.name),
                        text(l.kind),
                        text(state),
                        per_second(rate(t.rx_packets, then.map(|o| o.rx_packets))),
                        per_second(8.0 * rate(t.rx_bytes, then.map(|o| o.rx_bytes))),
                        per_second(rate(t.tx_packets, then.map(|o| o.tx_packets))),
                        per_second(8.0 * rate(t.tx_bytes, then.map(|o| o.tx_bytes))),
                        per_second(drops),
                    ],
                    good: l.up,
                    ask: l.addrs.first().map_or(Ask::Nothing, |a| Ask::To(a.addr().to_string())),
                }
            })
            .collect(),
        Pane::Tunnels => new
            .tunnels
            .iter()
            .map(|t| {
                let link = new.links.iter().find(|l| l.name == t.tunnel.name);
                let then =
                    old.and_then(|o| o.tunnels.iter().find(|x| x.tunnel.name == t.tunnel.name)).map(|t| t.totals);
                let up = link.is_some_and(|l| l.up);
                let state = match (up, t.carried) {
                    (false, _) => "down",
                    (true, Some(false)) => "no path",
                    (true, _) => "up",
                };
                Row {
                    cells: vec![
                        text(&t.tunnel.name),
                        text(t.tunnel.local),
                        text(t.tunnel.remote),
                        text(state),
                        Cell::Number(f64::from(link.map_or(0, |l| l.mtu)), Unit::Plain),
                        per_second(8.0 * rate(t.totals.rx_bytes, then.map(|o| o.rx_bytes))),
                        per_second(8.0 * rate(t.totals.tx_bytes, then.map(|o| o.tx_bytes))),
                    ],
                    good: state == "up",
                    ask: Ask::To(t.tunnel.remote.to_string()),
                }
            })
            .collect(),
        Pane::Routes => {
            let list = new.busy.as_deref().unwrap_or_default();
            let all: f64 = list.iter().map(|b| b.packets).sum::<f64>().max(f64::MIN_POSITIVE);
            list.iter()
                .map(|b| Row {
                    cells: vec![
                        text(&b.route),
                        text(&b.via),
                        per_second(b.packets),
                        per_second(b.bits),
                        Cell::Number(100.0 * b.packets / all, Unit::Plain),
                    ],
                    good: b.route != "none",
                    ask: Ask::To(b.to.clone()),
                })
                .collect()
        }
        Pane::NextHops => new
            .users
            .iter()
            .map(|((via, dev), routes)| {
                let neigh = new.neighs.iter().find(|n| Some(n.neigh.addr) == *via && n.neigh.dev == *dev);
                let state = neigh.and_then(|n| n.neigh.state);
                let id = new.nexthops.iter().find_map(|n| match &n.kind {
                    NextHopKind::Hop(h) if h.via == *via && h.dev.as_ref() == Some(dev) => Some(n.id.to_string()),
                    _ => None,
                });
                let address = via.map(|v| v.to_string()).unwrap_or_default();
                Row {
                    cells: vec![
                        text(&address),
                        text(dev),
                        text(state.map_or("", nud_name)),
                        text(id.unwrap_or_default()),
                        Cell::Number(*routes as f64, Unit::Plain),
                    ],
                    good: state != Some(NudState::Failed),
                    ask: Ask::To(address),
                }
            })
            .collect(),
        Pane::Drops => new
            .stats
            .dropped
            .iter()
            .map(|(reason, n)| {
                let then = old.map(|o| o.stats.dropped.get(reason).copied().unwrap_or(0));
                let rate = rate(*n, then);
                let why = DropReason::from_name(reason).map_or("", |r| r.explanation());
                Row {
                    cells: vec![text(reason), per_second(rate), Cell::Number(*n as f64, Unit::Plain)],
                    good: rate == 0.0,
                    ask: Ask::Text(format!("{reason}: {why}")),
                }
            })
            .collect(),
        Pane::Workers => new
            .threads
            .iter()
            .map(|(name, used)| {
                let then = old.and_then(|o| o.threads.iter().find(|(n, _)| n == name)).map(|(_, used)| *used);
                let load = then.filter(|t| seconds > 0.0 && used >= t).map_or(0.0, |t| (used - t) / seconds * 100.0);
                let cells = vec![text(name), Cell::Number(load.min(100.0), Unit::Plain)];
                Row { cells, good: load < 90.0, ask: Ask::Nothing }
            })
            .collect(),
        Pane::Neighbors => new
            .neighs
            .iter()
            .map(|n| {
                let state = n.neigh.state.map_or("", nud_name);
                Row {
                    cells: vec![
                        text(n.neigh.addr),
                        text(&n.neigh.dev),
                        text(n.neigh.lladdr.map(|m| m.to_string()).unwrap_or_default()),
                        text(state),
                        Cell::Number(f64::from(n.pending), Unit::Plain),
                    ],
                    good: !matches!(n.neigh.state, Some(NudState::Failed | NudState::Incomplete)),
                    ask: Ask::To(n.neigh.addr.to_string()),
                }
            })
            .collect(),
    }
}

/// Sorts by a column: numbers with the greatest first, texts by the alphabet, unless reversed.
pub(super) fn sort(rows: &mut [Row], column: usize, reverse: bool) {
    rows.sort_by(|a, b| {
        let order = match (a.cells.get(column), b.cells.get(column)) {
            (Some(x), Some(y)) => x.order(y),
            _ => Ordering::Equal,
        };
        if reverse { order.reverse() } else { order }
    });
}

/// Packets per second through the whole router: received, transmitted, dropped.
pub(super) fn totals(new: &Snapshot, old: Option<&Snapshot>) -> [String; 3] {
    let Some(old) = old else { return ["-", "-", "-"].map(str::to_owned) };
    let seconds = new.at.saturating_duration_since(old.at).as_secs_f64().max(0.001);
    let rate =
        |f: fn(&crate::control::StatsInfo) -> u64| short(f(&new.stats).saturating_sub(f(&old.stats)) as f64 / seconds);
    [rate(|s| s.received), rate(|s| s.transmitted), rate(|s| s.dropped_total())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (n, want) in [
            (0.0, "0"),
            (7.4, "7"),
            (999.0, "999"),
            (1000.0, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (9.9e9, "9.9G"),
        ] {
            assert_eq!(short(n), want);
        }
    }

    #[test]
    fn sorted_by_any_column() {
        let row = |name: &str, n: f64| Row {
            cells: vec![text(name), Cell::Number(n, Unit::Plain)],
            good: true,
            ask: Ask::Nothing,
        };
        let mut rows = vec![row("b", 1.0), row("a", 2.0), row("c", 3.0)];
        let names = |rows: &[Row]| rows.iter().map(|r| r.cells[0].show()).collect::<String>();
        sort(&mut rows, 1, false);
        assert_eq!(names(&rows), "cab");
        sort(&mut rows, 1, true);
        assert_eq!(names(&rows), "bac");
        sort(&mut rows, 0, false);
        assert_eq!(names(&rows), "abc");
        sort(&mut rows, 9, false);
    }
}
