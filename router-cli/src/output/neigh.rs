//! Neighbours, as `ip neigh` prints them.

use super::out::{Out, Paint};
use crate::control::{NeighInfo, NeighSelect};
use crate::grammar::{Options, nud_name};
use router_core::spec::NudState;
use std::io;

/// All of them.
pub fn neighs(out: &mut Out<'_>, list: &[NeighInfo], select: &NeighSelect, o: &Options) -> io::Result<()> {
    out.begin()?;
    for n in list {
        one(out, n, select, o)?;
    }
    out.end()
}

fn one(out: &mut Out<'_>, info: &NeighInfo, select: &NeighSelect, o: &Options) -> io::Result<()> {
    let n = &info.neigh;
    let state = n.state.unwrap_or(NudState::Permanent);
    out.object(None)?;
    out.str("dst", "", n.addr, " ", Paint::addr(&n.addr))?;
    if select.dev.is_none() || select.nud_all && select.to.is_some() {
        out.str("dev", "dev ", &n.dev, " ", Paint::Name)?;
    }
    if let Some(mac) = n.lladdr {
        out.str("lladdr", "lladdr ", mac, " ", Paint::Mac)?;
    }
    if n.router {
        out.null("router", "router ")?;
    }
    if o.stats > 0 {
        out.num("used", " used ", info.used, "")?;
        out.num("confirmed", "/", info.confirmed, "")?;
        out.num("updated", "/", info.updated, "")?;
        out.num("probes", "probes ", info.probes, " ")?;
    }
    if o.details && info.pending > 0 {
        out.num("pending", "pending ", info.pending, " ")?;
    }
    let name = nud_name(state).to_uppercase();
    out.words("state", &[&name])?;
    let paint = match state {
        NudState::Reachable | NudState::Permanent | NudState::NoArp => Paint::Up,
        NudState::Failed => Paint::Down,
        _ => Paint::Plain,
    };
    out.painted(&name, paint)?;
    out.text(" \n")?;
    out.end_object()
}
