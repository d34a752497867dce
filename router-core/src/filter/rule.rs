//! One rule, in plain words: `allow tcp from 2001:db8::/32 to 192.0.2.1 dport 80,443 established`.

use crate::addr::{Family, parse_prefix};
use crate::headers::{be16, protocol};
use crate::packet::{Fragment, Packet};
use arrayvec::ArrayVec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most prefixes, or ranges of ports, that one rule names at one place.
pub const MAX_ALTERNATIVES: usize = 16;

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets it through.
    Allow,
    /// Drops it silently.
    Deny,
    /// Drops it and answers communication administratively prohibited (RFC 1812 5.2.7.1 code 13, RFC 4443 3.1 code 1).
    Reject,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
        })
    }
}

/// An inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<T> {
    /// First.
    pub least: T,
    /// Last.
    pub most: T,
}

impl<T: PartialOrd> Range<T> {
    #[inline]
    fn contains(&self, v: &T) -> bool {
        self.least <= *v && *v <= self.most
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.most {
            true => write!(f, "{}", self.least),
            false => write!(f, "{}-{}", self.least, self.most),
        }
    }
}

/// Several alternatives; none matches everything.
type Any<T> = ArrayVec<T, MAX_ALTERNATIVES>;

/// A rule. Every condition that is there must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What becomes of the packet.
    pub action: Action,
    /// `inet` or `inet6`.
    pub family: Option<Family>,
    /// Upper-layer protocol by number.
    pub proto: Option<u8>,
    /// Source prefixes.
    pub from: Any<IpNet>,
    /// Destination prefixes.
    pub to: Any<IpNet>,
    /// Source ports of TCP, UDP, UDP-Lite, SCTP or DCCP.
    pub sport: Any<Range<u16>>,
    /// Destination ports.
    pub dport: Any<Range<u16>>,
    /// ICMP types.
    pub icmp: Any<Range<u8>>,
    /// ICMP code.
    pub code: Option<u8>,
    /// TCP with ACK or RST: not the first segment of a connection.
    pub established: bool,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
    /// Any fragment, the first one too.
    pub fragment: bool,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct RuleError {
    /// The reason and the remedy in one line.
    pub why: String,
    /// The wrong word, if one is.
    pub word: String,
}

/// Datagram congestion control protocol.
const DCCP: u8 = 33;

const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", protocol::ICMP),
    ("icmpv6", protocol::ICMPV6),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("ipip", protocol::IPV4),
    ("ipv6", protocol::IPV6),
    ("gre", protocol::GRE),
    ("esp", 50),
    ("ah", protocol::AH),
    ("sctp", protocol::SCTP),
    ("udplite", protocol::UDPLITE),
    ("dccp", DCCP),
    ("ospf", 89),
    ("vrrp", 112),
];

/// Names of ICMP types: the word, ICMPv4's number, ICMPv6's.
const ICMP_TYPES: &[(&str, Option<u8>, Option<u8>)] = &[
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("unreachable", Some(3), Some(1)),
    ("too-big", None, Some(2)),
    ("redirect", Some(5), Some(137)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("timestamp-request", Some(13), None),
    ("router-solicit", None, Some(133)),
    ("router-advert", None, Some(134)),
    ("neighbor-solicit", None, Some(135)),
    ("neighbor-advert", None, Some(136)),
];

const DSCPS: &[(&str, u8)] = &[
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("ef", 46),
    ("le", 1),
];

impl Rule {
    /// A rule without conditions.
    pub fn new(action: Action) -> Self {
        Rule {
            action,
            family: None,
            proto: None,
            from: Any::new(),
            to: Any::new(),
            sport: Any::new(),
            dport: Any::new(),
            icmp: Any::new(),
            code: None,
            established: false,
            dscp: None,
            fragment: false,
        }
    }

    /// Whether it asks for something in the transport header.
    pub fn looks_deep(&self) -> bool {
        !self.sport.is_empty()
            || !self.dport.is_empty()
            || !self.icmp.is_empty()
            || self.code.is_some()
            || self.established
    }

    /// Whether it matches every packet.
    pub fn is_everything(&self) -> bool {
        *self == Rule::new(self.action)
    }

    /// Whether a packet matches, `data` from its IP header on.
    ///
    /// A later fragment has no transport header. For what `allow` says about one it counts as matching, because it is worth
    /// nothing without its first fragment, which the same rules have judged; for `deny` and `reject` it does not.
    #[inline]
    pub fn matches(&self, p: &Packet, data: &[u8]) -> bool {
        if self.family.is_some_and(|f| f != p.family)
            || self.proto.is_some_and(|n| n != p.proto)
            || self.dscp.is_some_and(|d| d != p.tclass >> 2)
            || (self.fragment && p.fragment == Fragment::None)
            || !(self.from.is_empty() || self.from.iter().any(|n| n.contains(&p.src)))
            || !(self.to.is_empty() || self.to.iter().any(|n| n.contains(&p.dst)))
        {
            return false;
        }
        if !self.looks_deep() {
            return true;
        }
        if p.fragment == Fragment::Later {
            return self.action == Action::Allow && self.could_be(p.proto);
        }
        self.matches_transport(p, p.transport(data))
    }

    /// Whether the protocol has what the rule asks for.
    fn could_be(&self, proto: u8) -> bool {
        let ports = self.sport.is_empty() && self.dport.is_empty() || has_ports(proto);
        let icmp = self.icmp.is_empty() && self.code.is_none() || is_icmp(proto);
        ports && icmp && (!self.established || proto == protocol::TCP)
    }

    fn matches_transport(&self, p: &Packet, t: &[u8]) -> bool {
        if !self.could_be(p.proto) {
            return false;
        }
        let port = |list: &Any<Range<u16>>, at: usize| {
            list.is_empty() || t.len() >= at + 2 && list.iter().any(|r| r.contains(&be16(t, at)))
        };
        let icmp = self.icmp.is_empty() || t.first().is_some_and(|k| self.icmp.iter().any(|r| r.contains(k)));
        let code = self.code.is_none() || t.get(1).copied() == self.code;
        // ACK 0x10, RST 0x04.
        let established = !self.established || t.get(13).is_some_and(|flags| flags & 0x14 != 0);
        port(&self.sport, 0) && port(&self.dport, 2) && icmp && code && established
    }
}

/// Whether the protocol's header begins with source and destination port.
pub(super) fn has_ports(proto: u8) -> bool {
    matches!(proto, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | DCCP)
}

fn is_icmp(proto: u8) -> bool {
    matches!(proto, protocol::ICMP | protocol::ICMPV6)
}

fn wrong(word: &str, why: impl Into<String>) -> RuleError {
    RuleError { why: why.into(), word: word.to_owned() }
}

/// A number, decimal or with 0x.
fn number<T: TryFrom<u64>>(word: &str) -> Option<T> {
    let n = match word.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok()?,
        None => return None,
    };
    T::try_from(n).ok()
}

fn range<T: TryFrom<u64> + PartialOrd + Copy>(word: &str) -> Option<Range<T>> {
    let (a, b) = word.split_once('-').unwrap_or((word, word));
    let (least, most) = (number(a)?, number(b)?);
    (least <= most).then_some(Range { least, most })
}

/// `A,B,C`, each read by `read`.
fn list<T>(word: &str, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Any<T>, RuleError> {
    let mut out = Any::new();
    for part in word.split(',') {
        let value = read(part).ok_or_else(|| wrong(word, format!("\"{part}\" is not {what}")))?;
        out.try_push(value).map_err(|_| {
            wrong(word, format!("more than {MAX_ALTERNATIVES} alternatives in one place; write two rules"))
        })?;
    }
    Ok(out)
}

/// What may stand in a rule.
const WORDS: &str = "tcp, udp, icmp, icmpv6, proto N, from PREFIX, to PREFIX, sport PORT, dport PORT, type TYPE, code N, \
established, dscp N, fragment, inet, inet6";

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or("");
        let action = match first {
            "allow" | "permit" | "accept" => Action::Allow,
            "deny" | "drop" => Action::Deny,
            "reject" => Action::Reject,
            _ => return Err(wrong(first, format!("\"{first}\": a rule begins with allow, deny or reject"))),
        };
        let mut r = Rule::new(action);
        let mut types: Option<&str> = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| wrong(word, format!("a value must follow \"{word}\"")));
            let twice = match word {
                "inet" | "ipv4" => r.family.replace(Family::Inet).is_some(),
                "inet6" => r.family.replace(Family::Inet6).is_some(),
                "proto" => {
                    let v = value()?;
                    let n = PROTOCOLS.iter().find(|(n, _)| *n == v).map(|(_, n)| *n).or_else(|| number(v));
                    let known =
                        "a protocol is a number from 0 to 255 or a name such as tcp, udp, icmp, icmpv6, gre, esp";
                    r.proto.replace(n.ok_or_else(|| wrong(v, format!("\"{v}\": {known}")))?).is_some()
                }
                "from" => set(&mut r.from, prefixes(value()?)?),
                "to" => set(&mut r.to, prefixes(value()?)?),
                "sport" => set(&mut r.sport, list(value()?, "a port or a range such as 1024-65535", range)?),
                "dport" => set(&mut r.dport, list(value()?, "a port or a range such as 1024-65535", range)?),
                "type" => types.replace(value()?).is_some(),
                "code" => {
                    let v = value()?;
                    let n = number(v).ok_or_else(|| wrong(v, format!("\"{v}\" is not a code from 0 to 255")))?;
                    r.code.replace(n).is_some()
                }
                "dscp" => {
                    let v = value()?;
                    let n = DSCPS.iter().find(|(n, _)| *n == v).map(|(_, n)| *n).or_else(|| number(v));
                    let n = n.filter(|n| *n < 64);
                    let why =
                        || wrong(v, format!("\"{v}\" is not a code point: 0 to 63, or a name such as ef, cs6, af41"));
                    r.dscp.replace(n.ok_or_else(why)?).is_some()
                }
                "established" => std::mem::replace(&mut r.established, true),
                "fragment" => std::mem::replace(&mut r.fragment, true),
                "any" | "all" | "ip" => false,
                name => match PROTOCOLS.iter().find(|(n, _)| *n == name) {
                    Some((_, n)) => r.proto.replace(*n).is_some(),
                    None => return Err(wrong(name, format!("\"{name}\" is no word of a rule; known are {WORDS}"))),
                },
            };
            if twice {
                return Err(wrong(word, format!("\"{word}\" is there twice, or the protocol is")));
            }
        }
        r.settle(types)?;
        Ok(r)
    }
}

/// Fills a list once. True: it was filled already.
fn set<T>(to: &mut Any<T>, from: Any<T>) -> bool {
    let twice = !to.is_empty();
    *to = from;
    twice
}

fn prefixes(word: &str) -> Result<Any<IpNet>, RuleError> {
    if matches!(word, "any" | "all") {
        return Ok(Any::new());
    }
    let mut out = Any::new();
    for part in word.split(',') {
        let net = parse_prefix(part).map_err(|e| wrong(part, e.to_string()))?;
        out.try_push(net)
            .map_err(|_| wrong(word, format!("more than {MAX_ALTERNATIVES} prefixes; write two rules")))?;
    }
    Ok(out)
}

impl Rule {
    /// What follows from the words together: the family of the addresses, the protocol that ports and types belong to.
    fn settle(&mut self, types: Option<&str>) -> Result<(), RuleError> {
        let nets = self.from.iter().chain(&self.to);
        for net in nets {
            let family = Family::of_net(net);
            if self.family.is_some_and(|f| f != family) {
                let why = format!(
                    "{net} is {family}: a rule with addresses of both families, or of the other one, never matches"
                );
                return Err(wrong(&net.to_string(), why));
            }
            self.family = Some(family);
        }
        let named = !self.sport.is_empty() || !self.dport.is_empty();
        if named && !self.proto.is_some_and(has_ports) {
            return Err(wrong("dport", "ports belong to a protocol: write tcp or udp in front of them"));
        }
        if self.established {
            match self.proto {
                None | Some(protocol::TCP) => self.proto = Some(protocol::TCP),
                Some(_) => return Err(wrong("established", "only tcp has established connections here")),
            }
        }
        match self.proto {
            Some(protocol::ICMP) if self.family == Some(Family::Inet6) => {
                return Err(wrong("icmp", "IPv6 has icmpv6, not icmp"));
            }
            Some(protocol::ICMPV6) if self.family == Some(Family::Inet) => {
                return Err(wrong("icmpv6", "IPv4 has icmp, not icmpv6"));
            }
            Some(protocol::ICMP) => self.family = Some(Family::Inet),
            Some(protocol::ICMPV6) => self.family = Some(Family::Inet6),
            _ => {}
        }
        if (types.is_some() || self.code.is_some()) && !self.proto.is_some_and(is_icmp) {
            return Err(wrong("type", "a type belongs to icmp or icmpv6: write one of them in front of it"));
        }
        if let Some(text) = types {
            let v6 = self.proto == Some(protocol::ICMPV6);
            let known = |word: &str| {
                let named = ICMP_TYPES.iter().find(|(n, ..)| *n == word);
                match named.map(|(_, four, six)| if v6 { *six } else { *four }) {
                    Some(n) => n.map(|n| Range { least: n, most: n }),
                    None => range(word),
                }
            };
            let what = if v6 { "a type of ICMPv6" } else { "a type of ICMP" };
            self.icmp = list(text, what, known)?;
        }
        if self.code.is_some() && self.icmp.is_empty() {
            return Err(wrong("code", "a code belongs to a type: write type in front of it"));
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn joined<T: fmt::Display>(list: &[T]) -> String {
            list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
        }
        let whole = |n: &IpNet| match n.prefix_len() == n.max_prefix_len() {
            true => n.addr().to_string(),
            false => n.to_string(),
        };
        write!(f, "{}", self.action)?;
        let implied = !self.from.is_empty() || !self.to.is_empty() || self.proto.is_some_and(is_icmp);
        if let Some(family) = self.family.filter(|_| !implied) {
            write!(f, " {}", if family == Family::Inet { "inet" } else { "inet6" })?;
        }
        if let Some(n) = self.proto {
            match PROTOCOLS.iter().find(|(_, p)| *p == n) {
                Some((name, _)) => write!(f, " {name}")?,
                None => write!(f, " proto {n}")?,
            }
        }
        if !self.from.is_empty() {
            write!(f, " from {}", joined(&self.from.iter().map(whole).collect::<Vec<_>>()))?;
        }
        if !self.sport.is_empty() {
            write!(f, " sport {}", joined(&self.sport))?;
        }
        if !self.to.is_empty() {
            write!(f, " to {}", joined(&self.to.iter().map(whole).collect::<Vec<_>>()))?;
        }
        if !self.dport.is_empty() {
            write!(f, " dport {}", joined(&self.dport))?;
        }
        if !self.icmp.is_empty() {
            let v6 = self.proto == Some(protocol::ICMPV6);
            let name = |r: &Range<u8>| {
                let same =
                    |(_, four, six): &&(&str, Option<u8>, Option<u8>)| (if v6 { *six } else { *four }) == Some(r.least);
                match ICMP_TYPES.iter().find(same).filter(|_| r.least == r.most) {
                    Some((name, ..)) => (*name).to_owned(),
                    None => r.to_string(),
                }
            };
            write!(f, " type {}", joined(&self.icmp.iter().map(name).collect::<Vec<_>>()))?;
        }
        if let Some(code) = self.code {
            write!(f, " code {code}")?;
        }
        if self.established {
            f.write_str(" established")?;
        }
        if let Some(d) = self.dscp {
            match DSCPS.iter().find(|(_, n)| *n == d) {
                Some((name, _)) => write!(f, " dscp {name}")?,
                None => write!(f, " dscp {d}")?,
            }
        }
        if self.fragment {
            f.write_str(" fragment")?;
        }
        Ok(())
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
