//! Test traffic for benchmarks of forwarding: frames, generators that send them at a set rate, sinks that count what
//! arrives and say how long each probe was under way.
//!
//! A generator puts frames of a [`FrameSet`] on a device as fast as it can or at a constant rate ([`generator`]); the
//! back ends are XDP live frames ([`live`]) and AF_PACKET ([`packet_tx`]). A sink ([`sink`]) counts exactly the test
//! frames, by an XDP program that drops them at the earliest place, or by the device's counters where programs may not
//! be loaded. Probes carry a sequence number and their departure time; see [`probe`].

pub mod counters;
mod cpu;
pub mod frames;
pub mod generator;
mod kick;
pub mod live;
pub mod napi;
pub mod packet_tx;
pub mod probe;
pub mod sink;
pub mod tcp;
pub mod tunnel_end;

pub use cpu::{affinity, pin_process, pin_thread_of};
pub use frames::{Encapsulation, FrameSet, Udp};
pub use generator::{Engine, Generator, Offer, Pace, ProbePlan, Sent, Taken, Transmitter};
pub use probe::{Delays, Probe};
pub use sink::{Counts, Layout, Sink, SinkError};

/// UDP destination port of the load: discard (RFC 863).
pub const LOAD_PORT: u16 = 9;
/// UDP destination port of probes: echo (RFC 862), as RFC 2544 C.2.6.4 has test frames.
pub const PROBE_PORT: u16 = 7;
/// Bytes of the frame check sequence, which counts in frame sizes and is not in any buffer.
pub const FCS: usize = 4;

#[cfg(test)]
mod tests;
