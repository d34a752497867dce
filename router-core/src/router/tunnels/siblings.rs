//! GRE tunnels between the same two ends, told apart by their keys (RFC 2890 2.1).

use super::check::by_key;
use super::{Keys, Tunnel, Tunnels};
use crate::decap::DecapKey;
use crate::port::PortId;
use crate::router::Router;
use crate::spec::TunnelSpec;
use std::collections::BTreeMap;

/// Tunnels by their ends, then by the key that they receive.
pub(super) type Siblings = BTreeMap<DecapKey, BTreeMap<Option<u32>, PortId>>;

impl Tunnels {
    /// The GRE tunnels between these ends.
    pub(super) fn siblings(&self, ends: &DecapKey) -> Option<&BTreeMap<Option<u32>, PortId>> {
        self.siblings.get(ends)
    }
}

impl Router {
    /// A tunnel's packets are found from now on.
    pub(super) fn listen(&mut self, id: PortId, spec: &TunnelSpec, keys: &Keys) {
        let ikey = spec.options.gre.ikey;
        for ends in keys {
            if !by_key(ends) {
                self.decap.insert(*ends, id);
                continue;
            }
            self.tunnels.siblings.entry(*ends).or_default().insert(ikey, id);
            if let Some(key) = ikey {
                self.decap.set_keyed(ends, key, id);
            }
            self.represent(ends);
        }
    }

    /// No longer.
    pub(super) fn deafen(&mut self, tunnel: &Tunnel) {
        let ikey = tunnel.spec.options.gre.ikey;
        for ends in &tunnel.keys {
            if !by_key(ends) {
                self.decap.remove(ends);
                continue;
            }
            if let Some(list) = self.tunnels.siblings.get_mut(ends) {
                list.remove(&ikey);
                if list.is_empty() {
                    self.tunnels.siblings.remove(ends);
                }
            }
            if let Some(key) = ikey {
                self.decap.set_keyed(ends, key, PortId::NONE);
            }
            self.represent(ends);
        }
    }

    /// Packets without a key, or with one that nobody has, are a matter of the tunnel without a key, else of the one with the least.
    fn represent(&mut self, ends: &DecapKey) {
        match self.tunnels.siblings.get(ends).and_then(|list| list.values().next()) {
            Some(first) => self.decap.insert(*ends, *first),
            None => self.decap.remove(ends),
        }
    }

    /// The GRE tunnel that sent a packet with this key between these ends; whichever there is if the key is not known.
    pub(super) fn sender_by_key(&self, ends: &DecapKey, sent: Option<Option<u32>>) -> Option<PortId> {
        let list = self.tunnels.siblings.get(ends)?;
        let has =
            |id: &&PortId| sent.is_some_and(|key| self.tunnel_spec(**id).is_some_and(|s| s.options.gre.okey == key));
        list.values().find(has).or_else(|| list.values().next()).copied()
    }
}
