//! Scenario 2: IPv4 across a chain of routers that have IPv6 addresses only.

use super::picture::{Node, Picture};
use super::stage::{Stage, StageError};
use std::net::IpAddr;

/// Its title.
pub const TITLE: &str = "IPv4 across routers that have IPv6 addresses only";

/// The configuration of a router of the chain: its two addresses, and what it knows from the start.
fn config(name: &str, left: &str, right: &str, routes: &str) -> String {
    format!(
        r#"[router]
workers = 1
name = "{name}"

[port.left]
kind = "packet"
device = "left"
address = ["{left}"]

[port.right]
kind = "packet"
device = "right"
address = ["{right}"]

[routes]
main = [{routes}]
"#
    )
}

/// Plays it.
pub fn play(stage: &mut Stage<'_>) -> Result<(), StageError> {
    stage.screen().block(
        Picture {
            nodes: &[
                Node { name: "alice", kind: "Linux", notes: &["192.0.2.10"] },
                Node { name: "r1", kind: "duet", notes: &[] },
                Node { name: "r2", kind: "duet", notes: &[] },
                Node { name: "r3", kind: "duet", notes: &[] },
                Node { name: "bob", kind: "Linux", notes: &["203.0.113.10"] },
            ],
            links: &[&["2001:db8:1::/64"], &["2001:db8:12::/64"], &["2001:db8:23::/64"], &["2001:db8:3::/64"]],
            tunnel: None,
        }
        .draw(),
    );
    stage.wire(
        &["alice", "r1", "r2", "r3", "bob"],
        &[
            (("alice", "eth0"), ("r1", "left")),
            (("r1", "right"), ("r2", "left")),
            (("r2", "right"), ("r3", "left")),
            (("r3", "right"), ("bob", "eth0")),
        ],
    )?;
    stage.screen().dim("The ends have IPv4 addresses; their gateways have none, so they too use IPv6 next hops:");
    let ends = [
        ("alice", "192.0.2.10/24", "2001:db8:1::10/64", "0.0.0.0/0 via inet6 2001:db8:1::1"),
        ("bob", "203.0.113.10/24", "2001:db8:3::10/64", "0.0.0.0/0 via inet6 2001:db8:3::3"),
    ];
    for (host, four, six, route) in ends {
        stage.kernel(host, &[("eth0", four), ("eth0", six)], &[route])?;
    }
    let r1 = "\"192.0.2.0/24 via inet6 2001:db8:1::10\"";
    stage.router("r1", &config("r1", "2001:db8:1::1/64", "2001:db8:12::1/64", r1), true)?;
    stage.screen().dim("r2.toml and r3.toml are the like, with their own addresses.");
    stage.router("r2", &config("r2", "2001:db8:12::2/64", "2001:db8:23::2/64", ""), false)?;
    let r3 = "\"203.0.113.0/24 via inet6 2001:db8:3::10\"";
    stage.router("r3", &config("r3", "2001:db8:23::3/64", "2001:db8:3::3/64", r3), false)?;
    let bob: IpAddr = [203, 0, 113, 10].into();
    stage
        .screen()
        .dim("Nobody knows the way yet. r1 says so by 192.0.0.8, which stands for \"no IPv4 address\" (RFC 7600):");
    stage.ping_refused("alice", bob, [192, 0, 0, 8].into(), "net unreachable")?;
    for (router, route) in [
        ("r1", "203.0.113.0/24 via inet6 2001:db8:12::2"),
        ("r2", "203.0.113.0/24 via inet6 2001:db8:23::3"),
        ("r2", "192.0.2.0/24 via inet6 2001:db8:12::1"),
        ("r3", "192.0.2.0/24 via inet6 2001:db8:23::2"),
    ] {
        stage.duet(router, &format!("route add {route}"))?;
    }
    stage.duet("r2", "-4 route show")?;
    stage.ping("alice", bob)?;
    stage.traceroute("alice", bob, &["r1", "r2", "r3"], "bob")?;
    stage.tcp("alice", "bob", bob)?;
    stage.account()
}
