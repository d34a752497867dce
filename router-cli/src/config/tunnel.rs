//! `[tunnel.NAME]`.

use super::parse::{Places, byte_or_inherit, named};
use super::plan::{Plan, TunnelPlan};
use super::problem::Problems;
use super::reader::{Section, Value, whole};
use ipnet::IpNet;
use router_core::addr::{Family, parse_addr, parse_prefix};
use router_core::port::PortKind;
use router_core::spec::{TunnelMode, TunnelOptions, TunnelSpec};
use router_core::tunnel::derived::Derived;
use router_core::tunnel::mode::{self, Peer};
use router_core::tunnel::spec::{AutoOptions, Keepalive, SixRdOptions, UdpKind, UdpOptions};
use router_core::tunnel::{FlowLabel, Shape};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use toml::de::DeValue;

/// The names of all modes, for messages.
pub(crate) fn mode_names() -> String {
    let names: Vec<&str> = mode::ALL.iter().map(|s| s.name).collect();
    names.join(", ")
}

/// Whether a text may be the name of a host: what is no address is asked from the resolver.
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        let inside = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !l.is_empty() && l.len() <= 63 && inside && !l.starts_with('-') && !l.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let lettered = name.bytes().any(|b| b.is_ascii_alphabetic());
    !name.is_empty() && name.len() <= 253 && lettered && name.split('.').all(label)
}

/// An end as written.
enum End {
    Addr(IpAddr),
    /// Follows a device, or is asked from the resolver.
    Found(String),
}

pub(super) fn tunnels(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    for (name, span, mut s) in named("tunnel", value, problems) {
        if s.value("broker").is_some() {
            plan.joins.extend(super::broker::join(name, span, s, problems).map(|j| (name.to_owned(), j)));
            continue;
        }
        places.tunnels.push((name.to_owned(), span.clone()));
        plan.order.push(name.to_owned());
        let mode = s.parsed("mode", "a tunnel mode", "\"6in4\"", problems, |t| {
            TunnelMode::from_word(t).ok_or_else(|| format!("unknown mode \"{t}\", known are {}", mode_names()))
        });
        if s.value("mode").is_none() {
            problems.add(span.clone(), format!("[tunnel.{name}] has no mode"), "write mode = \"6in4\"");
        }
        let shape = mode.as_ref().map(|(m, _)| m.shape());
        let v6 = shape.is_some_and(|s| s.outer == Family::Inet6);
        let (local_example, remote_example) =
            if v6 { ("\"2001:db8::7\"", "\"2001:db8:5::5\"") } else { ("\"198.51.100.7\"", "\"203.0.113.5\"") };
        let local = local_end(&mut s, local_example, problems);
        let remote = remote_end(&mut s, remote_example, problems);
        let derived = shape.is_some_and(|s| s.peer == Peer::Derived);
        for (key, example) in [("local", local_example), ("remote", remote_example)] {
            if s.value(key).is_none() && !(derived && key == "remote") {
                problems.add(span.clone(), format!("[tunnel.{name}] has no {key}"), format!("write {key} = {example}"));
            }
        }
        for (key, end) in [("local", &local), ("remote", &remote)] {
            if let (Some((End::Addr(addr), span)), Some(shape)) = (end, shape) {
                check_end(name, key, *addr, span, shape, problems);
            }
        }
        let ttl = byte_or_inherit(&mut s, "ttl", 1..=255, problems);
        let tos = byte_or_inherit(&mut s, "tos", 0..=255, problems);
        let pmtudisc = s.boolean("pmtudisc", problems).unwrap_or(true);
        let least = shape.map_or(68, |s| u64::from(s.least_mtu()));
        let mtu = s.number("mtu", least..=65_515, problems).map(|n| n as u32);
        let dev = s.text("dev", "\"wan0\"", problems);
        let underlay_table = s.table("underlay_table", problems);
        super::filter::guard(name, PortKind::Tunnel, &span, &mut s, (&mut *plan, &mut *places), problems);
        let address = s.interface_addrs("address", problems);
        let mut options = options(&mut s, shape, problems);
        s.finish(problems);
        let unknown = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let Some((mode, _)) = mode else { continue };
        let local = match local {
            Some((End::Addr(a), _)) => a,
            Some((End::Found(dev), _)) => {
                options.local_dev = Some(dev);
                unknown
            }
            None => continue,
        };
        let remote = match remote {
            Some((End::Addr(a), _)) => a,
            Some((End::Found(host), _)) => {
                options.remote_name = Some(host);
                unknown
            }
            None if derived => unknown,
            None => continue,
        };
        let spec = TunnelSpec {
            ttl: ttl.flatten(),
            ttl_inherit: ttl == Some(None),
            tos: tos.flatten(),
            nopmtudisc: !pmtudisc,
            mtu,
            dev,
            underlay_table,
            options,
            ..TunnelSpec::new(name, mode, local, remote)
        };
        if let Err(e) = router_core::router::check_tunnel_spec(&spec) {
            problems.add(span.clone(), format!("[tunnel.{name}]: {e}"), "docs/tunnels.md compares the modes");
        }
        plan.tunnels.insert(name.to_owned(), TunnelPlan { spec, address, vrf: None });
    }
}

fn local_end(s: &mut Section<'_, '_>, example: &str, problems: &mut Problems<'_>) -> Option<(End, Range<usize>)> {
    let value = s.value("local")?;
    if !value.get_ref().is_table() {
        return s.addr("local", example, problems).map(|(a, span)| (End::Addr(a), span));
    }
    let mut table = Section::of(&format!("{}.local", s.name), value, problems)?;
    let dev = table.text("dev", "\"eth0\"", problems);
    if table.value("dev").is_none() {
        let message = format!("local in [{}] follows nothing", s.name);
        problems.add(value.span(), message, "write local = { dev = \"eth0\" }: a port, or a device of the host");
    }
    table.finish(problems);
    dev.map(|d| (End::Found(d), value.span()))
}

fn remote_end(s: &mut Section<'_, '_>, example: &str, problems: &mut Problems<'_>) -> Option<(End, Range<usize>)> {
    s.parsed("remote", "an address or a name", example, problems, |t| match parse_addr(t) {
        Ok(a) => Ok(End::Addr(a)),
        Err(_) if is_host_name(t) => Ok(End::Found(t.to_owned())),
        Err(e) => Err(e.to_string()),
    })
}

fn check_end(name: &str, key: &str, addr: IpAddr, span: &Range<usize>, shape: &Shape, problems: &mut Problems<'_>) {
    let fits = Family::of(&addr) == shape.outer;
    if !fits || addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        let message = format!("{key} in [tunnel.{name}]: {addr} cannot be an end of a {} tunnel", shape.name);
        let family = if shape.outer == Family::Inet { "IPv4" } else { "IPv6" };
        problems.add(span.clone(), message, format!("write a unicast {family} address"));
    }
}

fn options(s: &mut Section<'_, '_>, shape: Option<&Shape>, problems: &mut Problems<'_>) -> TunnelOptions {
    let mut o = TunnelOptions::default();
    for (text, span) in s.texts("allowed", "[\"2001:db8:5::/48\"]", problems) {
        match parse_prefix(&text) {
            Ok(net) => o.allowed.push(net),
            Err(e) => problems.add(span, format!("allowed in [{}]: {e}", s.name), "write inner source prefixes"),
        }
    }
    o.rate = s.number("rate", 1..=u64::from(u32::MAX), problems).map(|n| n as u32);
    o.encaplimit = s.number("encaplimit", 0..=255, problems).map(|n| n as u8);
    o.flowlabel = flow_label(s, problems).unwrap_or_default();
    let number = |s: &mut Section<'_, '_>, key, problems: &mut Problems<'_>| {
        s.number(key, 0..=u64::from(u32::MAX), problems).map(|n| n as u32)
    };
    let key = number(s, "key", problems);
    o.gre.ikey = number(s, "ikey", problems).or(key);
    o.gre.okey = number(s, "okey", problems).or(key);
    let both = |s: &mut Section<'_, '_>, key, problems: &mut Problems<'_>| s.boolean(key, problems).unwrap_or(false);
    let (seq, csum) = (both(s, "seq", problems), both(s, "csum", problems));
    (o.gre.iseq, o.gre.oseq) = (seq || both(s, "iseq", problems), seq || both(s, "oseq", problems));
    (o.gre.icsum, o.gre.ocsum) = (csum || both(s, "icsum", problems), csum || both(s, "ocsum", problems));
    (o.udp, o.auto) = udp(s, problems);
    o.encap_dev = s.text("encap_dev", "\"out\"", problems);
    o.sixrd = mapping(s, shape, problems);
    o.allow_6to4 = both(s, "allow_6to4", problems);
    o.ignore_df = s.boolean("ignore_df", problems).unwrap_or(false);
    if let Some(value) = s.value("keepalive") {
        o.keepalive = keepalive(&s.name, value, problems);
    }
    if let Some(answer) = s.boolean("keepalive_answer", problems) {
        o.gre.answer = answer;
    }
    o
}

fn flow_label(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Option<FlowLabel> {
    let value = s.value("flowlabel")?;
    match value.get_ref() {
        DeValue::String(t) if t == "auto" => Some(FlowLabel::Auto),
        DeValue::String(t) if t == "inherit" => Some(FlowLabel::Inherit),
        other => match whole(other) {
            Some(n) if n <= 0xf_ffff => Some(FlowLabel::Fixed(n as u32)),
            _ => {
                let message =
                    format!("flowlabel in [{}] is neither \"auto\", \"inherit\" nor a number of 20 bits", s.name);
                problems.add(value.span(), message, "write flowlabel = \"auto\"");
                None
            }
        },
    }
}

fn udp(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> (Option<UdpOptions>, Option<AutoOptions>) {
    let auto = matches!(s.value("encap").map(|v| v.get_ref()), Some(DeValue::String(t)) if t == "auto");
    let retry = s.duration("encap_retry", problems);
    if let Some(value) = s.value("encap_retry").filter(|_| !auto) {
        let message = format!("encap_retry in [{}] is for encap = \"auto\"", s.name);
        problems.add(value.span(), message, "write encap = \"auto\", or leave it out");
    }
    let retry = retry.map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
    let options = AutoOptions::default();
    let options = AutoOptions { retry: retry.unwrap_or(options.retry) };
    (in_udp(s, problems), auto.then_some(options))
}

fn in_udp(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Option<UdpOptions> {
    let kind = s.parsed("encap", "a format", "\"gue\"", problems, |t| match t {
        "fou" | "auto" => Ok(UdpKind::Fou),
        "gue" => Ok(UdpKind::Gue),
        _ => Err(format!("unknown format \"{t}\", known are fou, gue and auto")),
    });
    let port = |s: &mut Section<'_, '_>, key, problems: &mut Problems<'_>| {
        s.number(key, 1..=65_535, problems).map(|n| n as u16)
    };
    let (dport, sport, own) =
        (port(s, "encap_dport", problems), port(s, "encap_sport", problems), port(s, "encap_port", problems));
    let learn = matches!(s.value("encap_rport").map(|v| v.get_ref()), Some(DeValue::String(t)) if t == "learn");
    let rport = if learn { None } else { port(s, "encap_rport", problems) };
    let csum = s.boolean("encap_csum", problems);
    let Some((kind, span)) = kind else {
        if dport.is_some() || sport.is_some() || own.is_some() || rport.is_some() || learn || csum.is_some() {
            let span = s.value("encap_dport").map_or(0..0, |v| v.span());
            problems.add(span, format!("[{}] has UDP ports but no encap", s.name), "write encap = \"fou\" or \"gue\"");
        }
        return None;
    };
    let Some(dport) = dport.or(learn.then_some(0)) else {
        if s.value("encap_dport").is_none() {
            problems.add(span, format!("encap in [{}] has no port", s.name), "write encap_dport = 5555: the peer's");
        }
        return None;
    };
    Some(UdpOptions {
        sport: sport.unwrap_or(0),
        port: own.unwrap_or(0),
        rport: rport.unwrap_or(0),
        learn,
        csum,
        ..UdpOptions::new(kind, dport)
    })
}

fn mapping(s: &mut Section<'_, '_>, shape: Option<&Shape>, problems: &mut Problems<'_>) -> Option<SixRdOptions> {
    let prefix = s.parsed("prefix", "a prefix", "\"2001:db8::/32\"", problems, |t| match parse_prefix(t) {
        Ok(IpNet::V6(net)) => Ok(net),
        Ok(net) => Err(format!("{net} is not an IPv6 prefix")),
        Err(e) => Err(e.to_string()),
    });
    let relay_prefix = s.parsed("relay_prefix", "a prefix", "\"10.0.0.0/8\"", problems, |t| match parse_prefix(t) {
        Ok(IpNet::V4(net)) => Ok(net),
        Ok(net) => Err(format!("{net} is not an IPv4 prefix")),
        Err(e) => Err(e.to_string()),
    });
    let br = s.parsed("br", "an address", "\"192.0.2.1\"", problems, |t| match parse_addr(t) {
        Ok(IpAddr::V4(a)) => Ok(a),
        Ok(a) => Err(format!("{a} is not an IPv4 address")),
        Err(e) => Err(e.to_string()),
    });
    let prefix = match (prefix, shape.map(|s| s.mode)) {
        (Some((p, _)), _) => p,
        (None, Some(TunnelMode::SixToFour)) => Derived::SIX_TO_FOUR,
        (None, _) => return None,
    };
    let relay_prefix = relay_prefix.map_or_else(Default::default, |(p, _)| p);
    Some(SixRdOptions { prefix, relay_prefix, br: br.map(|(a, _)| a) })
}

fn keepalive(section: &str, value: &Value<'_>, problems: &mut Problems<'_>) -> Option<Keepalive> {
    const GRE: &str = "gre";
    let by_peer = |gre: bool| Keepalive { gre, ..Keepalive::new(Ipv4Addr::UNSPECIFIED.into()) };
    // The short form, with the defaults.
    if value.get_ref().as_str() == Some(GRE) {
        return Some(by_peer(true));
    }
    let mut s = Section::of(&format!("{section}.keepalive"), value, problems)?;
    let kind = s.parsed("kind", "\"echo\" or \"gre\"", "\"gre\"", problems, |t| match t {
        "echo" => Ok(false),
        GRE => Ok(true),
        _ => Err(format!("\"{t}\" is neither \"echo\" nor \"gre\"")),
    });
    let gre = kind.is_some_and(|(gre, _)| gre);
    let probe_mtu = s.boolean("probe_mtu", problems).unwrap_or(false);
    let target = s.addr("target", "\"2001:db8:ffff::1\"", problems);
    if gre && s.value("target").is_some() {
        let message = format!("keepalive in [{section}]: the peer itself sends GRE keepalives back");
        problems.add(value.span(), message, "leave target out");
    }
    if s.value("target").is_none() && !gre {
        let message = format!("keepalive in [{section}] asks nobody");
        problems.add(value.span(), message, "write keepalive = { target = \"ADDRESS\" }: one behind the tunnel");
    }
    let interval = s.duration("interval", problems).map_or(1000, |d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX));
    let retries = s.number("retries", 1..=100, problems).map_or(3, |n| n as u8);
    let hold = s.number("hold", 1..=100, problems).map_or(3, |n| n as u8);
    s.finish(problems);
    let target = target.map(|(target, _)| target).or(gre.then_some(Ipv4Addr::UNSPECIFIED.into()));
    target.map(|target| Keepalive { target, interval, retries, hold, gre, probe_mtu })
}
