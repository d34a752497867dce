//! Filters in tcpdump's words (pcap-filter(7)): which packets to follow or to capture.
//!
//! A text is parsed to a list of primitives joined by and, or and not, of bounded size; a packet is matched against it
//! without allocation. The meaning is libpcap's on Ethernet, but for three points where a router's user expects otherwise:
//! one VLAN tag is looked through without saying `vlan`; what lies beyond the end of a packet is "no match" for that
//! primitive, not for the whole filter; `tcp[13]` and the like read IPv6 packets, too.

mod bytes;
mod eval;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

pub use eval::Subject;

use crate::addr::MacAddr;
use crate::drop_reason::DropReason;
use crate::port::PortId;
use ipnet::IpNet;

/// Most primitives in one filter.
pub const MAX_PRIMITIVES: usize = 256;
/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: usize = 32;

/// A parsed filter. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub(super) root: Option<Box<Expr>>,
}

/// Why a text is no filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// What is wrong.
    pub message: String,
    /// Byte offset of the wrong word; the text's length when something is missing at its end.
    pub at: usize,
    /// Length of the wrong word in bytes.
    pub len: usize,
    /// What may stand there.
    pub expected: String,
}

impl Filter {
    /// Reads a filter. `port` finds a port by its name, for `on PORT`.
    pub fn parse(text: &str, port: &dyn Fn(&str) -> Option<PortId>) -> Result<Filter, FilterError> {
        parse::parse(text, port)
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether a packet matches.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.root.as_ref().is_none_or(|e| eval::eval(e, subject))
    }
}

/// Primitives, joined.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Test(Test),
    Relation(Box<Relation>),
}

/// Two values compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Relation {
    left: bytes::Value,
    compare: bytes::Compare,
    right: bytes::Value,
}

/// Which end of a packet an address or port is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dir {
    Src,
    Dst,
    Either,
    Both,
}

/// What a qualifier restricts a primitive to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Any,
    Ether,
    Ip,
    Ip6,
    Arp,
    Rarp,
    /// An upper-layer protocol over either family: 6, 17, 132, 1, 58.
    Proto(u8),
}

/// A primitive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Test {
    /// A packet of this layer.
    Is(Layer),
    /// Addresses.
    Net(Layer, Dir, IpNet),
    /// Station addresses.
    Mac(Dir, MacAddr),
    /// EtherType.
    EtherType(u16),
    /// Upper-layer protocol: over which layer, which.
    Proto(Layer, u8),
    /// Ports from, to.
    Ports(Layer, Dir, u16, u16),
    /// Tagged, with this id if any is said.
    Vlan(Option<u16>),
    /// At least so long.
    Greater(u32),
    /// At most so long.
    Less(u32),
    /// Sent to all stations.
    Broadcast,
    /// Sent to a group: of stations, or of hosts of a family.
    Multicast(Layer),
    /// Seen on this port.
    On(PortId),
    /// Dropped for this reason.
    Reason(DropReason),
    /// Going in (true) or out.
    Inbound(bool),
}

impl FilterError {
    /// The filter with a caret under the wrong word, and what was expected, as lines to print.
    pub fn picture(&self, text: &str) -> String {
        let missing = usize::from(self.len == 0);
        let before = text.get(..self.at).unwrap_or(text).chars().count() + missing;
        let wrong = text.get(self.at..self.at + self.len).map_or(1, |w| w.chars().count().max(1));
        format!("  {text}\n  {:before$}{} expected {}", "", "^".repeat(wrong), self.expected)
    }
}
