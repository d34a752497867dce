//! The stream of events: what is said about each change, as text and as JSON; readers that are slow, gone or without a
//! router.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testbeds::desk::{Plain, eventually};
use testbeds::lab::Dut::Duet;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const CONFIG: &str = include_str!("../../docs/examples/inspect.toml");

fn router() -> Plain {
    Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap()
}

/// `duet monitor` and what it said so far.
struct Monitor {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Monitor {
    /// Follows; returns when the first event has been seen, which `poke` makes until then.
    fn start(socket: &std::path::Path, words: &[&str], mut poke: impl FnMut()) -> Monitor {
        let mut child = Command::new(PROGRAM)
            .arg("monitor")
            .args(words)
            .env("DUET_SOCKET", socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (from, to) = (child.stdout.take().unwrap(), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                *to.lock().unwrap() += &(line + "\n");
            }
        });
        let monitor = Monitor { child, said };
        eventually("the monitor follows", || {
            poke();
            (!monitor.said().is_empty()).then_some(())
        });
        monitor
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    #[track_caller]
    fn hears(&self, texts: &[&str]) {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !texts.iter().all(|t| self.said().contains(t)) {
            assert!(std::time::Instant::now() < until, "{texts:?} were not all said:\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_change_is_said() {
    let router = router();
    let poke = || drop(router.ask(&["route", "replace", "10.250.0.0/16", "dev", "lan0"]));
    let m = Monitor::start(&router.socket(), &["all"], || {
        poke();
        router.ask(&["route", "del", "10.250.0.0/16"]);
    });
    let lines = "\
route add 10.251.0.0/16 via 192.0.2.9 proto bgp
route replace 10.251.0.0/16 via 192.0.2.10 proto bgp
route del 10.251.0.0/16
neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan0
neigh del 192.0.2.9 dev lan0
nexthop add id 7 via 192.0.2.9 dev lan0
route add 10.252.0.0/16 nhid 7
nexthop del id 7
addr add 192.0.2.77/24 dev lan0
addr del 192.0.2.77/24 dev lan0
link set lan0 mtu 1400
link set lan0 down
link set lan0 up
tunnel change he ttl 9
link set wan0 down
tunnel del he
";
    let out = router.ask_with(&["-batch", "-"], lines.as_bytes()).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    m.hears(&[
        "[ROUTE]10.251.0.0/16 via 192.0.2.9 dev lan0 proto bgp",
        "[ROUTE]10.251.0.0/16 via 192.0.2.10 dev lan0 proto bgp",
        "[ROUTE]Deleted 10.251.0.0/16 via 192.0.2.10 dev lan0 proto bgp",
        "[NEIGH]192.0.2.9 dev lan0 lladdr 02:00:00:00:00:09 PERMANENT",
        "[NEIGH]Deleted 192.0.2.9 dev lan0 lladdr 02:00:00:00:00:09 PERMANENT",
        "[NEXTHOP]id 7 via 192.0.2.9 dev lan0",
        "[ROUTE]10.252.0.0/16 nhid 7 via 192.0.2.9 dev lan0",
        "[NEXTHOP]Deleted id 7 via 192.0.2.9 dev lan0",
        "[ROUTE]Deleted 10.252.0.0/16 nhid 7",
        "[ADDR]2: lan0    inet 192.0.2.77/24",
        "[ADDR]Deleted 2: lan0    inet 192.0.2.77/24",
        "[ROUTE]local 192.0.2.77 dev lan0 table local proto kernel",
        "[LINK]2: lan0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400",
        "[LINK]2: lan0: <BROADCAST,MULTICAST> mtu 1400",
        "[TUNNEL]he: ipv6/ip remote 203.0.113.5 local 198.51.100.7 ttl 9 mtu 1480 carried",
        "no path to its remote",
        "[TUNNEL]Deleted he: ipv6/ip",
        "[LINK]Deleted 4: he:",
        "[ADDR]Deleted 4: he    inet6 2001:db8:ffff::2/64",
    ]);
}

#[test]
fn selected_stamped_and_as_json() {
    let router = router();
    let change = |n: u32| {
        router.ask(&["route", "add", &format!("10.251.{n}.0/24"), "dev", "lan0"]);
        router.ask(&["neigh", "replace", &format!("192.0.2.{n}"), "lladdr", "02:00:00:00:00:09", "dev", "lan0"]);
    };
    let mut n = 0;
    let mut next = || {
        n += 1;
        change(n);
    };
    let m = Monitor::start(&router.socket(), &["-ts", "route"], &mut next);
    next();
    m.hears(&["] 10.251."]);
    assert!(!m.said().contains("lladdr"), "{}", m.said());
    assert!(m.said().lines().all(|l| l.starts_with("[20") && l.contains("10.251.")), "{}", m.said());
    let m = Monitor::start(&router.socket(), &["-j", "neigh"], &mut next);
    next();
    m.hears(&["\"neigh\""]);
    for line in m.said().lines() {
        let v: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(v["event"], "neigh");
        assert_eq!(v["neigh"]["lladdr"], "02:00:00:00:00:09");
        assert!(v["time"].as_str().unwrap().ends_with('Z'));
    }
    let m = Monitor::start(&router.socket(), &["-t", "route"], &mut next);
    m.hears(&["Timestamp: ", " usec\n10.251."]);
}

#[test]
fn a_slow_reader_loses_events_and_hears_how_many() {
    let router = router();
    let mut slow = UnixStream::connect(router.socket()).unwrap();
    slow.write_all(b"{\"v\":1,\"id\":1,\"op\":{\"monitor\":{\"kinds\":[\"route\"]}}}\n").unwrap();
    let mut lines = BufReader::new(slow.try_clone().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert_eq!(first, "{\"id\":1,\"page\":{\"events\":[]}}\n");
    let batch: String = (0..30_000u32)
        .map(|i| format!("route add 10.{}.{}.{}/32 dev lan0\n", 100 + i / 65536, i / 256 % 256, i % 256))
        .collect();
    let out = router.ask_with(&["-batch", "-"], batch.as_bytes()).unwrap();
    assert!(out.status.success());
    // The router is as quick as ever, and everybody else hears everything.
    router.ask(&["route", "show", "10.100.0.0/32"]);
    let (mut heard, mut lost) = (0u64, 0u64);
    while heard + lost < 30_000 {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "closed after {heard} and {lost}");
        let v: serde_json::Value = serde_json::from_str(&line).unwrap();
        for e in v["page"]["events"].as_array().unwrap() {
            match e["lost"].as_u64() {
                Some(n) => lost += n,
                None => heard += 1,
            }
        }
    }
    assert_eq!(heard + lost, 30_000);
    assert!(lost > 0 && heard >= 8192, "{heard} heard, {lost} lost");
    // Whatever it says next ends the stream, and is answered.
    slow.write_all(b"{\"v\":1,\"id\":2,\"op\":\"version\"}\n").unwrap();
    let mut rest = String::new();
    lines.read_line(&mut rest).unwrap();
    assert!(rest.starts_with("{\"id\":1,\"ok\":{\"events\":["), "{rest}");
    rest.clear();
    lines.read_line(&mut rest).unwrap();
    assert!(rest.starts_with("{\"id\":2,\"ok\":{\"version\":"), "{rest}");
}

#[test]
fn the_router_goes_the_reader_goes() {
    let mut router = router();
    let socket = router.socket();
    let mut n = 0;
    let mut m = {
        let router = &router;
        Monitor::start(&socket, &[], || {
            n += 1;
            router.ask(&["route", "add", &format!("10.251.{n}.0/24"), "dev", "lan0"]);
        })
    };
    router.kill();
    let status = m.child.wait().unwrap();
    let mut err = String::new();
    m.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(err.starts_with("The router's answer ended early: connection closed\n"), "{err}");
    // A reader that closes its pipe ends the monitor without a word.
    router.run().unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("monitor")
        .env("DUET_SOCKET", &socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut n = 0;
    let status = eventually("it ends", || {
        n += 1;
        router.ask(&["route", "replace", "10.251.0.0/24", "metric", &n.to_string(), "dev", "lan0"]);
        child.try_wait().unwrap()
    });
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

sandbox_test! {
    fn neighbours_and_drops_of_real_traffic() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
        bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"]).unwrap();
        let r = RouterConfig::new("r").port("left", &["192.0.2.2/25"]).port("right", &["192.0.2.130/25"]);
        bed.router(Duet, &r).unwrap();
        let a = bed.host("a");
        let socket = bed.duet("r").socket().to_owned();
        let m = Monitor::start(&socket, &["neigh", "drops", "link", "label"], || {
            let _ = a.ping(&Ping::new("192.0.2.129".parse().unwrap()).count(1).timeout(Duration::from_secs(5)));
            let _ = a.ping(&Ping::new("198.51.100.1".parse().unwrap()).count(1).timeout(Duration::from_millis(200)));
        });
        let _ = a.ping(&Ping::new("192.0.2.140".parse().unwrap()).count(1).timeout(Duration::from_millis(200)));
        let _ = a.ping(&Ping::new("198.51.100.1".parse().unwrap()).count(3).timeout(Duration::from_secs(2)));
        m.hears(&["[NEIGH]192.0.2.140 dev right INCOMPLETE", "[NEIGH]192.0.2.140 dev right FAILED", "[DROPS]no_route "]);
    }
}
