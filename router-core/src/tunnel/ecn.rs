//! Congestion marks and DSCP of tunnel packets (RFC 6040, RFC 2983).

use crate::drop_reason::DropReason;

/// The outer traffic class byte: DSCP copied or as configured; the ECN field always from the inner one (RFC 6040 4.1,
/// normal mode), so that congestion marks survive the tunnel.
#[inline]
pub fn outer_tos(inner: u8, configured: Option<u8>) -> u8 {
    match configured {
        Some(tos) => (tos & 0xfc) | (inner & 0x03),
        None => inner,
    }
}

/// The inner ECN field after decapsulation (RFC 6040 4.2, figure 4).
#[inline]
pub fn inner_ecn(inner: u8, outer: u8) -> Result<u8, DropReason> {
    /// By inner and outer field, Not-ECT, ECT(1), ECT(0), CE; [`DROP`]: the packet is dropped. A table, because which of
    /// them a packet has is hard to foresee.
    static JOINED: [u8; 16] = [0, 0, 0, DROP, 1, 1, 1, 3, 2, 1, 2, 3, 3, 3, 3, 3];
    const DROP: u8 = 4;
    match JOINED[usize::from((inner & 3) << 2 | outer & 3)] {
        DROP => Err(DropReason::TunnelEcn),
        joined => Ok(joined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves rfc6040-4.2-table, rfc6040-4.2-drop.
    #[test]
    fn rfc6040_4_2_figure_4() {
        const DROP: u8 = 9;
        // rows: inner Not-ECT, ECT(1), ECT(0), CE; columns: outer in the same order of code points
        let table = [[0, 0, 0, DROP], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for (inner, row) in table.iter().enumerate() {
            for (outer, want) in row.iter().enumerate() {
                assert_eq!(inner_ecn(inner as u8, outer as u8).unwrap_or(DROP), *want, "inner {inner} outer {outer}");
            }
        }
    }

    /// Proves rfc2983-3-uniform, rfc2983-3-pipe, rfc4213-3.5-header, rfc6040-4.1-normal.
    #[test]
    fn rfc6040_4_1_and_fixed_tos() {
        assert_eq!(outer_tos(0xb9, None), 0xb9);
        assert_eq!(outer_tos(0xb9, Some(0x20)), 0x21);
    }
}
