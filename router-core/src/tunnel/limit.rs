//! The tunnel encapsulation limit: an IPv6 destination option that says how many tunnels may still be added around a packet
//! (RFC 2473 4.1.1, 5.1).

use crate::headers::protocol;

/// Bytes of the extension header that holds it.
pub const LEN: u32 = 8;

/// The option's type.
const OPTION: u8 = 4;

/// The extension header: the option, and one PadN.
pub fn header(next: u8, limit: u8) -> [u8; LEN as usize] {
    [next, 0, OPTION, 1, limit, 1, 1, 0]
}

/// Whether the packet may carry a limit at all: the one look that every packet gets.
#[inline]
pub fn possible(packet: &[u8]) -> bool {
    packet.first().is_some_and(|b| b >> 4 == 6)
        && matches!(packet.get(6), Some(&(protocol::DEST_OPTIONS | protocol::HOP_BY_HOP | protocol::ROUTING)))
}

/// The limit of an IPv6 packet and where it lies. None without one. Looks at headers that stand before any fragment
/// header; bounded by the packet.
pub fn find(packet: &[u8]) -> Option<(u8, usize)> {
    let mut next = *packet.get(6)?;
    let mut at = super::IPV6_HEADER as usize;
    for _ in 0..8 {
        if !matches!(next, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DEST_OPTIONS) {
            return None;
        }
        let end = at + (usize::from(*packet.get(at + 1)?) + 1) * 8;
        if next == protocol::DEST_OPTIONS
            && let Some(found) = option(packet.get(at + 2..end)?, at + 2)
        {
            return Some(found);
        }
        next = *packet.get(at)?;
        at = end;
    }
    None
}

fn option(mut options: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        let (kind, rest) = options.split_first()?;
        let len = if *kind == 0 { 1 } else { 2 + usize::from(*rest.first()?) };
        if *kind == OPTION && len == 3 {
            return rest.get(1).map(|limit| (*limit, at + 2));
        }
        options = options.get(len..)?;
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2473 5.1: what is written is found, also behind other headers.
    #[test]
    fn limits_are_found_again() {
        let packet = |next: u8, rest: &[u8]| {
            let mut v = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
            v.extend([0x20; 32]);
            v.extend(rest);
            v
        };
        let mine = header(41, 3);
        assert_eq!(find(&packet(60, &mine)), Some((3, 44)));
        let behind = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &header(6, 0)].concat();
        assert_eq!(find(&packet(0, &behind)), Some((0, 52)));
        for (next, rest) in [(6, &mine[..]), (60, &[41, 0, 1, 4, 0, 0, 0, 0]), (60, &[41, 9, 4]), (60, &[])] {
            assert_eq!(find(&packet(next, rest)), None);
        }
        assert!(possible(&packet(60, &mine)) && !possible(&packet(6, &mine)) && !possible(&[0x45; 40]));
    }
}
