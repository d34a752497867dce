//! Tunnels, as `ip tunnel` prints them.

use super::out::{Out, Paint};
use crate::control::{JoinInfo, LinkInfo, TunnelInfo};
use crate::grammar::{Options, table_name};
use router_core::addr::Family;
use router_core::counters::PortTotals;
use router_core::router::{MtuCause, PathInfo};
use router_core::spec::TunnelSpec;
use router_core::tunnel::mode::{Between, Peer};
use router_core::tunnel::{FlowLabel, Path};
use std::io;

/// All of them, and WireGuard ports behind; with details, what is known of the brokers of some.
pub fn tunnels(
    out: &mut Out<'_>,
    list: &[TunnelInfo],
    ports: &[LinkInfo],
    joined: &[JoinInfo],
    o: &Options,
) -> io::Result<()> {
    out.begin()?;
    for info in list {
        let t = &info.tunnel;
        out.object(None)?;
        head(out, t, o)?;
        between(out, t)?;
        if let Some(path) = &info.path {
            way(out, t, path, o)?;
        }
        if o.details {
            details(out, info)?;
            if let Some(j) = joined.iter().find(|j| j.name == t.name) {
                broker(out, j)?;
            }
        }
        if o.stats > 0 {
            counters(out, &info.totals)?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    for port in ports {
        let Some(status) = &port.wireguard else { continue };
        out.object(None)?;
        super::wireguard::interface(out, port, status)?;
        if o.stats > 0 {
            counters(out, &port.totals)?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// The first line.
fn head(out: &mut Out<'_>, t: &TunnelSpec, o: &Options) -> io::Result<()> {
    let shape = t.mode.shape();
    let six = shape.outer == Family::Inet6;
    out.str("ifname", "", &t.name, ": ", Paint::Name)?;
    out.str("mode", "", shape.shown, " ", Paint::Plain)?;
    let any = t.remote.is_unspecified();
    match (&t.options.remote_name, shape.peer) {
        (Some(name), _) if any => out.str("remote", "remote ", name, " ", Paint::Plain)?,
        (_, Peer::Derived) => out.str("remote", "remote ", "any", " ", Paint::Plain)?,
        _ => out.str("remote", "remote ", t.remote, " ", Paint::addr(&t.remote))?,
    }
    match t.local.is_unspecified() {
        true => out.str("local", "local ", "any", "", Paint::Plain)?,
        false => out.str("local", "local ", t.local, "", Paint::addr(&t.local))?,
    }
    if let Some(dev) = &t.dev {
        out.str("link", " dev ", dev, "", Paint::Name)?;
    }
    if six {
        match t.options.encaplimit {
            None => out.str("encap_limit", " encaplimit ", "none", "", Paint::Plain)?,
            Some(n) => out.num("encap_limit", " encaplimit ", n, "")?,
        }
    }
    let (key, words) = if six { ("hoplimit", " hoplimit ") } else { ("ttl", " ttl ") };
    match t.ttl_inherit {
        true => out.str(key, words, "inherit", "", Paint::Plain)?,
        false => out.num(key, words, t.ttl.unwrap_or(64), "")?,
    }
    let (key, words) = if six { ("tclass", " tclass ") } else { ("tos", " tos ") };
    match t.tos {
        Some(tos) => out.str(key, words, format_args!("0x{tos:02x}"), "", Paint::Plain)?,
        None if six || o.details => out.str(key, words, "inherit", "", Paint::Plain)?,
        None => {}
    }
    if six {
        match t.options.flowlabel {
            FlowLabel::Auto => out.str("flowlabel", " flowlabel ", "auto", "", Paint::Plain)?,
            FlowLabel::Inherit => out.str("flowlabel", " flowlabel ", "inherit", "", Paint::Plain)?,
            FlowLabel::Fixed(n) => {
                out.str("flowlabel", " flowlabel ", format_args!("0x{n:05x}"), "", Paint::Plain)?;
            }
        }
    }
    if t.nopmtudisc {
        out.null("nopmtudisc", " nopmtudisc")?;
    }
    if t.options.ignore_df {
        out.truth("ignore_df", " ignore-df")?;
    }
    if let Some(m) = &t.options.sixrd {
        out.str("6rd-prefix", " 6rd-prefix ", m.prefix, "", Paint::Plain)?;
        if m.relay_prefix.prefix_len() > 0 {
            out.str("6rd-relay_prefix", " 6rd-relay_prefix ", m.relay_prefix, "", Paint::Plain)?;
        }
        if let Some(br) = m.br {
            out.str("6rd-br", " 6rd-br ", br, "", Paint::Plain)?;
        }
    }
    Ok(())
}

/// What stands between the outer header and the packet.
fn between(out: &mut Out<'_>, t: &TunnelSpec) -> io::Result<()> {
    if let Some(u) = &t.options.udp {
        let kind = if t.options.auto.is_some() { "auto" } else { u.kind.name() };
        out.str("encap", " encap ", kind, "", Paint::Plain)?;
        match u.sport {
            0 => out.str("encap-sport", " encap-sport ", "auto", "", Paint::Plain)?,
            port => out.num("encap-sport", " encap-sport ", port, "")?,
        }
        if u.dport != 0 {
            out.num("encap-dport", " encap-dport ", u.dport, "")?;
        }
        if u.port != 0 {
            out.num("encap-port", " encap-port ", u.port, "")?;
        }
        match u.rport {
            _ if u.learn => out.str("encap-rport", " encap-rport ", "learn", "", Paint::Plain)?,
            0 => {}
            port => out.num("encap-rport", " encap-rport ", port, "")?,
        }
        if let Some(dev) = &t.options.encap_dev {
            out.str("encap-dev", " encap-dev ", dev, "", Paint::Name)?;
        }
        match u.csum {
            Some(true) => out.truth("encap-csum", " encap-csum")?,
            Some(false) => out.truth("noencap-csum", " noencap-csum")?,
            None => {}
        }
    }
    if t.mode.shape().between != Between::Gre {
        return Ok(());
    }
    let g = &t.options.gre;
    match (g.ikey, g.okey) {
        (Some(i), Some(o)) if i == o => out.num("key", " key ", i, "")?,
        (ikey, okey) => {
            if let Some(key) = ikey {
                out.num("ikey", " ikey ", key, "")?;
            }
            if let Some(key) = okey {
                out.num("okey", " okey ", key, "")?;
            }
        }
    }
    for (on, key, text) in [
        (g.iseq, "iseq", "  Drop packets out of sequence."),
        (g.icsum, "icsum", "  Checksum in received packet is required."),
        (g.oseq, "oseq", "  Sequence packets on output."),
        (g.ocsum, "ocsum", "  Checksum output packets."),
        (g.answer, "keepalive_answer", "  Keepalives are sent back."),
    ] {
        if on {
            out.newline()?;
            out.truth(key, text)?;
        }
    }
    Ok(())
}

/// Which way its packets go; with details, since when and why.
fn way(out: &mut Out<'_>, t: &TunnelSpec, p: &PathInfo, o: &Options) -> io::Result<()> {
    let kind = t.options.udp.map_or("udp", |u| u.kind.name());
    if o.details {
        out.newline()?;
        out.text("   ")?;
    }
    match p.path {
        None => out.str("path", " path ", "unknown", "", Paint::Down)?,
        Some(Path::Bare) => out.str("path", " path ", t.mode.shape().name, "", Paint::Plain)?,
        Some(Path::Udp(port)) => {
            out.str("path", " path ", kind, "", Paint::Plain)?;
            out.num("path_port", " port ", port, "")?;
        }
    }
    if o.details {
        out.num("path_age", " for ", p.age.as_secs(), " s")?;
        let cause = serde_json::to_value(p.cause).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        out.json_word("path_cause", cause)?;
        out.text(format_args!(": {}", p.cause.text()))?;
        out.num("path_changes", ", changed ", p.changes, " times")?;
        if let Some(retry) = p.retry {
            out.text(format_args!(", {} again in ", t.mode.shape().name))?;
            out.num("path_retry", "", retry.as_secs(), " s")?;
        }
    }
    Ok(())
}

/// What `-d` adds: a line on its size, one on who may come out, one on its life.
fn details(out: &mut Out<'_>, info: &TunnelInfo) -> io::Result<()> {
    let t = &info.tunnel;
    let o = &t.options;
    if let Some(mtu) = t.mtu {
        out.num("mtu", " mtu ", mtu, "")?;
    }
    if let Some(table) = t.underlay_table {
        out.str("underlay_table", " underlay_table ", table_name(table), "", Paint::Plain)?;
    }
    if let Some(dev) = &o.local_dev {
        out.str("local-dev", " local-dev ", dev, "", Paint::Name)?;
    }
    if let Some(name) = o.remote_name.as_ref().filter(|_| !t.remote.is_unspecified()) {
        out.str("remote-name", " remote-name ", name, "", Paint::Plain)?;
    }
    if let Some(inner) = info.mtu {
        out.newline()?;
        out.num("inner_mtu", "    inner mtu ", inner, "")?;
        out.num("overhead", ", ", info.overhead(), " bytes added")?;
        if let Some(l) = &info.learned_mtu {
            out.num("path_mtu", ", path mtu ", l.mtu, "")?;
            match l.cause {
                MtuCause::Icmp(from) => out.str("path_mtu_from", " from ", from, "", Paint::addr(&from))?,
                MtuCause::Host => out.str("path_mtu_from", " from ", "the host's stack", "", Paint::Plain)?,
                MtuCause::Probe => out.str("path_mtu_from", " from ", "probing", "", Paint::Plain)?,
                MtuCause::Search(phase) => {
                    out.str("path_mtu_from", " ", "probed", "", Paint::Plain)?;
                    out.str("path_mtu_search", " (", phase.name(), ")", Paint::Plain)?;
                }
            }
            out.num("path_mtu_age", ", ", l.age.as_secs(), " s ago")?;
            out.num("path_mtu_left", ", kept ", l.left.as_secs(), " s")?;
        }
    }
    if !o.allowed.is_empty() || o.rate.is_some() {
        out.newline()?;
        let list: Vec<String> = o.allowed.iter().map(ToString::to_string).collect();
        let words: Vec<&str> = list.iter().map(String::as_str).collect();
        if !words.is_empty() {
            out.words("allowed", &words)?;
            out.text(format_args!("    allowed {}", words.join(" ")))?;
        }
        if let Some(rate) = o.rate {
            out.num("rate", if words.is_empty() { "    rate " } else { " rate " }, rate, " packets/s")?;
        }
    }
    if let (Some(k), Some(life)) = (&o.keepalive, &info.life) {
        out.newline()?;
        match k.gre {
            true => out.str("keepalive", "    keepalive ", "gre", "", Paint::Plain)?,
            false => out.str("keepalive", "    keepalive ", k.target, "", Paint::addr(&k.target))?,
        }
        let (word, paint) = if life.alive { ("alive", Paint::Up) } else { ("dead", Paint::Down) };
        out.str("state", " ", word, "", paint)?;
        out.num("answered", ", ", life.answered, "")?;
        out.num("asked", " of ", life.asked, " answered")?;
        if let Some(rtt) = life.rtt_us {
            out.str("rtt", ", rtt ", format_args!("{}.{:03} ms", rtt / 1000, rtt % 1000), "", Paint::Plain)?;
        }
        out.num("deaths", ", died ", life.deaths, " times")?;
    }
    if info.errors > 0 {
        out.newline()?;
        out.num("icmp_errors", "    outer icmp errors ", info.errors, "")?;
        if let Some((age, from, kind, code)) = &info.last_error {
            out.text(format_args!(", last type {kind} code {code} from {from} {} s ago", age.as_secs()))?;
            out.json_word("icmp_error_from", from)?;
        }
    }
    Ok(())
}

/// Who gave it, and how that goes.
fn broker(out: &mut Out<'_>, j: &JoinInfo) -> io::Result<()> {
    out.newline()?;
    out.text(format_args!("    broker {}", j.url))?;
    out.object(Some("broker"))?;
    out.json_word("url", &j.url)?;
    if !j.user.is_empty() {
        out.str("user", " account ", &j.user, "", Paint::Plain)?;
    }
    if let Some(id) = j.id {
        out.num("id", " number ", id, "")?;
    }
    if let Some(t) = &j.tsp {
        out.str("by", " by ", &t.carrier, "", Paint::Plain)?;
        out.str("auth", " with ", &t.auth, "", Paint::Plain)?;
        out.str("gives", ", gives ", &t.mode, "", Paint::Plain)?;
        if let Some(by) = &t.by {
            out.str("server", " of ", by, "", Paint::Plain)?;
        }
        if let Some(seen) = &t.seen {
            out.str("seen", ", behind a NAT as ", seen, "", Paint::addr(seen))?;
            if let Some(port) = t.seen_port {
                out.num("seen_port", " port ", port, "")?;
            }
        }
    }
    let prefixes: Vec<String> = j.prefixes.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    if !words.is_empty() {
        out.newline()?;
        out.words("prefixes", &words)?;
        out.text(format_args!("    delegated {}", words.join(" ")))?;
    }
    if let Some(t) = &j.tsp {
        out.newline()?;
        out.num("logins", "    logged in ", j.updates, " times")?;
        out.num("login_age", ", last ", t.age, " s ago")?;
        out.num("login_due", ", again in ", t.renew, " s")?;
    } else {
        out.newline()?;
        out.num("updates", "    end told ", j.updates, " times")?;
    }
    if let Some(problem) = &j.problem {
        out.newline()?;
        out.str("problem", "    problem: ", problem, "", Paint::Down)?;
    }
    out.end_object()
}

fn counters(out: &mut Out<'_>, c: &PortTotals) -> io::Result<()> {
    out.newline()?;
    out.text("RX: Packets    Bytes        Errors CsumErrs OutOfSeq Mcasts")?;
    out.newline()?;
    out.text(format_args!(
        "    {:<10} {:<12} {:<6} {:<8} {:<8} {:<8}",
        c.rx_packets, c.rx_bytes, c.rx_dropped, 0, 0, c.rx_multicast
    ))?;
    out.newline()?;
    out.text("TX: Packets    Bytes        Errors DeadLoop NoRoute  NoBufs")?;
    out.newline()?;
    out.text(format_args!(
        "    {:<10} {:<12} {:<6} {:<8} {:<8} {:<6}",
        c.tx_packets, c.tx_bytes, c.tx_dropped, 0, 0, 0
    ))?;
    out.object(Some("stats64"))?;
    for (name, values) in [
        ("rx", [("packets", c.rx_packets), ("bytes", c.rx_bytes), ("dropped", c.rx_dropped)]),
        ("tx", [("packets", c.tx_packets), ("bytes", c.tx_bytes), ("dropped", c.tx_dropped)]),
    ] {
        out.object(Some(name))?;
        for (key, value) in values {
            out.json_num(key, value)?;
        }
        out.end_object()?;
    }
    out.end_object()
}
