//! One rule as written and shown.

use crate::addr::Family;
use crate::port::TableId;
use crate::spec::Proto;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A firewall mark and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// What the bits must be.
    pub value: u32,
    /// Which bits count.
    #[serde(default = "all_ones", skip_serializing_if = "is_all_ones")]
    pub mask: u32,
}

fn all_ones() -> u32 {
    u32::MAX
}

fn is_all_ones(mask: &u32) -> bool {
    *mask == u32::MAX
}

/// Transport ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortSpan {
    /// First.
    pub start: u16,
    /// Last.
    pub end: u16,
}

/// What a rule does with packets that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Look them up in this table; without a match there, the next rule is tried.
    Lookup(TableId),
    /// Look those of a VRF up in its table.
    L3mdev,
    /// Go on with the first rule of this priority.
    Goto(u32),
    /// Nothing: the next rule is tried.
    Nop,
    /// Drop them silently.
    Blackhole,
    /// Drop them and say "administratively prohibited".
    Prohibit,
    /// Drop them and say "unreachable".
    Unreachable,
}

/// A rule (`ip rule`). Everything said must hold for a packet to be selected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuleSpec {
    /// Of which family packets are.
    pub family: Family,
    /// Rules are tried from 0 up. None on input: one before the first of the operator's, as Linux chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Selects what the rest does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
    /// Source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// Destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
    /// Came in through this port or tunnel, or through any port of this VRF; `lo`: the router's own packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Marked so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<Mark>,
    /// Differentiated services code point, 0 to 63 (RFC 2474).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// Upper-layer protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipproto: Option<u8>,
    /// Source port. Fragments have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<PortSpan>,
    /// Destination port. Fragments have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<PortSpan>,
    /// What happens to what is selected.
    pub action: RuleAction,
    /// A match of the table no longer than this counts as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_prefixlength: Option<u8>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Proto>,
}

impl RuleSpec {
    /// A rule that selects every packet of a family.
    pub fn new(family: Family, action: RuleAction) -> Self {
        RuleSpec {
            family,
            priority: None,
            not: false,
            from: None,
            to: None,
            iif: None,
            fwmark: None,
            dscp: None,
            ipproto: None,
            sport: None,
            dport: None,
            action,
            suppress_prefixlength: None,
            protocol: None,
        }
    }

    /// Whether it selects every packet.
    pub fn selects_all(&self) -> bool {
        let bare =
            RuleSpec { priority: self.priority, protocol: self.protocol, ..RuleSpec::new(self.family, self.action) };
        RuleSpec { suppress_prefixlength: None, ..self.clone() } == bare
    }

    /// Whether one of the rules that a router is born with: no selector, and one of the tables that are compiled into one.
    pub(super) fn is_of_the_start(&self) -> bool {
        let table = matches!(self.action, RuleAction::Lookup(TableId::LOCAL | TableId::MAIN | TableId::DEFAULT));
        table && self.selects_all() && self.suppress_prefixlength.is_none()
    }
}

impl fmt::Display for RuleSpec {
    /// As `ip rule show` prints it behind the priority.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.not {
            f.write_str("not ")?;
        }
        match &self.from {
            Some(net) => write!(f, "from {}", Short(net))?,
            None => f.write_str("from all")?,
        }
        if let Some(net) = &self.to {
            write!(f, " to {}", Short(net))?;
        }
        if let Some(m) = self.fwmark {
            write!(f, " fwmark {:#x}", m.value)?;
            if m.mask != u32::MAX {
                write!(f, "/{:#x}", m.mask)?;
            }
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        if let Some(proto) = self.ipproto {
            match crate::explain::proto_name(proto).filter(|_| matches!(proto, 1 | 6 | 17 | 58 | 132)) {
                Some("icmp6") => f.write_str(" ipproto ipv6-icmp")?,
                Some(name) => write!(f, " ipproto {name}")?,
                None => write!(f, " ipproto ipproto-{proto}")?,
            }
        }
        for (word, span) in [("sport", self.sport), ("dport", self.dport)] {
            match span {
                Some(s) if s.start == s.end => write!(f, " {word} {}", s.start)?,
                Some(s) => write!(f, " {word} {}-{}", s.start, s.end)?,
                None => {}
            }
        }
        if let Some(dscp) = self.dscp {
            write!(f, " dscp {dscp}")?;
        }
        match self.action {
            RuleAction::Lookup(TableId::MAIN) => f.write_str(" lookup main")?,
            RuleAction::Lookup(TableId::LOCAL) => f.write_str(" lookup local")?,
            RuleAction::Lookup(TableId::DEFAULT) => f.write_str(" lookup default")?,
            RuleAction::Lookup(TableId(n)) => write!(f, " lookup {n}")?,
            RuleAction::L3mdev => f.write_str(" lookup [l3mdev-table]")?,
            RuleAction::Goto(n) => write!(f, " goto {n}")?,
            RuleAction::Nop => f.write_str(" nop")?,
            RuleAction::Blackhole => f.write_str(" blackhole")?,
            RuleAction::Prohibit => f.write_str(" prohibit")?,
            RuleAction::Unreachable => f.write_str(" unreachable")?,
        }
        if let Some(n) = self.suppress_prefixlength {
            write!(f, " suppress_prefixlength {n}")?;
        }
        Ok(())
    }
}

/// A prefix; that of a single host without its length.
struct Short<'a>(&'a IpNet);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => write!(f, "{}", self.0.addr()),
            false => write!(f, "{}", self.0),
        }
    }
}
