//! Tunnels, as `ip tunnel` prints them.

use super::out::{Out, Paint};
use crate::control::TunnelInfo;
use crate::grammar::{Options, table_name};
use router_core::spec::TunnelMode;
use std::io;

/// All of them.
pub fn tunnels(out: &mut Out<'_>, list: &[TunnelInfo], o: &Options) -> io::Result<()> {
    out.begin()?;
    for info in list {
        let t = &info.tunnel;
        out.object(None)?;
        out.str("ifname", "", &t.name, ": ", Paint::Name)?;
        let mode = match t.mode {
            TunnelMode::SixInFour => "ipv6/ip",
        };
        out.str("mode", "", mode, " ", Paint::Plain)?;
        out.str("remote", "remote ", t.remote, " ", Paint::addr(&t.remote))?;
        out.str("local", "local ", t.local, "", Paint::addr(&t.local))?;
        if let Some(dev) = &t.dev {
            out.str("link", " dev ", dev, "", Paint::Name)?;
        }
        match t.ttl_inherit {
            true => out.str("ttl", " ttl ", "inherit", "", Paint::Plain)?,
            false => out.num("ttl", " ttl ", t.ttl.unwrap_or(64), "")?,
        }
        match t.tos {
            Some(tos) => out.str("tos", " tos ", format_args!("0x{tos:02x}"), "", Paint::Plain)?,
            None if o.details => out.str("tos", " tos ", "inherit", "", Paint::Plain)?,
            None => {}
        }
        if t.nopmtudisc {
            out.null("nopmtudisc", " nopmtudisc")?;
        }
        if o.details {
            if let Some(mtu) = t.mtu {
                out.num("mtu", " mtu ", mtu, "")?;
            }
            if let Some(table) = t.underlay_table {
                out.str("underlay_table", " underlay_table ", table_name(table), "", Paint::Plain)?;
            }
        }
        if o.stats > 0 {
            let c = &info.totals;
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
            out.end_object()?;
        }
        out.text("\n")?;
        out.end_object()?;
    }
    out.end()
}
