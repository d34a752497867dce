//! iproute2's words, read into typed commands.
//!
//! The parser is total: any sequence of words gives a [`Command`] or a [`Failure`], never a panic. Words are matched as
//! iproute2 does: exact where it uses `strcmp`, by prefix in its own order of priority where it uses `matches`.

mod addr;
mod failure;
mod filter;
pub(crate) mod inspect;
mod join;
mod link;
mod names;
mod neigh;
mod nexthop;
mod options;
mod route;
mod route_select;
mod rule;
mod tokens;
mod translate;
mod tunnel;
mod usage;
pub(crate) mod value;
mod words;

pub use failure::{Failure, exit};
pub use filter::FilterCommand;
pub(crate) use names::scope as names_scope;
pub(crate) use names::{kind_name, nud_name};
pub use names::{proto_from_name, proto_name, scope_name, table_from_name, table_name};
pub use options::{Options, parse_options};
pub use rule::parse_rule_line;
pub use tokens::{Token, tokenize};
pub use usage::usage;

use crate::control::{
    AddrSelect, BucketSelect, LinkSelect, LinkSet, NeighSelect, NextHopSelect, RouteGet, RouteSelect, TranslateSelect,
};
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::policy::RuleSpec;
use router_core::port::TableId;
use router_core::spec::{NeighSpec, NextHopSpec, RouteOp, RouteSpec, TunnelSpec};
use words::Words;

/// Program name in usage lines and errors: where iproute2 says `ip`, this says `duet`.
pub const PROGRAM: &str = "duet";

/// A parsed command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `route`.
    Route(RouteCommand),
    /// `neigh`.
    Neigh(NeighCommand),
    /// `link`.
    Link(LinkCommand),
    /// `addr`.
    Addr(AddrCommand),
    /// `tunnel`.
    Tunnel(TunnelCommand),
    /// `translate show`.
    Translate(TranslateSelect),
    /// `filter`.
    Filter(FilterCommand),
    /// `nexthop`.
    NextHop(NextHopCommand),
    /// `rule`.
    Rule(RuleCommand),
    /// `vrf show`, one or all.
    Vrf(Option<String>),
    /// `OBJECT help`.
    Help(Object),
}

/// `rule ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleCommand {
    /// add.
    Add(Box<RuleSpec>),
    /// del: what was not said may be anything, what it does too when that was not said.
    Delete(Box<RuleSpec>, bool),
    /// show: all, or those that fit, what they do too if that was said.
    Show(Option<(Box<RuleSpec>, bool)>),
    /// flush.
    Flush,
}

/// `route ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteCommand {
    /// add, replace, change, append, prepend, del.
    Modify(RouteOp, Box<RouteSpec>),
    /// show.
    Show(RouteSelect),
    /// flush.
    Flush(RouteSelect),
    /// get.
    Get(RouteGet),
    /// save: lines that `restore` and a configuration understand.
    Save(RouteSelect),
    /// restore, from standard input.
    Restore,
}

/// `neigh ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum NeighCommand {
    /// add, replace, change, del.
    Modify(Verb, NeighSpec),
    /// show.
    Show(NeighSelect),
    /// get ADDRESS dev PORT.
    Get(NeighSelect),
    /// flush.
    Flush(NeighSelect),
}

/// `link ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkCommand {
    /// set.
    Set(LinkSet),
    /// add NAME type vrf table N.
    AddVrf(String, TableId),
    /// del NAME.
    Delete(String),
    /// show.
    Show(LinkSelect),
}

/// `addr ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum AddrCommand {
    /// add, replace, change, del: an address with its prefix length on a port.
    Modify(Verb, String, IpNet),
    /// show.
    Show(AddrSelect),
    /// flush.
    Flush(AddrSelect),
}

/// `tunnel ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum TunnelCommand {
    /// add.
    Add(Box<TunnelSpec>),
    /// add NAME broker URL; the key is in the file, if the account has one.
    Join(Box<crate::control::JoinSpec>, Option<std::path::PathBuf>),
    /// change: what was not said stays.
    Change(Box<crate::control::TunnelChange>),
    /// Test end to end: which, and whom to ask.
    Check(String, Option<std::net::IpAddr>),
    /// del NAME.
    Delete(String),
    /// show, one or all.
    Show(Option<String>),
}

/// `nexthop ...`.
#[derive(Clone, Debug, PartialEq)]
pub enum NextHopCommand {
    /// add.
    Add(NextHopSpec),
    /// replace.
    Replace(NextHopSpec),
    /// del id N.
    Delete(u32),
    /// get id N.
    Get(u32),
    /// show.
    Show(NextHopSelect),
    /// flush.
    Flush(NextHopSelect),
    /// bucket show: those of resilient groups.
    Buckets(BucketSelect),
    /// bucket get: one.
    Bucket(BucketSelect),
}

/// What to do with a neighbour or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// New; fails when there.
    Add,
    /// Set; fails when not there.
    Change,
    /// Set, whether there or not.
    Replace,
    /// Remove; fails when not there.
    Delete,
}

/// The objects of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Routes.
    Route,
    /// Neighbours.
    Neigh,
    /// Ports and tunnels.
    Link,
    /// Addresses of ports.
    Addr,
    /// Tunnels.
    Tunnel,
    /// Translators between IPv4 and IPv6.
    Translate,
    /// Packet filters, and what ports ask of their packets.
    Filter,
    /// Next-hop objects.
    NextHop,
    /// Policy rules.
    Rule,
    /// VRFs.
    Vrf,
}

/// iproute2's objects in its own order, which is what abbreviations go by. None: not an object of duet.
const OBJECTS: &[(&str, Option<Object>)] = &[
    ("address", Some(Object::Addr)),
    ("addrlabel", None),
    ("maddress", None),
    ("route", Some(Object::Route)),
    ("rule", Some(Object::Rule)),
    ("neighbor", Some(Object::Neigh)),
    ("neighbour", Some(Object::Neigh)),
    ("ntable", None),
    ("ntbl", None),
    ("link", Some(Object::Link)),
    ("l2tp", None),
    ("fou", None),
    ("ila", None),
    ("macsec", None),
    ("tunnel", Some(Object::Tunnel)),
    ("tunl", Some(Object::Tunnel)),
    ("tuntap", None),
    ("tap", None),
    ("token", None),
    ("tcpmetrics", None),
    ("monitor", None),
    ("xfrm", None),
    ("mroute", None),
    ("mrule", None),
    ("netns", None),
    ("netconf", None),
    ("vrf", Some(Object::Vrf)),
    ("sr", None),
    ("nexthop", Some(Object::NextHop)),
    ("mptcp", None),
    ("ioam", None),
    ("translate", Some(Object::Translate)),
    ("filter", Some(Object::Filter)),
];

/// Commands that clap parses; all other words are iproute2's.
pub const OWN: &[&str] = &[
    "run",
    "shell",
    "check",
    "demo",
    "bench",
    "broker",
    "reload",
    "monitor",
    "top",
    "doctor",
    "graph",
    "stats",
    "drops",
    "version",
    "__complete",
    "completion",
    "man",
];

/// What else a first word may be, for suggestions.
const COMMANDS: &[&str] = &[
    "route",
    "neigh",
    "link",
    "addr",
    "tunnel",
    "translate",
    "filter",
    "nexthop",
    "rule",
    "vrf",
    "capture",
    "count",
    "explain",
    "ping",
    "flow",
    "trace",
];

/// The object that `word` names or abbreviates.
pub fn find_object(word: &str) -> Option<Object> {
    OBJECTS.iter().find(|(name, _)| !word.is_empty() && name.starts_with(word)).and_then(|(_, o)| *o)
}

/// The object's name, as the grammar takes it.
pub(crate) fn object_name(object: Object) -> &'static str {
    match object {
        Object::Route => "route",
        Object::Neigh => "neigh",
        Object::Link => "link",
        Object::Addr => "addr",
        Object::Tunnel => "tunnel",
        Object::Translate => "translate",
        Object::Filter => "filter",
        Object::NextHop => "nexthop",
        Object::Rule => "rule",
        Object::Vrf => "vrf",
    }
}

/// Parses `OBJECT [COMMAND] ...`. `family` is what `-4` or `-6` said.
pub fn parse_command(words: &[&str], family: Option<Family>) -> Result<Command, Failure> {
    let mut w = Words::new(words, family);
    let Some(word) = w.next() else {
        return Err(Failure::new(exit::SYNTAX, usage(None)));
    };
    let found = OBJECTS.iter().find(|(name, _)| !word.is_empty() && name.starts_with(word));
    match found {
        // What is not about a word is about one that is missing at the end.
        Some((_, Some(object))) => parse_object(*object, &mut w)
            .map_err(|f| if f.word.is_none() { f.at(words.len()) } else { f }),
        Some((name, None)) => Err(w.fail_here(
            exit::USAGE,
            format!("Object \"{word}\" is unknown, try \"{PROGRAM} help\"."),
            format!(
                "iproute2's {name} has no counterpart here; duet knows route, neigh, link, addr, tunnel, translate, filter, nexthop, rule, vrf"
            ),
        )),
        None => Err(w.fail_here(
            exit::USAGE,
            format!("Object \"{word}\" is unknown, try \"{PROGRAM} help\"."),
            match crate::config::nearest(word, COMMANDS.iter().chain(OWN).copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => {
                    "duet knows route, neigh, link, addr, tunnel, translate, filter, nexthop, rule, vrf; \"duet --help\" lists everything else"
                        .into()
                }
            },
        )),
    }
}

fn parse_object(object: Object, w: &mut Words<'_>) -> Result<Command, Failure> {
    match object {
        Object::Route => route::parse(w),
        Object::Neigh => neigh::parse(w),
        Object::Link => link::parse(w),
        Object::Addr => addr::parse(w),
        Object::Tunnel => tunnel::parse(w),
        Object::Translate => translate::parse(w),
        Object::Filter => filter::parse(w),
        Object::NextHop => nexthop::parse(w),
        Object::Rule => rule::parse(w),
        Object::Vrf => link::parse_vrf(w),
    }
}

/// Parses a line of the configuration or of `route save`: a route without `route add` in front.
pub fn parse_route_line(words: &[&str], family: Option<Family>) -> Result<RouteSpec, Failure> {
    route::parse_spec(&mut Words::new(words, family), RouteOp::Add)
}

/// Parses a neighbour line of the configuration: `ADDRESS lladdr MAC dev PORT`.
pub fn parse_neigh_line(words: &[&str]) -> Result<NeighSpec, Failure> {
    neigh::parse_spec(&mut Words::new(words, None), Verb::Add)
}

/// Parses a next-hop line of the configuration: `id N via ADDRESS dev PORT`.
pub fn parse_nexthop_line(words: &[&str]) -> Result<NextHopSpec, Failure> {
    nexthop::parse_spec(&mut Words::new(words, None))
}

#[cfg(test)]
mod tests;
