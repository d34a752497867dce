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
        () if w.matches(&["add"]) => match super::tunnel::parse_link_add(w)? {
            Some(t) => Ok(Command::Tunnel(super::TunnelCommand::Add(Box::new(t)))),
            None => Err(w.fail_here(
                exit::REFUSED,
                "RTNETLINK answers: Operation not supported".into(),
                "ports are added in the configuration ([port.NAME], then \"duet reload\"), tunnels with \"duet tunnel add\""
                    .into(),
            )),
        },
        () if w.matches(&["set", "change"]) => parse_set(w),
        () if w.matches(&["replace"]) => Err(w.unsupported()),
        () if w.matches(&["delete"]) => Err(w.fail_here(
            exit::REFUSED,
            "RTNETLINK answers: Operation not supported".into(),
            "ports go away with their section in the configuration (\"duet reload\"), tunnels with \"duet tunnel del\"".into(),
        )),
        () if w.matches(&["show", "lst", "list"]) => parse_show(w),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Link)),
        () => Err(w.unknown_command("link")),
    }
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
            "arp" | "multicast" | "allmulticast" | "promisc" | "txqueuelen" | "name" | "broadcast" | "netns"
            | "alias" | "master" | "nomaster" | "addrgenmode" | "group" | "type" | "vf" | "xdp" | "vrf" | "carrier"
            | "dynamic" => {
                return Err(w.unsupported());
            }
            _ => {
                if word == "dev" {
                    w.arg()?;
                }
                if dev.is_some() {
                    return Err(w.garbage("dev", "duet sets up, down, mtu and address"));
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
            "group" | "master" | "vrf" | "nomaster" => return Err(w.unsupported()),
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
