//! Translation between IPv4 and IPv6: stateless (RFC 7915, with RFC 6052 addresses and RFC 7757 explicit mappings), the
//! CLAT of 464XLAT (RFC 6877) and NAT64 (RFC 6146).
//!
//! A translator is a virtual port. Routes of either family lead to it (`64:ff9b::/96 dev nat64`, `198.51.100.0/28 dev
//! nat64`), so the one longest-prefix-match table decides what is translated. [`crate::forward::translate`] carries it out:
//! the packet becomes one of the other family and goes round again as received from the translator, as it does behind a
//! tunnel.
//!
//! ```text
//! prefix, map         addresses: RFC 6052, RFC 7757
//! stateless, nat64    who becomes whom
//! walk, ends          reading: header chains, ports, ICMP
//! packet, transport   writing: IP header, checksums by the difference
//! icmp, quote         ICMP errors with the packet that they quote
//! ```

mod ends;
mod icmp;
mod map;
pub mod nat64;
mod packet;
mod prefix;
mod quote;
mod spec;
mod stateless;
#[cfg(test)]
mod tests;
mod transport;
mod walk;

pub use ends::{Ends, Ends4, Ends6};
pub use map::{Eam, EamError, EamTable};
pub use prefix::{Prefix, PrefixError, is_non_global};
pub use spec::{Filtering, MAX_POOL, MAX_SESSIONS, Timeouts, TranslateMode, TranslatorError, TranslatorSpec, UdpZero};
pub use walk::segments_left_pointer;

use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::packet::{Fragment, Packet};
use crate::port::PortId;
use crate::time::Instant;
use nat64::Nat64Map;
use packet::Manner;
use stateless::Stateless;
use std::net::IpAddr;

/// Why a packet is not translated, now or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Never.
    Drop(DropReason),
    /// The control side must look at it first: it makes a session, moves one on, or is a fragment.
    Consult,
}

/// The present time, and whether sessions are marked as used at it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The present time.
    pub now: Instant,
    /// False in a rehearsal, which leaves no marks.
    pub marks: bool,
}

/// How a packet is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The present time.
    pub clock: Clock,
    /// False once the control side has agreed.
    pub deciding: bool,
    /// Flags of a TCP segment; 0 for others.
    pub tcp_flags: u8,
    /// Just translated by the same translator.
    pub hairpin: bool,
}

/// Who becomes whom.
#[derive(Clone, Debug)]
enum Mapping {
    Stateless(Stateless),
    Nat64(Nat64Map),
}

/// A translator as the data plane has it. Immutable, but for marks on sessions.
#[derive(Clone, Debug)]
pub struct Translator {
    name: String,
    port: PortId,
    manner: Manner,
    mapping: Mapping,
}

impl Translator {
    /// A translator behind a port. `spec` must have been checked; `nat64` is the shared state for that mode.
    pub fn new(spec: &TranslatorSpec, port: PortId, nat64: Option<&Nat64Map>) -> Result<Self, TranslatorError> {
        let v4 = |a: &IpAddr| if let IpAddr::V4(a) = a { Some(*a) } else { None };
        let v6 = |a: &IpAddr| if let IpAddr::V6(a) = a { Some(*a) } else { None };
        let mapping = match nat64 {
            Some(map) => Mapping::Nat64(map.clone()),
            None => Mapping::Stateless(Stateless {
                mode: spec.mode,
                prefix: spec.prefix,
                map: EamTable::new(&spec.map)?,
                allow_non_global: spec.allow_non_global,
                error_sources4: spec.error_source.iter().filter_map(v4).collect(),
                error_source6: spec.error_source.iter().find_map(v6),
            }),
        };
        let manner = Manner { ipv6_mtu: spec.ipv6_mtu, ignore_tos: spec.ignore_tos, udp_zero: spec.udp_zero_checksum };
        Ok(Translator { name: spec.name.clone(), port, manner, mapping })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port: where translated packets come from.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The prefix by which it represents IPv4 addresses, if it has one.
    pub fn prefix(&self) -> Option<Prefix> {
        match &self.mapping {
            Mapping::Stateless(s) => s.prefix,
            Mapping::Nat64(n) => Some(n.prefix),
        }
    }

    /// Whether fragments must be put together first: those behind the first have no ports (RFC 6146 3.4).
    fn needs_whole(&self) -> bool {
        matches!(self.mapping, Mapping::Nat64(_))
    }

    /// Decides about a packet without touching it.
    pub fn check(&self, clock: Clock, p: &Packet, data: &[u8]) -> Result<(), Refusal> {
        if p.fragment != Fragment::None && self.needs_whole() {
            return Err(Refusal::Consult);
        }
        let look = Look { clock, deciding: true, tcp_flags: tcp_flags(p, data), hairpin: false };
        match p.family {
            Family::Inet6 => packet::plan_v4(&self.mapping.looking(look), p, data).map(|_| ()),
            Family::Inet => packet::plan_v6(&self.mapping.looking(look), p, data).map(|_| ()),
        }
    }

    /// How a packet gets through. RFC 7915 4: without DF, what would be longer than the least IPv6 MTU is cut here.
    pub fn way(&self, p: &Packet) -> Way {
        if p.family == Family::Inet6 || (p.fragment != Fragment::None && self.needs_whole()) {
            return Way::Whole;
        }
        let header = u32::from(p.l4);
        let (fragment, mtu) = (p.fragment != Fragment::None, self.manner.ipv6_mtu);
        let grown = p.wire_len.saturating_sub(header) + if fragment { 48 } else { 40 };
        if p.df || grown <= mtu {
            return Way::Whole;
        }
        // A datagram whose checksum covers addresses is translated whole: ICMP and UDP without checksum need it.
        let first = !matches!(p.proto, protocol::TCP | protocol::UDP | protocol::ICMP);
        match first || fragment || p.wire_len < p.len {
            // Fragments, and the segments of a super-frame, one by one.
            true => Way::CutFirst { mtu: header + ((mtu - 48) & !7) },
            false => Way::CutAfter { mtu },
        }
    }

    /// Translates the packet in `frame`, about which [`Translator::check`] has said yes. `ident` is for an IPv4 packet
    /// whose IPv6 form had none. On an error the frame may be spoilt.
    pub fn translate(&self, clock: Clock, p: &Packet, frame: &mut Frame, ident: u16) -> Result<(), DropReason> {
        let hairpin = frame.meta.port == self.port;
        let look = Look { clock, deciding: false, tcp_flags: 0, hairpin };
        let gone = |why| match why {
            Refusal::Drop(reason) => reason,
            Refusal::Consult => DropReason::TranslateNoSession,
        };
        match p.family {
            Family::Inet => {
                let plan = packet::plan_v6(&self.mapping.looking(look), p, frame.data()).map_err(gone)?;
                packet::write_v6(frame, p, &plan, self.manner)
            }
            Family::Inet6 => {
                let plan = packet::plan_v4(&self.mapping.looking(look), p, frame.data()).map_err(gone)?;
                packet::write_v4(frame, p, &plan, self.manner, ident)
            }
        }
    }

    /// Ends of a packet as NAT64's control side wants them, with its TCP flags: None for one that has no business there.
    pub fn ends(p: &Packet, data: &[u8]) -> Option<(EndsOf, u8)> {
        let flags = tcp_flags(p, data);
        match p.family {
            Family::Inet => packet::ends_v4(p, data).map(|e| (EndsOf::V4(e), flags)),
            Family::Inet6 => packet::ends_v6(p, data).map(|e| (EndsOf::V6(e), flags)),
        }
    }
}

/// Ends of a packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndsOf {
    /// IPv4.
    V4(Ends4),
    /// IPv6.
    V6(Ends6),
}

/// How a packet gets through a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As one packet.
    Whole,
    /// It is cut to this length before, each piece translated by itself.
    CutFirst {
        /// In bytes, before translation.
        mtu: u32,
    },
    /// It is translated, then cut to this length.
    CutAfter {
        /// In bytes, after translation.
        mtu: u32,
    },
}

fn tcp_flags(p: &Packet, data: &[u8]) -> u8 {
    match (p.proto, p.fragment) {
        (protocol::TCP, Fragment::None | Fragment::First) => p.transport(data).get(13).copied().unwrap_or(0),
        _ => 0,
    }
}

/// A mapping and how it is looked at.
#[derive(Clone, Copy)]
struct Looking<'a> {
    mapping: &'a Mapping,
    look: Look,
}

impl Mapping {
    fn looking(&self, look: Look) -> Looking<'_> {
        Looking { mapping: self, look }
    }
}

impl Looking<'_> {
    fn to_v6(self, e: &Ends4) -> Result<Ends6, Refusal> {
        match self.mapping {
            Mapping::Stateless(s) => s.to_v6(e, self.look.hairpin, false),
            Mapping::Nat64(n) => n.to_v6(e, self.look),
        }
    }

    fn to_v4(self, e: &Ends6) -> Result<Ends4, Refusal> {
        match self.mapping {
            Mapping::Stateless(s) => s.to_v4(e, false),
            Mapping::Nat64(n) => n.to_v4(e, self.look),
        }
    }

    /// New ends of an ICMP error and of the packet that it quotes.
    fn error_to_v6(&self, outer: &Ends4, quoted: &Ends4) -> Result<(Ends6, Ends6), Refusal> {
        match self.mapping {
            Mapping::Stateless(s) => s.error_to_v6(outer, quoted, self.look.hairpin),
            Mapping::Nat64(n) => n.error_to_v6(outer, quoted),
        }
    }

    fn error_to_v4(&self, outer: &Ends6, quoted: &Ends6) -> Result<(Ends4, Ends4), Refusal> {
        match self.mapping {
            Mapping::Stateless(s) => s.error_to_v4(outer, quoted),
            Mapping::Nat64(n) => n.error_to_v4(outer, quoted),
        }
    }
}
