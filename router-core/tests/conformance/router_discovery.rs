//! ICMP router discovery (RFC 1256) on a whole router, with a clock of its own.

use crate::rig::{HOST, LAN, Rig, WAN, frame_of, icmp, packet, read_icmp};
use router_core::addr::MacAddr;
use router_core::port::PortId;
use router_core::settings::{IrdpSettings, Settings};
use router_core::time::Duration;

const ALL_ROUTERS: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 2]);

fn rig(settings: IrdpSettings) -> Rig {
    let mut all = Settings::default();
    all.irdp.insert("lan0".into(), settings);
    Rig::just_started(all, &["192.0.2.1/24", "2001:db8::1/64"], &["198.51.100.1/24"])
}

/// The advertisements among frames: port, link-layer destination, lifetime, entries.
fn adverts(sent: Vec<(PortId, Vec<u8>)>) -> Vec<(PortId, [u8; 6], u16, Vec<u8>)> {
    let ours = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 9;
    let read = |(port, f): (PortId, Vec<u8>)| {
        let (p, m) = read_icmp(&f[14..]);
        assert_eq!((p.ttl, m[1], m[5]), (1, 0, 2));
        (port, f[..6].try_into().expect("six bytes"), u16::from_be_bytes([m[6], m[7]]), m[8..].to_vec())
    };
    sent.into_iter().filter(|(_, f)| ours(f)).map(read).collect()
}

fn solicit(rig: &mut Rig, src: &str, dst: &str, message: &[u8]) {
    let mut p = icmp("192.0.2.2", dst, 1, message);
    if src != "192.0.2.2" {
        p = packet(src, dst, 1, 1, &p[20..]);
    }
    let sent = rig.frame(LAN, &frame_of(HOST, ALL_ROUTERS, &p));
    assert!(sent.is_empty(), "nobody is answered at once: {sent:02x?}");
}

/// Proves rfc1256-4.3-periodic, rfc1256-4.3-cease, rfc1256-4.1-off, rfc1812-4.3.3.10-discovery.
#[test]
fn routers_tell_of_themselves() {
    let mut rig = rig(IrdpSettings::default());
    let first = adverts(rig.pass(Duration::from_secs(2)));
    let own = (LAN, [1, 0, 0x5e, 0, 0, 1], 1800, vec![192, 0, 2, 1, 0, 0, 0, 0]);
    assert_eq!(first, std::slice::from_ref(&own));
    assert_eq!(adverts(rig.pass(Duration::from_secs(40))), [own.clone(), own.clone()], "the initial ones");
    let hour = adverts(rig.pass(Duration::from_secs(3600)));
    assert!((6..=8).contains(&hour.len()) && hour.iter().all(|a| *a == own), "{hour:?}");
    // An address that comes is told of with the next one, and taken back when it goes.
    let second = "192.0.2.99/24".parse().expect("address");
    rig.with(|r, _, _| r.add_addr(LAN, second)).expect("address");
    let both = adverts(rig.pass(Duration::from_secs(601)));
    assert!(both.iter().all(|(.., entries)| entries.len() == 16), "{both:?}");
    rig.with(|r, _, _| r.del_addr(LAN, second)).expect("address");
    let gone = adverts(rig.pass(Duration::ZERO));
    assert_eq!(gone, [(LAN, own.1, 0, vec![192, 0, 2, 99, 0, 0, 0, 0])]);
    rig.with(|r, now, out| r.farewell(now, out));
    let last = adverts(rig.pass(Duration::ZERO));
    assert_eq!(last, [(LAN, own.1, 0, own.3)]);
    // Nothing is said where nobody asks for it.
    let mut silent = Rig::just_started(Settings::default(), &["192.0.2.1/24"], &["198.51.100.1/24"]);
    assert!(adverts(silent.pass(Duration::from_secs(3600))).is_empty());
}

/// Proves rfc1256-4.3-answer, rfc1256-4.2-silent, rfc1256-4.3-broadcast.
/// Proves rfc1256-4.3-join. Proves rfc1812-4.2.2.11-broadcast: what comes to the directed broadcast of the link is received,
/// and means something.
#[test]
fn hosts_that_ask_are_answered() {
    let good: &[u8] = &[10, 0, 0, 0, 0, 0, 0, 0];
    // source, destination, message; answered
    for (src, dst, message, answered) in [
        ("192.0.2.2", "224.0.0.2", good, true),
        ("0.0.0.0", "224.0.0.2", good, true),
        ("192.0.2.2", "255.255.255.255", good, true),
        ("192.0.2.2", "192.0.2.255", good, true),
        ("192.0.2.2", "198.51.100.255", good, false),
        ("203.0.113.9", "224.0.0.2", good, false),
        ("192.0.2.2", "224.0.0.2", &[10, 1, 0, 0, 0, 0, 0, 0], false),
        ("192.0.2.2", "224.0.0.2", &[10, 0, 0, 0], false),
        ("192.0.2.2", "224.0.0.1", good, false),
    ] {
        let mut rig = rig(IrdpSettings { broadcast: true, ..IrdpSettings::default() });
        rig.pass(Duration::from_secs(100));
        solicit(&mut rig, src, dst, message);
        let said = adverts(rig.pass(Duration::from_secs(2)));
        assert_eq!(said.len(), usize::from(answered), "{src} {dst} {message:?}");
        assert!(said.iter().all(|(port, mac, lifetime, _)| (*port, *mac, *lifetime) == (LAN, [0xff; 6], 1800)));
        // With the answer the interval begins anew.
        assert!(!answered || adverts(rig.pass(Duration::from_secs(449))).is_empty());
    }
    // Many who ask at once are answered together; on a port that says nothing, nobody is.
    let mut rig = rig(IrdpSettings::default());
    rig.pass(Duration::from_secs(100));
    (0..50).for_each(|_| solicit(&mut rig, "192.0.2.2", "224.0.0.2", good));
    assert_eq!(adverts(rig.pass(Duration::from_secs(2))).len(), 1);
    let p = icmp("198.51.100.2", "224.0.0.2", 1, good);
    assert!(rig.frame(WAN, &frame_of(HOST, ALL_ROUTERS, &p)).is_empty());
    assert!(adverts(rig.pass(Duration::from_secs(2))).is_empty());
}
