//! IP fragments: cutting IPv4 packets that are too long for a link (RFC 791 3.2), and bounded reassembly of what is
//! addressed to the router itself (RFC 791, RFC 815, RFC 8200 4.5).
//!
//! Routers never fragment IPv6 (RFC 8200 5) but what they send themselves, nor reassemble what they forward.

pub mod reassembly;
mod source;
mod split;

pub use reassembly::{Expired, Limits, Pushed, Reassembler};
pub use source::fragment_ipv6;
pub use split::{FragmentError, fragment_ipv4};
