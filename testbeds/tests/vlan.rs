//! VLAN tags: `packet` ports that send and accept one VLAN only. The kernel hosts have all their offloads on, and the
//! kernel takes tags out of frames before a packet socket sees them.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::time::Duration;
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 = r2 - b: the link in the middle is tagged, by r1 with 7, by r2 as told.
fn bed(vlan_of_r2: u16) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    let r1 = RouterConfig::new("r1")
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port_with("right", &["198.51.100.1/24", "2001:db8:1::1/64"], "vlan = 7\n")
        .route("192.0.2.128/25 via 198.51.100.2")
        .route("2001:db8:b::/48 via 2001:db8:1::2");
    let r2 = RouterConfig::new("r2")
        .port_with("left", &["198.51.100.2/24", "2001:db8:1::2/64"], &format!("vlan = {vlan_of_r2}\n"))
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"])
        .route("192.0.2.0/25 via 198.51.100.1")
        .route("2001:db8:a::/48 via 2001:db8:1::1");
    bed.router(Duet, &r1)?;
    bed.router(Duet, &r2)?;
    Ok(bed)
}

sandbox_test! {
    fn tagged_between_routers() {
        let bed = bed(7).unwrap();
        let (a, b) = (bed.host("a"), bed.host("b"));
        Pair::new(a, b, "192.0.2.1", "192.0.2.129").all(1500, &["192.0.2.2", "198.51.100.2", "192.0.2.129"]).unwrap();
        let hops = ["2001:db8:a::2", "2001:db8:1::2", "2001:db8:b::1"];
        Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1").all(1500, &hops).unwrap();
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn other_vlans_are_not_heard() {
        let bed = bed(8).unwrap();
        let r = bed.host("a").ping(&Ping::new(ip("192.0.2.129")).timeout(Duration::from_secs(6))).unwrap();
        assert_eq!(r.received, 0, "{r:?}");
        // The request for r2's address is on the wire, with a tag that r2 does not take.
        assert!(bed.stats("r2").unwrap().drops("unknown_vlan") > 0, "{:?}", bed.stats("r2"));
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn tagged_to_a_kernel_host() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        let made = {
            let mut netlink = bed.host("a").netlink();
            let index = netlink.link_index("eth0").unwrap();
            netlink.add_vlan(index, "eth0.7", 7)
        };
        if let Err(e) = made {
            eprintln!("SKIPPED: tagged_to_a_kernel_host: {e}");
            return;
        }
        bed.net.set_up("a", "eth0.7", true).unwrap();
        bed.net.addr("a", "eth0.7", "192.0.2.1/25").unwrap();
        bed.net.route("a", "default via 192.0.2.2").unwrap();
        bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"]).unwrap();
        let r = RouterConfig::new("r").port_with("left", &["192.0.2.2/25"], "vlan = 7\n").port("right", &["192.0.2.130/25"]);
        bed.router(Duet, &r).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
        pair.all(1500, &["192.0.2.2", "192.0.2.129"]).unwrap();
        bed.finish().unwrap();
    }
}
