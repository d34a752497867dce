//! Selectors of `route show`, `route flush` and `route save`.

use super::failure::Failure;
use super::route::{parse_proto, parse_table};
use super::words::Words;
use super::{names, value};
use crate::control::{PrefixSelect, RouteSelect, TableSelect};
use ipnet::IpNet;
use router_core::addr::Family;

pub(super) fn parse(w: &mut Words<'_>) -> Result<RouteSelect, Failure> {
    let mut s = RouteSelect { family: w.family, ..RouteSelect::default() };
    let mut any_family = false;
    while let Some(word) = w.next() {
        match word {
            "dev" | "oif" | "iif" => s.dev = Some(w.dev()?),
            "via" => {
                let family = match w.arg()? {
                    "inet" => Some(Family::Inet),
                    "inet6" => Some(Family::Inet6),
                    _ => None,
                };
                if family.is_some() {
                    w.arg()?;
                }
                s.via = Some(w.current_addr(family)?);
            }
            "src" => s.src = Some(w.addr()?),
            "nhid" => s.nhid = Some(w.number("id", 1..=u64::from(u32::MAX))? as u32),
            "scope" => {
                let name = w.arg()?;
                if name != "all" {
                    let hint = "say global, link, host or a number";
                    s.scope = Some(names::scope_from_name(name).ok_or_else(|| w.invalid("invalid \"scope\"", hint))?);
                }
            }
            "type" => {
                let name = w.arg()?;
                s.kind = Some(names::kind_from_name(name).ok_or_else(|| {
                    w.invalid(
                        "node type value is invalid",
                        "say unicast, local, broadcast, blackhole, unreachable, prohibit or throw",
                    )
                })?);
            }
            "vrf" => s.vrf = Some(w.dev()?),
            "cached" | "cloned" => return Err(w.unsupported()),
            _ if w.matches(&["table"]) => {
                let name = w.peek().unwrap_or_default();
                if name == "all" || value::parse_number(name) == Some(0) {
                    w.next();
                    s.table = TableSelect::All;
                    any_family = true;
                } else {
                    s.table = TableSelect::One(parse_table(w, "table id value is invalid")?);
                }
            }
            _ if w.matches(&["protocol"]) => {
                if w.peek() == Some("all") {
                    w.next();
                } else {
                    s.proto = Some(parse_proto(w, "invalid \"protocol\"")?);
                }
            }
            _ if w.matches(&["metric"]) => s.metric = Some(w.number("metric", 0..=u64::from(u32::MAX))? as u32),
            _ => {
                if word == "to" {
                    w.arg()?;
                }
                s.dst = Some(parse_dst(w)?);
            }
        }
    }
    // As iproute2: one family at a time unless all tables were asked for. Unlike it, a prefix says which one.
    if s.family.is_none() && !any_family {
        s.family = Some(s.prefix().map_or(Family::Inet, Family::of_net));
    }
    Ok(s)
}

/// `root P`, `match P`, `exact P`, `P`.
fn parse_dst(w: &mut Words<'_>) -> Result<PrefixSelect, Failure> {
    let make: fn(IpNet) -> PrefixSelect = match () {
        () if w.matches(&["root"]) => PrefixSelect::Root,
        () if w.matches(&["match"]) => PrefixSelect::Match,
        () if w.matches(&["exact"]) => PrefixSelect::Exact,
        () => return Ok(PrefixSelect::Exact(parse_net(w)?)),
    };
    w.arg()?;
    parse_net(w).map(make)
}

fn parse_net(w: &Words<'_>) -> Result<IpNet, Failure> {
    match w.current() {
        "default" | "any" | "all" => Ok(w.family.unwrap_or(Family::Inet).default_prefix()),
        _ => w.current_interface_addr(w.family).map(|n| n.trunc()),
    }
}
