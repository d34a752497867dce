//! The picture as SVG: the router to the left, its ports in the middle, next hops to the right.

use super::Picture;
use std::io::{self, Write};

const ROW: usize = 46;
const PORT_X: usize = 190;
const PORT_WIDTH: usize = 380;
const HOP_X: usize = 720;
const HOP_WIDTH: usize = 300;
const WIDTH: usize = HOP_X + HOP_WIDTH + 20;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A box with two lines.
fn frame(
    out: &mut dyn Write,
    x: usize,
    y: usize,
    width: usize,
    good: bool,
    first: &str,
    second: &str,
) -> io::Result<()> {
    let color = if good { "#335" } else { "#c22" };
    writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"38\" rx=\"4\" fill=\"#fff\" stroke=\"{color}\"/>"
    )?;
    // What does not fit is cut: the whole text is in the title.
    let fit = |text: &str| {
        let most = width / 7;
        if text.chars().count() <= most {
            text.to_owned()
        } else {
            text.chars().take(most - 1).chain(['…']).collect()
        }
    };
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\"><title>{}</title><tspan font-weight=\"bold\">{}</tspan><tspan x=\"{}\" dy=\"15\" fill=\"#666\">{}</tspan></text>",
        x + 8,
        y + 15,
        escape(second),
        escape(&fit(first)),
        x + 8,
        escape(&fit(second))
    )
}

fn line(out: &mut dyn Write, (x1, y1): (usize, usize), (x2, y2): (usize, usize), style: &str) -> io::Result<()> {
    let middle = usize::midpoint(x1, x2);
    writeln!(
        out,
        "<path d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#99a\" {style}/>"
    )
}

pub(super) fn write(out: &mut dyn Write, p: &Picture) -> io::Result<()> {
    let rows: usize = p.ports.iter().map(|x| x.hops.len().max(1)).sum::<usize>() + p.ends.len();
    let height = rows.max(1) * ROW + 20;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#f8f8fb\"/>"
    )?;
    let middle = height / 2;
    let mut places = Vec::new();
    let mut row = 0;
    for port in &p.ports {
        let span = port.hops.len().max(1);
        let y = 10 + row * ROW + (span - 1) * ROW / 2;
        places.push((port.name.as_str(), y));
        line(out, (150, middle), (PORT_X, y + 19), "")?;
        for (i, hop) in port.hops.iter().enumerate() {
            let hop_y = 10 + (row + i) * ROW;
            // As thick as its share of the routes.
            let width = 1.0 + 7.0 * hop.routes as f64 / p.total.max(1) as f64;
            line(out, (PORT_X + PORT_WIDTH, y + 19), (HOP_X, hop_y + 19), &format!("stroke-width=\"{width:.1}\""))?;
            let second = if hop.trouble.is_empty() {
                p.share(hop.routes)
            } else {
                format!("{} — {}", p.share(hop.routes), hop.trouble)
            };
            frame(out, HOP_X, hop_y, HOP_WIDTH, hop.good, &hop.label, &second)?;
        }
        row += span;
    }
    for (port, (_, y)) in p.ports.iter().zip(&places) {
        let first = match &port.outer {
            Some(outer) => format!("{}  {outer}", port.name),
            None => port.name.clone(),
        };
        frame(out, PORT_X, *y, PORT_WIDTH, port.good, &first, &port.about)?;
        if let Some(Ok(way)) = &port.carrier
            && let Some((_, to)) = places.iter().find(|(n, _)| Some(*n) == way.dev.as_deref())
        {
            line(out, (PORT_X + PORT_WIDTH, y + 30), (PORT_X + PORT_WIDTH, to + 30), "stroke-dasharray=\"4 3\"")?;
        }
    }
    for (i, (kind, routes)) in p.ends.iter().enumerate() {
        let y = 10 + (row + i) * ROW;
        line(out, (150, middle), (PORT_X, y + 19), "")?;
        frame(out, PORT_X, y, PORT_WIDTH, true, kind, &p.share(*routes))?;
    }
    frame(out, 20, middle - 19, 130, true, &p.name, &format!("{} routes", p.total))?;
    writeln!(out, "</svg>")
}
