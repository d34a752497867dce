//! Reloading the configuration under traffic: the difference is applied, nothing of the rest is disturbed, not one
//! packet is lost; a broken file changes nothing.

use router_io::lab::probe::{Ping, UdpExchange};
use router_io::sandbox_test;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Dut, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

fn base() -> RouterConfig {
    RouterConfig::new("r")
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"])
}

/// Other versions of the file: each leaves ports and their first addresses alone.
fn versions() -> [String; 4] {
    let many = |n: u32| (0..n).fold(base(), |c, i| c.route(&format!("10.{i}.0.0/16 via inet6 2001:db8:b::1")));
    [
        many(50).to_toml(),
        many(3).route("blackhole 198.51.100.0/24").extra("[icmp]\nerror_rate = 5\n").to_toml(),
        base()
            .extra(
                "[tunnel.t]\nmode = \"6in4\"\nlocal = \"192.0.2.130\"\nremote = \"192.0.2.200\"\n\
                 address = [\"2001:db8:ff::1/64\"]\n",
            )
            .route("2001:db8:77::/48 via 2001:db8:ff::2")
            .to_toml(),
        base().to_toml(),
    ]
}

sandbox_test! {
    fn reloaded_while_traffic_flows() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"]).unwrap();
        bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"]).unwrap();
        bed.router(Dut::Duet, &base()).unwrap();
        let file = bed.duet("r").config().to_owned();
        let (a, b) = (bed.host("a").clone(), bed.host("b").clone());
        let pairs = [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")].map(|(x, y)| Pair::new(&a, &b, x, y));
        for pair in pairs {
            pair.reachable().unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flowing = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for pair in pairs {
                        let x = UdpExchange { timeout: Duration::from_secs(10), ..UdpExchange::new(pair.addr_b, 400, 100) };
                        let r = a.udp_exchange(&b, &x).unwrap();
                        assert!(r.all_right(&x), "lost while reloading: {r:?}");
                    }
                }
            });
            // Ends the traffic also when something below panics.
            let _stop = StopOnDrop(&done);
            for text in versions().iter().cycle().take(20) {
                std::fs::write(&file, text).unwrap();
                bed.duet("r").duet("reload").unwrap();
            }
            // A broken file is refused as a whole.
            std::fs::write(&file, "[port.left]\nkind = \"nonsense\"\n").unwrap();
            let refused = bed.duet("r").ask(&["reload"], b"").unwrap();
            assert!(refused.code != 0 && refused.stderr.contains("nonsense"), "{refused:?}");
            // So is one whose last step fails: its first steps are taken back.
            let impossible = base().route("10.9.0.0/16 via 192.0.2.129").port("missing", &["10.0.0.1/24"]).to_toml();
            std::fs::write(&file, impossible).unwrap();
            let refused = bed.duet("r").ask(&["reload"], b"").unwrap();
            assert!(refused.code != 0 && refused.stderr.contains("missing"), "{refused:?}");
            assert!(!bed.duet("r").duet("route show").unwrap().contains("10.9.0.0"));
            drop(_stop);
            flowing.join().unwrap();
        });
        bed.finish().unwrap();
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

sandbox_test! {
    fn hangup_reloads() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
        bed.end("b", &["192.0.2.129/25", "203.0.113.1/32"], &["default via 192.0.2.130"]).unwrap();
        bed.router(Dut::Duet, &base()).unwrap();
        let a = bed.host("a").clone();
        let ping = Ping::new(ip("203.0.113.1"));
        assert_eq!(a.ping(&ping).unwrap().errors[0].name, "net unreachable");
        let more = base().route("203.0.113.0/24 via 192.0.2.129").to_toml();
        std::fs::write(bed.duet("r").config(), more).unwrap();
        bed.duet_mut("r").process().signal(Signal::HUP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !a.ping(&ping).unwrap().all_answered() {
            assert!(Instant::now() < deadline, "the route is not there");
        }
        bed.finish().unwrap();
    }
}
