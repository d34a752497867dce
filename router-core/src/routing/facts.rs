//! What the control plane was told about the world: ports, tunnels, neighbours, next-hop objects, plug-ins.

use crate::addr::MacAddr;
use crate::forward::Forwarder;
use crate::object::ObjectId;
use crate::port::{PortId, PortInfo, TableId};
use crate::resolve::{Dep, Outcome};
use crate::spec::{NextHopSpec, TunnelMode};
use crate::tables::domain_of;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the data plane must know to encapsulate into a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncapFacts {
    /// Which kind of tunnel.
    pub mode: TunnelMode,
    /// Outer source.
    pub local: IpAddr,
    /// Outer destination.
    pub remote: IpAddr,
    /// Outer TTL; None copies the inner one.
    pub ttl: Option<u8>,
    /// Fixed outer traffic class byte; None follows RFC 6040.
    pub tos: Option<u8>,
    /// Set DF on outer IPv4 packets.
    pub df: bool,
    /// Largest inner packet, in bytes.
    pub mtu: u32,
    /// Where `remote` is looked up.
    pub table: TableId,
    /// Only through this port: on a port without link layer without any lookup, on Ethernet to `remote` itself where it
    /// is on the link, else by the routes of that port.
    pub dev: Option<PortId>,
}

/// A tunnel and what carries it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) facts: EncapFacts,
    pub(crate) outcome: Outcome,
    pub(crate) deps: Vec<Dep>,
    pub(crate) carrier: ObjectId,
}

/// A neighbour as the neighbour cache reported it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbor {
    /// Its link-layer address and the mark that workers set.
    pub(crate) known: Option<(MacAddr, Arc<AtomicBool>)>,
    /// It did not answer.
    pub(crate) failed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) ports: BTreeMap<PortId, Arc<PortInfo>>,
    pub(crate) names: HashMap<String, PortId>,
    pub(crate) tunnels: BTreeMap<PortId, Tunnel>,
    pub(crate) neighbors: BTreeMap<(PortId, IpAddr), Neighbor>,
    pub(crate) next_hops: BTreeMap<u32, NextHopSpec>,
    pub(crate) forwarders: BTreeMap<Arc<str>, Arc<dyn Forwarder>>,
    /// What stands behind the ports of translators.
    pub(crate) translators: BTreeMap<PortId, Arc<dyn Forwarder>>,
}

impl Facts {
    pub(crate) fn port(&self, id: PortId) -> Option<&Arc<PortInfo>> {
        self.ports.get(&id)
    }

    pub(crate) fn port_by_name(&self, name: &str) -> Option<&Arc<PortInfo>> {
        self.port(*self.names.get(name)?)
    }

    /// The name of a port; empty when it is gone.
    pub(crate) fn port_name(&self, id: PortId) -> String {
        self.port(id).map_or_else(String::new, |p| p.name.clone())
    }

    /// The table of a port that is the device of a VRF.
    pub(crate) fn vrf(&self, id: PortId) -> Option<TableId> {
        self.port(id).filter(|p| p.kind == crate::port::PortKind::Vrf).map(|p| domain_of(p.table))
    }

    /// Whether some port or tunnel has this table as its own, as the members of a VRF do.
    pub(crate) fn is_vrf(&self, domain: TableId) -> bool {
        domain != TableId::MAIN && self.ports.values().any(|p| domain_of(p.table) == domain)
    }

    /// Whether what a table leaves open is looked up in `main`: see [`crate::resolve`].
    pub(crate) fn falls_back(&self, domain: TableId) -> bool {
        domain != TableId::MAIN && !self.is_vrf(domain)
    }

    /// Whether packets can leave through this port now.
    pub(crate) fn carries(&self, id: PortId) -> bool {
        self.port(id).is_some_and(|p| {
            p.up && (p.kind != crate::port::PortKind::Tunnel
                || self.tunnels.get(&id).is_some_and(|t| t.outcome.usable()))
        })
    }
}
