//! What an RFC leaves to the operator: timers, limits, queue lengths, with sane defaults. Every field is a key of the
//! configuration file.

pub use crate::advert::{AdvertError, AdvertSettings, Preference, PrefixSettings};
pub use crate::headers::option_policy::{OptionAction, OptionPolicy};
pub use crate::irdp::{IrdpError, IrdpSettings};
use crate::time::Duration;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Settings of the whole router. Published to workers as part of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Source of ICMPv4 errors before all others (RFC 1812 4.3.2.4 leaves the choice).
    pub router_id: Option<Ipv4Addr>,
    /// ICMP errors and echo replies.
    pub icmp: IcmpSettings,
    /// ARP and NDP.
    pub neighbor: NeighborSettings,
    /// Most tunnels that one packet may enter or leave inside this router; a translation counts as one.
    pub max_tunnel_nesting: u8,
    /// Addresses that are martians by default and need not be.
    pub martians: MartianSettings,
    /// Ports and tunnels of a closed network whose IPv6 packets may carry IPv4-mapped addresses (::ffff:0:0/96, as RFC 2765
    /// did). Everywhere else they are dropped, coming or going.
    pub mapped_ports: Vec<String>,
    /// What is done with packets because of their IPv4 options (RFC 7126).
    pub ipv4_options: OptionPolicy,
    /// Router advertisements, by name of the port.
    pub adverts: BTreeMap<String, AdvertSettings>,
    /// ICMP router discovery, by name of the port.
    pub irdp: BTreeMap<String, IrdpSettings>,
}

/// Blocks that RFC 1122 3.2.1.3 and RFC 6890 reserve and that some networks use all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MartianSettings {
    /// Forward 0.0.0.0/8, but for 0.0.0.0 itself.
    pub allow_net_zero: bool,
    /// Forward 240.0.0.0/4, but for 255.255.255.255.
    pub allow_class_e: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            router_id: None,
            icmp: IcmpSettings::default(),
            neighbor: NeighborSettings::default(),
            max_tunnel_nesting: 4,
            martians: MartianSettings::default(),
            mapped_ports: Vec::new(),
            ipv4_options: OptionPolicy::default(),
            adverts: BTreeMap::new(),
            irdp: BTreeMap::new(),
        }
    }
}

/// ICMP generation (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
#[derive(Clone, Debug, PartialEq)]
pub struct IcmpSettings {
    /// Errors per second and worker.
    pub error_rate: u32,
    /// Errors in one burst per worker.
    pub error_burst: u32,
    /// Errors per second to one destination (an IPv4 address, an IPv6 /64), per worker.
    pub peer_rate: u32,
    /// Errors in one burst to one destination, per worker.
    pub peer_burst: u32,
    /// Echo replies per second and worker.
    pub echo_rate: u32,
    /// Echo replies in one burst per worker.
    pub echo_burst: u32,
    /// TTL and hop limit of errors, echo replies, TCP resets and echo requests (RFC 1122 3.2.1.7, RFC 1812 4.2.2.9); at least 1.
    pub ttl: u8,
    /// Source of ICMPv4 errors when the router has no IPv4 address at all (RFC 7600 5.4: 192.0.0.8).
    pub dummy_source: IpAddr,
    /// Tell hosts of a better first hop on their link (RFC 1812 5.2.7.2, RFC 4861 8.2).
    pub redirects: bool,
    /// Tell in errors through which port the packet came (RFC 5837).
    pub interface_info: bool,
    /// Tell in errors which node this is; None tells nothing, as draft-ietf-intarea-extended-icmp-nodeid 4 wants by default.
    pub node: Option<NodeIdentity>,
    /// Whom both is told; empty for everybody (draft-ietf-intarea-extended-icmp-nodeid 4).
    pub info_to: Vec<IpNet>,
}

/// How a router identifies itself in ICMP errors (draft-ietf-intarea-extended-icmp-nodeid 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name; cut to 63 bytes. Empty for none.
    pub name: String,
    /// An address that is its own alone.
    pub addr: Option<IpAddr>,
}

impl Default for IcmpSettings {
    fn default() -> Self {
        IcmpSettings {
            error_rate: 1000,
            error_burst: 100,
            peer_rate: 200,
            peer_burst: 60,
            echo_rate: 10_000,
            echo_burst: 1000,
            ttl: crate::icmp::TTL,
            dummy_source: IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
            redirects: true,
            interface_info: false,
            node: None,
            info_to: Vec::new(),
        }
    }
}

/// Neighbour unreachability detection (names and defaults of RFC 4861 10).
#[derive(Clone, Debug, PartialEq)]
pub struct NeighborSettings {
    /// ReachableTime base; the real one is drawn between 0.5 and 1.5 times this.
    pub reachable_time: Duration,
    /// RetransTimer: between solicitations.
    pub retrans_timer: Duration,
    /// DELAY_FIRST_PROBE_TIME.
    pub delay_first_probe: Duration,
    /// MAX_MULTICAST_SOLICIT.
    pub max_multicast_solicit: u8,
    /// MAX_UNICAST_SOLICIT.
    pub max_unicast_solicit: u8,
    /// Packets held per neighbour while it is being resolved; the oldest goes first (RFC 4861 7.2.2).
    pub max_pending: usize,
    /// Packets held for all neighbours together.
    pub max_pending_total: usize,
    /// Neighbours in the cache; beyond it, the longest unused dynamic one goes (RFC 6583 7).
    pub max_entries: usize,
    /// Neighbours in INCOMPLETE at once; beyond it new ones are refused, known ones are not hurt (RFC 6583 7.1).
    pub max_incomplete: usize,
    /// How long a FAILED entry answers at once with unreachable before it is tried again.
    pub failed_hold: Duration,
    /// Unused STALE entries are removed after this.
    pub stale_lifetime: Duration,
    /// DupAddrDetectTransmits (RFC 4862 5.1): probes for an own IPv6 address before it is used; 0 for none.
    pub dad_transmits: u8,
    /// Gratuitous ARP packets (RFC 5227 2.3) and unsolicited advertisements (RFC 4861 7.2.6) about an own address.
    pub announcements: u8,
    /// Probe own IPv4 addresses before they are used (RFC 5227 2.1), on ports for which `acd_ports` says nothing else.
    pub acd: bool,
    /// The same for single ports, by name.
    pub acd_ports: BTreeMap<String, bool>,
    /// What becomes of an own IPv4 address in use that somebody else uses, too (RFC 5227 2.4).
    pub acd_conflict: OnConflict,
    /// Tell switches and multicast routers of each link which IPv6 groups the router is in (RFC 3810).
    pub mld: bool,
    /// For whom else the router answers ARP and NDP (RFC 1027, RFC 4861 7.2.8).
    pub proxy: Vec<Proxy>,
}

/// What is done about an own IPv4 address that somebody else on the link uses, too, once it is in use here (RFC 5227 2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// It is announced again, at most once in ten seconds, and kept (c): others rely on a router's address.
    #[default]
    Defend,
    /// It is announced again; a second conflict within ten seconds and it is given up (b).
    Yield,
    /// It is given up at once (a).
    Release,
}

/// Addresses for which the router answers on a port as if they were there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The port's name.
    pub port: String,
    /// The addresses.
    pub net: IpNet,
}

impl NeighborSettings {
    /// Whether own IPv4 addresses of a port are probed before they are used.
    pub fn probes_ipv4(&self, port: &str) -> bool {
        self.acd_ports.get(port).copied().unwrap_or(self.acd)
    }

    /// Whether the router answers on a port for an address that is not its own.
    pub fn is_proxied(&self, port: &str, addr: &IpAddr) -> bool {
        self.proxy.iter().any(|p| p.port == port && p.net.contains(addr))
    }
}

impl Default for NeighborSettings {
    fn default() -> Self {
        NeighborSettings {
            reachable_time: Duration::from_secs(30),
            retrans_timer: Duration::from_secs(1),
            delay_first_probe: Duration::from_secs(5),
            max_multicast_solicit: 3,
            max_unicast_solicit: 3,
            max_pending: 16,
            max_pending_total: 4096,
            max_entries: 8192,
            max_incomplete: 1024,
            failed_hold: Duration::from_secs(3),
            stale_lifetime: Duration::from_secs(600),
            dad_transmits: 1,
            announcements: 2,
            acd: false,
            acd_ports: BTreeMap::new(),
            acd_conflict: OnConflict::default(),
            mld: true,
            proxy: Vec::new(),
        }
    }
}
