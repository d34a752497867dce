//! ARP and neighbour discovery messages: each check of the RFCs, and the talk between two tables.

use super::arp::Arp;
use super::ndp::{self, Ndp};
use super::*;
use crate::addr::{Family, MacAddr};
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::settings::NeighborSettings;
use crate::spec::NudState;
use crate::time::Instant;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv6Addr};

const NOW: Instant = Instant::from_millis(1000);

fn port(n: u8, vlan: Option<u16>, addrs: &[&str]) -> PortInfo {
    PortInfo {
        id: PortId(u32::from(n)),
        name: format!("p{n}"),
        ifindex: u32::from(n),
        kind: PortKind::Memory,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0, n])),
        mtu: 1500,
        vlan,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

fn router() -> PortInfo {
    port(1, None, &["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"])
}

fn host() -> PortInfo {
    port(2, None, &["192.0.2.2/24", "2001:db8::2/64", "fe80::2/64"])
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// One end of a link.
struct End {
    port: PortInfo,
    table: NeighborTable,
    events: Vec<NeighborEvent>,
}

impl End {
    fn new(port: PortInfo) -> End {
        End { port, table: NeighborTable::new(1), events: Vec::new() }
    }

    /// Takes an Ethernet frame in; returns what became of it, and the answer.
    fn receive(&mut self, f: &Frame) -> (Result<Outcome, DropReason>, Frame) {
        let s = NeighborSettings::default();
        let mut f = f.clone();
        let link = crate::headers::ethernet::receive(&mut f, &self.port).unwrap();
        let mut answer = Frame::with_capacity(200);
        let (table, port, events) = (&mut self.table, &self.port, &mut self.events);
        let outcome = if f.data()[0] == 0 {
            table.arp_input(NOW, &s, port, ArpReceived::new(f.data()), &mut answer, events)
        } else {
            let packet = Packet::parse(Family::Inet6, f.data()).unwrap();
            let received = NdpReceived { packet: &packet, data: f.data(), from: Some(link.src), tentative: None };
            table.ndp_input(NOW, &s, port, &received, &mut answer, events)
        };
        (outcome, answer)
    }

    fn ask(&mut self, target: &str) -> Frame {
        let (s, target) = (NeighborSettings::default(), target.parse().unwrap());
        self.table.resolve(NOW, &s, self.port.id, target, Some(Frame::from_slice(&[9])), &mut self.events);
        let mut f = Frame::with_capacity(200);
        write_solicit(&mut f, &self.port, target, None).unwrap();
        f
    }

    fn state(&self, addr: &str) -> Option<NudState> {
        self.table.get(self.port.id, addr.parse().unwrap()).map(|n| n.state)
    }
}

/// Proves rfc4861-7.2.3-ns, rfc826-reception-reply, rfc826-generation, rfc8504-5.4-nd.
/// Also proves rfc826-reception-order.
#[test]
fn two_ends_find_each_other() {
    for (asks, answers) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "fe80::2"), ("fe80::1", "fe80::2")] {
        for vlan in [None, Some(77)] {
            let (mut a, mut b) = (End::new(host()), End::new(router()));
            (a.port.vlan, b.port.vlan) = (vlan, vlan);
            let question = a.ask(asks);
            let (outcome, answer) = b.receive(&question);
            assert_eq!(outcome, Ok(Outcome::Answer));
            assert_eq!(b.state(answers), Some(NudState::Stale), "who asks us is remembered");
            assert_eq!(a.receive(&answer).0, Ok(Outcome::Used));
            assert_eq!(a.state(asks), Some(NudState::Reachable));
            assert!(matches!(a.events.last(), Some(NeighborEvent::Release { frames, .. }) if frames.len() == 1));
            // Asked again, alone.
            let mut probe = Frame::with_capacity(200);
            write_solicit(&mut probe, &a.port, asks.parse().unwrap(), b.port.mac).unwrap();
            assert_eq!(b.receive(&probe).0, Ok(Outcome::Answer));
        }
    }
}

#[test]
fn a_port_without_ipv4_address_still_gets_answers() {
    let (mut a, mut b) = (End::new(port(2, None, &["fe80::2/64"])), End::new(router()));
    let question = a.ask("192.0.2.1");
    let (outcome, answer) = b.receive(&question);
    assert_eq!((outcome, b.table.len()), (Ok(Outcome::Answer), 0), "a probe leaves no entry");
    assert_eq!(a.receive(&answer).0, Ok(Outcome::Used));
    assert_eq!(a.state("192.0.2.1"), Some(NudState::Reachable));
}

/// Proves rfc826-generation.
#[test]
fn arp_source_prefers_the_targets_link() {
    let p = port(1, None, &["10.0.0.1/24", "192.0.2.1/24"]);
    let sender = |t: &str| Arp::question(&p, t.parse().unwrap()).unwrap().sender.to_string();
    assert_eq!((sender("192.0.2.7"), sender("203.0.113.1")), ("192.0.2.1".into(), "10.0.0.1".into()));
}

fn arp_frame(p: &PortInfo, arp: Arp) -> Frame {
    let mut f = Frame::with_capacity(100);
    arp.write(&mut f, p, MacAddr::BROADCAST).unwrap();
    f
}

/// Proves rfc826-reception-merge, rfc826-reception-add.
/// Also proves rfc826-reception-newer.
#[test]
fn rfc_826_who_is_remembered() {
    let h = host();
    let mut end = End::new(router());
    let question = |target: &str| Arp::question(&h, target.parse().unwrap()).unwrap();
    let ignored = Ok(Outcome::Ignored(DropReason::LocalIgnored));
    // Questions for others and announcements make no entry.
    assert_eq!(end.receive(&arp_frame(&h, question("192.0.2.77"))).0, ignored);
    let announcement = Arp::announcement(&h, "192.0.2.2".parse().unwrap()).unwrap();
    assert_eq!(end.receive(&arp_frame(&h, announcement)).0, ignored);
    let unasked =
        Arp { request: false, target_mac: end.port.mac.unwrap(), target: "192.0.2.1".parse().unwrap(), ..announcement };
    assert_eq!(end.receive(&arp_frame(&h, unasked)).0, Ok(Outcome::Used));
    assert!(end.table.is_empty());
    // They update one that is there.
    assert_eq!(end.receive(&arp_frame(&h, question("192.0.2.1"))).0, Ok(Outcome::Answer));
    let moved = Arp { sender_mac: MacAddr([2, 0, 0, 0, 0, 0x22]), ..announcement };
    assert_eq!(end.receive(&arp_frame(&h, moved)).0, Ok(Outcome::Used));
    assert_eq!(end.table.lookup(PortId(1), "192.0.2.2".parse().unwrap()), Some(moved.sender_mac));
}

/// Proves rfc5227-2.4-report.
#[test]
fn own_addresses_in_use_elsewhere_are_told() {
    let mut end = End::new(router());
    let h = host();
    let thief = Arp::announcement(&h, "192.0.2.1".parse().unwrap()).unwrap();
    let addr = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(end.receive(&arp_frame(&h, thief)).0, Ok(Outcome::Conflict { addr, mac: h.mac }));
    let mut f = Frame::with_capacity(200);
    ndp::write_advert(&mut f, &h, v6("2001:db8::1"), None).unwrap();
    let addr = "2001:db8::1".parse().unwrap();
    assert_eq!(end.receive(&f).0, Ok(Outcome::Conflict { addr, mac: h.mac }));
    assert!(end.table.is_empty());
    // Our own frames that come back are no conflict.
    let own = Arp::announcement(&end.port, "192.0.2.1".parse().unwrap()).unwrap();
    let f = arp_frame(&end.port, own);
    assert_eq!(end.receive(&f).0, Ok(Outcome::Ignored(DropReason::OwnSource)));
}

/// Proves rfc826-reception-form.
/// Proves rfc1812-3.3.2-group.
#[test]
fn malformed_arp() {
    let good = Arp::question(&host(), "192.0.2.1".parse().unwrap()).unwrap();
    let mut f = arp_frame(&host(), good);
    f.pull_front(14);
    assert_eq!(Arp::parse(f.data()), Ok(good));
    for (at, value) in [(1, 6), (2, 9), (4, 8), (5, 16), (7, 3), (8, 1), (14, 224), (14, 127)] {
        let mut bad = f.clone();
        bad.data_mut()[at] = value;
        assert_eq!(Arp::parse(bad.data()), Err(DropReason::ArpMalformed), "byte {at}");
    }
    assert_eq!(Arp::parse(&f.data()[..27]), Err(DropReason::ArpMalformed));
}

/// An NDP packet with right checksum.
fn ndp_packet(src: &str, dst: &str, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let (src, dst) = (v6(src), v6(dst));
    let sum = checksum::pseudo_v6(src, dst, 58, message.len() as u32).bytes(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut v = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, hop_limit];
    v.extend(src.octets());
    v.extend(dst.octets());
    v.extend(message);
    v
}

fn message(kind: u8, flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    m.extend(v6(target).octets());
    m.extend(options);
    m
}

/// Proves rfc4861-4.6-options, rfc4861-6.1.1-rs, rfc4861-6.1.2-ra, rfc4861-7.1.1-ns, rfc4861-7.1.2-na,
/// rfc4861-7.1.1-hop, rfc6980-5-ignore, rfc4861-7.1-reserved, rfc4861-7.1-options, rfc4861-9-order.
#[test]
fn rfc_4861_7_1_validity() {
    const NS: u8 = 135;
    const NA: u8 = 136;
    let (t, node, me) = ("2001:db8::1", "ff02::1:ff00:1", "fe80::2");
    let sll: &[u8] = &[1, 1, 2, 0, 0, 0, 0, 2];
    let tll: &[u8] = &[2, 1, 2, 0, 0, 0, 0, 2];
    // what, source, destination, hop limit, message, right
    type Row<'a> = (&'a str, &'a str, &'a str, u8, Vec<u8>, bool);
    let rows: Vec<Row<'_>> = vec![
        ("NS", me, node, 255, message(NS, 0, t, sll), true),
        ("NS without option", me, t, 255, message(NS, 0, t, &[]), true),
        ("NS with unknown option", me, t, 255, message(NS, 0, t, &[99, 1, 0, 0, 0, 0, 0, 0]), true),
        ("NS with reserved bits", me, node, 255, message(NS, 0xff, t, sll), true),
        ("NS with the option of an RA", me, node, 255, message(NS, 0, t, &[5, 1, 0, 0, 0, 0, 5, 0xdc]), true),
        ("forwarded", me, node, 254, message(NS, 0, t, sll), false),
        ("multicast target", me, node, 255, message(NS, 0, "ff02::9", sll), false),
        ("option of length zero", me, node, 255, message(NS, 0, t, &[1, 0, 2, 0, 0, 0, 0, 2]), false),
        ("option runs out", me, node, 255, message(NS, 0, t, &[1, 2, 2, 0, 0, 0, 0, 2]), false),
        ("option cut", me, node, 255, message(NS, 0, t, &[1, 1, 2]), false),
        ("group as address", me, node, 255, message(NS, 0, t, &[1, 1, 3, 0, 0, 0, 0, 2]), false),
        ("short", me, node, 255, message(NS, 0, t, &[])[..23].to_vec(), false),
        ("DAD", "::", node, 255, message(NS, 0, t, &[]), true),
        ("DAD to another group", "::", "ff02::1", 255, message(NS, 0, t, &[]), false),
        ("DAD with option", "::", node, 255, message(NS, 0, t, sll), false),
        ("NA", me, "fe80::1", 255, message(NA, 0x60, t, tll), true),
        ("NA to all", me, "ff02::1", 255, message(NA, 0x20, t, tll), true),
        ("NA to all, solicited", me, "ff02::1", 255, message(NA, 0x60, t, tll), false),
        ("NA about a group", me, "fe80::1", 255, message(NA, 0x60, "ff02::9", tll), false),
        ("RS", me, "ff02::2", 255, [&[133, 0, 0, 0, 0, 0, 0, 0], sll].concat(), true),
        ("RS without source but with option", "::", "ff02::2", 255, [&[133, 0, 0, 0, 0, 0, 0, 0], sll].concat(), false),
        ("RA", me, "ff02::1", 255, [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], sll].concat(), true),
        ("RA from afar", t, "ff02::1", 255, vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], false),
        (
            "code",
            me,
            node,
            255,
            {
                let mut m = message(NS, 0, t, sll);
                m[1] = 1;
                m
            },
            false,
        ),
        ("echo", me, t, 255, vec![128, 0, 0, 0, 0, 0, 0, 0], false),
    ];
    for (what, src, dst, hop_limit, message, right) in rows {
        let v = ndp_packet(src, dst, hop_limit, message);
        let p = Packet::parse(Family::Inet6, &v).unwrap();
        assert_eq!(Ndp::parse(&p, &v).is_ok(), right, "{what}");
        let mut bad = v.clone();
        bad[42] ^= 1;
        assert_eq!(Ndp::parse(&p, &bad), Err(DropReason::NdpMalformed), "{what}: checksum");
    }
    // What is understood counts, wherever it stands: behind what is unknown, or what belongs in other messages.
    let options = [&[99, 1, 0, 0, 0, 0, 0, 0], &[5, 1, 0, 0, 0, 0, 5, 0xdc], sll].concat();
    let v = ndp_packet(me, node, 255, message(NS, 0, t, &options));
    let p = Packet::parse(Family::Inet6, &v).unwrap();
    assert!(matches!(Ndp::parse(&p, &v), Ok(Ndp::Solicit { mac: Some(MacAddr([2, 0, 0, 0, 0, 2])), .. })));
    // RFC 6980 5: never in fragments, not even in an atomic one.
    let plain = ndp_packet(me, node, 255, message(NS, 0, t, sll));
    let mut v = plain.clone();
    v.splice(40..40, [58, 0, 0, 0, 0, 0, 0, 1]);
    (v[5], v[6]) = (v[5] + 8, 44);
    let p = Packet::parse(Family::Inet6, &v).unwrap();
    assert_eq!(Ndp::parse(&p, &v), Err(DropReason::NdpMalformed));
}

/// Proves rfc4291-2.7.1-solicited-node, rfc4861-7.2.2-option, rfc4861-7.2.4-na, rfc4861-7.2.4-option, rfc6980-5-send.
#[test]
fn written_messages_are_what_others_expect() {
    let r = router();
    let asker = Some((v6("2001:db8::2"), MacAddr([2; 6])));
    type Write<'a> = &'a dyn Fn(&mut Frame) -> Result<(), DropReason>;
    let t = v6("2001:db8::1");
    let rows: [(Write<'_>, u8, u8, &str, &str); 4] = [
        (&|f| ndp::write_solicit(f, &r, v6("2001:db8::abcd:ef12"), None), 135, 0, "fe80::1", "ff02::1:ffcd:ef12"),
        (&|f| ndp::write_solicit(f, &r, v6("fe80::7"), Some(MacAddr([2; 6]))), 135, 0, "fe80::1", "fe80::7"),
        (&|f| ndp::write_advert(f, &r, t, asker), 136, 0xe0, "2001:db8::1", "2001:db8::2"),
        (&|f| ndp::write_advert(f, &r, t, None), 136, 0xa0, "2001:db8::1", "ff02::1"),
    ];
    for (write, kind, flags, src, dst) in rows {
        let mut f = Frame::with_capacity(100);
        write(&mut f).unwrap();
        let p = SlicedPacket::from_ethernet(f.data()).unwrap();
        let (Some(NetSlice::Ipv6(h)), Some(TransportSlice::Icmpv6(i))) = (p.net, p.transport) else {
            panic!("not ICMP")
        };
        let h = h.header().to_header();
        assert_eq!((Ipv6Addr::from(h.source), Ipv6Addr::from(h.destination), h.hop_limit), (v6(src), v6(dst), 255));
        assert!(i.is_checksum_valid(h.source, h.destination));
        assert_eq!((i.type_u8(), i.bytes5to8()[0]), (kind, flags));
        assert_eq!(i.slice()[24..], [if kind == 135 { 1 } else { 2 }, 1, 2, 0, 0, 0, 0, 1]);
        let mac = MacAddr(f.data()[..6].try_into().unwrap());
        let want = if v6(dst).is_multicast() { MacAddr::for_ipv6_multicast(v6(dst)) } else { MacAddr([2; 6]) };
        assert_eq!(mac, want);
    }
    let bare = port(1, None, &["192.0.2.1/24"]);
    let mut f = Frame::with_capacity(100);
    assert_eq!(ndp::write_solicit(&mut f, &bare, v6("fe80::7"), None), Err(DropReason::NeighborFailed));
}

/// Proves rfc4861-7.2.4-dad, rfc4861-7.2.3-unspecified.
#[test]
fn duplicate_address_detection_is_answered_to_all() {
    let mut end = End::new(router());
    let dad = ndp_packet("::", "ff02::1:ff00:1", 255, message(135, 0, "2001:db8::1", &[]));
    let mut f = Frame::from_slice(&dad);
    let header = f.push_front(14).unwrap();
    header[..14].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
    let (outcome, answer) = end.receive(&f);
    assert_eq!((outcome, end.table.len()), (Ok(Outcome::Answer), 0));
    assert_eq!(answer.data()[..6], [0x33, 0x33, 0, 0, 0, 1]);
}

/// Proves rfc4291-2.6.1-anycast, rfc4861-7.2.3-target, rfc4861-7.2.7-override: the address of all routers of a subnet is answered for, from an
/// address that is ours alone and without override; links of 127 bits have none (RFC 6164 5).
#[test]
fn subnet_router_anycast_is_answered_for() {
    let rows: &[(&[&str], &str, bool)] = &[
        (&["2001:db8::1/64", "fe80::1/64"], "2001:db8::", true),
        (&["2001:db8::1/64", "fe80::1/64"], "fe80::", true),
        (&["2001:db8::1/127", "fe80::1/64"], "2001:db8::", false),
        (&["2001:db8::1/64", "fe80::1/64"], "2001:db8:1::", false),
    ];
    for (addrs, target, want) in rows {
        let mut end = End::new(port(1, None, addrs));
        for (src, to) in [("fe80::2", "fe80::2"), ("::", "ff02::1")] {
            let option: &[u8] = if src == "::" { &[] } else { &[1, 1, 2, 0, 0, 0, 0, 2] };
            let mut f = Frame::from_slice(&ndp_packet(src, "ff02::1:ff00:0", 255, message(135, 0, target, option)));
            f.push_front(14).unwrap()[..14].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
            let (outcome, answer) = end.receive(&f);
            assert_eq!(outcome.is_ok_and(|o| o == Outcome::Answer), *want, "{addrs:?} {target} from {src}");
            if *want {
                let p = Packet::parse(Family::Inet6, &answer.data()[14..]).unwrap();
                let flags = p.transport(&answer.data()[14..])[4];
                let solicited = if src == "::" { 0 } else { 0x40 };
                assert_eq!((p.src, p.dst, flags), ("fe80::1".parse().unwrap(), to.parse().unwrap(), 0x80 | solicited));
            }
        }
    }
}

#[test]
fn an_asker_who_does_not_tell_its_address_is_answered_at_its_frame() {
    let mut end = End::new(router());
    let ns = ndp_packet("fe80::2", "2001:db8::1", 255, message(135, 0, "2001:db8::1", &[]));
    let mut f = Frame::from_slice(&ns);
    f.push_front(14).unwrap().copy_within(14..14, 0);
    f.data_mut()[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x55, 0x86, 0xdd]);
    let (outcome, answer) = end.receive(&f);
    assert_eq!((outcome, end.table.len()), (Ok(Outcome::Answer), 0));
    assert_eq!(answer.data()[..6], [2, 0, 0, 0, 0, 0x55]);
}

proptest! {
    #[test]
    fn mutated_messages_never_panic(
        which in 0usize..4, cut in 0usize..100, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        fix in any::<bool>(),
    ) {
        let (h, mut end) = (host(), End::new(router()));
        let mut f = Frame::with_capacity(200);
        match which {
            0 => write_solicit(&mut f, &h, "192.0.2.1".parse().unwrap(), None).unwrap(),
            1 => write_solicit(&mut f, &h, "2001:db8::1".parse().unwrap(), None).unwrap(),
            2 => ndp::write_advert(&mut f, &h, v6("fe80::2"), Some((v6("fe80::1"), MacAddr([2; 6])))).unwrap(),
            _ => ndp::write_advert(&mut f, &h, v6("fe80::2"), None).unwrap(),
        }
        f.pull_front(14);
        let whole = f.len();
        f.truncate(whole - cut.min(whole) * usize::from(cut < 50));
        for (at, value) in changes {
            let n = f.len();
            if n > 0 { f.data_mut()[usize::from(at) % n] = value; }
        }
        let mut answer = Frame::with_capacity(200);
        let s = NeighborSettings::default();
        if which == 0 {
            let _ = end.table.arp_input(NOW, &s, &end.port, ArpReceived::new(f.data()), &mut answer, &mut end.events);
        } else {
            if fix && f.len() >= 44 {
                let payload = (f.len() - 40) as u16;
                let d = f.data_mut();
                d[4..6].copy_from_slice(&payload.to_be_bytes());
                let (src, dst): ([u8; 16], [u8; 16]) = (d[8..24].try_into().unwrap(), d[24..40].try_into().unwrap());
                d[42..44].fill(0);
                let sum = checksum::pseudo_v6(src.into(), dst.into(), 58, u32::from(payload)).bytes(&d[40..]).finish();
                d[42..44].copy_from_slice(&sum.to_be_bytes());
            }
            if let Ok(packet) = Packet::parse(Family::Inet6, f.data()) {
                let received = NdpReceived { packet: &packet, data: f.data(), from: None, tentative: None };
                let _ = end.table.ndp_input(NOW, &s, &end.port, &received, &mut answer, &mut end.events);
            }
        }
        prop_assert!(end.table.len() <= 1);
    }
}
