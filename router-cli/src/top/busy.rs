//! The busiest routes: a sample of packets, followed for a part of each interval while somebody looks at them.

use super::collect::{Collector, other};
use crate::control::{Answer, ClientError, Op, RouteGet, TraceInfo, TraceSelect, TracedPacket};
use crate::grammar::{kind_name, table_from_name, table_name};
use router_core::port::TableId;
use router_core::spec::{RouteKind, RouteSpec};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Packets followed per look.
const SAMPLE: u64 = 200;
/// Looks that the picture is made of.
const LOOKS: usize = 4;
/// Lookups per look: the rest of many destinations is counted as others.
const LOOKUPS: usize = 64;

/// Traffic of one route.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Busy {
    /// Prefix, and table if it is not main.
    pub route: String,
    /// Where it leads.
    pub via: String,
    /// One of the destinations.
    pub to: String,
    pub packets: f64,
    pub bits: f64,
}

/// What is known of the busiest routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Sampler {
    looks: VecDeque<Vec<Busy>>,
}

impl Sampler {
    /// Nobody looks any more.
    pub fn forget(&mut self) {
        *self = Sampler::default();
    }

    /// Per second, over the last looks.
    pub fn busiest(&self) -> Vec<Busy> {
        let mut sum: BTreeMap<&str, Busy> = BTreeMap::new();
        let share = 1.0 / self.looks.len().max(1) as f64;
        for b in self.looks.iter().flatten() {
            let s = sum.entry(&b.route).or_insert_with(|| Busy { packets: 0.0, bits: 0.0, ..b.clone() });
            s.packets += b.packets * share;
            s.bits += b.bits * share;
        }
        sum.into_values().collect()
    }
}

/// Follows packets for a while and tells which routes they took.
pub(super) fn look(c: &mut Collector, window: Duration) -> Result<(), ClientError> {
    let asked = Op::TraceAdd(TraceSelect { filter: String::new(), count: SAMPLE });
    let Answer::Count(id) = c.call(asked)? else { return Err(other()) };
    let started = Instant::now();
    let seen = loop {
        std::thread::sleep(Duration::from_millis(20).min(window));
        let Answer::Traces(list) = c.call(Op::TraceShow)? else { return Err(other()) };
        let seen = list.into_iter().find(|t| t.id == id);
        let full = seen.as_ref().is_none_or(|t: &TraceInfo| t.left == 0);
        if full || started.elapsed() >= window {
            break seen;
        }
    };
    let elapsed = started.elapsed();
    // Somebody may have cleared all traces meanwhile.
    match c.call(Op::TraceDelete(id)) {
        Ok(_) | Err(ClientError::Refused(_)) => {}
        Err(e) => return Err(e),
    }
    let Some(trace) = seen else { return Ok(()) };
    let nanos = trace.packets.iter().map(|p| p.nanos);
    let span = match (trace.left, nanos.clone().min(), nanos.max()) {
        (0, Some(first), Some(last)) if last > first => (last - first) as f64 / 1e9,
        _ => elapsed.as_secs_f64(),
    };
    let mut found: BTreeMap<String, Busy> = BTreeMap::new();
    let mut lookups = LOOKUPS;
    let mut routes: BTreeMap<(TableId, IpAddr), (String, String)> = BTreeMap::new();
    for p in &trace.packets {
        let Some((dst, table)) = destination(p) else { continue };
        let (route, via) = match routes.get(&(table, dst)) {
            Some(known) => known.clone(),
            None if lookups == 0 => ("others".to_owned(), String::new()),
            None => {
                lookups -= 1;
                let known = route_of(c, dst, table)?;
                routes.insert((table, dst), known.clone());
                known
            }
        };
        let b =
            found.entry(route.clone()).or_insert_with(|| Busy { route, via, to: dst.to_string(), ..Busy::default() });
        b.packets += 1.0 / span;
        b.bits += 8.0 * p.packet.as_ref().map_or(0.0, |v| f64::from(v.len)) / span;
    }
    c.sampler.looks.push_back(found.into_values().collect());
    while c.sampler.looks.len() > LOOKS {
        c.sampler.looks.pop_front();
    }
    Ok(())
}

/// What the packet's first lookup was for, and where.
fn destination(p: &TracedPacket) -> Option<(IpAddr, TableId)> {
    let lookup = p.steps.iter().find(|s| s.what == "lookup")?;
    let (dst, rest) = lookup.text.split_once(' ')?;
    let table = rest.strip_prefix("in table ").and_then(table_from_name).unwrap_or(TableId::MAIN);
    Some((dst.parse().ok()?, table))
}

/// The route that the router has for a destination, and where it leads.
fn route_of(c: &mut Collector, dst: IpAddr, table: TableId) -> Result<(String, String), ClientError> {
    let get = RouteGet { fibmatch: true, table: Some(table), ..RouteGet::to(dst) };
    match c.call(Op::RouteGet(get)) {
        Ok(Answer::Routes(list)) => Ok(list.first().map(|r| words(&r.route)).unwrap_or_default()),
        Ok(_) => Err(other()),
        // A route that discards is told in the refusal.
        Err(ClientError::Refused(e)) => Ok(match e.hint.as_deref().and_then(|h| h.strip_prefix("by ")) {
            Some(route) => {
                let (kind, rest) = route.split_once(' ').unwrap_or((route, ""));
                (rest.split(' ').next().unwrap_or_default().to_owned(), kind.to_owned())
            }
            None => ("none".to_owned(), "no route".to_owned()),
        }),
        Err(e) => Err(e),
    }
}

fn words(route: &RouteSpec) -> (String, String) {
    let mut name = route.dst.to_string();
    let table = route.table_id();
    if table != TableId::MAIN && table != TableId::LOCAL {
        name += &format!(" table {}", table_name(table));
    }
    let via = match (&route.hops[..], route.kind, route.nhid) {
        (_, _, Some(id)) => format!("nhid {id}"),
        ([hop], RouteKind::Unicast, _) => {
            let via = hop.via.map_or_else(String::new, |v| format!("{v} "));
            format!("{via}dev {}", hop.dev.as_deref().unwrap_or("?"))
        }
        (hops, RouteKind::Unicast, _) => format!("{} next hops", hops.len()),
        (_, kind, _) => kind_name(kind).to_owned(),
    };
    (name, via)
}
