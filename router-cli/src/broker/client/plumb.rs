//! What the router is told of a tunnel from a broker: the tunnel, its addresses, its routes.

use super::joined::{Joined, Source};
use super::tsp::{Door, Here};
use crate::broker::plumb::{all, tunnel_spec};
use crate::control::{AddrSpec, Answer, Backend, LeaseInfo, LinkInfo, LinkSelect, Op, TunnelChange, WireError};
use crate::grammar::parse_route_line;
use ipnet::IpNet;
use router_core::port::PortKind;
use router_core::spec::RouteSpec;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Time between two questions to the server through the tunnel: NATs forget bindings of UDP and of what they do not know
/// after 30 seconds at the earliest (RFC 4787 4.3 has two minutes).
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The same where it tells whether the path lets protocol 41 through.
const KEEPALIVE_AUTO: Duration = Duration::from_secs(3);

/// The ports of the router.
pub(super) fn links(router: &dyn Backend) -> Result<Vec<LinkInfo>, WireError> {
    match router.call(Op::LinkShow(LinkSelect::default()))? {
        Answer::Links(links) => Ok(links),
        _ => Err(WireError::new("failed", "no answer about ports", "")),
    }
}

/// What of this router matters to whoever asks for a tunnel.
pub(super) fn here(router: &dyn Backend, j: &Joined) -> Result<Here, WireError> {
    let links = links(router)?;
    let kind_of = |name: &str| links.iter().find(|l| l.name == name).map(|l| l.kind);
    let chosen = j.spec.dev.as_deref().and_then(kind_of);
    let udp: Vec<&str> = match (&j.spec.dev, chosen) {
        (Some(dev), Some(PortKind::Udp)) => vec![dev],
        _ => links.iter().filter(|l| l.kind == PortKind::Udp).map(|l| l.name.as_str()).collect(),
    };
    let bare = match chosen {
        Some(kind) => kind != PortKind::Udp,
        None => links.iter().any(|l| l.outer.is_none() && !matches!(l.kind, PortKind::Udp | PortKind::Wireguard)),
    };
    // What this very tunnel brought is no obstacle to its coming again.
    let own = j.lease.as_ref().and_then(lan_address);
    let taken = links
        .iter()
        .filter(|l| l.name != j.spec.name)
        .flat_map(|l| l.addrs.iter().map(|a| (l.name.clone(), *a)))
        .filter(|(_, a)| {
            Some(*a) != own && !matches!(a.addr(), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_loopback())
        })
        .collect();
    Ok(Here { door: Door::find(&udp), taken, bare })
}

/// Makes the tunnel here what the broker says. `every`: how often to ask the server through it, if the broker says that.
pub(super) fn set_up(
    router: &dyn Backend,
    j: &mut Joined,
    lease: LeaseInfo,
    local: IpAddr,
    every: Option<Duration>,
) -> Result<(), WireError> {
    let name = j.spec.name.clone();
    let same = j.lease.as_ref().is_some_and(|old| {
        (old.id, &old.mode, old.server, old.server_port, old.server_inner, old.client_inner, &old.prefixes)
            == (
                lease.id,
                &lease.mode,
                lease.server,
                lease.server_port,
                lease.server_inner,
                lease.client_inner,
                &lease.prefixes,
            )
    });
    match (&j.lease, same) {
        (Some(_), true) if j.local == Some(local) => {}
        (Some(_), true) => {
            let change = TunnelChange { name: name.clone(), local: Some(local), ..TunnelChange::default() };
            router.call(Op::TunnelChange(Box::new(change)))?;
            tracing::info!(tunnel = name, %local, "this end has moved");
        }
        (before, _) => {
            // Another tunnel than before: the broker has forgotten the old one.
            if before.is_some() {
                take_down(router, j);
            }
            let text = line(router, j, &lease, local, every)?;
            let mut ops = vec![Op::TunnelAdd(Box::new(tunnel_spec(&text)?))];
            ops.push(Op::AddrReplace(AddrSpec { dev: name.clone(), addr: lease.client_inner }));
            if !j.spec.no_default {
                let all = if lease.client_inner.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" };
                let server = lease.server_inner.addr();
                match lease.client_inner.contains(&server) {
                    true => ops.push(Op::RouteReplace(route(&format!("{all} via {server} dev {name}"))?)),
                    false => ops.push(Op::RouteReplace(route(&format!("{all} dev {name}"))?)),
                }
            }
            for hole in holes(&lease) {
                ops.push(Op::RouteReplace(hole?));
            }
            if let (Some(lan), Some(addr)) = (&j.spec.lan, lan_address(&lease)) {
                ops.push(Op::AddrReplace(AddrSpec { dev: lan.clone(), addr }));
            }
            if let Err(e) = all(router, ops) {
                let _ = router.call(Op::TunnelDelete(name));
                return Err(e);
            }
            tracing::info!(tunnel = name, %local, server = %lease.server, mode = lease.mode, "tunnel from a broker");
        }
    }
    j.local = Some(local);
    j.lease = Some(lease);
    Ok(())
}

/// The command that makes the tunnel.
fn line(
    router: &dyn Backend,
    j: &Joined,
    lease: &LeaseInfo,
    local: IpAddr,
    every: Option<Duration>,
) -> Result<String, WireError> {
    let mut text = format!("tunnel add {} remote {} local {local}", j.spec.name, lease.server);
    let mut interval = every.unwrap_or(KEEPALIVE);
    match (lease.mode.as_str(), lease.server_port, &j.source) {
        ("6inudp4", Some(port), Source::Tsp(_)) => {
            // RFC 5572: the IPv6 packet follows the UDP header at once, in the flow of the conversation.
            let lost = || WireError::new("failed", "Error: the udp port for the tunnel is gone.", "");
            let door = here(router, j)?.door.ok_or_else(lost)?;
            let own = door.number;
            text += &format!(" mode 6in4 dev {} encap fou encap-dport {port} encap-rport {port}", door.name);
            text += &format!(" encap-port {own} encap-sport {own}");
        }
        (mode, port, _) => {
            text += &format!(" mode {mode}");
            if let Some(dev) = &j.spec.dev {
                text += &format!(" dev {dev}");
            }
            // The path decides, if the broker is ready for both, and this router has a way for UDP.
            if let (Some(port), "6in4") = (port, mode)
                && let Some(way) = way_for_udp(router, j)
            {
                text += &format!(" encap auto encap-dport {port} encap-port {port} encap-sport {port}{way}");
                interval = KEEPALIVE_AUTO;
            }
        }
    }
    // The first question opens the way in through a NAT, the others keep it open; without answers the routes give way to
    // others.
    let (target, ms) = (lease.server_inner.addr(), interval.as_millis());
    Ok(text + &format!(" keepalive {target} interval {ms} retries 3 hold 1"))
}

/// Words on how UDP leaves: as all else does, or by a `udp` port. None: not at all, because `dev` is for other protocols.
fn way_for_udp(router: &dyn Backend, j: &Joined) -> Option<String> {
    let Some(dev) = &j.spec.dev else { return Some(String::new()) };
    let links = links(router).ok()?;
    let over_host = links.iter().any(|l| l.name == *dev && l.kind.over_host());
    match links.iter().find(|l| l.kind == PortKind::Udp) {
        Some(udp) if over_host => Some(format!(" encap-dev {}", udp.name)),
        _ if over_host => None,
        _ => Some(String::new()),
    }
}

/// Takes back what [`set_up`] told.
pub(super) fn take_down(router: &dyn Backend, j: &Joined) {
    let _ = router.call(Op::TunnelDelete(j.spec.name.clone()));
    let Some(lease) = &j.lease else { return };
    if let (Some(lan), Some(addr)) = (&j.spec.lan, lan_address(lease)) {
        let _ = router.call(Op::AddrDelete(AddrSpec { dev: lan.clone(), addr }));
    }
    for hole in holes(lease).flatten() {
        let _ = router.call(Op::RouteDelete(hole));
    }
}

/// Routes for prefixes of which parts may be used nowhere: those must not go back through the tunnel (RFC 7084 WPD-5).
fn holes(lease: &LeaseInfo) -> impl Iterator<Item = Result<Box<RouteSpec>, WireError>> {
    let partly = lease.prefixes.iter().filter(|p| p.addr().is_ipv4() || p.prefix_len() < 64);
    partly.map(|p| route(&format!("unreachable {p} metric 4294967295")))
}

/// A route by its words.
fn route(text: &str) -> Result<Box<RouteSpec>, WireError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    parse_route_line(&words, None).map(Box::new).map_err(|e| WireError::new("invalid", e.line, ""))
}

/// The first /64 of the prefix, with this router as ::1.
fn lan_address(lease: &LeaseInfo) -> Option<IpNet> {
    let IpNet::V6(p) = lease.prefixes.first()? else { return None };
    let addr = Ipv6Addr::from_bits(p.network().to_bits() | 1);
    IpNet::new(IpAddr::V6(addr), 64).ok()
}
