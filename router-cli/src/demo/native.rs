//! Scenario 1: one router between two subnets, both families.

use super::picture::{Node, Picture};
use super::stage::{Stage, StageError};

/// Its title.
pub const TITLE: &str = "IPv4 and IPv6 between two subnets, forwarded natively";

const R1: &str = r#"[router]
workers = 1
name = "r1"

[port.left]
kind = "packet"
device = "left"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]

[port.right]
kind = "packet"
device = "right"
address = ["198.51.100.1/24", "2001:db8:b::1/64"]
"#;

/// Plays it.
pub fn play(stage: &mut Stage<'_>) -> Result<(), StageError> {
    stage.screen().block(
        Picture {
            nodes: &[
                Node { name: "alice", kind: "Linux", notes: &[".10", "::10"] },
                Node { name: "r1", kind: "duet", notes: &[".1   .1", "::1   ::1"] },
                Node { name: "bob", kind: "Linux", notes: &[".10", "::10"] },
            ],
            links: &[&["192.0.2.0/24", "2001:db8:a::/64"], &["198.51.100.0/24", "2001:db8:b::/64"]],
            tunnel: None,
        }
        .draw(),
    );
    stage.wire(&["alice", "r1", "bob"], &[(("alice", "eth0"), ("r1", "left")), (("r1", "right"), ("bob", "eth0"))])?;
    stage.kernel(
        "alice",
        &[("eth0", "192.0.2.10/24"), ("eth0", "2001:db8:a::10/64")],
        &["default via 192.0.2.1", "default via 2001:db8:a::1"],
    )?;
    stage.kernel(
        "bob",
        &[("eth0", "198.51.100.10/24"), ("eth0", "2001:db8:b::10/64")],
        &["default via 198.51.100.1", "default via 2001:db8:b::1"],
    )?;
    stage.router("r1", R1, true)?;
    stage.duet("r1", "route show")?;
    for dst in [[198, 51, 100, 10].into(), [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10].into()] {
        stage.ping("alice", dst)?;
        stage.traceroute("alice", dst, &["r1"], "bob")?;
        stage.tcp("alice", "bob", dst)?;
    }
    stage.duet("r1", "neigh show")?;
    stage.account()
}
