//! What operators say about a translator, and which of it is refused.

use super::map::{Eam, EamError, EamTable};
use super::nat64::PoolRange;
use super::prefix::Prefix;
use crate::port::TableId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// The kinds of translators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TranslateMode {
    /// Stateless, one address for one address (RFC 7915).
    Siit,
    /// The customer side of 464XLAT (RFC 6877): mapped addresses are its own hosts, the prefix is the IPv4 Internet.
    Clat,
    /// Stateful: many IPv6 hosts share IPv4 addresses (RFC 6146).
    Nat64,
}

impl std::fmt::Display for TranslateMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TranslateMode::Siit => "siit",
            TranslateMode::Clat => "clat",
            TranslateMode::Nat64 => "nat64",
        })
    }
}

/// Who may send to a mapped IPv4 transport address (RFC 6146 3.5, RFC 4787 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Filtering {
    /// Everybody.
    #[default]
    #[serde(rename = "endpoint-independent")]
    EndpointIndependent,
    /// Only addresses to which the IPv6 host has sent.
    #[serde(rename = "address-dependent")]
    AddressDependent,
}

/// What becomes of a whole UDP packet without checksum on its way to IPv6 (RFC 7915 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdpZero {
    /// It gets one.
    #[default]
    Compute,
    /// It is dropped.
    Drop,
}

/// Lifetimes of NAT64 sessions in seconds (RFC 6146 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// UDP_DEFAULT; at least UDP_MIN, two minutes (RFC 4787 REQ-5).
    pub udp: u32,
    /// TCP_EST: an open connection; at least two hours four minutes (RFC 5382 REQ-5).
    pub tcp_established: u32,
    /// TCP_TRANS: one that is being opened or closed.
    pub tcp_transitory: u32,
    /// TCP_INCOMING_SYN: an opening from the IPv4 side that waits for the IPv6 host.
    pub tcp_incoming_syn: u32,
    /// ICMP_DEFAULT: at least a minute (RFC 5508 REQ-2).
    pub icmp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { udp: 300, tcp_established: 7440, tcp_transitory: 240, tcp_incoming_syn: 6, icmp: 60 }
    }
}

/// A translator as written or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatorSpec {
    /// Its name: a port name; routes lead to it with `dev NAME`.
    pub name: String,
    /// Its kind.
    pub mode: TranslateMode,
    /// The prefix by which IPv6 hosts see IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Explicit pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map: Vec<Eam>,
    /// IPv4 addresses and ports that NAT64 hands out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<PoolRange>,
    /// The table in which translated packets are looked up.
    #[serde(default)]
    pub table: TableId,
    /// The least IPv6 MTU of the network, 1280 unless known to be more (RFC 7915 4): longer packets without DF are cut.
    #[serde(default = "least_mtu")]
    pub ipv6_mtu: u32,
    /// Sources of ICMP errors whose sender has no counterpart (RFC 6791): IPv4 addresses, and at most one IPv6 address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_source: Vec<IpAddr>,
    /// Let the well-known prefix represent IPv4 addresses that are not global, against RFC 6052 3.1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_non_global: bool,
    /// Set the traffic class to zero instead of copying it (RFC 7915 4.1, 5.1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_tos: bool,
    /// UDP without checksum.
    #[serde(default)]
    pub udp_zero_checksum: UdpZero,
    /// NAT64: who may send in.
    #[serde(default)]
    pub filtering: Filtering,
    /// NAT64: lifetimes.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// NAT64: sessions at most.
    #[serde(default = "sessions")]
    pub max_sessions: u32,
    /// NAT64: sessions of one IPv6 host at most (RFC 6888 REQ-4).
    #[serde(default = "sessions_per_host")]
    pub max_sessions_per_host: u32,
}

fn least_mtu() -> u32 {
    1280
}

fn sessions() -> u32 {
    65_536
}

fn sessions_per_host() -> u32 {
    8192
}

/// Sessions that one translator can have at most.
pub const MAX_SESSIONS: u32 = 4_194_304;
/// IPv4 addresses of one pool at most.
pub const MAX_POOL: u64 = 1024;

/// Why a translator was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslatorError {
    /// About its port.
    #[error(transparent)]
    Port(#[from] crate::router::PortError),
    /// Not there.
    #[error("Cannot find translator \"{0}\"")]
    Unknown(String),
    /// About a pair.
    #[error(transparent)]
    Map(#[from] EamError),
    /// Something is missing.
    #[error("translator \"{name}\" of mode {mode} needs {what}")]
    Needs {
        /// The translator.
        name: String,
        /// Its mode.
        mode: TranslateMode,
        /// What is missing.
        what: &'static str,
    },
    /// Something does not belong there.
    #[error("translator \"{name}\" of mode {mode} has no use for {what}")]
    Useless {
        /// The translator.
        name: String,
        /// Its mode.
        mode: TranslateMode,
        /// What is too much.
        what: &'static str,
    },
    /// ::ffff:0:0/96 without the operator's explicit word.
    #[error(
        "::ffff:0:0/96 means IPv4 addresses inside one machine and must not be on a wire: as a translation prefix it is \
         refused unless mapped_ports names the ports of a closed network"
    )]
    Mapped,
    /// A number out of range.
    #[error("{what} of translator \"{name}\" is {value}, allowed are {min} to {max}")]
    Range {
        /// The translator.
        name: String,
        /// Which number.
        what: &'static str,
        /// As written.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Pool addresses overlap or are none.
    #[error("pool of translator \"{name}\": {why}")]
    Pool {
        /// The translator.
        name: String,
        /// Which and why.
        why: String,
    },
    /// RFC 6791 sources.
    #[error("error_source of translator \"{name}\": {addr} cannot be the source of ICMP errors")]
    ErrorSource {
        /// The translator.
        name: String,
        /// The address.
        addr: IpAddr,
    },
}

impl TranslatorSpec {
    /// A translator without anything but its name and mode, to be filled in.
    pub fn new(name: &str, mode: TranslateMode) -> Self {
        TranslatorSpec {
            name: name.to_owned(),
            mode,
            prefix: None,
            map: Vec::new(),
            pool: Vec::new(),
            table: TableId::MAIN,
            ipv6_mtu: least_mtu(),
            error_source: Vec::new(),
            allow_non_global: false,
            ignore_tos: false,
            udp_zero_checksum: UdpZero::default(),
            filtering: Filtering::default(),
            timeouts: Timeouts::default(),
            max_sessions: sessions(),
            max_sessions_per_host: sessions_per_host(),
        }
    }

    /// Checks what can be checked without a router. `closed` says whether the operator has named the ports of a closed
    /// network, in which ::ffff:0:0/96 may be on the wire.
    pub fn check(&self, closed: bool) -> Result<(), TranslatorError> {
        let needs = |what| Err(TranslatorError::Needs { name: self.name.clone(), mode: self.mode, what });
        let useless = |what| Err(TranslatorError::Useless { name: self.name.clone(), mode: self.mode, what });
        if self.prefix.is_some_and(|p| p.is_mapped()) && !closed {
            return Err(TranslatorError::Mapped);
        }
        EamTable::new(&self.map)?;
        match self.mode {
            TranslateMode::Siit if self.prefix.is_none() && self.map.is_empty() => return needs("a prefix or a map"),
            TranslateMode::Clat if self.prefix.is_none() => return needs("the prefix of the network's NAT64"),
            TranslateMode::Clat if self.map.is_empty() => {
                return needs("a map of its own IPv4 address to an IPv6 address");
            }
            TranslateMode::Nat64 if self.prefix.is_none() => return needs("a prefix"),
            TranslateMode::Nat64 if self.pool.is_empty() => return needs("a pool of IPv4 addresses"),
            TranslateMode::Nat64 if !self.map.is_empty() => return useless("a map"),
            TranslateMode::Siit | TranslateMode::Clat if !self.pool.is_empty() => return useless("a pool"),
            _ => {}
        }
        self.check_numbers()?;
        self.check_pool()?;
        let mut v6 = 0;
        for addr in &self.error_source {
            let good = match addr {
                IpAddr::V4(a) => !(a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.octets()[0] >= 240),
                IpAddr::V6(a) => {
                    v6 += 1;
                    v6 == 1 && !(a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.is_unicast_link_local())
                }
            };
            if !good {
                return Err(TranslatorError::ErrorSource { name: self.name.clone(), addr: *addr });
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), TranslatorError> {
        let t = &self.timeouts;
        let most = 7 * 86_400;
        for (what, value, min, max) in [
            ("ipv6_mtu", self.ipv6_mtu, 1280, 65_535),
            ("max_sessions", self.max_sessions, 1, MAX_SESSIONS),
            ("max_sessions_per_host", self.max_sessions_per_host, 1, MAX_SESSIONS),
            // RFC 6146 4: the minima of UDP_MIN, TCP_EST, TCP_TRANS and ICMP_DEFAULT.
            ("udp timeout", t.udp, 120, most),
            ("tcp_established timeout", t.tcp_established, 7440, most),
            ("tcp_transitory timeout", t.tcp_transitory, 240, most),
            ("tcp_incoming_syn timeout", t.tcp_incoming_syn, 6, 240),
            ("icmp timeout", t.icmp, 60, most),
        ] {
            if !(min..=max).contains(&value) {
                let (value, min, max) = (value.into(), min.into(), max.into());
                return Err(TranslatorError::Range { name: self.name.clone(), what, value, min, max });
            }
        }
        Ok(())
    }

    fn check_pool(&self) -> Result<(), TranslatorError> {
        let wrong = |why: String| Err(TranslatorError::Pool { name: self.name.clone(), why });
        let total: u64 = self.pool.iter().map(PoolRange::addresses).sum();
        if total > MAX_POOL {
            return wrong(format!("{total} addresses, at most {MAX_POOL} are possible"));
        }
        let mut seen: BTreeSet<Ipv4Addr> = BTreeSet::new();
        for range in &self.pool {
            for a in range.iter() {
                let first = a.octets()[0];
                if first == 0 || first == 127 || first >= 224 || a.is_link_local() {
                    return wrong(format!("{a} is not a unicast address"));
                }
                if !seen.insert(a) {
                    return wrong(format!("{a} is there twice"));
                }
            }
        }
        Ok(())
    }
}
