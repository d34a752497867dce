//! System calls that no crate offers in a safe form, each behind a small safe function. All unsafe code of ports and
//! workers lives here.

pub mod bpf;
pub mod cycles;
pub mod device;
pub mod fetch;
pub mod gso;
pub mod mmsg;
pub mod opt;
pub mod packet;
pub mod packet_ring;
pub mod sched;
pub mod signal;
pub mod tun;
pub mod wake;
pub mod xsk;
