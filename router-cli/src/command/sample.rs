//! `duet stats route` and `duet stats nexthop`: the traffic of routes and next hops, measured while somebody asks. Nothing
//! is counted for them all the time; a sample of packets is followed instead.

use super::{Session, unexpected};
use crate::control::{Answer, Op, RouteGet, TraceInfo, TraceSelect, TracedPacket};
use crate::grammar::Failure;
use crate::output::{Sample, samples};
use router_core::port::TableId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Packets that are followed at most.
const SAMPLE: u64 = 10_000;

/// What traffic is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The route that the packet took.
    Route,
    /// The next hop that it was sent to.
    NextHop,
}

/// Follows packets for some seconds, or until the sample is full, and prints what they took.
pub(crate) fn stats(session: &mut Session<'_>, by: By, seconds: f64) -> Result<(), Failure> {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1));
    let Answer::Count(id) = session.call(Op::TraceAdd(TraceSelect { filter: String::new(), count: SAMPLE }))? else {
        return Err(unexpected());
    };
    let started = Instant::now();
    let mut trace = None;
    while trace.as_ref().is_none_or(|t: &TraceInfo| t.left > 0) && started.elapsed() < time {
        std::thread::sleep(Duration::from_millis(50).min(time.saturating_sub(started.elapsed())));
        trace = read(session, id)?;
    }
    let trace = match trace {
        Some(t) => t,
        None => read(session, id)?.ok_or_else(unexpected)?,
    };
    session.call(Op::TraceDelete(id))?;
    // A full sample was taken in less time.
    let nanos = trace.packets.iter().map(|p| p.nanos);
    let span = match (trace.left, nanos.clone().min(), nanos.max()) {
        (0, Some(first), Some(last)) if last > first => (last - first) as f64 / 1e9,
        _ => started.elapsed().as_secs_f64(),
    };
    let mut routes: BTreeMap<IpAddr, Option<String>> = BTreeMap::new();
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for p in &trace.packets {
        let key = match by {
            By::Route => match destination(p) {
                Some(dst) => match routes.get(&dst) {
                    Some(known) => known.clone(),
                    None => {
                        let route = route_of(session, dst)?;
                        routes.insert(dst, route.clone());
                        route
                    }
                },
                None => None,
            },
            By::NextHop => p.steps.iter().rev().find(|s| s.what == "nexthop").map(|s| s.text.clone()),
        };
        let entry = found.entry(key.unwrap_or_else(|| "none".to_owned())).or_default();
        entry.0 += 1;
        entry.1 += p.packet.as_ref().map_or(0, |v| u64::from(v.len));
    }
    let mut list: Vec<Sample> = found
        .into_iter()
        .map(|(what, (packets, bytes))| Sample {
            what,
            packets,
            rate: packets as f64 / span,
            bits: 8.0 * bytes as f64 / span,
        })
        .collect();
    list.sort_by_key(|s| std::cmp::Reverse(s.packets));
    let head = match by {
        By::Route => "route",
        By::NextHop => "next hop",
    };
    session.print(|out, _| samples(out, head, &list, trace.packets.len() as u64, span))
}

fn read(session: &mut Session<'_>, id: u64) -> Result<Option<TraceInfo>, Failure> {
    match session.call(Op::TraceShow)? {
        Answer::Traces(list) => Ok(list.into_iter().find(|t| t.id == id)),
        _ => Err(unexpected()),
    }
}

/// What the packet's first lookup was for.
fn destination(p: &TracedPacket) -> Option<IpAddr> {
    let lookup = p.steps.iter().find(|s| s.what == "lookup")?;
    lookup.text.split(' ').next()?.parse().ok()
}

/// The prefix and next hop that the router has for a destination; None without a route.
fn route_of(session: &mut Session<'_>, dst: IpAddr) -> Result<Option<String>, Failure> {
    let get = RouteGet { fibmatch: true, table: Some(TableId::MAIN), ..RouteGet::to(dst) };
    match session.client()?.call(Op::RouteGet(get)) {
        Ok(Answer::Routes(list)) => Ok(list.first().map(|r| crate::output::route_line(&r.route))),
        Ok(_) => Err(unexpected()),
        Err(crate::control::ClientError::Refused(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
