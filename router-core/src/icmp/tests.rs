//! Tables of the RFCs' rules; etherparse reads what was built; mutated packets never panic.

use super::*;
use crate::addr::{Family, MacAddr};
use crate::checksum::{self, fill_ipv4_header};
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::settings::{IcmpSettings, Settings};
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, LaxSlicedPacket, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

const V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [198, 51, 100, 2]];
const V6: [[u8; 16]; 2] = [
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];

fn udp(family: Family, payload: usize) -> Vec<u8> {
    let mut v = Vec::new();
    let b = match family {
        Family::Inet => PacketBuilder::ipv4(V4[0], V4[1], 7),
        Family::Inet6 => PacketBuilder::ipv6(V6[0], V6[1], 7),
    };
    b.udp(1111, 2222).write(&mut v, &vec![0xab; payload]).unwrap();
    v
}

fn of_proto(family: Family, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut v = Vec::new();
    let b = match family {
        Family::Inet => PacketBuilder::ipv4(V4[0], V4[1], 7),
        Family::Inet6 => PacketBuilder::ipv6(V6[0], V6[1], 7),
    };
    // The builder refuses to write extension headers by number.
    b.write(&mut v, IpNumber(200), payload).unwrap();
    v[if family == Family::Inet { 9 } else { 6 }] = proto;
    fill_ipv4_header(&mut v[..if family == Family::Inet { 20 } else { 0 }]);
    v
}

fn family_of(bytes: &[u8]) -> Family {
    if bytes[0] >> 4 == 4 { Family::Inet } else { Family::Inet6 }
}

fn error(reason: DropReason, param: u32, bytes: &[u8]) -> Option<IcmpError> {
    let packet = Packet::parse(family_of(bytes), bytes).unwrap();
    error_for(reason, param, &Offender::of(&packet, bytes))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Proves rfc1122-4.1.3.1-port, rfc1191-4-zero, rfc1812-4.3.3.1-unreachable, rfc1812-5.2.7.1-codes,
/// rfc4443-3.1-code-0, rfc4443-3.1-code-1, rfc4443-3.1-code-2, rfc4443-3.1-code-3, rfc4443-3.1-code-4,
/// rfc1812-5.3.6-quench, rfc4443-3.1-congestion, rfc4443-3.2, rfc792-unreachable, rfc792-time, rfc8201-4-minimum, rfc8504-5.8-icmp.
/// Proves rfc1812-5.2.7.1-1191, rfc1812-5.2.7.1-unknown, rfc2003-5.2-quench, rfc6633-3-send.
#[test]
fn every_drop_reason_and_its_answers() {
    use DropReason::*;
    // reason, parameter, IPv4 type and code and word, IPv6 type and code and word
    type Row = (DropReason, u32, Option<(u8, u8, u32)>, Option<(u8, u8, u32)>);
    let rows: &[Row] = &[
        (TtlExpired, 0, Some((11, 0, 0)), Some((3, 0, 0))),
        (NoRoute, 0, Some((3, 0, 0)), Some((1, 0, 0))),
        (NextHopUnusable, 0, Some((3, 0, 0)), Some((1, 0, 0))),
        (Unreachable, 0, Some((3, 1, 0)), Some((1, 0, 0))),
        (Prohibited, 0, Some((3, 13, 0)), Some((1, 1, 0))),
        (NeighborFailed, 0, Some((3, 1, 0)), Some((1, 3, 0))),
        (TooBig, 1400, Some((3, 4, 1400)), Some((2, 0, 1400))),
        (TooBig, 20, Some((3, 4, 68)), Some((2, 0, 1280))),
        (TooBig, 70_000, Some((3, 4, 65_535)), Some((2, 0, 70_000))),
        (LinkLocalScope, 0, None, Some((1, 2, 0))),
        (Ipv4Options, 22, Some((12, 0, 22 << 24)), None),
        (Ipv4SourceRoute, 0, Some((3, 5, 0)), None),
        (Ipv6Extension, 40, None, Some((4, 0, 40))),
        (Ipv6RoutingHeader, 42, None, Some((4, 0, 42))),
        (NoLocalService, 0, Some((3, 3, 0)), Some((1, 4, 0))),
        (TunnelReflection, 0, Some((3, 1, 0)), Some((1, 3, 0))),
        (TunnelNoPeer, 0, Some((3, 1, 0)), Some((1, 3, 0))),
        (TunnelFamily, 0, Some((3, 0, 0)), Some((1, 0, 0))),
        (TranslateSource, 0, None, Some((1, 5, 0))),
        (TranslateDestination, 0, Some((3, 1, 0)), Some((1, 3, 0))),
        (TranslateTableFull, 0, None, Some((1, 3, 0))),
        (TranslatePoolEmpty, 0, None, Some((1, 3, 0))),
    ];
    let (v4, v6) = (udp(Family::Inet, 100), udp(Family::Inet6, 100));
    let facts = |e: IcmpError| (e.kind(), e.code(), e.word());
    for (reason, param, want4, want6) in rows {
        assert_eq!(error(*reason, *param, &v4).map(facts), *want4, "{reason} v4");
        assert_eq!(error(*reason, *param, &v6).map(facts), *want6, "{reason} v6");
    }
    for reason in DropReason::ALL.iter().filter(|r| !rows.iter().any(|row| row.0 == **r)) {
        assert_eq!((error(*reason, 0, &v4), error(*reason, 0, &v6)), (None, None), "{reason}");
    }
}

/// Proves rfc1122-3.2.2.1-protocol, rfc4443-3.1-code-4, rfc4443-3.4-code-1, rfc792-unreachable,
/// rfc8200-4-next-header.
#[test]
fn unknown_protocols() {
    // RFC 1122 3.2.2.1 codes 2 and 3, RFC 4443 3.1 code 4 and 3.4 code 1.
    let facts = |b: &[u8]| error(DropReason::NoLocalService, 0, b).map(|e| (e.kind(), e.code(), e.word()));
    assert_eq!(facts(&of_proto(Family::Inet, 200, &[0; 9])), Some((3, 2, 0)));
    assert_eq!(facts(&of_proto(Family::Inet, 132, &[0; 9])), Some((3, 2, 0)), "no SCTP here");
    assert_eq!(facts(&of_proto(Family::Inet6, 200, &[0; 9])), Some((4, 1, 6)));
    assert_eq!(facts(&of_proto(Family::Inet6, 60, &[200, 0, 1, 4, 0, 0, 0, 0, 9])), Some((4, 1, 40)));
    assert_eq!(facts(&of_proto(Family::Inet6, 59, &[])), None);
}

/// Proves rfc1812-4.3.3.5, rfc792-parameter.
#[test]
fn malformed_ipv4_options_are_pointed_at() {
    for (options, want) in [([1u8, 7, 1, 0], 22u32), ([7, 3, 4, 9], 24), ([68, 5, 0, 0], 21)] {
        let mut v = udp(Family::Inet, 8);
        v.splice(20..20, options);
        v[0] = 0x46;
        v[3] += 4;
        fill_ipv4_header(&mut v);
        assert_eq!(Packet::parse(Family::Inet, &v), Err(DropReason::Ipv4Options));
        let e = error_for(DropReason::Ipv4Options, 0, &Offender::refused(&v, false).unwrap()).unwrap();
        assert_eq!((e.kind(), e.code(), e.word()), (12, 0, want << 24));
    }
}

/// Proves rfc4443-2.4-e3, rfc4443-3.4-code-2, rfc8200-4.2-hbh-10, rfc8200-4.2-hbh-11.
#[test]
fn hop_by_hop_options_are_answered_as_rfc_8200_4_2_says() {
    for (option, multicast, want) in [
        (0x5e, false, None),
        (0x9e, false, Some((4, 2, 42))),
        (0x9e, true, Some((4, 2, 42))),
        (0xde, false, Some((4, 2, 42))),
        (0xde, true, None),
    ] {
        let mut v = of_proto(Family::Inet6, 0, &[17, 0, option, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 8, 0, 0]);
        v[24] = if multicast { 0xff } else { 0x20 };
        assert_eq!(Packet::parse(Family::Inet6, &v), Err(DropReason::Ipv6HopByHop));
        let offender = Offender::refused(&v, multicast).unwrap();
        let e = error_for(DropReason::Ipv6HopByHop, 0, &offender);
        assert_eq!(e.map(|e| (e.kind(), e.code(), e.word())), want, "{option:x} {multicast}");
    }
}

/// Proves rfc1122-3.2.2-never, rfc1812-4.3.2.7-error, rfc1812-4.3.2.7-broadcast, rfc1812-4.3.2.7-multicast,
/// rfc1812-4.3.2.7-link, rfc1812-4.3.2.7-source, rfc1812-4.3.2.7-fragment, rfc4443-2.4-e1, rfc4443-2.4-e2,
/// rfc4443-2.4-e3, rfc4443-2.4-e4, rfc4443-2.4-e5, rfc4443-2.4-e6, rfc792-fragments.
#[test]
fn never_answered() {
    // RFC 1122 3.2.2, RFC 1812 4.3.2.7, RFC 4443 2.4 e: what is changed in a UDP packet, whether time exceeded and
    // packet too big may still answer it.
    type Row = (&'static str, Family, fn(&mut Vec<u8>, &mut bool), bool, bool);
    let rows: &[Row] = &[
        ("plain", Family::Inet, |_, _| {}, true, true),
        ("plain", Family::Inet6, |_, _| {}, true, true),
        ("later fragment", Family::Inet, |v, _| v[7] = 9, false, false),
        ("first fragment", Family::Inet, |v, _| v[6] = 0x20, true, true),
        ("multicast", Family::Inet, |v, _| v[16] = 224, false, false),
        ("broadcast", Family::Inet, |v, _| v[16..20].fill(255), false, false),
        ("multicast", Family::Inet6, |v, _| v[24] = 0xff, false, true),
        ("link group", Family::Inet, |_, l| *l = true, false, false),
        ("link group", Family::Inet6, |_, l| *l = true, false, true),
        ("unspecified source", Family::Inet, |v, _| v[12..16].fill(0), false, false),
        ("network 0 source", Family::Inet, |v, _| v[12] = 0, false, false),
        ("loopback source", Family::Inet, |v, _| v[12] = 127, false, false),
        ("multicast source", Family::Inet, |v, _| v[12] = 230, false, false),
        ("class E source", Family::Inet, |v, _| v[12] = 241, false, false),
        ("broadcast source", Family::Inet, |v, _| v[12..16].fill(255), false, false),
        ("unspecified source", Family::Inet6, |v, _| v[8..24].fill(0), false, false),
        ("multicast source", Family::Inet6, |v, _| v[8] = 0xff, false, false),
        (
            "loopback source",
            Family::Inet6,
            |v, _| {
                v[8..24].fill(0);
                v[23] = 1;
            },
            false,
            false,
        ),
        ("echo request", Family::Inet, |v, _| (v[9], v[20]) = (1, 8), true, true),
        ("echo reply", Family::Inet, |v, _| (v[9], v[20]) = (1, 0), true, true),
        ("unreachable", Family::Inet, |v, _| (v[9], v[20]) = (1, 3), false, false),
        ("source quench", Family::Inet, |v, _| (v[9], v[20]) = (1, 4), false, false),
        ("redirect", Family::Inet, |v, _| (v[9], v[20]) = (1, 5), false, false),
        ("time exceeded", Family::Inet, |v, _| (v[9], v[20]) = (1, 11), false, false),
        ("parameter problem", Family::Inet, |v, _| (v[9], v[20]) = (1, 12), false, false),
        ("unknown ICMP type", Family::Inet, |v, _| (v[9], v[20]) = (1, 77), false, false),
        ("echo request", Family::Inet6, |v, _| (v[6], v[40]) = (58, 128), true, true),
        ("unreachable", Family::Inet6, |v, _| (v[6], v[40]) = (58, 1), false, false),
        ("unknown error", Family::Inet6, |v, _| (v[6], v[40]) = (58, 100), false, false),
        ("redirect", Family::Inet6, |v, _| (v[6], v[40]) = (58, 137), false, false),
        ("later fragment", Family::Inet6, |v, _| (v[6], v[40], v[43]) = (44, 58, 8), true, true),
        ("error behind options", Family::Inet6, |v, _| (v[6], v[40], v[41], v[48]) = (60, 58, 0, 1), false, false),
    ];
    for (what, family, change, time, big) in rows {
        let mut v = udp(*family, 50);
        let mut link_group = false;
        change(&mut v, &mut link_group);
        if *family == Family::Inet {
            fill_ipv4_header(&mut v);
        }
        let mut packet = Packet::parse(*family, &v).unwrap();
        packet.link_group = link_group;
        for o in [Offender::of(&packet, &v), Offender::refused(&v, link_group).unwrap()] {
            assert_eq!(o.may_be_answered_with(&IcmpError::time_exceeded(*family)), *time, "{what} {family}");
            assert_eq!(o.may_be_answered_with(&IcmpError::too_big(*family, 1400)), *big, "{what} {family}");
        }
    }
}

#[test]
fn icmp_cut_before_its_type_is_not_answered() {
    for (family, proto) in [(Family::Inet, 1), (Family::Inet6, 58)] {
        assert_eq!(error(DropReason::TtlExpired, 0, &of_proto(family, proto, &[])), None);
    }
}

/// Proves rfc1122-3.2.1.7-ttl, rfc1122-3.2.2-quote, rfc1191-4-code, rfc1812-4.3.2.2-ttl, rfc1812-4.3.2.3-quote,
/// rfc1812-4.3.2.5-tos, rfc4443-2.3-checksum, rfc4443-2.4-c, rfc792-quote.
#[test]
fn built_errors_are_right_and_quote_verbatim() {
    // RFC 1812 4.3.2.3: up to 576 bytes; RFC 4443 2.4 c: up to 1280.
    for (family, payload, total) in [
        (Family::Inet, 10, 20 + 8 + 38),
        (Family::Inet, 3000, 576),
        (Family::Inet6, 10, 40 + 8 + 58),
        (Family::Inet6, 3000, 1280),
    ] {
        let original = udp(family, payload);
        let packet = Packet::parse(family, &original).unwrap();
        let offender = Offender::of(&packet, &original);
        let src = if family == Family::Inet { ip("192.0.0.8") } else { ip("2001:db8::8") };
        let mut out = Frame::with_capacity(2000);
        for e in [
            IcmpError::time_exceeded(family),
            IcmpError::reassembly_time_exceeded(family),
            IcmpError::too_big(family, 1472),
            error(DropReason::NoRoute, 0, &original).unwrap(),
            error(DropReason::NoLocalService, 0, &original).unwrap(),
        ] {
            write_error(&mut out, &e, src, &offender).unwrap();
            assert_eq!(out.len(), total);
            let p = SlicedPacket::from_ip(out.data()).unwrap();
            let (ip_header, quote) = out.data().split_at(if family == Family::Inet { 28 } else { 48 });
            assert_eq!(quote, &original[..quote.len()]);
            match (p.net.unwrap(), p.transport.unwrap()) {
                (NetSlice::Ipv4(h), TransportSlice::Icmpv4(i)) => {
                    let h = h.header().to_header();
                    assert_eq!(h.header_checksum, h.calc_header_checksum());
                    assert_eq!((h.source, h.destination, h.time_to_live), ([192, 0, 0, 8], V4[0], 64));
                    assert_eq!((ip_header[1], h.dont_fragment), (0xc0, false));
                    assert!(checksum::verify(&out.data()[20..]));
                    assert_eq!((i.type_u8(), i.code_u8()), (e.kind(), e.code()));
                    if let (Some(mtu), Icmpv4Type::DestinationUnreachable(d)) = (e.mtu(), i.icmp_type()) {
                        let want =
                            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu as u16 };
                        assert_eq!(d, want);
                    }
                }
                (NetSlice::Ipv6(h), TransportSlice::Icmpv6(i)) => {
                    let h = h.header().to_header();
                    assert_eq!((h.destination, h.hop_limit), (V6[0], 64));
                    assert!(i.is_checksum_valid(h.source, h.destination));
                    assert_eq!((i.type_u8(), i.code_u8()), (e.kind(), e.code()));
                    if let (Some(mtu), Icmpv6Type::PacketTooBig { mtu: told }) = (e.mtu(), i.icmp_type()) {
                        assert_eq!(told, mtu);
                    }
                }
                other => panic!("{other:?}"),
            }
            let inner = LaxSlicedPacket::from_ip(quote).unwrap();
            assert!(matches!(inner.transport, Some(TransportSlice::Udp(_))));
        }
    }
}

#[test]
fn small_frames_and_wrong_sources_are_refused() {
    let v = udp(Family::Inet, 100);
    let packet = Packet::parse(Family::Inet, &v).unwrap();
    let offender = Offender::of(&packet, &v);
    let e = IcmpError::time_exceeded(Family::Inet);
    let src = ip("192.0.2.9");
    assert_eq!(write_error(&mut Frame::with_capacity(27), &e, src, &offender), Err(DropReason::NoFrame));
    let mut out = Frame::with_capacity(40);
    write_error(&mut out, &e, src, &offender).unwrap();
    assert_eq!(out.len(), 40);
    let mut out = Frame::with_capacity(400);
    assert_eq!(write_error(&mut out, &e, ip("2001:db8::1"), &offender), Err(DropReason::MartianSource));
}

/// Proves rfc1122-3.2.2.6-echo, rfc4443-4.2-data, rfc6864-5.2-reply, rfc792-echo.
#[test]
fn echo_replies() {
    let mut v4 = Vec::new();
    PacketBuilder::ipv4(V4[0], V4[1], 3).icmpv4_echo_request(77, 5).write(&mut v4, &[1, 2, 3]).unwrap();
    // With a record route option between header and message, and DF set.
    let mut with_options = v4.clone();
    with_options.splice(20..20, [7, 7, 4, 0, 0, 0, 0, 0]);
    with_options[0] = 0x47;
    with_options[3] += 8;
    with_options[6] = 0x40;
    fill_ipv4_header(&mut with_options);
    let recorded = [&[7, 7, 8][..], &V4[1], &[0]].concat();
    for (request, options) in [(v4, vec![]), (with_options, recorded)] {
        let packet = Packet::parse(Family::Inet, &request).unwrap();
        let mut f = Frame::from_slice(&request);
        echo_reply(&mut f, &packet, packet.dst, (5, false), |a| packet.dst == a).unwrap();
        let p = SlicedPacket::from_ip(f.data()).unwrap();
        let (Some(NetSlice::Ipv4(h)), Some(TransportSlice::Icmpv4(i))) = (p.net, p.transport) else {
            panic!("not ICMP")
        };
        let h = h.header().to_header();
        assert_eq!((h.source, h.destination, h.time_to_live), (V4[1], V4[0], 64));
        assert_eq!(h.options[..], options[..], "the recorded way stays, with our address");
        assert_eq!(h.header_checksum, h.calc_header_checksum());
        assert!(checksum::verify(&f.data()[20 + options.len()..]) && !h.dont_fragment && h.identification != 0);
        let want = etherparse::IcmpEchoHeader { id: 77, seq: 5 };
        assert_eq!((i.icmp_type(), i.payload()), (Icmpv4Type::EchoReply(want), &[1u8, 2, 3][..]));
    }
    let mut v6 = Vec::new();
    PacketBuilder::ipv6(V6[0], V6[1], 3).icmpv6_echo_request(77, 5).write(&mut v6, &[1, 2, 3]).unwrap();
    let packet = Packet::parse(Family::Inet6, &v6).unwrap();
    // The second source is what a request to ff02::1 would get.
    for src in [packet.dst, ip("fe80::1")] {
        let mut f = Frame::from_slice(&v6);
        echo_reply(&mut f, &packet, src, (5, false), |a| src == a).unwrap();
        let p = SlicedPacket::from_ip(f.data()).unwrap();
        let (Some(NetSlice::Ipv6(h)), Some(TransportSlice::Icmpv6(i))) = (p.net, p.transport) else {
            panic!("not ICMP")
        };
        let h = h.header().to_header();
        assert_eq!((IpAddr::from(h.source), h.destination, h.hop_limit), (src, V6[0], 64));
        assert!(i.is_checksum_valid(h.source, h.destination));
        let want = etherparse::IcmpEchoHeader { id: 77, seq: 5 };
        assert_eq!((i.icmp_type(), i.payload()), (Icmpv6Type::EchoReply(want), &[1u8, 2, 3][..]));
        // A reply is not answered.
        let again = Packet::parse(Family::Inet6, f.data()).unwrap();
        let mut f = Frame::from_slice(f.data());
        assert_eq!(echo_reply(&mut f, &again, src, (5, false), |_| false), Err(DropReason::IcmpConsumed));
    }
}

/// Proves rfc1812-4.3.2.8, rfc4443-2.4-f, rfc4443-3.1-disable.
#[test]
fn rates_and_bursts() {
    let s = IcmpSettings { error_rate: 10, error_burst: 3, echo_rate: 0, ..IcmpSettings::default() };
    let mut l = Limiter::default();
    let at = Instant::from_millis;
    let mut count = |t: u64, kind| (0..10).filter(|_| l.allow(at(t), &s, kind, ip("192.0.2.9"))).count();
    assert_eq!(count(0, LimitKind::Error), 3, "a full bucket");
    assert_eq!(count(0, LimitKind::TooBig), 3, "one of its own");
    assert_eq!(count(99, LimitKind::Error), 0);
    assert_eq!(count(100, LimitKind::Error), 1);
    assert_eq!(count(300, LimitKind::Error), 2);
    assert_eq!(count(100_000, LimitKind::Error), 3, "never more than the burst");
    assert_eq!(count(100_000, LimitKind::Echo), 0, "rate 0 is none");
    let mut l = Limiter::default();
    let second = (0..1_000_000u64)
        .filter(|i| l.allow(at(5) + Duration::from_micros(*i), &s, LimitKind::Error, ip("192.0.2.9")))
        .count();
    assert_eq!(second, 3 + 9);
}

fn port(id: u16, addrs: &[&str]) -> Arc<PortInfo> {
    Arc::new(PortInfo {
        id: PortId(id.into()),
        name: format!("p{id}"),
        ifindex: u32::from(id) + 1,
        kind: PortKind::Memory,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0, id as u8])),
        mtu: 1500,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
    })
}

/// Proves rfc1122-3.2.1.3-source, rfc1122-3.2.1.3-own, rfc1812-4.3.2.4-source, rfc4443-2.2-unicast, rfc4443-2.2-other, rfc6724-5-rule-1,
/// rfc6724-5-rule-2, rfc6724-5-rule-5, rfc6724-5-rule-6, rfc6724-5-rule-8, rfc6724-5-tie, rfc4443-2.2-anycast,
/// rfc7600-5.4, draft-v4-via-v6-4-source.
/// Also proves rfc6724-5-candidates, rfc8504-6.6-selection.
/// Proves rfc1812-4.2.2.11-own.
#[test]
fn sources_in_order_of_preference() {
    // ports' addresses, router id, ingress, sender, destination, expected source
    type Row<'a> = (&'a [&'a [&'a str]], Option<&'a str>, u16, &'a str, &'a str, Option<&'a str>);
    let both: &[&[&str]] = &[&["10.0.1.1/24", "10.0.2.1/24", "2001:db8:1::1/64", "fe80::1/64"], &["10.0.3.1/24"]];
    let only6: &[&[&str]] = &[&["fe80::1/64"], &["2001:db8:2::1/64", "fe80::2/64"]];
    let several: &[&[&str]] = &[&["fd00:1::1/64", "2001:db8:8::1/64", "2001:db8:1::1/64", "fe80::1/64"]];
    let bare: &[&[&str]] = &[&["fe80::1/64"], &["fe80::2/64"], &["127.0.0.1/8", "::1/128"]];
    let rows: &[Row<'_>] = &[
        (both, None, 0, "198.51.100.1", "203.0.113.1", Some("10.0.1.1")),
        (both, None, 0, "10.0.2.9", "203.0.113.1", Some("10.0.2.1")),
        (both, Some("192.0.2.255"), 0, "10.0.2.9", "203.0.113.1", Some("192.0.2.255")),
        (both, Some("192.0.2.255"), 0, "10.0.2.9", "10.0.3.1", Some("10.0.3.1")),
        (both, None, 1, "198.51.100.1", "203.0.113.1", Some("10.0.3.1")),
        (both, None, 9, "198.51.100.1", "203.0.113.1", Some("10.0.1.1")),
        (both, None, 0, "fe80::99", "2001:db8:9::1", Some("fe80::1")),
        (both, None, 1, "2001:db8:9::9", "2001:db8:9::1", Some("2001:db8:1::1")),
        (only6, None, 0, "198.51.100.1", "203.0.113.1", Some("192.0.0.8")),
        (only6, None, 0, "2001:db8:9::9", "2001:db8:9::1", Some("2001:db8:2::1")),
        // RFC 6724 5 rules 6 and 8; the first of those that fit as well; RFC 4443 2.2 b: never the anycast address.
        (several, None, 0, "2001:db8:9::9", "2001:db8:77::1", Some("2001:db8:8::1")),
        (several, None, 0, "2001:db8:1::9", "2001:db8:77::1", Some("2001:db8:1::1")),
        (several, None, 0, "fd00:7::9", "2001:db8:77::1", Some("fd00:1::1")),
        (several, None, 0, "3000::9", "2001:db8:77::1", Some("2001:db8:8::1")),
        (several, None, 0, "2002:c000:204::9", "2001:db8:77::1", Some("2001:db8:8::1")),
        (several, None, 0, "2001:db8:9::9", "2001:db8:1::", Some("2001:db8:8::1")),
        (bare, None, 0, "2001:db8:9::9", "2001:db8:9::1", Some("fe80::1")),
        (bare, None, 2, "2001:db8:9::9", "2001:db8:9::1", None),
        (bare, None, 2, "198.51.100.1", "203.0.113.1", Some("192.0.0.8")),
    ];
    for (ports, id, ingress, src, dst, want) in rows {
        let table = ports.iter().enumerate().fold(PortTable::default(), |t, (i, addrs)| t.with(port(i as u16, addrs)));
        let settings = Settings { router_id: id.map(|i| i.parse().unwrap()), ..Settings::default() };
        let (src, dst) = (ip(src), ip(dst));
        let mut bytes = udp(Family::of(&src), 10);
        match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                bytes[12..16].copy_from_slice(&s.octets());
                bytes[16..20].copy_from_slice(&d.octets());
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                bytes[8..24].copy_from_slice(&s.octets());
                bytes[24..40].copy_from_slice(&d.octets());
            }
            _ => panic!("one family per row"),
        }
        let offender = Offender::refused(&bytes, false).unwrap();
        assert_eq!(
            error_source(&offender, PortId((*ingress).into()), &table, &settings),
            want.map(ip),
            "{src} to {dst}"
        );
    }
}

#[test]
fn errors_have_names() {
    assert_eq!(IcmpError::too_big(Family::Inet6, 1480).to_string(), "packet too big, mtu 1480");
    assert_eq!(IcmpError::unreachable_v4(UnreachableV4::HostTos).to_string(), "type 3 code 12");
    assert_eq!(IcmpError::unreachable_v6(UnreachableV6::Port).to_string(), "port unreachable");
}

proptest! {
    #[test]
    fn mutated_packets_never_panic_and_answers_are_never_answered(
        v6 in any::<bool>(), proto in prop_oneof![Just(17u8), Just(1), Just(58), Just(0), Just(60), Just(44), any::<u8>()],
        body in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..150,
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4), fix in any::<bool>(),
        reason in 0..DropReason::COUNT, param in any::<u32>(), group in any::<bool>(), capacity in 0usize..1400,
    ) {
        let family = if v6 { Family::Inet6 } else { Family::Inet };
        let mut v = of_proto(family, proto, &body);
        v.truncate(cut);
        for (at, value) in changes {
            let n = v.len();
            if n > 0 { v[usize::from(at) % n] = value; }
        }
        if fix && !v6 { fill_ipv4_header(&mut v); }
        let reason = DropReason::ALL[reason];
        let parsed = Packet::parse(family, &v).ok();
        let offenders = [parsed.as_ref().map(|p| Offender::of(p, &v)), Offender::refused(&v, group)];
        for o in offenders.iter().flatten() {
            let Some(e) = error_for(reason, param, o) else { continue };
            let src = if e.family() == Family::Inet { ip("192.0.0.8") } else { ip("2001:db8::8") };
            let mut out = Frame::with_capacity(capacity);
            if write_error(&mut out, &e, src, o).is_ok() {
                let answer = Packet::parse(e.family(), out.data()).unwrap();
                prop_assert_eq!(answer.len as usize, out.len());
                let again = Offender::of(&answer, out.data());
                prop_assert!(!again.may_be_answered_with(&IcmpError::time_exceeded(e.family())));
            }
        }
        if let Some(p) = parsed {
            let mut f = Frame::from_slice(&v);
            let _ = echo_reply(&mut f, &p, p.dst, (5, true), |_| true);
        }
    }
}
