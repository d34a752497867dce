//! `duet trace`: follows packets through the running router step by step.

use super::capture::{check_filter, time_of_day};
use super::{Session, unexpected};
use crate::control::{Answer, Op, TraceInfo, TraceSelect, TracedPacket};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options, exit};
use crate::output::{Node, Out, Paint};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet trace add [ FILTER ] [ count NUMBER ]
       duet trace { show | paths | clear } [ -j ]
add     follow the next packets that fit (50 if no count is said), each step with its time
show    what was followed
paths   the different ways through the router, with their counts and times
clear   forget everything, stop following
FILTER is in tcpdump's words; \"duet capture help\" lists them. Followed packets take the
router's general path, all others are not slowed down; traces end by themselves.";

/// A command.
#[derive(Debug, PartialEq)]
enum What {
    Add(TraceSelect),
    Show,
    Paths,
    Clear,
    Help,
}

/// What the words say.
#[derive(Debug)]
pub(crate) struct Asked {
    what: What,
    pub options: Options,
}

/// Reads the words behind `trace`.
pub(crate) fn parse(words: &[&str], mut options: Options) -> Result<Asked, Failure> {
    let line = &mut Line::new(words);
    let mut what = None;
    let mut filter = Vec::new();
    while let Some(word) = line.next() {
        let taken = line.option(word, &mut options)?;
        match (word, &mut what) {
            _ if taken => {}
            ("-p" | "-pretty" | "--pretty", _) => (options.json, options.pretty) = (true, true),
            ("help" | "--help" | "-h", _) => what = Some(What::Help),
            ("count", Some(What::Add(select))) => select.count = line.number(1, router_io::runtime::MAX_TRACED)?,
            (word, Some(What::Add(_))) => filter.push((line.here(), word)),
            (word, None) => {
                let known = ["add", "show", "list", "paths", "clear"];
                what = match known.iter().find(|k| k.starts_with(word)) {
                    Some(&"add") => Some(What::Add(TraceSelect::default())),
                    Some(&"show" | &"list") => Some(What::Show),
                    Some(&"paths") => Some(What::Paths),
                    Some(&"clear") => Some(What::Clear),
                    _ => return Err(line.wrong("add, show, paths or clear")),
                }
            }
            _ => return Err(line.wrong("nothing more")),
        }
    }
    let mut what = what.unwrap_or(What::Show);
    if let What::Add(select) = &mut what {
        select.filter = check_filter(line, &filter)?;
    }
    Ok(Asked { what, options })
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
        What::Add(select) => {
            session.call(Op::TraceAdd(select))?;
            Ok(())
        }
        What::Clear => {
            session.call(Op::TraceClear)?;
            Ok(())
        }
        What::Show | What::Paths | What::Help => {
            let Answer::Traces(list) = session.call(Op::TraceShow)? else { return Err(unexpected()) };
            match (session.options.json, what) {
                (true, What::Paths) => json(&mut session, &paths(&list)),
                (true, _) => json(&mut session, &list),
                (false, What::Paths) => session.print(|out, _| print_paths(out, &list)),
                (false, _) => session.print(|out, _| print_traces(out, &list)),
            }
        }
    }
}

/// Prints a value as JSON.
pub(crate) fn json<T: serde::Serialize>(session: &mut Session<'_>, value: &T) -> Result<(), Failure> {
    let text = match session.options.pretty {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    let text = text.map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    Ok(writeln!(session.out, "{text}")?)
}

fn micros(nanos: u64) -> String {
    format!("{:.1}", nanos as f64 / 1000.0)
}

fn print_traces(out: &mut Out<'_>, list: &[TraceInfo]) -> std::io::Result<()> {
    if list.is_empty() {
        return out.text("Nothing is traced: \"duet trace add\" follows the next packets.\n");
    }
    for t in list {
        let filter = if t.filter.is_empty() { "all packets" } else { &t.filter };
        out.text(format_args!("trace {}  {filter}: {} of {} packets", t.id, t.count - t.left.min(t.count), t.count))?;
        out.text(if t.lost > 0 { format!(", {} steps lost\n", t.lost) } else { "\n".to_owned() })?;
        for p in &t.packets {
            let head = Node::new("").text(format!("{}  ", time_of_day(p.nanos))).painted(&p.iif, Paint::Name);
            let what = p.packet.as_ref().map_or_else(|| "a frame without an IP packet".to_owned(), ToString::to_string);
            let mut node = head.text(format!("  {what}"));
            for s in &p.steps {
                let line = Node::new("").text(format!("{:>8} us  {:<9} ", micros(s.after), s.what));
                let bad = matches!(s.what.as_str(), "dropped" | "no answer");
                let good = s.what == "sent";
                let paint = if bad {
                    Paint::Down
                } else if good {
                    Paint::Up
                } else {
                    Paint::Plain
                };
                let line = line.painted(&s.text, paint);
                let news = s.packet.as_ref().filter(|v| p.packet.as_ref() != Some(v)).map(ToString::to_string);
                node.push(match news {
                    Some(v) if s.what != "dropped" => line.text(format!(": {v}")),
                    _ => line,
                });
            }
            node.print(out)?;
        }
    }
    Ok(())
}

/// A way through the router.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Way {
    /// How many packets took it.
    packets: u64,
    /// Mean nanoseconds from the first step to the last.
    mean: u64,
    /// Its steps.
    path: Vec<String>,
}

/// The ways of all traced packets, the most frequent first.
fn paths(list: &[TraceInfo]) -> Vec<Way> {
    let mut index: HashMap<Vec<String>, (u64, u64)> = HashMap::new();
    for p in list.iter().flat_map(|t| &t.packets) {
        let e = index.entry(way(p)).or_default();
        e.0 += 1;
        e.1 += p.steps.last().map_or(0, |s| s.after);
    }
    let mut ways: Vec<Way> =
        index.into_iter().map(|(path, (packets, sum))| Way { packets, mean: sum / packets.max(1), path }).collect();
    ways.sort_by(|a, b| (b.packets, &a.path).cmp(&(a.packets, &b.path)));
    ways
}

/// What makes ways equal: ports, tunnels, next hops, ends; not addresses, lengths or times.
fn way(p: &TracedPacket) -> Vec<String> {
    let mut path = vec![p.iif.clone()];
    for s in &p.steps {
        let told = match s.what.as_str() {
            "ttl" | "decided" | "group" | "local" => continue,
            "lookup" => s.text.rsplit(" table ").next().map_or_else(|| s.what.clone(), |t| format!("table {t}")),
            "nexthop" => s.text.clone(),
            "sent" | "encap" | "decap" => {
                format!("{} {}", s.what, s.text.split(',').next().unwrap_or_default())
            }
            "cut" => "cut".to_owned(),
            other => format!("{other} {}", s.text),
        };
        if path.last() != Some(&told) {
            path.push(told);
        }
    }
    path
}

fn print_paths(out: &mut Out<'_>, list: &[TraceInfo]) -> std::io::Result<()> {
    let ways = paths(list);
    let all: u64 = ways.iter().map(|w| w.packets).sum();
    if all == 0 {
        return out.text("No packet was traced yet.\n");
    }
    out.text(format_args!("{:>8}  {:>6}  {:>10}  path\n", "packets", "share", "mean us"))?;
    for w in ways {
        let share = 100.0 * w.packets as f64 / all as f64;
        out.text(format_args!("{:>8}  {share:>5.1}%  {:>10}  {}\n", w.packets, micros(w.mean), w.path.join(" > ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::TraceStep;

    #[test]
    fn words_and_complaints() {
        let parse = |text: &str| parse(&text.split_whitespace().collect::<Vec<_>>(), Options::default());
        let a = parse("add icmp or icmp6 count 7").unwrap();
        assert_eq!(a.what, What::Add(TraceSelect { filter: "icmp or icmp6".into(), count: 7 }));
        assert_eq!(parse("").unwrap().what, What::Show);
        assert_eq!(parse("pa -j").unwrap().what, What::Paths);
        for (text, expected) in [
            ("ad udp port x", "a port from 0"),
            ("add udp prot x", "expected and, or"),
            ("add count 0", "a number from 1"),
            ("dance", "add, show, paths or clear"),
            ("show all", "nothing more"),
        ] {
            let said = crate::complaint::shown(parse(text).unwrap_err(), "trace", text);
            assert!(said.contains('^') && said.contains(expected), "{said}");
        }
    }

    #[test]
    fn ways_are_told_apart_by_where_not_by_what() {
        let step = |what: &str, text: &str, after| TraceStep {
            after,
            what: what.into(),
            text: text.into(),
            detail: false,
            packet: None,
        };
        let packet = |dst: &str, len| TracedPacket {
            nanos: 0,
            worker: "worker0".into(),
            iif: "lan0".into(),
            packet: None,
            steps: vec![
                step("lookup", &format!("{dst} in table main"), 100),
                step("nexthop", "192.0.2.1 dev wan0", 200),
                step("sent", &format!("wan0, {len} bytes"), 300),
            ],
        };
        let list = [TraceInfo {
            id: 1,
            filter: String::new(),
            count: 3,
            left: 0,
            lost: 0,
            packets: vec![packet("10.0.0.1", 60), packet("10.0.0.2", 61)],
        }];
        let ways = paths(&list);
        assert_eq!(ways.len(), 1);
        assert_eq!((ways[0].packets, ways[0].mean), (2, 300));
        assert_eq!(ways[0].path, ["lan0", "table main", "192.0.2.1 dev wan0", "sent wan0"]);
    }
}
