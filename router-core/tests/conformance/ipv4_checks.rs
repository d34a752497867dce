//! What an IPv4 router must not let pass, must not answer, and must answer all the same: each packet would be forwarded or
//! answered, but for the one thing that is wrong with it.

use crate::rig::{GATEWAY, HOST, LAN, OWN, Rig, WAN, frame_of, icmp, ip, packet, read_icmp, with_options};
use router_core::addr::MacAddr;
use router_core::checksum::fill_ipv4_header;
use router_core::drop_reason::DropReason;
use router_core::settings::{MartianSettings, OptionAction, Settings};
use router_core::time::Duration;

/// A router with a way to everywhere.
fn rig_with(settings: Settings) -> Rig {
    let mut rig = Rig::new(settings);
    rig.route("0.0.0.0/0", "198.51.100.2", "wan0");
    rig.route("::/0", "2001:db8:1::2", "wan0");
    rig
}

fn rig() -> Rig {
    rig_with(Settings::default())
}

/// An echo request of the host's.
fn echo(dst: &str, ttl: u8) -> Vec<u8> {
    let kind = if dst.contains(':') { 128 } else { 8 };
    let src = if dst.contains(':') { "2001:db8::2" } else { "192.0.2.2" };
    icmp(src, dst, ttl, &[kind, 0, 0, 0, 0, 1, 0, 1, 9, 9])
}

/// Proves rfc1812-5.3.7-source, rfc1812-5.3.7-destination, rfc6890-2.2.2-v4, rfc6890-2.2.2-private, rfc6890-2.2.3-v6,
/// rfc1122-3.2.1.3-addresses: there is a route to all of them, and no TTL runs out.
#[test]
fn martians_go_nowhere() {
    for (src, dst, reason) in [
        ("192.0.2.2", "8.8.8.8", None),
        ("10.0.0.9", "192.168.1.1", None),
        ("100.64.0.9", "203.0.113.1", None),
        ("0.0.0.0", "8.8.8.8", Some(DropReason::MartianSource)),
        ("0.1.2.3", "8.8.8.8", Some(DropReason::MartianSource)),
        ("127.0.0.1", "8.8.8.8", Some(DropReason::MartianSource)),
        ("127.255.0.1", "192.0.2.1", Some(DropReason::MartianSource)),
        ("224.0.0.9", "8.8.8.8", Some(DropReason::MartianSource)),
        ("240.0.0.9", "8.8.8.8", Some(DropReason::MartianSource)),
        ("255.255.255.255", "8.8.8.8", Some(DropReason::MartianSource)),
        ("192.0.2.2", "0.1.2.3", Some(DropReason::MartianDestination)),
        ("192.0.2.2", "127.0.0.1", Some(DropReason::MartianDestination)),
        ("192.0.2.2", "240.0.0.9", Some(DropReason::MartianDestination)),
        ("2001:db8::2", "2600::1", None),
        ("::1", "2600::1", Some(DropReason::MartianSource)),
        ("::", "2600::1", Some(DropReason::MartianSource)),
        ("ff02::9", "2600::1", Some(DropReason::MartianSource)),
        ("::ffff:192.0.2.2", "2600::1", Some(DropReason::MappedAddress)),
        ("2001:db8::2", "::1", Some(DropReason::MartianDestination)),
        ("2001:db8::2", "::", Some(DropReason::MartianDestination)),
        ("2001:db8::2", "::ffff:8.8.8.8", Some(DropReason::MappedAddress)),
    ] {
        let mut rig = rig();
        let sent = rig.send(&packet(src, dst, 17, 64, &[5; 20]));
        let want: Vec<_> = reason.is_none().then_some(WAN).into_iter().collect();
        assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), want, "{src} > {dst}");
        let dropped = reason.map(|r| (r.name(), 1)).into_iter().collect();
        assert_eq!(rig.totals().dropped, dropped, "{src} > {dst}");
    }
}

/// Proves rfc1812-5.3.4-link, rfc1812-5.3.4-silent: what came to everybody on a link, or to a group, is neither forwarded
/// nor answered, whatever may be wrong with it; sent to the router alone, each of them is.
#[test]
fn link_layer_groups_are_not_routed() {
    let groups = [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([1, 0, 0x5e, 1, 2, 3])];
    for p in [
        packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20]),
        packet("192.0.2.2", "203.0.113.9", 17, 1, &[5; 20]),
        with_options("192.0.2.2", "203.0.113.9", 17, 64, &[7, 1, 0, 0], &[5; 20]),
        packet("192.0.2.2", "192.0.2.3", 17, 64, &[5; 20]),
    ] {
        assert!(!rig().frame(LAN, &frame_of(HOST, OWN[1], &p)).is_empty(), "{p:02x?}");
        for to in groups {
            let mut rig = rig();
            assert!(rig.frame(LAN, &frame_of(HOST, to, &p)).is_empty(), "{to} {p:02x?}");
            assert_eq!(rig.totals().dropped_total(), 1, "{to} {p:02x?}");
        }
    }
}

/// Proves rfc1812-5.2.2-silent, rfc1122-3.2.1.1-version, rfc1122-3.2.1.2-checksum, rfc1812-4.2.2.5-checksum: headers that
/// are wrong are dropped in silence, in packets for others and for the router. Proves rfc1812-4.2.2.5-switch: by a router
/// that is told to let everything pass that it can be told of, too.
#[test]
fn bad_headers_are_dropped_in_silence_by_the_most_lenient_router() {
    let martians = MartianSettings { allow_net_zero: true, allow_class_e: true };
    let mut lenient = Settings { martians, ..Settings::default() };
    for kind in 2..=255 {
        lenient.ipv4_options.set(kind, OptionAction::Ignore);
    }
    type Spoil = fn(&mut Vec<u8>);
    let wrong: [(DropReason, Spoil); 7] = [
        (DropReason::Ipv4Checksum, |p| p[10] ^= 1),
        (DropReason::Ipv4Checksum, |p| p[1] ^= 1),
        (DropReason::Ipv4Version, |p| p[0] = 0x55),
        (DropReason::Ipv4Version, |p| p[0] = 0x65),
        (DropReason::Ipv4HeaderLength, |p| p[0] = 0x44),
        (DropReason::Ipv4HeaderLength, |p| p[3] = 19),
        (DropReason::Ipv4Truncated, |p| p.truncate(29)),
    ];
    for settings in [Settings::default(), lenient] {
        for p in [packet("192.0.2.2", "203.0.113.9", 17, 1, &[5; 20]), echo("192.0.2.1", 64)] {
            assert_eq!(rig_with(settings.clone()).send(&p).len(), 1, "it is answered as it is");
            for (reason, spoil) in wrong {
                let mut p = p.clone();
                spoil(&mut p);
                if reason != DropReason::Ipv4Checksum && p.len() > 29 {
                    fill_ipv4_header(&mut p);
                }
                let mut rig = rig_with(settings.clone());
                let frame = [&OWN[1].0[..], &HOST.0, &[8, 0], &p].concat();
                assert!(rig.frame(LAN, &frame).is_empty(), "{reason}: {p:02x?}");
                assert_eq!(rig.totals().dropped, [(reason.name(), 1)].into(), "{reason}: {p:02x?}");
            }
        }
    }
}

/// Proves rfc1812-4.2.2.9-ttl: what is for the router is taken with any TTL, and answered with one of its own.
#[test]
fn the_ttl_of_what_has_arrived_does_not_matter() {
    for dst in ["192.0.2.1", "198.51.100.1", "2001:db8::1"] {
        for ttl in [0, 1, 2, 255] {
            let (port, reply) = rig().send_one(&echo(dst, ttl));
            assert_eq!((port, reply[if dst.contains(':') { 7 } else { 8 }]), (LAN, 64), "{dst} {ttl}");
        }
    }
}

/// Proves rfc1122-3.3.2-time, rfc1122-3.3.2-reassembly, rfc792-time, rfc4443-3.3-reassembly, rfc8200-4.5-60: sixty seconds
/// after the first fragment to come, and only if the one with the header is among those that came.
#[test]
fn datagrams_that_stay_incomplete_are_told_of() {
    let v4 = |first: bool| {
        let mut p = packet("192.0.2.2", "192.0.2.1", 17, 64, &[5; 32]);
        p[6..8].copy_from_slice(if first { &[0x20, 0] } else { &[0, 9] });
        fill_ipv4_header(&mut p);
        p
    };
    let v6 = |first: bool| {
        let field = if first { [0, 1] } else { [0, 72] };
        let payload = [&[17, 0][..], &field, &[0, 0, 0, 9], &[5; 32]].concat();
        packet("2001:db8::2", "2001:db8::1", 44, 64, &payload)
    };
    for (p, told) in [(v4(true), Some([11, 1])), (v4(false), None), (v6(true), Some([3, 1])), (v6(false), None)] {
        let mut rig = rig();
        assert!(rig.send(&p).is_empty());
        assert_eq!(rig.totals().held, 1);
        let of_hosts = |sent: Vec<(_, Vec<u8>)>| sent.into_iter().filter(|(port, _)| *port == LAN).collect::<Vec<_>>();
        assert!(of_hosts(rig.pass(Duration::from_secs(59))).is_empty());
        let sent = of_hosts(rig.pass(Duration::from_secs(2)));
        let answers: Vec<_> = sent.iter().map(|(_, f)| read_icmp(&f[14..]).1).collect();
        assert_eq!(answers.iter().map(|m| [m[0], m[1]]).collect::<Vec<_>>(), Vec::from_iter(told), "{p:02x?}");
        assert!(answers.iter().all(|m| m[8..] == p), "{p:02x?}");
        assert_eq!((rig.totals().held, &rig.totals().dropped), (0, &[("local_fragment", 1)].into()));
        assert!(rig.pass(Duration::from_secs(200)).is_empty());
    }
}

/// Proves rfc1122-4.1.3.1-port: code 3, with the datagram inside.
#[test]
fn datagrams_to_closed_ports_are_told_of() {
    let datagram = [0x30, 0x39, 0x82, 0x9a, 0, 12, 0, 0, 1, 2, 3, 4];
    for port in ["192.0.2.1", "198.51.100.1"] {
        let original = packet("192.0.2.2", port, 17, 64, &datagram);
        let (out, answer) = rig().send_one(&original);
        let (p, m) = read_icmp(&answer);
        assert_eq!((out, p.src, &m[..8], &m[8..]), (LAN, ip(port), &[3, 3, m[2], m[3], 0, 0, 0, 0][..], &original[..]));
    }
}

/// Proves rfc6633-7-1016: however many there were, about whatever (RFC 1016 has sources wait between their packets), nothing
/// that the router forwards or says is delayed or dropped, and no timer runs. Proves rfc6633-4-ignore.
#[test]
fn source_quench_slows_nobody() {
    let mut rig = rig();
    rig.pass(Duration::from_secs(3600));
    let work = |rig: &mut Rig| {
        (0..200)
            .map(|_| {
                (
                    rig.send_one(&packet("192.0.2.2", "203.0.113.9", 17, 64, &[5; 20])).0,
                    rig.send_one(&echo("192.0.2.1", 64)).0,
                )
            })
            .collect::<Vec<_>>()
    };
    let before = work(&mut rig);
    let quiet = rig.pass(Duration::ZERO);
    let deadline = |rig: &mut Rig| rig.with(|r, now, out| r.poll(now, out));
    let next = deadline(&mut rig);
    let about = [
        packet("192.0.2.1", "192.0.2.2", 1, 64, &[0, 0, 0, 0, 0, 1, 0, 1]),
        packet("192.0.2.1", "192.0.2.2", 6, 64, &[0; 20]),
        packet("192.0.2.2", "203.0.113.9", 17, 63, &[5; 20]),
    ];
    for quoted in &about {
        for code in [0, 1] {
            for _ in 0..100 {
                let quench = icmp("192.0.2.2", "192.0.2.1", 64, &[&[4, code, 0, 0, 0, 0, 0, 0][..], quoted].concat());
                assert!(rig.send(&quench).is_empty());
            }
        }
    }
    assert_eq!(deadline(&mut rig), next, "no timer of theirs");
    assert_eq!((work(&mut rig), quiet), (before, rig.pass(Duration::ZERO)));
    assert_eq!(
        rig.totals().dropped.values().sum::<u64>(),
        rig.totals().dropped.get("icmp_consumed").copied().unwrap_or(0)
    );
}

/// What a router without an IPv4 address on its way out writes into a record route option.
fn recorded(rig: &mut Rig) -> std::net::Ipv4Addr {
    rig.pass(Duration::from_secs(5));
    let (port, sent) =
        rig.send_one(&with_options("192.0.2.2", "203.0.113.9", 17, 64, &[7, 7, 4, 0, 0, 0, 0], &[5; 20]));
    assert_eq!((port, sent[22]), (WAN, 8));
    <[u8; 4]>::try_from(&sent[23..27]).expect("four bytes").into()
}

/// Proves rfc1812-4.2.2.2-router-id: addresses and ports come, links fail and return, days pass: only the operator changes
/// the router id. Proves rfc1812-4.2.2.2-address: where the port has no address.
#[test]
fn the_router_id_stays() {
    let mut rig = Rig::with_addrs(Settings::default(), &["192.0.2.1/24"], &["2001:db8:1::1/64", "fe80::1/64"]);
    rig.route("203.0.113.0/24", "2001:db8:1::2", "wan0");
    let first = "192.0.2.1".parse::<std::net::Ipv4Addr>().expect("address");
    assert_eq!(recorded(&mut rig), first);
    for addr in ["192.0.2.200/24", "10.1.1.1/8", "192.0.0.77/32"] {
        rig.with(|r, _, _| r.add_addr(LAN, addr.parse().expect("address"))).expect("address");
        assert_eq!(recorded(&mut rig), first, "{addr}");
    }
    rig.with(|r, now, out| r.set_link(now, LAN, None, Some(false), out)).expect("down");
    rig.with(|r, now, out| r.set_link(now, LAN, None, Some(true), out)).expect("up");
    rig.neighbor(LAN, "192.0.2.2", HOST);
    assert_eq!(recorded(&mut rig), first);
    rig.pass(Duration::from_secs(86_400));
    rig.neighbor(WAN, "2001:db8:1::2", GATEWAY);
    assert_eq!(recorded(&mut rig), first);
    let mut chosen = rig.router.settings().clone();
    chosen.router_id = Some([192, 0, 2, 254].into());
    rig.with(|r, _, _| r.set_settings(chosen));
    assert_eq!(recorded(&mut rig), std::net::Ipv4Addr::new(192, 0, 2, 254), "the operator's word");
}

/// Proves rfc1812-3.3.4-configurable: of each port by itself, at any time; the packet of that length passes, one byte more is
/// told the new figure.
#[test]
fn the_mtu_of_each_port_is_what_the_operator_says() {
    let mut rig = Rig::with_addrs(Settings::default(), &["192.0.2.1/24"], &["198.51.100.1/24"]);
    rig.route("203.0.113.0/24", "198.51.100.2", "wan0");
    // Links of IPv6 carry 1280 bytes; these need not.
    for port in [LAN, WAN] {
        let addrs = rig.router.ports().get(port).expect("port").addrs.clone();
        for addr in addrs.into_iter().filter(|a| a.addr().is_ipv6()) {
            rig.with(|r, _, _| r.del_addr(port, addr)).expect("address");
        }
    }
    rig.pass(Duration::from_secs(60));
    let with_df = |src: &str, dst: &str, len: usize| {
        let mut p = packet(src, dst, 17, 64, &vec![5; len - 20]);
        p[6] = 0x40;
        fill_ipv4_header(&mut p);
        p
    };
    for (lan, wan) in [(1500, 1400), (1500, 1000), (700, 1000), (700, 1400), (600, 3000)] {
        rig.with(|r, _, _| r.set_mtu(LAN, lan)).expect("MTU");
        rig.with(|r, _, _| r.set_mtu(WAN, wan)).expect("MTU");
        for (from, src, dst, to, mtu) in
            [(LAN, "192.0.2.2", "203.0.113.9", WAN, wan), (WAN, "203.0.113.9", "192.0.2.2", LAN, lan)]
        {
            let (mac, own) = if from == LAN { (HOST, OWN[1]) } else { (GATEWAY, OWN[2]) };
            let mut send = |len: u32| rig.frame(from, &frame_of(mac, own, &with_df(src, dst, len as usize)));
            let sent = send(mtu);
            assert_eq!((sent.len(), sent[0].0, sent[0].1.len()), (1, to, mtu as usize + 14), "{lan} {wan}");
            let told = send(mtu + 1);
            let (_, m) = read_icmp(&told[0].1[14..]);
            assert_eq!((told.len(), told[0].0), (1, from), "{lan} {wan}");
            assert_eq!((&m[..2], u32::from(u16::from_be_bytes([m[6], m[7]]))), (&[3, 4][..], mtu), "{lan} {wan}");
        }
    }
}

/// Proves rfc1812-4.2.3.4-prefixes: a port's prefix may have any length: what it holds is asked for on the link, what is just
/// beyond it has no route.
#[test]
fn ports_have_prefixes_of_any_length() {
    const OWN_ADDR: u32 = 0x6464_6465;
    for len in 1..=32u8 {
        let mut rig = Rig::with_addrs(Settings::default(), &["192.0.2.1/24"], &[&format!("100.100.100.101/{len}")]);
        let mut ports = |dst: u32| {
            let dst = std::net::Ipv4Addr::from_bits(dst).to_string();
            let sent = rig.send(&packet("192.0.2.2", &dst, 17, 64, &[5; 20]));
            sent.iter().map(|(port, _)| *port).collect::<Vec<_>>()
        };
        // The only other one of a prefix of 31 bits, which any shorter one holds, too; one with 32 bits holds none.
        assert_eq!(ports(OWN_ADDR ^ 1), [if len == 32 { LAN } else { WAN }], "/{len}");
        // The last bit of the prefix turned round; of the shortest one, that gives a group.
        let beyond = if len == 1 { 0xc612_0001 } else { OWN_ADDR ^ 1 << (32 - len) };
        assert_eq!(ports(beyond), [LAN], "/{len}: no route is told");
    }
}
