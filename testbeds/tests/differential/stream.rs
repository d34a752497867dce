//! The stream: packet number n of a seed is the same in every run.

use crate::{OWN, PEER};
use router_core::addr::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use testbeds::sim::packets::sum16;

/// A packet and the port at which it comes.
#[derive(Clone, Debug)]
pub struct Given {
    /// 0 is `lan0`, 1 is `wan0`.
    pub port: usize,
    /// Link-layer destination.
    pub to: MacAddr,
    /// From the IP header on.
    pub packet: Vec<u8>,
    /// Family of the EtherType.
    pub v4: bool,
}

impl Given {
    /// As an Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        let kind: [u8; 2] = if self.v4 { [8, 0] } else { [0x86, 0xdd] };
        [&self.to.0[..], &PEER[self.port].0, &kind, &self.packet].concat()
    }
}

/// SplitMix64: enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }

    /// True once in `n`.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const SRC4: &[&str] = &["192.0.2.2", "192.0.2.2", "192.0.2.2", "10.1.2.3", "10.1.2.3"];
const ODD_SRC4: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "224.0.0.5",
    "240.1.1.1",
    "255.255.255.255",
    "169.254.1.1",
    "203.0.113.7",
    "192.0.2.1",
    "192.0.2.3",
    "192.0.2.0",
    "100.64.1.1",
];
const DST4: &[&str] = &[
    "203.0.113.9",
    "203.0.113.9",
    "203.0.113.9",
    "203.0.113.9",
    "198.51.100.2",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.114.1",
    "203.0.115.1",
    "203.0.116.1",
    "172.16.0.1",
];
const ODD_DST4: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "224.0.0.5",
    "239.1.1.1",
    "240.1.1.1",
    "255.255.255.255",
    "169.254.1.1",
    "192.0.2.3",
    "198.51.100.3",
    "198.51.100.0",
];
const SRC6: &[&str] = &["2001:db8::2", "2001:db8::2", "2001:db8::2", "2001:db8:f::7", "2001:db8:f::7"];
const ODD_SRC6: &[&str] = &[
    "::",
    "::1",
    "fe80::2",
    "ff02::5",
    "ff0e::5",
    "::ffff:192.0.2.2",
    "::192.0.2.2",
    "2001:db8::1",
    "2001:db8:9::7",
    "2001:db8:9::7",
    "2001:db8:9::7",
    "2001:db8:9::7",
    "fc00::1",
    "64:ff9b::1",
    "2001:db8::",
    "2001:db8:1::1",
];
/// Sources behind `wan0`, and where their packets go.
const WAN4: [&[&str]; 2] = [
    &["198.51.100.2", "198.51.100.2", "203.0.113.7", "203.0.113.7", "203.0.113.8"],
    &["10.1.2.3", "10.1.2.3", "192.0.2.2", "192.0.2.1", "198.51.100.1", "203.0.115.1", "172.16.0.1"],
];
const WAN6: [&[&str]; 2] = [
    &["2001:db8:1::2", "2001:db8:1::2", "2001:db8:9::7", "2001:db8:9::7", "2001:db8:9::8"],
    &[
        "2001:db8:f::9",
        "2001:db8:f::9",
        "2001:db8::2",
        "2001:db8::1",
        "2001:db8:1::1",
        "2001:db8:b::1",
        "2001:db8:77::1",
        "2001:db8::",
    ],
];
const DST6: &[&str] = &[
    "2001:db8:9::9",
    "2001:db8:9::9",
    "2001:db8:9::9",
    "2001:db8:9::9",
    "2001:db8:1::2",
    "2001:db8::1",
    "2001:db8:1::1",
    "2001:db8:a::1",
    "2001:db8:b::1",
    "2001:db8:c::1",
    "2001:db8:77::1",
];
const ODD_DST6: &[&str] = &[
    "::",
    "::1",
    "fe80::1",
    "fe80::9",
    "ff02::1",
    "ff02::2",
    "ff02::77",
    "ff05::2",
    "ff05::2",
    "ff05::2",
    "ff0e::5",
    "::ffff:192.0.2.2",
    "::198.51.100.2",
    "fc00::1",
    "2001:db8::",
    "fe80::",
];

/// Seventeen options to be skipped, then one that is not.
const MANY: &[u8] = &[
    30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30,
    0, 0x9e, 2, 0, 0,
];

/// Nine options to be skipped, then one that is not.
const SOME: &[u8] = &[30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 30, 0, 0x9e, 2, 0, 0];

/// Packet number `n` of the stream with this seed, on links with these MTUs.
pub fn packet(seed: u64, n: u64, mtus: [u32; 2]) -> Given {
    let mut r = Random(n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1ff);
    let v4 = r.once_in(2);
    let port = usize::from(r.once_in(5));
    let link = (port, mtus[port] as usize);
    let mut packet = if v4 { ipv4(&mut r, n, link) } else { ipv6(&mut r, n, link) };
    // Broken ones: a few bytes changed, or the end missing.
    let broken = r.below(10);
    if broken == 0 {
        for _ in 0..=r.below(3) {
            let at = r.below(packet.len().min(64) as u64) as usize;
            // Not the addresses: those are chosen above, with care that no neighbour has to be looked for.
            let addresses = if v4 { 12..20 } else { 8..40 };
            if !addresses.contains(&at) {
                packet[at] = r.next() as u8;
            }
        }
        if v4 && r.once_in(2) {
            fill(&mut packet);
        }
    }
    if broken == 1 {
        let len = r.below(packet.len() as u64 + 1) as usize;
        packet.truncate(len.max(1));
    }
    let to = match r.below(40) {
        0 => MacAddr::BROADCAST,
        1 => PEER[1 - port],
        _ => multicast(&packet).unwrap_or(OWN[port]),
    };
    Given { port, to, packet, v4 }
}

/// The link-layer group of a packet to a multicast address.
fn multicast(packet: &[u8]) -> Option<MacAddr> {
    match packet.first()? >> 4 {
        4 => {
            let d = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?);
            d.is_multicast().then(|| MacAddr::for_ipv4_multicast(d))
        }
        6 => {
            let d = Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?);
            d.is_multicast().then(|| MacAddr::for_ipv6_multicast(d))
        }
        _ => None,
    }
}

/// Payload bytes: mostly short, sometimes at the edges of the links' MTUs.
fn length(r: &mut Random, header: u64) -> usize {
    let n = match r.below(10) {
        0 => 1400 - header,
        1 => 1401 - header,
        2 => 1500 - header,
        3 => 0,
        4 => 1280 - header,
        5 => 1281 - header,
        _ => r.below(300),
    };
    n as usize
}

/// A segment of some protocol with its checksum right (or, sometimes, not), and the protocol.
fn segment(r: &mut Random, src: IpAddr, dst: IpAddr, len: usize) -> (u8, Vec<u8>) {
    let v4 = src.is_ipv4();
    let icmp = if v4 { 1 } else { 58 };
    let proto = match r.below(20) {
        0 => [2, 4, 41, 47, 89, 103, 112, 115, 136, 255][r.below(10) as usize],
        n => [17, 17, 17, 6, 6, icmp, icmp, 50, 132, 253][(n % 10) as usize],
    };
    let head = match proto {
        6 => 20,
        1 | 17 | 58 => 8,
        _ => 0,
    };
    let mut s: Vec<u8> = (0..len.saturating_sub(head)).map(|i| i as u8).collect();
    let check = match proto {
        17 => {
            s.splice(0..0, [0x30, 0x39, 0x82, 0x9a, 0, 0, 0, 0]);
            let n = s.len() as u16;
            s[4..6].copy_from_slice(&n.to_be_bytes());
            6
        }
        6 => {
            let flags = [0x02, 0x10, 0x12, 0x04, 0x11][r.below(5) as usize];
            let head = [0x30, 0x39, 0, 22, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            s.splice(0..0, head);
            16
        }
        1 => {
            let kind = [8, 8, 8, 0, 3, 5, 11, 12, 13, 17, 42][r.below(11) as usize];
            s.splice(0..0, [kind, 0, 0, 0, 0, 7, 0, 1]);
            2
        }
        58 => {
            let kind = [128, 128, 128, 129, 1, 2, 3, 4, 100, 200, 128, 137][r.below(12) as usize];
            s.splice(0..0, [kind, 0, 0, 0, 0, 7, 0, 1]);
            2
        }
        _ => usize::MAX,
    };
    if check != usize::MAX {
        let pseudo = match (src, dst) {
            (IpAddr::V4(_), _) if proto == 1 => Vec::new(),
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                [&a.octets()[..], &b.octets(), &[0, proto], &(s.len() as u16).to_be_bytes()].concat()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                [&a.octets()[..], &b.octets(), &(s.len() as u32).to_be_bytes(), &[0, 0, 0, proto]].concat()
            }
            _ => Vec::new(),
        };
        let sum = match sum16(&[&pseudo, &s]) {
            0 if proto == 17 => 0xffff,
            sum => sum,
        };
        s[check..check + 2].copy_from_slice(&sum.to_be_bytes());
        if r.once_in(20) {
            s[check] ^= 0x55;
        }
    }
    (proto, s)
}

fn ipv4(r: &mut Random, n: u64, (port, mtu): (usize, usize)) -> Vec<u8> {
    let src: Ipv4Addr =
        if r.once_in(10) { r.pick(ODD_SRC4) } else { r.pick([SRC4, WAN4[0]][port]) }.parse().expect("address");
    let dst: Ipv4Addr =
        if r.once_in(6) { r.pick(ODD_DST4) } else { r.pick([DST4, WAN4[1]][port]) }.parse().expect("address");
    let options: &[u8] = if r.once_in(8) {
        r.pick::<[u8]>(&[
            &[1, 1, 1, 0],
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[7, 7, 8, 1, 2, 3, 4, 0],
            &[7, 7, 3, 0, 0, 0, 0, 0],
            &[7, 7, 5, 0, 0, 0, 0, 0],
            &[68, 8, 5, 0, 0, 0, 0, 0],
            &[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[68, 12, 13, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[131, 7, 4, 203, 0, 113, 9, 0],
            &[137, 7, 4, 203, 0, 113, 9, 0],
            &[148, 4, 0, 0],
            &[0x9e, 4, 1, 2],
            &[0x1e, 8, 1, 2, 3, 4, 5, 6],
            &[7, 40, 4, 0],
            &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            // Several, at odd places, too short, too long.
            &[1, 7, 7, 4, 0, 0, 0, 0],
            &[148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0],
            &[7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0, 0],
            &[68, 8, 5, 0xe0, 0, 0, 0, 0],
            &[68, 8, 9, 0xe0, 1, 2, 3, 4],
            &[68, 8, 9, 0xe0, 0, 0, 0, 0],
            &[68, 12, 5, 3, 192, 0, 2, 1, 0, 0, 0, 0],
            &[68, 12, 5, 3, 192, 0, 2, 77, 0, 0, 0, 0],
            &[68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            &[68, 12, 5, 3, 224, 0, 0, 2, 0, 0, 0, 0],
            &[68, 4, 5, 0],
            &[7, 3, 4, 0],
            &[7, 2, 0, 0],
            &[148, 3, 0, 0],
            &[148, 4, 0, 1],
            &[0x1e, 1, 0, 0],
            &[0x1e, 0, 0, 0],
            &[0, 0x1e, 0, 0],
            &[1, 1, 1, 7],
            &[131, 3, 4, 0],
            &[131, 7, 8, 203, 0, 113, 9, 0],
            // To a neighbour, by another address of the router, to somebody without a route.
            &[137, 7, 4, 198, 51, 100, 2, 0],
            &[131, 11, 4, 198, 51, 100, 1, 203, 0, 113, 9, 0],
            &[131, 11, 8, 192, 0, 2, 2, 203, 0, 113, 9, 0],
            &[131, 7, 4, 203, 0, 116, 9, 0],
            &[134, 8, 0, 0, 0, 1, 2, 3],
        ])
    } else {
        &[]
    };
    let header = 20 + options.len();
    let len = length(r, header as u64).min(mtu - header);
    let (proto, s) = segment(r, IpAddr::V4(src), IpAddr::V4(dst), len);
    let total = ((header + s.len()) as u16).to_be_bytes();
    let id = (n as u16).to_be_bytes();
    let flags: [u8; 2] = match r.below(18) {
        0 => [0x20, 0],
        1 => [0x20, 2],
        2 => [0, 9],
        16 => [0x60, 0],
        17 => [[0x80, 0], [0x1f, 0xff], [0x3f, 0xff], [0x40, 9]][r.below(4) as usize],
        n if n < 9 => [0x40, 0],
        _ => [0, 0],
    };
    let ttl = [64, 64, 64, 64, 255, 2, 1, 0][r.below(8) as usize];
    let tos = [0, 0, 0xb8, 0x03, 0xff][r.below(5) as usize];
    let mut v = vec![0x40 | (header / 4) as u8, tos, total[0], total[1], id[0], id[1], flags[0], flags[1], ttl, proto];
    v.extend([0, 0]);
    v.extend(src.octets());
    v.extend(dst.octets());
    v.extend(options);
    v.extend(s);
    fill(&mut v);
    v
}

fn ipv6(r: &mut Random, n: u64, (port, mtu): (usize, usize)) -> Vec<u8> {
    let src: Ipv6Addr =
        if r.once_in(10) { r.pick(ODD_SRC6) } else { r.pick([SRC6, WAN6[0]][port]) }.parse().expect("address");
    let dst = match r.below(30) {
        0 => r.pick(&["ff02::1", "ff02::2", "ff05::2", "2001:db8::"]),
        1..6 => r.pick(ODD_DST6),
        _ => r.pick([DST6, WAN6[1]][port]),
    };
    let dst: Ipv6Addr = dst.parse().expect("address");
    let len = length(r, 40);
    let (proto, s) = segment(r, IpAddr::V6(src), IpAddr::V6(dst), len);
    // The chain is written back to front: each header names what comes behind it.
    let (mut next, mut body) = (proto, s);
    if r.once_in(5) {
        for _ in 0..=r.below(3) {
            let id = (n as u32).to_be_bytes();
            let (kind, mut header): (u8, Vec<u8>) = match r.below(22) {
                0 => (60, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                1 => (60, vec![0, 0, 0x1e, 4, 0, 0, 0, 0]),
                2 => (60, vec![0, 0, 0x5e, 4, 0, 0, 0, 0]),
                3 => (60, vec![0, 0, 0x9e, 4, 0, 0, 0, 0]),
                4 => (60, vec![0, 0, 0xde, 4, 0, 0, 0, 0]),
                5 => (43, vec![0, 0, 0, 0, 0, 0, 0, 0]),
                6 => (43, vec![0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                7 => (43, vec![0, 0, 99, 1, 0, 0, 0, 0]),
                8 => (44, vec![0, 0, 0, 0, id[0], id[1], id[2], id[3]]),
                9 => (44, vec![0, 0, 0, 1, id[0], id[1], id[2], id[3]]),
                10 => (44, vec![0, 0, 0, 9, id[0], id[1], id[2], id[3]]),
                11 => (60, vec![0, 0, 0, 0, 0, 0, 0, 0]),
                12 => (60, vec![0, 0, 1, 5, 0, 0, 0, 0]),
                13 => (60, vec![0, 1, 0x1e, 2, 0, 0, 0x9e, 2, 0, 0, 1, 4, 0, 0, 0, 0]),
                14 => (60, vec![0, 1, 1, 6, 0, 0, 0, 0, 0, 0, 0x1e, 4, 0, 0, 0, 0]),
                15 => (43, vec![0, 0, 4, 1, 0, 0, 0, 0]),
                16 => (43, vec![0, 0, 253, 0, 0, 0, 0, 0]),
                17 => (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                18 => (135, vec![0, 0, 0, 0, 0, 0, 0, 0]),
                // A first fragment that may end within the header behind.
                19 => {
                    body.truncate(r.below(14) as usize);
                    (44, vec![0, 0, 0, 1, id[0], id[1], id[2], id[3]])
                }
                // A header that the packet ends within, or before.
                20 => {
                    body.clear();
                    let kind = [43, 44, 60][r.below(3) as usize];
                    let mut header = vec![0, 1, 0, 0, id[0], id[1], id[2], id[3]];
                    header.truncate(r.below(9) as usize);
                    (kind, header)
                }
                _ => (51, vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            };
            if let Some(first) = header.first_mut() {
                *first = next;
            }
            next = kind;
            body.splice(0..0, header);
        }
    }
    if r.once_in(8) {
        let options: &[u8] = r.pick::<[u8]>(&[
            &[1, 4, 0, 0, 0, 0],
            &[5, 2, 0, 0, 1, 0],
            &[0x1e, 4, 0, 0, 0, 0],
            &[0x5e, 4, 0, 0, 0, 0],
            &[0x9e, 4, 0, 0, 0, 0],
            &[0xde, 4, 0, 0, 0, 0],
            &[0xc2, 4, 0, 1, 0, 0],
            &[1, 9, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0],
            &[5, 2, 0, 3, 0, 0],
            &[5, 4, 0, 0, 0, 0],
            &[0x1e, 1, 0, 0x9e, 1, 0],
            &[0x3e, 4, 0, 0, 0, 0],
            &[4, 1, 0, 1, 1, 0],
            &[0x9e, 255, 0, 0, 0, 0],
            &[0x31, 4, 0, 0, 0, 0],
            MANY,
            SOME,
        ]);
        body.splice(0..0, [&[next, (options.len() / 8) as u8], options].concat());
        next = 0;
    }
    // No more than the link carries.
    body.truncate(mtu - 40);
    let hop_limit = [64, 64, 64, 64, 255, 2, 1, 0][r.below(8) as usize];
    let (class, label) = ([0, 0, 0xb8, 0x03, 0xff][r.below(5) as usize], (r.below(4) * 0x3_1415) as u32);
    let first = 0x6000_0000 | u32::from(class as u8) << 20 | label & 0xf_ffff;
    let mut v = first.to_be_bytes().to_vec();
    // Now and then a hop-by-hop header lies behind what the length says is the end.
    let len = if next == 0 && r.once_in(40) { 0 } else { body.len() as u16 };
    v.extend(len.to_be_bytes());
    v.extend([next, hop_limit]);
    v.extend(src.octets());
    v.extend(dst.octets());
    v.extend(body);
    v
}

/// Sets an IPv4 header's checksum right.
pub fn fill(v: &mut [u8]) {
    let header = usize::from(v[0] & 15) * 4;
    if header >= 20 && header <= v.len() {
        v[10..12].fill(0);
        let sum = sum16(&[&v[..header]]);
        v[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A packet that every router forwards from `lan0` to `wan0`, unlike all others.
pub fn marker(n: u32) -> Given {
    let n = n.to_be_bytes();
    let mut v = vec![0x45, 0, 0, 36, 0xff, 0xff, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 203, 0, 113, 250];
    v.extend([0, 9, 0, 9, 0, 16, 0, 0, 0xd1, 0xff, n[0], n[1], n[2], n[3], 0x5a, 0xa5]);
    fill(&mut v);
    Given { port: 0, to: OWN[0], packet: v, v4: true }
}
