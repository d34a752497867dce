//! In a build without WireGuard: ports that say so.

use super::spec::{Status, WireguardConfig};
use crate::port::{Port, PortError};

/// A running port: there is none.
#[derive(Clone, Debug)]
pub enum Handle {}

impl Handle {
    /// What it is doing.
    pub fn status(&self) -> Status {
        match *self {}
    }

    /// Gives it other peers.
    pub fn set_peers(&self, _port: &str, _config: &WireguardConfig) -> Result<(), PortError> {
        match *self {}
    }
}

/// Refuses.
pub fn open(
    port: &str,
    _config: &WireguardConfig,
    _mtu: u32,
    _queues: usize,
) -> Result<(Vec<Box<dyn Port>>, Handle), PortError> {
    let reason = "this duet was built without WireGuard; build it with the feature \"wireguard\"".to_owned();
    Err(PortError::Config { port: port.to_owned(), reason })
}
