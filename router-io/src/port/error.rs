//! What can go wrong when a port is opened: what, which device, and the remedy.

use std::io;
use std::path::PathBuf;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device does not exist.
    #[error("port {port}: no device {device:?} on this host; `ip link` lists what there is")]
    NoDevice {
        /// The port.
        port: String,
        /// The device.
        device: String,
    },
    /// The process lacks a capability.
    #[error("port {port}: cannot {action}: permission denied; run as root or give {capability}")]
    Permission {
        /// The port.
        port: String,
        /// What was tried.
        action: String,
        /// CAP_NET_RAW or CAP_NET_ADMIN.
        capability: &'static str,
    },
    /// The kernel lacks something.
    #[error("port {port}: cannot {action}: {remedy}")]
    Unsupported {
        /// The port.
        port: String,
        /// What was tried.
        action: String,
        /// What helps.
        remedy: &'static str,
    },
    /// Another failure of the kernel.
    #[error("port {port}: cannot {action}: {source}")]
    System {
        /// The port.
        port: String,
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A capture file cannot be read or written.
    #[error("port {port}: {path}: {source}")]
    Capture {
        /// The port.
        port: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, with the offset.
        source: super::pcap_file::CaptureError,
    },
    /// The configuration asks for something impossible.
    #[error("port {port}: {reason}")]
    Config {
        /// The port.
        port: String,
        /// What, and what to do instead.
        reason: String,
    },
}

impl PortError {
    /// An errno from opening something, in words. `capability` is what EPERM and EACCES ask for.
    pub fn system(port: &str, action: impl Into<String>, capability: &'static str, source: io::Error) -> Self {
        let (port, action) = (port.to_owned(), action.into());
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => PortError::Permission { port, action, capability },
            _ => PortError::System { port, action, source },
        }
    }
}

/// CAP_NET_RAW, as named in messages.
pub(crate) const NET_RAW: &str = "CAP_NET_RAW";
/// CAP_NET_ADMIN, as named in messages.
pub(crate) const NET_ADMIN: &str = "CAP_NET_ADMIN";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_port_cause_and_remedy() {
        let e = PortError::system("he", "open /dev/net/tun", NET_ADMIN, io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(
            e.to_string(),
            "port he: cannot open /dev/net/tun: permission denied; run as root or give CAP_NET_ADMIN"
        );
        let e = PortError::NoDevice { port: "lan0".into(), device: "eth9".into() };
        assert_eq!(e.to_string(), "port lan0: no device \"eth9\" on this host; `ip link` lists what there is");
    }
}
