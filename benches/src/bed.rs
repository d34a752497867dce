//! A router in memory: port `in`, port `out` with 255 resolved gateways of each family, a 6in4 tunnel `t0`.

use crate::table::Table;
use crate::traffic;
use ipnet::IpNet;
use router_core::addr::MacAddr;
use router_core::counters::WorkerCounters;
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::{NeighborSettings, Settings};
use router_core::spec::{HopSpec, NeighSpec, RouteOp, RouteSpec, TunnelMode, TunnelSpec};
use router_core::time::Instant;
use router_core::worker::Outbox;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// MAC of port `in`.
pub const IN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// MAC of the host that sends.
pub const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// Outer addresses of the tunnel: ours, the peer's.
pub const TUNNEL: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 9)];

/// The router refused something that it should not.
#[derive(Debug, thiserror::Error)]
#[error("the router refused {what}: {why}")]
pub struct Refused {
    what: String,
    why: String,
}

pub(crate) fn refused<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Refused {
    move |why| Refused { what: what.to_string(), why: why.to_string() }
}

/// Where a table's routes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Gateways of the route's own family.
    Own,
    /// IPv6 gateways, whatever the route's family.
    Inet6,
    /// The tunnel.
    Tunnel,
}

/// See the module.
pub struct Bed {
    /// The router.
    pub router: Router,
    /// Its time, which stands still.
    pub now: Instant,
    out: Outbox,
}

impl Bed {
    /// A router with both ports, all gateways resolved, the tunnel up, and no route of its own but the one to the
    /// tunnel's peer.
    ///
    /// # Errors
    /// None in a router that works.
    pub fn new() -> Result<Self, Refused> {
        let now = Instant::from_millis(1);
        // No time passes here in which addresses could stop being tentative.
        let neighbor = NeighborSettings { dad_transmits: 0, ..NeighborSettings::default() };
        let settings = Settings { neighbor, ..Settings::default() };
        let router = Router::new(settings, 1, Arc::new(WorkerCounters::new(8)));
        let mut bed = Bed { router, now, out: Outbox::new(8, FramePool::new(16, 2048)) };
        bed.port("in", IN_MAC, &["192.0.2.1/24", "2001:db8::1/64"])?;
        let out = bed.port("out", MacAddr([2, 0, 0, 0, 1, 1]), &["100.64.0.1/16", "fd00::1/64"])?;
        for hop in 1..=255u8 {
            for v6 in [false, true] {
                bed.neighbor(out, "out", gateway(v6, hop), hop)?;
            }
        }
        bed.tunnel()?;
        bed.commit();
        Ok(bed)
    }

    /// Adds an Ethernet port that is up.
    ///
    /// # Errors
    /// See [`Router::add_port`].
    pub fn port(&mut self, name: &str, mac: MacAddr, addrs: &[&str]) -> Result<PortId, Refused> {
        let addrs: Result<Vec<IpNet>, _> = addrs.iter().map(|a| a.parse()).collect();
        let info = PortInfo {
            id: PortId::NONE,
            name: name.into(),
            ifindex: 0,
            kind: PortKind::Memory,
            medium: Medium::Ethernet,
            mac: Some(mac),
            mtu: 1500,
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs: addrs.map_err(refused(name))?,
        };
        self.router.add_port(self.now, info).map_err(refused(name))
    }

    /// Makes a neighbour known for good.
    ///
    /// # Errors
    /// See [`Router::set_neighbor`].
    pub fn neighbor(&mut self, port: PortId, dev: &str, addr: IpAddr, hop: u8) -> Result<(), Refused> {
        let lladdr = Some(MacAddr([2, 0, 0, 0, 2, hop]));
        let spec = NeighSpec { addr, dev: dev.into(), lladdr, state: None, router: true };
        self.router.set_neighbor(self.now, port, SetMode::Replace, &spec, &mut self.out).map_err(refused(addr))
    }

    /// Adds or replaces a route.
    ///
    /// # Errors
    /// See [`router_core::routing::Routing::route`].
    pub fn route(&mut self, spec: &RouteSpec) -> Result<(), Refused> {
        self.router.routing_mut().route(RouteOp::Replace, spec).map_err(refused(spec.dst))
    }

    /// Loads a table and commits it. A default route among it leads where the others do.
    ///
    /// # Errors
    /// See [`Bed::route`].
    pub fn load(&mut self, table: &Table, via: Via) -> Result<(), Refused> {
        for (dst, hop) in table {
            self.route(&route(*dst, *hop, via))?;
        }
        self.commit();
        Ok(())
    }

    /// Makes all changes visible.
    pub fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    fn tunnel(&mut self) -> Result<(), Refused> {
        let [_, remote] = TUNNEL;
        self.route(&route(IpNet::from(IpAddr::V4(remote)), 1, Via::Own))?;
        self.add_tunnel("t0".into(), remote).map(|_| ())
    }

    /// Adds a 6in4 tunnel from our end to that of a peer.
    ///
    /// # Errors
    /// See [`Router::add_tunnel`].
    pub fn add_tunnel(&mut self, name: String, remote: Ipv4Addr) -> Result<PortId, Refused> {
        self.add_spec(TunnelSpec::new(&name, TunnelMode::SixInFour, TUNNEL[0].into(), remote.into()))
    }

    /// Adds any tunnel.
    ///
    /// # Errors
    /// See [`Router::add_tunnel`].
    pub fn add_spec(&mut self, spec: TunnelSpec) -> Result<PortId, Refused> {
        self.router.add_tunnel(self.now, spec, vec![]).map_err(refused("the tunnel"))
    }
}

/// A route of a table as a command.
pub fn route(dst: IpNet, hop: u8, via: Via) -> RouteSpec {
    let v6 = via == Via::Inet6 || matches!(dst, IpNet::V6(_));
    let (via, dev) = match via {
        Via::Tunnel => (None, Some("t0".to_owned())),
        _ => (Some(gateway(v6, hop)), None),
    };
    let mut spec = RouteSpec::new(dst);
    spec.hops.push(HopSpec { via, dev, weight: 1, onlink: false });
    spec
}

/// Gateway number `hop` on port `out`: 100.64.2.hop or fd00::2:hop.
pub fn gateway(v6: bool, hop: u8) -> IpAddr {
    match v6 {
        true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 2, u16::from(hop))),
        false => IpAddr::V4(Ipv4Addr::new(100, 64, 2, hop)),
    }
}

/// Packets to receive on port `in`, one behind the other in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
    /// Bytes of each.
    len: usize,
    /// See [`Packets::compact`].
    differences: Option<Differences>,
}

/// Where packets differ from the first one, and every packet's bytes there.
#[derive(Clone, Debug)]
struct Differences {
    places: Vec<usize>,
    bytes: Vec<u8>,
}

impl Packets {
    /// UDP packets to these destinations, all of one family.
    pub fn udp(destinations: &[IpAddr]) -> Self {
        Self::collect(destinations, |d| traffic::udp(d, HOST_MAC.0, IN_MAC.0))
    }

    /// 6in4 packets from the tunnel's peer that hold UDP packets to these IPv6 destinations.
    pub fn in_tunnel(destinations: &[IpAddr]) -> Self {
        Self::from_peers(destinations, |_| TUNNEL[1])
    }

    /// As [`Packets::in_tunnel`], number `i` from the peer that `peer(i)` names.
    pub fn from_peers(destinations: &[IpAddr], peer: impl Fn(usize) -> Ipv4Addr) -> Self {
        let mut i = 0;
        Self::collect(destinations, |d| {
            let inner = traffic::udp(d, HOST_MAC.0, IN_MAC.0);
            let mut outer = traffic::udp(IpAddr::V4(TUNNEL[0]), HOST_MAC.0, IN_MAC.0);
            outer.truncate(34);
            outer.extend(&inner[14..]);
            let len = (outer.len() - 14) as u16;
            outer[16..18].copy_from_slice(&len.to_be_bytes());
            outer[23] = 41;
            outer[26..30].copy_from_slice(&peer(i).octets());
            i += 1;
            router_core::checksum::fill_ipv4_header(&mut outer[14..]);
            outer
        })
    }

    /// One packet, again and again.
    pub fn one(packet: Vec<u8>) -> Self {
        Packets { len: packet.len(), bytes: packet, differences: None }
    }

    fn collect(destinations: &[IpAddr], mut make: impl FnMut(IpAddr) -> Vec<u8>) -> Self {
        let mut packets = Packets::default();
        for d in destinations {
            let packet = make(*d);
            packets.len = packet.len();
            packets.bytes.extend(packet);
        }
        packets
    }

    /// The same packets, of which only the first is kept whole, and of the others the bytes that differ: hundreds of thousands
    /// of packets would take as much of the caches as the tables that they are to be compared by.
    pub fn compact(self) -> Self {
        let Some(first) = self.bytes.get(..self.len).filter(|_| self.differences.is_none()) else { return self };
        let differs = |at: &usize| self.bytes.iter().skip(*at).step_by(self.len).any(|b| *b != first[*at]);
        let places: Vec<usize> = (0..self.len).filter(differs).collect();
        let bytes = self.bytes.chunks(self.len).flat_map(|p| places.iter().map(|at| p[*at])).collect();
        Packets { bytes: first.to_vec(), len: self.len, differences: Some(Differences { places, bytes }) }
    }

    /// Writes packet number `i` into a frame.
    pub fn write(&self, i: usize, frame: &mut Frame) {
        let Some(Differences { places, bytes }) = &self.differences else {
            frame.set_data(self.get(i));
            return;
        };
        frame.set_data(&self.bytes);
        let data = frame.data_mut();
        for (at, byte) in places.iter().zip(bytes.get(i * places.len()..).unwrap_or_default()) {
            data[*at] = *byte;
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match &self.differences {
            Some(Differences { places, bytes }) => bytes.len().checked_div(places.len()).unwrap_or(1),
            None => self.bytes.len().checked_div(self.len).unwrap_or(0),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Packet number `i` of those that are kept whole; empty beyond the last.
    pub fn get(&self, i: usize) -> &[u8] {
        self.bytes.get(i * self.len..(i + 1) * self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_packets_are_the_same_packets() {
        let peers: Vec<IpAddr> =
            (0..300u32).map(|i| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(i)).into()).collect();
        for packets in [
            Packets::udp(&peers),
            Packets::udp(&peers[..1]),
            Packets::from_peers(&peers, |i| Ipv4Addr::from_bits(0x1400_0000 + i as u32)),
        ] {
            let compact = packets.clone().compact();
            assert_eq!(compact.len(), packets.len());
            let mut frame = Frame::with_capacity(2048);
            for i in 0..packets.len() {
                compact.write(i, &mut frame);
                assert_eq!(frame.data(), packets.get(i), "{i}");
            }
            assert!(packets.len() == 1 || compact.bytes.len() < packets.bytes.len());
        }
    }
}
