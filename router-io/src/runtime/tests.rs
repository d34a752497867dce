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
    assert_eq!(runtime.handle().call(|_| panic!("provoked by a test")), Err::<(), _>(Stopped));
    let e = runtime.stop().unwrap_err();
    assert!(matches!(&e, StopError::Panicked(who) if who == "the control thread"), "{e}");
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
