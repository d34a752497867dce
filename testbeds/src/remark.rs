//! A forwarder written outside the core, to prove that one plugs in without touching it: sets the DSCP (RFC 2474) of
//! every packet of its routes and lets them go on to the route's next hops.

use router_core::addr::Family;
use router_core::checksum;
use router_core::drop_reason::DropReason;
use router_core::forward::{Context, Forwarder, Verdict};
use router_core::frame::Frame;
use router_core::packet::Packet;

/// `forwarder remark`: marks with a fixed DSCP.
#[derive(Debug)]
pub struct Remark {
    /// 0 to 63.
    pub dscp: u8,
}

impl Forwarder for Remark {
    fn name(&self) -> &str {
        "remark"
    }

    fn decide(&self, cx: &Context<'_>, _packet: &Packet, _bytes: &[u8]) -> Verdict {
        Verdict::Continue(cx.next)
    }

    fn apply(&self, _cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        let tclass = (self.dscp << 2) | (packet.tclass & 3);
        let d = frame.data_mut();
        match packet.family {
            Family::Inet => {
                d[1] = tclass;
                checksum::fill_ipv4_header(d);
            }
            Family::Inet6 => {
                d[0] = 0x60 | (tclass >> 4);
                d[1] = (tclass << 4) | (d[1] & 0x0f);
            }
        }
        Ok(())
    }
}
