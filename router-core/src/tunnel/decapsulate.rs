//! Out of a tunnel: finds the tunnel that a packet for the router belongs to, checks what may be checked before anything is
//! edited, and takes the outer headers off.

use super::ecn::inner_ecn;
use super::gate::{Gate, TunnelState};
use super::mode::Between;
use super::spec::UdpKind;
use super::{gre, udp};
use crate::addr::Family;
use crate::checksum;
use crate::decap::UdpPorts;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{be16, protocol};
use crate::packet::Packet;
use crate::port::{PortId, TableId};
use crate::tables::Tables;
use crate::time::Instant;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The tunnel whose configured peer sent this packet, which came through a port of `table`.
///
/// # Errors
/// [`DropReason::TunnelUnknownPeer`] when there is none (RFC 4213 3.6).
pub fn find<'t>(
    tables: &'t Tables,
    table: TableId,
    outer: &Packet,
    data: &[u8],
) -> Result<(PortId, &'t Arc<Gate>), DropReason> {
    let get = |proto: u8, remote: IpAddr| {
        let id = tables.decap.find(proto, table, outer.dst, remote)?;
        let gate = tables.gates.get(id)?;
        Some((id, gate))
    };
    let found = match (outer.proto, outer.family) {
        (protocol::UDP, _) => {
            let datagram = outer.transport(data);
            let ports = UdpPorts { remote: be16(datagram, 0), local: be16(datagram, 2) };
            let id = tables.decap.find_udp(table, outer.dst, outer.src, ports);
            id.and_then(|id| Some((id, tables.gates.get(id)?)))
        }
        // A 6in4 tunnel hears IPv4 from its peer, too, unless another tunnel is for that.
        (protocol::IPV4, Family::Inet) => get(protocol::IPV4, outer.src)
            .or_else(|| get(protocol::IPV6, outer.src).filter(|(_, g)| g.shape.carries.family(Family::Inet))),
        // Configured peers come before those that anybody may be.
        (protocol::IPV6, Family::Inet) => get(protocol::IPV6, outer.src)
            .or_else(|| get(protocol::IPV6, Ipv4Addr::UNSPECIFIED.into()).filter(|(_, g)| g.derived.is_some())),
        // RFC 2890 2.1: the key tells tunnels between the same ends apart. One that nobody has is a matter of whichever there is.
        (protocol::GRE, _) => gre::key(outer.transport(data))
            .and_then(|key| {
                let id = tables.decap.find_keyed(table, outer.dst, outer.src, key)?;
                Some((id, tables.gates.get(id)?))
            })
            .or_else(|| get(protocol::GRE, outer.src)),
        (proto, _) => get(proto, outer.src),
    };
    found.ok_or(DropReason::TunnelUnknownPeer)
}

/// Whether a datagram is for a port on which a tunnel listens, whoever sent it: then it is no matter of services.
pub fn is_tunnel_port(tables: &Tables, outer: &Packet, data: &[u8]) -> bool {
    outer.proto == protocol::UDP && tables.gates.has_port(be16(outer.transport(data), 2))
}

/// The packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where it begins.
    pub at: usize,
    /// Its family.
    pub family: Family,
    ecn: u8,
}

/// Finds the packet inside and checks it, without changing anything but `state`, the tunnel's memory.
///
/// # Errors
/// Why it is dropped.
pub fn open(gate: &Gate, outer: &Packet, data: &[u8], now: Instant, state: &TunnelState) -> Result<Opened, DropReason> {
    let (at, family) = between(gate, outer.proto, outer.transport(data), state)?;
    let at = usize::from(outer.l4) + at;
    let inner = data.get(at..outer.len as usize).unwrap_or(&[]);
    let least = if family == Family::Inet { super::IPV4_HEADER } else { super::IPV6_HEADER } as usize;
    if inner.len() < least || Packet::sniff(inner) != Ok(family) {
        return Err(DropReason::TunnelInnerMalformed);
    }
    let tclass = if family == Family::Inet { inner[1] } else { (inner[0] << 4) | (inner[1] >> 4) };
    let ecn = inner_ecn(tclass, outer.tclass)?;
    gate.check(outer.src, family, inner, now, state)?;
    Ok(Opened { at, family, ecn })
}

/// What is inside, and where it begins in what the outer headers carry: `payload`, of protocol `proto`. Not its checksum.
///
/// # Errors
/// Why it is dropped.
pub(crate) fn between(
    gate: &Gate,
    mut proto: u8,
    payload: &[u8],
    state: &TunnelState,
) -> Result<(usize, Family), DropReason> {
    let mut at = 0;
    if let Some(options) = gate.udp.as_ref().filter(|_| proto == protocol::UDP) {
        if usize::from(be16(payload, 4)) != payload.len() {
            return Err(DropReason::TunnelHeader);
        }
        let inside = |body: &[u8]| match (gate.shape.between, body.first().map(|b| b >> 4)) {
            (Between::Gre, _) => Some(protocol::GRE),
            (_, Some(4)) => Some(protocol::IPV4),
            (_, Some(6)) => Some(protocol::IPV6),
            _ => None,
        };
        let kind: UdpKind = options.kind;
        (proto, at) = udp::read(payload, kind, inside)?;
    }
    let family = match (gate.shape.between, proto) {
        (Between::Gre, protocol::GRE) => {
            let options = gate.gre.unwrap_or_default();
            let (family, n) = gre::read(payload.get(at..).unwrap_or(&[]), &options, state)?;
            at += n;
            family
        }
        (Between::Nothing, protocol::IPV4) => Family::Inet,
        (Between::Nothing, protocol::IPV6) => Family::Inet6,
        _ => return Err(DropReason::TunnelFamily),
    };
    if gate.shape.carries.family(family) { Ok((at, family)) } else { Err(DropReason::TunnelFamily) }
}

/// Takes everything before the packet inside off and combines the ECN marks. The frame then starts at the inner IP header.
pub fn take_off(frame: &mut Frame, opened: &Opened) {
    frame.pull_front(opened.at);
    let d = frame.data_mut();
    let Some(&[first, second]) = d.first_chunk::<2>() else { return };
    match opened.family {
        Family::Inet6 => d[1] = (second & 0xcf) | (opened.ecn << 4),
        Family::Inet => {
            d[1] = (second & 0xfc) | opened.ecn;
            let sum = checksum::update_u16(be16(d, 10), u16::from_be_bytes([first, second]), be16(d, 0));
            if let Some(field) = d.get_mut(10..12) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
}
