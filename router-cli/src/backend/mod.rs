//! The running router behind the control socket: each operation is one turn of the control thread.

mod ports;
mod refusals;
mod routes;

use crate::control::*;
use refusals::stopped;
use router_core::counters::PortTotals;
use router_core::neighbor::SetMode;
use router_core::spec::{NextHopSpec, NudState, RouteInfo, RouteOp};
use router_io::runtime::{Control, RouterHandle};
use std::sync::Arc;
use std::time::Instant;

/// Operations that one turn of the control thread takes from a batch: neighbours wait no longer than this lasts.
const BATCH_SLICE: usize = 256;

/// Reads the configuration again and applies the difference; answers what it changed.
pub type Reload = Arc<dyn Fn() -> Result<String, WireError> + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct RouterBackend {
    handle: RouterHandle,
    name: String,
    started: Instant,
    reload: Reload,
}

impl RouterBackend {
    /// A backend for the router called `name`.
    pub fn new(handle: RouterHandle, name: String, reload: Reload) -> Self {
        RouterBackend { handle, name, started: Instant::now(), reload }
    }

    fn batch(&self, ops: Vec<Op>, force: bool) -> Result<Answer, WireError> {
        let total = ops.len();
        let mut result = BatchResult::default();
        let mut ops = ops.into_iter();
        let mut at = 0;
        loop {
            let slice: Vec<Op> = ops.by_ref().take(BATCH_SLICE).collect();
            if slice.is_empty() {
                return Ok(Answer::Batch(result));
            }
            let n = slice.len();
            let mut part =
                self.handle.call(move |control| run_batch(slice, force, |op| execute(control, op))).map_err(stopped)?;
            part.failed.iter_mut().for_each(|f| f.index += at as u64);
            at += n;
            result.done += part.done;
            result.failed.append(&mut part.failed);
            if part.skipped > 0 || (!force && !result.failed.is_empty()) {
                result.skipped = total as u64 - result.done - result.failed.len() as u64;
                return Ok(Answer::Batch(result));
            }
        }
    }
}

impl Backend for RouterBackend {
    fn call(&self, op: Op) -> Result<Answer, WireError> {
        match op {
            Op::Batch { ops, force, .. } => self.batch(ops, force),
            Op::Reload => (self.reload)().map(Answer::Text),
            Op::Version => Ok(Answer::Version(VersionInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                name: self.name.clone(),
                pid: std::process::id(),
                protocol: VERSION,
            })),
            Op::Stats => {
                let uptime = self.started.elapsed().as_secs();
                self.handle.call(move |control| stats(control, uptime)).map_err(stopped)
            }
            op => self.handle.call(move |control| execute(control, op)).map_err(stopped)?,
        }
    }

    fn routes(
        &self,
        select: &RouteSelect,
        after: Option<&RoutePlace>,
        limit: usize,
    ) -> Result<(Vec<RouteInfo>, Option<RoutePlace>), WireError> {
        let (select, after) = (select.clone(), after.cloned());
        self.handle.call(move |control| routes::page(control, &select, after, limit)).map_err(stopped)
    }
}

/// Carries out one operation on the control thread.
fn execute(control: &mut Control, op: Op) -> Result<Answer, WireError> {
    match op {
        Op::RouteAdd(r) => routes::change(control, RouteOp::Add, &r),
        Op::RouteReplace(r) => routes::change(control, RouteOp::Replace, &r),
        Op::RouteChange(r) => routes::change(control, RouteOp::Change, &r),
        Op::RouteAppend(r) => routes::change(control, RouteOp::Append, &r),
        Op::RoutePrepend(r) => routes::change(control, RouteOp::Prepend, &r),
        Op::RouteDelete(r) => routes::change(control, RouteOp::Delete, &r),
        Op::RouteFlush(select) => routes::flush(control, &select),
        Op::RouteGet(get) => routes::get(control, &get),
        Op::NeighAdd(n) => ports::set_neighbor(control, SetMode::Add, n),
        Op::NeighChange(n) => ports::set_neighbor(control, SetMode::Change, n),
        Op::NeighReplace(n) => ports::set_neighbor(control, SetMode::Replace, n),
        Op::NeighDelete(n) => ports::del_neighbor(control, &n),
        Op::NeighShow(select) => Ok(Answer::Neighs(ports::neighbors(control, &select))),
        Op::NeighFlush(select) => {
            let all = ports::neighbors(control, &select);
            let some = all.iter().filter(|n| !matches!(n.neigh.state, Some(NudState::Permanent | NudState::NoArp)));
            let mut count = 0;
            for n in some {
                count += u64::from(ports::del_neighbor(control, &n.neigh).is_ok());
            }
            Ok(Answer::Count(count))
        }
        Op::LinkShow(select) => ports::links(control, &select),
        Op::LinkSet(set) => ports::set_link(control, &set),
        Op::AddrAdd(a) => ports::add_addr(control, &a, true),
        Op::AddrReplace(a) => ports::add_addr(control, &a, false),
        Op::AddrChange(a) => ports::change_addr(control, &a),
        Op::AddrDelete(a) => ports::del_addr(control, &a),
        Op::AddrFlush(select) => ports::flush_addrs(control, &select),
        Op::TunnelAdd(t) => ports::add_tunnel(control, *t),
        Op::TunnelChange(change) => ports::change_tunnel(control, &change),
        Op::TunnelDelete(name) => ports::del_tunnel(control, &name),
        Op::TunnelShow(name) => ports::tunnels(control, name.as_deref()),
        Op::NextHopAdd(n) => next_hop(control, RouteOp::Add, &n),
        Op::NextHopReplace(n) => next_hop(control, RouteOp::Replace, &n),
        Op::NextHopDelete(id) => {
            let spec = NextHopSpec { id, kind: router_core::spec::NextHopKind::Blackhole, proto: None };
            next_hop(control, RouteOp::Delete, &spec)
        }
        Op::NextHopShow(select) => {
            let all = control.router().routing().next_hops();
            Ok(Answer::Nexthops(all.filter(|n| select.matches(n)).cloned().collect()))
        }
        Op::NextHopFlush(select) => {
            let all = control.router().routing().next_hops();
            let some: Vec<_> = all.filter(|n| select.matches(n)).cloned().collect();
            let mut count = 0;
            for n in some {
                // One that went with its group's last member is gone already.
                count += u64::from(next_hop(control, RouteOp::Delete, &n).is_ok());
            }
            Ok(Answer::Count(count))
        }
        Op::RouteShow(_) | Op::Batch { .. } | Op::Reload | Op::Version | Op::Stats => {
            Err(WireError::protocol("this operation cannot be part of a batch"))
        }
    }
}

fn next_hop(control: &mut Control, op: RouteOp, spec: &NextHopSpec) -> Result<Answer, WireError> {
    control.router_mut().routing_mut().next_hop(op, spec)?;
    Ok(Answer::Done)
}

fn stats(control: &mut Control, uptime: u64) -> Answer {
    let t = control.totals();
    let router = control.router();
    let ports: Vec<(String, PortTotals)> =
        router.ports().iter().map(|p| (p.name.clone(), control.port_totals(p.id))).collect();
    Answer::Stats(Box::new(StatsInfo {
        received: t.received,
        originated: t.originated,
        transmitted: t.transmitted,
        delivered: t.delivered,
        answered: t.answered,
        held: t.held,
        dropped: t.dropped.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        ports,
        routes: routes::counts(control),
        uptime,
    }))
}
