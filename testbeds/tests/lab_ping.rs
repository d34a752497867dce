//! `duet ping` against Linux hosts: replies and errors of both families, and a source route that Linux follows and turns
//! round (RFC 1812 4.3.3.6, RFC 1122 3.2.1.8).

use router_io::sandbox_test;
use std::time::{Duration, Instant};
use testbeds::lab::Dut::Duet;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 - b, with ways between them; the router obeys loose source routes.
fn bed() -> Bed {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "b"], &[1500; 2]).unwrap();
    bed.ready().unwrap();
    bed.end("a", &["192.0.2.2/24", "2001:db8:a::2/64"], &["default via 192.0.2.1", "default via 2001:db8:a::1"])
        .unwrap();
    bed.end("b", &["198.51.100.2/24", "2001:db8:b::2/64"], &["default via 198.51.100.1", "default via 2001:db8:b::1"])
        .unwrap();
    bed.router(
        Duet,
        &RouterConfig::new("r1")
            .port("left", &["192.0.2.1/24", "2001:db8:a::1/64"])
            .port("right", &["198.51.100.1/24", "2001:db8:b::1/64"])
            .route("203.0.113.0/24 via 192.0.2.2")
            .extra("[ipv4_options]\nlsrr = \"process\"\n"),
    )
    .unwrap();
    // An IPv6 address is asked from once it is known to be nobody else's.
    let deadline = Instant::now() + Duration::from_secs(30);
    while bed.duet("r1").duet("addr").unwrap().contains("tentative") {
        assert!(Instant::now() < deadline, "addresses stay tentative");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    bed
}

sandbox_test! {
    /// Proves rfc1812-4.3.3.6-send.
    fn the_router_asks_linux_hosts() {
        let bed = bed();
        let r1 = bed.duet("r1");
        for (target, from) in [
            ("192.0.2.2", "192.0.2.1"),
            ("198.51.100.2", "198.51.100.1"),
            ("2001:db8:a::2", "2001:db8:a::1"),
            ("2001:db8:b::2", "2001:db8:b::1"),
        ] {
            let said = r1.duet(&format!("ping -c 3 -i 0.05 -s 100 {target}")).unwrap();
            assert!(said.starts_with(&format!("PING {target} from {from}: 100 data bytes\n")), "{said}");
            for seq in 1..=3 {
                assert!(said.contains(&format!("108 bytes from {target}: icmp_seq={seq} ttl=64 time=")), "{said}");
            }
            assert!(said.contains("\n3 packets transmitted, 3 received, 0% packet loss\nrtt min/avg/max = "), "{said}");
        }
        // Longer than the link, in pieces there and back.
        let long = r1.duet("ping -c 2 -i 0.05 -s 3000 198.51.100.2").unwrap();
        assert!(long.contains("3008 bytes from 198.51.100.2: icmp_seq=2 ttl=64"), "{long}");
        // A host that does not forward says so, or says nothing; nobody is there in any case.
        let silent = r1.ask(&["ping", "-c", "2", "-i", "0.05", "-W", "0.2", "192.0.2.77"], b"").unwrap();
        assert_eq!(silent.code, 2, "{silent:?}");
        assert!(silent.stdout.contains("2 packets transmitted, 0 received"), "{silent:?}");
        assert!(silent.stderr.contains("192.0.2.77 does not answer."), "{silent:?}");
        let json: serde_json::Value = serde_json::from_str(&r1.duet("ping -c 1 -j 2001:db8:b::2").unwrap()).unwrap();
        assert_eq!((&json["received"], &json["answers"][0]["ttl"]), (&1.into(), &64.into()), "{json}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    /// Proves rfc1122-3.2.1.8-originate: Linux hosts are told to obey source routes; one forwards along it, the other one
    /// turns it round.
    fn source_routes_of_the_routers_own() {
        let bed = bed();
        for host in ["a", "b"] {
            bed.host(host)
                .run(|| -> std::io::Result<()> {
                    std::fs::write("/proc/sys/net/ipv4/conf/all/accept_source_route", "1")?;
                    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
                })
                .unwrap();
        }
        let r1 = bed.duet("r1");
        let said = r1.duet("ping -c 2 -i 0.05 192.0.2.2 198.51.100.2").unwrap();
        // There by a and back by a: the reply has passed this router, and then a.
        assert!(said.contains("64 bytes from 198.51.100.2: icmp_seq=2 ttl=62 "), "{said}");
        assert!(said.contains("2 packets transmitted, 2 received"), "{said}");
        let said = r1.duet("ping -c 1 -R 192.0.2.2").unwrap();
        assert!(said.contains("\nRR:     192.0.2.2"), "{said}");
        bed.finish().unwrap();
    }
}
