//! A tunnel as written or shown.

use crate::port::TableId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// Tunnel modes; [`TunnelMode::shape`] says what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TunnelMode {
    /// IPv6 in IPv4, protocol 41 (RFC 4213). iproute2: `sit`.
    #[serde(rename = "6in4", alias = "sit", alias = "ipv6/ip")]
    SixInFour,
    /// IPv4 in IPv6 (RFC 2473). iproute2: `ipip6`.
    #[serde(rename = "4in6")]
    FourInSix,
    /// IPv6 in IPv6 (RFC 2473). iproute2: `ip6ip6`.
    #[serde(rename = "6in6")]
    SixInSix,
    /// Either in IPv6. iproute2: `any` of `ip -6 tunnel`.
    #[serde(rename = "any-in-6")]
    AnyInSix,
    /// IPv4 in IPv4 (RFC 2003). iproute2: `ipip`.
    #[serde(rename = "4in4")]
    FourInFour,
    /// Either in IPv4. iproute2: `any`.
    #[serde(rename = "any-in-4")]
    AnyInFour,
    /// GRE over IPv4 (RFC 2784).
    #[serde(rename = "gre")]
    Gre,
    /// GRE over IPv6 (RFC 7676). iproute2: `ip6gre`.
    #[serde(rename = "gre6")]
    GreSix,
    /// 6rd (RFC 5969).
    #[serde(rename = "6rd")]
    SixRd,
    /// 6to4 (RFC 3056, RFC 7526).
    #[serde(rename = "6to4")]
    SixToFour,
}

/// A tunnel as written or shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSpec {
    /// Its name: a port name.
    pub name: String,
    /// Its mode.
    pub mode: TunnelMode,
    /// Outer source.
    pub local: IpAddr,
    /// Outer destination, the only peer from which packets are accepted. Unspecified where the peer is part of the inner
    /// address.
    pub remote: IpAddr,
    /// Outer TTL; None means 64 (RFC 4213 3.3: a fixed value, never the inner one by default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Copy the inner TTL to the outer header (`ttl inherit`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ttl_inherit: bool,
    /// Fixed outer DSCP and ECN byte; None copies DSCP and treats ECN by RFC 6040 (`tos inherit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Leave DF clear on outer packets (`nopmtudisc`), but for those of IPv4 packets that have it set; RFC 4213 3.2.1's static
    /// MTU of 1280.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nopmtudisc: bool,
    /// Inner MTU; None: the carrying port's less what is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Carry outer packets through this port (a `rawip` port, or any other) instead of by routing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Table of the outer lookup; None is main.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_table: Option<TableId>,
    /// What only some tunnels have.
    #[serde(flatten)]
    pub options: TunnelOptions,
}

impl TunnelSpec {
    /// A tunnel with the defaults.
    pub fn new(name: &str, mode: TunnelMode, local: IpAddr, remote: IpAddr) -> Self {
        TunnelSpec {
            name: name.to_owned(),
            mode,
            local,
            remote,
            ttl: None,
            ttl_inherit: false,
            tos: None,
            nopmtudisc: false,
            mtu: None,
            dev: None,
            underlay_table: None,
            options: TunnelOptions::default(),
        }
    }

    /// Bytes that the tunnel adds to a packet.
    pub fn overhead(&self) -> u32 {
        let shape = self.mode.shape();
        let o = &self.options;
        let limit = if o.has_limit(shape.outer) { super::limit::LEN } else { 0 };
        let gre = if shape.between == super::mode::Between::Gre { o.gre.sent_len() } else { 0 };
        shape.header() + limit + gre + o.udp.map_or(0, |u| u.kind.added())
    }
}

/// The flow label of outer IPv6 headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowLabel {
    /// A hash of the inner flow (RFC 6438 3).
    #[default]
    Auto,
    /// Copied from an inner IPv6 packet; zero for IPv4.
    Inherit,
    /// This one.
    Fixed(u32),
}

/// What only some tunnels have. The default is a tunnel without any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelOptions {
    /// Inner sources that may come out, nothing else does; empty: any that may be one at all (RFC 4213 3.6, BCP 38).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<IpNet>,
    /// Tunnels in IPv6: how many tunnels may still be added around these packets (RFC 2473 4.1.1). None: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encaplimit: Option<u8>,
    /// Tunnels in IPv6: the outer flow label.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flowlabel: FlowLabel,
    /// GRE's fields.
    #[serde(flatten)]
    pub gre: GreOptions,
    /// The same payload in UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpOptions>,
    /// The bare protocol where it passes, `udp` where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoOptions>,
    /// What is in UDP leaves by this port; None: by `dev` like all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap_dev: Option<String>,
    /// 6rd's and 6to4's mapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sixrd: Option<SixRdOptions>,
    /// Tunnels of IPv4 in IPv4 without path MTU discovery: the inner DF is not repeated outside, against RFC 2003 3.1, so
    /// that packets of any length get through in fragments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_df: bool,
    /// 6to4 is wanted although it is deprecated (RFC 7526).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_6to4: bool,
    /// Packets per second that are taken from the peer; None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Whether the peer lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Keepalive>,
    /// The local end is the address of this device of the host, or of this port, whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_dev: Option<String>,
    /// The remote end is the address of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<String>,
}

impl TunnelOptions {
    /// Takes over everything that `said` says: what is not there stays.
    pub fn merge(&mut self, said: &TunnelOptions) {
        fn take<T: Default + PartialEq + Clone>(to: &mut T, from: &T) {
            if *from != T::default() {
                to.clone_from(from);
            }
        }
        take(&mut self.allowed, &said.allowed);
        take(&mut self.encaplimit, &said.encaplimit);
        take(&mut self.flowlabel, &said.flowlabel);
        take(&mut self.gre, &said.gre);
        take(&mut self.udp, &said.udp);
        take(&mut self.auto, &said.auto);
        take(&mut self.encap_dev, &said.encap_dev);
        take(&mut self.sixrd, &said.sixrd);
        take(&mut self.rate, &said.rate);
        take(&mut self.keepalive, &said.keepalive);
        take(&mut self.local_dev, &said.local_dev);
        take(&mut self.remote_name, &said.remote_name);
        self.allow_6to4 |= said.allow_6to4;
    }

    /// Whether outer packets carry an encapsulation limit.
    pub fn has_limit(&self, outer: crate::addr::Family) -> bool {
        outer == crate::addr::Family::Inet6 && self.encaplimit.is_some() && self.udp.is_none()
    }
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// GRE's optional fields (RFC 2784, RFC 2890).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GreOptions {
    /// Key that received packets must have; None: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ikey: Option<u32>,
    /// Key that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub okey: Option<u32>,
    /// Received packets must have sequence numbers that grow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub iseq: bool,
    /// Sequence numbers are sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oseq: bool,
    /// Received packets must have a checksum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub icsum: bool,
    /// Checksums are sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ocsum: bool,
    /// GRE keepalives of the peer are sent back.
    #[serde(default, rename = "gre_keepalive_answer", skip_serializing_if = "std::ops::Not::not")]
    pub answer: bool,
}

impl GreOptions {
    /// Bytes of the header that is sent.
    pub fn sent_len(&self) -> u32 {
        4 + 4 * (u32::from(self.okey.is_some()) + u32::from(self.oseq) + u32::from(self.ocsum))
    }
}

/// The formats of tunnels in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdpKind {
    /// Foo over UDP: the payload follows the UDP header at once.
    Fou,
    /// Generic UDP encapsulation: four bytes tell what follows (draft-ietf-intarea-gue).
    Gue,
}

impl UdpKind {
    /// Bytes added, the UDP header's included.
    pub fn added(self) -> u32 {
        match self {
            UdpKind::Fou => 8,
            UdpKind::Gue => 12,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            UdpKind::Fou => "fou",
            UdpKind::Gue => "gue",
        }
    }
}

/// A tunnel's packets in UDP, for paths that let nothing else through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpOptions {
    /// The format.
    pub kind: UdpKind,
    /// Source port; 0: one for each inner flow, so that routers on the way spread them (RFC 8085 5.1.1).
    #[serde(default)]
    pub sport: u16,
    /// The peer's port.
    pub dport: u16,
    /// Our port, to which the peer sends; 0: the same as the peer's.
    #[serde(default)]
    pub port: u16,
    /// The port from which the peer's datagrams come: others are not the peer's. 0: any, because Linux and RFC 8085 5.1.1
    /// give each inner flow a port of its own. Two peers behind one NAT are told apart by it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rport: u16,
    /// The peer's port is the one from which it is heard, once it has answered there: a NAT chose it, and may choose
    /// another. `dport` is the first, if it is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learn: bool,
    /// Whether a checksum is sent. None: over IPv6 only, where it must be (RFC 8200 8.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csum: Option<bool>,
}

impl UdpOptions {
    /// To this port of the peer, the rest by default.
    pub fn new(kind: UdpKind, dport: u16) -> Self {
        UdpOptions { kind, sport: 0, dport, port: 0, rport: 0, learn: false, csum: None }
    }

    /// The port on which packets arrive, for options whose peer's port may have been replaced by the one in use.
    pub(crate) fn listens_as(&self, written: Option<UdpOptions>) -> u16 {
        written.unwrap_or(*self).listens()
    }

    /// The port on which packets arrive.
    pub fn listens(&self) -> u16 {
        if self.port != 0 { self.port } else { self.dport }
    }
}

/// When the bare protocol is preferred to UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoOptions {
    /// Seconds until it is tried again after it was found not to pass; longer each time that it fails again.
    pub retry: u32,
}

impl Default for AutoOptions {
    fn default() -> Self {
        AutoOptions { retry: 300 }
    }
}

/// How 6rd finds an IPv4 address in an IPv6 one (RFC 5969 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SixRdOptions {
    /// The 6rd prefix; 2002::/16 for 6to4.
    pub prefix: Ipv6Net,
    /// The part that all IPv4 addresses have in common and that is left out: 0.0.0.0/0 when none is.
    pub relay_prefix: Ipv4Net,
    /// The border relay, for all that is outside the 6rd prefix: set on a customer edge, not on a border relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub br: Option<Ipv4Addr>,
}

/// Asks the peer whether it lives: ICMP echo through the tunnel, or GRE keepalives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// Whom to ask: an address behind the tunnel. Of no meaning for GRE keepalives, which the peer itself sends back.
    pub target: IpAddr,
    /// Milliseconds between two questions.
    pub interval: u32,
    /// So many questions without an answer: the tunnel is dead, and its routes give way.
    pub retries: u8,
    /// So many answers in a row: it lives again.
    pub hold: u8,
    /// By GRE keepalives instead of ICMP echo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gre: bool,
    /// Questions of growing size find out how much fits, without ICMP errors of the network (RFC 8899).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe_mtu: bool,
}

impl Keepalive {
    /// Asks `target` every second, with three chances and three answers to come back.
    pub fn new(target: IpAddr) -> Self {
        Keepalive { target, interval: 1000, retries: 3, hold: 3, gre: false, probe_mtu: false }
    }
}
