//! Numbers, names and prefixes in the spellings that iproute2 takes.

use ipnet::IpNet;
use router_core::addr::{self, AddrError};
use std::net::Ipv4Addr;

/// A number as C's `strtoul(.., 0)` reads it: decimal, `0x` hexadecimal, `0` octal; no sign.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// Whether Linux would take this as an interface name.
pub(crate) fn valid_name(name: &str) -> bool {
    let clean = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.chars().all(clean)
}

/// As [`addr::parse_interface_addr`], plus two spellings of iproute2: `10/8` and `10.0.0.0/255.0.0.0`.
pub(super) fn parse_interface_addr(text: &str) -> Result<IpNet, AddrError> {
    if let Some((address, len)) = text.split_once('/') {
        let parts = address.split('.').count();
        let short = parts < 4 && !address.is_empty() && address.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let full = if short { format!("{address}{}", ".0".repeat(4 - parts)) } else { address.to_owned() };
        let len = len.parse::<Ipv4Addr>().ok().and_then(netmask_len).map_or_else(|| len.to_owned(), |n| n.to_string());
        return addr::parse_interface_addr(&format!("{full}/{len}")).map_err(|e| match e {
            AddrError::Prefix(_) => AddrError::Prefix(text.to_owned()),
            AddrError::Length(_, max) => AddrError::Length(text.to_owned(), max),
            other => other,
        });
    }
    addr::parse_interface_addr(text)
}

fn netmask_len(mask: Ipv4Addr) -> Option<u32> {
    let bits = u32::from(mask);
    let len = bits.leading_ones();
    (bits.checked_shl(len).unwrap_or(0) == 0).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_strtoul() {
        let cases = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("0x", None),
            ("1k", None),
            ("99999999999999999999", None),
            ("é", None),
            ("0é", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_number(text), want, "{text}");
        }
    }

    #[test]
    fn prefixes_in_short_and_with_masks() {
        for (text, want) in [
            ("10/8", "10.0.0.0/8"),
            ("192.168/16", "192.168.0.0/16"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(parse_interface_addr(text).unwrap().to_string(), want, "{text}");
        }
        for text in ["/8", "./8", "10./8", "10/33", "10.0.0.0/255.0.255.0", "10/", "x/8"] {
            assert!(parse_interface_addr(text).is_err(), "{text}");
        }
    }
}
