//! Scenario 3: IPv6 between two sites over a network that has IPv4 only, by 6in4.

use super::picture::{Node, Picture, Tunnel};
use super::stage::{Stage, StageError};
use std::net::IpAddr;

/// Its title.
pub const TITLE: &str = "IPv6 between two sites over an IPv4-only network (6in4, RFC 4213)";

struct Site<'a> {
    name: &'a str,
    inside: (&'a str, &'a str),
    outside: (&'a str, &'a str),
    remote: &'a str,
    tunnel: &'a str,
    routes: [&'a str; 2],
}

fn config(site: &Site<'_>) -> String {
    let Site { name, inside, outside, remote, tunnel, routes } = site;
    let local = outside.1.split('/').next().unwrap_or_default();
    format!(
        r#"[router]
workers = 1
name = "{name}"

[port.{0}]
kind = "packet"
device = "{0}"
address = ["{1}"]

[port.{2}]
kind = "packet"
device = "{2}"
address = ["{3}"]

[tunnel.site]
mode = "6in4"
local = "{local}"
remote = "{remote}"
address = ["{tunnel}"]

[routes]
main = [
  "{4}",
  "{5}",
]
"#,
        inside.0, inside.1, outside.0, outside.1, routes[0], routes[1]
    )
}

/// Plays it.
pub fn play(stage: &mut Stage<'_>) -> Result<(), StageError> {
    stage.screen().block(
        Picture {
            nodes: &[
                Node { name: "alice", kind: "Linux", notes: &[] },
                Node { name: "r1", kind: "duet", notes: &[] },
                Node { name: "isp", kind: "Linux", notes: &["IPv4 only"] },
                Node { name: "r2", kind: "duet", notes: &[] },
                Node { name: "bob", kind: "Linux", notes: &[] },
            ],
            links: &[&["2001:db8:a::/64"], &["198.51.100.0/24"], &["203.0.113.0/24"], &["2001:db8:b::/64"]],
            tunnel: Some(Tunnel { from: 1, to: 3, label: "IPv6 in IPv4: 2001:db8:ff::/64" }),
        }
        .draw(),
    );
    stage.wire(
        &["alice", "r1", "isp", "r2", "bob"],
        &[
            (("alice", "eth0"), ("r1", "left")),
            (("r1", "right"), ("isp", "left")),
            (("isp", "right"), ("r2", "left")),
            (("r2", "right"), ("bob", "eth0")),
        ],
    )?;
    stage.kernel("alice", &[("eth0", "2001:db8:a::10/64")], &["default via 2001:db8:a::1"])?;
    stage.kernel("bob", &[("eth0", "2001:db8:b::10/64")], &["default via 2001:db8:b::1"])?;
    stage.kernel("isp", &[("left", "198.51.100.1/24"), ("right", "203.0.113.1/24")], &[])?;
    stage.kernel_router("isp")?;
    let r1 = Site {
        name: "r1",
        inside: ("left", "2001:db8:a::1/64"),
        outside: ("right", "198.51.100.7/24"),
        remote: "203.0.113.5",
        tunnel: "2001:db8:ff::1/64",
        routes: ["0.0.0.0/0 via 198.51.100.1", "2001:db8:b::/64 via 2001:db8:ff::2 dev site"],
    };
    let r2 = Site {
        name: "r2",
        inside: ("right", "2001:db8:b::1/64"),
        outside: ("left", "203.0.113.5/24"),
        remote: "198.51.100.7",
        tunnel: "2001:db8:ff::2/64",
        routes: ["0.0.0.0/0 via 203.0.113.1", "2001:db8:a::/64 via 2001:db8:ff::1 dev site"],
    };
    stage.router("r1", &config(&r1), true)?;
    stage.screen().dim("r2.toml is the mirror image.");
    stage.router("r2", &config(&r2), false)?;
    stage.duet("r1", "tunnel show")?;
    let bob: IpAddr = [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10].into();
    stage.ping("alice", bob)?;
    stage.traceroute("alice", bob, &["r1", "r2"], "bob")?;
    stage.tcp("alice", "bob", bob)?;
    stage.account()
}
