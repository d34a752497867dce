//! Traffic of routes and next hops counted exactly while somebody asks, and the busiest routes on the screen of `duet top`.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::process::Command;
use testbeds::desk::{Terminal, eventually};
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::ip;
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 - b; b also answers for the hosts of 10.0.0.0/8 and 2001:db8:f::/48, behind two gateways that are both b.
fn bed() -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "b"], &[1500; 2])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.2/25", "2001:db8:a::2/64"], &["default via 192.0.2.1", "default via 2001:db8:a::1"])?;
    let own = ["192.0.2.130/25", "192.0.2.131/25", "10.1.0.1/32", "10.2.0.1/32", "10.3.0.1/32", "2001:db8:b::2/64"];
    bed.end("b", &own, &["default via 192.0.2.129", "default via 2001:db8:b::1"])?;
    bed.router(
        Duet,
        &RouterConfig::new("r1")
            .port("left", &["192.0.2.1/25", "2001:db8:a::1/64"])
            .port("right", &["192.0.2.129/25", "2001:db8:b::1/64"])
            .route("10.0.0.0/8 via 192.0.2.130")
            .route("10.1.0.0/16 via 2001:db8:b::2")
            .route("10.2.0.0/16 nexthop via 192.0.2.130 nexthop via 192.0.2.131")
            .route("blackhole 10.9.0.0/16"),
    )?;
    Ok(bed)
}

/// So many answered requests of `len` bytes from the IP header on.
fn ping(bed: &Bed, to: &str, count: u16, len: usize) {
    let report = bed.host("a").ping(&Ping::new(ip(to)).count(count).size(len - 28)).unwrap();
    assert!(report.all_answered(), "{to}");
}

/// What is counted, by its name in the text form, as packets and bytes.
fn counted(bed: &Bed) -> Vec<(String, u64, u64)> {
    let text = bed.duet("r1").duet("count").unwrap();
    let line = |l: &str| {
        let mut words = l.split_whitespace();
        let mut number = || words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        let (packets, bytes) = (number(), number());
        (words.collect::<Vec<_>>().join(" "), packets, bytes)
    };
    text.lines().skip(1).map(line).collect()
}

sandbox_test! {
    fn exactly_what_was_sent() {
        let bed = bed().unwrap();
        let r1 = bed.duet("r1");
        for to in ["10.1.0.1", "10.2.0.1", "10.3.0.1"] {
            ping(&bed, to, 2, 84);
        }
        assert!(r1.duet("count").unwrap().starts_with("Nothing is counted"));
        for words in ["route 10.0.0.0/8", "route 10.1.0.0/16", "route 10.7.0.0/16", "nexthop 192.0.2.130", "nexthop 2001:db8:b::2"] {
            assert_eq!(r1.duet(&format!("count add {words}")).unwrap(), "");
        }
        let twice = r1.ask(&["count", "add", "route", "10.0.0.0/8"], b"").unwrap();
        assert_eq!((twice.code, twice.stderr.lines().next()), (2, Some("RTNETLINK answers: File exists")));
        // What is asked before is not counted: explaining sends nothing.
        r1.duet("explain from 192.0.2.2 to 10.1.0.1").unwrap();
        ping(&bed, "10.3.0.1", 7, 84);
        ping(&bed, "10.1.0.1", 5, 1028);
        let want = |list: &[(&str, u64, u64)]| list.iter().map(|(n, p, b)| ((*n).to_owned(), *p, *b)).collect::<Vec<_>>();
        assert_eq!(counted(&bed), want(&[
            ("route 10.0.0.0/8", 7, 7 * 84),
            ("route 10.1.0.0/16", 5, 5 * 1028),
            ("route 10.7.0.0/16", 0, 0),
            ("nexthop 192.0.2.130 dev right", 7, 7 * 84),
            ("nexthop 2001:db8:b::2 dev right", 5, 5 * 1028),
        ]));
        // A group: every flow is counted with the member that it has.
        r1.duet("count clear").unwrap();
        for words in ["nexthop 192.0.2.130", "nexthop 192.0.2.131", "route 10.2.0.0/16"] {
            r1.duet(&format!("count add {words}")).unwrap();
        }
        for _ in 0..20 {
            // Each run of the probe is a flow of its own.
            ping(&bed, "10.2.0.1", 1, 84);
        }
        let list = counted(&bed);
        let [(_, group, _), (_, first, _), (_, second, _)] = &list[..] else { panic!("{list:?}") };
        assert_eq!((*group, first + second), (20, 20), "{list:?}");
        // A new way for the prefix is counted on, and one that drops is.
        r1.duet("route replace blackhole 10.2.0.0/16").unwrap();
        assert!(!bed.host("a").ping(&Ping::new(ip("10.2.0.1"))).unwrap().all_answered());
        assert_eq!(counted(&bed)[0], ("route 10.2.0.0/16".to_owned(), 21, 21 * 84));
        r1.duet("count del route 10.2.0.0/16").unwrap();
        let gone = r1.ask(&["count", "del", "route", "10.2.0.0/16"], b"").unwrap();
        assert_eq!(gone.code, 2, "{}", gone.stderr);
        let json = r1.json("count -j").unwrap();
        assert_eq!(json[0]["of"]["nexthop"]["dev"], "right");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn the_busiest_routes_on_the_screen() {
        let bed = bed().unwrap();
        let r1 = bed.duet("r1");
        let mut command = Command::new(PROGRAM);
        command.args(["top", "-d", "0.4", "--socket"]).arg(r1.socket());
        let mut top = Terminal::start(command, 24, 80).unwrap();
        top.see(&["3 Routes", "packets/s: "]);
        top.press("3");
        top.see(&["No packet took a route just now"]);
        let order = |s: &str| Some((s.find("10.1.0.0/16")?, s.find("10.0.0.0/8")?, s.find("192.0.2.0/25")?));
        let screen = eventually("the busiest routes in order", || {
            ping(&bed, "10.1.0.1", 8, 84);
            ping(&bed, "10.3.0.1", 2, 84);
            let screen = top.screen();
            // Answers go to the left, and are as many as both together.
            order(&screen).is_some_and(|(one, ten, left)| left < one && one < ten).then_some(screen)
        });
        let line = screen.lines().find(|l| l.starts_with("10.1.0.0/16")).unwrap();
        assert!(line.contains("2001:db8:b::2 dev"), "{screen}");
        assert!(screen.lines().all(|l| l.chars().count() <= 80), "{screen}");
        top.press("\x1b[B\r");
        top.see(&["explain to 10.1.0.1"]);
        top.see_that("an answer", |s| s.contains("lookup    10.1.0.1"));
        top.press("xq");
        assert!(top.end().status.success());
        // Nothing of the samples is left in the router.
        assert!(r1.duet("trace").unwrap().starts_with("Nothing is traced"));
        bed.finish().unwrap();
    }
}
