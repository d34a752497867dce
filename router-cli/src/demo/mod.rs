//! `duet demo`.

pub mod instance;
