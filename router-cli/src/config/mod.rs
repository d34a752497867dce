//! The configuration: one TOML file whose routes are lines of iproute2's grammar. docs/configuration.md describes it.
//!
//! Reading gives a [`Plan`], the typed desired state, or every [`Problem`] at once, each with file, line, column and
//! remedy. Two plans give the [`Step`]s that lead from one to the other, and back when one of them fails.

mod broker;
mod check;
mod diff;
mod discover;
mod filter;
mod ipv4_options;
mod irdp;
mod lines;
mod order;
mod parse;
mod plan;
mod problem;
mod reader;
mod translate;
pub(crate) mod tunnel;
mod vrf;
mod wireguard;

pub use broker::{BrokerPlan, JoinPlan, PoolPlan};
pub use diff::{Change, Step, Target, apply, diff};
pub(crate) use discover::discover;
pub use plan::{LinkLocal, Plan, PortPlan, RouterPlan, TunnelPlan, VrfPlan};
pub(crate) use problem::nearest;
pub use problem::{ConfigError, Problem};

use std::path::Path;

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Plan, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read { path: path.to_owned(), source: e })?;
    read(&text).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// Reads and checks a text. The problems are in the order of their places.
pub fn read(text: &str) -> Result<Plan, Vec<Problem>> {
    parse::parse(text)
}

#[cfg(test)]
mod tests;
