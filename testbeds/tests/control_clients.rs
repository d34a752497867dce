//! A thousand clients of the control socket, half of them sending rubbish or reading nothing: forwarding does not notice, the
//! router's memory does not grow, and whoever behaves is served.

use router_io::lab::probe::{Ping, UdpExchange};
use router_io::sandbox_test;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testbeds::desk::eventually;
use testbeds::lab::Dut::Duet;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// A line of /proc/PID/status in KiB, or its number.
fn status(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What the clients do, by turns.
fn behave(n: usize, socket: &Path) -> Option<UnixStream> {
    let mut s = UnixStream::connect(socket).ok()?;
    s.set_write_timeout(Some(Duration::from_millis(500))).ok()?;
    s.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    // Whether the router takes it is not this client's business.
    let _ = match n % 8 {
        // Rubbish of several kinds.
        0 => s.write_all(b"GET / HTTP/1.1\r\n\r\n"),
        1 => s.write_all(&[0xff; 20_000]),
        2 => s.write_all(b"{\"v\":1,\"id\":1,\"op\":{\"route.show\":"),
        // Asks for much and reads nothing.
        3 => (0..50).try_for_each(|_| s.write_all(b"{\"v\":1,\"op\":{\"route.show\":{\"table\":\"all\"}}}\n")),
        // Says nothing.
        4 => Ok(()),
        // Follows, and does not read.
        5 => s.write_all(b"{\"v\":1,\"op\":{\"monitor\":{}}}\n"),
        // Behaves.
        _ => s.write_all(b"{\"v\":1,\"id\":9,\"op\":\"version\"}\n").map(|()| {
            let _ = s.read(&mut [0; 4096]);
        }),
    };
    Some(s)
}

sandbox_test! {
    fn a_thousand_clients_and_traffic() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
        bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"]).unwrap();
        let r = RouterConfig::new("r").port("left", &["192.0.2.2/25"]).port("right", &["192.0.2.130/25"]);
        bed.router(Duet, &r).unwrap();
        let (a, b, r) = (bed.host("a"), bed.host("b"), bed.duet("r"));
        let routes: String = (0..20_000u32).map(|i| format!("route add 10.{}.{}.0/24 via 192.0.2.129\n", i / 256, i % 256)).collect();
        assert_eq!(r.ask(&["-batch", "-"], routes.as_bytes()).unwrap().code, 0);
        let to = "192.0.2.129".parse().unwrap();
        let exchange = UdpExchange { timeout: Duration::from_secs(10), ..UdpExchange::new(to, 400, 200) };
        let traffic = || {
            let began = Instant::now();
            let got = a.udp_exchange(b, &exchange).unwrap();
            assert!(got.all_right(&exchange), "datagrams were lost: {got:?}");
            let got = a.ping(&Ping::new(to).count(20).timeout(Duration::from_secs(10))).unwrap();
            assert!(got.all_answered(), "pings were lost: {got:?}");
            began.elapsed()
        };
        let quiet = (0..3).map(|_| traffic()).max().unwrap();
        let (memory, threads) = (status(r.pid(), "VmRSS"), status(r.pid(), "Threads"));
        let (served, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let (loud, peak) = std::thread::scope(|scope| {
            let socket = r.socket();
            for part in 0..8 {
                let (served, done) = (&served, &done);
                scope.spawn(move || {
                    // 125 at a time each: a thousand in all. Those that were turned away come again.
                    let mut held: Vec<Option<UnixStream>> = (0..125).map(|_| None).collect();
                    for round in 0.. {
                        for (i, slot) in held.iter_mut().enumerate() {
                            *slot = behave(part * 125 + i + round, socket);
                            served.fetch_add(u64::from(slot.is_some()), Ordering::Relaxed);
                        }
                        if round > 0 && done.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            eventually("a thousand clients came", || (served.load(Ordering::Relaxed) >= 1000).then_some(()));
            let mut peak = (0, 0);
            let mut worst = Duration::ZERO;
            for _ in 0..5 {
                worst = worst.max(traffic());
                peak = (peak.0.max(status(r.pid(), "VmRSS")), peak.1.max(status(r.pid(), "Threads")));
            }
            done.store(true, Ordering::Relaxed);
            (worst, peak)
        });
        println!(
            "{} connections; 400 datagrams and 20 pings in {quiet:.1?} before, {loud:.1?} at worst meanwhile; memory {} KiB before, {} KiB at most; threads {threads}, {} at most",
            served.load(Ordering::Relaxed), memory, peak.0, peak.1
        );
        // Bounds: 64 clients with a line of 4 MiB each is what the limits allow; nothing of that kind is reached here.
        assert!(peak.0 < memory + 100 * 1024, "memory grew from {memory} to {} KiB", peak.0);
        // A thread that was waited for is still counted by the system for a moment.
        assert!(peak.1 <= threads + 64 + 8, "{} threads, {threads} before", peak.1);
        // Whoever behaves is served again as soon as the others are gone.
        eventually("the router answers", || (r.ask(&["route", "show", "10.0.0.0/24"], b"").ok()?.code == 0).then_some(()));
        eventually("their threads are gone", || (status(r.pid(), "Threads") <= threads + 2).then_some(()));
        let after = status(r.pid(), "VmRSS");
        assert!(after < memory + 64 * 1024, "memory stayed at {after} KiB, {memory} before");
    }
}
