//! One router with two Ethernet ports and hosts that are known to it, driven frame by frame.

use router_core::addr::{Family, MacAddr, parse_interface_addr, parse_prefix};
use router_core::counters::{Totals, WorkerCounters};
use router_core::drop_reason::DropReason;
use router_core::frame::{Frame, FramePool};
use router_core::neighbor::SetMode;
use router_core::packet::Packet;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::router::Router;
use router_core::settings::Settings;
use router_core::spec::{HopSpec, NeighSpec, RouteOp, RouteSpec};
use router_core::time::{Duration, Instant};
use router_core::trace::LastDrop;
use router_core::worker::{Fixed, Outbox, Worker};
use std::net::IpAddr;
use std::sync::Arc;

/// The port towards the sender.
pub const LAN: PortId = PortId(1);
/// The port towards the rest.
pub const WAN: PortId = PortId(2);
/// The sender's link-layer address.
pub const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0x10, 1]);
/// Another router on the sender's link.
pub const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0x10, 2]);
/// The gateway behind the other port.
pub const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0x10, 3]);
/// Link-layer addresses of the router's ports.
pub const OWN: [MacAddr; 3] = [MacAddr([0; 6]), MacAddr([2, 0, 0, 0, 0xff, 1]), MacAddr([2, 0, 0, 0, 0xff, 2])];

/// Addresses of `LAN`.
pub const LAN_ADDRS: &[&str] = &["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"];
/// Addresses of `WAN`.
pub const WAN_ADDRS: &[&str] = &["198.51.100.1/24", "2001:db8:1::1/64", "fe80::1/64"];

/// See the module.
pub struct Rig {
    pub router: Router,
    pub now: Instant,
    worker: Worker,
    out: Outbox,
    counters: [Arc<WorkerCounters>; 2],
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

impl Rig {
    /// Ports: `LAN` with 192.0.2.1/24, 2001:db8::1/64 and fe80::1; `WAN` (MTU 1400) with 198.51.100.1/24 and
    /// 2001:db8:1::1/64. Neighbours: .2 and .3 of each. Default routes lead to 198.51.100.2 and 2001:db8:1::2.
    pub fn new(settings: Settings) -> Rig {
        Rig::with_addrs(settings, LAN_ADDRS, WAN_ADDRS)
    }

    /// The same with other addresses.
    pub fn with_addrs(settings: Settings, lan: &[&str], wan: &[&str]) -> Rig {
        let mut rig = Rig::just_started(settings, lan, wan);
        rig.pass(Duration::from_secs(30));
        rig
    }

    /// The same before the router has said a word.
    pub fn just_started(settings: Settings, lan: &[&str], wan: &[&str]) -> Rig {
        let counters = [0, 1].map(|_| Arc::new(WorkerCounters::new(8)));
        let mut rig = Rig {
            router: Router::new(settings, 7, Arc::clone(&counters[0])),
            now: Instant::from_millis(86_400_123),
            worker: Worker::new(Arc::clone(&counters[1]), 7),
            out: Outbox::new(8, FramePool::new(256, 4096)),
            counters,
        };
        for (name, mac, mtu, addrs) in [("lan0", OWN[1], 1500, lan), ("wan0", OWN[2], 1400, wan)] {
            let info = PortInfo {
                id: PortId::NONE,
                name: name.into(),
                ifindex: 0,
                kind: PortKind::Memory,
                medium: Medium::Ethernet,
                mac: Some(mac),
                mtu,
                vlan: None,
                table: TableId::MAIN,
                up: true,
                admin_up: true,
                caps: PortCaps::default(),
                addrs: addrs.iter().map(|a| parse_interface_addr(a).expect("address")).collect(),
            };
            rig.router.add_port(rig.now, info).expect("port");
        }
        for (port, mac, addrs) in [
            (LAN, HOST, ["192.0.2.2", "2001:db8::2", "fe80::2"]),
            (LAN, OTHER, ["192.0.2.3", "2001:db8::3", "fe80::3"]),
            (WAN, GATEWAY, ["198.51.100.2", "2001:db8:1::2", "fe80::2"]),
        ] {
            for addr in addrs {
                rig.neighbor(port, addr, mac);
            }
        }
        rig.commit();
        rig
    }

    /// Makes a neighbour known for good.
    pub fn neighbor(&mut self, port: PortId, addr: &str, mac: MacAddr) {
        let spec = NeighSpec { addr: ip(addr), dev: String::new(), lladdr: Some(mac), state: None, router: false };
        self.router.set_neighbor(self.now, port, SetMode::Replace, &spec, &mut self.out).expect("neighbour");
        self.commit();
    }

    /// Adds a route.
    pub fn route(&mut self, dst: &str, via: &str, dev: &str) {
        let mut spec = RouteSpec::new(parse_prefix(dst).expect("prefix"));
        spec.hops.push(HopSpec { via: Some(ip(via)), dev: Some(dev.into()), weight: 1, onlink: false });
        self.router.routing_mut().route(RouteOp::Add, &spec).expect("route");
        self.commit();
    }

    pub fn commit(&mut self) {
        while self.router.commit(self.now, &mut |_| {}) {}
    }

    /// Runs a command that may send.
    pub fn with<T>(&mut self, command: impl FnOnce(&mut Router, Instant, &mut Outbox) -> T) -> T {
        let result = command(&mut self.router, self.now, &mut self.out);
        self.commit();
        result
    }

    /// Hands a frame to a port and returns all that leaves.
    pub fn frame(&mut self, port: PortId, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        let source = &mut Fixed(self.router.tables());
        self.worker.process(self.now, source, port, &mut vec![Frame::from_slice(frame)], &mut self.out);
        let punts: Vec<_> = self.out.punts.drain(..).collect();
        for punt in punts {
            self.router.handle(self.now, punt, &mut self.out);
        }
        self.commit();
        self.collect()
    }

    /// Lets time pass and returns all that leaves.
    pub fn pass(&mut self, time: Duration) -> Vec<(PortId, Vec<u8>)> {
        let end = self.now + time;
        while let Some(at) = self.router.poll(self.now, &mut self.out).filter(|at| *at <= end) {
            self.now = self.now.max(at);
        }
        self.now = end;
        self.router.poll(self.now, &mut self.out);
        self.commit();
        self.collect()
    }

    fn collect(&mut self) -> Vec<(PortId, Vec<u8>)> {
        self.router.poll(self.now, &mut self.out);
        let mut sent = Vec::new();
        for (port, queue) in self.out.tx.iter_mut().enumerate() {
            for f in queue.drain(..) {
                sent.push((PortId(port as u32), f.data().to_vec()));
                self.out.pool.put(f);
            }
        }
        self.totals();
        sent
    }

    /// Counters of both sides; the conservation law must hold.
    pub fn totals(&self) -> Totals {
        let totals = Totals::sum(self.counters.iter().map(|c| &**c));
        totals.check().expect("every frame ends once");
        totals
    }

    /// What was kept of packets that were dropped for a reason.
    pub fn last_drops(&self, reason: DropReason) -> Vec<LastDrop> {
        self.counters.iter().flat_map(|c| c.last_drops.read(reason)).collect()
    }

    /// Packets dropped that had come in by a port.
    pub fn dropped_at(&self, port: PortId) -> u64 {
        self.counters.iter().filter_map(|c| c.rare(port)).map(|p| p.rx_dropped.get()).sum()
    }

    /// Sends an IP packet from the host on `LAN` and returns the IP packets that leave, by port.
    pub fn send(&mut self, packet: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        self.frame(LAN, &frame_of(HOST, OWN[1], packet)).into_iter().map(|(p, f)| (p, f[14..].to_vec())).collect()
    }

    /// The same, for a packet that causes exactly one.
    pub fn send_one(&mut self, packet: &[u8]) -> (PortId, Vec<u8>) {
        let mut sent = self.send(packet);
        assert_eq!(sent.len(), 1, "{packet:02x?}: {sent:02x?}, {:?}", self.totals());
        sent.remove(0)
    }
}

/// An Ethernet frame around an IP packet.
pub fn frame_of(from: MacAddr, to: MacAddr, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&to.0[..], &from.0, &kind, packet].concat()
}

/// An IP packet.
pub fn packet(src: &str, dst: &str, proto: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    with_options(src, dst, proto, ttl, &[], payload)
}

/// An IPv4 packet with options (padded to four bytes), or an IPv6 packet whose payload starts with them.
pub fn with_options(src: &str, dst: &str, proto: u8, ttl: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    match (ip(src), ip(dst)) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let mut options = options.to_vec();
            options.resize(options.len().next_multiple_of(4), 0);
            let header = 20 + options.len();
            let total = ((header + payload.len()) as u16).to_be_bytes();
            let mut v = vec![0x40 | (header / 4) as u8, 0, total[0], total[1], 0, 7, 0, 0, ttl, proto, 0, 0];
            v.extend(s.octets());
            v.extend(d.octets());
            v.extend(options);
            let sum = slow_sum(&v).to_be_bytes();
            v[10..12].copy_from_slice(&sum);
            v.extend(payload);
            v
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let len = ((options.len() + payload.len()) as u16).to_be_bytes();
            let mut v = vec![0x60, 0, 0, 0, len[0], len[1], proto, ttl];
            v.extend(s.octets());
            v.extend(d.octets());
            v.extend(options);
            v.extend(payload);
            v
        }
        _ => panic!("addresses of two families"),
    }
}

/// An ICMP message with its checksum.
pub fn icmp(src: &str, dst: &str, ttl: u8, message: &[u8]) -> Vec<u8> {
    let mut m = message.to_vec();
    m[2..4].fill(0);
    let (proto, pseudo) = match (ip(src), ip(dst)) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let len = (m.len() as u32).to_be_bytes();
            (58, [&s.octets()[..], &d.octets(), &len, &[0, 0, 0, 58]].concat())
        }
        _ => (1, Vec::new()),
    };
    let sum = slow_sum(&[&pseudo[..], &m].concat()).to_be_bytes();
    m[2..4].copy_from_slice(&sum);
    packet(src, dst, proto, ttl, &m)
}

fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Parses a packet, asserts that its checksums are right, and returns its ICMP message.
pub fn read_icmp(bytes: &[u8]) -> (Packet, Vec<u8>) {
    let family = if bytes[0] >> 4 == 4 { Family::Inet } else { Family::Inet6 };
    let p = Packet::parse(family, bytes).expect("a packet");
    assert_eq!(p.proto, if family == Family::Inet { 1 } else { 58 });
    assert!(router_core::forward::local::checksum_ok(&p, bytes), "checksum");
    (p, p.transport(bytes).to_vec())
}
