//! `duet graph`: ports, tunnels and next hops as a picture, with the number of routes over each, as text, for Graphviz, or
//! as SVG.

mod dot;
mod svg;
mod text;

use crate::app::Common;
use crate::command::Session;
use crate::grammar::{Failure, exit};
use crate::shell::offline::{Offline, load};
use crate::topology::{Topology, Use, Way};
use router_core::port::PortKind;
use router_core::spec::{HopState, NudState};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// `duet graph`.
#[derive(Debug, clap::Args)]
pub(crate) struct GraphArgs {
    /// A configuration to draw, instead of the running router
    pub file: Option<PathBuf>,
    /// The form
    #[arg(short, long, value_enum, default_value = "text")]
    pub format: Format,
    /// Which router
    #[command(flatten)]
    pub common: Common,
}

/// Forms of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A tree for the terminal
    Text,
    /// The language of Graphviz
    Dot,
    /// A picture for the browser
    Svg,
}

/// Next hops drawn one by one per port; the others are drawn as one.
const MOST: usize = 16;

/// What is drawn: a router, its ports, what is reached over each.
#[derive(Clone, Debug)]
struct Picture {
    name: String,
    ports: Vec<PortNode>,
    /// Routes that refuse, by what they do, and those over too many ways to tell apart.
    ends: Vec<(String, u64)>,
    total: u64,
}

#[derive(Clone, Debug)]
struct PortNode {
    name: String,
    /// Kind, state, addresses.
    about: String,
    good: bool,
    /// For a tunnel: where its outer packets go, and whether they can.
    carrier: Option<Result<Way, String>>,
    outer: Option<String>,
    hops: Vec<HopNode>,
}

#[derive(Clone, Debug)]
struct HopNode {
    label: String,
    routes: u64,
    good: bool,
    /// State of its neighbour, if it is not well.
    trouble: String,
}

impl Picture {
    fn of(t: &Topology) -> Picture {
        let total = t.routes;
        let mut ports: Vec<PortNode> = t
            .links
            .iter()
            .filter(|l| l.kind != PortKind::Loopback)
            .map(|l| {
                let addrs: Vec<String> = l.addrs.iter().map(ToString::to_string).collect();
                let state = if l.up { "up" } else { "down" };
                PortNode {
                    name: l.name.clone(),
                    about: format!("{} {state} mtu {} {}", l.kind, l.mtu, addrs.join(" ")).trim_end().to_owned(),
                    good: l.up && !matches!(t.carriers.get(&l.name), Some(Err(_))),
                    carrier: t.carriers.get(&l.name).cloned(),
                    outer: l.outer.map(|(local, remote)| format!("{local} to {remote}")),
                    hops: hops(t, |w| w.dev.as_deref() == Some(l.name.as_str())),
                }
            })
            .collect();
        let lost = hops(t, |w| w.dev.as_ref().is_none_or(|d| t.link(d).is_none()));
        if !lost.is_empty() {
            let about = "no route leads to these".to_owned();
            ports.push(PortNode {
                name: "unresolved".into(),
                about,
                good: false,
                carrier: None,
                outer: None,
                hops: lost,
            });
        }
        let mut ends: Vec<(String, u64)> = t.refusing.iter().map(|(k, n)| (k.clone(), *n)).collect();
        ends.extend((t.other_ways > 0).then(|| ("over further next hops".to_owned(), t.other_ways)));
        Picture { name: t.version.name.clone(), ports, ends, total }
    }

    fn share(&self, routes: u64) -> String {
        let noun = if routes == 1 { "route" } else { "routes" };
        match self.total {
            0 => format!("{routes} {noun}"),
            total => format!("{routes} {noun}, {:.0} %", routes as f64 * 100.0 / total as f64),
        }
    }
}

/// The next hops of a port, the most used first.
fn hops(t: &Topology, of: impl Fn(&Way) -> bool) -> Vec<HopNode> {
    let mut list: Vec<(&Way, &Use)> = t.ways.iter().filter(|(w, _)| of(w)).collect();
    list.sort_by_key(|(_, u)| std::cmp::Reverse(u.routes));
    let node = |(way, used): &(&Way, &Use)| {
        let neigh = t.neighs.iter().find(|n| Some(n.neigh.addr) == way.via && Some(&n.neigh.dev) == way.dev.as_ref());
        let failed = neigh.is_some_and(|n| n.neigh.state == Some(NudState::Failed));
        let trouble = match used.state {
            HopState::LinkDown => "port down",
            HopState::Unresolved => "unresolved",
            HopState::Active if failed => "does not answer",
            HopState::Active => "",
        };
        let label = way.via.map_or_else(|| "on the link".to_owned(), |v| v.to_string());
        HopNode { label, routes: used.routes, good: trouble.is_empty(), trouble: trouble.to_owned() }
    };
    let mut out: Vec<HopNode> = list.iter().take(MOST).map(node).collect();
    if let Some(rest) = list.get(MOST..).filter(|r| !r.is_empty()) {
        let routes = rest.iter().map(|(_, u)| u.routes).sum();
        out.push(HopNode { label: format!("{} more", rest.len()), routes, good: true, trouble: String::new() });
    }
    out
}

/// Draws.
pub(crate) fn run(args: &GraphArgs) -> Result<(), Failure> {
    let options = args.common.clone().options();
    let offline = args.file.as_deref().map(|f| load(f).and_then(|plan| Offline::start(&plan))).transpose()?;
    let socket = match &offline {
        Some(o) => o.socket(),
        None => crate::control::find_socket(options.socket.as_deref(), options.name.as_deref())
            .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?,
    };
    let mut sink = io::sink();
    let topology = Topology::of(&mut Session::new(socket, options.clone(), &mut sink, false))?;
    let picture = Picture::of(&topology);
    let mut out = BufWriter::new(io::stdout().lock());
    match (options.json, args.format) {
        (true, _) => writeln!(out, "{}", json(&picture))?,
        (false, Format::Text) => text::write(&mut out, &picture, crate::app::color(&options))?,
        (false, Format::Dot) => dot::write(&mut out, &picture)?,
        (false, Format::Svg) => svg::write(&mut out, &picture)?,
    }
    Ok(out.flush()?)
}

fn json(p: &Picture) -> serde_json::Value {
    let ports: Vec<serde_json::Value> = p
        .ports
        .iter()
        .map(|n| {
            let hops: Vec<_> = n
                .hops
                .iter()
                .map(|h| serde_json::json!({ "next_hop": h.label, "routes": h.routes, "good": h.good, "trouble": h.trouble }))
                .collect();
            let carrier = n.carrier.as_ref().map(|c| match c {
                Ok(w) => serde_json::json!({ "dev": w.dev, "via": w.via }),
                Err(why) => serde_json::json!({ "none": why }),
            });
            serde_json::json!({ "name": n.name, "about": n.about, "good": n.good, "outer": n.outer, "carrier": carrier, "hops": hops })
        })
        .collect();
    let ends: serde_json::Map<_, _> = p.ends.iter().map(|(k, n)| (k.clone(), (*n).into())).collect();
    serde_json::json!({ "router": p.name, "routes": p.total, "ports": ports, "refusing": ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let hop = |label: &str, routes, trouble: &str| HopNode {
            label: label.into(),
            routes,
            good: trouble.is_empty(),
            trouble: trouble.into(),
        };
        let lan = PortNode {
            name: "lan0".into(),
            about: "packet up".into(),
            good: true,
            carrier: None,
            outer: None,
            hops: vec![hop("192.0.2.9", 3, ""), hop("<&\">", 1, "does not answer")],
        };
        let he = PortNode {
            name: "he".into(),
            about: "tunnel up".into(),
            good: true,
            carrier: Some(Ok(Way { dev: Some("lan0".into()), via: None })),
            outer: Some("192.0.2.1 to 198.51.100.1".into()),
            hops: vec![],
        };
        Picture { name: "r\"1".into(), ports: vec![lan, he], ends: vec![("blackhole".into(), 1)], total: 5 }
    }

    #[test]
    fn text_dot_and_svg_tell_the_same() {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        text::write(&mut all[0], &picture(), false).unwrap();
        dot::write(&mut all[1], &picture()).unwrap();
        svg::write(&mut all[2], &picture()).unwrap();
        for bytes in &all {
            let text = String::from_utf8(bytes.clone()).unwrap();
            for part in [
                "lan0",
                "he",
                "192.0.2.9",
                "3 routes, 60 %",
                "blackhole",
                "does not answer",
                "192.0.2.1 to 198.51.100.1",
            ] {
                assert!(text.contains(part), "{part} is not in\n{text}");
            }
        }
        let dot = String::from_utf8(all[1].clone()).unwrap();
        assert!(dot.starts_with("digraph duet {") && dot.trim_end().ends_with('}') && dot.contains("r\\\"1"), "{dot}");
        let svg = String::from_utf8(all[2].clone()).unwrap();
        assert!(svg.contains("&lt;&amp;&quot;&gt;") && !svg.contains("<&\">"), "{svg}");
    }
}
