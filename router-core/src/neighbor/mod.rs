//! Neighbours: one state machine (RFC 4861 7.3) and one bounded cache for ARP (RFC 826, RFC 1122 2.3.2) and neighbour
//! discovery (RFC 4861 7).
//!
//! - [`nud`]: the state machine of one neighbour, without table, timers or messages.
//! - [`NeighborTable`]: the cache, packets that wait, deadlines, limits; it tells what is to be done as [`NeighborEvent`]s.
//! - [`OwnAddresses`]: the router's own addresses: duplicate detection, announcements, defence.
//! - [`mld`]: which groups the router is in, for those who look into multicast (RFC 3810).
//! - [`arp`], [`ndp`]: reading, checking and writing messages.
//! - [`NeighborTable::arp_input`], [`NeighborTable::ndp_input`]: from a received message to the cache and the answer.

mod admin;
pub mod arp;
mod input;
pub mod mld;
pub mod ndp;
pub mod nud;
mod own;
mod table;
mod unicast;

pub use admin::{NeighError, Neighbor, SetMode};
pub use input::{ArpReceived, NdpReceived, Outcome, write_announcement, write_probe, write_solicit};
pub use nud::Evidence;
pub use own::{Conflict, OwnAddresses, OwnEvent};
pub use table::{NeighborEvent, NeighborTable, Resolution};
pub use unicast::answer_without_link;

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod table_tests;
