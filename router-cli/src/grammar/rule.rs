//! `rule add|del|show|flush`, and the rule lines of a configuration.

use super::failure::{Failure, exit};
use super::route::{parse_proto, parse_table};
use super::value::parse_number;
use super::words::Words;
use super::{Command, Object, RuleCommand};
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::policy::{Mark, PortSpan, RuleAction, RuleSpec};
use router_core::port::TableId;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    let rule = |c| Ok(Command::Rule(c));
    if w.next().is_none() {
        return rule(RuleCommand::Show(None));
    }
    match () {
        () if w.matches(&["list", "lst", "show"]) => rule(RuleCommand::Show(parse_filter(w)?)),
        () if w.matches(&["add"]) => rule(RuleCommand::Add(Box::new(parse_spec(w)?.0))),
        () if w.matches(&["delete"]) => {
            if w.peek().is_none() {
                return Err(Failure::with_hint(
                    exit::USAGE,
                    "\"duet rule del\" requires arguments.",
                    "say which rule: its priority, or the words it was added with",
                ));
            }
            let (spec, said) = parse_spec(w)?;
            rule(RuleCommand::Delete(Box::new(spec), !said))
        }
        () if w.matches(&["flush"]) => match w.next() {
            None => rule(RuleCommand::Flush),
            Some(_) => Err(w.garbage("flush", "\"duet rule flush\" deletes all rules but those of priority 0")),
        },
        () if w.matches(&["save", "restore"]) => Err(w.fail_here(
            exit::REFUSED,
            "RTNETLINK answers: Operation not supported".into(),
            "rules that stay are written into the configuration: [rules]".into(),
        )),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Rule)),
        () => Err(w.unknown_command("rule")),
    }
}

/// What `rule show` is narrowed to.
fn parse_filter(w: &mut Words<'_>) -> Result<Option<(Box<RuleSpec>, bool)>, Failure> {
    match w.peek() {
        None => Ok(None),
        Some(_) => parse_spec(w).map(|(r, said)| Some((Box::new(r), said))),
    }
}

/// A rule, and whether what it does was said.
pub(super) fn parse_spec(w: &mut Words<'_>) -> Result<(RuleSpec, bool), Failure> {
    let mut r = RuleSpec::new(w.family.unwrap_or(Family::Inet), RuleAction::Lookup(TableId::MAIN));
    let (mut said, mut family) = (false, w.family);
    let mut action = |r: &mut RuleSpec, a: RuleAction, w: &Words<'_>| {
        if std::mem::replace(&mut said, true) {
            return Err(w.duplicate("action"));
        }
        r.action = a;
        Ok(())
    };
    while let Some(word) = w.next() {
        match word {
            "not" => r.not = true,
            "from" | "to" => {
                let net = parse_net(w, family)?;
                if let Some(net) = net {
                    let of = Family::of_net(&net);
                    if family.is_some_and(|f| f != of) {
                        return Err(w.invalid(
                            "a prefix of the other family",
                            "a rule is of one family; -4 or -6 in front says which",
                        ));
                    }
                    family = Some(of);
                }
                *(if word == "from" { &mut r.from } else { &mut r.to }) = net;
            }
            "fwmark" => r.fwmark = Some(parse_mark(w)?),
            "dscp" => {
                w.arg()?;
                let hint = "say a number from 0 to 63, or a name such as CS6, AF41 or EF";
                let value = code_point(w.current()).ok_or_else(|| w.invalid("invalid dscp", hint))?;
                r.dscp = Some(value);
            }
            "tos" | "dsfield" => {
                let tos = w.number("tos", 0..=255)? as u8;
                if tos & 3 != 0 {
                    return Err(w.invalid("the two lower bits are ECN's", "say dscp NUMBER instead"));
                }
                r.dscp = Some(tos >> 2);
            }
            "iif" | "dev" => r.iif = Some(w.dev()?),
            "ipproto" => {
                w.arg()?;
                let hint = "say tcp, udp, icmp, ipv6-icmp, sctp or a number from 1 to 255";
                r.ipproto = Some(ip_proto(w.current()).ok_or_else(|| w.invalid("invalid ipproto", hint))?);
            }
            "sport" => r.sport = Some(parse_span(w)?),
            "dport" => r.dport = Some(parse_span(w)?),
            "suppress_prefixlength" | "sup_pl" => {
                r.suppress_prefixlength = Some(w.number("suppress_prefixlength", 0..=128)? as u8);
            }
            "goto" => {
                let target = w.number("goto", 0..=u64::from(u32::MAX))? as u32;
                action(&mut r, RuleAction::Goto(target), w)?;
            }
            "nop" => action(&mut r, RuleAction::Nop, w)?,
            "l3mdev" => action(&mut r, RuleAction::L3mdev, w)?,
            "type" => {
                w.arg()?;
                let act = drop_action(w.current())
                    .ok_or_else(|| w.invalid("Failed to parse rule type", "say blackhole, prohibit or unreachable"))?;
                action(&mut r, act, w)?;
            }
            "oif" | "uidrange" | "tun_id" => return Err(foreign(w)),
            "realms" | "nat" | "map-to" | "suppress_ifgroup" | "sup_group" => {
                return Err(w.unsupported());
            }
            _ if w.matches(&["preference", "order", "priority"]) => {
                r.priority = Some(w.number("preference", 0..=u64::from(u32::MAX))? as u32);
            }
            _ if w.matches(&["table", "lookup"]) => {
                let table = parse_table(w, "invalid table ID")?;
                action(&mut r, RuleAction::Lookup(table), w)?;
            }
            _ if w.matches(&["protocol"]) => r.protocol = Some(parse_proto(w, "\"protocol\" value is invalid")?),
            other => match drop_action(other) {
                Some(act) => action(&mut r, act, w)?,
                None => {
                    return Err(w.invalid(
                        "Failed to parse rule type",
                        "say from, to, iif, fwmark, dscp, ipproto, sport, dport, priority, lookup TABLE, goto NUMBER, blackhole, prohibit or unreachable",
                    ));
                }
            },
        }
    }
    r.family = family.unwrap_or(Family::Inet);
    Ok((r, said))
}

fn drop_action(word: &str) -> Option<RuleAction> {
    Some(match word {
        "blackhole" => RuleAction::Blackhole,
        "prohibit" => RuleAction::Prohibit,
        "unreachable" => RuleAction::Unreachable,
        _ => return None,
    })
}

/// A prefix; None for all.
fn parse_net(w: &mut Words<'_>, family: Option<Family>) -> Result<Option<IpNet>, Failure> {
    match w.arg()? {
        "all" | "any" | "default" => Ok(None),
        _ => w.current_prefix(family).map(|n| Some(n).filter(|n| n.prefix_len() > 0)),
    }
}

/// `MARK` or `MARK/MASK`.
fn parse_mark(w: &mut Words<'_>) -> Result<Mark, Failure> {
    let text = w.arg()?;
    let number = |t: &str| parse_number(t).and_then(|n| u32::try_from(n).ok());
    let (value, mask) = text.split_once('/').map_or((text, None), |(v, m)| (v, Some(m)));
    let wrong = |what: &str| w.invalid(what, "say a number such as 1, 0x10 or 0x10/0xff");
    Ok(Mark {
        value: number(value).ok_or_else(|| wrong("fwmark value is invalid"))?,
        mask: mask.map_or(Some(u32::MAX), number).ok_or_else(|| wrong("fwmask value is invalid"))?,
    })
}

/// `N` or `N-M`.
fn parse_span(w: &mut Words<'_>) -> Result<PortSpan, Failure> {
    let text = w.arg()?;
    let port = |t: &str| parse_number(t).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    match (port(start), port(end)) {
        (Some(start), Some(end)) if start <= end => Ok(PortSpan { start, end }),
        _ => Err(w.invalid("invalid port range", "say a port from 1 to 65535, or two with \"-\" between")),
    }
}

pub(super) fn ip_proto(text: &str) -> Option<u8> {
    Some(match text {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "ipv6-icmp" | "icmpv6" => 58,
        "sctp" => 132,
        "gre" => 47,
        "esp" => 50,
        other => parse_number(other).and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0)?,
    })
}

/// A code point by number or name (RFC 2474, 2597, 3246).
fn code_point(text: &str) -> Option<u8> {
    let upper = text.to_ascii_uppercase();
    if upper == "EF" {
        return Some(46);
    }
    let digit = |at: usize| upper.as_bytes().get(at).and_then(|b| b.checked_sub(b'0')).filter(|d| *d < 8);
    match (upper.get(..2), upper.len()) {
        (Some("CS"), 3) => digit(2).map(|n| n << 3),
        (Some("AF"), 4) => match (digit(2), digit(3)) {
            (Some(class @ 1..=4), Some(drop @ 1..=3)) => Some(class << 3 | drop << 1),
            _ => None,
        },
        _ => parse_number(text).and_then(|n| u8::try_from(n).ok()).filter(|n| *n < 64),
    }
}

/// Parses a rule line of the configuration: what follows `rule add`.
pub fn parse_rule_line(words: &[&str], family: Option<Family>) -> Result<RuleSpec, Failure> {
    let (spec, said) = parse_spec(&mut Words::new(words, family))?;
    match said {
        true => Ok(spec),
        false => Err(Failure::with_hint(
            exit::SYNTAX,
            "Error: the rule does nothing.",
            "say lookup TABLE, goto NUMBER, blackhole, prohibit or unreachable",
        )),
    }
}

/// Selectors that are about local sockets, or about tunnels of another kind than ours.
fn foreign(w: &Words<'_>) -> Failure {
    let (why, hint) = match w.current() {
        "oif" => (
            "it selects packets of local sockets that are bound to a device, and a router has none",
            "say iif PORT for where packets come in",
        ),
        "uidrange" => {
            ("it selects packets of local users' sockets, and a router has none", "say from PREFIX or fwmark")
        }
        _ => (
            "it selects packets of tunnels without a configured peer, which there are not",
            "every tunnel is a port: say iif TUNNEL",
        ),
    };
    w.fail_here(exit::SYNTAX, format!("Error: \"{}\" has no meaning in a router: {why}.", w.current()), hint.into())
}
