//! Simulated networks: real routers, simple hosts, links as data, a fake clock.
//!
//! Every router is the product's own core (control side and one worker), so what is tested here is what runs. An hour of
//! simulated time passes in milliseconds, and the same seed gives the same run.

mod host;
pub mod packets;

pub use host::Host;

use router_core::addr::MacAddr;
use router_core::counters::{Totals, WorkerCounters};
use router_core::frame::{Frame, FramePool};
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::time::{Duration, Instant};
use router_core::worker::{Fixed, Outbox, Worker};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// Ports per simulated router, tunnels included.
const MAX_PORTS: usize = 64;

/// One end of a link: a node and its interface's index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Index of the node.
    pub node: usize,
    /// Router: the port's id. Host: always 0.
    pub port: u32,
}

/// A router of the simulation.
pub struct SimRouter {
    /// Its control side.
    pub router: Router,
    worker: Worker,
    out: Outbox,
    deadline: Option<Instant>,
    counters: [Arc<WorkerCounters>; 2],
}

impl SimRouter {
    fn new(settings: Settings, seed: u64) -> Self {
        let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(MAX_PORTS)));
        let mut r = SimRouter {
            router: Router::new(settings, seed, Arc::clone(&counters[0])),
            worker: Worker::new(Arc::clone(&counters[1]), seed),
            out: Outbox::new(MAX_PORTS, FramePool::new(512, 4096)),
            deadline: None,
            counters,
        };
        r.commit(Instant::ZERO);
        r
    }

    /// Makes changes visible to the worker.
    pub fn commit(&mut self, now: Instant) {
        self.router.commit(now, &mut |_| {});
    }

    /// Counters of both sides together.
    pub fn totals(&self) -> Totals {
        Totals::sum(self.counters.iter().map(|c| &**c))
    }

    fn receive(&mut self, now: Instant, port: PortId, frame: Frame) {
        let source = &mut Fixed(self.router.tables());
        self.worker.process(now, source, port, &mut vec![frame], &mut self.out);
        let punts: Vec<_> = self.out.punts.drain(..).collect();
        for punt in punts {
            self.router.handle(now, punt, &mut self.out);
        }
        self.commit(now);
        self.deadline = self.router.poll(now, &mut self.out);
        self.commit(now);
    }

    fn timer(&mut self, now: Instant) {
        self.deadline = self.router.poll(now, &mut self.out);
        self.commit(now);
    }
}

enum Node {
    Router(Box<SimRouter>),
    Host(Host),
}

/// A frame in flight, or a cut that takes effect.
struct Arrival {
    at: Instant,
    order: u64,
    to: End,
    bytes: Vec<u8>,
}

impl PartialEq for Arrival {
    fn eq(&self, o: &Self) -> bool {
        (self.at, self.order) == (o.at, o.order)
    }
}
impl Eq for Arrival {}
impl PartialOrd for Arrival {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Arrival {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(o.at, o.order))
    }
}

/// A simulated network.
pub struct Net {
    now: Instant,
    nodes: Vec<Node>,
    peers: BTreeMap<End, End>,
    /// Links that swallow longer IP packets, in both directions.
    narrow: BTreeMap<End, u32>,
    flight: BinaryHeap<Reverse<Arrival>>,
    order: u64,
    delay: Duration,
}

impl Default for Net {
    fn default() -> Self {
        Net {
            now: Instant::from_millis(1),
            nodes: Vec::new(),
            peers: BTreeMap::new(),
            narrow: BTreeMap::new(),
            flight: BinaryHeap::new(),
            order: 0,
            delay: Duration::from_micros(50),
        }
    }
}

impl Net {
    /// The present time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Adds a router and returns its index.
    pub fn router(&mut self, settings: Settings) -> usize {
        let seed = 0x5eed + self.nodes.len() as u64;
        self.nodes.push(Node::Router(Box::new(SimRouter::new(settings, seed))));
        self.nodes.len() - 1
    }

    /// Adds a host with addresses such as `192.0.2.2/24` and gateways of its default routes, and returns its index.
    pub fn host(&mut self, addrs: &[&str], gateways: &[&str]) -> usize {
        let mac = MacAddr([2, 0, 0, 0, 0x10, self.nodes.len() as u8]);
        self.nodes.push(Node::Host(Host::new(mac, addrs, gateways)));
        self.nodes.len() - 1
    }

    /// The router of this index.
    pub fn r(&mut self, node: usize) -> &mut SimRouter {
        match &mut self.nodes[node] {
            Node::Router(r) => r,
            Node::Host(_) => panic!("node {node} is a host"),
        }
    }

    /// The host of this index.
    pub fn h(&mut self, node: usize) -> &mut Host {
        match &mut self.nodes[node] {
            Node::Host(h) => h,
            Node::Router(_) => panic!("node {node} is a router"),
        }
    }

    /// Adds an Ethernet port to a router.
    pub fn port(&mut self, node: usize, name: &str, mtu: u32, addrs: &[&str]) -> End {
        let now = self.now;
        let r = self.r(node);
        let n = r.router.ports().iter().count() as u8;
        let info = PortInfo {
            id: PortId::NONE,
            name: name.into(),
            ifindex: 0,
            kind: PortKind::Memory,
            medium: Medium::Ethernet,
            mac: Some(MacAddr([2, 0, 0, 0, node as u8 + 1, n])),
            mtu,
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps::default(),
            addrs: addrs.iter().map(|a| router_core::addr::parse_interface_addr(a).expect("address")).collect(),
        };
        let id = r.router.add_port(now, info).expect("port");
        r.commit(now);
        // Until it has made sure that nobody else has its addresses and told everybody (nothing is linked to it yet).
        self.flush(node);
        self.run(Duration::from_secs(5));
        End { node, port: id.0 }
    }

    /// The only interface of a host.
    pub fn nic(&self, host: usize) -> End {
        End { node: host, port: 0 }
    }

    /// Connects two ends.
    pub fn link(&mut self, a: End, b: End) {
        self.peers.insert(a, b);
        self.peers.insert(b, a);
    }

    /// Takes a link away without telling anybody (a silent failure).
    pub fn cut(&mut self, a: End) {
        if let Some(b) = self.peers.remove(&a) {
            self.peers.remove(&b);
        }
    }

    /// From now on the link at `a` swallows, in both directions and without telling anybody, what is longer than `mtu` bytes of IP.
    pub fn narrow(&mut self, a: End, mtu: u32) {
        let b = self.peers.get(&a).copied();
        self.narrow.extend([a].into_iter().chain(b).map(|end| (end, mtu)));
    }

    /// Runs a command on a router and makes it visible.
    pub fn with<T>(&mut self, node: usize, command: impl FnOnce(&mut Router, Instant, &mut Outbox) -> T) -> T {
        let now = self.now;
        let r = self.r(node);
        let result = command(&mut r.router, now, &mut r.out);
        r.commit(now);
        self.flush(node);
        result
    }

    /// Adds a route by its parts: destination, gateway, port.
    pub fn route(&mut self, node: usize, dst: &str, via: Option<&str>, dev: Option<&str>) {
        let mut spec = router_core::spec::RouteSpec::new(router_core::addr::parse_prefix(dst).expect("prefix"));
        spec.hops.push(router_core::spec::HopSpec {
            via: via.map(|v| v.parse().expect("gateway")),
            dev: dev.map(str::to_owned),
            weight: 1,
            onlink: false,
        });
        let result = self.with(node, |r, _, _| r.routing_mut().route(router_core::spec::RouteOp::Add, &spec));
        assert!(result.is_ok(), "{dst}: {result:?}");
    }

    /// Lets a host send an IP packet (resolving its gateway first).
    pub fn send(&mut self, host: usize, packet: Vec<u8>) {
        self.h(host).send(packet);
        self.flush(host);
    }

    /// Puts raw bytes on the wire that ends at `to`.
    pub fn inject(&mut self, to: End, bytes: Vec<u8>) {
        self.order += 1;
        self.flight.push(Reverse(Arrival { at: self.now + self.delay, order: self.order, to, bytes }));
    }

    /// Lets time pass until `duration` is over.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.flight.peek().map(|a| a.0.at);
            let timer = self.nodes.iter().enumerate().filter_map(|(i, n)| match n {
                Node::Router(r) => r.deadline.map(|d| (d, i)),
                Node::Host(_) => None,
            });
            let timer = timer.min();
            let next = [arrival, timer.map(|t| t.0)].into_iter().flatten().min();
            let Some(next) = next.filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let Some(Reverse(a)) = self.flight.pop() else { break };
                self.arrive(a);
            } else if let Some((_, node)) = timer {
                let now = self.now;
                let before = self.r(node).deadline;
                self.r(node).timer(now);
                assert!(
                    self.r(node).deadline != before || before.is_none_or(|d| d > now),
                    "a deadline must move forward"
                );
                self.flush(node);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, a: Arrival) {
        let now = self.now;
        match &mut self.nodes[a.to.node] {
            Node::Router(r) => r.receive(now, PortId(a.to.port), Frame::from_slice(&a.bytes)),
            Node::Host(h) => h.receive(&a.bytes),
        }
        self.flush(a.to.node);
    }

    /// Puts what a node wants to send on its links.
    fn flush(&mut self, node: usize) {
        let mut sent = Vec::new();
        match &mut self.nodes[node] {
            Node::Router(r) => {
                r.deadline = r.router.poll(self.now, &mut r.out);
                r.commit(self.now);
                for (port, queue) in r.out.tx.iter_mut().enumerate() {
                    for frame in queue.drain(..) {
                        sent.push((port as u32, frame.data().to_vec()));
                        r.out.pool.put(frame);
                    }
                }
            }
            Node::Host(h) => sent.extend(h.drain().into_iter().map(|b| (0, b))),
        }
        for (port, bytes) in sent {
            let end = End { node, port };
            let fits = self.narrow.get(&end).is_none_or(|mtu| bytes.len() <= 14 + *mtu as usize);
            if let Some(to) = self.peers.get(&end).copied().filter(|_| fits) {
                self.inject(to, bytes);
            }
        }
    }

    /// Asserts the conservation law on every router.
    pub fn check(&mut self) {
        for (i, n) in self.nodes.iter().enumerate() {
            if let Node::Router(r) = n {
                let totals = r.totals();
                if let Err(e) = totals.check() {
                    panic!("router {i}: {e}");
                }
            }
        }
    }
}
