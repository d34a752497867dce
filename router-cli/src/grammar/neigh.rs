//! `neigh add|replace|change|del|show|get|flush`.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, NeighCommand, Object, Verb, names};
use crate::control::NeighSelect;
use ipnet::IpNet;
use router_core::spec::{NeighSpec, NudState};

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return parse_select(w).map(|s| Command::Neigh(NeighCommand::Show(s)));
    }
    let modify = |w: &mut Words<'_>, verb| parse_spec(w, verb).map(|n| Command::Neigh(NeighCommand::Modify(verb, n)));
    match () {
        () if w.matches(&["add"]) => modify(w, Verb::Add),
        () if w.matches(&["change", "chg"]) => modify(w, Verb::Change),
        () if w.matches(&["replace"]) => modify(w, Verb::Replace),
        () if w.matches(&["delete"]) => modify(w, Verb::Delete),
        () if w.matches(&["get"]) => {
            let s = parse_select(w)?;
            if s.to.is_none() || s.dev.is_none() {
                return Err(Failure::with_hint(
                    exit::USAGE,
                    "Device and address are required arguments.",
                    "say \"duet neigh get 192.0.2.1 dev PORT\"",
                ));
            }
            Ok(Command::Neigh(NeighCommand::Get(NeighSelect { nud_all: true, ..s })))
        }
        () if w.matches(&["show", "list", "lst"]) => parse_select(w).map(|s| Command::Neigh(NeighCommand::Show(s))),
        () if w.matches(&["flush"]) => {
            if w.peek().is_none() {
                return Err(Failure::with_hint(
                    exit::USAGE,
                    "Flush requires arguments.",
                    "say \"dev PORT\" or \"all\"",
                ));
            }
            if w.peek() == Some("all") {
                w.next();
            }
            parse_select(w).map(|s| Command::Neigh(NeighCommand::Flush(s)))
        }
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Neigh)),
        () => Err(w.unknown_command("neigh")),
    }
}

pub(super) fn parse_spec(w: &mut Words<'_>, verb: Verb) -> Result<NeighSpec, Failure> {
    let (mut addr, mut dev, mut lladdr, mut state, mut router) = (None, None, None, None, false);
    while let Some(word) = w.next() {
        match word {
            "lladdr" => {
                let text = w.arg()?;
                lladdr = Some(text.parse().map_err(|e: router_core::addr::AddrError| {
                    w.fail_here(exit::REFUSED, "Error: Invalid link address.".into(), e.to_string())
                })?);
            }
            "nud" => {
                w.arg()?;
                state = Some(parse_nud(w)?);
            }
            "dev" => dev = Some(w.dev()?),
            "router" => router = true,
            "use" | "managed" | "extern_learn" | "proxy" | "protocol" => return Err(w.unsupported()),
            _ => {
                if word == "to" {
                    w.arg()?;
                }
                if addr.is_some() {
                    return Err(w.garbage("to", "one neighbour at a time"));
                }
                addr = Some(w.current_addr(w.family)?);
            }
        }
    }
    let (Some(addr), Some(dev)) = (addr, dev) else {
        return Err(Failure::with_hint(
            exit::SYNTAX,
            "Device and destination are required arguments.",
            "say ADDRESS lladdr MAC dev PORT",
        ));
    };
    let needs = !matches!(state, Some(NudState::NoArp | NudState::Failed | NudState::Incomplete));
    if lladdr.is_none() && needs && verb == Verb::Add {
        return Err(Failure::with_hint(
            exit::REFUSED,
            "RTNETLINK answers: Invalid argument",
            "a neighbour set by hand needs its link-layer address: lladdr 02:00:00:00:00:01",
        ));
    }
    Ok(NeighSpec { addr, dev, lladdr, state, router })
}

fn parse_nud(w: &Words<'_>) -> Result<NudState, Failure> {
    names::nud_from_name(w.current()).ok_or_else(|| {
        w.invalid("nud state is bad", "say permanent, reachable, noarp, stale, delay, probe, failed or incomplete")
    })
}

fn parse_select(w: &mut Words<'_>) -> Result<NeighSelect, Failure> {
    let mut s = NeighSelect { family: w.family, ..NeighSelect::default() };
    while let Some(word) = w.next() {
        match word {
            "dev" => s.dev = Some(w.dev()?),
            "unused" => {}
            "nud" => match w.arg()? {
                "all" => s.nud_all = true,
                _ => s.nud.push(parse_nud(w)?),
            },
            "proxy" | "vrf" | "nomaster" => return Err(w.unsupported()),
            _ => {
                if word == "to" {
                    w.arg()?;
                }
                let net: IpNet = w.current_interface_addr(w.family)?;
                if s.to.replace(net).is_some() {
                    return Err(w.garbage("to", "one prefix at a time"));
                }
            }
        }
    }
    Ok(s)
}
