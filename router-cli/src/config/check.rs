//! What a configuration must fulfil across its sections.

use super::parse::Places;
use super::plan::Plan;
use super::problem::{Problems, nearest};
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::headers::protocol;
use router_core::port::PortKind;
use router_core::spec::{HopSpec, NextHopKind, NextHopSpec, RouteSpec};
use router_core::tunnel::mode::Between;
use router_io::port::xdp::XdpOptions;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;

pub(super) fn check(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    names(plan, places, problems);
    super::translate::check(plan, places, problems);
    super::filter::check(plan, places, problems);
    ports(plan, places, problems);
    addresses(plan, places, problems);
    references(plan, places, problems);
    duplicates(plan, places, problems);
}

fn place<K: PartialEq + ?Sized>(list: &[(impl std::borrow::Borrow<K>, Range<usize>)], key: &K) -> Range<usize> {
    list.iter().find(|(k, _)| k.borrow() == key).map_or(0..0, |(_, s)| s.clone())
}

fn names(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    for (name, span) in &places.tunnels {
        if plan.ports.contains_key(name) {
            problems.add(span.clone(), format!("\"{name}\" is a port and a tunnel"), "rename one of them");
        }
        if name == "lo" {
            problems.add(span.clone(), "\"lo\" is the router's loopback", "give the tunnel another name");
        }
    }
}

fn ports(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    let mut devices: HashMap<(String, Option<u16>), &str> = HashMap::new();
    let (mut all_devices, mut xdp_devices) = (HashSet::new(), HashSet::new());
    for (name, p) in &plan.ports {
        let span = place::<str>(&places.ports, name);
        let mut wrong =
            |message: String, remedy: &str| problems.add(span.clone(), format!("[port.{name}] {message}"), remedy);
        let ethernet = matches!(
            p.kind,
            PortKind::Packet | PortKind::Xdp | PortKind::Auto | PortKind::Datalink | PortKind::Memory | PortKind::Pcap
        );
        if (p.kind == PortKind::Loopback) != (name == "lo") {
            wrong("mixes up the loopback".into(), "kind = \"loopback\" goes with [port.lo] and only there");
        }
        for (key, there) in [("vlan", p.vlan.is_some()), ("mac", p.mac.is_some()), ("promisc", p.promisc)] {
            if there && !ethernet {
                wrong(format!("of kind {} has {key}", p.kind), "only ports with Ethernet frames have it: leave it out");
            }
        }
        // What speaks to the hosts of a link must have one.
        let settings = &plan.settings;
        for (key, there, what) in [
            ("acd", settings.neighbor.acd_ports.get(name) == Some(&true), "ARP probes"),
            ("advertise", settings.adverts.contains_key(name), "router advertisements"),
            ("irdp", settings.irdp.contains_key(name), "router discovery"),
        ] {
            if there && !ethernet && p.kind != PortKind::Tap {
                wrong(
                    format!("of kind {} has {key}", p.kind),
                    &format!("{what} need Ethernet frames, which this port has not: leave it out"),
                );
            }
        }
        if p.kind == PortKind::Pcap && p.input.is_none() && p.output.is_none() {
            wrong("has neither input nor output".into(), "write input = \"in.pcap\", output = \"out.pcap\" or both");
        }
        if p.kind == PortKind::Xdp && p.share_with_kernel {
            wrong(
                "of kind xdp has share_with_kernel".into(),
                "it takes every frame from the kernel; use kind = \"packet\"",
            );
        }
        if !matches!(p.kind, PortKind::Packet | PortKind::Auto) && p.qdisc_bypass {
            wrong(format!("of kind {} has qdisc_bypass", p.kind), "it belongs to kind = \"packet\"");
        }
        if !matches!(p.kind, PortKind::Xdp | PortKind::Auto) && p.xdp != XdpOptions::default() {
            wrong(
                format!("of kind {} has xdp_mode, zero_copy or busy_poll", p.kind),
                "they belong to kind = \"xdp\" or \"auto\"",
            );
        }
        if p.kind != PortKind::Pcap && (p.input.is_some() || p.output.is_some()) {
            wrong(format!("of kind {} has a capture file", p.kind), "input and output belong to kind = \"pcap\"");
        }
        if !p.kind.makes_device() && !p.host_address.is_empty() {
            wrong(format!("of kind {} has host_address", p.kind), "it belongs to kind = \"tun\" or \"tap\"");
        }
        if !p.kind.over_host() && p.kind != PortKind::Wireguard && p.local.is_some() {
            wrong(
                format!("of kind {} has local", p.kind),
                "it belongs to kind = \"rawip\", \"udp\" or \"wireguard\"; a port's own addresses are in address",
            );
        }
        match (p.kind == PortKind::Udp, p.listen.is_empty()) {
            (true, true) => wrong("of kind udp listens nowhere".into(), "write listen = [6080]: its UDP ports"),
            (false, false) => wrong(format!("of kind {} has listen", p.kind), "it belongs to kind = \"udp\""),
            _ => {}
        }
        let v6 = p.address.iter().any(|a| Family::of_net(a) == Family::Inet6);
        if v6 && p.mtu.is_some_and(|m| m < 1280) {
            wrong("has an IPv6 address and an MTU below 1280 (RFC 8200 5)".into(), "raise mtu or remove the address");
        }
        if matches!(p.kind, PortKind::Packet | PortKind::Datalink | PortKind::Xdp | PortKind::Auto) {
            let device = p.device.clone().unwrap_or_else(|| name.clone());
            if p.kind == PortKind::Xdp || xdp_devices.contains(&device) {
                if all_devices.contains(&device) {
                    wrong(
                        format!("shares device {device} with another port"),
                        "an xdp port has its device alone; several VLANs of a device need kind = \"packet\"",
                    );
                    continue;
                }
                xdp_devices.insert(device.clone());
            }
            all_devices.insert(device.clone());
            if let Some(other) = devices.insert((device.clone(), p.vlan), name) {
                wrong(format!("uses device {device} like [port.{other}]"), "one port per device and VLAN");
            }
        }
    }
}

fn addresses(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    let mut owners: HashMap<(IpAddr, u32), &str> = HashMap::new();
    let ports = plan.ports.iter().map(|(n, p)| (n, &p.address, p.table.0, place::<str>(&places.ports, n)));
    let main = router_core::port::TableId::MAIN.0;
    let tunnels = plan.tunnels.iter().map(|(n, t)| (n, &t.address, main, place::<str>(&places.tunnels, n)));
    for (name, list, table, span) in ports.chain(tunnels) {
        for addr in list.iter().map(IpNet::addr) {
            // Link-local addresses may be the same on every link.
            let local = matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local());
            if let Some(other) = owners.insert((addr, table), name).filter(|_| !local) {
                problems.add(
                    span.clone(),
                    format!("{name} and {other} both have the address {addr}"),
                    "remove it from one",
                );
            }
        }
    }
}

/// Devices and next-hop objects that lines name must be there.
fn references(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    let known = |dev: &str| {
        let (ports, tunnels, translators) = (&plan.ports, &plan.tunnels, &plan.translators);
        dev == "lo"
            || plan.vrfs.contains_key(dev)
            || ports.contains_key(dev)
            || tunnels.contains_key(dev)
            || translators.contains_key(dev)
    };
    let remedy = |dev: &str| match nearest(dev, plan.ports.keys().chain(plan.tunnels.keys()).map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("add [port.{dev}] or [tunnel.{dev}]"),
    };
    let hops = |hops: &[HopSpec], span: &Range<usize>, problems: &mut Problems<'_>| {
        for dev in hops.iter().filter_map(|h| h.dev.as_deref()).filter(|d| !known(d)) {
            problems.add(span.clone(), format!("Cannot find device \"{dev}\""), remedy(dev));
        }
    };
    for (route, span) in plan.routes.iter().zip(&places.routes) {
        hops(&route.hops, span, problems);
        if let Some(id) = route.nhid.filter(|id| !plan.nexthops.contains_key(id)) {
            problems.add(
                span.clone(),
                format!("next hop {id} is not in [nexthop]"),
                format!("add {id} = \"via ... dev ...\""),
            );
        }
    }
    for (n, span) in plan.neighs.iter().zip(&places.neighs) {
        if !known(&n.dev) {
            problems.add(span.clone(), format!("Cannot find device \"{}\"", n.dev), remedy(&n.dev));
        }
    }
    for (id, NextHopSpec { kind, resilient, .. }) in &plan.nexthops {
        let span = place(&places.nexthops, id);
        if resilient.as_ref().is_some_and(|r| r.buckets.is_none()) {
            problems.add(span.clone(), format!("resilient group {id} has no number of buckets"), "say buckets N");
        }
        match kind {
            NextHopKind::Hop(h) => hops(std::slice::from_ref(h), &span, problems),
            NextHopKind::Group(members) => {
                for (member, _) in members {
                    match plan.nexthops.get(member).map(|n| &n.kind) {
                        None => problems.add(
                            span.clone(),
                            format!("group {id} has member {member}, which is not in [nexthop]"),
                            "",
                        ),
                        Some(NextHopKind::Group(_)) => {
                            let message = format!("group {id} has member {member}, which is a group itself");
                            problems.add(span.clone(), message, "name its members instead");
                        }
                        Some(_) => {}
                    }
                }
            }
            NextHopKind::Blackhole => {}
        }
    }
    let mut ends: HashMap<_, &str> = HashMap::new();
    for (name, t) in &plan.tunnels {
        let span = place::<str>(&places.tunnels, name);
        if let Some(dev) = &t.spec.dev {
            if dev == name {
                problems.add(span.clone(), format!("[tunnel.{name}] is carried by itself"), "name another port in dev");
            } else if !known(dev) {
                problems.add(span.clone(), format!("[tunnel.{name}]: Cannot find device \"{dev}\""), remedy(dev));
            }
        }
        let o = &t.spec.options;
        // Tunnels are told apart by their outer protocol and their ends, in UDP by their ports, too.
        let follows = (&o.local_dev, &o.remote_name);
        // And GRE by its key, too (RFC 2890 2.1).
        let gre = t.spec.mode.shape().between == Between::Gre;
        let same = router_core::router::tunnel_hears(&t.spec).filter_map(|p| {
            let key = (p.0 == protocol::GRE).then_some(o.gre.ikey);
            let other = ends.insert((p, t.spec.local, t.spec.remote, follows, t.spec.underlay_table, key), name);
            other.map(|o| (o, key))
        });
        if let Some((other, key)) = same.last() {
            let and = match key {
                Some(Some(key)) => format!(" and the key {key}"),
                Some(None) => " and no key".to_owned(),
                None => String::new(),
            };
            let message = format!("[tunnel.{name}] has the same ends{and} as [tunnel.{other}]");
            let change =
                if gre { "change local or remote, or give each its own key" } else { "change local or remote" };
            problems.add(span, message, format!("packets could not be told apart: {change}"));
        }
    }
}

fn duplicates(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    let mut seen: HashMap<_, &Range<usize>> = HashMap::new();
    for (route, span) in plan.routes.iter().zip(&places.routes) {
        if let Some(first) = seen.insert(key(route), span) {
            let line = problems.line_of(first.start);
            problems.add(
                span.clone(),
                format!("the route to {} is there already, in line {line}", route.dst),
                "give one another metric, or join them with nexthop",
            );
        }
    }
    let mut seen: HashMap<_, &Range<usize>> = HashMap::new();
    for (n, span) in plan.neighs.iter().zip(&places.neighs) {
        if let Some(first) = seen.insert((n.addr, &n.dev), span) {
            let line = problems.line_of(first.start);
            problems.add(
                span.clone(),
                format!("the neighbour {} is there already, in line {line}", n.addr),
                "leave out one",
            );
        }
    }
}

/// What makes a route this one and no other.
pub(super) fn key(route: &RouteSpec) -> (router_core::port::TableId, IpNet, Option<IpNet>, u32) {
    (route.table_id(), route.dst, route.from, route.metric_or_default())
}
