//! Which differences are known, and what counts as one.

use crate::Sent;
use crate::stream::Given;
use router_core::addr::MacAddr;
use std::fmt::Write;

/// Ids of all listed differences.
pub const ALL: &[&str] = &[
    "own-source",
    "broadcast-source",
    "class-e",
    "net-zero",
    "link-local-4",
    "martian-6",
    "link-local-destination",
    "scope-before-hop-limit",
    "route-errors-limited",
    "source-route-told",
    "hop-by-hop-told",
    "jumbo-unknown",
    "unicast-in-link-broadcast",
    "icmp-timestamp",
    "icmp-extended-echo",
    "nested-fragments",
    "padding-not-zero",
    "group-echo-way-back",
    "padding-long",
    "router-alert-length",
    "segment-routing",
    "destination-options-told",
    "header-cut-told",
    "error-behind-mobility",
    "anycast-reset",
    "fragment-beyond",
    "tunnel-unknown-peer",
    "protocols-spoken",
    "cipso",
    "anycast-source",
    "after-end-of-options",
    "timestamp-overflow",
    "group-routing",
    "first-fragment-short",
    "error-source-broadcast",
    "hop-by-hop-spoken",
    "about-redirect",
    "fragment-hides-type",
    "icmp-ecn",
    "option-pointer",
    "reset-class",
    "error-options",
    "timestamp-clock",
    "fragment-options",
];

/// Listed, too, but seen only where the router has no IPv4 address.
pub const ONLY_V6: &str = "recorded-dummy";

/// Listed, too, but seen only where a port has several addresses.
pub const SEVERAL: &str = "source-tie";

/// Takes link headers off, and leaves out what routers say of their own accord: ARP, neighbour discovery, MLD, IGMP.
pub fn without_link_header(frames: Sent) -> Sent {
    let mut sent: Sent = frames
        .into_iter()
        .filter(|(_, f)| f.len() > 14 && (f[12..14] == [8, 0] || f[12..14] == [0x86, 0xdd]))
        .map(|(port, f)| (port, f[14..].to_vec()))
        .filter(|(_, p)| !is_chatter(p))
        .collect();
    sent.sort_by_key(|(port, _)| *port);
    sent
}

fn is_chatter(p: &[u8]) -> bool {
    let ndp_or_mld = |t: Option<&u8>| matches!(t, Some(130..=137 | 143));
    match p[0] >> 4 {
        4 => p.get(9) == Some(&2),
        // MLD reports have a hop-by-hop header.
        _ => {
            (p.get(6) == Some(&58) && ndp_or_mld(p.get(40)))
                || (p.get(6) == Some(&0) && p.get(40) == Some(&58) && ndp_or_mld(p.get(48)))
        }
    }
}

/// Whether a packet is an ICMP error.
pub fn is_error(p: &[u8]) -> bool {
    match p[0] >> 4 {
        4 => p[9] == 1 && matches!(p.get(usize::from(p[0] & 15) * 4), Some(3 | 4 | 5 | 11 | 12)),
        _ => p[6] == 58 && p.get(40).is_some_and(|t| *t < 128),
    }
}

/// The same with the field left out that no rule fixes: the identification of IPv4 packets, and of fragments, that a router
/// makes itself.
pub fn normal(sent: &Sent) -> Sent {
    let mut sent = sent.clone();
    for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && OWN4.contains(&&p[12..16])) {
        p[4..6].fill(0);
        p[10..12].fill(0);
    }
    let fragment = |p: &Vec<u8>| p[0] >> 4 == 6 && p[6] == 44 && p.len() >= 48;
    for (_, p) in sent.iter_mut().filter(|(_, p)| fragment(p) && OWN6.iter().any(|a| source(p) == **a)) {
        p[44..48].fill(0);
    }
    sent
}

/// Addresses of routers in all topologies.
const OWN6: [&str; 6] = ["2001:db8::1", "2001:db8:1::1", "2001:db8:f:2::1", "2001:db8:f:3::1", "fe80::1", "fe80::"];

/// Addresses of routers, the one of those without any included (RFC 7600 5.4).
const OWN4: [&[u8]; 3] = [&[192, 0, 2, 1], &[198, 51, 100, 1], &[192, 0, 0, 8]];

/// Subnet-router anycast addresses of all topologies.
const ANYCAST6: [&str; 4] = ["2001:db8::", "2001:db8:f:2::", "2001:db8:1::", "fe80::"];

/// What the given packet says, as far as it is whole.
struct Facts<'a> {
    bytes: &'a [u8],
    v4: bool,
    src: &'a [u8],
    dst: &'a [u8],
}

impl<'a> Facts<'a> {
    fn of(p: &'a [u8]) -> Self {
        let v4 = p.first().is_some_and(|b| b >> 4 == 4);
        let at = if v4 { [12..16, 16..20] } else { [8..24, 24..40] };
        let [src, dst] = at.map(|r| p.get(r).unwrap_or(&[]));
        Facts { bytes: p, v4, src, dst }
    }

    fn either(&self, test: impl Fn(&[u8]) -> bool) -> bool {
        test(self.src) || test(self.dst)
    }

    fn has_options(&self) -> bool {
        self.v4 && self.bytes[0] & 15 > 5
    }

    /// Types of IPv4 options, as far as they are whole.
    fn options4(&self) -> Vec<u8> {
        let (mut found, mut at) = (Vec::new(), 20);
        while let Some(kind) = self.bytes.get(at..usize::from(self.bytes[0] & 15) * 4).and_then(|o| o.first()) {
            match (*kind, self.bytes.get(at + 1)) {
                (0, _) => break,
                (1, _) => at += 1,
                (kind, len) => {
                    found.push(kind);
                    at += usize::from(len.copied().unwrap_or(2)).max(2);
                }
            }
        }
        found
    }

    /// The options of the headers of this type, each as far as it is whole; and the longest run of padding.
    fn options6(&self, header: u8) -> (Vec<&'a [u8]>, usize) {
        let (mut found, mut most) = (Vec::new(), 0);
        for (_, start, size) in self.headers().into_iter().filter(|h| h.0 == header) {
            let (mut at, mut run) = (start + 2, 0);
            while let Some(kind) = self.bytes.get(at..(start + size).min(self.bytes.len())).and_then(|o| o.first()) {
                let len = if *kind == 0 { 1 } else { 2 + self.bytes.get(at + 1).map_or(0, |l| usize::from(*l)) };
                run = if *kind < 2 { run + len } else { 0 };
                most = most.max(run);
                found.extend(self.bytes.get(at..at + len));
                at += len;
            }
        }
        (found, most)
    }

    /// Whether options of these headers have padding with anything but zeros.
    fn padding_says_something(&self, header: u8) -> bool {
        self.options6(header).0.iter().any(|o| o[0] == 1 && o[2..].iter().any(|b| *b != 0))
    }

    /// Extension headers: type, where they start, how long they are.
    fn headers(&self) -> Vec<(u8, usize, usize)> {
        let (mut found, mut next, mut at) = (Vec::new(), self.bytes.get(6).copied().unwrap_or(59), 40);
        while let (0 | 43 | 44 | 51 | 60 | 135, Some(head)) = (next, self.bytes.get(at..at + 2)) {
            let size = match next {
                44 => 8,
                51 => (usize::from(head[1]) + 2) * 4,
                _ => (usize::from(head[1]) + 1) * 8,
            };
            found.push((next, at, size));
            (next, at) = (head[0], at + size);
        }
        found
    }

    /// Types of IPv6 extension headers, in order.
    fn chain(&self) -> Vec<u8> {
        self.headers().iter().map(|h| h.0).collect()
    }

    /// Whether an ICMPv6 error lies behind a mobility header.
    fn mobility_hides_error(&self) -> bool {
        let headers = self.headers();
        let behind = headers.last().map(|(_, at, size)| (self.bytes.get(*at), self.bytes.get(at + size)));
        let error = matches!(behind, Some((Some(58), t)) if t.is_none_or(|t| *t < 128));
        error && headers.iter().any(|h| h.0 == 135)
    }

    /// The protocol behind all extension headers.
    fn upper(&self) -> u8 {
        let last = self.headers().last().map_or(6, |h| h.1);
        self.bytes.get(last).copied().unwrap_or(59)
    }

    /// What lies behind all extension headers.
    fn after_headers(&self) -> &'a [u8] {
        let at = self.headers().last().map_or(40, |(_, at, size)| at + size);
        self.bytes.get(at..).unwrap_or_default()
    }

    /// Whether a byte lies in a header of this type.
    fn lies_in(&self, header: u8, byte: u32) -> bool {
        self.headers().iter().any(|(kind, at, size)| *kind == header && (*at..at + size).contains(&(byte as usize)))
    }

    /// Whether the packet ends within the header that this byte belongs to, or where that header should start.
    fn runs_out(&self, byte: u32) -> bool {
        let end = self.bytes.len();
        let mut headers = self.headers().into_iter();
        let cut = headers.find(|(_, at, size)| at + size > end).map(|h| h.1);
        // Too short even to say how long it is: then nothing lies behind, whatever the header before names.
        let start = cut.unwrap_or_else(|| end - self.after_headers().len());
        (start..=start + 1).contains(&(byte as usize)) && (cut.is_some() || end < start + 2)
    }

    /// Whether it goes to the routers of a subnet.
    fn to_anycast(&self) -> bool {
        ANYCAST6.iter().any(|a| a.parse::<std::net::Ipv6Addr>().expect("address").octets()[..] == *self.dst)
    }
}

/// Type, code and the word behind the checksum of the only packet, if it is an ICMP error.
fn only_error(sent: &Sent) -> Option<(u8, u8, u32)> {
    let [(_, p)] = &sent[..] else { return None };
    let at = if p[0] >> 4 == 4 { usize::from(p[0] & 15) * 4 } else { 40 };
    let m = p.get(at..at + 8).filter(|_| is_error(p))?;
    Some((m[0], m[1], u32::from_be_bytes([m[4], m[5], m[6], m[7]])))
}

fn is_echo_reply(sent: &Sent) -> bool {
    let reply = |p: &[u8]| (p[6] == 58 && p.get(40) == Some(&129)) || (p[6] == 44 && p.get(48) == Some(&129));
    sent.first().is_some_and(|(_, p)| reply(p))
}

/// The listed differences that explain what the kernel (`theirs`) and Duet (`ours`) did with a packet.
pub fn listed(given: &Given, theirs: &Sent, ours: &Sent) -> Option<Vec<&'static str>> {
    verdict(given, theirs, ours).map(|rule| vec![rule]).or_else(|| fields(given, theirs, ours))
}

/// Differences in what is done at all.
fn verdict(given: &Given, theirs: &Sent, ours: &Sent) -> Option<&'static str> {
    let f = Facts::of(&given.packet);
    let (a, b) = (only_error(theirs), only_error(ours));
    let silent = ours.is_empty() && !theirs.is_empty();
    let link_local = |x: &[u8]| x.starts_with(&[0xfe, 0x80]);
    if f.v4 {
        let first = |n: u8| move |x: &[u8]| x.first() == Some(&n);
        let icmp = f.bytes.get(9) == Some(&1);
        let header = usize::from(f.bytes[0] & 15) * 4;
        let icmp_type = f.bytes.get(header).copied();
        let proto = f.bytes.get(9).copied().unwrap_or_default();
        let offset = f.bytes.get(6..8).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]]) & 0x1fff) * 8);
        return match () {
            () if silent && offset > 0 && offset + f.bytes.len() - header > 65_535 => Some("fragment-beyond"),
            () if silent && matches!(proto, 4 | 41 | 47) && matches!(a, Some((3, 2, _))) => Some("tunnel-unknown-peer"),
            () if theirs.is_empty() && matches!(proto, 2 | 103 | 136) && matches!(b, Some((3, 2, _))) => {
                Some("protocols-spoken")
            }
            () if f.options4().contains(&134) && (theirs.is_empty() || matches!(a, Some((12, 0, _)))) => Some("cipso"),
            () if silent && given.to == MacAddr::BROADCAST => Some("unicast-in-link-broadcast"),
            () if silent && matches!(f.src, [192, 0, 2, 0 | 3]) => Some("broadcast-source"),
            () if silent && f.either(|x| x.first().is_some_and(|b| *b >= 240)) => Some("class-e"),
            () if silent && f.either(first(0)) => Some("net-zero"),
            () if silent && f.either(|x| x.starts_with(&[169, 254])) => Some("link-local-4"),
            () if silent && icmp && icmp_type == Some(13) && OWN4.contains(&f.dst) => Some("icmp-timestamp"),
            () if theirs.is_empty() && icmp && icmp_type == Some(42) && b.is_some() => Some("icmp-extended-echo"),
            () if matches!((theirs.is_empty(), a, b), (true, ..) | (_, Some((12, 0, _)), _) if matches!(b, Some((3, 5, _)))) => {
                Some("source-route-told")
            }
            () if theirs.is_empty() && matches!(b, Some((3, 0 | 1 | 13, _))) => Some("route-errors-limited"),
            () if theirs.is_empty() && OWN4.contains(&f.src) => Some("own-source"),
            () => None,
        };
    }
    let hop_by_hop = f.bytes.get(6) == Some(&0);
    let special =
        |x: &[u8]| x.len() == 16 && (x[..12] == [0; 12] || x[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let fragments = f.chain().iter().filter(|h| **h == 44).count();
    match (a, b) {
        _ if silent && special(f.dst) => Some("martian-6"),
        _ if silent && special(f.src) => Some("martian-6"),
        (Some((3, 0, _)), None) if silent && link_local(f.dst) => Some("link-local-destination"),
        (Some((3, 0, _)), Some((1, 2, _))) if link_local(f.src) => Some("scope-before-hop-limit"),
        (None, Some((4, 0, 41))) if theirs.is_empty() && hop_by_hop => Some("hop-by-hop-told"),
        (_, Some((4, 2, to)))
            if f.bytes.get(to as usize) == Some(&0xc2) && (theirs.is_empty() || matches!(a, Some((4, 0, _)))) =>
        {
            Some("jumbo-unknown")
        }
        _ if silent && given.to == MacAddr::BROADCAST => Some("unicast-in-link-broadcast"),
        _ if theirs.is_empty() && (f.padding_says_something(0) || f.padding_says_something(60)) => {
            Some("padding-not-zero")
        }
        _ if theirs.is_empty() && (f.options6(0).1 > 7 || f.options6(60).1 > 7) => Some("padding-long"),
        _ if theirs.is_empty() && f.options6(0).0.iter().any(|o| o[0] == 5 && o.len() != 4) => {
            Some("router-alert-length")
        }
        (None, Some((4, 0, at))) if theirs.is_empty() && f.lies_in(43, at) && f.bytes[at as usize] == 4 => {
            Some("segment-routing")
        }
        _ if theirs.is_empty() && f.dst.first() == Some(&0xff) && f.chain().contains(&43) => Some("group-routing"),
        (_, Some((4, 3, 0))) if theirs.is_empty() || a.is_some() => Some("first-fragment-short"),
        _ if theirs.is_empty() && f.options6(0).0.iter().any(|o| matches!(o[0], 7 | 0x31)) => Some("hop-by-hop-spoken"),
        (Some(_), None) if silent && f.upper() == 58 && f.after_headers().first() == Some(&137) => {
            Some("about-redirect")
        }
        (Some(a), Some(b)) if a == b && given.to == MacAddr::BROADCAST && source(&ours[0].1) == source6(f.dst) => {
            Some("error-source-broadcast")
        }
        (None, Some((4, 0, at))) if theirs.is_empty() && f.runs_out(at) => Some("header-cut-told"),
        (None, Some((4, 0, at))) if theirs.is_empty() && f.lies_in(60, at) => Some("destination-options-told"),
        (Some(_), None) if silent && f.chain().contains(&44) && f.upper() == 58 && f.after_headers().is_empty() => {
            Some("fragment-hides-type")
        }
        (Some(_), None) if silent && f.mobility_hides_error() => Some("error-behind-mobility"),
        (Some((4, 1, 6 | 40..)), None) if silent && matches!(f.upper(), 4 | 41 | 47) => Some("tunnel-unknown-peer"),
        (None, Some((4, 1, _))) if theirs.is_empty() && matches!(f.upper(), 103 | 136) => Some("protocols-spoken"),
        (None, None) if theirs.is_empty() && f.to_anycast() && f.upper() == 6 => Some("anycast-reset"),
        (None, None)
            if theirs.is_empty() && (f.dst.first() == Some(&0xff) || f.to_anycast()) && is_echo_reply(ours) =>
        {
            Some("group-echo-way-back")
        }
        _ if fragments > 1 => Some("nested-fragments"),
        _ => None,
    }
}

/// Differences in single fields: each is blanked on both sides, and what is left must be the same.
fn fields(given: &Given, theirs: &Sent, ours: &Sent) -> Option<Vec<&'static str>> {
    type Mask = fn(&Facts<'_>, &mut Sent);
    const MASKS: &[(&str, Mask)] = &[
        // The congestion bit of RFC 1349's TOS.
        ("icmp-ecn", |_, sent| {
            sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && is_error(p)).for_each(|(_, p)| p[1] &= !3);
        }),
        ("option-pointer", |_, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && is_error(p)) {
                let at = usize::from(p[0] & 15) * 4;
                if p[at] == 12 {
                    p[at + 2..at + 5].fill(0);
                }
            }
        }),
        ("anycast-source", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.to_anycast() && p[0] >> 4 == 6 && is_error(p)) {
                p[8..24].fill(0);
                p[42..44].fill(0);
            }
        }),
        ("source-tie", |_, sent| {
            const TIED: [&str; 2] = ["2001:db8:f:2::1", "2001:db8:f:3::1"];
            let tied = TIED.map(|a| a.parse::<std::net::Ipv6Addr>().expect("address").octets());
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 6 && p[6] == 58) {
                if tied.iter().any(|a| p[8..24] == a[..]) {
                    p[8..24].fill(0);
                    p[42..44].fill(0);
                }
            }
        }),
        ("after-end-of-options", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && p[0] == f.bytes[0] && !is_error(p)) {
                let end = usize::from(p[0] & 15) * 4;
                let mut at = 20;
                while at < end && p[at] != 0 {
                    at += if p[at] == 1 { 1 } else { usize::from(p[at + 1]).max(2) };
                }
                p[10..12].fill(0);
                p[at.min(end)..end].fill(0);
            }
        }),
        // Options that a reset repeats.
        ("error-options", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && p[0] >> 4 == 4 && p[9] == 6) {
                if OWN4.contains(&&p[12..16]) {
                    let at = usize::from(p[0] & 15) * 4;
                    p.drain(20..at);
                    (p[0], p[3]) = (0x45, 40);
                }
            }
        }),
        ("reset-class", |_, sent| {
            for (_, p) in sent.iter_mut() {
                match p[0] >> 4 {
                    4 if p[9] == 6 && OWN4.contains(&&p[12..16]) && p.len() == 40 => p[1] = 0,
                    6 if p[6] == 6 && p.len() == 60 => p[..4].copy_from_slice(&[0x60, 0, 0, 0]),
                    _ => {}
                }
            }
        }),
        // The error itself, whatever options its header has and its quote has been given.
        ("error-options", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && p[0] >> 4 == 4 && is_error(p)) {
                let at = usize::from(p[0] & 15) * 4;
                let mut short = [&p[12..20], &p[at..at + 2], &p[at + 4..at + 8]].concat();
                short.splice(0..0, [0x45; 12]);
                *p = short;
            }
        }),
        ("timestamp-clock", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4 && f.options4().contains(&68)) {
                let at = (usize::from(p[0] & 15) * 4).min(p.len());
                p[10..12].fill(0);
                if at > 24 {
                    p[24..at].fill(0);
                }
            }
        }),
        ("timestamp-overflow", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4) {
                p[10..12].fill(0);
                if p.len() > 23 && p[0] & 15 > 5 && p[20] == 68 {
                    p[23] &= 15;
                }
            }
        }),
        ("recorded-dummy", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4 && f.options4().contains(&7)) {
                let at = (usize::from(p[0] & 15) * 4).min(p.len());
                p[10..12].fill(0);
                for word in p[..at]
                    .windows(4)
                    .enumerate()
                    .filter(|(_, w)| *w == [192, 0, 0, 8])
                    .map(|(i, _)| i)
                    .collect::<Vec<_>>()
                {
                    p[word..word + 4].fill(0);
                }
            }
        }),
        ("fragment-options", |f, sent| {
            if sent.len() < 2 || !f.has_options() {
                return;
            }
            for (_, p) in sent.iter_mut() {
                let at = usize::from(p[0] & 15) * 4;
                p.drain(20..at);
                (p[0], p[2], p[3]) = (0x45, 0, 0);
                p[10..12].fill(0);
            }
        }),
    ];
    let facts = Facts::of(&given.packet);
    let (mut a, mut b) = (theirs.clone(), ours.clone());
    let mut used = Vec::new();
    for (rule, mask) in MASKS {
        let (before_a, before_b) = (a.clone(), b.clone());
        mask(&facts, &mut a);
        mask(&facts, &mut b);
        if (before_a != a || before_b != b) && before_a != before_b {
            used.push(*rule);
        }
        if a == b {
            // Only those whose fields did differ.
            let needed = |rule: &&&str| {
                let (mut x, mut y) = (theirs.clone(), ours.clone());
                for (other, mask) in MASKS.iter().filter(|(other, _)| used.contains(other) && other != *rule) {
                    let _ = other;
                    mask(&facts, &mut x);
                    mask(&facts, &mut y);
                }
                x != y
            };
            let needed: Vec<&'static str> = used.iter().filter(needed).copied().collect();
            return Some(if needed.is_empty() { vec![*rule] } else { needed });
        }
    }
    None
}

/// The source address of a packet, as text.
fn source(p: &[u8]) -> String {
    let Some(v4) = p.get(12..16).filter(|_| p.first().is_none_or(|b| b >> 4 != 6)) else {
        return source6(p.get(8..24).unwrap_or_default());
    };
    std::net::Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]).to_string()
}

fn source6(addr: &[u8]) -> String {
    <[u8; 16]>::try_from(addr).map_or("?".to_owned(), |a| std::net::Ipv6Addr::from(a).to_string())
}

/// What happened, for a person to read.
pub fn describe(n: usize, given: &Given, theirs: &Sent, ours: &Sent) -> String {
    let mut text = String::new();
    let hex = |b: &[u8]| b.iter().take(120).map(|b| format!("{b:02x}")).collect::<String>();
    let brief = |sent: &Sent| match (only_error(sent), &sent[..]) {
        (Some((kind, code, word)), [(_, p)]) => format!("error {kind}/{code} {word:#x} from {}", source(p)),
        (_, []) => "nothing".to_owned(),
        (_, [(port, p)]) => format!("{} bytes from {} to port {port}", p.len(), source(p)),
        (_, list) => format!("{} packets", list.len()),
    };
    let facts = Facts::of(&given.packet);
    let chain = if facts.v4 {
        format!("{:02x?}", given.packet.get(20..usize::from(given.packet[0] & 15) * 4).unwrap_or_default())
    } else {
        format!("{:?}", facts.chain())
    };
    let dst = if facts.v4 { source(given.packet.get(4..).unwrap_or_default()) } else { source6(facts.dst) };
    let _ = writeln!(text, "{chain} to {dst}: Linux {}, Duet {}", brief(theirs), brief(ours));
    let _ = writeln!(text, "packet {n} to {} ({} bytes): {}", given.to, given.packet.len(), hex(&given.packet));
    for (who, sent) in [("Linux", theirs), ("Duet ", ours)] {
        if sent.is_empty() {
            let _ = writeln!(text, "  {who}: nothing");
        }
        for (port, p) in sent {
            let _ = writeln!(text, "  {who}: port {port} ({} bytes): {}", p.len(), hex(p));
        }
    }
    text
}
