//! The client of brokers elsewhere: gets a tunnel, sets it up here, and tells the broker when this end moves.
//!
//! * [`keeper`]: the tunnels, and when their brokers are asked; [`plumb`]: what the router is told of them
//! * [`http`]: brokers like ours, by their JSON API; [`tsp`]: anybody's that speaks RFC 5572

pub(crate) mod http;
mod joined;
mod keeper;
mod plumb;
mod tsp;

pub(crate) use keeper::Keeper;
