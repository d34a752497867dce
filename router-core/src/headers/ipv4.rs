//! IPv4 as a router must read it (RFC 791, RFC 1812 5.2.2).

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::headers::be16;
use crate::packet::{Fragment, Packet};
use std::net::{IpAddr, Ipv4Addr};

/// Length of a header without options.
pub const MIN_HEADER: usize = 20;

/// Option types (RFC 791 3.1, RFC 2113).
mod option {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const LSRR: u8 = 131;
    pub const SSRR: u8 = 137;
    pub const ROUTER_ALERT: u8 = 148;
}

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
    let router_alert = header > MIN_HEADER && check_options(&data[MIN_HEADER..header])?;
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

/// Walks the options. Source routing is refused (RFC 7126 4.3 and 4.4); the others pass unchanged. Says whether a router
/// alert is among them.
fn check_options(mut opts: &[u8]) -> Result<bool, DropReason> {
    let mut alert = false;
    while let Some((&kind, rest)) = opts.split_first() {
        match kind {
            option::END => break,
            option::NOP => opts = rest,
            _ => {
                let len = usize::from(*rest.first().ok_or(DropReason::Ipv4Options)?);
                if len < 2 || len > opts.len() {
                    return Err(DropReason::Ipv4Options);
                }
                match kind {
                    option::LSRR | option::SSRR => return Err(DropReason::Ipv4SourceRoute),
                    option::ROUTER_ALERT => alert = true,
                    _ => {}
                }
                opts = &opts[len..];
            }
        }
    }
    Ok(alert)
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
    fn options() {
        use DropReason::*;
        let rows: &[(&[u8], Result<bool, DropReason>)] = &[
            (&[1, 1, 1, 0], Ok(false)),
            (&[148, 4, 0, 0], Ok(true)),
            (&[7, 3, 4, 0], Ok(false)),
            (&[131, 3, 4, 0], Err(Ipv4SourceRoute)),
            (&[137, 3, 4, 0], Err(Ipv4SourceRoute)),
            (&[7, 1, 0, 0], Err(Ipv4Options)),
            (&[7, 9, 0, 0], Err(Ipv4Options)),
            (&[1, 1, 1, 7], Err(Ipv4Options)),
        ];
        for (opts, want) in rows {
            assert_eq!(parse(&packet(opts, 8)).map(|p| p.router_alert), *want, "{opts:?}");
        }
    }

    #[test]
    fn fragments() {
        for (bytes, want) in [
            ([0x40, 0], Fragment::None),
            ([0x20, 0], Fragment::First),
            ([0x20, 1], Fragment::Later),
            ([0x00, 9], Fragment::Later),
        ] {
            let mut v = packet(&[], 8);
            v[6..8].copy_from_slice(&bytes);
            refresh(&mut v, 20);
            assert_eq!(parse(&v).unwrap().fragment, want);
        }
    }
}
