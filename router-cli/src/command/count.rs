//! `duet count`: routes and next hops whose traffic is counted exactly, from the moment that somebody asks for it.

use super::trace::json;
use super::{Session, unexpected};
use crate::control::{Answer, CountInfo, CountTarget, Op};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options, table_from_name, table_name};
use crate::output::Out;
use router_core::addr::{parse_addr, parse_prefix};
use router_core::port::TableId;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet count { add | del } route PREFIX [ table TABLE ]
       duet count { add | del } nexthop { ADDRESS [ dev PORT ] | dev PORT | id ID }
       duet count [ show ] [ --watch [ SECONDS ] ] [ -j ]
       duet count clear
route    packets for which the route to this prefix wins, whatever route that is
nexthop  packets that routes and groups send to this gateway; without address the tunnel, or
         the hosts on the link; id: the next hop of an object, or each of its group
Packets of counted routes take the router's general path; all others are not slowed down.";

/// A command.
#[derive(Debug, PartialEq)]
enum What {
    Add(CountTarget),
    Delete(CountTarget),
    Show(Option<Duration>),
    Clear,
    Help,
}

/// What the words say.
#[derive(Debug)]
pub(crate) struct Asked {
    what: What,
    pub options: Options,
}

/// Reads the words behind `count`.
pub(crate) fn parse(words: &[&str], mut options: Options) -> Result<Asked, Failure> {
    const COMMANDS: &str = "add, del, show or clear";
    let line = &mut Line::new(words);
    let mut what = None;
    while let Some(word) = line.next() {
        let taken = line.option(word, &mut options)?;
        match (word, &mut what) {
            _ if taken => {}
            ("-p" | "-pretty" | "--pretty", _) => (options.json, options.pretty) = (true, true),
            ("help" | "--help" | "-h", _) => what = Some(What::Help),
            ("--watch", None | Some(What::Show(None))) => {
                let given = line.peek().is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit()));
                let read = |w: &str| w.parse::<f64>().ok().filter(|s| (0.1..=86_400.0).contains(s));
                let seconds = if given { line.parsed("seconds, from 0.1 to 86400", read)? } else { 1.0 };
                what = Some(What::Show(Some(Duration::from_secs_f64(seconds))));
            }
            (word, None) => {
                let known = ["add", "delete", "show", "list", "clear"];
                what = Some(match known.iter().find(|k| k.starts_with(word)) {
                    Some(&"add") => What::Add(target(line)?),
                    Some(&"delete") => What::Delete(target(line)?),
                    Some(&"show" | &"list") => What::Show(None),
                    Some(&"clear") => What::Clear,
                    _ => return Err(line.wrong(COMMANDS)),
                });
            }
            _ => return Err(line.wrong("nothing more")),
        }
    }
    Ok(Asked { what: what.unwrap_or(What::Show(None)), options })
}

fn target(line: &mut Line<'_>) -> Result<CountTarget, Failure> {
    const KINDS: &str = "route or nexthop";
    let kind = line.value(KINDS)?;
    if "route".starts_with(kind) {
        let dst = line.parsed("a prefix, as in 203.0.113.0/24", |w| match w {
            "default" => None,
            _ => parse_prefix(w).ok(),
        })?;
        let mut table = TableId::MAIN;
        if line.peek().is_some_and(|w| w.len() > 1 && "table".starts_with(w)) {
            line.next();
            table = line.parsed("main or the number of a table", table_from_name)?;
        }
        return Ok(CountTarget::Route { dst: dst.trunc(), table });
    }
    if !"nexthop".starts_with(kind) {
        return Err(line.wrong(KINDS));
    }
    let (mut via, mut dev) = (None, None);
    loop {
        match line.peek() {
            Some("id") if via.is_none() && dev.is_none() => {
                line.next();
                return Ok(CountTarget::Object(line.number(1, u64::from(u32::MAX))? as u32));
            }
            Some("dev") if dev.is_none() => {
                line.next();
                dev = Some(line.value("the name of a port or tunnel")?.to_owned());
            }
            // As routes have it.
            Some("via" | "inet" | "inet6") if via.is_none() => _ = line.next(),
            Some(word) if via.is_none() && dev.is_none() && !word.starts_with('-') => {
                via = Some(line.parsed("an address, dev PORT or id ID", |w| parse_addr(w).ok())?);
            }
            _ if via.is_none() && dev.is_none() => {
                return Err(line.complain(
                    line.here() + 1,
                    "The command is not complete.",
                    "an address, dev PORT or id ID",
                ));
            }
            _ => return Ok(CountTarget::NextHop { via, dev }),
        }
    }
}

/// Executes a command.
pub(crate) fn run(
    asked: Asked,
    out: &mut dyn Write,
    color: bool,
    socket: impl FnOnce(&Options) -> Result<PathBuf, Failure>,
) -> Result<(), Failure> {
    let Asked { what, options } = asked;
    if what == What::Help {
        return Ok(writeln!(out, "{USAGE}")?);
    }
    let mut session = Session::new(socket(&options)?, options, out, color);
    match what {
        What::Add(target) => session.call(Op::CountAdd(target)).map(|_| ()),
        What::Delete(target) => session.call(Op::CountDelete(target)).map(|_| ()),
        What::Clear => session.call(Op::CountClear).map(|_| ()),
        What::Show(None) | What::Help => {
            let list = ask(&mut session)?;
            if session.options.json {
                return json(&mut session, &list);
            }
            session.print(|out, _| print(out, &list))
        }
        What::Show(Some(every)) => watch(&mut session, every),
    }
}

fn ask(session: &mut Session<'_>) -> Result<Vec<CountInfo>, Failure> {
    match session.call(Op::CountShow)? {
        Answer::Counts(list) => Ok(list),
        _ => Err(unexpected()),
    }
}

/// Again and again, with rates.
fn watch(session: &mut Session<'_>, every: Duration) -> Result<(), Failure> {
    let mut before = ask(session)?;
    let mut at = Instant::now();
    loop {
        std::thread::sleep(every.saturating_sub(at.elapsed()));
        let now = ask(session)?;
        let seconds = at.elapsed().as_secs_f64().max(0.001);
        at = Instant::now();
        super::drops::again(session, Some(1.0))?;
        let rates = now.iter().map(|i| {
            let old = before.iter().find(|o| o.of == i.of).map_or((0, 0), |o| (o.packets, o.bytes));
            let per_second = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            (per_second(i.packets, old.0), 8.0 * per_second(i.bytes, old.1))
        });
        let rates: Vec<(f64, f64)> = rates.collect();
        if session.options.json {
            let list: Vec<_> = now
                .iter()
                .zip(&rates)
                .map(|(i, r)| serde_json::json!({ "of": i.of, "packets": i.packets, "bytes": i.bytes, "pps": r.0, "bps": r.1 }))
                .collect();
            json(session, &list)?;
        } else {
            session.print(|out, _| {
                out.text(format_args!(
                    "{:>14} {:>16} {:>12} {:>14}  what\n",
                    "packets", "bytes", "packets/s", "bit/s"
                ))?;
                now.iter().zip(&rates).try_for_each(|(i, r)| {
                    let of = name(&i.of);
                    out.text(format_args!("{:>14} {:>16} {:>12.0} {:>14.0}  {of}\n", i.packets, i.bytes, r.0, r.1))
                })
            })?;
        }
        session.out.flush()?;
        before = now;
    }
}

fn print(out: &mut Out<'_>, list: &[CountInfo]) -> std::io::Result<()> {
    if list.is_empty() {
        return out.text("Nothing is counted: \"duet count add route PREFIX\" begins to.\n");
    }
    out.text(format_args!("{:>14} {:>16}  what\n", "packets", "bytes"))?;
    list.iter().try_for_each(|i| out.text(format_args!("{:>14} {:>16}  {}\n", i.packets, i.bytes, name(&i.of))))
}

/// As it is said to count it.
fn name(of: &CountTarget) -> String {
    match of {
        CountTarget::Route { dst, table: TableId::MAIN } => format!("route {dst}"),
        CountTarget::Route { dst, table } => format!("route {dst} table {}", table_name(*table)),
        CountTarget::NextHop { via, dev } => {
            let via = via.map_or_else(String::new, |v| format!(" {v}"));
            let dev = dev.as_deref().map_or_else(String::new, |d| format!(" dev {d}"));
            format!("nexthop{via}{dev}")
        }
        CountTarget::Object(id) => format!("nexthop id {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_complaints() {
        let parse = |text: &str| parse(&text.split_whitespace().collect::<Vec<_>>(), Options::default());
        let route = |dst: &str, table| CountTarget::Route { dst: dst.parse().unwrap(), table };
        let hop = |via: Option<&str>, dev: Option<&str>| CountTarget::NextHop {
            via: via.map(|v| v.parse().unwrap()),
            dev: dev.map(str::to_owned),
        };
        for (text, want) in [
            ("", What::Show(None)),
            ("sh", What::Show(None)),
            ("--watch", What::Show(Some(Duration::from_secs(1)))),
            ("show --watch 0.5 -j", What::Show(Some(Duration::from_millis(500)))),
            ("clear", What::Clear),
            ("add route 203.0.113.0/24", What::Add(route("203.0.113.0/24", TableId::MAIN))),
            ("a ro 2001:db8::/32 table 7", What::Add(route("2001:db8::/32", TableId(7)))),
            ("del nexthop 192.0.2.9", What::Delete(hop(Some("192.0.2.9"), None))),
            ("add nexthop via inet6 fe80::1 dev lan0", What::Add(hop(Some("fe80::1"), Some("lan0")))),
            ("add nexthop dev he", What::Add(hop(None, Some("he")))),
            ("add nexthop id 7 -j", What::Add(CountTarget::Object(7))),
        ] {
            assert_eq!(parse(text).unwrap_or_else(|e| panic!("{text}: {}", e.line)).what, want, "{text}");
        }
        for (text, wrong, expected) in [
            ("dance", "dance", "add, del, show or clear"),
            ("add", " ", "route or nexthop"),
            ("add rout", " ", "a prefix"),
            ("add port lan0", "port", "route or nexthop"),
            ("add route default", "default", "a prefix"),
            ("add route 10.0.0.0/33", "10.0.0.0/33", "a prefix"),
            ("add route 10.0.0.0/8 table x", "x", "main or the number"),
            ("add route 10.0.0.0/8 tables", "tables", "nothing more"),
            ("add nexthop", " ", "an address, dev PORT or id ID"),
            ("add nexthop lan0", "lan0", "an address, dev PORT or id ID"),
            ("add nexthop 192.0.2.1 dev", " ", "the name of a port"),
            ("add nexthop id 0", "0", "a number from 1"),
            ("show all", "all", "nothing more"),
            ("--watch 0", "0", "seconds"),
        ] {
            let said = crate::complaint::shown(parse(text).unwrap_err(), "count", text);
            let lines: Vec<&str> = said.lines().collect();
            assert!(said.contains(expected), "{text}: {said}");
            let at = lines[2].find('^').unwrap();
            let under: String = lines[1].chars().skip(at).take(wrong.len()).collect();
            assert_eq!(under.trim(), wrong.trim(), "{text}: {said}");
        }
    }
}
