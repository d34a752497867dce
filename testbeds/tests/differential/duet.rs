//! The router's core on the topology of the test: control side and one worker, frame by frame.

use crate::rules::{Facts, is_error, without_link_header};
use crate::stream::Given;
use crate::{OWN, PEER, PORTS, Sent, Topology};
use router_core::addr::{parse_interface_addr, parse_prefix};
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::headers::ipv4_options::{LSRR, SSRR};
use router_core::headers::option_policy::OptionAction;
use router_core::neighbor::SetMode;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, RouteKind, RouteOp, RouteSpec};
use router_core::time::{Duration, Instant};
use router_core::worker::{Fixed, Outbox, Worker};
use std::sync::Arc;
use testbeds::sim::packets::{checksums_right, sum16};

/// See the module.
pub struct Duet {
    router: Router,
    worker: Worker,
    out: Outbox,
    now: Instant,
    counters: [Arc<WorkerCounters>; 2],
}

fn settings(topology: &Topology) -> Settings {
    let mut s = Settings::default();
    // As the kernel of a lab: limits would hide answers, and the kernel's redirects depend on the time of day.
    s.icmp.error_rate = 1_000_000;
    s.icmp.error_burst = 1_000_000;
    s.icmp.peer_rate = 1_000_000;
    s.icmp.peer_burst = 1_000_000;
    s.icmp.echo_rate = 1_000_000;
    s.icmp.echo_burst = 1_000_000;
    s.icmp.redirects = false;
    s.neighbor.dad_transmits = 0;
    s.neighbor.announcements = 0;
    if topology.source_routes {
        s.ipv4_options.set(LSRR, OptionAction::Process);
        s.ipv4_options.set(SSRR, OptionAction::Process);
    }
    s
}

impl Duet {
    pub fn new(topology: &Topology) -> Duet {
        let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(8)));
        let mut duet = Duet {
            router: Router::new(settings(topology), 7, Arc::clone(&counters[0])),
            worker: Worker::new(Arc::clone(&counters[1]), 7),
            out: Outbox::new(8, FramePool::new(256, 4096)),
            now: Instant::from_millis(1000),
            counters,
        };
        for (i, name) in PORTS.into_iter().enumerate() {
            let info = PortInfo {
                id: PortId::NONE,
                name: name.into(),
                ifindex: 0,
                kind: PortKind::Memory,
                medium: Medium::Ethernet,
                mac: Some(OWN[i]),
                mtu: topology.mtus[i],
                vlan: None,
                table: TableId::MAIN,
                up: true,
                admin_up: true,
                caps: PortCaps::default(),
                addrs: topology.addrs[i].iter().map(|a| parse_interface_addr(a).expect("address")).collect(),
            };
            let id = duet.router.add_port(duet.now, info).expect("port");
            for addr in topology.neighbors[i] {
                let spec = NeighSpec {
                    addr: addr.parse().expect("address"),
                    dev: name.into(),
                    lladdr: Some(PEER[i]),
                    state: None,
                    router: false,
                };
                duet.router.set_neighbor(duet.now, id, SetMode::Add, &spec, &mut duet.out).expect("neighbour");
            }
        }
        duet.commit();
        for route in topology.routes {
            duet.router.routing_mut().route(RouteOp::Add, &spec(route)).expect("route");
        }
        duet.commit();
        duet
    }

    fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    /// Hands a packet to its port and returns what leaves.
    pub fn send(&mut self, given: &Given) -> Sent {
        self.now = self.now + Duration::from_micros(100);
        let port = PortId(given.port as u32 + 1);
        let source = &mut Fixed(self.router.tables());
        self.worker.process(self.now, source, port, &mut vec![Frame::from_slice(&given.frame())], &mut self.out);
        let punts: Vec<_> = self.out.punts.drain(..).collect();
        for punt in punts {
            self.router.handle(self.now, punt, &mut self.out);
        }
        self.commit();
        let mut sent = Vec::new();
        for (i, queue) in self.out.tx.iter_mut().enumerate() {
            for f in queue.drain(..) {
                sent.push((i - 1, f.data().to_vec()));
                self.out.pool.put(f);
            }
        }
        // Answers to hosts that are not there keep their frames: nobody tells this router of the time that passes.
        self.out.pool.refill(64);
        Totals::sum(self.counters.iter().map(|c| &**c)).check().expect("every frame ends once");
        let sent = without_link_header(sent);
        for (_, p) in &sent {
            let header = usize::from(p[0] & 15) * 4;
            assert!(p[0] >> 4 == 6 || sum16(&[&p[..header]]) == 0, "header checksum: {p:02x?}");
            let made = is_error(p) && !Facts::of(&given.packet).passed_on(&vec![(0, p.clone())]);
            assert!(!made || checksums_right(p), "checksum of an error: {p:02x?}");
        }
        sent
    }
}

/// Reads the few words of [`ROUTES`].
fn spec(route: &str) -> RouteSpec {
    let words: Vec<&str> = route.split(' ').collect();
    match words[..] {
        [dst, "via", via, "dev", dev] => {
            let mut spec = RouteSpec::new(parse_prefix(dst).expect("prefix"));
            let via = Some(via.parse().expect("gateway"));
            spec.hops.push(HopSpec { via, dev: Some(dev.into()), weight: 1, onlink: false });
            spec
        }
        [kind, dst] => {
            let mut spec = RouteSpec::new(parse_prefix(dst).expect("prefix"));
            spec.kind = match kind {
                "blackhole" => RouteKind::Blackhole,
                "unreachable" => RouteKind::Unreachable,
                _ => RouteKind::Prohibit,
            };
            spec
        }
        _ => panic!("{route}"),
    }
}
