//! `link show|set`.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, LinkCommand, Object};
use crate::control::{LinkSelect, LinkSet};

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Link(LinkCommand::Show(LinkSelect::default())));
    }
    match () {
        () if w.matches(&["add"]) && w.ahead().windows(2).any(|p| p == ["type", "vrf"]) => parse_add(w),
        () if w.matches(&["add"]) => match super::tunnel::parse_link_add(w)? {
            Some(t) => Ok(Command::Tunnel(super::TunnelCommand::Add(Box::new(t)))),
            None => Err(w.fail_here(
                exit::REFUSED,
                "RTNETLINK answers: Operation not supported".into(),
                "ports are added in the configuration ([port.NAME], then \"duet reload\"), tunnels with \"duet tunnel add\", VRFs with \"duet link add NAME type vrf table NUMBER\""
                    .into(),
            )),
        },
        () if w.matches(&["set", "change"]) => parse_set(w),
        () if w.matches(&["replace"]) => Err(w.unsupported()),
        () if w.matches(&["delete"]) => parse_delete(w),
        () if w.matches(&["show", "lst", "list"]) => parse_show(w),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Link)),
        () => Err(w.unknown_command("link")),
    }
}

/// `NAME type vrf table N`.
fn parse_add(w: &mut Words<'_>) -> Result<Command, Failure> {
    let (mut name, mut table) = (None, None);
    while let Some(word) = w.next() {
        match word {
            "name" | "dev" => name = Some(w.dev()?),
            "type" => _ = w.arg()?,
            "table" => table = Some(super::route::parse_table(w, "invalid table ID")?),
            _ if name.is_none() && super::value::valid_name(word) => name = Some(word.to_owned()),
            _ => return Err(w.garbage("name", "say NAME type vrf table NUMBER")),
        }
    }
    match (name, table) {
        (Some(name), Some(table)) => Ok(Command::Link(LinkCommand::AddVrf(name, table))),
        _ => Err(Failure::with_hint(
            exit::SYNTAX,
            "Error: a VRF needs a name and a table.",
            "say \"duet link add NAME type vrf table NUMBER\"",
        )),
    }
}

fn parse_delete(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut name = None;
    while let Some(word) = w.next() {
        match word {
            "dev" => name = Some(w.dev()?),
            "type" => _ = w.arg()?,
            _ if name.is_none() => name = Some(word.to_owned()),
            _ => return Err(w.garbage("dev", "say which VRF")),
        }
    }
    let missing = || {
        Failure::with_hint(
            exit::SYNTAX,
            "Not enough information: \"dev\" argument is required.",
            "say which VRF: \"duet link del NAME\"",
        )
    };
    Ok(Command::Link(LinkCommand::Delete(name.ok_or_else(missing)?)))
}

/// `vrf [show] [NAME]`.
pub(super) fn parse_vrf(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut name = None;
    if w.next().is_some() {
        match () {
            () if w.matches(&["show", "lst", "list"]) => name = w.next().map(str::to_owned),
            () if w.matches(&["help"]) => return Ok(Command::Help(Object::Vrf)),
            () if ["exec", "identify", "pids"].contains(&w.current()) => return Err(w.unsupported()),
            () => return Err(w.unknown_command("vrf")),
        }
        if w.next().is_some() {
            return Err(w.garbage("name", "one VRF at a time, or none for all"));
        }
    }
    Ok(Command::Vrf(name))
}

fn parse_set(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut dev: Option<String> = None;
    let mut set = LinkSet::default();
    while let Some(word) = w.next() {
        match word {
            "up" => set.up = Some(true),
            "down" => set.up = Some(false),
            "mtu" => {
                w.arg()?;
                let n = w.current_number("mtu", 68..=65535).map_err(|_| {
                    w.invalid("Invalid \"mtu\" value", "an MTU is 68 to 65535 bytes; IPv6 needs at least 1280")
                })?;
                set.mtu = Some(n as u32);
            }
            "address" => {
                let text = w.arg()?;
                set.address = Some(text.parse().map_err(|e: router_core::addr::AddrError| {
                    w.invalid("\"address\" value is invalid", e.to_string())
                })?);
            }
            "master" | "vrf" => set.master = Some(w.dev()?),
            "nomaster" => set.master = Some(String::new()),
            "mark" => set.mark = Some(w.number("mark", 0..=u64::from(u32::MAX))? as u32),
            "arp" | "multicast" | "allmulticast" | "promisc" | "txqueuelen" | "name" | "broadcast" | "netns"
            | "alias" | "addrgenmode" | "group" | "type" | "vf" | "xdp" | "carrier" | "dynamic" => {
                return Err(w.unsupported());
            }
            _ => {
                if word == "dev" {
                    w.arg()?;
                }
                if dev.is_some() {
                    return Err(w.garbage("dev", "duet sets up, down, mtu, address, master and mark"));
                }
                dev = Some(w.current().to_owned());
            }
        }
    }
    let Some(dev) = dev else {
        return Err(Failure::with_hint(
            exit::SYNTAX,
            "Not enough information: \"dev\" argument is required.",
            "say which port: \"duet link set PORT up\"",
        ));
    };
    set.dev = dev;
    Ok(Command::Link(LinkCommand::Set(set)))
}

fn parse_show(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut s = LinkSelect::default();
    while let Some(word) = w.next() {
        match word {
            "up" => s.up = true,
            "type" => s.kind = Some(w.arg()?.to_owned()),
            "master" | "vrf" => s.master = Some(w.dev()?),
            "group" | "nomaster" => return Err(w.unsupported()),
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
    Ok(Command::Link(LinkCommand::Show(s)))
}
