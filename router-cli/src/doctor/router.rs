//! What is wrong within the router: tunnels, next hops, routes, MTUs.

use super::{Finding, Severity};
use crate::grammar::{nud_name, table_name};
use crate::output::route_line;
use crate::topology::Topology;
use router_core::port::TableId;
use router_core::spec::{HopState, NudState, RouteSpec};
use std::net::IpAddr;

pub(super) fn look(t: &Topology) -> Vec<Finding> {
    let mut out = Vec::new();
    tunnels(t, &mut out);
    next_hops(t, &mut out);
    routes(t, &mut out);
    mtus(t, &mut out);
    errors_without_address(t, &mut out);
    out
}

fn tunnels(t: &Topology, out: &mut Vec<Finding>) {
    for tunnel in &t.tunnels {
        let (name, remote) = (&tunnel.tunnel.name, tunnel.tunnel.remote);
        if let Some(Err(why)) = t.carriers.get(name) {
            out.push(Finding::new(
                Severity::Error,
                "tunnel-without-path",
                format!("tunnel \"{name}\" has no path to its remote {remote}: what is routed into it is dropped"),
                format!("route get {remote}: {why}"),
                format!("duet route add {remote} via GATEWAY dev PORT"),
            ));
            continue;
        }
        if tunnel.totals.tx_packets >= 10 && tunnel.totals.rx_packets == 0 {
            out.push(Finding::new(
                Severity::Warning,
                "tunnel-one-way",
                format!("tunnel \"{name}\" sends and never hears: {} may be blocked on the way, or the other end does not know this one", wire(&tunnel.tunnel)),
                format!("{} packets sent to {remote}, none received from it", tunnel.totals.tx_packets),
                format!("ask the other end whether its remote is {}, and the firewalls and NATs between to pass {}", tunnel.tunnel.local, wire(&tunnel.tunnel)),
            ));
        }
        let owned = t.links.iter().any(|l| l.name != *name && l.addrs.iter().any(|a| a.addr() == tunnel.tunnel.local));
        if !owned {
            out.push(Finding::new(
                Severity::Error,
                "tunnel-local-address",
                format!("tunnel \"{name}\" has a local address that no port has: its peer's packets never arrive here"),
                format!("local {}; no port owns it", tunnel.tunnel.local),
                format!("duet addr add {}/LENGTH dev PORT", tunnel.tunnel.local),
            ));
        }
    }
}

fn next_hops(t: &Topology, out: &mut Vec<Finding>) {
    for (way, used) in &t.ways {
        let via = way.via.map(|v| format!("via {v} ")).unwrap_or_default();
        let dev = way.dev.as_deref().map(|d| format!("dev {d}")).unwrap_or_default();
        let example = used.example.as_ref().map(|e| route_line(&e.route)).unwrap_or_default();
        if used.unusable > 0 {
            let name = way.dev.as_deref().unwrap_or("PORT");
            let (what, mend) = match used.state {
                HopState::LinkDown => ("its port is down", format!("duet link set {name} up, or look at its cable")),
                _ => (
                    "no route leads to it",
                    format!("duet route get {}", way.via.map_or_else(|| "ADDRESS".into(), |v| v.to_string())),
                ),
            };
            let severity = if used.unusable == used.routes { Severity::Error } else { Severity::Warning };
            out.push(Finding::new(
                severity,
                "next-hop-unusable",
                format!("{} of {} routes {via}{dev} cannot be used: {what}", used.unusable, used.routes),
                format!("such as {example}"),
                mend,
            ));
            continue;
        }
        let failed = t.neighs.iter().find(|n| {
            Some(n.neigh.addr) == way.via
                && Some(&n.neigh.dev) == way.dev.as_ref()
                && n.neigh.state == Some(NudState::Failed)
        });
        if let (Some(n), Some(address)) = (failed, way.via) {
            out.push(Finding::new(
                Severity::Error,
                "next-hop-silent",
                format!("the gateway {address} on {} does not answer: {} routes go there", n.neigh.dev, used.routes),
                format!("{address} dev {} {}", n.neigh.dev, nud_name(NudState::Failed).to_uppercase()),
                format!("duet neigh show dev {}; look at that machine, its address and the link's VLAN", n.neigh.dev),
            ));
        }
        if let Some(IpAddr::V6(a)) = way.via
            && !a.is_unicast_link_local()
            && used.routes > 0
            && t.link(way.dev.as_deref().unwrap_or("")).is_some_and(|l| l.addrs.iter().all(|n| n.addr().is_ipv4()))
        {
            out.push(Finding::new(
                Severity::Error,
                "next-hop-family",
                format!(
                    "{} routes go via {a} on {}, which has no IPv6 address to ask for neighbours from",
                    used.routes,
                    way.dev.as_deref().unwrap_or("")
                ),
                format!("such as {example}"),
                format!(
                    "leave link_local on in [port.{}] or give it an IPv6 address",
                    way.dev.as_deref().unwrap_or("")
                ),
            ));
        }
    }
}

fn routes(t: &Topology, out: &mut Vec<Finding>) {
    if t.hidden.count > 0 {
        let examples: Vec<String> = t.hidden.examples.iter().map(|i| route_line(&i.route)).collect();
        let first = t.hidden.examples.first().map(|i| i.route.dst.to_string()).unwrap_or_default();
        out.push(Finding::new(
            Severity::Note,
            "route-hidden",
            format!("usable routes that another one to the same prefix keeps out of use: {}", t.hidden.count),
            format!("such as {}", examples.join("; ")),
            format!("duet route show exact {first} table all; remove what is not meant as a reserve"),
        ));
    }
    let used = |table: TableId| {
        t.links.iter().any(|l| l.table == table) || t.tunnels.iter().any(|x| x.tunnel.underlay_table == Some(table))
    };
    let always = [TableId::MAIN, TableId::LOCAL, TableId::DEFAULT];
    for table in t.tables.iter().filter(|x| !always.contains(x) && !used(**x)) {
        let name = table_name(*table);
        out.push(Finding::new(
            Severity::Warning,
            "table-unused",
            format!("nothing ever looks into table {name}: no port and no tunnel uses it"),
            format!("routes in table {name}, and no port with table = {name}"),
            format!("write table = {name} into a port's section, or duet route flush table {name}"),
        ));
    }
}

fn mtus(t: &Topology, out: &mut Vec<Finding>) {
    if let Some(info) = t.large_mtu.examples.first() {
        out.push(Finding::new(
            Severity::Warning,
            "mtu-route",
            format!("{} routes have an MTU above their port's, which has the last word", t.large_mtu.count),
            format!("such as {}", route_line(&info.route)),
            format!("duet route change {}", route_line(&RouteSpec { mtu: None, ..info.route.clone() })),
        ));
    }
    for tunnel in &t.tunnels {
        let Some(Ok(way)) = t.carriers.get(&tunnel.tunnel.name) else { continue };
        let Some(carrier) = way.dev.as_deref().and_then(|d| t.link(d)) else { continue };
        let (added, least) = (tunnel.tunnel.overhead(), tunnel.tunnel.mode.shape().least_mtu());
        let room = carrier.mtu.saturating_sub(added);
        let name = &tunnel.tunnel.name;
        if let Some(fixed) = tunnel.tunnel.mtu.filter(|m| *m > room) {
            let (severity, result) = match tunnel.tunnel.nopmtudisc {
                true => (Severity::Warning, "its packets are fragmented"),
                false => (Severity::Note, "the smaller one is used"),
            };
            out.push(Finding::new(
                severity,
                "mtu-tunnel",
                format!("tunnel \"{name}\" has an MTU that its carrier {} has no room for: {result}", carrier.name),
                format!("mtu {fixed} + {added} > mtu {} of {}", carrier.mtu, carrier.name),
                format!("duet link set {name} mtu {room}"),
            ));
        }
        if room < least {
            out.push(Finding::new(
                Severity::Warning,
                "mtu-carrier",
                format!("tunnel \"{name}\" is carried by {}, whose MTU leaves less than the {least} bytes that IPv6 needs (RFC 8200 5): outer packets are fragmented", carrier.name),
                format!("mtu {} of {} - {added} = {room}", carrier.mtu, carrier.name),
                format!("duet link set {} mtu {}", carrier.name, least + added),
            ));
        }
    }
}

/// What firewalls see of a tunnel.
fn wire(t: &router_core::spec::TunnelSpec) -> String {
    match (&t.options.udp, t.mode.shape().hears) {
        (Some(u), _) => format!("UDP port {}", u.dport),
        (None, [one]) => format!("IP protocol {one}"),
        (None, list) => {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("IP protocols {}", list.join(" and "))
        }
    }
}

fn errors_without_address(t: &Topology, out: &mut Vec<Finding>) {
    let v4 = t.links.iter().any(|l| l.addrs.iter().any(|a| a.addr().is_ipv4() && !a.addr().is_loopback()));
    if t.v4_via_v6 > 0 && !v4 {
        out.push(Finding::new(
            Severity::Note,
            "icmp-from-192.0.0.8",
            "this router has no IPv4 address: its ICMPv4 errors come from 192.0.0.8 (RFC 7600), which hosts with rp_filter may drop",
            format!("{} routes send IPv4 over IPv6 next hops; no port has an IPv4 address", t.v4_via_v6),
            "write router_id = \"ADDRESS\" into [router], or on such hosts: sysctl -w net.ipv4.conf.all.rp_filter=0",
        ));
    }
}
