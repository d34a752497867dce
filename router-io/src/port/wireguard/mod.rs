//! `wireguard`: packets to and from WireGuard peers over a UDP socket of the host.
//!
//! The protocol is defguard_boringtun's; around it stands here what makes it a port:
//!
//! | | |
//! |---|---|
//! | [`spec`] | a port and its peers as written and as shown |
//! | [`keys`] | keys, from files that nobody else may read |
//! | `engine` | sessions, cryptokey routing, timers, floods; no socket, no thread |
//! | `allowed`, `flood` | which peer an address belongs to; handshakes per source |
//! | `socket` | the UDP socket, with segmentation by the kernel in both directions |
//! | `thread` | one thread of the port, between socket and queues |
//! | `queue`, `parcel` | what a worker sees: bounded channels of packets, packed by the batch |
//! | `names` | endpoints that are names |
//! | `rehearsal` | two ends in memory, for fuzz targets |
//!
//! A worker hands a batch over in one piece and goes on; encryption never runs on it. Whatever the thread loses on the way is
//! reported back to the workers' counters under its reason.

pub mod keys;
pub mod spec;

#[cfg(feature = "wireguard")]
mod allowed;
#[cfg(feature = "wireguard")]
mod engine;
#[cfg(feature = "wireguard")]
mod flood;
#[cfg(feature = "wireguard")]
mod handle;
#[cfg(feature = "wireguard")]
mod names;
#[cfg(feature = "wireguard")]
mod parcel;
#[cfg(feature = "wireguard")]
mod queue;
#[cfg(feature = "wireguard")]
#[doc(hidden)]
pub mod rehearsal;
#[cfg(feature = "wireguard")]
mod socket;
#[cfg(feature = "wireguard")]
mod thread;

#[cfg(all(test, feature = "wireguard"))]
mod tests;

#[cfg(feature = "wireguard")]
pub use handle::{Handle, open};

#[cfg(not(feature = "wireguard"))]
mod without;
#[cfg(not(feature = "wireguard"))]
pub use without::{Handle, open};

/// MTU unless configured: what a path of 1500 bytes over IPv6 leaves, as wg-quick has it.
pub const DEFAULT_MTU: u32 = 1420;
