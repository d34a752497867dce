//! Our client of the tunnel set-up protocol (RFC 5572) with our broker, whose server answers recorded clients of others byte for
//! byte: in UDP behind a NAT that changes its address, in bare IPv4 by TCP, and with IPv4 inside over an IPv6-only network.

use router_io::sandbox_test;
use std::time::Duration;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything outside the server's prefixes; what of it matters is told apart in `more`.
fn broker(bed: &Bed, more: &str) -> String {
    format!(
        "[broker]\nname = \"lab.example\"\nlisten = [\"127.0.0.1:8080\"]\ndatabase = \"{}\"\nlinks = \"2001:db8:f::/48\"\n\
         prefixes = [\"2001:db8:4000::/36\"]\nsubnets = [\"2001:db8:e::/48\"]\noverlap = \"1s\"\n{more}",
        bed.dir().join("broker.redb").display()
    )
}

/// The server of [`row`], for tunnels in bare IPv4 and in UDP.
fn server(bed: &mut Bed, more: &str) -> Result {
    let more = format!(
        "tsp = [\"203.0.113.1:3653\"]\nendpoint = \"203.0.113.1\"\ndev = \"wan\"\nudp_port = 3653\nudp_dev = \"out\"\n\
         udp_keepalive = \"200ms\"\ndigest_md5 = true\n{more}"
    );
    let s = RouterConfig::new("s")
        .port("inside", &["2001:db8:5::1/64"])
        .port_of("rawip", "wan", &[], "")
        .port_of("udp", "out", &[], "local = \"203.0.113.1\"\nlisten = [3653]\n")
        .extra(&broker(bed, &more));
    bed.router(Duet, &s)
}

/// A file with the password of a new account.
fn account(bed: &Bed, name: &str) -> String {
    let password = bed.duet("s").duet(&format!("broker account add {name}")).unwrap();
    let file = bed.dir().join(format!("{name}.key"));
    std::fs::write(&file, password).unwrap();
    file.display().to_string()
}

/// h - c - nat - s - srv; the network outside has IPv4 only.
fn row() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["h", "c", "nat", "s", "srv"])?;
    bed.net.link(("h", "eth0"), ("c", "lan"))?;
    bed.net.link(("c", "eth0"), ("nat", "in"))?;
    bed.net.link(("nat", "out"), ("s", "eth0"))?;
    bed.net.link(("s", "inside"), ("srv", "eth0"))?;
    bed.ready()?;
    let nat = RouterConfig::new("nat").port("in", &["10.0.1.1/24"]).port("out", &["203.0.113.254/24"]);
    bed.router(Kernel, &nat)?;
    bed.end("c", &["10.0.1.2/24"], &["default via 10.0.1.1"])?;
    bed.end("s", &["203.0.113.1/24"], &[])?;
    bed.end("srv", &["2001:db8:5::2/64"], &["default via 2001:db8:5::1"])?;
    Ok(bed)
}

/// The site's host and the server behind the broker talk, by TCP in both directions, bytes compared.
fn talks(bed: &mut Bed, first: bool) {
    let joined = bed.duet("c").json("-j broker joined").unwrap();
    let prefix = joined[0]["prefixes"][0].as_str().unwrap_or_else(|| panic!("{joined}")).to_owned();
    let net = prefix.trim_end_matches("/48").to_owned();
    if first {
        bed.end("h", &[&format!("{net}2/64")], &[&format!("default via {net}1")]).unwrap();
    }
    both_ways(bed, &format!("{net}2"), "2001:db8:5::2");
}

fn both_ways(bed: &Bed, h: &str, srv: &str) {
    let pair = Pair::new(bed.host("h"), bed.host("srv"), h, srv);
    pair.wait_reachable(PATIENCE).unwrap();
    pair.tcp().unwrap();
    pair.swapped().tcp().unwrap();
}

/// How often the tunnel's server has been asked.
fn logins(bed: &Bed) -> u64 {
    bed.duet("c").json("-j broker joined").unwrap()[0]["updates"].as_u64().unwrap()
}

fn no_tunnels(bed: &Bed) {
    eventually("the broker has the tunnel back", || {
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        tunnels.as_array().unwrap().is_empty().then_some(())
    });
    for pool in bed.duet("s").json("-j broker pool show").unwrap().as_array().unwrap() {
        assert_eq!(pool["used"], 0, "{pool}");
    }
}

sandbox_test! {
    /// Proves rfc5572-2.1-client-nat, rfc5572-2.3-client-mobility, rfc5572-4.4.3-client-delete.
    fn in_udp_behind_a_nat_that_moves() {
        let mut bed = row().unwrap();
        let rules = "add table ip n; add chain ip n i { type filter hook input priority 0; }; add rule ip n i udp dport 1024-65535 drop; \
                     add chain ip n c { type nat hook postrouting priority 100; }; add rule ip n c oifname out masquerade random";
        let Some((good, text)) = tools::run(bed.host("nat"), "nft", &[rules]) else { return };
        assert!(good, "{text}");
        server(&mut bed, "").unwrap();
        let file = account(&bed, "alice");
        let c = RouterConfig::new("c")
            .port("lan", &[])
            .port_of("rawip", "wan", &[], "")
            .port_of("udp", "out", &[], "listen = [3653]\n");
        bed.router(Duet, &c).unwrap();
        let said = bed.duet("c").duet(&format!("tunnel add up broker tsp://alice@203.0.113.1 key-file {file} lan lan")).unwrap();
        println!("{said}");
        talks(&mut bed, true);
        let shown = bed.duet("c").duet("-d tunnel show up").unwrap();
        println!("{shown}");
        assert!(shown.contains("by udp with digest-md5, gives 6inudp4, behind a NAT as 203.0.113.254"), "{shown}");
        let json = bed.duet("c").json("-j -d tunnel show up").unwrap();
        assert_eq!((&json[0]["broker"]["seen"], &json[0]["broker"]["logins"]), (&"203.0.113.254".into(), &1.into()), "{json}");
        // The port of the conversation is the tunnel's: one binding of the NAT.
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        assert_eq!(tunnels[0]["endpoint_port"], json[0]["broker"]["seen_port"], "{tunnels}");
        // The NAT gets another address: keepalives die, the client logs in anew, with the prefix it had.
        let server = json[0]["keepalive"].as_str().unwrap().to_owned();
        bed.duet("c").duet(&format!("tunnel change up keepalive {server} interval 200 retries 3 hold 1")).unwrap();
        bed.net.del_addr("nat", "out", "203.0.113.254/24").unwrap();
        bed.net.addr("nat", "out", "203.0.113.253/24").unwrap();
        eventually("the broker knows the new address", || {
            let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
            (tunnels[0]["endpoint"] == "203.0.113.253").then_some(())
        });
        talks(&mut bed, false);
        assert!(logins(&bed) >= 2);
        // Deleted here, it is given back there.
        bed.duet("c").duet("tunnel del up").unwrap();
        no_tunnels(&bed);
        assert_eq!(bed.duet("c").json("-j broker joined").unwrap().as_array().unwrap().len(), 0);
        let lan = bed.duet("c").json("-j address show lan").unwrap().to_string();
        assert!(!lan.contains("2001:db8:4000:"), "{lan}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    /// Proves rfc5572-4.4.2-client.
    fn in_ipv4_by_tcp_from_an_address_that_changes() {
        let mut bed = row().unwrap();
        bed.net.route("s", "10.0.1.0/24 via 203.0.113.254").unwrap();
        let more = "tsp = [\"203.0.113.1:3653\"]\nendpoint = \"203.0.113.1\"\ndev = \"wan\"\nprivate_endpoints = true\n";
        let s = RouterConfig::new("s").port("inside", &["2001:db8:5::1/64"]).port_of("rawip", "wan", &[], "").extra(&broker(&bed, more));
        bed.router(Duet, &s).unwrap();
        let file = account(&bed, "bob");
        bed.router(Duet, &RouterConfig::new("c").port("lan", &[]).port_of("rawip", "wan", &[], "")).unwrap();
        let c = bed.duet("c");
        // The server takes passwords in the clear only: not by itself.
        let add = format!("tunnel add up broker tsp+tcp://203.0.113.1 user bob key-file {file} lan lan");
        let refused = c.duet(&add).unwrap_err().to_string();
        assert!(refused.contains("say \"auth plain\""), "{refused}");
        let wrong = bed.dir().join("wrong.key");
        std::fs::write(&wrong, "not the password\n").unwrap();
        let refused = c.duet(&format!("tunnel add up broker tsp+tcp://bob@203.0.113.1 auth plain key-file {}", wrong.display()));
        assert!(refused.unwrap_err().to_string().contains("300 Authentication failed"));
        let refused = c.duet("tunnel add up broker tsp+tcp://203.0.113.1").unwrap_err().to_string();
        assert!(refused.contains("it gives tunnels to accounts only"), "{refused}");
        assert_eq!(c.json("-j broker joined").unwrap().as_array().unwrap().len(), 0, "what is refused is not kept");
        c.duet(&format!("{add} auth plain")).unwrap();
        talks(&mut bed, true);
        let shown = bed.duet("c").duet("-d tunnel show up").unwrap();
        assert!(shown.contains("account bob by tcp with plain, gives 6in4"), "{shown}");
        // This end moves: it is told at once.
        bed.net.del_addr("c", "eth0", "10.0.1.2/24").unwrap();
        bed.end("c", &["10.0.1.9/24"], &["default via 10.0.1.1"]).unwrap();
        eventually("the broker knows the new address", || {
            (bed.duet("s").json("-j broker tunnel show").unwrap()[0]["endpoint"] == "10.0.1.9").then_some(())
        });
        talks(&mut bed, false);
        bed.duet("c").duet("broker leave up").unwrap();
        no_tunnels(&bed);
        bed.finish().unwrap();
    }
}

sandbox_test! {
    /// Proves rfc5572-4.5.3-v4v6.
    fn ipv4_inside_over_an_ipv6_only_network() {
        let mut bed = Bed::new(PROGRAM).unwrap();
        bed.net.hosts(&["h", "c", "isp", "s", "srv"]).unwrap();
        for (a, b) in [(("h", "eth0"), ("c", "lan")), (("c", "eth0"), ("isp", "c")), (("isp", "s"), ("s", "eth0")), (("s", "inside"), ("srv", "eth0"))] {
            bed.net.link(a, b).unwrap();
        }
        bed.ready().unwrap();
        let isp = RouterConfig::new("isp").port("c", &["2001:db8:1::1/64"]).port("s", &["2001:db8:2::1/64"]);
        bed.router(Kernel, &isp).unwrap();
        bed.end("c", &["2001:db8:1::2/64"], &["::/0 via 2001:db8:1::1"]).unwrap();
        bed.end("s", &["2001:db8:2::2/64"], &["::/0 via 2001:db8:2::1"]).unwrap();
        bed.end("srv", &["192.0.2.2/24"], &["default via 192.0.2.1"]).unwrap();
        let more = "tsp = [\"[2001:db8:2::2]:3653\"]\nendpoint6 = \"2001:db8:2::2\"\nlinks4 = \"10.64.0.0/16\"\ndev = \"wan\"\ndigest_md5 = true\n";
        let s = RouterConfig::new("s").port("inside", &["192.0.2.1/24"]).port_of("rawip", "wan", &[], "").extra(&broker(&bed, more));
        bed.router(Duet, &s).unwrap();
        let file = account(&bed, "carol");
        bed.router(Duet, &RouterConfig::new("c").port("lan", &["10.64.0.5/30"]).port_of("rawip", "wan", &[], "")).unwrap();
        let add = format!("tunnel add up broker tsp://carol@[2001:db8:2::2] key-file {file} mode 4in6 prefix none");
        let said = bed.duet("c").duet(&add).unwrap();
        println!("{said}{}", bed.duet("c").duet("-d tunnel show up").unwrap());
        let pools = bed.duet("s").json("-j broker pool show").unwrap();
        assert!(pools.to_string().contains("\"prefix\":\"10.64.0.0/16\""), "{pools}");
        // One host's address inside is all there is: the router's own packets, and those of a host that has it.
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        assert_eq!((&tunnels[0]["mode"], &tunnels[0]["client_inner"]), (&"4in6".into(), &"10.64.0.2/30".into()), "{tunnels}");
        let pair = Pair::new(bed.host("srv"), bed.host("srv"), "192.0.2.2", "10.64.0.2");
        pair.wait_reachable(PATIENCE).unwrap();
        // By the way back, prefixes for IPv6 are not to be had in it.
        bed.duet("c").duet("broker leave up").unwrap();
        no_tunnels(&bed);
        let refused = bed.duet("c").duet(&add.replace("prefix none", "prefix 48")).unwrap_err().to_string();
        assert!(refused.contains("507"), "{refused}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    /// No NAT, but a firewall that eats protocol 41: the server cannot know, the client finds out; the prefix stays.
    ///
    /// Proves rfc5572-2.2-client-path.
    fn in_udp_where_protocol_41_is_eaten() {
        let mut bed = row().unwrap();
        bed.net.route("s", "10.0.1.0/24 via 203.0.113.254").unwrap();
        server(&mut bed, "private_endpoints = true\n").unwrap();
        let file = account(&bed, "dave");
        let c = RouterConfig::new("c").port("lan", &[]).port_of("rawip", "wan", &[], "").port_of("udp", "out", &[], "listen = [3653]\n");
        bed.router(Duet, &c).unwrap();
        bed.duet("c").duet(&format!("tunnel add up broker tsp://dave@203.0.113.1 key-file {file} lan lan")).unwrap();
        talks(&mut bed, true);
        let before = bed.duet("s").json("-j broker tunnel show").unwrap();
        assert_eq!(before[0]["mode"], "6in4", "{before}");
        let eat = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c ip protocol 41 drop";
        let Some((good, text)) = tools::run(bed.host("nat"), "nft", &[eat]) else { return };
        assert!(good, "{text}");
        let json = bed.duet("c").json("-j -d tunnel show up").unwrap();
        let server = json[0]["keepalive"].as_str().unwrap().to_owned();
        bed.duet("c").duet(&format!("tunnel change up keepalive {server} interval 200 retries 3 hold 1")).unwrap();
        eventually("the tunnel goes in UDP", || {
            let after = bed.duet("s").json("-j broker tunnel show").unwrap();
            (after[0]["mode"] == "6inudp4" && after[0]["prefixes"] == before[0]["prefixes"]).then_some(())
        });
        talks(&mut bed, false);
        let log = bed.duet("s").duet("broker audit").unwrap();
        assert!(log.contains("from now on 6inudp4"), "{log}");
        bed.duet("c").duet("broker leave up").unwrap();
        no_tunnels(&bed);
        bed.finish().unwrap();
    }
}
