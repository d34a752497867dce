//! The clamp on TCP's maximum segment size: so that connections through a narrower link or tunnel never need path MTU
//! discovery, which firewalls break. Only the option in SYN segments is lowered, never raised (RFC 9293 3.7.1, RFC 6691).

use crate::addr::Family;
use crate::checksum;
use crate::headers::{be16, protocol};
use crate::packet::{Fragment, Packet};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Least value that is ever written: an IPv4 path of 576 bytes (RFC 9293 3.7.1).
const LEAST: u16 = 536;

/// How a port or tunnel clamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MssClamp {
    /// Not at all.
    Off,
    /// To what fits the MTU of the way in and of the way out, headers off.
    ToPmtu,
    /// To this many bytes.
    Bytes(u16),
}

impl fmt::Display for MssClamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MssClamp::Off => f.write_str("off"),
            MssClamp::ToPmtu => f.write_str("to-pmtu"),
            MssClamp::Bytes(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for MssClamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" | "none" => Ok(MssClamp::Off),
            "to-pmtu" | "pmtu" | "auto" => Ok(MssClamp::ToPmtu),
            _ => match text.parse() {
                Ok(n) if n >= LEAST => Ok(MssClamp::Bytes(n)),
                _ => Err(format!("\"{text}\" is neither to-pmtu, off nor a size from {LEAST} to 65535")),
            },
        }
    }
}

/// Whether the packet is the first segment of a connection, or the answer to one, as a whole.
#[inline]
pub fn is_syn(p: &Packet, data: &[u8]) -> bool {
    p.proto == protocol::TCP && p.fragment == Fragment::None && p.transport(data).get(13).is_some_and(|f| f & 2 != 0)
}

/// The segment size that a packet of at most `mtu` bytes leaves, without options.
pub fn for_mtu(family: Family, mtu: u32) -> u16 {
    let headers = if family == Family::Inet { 40 } else { 60 };
    u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX).max(LEAST)
}

/// Lowers the option of a SYN to at most `most`. `unfinished`: the checksum is computed later, over all bytes. Says from what
/// to what; None when nothing had to change, or the options are broken.
pub fn clamp(p: &Packet, data: &mut [u8], most: u16, unfinished: bool) -> Option<(u16, u16)> {
    if !is_syn(p, data) {
        return None;
    }
    let start = usize::from(p.l4);
    let t = data.get_mut(start..p.len as usize)?;
    let end = usize::from(*t.get(12)? >> 4) * 4;
    if end < 20 || end > t.len() {
        return None;
    }
    let mut at = 20;
    while at < end {
        match t[at] {
            0 => return None,
            1 => at += 1,
            kind => {
                let len = usize::from(*t.get(at + 1).filter(|_| at + 1 < end)?);
                if len < 2 || at + len > end {
                    return None;
                }
                if kind == 2 {
                    return (len == 4).then(|| lower(t, at + 2, most, unfinished)).flatten();
                }
                at += len;
            }
        }
    }
    None
}

/// Lowers the two bytes at `at` of a TCP header.
fn lower(t: &mut [u8], at: usize, most: u16, unfinished: bool) -> Option<(u16, u16)> {
    let old = be16(t, at);
    if old <= most {
        return None;
    }
    t[at..at + 2].copy_from_slice(&most.to_be_bytes());
    if !unfinished {
        let mut sum = be16(t, 16);
        match at % 2 {
            0 => sum = checksum::update_u16(sum, old, most),
            // Across two words of the sum (an odd number of padding options before it): each half in its own.
            _ => sum = checksum::update_u16(sum, old.swap_bytes(), most.swap_bytes()),
        }
        t[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    Some((old, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SYN with these options, checksum right.
    fn syn(v6: bool, options: &[u8], flags: u8) -> Vec<u8> {
        let mut t = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0, flags, 0xff, 0xff, 0, 0, 0, 0];
        t.extend(options);
        t.resize(t.len().next_multiple_of(4), 0);
        t[12] = ((t.len() / 4) as u8) << 4;
        let (head, src, dst): (Vec<u8>, std::net::IpAddr, std::net::IpAddr) = if v6 {
            let (s, d): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
                ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
            let mut h = vec![0x60, 0, 0, 0, 0, t.len() as u8, 6, 64];
            h.extend(s.octets());
            h.extend(d.octets());
            (h, s.into(), d.into())
        } else {
            let (s, d) = (std::net::Ipv4Addr::new(192, 0, 2, 1), std::net::Ipv4Addr::new(192, 0, 2, 2));
            let mut h = vec![0x45, 0, 0, (20 + t.len()) as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
            h.extend(s.octets());
            h.extend(d.octets());
            checksum::fill_ipv4_header(&mut h);
            (h, s.into(), d.into())
        };
        let sum = checksum::pseudo(src, dst, 6, t.len() as u32).unwrap().bytes(&t).finish();
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        [head, t].concat()
    }

    fn parse(v: &[u8]) -> Packet {
        Packet::parse(Packet::sniff(v).unwrap(), v).unwrap()
    }

    #[test]
    fn rfc9293_3_7_1_options_of_syns() {
        let mss = [2, 4, 0x05, 0xb4];
        type Row<'a> = (&'a str, &'a [u8], u8, u16, Option<(u16, u16)>);
        let rows: &[Row<'_>] = &[
            ("lowered", &mss, 2, 1220, Some((1460, 1220))),
            ("of the answer too", &mss, 0x12, 1220, Some((1460, 1220))),
            ("behind others", &[4, 2, 1, 3, 3, 7, 2, 4, 0x05, 0xb4], 2, 1220, Some((1460, 1220))),
            ("at an odd place", &[1, 2, 4, 0x05, 0xb4], 2, 1221, Some((1460, 1221))),
            ("never raised", &mss, 2, 1460, None),
            ("not in other segments", &mss, 0x10, 1220, None),
            ("no option", &[], 2, 1220, None),
            ("end of options before it", &[0, 2, 4, 0x05, 0xb4], 2, 1220, None),
            ("length of no MSS", &[2, 3, 0x05], 2, 1220, None),
            ("length zero", &[3, 0, 2, 4, 0x05, 0xb4], 2, 1220, None),
            ("runs out", &[3, 40, 2, 4], 2, 1220, None),
            ("cut at the end", &[1, 1, 1, 2], 2, 1220, None),
        ];
        for (what, options, flags, most, want) in rows {
            for v6 in [false, true] {
                let mut v = syn(v6, options, *flags);
                let p = parse(&v);
                let before = v.clone();
                assert_eq!(clamp(&p, &mut v, *most, false), *want, "{what}");
                assert!(crate::forward::local::checksum_ok(&p, &v), "{what}: checksum");
                if want.is_none() {
                    assert_eq!(v, before, "{what}");
                }
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_stays_the_pseudo_header_sum() {
        let mut v = syn(true, &[2, 4, 0x05, 0xb4], 2);
        v[56..58].copy_from_slice(&[0xab, 0xcd]);
        let p = parse(&v);
        assert_eq!(clamp(&p, &mut v, 1220, true), Some((1460, 1220)));
        assert_eq!(v[56..58], [0xab, 0xcd]);
    }

    #[test]
    fn sizes_by_mtu() {
        let rows = [
            (Family::Inet, 1500, 1460),
            (Family::Inet6, 1500, 1440),
            (Family::Inet6, 1480, 1420),
            (Family::Inet, 68, LEAST),
            (Family::Inet, 65_536, 65_496),
            (Family::Inet6, u32::MAX, u16::MAX),
        ];
        for (family, mtu, want) in rows {
            assert_eq!(for_mtu(family, mtu), want, "{family} {mtu}");
        }
        for text in ["off", "to-pmtu", "1200"] {
            assert_eq!(text.parse::<MssClamp>().unwrap().to_string(), text);
        }
        assert!("100".parse::<MssClamp>().is_err() && "x".parse::<MssClamp>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whatever the options are, the checksum is right afterwards and nothing but the option has changed.
        #[test]
        fn any_options(
            options in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(4), any::<u8>()], 0..40),
            most in 536u16.., v6: bool, flags: u8,
        ) {
            let mut v = syn(v6, &options, flags);
            let before = v.clone();
            let p = parse(&v);
            let changed = clamp(&p, &mut v, most, false);
            prop_assert!(crate::forward::local::checksum_ok(&p, &v));
            let start = usize::from(p.l4);
            let differing = (0..v.len()).filter(|i| v[*i] != before[*i] && !(start + 16..start + 18).contains(i)).count();
            match changed {
                None => prop_assert_eq!(v, before),
                Some((old, new)) => prop_assert!(old > new && new == most && differing <= 2),
            }
        }
    }
}
