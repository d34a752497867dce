//! "Why did this packet go there?": the whole decision for one packet, by the data plane's own code.
//!
//! The packet runs through a [`crate::worker::Worker`] of its own on the live tables, watched by a recorder; nothing is
//! sent, counted, learned or marked. What the recorder wrote down is then told in words, with what only the control side
//! knows: which prefixes and candidates lost and why, how gateways were found, states of neighbours, origins of MTUs.
//! [`crate::router::Router::explain`] does it.

mod make;
pub(crate) mod record;
mod view;

pub use view::{PacketView, icmp_name, proto_name};

pub(crate) use make::packet as make_packet;

use crate::addr::MacAddr;
use crate::filter::Action;
use crate::port::TableId;
use crate::routing::{Cover, Recursion};
use crate::spec::{NudState, RouteInfo};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The packet that somebody asks about: fields to build it from, or its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// Source; None: the router itself, or a host on the link of `iif`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// The port through which it comes; None: the one towards `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Upper-layer protocol by number; None: UDP if a port is given, else an echo request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// TTL or hop limit; None: 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// TOS or traffic class; None: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Length of the IP packet in bytes; None: ping's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<u32>,
    /// IPv4: set DF.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub df: bool,
    /// A super-frame of segments with this many bytes of payload, as a host with TSO hands them over; TCP and UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gso: Option<u16>,
    /// A mark, for rules that look at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// The packet's own bytes instead of all fields but `iif`: an Ethernet frame or an IP packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Whether `bytes` start with an Ethernet header; None: find out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethernet: Option<bool>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such port.
    #[error("Cannot find device \"{0}\"")]
    NoPort(String),
    /// Neither a destination nor bytes.
    #[error("no destination")]
    NoDestination,
    /// Source and destination are of two families.
    #[error("source and destination are of different families")]
    Families,
    /// The length does not hold the headers, or does not fit the length field.
    #[error("length {len} is out of range: {least} to {most} bytes")]
    Length {
        /// What was asked for.
        len: usize,
        /// The headers.
        least: usize,
        /// What the length field can say.
        most: usize,
    },
    /// Nothing says through which port the packet comes.
    #[error("no port leads to {0}, so it is not clear through which port the packet comes")]
    NoIngress(IpAddr),
    /// Nothing says who sent it.
    #[error("no host of that family is on the link of {0}, so it is not clear who sends the packet")]
    NoSource(String),
    /// Only TCP and UDP are segmented.
    #[error("a super-frame is of TCP or UDP")]
    SuperFrame,
    /// The bytes are no packet.
    #[error("the bytes are neither an IP packet nor an Ethernet frame")]
    NoPacket,
}

/// The answer: every pass of the packet, and of what came of it, through the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The port through which the packet comes; None: made by the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// What the question left open and how it was filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<String>,
    /// The first is the packet asked about; the others say whose child they are. Never empty.
    pub passes: Vec<Pass>,
}

/// What a pass is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The packet itself.
    Packet,
    /// It goes round again: a checksum was completed, or a link's own route was taken.
    Again,
    /// The packet that was inside.
    Inner,
    /// The packet in the other family.
    Translated,
    /// A fragment of it.
    Fragment {
        /// From 1.
        index: usize,
        /// How many.
        of: usize,
    },
    /// A segment of a super-frame.
    Segment {
        /// From 1.
        index: usize,
        /// How many.
        of: usize,
    },
    /// The ICMP error about it.
    IcmpError,
    /// The redirect that tells its sender of a better first hop.
    Redirect,
    /// The answer to its echo request.
    EchoReply,
    /// The answer to its TCP segment.
    TcpReset,
    /// The control side's further treatment.
    Later,
}

/// One pass through the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// What it is about.
    pub role: Role,
    /// Index of the pass that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// The packet at its start, if it could be parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketView>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// The largest packet of this kind that passes, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// How it ended.
    pub end: End,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The link header was read and taken off.
    Link {
        /// The sender.
        src: MacAddr,
        /// It was sent to a group.
        group: bool,
    },
    /// Checks that were passed.
    Checks {
        /// Each in a few words.
        passed: Vec<String>,
    },
    /// A rule decided where to look, or at once.
    Rule {
        /// When it is tried.
        priority: u32,
        /// In the words of `ip rule`.
        rule: String,
    },
    /// The prefix has routes for some sources only: the longest that contains the packet's.
    Source {
        /// The packet's source.
        src: IpAddr,
        /// The sources with routes, in the order in which they are tried.
        sources: Vec<IpNet>,
        /// The one that contains it; None: what others get.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chosen: Option<IpNet>,
        /// The route or routes for it, as chosen; None: no route is for all sources.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route: Option<Box<RouteInfo>>,
    },
    /// Longest prefix match.
    Lookup {
        /// In this table.
        table: TableId,
        /// Which rule names the table.
        rule: String,
        /// For this destination.
        dst: IpAddr,
        /// Every prefix that contains it, longest first.
        covers: Vec<Cover>,
        /// How each next hop of the chosen route that names no port was found.
        recursion: Vec<Vec<Recursion>>,
    },
    /// One of several next hops was picked by flow.
    Group {
        /// The flow's hash.
        hash: u32,
        /// What the hash covers.
        covers: String,
        /// The picked bucket.
        bucket: usize,
        /// Of how many.
        buckets: usize,
        /// The group is a resilient one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resilient: bool,
        /// Of a resilient group: for how long no packet has taken the bucket, in hundredths of a second; None: none has since
        /// it came to its member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle: Option<u64>,
        /// All members that are in use.
        members: Vec<Member>,
    },
    /// The next hop is known, or must be found.
    Neighbor {
        /// The next hop, or the destination itself.
        addr: IpAddr,
        /// On the link of this port.
        dev: String,
        /// ARP or NDP.
        protocol: String,
        /// Its link-layer address, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lladdr: Option<MacAddr>,
        /// Its state; None: never heard of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<NudState>,
        /// Packets that wait for it.
        #[serde(default)]
        waiting: usize,
    },
    /// A forwarder decided.
    Forwarder {
        /// Its name.
        name: String,
        /// What it decided.
        verdict: String,
    },
    /// An outer header was put in front.
    Encap {
        /// The tunnel.
        tunnel: String,
        /// Its mode.
        mode: String,
        /// Outer source.
        local: IpAddr,
        /// Outer destination.
        remote: IpAddr,
        /// Bytes added.
        added: u32,
        /// The outer packet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outer: Option<PacketView>,
        /// How the way to the peer was found; empty when the tunnel names its port.
        recursion: Vec<Recursion>,
    },
    /// An outer header was taken off.
    Decap {
        /// The tunnel.
        tunnel: String,
        /// Its own end.
        local: IpAddr,
        /// The peer, which is the configured one.
        remote: IpAddr,
        /// Bytes taken off.
        removed: u32,
    },
    /// A filter was asked.
    Filter {
        /// Which port's, and on which way: "in by lan0", "out by wan0", "to the router".
        place: String,
        /// The filter.
        filter: String,
        /// Number of the rule that decided, from 1; None: none did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u32>,
        /// That rule, or why none was asked.
        rule: String,
        /// What it says.
        action: Action,
    },
    /// The way back to the source was looked at.
    SourceCheck {
        /// The port where it came in.
        dev: String,
        /// The mode.
        check: String,
        /// Whether it may come from there.
        allowed: bool,
    },
    /// The segment size that a TCP SYN tells was lowered.
    Mss {
        /// Before.
        from: u16,
        /// After.
        to: u16,
    },
    /// TTL or hop limit.
    Ttl {
        /// Before.
        from: u8,
        /// After.
        to: u8,
    },
    /// Cut into pieces that go on as passes of their own.
    Cut {
        /// Fragments or segments.
        into: String,
        /// How many.
        count: usize,
    },
    /// For the router itself.
    Local {
        /// What it is to the router.
        what: String,
    },
    /// An answer goes back, as a pass of its own.
    Reply {
        /// What it says.
        what: String,
        /// From this address.
        source: IpAddr,
        /// Why from this one.
        why: String,
    },
    /// No ICMP error goes back.
    NoReply {
        /// Why not.
        why: String,
    },
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The next hop; None: the destination itself, or no link layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The port or tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// What else it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Its buckets.
    pub buckets: usize,
    /// Whether this flow has it.
    pub chosen: bool,
}

/// The limit of a packet's length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mtu {
    /// The largest packet of this kind that passes, in bytes.
    pub mtu: u32,
    /// Which element sets it.
    pub by: String,
    /// Every element on the way, with its own limit and what that leaves for the packet.
    pub limits: Vec<Limit>,
}

/// One element's limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Who.
    pub by: String,
    /// Largest packet there, in bytes.
    pub mtu: u32,
    /// Less the headers added before.
    pub packet: u32,
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// Handed to a port.
    Transmit {
        /// Which.
        dev: String,
        /// The next hop; None: the destination itself, or no link layer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<IpAddr>,
        /// The forwarder.
        forwarder: String,
        /// The frame, complete for its medium.
        frame: Bytes,
        /// Bytes of link header in front.
        link_header: usize,
    },
    /// Waits for a neighbour's link-layer address.
    Held {
        /// Whose.
        neighbor: IpAddr,
        /// On the link of this port.
        dev: String,
    },
    /// Used by the router itself.
    Consumed {
        /// What for.
        what: String,
    },
    /// Answered: the answer is a pass of its own.
    Answered {
        /// With what.
        what: String,
    },
    /// Goes on as other passes: pieces of it, what was inside, or itself once more.
    GoesOn,
    /// Dropped.
    Drop {
        /// For this reason.
        reason: String,
        /// One sentence on it.
        explanation: String,
    },
}

/// Bytes, as hexadecimal text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Bytes {
    /// Reads hexadecimal digits; white space, `:` and `-` between bytes are skipped, as is a leading `0x`. The error is
    /// the place of the character that does not fit, or of the lone last digit.
    pub fn from_hex(text: &str) -> Result<Bytes, usize> {
        let start = if text.starts_with("0x") || text.starts_with("0X") { 2 } else { 0 };
        let mut out = Vec::with_capacity(text.len() / 2);
        let mut high: Option<(usize, u32)> = None;
        for (at, c) in text.char_indices().skip(start) {
            match (c.to_digit(16), high) {
                (Some(d), None) => high = Some((at, d)),
                (Some(d), Some((_, h))) => {
                    out.push((h << 4 | d) as u8);
                    high = None;
                }
                (None, None) if c.is_whitespace() || c == ':' || c == '-' => {}
                (None, _) => return Err(at),
            }
        }
        match high {
            Some((at, _)) => Err(at),
            None => Ok(Bytes(out)),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Bytes::from_hex(&text).map_err(|at| serde::de::Error::custom(format_args!("not hexadecimal at {at}")))
    }
}

impl Explanation {
    /// The passes that a pass caused, with their indexes, in order.
    pub fn children(&self, of: usize) -> impl Iterator<Item = (usize, &Pass)> {
        self.passes.iter().enumerate().filter(move |(_, p)| p.parent == Some(of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_in_all_habits() {
        for (text, want) in [
            ("", Ok(vec![])),
            ("45000014", Ok(vec![0x45, 0, 0, 0x14])),
            ("0x4500", Ok(vec![0x45, 0])),
            ("45 00\n00:14-ff", Ok(vec![0x45, 0, 0, 0x14, 0xff])),
            ("450", Err(2)),
            ("4 5", Err(1)),
            ("45zz", Err(2)),
        ] {
            assert_eq!(Bytes::from_hex(text).map(|b| b.0), want, "{text:?}");
        }
    }
}
