//! Routes in the layouts of other routers, for people who have those in their fingers: FRR's `show ip route`, BIRD's
//! `show route`, the BSDs' `route -n get`. Ages are left out where the original has them: routes here carry none.

mod bird;
mod bsd;
mod frr;

pub(super) use bsd::route_get;

use crate::command::Session;
use crate::control::{Answer, Op, PrefixSelect, RouteGet, RouteSelect, TableSelect};
use crate::grammar::{Failure, exit};
use ipnet::IpNet;
use router_core::addr::{Family, parse_addr, parse_prefix};
use router_core::port::TableId;
use router_core::spec::{RouteInfo, RouteKind, RouteSpec, proto};
use std::net::IpAddr;

/// `show ...`; `words` are spelled out, `show` included, and stand at `offset` in the line.
pub(super) fn show(session: &mut Session<'_>, words: &[String]) -> Result<(), Failure> {
    let refs: Vec<&str> = words.iter().map(String::as_str).collect();
    match refs.as_slice() {
        ["show", family @ ("ip" | "ipv6"), what, rest @ ..] => {
            let family = if *family == "ip" { Family::Inet } else { Family::Inet6 };
            frr::show(session, family, *what == "fib", rest)
        }
        ["show", "route", rest @ ..] => bird::show(session, rest),
        _ => Err(Failure::with_hint(
            exit::SYNTAX,
            "Error: show what?",
            "show ip route, show ipv6 route, or show route for ADDRESS",
        )),
    }
}

/// What a route is, in the words that all of them share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Kernel,
    Connected,
    Local,
    Static,
    Rip,
    Ospf,
    Isis,
    Bgp,
    Eigrp,
    Babel,
}

fn source(route: &RouteSpec) -> Source {
    match (route.kind, route.proto.unwrap_or(proto::BOOT)) {
        (RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast, _) => Source::Local,
        (_, proto::KERNEL) if route.hops.iter().all(|h| h.via.is_none()) => Source::Connected,
        (_, proto::STATIC | proto::BOOT) => Source::Static,
        (_, proto::RIP) => Source::Rip,
        (_, proto::OSPF) => Source::Ospf,
        (_, proto::ISIS) => Source::Isis,
        (_, proto::BGP) => Source::Bgp,
        (_, proto::EIGRP) => Source::Eigrp,
        (_, proto::BABEL) => Source::Babel,
        _ => Source::Kernel,
    }
}

/// An address or a prefix in the arguments.
fn target(word: &str, family: Option<Family>) -> Result<(IpNet, bool), Failure> {
    let wrong = |hint: String| {
        let of = family.map_or_else(|| "address or prefix".to_owned(), |f| format!("{f} address or prefix"));
        Failure::with_hint(exit::USAGE, format!("Error: {of} is expected rather than \"{word}\"."), hint)
    };
    let (net, host) = match (parse_addr(word), parse_prefix(word)) {
        (Ok(addr), _) => (IpNet::from(addr), true),
        (Err(_), Ok(net)) => (net, false),
        (Err(_), Err(e)) => return Err(wrong(e.to_string())),
    };
    match family {
        Some(f) if f != Family::of_net(&net) => Err(wrong(format!("\"{word}\" is an {} one", Family::of_net(&net)))),
        _ => Ok((net, host)),
    }
}

/// The prefix that the data plane uses for an address; None: there is none.
fn longest_match(
    session: &mut Session<'_>,
    addr: IpAddr,
    table: Option<TableId>,
) -> Result<Option<RouteInfo>, Failure> {
    let get = RouteGet { table, fibmatch: true, ..RouteGet::to(addr) };
    match session.try_call(Op::RouteGet(get)) {
        Ok(Answer::Routes(list)) => Ok(list.into_iter().next()),
        Ok(_) => Err(crate::command::unexpected()),
        // Also where the route that fits refuses: it is found among the covering ones.
        Err(crate::control::ClientError::Refused(e)) if e.code == "unreachable" => refusing(session, addr, table),
        Err(e) => Err(e.into()),
    }
}

/// The longest covering route that is in use, found by walking the few that cover the address.
fn refusing(session: &mut Session<'_>, addr: IpAddr, table: Option<TableId>) -> Result<Option<RouteInfo>, Failure> {
    let select = RouteSelect {
        table: table.map_or(TableSelect::Main, TableSelect::One),
        dst: Some(PrefixSelect::Match(IpNet::from(addr))),
        ..RouteSelect::default()
    };
    let mut best: Option<RouteInfo> = None;
    session.each_route(&select, |_, info| {
        let longer = best.as_ref().is_none_or(|b| b.route.dst.prefix_len() <= info.route.dst.prefix_len());
        if info.selected && longer {
            best = Some(info.clone());
        }
        Ok(())
    })?;
    Ok(best)
}

/// All candidates of a prefix in main and local tables.
fn candidates(session: &mut Session<'_>, dst: IpNet) -> Result<Vec<RouteInfo>, Failure> {
    let select = RouteSelect { table: TableSelect::All, dst: Some(PrefixSelect::Exact(dst)), ..RouteSelect::default() };
    let mut out = Vec::new();
    session.each_route(&select, |_, info| {
        if [TableId::MAIN, TableId::LOCAL, TableId::DEFAULT].contains(&info.route.table_id())
            && !matches!(info.route.kind, RouteKind::Broadcast | RouteKind::Anycast)
        {
            out.push(info.clone());
        }
        Ok(())
    })?;
    out.sort_by_key(|i| !i.selected);
    Ok(out)
}
