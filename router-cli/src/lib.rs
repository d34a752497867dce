//! The program `duet`: iproute2's grammar and output, the configuration, the control socket.

pub mod control;
pub mod grammar;
