//! A snapshot of everything that the data plane reads. The control thread makes it, workers borrow it per batch.
//!
//! A snapshot is cheap to make (structure is shared with the one before) and immutable, except that FIB entries inside
//! it are updated in place by atomic stores.

mod adjacency_map;
mod chunked;
mod object_table;
mod routing_tables;

pub use adjacency_map::AdjacencyMap;
pub use object_table::ObjectTable;
pub use routing_tables::{FibSet, RoutingTables, ViewSet, domain_of};

use crate::decap::DecapTable;
use crate::object::ObjectId;
use crate::packet::Packet;
use crate::policy::{Decision, Key, Policy};
use crate::port::{PortId, PortInfo, TableId};
use crate::settings::Settings;
use chunked::Chunked;
use std::sync::Arc;

/// See the module. Field by field, each cheap to clone.
#[derive(Clone)]
pub struct Tables {
    /// Grows by one with each published snapshot.
    pub version: u64,
    /// Ports and tunnels by index.
    pub ports: PortTable,
    /// Routes, objects, adjacencies.
    pub routing: RoutingTables,
    /// Tunnels by what their packets look like.
    pub decap: DecapTable,
    /// Settings in force.
    pub settings: Arc<Settings>,
    /// Ports of a closed network in which IPv4-mapped addresses may be on the wire.
    pub mapped_ports: Arc<[PortId]>,
    /// Rules that send packets to other tables than that of their port; None while there are none.
    pub policy: Option<Arc<Policy>>,
}

impl Tables {
    /// Whether a port belongs to a closed network ([`Settings::mapped_ports`]).
    #[inline]
    pub fn closed(&self, port: PortId) -> bool {
        self.mapped_ports.contains(&port)
    }

    /// The forwarding object for a destination in a table; [`ObjectId::NO_ROUTE`] when the table has no match or does
    /// not exist.
    #[inline]
    pub fn lookup(&self, table: TableId, dst: &std::net::IpAddr) -> ObjectId {
        self.routing.lookup(table, dst)
    }

    /// The forwarding object for a packet of a port in `table`, by the rules if there are any. `data` is from its IP header
    /// on, `port` where it came from ([`PortId::NONE`] for the router's own), `mark` its own mark.
    #[inline]
    pub fn route(&self, table: TableId, packet: &Packet, data: &[u8], port: PortId, mark: u32) -> Decision {
        let own = self.lookup(table, &packet.dst);
        match &self.policy {
            Some(policy) if policy.rules(packet.family) => {
                let key = Key::of(packet, data, port, table, policy.mark(mark, port));
                policy.decide(&self.routing, &key, own)
            }
            _ => Decision { object: own, rule: None, table: Some(table) },
        }
    }
}

/// Ports and tunnels by index. A copy is cheap, and so is a change.
#[derive(Clone, Default, Debug)]
pub struct PortTable(Chunked<Slot>);

/// A port, and beside the reference what every packet asks for.
#[derive(Clone, Debug)]
struct Slot {
    info: Arc<PortInfo>,
    table: TableId,
    up: bool,
}

impl PortTable {
    /// The port with this index.
    #[inline]
    pub fn get(&self, id: PortId) -> Option<&Arc<PortInfo>> {
        self.0.get(id.index()).map(|s| &s.info)
    }

    /// The table of a port that is up; None for any other.
    #[inline]
    pub fn table_if_up(&self, id: PortId) -> Option<TableId> {
        self.0.get(id.index()).filter(|s| s.up).map(|s| s.table)
    }

    /// The port with this name. Looks at all of them.
    pub fn by_name(&self, name: &str) -> Option<&Arc<PortInfo>> {
        self.iter().find(|p| p.name == name)
    }

    /// All ports, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PortInfo>> {
        self.0.iter().map(|(_, s)| &s.info)
    }

    /// Sets a port, at `info.id`.
    pub fn set(&mut self, info: Arc<PortInfo>) {
        self.0.set(info.id.index(), Some(Slot { table: info.table, up: info.up, info }));
    }

    /// Takes a port out.
    pub fn clear(&mut self, id: PortId) {
        self.0.set(id.index(), None);
    }

    /// A table with this port set (at `info.id`).
    pub fn with(&self, info: Arc<PortInfo>) -> PortTable {
        let mut table = self.clone();
        table.set(info);
        table
    }

    /// Every table that some port looks packets up in, without duplicates.
    pub fn tables(&self) -> Vec<TableId> {
        let mut v: Vec<_> = self.iter().map(|p| p.table).collect();
        v.sort_unstable();
        v.dedup();
        v
    }
}
