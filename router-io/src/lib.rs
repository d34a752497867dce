//! Everything of Duet that touches the kernel: ports, workers, netlink and laboratories of network namespaces.
//! The only home of unsafe code.

pub mod capture;
pub mod clock;
pub mod counting_alloc;
pub mod lab;
pub mod line_alloc;
pub mod machine;
pub mod netlink;
pub mod offload;
pub mod port;
pub mod runtime;
mod sys;
pub mod traffic;
pub mod worker;
