//! Tunnels of every mode under packets of their peers and of others: decapsulation by addresses, ports and keys, keepalives of
//! both kinds, ports that are learned, paths that change, the search for the path MTU, errors about what they sent; and their
//! settings changed meanwhile.

use super::Input;
use super::stage::{Stage, answer_in_tunnel, error_about, framed, packet};
use router_core::headers::protocol;
use router_core::port::{Medium, PortKind};
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec, TunnelMode, TunnelOptions, TunnelSpec};
use router_core::tunnel::spec::{AutoOptions, GreOptions, Keepalive, SixRdOptions, UdpKind, UdpOptions};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const LOCAL4: &str = "192.0.2.1";
const LOCAL6: &str = "2001:db8::1";

/// Every mode, and every option that something arriving may meet. Inner addresses of number n: 10.9.n.1/30, 2001:db8:f0:n::1/64.
fn specs() -> Vec<TunnelSpec> {
    use TunnelMode::*;
    let keepalive = |n: u8| Keepalive { interval: 200, ..Keepalive::new([10, 9, n, 2].into()) };
    let keepalive6 = |n: u8| Keepalive { interval: 200, ..Keepalive::new(ip(&format!("2001:db8:f0:{n}::2"))) };
    let udp = |kind, dport| UdpOptions::new(kind, dport);
    let plain = TunnelOptions::default;
    let gre = |key| GreOptions { ikey: key, okey: key, ..GreOptions::default() };
    let list: Vec<(TunnelMode, &str, TunnelOptions)> = vec![
        (SixInFour, "198.51.100.10", {
            let search = Keepalive { probe_mtu: true, ..keepalive6(0) };
            TunnelOptions { keepalive: Some(search), ..plain() }
        }),
        (Gre, "198.51.100.11", {
            let gre = GreOptions { icsum: true, ocsum: true, iseq: true, oseq: true, ..gre(Some(1)) };
            TunnelOptions { gre, ..plain() }
        }),
        (Gre, "198.51.100.11", TunnelOptions { gre: gre(Some(2)), keepalive: Some(keepalive(2)), ..plain() }),
        (Gre, "198.51.100.11", {
            let keepalive = Some(Keepalive { gre: true, ..keepalive(3) });
            TunnelOptions { gre: GreOptions { answer: true, ..gre(None) }, keepalive, ..plain() }
        }),
        (GreSix, "2001:db8:5::14", TunnelOptions { gre: gre(Some(5)), ..plain() }),
        (GreSix, "2001:db8:5::14", TunnelOptions { gre: GreOptions { answer: true, ..gre(None) }, ..plain() }),
        (FourInSix, "2001:db8:5::16", TunnelOptions { keepalive: Some(keepalive(6)), ..plain() }),
        (SixInSix, "2001:db8:5::16", TunnelOptions { encaplimit: Some(4), ..plain() }),
        (AnyInSix, "2001:db8:5::18", TunnelOptions { encaplimit: Some(0), ..plain() }),
        (SixInFour, "198.51.100.19", {
            let udp = UdpOptions { learn: true, ..udp(UdpKind::Fou, 6090) };
            TunnelOptions { udp: Some(udp), keepalive: Some(keepalive6(9)), ..plain() }
        }),
        (SixInFour, "198.51.100.19", {
            let udp = UdpOptions { rport: 7010, port: 6090, ..udp(UdpKind::Fou, 7010) };
            TunnelOptions { udp: Some(udp), ..plain() }
        }),
        (AnyInFour, "198.51.100.21", TunnelOptions { udp: Some(udp(UdpKind::Gue, 6091)), rate: Some(100), ..plain() }),
        (AnyInSix, "2001:db8:5::22", TunnelOptions { udp: Some(udp(UdpKind::Gue, 6092)), ..plain() }),
        (SixInFour, "198.51.100.23", {
            let keepalive = Some(Keepalive { retries: 2, hold: 2, ..keepalive6(13) });
            TunnelOptions {
                udp: Some(udp(UdpKind::Fou, 6093)),
                auto: Some(AutoOptions { retry: 2 }),
                keepalive,
                ..plain()
            }
        }),
        (FourInFour, "198.51.100.24", {
            let allowed = vec!["10.9.14.0/24".parse().expect("a prefix")];
            TunnelOptions { allowed, rate: Some(5), ..plain() }
        }),
        (SixRd, "0.0.0.0", {
            let (prefix, relay_prefix) = ("2001:db9::/32".parse(), "192.0.0.0/8".parse());
            let br = Some([198, 51, 100, 99].into());
            let (prefix, relay_prefix) = (prefix.expect("a prefix"), relay_prefix.expect("a prefix"));
            TunnelOptions { sixrd: Some(SixRdOptions { prefix, relay_prefix, br }), ..plain() }
        }),
    ];
    let spec = |(n, (mode, remote, options)): (usize, (TunnelMode, &str, TunnelOptions))| {
        let local = if remote.contains(':') { LOCAL6 } else { LOCAL4 };
        TunnelSpec { options, ..TunnelSpec::new(&format!("t{n}"), mode, ip(local), ip(remote)) }
    };
    list.into_iter().enumerate().map(spec).collect()
}

fn inner_addrs(mode: TunnelMode, n: usize) -> Vec<String> {
    use TunnelMode::*;
    let (four, six) = (format!("10.9.{n}.1/30"), format!("2001:db8:f0:{n}::1/64"));
    match mode {
        FourInSix | FourInFour => vec![four],
        SixInFour | SixInSix | SixRd | SixToFour => vec![six],
        AnyInFour | AnyInSix | Gre | GreSix => vec![four, six],
    }
}

fn stage(specs: &[TunnelSpec]) -> Stage {
    let mut s = Stage::new(Settings::default());
    let now = s.now;
    let addrs = ["192.0.2.1/24", "2001:db8::1/64"];
    let lan = ["10.0.0.1/24", "2001:db8:fe::1/64"];
    for (name, addrs) in [("eth", addrs), ("lan", lan)] {
        let info = super::forward::port(name, PortKind::Packet, Medium::Ethernet, None, 1500, &addrs);
        s.router.add_port(now, info).expect("a port");
    }
    for (dev, addr) in [("eth", "192.0.2.77"), ("eth", "2001:db8::77"), ("lan", "10.0.0.2"), ("lan", "2001:db8:fe::2")]
    {
        s.neighbor(dev, ip(addr));
    }
    for (dst, via) in [("198.51.100.0/24", "192.0.2.77"), ("2001:db8:5::/48", "2001:db8::77")] {
        let mut route = RouteSpec::new(dst.parse().expect("a prefix"));
        route.hops.push(HopSpec { via: Some(ip(via)), ..HopSpec::default() });
        s.router.routing_mut().route(RouteOp::Add, &route).expect("a route");
    }
    for (n, spec) in specs.iter().enumerate() {
        let addrs = inner_addrs(spec.mode, n).iter().map(|a| a.parse().expect("an address")).collect();
        s.router.add_tunnel(now, spec.clone(), addrs).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
    }
    s.settle();
    // Addresses are confirmed, announcements are over.
    s.pass(1500);
    s.pass(1500);
    s
}

/// What lies between the outer header and the inner one, as the peer of this tunnel would write it, and the outer protocol.
fn between(spec: &TunnelSpec, choice: u8, inner: &[u8]) -> (u8, Vec<u8>) {
    let six = inner.first().is_some_and(|b| b >> 4 == 6);
    let carried = if six { protocol::IPV6 } else { protocol::IPV4 };
    let udp = spec.options.udp.filter(|_| spec.options.auto.is_none() || choice & 1 == 1);
    let gre = matches!(spec.mode, TunnelMode::Gre | TunnelMode::GreSix);
    let mut head = Vec::new();
    if gre {
        let o = spec.options.gre;
        // Mostly as agreed; else with what is not.
        let (csum, seq) = (o.icsum ^ (choice & 2 == 2), o.iseq ^ (choice & 4 == 4));
        let key = if choice & 8 == 8 { Some(u32::from(choice)) } else { o.ikey };
        let flags = u8::from(csum) << 7 | u8::from(key.is_some()) << 5 | u8::from(seq) << 4;
        let kind: [u8; 2] = if six { [0x86, 0xdd] } else { [8, 0] };
        head.extend([flags, 0, kind[0], kind[1]]);
        head.extend(if csum { vec![0; 4] } else { Vec::new() });
        head.extend(key.map(u32::to_be_bytes).into_iter().flatten());
        head.extend(if seq { vec![0, 0, 1, choice] } else { Vec::new() });
        head.extend(inner);
        if csum {
            let sum = crate::sim::packets::sum16(&[&head]);
            head[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        return (protocol::GRE, head);
    }
    let Some(udp) = udp else { return (carried, inner.to_vec()) };
    let from = if choice & 2 == 2 { 7000 + u16::from(choice >> 4) } else { udp.dport };
    let gue = udp.kind == UdpKind::Gue;
    let len = 8 + inner.len() + if gue { 4 } else { 0 };
    for word in [from, udp.listens(), len as u16, 0] {
        head.extend(word.to_be_bytes());
    }
    if gue {
        // Now and then with private flags or as a control message.
        head.extend([if choice & 4 == 4 { choice >> 3 } else { 0 }, carried, 0, 0]);
    }
    head.extend(inner);
    (protocol::UDP, head)
}

/// An inner packet to or from a tunnel's far side, around bytes of the input.
fn inner(input: &mut Input<'_>, n: usize, out: bool) -> Vec<u8> {
    let (shape, proto) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
    let len = usize::from(input.byte().unwrap_or(0));
    let payload = input.piece(if shape & 0x40 != 0 { len * 8 } else { len });
    if shape & 0x80 != 0 {
        return payload.to_vec();
    }
    let (far, near) = match shape & 1 {
        0 => (IpAddr::from([10, 9, n as u8, 2]), ip("10.0.0.2")),
        _ => (ip(&format!("2001:db8:f0:{n}::2")), ip("2001:db8:fe::2")),
    };
    let own: IpAddr = if shape & 1 == 0 { [10, 9, n as u8, 1].into() } else { ip(&format!("2001:db8:f0:{n}::1")) };
    let near = if shape & 2 == 2 { own } else { near };
    let (src, dst) = if out { (near, far) } else { (far, near) };
    packet(src, dst, proto, [64, 64, 1, 255][usize::from(shape >> 2 & 3)], payload)
}

fn change(s: &mut Stage, specs: &[TunnelSpec], which: u8, what: u8) {
    let mut spec = specs[usize::from(which) % specs.len()].clone();
    let o = &mut spec.options;
    match what & 7 {
        0 => o.gre.ikey = Some(u32::from(what >> 3)),
        1 => (o.encaplimit, spec.ttl_inherit) = (Some(what >> 3), true),
        2 => spec.mtu = Some(1280 + u32::from(what)),
        3 => o.rate = Some(u32::from(what)),
        4 => o.keepalive = None,
        5 => spec.nopmtudisc = true,
        6 => {
            let now = s.now;
            let _ = s.router.del_tunnel(now, &spec.name, &mut s.out);
            s.settle();
            let n = usize::from(which) % specs.len();
            let addrs = inner_addrs(spec.mode, n).iter().map(|a| a.parse().expect("an address")).collect();
            let _ = s.router.add_tunnel(now, spec, addrs);
            return s.settle();
        }
        _ => {}
    }
    let _ = s.router.change_tunnel(s.now, spec);
    s.settle();
}

/// See the module.
pub(super) fn tunnels(data: &[u8]) {
    let mut input = Input(data);
    let specs = specs();
    let mut s = stage(&specs);
    let (eth, lan) = (s.port("eth"), s.port("lan"));
    while let Some(head) = input.byte() {
        match head & 7 {
            0 => s.pass(u64::from(head >> 3) * 50),
            1 => {
                let len = usize::from(input.word().unwrap_or(0)) & 0x7ff;
                s.receive(eth, &[input.piece(len).to_vec()]);
            }
            // From peers, several at once.
            2 | 3 => {
                let mut frames = Vec::new();
                for _ in 0..=(head >> 6) {
                    let (Some(n), Some(choice)) = (input.byte(), input.byte()) else { break };
                    let at = usize::from(n) % specs.len();
                    let spec = &specs[at];
                    let (proto, payload) = between(spec, choice, &inner(&mut input, at, false));
                    let remote = if spec.remote.is_unspecified() { ip("192.1.2.3") } else { spec.remote };
                    let mut p = packet(remote, spec.local, proto, 60, &payload);
                    if let (4, Some(last)) = (head & 4, p.last_mut()) {
                        *last ^= choice;
                    }
                    // Congestion seen on the way (RFC 6040).
                    if head & 8 == 8 {
                        p[1] |= if p[0] >> 4 == 4 { 3 } else { 0x30 };
                        if p[0] >> 4 == 4 {
                            router_core::checksum::fill_ipv4_header(&mut p);
                        }
                    }
                    frames.push(framed(&p));
                }
                s.receive(eth, &frames);
            }
            // Into tunnels.
            4 => {
                let mut frames = Vec::new();
                for _ in 0..=(head >> 6) {
                    let Some(n) = input.byte() else { break };
                    frames.push(framed(&inner(&mut input, usize::from(n) % specs.len(), true)));
                }
                s.receive(lan, &frames);
            }
            // The peer answers what it was asked.
            5 => {
                let at = usize::from(head >> 3) % s.sent.len().max(1);
                let answers: Vec<_> = s.sent.iter().skip(at).filter_map(|p| answer_in_tunnel(p)).collect();
                s.receive(eth, &answers.iter().map(|p| framed(p)).collect::<Vec<_>>());
            }
            6 => {
                let (what, word) = (input.byte().unwrap_or(0), input.word().unwrap_or(0));
                let quoted = 28 + usize::from(head >> 6) * 50;
                let at = usize::from(head >> 3 & 7) % s.sent.len().max(1);
                let error = s.sent.get(at).and_then(|p| error_about(p, what, word, quoted));
                s.receive(eth, &error.iter().map(|p| framed(p)).collect::<Vec<_>>());
            }
            _ => {
                let what = input.byte().unwrap_or(0);
                change(&mut s, &specs, head >> 3, what);
            }
        }
        for t in s.router.tunnels(s.now) {
            let least = t.spec.mode.shape().least_mtu();
            assert!((least..=65_535).contains(&t.mtu), "{}: inner MTU {}", t.spec.name, t.mtu);
        }
    }
    s.finish();
}
