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
    Delete(FilterDelete),
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
        let begins = matches!(word, "allow" | "permit" | "accept" | "deny" | "drop" | "reject");
        if (begins || word == ",") && !text.is_empty() {
            out.push(rule(w, first, &std::mem::take(&mut text))?);
        }
        // An argument may hold a whole rule, or several.
        for part in word.split_whitespace().filter(|p| *p != ",") {
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
        Failure::with_hint(exit::SYNTAX, line, e.why).at(first.max(w.here().min(first)))
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
        None => Ok(FilterCommand::Delete(d)),
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
