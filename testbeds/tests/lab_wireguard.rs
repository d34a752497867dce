//! WireGuard between two of our routers, and between ours and wireguard-go: TCP with its bytes compared, pings of every size,
//! a peer that moves, wrong keys, recorded datagrams sent again, peers that change while others go on.

use router_io::lab::probe::Ping;
use router_io::lab::{Host, Process};
use router_io::sandbox_test;
use rustix::process::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use testbeds::desk::eventually;
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, RouterConfig, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// Private and public keys, made with `wg genkey` and `wg pubkey` for these tests.
const KEYS: [(&str, &str); 3] = [
    ("AFuHcXrcbgEj0QQCIofsWfzDx0JDundMWX3Y2A00N0s=", "NCYyu4niUkDEwp/rjZ7ZcP4Ke+u60eHWx3g4YdtDVAo="),
    ("+MEbaofFc5FCsIx9S4mg/ABXw2+bM+64RQWB7fIhI0c=", "VjWOM+K7RbWtqHmXpYISlbS/MPg+voZDPVJlAcQuSCI="),
    ("kPQZCNFv9PuSfYB5YkNKWsJACiRo56+3FayJSlg62lo=", "oE/XCIq2GCGXzxC67nD1AJ33xRvQhOHM6v6OjZW0tQY="),
];
const PSK: &str = "FE1bEe+Y+sF7CEb6HQ222lwa7zbKT9CHUNsqA605/ms=";

/// Writes a secret for its owner alone.
fn secret(bed: &Bed, name: &str, text: &str) -> String {
    let path = bed.dir().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A peer's section.
fn peer(key: usize, allowed: &str, more: &str) -> String {
    format!("[[port.wg0.peer]]\npublic_key = \"{}\"\nallowed_ips = {allowed}\n{more}\n", KEYS[key].1)
}

/// A router whose outside is its host's, and whose inside is ours.
fn router(bed: &Bed, name: &str, key: usize, addrs: [&[&str]; 2], peers: &str) -> RouterConfig {
    let file = secret(bed, &format!("{name}.key"), KEYS[key].0);
    let inside = if name == "r1" { "left" } else { "right" };
    RouterConfig::new(name).port(inside, addrs[0]).port_of(
        "wireguard",
        "wg0",
        addrs[1],
        &format!("private_key_file = \"{file}\"\nlisten_port = 51820\n{peers}"),
    )
}

const SITES: [(&[&str], &[&str]); 2] = [
    (&["192.0.2.2/25", "2001:db8:a::2/64"], &["10.7.0.1/24", "fd07::1/64"]),
    (&["192.0.2.130/25", "2001:db8:b::2/64"], &["10.7.0.2/24", "fd07::2/64"]),
];
const A: &str = "[\"192.0.2.0/25\", \"2001:db8:a::/64\", \"10.7.0.1/32\", \"fd07::1/128\"]";
const B: &str = "[\"192.0.2.128/25\", \"2001:db8:b::/64\", \"10.7.0.2/32\", \"fd07::2/128\"]";

/// a - r1 = r2 - b: the link in the middle belongs to the hosts, the tunnel over it to us.
fn two_sites(peers: impl Fn(&Bed) -> [String; 2]) -> Bed {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2", "b"], &[]).unwrap();
    bed.ready().unwrap();
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])
        .unwrap();
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])
        .unwrap();
    for (host, dev, addr) in [
        ("r1", "right", "198.51.100.1/24"),
        ("r2", "left", "198.51.100.2/24"),
        ("r1", "right", "2001:db8:99::1/64"),
        ("r2", "left", "2001:db8:99::2/64"),
    ] {
        bed.net.addr(host, dev, addr).unwrap();
    }
    bed.ready().unwrap();
    let [p1, p2] = peers(&bed);
    let r1 = router(&bed, "r1", 0, [SITES[0].0, SITES[0].1], &p1)
        .route("192.0.2.128/25 dev wg0")
        .route("2001:db8:b::/64 dev wg0");
    let r2 = router(&bed, "r2", 1, [SITES[1].0, SITES[1].1], &p2)
        .route("192.0.2.0/25 dev wg0")
        .route("2001:db8:a::/64 dev wg0");
    bed.router(Duet, &r2).unwrap();
    bed.router(Duet, &r1).unwrap();
    bed
}

fn pairs(bed: &Bed) -> [Pair<'_>; 2] {
    [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")]
        .map(|(x, y)| Pair::new(bed.host("a"), bed.host("b"), x, y))
}

/// Whether one ping from a is answered.
fn answered(bed: &Bed, to: &str) -> bool {
    bed.host("a").ping(&Ping::new(to.parse().unwrap()).timeout(Duration::from_millis(500))).unwrap().received > 0
}

fn first_peer(bed: &Bed, router: &str) -> serde_json::Value {
    let json = bed.duet(router).json("-j tunnel show wg0").unwrap();
    assert_eq!(json[0]["mode"], "wireguard", "{json}");
    json[0]["peers"][0].clone()
}

sandbox_test! {
    fn two_of_ours_over_both_families() {
        for (outer, psk) in [("198.51.100.2:51820", false), ("[2001:db8:99::2]:51820", true)] {
            let bed = two_sites(|bed| {
                let shared = secret(bed, "psk", PSK);
                let with = if psk { format!("preshared_key_file = \"{shared}\"") } else { String::new() };
                [peer(1, B, &format!("endpoint = \"{outer}\"\n{with}")), peer(0, A, &with)]
            });
            for pair in pairs(&bed) {
                // The first packet of all waits for the handshake.
                pair.reachable().unwrap();
                pair.learns_mtu(1420).unwrap();
                pair.swapped().learns_mtu(1420).unwrap();
                pair.every_size_after_learning(1420).unwrap();
                pair.udp().unwrap();
                pair.tcp().unwrap();
            }
            // As wg show has it, in both commands; the private keys nowhere.
            for words in ["tunnel show wg0", "-d link show wg0", "tunnel show"] {
                let text = bed.duet("r1").duet(words).unwrap();
                for want in ["listening port: 51820", KEYS[0].1, KEYS[1].1, outer, "latest handshake: ", "MiB received"] {
                    assert!(text.contains(want), "{words}: {want}: {text}");
                }
                assert_eq!(text.contains("preshared key: (hidden)"), psk, "{text}");
                assert!(!text.contains(KEYS[0].0) && !text.contains(PSK), "{text}");
            }
            let p = first_peer(&bed, "r2");
            assert_eq!(p["public_key"], KEYS[0].1, "{p}");
            assert!(p["latest_handshake"].as_u64() > Some(1_600_000_000) && p["transfer_rx"].as_u64() > Some(1_000_000), "{p}");
            let log = bed.duet("r1").log();
            assert!(!log.contains(KEYS[0].0) && !log.contains("ERROR"), "{log}");
            bed.finish().unwrap();
        }
    }
}

sandbox_test! {
    fn a_peer_that_moves_is_found_again() {
        let bed = two_sites(|_| [peer(1, B, "endpoint = \"198.51.100.2:51820\""), peer(0, A, "")]);
        let [four, _] = pairs(&bed);
        four.reachable().unwrap();
        assert_eq!(first_peer(&bed, "r2")["endpoint"], "198.51.100.1:51820");
        let before = first_peer(&bed, "r2")["latest_handshake"].clone();
        bed.net.addr("r1", "right", "198.51.100.77/24").unwrap();
        bed.net.del_addr("r1", "right", "198.51.100.1/24").unwrap();
        // The address that it had took its /24 with it, unless the kernel promoted the other.
        let _ = bed.net.addr("r1", "right", "198.51.100.77/24");
        four.wait_reachable(Duration::from_secs(10)).unwrap();
        let p = first_peer(&bed, "r2");
        assert_eq!((&p["endpoint"], &p["latest_handshake"]), (&"198.51.100.77:51820".into(), &before), "without a handshake");
        four.swapped().tcp().unwrap();
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn wrong_keys_and_sources_are_refused_and_counted() {
        // r2 expects another key than r1's.
        let bed = two_sites(|_| [peer(1, B, "endpoint = \"198.51.100.2:51820\""), peer(2, A, "")]);
        assert!(!answered(&bed, "192.0.2.129"));
        let drops = |router: &str, reason: &str| {
            eventually(&format!("{reason} at {router}"), || (bed.stats(router).unwrap().drops(reason) > 0).then_some(()));
        };
        drops("r2", "wireguard_unknown");
        assert_eq!(bed.stats("r2").unwrap().port("wg0").tx_packets, 0);
        bed.finish().unwrap();
        // r1 sends from addresses that r2 does not allow it, and to some that are nobody's.
        let bed = two_sites(|_| [peer(1, "[\"0.0.0.0/0\"]", "endpoint = \"198.51.100.2:51820\""), peer(0, "[\"10.7.0.1/32\"]", "")]);
        assert!(!answered(&bed, "192.0.2.129") && !answered(&bed, "2001:db8:b::1"));
        for (router, reason) in [("r2", "wireguard_source"), ("r1", "wireguard_no_peer")] {
            eventually(reason, || (bed.stats(router).unwrap().drops(reason) > 0).then_some(()));
        }
        let text = bed.duet("r2").duet("drops").unwrap();
        assert!(text.contains("wireguard_source"), "{text}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn a_readable_key_is_refused_with_the_remedy() {
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "b"], &[]).unwrap();
        bed.ready().unwrap();
        let config = router(&bed, "r1", 0, [&["192.0.2.2/25"], &["10.7.0.1/24"]], "");
        let file = bed.dir().join("r1.key");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let e = bed.router(Duet, &config).unwrap_err().to_string();
        assert!(e.contains("may be read or changed by others (mode 0644); chmod 600"), "{e}");
        assert!(!e.contains(KEYS[0].0));
    }
}

sandbox_test! {
    fn what_was_recorded_is_of_no_use() {
        // r1's datagrams go through a recorder, which then sends them again.
        let bed = two_sites(|_| [peer(1, B, "endpoint = \"198.51.100.1:7777\""), peer(0, A, "")]);
        let [four, _] = pairs(&bed);
        let r2: SocketAddr = "198.51.100.2:51820".parse().unwrap();
        let recorder = bed.host("r1").run(|| UdpSocket::bind("198.51.100.1:7777").unwrap());
        recorder.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let recorded = std::thread::scope(|s| {
            let recording = s.spawn(|| {
                let (mut list, mut buffer) = (Vec::new(), [0; 2048]);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok((n, from)) = recorder.recv_from(&mut buffer) else { continue };
                    if from == r2 {
                        recorder.send_to(&buffer[..n], "198.51.100.1:51820").unwrap();
                    } else {
                        list.push(buffer[..n].to_vec());
                        recorder.send_to(&buffer[..n], r2).unwrap();
                    }
                }
                list
            });
            let ok = four.reachable();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            ok.unwrap();
            recording.join().unwrap()
        });
        assert!(recorded.len() >= 2, "a handshake and data");
        let (before, endpoint) = (bed.stats("r2").unwrap(), first_peer(&bed, "r2")["endpoint"].clone());
        let stranger = bed.host("r1").run(|| UdpSocket::bind("198.51.100.1:6666").unwrap());
        for data in recorded.iter().chain(&recorded) {
            stranger.send_to(data, r2).unwrap();
        }
        eventually("all of them are refused", || {
            let s = bed.stats("r2").unwrap();
            let refused = |r| s.drops(r) - before.drops(r);
            (refused("wireguard_replay") + refused("wireguard_handshake") == 2 * recorded.len() as u64).then_some(())
        });
        assert_eq!(first_peer(&bed, "r2")["endpoint"], endpoint, "and nobody moved");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn peers_change_by_reload_and_the_others_go_on() {
        let mut bed = two_sites(|_| [peer(1, B, "endpoint = \"198.51.100.2:51820\""), peer(0, A, "")]);
        pairs(&bed)[0].reachable().unwrap();
        let before = first_peer(&bed, "r2")["latest_handshake"].clone();
        let file = bed.duet("r2").config().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let more = peer(2, "[\"10.99.0.0/16\"]", "persistent_keepalive = \"25s\"");
        let with = text.replace("[routes]", &format!("{more}[routes]"));
        std::fs::write(&file, &with).unwrap();
        bed.duet_mut("r2").process().signal(Signal::HUP).unwrap();
        eventually("the new peer is there", || {
            let json = bed.duet("r2").json("-j tunnel show wg0").unwrap();
            (json[0]["peers"].as_array().map(Vec::len) == Some(2)).then_some(())
        });
        pairs(&bed)[0].tcp().unwrap();
        let json = bed.duet("r2").json("-j tunnel show wg0").unwrap();
        let kept = json[0]["peers"].as_array().unwrap().iter().find(|p| p["public_key"] == KEYS[0].1).unwrap();
        assert_eq!(kept["latest_handshake"], before, "its session goes on");
        // One claims what is another's: the file is refused, everything stays.
        std::fs::write(&file, with.replace("10.99.0.0/16", "192.0.2.0/25")).unwrap();
        let refused = bed.duet("r2").ask(&["reload"], b"").unwrap();
        assert!(refused.code == 2 && format!("{refused:?}").contains("both have 192.0.2.0/25"), "{refused:?}");
        pairs(&bed)[1].reachable().unwrap();
        // Gone.
        std::fs::write(&file, &text).unwrap();
        bed.duet("r2").duet("reload").unwrap();
        let json = bed.duet("r2").json("-j tunnel show wg0").unwrap();
        assert_eq!(json[0]["peers"].as_array().map(Vec::len), Some(1), "{json}");
        pairs(&bed)[0].reachable().unwrap();
        bed.finish().unwrap();
    }
}

/// wireguard-go in a host, with addresses on its device.
struct Go {
    _process: Process,
    device: String,
}

impl Go {
    /// None where it, or the tools, are not installed; said on standard error.
    fn start(bed: &Bed, host: &Host, key: usize, peer: &[&str], addrs: &[&str]) -> Option<Go> {
        let missing: Vec<_> = ["wireguard-go", "wg", "ip"]
            .into_iter()
            .filter(|p| {
                !["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|d| std::path::Path::new(d).join(p).exists())
            })
            .collect();
        if !missing.is_empty() {
            eprintln!("SKIPPED: {} not installed (Debian: wireguard-go, wireguard-tools)", missing.join(", "));
            return None;
        }
        // Its control socket lies where other namespaces see it, too.
        let device = format!("wg{}", std::process::id());
        let mut command = Command::new("wireguard-go");
        command
            .args(["-f", &device])
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1")
            .env("LOG_LEVEL", "error");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = host.spawn(command).unwrap();
        let file = secret(bed, "go.key", KEYS[key].0);
        let set: Vec<&str> = ["set", &device, "private-key", &file, "listen-port", "51820"]
            .into_iter()
            .chain(peer.iter().copied())
            .collect();
        eventually("wireguard-go is ready", || tools::run(host, "wg", &set).filter(|(ok, _)| *ok).map(|_| ()));
        for addr in addrs {
            assert!(tools::run(host, "ip", &["addr", "add", addr, "dev", &device]).unwrap().0);
        }
        assert!(tools::run(host, "ip", &["link", "set", &device, "mtu", "1420", "up"]).unwrap().0);
        Some(Go { _process: process, device })
    }
}

sandbox_test! {
    fn wireguard_go_is_the_other_end() {
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"]).unwrap();
        for (host, dev, addr) in [("r1", "right", "198.51.100.1/24"), ("r2", "eth0", "198.51.100.2/24")] {
            bed.net.addr(host, dev, addr).unwrap();
        }
        bed.ready().unwrap();
        let shared = secret(&bed, "psk", PSK);
        let allowed = "192.0.2.0/25,2001:db8:a::/64,10.7.0.1/32";
        let set = ["peer", KEYS[0].1, "preshared-key", &shared, "allowed-ips", allowed];
        let Some(go) = Go::start(&bed, bed.host("r2"), 1, &set, &["192.0.2.129/25", "2001:db8:b::1/64"]) else { return };
        for net in ["192.0.2.0/25", "2001:db8:a::/64"] {
            assert!(tools::run(bed.host("r2"), "ip", &["route", "add", net, "dev", &go.device]).unwrap().0);
        }
        let b = peer(1, B, &format!("endpoint = \"198.51.100.2:51820\"\npreshared_key_file = \"{shared}\""));
        let r1 = router(&bed, "r1", 0, [SITES[0].0, SITES[0].1], &b)
            .route("192.0.2.128/25 dev wg0")
            .route("2001:db8:b::/64 dev wg0");
        bed.router(Duet, &r1).unwrap();
        let (a, b) = (&*bed.host("a").clone(), &*bed.host("r2").clone());
        for (x, y) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            let pair = Pair::new(a, b, x, y);
            pair.reachable().unwrap();
            pair.learns_mtu(1420).unwrap();
            pair.every_size_after_learning(1420).unwrap();
            pair.udp().unwrap();
            pair.tcp().unwrap();
        }
        // Both ends say the same of their session.
        let (_, text) = tools::run(b, "wg", &["show", &go.device, "latest-handshakes"]).unwrap();
        let theirs: u64 = text.split_whitespace().last().unwrap().parse().unwrap();
        let ours = first_peer(&bed, "r1")["latest_handshake"].as_u64().unwrap();
        assert!(ours.abs_diff(theirs) <= 2, "{ours} {theirs}");
        // It speaks first, after we have forgotten everything: our endpoint is written there by roaming.
        let toml = std::fs::read_to_string(bed.duet("r1").config()).unwrap();
        let silent = toml.replace("endpoint = \"198.51.100.2:51820\"\n", "");
        bed.take("r1").stop().unwrap();
        bed.restart("r1", &silent).unwrap();
        assert!(tools::run(b, "wg", &["set", &go.device, "peer", KEYS[0].1, "endpoint", "198.51.100.1:51820"]).unwrap().0);
        // Its old session is of no use; it finds out, and makes another.
        Pair::new(b, a, "192.0.2.129", "192.0.2.1").wait_reachable(Duration::from_secs(40)).unwrap();
        assert_eq!(first_peer(&bed, "r1")["endpoint"], "198.51.100.2:51820");
        bed.finish().unwrap();
    }
}
