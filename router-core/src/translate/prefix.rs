//! IPv4 addresses inside IPv6 addresses (RFC 6052 2.2): prefixes of 32, 40, 48, 56, 64 and 96 bits.
//!
//! ```text
//!  PL  0-------------32--40--48--56--64--72--80--88--96--104---------
//!  32  |     prefix    |v4(32)         | u | suffix                    |
//!  40  |     prefix        |v4(24)     | u |(8)| suffix                |
//!  48  |     prefix            |v4(16) | u | (16)  | suffix            |
//!  56  |     prefix                |(8)| u |  v4(24)   | suffix        |
//!  64  |     prefix                    | u |   v4(32)      | suffix    |
//!  96  |     prefix                                    |    v4(32)     |
//! ```
//!
//! Bits 64 to 71 ("u") are zero. Of a 96 bit prefix they are part, so it must have them zero itself.

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits 64 to 71 of an address.
const U_OCTET: u128 = 0xff << 56;

/// A translation prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    bits: u128,
    len: u8,
}

/// Why a prefix cannot be one for translation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an IPv6 prefix at all.
    #[error("\"{0}\" is not an IPv6 prefix")]
    Text(String),
    /// RFC 6052 2.2 knows six lengths.
    #[error("a translation prefix has 32, 40, 48, 56, 64 or 96 bits (RFC 6052 2.2), not {0}")]
    Length(u8),
    /// Bits 64 to 71 of a 96 bit prefix.
    #[error("bits 64 to 71 of a translation prefix must be zero (RFC 6052 2.2): {0}")]
    UOctet(Ipv6Net),
    /// Bits beyond the length.
    #[error("{0} has bits set beyond its length")]
    HostBits(Ipv6Net),
    /// Multicast, link-local, loopback, unspecified.
    #[error("{0} is not unicast address space that can be routed")]
    Scope(Ipv6Net),
}

impl Prefix {
    /// The well-known prefix 64:ff9b::/96 (RFC 6052 2.1). It does not change transport checksums: its words sum to zero.
    pub const WELL_KNOWN: Prefix = Prefix { bits: 0x0064_ff9b << 96, len: 96 };

    /// The IPv4-mapped prefix ::ffff:0:0/96 (RFC 4291 2.5.5.2), by which RFC 2765 carried IPv4 inside closed networks.
    pub const MAPPED: Prefix = Prefix { bits: 0xffff << 32, len: 96 };

    /// From a prefix in the usual form.
    pub fn new(net: Ipv6Net) -> Result<Self, PrefixError> {
        let (addr, len) = (net.addr(), net.prefix_len());
        if !matches!(len, 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(PrefixError::Length(len));
        }
        if net.network() != addr {
            return Err(PrefixError::HostBits(net));
        }
        let bits = addr.to_bits();
        if bits & U_OCTET != 0 {
            return Err(PrefixError::UOctet(net));
        }
        if addr.is_multicast() || addr.is_unicast_link_local() || addr.is_unspecified() || addr.is_loopback() {
            return Err(PrefixError::Scope(net));
        }
        Ok(Prefix { bits, len })
    }

    /// The prefix in the usual form.
    pub fn net(&self) -> Ipv6Net {
        Ipv6Net::new_assert(Ipv6Addr::from_bits(self.bits), self.len)
    }

    /// The prefix that represents one of ipv4only.arpa's addresses, 192.0.0.170 and 192.0.0.171, by `addr` (RFC 7050 3):
    /// the longest that can be read into it. None when there is none.
    pub fn of_well_known_address(addr: Ipv6Addr) -> Option<Prefix> {
        [96, 64, 56, 48, 40, 32].into_iter().find_map(|len| {
            let net = Ipv6Net::new(addr, len).ok()?.trunc();
            let prefix = Prefix::new(net).ok()?;
            let v4 = prefix.extract(addr)?;
            matches!(v4.octets(), [192, 0, 0, 170 | 171]).then_some(prefix)
        })
    }

    /// Whether it is [`Prefix::MAPPED`].
    pub fn is_mapped(&self) -> bool {
        *self == Prefix::MAPPED
    }

    /// Whether translation by this prefix leaves transport checksums as they are (RFC 6052 4.1): the prefix sums to zero
    /// and the IPv4 address lies at an even offset.
    pub fn is_checksum_neutral(&self) -> bool {
        let sum = (0..8).map(|i| (self.bits >> (16 * i)) as u64 & 0xffff).sum::<u64>();
        sum % 0xffff == 0 && matches!(self.len, 32 | 96)
    }

    /// Whether an address lies in the prefix.
    #[inline]
    pub fn contains(&self, addr: Ipv6Addr) -> bool {
        (addr.to_bits() ^ self.bits) >> (128 - u32::from(self.len)) == 0
    }

    /// The IPv6 address that represents `v4`, its suffix zero.
    #[inline]
    pub fn embed(&self, v4: Ipv4Addr) -> Ipv6Addr {
        let v4 = u128::from(v4.to_bits());
        let bits = match self.len {
            96 => v4,
            64 => v4 << 24,
            32 => v4 << 64,
            // Split around the u octet: `before` bits of the address lie in front of it.
            len => {
                let before = 64 - u32::from(len);
                let (high, low) = (v4 >> (32 - before), v4 & ((1 << (32 - before)) - 1));
                (high << 64) | (low << (56 - (32 - before)))
            }
        };
        Ipv6Addr::from_bits(self.bits | bits)
    }

    /// The IPv4 address that `addr` represents; None for one outside the prefix or with a u octet that is not zero. The
    /// suffix is ignored (RFC 6052 2.3).
    #[inline]
    pub fn extract(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = addr.to_bits();
        if !self.contains(addr) || (self.len < 96 && bits & U_OCTET != 0) {
            return None;
        }
        let v4 = match self.len {
            96 => bits,
            64 => bits >> 24,
            32 => bits >> 64,
            len => {
                let before = 64 - u32::from(len);
                let high = (bits >> 64) & ((1 << before) - 1);
                let low = (bits >> (56 - (32 - before))) & ((1 << (32 - before)) - 1);
                (high << (32 - before)) | low
            }
        };
        Some(Ipv4Addr::from_bits(v4 as u32))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Prefix::new(text.trim().parse().map_err(|_| PrefixError::Text(text.to_owned()))?)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(p: Prefix) -> String {
        p.to_string()
    }
}

/// Whether an IPv4 address is not global, so that the well-known prefix must not represent it (RFC 6052 3.1; the list is
/// that of RFC 6890 2.2.2, which took RFC 5735's place).
pub fn is_non_global(a: Ipv4Addr) -> bool {
    let [b0, b1, b2, _] = a.octets();
    matches!(
        (b0, b1, b2),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, ..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn rfc6052_2_4_text_representation() {
        // The two tables of section 2.4.
        let rows = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ];
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, want) in rows {
            let want: Ipv6Addr = want.parse().unwrap();
            assert_eq!(p(prefix).embed(v4), want, "{prefix}");
            assert_eq!(p(prefix).extract(want), Some(v4), "{prefix}");
            assert_eq!(p(prefix).to_string(), prefix);
        }
    }

    #[test]
    fn what_cannot_be_a_prefix() {
        use PrefixError as E;
        type Row = (&'static str, fn(&E) -> bool);
        let rows: &[Row] = &[
            ("2001:db8::/33", |e| matches!(e, E::Length(33))),
            ("2001:db8::/128", |e| matches!(e, E::Length(128))),
            ("2001:db8::1/96", |e| matches!(e, E::HostBits(_))),
            ("2001:db8:0:0:100::/96", |e| matches!(e, E::UOctet(_))),
            ("2001:db8:1::/32", |e| matches!(e, E::HostBits(_))),
            ("ff00::/32", |e| matches!(e, E::Scope(_))),
            ("fe80::/64", |e| matches!(e, E::Scope(_))),
            ("::/96", |e| matches!(e, E::Scope(_))),
            ("10.0.0.0/8", |e| matches!(e, E::Text(_))),
        ];
        for (text, want) in rows {
            let e = text.parse::<Prefix>().unwrap_err();
            assert!(want(&e), "{text}: {e}");
        }
        assert!(p("::ffff:0:0/96").is_mapped());
    }

    #[test]
    fn u_octet_and_suffix_on_the_way_back() {
        // Section 2.2: the u octet is zero; 2.3: the suffix is ignored.
        assert_eq!(p("2001:db8::/32").extract("2001:db8:c000:221:100::".parse().unwrap()), None);
        let with_suffix = "2001:db8:c000:221:0:1:2:3".parse().unwrap();
        assert_eq!(p("2001:db8::/32").extract(with_suffix), Some(Ipv4Addr::new(192, 0, 2, 33)));
        assert_eq!(p("64:ff9b::/96").extract("64:ff9b:1::1".parse().unwrap()), None);
    }

    /// Proves rfc6052-4.1-neutral.
    #[test]
    fn rfc6052_4_1_checksum_neutrality() {
        for (text, neutral) in [("64:ff9b::/96", true), ("::ffff:0:0/96", true), ("2001:db8::/32", false)] {
            assert_eq!(p(text).is_checksum_neutral(), neutral, "{text}");
        }
        // 2001:db8:122:344::/96 made neutral by its sixth word; a /64 shifts the address by one byte.
        assert!(p("2001:db8:0:0:0:d246::/96").is_checksum_neutral());
        assert!(!p("2001:db8:d246::/64").is_checksum_neutral());
    }

    #[test]
    fn rfc7050_3_prefix_of_a_synthesized_address() {
        let wka = Ipv4Addr::new(192, 0, 0, 170);
        for text in [
            "2001:db8::/32",
            "2001:db8:100::/40",
            "2001:db8:122::/48",
            "2001:db8:122:300::/56",
            "2001:db8:122:344::/64",
            "64:ff9b::/96",
        ] {
            assert_eq!(Prefix::of_well_known_address(p(text).embed(wka)), Some(p(text)), "{text}");
        }
        assert_eq!(Prefix::of_well_known_address("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn rfc6052_3_1_non_global() {
        for (a, non_global) in [
            ("10.1.2.3", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.0.0.8", true),
            ("192.0.2.1", true),
            ("192.88.99.1", false),
            ("198.19.0.1", true),
            ("203.0.113.9", true),
            ("239.0.0.1", true),
            ("8.8.8.8", false),
        ] {
            assert_eq!(is_non_global(a.parse().unwrap()), non_global, "{a}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(v4 in any::<u32>(), base in any::<u128>(), len in 0usize..6) {
            let len = [32u8, 40, 48, 56, 64, 96][len];
            let bits = (0x2 << 124) | (base >> 4);
            let bits = bits & !U_OCTET & (!0u128 << (128 - len));
            let prefix = Prefix::new(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap()).unwrap();
            let v6 = prefix.embed(Ipv4Addr::from_bits(v4));
            prop_assert_eq!(v6.to_bits() & U_OCTET, 0);
            prop_assert!(prefix.contains(v6));
            prop_assert_eq!(prefix.extract(v6), Some(Ipv4Addr::from_bits(v4)));
            let neutral = crate::checksum::Sum::of(&v6.octets()).fold() % 0xffff == crate::checksum::Sum::of(&v4.to_be_bytes()).fold() % 0xffff;
            if prefix.is_checksum_neutral() { prop_assert!(neutral); }
        }
    }
}
