//! Native forwarding: the next hop speaks the packet's own family. Write the ready-made link header and send.

use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::object::Forward;
use crate::packet::Packet;

/// Forwarding through a resolved adjacency of the packet's own family (RFC 1812 5.2, RFC 8200 3).
#[derive(Debug)]
pub struct Native<'a>(pub &'a Forward);

impl Forwarder for Native<'_> {
    fn name(&self) -> &str {
        "native"
    }

    #[inline]
    fn decide(&self, _cx: &Context<'_>, packet: &Packet, _bytes: &[u8]) -> Verdict {
        send_or_too_big(self.0, packet)
    }

    #[inline]
    fn apply(&self, cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        rewrite(cx, self.0, packet, frame)
    }
}

/// The decision that native and via-inet6 forwarding share.
#[inline]
pub(super) fn send_or_too_big(hop: &Forward, packet: &Packet) -> Verdict {
    if packet.wire_len > hop.mtu { Verdict::TooBig { mtu: hop.mtu } } else { Verdict::Transmit(hop.port) }
}

/// Writes the link header in front of the packet. The EtherType follows the packet, whatever the gateway's family.
#[inline]
pub(super) fn rewrite(cx: &Context<'_>, hop: &Forward, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
    if !cx.rehearsal {
        hop.touch();
    }
    if !hop.rewrite.is_empty() {
        let room = frame.push_front(hop.rewrite.len()).ok_or(DropReason::NoHeadroom)?;
        hop.rewrite.write(packet.family, room);
    }
    Ok(())
}
