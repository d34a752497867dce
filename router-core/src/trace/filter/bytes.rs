//! Byte expressions: `tcp[tcpflags] & (tcp-syn|tcp-fin) != 0`, `ip6[6] = 58`, `len > 100`.
//!
//! The arithmetic is that of libpcap's programs: 32 bits, without signs. What cannot be computed for a packet, because it
//! is of another protocol or too short or a divisor is zero, makes the relation false.

use super::eval::Subject;
use super::{Layer, Relation};
use crate::headers::protocol;

/// What is computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(u32),
    /// The packet's length with its link header.
    Length,
    /// So many bytes of a header, from a place on.
    Load(Layer, Box<Value>, u8),
    Op(Operator, Box<Value>, Box<Value>),
}

/// Operators, as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    Xor,
    And,
    Left,
    Right,
    Plus,
    Minus,
    Times,
    Over,
    Modulo,
}

impl Operator {
    /// The operator of this spelling, and how tightly it binds.
    pub(super) fn read(word: &str) -> Option<(Operator, u8)> {
        Some(match word {
            "|" => (Operator::Or, 1),
            "^" => (Operator::Xor, 2),
            "&" => (Operator::And, 3),
            "<<" => (Operator::Left, 4),
            ">>" => (Operator::Right, 4),
            "+" => (Operator::Plus, 5),
            "-" => (Operator::Minus, 5),
            "*" => (Operator::Times, 6),
            "/" => (Operator::Over, 6),
            "%" => (Operator::Modulo, 6),
            _ => return None,
        })
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    /// The comparison of this spelling.
    pub(super) fn read(word: &str) -> Option<Compare> {
        Some(match word {
            "=" | "==" => Compare::Equal,
            "!=" => Compare::Unequal,
            "<" => Compare::Less,
            "<=" => Compare::LessOrEqual,
            ">" => Compare::Greater,
            ">=" => Compare::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// Whether a relation holds for a packet.
pub(super) fn holds(r: &Relation, s: &Subject<'_>) -> bool {
    let (Some(a), Some(b)) = (value(&r.left, s), value(&r.right, s)) else { return false };
    match r.compare {
        Compare::Equal => a == b,
        Compare::Unequal => a != b,
        Compare::Less => a < b,
        Compare::LessOrEqual => a <= b,
        Compare::Greater => a > b,
        Compare::GreaterOrEqual => a >= b,
    }
}

/// Recursion is as deep as the parser lets it be.
fn value(v: &Value, s: &Subject<'_>) -> Option<u32> {
    match v {
        Value::Number(n) => Some(*n),
        Value::Length => Some(s.len()),
        Value::Load(layer, at, size) => load(*layer, value(at, s)?, *size, s),
        Value::Op(op, a, b) => apply(*op, value(a, s)?, value(b, s)?),
    }
}

fn apply(op: Operator, a: u32, b: u32) -> Option<u32> {
    Some(match op {
        Operator::Or => a | b,
        Operator::Xor => a ^ b,
        Operator::And => a & b,
        Operator::Left => a.checked_shl(b).unwrap_or(0),
        Operator::Right => a.checked_shr(b).unwrap_or(0),
        Operator::Plus => a.wrapping_add(b),
        Operator::Minus => a.wrapping_sub(b),
        Operator::Times => a.wrapping_mul(b),
        Operator::Over => a.checked_div(b)?,
        Operator::Modulo => a.checked_rem(b)?,
    })
}

fn load(layer: Layer, at: u32, size: u8, s: &Subject<'_>) -> Option<u32> {
    let header = s.header(layer)?;
    let at = usize::try_from(at).ok()?;
    let bytes = header.get(at..at.checked_add(usize::from(size))?)?;
    Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// A number as libpcap reads it: hexadecimal behind `0x`, octal behind `0`; or one of its names.
pub(super) fn number(word: &str) -> Option<u32> {
    if let Some(named) = NAMES.iter().find(|(name, _)| *name == word) {
        return Some(named.1);
    }
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if word.len() > 1 && word.starts_with('0') => u32::from_str_radix(word, 8).ok(),
        None => word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok())?,
    }
}

/// Whether header bytes can be read of this layer.
pub(super) fn has_bytes(layer: Layer) -> bool {
    match layer {
        Layer::Any => false,
        Layer::Ether | Layer::Ip | Layer::Ip6 | Layer::Arp | Layer::Rarp => true,
        Layer::Proto(p) => {
            matches!(p, protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6)
        }
    }
}

/// Names of places and values (pcap-filter(7)).
const NAMES: &[(&str, u32)] = &[
    ("icmptype", 0),
    ("icmp6type", 0),
    ("icmpcode", 1),
    ("icmp6code", 1),
    ("tcpflags", 13),
    ("tcp-fin", 0x01),
    ("tcp-syn", 0x02),
    ("tcp-rst", 0x04),
    ("tcp-push", 0x08),
    ("tcp-ack", 0x10),
    ("tcp-urg", 0x20),
    ("tcp-ece", 0x40),
    ("tcp-cwr", 0x80),
    ("icmp-echoreply", 0),
    ("icmp-unreach", 3),
    ("icmp-sourcequench", 4),
    ("icmp-redirect", 5),
    ("icmp-echo", 8),
    ("icmp-routeradvert", 9),
    ("icmp-routersolicit", 10),
    ("icmp-timxceed", 11),
    ("icmp-paramprob", 12),
    ("icmp-tstamp", 13),
    ("icmp-tstampreply", 14),
    ("icmp-ireq", 15),
    ("icmp-ireqreply", 16),
    ("icmp-maskreq", 17),
    ("icmp-maskreply", 18),
    ("icmp6-destinationunreach", 1),
    ("icmp6-packettoobig", 2),
    ("icmp6-timeexceeded", 3),
    ("icmp6-parameterproblem", 4),
    ("icmp6-echo", 128),
    ("icmp6-echoreply", 129),
    ("icmp6-multicastlistenerquery", 130),
    ("icmp6-multicastlistenerreportv1", 131),
    ("icmp6-multicastlistenerdone", 132),
    ("icmp6-routersolicit", 133),
    ("icmp6-routeradvert", 134),
    ("icmp6-neighborsolicit", 135),
    ("icmp6-neighboradvert", 136),
    ("icmp6-redirect", 137),
    ("icmp6-routerrenum", 138),
    ("icmp6-nodeinformationquery", 139),
    ("icmp6-nodeinformationresponse", 140),
    ("icmp6-ineighbordiscoverysolicit", 141),
    ("icmp6-ineighbordiscoveryadvert", 142),
    ("icmp6-multicastlistenerreportv2", 143),
    ("icmp6-homeagentdiscoveryrequest", 144),
    ("icmp6-homeagentdiscoveryreply", 145),
    ("icmp6-mobileprefixsolicit", 146),
    ("icmp6-mobileprefixadvert", 147),
    ("icmp6-certpathsolicit", 148),
    ("icmp6-certpathadvert", 149),
    ("icmp6-multicastrouteradvert", 151),
    ("icmp6-multicastroutersolicit", 152),
    ("icmp6-multicastrouterterm", 153),
];
