//! Lab 4: IPv4 by an IPv6 next hop that is itself reached through a 6in4 tunnel.

use router_io::sandbox_test;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 - isp - r2 - b. `gateways`: how r1 writes the way to site b, and r2 the way to site a.
fn bed(gateways: [&[&str]; 2]) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500; 4])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"])?;
    bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"])?;
    bed.router(
        Kernel,
        &RouterConfig::new("isp").port("left", &["198.51.100.1/24"]).port("right", &["203.0.113.1/24"]),
    )?;
    bed.host("isp").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    let tunnel = |local: &str, remote: &str, addr: &str| {
        format!("[tunnel.site]\nmode = \"6in4\"\nlocal = \"{local}\"\nremote = \"{remote}\"\naddress = [\"{addr}\"]\n")
    };
    let r1 = RouterConfig::new("r1")
        .port("left", &["192.0.2.2/25"])
        .port("right", &["198.51.100.2/24"])
        .extra(&tunnel("198.51.100.2", "203.0.113.2", "2001:db8:ff::1/64"))
        .route("203.0.113.0/24 via 198.51.100.1");
    // Without it r2 would choose one of its two IPv4 addresses itself.
    let r2 = RouterConfig::new("r2")
        .router("router_id = \"192.0.2.130\"")
        .port("right", &["192.0.2.130/25"])
        .port("left", &["203.0.113.2/24"])
        .extra(&tunnel("203.0.113.2", "198.51.100.2", "2001:db8:ff::2/64"))
        .route("198.51.100.0/24 via 203.0.113.1");
    let with = |config: RouterConfig, routes: &[&str]| routes.iter().fold(config, |c, r| c.route(r));
    bed.router(Duet, &with(r1, gateways[0]))?;
    bed.router(Duet, &with(r2, gateways[1]))?;
    Ok(bed)
}

fn lab(gateways: [&[&str]; 2]) {
    let bed = bed(gateways).unwrap();
    let pair = Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129");
    pair.reachable().unwrap();
    // Each router answers with an IPv4 address of its own.
    pair.traceroute(&["192.0.2.2", "192.0.2.130", "192.0.2.129"]).unwrap();
    pair.discovers_mtu(1480, 1).unwrap();
    pair.swapped().discovers_mtu(1480, 1).unwrap();
    pair.every_size().unwrap();
    pair.udp().unwrap();
    pair.tcp().unwrap();
    bed.finish().unwrap();
}

sandbox_test! {
    fn next_hop_on_the_tunnel() {
        lab([&["192.0.2.128/25 via inet6 2001:db8:ff::2"], &["192.0.2.0/25 via inet6 2001:db8:ff::1"]]);
    }
}

sandbox_test! {
    fn next_hop_behind_the_tunnel() {
        // Recursive: the gateway is on no link; a route leads to it, through the tunnel.
        lab([
            &["2001:db8:77::/48 via 2001:db8:ff::2", "192.0.2.128/25 via inet6 2001:db8:77::1"],
            &["2001:db8:88::/48 dev site", "192.0.2.0/25 via inet6 2001:db8:88::1"],
        ]);
    }
}
