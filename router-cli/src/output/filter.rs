//! Filters with their counters, and what ports ask of their packets.

use super::out::{Out, Paint};
use crate::control::{FilterInfo, FiltersInfo, GuardInfo, Matched, guard_words};
use crate::grammar::Options;
use router_core::filter::Action;
use std::io;

/// Filters, then ports.
pub fn filters(out: &mut Out<'_>, info: &FiltersInfo, o: &Options) -> io::Result<()> {
    out.begin()?;
    for f in &info.filters {
        filter(out, f, o)?;
    }
    for p in &info.ports {
        port(out, p)?;
    }
    out.end()
}

fn filter(out: &mut Out<'_>, f: &FilterInfo, o: &Options) -> io::Result<()> {
    out.object(None)?;
    out.str("filter", "filter ", &f.name, "", Paint::Name)?;
    out.array("used")?;
    for (i, u) in f.used.iter().enumerate() {
        out.object(None)?;
        let before = if i == 0 { " dev " } else { ", dev " };
        out.str("dev", before, &u.dev, " ", Paint::Name)?;
        out.str("direction", "", &u.direction, "", Paint::Plain)?;
        out.end_object()?;
    }
    out.end_array()?;
    let counts = o.stats > 0 || out.is_json();
    let width = f.rules.iter().map(|r| r.rule.to_string().len()).max().unwrap_or(0).max("deny (hidden header)".len());
    out.array("rules")?;
    for (r, number) in f.rules.iter().zip(1u64..) {
        out.newline()?;
        out.object(None)?;
        if out.is_json() {
            out.json_num("number", number)?;
        } else {
            out.text(format_args!("  {number:>4}  "))?;
        }
        let text = r.rule.to_string();
        let paint = if r.rule.action == Action::Allow { Paint::Up } else { Paint::Down };
        let pad = if counts && !out.is_json() { width - text.len() } else { 0 };
        out.str("rule", "", &text, &" ".repeat(pad), paint)?;
        if counts {
            matched(out, r.matched)?;
        }
        out.end_object()?;
    }
    out.end_array()?;
    if counts {
        for (key, text, m) in [("rest", "deny (no rule)", f.rest), ("hidden", "deny (hidden header)", f.hidden)] {
            out.newline()?;
            if out.is_json() {
                out.object(Some(key))?;
            } else {
                out.text(format_args!("     -  {text:width$}"))?;
            }
            matched(out, m)?;
            if out.is_json() {
                out.end_object()?;
            }
        }
    }
    out.text("\n")?;
    out.end_object()
}

fn matched(out: &mut Out<'_>, m: Matched) -> io::Result<()> {
    if out.is_json() {
        out.json_num("packets", m.packets)?;
        return out.json_num("bytes", m.bytes);
    }
    out.text(format_args!("  {:>12} packets {:>14} bytes", m.packets, m.bytes))
}

fn port(out: &mut Out<'_>, p: &GuardInfo) -> io::Result<()> {
    out.object(None)?;
    out.str("dev", "dev ", &p.dev, "", Paint::Name)?;
    for (word, value) in guard_words(&p.guard) {
        if out.is_json() && word == "limit" {
            let (kind, limit) = value.split_once(' ').unwrap_or(("", &value));
            out.json_word(&format!("limit_{kind}"), limit)?;
        } else {
            out.str(word, &format!(" {word} "), &value, "", Paint::Plain)?;
        }
    }
    out.text("\n")?;
    out.end_object()
}
