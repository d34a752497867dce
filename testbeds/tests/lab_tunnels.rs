//! Every mode of tunnel between two of our routers, over a network of the other kind in the middle: TCP with its bytes
//! compared, pings of every size, UDP, path MTU discovery across narrow links, both directions.

use router_io::sandbox_test;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// A mode, the lines that belong to it, and what is to pass.
struct Case {
    mode: &'static str,
    /// Further lines of the tunnel's section: of r1, and of r2.
    more: [&'static str; 2],
    /// The network in the middle is IPv6.
    six_outside: bool,
    four_inside: bool,
    six_inside: bool,
    overhead: u32,
}

impl Case {
    fn new(mode: &'static str, six_outside: bool, inside: [bool; 2], overhead: u32) -> Self {
        let [four_inside, six_inside] = inside;
        Case { mode, more: ["", ""], six_outside, four_inside, six_inside, overhead }
    }

    fn with(self, more: &'static str) -> Self {
        Case { more: [more, more], ..self }
    }

    /// Outer addresses of r1, of the network's router on both sides, of r2; without lengths.
    fn outer(&self) -> [&'static str; 4] {
        match self.six_outside {
            true => ["2001:db8:10::2", "2001:db8:10::1", "2001:db8:20::1", "2001:db8:20::2"],
            false => ["198.51.100.2", "198.51.100.1", "203.0.113.1", "203.0.113.2"],
        }
    }

    fn length(&self) -> u8 {
        if self.six_outside { 64 } else { 24 }
    }

    /// The network in the middle, a kernel that knows one family only, or the other way round.
    fn middle(&self, bed: &mut Bed) -> Result {
        let ([_, left, right, _], n) = (self.outer(), self.length());
        let isp =
            RouterConfig::new("isp").port("left", &[&format!("{left}/{n}")]).port("right", &[&format!("{right}/{n}")]);
        bed.router(Kernel, &isp)?;
        if !self.six_outside {
            bed.host("isp").set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        }
        Ok(())
    }

    /// One of the two routers.
    fn router(&self, first: bool) -> RouterConfig {
        let ([r1, left, right, r2], n) = (self.outer(), self.length());
        let (name, outside, inside, local, remote, gateway, more, peer) = match first {
            true => ("r1", "right", "left", r1, r2, left, self.more[0], right),
            false => ("r2", "left", "right", r2, r1, right, self.more[1], left),
        };
        let site = |first: bool| match first {
            true => ("2001:db8:a::2/64", "192.0.2.2/25", "2001:db8:a::/64", "192.0.2.0/25"),
            false => ("2001:db8:b::2/64", "192.0.2.130/25", "2001:db8:b::/64", "192.0.2.128/25"),
        };
        let (own6, own4, ..) = site(first);
        let (_, _, far6, far4) = site(!first);
        let mut inner = Vec::new();
        let mut c = RouterConfig::new(name).port(outside, &[&format!("{local}/{n}")]);
        if self.six_inside {
            inner.push(own6);
            c = c.route(&format!("{far6} dev site"));
        }
        if self.four_inside {
            inner.push(own4);
            c = c.route(&format!("{far4} dev site"));
        }
        c.port(inside, &inner)
            .extra(&format!(
                "[tunnel.site]\nmode = \"{}\"\nlocal = \"{local}\"\nremote = \"{remote}\"\n{more}\n",
                self.mode
            ))
            .route(
                &format!("{peer}/{} via {gateway}", if self.six_outside { 64 } else { 24 })
                    .replace("::1/", "::/")
                    .replace(".1/", ".0/"),
            )
    }

    fn bed(&self, mtus: [u32; 4]) -> Result<Bed> {
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &mtus)?;
        bed.ready()?;
        let ends = |a: [&'static str; 2]| -> Vec<&'static str> {
            let [six, four] = a;
            [self.six_inside.then_some(six), self.four_inside.then_some(four)].into_iter().flatten().collect()
        };
        bed.end(
            "a",
            &ends(["2001:db8:a::1/64", "192.0.2.1/25"]),
            &ends(["::/0 via 2001:db8:a::2", "0.0.0.0/0 via 192.0.2.2"]),
        )?;
        bed.end(
            "b",
            &ends(["2001:db8:b::1/64", "192.0.2.129/25"]),
            &ends(["::/0 via 2001:db8:b::2", "0.0.0.0/0 via 192.0.2.130"]),
        )?;
        self.middle(&mut bed)?;
        bed.router(Duet, &self.router(true))?;
        bed.router(Duet, &self.router(false))?;
        Ok(bed)
    }

    /// The pairs of addresses that talk.
    fn pairs<'b>(&self, bed: &'b Bed) -> Vec<Pair<'b>> {
        let pair = |a, b| Pair::new(bed.host("a"), bed.host("b"), a, b);
        let six = self.six_inside.then(|| pair("2001:db8:a::1", "2001:db8:b::1"));
        let four = self.four_inside.then(|| pair("192.0.2.1", "192.0.2.129"));
        six.into_iter().chain(four).collect()
    }

    fn run(self, mtus: [u32; 4]) {
        let bed = self.bed(mtus).unwrap();
        let inner = mtus[1].min(mtus[2]) - self.overhead;
        // Who starts without having been taught anything finds the way, too.
        let pairs = self.pairs(&bed);
        pairs[0].tcp().unwrap();
        for pair in pairs {
            pair.reachable().unwrap();
            pair.discovers_mtu(inner, 1).unwrap();
            pair.swapped().discovers_mtu(inner, 1).unwrap();
            pair.every_size().unwrap();
            pair.udp().unwrap();
            pair.tcp().unwrap();
            pair.swapped().tcp().unwrap();
        }
        bed.finish().unwrap();
    }
}

const WIDE: [u32; 4] = [1500; 4];
const NARROW: [u32; 4] = [1500, 1500, 1420, 1500];
const FOUR: [bool; 2] = [true, false];
const SIX: [bool; 2] = [false, true];
const BOTH: [bool; 2] = [true, true];

sandbox_test! {
    fn four_in_six() {
        Case::new("4in6", true, FOUR, 40).run(WIDE);
    }
}

sandbox_test! {
    fn four_in_six_across_a_narrow_network() {
        Case::new("4in6", true, FOUR, 40).run(NARROW);
    }
}

sandbox_test! {
    fn six_in_six() {
        Case::new("6in6", true, SIX, 40).run(NARROW);
    }
}

sandbox_test! {
    fn any_in_six_with_an_encapsulation_limit() {
        Case::new("any-in-6", true, BOTH, 48).with("encaplimit = 4").run(NARROW);
    }
}

sandbox_test! {
    fn four_in_four() {
        Case::new("4in4", false, FOUR, 20).run(NARROW);
    }
}

sandbox_test! {
    fn any_in_four() {
        Case::new("any-in-4", false, BOTH, 20).run(NARROW);
    }
}

sandbox_test! {
    fn gre_over_four() {
        Case::new("gre", false, BOTH, 24).run(NARROW);
    }
}

sandbox_test! {
    fn gre_over_four_with_everything() {
        Case::new("gre", false, BOTH, 36).with("key = 4711\nseq = true\ncsum = true").run(WIDE);
    }
}

sandbox_test! {
    fn gre_over_six_with_a_key() {
        Case::new("gre6", true, BOTH, 48).with("key = 7").run(NARROW);
    }
}

sandbox_test! {
    fn fou_over_four() {
        Case::new("6in4", false, SIX, 28).with("encap = \"fou\"\nencap_dport = 5555").run(NARROW);
    }
}

sandbox_test! {
    fn gue_over_six() {
        Case::new("any-in-6", true, BOTH, 52).with("encap = \"gue\"\nencap_dport = 6080").run(NARROW);
    }
}

sandbox_test! {
    fn gre_in_gue_with_other_ports() {
        Case::new("gre", false, BOTH, 36)
            .with("encap = \"gue\"\nencap_dport = 6080\nencap_sport = 6080\nencap_csum = true\nkey = 1")
            .map_overhead(40)
            .run(WIDE);
    }
}

sandbox_test! {
    fn a_tunnel_is_checked_from_end_to_end() {
        let case = Case::new("4in6", true, FOUR, 40);
        let bed = case.bed(NARROW).unwrap();
        let json = bed.duet("r1").json("-j -d tunnel show").unwrap();
        assert_eq!((&json[0]["mode"], &json[0]["inner_mtu"]), (&"ip/ipv6".into(), &1460.into()), "{json}");
        // The first answers teach the path MTU, by an error from the narrow link; what passes is what is left.
        bed.duet("r1").duet("addr add 10.9.9.1/30 dev site").unwrap();
        bed.duet("r2").duet("addr add 10.9.9.2/30 dev site").unwrap();
        let text = bed.duet("r1").duet("tunnel check site 10.9.9.2").unwrap();
        assert!(text.contains("20 asked, 20 answered, 0% lost"), "{text}");
        assert!(text.contains("but nothing above 1380 passes"), "{text}");
        let text = bed.duet("r1").duet("tunnel check site 10.9.9.2").unwrap();
        assert!(text.contains("passes there and back: 1380"), "{text}");
        let text = bed.duet("r1").duet("-d tunnel show site").unwrap();
        assert!(text.contains("inner mtu 1380, 40 bytes added, path mtu 1420 from 2001:db8:10::1"), "{text}");
        let why = bed.duet("r1").duet("explain 192.0.2.129 from 192.0.2.1 iif left len 1450").unwrap();
        assert!(why.contains("path MTU 1420") && why.contains("an ICMP error from 2001:db8:10::1"), "{why}");
        // Nobody there: said so, and the exit code is that of a refusal.
        let silent = bed.duet("r1").ask(&["tunnel", "check", "site", "10.9.9.3"], b"").unwrap();
        assert_eq!(silent.code, 2, "{silent:?}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn a_dead_tunnel_gives_way_to_the_next_metric() {
        let case = Case::new("6in4", false, SIX, 20).with(
            "address = [\"2001:db8:ff::1/64\"]\nkeepalive = { target = \"2001:db8:ff::2\", interval = \"200ms\", retries = 2, hold = 2 }",
        );
        let case = Case { more: [case.more[0], "address = [\"2001:db8:ff::2/64\"]"], ..case };
        let bed = case.bed(WIDE).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.reachable().unwrap();
        bed.duet("r1").duet("route add unreachable 2001:db8:b::/64 metric 9000").unwrap();
        let state = |want: &str| {
            eventually(&format!("the tunnel is {want}"), || {
                let json = bed.duet("r1").json("-j -d tunnel show site").unwrap();
                (json[0]["state"] == want).then_some(())
            });
        };
        state("alive");
        bed.duet("r2").duet("link set site down").unwrap();
        state("dead");
        let got = bed.duet("r1").ask(&["route", "get", "2001:db8:b::1"], b"").unwrap();
        assert!(got.code != 0, "the unreachable route took over: {got:?}");
        bed.duet("r2").duet("link set site up").unwrap();
        state("alive");
        pair.wait_reachable(std::time::Duration::from_secs(5)).unwrap();
        bed.finish().unwrap();
    }
}

impl Case {
    fn map_overhead(self, overhead: u32) -> Self {
        Case { overhead, ..self }
    }
}

sandbox_test! {
    fn six_rd_between_an_edge_and_its_relay() {
        // The sites' prefixes follow from the edges' IPv4 addresses (RFC 5969 7.1.1).
        let mut bed = Bed::row(PROGRAM, &["a", "ce", "isp", "br", "b"], &[1500, 1500, 1420, 1500]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["2001:db8:c633:6402::1/64"], &["::/0 via 2001:db8:c633:6402::2"]).unwrap();
        bed.end("b", &["2001:db9:b::1/64"], &["::/0 via 2001:db9:b::2"]).unwrap();
        Case::new("6rd", false, SIX, 20).middle(&mut bed).unwrap();
        let ce = RouterConfig::new("ce")
            .port("left", &["2001:db8:c633:6402::2/64"])
            .port("right", &["198.51.100.2/24"])
            .extra("[tunnel.rd]\nmode = \"6rd\"\nlocal = \"198.51.100.2\"\nprefix = \"2001:db8::/32\"\nbr = \"203.0.113.2\"\n")
            .route("203.0.113.0/24 via 198.51.100.1")
            .route("::/0 dev rd");
        let br = RouterConfig::new("br")
            .port("right", &["2001:db9:b::2/64"])
            .port("left", &["203.0.113.2/24"])
            .extra("[tunnel.rd]\nmode = \"6rd\"\nlocal = \"203.0.113.2\"\nprefix = \"2001:db8::/32\"\n")
            .route("0.0.0.0/0 via 203.0.113.1")
            .route("2001:db8::/32 dev rd");
        bed.router(Duet, &ce).unwrap();
        bed.router(Duet, &br).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:c633:6402::1", "2001:db9:b::1");
        pair.reachable().unwrap();
        pair.discovers_mtu(1400, 1).unwrap();
        pair.swapped().discovers_mtu(1400, 1).unwrap();
        pair.every_size().unwrap();
        pair.udp().unwrap();
        pair.tcp().unwrap();
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn a_path_whose_errors_are_filtered_is_probed() {
        // A link of 1400 bytes, and a network that tells nobody.
        let keepalive = |target: &str| format!("keepalive = {{ target = \"{target}\", interval = \"500ms\", probe_mtu = true }}");
        let [one, two] = ["2001:db8:ff::1", "2001:db8:ff::2"];
        let more = [
            format!("address = [\"{one}/64\"]\n{}", keepalive(two)).leak() as &str,
            format!("address = [\"{two}/64\"]\n{}", keepalive(one)).leak() as &str,
        ];
        let case = Case { more, ..Case::new("6in4", false, SIX, 20) };
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500, 1500, 1400, 1500]).unwrap();
        bed.ready().unwrap();
        let rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; \
                     add rule ip t o icmp type destination-unreachable drop";
        let Some((good, text)) = testbeds::lab::tools::run(bed.host("isp"), "nft", &[rules]) else { return };
        assert!(good, "nft: {text}");
        bed.end("a", &["2001:db8:a::1/64"], &["::/0 via 2001:db8:a::2"]).unwrap();
        bed.end("b", &["2001:db8:b::1/64"], &["::/0 via 2001:db8:b::2"]).unwrap();
        case.middle(&mut bed).unwrap();
        bed.router(Duet, &case.router(true)).unwrap();
        bed.router(Duet, &case.router(false)).unwrap();
        // Both ends search by themselves; until they know more, what nearly every path carries.
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.wait_reachable(std::time::Duration::from_secs(5)).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        for router in ["r1", "r2"] {
            loop {
                let json = bed.duet(router).json("-j -d tunnel show site").unwrap();
                if json[0]["path_mtu_search"] == "search complete" {
                    assert_eq!((&json[0]["inner_mtu"], &json[0]["path_mtu"]), (&1380.into(), &1400.into()), "{json}");
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "{json}");
                std::thread::park_timeout(std::time::Duration::from_millis(100));
            }
        }
        let text = bed.duet("r1").duet("-d tunnel show site").unwrap();
        assert!(text.contains("path mtu 1400 probed (search complete), "), "{text}");
        let why = bed.duet("r1").duet("explain 2001:db8:b::1 from 2001:db8:a::1 iif left len 1450").unwrap();
        assert!(why.contains("path MTU 1400 to 203.0.113.2 probed ") && why.contains("RFC 8899"), "{why}");
        // The hosts hear of it from the tunnel's ends, and nothing vanishes.
        pair.discovers_mtu(1380, 0).unwrap();
        pair.swapped().discovers_mtu(1380, 0).unwrap();
        pair.every_size().unwrap();
        pair.udp().unwrap();
        pair.tcp().unwrap();
        bed.finish().unwrap();
    }
}
