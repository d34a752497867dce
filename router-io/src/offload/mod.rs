//! Flow offload: a cache in the kernel of what the data plane has decided about flows between `packet` ports.
//!
//! Off unless asked for. The programs and what they share with us are in [`crate::sys::bpf::flow`]; [`Programs`] puts them on a
//! port's sockets and device; [`table::FlowTable`] is the list of flows as the control thread keeps it. What may be in it decides
//! [`router_core::router::Router::flow_way`], on examples, by the data plane's own code.
//!
//! Every published change begins a new generation, which makes all entries void at once; flows that still have packets are
//! learned again. Nothing here outlives the process: maps, programs and links go with their descriptors.

pub mod table;

use crate::sys::bpf::flow::{FlowMaps, KEY};
use crate::sys::bpf::{Link, LoadError, Way, attached_traffic};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
/// Flows that can be offloaded at the same time, if nobody says how many.
pub const DEFAULT_FLOWS: u32 = 65_536;
/// As many as may be asked for: some 300 bytes of kernel memory each.
pub const MOST_FLOWS: u32 = 1 << 20;

/// A flow, as its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The device where it comes in.
    pub ifindex: u32,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Upper-layer protocol: TCP or UDP.
    pub proto: u8,
    /// TOS or traffic class.
    pub tclass: u8,
    /// IPv6 flow label.
    pub label: u32,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl FlowKey {
    /// From the kernel's key.
    pub fn read(key: &[u8; KEY]) -> FlowKey {
        let native = |at: usize| u32::from_ne_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
        let port = |at: usize| u16::from_be_bytes([key[at], key[at + 1]]);
        let v6 = key[5] == 6;
        let addr = |at: usize| match (v6, key[at..].first_chunk::<16>(), key[at..].first_chunk::<4>()) {
            (true, Some(a), _) => IpAddr::from(*a),
            (_, _, Some(a)) => IpAddr::from(*a),
            _ => IpAddr::from([0; 4]),
        };
        let word = u32::from_be_bytes([key[8], key[9], key[10], key[11]]);
        let (tclass, label) = if v6 { ((word >> 20) as u8, word & 0xf_ffff) } else { (native(8) as u8, 0) };
        let (ifindex, proto) = (native(0), key[4]);
        FlowKey { ifindex, v6, proto, tclass, label, src: addr(16), dst: addr(32), sport: port(12), dport: port(14) }
    }
}

/// Why flows cannot be offloaded.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// The maps cannot be made.
    #[error("cannot make BPF maps: {source}{}", hint(.source))]
    Maps {
        /// Its answer.
        source: io::Error,
    },
    /// The programs are not taken.
    #[error("cannot load the BPF programs: {0}")]
    Load(io::Error),
    /// They cannot be put on a device.
    #[error("cannot attach the BPF program to the device: {source}{}", kernel(.source))]
    Attach {
        /// Its answer.
        source: io::Error,
    },
    /// They cannot be put on a socket.
    #[error("cannot attach the BPF filter to a packet socket: {0}")]
    Filter(io::Error),
}

fn hint(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ": needs CAP_BPF and CAP_NET_ADMIN",
        Some(libc::ENOMEM) => ": ask for fewer flows, or raise the memory limit",
        _ => "",
    }
}

fn kernel(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EINVAL) => ": needs Linux 6.6 (TCX)",
        Some(libc::EPERM | libc::EACCES) => ": needs CAP_BPF and CAP_NET_ADMIN",
        _ => "",
    }
}

/// The maps, for whoever opens ports.
pub fn maps(flows: u32) -> Result<Arc<FlowMaps>, OffloadError> {
    let mark = RandomState::new().build_hasher().finish();
    FlowMaps::new(flows.clamp(1, MOST_FLOWS), mark).map(Arc::new).map_err(|source| OffloadError::Maps { source })
}

/// The programs on one port's device; its filter is on the sockets, and goes with them.
#[derive(Debug)]
pub struct Programs {
    _link: Link,
}

impl Programs {
    /// Puts the filter on the sockets and the forwarder on the device `ifindex` of the calling thread's namespace. The forwarder first:
    /// a frame that the filter has taken must find it.
    pub fn attach<'a>(
        maps: &FlowMaps,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
        ifindex: u32,
        mac: [u8; 6],
    ) -> Result<Self, OffloadError> {
        let failed = |e: LoadError| OffloadError::Load(e.into_io());
        let forwarder = maps.forwarder().map_err(failed)?;
        let filter = maps.filter(ifindex, mac).map_err(failed)?;
        let link = forwarder.attach_traffic(ifindex, Way::In).map_err(|source| OffloadError::Attach { source })?;
        for socket in sockets {
            filter.attach_socket(socket).map_err(OffloadError::Filter)?;
        }
        Ok(Programs { _link: link })
    }
}

/// Whether this process may offload flows here: makes the maps and loads the programs, and lets go of them.
pub fn probe() -> Result<(), OffloadError> {
    let maps = maps(1)?;
    let failed = |e: LoadError| OffloadError::Load(e.into_io());
    maps.filter(LOOPBACK, [0; 6]).map_err(failed)?;
    // The only device that is always there. Nothing that comes in by it bears the mark.
    maps.forwarder()
        .map_err(failed)?
        .attach_traffic(LOOPBACK, Way::In)
        .map(drop)
        .map_err(|source| OffloadError::Attach { source })
}

/// Programs that look at what comes in by the device `ifindex` of the calling thread's network namespace, anybody's.
pub fn programs_on(ifindex: u32) -> io::Result<u32> {
    attached_traffic(ifindex, Way::In)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_whose_packets_they_are() {
        let mut key = [0; KEY];
        key[..4].copy_from_slice(&7u32.to_ne_bytes());
        (key[4], key[5]) = (6, 4);
        key[8..12].copy_from_slice(&0xb8u32.to_ne_bytes());
        key[12..16].copy_from_slice(&[0x12, 0x34, 0, 80]);
        key[16..20].copy_from_slice(&[192, 0, 2, 1]);
        key[32..36].copy_from_slice(&[198, 51, 100, 9]);
        let k = FlowKey::read(&key);
        assert_eq!((k.ifindex, k.v6, k.proto, k.tclass, k.label), (7, false, 6, 0xb8, 0));
        assert_eq!((k.src.to_string(), k.dst.to_string()), ("192.0.2.1".into(), "198.51.100.9".into()));
        assert_eq!((k.sport, k.dport), (0x1234, 80));
        key[5] = 6;
        key[8..12].copy_from_slice(&[0x6b, 0x81, 0x23, 0x45]);
        key[16..32].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let k = FlowKey::read(&key);
        assert_eq!((k.v6, k.tclass, k.label, k.src.to_string()), (true, 0xb8, 0x12345, "2001:db8::1".to_owned()));
    }

    #[test]
    fn errors_say_how_to_mend() {
        let os = |n| io::Error::from_raw_os_error(n);
        let said = OffloadError::Attach { source: os(libc::EINVAL) }.to_string();
        assert!(said.ends_with("needs Linux 6.6 (TCX)"), "{said}");
        let said = OffloadError::Maps { source: os(libc::EPERM) }.to_string();
        assert!(said.ends_with("needs CAP_BPF and CAP_NET_ADMIN"), "{said}");
    }
}
