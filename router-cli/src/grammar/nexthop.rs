//! `nexthop add|replace|del|show|get|flush`.

use super::failure::{Failure, exit};
use super::route::parse_proto;
use super::words::Words;
use super::{Command, NextHopCommand, Object};
use crate::control::{BucketSelect, NextHopSelect};
use router_core::addr::Family;
use router_core::spec::{HopSpec, NextHopKind, NextHopSpec, ResilientSpec};
use std::net::IpAddr;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return parse_select(w).map(|s| Command::NextHop(NextHopCommand::Show(s)));
    }
    match () {
        () if w.matches(&["add"]) => parse_spec(w).map(|n| Command::NextHop(NextHopCommand::Add(n))),
        () if w.matches(&["replace"]) => parse_spec(w).map(|n| Command::NextHop(NextHopCommand::Replace(n))),
        () if w.matches(&["delete"]) => parse_id(w).map(|n| Command::NextHop(NextHopCommand::Delete(n))),
        () if w.matches(&["list", "show", "lst"]) => parse_select(w).map(|s| Command::NextHop(NextHopCommand::Show(s))),
        () if w.matches(&["get"]) => parse_id(w).map(|n| Command::NextHop(NextHopCommand::Get(n))),
        () if w.matches(&["flush"]) => parse_select(w).map(|s| Command::NextHop(NextHopCommand::Flush(s))),
        () if w.matches(&["bucket"]) => parse_bucket(w),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::NextHop)),
        () => Err(w.unknown_command("nexthop")),
    }
}

fn number(w: &mut Words<'_>) -> Result<u32, Failure> {
    w.arg()?;
    w.current_number("id", 1..=u64::from(u32::MAX))
        .map(|n| n as u32)
        .map_err(|_| w.invalid("invalid id value", "an id is a number from 1 to 4294967295"))
}

fn parse_id(w: &mut Words<'_>) -> Result<u32, Failure> {
    let mut id = None;
    while let Some(word) = w.next() {
        match word {
            "id" => id = Some(number(w)?),
            _ => return Err(w.garbage("id", "say id NUMBER")),
        }
    }
    id.ok_or_else(|| Failure::with_hint(exit::SYNTAX, "Error: a next-hop id is expected.", "say id NUMBER"))
}

pub(super) fn parse_spec(w: &mut Words<'_>) -> Result<NextHopSpec, Failure> {
    let (mut id, mut proto, mut group, mut blackhole, mut resilient) = (None, None, None, false, None);
    let mut hop = HopSpec { weight: 1, ..HopSpec::default() };
    while let Some(word) = w.next() {
        match word {
            "id" => id = Some(number(w)?),
            "via" => {
                let family = match w.arg()? {
                    "inet" => Some(Family::Inet),
                    "inet6" => Some(Family::Inet6),
                    _ => w.family,
                };
                if ["inet", "inet6"].contains(&w.current()) {
                    w.arg()?;
                }
                hop.via = Some(w.current_addr(family)?);
            }
            "dev" => hop.dev = Some(w.dev()?),
            "onlink" => hop.onlink = true,
            "blackhole" => blackhole = true,
            "group" => {
                w.arg()?;
                group = Some(parse_group(w)?);
            }
            "type" => match w.arg()? {
                "mpath" => {}
                "resilient" => resilient = Some(parse_resilient(w)?),
                _ => return Err(w.invalid("\"type\" value is invalid", "a group is of type mpath or resilient")),
            },
            "encap" | "fdb" => return Err(w.unsupported()),
            _ if w.matches(&["protocol"]) => proto = Some(parse_proto(w, "\"protocol\" value is invalid")?),
            _ => {
                return Err(
                    w.garbage("id", "say id NUMBER via ADDRESS dev PORT, id NUMBER group 1/2, or id NUMBER blackhole")
                );
            }
        }
    }
    let Some(id) = id else {
        return Err(Failure::with_hint(exit::SYNTAX, "Error: a next-hop id is expected.", "say id NUMBER"));
    };
    let has_hop = hop.via.is_some() || hop.dev.is_some();
    let kind = match (blackhole, group, has_hop) {
        (true, None, false) => NextHopKind::Blackhole,
        (false, Some(members), false) => NextHopKind::Group(members),
        (false, None, true) => NextHopKind::Hop(hop),
        (false, None, false) => {
            return Err(Failure::with_hint(
                exit::REFUSED,
                "Error: Invalid address family.",
                "say what it is: via ADDRESS dev PORT, dev PORT, group 1/2, or blackhole",
            ));
        }
        _ => {
            return Err(Failure::with_hint(
                exit::REFUSED,
                "Error: A next hop is one of: gateway or device, group, blackhole.",
                "leave out all but one of these",
            )
            .at(w.place_of(&["blackhole", "group", "via", "dev"])));
        }
    };
    if let NextHopKind::Hop(h) = &kind
        && h.dev.is_none()
        && (h.onlink || matches!(h.via, Some(IpAddr::V6(a)) if a.is_unicast_link_local()))
    {
        return Err(Failure::with_hint(
            exit::REFUSED,
            "Error: Device attribute required for non-blackhole and non-fdb nexthops.",
            "a link-local or onlink gateway needs dev PORT",
        ));
    }
    if resilient.is_some() && !matches!(kind, NextHopKind::Group(_)) {
        return Err(Failure::with_hint(
            exit::SYNTAX,
            "Error: \"type\" is for groups.",
            "say group 1/2 type resilient buckets N",
        ));
    }
    Ok(NextHopSpec { proto, resilient, ..NextHopSpec::new(id, kind) })
}

/// What follows `type resilient`.
fn parse_resilient(w: &mut Words<'_>) -> Result<ResilientSpec, Failure> {
    // The kernel keeps hundredths of seconds in 32 bits.
    const LONGEST: u64 = u32::MAX as u64 / 100;
    let mut spec = ResilientSpec::default();
    while let Some(word) = w.peek() {
        match word {
            "buckets" => spec.buckets = Some(value(w, "buckets", 0..=u64::from(u16::MAX))? as u16),
            "idle_timer" => spec.idle_timer = Some(value(w, "idle timer", 0..=LONGEST)? as u32),
            "unbalanced_timer" => spec.unbalanced_timer = Some(value(w, "unbalanced timer", 0..=LONGEST)? as u32),
            _ => break,
        }
    }
    Ok(spec)
}

/// The number behind the next word.
fn value(w: &mut Words<'_>, what: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Failure> {
    w.next();
    w.arg()?;
    let hint = format!("a number from {} to {}", range.start(), range.end());
    w.current_number(what, range).map_err(|_| w.invalid(&format!("invalid {what} value"), &hint))
}

/// `nexthop bucket show|get`.
fn parse_bucket(w: &mut Words<'_>) -> Result<Command, Failure> {
    let get = match w.next() {
        None => return Ok(Command::NextHop(NextHopCommand::Buckets(BucketSelect::default()))),
        Some(_) if w.matches(&["list", "show", "lst"]) => false,
        Some(_) if w.matches(&["get"]) => true,
        Some(_) if w.matches(&["help"]) => return Ok(Command::Help(Object::NextHop)),
        Some(_) => return Err(w.unknown_command("nexthop bucket")),
    };
    let mut s = BucketSelect::default();
    while let Some(word) = w.next() {
        match word {
            "id" => s.id = Some(number(w)?),
            "index" if get => {
                w.arg()?;
                let wrong = |w: &Words<'_>| w.invalid("invalid bucket index value", "a number from 0 to 65535");
                s.index = Some(w.current_number("index", 0..=65_535).map_err(|_| wrong(w))? as u16);
            }
            "nhid" if !get => s.nhid = Some(number(w)?),
            "dev" if !get => s.dev = Some(w.dev()?),
            "vrf" | "master" if !get => return Err(w.unsupported()),
            _ if get => return Err(w.garbage("id", "say id NUMBER index NUMBER")),
            _ => return Err(w.garbage("id", "say id GROUP, nhid MEMBER or dev PORT")),
        }
    }
    match (get, s.id, s.index) {
        (true, Some(_), Some(_)) => Ok(Command::NextHop(NextHopCommand::Bucket(s))),
        (true, ..) => Err(Failure::with_hint(
            exit::SYNTAX,
            "Error: a group and a bucket are expected.",
            "say id NUMBER index NUMBER",
        )),
        (false, ..) => Ok(Command::NextHop(NextHopCommand::Buckets(s))),
    }
}

/// `1/2,10/3`: numbers with optional weights.
fn parse_group(w: &Words<'_>) -> Result<Vec<(u32, u16)>, Failure> {
    let wrong =
        || w.invalid("\"group\" value is invalid", "say ids and weights such as 1/2,10/3; a weight is 1 to 256");
    let mut members: Vec<(u32, u16)> = Vec::new();
    for part in w.current().split('/') {
        let (id, weight) = part.split_once(',').unwrap_or((part, "1"));
        let id = super::value::parse_number(id).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        let weight =
            super::value::parse_number(weight).and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=256).contains(n));
        members.push((id.ok_or_else(wrong)?, weight.ok_or_else(wrong)?));
    }
    if members.len() > 256 {
        return Err(wrong());
    }
    Ok(members)
}

fn parse_select(w: &mut Words<'_>) -> Result<NextHopSelect, Failure> {
    let mut s = NextHopSelect { family: w.family, ..NextHopSelect::default() };
    while let Some(word) = w.next() {
        match word {
            "id" => s.id = Some(number(w)?),
            "dev" => s.dev = Some(w.dev()?),
            "groups" => s.groups = true,
            "all" => {}
            "vrf" | "master" | "fdb" => return Err(w.unsupported()),
            _ if w.matches(&["protocol"]) => s.proto = Some(parse_proto(w, "invalid protocol value")?),
            _ => return Err(w.garbage("id", "say id NUMBER, dev PORT, groups or proto NAME")),
        }
    }
    Ok(s)
}
