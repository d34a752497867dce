//! Traffic of chosen routes and next hops, counted exactly while somebody asks.
//!
//! A counted prefix has a forwarding object of its own in the FIB, which counts and goes on with the one that the prefix
//! would have otherwise; a counted next hop has one before its adjacency, so that all routes and groups over it count
//! there. Everything else is left as it is.

use super::objects::{BROADCAST, Def, LOCAL};
use super::{RouteError, Routing};
use crate::counters::Traffic;
use crate::object::ObjectId;
use crate::port::{PortId, TableId};
use crate::rib::EntryId;
use crate::tables::domain_of;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Most routes and next hops that are counted at a time.
pub const MAX_COUNTED: usize = 1024;

/// Counted prefixes. See the module.
#[derive(Debug, Default)]
pub(super) struct Prefixes(BTreeMap<(TableId, IpNet), Prefix>);

#[derive(Debug)]
struct Prefix {
    object: ObjectId,
    traffic: Arc<Traffic>,
}

impl Prefixes {
    /// What the FIB is to say where it would say `object`.
    #[inline]
    pub(super) fn before(&self, domain: TableId, dst: &IpNet, object: ObjectId) -> ObjectId {
        // Workers know packets for the router by this object itself.
        if self.0.is_empty() || matches!(object, LOCAL | BROADCAST) {
            return object;
        }
        self.0.get(&(domain, *dst)).map_or(object, |p| p.object)
    }
}

impl Routing {
    /// Counts the packets for which the route to this prefix wins, from now on and whatever route that is. The prefix may
    /// be without a route for the time being. Packets to addresses of the router itself are not counted here.
    ///
    /// # Errors
    /// [`RouteError::Exists`] when it is counted already, [`RouteError::Invalid`] when too many are.
    pub fn count_prefix(&mut self, table: TableId, dst: IpNet) -> Result<(), RouteError> {
        let key = (domain_of(table), dst.trunc());
        if self.counted.0.contains_key(&key) {
            return Err(RouteError::Exists);
        }
        self.room_to_count()?;
        let traffic = Arc::new(Traffic::default());
        let object = self.objects.make(Def::Counted(traffic.clone(), ObjectId::NO_ROUTE), &self.facts);
        self.counted.0.insert(key, Prefix { object, traffic });
        self.entry_counts(&key);
        Ok(())
    }

    /// Counts a prefix no more; false if it was not counted.
    pub fn uncount_prefix(&mut self, table: TableId, dst: IpNet) -> bool {
        let key = (domain_of(table), dst.trunc());
        let Some(prefix) = self.counted.0.remove(&key) else { return false };
        self.entry_counts(&key);
        self.objects.free(prefix.object);
        true
    }

    /// Counts what routes and groups send to a next hop, from now on: a gateway on a port's link; without gateway, a
    /// tunnel, or the hosts on a link that routes send to directly.
    ///
    /// # Errors
    /// As [`Routing::count_prefix`].
    pub fn count_hop(&mut self, port: PortId, gateway: Option<IpAddr>) -> Result<(), RouteError> {
        if self.objects.counted_hops().contains_key(&(port, gateway)) {
            return Err(RouteError::Exists);
        }
        self.room_to_count()?;
        self.objects.count_hop((port, gateway), Some(Arc::default()), &self.facts);
        Ok(())
    }

    /// Counts a next hop no more; false if it was not counted.
    pub fn uncount_hop(&mut self, port: PortId, gateway: Option<IpAddr>) -> bool {
        let there = self.objects.counted_hops().contains_key(&(port, gateway));
        if there {
            self.objects.count_hop((port, gateway), None, &self.facts);
        }
        there
    }

    /// What is counted of prefixes.
    pub fn counted_prefixes(&self) -> impl Iterator<Item = (TableId, IpNet, &Traffic)> {
        self.counted.0.iter().map(|((table, dst), p)| (*table, *dst, &*p.traffic))
    }

    /// What is counted of next hops.
    pub fn counted_hops(&self) -> impl Iterator<Item = (PortId, Option<IpAddr>, &Traffic)> {
        self.objects.counted_hops().iter().map(|((port, gateway), t)| (*port, *gateway, &**t))
    }

    /// Ports and gateways that a next-hop object leads to: one, or those of a group's members. None: no such object.
    pub fn hops_of(&self, id: u32) -> Option<Vec<(PortId, Option<IpAddr>)>> {
        use crate::spec::NextHopKind::{Blackhole, Group, Hop};
        let one = |id: &u32| match &self.facts.next_hops.get(id)?.kind {
            Hop(spec) => {
                let port = self.facts.port_by_name(spec.dev.as_deref()?)?;
                Some((port.id, spec.via.filter(|_| port.medium == crate::port::Medium::Ethernet)))
            }
            Blackhole | Group(_) => None,
        };
        Some(match &self.facts.next_hops.get(&id)?.kind {
            Group(members) => members.iter().filter_map(|(m, _)| one(m)).collect(),
            Hop(_) | Blackhole => one(&id).into_iter().collect(),
        })
    }

    fn room_to_count(&self) -> Result<(), RouteError> {
        match self.counted.0.len() + self.objects.counted_hops().len() < MAX_COUNTED {
            true => Ok(()),
            false => Err(RouteError::Invalid("too many routes and next hops are counted already")),
        }
    }

    /// A prefix is counted now, or no more: its FIB entry follows.
    fn entry_counts(&mut self, key: &(TableId, IpNet)) {
        let Some(id) = self.rib.domains.get(&key.0).and_then(|d| d.routes.get(&key.1)).copied() else { return };
        self.follow_counted(id);
        self.mark_dirty(id);
    }

    /// The counting object of an entry goes on with what the entry's chain says now.
    pub(super) fn follow_counted(&mut self, id: EntryId) {
        if self.counted.0.is_empty() {
            return;
        }
        let Some(e) = self.rib.entries.get(id) else { return };
        let Some(p) = self.counted.0.get(&(e.domain, e.dst)) else { return };
        let next = self.chains.get(e.chain).map_or(ObjectId::NO_ROUTE, |c| c.object);
        self.objects.set(p.object, Def::Counted(p.traffic.clone(), next), &self.facts);
    }
}
