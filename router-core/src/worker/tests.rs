//! The pipeline on hand-made tables: what goes out, what is answered, what is counted, row by row.

use super::*;
use crate::addr::{Family, MacAddr, parse_prefix};
use crate::checksum;
use crate::counters::Totals;
use crate::decap::{DecapKey, DecapTable};
use crate::fib::{Fib, FibMemory};
use crate::headers::{ipv4, protocol};
use crate::object::{Encap, Glean, Group, Incomplete, Object, Rewrite};
use crate::port::{Medium, PortKind};
use crate::routing::EncapFacts;
use crate::settings::Settings;
use crate::spec::{TunnelMode, TunnelSpec};
use crate::tables::{AdjacencyMap, FibSet, GateTable, ObjectTable, PortTable, RoutingTables};
use crate::testing::port;
use crate::tunnel::{Gate, Outer};
use std::net::{Ipv4Addr, Ipv6Addr};

const HOST: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const TUNNEL: PortId = PortId(2);
/// Its packets are looked up in a table of their own.
const APART: PortId = PortId(3);
const TABLE: TableId = TableId(100);

/// Port 0 towards the sender, port 1 (MTU 1400) towards the gateway, tunnels 2 and 3.
///
/// | prefix | object |
/// |---|---|
/// | 198.51.100.0/24, 2001:db8:1::/48 | gateway 192.0.2.129 / fe80::1, resolved |
/// | 203.0.113.0/24 | gateway fe80::1, resolved |
/// | 203.0.114.0/24 | gateway fe80::2, not resolved |
/// | 203.0.115.0/24 | blackhole |
/// | 203.0.116.0/24 | prohibit |
/// | 203.0.117.0/24 | group of both gateways |
/// | 192.0.2.0/25 | link of port 0 |
/// | 192.0.2.1, 2001:db8::1 | local |
/// | 2001:db8:2::/48 | tunnel 2, peer 198.51.100.9 |
/// | 2001:db8:4::/48 | tunnel 3, peer 198.51.100.8 |
/// | 2001:db8:5::/48 | group of both gateways |
///
/// In the table of tunnel 3: 2001:db8:2::/48 to tunnel 2, 2001:db8:7::/48 to gateway fe80::1.
fn tables() -> Arc<Tables> {
    let mut memory = FibMemory::new();
    let fib = Fib::new(&memory);
    let mut objects = ObjectTable::default();
    let hop = |gateway: &str| {
        Object::Forward(Forward {
            port: PortId(1),
            mtu: 1400,
            mss: 0,
            gateway: Some(gateway.parse().unwrap()),
            rewrite: Rewrite::ethernet(GATEWAY, MacAddr([2, 0, 0, 0, 0xff, 1]), None),
            used: Default::default(),
        })
    };
    let encap = |tunnel, remote: &str| {
        let (local, remote) = ("192.0.2.1".parse().unwrap(), remote.parse().unwrap());
        let facts = EncapFacts { mtu: 1380, ..EncapFacts::new(TunnelMode::SixInFour, local, remote) };
        Object::Encap(Encap {
            tunnel,
            mtu: facts.mtu,
            mss: 0,
            carries: facts.mode.shape().carries,
            carrier: ObjectId(1),
            outer: Outer::of(&facts),
            facts: Arc::new(facts),
        })
    };
    let list = [
        Object::Discard(DropReason::NoRoute),
        hop("192.0.2.129"),
        hop("fe80::1"),
        Object::Incomplete(Incomplete { port: PortId(1), gateway: "fe80::2".parse().unwrap(), mss: 0 }),
        Object::Discard(DropReason::Blackhole),
        Object::Discard(DropReason::Prohibited),
        Object::Group(Group { buckets: vec![ObjectId(1), ObjectId(2)].into(), activity: None }),
        Object::Glean(Glean { port: PortId(0), mtu: 0, mss: 0 }),
        Object::Local,
        encap(TUNNEL, "198.51.100.9"),
        encap(APART, "198.51.100.8"),
    ];
    for (i, o) in list.into_iter().enumerate() {
        objects.set(ObjectId(i as u32), Some(o));
    }
    for (prefix, id) in [
        ("198.51.100.0/24", 1),
        ("2001:db8:1::/48", 2),
        ("203.0.113.0/24", 2),
        ("203.0.114.0/24", 3),
        ("203.0.115.0/24", 4),
        ("203.0.116.0/24", 5),
        ("203.0.117.0/24", 6),
        ("192.0.2.0/25", 7),
        ("2001:db8::/64", 7),
        ("192.0.2.1/32", 8),
        ("2001:db8::1/128", 8),
        ("2001:db8:2::/48", 9),
        ("2001:db8:4::/48", 10),
        ("2001:db8:5::/48", 6),
    ] {
        fib.insert(&mut memory, &parse_prefix(prefix).unwrap(), ObjectId(id)).unwrap();
    }
    let apart = Fib::new(&memory);
    for (prefix, id) in [("2001:db8:2::/48", 9), ("2001:db8:7::/48", 2)] {
        apart.insert(&mut memory, &parse_prefix(prefix).unwrap(), ObjectId(id)).unwrap();
    }
    let mut adjacencies = AdjacencyMap::new(7);
    for host in ["192.0.2.2", "2001:db8::2"] {
        let rewrite = Rewrite::ethernet(HOST, MacAddr([2, 0, 0, 0, 0xff, 0]), None);
        let to = Forward { port: PortId(0), mtu: 1500, mss: 0, gateway: None, rewrite, used: Default::default() };
        adjacencies.set(PortId(0), host.parse().unwrap(), Some(to));
    }
    let mut out_port = port(1, "out", &["192.0.2.130/25"]);
    out_port.mtu = 1400;
    let tunnel = |id, name, addr, table| {
        let mut t = port(id, name, &[addr]);
        (t.kind, t.medium, t.mac, t.mtu, t.table) = (PortKind::Tunnel, Medium::Ip, None, 1380, table);
        t
    };
    let tunnels =
        [tunnel(2, "he", "2001:db8:ffff::2/64", TableId::MAIN), tunnel(3, "apart", "2001:db8:fffe::2/64", TABLE)];
    let mut ports = PortTable::default();
    for p in [port(0, "in", &["192.0.2.1/25", "2001:db8::1/64"]), out_port].into_iter().chain(tunnels) {
        ports = ports.with(Arc::new(p));
    }
    let mut decap = DecapTable::default();
    let mut gates = GateTable::default();
    for (tunnel, name, remote) in [(TUNNEL, "he", "198.51.100.9"), (APART, "apart", "198.51.100.8")] {
        let (local, remote) = ("192.0.2.1".parse().unwrap(), remote.parse().unwrap());
        let spec = TunnelSpec::new(name, TunnelMode::SixInFour, local, remote);
        gates.set(tunnel, Some(Arc::new(Gate::new(&spec, Arc::default(), None, false))));
        decap.insert(
            DecapKey { proto: protocol::IPV6, table: TableId::MAIN, local, remote, ports: Default::default() },
            tunnel,
        );
    }
    let routing = RoutingTables {
        fibs: [(TableId::MAIN, Arc::new(fib)), (TABLE, Arc::new(apart))].into_iter().collect::<FibSet>(),
        views: Arc::new([]),
        objects,
        adjacencies,
        token: Arc::new(()),
    };
    Arc::new(Tables {
        gates,
        version: 1,
        ports,
        routing,
        decap,
        settings: Arc::new(Settings::default()),
        guards: Arc::default(),
        mapped_ports: Arc::new([]),
        pings: Arc::new([]),
        policy: None,
    })
}

/// A frame from the host on port 0 around an IP packet.
fn from_host(packet: &[u8]) -> Frame {
    let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    Frame::from_slice(&[&[2, 0, 0, 0, 0xff, 0], &HOST.0[..], &kind, packet].concat())
}

fn v4(dst: &str, proto: u8, ttl: u8, df: bool, payload: &[u8]) -> Vec<u8> {
    let mut v = vec![0; 20];
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 2), dst.parse().unwrap());
    ipv4::Header { tos: 0, total_len: 20 + payload.len() as u16, ident: 7, df, ttl, proto, src, dst }.write(&mut v);
    v.extend(payload);
    v
}

fn v6(dst: &str, proto: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (Ipv6Addr, Ipv6Addr) = ("2001:db8::2".parse().unwrap(), dst.parse().unwrap());
    let len = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], proto, hop_limit], &src.octets()[..], &dst.octets(), payload].concat()
}

struct Bench {
    worker: Worker,
    out: Outbox,
    source: Fixed,
}

impl Bench {
    fn new() -> Self {
        let counters = Arc::new(WorkerCounters::new(8));
        let out = Outbox::new(8, FramePool::new(64, 4096));
        Bench { worker: Worker::new(counters, 1), out, source: Fixed(tables()) }
    }

    /// Processes one frame from port 0 and returns what was sent, as (port, bytes), and the totals.
    fn run(&mut self, frame: Frame) -> (Vec<(usize, Vec<u8>)>, Totals) {
        self.worker.process(Instant::from_millis(5), &mut self.source, PortId(0), &mut vec![frame], &mut self.out);
        self.collect()
    }

    /// What was sent since the last call, and the totals.
    fn collect(&mut self) -> (Vec<(usize, Vec<u8>)>, Totals) {
        let mut sent = Vec::new();
        for (port, queue) in self.out.tx.iter_mut().enumerate() {
            sent.extend(queue.drain(..).map(|f| (port, f.data().to_vec())));
        }
        let totals = Totals::sum([&**self.worker.counters()]);
        totals.check().unwrap();
        (sent, totals)
    }
}

fn once(frame: Frame) -> (Vec<(usize, Vec<u8>)>, Totals) {
    Bench::new().run(frame)
}

/// Proves rfc1812-5.3.1-ttl, rfc8200-3-hop-limit, draft-v4-via-v6-3-wire.
#[test]
fn forwarded_packets_are_rewritten_and_nothing_else_changes() {
    let rows: &[(&str, Vec<u8>)] = &[
        ("native IPv4", v4("198.51.100.7", 17, 64, true, &[1; 30])),
        ("native IPv6", v6("2001:db8:1::7", 17, 64, &[1; 30])),
        ("IPv4 via IPv6 (RFC 9229)", v4("203.0.113.7", 17, 64, false, &[1; 30])),
        ("group", v4("203.0.117.7", 17, 64, false, &[1; 30])),
        ("TTL 2 goes on as 1", v4("198.51.100.7", 17, 2, true, &[1; 30])),
    ];
    for (what, packet) in rows {
        let (sent, totals) = once(from_host(packet));
        let [(port, bytes)] = &sent[..] else { panic!("{what}: {sent:?}") };
        assert_eq!((*port, totals.transmitted), (1, 1), "{what}");
        assert_eq!(bytes[..6], GATEWAY.0, "{what}");
        assert_eq!(bytes[12..14], if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }, "{what}");
        let mut want = packet.clone();
        let ttl_at = if packet[0] >> 4 == 4 { 8 } else { 7 };
        want[ttl_at] -= 1;
        if ttl_at == 8 {
            checksum::fill_ipv4_header(&mut want);
        }
        assert_eq!(bytes[14..], want, "{what}");
    }
}

/// Proves rfc1122-3.2.2.1-protocol, rfc1122-3.3.6-broadcast, rfc1191-4-code, rfc1191-4-size,
/// rfc1812-4.2.3.1-broadcast, rfc1812-4.3.3.4-time, rfc1812-4.3.3.6-broadcast, rfc1812-5.3.1-ttl,
/// rfc1812-5.3.5.1-limited, rfc4213-3.2.2-too-big, rfc4213-3.6-peer, rfc4291-2.5.6-link-local, rfc4443-3.3-hop,
/// rfc791-3.1-ttl, rfc8200-3-hop-limit, rfc8200-4.5-source, rfc8201-4-true.
#[test]
fn refused_packets_are_answered_as_their_reason_says() {
    // what, packet, drop reason, ICMP type and code that go back
    type Row = (&'static str, Vec<u8>, DropReason, Option<(u8, u8)>);
    let rows: Vec<Row> = vec![
        ("RFC 1812 5.3.1", v4("198.51.100.7", 17, 1, true, &[1; 30]), DropReason::TtlExpired, Some((11, 0))),
        ("RFC 4443 3.3", v6("2001:db8:1::7", 17, 1, &[1; 30]), DropReason::TtlExpired, Some((3, 0))),
        ("RFC 1812 5.2.7.1", v4("100.64.0.1", 17, 9, true, &[1; 30]), DropReason::NoRoute, Some((3, 0))),
        ("RFC 4443 3.1", v6("2001:db8:9::1", 17, 9, &[1; 30]), DropReason::NoRoute, Some((1, 0))),
        ("RFC 1191 4", v4("198.51.100.7", 17, 9, true, &[1; 1381]), DropReason::TooBig, Some((3, 4))),
        ("RFC 8201 4", v6("2001:db8:1::7", 17, 9, &[1; 1361]), DropReason::TooBig, Some((2, 0))),
        ("RFC 4213 3.2", v6("2001:db8:2::7", 17, 9, &[1; 1341]), DropReason::TooBig, Some((2, 0))),
        ("blackhole", v4("203.0.115.7", 17, 9, true, &[1; 30]), DropReason::Blackhole, None),
        ("RFC 1812 5.2.7.1", v4("203.0.116.7", 17, 9, true, &[1; 30]), DropReason::Prohibited, Some((3, 13))),
        ("RFC 1122 3.2.2.1", v4("192.0.2.1", 99, 9, true, &[1; 30]), DropReason::NoLocalService, Some((3, 2))),
        ("RFC 4443 3.4", v6("2001:db8::1", 99, 9, &[1; 30]), DropReason::NoLocalService, Some((4, 1))),
        ("RFC 1812 5.3.4", v4("255.255.255.255", 17, 9, true, &[1; 30]), DropReason::LocalIgnored, None),
        ("RFC 1112 6", v4("239.1.1.1", 17, 9, true, &[1; 30]), DropReason::MulticastNotForwarded, None),
        ("RFC 4291 2.5.6", v6("fe80::9", 17, 9, &[1; 30]), DropReason::LinkLocalScope, None),
        ("RFC 4213 3.6", v4("192.0.2.1", 41, 9, true, &v6("::2", 17, 9, &[])), DropReason::TunnelUnknownPeer, None),
    ];
    for (rfc, packet, reason, answer) in rows {
        let (sent, totals) = once(from_host(&packet));
        assert_eq!(totals.dropped, [(reason.name(), 1)].into(), "{rfc}");
        assert_eq!(totals.originated, u64::from(answer.is_some()), "{rfc} {reason}");
        let Some((kind, code)) = answer else {
            assert!(sent.is_empty(), "{rfc} {reason}");
            continue;
        };
        let [(0, bytes)] = &sent[..] else { panic!("{rfc} {reason}: {sent:?}") };
        let family = Packet::sniff(&bytes[14..]).unwrap();
        let p = Packet::parse(family, &bytes[14..]).unwrap();
        assert!(crate::forward::local::checksum_ok(&p, &bytes[14..]), "{rfc}");
        let t = p.transport(&bytes[14..]);
        assert_eq!((t[0], t[1]), (kind, code), "{rfc} {reason}");
        assert_eq!(t[8..][..40], packet[..40], "{rfc}: the original is quoted as it came");
        if reason == DropReason::TooBig {
            let mtu = u32::from_be_bytes([0, 0, t[6], t[7]]);
            let want = if rfc == "RFC 4213 3.2" { 1380 } else { 1400 };
            assert_eq!(mtu, want, "{rfc}: the true MTU");
        }
    }
}

/// Proves draft-v4-via-v6-3-resolve.
#[test]
fn unresolved_gateways_hold_the_packet_unchanged() {
    for dst in ["203.0.114.7", "192.0.2.77"] {
        let packet = v4(dst, 17, 64, true, &[1; 30]);
        let mut b = Bench::new();
        let (sent, totals) = b.run(from_host(&packet));
        assert!(sent.is_empty());
        assert_eq!(totals.held, 1);
        assert_eq!(b.out.punts[0].frame.data(), packet);
        let punt = b.out.punts.pop().unwrap();
        b.worker.punt_refused(Instant::ZERO, punt, DropReason::PuntQueueFull);
        let totals = Totals::sum([&**b.worker.counters()]);
        assert_eq!(totals.dropped, [("punt_queue_full", 1)].into());
        totals.check().unwrap();
    }
}

/// Proves rfc1812-4.2.2.7-fragment.
#[test]
fn rfc791_3_2_fragments_when_df_is_clear() {
    let packet = v4("198.51.100.7", 17, 64, false, &[5; 3000]);
    let (sent, totals) = once(from_host(&packet));
    assert_eq!((sent.len(), totals.originated, totals.transmitted), (3, 2, 3));
    let mut payload: Vec<u8> = Vec::new();
    for (port, bytes) in &sent {
        assert_eq!(*port, 1);
        let p = Packet::parse(Family::Inet, &bytes[14..]).unwrap();
        assert!(p.len <= 1400 && p.ttl == 63);
        payload.extend(p.transport(&bytes[14..]));
    }
    assert_eq!(payload, packet[20..]);
}

/// Proves rfc4213-3.3-hop-limit, rfc4213-3.5-header.
#[test]
fn rfc4213_encapsulates_and_decapsulates() {
    let inner = v6("2001:db8:2::7", 17, 64, &[9; 100]);
    let (sent, totals) = once(from_host(&inner));
    let [(1, bytes)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((totals.received, totals.transmitted), (1, 1));
    let outer = Packet::parse(Family::Inet, &bytes[14..]).unwrap();
    assert_eq!((outer.proto, outer.ttl, outer.df), (41, 64, true));
    let carried = outer.transport(&bytes[14..]);
    assert_eq!((carried[7], &carried[8..]), (63, &inner[8..]), "one hop less, nothing else");

    let back = v6("2001:db8::2", 17, 64, &[9; 100]);
    let back = [&back[..8], &"2001:db8:2::7".parse::<Ipv6Addr>().unwrap().octets(), &back[24..]].concat();
    let mut outer = v4("192.0.2.1", 41, 50, true, &back);
    outer[12..16].copy_from_slice(&[198, 51, 100, 9]);
    checksum::fill_ipv4_header(&mut outer);
    let mut b = Bench::new();
    let (sent, totals) = b.run(from_host(&outer));
    let [(0, bytes)] = &sent[..] else { panic!("{sent:?}, {totals:?}") };
    assert_eq!((&bytes[..6], bytes[14 + 7]), (&HOST.0[..], 63));
    assert_eq!(bytes[14 + 8..], back[8..]);
    assert_eq!(b.worker.counters().port(TUNNEL).unwrap().rx_packets.get(), 1);
}

/// Proves rfc1122-3.2.2.6-echo, rfc1812-4.2.2.9-ttl, rfc792-echo.
#[test]
fn echo_is_answered_with_the_same_data() {
    let mut icmp = vec![8, 0, 0, 0, 1, 2, 0, 1];
    icmp.extend([7; 32]);
    let sum = checksum::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let (sent, totals) = once(from_host(&v4("192.0.2.1", 1, 1, false, &icmp)));
    let [(0, bytes)] = &sent[..] else { panic!("{sent:?}, {totals:?}") };
    assert_eq!((totals.answered, totals.originated, totals.transmitted), (1, 1, 1));
    let p = Packet::parse(Family::Inet, &bytes[14..]).unwrap();
    assert_eq!((p.src, p.dst), ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()));
    let t = p.transport(&bytes[14..]);
    assert!(checksum::verify(t));
    assert_eq!((t[0], &t[4..]), (0, &icmp[4..]));
}

#[test]
fn a_stale_snapshot_is_replaced_in_the_middle_of_a_batch() {
    /// Has an old snapshot, whose objects are missing, until it is asked to refresh.
    struct Late(Arc<Tables>, Arc<Tables>);
    impl TableSource for Late {
        fn lend(&mut self) -> Arc<Tables> {
            Arc::clone(&self.0)
        }
        fn give_back(&mut self, _: Arc<Tables>) {}
        fn newest(&mut self) -> Arc<Tables> {
            Arc::clone(&self.1)
        }
    }
    let new = tables();
    let mut old = Tables::clone(&new);
    old.routing.objects.set(ObjectId(1), None);
    let mut b = Bench::new();
    let mut source = Late(Arc::new(old), new);
    let batch = &mut vec![from_host(&v4("198.51.100.7", 17, 64, true, &[1; 30]))];
    b.worker.process(Instant::ZERO, &mut source, PortId(0), batch, &mut b.out);
    assert_eq!(b.out.tx[1].len(), 1);
}

/// One frame through the general path only: what the fast path must agree with.
fn general(b: &mut Bench, frame: Frame) -> (Vec<(usize, Vec<u8>)>, Totals) {
    let tables = tables_of(b);
    let mut frame = frame;
    frame.meta.port = PortId(0);
    b.worker.count_received(PortId(0), std::slice::from_ref(&frame));
    let now = Instant::from_millis(5);
    let step = &mut Step { now, tables: &tables, out: &mut b.out };
    if let Some(job) = b.worker.receive(step, PortId(0), frame) {
        b.worker.run(now, &mut Fixed(Arc::clone(&tables)), &mut Arc::clone(&tables), job, &mut b.out);
    }
    b.collect()
}

fn tables_of(b: &Bench) -> Arc<Tables> {
    Arc::clone(&b.source.0)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]

    #[test]
    fn the_fast_path_agrees_with_the_general_path(
        kind in 0usize..24,
        payload in 0usize..1500,
        ttl in 0u8..4,
        df: bool,
        spoil in proptest::collection::vec((0usize..100, proptest::prelude::any::<u8>()), 0..3),
        cut in 0usize..200,
        fix: bool,
    ) {
        let payload = vec![0x5a; payload];
        let packet = match kind {
            0 => v4("198.51.100.7", 17, ttl, df, &payload),
            1 => v4("203.0.113.7", 6, ttl, df, &payload),
            2 => v4("203.0.114.7", 17, ttl, df, &payload),
            3 => v4("203.0.115.7", 17, ttl, df, &payload),
            4 => v4("203.0.117.7", 17, ttl, df, &payload),
            5 => v4("192.0.2.2", 17, ttl, df, &payload),
            6 => v4("192.0.2.1", 1, ttl, df, &payload),
            7 => v4("192.0.2.255", 17, ttl, df, &payload),
            8 => v6("2001:db8:1::7", 17, ttl, &payload),
            9 => v6("2001:db8:2::7", 17, ttl, &payload),
            10 => v6("2001:db8::1", 17, ttl, &payload),
            11 => v6("fe80::7", 17, ttl, &payload),
            12 => v6("ff02::7", 17, ttl, &payload),
            13..23 => {
                let (peer, dst) = [
                    // Out of a tunnel to the host, to a gateway, to a group, to nowhere, and from a wrong peer.
                    (9, "2001:db8::2"),
                    (9, "2001:db8:1::7"),
                    (9, "2001:db8:5::7"),
                    (9, "2001:db8:9::1"),
                    (10, "2001:db8::2"),
                    // Into another one, into the same again; then out of one with another table, which knows less.
                    (9, "2001:db8:4::7"),
                    (9, "2001:db8:2::7"),
                    (8, "2001:db8:2::7"),
                    (8, "2001:db8:7::7"),
                    (8, "2001:db8:1::7"),
                ][kind - 13];
                let mut outer = v4("192.0.2.1", 41, 9, df, &v6(dst, 17, ttl, &payload));
                outer[1] = ttl;
                outer[12..16].copy_from_slice(&[198, 51, 100, peer]);
                checksum::fill_ipv4_header(&mut outer);
                outer
            }
            _ => v4("100.64.0.1", 17, ttl, df, &payload),
        };
        let mut bytes = from_host(&packet).data().to_vec();
        for (at, value) in spoil {
            if let Some(b) = bytes.get_mut(at) {
                *b = value;
            }
        }
        if cut < 100 {
            bytes.truncate(cut + 10);
        }
        if fix && bytes.len() > 34 && bytes[14] >> 4 == 4 {
            checksum::fill_ipv4_header(&mut bytes[14..]);
        }
        let (mut fast, mut slow) = (Bench::new(), Bench::new());
        let one = fast.run(Frame::from_slice(&bytes));
        let other = general(&mut slow, Frame::from_slice(&bytes));
        proptest::prop_assert_eq!(one, other);
        proptest::prop_assert_eq!(fast.out.punts.len(), slow.out.punts.len());
        let counts = |b: &Bench, p: u32| {
            crate::counters::PortTotals::sum(PortId(p), [&**b.worker.counters()])
        };
        for p in 0..4 {
            proptest::prop_assert_eq!(counts(&fast, p), counts(&slow, p));
        }
    }
}
