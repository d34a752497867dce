//! `[vrf.NAME]` and `[rules]`.

use super::lines::parse_line;
use super::parse::{Places, named};
use super::plan::{Plan, VrfPlan};
use super::problem::{Problems, nearest};
use super::reader::{Section, Value, texts};
use crate::grammar::parse_rule_line;
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::proto;
use router_core::tables::domain_of;

pub(super) fn vrfs(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    for (name, span, mut s) in named("vrf", value, problems) {
        places.vrfs.push((name.to_owned(), span.clone()));
        let table = s.table("table", problems);
        let ports = s.texts("ports", "[\"lan0\", \"he\"]", problems);
        let address = s.interface_addrs("address", problems);
        s.finish(problems);
        match table {
            Some(t) if domain_of(t) == TableId::MAIN => {
                let remedy = "give it a table of its own, such as table = 10";
                problems.add(span, format!("[vrf.{name}] has one of the router's own tables"), remedy);
            }
            Some(table) => {
                if let Some((other, _)) = plan.vrfs.iter().find(|(_, v)| v.table == table) {
                    let message = format!("[vrf.{name}] has the table of [vrf.{other}]");
                    problems.add(span, message, "two VRFs with one table would be one");
                }
                plan.vrfs.insert(name.to_owned(), VrfPlan { table, address });
                places.members.extend(ports.into_iter().map(|(port, span)| (name.to_owned(), port, span)));
            }
            None => problems.add(span, format!("[vrf.{name}] has no table"), "write table = 10"),
        }
    }
}

/// `ipv4` and `ipv6`: lists of rules, each what follows `rule add`.
pub(super) fn rules(value: &Value<'_>, plan: &mut Plan, problems: &mut Problems<'_>) {
    let Some(s) = Section::of("rules", value, problems) else { return };
    for (key, span, value) in s.entries() {
        let family = match key {
            "ipv4" => Family::Inet,
            "ipv6" => Family::Inet6,
            _ => {
                let remedy = "write ipv4 = [ ... ] or ipv6 = [ ... ]";
                problems.add(span, format!("unknown key \"{key}\" in [rules]"), remedy);
                continue;
            }
        };
        for (text, span) in texts(key, "rules", value, "[\"from 192.0.2.0/24 lookup 100\"]", problems) {
            let parse = |w: &[&str]| parse_rule_line(w, Some(family));
            let Some(mut rule) = parse_line(&text, span.clone(), |_| Vec::new(), problems, parse) else { continue };
            rule.protocol.get_or_insert(proto::STATIC);
            if plan.rules.contains(&rule) {
                problems.add(span, "the very same rule is there already", "leave out one");
                continue;
            }
            plan.rules.push(rule);
        }
    }
}

/// Puts tables in the place of names of VRFs, now that all sections are read.
pub(super) fn resolve(plan: &mut Plan, places: &Places, problems: &mut Problems<'_>) {
    let vrfs = plan.vrfs.clone();
    for (name, span) in &places.vrf_routes {
        if !vrfs.contains_key(name) {
            let remedy = match nearest(name, vrfs.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "name the table: main, local, default, a number or a VRF, such as main = [ ... ]".to_owned(),
            };
            problems.add(span.clone(), format!("\"{name}\" in [routes] is not a table"), remedy);
        }
    }
    for route in &mut plan.routes {
        if let Some(vrf) = route.vrf.take().and_then(|v| vrfs.get(&v)) {
            route.table = Some(vrf.table);
        }
    }
    for (name, span) in &places.vrfs {
        if plan.ports.contains_key(name) || plan.tunnels.contains_key(name) || plan.translators.contains_key(name) {
            problems.add(span.clone(), format!("\"{name}\" is a VRF and a port or tunnel"), "rename one of them");
        }
    }
    for (vrf, port, span) in &places.members {
        let Some(table) = vrfs.get(vrf).map(|v| v.table) else { continue };
        let was = match (plan.ports.get_mut(port), plan.tunnels.get_mut(port)) {
            (Some(p), _) => {
                if p.table != TableId::MAIN && p.vrf.is_none() {
                    let message = format!("[port.{port}] has a table, and is in VRF {vrf}");
                    problems.add(span.clone(), message, "leave out \"table\"");
                }
                p.table = table;
                p.vrf.replace(vrf.clone())
            }
            (None, Some(t)) => t.vrf.replace(vrf.clone()),
            (None, None) => {
                let message = format!("Cannot find device \"{port}\"");
                problems.add(span.clone(), message, "name ports and tunnels of this file");
                continue;
            }
        };
        if let Some(other) = was {
            problems.add(span.clone(), format!("{port} is in VRF {other} already"), "a port is in one VRF");
        }
    }
}
