//! What the control plane was told about the world: ports, tunnels, neighbours, next-hop objects, plug-ins.

use crate::addr::MacAddr;
use crate::forward::Forwarder;
use crate::object::ObjectId;
use crate::port::{PortId, PortInfo, TableId};
use crate::resolve::{Dep, Leaf, Outcome};
use crate::spec::{NextHopSpec, TunnelMode, TunnelOptions};
use crate::tables::domain_of;
use crate::tunnel::{DEFAULT_TTL, TunnelState};
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
    /// Outer packets have the DF of an inner IPv4 packet (RFC 2003 3.1), and one that has it set may have at most this many
    /// bytes: nobody may fragment what it becomes. None: only `df` counts.
    pub df_mtu: Option<u32>,
    /// Largest inner packet, in bytes.
    pub mtu: u32,
    /// MTU of the way to an IPv6 peer, where packets of `mtu` bytes are too long for it with what is put in front of them:
    /// then outer packets are fragmented here (RFC 2473 7.1), since nobody on the way may.
    pub path: Option<u32>,
    /// Where `remote` is looked up.
    pub table: TableId,
    /// Only through this port: on a port without link layer without any lookup, on Ethernet to `remote` itself where it
    /// is on the link, else by the routes of that port.
    pub dev: Option<PortId>,
    /// What only some tunnels have.
    pub options: Arc<TunnelOptions>,
    /// What the tunnel remembers from packet to packet.
    pub state: Arc<TunnelState>,
}

impl EncapFacts {
    /// A tunnel with the defaults and no MTU yet.
    pub fn new(mode: TunnelMode, local: IpAddr, remote: IpAddr) -> Self {
        EncapFacts {
            mode,
            local,
            remote,
            ttl: Some(DEFAULT_TTL),
            tos: None,
            df: true,
            df_mtu: None,
            mtu: 0,
            path: None,
            table: TableId::MAIN,
            dev: None,
            options: Arc::default(),
            state: Arc::default(),
        }
    }
}

/// A tunnel and what carries it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) facts: Arc<EncapFacts>,
    pub(crate) outcome: Outcome,
    pub(crate) deps: Vec<Dep>,
    /// The object of its outer packets' next hop; [`ObjectId::NO_ROUTE`] while there is none.
    pub(crate) carrier: ObjectId,
    /// That is shared by all that leave by this leaf.
    pub(crate) leaf: Option<Leaf>,
    /// Its own object, whatever the routes say; made when somebody asks for it.
    pub(crate) own: Option<ObjectId>,
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
    /// How many ports, and how many tunnels' outer packets, have a domain as theirs.
    members: BTreeMap<TableId, u32>,
    underlays: BTreeMap<TableId, u32>,
}

fn more(counts: &mut BTreeMap<TableId, u32>, table: TableId) {
    *counts.entry(domain_of(table)).or_default() += 1;
}

fn less(counts: &mut BTreeMap<TableId, u32>, table: TableId) {
    let domain = domain_of(table);
    if let Some(n) = counts.get_mut(&domain) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(&domain);
        }
    }
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

    /// Notes that a port or tunnel has this table as its own.
    pub(super) fn enter(&mut self, table: TableId) {
        more(&mut self.members, table);
    }

    /// Notes that one no longer does.
    pub(super) fn leave(&mut self, table: TableId) {
        less(&mut self.members, table);
    }

    /// Notes that a tunnel's peer is looked up in this table.
    pub(super) fn enter_underlay(&mut self, table: TableId) {
        more(&mut self.underlays, table);
    }

    /// Notes that one no longer is.
    pub(super) fn leave_underlay(&mut self, table: TableId) {
        less(&mut self.underlays, table);
    }

    /// Whether some port or tunnel has this table as its own, as the members of a VRF do.
    pub(crate) fn is_vrf(&self, domain: TableId) -> bool {
        domain != TableId::MAIN && self.members.contains_key(&domain)
    }

    /// Whether a port or tunnel needs this table, even without routes.
    pub(super) fn is_used(&self, domain: TableId) -> bool {
        self.members.contains_key(&domain) || self.underlays.contains_key(&domain)
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
