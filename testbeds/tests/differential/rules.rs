//! Which differences are known, and what counts as one.

use crate::fields::fields;
use crate::stream::Given;
use crate::verdict::verdict;
use crate::{Sent, Topology};
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
    "hop-by-hop-beyond",
    "hop-by-hop-budget",
    "hop-by-hop-offender",
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
    "timestamp-address",
    "timestamp-group",
    "fragment-reserved",
    "fragment-options",
];

/// Listed, too, but seen only where the router has no IPv4 address.
pub const ONLY_V6: &str = "recorded-dummy";

/// Listed, too, but seen only where source routes are followed.
pub const ROUTED: &[&str] = &["strict-route-astray", "strict-route-before-ttl", "strict-route-source"];

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
pub const OWN6: [&str; 6] = ["2001:db8::1", "2001:db8:1::1", "2001:db8:f:2::1", "2001:db8:f:3::1", "fe80::1", "fe80::"];

/// Addresses of routers, the one of those without any included (RFC 7600 5.4).
pub const OWN4: [&[u8]; 3] = [&[192, 0, 2, 1], &[198, 51, 100, 1], &[192, 0, 0, 8]];

/// Subnet-router anycast addresses of all topologies.
pub const ANYCAST6: [&str; 4] = ["2001:db8::", "2001:db8:f:2::", "2001:db8:1::", "fe80::"];

/// What the given packet says, as far as it is whole.
pub struct Facts<'a> {
    pub bytes: &'a [u8],
    pub v4: bool,
    pub src: &'a [u8],
    pub dst: &'a [u8],
}

impl<'a> Facts<'a> {
    pub fn of(p: &'a [u8]) -> Self {
        let v4 = p.first().is_some_and(|b| b >> 4 == 4);
        // What the length field says is the end. Zero may announce a jumbogram.
        let len = p.get(if v4 { 2..4 } else { 4..6 }).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        let end = if v4 { len } else { 40 + len };
        let p = if len == 0 || end > p.len() { p } else { &p[..end] };
        let at = if v4 { [12..16, 16..20] } else { [8..24, 24..40] };
        let [src, dst] = at.map(|r| p.get(r).unwrap_or(&[]));
        Facts { bytes: p, v4, src, dst }
    }

    pub fn either(&self, test: impl Fn(&[u8]) -> bool) -> bool {
        test(self.src) || test(self.dst)
    }

    pub fn has_options(&self) -> bool {
        self.v4 && self.bytes[0] & 15 > 5
    }

    /// Types of IPv4 options, as far as they are whole.
    pub fn options4(&self) -> Vec<u8> {
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

    /// The options of the headers of this type that lie within theirs; and the longest run of padding.
    pub fn options6(&self, header: u8) -> (Vec<&'a [u8]>, usize) {
        let (mut found, mut most) = (Vec::new(), 0);
        for (_, start, size) in self.headers().into_iter().filter(|h| h.0 == header) {
            let (mut at, mut run) = (start + 2, 0);
            let end = (start + size).min(self.bytes.len());
            while let Some(kind) = self.bytes.get(at..end).and_then(|o| o.first()) {
                let len = if *kind == 0 { 1 } else { 2 + self.bytes.get(at + 1).map_or(0, |l| usize::from(*l)) };
                if at + len > end {
                    break;
                }
                run = if *kind < 2 { run + len } else { 0 };
                most = most.max(run);
                found.extend(self.bytes.get(at..at + len));
                at += len;
            }
        }
        (found, most)
    }

    /// How many hop-by-hop options there are, padding not counted.
    pub fn options_but_padding(&self) -> usize {
        self.options6(0).0.iter().filter(|o| o[0] > 1).count()
    }

    /// Where the first hop-by-hop option lies that no node may skip and that asks for an error; None where it is to be dropped
    /// in silence, or there is none.
    pub fn first_offender(&self) -> Option<u32> {
        let (_, start, _) = self.headers().into_iter().find(|h| h.0 == 0)?;
        let mut at = start + 2;
        for option in self.options6(0).0 {
            match option[0] >> 6 {
                0 => at += option.len(),
                1 => return None,
                _ => return Some(at as u32),
            }
        }
        None
    }

    /// Whether options of these headers have padding with anything but zeros.
    pub fn padding_says_something(&self, header: u8) -> bool {
        self.options6(header).0.iter().any(|o| o[0] == 1 && o[2..].iter().any(|b| *b != 0))
    }

    /// Extension headers: type, where they start, how long they are.
    pub fn headers(&self) -> Vec<(u8, usize, usize)> {
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

    /// Where the field lies that names the extension header of this number.
    pub fn named(&self, n: usize) -> usize {
        if n == 0 { 6 } else { self.headers()[n - 1].1 }
    }

    /// Whether it is a first fragment that does not hold all headers (RFC 8200 4.5).
    pub fn cuts_chain(&self) -> bool {
        let first = |at: usize| self.bytes.get(at + 2..at + 4).is_some_and(|b| b[0] == 0 && b[1] & 0xf9 == 1);
        let headers = self.headers();
        let upper = match self.upper() {
            6 => 20,
            132 => 12,
            17 | 58 | 136 => 8,
            59 => 0,
            // An extension header of which not even the length is there.
            0 | 43 | 44 | 51 | 60 | 135 => usize::MAX,
            _ => 1,
        };
        headers.iter().any(|(kind, at, _)| *kind == 44 && first(*at)) && self.after_headers().len() < upper
    }

    /// Where the second fragment header begins.
    pub fn second_fragment(&self) -> usize {
        self.headers().iter().filter(|h| h.0 == 44).nth(1).map_or(0, |h| h.1)
    }

    /// Types of IPv6 extension headers, in order.
    pub fn chain(&self) -> Vec<u8> {
        self.headers().iter().map(|h| h.0).collect()
    }

    /// Whether an ICMPv6 error lies behind a mobility header.
    pub fn mobility_hides_error(&self) -> bool {
        let headers = self.headers();
        let behind = headers.last().map(|(_, at, size)| (self.bytes.get(*at), self.bytes.get(at + size)));
        let error = matches!(behind, Some((Some(58), t)) if t.is_none_or(|t| *t < 128));
        error && headers.iter().any(|h| h.0 == 135)
    }

    /// The protocol behind all extension headers.
    pub fn upper(&self) -> u8 {
        let last = self.headers().last().map_or(6, |h| h.1);
        self.bytes.get(last).copied().unwrap_or(59)
    }

    /// What lies behind all extension headers.
    pub fn after_headers(&self) -> &'a [u8] {
        let at = self.headers().last().map_or(40, |(_, at, size)| at + size);
        self.bytes.get(at..).unwrap_or_default()
    }

    /// Whether a byte lies in a header of this type.
    pub fn lies_in(&self, header: u8, byte: u32) -> bool {
        self.headers().iter().any(|(kind, at, size)| *kind == header && (*at..at + size).contains(&(byte as usize)))
    }

    /// Whether the packet ends within the header that this byte belongs to, or where that header should start.
    pub fn runs_out(&self, byte: u32) -> bool {
        let end = self.bytes.len();
        let mut headers = self.headers().into_iter();
        let cut = headers.find(|(_, at, size)| at + size > end).map(|h| h.1);
        // Too short even to say how long it is: then nothing lies behind, whatever the header before names.
        let start = cut.unwrap_or_else(|| end - self.after_headers().len());
        (start..=start + 1).contains(&(byte as usize)) && (cut.is_some() || end < start + 2)
    }

    /// Whether it goes to the routers of a subnet.
    pub fn to_anycast(&self) -> bool {
        ANYCAST6.iter().any(|a| a.parse::<std::net::Ipv6Addr>().expect("address").octets()[..] == *self.dst)
    }
}

/// Type, code and the word behind the checksum of the only packet, if it is an ICMP error.
pub fn only_error(sent: &Sent) -> Option<(u8, u8, u32)> {
    let [(_, p)] = &sent[..] else { return None };
    let at = if p[0] >> 4 == 4 { usize::from(p[0] & 15) * 4 } else { 40 };
    let m = p.get(at..at + 8).filter(|_| is_error(p))?;
    Some((m[0], m[1], u32::from_be_bytes([m[4], m[5], m[6], m[7]])))
}

pub fn is_echo_reply(sent: &Sent) -> bool {
    let reply = |p: &[u8]| (p[6] == 58 && p.get(40) == Some(&129)) || (p[6] == 44 && p.get(48) == Some(&129));
    sent.first().is_some_and(|(_, p)| reply(p))
}

/// The listed differences that explain what the kernel (`theirs`) and Duet (`ours`) did with a packet.
pub fn listed(topology: &Topology, given: &Given, theirs: &Sent, ours: &Sent) -> Option<Vec<&'static str>> {
    verdict(topology, given, theirs, ours).map(|rule| vec![rule]).or_else(|| fields(given, theirs, ours))
}

impl Facts<'_> {
    /// Whether all that was sent is the packet itself, forwarded, whole or in fragments.
    pub fn passed_on(&self, sent: &Sent) -> bool {
        let same = |p: &[u8]| {
            let g = Facts::of(p);
            // One that follows its source route goes on to the next address of it.
            g.v4 == self.v4 && g.src == self.src && (g.dst == self.dst || self.is_stop(g.dst))
        };
        !sent.is_empty() && sent.iter().all(|(_, p)| same(p))
    }

    /// Whether this address is one of the packet's source route.
    pub fn is_stop(&self, addr: &[u8]) -> bool {
        let header = self.bytes.get(20..usize::from(self.bytes[0] & 15) * 4).filter(|_| self.v4).unwrap_or_default();
        let routed = self.options4().iter().any(|o| matches!(o, 131 | 137));
        routed && header.windows(4).any(|stop| stop == addr)
    }

    /// Whether it goes to an address of the router.
    pub fn to_own(&self) -> bool {
        match self.v4 {
            true => OWN4.contains(&self.dst) || self.dst == [192, 0, 2, 9],
            false => OWN6.contains(&source6(self.dst).as_str()),
        }
    }
}

/// The source address of a packet, as text.
pub fn source(p: &[u8]) -> String {
    let Some(v4) = p.get(12..16).filter(|_| p.first().is_none_or(|b| b >> 4 != 6)) else {
        return source6(p.get(8..24).unwrap_or_default());
    };
    std::net::Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]).to_string()
}

pub fn source6(addr: &[u8]) -> String {
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
    let v4 = |a: [u8; 4]| std::net::Ipv4Addr::from(a).to_string();
    let dst = if facts.v4 { facts.dst.try_into().map_or("?".to_owned(), v4) } else { source6(facts.dst) };
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

/// What was sent, in a word.
pub fn kind(sent: &Sent) -> String {
    let own = |p: &[u8]| match p[0] >> 4 {
        4 => OWN4.contains(&&p[12..16]) || p[12..16] == [192, 0, 2, 9],
        _ => OWN6.iter().chain(&ANYCAST6).any(|a| source(p) == **a),
    };
    match (only_error(sent), &sent[..]) {
        (_, []) => "nothing".into(),
        (Some((t, c, _)), [(_, p)]) if own(p) => format!("error {t}/{c}"),
        (_, [(_, p)]) if own(p) => match p[0] >> 4 {
            4 => format!("own {} {:?}", p[9], p.get(usize::from(p[0] & 15) * 4)),
            _ => format!("own {} {:?}", p[6], p.get(40)),
        },
        (_, [_]) => "forwarded".into(),
        (_, list) if list.iter().all(|(_, p)| own(p)) => "own, several".into(),
        _ => "forwarded, several".into(),
    }
}
