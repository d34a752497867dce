//! Tunnels in UDP from our broker, by the tunnel set-up protocol: two clients behind one NAT, to one port of the server's, which
//! is that of the protocol, too; the NAT gives them other ports; others behind it do not get in.

use router_io::lab::Host;
use router_io::sandbox_test;
use std::net::UdpSocket;
use std::time::Duration;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(20);
const SERVER: &str = "203.0.113.1:3653";

fn nft(bed: &Bed, rules: &str) -> bool {
    tools::run(bed.host("nat"), "nft", &[rules]).is_some_and(|(good, text)| {
        assert!(good, "nft {rules}: {text}");
        true
    })
}

/// The NAT's ports for both clients. What nobody inside has asked for is not let in, and leaves no trace.
fn translate(bed: &Bed, ports: [u16; 2]) -> bool {
    let [one, two] = ports;
    nft(
        bed,
        &format!(
            "add table ip n; delete table ip n; add table ip n; \
             add chain ip n i {{ type filter hook input priority 0; }}; add rule ip n i udp dport 40000-42000 drop; \
             add chain ip n c {{ type nat hook postrouting priority 100; }}; \
             add rule ip n c ip saddr 10.0.1.2 udp sport 3653 masquerade to :{one}; \
             add rule ip n c ip saddr 10.0.2.2 udp sport 3653 masquerade to :{two}; \
             add rule ip n c oifname out masquerade"
        ),
    )
}

/// h1 - c1 - nat - s - srv, and h2 - c2 - nat. The server's tunnels are over the host's stack. None without nft(8).
fn internet() -> Result<Option<Bed>> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["h1", "h2", "c1", "c2", "nat", "s", "srv"])?;
    for n in ["1", "2"] {
        bed.net.link((&format!("h{n}"), "eth0"), (&format!("c{n}"), "lan"))?;
        bed.net.link((&format!("c{n}"), "eth0"), ("nat", &format!("in{n}")))?;
    }
    bed.net.link(("nat", "out"), ("s", "eth0"))?;
    bed.net.link(("s", "inside"), ("srv", "eth0"))?;
    bed.ready()?;
    let nat = RouterConfig::new("nat")
        .port("in1", &["10.0.1.1/24"])
        .port("in2", &["10.0.2.1/24"])
        .port("out", &["203.0.113.254/24"]);
    bed.router(Kernel, &nat)?;
    if !translate(&bed, [40_001, 40_002]) {
        return Ok(None);
    }
    // A binding lives for two seconds: the keepalives hold it.
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        bed.host("nat").set_sysctl(&format!("net.netfilter.{timeout}"), "2")?;
    }
    for n in ["1", "2"] {
        bed.end(&format!("c{n}"), &[&format!("10.0.{n}.2/24")], &[&format!("default via 10.0.{n}.1")])?;
    }
    bed.end("s", &["203.0.113.1/24"], &[])?;
    bed.end("srv", &["2001:db8:5::2/64"], &["default via 2001:db8:5::1"])?;
    let s = RouterConfig::new("s")
        .port("inside", &["2001:db8:5::1/64"])
        .port_of("rawip", "wan", &[], "")
        .port_of("udp", "out", &[], "local = \"203.0.113.1\"\nlisten = [3653]\n")
        .extra(&format!(
            "[broker]\nname = \"lab.example\"\nlisten = [\"203.0.113.1:8080\"]\ntsp = [\"{SERVER}\"]\ndatabase = \"{}\"\n\
             endpoint = \"203.0.113.1\"\ndev = \"wan\"\nudp_port = 3653\nudp_dev = \"out\"\nudp_keepalive = \"200ms\"\n\
             links = \"2001:db8:f::/48\"\nprefixes = [\"2001:db8:4000::/36\"]\nsubnets = [\"2001:db8:e::/48\"]\noverlap = \"2s\"\n",
            bed.dir().join("broker.redb").display()
        ));
    bed.router(Duet, &s)?;
    Ok(Some(bed))
}

/// What the server gave.
#[derive(Debug)]
struct Lease {
    server: String,
    client: String,
    prefix: String,
}

/// The text between two others.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let from = text.find(before).unwrap_or_else(|| panic!("no {before} in {text}")) + before.len();
    let to = text[from..].find(after).unwrap_or_else(|| panic!("no {after} in {text}"));
    &text[from..from + to]
}

/// The conversation of RFC 5572 over UDP, as the recorded client has it, from port 3653.
fn set_up(host: &Host, own: &str, user: &str, password: &str) -> Lease {
    let (user, password, own) = (user.to_owned(), password.to_owned(), own.to_owned());
    let text = host.run(move || {
        let socket = UdpSocket::bind((own.as_str(), 3653)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut number = 0xf000_0010u32;
        let mut say = |body: &[u8], answered: bool| {
            number += 1;
            let message = [&number.to_be_bytes()[..], &[0, 0, 1, 0xe1], body].concat();
            let mut buffer = [0; 4000];
            for _ in 0..10 {
                socket.send_to(&message, SERVER).unwrap();
                if !answered {
                    return String::new();
                }
                // A repeated answer to an earlier message is passed over.
                while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    assert_eq!(from.to_string(), SERVER);
                    if buffer[..8] == message[..8] {
                        return String::from_utf8_lossy(&buffer[8..n]).into_owned();
                    }
                }
            }
            panic!("no answer to {:?}", String::from_utf8_lossy(body));
        };
        let capabilities = say(b"VERSION=2.0.2\r\n", true);
        assert!(capabilities.contains("TUNNEL=V6V4 TUNNEL=V6UDPV4"), "{capabilities}");
        let login = format!("AUTHENTICATE PLAIN\r\n\0{user}\0{password}\r\n");
        let proof = say(login.as_bytes(), true);
        assert!(proof.contains("200 Success"), "{proof}");
        let wish = format!(
            "<tunnel action=\"create\" type=\"v6udpv4\" proxy=\"no\"><client><address type=\"ipv4\">{own}</address>\
             <keepalive interval=\"5\"><address type=\"ipv6\">::</address></keepalive>\
             <router><prefix length=\"48\"/></router></client></tunnel>\r\n"
        );
        let offer = say(format!("Content-length: {}\r\n{wish}", wish.len()).as_bytes(), true);
        let accept = "<tunnel action=\"accept\"></tunnel>\r\n";
        say(format!("Content-length: {}\r\n{accept}", accept.len()).as_bytes(), false);
        offer
    });
    assert!(text.contains("200 Success") && text.contains("type=\"v6udpv4\""), "{text}");
    let v6 = "<address type=\"ipv6\">";
    Lease {
        server: between(between(&text, "<server>", "</server>"), v6, "<").to_owned(),
        client: between(between(&text, "<client>", "</client>"), v6, "<").to_owned(),
        prefix: between(&text, "<prefix length=\"48\">", "<").to_owned(),
    }
}

/// A client with what it was given: over its own host's stack, from the port of the conversation.
fn client(bed: &mut Bed, n: u8, lease: &Lease) -> Result {
    let lan = format!("{}1/64", lease.prefix);
    let c = RouterConfig::new(&format!("c{n}"))
        .port("lan", &[&lan])
        .port_of("udp", "out", &[], "listen = [3653]\n")
        .extra(&format!(
            "[tunnel.up]\nmode = \"6in4\"\nlocal = \"10.0.{n}.2\"\nremote = \"203.0.113.1\"\ndev = \"out\"\nencap = \"fou\"\n\
             encap_dport = 3653\nencap_rport = 3653\naddress = [\"{}/64\"]\nkeepalive = {{ target = \"{}\", interval = \"200ms\" }}\n",
            lease.client, lease.server
        ))
        .route("::/0 dev up");
    bed.router(Duet, &c)?;
    let (host, addr) = (format!("h{n}"), format!("{}2/64", lease.prefix));
    bed.end(&host, &[&addr], &[&format!("::/0 via {}1", lease.prefix)])
}

fn all_talk(bed: &Bed, leases: &[Lease; 2]) {
    let addr = |l: &Lease| format!("{}2", l.prefix);
    for (h, lease) in ["h1", "h2"].iter().zip(leases) {
        let pair = Pair::new(bed.host(h), bed.host("srv"), &addr(lease), "2001:db8:5::2");
        pair.wait_reachable(PATIENCE).unwrap();
        pair.tcp().unwrap();
        pair.swapped().tcp().unwrap();
    }
    let pair = Pair::new(bed.host("h1"), bed.host("h2"), &addr(&leases[0]), &addr(&leases[1]));
    pair.wait_reachable(PATIENCE).unwrap();
    pair.tcp().unwrap();
    pair.every_size_after_learning(1472).unwrap();
    pair.udp().unwrap();
}

sandbox_test! {
    fn two_clients_behind_one_nat() {
        let Some(mut bed) = internet().unwrap() else { return };
        let mut leases = Vec::new();
        for (n, user) in [(1, "alice"), (2, "bob")] {
            let password = bed.duet("s").duet(&format!("broker account add {user}")).unwrap();
            let lease = set_up(bed.host(&format!("c{n}")), &format!("10.0.{n}.2"), user, password.trim());
            println!("{user}: {lease:?}");
            client(&mut bed, n, &lease).unwrap();
            leases.push(lease);
        }
        let leases: [Lease; 2] = leases.try_into().unwrap();
        let tunnels = bed.duet("s").json("-j broker tunnel show").unwrap();
        for (t, port) in [(0, 40_001), (1, 40_002)] {
            assert_eq!((&tunnels[t]["mode"], &tunnels[t]["endpoint"]), (&"6inudp4".into(), &"203.0.113.254".into()), "{tunnels}");
            assert_eq!(tunnels[t]["endpoint_port"], port, "{tunnels}");
        }
        all_talk(&bed, &leases);
        // Somebody else behind the NAT, who knows addresses and the server's port: not one packet of his comes out.
        let before = bed.stats("s").unwrap().drops("tunnel_unknown_peer");
        let forged = [&[0x60, 0, 0, 0, 0, 8, 17, 64][..],
            &format!("{}2", leases[0].prefix).parse::<std::net::Ipv6Addr>().unwrap().octets(),
            &"2001:db8:5::2".parse::<std::net::Ipv6Addr>().unwrap().octets(), &[0, 9, 0, 9, 0, 8, 0, 0]].concat();
        bed.host("c2").run(|| {
            let socket = UdpSocket::bind("10.0.2.2:5000").unwrap();
            for _ in 0..10 {
                socket.send_to(&forged, SERVER).unwrap();
            }
        });
        eventually("the stranger's packets are dropped", || {
            (bed.stats("s").unwrap().drops("tunnel_unknown_peer") >= before + 10).then_some(())
        });
        // The NAT forgets everything and gives other ports: the clients are followed, with their prefixes.
        translate(&bed, [41_001, 41_002]);
        let raw = "add table ip r; add chain ip r c { type filter hook prerouting priority -400; }; add rule ip r c udp dport 3653 drop; \
                   add rule ip r c udp sport 3653 drop";
        nft(&bed, raw);
        let tunnel = |i: usize| tunnels[i]["dev"].as_str().unwrap().to_owned();
        let show = |i: usize| bed.duet("s").json(&format!("-j -d tunnel show {}", tunnel(i))).unwrap();
        let asked = || show(0)[0]["asked"].as_u64().unwrap();
        let until = asked() + 16;
        eventually("the NAT has forgotten", || (asked() >= until).then_some(()));
        nft(&bed, "delete table ip r");
        for (i, port) in [(0, 41_001), (1, 41_002)] {
            eventually(&format!("client {i} is followed to port {port}"), || (show(i)[0]["path_port"] == port).then_some(()));
        }
        all_talk(&bed, &leases);
        bed.finish().unwrap();
    }
}
