//! Captures, traces and drops of the running router, in the words of the control protocol.

use crate::control::{
    Answer, CapturePage, CaptureSelect, DropInfo, DroppedPacket, PacketFeed, PacketRecord, TraceInfo, TraceSelect,
    TraceStep, TracedPacket, WireError, WorkerStats,
};
use router_core::counters::WorkerCounters;
use router_core::drop_reason::DropReason;
use router_core::explain::{Bytes, PacketView};
use router_core::forward::Verdict;
use router_core::forward::local::Local;
use router_core::observe::{Punted, Withheld};
use router_core::port::PortId;
use router_core::trace::{Event, Filter, Point, Points, StepRecord};
use router_io::capture::{CapturedPacket, Feed};
use router_io::runtime::{Control, RouterHandle, Traced, WatchError};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Packets that may wait for a capturing client.
const QUEUE: usize = 16_384;
/// Packets kept of one drop reason, over all workers.
const LAST: usize = 4;

/// Nanoseconds since 1970 at the router's instant zero.
fn epoch(c: &Control) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0).saturating_sub(c.now().as_nanos())
}

/// Reads a filter with the names of the router's ports.
fn filter(c: &Control, text: &str) -> Result<Filter, WireError> {
    let port = |name: &str| c.router().ports().by_name(name).map(|p| p.id);
    Filter::parse(text, &port)
        .map_err(|e| WireError::new("invalid", format!("Error: {}\n{}", e.message, e.picture(text)), ""))
}

fn watch_error(e: WatchError) -> WireError {
    WireError::new("busy", format!("Error: {e}."), "end some of them, or say \"duet trace clear\"")
}

/// Starts a capture.
pub(super) fn capture(handle: &RouterHandle, select: &CaptureSelect) -> Result<Box<dyn PacketFeed>, WireError> {
    let gone = |_| WireError::new("failed", "The router has stopped.", "start it again with \"duet run FILE\"");
    let mut points = Points::default();
    for name in &select.at {
        match Point::from_name(name) {
            Some(p) => points = points.with(p),
            None => {
                let line = format!("Error: \"{name}\" is no place to capture at.");
                return Err(WireError::new("invalid", line, "say rx, tx, drop, inner or outer"));
            }
        }
    }
    let (text, snap, queue) = (select.filter.clone(), select.snap, select.queue);
    let snap = if snap == 0 { usize::MAX } else { snap as usize };
    let queue = if queue == 0 { QUEUE } else { (queue as usize).min(1 << 20) };
    let started = handle.call(move |c| {
        let filter = filter(c, &text)?;
        let capture = c.capture(filter, points, snap, queue).map_err(watch_error)?;
        let names = c.router().ports().iter().map(|p| (p.id, p.name.clone())).collect();
        Ok((capture, epoch(c), names))
    });
    let (capture, epoch, names): (_, _, HashMap<PortId, String>) = started.map_err(gone)??;
    Ok(Box::new(Running { handle: handle.clone(), id: capture.id, feed: capture.feed, epoch, names }))
}

struct Running {
    handle: RouterHandle,
    id: u64,
    feed: Feed,
    epoch: u64,
    names: HashMap<PortId, String>,
}

impl Running {
    fn record(&mut self, p: CapturedPacket) -> PacketRecord {
        let port = match self.names.get(&p.port) {
            Some(name) => name.clone(),
            // A port that was added meanwhile.
            None => {
                let id = p.port;
                let name = self.handle.call(move |c| c.port_name(id)).unwrap_or_else(|_| "router".to_owned());
                self.names.insert(id, name.clone());
                name
            }
        };
        let record = PacketRecord {
            nanos: self.epoch.wrapping_add(p.at.as_nanos()),
            at: p.point.name().to_owned(),
            port,
            inbound: p.inbound,
            reason: p.reason.map(|r| r.name().to_owned()),
            len: p.len,
            ethernet: p.ethernet,
            vlan_tci: p.meta.vlan_tci,
            gso: p.meta.gso.map(|g| g.size),
            data: Bytes(p.data.clone()),
        };
        self.feed.give_back(p);
        record
    }
}

impl PacketFeed for Running {
    fn take(&mut self, most: usize) -> CapturePage {
        let mut packets = Vec::new();
        while packets.len() < most {
            let Some(p) = self.feed.take() else { break };
            packets.push(self.record(p));
        }
        CapturePage { packets, lost: self.feed.lost() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let id = self.id;
        // A router that is gone has ended it already.
        let _ = self.handle.call(move |c| c.unwatch(id));
    }
}

pub(super) fn trace_add(c: &mut Control, select: &TraceSelect) -> Result<Answer, WireError> {
    let filter = filter(c, &select.filter)?;
    let count = if select.count == 0 { 50 } else { select.count };
    c.trace(filter, &select.filter, count).map(Answer::Count).map_err(watch_error)
}

pub(super) fn traces(c: &mut Control) -> Vec<TraceInfo> {
    let epoch = epoch(c);
    let workers = c.worker_count();
    let names: HashMap<PortId, String> = c.router().ports().iter().map(|p| (p.id, p.name.clone())).collect();
    let name = |id: PortId| names.get(&id).cloned().unwrap_or_else(|| "router".to_owned());
    let tell = |t: &Traced| traced(t, epoch, workers, &name);
    c.traces()
        .iter()
        .map(|t| TraceInfo {
            id: t.id,
            filter: t.filter.clone(),
            count: t.count,
            left: t.left(),
            lost: t.lost(),
            packets: t.packets.iter().map(tell).collect(),
        })
        .collect()
}

fn traced(t: &Traced, epoch: u64, workers: usize, name: &dyn Fn(PortId) -> String) -> TracedPacket {
    let first = t.steps.first();
    let start = first.map_or(0, |s| s.at.as_nanos());
    let (mut iif, mut packet) = ("router".to_owned(), None);
    let mut steps: Vec<TraceStep> = Vec::new();
    let mut jobs = 0;
    for s in &t.steps {
        let view = view_of(s);
        match s.event {
            Event::Received { port, .. } => {
                iif = name(port);
                packet = view;
                continue;
            }
            Event::Job => {
                jobs += 1;
                if jobs == 1 {
                    packet = packet.or(view);
                    continue;
                }
            }
            _ => {}
        }
        let Some((what, text, detail)) = words(s, name) else { continue };
        let after = s.at.as_nanos().saturating_sub(start);
        steps.push(TraceStep { after, what: what.to_owned(), text, detail, packet: view });
    }
    let worker = if usize::from(t.worker) < workers { format!("worker{}", t.worker) } else { "control".into() };
    TracedPacket { nanos: epoch.wrapping_add(start), worker, iif, packet, steps }
}

/// The packet as far as its first bytes tell.
fn view_of(s: &StepRecord) -> Option<PacketView> {
    let head = s.head();
    if head.is_empty() {
        return None;
    }
    let ip = if let Event::Received { ethernet: true, .. } | Event::Transmit(_) = s.event {
        let tag = if head.get(12..14) == Some(&[0x81, 0]) { 4 } else { 0 };
        let inner =
            head.get(14 + tag..).filter(|_| matches!(head.get(12 + tag..14 + tag), Some([8, 0] | [0x86, 0xdd])));
        inner.unwrap_or(head)
    } else {
        head
    };
    PacketView::of_head(ip)
}

/// A step in one word, in some more, and whether packets of one way differ in it.
fn words(s: &StepRecord, name: &dyn Fn(PortId) -> String) -> Option<(&'static str, String, bool)> {
    let len = s.len;
    Some(match s.event {
        Event::Received { .. } | Event::Parsed => return None,
        Event::Job => ("next", "work on what came of it".to_owned(), false),
        Event::Lookup { table, dst } => {
            ("lookup", format!("{dst} in table {}", crate::grammar::table_name(table)), true)
        }
        Event::Member { bucket, .. } => ("group", format!("bucket {bucket}"), true),
        Event::NextHop { port, gateway, known } => {
            let via = gateway.map_or_else(String::new, |g| format!("{g} "));
            let state = if known { "" } else { ", not resolved" };
            ("nexthop", format!("{via}dev {}{state}", name(port)), false)
        }
        Event::Decided { by, verdict } => {
            let end = by.iter().position(|b| *b == 0).unwrap_or(by.len());
            let by = String::from_utf8_lossy(&by[..end]).into_owned();
            let says = match verdict {
                Verdict::Transmit(p) => format!("send through {}", name(p)),
                Verdict::Continue(_) => "go on".to_owned(),
                Verdict::Again { port, .. } => format!("translate, then as from {}", name(port)),
                Verdict::Consult { port, .. } => format!("ask the translator {} for a session", name(port)),
                Verdict::TooBig { mtu } => format!("too long for {mtu} bytes"),
                Verdict::Resolve { port, neighbor } => format!("ask for {neighbor} on {}", name(port)),
                Verdict::Deliver => "for the router".to_owned(),
                Verdict::Drop(r) => format!("drop, {r}"),
            };
            ("decided", format!("{by}: {says}"), false)
        }
        Event::Filtered { port, rule, allowed } => {
            let by = if rule == 0 { "no rule".to_owned() } else { format!("rule {rule}") };
            ("filter", format!("of {}: {by}, {}", name(port), if allowed { "passes" } else { "turned away" }), false)
        }
        Event::Clamped { from, to } => ("mss", format!("{from} -> {to}"), false),
        Event::Aged => ("ttl", "one less".to_owned(), false),
        Event::Encapsulated(t) => ("encap", format!("into {}, {len} bytes now", name(t)), true),
        Event::Decapsulated(t) => ("decap", format!("out of {}, {len} bytes now", name(t)), true),
        Event::Local(l) => {
            let what = match l {
                Local::Echo => "an echo request for the router",
                Local::Tunnel => "a tunnel packet for the router",
                Local::TcpReset => "a TCP segment for the router",
                Local::Ndp => "neighbour discovery",
                Local::Reassemble => "a fragment for the router",
                Local::IcmpError => "an ICMP error for the router",
                Local::Drop(_) => "for the router",
            };
            ("local", what.to_owned(), false)
        }
        Event::Translated => ("translated", "into the other family".to_owned(), false),
        Event::Cut(n) => ("cut", format!("into {n} pieces"), true),
        Event::Answered(with) => ("answer", with.to_owned(), false),
        Event::Withheld(why) => {
            let why = match why {
                Withheld::RateLimit => "the rate limit allows none",
                Withheld::NoSource => "no address to send it from",
                Withheld::NoFrame => "no free buffer",
            };
            ("no answer", why.to_owned(), false)
        }
        Event::Transmit(p) => ("sent", format!("{}, {len} bytes", name(p)), true),
        Event::Punt(p) => {
            let what = match p {
                Punted::Arp => "ARP".to_owned(),
                Punted::Ndp => "neighbour discovery".to_owned(),
                Punted::RouterSolicit => "router discovery".to_owned(),
                Punted::Resolve { port, neighbor } => format!("waits for {neighbor} on {}", name(port)),
                Punted::Reassemble => "reassembly".to_owned(),
                Punted::IcmpError => "an ICMP error".to_owned(),
                Punted::EchoReply => "an answer to a keepalive".to_owned(),
                Punted::Translate(_) => "a translator's session".to_owned(),
            };
            ("control", what, false)
        }
        Event::Drop(r) => ("dropped", r.name().to_owned(), false),
    })
}

/// Reasons that occurred, the most frequent first, with the last packets of each.
pub(super) fn drops(c: &Control) -> Vec<DropInfo> {
    let now = c.now();
    let mut list: Vec<DropInfo> = Vec::new();
    for r in DropReason::ALL {
        let packets: u64 = c.all_counters().map(|w| w.dropped(*r)).sum();
        if packets == 0 {
            continue;
        }
        let mut last: Vec<_> = c.all_counters().flat_map(|w| w.last_drops.read(*r)).collect();
        last.sort_by_key(|d| std::cmp::Reverse(d.at));
        let last = last.into_iter().take(LAST).map(|d| {
            let ip = if d.link { d.head.get(14..).unwrap_or(&[]) } else { &d.head[..] };
            DroppedPacket {
                ago: u64::try_from(now.saturating_since(d.at).as_millis()).unwrap_or(u64::MAX),
                iif: c.port_name(d.port),
                len: d.len,
                packet: PacketView::of_head(ip),
            }
        });
        list.push(DropInfo { reason: r.name().to_owned(), packets, last: last.collect() });
    }
    list.sort_by_key(|d| std::cmp::Reverse(d.packets));
    list
}

/// What each worker did; the control side is the last.
pub(super) fn workers(c: &Control) -> Vec<WorkerStats> {
    let count = c.worker_count();
    let one = |(i, w): (usize, &WorkerCounters)| WorkerStats {
        name: if i < count { format!("worker{i}") } else { "control".into() },
        received: w.received.get(),
        originated: w.originated.get(),
        transmitted: w.transmitted.get(),
        dropped: DropReason::ALL.iter().map(|r| w.dropped(*r)).sum(),
    };
    c.all_counters().enumerate().map(one).collect()
}
