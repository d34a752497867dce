//! The kernel's routes, with gateways of either family (RTA_VIA, RFC 8950), and its FIB lookup.

use super::{Netlink, NetlinkError};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use router_core::addr::{AddrError, Family, parse_addr, parse_prefix};
use serde::Serialize;
use std::io;
use std::net::IpAddr;

const RT_TABLE_MAIN: u32 = 254;

/// What a kernel route does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelRouteKind {
    /// Forward.
    #[default]
    Unicast,
    /// Deliver here.
    Local,
    /// Drop silently.
    Blackhole,
    /// Drop and say unreachable.
    Unreachable,
    /// Drop and say prohibited.
    Prohibit,
    /// Go on with the next rule.
    Throw,
    /// Anything else (broadcast, anycast, multicast).
    Other,
}

/// One next hop of a kernel route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelHop {
    /// The gateway, of either family; None if the destination is on the link.
    pub via: Option<IpAddr>,
    /// The link's index.
    pub oif: Option<u32>,
    /// The gateway is on the link whatever the routes say.
    pub onlink: bool,
    /// Share of the flows: 1 to 256, 0 for 1.
    pub weight: u16,
}

/// A kernel route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelRoute {
    /// The destinations.
    pub prefix: IpNet,
    /// What is done with them.
    pub kind: KernelRouteKind,
    /// The next hops; several for multipath, none for kinds that do not forward.
    pub hops: Vec<KernelHop>,
    /// The table; 254 is main.
    pub table: u32,
    /// The metric (RTA_PRIORITY).
    pub metric: Option<u32>,
    /// The route's own MTU.
    pub mtu: Option<u32>,
    /// Preferred source address of packets that start here.
    pub src: Option<IpAddr>,
}

/// Why a text is not a route in [`KernelRoute::parse`]'s grammar.
#[derive(Debug, thiserror::Error)]
pub enum RouteParseError {
    /// An address or prefix is wrong.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// A word that the grammar does not know.
    #[error("route \"{route}\": unexpected \"{word}\"")]
    Word {
        /// The whole text.
        route: String,
        /// The word.
        word: String,
    },
    /// A word needs another one after it.
    #[error("route \"{route}\": \"{word}\" needs a value")]
    Missing {
        /// The whole text.
        route: String,
        /// The word.
        word: String,
    },
    /// The device does not exist.
    #[error("route \"{route}\": {source}")]
    Device {
        /// The whole text.
        route: String,
        /// The lookup's error.
        source: NetlinkError,
    },
}

impl KernelRoute {
    /// A unicast route to `prefix` through one next hop, in table main.
    pub fn new(prefix: IpNet, hop: KernelHop) -> Self {
        KernelRoute {
            prefix,
            kind: KernelRouteKind::Unicast,
            hops: vec![hop],
            table: RT_TABLE_MAIN,
            metric: None,
            mtu: None,
            src: None,
        }
    }

    /// A route to `prefix` through a gateway of either family.
    pub fn via(prefix: IpNet, gateway: IpAddr) -> Self {
        Self::new(prefix, KernelHop { via: Some(gateway), ..Default::default() })
    }

    /// A route to `prefix` on a link.
    pub fn dev(prefix: IpNet, oif: u32) -> Self {
        Self::new(prefix, KernelHop { oif: Some(oif), ..Default::default() })
    }

    /// Reads the part of iproute2's grammar that labs need:
    /// `[TYPE] PREFIX|default [via [inet|inet6] ADDRESS] [dev NAME] [mtu N] [metric N] [src ADDRESS] [table N]
    /// [onlink] [nexthop [via ...] [dev NAME] [weight N] [onlink]]...`.
    /// `default` is of the gateway's family; use `0.0.0.0/0 via inet6 ...` for the mixed one.
    /// `index_of` finds the index of a device.
    ///
    /// # Errors
    /// [`RouteParseError`] names the word that does not fit.
    pub fn parse(
        text: &str,
        mut index_of: impl FnMut(&str) -> Result<u32, NetlinkError>,
    ) -> Result<Self, RouteParseError> {
        let bad = |word: &str| RouteParseError::Word { route: text.to_owned(), word: word.to_owned() };
        let mut words = text.split_whitespace().peekable();
        let kind = match words.peek().copied() {
            Some("unicast") => Some(KernelRouteKind::Unicast),
            Some("local") => Some(KernelRouteKind::Local),
            Some("blackhole") => Some(KernelRouteKind::Blackhole),
            Some("unreachable") => Some(KernelRouteKind::Unreachable),
            Some("prohibit") => Some(KernelRouteKind::Prohibit),
            Some("throw") => Some(KernelRouteKind::Throw),
            _ => None,
        };
        if kind.is_some() {
            words.next();
        }
        let dest = words.next().ok_or_else(|| bad(""))?;
        let mut hop = KernelHop::default();
        let mut hops = Vec::new();
        let mut multipath = false;
        let mut route = KernelRoute::new(Family::Inet.default_prefix(), KernelHop::default());
        while let Some(word) = words.next() {
            if word == "nexthop" {
                if std::mem::replace(&mut multipath, true) {
                    hops.push(std::mem::take(&mut hop));
                }
                continue;
            }
            if word == "onlink" {
                hop.onlink = true;
                continue;
            }
            let mut value = words
                .next()
                .ok_or_else(|| RouteParseError::Missing { route: text.to_owned(), word: word.to_owned() })?;
            let number = |v: &str| v.parse::<u32>().map_err(|_| bad(v));
            match word {
                "via" => {
                    if value == "inet" || value == "inet6" {
                        value = words.next().ok_or_else(|| bad(value))?;
                    }
                    hop.via = Some(parse_addr(value)?);
                }
                "dev" => {
                    let found = index_of(value);
                    hop.oif = Some(found.map_err(|source| RouteParseError::Device { route: text.to_owned(), source })?);
                }
                "weight" => hop.weight = value.parse().map_err(|_| bad(value))?,
                "mtu" => route.mtu = Some(number(value)?),
                "metric" => route.metric = Some(number(value)?),
                "table" => route.table = number(value)?,
                "src" => route.src = Some(parse_addr(value)?),
                _ => return Err(bad(word)),
            }
        }
        route.prefix = match dest {
            "default" => hops.first().unwrap_or(&hop).via.map_or(Family::Inet, |gw| Family::of(&gw)).default_prefix(),
            _ => parse_prefix(dest)?,
        };
        route.kind = kind.unwrap_or_default();
        hops.push(hop);
        route.hops = if route.kind == KernelRouteKind::Unicast { hops } else { Vec::new() };
        Ok(route)
    }
}

/// What the kernel would do with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibLookup {
    /// Unicast, local or a refusal.
    pub kind: KernelRouteKind,
    /// The egress link.
    pub oif: Option<u32>,
    /// The gateway, of either family; None if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub prefsrc: Option<IpAddr>,
    /// The MTU of the route or, after path MTU discovery, the learned one (RTAX_MTU).
    pub mtu: Option<u32>,
    /// The table that matched, if the kernel says.
    pub table: Option<u32>,
}

impl Netlink {
    /// Adds a route; one with the same prefix and metric must not exist.
    pub fn add_route(&mut self, route: &KernelRoute) -> Result<(), NetlinkError> {
        self.put_route(route, NLM_F_CREATE | NLM_F_EXCL, "add")
    }

    /// Adds a route or replaces the one of the same prefix and metric.
    pub fn replace_route(&mut self, route: &KernelRoute) -> Result<(), NetlinkError> {
        self.put_route(route, NLM_F_CREATE | NLM_F_REPLACE, "replace")
    }

    /// Deletes the first route that matches in prefix, table and whatever else is said.
    pub fn del_route(&mut self, route: &KernelRoute) -> Result<(), NetlinkError> {
        let mut m = message(route);
        if route.kind == KernelRouteKind::Unicast {
            // Scope "nowhere" matches every scope; the exact one would have to repeat how the route was made.
            m.header.scope = RouteScope::NoWhere;
        }
        m.header.protocol = RouteProtocol::Unspec;
        self.acked(Rtnl::DelRoute(m), 0, || format!("delete route {}", route.prefix))
    }

    /// Adds many routes, pipelined.
    ///
    /// # Errors
    /// The first refusal; the others are tried all the same.
    pub fn add_routes(&mut self, routes: &[KernelRoute]) -> Result<(), NetlinkError> {
        let mut first: Option<(usize, (io::Error, Option<String>))> = None;
        let messages = routes.iter().map(|r| Rtnl::NewRoute(message(r))).collect();
        self.pipeline(messages, NLM_F_CREATE | NLM_F_EXCL, |index, e| {
            first.get_or_insert((index, e));
        })?;
        match first {
            None => Ok(()),
            Some((index, (source, detail))) => {
                let prefix = routes.get(index).map(|r| r.prefix.to_string()).unwrap_or_default();
                Err(NetlinkError::Kernel { what: format!("add route {prefix}"), source, detail })
            }
        }
    }

    /// All routes of a table in one family.
    pub fn routes(&mut self, family: Family, table: u32) -> Result<Vec<KernelRoute>, NetlinkError> {
        let mut m = RouteMessage::default();
        m.header.address_family = wire_family(family);
        let entries = self.dump(Rtnl::GetRoute(m), || format!("list {family} routes"))?;
        Ok(entries
            .into_iter()
            .filter_map(|e| match e {
                // Cloned entries are cached exceptions, not routes.
                Rtnl::NewRoute(m) if !m.header.flags.contains(RouteFlags::Cloned) => decode(&m, family),
                _ => None,
            })
            .filter(|r| r.table == table)
            .collect())
    }

    /// Asks the kernel's FIB where a packet to `dst` goes (`ip route get`).
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] with ENETUNREACH, EHOSTUNREACH, EACCES or EINVAL where the answer is a refusal.
    pub fn lookup(&mut self, dst: IpAddr) -> Result<FibLookup, NetlinkError> {
        self.lookup_from(dst, None, None)
    }

    /// As [`Netlink::lookup`], for a packet from `src` out of or into a certain link: `oif` restricts the egress link.
    pub fn lookup_from(
        &mut self,
        dst: IpAddr,
        src: Option<IpAddr>,
        oif: Option<u32>,
    ) -> Result<FibLookup, NetlinkError> {
        let family = Family::of(&dst);
        let mut m = RouteMessage::default();
        m.header.address_family = wire_family(family);
        m.header.destination_prefix_length = family.bits();
        m.header.flags = RouteFlags::LookupTable;
        m.attributes.push(RouteAttribute::Destination(dst.into()));
        if let Some(src) = src {
            m.header.source_prefix_length = family.bits();
            m.attributes.push(RouteAttribute::Source(src.into()));
        }
        m.attributes.extend(oif.map(RouteAttribute::Oif));
        let what = || format!("get route to {dst}");
        match self.get(Rtnl::GetRoute(m), what)? {
            Rtnl::NewRoute(m) => {
                let route = decode(&m, family)
                    .ok_or_else(|| NetlinkError::Answer { what: what(), why: "no route in it".to_owned() })?;
                let hop = route.hops.first().cloned().unwrap_or_default();
                Ok(FibLookup {
                    kind: route.kind,
                    oif: hop.oif,
                    gateway: hop.via,
                    prefsrc: route.src,
                    mtu: route.mtu,
                    table: (route.table != 0).then_some(route.table),
                })
            }
            _ => Err(NetlinkError::Answer { what: what(), why: "not a route".to_owned() }),
        }
    }

    fn put_route(&mut self, route: &KernelRoute, flags: u16, verb: &str) -> Result<(), NetlinkError> {
        self.acked(Rtnl::NewRoute(message(route)), flags, || format!("{verb} route {}", route.prefix))
    }
}

fn wire_family(family: Family) -> AddressFamily {
    match family {
        Family::Inet => AddressFamily::Inet,
        Family::Inet6 => AddressFamily::Inet6,
    }
}

/// The gateway attribute: RTA_GATEWAY in the route's own family, RTA_VIA across families.
fn gateway(family: Family, via: IpAddr) -> RouteAttribute {
    if Family::of(&via) == family {
        RouteAttribute::Gateway(via.into())
    } else {
        RouteAttribute::Via(RouteVia::from(via))
    }
}

fn message(route: &KernelRoute) -> RouteMessage {
    let family = Family::of_net(&route.prefix);
    let mut m = RouteMessage::default();
    m.header.address_family = wire_family(family);
    m.header.destination_prefix_length = route.prefix.prefix_len();
    m.header.table = u8::try_from(route.table).unwrap_or(0);
    m.header.protocol = RouteProtocol::Boot;
    m.header.kind = match route.kind {
        KernelRouteKind::Unicast | KernelRouteKind::Other => RouteType::Unicast,
        KernelRouteKind::Local => RouteType::Local,
        KernelRouteKind::Blackhole => RouteType::BlackHole,
        KernelRouteKind::Unreachable => RouteType::Unreachable,
        KernelRouteKind::Prohibit => RouteType::Prohibit,
        KernelRouteKind::Throw => RouteType::Throw,
    };
    let direct = route.kind == KernelRouteKind::Unicast && route.hops.iter().all(|h| h.via.is_none());
    m.header.scope = match route.kind {
        KernelRouteKind::Local => RouteScope::Host,
        _ if direct => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let a = &mut m.attributes;
    if route.prefix.prefix_len() > 0 {
        a.push(RouteAttribute::Destination(route.prefix.network().into()));
    }
    a.push(RouteAttribute::Table(route.table));
    a.extend(route.metric.map(RouteAttribute::Priority));
    a.extend(route.src.map(|s| RouteAttribute::PrefSource(s.into())));
    a.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    match &route.hops[..] {
        [] => {}
        [hop] => {
            a.extend(hop.via.map(|via| gateway(family, via)));
            a.extend(hop.oif.map(RouteAttribute::Oif));
            if hop.onlink {
                m.header.flags |= RouteFlags::Onlink;
            }
        }
        hops => a.push(RouteAttribute::MultiPath(hops.iter().map(|h| multipath(family, h)).collect())),
    }
    m
}

fn multipath(family: Family, hop: &KernelHop) -> RouteNextHop {
    let mut n = RouteNextHop::default();
    n.interface_index = hop.oif.unwrap_or(0);
    n.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    if hop.onlink {
        n.flags = RouteNextHopFlags::Onlink;
    }
    n.attributes.extend(hop.via.map(|via| gateway(family, via)));
    n
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn gateway_of(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(a) => ip(a),
        RouteAttribute::Via(RouteVia::Inet(a)) => Some(IpAddr::V4(*a)),
        RouteAttribute::Via(RouteVia::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })
}

fn decode(m: &RouteMessage, family: Family) -> Option<KernelRoute> {
    let mut dest = family.default_prefix().addr();
    let mut route = KernelRoute::new(family.default_prefix(), KernelHop::default());
    route.table = u32::from(m.header.table);
    route.kind = match m.header.kind {
        RouteType::Unicast => KernelRouteKind::Unicast,
        RouteType::Local => KernelRouteKind::Local,
        RouteType::BlackHole => KernelRouteKind::Blackhole,
        RouteType::Unreachable => KernelRouteKind::Unreachable,
        RouteType::Prohibit => KernelRouteKind::Prohibit,
        RouteType::Throw => KernelRouteKind::Throw,
        _ => KernelRouteKind::Other,
    };
    let mut hop = KernelHop { via: gateway_of(&m.attributes), ..Default::default() };
    hop.onlink = m.header.flags.contains(RouteFlags::Onlink);
    let mut many = Vec::new();
    for attribute in &m.attributes {
        match attribute {
            RouteAttribute::Destination(a) => dest = ip(a)?,
            RouteAttribute::Table(t) => route.table = *t,
            RouteAttribute::Priority(p) => route.metric = Some(*p),
            RouteAttribute::PrefSource(a) => route.src = ip(a),
            RouteAttribute::Oif(i) => hop.oif = Some(*i),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|x| match x {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => many.extend(hops.iter().map(|n| KernelHop {
                via: gateway_of(&n.attributes),
                oif: Some(n.interface_index),
                onlink: n.flags.contains(RouteNextHopFlags::Onlink),
                weight: u16::from(n.hops) + 1,
            })),
            _ => {}
        }
    }
    route.prefix = IpNet::new(dest, m.header.destination_prefix_length).ok()?;
    route.hops = match (many.is_empty(), hop.via.is_some() || hop.oif.is_some()) {
        (false, _) => many,
        (true, true) => vec![hop],
        (true, false) => Vec::new(),
    };
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> Result<u32, NetlinkError> {
        if name == "eth0" { Ok(7) } else { Err(NetlinkError::NoSuchLink(name.to_owned())) }
    }

    #[test]
    fn grammar() {
        let r = KernelRoute::parse("203.0.113.0/24 via inet6 2001:db8::1 dev eth0 mtu 1400 metric 5 onlink", index)
            .unwrap();
        assert_eq!(r.prefix.to_string(), "203.0.113.0/24");
        assert_eq!(r.mtu, Some(1400));
        assert_eq!(r.metric, Some(5));
        let via = Some("2001:db8::1".parse().unwrap());
        assert_eq!(r.hops, [KernelHop { via, oif: Some(7), onlink: true, weight: 0 }]);
        assert_eq!(KernelRoute::parse("default via ::1", index).unwrap().prefix.to_string(), "::/0");
        assert_eq!(KernelRoute::parse("default dev eth0", index).unwrap().prefix.to_string(), "0.0.0.0/0");
        assert!(KernelRoute::parse("blackhole 10.0.0.0/8", index).unwrap().hops.is_empty());
        for bad in ["", "10.0.0.1/8 dev eth0", "10.0.0.0/8 dev", "10.0.0.0/8 dev eth1", "10.0.0.0/8 foo bar"] {
            assert!(KernelRoute::parse(bad, index).is_err(), "{bad}");
        }
    }
}
