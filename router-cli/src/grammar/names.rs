//! Names of route origins, tables, scopes and types: iproute2's rt_protos, rt_tables, rt_scopes.

use router_core::port::TableId;
use router_core::spec::{NudState, Proto, RouteKind};
use std::borrow::Cow;

const PROTOS: &[(u8, &str)] = &[
    (0, "unspec"),
    (1, "redirect"),
    (2, "kernel"),
    (3, "boot"),
    (4, "static"),
    (8, "gated"),
    (9, "ra"),
    (10, "mrt"),
    (11, "zebra"),
    (12, "bird"),
    (13, "dnrouted"),
    (14, "xorp"),
    (15, "ntk"),
    (16, "dhcp"),
    (18, "keepalived"),
    (42, "babel"),
    (186, "bgp"),
    (187, "isis"),
    (188, "ospf"),
    (189, "rip"),
    (192, "eigrp"),
];

const SCOPES: &[(u8, &str)] = &[(0, "global"), (255, "nowhere"), (254, "host"), (253, "link"), (200, "site")];

/// Scopes that a route can have.
pub(crate) mod scope {
    /// Beyond a gateway.
    pub const GLOBAL: u8 = 0;
    /// On a link.
    pub const LINK: u8 = 253;
    /// This router.
    pub const HOST: u8 = 254;
}

fn name_of(list: &'static [(u8, &'static str)], n: u8) -> Cow<'static, str> {
    match list.iter().find(|(k, _)| *k == n) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(n.to_string()),
    }
}

fn number_of(list: &[(u8, &str)], text: &str) -> Option<u8> {
    let by_name = list.iter().find(|(_, name)| *name == text).map(|(n, _)| *n);
    by_name.or_else(|| super::value::parse_number(text).and_then(|n| u8::try_from(n).ok()))
}

/// The name of a route origin, or its number.
pub fn proto_name(proto: Proto) -> Cow<'static, str> {
    name_of(PROTOS, proto)
}

/// A route origin by name or number.
pub fn proto_from_name(text: &str) -> Option<Proto> {
    number_of(PROTOS, text)
}

/// The name of a scope, or its number.
pub fn scope_name(scope: u8) -> Cow<'static, str> {
    name_of(SCOPES, scope)
}

pub(super) fn scope_from_name(text: &str) -> Option<u8> {
    number_of(SCOPES, if text == "universe" { "global" } else { text })
}

/// The name of a table, or its number.
pub fn table_name(table: TableId) -> Cow<'static, str> {
    match table {
        TableId::MAIN => "main".into(),
        TableId::LOCAL => "local".into(),
        TableId::DEFAULT => "default".into(),
        TableId(0) => "unspec".into(),
        TableId(n) => n.to_string().into(),
    }
}

/// A table by name or number, from 1.
pub fn table_from_name(text: &str) -> Option<TableId> {
    match text {
        "main" => Some(TableId::MAIN),
        "local" => Some(TableId::LOCAL),
        "default" => Some(TableId::DEFAULT),
        _ => super::value::parse_number(text).filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()).map(TableId),
    }
}

const KINDS: &[(RouteKind, &str)] = &[
    (RouteKind::Unicast, "unicast"),
    (RouteKind::Local, "local"),
    (RouteKind::Broadcast, "broadcast"),
    (RouteKind::Anycast, "anycast"),
    (RouteKind::Blackhole, "blackhole"),
    (RouteKind::Unreachable, "unreachable"),
    (RouteKind::Prohibit, "prohibit"),
    (RouteKind::Throw, "throw"),
];

/// The name of a route type.
pub(crate) fn kind_name(kind: RouteKind) -> &'static str {
    KINDS.iter().find(|(k, _)| *k == kind).map_or("unicast", |(_, n)| n)
}

pub(super) fn kind_from_name(text: &str) -> Option<RouteKind> {
    KINDS.iter().find(|(_, n)| *n == text).map(|(k, _)| *k)
}

const NUD: &[(NudState, &str)] = &[
    (NudState::Permanent, "permanent"),
    (NudState::Reachable, "reachable"),
    (NudState::NoArp, "noarp"),
    (NudState::Stale, "stale"),
    (NudState::Delay, "delay"),
    (NudState::Probe, "probe"),
    (NudState::Failed, "failed"),
    (NudState::Incomplete, "incomplete"),
];

/// The name of a neighbour state, as typed; shown in upper case.
pub(crate) fn nud_name(state: NudState) -> &'static str {
    NUD.iter().find(|(s, _)| *s == state).map_or("none", |(_, n)| n)
}

pub(super) fn nud_from_name(text: &str) -> Option<NudState> {
    (!text.is_empty()).then(|| NUD.iter().find(|(_, n)| n.starts_with(text)).map(|(s, _)| *s)).flatten()
}
