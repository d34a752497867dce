//! `duet route diff A B`: what is in the one and not in the other, among the running router, the kernel's own table, a
//! configuration and what `route save` wrote.

use crate::command::Session;
use crate::control::{RouteSelect, TableSelect, default_path, find_socket};
use crate::grammar::{Failure, Options, exit, parse_options, parse_route_line, tokenize};
use crate::output::route_line;
use crate::shell::offline::{Offline, load};
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::port::TableId;
use router_core::spec::{HopSpec, RouteKind, RouteSpec, proto};
use router_io::netlink::{KernelRouteKind, Netlink};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// What makes a route this one and no other.
type Key = (TableId, IpNet, u32);
/// A side of the comparison: lines by key; equal ones beside each other.
type Side = BTreeMap<Key, Vec<String>>;

const USAGE: &str = "\
Usage: duet route diff SOURCE SOURCE [ -j ]
SOURCE := running          the running router
        | running:NAME     the running router of this name
        | kernel           the kernel's tables main, of both families
        | FILE             a configuration, or what \"duet route save\" wrote
Lines with - are only in the first, lines with + only in the second.
Where one source is a saved file or the kernel, routes that the router made for its own
addresses are left out. Exit code: 0 no difference, 1 differences, 2 trouble.";

/// Exit code of trouble, as that of diff(1).
const TROUBLE: u8 = 2;

/// Compares; the exit code is that of diff(1).
pub(crate) fn run(options: &Options, words: &[&str]) -> Result<ExitCode, Failure> {
    let mut options = options.clone();
    let mut names = Vec::new();
    let mut rest = words;
    while !rest.is_empty() {
        let (more, left) = parse_options(rest)?;
        options.merge(more);
        let Some((word, left)) = left.split_first() else { break };
        names.push(*word);
        rest = left;
    }
    if names.iter().any(|n| ["help", "-h", "--help"].contains(n)) {
        return Err(Failure::new(exit::SYNTAX, USAGE));
    }
    let [a, b] = names.as_slice() else {
        let third = words.iter().position(|w| Some(w) == names.get(2));
        return Err(Failure::with_hint(
            TROUBLE,
            "Error: two sources are compared.",
            "say two, such as \"duet route diff running kernel\"; \"duet route diff help\" explains them",
        )
        .at(third.unwrap_or(words.len()))
        .expecting(if third.is_some() { "nothing more" } else { "running, running:NAME, kernel or a file" }));
    };
    let trouble = |f: Failure| Failure { exit: TROUBLE, ..f };
    let (a, b) = (Source::of(a).map_err(trouble)?, Source::of(b).map_err(trouble)?);
    // Own addresses and link prefixes are nobody's to write down.
    let made = !(a.lacks_made() || b.lacks_made());
    let read = |s: &Source| s.read(&options, made).map_err(trouble);
    let (left, mut right) = (read(&a)?, read(&b)?);
    let mut gone: Vec<(Key, String)> = Vec::new();
    for (key, lines) in left {
        let mut others = right.remove(&key).unwrap_or_default();
        for line in lines {
            match others.iter().position(|o| *o == line) {
                Some(i) => drop(others.swap_remove(i)),
                None => gone.push((key, line)),
            }
        }
        if !others.is_empty() {
            right.insert(key, others);
        }
    }
    let new: Vec<(Key, String)> =
        right.into_iter().flat_map(|(k, lines)| lines.into_iter().map(move |l| (k, l))).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let color = crate::app::color(&options);
    print(&mut out, &gone, &new, options.json, color)?;
    out.flush()?;
    Ok(ExitCode::from(u8::from(!(gone.is_empty() && new.is_empty()))))
}

fn print(
    out: &mut dyn Write,
    gone: &[(Key, String)],
    new: &[(Key, String)],
    json: bool,
    color: bool,
) -> io::Result<()> {
    if json {
        let lines = |list: &[(Key, String)]| list.iter().map(|(_, l)| l.clone()).collect::<Vec<_>>();
        return writeln!(out, "{}", serde_json::json!({ "only_first": lines(gone), "only_second": lines(new) }));
    }
    let mut all: Vec<(&Key, char, &String)> = gone.iter().map(|(k, l)| (k, '-', l)).collect();
    all.extend(new.iter().map(|(k, l)| (k, '+', l)));
    // Old before new of the same route.
    all.sort_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
    for (_, sign, line) in all {
        match (color, sign) {
            (false, _) => writeln!(out, "{sign} {line}")?,
            (true, '-') => writeln!(out, "\u{1b}[31m- {line}\u{1b}[0m")?,
            (true, _) => writeln!(out, "\u{1b}[32m+ {line}\u{1b}[0m")?,
        }
    }
    Ok(())
}

enum Source {
    Running(Option<String>),
    Kernel,
    Configuration(String),
    Saved(String),
}

impl Source {
    fn of(word: &str) -> Result<Source, Failure> {
        match word {
            "running" => return Ok(Source::Running(None)),
            "kernel" => return Ok(Source::Kernel),
            _ => {}
        }
        if let Some(name) = word.strip_prefix("running:") {
            return Ok(Source::Running(Some(name.to_owned())));
        }
        let file = std::fs::File::open(word).map_err(|e| {
            let why = crate::control::plain(&e);
            let hint = "say running, running:NAME, kernel, a configuration or a saved file";
            Failure::with_hint(TROUBLE, format!("Cannot open \"{word}\": {why}"), hint)
        })?;
        // A configuration has a section; no route begins with a bracket.
        let mut lines = BufReader::new(io::Read::take(file, 1 << 20)).lines().map_while(Result::ok);
        let section = lines.any(|l| l.trim_start().starts_with('['));
        Ok(if section { Source::Configuration(word.to_owned()) } else { Source::Saved(word.to_owned()) })
    }

    fn lacks_made(&self) -> bool {
        matches!(self, Source::Kernel | Source::Saved(_))
    }

    fn read(&self, options: &Options, made: bool) -> Result<Side, Failure> {
        let mut side = Side::new();
        match self {
            Source::Running(name) => {
                let socket = match name {
                    Some(name) => default_path(name),
                    None => find_socket(options.socket.as_deref(), options.name.as_deref())
                        .map_err(|e| Failure::new(TROUBLE, e.to_string()))?,
                };
                of_router(&socket, made, &mut side)?;
            }
            Source::Configuration(file) => {
                let offline = Offline::start(&load(Path::new(file))?)?;
                of_router(&offline.socket(), made, &mut side)?;
            }
            Source::Saved(file) => of_file(file, &mut side)?,
            Source::Kernel => of_kernel(&mut side)?,
        }
        Ok(side)
    }
}

/// Written alike, whoever it comes from.
fn put(side: &mut Side, mut route: RouteSpec) {
    let key = (route.table_id(), route.dst, route.metric_or_default());
    route.metric = Some(key.2);
    // Who put it there is another matter, and which source address the router itself would take.
    (route.proto, route.src, route.table) = (None, None, Some(key.0));
    // A next-hop object is compared by what it leads to.
    route.nhid = None;
    for hop in &mut route.hops {
        hop.onlink = false;
    }
    side.entry(key).or_default().push(route_line(&route));
}

fn of_router(socket: &Path, made: bool, side: &mut Side) -> Result<(), Failure> {
    let mut sink = io::sink();
    let mut session = Session::new(socket.to_owned(), Options::default(), &mut sink, false);
    let select = RouteSelect { table: TableSelect::All, ..RouteSelect::default() };
    session.each_route(&select, |_, info| {
        let own = info.route.proto == Some(proto::KERNEL)
            || matches!(info.route.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast);
        if made || !own {
            put(side, info.route.clone());
        }
        Ok(())
    })
}

fn of_file(file: &str, side: &mut Side) -> Result<(), Failure> {
    let cannot = |e: &io::Error| Failure::new(TROUBLE, format!("Cannot read \"{file}\": {}", crate::control::plain(e)));
    let lines = BufReader::new(std::fs::File::open(file).map_err(|e| cannot(&e))?).lines();
    for (number, line) in (1u64..).zip(lines) {
        let line = line.map_err(|e| cannot(&e))?;
        let tokens = tokenize(&line);
        let words: Vec<&str> = tokens.iter().map(|t| t.text.as_str()).collect();
        let words = words.strip_prefix(&["route", "add"]).unwrap_or(&words);
        if !words.is_empty() {
            let route = parse_route_line(words, None)
                .map_err(|f| Failure { line: format!("{file}:{number}: {}", f.line), ..f })?;
            put(side, route);
        }
    }
    Ok(())
}

fn of_kernel(side: &mut Side) -> Result<(), Failure> {
    let failed = |e: router_io::netlink::NetlinkError| Failure::new(TROUBLE, format!("Cannot ask the kernel: {e}"));
    let mut netlink = Netlink::open().map_err(failed)?;
    let names: BTreeMap<u32, String> =
        netlink.links().map_err(failed)?.into_iter().map(|l| (l.index, l.name)).collect();
    for family in [Family::Inet, Family::Inet6] {
        for route in netlink.routes(family, TableId::MAIN.0).map_err(failed)? {
            let kind = match route.kind {
                KernelRouteKind::Unicast => RouteKind::Unicast,
                KernelRouteKind::Blackhole => RouteKind::Blackhole,
                KernelRouteKind::Unreachable => RouteKind::Unreachable,
                KernelRouteKind::Prohibit => RouteKind::Prohibit,
                KernelRouteKind::Throw => RouteKind::Throw,
                KernelRouteKind::Local | KernelRouteKind::Other => continue,
            };
            // What the kernel made for its own addresses, as on the other side.
            let on_link = kind == RouteKind::Unicast && route.hops.iter().all(|h| h.via.is_none());
            if on_link && (route.src.is_some() || route.metric == Some(256)) {
                continue;
            }
            let hop = |h: &router_io::netlink::KernelHop| HopSpec {
                via: h.via,
                dev: h.oif.and_then(|i| names.get(&i).cloned()),
                weight: h.weight.max(1),
                onlink: h.onlink,
            };
            let hops = if kind == RouteKind::Unicast { route.hops.iter().map(hop).collect() } else { Vec::new() };
            put(side, RouteSpec { kind, metric: route.metric, mtu: route.mtu, hops, ..RouteSpec::new(route.prefix) });
        }
    }
    Ok(())
}
