//! `tunnel add NAME broker URL user USER key-file FILE ...`: a tunnel that a broker gives.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, TunnelCommand, value};
use crate::control::JoinSpec;
use router_core::addr::Family;

/// Whether the words behind `add` are about a broker.
pub(super) fn is_join(w: &Words<'_>) -> bool {
    let rest = w.rest();
    rest.first() == Some(&"broker") || rest.get(1) == Some(&"broker")
}

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut j = JoinSpec {
        name: String::new(),
        url: String::new(),
        user: String::new(),
        key: String::new(),
        prefix: Some(48),
        dev: None,
        lan: None,
        no_default: false,
        local: None,
    };
    let mut file = None;
    while let Some(word) = w.next() {
        match word {
            "broker" => {
                let url = w.arg()?;
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    return Err(w.invalid("invalid address of a broker", "it begins with http:// or https://"));
                }
                j.url = url.to_owned();
            }
            "user" => j.user = w.arg()?.to_owned(),
            "key-file" => file = Some(w.arg()?.to_owned()),
            "prefix" => {
                j.prefix = match w.arg()? {
                    "0" | "none" => None,
                    "48" => Some(48),
                    "64" => Some(64),
                    _ => return Err(w.invalid("invalid prefix length", "brokers delegate 48 or 64, or none")),
                }
            }
            "dev" => j.dev = Some(w.dev()?),
            "lan" => j.lan = Some(w.dev()?),
            "nodefault" => j.no_default = true,
            "local" => {
                w.arg()?;
                j.local = Some(w.current_addr(Some(Family::Inet))?);
            }
            _ => {
                let name = if word == "name" { w.arg()? } else { word };
                if !j.name.is_empty() {
                    return Err(w.garbage("name", "say NAME broker URL user USER key-file FILE"));
                }
                if !value::valid_name(name) {
                    let hint = "a name has 1 to 15 characters, no white space, no \"/\"";
                    return Err(w.invalid("\"name\" not a valid ifname", hint));
                }
                j.name = name.to_owned();
            }
        }
    }
    let lacks = |what: &str, hint: &str| {
        Failure::with_hint(exit::SYNTAX, format!("Not enough information: \"{what}\" is required."), hint)
    };
    match file {
        _ if j.name.is_empty() => Err(lacks("name", "say NAME broker URL user USER key-file FILE")),
        _ if j.user.is_empty() => Err(lacks("user", "say user USER: the account at the broker")),
        None => Err(lacks("key-file", "say key-file FILE: a file with the account's password in it")),
        Some(file) => Ok(Command::Tunnel(TunnelCommand::Join(Box::new(j), file.into()))),
    }
}
