//! Policy routing: rules that say in which table a packet is looked up, in the words of `ip rule`.
//!
//! - [`RuleSpec`] is a rule as written and shown, [`Rules`] the ordered lists of both families (the control side's).
//! - [`Policy`] is what a snapshot carries of them: names are port numbers, prefixes are masks. A router that has only the
//!   rules it was born with has none, and pays nothing: a packet is then looked up in the table of its port.
//!
//! # The rules at the start
//!
//! As on Linux: 0 `lookup local`, 32766 `lookup main`, for IPv4 also 32767 `lookup default`; with the first VRF comes 1000
//! `lookup [l3mdev-table]`. Tables `local`, `main` and `default` are compiled into one ([`crate::tables::domain_of`]), so
//! `lookup local` stands for own and broadcast addresses and `lookup main` for the rest of all three.
//!
//! # Where a VRF differs from Linux's
//!
//! - `lookup local` asks for own addresses of the packet's *own* VRF, not for those of the router outside of it: addresses
//!   may overlap.
//! - A packet that its VRF has no route for does not fall into `main` by the rules of the start. Linux lets it, unless the
//!   VRF has a default route. Any rule that selects something, or names another table, holds for packets of VRFs as it
//!   says: that is the way to leak by rule.

mod compiled;
mod key;
mod list;
mod rule;
#[cfg(test)]
mod tests;

pub use compiled::{Decision, Policy};
pub use key::Key;
pub use list::{RuleError, Rules};
pub use rule::{Mark, PortSpan, RuleAction, RuleSpec};

/// Priority of the rule that comes with the first VRF.
pub const L3MDEV_PRIORITY: u32 = 1000;
