//! `duet bench forward`.

use super::show::Report;
use super::{FamilyArg, ForwardArgs, Progress};
use crate::grammar::{Failure, exit};
use benches::forwarding::{self, Path, Void};
use benches::pattern::Pattern;
use router_io::machine::thread_time;

/// Measures.
pub(super) fn run(args: &ForwardArgs, progress: &Progress) -> Result<Report, Failure> {
    let c = &args.common;
    c.pin()?;
    let path = Path::from(args.path);
    let family = if path.is_v6() { FamilyArg::Inet6 } else { FamilyArg::Inet };
    let (table, _) = c.table(Some(family), progress)?;
    progress.say(format!("loading {} routes", table.len()));
    let start = thread_time();
    let bed = path.bed(&table).map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    let load = thread_time() - start;
    progress.say("making packets");
    let pattern = Pattern::from(c.pattern);
    let packets = path.packets(&pattern.destinations(&table, c.destinations as usize));
    let plan = c.plan();
    progress.measuring("forwarding", plan);
    let batch = usize::from(args.batch);
    let done = forwarding::measure(&bed, &packets, batch, plan, || 0).map_err(|e| {
        let line = e.to_string();
        match e {
            Void::Lost { .. } => {
                let hint = "the table holds addresses that no router forwards: its own (192.0.2.0/24, 100.64.0.0/16, \
                            2001:db8::/64, fd00::/64), multicast or reserved ones, or nothing but a default route; take them out";
                Failure::with_hint(exit::REFUSED, line, hint)
            }
            Void::Account(_) => Failure::new(exit::REFUSED, line),
        }
    })?;
    Ok(Report {
        bench: "forward",
        title: format!("Forwarding {}, UDP packets of 64 bytes", path.name()),
        path: Some(path.name()),
        family: family.word(),
        pattern: pattern.name(),
        table: c.origin(),
        routes: table.len(),
        bytes: bed.router.routing().stats().fib_bytes,
        load,
        destinations: packets.len(),
        batch,
        item: done.packet,
        plan,
    })
}
