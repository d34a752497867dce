//! Addresses and prefixes as people write them.
//!
//! IPv4-mapped notation (`::ffff:192.0.2.1`, RFC 4291 2.5.5.2) is read as the IPv4 address it carries, wherever an
//! address is read, and is never put on a wire. Prefixes follow iproute2: a bare address is a host prefix, `default`
//! and `any` need a family, host bits are an error.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address family. Its text is iproute2's: `inet` and `inet6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: &IpAddr) -> Self {
        if addr.is_ipv4() { Family::Inet } else { Family::Inet6 }
    }

    /// The family of a prefix.
    pub fn of_net(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Family::Inet,
            IpNet::V6(_) => Family::Inet6,
        }
    }

    /// The default route's prefix: `0.0.0.0/0` or `::/0`.
    pub fn default_prefix(self) -> IpNet {
        match self {
            Family::Inet => IpNet::V4(Ipv4Net::default()),
            Family::Inet6 => IpNet::V6(Ipv6Net::default()),
        }
    }

    /// Number of bits of an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::Inet => 32,
            Family::Inet6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
        })
    }
}

/// Why a text is not an address or prefix. The message names the text and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Not an IPv4 or IPv6 address.
    #[error("\"{0}\" is not an IPv4 or IPv6 address")]
    Address(String),
    /// Not a prefix.
    #[error("\"{0}\" is not a prefix: expected ADDRESS/LENGTH")]
    Prefix(String),
    /// The length does not fit the family.
    #[error("\"{0}\": prefix length must be 0 to {1}")]
    Length(String, u8),
    /// Bits beyond the length are set.
    #[error("\"{given}\" has bits set beyond its length; did you mean {meant}?")]
    HostBits {
        /// The text as given.
        given: String,
        /// The same prefix with the host bits cleared.
        meant: IpNet,
    },
    /// Not a MAC address.
    #[error("\"{0}\" is not a link-layer address: expected six hex bytes such as 02:00:00:00:00:01")]
    Mac(String),
}

/// Turns an IPv4-mapped IPv6 address into the IPv4 address it carries; leaves all others alone.
pub fn unmap(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// Reads an address; IPv4-mapped notation gives the IPv4 address.
pub fn parse_addr(text: &str) -> Result<IpAddr, AddrError> {
    text.parse::<IpAddr>().map(unmap).map_err(|_| AddrError::Address(text.to_owned()))
}

/// Reads `ADDRESS/LENGTH` or a bare address (a host prefix) and keeps host bits, as in `192.0.2.1/24`.
///
/// A mapped prefix `::ffff:192.0.2.0/120` is the IPv4 prefix `192.0.2.0/24`; lengths under 96 stay IPv6.
pub fn parse_interface_addr(text: &str) -> Result<IpNet, AddrError> {
    let (addr_text, len_text) = match text.split_once('/') {
        Some((a, l)) => (a, Some(l)),
        None => (text, None),
    };
    let raw = addr_text.parse::<IpAddr>().map_err(|_| match len_text {
        Some(_) => AddrError::Prefix(text.to_owned()),
        None => AddrError::Address(text.to_owned()),
    })?;
    let max = Family::of(&raw).bits();
    let len = match len_text {
        None => max,
        Some(l) if !l.is_empty() && l.len() <= 3 && l.bytes().all(|b| b.is_ascii_digit()) => {
            l.parse::<u8>().ok().filter(|n| *n <= max).ok_or_else(|| AddrError::Length(text.to_owned(), max))?
        }
        Some(_) => return Err(AddrError::Length(text.to_owned(), max)),
    };
    let (addr, len) = match raw.to_canonical() {
        v4 @ IpAddr::V4(_) if raw.is_ipv6() && len >= 96 => (v4, len - 96),
        _ if raw.is_ipv6() => (raw, len),
        same => (same, len),
    };
    IpNet::new(addr, len).map_err(|_| AddrError::Length(text.to_owned(), max))
}

/// Reads a route prefix: as [`parse_interface_addr`], but bits beyond the length are an error.
pub fn parse_prefix(text: &str) -> Result<IpNet, AddrError> {
    let net = parse_interface_addr(text)?;
    if net.trunc() != net {
        return Err(AddrError::HostBits { given: text.to_owned(), meant: net.trunc() });
    }
    Ok(net)
}

/// A 48-bit link-layer (MAC) address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether the group bit is set: broadcast or multicast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this can be the address of one station: neither a group nor all zero.
    pub fn is_unicast(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// The modified EUI-64 interface identifier's link-local address (RFC 4291 2.5.1 and appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let m = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]])
    }

    /// The Ethernet group of an IPv6 multicast address: `33:33` and its last four bytes (RFC 2464 7).
    pub fn for_ipv6_multicast(group: Ipv6Addr) -> MacAddr {
        let o = group.octets();
        MacAddr([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }

    /// The Ethernet group of an IPv4 multicast address: `01:00:5e` and its low 23 bits (RFC 1112 6.4).
    pub fn for_ipv4_multicast(group: Ipv4Addr) -> MacAddr {
        let o = group.octets();
        MacAddr([1, 0, 0x5e, o[1] & 0x7f, o[2], o[3]])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = AddrError;
    fn from_str(s: &str) -> Result<Self, AddrError> {
        let bad = || AddrError::Mac(s.to_owned());
        let mut out = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for byte in &mut out {
            let p = parts.next().ok_or_else(bad)?;
            if p.is_empty() || p.len() > 2 || !p.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(p, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(MacAddr(out))
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_follow_iproute2() {
        let ok = [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ];
        for (text, want) in ok {
            assert_eq!(parse_prefix(text).unwrap().to_string(), want, "{text}");
        }
        for text in ["192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "10/8", "010.0.0.0/8", "192.0.2.0/+8", "", "/8", "x"]
        {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }

    /// Proves rfc4291-a-eui64.
    #[test]
    fn mac_round_trip() {
        let m: MacAddr = "02:00:5e:00:53:ff".parse().unwrap();
        assert_eq!(m.to_string(), "02:00:5e:00:53:ff");
        assert_eq!(m.link_local().to_string(), "fe80::5eff:fe00:53ff");
        assert!("02:00:5e:00:53".parse::<MacAddr>().is_err());
        assert!("02:00:5e:00:53:ff:00".parse::<MacAddr>().is_err());
        assert!("02:00:5e:00:53:+f".parse::<MacAddr>().is_err());
    }
}
