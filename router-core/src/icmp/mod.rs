//! ICMP messages that the router sends: errors of both families, echo replies; when they may be sent, from which source
//! address, and how often.
//!
//! An error is made in steps, all free of side effects: [`error_for`] says which error a drop reason and a packet call
//! for, if any; [`Limiter`] whether it may be sent now; [`error_source`] from which address; [`write_error`] writes it.

mod answer;
mod back;
mod build;
mod echo;
mod error;
mod extension;
mod limit;
mod offender;
mod redirect;
mod source;
#[cfg(test)]
mod tests;

pub use answer::{error_for, error_wanted};
pub(crate) use back::send_back_along;
pub(crate) use build::{TTL, set_ttl};
pub use build::{write_error, write_extended_error};
pub use echo::echo_reply;
pub use error::{IcmpError, UnreachableV4, UnreachableV6};
pub use extension::Extension;
pub use limit::{LimitKind, Limiter};
pub use offender::Offender;
pub use redirect::{Redirect, redirect, write_redirect_v6};
pub use source::{SourceRule, answer_source, error_source, error_source_because};
