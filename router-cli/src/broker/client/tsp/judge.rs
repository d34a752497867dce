//! Whether what a server offers can be a tunnel of ours: a hostile one must not be able to make this router send to somebody
//! else, take over addresses that are in use here, or route what nobody delegates.

use super::document::{Address, Told};
use crate::broker::model::{Mode, now};
use crate::control::LeaseInfo;
use ipnet::IpNet;
use router_core::counters::PortTotals;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Shortest IPv6 prefix that is believed to be delegated: what a provider has in all.
const SHORTEST: u8 = 32;
/// The same of IPv4.
const SHORTEST_V4: u8 = 16;
/// Seconds: how long a tunnel is kept at least, and at most, before it is asked for again.
const LIFETIME: std::ops::RangeInclusive<u64> = 120..=172_800;

/// What it is measured by.
#[derive(Clone, Debug)]
pub struct Measure<'a> {
    /// The kind that was asked for, as the protocol calls it.
    pub kind: &'static str,
    /// With whom we spoke.
    pub peer: SocketAddr,
    /// Our own outer address.
    pub own: IpAddr,
    /// Where else the tunnel may end, by the operator's word.
    pub server: Option<IpAddr>,
    /// Length of the prefix that was asked for.
    pub prefix: Option<u8>,
    /// What is in use here: by whom, and which network.
    pub taken: &'a [(String, IpNet)],
    /// The tunnel's name here, and the account there.
    pub names: (&'a str, &'a str),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another kind than was asked for.
    #[error("it offers a tunnel of kind \"{0}\"; asked for was {1}")]
    Kind(String, &'static str),
    /// An address is missing, or there are several.
    #[error("its offer has not exactly one {0} address of {1} end")]
    Addresses(&'static str, &'static str),
    /// The tunnel would go to somebody else.
    #[error("the tunnel would end at {0}, which is not the server that was asked ({1})")]
    Foreign(IpAddr, IpAddr),
    /// No address can be this.
    #[error("{0} cannot be {1}")]
    Nonsense(IpAddr, &'static str),
    /// Not a network that is delegated to anybody.
    #[error("{0} cannot be a delegated prefix: {1}")]
    Prefix(IpNet, &'static str),
    /// No prefix although one was asked for.
    #[error("it delegates no prefix, although a /{0} was asked for; say \"prefix none\" if none is needed")]
    NoPrefix(u8),
    /// In use here.
    #[error("{0} overlaps {2} of {1} here")]
    Taken(IpNet, String, IpNet),
}

/// How often to log in again, by the lifetime that the server told: long before it ends.
pub fn renewal(lifetime: Option<u64>) -> std::time::Duration {
    // None, or zero: for ever.
    let seconds = lifetime.filter(|l| *l > 0).unwrap_or(*LIFETIME.end()).clamp(*LIFETIME.start(), *LIFETIME.end());
    std::time::Duration::from_secs(seconds / 2)
}

/// The only address of one family.
fn one(list: &[Address], six: bool, end: &'static str) -> Result<Address, Unfit> {
    let mut found = list.iter().filter(|a| a.addr.is_ipv6() == six);
    match (found.next(), found.next()) {
        (Some(a), None) => Ok(*a),
        _ => Err(Unfit::Addresses(if six { "IPv6" } else { "IPv4" }, end)),
    }
}

/// Whether a host may have this address, on the Internet or in a private network.
fn is_host(a: IpAddr) -> bool {
    match a {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            !(first == 0 || first >= 224 || a.is_loopback() || a.is_link_local())
        }
        IpAddr::V6(a) => is_global(a) && a.to_ipv4_mapped().is_none(),
    }
}

/// Global unicast (2000::/3) or unique local (fc00::/7); of the first not what has another meaning: 6to4 and Teredo.
fn is_global(a: Ipv6Addr) -> bool {
    let [first, second, ..] = a.segments();
    let other = first == 0x2002 || first == 0x2001 && second == 0;
    (first & 0xe000 == 0x2000 || first & 0xfe00 == 0xfc00) && !other
}

/// The tunnel that an offer makes, if it can be one.
pub fn judge(told: &Told, m: &Measure<'_>) -> Result<LeaseInfo, Unfit> {
    let mode = Mode::ALL.into_iter().find(|mode| mode.tsp() == told.kind);
    let mode = mode.filter(|mode| match m.kind {
        "v6anyv4" => *mode != Mode::FourInSix,
        kind => mode.tsp() == kind,
    });
    let mode =
        mode.ok_or_else(|| Unfit::Kind(told.kind.chars().take(16).filter(|c| !c.is_control()).collect(), m.kind))?;
    let outer_six = mode == Mode::FourInSix;
    let server = one(&told.server, outer_six, "the server's")?;
    let inner = one(&told.server, !outer_six, "the server's")?;
    let client_inner = one(&told.client, !outer_six, "our")?;
    let seen = told.client.iter().find(|a| a.addr.is_ipv6() == outer_six);
    // In UDP the tunnel is in the flow of the conversation (RFC 5572): elsewhere it cannot end.
    let peer = m.peer.ip().to_canonical();
    let elsewhere = m.server.filter(|_| mode != Mode::SixInUdp);
    if server.addr != peer && Some(server.addr) != elsewhere {
        return Err(Unfit::Foreign(server.addr, peer));
    }
    if server.addr == m.own {
        return Err(Unfit::Nonsense(server.addr, "the server's end: it is our own address"));
    }
    for (a, what) in [
        (server.addr, "the server's end"),
        (inner.addr, "the server inside"),
        (client_inner.addr, "our address inside"),
    ] {
        // A broker on this very host is somebody's test.
        let local = a == peer && a.is_loopback();
        if !(is_host(a) || local) {
            return Err(Unfit::Nonsense(a, what));
        }
    }
    if inner.addr == client_inner.addr {
        return Err(Unfit::Nonsense(inner.addr, "both ends inside"));
    }
    let link = link(client_inner, inner.addr);
    let prefix = match (m.prefix, told.prefix) {
        (Some(wanted), None) => return Err(Unfit::NoPrefix(wanted)),
        (Some(_), Some(net)) => Some(prefix(net, &link, inner.addr)?),
        // What nobody asked for is nothing to have.
        (None, _) => None,
    };
    for net in std::iter::once(&link).chain(&prefix) {
        let clash = m.taken.iter().find(|(_, t)| t.contains(net) || net.contains(t));
        if let Some((by, taken)) = clash {
            return Err(Unfit::Taken(net.trunc(), by.clone(), taken.trunc()));
        }
    }
    let overhead = match mode {
        Mode::SixInFour => 20,
        Mode::SixInUdp => 28,
        Mode::FourInSix => 40,
    };
    let time = now();
    Ok(LeaseInfo {
        id: 0,
        account: m.names.1.to_owned(),
        name: m.names.0.to_owned(),
        mode: mode.name().into(),
        server: server.addr,
        server_port: (mode == Mode::SixInUdp).then_some(m.peer.port()),
        endpoint: seen.map(|a| a.addr),
        endpoint_port: seen.and_then(|a| a.port),
        server_inner: host(inner.addr),
        client_inner: link,
        prefixes: prefix.into_iter().collect(),
        dev: None,
        mtu: 1500 - overhead,
        created: time,
        changed: None,
        seen: Some(time),
        until: told.lifetime.filter(|l| *l > 0).and_then(|l| i64::try_from(l).ok()).and_then(|l| time.checked_add(l)),
        totals: PortTotals::default(),
    })
}

fn host(a: IpAddr) -> IpNet {
    IpNet::from(a)
}

/// Our address inside with the network that both ends are in, if that is what it is: a /64, or IPv4's /30 or /31. Anything
/// larger that a server claims is not believed.
fn link(client: Address, server: IpAddr) -> IpNet {
    let usual = if client.addr.is_ipv6() { 64 } else { 30 };
    let length = client.length.unwrap_or(usual).max(usual);
    match IpNet::new(client.addr, length) {
        Ok(net) if net.contains(&server) => net,
        _ => host(client.addr),
    }
}

/// A prefix for our network, if it can be one.
fn prefix(net: IpNet, link: &IpNet, server: IpAddr) -> Result<IpNet, Unfit> {
    let cannot = |why| Err(Unfit::Prefix(net, why));
    match net {
        _ if net.trunc() != net => return cannot("there are bits behind its length"),
        _ if net.addr().is_ipv6() != server.is_ipv6() => return cannot("it is of the other family"),
        IpNet::V6(n) if !is_global(n.network()) => return cannot("it is not global unicast"),
        IpNet::V6(n) if n.prefix_len() < SHORTEST => return cannot("nobody delegates so much"),
        IpNet::V6(n) if n.prefix_len() > 64 => return cannot("it is smaller than one link"),
        IpNet::V4(n) if n.prefix_len() < SHORTEST_V4 => return cannot("nobody delegates so much"),
        IpNet::V4(n) if !is_host(n.network().into()) || n.network() == Ipv4Addr::UNSPECIFIED => {
            return cannot("it is not unicast");
        }
        _ => {}
    }
    if net.contains(&server) || net.contains(link) || link.contains(&net) {
        return cannot("the tunnel's own addresses are in it");
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::super::document::read;
    use super::*;
    use std::time::Duration;

    const GOOD: &str = "<tunnel action=\"info\" type=\"v6v4\" lifetime=\"604800\"><server><address type=\"ipv4\">192.0.2.1</address>\
        <address type=\"ipv6\">2001:db8:7::1</address></server><client><address type=\"ipv4\">192.0.2.2</address>\
        <address type=\"ipv6\">2001:db8:7::2</address><router><prefix length=\"56\">2001:db8:7100::</prefix></router></client></tunnel>";

    fn of(text: &str, change: impl FnOnce(&mut Measure<'_>)) -> Result<LeaseInfo, Unfit> {
        let taken = [("lan".to_owned(), "fd00:1::1/64".parse().unwrap())];
        let mut m = Measure {
            kind: "v6anyv4",
            peer: "192.0.2.1:3653".parse().unwrap(),
            own: "192.0.2.2".parse().unwrap(),
            server: None,
            prefix: Some(56),
            taken: &taken,
            names: ("up", "joe"),
        };
        change(&mut m);
        judge(&read(text).unwrap(), &m)
    }

    #[test]
    fn what_may_be() {
        let t = of(GOOD, |_| {}).unwrap();
        assert_eq!((t.mode.as_str(), t.server.to_string().as_str()), ("6in4", "192.0.2.1"));
        assert_eq!(
            (t.client_inner.to_string().as_str(), t.prefixes[0].to_string().as_str()),
            ("2001:db8:7::2/64", "2001:db8:7100::/56")
        );
        // Behind a NAT, in UDP; a point-to-point address.
        let udp = GOOD
            .replace("v6v4", "v6udpv4")
            .replace("192.0.2.2", "203.0.113.9")
            .replace("\"ipv6\">2001:db8:7::2", "\"ipv6\" length=\"128\">2001:db8:9::2");
        let t = of(&udp, |m| m.own = "10.0.0.2".parse().unwrap()).unwrap();
        assert_eq!((t.mode.as_str(), t.server_port, t.endpoint), ("6inudp4", Some(3653), "203.0.113.9".parse().ok()));
        assert_eq!(t.client_inner.to_string(), "2001:db8:9::2/128");
        // A tunnel server beside the broker, by the operator's word.
        let other = GOOD.replace("192.0.2.1", "192.0.2.99");
        assert_eq!(of(&other, |m| m.server = "192.0.2.99".parse().ok()).unwrap().server.to_string(), "192.0.2.99");
        // What was not asked for is left.
        assert_eq!(of(GOOD, |m| m.prefix = None).unwrap().prefixes, []);
        let four = "<tunnel type=\"v4v6\"><server><address type=\"ipv6\">2001:db8::1</address><address type=\"ipv4\">10.9.0.1</address></server>\
            <client><address type=\"ipv6\">2001:db8::2</address><address type=\"ipv4\">10.9.0.2</address></client></tunnel>";
        let six = |m: &mut Measure<'_>| {
            (m.kind, m.prefix) = ("v4v6", None);
            (m.peer, m.own) = ("[2001:db8::1]:3653".parse().unwrap(), "2001:db8::2".parse().unwrap());
        };
        let t = of(four, six).unwrap();
        assert_eq!((t.mode.as_str(), t.client_inner.to_string().as_str()), ("4in6", "10.9.0.2/30"));
    }

    #[test]
    fn what_may_not() {
        let say = |from: &str, to: &str| of(&GOOD.replace(from, to), |_| {}).unwrap_err().to_string();
        for (from, to, why) in [
            // Packets to somebody else, to ourselves, to nowhere.
            ("192.0.2.1<", "198.51.100.66<", "198.51.100.66, which is not the server that was asked (192.0.2.1)"),
            ("type=\"v6v4\"", "type=\"v4v6\"", "kind \"v4v6\"; asked for was v6anyv4"),
            ("type=\"v6v4\"", "type=\"ppp\"", "kind \"ppp\""),
            ("<address type=\"ipv6\">2001:db8:7::1</address>", "", "exactly one IPv6 address of the server's end"),
            ("2001:db8:7::1<", "2001:db8:7::1</address><address type=\"ipv6\">2001:db8:7::3<", "exactly one IPv6"),
            ("2001:db8:7::2", "ff02::1", "ff02::1 cannot be our address inside"),
            ("2001:db8:7::2", "::1", "::1 cannot be our address inside"),
            ("2001:db8:7::2", "fe80::1", "fe80::1 cannot be"),
            ("2001:db8:7::2", "::ffff:10.0.0.1", "cannot be our address inside"),
            ("2001:db8:7::2", "2002:c000:201::1", "cannot be our address inside"),
            ("2001:db8:7::2", "2001:db8:7::1", "cannot be both ends inside"),
            // Prefixes that nobody delegates.
            ("56\">2001:db8:7100::", "0\">::", "not global unicast"),
            ("56\">2001:db8:7100::", "3\">2000::", "nobody delegates so much"),
            ("56\">2001:db8:7100::", "31\">2001:db8::", "nobody delegates so much"),
            ("56\">2001:db8:7100::", "128\">2001:db8:7100::1", "smaller than one link"),
            ("56\">2001:db8:7100::", "56\">2001:db8:7100:1:2::", "bits behind its length"),
            ("56\">2001:db8:7100::", "56\">ff02::", "not global unicast"),
            ("56\">2001:db8:7100::", "56\">fe80::", "not global unicast"),
            ("56\">2001:db8:7100::", "24\">10.0.0.0", "other family"),
            ("56\">2001:db8:7100::", "48\">2001:db8:7::", "the tunnel's own addresses are in it"),
            (
                "<router><prefix length=\"56\">2001:db8:7100::</prefix></router>",
                "",
                "delegates no prefix, although a /56",
            ),
            // What is in use here.
            ("56\">2001:db8:7100::", "56\">fd00:1::", "fd00:1::/56 overlaps fd00:1::/64 of lan"),
            ("2001:db8:7::2", "fd00:1::2", "fd00:1::2/128 overlaps fd00:1::/64 of lan"),
        ] {
            let said = say(from, to);
            assert!(said.contains(why), "{to}: {said}");
        }
        let own = of(GOOD, |m| m.own = "192.0.2.1".parse().unwrap()).unwrap_err();
        assert!(own.to_string().contains("our own address"), "{own}");
        // In UDP the tunnel is where the conversation is, whatever the operator said.
        let udp = GOOD.replace("v6v4", "v6udpv4").replace("192.0.2.1", "192.0.2.99");
        assert!(matches!(of(&udp, |m| m.server = "192.0.2.99".parse().ok()), Err(Unfit::Foreign(..))));
        for outer in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "169.254.0.1"] {
            let text = GOOD.replace("192.0.2.1<", &format!("{outer}<"));
            let said = of(&text, |m| m.server = outer.parse().ok());
            assert!(matches!(said, Err(Unfit::Nonsense(..))), "{outer}: {said:?}");
        }
    }

    #[test]
    fn renewals() {
        for (told, seconds) in
            [(None, 86_400), (Some(0), 86_400), (Some(1), 60), (Some(3600), 1800), (Some(u64::MAX), 86_400)]
        {
            assert_eq!(renewal(told), Duration::from_secs(seconds), "{told:?}");
        }
    }
}
