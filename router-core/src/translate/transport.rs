//! Transport headers under a new IP header: ports, and checksums by the difference (RFC 7915 4.5, 5.5, RFC 1624).

use super::ends::{Ends, Payload};
use super::spec::UdpZero;
use crate::checksum::{self, Sum};
use crate::drop_reason::DropReason;
use crate::headers::{be16, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

/// DCCP (RFC 4340): its checksum covers a pseudo-header, too.
const DCCP: u8 = 33;

/// An address of either family, as words of a checksum.
pub(super) trait Words {
    fn sum(&self) -> Sum;
}

impl Words for Ipv4Addr {
    #[inline]
    fn sum(&self) -> Sum {
        Sum::ZERO.long(self.to_bits())
    }
}

impl Words for Ipv6Addr {
    #[inline]
    fn sum(&self) -> Sum {
        Sum::of(&self.octets())
    }
}

/// The sum of both addresses.
#[inline]
pub(super) fn addresses<A: Words>(e: &Ends<A>) -> Sum {
    e.src.sum().plus(e.dst.sum())
}

/// A field of a finished checksum after what it covers changed by these sums.
#[inline]
fn changed(field: u16, old: Sum, new: Sum) -> u16 {
    Sum::ZERO.word(!field).word(!old.fold()).plus(new).finish()
}

/// Where the checksum of a protocol lies whose pseudo-header holds the IP addresses.
pub(super) fn checksum_at(proto: u8) -> Option<usize> {
    match proto {
        protocol::TCP => Some(16),
        protocol::UDP | protocol::UDPLITE | DCCP => Some(6),
        _ => None,
    }
}

/// What surrounds a transport header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// The checksum field holds only the pseudo-header's sum so far.
    pub partial: bool,
    /// The whole datagram is in the packet.
    pub whole: bool,
    /// It is part of a quoted packet: what cannot be computed is left.
    pub quoted: bool,
    pub udp_zero: UdpZero,
}

/// Rewrites the transport header at the start of `l4` (TCP, UDP and relatives) from `old` to `new` ends. The packet may be
/// a first fragment or cut.
pub(super) fn rewrite<A: Words, B: Words>(
    l4: &mut [u8],
    old: &Ends<A>,
    new: &Ends<B>,
    payload: Payload,
    to_v6: bool,
    around: Surroundings,
) -> Result<(), DropReason> {
    let (was, is) = (addresses(old), addresses(new));
    let (mut was_all, mut is_all) = (was, is);
    if let Payload::Ports(sport, dport) = payload {
        l4[..2].copy_from_slice(&new.sport.to_be_bytes());
        l4[2..4].copy_from_slice(&new.dport.to_be_bytes());
        was_all = was.word(sport).word(dport);
        is_all = is.word(new.sport).word(new.dport);
    }
    let Some(at) = checksum_at(old.proto) else { return Ok(()) };
    let Some(field) = l4.get(at..at + 2).map(|f| u16::from_be_bytes([f[0], f[1]])) else {
        return if around.quoted { Ok(()) } else { Err(DropReason::TranslateMalformed) };
    };
    let value = if around.partial {
        // Ports are part of what is still to be summed.
        Sum::ZERO.word(field).word(!was.fold()).plus(is).fold()
    } else if old.proto == protocol::UDP && field == 0 {
        if !to_v6 || around.quoted {
            return Ok(());
        }
        if around.udp_zero == UdpZero::Drop || !around.whole {
            return Err(DropReason::TranslateUdpChecksum);
        }
        // RFC 8200 8.1: over IPv6 there is one. The length is the datagram's own.
        let len = usize::from(be16(l4, 4));
        if len < 8 || len > l4.len() {
            return Err(DropReason::TranslateMalformed);
        }
        is.word(u16::from(protocol::UDP)).long(len as u32).bytes(&l4[..len]).finish_udp()
    } else {
        match changed(field, was_all, is_all) {
            0 if old.proto == protocol::UDP => 0xffff,
            c => c,
        }
    };
    l4[at..at + 2].copy_from_slice(&value.to_be_bytes());
    Ok(())
}

/// Makes an ICMPv4 echo message an ICMPv6 one. `len` is the length of the whole message, which may be cut here.
pub(super) fn echo_to_v6(l4: &mut [u8], new: &Ends<Ipv6Addr>, id: u16, len: u32) {
    let kind = if l4[0] == 8 { 128 } else { 129 };
    let pseudo = checksum::pseudo_v6(new.src, new.dst, protocol::ICMPV6, len);
    echo(l4, kind, id, Sum::ZERO, pseudo);
}

/// Makes an ICMPv6 echo message an ICMPv4 one.
pub(super) fn echo_to_v4(l4: &mut [u8], old: &Ends<Ipv6Addr>, id: u16, len: u32) {
    let kind = if l4[0] == 128 { 8 } else { 0 };
    let pseudo = checksum::pseudo_v6(old.src, old.dst, protocol::ICMPV6, len);
    echo(l4, kind, id, pseudo, Sum::ZERO);
}

fn echo(l4: &mut [u8], kind: u8, id: u16, old: Sum, new: Sum) {
    let was = old.word(be16(l4, 0)).word(be16(l4, 4));
    l4[0] = kind;
    l4[4..6].copy_from_slice(&id.to_be_bytes());
    let is = new.word(be16(l4, 0)).word(id);
    let check = changed(be16(l4, 2), was, is);
    l4[2..4].copy_from_slice(&check.to_be_bytes());
}
