//! `show ip route`, `show ipv6 route`, `show ip fib`, each with an address, a prefix or `summary`, as FRR prints them.

use super::{Source, candidates, longest_match, source, target};
use crate::command::Session;
use crate::control::{RouteSelect, TableSelect};
use crate::grammar::{Failure, exit};
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::{HopSpec, HopState, RouteInfo, RouteKind};
use std::collections::BTreeMap;
use std::io::Write;

const CODES4: &str = "\
Codes: K - kernel route, C - connected, L - local, S - static,
       R - RIP, O - OSPF, I - IS-IS, B - BGP, E - EIGRP, A - Babel,
       > - selected route, * - FIB route

IPv4 unicast VRF default:
";
const CODES6: &str = "\
Codes: K - kernel route, C - connected, L - local, S - static,
       R - RIPng, O - OSPFv3, I - IS-IS, B - BGP, E - EIGRP, A - Babel,
       > - selected route, * - FIB route

IPv6 unicast VRF default:
";

pub(super) fn show(session: &mut Session<'_>, family: Family, fib: bool, args: &[&str]) -> Result<(), Failure> {
    match args {
        [] => list(session, family, fib),
        ["summary"] => summary(session, family),
        [word] => entry(session, family, word).map_err(|f| f.at(3)),
        [_, extra, ..] => Err(Failure::with_hint(
            exit::SYNTAX,
            format!("Error: \"{extra}\" is too much."),
            "say one address, one prefix, or summary",
        )
        .at(4)),
    }
}

fn letter(source: Source) -> char {
    match source {
        Source::Kernel => 'K',
        Source::Connected => 'C',
        Source::Local => 'L',
        Source::Static => 'S',
        Source::Rip => 'R',
        Source::Ospf => 'O',
        Source::Isis => 'I',
        Source::Bgp => 'B',
        Source::Eigrp => 'E',
        Source::Babel => 'A',
    }
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Kernel => "kernel",
        Source::Connected => "connected",
        Source::Local => "local",
        Source::Static => "static",
        Source::Rip => "rip",
        Source::Ospf => "ospf",
        Source::Isis => "isis",
        Source::Bgp => "bgp",
        Source::Eigrp => "eigrp",
        Source::Babel => "babel",
    }
}

/// FRR's administrative distances.
fn distance(source: Source) -> u32 {
    match source {
        Source::Kernel | Source::Connected | Source::Local => 0,
        Source::Static => 1,
        Source::Bgp => 20,
        Source::Eigrp => 90,
        Source::Babel => 100,
        Source::Ospf => 110,
        Source::Isis => 115,
        Source::Rip => 120,
    }
}

fn here(info: &RouteInfo) -> bool {
    [TableId::MAIN, TableId::LOCAL, TableId::DEFAULT].contains(&info.route.table_id())
        && !matches!(info.route.kind, RouteKind::Broadcast | RouteKind::Anycast)
}

/// Own addresses come behind the connected prefix that they are in.
fn list(session: &mut Session<'_>, family: Family, fib: bool) -> Result<(), Failure> {
    let mut own: Vec<RouteInfo> = Vec::new();
    let local = RouteSelect { family: Some(family), table: TableSelect::One(TableId::LOCAL), ..RouteSelect::default() };
    session.each_route(&local, |_, info| {
        if here(info) && (info.selected || !fib) {
            own.push(info.clone());
        }
        Ok(())
    })?;
    write!(session.out, "{}", if family == Family::Inet { CODES4 } else { CODES6 })?;
    for table in [TableId::DEFAULT, TableId::MAIN] {
        let select = RouteSelect { family: Some(family), table: TableSelect::One(table), ..RouteSelect::default() };
        session.each_route(&select, |out, info| {
            if !here(info) || (fib && !info.selected) {
                return Ok(());
            }
            write_route(out, info)?;
            if source(&info.route) == Source::Connected {
                let dev = info.route.hops.first().and_then(|h| h.dev.as_ref());
                let within = |i: &RouteInfo| {
                    info.route.dst.contains(&i.route.dst) && i.route.hops.first().and_then(|h| h.dev.as_ref()) == dev
                };
                for i in own.extract_if(.., |i| within(i)) {
                    write_route(out, &i)?;
                }
            }
            Ok(())
        })?;
    }
    own.iter().try_for_each(|i| write_route(session.out, i))
}

fn write_route(out: &mut dyn Write, info: &RouteInfo) -> Result<(), Failure> {
    let source = source(&info.route);
    let mut head =
        format!("{}{}{} {}", letter(source), mark(info.selected, '>'), mark(info.selected, '*'), info.route.dst);
    if !matches!(source, Source::Connected | Source::Local) {
        head.push_str(&format!(" [{}/{}]", distance(source), info.route.metric.unwrap_or(0)));
    }
    if info.route.hops.is_empty() || !matches!(info.route.kind, RouteKind::Unicast | RouteKind::Local) {
        return Ok(writeln!(out, "{head} {}", refusal(info.route.kind))?);
    }
    for (i, hop) in info.route.hops.iter().enumerate() {
        let state = info.states.get(i).copied().unwrap_or_default();
        if i > 0 {
            write!(
                out,
                "  {}{:width$}",
                mark(info.selected && state == HopState::Active, '*'),
                "",
                width = head.chars().count().saturating_sub(3)
            )?;
        } else {
            write!(out, "{head}")?;
        }
        writeln!(out, " {}", hop_text(hop, state))?;
    }
    Ok(())
}

fn mark(yes: bool, c: char) -> char {
    if yes { c } else { ' ' }
}

fn refusal(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Unreachable => "unreachable (ICMP unreachable)",
        RouteKind::Prohibit => "unreachable (ICMP admin-prohibited)",
        _ => "unreachable (blackhole)",
    }
}

fn hop_text(hop: &HopSpec, state: HopState) -> String {
    let dev = hop.dev.as_deref().unwrap_or("unknown");
    let mut text = match hop.via {
        Some(via) => format!("via {via}, {dev}"),
        None => format!("is directly connected, {dev}"),
    };
    if state != HopState::Active {
        text.push_str(" inactive");
    }
    if hop.onlink {
        text.push_str(" onlink");
    }
    text + &format!(", weight {}", hop.weight)
}

/// One address or prefix.
fn entry(session: &mut Session<'_>, family: Family, word: &str) -> Result<(), Failure> {
    let (net, host) = target(word, Some(family))?;
    let dst = match host {
        true => longest_match(session, net.addr(), None)?.map(|i| i.route.dst),
        false => Some(net),
    };
    let list = match dst {
        Some(dst) => candidates(session, dst)?,
        None => Vec::new(),
    };
    if list.is_empty() {
        return Err(Failure::with_hint(
            exit::REFUSED,
            "% Network not in table",
            format!("nothing covers {word}, not even a default route"),
        ));
    }
    for info in &list {
        write_entry(session.out, info)?;
    }
    Ok(session.out.flush()?)
}

fn write_entry(out: &mut dyn Write, info: &RouteInfo) -> Result<(), Failure> {
    let s = source(&info.route);
    writeln!(out, "Routing entry for {}", info.route.dst)?;
    let best = if info.selected { ", best" } else { "" };
    writeln!(
        out,
        "  Known via \"{}\", distance {}, metric {}{best}",
        name(s),
        distance(s),
        info.route.metric.unwrap_or(0)
    )?;
    if info.route.hops.is_empty() || !matches!(info.route.kind, RouteKind::Unicast | RouteKind::Local) {
        writeln!(out, "  {} {}", mark(info.selected, '*'), refusal(info.route.kind))?;
    }
    for (i, hop) in info.route.hops.iter().enumerate() {
        let state = info.states.get(i).copied().unwrap_or_default();
        let star = mark(info.selected && state == HopState::Active, '*');
        let dev = hop.dev.as_deref().unwrap_or("unknown");
        let inactive = if state == HopState::Active { "" } else { " inactive" };
        match hop.via {
            Some(via) => writeln!(out, "  {star} {via}, via {dev}{inactive}, weight {}", hop.weight)?,
            None => writeln!(out, "  {star} directly connected, {dev}{inactive}, weight {}", hop.weight)?,
        }
    }
    Ok(writeln!(out)?)
}

/// Counts by origin; the table streams by.
fn summary(session: &mut Session<'_>, family: Family) -> Result<(), Failure> {
    let mut counts: BTreeMap<Source, (u64, u64)> = BTreeMap::new();
    let select = RouteSelect { family: Some(family), table: TableSelect::All, ..RouteSelect::default() };
    session.each_route(&select, |_, info| {
        if here(info) {
            let c = counts.entry(source(&info.route)).or_default();
            c.0 += 1;
            c.1 += u64::from(info.selected);
        }
        Ok(())
    })?;
    let out = &mut *session.out;
    writeln!(out, "{:<20} {:<20} FIB  (vrf default)", "Route Source", "Routes")?;
    for (source, (all, fib)) in &counts {
        writeln!(out, "{:<20} {all:<20} {fib:<20} ", name(*source))?;
    }
    let (all, fib) = counts.values().fold((0, 0), |(a, f), (x, y)| (a + x, f + y));
    writeln!(out, "------\n{:<20} {all:<20} {fib:<20} \n", "Totals")?;
    Ok(out.flush()?)
}
