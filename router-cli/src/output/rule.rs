//! The fixed rules, as `ip rule` prints them.

use super::out::{Out, Paint};
use crate::grammar::Options;
use router_core::addr::Family;
use std::io;

const RULES: &[(u32, &str)] = &[(0, "local"), (32766, "main"), (32767, "default")];

/// The rules of the selected family.
pub fn rules(out: &mut Out<'_>, o: &Options) -> io::Result<()> {
    let count = if o.family == Some(Family::Inet6) { 2 } else { RULES.len() };
    out.begin()?;
    for (priority, table) in &RULES[..count] {
        out.object(None)?;
        out.num("priority", "", *priority, ":\t")?;
        out.str("src", "from ", "all", "", Paint::Plain)?;
        out.str("table", " lookup ", table, "", Paint::Plain)?;
        if o.details {
            out.str("protocol", " proto ", "kernel", "", Paint::Plain)?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}
