//! IPv4 address conflict detection (RFC 5227) against a real Linux host that has the router's address, too.

use router_io::lab::Host;
use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::ip;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(30);

fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The line of an address in `duet addr show dev left`.
fn line(bed: &Bed, addr: &str) -> String {
    let all = bed.duet("r").duet("addr show dev left").expect("addresses");
    all.lines().find(|l| l.contains(addr)).unwrap_or_default().to_owned()
}

fn pings(host: &Host, addr: &str) -> bool {
    let ping = Ping::new(ip(addr)).timeout(Duration::from_millis(500));
    host.ping(&ping).expect("ping").all_answered()
}

sandbox_test! {
    /// Proves rfc5227-2.1-probe, rfc5227-2.1.1-in-use, rfc5227-2.1.1-error: the address that a host has is listed as a
    /// duplicate and not used, the other one is; once the host has let it go it can be had.
    fn an_address_that_a_linux_host_has_is_not_used() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.2/24", "192.0.2.1/24"], &[]).unwrap();
        let r = RouterConfig::new("r").port_with("left", &["192.0.2.1/24", "192.0.2.9/24"], "acd = true\n");
        bed.router(Duet, &r.port("right", &["198.51.100.1/24"])).unwrap();
        wait("the duplicate", || line(&bed, "192.0.2.1/24").contains(" dadfailed tentative"));
        wait("the other address", || !line(&bed, "192.0.2.9/24").contains("tentative"));
        assert!(line(&bed, "192.0.2.9/24").contains("192.0.2.9/24"));
        assert!(pings(bed.host("a"), "192.0.2.9"));
        let mac = bed.host("a").netlink().links().unwrap().into_iter().find(|l| l.name == "eth0").unwrap().mac.unwrap();
        let log = bed.duet("r").log();
        assert!(log.contains("another station has this address") && log.contains(&mac.to_string()), "{log}");
        // The host lets it go; the operator tries again.
        bed.net.del_addr("a", "eth0", "192.0.2.1/24").unwrap();
        bed.duet("r").duet("addr add 192.0.2.1/24 dev left").unwrap();
        assert!(line(&bed, "192.0.2.1/24").contains(" tentative"));
        wait("the address", || !line(&bed, "192.0.2.1/24").contains("tentative"));
        assert!(pings(bed.host("a"), "192.0.2.1"));
        bed.finish().unwrap();
    }
}

sandbox_test! {
    /// Proves rfc5227-2.4-c, rfc5227-2.4-report: a host that takes the router's address makes itself heard; the router says
    /// so and announces it again: other hosts find the router, not the thief.
    fn an_address_in_use_is_defended_against_a_linux_host() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.2/24"], &[]).unwrap();
        let r = RouterConfig::new("r").port("left", &["192.0.2.1/24"]).port("right", &["198.51.100.1/24"]);
        bed.router(Duet, &r).unwrap();
        assert!(!line(&bed, "192.0.2.1/24").contains("tentative"), "at once, without acd");
        assert!(pings(bed.host("a"), "192.0.2.1"));
        bed.net.addr("a", "eth0", "192.0.2.1/24").unwrap();
        // The host asks for a third one from the address.
        let socket = bed.host("a").run(|| UdpSocket::bind("192.0.2.1:0")).unwrap();
        let announcements = || bed.duet("r").log().matches("another station uses an address of this router").count();
        wait("the conflict to be told", || {
            socket.send_to(b"x", "192.0.2.77:9").unwrap();
            announcements() > 0
        });
        bed.net.del_addr("a", "eth0", "192.0.2.1/24").unwrap();
        assert!(line(&bed, "192.0.2.1/24").contains("192.0.2.1/24"), "it is kept");
        assert!(!line(&bed, "192.0.2.1/24").contains("tentative"));
        assert!(pings(bed.host("a"), "192.0.2.1"));
        assert_eq!(announcements(), 1, "not for every packet");
        bed.finish().unwrap();
    }
}
