//! Stateful NAT64 (RFC 6146): IPv6 hosts share IPv4 addresses.
//!
//! The control side owns the state ([`Nat64`]): bindings of an IPv6 transport address to an IPv4 one, and under each the
//! sessions with IPv4 peers. What workers need of it lies in a [`SessionTable`] that they read without locks. A packet
//! without a session there, and every TCP segment that opens or closes a connection, goes to the control side first;
//! all others are translated by the worker at once. docs/decisions/0008 says why.

mod pool;
mod state;
mod table;
mod tcp;
#[cfg(test)]
mod tests;

pub use pool::PoolRange;
pub use state::{Nat64, Nat64Stats, Probe, SessionInfo};
pub use table::SessionTable;
pub use tcp::TcpState;

use super::ends::{Ends4, Ends6};
use super::prefix::{Prefix, is_non_global};
use super::{Look, Refusal};
use crate::drop_reason::DropReason;
use crate::headers::protocol;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What a worker knows of a NAT64.
#[derive(Clone, Debug)]
pub struct Nat64Map {
    pub(super) prefix: Prefix,
    pub(super) allow_non_global: bool,
    pub(super) table: Arc<SessionTable>,
    pub(super) pool: Arc<[PoolRange]>,
}

/// TCP flags that change a session's state: FIN, SYN, RST.
const STATE_FLAGS: u8 = 0x07;

impl Nat64Map {
    /// The IPv4 peer that an IPv6 destination stands for.
    fn peer(&self, dst: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        let peer = self.prefix.extract(dst).filter(|a| self.may_represent(*a));
        peer.ok_or(Refusal::Drop(DropReason::TranslateDestination))
    }

    fn may_represent(&self, a: Ipv4Addr) -> bool {
        self.allow_non_global || self.prefix != Prefix::WELL_KNOWN || !is_non_global(a)
    }

    fn in_pool(&self, a: Ipv4Addr) -> bool {
        self.pool.iter().any(|r| r.contains(a))
    }

    /// What every packet from the IPv6 side must fulfil; its ends as a session has them.
    pub(super) fn outbound(&self, e: &Ends6) -> Result<Ends6Out, Refusal> {
        if !tracked(e.proto) {
            return Err(Refusal::Drop(DropReason::TranslateProtocol));
        }
        // RFC 6146 3.5: a source inside the prefix would loop.
        if self.prefix.contains(e.src) {
            return Err(Refusal::Drop(DropReason::TranslateSource));
        }
        Ok(Ends6Out { host: e.src, port: e.sport, peer: self.peer(e.dst)?, peer_port: e.dport, proto: e.proto })
    }

    /// What every packet from the IPv4 side must fulfil.
    pub(super) fn inbound(&self, e: &Ends4) -> Result<(), Refusal> {
        if !tracked(e.proto) {
            return Err(Refusal::Drop(DropReason::TranslateProtocol));
        }
        if !self.in_pool(e.dst) {
            return Err(Refusal::Drop(DropReason::TranslateDestination));
        }
        if !self.may_represent(e.src) {
            return Err(Refusal::Drop(DropReason::TranslateSource));
        }
        Ok(())
    }

    pub(super) fn to_v4(&self, e: &Ends6, look: Look) -> Result<Ends4, Refusal> {
        let out = self.outbound(e)?;
        if look.deciding && look.tcp_flags & STATE_FLAGS != 0 {
            return Err(Refusal::Consult);
        }
        let found = self.table.find6(&out).ok_or(Refusal::Consult)?;
        if look.deciding && !found.open {
            return Err(Refusal::Consult);
        }
        self.table.touch(&found, look.now);
        let (src, sport) = found.mapped;
        // An ICMP query has one identifier, the mapped one.
        let dport = if e.proto == protocol::ICMP { sport } else { e.dport };
        Ok(Ends4 { src, dst: out.peer, sport, dport, proto: e.proto })
    }

    pub(super) fn to_v6(&self, e: &Ends4, look: Look) -> Result<Ends6, Refusal> {
        self.inbound(e)?;
        if look.deciding && look.tcp_flags & STATE_FLAGS != 0 {
            return Err(Refusal::Consult);
        }
        let found = self.table.find4(e).ok_or(Refusal::Consult)?;
        if look.deciding && !found.open {
            return Err(Refusal::Consult);
        }
        self.table.touch(&found, look.now);
        let (dst, dport) = found.host;
        let sport = if e.proto == protocol::ICMP { dport } else { e.sport };
        Ok(Ends6 { src: self.prefix.embed(e.src), dst, sport, dport, proto: e.proto })
    }

    /// An ICMPv4 error about a packet of a session (RFC 6146 3.6.1): its new ends, and those of the quoted packet. Errors
    /// neither make nor keep sessions.
    pub(super) fn error_to_v6(&self, outer: &Ends4, quoted: &Ends4) -> Result<(Ends6, Ends6), Refusal> {
        let none = Refusal::Drop(DropReason::TranslateNoSession);
        if quoted.src != outer.dst || !self.may_represent(outer.src) {
            return Err(none);
        }
        let found = self.table.find4(&quoted.reversed()).ok_or(none)?;
        let (src, sport) = found.host;
        let dport = if quoted.proto == protocol::ICMP { sport } else { quoted.dport };
        let inner = Ends6 { src, dst: self.prefix.embed(quoted.dst), sport, dport, proto: quoted.proto };
        let new = Ends6 { src: self.prefix.embed(outer.src), dst: src, sport: 0, dport: 0, proto: outer.proto };
        Ok((new, inner))
    }

    /// An ICMPv6 error about a packet of a session. It may come from any router; it leaves from the address that the
    /// session has (RFC 6146 3.6.1).
    pub(super) fn error_to_v4(&self, outer: &Ends6, quoted: &Ends6) -> Result<(Ends4, Ends4), Refusal> {
        let none = Refusal::Drop(DropReason::TranslateNoSession);
        if quoted.src != outer.dst {
            return Err(none);
        }
        let out = self.outbound(&quoted.reversed()).map_err(|_| none)?;
        let found = self.table.find6(&out).ok_or(none)?;
        let (dst, dport) = found.mapped;
        let sport = if quoted.proto == protocol::ICMP { dport } else { quoted.sport };
        let inner = Ends4 { src: out.peer, dst, sport, dport, proto: quoted.proto };
        let new = Ends4 { src: dst, dst: out.peer, sport: 0, dport: 0, proto: outer.proto };
        Ok((new, inner))
    }
}

/// Protocols that have sessions.
fn tracked(proto: u8) -> bool {
    matches!(proto, protocol::TCP | protocol::UDP | protocol::ICMP)
}

/// A session as its IPv6 host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends6Out {
    /// The IPv6 host.
    pub host: Ipv6Addr,
    /// Its port or ICMP identifier.
    pub port: u16,
    /// The IPv4 peer.
    pub peer: Ipv4Addr,
    /// The peer's port; for ICMP the identifier again.
    pub peer_port: u16,
    /// TCP, UDP or ICMP.
    pub proto: u8,
}

impl Ends6Out {
    /// Equal for all packets of a session: an ICMP query's identifier belongs to the host alone.
    pub(super) fn key(mut self) -> Self {
        if self.proto == protocol::ICMP {
            self.peer_port = 0;
        }
        self
    }
}
