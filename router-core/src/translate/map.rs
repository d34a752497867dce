//! Explicit address mappings (RFC 7757): pairs of an IPv4 and an IPv6 prefix whose addresses stand for each other.

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One pair, written `192.0.2.0/28 = 2001:db8:aa::/124`. A length left out means a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Eam {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// Why a pair or a table of pairs is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EamError {
    /// Not two prefixes.
    #[error("\"{0}\" is not a mapping; write \"192.0.2.0/28 = 2001:db8:aa::/124\"")]
    Text(String),
    /// Bits beyond the length.
    #[error("{0} has bits set beyond the length of its prefixes")]
    HostBits(Eam),
    /// RFC 7757 3.2: the IPv6 side must have room for every IPv4 address.
    #[error("{0}: the IPv6 prefix leaves fewer bits than the IPv4 prefix (RFC 7757 3.2)")]
    Room(Eam),
    /// RFC 7757 3.2: each prefix once.
    #[error("{0} and {1} have a prefix in common: each may be mapped once (RFC 7757 3.2)")]
    Twice(Eam, Eam),
}

impl Eam {
    /// A pair of prefixes.
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<Self, EamError> {
        let eam = Eam { v4, v6 };
        if v4.network() != v4.addr() || v6.network() != v6.addr() {
            return Err(EamError::HostBits(eam));
        }
        if 32 - v4.prefix_len() > 128 - v6.prefix_len() {
            return Err(EamError::Room(eam));
        }
        Ok(eam)
    }

    /// The IPv4 side.
    pub fn v4(&self) -> Ipv4Net {
        self.v4
    }

    /// The IPv6 side.
    pub fn v6(&self) -> Ipv6Net {
        self.v6
    }

    /// Bits of an address that the IPv4 prefix leaves.
    fn suffix_len(&self) -> u32 {
        32 - u32::from(self.v4.prefix_len())
    }

    /// RFC 7757 3.3.1: the IPv4 suffix behind the IPv6 prefix, padded with zeros.
    #[inline]
    fn to_v6(self, a: Ipv4Addr) -> Ipv6Addr {
        let n = self.suffix_len();
        let suffix = u128::from(a.to_bits()) & ((1 << n) - 1);
        let room = 128 - u32::from(self.v6.prefix_len());
        Ipv6Addr::from_bits(self.v6.addr().to_bits() | suffix.checked_shl(room - n).unwrap_or(0))
    }

    /// RFC 7757 3.3.2: the bits behind the IPv6 prefix, as many as the IPv4 prefix leaves; the rest is stripped.
    #[inline]
    fn to_v4(self, a: Ipv6Addr) -> Ipv4Addr {
        let n = self.suffix_len();
        let room = 128 - u32::from(self.v6.prefix_len());
        let suffix = a.to_bits().checked_shr(room - n).unwrap_or(0) & ((1 << n) - 1);
        Ipv4Addr::from_bits(self.v4.addr().to_bits() | suffix as u32)
    }
}

impl fmt::Display for Eam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v4.prefix_len() {
            32 => write!(f, "{} = ", self.v4.addr())?,
            _ => write!(f, "{} = ", self.v4)?,
        }
        match self.v6.prefix_len() {
            128 => write!(f, "{}", self.v6.addr()),
            _ => write!(f, "{}", self.v6),
        }
    }
}

impl FromStr for Eam {
    type Err = EamError;

    fn from_str(text: &str) -> Result<Self, EamError> {
        let wrong = || EamError::Text(text.to_owned());
        let (a, b) = text.split_once('=').ok_or_else(wrong)?;
        let v4 = |t: &str| match t.contains('/') {
            true => t.parse().ok(),
            false => t.parse::<Ipv4Addr>().ok().map(Ipv4Net::from),
        };
        let v6 = |t: &str| match t.contains('/') {
            true => t.parse().ok(),
            false => t.parse::<Ipv6Addr>().ok().map(Ipv6Net::from),
        };
        let (a, b) = (a.trim(), b.trim());
        let pair = match (v4(a), v6(b), v4(b), v6(a)) {
            (Some(v4), Some(v6), ..) | (_, _, Some(v4), Some(v6)) => (v4, v6),
            _ => return Err(wrong()),
        };
        Eam::new(pair.0, pair.1)
    }
}

impl TryFrom<String> for Eam {
    type Error = EamError;

    fn try_from(text: String) -> Result<Self, EamError> {
        text.parse()
    }
}

impl From<Eam> for String {
    fn from(e: Eam) -> String {
        e.to_string()
    }
}

/// Pairs of one prefix length, sorted by the prefix.
#[derive(Clone, Debug, Default)]
struct Level<K> {
    mask: K,
    pairs: Vec<(K, Eam)>,
}

/// A table of pairs: the longest prefix that holds an address decides (RFC 7757 3.3).
#[derive(Clone, Debug, Default)]
pub struct EamTable {
    /// Longest prefixes first.
    v4: Vec<Level<u32>>,
    v6: Vec<Level<u128>>,
    all: Vec<Eam>,
}

impl EamTable {
    /// A table of these pairs.
    pub fn new(pairs: &[Eam]) -> Result<Self, EamError> {
        let mut by_v4: BTreeMap<u8, BTreeMap<u32, Eam>> = BTreeMap::new();
        let mut by_v6: BTreeMap<u8, BTreeMap<u128, Eam>> = BTreeMap::new();
        for e in pairs {
            let a = by_v4.entry(e.v4.prefix_len()).or_default().insert(e.v4.addr().to_bits(), *e);
            let b = by_v6.entry(e.v6.prefix_len()).or_default().insert(e.v6.addr().to_bits(), *e);
            if let Some(other) = a.or(b) {
                return Err(EamError::Twice(other, *e));
            }
        }
        let mask4 = |len: u8| u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        let mask6 = |len: u8| u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        let level4 = |(len, m): (u8, BTreeMap<u32, Eam>)| Level { mask: mask4(len), pairs: m.into_iter().collect() };
        let level6 = |(len, m): (u8, BTreeMap<u128, Eam>)| Level { mask: mask6(len), pairs: m.into_iter().collect() };
        Ok(EamTable {
            v4: by_v4.into_iter().rev().map(level4).collect(),
            v6: by_v6.into_iter().rev().map(level6).collect(),
            all: pairs.to_vec(),
        })
    }

    /// All pairs, as given.
    pub fn pairs(&self) -> &[Eam] {
        &self.all
    }

    /// The IPv6 address that an IPv4 address is mapped to.
    #[inline]
    pub fn to_v6(&self, a: Ipv4Addr) -> Option<Ipv6Addr> {
        let bits = a.to_bits();
        self.v4.iter().find_map(|l| {
            let at = l.pairs.binary_search_by_key(&(bits & l.mask), |(k, _)| *k).ok()?;
            l.pairs.get(at).map(|(_, e)| e.to_v6(a))
        })
    }

    /// The IPv4 address that an IPv6 address is mapped to.
    #[inline]
    pub fn to_v4(&self, a: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = a.to_bits();
        self.v6.iter().find_map(|l| {
            let at = l.pairs.binary_search_by_key(&(bits & l.mask), |(k, _)| *k).ok()?;
            l.pairs.get(at).map(|(_, e)| e.to_v4(a))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(pairs: &[&str]) -> EamTable {
        EamTable::new(&pairs.iter().map(|p| p.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    /// Proves rfc7757-3.2-table.
    #[test]
    fn rfc7757_3_2_example_table() {
        let t = table(&[
            "192.0.2.1 = 2001:db8:aaaa::",
            "192.0.2.2/32 = 2001:db8:bbbb::b/128",
            "192.0.2.16/28 = 2001:db8:cccc::/124",
            "192.0.2.128/26 = 2001:db8:dddd::/64",
            "192.0.2.192/29 = 2001:db8:eeee:8::/62",
            "2001:db8:64::/125 = 192.0.2.224/31",
        ]);
        // Figures of RFC 7757 3.2 and the algorithm of 3.3, both ways.
        let rows = [
            ("192.0.2.1", "2001:db8:aaaa::"),
            ("192.0.2.2", "2001:db8:bbbb::b"),
            ("192.0.2.16", "2001:db8:cccc::"),
            ("192.0.2.24", "2001:db8:cccc::8"),
            ("192.0.2.31", "2001:db8:cccc::f"),
            ("192.0.2.128", "2001:db8:dddd::"),
            ("192.0.2.152", "2001:db8:dddd:0:6000::"),
            ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
            ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
            ("192.0.2.193", "2001:db8:eeee:8:8000::"),
            ("192.0.2.199", "2001:db8:eeee:b:8000::"),
            ("192.0.2.224", "2001:db8:64::"),
            ("192.0.2.225", "2001:db8:64::4"),
        ];
        for (v4, v6) in rows {
            let (a, b): (Ipv4Addr, Ipv6Addr) = (v4.parse().unwrap(), v6.parse().unwrap());
            assert_eq!(t.to_v6(a), Some(b), "{v4}");
            assert_eq!(t.to_v4(b), Some(a), "{v6}");
        }
        assert_eq!(t.to_v6("192.0.2.3".parse().unwrap()), None);
        // Bits beyond the IPv4 suffix are stripped.
        assert_eq!(t.to_v4("2001:db8:64::7".parse().unwrap()), Some("192.0.2.225".parse().unwrap()));
    }

    #[test]
    fn whole_family_and_longest_match() {
        let t = table(&["0.0.0.0/0 = 2001:db8:1::/96", "10.0.0.0/8 = 2001:db8:2::/104", "10.0.0.1 = 2001:db8:3::1"]);
        for (v4, v6) in
            [("192.0.2.1", "2001:db8:1::c000:201"), ("10.2.3.4", "2001:db8:2::2:304"), ("10.0.0.1", "2001:db8:3::1")]
        {
            assert_eq!(t.to_v6(v4.parse().unwrap()), Some(v6.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_refused() {
        use EamError as E;
        type Row = (&'static str, fn(&E) -> bool);
        let rows: &[Row] = &[
            ("192.0.2.0/24 = 2001:db8::/121", |e| matches!(e, E::Room(_))),
            ("192.0.2.1/24 = 2001:db8::/96", |e| matches!(e, E::HostBits(_))),
            ("192.0.2.1", |e| matches!(e, E::Text(_))),
            ("192.0.2.1 = 192.0.2.2", |e| matches!(e, E::Text(_))),
        ];
        for (text, want) in rows {
            assert!(want(&text.parse::<Eam>().unwrap_err()), "{text}");
        }
        let pairs = ["192.0.2.1 = 2001:db8::1", "192.0.2.1 = 2001:db8::2"].map(|t| t.parse().unwrap());
        assert!(matches!(EamTable::new(&pairs), Err(E::Twice(..))));
    }

    proptest! {
        #[test]
        fn there_and_back(base4 in any::<u32>(), base6 in any::<u128>(), len4 in 0u8..=32, less in 0u8..=96, host in any::<u32>()) {
            let len6 = (96 + len4).saturating_sub(less);
            let v4 = Ipv4Net::new(Ipv4Addr::from_bits(base4), len4).unwrap().trunc();
            let v6 = Ipv6Net::new(Ipv6Addr::from_bits(base6), len6).unwrap().trunc();
            let t = EamTable::new(&[Eam::new(v4, v6).unwrap()]).unwrap();
            let mask = u32::MAX.checked_shr(u32::from(len4)).unwrap_or(0);
            let a = Ipv4Addr::from_bits(v4.addr().to_bits() | (host & mask));
            let b = t.to_v6(a).unwrap();
            prop_assert!(v6.contains(&b));
            prop_assert_eq!(t.to_v4(b), Some(a));
        }
    }
}
