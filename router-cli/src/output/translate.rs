//! Translators between IPv4 and IPv6, in the form of iproute2's other lists.

use super::out::{Out, Paint};
use crate::control::TranslatorInfo;
use crate::grammar::{Options, table_name};
use router_core::port::TableId;
use router_core::translate::nat64::SessionInfo;
use router_core::translate::{Filtering, UdpZero};
use std::io;
use std::net::IpAddr;

/// All of them.
pub fn translators(out: &mut Out<'_>, list: &[TranslatorInfo], o: &Options) -> io::Result<()> {
    out.begin()?;
    for info in list {
        let t = &info.translator;
        out.object(None)?;
        out.str("ifname", "", &t.name, ": ", Paint::Name)?;
        out.str("mode", "", t.mode, "", Paint::Plain)?;
        if let Some(p) = t.prefix {
            out.str("prefix", " prefix ", p, "", Paint::addr(&IpAddr::V6(p.net().addr())))?;
        }
        if t.table != TableId::MAIN {
            out.str("table", " table ", table_name(t.table), "", Paint::Plain)?;
        }
        if o.details {
            out.num("ipv6_mtu", " ipv6_mtu ", t.ipv6_mtu, "")?;
            match t.udp_zero_checksum {
                UdpZero::Compute => out.str("udp_zero_checksum", " udp_zero_checksum ", "compute", "", Paint::Plain)?,
                UdpZero::Drop => out.str("udp_zero_checksum", " udp_zero_checksum ", "drop", "", Paint::Plain)?,
            }
            if t.filtering == Filtering::AddressDependent {
                out.str("filtering", " filtering ", "address-dependent", "", Paint::Plain)?;
            }
        }
        strings(out, "map", t.map.iter().map(ToString::to_string))?;
        strings(out, "pool", t.pool.iter().map(ToString::to_string))?;
        if let Some(n) = &info.nat64 {
            out.newline()?;
            out.num("sessions", "    sessions ", n.sessions, "")?;
            out.num("max_sessions", " of ", t.max_sessions, "")?;
            out.num("bindings", " bindings ", n.bindings, "")?;
            out.num("hosts", " hosts ", n.hosts, "")?;
            let [tcp, udp, icmp] = n.ports_in_use;
            out.num("tcp_ports", " ports tcp ", tcp, "")?;
            out.num("udp_ports", " udp ", udp, "")?;
            out.num("icmp_ids", " icmp ", icmp, "")?;
            if o.stats > 0 || out.is_json() {
                out.newline()?;
                out.num("created", "    created ", n.created, "")?;
                out.num("expired", " expired ", n.expired, "")?;
                out.num("refused_limit", " refused: limit ", n.refused_limit, "")?;
                out.num("refused_pool", " pool ", n.refused_pool, "")?;
                out.num("filtered", " filtered ", n.filtered, "")?;
            }
        }
        if o.stats > 0 || out.is_json() {
            let c = &info.totals;
            out.newline()?;
            out.num("in_packets", "    in: packets ", c.tx_packets, "")?;
            out.num("in_bytes", " bytes ", c.tx_bytes, "")?;
            out.num("out_packets", " out: packets ", c.rx_packets, "")?;
            out.num("out_bytes", " bytes ", c.rx_bytes, "")?;
        }
        if !info.sessions.is_empty() {
            out.array("session_list")?;
            for s in &info.sessions {
                session(out, s)?;
            }
            out.end_array()?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// `tcp 2001:db8::1#40000 > 198.51.100.1#1024 > 203.0.113.9#80 established expires 7439sec`
fn session(out: &mut Out<'_>, s: &SessionInfo) -> io::Result<()> {
    out.newline()?;
    out.object(None)?;
    let proto = match s.proto {
        6 => "tcp",
        17 => "udp",
        _ => "icmp",
    };
    out.str("proto", "    ", proto, " ", Paint::Plain)?;
    out.str("host", "", s.host, "", Paint::addr(&IpAddr::V6(s.host)))?;
    out.num("host_port", "#", s.host_port, "")?;
    out.str("mapped", " > ", s.mapped, "", Paint::addr(&IpAddr::V4(s.mapped)))?;
    out.num("mapped_port", "#", s.mapped_port, "")?;
    out.str("peer", " > ", s.peer, "", Paint::addr(&IpAddr::V4(s.peer)))?;
    if s.proto != 1 {
        out.num("peer_port", "#", s.peer_port, "")?;
    }
    if let Some(state) = s.state {
        out.str("state", " ", state, "", Paint::Plain)?;
    }
    out.num("expires", " expires ", s.expires, "sec")?;
    out.end_object()
}

/// A list of texts under one word.
fn strings(out: &mut Out<'_>, key: &str, list: impl Iterator<Item = String>) -> io::Result<()> {
    let list: Vec<String> = list.collect();
    if list.is_empty() {
        return Ok(());
    }
    out.array(key)?;
    for (i, text) in list.iter().enumerate() {
        if !out.is_json() {
            out.text(if i == 0 { format!("\n    {key} {text}") } else { format!(", {text}") })?;
        } else {
            out.item(text)?;
        }
    }
    out.end_array()
}
