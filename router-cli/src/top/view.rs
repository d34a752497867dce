//! The screen.

use super::model::{Cell, Pane, Row, rows, sort, totals};
use super::{Overlay, Screen};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

const HELP: &str = "\
 Tab, Left, Right, 1-7  another pane
 Up, Down, PgUp, PgDn   another line
 s, S                   sort by the next, the previous column
 r                      reverse the order
 Enter, e               explain this line
 + -                    slower, faster
 Space                  stop the picture, go on
 q, Ctrl-C              leave";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, s: &mut Screen) {
    let [head, tabs, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    draw_head(frame, head, s);
    draw_tabs(frame, tabs, s);
    draw_table(frame, body, s);
    let state = if s.paused { "stopped" } else { "" };
    let foot_text =
        format!(" ? help  Tab pane  s sort  Enter explain  q leave   every {:.1} s  {state}", s.every.as_secs_f64());
    frame.render_widget(Paragraph::new(foot_text).style(s.style(Modifier::REVERSED)), foot);
    match &s.overlay {
        Overlay::None => {}
        Overlay::Help => overlay(frame, " Keys ", HELP, 0),
        Overlay::Text { title, text, scroll } => overlay(frame, title, text, *scroll),
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, s: &Screen) {
    let lines = match &s.new {
        None => vec![Line::from(s.trouble.clone().unwrap_or_else(|| "Asking the router ...".into()))],
        Some(new) => {
            let up = new.stats.uptime;
            let (d, h, m, sec) = (up / 86_400, up / 3600 % 24, up / 60 % 60, up % 60);
            let routes: u64 = new.stats.routes.values().sum();
            let first = format!(
                "{}  duet {}  pid {}  up {d}d {h:02}:{m:02}:{sec:02}  {routes} prefixes",
                new.version.name, new.version.version, new.version.pid
            );
            let [rx, tx, drop] = totals(new, s.old.as_deref());
            let second = match &s.trouble {
                Some(trouble) => Line::from(Span::styled(format!("trying again: {trouble}"), s.color(Color::Red))),
                None => {
                    Line::from(format!("packets/s: {rx} received, {tx} sent, {drop} dropped; {} held", new.stats.held))
                }
            };
            vec![Line::from(Span::styled(first, s.style(Modifier::BOLD))), second]
        }
    };
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, s: &Screen) {
    let mut spans = Vec::new();
    for (i, pane) in Pane::ALL.iter().enumerate() {
        let style = if *pane == s.pane { s.style(Modifier::REVERSED) } else { Style::new() };
        spans.push(Span::styled(format!(" {} {} ", i + 1, pane.title()), style));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, s: &mut Screen) {
    let Some(new) = &s.new else { return };
    let view = s.views[s.index()];
    let mut list = rows(s.pane, new, s.old.as_deref());
    sort(&mut list, view.column, view.reverse);
    let (columns, texts) = s.pane.columns();
    let widths = widths(columns, &list, texts);
    let header = columns.iter().enumerate().map(|(i, c)| {
        let mark = if i == view.column { if view.reverse { "^" } else { "v" } } else { "" };
        let partly = s.pane == Pane::NextHops && *c == "routes" && !new.counted;
        let name = format!("{}{c}{mark}", if partly { ">" } else { "" });
        if i < texts { name } else { format!("{name:>width$}", width = usize::from(widths[i])) }
    });
    let header = TableRow::new(header.collect::<Vec<_>>()).style(s.style(Modifier::BOLD));
    let shown = list.iter().map(|row| {
        let cells = row.cells.iter().enumerate().map(|(i, c)| match c {
            Cell::Text(t) => t.clone(),
            n => format!("{:>width$}", n.show(), width = usize::from(widths[i])),
        });
        let style = if row.good { Style::new() } else { s.color(Color::Red) };
        TableRow::new(cells.collect::<Vec<_>>()).style(style)
    });
    let constraints: Vec<Constraint> = widths.iter().map(|w| Constraint::Length(*w)).collect();
    let table = Table::new(shown, constraints).header(header).row_highlight_style(s.style(Modifier::REVERSED));
    let selected = view.selected.min(list.len().saturating_sub(1));
    let mut state = TableState::default().with_selected(Some(selected));
    if list.is_empty() {
        let text = match s.pane {
            Pane::Routes => match &new.busy {
                Err(why) => why,
                Ok(_) => "No packet took a route just now. A sample is followed while this pane is shown.",
            },
            Pane::Drops => "No packet was dropped.",
            Pane::NextHops => "No route has a gateway.",
            _ => "There are none.",
        };
        frame.render_widget(Paragraph::new(text), area);
    } else {
        frame.render_stateful_widget(table, area, &mut state);
    }
    s.views[s.index()].selected = selected;
    s.page = usize::from(area.height.saturating_sub(1)).max(1);
    s.rows = list;
}

/// As wide as what is in them.
fn widths(columns: &[&str], list: &[Row], texts: usize) -> Vec<u16> {
    let cell = |row: &Row, i: usize| row.cells.get(i).map_or(0, |c| c.show().chars().count());
    let width = |(i, name): (usize, &&str)| {
        let least = name.chars().count() + 1;
        let widest = list.iter().map(|r| cell(r, i)).max().unwrap_or(0).max(least);
        // Addresses may be long; 80 columns are to be enough for the rest too.
        u16::try_from(if i < texts { widest.min(39) } else { widest.min(12) }).unwrap_or(12)
    };
    columns.iter().enumerate().map(width).collect()
}

fn overlay(frame: &mut Frame<'_>, title: &str, text: &str, scroll: u16) {
    let all = frame.area();
    let width = text.lines().map(|l| l.chars().count()).max().unwrap_or(0).max(title.len()) + 4;
    let height = text.lines().count() + 2;
    let fit = |n: usize, most: u16| u16::try_from(n).unwrap_or(most).min(most);
    let (w, h) = (fit(width, all.width), fit(height, all.height.saturating_sub(1)).max(3.min(all.height)));
    let area = Rect { x: (all.width - w) / 2, y: (all.height - h) / 2, width: w, height: h };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned());
    frame.render_widget(
        Paragraph::new(text.to_owned()).block(block).wrap(Wrap { trim: false }).scroll((scroll, 0)),
        area,
    );
}
