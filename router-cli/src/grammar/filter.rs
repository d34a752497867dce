//! `filter show|add|del|replace|set`. Rules need no separator: each begins with allow, deny or reject.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, Object};
use crate::control::{FilterDelete, FilterRules, FilterSelect, GuardChange, parse_limit};
use router_core::filter::{LimitKind, LimitSpec, Rule, Urpf, UrpfMode, valid_name};

/// `filter ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterCommand {
    /// show.
    Show(FilterSelect),
    /// add.
    Add(FilterRules),
    /// replace.
    Replace(FilterRules),
    /// del.
    Delete(Box<FilterDelete>),
    /// set dev.
    Set(Box<GuardChange>),
}

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Filter(FilterCommand::Show(FilterSelect::default())));
    }
    let command = match () {
        () if w.matches(&["show", "lst", "list"]) => FilterCommand::Show(select(w)?),
        () if w.matches(&["help"]) => return Ok(Command::Help(Object::Filter)),
        () if w.matches(&["add"]) => {
            let name = name(w)?;
            let at = match w.peek() {
                Some("at") => {
                    w.next();
                    Some(w.number("at", 1..=u64::from(u32::MAX))? as u32)
                }
                _ => None,
            };
            FilterCommand::Add(FilterRules { name, at, rules: rules(w)? })
        }
        () if w.matches(&["replace"]) => {
            let name = name(w)?;
            FilterCommand::Replace(FilterRules { name, at: None, rules: rules(w)? })
        }
        () if w.matches(&["delete"]) => delete(w)?,
        () if w.matches(&["set"]) => FilterCommand::Set(Box::new(set(w)?)),
        () => return Err(w.unknown_command("filter")),
    };
    Ok(Command::Filter(command))
}

fn name(w: &mut Words<'_>) -> Result<String, Failure> {
    let name = w.arg()?;
    match valid_name(name) {
        true => Ok(name.to_owned()),
        false => Err(w.invalid("not a filter's name", "a name has 1 to 31 letters, digits, \".\", \"_\" and \"-\"")),
    }
}

fn select(w: &mut Words<'_>) -> Result<FilterSelect, Failure> {
    let mut select = FilterSelect::default();
    while let Some(word) = w.next() {
        match word {
            "dev" if select.dev.is_none() => select.dev = Some(w.dev()?),
            name if select.name.is_none() => select.name = Some(name.to_owned()),
            _ => return Err(w.garbage("filter", "say filter show [NAME] [dev PORT]")),
        }
    }
    Ok(select)
}

/// All rules up to the end of the line.
fn rules(w: &mut Words<'_>) -> Result<Vec<Rule>, Failure> {
    let mut out = Vec::new();
    let mut text = String::new();
    let first = w.here() + 1;
    while let Some(word) = w.next() {
        // An argument may hold a whole rule, or several.
        for part in word.split_whitespace() {
            let begins = matches!(part, "allow" | "permit" | "accept" | "deny" | "drop" | "reject");
            if (begins || part == ",") && !text.is_empty() {
                out.push(rule(w, first, &std::mem::take(&mut text))?);
            }
            if part == "," {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(part);
        }
    }
    if !text.is_empty() {
        out.push(rule(w, first, &text)?);
    }
    if out.is_empty() { Err(w.incomplete()) } else { Ok(out) }
}

fn rule(w: &Words<'_>, first: usize, text: &str) -> Result<Rule, Failure> {
    text.parse::<Rule>().map_err(|e| {
        let line = format!("Error: argument \"{}\" is wrong: no rule of a filter.", e.word);
        let at = (first..=w.here()).find(|i| w.word(*i).split_whitespace().any(|part| part == e.word));
        Failure::with_hint(exit::SYNTAX, line, e.why).at(at.unwrap_or(first))
    })
}

fn delete(w: &mut Words<'_>) -> Result<FilterCommand, Failure> {
    let mut d = FilterDelete { name: name(w)?, number: None, rule: None };
    match w.peek() {
        None => {}
        Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
            d.number = Some(w.number("rule", 1..=u64::from(u32::MAX))? as u32)
        }
        Some(_) => {
            let mut list = rules(w)?;
            if list.len() > 1 {
                return Err(w.invalid("one rule at a time", "say filter del NAME RULE for each"));
            }
            d.rule = list.pop();
        }
    }
    match w.next() {
        None => Ok(FilterCommand::Delete(Box::new(d))),
        Some(_) => Err(w.garbage("filter", "say filter del NAME [ NUMBER | RULE ]")),
    }
}

fn set(w: &mut Words<'_>) -> Result<GuardChange, Failure> {
    let mut change = GuardChange::default();
    let mut limits: Option<LimitSpec> = None;
    let mut clear = |word: &str| change.clear.push(word.to_owned());
    while let Some(word) = w.next() {
        match word {
            "dev" => change.dev = w.dev()?,
            "in" | "out" => {
                let (field, key) = match word {
                    "in" => (&mut change.set.filter_in, "filter_in"),
                    _ => (&mut change.set.filter_out, "filter_out"),
                };
                match w.peek() {
                    Some("none") => {
                        w.next();
                        clear(key);
                    }
                    _ => *field = Some(name(w)?),
                }
            }
            "urpf" => {
                let mode = match w.arg()? {
                    "none" | "off" => {
                        clear("urpf");
                        continue;
                    }
                    "strict" => UrpfMode::Strict,
                    "feasible" => UrpfMode::Feasible,
                    "loose" => UrpfMode::Loose,
                    _ => return Err(w.invalid("invalid mode", "a mode is strict, feasible, loose or none")),
                };
                let allow_default = w.peek() == Some("allow-default");
                if allow_default {
                    w.next();
                }
                change.set.urpf = Some(Urpf { mode, allow_default });
            }
            "mss" => match w.arg()? {
                "default" => clear("mss"),
                // As in nft's and iptables' words: mss clamp to-pmtu.
                "clamp" => {
                    let text = w.arg()?;
                    change.set.mss = Some(text.parse().map_err(|e: String| w.invalid("invalid size", e))?);
                }
                text => change.set.mss = Some(text.parse().map_err(|e: String| w.invalid("invalid size", e))?),
            },
            "limit" => match w.arg()? {
                "default" => clear("limits"),
                kind => {
                    let found = LimitKind::ALL.iter().find(|(_, n)| *n == kind);
                    let (kind, _) = found.ok_or_else(|| {
                        w.invalid("unknown kind", "kinds are neighbor, icmp and other; or default for all")
                    })?;
                    let text = w.arg()?;
                    let limit = parse_limit(text).map_err(|e| w.invalid("invalid limit", e))?;
                    *limits.get_or_insert_default().of_mut(*kind) = limit;
                }
            },
            port if change.dev.is_empty() && super::value::valid_name(port) => change.dev = port.to_owned(),
            _ => return Err(w.garbage("filter", SET)),
        }
    }
    change.set.limits = limits;
    if change.dev.is_empty() { Err(w.incomplete()) } else { Ok(change) }
}

const SET: &str =
    "say filter set dev PORT [ in NAME ] [ out NAME ] [ urpf MODE ] [ mss SIZE ] [ limit KIND RATE/BURST ]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::parse_command;

    fn parse(text: &str) -> Result<FilterCommand, Failure> {
        let words: Vec<&str> = text.split('|').map(str::trim).collect();
        let words: Vec<&str> = if words.len() > 1 { words } else { text.split_whitespace().collect() };
        match parse_command(&words, None)? {
            Command::Filter(c) => Ok(c),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rules_need_no_separator_and_may_be_quoted() {
        let want: Vec<String> =
            ["allow tcp from 192.0.2.0/24 dport 22,80", "deny udp", "allow"].map(str::to_owned).to_vec();
        for text in [
            "filter replace wan allow tcp from 192.0.2.0/24 dport 22,80 deny udp allow",
            "filter replace wan allow tcp from 192.0.2.0/24 dport 22,80 , deny udp , allow",
            "filter | replace | wan | allow tcp from 192.0.2.0/24 dport 22,80 | deny udp | allow",
        ] {
            let FilterCommand::Replace(f) = parse(text).unwrap() else { panic!("{text}") };
            assert_eq!(f.name, "wan");
            assert_eq!(f.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{text}");
        }
    }

    #[test]
    fn commands_and_their_complaints() {
        let FilterCommand::Add(f) = parse("filter add wan at 2 deny tcp dport 25").unwrap() else { panic!() };
        assert_eq!((f.at, f.rules.len()), (Some(2), 1));
        let FilterCommand::Delete(d) = parse("filter del wan 3").unwrap() else { panic!() };
        assert_eq!((d.number, d.rule), (Some(3), None));
        let FilterCommand::Delete(d) = parse("filter del wan deny udp").unwrap() else { panic!() };
        assert_eq!(d.rule.unwrap().to_string(), "deny udp");
        let text = "filter set dev lan0 in wan out none urpf strict allow-default mss to-pmtu limit neighbor 100/5";
        let FilterCommand::Set(c) = parse(text).unwrap() else { panic!() };
        assert_eq!((c.dev.as_str(), c.set.filter_in.as_deref()), ("lan0", Some("wan")));
        assert_eq!(c.clear, ["filter_out"]);
        assert_eq!(c.set.urpf.unwrap().to_string(), "strict allow-default");
        assert_eq!(c.set.limits.unwrap().neighbor.rate, 100);
        for wrong in [
            "filter replace wan",
            "filter replace deny allow",
            "filter add wan allow dport 5",
            "filter add wan at 0 allow",
            "filter set in wan",
            "filter set dev lan0 urpf sideways",
            "filter set dev lan0 mss 12",
            "filter set dev lan0 limit cpu 5",
            "filter set dev lan0 limit icmp x",
            "filter del wan 3 4",
            "filter fly",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
