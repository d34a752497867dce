//! A packet against a filter. Reads bytes at the places where libpcap's programs read them.

use super::{Dir, Expr, Layer, Test, bytes};
use crate::drop_reason::DropReason;
use crate::headers::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_CTAG, TPID_STAG};
use crate::headers::{be16, protocol};
use crate::port::PortId;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// Reverse ARP (RFC 903).
const ETHERTYPE_RARP: u16 = 0x8035;

/// Group management and router redundancy of IPv4 (RFC 3376, RFC 9568).
pub(super) const IGMP: u8 = 2;
pub(super) const VRRP: u8 = 112;

/// A packet as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The link header's two addresses, where there is one.
    stations: Option<&'a [u8; 12]>,
    /// The frame from its link header on; empty where there is none.
    frame: &'a [u8],
    ethertype: u16,
    vlan: Option<u16>,
    /// From the network header on.
    l3: &'a [u8],
    /// Length with a link header, whether there is one or not.
    len: u32,
    port: PortId,
    reason: Option<DropReason>,
    inbound: bool,
}

impl<'a> Subject<'a> {
    /// A frame seen on `port`: with an Ethernet header in front, or from the IP header on.
    pub fn new(port: PortId, data: &'a [u8], ethernet: bool, vlan_tci: Option<u16>) -> Self {
        let mut s = Subject {
            stations: None,
            frame: &[],
            ethertype: 0,
            vlan: vlan_tci.map(|t| t & 0x0fff),
            l3: data,
            len: data.len() as u32,
            port,
            reason: None,
            inbound: true,
        };
        if !ethernet {
            s.len += 14;
            s.ethertype = match data.first().map(|b| b >> 4) {
                Some(4) => ETHERTYPE_IPV4,
                Some(6) => ETHERTYPE_IPV6,
                _ => 0,
            };
            return s;
        }
        if vlan_tci.is_some() {
            // The tag is a part of the frame that the kernel has taken out.
            s.len += 4;
        }
        s.stations = data.first_chunk();
        s.frame = data;
        s.ethertype = be16(data, 12);
        let mut at = 14;
        if s.vlan.is_none() && matches!(s.ethertype, TPID_CTAG | TPID_STAG) && data.len() >= 18 {
            s.vlan = Some(be16(data, 14) & 0x0fff);
            s.ethertype = be16(data, 16);
            at = 18;
        }
        s.l3 = data.get(at..).unwrap_or(&[]);
        s
    }

    /// Whether bytes start with an Ethernet header: where they may also start with an IP header, whose version field and
    /// length fit.
    pub fn looks_like_ethernet(data: &[u8]) -> bool {
        crate::packet::Packet::sniff(data).and_then(|f| crate::packet::Packet::parse(f, data)).is_err()
    }

    /// The same, dropped for a reason.
    pub fn dropped(mut self, reason: DropReason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The same, on its way out.
    pub fn outbound(mut self) -> Self {
        self.inbound = false;
        self
    }

    fn ip4(&self) -> bool {
        self.ethertype == ETHERTYPE_IPV4
    }

    fn ip6(&self) -> bool {
        self.ethertype == ETHERTYPE_IPV6
    }

    /// Its length with a link header.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The packet from the header of a layer on, if it has one.
    pub(super) fn header(&self, layer: Layer) -> Option<&'a [u8]> {
        match layer {
            Layer::Any => None,
            Layer::Ether => Some(self.frame).filter(|f| !f.is_empty()),
            Layer::Ip | Layer::Ip6 | Layer::Arp | Layer::Rarp => is(layer, self).then_some(self.l3),
            Layer::Proto(protocol::ICMPV6) if self.ip4() => None,
            Layer::Proto(protocol::ICMP) if self.ip6() => None,
            Layer::Proto(p) => self.l3.get(transport(self, |have| have == Some(p))?..),
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.l3.get(at).copied()
    }
}

/// Recursion is as deep as the parser lets it be.
pub(super) fn eval(e: &Expr, s: &Subject<'_>) -> bool {
    match e {
        Expr::And(a, b) => eval(a, s) && eval(b, s),
        Expr::Or(a, b) => eval(a, s) || eval(b, s),
        Expr::Not(a) => !eval(a, s),
        Expr::Test(t) => test(t, s),
        Expr::Relation(r) => bytes::holds(r, s),
    }
}

fn test(t: &Test, s: &Subject<'_>) -> bool {
    match *t {
        Test::Is(layer) => is(layer, s),
        Test::Net(layer, dir, net) => in_net(layer, dir, &net, s),
        Test::Mac(dir, mac) => {
            let Some(st) = s.stations else { return false };
            choose(dir, st[6..12] == mac.0, st[..6] == mac.0)
        }
        Test::EtherType(t) => s.ethertype == t,
        Test::Proto(layer, proto) => match layer {
            Layer::Ip => over_ip4(proto, s),
            Layer::Ip6 => over_ip6(proto, s),
            _ => over_ip4(proto, s) || over_ip6(proto, s),
        },
        Test::Ports(layer, dir, from, to) => ports(layer, dir, from, to, s),
        Test::Vlan(id) => match (s.vlan, id) {
            (Some(have), Some(want)) => have == want,
            (have, None) => have.is_some(),
            (None, Some(_)) => false,
        },
        Test::Greater(n) => s.len >= n,
        Test::Less(n) => s.len <= n,
        Test::Broadcast => s.stations.is_some_and(|st| st[..6] == [0xff; 6]),
        Test::Multicast(Layer::Ip) => s.ip4() && s.byte(16).is_some_and(|b| b >= 224),
        Test::Multicast(Layer::Ip6) => s.ip6() && s.byte(24) == Some(0xff),
        Test::Multicast(_) => s.stations.is_some_and(|st| st[0] & 1 != 0),
        Test::On(port) => s.port == port,
        Test::Reason(r) => s.reason == Some(r),
        Test::Inbound(inbound) => s.inbound == inbound,
    }
}

fn choose(dir: Dir, src: bool, dst: bool) -> bool {
    match dir {
        Dir::Src => src,
        Dir::Dst => dst,
        Dir::Either => src || dst,
        Dir::Both => src && dst,
    }
}

fn is(layer: Layer, s: &Subject<'_>) -> bool {
    match layer {
        Layer::Any | Layer::Ether => true,
        Layer::Ip => s.ip4(),
        Layer::Ip6 => s.ip6(),
        Layer::Arp => s.ethertype == ETHERTYPE_ARP,
        Layer::Rarp => s.ethertype == ETHERTYPE_RARP,
        Layer::Proto(p @ (protocol::ICMP | IGMP | VRRP)) => over_ip4(p, s),
        Layer::Proto(protocol::ICMPV6) => over_ip6(protocol::ICMPV6, s),
        Layer::Proto(p) => over_ip4(p, s) || over_ip6(p, s),
    }
}

fn over_ip4(proto: u8, s: &Subject<'_>) -> bool {
    s.ip4() && s.byte(9) == Some(proto)
}

/// The first next header, or that of a fragment header in its place.
fn over_ip6(proto: u8, s: &Subject<'_>) -> bool {
    s.ip6() && (s.byte(6) == Some(proto) || (s.byte(6) == Some(protocol::FRAGMENT) && s.byte(40) == Some(proto)))
}

fn in_net(layer: Layer, dir: Dir, net: &IpNet, s: &Subject<'_>) -> bool {
    let ends = match net {
        IpNet::V4(_) => {
            let at = match s.ethertype {
                ETHERTYPE_IPV4 if matches!(layer, Layer::Any | Layer::Ip) => Some((12, 16)),
                ETHERTYPE_ARP if matches!(layer, Layer::Any | Layer::Arp) => Some((14, 24)),
                ETHERTYPE_RARP if matches!(layer, Layer::Any | Layer::Rarp) => Some((14, 24)),
                _ => None,
            };
            let read = |at: usize| {
                let b = s.l3.get(at..at + 4)?;
                Some(IpAddr::V4(Ipv4Addr::new(b[0], b[1], b[2], b[3])))
            };
            at.map(|(src, dst)| (read(src), read(dst)))
        }
        IpNet::V6(_) => {
            let read = |at: usize| {
                let b: [u8; 16] = s.l3.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(b.into()))
            };
            s.ip6().then(|| (read(8), read(24)))
        }
    };
    let within = |a: Option<IpAddr>| a.is_some_and(|a| net.contains(&a));
    ends.is_some_and(|(src, dst)| choose(dir, within(src), within(dst)))
}

fn ports(layer: Layer, dir: Dir, from: u16, to: u16, s: &Subject<'_>) -> bool {
    let proto_fits = |p: Option<u8>| match (layer, p) {
        (Layer::Proto(want), Some(p)) => p == want,
        (_, Some(p)) => matches!(p, protocol::TCP | protocol::UDP | protocol::SCTP),
        (_, None) => false,
    };
    if matches!(layer, Layer::Ip) && s.ip6() || matches!(layer, Layer::Ip6) && s.ip4() {
        return false;
    }
    let Some(l4) = transport(s, proto_fits).filter(|at| s.l3.len() >= at + 4) else { return false };
    let within = |at: usize| (from..=to).contains(&be16(s.l3, at));
    choose(dir, within(l4), within(l4 + 2))
}

/// Where the transport header of a fitting protocol is: not in later fragments, nor behind extension headers.
fn transport(s: &Subject<'_>, fits: impl Fn(Option<u8>) -> bool) -> Option<usize> {
    if s.ip4() && fits(s.byte(9)) {
        return (be16(s.l3, 6) & 0x1fff == 0).then(|| usize::from(s.l3.first().copied().unwrap_or(0) & 15) * 4);
    }
    (s.ip6() && fits(s.byte(6))).then_some(40)
}
