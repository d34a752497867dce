//! With the block the kernel is deaf, packet sockets are not, and everything of others stays.

use super::*;
use crate::lab::{Host, Net, probe::Ping};
use crate::sandbox_test;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);

fn pair() -> (Net, Arc<Host>, Arc<Host>) {
    let mut net = Net::new();
    net.hosts(&["a", "b"]).unwrap();
    net.link(("a", "eth0"), ("b", "eth0")).unwrap();
    net.addrs(&[("a", "eth0", "192.0.2.1/24"), ("b", "eth0", "192.0.2.2/24")]).unwrap();
    net.addrs(&[("a", "eth0", "2001:db8::1/64"), ("b", "eth0", "2001:db8::2/64")]).unwrap();
    net.wait_ready(Duration::from_secs(5)).unwrap();
    let (a, b) = (Arc::clone(net.host("a").unwrap()), Arc::clone(net.host("b").unwrap()));
    (net, a, b)
}

/// How many of the two families b's kernel answers, resolution included.
fn answers(a: &Host) -> usize {
    let index = a.netlink().link_index("eth0").unwrap();
    a.netlink().flush_neighbors(index).unwrap();
    ["192.0.2.2", "2001:db8::2"]
        .iter()
        .filter(|dst| a.ping(&Ping::new(dst.parse().unwrap()).timeout(SHORT)).unwrap().received == 1)
        .count()
}

/// The EtherTypes that a packet socket sees within a deadline, until `want` are there.
fn sees(socket: &Socket, want: &[u16]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut missing = want.to_vec();
    let mut frame = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !missing.is_empty() && Instant::now() < deadline {
        if let Ok(n) = Read::read(&mut &*socket, &mut frame) {
            let kind = u16::from_be_bytes([frame[12], frame[13]]);
            missing.retain(|m| n < 14 || *m != kind);
        }
    }
    missing.is_empty()
}

fn packet_socket(host: &Host) -> Socket {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    host.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)))).unwrap()
}

/// What is at the device's ingress: qdisc (and its filters) or nothing.
fn has_clsact(host: &Host, index: u32) -> bool {
    let added = add_qdisc(&mut host.netlink(), index);
    if added.is_ok() {
        del_qdisc(&mut host.netlink(), index).unwrap();
    }
    added.is_err_and(|e| e.is_exists())
}

sandbox_test! {
    fn kernel_is_deaf_and_packet_sockets_are_not() {
        let (_net, a, b) = pair();
        let index = b.netlink().link_index("eth0").unwrap();
        assert_eq!(answers(&a), 2);
        let block = b.run(|| KernelBlock::install(index)).unwrap();
        let socket = packet_socket(&b);
        assert_eq!(answers(&a), 0);
        assert!(sees(&socket, &[0x0806, 0x86dd]));
        assert!(b.run(|| KernelBlock::is_installed(index)).unwrap());
        drop(block);
        assert!(!has_clsact(&b, index));
        assert_eq!(answers(&a), 2);
        assert!(!b.run(|| KernelBlock::remove_stale(index)).unwrap());
        // A device that goes away under the block is no error.
        let block = b.run(|| KernelBlock::install(index)).unwrap();
        b.netlink().del_link(index).unwrap();
        block.remove().unwrap();
        assert!(b.run(|| KernelBlock::install(index)).is_err());
    }
}

sandbox_test! {
    fn what_others_installed_stays() {
        let (_net, a, b) = pair();
        let index = b.netlink().link_index("eth0").unwrap();
        // Somebody's qdisc, and somebody's filter that takes our first priority for IPv4 only and does nothing.
        add_qdisc(&mut b.netlink(), index).unwrap();
        let block = b.run(|| KernelBlock::install(index)).unwrap();
        assert_eq!(answers(&a), 0);
        block.remove().unwrap();
        assert!(has_clsact(&b, index));
        assert_eq!(answers(&a), 2);
        del_qdisc(&mut b.netlink(), index).unwrap();
        // Our qdisc, on which somebody puts a filter while we are there.
        let block = b.run(|| KernelBlock::install(index)).unwrap();
        let foreign = 0x77;
        add_filter(&mut b.netlink(), index, foreign).unwrap();
        block.remove().unwrap();
        assert!(has_clsact(&b, index));
        let rest = filters(&mut b.netlink(), index, INGRESS).unwrap();
        assert!(rest.iter().any(|m| handle_of(m) == foreign));
    }
}

sandbox_test! {
    fn a_killed_process_is_cleaned_up_after() {
        let (_net, a, b) = pair();
        let index = b.netlink().link_index("eth0").unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.args(["netlink::clsact::tests::helper_blocks", "--exact", "--ignored"]);
        command.env("DUET_TEST_BLOCK", index.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = b.spawn(command).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !b.run(|| KernelBlock::is_installed(index)).unwrap() {
            assert!(Instant::now() < deadline);
        }
        child.kill().unwrap();
        assert_eq!(answers(&a), 0);
        assert!(b.run(|| KernelBlock::remove_stale(index)).unwrap());
        assert!(!has_clsact(&b, index));
        assert_eq!(answers(&a), 2);
        // A second run of the program takes over what the first left, qdisc included.
        std::mem::forget(b.run(|| KernelBlock::install(index)).unwrap());
        b.run(|| KernelBlock::install(index)).unwrap().remove().unwrap();
        assert!(!has_clsact(&b, index));
        assert_eq!(answers(&a), 2);
    }
}

#[test]
#[ignore = "helper of another test: blocks a device until it is killed"]
fn helper_blocks() {
    if let Some(index) = std::env::var("DUET_TEST_BLOCK").ok().and_then(|i| i.parse().ok()) {
        let _block = KernelBlock::install(index).unwrap();
        let _ = std::io::stdin().read(&mut [0]);
    }
}
