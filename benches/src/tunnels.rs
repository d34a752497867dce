//! Tunnels of every mode in memory: a bed with one of them, and the packets that go in and come out.

use crate::bed::{Bed, Packets, Refused, Via, refused, route};
use ipnet::IpNet;
use router_core::counters::WorkerCounters;
use router_core::frame::{Frame, FramePool};
use router_core::port::PortId;
use router_core::spec::{TunnelMode, TunnelSpec};
use router_core::tunnel::spec::{UdpKind, UdpOptions};
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Our end and the peer's, by family.
const ENDS4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 8)];
const ENDS6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 8)];

/// A mode, and the family that is measured inside.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the row is called.
    pub name: String,
    spec: TunnelSpec,
    v6_inside: bool,
}

/// All that are measured.
pub fn cases() -> Vec<Case> {
    use TunnelMode::{AnyInSix, FourInFour, FourInSix, Gre, GreSix, SixInFour, SixInSix};
    let case = |mode: TunnelMode, v6_inside: bool, more: &str, change: &dyn Fn(&mut TunnelSpec)| {
        let ends: [IpAddr; 2] = if mode.shape().outer == router_core::addr::Family::Inet {
            ENDS4.map(Into::into)
        } else {
            ENDS6.map(Into::into)
        };
        let mut spec = TunnelSpec::new("t", mode, ends[0], ends[1]);
        change(&mut spec);
        Case { name: format!("{}{more}", mode.shape().name), spec, v6_inside }
    };
    let udp = |kind| {
        move |s: &mut TunnelSpec| {
            s.options.udp = Some(UdpOptions::new(kind, 5555));
        }
    };
    vec![
        case(SixInFour, true, "", &|_| {}),
        case(FourInSix, false, "", &|_| {}),
        case(SixInSix, true, "", &|_| {}),
        case(FourInFour, false, "", &|_| {}),
        case(AnyInSix, false, " with encapsulation limit", &|s| s.options.encaplimit = Some(4)),
        case(Gre, true, "", &|_| {}),
        case(GreSix, false, "", &|_| {}),
        case(Gre, true, " with key, sequence and checksum", &|s| {
            let g = &mut s.options.gre;
            (g.ikey, g.okey, g.oseq, g.icsum, g.ocsum) = (Some(5), Some(5), true, true, true);
        }),
        case(SixInFour, true, " in fou", &udp(UdpKind::Fou)),
        case(FourInSix, false, " in gue", &udp(UdpKind::Gue)),
        case(SixInFour, true, " with allowed sources", &|s| {
            s.options.allowed = vec![IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0).unwrap_or_else(|_| unreachable!())];
        }),
    ]
}

impl Case {
    fn bed(&self, spec: TunnelSpec) -> Result<Bed, Refused> {
        let mut bed = Bed::new()?;
        // The peer's router is made as ours is, but has not our address.
        let ours = bed.router.ports().get(PortId(1)).map(|p| p.addrs.clone()).unwrap_or_default();
        for net in ours.into_iter().filter(|n| n.addr() == spec.remote) {
            bed.router.del_addr(PortId(1), net).map_err(refused(net))?;
        }
        let remote = IpNet::from(spec.remote);
        bed.route(&route(remote, 1, Via::Own))?;
        bed.add_spec(spec)?;
        Ok(bed)
    }

    /// A router that sends everything for one destination into the tunnel, and such packets.
    ///
    /// # Errors
    /// Something that the router does not take.
    pub fn encapsulate(&self) -> Result<(Bed, Packets), Refused> {
        self.towards(self.spec.clone())
    }

    fn towards(&self, spec: TunnelSpec) -> Result<(Bed, Packets), Refused> {
        let name = spec.name.clone();
        let mut bed = self.bed(spec)?;
        let mut inside = route(self.inside(), 1, Via::Tunnel);
        inside.hops.iter_mut().for_each(|h| h.dev = Some(name.clone()));
        bed.route(&inside)?;
        bed.commit();
        Ok((bed, Packets::udp(&[self.destination()])))
    }

    fn inside(&self) -> IpNet {
        let (addr, len): (IpAddr, u8) = match self.v6_inside {
            true => (Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0).into(), 48),
            false => (Ipv4Addr::new(203, 0, 113, 0).into(), 24),
        };
        IpNet::new_assert(addr, len)
    }

    fn destination(&self) -> IpAddr {
        match self.v6_inside {
            true => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 7).into(),
            false => Ipv4Addr::new(203, 0, 113, 7).into(),
        }
    }

    /// A router that forwards what comes out of the tunnel, and packets as the peer sends them: those of a router whose
    /// tunnel has its ends exchanged.
    ///
    /// # Errors
    /// Something that the router does not take.
    pub fn decapsulate(&self) -> Result<(Bed, Packets), Refused> {
        let mut far = self.spec.clone();
        std::mem::swap(&mut far.local, &mut far.remote);
        let (peer, inner) = self.towards(far)?;
        let worker = Arc::new(WorkerCounters::new(8));
        let mut worker = Worker::new(worker, 1);
        let mut out = Outbox::new(8, FramePool::new(16, 2048));
        let mut frame = vec![Frame::from_slice(inner.get(0))];
        worker.process(peer.now, &mut Fixed(peer.router.tables()), PortId(1), &mut frame, &mut out);
        let mut sent = out.tx.into_iter().flatten().next().map_or_else(Vec::new, |f| f.data().to_vec());
        // As it arrives: from our neighbour, to us.
        let link = inner.get(0).get(..12).unwrap_or_default();
        if let Some(head) = sent.get_mut(..link.len()) {
            head.copy_from_slice(link);
        }
        let mut bed = self.bed(self.spec.clone())?;
        bed.route(&route(self.inside(), 1, Via::Own))?;
        bed.commit();
        Ok((bed, Packets::one(sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::measure;
    use crate::measure::Plan;
    use std::time::Duration;

    #[test]
    fn every_case_forwards_every_packet_both_ways() {
        let plan = Plan { runs: 1, time: Duration::from_millis(1) };
        for case in cases() {
            for (bed, packets) in [case.encapsulate().unwrap(), case.decapsulate().unwrap()] {
                measure(&bed, &packets, 32, plan, || 0).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            }
        }
    }
}
