//! Next-hop objects (`ip nexthop`): named by number, shared by routes that say `nhid`.

use super::facts::Facts;
use super::{RouteError, Routing};
use crate::addr::Family;
use crate::journal::{Happened, Subject};
use crate::port::{PortId, TableId};
use crate::resolve::Root;
use crate::spec::{NextHopKind, NextHopSpec, RouteOp, proto};

const LONE_BLACKHOLE: &str = "Blackhole nexthop can not be used in a group with more than 1 path";

impl Routing {
    /// Adds, replaces or deletes a next-hop object. Routes follow a replaced one at once; deleting one deletes its
    /// routes, and takes it out of groups (a group that is left empty goes too).
    pub fn next_hop(&mut self, op: RouteOp, spec: &NextHopSpec) -> Result<(), RouteError> {
        let there = self.facts.next_hops.contains_key(&spec.id);
        match op {
            RouteOp::Delete => {
                if !there {
                    return Err(RouteError::NotFound);
                }
                self.remove_next_hop(spec.id);
                return Ok(());
            }
            RouteOp::Add if there => return Err(RouteError::Exists),
            RouteOp::Change if !there => return Err(RouteError::NotFound),
            _ => {}
        }
        if spec.id == 0 {
            return Err(RouteError::Invalid("a next-hop object's id is 1 or more"));
        }
        let is_group = |k: &NextHopKind| matches!(k, NextHopKind::Group(_));
        match self.facts.next_hops.get(&spec.id).map(|n| is_group(&n.kind)) {
            Some(false) if is_group(&spec.kind) => {
                return Err(RouteError::Group("Can not replace a nexthop with a nexthop group"));
            }
            Some(true) if !is_group(&spec.kind) => {
                return Err(RouteError::Group("Can not replace a nexthop group with a nexthop"));
            }
            _ => {}
        }
        match &spec.kind {
            NextHopKind::Blackhole => {
                if self.groups_with(spec.id).any(|g| self.group_size(g) > 1) {
                    return Err(RouteError::Group(LONE_BLACKHOLE));
                }
            }
            NextHopKind::Hop(hop) => {
                let Some(dev) = &hop.dev else { return Err(RouteError::NextHopNeedsDevice) };
                let port = self.facts.port_by_name(dev).ok_or_else(|| RouteError::NoDevice(dev.clone()))?;
                let domain = crate::tables::domain_of(port.table);
                self.check_hop(hop, hop.via.as_ref().map_or(Family::Inet6, Family::of), domain)?;
            }
            NextHopKind::Group(members) => self.check_group(spec.id, members)?,
        }
        self.check_resilient(spec)?;
        let mut spec = spec.clone();
        self.complete_resilient(&mut spec);
        spec.proto.get_or_insert(proto::UNSPEC);
        let id = spec.id;
        self.facts.next_hops.insert(id, spec.clone());
        self.sync_resilient(id);
        self.next_hop_changed(id);
        let happened = if there { Happened::Changed } else { Happened::Added };
        self.journal.write((happened, Subject::NextHop(spec)));
        Ok(())
    }

    /// All next-hop objects by number.
    pub fn next_hops(&self) -> impl Iterator<Item = &NextHopSpec> {
        self.facts.next_hops.values()
    }

    /// The next-hop object with this number.
    pub fn next_hop_by_id(&self, id: u32) -> Option<&NextHopSpec> {
        self.facts.next_hops.get(&id)
    }

    fn check_group(&self, own: u32, members: &[(u32, u16)]) -> Result<(), RouteError> {
        if members.is_empty() {
            return Err(RouteError::Group("No nexthops in group"));
        }
        for (i, (id, weight)) in members.iter().enumerate() {
            if !(1..=256).contains(weight) {
                return Err(RouteError::Group("Invalid value for weight"));
            }
            if members.iter().skip(i + 1).any(|(other, _)| other == id) {
                return Err(RouteError::Group("Nexthop id can not be used twice in a group"));
            }
            match self.facts.next_hops.get(id).map(|n| &n.kind) {
                None => return Err(RouteError::GroupMember(*id)),
                Some(_) if *id == own => return Err(RouteError::GroupMember(*id)),
                Some(NextHopKind::Group(_)) => {
                    let resilient = self.facts.next_hops.get(id).is_some_and(|n| n.resilient.is_some());
                    return Err(RouteError::Group(match resilient {
                        true => "Resilient nexthop group can not be a nexthop within a group",
                        false => "Hash-threshold group can not be a nexthop within a group",
                    }));
                }
                Some(NextHopKind::Blackhole) if members.len() > 1 => {
                    return Err(RouteError::Group(
                        "Blackhole nexthop can not be used in a group with more than 1 path",
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn groups_with(&self, id: u32) -> impl Iterator<Item = u32> {
        self.facts.next_hops.values().filter_map(move |n| match &n.kind {
            NextHopKind::Group(m) if m.iter().any(|(member, _)| *member == id) => Some(n.id),
            _ => None,
        })
    }

    fn group_size(&self, id: u32) -> usize {
        match self.facts.next_hops.get(&id).map(|n| &n.kind) {
            Some(NextHopKind::Group(members)) => members.len(),
            _ => 0,
        }
    }

    pub(super) fn remove_next_hop(&mut self, id: u32) {
        // Others depend on it, too: those of groups with it, and what they resolve through.
        let users = self.by_next_hop.get(&id).into_iter().flatten();
        let paths: Vec<_> = users.filter_map(|r| if let Root::Path(p) = r { Some(*p) } else { None }).collect();
        for path in paths {
            if self.paths.get(path).is_some_and(|p| p.key.nhid == Some(id)) {
                self.remove_routes_of(path);
            }
        }
        let groups: Vec<u32> = self.groups_with(id).collect();
        self.drop_resilient(id);
        if let Some(gone) = self.facts.next_hops.remove(&id) {
            self.journal.write((Happened::Removed, Subject::NextHop(gone)));
        }
        for group in groups {
            if let Some(NextHopKind::Group(members)) = self.facts.next_hops.get_mut(&group).map(|n| &mut n.kind) {
                members.retain(|(m, _)| *m != id);
                if members.is_empty() {
                    self.remove_next_hop(group);
                    continue;
                }
            }
            self.sync_resilient(group);
            self.next_hop_changed(group);
            if let Some(left) = self.facts.next_hops.get(&group) {
                self.journal.write((Happened::Changed, Subject::NextHop(left.clone())));
            }
        }
        self.next_hop_changed(id);
    }

    fn next_hop_changed(&mut self, id: u32) {
        let roots: Vec<_> = self.by_next_hop.get(&id).map(|s| s.iter().copied().collect()).unwrap_or_default();
        self.refresh_all(roots);
    }
}

impl Facts {
    /// Next-hop objects that name a port.
    pub(super) fn next_hops_on(&self, port: PortId) -> impl Iterator<Item = u32> {
        let name = self.port(port).map(|p| p.name.as_str());
        self.next_hops.values().filter_map(move |n| match &n.kind {
            NextHopKind::Hop(h) if h.dev.is_some() && h.dev.as_deref() == name => Some(n.id),
            _ => None,
        })
    }

    /// The table that most things are about.
    pub(super) fn table_of(&self, port: PortId) -> TableId {
        self.port(port).map_or(TableId::MAIN, |p| p.table)
    }
}
