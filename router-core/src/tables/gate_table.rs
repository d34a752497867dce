//! What is checked of packets out of each tunnel, by index of its port.

use super::chunked::Chunked;
use crate::port::PortId;
use crate::tunnel::Gate;
use std::sync::Arc;

/// See the module. A copy is cheap, and so is a change.
#[derive(Clone, Debug, Default)]
pub struct GateTable {
    gates: Chunked<Arc<Gate>>,
    /// UDP ports on which tunnels listen, with the number of tunnels.
    ports: Arc<Vec<(u16, u32)>>,
}

impl GateTable {
    /// The gate of a tunnel.
    #[inline]
    pub fn get(&self, tunnel: PortId) -> Option<&Arc<Gate>> {
        self.gates.get(tunnel.index())
    }

    /// Whether some tunnel listens on this UDP port.
    #[inline]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|(p, _)| *p == port)
    }

    /// Sets or removes the gate of a tunnel.
    pub fn set(&mut self, tunnel: PortId, gate: Option<Arc<Gate>>) {
        let listens = |g: &Arc<Gate>| g.udp.map(|u| u.listens());
        let before = self.gates.get(tunnel.index()).and_then(listens);
        let after = gate.as_ref().and_then(listens);
        if before != after {
            let ports = Arc::make_mut(&mut self.ports);
            if let Some(i) = before.and_then(|b| ports.iter().position(|(p, _)| *p == b)) {
                ports[i].1 -= 1;
                if ports[i].1 == 0 {
                    ports.swap_remove(i);
                }
            }
            if let Some(port) = after {
                match ports.iter_mut().find(|(p, _)| *p == port) {
                    Some((_, n)) => *n += 1,
                    None => ports.push((port, 1)),
                }
            }
        }
        self.gates.set(tunnel.index(), gate);
    }
}
