//! Builds the packet that somebody asks about.

use super::{ExplainError, Question};
use crate::addr::Family;
use crate::checksum;
use crate::headers::{ipv4, protocol};
use std::net::IpAddr;

/// Payload of a packet whose length nobody said: ping's.
const PAYLOAD: usize = 56;
/// Ports that nobody said: the first of traceroute, and what a client might have.
const PORTS: (u16, u16) = (33_434, 33_434);

/// The protocol asked for: by number, by the ports given, or echo.
fn proto(q: &Question, family: Family) -> u8 {
    let echo = match family {
        Family::Inet => protocol::ICMP,
        Family::Inet6 => protocol::ICMPV6,
    };
    match q.proto {
        // `proto icmp` means the family's own.
        Some(protocol::ICMP | protocol::ICMPV6) => echo,
        Some(p) => p,
        None if q.sport.is_some() || q.dport.is_some() => protocol::UDP,
        None => echo,
    }
}

/// The IP packet that `q` describes, from `src` to `dst`, with right checksums.
pub(crate) fn packet(q: &Question, src: IpAddr, dst: IpAddr) -> Result<Vec<u8>, ExplainError> {
    let family = Family::of(&dst);
    let proto = proto(q, family);
    let (sport, dport) = (q.sport.unwrap_or(PORTS.0), q.dport.unwrap_or(PORTS.1));
    let mut t: Vec<u8> = match proto {
        protocol::ICMP => vec![8, 0, 0, 0, 0, 1, 0, 1],
        protocol::ICMPV6 => vec![128, 0, 0, 0, 0, 1, 0, 1],
        protocol::UDP => [sport.to_be_bytes(), dport.to_be_bytes(), [0; 2], [0; 2]].concat(),
        protocol::TCP => {
            let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
            // A connection attempt.
            [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat()
        }
        _ => Vec::new(),
    };
    let header = if family == Family::Inet { ipv4::MIN_HEADER } else { crate::headers::ipv6::HEADER };
    let least = header + t.len();
    let len = match q.len {
        Some(len) => len as usize,
        None if proto == protocol::TCP => least,
        None => least + PAYLOAD,
    };
    let most = if family == Family::Inet { 65_535 } else { 65_535 + header };
    if !(least..=most).contains(&len) {
        return Err(ExplainError::Length { len, least, most });
    }
    t.resize(len - header, 0);
    let sum_at = match proto {
        protocol::ICMP | protocol::ICMPV6 => Some(2),
        protocol::UDP => {
            let length = (t.len() as u16).to_be_bytes();
            t[4..6].copy_from_slice(&length);
            Some(6)
        }
        protocol::TCP => Some(16),
        _ => None,
    };
    if let Some(at) = sum_at {
        let pseudo = match proto {
            protocol::ICMP => checksum::Sum::ZERO,
            _ => checksum::pseudo(src, dst, proto, t.len() as u32).ok_or(ExplainError::Families)?,
        };
        let sum = pseudo.bytes(&t);
        let sum = if proto == protocol::UDP { sum.finish_udp() } else { sum.finish() };
        t[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let ttl = q.ttl.unwrap_or(64);
    let mut ip = vec![0; header];
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let tos = q.tos.unwrap_or(0);
            ipv4::Header { tos, total_len: len as u16, ident: 1, df: q.df, ttl, proto, src, dst }.write(&mut ip);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let tos = q.tos.unwrap_or(0);
            ip[0] = 0x60 | (tos >> 4);
            ip[1] = tos << 4;
            ip[4..6].copy_from_slice(&(t.len() as u16).to_be_bytes());
            (ip[6], ip[7]) = (proto, ttl);
            ip[8..24].copy_from_slice(&src.octets());
            ip[24..40].copy_from_slice(&dst.octets());
        }
        _ => return Err(ExplainError::Families),
    }
    ip.extend(t);
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::local::checksum_ok;
    use crate::packet::Packet;

    #[test]
    fn what_is_asked_for_is_what_is_built() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let ends = [(ip("192.0.2.1"), ip("198.51.100.2")), (ip("2001:db8::1"), ip("2001:db8:1::2"))];
        for (src, dst) in ends {
            for (proto, len) in
                [(None, None), (Some(6), None), (Some(17), Some(1500)), (Some(1), Some(333)), (Some(99), None)]
            {
                let q = Question { proto, len, ttl: Some(9), df: true, sport: Some(7), ..Question::default() };
                let bytes = packet(&q, src, dst).unwrap();
                let p = Packet::parse(Family::of(&dst), &bytes).unwrap();
                assert_eq!((p.src, p.dst, p.ttl, p.len as usize), (src, dst, 9, bytes.len()));
                assert!(checksum_ok(&p, &bytes), "{q:?}");
                assert_eq!(len.unwrap_or(p.len), p.len);
            }
            let short = Question { len: Some(20), ..Question::default() };
            assert!(matches!(packet(&short, src, dst), Err(ExplainError::Length { .. })));
        }
        assert!(matches!(packet(&Question::default(), ends[0].0, ends[1].1), Err(ExplainError::Families)));
    }
}
