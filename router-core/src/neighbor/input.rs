//! From a received ARP or neighbour discovery message to the cache, and to the answer.

use super::arp::Arp;
use super::ndp::{self, Ndp};
use super::nud::Evidence;
use super::own::OwnAddresses;
use super::table::{NeighborEvent, NeighborTable};
use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::port::PortInfo;
use crate::settings::NeighborSettings;
use crate::time::Instant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An ARP packet as received.
#[derive(Clone, Copy, Debug)]
pub struct ArpReceived<'a> {
    /// Its bytes, from the ARP header on.
    pub data: &'a [u8],
    /// Which of our addresses are tentative.
    pub tentative: Option<&'a OwnAddresses>,
}

impl<'a> ArpReceived<'a> {
    /// A packet, where no address of ours is tentative.
    pub fn new(data: &'a [u8]) -> Self {
        ArpReceived { data, tentative: None }
    }
}

/// A neighbour discovery message as received.
#[derive(Clone, Copy, Debug)]
pub struct NdpReceived<'a> {
    /// Its parse.
    pub packet: &'a Packet,
    /// Its bytes, from the IPv6 header on.
    pub data: &'a [u8],
    /// The link-layer source of its frame, where known: needed only to answer those who do not tell theirs.
    pub from: Option<MacAddr>,
    /// Which of our addresses are tentative.
    pub tentative: Option<&'a OwnAddresses>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It asked for us: the answer is in the frame that was given, a whole Ethernet frame for the port it came from.
    /// The message counts as answered, the frame as originated.
    Answer,
    /// The cache took notice: delivered.
    Used,
    /// Not for us, or of no consequence: drop for this reason.
    Ignored(DropReason),
    /// Somebody else on the link uses one of our addresses (RFC 5227 2.4, RFC 4862 5.4.4): worth a log line. Delivered.
    Conflict {
        /// The address.
        addr: IpAddr,
        /// Who uses it, if it said.
        mac: Option<MacAddr>,
    },
}

/// Writes the question of a [`NeighborEvent::Solicit`] as an Ethernet frame from `port`, ready to be sent.
/// Errors as those of [`ndp::write_solicit`] and [`Arp::write`].
pub fn write_solicit(
    out: &mut Frame,
    port: &PortInfo,
    target: IpAddr,
    unicast: Option<MacAddr>,
) -> Result<(), DropReason> {
    match target {
        IpAddr::V4(target) => {
            let question = Arp::question(port, target).ok_or(DropReason::PortGone)?;
            question.write(out, port, unicast.unwrap_or(MacAddr::BROADCAST))
        }
        IpAddr::V6(target) => ndp::write_solicit(out, port, target, unicast),
    }
}

/// Writes the question whether somebody else has our address (RFC 4862 5.4.2, RFC 5227 2.1.1).
pub fn write_probe(out: &mut Frame, port: &PortInfo, addr: IpAddr) -> Result<(), DropReason> {
    match addr {
        IpAddr::V4(target) => {
            let probe = Arp::probe(port, target).ok_or(DropReason::PortGone)?;
            probe.write(out, port, MacAddr::BROADCAST)
        }
        IpAddr::V6(target) => ndp::write_probe(out, port, target),
    }
}

/// Tells everybody on the link of an own address: gratuitous ARP (RFC 5227 2.3), unsolicited neighbour advertisement
/// (RFC 4861 7.2.6).
pub fn write_announcement(out: &mut Frame, port: &PortInfo, addr: IpAddr) -> Result<(), DropReason> {
    match addr {
        IpAddr::V4(addr) => {
            let announcement = Arp::announcement(port, addr).ok_or(DropReason::PortGone)?;
            announcement.write(out, port, MacAddr::BROADCAST)
        }
        IpAddr::V6(addr) => ndp::write_advert(out, port, addr, None),
    }
}

impl NeighborTable {
    /// Takes an ARP packet in. When it asks for an address of `port` the answer is written into `answer`.
    ///
    /// RFC 826: an existing entry is updated by any packet of its owner, a new one is made only by one addressed to us.
    pub fn arp_input(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: &PortInfo,
        received: ArpReceived<'_>,
        answer: &mut Frame,
        out: &mut Vec<NeighborEvent>,
    ) -> Result<Outcome, DropReason> {
        let arp = Arp::parse(received.data)?;
        let owns = |a: Ipv4Addr| !a.is_unspecified() && port.owns(&IpAddr::V4(a));
        if Some(arp.sender_mac) == port.mac {
            // Our own packet, reflected by the link.
            return Ok(Outcome::Ignored(DropReason::OwnSource));
        }
        let addr = IpAddr::V4(arp.sender);
        if owns(arp.sender) {
            return Ok(Outcome::Conflict { addr, mac: Some(arp.sender_mac) });
        }
        // RFC 5227 2.1.1: another station that probes for an address we probe for is a conflict, too; until it is ours it
        // does not answer.
        let target = IpAddr::V4(arp.target);
        let tentative = received.tentative.is_some_and(|own| own.is_tentative(port.id, &target));
        if tentative && arp.request && arp.sender.is_unspecified() {
            return Ok(Outcome::Conflict { addr: target, mac: Some(arp.sender_mac) });
        }
        let for_us = owns(arp.target) && !tentative;
        // A question of ours may have had no sender address (an interface without one): its answer has none as target.
        let answers_us = !arp.request
            && Some(arp.target_mac) == port.mac
            && (for_us || arp.target.is_unspecified())
            && arp.sender != arp.target;
        let known = self.get(port.id, addr).is_some();
        if !arp.sender.is_unspecified() {
            let evidence = if answers_us {
                Evidence::Advert { mac: Some(arp.sender_mac), solicited: true, replace: true, router: None }
            } else {
                Evidence::Source { mac: arp.sender_mac, create: arp.request && for_us }
            };
            self.input(now, s, port.id, addr, evidence, out);
        }
        // RFC 1027 2.2, 2.4: not when the asker asks about itself.
        let proxied = !arp.sender.is_unspecified()
            && arp.sender != arp.target
            && s.is_proxied(&port.name, &IpAddr::V4(arp.target));
        if arp.request && (for_us || proxied) {
            let reply = arp.answer(port).ok_or(DropReason::PortGone)?;
            reply.write(answer, port, arp.sender_mac)?;
            return Ok(Outcome::Answer);
        }
        let used = known || answers_us;
        Ok(if used { Outcome::Used } else { Outcome::Ignored(DropReason::LocalIgnored) })
    }

    /// Takes a neighbour discovery message in. When it asks for an address of `port` the answer is written into `answer`.
    pub fn ndp_input(
        &mut self,
        now: Instant,
        s: &NeighborSettings,
        port: &PortInfo,
        received: &NdpReceived<'_>,
        answer: &mut Frame,
        out: &mut Vec<NeighborEvent>,
    ) -> Result<Outcome, DropReason> {
        let message = Ndp::parse(received.packet, received.data)?;
        let from = received.from;
        let owns = |a: Ipv6Addr| port.owns(&IpAddr::V6(a));
        let ignored = Ok(Outcome::Ignored(DropReason::LocalIgnored));
        if from.is_some() && from == port.mac {
            return Ok(Outcome::Ignored(DropReason::OwnSource));
        }
        // Somebody else claims, or asks for, an address that we are not sure of yet (RFC 4862 5.4.3, 5.4.4).
        let tentative = |a: Ipv6Addr| received.tentative.is_some_and(|own| own.is_tentative(port.id, &IpAddr::V6(a)));
        if let Ndp::Solicit { src, target, mac } = message
            && owns(target)
            && tentative(target)
        {
            return match src.is_unspecified() {
                true => Ok(Outcome::Conflict { addr: IpAddr::V6(target), mac: mac.or(from) }),
                false => ignored,
            };
        }
        let mut learn = |table: &mut Self, src: Ipv6Addr, mac: Option<MacAddr>| {
            if let Some(mac) = mac.filter(|_| !src.is_unspecified() && !owns(src)) {
                table.input(now, s, port.id, IpAddr::V6(src), Evidence::Source { mac, create: true }, out);
            }
        };
        match message {
            Ndp::Solicit { src, target, mac } => {
                if !owns(target) {
                    if port.is_anycast(&IpAddr::V6(target)) {
                        // That of all routers of the link (RFC 4291 2.6.1).
                        let to = mac.or_else(|| self.lookup(port.id, IpAddr::V6(src))).or(from);
                        let asker = (!src.is_unspecified()).then_some((src, to));
                        learn(self, src, mac);
                        let asker = match asker {
                            Some((src, Some(to))) => Some((src, to)),
                            Some((_, None)) => return ignored,
                            None => None,
                        };
                        ndp::write_shared_advert(answer, port, target, asker)?;
                        return Ok(Outcome::Answer);
                    }
                    // Duplicate detection of the one whom we stand in for must not fail because of us.
                    let proxied = !src.is_unspecified() && s.is_proxied(&port.name, &IpAddr::V6(target));
                    let to = mac.or_else(|| self.lookup(port.id, IpAddr::V6(src))).or(from);
                    let (true, Some(to)) = (proxied && src != target, to) else { return ignored };
                    learn(self, src, mac);
                    ndp::write_shared_advert(answer, port, target, Some((src, to)))?;
                    return Ok(Outcome::Answer);
                }
                if src.is_unspecified() {
                    ndp::write_advert(answer, port, target, None)?;
                    return Ok(Outcome::Answer);
                }
                if owns(src) {
                    return Ok(Outcome::Ignored(DropReason::OwnSource));
                }
                learn(self, src, mac);
                let Some(to) = mac.or_else(|| self.lookup(port.id, IpAddr::V6(src))).or(from) else { return ignored };
                ndp::write_advert(answer, port, target, Some((src, to)))?;
                Ok(Outcome::Answer)
            }
            Ndp::Advert { target, mac, router, solicited, replace } => {
                if owns(target) {
                    return Ok(Outcome::Conflict { addr: IpAddr::V6(target), mac });
                }
                if self.get(port.id, IpAddr::V6(target)).is_none() {
                    // RFC 4861 7.2.5: nobody asked, nothing is learned.
                    return ignored;
                }
                let evidence = Evidence::Advert { mac, solicited, replace, router: Some(router) };
                self.input(now, s, port.id, IpAddr::V6(target), evidence, out);
                Ok(Outcome::Used)
            }
            // RFC 4861 6.2.6: routers learn from solicitations. They do not from each other's advertisements (6.2.7).
            Ndp::RouterSolicit { src, mac } => {
                learn(self, src, mac);
                Ok(if mac.is_some() { Outcome::Used } else { Outcome::Ignored(DropReason::LocalIgnored) })
            }
            Ndp::RouterAdvert { .. } | Ndp::Redirect => ignored,
        }
    }
}
