//! Rules as the data plane reads them: immutable, in a snapshot, without names.

use super::key::{Key, bits};
use super::rule::{PortSpan, RuleAction, RuleSpec};
use crate::addr::Family;
use crate::object::{Object, ObjectId};
use crate::port::{PortId, PortKind, TableId};
use crate::routing::objects::{BLACKHOLE, PROHIBIT, UNREACHABLE};
use crate::tables::{PortTable, RoutingTables, domain_of};
use ipnet::IpNet;

/// See the module.
#[derive(Clone, Debug)]
pub struct Policy {
    /// None: a packet of this family is looked up in the table of its port.
    v4: Option<Compiled>,
    v6: Option<Compiled>,
    /// The marks of packets by the port through which they came; ports beyond the end have none.
    marks: Vec<u32>,
}

/// The rules of one family.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    rules: Vec<Rule>,
    /// Some rule looks at the upper-layer protocol or at ports.
    deep: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    src: (u128, u128),
    dst: (u128, u128),
    mark: (u32, u32),
    iif: Iif,
    dscp: Option<u8>,
    proto: Option<u8>,
    sport: Option<PortSpan>,
    dport: Option<PortSpan>,
    not: bool,
    act: Act,
}

#[derive(Clone, Copy, Debug)]
enum Iif {
    Any,
    /// The router's own packets.
    Own,
    Port(PortId),
    /// Any port of the VRF with this table.
    Vrf(TableId),
    /// A port that does not exist.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Own addresses of the packet's table.
    Local,
    Lookup {
        /// As compiled.
        table: TableId,
        /// Matches no longer than this count as none.
        suppress: Option<u8>,
        /// Not for packets of VRFs: see [`super`].
        outside: bool,
    },
    L3mdev,
    Discard(ObjectId),
    /// By place in the list.
    Goto(usize),
    Nop,
}

/// What the rules say about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The forwarding object.
    pub object: ObjectId,
    /// The rule that decided, by its place in the list; None when no rule did.
    pub rule: Option<usize>,
    /// The table in which the object was found.
    pub table: Option<TableId>,
}

impl Policy {
    pub(super) fn new(v4: Option<Compiled>, v6: Option<Compiled>, marks: Vec<u32>) -> Self {
        Policy { v4, v6, marks }
    }

    fn list(&self, family: Family) -> Option<&Compiled> {
        match family {
            Family::Inet => self.v4.as_ref(),
            Family::Inet6 => self.v6.as_ref(),
        }
    }

    /// Whether packets of this family have rules.
    #[inline]
    pub fn rules(&self, family: Family) -> bool {
        self.list(family).is_some()
    }

    /// Whether own addresses come before all rules, as they do from the start, so that what they say needs no rule.
    #[inline]
    pub fn own_first(&self) -> bool {
        let first = |l: &Compiled| matches!(l.rules.first(), Some(r) if r.is_plain() && matches!(r.act, Act::Local));
        self.v4.iter().chain(&self.v6).all(first)
    }

    /// Whether some rule of this family looks at the upper-layer protocol or at ports.
    #[inline]
    pub fn is_deep(&self, family: Family) -> bool {
        self.list(family).is_some_and(|l| l.deep)
    }

    /// The mark of a packet: its own, else that of the port through which it came.
    #[inline]
    pub fn mark(&self, own: u32, port: PortId) -> u32 {
        if own != 0 { own } else { self.marks.get(port.index()).copied().unwrap_or(0) }
    }

    /// What the rules say. `own` is what the table of the packet's port says.
    pub fn decide(&self, routing: &RoutingTables, key: &Key, own: ObjectId) -> Decision {
        let home = domain_of(key.table);
        let Some(list) = self.list(key.family) else {
            return Decision { object: own, rule: None, table: Some(home) };
        };
        // A source without a route of its own goes on with the next rule, as a destination without one does.
        if routing.objects.get(own).is_none() {
            // Newer than the snapshot: whoever follows it takes the newest one and comes again.
            return Decision { object: own, rule: None, table: Some(home) };
        }
        let own = settle(routing, key, own);
        let mut at = 0;
        while let Some(rule) = list.rules.get(at) {
            let this = at;
            at += 1;
            if !rule.selects(key) {
                continue;
            }
            let (object, table) = match rule.act {
                Act::Local if is_own(routing, own) => (own, home),
                Act::Local | Act::Nop => continue,
                Act::Goto(place) => {
                    // Only ever forward: the list ends.
                    at = place.max(at);
                    continue;
                }
                Act::Discard(object) => return Decision { object, rule: Some(this), table: None },
                Act::L3mdev if home != TableId::MAIN => (own, home),
                Act::L3mdev => continue,
                Act::Lookup { outside: true, .. } if home != TableId::MAIN => continue,
                Act::Lookup { table, suppress: None, .. } if table == home => (own, home),
                Act::Lookup { table, suppress: None, .. } => {
                    (settle(routing, key, routing.lookup(table, &key.destination())), table)
                }
                Act::Lookup { table, suppress: Some(n), .. } => {
                    let id = routing.lookup_longer(table, n, &key.destination());
                    let id = match routing.objects.get(id) {
                        Some(Object::Sources(s)) => s.pick_longer(&key.source(), n),
                        _ => id,
                    };
                    (id, table)
                }
            };
            if object != ObjectId::NO_ROUTE {
                return Decision { object, rule: Some(this), table: Some(table) };
            }
        }
        Decision { object: ObjectId::NO_ROUTE, rule: None, table: None }
    }
}

/// What an object says for the packet's source, where it depends on that.
#[inline]
fn settle(routing: &RoutingTables, key: &Key, id: ObjectId) -> ObjectId {
    match routing.objects.get(id) {
        Some(Object::Sources(s)) => s.pick(&key.source()),
        _ => id,
    }
}

#[inline]
fn is_own(routing: &RoutingTables, id: ObjectId) -> bool {
    matches!(routing.objects.get(id), Some(Object::Local | Object::Broadcast))
}

impl Rule {
    /// Whether it selects everything.
    fn is_plain(&self) -> bool {
        !self.not
            && (self.src.1, self.dst.1, self.mark.1) == (0, 0, 0)
            && matches!(self.iif, Iif::Any)
            && (self.dscp, self.proto, self.sport, self.dport) == (None, None, None, None)
    }

    #[inline]
    fn selects(&self, key: &Key) -> bool {
        self.holds(key) != self.not
    }

    #[inline]
    fn holds(&self, key: &Key) -> bool {
        let within = |span: Option<PortSpan>, port: fn((u16, u16)) -> u16| match (span, key.ports) {
            (None, _) => true,
            (Some(s), Some(ports)) => (s.start..=s.end).contains(&port(ports)),
            (Some(_), None) => false,
        };
        key.src & self.src.1 == self.src.0
            && key.dst & self.dst.1 == self.dst.0
            && key.mark & self.mark.1 == self.mark.0
            && self.dscp.is_none_or(|d| d == key.dscp)
            && self.proto.is_none_or(|p| p == key.proto)
            && match self.iif {
                Iif::Any => true,
                Iif::Own => key.iif == PortId::NONE,
                Iif::Port(p) => key.iif == p,
                Iif::Vrf(table) => key.iif != PortId::NONE && domain_of(key.table) == table,
                Iif::Nobody => false,
            }
            && within(self.sport, |p| p.0)
            && within(self.dport, |p| p.1)
    }
}

/// Turns names into numbers and prefixes into masks.
pub(super) fn compile(rules: &[RuleSpec], ports: &PortTable) -> Compiled {
    let iif = |name: &str| match ports.by_name(name) {
        Some(p) if p.kind == PortKind::Loopback => Iif::Own,
        Some(p) if p.kind == PortKind::Vrf => Iif::Vrf(domain_of(p.table)),
        Some(p) => Iif::Port(p.id),
        None => Iif::Nobody,
    };
    let one = |(i, r): (usize, &RuleSpec)| Rule {
        src: masked(r.from),
        dst: masked(r.to),
        mark: r.fwmark.map_or((0, 0), |m| (m.value, m.mask)),
        iif: r.iif.as_deref().map_or(Iif::Any, iif),
        dscp: r.dscp,
        proto: r.ipproto,
        sport: r.sport,
        dport: r.dport,
        not: r.not,
        act: match r.action {
            RuleAction::Lookup(TableId::LOCAL) => Act::Local,
            RuleAction::Lookup(table) => {
                Act::Lookup { table: domain_of(table), suppress: r.suppress_prefixlength, outside: r.is_of_the_start() }
            }
            RuleAction::L3mdev => Act::L3mdev,
            RuleAction::Blackhole => Act::Discard(BLACKHOLE),
            RuleAction::Prohibit => Act::Discard(PROHIBIT),
            RuleAction::Unreachable => Act::Discard(UNREACHABLE),
            RuleAction::Nop => Act::Nop,
            // A priority that is not there: the next rule, as on Linux.
            RuleAction::Goto(to) => {
                rules.iter().position(|x| x.priority == Some(to)).filter(|t| *t > i).map_or(Act::Nop, Act::Goto)
            }
        },
    };
    let deep = |r: &RuleSpec| r.ipproto.is_some() || r.sport.is_some() || r.dport.is_some();
    Compiled { rules: rules.iter().enumerate().map(one).collect(), deep: rules.iter().any(deep) }
}

/// A prefix as value and mask.
fn masked(net: Option<IpNet>) -> (u128, u128) {
    let Some(net) = net else { return (0, 0) };
    let mask = bits(&net.netmask());
    (bits(&net.network()) & mask, mask)
}
