//! Lab 1: native IPv4 and IPv6 between two subnets; a FIB of nested routes against the kernel's.

use router_io::sandbox_test;
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::routes::{self, Random};
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r - b.
fn bed(dut: Dut, workers: usize) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    let r = RouterConfig::new("r")
        .router(&format!("workers = {workers}"))
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"]);
    bed.router(dut, &r)?;
    Ok(bed)
}

fn native(dut: Dut, workers: usize) -> Result {
    let bed = bed(dut, workers)?;
    let (a, b) = (bed.host("a"), bed.host("b"));
    Pair::new(a, b, "192.0.2.1", "192.0.2.129").all(1500, &["192.0.2.2", "192.0.2.129"])?;
    Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1").all(1500, &["2001:db8:a::2", "2001:db8:b::1"])?;
    // The router's own addresses answer too, the far one as well.
    for (from, addr) in [("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "192.0.2.130"), ("2001:db8:a::1", "2001:db8:b::2")] {
        Pair::new(a, b, from, addr).reachable()?;
    }
    bed.finish()
}

sandbox_test! {
    fn native_kernel() {
        native(Dut::Kernel, 1).unwrap();
    }
}

sandbox_test! {
    fn native_duet() {
        native(Dut::Duet, 1).unwrap();
    }
}

sandbox_test! {
    fn native_duet_three_workers() {
        native(Dut::Duet, 3).unwrap();
    }
}

sandbox_test! {
    fn native_by_the_portable_port() {
        // Its channel knows no unfinished checksums, which veth leaves in UDP and TCP; ICMP is complete.
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"]).unwrap();
        bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"]).unwrap();
        let r = RouterConfig::new("r")
            .port_of("datalink", "left", &["192.0.2.2/25", "2001:db8:a::2/64"], "")
            .port_of("datalink", "right", &["192.0.2.130/25", "2001:db8:b::2/64"], "");
        bed.router(Dut::Duet, &r).unwrap();
        for (from, to) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            let pair = Pair::new(bed.host("a"), bed.host("b"), from, to);
            pair.reachable().unwrap();
            pair.every_size().unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn nested_routes_as_the_kernel_finds_them() {
        let mut bed = bed(Dut::Duet, 1).unwrap();
        // A kernel with the same links and addresses.
        bed.net.hosts(&["k", "other"]).unwrap();
        bed.net.link(("k", "left"), ("other", "eth0")).unwrap();
        bed.net.link(("k", "right"), ("other", "eth1")).unwrap();
        bed.ready().unwrap();
        let same = RouterConfig::new("k")
            .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
            .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"]);
        bed.router(Dut::Kernel, &same).unwrap();

        let mut random = Random::new(0x1ab1);
        let roots = ["10.0.0.0/8", "203.0.113.0/24", "2001:db8:8000::/33"].map(|t| t.parse().unwrap());
        let hops = [
            ("via 192.0.2.1", true),
            ("via 192.0.2.5 dev left", true),
            ("via 192.0.2.200", true),
            ("via inet6 2001:db8:a::77", true),
            ("via inet6 fe80::9 dev right", true),
            ("via 2001:db8:b::1", false),
            ("via 2001:db8:a::5", false),
            ("via fe80::7 dev left", false),
        ];
        let lines = routes::nested(&mut random, &roots, 1000, &hops);
        routes::kernel_add(bed.host("k"), &lines).unwrap();
        routes::duet_add(bed.duet("r"), &lines).unwrap();
        let dsts: Vec<_> = (0..10_000)
            .map(|i| match i % 10 {
                0 => routes::addr_in(&mut random, roots[0]),
                1 => routes::addr_in(&mut random, roots[2]),
                2 => ip(["192.0.2.7", "192.0.2.222", "2001:db8:b::9", "198.51.100.1", "2001:db8:77::1"][i / 10 % 5]),
                _ => {
                    let line = random.below(lines.len());
                    routes::addr_in(&mut random, lines[line].prefix)
                }
            })
            .collect();
        let wanted = routes::kernel_lookups(bed.host("k"), &dsts).unwrap();
        let found = routes::duet_lookups(bed.duet("r"), &dsts).unwrap();
        for ((dst, want), got) in dsts.iter().zip(&wanted).zip(&found) {
            assert_eq!(got, want, "{dst}");
        }
        bed.finish().unwrap();
    }
}
