//! The far end of a 6in4 tunnel, on a host whose kernel may lack the tunnel driver: two programs on a device take outer headers
//! off what comes in and put them on what goes out. The host's own TCP works through it as through a tunnel device,
//! super-frames included, so that a device under test can be measured alone.

use crate::sys::bpf::{Link, Program, Way};
use crate::sys::device::Device;
use std::io;
use std::net::Ipv4Addr;

/// A tunnel's end, there until it is dropped.
#[derive(Debug)]
pub struct TunnelEnd {
    _in: Link,
    _out: Link,
}

impl TunnelEnd {
    /// On `device` of the calling thread's network namespace: everything to global IPv6 addresses goes in an IPv4 header from
    /// `local` to `remote`. The next hop's link-layer address is that of the host's IPv6 route. Linux 6.6.
    pub fn open(device: &str, local: Ipv4Addr, remote: Ipv4Addr) -> io::Result<Self> {
        let index = Device::new(device)?.index()?;
        let load = |p: Result<Program, crate::sys::bpf::LoadError>| p.map_err(crate::sys::bpf::LoadError::into_io);
        Ok(TunnelEnd {
            _in: load(Program::decapsulate())?.attach_traffic(index, Way::In)?,
            _out: load(Program::put_on(local, remote))?.attach_traffic(index, Way::Out)?,
        })
    }
}
