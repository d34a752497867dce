//! The control plane as its users see it: commands in, lookups and shown routes out.

mod counting;
mod linux;
mod next_hops;
mod publication;
mod resolution;
mod sources;

use super::*;
use crate::addr::{MacAddr, parse_prefix};
use crate::port::{Medium, PortCaps, PortInfo, PortKind};
use crate::spec::{HopSpec, RouteKind, RouteOp, RouteSpec, TunnelMode};
use std::net::IpAddr;

pub(super) const LAN0: PortId = PortId(1);
pub(super) const LAN1: PortId = PortId(2);
pub(super) const TUN0: PortId = PortId(3);
pub(super) const HE: PortId = PortId(4);

/// A port with these addresses, up.
pub(super) fn port(id: PortId, name: &str, medium: Medium, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id,
        name: name.into(),
        ifindex: id.0 + 1,
        kind: if medium == Medium::Ip { PortKind::Tun } else { PortKind::Memory },
        medium,
        mac: (medium == Medium::Ethernet).then_some(MacAddr([2, 0, 0, 0, 0, id.0 as u8])),
        mtu: 1500,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| crate::addr::parse_interface_addr(a).unwrap()).collect(),
    }
}

/// Two Ethernet links and a TUN device.
pub(super) fn lab() -> Routing {
    let mut r = Routing::new(1);
    r.set_port(Arc::new(port(LAN0, "lan0", Medium::Ethernet, &["10.0.0.1/24", "2001:db8::1/64", "fe80::1/64"])));
    r.set_port(Arc::new(port(LAN1, "lan1", Medium::Ethernet, &["10.0.1.1/24", "2001:db8:1::1/64", "fe80::2/64"])));
    r.set_port(Arc::new(port(TUN0, "tun0", Medium::Ip, &["10.0.2.1/24"])));
    settle(&mut r);
    r
}

/// Sets a port's state.
pub(super) fn set_up(r: &mut Routing, id: PortId, up: bool) {
    let mut info = PortInfo::clone(r.facts.port(id).unwrap());
    info.up = up;
    r.set_port(Arc::new(info));
}

/// Commits everything and drops the snapshots at once.
pub(super) fn settle(r: &mut Routing) {
    r.commit(drop);
}

/// A route in a few words of iproute2's grammar, as far as tests need it.
pub(super) fn spec(text: &str) -> RouteSpec {
    let mut words = text.split_whitespace().peekable();
    let kind = match words.peek().copied().unwrap() {
        "blackhole" => RouteKind::Blackhole,
        "unreachable" => RouteKind::Unreachable,
        "prohibit" => RouteKind::Prohibit,
        "throw" => RouteKind::Throw,
        _ => RouteKind::Unicast,
    };
    if kind != RouteKind::Unicast {
        words.next();
    }
    let mut s = RouteSpec::new(parse_prefix(words.next().unwrap()).unwrap());
    s.kind = kind;
    let hop = |s: &mut RouteSpec| {
        if s.hops.is_empty() {
            s.hops.push(HopSpec { weight: 1, ..HopSpec::default() });
        }
    };
    while let Some(word) = words.next() {
        let mut arg = || words.next().unwrap();
        match word {
            "nexthop" => s.hops.push(HopSpec { weight: 1, ..HopSpec::default() }),
            "via" => {
                let via = arg().parse::<IpAddr>().unwrap();
                hop(&mut s);
                s.hops.last_mut().unwrap().via = Some(via);
            }
            "dev" => {
                let dev = arg().to_owned();
                hop(&mut s);
                s.hops.last_mut().unwrap().dev = Some(dev);
            }
            "weight" => s.hops.last_mut().unwrap().weight = arg().parse().unwrap(),
            "onlink" => s.hops.last_mut().unwrap().onlink = true,
            "metric" => s.metric = Some(arg().parse().unwrap()),
            "table" => s.table = Some(TableId(arg().parse().unwrap())),
            "proto" => s.proto = Some(arg().parse().unwrap()),
            "mtu" => s.mtu = Some(arg().parse().unwrap()),
            "src" => s.src = Some(arg().parse().unwrap()),
            "nhid" => s.nhid = Some(arg().parse().unwrap()),
            "forwarder" => s.forwarder = Some(arg().to_owned()),
            other => panic!("{other}"),
        }
    }
    s
}

/// `add X`, `del X` ...: the command as iproute2 has it, then a commit. Errors are the printed line.
pub(super) fn ip(r: &mut Routing, command: &str) -> Result<(), String> {
    let (op, rest) = command.split_once(' ').unwrap();
    let op = match op {
        "add" => RouteOp::Add,
        "replace" => RouteOp::Replace,
        "change" => RouteOp::Change,
        "append" => RouteOp::Append,
        "prepend" => RouteOp::Prepend,
        "del" => RouteOp::Delete,
        other => panic!("{other}"),
    };
    let done = r.route(op, &spec(rest)).map_err(|e| e.to_string());
    settle(r);
    done
}

/// What the data plane finds for a destination, in words: `incomplete lan0 10.0.0.2`, `forward tun0` ...
pub(super) fn found_in(r: &Routing, table: TableId, dst: &str) -> String {
    let tables = &r.held.back().unwrap().1;
    let id = tables.lookup(table, &dst.parse().unwrap());
    describe(r, tables, id)
}

pub(super) fn found(r: &Routing, dst: &str) -> String {
    found_in(r, TableId::MAIN, dst)
}

pub(super) fn describe(r: &Routing, tables: &RoutingTables, id: ObjectId) -> String {
    let name = |p: PortId| r.facts.port_name(p);
    match tables.objects.get(id) {
        None => format!("missing {}", id.0),
        Some(Object::Discard(reason)) => reason.name().to_owned(),
        Some(Object::Local) => "local".into(),
        Some(Object::Broadcast) => "broadcast".into(),
        Some(Object::Glean(g)) => format!("glean {}", name(g.port)),
        Some(Object::Forward(f)) => {
            let via = f.gateway.map_or_else(String::new, |g| format!(" {g}"));
            let to = f.rewrite.dst().map_or_else(String::new, |m| format!(" {m}"));
            format!("forward {}{via}{to} mtu {}", name(f.port), f.mtu)
        }
        Some(Object::Incomplete(i)) => format!("incomplete {} {}", name(i.port), i.gateway),
        Some(Object::Encap(e)) => format!("encap {} [{}]", name(e.tunnel), describe(r, tables, e.carrier)),
        Some(Object::Group(g)) => {
            let mut members: Vec<(ObjectId, usize)> = Vec::new();
            for b in g.buckets.iter() {
                match members.iter_mut().find(|(id, _)| id == b) {
                    Some((_, n)) => *n += 1,
                    None => members.push((*b, 1)),
                }
            }
            let d = members.iter().fold(0, |d, (_, n)| crate::next_hop::buckets::gcd(d, *n as u64)) as usize;
            let words = members.iter().map(|(id, n)| format!("{}*{}", n / d.max(1), describe(r, tables, *id)));
            format!("group({})", words.collect::<Vec<_>>().join(", "))
        }
        Some(Object::Table(t)) => format!("table {}", t.0),
        Some(Object::Sources(s)) => {
            let list = s.list.iter().map(|(net, id)| format!("from {net} {}; ", describe(r, tables, *id)));
            format!("{}else {}", list.collect::<String>(), describe(r, tables, s.otherwise))
        }
        Some(Object::Plugin(p)) => format!("plugin {} [{}]", p.forwarder.name(), describe(r, tables, p.next)),
        Some(Object::Counted(c)) => format!("counted {}", describe(r, tables, c.next)),
    }
}

/// The routes of a table as lines, in the order shown.
pub(super) fn shown(r: &Routing, filter: &RouteFilter) -> Vec<String> {
    let line = |i: crate::spec::RouteInfo| {
        let s = i.route;
        let mut t = match s.kind {
            RouteKind::Unicast => String::new(),
            k => format!("{k:?} ").to_lowercase(),
        };
        t += &s.dst.to_string();
        for (h, state) in s.hops.iter().zip(&i.states) {
            t += if s.hops.len() > 1 { " nexthop" } else { "" };
            t += &h.via.map_or_else(String::new, |v| format!(" via {v}"));
            t += &h.dev.as_ref().map_or_else(String::new, |d| format!(" dev {d}"));
            t += if *state == crate::spec::HopState::Active { "" } else { " dead" };
        }
        t += &s.metric.filter(|m| *m > 0).map_or_else(String::new, |m| format!(" metric {m}"));
        t += if i.selected { " *" } else { "" };
        t
    };
    r.page(filter, None, usize::MAX).0.into_iter().map(line).collect()
}

/// As [`shown`], one family of the main table without what the router made itself.
pub(super) fn added(r: &Routing, family: crate::addr::Family) -> Vec<String> {
    let filter = RouteFilter { family: Some(family), table: Some(TableId::MAIN), ..RouteFilter::default() };
    let kernel = shown(r, &RouteFilter { proto: Some(crate::spec::proto::KERNEL), ..filter.clone() });
    shown(r, &filter).into_iter().filter(|l| !kernel.contains(l)).collect()
}

pub(super) fn encap(remote: &str) -> EncapFacts {
    EncapFacts {
        mtu: 1480,
        ..EncapFacts::new(TunnelMode::SixInFour, "10.0.0.1".parse().unwrap(), remote.parse().unwrap())
    }
}

/// Adds the tunnel `he`.
pub(super) fn add_tunnel(r: &mut Routing, id: PortId, name: &str, remote: &str) {
    let mut info = port(id, name, Medium::Ip, &["2001:db8:ffff::2/64"]);
    info.kind = PortKind::Tunnel;
    r.set_port(Arc::new(info));
    r.set_tunnel(id, encap(remote));
    settle(r);
}

pub(super) fn learn(r: &mut Routing, port: PortId, addr: &str, last: u8) {
    r.set_neighbor(port, addr.parse().unwrap(), Some((MacAddr([2, 0, 0, 0, 9, last]), Arc::default())));
    settle(r);
}
