//! Which ports a prefix's candidates lead out of, best or not: for feasible reverse-path checks (RFC 3704 2.3).

use super::Routing;
use crate::filter::urpf::Alternatives;
use crate::port::PortId;

impl Routing {
    /// By forwarding object, for prefixes with several candidates. The work grows with the number of different lists of
    /// candidates, not with that of routes.
    pub(crate) fn alternatives(&self) -> Alternatives {
        let mut out = Alternatives::default();
        for (_, chain) in self.chains.iter().filter(|(_, c)| c.owns_object()) {
            let paths = chain.paths.iter().filter_map(|p| self.paths.get(*p));
            let mut ports: Vec<PortId> =
                paths.flat_map(|p| p.outcome.shares().filter(|s| s.usable).map(|s| s.leaf.port)).collect();
            ports.sort_unstable();
            ports.dedup();
            out.insert(chain.object, ports.into());
        }
        out
    }
}
