//! The message byte by byte, as RFC 4861 and its companions draw it; the schedule against the RFC's limits.

use super::*;
use crate::frame::Frame;
use crate::headers::ethernet;
use crate::neighbor::ndp::Ndp;
use crate::packet::Packet;
use crate::testing::port;
use ipnet::Ipv6Net;
use std::sync::Arc;

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn lan() -> PortInfo {
    port(3, "lan0", &["192.0.2.1/24", "2001:db8:1::1/64", "2001:db8:1::2/64", "2001:db8:9::1/127", "fe80::1/64"])
}

/// The options of an advertisement by type, and its first 16 bytes.
fn read(s: &AdvertSettings, last: bool) -> (Vec<u8>, BTreeMap<u8, Vec<Vec<u8>>>) {
    let mut f = Frame::with_capacity(2000);
    write_advert(&mut f, &lan(), s, last).unwrap();
    assert_eq!(f.data()[..6], [0x33, 0x33, 0, 0, 0, 1]);
    let mut other = lan();
    other.mac = None;
    ethernet::receive(&mut f, &other).unwrap();
    let p = Packet::parse(crate::addr::Family::Inet6, f.data()).unwrap();
    assert_eq!((p.ttl, p.src, p.dst), (255, "fe80::1".parse().unwrap(), "ff02::1".parse().unwrap()));
    // Every check that this router makes on other routers' advertisements: checksum, code, hop limit, options.
    assert!(matches!(Ndp::parse(&p, f.data()), Ok(Ndp::RouterAdvert { mac: Some(m), .. }) if Some(m) == lan().mac));
    let m = p.transport(f.data());
    let mut options: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
    let mut rest = &m[16..];
    while !rest.is_empty() {
        let len = usize::from(rest[1]) * 8;
        options.entry(rest[0]).or_default().push(rest[2..len].to_vec());
        rest = &rest[len..];
    }
    (m[..16].to_vec(), options)
}

/// Proves rfc4861-6.2.3-all.
/// Also proves rfc8504-8.3-dns.
#[test]
fn rfc4861_4_2_what_an_advertisement_says() {
    let (head, options) = read(&AdvertSettings::default(), false);
    assert_eq!(head[4..8], [64, 0, 0x07, 0x08], "rfc4861-6.2.1-defaults: hop limit 64, lifetime 1800");
    assert_eq!(options[&1], [lan().mac.unwrap().0], "rfc4861-4.6.1");
    assert_eq!(options[&5], [[0, 0, 0, 0, 0x05, 0xdc]], "rfc4861-4.6.4: MTU 1500");
    let prefix = [&[64, 0xc0][..], &2_592_000u32.to_be_bytes(), &604_800u32.to_be_bytes(), &[0; 4]].concat();
    let own = [&prefix[..], &net("2001:db8:1::/64").addr().octets()].concat();
    assert_eq!(options[&3], [own], "rfc4861-4.6.2: the port's own /64, once; no link-local, no /127");
    assert_eq!((options.len(), &head[8..]), (3, &[0; 8][..]), "timers are left to the hosts");
    let s = AdvertSettings {
        max_interval: Duration::from_secs(100),
        preference: Preference::High,
        managed: true,
        other: true,
        hop_limit: 32,
        reachable_time: Duration::from_secs(20),
        retrans_timer: Duration::from_millis(1500),
        mtu: Some(1400),
        prefixes: Some(vec![net("2001:db8:7::/64"), net("2001:db8:8::/48")]),
        dns: vec!["2001:db8::53".parse().unwrap(), "2001:db8::54".parse().unwrap()],
        search: vec!["example.net".into(), "lan.".into()],
        pref64: Some(net("64:ff9b::/96")),
        ..AdvertSettings::default()
    };
    s.check().unwrap();
    let (head, options) = read(&s, false);
    assert_eq!(head[4..8], [32, 0xc8, 0x01, 0x2c], "rfc4191-2.2: high preference");
    assert_eq!(head[8..], [0, 0, 0x4e, 0x20, 0, 0, 0x05, 0xdc], "rfc4861-6.2.1-timers: 20,000 ms, 1500 ms");
    assert_eq!(options[&5], [[0, 0, 0, 0, 0x05, 0x78]]);
    let flags: Vec<_> = options[&3].iter().map(|p| (p[0], p[1])).collect();
    assert_eq!(flags, [(64, 0x80), (48, 0x80)], "on link; no addresses made where DHCPv6 gives them");
    let dns: Vec<u8> = s.dns.iter().flat_map(|a| a.octets()).collect();
    assert_eq!(options[&25], [[&[0, 0, 0, 0, 1, 0x2c][..], &dns].concat()], "rfc8106-5.1: for three intervals");
    let names = b"\x07example\x03net\0\x03lan\0\0\0\0\0\0\0";
    assert_eq!(options[&31], [[&[0, 0, 0, 0, 1, 0x2c][..], names].concat()], "rfc8106-5.2");
    let pref64 = [&(38u16 << 3).to_be_bytes()[..], &[0, 0x64, 0xff, 0x9b], &[0; 8]].concat();
    assert_eq!(options[&38], [pref64], "rfc8781-4");
    // RFC 4861 6.2.5: the last one takes the default route away, and nothing else.
    let (head, options) = read(&s, true);
    assert_eq!((&head[5..8], options.len()), (&[0xc0, 0, 0][..], 6), "rfc4861-6.2.5");
    let low = AdvertSettings { preference: Preference::Low, ..AdvertSettings::default() };
    assert_eq!(read(&low, false).0[5], 0x18);
    let never = AdvertSettings { preference: Preference::High, lifetime: Some(Duration::ZERO), ..low };
    assert_eq!(read(&never, false).0[5..8], [0, 0, 0], "rfc4191-2.2: no preference without lifetime");
}

/// Proves rfc4861-6.2.1-prefix: lifetimes and flags of single prefixes, listed or the port's own. Proves rfc6980-5-advert:
/// whatever is advertised fits the least MTU.
#[test]
fn prefixes_have_their_own_lifetimes_and_flags() {
    let secs = |n| Some(Duration::from_secs(n));
    let (a, b, c) = (net("2001:db8:7::/64"), net("2001:db8:8::/64"), net("2001:db8:9::/56"));
    let plain = PrefixSettings::default();
    let s = AdvertSettings {
        prefixes: Some(vec![a, b, c]),
        by_prefix: [
            (a, PrefixSettings { valid: secs(600), ..plain }),
            (b, PrefixSettings { valid: secs(900), preferred: secs(0), on_link: false, autonomous: Some(false) }),
        ]
        .into(),
        ..AdvertSettings::default()
    };
    s.check().unwrap();
    let of = |s: &AdvertSettings| -> Vec<(u8, u32, u32)> {
        let word = |p: &[u8]| u32::from_be_bytes([p[0], p[1], p[2], p[3]]);
        read(s, false).1[&3].iter().map(|p| (p[1], word(&p[2..6]), word(&p[6..10]))).collect()
    };
    assert_eq!(of(&s), [(0xc0, 600, 600), (0, 900, 0), (0x80, 2_592_000, 604_800)]);
    let own = AdvertSettings {
        by_prefix: [(net("2001:db8:1::/64"), PrefixSettings { autonomous: Some(false), ..plain })].into(),
        ..AdvertSettings::default()
    };
    own.check().unwrap();
    assert_eq!(of(&own), [(0x80, 2_592_000, 604_800)]);
    for (p, settings) in [
        (net("2001:db8:a::/64"), plain),
        (a, PrefixSettings { valid: secs(10), preferred: secs(11), ..plain }),
        (c, PrefixSettings { autonomous: Some(true), ..plain }),
    ] {
        AdvertSettings { by_prefix: [(p, settings)].into(), ..s.clone() }.check().unwrap_err();
    }
    let most = AdvertSettings { prefixes: Some(vec![a; 37]), ..AdvertSettings::default() };
    most.check().unwrap();
    let mut f = Frame::with_capacity(2000);
    write_advert(&mut f, &lan(), &most, false).unwrap();
    assert!(f.len() <= 14 + 1280, "{}", f.len());
    AdvertSettings { prefixes: Some(vec![a; 38]), ..most }.check().unwrap_err();
}

#[test]
fn rfc8781_4_lengths_of_nat64_prefixes() {
    for (len, code) in
        [(96, Some(0)), (64, Some(1)), (56, Some(2)), (48, Some(3)), (40, Some(4)), (32, Some(5)), (80, None)]
    {
        let pref64 = Some(Ipv6Net::new_assert("2001:db8::".parse().unwrap(), len));
        let s = AdvertSettings { pref64, ..AdvertSettings::default() };
        assert_eq!(s.check().is_ok(), code.is_some(), "/{len}");
        if let Some(code) = code {
            assert_eq!(read(&s, false).1[&38][0][1] & 7, code, "/{len}");
        }
    }
}

/// Proves rfc4861-6.2.1-bounds, rfc4861-9-mtu.
#[test]
fn settings_out_of_bounds() {
    let d = AdvertSettings::default;
    let secs = Duration::from_secs;
    let rows = [
        (d(), true),
        (AdvertSettings { max_interval: secs(3), ..d() }, false),
        (AdvertSettings { max_interval: secs(4), ..d() }, true),
        (AdvertSettings { max_interval: secs(1801), ..d() }, false),
        (AdvertSettings { lifetime: Some(secs(599)), ..d() }, false),
        (AdvertSettings { lifetime: Some(secs(0)), ..d() }, true),
        (AdvertSettings { lifetime: Some(secs(9000)), ..d() }, true),
        (AdvertSettings { lifetime: Some(secs(9001)), ..d() }, false),
        (AdvertSettings { min_interval: Some(secs(2)), ..d() }, false),
        (AdvertSettings { min_interval: Some(secs(3)), ..d() }, true),
        (AdvertSettings { min_interval: Some(secs(450)), ..d() }, true),
        (AdvertSettings { min_interval: Some(secs(451)), ..d() }, false),
        (AdvertSettings { min_interval: Some(secs(3)), max_interval: secs(4), ..d() }, true),
        (AdvertSettings { reachable_time: secs(3600), ..d() }, true),
        (AdvertSettings { reachable_time: secs(3601), ..d() }, false),
        (AdvertSettings { retrans_timer: secs(4_294_968), ..d() }, false),
        (AdvertSettings { valid: secs(1), ..d() }, false),
        (AdvertSettings { prefixes: Some(vec![net("fe80::/64")]), ..d() }, false),
        (AdvertSettings { prefixes: Some(vec![net("ff00::/8")]), ..d() }, false),
        (AdvertSettings { prefixes: Some(vec![net("2001:db8::/64"); 40]), ..d() }, false),
        (AdvertSettings { search: vec!["a..b".into()], ..d() }, false),
        (AdvertSettings { search: vec!["x".repeat(64)], ..d() }, false),
        (AdvertSettings { search: vec!["x".repeat(60); 20], ..d() }, false),
        (AdvertSettings { dns: vec!["2001:db8::53".parse().unwrap(); 80], ..d() }, false),
    ];
    for (s, right) in rows {
        assert_eq!(s.check().is_ok(), right, "{:?}: {s:?}", s.check());
    }
}

struct Schedule {
    adverts: Adverts,
    ports: PortTable,
    wanted: BTreeMap<String, AdvertSettings>,
}

impl Schedule {
    fn new(interval: u64) -> Self {
        let s = AdvertSettings { max_interval: Duration::from_secs(interval), ..AdvertSettings::default() };
        let wanted = BTreeMap::from([("lan0".to_owned(), s)]);
        let ports = PortTable::default().with(Arc::new(lan()));
        let mut adverts = Adverts::new(9);
        adverts.follow(Instant::ZERO, &wanted, &ports);
        Schedule { adverts, ports, wanted }
    }

    /// Times in milliseconds at which something is said until `end`, with a question at each of `asked`.
    fn run(&mut self, from: u64, end: u64, asked: &[u64]) -> Vec<u64> {
        let mut said = Vec::new();
        let (mut asked, mut now) = (asked.to_vec(), Instant::from_millis(from));
        loop {
            let question = asked.first().map(|t| Instant::from_millis(*t));
            let next = self.adverts.poll_at(now).into_iter().chain(question).min();
            let Some(at) = next.filter(|t| *t <= Instant::from_millis(end)) else { return said };
            now = at.max(now);
            if question == Some(at) {
                self.adverts.solicited(now, PortId(3));
                asked.remove(0);
            }
            said.extend(self.adverts.poll(now, |_| true).iter().map(|_| now.as_nanos() / 1_000_000));
        }
    }
}

/// Proves rfc4861-6.2.4-initial, rfc4861-6.2.4-interval.
#[test]
fn unsolicited_advertisements() {
    let said = Schedule::new(600).run(0, 10_000_000, &[]);
    assert!(said[0] <= 500);
    let gaps: Vec<u64> = said.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps[..2], [16_000, 16_000], "the first three come soon");
    assert!(gaps[2..].iter().all(|g| (200_000..=600_000).contains(g)), "{gaps:?}");
    let spread = gaps[2..].iter().max().unwrap() - gaps[2..].iter().min().unwrap();
    assert!(spread > 100_000, "at random: {gaps:?}");
    // Neither longest nor shortest interval is what it is by default: rfc4861-6.2.1-interval.
    let mut s = Schedule::new(600);
    s.wanted.get_mut("lan0").unwrap().min_interval = Some(Duration::from_secs(450));
    let (wanted, ports) = (s.wanted.clone(), s.ports.clone());
    s.adverts.follow(Instant::ZERO, &wanted, &ports);
    let said = s.run(0, 10_000_000, &[]);
    assert!(said[3..].windows(2).all(|w| (450_000..=600_000).contains(&(w[1] - w[0]))), "{said:?}");
}

/// Proves rfc4861-6.2.4-change: what is new is told as at the start, but not within three seconds of another.
#[test]
fn changed_settings_are_told_soon() {
    let mut s = Schedule::new(1800);
    s.run(0, 1_000_000, &[]);
    s.wanted.get_mut("lan0").unwrap().valid = Duration::from_secs(7200);
    s.wanted.get_mut("lan0").unwrap().preferred = Duration::from_secs(3600);
    let (wanted, ports) = (s.wanted.clone(), s.ports.clone());
    s.adverts.follow(Instant::from_millis(1_000_000), &wanted, &ports);
    assert_eq!(s.run(1_000_000, 1_040_000, &[]), [1_000_000, 1_016_000, 1_032_000]);
}

/// Proves rfc4861-6.2.6-answer, rfc4861-6.2.6-delay, rfc4861-6.2.6-rate.
#[test]
fn solicited_advertisements() {
    let mut s = Schedule::new(1800);
    s.run(0, 100_000, &[]);
    let said = s.run(100_000, 101_000, &[100_000]);
    assert!(said.len() == 1 && (100_000..100_500).contains(&said[0]), "{said:?}");
    // A flood of questions: one answer in three seconds at most.
    let asked: Vec<u64> = (0..300).map(|n| 101_000 + n * 100).collect();
    let said = s.run(101_000, 131_000, &asked);
    assert!(said.len() >= 8 && said.windows(2).all(|w| w[1] - w[0] >= 3000), "{said:?}");
    s.adverts.solicited(Instant::from_millis(200_000), PortId(9));
}

/// Proves rfc4861-6.2.5-cease: a port that is to say nothing more says so once, as does a router that ends.
#[test]
fn goodbyes() {
    let mut s = Schedule::new(600);
    let nothing = BTreeMap::new();
    s.adverts.follow(Instant::from_millis(1), &nothing, &s.ports);
    assert!(s.adverts.poll(Instant::from_millis(1), |_| true).is_empty(), "who never spoke says no goodbye");
    s.adverts.follow(Instant::from_millis(2), &s.wanted, &s.ports);
    assert_eq!(s.run(2, 1000, &[]).len(), 1);
    s.adverts.follow(Instant::from_millis(2000), &nothing, &s.ports);
    assert_eq!(s.adverts.poll_at(Instant::from_millis(2000)), Some(Instant::from_millis(2000)));
    let last = s.adverts.poll(Instant::from_millis(2000), |_| true);
    assert!(matches!(&last[..], [Due { last: true, port: PortId(3), .. }]));
    assert_eq!((s.adverts.poll_at(Instant::from_millis(2001)), s.adverts.is_active(PortId(3))), (None, false));
    let mut s = Schedule::new(600);
    s.run(0, 1000, &[]);
    assert!(matches!(&s.adverts.finish()[..], [Due { last: true, .. }]));
    // Hosts know it from before the link went down, whether it is up again or not.
    for again in [false, true] {
        let mut s = Schedule::new(600);
        s.run(0, 1000, &[]);
        let up = s.ports.clone();
        s.ports.set(Arc::new(PortInfo { up: false, ..lan() }));
        s.adverts.follow(Instant::from_millis(2000), &s.wanted, &s.ports);
        assert!(s.adverts.poll(Instant::from_millis(2600), |_| true).is_empty() && !s.adverts.is_active(PortId(3)));
        if again {
            s.adverts.follow(Instant::from_millis(3000), &s.wanted, &up);
        }
        assert!(matches!(&s.adverts.finish()[..], [Due { last: true, .. }]), "again: {again}");
        assert!(s.adverts.finish().is_empty());
    }
    // A tentative link-local address keeps silent until it is sure.
    let mut s = Schedule::new(600);
    assert!(s.adverts.poll(Instant::from_millis(600), |_| false).is_empty());
    assert_eq!(s.adverts.poll_at(Instant::ZERO), Some(Instant::from_millis(700)));
}
