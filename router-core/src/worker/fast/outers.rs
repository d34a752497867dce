//! What the first pass needs to know of tunnels: which outer protocols may be theirs, and those of this batch.

use super::known::{Known, wanted};
use crate::headers::protocol;
use crate::port::PortInfo;
use crate::tables::Tables;

/// A bare IP header outside.
pub(super) const BARE: u8 = 1;
/// GRE.
pub(super) const GRE: u8 = 2;
/// UDP, perhaps on its way to a tunnel's port.
pub(super) const UDP: u8 = 4;

/// By outer protocol: how tunnels with it are made; 0: it is none of theirs.
static KINDS: [u8; 256] = {
    let mut t = [0; 256];
    t[protocol::IPV6 as usize] = BARE;
    t[protocol::IPV4 as usize] = BARE;
    t[protocol::GRE as usize] = GRE;
    t[protocol::UDP as usize] = UDP;
    t
};

/// How a tunnel with this outer protocol is made.
#[inline(always)]
pub(super) fn kind_of(proto: u8) -> u8 {
    KINDS[usize::from(proto)]
}

/// The tunnels whose packets this batch has shown, worked out when the first packet asks.
pub(super) struct Outers<'t> {
    pub port: &'t PortInfo,
    pub tables: &'t Tables,
    /// Which kinds of tunnels there are here.
    wanted: u8,
    known: Option<Known<'t>>,
}

impl<'t> Outers<'t> {
    #[inline]
    pub(super) fn new(port: &'t PortInfo, tables: &'t Tables) -> Self {
        let wanted = if tables.decap.is_empty() { 0 } else { wanted(port, tables) };
        Outers { port, tables, wanted, known: None }
    }

    /// Whether a packet with this outer protocol may come out of a tunnel. `payload` is behind the outer header.
    #[inline(always)]
    pub(super) fn may_hold(&self, proto: u8, payload: impl Fn(usize) -> Option<u8>) -> bool {
        let kind = kind_of(proto) & self.wanted;
        kind != 0 && (kind != UDP || self.is_tunnel_port([payload(2), payload(3)]))
    }

    /// Whether a datagram to this port may be a tunnel's.
    #[inline(never)]
    fn is_tunnel_port(&self, port: [Option<u8>; 2]) -> bool {
        let [Some(a), Some(b)] = port else { return false };
        self.tables.gates.has_port(u16::from_be_bytes([a, b]))
    }

    #[inline]
    pub(super) fn known(&mut self) -> &mut Known<'t> {
        self.known.get_or_insert_with(|| Known::new(self.port, self.tables))
    }
}
