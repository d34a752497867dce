//! IPv4 to an IPv6 next hop, and the reverse, without a tunnel (RFC 8950, RFC 9229, draft-ietf-intarea-v4-via-v6).
//!
//! Only the search for the link-layer address is of the gateway's family (NDP for an IPv4 packet); on the wire goes a plain
//! IPv4 packet in a frame of EtherType 0x0800. No router on the way needs an IPv4 address.

use crate::drop_reason::DropReason;
use crate::forward::native::{rewrite, send_or_too_big};
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::object::Forward;
use crate::packet::Packet;

/// Forwarding through a resolved adjacency of the other family.
#[derive(Debug)]
pub struct ViaInet6<'a>(pub &'a Forward);

impl Forwarder for ViaInet6<'_> {
    fn name(&self) -> &str {
        "via-inet6"
    }

    #[inline]
    fn decide(&self, _cx: &Context<'_>, packet: &Packet, _bytes: &[u8]) -> Verdict {
        // The link's MTU holds for both families: the frame carries no more than the IPv4 packet.
        send_or_too_big(self.0, packet)
    }

    #[inline]
    fn apply(&self, cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        rewrite(cx, self.0, packet, frame)
    }
}
