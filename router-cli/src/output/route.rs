//! Routes, as `ip route` prints them, and the same routes as words that can be typed again.

use super::nexthop::nexthop_facts;
use super::out::{Out, Paint};
use crate::control::{GetInfo, RouteSelect, TableSelect, route_scope};
use crate::grammar::{Options, kind_name, names_scope, proto_name, scope_name, table_name};
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::{HopSpec, HopState, NextHopSpec, RouteInfo, RouteKind, RouteSpec, proto};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// Next-hop objects by number, for the `nh_info` line of `-d`.
pub type NextHops = BTreeMap<u32, NextHopSpec>;

fn discards(kind: RouteKind) -> bool {
    matches!(kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
}

/// A prefix as iproute2 writes it: `default`, a bare host address, or with its length.
fn prefix(net: &IpNet) -> String {
    match net {
        n if n.prefix_len() == 0 => "default".to_owned(),
        n if n.prefix_len() == n.max_prefix_len() => n.addr().to_string(),
        n => n.to_string(),
    }
}

/// One route. What the selector fixed is left out, as iproute2 does.
pub fn route(out: &mut Out<'_>, info: &RouteInfo, select: &RouteSelect, o: &Options, nh: &NextHops) -> io::Result<()> {
    let r = &info.route;
    let family = r.family();
    out.object(None)?;
    if r.kind != RouteKind::Unicast || o.details {
        out.str("type", "", kind_name(r.kind), " ", Paint::Plain)?;
    }
    out.str("dst", "", prefix(&r.dst), " ", Paint::addr(&r.dst.addr()))?;
    if let Some(from) = &r.from {
        out.str("from", "from ", prefix(from), " ", Paint::addr(&from.addr()))?;
    }
    if let Some(id) = r.nhid {
        out.num("nhid", "nhid ", id, " ")?;
    }
    let state = |i: usize| info.states.get(i).copied().unwrap_or_default();
    let single = match r.hops.as_slice() {
        [hop] => Some(hop),
        _ => None,
    };
    if let Some(hop) = single {
        if select.via.is_none() {
            gateway(out, hop, family)?;
        }
        if let Some(dev) = hop.dev.as_ref().filter(|_| select.dev.is_none()) {
            out.str("dev", "dev ", dev, " ", Paint::Name)?;
        }
    } else if r.hops.is_empty() && discards(r.kind) && (family == Family::Inet6 || r.nhid.is_some()) {
        // Linux hangs these on its loopback.
        out.str("dev", "dev ", "lo", " ", Paint::Name)?;
    }
    let table = r.table_id();
    if select.table == TableSelect::All && (table != TableId::MAIN || o.details) {
        out.str("table", "table ", table_name(table), " ", Paint::Plain)?;
    }
    let origin = r.proto.unwrap_or(proto::BOOT);
    if select.proto.is_none() && (origin != proto::BOOT || o.details) {
        out.str("protocol", "proto ", proto_name(origin), " ", Paint::Plain)?;
    }
    let scope = route_scope(r);
    if select.scope.is_none() && (scope != names_scope::GLOBAL || o.details) {
        out.str("scope", "scope ", scope_name(scope), " ", Paint::Plain)?;
    }
    if let Some(src) = r.src.filter(|_| select.src.is_none()) {
        out.str("prefsrc", "src ", src, " ", Paint::addr(&src))?;
    }
    let metric = shown_metric(r);
    if select.metric.is_none() && (metric != 0 || family == Family::Inet6) {
        out.num("metric", "metric ", metric, " ")?;
    }
    let flags = single.map_or_else(Vec::new, |hop| hop_flags(hop, state(0), o));
    write_flags(out, &flags)?;
    if r.mtu.is_some() || r.advmss.is_some() {
        out.array("metrics")?;
        out.object(None)?;
        if let Some(mtu) = r.mtu {
            out.num("mtu", "mtu ", mtu, " ")?;
        }
        if let Some(mss) = r.advmss {
            out.num("advmss", "advmss ", mss, " ")?;
        }
        out.end_object()?;
        out.end_array()?;
    }
    if let Some(name) = r.forwarder.as_ref().filter(|_| o.details) {
        out.str("forwarder", "forwarder ", name, " ", Paint::Plain)?;
    }
    if family == Family::Inet6 {
        out.str("pref", "pref ", "medium", "", Paint::Plain)?;
    }
    if let Some(object) = r.nhid.filter(|_| o.details).and_then(|id| nh.get(&id)) {
        out.newline()?;
        out.object(Some("nh_info"))?;
        out.text("\tnh_info ")?;
        nexthop_facts(out, object, true)?;
        out.end_object()?;
    }
    if r.hops.len() > 1 {
        out.array("nexthops")?;
        for (i, hop) in r.hops.iter().enumerate() {
            out.object(None)?;
            out.newline()?;
            out.text("\tnexthop ")?;
            gateway(out, hop, family)?;
            if let Some(dev) = &hop.dev {
                out.str("dev", "dev ", dev, " ", Paint::Name)?;
            }
            out.num("weight", "weight ", hop.weight, " ")?;
            write_flags(out, &hop_flags(hop, state(i), o))?;
            out.end_object()?;
        }
        out.end_array()?;
    }
    out.text("\n")?;
    out.end_object()
}

/// The metric as shown: IPv6's own addresses have 0, which no command can give.
fn shown_metric(r: &RouteSpec) -> u32 {
    match (r.metric, r.kind) {
        (Some(m), _) => m,
        (None, RouteKind::Local | RouteKind::Anycast) => 0,
        (None, _) => r.metric_or_default(),
    }
}

/// `via ADDRESS`, or `via FAMILY ADDRESS` when it is not the route's family.
fn gateway(out: &mut Out<'_>, hop: &HopSpec, route_family: Family) -> io::Result<()> {
    let Some(via) = hop.via else { return Ok(()) };
    let family = Family::of(&via);
    if family == route_family {
        return out.str("gateway", "via ", via, " ", Paint::addr(&via));
    }
    out.object(Some("via"))?;
    out.str("family", "via ", family, " ", Paint::Plain)?;
    out.str("host", "", via, " ", Paint::addr(&via))?;
    out.end_object()
}

fn hop_flags(hop: &HopSpec, state: HopState, o: &Options) -> Vec<&'static str> {
    let mut flags = Vec::new();
    if hop.onlink {
        flags.push("onlink");
    }
    match state {
        HopState::LinkDown => flags.push("linkdown"),
        HopState::Unresolved if o.details => flags.push("unresolved"),
        HopState::Unresolved | HopState::Active => {}
    }
    flags
}

fn write_flags(out: &mut Out<'_>, flags: &[&str]) -> io::Result<()> {
    out.words("flags", flags)?;
    for flag in flags {
        out.text(format_args!("{flag} "))?;
    }
    Ok(())
}

/// The answer of `route get`.
pub fn get(out: &mut Out<'_>, g: &GetInfo, o: &Options) -> io::Result<()> {
    let family = Family::of(&g.dst);
    out.object(None)?;
    if g.kind != RouteKind::Unicast || o.details {
        out.str("type", "", kind_name(g.kind), " ", Paint::Plain)?;
    }
    out.str("dst", "", g.dst, " ", Paint::addr(&g.dst))?;
    match (g.from, family) {
        (Some(from), _) => out.str("from", "from ", from, " ", Paint::addr(&from))?,
        (None, Family::Inet6) => out.str("from", "from ", "::", " ", Paint::Inet6)?,
        (None, Family::Inet) => {}
    }
    if let Some(hop) = &g.hop {
        gateway(out, hop, family)?;
        // Own addresses are reached over the loopback, as Linux says it.
        let dev = if g.kind == RouteKind::Local { Some("lo") } else { hop.dev.as_deref() };
        if let Some(dev) = dev {
            out.str("dev", "dev ", dev, " ", Paint::Name)?;
        }
    }
    if o.details || (family == Family::Inet && g.table != TableId::MAIN && g.table != TableId::LOCAL) {
        out.str("table", "table ", table_name(g.table), " ", Paint::Plain)?;
    }
    if family == Family::Inet6 && g.proto != proto::BOOT {
        out.str("protocol", "proto ", proto_name(g.proto), " ", Paint::Plain)?;
    }
    if let Some(src) = g.src.filter(|s| Some(*s) != g.from) {
        out.str("prefsrc", "src ", src, " ", Paint::addr(&src))?;
    }
    if family == Family::Inet6 {
        out.num("metric", "metric ", g.metric, " ")?;
    }
    write_flags(out, &[])?;
    if family == Family::Inet {
        out.num("uid", "uid ", rustix::process::getuid().as_raw(), " ")?;
        out.newline()?;
        let cache: &[&str] = match g.kind {
            RouteKind::Local => &["local"],
            RouteKind::Broadcast => &["local", "brd"],
            _ => &[],
        };
        out.words("cache", cache)?;
        out.text("    cache ")?;
        if !cache.is_empty() {
            out.text(format_args!("<{}> ", cache.join(",")))?;
        }
    }
    if let Some(mtu) = g.mtu {
        out.array("metrics")?;
        out.object(None)?;
        out.num("mtu", "mtu ", mtu, " ")?;
        out.end_object()?;
        out.end_array()?;
    }
    if let Some(iif) = &g.iif {
        out.str("iif", "iif ", iif, " ", Paint::Name)?;
    }
    if family == Family::Inet6 {
        out.str("pref", "pref ", "medium", "", Paint::Plain)?;
    }
    out.text("\n")?;
    out.end_object()
}

/// A route as one line of the grammar, everything spelled out: what `route save` writes and a configuration may hold.
pub fn route_line(r: &RouteSpec) -> String {
    let mut line = String::new();
    let mut word = |text: &str| {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(text);
    };
    if r.kind != RouteKind::Unicast {
        word(kind_name(r.kind));
    }
    word(&r.dst.to_string());
    if let Some(from) = &r.from {
        word(&format!("from {from}"));
    }
    if let Some(vrf) = &r.vrf {
        word(&format!("vrf {vrf}"));
    }
    if let Some(id) = r.nhid {
        word(&format!("nhid {id}"));
    }
    let table = r.table_id();
    if r.table.is_some() && table != TableId::MAIN {
        word(&format!("table {}", table_name(table)));
    }
    if let Some(p) = r.proto {
        word(&format!("proto {}", proto_name(p)));
    }
    if let Some(src) = r.src {
        word(&format!("src {src}"));
    }
    let default = RouteSpec { metric: None, ..r.clone() }.metric_or_default();
    if let Some(metric) = r.metric.filter(|m| *m != default) {
        word(&format!("metric {metric}"));
    }
    if let Some(mtu) = r.mtu {
        word(&format!("mtu {mtu}"));
    }
    if let Some(name) = &r.forwarder {
        word(&format!("forwarder {name}"));
    }
    let hops = if r.nhid.is_some() { &[][..] } else { &r.hops[..] };
    for hop in hops {
        if hops.len() > 1 {
            word("nexthop");
        }
        match hop.via {
            Some(IpAddr::V6(a)) => word(&format!("via inet6 {a}")),
            Some(IpAddr::V4(a)) => word(&format!("via inet {a}")),
            None => {}
        }
        if let Some(dev) = &hop.dev {
            word(&format!("dev {dev}"));
        }
        if hops.len() > 1 {
            word(&format!("weight {}", hop.weight));
        }
        if hop.onlink {
            word("onlink");
        }
    }
    line
}

/// A hop's words in a line about a route: `via ADDRESS dev PORT `, the family named where it is not the route's.
pub(super) fn hop_words(hop: &HopSpec, route_family: Family) -> String {
    let mut line = String::new();
    if let Some(via) = hop.via {
        let family = Family::of(&via);
        let named = if family == route_family { String::new() } else { format!("{family} ") };
        line.push_str(&format!("via {named}{via} "));
    }
    if let Some(dev) = &hop.dev {
        line.push_str(&format!("dev {dev} "));
    }
    if hop.onlink {
        line.push_str("onlink ");
    }
    line
}
