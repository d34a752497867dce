//! From TOML to a [`Plan`], section by section.

use super::check;
use super::lines::parse_line;
use super::plan::{LinkLocal, Plan, PortPlan, RouterPlan};
use super::problem::{Problem, Problems, nearest};
use super::reader::{Section, Value, texts, whole};
use crate::control::Access;
use crate::grammar::{parse_neigh_line, parse_nexthop_line, parse_route_line, table_from_name, table_name, value};
use ipnet::{IpNet, Ipv6Net};
use router_core::addr::{parse_addr, parse_prefix};
use router_core::port::PortKind;
use router_core::settings::{
    AdvertSettings, IcmpSettings, NeighborSettings, NodeIdentity, OnConflict, Preference, PrefixSettings, Proxy,
};
use router_core::spec::proto;
use router_io::port::xdp::{XdpMode, XdpOptions};
use std::net::IpAddr;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

const SECTIONS: &[&str] = &[
    "router",
    "port",
    "tunnel",
    "vrf",
    "rules",
    "translate",
    "broker",
    "filter",
    "routes",
    "neigh",
    "nexthop",
    "icmp",
    "ipv4_options",
    "neighbor",
    "offload",
];

/// Where things of a plan stand in the file, for the checks across sections.
#[derive(Default)]
pub(super) struct Places {
    pub ports: Vec<(String, Range<usize>)>,
    pub tunnels: Vec<(String, Range<usize>)>,
    pub translators: Vec<(String, Range<usize>)>,
    /// Filters that ports name.
    pub filters: Vec<(String, Range<usize>)>,
    pub routes: Vec<Range<usize>>,
    /// Keys of `[routes]` that are no table's number or own name.
    pub vrf_routes: Vec<(String, Range<usize>)>,
    pub vrfs: Vec<(String, Range<usize>)>,
    /// VRF and port.
    pub members: Vec<(String, String, Range<usize>)>,
    pub neighs: Vec<Range<usize>>,
    pub nexthops: Vec<(u32, Range<usize>)>,
}

pub(super) fn parse(text: &str) -> Result<Plan, Vec<Problem>> {
    let mut problems = Problems::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        let message = e.message().lines().collect::<Vec<_>>().join(", ");
        problems.add(e.span().unwrap_or(0..0), message, "");
    }
    // What comes after a broken line would be a guess.
    if !errors.is_empty() {
        return Err(problems.into_sorted());
    }
    let mut plan = Plan::default();
    let mut places = Places::default();
    for (key, value) in document.get_ref().iter() {
        let name = key.get_ref().as_ref();
        match name {
            "router" => router(value, &mut plan, &mut problems),
            "port" => ports(value, &mut plan, &mut places, &mut problems),
            "tunnel" => super::tunnel::tunnels(value, &mut plan, &mut places, &mut problems),
            "translate" => super::translate::translators(value, &mut plan, &mut places, &mut problems),
            "broker" => plan.broker = super::broker::broker(value, &mut problems),
            "filter" => super::filter::filters(value, &mut plan, &mut problems),
            "vrf" => super::vrf::vrfs(value, &mut plan, &mut places, &mut problems),
            "rules" => super::vrf::rules(value, &mut plan, &mut problems),
            "routes" => routes(value, &mut plan, &mut places, &mut problems),
            "neigh" => neighs(value, &mut plan, &mut places, &mut problems),
            "nexthop" => nexthops(value, &mut plan, &mut places, &mut problems),
            "icmp" => icmp(value, &mut plan.settings.icmp, &mut problems),
            "ipv4_options" => super::ipv4_options::options(value, &mut plan.settings.ipv4_options, &mut problems),
            "offload" => offload(value, &mut plan, &mut problems),
            "neighbor" => neighbor(value, &mut plan.settings.neighbor, &mut problems),
            _ => {
                let remedy = match nearest(name, SECTIONS.iter().copied()) {
                    Some(meant) => format!("did you mean [{meant}]?"),
                    None => format!("known sections are {}", SECTIONS.join(", ")),
                };
                problems.add(key.span(), format!("unknown section [{name}]"), remedy);
            }
        }
    }
    super::vrf::resolve(&mut plan, &places, &mut problems);
    check::check(&plan, &places, &mut problems);
    let problems = problems.into_sorted();
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn router(value: &Value<'_>, plan: &mut Plan, problems: &mut Problems<'_>) {
    let Some(mut s) = Section::of("router", value, problems) else { return };
    let mut r = RouterPlan::default();
    let name = s.parsed("name", "a text", "\"diamond\"", problems, |t| {
        let clean = t.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let good = !t.is_empty() && t.len() <= 64 && clean && !t.starts_with(['.', '-']);
        let why = || format!("\"{t}\" cannot be a name: up to 64 letters, digits, \".\", \"_\" and \"-\"");
        if good { Ok(t.to_owned()) } else { Err(why()) }
    });
    if let Some((name, _)) = name {
        r.name = name;
    }
    if let Some((addr, span)) = s.addr("router_id", "\"192.0.2.1\"", problems) {
        match addr {
            IpAddr::V4(a) if !a.is_unspecified() && !a.is_multicast() && !a.is_loopback() => {
                plan.settings.router_id = Some(a);
            }
            _ => problems.add(
                span,
                format!("router_id in [router]: {addr} cannot be the source of ICMP errors"),
                "write an IPv4 address, or leave it out",
            ),
        }
    }
    r.workers = s.number("workers", 1..=256, problems).map_or(r.workers, |n| Some(n as usize));
    r.socket = s.text("socket", "\"/run/duet/NAME.sock\"", problems).map(Into::into);
    let nesting = s.number("max_tunnel_nesting", 1..=16, problems);
    plan.settings.max_tunnel_nesting = nesting.map_or(plan.settings.max_tunnel_nesting, |n| n as u8);
    let mapped = s.texts("mapped_ports", "[\"lan0\"]", problems);
    plan.settings.mapped_ports = mapped.into_iter().map(|(name, _)| name).collect();
    r.access = access(&mut s, problems);
    let martians = &mut plan.settings.martians;
    martians.allow_net_zero = s.boolean("allow_net_zero", problems).unwrap_or(martians.allow_net_zero);
    martians.allow_class_e = s.boolean("allow_class_e", problems).unwrap_or(martians.allow_class_e);
    s.finish(problems);
    plan.router = r;
}

fn offload(value: &Value<'_>, plan: &mut Plan, problems: &mut Problems<'_>) {
    let Some(mut s) = Section::of("offload", value, problems) else { return };
    let flows = s.boolean("flows", problems).unwrap_or(false);
    let most = s.number("max", 1..=u64::from(router_io::offload::MOST_FLOWS), problems);
    plan.offload = flows.then(|| most.map_or(router_io::offload::DEFAULT_FLOWS, |n| n as u32));
    s.finish(problems);
}

fn access(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Access {
    let mut access = Access::default();
    let owner = s.parsed("owner", "a user, or a user and a group", "\"root:netops\"", problems, |t| {
        let (user, group) = t.split_once(':').map_or((t, None), |(u, g)| (u, Some(g)));
        let uid = if user.is_empty() {
            None
        } else {
            Some(id_of("/etc/passwd", user).ok_or(format!("no user \"{user}\" here"))?)
        };
        let gid = match group {
            Some(g) => Some(id_of("/etc/group", g).ok_or(format!("no group \"{g}\" here"))?),
            None => None,
        };
        Ok((uid, gid))
    });
    if let Some(((uid, gid), _)) = owner {
        (access.uid, access.gid) = (uid, gid);
    }
    if let Some(value) = s.value("mode") {
        let mode = match value.get_ref() {
            DeValue::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            DeValue::Integer(i) if i.radix() == 8 => u32::from_str_radix(i.as_str(), 8).ok(),
            _ => None,
        };
        match mode.filter(|m| *m <= 0o777) {
            Some(m) => access.mode = m,
            None => problems.add(value.span(), "mode in [router] is not an octal file mode", "write mode = \"0660\""),
        }
    }
    access
}

/// A user's or group's number, by name or number.
fn id_of(file: &str, name: &str) -> Option<u32> {
    if let Ok(n) = name.parse() {
        return Some(n);
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| {
        let mut fields = l.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn icmp(value: &Value<'_>, i: &mut IcmpSettings, problems: &mut Problems<'_>) {
    let Some(mut s) = Section::of("icmp", value, problems) else { return };
    let most = u64::from(u32::MAX);
    for (key, field) in [
        ("error_rate", &mut i.error_rate),
        ("error_burst", &mut i.error_burst),
        ("peer_rate", &mut i.peer_rate),
        ("peer_burst", &mut i.peer_burst),
        ("echo_rate", &mut i.echo_rate),
        ("echo_burst", &mut i.echo_burst),
    ] {
        *field = s.number(key, 0..=most, problems).map_or(*field, |n| n as u32);
    }
    i.ttl = s.number("ttl", 1..=255, problems).map_or(i.ttl, |n| n as u8);
    if let Some((addr, span)) = s.addr("dummy_source", "\"192.0.0.8\"", problems) {
        match addr {
            IpAddr::V4(_) => i.dummy_source = addr,
            IpAddr::V6(_) => problems.add(
                span,
                format!("dummy_source in [icmp]: {addr} is not an IPv4 address"),
                "it is the source of ICMPv4 errors; 192.0.0.8 by RFC 7600",
            ),
        }
    }
    i.redirects = s.boolean("redirects", problems).unwrap_or(i.redirects);
    i.interface_info = s.boolean("interface_info", problems).unwrap_or(i.interface_info);
    for (text, span) in s.texts("info_to", "[\"192.0.2.0/24\", \"2001:db8::/32\"]", problems) {
        match parse_prefix(&text) {
            Ok(net) => i.info_to.push(net),
            Err(e) => problems.add(span, format!("info_to in [icmp]: {e}"), "write prefixes whose hosts are told"),
        }
    }
    let name = s.text("node_name", "\"diamond\"", problems);
    let addr = s.addr("node_address", "\"2001:db8::1\"", problems).map(|(a, _)| a);
    if name.is_some() || addr.is_some() {
        i.node = Some(NodeIdentity { name: name.unwrap_or_default(), addr });
    }
    s.finish(problems);
}

fn neighbor(value: &Value<'_>, n: &mut NeighborSettings, problems: &mut Problems<'_>) {
    let Some(mut s) = Section::of("neighbor", value, problems) else { return };
    for (key, field) in [
        ("reachable_time", &mut n.reachable_time),
        ("retrans_timer", &mut n.retrans_timer),
        ("delay_first_probe", &mut n.delay_first_probe),
        ("failed_hold", &mut n.failed_hold),
        ("stale_lifetime", &mut n.stale_lifetime),
    ] {
        *field = s.duration(key, problems).unwrap_or(*field);
    }
    for (key, field) in
        [("max_multicast_solicit", &mut n.max_multicast_solicit), ("max_unicast_solicit", &mut n.max_unicast_solicit)]
    {
        *field = s.number(key, 1..=255, problems).map_or(*field, |v| v as u8);
    }
    for (key, field) in [("dad_transmits", &mut n.dad_transmits), ("announcements", &mut n.announcements)] {
        *field = s.number(key, 0..=255, problems).map_or(*field, |v| v as u8);
    }
    n.acd = s.boolean("acd", problems).unwrap_or(n.acd);
    let words = [("defend", OnConflict::Defend), ("yield", OnConflict::Yield), ("release", OnConflict::Release)];
    let chosen = s.parsed("acd_conflict", "\"defend\", \"yield\" or \"release\"", "\"defend\"", problems, |t| {
        words.iter().find(|(w, _)| *w == t).map(|(_, c)| *c).ok_or_else(|| format!("\"{t}\" is none of those"))
    });
    n.acd_conflict = chosen.map_or(n.acd_conflict, |(c, _)| c);
    n.mld = s.boolean("mld", problems).unwrap_or(n.mld);
    for (key, field) in [
        ("max_pending", &mut n.max_pending),
        ("max_pending_total", &mut n.max_pending_total),
        ("max_entries", &mut n.max_entries),
        ("max_incomplete", &mut n.max_incomplete),
    ] {
        *field = s.number(key, 1..=10_000_000, problems).map_or(*field, |v| v as usize);
    }
    s.finish(problems);
}

/// Names of ports and tunnels share one space.
pub(super) fn named<'t, 'v>(
    what: &str,
    value: &'v Value<'t>,
    problems: &mut Problems<'_>,
) -> Vec<(&'v str, Range<usize>, Section<'t, 'v>)> {
    let Some(outer) = Section::of(what, value, problems) else { return Vec::new() };
    let mut out = Vec::new();
    for (name, span, value) in outer.entries() {
        if !value::valid_name(name) {
            let message = format!("\"{name}\" cannot be a {what}'s name");
            problems.add(span, message, "a name has 1 to 15 characters, no white space, no \"/\" or \":\"");
            continue;
        }
        if let Some(s) = Section::of(&format!("{what}.{name}"), value, problems) {
            out.push((name, span, s));
        }
    }
    out
}

const KINDS: &[(&str, PortKind)] = &[
    ("tun", PortKind::Tun),
    ("tap", PortKind::Tap),
    ("packet", PortKind::Packet),
    ("xdp", PortKind::Xdp),
    ("auto", PortKind::Auto),
    ("datalink", PortKind::Datalink),
    ("rawip", PortKind::RawIp),
    ("udp", PortKind::Udp),
    ("wireguard", PortKind::Wireguard),
    ("memory", PortKind::Memory),
    ("pcap", PortKind::Pcap),
    ("loopback", PortKind::Loopback),
];

fn ports(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    for (name, span, mut s) in named("port", value, problems) {
        places.ports.push((name.to_owned(), span.clone()));
        plan.order.push(name.to_owned());
        let kind = s.parsed("kind", "a kind of port", "\"packet\"", problems, |t| {
            KINDS.iter().find(|(n, _)| *n == t).map(|(_, k)| *k).ok_or_else(|| {
                let names: Vec<&str> = KINDS.iter().map(|(n, _)| *n).collect();
                match nearest(t, names.iter().copied()) {
                    Some(meant) => format!("unknown kind \"{t}\", did you mean \"{meant}\"?"),
                    None => format!("unknown kind \"{t}\", known are {}", names.join(", ")),
                }
            })
        });
        if kind.is_none() && s.value("kind").is_none() {
            let remedy =
                "write kind = \"packet\" (or auto, xdp, tun, tap, datalink, rawip, udp, wireguard, memory, pcap)";
            problems.add(span.clone(), format!("[port.{name}] has no kind"), remedy);
        }
        let mut p = PortPlan::new(name, kind.map_or(PortKind::Packet, |(k, _)| k));
        p.device = s
            .parsed("device", "a device's name", "\"eth1\"", problems, |t| {
                if value::valid_name(t) { Ok(t.to_owned()) } else { Err(format!("\"{t}\" cannot be a device's name")) }
            })
            .map(|(d, _)| d);
        super::filter::guard(name, p.kind, &span, &mut s, (&mut *plan, &mut *places), problems);
        p.address = s.interface_addrs("address", problems);
        p.mac = s.mac("mac", problems);
        p.mtu = s.number("mtu", 68..=65_535, problems).map(|n| n as u32);
        p.vlan = s.number("vlan", 1..=4094, problems).map(|n| n as u16);
        p.table = s.table("table", problems).unwrap_or(p.table);
        p.mark = s.number("mark", 0..=u64::from(u32::MAX), problems).map_or(0, |n| n as u32);
        p.link_local = link_local(&mut s, problems);
        p.promisc = s.boolean("promisc", problems).unwrap_or(p.promisc);
        p.up = s.boolean("up", problems).unwrap_or(p.up);
        p.share_with_kernel = s.boolean("share_with_kernel", problems).unwrap_or(p.share_with_kernel);
        p.qdisc_bypass = s.boolean("qdisc_bypass", problems).unwrap_or(p.qdisc_bypass);
        p.xdp = xdp(&mut s, problems);
        p.host_address = s.interface_addrs("host_address", problems);
        p.local = s.addr("local", "\"198.51.100.7\"", problems).map(|(a, _)| a);
        p.listen = listen(name, &mut s, problems);
        p.wireguard = super::wireguard::wireguard(p.kind, &span, &mut s, problems);
        for (text, span) in s.texts("proxy", "[\"192.0.2.128/25\", \"2001:db8:1::8000/113\"]", problems) {
            match parse_prefix(&text) {
                Ok(net) => plan.settings.neighbor.proxy.push(Proxy { port: name.to_owned(), net }),
                Err(e) => problems.add(
                    span,
                    format!("proxy in [port.{name}]: {e}"),
                    "write prefixes for whose addresses the router answers ARP and NDP here",
                ),
            }
        }
        if let Some(on) = s.boolean("acd", problems) {
            plan.settings.neighbor.acd_ports.insert(name.to_owned(), on);
        }
        if let Some(value) = s.value("advertise") {
            advertise(name, value, plan, problems);
        }
        if let Some(value) = s.value("irdp")
            && let Some(irdp) = super::irdp::irdp(name, value, problems)
        {
            plan.settings.irdp.insert(name.to_owned(), irdp);
        }
        p.input = s.text("input", "\"in.pcap\"", problems).map(Into::into);
        p.output = s.text("output", "\"out.pcap\"", problems).map(Into::into);
        s.finish(problems);
        plan.ports.insert(name.to_owned(), p);
    }
}

fn listen(name: &str, s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<u16> {
    let Some(value) = s.value("listen") else { return Vec::new() };
    let items = match value.get_ref() {
        DeValue::Array(items) => items.iter().map(|i| whole(i.get_ref())).collect(),
        other => vec![whole(other)],
    };
    let ports: Option<Vec<u16>> =
        items.into_iter().map(|n| n.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)).collect();
    match ports {
        Some(ports) if (1..=16).contains(&ports.len()) => ports,
        _ => {
            let message = format!("listen in [port.{name}] is no list of 1 to 16 UDP ports");
            problems.add(value.span(), message, "write listen = [6080]");
            Vec::new()
        }
    }
}

fn xdp(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> XdpOptions {
    let mode = s.parsed("xdp_mode", "where the XDP program runs", "\"native\"", problems, |t| match t {
        "native" | "drv" | "xdpdrv" => Ok(XdpMode::Native),
        "generic" | "skb" | "xdpgeneric" => Ok(XdpMode::Generic),
        _ => Err(format!("unknown xdp_mode \"{t}\", known are native and generic")),
    });
    XdpOptions {
        mode: mode.map_or_else(XdpMode::default, |(m, _)| m),
        zero_copy: s.boolean("zero_copy", problems),
        busy_poll: s.number("busy_poll", 0..=1_000_000, problems).map_or(0, |n| n as u32),
    }
}

/// Router advertisements of a port.
fn advertise(port: &str, value: &Value<'_>, plan: &mut Plan, problems: &mut Problems<'_>) {
    let mut a = AdvertSettings::default();
    // The short form: with the defaults of RFC 4861, or not at all.
    if let Some(wanted) = value.get_ref().as_bool() {
        if wanted {
            plan.settings.adverts.insert(port.to_owned(), a);
        }
        return;
    }
    let Some(mut s) = Section::of(&format!("port.{port}.advertise"), value, problems) else { return };
    a.max_interval = s.duration("interval", problems).unwrap_or(a.max_interval);
    a.min_interval = s.duration("min_interval", problems);
    a.lifetime = s.duration("lifetime", problems);
    let preference = s.parsed("preference", "a preference", "\"high\"", problems, |t| match t {
        "high" => Ok(Preference::High),
        "medium" => Ok(Preference::Medium),
        "low" => Ok(Preference::Low),
        _ => Err(format!("\"{t}\" is neither high, medium nor low")),
    });
    a.preference = preference.map_or(a.preference, |(p, _)| p);
    a.managed = s.boolean("managed", problems).unwrap_or(a.managed);
    a.other = s.boolean("other", problems).unwrap_or(a.other);
    a.hop_limit = s.number("hop_limit", 0..=255, problems).map_or(a.hop_limit, |n| n as u8);
    a.reachable_time = s.duration("reachable_time", problems).unwrap_or(a.reachable_time);
    a.retrans_timer = s.duration("retrans_timer", problems).unwrap_or(a.retrans_timer);
    a.mtu = s.number("mtu", 1280..=65_535, problems).map(|n| n as u32);
    a.valid = s.duration("valid", problems).unwrap_or(a.valid);
    a.preferred = s.duration("preferred", problems).unwrap_or(a.preferred.min(a.valid));
    let v6 = |text: &str| match parse_prefix(text) {
        Ok(IpNet::V6(net)) => Ok(net),
        Ok(net) => Err(format!("{net} is not an IPv6 prefix")),
        Err(e) => Err(e.to_string()),
    };
    if s.value("prefixes").is_some() {
        let mut prefixes = Vec::new();
        for (text, span) in s.texts("prefixes", "[\"2001:db8:1::/64\"]", problems) {
            match v6(&text) {
                Ok(net) => prefixes.push(net),
                Err(why) => problems.add(span, format!("prefixes in [{}]: {why}", s.name), "write IPv6 prefixes"),
            }
        }
        a.prefixes = Some(prefixes);
    }
    if let Some(value) = s.value("prefix") {
        by_prefix(&s.name, value, &mut a, v6, problems);
    }
    for (text, span) in s.texts("dns", "[\"2001:db8::53\"]", problems) {
        match parse_addr(&text) {
            Ok(IpAddr::V6(addr)) => a.dns.push(addr),
            _ => problems.add(
                span,
                format!("dns in [{}]: \"{text}\" is not an IPv6 address", s.name),
                "write addresses of name servers",
            ),
        }
    }
    a.search = s.texts("search", "[\"example.net\"]", problems).into_iter().map(|(t, _)| t).collect();
    a.pref64 = s.parsed("pref64", "a prefix", "\"64:ff9b::/96\"", problems, v6).map(|(p, _)| p);
    if let Err(e) = a.check() {
        problems.add(value.span(), format!("[{}]: {e}", s.name), "mend it, or leave it out for the default");
    }
    s.finish(problems);
    plan.settings.adverts.insert(port.to_owned(), a);
}

/// What is said of single prefixes of an advertisement: a table whose keys are the prefixes.
fn by_prefix(
    section: &str,
    value: &Value<'_>,
    a: &mut AdvertSettings,
    read: impl Fn(&str) -> Result<Ipv6Net, String>,
    problems: &mut Problems<'_>,
) {
    let Some(outer) = Section::of(&format!("{section}.prefix"), value, problems) else { return };
    for (name, span, value) in outer.entries() {
        let net = match read(name) {
            Ok(net) => net,
            Err(why) => {
                problems.add(span, format!("[{section}.prefix]: {why}"), "write an IPv6 prefix in quotes");
                continue;
            }
        };
        let Some(mut s) = Section::of(&format!("{section}.prefix.\"{name}\""), value, problems) else { continue };
        let mut p = PrefixSettings { valid: s.duration("valid", problems), ..PrefixSettings::default() };
        p.preferred = s.duration("preferred", problems);
        p.on_link = s.boolean("on_link", problems).unwrap_or(p.on_link);
        p.autonomous = s.boolean("autonomous", problems);
        s.finish(problems);
        a.by_prefix.insert(net, p);
    }
}

fn link_local(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> LinkLocal {
    let Some(value) = s.value("link_local") else { return LinkLocal::Auto };
    let read = match value.get_ref() {
        DeValue::Boolean(true) => Some(LinkLocal::Auto),
        DeValue::Boolean(false) => Some(LinkLocal::Off),
        DeValue::String(text) => match parse_addr(text) {
            Ok(IpAddr::V6(a)) if a.is_unicast_link_local() => Some(LinkLocal::Address(a)),
            _ => None,
        },
        _ => None,
    };
    read.unwrap_or_else(|| {
        let message = format!("link_local in [{}] is neither true, false nor an address in fe80::/10", s.name);
        problems.add(value.span(), message, "write link_local = \"fe80::1\"");
        LinkLocal::Auto
    })
}

/// None: not said. Some(None): `"inherit"`.
pub(super) fn byte_or_inherit(
    s: &mut Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Problems<'_>,
) -> Option<Option<u8>> {
    let value = s.value(key)?;
    match value.get_ref() {
        DeValue::String(t) if t == "inherit" => Some(None),
        DeValue::String(_) => {
            let message = format!("{key} in [{}] is neither a number nor \"inherit\"", s.name);
            problems.add(value.span(), message, format!("write a number from {} to {}", range.start(), range.end()));
            None
        }
        _ => s.number(key, range, problems).and_then(|n| u8::try_from(n).ok()).map(Some),
    }
}

fn routes(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    let Some(s) = Section::of("routes", value, problems) else { return };
    for (key, span, value) in s.entries() {
        let table = table_from_name(key);
        if table.is_none() {
            places.vrf_routes.push((key.to_owned(), span));
        }
        for (text, span) in texts(key, "routes", value, "[\"203.0.113.0/24 via inet6 2001:db8::22\"]", problems) {
            let parsed = parse_line(&text, span.clone(), |_| Vec::new(), problems, |w| parse_route_line(w, None));
            let Some(mut route) = parsed else { continue };
            if route.vrf.is_some() || (route.table.is_some() && route.table != table) {
                let message = format!("a route of table {} among those of {key}", table_name(route.table_id()));
                problems.add(span, message, "leave out \"table\", or move the line");
                continue;
            }
            route.table = table;
            route.vrf = table.is_none().then(|| key.to_owned());
            route.proto.get_or_insert(proto::STATIC);
            plan.routes.push(route);
            places.routes.push(span);
        }
    }
}

fn neighs(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    let Some(s) = Section::of("neigh", value, problems) else { return };
    for (port, _, value) in s.entries() {
        let example = "[\"192.0.2.9 lladdr 02:00:00:00:00:09\"]";
        for (text, span) in texts(port, "neigh", value, example, problems) {
            let dev = |words: &[&str]| match words.contains(&"dev") {
                true => Vec::new(),
                false => vec!["dev".to_owned(), port.to_owned()],
            };
            let Some(n) = parse_line(&text, span.clone(), dev, problems, parse_neigh_line) else { continue };
            if n.dev != port {
                let message = format!("a neighbour on {} among those on {port}", n.dev);
                problems.add(span, message, "leave out \"dev\", or move the line");
                continue;
            }
            plan.neighs.push(n);
            places.neighs.push(span);
        }
    }
}

fn nexthops(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    let Some(s) = Section::of("nexthop", value, problems) else { return };
    for (key, span, value) in s.entries() {
        let id = key.parse::<u32>().ok();
        let Some(id) = id.filter(|n| *n > 0) else {
            let remedy = "number the next hops: 1 = \"via 192.0.2.9 dev lan0\"";
            problems.add(span, format!("\"{key}\" in [nexthop] is not a number from 1"), remedy);
            continue;
        };
        let DeValue::String(text) = value.get_ref() else {
            let message = format!("{key} in [nexthop] is not a text");
            problems.add(value.span(), message, format!("write {key} = \"via 192.0.2.9 dev lan0\""));
            continue;
        };
        let own = |_: &[&str]| vec!["id".to_owned(), id.to_string()];
        let Some(mut n) = parse_line(text, value.span(), own, problems, parse_nexthop_line) else { continue };
        n.id = id;
        plan.nexthops.insert(id, n);
        places.nexthops.push((id, value.span()));
    }
}
