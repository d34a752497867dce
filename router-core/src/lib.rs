//! The Duet router as a library: tables, decisions and packet rewriting, without I/O, clock or threads.
#![forbid(unsafe_code)]

pub mod addr;
pub mod advert;
pub mod checksum;
pub mod counters;
pub mod decap;
pub mod drop_reason;
pub mod explain;
pub mod fib;
pub mod filter;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod frame;
pub mod headers;
pub mod icmp;
pub mod irdp;
mod jitter;
pub mod journal;
pub mod martian;
pub mod neighbor;
mod next_hop;
pub mod object;
pub mod observe;
pub mod offload;
pub mod packet;
pub mod policy;
pub mod port;
mod resolve;
pub mod rib;
pub mod router;
pub mod routing;
pub mod settings;
pub mod spec;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod time;
pub mod trace;
pub mod translate;
pub mod tunnel;
pub mod worker;
