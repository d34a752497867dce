//! What the broker keeps: accounts, tunnels, the audit log.

use crate::control::AuditInfo;
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

/// Seconds since 1970, UTC.
pub type Time = i64;

/// The present time.
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// The account of tunnels that were given to clients without one.
pub const ANONYMOUS: &str = "anonymous";

/// An account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its name: 1 to 32 of a to z, 0 to 9, `.`, `_`, `-`.
    pub name: String,
    /// Argon2id of the password.
    pub password: String,
    /// Argon2id of the MD5 of the password in hexadecimal: what some old update clients send instead of it.
    pub legacy: String,
    /// MD5 of `user:realm:password`, which DIGEST-MD5 (RFC 2831 2.1.2.1) needs; only where the configuration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether it may log in and its tunnels work.
    pub enabled: bool,
    /// Tunnels it may have; None: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tunnels: Option<u32>,
    /// When it was made.
    pub created: Time,
}

/// How the packets of a tunnel travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// IPv6 in IPv4, protocol 41 (RFC 4213); TSP's `v6v4`.
    #[serde(rename = "6in4")]
    SixInFour,
    /// IPv6 in UDP over IPv4, through NATs; TSP's `v6udpv4`.
    #[serde(rename = "6inudp4")]
    SixInUdp,
    /// IPv4 in IPv6 (RFC 2473); TSP's `v4v6`.
    #[serde(rename = "4in6")]
    FourInSix,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::SixInFour, Mode::SixInUdp, Mode::FourInSix];

    /// Its name here.
    pub fn name(self) -> &'static str {
        match self {
            Mode::SixInFour => "6in4",
            Mode::SixInUdp => "6inudp4",
            Mode::FourInSix => "4in6",
        }
    }

    /// Its name in TSP (RFC 5572).
    pub fn tsp(self) -> &'static str {
        match self {
            Mode::SixInFour => "v6v4",
            Mode::SixInUdp => "v6udpv4",
            Mode::FourInSix => "v4v6",
        }
    }

    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// A tunnel that was handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its number, never used twice.
    pub id: u32,
    /// Whose.
    pub account: String,
    /// What the account calls it.
    pub name: String,
    /// How it travels.
    pub mode: Mode,
    /// The client's outer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IpAddr>,
    /// The client's UDP port, as seen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The /64 of the tunnel itself: ::1 is the server, ::2 the client. With IPv4 inside, a /30 in mapped notation.
    pub link: Ipv6Net,
    /// Delegated prefixes.
    pub prefixes: Vec<IpNet>,
    /// Argon2id of the update key.
    pub key: String,
    /// When it was made.
    pub created: Time,
    /// When its endpoint changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Time>,
    /// When the client was last heard, to the hour at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Time>,
    /// When it ends unless it is used; 0: never.
    #[serde(default)]
    pub until: Time,
}

impl Tunnel {
    /// The server's inner address.
    pub fn server_inner(&self) -> IpAddr {
        nth(&self.link, 1)
    }

    /// The client's inner address.
    pub fn client_inner(&self) -> IpAddr {
        nth(&self.link, 2)
    }

    /// The network of the tunnel itself.
    pub fn link_net(&self) -> IpNet {
        unmapped(self.link)
    }

    /// What may be the source of packets that come out of it: its own network and what was delegated.
    pub fn sources(&self) -> impl Iterator<Item = IpNet> + '_ {
        std::iter::once(self.link_net()).chain(self.prefixes.iter().copied())
    }

    /// What it holds of the pools.
    pub fn held(&self) -> impl Iterator<Item = IpNet> + '_ {
        std::iter::once(IpNet::V6(self.link)).chain(self.prefixes.iter().copied())
    }
}

fn nth(net: &Ipv6Net, n: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() | n)).to_canonical()
}

/// A network in mapped notation (RFC 4291 2.5.5.2) is one of IPv4, any other is itself.
pub fn unmapped(net: Ipv6Net) -> IpNet {
    let four = net.network().to_ipv4_mapped().filter(|_| net.prefix_len() >= 96);
    four.and_then(|a| IpNet::new(IpAddr::V4(a), net.prefix_len() - 96).ok()).unwrap_or(IpNet::V6(net))
}

/// The other way round: pools and the database know one notation.
pub fn mapped(net: ipnet::Ipv4Net) -> Ipv6Net {
    Ipv6Net::new(net.network().to_ipv6_mapped(), net.prefix_len() + 96).unwrap_or_default()
}

/// An entry of the audit log.
pub type Audit = AuditInfo;

/// Whether a text may name an account.
pub fn valid_account(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (1..=32).contains(&name.len()) && name.chars().all(fine) && !name.starts_with(['.', '-'])
}

/// Whether a text may be what an account calls a tunnel: it is shown to people and quoted in commands.
pub fn valid_label(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=32).contains(&name.len()) && name.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_both_families() {
        let four: ipnet::Ipv4Net = "10.64.0.0/16".parse().unwrap();
        assert_eq!(mapped(four).to_string(), "::ffff:10.64.0.0/112");
        assert_eq!(unmapped(mapped(four)), IpNet::V4(four));
        let six: Ipv6Net = "2001:db8:7::/64".parse().unwrap();
        assert_eq!(unmapped(six), IpNet::V6(six));
        assert_eq!(nth(&mapped("10.64.0.4/30".parse().unwrap()), 2).to_string(), "10.64.0.6");
    }

    #[test]
    fn names() {
        for good in ["joe", "a.b_c-9", "0"] {
            assert!(valid_account(good), "{good}");
        }
        for bad in ["", "Joe", "-a", ".a", "a b", "a\"", "ä", &"a".repeat(33), "a/../b", "a\n"] {
            assert!(!valid_account(bad), "{bad}");
        }
        assert!(valid_label("Home-1") && !valid_label("<b>") && !valid_label(""));
        for m in Mode::ALL {
            assert_eq!(Mode::parse(m.name()), Some(m));
        }
    }
}
