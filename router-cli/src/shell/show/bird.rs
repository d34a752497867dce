//! `show route`, `show route for ADDRESS`, with `table T`, `all`, `count`, as BIRD 2 prints them.

use super::{Source, longest_match, source, target};
use crate::command::Session;
use crate::control::{PrefixSelect, RouteSelect, TableSelect};
use crate::grammar::{Failure, exit, table_from_name};
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::{RouteInfo, RouteKind};
use std::io::Write;

pub(super) fn show(session: &mut Session<'_>, args: &[&str]) -> Result<(), Failure> {
    let (mut wanted, mut table, mut all, mut count) = (None, TableId::MAIN, false, false);
    let mut words = args.iter().enumerate();
    while let Some((i, word)) = words.next() {
        let at = |f: Failure, i: usize| f.at(i + 2);
        let mut value = || {
            words.next().ok_or_else(|| {
                at(
                    Failure::with_hint(
                        exit::SYNTAX,
                        format!("Error: \"{word}\" needs a value."),
                        "for ADDRESS, table TABLE",
                    ),
                    i,
                )
            })
        };
        match *word {
            "for" => {
                let (i, text) = value()?;
                wanted = Some(target(text, None).map_err(|f| at(f, i))?);
            }
            "table" => {
                let (i, text) = value()?;
                let hint = "say master4, master6, main, local or a number";
                let named =
                    if ["master4", "master6"].contains(text) { Some(TableId::MAIN) } else { table_from_name(text) };
                table = named.ok_or_else(|| {
                    at(Failure::with_hint(exit::USAGE, format!("Error: no table \"{text}\"."), hint), i)
                })?;
            }
            "all" => all = true,
            "count" => count = true,
            text => match target(text, None) {
                Ok((net, _)) => wanted = Some((net, false)),
                Err(_) => {
                    let hint = "say for ADDRESS, a prefix, table TABLE, all or count";
                    return Err(at(
                        Failure::with_hint(exit::SYNTAX, format!("Error: \"{text}\" is not known here."), hint),
                        i,
                    ));
                }
            },
        }
    }
    let exact = match wanted {
        Some((net, true)) => match longest_match(session, net.addr(), Some(table).filter(|t| *t != TableId::MAIN))? {
            Some(info) => Some(info.route.dst),
            None => return Err(not_found()),
        },
        Some((net, false)) => Some(net),
        None => None,
    };
    let mut found = 0;
    for family in [Family::Inet, Family::Inet6] {
        if exact.is_some_and(|n| Family::of_net(&n) != family) {
            continue;
        }
        found += list(session, family, table, exact.map(PrefixSelect::Exact), all, count)?;
    }
    match (exact, found) {
        (Some(_), 0) if !count => Err(not_found()),
        _ => Ok(session.out.flush()?),
    }
}

fn not_found() -> Failure {
    Failure::with_hint(exit::REFUSED, "Network not found", "\"show route\" lists what is there")
}

fn list(
    session: &mut Session<'_>,
    family: Family,
    table: TableId,
    dst: Option<PrefixSelect>,
    all: bool,
    count: bool,
) -> Result<u64, Failure> {
    let number = if family == Family::Inet { 4 } else { 6 };
    let title = if table == TableId::MAIN {
        format!("master{number}")
    } else {
        format!("{}.{number}", crate::grammar::table_name(table))
    };
    // BIRD has own and connected prefixes in its main table too.
    let tables = if table == TableId::MAIN && dst.is_some() { TableSelect::All } else { TableSelect::One(table) };
    let select = RouteSelect { family: Some(family), table: tables, dst, ..RouteSelect::default() };
    let mut last = None;
    let (mut routes, mut networks) = (0u64, 0u64);
    session.each_route(&select, |out, info| {
        if tables == TableSelect::All
            && ![TableId::MAIN, TableId::LOCAL, TableId::DEFAULT].contains(&info.route.table_id())
        {
            return Ok(());
        }
        if routes == 0 && !count {
            writeln!(out, "Table {title}:")?;
        }
        routes += 1;
        let again = last == Some(info.route.dst);
        networks += u64::from(!again);
        last = Some(info.route.dst);
        if count { Ok(()) } else { write_route(out, info, again, all) }
    })?;
    if count {
        writeln!(session.out, "{routes} of {routes} routes for {networks} networks in table {title}")?;
    }
    Ok(routes)
}

fn write_route(out: &mut dyn Write, info: &RouteInfo, again: bool, all: bool) -> Result<(), Failure> {
    let (name, preference, kind) = match source(&info.route) {
        Source::Connected | Source::Local => ("direct1", 240, "device univ"),
        Source::Static => ("static1", 200, "static univ"),
        Source::Kernel => ("kernel1", 10, "inherit univ"),
        Source::Rip => ("rip1", 120, "RIP univ"),
        Source::Ospf => ("ospf1", 150, "OSPF univ"),
        Source::Isis => ("isis1", 115, "inherit univ"),
        Source::Bgp => ("bgp1", 100, "BGP univ"),
        Source::Eigrp => ("eigrp1", 90, "inherit univ"),
        Source::Babel => ("babel1", 130, "Babel univ"),
    };
    let dest = match info.route.kind {
        RouteKind::Unicast | RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast => "unicast",
        RouteKind::Blackhole => "blackhole",
        RouteKind::Unreachable | RouteKind::Throw => "unreachable",
        RouteKind::Prohibit => "prohibited",
    };
    let dst = if again { String::new() } else { info.route.dst.to_string() };
    let primary = if info.selected { " *" } else { "" };
    let metric = info.route.metric.filter(|m| *m > 0).map(|m| format!("/{m}")).unwrap_or_default();
    writeln!(out, "{dst:<20} {dest} [{name}]{primary} ({preference}{metric})")?;
    for hop in &info.route.hops {
        let dev = hop.dev.as_deref().unwrap_or("?");
        let weight = if info.route.hops.len() > 1 { format!(" weight {}", hop.weight) } else { String::new() };
        let onlink = if hop.onlink { " onlink" } else { "" };
        match hop.via {
            Some(via) => writeln!(out, "\tvia {via} on {dev}{onlink}{weight}")?,
            None => writeln!(out, "\tdev {dev}{weight}")?,
        }
    }
    if all {
        writeln!(out, "\tType: {kind}")?;
    }
    Ok(())
}
