//! From which address the router answers.

use super::Offender;
use crate::addr::Family;
use crate::port::{PortId, PortInfo, TableId};
use crate::settings::Settings;
use crate::tables::{PortTable, domain_of};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The source address of an error about `offender`, which came through port `ingress`; None when the router has none, and
/// then sends none.
///
/// 1. The offender's destination, if it is one of our addresses in that VRF (RFC 4443 2.2 a; a host answers as the address it was
///    asked at, RFC 1122 3.2.1.3).
/// 2. IPv4: the configured router id.
/// 3. An address of the ingress port, first of all one whose link prefix holds the sender, then the one that fits it best
///    (RFC 6724 5 rules 6 and 8; RFC 1812 4.3.2.4 wants the interface over which the answer goes; the way back to the sender usually is the way it came).
/// 4. A global address of another port of the same VRF, in order of ports.
/// 5. IPv4: the dummy address 192.0.0.8 (RFC 7600 5.4, draft-ietf-intarea-v4-via-v6). IPv6: the ingress port's link-local
///    address.
///
/// An address that duplicate address detection has not confirmed is passed over (RFC 4862 5.4).
pub fn error_source(
    offender: &Offender<'_>,
    ingress: PortId,
    ports: &PortTable,
    settings: &Settings,
) -> Option<IpAddr> {
    error_source_because(offender, ingress, ports, settings).map(|(addr, _)| addr)
}

/// Which of the rules of [`error_source`] gave the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRule {
    /// The offender was sent to it.
    Asked,
    /// The configured router id.
    RouterId,
    /// The ingress port's, on the sender's link.
    OnLink,
    /// The ingress port's.
    Ingress,
    /// Another port's: the ingress port has none.
    Other(PortId),
    /// The address of routers without any (RFC 7600 5.4).
    Dummy,
    /// The ingress port's link-local one: there is no other.
    LinkLocal,
}

/// As [`error_source`], with the rule that gave the address.
pub fn error_source_because(
    offender: &Offender<'_>,
    ingress: PortId,
    ports: &PortTable,
    settings: &Settings,
) -> Option<(IpAddr, SourceRule)> {
    let family = offender.family;
    let port = ports.get(ingress);
    // Addresses of other VRFs mean somebody else there.
    let near_by = |p: &&Arc<PortInfo>| port.is_none_or(|i| domain_of(i.table) == domain_of(p.table));
    if ports.owners(offender.dst).any(|p| near_by(&p)) {
        return Some((offender.dst, SourceRule::Asked));
    }
    if let (Family::Inet, Some(id)) = (family, settings.router_id) {
        return Some((IpAddr::V4(id), SourceRule::RouterId));
    }
    let near = port.and_then(|p| {
        let near = p.addrs.iter().find(|n| n.contains(&offender.src) && !ports.is_tentative(p.id, &n.addr()));
        let best = || Some((usable(p, ports, family, offender.src)?, SourceRule::Ingress));
        near.map(|n| (n.addr(), SourceRule::OnLink)).or_else(best)
    });
    let another = |p: &Arc<PortInfo>| Some((usable(p, ports, family, offender.src)?, SourceRule::Other(p.id)));
    let first = || ports.first_with(port.map_or(TableId::MAIN, |p| domain_of(p.table)), family);
    // Only while the first one's addresses are being confirmed are the others looked through.
    let other = || first().and_then(|p| another(p).or_else(|| ports.iter().filter(near_by).find_map(another)));
    near.or_else(other).or_else(|| match family {
        Family::Inet => Some(settings.icmp.dummy_source).filter(IpAddr::is_ipv4).map(|a| (a, SourceRule::Dummy)),
        Family::Inet6 => {
            let own = port.and_then(|p| Some((p.id, IpAddr::V6(p.link_local()?))));
            own.filter(|(id, a)| !ports.is_tentative(*id, a)).map(|(_, a)| (a, SourceRule::LinkLocal))
        }
    })
}

/// From which of a port's addresses somebody is answered who asked a group, or all routers of a subnet.
pub fn answer_source(port: &PortInfo, ports: &PortTable, to: IpAddr) -> Option<IpAddr> {
    usable(port, ports, Family::of(&to), to)
}

/// The port's address that means something beyond its link and fits `to` best: IPv6 by the rules 6 and 8 of RFC 6724 5, the
/// first of those that fit as well; IPv4 the first.
fn usable(port: &PortInfo, ports: &PortTable, family: Family, to: IpAddr) -> Option<IpAddr> {
    let far = |a: &IpAddr| match a {
        IpAddr::V4(a) => family == Family::Inet && !a.is_link_local() && !a.is_loopback() && !a.is_unspecified(),
        IpAddr::V6(a) => {
            family == Family::Inet6 && !a.is_unicast_link_local() && !a.is_loopback() && !a.is_unspecified()
        }
    };
    let candidates = port.addrs.iter().filter(|n| far(&n.addr()) && !ports.is_tentative(port.id, &n.addr()));
    let mut best: Option<(IpAddr, (bool, u32))> = None;
    for net in candidates {
        let rank = match (net, to) {
            (IpNet::V6(n), IpAddr::V6(to)) => {
                let common = (n.addr().to_bits() ^ to.to_bits()).leading_zeros();
                (label(n.addr()) == label(to), common.min(u32::from(n.prefix_len())))
            }
            _ => (false, 0),
        };
        if best.is_none_or(|(_, before)| rank > before) {
            best = Some((net.addr(), rank));
        }
    }
    best.map(|(addr, _)| addr)
}

/// The label of an address by the default policy table (RFC 6724 2.1), as far as its prefixes can be those of a port.
fn label(addr: Ipv6Addr) -> u8 {
    match addr.segments() {
        [0x2002, ..] => 2,
        [0x2001, 0, ..] => 5,
        [a, ..] if a & 0xfe00 == 0xfc00 => 13,
        [a, ..] if a & 0xffc0 == 0xfec0 => 11,
        [0x3ffe, ..] => 12,
        _ => 1,
    }
}
