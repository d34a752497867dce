//! Tunnels that find their way: `encap = "auto"` where the network eats protocol 41, lets it through, or changes its mind;
//! and clients behind one NAT, whose UDP ports tell them apart and are learned.

use router_io::sandbox_test;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// Runs nft(8) in a host; false where it is not installed.
fn nft(bed: &Bed, host: &str, rules: &str) -> bool {
    tools::run(bed.host(host), "nft", &[rules]).is_some_and(|(good, text)| {
        assert!(good, "nft {rules}: {text}");
        true
    })
}

/// From now on the network in the middle eats protocol 41, or lets it through again.
fn eat(bed: &Bed, on: bool) -> bool {
    let rules = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c ip protocol 41 drop";
    nft(bed, "isp", if on { rules } else { "delete table ip t" })
}

fn auto(first: bool) -> RouterConfig {
    let (name, outside, inside, local, remote, own, peer, site, far, gateway) = match first {
        true => ("r1", "right", "left", "198.51.100.2", "203.0.113.2", 1, 2, "a", "b", "198.51.100.1"),
        false => ("r2", "left", "right", "203.0.113.2", "198.51.100.2", 2, 1, "b", "a", "203.0.113.1"),
    };
    let to = if first { "203.0.113.0/24" } else { "198.51.100.0/24" };
    RouterConfig::new(name)
        .port(outside, &[&format!("{local}/24")])
        .port(inside, &[&format!("2001:db8:{site}::2/64")])
        .extra(&format!(
            "[tunnel.site]\nmode = \"6in4\"\nlocal = \"{local}\"\nremote = \"{remote}\"\nencap = \"auto\"\nencap_dport = 6080\n\
             encap_retry = \"2s\"\naddress = [\"2001:db8:f::{own}/64\"]\n\
             keepalive = {{ target = \"2001:db8:f::{peer}\", interval = \"200ms\", retries = 3, hold = 2 }}\n"
        ))
        .route(&format!("2001:db8:{far}::/64 dev site"))
        .route(&format!("{to} via {gateway}"))
}

/// a - r1 - isp - r2 - b, with a tunnel of `encap auto` between r1 and r2. None without nft(8).
fn auto_bed(eaten: bool) -> Result<Option<Bed>> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500; 4])?;
    bed.ready()?;
    bed.end("a", &["2001:db8:a::1/64"], &["::/0 via 2001:db8:a::2"])?;
    bed.end("b", &["2001:db8:b::1/64"], &["::/0 via 2001:db8:b::2"])?;
    let isp = RouterConfig::new("isp").port("left", &["198.51.100.1/24"]).port("right", &["203.0.113.1/24"]);
    bed.router(Kernel, &isp)?;
    if !eat(&bed, true) {
        return Ok(None);
    }
    if !eaten {
        eat(&bed, false);
    }
    bed.router(Duet, &auto(true))?;
    bed.router(Duet, &auto(false))?;
    Ok(Some(bed))
}

/// Waits until both ends send by this path.
fn wait_path(bed: &Bed, want: &str) {
    for r in ["r1", "r2"] {
        eventually(&format!("{r} sends by {want}"), || {
            let json = bed.duet(r).json("-j -d tunnel show site").unwrap();
            (json[0]["path"] == want && json[0]["state"] == "alive").then_some(())
        });
    }
}

fn pair(bed: &Bed) -> Pair<'_> {
    Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1")
}

fn everything(bed: &Bed, overhead: u32) {
    let pair = pair(bed);
    pair.wait_reachable(std::time::Duration::from_secs(5)).unwrap();
    pair.discovers_mtu(1500 - overhead, 1).unwrap();
    pair.swapped().discovers_mtu(1500 - overhead, 1).unwrap();
    pair.every_size().unwrap();
    pair.udp().unwrap();
    pair.tcp().unwrap();
    pair.swapped().tcp().unwrap();
}

sandbox_test! {
    fn the_bare_protocol_where_it_passes() {
        let Some(bed) = auto_bed(false).unwrap() else { return };
        wait_path(&bed, "6in4");
        everything(&bed, 20);
        let text = bed.duet("r1").duet("-d tunnel show site").unwrap();
        assert!(text.contains("encap auto") && text.contains("path 6in4 for ") && text.contains("changed 0 times"), "{text}");
        assert!(text.contains("inner mtu 1480, 20 bytes added"), "{text}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn udp_where_protocol_41_is_eaten() {
        let Some(bed) = auto_bed(true).unwrap() else { return };
        wait_path(&bed, "fou");
        everything(&bed, 28);
        let text = bed.duet("r1").duet("-d tunnel show site").unwrap();
        assert!(text.contains("path fou port 6080 for ") && text.contains("6in4 again in "), "{text}");
        assert!(text.contains("inner mtu 1472, 28 bytes added"), "{text}");
        let why = bed.duet("r1").duet("explain 2001:db8:b::1 from 2001:db8:a::1 iif left").unwrap();
        assert!(why.contains("in fou, port 6080, encap auto: "), "{why}");
        let check = bed.duet("r1").duet("tunnel check site").unwrap();
        assert!(check.contains("6in4: not answered") && check.contains("fou port 6080: passes there and back"), "{check}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn a_network_that_changes_its_mind() {
        let Some(bed) = auto_bed(false).unwrap() else { return };
        wait_path(&bed, "6in4");
        pair(&bed).tcp().unwrap();
        for _ in 0..2 {
            eat(&bed, true);
            wait_path(&bed, "fou");
            pair(&bed).tcp().unwrap();
            eat(&bed, false);
            wait_path(&bed, "6in4");
            pair(&bed).tcp().unwrap();
        }
        for r in ["r1", "r2"] {
            let json = bed.duet(r).json("-j -d tunnel show site").unwrap();
            assert_eq!((&json[0]["deaths"], &json[0]["path_cause"]), (&0.into(), &"passes_again".into()), "{json}");
        }
        bed.finish().unwrap();
    }
}

/// How the server knows its clients' ports.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Configured,
    Learned,
}

fn client(n: u8) -> RouterConfig {
    RouterConfig::new(&format!("r{n}"))
        .port("wan", &[&format!("10.0.{n}.2/24")])
        .port("lan", &[&format!("2001:db8:{n}::1/64")])
        .extra(&format!(
            "[tunnel.up]\nmode = \"6in4\"\nlocal = \"10.0.{n}.2\"\nremote = \"203.0.113.1\"\nencap = \"fou\"\nencap_dport = 6080\n\
             encap_sport = 6080\nencap_rport = 6080\naddress = [\"2001:db8:f{n}::2/64\"]\n\
             keepalive = {{ target = \"2001:db8:f{n}::1\", interval = \"200ms\" }}\n"
        ))
        .route("::/0 dev up")
        .route(&format!("0.0.0.0/0 via 10.0.{n}.1"))
}

fn server(known: Known) -> RouterConfig {
    let mut c = RouterConfig::new("s").port("wan", &["203.0.113.1/24"]).port("lan", &["2001:db8:a::1/64"]);
    for n in [1, 2] {
        let ports = match known {
            Known::Configured => format!("encap_dport = 4000{n}\nencap_rport = 4000{n}"),
            Known::Learned => "encap_rport = \"learn\"".to_owned(),
        };
        c = c
            .extra(&format!(
                "[tunnel.t{n}]\nmode = \"6in4\"\nlocal = \"203.0.113.1\"\nremote = \"203.0.113.254\"\nencap = \"fou\"\n\
                 encap_port = 6080\nencap_sport = 6080\n{ports}\naddress = [\"2001:db8:f{n}::1/64\"]\n\
                 allowed = [\"2001:db8:f{n}::/64\", \"2001:db8:{n}::/64\"]\n\
                 keepalive = {{ target = \"2001:db8:f{n}::2\", interval = \"200ms\" }}\n"
            ))
            .route(&format!("2001:db8:{n}::/64 dev t{n}"));
    }
    c
}

/// The NAT's ports for both clients. What nobody inside has asked for is not let in, and leaves no trace.
fn translate(bed: &Bed, ports: [u16; 2]) -> bool {
    let [one, two] = ports;
    let rules = format!(
        "add table ip n; delete table ip n; add table ip n; \
         add chain ip n i {{ type filter hook input priority 0; }}; add rule ip n i udp dport 40000-42000 drop; \
         add chain ip n c {{ type nat hook postrouting priority 100; }}; \
         add rule ip n c ip saddr 10.0.1.2 udp sport 6080 masquerade to :{one}; \
         add rule ip n c ip saddr 10.0.2.2 udp sport 6080 masquerade to :{two}"
    );
    nft(bed, "nat", &rules)
}

/// a1 - r1 - nat - s - b, and a2 - r2 - nat.
fn nat_bed(known: Known) -> Result<Option<Bed>> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a1", "a2", "r1", "r2", "nat", "s", "b"])?;
    for n in ["1", "2"] {
        bed.net.link((&format!("a{n}"), "eth0"), (&format!("r{n}"), "lan"))?;
        bed.net.link((&format!("r{n}"), "wan"), ("nat", &format!("in{n}")))?;
    }
    bed.net.link(("nat", "out"), ("s", "wan"))?;
    bed.net.link(("s", "lan"), ("b", "eth0"))?;
    bed.ready()?;
    for n in ["1", "2"] {
        let gateway = format!("::/0 via 2001:db8:{n}::1");
        bed.end(&format!("a{n}"), &[&format!("2001:db8:{n}::2/64")], &[&gateway])?;
    }
    bed.end("b", &["2001:db8:a::2/64"], &["::/0 via 2001:db8:a::1"])?;
    let nat = RouterConfig::new("nat")
        .port("in1", &["10.0.1.1/24"])
        .port("in2", &["10.0.2.1/24"])
        .port("out", &["203.0.113.254/24"]);
    bed.router(Kernel, &nat)?;
    if !translate(&bed, [40_001, 40_002]) {
        return Ok(None);
    }
    // A binding lives for a second: the keepalives hold it.
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        bed.host("nat").set_sysctl(&format!("net.netfilter.{timeout}"), "1")?;
    }
    bed.router(Duet, &server(known))?;
    bed.router(Duet, &client(1))?;
    bed.router(Duet, &client(2))?;
    Ok(Some(bed))
}

/// Both clients to a server, and to each other, at once.
fn all_talk(bed: &Bed) {
    for (n, addr) in [("a1", "2001:db8:1::2"), ("a2", "2001:db8:2::2")] {
        let pair = Pair::new(bed.host(n), bed.host("b"), addr, "2001:db8:a::2");
        pair.wait_reachable(std::time::Duration::from_secs(15)).unwrap();
        pair.tcp().unwrap();
        pair.swapped().tcp().unwrap();
    }
    let between = Pair::new(bed.host("a1"), bed.host("a2"), "2001:db8:1::2", "2001:db8:2::2");
    between.tcp().unwrap();
    between.every_size_after_learning(1472).unwrap();
}

sandbox_test! {
    fn two_clients_behind_one_nat_by_configured_ports() {
        let Some(bed) = nat_bed(Known::Configured).unwrap() else { return };
        all_talk(&bed);
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn two_clients_behind_one_nat_whose_ports_are_learned() {
        let Some(bed) = nat_bed(Known::Learned).unwrap() else { return };
        all_talk(&bed);
        // The NAT forgets everything and gives other ports.
        translate(&bed, [41_001, 41_002]);
        forget(&bed);
        for (t, port) in [("t1", 41_001), ("t2", 41_002)] {
            eventually(&format!("{t} follows to port {port}"), || {
                let json = bed.duet("s").json(&format!("-j -d tunnel show {t}")).unwrap();
                (json[0]["path_port"] == port).then_some(())
            });
        }
        all_talk(&bed);
        bed.finish().unwrap();
    }
}

/// Makes the NAT forget its bindings, which live for a second: nothing passes for longer than that.
fn forget(bed: &Bed) {
    let raw = "add table ip r; add chain ip r c { type filter hook prerouting priority -400; }; add rule ip r c udp dport 6080 drop; \
               add rule ip r c udp sport 6080 drop";
    nft(bed, "nat", raw);
    let asked = || bed.duet("s").json("-j -d tunnel show t1").unwrap()[0]["asked"].as_u64().unwrap();
    let before = asked();
    eventually("the NAT has forgotten", || (asked() >= before + 12).then_some(()));
    nft(bed, "nat", "delete table ip r");
}
