//! What a test needs to sit in front of a router as a person does: a router that needs no network ([`Plain`]) and a
//! terminal with a screen and keys ([`Terminal`]).

mod plain;
mod terminal;

pub use plain::{Plain, eventually};
pub use terminal::{End, Terminal};
