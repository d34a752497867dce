//! `route add|replace|change|append|prepend|del|get|save|restore`, and the route lines of a configuration.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, Object, RouteCommand, names, route_select};
use crate::control::RouteGet;
use ipnet::IpNet;
use router_core::addr::Family;
use router_core::spec::{HopSpec, RouteKind, RouteOp, RouteSpec};
use std::net::IpAddr;

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Route(RouteCommand::Show(route_select::parse(w)?)));
    }
    let modify =
        |w: &mut Words<'_>, op| parse_spec(w, op).map(|spec| Command::Route(RouteCommand::Modify(op, Box::new(spec))));
    match () {
        () if w.matches(&["list", "show", "lst"]) => Ok(Command::Route(RouteCommand::Show(route_select::parse(w)?))),
        () if w.matches(&["get"]) => parse_get(w),
        () if w.matches(&["add"]) => modify(w, RouteOp::Add),
        () if w.matches(&["change", "chg"]) => modify(w, RouteOp::Change),
        () if w.matches(&["replace"]) => modify(w, RouteOp::Replace),
        () if w.matches(&["prepend"]) => modify(w, RouteOp::Prepend),
        () if w.matches(&["append"]) => modify(w, RouteOp::Append),
        () if w.matches(&["delete"]) => modify(w, RouteOp::Delete),
        () if w.matches(&["flush"]) => {
            if w.peek().is_none() {
                return Err(Failure::with_hint(
                    exit::USAGE,
                    "\"duet route flush\" requires arguments.",
                    "say what to remove, such as \"proto bgp\", \"root 10.0.0.0/8\" or \"table 100\"",
                ));
            }
            Ok(Command::Route(RouteCommand::Flush(route_select::parse(w)?)))
        }
        () if w.matches(&["save"]) => Ok(Command::Route(RouteCommand::Save(route_select::parse(w)?))),
        () if w.matches(&["restore"]) => match w.next() {
            None => Ok(Command::Route(RouteCommand::Restore)),
            Some(_) => Err(w.garbage("restore", "\"route restore\" reads routes from standard input")),
        },
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Route)),
        () => Err(w.unknown_command("route")),
    }
}

/// What was said so far.
#[derive(Default)]
struct Draft {
    dst: Option<Dst>,
    kind: Option<RouteKind>,
    first: HopDraft,
    multi: Vec<HopDraft>,
    said: RouteFields,
}

#[derive(Default)]
struct RouteFields {
    table: Option<router_core::port::TableId>,
    metric: Option<u32>,
    proto: Option<u8>,
    src: Option<IpAddr>,
    from: Option<IpNet>,
    vrf: Option<String>,
    mtu: Option<u32>,
    advmss: Option<u16>,
    nhid: Option<u32>,
    forwarder: Option<String>,
}

#[derive(Clone, Copy)]
enum Dst {
    Default { word: usize },
    Net(IpNet),
}

#[derive(Default, Clone)]
struct HopDraft {
    via: Option<Via>,
    dev: Option<String>,
    weight: Option<u16>,
    onlink: bool,
}

#[derive(Clone, Copy)]
struct Via {
    addr: IpAddr,
    /// Whether `inet` or `inet6` was said.
    explicit: bool,
    word: usize,
}

impl HopDraft {
    fn is_empty(&self) -> bool {
        self.via.is_none() && self.dev.is_none() && !self.onlink
    }

    fn into_spec(self) -> HopSpec {
        HopSpec { via: self.via.map(|v| v.addr), dev: self.dev, weight: self.weight.unwrap_or(1), onlink: self.onlink }
    }
}

/// Options of a route that steer the kernel's own TCP or caches.
const KERNEL_ONLY: &[&str] = &[
    "as",
    "tos",
    "dsfield",
    "expires",
    "hoplimit",
    "reordering",
    "rtt",
    "rttvar",
    "rto_min",
    "window",
    "cwnd",
    "initcwnd",
    "initrwnd",
    "features",
    "quickack",
    "congctl",
    "ssthresh",
    "realms",
    "encap",
    "ttl-propagate",
    "fastopen_no_cookie",
    "pervasive",
    "mpath",
];

pub(super) fn parse_spec(w: &mut Words<'_>, op: RouteOp) -> Result<RouteSpec, Failure> {
    let mut d = Draft::default();
    while let Some(word) = w.next() {
        match word {
            "src" => d.said.src = Some(w.addr()?),
            "via" => {
                if d.first.via.is_some() {
                    return Err(w.invalid(
                        "use nexthop syntax to specify multiple via",
                        "say \"nexthop via A nexthop via B\" for several gateways",
                    ));
                }
                d.first.via = Some(parse_via(w)?);
            }
            "dev" | "oif" => d.first.dev = Some(w.dev()?),
            "nexthop-vrf" => d.first.dev = Some(w.dev()?),
            "vrf" => d.said.vrf = Some(w.dev()?),
            "from" => match w.arg()? {
                "all" | "any" | "default" => {}
                _ => d.said.from = Some(w.current_prefix(w.family)?).filter(|n| n.prefix_len() > 0),
            },
            "onlink" => d.first.onlink = true,
            "mtu" => {
                let first = w.arg()?;
                if first == "lock" {
                    w.arg()?;
                }
                d.said.mtu = Some(w.current_number("mtu", 68..=65535)? as u32);
            }
            "advmss" => {
                let first = w.arg()?;
                if first == "lock" {
                    w.arg()?;
                }
                d.said.advmss = Some(w.current_number("advmss", 536..=65_535)? as u16);
            }
            "scope" => {
                let name = w.arg()?;
                names::scope_from_name(name)
                    .ok_or_else(|| w.invalid("invalid \"scope\" value", "say global, link, host or a number"))?;
            }
            "nexthop" => parse_nexthops(w, &mut d.multi)?,
            "nhid" => d.said.nhid = Some(w.number("id", 1..=u64::from(u32::MAX))? as u32),
            "forwarder" => d.said.forwarder = Some(w.arg()?.to_owned()),
            "pref" => {
                let name = w.arg()?;
                if !["low", "medium", "high"].contains(&name) {
                    return Err(w.invalid("\"pref\" value is invalid", "say low, medium or high"));
                }
            }
            _ if w.matches(&["metric", "priority", "preference"]) => {
                d.said.metric = Some(w.number("metric", 0..=u64::from(u32::MAX))? as u32);
            }
            _ if w.matches(&["protocol"]) => d.said.proto = Some(parse_proto(w, "\"protocol\" value is invalid")?),
            _ if w.matches(&["table"]) => d.said.table = Some(parse_table(w, "\"table\" value is invalid")?),
            _ if KERNEL_ONLY.contains(&word) => return Err(w.unsupported()),
            _ => parse_dst(w, &mut d)?,
        }
    }
    d.finish(w, op)
}

/// `[to] [TYPE] PREFIX`, the current word being one of these.
fn parse_dst(w: &mut Words<'_>, d: &mut Draft) -> Result<(), Failure> {
    if w.current() == "to" {
        w.arg()?;
    }
    if let Some(kind) = names::kind_from_name(w.current()) {
        if d.kind.is_some() {
            return Err(w.duplicate("type"));
        }
        d.kind = Some(kind);
        w.arg()?;
        if w.current() == "to" {
            w.arg()?;
        }
    } else if ["multicast", "anycast", "nat", "xresolve"].contains(&w.current()) {
        return Err(w.invalid(
            "route type is not supported",
            "duet knows unicast, local, broadcast, blackhole, unreachable, prohibit, throw",
        ));
    }
    if d.dst.is_some() {
        return Err(w.garbage("to", "this word is neither an option of a route nor its only prefix"));
    }
    d.dst = Some(match w.current() {
        "default" | "any" | "all" => Dst::Default { word: w.here() },
        _ => Dst::Net(w.current_prefix(w.family)?),
    });
    Ok(())
}

fn parse_via(w: &mut Words<'_>) -> Result<Via, Failure> {
    let family = match w.arg()? {
        "inet" => Some(Family::Inet),
        "inet6" => Some(Family::Inet6),
        "link" | "mpls" | "bridge" => return Err(w.unsupported()),
        _ => None,
    };
    if family.is_some() {
        w.arg()?;
    }
    let addr = w.current_addr(family)?;
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        return Err(w.fail_here(
            exit::REFUSED,
            "Error: Nexthop has invalid gateway.".into(),
            format!("{addr} can never be a neighbour's address"),
        ));
    }
    Ok(Via { addr, explicit: family.is_some(), word: w.here() })
}

/// Everything after the first `nexthop`: `{ via .. dev .. weight N onlink } [nexthop ...]`.
fn parse_nexthops(w: &mut Words<'_>, out: &mut Vec<HopDraft>) -> Result<(), Failure> {
    loop {
        let mut hop = HopDraft::default();
        let mut any = false;
        while let Some(word) = w.peek() {
            if word == "nexthop" {
                break;
            }
            w.next();
            any = true;
            match word {
                "via" => hop.via = Some(parse_via(w)?),
                "dev" | "nexthop-vrf" => hop.dev = Some(w.dev()?),
                "weight" => {
                    w.arg()?;
                    let n = w
                        .current_number("weight", 1..=256)
                        .map_err(|_| w.invalid("\"weight\" is invalid", "a weight is a number from 1 to 256"))?;
                    hop.weight = Some(n as u16);
                }
                "onlink" => hop.onlink = true,
                "encap" | "realms" | "as" | "pervasive" => return Err(w.unsupported()),
                _ => {
                    return Err(w.fail_here(
                        exit::SYNTAX,
                        format!("Error: \"nexthop\" or end of line is expected instead of \"{word}\""),
                        "options of the whole route, such as metric or proto, go before the first nexthop".into(),
                    ));
                }
            }
        }
        if !any {
            return Err(w.fail_here(
                exit::SYNTAX,
                "Error: unexpected end of line after \"nexthop\"".into(),
                "say via ADDRESS, dev PORT or both after \"nexthop\"".into(),
            ));
        }
        if hop.is_empty() {
            return Err(w.fail_here(
                exit::REFUSED,
                "Error: Nexthop has neither gateway nor device.".into(),
                "say via ADDRESS, dev PORT or both after \"nexthop\"".into(),
            ));
        }
        out.push(hop);
        if out.len() > 256 {
            return Err(w.fail_here(
                exit::REFUSED,
                "Error: Too many nexthops.".into(),
                "a route has at most 256".into(),
            ));
        }
        if w.next().is_none() {
            return Ok(());
        }
    }
}

pub(super) fn parse_proto(w: &mut Words<'_>, wrong: &str) -> Result<u8, Failure> {
    let name = w.arg()?;
    names::proto_from_name(name)
        .ok_or_else(|| w.invalid(wrong, "say kernel, boot, static, bgp, bird, ... or a number from 0 to 255"))
}

pub(super) fn parse_table(w: &mut Words<'_>, wrong: &str) -> Result<router_core::port::TableId, Failure> {
    let name = w.arg()?;
    names::table_from_name(name)
        .ok_or_else(|| w.invalid(wrong, "say main, local, default or a number from 1 to 4294967295"))
}

impl Draft {
    fn finish(self, w: &Words<'_>, op: RouteOp) -> Result<RouteSpec, Failure> {
        let Some(dst) = self.dst else {
            return Err(Failure::with_hint(
                exit::SYNTAX,
                "Error: a destination prefix is expected.",
                "say PREFIX via ADDRESS dev PORT, such as \"203.0.113.0/24 via inet6 2001:db8::22\"; \"duet route help\" has the rest",
            ));
        };
        let kind = self.kind.unwrap_or_default();
        let dst = match dst {
            Dst::Net(net) => net,
            Dst::Default { word } => self.default_family(w, word)?.default_prefix(),
        };
        let route = RouteSpec {
            dst,
            kind,
            table: self.said.table,
            metric: self.said.metric,
            proto: self.said.proto,
            src: self.said.src,
            from: self.said.from,
            vrf: self.said.vrf.clone(),
            mtu: self.said.mtu,
            advmss: self.said.advmss,
            hops: Vec::new(),
            nhid: self.said.nhid,
            forwarder: self.said.forwarder,
        };
        let mut drafts = self.multi;
        if !self.first.is_empty() {
            if !drafts.is_empty() {
                return Err(Failure::with_hint(
                    exit::SYNTAX,
                    "Error: \"nexthop\" does not go together with \"via\" or \"dev\" of the route.",
                    "put each gateway and device behind its own \"nexthop\"",
                )
                .at(w.place_of(&["nexthop"])));
            }
            drafts.push(self.first);
        }
        for hop in &drafts {
            check_hop(hop, &drafts, w)?;
        }
        let hops: Vec<HopSpec> = drafts.into_iter().map(HopDraft::into_spec).collect();
        check_whole(&route, &hops, op, w)?;
        Ok(RouteSpec { hops, ..route })
    }

    /// Which default route is meant. iproute2 silently takes the gateway's family even where it was spelled out because
    /// it differs from the route's; that is refused here.
    fn default_family(&self, w: &Words<'_>, word: usize) -> Result<Family, Failure> {
        if let Some(family) = w.family {
            return Ok(family);
        }
        let vias: Vec<Via> = self.multi.iter().chain([&self.first]).filter_map(|h| h.via).collect();
        let inet6 = |v: &Via| v.addr.is_ipv6();
        let ambiguous = vias
            .iter()
            .find(|v| v.explicit && inet6(v))
            .or_else(|| vias.iter().any(inet6).then(|| vias.iter().find(|v| !inet6(v))).flatten());
        if let Some(via) = ambiguous {
            return Err(Failure::with_hint(
                exit::USAGE,
                "Error: \"default\" is ambiguous with a next hop of its own family.",
                "say 0.0.0.0/0 or -4 for the IPv4 default route, ::/0 or -6 for the IPv6 one",
            )
            .at(if via.explicit { word } else { via.word }));
        }
        Ok(match vias.first().map(|v| v.addr).or(self.said.src).or(self.said.from.map(|n| n.addr())) {
            Some(addr) => Family::of(&addr),
            None => Family::Inet,
        })
    }
}

fn check_hop(hop: &HopDraft, all: &[HopDraft], w: &Words<'_>) -> Result<(), Failure> {
    let Some(via) = hop.via else {
        let plain = Failure::with_hint(
            exit::REFUSED,
            "Error: \"onlink\" needs a gateway and a device.",
            "say via ADDRESS dev PORT onlink",
        )
        .at(w.place_of(&["onlink"]));
        return if hop.onlink { Err(plain) } else { Ok(()) };
    };
    let link_local = matches!(via.addr, IpAddr::V6(a) if a.is_unicast_link_local());
    if hop.dev.is_none() && (link_local || hop.onlink) {
        let what =
            if link_local { "a link-local gateway exists on every link" } else { "\"onlink\" is about one link" };
        let also = if all.len() > 1 { "; say dev PORT behind this nexthop" } else { "; say dev PORT as well" };
        return Err(Failure::with_hint(exit::REFUSED, "Error: Egress device not specified.", format!("{what}{also}"))
            .at(via.word));
    }
    Ok(())
}

fn check_whole(route: &RouteSpec, hops: &[HopSpec], op: RouteOp, w: &Words<'_>) -> Result<(), Failure> {
    let refuse =
        |at: &[&str], line: &str, hint: &str| Err(Failure::with_hint(exit::REFUSED, line, hint).at(w.place_of(at)));
    if route.nhid.is_some() && !hops.is_empty() {
        return refuse(
            &["nhid"],
            "Error: Nexthop specification and nexthop id are mutually exclusive.",
            "say either nhid N or via and dev",
        );
    }
    let discards =
        matches!(route.kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw);
    if discards && !hops.is_empty() && op != RouteOp::Delete {
        return refuse(
            &["via", "dev", "nexthop"],
            "Error: Nexthops are not allowed for this route type.",
            "blackhole, unreachable, prohibit and throw end here; leave out via and dev",
        );
    }
    let family = route.family();
    if route.src.is_some_and(|s| Family::of(&s) != family) {
        return refuse(
            &["src"],
            "Error: Invalid source address.",
            "\"src\" is the router's own address for packets of this route, so it has the route's family",
        );
    }
    let needs = matches!(route.kind, RouteKind::Unicast) && route.nhid.is_none() && hops.is_empty();
    if needs && route.forwarder.is_none() && op != RouteOp::Delete {
        return refuse(
            &[],
            "RTNETLINK answers: No such device",
            "say where the route leads: via ADDRESS, dev PORT, nhid N, or a type such as blackhole in front",
        );
    }
    Ok(())
}

fn parse_get(w: &mut Words<'_>) -> Result<Command, Failure> {
    let mut dst: Option<IpAddr> = None;
    let mut get = RouteGet {
        dst: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        from: None,
        iif: None,
        oif: None,
        table: None,
        fibmatch: false,
        ..RouteGet::to(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    };
    while let Some(word) = w.next() {
        match word {
            "from" => get.from = Some(w.addr()?),
            "iif" => get.iif = Some(w.dev()?),
            "oif" | "dev" => get.oif = Some(w.dev()?),
            "table" => get.table = Some(parse_table(w, "table id value is invalid")?),
            "fibmatch" => get.fibmatch = true,
            "vrf" => get.vrf = Some(w.dev()?),
            "mark" => get.mark = Some(w.number("mark", 0..=u64::from(u32::MAX))? as u32),
            "tos" | "dsfield" => get.tos = Some(w.number("tos", 0..=255)? as u8),
            "ipproto" => {
                w.arg()?;
                let hint = "say tcp, udp, icmp or a number from 1 to 255";
                let proto = super::rule::ip_proto(w.current());
                get.ipproto = Some(proto.ok_or_else(|| w.invalid("invalid ipproto", hint))?);
            }
            "sport" => get.sport = Some(w.number("sport", 0..=65535)? as u16),
            "dport" => get.dport = Some(w.number("dport", 0..=65535)? as u16),
            "uid" | "notify" | "connected" | "as" => {
                return Err(w.unsupported());
            }
            _ => {
                if word == "to" {
                    w.arg()?;
                }
                let net = w.current_interface_addr(w.family)?;
                if dst.replace(net.addr()).is_some() {
                    return Err(w.garbage("to", "one destination at a time"));
                }
            }
        }
    }
    let Some(dst) = dst else {
        return Err(Failure::with_hint(
            exit::USAGE,
            "need at least a destination address",
            "say \"duet route get 192.0.2.1\"",
        ));
    };
    Ok(Command::Route(RouteCommand::Get(RouteGet { dst, ..get })))
}
