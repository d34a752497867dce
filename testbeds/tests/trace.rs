//! Packets followed through a running router, why they were dropped, and the decision for live ones.

use router_cli::demo::instance::Stats;
use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use testbeds::desk::eventually;
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::ip;
use testbeds::lab::{Bed, Result, RouterConfig, Watching};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 - b, both families.
fn bed() -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "b"], &[1500; 2])?;
    bed.ready()?;
    let (default4, default6) = ("default via 192.0.2.1", "default via 2001:db8:a::1");
    bed.end("a", &["192.0.2.2/25", "2001:db8:a::2/64"], &[default4, default6])?;
    bed.end("b", &["192.0.2.130/25", "2001:db8:b::2/64"], &["default via 192.0.2.129", "default via 2001:db8:b::1"])?;
    bed.router(
        Duet,
        &RouterConfig::new("r1")
            .port("left", &["192.0.2.1/25", "2001:db8:a::1/64"])
            .port("right", &["192.0.2.129/25", "2001:db8:b::1/64"])
            .route("blackhole 198.51.100.0/24"),
    )?;
    let ping = Ping::new(ip("192.0.2.130"));
    assert!(bed.host("a").ping(&ping)?.all_answered());
    Ok(bed)
}

fn ping(bed: &Bed, count: u16) {
    assert!(bed.host("a").ping(&Ping::new(ip("192.0.2.130")).count(count)).unwrap().all_answered());
}

sandbox_test! {
    fn every_step_of_the_packets_that_fit() {
        let bed = bed().unwrap();
        let r1 = bed.duet("r1");
        assert!(r1.duet("trace show").unwrap().starts_with("Nothing is traced"));
        assert_eq!(r1.duet("trace add icmp and src 192.0.2.2 count 3").unwrap(), "");
        ping(&bed, 5);
        // One that ends here, for a filter that still waits.
        r1.duet("trace add ip and dst net 198.51.100.0/24 count 1").unwrap();
        let lost = bed.host("a").ping(&Ping::new(ip("198.51.100.9"))).unwrap();
        assert!(!lost.all_answered());
        let shown = r1.duet("trace show").unwrap();
        assert!(shown.contains("trace 1  icmp and src 192.0.2.2: 3 of 3 packets\n"), "{shown}");
        assert!(shown.contains("  left  192.0.2.2 > 192.0.2.130 icmp echo request ttl 64 len 84"), "{shown}");
        for step in ["lookup    192.0.2.130 in table main", "nexthop   192.0.2.130 dev right", "decided   native: send through right", "sent      right, 98 bytes"] {
            assert_eq!(shown.matches(step).count(), 3, "{step}:\n{shown}");
        }
        assert!(shown.contains("ttl 63"), "{shown}");
        assert!(shown.contains("dropped   blackhole"), "{shown}");
        let paths = r1.duet("trace paths").unwrap();
        let lines: Vec<&str> = paths.lines().collect();
        assert_eq!(lines.len(), 3, "{paths}");
        assert!(lines[1].contains(" 75.0% ") && lines[1].ends_with("left > table main > 192.0.2.130 dev right > sent right"), "{paths}");
        assert!(lines[2].contains(" 25.0% ") && lines[2].ends_with("left > table main > dropped blackhole"), "{paths}");
        let json = r1.json("trace show -j").unwrap();
        let first = &json[0]["packets"][0];
        assert_eq!((&first["iif"], &first["packet"]["ttl"]), (&"left".into(), &64.into()), "{first}");
        let times: Vec<u64> = first["steps"].as_array().unwrap().iter().map(|s| s["after"].as_u64().unwrap()).collect();
        assert!(times.is_sorted() && times.len() >= 4, "{times:?}");
        r1.duet("trace clear").unwrap();
        assert!(r1.duet("trace").unwrap().starts_with("Nothing is traced"));
        // A wrong word gets its caret, before the router is asked.
        let wrong = r1.ask(&["trace", "add", "icmp", "adn", "host", "192.0.2.2"], b"").unwrap();
        assert_eq!(wrong.code, 1);
        assert!(wrong.stderr.contains("  duet trace add icmp adn host 192.0.2.2\n                      ^^^ expected and, or"), "{}", wrong.stderr);
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn drops_with_their_last_packets() {
        let bed = bed().unwrap();
        let r1 = bed.duet("r1");
        let a = bed.host("a");
        a.ping(&Ping::new(ip("198.51.100.9"))).unwrap();
        a.ping(&Ping { ttl: Some(1), ..Ping::new(ip("192.0.2.130")) }).unwrap();
        let text = r1.duet("drops").unwrap();
        for part in [
            "reason", "per second",
            "The route is a blackhole.",
            "  do     A route of yours says so",
            "  left      192.0.2.2 > 198.51.100.9 icmp echo request ttl 64 len 84",
            "  left      192.0.2.2 > 192.0.2.130 icmp echo request ttl 1 len 84",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        let json = r1.json("drops -j").unwrap();
        let row = json.as_array().unwrap().iter().find(|r| r["reason"] == "ttl_expired").unwrap();
        assert_eq!((&row["packets"], &row["last"][0]["iif"]), (&1.into(), &"left".into()), "{row}");
        let all = r1.duet("drops --all").unwrap();
        assert!(all.lines().count() > 50, "{all}");
        // Rates, again and again.
        let mut watch = Watching::start(PROGRAM, r1, "stats --watch 0.2").unwrap();
        let mut out = watch.stdout().unwrap();
        let mut seen = String::new();
        let mut buffer = [0u8; 512];
        while seen.matches("worker0").count() < 2 {
            ping(&bed, 5);
            let n = std::io::Read::read(&mut out, &mut buffer).unwrap();
            assert!(n > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        assert!(seen.contains("rx pps") && seen.contains("right"), "{seen}");
        // The traffic of routes and next hops, while it is asked for.
        for (of, want) in [("route", "192.0.2.128/25"), ("nexthop", "192.0.2.130 dev right")] {
            let words = format!("stats {of} 1 -j");
            let asked = Watching::start(PROGRAM, r1, &words).unwrap();
            let mut asked = asked;
            while !asked.ended() {
                ping(&bed, 3);
            }
            let (out, errors) = asked.end().unwrap();
            let text = String::from_utf8(out.stdout).unwrap();
            assert!(out.status.success() && text.contains(want), "{text}{errors}");
        }
        assert!(r1.duet("trace").unwrap().starts_with("Nothing is traced"));
        let stats = r1.duet("stats").unwrap();
        assert!(stats.contains("worker0") && stats.contains("control"), "{stats}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn live_packets_are_explained_and_nothing_changes_by_asking() {
        let bed = bed().unwrap();
        let r1 = bed.duet("r1");
        // Link chatter goes on meanwhile, and so do the router's own reports and probes: once in a while none falls in between.
        let drops = |s: &Stats| s.drops.iter().filter(|(r, _)| *r != "local_ignored").map(|(_, n)| *n).sum::<u64>();
        eventually("asking makes, holds and drops nothing", || {
            let before = bed.stats("r1").unwrap();
            let told = r1.duet("explain from 192.0.2.2 to 192.0.2.130 proto udp dport 53").unwrap();
            assert!(told.contains("├─ lookup    192.0.2.130 in table main") && told.contains("└─ out       right"), "{told}");
            let state = told.to_lowercase();
            assert!(["reachable", "stale", "delay", "probe"].iter().any(|s| state.contains(s)), "{told}");
            let unknown = r1.duet("explain from 192.0.2.2 to 192.0.2.200").unwrap();
            assert!(unknown.contains("not known yet: ARP will ask"), "{unknown}");
            assert!(unknown.contains("held      until 192.0.2.200 answers on right"), "{unknown}");
            // Nobody was asked, nothing was counted.
            assert!(!r1.duet("neigh").unwrap().contains("192.0.2.200"));
            let after = bed.stats("r1").unwrap();
            let of = |s: &Stats| (s.originated, s.held, drops(s));
            (of(&after) == of(&before)).then_some(())
        });

        let mut live = Watching::start(PROGRAM, r1, "explain --watch icmp and src 192.0.2.2 count 2").unwrap();
        let mut out = Vec::new();
        while !live.ended() {
            ping(&bed, 1);
            out.push(());
            assert!(out.len() < 2000, "it never had enough");
        }
        let (output, errors) = live.end().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("192.0.2.2 > 192.0.2.130 icmp echo request ttl 64 len 84 df\n").count(), 2, "{text}{errors}");
        assert!(text.contains("└─ out       right"), "{text}");
        bed.finish().unwrap();
    }
}
