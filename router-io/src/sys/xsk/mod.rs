//! AF_XDP sockets: rings of frames shared with the kernel (`linux/if_xdp.h`).
//!
//! A [`Umem`] is memory that both sides see, in chunks; each chunk is the memory of one [`router_core::frame::Frame`]. A
//! frame that is given to the kernel ([`Socket::fill`], [`Socket::transmit`]) is moved into the socket, so nobody can look
//! at it meanwhile; what the kernel gives back ([`Socket::receive`], [`Socket::complete`]) is moved out again. That makes
//! the sharing safe, without a copy. One umem may serve sockets of several devices, so that a frame received from one is
//! sent to another as it is.

mod ring;
mod socket;
mod umem;

#[cfg(test)]
mod tests;

pub use socket::{BindError, BindOptions, BusyPoll, CopyMode, Kick, Socket};
pub use umem::{Umem, UmemConfig};

/// Bytes that the kernel leaves free before a received frame (XDP_PACKET_HEADROOM).
pub const PACKET_HEADROOM: usize = 256;
