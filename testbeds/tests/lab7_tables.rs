//! Lab 7: VRFs with the very same addresses, a leak between them, and rules by source, code point, port and mark.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(30);

/// ra - r - rb and ba - r - bb, all addresses twice.
fn twins() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["ra", "rb", "ba", "bb", "r"])?;
    let mut r = RouterConfig::new("r");
    for (vrf, a, b) in [("red", "ra", "rb"), ("blue", "ba", "bb")] {
        let [left, right] = [0, 1].map(|n| format!("{vrf}{n}"));
        bed.net.link((a, "eth0"), ("r", &left))?;
        bed.net.link(("r", &right), (b, "eth0"))?;
        r = r.port(&left, &["192.0.2.2/25", "2001:db8:a::2/64"]).port(&right, &["192.0.2.130/25", "2001:db8:b::2/64"]);
    }
    bed.ready()?;
    for (a, b) in [("ra", "rb"), ("ba", "bb")] {
        bed.end(a, &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
        bed.end(b, &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    }
    bed.net.addrs(&[("rb", "eth0", "203.0.113.1/32"), ("ba", "eth0", "198.51.100.1/32")])?;
    let r = r.extra(
        r#"
[vrf.red]
table = 10
ports = ["red0", "red1"]

[vrf.blue]
table = 20
ports = ["blue0", "blue1"]

[routes]
red = [
  "203.0.113.0/24 via 192.0.2.129",
  "198.51.100.0/24 dev blue",            # on in the other VRF, whatever is there
]
blue = [
  "198.51.100.0/24 via 192.0.2.1",
  "203.0.113.0/24 via 192.0.2.129 dev red1",   # over a link of the other VRF
]
"#,
    );
    bed.router(Dut::Duet, &r)?;
    Ok(bed)
}

sandbox_test! {
    fn twins_never_meet_but_where_told() {
        let bed = twins().unwrap();
        for (a, b) in [("ra", "rb"), ("ba", "bb")] {
            let (a, b) = (bed.host(a), bed.host(b));
            // Everything between the right two hosts: the other pair has the same addresses.
            Pair::new(a, b, "192.0.2.1", "192.0.2.129").all(1500, &["192.0.2.2", "192.0.2.129"]).unwrap();
            Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1").all(1500, &["2001:db8:a::2", "2001:db8:b::1"]).unwrap();
            for (from, own) in [("192.0.2.1", "192.0.2.2"), ("2001:db8:a::1", "2001:db8:b::2")] {
                Pair::new(a, b, from, own).reachable().unwrap();
            }
        }
        // The leak, both ways. Only single pings are sent from the address that has a way back.
        let leak = Pair::new(bed.host("ba"), bed.host("rb"), "198.51.100.1", "203.0.113.1");
        leak.reachable().unwrap();
        bed.finish().unwrap();
    }
}

/// a - r = (p | q), both with 203.0.113.1; c is on a port whose packets are marked.
fn crossroads() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "c", "p", "q", "r"])?;
    bed.net.link(("a", "eth0"), ("r", "left"))?;
    bed.net.link(("c", "eth0"), ("r", "other"))?;
    bed.net.link(("r", "up"), ("p", "eth0"))?;
    bed.net.link(("r", "down"), ("q", "eth0"))?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/26"], &["default via 192.0.2.2"])?;
    bed.end("c", &["192.0.2.65/26"], &["default via 192.0.2.66"])?;
    bed.end("p", &["10.0.1.2/24", "203.0.113.1/32"], &["default via 10.0.1.1"])?;
    bed.end("q", &["10.0.2.2/24", "203.0.113.1/32"], &["default via 10.0.2.1"])?;
    let r = RouterConfig::new("r")
        .port("left", &["192.0.2.2/26"])
        .port_of("packet", "other", &["192.0.2.66/26"], "mark = 7")
        .port("up", &["10.0.1.1/24"])
        .port("down", &["10.0.2.1/24"])
        .route("203.0.113.0/24 via 10.0.1.2")
        .extra(
            r#"
[rules]
ipv4 = [
  "fwmark 7 lookup 100 priority 200",
  "to 203.0.113.99 prohibit priority 300",
]
"#,
        );
    bed.router(Dut::Duet, &r)?;
    bed.duet("r").duet("route add 203.0.113.0/24 via 10.0.2.2 table 100")?;
    Ok(bed)
}

sandbox_test! {
    fn a_rule_leaks_from_one_vrf_into_the_other() {
        let bed = twins().unwrap();
        let r = bed.duet("r");
        // Hosts behind red find 10.77.0.1 behind blue, and the answer finds its way: by rules alone, no route says so.
        bed.net.addr("bb", "eth0", "10.77.0.1/32").unwrap();
        bed.net.addr("ra", "eth0", "10.66.0.1/32").unwrap();
        for line in ["route add 10.77.0.0/16 via 192.0.2.129 vrf blue", "route add 10.66.0.0/16 via 192.0.2.1 vrf red"] {
            r.duet(line).unwrap();
        }
        let answered = |patience: Duration| {
            let deadline = Instant::now() + patience;
            let ping = Ping::new("10.77.0.1".parse().unwrap())
                .from("10.66.0.1".parse().unwrap())
                .timeout(Duration::from_millis(300));
            std::iter::repeat_with(|| bed.host("ra").ping(&ping).unwrap().received == 1)
                .take_while(|_| Instant::now() < deadline)
                .any(|yes| yes)
        };
        let apart = Duration::from_secs(2);
        assert!(!answered(apart), "VRFs are apart");
        r.duet("rule add iif red0 to 10.77.0.0/16 lookup 20 priority 100").unwrap();
        r.duet("rule add iif blue1 to 10.66.0.0/16 lookup 10 priority 101").unwrap();
        assert!(answered(PATIENCE), "the rules lead there and back");
        r.duet("rule del priority 100").unwrap();
        assert!(!answered(apart), "without its rule it is apart again");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn rules_choose_the_way() {
        let bed = crossroads().unwrap();
        let to = "203.0.113.1";
        for (from, addr, other) in [("a", "192.0.2.1", "p"), ("c", "192.0.2.65", "q")] {
            let pair = Pair::new(bed.host(from), bed.host(other), addr, to);
            pair.wait_reachable(PATIENCE).unwrap();
            // The exchange names the very host that must get it.
            pair.tcp().unwrap();
        }
        // By code point: the same two hosts, two ways at once.
        bed.duet("r").duet("rule add dscp ef lookup 100 priority 50").unwrap();
        for (tos, name) in [(0u8, "p"), (46 << 2, "q"), (10 << 2, "p")] {
            let server = bed.host(name).run(|| UdpSocket::bind((to, 4000))).unwrap();
            server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let client = bed.host("a").run(|| UdpSocket::bind("192.0.2.1:0")).unwrap();
            rustix::net::sockopt::set_ip_tos(&client, tos).unwrap();
            let deadline = Instant::now() + PATIENCE;
            let mut buffer = [0; 8];
            loop {
                client.send_to(&[tos], (to, 4000)).unwrap();
                match server.recv(&mut buffer) {
                    Ok(n) => break assert_eq!(buffer[..n], [tos], "marked {tos} to {name}"),
                    Err(_) => assert!(Instant::now() < deadline, "marked {tos} does not come to {name}"),
                }
            }
        }
        bed.duet("r").duet("rule del priority 50").unwrap();
        // As the rules change, so does the way.
        let r = bed.duet("r");
        for (command, other) in [("rule add from 192.0.2.1 lookup 100 priority 100", "q"), ("rule del priority 100", "p")] {
            r.duet(command).unwrap();
            let pair = Pair::new(bed.host("a"), bed.host(other), "192.0.2.1", to);
            pair.wait_reachable(PATIENCE).unwrap();
            pair.tcp().unwrap();
        }
        bed.finish().unwrap();
    }
}
