//! Ends of tunnels that move: the local one with the address of the host's device, the remote one with the address that its name has.

use router_io::sandbox_test;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const PATIENCE: Duration = Duration::from_secs(30);
const PEER: &str = "peer.duet.test";

/// What the resolver of this sandbox knows from now on.
fn name_is(dir: &Path, addr: &str) {
    let file = dir.join("hosts");
    let first = !file.exists();
    std::fs::write(&file, format!("127.0.0.1 localhost\n{addr} {PEER}\n")).unwrap();
    if first {
        let done = Command::new("mount").arg("--bind").arg(&file).arg("/etc/hosts").status().unwrap();
        assert!(done.success());
    }
}

fn config(name: &str, inside: &str, ends: &str, own: u8, far: &str) -> RouterConfig {
    let (lan, peer) = (if name == "r1" { "a" } else { "b" }, 3 - own);
    RouterConfig::new(name)
        .port(inside, &[&format!("2001:db8:{lan}::2/64")])
        .port_of("rawip", "wan", &[], "")
        .extra(&format!(
            "[tunnel.site]\nmode = \"6in4\"\n{ends}\ndev = \"wan\"\naddress = [\"2001:db8:f::{own}/64\"]\n\
             keepalive = {{ target = \"2001:db8:f::{peer}\", interval = \"200ms\", retries = 3, hold = 1 }}\n"
        ))
        .route(&format!("2001:db8:{far}::/64 dev site"))
}

sandbox_test! {
    fn a_device_and_a_name() {
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500; 4]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["2001:db8:a::1/64"], &["::/0 via 2001:db8:a::2"]).unwrap();
        bed.end("b", &["2001:db8:b::1/64"], &["::/0 via 2001:db8:b::2"]).unwrap();
        let isp = RouterConfig::new("isp").port("left", &["198.51.100.1/24"]).port("right", &["203.0.113.1/24"]);
        bed.router(Kernel, &isp).unwrap();
        for (host, device, addr, gateway) in [("r1", "right", "198.51.100.2/24", "198.51.100.1"), ("r2", "left", "203.0.113.2/24", "203.0.113.1")] {
            bed.net.addr(host, device, addr).unwrap();
            bed.ready().unwrap();
            bed.net.route(host, &format!("default via {gateway}")).unwrap();
        }
        name_is(bed.dir(), "203.0.113.2");
        let ends = format!("local = {{ dev = \"right\" }}\nremote = \"{PEER}\"");
        bed.router(Duet, &config("r1", "left", &ends, 1, "b")).unwrap();
        bed.router(Duet, &config("r2", "right", "local = \"203.0.113.2\"\nremote = \"198.51.100.2\"", 2, "a")).unwrap();
        let shown = |bed: &Bed| bed.duet("r1").json("-j -d tunnel show site").unwrap();
        let talk = |bed: &Bed| {
            let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
            pair.wait_reachable(PATIENCE).unwrap();
            pair.tcp().unwrap();
            pair.swapped().tcp().unwrap();
        };
        talk(&bed);
        let json = shown(&bed);
        assert_eq!((&json[0]["local"], &json[0]["local-dev"], &json[0]["remote-name"]), (&"198.51.100.2".into(), &"right".into(), &PEER.into()), "{json}");
        // The provider gives this end another address: the tunnel has it without a word said.
        bed.net.del_addr("r1", "right", "198.51.100.2/24").unwrap();
        bed.net.addr("r1", "right", "198.51.100.7/24").unwrap();
        bed.ready().unwrap();
        bed.net.route("r1", "default via 198.51.100.1").unwrap();
        eventually("the local end follows", || (shown(&bed)[0]["local"] == "198.51.100.7").then_some(()));
        bed.duet("r2").duet("tunnel change site remote 198.51.100.7").unwrap();
        talk(&bed);
        // The other end moves, and its name with it: asked again at once, because nobody answers where it was.
        bed.net.del_addr("r2", "left", "203.0.113.2/24").unwrap();
        bed.net.addr("r2", "left", "203.0.113.9/24").unwrap();
        bed.ready().unwrap();
        bed.net.route("r2", "default via 203.0.113.1").unwrap();
        bed.duet("r2").duet("tunnel change site local 203.0.113.9").unwrap();
        name_is(bed.dir(), "203.0.113.9");
        eventually("the remote end follows", || (shown(&bed)[0]["remote"] == "203.0.113.9").then_some(()));
        talk(&bed);
        bed.finish().unwrap();
    }
}
