//! `duet bench lookup`.

use super::show::Report;
use super::{LookupArgs, Progress};
use crate::grammar::{Failure, exit};
use benches::lookups::{self, BATCH, Compiled};
use benches::pattern::Pattern;
use router_io::machine::thread_time;
use std::net::IpAddr;

/// Measures.
pub(super) fn run(args: &LookupArgs, progress: &Progress) -> Result<Report, Failure> {
    let c = &args.common;
    c.pin()?;
    let (table, family) = c.table(args.family, progress)?;
    progress.say(format!("compiling {} routes", table.len()));
    let start = thread_time();
    let compiled = Compiled::new(&table).map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    let load = thread_time() - start;
    progress.say("choosing destinations");
    let pattern = Pattern::from(c.pattern);
    let destinations: Vec<IpAddr> = pattern.destinations(&table, c.destinations as usize);
    let plan = c.plan();
    progress.measuring("looking up", plan);
    let item = lookups::measure(&compiled.fib, &destinations, plan);
    Ok(Report {
        bench: "lookup",
        title: format!("{} lookups", family.name()),
        path: None,
        family: family.word(),
        pattern: pattern.name(),
        table: c.origin(),
        routes: table.len(),
        bytes: compiled.memory.bytes(),
        load,
        destinations: destinations.len(),
        batch: BATCH,
        item,
        plan,
    })
}
