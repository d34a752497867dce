//! Translators between the families, all three modes on one router: packets from both sides, errors about what they sent, time.

use super::Input;
use super::stage::{Stage, error_about, framed, packet};
use router_core::port::{Medium, PortKind};
use router_core::settings::Settings;
use router_core::spec::{HopSpec, RouteOp, RouteSpec};
use router_core::translate::{TranslateMode, TranslatorSpec};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Sources and destinations whose packets are translated: to and from each translator, both families; and some that are not.
const PAIRS: &[(&str, &str)] = &[
    ("2001:db8:fe::2", "2001:db8:64::198.51.100.9"),
    ("198.51.100.9", "203.0.113.1"),
    ("2001:db8:5::c633:6409", "2001:db8:46::192.0.2.33"),
    ("192.0.2.33", "198.51.100.9"),
    ("10.0.0.2", "198.51.100.9"),
    ("2001:db8:99::198.51.100.9", "2001:db8:aa::10.0.0.2"),
    ("2001:db8:fe::2", "2001:db8:64::127.0.0.1"),
    ("198.51.100.10", "203.0.113.2"),
];

fn stage() -> Stage {
    let mut s = Stage::new(Settings::default());
    let now = s.now;
    let wan = ["192.0.2.1/24", "2001:db8::1/64"];
    let lan = ["10.0.0.1/24", "2001:db8:fe::1/64"];
    for (name, addrs) in [("eth", wan), ("lan", lan)] {
        let info = super::forward::port(name, PortKind::Packet, Medium::Ethernet, None, 1500, &addrs);
        s.router.add_port(now, info).expect("a port");
    }
    for (dev, addr) in [
        ("eth", "192.0.2.77"),
        ("eth", "192.0.2.33"),
        ("eth", "2001:db8::77"),
        ("lan", "10.0.0.2"),
        ("lan", "2001:db8:fe::2"),
    ] {
        s.neighbor(dev, ip(addr));
    }
    let spec = |name: &str, mode, prefix: &str| TranslatorSpec {
        prefix: Some(prefix.parse().expect("a prefix")),
        ..TranslatorSpec::new(name, mode)
    };
    let mut nat64 = spec("nat64", TranslateMode::Nat64, "2001:db8:64::/96");
    nat64.pool = vec!["203.0.113.1-203.0.113.2".parse().expect("a pool")];
    (nat64.max_sessions, nat64.max_sessions_per_host) = (64, 16);
    let siit = TranslatorSpec { allow_non_global: true, ..spec("siit", TranslateMode::Siit, "2001:db8:46::/96") };
    let mut clat = spec("clat", TranslateMode::Clat, "2001:db8:99::/96");
    clat.map = vec!["10.0.0.0/24 = 2001:db8:aa::a00:0/120".parse().expect("a map")];
    for spec in [nat64, siit, clat] {
        let name = spec.name.clone();
        s.router.add_translator(now, spec).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (dst, via, dev) in [
        ("198.51.100.0/24", Some("192.0.2.77"), None),
        ("2001:db8:5::/48", Some("2001:db8::77"), None),
        ("2001:db8:64::/96", None, Some("nat64")),
        ("203.0.113.0/30", None, Some("nat64")),
        ("2001:db8:46::/96", None, Some("siit")),
        ("198.51.100.9/32", None, Some("clat")),
        ("2001:db8:aa::/64", None, Some("clat")),
        ("2001:db8:99::/96", Some("2001:db8::77"), None),
    ] {
        let mut route = RouteSpec::new(dst.parse().expect("a prefix"));
        let dev = dev.map(str::to_owned);
        route.hops.push(HopSpec { via: via.map(ip), dev, ..HopSpec::default() });
        s.router.routing_mut().route(RouteOp::Add, &route).expect("a route");
    }
    s.settle();
    s.pass(1500);
    s.pass(1500);
    s
}

/// See the module.
pub(super) fn translators(data: &[u8]) {
    let mut input = Input(data);
    let mut s = stage();
    let ports = [s.port("eth"), s.port("lan")];
    while let Some(head) = input.byte() {
        let port = ports[usize::from(head >> 3 & 1)];
        match head & 7 {
            0 => s.pass(u64::from(head >> 3) * 400),
            1 => {
                let len = usize::from(input.word().unwrap_or(0)) & 0x7ff;
                s.receive(port, &[input.piece(len).to_vec()]);
            }
            2 => {
                let (what, word) = (input.byte().unwrap_or(0), input.word().unwrap_or(0));
                let at = usize::from(head >> 4 & 7) % s.sent.len().max(1);
                let error = s.sent.get(at).and_then(|p| error_about(p, what, word, 48 + usize::from(head >> 6) * 100));
                s.receive(port, &error.iter().map(|p| framed(p)).collect::<Vec<_>>());
            }
            // The answer of whoever got what was sent: both ends exchanged, the rest from the input.
            3 => {
                let at = usize::from(head >> 4) % s.sent.len().max(1);
                let (proto, len) = (input.byte().unwrap_or(17), usize::from(input.byte().unwrap_or(0)));
                let payload = input.piece(len);
                let Some(sent) = s.sent.get(at).filter(|p| p.len() >= 40) else { continue };
                let (src, dst) = (crate::sim::packets::source(sent), crate::sim::packets::destination(sent));
                let reply = crate::sim::packets::echo_reply(sent);
                let reply = reply.unwrap_or_else(|| packet(dst, src, proto, 60, payload));
                s.receive(port, &[framed(&reply)]);
            }
            _ => {
                let mut frames = Vec::new();
                for _ in 0..=(head >> 6) {
                    let (Some(pair), Some(proto)) = (input.byte(), input.byte()) else { break };
                    let len = usize::from(input.byte().unwrap_or(0));
                    let payload = input.piece(if head & 4 == 4 { len * 6 } else { len });
                    let (src, dst) = PAIRS[usize::from(pair) % PAIRS.len()];
                    let mut p = packet(ip(src), ip(dst), proto, if pair & 0x80 == 0 { 64 } else { 1 }, payload);
                    // Fragments and DF.
                    if pair & 0x40 != 0 && p[0] >> 4 == 4 {
                        p[6] = input.byte().unwrap_or(0) & 0xe0;
                        p[7] = input.byte().unwrap_or(0);
                        router_core::checksum::fill_ipv4_header(&mut p);
                    }
                    frames.push(framed(&p));
                }
                s.receive(port, &frames);
            }
        }
        let sessions: u64 = s.router.translators().filter_map(|t| t.nat64).map(|n| n.sessions).sum();
        assert!(sessions <= 64, "{sessions} sessions");
    }
    s.finish();
}
