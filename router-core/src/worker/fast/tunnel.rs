//! Tunnels on the fast path: packets that come out of one, and the outer header of those that enter one.

use super::guard::maybe_syn;
use super::survey::plain_v6;
use super::{Lane, Passes};
use crate::addr::Family;
use crate::checksum::age;
use crate::forward::tunnel::{Inner, OVERHEAD, inner_ecn};
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::{Encap, Forward, Object};
use crate::port::{PortId, PortInfo};
use crate::tables::Tables;

impl Passes {
    /// Of the packets that may come out of a tunnel, gives those that do the lane of the packet inside, and lists its
    /// destination. The frames are not touched yet.
    pub(super) fn leave_tunnels(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let Some(peers) = tables.decap.peers(protocol::IPV6, port.table) else { return };
        if tables.settings.max_tunnel_nesting == 0 {
            return;
        }
        self.peers.clear();
        // First who sent them: a short pass, so that many searches are under way at once. Packets of one tunnel often come
        // together.
        let (mut last, mut known) = (0, None);
        for i in &self.tunneled {
            let tunnel = self.lanes.get(usize::from(*i)).and_then(|lane| {
                let id = self.ids4.get(usize::from(lane.at))?;
                if !matches!(tables.routing.objects.get(*id)?, Object::Local) {
                    return None;
                }
                let h = outer_header(batch.get(usize::from(*i))?, lane)?;
                let ends = u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
                if ends != last {
                    (last, known) = (ends, peers.find_v4(ends));
                }
                known
            });
            self.peers.push(tunnel.unwrap_or(PortId::NONE));
        }
        for (i, tunnel) in self.tunneled.iter().zip(&self.peers) {
            let Some((table, flags)) = tables.ports.table_and_flags_if_up(*tunnel) else { continue };
            let Some(lane) = self.lanes.get_mut(usize::from(*i)) else { continue };
            let Some(data) = batch.get(usize::from(*i)).map(Frame::data) else { continue };
            let Some(packet) = data.get(usize::from(lane.l2)..usize::from(lane.l2) + lane.len as usize) else {
                continue;
            };
            let Some((h, carried)) = packet.split_first_chunk::<{ OVERHEAD as usize }>() else { continue };
            let Some((len, dst)) = plain_v6(carried) else { continue };
            if !flags.is_empty() || maybe_syn(Family::Inet6, carried) {
                continue;
            }
            let tclass = (carried[0] << 4) | (carried[1] >> 4);
            let Ok(ecn) = inner_ecn(tclass, h[1]) else { continue };
            let at = self.v6.len() as u16;
            *lane = Lane {
                family: Some(Family::Inet6),
                second: (carried[1] & 0xcf) | (ecn << 4),
                at,
                l2: lane.l2 + OVERHEAD as u16,
                carried: carried.len() as u16,
                len,
                tunnel: *tunnel,
            };
            self.v6.push(dst);
            if table != port.table {
                self.elsewhere.push((at, table));
            }
        }
    }
}

fn outer_header<'f>(frame: &'f Frame, lane: &Lane) -> Option<&'f [u8; OVERHEAD as usize]> {
    frame.data().get(usize::from(lane.l2)..)?.first_chunk()
}

/// Takes one from the TTL and puts a tunnel's outer header and the link header in place of what was in front. The caller
/// has seen that there is room, that the outer header is ready and that the outer packet is no longer than a packet can be.
/// Says how many bytes the frame has then.
#[inline]
pub(super) fn wrap(frame: &mut Frame, lane: &Lane, family: Family, encap: &Encap, hop: &Forward, ident: u16) -> usize {
    let Some(outer) = &encap.outer else { return 0 };
    let front = hop.rewrite.len() + OVERHEAD as usize;
    let Some(data) = frame.exchange_front(usize::from(lane.l2), front, lane.len as usize) else { return 0 };
    let len = data.len();
    if let Some((head, packet)) = data.split_at_mut_checked(front) {
        let _ = age(family, packet);
        if let (Some(inner), Some(to)) = (Inner::of(family, packet), head.last_chunk_mut()) {
            outer.write(to, &inner, (lane.len + OVERHEAD) as u16, ident);
        }
        hop.rewrite.write(Family::Inet, head);
    }
    len
}
