//! `tunnel add|change|del|show`.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, Object, TunnelCommand, value};
use crate::control::TunnelChange;
use router_core::addr::Family;
use router_core::spec::{TunnelMode, TunnelSpec};
use std::net::IpAddr;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Tunnel(TunnelCommand::Show(None)));
    }
    match () {
        () if w.matches(&["add"]) && super::join::is_join(w) => super::join::parse(w),
        () if w.matches(&["add"]) => {
            Draft::parse(w)?.into_spec().map(|t| Command::Tunnel(TunnelCommand::Add(Box::new(t))))
        }
        () if w.matches(&["change"]) => {
            let d = Draft::parse(w)?;
            let name = d.name()?;
            Ok(Command::Tunnel(TunnelCommand::Change(Box::new(TunnelChange {
                name,
                local: d.local,
                remote: d.remote,
                ttl: d.ttl,
                tos: d.tos,
                nopmtudisc: d.nopmtudisc,
                dev: d.dev,
            }))))
        }
        () if w.matches(&["delete"]) => Draft::parse(w)?.name().map(|n| Command::Tunnel(TunnelCommand::Delete(n))),
        () if w.matches(&["show", "lst", "list"]) => {
            Draft::parse(w).map(|d| Command::Tunnel(TunnelCommand::Show(d.name)))
        }
        () if w.matches(&["prl", "6rd"]) => Err(w.unsupported()),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Tunnel)),
        () => Err(w.unknown_command("tunnel")),
    }
}

#[derive(Default)]
struct Draft {
    name: Option<String>,
    mode: Option<TunnelMode>,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
    /// 0: inherit.
    ttl: Option<u8>,
    /// 1: inherit.
    tos: Option<u8>,
    nopmtudisc: Option<bool>,
    dev: Option<String>,
}

impl Draft {
    fn parse(w: &mut Words<'_>) -> Result<Draft, Failure> {
        let mut d = Draft::default();
        while let Some(word) = w.next() {
            match word {
                "mode" => {
                    d.mode = Some(match w.arg()? {
                        "sit" | "6in4" | "ipv6/ip" => TunnelMode::SixInFour,
                        _ => {
                            return Err(
                                w.invalid("unknown tunnel mode", "duet knows sit, also written 6in4 or ipv6/ip")
                            );
                        }
                    });
                }
                "remote" => d.remote = Some(outer(w)?),
                "local" => d.local = Some(outer(w)?),
                "ttl" | "hoplimit" | "hlim" => {
                    d.ttl = Some(match w.arg()? {
                        "inherit" => 0,
                        _ => w
                            .current_number("ttl", 1..=255)
                            .map_err(|_| w.invalid("invalid TTL", "a TTL is 1 to 255, or inherit"))?
                            as u8,
                    });
                }
                "tos" | "tclass" | "dsfield" => {
                    d.tos = Some(match w.arg()? {
                        "inherit" => 1,
                        text => tos(text)
                            .ok_or_else(|| w.invalid("bad TOS value", "say inherit or hexadecimal 00 to fe"))?,
                    });
                }
                "pmtudisc" => d.nopmtudisc = Some(false),
                "nopmtudisc" => d.nopmtudisc = Some(true),
                "dev" => d.dev = Some(w.dev()?),
                "key" | "ikey" | "okey" | "seq" | "iseq" | "oseq" | "csum" | "icsum" | "ocsum" | "external"
                | "prl-default" | "prl-nodefault" | "prl-delete" | "6rd-prefix" | "6rd-relay_prefix" | "6rd-reset" => {
                    return Err(w.unsupported());
                }
                _ => {
                    if word == "name" {
                        w.arg()?;
                    }
                    if d.name.is_some() {
                        return Err(w.garbage("name", "say NAME mode sit remote ADDRESS local ADDRESS"));
                    }
                    if !value::valid_name(w.current()) {
                        return Err(w.invalid(
                            "\"name\" not a valid ifname",
                            "a name has 1 to 15 characters, no white space, no \"/\"",
                        ));
                    }
                    d.name = Some(w.current().to_owned());
                }
            }
        }
        Ok(d)
    }

    fn name(&self) -> Result<String, Failure> {
        self.name.clone().ok_or_else(|| {
            Failure::with_hint(exit::SYNTAX, "Not enough information: a tunnel name is required.", "say which tunnel")
        })
    }

    fn into_spec(self) -> Result<TunnelSpec, Failure> {
        let name = self.name()?;
        let lacks = |line: &str, hint: &str| Failure::with_hint(exit::SYNTAX, line, hint);
        let mode =
            self.mode.ok_or_else(|| lacks("cannot determine tunnel mode (sit)", "say mode sit for IPv6 in IPv4"))?;
        let remote = self.remote.ok_or_else(|| {
            lacks("Not enough information: \"remote\" is required.", "say remote ADDRESS: the only peer to be accepted")
        })?;
        let local = self.local.ok_or_else(|| {
            lacks("Not enough information: \"local\" is required.", "say local ADDRESS: the outer source address")
        })?;
        if self.ttl.is_some_and(|t| t != 0) && self.nopmtudisc == Some(true) {
            return Err(lacks(
                "ttl != 0 and nopmtudisc are incompatible",
                "a fixed TTL is only loop-safe with DF set; leave one of them out",
            ));
        }
        Ok(TunnelSpec {
            name,
            mode,
            local,
            remote,
            ttl: self.ttl.filter(|t| *t != 0),
            ttl_inherit: self.ttl == Some(0),
            tos: self.tos.filter(|t| *t != 1),
            nopmtudisc: self.nopmtudisc.unwrap_or(false),
            mtu: None,
            dev: self.dev,
            underlay_table: None,
        })
    }
}

/// An outer address. `any` is refused: a tunnel accepts only its configured peer.
fn outer(w: &mut Words<'_>) -> Result<IpAddr, Failure> {
    if w.arg()? == "any" {
        return Err(w.invalid("invalid address", "a tunnel has one fixed peer and one own address"));
    }
    let addr = w.current_addr(Some(Family::Inet))?;
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        return Err(w.invalid("invalid address", format!("{addr} cannot be a tunnel's end")));
    }
    Ok(addr)
}

/// A traffic class byte as iproute2 reads it: hexadecimal, with or without `0x`.
fn tos(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    let plain = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(hex, 16).ok()).flatten().filter(|t| t & 1 == 0)
}
