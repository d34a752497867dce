//! Rules against a model that reads them as written, and the fast path against the general one.

use super::*;
use crate::addr::{Family, MacAddr};
use crate::counters::WorkerCounters;
use crate::frame::{Frame, FramePool};
use crate::headers::{ipv4, protocol};
use crate::neighbor::SetMode;
use crate::object::Object;
use crate::observe::Observer;
use crate::packet::Packet;
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::router::Router;
use crate::settings::Settings;
use crate::spec::{HopSpec, NeighSpec, RouteKind, RouteOp, RouteSpec};
use crate::time::Instant;
use crate::worker::{Fixed, Outbox, Worker};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const NOW: Instant = Instant::ZERO;
const RED: TableId = TableId(10);
const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 1]);

fn outbox() -> Outbox {
    Outbox::new(16, FramePool::new(64, 4096))
}

fn port(name: &str, table: TableId, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id: PortId::NONE,
        name: name.into(),
        ifindex: 0,
        kind: PortKind::Memory,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0, name.as_bytes()[0]])),
        mtu: 1500,
        vlan: None,
        table,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| crate::addr::parse_interface_addr(a).unwrap()).collect(),
    }
}

/// The routes of the lab, in words: table, prefix, source, and the gateway or the kind.
const ROUTES: [(u32, &str, &str, &str); 16] = [
    (254, "0.0.0.0/0", "", "10.1.0.2"),
    (254, "20.0.0.0/8", "", "10.2.0.2"),
    (254, "20.1.0.0/16", "30.0.0.0/8", "10.1.0.3"),
    (254, "20.1.0.0/16", "30.0.0.0/16", "10.2.0.3"),
    (254, "20.1.2.0/24", "31.0.0.0/8", "10.1.0.4"),
    (254, "20.1.2.0/24", "", "10.2.0.4"),
    (100, "0.0.0.0/0", "", "10.2.0.5"),
    (100, "20.1.0.0/16", "", "throw"),
    (100, "20.9.0.0/16", "", "blackhole"),
    (10, "20.0.0.0/8", "", "10.1.0.6"),
    (254, "::/0", "", "2001:db8:1::2"),
    (254, "2001:db8:20::/48", "", "2001:db8:2::2"),
    (254, "2001:db8:20::/48", "2001:db8:30::/48", "2001:db8:1::3"),
    (100, "::/0", "2001:db8:31::/48", "2001:db8:2::5"),
    (100, "2001:db8:20:1::/64", "", "2001:db8:2::6"),
    (10, "2001:db8:20::/48", "", "2001:db8:1::6"),
];

/// Two ports of the world, two of a VRF with the very addresses of the first, every gateway's link-layer address known.
fn lab(rules: &[RuleSpec]) -> Router {
    let mut r = Router::new(Settings::default(), 7, Arc::new(WorkerCounters::new(16)));
    let out = &mut outbox();
    r.add_vrf(NOW, "red", RED).unwrap();
    for (name, table) in [("a", TableId::MAIN), ("b", TableId::MAIN), ("x", RED), ("y", RED)] {
        let n = if matches!(name, "a" | "x") { 1 } else { 2 };
        let addrs = [format!("10.{n}.0.1/24"), format!("2001:db8:{n}::1/64")];
        let id = r.add_port(NOW, port(name, table, &[&addrs[0], &addrs[1]])).unwrap();
        for host in 2..8 {
            for addr in [format!("10.{n}.0.{host}"), format!("2001:db8:{n}::{host}")] {
                let spec = NeighSpec {
                    addr: addr.parse().unwrap(),
                    dev: name.into(),
                    lladdr: Some(MacAddr([2, 0, 0, 0, n, host])),
                    state: None,
                    router: false,
                };
                r.set_neighbor(NOW, id, SetMode::Replace, &spec, out).unwrap();
            }
        }
    }
    for (table, dst, from, to) in ROUTES {
        let mut route = RouteSpec::new(dst.parse().unwrap());
        (route.table, route.from) = (Some(TableId(table)), from.parse().ok());
        match to {
            "throw" => route.kind = RouteKind::Throw,
            "blackhole" => route.kind = RouteKind::Blackhole,
            gateway => route.hops = vec![HopSpec { via: gateway.parse().ok(), ..HopSpec::default() }],
        }
        r.routing_mut().route(RouteOp::Add, &route).unwrap();
    }
    r.change_rules(|x| x.replace(rules)).unwrap();
    commit(&mut r);
    r
}

fn commit(r: &mut Router) {
    while r.commit(NOW, &mut |_| {}) {}
}

fn id(r: &Router, name: &str) -> PortId {
    r.ports().by_name(name).unwrap().id
}

/// Where an object leads.
fn says(r: &Router, id: crate::object::ObjectId) -> String {
    match r.tables().routing.objects.get(id) {
        Some(Object::Forward(f)) => f.gateway.unwrap().to_string(),
        Some(Object::Discard(reason)) => reason.name().to_owned(),
        Some(Object::Local) => "local".into(),
        Some(Object::Broadcast) => "broadcast".into(),
        Some(Object::Glean(g)) => format!("link {}", g.port.0),
        other => format!("{other:?}"),
    }
}

/// A table as written: longest destination, then longest source; None without a route.
fn model_lookup(r: &Router, table: u32, key: &Key, suppress: Option<u8>) -> Option<String> {
    let (src, dst) = (key.source(), key.destination());
    let mut all: Vec<(IpNet, Option<IpNet>, String)> = ROUTES
        .iter()
        .filter(|row| row.0 == table)
        .map(|row| (row.1.parse().unwrap(), row.2.parse().ok(), row.3.to_owned()))
        .collect();
    for p in r.ports().iter().filter(|p| p.table.0 == table) {
        for a in &p.addrs {
            all.push((a.trunc(), None, format!("link {}", p.id.0)));
            all.push((IpNet::from(a.addr()), None, "local".into()));
            if let IpNet::V4(a) = a {
                all.push((IpNet::from(IpAddr::V4(a.broadcast())), None, "broadcast".into()));
            }
        }
    }
    all.retain(|(net, from, _)| net.contains(&dst) && from.is_none_or(|f| f.contains(&src)));
    let best = all.into_iter().max_by_key(|(net, from, what)| {
        (net.prefix_len(), from.map_or(0, |f| f.prefix_len()), matches!(&what[..], "local" | "broadcast"))
    })?;
    let found = best.0.prefix_len() > suppress.unwrap_or(0) || suppress.is_none();
    Some(best.2).filter(|what| found && what != "throw")
}

/// What the rules say, read one by one.
fn model(r: &Router, key: &Key, name: &str) -> String {
    let home = key.table.0;
    let list = r.rules().list(key.family);
    let mut at = 0;
    while let Some(rule) = list.get(at) {
        at += 1;
        let port = |span: Option<PortSpan>, get: fn((u16, u16)) -> u16| {
            span.is_none_or(|s| key.ports.is_some_and(|p| s.start <= get(p) && get(p) <= s.end))
        };
        let holds = rule.from.is_none_or(|n| n.contains(&key.source()))
            && rule.to.is_none_or(|n| n.contains(&key.destination()))
            && rule.fwmark.is_none_or(|m| key.mark & m.mask == m.value)
            && rule.dscp.is_none_or(|d| d == key.dscp)
            && rule.ipproto.is_none_or(|p| p == key.proto)
            && rule.iif.as_deref().is_none_or(|i| i == name || (i == "red" && home == RED.0))
            && port(rule.sport, |p| p.0)
            && port(rule.dport, |p| p.1);
        if holds == rule.not {
            continue;
        }
        let found = match rule.action {
            RuleAction::Lookup(TableId::LOCAL) => {
                model_lookup(r, home, key, None).filter(|w| matches!(&w[..], "local" | "broadcast"))
            }
            RuleAction::Lookup(TableId::MAIN | TableId::DEFAULT)
                if home == RED.0 && rule.selects_all() && rule.suppress_prefixlength.is_none() =>
            {
                None
            }
            RuleAction::Lookup(TableId::DEFAULT) => model_lookup(r, 254, key, rule.suppress_prefixlength),
            RuleAction::Lookup(TableId(n)) => model_lookup(r, n, key, rule.suppress_prefixlength),
            RuleAction::L3mdev if home == RED.0 => model_lookup(r, home, key, None),
            RuleAction::L3mdev | RuleAction::Nop => None,
            RuleAction::Goto(n) => {
                if let Some(to) = list.iter().position(|x| x.priority == Some(n)).filter(|to| *to >= at) {
                    at = to;
                }
                None
            }
            RuleAction::Blackhole => Some("blackhole".into()),
            RuleAction::Prohibit => Some("prohibited".into()),
            RuleAction::Unreachable => Some("unreachable".into()),
        };
        if let Some(found) = found {
            return found;
        }
    }
    "no_route".into()
}

fn net(text: &'static str) -> BoxedStrategy<Option<IpNet>> {
    Just(text.parse().ok()).boxed()
}

/// A rule of any kind.
fn any_rule() -> impl Strategy<Value = RuleSpec> {
    let from = prop_oneof![net(""), net("30.0.0.0/8"), net("30.0.0.5/32"), net("31.0.0.0/9"), net("2001:db8:30::/48")];
    let to = prop_oneof![net(""), net(""), net("20.1.0.0/16"), net("20.0.0.0/7"), net("2001:db8:20::/47")];
    let iif = prop_oneof![Just(None), Just(Some("a")), Just(Some("x")), Just(Some("red")), Just(Some("gone"))];
    let mark = proptest::option::of(prop_oneof![Just((1, u32::MAX)), Just((2, 3)), Just((0, 1))]);
    let span = || proptest::option::of(prop_oneof![Just((1000, 2000)), Just((53, 53))]);
    let action = prop_oneof![
        4 => Just(RuleAction::Lookup(TableId(100))),
        2 => Just(RuleAction::Lookup(TableId::MAIN)),
        1 => Just(RuleAction::Lookup(RED)),
        1 => Just(RuleAction::Lookup(TableId(77))),
        1 => Just(RuleAction::Prohibit),
        1 => Just(RuleAction::Unreachable),
        1 => Just(RuleAction::Blackhole),
        1 => Just(RuleAction::Nop),
        2 => (0u32..2200).prop_map(RuleAction::Goto),
    ];
    let numbers =
        (0u32..40, any::<bool>(), proptest::option::of(0u8..3), proptest::option::of(prop_oneof![Just(6u8), Just(17)]));
    let suppress = proptest::option::of(prop_oneof![Just(0u8), Just(8), Just(16)]);
    (from, to, iif, mark, span(), span(), action, numbers, suppress).prop_map(
        |(from, to, iif, mark, sport, dport, action, (priority, not, dscp, ipproto), suppress)| {
            let family = match from.or(to) {
                Some(net) => Family::of_net(&net),
                None if priority % 3 == 0 => Family::Inet6,
                None => Family::Inet,
            };
            let fits = |n: Option<IpNet>| n.filter(|n| Family::of_net(n) == family);
            let span = |s: Option<(u16, u16)>| s.map(|(start, end)| PortSpan { start, end });
            // Priorities on both sides of the rule for VRFs.
            let priority = priority * 50;
            RuleSpec {
                priority: Some(priority),
                not: not && priority % 100 == 0,
                from: fits(from),
                to: fits(to),
                iif: iif.map(str::to_owned),
                fwmark: mark.map(|(value, mask)| Mark { value, mask }),
                dscp,
                ipproto,
                sport: span(sport),
                dport: span(dport),
                action: match action {
                    RuleAction::Goto(n) => RuleAction::Goto((n / 50 * 50).max(priority + 50)),
                    other => other,
                },
                suppress_prefixlength: suppress.filter(|_| matches!(action, RuleAction::Lookup(_))),
                ..RuleSpec::new(family, action)
            }
        },
    )
}

/// A packet: from, to, protocol, ports, code point, and its mark and port.
type Example = (usize, usize, u8, (u16, u16), u8, u32, usize);

fn example() -> impl Strategy<Value = Example> {
    let proto = prop_oneof![Just(6u8), Just(17), Just(1), Just(50)];
    let ports = (prop_oneof![Just(53u16), Just(1500), Just(9)], prop_oneof![Just(53u16), Just(1500)]);
    (0usize..8, 0usize..12, proto, ports, 0u8..3, 0u32..4, 0usize..3)
}

const SRC: [&str; 4] = ["30.0.0.5", "30.200.0.1", "31.1.1.1", "10.1.0.7"];
const DST: [&str; 6] = ["20.1.2.3", "20.1.9.9", "20.9.0.1", "8.8.8.8", "10.1.0.1", "10.2.0.2"];
const SRC6: [&str; 4] = ["2001:db8:30::5", "2001:db8:31::1", "2001:db8:32::1", "2001:db8:1::7"];
const DST6: [&str; 6] =
    ["2001:db8:20::1", "2001:db8:20:1::1", "2001:db8:99::1", "2001:db8:21::1", "2001:db8:1::1", "2001:db8:2::2"];

/// The bytes of an example's IP packet.
fn bytes((src, dst, proto, ports, dscp, ..): Example, six: bool) -> Vec<u8> {
    let mut payload = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    payload.extend([0; 28]);
    if six {
        let mut v = vec![0x60 | dscp >> 2, dscp << 6, 0, 0, 0, 32, proto, 64];
        v.extend(SRC6[src % 4].parse::<Ipv6Addr>().unwrap().octets());
        v.extend(DST6[dst % 6].parse::<Ipv6Addr>().unwrap().octets());
        v.extend(payload);
        return v;
    }
    let mut v = vec![0; 20];
    let (src, dst): (Ipv4Addr, Ipv4Addr) = (SRC[src % 4].parse().unwrap(), DST[dst % 6].parse().unwrap());
    let total_len = 20 + payload.len() as u16;
    ipv4::Header { tos: dscp << 2, total_len, ident: 7, df: true, ttl: 64, proto, src, dst }.write(&mut v);
    v.extend(payload);
    v
}

/// Follows every packet, so that all take the general path.
struct All;

impl Observer for All {
    const ON: bool = true;
    fn follows(&mut self, _port: PortId, _frame: &Frame) -> bool {
        true
    }
    fn follows_tunnels(&self) -> bool {
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn rules_say_what_they_say(
        rules in proptest::collection::vec(any_rule(), 0..8),
        examples in proptest::collection::vec((example(), any::<bool>()), 1..24),
    ) {
        let mut rules = rules;
        let mut seen = Vec::new();
        rules.retain(|r| !seen.contains(r) && { seen.push(r.clone()); true });
        let r = lab(&rules);
        let tables = r.tables();
        for (e, six) in examples {
            let name = ["a", "x", "y"][e.6];
            let (iif, table) = (id(&r, name), if name == "a" { TableId::MAIN } else { RED });
            let data = bytes(e, six);
            let packet = Packet::parse(if six { Family::Inet6 } else { Family::Inet }, &data).unwrap();
            let key = Key::of(&packet, &data, iif, table, e.5);
            let got = tables.route(table, &packet, &data, iif, e.5);
            // Without rules an object may still ask for the source.
            let object = match tables.routing.objects.get(got.object) {
                Some(Object::Sources(s)) => s.pick(&packet.src),
                _ => got.object,
            };
            prop_assert_eq!(says(&r, object), model(&r, &key, name), "{:?} {} in {}", e, packet.dst, name);
        }
    }

    #[test]
    fn the_fast_path_asks_the_same_rules(
        rules in proptest::collection::vec(any_rule(), 0..6),
        examples in proptest::collection::vec((example(), any::<bool>()), 1..40),
    ) {
        let mut rules = rules;
        let mut seen = Vec::new();
        rules.retain(|r| !seen.contains(r) && { seen.push(r.clone()); true });
        let r = lab(&rules);
        let counters = || Arc::new(WorkerCounters::new(16));
        let (mut fast, mut slow) = (Worker::new(counters(), 3), Worker::observed(counters(), 3, All));
        let (mut one, mut other) = (outbox(), outbox());
        let source = &mut Fixed(r.tables());
        for name in ["a", "x", "y"] {
            let of: Vec<_> = examples.iter().filter(|(e, _)| ["a", "x", "y"][e.6] == name).collect();
            let port = r.ports().by_name(name).unwrap().clone();
            let batch = || {
                of.iter()
                    .map(|(e, six)| {
                        let kind: [u8; 2] = if *six { [0x86, 0xdd] } else { [8, 0] };
                        let mut f =
                            Frame::from_slice(&[&port.mac.unwrap().0[..], &HOST.0, &kind, &bytes(*e, *six)].concat());
                        f.meta.mark = e.5;
                        f
                    })
                    .collect::<Vec<_>>()
            };
            fast.process(NOW, source, port.id, &mut batch(), &mut one);
            slow.process(NOW, source, port.id, &mut batch(), &mut other);
        }
        for (a, b) in one.tx.iter().zip(&other.tx) {
            let data = |l: &Vec<Frame>| l.iter().map(|f| f.data().to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(data(a), data(b));
        }
        prop_assert_eq!(one.punts.len(), other.punts.len());
        let drops = |w: &Arc<WorkerCounters>| crate::counters::Totals::sum([&**w]);
        prop_assert_eq!(drops(fast.counters()), drops(slow.counters()));
    }
}

#[test]
fn priorities_as_linux_chooses_them() {
    let mut r = Rules::default();
    let rule = |text: &str| RuleSpec {
        from: text.parse().ok(),
        ..RuleSpec::new(Family::Inet, RuleAction::Lookup(TableId(100)))
    };
    r.add(&rule("10.0.0.0/8")).unwrap();
    r.add(&rule("10.0.0.0/8")).unwrap();
    r.add(&RuleSpec { priority: Some(5), ..rule("11.0.0.0/8") }).unwrap();
    r.add(&rule("12.0.0.0/8")).unwrap();
    let shown: Vec<_> = r.list(Family::Inet).iter().map(|r| (r.priority.unwrap(), r.to_string())).collect();
    assert_eq!(
        shown,
        [
            (0, "from all lookup local".to_owned()),
            (4, "from 12.0.0.0/8 lookup 100".to_owned()),
            (5, "from 11.0.0.0/8 lookup 100".to_owned()),
            (32_764, "from 10.0.0.0/8 lookup 100".to_owned()),
            (32_765, "from 10.0.0.0/8 lookup 100".to_owned()),
            (32_766, "from all lookup main".to_owned()),
            (32_767, "from all lookup default".to_owned()),
        ]
    );
    assert_eq!(r.add(&RuleSpec { priority: Some(5), ..rule("11.0.0.0/8") }), Err(RuleError::Exists));
    assert_eq!(r.delete(&rule("10.0.0.0/8"), true).unwrap().priority, Some(32_764));
    assert_eq!(r.delete(&RuleSpec { priority: Some(7), ..rule("") }, true), Err(RuleError::NoSuchRule));
    assert_eq!(r.flush(Family::Inet), 5);
    assert_eq!(r.list(Family::Inet).len(), 1);
    assert_eq!(r.list(Family::Inet6).len(), 2);
}

#[test]
fn nothing_is_paid_without_rules() {
    let mut r = lab(&[]);
    assert!(r.tables().policy.is_none());
    let rule =
        RuleSpec { fwmark: Some(Mark { value: 1, mask: 1 }), ..RuleSpec::new(Family::Inet, RuleAction::Prohibit) };
    r.add_rule(&rule).unwrap();
    commit(&mut r);
    let policy = r.tables().policy.clone().unwrap();
    assert!(policy.rules(Family::Inet) && !policy.rules(Family::Inet6), "families do not pay for each other");
    r.change_rules(|x| x.delete(&rule, false)).unwrap();
    commit(&mut r);
    assert!(r.tables().policy.is_none());
}

#[test]
fn what_is_refused() {
    let mut r = Rules::default();
    let base = RuleSpec::new(Family::Inet, RuleAction::Lookup(TableId(5)));
    for (rule, why) in [
        (RuleSpec { from: "2001:db8::/32".parse().ok(), ..base.clone() }, "other family"),
        (RuleSpec { from: "10.0.0.1/8".parse().ok(), ..base.clone() }, "behind its length"),
        (RuleSpec { dscp: Some(64), ..base.clone() }, "0 to 63"),
        (RuleSpec { fwmark: Some(Mark { value: 4, mask: 3 }), ..base.clone() }, "outside of its mask"),
        (RuleSpec { sport: Some(PortSpan { start: 9, end: 8 }), ..base.clone() }, "no greater"),
        (RuleSpec { suppress_prefixlength: Some(33), ..base.clone() }, "longer prefix"),
        (RuleSpec { priority: Some(9), action: RuleAction::Goto(9), ..base.clone() }, "Backward goto"),
        (RuleSpec { action: RuleAction::Lookup(TableId(0)), ..base.clone() }, "no table 0"),
    ] {
        let error = r.add(&rule).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let _ = protocol::TCP;
}

#[test]
fn vrfs_keep_to_themselves_and_leak_where_told() {
    let mut r = lab(&[]);
    let get = |r: &Router, table, dst: &str| {
        let object = r.tables().lookup(table, &dst.parse().unwrap());
        says(r, object)
    };
    // Nothing of main shows in the VRF, and own addresses are those of each.
    assert_eq!(get(&r, RED, "8.8.8.8"), "no_route");
    assert_eq!(get(&r, RED, "10.1.0.1"), "local");
    assert_eq!(get(&r, RED, "10.1.0.77"), format!("link {}", id(&r, "x").0));
    assert_eq!(get(&r, TableId::MAIN, "10.1.0.77"), format!("link {}", id(&r, "a").0));
    let mut add = |dst: &str, table: TableId, hop: HopSpec| {
        let mut route = RouteSpec::new(dst.parse::<IpNet>().unwrap());
        (route.table, route.hops) = (Some(table), vec![hop]);
        r.routing_mut().route(RouteOp::Add, &route)
    };
    let dev = |d: &str, via: Option<&str>| HopSpec {
        dev: Some(d.into()),
        via: via.map(|v| v.parse().unwrap()),
        ..HopSpec::default()
    };
    // A gateway beyond the border; a whole prefix over it; a gateway that is looked up there.
    add("50.0.0.0/8", RED, dev("b", Some("10.2.0.7"))).unwrap();
    add("51.0.0.0/8", TableId::MAIN, dev("red", None)).unwrap();
    add("51.1.0.0/16", RED, dev("y", Some("10.2.0.6"))).unwrap();
    add("52.0.0.0/8", TableId::MAIN, dev("red", Some("10.2.0.5"))).unwrap();
    assert!(add("53.0.0.0/8", TableId::MAIN, dev("red", Some("9.9.9.9"))).is_err(), "no way to it in the VRF");
    commit(&mut r);
    let hop = |r: &Router, dst: &str, table| match r
        .tables()
        .routing
        .objects
        .get(r.tables().lookup(table, &dst.parse().unwrap()))
    {
        Some(Object::Forward(f)) => (f.port, f.gateway),
        Some(Object::Table(t)) => (PortId(t.0), None),
        other => panic!("{other:?}"),
    };
    let addr = |a: &str| Some(a.parse::<IpAddr>().unwrap());
    assert_eq!(hop(&r, "50.0.0.1", RED), (id(&r, "b"), addr("10.2.0.7")));
    assert_eq!(hop(&r, "51.0.0.1", TableId::MAIN), (PortId(RED.0), None));
    assert_eq!(hop(&r, "51.1.0.1", RED), (id(&r, "y"), addr("10.2.0.6")));
    assert_eq!(hop(&r, "52.0.0.1", TableId::MAIN), (id(&r, "y"), addr("10.2.0.5")));
    // Ports come home when the VRF goes.
    let members = [id(&r, "x"), id(&r, "y")];
    r.del_vrf(NOW, "red", &mut outbox()).unwrap();
    commit(&mut r);
    assert!(members.iter().all(|p| r.ports().get(*p).unwrap().table == TableId::MAIN));
    assert!(r.add_vrf(NOW, "blue", TableId::MAIN).is_err());
}
