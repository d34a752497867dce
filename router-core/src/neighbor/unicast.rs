//! Neighbour discovery where there is no link layer: tunnels and other point-to-point ports. Whoever probes whether this end
//! is there is answered (RFC 4213 3.8, RFC 4861 7.2.4); this end asks nobody.

use super::ndp::{ALL_NODES, Ndp};
use super::{NdpReceived, Outcome};
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{ipv6, protocol};
use crate::port::PortInfo;
use std::net::{IpAddr, Ipv6Addr};

/// Takes a message from a port without link-layer addresses. When it asks for an address of `port`, the answer is written
/// into `answer` from the IPv6 header on, without a link-layer address option (RFC 4213 3.8), and whose it is returned.
pub fn answer_without_link(
    port: &PortInfo,
    received: &NdpReceived<'_>,
    answer: &mut Frame,
) -> Result<Outcome, DropReason> {
    let Ndp::Solicit { src, target, .. } = Ndp::parse(received.packet, received.data)? else {
        return Ok(Outcome::Ignored(DropReason::LocalIgnored));
    };
    let owns = |a: Ipv6Addr| port.owns(&IpAddr::V6(a));
    if !owns(target) {
        return Ok(Outcome::Ignored(DropReason::LocalIgnored));
    }
    if owns(src) {
        return Ok(Outcome::Ignored(DropReason::OwnSource));
    }
    // Router and override, and solicited but to one who is looking for duplicates.
    let (dst, flags) = if src.is_unspecified() { (ALL_NODES, 0xa0) } else { (src, 0xe0) };
    let mut bytes = [0; ipv6::HEADER + 24];
    bytes[0] = 0x60;
    bytes[4..8].copy_from_slice(&[0, 24, protocol::ICMPV6, 255]);
    bytes[8..24].copy_from_slice(&target.octets());
    bytes[24..40].copy_from_slice(&dst.octets());
    bytes[40] = 136;
    bytes[44] = flags;
    bytes[48..].copy_from_slice(&target.octets());
    let sum = checksum::pseudo_v6(target, dst, protocol::ICMPV6, 24).bytes(&bytes[40..]).finish();
    bytes[42..44].copy_from_slice(&sum.to_be_bytes());
    answer.reset();
    if answer.set_data(&bytes) { Ok(Outcome::Answer) } else { Err(DropReason::NoFrame) }
}
