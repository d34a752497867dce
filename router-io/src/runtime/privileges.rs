//! Which capabilities the ports of a configuration need, and which of them are missing.

use caps::{CapSet, Capability};
use router_core::port::PortKind;
use std::fmt;

/// A capability that is needed and not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// CAP_NET_RAW: packet and raw sockets.
    NetRaw,
    /// CAP_NET_ADMIN: TUN devices, promiscuous mode, keeping the kernel off a device.
    NetAdmin,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::NetRaw => "CAP_NET_RAW",
            Privilege::NetAdmin => "CAP_NET_ADMIN",
        })
    }
}

/// The process may not do what its configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("missing {}; run as root, or: setcap {}+ep PATH-TO-duet", list(.0, " and "), list(.0, ",").to_lowercase())]
pub struct MissingPrivileges(pub Vec<Privilege>);

fn list(privileges: &[Privilege], joint: &str) -> String {
    privileges.iter().map(Privilege::to_string).collect::<Vec<_>>().join(joint)
}

/// What ports of a kind need.
pub fn needed(kind: PortKind) -> &'static [Privilege] {
    match kind {
        PortKind::Packet | PortKind::Datalink => &[Privilege::NetRaw, Privilege::NetAdmin],
        PortKind::RawIp => &[Privilege::NetRaw],
        PortKind::Tun => &[Privilege::NetAdmin],
        PortKind::Memory | PortKind::Pcap | PortKind::Tunnel | PortKind::Loopback => &[],
    }
}

/// Checks that the calling thread has what ports of these kinds need.
pub fn check(kinds: impl IntoIterator<Item = PortKind>) -> Result<(), MissingPrivileges> {
    let mut missing: Vec<Privilege> = kinds.into_iter().flat_map(needed).copied().collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|p| {
        let capability = match p {
            Privilege::NetRaw => Capability::CAP_NET_RAW,
            Privilege::NetAdmin => Capability::CAP_NET_ADMIN,
        };
        // When the kernel does not say, opening the port will.
        !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true)
    });
    if missing.is_empty() { Ok(()) } else { Err(MissingPrivileges(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_missing_and_the_remedy() {
        let e = MissingPrivileges(vec![Privilege::NetRaw, Privilege::NetAdmin]);
        assert_eq!(
            e.to_string(),
            "missing CAP_NET_RAW and CAP_NET_ADMIN; run as root, or: setcap cap_net_raw,cap_net_admin+ep PATH-TO-duet"
        );
        assert_eq!(check([PortKind::Memory, PortKind::Pcap]), Ok(()));
    }
}
