//! The Duet router as a library: tables, decisions and packet rewriting, without I/O, clock or threads.
#![forbid(unsafe_code)]

pub mod addr;
pub mod frame;
pub mod port;
pub mod spec;
pub mod time;
