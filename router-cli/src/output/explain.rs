//! `duet explain` for people: one line per step, children indented under what caused them.

use super::out::{Out, Paint};
use super::route::hop_words;
use super::tree::Node;
use crate::grammar::{kind_name, nud_name, proto_name, table_name};
use router_core::addr::Family;
use router_core::explain::{Bytes, End, Explanation, Member, PacketView, Pass, Role, Step};
use router_core::routing::{Candidacy, Choice, Cover, CoverVerdict, Recursion};
use router_core::spec::{HopState, RouteKind};
use std::io;

/// Prints an explanation as a tree. `all` shows each piece of a packet, and answers as fully as the packet itself.
pub fn explain(out: &mut Out<'_>, e: &Explanation, all: bool) -> io::Result<()> {
    let Some(first) = e.passes.first() else { return Ok(()) };
    let mut root = title(first);
    let assumed = e.assumed.iter().map(|a| Node::new("assumed").text(a.clone()));
    root = root.with(assumed);
    let printer = Printer { e, all };
    root.push(match &e.iif {
        Some(iif) => {
            let from = match first.steps.first() {
                Some(Step::Link { src, group }) => {
                    format!(" from station {src}{}", if *group { ", to a group" } else { "" })
                }
                _ => String::new(),
            };
            Node::new("in").painted(iif, Paint::Name).text(from)
        }
        None => Node::new("in").text("nowhere: the router makes it itself"),
    });
    printer.pass(&mut root, 0, first, true);
    root.print(out)
}

fn title(pass: &Pass) -> Node {
    match &pass.packet {
        Some(p) => packet_line(Node::new(""), p),
        None => Node::new("").text("a frame whose packet cannot be read"),
    }
}

fn packet_line(node: Node, p: &PacketView) -> Node {
    let whole = p.to_string();
    let ends = format!("{} > {}", p.src, p.dst);
    let rest = whole.strip_prefix(&ends).unwrap_or(&whole).to_owned();
    node.painted(p.src, Paint::addr(&p.src)).text(" > ").painted(p.dst, Paint::addr(&p.dst)).text(rest)
}

struct Printer<'a> {
    e: &'a Explanation,
    all: bool,
}

impl Printer<'_> {
    /// Adds a pass's steps, end and children to its node. `full`: with everything that lost.
    fn pass(&self, node: &mut Node, index: usize, pass: &Pass, full: bool) {
        let ends_badly = matches!(&pass.end, End::Drop { .. });
        for step in &pass.steps {
            match step {
                Step::Reply { .. } | Step::NoReply { .. } if ends_badly => {}
                step => node.children_of_step(step, full),
            }
        }
        if let Some(m) = &pass.mtu {
            let tight = pass.packet.as_ref().is_some_and(|p| p.len > m.mtu);
            if full || tight {
                let mut n = Node::new("mtu").text(format!("{}, set by {}", m.mtu, m.by));
                if m.limits.len() > 1 {
                    n = n.with(m.limits.iter().map(|l| {
                        let less = l.mtu - l.packet;
                        let room = if less > 0 { format!(", {} for this packet", l.packet) } else { String::new() };
                        Node::new("").text(format!("{} by {}{room}", l.mtu, l.by))
                    }));
                }
                node.push(n);
            }
        }
        let pieces: Vec<_> = self.e.children(index).collect();
        match &pass.end {
            End::GoesOn => {}
            end => node.push(end_node(end, pass, full)),
        }
        let mut hidden = 0;
        for (i, child) in pieces {
            let label = match child.role {
                Role::Fragment { index, .. } | Role::Segment { index, .. } if index > 1 && !self.all => {
                    hidden += 1;
                    continue;
                }
                Role::Packet | Role::Again | Role::Later => {
                    self.pass(node, i, child, full);
                    continue;
                }
                Role::Inner => "inside",
                Role::Translated => "translated",
                Role::Fragment { .. } => "fragment",
                Role::Segment { .. } => "segment",
                Role::IcmpError | Role::EchoReply | Role::TcpReset => "answer",
                Role::Redirect => "redirect",
            };
            let reply = pass.steps.iter().find(|s| matches!(s, Step::Reply { .. }));
            if let (Role::IcmpError, Some(step)) = (child.role, reply) {
                let mut n = reply_node(step);
                self.pass(&mut n, i, child, self.all);
                node.push(n);
                continue;
            }
            let mut n = Node::new(label);
            if let Role::Fragment { index, of } | Role::Segment { index, of } = child.role {
                n = n.text(format!("{index} of {of}: "));
            }
            n = match &child.packet {
                Some(p) => packet_line(n, p),
                None => n.text("a packet that cannot be read"),
            };
            let full = full && (self.all || matches!(child.role, Role::Inner | Role::Translated));
            self.pass(&mut n, i, child, full);
            node.push(n);
        }
        if hidden > 0 {
            node.push(Node::new("").text(format!("and {hidden} more: --all shows each")));
        }
    }
}

impl Node {
    fn children_of_step(&mut self, step: &Step, full: bool) {
        match step {
            Step::Link { .. } => {}
            Step::Checks { passed } if full => {
                let mut n = Node::new("checks");
                for (i, p) in passed.iter().enumerate() {
                    n = if i == 0 { n.text(p.clone()) } else { n.below(p.clone()) };
                }
                self.push(n);
            }
            Step::Checks { .. } => {}
            Step::Rule { priority, rule } => self.push(Node::new("rule").text(format!("{priority}: {rule}"))),
            Step::Source { src, sources, chosen, route } => {
                let n = Node::new("source").painted(src, Paint::addr(src)).text(": ");
                let n = match (chosen, route) {
                    (Some(net), _) => n.text(format!("the longest with a route is {net}")),
                    (None, Some(_)) => n.text("no route is for it alone, so it gets that of all sources"),
                    (None, None) => n.text("no route is for it"),
                };
                let mut lines = Vec::new();
                if full {
                    lines.extend(sources.iter().map(|s| {
                        let mark = if Some(s) == chosen.as_ref() { "* " } else { "  " };
                        Node::new("").text(format!("{mark}from {s}"))
                    }));
                }
                if let Some(info) = route {
                    lines.push(Node::new("").text(super::route_line(&info.route)));
                }
                self.push(n.with(lines));
            }
            Step::Lookup { table, dst, covers, .. } if !full => {
                let n = Node::new("lookup").painted(dst, Paint::addr(dst)).text(" in table ");
                let n = n.text(table_name(*table).into_owned()).text(": ");
                let wins = covers.iter().find(|c| c.verdict == CoverVerdict::Wins);
                let route = wins.and_then(|c| c.candidates.iter().find(|x| x.choice == Choice::Chosen));
                self.push(match (wins, route) {
                    (Some(c), Some(route)) => {
                        let n = n.painted(c.dst, Paint::addr(&c.dst.addr())).text(" ");
                        candidate(n, route, &[])
                    }
                    _ => n.text("no prefix contains it"),
                });
            }
            Step::Lookup { table, rule, dst, covers, recursion } => {
                let n = Node::new("lookup").painted(dst, Paint::addr(dst)).text(" in table ");
                let mut n = n.text(format!("{} ({rule})", table_name(*table)));
                if covers.is_empty() {
                    n = n.with([Node::new("").text("no prefix contains it")]);
                }
                let width = covers.iter().map(|c| c.dst.to_string().len()).max().unwrap_or(0) + 2;
                self.push(n.with(covers.iter().map(|c| cover(c, recursion, width))));
            }
            Step::Group { hash, covers, bucket, buckets, resilient, idle, members } => {
                let n = Node::new("group")
                    .text(format!("flow hash {hash:#010x} of {covers}: bucket {bucket} of {buckets}"));
                let n = match (resilient, idle) {
                    (false, _) => n,
                    (true, None) => n.text(", resilient, not used since its member has it"),
                    (true, Some(idle)) => n.text(format!(", resilient, idle for {} s", *idle as f64 / 100.0)),
                };
                let end = |m: &Member| {
                    m.via.map_or(0, |v| v.to_string().len() + 5) + m.dev.as_ref().map_or(0, |d| d.len() + 4) + 4
                };
                let width = members.iter().map(end).max().unwrap_or(0);
                self.push(n.with(members.iter().map(|m| {
                    let mut line = Node::new("").text(if m.chosen { "* " } else { "  " });
                    if let Some(via) = &m.via {
                        line = line.text("via ").painted(via, Paint::addr(via)).text(" ");
                    }
                    if let Some(dev) = &m.dev {
                        line = line.text("dev ").painted(dev, Paint::Name);
                    }
                    if let Some(what) = &m.what {
                        line = line.text(what.clone());
                    }
                    let share = 100.0 * m.buckets as f64 / (*buckets).max(1) as f64;
                    let line = line.pad(width).text(format!("{share:>3.0}% of flows"));
                    if m.chosen { line.text(", this one's") } else { line }
                })));
            }
            Step::Neighbor { addr, dev, protocol, lladdr, state, waiting } => {
                let n = Node::new("neighbor").painted(addr, Paint::addr(addr)).text(" dev ").painted(dev, Paint::Name);
                let n = match lladdr {
                    Some(mac) => n.text(" lladdr ").painted(mac, Paint::Mac),
                    None => n,
                };
                let by = protocol.to_uppercase();
                self.push(match state {
                    Some(s) => {
                        let paint = if lladdr.is_some() { Paint::Up } else { Paint::Down };
                        let n = n.text(" ").painted(nud_name(*s), paint).text(format!(" (by {by})"));
                        if *waiting > 0 { n.text(format!(", {waiting} packets wait")) } else { n }
                    }
                    None => n.text(format!(" not known yet: {by} will ask")),
                });
            }
            Step::Forwarder { name, verdict } => self.push(Node::new("forwarder").text(format!("{name}: {verdict}"))),
            Step::Encap { tunnel, mode, local, remote, added, outer, recursion } => {
                let n = Node::new("tunnel").painted(tunnel, Paint::Name).text(format!(" ({mode}): "));
                let n = n.painted(local, Paint::addr(local)).text(" > ").painted(remote, Paint::addr(remote));
                let n = n.text(format!(", {added} bytes added"));
                let n = match outer {
                    Some(o) => {
                        let df = if o.df { ", DF set" } else { ", DF clear" };
                        n.text(format!(", outer ttl {} len {}{df}", o.ttl, o.len))
                    }
                    None => n,
                };
                self.push(n.with(recursion.iter().filter(|_| full).map(recursion_line)));
            }
            Step::Decap { tunnel, local, remote, removed } => {
                let n = Node::new("tunnel").painted(tunnel, Paint::Name).text(": out of ");
                let n = n.painted(remote, Paint::addr(remote)).text(" > ").painted(local, Paint::addr(local));
                self.push(n.text(format!(", its configured peer; {removed} bytes taken off")));
            }
            Step::Filter { place, filter, number, rule, action } => {
                let rule = number.map_or_else(|| rule.clone(), |n| format!("rule {n}: {rule}"));
                self.push(Node::new("filter").text(format!("{filter}, {place}: {action}, {rule}")));
            }
            Step::SourceCheck { dev, check, allowed } => {
                let says =
                    if *allowed { "the source may come from there" } else { "no way back to the source leads there" };
                self.push(Node::new("urpf").text(format!("{check} on {dev}: {says}")));
            }
            Step::Mss { from, to } => self.push(Node::new("mss").text(format!("{from} -> {to}"))),
            Step::Ttl { from, to } if full => self.push(Node::new("ttl").text(format!("{from} -> {to}"))),
            Step::Ttl { .. } => {}
            Step::Cut { into, count } => self.push(Node::new("cut").text(format!("into {count} {into}"))),
            Step::Local { what } => self.push(Node::new("local").text(what.clone())),
            Step::Reply { .. } | Step::NoReply { .. } => {
                self.push(reply_node(step));
            }
        }
    }
}

fn reply_node(step: &Step) -> Node {
    match step {
        Step::Reply { what, source, why } => {
            let n = Node::new("answer").text(format!("{what} from ")).painted(source, Paint::addr(source));
            if why.is_empty() { n } else { n.below(format!("from there because {why}")) }
        }
        Step::NoReply { why } => Node::new("answer").text(format!("none: {why}")),
        _ => Node::new(""),
    }
}

fn cover(c: &Cover, recursion: &[Vec<Recursion>], width: usize) -> Node {
    let wins = c.verdict == CoverVerdict::Wins;
    let (text, paint) = match c.verdict {
        CoverVerdict::Wins => ("wins: the longest that can be used", Paint::Up),
        CoverVerdict::Shorter => ("loses: shorter", Paint::Plain),
        CoverVerdict::Unusable => ("loses: none of its next hops can be used", Paint::Down),
    };
    let n = Node::new("").painted(c.dst, Paint::addr(&c.dst.addr())).pad(width).painted(text, paint);
    let several = c.candidates.len() > 1;
    let line = |x: &Candidacy| {
        let mark = match (several, x.choice) {
            (false, _) => "",
            (true, Choice::Chosen) => "* ",
            (true, _) => "  ",
        };
        candidate(Node::new("").text(mark), x, if wins { recursion } else { &[] })
    };
    let mut lines: Vec<Node> = c.candidates.iter().map(line).collect();
    if c.more > 0 {
        lines.push(Node::new("").text(format!("and {} more candidates", c.more)));
    }
    n.with(lines)
}

/// A candidate in the words of its route, and why it lost if it did.
fn candidate(mut n: Node, c: &Candidacy, recursion: &[Vec<Recursion>]) -> Node {
    let r = &c.route.route;
    let family = Family::of_net(&r.dst);
    let chosen = c.choice == Choice::Chosen;
    if r.kind != RouteKind::Unicast {
        n = n.text(format!("{} ", kind_name(r.kind)));
    }
    if let Some(id) = r.nhid {
        n = n.text(format!("nhid {id} "));
    }
    let single = matches!(r.hops.as_slice(), [_]);
    if single {
        n = n.text(hop_words(&r.hops[0], family));
    }
    n = n.text(format!("proto {}", proto_name(r.proto.unwrap_or_default())));
    if let Some(m) = r.metric.filter(|m| *m != 0) {
        n = n.text(format!(" metric {m}"));
    }
    if let Some(m) = r.mtu {
        n = n.text(format!(" mtu {m}"));
    }
    if let Some(f) = &r.forwarder {
        n = n.text(format!(" forwarder {f}"));
    }
    let state = |i: usize| match c.route.states.get(i) {
        Some(HopState::LinkDown) => " linkdown",
        Some(HopState::Unresolved) => " unresolved",
        Some(HopState::Active) | None => "",
    };
    if single {
        n = n.painted(state(0), Paint::Down);
    }
    let why = match c.choice {
        Choice::Chosen => "",
        Choice::Unusable => "  not usable",
        Choice::Table => "  behind: its table comes later",
        Choice::Preference => "  behind: what is connected comes first",
        Choice::Metric => "  behind: higher metric",
        Choice::Order => "  behind: the other came first",
    };
    n = n.text(why);
    let recursion = if chosen { recursion } else { &[] };
    if single {
        return n.with(recursion.iter().flatten().map(recursion_line));
    }
    n.with(r.hops.iter().enumerate().map(|(i, hop)| {
        let line = Node::new("").text(format!("nexthop {}weight {}", hop_words(hop, family), hop.weight));
        let line = line.painted(state(i), Paint::Down);
        line.with(recursion.get(i).into_iter().flatten().map(recursion_line))
    }))
}

fn recursion_line(r: &Recursion) -> Node {
    let n = Node::new("").painted(r.gateway, Paint::addr(&r.gateway));
    let Some(dst) = &r.dst else { return n.painted(" has no route", Paint::Down) };
    let n = n.text(" is reached by ").painted(dst, Paint::addr(&dst.addr())).text(" ");
    let n = match &r.hop {
        Some(hop) => n.text(hop_words(hop, Family::of_net(dst)).trim_end().to_owned()),
        None => n,
    };
    if r.of > 1 { n.text(format!(", the first of {} next hops", r.of)) } else { n }
}

fn end_node(end: &End, pass: &Pass, full: bool) -> Node {
    match end {
        End::Transmit { dev, via, forwarder, frame, link_header } => {
            let n = Node::new("out").painted(dev, Paint::Up);
            let n = match via {
                Some(via) => n.text(" to ").painted(via, Paint::addr(via)),
                None => n,
            };
            let how = match forwarder.as_str() {
                "native" => String::new(),
                "via-inet6" => ", a next hop of the other family".to_owned(),
                other => format!(", by {other}"),
            };
            let n = n.text(format!("{how}, {} bytes", frame.0.len()));
            if full { header_lines(frame, *link_header).into_iter().fold(n, Node::below) } else { n }
        }
        End::Held { neighbor, dev } => Node::new("held")
            .text("until ")
            .painted(neighbor, Paint::addr(neighbor))
            .text(" answers on ")
            .painted(dev, Paint::Name),
        End::Consumed { what } => Node::new("end").text(format!("used by the router: {what}")),
        End::Answered { what } => Node::new("end").text(format!("answered with {} {what}", article(what))),
        End::GoesOn => Node::new(""),
        End::Drop { reason, explanation } => {
            let n = Node::new("dropped").painted(reason, Paint::Down).text(format!(": {explanation}"));
            // An answer that does go out is a pass of its own.
            n.with(pass.steps.iter().filter(|s| matches!(s, Step::NoReply { .. })).map(reply_node))
        }
    }
}

fn article(what: &str) -> &'static str {
    if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The headers of a finished frame, one line each, up to eight bytes of the transport header.
fn header_lines(frame: &Bytes, link: usize) -> Vec<String> {
    let data = &frame.0;
    let mut lines = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| {
        for (i, row) in bytes.chunks(20).enumerate() {
            let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
            lines.push(format!("{:<5} {}", if i == 0 { name } else { "" }, hex.join(" ")));
        }
    };
    if link > 0 {
        add("ether", data.get(..link).unwrap_or(&[]));
    }
    let mut at = link;
    for _ in 0..5 {
        let Some(first) = data.get(at) else { break };
        let (name, len, proto) = match first >> 4 {
            4 => ("ipv4", usize::from(first & 15) * 4, data.get(at + 9)),
            6 => ("ipv6", 40, data.get(at + 6)),
            _ => break,
        };
        add(name, data.get(at..(at + len).min(data.len())).unwrap_or(&[]));
        at += len;
        match proto {
            Some(4 | 41) => {}
            _ => {
                add("+8", data.get(at..(at + 8).min(data.len())).unwrap_or(&[]));
                break;
            }
        }
    }
    lines
}
