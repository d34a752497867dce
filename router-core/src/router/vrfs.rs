//! VRFs and rules: which table a packet is looked up in.
//!
//! A VRF is a table with a device that stands for it, as on Linux. Ports that are put into it have its table as theirs:
//! packets that enter there are looked up in it, and addresses, neighbours, answers and errors of those ports belong to it. A
//! route to the device (`dev NAME`) sends packets on to the VRF's table; a gateway behind the device is looked up there.

use super::{PortError, Router};
use crate::policy::{RuleError, RuleSpec, Rules};
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::tables::domain_of;
use crate::time::Instant;
use crate::worker::Outbox;

/// MTU of a VRF's device: it limits nothing.
const MTU: u32 = 65_536;

/// Why a command about VRFs was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VrfError {
    /// As for any port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Not a table that a VRF can have.
    #[error("table {0} cannot be a VRF's: it is one of the router's own")]
    Table(u32),
    /// Two VRFs with one table would be one.
    #[error("table {table} is that of VRF \"{vrf}\" already")]
    Taken {
        /// The table.
        table: u32,
        /// Whose it is.
        vrf: String,
    },
    /// There is no VRF of that name.
    #[error("\"{0}\" is not a VRF")]
    NotVrf(String),
    /// VRFs do not nest.
    #[error("\"{0}\" is itself a VRF, and VRFs do not nest")]
    Nested(String),
}

impl Router {
    /// Makes a VRF. The table is made with it; routes that it has already belong to the VRF from now on.
    pub fn add_vrf(&mut self, now: Instant, name: &str, table: TableId) -> Result<PortId, VrfError> {
        if table.0 == 0 || domain_of(table) == TableId::MAIN || table.is_internal() {
            return Err(VrfError::Table(table.0));
        }
        if let Some(other) = self.vrf_of(table) {
            return Err(VrfError::Taken { table: table.0, vrf: other.name.clone() });
        }
        let info = PortInfo {
            id: PortId::NONE,
            name: name.to_owned(),
            ifindex: 0,
            kind: PortKind::Vrf,
            medium: Medium::Ip,
            mac: None,
            mtu: MTU,
            vlan: None,
            table,
            up: true,
            admin_up: true,
            caps: PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false },
            addrs: Vec::new(),
        };
        let id = self.add_port(now, info)?;
        self.rules.need_l3mdev();
        Ok(id)
    }

    /// Takes a VRF away with its device's addresses. Its ports go back to `main`; routes of the table stay.
    pub fn del_vrf(&mut self, now: Instant, name: &str, out: &mut Outbox) -> Result<(), VrfError> {
        let vrf = self.vrf(name)?;
        let members: Vec<_> =
            self.ports.iter().filter(|p| p.table == vrf.table && p.kind != PortKind::Vrf).map(|p| p.id).collect();
        for id in members {
            self.set_table(id, TableId::MAIN)?;
        }
        self.remove_port(now, vrf.id, out)?;
        Ok(())
    }

    /// Puts a port into a VRF, or with None back to `main`.
    pub fn set_vrf(&mut self, id: PortId, vrf: Option<&str>) -> Result<(), VrfError> {
        let table = match vrf {
            Some(name) => self.vrf(name)?.table,
            None => TableId::MAIN,
        };
        let port = self.port(id)?;
        if port.kind == PortKind::Vrf {
            return Err(VrfError::Nested(port.name));
        }
        Ok(self.set_table(id, table)?)
    }

    /// Binds a port to a table: its packets are looked up there, and its own addresses and link prefixes are there.
    pub fn set_table(&mut self, id: PortId, table: TableId) -> Result<(), PortError> {
        let mut info = self.port(id)?;
        if info.table != table {
            info.table = table;
            self.put(info);
        }
        Ok(())
    }

    /// All VRFs, by index of their device.
    pub fn vrfs(&self) -> impl Iterator<Item = &PortInfo> {
        self.ports.iter().map(|p| &**p).filter(|p| p.kind == PortKind::Vrf)
    }

    /// The VRF with this table.
    pub fn vrf_of(&self, table: TableId) -> Option<&PortInfo> {
        self.vrfs().find(|p| p.table == table)
    }

    fn vrf(&self, name: &str) -> Result<PortInfo, VrfError> {
        let named = self.ports.by_name(name).filter(|p| p.kind == PortKind::Vrf);
        named.map(|p| PortInfo::clone(p)).ok_or_else(|| VrfError::NotVrf(name.to_owned()))
    }

    /// The rules of both families.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Changes rules. Follow with [`Router::commit`].
    pub fn change_rules<T>(&mut self, change: impl FnOnce(&mut Rules) -> Result<T, RuleError>) -> Result<T, RuleError> {
        let done = change(&mut self.rules)?;
        self.changed = true;
        self.routing.set_views(&self.rules.suppressed());
        Ok(done)
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, rule: &RuleSpec) -> Result<(), RuleError> {
        self.change_rules(|r| r.add(rule))
    }
}
