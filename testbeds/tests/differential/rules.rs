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
    "group-options",
    "group-echo-way-back",
    "icmp-ecn",
    "option-pointer",
    "reset-class",
    "error-options",
    "timestamp-clock",
    "fragment-options",
];

/// Listed, too, but seen only where the router has no IPv4 address.
pub const ONLY_V6: &str = "recorded-dummy";

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

/// The same with the field left out that no rule fixes: the identification of IPv4 packets that a router makes itself.
pub fn normal(sent: &Sent) -> Sent {
    let mut sent = sent.clone();
    for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && OWN4.contains(&&p[12..16])) {
        p[4..6].fill(0);
        p[10..12].fill(0);
    }
    sent
}

/// Addresses of routers, the one of those without any included (RFC 7600 5.4).
const OWN4: [&[u8]; 3] = [&[192, 0, 2, 1], &[198, 51, 100, 1], &[192, 0, 0, 8]];

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

    /// Whether the first option of its hop-by-hop header is padding with anything but zeros.
    fn padding_says_something(&self) -> bool {
        let padding = self.bytes.get(43).and_then(|len| self.bytes.get(44..44 + usize::from(*len)));
        self.bytes.get(42) == Some(&1) && padding.is_some_and(|p| p.iter().any(|b| *b != 0))
    }

    /// Types of IPv6 extension headers, in order.
    fn chain(&self) -> Vec<u8> {
        let (mut found, mut next, mut at) = (Vec::new(), self.bytes.get(6).copied().unwrap_or(59), 40);
        while let (0 | 43 | 44 | 51 | 60, Some(head)) = (next, self.bytes.get(at..at + 2)) {
            found.push(next);
            at += match next {
                44 => 8,
                51 => (usize::from(head[1]) + 2) * 4,
                _ => (usize::from(head[1]) + 1) * 8,
            };
            next = head[0];
        }
        found
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
    matches!(&sent[..], [(_, p)] if p[6] == 58 && p.get(40) == Some(&129))
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
        let icmp_type = f.bytes.get(usize::from(f.bytes[0] & 15) * 4).copied();
        return match () {
            () if silent && given.to == MacAddr::BROADCAST => Some("unicast-in-link-broadcast"),
            () if silent && matches!(f.src, [192, 0, 2, 0 | 3]) => Some("broadcast-source"),
            () if silent && f.either(|x| x.first().is_some_and(|b| *b >= 240)) => Some("class-e"),
            () if silent && f.either(first(0)) => Some("net-zero"),
            () if silent && f.either(|x| x.starts_with(&[169, 254])) => Some("link-local-4"),
            () if silent && icmp && icmp_type == Some(13) && OWN4.contains(&f.dst) => Some("icmp-timestamp"),
            () if theirs.is_empty() && icmp && icmp_type == Some(42) && b.is_some() => Some("icmp-extended-echo"),
            () if theirs.is_empty() && matches!(b, Some((3, 5, _))) => Some("source-route-told"),
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
        (Some((4, 0, at)), Some((4, 2, to))) if at == to && f.bytes.get(at as usize) == Some(&0xc2) => {
            Some("jumbo-unknown")
        }
        _ if silent && given.to == MacAddr::BROADCAST => Some("unicast-in-link-broadcast"),
        _ if theirs.is_empty() && hop_by_hop && f.padding_says_something() => Some("padding-not-zero"),
        (Some((4, 2, _)), None) if silent && f.dst.first() == Some(&0xff) => Some("group-options"),
        (None, None) if theirs.is_empty() && f.dst.first() == Some(&0xff) && is_echo_reply(ours) => {
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
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] == 0x45 && is_error(p) && p[20] == 12) {
                p[22..25].fill(0);
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
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.bytes.get(20) == Some(&68)) {
                let at = (usize::from(p[0] & 15) * 4).min(p.len());
                p[10..12].fill(0);
                if at > 24 {
                    p[24..at].fill(0);
                }
            }
        }),
        ("recorded-dummy", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.bytes.get(20) == Some(&7)) {
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

/// What happened, for a person to read.
pub fn describe(n: usize, given: &Given, theirs: &Sent, ours: &Sent) -> String {
    let mut text = String::new();
    let hex = |b: &[u8]| b.iter().take(120).map(|b| format!("{b:02x}")).collect::<String>();
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
