//! `route -n get ADDRESS`, as FreeBSD prints it.

use super::longest_match;
use crate::command::{Session, unexpected};
use crate::control::{Answer, ClientError, LinkSelect, Op, RouteGet};
use crate::grammar::{Failure, exit};
use router_core::addr::parse_addr;
use router_core::spec::{RouteKind, proto};

/// `args` are the words behind `get`, the first of them at `offset` in the line.
pub(crate) fn route_get(session: &mut Session<'_>, args: &[String], offset: usize) -> Result<(), Failure> {
    let at = args.iter().position(|a| !a.starts_with('-'));
    let Some((at, word)) = at.and_then(|i| Some((i, args.get(i)?))) else {
        return Err(Failure::with_hint(exit::SYNTAX, "usage: route [-n] get ADDRESS", "say which address")
            .at((offset + args.len()).saturating_sub(1)));
    };
    let wrong =
        |hint: String| Failure::with_hint(exit::USAGE, format!("route: bad address: {word}"), hint).at(offset + at);
    let addr = parse_addr(word).map_err(|e| wrong(e.to_string()))?;
    let missing =
        || Failure::with_hint(exit::USAGE, "route: route has not been found", format!("nothing covers {addr}"));
    let Some(info) = longest_match(session, addr, None)? else { return Err(missing()) };
    let get = RouteGet::to(addr);
    let (gateway, dev) = match session.try_call(Op::RouteGet(get)) {
        Ok(Answer::Get(g)) => g.hop.map_or((None, None), |h| (h.via, h.dev)),
        Ok(_) => return Err(unexpected()),
        Err(ClientError::Refused(e)) if e.code == "unreachable" => (None, None),
        Err(e) => return Err(e.into()),
    };
    let route = &info.route;
    let dev = if matches!(route.kind, RouteKind::Local | RouteKind::Anycast) { Some("lo".to_owned()) } else { dev };
    let mtu = match (&route.mtu, &dev) {
        (Some(mtu), _) => *mtu,
        (None, Some(dev)) => {
            match session.call(Op::LinkShow(LinkSelect { dev: Some(dev.clone()), ..LinkSelect::default() }))? {
                Answer::Links(list) => list.first().map_or(0, |l| l.mtu),
                _ => return Err(unexpected()),
            }
        }
        (None, None) => 0,
    };
    let host = route.dst.prefix_len() == route.dst.max_prefix_len();
    let mut flags = vec!["UP"];
    flags.extend(gateway.is_some().then_some("GATEWAY"));
    flags.extend(host.then_some("HOST"));
    match route.kind {
        RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw => flags.push("REJECT"),
        RouteKind::Blackhole => flags.push("BLACKHOLE"),
        RouteKind::Local | RouteKind::Anycast => flags.push("LOCAL"),
        RouteKind::Unicast | RouteKind::Broadcast => {}
    }
    flags.push("DONE");
    flags.push(if route.proto == Some(proto::KERNEL) { "PINNED" } else { "STATIC" });
    let out = &mut *session.out;
    writeln!(out, "   route to: {addr}")?;
    writeln!(out, "destination: {}", route.dst.network())?;
    if !host {
        writeln!(out, "       mask: {}", route.dst.netmask())?;
    }
    if let Some(gateway) = gateway {
        writeln!(out, "    gateway: {gateway}")?;
    }
    writeln!(out, "        fib: 0")?;
    if let Some(dev) = dev {
        writeln!(out, "  interface: {dev}")?;
    }
    writeln!(out, "      flags: <{}>", flags.join(","))?;
    writeln!(out, " recvpipe  sendpipe  ssthresh  rtt,msec    mtu        weight    expire")?;
    let weight = route.hops.first().map_or(1, |h| h.weight);
    writeln!(out, "{:>8}  {:>8}  {:>8}  {:>8}  {mtu:>8}  {weight:>8}  {:>8} ", 0, 0, 0, 0, 0)?;
    Ok(out.flush()?)
}
