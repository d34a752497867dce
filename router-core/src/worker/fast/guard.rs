//! What leaves the fast path because a port's guard has to see it: all packets of ports that judge them, and TCP SYNs, whose
//! segment size may have to be lowered, of ports and tunnels that clamp.

use super::{Lane, Passes};
use crate::addr::Family;
use crate::filter::PortFlags;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::object::Encap;
use crate::tables::Tables;

/// By IPv6's next header or IPv4's protocol: 1 for TCP, 2 for an extension header behind which TCP may be.
static MAY_BE_TCP: [u8; 256] = {
    let mut t = [0; 256];
    t[protocol::TCP as usize] = 1;
    let extensions = [
        protocol::HOP_BY_HOP,
        protocol::ROUTING,
        protocol::FRAGMENT,
        protocol::AH,
        protocol::DEST_OPTIONS,
        protocol::MOBILITY,
        protocol::HIP,
        protocol::SHIM6,
    ];
    let mut i = 0;
    while i < extensions.len() {
        t[extensions[i] as usize] = 2;
        i += 1;
    }
    t
};

/// Whether a plain packet, `data` from its IP header on, may be a TCP SYN.
#[inline(always)]
pub(super) fn maybe_syn(family: Family, data: &[u8]) -> bool {
    let (kind, flags) = match family {
        Family::Inet => (data.get(9), 33),
        Family::Inet6 => (data.get(6), 53),
    };
    match kind.map(|k| MAY_BE_TCP[usize::from(*k)]) {
        Some(0) | None => false,
        Some(1) => data.get(flags).is_none_or(|f| f & 2 != 0),
        Some(_) => family == Family::Inet6,
    }
}

/// The packet of a lane, from its IP header on.
#[inline(always)]
fn packet<'f>(lane: &Lane, frame: &'f Frame) -> &'f [u8] {
    frame.data().get(usize::from(lane.l2)..).unwrap_or(&[])
}

/// Whether an egress port with these flags wants to see the packet.
#[cold]
pub(super) fn keeps_out(flags: PortFlags, lane: &Lane, frame: &Frame) -> bool {
    flags.has(PortFlags::JUDGE_OUT)
        || flags.has(PortFlags::CLAMP) && lane.family.is_some_and(|f| maybe_syn(f, packet(lane, frame)))
}

/// Whether a tunnel wants to see what enters it: SYNs always, because tunnels clamp by default.
#[inline(always)]
pub(super) fn enters_guarded(tables: &Tables, encap: &Encap, lane: &Lane, frame: &Frame) -> bool {
    lane.family.is_some_and(|f| maybe_syn(f, packet(lane, frame)))
        || tables.guards.tunnels && tables.ports.flags(encap.tunnel).has(PortFlags::JUDGE_OUT)
}

impl Passes {
    /// Leaves what came in by a port with these flags to the general path, as far as the flags ask for it.
    #[cold]
    pub(super) fn leave_to_the_guard(&mut self, batch: &[Frame], flags: PortFlags) {
        for (lane, frame) in self.lanes.iter_mut().zip(batch) {
            let clamps = || lane.family.is_some_and(|f| maybe_syn(f, packet(lane, frame)));
            if flags.has(PortFlags::JUDGE_IN) || flags.has(PortFlags::CLAMP) && clamps() {
                *lane = Lane::GENERAL;
            }
        }
    }
}
