//! The full Internet tables of both families, loaded through the control socket while traffic flows: not one packet is
//! lost, and lookups are right afterwards.

use flate2::read::GzDecoder;
use router_io::lab::probe::{Ping, UdpExchange};
use router_io::sandbox_test;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::routes::{Looked, duet_lookups};
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// The directory with the tables: DUET_DATA, or `shared/data` beside the project.
fn data() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("DUET_DATA").map_or(beside, PathBuf::from)
}

/// The lines of a table, as commands. Next-hop ids become two gateways.
fn commands(file: &str, gateways: [&str; 2]) -> Option<(usize, String)> {
    let lines = BufReader::new(GzDecoder::new(File::open(data().join(file)).ok()?)).lines();
    let mut text = String::new();
    let mut count = 0;
    for line in lines {
        let line = line.ok()?;
        let (prefix, id) = line.split_once(char::is_whitespace)?;
        let id: usize = id.trim().parse().ok()?;
        let _ = writeln!(text, "route add {prefix} {}", gateways[id % 2]);
        count += 1;
    }
    Some((count, text))
}

/// A line of /proc/PID/status in KiB.
fn memory(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Sends datagrams and pings until it is told that the work beside it is done; none may be lost. Says how many it sent.
fn flow(done: &AtomicBool, pairs: &[Pair<'_>], beside: &str) -> usize {
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        for pair in pairs {
            let x = UdpExchange { timeout: Duration::from_secs(10), ..UdpExchange::new(pair.addr_b, 400, 200) };
            let r = pair.a.udp_exchange(pair.b, &x).unwrap();
            assert!(r.all_right(&x), "datagrams were lost while {beside}: {r:?}");
            let r = pair.a.ping(&Ping::new(pair.addr_b).count(20).timeout(Duration::from_secs(10))).unwrap();
            assert!(r.all_answered(), "pings were lost while {beside}: {r:?}");
            sent += 220;
        }
    }
    sent
}

sandbox_test! {
    fn loaded_while_traffic_flows() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"]).unwrap();
        bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"]).unwrap();
        let r = RouterConfig::new("r")
            .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
            .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"]);
        bed.router(Duet, &r).unwrap();
        let (a, b, r) = (bed.host("a"), bed.host("b"), bed.duet("r"));
        let pairs = [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")].map(|(x, y)| Pair::new(a, b, x, y));
        for pair in pairs {
            pair.reachable().unwrap();
        }
        let tables = [
            ("bgp-ipv4.txt.gz", ["via 192.0.2.129", "via inet6 2001:db8:b::1"]),
            ("bgp-ipv6.txt.gz", ["via 2001:db8:b::1", "via 2001:db8:a::1"]),
        ];
        let empty = memory(r.pid(), "VmRSS");
        for (file, gateways) in tables {
            let Some((count, text)) = commands(file, gateways) else {
                eprintln!("SKIPPED: {} is not there; DUET_DATA names the directory with the tables", data().join(file).display());
                return;
            };
            let done = AtomicBool::new(false);
            let (taken, flows) = std::thread::scope(|scope| {
                let flowing = scope.spawn(|| flow(&done, &pairs, &format!("{file} was loaded")));
                let start = Instant::now();
                let outcome = r.ask(&["-batch", "-"], text.as_bytes());
                let taken = start.elapsed();
                done.store(true, Ordering::Relaxed);
                let flows = flowing.join().unwrap();
                assert_eq!(outcome.as_ref().map(|o| o.code).unwrap(), 0, "{outcome:?}");
                (taken, flows)
            });
            let kib = memory(r.pid(), "VmRSS");
            let mut said = String::new();
            let _ = write!(said, "{file}: {count} routes in {taken:.2?}, {} MiB more, ", (kib.saturating_sub(empty)) >> 10);
            let _ = write!(said, "{flows} packets and their answers meanwhile, none lost");
            eprintln!("NOTE: {said}");
        }
        // The whole of it is shown, filtered and counted; meanwhile nothing is lost, and neither side keeps a copy.
        let full = memory(r.pid(), "VmRSS");
        let done = AtomicBool::new(false);
        let flows = std::thread::scope(|scope| {
            let flowing = scope.spawn(|| flow(&done, &pairs, "the tables were shown"));
            let lines = ["route show table all | count", "show ip route | count", "route show | match 203.0.113. | count", "-6 route show | json | count"];
            let words: Vec<&str> = std::iter::once("shell").chain(lines.iter().flat_map(|l| ["-c", l])).collect();
            let said = r.ask(&words, b"").unwrap();
            done.store(true, Ordering::Relaxed);
            let sent = flowing.join().unwrap();
            let counts: Vec<u64> = said.stdout.lines().filter_map(|l| l.parse().ok()).collect();
            assert!(counts.len() == lines.len() && counts[0] > counts[1] + counts[3], "{said:?}");
            let loaded: u64 = tables.iter().filter_map(|(file, gateways)| commands(file, *gateways)).map(|(n, _)| n as u64).sum();
            assert!(counts[0] >= loaded, "{counts:?} of {loaded}");
            sent
        });
        let grown = memory(r.pid(), "VmRSS").saturating_sub(full);
        eprintln!("NOTE: shown and counted four times, {flows} packets and their answers meanwhile, none lost; the router's memory grew by {grown} KiB");
        assert!(grown < 16 * 1024, "the router grew by {grown} KiB from {full}");
        let looked = duet_lookups(r, &[ip("1.1.1.1"), ip("8.8.8.8"), ip("2001:4860:4860::8888")]).unwrap();
        assert!(looked.iter().all(|l| matches!(l, Looked::Hop { via: Some(_), .. })), "{looked:?}");
        bed.finish().unwrap();
    }
}

#[test]
fn a_table_becomes_commands() {
    let Some((count, text)) = commands("bgp-ipv6.txt.gz", ["via 2001:db8:b::1", "via 2001:db8:a::1"]) else {
        eprintln!("SKIPPED: no tables in {}", data().display());
        return;
    };
    assert_eq!(text.lines().count(), count);
    assert!(text.starts_with("route add 2"));
}
