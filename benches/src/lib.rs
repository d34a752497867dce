//! What `cargo bench` and `duet bench` share: routing tables, destination patterns, packets, a router in memory to
//! forward them, and a small measuring loop.
//!
//! See `README.md` beside this crate for the patterns and how to repeat a row elsewhere.

pub mod bed;
pub mod dir24;
pub mod forwarding;
pub mod guarded;
pub mod lookups;
pub mod measure;
pub mod pattern;
pub mod report;
pub mod table;
pub mod traffic;
pub mod translation;
pub mod tunnels;
