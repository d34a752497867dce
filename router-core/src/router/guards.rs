//! Filters and guards of ports: set by commands and configuration, compiled with each snapshot that needs it.

use crate::filter::{
    FilterSpec, Guard, GuardSpec, Guards, MAX_FILTERS, MAX_RULES, PortFlags, RuleTable, UrpfMode, valid_name,
};
use crate::port::{PortId, PortKind};
use crate::router::Router;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The loopback: its filter is for what is delivered to the router.
const LOOPBACK: &str = "lo";

/// Why a filter or guard was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not usable as a name.
    #[error(
        "\"{0}\" cannot be a filter's name: 1 to 31 letters, digits, \".\", \"_\" and \"-\"; none, allow, deny and reject are taken"
    )]
    Name(String),
    /// No such filter.
    #[error("no filter \"{0}\"")]
    Unknown(String),
    /// A filter of this name is there.
    #[error("a filter \"{0}\" exists already")]
    Exists(String),
    /// Ports use it.
    #[error("filter \"{name}\" is in use by {port}")]
    InUse {
        /// The filter.
        name: String,
        /// One of its users.
        port: String,
    },
    /// Too many rules or filters.
    #[error("more than {0} {1}")]
    TooMany(usize, &'static str),
    /// There is no such rule.
    #[error("filter \"{name}\" has no such rule: {rule}")]
    NoRule {
        /// The filter.
        name: String,
        /// As asked for.
        rule: String,
    },
    /// What a port of this kind cannot do.
    #[error("{0}: {1}")]
    Unfit(String, &'static str),
}

/// Filters by name and guards by name of the port. Neither needs the other side to be there: a port that comes later finds
/// its guard.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    filters: BTreeMap<String, (FilterSpec, Arc<RuleTable>)>,
    guards: BTreeMap<String, GuardSpec>,
    compiled: Arc<Guards>,
    /// Filters or guards have changed, or ports may have.
    stale: bool,
    /// Ports that have flags now.
    flagged: Vec<PortId>,
    feasible: bool,
}

/// A filter as shown.
#[derive(Clone, Debug)]
pub struct FilterInfo {
    /// The filter with its counts.
    pub table: Arc<RuleTable>,
    /// Where it is in force: the port, and whether for what goes out.
    pub used: Vec<(String, bool)>,
}

impl Router {
    /// Makes a filter, or gives one other rules: all of them at once. Rules that stay keep their counts.
    pub fn set_filter(&mut self, name: &str, spec: FilterSpec) -> Result<(), FilterError> {
        if !valid_name(name) {
            return Err(FilterError::Name(name.to_owned()));
        }
        if spec.rules.len() > MAX_RULES {
            return Err(FilterError::TooMany(MAX_RULES, "rules in a filter"));
        }
        let filters = &mut self.guarding.filters;
        if !filters.contains_key(name) && filters.len() >= MAX_FILTERS {
            return Err(FilterError::TooMany(MAX_FILTERS, "filters"));
        }
        let table = RuleTable::new(name, &spec, filters.get(name).map(|(_, t)| &**t));
        filters.insert(name.to_owned(), (spec, Arc::new(table)));
        self.guards_changed();
        Ok(())
    }

    /// Removes a filter that no port uses.
    pub fn del_filter(&mut self, name: &str) -> Result<(), FilterError> {
        let user = self.guarding.guards.iter().find(|(_, g)| g.filters().any(|f| f == name));
        if let Some((port, _)) = user {
            return Err(FilterError::InUse { name: name.to_owned(), port: port.clone() });
        }
        match self.guarding.filters.remove(name) {
            Some(_) => Ok(()),
            None => Err(FilterError::Unknown(name.to_owned())),
        }
    }

    /// A filter's rules.
    pub fn filter(&self, name: &str) -> Result<&FilterSpec, FilterError> {
        self.guarding.filters.get(name).map(|(s, _)| s).ok_or_else(|| FilterError::Unknown(name.to_owned()))
    }

    /// All filters, by name.
    pub fn filters(&self) -> impl Iterator<Item = FilterInfo> {
        self.guarding.filters.values().map(|(_, table)| {
            let name = table.name();
            let uses = |f: &Option<String>| f.as_deref() == Some(name);
            let used = self.guarding.guards.iter().flat_map(|(port, g)| {
                let places = [(uses(&g.filter_in), false), (uses(&g.filter_out), true)];
                places.into_iter().filter(|(used, _)| *used).map(|(_, out)| (port.clone(), out))
            });
            FilterInfo { table: Arc::clone(table), used: used.collect() }
        })
    }

    /// What a port asks of its packets; all defaults if nothing was said.
    pub fn guard(&self, port: &str) -> GuardSpec {
        self.guarding.guards.get(port).cloned().unwrap_or_default()
    }

    /// All guards that say something, by name of the port.
    pub fn guards(&self) -> impl Iterator<Item = (&str, &GuardSpec)> {
        self.guarding.guards.iter().map(|(n, g)| (n.as_str(), g))
    }

    /// Sets what a port or tunnel asks of its packets, whether it is there already or not.
    pub fn set_guard(&mut self, port: &str, spec: GuardSpec) -> Result<(), FilterError> {
        if let Some(name) = spec.filters().find(|n| !self.guarding.filters.contains_key(*n)) {
            return Err(FilterError::Unknown(name.to_owned()));
        }
        let kind = self.ports.iter().find(|p| p.name == port).map(|p| p.kind);
        let unfit = |why| Err(FilterError::Unfit(port.to_owned(), why));
        if port == LOOPBACK && (spec.filter_out.is_some() || spec.urpf.is_some() || spec.mss.is_some()) {
            return unfit("the loopback has only filter_in, for what is delivered to the router");
        }
        if spec.urpf.is_some() && matches!(kind, Some(PortKind::RawIp | PortKind::Udp | PortKind::Translator)) {
            return unfit("sources are checked where packets come in from a link or tunnel");
        }
        match spec.is_empty() {
            true => self.guarding.guards.remove(port),
            false => self.guarding.guards.insert(port.to_owned(), spec),
        };
        self.guards_changed();
        Ok(())
    }

    fn guards_changed(&mut self) {
        self.guarding.stale = true;
        self.changed = true;
    }

    /// The guards for the next snapshot, and flags beside its ports. `routing` says whether routes may have changed.
    pub(super) fn compile_guards(&mut self, routing: bool) -> Arc<Guards> {
        let idle = self.guarding.guards.is_empty() && self.guarding.flagged.is_empty() && !self.guarding.stale;
        if idle || !(self.changed || self.guarding.feasible && routing) {
            return Arc::clone(&self.guarding.compiled);
        }
        self.guarding.stale = false;
        for id in std::mem::take(&mut self.guarding.flagged) {
            self.ports.set_flags(id, PortFlags::default());
        }
        let g = &self.guarding;
        let table =
            |name: &Option<String>| name.as_ref().and_then(|n| g.filters.get(n)).map(|(_, table)| Arc::clone(table));
        let (mut list, mut tunnels, mut feasible) = (Vec::new(), false, false);
        for (name, spec) in g.guards.iter().filter(|(n, _)| *n != LOOPBACK) {
            let Some(info) = self.port_names.get(name).and_then(|id| self.ports.get(*id)) else { continue };
            let guard = Guard {
                filter_in: table(&spec.filter_in),
                filter_out: table(&spec.filter_out),
                urpf: spec.urpf,
                limits: spec.limits.unwrap_or_default(),
                mss: spec.mss,
            };
            tunnels |= info.kind == PortKind::Tunnel && guard.flags().has(PortFlags::JUDGE_OUT);
            feasible |= spec.urpf.is_some_and(|u| u.mode == UrpfMode::Feasible);
            list.push((info.id, Arc::new(guard)));
        }
        let local = g.guards.get(LOOPBACK).and_then(|spec| table(&spec.filter_in));
        for (id, guard) in &list {
            self.ports.set_flags(*id, guard.flags());
            self.guarding.flagged.push(*id);
        }
        let mut guards = Guards::new(list, local, tunnels);
        if feasible {
            guards.alternatives = Arc::new(self.routing.alternatives());
        }
        self.guarding.feasible = feasible;
        self.guarding.compiled = Arc::new(guards);
        Arc::clone(&self.guarding.compiled)
    }
}
