//! Simulated networks, labs in network namespaces and end-to-end tests of Duet.

pub mod lab;
