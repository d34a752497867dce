//! Next-hop objects, as `ip nexthop` prints them.

use super::out::{Out, Paint};
use crate::grammar::{Options, proto_name};
use router_core::routing::BucketInfo;
use router_core::spec::{NextHopKind, NextHopSpec, ResilientSpec};
use std::io;

/// All of them.
pub fn nexthops(out: &mut Out<'_>, list: &[NextHopSpec], o: &Options) -> io::Result<()> {
    out.begin()?;
    for n in list {
        out.object(None)?;
        nexthop_facts(out, n, o.details)?;
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// What is said about one object, here and in the `nh_info` of a route.
pub(super) fn nexthop_facts(out: &mut Out<'_>, n: &NextHopSpec, details: bool) -> io::Result<()> {
    out.num("id", "id ", n.id, " ")?;
    let mut onlink = false;
    match &n.kind {
        NextHopKind::Group(members) => {
            out.array("group")?;
            for (i, (id, weight)) in members.iter().enumerate() {
                out.object(None)?;
                out.num("id", if i == 0 { "group " } else { "/" }, *id, "")?;
                if *weight > 1 {
                    out.num("weight", ",", *weight, "")?;
                }
                out.end_object()?;
            }
            out.end_array()?;
            out.text(" ")?;
            if let Some(r) = &n.resilient {
                resilient(out, r)?;
            }
            scope(out, "global", details)?;
        }
        NextHopKind::Blackhole => {
            scope(out, "global", details)?;
            out.null("blackhole", "blackhole ")?;
        }
        NextHopKind::Hop(hop) => {
            if let Some(via) = hop.via {
                out.str("gateway", "via ", via, " ", Paint::addr(&via))?;
            }
            if let Some(dev) = &hop.dev {
                out.str("dev", "dev ", dev, " ", Paint::Name)?;
            }
            scope(out, if hop.via.is_some() { "link" } else { "host" }, true)?;
            onlink = hop.onlink;
        }
    }
    let proto = n.proto.unwrap_or(0);
    if proto != 0 || details {
        out.str("protocol", "proto ", proto_name(proto), " ", Paint::Plain)?;
    }
    let flags: &[&str] = if onlink { &["onlink"] } else { &[] };
    out.words("flags", flags)?;
    if onlink {
        out.text("onlink ")?;
    }
    Ok(())
}

/// Of a resilient group.
fn resilient(out: &mut Out<'_>, r: &ResilientSpec) -> io::Result<()> {
    out.str("type", "type ", "resilient", " ", Paint::Plain)?;
    if out.is_json() {
        out.object(Some("resilient_args"))?;
    }
    let seconds = |n: Option<u32>| u64::from(n.unwrap_or(0)) * 100;
    out.num("buckets", "buckets ", r.buckets.unwrap_or(0), " ")?;
    out.seconds("idle_timer", "idle_timer ", seconds(r.idle_timer), " ")?;
    out.seconds("unbalanced_timer", "unbalanced_timer ", seconds(r.unbalanced_timer), " ")?;
    out.seconds("unbalanced_time", "unbalanced_time ", r.unbalanced_time.unwrap_or(0), " ")?;
    if out.is_json() { out.end_object() } else { Ok(()) }
}

/// Buckets of resilient groups, as `ip nexthop bucket` prints them.
pub fn buckets(out: &mut Out<'_>, list: &[BucketInfo]) -> io::Result<()> {
    out.begin()?;
    for b in list {
        out.object(None)?;
        out.num("id", "id ", b.id, " ")?;
        if out.is_json() {
            out.object(Some("bucket"))?;
        }
        out.num("index", "index ", b.index, " ")?;
        out.seconds("idle_time", "idle_time ", b.idle_time, " ")?;
        out.num("nhid", "nhid ", b.nhid, " ")?;
        if out.is_json() {
            out.end_object()?;
        }
        out.words("flags", &[])?;
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

fn scope(out: &mut Out<'_>, name: &str, show: bool) -> io::Result<()> {
    if show { out.str("scope", "scope ", name, " ", Paint::Plain) } else { Ok(()) }
}
