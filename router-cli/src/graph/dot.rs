//! The picture in the language of Graphviz.

use super::Picture;
use std::io::{self, Write};

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Several lines in one label.
fn lines(parts: &[&str]) -> String {
    let parts: Vec<String> =
        parts.iter().filter(|p| !p.is_empty()).map(|p| p.replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", parts.join("\\n"))
}

pub(super) fn write(out: &mut dyn Write, p: &Picture) -> io::Result<()> {
    writeln!(
        out,
        "digraph duet {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];"
    )?;
    writeln!(out, "  router [label={}, shape=ellipse];", quote(&p.name))?;
    let color = |good: bool| if good { "black" } else { "red" };
    let id = |name: &str| quote(&format!("port {name}"));
    for port in &p.ports {
        let label = lines(&[&port.name, &port.about, port.outer.as_deref().unwrap_or("")]);
        writeln!(
            out,
            "  {} [label={label}, color={}];\n  router -> {};",
            id(&port.name),
            color(port.good),
            id(&port.name)
        )?;
        match &port.carrier {
            Some(Ok(way)) => {
                if let Some(dev) = &way.dev {
                    let via = way.via.map(|v| format!("via {v}")).unwrap_or_default();
                    writeln!(
                        out,
                        "  {} -> {} [style=dashed, label={}];",
                        id(&port.name),
                        id(dev),
                        lines(&["carried", &via])
                    )?;
                }
            }
            Some(Err(why)) => writeln!(out, "  {} -> {} [style=dashed, color=red];", id(&port.name), quote(why))?,
            None => {}
        }
        for (i, hop) in port.hops.iter().enumerate() {
            let node = quote(&format!("hop {} {i}", port.name));
            writeln!(out, "  {node} [label={}, color={}];", lines(&[&hop.label, &hop.trouble]), color(hop.good))?;
            writeln!(out, "  {} -> {node} [label={}];", id(&port.name), quote(&p.share(hop.routes)))?;
        }
    }
    for (kind, routes) in &p.ends {
        writeln!(
            out,
            "  {} [shape=octagon];\n  router -> {} [label={}];",
            quote(kind),
            quote(kind),
            quote(&p.share(*routes))
        )?;
    }
    writeln!(out, "}}")
}
