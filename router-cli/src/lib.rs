//! The program `duet`: iproute2's grammar and output, the configuration, the control socket.
//!
//! Everything is here so that a second binary can be built from it; the program itself only calls [`main`].

mod app;
mod backend;
mod bench;
#[cfg(feature = "broker")]
mod broker;
pub mod command;
mod complaint;
pub mod config;
pub mod control;
pub mod demo;
mod diff;
mod doctor;
#[doc(hidden)]
pub mod fake;
pub mod grammar;
mod graph;
mod monitor;
pub mod output;
mod run;
mod shell;
#[cfg(feature = "broker")]
#[doc(hidden)]
pub mod strangers;
mod terminal;
mod top;
mod topology;
mod tsp_url;

pub use app::run as run_with_args;

/// The program.
pub fn main() -> std::process::ExitCode {
    app::run(std::env::args_os())
}
