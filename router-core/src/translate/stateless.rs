//! Stateless address mapping: explicit pairs first (RFC 7757 3.3), then the prefix (RFC 6052).

use super::Refusal;
use super::ends::{Ends4, Ends6};
use super::map::EamTable;
use super::prefix::{Prefix, is_non_global};
use super::spec::TranslateMode;
use crate::drop_reason::DropReason;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How a stateless translator maps addresses.
#[derive(Clone, Debug)]
pub struct Stateless {
    pub(super) mode: TranslateMode,
    pub(super) prefix: Option<Prefix>,
    pub(super) map: EamTable,
    /// Let the well-known prefix represent addresses that are not global.
    pub(super) allow_non_global: bool,
    /// Sources of ICMP errors whose sender cannot be translated (RFC 6791), by family.
    pub(super) error_sources4: Vec<Ipv4Addr>,
    pub(super) error_source6: Option<Ipv6Addr>,
}

/// Which end of a packet an address is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

impl Stateless {
    /// Whether an address is on the side of this translator's own hosts, for a CLAT: mapped pairs are its own, the prefix
    /// is the rest of the world (RFC 6877 6.3).
    fn by_map_only(&self, own: bool) -> bool {
        self.mode == TranslateMode::Clat && own
    }

    fn by_prefix_only(&self, own: bool) -> bool {
        self.mode == TranslateMode::Clat && !own
    }

    fn addr6(&self, a: Ipv4Addr, own: bool, skip_map: bool) -> Option<Ipv6Addr> {
        if !self.by_prefix_only(own)
            && (!skip_map || self.prefix.is_none())
            && let Some(found) = self.map.to_v6(a)
        {
            return Some(found);
        }
        let prefix = self.prefix.filter(|_| !self.by_map_only(own))?;
        self.may_represent(prefix, a).then(|| prefix.embed(a))
    }

    fn addr4(&self, a: Ipv6Addr, own: bool) -> Option<Ipv4Addr> {
        if !self.by_prefix_only(own)
            && let Some(found) = self.map.to_v4(a)
        {
            return Some(found);
        }
        let prefix = self.prefix.filter(|_| !self.by_map_only(own))?;
        prefix.extract(a).filter(|v4| self.may_represent(prefix, *v4))
    }

    /// RFC 6052 3.1.
    fn may_represent(&self, prefix: Prefix, a: Ipv4Addr) -> bool {
        self.allow_non_global || prefix != Prefix::WELL_KNOWN || !is_non_global(a)
    }

    /// The ends of an IPv4 packet, translated. `hairpin`: this translator has just made it from an IPv6 packet; its
    /// source then stays recognisable as IPv4, so that answers come back the same way (RFC 7757 4.2).
    /// `quoted`: the packet is one that an ICMP error quotes, which travelled the other way.
    pub fn to_v6(&self, e: &Ends4, hairpin: bool, quoted: bool) -> Result<Ends6, Refusal> {
        // A quoted packet went from the IPv6 side to the IPv4 side: its source is the own host.
        let (source_own, skip_source, skip_dest) = match quoted {
            false => (true, hairpin, false),
            true => (false, false, hairpin),
        };
        let src = self.addr6(e.src, source_own, skip_source).ok_or(refused(End::Source))?;
        let dst = self.addr6(e.dst, !source_own, skip_dest).ok_or(refused(End::Destination))?;
        Ok(Ends6 { src, dst, sport: e.sport, dport: e.dport, proto: e.proto })
    }

    /// The ends of an IPv6 packet, translated.
    pub fn to_v4(&self, e: &Ends6, quoted: bool) -> Result<Ends4, Refusal> {
        let src = self.addr4(e.src, quoted).ok_or(refused(End::Source))?;
        let dst = self.addr4(e.dst, !quoted).ok_or(refused(End::Destination))?;
        Ok(Ends4 { src, dst, sport: e.sport, dport: e.dport, proto: e.proto })
    }

    /// An ICMPv4 error, and the packet that it quotes, which went the other way.
    pub(super) fn error_to_v6(&self, e: &Ends4, quoted: &Ends4, hairpin: bool) -> Result<(Ends6, Ends6), Refusal> {
        let inner = self.to_v6(quoted, hairpin, true)?;
        let dst = self.addr6(e.dst, false, false).ok_or(refused(End::Destination))?;
        let src = self.addr6(e.src, true, hairpin).or(self.error_source6).ok_or(refused(End::Source))?;
        Ok((Ends6 { src, dst, sport: 0, dport: 0, proto: e.proto }, inner))
    }

    /// An ICMPv6 error, and the packet that it quotes.
    pub(super) fn error_to_v4(&self, e: &Ends6, quoted: &Ends6) -> Result<(Ends4, Ends4), Refusal> {
        let inner = self.to_v4(quoted, true)?;
        let dst = self.addr4(e.dst, true).ok_or(refused(End::Destination))?;
        let src = self.addr4(e.src, false).unwrap_or_else(|| self.error_source4(e.src));
        Ok((Ends4 { src, dst, sport: 0, dport: 0, proto: e.proto }, inner))
    }

    /// The IPv4 source of an ICMPv6 error from a router whose address has no IPv4 counterpart: RFC 6791, the same one for
    /// the same router.
    pub(super) fn error_source4(&self, from: Ipv6Addr) -> Ipv4Addr {
        let n = self.error_sources4.len();
        let bits = from.to_bits();
        let hash = (bits ^ (bits >> 64)) as u64;
        let at = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        // RFC 7600 5.4: the dummy address, when none is configured.
        self.error_sources4.get(at as usize % n.max(1)).copied().unwrap_or(Ipv4Addr::new(192, 0, 0, 8))
    }
}

fn refused(end: End) -> Refusal {
    Refusal::Drop(match end {
        End::Source => DropReason::TranslateSource,
        End::Destination => DropReason::TranslateDestination,
    })
}
