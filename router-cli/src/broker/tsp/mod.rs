//! The Tunnel Setup Protocol (RFC 5572), over TCP and UDP.
//!
//! * [`wire`]: lines, lengths, the header over UDP
//! * [`auth`]: ANONYMOUS, PLAIN, DIGEST-MD5
//! * [`xml`]: the documents
//! * [`session`]: the conversation, without any I/O: what comes in, what goes out, what to ask the broker
//! * [`mod@serve`] is the sockets

pub(crate) mod auth;
mod serve;
pub(in crate::broker) mod session;
#[cfg(test)]
mod tests;
pub(crate) mod wire;
pub(crate) mod xml;

pub use serve::{Desk, enqueue, serve_signals, serve_tcp, serve_udp};
