//! Ports and tunnels, as `ip link` prints links.

use super::out::{Out, Paint};
use crate::control::LinkInfo;
use crate::grammar::{Options, table_name};
use router_core::counters::PortTotals;
use router_core::port::{Medium, PortKind};
use std::io;
use std::net::IpAddr;

/// All of them.
pub fn links(out: &mut Out<'_>, list: &[LinkInfo], o: &Options) -> io::Result<()> {
    out.begin()?;
    for l in list {
        out.object(None)?;
        if o.brief {
            brief_name(out, l)?;
            hardware_brief(out, l)?;
            let flags = flags(l);
            out.words("flags", &flags)?;
            out.text(format_args!("<{}> ", flags.join(",")))?;
        } else {
            head(out, l, Head { mode: true, queue: true })?;
            out.newline()?;
            hardware(out, l)?;
            if o.details {
                details(out, l)?;
            }
            if o.stats > 0 {
                out.newline()?;
                stats(out, &l.totals)?;
            }
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// Which parts of the first line are wanted.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// `mode DEFAULT`: `link` only.
    pub mode: bool,
    /// `qdisc` and `group`.
    pub queue: bool,
}

pub(super) fn flags(l: &LinkInfo) -> Vec<&'static str> {
    let mut f = Vec::new();
    if l.admin_up && !l.up {
        f.push("NO-CARRIER");
    }
    match (l.kind, l.medium) {
        (PortKind::Loopback, _) => f.push("LOOPBACK"),
        (PortKind::Vrf, _) => f.extend(["NOARP", "MASTER"]),
        (PortKind::Tunnel | PortKind::Translator, _) => f.extend(["POINTOPOINT", "NOARP"]),
        (_, Medium::Ethernet) => f.extend(["BROADCAST", "MULTICAST"]),
        (_, Medium::Ip) => f.extend(["POINTOPOINT", "MULTICAST", "NOARP"]),
    }
    if l.admin_up {
        f.push("UP");
    }
    if l.up {
        f.push("LOWER_UP");
    }
    f
}

fn operstate(l: &LinkInfo) -> &'static str {
    match (l.up, l.medium, l.kind) {
        (false, ..) => "DOWN",
        (true, _, PortKind::Vrf) => "UP",
        (true, _, PortKind::Loopback | PortKind::Tunnel) | (true, Medium::Ip, _) => "UNKNOWN",
        (true, Medium::Ethernet, _) => "UP",
    }
}

fn state_paint(state: &str) -> Paint {
    match state {
        "UP" => Paint::Up,
        "DOWN" => Paint::Down,
        _ => Paint::Plain,
    }
}

fn queue_len(l: &LinkInfo) -> u32 {
    if l.kind.makes_device() { 500 } else { 1000 }
}

pub(super) fn head(out: &mut Out<'_>, l: &LinkInfo, want: Head) -> io::Result<()> {
    out.num("ifindex", "", l.ifindex, ": ")?;
    let tunnel = l.kind == PortKind::Tunnel;
    if tunnel && out.is_json() {
        out.null("link", "")?;
    }
    out.str("ifname", "", &l.name, if tunnel { "@NONE: " } else { ": " }, Paint::Name)?;
    let flags = flags(l);
    out.words("flags", &flags)?;
    out.text(format_args!("<{}> ", flags.join(",")))?;
    out.num("mtu", "mtu ", l.mtu, " ")?;
    if want.queue {
        out.str("qdisc", "qdisc ", "noqueue", " ", Paint::Plain)?;
    }
    let state = operstate(l);
    out.str("operstate", "state ", state, " ", state_paint(state))?;
    if let Some(master) = &l.master {
        out.str("master", "master ", master, " ", Paint::Name)?;
    }
    if want.mode {
        out.str("linkmode", "mode ", "DEFAULT", " ", Paint::Plain)?;
    }
    if want.queue {
        out.str("group", "group ", "default", " ", Paint::Plain)?;
    }
    out.num("txqlen", "qlen ", queue_len(l), "")
}

/// The second line: link-layer type and addresses.
pub(super) fn hardware(out: &mut Out<'_>, l: &LinkInfo) -> io::Result<()> {
    let kind = match (l.kind, l.medium) {
        (PortKind::Loopback, _) => "loopback",
        (PortKind::Tunnel, _) if l.outer.is_some() => "sit",
        (_, Medium::Ethernet) => "ether",
        (_, Medium::Ip) => "none",
    };
    out.str("link_type", "    link/", kind, " ", Paint::Plain)?;
    match (kind, l.outer, l.mac) {
        ("loopback", ..) => pair(out, "00:00:00:00:00:00", "brd", "00:00:00:00:00:00"),
        ("sit", Some((local, remote)), _) => {
            out.str("address", "", local, "", Paint::Plain)?;
            out.truth_json("link_pointtopoint")?;
            out.str("broadcast", " peer ", remote, "", Paint::Plain)
        }
        (_, _, Some(mac)) => pair(out, &mac.to_string(), "brd", "ff:ff:ff:ff:ff:ff"),
        _ => Ok(()),
    }
}

fn pair(out: &mut Out<'_>, address: &str, word: &str, broadcast: &str) -> io::Result<()> {
    out.str("address", "", address, "", Paint::Mac)?;
    out.str("broadcast", &format!(" {word} "), broadcast, "", Paint::Mac)
}

fn details(out: &mut Out<'_>, l: &LinkInfo) -> io::Result<()> {
    out.num("promiscuity", " promiscuity ", 0u32, " ")?;
    out.num("allmulti", " allmulti ", 0u32, " ")?;
    out.num("min_mtu", "minmtu ", 68u32, " ")?;
    out.num("max_mtu", "maxmtu ", 65535u32, " ")?;
    out.newline()?;
    out.object(Some("linkinfo"))?;
    out.str("info_kind", "    ", l.kind, " ", Paint::Plain)?;
    out.end_object()?;
    if let Some(vlan) = l.vlan {
        out.num("vlan", "vlan ", vlan, " ")?;
    }
    out.str("table", "table ", table_name(l.table), " ", Paint::Plain)?;
    super::advert::advertisements(out, &l.advertises)?;
    match &l.wireguard {
        Some(status) => super::wireguard::peers(out, status),
        None => Ok(()),
    }
}

pub(super) fn brief_name(out: &mut Out<'_>, l: &LinkInfo) -> io::Result<()> {
    let state = operstate(l);
    if out.is_json() {
        out.json_word("ifname", &l.name)?;
        return out.json_word("operstate", state);
    }
    let name = if l.kind == PortKind::Tunnel { format!("{}@NONE", l.name) } else { l.name.clone() };
    out.painted(format_args!("{name:<16} "), Paint::Name)?;
    out.painted(format_args!("{state:<14} "), state_paint(state))
}

fn hardware_brief(out: &mut Out<'_>, l: &LinkInfo) -> io::Result<()> {
    let address = match (l.kind, l.outer, l.mac) {
        (PortKind::Loopback, ..) => "00:00:00:00:00:00".to_owned(),
        (_, Some((IpAddr::V4(local), _)), _) => local.to_string(),
        (_, _, Some(mac)) => mac.to_string(),
        _ => return Ok(()),
    };
    out.str("address", "", address, " ", Paint::Mac)
}

/// The `RX:` and `TX:` block of `-s`.
pub(super) fn stats(out: &mut Out<'_>, t: &PortTotals) -> io::Result<()> {
    let rx = [t.rx_bytes, t.rx_packets, 0, t.rx_dropped, t.rx_missed, t.rx_multicast];
    let tx = [t.tx_bytes, t.tx_packets, 0, t.tx_dropped, 0, 0];
    out.object(Some("stats64"))?;
    for (name, keys, values) in [
        ("rx", ["bytes", "packets", "errors", "dropped", "over_errors", "multicast"], rx),
        ("tx", ["bytes", "packets", "errors", "dropped", "carrier_errors", "collisions"], tx),
    ] {
        out.object(Some(name))?;
        for (key, value) in keys.iter().zip(values) {
            out.json_num(key, value)?;
        }
        out.end_object()?;
    }
    out.end_object()?;
    if out.is_json() {
        return Ok(());
    }
    // iproute2 sizes the columns by the widest of both rows.
    let mut width = [10usize, 7, 6, 7, 7, 7];
    for (i, w) in width.iter_mut().enumerate() {
        *w = (*w).max(rx[i].to_string().len()).max(tx[i].to_string().len());
    }
    for (name, heads, values) in [
        ("RX", ["bytes", "packets", "errors", "dropped", "missed", "mcast"], rx),
        ("TX", ["bytes", "packets", "errors", "dropped", "carrier", "collsns"], tx),
    ] {
        out.text(format_args!("    {name}:"))?;
        for (i, head) in heads.iter().enumerate() {
            let w = if i == 0 { width[0] - 4 } else { width[i] };
            out.text(format_args!(" {head:>w$}"))?;
        }
        out.text(format_args!(" {:10}", ""))?;
        out.newline()?;
        out.text("    ")?;
        for (i, value) in values.iter().enumerate() {
            out.text(format_args!("{value:>w$} ", w = width[i]))?;
        }
        if name == "RX" {
            out.newline()?;
        }
    }
    Ok(())
}
