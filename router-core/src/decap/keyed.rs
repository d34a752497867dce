//! GRE tunnels that share both ends and are told apart by their keys (RFC 2890 2.1).

use super::map::Map;
use crate::port::{PortId, TableId};
use std::net::IpAddr;

/// By both outer addresses, table and key.
#[derive(Clone, Debug)]
pub(super) struct Keyed(Map<[u128; 3]>);

impl Keyed {
    pub fn new(seed: u64) -> Self {
        Keyed(Map::new(seed))
    }

    #[inline]
    pub fn find(&self, table: TableId, local: IpAddr, remote: IpAddr, key: u32) -> Option<PortId> {
        self.0.get(&words(table, local, remote, key))
    }

    /// Sets a tunnel, or removes it with [`PortId::NONE`].
    pub fn set(&mut self, table: TableId, local: IpAddr, remote: IpAddr, key: u32, tunnel: PortId) {
        self.0.set(words(table, local, remote, key), tunnel);
    }
}

fn words(table: TableId, local: IpAddr, remote: IpAddr, key: u32) -> [u128; 3] {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    };
    [bits(local), bits(remote), u128::from(table.0) << 32 | u128::from(key)]
}
