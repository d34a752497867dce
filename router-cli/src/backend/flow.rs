//! Offloaded flows of the running router, in the words of the control protocol.

use crate::control::{FlowInfo, FlowStatus, FlowsInfo};
use router_core::time::Duration;
use router_io::runtime::{Control, OffloadStatus, OffloadedFlow};
use std::cmp::Reverse;

pub(super) fn show(c: &mut Control, limit: usize) -> FlowsInfo {
    let status = c.offload_status().map(status);
    let mut flows = c.offloaded_flows();
    flows.sort_by_key(|f| Reverse(f.bytes));
    flows.truncate(limit);
    FlowsInfo { status, flows: flows.iter().map(|f| info(c, f)).collect() }
}

fn status(s: OffloadStatus) -> FlowStatus {
    let why = match (s.broken, s.suspended) {
        (true, _) => Some("this kernel loses the marks of offloaded packets"),
        (_, true) => Some("packets are being captured or traced"),
        _ => None,
    };
    FlowStatus {
        flows: s.flows,
        max: s.capacity,
        suspended: why.map(str::to_owned),
        generation: s.generation,
        packets: s.packets,
        bytes: s.bytes,
        failed: s.counts.failed,
    }
}

fn info(c: &Control, f: &OffloadedFlow) -> FlowInfo {
    let seconds = |d: Duration| d.as_millis() as f64 / 1000.0;
    FlowInfo {
        iif: c.port_name(f.ingress),
        src: f.key.src,
        dst: f.key.dst,
        proto: if f.key.proto == 6 { "tcp" } else { "udp" }.to_owned(),
        sport: f.key.sport,
        dport: f.key.dport,
        tos: f.key.tclass,
        flowlabel: f.key.label,
        oif: c.port_name(f.egress),
        tunnel: f.tunnel.map(|t| c.port_name(t)),
        packets: f.packets,
        segments: f.segments,
        bytes: f.bytes,
        age: seconds(f.age),
        idle: seconds(f.idle),
        stale: !f.current,
    }
}
