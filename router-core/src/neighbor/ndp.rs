//! Neighbour discovery messages (RFC 4861 4, 6.1, 7.1): reading with every check of the RFC, and writing.

pub(crate) use super::arp::push_link_header;
use crate::addr::MacAddr;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{ethernet::ETHERTYPE_IPV6, ipv6, protocol};
use crate::packet::{Fragment, Packet};
use crate::port::PortInfo;
use smoltcp::wire::{
    Icmpv6Message, Icmpv6Packet, NdiscNeighborFlags, NdiscOption, NdiscOptionType, RawHardwareAddress,
};
use std::net::{IpAddr, Ipv6Addr};

/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Nobody on the way has forwarded it (RFC 4861 7.1).
const HOP_LIMIT: u8 = 255;
/// Solicitation or advertisement with one link-layer address option.
const LEN: usize = 24 + 8;

/// A neighbour discovery message that has passed all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Who has `target`? An unspecified source means duplicate address detection (RFC 4862 5.4).
    Solicit {
        /// Who asks.
        src: Ipv6Addr,
        /// The address asked for.
        target: Ipv6Addr,
        /// Source link-layer address option.
        mac: Option<MacAddr>,
    },
    /// `target` is here.
    Advert {
        /// Whose address.
        target: Ipv6Addr,
        /// Target link-layer address option.
        mac: Option<MacAddr>,
        /// R flag.
        router: bool,
        /// S flag.
        solicited: bool,
        /// O flag.
        replace: bool,
    },
    /// A host looks for routers.
    RouterSolicit {
        /// Who asks.
        src: Ipv6Addr,
        /// Source link-layer address option.
        mac: Option<MacAddr>,
    },
    /// Another router is there.
    RouterAdvert {
        /// Which, by its link-local address.
        src: Ipv6Addr,
        /// Source link-layer address option.
        mac: Option<MacAddr>,
    },
    /// A redirect: routers take no notice (RFC 4861 8.2).
    Redirect,
}

/// The solicited-node group of an address (RFC 4291 2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let o = addr.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

impl Ndp {
    /// Reads and checks a message; `data` starts at the IPv6 header, `packet` is its parse. Any failed check of RFC 4861
    /// 6.1 and 7.1 gives [`DropReason::NdpMalformed`], as do fragments (RFC 6980 5) and extension headers.
    pub fn parse(packet: &Packet, data: &[u8]) -> Result<Ndp, DropReason> {
        Self::checked(packet, data).ok_or(DropReason::NdpMalformed)
    }

    fn checked(packet: &Packet, data: &[u8]) -> Option<Ndp> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else { return None };
        let plain = packet.proto == protocol::ICMPV6
            && usize::from(packet.l4) == ipv6::HEADER
            && packet.fragment == Fragment::None;
        if packet.ttl != HOP_LIMIT || !plain {
            return None;
        }
        let message = packet.transport(data);
        let pseudo = checksum::pseudo_v6(src, dst, protocol::ICMPV6, message.len() as u32);
        if !checksum::verify_with(pseudo, message) {
            return None;
        }
        let icmp = Icmpv6Packet::new_checked(message).ok()?;
        if icmp.msg_code() != 0 {
            return None;
        }
        let options = |from: usize| Options::of(message.get(from..)?);
        match icmp.msg_type() {
            // RFC 4861 7.1.1.
            Icmpv6Message::NeighborSolicit => {
                let target = icmp.target_addr();
                let mac = options(24)?.source;
                let dad_is_right = !src.is_unspecified() || (dst == solicited_node(target) && mac.is_none());
                (!target.is_multicast() && dad_is_right).then_some(Ndp::Solicit { src, target, mac })
            }
            // RFC 4861 7.1.2.
            Icmpv6Message::NeighborAdvert => {
                let (target, flags) = (icmp.target_addr(), icmp.neighbor_flags());
                let mac = options(24)?.target;
                let router = flags.contains(NdiscNeighborFlags::ROUTER);
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                let replace = flags.contains(NdiscNeighborFlags::OVERRIDE);
                let right = !(target.is_multicast() || dst.is_multicast() && solicited);
                right.then_some(Ndp::Advert { target, mac, router, solicited, replace })
            }
            // RFC 4861 6.1.1.
            Icmpv6Message::RouterSolicit => {
                let mac = options(8)?.source;
                (!src.is_unspecified() || mac.is_none()).then_some(Ndp::RouterSolicit { src, mac })
            }
            // RFC 4861 6.1.2.
            Icmpv6Message::RouterAdvert => {
                let mac = options(16)?.source;
                src.is_unicast_link_local().then_some(Ndp::RouterAdvert { src, mac })
            }
            // RFC 4861 8.1, as far as a router cares.
            Icmpv6Message::Redirect => {
                options(40)?;
                src.is_unicast_link_local().then_some(Ndp::Redirect)
            }
            _ => None,
        }
    }
}

/// The options that matter here.
#[derive(Default)]
struct Options {
    source: Option<MacAddr>,
    target: Option<MacAddr>,
}

impl Options {
    /// None when one has length zero or runs out of the message; unknown ones are skipped (RFC 4861 4.6).
    fn of(mut bytes: &[u8]) -> Option<Options> {
        let mut found = Options::default();
        while !bytes.is_empty() {
            let option = NdiscOption::new_checked(bytes).ok()?;
            let len = usize::from(option.data_len()) * 8;
            if len == 0 || len > bytes.len() {
                return None;
            }
            let slot = match option.option_type() {
                NdiscOptionType::SourceLinkLayerAddr => Some(&mut found.source),
                NdiscOptionType::TargetLinkLayerAddr => Some(&mut found.target),
                _ => None,
            };
            if let Some(slot) = slot {
                // Ethernet's has 8 bytes (RFC 2464 6). A group's address is no one's.
                let mac = MacAddr(<[u8; 6]>::try_from(bytes.get(2..8)?).ok()?);
                if len != 8 || !mac.is_unicast() {
                    return None;
                }
                *slot = Some(mac);
            }
            bytes = &bytes[len..];
        }
        Some(found)
    }
}

/// From which address a port's questions come: its link-local one, else another.
pub fn question_source(port: &PortInfo) -> Option<Ipv6Addr> {
    let any = || {
        port.addrs.iter().find_map(|n| match n.addr() {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        })
    };
    port.link_local().or_else(any)
}

/// Writes a solicitation for `target` as an Ethernet frame from `port`, ready to be sent: to the solicited-node group, or
/// to `unicast` alone. The source is the port's link-local address, else another of its addresses; without any there can
/// be no question: [`DropReason::NeighborFailed`].
pub fn write_solicit(
    out: &mut Frame,
    port: &PortInfo,
    target: Ipv6Addr,
    unicast: Option<MacAddr>,
) -> Result<(), DropReason> {
    let src = question_source(port).ok_or(DropReason::NeighborFailed)?;
    let dst = if unicast.is_some() { target } else { solicited_node(target) };
    let to = unicast.unwrap_or(MacAddr::for_ipv6_multicast(dst));
    write(out, port, (src, dst, to), target, Kind::Solicit)
}

/// Writes an advertisement of the own address `target` as an Ethernet frame from `port`, ready to be sent. `to` is who
/// asked; None tells everyone: duplicate address detection was asking (RFC 4861 7.2.4), or the address is new (7.2.6).
pub fn write_advert(
    out: &mut Frame,
    port: &PortInfo,
    target: Ipv6Addr,
    to: Option<(Ipv6Addr, MacAddr)>,
) -> Result<(), DropReason> {
    let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
    let (dst, mac, flags) = match to {
        Some((addr, mac)) => (addr, mac, flags | NdiscNeighborFlags::SOLICITED),
        None => (ALL_NODES, MacAddr::for_ipv6_multicast(ALL_NODES), flags),
    };
    write(out, port, (target, dst, mac), target, Kind::Advert(flags))
}

/// Writes an advertisement of an address that is not ours alone, from one that is: on behalf of another host, whose packets
/// we take (RFC 4861 7.2.8), or of all routers of a subnet (7.2.7). Without override, so that the host itself wins if it is
/// there, and the router that was there first. `to` as in [`write_advert`].
pub fn write_shared_advert(
    out: &mut Frame,
    port: &PortInfo,
    target: Ipv6Addr,
    to: Option<(Ipv6Addr, MacAddr)>,
) -> Result<(), DropReason> {
    let src = port.link_local().ok_or(DropReason::NeighborFailed)?;
    let (dst, mac, flags) = match to {
        Some((addr, mac)) => (addr, mac, NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED),
        None => (ALL_NODES, MacAddr::for_ipv6_multicast(ALL_NODES), NdiscNeighborFlags::ROUTER),
    };
    write(out, port, (src, dst, mac), target, Kind::Advert(flags))
}

/// Writes the question whether somebody else has the own address `target` (RFC 4862 5.4.2): from the unspecified address,
/// without a link-layer address.
pub fn write_probe(out: &mut Frame, port: &PortInfo, target: Ipv6Addr) -> Result<(), DropReason> {
    let dst = solicited_node(target);
    write(out, port, (Ipv6Addr::UNSPECIFIED, dst, MacAddr::for_ipv6_multicast(dst)), target, Kind::Probe)
}

/// What [`write`] writes.
#[derive(Clone, Copy)]
enum Kind {
    Solicit,
    Probe,
    Advert(NdiscNeighborFlags),
}

/// Writes any of these messages.
fn write(
    out: &mut Frame,
    port: &PortInfo,
    (src, dst, mac): (Ipv6Addr, Ipv6Addr, MacAddr),
    target: Ipv6Addr,
    kind: Kind,
) -> Result<(), DropReason> {
    let own = port.mac.ok_or(DropReason::PortGone)?;
    let mut bytes = [0; ipv6::HEADER + LEN];
    let len = if matches!(kind, Kind::Probe) { LEN - 8 } else { LEN };
    let (ip, message) = bytes[..ipv6::HEADER + len].split_at_mut(ipv6::HEADER);
    ip[0] = 0x60;
    ip[4..8].copy_from_slice(&[0, len as u8, protocol::ICMPV6, HOP_LIMIT]);
    ip[8..24].copy_from_slice(&src.octets());
    ip[24..40].copy_from_slice(&dst.octets());
    let mut icmp = Icmpv6Packet::new_unchecked(&mut *message);
    let (message_type, option_type) = match kind {
        Kind::Advert(_) => (Icmpv6Message::NeighborAdvert, NdiscOptionType::TargetLinkLayerAddr),
        Kind::Solicit | Kind::Probe => (Icmpv6Message::NeighborSolicit, NdiscOptionType::SourceLinkLayerAddr),
    };
    icmp.set_msg_type(message_type);
    if let Kind::Advert(flags) = kind {
        icmp.set_neighbor_flags(flags);
    }
    icmp.set_target_addr(target);
    if len == LEN {
        let mut option = NdiscOption::new_unchecked(&mut message[24..]);
        option.set_option_type(option_type);
        option.set_data_len(1);
        option.set_link_layer_addr(RawHardwareAddress::from_bytes(&own.0));
    }
    let sum = checksum::pseudo_v6(src, dst, protocol::ICMPV6, len as u32).bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out.reset();
    if !out.set_data(&bytes[..ipv6::HEADER + len]) {
        return Err(DropReason::NoFrame);
    }
    push_link_header(out, port, mac, ETHERTYPE_IPV6)
}
