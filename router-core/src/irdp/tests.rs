//! The message byte by byte; the schedule against the RFC's limits.

use super::message::most;
use super::*;
use crate::addr::Family;
use crate::checksum;
use crate::frame::Frame;
use crate::headers::ethernet;
use crate::packet::Packet;
use crate::testing::port;
use std::sync::Arc;

fn lan() -> PortInfo {
    port(3, "lan0", &["192.0.2.1/24", "198.51.100.1/25", "203.0.113.7/32", "2001:db8:1::1/64"])
}

fn table(ports: &[PortInfo]) -> PortTable {
    let mut table = PortTable::default();
    ports.iter().for_each(|p| table.set(Arc::new(p.clone())));
    table
}

fn a(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn written(due: &Due) -> (MacGroup, Packet, Vec<u8>) {
    let mut f = Frame::with_capacity(2000);
    write_advert(&mut f, &lan(), due, &due.addrs).unwrap();
    let mac = f.data()[..6].try_into().unwrap();
    let mut other = lan();
    other.mac = None;
    ethernet::receive(&mut f, &other).unwrap();
    let p = Packet::parse(Family::Inet, f.data()).unwrap();
    (mac, p, p.transport(f.data()).to_vec())
}

type MacGroup = [u8; 6];

/// Proves rfc1256-3-advertisement, rfc1256-4.1-addresses, rfc1256-4.1-preference, rfc1256-4.1-address, rfc1256-4.1-defaults.
#[test]
fn what_an_advertisement_says() {
    let mut settings = IrdpSettings::default();
    assert_eq!(settings.interval(), (Duration::from_secs(450), Duration::from_secs(600)));
    // Every address of the port that has neighbours, once.
    assert_eq!(settings.addrs(&lan()), [(a("192.0.2.1"), 0), (a("198.51.100.1"), 0)]);
    settings.preference = -5;
    settings.addresses.insert(a("198.51.100.1"), Some(NEVER));
    let addrs = settings.addrs(&lan());
    assert_eq!(addrs, [(a("192.0.2.1"), -5), (a("198.51.100.1"), NEVER)]);
    let due = Due { port: PortId(3), addrs, lifetime: settings.lifetime_secs(), broadcast: false };
    let (mac, p, m) = written(&due);
    assert_eq!(mac, [1, 0, 0x5e, 0, 0, 1]);
    assert_eq!((p.src.to_string(), p.dst.to_string(), p.ttl), ("192.0.2.1".into(), "224.0.0.1".into(), 1));
    let body = [&[9, 0, m[2], m[3], 2, 2][..], &1800u16.to_be_bytes()].concat();
    let entries = [&[192, 0, 2, 1, 0xff, 0xff, 0xff, 0xfb][..], &[198, 51, 100, 1, 0x80, 0, 0, 0]].concat();
    assert_eq!(m, [body, entries].concat());
    assert!(checksum::verify(&m));
    let (mac, p, _) = written(&Due { broadcast: true, ..due });
    assert_eq!((mac, p.dst.to_string()), ([0xff; 6], "255.255.255.255".into()));
    settings.addresses.insert(a("192.0.2.1"), None);
    assert_eq!(settings.addrs(&lan()), [(a("198.51.100.1"), NEVER)]);
    assert_eq!((most(&lan()), most(&PortInfo { mtu: 68, ..lan() })), (184, 5));
}

/// Proves rfc1256-4.1-bounds.
#[test]
fn irdp_settings_out_of_bounds() {
    let d = IrdpSettings::default;
    let secs = Duration::from_secs;
    for (s, good) in [
        (d(), true),
        (IrdpSettings { max_interval: secs(3), ..d() }, false),
        (IrdpSettings { max_interval: secs(4), ..d() }, true),
        (IrdpSettings { max_interval: secs(1800), ..d() }, true),
        (IrdpSettings { max_interval: secs(1801), ..d() }, false),
        (IrdpSettings { min_interval: Some(secs(2)), ..d() }, false),
        (IrdpSettings { min_interval: Some(secs(600)), ..d() }, true),
        (IrdpSettings { min_interval: Some(secs(601)), ..d() }, false),
        (IrdpSettings { lifetime: Some(secs(599)), ..d() }, false),
        (IrdpSettings { lifetime: Some(secs(600)), ..d() }, true),
        (IrdpSettings { lifetime: Some(secs(9000)), ..d() }, true),
        (IrdpSettings { lifetime: Some(secs(9001)), ..d() }, false),
    ] {
        assert_eq!(s.check().is_ok(), good, "{s:?}");
    }
}

/// Proves rfc1256-4.2-valid, rfc1256-4.2-ignored.
#[test]
fn valid_solicitations() {
    let message = |bytes: &[u8]| {
        let mut m = bytes.to_vec();
        let sum = checksum::checksum(&m).to_be_bytes();
        m[2..4].copy_from_slice(&sum);
        m
    };
    let plain = message(&[10, 0, 0, 0, 0, 0, 0, 0]);
    let mut spoiled = plain.clone();
    spoiled[3] ^= 1;
    // source, destination, message; a solicitation, a valid one
    for (src, dst, m, wanted) in [
        ("192.0.2.9", "224.0.0.2", plain.clone(), (true, true)),
        ("0.0.0.0", "224.0.0.2", plain.clone(), (true, true)),
        ("198.51.100.77", "255.255.255.255", plain.clone(), (true, true)),
        ("192.0.2.9", "192.0.2.255", plain.clone(), (true, true)),
        // Reserved bytes, and more of them behind.
        ("192.0.2.9", "224.0.0.2", message(&[10, 0, 0, 0, 1, 2, 3, 4, 5, 6]), (true, true)),
        ("198.51.100.200", "224.0.0.2", plain.clone(), (true, false)),
        ("192.0.2.255", "224.0.0.2", plain.clone(), (true, false)),
        ("192.0.2.9", "224.0.0.2", spoiled, (true, false)),
        ("192.0.2.9", "224.0.0.2", message(&[10, 1, 0, 0, 0, 0, 0, 0]), (true, false)),
        ("192.0.2.9", "224.0.0.2", message(&[10, 0, 0, 0, 0, 0, 0]), (true, false)),
        ("192.0.2.9", "224.0.0.1", plain.clone(), (false, true)),
        ("192.0.2.9", "224.0.0.2", message(&[9, 0, 0, 0, 0, 2, 0, 0]), (false, true)),
    ] {
        let mut v = vec![0; 20];
        crate::headers::ipv4::Header {
            tos: 0,
            total_len: (20 + m.len()) as u16,
            ident: 0,
            df: false,
            ttl: 1,
            proto: 1,
            src: a(src),
            dst: a(dst),
        }
        .write(&mut v);
        v.extend(&m);
        let p = Packet::parse(Family::Inet, &v).unwrap();
        let got = (is_solicitation(&p, &v, &lan()), is_valid_solicitation(&p, &v, &lan()));
        assert_eq!(got, wanted, "{src} {dst} {m:?}");
    }
}

/// Proves rfc1256-4.3-initial, rfc1256-4.3-interval.
#[test]
fn unsolicited_advertisements_in_time() {
    let wanted: BTreeMap<_, _> = [("lan0".to_owned(), IrdpSettings::default())].into();
    let ports = table(&[lan()]);
    for seed in 1..50 {
        let mut irdp = Irdp::new(seed * 77);
        let start = Instant::from_millis(1000);
        irdp.follow(start, &wanted, &ports);
        let (mut last, mut gaps) = (None, Vec::new());
        while gaps.len() < 10 {
            let at = irdp.poll_at(start).unwrap();
            let due = irdp.poll(at, &ports);
            assert_eq!((due.len(), due[0].lifetime, due[0].addrs.len()), (1, 1800, 2));
            gaps.extend(last.replace(at).map(|last| at.saturating_since(last)));
            assert!(!gaps.is_empty() || at <= start + MAX_RESPONSE_DELAY);
        }
        assert_eq!(gaps[..2], [MAX_INITIAL_ADVERT_INTERVAL; 2]);
        let usual = Duration::from_secs(450)..=Duration::from_secs(600);
        assert!(gaps[2..].iter().all(|gap| usual.contains(gap)), "{gaps:?}");
        assert!(gaps[2..].iter().any(|gap| *gap != gaps[2]), "they are random");
    }
}

#[test]
fn what_it_has_come_to() {
    let mut wanted: BTreeMap<_, _> = [("lan0".to_owned(), IrdpSettings::default())].into();
    let ports = table(&[lan()]);
    let id = ports.iter().next().unwrap().id;
    let mut irdp = Irdp::new(7);
    let at = |millis| Instant::from_millis(millis);
    assert_eq!(irdp.status(at(0), id), None);
    irdp.follow(at(0), &wanted, &ports);
    let first = irdp.poll_at(at(0)).unwrap();
    let s = irdp.status(at(0), id).unwrap();
    assert_eq!((s.sent, s.solicited, s.last, s.lifetime, s.told.len()), (0, 0, None, 1800, 0));
    assert_eq!((s.next, s.to.to_string()), (first.saturating_since(at(0)).as_millis() as u64, "224.0.0.1".to_owned()));
    let due = irdp.poll(first, &ports);
    irdp.solicited(first, id);
    irdp.solicited(first, id);
    let s = irdp.status(first + Duration::from_millis(70), id).unwrap();
    assert_eq!((s.sent, s.solicited, s.last, &s.told), (1, 2, Some(70), &due[0].addrs));
    // Counts outlive other settings.
    wanted.get_mut("lan0").unwrap().broadcast = true;
    irdp.follow(first, &wanted, &ports);
    let s = irdp.status(first, id).unwrap();
    assert_eq!((s.sent, s.solicited, s.to.to_string()), (1, 2, "255.255.255.255".to_owned()));
}

/// Proves rfc1256-4.3-delay, rfc1256-4.3-reset, rfc1256-4.3-one-for-many.
#[test]
fn solicited_advertisements_in_time() {
    let wanted: BTreeMap<_, _> = [("lan0".to_owned(), IrdpSettings::default())].into();
    let ports = table(&[lan()]);
    for seed in 1..200 {
        let mut irdp = Irdp::new(seed * 77);
        irdp.follow(Instant::from_millis(0), &wanted, &ports);
        for _ in 0..3 {
            let at = irdp.poll_at(Instant::from_millis(0)).unwrap();
            irdp.poll(at, &ports);
        }
        let now = Instant::from_millis(100_000);
        irdp.solicited(now, PortId(3));
        let at = irdp.poll_at(now).unwrap();
        assert!((now..=now + MAX_RESPONSE_DELAY).contains(&at));
        // Those who ask meanwhile get the same, no sooner.
        (0..100).for_each(|_| irdp.solicited(now, PortId(3)));
        assert_eq!(irdp.poll_at(now), Some(at));
        assert_eq!(irdp.poll(at, &ports).len(), 1);
        let next = irdp.poll_at(at).unwrap().saturating_since(at);
        assert!((Duration::from_secs(450)..=Duration::from_secs(600)).contains(&next));
        irdp.solicited(now, PortId(4));
        assert!(!irdp.is_active(PortId(4)));
    }
}

/// Proves rfc1256-4.3-cease, rfc1256-4.3-cease-some, rfc1256-4.3-begin.
#[test]
fn addresses_come_and_go() {
    let now = Instant::from_millis(1000);
    let wanted: BTreeMap<_, _> = [("lan0".to_owned(), IrdpSettings::default())].into();
    let mut irdp = Irdp::new(7);
    let both = table(&[lan()]);
    irdp.follow(now, &wanted, &both);
    // Nothing was said: nothing is taken back.
    irdp.follow(now, &BTreeMap::new(), &both);
    assert_eq!((irdp.poll_at(now), irdp.finish()), (None, vec![]));
    irdp.follow(now, &wanted, &both);
    let at = irdp.poll_at(now).unwrap();
    irdp.poll(at, &both);
    let one = PortInfo { addrs: vec![lan().addrs[0]], ..lan() };
    irdp.follow(at, &wanted, &table(std::slice::from_ref(&one)));
    let gone = Due { port: PortId(3), addrs: vec![(a("198.51.100.1"), 0)], lifetime: 0, broadcast: false };
    assert_eq!(irdp.poll(at, &table(std::slice::from_ref(&one))), [gone]);
    // Not advertised any more.
    irdp.follow(at, &BTreeMap::new(), &table(std::slice::from_ref(&one)));
    let gone = Due { port: PortId(3), addrs: vec![(a("192.0.2.1"), 0)], lifetime: 0, broadcast: false };
    assert_eq!(irdp.poll(at, &table(std::slice::from_ref(&one))), std::slice::from_ref(&gone));
    assert_eq!(irdp.poll_at(at), None);
    // Down and up again: from the start.
    irdp.follow(at, &wanted, &table(std::slice::from_ref(&one)));
    irdp.poll(at + MAX_RESPONSE_DELAY, &table(std::slice::from_ref(&one)));
    irdp.follow(at, &wanted, &table(&[PortInfo { up: false, ..one.clone() }]));
    assert!(!irdp.is_active(PortId(3)));
    irdp.follow(at, &wanted, &table(std::slice::from_ref(&one)));
    assert!(irdp.poll_at(at).unwrap() <= at + MAX_RESPONSE_DELAY);
    irdp.poll(at + MAX_RESPONSE_DELAY, &table(&[one]));
    assert_eq!(irdp.finish(), [gone]);
}
