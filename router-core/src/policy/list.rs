//! The rules of both families in order, by Linux's manners.

use super::L3MDEV_PRIORITY;
use super::compiled::{Policy, compile};
use super::rule::{RuleAction, RuleSpec};
use crate::addr::Family;
use crate::port::{PortId, TableId};
use crate::tables::PortTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rules per family at most: every packet may meet all of them.
const MAX_RULES: usize = 4096;

/// Why a rule was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The very same rule is there.
    #[error("File exists")]
    Exists,
    /// No rule fits.
    #[error("No such file or directory")]
    NoSuchRule,
    /// A prefix of the other family, or with bits behind its length.
    #[error("Invalid argument: {0}")]
    Invalid(&'static str),
    /// Too many.
    #[error("the limit of {MAX_RULES} rules per family is reached")]
    Full,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    v4: Vec<RuleSpec>,
    v6: Vec<RuleSpec>,
    /// The mark that packets get which come in through a port.
    marks: BTreeMap<PortId, u32>,
    /// The rule for VRFs was made once; it stays deleted when the operator deletes it.
    l3mdev: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { v4: born(Family::Inet), v6: born(Family::Inet6), marks: BTreeMap::new(), l3mdev: false }
    }
}

fn rule(family: Family, priority: u32, action: RuleAction) -> RuleSpec {
    RuleSpec { priority: Some(priority), ..RuleSpec::new(family, action) }
}

fn born(family: Family) -> Vec<RuleSpec> {
    let mut list = vec![
        rule(family, 0, RuleAction::Lookup(TableId::LOCAL)),
        rule(family, 32_766, RuleAction::Lookup(TableId::MAIN)),
    ];
    if family == Family::Inet {
        list.push(rule(family, 32_767, RuleAction::Lookup(TableId::DEFAULT)));
    }
    list
}

impl Rules {
    /// The rules of a family, in the order in which they are tried. Each has a priority.
    pub fn list(&self, family: Family) -> &[RuleSpec] {
        match family {
            Family::Inet => &self.v4,
            Family::Inet6 => &self.v6,
        }
    }

    fn list_mut(&mut self, family: Family) -> &mut Vec<RuleSpec> {
        match family {
            Family::Inet => &mut self.v4,
            Family::Inet6 => &mut self.v6,
        }
    }

    /// Adds a rule behind those of the same priority.
    pub fn add(&mut self, spec: &RuleSpec) -> Result<(), RuleError> {
        let mut new = spec.clone();
        check(&new)?;
        let list = self.list_mut(new.family);
        // Linux: one before the second rule, which is the first that is not `lookup local`.
        let before = list.get(1).and_then(|r| r.priority).map_or(0, |p| p.saturating_sub(1));
        let priority = *new.priority.get_or_insert(before);
        if let RuleAction::Goto(target) = new.action
            && target <= priority
        {
            return Err(RuleError::Invalid("Backward goto not supported"));
        }
        if list.contains(&new) {
            return Err(RuleError::Exists);
        }
        if list.len() >= MAX_RULES {
            return Err(RuleError::Full);
        }
        let place = list.partition_point(|r| r.priority <= Some(priority));
        list.insert(place, new);
        Ok(())
    }

    /// Deletes the first rule that is what `spec` says; what it leaves open may be anything. Gives it back.
    pub fn delete(&mut self, spec: &RuleSpec, any_action: bool) -> Result<RuleSpec, RuleError> {
        let list = self.list_mut(spec.family);
        let place = list.iter().position(|r| fits(spec, any_action, r)).ok_or(RuleError::NoSuchRule)?;
        Ok(list.remove(place))
    }

    /// Deletes all rules of a family but those of priority 0, as `ip rule flush` does. Says how many.
    pub fn flush(&mut self, family: Family) -> usize {
        let list = self.list_mut(family);
        let before = list.len();
        list.retain(|r| r.priority == Some(0));
        before - list.len()
    }

    /// Puts other rules of the operator in the place of those there were: `rules` beside the ones of the start.
    pub fn replace(&mut self, rules: &[RuleSpec]) -> Result<(), RuleError> {
        let mut new = Rules { marks: std::mem::take(&mut self.marks), ..Rules::default() };
        if self.l3mdev {
            new.need_l3mdev();
        }
        let done = rules.iter().try_for_each(|r| new.add(r));
        match done {
            Ok(()) => *self = new,
            Err(_) => self.marks = new.marks,
        }
        done
    }

    /// A VRF exists: makes the rule that sends packets of VRFs to their tables, the first time.
    pub fn need_l3mdev(&mut self) {
        if !std::mem::replace(&mut self.l3mdev, true) {
            for family in [Family::Inet, Family::Inet6] {
                let new = rule(family, L3MDEV_PRIORITY, RuleAction::L3mdev);
                let list = self.list_mut(family);
                let place = list.partition_point(|r| r.priority <= new.priority);
                list.insert(place, new);
            }
        }
    }

    /// Sets the mark of packets that come in through a port; 0 for none.
    pub fn set_mark(&mut self, port: PortId, mark: u32) {
        match mark {
            0 => _ = self.marks.remove(&port),
            _ => _ = self.marks.insert(port, mark),
        }
    }

    /// The mark that packets get which come in through a port.
    pub fn mark(&self, port: PortId) -> u32 {
        self.marks.get(&port).copied().unwrap_or(0)
    }

    /// Whether any rule looks at marks.
    pub fn look_at_marks(&self) -> bool {
        self.v4.iter().chain(&self.v6).any(|r| r.fwmark.is_some())
    }

    /// Whether a rule can send packets of this family anywhere else than to the table of their port.
    fn deviates(&self, family: Family) -> bool {
        let mut born = born(family);
        if self.l3mdev {
            born.insert(1, rule(family, L3MDEV_PRIORITY, RuleAction::L3mdev));
        }
        self.list(family) != born
    }

    /// What a snapshot carries; None when every packet is looked up in the table of its port.
    pub(crate) fn compile(&self, ports: &PortTable) -> Option<Arc<Policy>> {
        let list = |family| self.deviates(family).then(|| compile(self.list(family), ports));
        let (v4, v6) = (list(Family::Inet), list(Family::Inet6));
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let most = self.marks.keys().map(|p| p.index() + 1).max().unwrap_or(0);
        let mut marks = vec![0; most];
        for (port, mark) in &self.marks {
            if let Some(place) = marks.get_mut(port.index()) {
                *place = *mark;
            }
        }
        Some(Arc::new(Policy::new(v4, v6, marks)))
    }

    /// Prefix lengths up to which a table's matches are suppressed, with the table: each needs a compiled table of its own.
    pub(crate) fn suppressed(&self) -> Vec<(TableId, u8)> {
        let of = |r: &RuleSpec| match (r.action, r.suppress_prefixlength) {
            (RuleAction::Lookup(table), Some(n)) => Some((crate::tables::domain_of(table), n)),
            _ => None,
        };
        let mut all: Vec<_> = self.v4.iter().chain(&self.v6).filter_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whether a rule is what a delete command describes.
fn fits(said: &RuleSpec, any_action: bool, r: &RuleSpec) -> bool {
    fn same<T: PartialEq>(said: &Option<T>, there: &Option<T>) -> bool {
        said.is_none() || said == there
    }
    same(&said.priority, &r.priority)
        && said.not == r.not
        && same(&said.from, &r.from)
        && same(&said.to, &r.to)
        && same(&said.iif, &r.iif)
        && same(&said.fwmark, &r.fwmark)
        && same(&said.dscp, &r.dscp)
        && same(&said.ipproto, &r.ipproto)
        && same(&said.sport, &r.sport)
        && same(&said.dport, &r.dport)
        && same(&said.suppress_prefixlength, &r.suppress_prefixlength)
        && same(&said.protocol, &r.protocol)
        && (any_action || said.action == r.action)
}

fn check(r: &RuleSpec) -> Result<(), RuleError> {
    for net in [r.from, r.to].into_iter().flatten() {
        if Family::of_net(&net) != r.family {
            return Err(RuleError::Invalid("a prefix of the other family"));
        }
        if net.trunc() != net {
            return Err(RuleError::Invalid("a prefix with bits behind its length"));
        }
    }
    if r.dscp.is_some_and(|d| d > 63) {
        return Err(RuleError::Invalid("a code point is 0 to 63"));
    }
    if r.fwmark.is_some_and(|m| m.value & !m.mask != 0) {
        return Err(RuleError::Invalid("a mark with bits outside of its mask, which nothing can match"));
    }
    if [r.sport, r.dport].into_iter().flatten().any(|s| s.start > s.end || s.start == 0) {
        return Err(RuleError::Invalid("ports are 1 to 65535, the first no greater than the last"));
    }
    match (r.suppress_prefixlength, r.action) {
        (None, _) => {}
        (Some(n), RuleAction::Lookup(_)) if n <= r.family.bits() => {}
        (Some(_), RuleAction::Lookup(_)) => return Err(RuleError::Invalid("a longer prefix than there is")),
        (Some(_), _) => return Err(RuleError::Invalid("only what a table says can be suppressed")),
    }
    if matches!(r.action, RuleAction::Lookup(TableId(0))) {
        return Err(RuleError::Invalid("there is no table 0"));
    }
    Ok(())
}
