//! The kernel as the router: one namespace that forwards, one whose packet sockets play the neighbours.

use crate::stream::{Given, marker};
use crate::{OWN, PEER, PORTS, Sent, Topology};
use router_core::frame::Frame;
use router_core::offload::complete_checksum;
use router_io::lab::{LabError, Net};
use router_io::port::packet::{self, PacketOptions, PacketQueue};
use router_io::port::{Receive, Transmit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::time::{Duration, Instant};

/// How long the kernel may take over one packet.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Kernel {
    net: Net,
}

impl Kernel {
    pub fn new(topology: &Topology) -> Result<Kernel, LabError> {
        let mut net = Net::new();
        net.hosts(&["r", "h"])?;
        for (i, name) in PORTS.into_iter().enumerate() {
            net.link_mtu(("h", ["eth0", "eth1"][i]), ("r", name), topology.mtus[i])?;
        }
        net.kernel_router("r")?;
        let (r, h) = (net.host("r")?, net.host("h")?);
        // The neighbours are packet sockets and nothing else.
        h.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        for (name, value) in [
            // No answer may depend on chance or on the time.
            ("net.ipv6.auto_flowlabels", "0"),
            ("net.ipv4.icmp_ratemask", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.lan0.send_redirects", "0"),
            ("net.ipv4.conf.wan0.send_redirects", "0"),
            ("net.ipv6.conf.all.accept_ra", "0"),
            // The address of the port by which the packet came (RFC 1812 4.3.2.4 leaves the choice).
            ("net.ipv4.icmp_errors_use_inbound_ifaddr", "1"),
        ] {
            r.set_sysctl(name, value)?;
        }
        for (i, name) in PORTS.into_iter().enumerate() {
            let index = r.netlink().link_index(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            // Nor on when the kernel gives up a neighbour that is nobody: its answers would come amid those of others.
            r.set_sysctl(&format!("net.ipv6.neigh.{name}.retrans_time_ms"), "600000")?;
            let mut link = r.netlink();
            let set = link.set_up(index, false).and_then(|()| link.set_mac(index, OWN[i]));
            set.and_then(|()| link.set_up(index, true)).unwrap_or_else(|e| panic!("{name}: {e}"));
            drop(link);
            for addr in topology.addrs[i] {
                net.addr("r", name, addr)?;
            }
        }
        for name in ["all", "lan0", "wan0"] {
            let value = if topology.source_routes { "1" } else { "0" };
            r.set_sysctl(&format!("net.ipv4.conf.{name}.accept_source_route"), value)?;
        }
        net.wait_ready(Duration::from_secs(10))?;
        for (i, name) in PORTS.into_iter().enumerate() {
            let index = r.netlink().link_index(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            for addr in topology.neighbors[i] {
                let addr = addr.parse().expect("address");
                r.netlink().add_neighbor(index, addr, PEER[i]).unwrap_or_else(|e| panic!("{addr}: {e}"));
            }
        }
        topology.routes.iter().try_for_each(|route| net.route("r", route))?;
        Ok(Kernel { net })
    }

    /// Sends the stream and returns what the kernel sent for each packet.
    pub fn run(&self, stream: &[Given]) -> Vec<Sent> {
        let h = self.net.host("h").expect("host");
        h.run(|| {
            // One processor, one queue: what a packet causes has left before its marker arrives.
            let mut one = CpuSet::new();
            let cpu = (0..CpuSet::MAX_CPU).find(|n| {
                let mut set = CpuSet::new();
                set.set(*n);
                sched_setaffinity(None, &set).is_ok()
            });
            one.set(cpu.expect("a processor"));
            sched_setaffinity(None, &one).expect("affinity");
            let mut ports = ["eth0", "eth1"].map(|device| {
                let options = PacketOptions { promiscuous: true, ..PacketOptions::default() };
                let (mut queues, _) = packet::open(device, device, options, 1).expect("packet socket");
                queues.remove(0)
            });
            stream.iter().enumerate().map(|(n, given)| one_packet(&mut ports, n as u32, given)).collect()
        })
    }
}

fn send(port: &mut PacketQueue, frame: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    let mut f = Frame::from_slice(frame);
    while let Err(e) = port.send(&mut f) {
        assert!(Instant::now() < deadline, "the kernel takes no frame: {e:?}");
        std::thread::yield_now();
        f = Frame::from_slice(frame);
    }
}

fn one_packet(ports: &mut [PacketQueue; 2], n: u32, given: &Given) -> Sent {
    send(&mut ports[given.port], &given.frame());
    let mark = marker(n);
    send(&mut ports[0], &mark.frame());
    let deadline = Instant::now() + PATIENCE;
    let mut sent = Sent::new();
    let mut frame = Frame::with_capacity(70_000);
    let mut marked = false;
    loop {
        let mut quiet = true;
        for (i, port) in ports.iter_mut().enumerate() {
            frame.reset();
            while port.recv(&mut frame).expect("reception") {
                quiet = false;
                complete_checksum(&mut frame).expect("checksum");
                let bytes = frame.data().to_vec();
                frame.reset();
                if i == 1 && bytes.ends_with(&mark.packet[20..]) {
                    marked = true;
                } else {
                    sent.push((i, bytes));
                }
            }
        }
        // Once the marker is here, all is here that came before: one more look at both, then it is done.
        if marked && quiet {
            return crate::rules::without_link_header(sent);
        }
        assert!(Instant::now() < deadline, "the marker behind packet {n} did not come: {given:?}");
    }
}
