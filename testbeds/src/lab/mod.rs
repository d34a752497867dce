//! Labs of real Linux hosts: the fixtures that the end-to-end tests share.
//!
//! A [`Bed`] is a network of namespaces with routers in it. Each router is described once and played by our own process
//! or by the kernel ([`Dut`]): so every lab can be run with kernel routers alone, which tests the lab itself. [`check`]
//! is what every lab does: ping of every size, UDP, TCP, traceroute.

mod bed;
pub mod check;
mod config;
pub mod marks;
pub mod routes;
pub mod tools;
pub mod uml;
mod watching;

pub use bed::{Bed, Dut};
pub use config::RouterConfig;
pub use watching::Watching;

/// The error of a lab: anything, with its words.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
