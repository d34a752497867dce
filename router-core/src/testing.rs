//! Small helpers for the unit tests of this crate.

use crate::addr::MacAddr;
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};

/// An Ethernet port that is up, with the given addresses, MTU 1500 and MAC `02:00:00:00:ff:<id>`.
pub fn port(id: u16, name: &str, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id: PortId(id.into()),
        name: name.into(),
        ifindex: u32::from(id) + 1,
        kind: PortKind::Memory,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0xff, id as u8])),
        mtu: 1500,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| crate::addr::parse_interface_addr(a).expect("test address")).collect(),
    }
}
