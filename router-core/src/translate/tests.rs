//! Packets through a stateless translator, there and back, with etherparse as the second opinion on every checksum.

use super::*;
use crate::checksum::{self, fill_ipv4_header};
use crate::frame::{Gso, GsoKind, PartialChecksum};
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv6Header, Ipv6HeaderSlice, NetSlice, SlicedPacket,
    TransportSlice,
};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const A4: [u8; 4] = [198, 51, 100, 7];
const B4: [u8; 4] = [203, 0, 113, 9];
const PREFIX: &str = "2001:db8:64::/96";

fn translator(change: impl FnOnce(&mut TranslatorSpec)) -> Translator {
    let mut spec = TranslatorSpec::new("xlat", TranslateMode::Siit);
    spec.prefix = Some(PREFIX.parse().unwrap());
    change(&mut spec);
    spec.check(false).unwrap();
    Translator::new(&spec, PortId(9), None).unwrap()
}

fn parse(frame: &Frame) -> Packet {
    let family = Packet::sniff(frame.data()).unwrap();
    let mut p = Packet::parse(family, frame.data()).unwrap();
    if frame.meta.gso.is_some() {
        p.wire_len = crate::offload::largest_segment(frame, &p);
    }
    p
}

fn run(t: &Translator, frame: &mut Frame) -> Result<(), Refusal> {
    let p = parse(frame);
    t.check(Instant::ZERO, &p, frame.data())?;
    t.translate(Instant::ZERO, &p, frame, 0x4242).map_err(Refusal::Drop)
}

fn through(t: &Translator, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut f = Frame::from_slice(packet);
    run(t, &mut f).map(|()| f.data().to_vec())
}

fn dropped(t: &Translator, packet: &[u8]) -> DropReason {
    match through(t, packet) {
        Err(Refusal::Drop(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn v4(proto: u8, field: u16, l4: &[u8]) -> Vec<u8> {
    let mut h = Ipv4Header::new(l4.len() as u16, 64, IpNumber(proto), A4, B4).unwrap();
    h.identification = 0x1234;
    let mut v = h.to_bytes().to_vec();
    v[1] = 0xb9;
    v[6..8].copy_from_slice(&field.to_be_bytes());
    fill_ipv4_header(&mut v);
    v.extend(l4);
    v
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let to = |a: [u8; 4]| PREFIX.parse::<Prefix>().unwrap().embed(a.into()).octets();
    let h = Ipv6Header {
        traffic_class: 0xb9,
        flow_label: 0x12345.try_into().unwrap(),
        payload_length: rest.len() as u16,
        next_header: IpNumber(next),
        hop_limit: 64,
        source: to(A4),
        destination: to(B4),
    };
    [h.to_bytes().as_slice(), rest].concat()
}

/// A transport header and payload with a right checksum for IPv4 (`six` false) or IPv6.
fn segment(proto: u8, six: bool, payload: &[u8]) -> Vec<u8> {
    let mut l4 = match proto {
        6 => {
            let mut t = vec![0x30, 0x39, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
            t.extend(payload);
            t
        }
        17 => {
            let mut u = vec![0x30, 0x39, 0, 53, 0, 0, 0, 0];
            u[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
            u.extend(payload);
            u
        }
        _ => {
            let mut i = vec![if six { 128 } else { 8 }, 0, 0, 0, 0xab, 0xcd, 0, 3];
            i.extend(payload);
            i
        }
    };
    let sample = if six { v6(proto, &[]) } else { v4(proto, 0, &[]) };
    let addresses = if six { &sample[8..40] } else { &sample[12..20] };
    let at = match proto {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    let mut sum = checksum::Sum::ZERO;
    if six || proto != 1 {
        sum = checksum::Sum::of(addresses).word(u16::from(proto)).long(l4.len() as u32);
    }
    let check = sum.bytes(&l4).finish_udp();
    l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
    l4
}

/// Asks etherparse whether all checksums of a whole packet are right.
fn etherparse_agrees(packet: &[u8]) {
    let s = SlicedPacket::from_ip(packet).unwrap();
    let (payload, v4, v6): (Vec<u8>, Option<Ipv4Header>, Option<Ipv6Header>) = match s.net.unwrap() {
        NetSlice::Ipv4(n) => {
            let h = n.header().to_header();
            assert_eq!(h.calc_header_checksum(), h.header_checksum);
            (n.payload().payload.to_vec(), Some(h), None)
        }
        NetSlice::Ipv6(n) => (n.payload().payload.to_vec(), None, Some(n.header().to_header())),
        other => panic!("{other:?}"),
    };
    match s.transport.unwrap() {
        TransportSlice::Tcp(t) => {
            let h = t.to_header();
            let want = match (&v4, &v6) {
                (Some(ip), _) => h.calc_checksum_ipv4(ip, t.payload()).unwrap(),
                (_, Some(ip)) => h.calc_checksum_ipv6(ip, t.payload()).unwrap(),
                _ => unreachable!(),
            };
            assert_eq!(h.checksum, want);
        }
        TransportSlice::Udp(u) => {
            let h = u.to_header();
            let want = match (&v4, &v6) {
                (Some(ip), _) => h.calc_checksum_ipv4(ip, u.payload()).unwrap(),
                (_, Some(ip)) => h.calc_checksum_ipv6(ip, u.payload()).unwrap(),
                _ => unreachable!(),
            };
            assert!(h.checksum == want || (h.checksum == 0 && v4.is_some()), "{:04x} {want:04x}", h.checksum);
        }
        TransportSlice::Icmpv4(i) => {
            let h = i.header();
            assert_eq!(h.icmp_type.calc_checksum(i.payload()), h.checksum);
        }
        TransportSlice::Icmpv6(i) => {
            let ip = v6.unwrap();
            assert!(i.is_checksum_valid(ip.source, ip.destination), "{payload:02x?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc7915_4_1_and_5_1_header_fields() {
    let t = translator(|_| {});
    let out = through(&t, &v4(17, 0x4000, &segment(17, false, b"hello"))).unwrap();
    let h = Ipv6HeaderSlice::from_slice(&out).unwrap();
    assert_eq!((h.version(), h.traffic_class(), h.flow_label().value()), (6, 0xb9, 0));
    assert_eq!((h.payload_length(), h.next_header(), h.hop_limit()), (13, IpNumber(17), 64));
    assert_eq!(h.source_addr(), "2001:db8:64::198.51.100.7".parse::<Ipv6Addr>().unwrap());
    assert_eq!(h.destination_addr(), "2001:db8:64::203.0.113.9".parse::<Ipv6Addr>().unwrap());
    etherparse_agrees(&out);
    // 5.1: up to 1260 bytes without DF and with an identification, above with DF.
    for (payload, df) in [(1232, false), (1233, true)] {
        let out = through(&t, &v6(17, &segment(17, true, &vec![7; payload]))).unwrap();
        let h = Ipv4HeaderSlice::from_slice(&out).unwrap();
        assert_eq!((h.dcp().value() << 2 | h.ecn().value(), h.ttl(), h.protocol()), (0xb9, 64, IpNumber(17)));
        assert_eq!((h.dont_fragment(), h.more_fragments(), h.identification()), (df, false, 0x4242), "{payload}");
        etherparse_agrees(&out);
    }
    let t = translator(|s| s.ignore_tos = true);
    let out = through(&t, &v4(17, 0, &segment(17, false, b""))).unwrap();
    assert_eq!(Ipv6HeaderSlice::from_slice(&out).unwrap().traffic_class(), 0);
}

#[test]
fn rfc7915_4_1_options_go() {
    let l4 = segment(17, false, b"x");
    let mut p = v4(17, 0x4000, &l4);
    p.splice(20..20, [7, 4, 4, 0]);
    (p[0], p[3]) = (0x46, p[3] + 4);
    fill_ipv4_header(&mut p);
    let out = through(&translator(|_| {}), &p).unwrap();
    assert_eq!(out.len(), 40 + l4.len());
    etherparse_agrees(&out);
}

#[test]
fn rfc7915_fragments_both_ways() {
    let t = translator(|_| {});
    let l4 = segment(17, false, &[1; 1000]);
    for (field, piece) in [(0x2000u16, &l4[..504]), (63, &l4[504..])] {
        let out = through(&t, &v4(17, field, piece)).unwrap();
        let h = Ipv6HeaderSlice::from_slice(&out).unwrap();
        assert_eq!(h.next_header(), IpNumber(44));
        assert_eq!(
            out[40..48],
            [17, 0, (field << 3 >> 8) as u8, (field << 3) as u8 | (field >> 13) as u8, 0, 0, 0x12, 0x34]
        );
        // And back: the same fragment, DF clear, the identification's low half.
        let back = through(&t, &out).unwrap();
        assert_eq!(back, v4(17, field, piece));
    }
    // Both pieces together have the right checksum over the translated addresses.
    let first = through(&t, &v4(17, 0x2000, &l4[..504])).unwrap();
    let mut whole = v6(17, &[&first[48..], &l4[504..]].concat());
    whole[..40].copy_from_slice(&v6(17, &[0; 1008])[..40]);
    etherparse_agrees(&whole);
    // 5.1.1: an atomic fragment is a whole packet that may be fragmented.
    let l4 = segment(17, true, &[1; 1400]);
    let out = through(&t, &v6(44, &[&[17, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef], l4.as_slice()].concat())).unwrap();
    let h = Ipv4HeaderSlice::from_slice(&out).unwrap();
    assert_eq!((h.dont_fragment(), h.more_fragments(), h.identification()), (false, false, 0xbeef));
    etherparse_agrees(&out);
}

#[test]
fn what_is_dropped_and_why() {
    use DropReason as R;
    let t = translator(|_| {});
    let udp0 = [0x30, 0x39, 0, 53, 0, 9, 0, 0, 7];
    let icmp = |kind: u8| {
        let mut m = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        let c = checksum::checksum(&m);
        m[2..4].copy_from_slice(&c.to_be_bytes());
        m
    };
    let icmp6 = |kind: u8| {
        let mut m = segment(58, true, b"");
        let (old, new) = (u16::from(m[0]) << 8, u16::from(kind) << 8);
        m[0] = kind;
        let c = checksum::update_u16(u16::from_be_bytes([m[2], m[3]]), old, new);
        m[2..4].copy_from_slice(&c.to_be_bytes());
        m
    };
    let rows: Vec<(&str, Vec<u8>, R)> = vec![
        ("7915 1.2 fragmented ICMP", v4(1, 0x2000, &segment(1, false, &[0; 8])), R::TranslateFragment),
        ("7915 1.2 later ICMP fragment", v4(1, 3, &[0; 8]), R::TranslateFragment),
        (
            "7915 1.2 fragmented ICMPv6",
            v6(44, &[58, 0, 0, 1, 0, 0, 0, 1, 128, 0, 0, 0, 0, 0, 0, 0]),
            R::TranslateFragment,
        ),
        ("7915 4.5 fragment without checksum", v4(17, 0x2000, &[&udp0[..], &[0; 7]].concat()), R::TranslateUdpChecksum),
        ("7915 4.2 timestamp", v4(1, 0, &icmp(13)), R::TranslateIcmp),
        ("7915 4.2 redirect", v4(1, 0, &icmp(5)), R::TranslateIcmp),
        ("7915 4.2 source quench", v4(1, 0, &icmp(4)), R::TranslateIcmp),
        ("7915 5.2 multicast listener report", v6(58, &icmp6(131)), R::TranslateIcmp),
        ("7915 5.2 neighbour solicitation", v6(58, &icmp6(135)), R::TranslateIcmp),
        ("7915 5.1 routing header", v6(43, &[17, 0, 4, 1, 0, 0, 0, 0]), R::TranslateRouting),
        ("ICMPv6 in IPv4", v4(58, 0, &[128, 0, 0, 0, 0, 0, 0, 0]), R::TranslateProtocol),
        ("fragment header in IPv4", v4(44, 0, &[17, 0, 0, 0, 0, 0, 0, 0]), R::TranslateProtocol),
        ("ICMPv4 in IPv6", v6(1, &[8, 0, 0, 0, 0, 0, 0, 0]), R::TranslateProtocol),
        ("cut UDP", v4(17, 0, &[0, 1]), R::TranslateMalformed),
    ];
    for (what, packet, reason) in rows {
        assert_eq!(dropped(&t, &packet), reason, "{what}");
    }
    let mut foreign = v6(17, &segment(17, true, b""));
    foreign[8] = 0x3f;
    assert_eq!(dropped(&t, &foreign), R::TranslateSource);
    foreign = v6(17, &segment(17, true, b""));
    foreign[24] = 0x3f;
    assert_eq!(dropped(&t, &foreign), R::TranslateDestination);
    let t = translator(|s| s.udp_zero_checksum = UdpZero::Drop);
    assert_eq!(dropped(&t, &v4(17, 0, &udp0)), R::TranslateUdpChecksum);
}

#[test]
fn rfc6052_3_1_well_known_prefix_and_non_global() {
    let wkp = |allow| {
        translator(|s| {
            s.prefix = Some(Prefix::WELL_KNOWN);
            s.allow_non_global = allow;
        })
    };
    let p = v4(17, 0, &segment(17, false, b"x"));
    assert_eq!(dropped(&wkp(false), &p), DropReason::TranslateSource);
    let before = u16::from_be_bytes([p[26], p[27]]);
    let out = through(&wkp(true), &p).unwrap();
    // RFC 6052 4.1: checksum-neutral.
    assert_eq!(u16::from_be_bytes([out[46], out[47]]), before);
    etherparse_agrees(&out);
}

#[test]
fn rfc7915_4_5_udp_without_checksum_gets_one() {
    let mut l4 = segment(17, false, b"some payload");
    l4[6..8].fill(0);
    let out = through(&translator(|_| {}), &v4(17, 0, &l4)).unwrap();
    assert_ne!(out[46..48], [0, 0]);
    etherparse_agrees(&out);
}

#[test]
fn rfc7757_maps_and_hairpin() {
    let t = translator(|s| {
        s.map = vec!["198.51.100.7 = 2001:db8:1::7".parse().unwrap(), "203.0.113.9 = 2001:db8:2::9".parse().unwrap()]
    });
    let out = through(&t, &v4(6, 0x4000, &segment(6, false, b"x"))).unwrap();
    let h = Ipv6HeaderSlice::from_slice(&out).unwrap();
    assert_eq!(
        (h.source_addr(), h.destination_addr()),
        ("2001:db8:1::7".parse().unwrap(), "2001:db8:2::9".parse().unwrap())
    );
    etherparse_agrees(&out);
    let back = through(&t, &out).unwrap();
    let h = Ipv4HeaderSlice::from_slice(&back).unwrap();
    assert_eq!((h.source(), h.destination()), (A4, B4));
    // RFC 7757 4.2: just translated here; the source must lead back to the translator.
    let mut f = Frame::from_slice(&back);
    f.meta.port = PortId(9);
    run(&t, &mut f).unwrap();
    let h = Ipv6HeaderSlice::from_slice(f.data()).unwrap();
    assert_eq!(h.source_addr(), "2001:db8:64::198.51.100.7".parse::<Ipv6Addr>().unwrap());
    assert_eq!(h.destination_addr(), "2001:db8:2::9".parse::<Ipv6Addr>().unwrap());
    etherparse_agrees(f.data());
}

#[test]
fn rfc6877_clat_knows_its_own() {
    let mut spec = TranslatorSpec::new("clat", TranslateMode::Clat);
    spec.prefix = Some(PREFIX.parse().unwrap());
    spec.map = vec!["198.51.100.7 = 2001:db8:1::464".parse().unwrap()];
    let t = Translator::new(&spec, PortId(9), None).unwrap();
    let out = through(&t, &v4(17, 0, &segment(17, false, b"x"))).unwrap();
    let h = Ipv6HeaderSlice::from_slice(&out).unwrap();
    assert_eq!(h.source_addr(), "2001:db8:1::464".parse::<Ipv6Addr>().unwrap());
    assert_eq!(h.destination_addr(), "2001:db8:64::203.0.113.9".parse::<Ipv6Addr>().unwrap());
    // Another IPv4 host behind it is not one of its own, although the prefix could represent it.
    let mut other = v4(17, 0, &segment(17, false, b"x"));
    other[15] = 8;
    fill_ipv4_header(&mut other);
    assert_eq!(dropped(&t, &other), DropReason::TranslateSource);
    // What comes back is for the mapped address alone.
    assert_eq!(dropped(&t, &v6(17, &segment(17, true, b"x"))), DropReason::TranslateDestination);
}

/// An ICMP error of the family of `quote` with these first bytes behind its IP header.
fn error(kind: u8, code: u8, word: u32, body: &[u8], six: bool) -> Vec<u8> {
    let mut m = vec![kind, code, 0, 0];
    m.extend(word.to_be_bytes());
    m.extend(body);
    if six {
        let p = v6(58, &m);
        let sum = checksum::Sum::of(&p[8..40]).word(58).long(m.len() as u32).bytes(&m).finish();
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        v6(58, &m)
    } else {
        let sum = checksum::checksum(&m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        v4(1, 0, &m)
    }
}

/// The packet that the errors of these tests are about: from B to A.
fn about(packet: &[u8]) -> Vec<u8> {
    let mut p = packet.to_vec();
    if p[0] >> 4 == 4 {
        let (a, b) = p[12..20].split_at_mut(4);
        a.swap_with_slice(b);
    } else {
        let (a, b) = p[8..40].split_at_mut(16);
        a.swap_with_slice(b);
    }
    p
}

#[test]
fn rfc7915_4_3_quoted_packets_whole_and_cut() {
    let t = translator(|_| {});
    for proto in [6u8, 17, 1] {
        let original = about(&v4(proto, 0x4000, &segment(proto, false, &[9; 40])));
        let six = if proto == 1 { 58 } else { proto };
        let mut want = about(&v6(six, &segment(six, true, &[9; 40])));
        want[1] = 0x90; // quoted without flow label
        want[2..4].fill(0);
        for keep in [28, 36, original.len()] {
            let out = through(&t, &error(11, 0, 0, &original[..keep], false)).unwrap();
            etherparse_agrees(&out);
            assert_eq!(out[40..42], [3, 0]);
            // Byte for byte what the IPv6 side had sent, its checksum included.
            assert_eq!(out[48..], want[..keep + 20], "proto {proto} cut to {keep}");
            // And back.
            let back = through(&t, &out).unwrap();
            etherparse_agrees(&back);
            assert_eq!(back[20..22], [11, 0]);
            let mut quoted = original[..keep].to_vec();
            // What RFC 7915 does not carry: the identification.
            quoted[4..6].fill(0);
            fill_ipv4_header(&mut quoted);
            assert_eq!(back[28..], quoted, "proto {proto} cut to {keep}");
        }
    }
}

#[test]
fn mtu_is_told_for_the_other_header() {
    let t = translator(|_| {});
    let quote = about(&v4(17, 0x4000, &segment(17, false, &[9; 1400])));
    let out = through(&t, &error(3, 4, 1300, &quote[..28], false)).unwrap();
    assert_eq!((&out[40..42], &out[44..48]), (&[2u8, 0][..], &1320u32.to_be_bytes()[..]));
    let quote = about(&v6(17, &segment(17, true, &[9; 1400])));
    let out = through(&t, &error(2, 0, 1300, &quote[..1200], true)).unwrap();
    assert_eq!((&out[20..22], &out[24..28]), (&[3u8, 4][..], &1280u32.to_be_bytes()[..]));
    etherparse_agrees(&out);
}

#[test]
fn errors_about_errors_are_dropped() {
    let t = translator(|_| {});
    let inner = about(&error(3, 1, 0, &v4(17, 0, &segment(17, false, b"")), false));
    assert_eq!(dropped(&t, &error(11, 0, 0, &inner, false)), DropReason::TranslateIcmp);
    let mut bad = error(11, 0, 0, &about(&v4(17, 0, &segment(17, false, b"")))[..28], false);
    bad[30] ^= 1;
    assert_eq!(dropped(&t, &bad), DropReason::TranslateMalformed, "a wrong checksum is not made right");
}

#[test]
fn rfc6791_errors_from_routers_without_counterpart() {
    for (sources, want) in [(vec!["192.0.2.99"], [192, 0, 2, 99]), (vec![], [192, 0, 0, 8])] {
        let t = translator(|s| s.error_source = sources.iter().map(|a| a.parse().unwrap()).collect());
        let quote = about(&v6(17, &segment(17, true, b"x")));
        let mut p = error(3, 0, 0, &quote, true);
        let old = [p[8], p[9]];
        p[8..10].copy_from_slice(&[0x3f, 0xff]);
        let c = checksum::update_bytes(u16::from_be_bytes([p[42], p[43]]), &old, &[0x3f, 0xff]);
        p[42..44].copy_from_slice(&c.to_be_bytes());
        let out = through(&t, &p).unwrap();
        assert_eq!(out[12..16], want);
        etherparse_agrees(&out);
    }
}

#[test]
fn rfc4884_extensions_keep_their_place() {
    let t = translator(|_| {});
    let extension = [0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 0, 0x11, 0x01];
    let mut quote = about(&v4(17, 0x4000, &segment(17, false, &[9; 200])))[..128].to_vec();
    quote.extend(extension);
    // ICMPv4: 32 words; ICMPv6: in units of eight bytes, the quote grown by 20 and padded to a multiple of eight.
    let out = through(&t, &error(11, 0, 32 << 16, &quote, false)).unwrap();
    etherparse_agrees(&out);
    assert_eq!(out[44..48], [19, 0, 0, 0]);
    assert_eq!(out[48 + 152..], extension);
    let back = through(&t, &out).unwrap();
    etherparse_agrees(&back);
    let words = usize::from(back[25]);
    assert_eq!((words * 4, &back[28 + words * 4..]), (132, &extension[..]));
    // A type that cannot carry one goes without.
    let out = through(&t, &error(3, 4, (32 << 16) | 1400, &quote, false)).unwrap();
    assert_eq!((out[40], &out[44..48], out.len()), (2, &1420u32.to_be_bytes()[..], 48 + 148));
    etherparse_agrees(&out);
}

#[test]
fn long_quotes_end_at_the_least_mtu() {
    let quote = about(&v4(17, 0x4000, &segment(17, false, &[9; 1400])));
    let out = through(&translator(|_| {}), &error(11, 0, 0, &quote, false)).unwrap();
    assert_eq!(out.len(), 1280);
    etherparse_agrees(&out);
}

#[test]
fn rfc7915_4_what_is_cut_and_where() {
    let t = translator(|_| {});
    let way = |packet: &[u8]| t.way(&parse(&Frame::from_slice(packet)));
    let udp = |n: usize, field| v4(17, field, &segment(17, false, &vec![0; n]));
    assert_eq!(way(&udp(1232, 0)), Way::Whole);
    assert_eq!(way(&udp(1233, 0)), Way::CutAfter { mtu: 1280 });
    assert_eq!(way(&udp(1233, 0x4000)), Way::Whole);
    assert_eq!(way(&udp(1224, 0x2000)), Way::Whole);
    assert_eq!(way(&udp(1232, 0x2000)), Way::CutFirst { mtu: 1252 });
    assert_eq!(way(&v4(47, 0, &[0; 1300])), Way::CutFirst { mtu: 1252 });
    assert_eq!(way(&v6(17, &segment(17, true, &[0; 1400]))), Way::Whole);
}

#[test]
fn offloads_are_translated_too() {
    let t = translator(|_| {});
    for (kind, back, proto, at) in
        [(GsoKind::TcpV4, GsoKind::TcpV6, 6u8, 16usize), (GsoKind::UdpL4, GsoKind::UdpL4, 17, 6)]
    {
        let mut l4 = segment(proto, false, &[5; 4000]);
        let pseudo = checksum::pseudo_v4(A4.into(), B4.into(), proto, l4.len() as u32).fold();
        l4[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut f = Frame::from_slice(&v4(proto, 0x4000, &l4));
        f.meta.csum = Some(PartialChecksum { start: 20, offset: at as u16 });
        f.meta.gso = Some(Gso { kind, size: 1000, ecn: false });
        run(&t, &mut f).unwrap();
        assert_eq!(f.meta.gso.unwrap().kind, back);
        assert_eq!(f.meta.csum, Some(PartialChecksum { start: 40, offset: at as u16 }));
        let p = parse(&f);
        assert_eq!(p.wire_len, 40 + 1000 + if proto == 6 { 20 } else { 8 });
        let mut whole = f.clone();
        whole.meta.gso = None;
        crate::offload::complete_checksum(&mut whole).unwrap();
        etherparse_agrees(whole.data());
        run(&t, &mut f).unwrap();
        assert_eq!((f.meta.gso.unwrap().kind, f.meta.csum.unwrap().start), (kind, 20));
        f.meta.gso = None;
        crate::offload::complete_checksum(&mut f).unwrap();
        etherparse_agrees(f.data());
    }
}

fn prefixes() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122::/48",
        "2001:db8:122:300::/56",
        "2001:db8:122:344::/64",
        "2001:db8:64::/96",
        "64:ff9b::/96",
    ])
}

proptest! {
    #[test]
    fn four_six_four_gives_the_packet_back(
        prefix in prefixes(), src in any::<u32>(), dst in any::<u32>(), proto in prop::sample::select(vec![6u8, 17, 1, 50, 132]),
        payload in prop::collection::vec(any::<u8>(), 20..1300), tos in any::<u8>(), ttl in 1u8.., id in any::<u16>(),
        df in any::<bool>(), ports in any::<[u8; 4]>(),
    ) {
        let t = translator(|s| {
            s.prefix = Some(prefix.parse().unwrap());
            s.allow_non_global = true;
        });
        let mut l4 = segment(proto, false, &payload);
        if proto > 17 { l4 = payload.clone(); } else if proto != 1 { l4[..4].copy_from_slice(&ports); }
        let mut p = v4(proto, if df { 0x4000 } else { 0 }, &l4);
        p[1] = tos;
        p[8] = ttl;
        p[4..6].copy_from_slice(&id.to_be_bytes());
        p[12..16].copy_from_slice(&src.to_be_bytes());
        p[16..20].copy_from_slice(&dst.to_be_bytes());
        fill_ipv4_header(&mut p);
        if proto == 6 || proto == 17 {
            let at = 20 + if proto == 6 { 16 } else { 6 };
            p[at..at + 2].fill(0);
            let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
            let c = checksum::pseudo_v4(src, dst, proto, l4.len() as u32).bytes(&p[20..]).finish_udp();
            p[at..at + 2].copy_from_slice(&c.to_be_bytes());
        }
        let six = through(&t, &p).unwrap();
        if proto <= 17 { etherparse_agrees(&six); }
        prop_assert_eq!(six.len(), p.len() + 20);
        let mut back = through(&t, &six).unwrap();
        if proto <= 17 { etherparse_agrees(&back); }
        // Identification and DF are what RFC 7915 5.1 says; all else is as it was. One's complement has two zeros.
        prop_assert_eq!(back[6] & 0x40 != 0, p.len() > 1260);
        back[4..8].copy_from_slice(&p[4..8]);
        fill_ipv4_header(&mut back);
        prop_assert_eq!(back, p);
    }

    #[test]
    fn nothing_breaks_it(mut bytes in prop::collection::vec(any::<u8>(), 20..200), six in any::<bool>(), proto in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 50, 51, 58, 60])) {
        // Any bytes behind a plausible head: no panic, and whatever comes out parses.
        let n = bytes.len() as u16;
        if six && bytes.len() >= 40 {
            bytes[..7].copy_from_slice(&[0x60, 0, 0, 0, ((n - 40) >> 8) as u8, (n - 40) as u8, proto]);
            bytes[8..40].copy_from_slice(&v6(6, &[])[8..40]);
        } else {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&n.to_be_bytes());
            bytes[9] = proto;
            fill_ipv4_header(&mut bytes);
        }
        let t = translator(|_| {});
        let mut f = Frame::from_slice(&bytes);
        let Ok(p) = Packet::sniff(&bytes).and_then(|family| Packet::parse(family, &bytes)) else { return Ok(()) };
        if t.check(Instant::ZERO, &p, &bytes).is_ok() && t.translate(Instant::ZERO, &p, &mut f, 1).is_ok() {
            let family = Packet::sniff(f.data()).unwrap();
            prop_assert_ne!(family, p.family);
            let out = Packet::parse(family, f.data()).unwrap();
            prop_assert_eq!(out.len as usize, f.len());
        }
    }
}

#[test]
fn second_opinion_knows_the_types() {
    // Guards the helper above: etherparse names what it checked.
    let s = through(&translator(|_| {}), &v4(1, 0, &segment(1, false, b"x"))).unwrap();
    match SlicedPacket::from_ip(&s).unwrap().transport.unwrap() {
        TransportSlice::Icmpv6(i) => assert!(matches!(i.icmp_type(), Icmpv6Type::EchoRequest(_))),
        other => panic!("{other:?}"),
    }
    let back = through(&translator(|_| {}), &s).unwrap();
    match SlicedPacket::from_ip(&back).unwrap().transport.unwrap() {
        TransportSlice::Icmpv4(i) => assert!(matches!(i.icmp_type(), Icmpv4Type::EchoRequest(_))),
        other => panic!("{other:?}"),
    }
}
