//! Lab 6: a resilient group over three gateways. Flows are told by their source ports; each of the hosts behind the gateways
//! has the same address and writes down which flows came to it, in which order.

use router_io::lab::Host;
use router_io::sandbox_test;
use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(30);
const TARGET: &str = "203.0.113.1";
const FLOWS: u16 = 96;

/// By flow: where each of its datagrams arrived, and its number.
type Seen = Arc<Mutex<BTreeMap<u16, Vec<(&'static str, u32)>>>>;

/// a - r = (p | q | s), all three with the target's address; the group is resilient.
fn three_ways() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "p", "q", "s", "r"])?;
    bed.net.link(("a", "eth0"), ("r", "left"))?;
    let mut r = RouterConfig::new("r").port("left", &["192.0.2.2/24"]);
    for (n, host) in [(1, "p"), (2, "q"), (3, "s")] {
        bed.net.link(("r", &format!("up{n}")), (host, "eth0"))?;
        r = r.port(&format!("up{n}"), &[&format!("10.0.{n}.1/24")]);
    }
    bed.ready()?;
    bed.end("a", &["192.0.2.1/24"], &["default via 192.0.2.2"])?;
    for (n, host) in [(1, "p"), (2, "q"), (3, "s")] {
        let own = format!("10.0.{n}.2/24");
        bed.end(host, &[&own, &format!("{TARGET}/32")], &[&format!("default via 10.0.{n}.1")])?;
    }
    let r = r.extra(
        r#"
[nexthop]
1 = "via 10.0.1.2 dev up1"
2 = "via 10.0.2.2 dev up2"
3 = "via 10.0.3.2 dev up3"
10 = "group 1/2/3 type resilient buckets 64 idle_timer 3600"
"#,
    );
    bed.router(Dut::Duet, &r.route("203.0.113.0/24 nhid 10"))?;
    Ok(bed)
}

/// Writes down what arrives at a host, until told to stop.
fn listen(host: &Arc<Host>, name: &'static str, seen: &Seen, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let socket = host.run(|| UdpSocket::bind((TARGET, 4000)))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (seen, stop) = (Arc::clone(seen), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((4, from)) = socket.recv_from(&mut buffer) {
                let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                seen.lock().expect("no panic before").entry(from.port()).or_default().push((name, number));
            }
        }
    });
    Ok(())
}

/// Sends a datagram of every flow, until each has arrived somewhere once more. Says where.
fn round(sockets: &[UdpSocket], seen: &Seen, number: &mut u32) -> BTreeMap<u16, &'static str> {
    let deadline = Instant::now() + PATIENCE;
    let first = *number + 1;
    loop {
        *number += 1;
        for s in sockets {
            // What is lost on a way that has just failed is sent again.
            let _ = s.send_to(&number.to_be_bytes(), (TARGET, 4000));
        }
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            let now = seen.lock().expect("no panic before");
            let last = |f: &Vec<(&'static str, u32)>| f.last().filter(|(_, n)| *n >= first).map(|(host, _)| *host);
            let all: BTreeMap<u16, &'static str> = now.iter().filter_map(|(p, f)| Some((*p, last(f)?))).collect();
            drop(now);
            if all.len() == sockets.len() {
                return all;
            }
            assert!(Instant::now() < deadline, "{} of {} flows arrive", all.len(), sockets.len());
            std::thread::yield_now();
        }
    }
}

fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Buckets by member.
fn shares(bed: &Bed) -> BTreeMap<String, usize> {
    let text = bed.duet("r").duet("nexthop bucket show id 10").expect("buckets");
    let mut shares = BTreeMap::new();
    for line in text.lines() {
        let nhid = line.split_whitespace().skip_while(|w| *w != "nhid").nth(1).expect("a member");
        *shares.entry(nhid.to_owned()).or_default() += 1;
    }
    shares
}

fn of(shares: &BTreeMap<String, usize>) -> [usize; 3] {
    ["1", "2", "3"].map(|id| shares.get(id).copied().unwrap_or(0))
}

sandbox_test! {
    fn the_loss_of_a_member_moves_its_flows_only_and_its_return_moves_none_in_use() {
        let bed = three_ways().unwrap();
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        for (n, name) in [(1, "p"), (2, "q"), (3, "s")] {
            Pair::new(bed.host("a"), bed.host(name), "192.0.2.1", &format!("10.0.{n}.2")).wait_reachable(PATIENCE).unwrap();
            listen(bed.host(name), name, &seen, &stop).unwrap();
        }
        let sockets: Vec<UdpSocket> =
            (0..FLOWS).map(|i| bed.host("a").run(|| UdpSocket::bind(("192.0.2.1", 20_000 + i))).unwrap()).collect();
        let mut number = 0;
        let before = round(&sockets, &seen, &mut number);
        assert_eq!(of(&shares(&bed)), [21, 22, 21]);
        for name in ["p", "q", "s"] {
            let flows = before.values().filter(|h| **h == name).count();
            assert!((15..50).contains(&flows), "{flows} of {FLOWS} flows to {name}");
        }
        // Rounds before the loss: no flow moves.
        for _ in 0..5 {
            assert_eq!(round(&sockets, &seen, &mut number), before);
        }
        bed.net.set_up("q", "eth0", false).unwrap();
        wait("the group takes the failed member out", || of(&shares(&bed))[1] == 0);
        let after = round(&sockets, &seen, &mut number);
        for (flow, host) in &before {
            match *host {
                "q" => assert_ne!(after[flow], "q"),
                host => assert_eq!(after[flow], host, "a flow of a member that did not fail has moved"),
            }
        }
        let shared = of(&shares(&bed));
        assert!(shared[0] == 32 && shared[2] == 32, "{shared:?}");
        // Back: its idle buckets follow, none that a flow uses.
        bed.net.set_up("q", "eth0", true).unwrap();
        bed.net.route("q", "default via 10.0.2.1").unwrap();
        let r = bed.duet("r");
        wait("the link is up again", || r.duet("link show up2").is_ok_and(|t| t.contains("state UP")));
        for _ in 0..5 {
            assert_eq!(round(&sockets, &seen, &mut number), after, "the return of a member has moved a flow in use");
        }
        // All flows are quiet, or seem so once a second is enough: the group is balanced again.
        r.duet("nexthop replace id 10 group 1/2/3 type resilient buckets 64 idle_timer 1").unwrap();
        wait("idle buckets move", || of(&shares(&bed)) == [21, 22, 21]);
        let shown = r.duet("nexthop show id 10").unwrap();
        assert_eq!(
            shown.trim_end(),
            "id 10 group 1/2/3 type resilient buckets 64 idle_timer 1 unbalanced_timer 0 unbalanced_time 0"
        );
        round(&sockets, &seen, &mut number);
        stop.store(true, Ordering::Relaxed);
        // Whatever happened, no flow was reordered.
        for (flow, list) in seen.lock().unwrap().iter() {
            assert!(list.windows(2).all(|w| w[0].1 < w[1].1), "flow {flow}: {list:?}");
        }
        bed.finish().unwrap();
    }
}
