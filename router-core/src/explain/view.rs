//! A packet's headers as fields to show.

use crate::addr::Family;
use crate::headers::{be16, protocol};
use crate::packet::{Fragment, Packet};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What a reader wants to know of a packet's headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketView {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tclass: u8,
    /// Whole packet, in bytes.
    pub len: u32,
    /// IPv4: may not be fragmented.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub df: bool,
    /// Source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// ICMP type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// TCP flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u8>,
    /// IPv6 flow label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<u32>,
    /// Offset in bytes and whether more follow, for a fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<(u16, bool)>,
}

impl PacketView {
    /// Reads the IP packet at the start of `data`; None for one that no router would parse.
    pub fn read(data: &[u8]) -> Option<PacketView> {
        let packet = Packet::parse(Packet::sniff(data).ok()?, data).ok()?;
        Some(PacketView::of(&packet, data))
    }

    /// The fields of a parsed packet, whose first bytes, at least, are `data`.
    pub fn of(p: &Packet, data: &[u8]) -> PacketView {
        let t = data.get(usize::from(p.l4)..).filter(|_| p.fragment != Fragment::Later).unwrap_or(&[]);
        let has_ports =
            matches!(p.proto, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP) && t.len() >= 4;
        let is_icmp = matches!((p.family, p.proto), (Family::Inet, protocol::ICMP) | (Family::Inet6, protocol::ICMPV6));
        PacketView {
            family: p.family,
            src: p.src,
            dst: p.dst,
            proto: p.proto,
            ttl: p.ttl,
            tclass: p.tclass,
            len: p.len,
            df: p.df && p.family == Family::Inet,
            sport: has_ports.then(|| be16(t, 0)),
            dport: has_ports.then(|| be16(t, 2)),
            icmp: t.get(..2).filter(|_| is_icmp).map(|t| (t[0], t[1])),
            flags: t.get(13).copied().filter(|_| p.proto == protocol::TCP),
            flow: Some(p.flow).filter(|f| *f != 0),
            fragment: fragment(p, data),
        }
    }

    /// The upper-layer protocol by name.
    pub fn proto_name(&self) -> String {
        proto_name(self.proto).map_or_else(|| format!("proto {}", self.proto), str::to_owned)
    }
}

/// Offset and the more-fragments flag.
fn fragment(p: &Packet, data: &[u8]) -> Option<(u16, bool)> {
    if p.fragment == Fragment::None {
        return None;
    }
    match p.family {
        Family::Inet => {
            let word = be16(data, 6);
            Some(((word & 0x1fff) * 8, word & 0x2000 != 0))
        }
        Family::Inet6 => {
            // The fragment header is the last but perhaps destination options: walk to it.
            let (mut next, mut at) = (*data.get(6)?, 40usize);
            for _ in 0..16 {
                if next == protocol::FRAGMENT {
                    let word = be16(data, at + 2);
                    return Some((word & !7, word & 1 != 0));
                }
                let len = usize::from(*data.get(at + 1)?);
                next = *data.get(at)?;
                at += (len + 1) * 8;
            }
            None
        }
    }
}

/// Name of an IP protocol, where it is a common one.
pub fn proto_name(proto: u8) -> Option<&'static str> {
    Some(match proto {
        protocol::ICMP => "icmp",
        protocol::ICMPV6 => "icmp6",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::UDPLITE => "udplite",
        protocol::SCTP => "sctp",
        protocol::IPV4 => "ipip",
        protocol::IPV6 => "ipv6-in-ip",
        protocol::GRE => "gre",
        protocol::AH => "ah",
        50 => "esp",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        protocol::NO_NEXT => "no-next-header",
        _ => return None,
    })
}

/// What an ICMP type and code are called.
pub fn icmp_name(family: Family, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (family, kind, code) {
        (Family::Inet, 0, _) | (Family::Inet6, 129, _) => "echo reply",
        (Family::Inet, 8, _) | (Family::Inet6, 128, _) => "echo request",
        (Family::Inet, 3, 0) => "network unreachable",
        (Family::Inet, 3, 1) => "host unreachable",
        (Family::Inet, 3, 2) => "protocol unreachable",
        (Family::Inet, 3, 3) | (Family::Inet6, 1, 4) => "port unreachable",
        (Family::Inet, 3, 4) => "fragmentation needed",
        (Family::Inet, 3, 13) | (Family::Inet6, 1, 1) => "administratively prohibited",
        (Family::Inet, 11, 0) | (Family::Inet6, 3, 0) => "time exceeded",
        (Family::Inet6, 1, 0) => "no route",
        (Family::Inet6, 1, 3) => "address unreachable",
        (Family::Inet6, 2, _) => "packet too big",
        (Family::Inet, 12, _) | (Family::Inet6, 4, _) => "parameter problem",
        (Family::Inet6, 133, _) => "router solicitation",
        (Family::Inet6, 134, _) => "router advertisement",
        (Family::Inet6, 135, _) => "neighbor solicitation",
        (Family::Inet6, 136, _) => "neighbor advertisement",
        (Family::Inet, 5, _) | (Family::Inet6, 137, _) => "redirect",
        _ => return None,
    })
}

/// As in `192.0.2.2 > 203.0.113.9 udp 40000 > 53 ttl 64 len 1000`.
impl fmt::Display for PacketView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {}", self.src, self.dst, self.proto_name())?;
        if let (Some(s), Some(d)) = (self.sport, self.dport) {
            write!(f, " {s} > {d}")?;
        }
        if let Some(flags) = self.flags {
            let names = ["F", "S", "R", "P", ".", "U", "E", "W"];
            write!(f, " [")?;
            names
                .iter()
                .enumerate()
                .filter(|(bit, _)| flags & (1 << bit) != 0)
                .try_for_each(|(_, n)| f.write_str(n))?;
            write!(f, "]")?;
        }
        if let Some((kind, code)) = self.icmp {
            match icmp_name(self.family, kind, code) {
                Some(name) => write!(f, " {name}")?,
                None => write!(f, " type {kind} code {code}")?,
            }
        }
        if let Some((offset, more)) = self.fragment {
            write!(f, " frag {offset}{}", if more { "+" } else { "" })?;
        }
        let ttl = if self.family == Family::Inet { "ttl" } else { "hlim" };
        write!(f, " {ttl} {} len {}", self.ttl, self.len)?;
        if self.tclass != 0 {
            write!(f, " tos {:#04x}", self.tclass)?;
        }
        f.write_str(if self.df { " df" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_it_is() {
        let mut v = vec![0x60, 0, 0, 0, 0, 8, 17, 63];
        v.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        let view = PacketView::read(&v).unwrap();
        assert_eq!(view.to_string(), "2001:db8::1 > 2001:db8:1::2 udp 12345 > 53 hlim 63 len 48");
        assert!(PacketView::read(&v[..30]).is_none());
    }
}
