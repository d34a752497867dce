//! `tunnel add NAME broker URL [ user USER key-file FILE ] ...`: a tunnel that a broker gives.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, TunnelCommand, value};
use crate::control::JoinSpec;
use crate::tsp_url::{KINDS, LOGINS, PREFIXES, TspUrl, is_tsp};
use router_core::addr::Family;

/// Whether the words behind `add` are about a broker.
pub(super) fn is_join(w: &Words<'_>) -> bool {
    let rest = w.rest();
    rest.first() == Some(&"broker") || rest.get(1) == Some(&"broker")
}

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut j = JoinSpec::default();
    let (mut file, mut prefix) = (None, None);
    while let Some(word) = w.next() {
        match word {
            "broker" => {
                let url = w.arg()?;
                if is_tsp(url) {
                    let tsp =
                        TspUrl::parse(url).map_err(|e| w.invalid("invalid address of a broker", e.to_string()))?;
                    j.user = if j.user.is_empty() { tsp.user.unwrap_or_default() } else { j.user };
                } else if !url.starts_with("http://") && !url.starts_with("https://") {
                    return Err(w.invalid("invalid address of a broker", "it begins with http://, https:// or tsp://"));
                }
                j.url = url.to_owned();
            }
            "user" => j.user = w.arg()?.to_owned(),
            "key-file" => file = Some(w.arg()?.to_owned()),
            "prefix" => {
                prefix = Some(match w.arg()? {
                    "0" | "none" => None,
                    n => match n.parse() {
                        Ok(n) if PREFIXES.contains(&n) => Some(n),
                        _ => return Err(w.invalid("invalid prefix length", "brokers delegate 48 or 64, or none")),
                    },
                });
            }
            "mode" => {
                let mode = w.arg()?;
                if !KINDS.iter().any(|(name, _)| *name == mode) {
                    return Err(w.invalid("invalid kind of tunnel", "any, 6in4, 6inudp4 or 4in6, from a tsp:// broker"));
                }
                j.mode = Some(mode.to_owned());
            }
            "auth" => {
                let auth = w.arg()?;
                if !LOGINS.contains(&auth) {
                    return Err(w.invalid("invalid login", "digest-md5, plain or anonymous, at a tsp:// broker"));
                }
                j.auth = Some(auth.to_owned());
            }
            "server" => {
                w.arg()?;
                j.server = Some(w.current_addr(None)?);
            }
            "dev" => j.dev = Some(w.dev()?),
            "lan" => j.lan = Some(w.dev()?),
            "nodefault" => j.no_default = true,
            "local" => {
                w.arg()?;
                // Tunnels by TSP may be in IPv6, too.
                j.local = Some(w.current_addr(Some(Family::Inet).filter(|_| !is_tsp(&j.url)))?);
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
    let tsp = is_tsp(&j.url);
    // Nobody gets prefixes without an account.
    let nobody = tsp && j.user.is_empty();
    j.prefix = prefix.unwrap_or(if nobody { None } else { Some(48) });
    let only_tsp = [("mode", j.mode.is_some()), ("auth", j.auth.is_some()), ("server", j.server.is_some())];
    let only_tsp = only_tsp.into_iter().find(|(_, said)| *said && !tsp);
    let file = match (file, only_tsp) {
        _ if j.name.is_empty() => return Err(lacks("name", "say NAME broker URL user USER key-file FILE")),
        (_, Some((word, _))) => {
            let line = format!("Error: \"{word}\" is for brokers that speak TSP.");
            return Err(Failure::with_hint(exit::SYNTAX, line, "their addresses begin with tsp://"));
        }
        _ if !tsp && !matches!(j.prefix, None | Some(48 | 64)) => {
            return Err(w.invalid("invalid prefix length", "this broker delegates 48 or 64, or none"));
        }
        (Some(_), _) if j.user.is_empty() => return Err(lacks("user", "say user USER: the account at the broker")),
        (None, _) if nobody => None,
        _ if j.user.is_empty() => return Err(lacks("user", "say user USER: the account at the broker")),
        (None, _) => return Err(lacks("key-file", "say key-file FILE: a file with the account's password in it")),
        (file, _) => file,
    };
    Ok(Command::Tunnel(TunnelCommand::Join(Box::new(j), file.map(Into::into))))
}
