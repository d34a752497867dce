//! The discarding kinds of routes: blackhole, unreachable, prohibit, no route. Each has its drop reason, and the reason
//! decides about the ICMP answer.

use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::packet::Packet;

/// Drops every packet for one reason.
#[derive(Debug)]
pub struct Discard(pub DropReason);

impl Forwarder for Discard {
    fn name(&self) -> &str {
        self.0.name()
    }

    #[inline]
    fn decide(&self, _cx: &Context<'_>, _packet: &Packet, _bytes: &[u8]) -> Verdict {
        Verdict::Drop(self.0)
    }

    fn apply(&self, _cx: &Context<'_>, _packet: &Packet, _frame: &mut Frame) -> Result<(), DropReason> {
        Err(self.0)
    }
}
