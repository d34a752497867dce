//! Measures lookups alone, on one core.

use crate::measure::{Plan, Spread, per_item};
use crate::table::Table;
use router_core::fib::{Fib, FibFull, FibMemory, Lookup};
use router_core::object::ObjectId;
use std::net::IpAddr;

/// Destinations of one batch.
pub const BATCH: usize = 64;

/// A table compiled for lookup. Every route's object has the number of its next hop.
#[derive(Debug)]
pub struct Compiled {
    /// What is looked up in.
    pub fib: Fib,
    /// Its memory.
    pub memory: FibMemory,
}

impl Compiled {
    /// Compiles a table.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn new(table: &Table) -> Result<Self, FibFull> {
        let mut memory = FibMemory::new();
        let fib = Fib::new(&memory);
        // As the control plane does: what was replaced on the way is used again after some thousand routes.
        for (seq, routes) in (0u64..).zip(table.chunks(4096)) {
            for (net, hop) in routes {
                fib.insert(&mut memory, net, ObjectId(u32::from(*hop)))?;
            }
            memory.seal(seq);
            memory.release(seq + 1);
        }
        Ok(Compiled { fib, memory })
    }
}

/// Nanoseconds per lookup, in batches of [`BATCH`], round and round through the destinations.
pub fn measure(fib: &impl Lookup, destinations: &[IpAddr], plan: Plan) -> Spread {
    let mut out = [ObjectId::NO_ROUTE; BATCH];
    let mut at = 0;
    per_item(plan.runs, plan.time, || {
        let mut done = 0;
        for _ in 0..16 {
            let end = (at + BATCH).min(destinations.len());
            let batch = destinations.get(at..end).unwrap_or_default();
            fib.lookup_batch(batch, &mut out);
            std::hint::black_box(&out);
            done += batch.len();
            at = if end >= destinations.len() { 0 } else { end };
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use crate::table::synthetic_v4;
    use std::time::Duration;

    #[test]
    fn lookups_find_what_was_compiled() {
        let table = synthetic_v4(500, 4);
        let c = Compiled::new(&table).unwrap();
        let dst = Pattern::Prefix.destinations(&table, 100);
        assert!(dst.iter().all(|d| c.fib.lookup(d) != ObjectId::NO_ROUTE));
        let s = measure(&c.fib, &dst, Plan { runs: 1, time: Duration::from_millis(1) });
        assert!(s.median > 0.0 && c.memory.bytes() > 0);
    }
}
