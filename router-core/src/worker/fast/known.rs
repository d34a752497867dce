//! Peers of a batch whose tunnel is known: packets of one tunnel often come together, and only the first of them is searched
//! for. The others are seen as the packet inside from the first pass on, without a lookup of their own for what is outside.

use crate::addr::Family;
use crate::decap::Peers;
use crate::fib::{Fib, Lookup};
use crate::headers::protocol;
use crate::object::{Object, ObjectId};
use crate::port::{PortId, PortInfo, TableId};
use crate::tables::Tables;
use crate::tunnel::Gate;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tunnels that are kept of one family: each costs one search by itself, which does not pay when there are many.
const PLACES: usize = 4;

/// A tunnel that packets come out of here.
#[derive(Clone, Copy)]
pub(super) struct Found<'t> {
    pub tunnel: PortId,
    /// In which what is inside is looked up.
    pub table: TableId,
    /// Which sources may be inside; None: all.
    pub sources: Option<&'t Gate>,
}

impl<'t> Found<'t> {
    /// None for a tunnel that is down, or with more to check than what is done here.
    #[inline]
    pub(super) fn of(tables: &'t Tables, tunnel: PortId) -> Option<Found<'t>> {
        let (table, sources) = tables.ports.plain_tunnel(tunnel)?;
        let sources = if sources { Some(&**tables.gates.get(tunnel)?) } else { None };
        Some(Found { tunnel, table, sources })
    }
}

#[derive(Clone, Copy)]
struct Place<'t, K> {
    ends: K,
    /// Outer protocol; 0: nobody yet.
    proto: u8,
    found: Option<Found<'t>>,
}

/// See the module.
pub(super) struct Known<'t> {
    tables: &'t Tables,
    fib: Option<&'t Fib>,
    six: Option<&'t Peers>,
    four: Option<&'t Peers>,
    v4: [Place<'t, u64>; PLACES],
    v6: [Place<'t, [u8; 32]>; PLACES],
}

impl<'t> Known<'t> {
    /// For the packets of this port. None where none of them comes out of a tunnel on the fast path.
    #[cold]
    pub(super) fn new(port: &PortInfo, tables: &'t Tables) -> Option<Self> {
        let of = |proto| tables.decap.peers(proto, port.table);
        let (six, four) = (of(protocol::IPV6), of(protocol::IPV4));
        // Whether a packet is for us may be for rules to say.
        let by_rules = tables.policy.as_ref().is_some_and(|p| !p.own_first());
        if six.is_none() && four.is_none() || by_rules || tables.settings.max_tunnel_nesting == 0 {
            return None;
        }
        let fib = tables.routing.fibs.get(port.table).map(|f| &**f);
        let (v4, v6) = (Place { ends: 0, proto: 0, found: None }, Place { ends: [0; 32], proto: 0, found: None });
        Some(Known { tables, fib, six, four, v4: [v4; PLACES], v6: [v6; PLACES] })
    }

    /// The tunnel of a packet with this outer header, if it is kept here.
    #[inline]
    pub(super) fn four(&mut self, h: &[u8; 20]) -> Option<Found<'t>> {
        let ends = u64::from_be_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]);
        let at = usize::from(h[15]) % PLACES;
        let place = &self.v4[at];
        if place.ends == ends && place.proto == h[9] {
            return place.found;
        }
        if place.proto != 0 {
            return None;
        }
        let found = self.search(Family::Inet, h[9], ends, &[0; 32]);
        self.v4[at] = Place { ends, proto: h[9], found };
        found
    }

    /// The same for IPv6.
    #[inline]
    pub(super) fn six(&mut self, h: &[u8; 40]) -> Option<Found<'t>> {
        let ends = h.last_chunk::<32>()?;
        let at = usize::from(ends[15]) % PLACES;
        let place = &self.v6[at];
        if place.ends == *ends && place.proto == h[6] {
            return place.found;
        }
        if place.proto != 0 {
            return None;
        }
        let found = self.search(Family::Inet6, h[6], 0, ends);
        self.v6[at] = Place { ends: *ends, proto: h[6], found };
        found
    }

    #[cold]
    fn search(&self, family: Family, proto: u8, v4: u64, v6: &[u8; 32]) -> Option<Found<'t>> {
        let peers = if proto == protocol::IPV6 { self.six } else { self.four }?;
        let (id, tunnel): (ObjectId, _) = match family {
            Family::Inet => (self.fib?.lookup4(Ipv4Addr::from_bits(v4 as u32)), peers.find_v4(v4)),
            Family::Inet6 => {
                let (src, dst) = (v6.first_chunk::<16>()?, v6.last_chunk::<16>()?);
                let (remote, local) = (Ipv6Addr::from(*src), Ipv6Addr::from(*dst));
                (self.fib?.lookup6(local), peers.find(IpAddr::V6(local), IpAddr::V6(remote)))
            }
        };
        matches!(self.tables.routing.objects.get(id)?, Object::Local).then_some(())?;
        Found::of(self.tables, tunnel?)
    }
}
