//! Addresses, as `ip addr` prints them.

use super::link::{Head, brief_name, hardware, head, stats};
use super::out::{Out, Paint};
use crate::control::{AddrSelect, LinkInfo, addr_scope};
use crate::grammar::{Options, scope_name};
use ipnet::IpNet;
use router_core::addr::Family;
use std::io;

/// Ports with those of their addresses that are selected.
pub fn addrs(out: &mut Out<'_>, list: &[LinkInfo], select: &AddrSelect, o: &Options) -> io::Result<()> {
    out.begin()?;
    for l in list {
        let known = sorted(&l.addrs).chain(l.duplicates.iter().map(|a| (false, a)));
        let chosen: Vec<(bool, &IpNet)> = known.filter(|(_, a)| select.matches(a)).collect();
        if chosen.is_empty() && select.is_narrow() || (select.up && !l.admin_up) {
            continue;
        }
        if o.oneline && !out.is_json() {
            for (second, a) in chosen {
                out.text(format_args!("{}: {}", l.ifindex, l.name))?;
                address(out, l, second, a, o)?;
                out.text("\n")?;
            }
            continue;
        }
        out.object(None)?;
        if o.brief {
            brief_name(out, l)?;
            out.array("addr_info")?;
            for (_, a) in chosen {
                out.object(None)?;
                out.str("local", "", a.addr(), "", Paint::addr(&a.addr()))?;
                out.num("prefixlen", "/", a.prefix_len(), " ")?;
                out.end_object()?;
            }
        } else {
            // Linux's dump of IPv6 addresses alone does not know about queues.
            let queue = select.family != Some(Family::Inet6) || select.dev.is_some();
            head(out, l, Head { mode: false, queue })?;
            if select.family.is_none() && select.to.is_none() {
                out.newline()?;
                hardware(out, l)?;
            }
            out.array("addr_info")?;
            for (second, a) in chosen {
                out.object(None)?;
                out.newline()?;
                address(out, l, second, a, o)?;
                out.end_object()?;
            }
        }
        out.end_array()?;
        if o.stats > 0 && !o.brief {
            out.newline()?;
            stats(out, &l.totals)?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}

/// IPv4 first, and of those the primary ones, as Linux lists them.
fn sorted(addrs: &[IpNet]) -> impl Iterator<Item = (bool, &IpNet)> {
    let primary = |i: usize, a: &IpNet| addrs[..i].iter().all(|b| b.trunc() != a.trunc());
    let list = |v4: bool, second: bool| {
        let all = addrs.iter().enumerate().filter(move |(_, a)| (Family::of_net(a) == Family::Inet) == v4);
        all.map(move |(i, a)| (v4 && !primary(i, a), a)).filter(move |(s, _)| *s == second)
    };
    list(true, false).chain(list(true, true)).chain(list(false, false))
}

fn address(out: &mut Out<'_>, l: &LinkInfo, secondary: bool, net: &IpNet, o: &Options) -> io::Result<()> {
    let family = Family::of_net(net);
    out.str("family", "    ", family, " ", Paint::Plain)?;
    out.str("local", "", net.addr(), "", Paint::addr(&net.addr()))?;
    out.num("prefixlen", "/", net.prefix_len(), " ")?;
    out.str("scope", "scope ", scope_name(addr_scope(&net.addr())), " ", Paint::Plain)?;
    if family == Family::Inet && secondary {
        out.truth("secondary", "secondary ")?;
    }
    let failed = l.duplicates.contains(net);
    if failed {
        out.truth("dadfailed", "dadfailed ")?;
    }
    if failed || l.tentative.contains(&net.addr()) {
        out.truth("tentative", "tentative ")?;
    }
    if family == Family::Inet {
        out.str("label", "", &l.name, "", Paint::Plain)?;
    }
    if o.oneline {
        out.text("\\")?;
    } else {
        out.newline()?;
    }
    out.text("       valid_lft forever preferred_lft forever")?;
    out.json_num("valid_life_time", u64::from(u32::MAX))?;
    out.json_num("preferred_life_time", u64::from(u32::MAX))
}
