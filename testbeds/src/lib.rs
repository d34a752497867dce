//! Simulated networks, labs in network namespaces and the fixtures of Duet's end-to-end tests.

pub mod desk;
pub mod fuzz;
pub mod lab;
pub mod remark;
pub mod sim;
