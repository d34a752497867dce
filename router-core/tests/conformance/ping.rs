//! Echo requests that the operator has the router send (RFC 1812 4.3.3.6), packet by packet.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, read_icmp, with_options};
use router_core::checksum::verify_ipv4_header;
use router_core::port::PortId;
use router_core::router::{Ping, PingAnswer, PingError, PingReply};
use router_core::settings::{OptionAction, Settings};
use router_core::time::Duration;

fn rig_with(settings: Settings) -> Rig {
    let mut rig = Rig::new(settings);
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    rig.route("2001:db8:9::/48", "2001:db8:1::2", "wan0");
    rig.route("10.0.0.0/8", "192.0.2.3", "lan0");
    rig
}

/// Sends one; its session and what left.
fn ask(rig: &mut Rig, session: u16, ping: &Ping) -> Result<(u16, PortId, Vec<u8>), PingError> {
    let (_, seq) = rig.with(|r, now, out| r.ping(now, session, ping, out))?;
    let mut sent = rig.pass(Duration::ZERO);
    assert_eq!(sent.len(), 1, "{ping:?}: {sent:02x?}");
    let (port, frame) = sent.remove(0);
    Ok((seq, port, frame[14..].to_vec()))
}

/// What comes back by the port that the question left by.
fn hand_in(rig: &mut Rig, port: PortId, packet: &[u8]) {
    let (mac, own) = if port == LAN { (HOST, OWN[1]) } else { (GATEWAY, OWN[2]) };
    assert!(rig.frame(port, &frame_of(mac, own, packet)).is_empty());
}

fn answers(rig: &mut Rig, session: u16) -> Vec<PingAnswer> {
    rig.with(|r, now, _| r.ping_answers(now, session)).expect("a session")
}

/// The reply to a request without options.
fn reply(request: &[u8], ttl: u8) -> Vec<u8> {
    let (p, mut m) = read_icmp(request);
    m[0] = if m[0] == 8 { 0 } else { 129 };
    icmp(&p.dst.to_string(), &p.src.to_string(), ttl, &m)
}

/// Proves rfc1812-4.3.3.6-send: requests of both families, from the address that fits, with what the operator wants in their
/// fields; every reply is handed over once, with who sent it and how long it took, and nothing else is.
#[test]
fn the_operator_can_ask() {
    for (target, source, port) in [
        ("192.0.2.2", "192.0.2.1", LAN),
        ("198.51.100.2", "198.51.100.1", WAN),
        ("203.0.113.9", "198.51.100.1", WAN),
        ("2001:db8::2", "2001:db8::1", LAN),
        ("2001:db8:9::9", "2001:db8:1::1", WAN),
    ] {
        let mut rig = rig_with(Settings::default());
        let session = rig.with(|r, now, _| r.open_ping(now));
        for (n, data, ttl, tclass, df) in
            [(1, 56, None, 0, false), (2, 0, Some(7), 0xb8, true), (3, 1000, Some(255), 3, true)]
        {
            let ping = Ping { data, ttl, tclass, df, ..Ping::new(ip(target)) };
            let (seq, by, request) = ask(&mut rig, session, &ping).expect("sent");
            let (p, m) = read_icmp(&request);
            assert_eq!((seq, by, p.src, p.dst), (n, port, ip(source), ip(target)));
            assert_eq!((p.ttl, p.tclass, p.df), (ttl.unwrap_or(64), tclass, df || target.contains(':')));
            assert_eq!((m[0], m[1], m.len() as u32), (if target.contains(':') { 128 } else { 8 }, 0, 8 + data));
            assert_eq!(m[4..8], [session.to_be_bytes(), seq.to_be_bytes()].concat());
            assert!(answers(&mut rig, session).is_empty());
            rig.pass(Duration::from_millis(30));
            let right = reply(&request, 61);
            // Another's number, another's answer, one that was damaged: nobody asked for those.
            let (p, m) = read_icmp(&right);
            let with = |at: usize| {
                let mut m = m.clone();
                m[at] ^= 1;
                m
            };
            let (from, to) = (p.src.to_string(), p.dst.to_string());
            let stranger = if target.contains(':') { "2001:db8:9::77" } else { "203.0.113.77" };
            for wrong in [
                icmp(&from, &to, 61, &with(4)),
                icmp(&from, &to, 61, &with(5)),
                icmp(&from, &to, 61, &with(6)),
                icmp(stranger, &to, 61, &m),
                [&right[..right.len() - 1], &[right[right.len() - 1] ^ 1]].concat(),
            ] {
                hand_in(&mut rig, port, &wrong);
            }
            assert!(answers(&mut rig, session).is_empty(), "{target}");
            hand_in(&mut rig, port, &right);
            hand_in(&mut rig, port, &right);
            let want = PingReply::Echo { ttl: 61, data, recorded: vec![] };
            assert_eq!(
                answers(&mut rig, session),
                [PingAnswer { seq, from: ip(target), rtt: Duration::from_millis(30), reply: want }]
            );
        }
    }
}

/// Proves rfc1812-4.3.3.6-send: errors about a request are handed over, too.
#[test]
fn errors_about_questions_are_told() {
    for (target, from, message, want) in [
        ("203.0.113.9", "198.51.100.2", [11, 0, 0, 0, 0, 0, 0, 0], (11, 0, None)),
        ("203.0.113.9", "198.51.100.2", [3, 1, 0, 0, 0, 0, 0, 0], (3, 1, None)),
        ("203.0.113.9", "192.0.0.8", [3, 4, 0, 0, 0, 0, 4, 0], (3, 4, Some(1024))),
        ("2001:db8:9::9", "2001:db8:1::2", [3, 0, 0, 0, 0, 0, 0, 0], (3, 0, None)),
        ("2001:db8:9::9", "2001:db8:1::2", [2, 0, 0, 0, 0, 0, 5, 0], (2, 0, Some(1280))),
    ] {
        let mut rig = rig_with(Settings::default());
        let session = rig.with(|r, now, _| r.open_ping(now));
        let (seq, port, request) = ask(&mut rig, session, &Ping::new(ip(target))).expect("sent");
        let own = read_icmp(&request).0.src.to_string();
        // About somebody else's request: not ours.
        let mut other = request.clone();
        let at = if target.contains(':') { 44 } else { 24 };
        other[at] ^= 0x55;
        hand_in(&mut rig, port, &icmp(from, &own, 64, &[&message[..], &other].concat()));
        assert!(answers(&mut rig, session).is_empty());
        hand_in(&mut rig, port, &icmp(from, &own, 64, &[&message[..], &request].concat()));
        let (kind, code, mtu) = want;
        let reply = PingReply::Error { kind, code, mtu };
        assert_eq!(answers(&mut rig, session), [PingAnswer { seq, from: ip(from), rtt: Duration::ZERO, reply }]);
    }
}

/// Proves rfc1122-3.2.1.8-originate: a request goes to the first router of its source route, loose or strict, with the rest
/// and the one who is asked in the option; the reply that came back along it is accepted where source routes are obeyed.
#[test]
fn the_operator_can_name_the_way() {
    for (strict, kind) in [(false, 131), (true, 137)] {
        let mut settings = Settings::default();
        assert!(settings.ipv4_options.set(kind, OptionAction::Process));
        let mut rig = rig_with(settings);
        let session = rig.with(|r, now, _| r.open_ping(now));
        let route: Vec<std::net::Ipv4Addr> = ["192.0.2.3", "10.0.0.1"].map(|a| a.parse().expect("address")).into();
        let ping = Ping { route, strict, ..Ping::new(ip("10.0.0.9")) };
        let (seq, port, request) = ask(&mut rig, session, &ping).expect("sent");
        assert_eq!((port, request[0], &request[16..20]), (LAN, 0x48, &[192, 0, 2, 3][..]));
        assert_eq!(request[20..32], [&[kind, 11, 4, 10, 0, 0, 1, 10, 0, 0, 9][..], &[0]].concat());
        assert!(verify_ipv4_header(&request[..32]));
        let back = [kind, 11, 12, 10, 0, 0, 1, 192, 0, 2, 3];
        let whole = icmp("10.0.0.9", "192.0.2.1", 60, &[&[0, 0, 0, 0][..], &request[36..]].concat());
        hand_in(&mut rig, LAN, &with_options("10.0.0.9", "192.0.2.1", 1, 60, &back, &whole[20..]));
        let got = answers(&mut rig, session);
        assert_eq!((got.len(), got[0].seq, got[0].from), (1, seq, ip("10.0.0.9")));
        let many = Ping { route: vec![[10, 0, 0, 1].into(); 10], ..Ping::new(ip("10.0.0.9")) };
        assert!(matches!(ask(&mut rig, session, &many), Err(PingError::Options(_))));
    }
    // Routers write themselves down.
    let mut rig = rig_with(Settings::default());
    let session = rig.with(|r, now, _| r.open_ping(now));
    let (_, _, request) = ask(&mut rig, session, &Ping { record: true, ..Ping::new(ip("192.0.2.2")) }).expect("sent");
    assert_eq!((request[0], &request[20..23]), (0x4f, &[7, 39, 4][..]));
    let whole = icmp("192.0.2.2", "192.0.2.1", 60, &[&[0, 0, 0, 0][..], &request[64..]].concat());
    let written = [&[7, 39, 12, 192, 0, 2, 2, 10, 0, 0, 1][..], &[0; 28]].concat();
    hand_in(&mut rig, LAN, &with_options("192.0.2.2", "192.0.2.1", 1, 60, &written, &whole[20..]));
    let got = answers(&mut rig, session);
    let want = ["192.0.2.2", "10.0.0.1"].map(|a| a.parse::<std::net::Ipv4Addr>().expect("address"));
    assert!(
        matches!(&got[..], [PingAnswer { reply: PingReply::Echo { recorded, .. }, .. }] if recorded[..] == want),
        "{got:?}"
    );
}

/// What is not asked, and why. Proves rfc1812-4.2.2.11-own: nothing leaves with a source that is not the router's.
#[test]
fn questions_that_are_refused() {
    let mut rig = rig_with(Settings::default());
    let session = rig.with(|r, now, _| r.open_ping(now));
    let to = |a: &str| Ping::new(ip(a));
    let from = |a: &str| Ping { source: Some(ip(a)), ..to("203.0.113.9") };
    for (ping, want) in [
        (to("192.0.2.1"), PingError::Own(ip("192.0.2.1"))),
        (to("255.255.255.255"), PingError::Target(ip("255.255.255.255"))),
        (to("192.0.2.255"), PingError::Target(ip("192.0.2.255"))),
        (to("224.0.0.1"), PingError::Target(ip("224.0.0.1"))),
        (to("ff02::1"), PingError::Target(ip("ff02::1"))),
        (to("8.8.8.8"), PingError::NoRoute(router_core::drop_reason::DropReason::NoRoute)),
        (from("203.0.113.1"), PingError::NotOwn(ip("203.0.113.1"))),
        (from("2001:db8::1"), PingError::NotOwn(ip("2001:db8::1"))),
        (Ping { dev: Some("nope".into()), ..to("192.0.2.2") }, PingError::NoDevice("nope".into())),
        (Ping { data: 65_535, ..to("192.0.2.2") }, PingError::Size),
    ] {
        assert_eq!(rig.with(|r, now, out| r.ping(now, session, &ping, out)), Err(want), "{ping:?}");
        assert!(rig.pass(Duration::ZERO).is_empty());
    }
    assert_eq!(rig.with(|r, now, out| r.ping(now, !session, &to("192.0.2.2"), out)), Err(PingError::NoSession));
    let (_, _, request) = ask(&mut rig, session, &from("192.0.2.1")).expect("an own address");
    assert_eq!(request[12..16], [192, 0, 2, 1]);
    // By a link, whatever the routes say; link-local addresses need one.
    let linked = Ping { dev: Some("wan0".into()), ..to("fe80::2") };
    let (_, port, request) = ask(&mut rig, session, &linked).expect("sent");
    assert_eq!((port, read_icmp(&request).0.src), (WAN, ip("fe80::1")));
    // Seventeen who ask are one too many: the one that was silent longest has to go.
    for _ in 0..16 {
        rig.pass(Duration::from_millis(1));
        rig.with(|r, now, _| r.open_ping(now));
    }
    assert_eq!(rig.with(|r, now, _| r.ping_answers(now, session)), Err(PingError::NoSession));
}
