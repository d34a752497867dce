//! `addr add|replace|change|del|show|flush`.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{AddrCommand, Command, Object, Verb, names};
use crate::control::AddrSelect;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return parse_select(w).map(|s| Command::Addr(AddrCommand::Show(s)));
    }
    match () {
        () if w.matches(&["add"]) => parse_modify(w, Verb::Add),
        () if w.matches(&["change", "chg"]) => parse_modify(w, Verb::Change),
        () if w.matches(&["replace"]) => parse_modify(w, Verb::Replace),
        () if w.matches(&["delete"]) => parse_modify(w, Verb::Delete),
        () if w.matches(&["show", "lst", "list"]) => parse_select(w).map(|s| Command::Addr(AddrCommand::Show(s))),
        () if w.matches(&["flush"]) => {
            if w.peek().is_none() {
                return Err(Failure::with_hint(
                    exit::USAGE,
                    "Flush requires arguments.",
                    "say \"dev PORT\" or \"to PREFIX\"",
                ));
            }
            parse_select(w).map(|s| Command::Addr(AddrCommand::Flush(s)))
        }
        () if w.matches(&["save", "showdump", "restore"]) => Err(w.unsupported()),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Addr)),
        () => Err(w.unknown_command("address")),
    }
}

fn parse_modify(w: &mut Words<'_>, verb: Verb) -> Result<Command, Failure> {
    let (mut net, mut dev, mut at) = (None, None, 0);
    while let Some(word) = w.next() {
        match word {
            "dev" => dev = Some(w.dev()?),
            // Without meaning here, but common: duplicate address detection, lifetimes and labels of the kernel.
            "nodad" => {}
            "brd" | "broadcast" | "scope" | "label" => {
                w.arg()?;
            }
            "valid_lft" | "preferred_lft" => {
                if w.arg()? != "forever" {
                    return Err(w.invalid("lifetimes are not supported", "addresses stay until they are removed"));
                }
            }
            "peer" | "remote" | "anycast" | "metric" | "noprefixroute" | "home" | "mngtmpaddr" | "autojoin" => {
                return Err(w.unsupported());
            }
            _ => {
                if word == "local" {
                    w.arg()?;
                }
                if net.is_some() {
                    return Err(w.garbage("local", "say ADDRESS/LENGTH dev PORT"));
                }
                net = Some(w.current_interface_addr(w.family)?);
                at = w.here();
            }
        }
    }
    let Some(dev) = dev else {
        return Err(Failure::with_hint(
            exit::USAGE,
            "Not enough information: \"dev\" argument is required.",
            "say on which port: ADDRESS/LENGTH dev PORT",
        ));
    };
    let Some(net) = net else {
        return Err(Failure::with_hint(
            exit::REFUSED,
            "RTNETLINK answers: Operation not supported",
            "say which address: ADDRESS/LENGTH dev PORT",
        ));
    };
    if verb != Verb::Delete && (net.addr().is_multicast() || net.addr().is_unspecified()) {
        return Err(Failure::with_hint(
            exit::REFUSED,
            "RTNETLINK answers: Invalid argument",
            format!("{} cannot be a router's own address", net.addr()),
        )
        .at(at));
    }
    Ok(Command::Addr(AddrCommand::Modify(verb, dev, net)))
}

fn parse_select(w: &mut Words<'_>) -> Result<AddrSelect, Failure> {
    let mut s = AddrSelect { family: w.family, ..AddrSelect::default() };
    while let Some(word) = w.next() {
        match word {
            "to" => {
                w.arg()?;
                s.to = Some(w.current_interface_addr(w.family)?);
            }
            "scope" => {
                let name = w.arg()?;
                if name != "all" {
                    let hint = "say host, link or global";
                    s.scope = Some(names::scope_from_name(name).ok_or_else(|| w.invalid("invalid \"scope\"", hint))?);
                }
            }
            "up" => s.up = true,
            "permanent" | "primary" => {}
            "type" | "master" | "vrf" | "nomaster" | "label" | "group" | "dynamic" | "secondary" | "temporary"
            | "tentative" | "deprecated" | "dadfailed" => return Err(w.unsupported()),
            _ => {
                if word == "dev" {
                    w.arg()?;
                }
                if s.dev.is_some() {
                    return Err(w.garbage("dev", "one port at a time, or none for all"));
                }
                s.dev = Some(w.current().to_owned());
            }
        }
    }
    Ok(s)
}
