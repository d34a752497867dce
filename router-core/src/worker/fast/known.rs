//! Peers of a batch whose tunnel is known: packets of one tunnel often come together, and only the first of them is searched
//! for. The others are seen as the packet inside from the first pass on, without a lookup of their own for what is outside.
//! Where more tunnels than that meet in a batch, at least our own end is known: then the search alone is left, and the
//! searches of a batch go on side by side.

use super::outers::{BARE, GRE, LIMIT, UDP, kind_of};
use crate::decap::{Peers, UdpPorts};
use crate::fib::{Fib, Lookup};
use crate::headers::protocol;
use crate::object::Object;
use crate::port::{PortId, PortInfo, TableId};
use crate::tables::Tables;
use crate::tunnel::{Gate, gre};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tunnels that are kept of one family: each costs one search by itself, which does not pay when there are many.
const PLACES: usize = 4;

/// A tunnel that packets come out of here.
#[derive(Clone, Copy)]
pub(super) struct Found<'t> {
    pub tunnel: PortId,
    /// In which what is inside is looked up.
    pub table: TableId,
    /// Where sources are checked, or something stands between the outer header and the packet inside.
    pub gate: Option<&'t Gate>,
}

impl<'t> Found<'t> {
    /// None for a tunnel that is down, or with more to check than what is done here. `plain` is what
    /// [`crate::tables::PortTable::plain_tunnel`] says of it, `proto` the outer protocol.
    #[inline]
    pub(super) fn of(tables: &'t Tables, tunnel: PortId, plain: Option<(TableId, bool)>, proto: u8) -> Option<Self> {
        let (table, sources) = plain?;
        let between = kind_of(proto) != BARE;
        let gate = match sources || between {
            true => Some(&**tables.gates.get(tunnel)?),
            false => None,
        };
        // A tunnel that finds its way is judged by more than its ends, where it came another way than bare.
        if between && gate.is_some_and(|g| g.arrivals.is_some()) {
            return None;
        }
        Some(Found { tunnel, table, gate })
    }
}

struct Place<'t, K> {
    ends: K,
    /// See [`what`]; 0: nobody yet.
    what: u64,
    found: Option<Found<'t>>,
}

/// See the module.
pub(super) struct Known<'t> {
    tables: &'t Tables,
    fib: Option<&'t Fib>,
    six: Option<&'t Peers>,
    four: Option<&'t Peers>,
    gre: Option<&'t Peers>,
    /// In which outer destinations are looked up.
    table: TableId,
    v4: [Place<'t, u64>; PLACES],
    v6: [Place<'t, [u8; 32]>; PLACES],
    /// An address of ours to which tunnel packets came.
    ours4: Option<u32>,
    ours6: Option<[u8; 16]>,
}

impl<'t> Known<'t> {
    /// For the packets of this port.
    #[cold]
    pub(super) fn new(port: &PortInfo, tables: &'t Tables) -> Self {
        let of = |proto| tables.decap.peers(proto, port.table);
        Known {
            tables,
            fib: tables.routing.fibs.get(port.table).map(|f| &**f),
            six: of(protocol::IPV6),
            four: of(protocol::IPV4),
            gre: of(protocol::GRE),
            table: port.table,
            v4: std::array::from_fn(|_| Place { ends: 0, what: 0, found: None }),
            v6: std::array::from_fn(|_| Place { ends: [0; 32], what: 0, found: None }),
            ours4: None,
            ours6: None,
        }
    }

    /// The tunnels whose packets have this outer protocol. Not those in UDP, which ports tell apart.
    #[inline]
    fn peers(&self, proto: u8) -> Option<&'t Peers> {
        match proto {
            protocol::IPV6 => self.six,
            protocol::IPV4 => self.four,
            protocol::GRE => self.gre,
            _ => None,
        }
    }

    /// The tunnel whose packets have these outer addresses, as [`ends_of`] says; `what` as the function of that name does.
    #[inline]
    pub(super) fn find_four(&self, ends: u64, what: u64) -> Option<PortId> {
        if what >> 8 != 0 {
            return self.find_by_more(ends_four(ends), what);
        }
        self.peers(what as u8)?.find_v4(ends)
    }

    /// The same for IPv6.
    #[inline]
    pub(super) fn find_six(&self, h: &[u8; 40], what: u64) -> Option<PortId> {
        let ends = ends_six(h.last_chunk::<32>()?)?;
        if what >> 8 != 0 {
            return self.find_by_more(ends, what);
        }
        self.peers(what as u8)?.find(ends.1, ends.0)
    }

    /// Where a datagram's ports, or GRE's key, tell as well.
    #[inline(never)]
    fn find_by_more(&self, (remote, local): (IpAddr, IpAddr), what: u64) -> Option<PortId> {
        let more = (what >> 8) as u32;
        if what as u8 == protocol::UDP {
            let ports = UdpPorts { remote: (more >> 16) as u16, local: more as u16 };
            return self.tables.decap.find_udp(self.table, local, remote, ports);
        }
        // A key that nobody has is a matter of whichever there is.
        let keyed = self.tables.decap.find_keyed(self.table, local, remote, more);
        keyed.or_else(|| self.gre?.find(local, remote))
    }

    /// Whether an outer destination is known to be ours.
    #[inline]
    pub(super) fn is_ours_four(&self, ends: u64) -> bool {
        self.ours4 == Some(ends as u32)
    }

    /// The same for IPv6.
    #[inline]
    pub(super) fn is_ours_six(&self, dst: &[u8]) -> bool {
        self.ours6.as_ref().is_some_and(|ours| ours == dst)
    }

    /// The tunnel of a packet with this outer header, if it is kept here; `what` as the function of that name says.
    #[inline(always)]
    pub(super) fn four(&mut self, ends: u64, what: u64) -> Option<&Found<'t>> {
        // By the peer's last byte.
        let at = (ends >> 32) as usize % PLACES;
        if self.v4[at].what == 0 {
            let found = self.search4(ends, what);
            self.v4[at] = Place { ends, what, found };
        }
        let place = &self.v4[at];
        if place.ends == ends && place.what == what { place.found.as_ref() } else { None }
    }

    /// The same for IPv6.
    #[inline(always)]
    pub(super) fn six(&mut self, h: &[u8; 40], what: u64) -> Option<&Found<'t>> {
        let ends = h.last_chunk::<32>()?;
        let at = usize::from(ends[15]) % PLACES;
        if self.v6[at].what == 0 {
            let found = self.search6(h, what);
            self.v6[at] = Place { ends: *ends, what, found };
        }
        let place = &self.v6[at];
        if place.ends == *ends && place.what == what { place.found.as_ref() } else { None }
    }

    /// The tunnel of a packet to an address that is known to be ours.
    #[inline(always)]
    pub(super) fn search_four(&self, ends: u64, what: u64) -> Option<Found<'t>> {
        self.found(what as u8, self.find_four(ends, what)?)
    }

    #[cold]
    fn search4(&mut self, ends: u64, what: u64) -> Option<Found<'t>> {
        let dst = ends as u32;
        let id = self.fib?.lookup4(Ipv4Addr::from_bits(dst));
        matches!(self.tables.routing.objects.get(id)?, Object::Local).then_some(())?;
        self.ours4 = Some(dst);
        self.found(what as u8, self.find_four(ends, what)?)
    }

    #[cold]
    fn search6(&mut self, h: &[u8; 40], what: u64) -> Option<Found<'t>> {
        let dst = h.last_chunk::<16>()?;
        let id = self.fib?.lookup6(Ipv6Addr::from(*dst));
        matches!(self.tables.routing.objects.get(id)?, Object::Local).then_some(())?;
        self.ours6 = Some(*dst);
        self.found(what as u8, self.find_six(h, what)?)
    }

    #[inline(always)]
    fn found(&self, proto: u8, tunnel: PortId) -> Option<Found<'t>> {
        Found::of(self.tables, tunnel, self.tables.ports.plain_tunnel(tunnel), proto)
    }
}

/// The addresses of an outer IPv4 header: the source in the upper half, the destination in the lower.
#[inline(always)]
pub(super) fn ends_of(h: &[u8; 20]) -> u64 {
    u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]])
}

/// By what a packet is told apart beside its ends, in one word that is never 0: its outer protocol in the lowest byte, above it
/// the source and destination port of a datagram, or the key of GRE and that there is one.
#[inline(always)]
pub(super) fn what(proto: u8, payload: &[u8]) -> u64 {
    let more = match proto {
        protocol::UDP => payload.first_chunk().map_or(0, |p| u64::from(u32::from_be_bytes(*p))),
        protocol::GRE => gre::key(payload).map_or(0, |key| 1 << 32 | u64::from(key)),
        _ => 0,
    };
    more << 8 | u64::from(proto)
}

/// Source and destination.
fn ends_four(ends: u64) -> (IpAddr, IpAddr) {
    (Ipv4Addr::from_bits((ends >> 32) as u32).into(), Ipv4Addr::from_bits(ends as u32).into())
}

fn ends_six(ends: &[u8; 32]) -> Option<(IpAddr, IpAddr)> {
    let (src, dst) = (ends.first_chunk::<16>()?, ends.last_chunk::<16>()?);
    Some((Ipv6Addr::from(*src).into(), Ipv6Addr::from(*dst).into()))
}

/// Which kinds of outer packets may come out of tunnels here: bits of [`BARE`], [`GRE`], [`UDP`], [`LIMIT`].
pub(super) fn wanted(port: &PortInfo, tables: &Tables) -> u8 {
    // Whether a packet is for us may be for rules to say, and an address may not be ours for certain yet.
    let by_rules = tables.policy.as_ref().is_some_and(|p| !p.own_first());
    if tables.decap.is_empty() || by_rules || tables.settings.max_tunnel_nesting == 0 || tables.ports.any_tentative() {
        return 0;
    }
    let has = |proto, kind| if tables.decap.peers(proto, port.table).is_some() { kind } else { 0 };
    let udp = if tables.decap.has_udp() { UDP } else { 0 };
    let kinds = has(protocol::IPV6, BARE) | has(protocol::IPV4, BARE) | has(protocol::GRE, GRE) | udp;
    if kinds == 0 { 0 } else { kinds | LIMIT }
}
