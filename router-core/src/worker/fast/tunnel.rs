//! Tunnels on the fast path: packets that come out of one, and the outer header of those that enter one.
//!
//! Both sides know outer IPv4 and IPv6 headers, bare or with GRE or UDP between, and the encapsulation limit of outer IPv6
//! headers. Sequence numbers that are checked, limits of packets inside that bring one, and peers that the packet inside names
//! take the general path.

use super::guard::syn;
use super::known::{Found, Known, ends_of, what};
use super::outers::Outers;
use super::survey::{plain_v4, plain_v6};
use super::{Lane, Passes, RATED};
use crate::addr::Family;
use crate::checksum::{self, age};
use crate::decap::Peers;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::{Encap, Forward, Object, ObjectId};
use crate::port::{PortId, PortInfo};
use crate::tables::Tables;
use crate::tunnel::decapsulate::between;
use crate::tunnel::ecn::inner_ecn;
use crate::tunnel::{Gate, IPV4_HEADER, IPV6_HEADER, Inner, Outer, gre_keepalive, limit, udp};
use std::net::{IpAddr, Ipv4Addr};

const V4: usize = IPV4_HEADER as usize;
const V6: usize = IPV6_HEADER as usize;

/// Reads of every packet of a batch, whose IP headers are `l2` bytes from their beginning, where the search for its tunnel
/// begins: so that what all of them need comes from memory at once. Nothing is decided here.
#[inline(never)]
pub(super) fn expect(batch: &[Frame], l2: usize, six: Option<&Peers>, four: Option<&Peers>) {
    let mut sum = 0u32;
    for frame in batch {
        let Some(h) = frame.data().get(l2..).and_then(|d| d.first_chunk::<V4>()) else { continue };
        let peers = match h[9] {
            protocol::IPV6 => six,
            protocol::IPV4 => four,
            _ => None,
        };
        if let Some(peers) = peers {
            sum = sum.wrapping_add(peers.touch_v4(ends_of(h)));
        }
    }
    // The values do not matter; that they were loaded does.
    std::hint::black_box(sum);
}

impl Passes {
    /// A packet that may come out of a tunnel in IPv4. True: its lane has been added, as that of the packet inside, or, where
    /// the packet is surely for us, as one that is seen to at the end of the pass ([`Passes::leave_ours`]). False: it is
    /// listed where that is needed ([`Passes::leave_in_four`]), and has no lane yet.
    #[inline(never)]
    pub(super) fn leave_four(
        &mut self,
        i: usize,
        l2: usize,
        h: &[u8; V4],
        data: &[u8],
        outers: &mut Outers<'_>,
    ) -> bool {
        let len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        let Some(packet) = data.get(..len) else { return false };
        // A fragment has to wait for the others.
        if [h[6] & 0x3f, h[7]] != [0, 0] {
            return false;
        }
        let Some(what) = outers.what(h[9], packet, V4) else { return false };
        let (port, ends) = (outers.port, ends_of(h));
        let known = outers.known();
        let (found, searched) = match known.four(ends, what).copied() {
            Some(found) => (found, false),
            None if known.is_ours_four(ends) => match known.search_four(ends, what) {
                Some(found) => (found, true),
                None => return self.leave_general(l2, len),
            },
            None => {
                self.tunneled4.push(i as u16);
                return false;
            }
        };
        if let Some(lane) = self.leave(&found, Family::Inet, (h[9], V4), h[1], l2, packet, port) {
            self.lanes.push(lane);
            return true;
        }
        if searched {
            return self.leave_general(l2, len);
        }
        self.tunneled4.push(i as u16);
        false
    }

    /// The lane of a packet that is for us, and out of no tunnel that is known here.
    #[cold]
    fn leave_general(&mut self, l2: usize, len: usize) -> bool {
        self.lanes.push(Lane { l2: l2 as u8, len: len as u32, ..Lane::GENERAL });
        true
    }

    /// The same for tunnels in IPv6.
    #[inline(never)]
    pub(super) fn leave_six(&mut self, i: usize, l2: usize, len: u32, data: &[u8], outers: &mut Outers<'_>) -> bool {
        let Some(packet) = data.get(..len as usize) else { return false };
        let Some(h) = packet.first_chunk::<V6>() else { return false };
        let (proto, header) = if h[6] == protocol::DEST_OPTIONS { behind_limit(packet) } else { (h[6], V6) };
        let Some(what) = outers.what(proto, packet, header) else { return false };
        let port = outers.port;
        let known = outers.known();
        if let Some(found) = known.six(h, what) {
            let tclass = (h[0] << 4) | (h[1] >> 4);
            if let Some(lane) = self.leave(found, Family::Inet6, (proto, header), tclass, l2, packet, port) {
                self.lanes.push(lane);
                return true;
            }
        } else if known.is_ours_six(&h[24..]) {
            self.ours6.push(i as u16);
            self.lanes.push(Lane { l2: l2 as u8, len, ..Lane::GENERAL });
            return true;
        }
        self.tunneled6.push(i as u16);
        false
    }

    /// Gives the packets to our known ends in IPv6 that do come out of a tunnel the lane of the packet inside; the others stay the
    /// general path's.
    #[inline(never)]
    pub(super) fn leave_ours(&mut self, batch: &[Frame], outers: &mut Outers<'_>) {
        let (port, tables) = (outers.port, outers.tables);
        let known = &*outers.known();
        let ours6 = std::mem::take(&mut self.ours6);
        self.search::<V6>(&ours6, batch, |_, h, payload| known.find_six(h, what(h[6], payload)));
        self.open(ours6.iter().copied(), batch, port, tables, Family::Inet6);
        self.ours6 = ours6;
    }

    /// Of the packets that may come out of a tunnel in IPv4, gives those that do the lane of the packet inside, and lists
    /// its destination. The frames are not touched yet.
    #[inline(never)]
    pub(super) fn leave_in_four(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let known = Known::new(port, tables);
        let (list, ids) = (std::mem::take(&mut self.tunneled4), std::mem::take(&mut self.ids4));
        self.search::<V4>(&list, batch, |lane, h, payload| {
            is_local(&ids, lane, tables)?;
            known.find_four(ends_of(h), what(h[9], payload))
        });
        self.ids4 = ids;
        self.open(list.iter().copied(), batch, port, tables, Family::Inet);
        self.tunneled4 = list;
    }

    /// The same for tunnels in IPv6.
    #[inline(never)]
    pub(super) fn leave_in_six(&mut self, batch: &[Frame], port: &PortInfo, tables: &Tables) {
        let known = Known::new(port, tables);
        let (list, ids) = (std::mem::take(&mut self.tunneled6), std::mem::take(&mut self.ids6));
        self.search::<V6>(&list, batch, |lane, h, payload| {
            is_local(&ids, lane, tables)?;
            known.find_six(h, what(h[6], payload))
        });
        self.ids6 = ids;
        self.open(list.iter().copied(), batch, port, tables, Family::Inet6);
        self.tunneled6 = list;
    }

    /// Who sent the packets of `list`, which have outer headers of `N` bytes: a short pass, so that many searches are under
    /// way at once.
    #[inline(always)]
    fn search<const N: usize>(
        &mut self,
        list: &[u16],
        batch: &[Frame],
        find: impl Fn(&Lane, &[u8; N], &[u8]) -> Option<PortId>,
    ) {
        self.peers.clear();
        for i in list {
            let i = usize::from(*i);
            let found = self.lanes.get(i).and_then(|lane| {
                let (h, payload) = batch.get(i)?.data().get(usize::from(lane.l2)..)?.split_first_chunk()?;
                find(lane, h, payload)
            });
            self.peers.push(found.unwrap_or(PortId::NONE));
        }
    }

    /// Gives the packets of `list` whose tunnel has been found the lane of what is inside.
    #[inline]
    fn open(
        &mut self,
        list: impl Iterator<Item = u16>,
        batch: &[Frame],
        port: &PortInfo,
        tables: &Tables,
        outside: Family,
    ) {
        // As short a pass: of many tunnels, each is a miss.
        self.inner.clear();
        self.inner.extend(self.peers.iter().map(|tunnel| tables.ports.plain_tunnel(*tunnel)));
        let (peers, inner) = (std::mem::take(&mut self.peers), std::mem::take(&mut self.inner));
        for ((i, tunnel), plain) in list.zip(&peers).zip(&inner) {
            let i = usize::from(i);
            let (Some(lane), Some(frame)) = (self.lanes.get(i), batch.get(i)) else { continue };
            let l2 = usize::from(lane.l2);
            let Some(packet) = frame.data().get(l2..l2 + lane.len as usize) else { continue };
            let Some(h) = packet.first_chunk::<V4>() else { continue };
            let (proto, header, outer) = match outside {
                Family::Inet => (h[9], V4, h[1]),
                Family::Inet6 => (h[6], V6, (h[0] << 4) | (h[1] >> 4)),
            };
            let Some(found) = Found::of(tables, *tunnel, *plain, proto) else { continue };
            if let Some(inside) = self.leave(&found, outside, (proto, header), outer, l2, packet, port)
                && let Some(lane) = self.lanes.get_mut(i)
            {
                *lane = inside;
            }
        }
        (self.peers, self.inner) = (peers, inner);
    }

    /// The lane of the packet inside one of this tunnel. `proto`: what the outer headers carry, which have `header` bytes; `outer`:
    /// the traffic class outside; `l2`: bytes in front of the
    /// outer packet in the frame.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn leave(
        &mut self,
        found: &Found<'_>,
        outside: Family,
        (proto, header): (u8, usize),
        outer: u8,
        l2: usize,
        packet: &[u8],
        port: &PortInfo,
    ) -> Option<Lane> {
        let (at, family) = match proto {
            protocol::IPV6 => (header, Family::Inet6),
            protocol::IPV4 => (header, Family::Inet),
            _ => behind(found.gate?, outside, (proto, header), packet)?,
        };
        self.inside(family, outer, u8::try_from(l2 + at).ok()?, packet.get(at..)?, found, port)
    }

    /// The lane of a packet inside, which is listed then, as far as the fast path knows it. `l2`: bytes in front of it in
    /// the frame.
    #[inline(always)]
    fn inside(
        &mut self,
        family: Family,
        outer: u8,
        l2: u8,
        carried: &[u8],
        found: &Found<'_>,
        port: &PortInfo,
    ) -> Option<Lane> {
        let (second, kind, len, at) = match family {
            Family::Inet6 => {
                let (len, dst) = plain_v6(carried)?;
                let tclass = (carried[0] << 4) | (carried[1] >> 4);
                let ecn = inner_ecn(tclass, outer).ok()?;
                if let Some(gate) = found.gate {
                    let source: [u8; 16] = carried.get(8..24)?.try_into().ok()?;
                    gate.admits(&IpAddr::V6(source.into())).then_some(())?;
                }
                self.v6.push(dst);
                ((carried[1] & 0xcf) | (ecn << 4), carried[6], len, self.v6.len() - 1)
            }
            Family::Inet => {
                let h = plain_v4(carried)?;
                let ecn = inner_ecn(h[1], outer).ok()?;
                if let Some(gate) = found.gate {
                    gate.admits(&IpAddr::V4(Ipv4Addr::new(h[12], h[13], h[14], h[15]))).then_some(())?;
                }
                self.v4.push(Ipv4Addr::new(h[16], h[17], h[18], h[19]));
                ((h[1] & 0xfc) | ecn, h[9], u32::from(u16::from_be_bytes([h[2], h[3]])), self.v4.len() - 1)
            }
        };
        let at = at as u16;
        if found.table != port.table {
            self.elsewhere.push((at, family, found.table));
        }
        let carried = carried.len() as u16;
        let asks = syn(kind) | found.gate.filter(|gate| gate.is_rated()).map_or(0, |_| RATED);
        Some(Lane { family: Some(family), second, at, l2, asks, carried, len, tunnel: found.tunnel })
    }
}

/// What is behind the destination options of an IPv6 packet, and where, if they are those of a tunnel that sends its encapsulation
/// limit (RFC 2473 4.1.1): the option, and padding. Otherwise as if the options were a protocol, which no tunnel has.
#[inline(never)]
fn behind_limit(packet: &[u8]) -> (u8, usize) {
    const LEN: usize = limit::LEN as usize;
    match packet.get(V6..).and_then(|p| p.first_chunk::<LEN>()) {
        Some(h) if *h == limit::header(h[0], h[4]) => (h[0], V6 + LEN),
        _ => (protocol::DEST_OPTIONS, V6),
    }
}

/// Where the packet inside begins, and its family, for a tunnel with something between.
#[inline(never)]
fn behind(gate: &Gate, outside: Family, (proto, header): (u8, usize), packet: &[u8]) -> Option<(usize, Family)> {
    let payload = packet.get(header..)?;
    let (at, family) = between(gate, proto, payload, gate.state()).ok()?;
    if proto == protocol::GRE && gre_keepalive::may_be_question(family, payload.get(at..)?) {
        return None;
    }
    if proto == protocol::UDP && !udp::has_no_checksum(payload) {
        let addrs = match outside {
            Family::Inet => packet.get(12..20)?,
            Family::Inet6 => packet.get(8..40)?,
        };
        let pseudo = checksum::Sum::of(addrs).word(u16::from(protocol::UDP)).long(payload.len() as u32);
        checksum::verify_with(pseudo, payload).then_some(())?;
    }
    Some((header + at, family))
}

/// Whether a packet is for the router.
#[inline]
fn is_local(ids: &[ObjectId], lane: &Lane, tables: &Tables) -> Option<()> {
    let id = ids.get(usize::from(lane.at))?;
    matches!(tables.routing.objects.get(*id)?, Object::Local).then_some(())
}

/// Bytes that a tunnel adds whose outer header can be put on here. None: it takes the general path.
#[inline(always)]
pub(super) fn overhead(encap: &Encap, family: Family) -> Option<u32> {
    let added = match &encap.outer {
        Some(Outer::V4(o)) if family == Family::Inet6 || o.fits() => IPV4_HEADER,
        Some(Outer::V4(_)) => return None,
        Some(Outer::V6(o)) if o.fits() => o.added() as u32,
        Some(Outer::V6(_)) => return None,
        Some(Outer::Long(l)) => l.plain()?,
        None => return None,
    };
    encap.carries.family(family).then_some(added)
}

/// Whether an IPv6 packet may carry an encapsulation limit.
#[inline(never)]
pub(super) fn limited(lane: &Lane, frame: &Frame) -> bool {
    frame.data().get(usize::from(lane.l2)..).is_none_or(limit::possible)
}

/// Takes one from the TTL and puts a tunnel's outer header and the link header in place of what was in front. The caller
/// has seen that there is room, that the outer header is ready and that the outer packet is no longer than a packet can be.
/// Says how many bytes the frame has then.
#[inline]
pub(super) fn wrap(frame: &mut Frame, lane: &Lane, family: Family, encap: &Encap, hop: &Forward, ident: u16) -> usize {
    let link = hop.rewrite.len();
    let (l2, len) = (usize::from(lane.l2), lane.len as usize);
    match &encap.outer {
        Some(Outer::V4(outer)) => {
            let Some(data) = frame.exchange_front(l2, link + V4, len) else { return 0 };
            let sent = data.len();
            if let Some((head, packet)) = data.split_at_mut_checked(link + V4)
                && let Some(inner) = take_in(family, packet)
            {
                if let Some(to) = head.last_chunk_mut() {
                    outer.write(to, &inner, (lane.len + IPV4_HEADER) as u16, ident);
                }
                hop.rewrite.write(Family::Inet, head);
            }
            sent
        }
        Some(Outer::V6(outer)) if outer.is_bare() => {
            let Some(data) = frame.exchange_front(l2, link + V6, len) else { return 0 };
            let sent = data.len();
            if let Some((head, packet)) = data.split_at_mut_checked(link + V6) {
                // Before the packet is edited: what was just written byte by byte would be waited for.
                let label = outer.label(family, packet);
                if let Some(inner) = take_in(family, packet)
                    && let Some(to) = head.last_chunk_mut()
                {
                    outer.write(to, &inner, label, inner.protocol(), lane.len as u16);
                }
                hop.rewrite.write(Family::Inet6, head);
            }
            sent
        }
        Some(outer) => wrap_long(frame, lane, family, outer, hop, ident),
        None => 0,
    }
}

/// The same where more than a bare header is put in front.
#[inline(never)]
fn wrap_long(frame: &mut Frame, lane: &Lane, family: Family, outer: &Outer, hop: &Forward, ident: u16) -> usize {
    let (link, added) = (hop.rewrite.len(), outer.added());
    let Some(data) = frame.exchange_front(usize::from(lane.l2), link + added, lane.len as usize) else { return 0 };
    let sent = data.len();
    if let Some(inner) = data.get_mut(link + added..).and_then(|packet| take_in(family, packet))
        && let Some((head, to)) = data.split_at_mut_checked(link)
    {
        outer.write(to, &inner, ident);
        hop.rewrite.write(outer.family(), head);
    }
    sent
}

/// Takes one from the TTL of a packet that goes into a tunnel; what its outer header has from it.
#[inline(always)]
fn take_in(family: Family, packet: &mut [u8]) -> Option<Inner> {
    let inner = Inner::of(family, packet)?;
    let _ = age(family, packet);
    Some(inner.aged())
}

/// Writes the second byte of an inner header, in which the ECN marks of both headers are combined.
#[inline(always)]
pub(super) fn mark(family: Family, packet: &mut [u8], lane: &Lane) {
    let Some(h) = packet.first_chunk_mut::<V4>() else { return };
    if h[1] == lane.second {
        return;
    }
    if family == Family::Inet {
        let old = u16::from_be_bytes([h[10], h[11]]);
        let check =
            checksum::update_u16(old, u16::from_be_bytes([h[0], h[1]]), u16::from_be_bytes([h[0], lane.second]));
        [h[10], h[11]] = check.to_be_bytes();
    }
    h[1] = lane.second;
}
