//! Which tunnel an encapsulated packet belongs to: constant time, whatever the number of tunnels.

use crate::port::{PortId, TableId};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// What a tunnel packet is recognised by. Only the configured peer's packets match (RFC 4213 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecapKey {
    /// Outer protocol that names the mode: 41 for 6in4 (whose tunnels also hear protocol 4).
    pub proto: u8,
    /// Table of the port through which outer packets come.
    pub table: TableId,
    /// Outer destination: our end.
    pub local: IpAddr,
    /// Outer source: the peer.
    pub remote: IpAddr,
}

impl Hash for DecapKey {
    /// Two words for IPv4, as this is done for every packet out of a tunnel.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.table.0) << 8 | u64::from(self.proto));
        match (self.local, self.remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => state.write_u64(u64::from(l.to_bits()) << 32 | u64::from(r.to_bits())),
            (l, r) => (l, r).hash(state),
        }
    }
}

/// The tunnels of a router by what their packets look like. Cheap to clone; copied on change.
#[derive(Clone, Debug, Default)]
pub struct DecapTable(Arc<HashMap<DecapKey, PortId, foldhash::fast::RandomState>>);

impl DecapTable {
    /// The tunnel whose peer sent this.
    #[inline]
    pub fn find(&self, proto: u8, table: TableId, local: IpAddr, remote: IpAddr) -> Option<PortId> {
        self.0.get(&DecapKey { proto, table, local, remote }).copied()
    }

    /// The tunnel with exactly this key.
    pub fn get(&self, key: &DecapKey) -> Option<PortId> {
        self.0.get(key).copied()
    }

    /// Adds or moves a tunnel.
    pub fn insert(&mut self, key: DecapKey, tunnel: PortId) {
        Arc::make_mut(&mut self.0).insert(key, tunnel);
    }

    /// Removes a tunnel.
    pub fn remove(&mut self, key: &DecapKey) {
        Arc::make_mut(&mut self.0).remove(key);
    }
}
