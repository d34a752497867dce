//! Rules on the fast path: which table each packet of a batch is looked up in.

use super::{Lane, Passes};
use crate::addr::Family;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::packet::Packet;
use crate::policy::{Key, Policy};
use crate::port::{PortId, PortInfo};
use crate::tables::Tables;

impl Passes {
    /// Puts what the rules say in the place of what the tables of the packets' ports said.
    #[cold]
    pub(super) fn ask_rules(&mut self, policy: &Policy, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        for (lane, frame) in self.lanes.iter_mut().zip(batch) {
            let Some(family) = lane.family.filter(|f| policy.rules(*f)) else { continue };
            let ids = match family {
                Family::Inet => &mut self.ids4,
                Family::Inet6 => &mut self.ids6,
            };
            let Some(id) = ids.get_mut(usize::from(lane.at)) else { continue };
            match key(lane, frame, family, port, tables, policy) {
                Some(key) => *id = policy.decide(&tables.routing, &key, *id).object,
                None => *lane = Lane::GENERAL,
            }
        }
    }
}

/// What rules look at; None: the general path finds out.
fn key(lane: &Lane, frame: &Frame, family: Family, port: &PortInfo, tables: &Tables, policy: &Policy) -> Option<Key> {
    let deep = policy.is_deep(family);
    let l2 = usize::from(lane.l2);
    let data = frame.data().get(l2..l2 + lane.len as usize)?;
    let (iif, table) = match lane.tunnel {
        PortId::NONE => (port.id, port.table),
        tunnel => (tunnel, tables.ports.table_if_up(tunnel)?),
    };
    let mark = policy.mark(frame.meta.mark, iif);
    match family {
        Family::Inet => Key::of_plain_v4(data, iif, table, mark),
        // Upper-layer headers behind extension headers take the whole parse.
        Family::Inet6 if deep && !is_plain(data) => {
            let packet = Packet::parse(family, data).ok()?;
            Some(Key::of(&packet, data, iif, table, mark))
        }
        Family::Inet6 => {
            let key = Key::of_header_v6(data, iif, table, mark)?;
            Some(if deep { key.with_ports(data.get(40..)?) } else { key })
        }
    }
}

/// Whether an upper-layer header follows the fixed one.
fn is_plain(data: &[u8]) -> bool {
    matches!(data.get(6), Some(&(protocol::TCP | protocol::UDP | protocol::ICMPV6)))
}
