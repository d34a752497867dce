//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227): reading and writing.

use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::ethernet::ETHERTYPE_ARP;
use crate::port::PortInfo;
use smoltcp::wire::{ArpHardware, ArpOperation, ArpPacket, EthernetProtocol};
use std::net::{IpAddr, Ipv4Addr};

/// Length of an ARP packet about Ethernet and IPv4.
pub const LEN: usize = 28;

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// A request; else a reply.
    pub request: bool,
    /// Link-layer address of the sender.
    pub sender_mac: MacAddr,
    /// Its IPv4 address; unspecified in a probe (RFC 5227 2.1.1).
    pub sender: Ipv4Addr,
    /// Link-layer address of the target; meaningless in a request.
    pub target_mac: MacAddr,
    /// The IPv4 address asked for, or of the one who asked.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads a packet that starts at the ARP header; padding behind it is ignored. [`DropReason::ArpMalformed`] when it is
    /// not about Ethernet and IPv4, neither request nor reply, cut, or its sender is a group.
    pub fn parse(data: &[u8]) -> Result<Arp, DropReason> {
        let bad = DropReason::ArpMalformed;
        let p = ArpPacket::new_checked(data).map_err(|_| bad)?;
        let right_kind = p.hardware_type() == ArpHardware::Ethernet
            && p.protocol_type() == EthernetProtocol::Ipv4
            && (p.hardware_len(), p.protocol_len()) == (6, 4);
        if !right_kind {
            return Err(bad);
        }
        let mac = |b: &[u8]| <[u8; 6]>::try_from(b).map(MacAddr).map_err(|_| bad);
        let ip = |b: &[u8]| <[u8; 4]>::try_from(b).map(Ipv4Addr::from).map_err(|_| bad);
        let arp = Arp {
            request: match p.operation() {
                ArpOperation::Request => true,
                ArpOperation::Reply => false,
                ArpOperation::Unknown(_) => return Err(bad),
            },
            sender_mac: mac(p.source_hardware_addr())?,
            sender: ip(p.source_protocol_addr())?,
            target_mac: mac(p.target_hardware_addr())?,
            target: ip(p.target_protocol_addr())?,
        };
        let a_host = !arp.sender.is_multicast() && !arp.sender.is_broadcast() && !arp.sender.is_loopback();
        if arp.sender_mac.is_unicast() && a_host { Ok(arp) } else { Err(bad) }
    }

    /// Writes it as an Ethernet frame from `port` to `dst`, VLAN tag included, ready to be sent. Anything that was in
    /// `out` is forgotten. [`DropReason::NoFrame`] when it does not fit, [`DropReason::PortGone`] when the port has no
    /// link layer.
    pub fn write(&self, out: &mut Frame, port: &PortInfo, dst: MacAddr) -> Result<(), DropReason> {
        out.reset();
        let mut bytes = [0; LEN];
        let mut p = ArpPacket::new_unchecked(&mut bytes[..]);
        p.set_hardware_type(ArpHardware::Ethernet);
        p.set_protocol_type(EthernetProtocol::Ipv4);
        p.set_hardware_len(6);
        p.set_protocol_len(4);
        p.set_operation(if self.request { ArpOperation::Request } else { ArpOperation::Reply });
        p.set_source_hardware_addr(&self.sender_mac.0);
        p.set_source_protocol_addr(&self.sender.octets());
        p.set_target_hardware_addr(&self.target_mac.0);
        p.set_target_protocol_addr(&self.target.octets());
        if !out.set_data(&bytes) {
            return Err(DropReason::NoFrame);
        }
        push_link_header(out, port, dst, ETHERTYPE_ARP)
    }

    /// A question for `target` from `port`. The sender address is the port's own on the target's link, else any of the
    /// port's, else none (the form of a probe: nobody learns an address that is not ours).
    pub fn question(port: &PortInfo, target: Ipv4Addr) -> Option<Arp> {
        Some(Arp {
            request: true,
            sender_mac: port.mac?,
            sender: sender_for(port, target).unwrap_or(Ipv4Addr::UNSPECIFIED),
            target_mac: MacAddr::default(),
            target,
        })
    }

    /// The question whether somebody else has an own address (RFC 5227 2.1.1), for [`MacAddr::BROADCAST`]: from nobody, so
    /// that nobody learns anything from it.
    pub fn probe(port: &PortInfo, addr: Ipv4Addr) -> Option<Arp> {
        let sender = Ipv4Addr::UNSPECIFIED;
        Some(Arp { request: true, sender_mac: port.mac?, sender, target_mac: MacAddr::default(), target: addr })
    }

    /// The announcement of an own address (RFC 5227 2.3), for [`MacAddr::BROADCAST`].
    pub fn announcement(port: &PortInfo, addr: Ipv4Addr) -> Option<Arp> {
        Some(Arp { request: true, sender_mac: port.mac?, sender: addr, target_mac: MacAddr::default(), target: addr })
    }

    /// The answer of `port` to this question.
    pub fn answer(&self, port: &PortInfo) -> Option<Arp> {
        Some(Arp {
            request: false,
            sender_mac: port.mac?,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        })
    }
}

/// The port's own IPv4 address to ask for `target` from.
pub(crate) fn sender_for(port: &PortInfo, target: Ipv4Addr) -> Option<Ipv4Addr> {
    let v4 = |a: &IpAddr| match a {
        IpAddr::V4(a) => Some(*a),
        IpAddr::V6(_) => None,
    };
    let near = port.addrs.iter().filter(|n| n.contains(&IpAddr::V4(target))).find_map(|n| v4(&n.addr()));
    near.or_else(|| port.addrs.iter().find_map(|n| v4(&n.addr())))
}

/// Puts an Ethernet header, with the port's VLAN tag if it has one, before the data.
pub(crate) fn push_link_header(
    out: &mut Frame,
    port: &PortInfo,
    dst: MacAddr,
    ethertype: u16,
) -> Result<(), DropReason> {
    let src = port.mac.ok_or(DropReason::PortGone)?;
    let n = if port.vlan.is_some() { 18 } else { 14 };
    let h = out.push_front(n).ok_or(DropReason::NoHeadroom)?;
    h[..6].copy_from_slice(&dst.0);
    h[6..12].copy_from_slice(&src.0);
    if let Some(vid) = port.vlan {
        h[12..14].copy_from_slice(&crate::headers::ethernet::TPID_CTAG.to_be_bytes());
        h[14..16].copy_from_slice(&(vid & 0x0fff).to_be_bytes());
    }
    h[n - 2..n].copy_from_slice(&ethertype.to_be_bytes());
    Ok(())
}
