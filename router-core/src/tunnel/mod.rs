//! Tunnels: a tunnel is a next hop stacked on the object that carries it, its outer header ready made.
//!
//! One mechanism for all modes. What a mode is lies in one small file each ([`mode`]): which family is outside, which
//! inside, what stands between. Everything else is done here, once:
//!
//! | | |
//! |---|---|
//! | [`outer`] | the ready-made header: addresses, DSCP, ECN, TTL, DF, flow label |
//! | [`gre`], [`udp`], [`limit`] | what may stand between the outer header and the packet inside |
//! | [`derived`] | 6rd and 6to4: the peer is part of the inner address |
//! | [`encapsulate`], [`decapsulate`] | a packet's way in and out |
//! | [`gre_keepalive`] | questions that carry their own answer |
//! | [`path`] | bare or in UDP, where a tunnel may go both ways |
//! | [`gate`] | what is checked of everything that comes out |
//! | [`spec`] | a tunnel as written |

pub mod decapsulate;
pub mod derived;
pub mod ecn;
pub mod encapsulate;
pub mod gate;
pub mod gre;
pub mod gre_keepalive;
pub mod limit;
pub mod mode;
pub mod outer;
pub mod path;
pub mod spec;
pub mod udp;

pub use encapsulate::Encapsulate;
pub use gate::{Gate, TunnelState};
pub use mode::{Carries, Shape};
pub use outer::{Inner, Outer, OuterV4, OuterV6};
pub use path::Path;
pub use spec::{FlowLabel, TunnelMode, TunnelOptions, TunnelSpec};

/// The least MTU that an IPv6 link must offer (RFC 8200 5).
pub const IPV6_MIN_MTU: u32 = 1280;

/// The least MTU of an IPv4 link (RFC 791 3.2).
pub const IPV4_MIN_MTU: u32 = 68;

/// TTL of outer packets unless configured (RFC 4213 3.3 and RFC 2473 6.3 want a fixed value; RFC 1700's 64).
pub const DEFAULT_TTL: u8 = 64;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: u32 = 20;

/// Bytes of an IPv6 header.
pub const IPV6_HEADER: u32 = 40;
