//! Tunnels on the fast path: packets that come out of one, and the outer header of those that enter one.
//!
//! Both sides know bare outer IPv4 and IPv6 headers; whatever has more between (GRE, UDP, an encapsulation limit) takes the
//! general path, and so does a tunnel that has more to check than its peer.

use super::known::Found;
use super::survey::{Outers, plain_v4, plain_v6};
use super::{Lane, Passes};
use crate::addr::Family;
use crate::checksum::{self, age};
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::{Encap, Forward, Object, ObjectId};
use crate::port::{PortId, PortInfo};
use crate::tables::Tables;
use crate::tunnel::ecn::inner_ecn;
use crate::tunnel::{IPV4_HEADER, IPV6_HEADER, Inner, Outer, limit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: usize = IPV4_HEADER as usize;
const V6: usize = IPV6_HEADER as usize;

impl Passes {
    /// Of the packets that may come out of a tunnel in IPv4, gives those that do the lane of the packet inside, and lists
    /// its destination. The frames are not touched yet.
    pub(super) fn leave_in_four(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let six = tables.decap.peers(protocol::IPV6, port.table);
        let four = tables.decap.peers(protocol::IPV4, port.table);
        if six.is_none() && four.is_none() || tables.settings.max_tunnel_nesting == 0 {
            return;
        }
        self.peers.clear();
        // First who sent them: a short pass, so that many searches are under way at once. Packets of one tunnel often come
        // together.
        let (mut last, mut known) = ((0, 0), None);
        for i in &self.tunneled4 {
            let tunnel = self.lanes.get(usize::from(*i)).and_then(|lane| {
                is_local(&self.ids4, lane, tables)?;
                let h = outer_header::<V4>(batch.get(usize::from(*i))?, lane)?;
                let ends = u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
                if (ends, h[9]) != last {
                    let peers = if h[9] == protocol::IPV6 { six } else { four };
                    (last, known) = ((ends, h[9]), peers.and_then(|p| p.find_v4(ends)));
                }
                known
            });
            self.peers.push(tunnel.unwrap_or(PortId::NONE));
        }
        let list = std::mem::take(&mut self.tunneled4);
        self.open(&list, batch, port, tables, |lane, data| {
            let (h, carried) = data.split_first_chunk::<V4>()?;
            let inner = if h[9] == protocol::IPV6 { Family::Inet6 } else { Family::Inet };
            Some((h[1], inner, lane.l2 + V4 as u16, carried))
        });
        self.tunneled4 = list;
    }

    /// The same for tunnels in IPv6.
    pub(super) fn leave_in_six(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let six = tables.decap.peers(protocol::IPV6, port.table);
        let four = tables.decap.peers(protocol::IPV4, port.table);
        if six.is_none() && four.is_none() || tables.settings.max_tunnel_nesting == 0 {
            return;
        }
        self.peers.clear();
        let (mut last, mut known) = (([0; 32], 0), None);
        for i in &self.tunneled6 {
            let tunnel = self.lanes.get(usize::from(*i)).and_then(|lane| {
                is_local(&self.ids6, lane, tables)?;
                let h = outer_header::<V6>(batch.get(usize::from(*i))?, lane)?;
                let ends = h.last_chunk::<32>()?;
                if (ends, h[6]) != (&last.0, last.1) {
                    let peers = if h[6] == protocol::IPV6 { six } else { four };
                    let (src, dst) = (ends.first_chunk::<16>()?, ends.last_chunk::<16>()?);
                    let (remote, local) = (IpAddr::V6(Ipv6Addr::from(*src)), IpAddr::V6(Ipv6Addr::from(*dst)));
                    (last, known) = ((*ends, h[6]), peers.and_then(|p| p.find(local, remote)));
                }
                known
            });
            self.peers.push(tunnel.unwrap_or(PortId::NONE));
        }
        let list = std::mem::take(&mut self.tunneled6);
        self.open(&list, batch, port, tables, |lane, data| {
            let (h, carried) = data.split_first_chunk::<V6>()?;
            let inner = if h[6] == protocol::IPV6 { Family::Inet6 } else { Family::Inet };
            Some(((h[0] << 4) | (h[1] >> 4), inner, lane.l2 + V6 as u16, carried))
        });
        self.tunneled6 = list;
    }

    /// Gives the packets of `list` whose tunnel is known the lane of what is inside. `strip` says of an outer packet: its
    /// traffic class, the family inside, the bytes before that, and what is carried.
    #[inline]
    fn open(
        &mut self,
        list: &[u16],
        batch: &[Frame],
        port: &PortInfo,
        tables: &Tables,
        strip: impl for<'p> Fn(&Lane, &'p [u8]) -> Option<(u8, Family, u16, &'p [u8])>,
    ) {
        // As short a pass: of many tunnels, each is a miss.
        self.inner.clear();
        self.inner.extend(self.peers.iter().map(|tunnel| tables.ports.plain_tunnel(*tunnel)));
        let (peers, inner) = (std::mem::take(&mut self.peers), std::mem::take(&mut self.inner));
        for ((i, tunnel), plain) in list.iter().zip(&peers).zip(&inner) {
            let Some((table, sources)) = *plain else { continue };
            let Some(lane) = self.lanes.get(usize::from(*i)) else { continue };
            let Some(data) = batch.get(usize::from(*i)).map(Frame::data) else { continue };
            let Some(packet) = data.get(usize::from(lane.l2)..usize::from(lane.l2) + lane.len as usize) else {
                continue;
            };
            let Some((outer, family, l2, carried)) = strip(lane, packet) else { continue };
            let sources = match sources {
                true => match tables.gates.get(*tunnel) {
                    Some(gate) => Some(&**gate),
                    None => continue,
                },
                false => None,
            };
            let found = Found { tunnel: *tunnel, table, sources };
            if let Some(inside) = self.inside(family, outer, l2, carried, found, port)
                && let Some(lane) = self.lanes.get_mut(usize::from(*i))
            {
                *lane = inside;
            }
        }
        (self.peers, self.inner) = (peers, inner);
    }

    /// The lane of a packet inside, which is listed then, as far as the fast path knows it. `outer`: the traffic class
    /// outside; `l2`: bytes in front of it in the frame.
    #[inline(always)]
    fn inside(
        &mut self,
        family: Family,
        outer: u8,
        l2: u16,
        carried: &[u8],
        found: Found<'_>,
        port: &PortInfo,
    ) -> Option<Lane> {
        let (second, len, at) = match family {
            Family::Inet6 => {
                let (len, dst) = plain_v6(carried)?;
                let tclass = (carried[0] << 4) | (carried[1] >> 4);
                let ecn = inner_ecn(tclass, outer).ok()?;
                if let Some(gate) = found.sources {
                    let source: [u8; 16] = carried.get(8..24)?.try_into().ok()?;
                    gate.admits(&IpAddr::V6(source.into())).then_some(())?;
                }
                self.v6.push(dst);
                ((carried[1] & 0xcf) | (ecn << 4), len, self.v6.len() - 1)
            }
            Family::Inet => {
                let h = plain_v4(carried)?;
                let ecn = inner_ecn(h[1], outer).ok()?;
                if let Some(gate) = found.sources {
                    gate.admits(&IpAddr::V4(Ipv4Addr::new(h[12], h[13], h[14], h[15]))).then_some(())?;
                }
                self.v4.push(Ipv4Addr::new(h[16], h[17], h[18], h[19]));
                ((h[1] & 0xfc) | ecn, u32::from(u16::from_be_bytes([h[2], h[3]])), self.v4.len() - 1)
            }
        };
        let at = at as u16;
        if found.table != port.table {
            self.elsewhere.push((at, family, found.table));
        }
        let carried = carried.len() as u16;
        Some(Lane { family: Some(family), second, at, l2, carried, len, tunnel: found.tunnel })
    }

    /// The lane of the packet inside one with this outer header, if its tunnel is known already.
    #[inline(never)]
    pub(super) fn leave_known_four(
        &mut self,
        l2: usize,
        h: &[u8; V4],
        data: &[u8],
        outers: &mut Outers<'_>,
    ) -> Option<Lane> {
        let found = outers.known()?.four(h)?;
        let carried = data.get(V4..usize::from(u16::from_be_bytes([h[2], h[3]])))?;
        let family = if h[9] == protocol::IPV6 { Family::Inet6 } else { Family::Inet };
        self.inside(family, h[1], (l2 + V4) as u16, carried, found, outers.port())
    }

    /// The same for tunnels in IPv6.
    #[inline(never)]
    pub(super) fn leave_known_six(
        &mut self,
        l2: usize,
        len: u32,
        data: &[u8],
        outers: &mut Outers<'_>,
    ) -> Option<Lane> {
        let h = data.first_chunk::<V6>()?;
        let found = outers.known()?.six(h)?;
        let carried = data.get(V6..len as usize)?;
        let family = if h[6] == protocol::IPV6 { Family::Inet6 } else { Family::Inet };
        self.inside(family, (h[0] << 4) | (h[1] >> 4), (l2 + V6) as u16, carried, found, outers.port())
    }
}

/// Whether a packet is for the router.
#[inline]
fn is_local(ids: &[ObjectId], lane: &Lane, tables: &Tables) -> Option<()> {
    let id = ids.get(usize::from(lane.at))?;
    matches!(tables.routing.objects.get(*id)?, Object::Local).then_some(())
}

#[inline]
fn outer_header<'f, const N: usize>(frame: &'f Frame, lane: &Lane) -> Option<&'f [u8; N]> {
    frame.data().get(usize::from(lane.l2)..)?.first_chunk()
}

/// Bytes that a tunnel adds whose outer header can be put on here. None: it, or this packet, takes the general path.
#[inline]
pub(super) fn overhead(encap: &Encap, lane: &Lane, frame: &Frame) -> Option<u32> {
    let family = lane.family?;
    if !encap.carries.family(family) || lane.tunnel == encap.tunnel {
        return None;
    }
    match &encap.outer {
        Some(Outer::V4(_)) if family == Family::Inet || !limited(lane, frame) => Some(IPV4_HEADER),
        Some(Outer::V6(o)) if o.is_bare() && (family == Family::Inet || !limited(lane, frame)) => Some(IPV6_HEADER),
        _ => None,
    }
}

/// Whether an IPv6 packet may carry an encapsulation limit.
#[inline]
fn limited(lane: &Lane, frame: &Frame) -> bool {
    frame.data().get(usize::from(lane.l2)..).is_none_or(limit::possible)
}

/// Takes one from the TTL and puts a tunnel's outer header and the link header in place of what was in front. The caller
/// has seen that there is room, that the outer header is ready and that the outer packet is no longer than a packet can be.
/// Says how many bytes the frame has then.
#[inline]
pub(super) fn wrap(frame: &mut Frame, lane: &Lane, family: Family, encap: &Encap, hop: &Forward, ident: u16) -> usize {
    let link = hop.rewrite.len();
    match &encap.outer {
        Some(Outer::V4(outer)) => {
            let front = link + V4;
            let Some(data) = frame.exchange_front(usize::from(lane.l2), front, lane.len as usize) else { return 0 };
            let len = data.len();
            if let Some((head, packet)) = data.split_at_mut_checked(front) {
                let _ = age(family, packet);
                if let (Some(inner), Some(to)) = (Inner::of(family, packet), head.last_chunk_mut()) {
                    outer.write(to, &inner, (lane.len + IPV4_HEADER) as u16, ident);
                }
                hop.rewrite.write(Family::Inet, head);
            }
            len
        }
        Some(Outer::V6(outer)) => {
            let front = link + V6;
            let Some(data) = frame.exchange_front(usize::from(lane.l2), front, lane.len as usize) else { return 0 };
            let len = data.len();
            if let Some((head, packet)) = data.split_at_mut_checked(front) {
                let _ = age(family, packet);
                if let (Some(inner), Some(to)) = (Inner::of(family, packet), head.last_chunk_mut()) {
                    outer.write(to, &inner, outer.label(family, packet), inner.protocol(), lane.len as u16);
                }
                hop.rewrite.write(Family::Inet6, head);
            }
            len
        }
        _ => 0,
    }
}

/// Writes the second byte of an inner header, in which the ECN marks of both headers are combined.
#[inline]
pub(super) fn mark(frame: &mut Frame, lane: &Lane) {
    let Some(header) = frame.data_mut().get_mut(usize::from(lane.l2)..) else { return };
    let Some(h) = header.first_chunk_mut::<V4>() else { return };
    if lane.family == Some(Family::Inet) && h[1] != lane.second {
        let old = u16::from_be_bytes([h[10], h[11]]);
        let check =
            checksum::update_u16(old, u16::from_be_bytes([h[0], h[1]]), u16::from_be_bytes([h[0], lane.second]));
        [h[10], h[11]] = check.to_be_bytes();
    }
    h[1] = lane.second;
}
