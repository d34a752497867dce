//! The runtime with real threads: memory ports anywhere, devices in namespaces of the test's own.

use super::*;
use crate::lab::Net;
use crate::netlink::KernelBlock;
use crate::port::Transmit;
use crate::port::open::PortConfig;
use crate::sandbox_test;
use router_core::counters::Totals;
use router_core::frame::Frame;
use router_core::port::{Medium, PortCaps, PortId, PortKind};
use router_core::spec::{HopSpec, RouteOp, RouteSpec};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn memory(name: &str) -> PortConfig {
    PortConfig { medium: Medium::Ip, ..PortConfig::new(name, PortKind::Memory) }
}

/// Asks until the answer is right.
fn until<T: Send + 'static>(
    handle: &RouterHandle,
    what: &str,
    ask: impl Fn(&mut Control) -> Option<T> + Send + Copy + 'static,
) -> T {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(t) = handle.call(ask).unwrap() {
            return t;
        }
        std::thread::yield_now();
    }
    panic!("{what}: not within {LIMIT:?}; {:?}", handle.call(|c| c.totals()));
}

#[test]
fn every_frame_is_accounted_for_and_a_stopped_router_says_so() {
    let runtime = Runtime::start(RuntimeConfig { workers: 2, ..Default::default() }).unwrap();
    let handle = runtime.handle();
    let (_, mut far) = handle.call(|c| c.add_memory_port(memory("m0"), PortCaps::default(), 4096)).unwrap().unwrap();
    assert!(matches!(handle.call(|c| c.add_port(memory("m0"))).unwrap(), Err(ControlError::Router(_))));
    // Nonsense of every length: all must be dropped under some name.
    for len in 0..1000usize {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        far.send(&mut Frame::from_slice(&bytes)).unwrap();
    }
    let totals: Totals =
        until(&handle, "all received", |c| Some(c.totals()).filter(|t| t.received == 1000 && t.check().is_ok()));
    assert_eq!(totals.dropped_total(), 1000);
    runtime.stop().unwrap();
    assert_eq!(handle.call(|_| ()), Err(Stopped));
}

/// A UDP packet over IPv4 from 192.0.2.2 to 198.51.100.2, TTL 64.
fn udp() -> Frame {
    let mut p = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 198, 51, 100, 2, 0, 7, 0, 7, 0, 8, 0, 0];
    let sum: u32 = p[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    p[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    Frame::from_slice(&p)
}

fn addressed(name: &str, addr: &str) -> PortConfig {
    PortConfig { addrs: vec![addr.parse().unwrap()], ..memory(name) }
}

#[test]
fn what_a_full_port_cannot_take_is_counted_as_such() {
    let runtime = Runtime::start(RuntimeConfig::default()).unwrap();
    let handle = runtime.handle();
    let add = |c: &mut Control, name: &str, addr: &str, capacity| {
        c.add_memory_port(addressed(name, addr), PortCaps::default(), capacity).unwrap()
    };
    let (_, mut left) = handle.call(move |c| add(c, "left", "192.0.2.1/24", 4096)).unwrap();
    let (right_id, mut right) = handle.call(move |c| add(c, "right", "198.51.100.1/24", 16)).unwrap();
    for _ in 0..1000 {
        left.send(&mut udp()).unwrap();
    }
    // A frame counts as transmitted until its port has refused it.
    let done = |t: &Totals| t.dropped.get("tx_full") == Some(&984) && t.check().is_ok();
    let totals = until(&handle, "all refused", move |c| Some(c.totals()).filter(done));
    assert_eq!((totals.received, totals.transmitted), (1000, 16));
    let port = handle.call(move |c| c.port_totals(right_id)).unwrap();
    assert_eq!((port.tx_packets, port.tx_bytes, port.tx_dropped), (16, 16 * 28, 984));
    for _ in 0..16 {
        let frame = right.take_timeout(LIMIT).unwrap();
        assert_eq!((frame.data()[8], frame.len()), (63, 28));
    }
    // The other end of a port goes away: the port loses its carrier, and the route over it goes.
    drop(right);
    left.send(&mut udp()).unwrap();
    until(&handle, "carrier lost", move |c| c.router().ports().get(right_id).filter(|p| !p.up).map(|_| ()));
    left.send(&mut udp()).unwrap();
    let done = |t: &Totals| t.dropped_total() == 984 + 2 && t.check().is_ok();
    let totals = until(&handle, "all ended", move |c| Some(c.totals()).filter(done));
    let ended = |reason| totals.dropped.get(reason).copied().unwrap_or(0);
    assert!(ended("no_route") > 0 && ended("no_route") + ended("port_gone") == 2, "{totals:?}");
    runtime.stop().unwrap();
}

#[test]
fn tables_change_under_traffic_without_a_lost_frame() {
    const FRAMES: u64 = 20_000;
    let runtime = Runtime::start(RuntimeConfig { workers: 2, ..Default::default() }).unwrap();
    let handle = runtime.handle();
    let add = |c: &mut Control, name: &str, addr: &str| {
        c.add_memory_port(addressed(name, addr), PortCaps::default(), 1 << 15).unwrap()
    };
    let (_, mut left) = handle.call(move |c| add(c, "left", "192.0.2.1/24")).unwrap();
    let (_, mut right) = handle.call(move |c| add(c, "right", "198.51.100.1/24")).unwrap();
    let writer = std::thread::spawn({
        let handle = handle.clone();
        move || {
            for i in 0..500u32 {
                let dst = format!("10.{}.{}.0/24", i / 250, i % 250);
                let mut route = RouteSpec::new(dst.parse().unwrap());
                route.hops = vec![HopSpec { dev: Some("right".into()), weight: 1, ..HopSpec::default() }];
                let op = if i % 3 == 2 { RouteOp::Replace } else { RouteOp::Add };
                handle.call(move |c| c.router_mut().routing_mut().route(op, &route)).unwrap().unwrap();
            }
        }
    });
    for _ in 0..FRAMES {
        left.send(&mut udp()).unwrap();
    }
    for _ in 0..FRAMES {
        right.take_timeout(LIMIT).unwrap();
    }
    writer.join().unwrap();
    let totals = until(&handle, "all received", |c| Some(c.totals()).filter(|t| t.check().is_ok()));
    assert_eq!((totals.received, totals.transmitted, totals.dropped_total()), (FRAMES, FRAMES, 0));
    // Former snapshots are freed although the workers are idle by now.
    until(&handle, "snapshots freed", |c| (c.retired_snapshots() == 0).then_some(()));
    runtime.stop().unwrap();
}

#[test]
fn frames_for_a_removed_port_are_not_lost_silently() {
    let runtime = Runtime::start(RuntimeConfig::default()).unwrap();
    let handle = runtime.handle();
    let (id, mut far) = handle.call(|c| c.add_memory_port(memory("m0"), PortCaps::default(), 64)).unwrap().unwrap();
    handle.call(move |c| c.remove_port(id)).unwrap().unwrap();
    assert!(matches!(handle.call(move |c| c.remove_port(id)).unwrap(), Err(ControlError::Router(_))));
    // The far end notices that the worker closed its queue.
    let deadline = Instant::now() + LIMIT;
    while far.send(&mut Frame::from_slice(&[0x45; 20])).is_ok() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(far.send(&mut Frame::from_slice(&[0x45; 20])).is_err());
    runtime.stop().unwrap();
}

#[test]
fn a_panic_on_the_control_thread_ends_everything_in_order() {
    let runtime = Runtime::start(RuntimeConfig { workers: 2, ..Default::default() }).unwrap();
    assert!(runtime.is_running());
    let handle = runtime.handle();
    assert!(handle.is_alive());
    assert_eq!(handle.call(|_| panic!("provoked by a test")), Err::<(), _>(Stopped));
    let e = runtime.stop().unwrap_err();
    assert!(matches!(&e, StopError::Panicked(who) if who == "the control thread"), "{e}");
    assert!(!handle.is_alive());
}

#[test]
fn live_and_replayed_ports_do_not_mix() {
    let runtime = Runtime::start(RuntimeConfig::default()).unwrap();
    let pcap = PortConfig { input: Some("/nonexistent".into()), ..PortConfig::new("p", PortKind::Pcap) };
    let e = runtime.handle().call(|c| c.add_port(pcap)).unwrap().unwrap_err();
    assert!(e.to_string().contains("all ports must be of kind \"pcap\""), "{e}");
    let mut replay = replay::Replay::new(RuntimeConfig::default()).unwrap();
    let e = replay.control().add_port(PortConfig::new("t", PortKind::Tun)).unwrap_err();
    assert!(e.to_string().contains("cannot be mixed"), "{e}");
}

#[test]
fn hangup_is_collected() {
    let signals = Signals::install().unwrap();
    assert!(Signals::install().is_err());
    assert_eq!(signals.wait(Some(Duration::ZERO)).unwrap(), None);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    assert_eq!(signals.wait(Some(LIMIT)).unwrap(), Some(Signal::Hangup));
}

sandbox_test! {
    fn devices_are_followed_and_given_back() {
        let mut net = Net::new();
        net.hosts(&["r", "x"]).unwrap();
        net.link(("r", "eth0"), ("x", "eth0")).unwrap();
        net.wait_ready(LIMIT).unwrap();
        let host = Arc::clone(net.host("r").unwrap());
        let index = host.netlink().link_index("eth0").unwrap();
        let runtime = host.run(|| Runtime::start(RuntimeConfig::default())).unwrap();
        let handle = runtime.handle();
        let id: PortId = handle.call(|c| c.add_port(PortConfig::new("eth0", PortKind::Packet))).unwrap().unwrap();
        assert!(host.run(|| KernelBlock::is_installed(index)).unwrap());
        // A second port on the same device shares the block.
        let vlan = PortConfig { device: Some("eth0".into()), vlan: Some(5), ..PortConfig::new("v5", PortKind::Packet) };
        let second = handle.call(|c| c.add_port(vlan)).unwrap().unwrap();
        handle.call(move |c| c.remove_port(second)).unwrap().unwrap();
        assert!(host.run(|| KernelBlock::is_installed(index)).unwrap());

        let up = move |c: &mut Control| c.router().ports().get(id).map(|p| p.up);
        assert_eq!(handle.call(up).unwrap(), Some(true));
        net.set_up("x", "eth0", false).unwrap();
        until(&handle, "carrier lost", move |c| (up(c) == Some(false)).then_some(()));
        net.set_up("x", "eth0", true).unwrap();
        until(&handle, "carrier back", move |c| (up(c) == Some(true)).then_some(()));
        net.set_mtu("r", "eth0", 1400).unwrap();
        until(&handle, "MTU followed", move |c| c.router().ports().get(id).filter(|p| p.mtu == 1400).map(|_| ()));

        // Gone, and back as another device of the same name.
        host.netlink().del_link(index).unwrap();
        until(&handle, "device lost", move |c| (up(c) == Some(false)).then_some(()));
        net.link(("r", "eth0"), ("x", "eth0")).unwrap();
        net.wait_ready(LIMIT).unwrap();
        until(&handle, "device back", move |c| (up(c) == Some(true)).then_some(()));
        let index = host.netlink().link_index("eth0").unwrap();
        assert!(host.run(|| KernelBlock::is_installed(index)).unwrap());
        let before = handle.call(|c| c.totals().received).unwrap();
        let x = net.host("x").unwrap();
        net.addr("x", "eth0", "192.0.2.1/24").unwrap();
        x.run(|| {
            let s = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
            s.set_broadcast(true).unwrap();
            s.send_to(b"hello", "192.0.2.255:9").unwrap();
        });
        until(&handle, "received again", move |c| (c.totals().received > before).then_some(()));
        runtime.stop().unwrap();
        assert!(!host.run(|| KernelBlock::is_installed(index)).unwrap());
    }
}
