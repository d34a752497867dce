//! Scenario 5: a host that has IPv6 only reaches a server that has IPv4 only, and the reverse, by translation.

use super::picture::{Node, Picture};
use super::stage::{Stage, StageError};
use std::net::IpAddr;

/// Its title.
pub const TITLE: &str = "An IPv6-only host and an IPv4-only host, both ways, by translation (RFC 6146, RFC 7915)";

const CONFIG: &str = r#"[router]
workers = 1
name = "r"

[port.left]
kind = "packet"
device = "left"
address = ["2001:db8:6::1/64"]

[port.right]
kind = "packet"
device = "right"
address = ["203.0.113.1/24"]

[translate.nat64]
mode = "nat64"
prefix = "2001:db8:64::/96"
pool = ["198.51.100.1"]

[translate.siit]
mode = "siit"
prefix = "2001:db8:46::/96"
map = ["192.0.2.10 = 2001:db8:6::10"]

[routes]
main = [
  "2001:db8:64::/96 dev nat64",   # IPv6 hosts to IPv4 hosts, by sessions
  "198.51.100.1 dev nat64",       # what comes back
  "192.0.2.10 dev siit",          # IPv4 hosts to this one IPv6 host
  "2001:db8:46::/96 dev siit",    # what comes back
]
"#;

/// Plays it.
pub fn play(stage: &mut Stage<'_>) -> Result<(), StageError> {
    stage.screen().block(
        Picture {
            nodes: &[
                Node { name: "six", kind: "Linux", notes: &["IPv6 only"] },
                Node { name: "r", kind: "duet", notes: &[] },
                Node { name: "four", kind: "Linux", notes: &["IPv4 only"] },
            ],
            links: &[&["2001:db8:6::/64"], &["203.0.113.0/24"]],
            tunnel: None,
        }
        .draw(),
    );
    stage.wire(&["six", "r", "four"], &[(("six", "eth0"), ("r", "left")), (("r", "right"), ("four", "eth0"))])?;
    stage.kernel("six", &[("eth0", "2001:db8:6::10/64")], &["default via 2001:db8:6::1"])?;
    stage.kernel("four", &[("eth0", "203.0.113.9/24")], &["default via 203.0.113.1"])?;
    stage.router("r", CONFIG, true)?;
    let (four, six) = (IpAddr::from([203, 0, 113, 9]), IpAddr::from([0x2001, 0xdb8, 6, 0, 0, 0, 0, 0x10]));
    stage.screen().dim("six knows four as 2001:db8:64::203.0.113.9, which is 2001:db8:64::cb00:7109.");
    let four_as_six: IpAddr = [0x2001, 0xdb8, 0x64, 0, 0, 0, 0xcb00, 0x7109].into();
    stage.ping("six", four_as_six)?;
    stage.traceroute("six", four_as_six, &["r"], "four")?;
    stage.tcp_to("six", "four", four_as_six, four)?;
    stage.screen().dim("four knows six as 192.0.2.10.");
    let six_as_four = IpAddr::from([192, 0, 2, 10]);
    stage.ping("four", six_as_four)?;
    stage.tcp_to("four", "six", six_as_four, six)?;
    stage.duet("r", "translate show")?;
    stage.account()
}
