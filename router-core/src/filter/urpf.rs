//! Reverse-path checks: whether a source address may come in by the port where it came (RFC 2827, RFC 3704).
//!
//! | mode | the source's own route must |
//! |---|---|
//! | strict (RFC 3704 2.2) | lead out of this port, by any of its next hops |
//! | feasible (2.3) | have a candidate, best or not, that leads out of this port |
//! | loose (2.4) | be there, and not discard |
//!
//! The default route counts only with `allow-default`. Sources that have no route by nature are left alone: link-local ones,
//! which go no further than this link (RFC 4291 2.5.6, RFC 3927), and the unspecified address of DHCP and of duplicate address
//! detection (RFC 2131 4.1, RFC 4862 5.4.2), which is never forwarded.

use crate::fib::Fib;
use crate::object::{Object, ObjectId};
use crate::port::{PortId, TableId};
use crate::tables::Tables;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How a source is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UrpfMode {
    /// By the route in use.
    Strict,
    /// By every candidate.
    Feasible,
    /// By any route.
    Loose,
}

/// A mode, and what the default route is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urpf {
    /// The mode.
    pub mode: UrpfMode,
    /// The default route counts.
    pub allow_default: bool,
}

impl fmt::Display for Urpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            UrpfMode::Strict => "strict",
            UrpfMode::Feasible => "feasible",
            UrpfMode::Loose => "loose",
        })?;
        f.write_str(if self.allow_default { " allow-default" } else { "" })
    }
}

impl FromStr for Urpf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let mode = match words.next() {
            Some("strict") => UrpfMode::Strict,
            Some("feasible") => UrpfMode::Feasible,
            Some("loose") => UrpfMode::Loose,
            _ => return Err(format!("\"{text}\" begins with neither strict, feasible nor loose")),
        };
        let allow_default = match words.next() {
            None => false,
            Some("allow-default") => true,
            Some(word) => return Err(format!("\"{word}\": only allow-default may follow the mode")),
        };
        match words.next() {
            None => Ok(Urpf { mode, allow_default }),
            Some(word) => Err(format!("\"{word}\" is too much")),
        }
    }
}

/// Ports that candidates of a prefix lead out of, by the object of the prefix: those of all its candidates, where there are
/// several. Shared by all prefixes with the same candidates.
pub type Alternatives = HashMap<ObjectId, Box<[PortId]>, foldhash::fast::FixedState>;

/// Whether a packet from `src` may have come in by `port`, whose table is `table`.
pub fn allows(check: Urpf, tables: &Tables, table: TableId, port: PortId, src: IpAddr) -> bool {
    let exempt = match src {
        IpAddr::V4(a) => a.is_link_local() || a.is_unspecified(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_unspecified(),
    };
    if exempt {
        return true;
    }
    let Some(fib) = tables.routing.fibs.get(table) else { return false };
    let id = match check.allow_default {
        true => crate::fib::Lookup::lookup(&**fib, &src),
        false => Fib::lookup_specific(fib, &src),
    };
    let object = |id: ObjectId| tables.routing.objects.get(id);
    // A counter on the way to the object.
    let id = match object(id) {
        Some(Object::Counted(c)) => c.next,
        _ => id,
    };
    match check.mode {
        // An object that the snapshot lacks is newer than it: the route is there.
        UrpfMode::Loose => object(id).is_none_or(is_way),
        UrpfMode::Strict => leads_to(tables, id, port, 0),
        UrpfMode::Feasible => {
            leads_to(tables, id, port, 0) || tables.guards.alternatives.get(&id).is_some_and(|p| p.contains(&port))
        }
    }
}

/// Whether packets go anywhere by it. What is for the router itself has no business to come from outside.
fn is_way(object: &Object) -> bool {
    !matches!(object, Object::Discard(_) | Object::Local | Object::Broadcast)
}

/// Objects stacked on each other at most: a group of plug-ins over next hops.
const DEEP: usize = 4;

fn leads_to(tables: &Tables, id: ObjectId, port: PortId, depth: usize) -> bool {
    match tables.routing.objects.get(id) {
        Some(Object::Glean(g)) => g.port == port,
        Some(Object::Forward(f)) => f.port == port,
        Some(Object::Incomplete(i)) => i.port == port,
        Some(Object::Encap(e)) => e.tunnel == port,
        Some(Object::Group(g)) if depth < DEEP => g.buckets.iter().any(|m| leads_to(tables, *m, port, depth + 1)),
        Some(Object::Plugin(p)) if depth < DEEP => leads_to(tables, p.next, port, depth + 1),
        // Its routes for some sources, or for all others: any of them says that the host is behind the port.
        Some(Object::Sources(s)) if depth < DEEP => {
            let listed = s.list.iter().any(|(_, id)| leads_to(tables, *id, port, depth + 1));
            listed || leads_to(tables, s.otherwise, port, depth + 1)
        }
        Some(Object::Counted(c)) if depth < DEEP => leads_to(tables, c.next, port, depth + 1),
        _ => false,
    }
}
