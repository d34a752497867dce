//! Translation between the families as a way of forwarding: the packet becomes one of the other family and goes round
//! again as received from the translator's port ([`crate::translate`]).

use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::packet::Packet;
use crate::translate::{Refusal, Translator, Way};

impl Forwarder for Translator {
    fn name(&self) -> &str {
        Translator::name(self)
    }

    fn decide(&self, cx: &Context<'_>, packet: &Packet, bytes: &[u8]) -> Verdict {
        let port = self.port();
        let consult = match self.check(cx.now, packet, bytes) {
            Ok(()) => false,
            Err(Refusal::Consult) => true,
            Err(Refusal::Drop(reason)) => return Verdict::Drop(reason),
        };
        let mtu = match self.way(packet) {
            Way::CutFirst { mtu } => return Verdict::TooBig { mtu },
            Way::Whole => None,
            Way::CutAfter { mtu } => Some(mtu),
        };
        if consult { Verdict::Consult { port, mtu } } else { Verdict::Again { port, mtu } }
    }

    fn apply(&self, cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        self.translate(cx.now, packet, frame, cx.ident)?;
        // RFC 7915 4.1, 5.1: one router, one hop.
        frame.meta.ttl_taken = true;
        Ok(())
    }
}
