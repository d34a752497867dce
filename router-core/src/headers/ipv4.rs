//! IPv4 as a router must read it (RFC 791, RFC 1812 5.2.2).

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::headers::{be16, ipv4_options};
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv4Addr};

/// Length of a header without options.
pub const MIN_HEADER: usize = 20;

/// Checks an IPv4 packet in the order and to the extent of RFC 1812 5.2.2 and finds its parts.
pub fn parse(data: &[u8]) -> Result<Packet, DropReason> {
    if data.len() < MIN_HEADER {
        return Err(DropReason::Ipv4Truncated);
    }
    if data[0] >> 4 != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header = usize::from(data[0] & 0x0f) * 4;
    let total = usize::from(be16(data, 2));
    if header < MIN_HEADER || header > total {
        return Err(DropReason::Ipv4HeaderLength);
    }
    if total > data.len() {
        return Err(DropReason::Ipv4Truncated);
    }
    if !checksum::verify(&data[..header]) {
        return Err(DropReason::Ipv4Checksum);
    }
    let router_alert = header > MIN_HEADER && ipv4_options::check(&data[..header]).map_err(|bad| bad.reason)?;
    let flags = be16(data, 6);
    let (offset, more) = (flags & 0x1fff, flags & 0x2000 != 0);
    Ok(Packet {
        family: Family::Inet,
        src: addr(data, 12),
        dst: addr(data, 16),
        len: total as u32,
        wire_len: total as u32,
        l4: header as u16,
        proto: data[9],
        ttl: data[8],
        tclass: data[1],
        flow: 0,
        fragment: match (offset, more) {
            (0, false) => Fragment::None,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        },
        df: flags & 0x4000 != 0,
        link_group: false,
        router_alert,
    })
}

fn addr(data: &[u8], at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(data[at], data[at + 1], data[at + 2], data[at + 3]))
}

/// The fields of an IPv4 header without options.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// TOS byte.
    pub tos: u8,
    /// Whole packet, in bytes.
    pub total_len: u16,
    /// Identification.
    pub ident: u16,
    /// Do not fragment.
    pub df: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
}

impl Header {
    /// Writes the header with its checksum into the first 20 bytes of `to`, which must be there.
    #[inline]
    pub fn write(&self, to: &mut [u8]) {
        let h = &mut to[..MIN_HEADER];
        h[0] = 0x45;
        h[1] = self.tos;
        h[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        h[4..6].copy_from_slice(&self.ident.to_be_bytes());
        h[6..8].copy_from_slice(&(if self.df { 0x4000u16 } else { 0 }).to_be_bytes());
        h[8] = self.ttl;
        h[9] = self.proto;
        h[12..16].copy_from_slice(&self.src.octets());
        h[16..20].copy_from_slice(&self.dst.octets());
        h[10..12].copy_from_slice(&self.checksum().to_be_bytes());
    }

    /// The header's checksum, straight from the fields.
    #[inline]
    fn checksum(&self) -> u16 {
        let halves = |a: Ipv4Addr| (a.to_bits() >> 16) + (a.to_bits() & 0xffff);
        let sum = (0x4500 | u32::from(self.tos))
            + u32::from(self.total_len)
            + u32::from(self.ident)
            + if self.df { 0x4000 } else { 0 }
            + (u32::from(self.ttl) << 8 | u32::from(self.proto))
            + halves(self.src)
            + halves(self.dst);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum + (sum >> 16)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(options: &[u8], payload: usize) -> Vec<u8> {
        let mut v = vec![0u8; 20 + options.len() + payload];
        Header {
            tos: 0,
            total_len: v.len() as u16,
            ident: 1,
            df: true,
            ttl: 64,
            proto: 17,
            src: [192, 0, 2, 1].into(),
            dst: [198, 51, 100, 1].into(),
        }
        .write(&mut v);
        v[20..20 + options.len()].copy_from_slice(options);
        v[0] = 0x40 + (5 + options.len() / 4) as u8;
        refresh(&mut v, 20 + options.len());
        v
    }

    fn refresh(v: &mut [u8], header: usize) {
        v[10..12].fill(0);
        let sum = checksum::checksum(&v[..header.min(v.len())]);
        v[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Proves rfc791-3.1-checksum.
    #[test]
    fn the_checksum_from_the_fields_is_the_one_over_the_bytes() {
        for i in 0..=u16::MAX {
            let mut v = [0u8; 20];
            let (src, dst) = (u32::from(i).wrapping_mul(0x9e37_79b9), u32::from(i).wrapping_mul(0x85eb_ca6b));
            Header {
                tos: i as u8,
                total_len: i,
                ident: !i,
                df: i & 1 == 1,
                ttl: (i >> 8) as u8,
                proto: 41,
                src: src.into(),
                dst: dst.into(),
            }
            .write(&mut v);
            assert!(checksum::verify(&v), "{v:02x?}");
        }
    }

    /// Proves rfc1122-3.2.1.1-version, rfc1122-3.2.1.2-checksum, rfc1812-4.2.2.5-checksum, rfc791-3.1-header,
    /// rfc791-3.1-checksum.
    #[test]
    fn rfc1812_5_2_2_header_checks() {
        use DropReason::*;
        // what to spoil, expectation
        type Row = (&'static str, fn(&mut Vec<u8>), Result<(), DropReason>);
        let rows: &[Row] = &[
            ("untouched", |_| {}, Ok(())),
            ("padded by the link", |v| v.resize(60, 0), Ok(())),
            ("cut", |v| v.truncate(27), Err(Ipv4Truncated)),
            ("shorter than a header", |v| v.truncate(19), Err(Ipv4Truncated)),
            ("empty", |v| v.clear(), Err(Ipv4Truncated)),
            ("version", |v| v[0] = 0x65, Err(Ipv4Version)),
            ("header length 16", |v| v[0] = 0x44, Err(Ipv4HeaderLength)),
            ("header beyond total", |v| v[0] = 0x4f, Err(Ipv4HeaderLength)),
            ("total below header", |v| v[3] = 19, Err(Ipv4HeaderLength)),
            ("checksum", |v| v[10] ^= 1, Err(Ipv4Checksum)),
        ];
        for (what, spoil, want) in rows {
            let mut v = packet(&[], 8);
            spoil(&mut v);
            assert_eq!(parse(&v).map(|_| ()), *want, "{what}");
        }
    }

    #[test]
    fn rfc791_3_1_fragment_fields() {
        for (bytes, want) in [
            ([0x40, 0], Fragment::None),
            ([0x20, 0], Fragment::First),
            ([0x20, 1], Fragment::Later),
            ([0x00, 9], Fragment::Later),
        ] {
            let mut v = packet(&[], 8);
            v[6..8].copy_from_slice(&bytes);
            refresh(&mut v, 20);
            let parsed = parse(&v).unwrap();
            assert_eq!((parsed.fragment, parsed.df), (want, bytes[0] & 0x40 != 0));
        }
        // Identification and DF, as they are written.
        for (ident, df) in [(0, false), (0, true), (0xbeef, true), (0x1234, false)] {
            let (src, dst) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
            let mut v = [0; 20];
            Header { tos: 0, total_len: 20, ident, df, ttl: 1, proto: 17, src, dst }.write(&mut v);
            assert_eq!(v[4..8], [(ident >> 8) as u8, ident as u8, if df { 0x40 } else { 0 }, 0]);
        }
    }
}
