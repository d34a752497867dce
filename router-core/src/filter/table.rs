//! A filter: rules in order, the first that matches decides, what none matches is denied. Counters per rule.
//!
//! **Fragments.** A filter that looks into transport headers must not be got around by hiding them (RFC 1858, RFC 3128,
//! RFC 7112). So it drops, whatever its rules say: a first fragment, or a whole packet, that ends before what rules could ask
//! for; a fragment of TCP that begins within the first 16 bytes of the segment; and an IPv6 packet with more extension headers
//! than are walked. Later fragments follow what [`Rule::matches`] says about them.

use super::rule::{Action, Rule, has_ports};
use crate::addr::Family;
use crate::headers::{be16, protocol};
use crate::packet::{Fragment, Packet};
use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A filter as written: its rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterSpec {
    /// The rules.
    pub rules: Vec<Rule>,
}

impl FilterSpec {
    /// Whether some rule lets anything through.
    pub fn allows_anything(&self) -> bool {
        self.rules.iter().any(|r| r.action == Action::Allow)
    }
}

/// Counters of a rule: parts of their own for workers, so that they do not write to one line.
const PARTS: usize = 8;

/// What matched a rule.
#[derive(Debug, Default)]
pub struct RuleCounts([CachePadded<Part>; PARTS]);

#[derive(Debug, Default)]
struct Part {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl RuleCounts {
    /// Counts packets and their bytes. Any worker may; `part` should differ between them.
    #[inline]
    pub fn add(&self, part: usize, packets: u64, bytes: u64) {
        let p = &self.0[part % PARTS];
        p.packets.fetch_add(packets, Relaxed);
        p.bytes.fetch_add(bytes, Relaxed);
    }

    /// Packets and bytes so far.
    pub fn read(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(p, b), c| (p + c.packets.load(Relaxed), b + c.bytes.load(Relaxed)))
    }
}

/// What a filter says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What becomes of it.
    pub action: Action,
    /// The rule, from 0; None: no rule matched, or its headers were cut or hidden.
    pub rule: Option<u32>,
    /// Its transport header is cut, or hidden by fragments.
    pub hidden: bool,
}

/// A filter as the data plane sees it.
#[derive(Debug)]
pub struct RuleTable {
    name: String,
    rules: Box<[Rule]>,
    counts: Box<[Arc<RuleCounts>]>,
    /// What no rule matched, and what was hidden.
    rest: Arc<RuleCounts>,
    hidden: Arc<RuleCounts>,
    looks_deep: bool,
}

impl RuleTable {
    /// Compiles a filter. Rules that `before` had too keep their counts.
    pub fn new(name: &str, spec: &FilterSpec, before: Option<&RuleTable>) -> Self {
        let mut old: Vec<(&Rule, &Arc<RuleCounts>)> =
            before.map(|b| b.rules.iter().zip(b.counts.iter()).collect()).unwrap_or_default();
        let counts = spec.rules.iter().map(|rule| match old.iter().position(|(r, _)| *r == rule) {
            Some(at) => Arc::clone(old.remove(at).1),
            None => Arc::default(),
        });
        RuleTable {
            name: name.to_owned(),
            counts: counts.collect(),
            rules: spec.rules.clone().into(),
            rest: before.map(|b| Arc::clone(&b.rest)).unwrap_or_default(),
            hidden: before.map(|b| Arc::clone(&b.hidden)).unwrap_or_default(),
            looks_deep: spec.rules.iter().any(Rule::looks_deep),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules with what each has matched.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, (u64, u64))> {
        self.rules.iter().zip(self.counts.iter().map(|c| c.read()))
    }

    /// What no rule matched, and what was cut or hidden.
    pub fn rest(&self) -> ((u64, u64), (u64, u64)) {
        (self.rest.read(), self.hidden.read())
    }

    /// What becomes of a packet, `data` from its IP header on. Counts nothing.
    #[inline]
    pub fn judge(&self, p: &Packet, data: &[u8]) -> Judged {
        if self.looks_deep && is_hidden(p, data) {
            return Judged { action: Action::Deny, rule: None, hidden: true };
        }
        match self.rules.iter().position(|r| r.matches(p, data)) {
            Some(i) => Judged { action: self.rules[i].action, rule: Some(i as u32), hidden: false },
            None => Judged { action: Action::Deny, rule: None, hidden: false },
        }
    }

    /// Counts what [`RuleTable::judge`] said.
    #[inline]
    pub fn count(&self, part: usize, judged: &Judged, bytes: u32) {
        self.count_many(part, judged, 1, u64::from(bytes));
    }

    /// Counts what it said of so many packets, which have so many bytes together.
    #[inline]
    pub fn count_many(&self, part: usize, judged: &Judged, packets: u64, bytes: u64) {
        let counts = match judged.rule {
            Some(i) => self.counts.get(i as usize).unwrap_or(&self.rest),
            None if judged.hidden => &self.hidden,
            None => &self.rest,
        };
        counts.add(part, packets, bytes);
    }
}

/// Whether the transport header that rules ask about cannot be seen.
fn is_hidden(p: &Packet, data: &[u8]) -> bool {
    // More IPv6 extension headers than the parse walks: what comes behind them is anybody's guess.
    let unknown = p.family == Family::Inet6
        && matches!(
            p.proto,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::AH
                | protocol::DEST_OPTIONS
                | protocol::MOBILITY
                | protocol::HIP
                | protocol::SHIM6
        );
    match p.fragment {
        // RFC 8200 4.5: the chain ends in the first fragment (RFC 7112); later ones show only its first header.
        Fragment::Later => p.proto == protocol::TCP && begins_early(p, data),
        // A chain that runs out counts as "no next header".
        Fragment::First if p.family == Family::Inet6 && p.proto == protocol::NO_NEXT => true,
        Fragment::None | Fragment::First => unknown || p.transport(data).len() < least(p.proto),
    }
}

/// Bytes of a transport header that rules may ask about: RFC 1858 3.3.1 has 16 for TCP.
fn least(proto: u8) -> usize {
    match proto {
        protocol::TCP => 16,
        protocol::ICMP | protocol::ICMPV6 => 2,
        p if has_ports(p) => 4,
        _ => 0,
    }
}

/// Whether a later fragment overlaps the part of the segment that rules ask about (RFC 1858 3.3.2, RFC 3128).
fn begins_early(p: &Packet, data: &[u8]) -> bool {
    let offset = match p.family {
        Family::Inet => (be16(data, 6) & 0x1fff) * 8,
        // The fragment header is right before what it carries.
        Family::Inet6 => be16(data, usize::from(p.l4).saturating_sub(6)) & 0xfff8,
    };
    usize::from(offset) < least(protocol::TCP)
}

#[cfg(test)]
mod tests;
