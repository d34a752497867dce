//! Rules and VRFs, as `ip rule` and `ip vrf` print them.

use super::out::{Out, Paint};
use crate::control::LinkInfo;
use crate::grammar::{Options, proto_name, table_name};
use ipnet::IpNet;
use router_core::policy::{PortSpan, RuleAction, RuleSpec};
use std::io;

/// Rules in order.
pub fn rules(out: &mut Out<'_>, list: &[RuleSpec], o: &Options) -> io::Result<()> {
    out.begin()?;
    for r in list {
        out.object(None)?;
        out.num("priority", "", r.priority.unwrap_or(0), ":\t")?;
        if r.not {
            out.null("not", "not ")?;
        }
        match &r.from {
            Some(net) => prefix(out, "src", "from ", net)?,
            None => out.str("src", "from ", "all", "", Paint::Plain)?,
        }
        if let Some(net) = &r.to {
            prefix(out, "dst", " to ", net)?;
        }
        if let Some(mark) = r.fwmark {
            out.str("fwmark", " fwmark ", format_args!("{:#x}", mark.value), "", Paint::Plain)?;
            if mark.mask != u32::MAX {
                out.str("fwmask", "/", format_args!("{:#x}", mark.mask), "", Paint::Plain)?;
            }
        }
        if let Some(iif) = &r.iif {
            out.str("iif", " iif ", iif, "", Paint::Name)?;
        }
        if r.action == RuleAction::L3mdev {
            out.null("l3mdev", " lookup [l3mdev-table]")?;
        }
        if let Some(proto) = r.ipproto {
            out.str("ipproto", " ipproto ", ip_proto(proto), "", Paint::Plain)?;
        }
        span(out, ["sport", "sport_start", "sport_end"], " sport ", r.sport)?;
        span(out, ["dport", "dport_start", "dport_end"], " dport ", r.dport)?;
        if let Some(dscp) = r.dscp {
            out.str("dscp", " dscp ", dscp_name(dscp), "", Paint::Plain)?;
        }
        match r.action {
            RuleAction::Lookup(table) => {
                out.str("table", " lookup ", table_name(table), "", Paint::Plain)?;
                if let Some(n) = r.suppress_prefixlength {
                    out.num("suppress_prefixlen", " suppress_prefixlength ", n, "")?;
                }
            }
            RuleAction::Goto(to) => out.num("goto", " goto ", to, "")?,
            RuleAction::Nop => out.null("nop", " nop")?,
            RuleAction::Blackhole => out.str("action", " ", "blackhole", "", Paint::Plain)?,
            RuleAction::Prohibit => out.str("action", " ", "prohibit", "", Paint::Plain)?,
            RuleAction::Unreachable => out.str("action", " ", "unreachable", "", Paint::Plain)?,
            RuleAction::L3mdev => {}
        }
        let born = matches!(r.priority, Some(0 | 1000 | 32_766 | 32_767)) && r.protocol.is_none() && r.selects_all();
        match r.protocol {
            Some(p) => out.str("protocol", " proto ", proto_name(p), "", Paint::Plain)?,
            None if o.details => {
                let name = if born { "kernel" } else { "unspec" };
                out.str("protocol", " proto ", name, "", Paint::Plain)?;
            }
            None => {}
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// A prefix; that of a single host without its length.
fn prefix(out: &mut Out<'_>, key: &str, before: &str, net: &IpNet) -> io::Result<()> {
    out.str(key, before, net.addr(), "", Paint::addr(&net.addr()))?;
    if net.prefix_len() != net.max_prefix_len() {
        out.num(&format!("{key}len"), "/", net.prefix_len(), "")?;
    }
    Ok(())
}

fn span(out: &mut Out<'_>, keys: [&str; 3], before: &str, span: Option<PortSpan>) -> io::Result<()> {
    match span {
        None => Ok(()),
        Some(s) if s.start == s.end => out.num(keys[0], before, s.start, ""),
        Some(s) => {
            out.num(keys[1], before, s.start, "")?;
            out.num(keys[2], "-", s.end, "")
        }
    }
}

/// As /etc/protocols has it; a number where that has none.
fn ip_proto(proto: u8) -> String {
    match proto {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        58 => "ipv6-icmp".into(),
        132 => "sctp".into(),
        n => format!("ipproto-{n}"),
    }
}

/// By name where the code point has one (RFC 2474, 2597, 3246).
fn dscp_name(dscp: u8) -> String {
    match dscp {
        46 => "EF".into(),
        n if n & 7 == 0 && n > 0 => format!("CS{}", n >> 3),
        n if n & 1 == 0 && (1..=4).contains(&(n >> 3)) && (1..=3).contains(&((n >> 1) & 3)) => {
            format!("AF{}{}", n >> 3, (n >> 1) & 3)
        }
        n => n.to_string(),
    }
}

/// `ip vrf show`.
pub fn vrfs(out: &mut Out<'_>, list: &[LinkInfo]) -> io::Result<()> {
    out.begin()?;
    match list.is_empty() {
        true => out.text("No VRF has been configured\n")?,
        false => out.text("Name              Table\n-----------------------\n")?,
    }
    for l in list {
        out.object(None)?;
        let pad = " ".repeat(16usize.saturating_sub(l.name.len()));
        out.str("name", "", &l.name, "", Paint::Name)?;
        out.text(pad)?;
        let table = l.table.0.to_string();
        out.num("table", &" ".repeat(7usize.saturating_sub(table.len()).max(1)), l.table.0, "\n")?;
        out.end_object()?;
    }
    out.end()
}
