//! `duet flow`: flows that the kernel forwards by itself.

use super::trace::json;
use super::{Session, unexpected};
use crate::control::{Answer, FlowInfo, FlowsInfo, Op};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options};
use crate::output::Out;
use std::io::Write;
use std::path::PathBuf;

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet flow [ show ] [ limit NUMBER ] [ -j ]
       duet flow flush
show   flows that are offloaded to the kernel, those with the most bytes first [limit 100]
flush  forget them; those that still have packets are learned again at once
Offloading is off unless the configuration has [offload] flows = true; see docs/flow-offload.md.";

/// Flows that are shown, if nobody says how many; and at most.
const SHOWN: u64 = 100;
const MOST_SHOWN: u64 = 10_000;

/// A command.
#[derive(Debug, PartialEq)]
enum What {
    Show(u64),
    Flush,
    Help,
}

/// What the words say.
#[derive(Debug)]
pub(crate) struct Asked {
    what: What,
    pub options: Options,
}

/// Reads the words behind `flow`.
pub(crate) fn parse(words: &[&str], mut options: Options) -> Result<Asked, Failure> {
    let line = &mut Line::new(words);
    let mut what = None;
    while let Some(word) = line.next() {
        let taken = line.option(word, &mut options)?;
        match (word, &what) {
            _ if taken => {}
            ("-p" | "-pretty" | "--pretty", _) => (options.json, options.pretty) = (true, true),
            ("help" | "--help" | "-h", _) => what = Some(What::Help),
            ("limit", None | Some(What::Show(_))) => what = Some(What::Show(line.number(1, MOST_SHOWN)?)),
            (word, None) => {
                what = Some(match ["show", "list", "flush"].iter().find(|k| k.starts_with(word)) {
                    Some(&"flush") => What::Flush,
                    Some(_) => What::Show(SHOWN),
                    None => return Err(line.wrong("show or flush")),
                });
            }
            (_, Some(What::Show(_))) => return Err(line.wrong("limit NUMBER")),
            _ => return Err(line.wrong("nothing more")),
        }
    }
    Ok(Asked { what: what.unwrap_or(What::Show(SHOWN)), options })
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
    let limit = match what {
        What::Flush => return session.call(Op::FlowFlush).map(|_| ()),
        What::Show(limit) => limit,
        What::Help => SHOWN,
    };
    let Answer::Flows(info) = session.call(Op::FlowShow { limit })? else { return Err(unexpected()) };
    if session.options.json {
        return json(&mut session, &info);
    }
    session.print(|out, _| print(out, &info))
}

fn print(out: &mut Out<'_>, info: &FlowsInfo) -> std::io::Result<()> {
    let Some(s) = &info.status else {
        return out.text("Offloading is off: \"[offload] flows = true\" in the configuration turns it on.\n");
    };
    out.text(format_args!(
        "{} of at most {} flows offloaded, {} packets {} bytes, generation {}\n",
        s.flows, s.max, s.packets, s.bytes, s.generation
    ))?;
    if s.failed > 0 {
        out.text(format_args!("{} packets were dropped by the kernel for want of memory\n", s.failed))?;
    }
    if let Some(why) = &s.suspended {
        out.text(format_args!("suspended: {why}\n"))?;
    }
    info.flows.iter().try_for_each(|f| flow(out, f))
}

fn flow(out: &mut Out<'_>, f: &FlowInfo) -> std::io::Result<()> {
    out.text(format_args!(
        "{} from {} sport {} to {} dport {} iif {}",
        f.proto, f.src, f.sport, f.dst, f.dport, f.iif
    ))?;
    if f.tos != 0 {
        out.text(format_args!(" tos {:#04x}", f.tos))?;
    }
    if f.flowlabel != 0 {
        out.text(format_args!(" flowlabel {:#07x}", f.flowlabel))?;
    }
    let tunnel = f.tunnel.as_ref().map_or_else(String::new, |t| format!(" tunnel {t}"));
    out.text(format_args!(
        "\n    dev {}{tunnel} packets {} segments {} bytes {}",
        f.oif, f.packets, f.segments, f.bytes
    ))?;
    let stale = if f.stale { " stale" } else { "" };
    out.text(format_args!(" age {:.1}s idle {:.1}s{stale}\n", f.age, f.idle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_complaints() {
        let parse = |text: &str| parse(&text.split_whitespace().collect::<Vec<_>>(), Options::default());
        for (text, want) in [
            ("", What::Show(100)),
            ("sh", What::Show(100)),
            ("limit 7", What::Show(7)),
            ("show limit 3 -j", What::Show(3)),
            ("flush", What::Flush),
            ("help", What::Help),
        ] {
            assert_eq!(parse(text).unwrap_or_else(|e| panic!("{text}: {}", e.line)).what, want, "{text}");
        }
        for (text, expected) in [
            ("dance", "show or flush"),
            ("flush all", "nothing more"),
            ("show all", "limit NUMBER"),
            ("limit 0", "from 1 to 10000"),
            ("limit", "number"),
        ] {
            let said = crate::complaint::shown(parse(text).unwrap_err(), "flow", text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
