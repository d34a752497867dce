//! Laboratories of real Linux hosts in network namespaces, built without any external program.
//!
//! `duet demo` and the end-to-end tests stand on this: [`sandbox`] puts the process where it can touch nothing outside,
//! [`Host`] is one network namespace, [`Net`] wires hosts together, [`probe`] measures by plain sockets what they see.

mod error;
mod host;
pub mod interrupt;
mod net;
pub mod probe;
mod process;
pub mod sandbox;

pub use error::LabError;
pub use host::Host;
pub use net::{End, Net};
pub use process::Process;

#[cfg(test)]
mod tests;
