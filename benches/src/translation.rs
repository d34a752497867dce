//! Translation of both kinds in memory, in both directions: a bed with a translator, and the packets for it.

use crate::bed::{Bed, HOST_MAC, IN_MAC, Packets, Refused, Via, refused, route};
use crate::traffic;
use router_core::checksum::checksum;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::port::PortId;
use router_core::spec::{HopSpec, RouteSpec};
use router_core::translate::{TranslateMode, TranslatorSpec};
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;

/// What is translated, and which way.
pub struct Case {
    /// What the row is called.
    pub name: &'static str,
    /// The router.
    pub bed: Bed,
    /// What it receives.
    pub packets: Packets,
}

/// The sender of [`traffic::udp`], in either family, and whom it talks to.
const NEAR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const FAR: &str = "203.0.113.7";
/// By the prefix 2001:db8:64::/96.
const FAR_MAPPED: &str = "2001:db8:64::cb00:7107";

fn addr(text: &str) -> Result<IpAddr, Refused> {
    text.parse().map_err(refused(text))
}

/// A datagram with its checksum, which translation keeps right.
fn datagram(to: IpAddr, ports: Option<[u8; 2]>) -> Vec<u8> {
    let mut packet = traffic::udp(to, HOST_MAC.0, IN_MAC.0);
    let (addrs, at) = if to.is_ipv4() { (26..34, 34) } else { (22..54, 54) };
    if let Some(port) = ports {
        packet[at + 2..at + 4].copy_from_slice(&port);
    }
    let len = u16::from_be_bytes([packet[at + 4], packet[at + 5]]);
    let pseudo = [&packet[addrs], &[0, 17], &len.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo, &packet[at..at + usize::from(len)]].concat());
    packet[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A router with this translator; packets for it are routed there, all others to the gateways.
fn bed(spec: TranslatorSpec, inward: &[&str]) -> Result<Bed, Refused> {
    let mut bed = Bed::new()?;
    let name = spec.name.clone();
    bed.router.add_translator(bed.now, spec).map_err(refused("the translator"))?;
    // The host inside, too, sits behind a gateway: what is measured has the same way out in each case.
    for net in ["203.0.113.0/24", "2001:db8:46::/48", "2001:db8::2/128"] {
        bed.route(&route(net.parse().map_err(refused(net))?, 1, Via::Own))?;
    }
    for net in inward {
        let mut to = RouteSpec::new(net.parse().map_err(refused(net))?);
        to.hops.push(HopSpec { via: None, dev: Some(name.clone()), weight: 1, onlink: false });
        bed.route(&to)?;
    }
    bed.commit();
    Ok(bed)
}

/// What comes out of a router that gets this packet. The first one of a session is for the control side, which opens it.
fn out_of(bed: &mut Bed, packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let counters = Arc::new(WorkerCounters::new(8));
    let mut worker = Worker::new(Arc::clone(&counters), 1);
    let mut out = Outbox::new(8, FramePool::new(16, 2048));
    (0..8).for_each(|port| out.make_room(PortId(port)));
    let mut frame = vec![Frame::from_slice(packet)];
    worker.process(bed.now, &mut Fixed(bed.router.tables()), PortId(1), &mut frame, &mut out);
    for punt in std::mem::take(&mut out.punts) {
        bed.router.handle(bed.now, punt, &mut out);
    }
    bed.commit();
    let sent = out.tx.into_iter().flatten().next().map(|f| f.data().to_vec());
    let dropped = Totals::sum([&*counters]).dropped;
    sent.ok_or_else(|| refused("a packet to be translated")(format!("{dropped:?}")))
}

/// All that are measured.
///
/// # Errors
/// Something that the router does not take, or a NAT64 that opens no session.
pub fn cases() -> Result<Vec<Case>, Refused> {
    let spec = |mode, change: &dyn Fn(&mut TranslatorSpec)| {
        let mut spec = TranslatorSpec::new("x", mode);
        spec.prefix = "2001:db8:64::/96".parse().ok();
        change(&mut spec);
        spec
    };
    let [near4, near6] = NEAR;
    let siit = |s: &mut TranslatorSpec| {
        // The host inside has both addresses; who is asked by name of IPv4 sits behind the gateway of IPv6.
        let pairs = [format!("{near4} = {near6}"), format!("{FAR} = 2001:db8:46::7")];
        s.map = pairs.iter().filter_map(|p| p.parse().ok()).collect();
    };
    let nat64 = |s: &mut TranslatorSpec| s.pool = "198.51.100.1".parse().into_iter().collect();
    let one = |to: IpAddr, port| Packets::one(datagram(to, port));
    let far = addr(FAR)?;
    let mut list = vec![
        Case {
            name: "SIIT, IPv6 to IPv4",
            bed: bed(spec(TranslateMode::Siit, &siit), &["2001:db8:64::/96"])?,
            packets: one(addr(FAR_MAPPED)?, None),
        },
        Case {
            name: "SIIT, IPv4 to IPv6",
            bed: bed(spec(TranslateMode::Siit, &siit), &["203.0.113.7/32"])?,
            packets: one(far, None),
        },
        Case {
            name: "NAT64, IPv6 to IPv4",
            bed: bed(spec(TranslateMode::Nat64, &nat64), &["2001:db8:64::/96", "198.51.100.1/32"])?,
            packets: one(addr(FAR_MAPPED)?, None),
        },
    ];
    // What comes back is for the port that the session got.
    let mut back = bed(spec(TranslateMode::Nat64, &nat64), &["2001:db8:64::/96", "198.51.100.1/32"])?;
    let sent = out_of(&mut back, &datagram(addr(FAR_MAPPED)?, None))?;
    let port = sent.get(34..36).and_then(|p| <[u8; 2]>::try_from(p).ok());
    let port = port.ok_or_else(|| refused("NAT64")("a packet without ports"))?;
    list.push(Case { name: "NAT64, IPv4 to IPv6", bed: back, packets: one(addr("198.51.100.1")?, Some(port)) });
    // Sessions are opened before anything is measured: opening one takes memory, using it none.
    for case in &mut list {
        out_of(&mut case.bed, case.packets.get(0))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::measure;
    use crate::measure::Plan;
    use std::time::Duration;

    #[test]
    fn every_case_translates_every_packet() {
        let plan = Plan { runs: 1, time: Duration::from_millis(1) };
        for mut case in cases().unwrap() {
            measure(&case.bed, &case.packets, 32, plan, || 0).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let after = out_of(&mut case.bed, case.packets.get(0)).unwrap();
            assert_ne!(case.packets.get(0)[12..14], after[12..14], "{}: another family", case.name);
        }
    }
}
