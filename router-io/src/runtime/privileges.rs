//! Which capabilities the ports of a configuration need, which of them are missing, and giving up all others.
//!
//! Capabilities belong to threads, and a new thread has those of the one that started it. Once everything is open:
//!
//! - workers have none: an open socket or TUN device sends and receives without;
//! - the control thread keeps CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK: ports are opened when a command adds them, when the
//!   configuration is read again, and when a device returns;
//! - threads that read files keep what overrides file permissions only if they cannot do without.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use router_core::port::PortKind;
use std::fmt;

/// A capability that is needed and not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// CAP_NET_RAW: packet and raw sockets.
    NetRaw,
    /// CAP_NET_ADMIN: TUN devices, promiscuous mode, keeping the kernel off a device.
    NetAdmin,
    /// CAP_BPF: XDP programs.
    Bpf,
    /// CAP_IPC_LOCK: memory shared with the kernel beyond RLIMIT_MEMLOCK.
    IpcLock,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::NetRaw => "CAP_NET_RAW",
            Privilege::NetAdmin => "CAP_NET_ADMIN",
            Privilege::Bpf => "CAP_BPF",
            Privilege::IpcLock => "CAP_IPC_LOCK",
        })
    }
}

impl Privilege {
    fn capability(self) -> Capability {
        match self {
            Privilege::NetRaw => Capability::CAP_NET_RAW,
            Privilege::NetAdmin => Capability::CAP_NET_ADMIN,
            Privilege::Bpf => Capability::CAP_BPF,
            Privilege::IpcLock => Capability::CAP_IPC_LOCK,
        }
    }
}

/// What lets a thread open files whose owner and mode do not.
const FILES: [Capability; 3] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER];

/// What opening ports may need.
pub const OF_PORTS: [Privilege; 4] = [Privilege::NetRaw, Privilege::NetAdmin, Privilege::Bpf, Privilege::IpcLock];

/// Takes from the calling thread, for good, every capability that is not in `keep`. Where `files_open` then says that
/// the files it will need are out of reach, it keeps the capabilities for those, too. Returns what is left, by name.
///
/// Errors when the kernel refuses to answer or to change (a seccomp filter, most likely): then nothing is certain.
pub fn keep_only(keep: &[Privilege], files_open: impl FnOnce() -> bool) -> Result<Vec<String>, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let of_these =
        |list: &[Capability]| list.iter().copied().filter(|c| permitted.contains(c)).collect::<CapsHashSet>();
    let mut kept = of_these(&keep.iter().map(|p| p.capability()).collect::<Vec<_>>());
    caps::set(None, CapSet::Effective, &kept)?;
    if !files_open() {
        kept.extend(of_these(&FILES));
        caps::set(None, CapSet::Effective, &kept)?;
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    let mut names: Vec<String> = kept.iter().map(Capability::to_string).collect();
    names.sort_unstable();
    Ok(names)
}

/// As [`keep_only`], telling the log. A router that cannot give up capabilities runs with them.
pub fn keep_only_and_tell(thread: &str, keep: &[Privilege], files_open: impl FnOnce() -> bool) {
    match keep_only(keep, files_open) {
        Ok(kept) => tracing::debug!(thread, kept = kept.join(","), "gave up all other capabilities"),
        Err(e) => tracing::warn!(thread, error = %e, "cannot give up capabilities"),
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
        PortKind::Packet | PortKind::Datalink | PortKind::Auto => &[Privilege::NetRaw, Privilege::NetAdmin],
        PortKind::Xdp => &[Privilege::NetRaw, Privilege::NetAdmin, Privilege::Bpf],
        PortKind::RawIp => &[Privilege::NetRaw],
        PortKind::Tun | PortKind::Tap => &[Privilege::NetAdmin],
        PortKind::Memory
        | PortKind::Wireguard
        | PortKind::Pcap
        | PortKind::Udp
        | PortKind::Tunnel
        | PortKind::Translator
        | PortKind::Loopback
        | PortKind::Vrf => &[],
    }
}

/// Checks that the calling thread has what ports of these kinds need.
pub fn check(kinds: impl IntoIterator<Item = PortKind>) -> Result<(), MissingPrivileges> {
    let mut missing: Vec<Privilege> = kinds.into_iter().flat_map(needed).copied().collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|p| {
        // When the kernel does not say, opening the port will.
        !caps::has_cap(None, CapSet::Effective, p.capability()).unwrap_or(true)
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

    #[test]
    fn a_thread_keeps_what_was_asked_for_and_no_more() {
        let effective = || caps::read(None, CapSet::Effective).unwrap();
        let before = effective();
        let has = |list: &[Capability]| list.iter().copied().filter(|c| before.contains(c)).collect::<CapsHashSet>();
        std::thread::scope(|s| {
            s.spawn(|| {
                keep_only(&[Privilege::NetRaw], || false).unwrap();
                let want = [&[Capability::CAP_NET_RAW][..], &FILES].concat();
                assert_eq!(effective(), has(&want));
                keep_only(&[Privilege::NetRaw, Privilege::NetAdmin], || true).unwrap();
                assert_eq!(effective(), has(&[Capability::CAP_NET_RAW]), "what is gone does not come back");
                assert_eq!(keep_only(&[], || true).unwrap(), Vec::<String>::new());
                assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), CapsHashSet::new());
            });
        });
        assert_eq!(effective(), before, "other threads are not touched");
    }
}
