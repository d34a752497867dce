//! What the first pass needs to know of tunnels: which outer protocols may be theirs, and those of this batch.

use super::known::{Known, wanted, what};
use super::tunnel::expect;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::port::PortInfo;
use crate::tables::Tables;

/// A bare IP header outside.
pub(super) const BARE: u8 = 1;
/// GRE.
pub(super) const GRE: u8 = 2;
/// UDP, perhaps on its way to a tunnel's port.
pub(super) const UDP: u8 = 4;
/// Destination options, which may be an encapsulation limit with any of the above behind.
pub(super) const LIMIT: u8 = 8;

/// See [`Outers::expect`].
const FAR: usize = 1024;

/// By outer protocol: how tunnels with it are made; 0: it is none of theirs.
static KINDS: [u8; 256] = {
    let mut t = [0; 256];
    t[protocol::IPV6 as usize] = BARE;
    t[protocol::IPV4 as usize] = BARE;
    t[protocol::GRE as usize] = GRE;
    t[protocol::UDP as usize] = UDP;
    t[protocol::DEST_OPTIONS as usize] = LIMIT;
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

    /// Where there are so many tunnels that what a search needs is mostly in no near cache: fetches it for a whole batch, whose
    /// IP headers are `l2` bytes from the beginning.
    #[inline]
    pub(super) fn expect(&self, batch: &[Frame], l2: usize) {
        if self.wanted & BARE != 0 {
            let peers = |proto| self.tables.decap.peers(proto, self.port.table);
            let (six, four) = (peers(protocol::IPV6), peers(protocol::IPV4));
            if six.into_iter().chain(four).any(|p| p.len() > FAR) {
                expect(batch, l2, six, four);
            }
        }
    }

    /// Whether a packet with this outer protocol may come out of a tunnel.
    #[inline(always)]
    pub(super) fn may_hold(&self, proto: u8) -> bool {
        kind_of(proto) & self.wanted != 0
    }

    /// By what a packet is told apart beside its ends ([`what`]); None: a datagram that no tunnel waits for.
    #[inline(always)]
    pub(super) fn what(&self, proto: u8, packet: &[u8], header: usize) -> Option<u64> {
        if kind_of(proto) == BARE {
            return Some(u64::from(proto));
        }
        let payload = packet.get(header..)?;
        (proto != protocol::UDP || self.is_tunnel_port(payload)).then(|| what(proto, payload))
    }

    #[inline(never)]
    fn is_tunnel_port(&self, datagram: &[u8]) -> bool {
        datagram.get(2..4).is_some_and(|port| self.tables.gates.has_port(u16::from_be_bytes([port[0], port[1]])))
    }

    #[inline]
    pub(super) fn known(&mut self) -> &mut Known<'t> {
        self.known.get_or_insert_with(|| Known::new(self.port, self.tables))
    }
}
