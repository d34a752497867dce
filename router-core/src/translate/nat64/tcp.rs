//! The life of a TCP connection as a NAT64 sees it (RFC 6146 3.5.2.2).

use serde::{Deserialize, Serialize};

/// States of a TCP session; CLOSED is having none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    /// A SYN came from the IPv4 side.
    V4Init,
    /// A SYN came from the IPv6 side.
    V6Init,
    /// SYNs came from both sides.
    Established,
    /// The IPv4 side has said FIN.
    V4Fin,
    /// The IPv6 side has said FIN.
    V6Fin,
    /// Both have.
    BothFin,
    /// About to go: reset, or silent for too long.
    Trans,
}

/// Which side a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The IPv4 side.
    V4,
    /// The IPv6 side.
    V6,
}

/// The lifetime that a packet sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Leaves it as it is.
    Keep,
    /// TCP_TRANS.
    Transitory,
    /// TCP_EST.
    Established,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

impl TcpState {
    /// The state that a segment with these flags leads to, and the lifetime that it sets.
    pub fn after(self, from: Side, flags: u8) -> (TcpState, Timer) {
        use TcpState as S;
        let (fin, syn, rst) = (flags & FIN != 0, flags & SYN != 0, flags & RST != 0);
        match (self, from) {
            (S::V6Init, Side::V4) if syn => (S::Established, Timer::Established),
            (S::V6Init, Side::V6) if syn => (S::V6Init, Timer::Transitory),
            (S::V4Init, Side::V6) if syn => (S::Established, Timer::Established),
            (S::V4Init | S::V6Init, _) => (self, Timer::Keep),
            (S::Established, _) if rst => (S::Trans, Timer::Transitory),
            (S::Established, Side::V4) if fin => (S::V4Fin, Timer::Established),
            (S::Established, Side::V6) if fin => (S::V6Fin, Timer::Established),
            (S::Established, _) => (S::Established, Timer::Established),
            (S::V4Fin, Side::V6) | (S::V6Fin, Side::V4) if fin => (S::BothFin, Timer::Transitory),
            (S::V4Fin | S::V6Fin, _) => (self, Timer::Established),
            (S::BothFin, _) => (S::BothFin, Timer::Keep),
            (S::Trans, _) if rst => (S::Trans, Timer::Keep),
            (S::Trans, _) => (S::Established, Timer::Established),
        }
    }

    /// Workers may translate segments without SYN, FIN and RST: they change nothing.
    pub fn is_open(self) -> bool {
        matches!(self, TcpState::Established | TcpState::V4Fin | TcpState::V6Fin | TcpState::BothFin)
    }

    /// Segments without SYN, FIN and RST renew the lifetime.
    pub fn kept_by_traffic(self) -> bool {
        matches!(self, TcpState::Established | TcpState::V4Fin | TcpState::V6Fin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6146_3_5_2_2() {
        use Side::*;
        use TcpState::*;
        const ACK: u8 = 0x10;
        let rows = [
            (V6Init, V4, SYN | ACK, Established, Timer::Established),
            (V6Init, V6, SYN, V6Init, Timer::Transitory),
            (V6Init, V4, RST, V6Init, Timer::Keep),
            (V6Init, V6, ACK, V6Init, Timer::Keep),
            (V4Init, V6, SYN | ACK, Established, Timer::Established),
            (V4Init, V4, SYN, V4Init, Timer::Keep),
            (Established, V4, FIN | ACK, V4Fin, Timer::Established),
            (Established, V6, FIN | ACK, V6Fin, Timer::Established),
            (Established, V4, RST, Trans, Timer::Transitory),
            (Established, V6, RST, Trans, Timer::Transitory),
            (Established, V6, ACK, Established, Timer::Established),
            (V4Fin, V6, FIN, BothFin, Timer::Transitory),
            (V4Fin, V4, FIN, V4Fin, Timer::Established),
            (V6Fin, V4, FIN, BothFin, Timer::Transitory),
            (V6Fin, V4, ACK, V6Fin, Timer::Established),
            (BothFin, V4, ACK, BothFin, Timer::Keep),
            (BothFin, V6, SYN, BothFin, Timer::Keep),
            (Trans, V4, RST, Trans, Timer::Keep),
            (Trans, V6, ACK, Established, Timer::Established),
        ];
        for (state, from, flags, next, timer) in rows {
            assert_eq!(state.after(from, flags), (next, timer), "{state:?} {from:?} {flags:#x}");
        }
        // What workers do alone must change nothing but the lifetime.
        for s in [V4Init, V6Init, Established, V4Fin, V6Fin, BothFin, Trans].into_iter().filter(|s| s.is_open()) {
            for from in [V4, V6] {
                let (next, timer) = s.after(from, ACK);
                assert_eq!((next, timer == Timer::Established), (s, s.kept_by_traffic()));
            }
        }
    }
}
