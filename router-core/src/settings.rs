//! What an RFC leaves to the operator: timers, limits, queue lengths, with sane defaults. Every field is a key of the
//! configuration file.

use crate::time::Duration;
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
    /// Ports and tunnels of a closed network whose IPv6 packets may carry IPv4-mapped addresses (::ffff:0:0/96, as RFC 2765
    /// did). Everywhere else they are dropped, coming or going.
    pub mapped_ports: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            router_id: None,
            icmp: IcmpSettings::default(),
            neighbor: NeighborSettings::default(),
            max_tunnel_nesting: 4,
            mapped_ports: Vec::new(),
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
    /// Echo replies per second and worker.
    pub echo_rate: u32,
    /// Echo replies in one burst per worker.
    pub echo_burst: u32,
    /// Source of ICMPv4 errors when the router has no IPv4 address at all (RFC 7600 5.4: 192.0.0.8).
    pub dummy_source: IpAddr,
}

impl Default for IcmpSettings {
    fn default() -> Self {
        IcmpSettings {
            error_rate: 1000,
            error_burst: 100,
            echo_rate: 10_000,
            echo_burst: 1000,
            dummy_source: IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
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
        }
    }
}
