//! Ports as the core knows them: names, addresses, limits. How packets really enter and leave is router-io's business.

use crate::addr::{Family, MacAddr};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A routing table's number, as in iproute2: 254 is `main`, 255 `local`, 253 `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl Default for TableId {
    fn default() -> Self {
        TableId::MAIN
    }
}

impl TableId {
    /// Table `main`.
    pub const MAIN: TableId = TableId(254);
    /// Table `local`.
    pub const LOCAL: TableId = TableId(255);
    /// Table `default`.
    pub const DEFAULT: TableId = TableId(253);
    /// From here on numbers are the router's own: routes of a table for some sources only are kept under them.
    const INTERNAL: u32 = 0xfff0_0000;

    /// Whether the number is one that no operator can give.
    pub fn is_internal(self) -> bool {
        self.0 >= Self::INTERNAL
    }
}

/// A port's or tunnel's index: small, reused after removal, the same in every snapshot that holds the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

impl PortId {
    /// No port: a packet that the router made itself.
    pub const NONE: PortId = PortId(u32::MAX);

    /// As an index into lists by port.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Ports that have queues have indexes below this; tunnels, which have none, may have higher ones.
pub const MAX_QUEUES: u32 = 16_384;

impl Default for PortId {
    fn default() -> Self {
        PortId::NONE
    }
}

/// What a port's frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// Ethernet frames; needs ARP and NDP.
    Ethernet,
    /// Bare IPv4 and IPv6 packets (TUN, raw IP sockets, tunnels).
    Ip,
}

/// How a port moves packets. The text is the `kind` key of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A TUN device: packets of the host's own stack.
    Tun,
    /// A TAP device: the same in Ethernet frames.
    Tap,
    /// AF_PACKET on a network device.
    Packet,
    /// AF_XDP on a network device.
    Xdp,
    /// The fastest way that the device and the process's privileges allow; an open port is of that kind instead.
    Auto,
    /// libpnet's portable datalink channel on a network device.
    Datalink,
    /// Raw IP sockets over the host's own stack: carries tunnels.
    RawIp,
    /// UDP sockets over the host's own stack: carries tunnels in UDP.
    Udp,
    /// WireGuard over a UDP socket of the host.
    Wireguard,
    /// Channels inside this process.
    Memory,
    /// A capture file in, a capture file out.
    Pcap,
    /// A tunnel: a virtual port.
    Tunnel,
    /// A translator between IPv4 and IPv6: a virtual port, too.
    Translator,
    /// The loopback of the router: never carries packets, holds addresses.
    Loopback,
    /// The device of a VRF: stands for its table, and holds addresses of its own.
    Vrf,
}

impl PortKind {
    /// Whether what comes in is for us, whatever its destination: the host's stack took it for one of its addresses.
    #[inline]
    pub fn over_host(self) -> bool {
        matches!(self, PortKind::RawIp | PortKind::Udp)
    }

    /// Whether the port makes its device itself, which the host's stack sees from the other side.
    pub fn makes_device(self) -> bool {
        matches!(self, PortKind::Tun | PortKind::Tap)
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PortKind::Tun => "tun",
            PortKind::Tap => "tap",
            PortKind::Packet => "packet",
            PortKind::Xdp => "xdp",
            PortKind::Auto => "auto",
            PortKind::Datalink => "datalink",
            PortKind::RawIp => "rawip",
            PortKind::Udp => "udp",
            PortKind::Wireguard => "wireguard",
            PortKind::Memory => "memory",
            PortKind::Pcap => "pcap",
            PortKind::Tunnel => "tunnel",
            PortKind::Translator => "translator",
            PortKind::Loopback => "loopback",
            PortKind::Vrf => "vrf",
        })
    }
}

/// What a port can take at egress. Whatever it cannot, the core does before handing the frame over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCaps {
    /// Takes frames with a checksum still to be computed.
    pub partial_checksum: bool,
    /// Takes TCP super-frames.
    pub tso: bool,
    /// Takes UDP super-frames.
    pub uso: bool,
    /// Takes TCP super-frames that lie in one plain IP tunnel: an IP header without options around the packet.
    pub tunnels: bool,
}

/// Everything the data plane needs to know about a port or tunnel. Immutable once published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its index.
    pub id: PortId,
    /// Its name, unique among ports and tunnels (at most 15 bytes, as a Linux interface name).
    pub name: String,
    /// The index shown to users (`1: lo`, `2: lan0`), as an ifindex: 1 and up, never reused in one run.
    pub ifindex: u32,
    /// How it moves packets.
    pub kind: PortKind,
    /// What its frames look like.
    pub medium: Medium,
    /// Its link-layer address; None on [`Medium::Ip`].
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes (not counting link headers).
    pub mtu: u32,
    /// VLAN id that it sends and accepts; None for untagged.
    pub vlan: Option<u16>,
    /// The table in which packets that enter here are looked up.
    pub table: TableId,
    /// Administratively up and carrier present.
    pub up: bool,
    /// Administratively up (shown in flags; `up` also needs carrier).
    pub admin_up: bool,
    /// What it takes at egress.
    pub caps: PortCaps,
    /// Its own addresses with the length of their link prefix. Includes the link-local one, if it has one.
    pub addrs: Vec<IpNet>,
}

impl PortInfo {
    /// Its first link-local IPv6 address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addrs.iter().find_map(|a| match a.addr() {
            IpAddr::V6(a) if a.is_unicast_link_local() => Some(a),
            _ => None,
        })
    }

    /// Its first address of a family that is not link-local.
    pub fn global_addr(&self, family: Family) -> Option<IpAddr> {
        self.addrs.iter().map(|a| a.addr()).find(|a| match a {
            IpAddr::V4(a) => family == Family::Inet && !a.is_link_local(),
            IpAddr::V6(a) => family == Family::Inet6 && !a.is_unicast_link_local(),
        })
    }

    /// Whether `addr` lies in one of its link prefixes.
    pub fn on_link(&self, addr: &IpAddr) -> bool {
        self.addrs.iter().any(|n| n.contains(addr))
    }

    /// Whether `addr` is one of its own.
    pub fn owns(&self, addr: &IpAddr) -> bool {
        self.addrs.iter().any(|n| n.addr() == *addr)
    }

    /// Whether `addr` is that of all routers of one of its subnets (RFC 4291 2.6.1), and not its own alone.
    pub fn is_anycast(&self, addr: &IpAddr) -> bool {
        let anycast = |n: &IpNet| matches!(n, IpNet::V6(n) if subnet_router_anycast(n).map(IpAddr::V6) == Some(*addr));
        self.addrs.iter().any(anycast) && !self.owns(addr)
    }
}

/// The address of all routers of a subnet: its prefix, followed by zeros (RFC 4291 2.6.1). None where the prefix leaves no
/// room for it: links between two routers have prefixes of 127 bits and no such address (RFC 6164 5).
pub fn subnet_router_anycast(net: &ipnet::Ipv6Net) -> Option<Ipv6Addr> {
    let addr = net.network();
    (net.prefix_len() < 127 && !addr.is_unspecified()).then_some(addr)
}
