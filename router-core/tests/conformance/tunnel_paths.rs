//! `encap auto`, and peers whose UDP port is learned: two and three routers with a network between them that eats the bare
//! protocol or translates addresses.

use crate::rig::{GATEWAY, LAN, OWN, Rig, WAN, frame_of, ip, packet};
use crate::tunnel_udp::{behind, dropped};
use router_core::checksum::fill_ipv4_header;
use router_core::router::PathCause;
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelSpec};
use router_core::time::Duration;
use router_core::tunnel::Path;
use router_core::tunnel::spec::{AutoOptions, Keepalive, UdpKind, UdpOptions};
use std::net::Ipv4Addr;

const SERVER: &str = "198.51.100.1";
const CLIENT: &str = "198.51.100.9";
const NAT: &str = "198.51.100.77";
const TICK: Duration = Duration::from_millis(100);

/// A router on the network in the middle, with these tunnels.
fn router(own: &str, lan: &str, tunnels: Vec<(TunnelSpec, &str, &str)>) -> Rig {
    let wan = format!("{own}/24");
    let mut rig = Rig::with_addrs(Settings::default(), &[lan, "fe80::1/64"], &[&wan, "fe80::1/64"]);
    for a in [SERVER, CLIENT, "198.51.100.10", NAT] {
        if a != own {
            rig.neighbor(WAN, a, GATEWAY);
        }
    }
    rig.neighbor(LAN, &lan.replace("::1/64", "::2"), crate::rig::HOST);
    for (spec, addr, site) in tunnels {
        let name = spec.name.clone();
        let addr = addr.parse().expect("address");
        rig.with(|r, now, _| r.add_tunnel(now, spec, vec![addr])).expect("tunnel");
        behind(&mut rig, site, &name);
    }
    rig
}

fn tunnel(name: &str, ends: [&str; 2], udp: UdpOptions, auto: bool, target: &str) -> TunnelSpec {
    let mut spec = TunnelSpec::new(name, TunnelMode::SixInFour, ip(ends[0]), ip(ends[1]));
    spec.options.udp = Some(udp);
    spec.options.auto = auto.then_some(AutoOptions { retry: 5 });
    spec.options.keepalive = Some(Keepalive { interval: 500, hold: 2, ..Keepalive::new(ip(target)) });
    spec
}

/// What the network does with a packet; `true`: from the first router to the others.
type Net<'n> = dyn FnMut(usize, Vec<u8>) -> Option<(usize, Vec<u8>)> + 'n;

/// Lets time pass for all routers, whose packets go through the network. The packets that came out on the inside.
fn run(rigs: &mut [Rig], time: Duration, net: &mut Net<'_>) -> Vec<(usize, Vec<u8>)> {
    let mut inside = Vec::new();
    for _ in 0..time.as_millis() / TICK.as_millis() {
        let mut flying: Vec<(usize, Vec<u8>)> = Vec::new();
        for (i, rig) in rigs.iter_mut().enumerate() {
            let sent = rig.pass(TICK);
            flying.extend(sent.into_iter().filter(|(p, _)| *p == WAN).map(|(_, f)| (i, f[14..].to_vec())));
        }
        settle(rigs, flying, net, &mut inside);
    }
    inside
}

fn settle(rigs: &mut [Rig], mut flying: Vec<(usize, Vec<u8>)>, net: &mut Net<'_>, inside: &mut Vec<(usize, Vec<u8>)>) {
    let mut rounds = 0;
    while !flying.is_empty() {
        rounds += 1;
        assert!(rounds < 50, "they never end: {flying:02x?}");
        for (from, p) in std::mem::take(&mut flying) {
            // Only tunnels' packets; neighbour discovery and so on stay on the link.
            let Some((to, p)) = (p[0] >> 4 == 4).then_some(p).and_then(|p| net(from, p)) else { continue };
            for (port, f) in rigs[to].frame(WAN, &frame_of(GATEWAY, OWN[2], &p)) {
                match port {
                    WAN => flying.push((to, f[14..].to_vec())),
                    _ => inside.push((to, f[14..].to_vec())),
                }
            }
        }
    }
}

/// Sends a packet from behind one router to behind another; whether it arrives.
fn crosses(rigs: &mut [Rig], from: usize, p: &[u8], net: &mut Net<'_>) -> bool {
    let sent = rigs[from].send(p);
    let flying = sent.into_iter().filter(|(port, _)| *port == WAN).map(|(_, p)| (from, p)).collect();
    let mut inside = Vec::new();
    settle(rigs, flying, net, &mut inside);
    inside.iter().any(|(_, got)| got.len() == p.len() && got[40..] == p[40..])
}

fn state(rig: &Rig, name: &str) -> (Option<Path>, PathCause, u32, bool) {
    let t = rig.router.tunnel_named(rig.now, name).expect("tunnel");
    let (p, life) = (t.path.expect("paths"), t.life.expect("keepalive"));
    (p.path, p.cause, life.deaths, life.alive)
}

fn proto(p: &[u8]) -> u8 {
    p[9]
}

fn pair() -> Vec<Rig> {
    let udp = UdpOptions::new(UdpKind::Fou, 6080);
    let server = tunnel("t", [SERVER, CLIENT], udp, true, "2001:db8:f::2");
    let client = tunnel("t", [CLIENT, SERVER], udp, true, "2001:db8:f::1");
    vec![
        router(SERVER, "2001:db8:a::1/64", vec![(server, "2001:db8:f::1/64", "2001:db8:b::/48")]),
        router(CLIENT, "2001:db8:b::1/64", vec![(client, "2001:db8:f::2/64", "2001:db8:a::/48")]),
    ]
}

fn there() -> Vec<u8> {
    packet("2001:db8:a::2", "2001:db8:b::2", 17, 64, &[7; 900])
}

fn back() -> Vec<u8> {
    packet("2001:db8:b::2", "2001:db8:a::2", 17, 64, &[9; 900])
}

/// The bare protocol while it passes; UDP soon after it does not, without the tunnel dying; and back again, with a
/// hold-down that grows.
#[test]
fn the_bare_protocol_first_and_udp_where_it_is_eaten() {
    let mut rigs = pair();
    for eaten_both_ways in [true, false] {
        let mut open = |from: usize, p: Vec<u8>| Some((1 - from, p));
        run(&mut rigs, Duration::from_secs(60), &mut open);
        for rig in &rigs {
            assert_eq!(state(rig, "t").0, Some(Path::Bare), "{:?}", rig.router.tunnel_named(rig.now, "t"));
        }
        assert!(crosses(&mut rigs, 0, &there(), &mut open) && crosses(&mut rigs, 1, &back(), &mut open));
        // One direction is enough to make both leave it.
        let mut eats =
            move |from: usize, p: Vec<u8>| (proto(&p) != 41 || !eaten_both_ways && from == 0).then_some((1 - from, p));
        run(&mut rigs, Duration::from_secs(4), &mut eats);
        for rig in &rigs {
            let (path, cause, deaths, alive) = state(rig, "t");
            assert!(matches!(path, Some(Path::Udp(6080))) && cause != PathCause::Start, "{path:?} {cause:?}");
            assert_eq!((deaths, alive), (0, true), "one way gives way to the other");
            let mtu = rig.router.tunnel_named(rig.now, "t").map(|t| t.mtu);
            assert_eq!(mtu, Some(1400 - 28), "what is added counts");
        }
        assert!(crosses(&mut rigs, 0, &there(), &mut eats) && crosses(&mut rigs, 1, &back(), &mut eats));
        // It is tried again now and then, ever more rarely, and never used before it passes.
        let mut tries = 0;
        let mut count = |from: usize, p: Vec<u8>| {
            tries += usize::from(from == 0 && proto(&p) == 41);
            eats(from, p)
        };
        run(&mut rigs, Duration::from_secs(120), &mut count);
        assert!((2..=12).contains(&tries), "{tries} tries in two minutes");
        assert!(matches!(state(&rigs[0], "t").0, Some(Path::Udp(_))));
    }
}

/// Nothing passes: dead like any other. When UDP does, alive by it.
#[test]
fn dead_when_nothing_passes() {
    let mut rigs = pair();
    run(&mut rigs, Duration::from_secs(10), &mut |_, _| None);
    assert_eq!(state(&rigs[0], "t"), (Some(Path::Bare), PathCause::Start, 1, false));
    run(&mut rigs, Duration::from_secs(6), &mut |from, p| (proto(&p) == 17).then_some((1 - from, p)));
    for rig in &rigs {
        let (path, _, _, alive) = state(rig, "t");
        assert_eq!((path, alive), (Some(Path::Udp(6080)), true), "{:?}", rig.router.tunnel_named(rig.now, "t"));
    }
}

/// A NAT in front of the clients: address and port of UDP, nothing else passes.
fn nat(ports: [u16; 3]) -> impl FnMut(usize, Vec<u8>) -> Option<(usize, Vec<u8>)> {
    move |from, mut p| {
        if proto(&p) != 17 {
            return None;
        }
        let nat: Ipv4Addr = NAT.parse().expect("address");
        let to = match from {
            0 => {
                let dport = u16::from_be_bytes([p[22], p[23]]);
                let to = (1..3).find(|i| ports[*i] == dport)?;
                let own: Ipv4Addr = [CLIENT, "198.51.100.10"][to - 1].parse().expect("address");
                p[16..20].copy_from_slice(&own.octets());
                p[22..24].copy_from_slice(&6080u16.to_be_bytes());
                to
            }
            _ => {
                p[12..16].copy_from_slice(&nat.octets());
                p[20..22].copy_from_slice(&ports[from].to_be_bytes());
                0
            }
        };
        p[26..28].fill(0);
        fill_ipv4_header(&mut p);
        Some((to, p))
    }
}

/// A server and two clients behind one NAT, all to one port of the server's. `auto` or UDP only.
fn behind_a_nat(auto: bool) -> Vec<Rig> {
    let learn = UdpOptions { learn: true, port: 6080, ..UdpOptions::new(UdpKind::Fou, 0) };
    let mut one = tunnel("t1", [SERVER, NAT], learn, false, "2001:db8:f1::2");
    let mut two = tunnel("t2", [SERVER, NAT], learn, false, "2001:db8:f2::2");
    for (t, n) in [(&mut one, 1), (&mut two, 2)] {
        t.options.allowed =
            [format!("2001:db8:f{n}::/64"), format!("2001:db8:{n}::/48")].map(|n| n.parse().expect("prefix")).into();
    }
    // Of the two only one can have the bare protocol: it has no ports.
    one.options.auto = auto.then_some(AutoOptions { retry: 5 });
    let fixed = UdpOptions { sport: 6080, ..UdpOptions::new(UdpKind::Fou, 6080) };
    let client = |own, n: u8| {
        let target = format!("2001:db8:f{n}::1");
        let spec = tunnel("t", [own, SERVER], fixed, auto && n == 1, &target);
        let addr = format!("2001:db8:f{n}::2/64");
        router(own, &format!("2001:db8:{n}::1/64"), vec![(spec, &addr, "2001:db8:a::/48")])
    };
    let server = vec![(one, "2001:db8:f1::1/64", "2001:db8:1::/48"), (two, "2001:db8:f2::1/64", "2001:db8:2::/48")];
    vec![router(SERVER, "2001:db8:a::1/64", server), client(CLIENT, 1), client("198.51.100.10", 2)]
}

fn to_client(n: u8) -> Vec<u8> {
    packet("2001:db8:a::2", &format!("2001:db8:{n}::2"), 17, 64, &[n; 700])
}

fn from_client(n: u8) -> Vec<u8> {
    packet(&format!("2001:db8:{n}::2"), "2001:db8:a::2", 17, 64, &[n + 8; 700])
}

/// Both clients work at once; their ports are learned, and learned anew when the NAT forgets them.
#[test]
fn two_clients_behind_one_nat() {
    for auto in [false, true] {
        let mut rigs = behind_a_nat(auto);
        for ports in [[0, 40_001, 40_002], [0, 40_011, 40_002], [0, 40_002, 40_011]] {
            let mut net = nat(ports);
            run(&mut rigs, Duration::from_secs(8), &mut net);
            for n in [1, 2] {
                let (path, ..) = state(&rigs[0], &format!("t{n}"));
                assert_eq!(path, Some(Path::Udp(ports[usize::from(n)])), "auto {auto}, client {n}, ports {ports:?}");
                assert!(crosses(&mut rigs, usize::from(n), &from_client(n), &mut net), "auto {auto} from {n}");
                assert!(crosses(&mut rigs, 0, &to_client(n), &mut net), "auto {auto} to {n}");
            }
        }
    }
}

/// Somebody else behind the same NAT: what comes from a port that is nobody's is not let in, and does not take the tunnel
/// away from the peer, not even if he can read and answer questions.
#[test]
fn a_stranger_behind_the_same_nat() {
    let ports = [0, 40_001, 40_002];
    let mut rigs = behind_a_nat(false);
    run(&mut rigs, Duration::from_secs(8), &mut nat(ports));
    let before = dropped(&rigs[0], "tunnel_unknown_peer");
    let forged = crate::tunnel_udp::datagram((NAT, 50_000), 6080, &from_client(1));
    let mut asked = Vec::new();
    for _ in 0..100 {
        let sent = rigs[0].frame(WAN, &frame_of(GATEWAY, OWN[2], &forged));
        assert!(sent.iter().all(|(port, _)| *port == WAN), "nothing comes out inside");
        asked.extend(sent.into_iter().map(|(_, f)| f[14..].to_vec()));
    }
    assert_eq!(dropped(&rigs[0], "tunnel_unknown_peer"), before + 100);
    assert_eq!(asked.len(), 1, "one question, however many packets");
    // He answers it: addresses and ports exchanged, the echo request made a reply.
    let q = &asked[0];
    let mut inner = q[28..].to_vec();
    let (src, dst) = (inner[8..24].to_vec(), inner[24..40].to_vec());
    inner[8..24].copy_from_slice(&dst);
    inner[24..40].copy_from_slice(&src);
    inner[40] = 129;
    let sum = u16::from_be_bytes([inner[42], inner[43]]);
    inner[42..44].copy_from_slice(&router_core::checksum::update_u16(sum, 0x8000, 0x8100).to_be_bytes());
    let answer = crate::tunnel_udp::datagram((NAT, 50_000), 6080, &inner);
    // The peer, asked whether it is still there, says so: the stranger gets nothing.
    let asks = rigs[0].frame(WAN, &frame_of(GATEWAY, OWN[2], &answer));
    let flying = asks.into_iter().map(|(_, f)| (0, f[14..].to_vec())).collect();
    settle(&mut rigs, flying, &mut nat(ports), &mut Vec::new());
    run(&mut rigs, Duration::from_secs(5), &mut nat(ports));
    assert_eq!(state(&rigs[0], "t1").0, Some(Path::Udp(40_001)));
    assert!(crosses(&mut rigs, 1, &from_client(1), &mut nat(ports)));
    // Answers to questions that were never asked.
    inner[55] ^= 1;
    let guess = crate::tunnel_udp::datagram((NAT, 50_001), 6080, &inner);
    rigs[0].frame(WAN, &frame_of(GATEWAY, OWN[2], &guess));
    run(&mut rigs, Duration::from_secs(5), &mut nat(ports));
    assert_eq!(state(&rigs[0], "t1").0, Some(Path::Udp(40_001)));
}

#[test]
fn what_cannot_be_is_refused() {
    let auto = |change: &dyn Fn(&mut TunnelSpec)| {
        let mut spec = tunnel("t", [SERVER, CLIENT], UdpOptions::new(UdpKind::Fou, 6080), true, "2001:db8:f::1");
        change(&mut spec);
        router_core::router::check_tunnel_spec(&spec).err().map(|e| e.to_string())
    };
    assert_eq!(auto(&|_| ()), None);
    assert!(auto(&|s| s.options.keepalive = None).is_some_and(|e| e.contains("keepalive")));
    assert!(auto(&|s| s.options.udp = None).is_some_and(|e| e.contains("UDP ports")));
    assert!(auto(&|s| s.options.udp = Some(UdpOptions::new(UdpKind::Fou, 0))).is_some());
    assert!(auto(&|s| s.options.auto = Some(AutoOptions { retry: 0 })).is_some());
}
