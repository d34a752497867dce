//! Which tunnels are refused, and why.

use super::Keys;
use crate::addr::Family;
use crate::decap::{DecapKey, UdpPorts};
use crate::headers::protocol;
use crate::port::{PortId, PortKind};
use crate::router::{PortError, Router};
use crate::spec::{TunnelMode, TunnelSpec};
use crate::tunnel::derived::Derived;
use crate::tunnel::mode::{Between, Peer};
use crate::tunnel::spec::{GreOptions, SixRdOptions};
use std::net::IpAddr;

/// Why a tunnel command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// About its port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Both ends must be of the family of the outer header.
    #[error("a {mode} tunnel needs {family} addresses at both ends, not {addr}")]
    Family {
        /// The mode's name.
        mode: &'static str,
        /// Which family it needs.
        family: &'static str,
        /// The one that does not fit.
        addr: IpAddr,
    },
    /// An end that can never be one.
    #[error("{0} cannot be an end of a tunnel")]
    Endpoint(IpAddr),
    /// Another tunnel has both ends alike: packets could not be told apart (RFC 4213 3.6).
    #[error("tunnel \"{0}\" has the same local and remote address already")]
    SameEnds(String),
    /// Another GRE tunnel has both ends and the received key alike (RFC 2890 2.1).
    #[error("tunnel \"{name}\" has the same local and remote address and {} already: give each its own key", key_text(*key))]
    SameKey {
        /// The other tunnel.
        name: String,
        /// The key that both are to receive.
        key: Option<u32>,
    },
    /// The same for tunnels in UDP: ports could tell them apart.
    #[error(
        "tunnel \"{0}\" has the same ends and UDP ports already; another encap-port, or the peer's encap-rport, tells them apart"
    )]
    SamePorts(String),
    /// The MTU is out of range.
    #[error("tunnel MTU {mtu} is out of range: {least}{} to {most} bytes", if *.least == 1280 { " (RFC 8200 5)" } else { "" })]
    Mtu {
        /// As asked for.
        mtu: u32,
        /// Least possible.
        least: u32,
        /// Most possible.
        most: u32,
    },
    /// Neither a port nor a tunnel of that name, or it is the tunnel itself.
    #[error("Cannot find device \"{0}\"")]
    Device(String),
    /// An option that the mode does not have.
    #[error("{option} is not for a {mode} tunnel")]
    NotForMode {
        /// The option.
        option: &'static str,
        /// The mode's name.
        mode: &'static str,
    },
    /// 6rd or 6to4 without its mapping, or with an impossible one.
    #[error("{0}")]
    Mapping(&'static str),
    /// 6to4 without the word for it.
    #[error(
        "6to4 is deprecated (RFC 7526): its relays are gone and anybody can be the other end; who needs it all the same says allow_6to4"
    )]
    SixToFour,
    /// An option's value is out of range.
    #[error("{0}")]
    Value(&'static str),
}

fn key_text(key: Option<u32>) -> String {
    key.map_or_else(|| "no key".to_owned(), |k| format!("the key {k}"))
}

/// What can be said of a tunnel without knowing the others.
pub fn check_tunnel_spec(spec: &TunnelSpec) -> Result<(), TunnelError> {
    check_ends(spec)?;
    check_options(spec)?;
    let (least, most) = (spec.mode.shape().least_mtu(), 65_535 - spec.overhead());
    match spec.mtu.filter(|mtu| !(least..=most).contains(mtu)) {
        Some(mtu) => Err(TunnelError::Mtu { mtu, least, most }),
        None => Ok(()),
    }
}

/// The outer protocols by which a tunnel's packets are found, with the ports of UDP. A port that is learned is not among
/// them: it has a key of its own once it is known.
pub fn tunnel_hears(spec: &TunnelSpec) -> impl Iterator<Item = (u8, UdpPorts)> {
    let auto = spec.options.auto.is_some();
    let none = auto || spec.options.udp.is_none();
    let bare = spec.mode.shape().hears.iter().filter(move |_| none).map(|p| (*p, UdpPorts::default()));
    let udp = spec.options.udp.filter(|u| !u.learn);
    let ports = udp.map(|u| UdpPorts { remote: if auto { u.dport } else { u.rport }, local: u.listens() });
    bare.chain(ports.map(|ports| (protocol::UDP, ports)))
}

impl Router {
    /// Checks a tunnel, and says by what its packets are found. `own` is the tunnel itself, when it is there already.
    pub(super) fn check_tunnel(&self, spec: &TunnelSpec, own: Option<PortId>) -> Result<Keys, TunnelError> {
        check_tunnel_spec(spec)?;
        let shape = spec.mode.shape();
        if let Some(dev) = &spec.dev
            && (*dev == spec.name || !self.port_names.contains_key(dev))
        {
            return Err(TunnelError::Device(dev.clone()));
        }
        if let Some(dev) = &spec.options.encap_dev
            && (*dev == spec.name || !self.port_names.contains_key(dev))
        {
            return Err(TunnelError::Device(dev.clone()));
        }
        let kind = |name: &Option<String>| {
            let id = name.as_ref().and_then(|d| self.port_names.get(d))?;
            self.ports.get(*id).map(|p| p.kind)
        };
        let bare = spec.options.udp.is_none() || spec.options.auto.is_some();
        if bare && kind(&spec.dev) == Some(PortKind::Udp) {
            return Err(TunnelError::Value(
                "a udp port carries nothing but UDP: say encap fou or gue, or for encap auto another dev beside encap-dev",
            ));
        }
        let table = spec.underlay_table.unwrap_or_default();
        // Without both ends nobody is the peer yet.
        let open = spec.local.is_unspecified() || shape.peer == Peer::Configured && spec.remote.is_unspecified();
        let mut keys = Keys::new();
        for (proto, ports) in tunnel_hears(spec).filter(|_| !open) {
            let key = DecapKey { proto, table, local: spec.local, remote: spec.remote, ports };
            let name = |id| self.ports.get(id).map_or_else(String::new, |p| p.name.clone());
            if by_key(&key) {
                let ikey = spec.options.gre.ikey;
                let other = self.tunnels.siblings(&key).and_then(|s| s.get(&ikey)).filter(|other| Some(**other) != own);
                if let Some(other) = other {
                    return Err(TunnelError::SameKey { name: name(*other), key: ikey });
                }
            } else if let Some(other) = self.decap.get(&key).filter(|other| Some(*other) != own) {
                let same = if proto == protocol::UDP { TunnelError::SamePorts } else { TunnelError::SameEnds };
                return Err(same(name(other)));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

/// Whether tunnels that are found by this may share their ends, if their keys differ. In UDP the ports are all that tells.
pub(super) fn by_key(key: &DecapKey) -> bool {
    key.proto == protocol::GRE
}

fn check_ends(spec: &TunnelSpec) -> Result<(), TunnelError> {
    let shape = spec.mode.shape();
    let derived = shape.peer == Peer::Derived;
    let o = &spec.options;
    let ends = [(spec.local, o.local_dev.is_some()), (spec.remote, o.remote_name.is_some() || derived)];
    for (addr, found) in ends {
        // Not known yet.
        if found && addr.is_unspecified() {
            continue;
        }
        if Family::of(&addr) != shape.outer {
            let family = if shape.outer == Family::Inet { "IPv4" } else { "IPv6" };
            return Err(TunnelError::Family { mode: shape.name, family, addr });
        }
        let impossible = match addr {
            IpAddr::V4(a) => a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.octets()[0] >= 240,
            IpAddr::V6(a) => {
                // A link-local address is one on a link: which one must be said.
                let lost = a.is_unicast_link_local() && spec.dev.is_none();
                a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.to_ipv4_mapped().is_some() || lost
            }
        };
        if impossible {
            return Err(TunnelError::Endpoint(addr));
        }
    }
    if derived && !spec.remote.is_unspecified() {
        return Err(TunnelError::NotForMode { option: "remote", mode: shape.name });
    }
    if spec.local == spec.remote && !spec.local.is_unspecified() {
        return Err(TunnelError::Endpoint(spec.remote));
    }
    Ok(())
}

fn check_options(spec: &TunnelSpec) -> Result<(), TunnelError> {
    let (shape, o) = (spec.mode.shape(), &spec.options);
    let refuse = |there: bool, option: &'static str| match there {
        true => Err(TunnelError::NotForMode { option, mode: shape.name }),
        false => Ok(()),
    };
    refuse(o.encaplimit.is_some() && shape.outer == Family::Inet, "encaplimit")?;
    refuse(o.flowlabel != Default::default() && shape.outer == Family::Inet, "flowlabel")?;
    refuse(
        o.gre != GreOptions::default() && shape.between != Between::Gre,
        "a GRE key, sequence number, checksum or keepalive",
    )?;
    refuse(o.keepalive.is_some_and(|k| k.gre) && shape.between != Between::Gre, "a GRE keepalive")?;
    refuse(o.keepalive.is_some_and(|k| k.gre) && o.udp.is_some(), "a GRE keepalive in UDP")?;
    refuse(o.udp.is_some() && shape.peer == Peer::Derived, "encap")?;
    refuse(o.sixrd.is_some() && shape.peer == Peer::Configured, "a 6rd prefix")?;
    let four_in_four = shape.outer == Family::Inet && shape.carries.family(Family::Inet);
    refuse(o.ignore_df && !four_in_four, "ignore-df")?;
    if o.ignore_df && !spec.nopmtudisc {
        return Err(TunnelError::Value(
            "ignore-df is for a tunnel with nopmtudisc: with pmtudisc all outer packets have DF set",
        ));
    }
    for net in &o.allowed {
        refuse(!shape.carries.family(Family::of_net(net)), "this family in allowed")?;
    }
    if let Some(u) = &o.udp {
        if u.dport == 0 && !u.learn {
            return Err(TunnelError::Value("encap needs the peer's UDP port"));
        }
        if u.learn && u.listens() == 0 {
            return Err(TunnelError::Value("a tunnel that learns the peer's port needs one of its own: encap-port"));
        }
        if u.learn && u.rport != 0 {
            return Err(TunnelError::Value("the peer's port is either known or learned"));
        }
    }
    if (o.auto.is_some() || o.udp.is_some_and(|u| u.learn)) && o.keepalive.is_none_or(|k| k.gre) {
        return Err(TunnelError::Value(
            "a tunnel that finds its own way needs a keepalive to an address of the peer's: answers tell what passes",
        ));
    }
    if let Some(auto) = &o.auto {
        refuse(o.encaplimit.is_some(), "encaplimit together with encap auto")?;
        if o.udp.is_none() {
            return Err(TunnelError::Value("encap auto needs UDP ports"));
        }
        if !(1..=86_400).contains(&auto.retry) {
            return Err(TunnelError::Value("the bare protocol is tried again after 1 to 86400 seconds"));
        }
    }
    if o.encap_dev.is_some() && o.udp.is_none() {
        return Err(TunnelError::Value("encap-dev is for a tunnel in UDP"));
    }
    if o.rate == Some(0) {
        return Err(TunnelError::Value("a rate is at least one packet per second"));
    }
    if let crate::tunnel::FlowLabel::Fixed(label) = o.flowlabel
        && label > 0xf_ffff
    {
        return Err(TunnelError::Value("a flow label has 20 bits"));
    }
    if let Some(k) = &o.keepalive {
        if !(100..=3_600_000).contains(&k.interval) || k.retries == 0 || k.hold == 0 {
            return Err(TunnelError::Value(
                "a keepalive asks every 0.1 to 3600 seconds, and gives up after one question at least",
            ));
        }
        refuse(!k.gre && !shape.carries.family(Family::of(&k.target)), "a keepalive to this family")?;
        if k.probe_mtu && (k.gre || spec.nopmtudisc || shape.peer == Peer::Derived) {
            return Err(TunnelError::Value(
                "probing the MTU asks by ICMP echo with DF set: a keepalive with a target, without nopmtudisc, between two configured ends",
            ));
        }
    }
    match (spec.mode, &o.sixrd) {
        (TunnelMode::SixToFour, _) if !o.allow_6to4 => Err(TunnelError::SixToFour),
        (TunnelMode::SixToFour, Some(m)) if m.prefix != Derived::SIX_TO_FOUR || m.relay_prefix.prefix_len() != 0 => {
            Err(TunnelError::Mapping("6to4 has the prefix 2002::/16 and all of IPv4"))
        }
        (TunnelMode::SixRd | TunnelMode::SixToFour, None) => Err(TunnelError::Mapping("6rd needs its prefix")),
        (TunnelMode::SixRd, Some(m)) => check_mapping(spec, m),
        _ => Ok(()),
    }
}

fn check_mapping(spec: &TunnelSpec, m: &SixRdOptions) -> Result<(), TunnelError> {
    if m.prefix == Derived::SIX_TO_FOUR {
        return Err(TunnelError::SixToFour);
    }
    if m.prefix.prefix_len() + 32 - m.relay_prefix.prefix_len() > 64 {
        return Err(TunnelError::Mapping(
            "6rd prefix and IPv4 bits are longer than 64 bits: no /64 is left for a link (RFC 5969 5)",
        ));
    }
    if let IpAddr::V4(local) = spec.local
        && !m.relay_prefix.contains(&local)
        && m.br.is_some()
    {
        return Err(TunnelError::Mapping("the local address is outside the IPv4 prefix that all edges have in common"));
    }
    if m.br.map(IpAddr::V4) == Some(spec.local) {
        return Err(TunnelError::Mapping("the border relay cannot be this router itself"));
    }
    Ok(())
}
