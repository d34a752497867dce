//! Everything of Duet that touches the kernel: ports, workers, netlink and laboratories of network namespaces.
//! The only home of unsafe code.

pub mod counting_alloc;
pub mod lab;
pub mod netlink;
