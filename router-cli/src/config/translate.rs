//! `[translate.NAME]`: translators between IPv4 and IPv6.

use super::parse::{Places, named};
use super::plan::Plan;
use super::problem::Problems;
use super::reader::{Section, Value};
use router_core::addr::parse_addr;
use router_core::translate::{Filtering, Prefix, TranslateMode, TranslatorSpec, UdpZero};
use std::fmt::Display;
use std::str::FromStr;

/// Reads all of them. What only makes sense together with other sections is checked later.
pub(super) fn translators(value: &Value<'_>, plan: &mut Plan, places: &mut Places, problems: &mut Problems<'_>) {
    for (name, span, mut s) in named("translate", value, problems) {
        places.translators.push((name.to_owned(), span.clone()));
        plan.order.push(name.to_owned());
        let mode = s.parsed("mode", "a mode", "\"nat64\"", problems, |t| match t {
            "siit" => Ok(TranslateMode::Siit),
            "clat" => Ok(TranslateMode::Clat),
            "nat64" => Ok(TranslateMode::Nat64),
            _ => Err(format!("unknown mode \"{t}\", known are siit, clat, nat64")),
        });
        if s.value("mode").is_none() {
            problems.add(
                span.clone(),
                format!("[translate.{name}] has no mode"),
                "write mode = \"nat64\" (or siit, clat)",
            );
        }
        let mut t = TranslatorSpec::new(name, mode.map_or(TranslateMode::Siit, |(m, _)| m));
        let own = |text: &str| text.parse().map_err(|e: <Prefix as FromStr>::Err| e.to_string());
        let auto = s.value("prefix").filter(|v| v.get_ref().as_str() == Some("auto")).map(|v| v.span());
        match auto {
            Some(_) if t.mode == TranslateMode::Clat => plan.discover.push(name.to_owned()),
            Some(span) => problems.add(
                span,
                format!("prefix in [translate.{name}]: \"auto\" asks for another one's NAT64, which only a clat needs"),
                "write the prefix itself",
            ),
            None => t.prefix = s.parsed("prefix", "a prefix", "\"64:ff9b::/96\"", problems, own).map(|(p, _)| p),
        }
        t.map = list(&mut s, "map", "[\"192.0.2.0/28 = 2001:db8:aa::/124\"]", problems);
        t.pool = list(&mut s, "pool", "[\"198.51.100.1-198.51.100.9 ports 1024-65535\"]", problems);
        for (text, span) in s.texts("error_source", "[\"192.0.2.1\"]", problems) {
            match parse_addr(&text) {
                Ok(a) => t.error_source.push(a),
                Err(e) => problems.add(span, format!("error_source in [translate.{name}]: {e}"), ""),
            }
        }
        t.table = s.table("table", problems).unwrap_or(t.table);
        t.ipv6_mtu = s.number("ipv6_mtu", 1280..=65_535, problems).map_or(t.ipv6_mtu, |n| n as u32);
        t.allow_non_global = s.boolean("allow_non_global", problems).unwrap_or(false);
        t.ignore_tos = s.boolean("ignore_tos", problems).unwrap_or(false);
        t.udp_zero_checksum = s
            .parsed("udp_zero_checksum", "\"compute\" or \"drop\"", "\"compute\"", problems, |t| match t {
                "compute" => Ok(UdpZero::Compute),
                "drop" => Ok(UdpZero::Drop),
                _ => Err(format!("\"{t}\" is neither \"compute\" nor \"drop\"")),
            })
            .map_or(t.udp_zero_checksum, |(v, _)| v);
        t.filtering = s
            .parsed("filtering", "a way of filtering", "\"endpoint-independent\"", problems, |t| match t {
                "endpoint-independent" => Ok(Filtering::EndpointIndependent),
                "address-dependent" => Ok(Filtering::AddressDependent),
                _ => Err(format!("\"{t}\" is neither \"endpoint-independent\" nor \"address-dependent\"")),
            })
            .map_or(t.filtering, |(v, _)| v);
        let most = u64::from(router_core::translate::MAX_SESSIONS);
        t.max_sessions = s.number("max_sessions", 1..=most, problems).map_or(t.max_sessions, |n| n as u32);
        let per_host = s.number("max_sessions_per_host", 1..=most, problems);
        t.max_sessions_per_host = per_host.map_or(t.max_sessions_per_host, |n| n as u32);
        for (key, field) in [
            ("udp_timeout", &mut t.timeouts.udp),
            ("tcp_established_timeout", &mut t.timeouts.tcp_established),
            ("tcp_transitory_timeout", &mut t.timeouts.tcp_transitory),
            ("tcp_incoming_syn_timeout", &mut t.timeouts.tcp_incoming_syn),
            ("icmp_timeout", &mut t.timeouts.icmp),
        ] {
            let seconds = s.duration(key, problems).map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
            *field = seconds.unwrap_or(*field);
        }
        let known = mode_known(&mut s);
        s.finish(problems);
        if known {
            plan.translators.insert(name.to_owned(), t);
        }
    }
}

/// Whether a mode was read: without one nothing else can be judged.
fn mode_known(s: &mut Section<'_, '_>) -> bool {
    s.value("mode").and_then(|v| v.get_ref().as_str()).is_some_and(|t| matches!(t, "siit" | "clat" | "nat64"))
}

/// A list of texts that all mean something.
fn list<T: FromStr<Err: Display>>(
    s: &mut Section<'_, '_>,
    key: &'static str,
    example: &str,
    problems: &mut Problems<'_>,
) -> Vec<T> {
    let mut out = Vec::new();
    for (text, span) in s.texts(key, example, problems) {
        match text.parse::<T>() {
            Ok(v) => out.push(v),
            Err(e) => problems.add(span, format!("{key} in [{}]: {e}", s.name), format!("write {key} = {example}")),
        }
    }
    out
}

/// What a translator must fulfil by itself, and the names of `mapped_ports`.
pub(super) fn check(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    let place = |name: &str| places.translators.iter().find(|(n, _)| n == name).map_or(0..0, |(_, span)| span.clone());
    let closed = !plan.settings.mapped_ports.is_empty();
    for (name, t) in &plan.translators {
        // What is to be asked for is checked as if it were there.
        let mut t = t.clone();
        if plan.discover.contains(name) {
            t.prefix = Some(Prefix::WELL_KNOWN);
        }
        if let Err(e) = t.check(closed) {
            problems.add(place(name), format!("[translate.{name}]: {e}"), remedy(&e));
        }
        if plan.ports.contains_key(name) || plan.tunnels.contains_key(name) || name == "lo" {
            problems.add(place(name), format!("\"{name}\" is a port or tunnel, too"), "rename one of them");
        }
    }
}

fn remedy(e: &router_core::translate::TranslatorError) -> &'static str {
    use router_core::translate::TranslatorError as E;
    match e {
        E::Mapped => "use 64:ff9b::/96 or a prefix of your own; in a closed network, write mapped_ports in [router]",
        _ => "docs/translation.md has examples",
    }
}
