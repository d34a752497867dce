//! Scenario 4: two sites behind IPv4-only networks get prefixes from a tunnel broker of ours, with one command each.

use super::picture::{Node, Picture, Tunnel};
use super::stage::{Stage, StageError};
use std::net::IpAddr;

/// Its title.
pub const TITLE: &str = "Two sites get /48s from a tunnel broker (6in4), one of them behind a NAT";

const SERVER: &str = r#"[router]
workers = 1
name = "s"

[port.wan]
kind = "rawip"                      # the host's own IPv4 carries the tunnels

[port.inside]
kind = "packet"
address = ["2001:db8:5::1/64"]

[broker]
listen = ["203.0.113.1:8080"]       # a demo: a real one says tls_certificate and tls_key
endpoint = "203.0.113.1"
dev = "wan"
links = "2001:db8:f::/48"           # a /64 for each tunnel
prefixes = ["2001:db8:4000::/36"]   # a /48 for each site
database = "DIR/broker.redb"
overlap = "2s"
"#;

const SITE: &str = r#"[router]
workers = 1
name = "NAME"

[port.wan]
kind = "rawip"                      # this host's own IPv4 carries the tunnel

[port.lan]
kind = "packet"
"#;

/// What a home router does: everything from inside leaves with the one address outside, ports rewritten, and only answers
/// come back.
const MASQUERADE: &str = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname outside masquerade \
                          random; }; chain in { type filter hook forward priority filter; iifname outside ct state new drop; }; }";

/// Where nft(8) is missing: gives 192.168.1.2 of the inside the address 192.0.2.1 outside, there and back through IPv6, by
/// two translators.
const NAT: &str = r#"[router]
workers = 1
name = "nat"

[port.inside]
kind = "packet"
address = ["192.168.1.1/24"]
table = 10

[port.outside]
kind = "packet"
address = ["198.51.100.130/25"]

[translate.in]
mode = "siit"
prefix = "2001:db8:64::/96"
map = ["192.168.1.2 = 2001:db8:46::2"]

[translate.out]
mode = "siit"
prefix = "2001:db8:64::/96"
map = ["192.0.2.1 = 2001:db8:46::2"]

[routes]
10 = ["0.0.0.0/0 dev in"]
main = [
  "2001:db8:64::/96 dev out",
  "0.0.0.0/0 via 198.51.100.129",
  "192.0.2.1 dev out",
  "2001:db8:46::2 dev in",
  "192.168.1.0/24 dev inside",
]
"#;

/// Plays it.
pub fn play(stage: &mut Stage<'_>) -> Result<(), StageError> {
    stage.screen().block(
        Picture {
            nodes: &[
                Node { name: "ann", kind: "Linux", notes: &[] },
                Node { name: "a", kind: "duet", notes: &["198.51.100.2"] },
                Node { name: "isp", kind: "Linux", notes: &["IPv4 only", "s: the broker", "srv behind s"] },
                Node { name: "b", kind: "duet", notes: &["192.168.1.2", "behind a NAT"] },
                Node { name: "ben", kind: "Linux", notes: &[] },
            ],
            links: &[&["a /48"], &["198.51.100.0/25"], &["nat"], &["a /48"]],
            tunnel: Some(Tunnel { from: 1, to: 3, label: " 6in4, by way of the broker s " }),
        }
        .draw(),
    );
    stage.wire(
        &["ann", "a", "isp", "s", "srv", "nat", "b", "ben"],
        &[
            (("ann", "eth0"), ("a", "lan")),
            (("a", "eth0"), ("isp", "a")),
            (("isp", "s"), ("s", "eth0")),
            (("s", "inside"), ("srv", "eth0")),
            (("isp", "nat"), ("nat", "outside")),
            (("nat", "inside"), ("b", "eth0")),
            (("b", "lan"), ("ben", "eth0")),
        ],
    )?;
    let isp = [("a", "198.51.100.1/25"), ("s", "203.0.113.254/24"), ("nat", "198.51.100.129/25")];
    stage.kernel("isp", &isp, &["192.0.2.0/24 via 198.51.100.130"])?;
    stage.kernel_router("isp")?;
    stage.kernel("a", &[("eth0", "198.51.100.2/25")], &["default via 198.51.100.1"])?;
    stage.kernel("b", &[("eth0", "192.168.1.2/24")], &["default via 192.168.1.1"])?;
    stage.kernel("s", &[("eth0", "203.0.113.1/24")], &["default via 203.0.113.254"])?;
    stage.kernel("srv", &[("eth0", "2001:db8:5::2/64")], &["default via 2001:db8:5::1"])?;
    nat(stage)?;
    stage.router("s", &SERVER.replace("DIR", &stage.dir().display().to_string()), true)?;
    let ann = site(stage, "a", "ann", "alice")?;
    let ben = site(stage, "b", "ben", "bob")?;
    stage.duet("s", "broker tunnel show")?;
    let srv: IpAddr = [0x2001, 0xdb8, 5, 0, 0, 0, 0, 2].into();
    stage.ping("ann", ben)?;
    stage.traceroute("ann", ben, &["a", "s", "b"], "ben")?;
    stage.tcp("ann", "ben", ben)?;
    stage.tcp("ben", "srv", srv)?;
    stage.screen().dim("Now a's provider gives it another address. Its router notices and tells the broker.");
    stage.renumber("a", "eth0", "198.51.100.2/25", "198.51.100.77/25", "default via 198.51.100.1")?;
    stage.ping_until("ann", ben)?;
    stage.tcp("ben", "ann", ann)?;
    stage.duet("s", "broker tunnel show")?;
    stage.duet("s", "broker audit --last 3")?;
    stage.account()
}

/// Puts b behind a NAT.
fn nat(stage: &mut Stage<'_>) -> Result<(), StageError> {
    if stage.program("nat", "nft", &[MASQUERADE])? {
        stage
            .screen()
            .dim("nat shares its address: nothing gets in that was not asked for. b's keepalive holds the door open.");
        let addrs = [("inside", "192.168.1.1/24"), ("outside", "198.51.100.130/25")];
        stage.kernel("nat", &addrs, &["default via 198.51.100.129"])?;
        return stage.kernel_router("nat");
    }
    stage.screen().dim("No nft(8) here: nat gives 192.168.1.2 the address 192.0.2.1 outside, one for one.");
    stage.router("nat", NAT, false)
}

/// A site: an account at the broker, a router, one command; its host. The host's address.
fn site(stage: &mut Stage<'_>, router: &str, host: &str, user: &str) -> Result<IpAddr, StageError> {
    let key = stage.answer_to_file("s", &format!("broker account add {user}"), &format!("{user}.key"))?;
    // The second one says nothing new.
    stage.router(router, &SITE.replace("NAME", router), router == "a")?;
    let key = key.display();
    stage.duet(
        router,
        &format!("tunnel add up broker http://203.0.113.1:8080 user {user} key-file {key} prefix 48 lan lan"),
    )?;
    let (addr, gateway) = stage.delegated(router)?;
    stage.kernel(host, &[("eth0", &format!("{addr}/64"))], &[&format!("default via {gateway}")])?;
    Ok(addr)
}
