//! From text to expression: recursive descent, bounded in size and depth.

use super::bytes::{Compare, Operator, Value, has_bytes, number};
use super::eval::{IGMP, VRRP};
use super::lex::{Word, split, words};
use super::{Dir, Expr, Filter, FilterError, Layer, MAX_DEPTH, MAX_PRIMITIVES, Relation, Test};
use crate::addr::{MacAddr, parse_addr, parse_prefix};
use crate::drop_reason::DropReason;
use crate::headers::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::headers::protocol;
use crate::port::PortId;
use ipnet::IpNet;

/// What an identifier means when no keyword is before it: the most recent one's (pcap-filter(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

#[derive(Clone, Copy, Debug)]
struct Qualifiers {
    layer: Layer,
    dir: Dir,
    kind: Kind,
}

struct Parser<'t> {
    text: &'t str,
    words: Vec<Word<'t>>,
    next: usize,
    depth: usize,
    tests: usize,
    last: Option<Qualifiers>,
    port: &'t dyn Fn(&str) -> Option<PortId>,
}

const PRIMITIVE: &str = "host, net, port, portrange, src, dst, proto, ip, ip6, icmp, icmp6, tcp, udp, sctp, arp, vlan, \
                         ether, less, greater, broadcast, multicast, on, reason, not or (";

const COMPARISON: &str = "an operator or one of =, !=, <, <=, >, >=";
const VALUE: &str = "a number, len, or bytes of a header, as in tcp[13] or ip[2:2]";

pub(super) fn parse(text: &str, port: &dyn Fn(&str) -> Option<PortId>) -> Result<Filter, FilterError> {
    let mut p = Parser { text, words: words(text), next: 0, depth: 0, tests: 0, last: None, port };
    if p.words.is_empty() {
        return Ok(Filter::default());
    }
    let root = p.expression()?;
    match p.peek() {
        None => Ok(Filter { root: Some(Box::new(root)) }),
        Some(")") => Err(p.wrong_next("There is no parenthesis to close.", "and, or, or the end")),
        Some(_) => Err(p.wrong_next("This word does not continue the filter.", "and, or, or the end")),
    }
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.next).map(|w| w.text)
    }

    fn take(&mut self) -> Option<&'t str> {
        let word = self.peek();
        self.next += usize::from(word.is_some());
        word
    }

    /// The next word is wrong, or missing.
    fn wrong_next(&self, message: &str, expected: &str) -> FilterError {
        let (at, len) = match self.words.get(self.next) {
            Some(w) => (w.at, w.text.len()),
            None => (self.text.trim_end().len(), 0),
        };
        let message = if len == 0 { "The filter is not complete." } else { message };
        FilterError { message: message.to_owned(), at, len, expected: expected.to_owned() }
    }

    /// The word just taken is wrong.
    fn wrong(&mut self, message: &str, expected: &str) -> FilterError {
        self.next = self.next.saturating_sub(1);
        self.wrong_next(message, expected)
    }

    fn deeper(&mut self) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong_next("The filter nests too deeply.", "a simpler filter"));
        }
        Ok(())
    }

    /// `and` and `or` bind alike, from the left (pcap-filter(7)).
    fn expression(&mut self) -> Result<Expr, FilterError> {
        self.deeper()?;
        let mut left = self.term()?;
        loop {
            match self.peek() {
                Some("and" | "&&") => {
                    self.next += 1;
                    left = Expr::And(Box::new(left), Box::new(self.term()?));
                }
                Some("or" | "||") => {
                    self.next += 1;
                    left = Expr::Or(Box::new(left), Box::new(self.term()?));
                }
                Some(_) | None => break,
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    fn term(&mut self) -> Result<Expr, FilterError> {
        match self.peek() {
            Some("not" | "!") => {
                self.next += 1;
                self.deeper()?;
                let inner = self.term()?;
                self.depth -= 1;
                Ok(Expr::Not(Box::new(inner)))
            }
            _ if self.computes(self.next) => self.relation(),
            Some("(") => {
                self.next += 1;
                let inner = self.expression()?;
                match self.take() {
                    Some(")") => Ok(inner),
                    Some(_) => Err(self.wrong("This word does not continue the filter.", "and, or, or )")),
                    None => Err(self.wrong_next("", "a closing parenthesis")),
                }
            }
            _ => self.primitive(),
        }
    }

    fn test(&mut self, test: Test) -> Result<Expr, FilterError> {
        self.tests += 1;
        if self.tests > MAX_PRIMITIVES {
            return Err(self.wrong_next("The filter is too long.", &format!("{MAX_PRIMITIVES} primitives at most")));
        }
        Ok(Expr::Test(test))
    }

    /// Whether a relation between values begins at a word, not a primitive or a parenthesis of such.
    fn computes(&self, at: usize) -> bool {
        let word = |i: usize| self.words.get(i).map_or("", |w| w.text);
        let operator = |w: &str| {
            Operator::read(w).is_some() || Compare::read(w).is_some() || (w.len() > 1 && w.starts_with(['-', '/']))
        };
        match word(at) {
            "len" => true,
            w if w.starts_with('-') => true,
            "(" => {
                let mut open = 0usize;
                for i in at..self.words.len() {
                    match word(i) {
                        "(" => open += 1,
                        ")" if open == 1 => return operator(word(i + 1)),
                        ")" => open -= 1,
                        _ => {}
                    }
                }
                false
            }
            w if word(at + 1) == "[" => layer_of(w).is_some() || w == "link",
            w if w.starts_with("len-") || w.starts_with("len/") => true,
            w => (w.starts_with(|c: char| c.is_ascii_digit()) || number(w).is_some()) && operator(word(at + 1)),
        }
    }

    fn relation(&mut self) -> Result<Expr, FilterError> {
        let left = self.value(1)?;
        let compare = match self.peek().and_then(Compare::read) {
            Some(compare) => compare,
            None => return Err(self.wrong_next("A value must be compared with another one.", COMPARISON)),
        };
        self.next += 1;
        let right = self.value(1)?;
        self.last = None;
        Ok(Expr::Relation(Box::new(Relation { left, compare, right })))
    }

    /// Operators that bind at least so tightly, from the left.
    fn value(&mut self, least: u8) -> Result<Value, FilterError> {
        self.deeper()?;
        let mut left = self.operand()?;
        loop {
            self.take_apart();
            let Some((op, binds)) = self.peek().and_then(Operator::read).filter(|(_, b)| *b >= least) else { break };
            self.next += 1;
            let right = self.value(binds + 1)?;
            left = Value::Op(op, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    /// In arithmetic `-` and `/` are operators.
    fn take_apart(&mut self) {
        let is_name = |w: &str| number(w).is_some() || layer_of(w).is_some();
        if let Some(parts) = self.words.get(self.next).and_then(|w| split(*w, is_name)) {
            let parts = parts.into_iter().filter(|w| !w.text.is_empty());
            self.words.splice(self.next..=self.next, parts);
        }
    }

    fn operand(&mut self) -> Result<Value, FilterError> {
        self.take_apart();
        self.tests += 1;
        if self.tests > MAX_PRIMITIVES {
            return Err(self.wrong_next("The filter is too long.", &format!("{MAX_PRIMITIVES} primitives at most")));
        }
        let word = self.take().ok_or_else(|| self.wrong_next("", VALUE))?;
        match word {
            "len" => return Ok(Value::Length),
            "(" => {
                let inner = self.value(1)?;
                return match self.take() {
                    Some(")") => Ok(inner),
                    Some(_) => Err(self.wrong("This does not continue the value.", "an operator or )")),
                    None => Err(self.wrong_next("", "a closing parenthesis")),
                };
            }
            // Without signs, and so that it binds tightest.
            "-" => {
                self.deeper()?;
                let of = self.operand()?;
                self.depth -= 1;
                return Ok(Value::Op(Operator::Minus, Box::new(Value::Number(0)), Box::new(of)));
            }
            _ => {}
        }
        if let Some(n) = number(word) {
            return Ok(Value::Number(n));
        }
        let layer = if word == "link" { Some(Layer::Ether) } else { layer_of(word) };
        let Some(layer) = layer.filter(|l| has_bytes(*l)) else {
            return Err(self.wrong("This is no value.", VALUE));
        };
        if self.take() != Some("[") {
            return Err(self.wrong("Which of its bytes?", "a place in brackets, as in tcp[13] or ip[2:2]"));
        }
        let at = self.value(1)?;
        let mut size = 1;
        if self.peek() == Some(":") {
            self.next += 1;
            size = match self.take() {
                Some("1") => 1,
                Some("2") => 2,
                Some("4") => 4,
                Some(_) => return Err(self.wrong("So many bytes make no value.", "1, 2 or 4")),
                None => return Err(self.wrong_next("", "1, 2 or 4")),
            };
        }
        match self.take() {
            Some("]") => Ok(Value::Load(layer, Box::new(at), size)),
            Some(_) => Err(self.wrong("This does not continue the place.", "an operator, : or ]")),
            None => Err(self.wrong_next("", "a closing bracket")),
        }
    }

    fn primitive(&mut self) -> Result<Expr, FilterError> {
        let word = self.take().ok_or_else(|| self.wrong_next("", PRIMITIVE))?;
        let single = match word {
            "vlan" => {
                let id = self.peek().and_then(|w| w.parse::<u16>().ok());
                if let Some(id) = id {
                    self.next += 1;
                    if id > 4095 {
                        return Err(self.wrong("There is no such VLAN.", "a number from 0 to 4095"));
                    }
                }
                Some(Test::Vlan(id))
            }
            "less" => Some(Test::Less(self.number(0, u64::from(u32::MAX))? as u32)),
            "greater" => Some(Test::Greater(self.number(0, u64::from(u32::MAX))? as u32)),
            "broadcast" => Some(Test::Broadcast),
            "multicast" => Some(Test::Multicast(Layer::Ether)),
            "inbound" => Some(Test::Inbound(true)),
            "outbound" => Some(Test::Inbound(false)),
            "on" | "ifname" => {
                let name = self.take().ok_or_else(|| self.wrong_next("", "the name of a port"))?;
                match (self.port)(name) {
                    Some(id) => Some(Test::On(id)),
                    None => return Err(self.wrong("There is no such port.", "the name of a port or tunnel")),
                }
            }
            "reason" => {
                let name =
                    self.take().ok_or_else(|| self.wrong_next("", "a drop reason, as in \"duet drops --all\""))?;
                match DropReason::from_name(name) {
                    Some(r) => Some(Test::Reason(r)),
                    None => {
                        return Err(
                            self.wrong("There is no such drop reason.", "a name that \"duet drops --all\" lists")
                        );
                    }
                }
            }
            _ => None,
        };
        match single {
            Some(test) => self.test(test),
            None => {
                self.next -= 1;
                self.qualified()
            }
        }
    }

    /// `[LAYER] [DIR] [KIND] ID`, or a layer alone.
    fn qualified(&mut self) -> Result<Expr, FilterError> {
        let start = self.next;
        let layer = self.peek().and_then(layer_of);
        self.next += usize::from(layer.is_some());
        if let (Some(layer), Some("multicast" | "broadcast")) = (layer, self.peek()) {
            let word = self.take();
            return match (layer, word) {
                (Layer::Ether, Some("broadcast")) => self.test(Test::Broadcast),
                (Layer::Ether | Layer::Ip | Layer::Ip6, Some("multicast")) => self.test(Test::Multicast(layer)),
                _ => Err(self
                    .wrong("This layer has none.", "ether broadcast, ether multicast, ip multicast or ip6 multicast")),
            };
        }
        let dir = self.direction();
        let kind = match self.peek() {
            Some("host") => Some(Kind::Host),
            Some("net") => Some(Kind::Net),
            Some("port") => Some(Kind::Port),
            Some("portrange") => Some(Kind::PortRange),
            Some("proto" | "protochain") => Some(Kind::Proto),
            _ => None,
        };
        self.next += usize::from(kind.is_some());
        let q = match (layer, dir, kind, self.last) {
            // A layer alone: what follows, if anything, is not its address.
            (Some(layer), None, None, _) if !self.looks_like_an_id() => {
                self.last = None;
                return self.test(Test::Is(layer));
            }
            (None, None, None, Some(last)) => last,
            (None, None, None, None) if !self.looks_like_an_id() => {
                let known = self.peek().is_some_and(|w| matches!(w, "and" | "or" | ")" | "&&" | "||"));
                let message = if known { "A primitive is missing here." } else { "This is no word of a filter." };
                return Err(self.wrong_next(message, PRIMITIVE));
            }
            _ => {
                let kind = kind.unwrap_or(Kind::Host);
                Qualifiers { layer: layer.unwrap_or(Layer::Any), dir: dir.unwrap_or(Dir::Either), kind }
            }
        };
        self.last = Some(q);
        let fits = match (q.layer, q.kind) {
            (Layer::Proto(p), Kind::Port | Kind::PortRange) => {
                matches!(p, protocol::TCP | protocol::UDP | protocol::SCTP)
            }
            (Layer::Proto(_), _) => false,
            (Layer::Ether | Layer::Arp | Layer::Rarp, Kind::Port | Kind::PortRange) => false,
            (Layer::Arp | Layer::Rarp, Kind::Proto) | (Layer::Ether, Kind::Net) => false,
            _ => true,
        };
        if !fits && start < self.next {
            return Err(self
                .wrong("These words do not go together.", "host, net, proto with ip, ip6; port with tcp, udp, sctp"));
        }
        self.identifier(q)
    }

    fn looks_like_an_id(&self) -> bool {
        self.peek().is_some_and(|w| parse_addr(w).is_ok() || parse_prefix(w).is_ok() || mac(w).is_some())
    }

    /// `src`, `dst`, `src or dst`, `src and dst`.
    fn direction(&mut self) -> Option<Dir> {
        let word = |i: usize| self.words.get(self.next + i).map(|w| w.text);
        let (dir, n) = match (word(0)?, word(1), word(2)) {
            ("src", Some("or" | "||"), Some("dst")) | ("dst", Some("or" | "||"), Some("src")) => (Dir::Either, 3),
            ("src", Some("and" | "&&"), Some("dst")) | ("dst", Some("and" | "&&"), Some("src")) => (Dir::Both, 3),
            ("src", ..) => (Dir::Src, 1),
            ("dst", ..) => (Dir::Dst, 1),
            _ => return None,
        };
        self.next += n;
        Some(dir)
    }

    fn identifier(&mut self, q: Qualifiers) -> Result<Expr, FilterError> {
        let Qualifiers { layer, dir, kind } = q;
        let expected = match (kind, layer) {
            (Kind::Host, Layer::Ether) => "a link-layer address",
            (Kind::Host, _) => "an IPv4 or IPv6 address",
            (Kind::Net, _) => "a prefix, as in 192.0.2.0/24 or 2001:db8::/32",
            (Kind::Port, _) => "a port from 0 to 65535",
            (Kind::PortRange, _) => "two ports, as in 1024-2047",
            (Kind::Proto, _) => "a protocol: tcp, udp, icmp, icmp6 or a number",
        };
        let word = self.take().ok_or_else(|| self.wrong_next("", expected))?;
        let test = match kind {
            Kind::Host if layer == Layer::Ether => mac(word).map(|m| Test::Mac(dir, m)),
            // `src 10.0.0.0/8` is understood as a net.
            Kind::Net if self.peek() == Some("mask") => {
                self.next += 1;
                let mask = self.take().ok_or_else(|| self.wrong_next("", MASK))?;
                let Some(len) = mask_length(mask) else { return Err(self.wrong("This is no mask.", MASK)) };
                let net = net(word).and_then(|n| IpNet::new(n.network(), len).ok());
                match net.filter(|n| matches!(n, IpNet::V4(_)) && *n == n.trunc() && fits_layer(layer, n)) {
                    Some(n) => Some(Test::Net(layer, dir, n)),
                    None => {
                        self.next -= 2;
                        None
                    }
                }
            }
            Kind::Host | Kind::Net if word.contains('/') || kind == Kind::Net => {
                net(word).filter(|n| fits_layer(layer, n)).map(|n| Test::Net(layer, dir, n))
            }
            Kind::Host => {
                let net = parse_addr(word).ok().map(IpNet::from);
                net.filter(|n| fits_layer(layer, n)).map(|n| Test::Net(layer, dir, n))
            }
            Kind::Net => None,
            Kind::Port => port_number(word).map(|p| Test::Ports(layer, dir, p, p)),
            Kind::PortRange => word.split_once('-').and_then(|(a, b)| {
                let (a, b) = (port_number(a)?, port_number(b)?);
                Some(Test::Ports(layer, dir, a.min(b), a.max(b)))
            }),
            Kind::Proto if layer == Layer::Ether => ether_type(word).map(Test::EtherType),
            Kind::Proto => proto_number(word).map(|p| Test::Proto(layer, p)),
        };
        match test {
            Some(test) => self.test(test),
            None => Err(self.wrong("This is not what should stand here.", expected)),
        }
    }

    fn number(&mut self, least: u64, most: u64) -> Result<u64, FilterError> {
        let expected = format!("a number from {least} to {most}");
        let word = self.take().ok_or_else(|| self.wrong_next("", &expected))?;
        let n = word.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
        n.ok_or_else(|| self.wrong("This is no such number.", &expected))
    }
}

fn layer_of(word: &str) -> Option<Layer> {
    Some(match word {
        "ether" => Layer::Ether,
        "ip" => Layer::Ip,
        "ip6" => Layer::Ip6,
        "arp" => Layer::Arp,
        "rarp" => Layer::Rarp,
        "tcp" => Layer::Proto(protocol::TCP),
        "udp" => Layer::Proto(protocol::UDP),
        "sctp" => Layer::Proto(protocol::SCTP),
        "icmp" => Layer::Proto(protocol::ICMP),
        "icmp6" => Layer::Proto(protocol::ICMPV6),
        "igmp" => Layer::Proto(IGMP),
        "esp" => Layer::Proto(50),
        "ah" => Layer::Proto(protocol::AH),
        "pim" => Layer::Proto(103),
        "vrrp" => Layer::Proto(VRRP),
        _ => return None,
    })
}

fn fits_layer(layer: Layer, net: &IpNet) -> bool {
    matches!(
        (layer, net),
        (Layer::Any | Layer::Ip | Layer::Arp | Layer::Rarp, IpNet::V4(_)) | (Layer::Any | Layer::Ip6, IpNet::V6(_))
    )
}

/// A prefix, or as tcpdump has it one to three bytes of an IPv4 address: `10`, `192.168`.
fn net(word: &str) -> Option<IpNet> {
    let parts = word.split('.').count();
    if !word.contains(['/', ':']) && parts < 4 {
        return parse_prefix(&format!("{word}{}/{}", ".0".repeat(4 - parts), parts * 8)).ok();
    }
    parse_prefix(word).ok()
}

const MASK: &str = "a mask, as in 255.255.255.0";

fn mask_length(word: &str) -> Option<u8> {
    ipnet::ip_mask_to_prefix(word.parse::<std::net::Ipv4Addr>().ok()?.into()).ok()
}

fn mac(word: &str) -> Option<MacAddr> {
    word.parse().ok()
}

/// A port by number, or by the name of one of the services that people write.
fn port_number(word: &str) -> Option<u16> {
    let named = match word {
        "ftp" => 21,
        "ssh" => 22,
        "telnet" => 23,
        "smtp" => 25,
        "domain" => 53,
        "http" => 80,
        "ntp" => 123,
        "snmp" => 161,
        "bgp" => 179,
        "https" => 443,
        "syslog" => 514,
        _ => return word.parse().ok(),
    };
    Some(named)
}

fn proto_number(word: &str) -> Option<u8> {
    Some(match word {
        "icmp" => protocol::ICMP,
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "sctp" => protocol::SCTP,
        "icmp6" | "ipv6-icmp" => protocol::ICMPV6,
        "gre" => protocol::GRE,
        "esp" => 50,
        "ah" => protocol::AH,
        "ospf" => 89,
        "pim" => 103,
        "vrrp" => 112,
        _ => return word.parse().ok(),
    })
}

fn ether_type(word: &str) -> Option<u16> {
    match word {
        "ip" => Some(ETHERTYPE_IPV4),
        "ip6" => Some(ETHERTYPE_IPV6),
        "arp" => Some(ETHERTYPE_ARP),
        _ => match word.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        },
    }
}
