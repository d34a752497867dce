//! The client of brokers elsewhere: gets a tunnel, sets it up here, and tells the broker when this end moves.

pub(crate) mod http;
mod keeper;

pub(crate) use keeper::Keeper;
