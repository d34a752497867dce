//! `[broker]`, and `[tunnel.NAME]` with `broker = "URL"`.

use super::problem::Problems;
use super::reader::{Section, Value};
use crate::tsp_url::{KINDS, LOGINS, PREFIXES, TspUrl, is_tsp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_core::addr::parse_prefix;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// The tunnel broker as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerPlan {
    /// How it calls itself: the realm of its accounts.
    pub name: String,
    /// Where HTTP is listened for.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain and key in PEM, if HTTP is spoken over TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where TSP is listened for, over TCP and UDP.
    pub tsp: Vec<SocketAddr>,
    /// The database.
    pub database: PathBuf,
    /// The server's end of the tunnels over IPv4.
    pub endpoint: Option<Ipv4Addr>,
    /// The server's end of the tunnels over IPv6.
    pub endpoint6: Option<Ipv6Addr>,
    /// Carry outer packets through this port.
    pub dev: Option<String>,
    /// The UDP port of tunnels in UDP, if there are any: TSP's, so that clients behind a NAT need one binding only.
    pub udp_port: Option<u16>,
    /// Carry tunnels in UDP through this port instead.
    pub udp_dev: Option<String>,
    /// 6in4 tunnels are heard, and answered, in UDP, too: the path decides.
    pub encap_auto: bool,
    /// How often the clients of tunnels in UDP are asked whether they are there.
    pub udp_keepalive: Duration,
    /// /64s of the tunnels themselves.
    pub links: Ipv6Net,
    /// /30s of tunnels with IPv4 inside, if there are any.
    pub links4: Option<Ipv4Net>,
    /// Pools of /48s.
    pub prefixes: Vec<PoolPlan>,
    /// Pools of /64s.
    pub subnets: Vec<PoolPlan>,
    /// Name servers to tell clients of.
    pub dns: Vec<IpAddr>,
    /// How long an unused tunnel of an account is kept.
    pub lease: Duration,
    /// How long an unused tunnel of nobody is kept.
    pub anonymous_lease: Duration,
    /// Whether TSP clients get tunnels without an account.
    pub anonymous: bool,
    /// Whether to keep what DIGEST-MD5 needs.
    pub digest_md5: bool,
    /// Whether an endpoint may be a private address.
    pub private_endpoints: bool,
    /// Tunnels of one account.
    pub max_tunnels_per_account: u32,
    /// Tunnels in all.
    pub max_tunnels: u32,
    /// Accounts in all.
    pub max_accounts: u32,
    /// How long the old endpoint is still heard after a change.
    pub overlap: Duration,
}

/// A pool of prefixes of one length.
pub type PoolPlan = IpNet;

/// A tunnel that a broker elsewhere gives.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinPlan {
    /// The broker.
    pub url: String,
    /// The account there; empty: none.
    pub user: String,
    /// File with the password.
    pub key_file: Option<PathBuf>,
    /// Length of the prefix to ask for.
    pub prefix: Option<u8>,
    /// Carry the outer packets through this port.
    pub dev: Option<String>,
    /// Port that gets the first /64.
    pub lan: Option<String>,
    /// Install no default route.
    pub no_default: bool,
    /// The outer address to use.
    pub local: Option<IpAddr>,
    /// By TSP: the kind of tunnel to ask for.
    pub mode: Option<String>,
    /// By TSP: the only login to use.
    pub auth: Option<String>,
    /// By TSP: where the tunnel may end beside the broker itself.
    pub server: Option<IpAddr>,
}

/// `[broker]`; None, with problems noted, if it makes no sense.
pub(super) fn broker(value: &Value<'_>, problems: &mut Problems<'_>) -> Option<BrokerPlan> {
    let mut s = Section::of("broker", value, problems)?;
    let mut sockets = |s: &mut Section<'_, '_>, key: &'static str, example: &str, default: &[&str]| {
        let given = s.texts(key, example, problems);
        let mut out: Vec<SocketAddr> = Vec::new();
        for (text, span) in given {
            match text.parse() {
                Ok(a) => out.push(a),
                Err(_) => problems.add(
                    span,
                    format!("{key} in [broker]: \"{text}\" is not an address and port"),
                    format!("write {key} = {example}"),
                ),
            }
        }
        if s.value(key).is_none() {
            out.extend(default.iter().filter_map(|d| d.parse::<SocketAddr>().ok()));
        }
        out
    };
    let listen = sockets(&mut s, "listen", "[\"127.0.0.1:8080\"]", &["127.0.0.1:8080"]);
    let tsp = sockets(&mut s, "tsp", "[\"0.0.0.0:3653\"]", &[]);
    let name = s.text("name", "\"broker.example.net\"", problems).unwrap_or_else(|| "duet".into());
    let database = s.text("database", "\"/var/lib/duet/broker.redb\"", problems);
    let certificate = s.text("tls_certificate", "\"/etc/duet/cert.pem\"", problems);
    let key = s.text("tls_key", "\"/etc/duet/key.pem\"", problems);
    let tls = match (certificate, key) {
        (Some(c), Some(k)) => Some((c.into(), k.into())),
        (None, None) => None,
        _ => {
            let message = "[broker] has only one of tls_certificate and tls_key";
            problems.add(value.span(), message, "write both, or none");
            None
        }
    };
    let mut of_family = |s: &mut Section<'_, '_>, key: &'static str, example: &str, v4: bool| {
        let (addr, span) = s.addr(key, example, problems)?;
        let bad = addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() || addr.is_ipv4() != v4;
        if bad {
            let message = format!("{key} in [broker]: {addr} cannot be the server's end of tunnels");
            problems.add(span, message, format!("write {key} = {example}"));
        }
        (!bad).then_some(addr)
    };
    let endpoint = match of_family(&mut s, "endpoint", "\"203.0.113.1\"", true) {
        Some(IpAddr::V4(a)) => Some(a),
        _ => None,
    };
    let endpoint6 = match of_family(&mut s, "endpoint6", "\"2001:db8::1\"", false) {
        Some(IpAddr::V6(a)) => Some(a),
        _ => None,
    };
    let mut pools = |s: &mut Section<'_, '_>, key: &'static str, example: &str, length: u8| {
        let mut out: Vec<IpNet> = Vec::new();
        for (text, span) in s.texts(key, example, problems) {
            match parse_prefix(&text) {
                Ok(net @ IpNet::V6(_)) if net.prefix_len() <= length && length - net.prefix_len() <= 32 => {
                    match out.iter().find(|o| o.contains(&net) || net.contains(*o)) {
                        Some(other) => {
                            problems.add(span, format!("{key} in [broker]: {net} overlaps {other}"), "leave out one");
                        }
                        None => out.push(net),
                    }
                }
                Ok(net) => problems.add(
                    span,
                    format!("{key} in [broker]: {net} is no pool of IPv6 prefixes of length {length}"),
                    format!("write an IPv6 prefix of length {} to {length}", length.saturating_sub(32)),
                ),
                Err(e) => {
                    problems.add(span, format!("{key} in [broker]: {e}"), format!("write {key} = {example}"));
                }
            }
        }
        out
    };
    let links = pools(&mut s, "links", "\"2001:db8:f::/48\"", 64);
    let prefixes = pools(&mut s, "prefixes", "[\"2001:db8:4000::/36\"]", 48);
    let subnets = pools(&mut s, "subnets", "[\"2001:db8:e::/48\"]", 64);
    let links4 =
        s.parsed("links4", "a pool of IPv4 addresses", "\"10.64.0.0/16\"", problems, |t| match parse_prefix(t) {
            Ok(IpNet::V4(net)) if net.prefix_len() <= 30 && net.trunc() == net => Ok(net),
            Ok(net) => Err(format!("{net} is no pool of IPv4 /30s")),
            Err(e) => Err(e.to_string()),
        });
    let links4 = links4.map(|(net, _)| net);
    if links4.is_some() != endpoint6.is_some() && (links4.is_some() || endpoint.is_none()) {
        let message = "[broker] has only one of endpoint6 and links4";
        problems.add(value.span(), message, "write both: tunnels over IPv6 have IPv4 inside, and need addresses of it");
    }
    let mut dns = Vec::new();
    for (text, span) in s.texts("dns", "[\"2001:db8::53\"]", problems) {
        match router_core::addr::parse_addr(&text) {
            Ok(a) => dns.push(a),
            Err(e) => problems.add(span, format!("dns in [broker]: {e}"), "write dns = [\"2001:db8::53\"]"),
        }
    }
    let dev = s.text("dev", "\"wan0\"", problems);
    let udp_port = s.number("udp_port", 1..=65_535, problems).map(|n| n as u16);
    let udp_dev = s.text("udp_dev", "\"out\"", problems);
    let udp_keepalive = s.duration("udp_keepalive", problems).unwrap_or(Duration::from_secs(20));
    if udp_port.is_some() && endpoint.is_none() {
        let message = "[broker] has a udp_port, but no endpoint";
        problems.add(value.span(), message, "write endpoint = \"203.0.113.1\": tunnels in UDP are over IPv4");
    }
    let encap_auto = s.boolean("encap_auto", problems).unwrap_or(false);
    if (udp_dev.is_some() || encap_auto) && udp_port.is_none() {
        let message = "[broker] has udp_dev or encap_auto, but no udp_port";
        problems.add(value.span(), message, "write udp_port = 3653: TSP's");
    }
    if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&udp_keepalive) {
        let message = "udp_keepalive in [broker] is no time from 0.1 to 3600 seconds";
        problems.add(value.span(), message, "write udp_keepalive = \"20s\": less than a NAT keeps a binding");
    }
    let hours = |h: u64| Duration::from_secs(h * 3600);
    let lease = s.duration("lease", problems).unwrap_or(hours(24 * 90));
    let anonymous_lease = s.duration("anonymous_lease", problems).unwrap_or(hours(24));
    let overlap = s.duration("overlap", problems).unwrap_or(Duration::from_secs(10));
    let anonymous = s.boolean("anonymous", problems).unwrap_or(false);
    let digest_md5 = s.boolean("digest_md5", problems).unwrap_or(false);
    let private_endpoints = s.boolean("private_endpoints", problems).unwrap_or(false);
    let per_account = s.number("max_tunnels_per_account", 0..=100_000, problems).unwrap_or(5);
    let max_tunnels = s.number("max_tunnels", 0..=1_000_000, problems).unwrap_or(10_000);
    let max_accounts = s.number("max_accounts", 0..=1_000_000, problems).unwrap_or(10_000);
    s.finish(problems);
    if endpoint.is_none() && endpoint6.is_none() {
        problems.add(
            value.span(),
            "[broker] has no endpoint",
            "write endpoint = \"203.0.113.1\": the tunnels' own end",
        );
        return None;
    }
    let all: Vec<&IpNet> = links.iter().chain(&prefixes).chain(&subnets).collect();
    for (i, a) in all.iter().enumerate() {
        if let Some(b) = all[..i].iter().find(|b| b.contains(*a) || a.contains(**b)) {
            problems.add(value.span(), format!("[broker]: pools {a} and {b} overlap"), "give each pool its own prefix");
            return None;
        }
    }
    let Some(IpNet::V6(links)) = links.first().copied() else {
        problems.add(
            value.span(),
            "[broker] has no links",
            "write links = \"2001:db8:f::/48\": one /64 for each tunnel",
        );
        return None;
    };
    Some(BrokerPlan {
        name,
        listen,
        tls,
        tsp,
        database: database.map_or_else(|| "/var/lib/duet/broker.redb".into(), Into::into),
        endpoint,
        endpoint6,
        dev,
        udp_port,
        udp_dev,
        encap_auto,
        udp_keepalive,
        links,
        links4,
        prefixes,
        subnets,
        dns,
        lease,
        anonymous_lease,
        anonymous,
        digest_md5,
        private_endpoints,
        max_tunnels_per_account: per_account as u32,
        max_tunnels: max_tunnels as u32,
        max_accounts: max_accounts as u32,
        overlap,
    })
}

/// `[tunnel.NAME]` with `broker`.
pub(super) fn join(
    name: &str,
    span: Range<usize>,
    mut s: Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<JoinPlan> {
    let url = s.parsed("broker", "the address of a broker", "\"https://broker.example.net\"", problems, |t| {
        match (t.starts_with("http://") || t.starts_with("https://"), is_tsp(t)) {
            (true, _) => Ok((t.to_owned(), None)),
            (_, true) => TspUrl::parse(t).map(|u| (t.to_owned(), Some(u))).map_err(|e| e.to_string()),
            _ => Err(format!("\"{t}\" does not begin with http://, https:// or tsp://")),
        }
    });
    let tsp = url.as_ref().and_then(|((_, tsp), _)| tsp.clone());
    let said = s.value("user").is_some();
    let user = s.text("user", "\"alice\"", problems).or_else(|| tsp.as_ref()?.user.clone());
    let key_file = s.text("key_file", "\"/etc/duet/alice.key\"", problems);
    let nobody = tsp.is_some() && user.is_none() && s.value("key_file").is_none();
    for (key, there) in
        [("user", user.is_some() || said), ("key_file", key_file.is_some() || s.value("key_file").is_some())]
    {
        if !there && !nobody && url.is_some() {
            let why = match tsp.is_some() {
                true => "an account has a password; a tunnel of nobody has neither user nor key_file",
                false => "a broker gives tunnels to accounts only",
            };
            problems.add(span.clone(), format!("[tunnel.{name}] has no {key}"), why);
        }
    }
    let mut word = |s: &mut Section<'_, '_>, key: &'static str, list: &[&str]| {
        let example = format!("\"{}\"", list.first().copied().unwrap_or_default());
        let value = s.text(key, &example, problems)?;
        let good = list.contains(&value.as_str()) && tsp.is_some();
        if !good {
            let message = format!("{key} in [tunnel.{name}]: \"{value}\" is nothing to ask this broker for");
            let hint = format!("with broker = \"tsp://...\" it is one of {}", list.join(", "));
            problems.add(s.value(key).map_or(span.clone(), |v| v.span()), message, hint);
        }
        good.then_some(value)
    };
    let mode = word(&mut s, "mode", &KINDS.map(|(name, _)| name));
    let auth = word(&mut s, "auth", &LOGINS);
    let server = s.addr("server", "\"203.0.113.1\"", problems).map(|(a, _)| a);
    let prefix = match s.number("prefix", 0..=64, problems).map(|n| n as u8) {
        None if nobody => None,
        None => Some(48),
        Some(0) => None,
        Some(n @ (48 | 64)) => Some(n),
        Some(n) if tsp.is_some() && PREFIXES.contains(&n) => Some(n),
        Some(n) => {
            let message = format!("prefix in [tunnel.{name}]: brokers give no /{n}");
            problems.add(span, message, "write 48 or 64, or 0 for none");
            None
        }
    };
    let dev = s.text("dev", "\"wan0\"", problems);
    let lan = s.text("lan", "\"lan0\"", problems);
    let default = s.boolean("default_route", problems).unwrap_or(true);
    let local = s.addr("local", "\"198.51.100.7\"", problems).map(|(a, _)| a);
    s.finish(problems);
    Some(JoinPlan {
        url: url?.0.0,
        user: user.or(nobody.then(String::new))?,
        key_file: key_file.map(Into::into),
        prefix,
        dev,
        lan,
        no_default: !default,
        local,
        mode,
        auth,
        server,
    })
}
