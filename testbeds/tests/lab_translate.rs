//! Translation between real Linux hosts that have one family each: NAT64, explicit maps, 464XLAT with a CLAT on a TUN
//! device, and tayga as the other end.

use router_io::lab::probe::{Ping, TcpTransfer};
use router_io::sandbox_test;
use std::process::{Command, Stdio};
use std::time::Duration;
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// The server's address as IPv6 hosts see it.
const SERVER6: &str = "2001:db8:64::203.0.113.9";

/// Bytes of a TCP transfer in each direction.
const TCP_BYTES: u64 = 3_000_001;

/// Pings of many sizes and a TCP transfer both ways, bytes compared, from a host that knows the other one by the second
/// address of the pair; its own is `listen`. Pings have `largest` bytes at most.
fn ping_and_tcp(pair: Pair<'_>, listen: &str, largest: usize) -> Result {
    pair.wait_reachable(Duration::from_secs(10))?;
    let sizes = [0, 1, 56, 500, 1200, 1232, 1233, 1372, 1400, 1452, 1472, 2000, 8000];
    for size in sizes.into_iter().filter(|s| *s <= largest) {
        let r = pair.a.ping(&Ping::new(pair.addr_b).size(size).count(2).timeout(Duration::from_secs(3)))?;
        assert!(r.all_answered(), "ping of {size} bytes to {}: {r:?}", pair.addr_b);
    }
    let t = TcpTransfer {
        limit: Duration::from_secs(60),
        listen: Some(ip(listen)),
        ..TcpTransfer::new(pair.addr_b, TCP_BYTES)
    };
    let r = pair.a.tcp_transfer(pair.b, &t)?;
    assert!(r.all_right(), "tcp to {}: {r:?}", pair.addr_b);
    println!("tcp to {}: {:.0} Mbit/s up, {:.0} down", pair.addr_b, r.up.mbit_per_s(), r.down.mbit_per_s());
    Ok(())
}

/// six - r - four: the hosts at the ends have one family each. `mtu` is that of the IPv4 link.
fn two_families(mtu: u32, translate: &str, routes: &[&str]) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["six", "r", "four"], &[1500, mtu])?;
    bed.ready()?;
    bed.end("six", &["2001:db8:6::2/64"], &["default via 2001:db8:6::1"])?;
    bed.end("four", &["203.0.113.9/24"], &["default via 203.0.113.1"])?;
    bed.host("four").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    let config = RouterConfig::new("r").port("left", &["2001:db8:6::1/64"]).port("right", &["203.0.113.1/24"]);
    let config = routes.iter().fold(config.extra(translate), |c, r| c.route(r));
    bed.router(Duet, &config)?;
    Ok(bed)
}

const NAT64: &str = "[translate.nat64]\nmode = \"nat64\"\nprefix = \"2001:db8:64::/96\"\n\
                     pool = [\"198.51.100.1-198.51.100.2\"]\n";
/// The longest ping that passes a stateless translator whole: fragmented ICMP cannot be translated (RFC 7915 1.2).
const WHOLE: usize = 1452;
/// A NAT64 puts fragments together (RFC 6146 3.4).
const ANY: usize = usize::MAX;

const NAT64_ROUTES: &[&str] = &["2001:db8:64::/96 dev nat64", "198.51.100.0/24 dev nat64"];

sandbox_test! {
    fn nat64_an_ipv6_host_and_an_ipv4_server() {
        let bed = two_families(1500, NAT64, NAT64_ROUTES).unwrap();
        let pair = Pair::new(bed.host("six"), bed.host("four"), "2001:db8:6::2", SERVER6);
        ping_and_tcp(pair, "203.0.113.9", ANY).unwrap();
        // The program tells about it, in text and JSON.
        let shown = bed.duet("r").ask(&["-s", "translate", "show", "nat64", "sessions"], b"").unwrap();
        assert!(shown.stdout.contains("nat64: nat64 prefix 2001:db8:64::/96"), "{}", shown.stdout);
        assert!(shown.stdout.contains("> 203.0.113.9"), "{}", shown.stdout);
        let json = bed.duet("r").ask(&["-j", "translate", "show"], b"").unwrap();
        let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert!(value[0]["sessions"].as_u64().is_some_and(|n| n > 0), "{}", json.stdout);
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn nat64_learns_a_narrow_ipv4_path() {
        let bed = two_families(1400, NAT64, NAT64_ROUTES).unwrap();
        let pair = Pair::new(bed.host("six"), bed.host("four"), "2001:db8:6::2", SERVER6);
        pair.wait_reachable(Duration::from_secs(10)).unwrap();
        // 1400 bytes of IPv4 are 1420 of IPv6.
        pair.learns_mtu(1420).unwrap();
        ping_and_tcp(pair, "203.0.113.9", ANY).unwrap();
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn an_ipv4_host_reaches_an_ipv6_host_by_explicit_map() {
        let siit = "[translate.siit]\nmode = \"siit\"\nprefix = \"2001:db8:64::/96\"\n\
                    map = [\"192.0.2.2 = 2001:db8:6::2\"]\n";
        let bed = two_families(1500, siit, &["2001:db8:64::/96 dev siit", "192.0.2.0/24 dev siit"]).unwrap();
        let four = Pair::new(bed.host("four"), bed.host("six"), "203.0.113.9", "192.0.2.2");
        ping_and_tcp(four, "2001:db8:6::2", WHOLE).unwrap();
        // One packet with DF that is too long for the IPv6 side: told in terms of the IPv4 packet.
        four.learns_mtu(1480).unwrap();
        // Stateless: the other direction works without any state.
        let six = Pair::new(bed.host("six"), bed.host("four"), "2001:db8:6::2", SERVER6);
        ping_and_tcp(six, "203.0.113.9", WHOLE).unwrap();
        bed.finish().unwrap();
    }
}

fn no_tun() -> bool {
    match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => false,
        Err(e) => {
            eprintln!("SKIPPED: /dev/net/tun: {e}");
            true
        }
    }
}

sandbox_test! {
    /// Proves rfc6877-6-464xlat.
    fn rfc6877_clat_on_a_tun_and_nat64_behind_it() {
        if no_tun() {
            return;
        }
        let bed = xlat464().unwrap();
        let pair = Pair::new(bed.host("h"), bed.host("server"), "192.0.0.2", "203.0.113.9");
        ping_and_tcp(pair, "203.0.113.9", WHOLE).unwrap();
        bed.finish().unwrap();
    }
}

/// h - plat - server: the link between h and the PLAT has IPv6 alone; h's own stack gets IPv4 from a TUN device.
fn xlat464() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["h", "plat", "server"])?;
    bed.net.link(("h", "eth0"), ("plat", "left"))?;
    bed.net.link(("plat", "right"), ("server", "eth0"))?;
    bed.ready()?;
    bed.end("server", &["203.0.113.9/24"], &["default via 203.0.113.1"])?;
    bed.host("server").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    let plat = RouterConfig::new("plat").port("left", &["2001:db8:6::1/64"]).port("right", &["203.0.113.1/24"]);
    // All links carry 1500 bytes and the PLAT is told so: it need not cut to 1280, and fragments of ICMP would end at the
    // CLAT.
    let plat = plat.extra(&format!("{NAT64}ipv6_mtu = 1500\n")).route(NAT64_ROUTES[0]).route(NAT64_ROUTES[1]);
    bed.router(Duet, &plat)?;
    let h = RouterConfig::new("h")
        .port_of("tun", "clat0", &["192.0.0.1/29"], "host_address = [\"192.0.0.2/29\"]\n")
        .port_with("eth0", &["2001:db8:6::2/64"], "proxy = [\"2001:db8:6::464\"]\n")
        .extra(
            "[translate.clat]\nmode = \"clat\"\nprefix = \"2001:db8:64::/96\"\n\
             map = [\"192.0.0.2 = 2001:db8:6::464\"]\n",
        )
        .route("0.0.0.0/0 dev clat")
        .route("2001:db8:6::464/128 dev clat")
        .route("2001:db8:64::/96 via 2001:db8:6::1");
    bed.router(Duet, &h)?;
    bed.net.route("h", "default via 192.0.0.1")?;
    Ok(bed)
}

/// Runs tayga in the foreground in the host "t", which is the router of that side.
fn tayga(bed: &Bed) -> Result<Option<router_io::lab::Process>> {
    let host = bed.host("t");
    let dir = bed.dir().join("tayga");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("tayga.conf");
    std::fs::write(
        &config,
        format!(
            "tun-device nat64\nipv4-addr 192.168.255.1\nipv6-addr 2001:db8:f::1\nprefix 2001:db8:64::/96\n\
             map 192.0.2.2 2001:db8:6::2\ndata-dir {}\n",
            dir.display()
        ),
    )?;
    let run = |args: &[&str]| {
        let mut c = Command::new("tayga");
        c.arg("-c").arg(&config).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        host.spawn(c)
    };
    let Ok(mut made) = run(&["--mktun"]) else {
        eprintln!("SKIPPED: tayga is not installed");
        return Ok(None);
    };
    let status = made.wait(Duration::from_secs(10))?;
    if !status.is_some_and(|s| s.success()) {
        eprintln!("SKIPPED: tayga cannot make its device: {status:?}");
        return Ok(None);
    }
    bed.net.set_up("t", "nat64", true)?;
    for route in ["192.0.2.0/24 dev nat64", "2001:db8:64::/96 dev nat64"] {
        bed.net.route("t", route)?;
    }
    Ok(Some(run(&["-d"])?))
}

sandbox_test! {
    fn tayga_as_the_other_translator() {
        if no_tun() {
            return;
        }
        // six - t - r - four: t (the kernel and tayga) makes IPv4 of what six sends, r (ours) makes IPv6 of it again and
        // back: 6-4-6, each translator checked by the other.
        let mut bed = Bed::row(PROGRAM, &["six", "t", "r", "end"], &[1500; 3]).unwrap();
        bed.ready().unwrap();
        bed.end("six", &["2001:db8:6::2/64"], &["default via 2001:db8:6::1"]).unwrap();
        bed.end("end", &["2001:db8:e::9/64"], &["default via 2001:db8:e::1"]).unwrap();
        bed.net.kernel_router("t").unwrap();
        bed.net.addr("t", "left", "2001:db8:6::1/64").unwrap();
        bed.net.addr("t", "right", "198.51.100.1/24").unwrap();
        bed.ready().unwrap();
        let Some(mut process) = tayga(&bed).unwrap() else { return };
        bed.net.route("t", "203.0.113.0/24 via 198.51.100.2").unwrap();
        let r = RouterConfig::new("r").port("left", &["198.51.100.2/24"]).port("right", &["2001:db8:e::1/64"]).extra(
            "[translate.siit]\nmode = \"siit\"\nprefix = \"2001:db8:46::/96\"\nmap = [\"203.0.113.9 = 2001:db8:e::9\"]\n",
        );
        let r = r.route("2001:db8:46::/96 dev siit").route("203.0.113.0/24 dev siit").route("0.0.0.0/0 via 198.51.100.1");
        bed.router(Duet, &r).unwrap();
        let pair = Pair::new(bed.host("six"), bed.host("end"), "2001:db8:6::2", SERVER6);
        ping_and_tcp(pair, "2001:db8:e::9", WHOLE).unwrap();
        process.kill().unwrap();
        bed.finish().unwrap();
    }
}
