//! Lab 3: IPv6 between two sites over an IPv4-only kernel router, by 6in4 (RFC 4213).

use router_io::sandbox_test;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// The IPv4-only network in the middle: a kernel that does not even know IPv6.
fn isp(bed: &mut Bed) -> Result {
    bed.router(
        Kernel,
        &RouterConfig::new("isp").port("left", &["198.51.100.1/24"]).port("right", &["203.0.113.1/24"]),
    )?;
    bed.host("isp").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    Ok(())
}

/// The router of site b with `packet` ports.
fn site_b() -> RouterConfig {
    RouterConfig::new("r2")
        .port("left", &["203.0.113.2/24"])
        .port("right", &["2001:db8:b::2/64"])
        .extra(
            "[tunnel.site]\nmode = \"6in4\"\nlocal = \"203.0.113.2\"\nremote = \"198.51.100.2\"\n\
             address = [\"2001:db8:ff::2/64\"]\n",
        )
        .route("0.0.0.0/0 via 203.0.113.1")
        .route("2001:db8:a::/48 via 2001:db8:ff::1")
}

/// a - r1 - isp - r2 - b, tunnel between r1 and r2. `mtus` of the four links.
fn packet_ports(mtus: [u32; 4]) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &mtus)?;
    bed.ready()?;
    bed.end("a", &["2001:db8:a::1/64"], &["default via 2001:db8:a::2"])?;
    bed.end("b", &["2001:db8:b::1/64"], &["default via 2001:db8:b::2"])?;
    isp(&mut bed)?;
    let r1 = RouterConfig::new("r1")
        .port("left", &["2001:db8:a::2/64"])
        .port("right", &["198.51.100.2/24"])
        .extra(
            "[tunnel.site]\nmode = \"6in4\"\nlocal = \"198.51.100.2\"\nremote = \"203.0.113.2\"\n\
             address = [\"2001:db8:ff::1/64\"]\n",
        )
        .route("0.0.0.0/0 via 198.51.100.1")
        .route("2001:db8:b::/48 via 2001:db8:ff::2");
    bed.router(Duet, &r1)?;
    bed.router(Duet, &site_b())?;
    Ok(bed)
}

fn packet_lab(mtus: [u32; 4]) {
    let bed = packet_ports(mtus).unwrap();
    let inner = mtus[1].min(mtus[2]) - 20;
    let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
    pair.reachable().unwrap();
    pair.traceroute(&["2001:db8:a::2", "2001:db8:ff::2", "2001:db8:b::1"]).unwrap();
    pair.swapped().traceroute(&["2001:db8:b::2", "2001:db8:ff::1", "2001:db8:a::1"]).unwrap();
    pair.discovers_mtu(inner, 1).unwrap();
    pair.swapped().discovers_mtu(inner, 1).unwrap();
    pair.every_size().unwrap();
    pair.udp().unwrap();
    pair.tcp().unwrap();
    bed.finish().unwrap();
}

sandbox_test! {
    fn packet_ports_duet() {
        packet_lab([1500; 4]);
    }
}

sandbox_test! {
    fn narrow_link_at_our_own_port() {
        packet_lab([1500, 1400, 1500, 1500]);
    }
}

sandbox_test! {
    fn narrow_link_behind_the_kernel_router() {
        packet_lab([1500, 1500, 1420, 1500]);
    }
}

sandbox_test! {
    fn tcp_starts_before_the_path_mtu_is_known() {
        // No ping has taught anybody anything: the transfer itself must find the way through both narrow links.
        let bed = packet_ports([1500, 1440, 1400, 1500]).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.tcp().unwrap();
        pair.swapped().tcp().unwrap();
        bed.finish().unwrap();
    }
}

/// h - isp - r2 - b: h is one machine whose own stack gets IPv6 through a TUN device, and whose own IPv4 stack carries
/// the tunnel packets.
fn on_the_host(mtus: [u32; 3]) -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["h", "isp", "r2", "b"])?;
    bed.net.link_mtu(("h", "eth0"), ("isp", "left"), mtus[0])?;
    bed.net.link_mtu(("isp", "right"), ("r2", "left"), mtus[1])?;
    bed.net.link_mtu(("r2", "right"), ("b", "eth0"), mtus[2])?;
    bed.ready()?;
    isp(&mut bed)?;
    bed.end("h", &["198.51.100.2/24"], &["default via 198.51.100.1"])?;
    bed.end("b", &["2001:db8:b::1/64"], &["default via 2001:db8:b::2"])?;
    bed.router(Duet, &site_b())?;
    let h = RouterConfig::new("h")
        .port_of("tun", "tun0", &["2001:db8:a::2/64"], "host_address = [\"2001:db8:a::1/64\"]\n")
        .port_of("rawip", "wan", &[], "local = \"198.51.100.2\"\n")
        .extra(
            "[tunnel.site]\nmode = \"6in4\"\nlocal = \"198.51.100.2\"\nremote = \"203.0.113.2\"\ndev = \"wan\"\n\
             address = [\"2001:db8:ff::1/64\"]\n",
        )
        .route("2001:db8:b::/48 via 2001:db8:ff::2");
    bed.router(Duet, &h)?;
    bed.net.route("h", "default via 2001:db8:a::2")?;
    Ok(bed)
}

fn host_lab(mtus: [u32; 3], inner: u32) {
    if let Err(e) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        eprintln!("SKIPPED: rawip and tun: /dev/net/tun: {e}");
        return;
    }
    let bed = on_the_host(mtus).unwrap();
    let pair = Pair::new(bed.host("h"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
    pair.reachable().unwrap();
    pair.traceroute(&["2001:db8:a::2", "2001:db8:ff::2", "2001:db8:b::1"]).unwrap();
    // One packet teaches the host's stack, the next one makes the stack tell us.
    pair.discovers_mtu(inner, 2).unwrap();
    pair.swapped().discovers_mtu(inner, 1).unwrap();
    pair.every_size().unwrap();
    pair.udp().unwrap();
    pair.tcp().unwrap();
    bed.finish().unwrap();
}

sandbox_test! {
    fn rawip_and_tun_on_the_own_stack() {
        host_lab([1500; 3], 1480);
    }
}

sandbox_test! {
    fn rawip_learns_the_path_mtu_of_the_own_stack() {
        host_lab([1500, 1420, 1500], 1400);
    }
}
