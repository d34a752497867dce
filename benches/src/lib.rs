//! What the benches share: routing tables, destination patterns, packets, and a small measuring loop.
//!
//! See `README.md` beside this crate for the patterns and how to repeat a row elsewhere.

pub mod dir24;
pub mod measure;
pub mod table;
pub mod traffic;
