//! The picture as a tree.

use super::Picture;
use std::io::{self, Write};

pub(super) fn write(out: &mut dyn Write, p: &Picture, color: bool) -> io::Result<()> {
    let paint = |text: &str, good: bool| match (color, good) {
        (false, _) => text.to_owned(),
        (true, true) => format!("\u{1b}[36m{text}\u{1b}[0m"),
        (true, false) => format!("\u{1b}[31m{text}\u{1b}[0m"),
    };
    writeln!(out, "{}  {} routes", p.name, p.total)?;
    let branches = p.ports.len() + p.ends.len();
    for (i, port) in p.ports.iter().enumerate() {
        let last = i + 1 == branches;
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        writeln!(out, "{branch}{}  {}", paint(&port.name, port.good), port.about)?;
        if let Some(outer) = &port.outer {
            let carrier = match &port.carrier {
                Some(Ok(way)) => {
                    let via = way.via.map(|v| format!(" via {v}")).unwrap_or_default();
                    format!("carried by {}{via}", way.dev.as_deref().unwrap_or("nothing"))
                }
                Some(Err(why)) => format!("no path: {why}"),
                None => String::new(),
            };
            writeln!(out, "{below}{}", format!("   {outer}, {carrier}").trim_end())?;
        }
        let width = port.hops.iter().map(|h| h.label.chars().count()).max().unwrap_or(0);
        for (j, hop) in port.hops.iter().enumerate() {
            let twig = if j + 1 == port.hops.len() { "└─ " } else { "├─ " };
            let label = format!("{:<width$}", hop.label);
            let trouble = if hop.trouble.is_empty() { String::new() } else { format!("  {}", hop.trouble) };
            writeln!(out, "{below}{twig}{}  {}{trouble}", paint(&label, hop.good), p.share(hop.routes))?;
        }
    }
    for (i, (kind, routes)) in p.ends.iter().enumerate() {
        let branch = if p.ports.len() + i + 1 == branches { "└─ " } else { "├─ " };
        writeln!(out, "{branch}{kind}  {}", p.share(*routes))?;
    }
    Ok(())
}
